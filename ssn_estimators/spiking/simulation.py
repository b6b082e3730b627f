"""What a spiking network did: spikes and outputs of trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SpikingSimulation"]


@dataclass(frozen=True, eq=False)
class SpikingSimulation:
    """What a spiking network did.

    Attributes
    ----------
    drive : ndarray of shape (n_conditions, n_trials, n_times, n_neurons)
        Synaptic drive u at `times`, in units of the threshold.
    times : ndarray of shape (n_times,)
        In ms from the end of the cue.
    spike_times : ndarray of shape (n_spikes,)
        In ms from the end of the cue, spikes before it included.
    spike_conditions, spike_trials, spike_neurons : ndarrays of shape (n_spikes,), int
        Whose they are.
    n_excitatory : int
        The first cells are excitatory.
    """

    drive: np.ndarray
    times: np.ndarray
    spike_times: np.ndarray
    spike_conditions: np.ndarray
    spike_trials: np.ndarray
    spike_neurons: np.ndarray
    n_excitatory: int

    def counts(self, bin_width=None):
        """Spike counts after the cue.

        Parameters
        ----------
        bin_width : float, default=None
            In ms; None counts in one bin.

        Returns
        -------
        counts : ndarray of shape (n_conditions, n_trials, n_bins, n_neurons), int
            Spikes in whole bins.
        """
        n_conditions, n_trials, _, n = self.drive.shape
        width = self.times[-1] if bin_width is None else bin_width
        if not 0 < width <= self.times[-1] * (1 + 1e-9):
            raise ValueError(
                f"bin_width must be positive and at most {self.times[-1]:g} ms, got {bin_width!r}."
            )
        n_bins = int(self.times[-1] / width + 1e-9)
        bins = np.floor(self.spike_times / width + 1e-9).astype(int)
        chosen = (bins >= 0) & (bins < n_bins)
        place = (self.spike_conditions, self.spike_trials, bins, self.spike_neurons)
        shape = (n_conditions, n_trials, n_bins, n)
        flat = np.ravel_multi_index(tuple(x[chosen] for x in place), shape)
        return np.bincount(flat, minlength=np.prod(shape)).reshape(shape)

    def rates(self):
        """Mean rates after the cue in Hz, ndarray of shape (n_neurons,)."""
        return 1000 * self.counts().mean((0, 1, 2)) / self.times[-1]
