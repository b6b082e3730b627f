"""Intervals of parameters by profiles: how far one can go while all others make up for it."""

from __future__ import annotations

import numpy as np
from joblib import Parallel, delayed

from ssn_estimators.fitting.starts import bounds_within, descended
from ssn_estimators.fitting.steady import Steady

__all__ = ["profile_intervals"]

N_STEPS = 15  # of the search for an end
ACCURACY = 0.03  # of the root of the rise of the cost, relative to that at the end
LONGEST_STEP = 1.0  # of a logarithm, and of a linear parameter in units of the spread of starts
FARTHEST = np.log(1e3)  # likewise; what is not over by then is open
TOLERANCE = 1e-7  # of the fits on the way


def profile_intervals(problem, best, covariance, rise, n_jobs):
    """Ends of the coordinates' intervals, infinite where they are open.

    Parameters
    ----------
    problem : Problem
    best : Descent
        The minimum.
    covariance : ndarray of shape (n_parameters, n_parameters)
        Of the coordinates there, for first steps.
    rise : float
        Of the cost above the minimum, at the ends.
    n_jobs : int or None

    Returns
    -------
    intervals : ndarray of shape (n_parameters, 2)
    """
    n = len(problem.parameters)
    ends = Parallel(n_jobs)(
        delayed(_end)(problem, best, covariance, rise, number, sign)
        for number in range(n)
        for sign in (-1, 1)
    )
    return np.reshape(ends, (n, 2))


def _end(problem, best, covariance, rise, number, sign):
    """By the secant method on the root of the rise, which for a linear model is linear."""
    parameters, wanted = problem.parameters, np.sqrt(rise)
    unit = 1.0 if parameters.is_log[number] else max(parameters.spread[number], 1e-12)
    limit = (parameters.high if sign > 0 else parameters.low)[number]
    room = abs(limit - best.theta[number])
    farthest = min(FARTHEST * unit, room)
    direction = _direction(covariance, number)
    step = np.sqrt(covariance[number, number] * rise)
    step = min(step if np.isfinite(step) else np.inf, LONGEST_STEP * unit)
    inside, outside, here = (0.0, 0.0), None, best
    for _ in range(N_STEPS):
        step = min(step, farthest)
        found = _held(problem, here, best.theta[number] + sign * step, number, direction)
        if found is None:  # a shorter step finds the state, unless it ends there
            step = (inside[0] + step) / 2
            continue
        root = np.sqrt(max(0.0, found.cost - best.cost))
        if abs(root - wanted) < ACCURACY * wanted:
            break
        if root < wanted:
            inside, here = (step, root), found
            if step >= farthest:
                return limit if farthest == room else sign * np.inf
        else:
            outside = (step, root)
        step = _next(inside, outside, wanted, LONGEST_STEP * unit)
    return best.theta[number] + sign * step


def _direction(covariance, number):
    """How the others go along with one parameter, to first order."""
    direction = np.zeros(len(covariance))
    own = covariance[:, number] / covariance[number, number]
    if np.isfinite(own).all():
        direction = own
    direction[number] = 1.0
    return direction


def _next(inside, outside, wanted, longest):
    step, root = inside
    if outside is None:
        growth = min(2.0, 1.1 * wanted / root) if root > 0 else 2.0
        return min(step * growth, step + longest)
    far, far_root = outside
    share = (wanted - root) / (far_root - root)
    return step + min(max(share, 0.1), 0.9) * (far - step)


def _held(problem, here, value, number, direction):
    """The minimum with one parameter held, from the nearest state; None if there is none."""
    parameters = problem.parameters
    steady = Steady(parameters, problem.conditions, here.theta, here.u)
    steady.outputs(here.theta)
    steady.jacobian(here.theta)
    along = (value - here.theta[number]) * direction
    farthest = LONGEST_STEP * np.where(parameters.is_log, 1.0, parameters.spread)
    for change in (np.clip(along, -farthest, farthest), np.zeros(len(direction))):
        start = np.clip(here.theta + change, *bounds_within(parameters))
        start[number] = value
        if not np.isfinite(steady.outputs(start)).all():
            continue
        u = steady.last.u
        if np.isfinite(problem.cost_of_others(start, u, problem.follower())):
            return descended(problem, start, u, 100, TOLERANCE, held=number)
    return None
