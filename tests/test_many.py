"""`fit_many` and `fit_networks`: side by side as one after the other."""

import signal
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ssn_estimators import (
    GaussianScaleMixture,
    SSNClassifier,
    SSNSampler,
    fit_many,
    fit_networks,
)
from ssn_estimators.simulation import simulate_trials
from ssn_estimators.training import side_by_side
from ssn_estimators.training.descent import Descent
from ssn_estimators.training.side_by_side import run_together

X, Y = load_iris(return_X_y=True)
SHORT = {"max_iter": 10, "growth_iter": 3, "random_state": 0}
ARRAYS = ("readout_weights_", "readout_bias_", "loss_curve_")


@pytest.fixture(autouse=True)
def usual_interrupt():
    """Also where tests are run in the background, and so without Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def assert_same_fit(one, other):
    for name in ARRAYS:
        assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("weights", "noise_factor", "theta"):
        assert_array_equal(getattr(one.circuit_, name), getattr(other.circuit_, name))
    assert one.growth_history_ == other.growth_history_
    assert one.stability_ == other.stability_
    assert_array_equal(one.predict_proba(X), other.predict_proba(X))


def batch_sizes(monkeypatch):
    """Sizes of the batches of simulations that trainings run in, as they come."""
    sizes = []

    def counted(circuits, *args, **kwargs):
        sizes.append(len(circuits))
        return simulate_trials(circuits, *args, **kwargs)

    monkeypatch.setattr("ssn_estimators.training.side_by_side.simulate_trials", counted)
    return sizes


def test_side_by_side_as_one_by_one(monkeypatch):
    estimators = [
        SSNClassifier(**SHORT),
        SSNClassifier(**(SHORT | {"random_state": 1})),
        SSNClassifier(**(SHORT | {"learning_rate_init": 0.001})),
        SSNClassifier(**(SHORT | {"solver": "euler", "max_iter": 5})),
        SSNClassifier(**(SHORT | {"n_excitatory": 6, "input_weights": "dense"})),
    ]
    alone = [clone(ssn).fit(X, Y) for ssn in estimators]
    sizes = batch_sizes(monkeypatch)
    together = fit_many(estimators, X, Y)
    assert all(a is b for a, b in zip(estimators, together, strict=True))
    assert max(sizes) >= 3
    for one, other in zip(alone, together, strict=True):
        assert_same_fit(one, other)


def test_a_network_that_diverges_is_led_back_alone():
    steady = SSNClassifier(**SHORT)
    wild = SSNClassifier(**(SHORT | {"learning_rate_init": 10.0}))
    alone = clone(steady).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # if it goes on too long
        fit_many([wild, steady], X, Y)
    assert wild.n_rejected_steps_ > 0
    assert steady.n_rejected_steps_ == 0
    assert_same_fit(steady, alone)


def test_validation_and_early_stopping_end_networks_at_different_times():
    impatient = SSNClassifier(
        **(SHORT | {"max_iter": 200, "early_stopping": True, "n_iter_no_change": 1, "tol": 1.0})
    )
    patient = clone(impatient).set_params(n_iter_no_change=10)
    fit_many([impatient, patient], X, Y)
    assert impatient.n_iter_ < patient.n_iter_
    assert len(patient.validation_scores_) == 4


def test_networks_differ_and_are_reproducible():
    first, second = (fit_networks(SSNClassifier(**SHORT), X, Y, 3, random_state=0) for _ in "ab")
    assert len({ssn.random_state for ssn in first}) == 3
    assert len({float(ssn.readout_weights_[0, 0]) for ssn in first}) == 3
    for one, other in zip(first, second, strict=True):
        assert_same_fit(one, other)
    assert_same_fit(first[1], clone(first[1]).fit(X, Y))


def test_warm_start_goes_on_side_by_side():
    together = [SSNClassifier(**(SHORT | {"warm_start": True, "random_state": i})) for i in (0, 1)]
    alone = [clone(ssn).fit(X, Y).fit(X, Y) for ssn in together]
    fit_many(fit_many(together, X, Y), X, Y)
    for one, other in zip(alone, together, strict=True):
        assert_same_fit(one, other)


def test_samplers_side_by_side():
    targets = {"mean": X, "covariance": np.repeat(np.eye(X.shape[1])[None], len(X), 0)}
    short = {"max_iter": 3, "growth_iter": 1, "burn_in": 50.0, "moments": "simulation"}
    together = [SSNSampler(**short, random_state=seed) for seed in (0, 1)]
    alone = [clone(sampler).fit(X, **targets) for sampler in together]
    for one, other in zip(alone, fit_many(together, X, **targets), strict=True):
        assert_array_equal(one.circuit_.weights, other.circuit_.weights)
    assert not np.array_equal(together[0].circuit_.weights, together[1].circuit_.weights)
    with pytest.raises(ValueError, match="y"):
        fit_many([SSNClassifier(**SHORT)], X)


def test_bad_input_is_refused_before_work():
    ssn = SSNClassifier(**SHORT)
    with pytest.raises(TypeError, match="LogisticRegression"):
        fit_many([ssn, LogisticRegression()], X, Y)
    with pytest.raises(ValueError, match="more than once"):
        fit_many([ssn, ssn], X, Y)
    with pytest.raises(ValueError, match="max_iter"):
        fit_many([ssn, SSNClassifier(max_iter=0)], X, Y)
    assert not hasattr(ssn, "circuit_")
    for n_networks in (0, 1.5):
        with pytest.raises(ValueError, match="n_networks"):
            fit_networks(ssn, X, Y, n_networks)


def test_interrupt_reaches_every_network(monkeypatch):
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(True)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return simulate_trials(*args, **kwargs)

    monkeypatch.setattr("ssn_estimators.training.side_by_side.simulate_trials", interrupted)
    networks = [SSNClassifier(**(SHORT | {"random_state": i})) for i in (0, 1)]
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        fit_many(networks, X, Y)
    for ssn in networks:
        assert 0 < ssn.n_iter_ < 8
        assert ssn.stability_ == 1.0
        assert np.isfinite(ssn.predict_proba(X)).all()


@pytest.mark.parametrize("within", ["step", "simulation"])
def test_ctrl_c_reaches_every_network(monkeypatch, within):
    """Also where it is pressed while one of them takes a step."""
    calls, handler = [], signal.getsignal(signal.SIGINT)
    place = {"step": (Descent, "step"), "simulation": (side_by_side, "simulate_trials")}[within]
    original = getattr(*place)

    def pressing(*args, **kwargs):
        calls.append(True)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(*place, pressing)
    networks = [SSNClassifier(**(SHORT | {"random_state": i})) for i in (0, 1)]
    try:
        with pytest.warns(ConvergenceWarning, match="interrupted") as warned:
            fit_many(networks, X, Y)
    except KeyboardInterrupt:  # would end pytest itself
        pytest.fail("the interrupt went through")
    assert len([w for w in warned if "interrupted" in str(w.message)]) == 2
    for ssn in networks:
        assert 0 < ssn.n_iter_ < 8
        assert ssn.stability_ == 1.0
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_twice_ends_at_once():
    def waits():
        yield
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        yield

    with pytest.raises(KeyboardInterrupt):
        run_together([waits()])


def test_ctrl_c_twice_within_a_simulation(monkeypatch):
    """The second ends it at once, and counts once."""
    calls = []

    def pressing(*args, **kwargs):
        calls.append(True)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return simulate_trials(*args, **kwargs)

    monkeypatch.setattr(side_by_side, "simulate_trials", pressing)
    ssn = SSNClassifier(**SHORT)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        ssn.fit(X, Y)
    assert 0 < ssn.n_iter_ < 8


def test_ctrl_c_after_the_end_keeps_what_is_done():
    def ends():
        yield
        signal.raise_signal(signal.SIGINT)
        return "done"

    with pytest.warns(ConvergenceWarning, match="when training was over"):
        assert run_together([ends()]) == ["done"]


def test_ctrl_c_before_there_is_anything_to_keep():
    """Goes through, as from a fit of a generative model."""

    def starts():
        signal.raise_signal(signal.SIGINT)
        yield

    with pytest.raises(KeyboardInterrupt):
        run_together([starts()])


def test_ctrl_c_between_steps_without_simulation(monkeypatch):
    """Those by equations of moments."""
    images = np.random.RandomState(0).normal(size=(60, 9))
    steps = []
    step = Descent.step

    def pressing(*args, **kwargs):
        steps.append(True)
        if len(steps) == 5:
            signal.raise_signal(signal.SIGINT)
        return step(*args, **kwargs)

    monkeypatch.setattr(Descent, "step", pressing)
    sampler = SSNSampler(
        GaussianScaleMixture(2, max_iter=5), max_iter=40, growth_iter=10, random_state=0
    )
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        sampler.fit(images)
    assert len(steps) == 5


def test_an_error_of_one_is_raised():
    def fails():
        raise RuntimeError("no pair is stable")
        yield

    def waits():
        yield from ()

    with pytest.raises(RuntimeError, match="no pair"):
        run_together([waits(), fails()])


def test_the_number_of_threads_does_not_matter():
    n_threads = torch.get_num_threads()
    fits = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            fits.append(fit_networks(SSNClassifier(**SHORT), X, Y, 2, random_state=0))
    finally:
        torch.set_num_threads(n_threads)
    for one, other in zip(*fits, strict=True):
        assert_same_fit(one, other)
