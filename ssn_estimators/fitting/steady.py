r"""Steady rates of a circuit under many inputs as a function of its free numbers, and their slopes.

The fixed points :math:`u = W r(u) + h` are found by Newton's method from where they were expected
to be: at the last ones, moved along their slopes :math:`du = (I - W G)^{-1} d(W r + h)`,
which are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD, Circuit

__all__ = [
    "Conditions",
    "Steady",
    "fixed_points_of",
    "gain_slopes",
    "newton",
    "power_curvature",
    "spectral_abscissae",
]

NEWTON_STEPS = 8
PRECISION = 1e-6  # of a Newton step, relative to 1 mV + the potentials; its error is the square
RELAXATION, RELAXATION_STEPS = 0.25, 200  # in membrane time constants


@dataclass(frozen=True, eq=False)
class Conditions:
    """What a circuit is shown, and what is seen of it.

    Parameters
    ----------
    X : ndarray of shape (n_conditions, n_sessions * n_inputs)
        0 but for those of the condition's session.
    sessions : ndarray of shape (n_conditions, n_sessions)
        1 for the condition's own, else 0.
    extra : ndarray of shape (n_conditions, n_neurons)
        Further drive in mV.
    readout : ndarray of shape (n_outputs, n_neurons)
        Weights of the mean over cells.
    law : Circuit
        With the rate function, of gain k = 1.
    potentials : bool
        Whether potentials are seen, not rates.
    """

    X: np.ndarray
    sessions: np.ndarray
    extra: np.ndarray
    readout: np.ndarray
    law: Circuit
    potentials: bool

    def drive(self, arrays):
        """Drive in mV by arrays of one circuit, or of several (along leading axes)."""
        by_input = self.X @ np.swapaxes(arrays["input_map"], -1, -2)
        return by_input + self.sessions @ np.swapaxes(arrays["baseline"], -1, -2) + self.extra

    def rates(self, arrays, u):
        """Rates in Hz."""
        return arrays["k"][..., None, :] * self.law.rates(u)

    def gain(self, arrays, u):
        """Slopes of the rates."""
        return arrays["k"][..., None, :] * self.law.gain(u)

    def outputs(self, arrays, u):
        """What is seen, of shape (..., n_conditions, n_outputs)."""
        return (u if self.potentials else self.rates(arrays, u)) @ self.readout.T


def fixed_points_of(conditions, arrays):
    """Potentials that circuits relax to from rest, NaN for circuits that do not under some input.

    Cells are given one time constant: whether circuits with their own ones stay there, their
    :func:`spectral_abscissae` say.
    """
    h = conditions.drive(arrays)
    synapses = np.swapaxes(arrays["weights"], -1, -2)
    u = np.zeros_like(h)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(RELAXATION_STEPS):
            u = u + RELAXATION * (h - u + conditions.rates(arrays, u) @ synapses)
            u[~(np.abs(u) < DIVERGENCE_THRESHOLD)] = np.nan
        near = newton(conditions, arrays, h, u)
    settled = np.isfinite(near).all((-1, -2)) & (np.abs(near - u) < 0.1 * (1 + np.abs(u))).all(
        (-1, -2)
    )
    return np.where(settled[..., None, None], near, np.nan)


def newton(conditions, arrays, h, u):
    """Fixed points next to potentials; NaN for circuits with an input without."""
    if not h.size:
        return u
    weights, eye = arrays["weights"], np.eye(h.shape[-1])
    synapses, circuits, inputs = np.swapaxes(weights, -1, -2), u.shape[:-2], (-1, -2)
    arrived = np.zeros(circuits, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(NEWTON_STEPS):
            lost = ~(np.abs(u).max(inputs) < DIVERGENCE_THRESHOLD)
            if (lost | arrived).all():
                break
            residual = h - u + conditions.rates(arrays, u) @ synapses
            matrix = eye - weights[..., None, :, :] * conditions.gain(arrays, u)[..., None, :]
            if lost.any():  # of several circuits
                residual[lost], matrix[lost] = np.nan, eye
            try:
                change = np.linalg.solve(matrix, residual[..., None])[..., 0]
            except np.linalg.LinAlgError:  # one of them is singular
                return np.full_like(u, np.nan)
            u = u + change
            arrived = np.abs(change).max(inputs) <= PRECISION * (1 + np.abs(u).max(inputs))
    return np.where(arrived[..., None, None], u, np.nan)


def spectral_abscissae(conditions, arrays, u):
    """Largest real parts of the Jacobians' eigenvalues in 1/ms, of shape (..., n_conditions)."""
    gain = conditions.gain(arrays, u)
    weights, n, receptors = (
        arrays["weights"][..., None, :, :],
        u.shape[-1],
        conditions.law.receptors,
    )
    if receptors is None:
        jacobian = weights * gain[..., None, :] - np.eye(n)
        return np.linalg.eigvals(jacobian / arrays["tau"][..., None, :, None]).real.max(-1)
    # of the y of all receptors; what external input comes through is stable by itself
    shares = receptors.shares_of_cells(conditions.law.populations)
    through = gain[..., None] * weights
    blocks = through[..., None, :, None, :] * shares
    size = len(shares) * n
    jacobian = np.broadcast_to(blocks, (*u.shape[:-1], len(shares), n, *shares.shape))
    jacobian = jacobian.reshape(*u.shape[:-1], size, size) - np.eye(size)
    tau = np.repeat(list(receptors.tau.values()), n)
    return np.linalg.eigvals(jacobian / tau[:, None]).real.max(-1)


class _Point(NamedTuple):
    theta: np.ndarray
    arrays: dict
    u: np.ndarray


class Steady:
    r"""Outputs in the steady state, followed from one set of parameters to the next.

    The input to cells is linear in what arrives, :math:`h + W r = P z` with :math:`P = (W
    \mathrm{diag}(k), M, b)` and :math:`z = (\lfloor u \rfloor_+^\gamma, x, 1)`, with columns of M
    and b for each session: all parameters but time constants act through P.

    Parameters
    ----------
    parameters : Parameters
    conditions : Conditions
    theta : ndarray of shape (n_parameters,)
        Coordinates at which potentials are known.
    u : ndarray of shape (n_conditions, n_neurons)
        These potentials.
    guarded : bool
        Whether states must be stable. This takes as long as all else, and is rarely needed.
    """

    def __init__(self, parameters, conditions, theta, u, guarded=False):
        self.parameters, self.conditions, self.guarded = parameters, conditions, guarded
        self.here = _Point(theta, parameters.arrays(theta), u)  # where slopes were taken
        self.last = self.here
        self.slopes = None  # of the arrays
        self.inner = None  # of P, and what a cell's input does to all potentials

    def outputs(self, theta):
        """Of shape (n_conditions, n_outputs); NaN where the state is lost."""
        arrays = self.parameters.arrays(theta)
        if np.array_equal(theta, self.here.theta):
            u = self.here.u  # at the edge of stability Newton steps need not stay where they led
        else:
            drive = self.conditions.drive(arrays)
            u = newton(self.conditions, arrays, drive, self._expected(theta))
        if self.guarded and np.isfinite(u).all():
            stable = (spectral_abscissae(self.conditions, arrays, u) < 0).all()
            u = u if stable else np.full_like(u, np.nan)
        self.last = _Point(theta.copy(), arrays, u)
        return self.conditions.outputs(arrays, u)

    def _expected(self, theta):
        """Potentials to first order."""
        if self.inner is None:
            return self.here.u
        slopes, spread = self.inner
        arriving = self._arriving()
        change = (slopes @ (theta - self.here.theta)).reshape(-1, arriving.shape[1])
        return self.here.u + (spread @ (arriving @ change.T)[..., None])[..., 0]

    def _arriving(self):
        """z of shape (n_conditions, n_neurons + n_sessions * (n_inputs + 1))."""
        return np.concatenate([self._by_k(), self.conditions.X, self.conditions.sessions], 1)

    def _by_k(self):
        """Rates over their gains k."""
        return self.conditions.law.rates(self.here.u)

    def jacobian(self, theta):
        """Derivatives of the outputs, of shape (n_conditions, n_outputs, n_parameters)."""
        if not np.array_equal(theta, self.last.theta):
            self.outputs(theta)
        self.here = self.last
        _, arrays, u = self.here
        conditions, (n_conditions, n) = self.conditions, u.shape
        gain = conditions.gain(arrays, u)
        self.slopes = own = self.parameters.slopes(theta)
        slopes = self._slopes(own)
        spread = np.linalg.inv(np.eye(n) - arrays["weights"] * gain[:, None, :])
        self.inner = slopes, spread
        seen = spread if conditions.potentials else gain[..., None] * spread
        seen = conditions.readout @ seen
        arriving = self._arriving()
        pairs = seen[..., None] * arriving[:, None, None, :]
        found = pairs.reshape(-1, n * arriving.shape[1]) @ slopes
        found = found.reshape(n_conditions, len(conditions.readout), slopes.shape[1])
        by_k = own.get("k")
        if by_k is not None and not conditions.potentials:
            found = found + (conditions.readout * self._by_k()[:, None, :]) @ by_k
        return found

    def by_parameters(self):
        """Derivatives of the potentials, of shape (n_conditions, n_neurons, n_parameters)."""
        slopes, spread = self.inner
        arriving = self._arriving()
        n, p = spread.shape[1], slopes.shape[1]
        return spread @ np.tensordot(arriving, slopes.reshape(n, -1, p), (1, 1))

    def _slopes(self, slopes):
        """Derivatives of P, of shape (n_neurons * the length of z, n_parameters)."""
        theta, arrays, u = self.here
        n, n_inputs, p = u.shape[1], self.conditions.X.shape[1], len(theta)
        n_sessions = self.conditions.sessions.shape[1]
        found = np.zeros((n, n + n_inputs + n_sessions, p))
        if "weights" in slopes:
            found[:, :n] += slopes["weights"].reshape(n, n, p) * arrays["k"][:, None]
        if "k" in slopes:
            found[:, :n] += arrays["weights"][..., None] * slopes["k"]
        if "input_map" in slopes:
            found[:, n : n + n_inputs] = slopes["input_map"].reshape(n, n_inputs, p)
        if "baseline" in slopes:
            found[:, n + n_inputs :] = slopes["baseline"].reshape(n, n_sessions, p)
        return found.reshape(-1, p)


def gain_slopes(law, arrays, slopes, u, by_parameters, curvature=None):
    """Derivatives of the gains, of shape (..., n_neurons, n_parameters).

    From those of the quantities, and from those of the potentials, `by_parameters`; by the
    `curvature` of the law, that of power laws if there is none.
    """
    bent = power_curvature(law, u) if curvature is None else curvature(u)
    through = (arrays["k"] * bent)[..., None] * by_parameters
    return law.gain(u)[..., None] * slopes.get("k", 0.0) + through


def power_curvature(law, u):
    """Second derivative of the power law of k = 1."""
    positive = u > 0
    power = np.where(positive, u, 1.0) ** (law.gamma - 2)
    return law.gamma * (law.gamma - 1) * power * positive
