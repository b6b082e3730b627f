"""Statistics of spike trains, and of what training has done to a spiking network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from ssn_estimators._typing import ArrayLike
    from ssn_estimators.spiking.regressor import SpikingRegressor
    from ssn_estimators.spiking.simulation import SpikingSimulation

__all__ = [
    "coupling_drift",
    "coupling_spectrum",
    "dale_violations",
    "fano_factor",
    "isi_cv",
    "paradoxical_response",
]


def fano_factor(simulation: SpikingSimulation, *, window: float = 100.0) -> np.ndarray:
    """Variance over mean of spike counts, across trials.

    Parameters
    ----------
    simulation : SpikingSimulation
        With several trials.
    window : float, default=100.0
        Time in which spikes are counted, in ms.

    Returns
    -------
    fano : ndarray of shape (n_neurons,)
        Both summed over conditions and windows; 1 for a Poisson process, NaN for silent cells.
    """
    counts = simulation.counts(window)
    if counts.shape[1] < 2:
        raise ValueError("a Fano factor is over trials: simulate at least 2.")
    mean, variance = counts.mean(1), counts.var(1, ddof=1)
    with np.errstate(invalid="ignore"):
        return variance.sum((0, 1)) / mean.sum((0, 1))


def isi_cv(simulation: SpikingSimulation) -> np.ndarray:
    """Coefficient of variation of the intervals between spikes.

    Parameters
    ----------
    simulation : SpikingSimulation
        With its spikes.

    Returns
    -------
    cv : ndarray of shape (n_neurons,)
        That of all intervals after the cue; 1 for a Poisson process, NaN for cells with fewer
        than three intervals.
    """
    after = simulation.spike_times >= 0
    owner = (simulation.spike_conditions, simulation.spike_trials, simulation.spike_neurons)
    condition, trial, neuron = (x[after] for x in owner)
    times = simulation.spike_times[after]
    order = np.lexsort((times, trial, condition, neuron))
    same = np.ones(max(len(order) - 1, 0), bool)
    for x in (condition, trial, neuron):
        same &= np.diff(x[order]) == 0
    intervals, cell = np.diff(times[order])[same], neuron[order][1:][same]
    n = simulation.drive.shape[3]
    count, total, squares = (
        np.bincount(cell, weights=w, minlength=n) for w in (None, intervals, intervals**2)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count
        cv = np.sqrt(np.maximum(squares / count - mean**2, 0)) / mean
    return np.where(count >= 3, cv, np.nan)


def _blocks(network):
    """Which trained synapses come from E, and which from I cells."""
    check_is_fitted(network)
    excitatory = network.plastic_weights_.sources < network.n_excitatory_
    return {"excitatory": excitatory, "inhibitory": ~excitatory}


def dale_violations(network: SpikingRegressor) -> Bunch:
    """Share of trained synapses whose sign is not that of their presynaptic cell.

    Parameters
    ----------
    network : SpikingRegressor
        Fitted.

    Returns
    -------
    shares : :class:`~sklearn.utils.Bunch`
        With the floats `excitatory` and `inhibitory`.
    """
    blocks, signs = _blocks(network), {"excitatory": 1, "inhibitory": -1}
    weights = network.plastic_weights_.weights
    return Bunch(**{k: float((signs[k] * weights[own] < 0).mean()) for k, own in blocks.items()})


def coupling_drift(network: SpikingRegressor) -> Bunch:
    """Mean change of the sum of a cell's trained weights from E, and from I cells.

    Parameters
    ----------
    network : SpikingRegressor
        Fitted.

    Returns
    -------
    drift : :class:`~sklearn.utils.Bunch`
        With the floats `excitatory` and `inhibitory`, over the size of the sum at the start.
    """
    drift, blocks = {}, _blocks(network)
    now, start = network.plastic_weights_.weights, network.initial_weights_
    for name, own in blocks.items():
        change = np.where(own, now - start, 0).sum(1).mean()
        drift[name] = float(change / np.abs(np.where(own, start, 0).sum(1)).mean())
    return Bunch(**drift)


def coupling_spectrum(network: SpikingRegressor, *, trained: bool = True) -> np.ndarray:
    """Eigenvalues of the matrix of all weights.

    Parameters
    ----------
    network : SpikingRegressor
        Fitted.
    trained : bool, default=True
        Whether with the trained or with the initial weights.

    Returns
    -------
    eigenvalues : ndarray of shape (n_neurons,), complex
        In ms: what a change of rates (per ms) does to the drives.
    """
    check_is_fitted(network)
    plastic = network.plastic_weights_
    weights = plastic.weights if trained else network.initial_weights_
    matrix = np.zeros((len(plastic.sources),) * 2)
    np.put_along_axis(matrix, plastic.sources, weights, axis=1)
    if network.static_weights_ is not None:
        matrix += network.static_weights_.dense()
    return np.linalg.eigvals(matrix)


def paradoxical_response(
    network: SpikingRegressor,
    X: ArrayLike | None = None,
    *,
    increase: float = 0.1,
    n_trials: int = 8,
    random_state: int = 0,
) -> Bunch:
    """Change of rates when I cells get more external input.

    In a network that only inhibition stabilises the rates of I cells then *fall*, as they
    lose more excitation than they gain input.

    Parameters
    ----------
    network : SpikingRegressor
        Fitted.
    X : None or array-like, default=None
        Cue currents, as in `fit`.
    increase : float, default=0.1
        How much the external input of I cells is raised, as a share of it.
    n_trials : int, default=8
        Trials of each condition.
    random_state : int, default=0
        Seed of the initial potentials, the same in both simulations.

    Returns
    -------
    change : :class:`~sklearn.utils.Bunch`
        With the floats `excitatory` and `inhibitory`, in Hz.
    """
    check_is_fitted(network)
    n_e = network.n_excitatory_
    more = increase * network.external_input_ * (np.arange(network.n_features_in_) >= n_e)
    before, after = (
        network.simulate(X, n_trials=n_trials, external=e, random_state=random_state).rates()
        for e in (0.0, more)
    )
    change = after - before
    return Bunch(excitatory=float(change[:n_e].mean()), inhibitory=float(change[n_e:].mean()))
