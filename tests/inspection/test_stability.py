"""Stability: score, scorer, surrogates and the report that compares them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ssn_estimators import (
    StabilityReport,
    make_stability_scorer,
    random_circuit,
    stability_report,
    stability_score,
)
from ssn_estimators.inspection.stability import random_surrogate, shuffled_surrogate

SMALL = {"n_surrogates": 4, "n_trials": 10, "duration": 100.0}


@pytest.fixture(scope="module")
def report(fitted, blobs):
    return stability_report(fitted, blobs[0], **SMALL)


def test_score_of_stable_and_runaway(fitted, runaway, blobs):
    X, _ = blobs
    assert stability_score(fitted, X, duration=500.0) == 1.0
    assert stability_score(runaway, X, duration=500.0, n_trials=3) == 0.0
    assert type(stability_score(fitted, X[:3], duration=10.0)) is float
    # too short to run away
    assert stability_score(runaway, X, duration=1.0) == 1.0


def test_pipeline_and_bare_estimator_agree(fitted, runaway, blobs):
    X, _ = blobs
    double = FunctionTransformer(lambda X: 2 * X)
    for network in (fitted, runaway):
        expected = stability_score(network, 2 * X, duration=15.0)
        assert stability_score(make_pipeline(double, network), X, duration=15.0) == expected
        assert stability_score(make_pipeline(network), 2 * X, duration=15.0) == expected
    reports = [
        stability_report(make_pipeline(double, runaway), X, **SMALL),
        stability_report(runaway, 2 * X, **SMALL),
    ]
    assert_array_equal(reports[0].shuffled, reports[1].shuffled)
    assert_array_equal(reports[0].random, reports[1].random)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_scorer_in_cross_validate(small_ssn, blobs, n_jobs):
    scorer = make_stability_scorer(duration=100.0, random_state=3)
    assert repr(scorer) == "make_stability_scorer(duration=100.0, random_state=3)"
    model = make_pipeline(StandardScaler(), small_ssn(max_iter=5, growth_iter=2))
    scoring = {"accuracy": "accuracy", "stability": scorer}
    scores = cross_validate(
        model, *blobs, cv=2, n_jobs=n_jobs, scoring=scoring, error_score="raise"
    )
    assert_array_equal(scores["test_stability"], [1.0, 1.0])


def quadrants(circuit):
    n = circuit.n_excitatory
    return [block for rows in np.vsplit(circuit.weights, [n]) for block in np.hsplit(rows, [n])]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [(5, 3), (20, 20), (1, 1)])
def test_shuffled_surrogate(size, dtype):
    circuit = random_circuit(*size, random_state=0, dtype=dtype)
    weights = circuit.weights.copy()
    surrogate = shuffled_surrogate(circuit, np.random.RandomState(1))
    for block, shuffled in zip(quadrants(circuit), quadrants(surrogate), strict=True):
        assert_array_equal(np.sort(shuffled, axis=None), np.sort(block, axis=None))
        # and not row by row
        assert block.size == 1 or (np.sort(shuffled, axis=1) != np.sort(block, axis=1)).any()
    assert (surrogate.weights * surrogate.signs > 0).all()
    assert surrogate.weights.dtype == dtype
    assert_array_equal(surrogate.noise_factor, circuit.noise_factor)
    assert_array_equal(circuit.weights, weights)


@pytest.mark.parametrize("size", [(40, 10), (25, 25)])
def test_random_surrogate(size):
    circuit = random_circuit(*size, scale=0.7, random_state=0, dtype=np.float32)
    surrogate = random_surrogate(circuit, np.random.RandomState(1))
    assert (surrogate.weights * surrogate.signs > 0).all()
    assert surrogate.weights.dtype == np.float32
    # the standard error of the mean square of n normal numbers is sqrt(2 / n) of it
    error = np.sqrt(2 / 2500)
    assert np.mean(surrogate.weights**2) == pytest.approx(circuit.weights.var(), rel=4 * error)
    assert_array_equal(surrogate.noise_factor, circuit.noise_factor)
    assert_array_equal(surrogate.theta, circuit.theta)


def test_report(report):
    assert report.trained == 0.0
    assert report.shuffled.shape == report.random.shape == (4,)
    for shares in (report.shuffled, report.random):
        assert ((shares >= 0) & (shares <= 1)).all()
        assert_allclose(shares * 10, np.round(shares * 10))
    assert (report.n_trials, report.duration) == (10, 100.0)


def test_report_of_a_runaway(runaway, blobs):
    report = stability_report(runaway, blobs[0], **SMALL)
    assert report.trained == 1.0
    assert_array_equal(report.shuffled, np.ones(4))  # equal weights shuffled are themselves
    few = stability_report(runaway, blobs[0][:3], **SMALL)
    assert few.trained == 1.0


def test_report_follows_the_seed(report, fitted, blobs):
    again = stability_report(fitted, blobs[0], **SMALL)
    assert_array_equal(again.shuffled, report.shuffled)
    assert_array_equal(again.random, report.random)


def test_summary():
    shuffled, random = np.array([0.2, 0.5, 0.8]), np.array([1.0])
    report = StabilityReport(0.25, shuffled, random, n_trials=12, duration=500.0)
    summary = report.summary()
    assert list(summary) == ["trained", "shuffled", "random"]
    assert summary["trained"] == pytest.approx((0.25, np.sqrt(0.25 * 0.75 / 12)))
    assert summary["shuffled"] == pytest.approx((0.5, 0.3 / np.sqrt(3)))
    assert summary["random"] == pytest.approx((1.0, np.nan), nan_ok=True)
    assert str(report).splitlines() == [
        "Share of diverging trials (500 ms, mean +- s.e.)",
        " trained: 0.250 +- 0.125",
        "shuffled: 0.500 +- 0.173",
        "  random: 1.000 +- nan",
    ]


def test_refusals(fitted, small_ssn, blobs):
    X, y = blobs
    for name, value in (("n_surrogates", 0), ("n_trials", 2.5), ("n_trials", -1)):
        with pytest.raises(ValueError, match=f"{name} must be a positive integer, got {value}"):
            stability_report(fitted, X, **{name: value})
    for function in (stability_score, stability_report):
        with pytest.raises(TypeError, match="got LogisticRegression"):
            function(LogisticRegression().fit(X, y), X)
        with pytest.raises(NotFittedError, match="This SSNClassifier instance is not fitted"):
            function(small_ssn(), X)
        with pytest.raises(ValueError, match=r"duration must be .* got 0"):
            function(fitted, X, duration=0)
        with pytest.raises(ValueError, match="X has 3 features"):
            function(fitted, X[:, :3])
    with pytest.raises(TypeError, match="unexpected keyword argument 'trials'"):
        make_stability_scorer(trials=3)(fitted, X)
