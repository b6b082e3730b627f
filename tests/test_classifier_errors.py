"""SSNClassifier says what was wrong with its input, before any work is done."""

import copy

import numpy as np
import pytest

from ssn_estimators import SSNClassifier


def with_value(X, value):
    X = X.astype(object if isinstance(value, str) else float)
    X[3, 2] = value
    return X


@pytest.mark.parametrize(
    ("parameters", "change", "message"),
    [
        ({}, lambda X, y: (with_value(X, np.nan), y), "contains NaN"),
        ({}, lambda X, y: (with_value(X, np.inf), y), "contains infinity"),
        ({}, lambda X, y: (with_value(X, "red"), y), "red"),
        ({}, lambda X, y: (X, 0 * y), "at least 2 classes, got one class: .*0"),
        ({}, lambda X, y: (X, y + 0.5), "Unknown label type: continuous"),
        ({}, lambda X, y: (X, y[:-1]), r"\[150, 149\]"),
        ({"dt": -1.0}, None, r"'dt' .* Got -1.0 instead"),
        ({"window": 0.5}, None, r"window must be .* got 0.5"),
        ({"dt_training": 7.0}, None, r"dt_training=7.0: window must be a multiple of dt=7 ms"),
        ({"dt_training": 10.0}, None, r"dt_training=10.0: dt must be shorter than .* tau_i is 10"),
        ({"dt_training": 0.0}, None, r"'dt_training' .* Got 0.0 instead"),
        ({"solver": "rk4"}, None, r"'solver' .* Got 'rk4' instead"),
        ({"trainer": "sgd"}, None, r"'trainer' .* Got 'sgd' instead"),
        ({"es_samples": 5}, None, "es_samples come in pairs"),
        ({"gamma": 0.5}, None, r"'gamma' .* Got 0.5 instead"),
        ({"device": "abacus"}, None, "device 'abacus' cannot be used"),
        (
            {"input_weights": "one_to_one", "n_excitatory": 7},
            None,
            "n_excitatory=7 and X has 4 features",
        ),
        ({"weight_structure": "circulant", "n_inhibitory": 2}, None, "must be 4, got 2"),
        ({"init": np.eye(5)}, None, "init .* needs growth=None"),
        ({"init": np.eye(3), "growth": None}, None, r"init must have shape \(5, 5\)"),
        ({"init": np.eye(5) * -1.0, "growth": None}, None, "Dale"),
        ({}, lambda X, y: (X, y, None, X), "X_val and y_val must be given together"),
        ({}, lambda X, y: (X, y, None, None, y), "X_val and y_val must be given together"),
        ({}, lambda X, y: (X, y, None, X, y[:9]), "X_val has 150 samples, y_val has 9"),
        ({}, lambda X, y: (X, y, None, X[:, :3], y), "X has 3 features, but .* expecting 4"),
        ({}, lambda X, y: (X, y, None, X, y + 1), r"y_val contains labels \[3\]"),
    ],
)
def test_fit_refuses(small_ssn, blobs, parameters, change, message):
    ssn = small_ssn(**parameters)
    arguments = change(*blobs) if change else blobs
    with pytest.raises(ValueError, match=message):
        ssn.fit(*arguments)
    assert not hasattr(ssn, "circuit_")


@pytest.mark.parametrize(
    "method", ["predict", "predict_proba", "decision_function", "transform", "drive", "simulate"]
)
def test_answers_are_refused(small_ssn, fitted, blobs, method):
    X, _ = blobs
    with pytest.raises(ValueError, match="This SSNClassifier instance is not fitted yet"):
        getattr(small_ssn(), method)(X)
    answer = getattr(copy.copy(fitted), method)
    for bad, message in ((X[:, :3], "X has 3 features"), (with_value(X, np.nan), "NaN")):
        with pytest.raises(ValueError, match=message):
            answer(bad)


@pytest.mark.parametrize("wrong", [{"window": 0.5}, {"dt": 50.0}, {"burn_in": 1e12}])
def test_wrong_times_are_refused_before_any_work(wrong, monkeypatch):
    def work(*args, **kwargs):
        raise AssertionError("it has begun")

    monkeypatch.setattr("ssn_estimators.base.stable_pair", work)
    with pytest.raises(ValueError, match=r"duration|dt|burn_in"):
        SSNClassifier(**wrong).fit([[0.0, 1.0], [1.0, 0.0]] * 5, [0, 1] * 5)
