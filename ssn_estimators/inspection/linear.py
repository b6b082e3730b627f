"""Linear stability of a circuit at its stationary state."""

from __future__ import annotations

import torch

from ssn_estimators.stationary.closure import mean_activity
from ssn_estimators.stationary.moments import moments_of_potentials

__all__ = ["jacobian", "spectral_abscissa"]


def jacobian(circuit, drive, *, closure="gaussian"):
    r"""Jacobian of the mean potentials at the stationary state.

    :math:`J = T^{-1} (W \mathrm{diag}(E[dr/du]) - I)`, which a small deviation of the mean
    follows, :math:`\dot{\delta u} = J \delta u`, at fixed variances.

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


def spectral_abscissa(circuit, drive, *, closure="gaussian"):
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
