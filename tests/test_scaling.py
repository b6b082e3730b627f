"""Inputs and targets in any units: what they are scaled by, and networks that do not care."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from zoo import short_confirmations

from ssn_estimators import (
    AutoencoderEncoder,
    CNNClassifier,
    ContrastNormalizer,
    FokkerPlanckRegressor,
    GaborEncoder,
    GaussianScaleMixture,
    GMMFlow,
    SSNClassifier,
    SSNRegressor,
    SSNSequenceClassifier,
    SSNSequenceRegressor,
)
from ssn_estimators._scaling import in_units, spread_of, standardised, target_scaler, unit_range

RNG = np.random.RandomState(0)
X = RNG.uniform(size=(60, 6))
TARGETS = X @ [1.0, -2.0, 0.5, 0.0, 0.0, 1.0]
LABELS = (TARGETS > np.median(TARGETS)).astype(int)
IN_TIME = np.cumsum(X, axis=1)
BRIEF = {"max_iter": 8, "growth_iter": 2, "n_excitatory": 4, "random_state": 0}


@pytest.fixture(autouse=True)
def short():
    with short_confirmations(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def regressor(**parameters):
    return SSNRegressor(**BRIEF | parameters)


def of_sequences(**parameters):
    return SSNSequenceRegressor(**BRIEF | parameters)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_ordinary_features_are_scaled_as_by_scikit_learn(dtype):
    rows = (X * [1e-3, 1.0, 50.0, 1e6, 1e-10, 1.0] + [0.0, -3.0, 1e3, 0.0, 0.0, 1.0]).astype(dtype)
    rows[:, 5] = 0.1
    found, expected = unit_range(rows), MinMaxScaler(clip=True).fit(rows)
    kept = expected.data_range_ > 10 * np.finfo(dtype).eps
    kept[5] = True
    for name in ("min_", "scale_", "data_min_"):
        assert_array_equal(getattr(found, name)[kept], getattr(expected, name)[kept])
    assert_allclose(found.transform(rows)[:, :5].max(0), 1.0, rtol=1e-6)


@pytest.mark.parametrize("unit", [2.0**-1000, 2.0**-60, 2.0**-49, 2.0**500, 2.0**1000])
@pytest.mark.parametrize(
    ("make", "y"),
    [
        (SSNClassifier(**BRIEF), LABELS),
        (SSNRegressor(**BRIEF), TARGETS),
        (SSNSequenceClassifier(**BRIEF), LABELS),
        (SSNSequenceRegressor(**BRIEF), IN_TIME),
        (AutoencoderEncoder(2, hidden_layer_sizes=(4,), max_iter=5, random_state=0), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_units_of_features_do_not_count(make, y, unit):
    answer = "transform" if y is None else "predict"
    before = getattr(make.fit(X, y), answer)(X)
    assert_array_equal(getattr(make.fit(unit * X, y), answer)(unit * X), before)


def test_large_features_that_differ_by_rounding_are_constants():
    for dtype, value in ((np.float64, 1e10), (np.float32, 100.0)):
        low = dtype(value)
        rows = np.array([[low], [np.nextafter(low, dtype(np.inf))]])
        assert_allclose(unit_range(rows).transform(rows), 0.0, atol=1e-5)
    narrow = np.array([[1e6], [1e6 + 1]], np.float32)
    assert_array_equal(unit_range(narrow).transform(narrow), [[0.0], [1.0]])


@pytest.mark.parametrize("value", [0.1, 0.5, 0.7, -1e10])
def test_standard_deviations_of_constants_are_1(value):
    rows = np.column_stack([X[:, 0], np.full(60, value)])
    assert_array_equal(spread_of(rows), [X[:, 0].std(), 1.0])
    assert GMMFlow(1, n_layers=1, max_iter=1).fit(rows).scale_[1] == 1.0


def test_features_that_differ_by_rounding_are_constants():
    rows = np.column_stack([X[:, 0], 0.1 + 1e-17 * X[:, 1], 1e-30 * (1 + 1e-16 * X[:, 2])])
    assert_array_equal(unit_range(rows).scale_[1:], 1.0)


@pytest.mark.parametrize("make", [regressor, of_sequences, AutoencoderEncoder])
def test_features_of_too_wide_a_range_are_refused(make):
    with pytest.raises(ValueError, match="too far apart"):
        make().fit((2 * X - 1) * 1.7e308, TARGETS)


def test_scaled_targets():
    y = np.column_stack([TARGETS, 3.0 + 0 * TARGETS])
    weights = RNG.uniform(size=60)
    scaler = target_scaler(y, weights * 1e200)
    expected = StandardScaler().fit(y, sample_weight=weights)
    for name in ("mean_", "scale_"):
        assert_allclose(getattr(scaler, name), getattr(expected, name), rtol=1e-12)
    found = standardised(y, scaler)
    assert_allclose(found[:, 0], expected.transform(y)[:, 0], rtol=1e-10)
    assert_array_equal(found[:, 1], 0.0)
    assert_allclose(in_units(found, scaler), y, rtol=1e-12)
    # whatever the readout says
    assert_allclose(in_units(found + 1.0, scaler)[:, 1], 3.0, rtol=1e-14)


def test_missing_targets_do_not_count():
    y = np.column_stack([TARGETS, IN_TIME[:, -1]])
    y[:20, 0] = np.nan
    scaler = target_scaler(y)
    assert_allclose(scaler.mean_, [TARGETS[20:].mean(), IN_TIME[:, -1].mean()])
    assert_allclose(scaler.scale_, [TARGETS[20:].std(), IN_TIME[:, -1].std()])
    y[:, 0] = np.nan
    with pytest.raises(ValueError, match="output 0 of y has no target"):
        target_scaler(y)


def test_a_scale_is_that_of_the_first_targets_that_change():
    first = target_scaler(np.array([[5.0, 1.0]]))
    assert_array_equal(standardised(np.array([[5.0, 1.0]]), first), 0.0)
    second = target_scaler(np.array([[5.0, 3.0]]), known=first)
    assert_allclose([second.mean_[1], second.scale_[1]], [2.0, 1.0])
    third = target_scaler(np.array([[7e6, 100.0]]), known=second)
    assert_allclose([third.mean_[1], third.scale_[1]], [2.0, 1.0])
    assert_allclose(third.scale_[0], np.std([5.0, 5.0, 7e6]))
    assert target_scaler(np.array([[0.0, 0.0]]), known=third) is third
    # what was there is as it was
    assert_array_equal(first.mean_, [5.0, 1.0])


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (1e300 * TARGETS, "too far from the others"),
        (1e200 * TARGETS, "too far from the others"),
        (1e-200 * TARGETS, "too little for squared errors"),
        (np.append(np.zeros(59), 1.0) * 1e-300, "too little for squared errors"),
    ],
)
@pytest.mark.parametrize("make", [regressor, of_sequences])
def test_targets_whose_squares_cannot_be_held_are_refused(make, y, message):
    with pytest.raises(ValueError, match=message):
        make().fit(X, y)


@pytest.mark.parametrize("make", [regressor, of_sequences])
@pytest.mark.parametrize("factor", [1e20, 1e300])
def test_later_targets_that_are_too_far_are_refused(make, factor):
    network = make(warm_start=True).fit(X, TARGETS)
    before = network.predict(X)
    with pytest.raises(ValueError, match="those of the first fit"):
        network.fit(X, factor * TARGETS)
    assert_array_equal(network.predict(X), before)


@pytest.mark.parametrize("value", [3e-9, 0.1, -7.0, 1e12])
def test_constant_targets_are_answered_exactly(value):
    y = np.full(60, value)
    for make in (regressor, of_sequences):
        assert_allclose(make().fit(X, y).predict(X), value, rtol=1e-12)
    both = regressor().fit(X, np.column_stack([TARGETS, y])).predict(X)
    assert_allclose(both[:, 1], value, rtol=1e-12)
    assert both[:, 0].std() > 0
    in_time = np.stack([IN_TIME, np.full(X.shape, value)], axis=2)
    assert_allclose(of_sequences().fit(X, in_time).predict(X)[..., 1], value, rtol=1e-12)


@pytest.mark.parametrize(("make", "y"), [(regressor, TARGETS), (of_sequences, X)])
def test_after_constant_targets_others_are_learned(make, y):
    network = make(warm_start=True, max_iter=150).fit(X, 0 * y + 3.0)
    assert network.fit(X, 1e6 * y).score(X, 1e6 * y) > 0.5


def test_one_sample_at_a_time():
    network = regressor()
    for row, target in zip(X[:4], 1e6 * TARGETS[:4], strict=True):
        network.partial_fit(row[None], [target])
    scaler = network.target_scaler_
    assert_allclose(scaler.scale_, 1e6 * np.std(TARGETS[:2]))  # then it is known


@pytest.mark.parametrize(
    "estimator",
    [
        CNNClassifier((2,), n_hidden=4, max_iter=2),
        ContrastNormalizer(),
        FokkerPlanckRegressor(n_frequencies=200),
        GaborEncoder(2),
        GaussianScaleMixture(2, max_iter=2),
        GMMFlow(1, n_layers=1, hidden_layer_sizes=(4,), max_iter=2),
    ],
    ids=lambda e: type(e).__name__,
)
def test_inputs_whose_squares_cannot_be_held_are_refused(estimator):
    images = RNG.uniform(size=(40, 16))
    for factor, message in ((1e160, "too large"), (1e-160, "too small")):
        with pytest.raises(ValueError, match=f"squares are {message}"):
            estimator.fit(factor * images, LABELS[:40])
    estimator.fit(1e-40 * images, LABELS[:40])
    if isinstance(estimator, (FokkerPlanckRegressor, GMMFlow)):
        return  # which take all as doubles
    single = images.astype(np.float32)
    for factor, message in ((1e25, "too large"), (1e-30, "too small")):
        with pytest.raises(ValueError, match=f"squares are {message}"):
            estimator.fit(np.float32(factor) * single, LABELS[:40])
