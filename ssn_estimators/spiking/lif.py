"""Networks of leaky integrate-and-fire cells with sparse synapses, step by step."""

from __future__ import annotations

import numpy as np

__all__ = ["LIFState", "Synapses", "random_synapses"]

LARGEST = 2**21  # random numbers at once
THRESHOLD = 1.0  # potentials are in units of it, from the reset at 0


class Synapses:
    """As many synapses onto every cell.

    Parameters
    ----------
    sources : ndarray of shape (n_neurons, n_inputs), int
        The presynaptic cells of each cell, all different.
    weights : ndarray of shape (n_neurons, n_inputs)
        Their weights, in ms: what a spike adds to the filtered drive is this over the time
        constant of the filter.
    """

    def __init__(self, sources, weights):
        self.sources = sources
        n_neurons, n_inputs = sources.shape
        # sorted by source, as a spike reaches its targets; small integers, as there are many
        order = np.argsort(sources, axis=None, kind="stable")
        self._order = order.astype(np.min_scalar_type(order.size))
        self._targets = (order // max(n_inputs, 1)).astype(sources.dtype)
        self._ends = np.searchsorted(sources.ravel()[order], np.arange(n_neurons + 1))
        self.weights = weights

    @property
    def weights(self):
        return self._weights

    @weights.setter
    def weights(self, value):
        self._weights = value
        self._sorted = value.ravel()[self._order]

    def deliver(self, drive, spikes, tau):
        """Add what spikes do to the drive.

        Parameters
        ----------
        drive : ndarray of shape (n_trials, n_neurons)
        spikes : list of int
            Flat indices of the cells that spike.
        tau : float
            Time constant of the drive, in ms.
        """
        n = drive.shape[1]
        for spike in spikes:
            trial, source = divmod(spike, n)
            own = slice(self._ends[source], self._ends[source + 1])
            drive[trial, self._targets[own]] += self._sorted[own] / tau

    def dense(self):
        """Weights as a matrix, W[post, pre]."""
        matrix = np.zeros((len(self.sources),) * 2)
        np.put_along_axis(matrix, self.sources, self.weights, axis=1)
        return matrix


def random_synapses(n_neurons, groups, weights, rng):
    """Synapses from randomly chosen cells.

    Parameters
    ----------
    n_neurons : int
        Number of postsynaptic cells.
    groups : list of (ndarray, int)
        Presynaptic cells, and how many of them, but not all, to choose for each cell; never
        itself.
    weights : ndarray of shape (n_neurons, n_groups)
        Weight of all synapses of a cell from a group.
    rng : RandomState

    Returns
    -------
    synapses : Synapses
        Group after group.
    """
    n_inputs = [n for _, n in groups]
    sources = np.empty((n_neurons, sum(n_inputs)), np.min_scalar_type(n_neurons))
    for (cells, n_chosen), last in zip(groups, np.cumsum(n_inputs), strict=True):
        size = max(1, LARGEST // len(cells))
        for first in range(0, n_neurons, size):
            rows = np.arange(first, min(first + size, n_neurons))
            keys = rng.random_sample((len(rows), len(cells)))
            keys[rows[:, None] == cells] = 2.0  # itself comes last
            chosen = np.sort(np.argsort(keys, axis=1)[:, :n_chosen], axis=1)
            sources[rows, last - n_chosen : last] = cells[chosen]
    return Synapses(sources, np.repeat(weights, n_inputs, axis=1))


class LIFState:
    r"""Trials of a network of leaky integrate-and-fire cells, by Euler steps.

    .. math::
        \tau_m \dot v = -v + I + u, \qquad
        u = u_\mathrm{static} + u_\mathrm{plastic}, \qquad
        \tau_s \dot u_s = -u_s + W_s \sum_k \delta(t - t_k);

    a cell that passes the threshold, 1, spikes and starts again from 0.

    Parameters
    ----------
    static, plastic : Synapses
    tau_m, tau_static, tau_plastic, dt : float
        In ms.
    n_trials : int
        Trials side by side.
    rng : RandomState
        Source of the potentials at the start, between reset and threshold.
    """

    def __init__(self, static, plastic, *, tau_m, tau_static, tau_plastic, dt, n_trials, rng):
        self.static, self.plastic = static, plastic
        self.tau_m, self.tau_static, self.tau_plastic = tau_m, tau_static, tau_plastic
        self.dt = dt
        shape = (n_trials, len(plastic.sources))
        self.v = rng.random_sample(shape)
        self.static_drive, self.plastic_drive = np.zeros(shape), np.zeros(shape)
        self.trace = np.zeros(shape)  # spike trains filtered with tau_plastic, per ms

    @property
    def drive(self):
        """Synaptic drive u, shape (n_trials, n_neurons)."""
        return self.static_drive + self.plastic_drive

    def plastic_traces(self):
        """Filtered spike trains at the plastic synapses of the first trial."""
        return self.trace[0][self.plastic.sources]

    def set_plastic_weights(self, weights):
        """Change them, and with them what earlier spikes still do."""
        self.plastic.weights = weights
        self.plastic_drive = np.stack(
            [(weights * r[self.plastic.sources]).sum(1) for r in self.trace]
        )

    def advance(self, n_steps, current):
        """Go on for some steps.

        Parameters
        ----------
        n_steps : int
        current : ndarray of shape (n_neurons,)
            I of every cell.

        Returns
        -------
        steps, spikes : ndarrays of shape (n_spikes,), int
            When, in steps from here, and the flat index (trial, cell) of the cell.
        """
        v, static, plastic, trace = self.v, self.static_drive, self.plastic_drive, self.trace
        to_v = self.dt / self.tau_m
        keep_static, keep_plastic = 1 - self.dt / self.tau_static, 1 - self.dt / self.tau_plastic
        has_static = self.static.weights.size > 0
        steps, spikes, change = [], [], np.empty_like(v)
        flat_v, flat_trace = v.reshape(-1), trace.reshape(-1)
        for step in range(n_steps):
            np.subtract(plastic, v, out=change)
            change += current
            if has_static:
                change += static
                static *= keep_static
            change *= to_v
            v += change
            plastic *= keep_plastic
            trace *= keep_plastic
            spiking = np.flatnonzero(flat_v > THRESHOLD)
            if len(spiking):
                flat_v[spiking] = 0.0
                flat_trace[spiking] += 1 / self.tau_plastic
                listed = spiking.tolist()
                if has_static:
                    self.static.deliver(static, listed, self.tau_static)
                self.plastic.deliver(plastic, listed, self.tau_plastic)
                steps.append(np.full(len(spiking), step))
                spikes.append(spiking)
        if not steps:
            return np.empty(0, int), np.empty(0, int)
        return np.concatenate(steps), np.concatenate(spikes)
