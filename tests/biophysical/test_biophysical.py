"""Morris-Lecar cells against theory, and their networks."""

import copy
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import solve_ivp
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ssn_estimators.biophysical import morris_lecar
from ssn_estimators.biophysical.classifier import MorrisLecarClassifier
from ssn_estimators.biophysical.morris_lecar import MorrisLecar
from ssn_estimators.datasets import make_evidence_integration, make_working_memory

SMALL = {
    "n_cells": 10,
    "n_words": 5,
    "word_duration": 4.0,
    "n_samples": 10,
    "max_iter": 4,
    "batch_size": 16,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def task():
    return make_evidence_integration(200, n_words=5, n_inputs=8, random_state=0)


def test_rates_are_those_of_the_table():
    current = [39.5, 39.9, 42.0, 45.0, 50.0, 60.0, 100.0, 120.0]
    rates = MorrisLecar().rate(current)
    assert_allclose(rates, [0, 2.7, 7.3, 10, 13.3, 17.3, 24, 0], atol=0.7)
    # the step of networks is as good
    assert_allclose(MorrisLecar().rate(current, dt=0.5), rates, atol=0.1)


def test_steps_follow_the_equations_before_the_first_spike():
    cell, current, duration = MorrisLecar(), 45.0, 40.0

    def slope(_, state):
        v, w = state
        m = 0.5 * (1 + np.tanh((v - cell.v1) / cell.v2))
        target = 0.5 * (1 + np.tanh((v - cell.v3) / cell.v4))
        calcium, potassium = cell.g_ca * m * (v - cell.e_ca), cell.g_k * w * (v - cell.e_k)
        leak = cell.g_l * (v - cell.e_l)
        dv = (current - calcium - potassium - leak) / cell.capacitance
        return dv, cell.phi * np.cosh((v - cell.v3) / (2 * cell.v4)) * (target - w)

    v = torch.tensor([-40.0], dtype=torch.float64)
    w = cell.open_share(v)
    exact = solve_ivp(slope, (0, duration), [v.item(), w.item()], rtol=1e-9, atol=1e-9).y[:, -1]
    errors = []
    for n_steps in (400, 800):
        state = v, w
        for _ in range(n_steps):
            state = cell.step(*state, torch.tensor([current], dtype=torch.float64), 40 / n_steps)
        errors.append(abs(state[0].item() - exact[0]))
    assert errors[0] < 0.5
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)  # first order


def test_networks_side_by_side_respond_as_each_alone():
    rng = torch.Generator().manual_seed(0)
    inputs = torch.rand(3, 2, 4, generator=rng)
    into, among = torch.randn(5, 6, 4, generator=rng), torch.randn(5, 6, 6, generator=rng)
    start, grid = torch.full((6,), -20.0), {"n_steps": 50, "n_read": 20, "dt": 0.1}
    together = MorrisLecar().respond(inputs, into, among, start, **grid)
    assert together.shape == (5, 3, 6)
    for i in range(5):
        alone = MorrisLecar().respond(inputs, into[i], among[i], start, **grid)
        assert_allclose(together[i], alone, rtol=1e-4)
    shared = MorrisLecar().respond(inputs, into, among[0], start, **grid)
    assert_allclose(shared[0], together[0], rtol=1e-4)
    own = torch.rand(2, 1, 3, 2, 4, generator=rng)
    each = MorrisLecar().respond(own, into, among, start, **grid)
    assert each.shape == (2, 5, 3, 6)
    alone = MorrisLecar().respond(own[1, 0], into[2], among[2], start, **grid)
    assert_allclose(each[1, 2], alone, rtol=1e-4)


def test_weights_are_from_columns_to_rows():
    """W[post, pre]: an input, or a cell, that excites only the second cell."""
    rest, grid = torch.full((2,), -60.0), {"n_steps": 100, "n_read": 50, "dt": 0.1}
    into = torch.tensor([[0.0], [1.0]])
    quiet, other = MorrisLecar(onset=0.0).respond(
        torch.ones(1, 1, 1), into, torch.zeros(2, 2), rest, **grid
    )[0]
    assert other > 3 * quiet
    among, start = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([20.0, -60.0])
    alone, led = (
        MorrisLecar(onset=0.0).respond(torch.zeros(1, 1, 1), into, w, start, **grid)[0]
        for w in (0 * among, among)
    )
    assert led[1] > 1.3 * alone[1]
    assert led[0] == alone[0]


def test_compiled_steps_are_those_of_the_equations(monkeypatch):
    pytest.importorskip("numba")
    rng = torch.Generator().manual_seed(0)
    inputs, start = torch.rand(3, 2, 4, generator=rng), 20 * torch.randn(3, 6, generator=rng)
    into, among = torch.randn(5, 6, 4, generator=rng), torch.randn(6, 6, generator=rng)
    grid = {"n_steps": 60, "n_read": 30, "dt": 0.1}
    assert morris_lecar._compiled is not None
    fast = MorrisLecar().respond(inputs, into, among, start, **grid)
    monkeypatch.setattr(morris_lecar, "_compiled", None)
    plain = MorrisLecar().respond(inputs, into, among, start, **grid)
    assert fast.shape == (5, 3, 6)
    assert_allclose(fast, plain, atol=1e-4)
    assert torch.isnan(MorrisLecar().respond(inputs, torch.nan * into, among, start, **grid)).all()
    monkeypatch.undo()
    assert torch.isnan(MorrisLecar().respond(inputs, torch.nan * into, among, start, **grid)).all()


def test_compiled_gradients_are_those_of_the_equations(monkeypatch):
    pytest.importorskip("numba")
    rng = torch.Generator().manual_seed(0)
    inputs, start = torch.rand(3, 2, 4, generator=rng), 20 * torch.randn(3, 6, generator=rng)
    into, among = torch.randn(6, 4, generator=rng), torch.randn(6, 6, generator=rng)
    towards = torch.randn(3, 6, generator=rng)

    def gradients(dtype):
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in (inputs, into, among)]
        grid = {"n_steps": 60, "n_read": 70, "dt": 0.1}  # read from within the first word
        mean = MorrisLecar().respond(*leaves, start.to(dtype), **grid)
        (towards * mean).sum().backward()
        return mean.detach(), *(x.grad for x in leaves)

    fast = gradients(torch.float32)
    monkeypatch.setattr(morris_lecar, "_compiled", None)
    for found, expected in zip(fast, gradients(torch.float64), strict=True):
        assert_allclose(found, expected, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("trainer", ["es", "bptt"])
@pytest.mark.parametrize("trained", ["all", "input", "readout"])
def test_what_is_not_trained_stays(task, trainer, trained):
    cells = MorrisLecarClassifier(trainer=trainer, trained=trained, **SMALL)
    start = clone(cells).set_params(max_iter=1, learning_rate_init=1e-12).fit(*task)
    cells.fit(*task)
    moved = {
        name
        for name in ("input_weights_", "recurrent_weights_", "readout_weights_")
        if not np.allclose(getattr(cells, name), getattr(start, name), atol=1e-6)
    }
    names = {"all": {"input_weights_", "recurrent_weights_"}, "input": {"input_weights_"}}
    assert moved == ({"readout_weights_"} | names[trained] if trained in names else set())
    assert cells.readout_weights_.any()
    assert cells.n_iter_ == (0 if trained == "readout" else SMALL["max_iter"])


@pytest.mark.parametrize("trainer", ["es", "bptt"])
@pytest.mark.parametrize("scaling", [0.0, 0.25, 4.0])
def test_recurrent_weights_move_as_far_for_their_range(task, trainer, scaling):
    settings = SMALL | {"input_scaling": 2.0, "recurrent_scaling": scaling, "max_iter": 1}
    cells = MorrisLecarClassifier(trainer=trainer, learning_rate="constant", **settings)
    start, moved = (clone(cells).set_params(learning_rate_init=r).fit(*task) for r in (1e-12, 1e-3))
    n_inputs = start.input_weights_.shape[1]
    ranges = 2.0 / np.sqrt(n_inputs), (scaling or 1.0) / np.sqrt(settings["n_cells"])
    # the first step of Adam is as long as the rate for every weight
    for name, reach in zip(("input_weights_", "recurrent_weights_"), ranges, strict=True):
        step = np.abs(getattr(moved, name) - getattr(start, name))
        assert_allclose(np.median(step), 1e-3 * reach / ranges[0], rtol=1e-3)


def test_the_readout_is_a_logistic_regression(task):
    X, y = task
    cells = MorrisLecarClassifier(**SMALL, C=5.0).fit(X, y)
    regression = LogisticRegression(C=5.0, tol=1e-8, max_iter=10_000).fit(cells.transform(X), y)
    assert_allclose(cells.predict_proba(X), regression.predict_proba(cells.transform(X)), atol=1e-3)
    two = y < 2
    cells.fit(X[two], y[two])
    regression.fit(cells.transform(X[two]), y[two])
    assert_allclose(
        cells.decision_function(X), regression.decision_function(cells.transform(X)), atol=5e-3
    )


def test_responses_that_are_never_finite_end_the_fit_before_training(task):
    cells = MorrisLecarClassifier(**SMALL, input_scaling=1e38)
    with pytest.raises(FloatingPointError, match="input_scaling"):
        cells.fit(*task)


def test_both_trainers_lower_the_loss(task):
    X, y = task
    for trainer in ("es", "bptt"):
        cells = MorrisLecarClassifier(
            trainer=trainer, **(SMALL | {"max_iter": 60, "learning_rate_init": 0.02})
        ).fit(X, y)
        assert np.mean(cells.loss_curve_[-10:]) < np.mean(cells.loss_curve_[:10])


@pytest.mark.slow
def test_evolution_learns_to_integrate_evidence():
    X, y = make_evidence_integration(5000, n_words=15, random_state=0)
    cells = MorrisLecarClassifier(
        32,
        n_words=15,
        word_duration=2.0,
        recurrent_scaling=1.0,
        trained="input",
        sigma=0.2,
        max_iter=150,
        batch_size=64,
        learning_rate_init=0.04,
        random_state=0,
    )
    untrained = clone(cells).set_params(trained="readout")
    scores = [
        network.fit(X[:4000], y[:4000]).score(X[4000:], y[4000:]) for network in (untrained, cells)
    ]
    assert scores[1] > max(0.6, scores[0])


def test_fits_repeat_and_go_on(task):
    whole = MorrisLecarClassifier(**SMALL).fit(*task)
    again = MorrisLecarClassifier(**SMALL).fit(*task)
    assert_array_equal(whole.input_weights_, again.input_weights_)
    again.set_params(warm_start=True).fit(*task)
    assert again.n_iter_ == 8
    assert len(again.loss_curve_) == 8
    assert again.n_forward_ == 8 * 16 * 10 + 3 * 200  # one regression more before the first


def test_the_rate_falls_along_half_a_cosine(task, monkeypatch):
    cells = MorrisLecarClassifier(**SMALL | {"trainer": "bptt", "max_iter": 20})
    rates, adam_step = [], torch.optim.Adam.step

    def step(optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        adam_step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    cells.fit(*task)
    cells.set_params(learning_rate="constant").fit(*task)
    assert_allclose(rates[:20], 0.002 * (1 + np.cos(np.pi * np.arange(20) / 20)))
    assert rates[20:] == [0.004] * 20


def test_warm_starts_keep_the_state_of_the_optimiser(task):
    X, y = task
    # all samples in every step, so that what a step draws does not depend on its place in a fit
    settings = SMALL | {"trainer": "bptt", "batch_size": len(X), "learning_rate": "constant"}
    whole = MorrisLecarClassifier(**settings).fit(X, y)
    parts = MorrisLecarClassifier(
        **settings | {"max_iter": 2, "random_state": np.random.RandomState(0)}, warm_start=True
    )
    parts = parts.fit(X, y)
    parts = pickle.loads(pickle.dumps(parts)).fit(X, y)
    assert_allclose(parts.input_weights_, whole.input_weights_, rtol=1e-5, atol=1e-7)
    # another kind of training begins anew
    parts.set_params(trainer="es").fit(X, y)
    assert parts.n_iter_ == 6


def test_networks_that_are_not_finite_do_not_stop_the_readout(task, monkeypatch):
    respond = MorrisLecar.respond

    def partly(*args, **kwargs):
        mean = respond(*args, **kwargs)
        if mean.dim() > 2:  # in a step
            mean.flatten(0, -3)[0] = torch.nan
        return mean

    monkeypatch.setattr(MorrisLecar, "respond", partly)
    settings = SMALL | {"max_iter": 12}
    cells = MorrisLecarClassifier(**settings).fit(*task)
    assert np.isfinite(cells.readout_weights_).all()
    readout = cells._progress["es", "all"][1]["readout_weights_"]
    assert np.isfinite(readout).all()
    assert cells.n_dropped_ == 12 * 2  # with the opposite ones
    still = MorrisLecarClassifier(**settings | {"max_iter": 1}).fit(*task)
    assert abs(readout - still._progress["es", "all"][1]["readout_weights_"]).max() > 1e-2


def test_what_was_learnt_before_an_interruption_is_kept(task, monkeypatch):
    settings = SMALL | {"max_iter": 30, "learning_rate": "constant"}
    cells, lines = MorrisLecarClassifier(**settings, verbose=True), []

    def interrupt(line, **_):
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupt)
    with pytest.warns(ConvergenceWarning, match="interrupted by user"):
        cells.fit(*task)
    assert cells.n_iter_ == len(cells.loss_curve_) == 20
    first = MorrisLecarClassifier(**settings | {"max_iter": 20}).fit(*task)
    assert cells.n_forward_ == first.n_forward_
    assert_array_equal(cells.input_weights_, first.input_weights_)
    assert_array_equal(cells.readout_weights_, first.readout_weights_)


def test_fitted_networks_refuse_other_sizes(task):
    X, y = task
    cells = MorrisLecarClassifier(**SMALL, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="fit anew"):
        copy.copy(cells).set_params(n_cells=11).fit(X, y)
    with pytest.raises(ValueError, match="fit anew"):
        copy.copy(cells).set_params(n_words=10).predict(X)


def test_predictions_do_not_depend_on_other_rows(task):
    X, y = task
    cells = MorrisLecarClassifier(**SMALL).fit(X, y)
    assert_allclose(cells.decision_function(X)[:3], cells.decision_function(X[:3]), rtol=1e-4)
    assert_allclose(cells.predict_proba(X).sum(1), 1)
    assert cells.transform(X).shape == (200, 10)


def test_predictions_do_not_depend_on_the_kind_of_output(task):
    X, y = task
    two = y < 2
    cells = MorrisLecarClassifier(**SMALL).fit(X[two], y[two])
    expected = cells.decision_function(X)
    cells.set_output(transform="pandas")
    assert_array_equal(cells.decision_function(X), expected)


def test_words_and_their_labels():
    X, y = make_evidence_integration(500, n_words=12, n_inputs=20, random_state=0)
    words = X.reshape(500, 12, 20)
    assert set(np.unique(X)) == {0.0, 0.2}
    end = words[0, -1]
    assert (words[:, -1] == end).all()
    kinds = np.unique(words[:, :-1].reshape(-1, 20), axis=0)
    assert len(kinds) == 4
    counts = (words[:, :-1, None] == kinds).all(3).sum(1)
    # three of the kinds are evidence, the most frequent one of which is the label
    null = min(
        range(4),
        key=lambda i: (
            abs(np.corrcoef(counts[:, i], y == 0)[0, 1])
            + sum(abs(np.corrcoef(counts[:, i], y == c)[0, 1]) for c in (1, 2))
        ),
    )
    evidence = np.delete(counts, null, axis=1)
    best = evidence.argmax(1)
    assert all(len(set(y[best == i])) == 1 for i in range(3))
    assert (np.sort(evidence, axis=1)[:, -1] > np.sort(evidence, axis=1)[:, -2]).all()
    assert_allclose(np.bincount(y) / 500, 1 / 3, atol=0.08)


def test_counts_can_be_uniform():
    """All counts of three words for one of two options, or none, but for ties; equally likely."""
    X, y = make_evidence_integration(
        4000, n_words=4, n_inputs=20, n_classes=2, uniform_counts=True, random_state=0
    )
    words = X.reshape(4000, 4, 20)
    kinds = np.unique(words[:, :-1].reshape(-1, 20), axis=0)
    counts = (words[:, :-1, None] == kinds).all(3).sum(1)
    # evidence for the first option is what only its sequences can have three of; so of the second
    first, second = (
        next(i for i in range(3) if (y[counts[:, i] == 3] == c).all() and (counts[:, i] == 3).any())
        for c in (0, 1)
    )
    pairs, numbers = np.unique(counts[:, [first, second]], axis=0, return_counts=True)
    possible = [(a, b) for a in range(4) for b in range(4 - a) if a != b]
    assert_array_equal(pairs, possible)
    assert_allclose(numbers / 4000, 1 / len(possible), atol=0.02)
    assert_array_equal(y, counts[:, [first, second]].argmax(1))


@pytest.mark.parametrize(("uniform_counts", "share"), [(False, 0.622), (True, 0.876)])
def test_the_last_words_tell_most_where_counts_are_uniform(uniform_counts, share):
    X, y = make_evidence_integration(8000, uniform_counts=uniform_counts, random_state=0)
    words = X.reshape(8000, 50, 50)[:, :-1]
    kinds = np.unique(words[:100].reshape(-1, 50), axis=0)
    present = (words[:, :, None, :8] == kinds[:, :8]).all(3)
    assert (present.sum(2) == 1).all()  # eight inputs tell them apart
    counts, late = present.sum(1), present[:, -20:].sum(1)
    # the kind that stands for nothing is never the answer
    answers = [np.bincount(y[counts.argmax(1) == i], minlength=3).argmax() for i in range(4)]
    null = next(i for i in range(4) if (np.bincount(y[counts.argmax(1) == i]) > 9).sum() > 1)
    kept = [i for i in range(4) if i != null]
    ties = 0.5 * np.random.RandomState(0).random_sample((8000, 3))
    chosen = np.array(answers)[kept][(late[:, kept] + ties).argmax(1)]
    assert (chosen == y).mean() == pytest.approx(share, abs=0.015)


def test_working_memory_has_a_silent_delay():
    X, _ = make_working_memory(10, n_words=12, n_inputs=6, delay=4, random_state=0)
    words = X.reshape(10, 12, 6)
    assert (words[:, 7:11] == 0).all()
    with pytest.raises(ValueError, match="no evidence"):
        make_working_memory(10, n_words=5, delay=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_words": 7}, "n_words"),
        ({"word_duration": 0.01}, "time step"),
        ({"read_duration": 100.0}, "read_duration"),
        ({"n_samples": 5}, "pairs"),
        ({"trainer": "adam"}, "trainer"),
    ],
)
def test_bad_parameters_fail_before_training(task, change, message):
    with pytest.raises(ValueError, match=message):
        MorrisLecarClassifier(**(SMALL | change)).fit(*task)


def test_gradients_that_are_never_finite_end_the_fit(task):
    options = SMALL | {"max_iter": 20, "learning_rate_init": 1e30}
    with pytest.raises(FloatingPointError, match="trainer='es'"):
        MorrisLecarClassifier(trainer="bptt", **options).fit(*task)
    with pytest.raises(FloatingPointError, match="none of 10"):
        MorrisLecarClassifier(**(options | {"sigma": 1e30})).fit(*task)


def test_large_inputs_are_scaled_down(task):
    X, y = task
    small = MorrisLecarClassifier(**SMALL).fit(X, y)
    large = MorrisLecarClassifier(**SMALL).fit(1e4 * X, y)
    assert small.input_scale_ == 1
    assert large.input_scale_ == pytest.approx(2000)
    assert np.isfinite(large.loss_curve_).all()
