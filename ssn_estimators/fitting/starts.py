"""Least squares from many starts, those without a stable state drawn again."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from scipy.optimize import least_squares
from sklearn.exceptions import ConvergenceWarning

from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.fitting.parameters import Parameters
from ssn_estimators.fitting.spectra import Fluctuations
from ssn_estimators.fitting.steady import (
    Conditions,
    Steady,
    fixed_points_of,
    spectral_abscissae,
)
from ssn_estimators.fitting.traces import Follower

__all__ = ["Descent", "Problem", "descended", "descents", "is_reached", "warn_of"]

POOL = 2  # draws of a start, of which those with the least cost are taken first
ROUNDS = 10  # of draws, and of starts in place of those that failed
WALL = (
    0.02  # of the rate at which the slowest cells decay: what is slower is about to lose its state
)


@dataclass(frozen=True, eq=False)
class Problem:
    """Residuals in units of errors, then those of the prior, and their derivatives.

    Parameters
    ----------
    parameters : Parameters
    conditions : Conditions
    targets, errors : ndarrays of shape (n_conditions, n_outputs)
        NaN among the targets is what has not been seen.
    penalty : float
        Factor of the squared misfits of the prior.
    recordings : sequence of Recording
    rate_form : bool
        Of what is recorded.
    fluctuations : Fluctuations
        Whose spectra have been seen; None for none.
    """

    parameters: Parameters
    conditions: Conditions
    targets: np.ndarray
    errors: np.ndarray
    penalty: float
    recordings: tuple = ()
    rate_form: bool = False
    fluctuations: Fluctuations | None = None

    def follower(self):
        """Of the recordings."""
        return Follower(self.recordings, self.parameters, self.conditions, self.rate_form)

    @property
    def n_residuals(self):
        """Numbers of observations."""
        in_time = sum(np.isfinite(recording.targets).sum() for recording in self.recordings)
        targets = () if self.fluctuations is None else self.fluctuations.targets
        return int(self.seen.sum() + in_time + sum(own.seen.sum() for own in targets))

    @property
    def seen(self):
        """What has been seen, of the targets' shape."""
        return np.isfinite(self.targets)

    @property
    def has_prior(self):
        """For which parameters there is a prior that counts."""
        return np.isfinite(self.parameters.prior_mean) & (self.penalty > 0)

    def residuals(self, outputs, theta):
        """Their squares add up to what is minimised; of one circuit, or of several."""
        misfit = ((outputs - self.targets) / self.errors)[..., self.seen]
        prior = np.sqrt(self.penalty) * self.parameters.prior(theta)[0][..., self.has_prior]
        return np.concatenate([misfit, prior], -1)

    def jacobian(self, of_outputs, theta):
        """Derivatives of the residuals, of shape (n_residuals, n_parameters)."""
        misfit = (of_outputs / self.errors[..., None])[self.seen]
        slopes = np.sqrt(self.penalty) * self.parameters.prior(theta)[1]
        return np.concatenate([misfit, np.diag(slopes)[self.has_prior]])

    def candidates(self, thetas):
        """States of circuits, and their sums of squares; infinite without a stable state."""
        arrays = self.parameters.arrays(thetas)
        u = fixed_points_of(self.conditions, arrays)
        cost, found = np.full(len(thetas), np.inf), np.flatnonzero(np.isfinite(u).all((1, 2)))
        own = {name: array[found] for name, array in arrays.items()}
        stable = (spectral_abscissae(self.conditions, own, u[found]) < 0).all(1)
        outputs = self.conditions.outputs(own, u[found])
        costs = (self.residuals(outputs, thetas[found]) ** 2).sum(-1)
        cost[found[stable]] = costs[stable]
        follower = self.follower()
        for i in found[stable]:
            cost[i] += follower.cost(thetas[i])
            if self.fluctuations is not None:
                one = self.parameters.arrays(thetas[i])
                cost[i] += (self.fluctuations.residuals(one, u[i]) ** 2).sum()
        return u, cost

    def is_dead(self, arrays, u):
        """Whether there is an output that no parameter acts on, for its cells are silent."""
        if self.conditions.potentials or not len(u):
            return False
        moves = self.conditions.gain(arrays, u) @ self.conditions.readout.T != 0
        return bool((self.seen.any(0) & ~(moves & self.seen).any(0)).any())


class Descent(NamedTuple):
    """Where least squares went from a start."""

    theta: np.ndarray
    u: np.ndarray
    jacobian: np.ndarray
    cost: float  # sum of squares
    n_evaluations: int
    converged: bool
    abscissa: np.ndarray  # of each condition, in 1/ms
    failed: bool  # no stable state next to it, or none that is a minimum


def descents(problem, n_starts, rng, *, max_iter, tol, n_jobs):
    """Least squares from the circuit given and from random starts.

    Returns
    -------
    found : list of Descent
        One for each start.
    n_drawn, n_lost : int
        How many starts were drawn, and how many of them had no stable state or lost it.

    Raises
    ------
    DivergenceError
        If none of many has a stable state.
    """
    parameters = problem.parameters
    first = np.clip(parameters.start, *_inside(parameters))
    pool, n_drawn, n_lost = [], 0, 0
    found, wanted = [], n_starts
    for _ in range(ROUNDS):
        if len(pool) < wanted:
            thetas = _drawn(parameters, POOL * wanted, rng)
            thetas = thetas if n_drawn else np.vstack([first, thetas])
            u, cost = problem.candidates(thetas)
            order = np.argsort(cost[len(cost) - POOL * wanted :]) + len(cost) - POOL * wanted
            order = order if n_drawn else [0, *order]
            pool += [(thetas[i], u[i]) for i in order if np.isfinite(cost[i])]
            n_drawn += len(thetas)
            n_lost += np.isinf(cost).sum()
        batch, pool = pool[:wanted], pool[wanted:]
        ended = Parallel(n_jobs)(
            delayed(_descent)(problem, theta, u, max_iter, tol) for theta, u in batch
        )
        found += ended
        n_lost += sum(descent.failed for descent in ended)
        # those without an end have one left to others, if others have come to one
        ends = any(descent.converged for descent in found)
        good = [x for x in found if not x.failed and (x.converged or not ends)]
        wanted = n_starts - len(good)
        if not wanted:
            break
    if not found:
        raise DivergenceError(
            f"None of {n_drawn} starts, the circuit given and random ones about it, has a stable "
            "state under all conditions. Give a circuit with weaker excitation, or less input."
        )
    rest = [x for x in found if not any(x is other for other in good)]
    rest = sorted(rest, key=lambda x: (x.failed, x.cost))
    return (good + rest)[:n_starts], n_drawn, int(n_lost)


def _inside(parameters):
    """Bounds a little further in, in which least squares must start."""
    low, high = parameters.low, parameters.high
    with np.errstate(invalid="ignore"):
        room = 1e-6 * np.minimum(1.0, np.nan_to_num(high - low, posinf=1.0))
    return low + room, high - room


def _drawn(parameters, n, rng):
    thetas = parameters.start + parameters.spread * rng.normal(size=(n, len(parameters)))
    return np.clip(thetas, *_inside(parameters))


def _descent(problem, theta, u, max_iter, tol):
    ended = descended(problem, theta, u, max_iter, tol)
    if ended.abscissa.max(initial=-np.inf) > -_wall(problem, theta):  # it oscillates
        ended = descended(problem, theta, u, max_iter, tol, guarded=True)
    return ended


def descended(problem, start, u, max_iter, tol, *, guarded=False, held=None):
    """SciPy's trust-region method in units of the spread of starts, which limits its first step.

    The parameter of number `held`, if there is one, stays as it is.
    """
    parameters = problem.parameters
    unit = np.where(parameters.spread > 0, parameters.spread, 1.0)
    steady = Steady(parameters, problem.conditions, start, u, guarded)
    follower = problem.follower() if problem.recordings else None
    fluctuations = problem.fluctuations
    moving = np.arange(len(start)) != held

    def theta_of(z):
        theta = start.copy()
        theta[moving] += unit[moving] * z
        return theta

    def residuals(z):
        theta = theta_of(z)
        found = problem.residuals(steady.outputs(theta), theta)  # NaN makes it take a shorter step
        if fluctuations is not None:
            _, arrays, u = steady.last
            found = np.append(found, fluctuations.residuals(arrays, u))
        return found if follower is None else np.append(found, follower.residuals(theta))

    def jacobian(z):
        return (whole_jacobian(theta_of(z)) * unit)[:, moving]

    def whole_jacobian(theta):
        found = problem.jacobian(steady.jacobian(theta), theta)
        if fluctuations is not None:
            _, arrays, u = steady.here
            own = fluctuations.jacobian(arrays, steady.slopes, u, steady.by_parameters())
            found = np.vstack([found, own])
        return found if follower is None else np.vstack([found, follower.jacobian(theta)])

    low, high = (parameters.low - start) / unit, (parameters.high - start) / unit
    with np.errstate(over="ignore", invalid="ignore"):
        result = least_squares(
            residuals,
            np.zeros(moving.sum()),
            jacobian,
            bounds=(low[moving], high[moving]),
            ftol=tol,
            xtol=tol,
            gtol=tol,
            max_nfev=max_iter,
        )
    theta = theta_of(result.x)
    steady.outputs(theta)
    jacobian_there = whole_jacobian(theta)
    _, arrays, u = steady.here
    abscissa = spectral_abscissae(problem.conditions, arrays, u)
    return Descent(
        theta=theta,
        u=u,
        jacobian=jacobian_there,
        cost=2 * result.cost,
        n_evaluations=result.nfev,
        converged=result.status > 0,
        abscissa=abscissa,
        failed=bool(
            abscissa.max(initial=-np.inf) > _wall(problem, theta) or problem.is_dead(arrays, u)
        ),
    )


def _wall(problem, theta):
    receptors = problem.conditions.law.receptors
    tau = problem.parameters.arrays(theta)["tau"] if receptors is None else receptors.tau.values()
    return -WALL / max(tau)


def warn_of(found):
    """Say what went wrong, if so."""
    failed = sum(descent.failed for descent in found)
    if failed == len(found):
        warnings.warn(
            "No start led to a minimum with a stable state. Give a circuit that is closer to the "
            "data, boxes or a prior, or a smaller spread of the starts.",
            ConvergenceWarning,
            stacklevel=4,
        )
    elif not min(found, key=lambda x: (x.failed, x.cost)).converged:
        warnings.warn(
            "Least squares did not converge: raise max_iter.", ConvergenceWarning, stacklevel=4
        )


def is_reached(problem, descent):
    """Whether a circuit comes to the states of a fit from rest."""
    arrays = problem.parameters.arrays(descent.theta)
    return np.allclose(fixed_points_of(problem.conditions, arrays), descent.u, rtol=1e-4, atol=1e-4)
