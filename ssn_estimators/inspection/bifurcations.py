"""Where a steady state ends or starts to oscillate, along a parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import brentq

from ssn_estimators._torch import to_numbers
from ssn_estimators.circuit import Circuit
from ssn_estimators.inspection.steady_states import (
    checked_drive,
    eigenvalues,
    in_double,
    is_near,
    newton,
    steady_states,
)

if TYPE_CHECKING:
    from ssn_estimators._typing import ArrayLike, Function

__all__ = ["Bifurcation", "Bifurcations", "bifurcations"]

RESOLUTION = 1e-9  # of a bifurcation's value, relative to the interval in which it lies


class Bifurcation(NamedTuple):
    """A change of the stability of a steady state.

    Attributes
    ----------
    kind : {"saddle-node", "hopf", "branch point"}
        The state meets an unstable one, and both end; a pair of complex eigenvalues passes through
        0; or a real one does, and the state goes on.
    value : float
        Of the parameter.
    frequency : float
        In Hz, of the oscillation that begins or ends at a Hopf bifurcation; NaN for others.
    u : ndarray of shape (n_neurons,)
        Potentials there, in mV.
    """

    kind: str
    value: float
    frequency: float
    u: np.ndarray


@dataclass(frozen=True, eq=False)
class Bifurcations:
    """What :func:`bifurcations` saw.

    Attributes
    ----------
    values : ndarray of shape (n_values,)
        Of the parameter.
    u, rates : ndarrays of shape (n_values, n_neurons)
        The state followed, in mV and Hz; NaN where there is none.
    stable : ndarray of shape (n_values,), bool
        Whether that state is stable.
    abscissa : ndarray of shape (n_values,)
        Largest real part of the eigenvalues of the Jacobian, in 1/ms.
    points : tuple of Bifurcation
        In the order in which they were passed.
    """

    values: np.ndarray
    u: np.ndarray
    rates: np.ndarray
    stable: np.ndarray
    abscissa: np.ndarray
    points: tuple[Bifurcation, ...]


class _State(NamedTuple):
    """A fixed point at a value of the parameter, with the eigenvalues of its Jacobian."""

    value: float
    u: np.ndarray
    eigenvalues: np.ndarray

    @property
    def leading(self):
        return self.eigenvalues[self.eigenvalues.real.argmax()]

    @property
    def is_stable(self):
        return self.leading.real < 0

    @property
    def parity(self):
        """Of the number of real eigenvalues above 0, which a pair of complex ones leaves alone."""
        real = self.eigenvalues.imag == 0
        return (self.eigenvalues.real[real] > 0).sum() % 2


def bifurcations(
    circuit: Circuit,
    drive_of: Function | ArrayLike,
    values: ArrayLike,
    *,
    start: ArrayLike | None = None,
) -> Bifurcations:
    """Follow a steady state along a parameter, and find where its stability changes.

    Steps are shortened until Newton's method finds the state next to the one before, also where it
    has become unstable by a Hopf bifurcation. Where a state ends, the circuit goes on from there to
    the one in which it settles then.

    Parameters
    ----------
    circuit : Circuit
        The circuit.
    drive_of : callable, or array-like of shape (n_values, n_neurons)
        The drive in mV, of shape (n_neurons,), as a function of the value; or a function that gives
        a pair of a circuit and its drive, if weights or constants change too. An array has the
        drive at each value, linear between them.
    values : array-like of shape (n_values,)
        Of the parameter, at least two, rising or falling.
    start : array-like of shape (n_neurons,), default=None
        Potentials to start from at the first value, in mV; None means rest, u = 0.

    Returns
    -------
    found : Bifurcations

    Raises
    ------
    ValueError
        If values do not rise or fall, a shape is wrong, or a number is not finite.

    References
    ----------
    .. [1] Kraynyukova & Tchumatchenko (2018). Stabilized supralinear network can give rise to
       bistable, oscillatory, and persistent activity. PNAS 115, 3464-3469.

    Examples
    --------
    A cell that excites itself, u = h + 0.15 u^2, has no state beyond h = 5 / 3.

    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import bifurcations
    >>> cell = Circuit([[0.5]], n_excitatory=1)
    >>> found = bifurcations(cell, lambda h: [h], [0.0, 1.0, 2.0])
    >>> [(point.kind, round(point.value, 4)) for point in found.points]
    [('saddle-node', 1.6667)]
    """
    values = to_numbers(values, float, "values")
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values must be two or more finite numbers, got {values!r}.")
    if len(set(np.sign(np.diff(values)))) > 1 or values[0] == values[1]:
        raise ValueError(f"values must rise or fall, got {values.tolist()}.")
    problem = _problem(circuit, drive_of, values)
    points, states = [], [_settle(problem, values[0], start)]
    for value in values[1:]:
        state = states[-1]
        if state is None:
            states.append(_settle(problem, value, start))
            continue
        state, passed = _follow(problem, state, value)
        points += passed
        states.append(state if state.value == value else _settle(problem, value, state.u))
    u = np.array([np.full(circuit.n_neurons, np.nan) if s is None else s.u for s in states])
    abscissa = np.array([np.nan if s is None else s.leading.real for s in states])
    rates = [problem(value)[0].rates(own) for value, own in zip(values, u, strict=True)]
    return Bifurcations(values, u, np.array(rates), abscissa < 0, abscissa, tuple(points))


def _problem(circuit, drive_of, values):
    """Circuit and drive, of shape (1, n_neurons), as a function of the value."""
    double = in_double(circuit)
    if not callable(drive_of):
        drives = checked_drive(double, drive_of)
        if len(drives) != len(values):
            raise ValueError(f"{len(values)} values need as many drives, got {len(drives)}.")
        order = np.argsort(values)

        def interpolated(value):
            columns = [np.interp(value, values[order], column[order]) for column in drives.T]
            return double, np.array([columns])

        return interpolated

    def problem(value):
        found, own = drive_of(float(value)), double
        if isinstance(found, tuple) and isinstance(found[0], Circuit):
            own, found = in_double(found[0]), found[1]
            if own.n_neurons != double.n_neurons:
                raise ValueError(
                    f"circuits must all have {double.n_neurons} cells, got one of {own.n_neurons}."
                )
        return own, checked_drive(own, to_numbers(found, float, "drive")[None])

    return problem


def _settle(problem, value, start):
    """Where a circuit goes by itself, None if it runs away or settles in no state to be found."""
    circuit, drive = problem(value)
    found = steady_states(circuit, drive, start=start)
    return _State(value, found.u[0], eigenvalues(circuit, found.u)[0]) if found.converged else None


def _next(problem, value, u):
    """The state at another value, by Newton's method from the potentials given, or None."""
    circuit, drive = problem(value)
    found = newton(circuit, drive, u[None])
    near = is_near(found, u[None])[0]
    return _State(value, found[0], eigenvalues(circuit, found)[0]) if near else None


def _follow(problem, state, target):
    """The state at the target, or the last one before it ends; and what was passed on the way."""
    whole, points = target - state.value, []
    step = whole
    while state.value != target:
        left = target - state.value
        step = left if abs(step) >= abs(left) else step
        value = target if step == left else state.value + step
        following = _next(problem, value, state.u)
        if following is not None and following.parity == state.parity:
            if following.is_stable != state.is_stable:
                points.append(_crossing(problem, state, following))
            state, step = following, 2 * step
        elif abs(step) > RESOLUTION * abs(whole) and state.value + step / 2 != state.value:
            step = step / 2
        else:  # beyond, a branch point has a state next to this one, but not a saddle-node
            beyond = _next(problem, state.value + 1e3 * step, state.u)
            kind = "saddle-node" if beyond is None else "branch point"
            return state, [*points, Bifurcation(kind, float(state.value), np.nan, state.u)]
    return state, points


def _crossing(problem, before, after):
    """Where the leading eigenvalues pass through 0, between two states next to each other."""

    def between(value):
        share = (value - before.value) / (after.value - before.value)
        found = _next(problem, value, before.u + share * (after.u - before.u))
        return after if found is None else found  # which ends the search between the two

    value = brentq(
        lambda value: between(value).leading.real,
        before.value,
        after.value,
        xtol=RESOLUTION * abs(after.value - before.value),
    )
    found = between(value)
    turning = abs(found.leading.imag)
    kind = "hopf" if turning else "branch point"
    frequency = 1000 * turning / (2 * np.pi) if turning else np.nan
    return Bifurcation(kind, float(value), float(frequency), found.u)
