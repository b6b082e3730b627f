"""Linear stability of a circuit, and how far the closures can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_random_state

from ssn_estimators.simulation import simulate
from ssn_estimators.simulation.closure import mean_activity
from ssn_estimators.simulation.moments import stationary_moments

__all__ = ["ClosureBias", "closure_bias", "jacobian", "spectral_abscissa"]


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
    moments = stationary_moments(tensors, drive, closure=closure)
    variance = moments.covariance.diagonal(dim1=1, dim2=2)
    gain = mean_activity(moments.mean, variance, circuit.k, circuit.gamma, closure)[1]
    weights = tensors.weights
    tau = torch.as_tensor(circuit.tau).to(weights)
    matrix = (weights * gain[:, None] - torch.eye(len(weights)).to(weights)) / tau[:, None]
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


@dataclass(frozen=True, eq=False)
class ClosureBias:
    """What :func:`closure_bias` found, NumPy arrays of shape (n_inputs,).

    Each is the root mean square over cells (or pairs of cells) relative to that of the
    simulated moment.

    Attributes
    ----------
    mean, variance, covariance : ndarray of shape (n_inputs,)
        Differences between closure and simulation; NaN where either found no stationary
        activity.
    mean_error, variance_error, covariance_error : ndarray of shape (n_inputs,)
        Sampling errors of the simulation, from the difference of its two halves. The bias
        proper is about ``sqrt(mean**2 - mean_error**2)``.
    diverged : ndarray of shape (n_inputs,)
        Share of trials that diverged, which the simulated moments leave out.
    """

    mean: np.ndarray
    variance: np.ndarray
    covariance: np.ndarray
    mean_error: np.ndarray
    variance_error: np.ndarray
    covariance_error: np.ndarray
    diverged: np.ndarray

    def __str__(self):
        """Medians over inputs, a line for each moment."""
        rows = ["Relative difference of closure and simulation, median over inputs (+- sampling)"]
        for name in ("mean", "variance", "covariance"):
            values = [np.nanmedian(getattr(self, x)) for x in (name, f"{name}_error")]
            rows.append(f"{name:>10}: {values[0]:.4f} +- {values[1]:.4f}")
        return "\n".join(rows)


def closure_bias(
    circuit, drive, *, closure="gaussian", n_trials=100, random_state=None, **simulate_parameters
):
    """Errors of a closure's moments, judged by simulation.

    Parameters
    ----------
    circuit : Circuit
    drive : array of shape (n_inputs, n_neurons)
        External drive f(h) in mV.
    closure : {"gaussian", "linear"}, default="gaussian"
        See :func:`~ssn_estimators.stationary_moments`.
    n_trials : int, default=100
        Trials of every input, an even number: they are simulated in two independent halves.
    random_state : int, RandomState instance or None, default=None
        Source of the noise.
    **simulate_parameters
        Further parameters of :func:`~ssn_estimators.simulate`. Burn-in should exceed the
        time that the circuit needs to become stationary.

    Returns
    -------
    bias : ClosureBias

    Raises
    ------
    ValueError
        If `n_trials` is not an even number, or another parameter is not legal.
    """
    if not isinstance(n_trials, Integral) or n_trials < 2 or n_trials % 2:
        raise ValueError(f"n_trials must be a positive even integer, got {n_trials!r}.")
    circuit, rng = circuit.to_numpy(), check_random_state(random_state)
    if torch.is_tensor(drive):
        drive = drive.detach().cpu().numpy()
    moments = stationary_moments(circuit, drive, closure=closure)
    parameters = {"n_trials": n_trials // 2, "rates": False, **simulate_parameters}
    halves = [simulate(circuit, drive, random_state=rng, **parameters) for _ in range(2)]
    return compare_moments(moments, halves)


def compare_moments(moments, halves):
    """Bias of stationary moments against a simulation in two halves, as `closure_bias`."""
    outcome = {"diverged": np.concatenate([half.diverged for half in halves], axis=1).mean(1)}
    for name in ("mean", "variance", "covariance"):
        expected, first, second = (_moment(x, name) for x in (moments, *halves))
        simulated = (first + second) / 2
        size = _rms(simulated)
        outcome[name] = _rms(expected - simulated) / size
        outcome[f"{name}_error"] = _rms(first - second) / 2 / size
    return ClosureBias(**outcome)


def _moment(moments, name):
    if name == "variance":
        return np.diagonal(moments.covariance, axis1=1, axis2=2)
    return getattr(moments, name)


def _rms(x):
    return np.sqrt((x.astype(float) ** 2).reshape(len(x), -1).mean(1))
