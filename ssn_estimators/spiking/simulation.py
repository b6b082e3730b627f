"""What a spiking network did: spikes and outputs of trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ssn_estimators._tables import neo_with_units

if TYPE_CHECKING:
    from typing import Any

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
    start : float or None
        When trials begin, burn-in and cue included, in ms from the end of the cue, if known.
    """

    drive: np.ndarray
    times: np.ndarray
    spike_times: np.ndarray
    spike_conditions: np.ndarray
    spike_trials: np.ndarray
    spike_neurons: np.ndarray
    n_excitatory: int
    start: float | None = None

    @property
    def populations(self) -> dict[str, int]:
        """Cell types in the order of the cells, and how many cells each has."""
        return {"E": self.n_excitatory, "I": self.drive.shape[3] - self.n_excitatory}

    def counts(self, bin_width: float | None = None) -> np.ndarray:
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

    def rates(self) -> np.ndarray:
        """Mean rates after the cue in Hz, ndarray of shape (n_neurons,)."""
        return 1000 * self.counts().mean((0, 1, 2)) / self.times[-1]

    def to_neo(self) -> Any:
        """Spikes as other tools of electrophysiology take them, with units.

        Returns
        -------
        block : neo.Block
            With a Segment for each condition and trial, condition by condition, which is annotated
            with both (`condition`, `trial`) and has a SpikeTrain for each cell, silent ones
            included. Trains are in ms from the end of the cue, from `start` (if that is not known,
            from the first spike of all, or 0 if that is later) to the last of the `times`; they are
            annotated with the number of the cell (`neuron`) and its type (`population`, "E" or
            "I").

        Raises
        ------
        ImportError
            If there is no neo.

        Examples
        --------
        >>> trains = simulation.to_neo().segments[0].spiketrains  # doctest: +SKIP
        """
        neo, units = neo_with_units()
        n_conditions, n_trials, _, n = self.drive.shape
        start = min(0.0, self.spike_times.min(initial=0.0)) if self.start is None else self.start
        span = {"t_start": start * units.ms, "t_stop": self.times[-1] * units.ms}
        types = np.repeat(list(self.populations), list(self.populations.values()))
        # spikes of a cell in a trial lie side by side, in order
        owner = (self.spike_conditions, self.spike_trials, self.spike_neurons)
        flat = np.ravel_multi_index(owner, (n_conditions, n_trials, n))
        order = np.lexsort((self.spike_times, flat))
        ends = np.cumsum(np.bincount(flat, minlength=n_conditions * n_trials * n))
        trains = iter(np.split(self.spike_times[order], ends[:-1]))
        block = neo.Block(name="spikes of a simulation")
        for condition, trial in np.ndindex(n_conditions, n_trials):
            segment = neo.Segment(index=len(block.segments), condition=condition, trial=trial)
            for i, kind in enumerate(types):
                owner = {"neuron": i, "population": str(kind)}
                train = neo.SpikeTrain(next(trains), units="ms", **span, **owner)
                segment.spiketrains.append(train)
            block.segments.append(segment)
        return block
