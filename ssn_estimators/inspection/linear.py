"""Linear stability of a circuit: at its stationary state, and wherever else it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.utils import Bunch, gen_batches

from ssn_estimators._torch import made_on_cpu, to_numbers
from ssn_estimators.inspection.steady_states import MOST_ENTRIES, eigenvalues, in_double
from ssn_estimators.stationary.closure import mean_activity
from ssn_estimators.stationary.moments import moments_of_potentials

if TYPE_CHECKING:
    from typing import Literal

    from ssn_estimators._typing import Array, ArrayLike
    from ssn_estimators.circuit import Circuit

__all__ = ["jacobian", "local_dynamics", "spectral_abscissa"]


@made_on_cpu
def jacobian(
    circuit: Circuit, drive: ArrayLike, *, closure: Literal["gaussian", "linear"] = "gaussian"
) -> Array:
    r"""Jacobian of the mean potentials at the stationary state.

    :math:`J = T^{-1} (W \mathrm{diag}(E[dr/du]) - I)`, which a small deviation of the mean
    follows, :math:`\dot{\delta u} = J \delta u`, at fixed variances. In the rate form it is that of
    the mean rates, :math:`T^{-1} (\mathrm{diag}(E[dr/du]) W - I)`, with the same eigenvalues.

    Parameters
    ----------
    circuit : Circuit
        With tensors, the Jacobian can be differentiated.
    drive : array of shape (n_inputs, n_neurons)
        External drive f(h) in mV.
    closure : {"gaussian", "linear"}, default="gaussian"
        Whether gains are averaged over the noise, or those at the noise-free fixed point; see
        :func:`~ssn_estimators.stationary_moments`.

    Returns
    -------
    jacobian : array of shape (n_inputs, n_neurons, n_neurons)
        In 1/ms, of the kind of the circuit's arrays; NaN for inputs without a stable
        stationary state.

    Raises
    ------
    ValueError
        If the closure is not known or `drive` has the wrong shape or is not finite.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import jacobian
    >>> cell = Circuit([[0.0]], n_excitatory=1, noise_factor=1.0)
    >>> jacobian(cell, [[2.0]])
    array([[[-0.05]]])
    """
    tensors = circuit.to_torch()
    moments = moments_of_potentials(tensors, drive, closure)
    variance = moments.covariance.diagonal(dim1=1, dim2=2)
    matrix = tensors.jacobian(mean_activity(moments.mean, variance, tensors, closure)[1])
    matrix = torch.where(moments.converged[:, None, None], matrix, torch.nan)
    return matrix if torch.is_tensor(circuit.weights) else matrix.detach().numpy()


def spectral_abscissa(
    circuit: Circuit, drive: ArrayLike, *, closure: Literal["gaussian", "linear"] = "gaussian"
) -> Array:
    """Largest real part of the eigenvalues of :func:`jacobian`.

    Its distance from 0 is the margin of stability, and its inverse the time in which the
    slowest deviation decays.

    Parameters
    ----------
    circuit, drive, closure
        As in :func:`jacobian`.

    Returns
    -------
    abscissa : array of shape (n_inputs,)
        In 1/ms, below 0; NaN for inputs without a stable stationary state.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import spectral_abscissa
    >>> cell = Circuit([[0.0]], n_excitatory=1, noise_factor=1.0)
    >>> spectral_abscissa(cell, [[2.0]])
    array([-0.05])
    """
    matrix = jacobian(circuit.to_torch(), drive, closure=closure)
    found = torch.isfinite(matrix).flatten(1).all(1)  # LAPACK aborts on NaN
    abscissa = matrix.new_full((len(matrix),), torch.nan)
    abscissa[found] = torch.linalg.eigvals(matrix[found]).real.amax(1)
    return abscissa if torch.is_tensor(circuit.weights) else abscissa.detach().numpy()


def local_dynamics(circuit: Circuit, u: ArrayLike, *, spectrum: bool = False) -> Bunch:
    r"""How small deviations grow, decay and turn at given potentials, such as along a trajectory.

    The eigenvalues :math:`\lambda` of the Jacobian there; of the leading one, that with the largest
    real part, how fast and whether it turns. Away from fixed points, these say how two
    trajectories that are close part or meet, at that moment.

    Parameters
    ----------
    circuit : Circuit
        Noise plays no part.
    u : array-like of shape (..., n_neurons)
        Potentials in mV: of a simulation (n_steps, n_inputs, n_trials, n_neurons), of fixed points
        (n_points, n_neurons), or any others.
    spectrum : bool, default=False
        Whether all eigenvalues are wanted.

    Returns
    -------
    local : :class:`~sklearn.utils.Bunch`
        `abscissa` of shape (...), the real part of the leading eigenvalue in 1/ms;
        `time_constant`, -1 / abscissa in ms, in which a deviation decays to 1/e, or grows by e
        where it is negative; `frequency`, its imaginary part in Hz, 0 where nothing turns; and
        `eigenvalues` of shape (..., n_states) in 1/ms, the leading one first, if asked for. NaN
        where potentials are not finite, as those of trials that have diverged.

    Raises
    ------
    ValueError
        If `u` has the wrong shape, or weights are sparse.

    See Also
    --------
    fixed_points : With the same measures of each.
    spectral_abscissa : At the stationary state of an input.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import local_dynamics
    >>> cell = Circuit([[0.5]], n_excitatory=1, noise_factor=0.0)
    >>> local_dynamics(cell, [[0.0], [2.0], [5.0]]).time_constant.round(1)
    array([ 20.,  50., -40.])
    """
    circuit.dense("eigenvalues along trajectories")
    circuit, u = in_double(circuit), to_numbers(u, float, "u")
    if not u.ndim or u.shape[-1] != circuit.n_neurons:
        raise ValueError(f"u must have shape (..., {circuit.n_neurons}), got {u.shape}.")
    flat = u.reshape(-1, circuit.n_neurons)
    values = np.full((len(flat), circuit.n_states), complex(np.nan, np.nan))
    finite = np.isfinite(flat).all(1).nonzero()[0]  # LAPACK aborts on NaN
    size = max(1, MOST_ENTRIES // circuit.n_states**2)
    for rows in gen_batches(len(finite), size) if len(finite) else ():
        found = eigenvalues(circuit, flat[finite[rows]])
        order = np.argsort(-found.real, axis=1, kind="stable")
        values[finite[rows]] = np.take_along_axis(found, order, axis=1)
    values = values.reshape(*u.shape[:-1], circuit.n_states)
    leading = values[..., 0]
    with np.errstate(divide="ignore"):
        return Bunch(
            abscissa=leading.real,
            time_constant=-1 / leading.real,
            frequency=np.abs(leading.imag) * 1000 / (2 * np.pi),
            **({"eigenvalues": values} if spectrum else {}),
        )
