"""SSNClassifier: predictions row by row, sizes, structures, attributes, neutral growth."""

import copy
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_blobs
from sklearn.exceptions import NotFittedError

from ssn_estimators import (
    DivergenceError,
    SSNClassifier,
    SSNRegressor,
    base,
    simulate,
    split,
    stable_pair,
)
from ssn_estimators.growth import shares_of
from ssn_estimators.training.classification import Classification
from ssn_estimators.training.loop import REPAIR_STEPS
from ssn_estimators.training.plan import Model

METHODS = ["predict", "predict_proba", "decision_function", "transform"]
DENSE = {"input_weights": "dense", "n_excitatory": 5, "n_inhibitory": 2}
ONE_TO_ONE = {"input_weights": "one_to_one"}
NETWORKS = {
    "one to one, 5 cells": ONE_TO_ONE,
    "one to one, 7 cells, gamma 2.5": ONE_TO_ONE | {"n_inhibitory": 3, "gamma": 2.5},
    "dense, 7 cells": DENSE,
    "dense, 7 cells, gamma 2.5": DENSE | {"gamma": 2.5},
}


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS)
def network(request, small_ssn, blobs):
    return small_ssn(max_iter=20, **request.param).fit(*blobs)


@pytest.fixture(scope="module")
def binary(small_ssn, blobs):
    X, y = blobs
    X, y = X[y > 0], np.array(["", "cat", "dog"])[y[y > 0]]
    return small_ssn(max_iter=30).fit(X, y), X, y


@pytest.mark.parametrize("method", METHODS)
def test_a_row_is_answered_alike_in_any_company(network, blobs, method):
    X, answer = blobs[0], getattr(network, method)
    whole = answer(X)
    for places in ([1], [64], [63, 65, 130], [149], range(10, 150, 20)):
        parts = [answer(part) for part in np.split(X, places)]
        assert_array_equal(np.concatenate(parts), whole)
    order = np.random.RandomState(0).permutation(len(X))
    assert_array_equal(answer(X[order]), whole[order])
    for row in (0, 17, 63, 64, 149):
        assert_array_equal(answer(X[[row]])[0], whole[row])
    repeated = np.repeat([5, 90, 5], [70, 3, 9])
    assert_array_equal(answer(X[repeated]), whole[repeated])
    assert_array_equal(answer(X), whole)


def test_answers_by_moments_are_those_of_very_many_trials(network, blobs):
    X = blobs[0][:30]
    solved = network.predict_proba(X, method="moments")
    many = copy.copy(network).set_params(n_trials_predict=200, window=400.0, burn_in=200.0)
    # left over: sampling error, and what Gaussian potentials are wrong about
    assert_allclose(solved, many.predict_proba(X), atol=0.05)
    part = network.predict_proba(X[10:15], method="moments")
    assert_allclose(part, solved[10:15], rtol=1e-4)


def test_answers_by_moments_fall_back_row_by_row(network, blobs, monkeypatch):
    X = blobs[0][:70]
    solved = network.decision_function(X, method="moments")
    found = base.stationary_moments

    def lost(circuit, drive, **closure):
        moments = found(circuit, drive, **closure)
        converged = moments.converged & (torch.arange(len(drive)) != 3)
        return replace(
            moments, mean=moments.mean.where(converged[:, None], torch.nan), converged=converged
        )

    monkeypatch.setattr(base, "stationary_moments", lost)
    mixed, simulated = network.decision_function(X, method="moments"), network.decision_function(X)
    fallen = np.isin(np.arange(70), [3, 67])  # of blocks of 64
    assert_array_equal(mixed[fallen], simulated[fallen])
    assert_array_equal(mixed[~fallen], solved[~fallen])


def test_answers_by_moments_are_refused_where_trials_diverge(runaway, blobs):
    with pytest.raises(DivergenceError, match="no stationary answer"):
        runaway.predict(blobs[0], method="moments")


@pytest.mark.parametrize("kind", ["one_to_one", "dense"])
def test_inputs_out_of_range(small_ssn, blobs, kind):
    X, y = blobs
    network = small_ssn(input_weights=kind, growth_iter=2, max_iter=2).fit(X, y)
    far = X[:5].copy()
    far[1, 0] = X[:, 0].max() + 1
    far[3] = X.min(0) - [0.1, 0.0, 1e300, 2.0]
    assert_array_equal(network.n_out_of_range(X), 0)
    assert_array_equal(network.n_out_of_range(far), [0, 1, 0, 3, 0])
    edge = np.clip(far, X.min(0), X.max(0))
    assert np.isfinite(network.drive(far)).all()
    assert_array_equal(network.predict_proba(far), network.predict_proba(edge))
    network.set_params(out_of_range="warn")
    with pytest.warns(UserWarning, match=r"2 of 5 samples .* \(4 values, first in sample 3\)"):
        warned = network.predict_proba(far)
    assert_array_equal(warned, network.predict_proba(edge))
    network.set_params(out_of_range="raise")
    for method in (network.predict, network.transform, network.drive, network.simulate):
        with pytest.raises(ValueError, match="2 of 5 samples"):
            method(far)
        method(X[:5])


def test_later_training_data_out_of_range(small_ssn, blobs):
    X, y = blobs
    settings = {"growth_iter": 2, "max_iter": 2, "out_of_range": "raise"}
    network = small_ssn(**settings).partial_fit(X, y, classes=np.unique(y))
    network.partial_fit(X[:30], y[:30])
    with pytest.raises(ValueError, match=f"{len(X)} of {len(X)} samples have features outside"):
        network.partial_fit(X + 100, y)
    with pytest.raises(ValueError, match="samples have features outside"):
        small_ssn(**settings).fit(X, y, X_val=X + 100, y_val=y)
    small_ssn(**settings, early_stopping=True).fit(X, y)  # its own rows are never refused


def test_company_changes_only_the_rounding_of_larger_networks(small_ssn, blobs):
    # OpenBLAS's kernels for Haswell round columns of products of this size differently
    X = blobs[0]
    sizes = {"n_excitatory": 30, "n_inhibitory": 8, "input_weights": "dense"}
    network = small_ssn(**sizes, growth_iter=2, max_iter=2).fit(*blobs)
    order = np.random.RandomState(0).permutation(len(X))
    whole = network.decision_function(X)
    atol = 1e-5 * np.abs(whole).max()
    assert_allclose(network.decision_function(X[order]), whole[order], rtol=0, atol=atol)
    assert_allclose(network.decision_function(X[:7]), whole[:7], rtol=0, atol=atol)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("parents", [[[0]], [[1]], [[0, 1]], [[0, 0, 1], [0, 4, 1], range(8)]])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("how", ["equal", "random"])
def test_growth_leaves_the_logits_as_they_are(how, dense, parents, dtype, rtol):
    rng = np.random.RandomState(0)
    inputs = rng.uniform(size=(5, 16)).astype(dtype)
    if not dense:  # one-to-one input is neutral where clones receive the same
        inputs[:] = inputs[:, :1]
    task = Classification(dense)
    arrays = task.start(1, 2, rng.rand(10, 16), 3, rng)
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    arrays["intercept"] += rng.normal(size=3).astype(dtype)
    pair = stable_pair([[0.2], [1.0]], random_state=0, dtype=dtype)
    model = Model(replace(pair, noise_factor=0.0), arrays)

    def logits(model):
        circuit, arrays = model.circuit, model.arrays
        drive = task.drive(circuit, arrays, inputs)
        response = simulate(circuit, drive, n_trials=1, burn_in=40.0, duration=20.0)
        return task.outputs(response.mean, arrays)

    before = logits(model)
    for cells in parents:
        old = model.circuit
        new, origin = split(old, cells, shares=how, random_state=rng)
        shares = partial(shares_of, how=how, random_state=rng)
        model = Model(new, task.grow(model.arrays, old, new, origin, shares))
        assert all(array.dtype == dtype for array in model.arrays.values())
    after = logits(model)
    assert after.dtype == before.dtype == dtype
    assert_allclose(after, before, rtol=rtol, atol=rtol * np.abs(before).max())


@pytest.mark.parametrize(
    ("n_features", "parameters", "size", "dense"),
    [
        (2, {}, (4, 1), True),
        (2, {"input_weights": "one_to_one"}, (2, 1), False),
        (4, {}, (4, 1), True),
        (9, {}, (9, 3), True),
        (81, {}, (80, 20), True),
        (4, {"input_weights": "one_to_one"}, (4, 1), False),
        (100, {"input_weights": "one_to_one"}, (100, 25), False),
        (4, {"n_excitatory": 4}, (4, 1), True),
        (4, {"n_excitatory": 6}, (6, 2), True),
        (4, {"n_excitatory": 3, "n_inhibitory": 5}, (3, 5), True),
        (4, {"input_weights": "dense"}, (4, 1), True),
        (4, {"weight_structure": "circulant"}, (4, 4), False),
        (4, {"weight_structure": "gaussian_ring", "n_excitatory": 6}, (6, 6), True),
    ],
)
def test_sizes(small_ssn, n_features, parameters, size, dense):
    X, y = make_blobs(40, n_features=n_features, centers=2, random_state=0)
    ssn = small_ssn(max_iter=1, growth_iter=0, **parameters).fit(X, y)
    assert (ssn.circuit_.n_excitatory, ssn.circuit_.n_inhibitory) == size
    assert ssn.readout_weights_.shape == (2, size[0])
    assert ssn.readout_bias_.shape == (2,)
    if dense:
        assert ssn.input_weights_.shape == (sum(size), n_features)
    else:
        assert ssn.input_weights_ is None
    assert ssn.transform(X[:3]).shape == (3, size[0])


def test_as_many_cells_as_classes(small_ssn):
    X, y = np.arange(60.0).reshape(30, 2), np.arange(30) % 6
    circuit = small_ssn(max_iter=1, growth_iter=0).fit(X, y).circuit_
    assert (circuit.n_excitatory, circuit.n_inhibitory) == (6, 2)


@pytest.mark.parametrize(
    ("growth", "sizes"),
    [
        (None, [(4, 1)]),
        ("single", [(1, 1), (2, 1), (3, 1), (4, 1)]),
        ("double", [(1, 1), (2, 1), (4, 1)]),
    ],
)
def test_growth_history_ends_at_the_target(small_ssn, blobs, growth, sizes):
    ssn = small_ssn(growth=growth, growth_iter=3, max_iter=5).fit(*blobs)
    history = ssn.growth_history_
    assert [(stage["n_excitatory"], stage["n_inhibitory"]) for stage in history] == sizes
    asked = 3 * (len(sizes) - 1) + 5 - ssn.n_rejected_steps_
    assert (len(ssn.loss_curve_) - asked) % REPAIR_STEPS == 0  # a last stage may be repaired
    assert [stage["n_iter"] for stage in history] == sorted(stage["n_iter"] for stage in history)
    assert history[-1]["n_iter"] == len(ssn.loss_curve_)
    assert ssn.n_iter_ == len(ssn.loss_curve_) + ssn.n_rejected_steps_
    assert ssn.loss_ == ssn.loss_curve_[-1] == history[-1]["loss"]


@pytest.mark.parametrize("structure", [None, "circulant", "gaussian_ring"])
def test_weight_structures(small_ssn, blobs, structure):
    X, y = blobs
    ssn = small_ssn(weight_structure=structure, n_inhibitory=4).fit(X, y)
    assert ssn.score(X, y) > 0.8
    blocks = ssn.circuit_.weights.reshape(2, 4, 2, 4).transpose(0, 2, 1, 3).reshape(4, 4, 4)
    for block in blocks:
        rolled = np.array([np.roll(row, -i) for i, row in enumerate(block)])
        assert (np.ptp(rolled, axis=0) < 1e-5).all() == (structure is not None)
        assert np.allclose(block, block.T, atol=1e-5) == (structure is not None)


def test_default_network_learns(fitted, blobs):
    X, y = blobs
    assert fitted.score(X, y) > 0.95
    assert fitted.stability_ == 1.0
    assert fitted.loss_curve_[-1] < 0.5 * fitted.loss_curve_[0]
    assert_array_equal(fitted.classes_, [0, 1, 2])
    assert fitted.decision_function(X).shape == fitted.predict_proba(X).shape == (150, 3)
    assert_array_equal(fitted.predict(X), fitted.predict_proba(X).argmax(1))
    assert_allclose(fitted.predict_proba(X).sum(1), 1.0, rtol=1e-12)


def test_binary(binary):
    ssn, X, y = binary
    decision, probabilities = ssn.decision_function(X), ssn.predict_proba(X)
    assert decision.shape == (100,)
    assert probabilities.shape == (100, 2)
    assert_array_equal(ssn.classes_, ["cat", "dog"])
    assert_array_equal(ssn.predict(X), np.where(decision > 0, "dog", "cat"))
    assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-decision)), rtol=1e-12)
    assert ssn.score(X, y) > 0.9


def no_tensors(value):
    if isinstance(value, dict):
        return all(no_tensors(x) for pair in value.items() for x in pair)
    if isinstance(value, (list, tuple)):
        return all(map(no_tensors, value))
    if hasattr(value, "__dict__") and not isinstance(value, type):
        return not torch.is_tensor(value) and no_tensors(vars(value))
    return not torch.is_tensor(value)


def test_attributes_are_numpy_or_plain(network):
    assert no_tensors(vars(network))
    assert not no_tensors({"a": [(torch.zeros(1),)]})
    assert all(type(loss) is float for loss in network.loss_curve_)


def test_pickle_and_clone(network, blobs):
    X, _ = blobs
    again = pickle.loads(pickle.dumps(network))
    assert_array_equal(again.decision_function(X), network.decision_function(X))
    fresh = clone(network)
    assert fresh.get_params() == network.get_params()
    assert set(vars(fresh)) - set(SSNClassifier().get_params()) == set()
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    assert not [name for name in vars(fresh) if name.endswith("_")]


def test_names_of_outputs(fitted, blobs):
    X, _ = blobs
    names = [f"ssnclassifier{i}" for i in range(4)]
    assert list(fitted.get_feature_names_out()) == names
    pytest.importorskip("pandas")
    frame = pickle.loads(pickle.dumps(fitted)).set_output(transform="pandas").transform(X)
    assert list(frame.columns) == names
    assert_array_equal(frame, fitted.transform(X))


def test_random_state(small_ssn, blobs):
    X, y = blobs
    a, b, c, d = (
        small_ssn(max_iter=5, growth_iter=2, random_state=state).fit(X, y).decision_function(X)
        for state in (0, 0, 1, np.random.RandomState(0))
    )
    assert_array_equal(a, b)
    assert_array_equal(a, d)
    assert (a != c).any()


@pytest.mark.parametrize("seed", range(8))
def test_dense_input_drives_every_cell_from_the_start(small_ssn, seed):
    X = np.random.RandomState(seed).rand(60, 12)
    settings = {"input_weights": "dense", "n_excitatory": 6, "n_inhibitory": 6}
    ssn = small_ssn(**settings, max_iter=1, growth_iter=0, random_state=seed)
    ssn.fit(X, np.arange(60) % 3)
    assert (ssn.drive(X) > 0).mean(0).min() > 0.2


@pytest.mark.parametrize("seed", [0, 3])
def test_dense_input_of_pixels_stays_alive_and_learns(small_ssn, seed):
    # of many features that are never negative, a step on all weights moves the drive far
    X, y = load_digits(return_X_y=True)
    settings = {"input_weights": "dense", "n_excitatory": 16, "n_inhibitory": 16}
    ssn = small_ssn(**settings, growth_iter=40, max_iter=40, random_state=seed).fit(X, y)
    assert (ssn.drive(X) > 0).any(0).all()
    assert ssn.score(X, y) > 0.8


def test_closure_and_moments_are_one_method(network, blobs):
    X = blobs[0][:20]
    assert_array_equal(
        network.decision_function(X, method="closure"),
        network.decision_function(X, method="moments"),
    )
    with pytest.raises(ValueError, match=r"method must be one of .*closure.* got 'solved'"):
        network.predict(X, method="solved")


@pytest.mark.parametrize(
    ("parameters", "step"),
    [
        ({}, 2.0),
        ({"dt": 0.5}, 1.0),
        ({"dt": 2.0}, 2.0),  # 4 ms are too long for cells of 10 ms
        ({"tau_i": 5.0}, 1.0),
        ({"window": 5.0}, 1.0),  # no multiple of 2 ms
        ({"solver": "ab2"}, 1.0),
        ({"solver": "euler", "dt": 0.2}, 0.2),
        ({"dt_training": 1.5}, 1.5),
        ({"dt_training": None}, 1.0),
    ],
)
@pytest.mark.parametrize("estimator", [SSNClassifier, SSNRegressor])
def test_steps_of_training(estimator, parameters, step):
    """Twice as long as those of answers where cells and durations let them."""
    source, trials = estimator(**parameters)._source()
    assert source.trials.dt == step
    assert trials.dt == parameters.get("dt", 1.0)  # in which stability is confirmed


def test_steps_of_training_are_not_those_of_answers():
    X, y = load_iris(return_X_y=True)
    few = {"max_iter": 20, "growth_iter": 3, "random_state": 0}
    own, short, same = (
        SSNClassifier(dt_training=step, **few).fit(X, y) for step in ("auto", None, 1.0)
    )
    assert_array_equal(short.circuit_.weights, same.circuit_.weights)
    assert np.abs(own.circuit_.weights - short.circuit_.weights).max() > 0
    answers = own.decision_function(X)
    assert_array_equal(own.set_params(dt_training=1.0).decision_function(X), answers)
    own.circuit_, own.readout_weights_ = short.circuit_, short.readout_weights_
    own.readout_bias_, own.noise_seed_ = short.readout_bias_, short.noise_seed_
    own.input_weights_, own.input_bias_ = short.input_weights_, short.input_bias_
    assert_array_equal(own.decision_function(X), short.decision_function(X))
