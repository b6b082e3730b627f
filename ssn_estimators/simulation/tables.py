"""What a simulation saw, with names for axes and units."""

from __future__ import annotations

import numpy as np
import torch

from ssn_estimators._tables import data_frame, data_set

__all__ = ["data_set_of", "table_of_moments"]

MOMENTS = {
    "mean": ("input", "neuron"),
    "covariance": ("input", "neuron", "other_neuron"),
    "rates": ("input", "neuron"),
    "diverged": ("input", "trial"),
    "divergence_time": ("input", "trial"),
}
TRAJECTORY = ("time", "input", "trial", "neuron")


def data_set_of(simulation):
    """See `Simulation.to_xarray`."""
    state = "Hz" if simulation.dynamics == "rate" else "mV"
    units = {"mean": state, "covariance": f"{state}**2", "rates": "Hz", "divergence_time": "ms"}
    units |= {"u": "mV", "r": "Hz", "eta": "mV"}
    variables = {}
    for name, dims in (MOMENTS | dict.fromkeys(("u", "r", "eta"), TRAJECTORY)).items():
        values = _array(getattr(simulation, name))
        if values is None:
            continue
        if name == "eta" and values.shape[1] < len(simulation.mean):  # noise shared by inputs
            values, dims = values[:, 0], ("time", "trial", "neuron")
        attributes = {"units": units[name]} if name in units else {}
        variables[name] = (dims, values, attributes)
    coordinates = {"time": ("time", _array(simulation.times), {"units": "ms"})}
    if simulation.populations is not None:
        coordinates["population"] = ("neuron", _types(simulation))
    return data_set(variables, coordinates, {"dynamics": simulation.dynamics})


def table_of_moments(simulation):
    """See `Simulation.to_dataframe`."""
    mean, covariance, rates, diverged = (
        _array(getattr(simulation, name)) for name in ("mean", "covariance", "rates", "diverged")
    )
    n_inputs, n_neurons = mean.shape
    columns = {
        "input": np.repeat(np.arange(n_inputs), n_neurons),
        "neuron": np.tile(np.arange(n_neurons), n_inputs),
    }
    if simulation.populations is not None:
        columns["population"] = np.tile(_types(simulation), n_inputs)
    columns["mean"] = mean.ravel()
    if covariance is not None:
        columns["sd"] = np.sqrt(covariance.diagonal(axis1=1, axis2=2)).ravel()
    if rates is not None:
        columns["rate"] = rates.ravel()
    columns["diverged"] = np.repeat(diverged.mean(1), n_neurons)
    return data_frame(columns)


def _types(simulation):
    names, sizes = zip(*simulation.populations.items(), strict=True)
    return np.repeat(names, sizes)


def _array(value):
    return value.detach().cpu().numpy() if torch.is_tensor(value) else value
