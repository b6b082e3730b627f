r"""Responses in time as a function of a circuit's free numbers, and their slopes.

Euler's method, as simulations that are fitted have it, and its exact derivatives, which are carried
along (forward sensitivities): with few parameters and many observed times this is cheaper than
going backwards once for each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD as THRESHOLD

if TYPE_CHECKING:
    from ssn_estimators._typing import ArrayLike

try:
    from ssn_estimators._numba import OPTIONS, compiled
except ImportError:  # without Numba

    def compiled(**_):
        """Leaves a function as it is."""
        return lambda function: function

    OPTIONS = {}

__all__ = ["Follower", "Recording", "Traces"]

SMALLEST = 1e-100  # of derivatives; their squares are normal numbers
FORGOTTEN = 1e-14  # of the states before recordings
REST = 50  # steps, after which smaller ones become 0


@dataclass(frozen=True, eq=False)
class Traces:
    """Responses in time, for :class:`.CircuitRegressor`.

    Parameters
    ----------
    inputs : array-like of shape (n_steps, n_inputs)
        Inputs at each step.
    responses : array-like of shape (n_steps, n_outputs)
        What was seen after each step, in Hz (or mV). NaN is what has not been observed, such as the
        time in which a circuit forgets where it began.
    sample_error : float or array-like, default=1.0
        Standard errors of the responses: one, of shape (n_outputs,), or of that of the responses.
    dt : float, default=1.0
        Length of a step in ms. The circuit takes steps of Euler's method of the same length.
    initial : array-like of shape (n_neurons,), default=None
        State before the first step: rates in Hz in the rate form, else potentials in mV. None means
        0.
    perturbation : array-like of shape (n_neurons,) or (n_populations,), default=None
        Further constant drive in mV.
    session : str or int, default=None
        If there are several.
    """

    inputs: ArrayLike
    responses: ArrayLike
    sample_error: ArrayLike = 1.0
    dt: float = 1.0
    initial: ArrayLike | None = None
    perturbation: ArrayLike | None = None
    session: str | int | None = None


@dataclass(frozen=True, eq=False)
class Recording:
    """A drive in time, and what was seen.

    Parameters
    ----------
    X : ndarray of shape (n_steps, n_inputs)
    extra : ndarray of shape (n_neurons,)
        Further constant drive in mV.
    initial : ndarray of shape (n_neurons,)
        State before the first step, in Hz in the rate form, else in mV.
    first : int
        Step after which recording begins.
    targets, errors : ndarrays of shape (n_steps - first, n_outputs)
    dt : float
        In ms.
    session : int
        Its number.
    """

    X: np.ndarray
    extra: np.ndarray
    initial: np.ndarray
    first: int
    targets: np.ndarray
    errors: np.ndarray
    dt: float
    session: int = 0

    @property
    def columns(self):
        """Of the input map."""
        n_inputs = self.X.shape[1]
        return slice(self.session * n_inputs, (self.session + 1) * n_inputs)

    @cached_property
    def weights(self):
        """1 / errors, and 0 where nothing has been seen."""
        return np.isfinite(self.targets) / self.errors

    @cached_property
    def known(self):
        """The targets, and 0 where nothing has been seen."""
        return np.nan_to_num(self.targets)


class Course(NamedTuple):
    """Of a circuit in time, by steps."""

    whole: np.ndarray  # what cells get of the first of the sources
    states: np.ndarray  # after each step, (n_steps, n_neurons)
    reach: np.ndarray  # by which a change of a cell's drive changes the state, likewise
    through: np.ndarray  # by which a change of the state changes what the cell sends
    sources: np.ndarray  # what cells send, inputs, 1, powers of the potentials, and steps


def course_of(recording, arrays, gamma, rate_form):
    """Run a circuit; None if activity runs away.

    Parameters
    ----------
    recording : Recording
    arrays : dict of ndarray
        Of :class:`.Parameters`.
    gamma : ndarray of shape (n_neurons,)
    rate_form : bool
        Whether rates have the time constants.

    Returns
    -------
    course : Course or None
    """
    n, n_steps = len(arrays["baseline"]), len(recording.X)
    weights, k = arrays["weights"].astype(float), arrays["k"].astype(float)
    if not rate_form:  # k may as well be in the weights, of powers
        weights, k = weights * k, np.ones(n)
    constant = arrays["baseline"][:, recording.session] + recording.extra
    whole = np.column_stack([weights, arrays["input_map"][:, recording.columns], constant])
    whole, n_arriving = np.ascontiguousarray(whole), whole.shape[1]
    sources = np.empty((n_steps, n_arriving + 2 * n))
    sources[:, n : n_arriving - 1] = recording.X
    sources[:, n_arriving - 1] = 1.0
    course = Course(whole, *(np.ones((n_steps, n)) for _ in range(3)), sources)
    constants, settings = (k, gamma, arrays["tau"].astype(float)), (recording.dt, THRESHOLD)
    run = _run_rates if rate_form else _run_potentials
    finite = run(whole, recording.initial.astype(float), constants, settings, *course[1:])
    return course if finite else None


def derivatives(recording, course, arrays, slopes, rate_form, room):
    """Fill derivatives of the states after each recorded step.

    Parameters
    ----------
    recording, arrays, rate_form
        As of :func:`course_of`, which gave the course.
    course : Course
    slopes : dict of ndarray
        Of :class:`.Parameters`.
    room : ndarray of shape (n_recorded, n_neurons, n_parameters + 1)
        Its last column is left as it is.
    """
    n, p = room.shape[1], room.shape[2] - 1
    by_k, by_tau = (slopes.get(name, np.zeros((n, p))) for name in ("k", "tau"))
    by_weights = slopes.get("weights", np.zeros((n * n, p))).reshape(n, n, p)
    if not rate_form:
        by_weights = by_weights * arrays["k"][:, None] + arrays["weights"][..., None] * by_k
        by_k = np.zeros((n, p))
    by_input, by_baseline = (
        slopes.get(name, np.zeros((arrays[name].size, p))).reshape(n, -1, p)
        for name in ("input_map", "baseline")
    )
    constant = by_baseline[:, recording.session, None]
    by_whole = np.hstack([by_weights, by_input[:, recording.columns], constant])
    share, first = recording.dt / arrays["tau"], recording.first
    begun = _forgotten(course.whole, share, course.reach[:first], course.through[:first])
    entries = _entries(n, by_whole, by_k, by_tau / arrays["tau"][:, None])
    change, (whole, _, *rest) = np.zeros((n, p)), course
    _derivatives(whole, share, *rest, entries, begun, first, change, room)


def _entries(n, by_whole, by_k, by_tau):
    """Derivatives of a step: cell, parameter, source, factor, and values, of what is not 0."""
    n_arriving = by_whole.shape[1]
    cell, source, column = np.nonzero(by_whole)
    parts = [(cell, column, source, cell, by_whole[cell, source, column])]
    for number, slopes in enumerate((by_k, -by_tau)):
        cell, column = np.nonzero(slopes)
        factor = (number + 1) * n + cell
        parts.append((cell, column, n_arriving + number * n + cell, factor, slopes[cell, column]))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


class Follower:
    """Misfits of traces, as few rows: of the R of a QR decomposition of them and their Jacobian.

    Least squares need no more than that of it: the sum of squares, the gradient and the normal
    matrix are those of all times. The misfits are the first column, so that R has nothing of them
    but their length in the first row, for which no derivatives are needed.

    Parameters
    ----------
    recordings : sequence of Recording
    parameters : Parameters
    conditions : Conditions
        How states are seen.
    rate_form : bool
    """

    def __init__(self, recordings, parameters, conditions, rate_form):
        self.recordings, self.parameters = recordings, parameters
        self.conditions, self.rate_form = conditions, rate_form
        self.gamma = np.broadcast_to(
            np.asarray(conditions.law.gamma, float), conditions.extra.shape[1]
        )
        self.is_all = np.array_equal(conditions.readout, np.eye(len(self.gamma)))
        self.rooms, self.arrays, self.courses, self.theta = {}, None, {}, None

    def residuals(self, theta):
        """Their length, then n_parameters zeros; NaN if activity runs away."""
        found = np.zeros(len(self.parameters) + 1)
        cost = self.cost(theta)
        found[0] = np.sqrt(cost) if np.isfinite(cost) else np.nan
        return found

    def cost(self, theta):
        """Sum of squares; infinite if activity runs away."""
        arrays, total = self._arrays(theta), 0.0
        for recording in self.recordings:
            outputs = self.outputs(recording, arrays)[..., -1]
            misfit = (outputs - recording.known) * recording.weights
            total += (misfit**2).sum()
        return total if np.isfinite(total) else np.inf

    def outputs(self, recording, arrays, slopes=None):
        """What is seen after each recorded step.

        Of shape (n_recorded, n_outputs, n_parameters + 1): derivatives, none of them without
        slopes, and what is seen as the last column; NaN if activity runs away. It is overwritten by
        the next one.
        """
        n, p = len(self.gamma), 0 if slopes is None else len(self.parameters)
        room = self._room(len(recording.X) - recording.first, n, p + 1)
        course = self._course(recording, arrays)
        if course is None:
            room[:] = np.nan
            return self.conditions.readout @ room
        room[..., -1] = course.states[recording.first :]
        if p:
            derivatives(recording, course, arrays, slopes, self.rate_form, room)
        conditions = self.conditions
        if not conditions.potentials and not self.rate_form:
            states = room[..., -1].copy()
            room *= conditions.gain(arrays, states)[..., None]
            room[..., -1] = conditions.rates(arrays, states)
            if p and "k" in slopes:
                room[..., :-1] += (
                    np.maximum(states, 0)[..., None] ** self.gamma[:, None] * slopes["k"]
                )
        return room if self.is_all else conditions.readout @ room

    def _room(self, *shape):
        """Memory that is there already; new pages take as long as many steps."""
        if shape not in self.rooms:
            self.rooms[shape] = np.empty(shape)
        return self.rooms[shape]

    def _course(self, recording, arrays):
        """Run once where the sum of squares and derivatives are wanted, too."""
        if arrays is not self.arrays:
            self.arrays, self.courses = arrays, {}
        key = id(recording)
        if key not in self.courses:
            self.courses[key] = course_of(recording, arrays, self.gamma, self.rate_form)
        return self.courses[key]

    def _arrays(self, theta):
        if not np.array_equal(theta, self.theta):
            self.theta, self.by_theta = theta.copy(), self.parameters.arrays(theta)
        return self.by_theta

    def jacobian(self, theta):
        """Derivatives of the residuals; NaN if activity runs away."""
        parameters = self.parameters
        arrays, slopes = self._arrays(theta), parameters.slopes(theta)
        gram = np.zeros((len(parameters) + 1, len(parameters) + 1))
        for recording in self.recordings:
            found = self.outputs(recording, arrays, slopes)
            found[..., -1] -= recording.known
            if not np.isfinite(found[-1]).all():
                return np.full((len(gram), len(parameters)), np.nan)
            found *= recording.weights[..., None]
            found = found.reshape(-1, len(gram))
            gram += found.T @ found
        length = np.sqrt(gram[-1, -1])
        along = gram[-1, :-1] / (length if length > 0 else 1.0)
        return np.vstack([along, _root(gram[:-1, :-1] - np.outer(along, along))])


def _root(gram):
    """A square matrix R with R^T R = gram."""
    size = np.sqrt(np.maximum(np.diag(gram), 0.0))
    size[size == 0] = 1.0
    value, vector = np.linalg.eigh(gram / np.outer(size, size))
    return np.sqrt(np.maximum(value, 0.0))[:, None] * vector.T * size


@compiled(**OPTIONS)
def _run_rates(whole, initial, constants, settings, states, reach, through, sources):
    """Fill the course of the rate form; False where the circuit has run away."""
    k, gamma, tau = constants
    dt, threshold = settings
    n, n_arriving = whole.shape
    state, power, slope = initial.copy(), np.zeros(n), np.zeros(n)
    total = np.zeros(n)
    for t in range(len(states)):
        for i in range(n):
            sources[t, i] = state[i]
        for i in range(n):
            total[i] = 0.0
            for m in range(n_arriving):
                total[i] += whole[i, m] * sources[t, m]
        _powers(total, gamma, power, slope)
        for i in range(n):
            step = dt / tau[i] * (k[i] * power[i] - state[i])
            reach[t, i] = dt / tau[i] * k[i] * slope[i]
            sources[t, n_arriving + i], sources[t, n_arriving + n + i] = power[i], step
            state[i] += step
            states[t, i] = state[i]
            if not abs(state[i]) < threshold:
                return False
    return True


@compiled(**OPTIONS)
def _run_potentials(whole, initial, constants, settings, states, reach, through, sources):
    """Fill the course of the voltage form, with k = 1; False where the circuit has run away."""
    _, gamma, tau = constants
    dt, threshold = settings
    n, n_arriving = whole.shape
    state, power, slope = initial.copy(), np.zeros(n), np.zeros(n)
    for t in range(len(states)):
        _powers(state, gamma, power, slope)
        for i in range(n):
            sources[t, i], sources[t, n_arriving + i] = power[i], power[i]
            through[t, i], reach[t, i] = slope[i], dt / tau[i]
        for i in range(n):
            total = 0.0
            for m in range(n_arriving):
                total += whole[i, m] * sources[t, m]
            step = dt / tau[i] * (total - state[i])
            sources[t, n_arriving + n + i] = step
            state[i] += step
            states[t, i] = state[i]
            if not abs(state[i]) < threshold:
                return False
    return True


@compiled(**OPTIONS)
def _powers(u, gamma, power, slope):
    """Of the potentials, and their slopes."""
    for i in range(len(u)):
        if u[i] <= 0:
            power[i], slope[i] = 0.0, 0.0
        elif gamma[i] == 2:
            power[i], slope[i] = u[i] * u[i], 2 * u[i]
        else:
            power[i] = u[i] ** gamma[i]
            slope[i] = gamma[i] * power[i] / u[i]


@compiled(**OPTIONS)
def _derivatives(whole, share, reach, through, sources, entries, begun, first, change, found):
    """Fill the derivatives of the states after each recorded step."""
    n, p = change.shape
    cell, column, source, factor, values = entries
    after, factors = np.zeros((n, p)), np.ones(3 * n)
    factors[n : 2 * n] = share
    for t in range(begun, len(reach)):
        for i in range(n):
            factors[i] = reach[t, i]
            for j in range(p):
                after[i, j] = (1 - share[i]) * change[i, j]
            for m in range(n):
                weight = reach[t, i] * whole[i, m] * through[t, m]
                for j in range(p):
                    after[i, j] += weight * change[m, j]
        for e in range(len(values)):
            after[cell[e], column[e]] += values[e] * factors[factor[e]] * sources[t, source[e]]
        # numbers below the normal ones, of the past of silent cells, are slow
        smallest = SMALLEST if t % REST == 0 else 0.0
        for i in range(n):
            for j in range(p):
                change[i, j] = after[i, j] if abs(after[i, j]) > smallest else 0.0
        if t >= first:
            for i in range(n):
                for j in range(p):
                    found[t - first, i, j] = change[i, j]


@compiled(**OPTIONS)
def _forgotten(whole, share, reach, through):
    """Step before which what states have been does not matter after the last one; 0 if unknown.

    The last half of the steps must do for this, for to find out takes time.
    """
    n_steps, n = reach.shape
    memory, before = np.eye(n), np.zeros((n, n))
    for t in range(n_steps - 1, n_steps // 2, -1):
        largest = 0.0
        for a in range(n):
            for m in range(n):
                before[a, m] = memory[a, m] * (1 - share[m])
                for i in range(n):
                    before[a, m] += memory[a, i] * reach[t, i] * whole[i, m] * through[t, m]
                largest = max(largest, abs(before[a, m]))
        memory, before = before, memory
        if largest < FORGOTTEN:
            return t
    return 0
