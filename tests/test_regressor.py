"""`SSNRegressor`: what it learns, its targets and weights, and how its fits go on."""

import inspect
import re
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from zoo import short_confirmations

from ssn_estimators import SSNClassifier, SSNRegressor, fit_many

RNG = np.random.RandomState(0)
X = RNG.uniform(-1, 1, (200, 4))
Y = np.column_stack([X @ [1.0, -2.0, 0.5, 0.0], X[:, 3] - X[:, 0]])
y = Y[:, 0]
BRIEF = {"max_iter": 12, "growth_iter": 3, "burn_in": 20.0, "window": 20.0, "random_state": 0}


@pytest.fixture(autouse=True)
def short():
    with short_confirmations(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def brief(**parameters):
    return SSNRegressor(**BRIEF | parameters)


@pytest.fixture(scope="module")
def network():
    with short_confirmations():
        return SSNRegressor(max_iter=300, random_state=0).fit(X, Y)


def test_linear_targets_are_learned(network):
    found = network.predict(X)
    assert found.shape == Y.shape
    assert found.dtype == float
    assert (r2_score(Y, found, multioutput="raw_values") > 0.97).all()
    assert network.score(X, Y) == r2_score(Y, found)
    assert network.stability_ == 1.0
    assert network.n_outputs_ == len(network.readout_bias_) == 2


def test_answers_are_the_readout_of_potentials_in_units_of_the_targets(network):
    scaler = network.target_scaler_
    assert_allclose(scaler.mean_, Y.mean(0), rtol=1e-12)
    assert_allclose(scaler.scale_, Y.std(0), rtol=1e-12)
    outputs = network.transform(X) @ network.readout_weights_.T + network.readout_bias_
    assert_allclose(network.predict(X), outputs * Y.std(0) + Y.mean(0), rtol=1e-4, atol=1e-5)


def test_closure_answers_as_simulations_do(network):
    noise = (network.predict(X) - Y).std(0)
    assert (np.abs(network.predict(X, method="closure") - network.predict(X)).mean(0) < noise).all()
    with pytest.raises(ValueError, match="method must be one of"):
        network.predict(X, method="guess")


@pytest.mark.slow
def test_what_is_not_linear_is_learned_better_than_by_a_line():
    X, y = make_friedman1(400, noise=0.0, random_state=0)
    line = LinearRegression().fit(X[:300], y[:300]).score(X[300:], y[300:])
    ssn = SSNRegressor(max_iter=400, random_state=0).fit(X[:300], y[:300])
    # a third of what a line leaves unexplained, at most
    assert 1 - ssn.score(X[300:], y[300:]) < (1 - line) / 3


@pytest.mark.parametrize("factor", [2.0**-60, 1024.0])
def test_units_of_targets_do_not_matter(factor):
    """A power of two is exact."""
    one, other = brief().fit(X, Y), brief().fit(X, factor * Y)
    assert one.loss_curve_ == other.loss_curve_
    assert_allclose(other.predict(X), factor * one.predict(X), rtol=1e-12)


def test_shapes_of_targets():
    flat, column = brief().fit(X, y), brief().fit(X, y[:, None])
    assert flat.predict(X).shape == (200,)
    assert column.predict(X).shape == (200, 1)
    assert_array_equal(column.predict(X)[:, 0], flat.predict(X))
    assert brief(max_iter=2).fit(X, Y).predict(X[:1]).shape == (1, 2)


def same(one, other):
    assert one.loss_curve_ == other.loss_curve_
    assert_array_equal(one.predict(X), other.predict(X))
    assert_array_equal(one.circuit_.weights, other.circuit_.weights)


def test_order_of_samples_does_not_matter():
    order = RNG.permutation(200)
    same(brief().fit(X, Y), brief().fit(X[order], Y[order]))


def test_weights_are_as_good_as_copies():
    weights = RNG.randint(0, 4, 200)
    copies = np.repeat(np.arange(200), weights)
    weighted = brief(early_stopping=True).fit(X, y, sample_weight=weights)
    same(weighted, brief(early_stopping=True).fit(X[copies], y[copies]))
    same(weighted, brief(early_stopping=True).fit(X, y, sample_weight=4 * weights))
    assert weighted.loss_curve_ != brief(early_stopping=True).fit(X, y).loss_curve_


def test_contradictions_are_settled_by_weight():
    """The best answer to inputs that have two targets is the weighted mean of these."""
    twice, targets = np.vstack([X, X]), np.repeat([0.0, 1.0], 200)
    weights = np.repeat([1.0, 3.0], 200)
    ssn = SSNRegressor(max_iter=200, random_state=0).fit(twice, targets, sample_weight=weights)
    assert_allclose(ssn.predict(X).mean(), 0.75, atol=0.01)
    assert_allclose(ssn.predict(X), 0.75, atol=0.15)


def test_targets_that_do_not_vary():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ssn = brief().fit(X, np.full(200, 7.0))
    assert ssn.n_attempts_ == 1
    assert_allclose(ssn.predict(X), 7.0, atol=1.0)


def test_targets_without_a_relation_to_inputs():
    with pytest.warns(ConvergenceWarning, match="learned nothing: its loss is that of the mean of"):
        brief(learning_rate_init=1e-9).fit(X, y)


def test_early_stopping_keeps_the_network_that_explains_most():
    ssn = brief(max_iter=200, early_stopping=True, n_iter_no_change=50).fit(X, y)
    assert len(ssn.validation_scores_) == 4
    assert ssn.best_validation_score_ == max(ssn.validation_scores_) <= 1
    given = brief(max_iter=60).fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])
    assert len(given.validation_scores_) == 2
    # no other network was kept than the one that was scored
    assert given.best_validation_score_ == given.score(X[150:], y[150:])


def test_partial_fit_goes_on_in_the_units_of_the_first_call():
    ssn = brief(batch_size=50)
    for part in np.split(np.arange(200), 4):
        ssn.partial_fit(X[part], y[part])
        scaler = ssn.target_scaler_
        assert_allclose(scaler.mean_, y[:50].mean(), rtol=1e-12)
    # growth of three stages, and then a step each
    assert ssn.n_iter_ == 2 * 3 + 4
    weights = np.arange(50.0)
    again = brief(batch_size=50).partial_fit(X[:50], y[:50], weights)
    assert_allclose(again.target_scaler_.mean_, np.average(y[:50], weights=weights), rtol=1e-12)


def test_warm_start_goes_on():
    ssn = brief(warm_start=True, learning_rate_init=1e-9, max_iter=2).fit(X, Y)
    before, curve = ssn.predict(X), list(ssn.loss_curve_)
    ssn.fit(X, 2 * Y)  # in the units of the first fit
    assert ssn.loss_curve_[: len(curve)] == curve
    assert_allclose(ssn.predict(X), before, rtol=1e-4, atol=1e-5)
    ssn.set_params(n_excitatory=6).fit(X, Y)
    assert ssn.readout_weights_.shape == (2, 6)


def test_evolution_strategies_train_it():
    ssn = brief(trainer="es", es_samples=20, max_iter=40, learning_rate_init=0.03).fit(X, y)
    assert np.mean(ssn.loss_curve_[-10:]) < 0.9 * ssn.loss_curve_[0]


def test_side_by_side_as_alone():
    weights = RNG.uniform(size=200)
    networks = [brief(random_state=seed) for seed in (0, 1)]
    fit_many(networks, X, Y, sample_weight=weights)
    for seed, found in enumerate(networks):
        alone = brief(random_state=seed).fit(X, Y, sample_weight=weights)
        assert_allclose(found.loss_curve_, alone.loss_curve_, rtol=1e-5)


@pytest.mark.parametrize("estimator", [SSNClassifier, SSNRegressor])
def test_shared_texts_describe_every_parameter_and_attribute(estimator):
    text = estimator.__doc__
    assert not {"{parameters}", "{attributes}"} & set(text.split())
    parameters, attributes = text.split("\nAttributes\n")
    described = re.findall(r"^([a-z_]+(?:, [a-z_]+)*) : ", parameters, re.MULTILINE)
    names = [name for line in described for name in line.split(", ")]
    assert names == list(inspect.signature(estimator).parameters)
    fitted = {x for x in vars(brief(max_iter=1).fit(X, y)) if re.fullmatch("[a-z].*_", x)}
    own = {"n_outputs_", "target_scaler_"} if estimator is SSNClassifier else set()
    described = set(re.findall(r"^([a-z_]+_) : ", attributes, re.MULTILINE))
    assert fitted - own <= described
    assert described - fitted <= {"classes_", "feature_names_in_"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_weight": -np.ones(200)}, "[Nn]egative"),
        ({"sample_weight": np.zeros(200)}, "at least one non-zero"),
        ({"sample_weight": np.ones(3)}, "sample_weight.shape"),
        ({"sample_weight": np.full(200, np.nan)}, "NaN"),
        ({"X_val": X}, "given together"),
        ({"X_val": X, "y_val": Y}, r"y_val must have shape \(n_samples\)"),
        ({"X_val": X, "y_val": y[:3]}, "X_val has 200 samples, y_val has 3"),
        ({"X_val": X[:1], "y_val": y[:1]}, "at least 2 samples that are held out, got 1"),
        ({"X_val": X, "y_val": np.full(200, np.nan)}, "y_val contains NaN"),
        ({"y": np.full(200, "a")}, "could not convert|numbers"),
        ({"y": np.where(y > 0, 1e300, y)}, "too far from the others"),
        ({"y": np.full(200, np.inf)}, "infinity"),
    ],
)
def test_fit_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        brief().fit(X, **{"y": y} | arguments)


def test_going_on_refuses_other_targets():
    ssn = brief(max_iter=2, warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match=r"y must have shape \(n_samples, 2\)"):
        ssn.fit(X, y)
    with pytest.raises(ValueError, match=r"y must have shape \(n_samples, 2\)"):
        ssn.partial_fit(X, np.column_stack([Y, y]))
    with pytest.raises(ValueError, match="too far from"):
        ssn.fit(X, 1e30 * Y)
    with pytest.raises(ValueError, match="early_stopping=True"):
        brief(early_stopping=True).partial_fit(X, y)
