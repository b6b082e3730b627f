"""Least squares from many starts, those without a stable state drawn again, or led back to one."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from scipy.optimize import least_squares
from sklearn.exceptions import ConvergenceWarning

from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.fitting.leading import led_back
from ssn_estimators.fitting.steady import Steady, fixed_points_of, spectral_abscissae

__all__ = ["Descent", "bounds_within", "descended", "descents", "is_reached", "warn_of"]

POOL = 2  # draws of a start, of which those with the least cost are taken first
ROUNDS = 10  # of draws, and of starts in place of those that failed
WALL = (
    0.02  # of the rate at which the slowest cells decay: what is slower is about to lose its state
)


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


def descents(problem, n_starts, rng, *, max_iter, tol, n_jobs, lead=False):
    """Least squares from the circuit given and from random starts.

    With `lead` as many starts as are needed are led back, not drawn again.

    Returns
    -------
    found : list of Descent
        One for each start.
    counts : dict of int
        How many starts were drawn (`n_drawn`), had no stable state or lost it (`n_lost`), and were
        led back to one (`n_led`).

    Raises
    ------
    DivergenceError
        If none of many has a stable state.
    """
    parameters = problem.parameters
    first = np.clip(parameters.start, *bounds_within(parameters))
    pool, n_drawn, n_lost, n_led = [], 0, 0, 0
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
            if lead:
                lost = thetas[np.isinf(cost)]
                led = _led(problem, lost, wanted - len(pool), n_jobs)
                pool, n_led = pool + led, n_led + len(led)
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
            "state under all conditions. Give a circuit with weaker excitation, or less input, or "
            "lost='lead'."
        )
    rest = [x for x in found if not any(x is other for other in good)]
    rest = sorted(rest, key=lambda x: (x.failed, x.cost))
    counts = {"n_drawn": n_drawn, "n_lost": int(n_lost), "n_led": n_led}
    return (good + rest)[:n_starts], counts


def _led(problem, thetas, n_wanted, n_jobs):
    """As many starts with stable states as are wanted, from those without, if they can be led."""
    found, follower = [], problem.follower()
    while len(found) < n_wanted and len(thetas):
        n = n_wanted - len(found)
        batch, thetas = thetas[:n], thetas[n:]
        led = Parallel(n_jobs)(delayed(led_back)(problem, theta) for theta in batch)
        led = [own for own in led if own is not None]
        found += [own for own in led if np.isfinite(problem.cost_of_others(*own, follower))]
    return found


def bounds_within(parameters):
    """Bounds a little further in, in which least squares must start."""
    low, high = parameters.low, parameters.high
    with np.errstate(invalid="ignore"):
        room = 1e-6 * np.minimum(1.0, np.nan_to_num(high - low, posinf=1.0))
    return low + room, high - room


def _drawn(parameters, n, rng):
    thetas = parameters.start + parameters.spread * rng.normal(size=(n, len(parameters)))
    return np.clip(thetas, *bounds_within(parameters))


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
    moving = np.arange(len(start)) != held

    def theta_of(z):
        theta = start.copy()
        theta[moving] += unit[moving] * z
        return theta

    def residuals(z):
        theta = theta_of(z)
        found = problem.residuals(steady.outputs(theta), theta)  # NaN makes it take a shorter step
        _, arrays, u = steady.last
        for own in problem.fluctuations:
            found = np.append(found, own.residuals(arrays, u))
        return found if follower is None else np.append(found, follower.residuals(theta))

    def jacobian(z):
        return (whole_jacobian(theta_of(z)) * unit)[:, moving]

    def whole_jacobian(theta):
        found = problem.jacobian(steady.jacobian(theta), theta)
        _, arrays, u = steady.here
        for own in problem.fluctuations:
            slopes = own.jacobian(arrays, steady.slopes, u, steady.by_parameters())
            found = np.vstack([found, slopes])
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
            gtol=None,  # SciPy's is absolute: it would depend on the units of the responses
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
