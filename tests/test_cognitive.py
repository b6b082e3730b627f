"""Cognitive tasks against their description, and scores against networks that are known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits

from ssn_estimators.datasets import (
    cognitive_task_scores,
    from_neurogym,
    load_digits_by_row,
    make_cognitive_task,
    make_temporal_xor,
    response_labels,
)
from ssn_estimators.datasets.cognitive import TASKS

PROMPT = ["fixation", "stimulus", "response"]
DELAYED = ["fixation", "stimulus", "delay", "response"]
IN_TURN = ["fixation", "stimulus", "delay", "test", "response"]
DT, N_RING = 20.0, 16
DECISIONS = [name for name in TASKS if "dm" in name and name[:3] not in ("dms", "dmc")]
MATCHES = ["dms", "dnms", "dmc", "dnmc"]
GO = [name for name in TASKS if name not in DECISIONS and name not in MATCHES]


def periods_of(name):
    if name in ("dlygo", "dlyanti"):
        return DELAYED
    return IN_TURN if "dly" in name or name in MATCHES else PROMPT


def trials_of(name, n_samples=40, **options):
    options = {"n_ring": N_RING, "random_state": 3} | options
    return make_cognitive_task(name, n_samples, dt=DT, **options)


def apart(a, b):
    return np.abs(np.angle(np.exp(1j * (a - b))))


def bump(angle, n_ring=N_RING):
    return 0.8 * np.exp(
        -((8 * apart(angle, 2 * np.pi * np.arange(n_ring) / n_ring)) ** 2) / np.pi**2 / 2
    )


def rings(trials, i, period):
    """Inputs of both rings in the middle of a period, (2, n_ring)."""
    first, end = trials.periods[i, trials.period_names.index(period)]
    return trials.X[i, (first + end) // 2, 1 : 1 + 2 * N_RING].reshape(2, N_RING)


def test_there_are_twenty_tasks():
    assert len(TASKS) == 20
    assert (len(GO), len(DECISIONS), len(MATCHES)) == (6, 10, 4)


@pytest.mark.parametrize("name", TASKS)
def test_periods(name):
    usual = {"delay": 700.0}
    exact = trials_of(name, delay=700.0, jitter=0.0)
    n_steps = [usual.get(period, 500.0) / DT for period in periods_of(name)]
    for i, period in enumerate(exact.period_names):
        steps = np.diff(exact.periods[:, i], axis=1)
        expected = n_steps[periods_of(name).index(period)] if period in periods_of(name) else 0
        assert (steps == expected).all()
    assert (exact.lengths == sum(n_steps)).all()
    assert exact.X.shape[1] == exact.y.shape[1] == exact.mask.shape[1] == sum(n_steps)
    varied = trials_of(name, n_samples=300, delay=700.0)
    steps = np.diff(varied.periods, axis=2)[:, :, 0]
    for i, period in enumerate(varied.period_names):
        if period in periods_of(name):
            off = DT * steps[:, i] - usual.get(period, 500.0)
            spread = 0 if period == "response" else 100
            assert (off.min(), off.max()) == (-spread, spread)
    assert len(np.unique(varied.lengths)) > 1
    assert_array_equal(varied.response, varied.periods[:, -1])
    assert_array_equal(varied.lengths, varied.response[:, 1])
    beyond = np.arange(varied.X.shape[1]) >= varied.lengths[:, None]
    for array in (varied.X, varied.y, varied.mask):
        assert not array[beyond].any()


@pytest.mark.parametrize("name", TASKS)
def test_scored_steps(name):
    trials = trials_of(name)
    for mask, (begun, end) in zip(trials.mask, trials.response, strict=True):
        expected = np.zeros(len(mask))
        expected[10:begun], expected[begun + 10 : end] = 1, 5
        assert_array_equal(mask, expected)


@pytest.mark.parametrize("name", TASKS)
def test_inputs_and_right_answers(name):
    """Both found anew from what the table says in words."""
    trials = trials_of(name, 60)
    reaction = name.startswith("rt")
    two = {"both": ("stimulus", "stimulus"), "in turn": ("stimulus", "test")}
    when = ("response",) if reaction else ("stimulus",)
    if name not in GO:
        when = two["in turn" if len(periods_of(name)) == 5 else "both"]
    for i in range(60):
        seen = {period: np.zeros((2, N_RING)) for period in periods_of(name)}
        for stimulus, period in enumerate(when):
            strengths = trials.strengths[i, :, stimulus]
            seen[period] += strengths[:, None] * bump(trials.stimuli[i, stimulus])
        for period in periods_of(name):
            assert_allclose(rings(trials, i, period), seen[period], atol=1e-6)
    first, second = trials.stimuli.T
    if name in GO:
        right = first + np.pi * name.endswith("anti")
    elif name in DECISIONS:
        counts = {"1": [1, 0], "2": [0, 1]}.get(name[-1], [1, 1])
        total = np.einsum("nms,m->ns", trials.strengths, counts)
        assert (np.abs(np.diff(total, axis=1)) > 0.19).all()
        right = np.where(total[:, 0] > total[:, 1], first, second)
        assert (apart(first, second) >= np.pi / 2).all()
    else:
        match = apart(first, second) <= np.pi / 18
        if name in ("dmc", "dnmc"):
            match = (np.sin(first) > 0) == (np.sin(second) > 0)
        assert match.sum() == 30
        right = np.where(match != name.startswith("dn"), second, np.nan)
    assert_allclose(np.exp(1j * trials.angles), np.exp(1j * right))


@pytest.mark.parametrize("name", TASKS)
def test_modalities(name):
    """Fixed ones where the name has one, both where they add up or mislead, else either."""
    strengths = trials_of(name, 60).strengths
    on = strengths > 0
    if name in DECISIONS:
        both = name.startswith(("ctx", "mult"))
        expected = [both or name.endswith("1"), both or name.endswith("2")]
        assert (on == np.array(expected)[:, None]).all()
        if name.startswith("ctx"):
            agree = np.diff(strengths, axis=2)[..., 0].prod(1) > 0
            assert 10 < agree.sum() < 50
    else:
        assert_array_equal(on.sum(1), np.ones((60, 2)))
        assert_array_equal(on[:, 0].sum(0), [30, 30])
        assert (strengths[on] == 1).all()


@pytest.mark.parametrize("name", TASKS)
def test_targets_and_fixation(name):
    trials = trials_of(name)
    steps = np.arange(trials.X.shape[1])
    for i, (begun, end) in enumerate(trials.response):
        before, after = steps < begun, (steps >= begun) & (steps < end)
        assert (trials.X[i, before, 0] == 1).all()
        assert (trials.X[i, after, 0] == name.startswith("rt")).all()
        stays = np.isnan(trials.angles[i])
        assert_allclose(trials.y[i, before], np.tile([0.85] + [0.05] * N_RING, (begun, 1)))
        ring = 0.05 + (0 if stays else bump(trials.angles[i]))
        assert_allclose(trials.y[i, begun, 1:], np.broadcast_to(ring, N_RING), atol=1e-6)
        assert_allclose(trials.y[i, after, 0], 0.85 if stays else 0.05)
        assert (trials.y[i, after] == trials.y[i, begun]).all()


def test_rules_are_one_hot_and_mixtures_balanced():
    trials = trials_of(list(TASKS), 200)
    assert trials.X.shape[2] == len(trials.channel_names) == 1 + 2 * N_RING + 20
    for x, name, length in zip(trials.X, trials.task, trials.lengths, strict=True):
        on = x[:length, -20:]
        assert (on == (np.array(trials.channel_names[-20:]) == f"rule_{name}")).all()
    assert np.unique(trials.task, return_counts=True)[1].tolist() == [10] * 20
    assert trials_of("go", rules=False).X.shape[2] == 1 + 2 * N_RING


def test_the_published_size():
    trials = make_cognitive_task("dlygo", 5)
    assert (trials.X.shape[2], trials.y.shape[2]) == (85, 33)
    assert trials.X.dtype == trials.y.dtype == np.float32


@pytest.mark.parametrize("name", ["go", "dlyanti", "dm1", "dms"])
def test_angles_are_balanced(name):
    first = trials_of(name, 80).stimuli[:, 0]
    assert np.histogram(first, 8, (0, 2 * np.pi))[0].tolist() == [10] * 8


def test_seeds():
    one, same, other = (trials_of(["go", "dms"], noise=0.1, random_state=s) for s in (1, 1, 2))
    for name in ("X", "y", "mask", "angles", "task"):
        assert_array_equal(one[name], same[name])
    assert not np.array_equal(one.angles, other.angles)


def test_noise():
    quiet, noisy = (trials_of("dlygo", noise=sd) for sd in (0.0, 0.1))
    inside = np.arange(quiet.X.shape[1]) < quiet.lengths[:, None]
    added = noisy.X - quiet.X
    assert not added[~inside].any()
    assert added[inside].std() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("delay", [0.0, 40.0, 5000.0])
def test_any_delay(delay):
    trials = trials_of("dlygo", delay=delay)
    found = DT * np.diff(trials.periods[:, 2], axis=1)
    assert (np.abs(found - delay) <= min(delay, 100.0)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "stay"}, "one or several of"),
        ({"task": ["go", 3]}, "one or several of"),
        ({"task": []}, "one or several of"),
        ({"task": ["go", "go"]}, "once"),
        ({"task": ["go", "anti"], "rules": False}, "rules=False hides"),
        ({"jitter": 300.0}, "longer than grace"),
        ({"dt": 1000.0}, "longer than grace"),
        ({"delay": -1.0}, "delay"),
        ({"delay": 1e300}, "more than can be simulated"),
        ({"n_ring": 2}, "n_ring"),
    ],
)
def test_bad_trials_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_cognitive_task(n_samples=3, **options)


@pytest.mark.parametrize("name", TASKS)
def test_targets_solve_their_task(name):
    trials = trials_of(name)
    scores = cognitive_task_scores(trials, trials.y)
    assert (scores.response, scores.fixation, scores.composite) == (1, 1, 1)
    assert scores.right.all()
    responds = ~np.isnan(trials.angles)
    # of the bump on few units, which is not quite the angle
    assert (apart(scores.angles, trials.angles)[responds] < 0.01).all()


@pytest.mark.parametrize(
    ("name", "composite", "response"),
    [("go", 2 / 3, 0), ("dlygo", 4 / 5, 0), ("dlydm1", 5 / 6, 0), ("dms", 11 / 12, 0.5)],
)
def test_the_trap(name, composite, response):
    """Who does nothing but fixate has a high composite score, and no right answer but to stay."""
    trials = trials_of(name, jitter=0.0)
    outputs = np.full_like(trials.y, 0.05)
    outputs[..., 0] = 0.85
    scores = cognitive_task_scores(trials, outputs)
    assert scores.composite == pytest.approx(composite)
    assert (scores.response, scores.fixation) == (response, 1)


def test_chance():
    options = {"jitter": 0.0, "dt": 100.0, "n_ring": 8}
    trials, guesses = (
        make_cognitive_task("dlygo", 2000, **options, random_state=seed) for seed in (0, 1)
    )
    scores = cognitive_task_scores(trials, guesses.y)
    assert scores.response == pytest.approx(0.2, abs=0.03)
    assert scores.composite == pytest.approx(0.8 + 0.2 * 0.2, abs=0.01)


def test_release_is_asked_for():
    trials = trials_of("dlygo")
    held = trials.y.copy()
    held[..., 0] = 0.85
    assert cognitive_task_scores(trials, held).response == 0
    let_go = trials.y.copy()
    let_go[..., 0] = 0.05
    scores = cognitive_task_scores(trials, let_go)
    assert (scores.response, scores.fixation) == (1, 0)


def test_what_is_not_scored_does_not_count():
    trials = trials_of(["dlygo", "dms"])
    outputs = np.where(trials.mask[..., None] > 0, trials.y, np.nan)
    assert cognitive_task_scores(trials, outputs).composite == 1
    outputs[0] = np.nan
    assert_array_equal(np.flatnonzero(~cognitive_task_scores(trials, outputs).right), [0])


def test_scores_are_means_over_tasks():
    trials = trials_of(["go", "dms"], 40)
    outputs = np.where((trials.task == "go")[:, None, None], trials.y, 0)
    scores = cognitive_task_scores(trials, outputs)
    assert scores.by_task["go"].response == 1
    assert scores.response == pytest.approx((1 + scores.by_task["dms"].response) / 2)


def test_outputs_of_another_shape():
    trials = trials_of("go", 4)
    with pytest.raises(ValueError, match="of shape"):
        cognitive_task_scores(trials, trials.y[:, :-1])


def test_labels():
    trials = trials_of(["go", "dnms"], 80)
    y = response_labels(trials, 8)
    stays = np.isnan(trials.angles)
    assert (y[stays] == 8).all()
    assert (apart(y[~stays] * np.pi / 4, trials.angles[~stays]) <= np.pi / 8 + 1e-9).all()
    assert set(y[~stays]) == set(range(8))
    assert_array_equal(response_labels(trials, 1), stays.astype(int))
    assert response_labels(trials).max() == N_RING


@pytest.mark.parametrize("n_samples", [4, 400])
def test_temporal_xor(n_samples):
    X, y = make_temporal_xor(n_samples, delay=300.0, random_state=0)
    assert X.shape == (n_samples, 5 + 15 + 5 + 10, 1)
    first, second = X[:, 2, 0], X[:, 22, 0]
    assert_array_equal(y, first * second < 0)
    pairs, counts = np.unique(np.column_stack([first, second]), axis=0, return_counts=True)
    assert (len(pairs), set(counts)) == (4, {n_samples // 4})
    off = np.r_[5:20, 25:35]
    assert not X[:, off].any()
    assert (np.abs(np.delete(X, off, axis=1)) == 1).all()


def test_temporal_xor_with_noise_and_without_a_pulse():
    quiet, noisy = (make_temporal_xor(99, noise=sd, random_state=0)[0] for sd in (0.0, 0.2))
    assert (noisy - quiet).std() == pytest.approx(0.2, rel=0.05)
    with pytest.raises(ValueError, match="shorter than half a step"):
        make_temporal_xor(4, pulse=9.0)


def test_digits_by_row():
    X, y = load_digits_by_row()
    pixels, digits = load_digits(return_X_y=True)
    assert_array_equal(16 * X.reshape(len(X), -1), pixels)
    assert_array_equal(y, digits)


class Waiting:
    """An environment as NeuroGym has them: a flash, a wait of its own in each trial, a choice."""

    dt = 100

    def __init__(self, vectors=False):
        self.vectors = vectors
        self.seed(0)

    def seed(self, seed):
        self.rng = np.random.RandomState(seed)

    def new_trial(self, side=None):
        side = self.rng.randint(2) if side is None else side
        n_steps = self.rng.randint(3, 9)
        self.ob = np.zeros((n_steps, 3), np.float32)
        self.ob[:-1, 0] = self.ob[0, 1 + side] = 1
        self.gt = np.zeros(n_steps, int)
        self.gt[-1] = 1 + side
        if self.vectors:
            self.gt = np.eye(3)[self.gt]
        return {"side": side}


class Wrapper:
    """As Gymnasium's, which do not tell all that is inside."""

    def __init__(self, env):
        self.env, self.unwrapped = env, env


def test_trials_of_environments():
    trials = from_neurogym(Wrapper(Waiting()), 30, random_state=0)
    assert trials.X.shape == (30, trials.lengths.max(), 3)
    assert trials.dt == 100
    sides = [told["side"] for told in trials.trials]
    last = trials.lengths - 1
    assert_array_equal(trials.y[np.arange(30), last], 1 + np.array(sides))
    assert_array_equal(trials.X[:, 0, 1:].argmax(1), sides)
    assert_array_equal(trials.mask.sum(1), trials.lengths)
    assert len(set(trials.lengths)) > 1
    beyond = trials.mask == 0
    assert not trials.X[beyond].any()
    assert not trials.y[beyond].any()
    vectors = from_neurogym(Waiting(vectors=True), 30, random_state=0)
    assert_array_equal(vectors.y.argmax(2), trials.y)


def test_seeds_and_options_of_environments():
    env = Waiting()
    one, same, other = (from_neurogym(env, 20, random_state=seed) for seed in (1, 1, 2))
    assert_array_equal(one.X, same.X)
    assert one.X.shape != other.X.shape or not np.array_equal(one.X, other.X)
    assert from_neurogym(env, 20).trials != from_neurogym(env, 20).trials
    assert {told["side"] for told in from_neurogym(env, 20, side=1).trials} == {1}


def test_environments_without_trials_are_refused():
    with pytest.raises(TypeError, match="new_trial"):
        from_neurogym(object(), 3)
    silent = Waiting()
    silent.new_trial = lambda: None
    with pytest.raises(ValueError, match="right actions"):
        from_neurogym(silent, 3)


def test_trials_of_other_types_and_shapes():
    env = Waiting()
    draw, n_drawn = env.new_trial, iter(range(1000))

    def new_trial():
        told = draw()
        if next(n_drawn) % 2:
            env.ob, env.gt = env.ob + 0.5, env.gt + 0.25
        else:
            env.ob = env.ob.astype(int)
        return told

    env.new_trial = new_trial
    trials = from_neurogym(env, 4, random_state=0)
    assert_allclose(trials.X[1, : trials.lengths[1]].min(), 0.5)
    assert_allclose(trials.y[1, 0], 0.25)
    env.gt, shapes = np.zeros(2), iter([1, 3, 1, 3])
    env.new_trial = lambda: setattr(env, "ob", np.zeros((2, next(shapes))))
    with pytest.raises(ValueError, match="must keep their shape"):
        from_neurogym(env, 4)


def test_the_library_itself():
    neurogym = pytest.importorskip("neurogym")
    trials = from_neurogym(neurogym.make("DelayMatchSample-v0", dt=100), 20, random_state=0)
    assert trials.X.shape[2] == 3
    told = [trial["ground_truth"] for trial in trials.trials]
    assert_array_equal(trials.y[np.arange(20), trials.lengths - 1], told)
