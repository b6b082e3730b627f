"""Companions that an optimiser trains step by step: the same options mean the same in all."""

import copy
import warnings

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import ConvergenceWarning

from ssn_estimators import (
    AutoencoderEncoder,
    CNNClassifier,
    GMMFlow,
    MorrisLecarClassifier,
    RNNClassifier,
)

RNG = np.random.RandomState(0)
X = np.vstack([RNG.normal(m, 1, (40, 9)) for m in (0, 1.5, 3)])
Y = np.repeat(["a", "b", "c"], 40)
TIMES = {"word_duration": 5.0, "read_duration": 5.0}
MADE = {
    "autoencoder": lambda **p: AutoencoderEncoder(3, hidden_layer_sizes=(8,), **p),
    "rnn": lambda **p: RNNClassifier(12, **p),
    "cnn": lambda **p: CNNClassifier((4,), lateral="linear", **p),
    "flow": lambda **p: GMMFlow(3, n_layers=2, hidden_layer_sizes=(8,), **p),
    "morris-lecar": lambda **p: MorrisLecarClassifier(
        6, word_duration=5.0, read_duration=5.0, n_samples=4, **p
    ),
}
OUTPUTS = ("transform", "decision_function", "score_samples")


@pytest.fixture(params=MADE)
def make(request):
    if request.param == "flow":
        pytest.importorskip("zuko")
    return lambda **parameters: MADE[request.param](**{"random_state": 0} | parameters)


def answers(model):
    return next(getattr(model, name)(X) for name in OUTPUTS if hasattr(model, name))


def test_verbose_prints_a_line_now_and_then(make, capsys):
    model = make(max_iter=120, verbose=True).fit(X, Y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == -(-120 // model._look_every)
    assert lines[-1].startswith(f"[{type(model).__name__}] step    120   loss ")
    make(max_iter=2).fit(X, Y)
    assert not capsys.readouterr().out


def test_warm_start_goes_on(make):
    model = make(max_iter=5, warm_start=True, learning_rate_init=1e-12).fit(X, Y)
    before, curve = answers(model), list(model.loss_curve_)
    model.fit(X, Y)
    assert model.n_iter_ == len(model.loss_curve_) == 10
    assert model.loss_curve_[:5] == curve
    # at hardly any rate it is the network of before
    np.testing.assert_allclose(answers(model), before, rtol=1e-3, atol=1e-4)
    model.set_params(warm_start=True, learning_rate_init=0.01, random_state=1).fit(X, Y)
    assert not np.allclose(answers(model), before, rtol=1e-3, atol=1e-4)
    model.set_params(warm_start=False).fit(X, Y)
    assert model.n_iter_ == 5


def test_warm_start_leaves_the_fitted_arrays_of_a_failed_fit(make):
    """Those are not what the optimiser works on."""
    model = make(max_iter=3).fit(X, Y)
    before, curve, copied = answers(model), list(model.loss_curve_), copy.copy(model)
    model.set_params(warm_start=True)

    def failing(*_):
        raise RuntimeError("on purpose")

    model._completed = failing
    with pytest.raises(RuntimeError, match="on purpose"):
        model.fit(X, Y)
    assert_array_equal(answers(model), before)
    assert model.loss_curve_ == curve
    copied.set_params(warm_start=True).fit(X, Y)
    assert model.loss_curve_ == curve
    assert len(copied.loss_curve_) == 6


def test_scores_go_on_as_losses_do(make):
    model = make(max_iter=100, early_stopping=True, n_iter_no_change=50, warm_start=True)
    if isinstance(model, MorrisLecarClassifier):
        model.set_params(max_iter=20)
    n = len(model.fit(X, Y).validation_scores_)
    assert len(model.fit(X, Y).validation_scores_) == 2 * n


@pytest.mark.parametrize(
    ("made", "change"),
    [
        ("cnn", {"filters": (5,)}),
        ("cnn", {"n_hidden": 5}),
        ("flow", {"n_layers": 3}),
        ("flow", {"hidden_layer_sizes": (5,)}),
        ("flow", {"n_components": 5}),
        ("rnn", {"n_hidden": 5}),
        ("autoencoder", {"n_components": 2}),
        ("autoencoder", {"hidden_layer_sizes": (4,)}),
        ("morris-lecar", {"n_cells": 5}),
    ],
)
def test_no_warm_start_of_another_architecture(made, change):
    if made == "flow":
        pytest.importorskip("zuko")
    model = MADE[made](max_iter=2, random_state=0).fit(X, Y)
    with pytest.raises(ValueError, match=r"shape|size|cells|components"):
        model.set_params(warm_start=True, **change).fit(X, Y)


def test_networks_that_lose_their_gates_have_none():
    model = CNNClassifier((4,), lateral="linear", max_iter=3, random_state=0).fit(X, Y)
    model.set_params(lateral=None, warm_start=True).fit(X, Y)
    assert model.lateral_weights_ == []


def test_early_stopping_keeps_the_best(make):
    model = make(max_iter=4000, early_stopping=True, n_iter_no_change=2, tol=1e-3)
    if isinstance(model, MorrisLecarClassifier):
        model.set_params(max_iter=400)
    model.fit(X, Y)
    scores = model.validation_scores_
    assert model.n_iter_ == len(scores) * model._look_every < model.max_iter
    assert model.best_validation_score_ == max(scores)
    # stopped since the last two were no better than those before
    assert max(scores[-2:]) <= max(scores[:-2]) + 1e-3
    plain = make(max_iter=3).fit(X, Y)
    assert plain.validation_scores_ is None
    assert plain.best_validation_score_ is None


def test_early_stopping_needs_samples_to_train_on(make):
    with pytest.raises(ValueError, match=r"validation_fraction=0\.999 of 120 samples"):
        make(early_stopping=True, validation_fraction=0.999).fit(X, Y)


def test_callbacks_see_a_fitted_estimator_at_every_step(make):
    seen = []

    def look(model, X, y):
        seen.append(answers(model))
        assert model.n_iter_ == len(model.loss_curve_) == min(len(seen), 4)
        return {"first": float(np.ravel(seen[-1])[0])}

    model = make(max_iter=4)
    model.set_callbacks(ScoringMonitor(scoring=look)).fit(X, Y)
    assert len(seen) >= 4
    assert all(np.isfinite(one).all() for one in seen)
    if not isinstance(model, (MorrisLecarClassifier, CNNClassifier)):  # the end adds to these
        assert_array_equal(seen[-1], answers(model))


def test_ctrl_c_keeps_what_is_learned(make):
    reached = make(max_iter=3).fit(X, Y).loss_curve_
    model, taken = make(max_iter=50), []
    take_steps = model._take_steps

    def interrupted(step, *args, **kwargs):
        def some(i):
            if i == 3:
                raise KeyboardInterrupt
            taken.append(i)
            return step(i)

        return take_steps(some, *args, **kwargs)

    model._take_steps = interrupted
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.warns(ConvergenceWarning, match="interrupted by user"):
            model.fit(X, Y)
    assert model.n_iter_ == len(taken) == 3
    assert len(reached) == 3
    assert model.loss_curve_[0] == reached[0]
    assert np.isfinite(answers(model)).all()


def test_flow_refuses_early_stopping_where_samples_are_carried_along():
    pytest.importorskip("zuko")
    from ssn_estimators.density import Langevin

    flow = GMMFlow(2, objective="fokker_planck", dynamics=Langevin(lambda x: -x, np.eye(9)))
    with pytest.raises(ValueError, match="need not be of the density"):
        flow.set_params(early_stopping=True).fit(X)


def test_a_loss_that_is_not_finite_ends_the_fit(make):
    model = make(max_iter=5)
    if not model._checks_loss:
        pytest.skip("it skips steps, see its own tests")
    take_steps = model._take_steps

    def failing(step, *args, **kwargs):
        return take_steps(lambda i: step(i) if i < 2 else np.nan, *args, **kwargs)

    model._take_steps = failing
    with pytest.raises(FloatingPointError, match="the loss of step 3 is not finite; lower learn"):
        model.fit(X, Y)
    assert not hasattr(model, "loss_curve_")
