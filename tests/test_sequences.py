"""Sequences with an axis of steps, for all that otherwise take them as rows."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

from ssn_estimators import MorrisLecarClassifier, RNNClassifier
from ssn_estimators.datasets import load_digits_by_row, make_temporal_xor

CELLS = {"word_duration": 2.0, "read_duration": 2.0, "n_samples": 4}
ESTIMATORS = [
    RNNClassifier(8, max_iter=5, random_state=0),
    MorrisLecarClassifier(8, **CELLS, max_iter=2, random_state=0),
]


@pytest.fixture(scope="module")
def data():
    X, y = load_digits_by_row()
    return X[:60], y[:60]


@pytest.fixture(params=ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def estimator(request):
    return clone(request.param)


def test_rows_and_steps_are_the_same(estimator, data):
    X, y = data
    rows = X.reshape(len(X), -1)
    by_rows = clone(estimator).set_params(**{estimator._steps: 8}).fit(rows, y)
    by_steps = estimator.fit(X, y)
    assert by_steps.input_weights_.shape == (8, 8)
    for name in ("transform", "predict", "decision_function", "predict_proba"):
        wanted = getattr(by_rows, name)(rows)
        for fitted, given in (
            (by_rows, X),
            (by_steps, X),
            (by_steps, rows),
            (by_steps, X.tolist()),
        ):
            assert_array_equal(getattr(fitted, name)(given), wanted)
    assert by_steps.score(X, y) == by_rows.score(rows, y)


def test_steps_must_agree(estimator, data):
    X, y = data
    with pytest.raises(ValueError, match=f"8 steps of 8 inputs.*{estimator._steps}=4"):
        clone(estimator).set_params(**{estimator._steps: 4}).fit(X, y)
    fitted = estimator.fit(X, y)
    with pytest.raises(ValueError, match="is for 8"):
        fitted.predict(X.reshape(len(X), 4, 16))
    with pytest.raises(ValueError, match="features"):
        fitted.predict(X[:, :, :7])
    assert clone(fitted).fit(X.reshape(len(X), 4, 16), y).input_weights_.shape == (8, 16)


def test_going_on(estimator, data):
    X, y = data
    fitted = estimator.set_params(warm_start=True).fit(X, y)
    n_iter = fitted.n_iter_
    assert fitted.fit(X, y).n_iter_ == 2 * n_iter
    with pytest.raises(ValueError, match="is for 8"):
        fitted.fit(X.reshape(len(X), 4, 16), y)


def test_refitting_takes_the_new_steps(estimator, data):
    X, y = data
    assert estimator.fit(X, y).fit(X[:, :4], y).input_weights_.shape == (8, 8)
    assert len(estimator.predict(X[:3, :4])) == 3


def test_rows_are_one_step_unless_more_are_asked_for(estimator, data):
    X, y = data
    assert estimator.fit(X.reshape(len(X), -1), y).input_weights_.shape == (8, 64)


def test_labels_of_every_step():
    X, y = make_temporal_xor(40, dt=100.0, random_state=0)
    every = np.zeros((40, X.shape[1]), int)
    every[:, -1] = 1 + y
    rnn = RNNClassifier(8, max_iter=5, random_state=0).fit(X, every)
    assert rnn.predict(X).shape == every.shape
    assert rnn.unrolled(X[:2])[1].shape == (2, X.shape[1], 8)
    with pytest.raises(ValueError, match="labels for 5 steps"):
        rnn.fit(X, every[:, :5])


def test_an_rnn_learns_temporal_xor():
    X, y = make_temporal_xor(400, delay=300.0, dt=100.0, random_state=0)
    rnn = RNNClassifier(100, max_iter=1500, learning_rate_init=0.03, random_state=0).fit(X, y)
    X, y = make_temporal_xor(200, delay=300.0, dt=100.0, noise=0.05, random_state=1)
    assert rnn.score(X, y) > 0.95
