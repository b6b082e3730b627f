"""Where a circuit works: its fixed points, what stabilises them, balance, transients."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import expm
from scipy.optimize import root
from sklearn.utils import Bunch, check_random_state, gen_batches

from ssn_estimators._sklearn import (
    MOST,
    NOT_NEGATIVE,
    POSITIVE,
    RANDOM,
    Interval,
    count_steps,
    validate_params,
)
from ssn_estimators._torch import made_on_cpu, to_numbers
from ssn_estimators.inspection.linear import jacobian, local_dynamics
from ssn_estimators.inspection.steady_states import in_double, is_near, newton
from ssn_estimators.simulation import lasting, simulate
from ssn_estimators.stationary.closure import mean_activity
from ssn_estimators.stationary.moments import moments_of_potentials

if TYPE_CHECKING:
    from typing import Literal

    from ssn_estimators._typing import ArrayLike, RandomState, Solver
    from ssn_estimators.circuit import Circuit

__all__ = [
    "ei_balance",
    "fixed_points",
    "is_inhibition_stabilized",
    "oscillations",
    "transient_amplification",
]

SAME_POINT = 1e-4  # mV
LEAST_AMPLITUDE = 0.05  # mV; what moves less has settled
BLOCK = 64  # inputs simulated at once


@validate_params(
    n_starts=[Interval(Integral, 0, MOST, closed="both")],
    start=["array-like", None],
    random_state=RANDOM,
)
def fixed_points(
    circuit: Circuit,
    drive: ArrayLike,
    *,
    n_starts: int = 50,
    start: ArrayLike | None = None,
    random_state: RandomState = 0,
) -> list[Bunch]:
    r"""Fixed points of the noise-free dynamics, stable or not.

    Solutions of :math:`u = f(h) + W k \lfloor u \rfloor_+^\gamma` by Powell's hybrid method from
    random places, or from given ones, such as states that a network has visited. None is made up,
    but some may be missed.

    Parameters
    ----------
    circuit : Circuit
        The circuit.
    drive : array-like of shape (n_inputs, n_neurons)
        External drive f(h) in mV.
    n_starts : int, default=50
        Starts of the search for each input: the drive, and places around it at distances of all
        orders from 0.1 mV to 100 mV.
    start : array-like of shape ([n_inputs, ]n_places, n_neurons), default=None
        Potentials in mV from which to start as well, the same for all inputs or for each its own;
        with ``n_starts=0`` only from them.
    random_state : int, RandomState instance or None, default=0
        Source of the starts.

    Returns
    -------
    points : list of Bunch
        For each input, with the points in the order of their abscissae: `u` of shape (n_points,
        n_neurons) in mV; `abscissa` of shape (n_points,), the largest real part of the
        Jacobian's eigenvalues in 1/ms; `stable`, whether it is below 0; and `time_constant` in ms
        and `frequency` in Hz of that eigenvalue, see
        :func:`~ssn_estimators.inspection.local_dynamics`.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, weights are sparse, or there is no start.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import fixed_points
    >>> cell = Circuit([[0.5]], n_excitatory=1, noise_factor=0.0)  # u = 1 + 0.15 u^2
    >>> fixed_points(cell, [[1.0]])[0].u.round(2).ravel().tolist()
    [1.23, 5.44]
    """
    circuit.dense("searches for all fixed points")
    circuit, drive = in_double(circuit), _float_drive(circuit, drive)
    rng, n = check_random_state(random_state), circuit.n_neurons
    places = _checked_places(start, drive, n_starts)

    every = []
    for own, visited in zip(drive, places, strict=True):

        def excess(u, own=own):
            return own - u + circuit.weights @ circuit.rates(u)

        def slope(u):
            return circuit.weights * circuit.gain(u) - np.eye(n)

        size = 10 ** rng.uniform(-1, 2, (n_starts, 1))
        starts = own + size * rng.standard_normal((n_starts, n))
        starts[:1] = own
        found: list[Bunch] = []
        for begin in [*starts, *visited]:
            with np.errstate(over="ignore", invalid="ignore"):
                solution = root(excess, begin, jac=slope, tol=1e-10)
            tolerance = 1e-6 * (1 + np.abs(solution.x).max())
            if not np.abs(excess(solution.x)).max() < tolerance:
                continue
            if _is_among(found, solution.x):
                continue
            # next to where two points have met and ended, the excess is small over a long way
            point = newton(circuit, own[None], solution.x[None])
            if is_near(point, solution.x[None])[0] and not _is_among(found, point[0]):
                found.append(point[0])
        u = np.array(found).reshape(-1, n)
        local = local_dynamics(circuit, u)
        order = np.argsort(local.abscissa)
        measures = {name: values[order] for name, values in local.items()}
        every.append(Bunch(u=u[order], stable=measures["abscissa"] < 0, **measures))
    return every


def _is_among(points, u):
    return any(np.abs(u - other).max() <= SAME_POINT for other in points)


def _checked_places(start, drive, n_starts):
    """Of shape (n_inputs, n_places, n_neurons)."""
    n_inputs, n = drive.shape
    found = np.empty((0, n)) if start is None else to_numbers(start, float, "start")
    one_for_all = found.ndim == 2 and found.shape[1] == n
    if not one_for_all and not (found.ndim == 3 and found.shape[::2] == (n_inputs, n)):
        raise ValueError(
            f"start must have shape (n_places, {n}) or ({n_inputs}, n_places, {n}), got "
            f"{found.shape}."
        )
    if not np.isfinite(found).all():
        raise ValueError("start must be finite, got NaN or infinity.")
    if not n_starts and not found.shape[-2]:
        raise ValueError("n_starts=0 leaves no place to start from: give some as start.")
    return np.broadcast_to(found, (n_inputs, *found.shape[-2:]))


def is_inhibition_stabilized(
    circuit: Circuit, drive: ArrayLike, *, closure: Literal["gaussian", "linear"] = "gaussian"
) -> np.ma.MaskedArray:
    """Would the E cells alone run away, if inhibition stayed as it is?

    With one E and one I cell, this is where more input to the I cell lowers its rate, the
    paradoxical response; with more types or cells, see :func:`paradoxical_effect`.

    Parameters
    ----------
    circuit, drive, closure
        As in :func:`~ssn_estimators.inspection.jacobian`.

    Returns
    -------
    stabilized : masked array of shape (n_inputs,), bool
        Whether the E to E block of the Jacobian has an eigenvalue with a positive real part. Masked
        for inputs without a stable stationary state, of which it cannot be said; `mean()` is the
        share of the others.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import is_inhibition_stabilized
    >>> pair = Circuit([[1.25, -0.65], [1.2, -0.5]], n_excitatory=1, noise_factor=0.2)
    >>> is_inhibition_stabilized(pair, [[0.1, 0.1], [5.0, 5.0]]).tolist()
    [False, True]
    """
    n = circuit.n_excitatory
    matrices = jacobian(circuit.to_numpy(), drive, closure=closure)[:, :n, :n]
    abscissae = np.array([_abscissa(m) for m in matrices])
    return np.ma.masked_array(abscissae > 0, mask=np.isnan(abscissae))


def _abscissa(matrix):
    """NaN for a matrix with NaN, at which LAPACK aborts."""
    return np.linalg.eigvals(matrix).real.max() if np.isfinite(matrix).all() else np.nan


@validate_params(settling=NOT_NEGATIVE, duration=POSITIVE, dt=POSITIVE)
def oscillations(
    circuit: Circuit,
    drive: ArrayLike,
    *,
    settling: float = 2000.0,
    duration: float = 1000.0,
    dt: float = 1.0,
    solver: Solver = "heun",
) -> Bunch:
    """Which inputs end in a limit cycle, and which one.

    The noise-free circuit is simulated from u = 0, and what it does after a while is looked at.

    Parameters
    ----------
    circuit : Circuit
        The circuit.
    drive : array-like of shape (n_inputs, n_neurons)
        External drive f(h) in mV.
    settling : float, default=2000.0
        Time in ms that is left to transients; rounded up to whole steps, as `duration` is.
    duration : float, default=1000.0
        Time in ms that is looked at then; the least frequency is twice its inverse.
    dt, solver : float and str, default=1.0 and "heun"
        See :func:`~ssn_estimators.simulate`.

    Returns
    -------
    oscillations : Bunch
        `oscillating` (bool); `amplitude`, half the range of the potential of the cell that moves
        most, in mV (0 if it does so by less than 0.1 mV, or drifts); `frequency` in Hz, of the
        strongest component of that cell, a multiple of 1 / duration, NaN where there is no
        oscillation; all of shape (n_inputs,). Inputs on which the circuit diverges have NaN and
        count as not oscillating.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import oscillations
    >>> cell = Circuit([[0.0]], n_excitatory=1, noise_factor=1.0)
    >>> oscillations(cell, [[2.0]]).oscillating
    array([False])
    """
    circuit, drive = circuit.to_numpy(), _float_drive(circuit, drive)
    quiet = replace(circuit, noise_factor=np.zeros_like(circuit.noise_factor))
    amplitude, frequency = np.full((2, len(drive)), np.nan)
    for rows in gen_batches(len(drive), BLOCK):
        simulation = simulate(
            quiet,
            drive[rows],
            n_trials=1,
            duration=lasting(duration, dt),
            burn_in=lasting(settling, dt),
            dt=dt,
            solver=solver,
            covariance=False,
            rates=False,
            record=("u",),
        )
        u = simulation.u[:, :, 0].astype(float)
        half = np.ptp(u, axis=0) / 2
        finite = ~simulation.diverged[:, 0]
        cells = half.argmax(1)
        inputs = np.arange(len(cells))
        half = half[inputs, cells]
        moves = finite & (half > LEAST_AMPLITUDE)
        own = u[:, inputs, cells]
        above = own > own.mean(0)
        moves &= (~above[:-1] & above[1:]).sum(0) >= 2  # or it drifts
        own = own[:, moves]
        spectrum = np.abs(np.fft.rfft(own - own.mean(0), axis=0))
        frequencies = np.fft.rfftfreq(len(own), dt / 1000)
        start = rows.start
        amplitude[rows] = np.where(finite, np.where(moves, half, 0.0), np.nan)
        frequency[start + inputs[moves]] = frequencies[spectrum.argmax(0)]
    return Bunch(oscillating=amplitude > 0, amplitude=amplitude, frequency=frequency)


def transient_amplification(
    circuit: Circuit,
    drive: ArrayLike,
    *,
    duration: float = 200.0,
    dt: float = 1.0,
    closure: Literal["gaussian", "linear"] = "gaussian",
) -> Bunch:
    r"""How much small deviations can grow before they decay.

    Dynamics that are stable but not normal amplify some patterns on the way:
    :math:`\max_t |\exp(J t)|_2` exceeds 1 (balanced amplification [1]_).

    Parameters
    ----------
    circuit, drive, closure
        As in :func:`~ssn_estimators.inspection.jacobian`.
    duration, dt : float, default=200.0 and 1.0
        Times at which to look, in ms.

    Returns
    -------
    transient : Bunch
        `amplification` and `time` (ms) of the peak, of shape (n_inputs,); the `pattern` of
        shape (n_inputs, n_neurons), of norm 1, that grows by as much, and the `response` that it
        has become. NaN for inputs without a stable stationary state.

    References
    ----------
    .. [1] Murphy & Miller (2009). Balanced amplification: a new mechanism of selective
       amplification of neural activity patterns. Neuron 61, 635-648.
    """
    if not isinstance(dt, Real) or not isinstance(duration, Real) or not 0 < dt <= duration:
        raise ValueError(f"dt and duration must be 0 < dt <= duration, got {dt!r}, {duration!r}.")
    n_times = count_steps(duration, dt, "duration") + 1
    matrices = jacobian(circuit.to_numpy(), drive, closure=closure).astype(float)
    n_inputs, n = matrices.shape[:2]
    shapes = {"amplification": (), "time": (), "pattern": (n,), "response": (n,)}
    found = Bunch(**{name: np.full((n_inputs, *shape), np.nan) for name, shape in shapes.items()})
    for i, matrix in enumerate(matrices):
        if not np.isfinite(matrix).all():
            continue
        step, now = expm(matrix * dt), np.eye(n)
        found.amplification[i] = 0.0
        for k in range(n_times):
            left, values, right = np.linalg.svd(now)
            if values[0] > found.amplification[i]:
                found.amplification[i], found.time[i] = values[0], k * dt
                found.pattern[i], found.response[i] = right[0], values[0] * left[:, 0]
            now = step @ now
    return found


@made_on_cpu
def ei_balance(
    circuit: Circuit, drive: ArrayLike, *, closure: Literal["gaussian", "linear"] = "gaussian"
) -> Bunch:
    r"""Excitation and inhibition of every cell in the stationary state, and how they cancel.

    Parameters
    ----------
    circuit, drive, closure
        As in :func:`~ssn_estimators.inspection.jacobian`.

    Returns
    -------
    balance : Bunch
        `excitation` (recurrent, and external where positive) and `inhibition` (negative), in mV,
        and `index` = \|excitation + inhibition\| / (excitation - inhibition), from 0, where they
        cancel, to 1, where there is only one of them; all of shape (n_inputs, n_neurons). NaN for
        inputs without a stable stationary state.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import ei_balance
    >>> pair = Circuit([[1.25, -0.65], [1.2, -0.5]], n_excitatory=1, noise_factor=0.2)
    >>> ei_balance(pair, [[5.0, 5.0]]).index.round(2)
    array([[0.2 , 0.31]])
    """
    circuit, drive = circuit.to_numpy(), _float_drive(circuit, drive)
    tensors = circuit.to_torch()
    moments = moments_of_potentials(tensors, drive, closure)
    variance = moments.covariance.diagonal(dim1=1, dim2=2)
    rates = mean_activity(moments.mean, variance, tensors, closure)[0]
    rates = np.where(moments.converged.numpy()[:, None], rates.numpy(), np.nan).astype(float)
    excitatory, weights = circuit.signs > 0, circuit.weights.astype(float)
    excitation = rates[:, excitatory] @ weights[:, excitatory].T + np.maximum(drive, 0)
    inhibition = rates[:, ~excitatory] @ weights[:, ~excitatory].T + np.minimum(drive, 0)
    size = excitation - inhibition
    with np.errstate(invalid="ignore"):
        index = np.abs(excitation + inhibition) / np.where(size == 0, np.nan, size)
    return Bunch(excitation=excitation, inhibition=inhibition, index=index)


def _float_drive(circuit, drive):
    return circuit.check_drive(drive, dtype=torch.float64).numpy()
