"""Trials in which inputs change: from time steps of data to those of a simulation, and back."""

from __future__ import annotations

from dataclasses import replace

__all__ = ["means", "stretches"]


def stretches(drive, trials, n_times=None):
    """Trials and drives of parts of so many time steps, which go on from each other.

    Parameters
    ----------
    drive : Tensor of shape (n_times, n_inputs, n_neurons)
    trials : Trials
        With a `drive_step`.
    n_times : int, default=None
        Time steps of a part; None is all.

    Yields
    ------
    trials : Trials
        Of the part.
    drive : Tensor of shape (n_times of the part, n_inputs, n_neurons)
    """
    for first in range(0, len(drive), n_times or len(drive)):
        part = drive[first : first + (n_times or len(drive))]
        burn_in = 0.0 if first else trials.burn_in
        yield replace(trials, duration=len(part) * trials.drive_step, burn_in=burn_in), part


def means(u, n_times):
    """Mean potentials of every time step, over its trials.

    Parameters
    ----------
    u : Tensor of shape (n_steps, n_inputs, n_trials, n_neurons)
    n_times : int

    Returns
    -------
    means : Tensor of shape (n_times * n_inputs, n_neurons)
        In mV, those of the first time step first.
    """
    return u.unflatten(0, (n_times, -1)).mean((1, 3)).flatten(0, 1)
