"""Twenty tasks of fixating, looking, waiting, deciding and comparing, from one table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    NOT_NEGATIVE,
    POSITIVE,
    RANDOM,
    Interval,
    check_array,
    count_steps,
    validate_params,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssn_estimators._typing import ArrayLike, RandomState

__all__ = ["cognitive_task_scores", "make_cognitive_task", "response_labels"]

PERIODS = ("fixation", "stimulus", "delay", "test", "response")
BUMP, BUMP_WIDTH = 0.8, np.pi / 8  # of a ring: height, standard deviation in rad
LOW, HIGH = 0.05, 0.85  # targets of outputs
CLOSE = 0.2 * np.pi  # largest error of a right answer, in rad
MARGIN = 0.1 * np.pi  # between angles and the border of their category, in rad


# What is drawn: angles (n, 2) of both stimuli in rad, and strengths (n, 2, 2), [trial, modality,
# stimulus]. A table of periods says when which stimulus is on; of strength 0 it is not there.


def _evenly(rng, n):
    """Numbers from [0, 1) in random order, one in each of n parts of it."""
    return (rng.permutation(n) + rng.random_sample(n)) / n


def _half(rng, n):
    """True for a random half."""
    return rng.permutation(n) % 2 == 0


def _both_sides(rng, n):
    return np.where(_half(rng, n), 1, -1)


def _angles_apart(rng, n):
    """The second 90 to 270 degrees away."""
    first = 2 * np.pi * _evenly(rng, n)
    return np.column_stack([first, first + rng.uniform(np.pi / 2, 3 * np.pi / 2, n)])


def _angles_alike_or_not(rng, n):
    """In half of the trials within 10 degrees, else as `_angles_apart`."""
    angles = _angles_apart(rng, n)
    near = rng.uniform(-np.pi / 18, np.pi / 18, n)
    angles[:, 1] = np.where(_half(rng, n), angles[:, 0] + near, angles[:, 1])
    return angles


def _angles_by_category(rng, n):
    """Both of one half of the circle in half of the trials, but never close to its borders."""
    category = _half(rng, n)
    categories = np.column_stack([category, category ^ _half(rng, n)])
    within = MARGIN + (np.pi - 2 * MARGIN) * np.column_stack([_evenly(rng, n), _evenly(rng, n)])
    return within + np.pi * categories


def _strengths_anywhere(rng, n):
    """Each stimulus at full strength in a modality of its own."""
    first = np.column_stack([_half(rng, n), _half(rng, n)])
    return np.stack([first, ~first], axis=1).astype(float)


def _strengths_unequal(rng, n, modalities):
    """In each of these modalities one stimulus is stronger, no matter which in the other."""
    strengths = np.zeros((n, 2, 2))
    for modality in modalities:
        mean, difference = rng.uniform(0.8, 1.2, n), rng.uniform(0.1, 0.2, n)
        difference *= _both_sides(rng, n)
        strengths[:, modality] = np.column_stack([mean + difference, mean - difference])
    return strengths


def _strengths_shared(rng, n):
    """The same two strengths in both modalities, but one modality as a whole is stronger."""
    both = _strengths_unequal(rng, n, (0,))[:, 0]
    extra = rng.uniform(0.2, 0.4, n) * _both_sides(rng, n)
    return np.stack([(1 + extra)[:, None] * both, (1 - extra)[:, None] * both], axis=1)


# The right answer to them, in rad; NaN is to keep fixating


def _answer_first(angles, strengths, turn=0.0):
    return angles[:, 0] + turn


def _answer_stronger(angles, strengths, attended):
    total = strengths[:, list(attended)].sum(1)
    return np.where(total[:, 0] > total[:, 1], angles[:, 0], angles[:, 1])


def _answer_match(angles, strengths, matches, respond):
    """The second stimulus, if it does match (respond=True) or does not (False)."""
    return np.where(matches(angles) == respond, angles[:, 1], np.nan)


def _alike(angles):
    return _distance(angles[:, 0], angles[:, 1]) < np.pi / 4


def _of_one_category(angles):
    first, second = (angles % (2 * np.pi) < np.pi).T
    return first == second


class Task(NamedTuple):
    """What is shown when, how that is drawn, and the right answer."""

    shown: dict  # the stimuli that are on, in each period that the task has
    angles: Callable
    strengths: Callable
    answer: Callable
    holds: bool = False  # whether the fixation input stays on while an answer is due


def _prompt(*shown):
    return {"fixation": (), "stimulus": shown, "response": ()}


def _at_once(*shown):
    """Time to react counts: stimuli come when the answer is due."""
    return {"fixation": (), "stimulus": (), "response": shown}


def _delayed(*shown):
    return {"fixation": (), "stimulus": shown, "delay": (), "response": ()}


IN_TURN = {"fixation": (), "stimulus": (0,), "delay": (), "test": (1,), "response": ()}


def _looking(shown, turn=0.0, **options):
    answer = partial(_answer_first, turn=turn)
    return Task(shown, _angles_apart, _strengths_anywhere, answer, **options)


def _deciding(shown, attended, present=None):
    strengths = partial(_strengths_unequal, modalities=present or attended)
    return Task(shown, _angles_apart, strengths, partial(_answer_stronger, attended=attended))


def _summing(shown):
    return _deciding(shown, (0, 1))._replace(strengths=_strengths_shared)


def _comparing(angles, matches, respond):
    answer = partial(_answer_match, matches=matches, respond=respond)
    return Task(IN_TURN, angles, _strengths_anywhere, answer)


TASKS = {
    "go": _looking(_prompt(0)),
    "rtgo": _looking(_at_once(0), holds=True),
    "dlygo": _looking(_delayed(0)),
    "anti": _looking(_prompt(0), np.pi),
    "rtanti": _looking(_at_once(0), np.pi, holds=True),
    "dlyanti": _looking(_delayed(0), np.pi),
    "dm1": _deciding(_prompt(0, 1), (0,)),
    "dm2": _deciding(_prompt(0, 1), (1,)),
    "ctxdm1": _deciding(_prompt(0, 1), (0,), present=(0, 1)),
    "ctxdm2": _deciding(_prompt(0, 1), (1,), present=(0, 1)),
    "multsendm": _summing(_prompt(0, 1)),
    "dlydm1": _deciding(IN_TURN, (0,)),
    "dlydm2": _deciding(IN_TURN, (1,)),
    "ctxdlydm1": _deciding(IN_TURN, (0,), present=(0, 1)),
    "ctxdlydm2": _deciding(IN_TURN, (1,), present=(0, 1)),
    "multsendlydm": _summing(IN_TURN),
    "dms": _comparing(_angles_alike_or_not, _alike, respond=True),
    "dnms": _comparing(_angles_alike_or_not, _alike, respond=False),
    "dmc": _comparing(_angles_by_category, _of_one_category, respond=True),
    "dnmc": _comparing(_angles_by_category, _of_one_category, respond=False),
}


@validate_params(
    task=[str, "array-like"],
    n_samples=COUNT,
    delay=NOT_NEGATIVE,
    dt=POSITIVE,
    jitter=NOT_NEGATIVE,
    duration=POSITIVE,
    grace=NOT_NEGATIVE,
    n_ring=[Interval(Integral, 4, MOST, closed="both")],
    rules=["boolean"],
    noise=NOT_NEGATIVE,
    response_weight=POSITIVE,
    random_state=RANDOM,
)
def make_cognitive_task(
    task: str | Sequence[str] = "dlygo",
    n_samples: int = 1000,
    *,
    delay: float = 1000.0,
    dt: float = 20.0,
    jitter: float = 100.0,
    duration: float = 500.0,
    grace: float = 200.0,
    n_ring: int = 32,
    rules: bool = True,
    noise: float = 0.0,
    response_weight: float = 5.0,
    random_state: RandomState = None,
) -> Bunch:
    r"""The twenty tasks with which networks for many tasks are studied.

    All are variations of one [1]_, with the timing of [2]_. A fixation input and, unless there are
    to be none, an input that tells the task are on; stimuli are bumps of activity on one of two
    rings of inputs, the modalities; when the fixation input goes off, the fixation output is to
    go off as well, and a bump on the ring of outputs is to answer. A trial consists of

    ============================  =====================================================
    go, anti                      fixation, stimulus, response: to the stimulus, or
                                  opposite to it
    rtgo, rtanti                  the same, but the stimulus comes with the response
                                  period, and the fixation input stays on
    dlygo, dlyanti                fixation, stimulus, delay, response
    dm1, dm2                      fixation, stimulus, response: two stimuli in the first
                                  (second) modality, 90 to 270 degrees apart; to the
                                  stronger
    ctxdm1, ctxdm2                the same, with other strengths in the other modality
    multsendm                     the same with both modalities, which add up
    dlydm1, dlydm2, ctxdlydm1,    the same, with one stimulus after the other: fixation,
    ctxdlydm2, multsendlydm       stimulus, delay, test, response
    dms, dnms                     in the same periods: to the second stimulus if it is
                                  (not) within 10 degrees of the first, otherwise keep
                                  fixating
    dmc, dnmc                     the same, if both are (not) in the same half of the
                                  circle, [0, pi) or [pi, 2 pi)
    ============================  =====================================================

    A bump is :math:`0.8 \exp(-(8 d / \pi)^2 / 2)` at a distance d from its angle, times a strength:
    1, or in tasks with decisions m + d and m - d with m from U(.8, 1.2) and d from U(.1, .2).

    Parameters
    ----------
    task : str or list of str, default="dlygo"
        A name as above, or several for a mixture of as many trials of each.
    n_samples : int, default=1000
        Number of trials.
    delay : float, default=1000.0
        In ms, where there is one.
    dt : float, default=20.0
        Time step in ms.
    jitter : float, default=100.0
        All periods but the last are longer or shorter by up to this, in ms; a delay by no more
        than itself.
    duration : float, default=500.0
        Of every other period, in ms.
    grace : float, default=200.0
        Time after the start, and after that of the response period, that is not scored, in ms.
    n_ring : int, default=32
        Units of each ring.
    rules : bool, default=True
        Whether there are inputs that tell which task it is: twenty, of which one is on. A mixture
        of tasks needs them.
    noise : float, default=0.0
        Standard deviation of normal noise in every input and step.
    response_weight : float, default=5.0
        Weight of the loss in the response period, for 1 before. Without it, what is learned of
        short responses after long delays is to keep fixating.
    random_state : int, RandomState instance or None, default=None
        Source of all trials.

    Returns
    -------
    trials : :class:`~sklearn.utils.Bunch`
        With these attributes:

        X : ndarray of shape (n_samples, n_timesteps, 1 + 2 * n_ring [+ 20]), float32
            Inputs: fixation, two rings, rules. 0 after the end of a trial.
        y : ndarray of shape (n_samples, n_timesteps, 1 + n_ring), float32
            Target outputs: fixation, .85 or .05, and a ring, .05 and in the response the bump more.
            0 after the end of a trial.
        mask : ndarray of shape (n_samples, n_timesteps), float32
            Weights of the loss; 0 where outputs are not scored.
        lengths : ndarray of shape (n_samples,), int
            Steps of every trial.
        angles : ndarray of shape (n_samples,)
            Right answers in [0, 2 pi), NaN where it is right to keep fixating.
        task : ndarray of shape (n_samples,), str
            Name of the task of every trial.
        response : ndarray of shape (n_samples, 2), int
            First step of the response period, and the first after it.
        periods : ndarray of shape (n_samples, 5, 2), int
            The same of each of `period_names`, empty where a task does not have it.
        stimuli : ndarray of shape (n_samples, 2)
            Angles of both stimuli in [0, 2 pi); the second of go and anti is never shown.
        strengths : ndarray of shape (n_samples, 2, 2)
            Of every modality and stimulus.
        period_names, channel_names : list of str
            Names of the periods, and of the inputs.
        dt : float
            Time step in ms.

    Raises
    ------
    ValueError
        If a task is unknown, a mixture has no rules, or a period is too short for its steps or
        for the grace.

    See Also
    --------
    cognitive_task_scores : How well outputs solve the task.
    response_labels : The answers as classes.

    Notes
    -----
    First angles, stronger stimuli, matches and modalities are balanced over the trials of a task.
    Angles in dmc and dnmc are at least 18 degrees from the borders.

    References
    ----------
    .. [1] Yang, Joglekar, Song, Newsome & Wang (2019). Task representations in neural networks
       trained to perform many cognitive tasks. Nature Neuroscience 22, 297-306.
    .. [2] Soo, Goudar & Wang (2023). Training biologically plausible recurrent neural networks on
       cognitive tasks with long-term dependencies. NeurIPS 36.

    Examples
    --------
    >>> from ssn_estimators.datasets import make_cognitive_task
    >>> trials = make_cognitive_task("dms", 10, n_ring=8, rules=False, random_state=0)
    >>> trials.X.shape[2], trials.y.shape[2]
    (17, 9)
    """
    names = _names_of(task, rules)
    usual = dict.fromkeys(PERIODS, duration) | {"delay": delay}
    _check_times(usual, dt, jitter, grace)
    rng = check_random_state(random_state)
    tasks = rng.permutation(n_samples) % len(names)
    drawn = [_drawn(TASKS[name], np.sum(tasks == i), rng) for i, name in enumerate(names)]
    angles, strengths, answers = (np.empty((n_samples, *part.shape[1:])) for part in drawn[0])
    shown = np.zeros((n_samples, len(PERIODS), 2))
    present = np.zeros((n_samples, len(PERIODS)), bool)
    holds = np.empty(n_samples, bool)
    for i, name in enumerate(names):
        own = tasks == i
        angles[own], strengths[own], answers[own] = drawn[i]
        holds[own] = TASKS[name].holds
        for period, stimuli in TASKS[name].shown.items():
            place = PERIODS.index(period)
            present[own, place] = True
            shown[np.ix_(own, [place], stimuli)] = 1
    periods = _timetable(usual, present, jitter, dt, rng)
    places = np.array([list(TASKS).index(name) for name in names])[tasks] if rules else None
    inputs = _input_frames(angles, strengths, shown, holds, places, n_ring)
    frame = _frame_of_step(periods)
    X = np.take_along_axis(inputs, frame[:, :, None], axis=1)
    if noise:
        X += noise * rng.standard_normal(X.shape) * (frame < len(PERIODS))[:, :, None]
    return Bunch(
        X=X,
        y=np.take_along_axis(_target_frames(answers, n_ring), frame[:, :, None], axis=1),
        mask=_weights(periods, frame, round(grace / dt), response_weight),
        lengths=periods[:, -1, 1],
        angles=answers,
        task=np.array(names)[tasks],
        response=periods[:, -1],
        periods=periods,
        stimuli=angles,
        strengths=strengths,
        period_names=list(PERIODS),
        channel_names=_channel_names(n_ring, rules),
        dt=float(dt),
    )


def _names_of(task, rules):
    single = isinstance(task, str) or getattr(task, "ndim", 1) == 0
    names = [task] if single else list(task)
    unknown = [name for name in names if not isinstance(name, str) or name not in TASKS]
    if unknown or not names:
        raise ValueError(f"task must be one or several of {list(TASKS)}, got {task!r}.")
    if len(set(names)) < len(names):
        raise ValueError(f"task must name every task once, got {names}.")
    if len(names) > 1 and not rules:
        raise ValueError("rules=False hides which of several tasks a trial is of; give one task.")
    return names


def _check_times(usual, dt, jitter, grace):
    for name, time in usual.items():
        count_steps(time + jitter, dt, "delay" if name == "delay" else "duration")
    count_steps(grace, dt, "grace")
    shortest = usual["fixation"] - jitter
    if round(shortest / dt) <= round(grace / dt):
        raise ValueError(
            f"periods of duration={usual['fixation']:g} ms less jitter={jitter:g} must be longer "
            f"than grace={grace:g} by a step of dt={dt:g} ms."
        )


def _drawn(task, n, rng):
    """Angles, strengths and answers of trials of a task."""
    angles, strengths = task.angles(rng, n) % (2 * np.pi), task.strengths(rng, n)
    return angles, strengths, task.answer(angles, strengths) % (2 * np.pi)


def _timetable(usual, present, jitter, dt, rng):
    """First and last + 1 step of all periods, of no steps where they are not present."""
    usual = np.array([usual[name] for name in PERIODS])
    spread = np.minimum(jitter, usual) * (np.array(PERIODS) != "response")
    times = usual + spread * rng.uniform(-1, 1, present.shape)
    steps = np.where(present, np.round(times / dt), 0).astype(int)
    ends = steps.cumsum(1)
    return np.stack([ends - steps, ends], axis=2)


def _frame_of_step(periods):
    """In which period every step is, or after all of them: (n_samples, n_timesteps)."""
    steps, ends = np.arange(periods[:, -1, 1].max()), periods[:, :, 1]
    return (steps[:, None] >= ends[:, None]).sum(2)


def _input_frames(angles, strengths, shown, holds, places, n_ring):
    """Inputs in every period, and none after the last."""
    n = len(angles)
    fixation = np.ones((n, len(PERIODS), 1))
    fixation[~holds, -1] = 0
    # trial, period, modality, stimulus, unit
    rings = np.einsum("nps,nms,nsr->npmr", shown, strengths, _bumps(angles, n_ring))
    parts = [fixation, rings.reshape(n, len(PERIODS), -1)]
    if places is not None:
        rules = np.eye(len(TASKS))[places]
        parts.append(np.repeat(rules[:, None], len(PERIODS), axis=1))
    return _then_nothing(np.concatenate(parts, axis=2))


def _target_frames(answers, n_ring):
    """Outputs wanted in every period, and none after the last."""
    targets = np.full((len(answers), len(PERIODS), 1 + n_ring), LOW)
    targets[:, :-1, 0] = HIGH
    responds = ~np.isnan(answers)
    targets[~responds, -1, 0] = HIGH
    targets[responds, -1, 1:] += _bumps(answers[responds], n_ring)
    return _then_nothing(targets)


def _then_nothing(frames):
    return np.pad(frames, ((0, 0), (0, 1), (0, 0))).astype(np.float32)


def _weights(periods, frame, grace, response_weight):
    steps, last = np.arange(frame.shape[1]), len(PERIODS) - 1
    weights = np.where(frame < last, 1.0, np.where(frame == last, response_weight, 0.0))
    begun = periods[:, -1, :1]  # of the response
    free = (steps < grace) | ((steps >= begun) & (steps < begun + grace))
    return np.where(free, 0.0, weights).astype(np.float32)


def _channel_names(n_ring, rules):
    rings = [f"ring{modality}_{unit}" for modality in (1, 2) for unit in range(n_ring)]
    return ["fixation", *rings, *(f"rule_{name}" for name in TASKS if rules)]


def _preferred(n_ring):
    return 2 * np.pi * np.arange(n_ring) / n_ring


def _distance(a, b):
    """Of angles, at most pi."""
    return np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)


def _bumps(angles, n_ring):
    distance = _distance(angles[..., None], _preferred(n_ring))
    return BUMP * np.exp(-((distance / BUMP_WIDTH) ** 2) / 2)


def _direction(ring):
    """Angle of the population vector; NaN if it has none."""
    vector = ring @ np.exp(1j * _preferred(ring.shape[-1]))
    total = np.abs(ring).sum(-1)
    return np.where(np.abs(vector) > 1e-6 * total, np.angle(vector), np.nan)


@validate_params(trials=[Bunch], outputs=["array-like"])
def cognitive_task_scores(trials: Bunch, outputs: ArrayLike) -> Bunch:
    r"""How well outputs solve cognitive tasks, with the answers and with fixation apart.

    Steps of the grace do not count. The angle of an output is that of the population vector of its
    ring; it is right within :math:`0.2 \pi`, which a random one is in a fifth of the trials.

    Parameters
    ----------
    trials : Bunch
        As from :func:`make_cognitive_task`.
    outputs : array-like of shape (n_samples, n_timesteps, 1 + n_ring)
        What a network made of them. Numbers that are not finite are wrong.

    Returns
    -------
    scores : :class:`~sklearn.utils.Bunch`
        Shares between 0 and 1, each a mean over the tasks:

        response : float
            Of trials with the right answer: of the outputs averaged over the response period,
            fixation is below .5 and the angle right; where it is right to keep fixating, fixation
            is above .5.
        fixation : float
            Of steps before the response period, with fixation above .5.
        composite : float
            The score of [1]_: F fixation + (1 - F) rest. F is the share of time before the response
            period, 2/3, 4/5 or 5/6 with delays of a second. The rest is the share of steps and
            trials of the response period that are to fixate and do, plus that of those that
            are not to and do not, times the share of right angles among all of those.
        by_task : dict
            The same three of every task.
        right : ndarray of shape (n_samples,), bool
            Whether the answer is right.
        angles : ndarray of shape (n_samples,)
            Answers in rad, whatever fixation does; NaN if there is none.

    Raises
    ------
    ValueError
        If outputs are not of the shape of targets.

    Notes
    -----
    Judge networks by `response`: one that keeps fixating whatever happens has a composite of F
    (and of 11/12 in the tasks with matches, where this is right in half of the trials).

    References
    ----------
    .. [1] Soo, Goudar & Wang (2023). Training biologically plausible recurrent neural networks on
       cognitive tasks with long-term dependencies. NeurIPS 36.

    Examples
    --------
    >>> from ssn_estimators.datasets import cognitive_task_scores, make_cognitive_task
    >>> trials = make_cognitive_task("dlygo", 10, random_state=0)
    >>> cognitive_task_scores(trials, trials.y).response
    1.0
    """
    outputs = check_array(
        outputs, input_name="outputs", dtype=float, allow_nd=True, ensure_all_finite=False
    )
    if outputs.shape != trials.y.shape:
        raise ValueError(f"outputs must be of shape {trials.y.shape}, got {outputs.shape}.")
    outputs = np.where(np.isfinite(outputs).all(2, keepdims=True), outputs, np.nan)
    fixation, ring = outputs[..., 0], outputs[..., 1:]
    scored = trials.mask > 0
    begun = np.arange(scored.shape[1]) >= trials.response[:, :1]
    before, after = scored & ~begun, scored & begun
    to_fixate = np.isnan(trials.angles)
    means = np.where(after[..., None], outputs, 0).sum(1) / after.sum(1, keepdims=True)
    angles = _direction(means[:, 1:])
    answered = (means[:, 0] < 0.5) & (_distance(angles, trials.angles) < CLOSE)
    right = np.where(to_fixate, means[:, 0] > 0.5, answered)
    near = _distance(_direction(ring), trials.angles[:, None]) < CLOSE
    # shares of steps, trial by trial
    kept = _share(fixation > 0.5, before)
    obeyed = _share(np.where(to_fixate[:, None], fixation > 0.5, fixation < 0.5), after)
    pointed = _share(near, after)
    by_task = {}
    for name in np.unique(trials.task):
        own = trials.task == name
        go, stay = own & ~to_fixate, own & to_fixate
        steps = np.sum(trials.response[own, 0]) / np.sum(trials.lengths[own])
        released = obeyed[go].sum() * (pointed[go].mean() if go.any() else 0)
        rest = (obeyed[stay].sum() + released) / own.sum()
        by_task[str(name)] = Bunch(
            response=float(right[own].mean()),
            fixation=float(kept[own].mean()),
            composite=float(steps * kept[own].mean() + (1 - steps) * rest),
        )
    overall = {
        name: float(np.mean([scores[name] for scores in by_task.values()]))
        for name in ("response", "fixation", "composite")
    }
    return Bunch(**overall, by_task=by_task, right=right, angles=angles % (2 * np.pi))


def _share(what, when):
    return (what & when).sum(1) / when.sum(1)


@validate_params(trials=[Bunch], n_choices=[*COUNT, None])
def response_labels(trials: Bunch, n_choices: int | None = None) -> np.ndarray:
    """Right answers of cognitive tasks as classes, for classifiers of sequences.

    Parameters
    ----------
    trials : Bunch
        As from :func:`make_cognitive_task`; without jitter the answer is due in the last step of
        all.
    n_choices : int, default=None
        Evenly spread directions, the first at 0; as many as ring units if None. With one, it
        counts only whether to respond.

    Returns
    -------
    y : ndarray of shape (n_samples,), int
        The nearest direction, or `n_choices` where it is right to keep fixating.

    Examples
    --------
    >>> from ssn_estimators.datasets import make_cognitive_task, response_labels
    >>> trials = make_cognitive_task("dms", 6, jitter=0.0, random_state=0)
    >>> sorted(response_labels(trials, n_choices=1).tolist())
    [0, 0, 0, 1, 1, 1]
    """
    if n_choices is None:
        n_choices = trials.y.shape[2] - 1
    responds = ~np.isnan(trials.angles)
    y = np.full(len(responds), n_choices)
    y[responds] = np.round(trials.angles[responds] * n_choices / (2 * np.pi)) % n_choices
    return y
