r"""Starts without a stable state, led to one by a penalty that has a gradient there.

What runs away has no state to differentiate. With potentials that act as :math:`C \tanh(u / C)` all
activity stays bounded, and there is always a fixed point. Two penalties lead back from it: of the
spectral abscissa :math:`\alpha` of its Jacobian, whose derivative is :math:`y^H dJ x` with the left
and right eigenvectors, :math:`y^H x = 1`, and of potentials that are larger than any seen.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import least_squares

from ssn_estimators.fitting.steady import (
    Steady,
    gain_slopes,
    newton,
    power_curvature,
    spectral_abscissae,
)

__all__ = ["led_back"]

LARGEST = 3.0  # rate, or potential, in units of the largest seen, beyond which it is too large
CAP = 1.5  # C in units of such a potential
MARGIN = 0.1  # of the abscissa, in units of the rate at which the slowest cells decay
MOST_EVALUATIONS = 30
MISSING = 1.0  # penalty of a fixed point that has not been found
FIRST_STEP, GROWTH, N_STEPS = 0.02, 1.1, 120  # in membrane time constants
NEWTON_STEPS, PRECISION = 4, 1e-6


class Capped:
    """A power law of potentials that act as C tanh(u / C); as a `law` of :class:`.Conditions`.

    Parameters
    ----------
    law : Circuit
        Of k = 1.
    most : ndarray of shape (n_neurons,)
        C, in mV.
    """

    def __init__(self, law, most):
        self.law, self.most = law, most
        self.receptors, self.populations = law.receptors, law.populations

    def rates(self, u):
        """In Hz."""
        return self.law.rates(self.most * np.tanh(u / self.most))

    def gain(self, u):
        """Slope of the rates."""
        within = np.tanh(u / self.most)
        return self.law.gain(self.most * within) * (1 - within**2)

    def curvature(self, u):
        """Slope of the gain."""
        within = np.tanh(u / self.most)
        slope, v = 1 - within**2, self.most * within
        by_slope = self.law.gain(v) * (-2 * within / self.most) * slope
        return power_curvature(self.law, v) * slope**2 + by_slope


class Penalties:
    """All of them as residuals of least squares.

    Of each condition the spectral abscissa with the cells' time constants, and with one for all,
    with which states are looked for; MISSING for each where no fixed point has been found. Then
    the potentials of all cells.

    Parameters
    ----------
    problem : Problem
    theta : ndarray of shape (n_parameters,)
        Where to begin.
    """

    def __init__(self, problem, theta):
        self.problem, conditions = problem, problem.conditions
        arrays = problem.parameters.arrays(theta)
        largest = LARGEST * max(1.0, np.nanmax(np.abs(problem.targets)))
        self.large = np.full(conditions.extra.shape[1], largest)
        if not conditions.potentials:
            self.large = (largest / arrays["k"]) ** (1 / conditions.law.gamma)
        self.law = Capped(conditions.law, CAP * self.large)
        self.conditions = replace(conditions, law=self.law)
        self.theta, self.u = None, np.full(conditions.extra.shape, np.nan)

    def residuals(self, theta):
        """Of shape (n_conditions * (2 + n_neurons),)."""
        arrays, self.theta = self.problem.parameters.arrays(theta), theta.copy()
        self.u = bounded_states(self.conditions, arrays, self.u)
        found = np.isfinite(self.u).all(1)
        of_abscissa = np.full((2, len(found)), MISSING)
        for own, tau in zip(of_abscissa, self._taus(arrays), strict=True):
            abscissa = spectral_abscissae(self.conditions, arrays | {"tau": tau}, self.u[found])
            own[found] = np.maximum(tau.max() * abscissa + MARGIN, 0)
        of_size = np.where(found[:, None], np.maximum(self.u / self.large - 1, 0), 0.0)
        return np.concatenate([of_abscissa.ravel(), of_size.ravel()])

    @staticmethod
    def _taus(arrays):
        return arrays["tau"], np.ones_like(arrays["tau"])

    def jacobian(self, theta):
        """Derivatives of the residuals."""
        if not np.array_equal(theta, self.theta):
            self.residuals(theta)
        found = np.flatnonzero(np.isfinite(self.u).all(1))
        own = self.conditions
        own = replace(own, X=own.X[found], sessions=own.sessions[found], extra=own.extra[found])
        steady = Steady(self.problem.parameters, own, theta, self.u[found])
        steady.jacobian(theta)
        _, arrays, u = steady.here
        change, slopes = steady.by_parameters(), steady.slopes
        of_abscissa = np.zeros((2, *self.u.shape[:1], len(theta)))
        of_size = np.zeros((*self.u.shape, len(theta)))
        of_size[found] = np.where((u > self.large)[..., None], change / self.large[:, None], 0.0)
        for i, potentials, by in zip(found, u, change, strict=True):
            by_gain = gain_slopes(self.law, arrays, slopes, potentials, by, self.law.curvature)
            for number, tau in enumerate(self._taus(arrays)):
                given = slopes if number == 0 else slopes | {"tau": 0 * slopes.get("tau", 0)}
                known = arrays | {"tau": tau}
                of_abscissa[number, i] = self._of_abscissa(known, given, potentials, by_gain)
        return np.vstack([x.reshape(-1, len(theta)) for x in (of_abscissa, of_size)])

    def _of_abscissa(self, arrays, slopes, u, by_gain):
        """Derivatives of one residual."""
        weights, tau = arrays["weights"], arrays["tau"]
        gain, longest = arrays["k"] * self.law.gain(u), arrays["tau"].max()
        jacobian = (weights * gain - np.eye(len(u))) / tau[:, None]
        values, right = np.linalg.eig(jacobian)
        number = np.argmax(values.real)
        abscissa = values[number].real
        if abscissa * longest + MARGIN <= 0:
            return 0.0
        left = np.linalg.inv(right)[number]
        of_jacobian = np.outer(left, right[:, number]).real
        of_recurrence = of_jacobian / tau[:, None]
        found = (of_recurrence * weights).sum(0) @ by_gain
        if "weights" in slopes:
            found = found + (of_recurrence * gain).ravel() @ slopes["weights"]
        if np.ndim(slopes.get("tau")) == 2:
            of_tau = -(of_jacobian * jacobian).sum(1) / tau
            of_tau[np.argmax(tau)] += abscissa / longest
            found = found + of_tau @ slopes["tau"]
        return longest * found


def bounded_states(conditions, arrays, near):
    """Fixed points next to others, or that circuits come to from rest; NaN where there is none.

    From rest steps are implicit, and of growing length. Where gains are large, explicit ones would
    have to be short; and where the fixed point is not stable, the last ones, which are Newton's,
    come to it nevertheless.
    """
    h = conditions.drive(arrays)
    u = _stepped(conditions, arrays, h, near, [np.inf] * NEWTON_STEPS)
    lost = np.isnan(u).any(1)
    steps = [*FIRST_STEP * GROWTH ** np.arange(N_STEPS), *[np.inf] * NEWTON_STEPS]
    rest = np.zeros_like(u[lost])
    u[lost] = _stepped(conditions, arrays, h[lost], rest, steps)
    return u


def _stepped(conditions, arrays, h, u, steps):
    """Potentials after implicit steps of these lengths, NaN where they have not come to rest."""
    weights, eye, change = arrays["weights"], np.eye(h.shape[1]), np.zeros_like(u)
    for step in steps:
        residual = h - u + conditions.rates(arrays, u) @ weights.T
        matrix = (1 + 1 / step) * eye - weights * conditions.gain(arrays, u)[:, None, :]
        try:
            change = np.linalg.solve(matrix, residual[..., None])[..., 0]
        except np.linalg.LinAlgError:  # one of them is singular
            return np.full_like(u, np.nan)
        u = u + change
    arrived = np.abs(change).max(1) <= PRECISION * (1 + np.abs(u).max(1))
    return np.where(arrived[:, None], u, np.nan)


def led_back(problem, theta):
    """Coordinates next to these with a stable state, and its potentials; None if there are none.

    Parameters
    ----------
    problem : Problem
        Of steady responses, with the power law and without receptors.
    theta : ndarray of shape (n_parameters,)

    Returns
    -------
    theta : ndarray of shape (n_parameters,)
    u : ndarray of shape (n_conditions, n_neurons)
        In mV.
    """
    penalties, parameters = Penalties(problem, theta), problem.parameters
    unit = np.where(parameters.spread > 0, parameters.spread, 1.0)

    def theta_of(z):
        return theta + unit * z

    with np.errstate(over="ignore", invalid="ignore"):
        result = least_squares(
            lambda z: penalties.residuals(theta_of(z)),
            np.zeros(len(theta)),
            lambda z: penalties.jacobian(theta_of(z)) * unit,
            bounds=((parameters.low - theta) / unit, (parameters.high - theta) / unit),
            max_nfev=MOST_EVALUATIONS,
        )
    led = theta_of(result.x)
    penalties.residuals(led)
    arrays = parameters.arrays(led)
    u = newton(problem.conditions, arrays, problem.conditions.drive(arrays), penalties.u)
    if np.isnan(u).any() or (spectral_abscissae(problem.conditions, arrays, u) >= 0).any():
        return None
    return led, u
