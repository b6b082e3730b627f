"""Simulations as data frames and xarray datasets."""

import pickle
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from ssn_estimators import Circuit, circuits, simulate

MODEL = circuits.size_contrast()
CIRCUIT = replace(MODEL.circuit, noise_factor=0.3)
DRIVE = MODEL.drive([0.12, 0.5, 1.0], 13.0)
SHORT = {"n_trials": 4, "duration": 10.0, "burn_in": 5.0, "random_state": 0}
TYPES = ["E", "E", "PV", "PV", "SST", "SST", "VIP", "VIP"]
PATHS = ("u", "r", "eta")


def runaway():
    """One of two inputs, of which the stronger one drives it away."""
    return simulate(Circuit([[0.6]], 1), [[0.3], [50.0]], n_trials=3, burn_in=0.0, duration=200.0)


def test_axes_and_units():
    pytest.importorskip("xarray")
    found = simulate(CIRCUIT, DRIVE, record=PATHS, **SHORT)
    data = found.to_xarray()
    assert dict(data.sizes) == {"input": 3, "neuron": 8, "other_neuron": 8, "trial": 4, "time": 10}
    for name in ("mean", "covariance", "rates", "diverged", "divergence_time", *PATHS):
        assert_array_equal(data[name], getattr(found, name))
    assert data.u.dims == data.r.dims == data.eta.dims == ("time", "input", "trial", "neuron")
    units = {name: data[name].attrs.get("units") for name in data.variables}
    assert units == {
        "mean": "mV",
        "covariance": "mV**2",
        "rates": "Hz",
        "diverged": None,
        "divergence_time": "ms",
        "u": "mV",
        "r": "Hz",
        "eta": "mV",
        "time": "ms",
        "population": None,
    }
    assert_array_equal(data.time, found.times)
    assert data.population.values.tolist() == TYPES
    means = data.rates.groupby("population").mean()
    for name in CIRCUIT.populations:
        assert_allclose(means.sel(population=name), found.rates[:, CIRCUIT[name]].mean(1))
    later = data.u.sel(time=slice(6.0, None)).isel(input=1)
    assert_array_equal(later, found.u[5:, 1])


@pytest.mark.parametrize("n_inputs", [1, 3])
def test_shared_noise_has_no_inputs(n_inputs):
    pytest.importorskip("xarray")
    settings = SHORT | {"record": "eta", "shared_noise": True}
    found = simulate(CIRCUIT, DRIVE[:n_inputs], **settings)
    eta = found.to_xarray().eta
    if n_inputs == 1:
        assert_array_equal(eta, found.eta)
    else:
        assert eta.dims == ("time", "trial", "neuron")
        assert_array_equal(eta, found.eta[:, 0])


def test_what_is_missing_is_left_out():
    pytest.importorskip("xarray")
    found = simulate(CIRCUIT, DRIVE, covariance=False, rates=False, record="final", **SHORT)
    data = found.to_xarray()
    assert set(data.data_vars) == {"mean", "diverged", "divergence_time"}
    frame = found.to_dataframe()
    assert frame.columns.tolist() == ["input", "neuron", "population", "mean", "diverged"]
    unknown = replace(found, populations=None)
    assert "population" not in unknown.to_xarray().coords
    assert "population" not in unknown.to_dataframe()


def test_the_rate_form_is_in_hz():
    pytest.importorskip("xarray")
    rate_form = replace(CIRCUIT, dynamics="rate")
    data = simulate(rate_form, DRIVE, record="u", **SHORT).to_xarray()
    assert data.attrs == {"dynamics": "rate"}
    assert [data[x].units for x in ("mean", "covariance", "u")] == ["Hz", "Hz**2", "mV"]


def test_rows_are_inputs_and_cells():
    pytest.importorskip("pandas")
    found = simulate(CIRCUIT, DRIVE, **SHORT)
    frame = found.to_dataframe()
    assert len(frame) == 3 * 8
    assert frame.population.tolist() == TYPES * 3
    row = frame[(frame["input"] == 1) & (frame.neuron == 3)].iloc[0]
    assert row["mean"] == found.mean[1, 3]
    assert row.sd == pytest.approx(np.sqrt(found.covariance[1, 3, 3]))
    assert row.rate == found.rates[1, 3]
    table = frame.pivot_table("rate", "input", "population")
    assert_allclose(table["SST"], found.rates[:, CIRCUIT["SST"]].mean(1))


def test_divergence():
    pytest.importorskip("xarray")
    found = runaway()
    frame, data = found.to_dataframe(), found.to_xarray()
    assert frame.diverged.tolist() == [0.0, 1.0]
    assert frame["mean"].isna().tolist() == [False, True]
    assert data.diverged.mean("trial").values.tolist() == [0.0, 1.0]
    assert_array_equal(data.divergence_time, found.divergence_time)


def test_tensors_and_pickles():
    pytest.importorskip("xarray")
    found = simulate(CIRCUIT, DRIVE, record="u", **SHORT)
    tensors = CIRCUIT.to_torch()
    weights = tensors.weights.clone().requires_grad_()
    differentiable = simulate(
        tensors.with_checked({"weights": weights}), torch.tensor(DRIVE), record="u", **SHORT
    )
    assert differentiable.mean.requires_grad
    for other in (differentiable, pickle.loads(pickle.dumps(found))):
        assert other.populations == dict(CIRCUIT.populations)
        data, expected = other.to_xarray(), found.to_xarray()
        for name in expected.variables:
            if name == "population":
                assert_array_equal(data[name], expected[name])
            else:
                assert_allclose(data[name], expected[name], rtol=1e-6)
        assert_allclose(other.to_dataframe()["sd"], found.to_dataframe()["sd"], rtol=1e-6)


@pytest.mark.parametrize(
    ("package", "method"), [("pandas", "to_dataframe"), ("xarray", "to_xarray")]
)
def test_without_the_package(package, method):
    found = runaway()
    words = rf"needs {package}.*ssn_estimators\[tables\]"
    with mock.patch.dict(sys.modules, {package: None}), pytest.raises(ImportError, match=words):
        getattr(found, method)()
