r"""Responses in time as a function of a circuit's free numbers, and their slopes.

Euler's method, as simulations that are fitted have it, and its exact derivatives, which are carried
along (forward sensitivities): with few parameters and many observed times this is cheaper than
going backwards once for each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD

try:
    from ssn_estimators._numba import OPTIONS, compiled
except ImportError:  # without Numba

    def compiled(**_):
        """Leaves a function as it is."""
        return lambda function: function

    OPTIONS = {}

__all__ = ["Follower", "Recording", "Traces", "trajectory"]


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
    """

    inputs: object
    responses: object
    sample_error: object = 1.0
    dt: float = 1.0
    initial: object = None
    perturbation: object = None


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
    """

    X: np.ndarray
    extra: np.ndarray
    initial: np.ndarray
    first: int
    targets: np.ndarray
    errors: np.ndarray
    dt: float

    @property
    def weights(self):
        """1 / errors, and 0 where nothing has been seen."""
        return np.isfinite(self.targets) / self.errors


def trajectory(recording, arrays, slopes, n_parameters, gamma, rate_form):
    """Run a circuit, with derivatives by as many parameters; by none without `slopes`.

    Parameters
    ----------
    recording : Recording
    arrays, slopes : dict of ndarray
        Of :class:`.Parameters`; slopes may be None.
    n_parameters : int
    gamma : ndarray of shape (n_neurons,)
    rate_form : bool
        Whether rates have the time constants.

    Returns
    -------
    found : ndarray of shape (n_recorded, n_neurons, n_parameters + 1)
        Derivatives of the states after each recorded step, and in the last column the states. NaN
        if activity runs away.
    """
    n, p = len(arrays["baseline"]), n_parameters if slopes is not None else 0
    slopes = {} if slopes is None else slopes
    baseline = (arrays["baseline"] + recording.extra)[:, None]
    whole = np.hstack([arrays["weights"], arrays["input_map"], baseline])
    widths = {"weights": n, "input_map": recording.X.shape[1], "baseline": 1}
    parts = [
        slopes[name].reshape(n, width, p) if name in slopes else np.zeros((n, width, p))
        for name, width in widths.items()
    ]
    by_whole = np.concatenate(parts, 1)
    post, pre, column = (np.ascontiguousarray(part) for part in np.nonzero(by_whole))
    of_cells = [slopes.get(name, np.zeros((n, p))) for name in ("k", "tau")]
    n_recorded = len(recording.X) - recording.first
    found = np.zeros((n_recorded, n, p + 1))
    finite = _run(
        np.ascontiguousarray(recording.X),
        recording.initial.astype(float),
        whole,
        (arrays["k"].astype(float), gamma, arrays["tau"].astype(float)),
        (post, pre, column, by_whole[post, pre, column]),
        (np.ascontiguousarray(of_cells[0]), np.ascontiguousarray(of_cells[1])),
        (recording.dt, recording.first, rate_form, DIVERGENCE_THRESHOLD),
        found,
    )
    return found if finite else np.full_like(found, np.nan)


class Follower:
    """Misfits of traces, as few rows: of the R of a QR decomposition of their Jacobian.

    Least squares need no more than that of it: the sum of squares, the gradient and the normal
    matrix are those of all times.

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
        self.theta, self.found = None, None

    def rows(self, theta):
        """Residuals of shape (n_parameters + 1,), and their Jacobian; NaN if activity runs away."""
        if not np.array_equal(theta, self.theta):
            self.theta, self.found = theta.copy(), self._rows(theta)
        return self.found

    def cost(self, theta):
        """Sum of squares; infinite if activity runs away."""
        arrays, total = self.parameters.arrays(theta), 0.0
        for recording in self.recordings:
            outputs = self.outputs(recording, arrays, None)[..., -1]
            misfit = (outputs - np.nan_to_num(recording.targets)) * recording.weights
            total += (misfit**2).sum()
        return total if np.isfinite(total) else np.inf

    def outputs(self, recording, arrays, slopes):
        """What is seen after each recorded step, as :func:`trajectory` gives the states."""
        p = len(self.parameters)
        found = trajectory(recording, arrays, slopes, p, self.gamma, self.rate_form)
        conditions = self.conditions
        if not conditions.potentials and not self.rate_form:
            states = found[..., -1].copy()
            found *= conditions.gain(arrays, states)[..., None]
            found[..., -1] = conditions.rates(arrays, states)
            if slopes is not None and "k" in slopes:
                found[..., :-1] += (
                    np.maximum(states, 0)[..., None] ** self.gamma[:, None] * slopes["k"]
                )
        readout = conditions.readout
        is_all = np.array_equal(readout, np.eye(*readout.shape))
        return found if is_all and len(readout) == readout.shape[1] else readout @ found

    def _rows(self, theta):
        parameters = self.parameters
        arrays, slopes = parameters.arrays(theta), parameters.slopes(theta)
        gram = np.zeros((len(parameters) + 1, len(parameters) + 1))
        for recording in self.recordings:
            found = self.outputs(recording, arrays, slopes)
            found[..., -1] -= np.nan_to_num(recording.targets)
            found *= recording.weights[..., None]
            if not np.isfinite(found[-1]).all():
                break
            found = found.reshape(-1, len(gram))
            gram += found.T @ found
        else:
            rows = _root(gram)
            return rows[:, -1], rows[:, :-1]
        return np.full(len(gram), np.nan), np.full((len(gram), len(parameters)), np.nan)


def _root(gram):
    """A square matrix R with R^T R = gram."""
    size = np.sqrt(np.diag(gram))
    size[size == 0] = 1.0
    value, vector = np.linalg.eigh(gram / np.outer(size, size))
    return np.sqrt(np.maximum(value, 0.0))[:, None] * vector.T * size


@compiled(**OPTIONS)
def _run(X, initial, whole, constants, entries, of_cells, settings, found):
    """Fill slopes, and states as the last column; False where the circuit has run away."""
    k, gamma, tau = constants
    dt, first, rate_form, threshold = settings
    n, p = of_cells[0].shape
    n_inputs = X.shape[1]
    state, arriving = initial.copy(), np.ones(n + n_inputs + 1)
    change, of_rates, of_input = np.zeros((n, p)), np.zeros((n, p)), np.zeros((n, p))
    power, gain, target = np.zeros(n), np.zeros(n), np.zeros(n)
    for t in range(X.shape[0]):
        for q in range(n_inputs):
            arriving[n + q] = X[t, q]
        if rate_form:
            for i in range(n):
                arriving[i] = state[i]
            _take_input(whole, change, arriving, entries, target, of_input)
            _rates(target, k, gamma, power, gain)
            _rate_slopes(of_input, gain, power, of_cells[0], of_input)
            for i in range(n):
                target[i] = k[i] * power[i]
        else:
            _rates(state, k, gamma, power, gain)
            _rate_slopes(change, gain, power, of_cells[0], of_rates)
            for i in range(n):
                arriving[i] = k[i] * power[i]
            _take_input(whole, of_rates, arriving, entries, target, of_input)
        for i in range(n):
            share = dt / tau[i]
            step = share * (target[i] - state[i])
            for j in range(p):
                own = of_input[i, j] - change[i, j]
                change[i, j] += share * own - step / tau[i] * of_cells[1][i, j]
            state[i] += step
            if not abs(state[i]) < threshold:
                return False
        if t >= first:
            for i in range(n):
                for j in range(p):
                    found[t - first, i, j] = change[i, j]
                found[t - first, i, p] = state[i]
    return True


@compiled(**OPTIONS)
def _rates(u, k, gamma, power, gain):
    """Powers of the potentials, and slopes of the rates."""
    for i in range(len(u)):
        if u[i] <= 0:
            power[i], gain[i] = 0.0, 0.0
        elif gamma[i] == 2:
            power[i], gain[i] = u[i] * u[i], 2 * k[i] * u[i]
        else:
            power[i] = u[i] ** gamma[i]
            gain[i] = k[i] * gamma[i] * power[i] / u[i]


@compiled(**OPTIONS)
def _rate_slopes(of_potentials, gain, power, by_k, of_rates):
    for i in range(of_rates.shape[0]):
        for j in range(of_rates.shape[1]):
            of_rates[i, j] = gain[i] * of_potentials[i, j] + power[i] * by_k[i, j]


@compiled(**OPTIONS)
def _take_input(whole, of_rates, arriving, entries, total, of_input):
    """Input to each cell, and how it changes: through the rates, and by itself."""
    n, p = of_rates.shape
    for i in range(n):
        total[i] = 0.0
        for m in range(whole.shape[1]):
            total[i] += whole[i, m] * arriving[m]
        for j in range(p):
            of_input[i, j] = 0.0
        for m in range(n):
            weight = whole[i, m]
            for j in range(p):
                of_input[i, j] += weight * of_rates[m, j]
    post, pre, column, values = entries
    for e in range(len(values)):
        of_input[post[e], column[e]] += values[e] * arriving[pre[e]]
