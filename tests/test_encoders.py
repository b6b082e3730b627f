"""AutoencoderEncoder: codes row by row, reconstruction, early stopping, use before a network."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_validate, train_test_split
from sklearn.pipeline import make_pipeline

from ssn_estimators import AutoencoderEncoder, make_stability_scorer

SMALL = {"hidden_layer_sizes": (32,), "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:600], y[:600]


@pytest.fixture(scope="module")
def encoder(digits):
    return AutoencoderEncoder(10, max_iter=400, **SMALL).fit(digits[0])


def test_codes_are_between_0_and_1(encoder, digits):
    codes = encoder.transform(digits[0])
    assert codes.shape == (600, 10)
    assert codes.min() > 0
    assert codes.max() < 1
    assert codes.std() > 0.1
    # also far outside the data it was trained on
    far = encoder.transform(1e6 * np.ones((1, 64)))
    assert ((far > 0) & (far < 1)).all()


@pytest.mark.parametrize("places", [[1], [64], [63, 65, 300], range(50, 600, 50)])
def test_a_row_is_coded_alike_in_any_company(encoder, digits, places):
    X, whole = digits[0], encoder.transform(digits[0])
    parts = [encoder.transform(part) for part in np.split(X, places)]
    assert_array_equal(np.concatenate(parts), whole)
    order = np.random.RandomState(0).permutation(600)
    assert_array_equal(encoder.transform(X[order]), whole[order])
    assert_array_equal(encoder.transform(X[[7] * 70]), whole[[7] * 70])
    assert_array_equal(encoder.transform(X[[599]]), whole[[599]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_that_of_the_input(encoder, digits, dtype):
    assert encoder.transform(digits[0][:3].astype(dtype)).dtype == dtype


def test_reconstruction_beats_the_mean(encoder, digits):
    X, _ = digits
    reconstruction = encoder.inverse_transform(encoder.transform(X))
    assert reconstruction.shape == X.shape
    assert np.mean((X - reconstruction) ** 2) < 0.7 * np.mean((X - X.mean(0)) ** 2)
    assert np.mean(encoder.loss_curve_[-20:]) < 0.7 * encoder.loss_curve_[0]


def test_reconstruction_is_in_the_units_of_the_data(encoder, digits):
    X, _ = digits
    reconstruction = encoder.inverse_transform(encoder.transform(X))
    varies = np.ptp(X, axis=0) > 0
    assert (reconstruction >= X.min(0) - 1e-6)[:, varies].all()
    assert (reconstruction <= X.max(0) + 1e-6)[:, varies].all()
    # the same training on the same data in other units
    other = AutoencoderEncoder(10, max_iter=20, **SMALL).fit(100 * X - 7)
    plain = AutoencoderEncoder(10, max_iter=20, **SMALL).fit(X)
    there = other.inverse_transform(other.transform(100 * X - 7))
    here = plain.inverse_transform(plain.transform(X))
    assert_allclose(((there + 7) / 100)[:, varies], here[:, varies], atol=1e-3)


def test_layers(encoder):
    shapes = [weights.shape for weights in encoder.coefs_]
    assert shapes == [(64, 32), (32, 10), (10, 32), (32, 64)]
    assert [bias.shape for bias in encoder.intercepts_] == [shape[1:] for shape in shapes]
    assert all(type(array) is np.ndarray for array in encoder.coefs_ + encoder.intercepts_)
    assert encoder.n_iter_ == len(encoder.loss_curve_) == 400
    assert encoder.validation_scores_ is None


def test_no_hidden_layers(digits):
    encoder = AutoencoderEncoder(5, hidden_layer_sizes=(), max_iter=3).fit(digits[0])
    assert [weights.shape for weights in encoder.coefs_] == [(64, 5), (5, 64)]


def validation_cost(encoder, X):
    scaled = encoder.scaler_.transform(X)
    p = encoder.scaler_.transform(encoder.inverse_transform(encoder.transform(X)))
    p = np.clip(p, 1e-12, 1 - 1e-7)
    return -np.mean(scaled * np.log(p) + (1 - scaled) * np.log(1 - p))


def test_early_stopping_keeps_the_best(digits):
    X = digits[0][:60]
    encoder = AutoencoderEncoder(
        10, max_iter=3000, learning_rate_init=0.02, early_stopping=True, **SMALL
    ).fit(X)
    losses = -np.array(encoder.validation_scores_)
    assert len(losses) < 30
    assert encoder.n_iter_ == 100 * len(losses)
    assert np.argmin(losses) < len(losses) - 1
    _, held_out = train_test_split(X, test_size=0.1, random_state=0)  # what is drawn first
    assert validation_cost(encoder, held_out) == pytest.approx(min(losses), rel=1e-3)
    assert encoder.best_validation_score_ == -min(losses)


def test_random_state(digits):
    X, _ = digits
    a, b, c = (
        AutoencoderEncoder(4, max_iter=5, **SMALL | {"random_state": state}).fit_transform(X)
        for state in (0, 0, 1)
    )
    assert_array_equal(a, b)
    assert (a != c).any()


def test_names_of_outputs(encoder, digits):
    names = [f"autoencoderencoder{i}" for i in range(10)]
    assert list(encoder.get_feature_names_out()) == names
    pytest.importorskip("pandas")
    frame = copy.deepcopy(encoder).set_output(transform="pandas").transform(digits[0][:5])
    assert list(frame.columns) == names
    assert_array_equal(frame, encoder.transform(digits[0][:5]))


def test_callbacks_see_every_step(digits):
    monitor = ScoringMonitor(scoring=lambda encoder, X, y: {"cost": validation_cost(encoder, X)})
    AutoencoderEncoder(4, max_iter=6, **SMALL).set_callbacks(monitor).fit(*digits)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "iteration"]
    assert len(rows) == 6
    assert all(np.isfinite(row["cost"]) for row in rows)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components": 0}, "'n_components' .* Got 0 instead"),
        ({"hidden_layer_sizes": (8, 0)}, r"positive integers, got \(8, 0\)"),
        ({"hidden_layer_sizes": (8, 2.5)}, r"positive integers, got \(8, 2.5\)"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        (
            {"early_stopping": True, "validation_fraction": 0.9999},
            "cannot hold out validation_fraction",
        ),
    ],
)
def test_fit_refuses(digits, parameters, message):
    encoder = AutoencoderEncoder(**parameters)
    with pytest.raises(ValueError, match=message):
        encoder.fit(digits[0])
    assert not hasattr(encoder, "coefs_")


def test_answers_are_refused(encoder, digits):
    X, _ = digits
    for method in ("transform", "inverse_transform"):
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            getattr(AutoencoderEncoder(), method)(X)
    with pytest.raises(ValueError, match=r"X has 63 features, but .* expecting 64"):
        encoder.transform(X[:, :63])
    with pytest.raises(ValueError, match="contains NaN"):
        encoder.transform(np.full((1, 64), np.nan))
    with pytest.raises(ValueError, match=r"shape \(n_samples, 10\), got \(600, 64\)"):
        encoder.inverse_transform(X)
    with pytest.raises(ValueError, match="array of numbers"):
        encoder.inverse_transform([["a"] * 10])
    with pytest.raises(ValueError, match=r"shape \(n_samples, 10\), got \(0, 10\)"):
        encoder.inverse_transform(np.zeros((0, 10)))


def test_before_a_network_under_cross_validation(small_ssn, digits):
    X, y = digits
    model = make_pipeline(AutoencoderEncoder(4, max_iter=50, **SMALL), small_ssn(max_iter=20))
    scoring = {"accuracy": "accuracy", "stability": make_stability_scorer(duration=200.0)}
    scores = cross_validate(model, X, y, cv=2, scoring=scoring, error_score="raise")
    assert_array_equal(scores["test_stability"], [1.0, 1.0])
    assert ((scores["test_accuracy"] >= 0) & (scores["test_accuracy"] <= 1)).all()
