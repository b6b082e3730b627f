"""Where a circuit without noise settles, for many inputs at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, gmres
from sklearn.utils import gen_batches

from ssn_estimators._threads import share_out
from ssn_estimators._torch import to_numbers
from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.simulation.reference import velocity

if TYPE_CHECKING:
    from ssn_estimators._typing import ArrayLike
    from ssn_estimators.circuit import Circuit

__all__ = [
    "SteadyStates",
    "checked_drive",
    "eigenvalues",
    "in_double",
    "is_near",
    "newton",
    "solved",
    "steady_states",
    "too_far",
]

STRETCH = 10  # slowest time constants, of the first relaxation; later ones are longer
LONGEST = 200  # of them, of all relaxations
ACCURACY = 0.01  # of a step: difference of Euler and Heun, relative to 1 mV + the potentials
SLOW = 0.1  # relative to 1 mV + the potentials; distance from what drives them
NEAR = 0.02  # relative to 1 mV + the potentials; what Newton may still have to go
FEW = 50  # cells, of which matrices of all inputs are worked on at once
PRECISION = 1e-9  # of a Newton step, after which one more is exact
NEWTON_STEPS = 30
LINEAR, KRYLOV = 1e-10, 100  # of sparse systems: relative residual, and vectors before a restart
MOST_DENSE = 2000  # cells of which a system that GMRES does not solve is solved as a dense one
MOST_STEPS = 20_000  # of a relaxation
MOST_ENTRIES = 2**23  # of the matrices of a block of inputs


@dataclass(frozen=True, eq=False)
class SteadyStates:
    """What :func:`steady_states` found. NaN where `converged` is false.

    Attributes
    ----------
    u : ndarray of shape (n_inputs, n_neurons)
        Potentials in mV.
    rates : ndarray of shape (n_inputs, n_neurons)
        Firing rates in Hz.
    converged : ndarray of shape (n_inputs,), bool
        Whether a fixed point was found.
    stable : ndarray of shape (n_inputs,), bool
        Whether the circuit settles there. Where activity stays finite but does not settle, as in
        a limit cycle, an unstable fixed point is given if there is one to be found.
    abscissa : ndarray of shape (n_inputs,)
        Largest real part of the eigenvalues of the Jacobian, in 1/ms.
    """

    u: np.ndarray
    rates: np.ndarray
    converged: np.ndarray
    stable: np.ndarray
    abscissa: np.ndarray

    def __repr__(self):
        n_inputs, n_neurons = self.u.shape
        return (
            f"SteadyStates(n_inputs={n_inputs}, n_neurons={n_neurons}: {int(self.stable.sum())} of "
            f"{n_inputs} stable)"
        )


def steady_states(
    circuit: Circuit,
    drive: ArrayLike,
    *,
    start: ArrayLike | None = None,
    follow: bool = False,
    duration: float | None = None,
) -> SteadyStates:
    r"""Stable fixed points that the noise-free circuit settles in.

    The potentials follow :math:`\tau \dot u = -u + f(h) + W r` from `start`, by Heun's method with
    adaptive steps, until Newton's method finds a stable fixed point next to them, to machine
    precision. :func:`fixed_points` looks for all of them, stable or not.

    Parameters
    ----------
    circuit : Circuit
        The circuit.
    drive : array-like of shape (n_inputs, n_neurons)
        External drive f(h) in mV.
    start : array-like of shape (n_neurons,) or (n_inputs, n_neurons), default=None
        Potentials to start from, in mV; None means rest, u = 0.
    follow : bool, default=False
        Whether each input starts from the state of the one before it, as in a sweep: `start` is
        that of the first, and of those that follow an input without a stable state.
    duration : float, default=None
        Longest time to settle in, in ms; None means 200 times the slowest time constant.

    Returns
    -------
    states : SteadyStates
        In float64. An input on which the circuit diverges is not an error.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, or `duration` is not positive.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import steady_states
    >>> pair = Circuit([[2.5, -1.3], [2.4, -1.0]], n_excitatory=1, k=0.04)
    >>> steady_states(pair, [[5.0, 5.0], [50.0, 50.0]]).rates.round(2)
    array([[ 1.95,  2.23],
           [20.86, 61.01]])
    >>> runaway = Circuit([[2.5]], n_excitatory=1, k=0.04)
    >>> steady_states(runaway, [[50.0]])
    SteadyStates(n_inputs=1, n_neurons=1: 0 of 1 stable)
    """
    circuit = in_double(circuit)
    drive = checked_drive(circuit, drive)
    start = _checked_start(start, drive, follow)
    longest = LONGEST * circuit.tau_states.max() if duration is None else duration
    if not isinstance(longest, Real) or not 0 < longest < np.inf:
        raise ValueError(f"duration must be a finite number > 0, got {duration!r}.")
    u, abscissa = np.full_like(drive, np.nan), np.full(len(drive), np.nan)
    size = 1 if follow else max(1, MOST_ENTRIES // circuit.n_neurons**2)
    before = None
    for rows in gen_batches(len(drive), size):
        own = start[rows] if before is None else before
        u[rows], abscissa[rows] = _settled(circuit, drive[rows], own, longest)
        before = u[rows] if follow and (abscissa[rows] < 0).all() else None
    return SteadyStates(
        u=u,
        rates=circuit.rates(u),
        converged=np.isfinite(abscissa),
        stable=abscissa < 0,
        abscissa=abscissa,
    )


def in_double(circuit):
    """The circuit as NumPy arrays in float64, in the voltage form: with the same fixed points."""
    circuit = replace(circuit.to_torch(dtype=torch.float64).to_numpy(), dynamics="voltage")
    if not circuit.is_sparse or circuit.n_neurons > FEW:
        return circuit
    arrays = {name: getattr(circuit, name).toarray() for name in ("weights", "noise_factor")}
    return replace(circuit, **arrays)


def checked_drive(circuit, drive):
    """The drive of shape (n_inputs, n_neurons) as an array in float64, or why it cannot be."""
    return circuit.check_drive(drive, dtype=torch.float64).detach().cpu().numpy()


def _checked_start(start, drive, follow):
    start = np.zeros(drive.shape[1]) if start is None else to_numbers(start, float, "start")
    if start.shape not in (drive.shape[1:], drive.shape) or (follow and start.ndim > 1):
        also = "" if follow else f" or {drive.shape}"
        raise ValueError(f"start must have shape {drive.shape[1:]}{also}, got {start.shape}.")
    if not np.isfinite(start).all():
        raise ValueError("start must be finite, got NaN or infinity.")
    return np.broadcast_to(start, drive.shape)


def _settled(circuit, drive, u, longest):
    """Fixed points, and their abscissae; NaN where there is none."""
    u, state, found = u.copy(), circuit.state_at(u).copy(), np.full_like(drive, np.nan)
    abscissa, rows = np.full(len(drive), np.nan), np.arange(len(drive))
    ends = STRETCH * circuit.tau_states.max() * (2.0 ** np.arange(64) - 1)  # the first one is 0
    ends = [*ends[ends < longest], longest]
    for duration in (0.0, *(end - start for start, end in pairwise(ends))):
        state[rows] = _relaxed(circuit, drive[rows], state[rows], duration)
        u[rows] = circuit.potentials(state[rows])
        rows = rows[~too_far(u[rows])]
        # relaxing costs less than Newton's steps, in vain before
        slow = rows[_is_slow(circuit, drive[rows], u[rows])]
        point = newton(circuit, drive[slow], u[slow])
        near = is_near(point, u[slow])
        here, point = slow[near], point[near]
        own = abscissae(circuit, point)
        stable = here[own < 0]
        found[stable], abscissa[stable] = point[own < 0], own[own < 0]
        rows = np.setdiff1d(rows, stable)
        if not len(rows):
            return found, abscissa
    found[rows] = newton(circuit, drive[rows], u[rows])
    rows = rows[np.isfinite(found[rows]).all(1)]
    abscissa[rows] = abscissae(circuit, found[rows])
    return found, abscissa


def _is_slow(circuit, drive, u):
    """Where potentials are next to what drives them, for each input."""
    distance = np.abs(drive - u + circuit.recurrent(circuit.rates(u))).max(1, initial=0.0)
    return distance < SLOW * (1 + np.abs(u).max(1, initial=0.0))


def _relaxed(circuit, drive, u, duration):
    """States a while later, by Heun's method with a step length of its own for each input."""
    follow = velocity(circuit)

    def slope(u):
        return follow(u, drive)

    step, time = np.full((len(u), 1), 0.1 * circuit.tau_states.min()), np.zeros((len(u), 1))
    with np.errstate(over="ignore", invalid="ignore"):
        now = slope(u)
        for _ in range(MOST_STEPS):
            arrived = (time >= duration) | too_far(u)[:, None]
            if arrived.all():
                break
            taken = np.minimum(step, duration - time)
            correction = taken / 2 * (slope(u + taken * now) - now)
            error = np.abs(correction).max(1, keepdims=True)
            error = np.nan_to_num(error / (1 + np.abs(u).max(1, keepdims=True)), nan=np.inf)
            accepted = (error <= ACCURACY) & ~arrived
            u = np.where(accepted, u + taken * now + correction, u)
            time = time + np.where(accepted, taken, 0.0)
            # a last step that was cut short says nothing against long ones
            step = np.maximum(step * (accepted & (taken < step)), taken * _growth(error))
            now = slope(u)
    return u


def _growth(error):
    """Factor of the next step; the error of a step grows with its square."""
    return np.clip(0.8 * np.sqrt(ACCURACY / np.maximum(error, 1e-300)), 0.2, 3.0)


def too_far(u):
    """Where activity has run away, for each input."""
    return ~(np.abs(u).max(1, initial=0.0) < DIVERGENCE_THRESHOLD)


def is_near(u, other):
    """Whether states are next to each other, for each input; never if one is NaN."""
    return np.abs(u - other).max(1, initial=0.0) < NEAR * (1 + np.abs(other).max(1, initial=0.0))


def newton(circuit, drive, u):
    """Fixed points by Newton's method, each from the potentials given; NaN where it fails."""
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(NEWTON_STEPS):
            residual = drive - u + circuit.recurrent(circuit.rates(u))
            change = newton_step(circuit, u, residual)
            u = u + change
            size = np.abs(change).max(1, initial=0.0)
            arrived = size < PRECISION * (1 + np.abs(u).max(1, initial=0.0))
            if (arrived | too_far(u)).all():
                break
        residual = drive - u + circuit.recurrent(circuit.rates(u))
        u = u + newton_step(circuit, u, residual)
    return np.where((arrived & ~too_far(u))[:, None], u, np.nan)


def newton_step(circuit, u, residual):
    """Change of potentials that makes a residual vanish, to first order; NaN without one."""
    gain = circuit.gain(u)
    if not circuit.is_sparse:
        return _dense_step(circuit.weights, gain, residual)
    steps = np.full_like(u, np.nan)
    for step, own, right in zip(steps, gain, residual, strict=True):
        if not np.isfinite(right).all():
            continue

        def product(x, own=own):
            return x - circuit.recurrent(own * x)

        matrix = LinearOperator((len(right), len(right)), matvec=product, dtype=float)
        found, failed = gmres(matrix, right, rtol=LINEAR, restart=KRYLOV, maxiter=10)
        if not failed:
            step[:] = found
        elif len(right) <= MOST_DENSE:
            step[:] = _dense_step(circuit.weights.toarray(), own[None], right[None])[0]
    return steps


def _dense_step(weights, gain, residual):
    matrices = np.eye(len(weights)) - weights * gain[:, None]
    return solved(matrices, residual[..., None])[..., 0]


def abscissae(circuit, u):
    """Largest real parts of the eigenvalues of the Jacobian, in 1/ms; NaN if they are not found."""
    if not circuit.is_sparse:
        return eigenvalues(circuit, u).real.max(1, initial=-np.inf)
    return np.array([_abscissa(circuit, own) for own in circuit.gain(u)])


def _abscissa(circuit, gain):
    """The largest of those of groups of cells that act on each other.

    Between groups, influence goes one way, which leaves the eigenvalues alone but leads Krylov
    methods astray: of a chain of cells they find some that are none.
    """
    rate, n = 1 / circuit.tau_states, circuit.n_neurons
    acting = circuit.weights * gain
    acting.eliminate_zeros()
    _, groups = connected_components(acting, connection="strong")
    loops = acting.diagonal()
    is_single = np.bincount(groups)[groups] == 1
    if circuit.receptors is None:
        is_done = is_single
        found = [((loops - 1) * rate)[is_done].max(initial=-np.inf)]
    else:
        is_done = is_single & (loops == 0)
        found = [-rate.min()] if is_done.any() else []

    def product(x):
        x = x.ravel()
        if circuit.receptors is None:
            return (circuit.recurrent(gain * x) - x) * rate
        rates = gain * circuit.potentials(x)
        same = [0 * rates, *[rates] * len(circuit.receptors.tau)]
        return (np.concatenate(same) - x) * rate

    for group in np.unique(groups[~is_done]):
        cells = np.flatnonzero(groups == group)
        states = (np.arange(circuit.n_states // n)[:, None] * n + cells).ravel()

        def within(x, states=states):
            whole = np.zeros(circuit.n_states)
            whole[states] = x.ravel()
            return product(whole)[states]

        found.append(_leading(within, len(states)))
    return np.max(found)


def _leading(product, n):
    """Largest real part of the eigenvalues of a matrix that is known by its products."""
    if n <= FEW:
        return np.linalg.eigvals(np.stack([product(x) for x in np.eye(n)], 1)).real.max()
    matrix = LinearOperator((n, n), matvec=product, dtype=float)
    start = np.random.RandomState(0).standard_normal(n)
    try:
        return eigs(matrix, 1, which="LR", v0=start, tol=1e-8, return_eigenvectors=False).real[0]
    except ArpackNoConvergence:
        return np.nan


def solved(matrices, right):
    """Solutions of systems of equations, NaN for a singular one."""
    try:
        return np.linalg.solve(matrices, right)
    except np.linalg.LinAlgError:
        if len(matrices) == 1:
            return np.full(right.shape, np.nan)
        parts = zip(matrices, right, strict=True)
        return np.concatenate([solved(matrix[None], own[None]) for matrix, own in parts])


def eigenvalues(circuit, u):
    """Eigenvalues of the Jacobian at potentials of shape (n_inputs, n_neurons), in 1/ms."""
    jacobians = circuit.jacobian(circuit.gain(u))
    if circuit.n_states <= FEW:
        return np.linalg.eigvals(jacobians)
    # what acts on nothing else, such as silent cells, or is acted on by nothing, such as external
    # input, adds its own entry, and the rest has a smaller matrix
    values = jacobians.diagonal(axis1=1, axis2=2).astype(complex)
    coupled = (jacobians != 0) & ~np.eye(circuit.n_states, dtype=bool)
    active = coupled.any(1) & coupled.any(2)
    matrices = [x[np.ix_(own, own)] for x, own in zip(jacobians, active, strict=True)]
    found = share_out(np.linalg.eigvals, matrices)
    for own, here, some in zip(values, active, found, strict=True):
        own[here] = some
    return values
