"""`CircuitRegressor`: against finite differences, known circuits, and what cannot be."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from ssn_estimators import (
    Circuit,
    CircuitRegressor,
    DivergenceError,
    Receptors,
    circuits,
    load,
    save,
)
from ssn_estimators.fitting import Free, Traces
from ssn_estimators.fitting.model import model_of
from ssn_estimators.fitting.problem import Problem
from ssn_estimators.fitting.steady import Steady, fixed_points_of
from ssn_estimators.inspection import steady_states
from ssn_estimators.rate_functions import AbbottChance

TYPES = ["E", "PV", "SST", "VIP"]
SAME = np.tile(np.eye(2, dtype=bool), (4, 4))
CENTRE = [0, 2, 4, 6]
PAIR = Circuit([[1.0, -1.5], [1.2, -0.5]], n_excitatory=1, k=0.04)
GUESS = Circuit([[0.5, -1.0], [0.5, -1.0]], n_excitatory=1, k=0.04)
TO_BOTH = [[1.0], [1.0]]
X = np.array([[1.0], [2.0], [5.0], [10.0], [20.0], [40.0]])
RATES = steady_states(PAIR, X * [1.0, 1.0]).rates


def size_contrast():
    """Inputs, perturbations, and noisy rates of the published circuit; seven conditions a type."""
    model = circuits.size_contrast()
    contrast, size = np.meshgrid([0.12, 0.25, 0.5, 1.0], [5.0, 13.0, 22.0, 60.0])
    drive = model.drive(contrast.ravel(), size.ravel())
    baseline, gains = np.array([1.0, 5.0, 4.8, 4.5]), np.array([20.0, 14.0, 0.0, 6.5])
    inputs = (drive[:, :2] - baseline[0]) / gains[0]
    extra = np.vstack([np.zeros(4), *(s * row for row in np.eye(4)[1:] for s in (1.0, -1.0))])
    extra, inputs = np.repeat(extra, len(inputs), 0), np.tile(inputs, (len(extra), 1))
    whole = np.tile(drive, (7, 1)) + np.repeat(extra, 2, 1)
    rates = steady_states(model.circuit, whole).rates[:, CENTRE]
    error = np.sqrt((0.3 + rates + 0.02 * rates**2) / 20)
    noisy = np.random.RandomState(0).normal(rates, error)
    return model.circuit, inputs, extra, noisy, error


def size_contrast_regressor(circuit, **options):
    weights = np.sign(circuit.weights) * np.where(SAME, 0.8, 0.25)
    guess = Circuit(weights, populations=dict.fromkeys(TYPES, 2), k=0.04, tau=circuit.tau)
    free = [
        Free("weights", low=0.01, high=10.0),
        Free("weights", by="presynaptic", where=~SAME, name="between"),
        Free("input_map"),
        Free("baseline"),
    ]
    return CircuitRegressor(
        guess,
        free,
        input_map=np.kron([[10.0], [10.0], [0.0], [10.0]], np.eye(2)),
        baseline=np.full(8, 3.0),
        observed=CENTRE,
        random_state=0,
        **options,
    )


@pytest.mark.parametrize("response", ["rates", "potentials"])
@pytest.mark.parametrize("gamma", [2.0, 2.3])
def test_jacobian_by_finite_differences(response, gamma):
    """Of everything that may be free, with parameters that are multiplied."""
    rng = np.random.RandomState(0)
    weights = np.abs(rng.normal(0.3, 0.1, (5, 5))) * [1, 1, -1, -1, -1]
    circuit = Circuit(weights, populations={"E": 2, "PV": 2, "SST": 1}, k=0.04, gamma=gamma)
    free = [
        Free("weights"),
        Free("weights", by="each", where=weights > 0.3, name="single"),
        Free("input_map", scale="linear", prior=1.0, prior_error=0.3),
        Free("baseline", by=[0, 0, 1, 1, 2]),
        Free("k", by="each", prior=0.04, prior_error=0.5),
    ]
    inputs, y = rng.uniform(1, 5, (7, 2)), rng.uniform(0, 3, (7, 3))
    regressor = CircuitRegressor(
        circuit,
        free,
        input_map=rng.uniform(0.5, 2, (5, 2)),
        baseline=2.0,
        response=response,
        observed=["E", 2, "SST"],
    )
    model = model_of(regressor, inputs, 3)
    conditions = model.conditions(inputs, rng.normal(size=(7, 3)))
    problem = Problem(model.parameters, conditions, y, np.full(y.shape, 0.5), 2.0)
    theta = model.parameters.start + 0.01 * rng.normal(size=len(model.parameters))
    u = fixed_points_of(conditions, model.parameters.arrays(theta))
    steady = Steady(model.parameters, conditions, theta, u)

    def residuals(theta):
        return problem.residuals(steady.outputs(theta), theta)

    step = 1e-5
    differences = np.stack(
        [
            (residuals(theta + d) - residuals(theta - d)) / (2 * step)
            for d in step * np.eye(len(theta))
        ],
        axis=1,
    )
    found = problem.jacobian(steady.jacobian(theta), theta)
    assert_allclose(found, differences, atol=1e-6 * np.abs(differences).max())


def test_a_state_found_stays_found():
    """Next to a fold, where a Newton step from a state may leave it, fits could end without one."""
    circuit = Circuit([[1.0, 0.0], [0.0, -1.0]], n_excitatory=1, k=0.04, gamma=2.0)
    regressor = CircuitRegressor(circuit, [Free("baseline", scale="linear")], baseline=6.0)
    model = model_of(regressor, np.zeros((1, 2)), 2)
    conditions = model.conditions(np.zeros((1, 2)), np.zeros((1, 2)))
    near, n_found = model.parameters.start, 0
    theta = near + (6.25 + 5e-12 - 6.0)  # no state, but to rounding: the fold is at 1 / 4k = 6.25
    for below in np.geomspace(1e-5, 1e-4, 100):
        u = np.array([[12.5 - below, (np.sqrt(2) - 1) / 0.08]])
        steady = Steady(model.parameters, conditions, near, u)
        outputs = steady.outputs(theta)
        if np.isfinite(outputs).all():
            n_found += 1
            steady.jacobian(theta)
            assert_array_equal(steady.outputs(theta), outputs)
    assert n_found > 20


def test_size_and_contrast():
    """Every start comes to the same minimum, no worse than the truth; intervals hold it."""
    circuit, inputs, extra, rates, error = size_contrast()
    model = size_contrast_regressor(circuit, n_starts=6)
    model.fit(inputs, rates, sample_error=error, perturbation=extra)
    assert len(model.values_) == 23
    assert_allclose(model.starts_.cost, model.cost_, rtol=1e-3)
    assert model.cost_ / rates.size < 1.05
    assert not model.starts_.failed.any()
    assert (model.explained_variance_ > 0.97).all()
    assert_allclose(model.explained_variance_, model.noise_ceiling_, atol=0.01)
    assert (model.stability_ < 0).all()
    within = circuit.weights[::2, ::2]
    truth = np.concatenate([within[within != 0], [0.25, -0.15, -1.0, -0.05], [20, 14, 6.5]])
    truth = np.append(truth, [1.0, 5.0, 4.8, 4.5])
    low, high = model.intervals_.T
    inside = (low <= truth) & (truth <= high)
    assert inside[model.identified_].mean() > 0.85
    assert model.identified_.sum() >= 15
    assert model.parameter_names_[1] == "weights[E, PV]"
    assert model.parameter_names_[13] == "between[PV]"


def test_perturbations_identify():
    circuit, inputs, extra, rates, error = size_contrast()
    found = []
    for rows in (slice(16), slice(None)):
        model = size_contrast_regressor(circuit, n_starts=1, max_iter=500)
        model.fit(inputs[rows], rates[rows], sample_error=error[rows], perturbation=extra[rows])
        found.append(model)
    few, many = found
    assert many.condition_number_ < few.condition_number_ / 10
    assert many.identified_.sum() > few.identified_.sum()


def test_a_pair_is_recovered():
    model = CircuitRegressor(GUESS, input_map=TO_BOTH, n_starts=3, random_state=0).fit(X, RATES)
    assert_allclose(model.predict(X), RATES, atol=1e-2)
    assert model.score(X, RATES) > 0.9999
    alone = CircuitRegressor(GUESS, ["weights"], input_map=TO_BOTH, random_state=0).fit(X, RATES)
    assert_allclose(alone.circuit_.weights, PAIR.weights, rtol=1e-3)
    assert_allclose(alone.values_, PAIR.weights.ravel(), rtol=1e-3)
    assert_allclose(
        alone.simulate(X, n_trials=1, burn_in=500.0).mean,
        steady_states(PAIR, X * [1, 1]).u,
        rtol=1e-2,
    )


@pytest.mark.parametrize("unit", [1e-4, 1e-3, 1e3])
def test_units_of_the_responses_do_not_count(unit):
    def scaled(circuit):
        return Circuit(circuit.weights / unit, n_excitatory=1, k=circuit.k * unit)

    options = {"input_map": TO_BOTH, "random_state": 0, "n_starts": 2}
    fitted = CircuitRegressor(scaled(GUESS), ["weights"], **options).fit(X, unit * RATES)
    assert_allclose(fitted.circuit_.weights * unit, PAIR.weights, rtol=1e-5)


@pytest.mark.parametrize("error", [1e-3, 1.0, 1e3, 1e6])
def test_equal_errors_of_any_size_have_one_minimum(error):
    options = {"input_map": TO_BOTH, "random_state": 0, "n_starts": 2}
    fitted = CircuitRegressor(GUESS, ["weights"], **options).fit(X, RATES, sample_error=error)
    assert_allclose(fitted.circuit_.weights, PAIR.weights, rtol=1e-5)


def test_other_columns_than_those_of_the_fit_are_refused():
    both = CircuitRegressor(PAIR, ["weights"], input_map=TO_BOTH, n_starts=1).fit(X, RATES)
    first = clone(both).set_params(observed=["E"]).fit(X, RATES[:, 0])
    for fitted, y in ((both, RATES[:, 0]), (both, RATES[:, :1]), (first, RATES)):
        for judge in (fitted.score, fitted.residuals):
            with pytest.raises(ValueError, match=r"y must have \d columns, as in fit"):
                judge(X, y)
    assert first.score(X, RATES[:, :1]) == first.score(X, RATES[:, 0])
    assert first.residuals(X, RATES[:, :1]).shape == (6, 1)


def test_signs_zeros_boxes_and_what_is_not_free_stay():
    weights = [[0.5, -1.0], [0.5, 0.0]]
    guess = Circuit(weights, n_excitatory=1, k=0.04, tau_i=5.0)
    free = [Free("weights", low=0.2, high=1.1), Free("baseline", low=-1.0, high=0.5)]
    model = CircuitRegressor(guess, free, input_map=TO_BOTH, random_state=0).fit(X, RATES)
    found = model.circuit_.weights
    assert_array_equal(np.sign(found), np.sign(weights))
    size = np.abs(found[found != 0])
    assert ((size > 0.199) & (size < 1.101)).all()
    assert ((model.baseline_ >= -1) & (model.baseline_ <= 0.5)).all()
    assert model.circuit_.k == 0.04
    assert model.circuit_.tau_i == 5.0
    assert_array_equal(model.input_map_, TO_BOTH)


def test_nan_is_not_observed():
    """Leaving out what is implied by the rest changes nothing; what is left out does not count."""
    holes = RATES.copy()
    holes[1, 0], holes[4, 1] = np.nan, np.nan
    model = CircuitRegressor(GUESS, ["weights"], input_map=TO_BOTH, random_state=0)
    found = model.fit(X, holes).circuit_.weights
    assert_allclose(found, PAIR.weights, rtol=1e-3)
    assert np.isnan(model.residuals(X, holes)[1, 0])
    assert len(model.jacobian_) == 10


def test_errors_weigh():
    rates = RATES.copy()
    rates[2, 0] += 5.0
    error = np.full(rates.shape, 0.1)
    error[2, 0] = 1e4
    model = CircuitRegressor(GUESS, ["weights"], input_map=TO_BOTH, random_state=0)
    model.fit(X, rates, sample_error=error)
    assert_allclose(model.circuit_.weights, PAIR.weights, rtol=1e-3)
    assert_allclose(model.residuals(X, rates, sample_error=error)[2, 0], 5e-4, rtol=1e-2)


def test_standard_errors_of_a_linear_model():
    """A cell whose potentials are seen, without synapses: ordinary least squares."""
    rng = np.random.RandomState(0)
    inputs = rng.normal(size=(30, 2))
    y = inputs @ [1.5, -0.5] + 2.0 + rng.normal(scale=0.1, size=30)
    cell = Circuit([[0.0]], n_excitatory=1)
    free = [Free("input_map", by="each", scale="linear"), Free("baseline")]
    options = {"input_map": [[1.0, 1.0]], "response": "potentials", "n_starts": 1}
    model = CircuitRegressor(cell, free, **options).fit(inputs, y)
    design = np.column_stack([inputs, np.ones(30)])
    coef, rest, *_ = np.linalg.lstsq(design, y)
    expected = np.linalg.inv(design.T @ design) * rest / 27
    assert_allclose(model.values_, coef, rtol=1e-6)
    assert_allclose(model.covariance_, expected, rtol=1e-4)
    assert_allclose(model.condition_number_, np.linalg.cond(design), rtol=1e-6)
    profile = clone(model).set_params(intervals="profile").fit(inputs, y)
    assert_allclose(
        profile.intervals_, model.intervals_, atol=0.05 * np.diff(model.intervals_).max()
    )


def test_prior_and_penalty():
    """With one observation of no effect the prior is all there is; a large penalty holds it."""
    prior, error = [[0.8, -0.9], [1.0, np.nan]], 0.2
    free = [Free("weights", prior=prior, prior_error=error)]
    found = {}
    for penalty in (0.0, 1.0, 1e6):
        model = CircuitRegressor(GUESS, free, input_map=TO_BOTH, penalty=penalty, random_state=0)
        model.fit(X, RATES, sample_error=1.0)
        found[penalty] = model
    assert_allclose(found[0.0].circuit_.weights, PAIR.weights, rtol=1e-3)
    held = found[1e6].circuit_.weights.ravel()[:3]
    assert_allclose(held, [0.8, -0.9, 1.0], rtol=1e-2)
    assert len(found[1.0].jacobian_) == RATES.size + 3
    assert (found[1.0].standard_errors_ < found[0.0].standard_errors_)[:3].all()


def test_what_data_say_nothing_of_is_named():
    """An input that is never on."""
    inputs = np.column_stack([X, np.zeros(len(X))])
    model = CircuitRegressor(
        GUESS,
        [Free("weights"), Free("input_map", by=[["on", "off"], ["on", "off"]])],
        input_map=np.ones((2, 2)),
        random_state=0,
    ).fit(inputs, RATES)
    names = dict(zip(model.parameter_names_, model.identified_, strict=True))
    assert not names["input_map[off]"]
    assert np.isinf(model.condition_number_)
    assert np.isinf(model.standard_errors_[model.parameter_names_.index("input_map[off]")])


def test_same_seed_same_fit_on_any_number_of_processes():
    model = CircuitRegressor(GUESS, input_map=TO_BOTH, n_starts=3, random_state=0)
    one, two = (clone(model).set_params(n_jobs=n).fit(X, RATES) for n in (None, 2))
    assert_array_equal(one.values_, two.values_)
    assert_array_equal(one.starts_.cost, two.starts_.cost)


def test_it_is_saved_with_all_that_is_free(tmp_path):
    free = [Free("weights", by=np.array([["a", "b"], ["c", "d"]]), low=0.01), "baseline"]
    model = CircuitRegressor(GUESS, free, input_map=np.array(TO_BOTH), random_state=0).fit(X, RATES)
    save(model, tmp_path / "model.ssn")
    again = load(tmp_path / "model.ssn")
    assert_array_equal(again.predict(X), model.predict(X))
    assert again.free[0].low == 0.01
    assert_array_equal(again.fit(X, RATES).values_, model.values_)


def test_cross_validation_and_data_frames():
    pytest.importorskip("pandas")
    model = CircuitRegressor(GUESS, ["weights"], input_map=TO_BOTH, n_starts=2, random_state=0)
    assert cross_val_score(model, X, RATES, cv=3).min() > 0.9
    table = model.fit(X, RATES).parameters_
    assert list(table.columns[:2]) == ["name", "value"]
    assert len(table) == 4


def test_rates_that_no_circuit_has():
    runaway = Circuit([[3.0, 0.0], [0.0, -0.1]], n_excitatory=1, k=1.0)
    with pytest.raises(DivergenceError, match="None of 21 starts"):
        CircuitRegressor(runaway, ["baseline"], input_map=[[9.0], [9.0]], n_starts=1).fit(X, RATES)


def test_predictions_without_a_stable_state_are_refused():
    model = CircuitRegressor(
        Circuit([[2.0, -1.0], [1.0, -1.0]], n_excitatory=1, k=0.04), ["baseline"], n_starts=1
    )
    inputs = [[1.0, 1.0], [2.0, 2.0], [1.0, 2.0]]
    model.fit(inputs, [[0.1, 0.1], [0.2, 0.2], [0.1, 0.1]])
    with pytest.raises(DivergenceError, match="row 1"):
        model.predict([[1.0, 1.0], [1e3, 0.0]])


BAD = {
    "NaN in X": (lambda m: m.fit(np.where(X > 10, np.nan, X), RATES), "NaN"),
    "empty column": (lambda m: m.fit(X, RATES * [1, np.nan]), "Column 1 of y"),
    "negative errors": (lambda m: m.fit(X, RATES, sample_error=-1.0), "sample_error must be"),
    "shape of errors": (lambda m: m.fit(X, RATES, sample_error=np.ones(3)), "sample_error must be"),
    "tiny errors": (lambda m: m.fit(X, RATES, sample_error=1e-300), "squares are too large"),
    "huge errors": (lambda m: m.fit(X, RATES, sample_error=1e80), "squares are too small"),
    "tiny rates": (lambda m: m.fit(X, 1e-160 * RATES), "squares are too small"),
    "huge rates": (lambda m: m.fit(X, 1e160 * RATES), "squares are too large"),
    "rows": (lambda m: m.fit(X, RATES[:3]), "6 conditions"),
    "perturbation": (lambda m: m.fit(X, RATES, perturbation=np.ones((6, 3))), "perturbation must"),
    "outputs": (lambda m: m.fit(X, np.ones((6, 3))), "observed must say"),
    "nothing is free": (lambda m: m.set_params(free=[]).fit(X, RATES), "free is empty"),
    "unknown": (lambda m: m.set_params(free=["delays"]).fit(X, RATES), "free must have names"),
    "tau": (lambda m: m.set_params(free=["tau"]).fit(X, RATES), "tau cannot be free"),
    "a name": (lambda m: m.set_params(free="weights").fit(X, RATES), "'free' parameter"),
    "twice": (lambda m: m.set_params(free=["k", "k"]).fit(X, RATES), "twice"),
    "input map": (lambda m: m.set_params(input_map=[[1.0, 2.0]]).fit(X, RATES), "input_map must"),
    "no map": (lambda m: m.set_params(input_map=None).fit(X, RATES), "input_map of shape"),
    "observed": (lambda m: m.set_params(observed=["E", "PV"]).fit(X, RATES), "'PV'"),
    "outside of the box": (
        lambda m: m.set_params(free=[Free("weights", low=0.6)]).fit(X, RATES),
        "not in its box",
    ),
    "prior": (
        lambda m: m.set_params(free=[Free("weights", prior=[1.0], prior_error=0.1)]).fit(X, RATES),
        "prior of weights",
    ),
    "where": (
        lambda m: m.set_params(free=[Free("weights", where=[True, False])]).fit(X, RATES),
        "where of weights",
    ),
    "labels": (lambda m: m.set_params(free=[Free("k", by=[1, 2, 3])]).fit(X, RATES), "by of k"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(CircuitRegressor(GUESS, ["weights"], input_map=TO_BOTH))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantity": "delay"}, "quantity of Free"),
        ({"quantity": "k", "by": "presynaptic"}, "for weights only"),
        ({"quantity": "k", "low": 2.0, "high": 1.0}, "low < high"),
        ({"quantity": "k", "low": -1.0}, "> 0 at most|low < high"),
        ({"quantity": "k", "high": np.nan}, "low < high"),
        ({"quantity": "k", "prior": 1.0}, "both prior and prior_error"),
        ({"quantity": "k", "spread": -1.0}, "spread must be"),
        ({"quantity": "k", "scale": "square"}, "scale of Free"),
    ],
)
def test_what_cannot_be_free(options, message):
    with pytest.raises(ValueError, match=message):
        Free(**options)


def test_linear_weights_keep_their_signs():
    """Where the best weights are of the other sign."""
    circuit = Circuit([[0.5, -0.1], [0.5, -0.1]], 1, k=0.04)
    other = Circuit([[0.4, 0.1], [0.5, 0.1]], 2, k=0.04)
    rates = steady_states(other, X / 8 * [1.0, 1.0]).rates
    free = [Free("weights", scale="linear")]
    model = CircuitRegressor(
        circuit, free, input_map=[[0.125], [0.125]], n_starts=3, random_state=0
    )
    model.fit(X, rates)
    assert (model.circuit_.weights * [1, -1] >= 0).all()
    assert (np.abs(model.circuit_.weights[:, 1]) < 0.01).all()


def test_other_rate_functions():
    circuit = Circuit(
        [[0.4, -0.5], [0.6, -0.3]], 1, rate_function=AbbottChance(), k={"E": 1, "I": 2}
    )
    X = np.array([[0.5], [1.0], [2.0], [5.0], [10.0], [20.0]])
    rates = steady_states(circuit, X * [1.0, 1.0]).rates
    guess = replace(circuit, weights=[[0.2, -0.2], [0.2, -0.2]])
    model = CircuitRegressor(guess, ["weights"], input_map=[[1.0], [1.0]], random_state=0)
    assert_allclose(model.fit(X, rates).circuit_.weights, circuit.weights, rtol=1e-3)
    assert model.circuit_.rate_function == AbbottChance()


def test_receptors_change_nothing_but_stability():
    """Fixed points are those of the circuit without."""
    receptors = Receptors({"fast": 4.0}, {"E": {"fast": 1.0}, "I": {"fast": 1.0}})
    options = {"input_map": TO_BOTH, "n_starts": 2, "random_state": 0}
    plain = CircuitRegressor(GUESS, ["weights"], **options).fit(X, RATES)
    with_receptors = replace(GUESS, receptors=receptors)
    model = CircuitRegressor(with_receptors, ["weights"], **options).fit(X, RATES)
    assert_allclose(model.circuit_.weights, plain.circuit_.weights, rtol=1e-4)
    assert model.circuit_.receptors is receptors
    assert_allclose(model.predict(X), RATES, atol=1e-3)


def test_circuits_that_cannot_be_fitted():
    X, rates = np.ones((3, 1)), np.ones((3, 2))
    weights = [[0.4, -0.5], [0.6, -0.3]]
    circuit = Circuit(csr_array(weights), 1)
    with pytest.raises(ValueError, match="fits need dense weights"):
        CircuitRegressor(circuit, ["weights"], input_map=[[1.0], [1.0]]).fit(X, rates)
    traces = Traces(np.ones((20, 1)), np.ones((20, 2)), dt=1.0)
    circuit = Circuit(weights, 1, rate_function=AbbottChance())
    with pytest.raises(ValueError, match="traces are fitted by circuits with the power law"):
        CircuitRegressor(circuit, ["weights"], input_map=[[1.0], [1.0]]).fit(traces=traces)
