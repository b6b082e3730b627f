"""Spectra against formulae, covariances and simulations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from published import HENNEQUIN, PAIR_A, PERSISTENT, both, size_contrast

from ssn_estimators import Circuit, simulate
from ssn_estimators.inspection import (
    coherence,
    cross_spectrum,
    lfp_spectrum,
    power_spectrum,
    simulated_spectrum,
    spectra,
)
from ssn_estimators.stationary.moments import stationary_moments

FREQUENCIES = np.array([0.0, 3.0, 20.0, 100.0])


def integral(spectrum, n=400, scale=20.0):
    """Over all frequencies from 0, by Gauss's rule in their arc tangent."""
    x, weights = np.polynomial.legendre.leggauss(n)
    angle = np.pi / 4 * (x + 1)
    frequencies, width = scale * np.tan(angle), scale / np.cos(angle) ** 2
    return np.einsum("nf...,f->n...", spectrum(frequencies), np.pi / 4 * weights * width)


@pytest.mark.parametrize("tau_eta", [1.0, 20.0, 50.0])
def test_a_leaky_cell(tau_eta):
    cell = Circuit([[0.0]], 1, 0.7, tau_e=15.0, tau_eta=tau_eta)
    omega = 2 * np.pi * FREQUENCIES / 1000
    one_sided = 4 * 0.7**2 * tau_eta / 1000
    expected = one_sided / ((1 + (omega * tau_eta) ** 2) * (1 + (omega * 15) ** 2))
    found = power_spectrum(cell, [[2.0]], FREQUENCIES)
    assert_allclose(found[0, :, 0], expected, rtol=1e-12)
    gain = cell.gain(2.0)
    of_rates = power_spectrum(cell, [[2.0]], FREQUENCIES, of="r")
    assert_allclose(of_rates[0, :, 0], gain**2 * expected, rtol=1e-12)


def test_integrals_are_covariances():
    drive = both([1, 2, 15])
    found = integral(lambda f: cross_spectrum(HENNEQUIN, drive, f))
    expected = stationary_moments(HENNEQUIN, drive, closure="linear").covariance
    assert_allclose(found.real, expected, rtol=1e-5)
    # as published: sd of u_E at h 2 and 15, of rates at h 2
    assert_allclose(np.sqrt(found[1:, 0, 0].real), [0.957, 0.299], rtol=5e-3)
    of_rates = integral(lambda f: power_spectrum(HENNEQUIN, drive[1:2], f, of="r"))
    assert_allclose(np.sqrt(of_rates[0]), [1.89324, 2.38993], rtol=1e-5)


def test_integrals_are_covariances_in_a_circuit_of_four_types():
    circuit, drives = size_contrast()
    factor = np.tril(0.2 + 0.1 * np.random.RandomState(0).rand(8, 8))
    circuit = replace(circuit, noise_factor=factor, tau_eta=7.0)
    found = integral(lambda f: cross_spectrum(circuit, drives[-1, :2], f))
    expected = stationary_moments(circuit, drives[-1, :2], closure="linear").covariance
    assert_allclose(found.real, expected, rtol=1e-3)


def test_spectra_of_the_rate_form_are_the_same():
    """tau dr/dt = -r + k relu(W r + h + eta)^n has the transfer G (i w T + 1 - W G)^-1 of rates."""
    drive = both([2])
    found = cross_spectrum(HENNEQUIN, drive, FREQUENCIES, of="r")[0]
    mean = stationary_moments(HENNEQUIN, drive, closure="linear", tol=1e-12).mean[0]
    gain, eye = np.diag(HENNEQUIN.gain(mean)), np.eye(2)
    for frequency, spectrum in zip(FREQUENCIES, found, strict=True):
        omega = 2 * np.pi * frequency / 1000
        matrix = 1j * omega * np.diag(HENNEQUIN.tau) + eye - gain @ HENNEQUIN.weights
        transfer = np.linalg.solve(matrix, gain @ HENNEQUIN.noise_factor)
        size = 4 * HENNEQUIN.tau_eta / (1 + (omega * HENNEQUIN.tau_eta) ** 2) / 1000
        assert_allclose(spectrum, size * transfer @ transfer.conj().T, rtol=1e-6)


def test_parts_belong_together():
    drive = both([2, 15])
    cross = cross_spectrum(HENNEQUIN, drive, FREQUENCIES)
    power = power_spectrum(HENNEQUIN, drive, FREQUENCIES)
    assert_allclose(cross, cross.conj().swapaxes(2, 3), rtol=1e-12)
    assert_allclose(np.einsum("nfii->nfi", cross), power, rtol=1e-12)
    assert_array_equal(power_spectrum(HENNEQUIN, drive, FREQUENCIES, cells="I"), power[..., 1:])
    assert_allclose(lfp_spectrum(HENNEQUIN, drive, FREQUENCIES), power[..., 0])
    weights = np.array([1.0, -0.5])
    lfp = lfp_spectrum(HENNEQUIN, drive, FREQUENCIES, weights)
    assert_allclose(lfp, np.einsum("i,nfij,j->nf", weights, cross, weights).real, rtol=1e-12)
    between = coherence(HENNEQUIN, drive, FREQUENCIES, "E", [1])
    assert_allclose(between, abs(cross[..., 0, 1]) ** 2 / power.prod(-1), rtol=1e-12)
    assert ((between > 0) & (between < 1)).all()
    assert_allclose(coherence(HENNEQUIN, drive, FREQUENCIES, "E", "E"), 1)


def test_frequencies_in_blocks(monkeypatch):
    frequencies = np.linspace(0, 100, 23)
    whole = power_spectrum(HENNEQUIN, both([2]), frequencies)
    monkeypatch.setattr(spectra, "MOST_ENTRIES", 20)
    assert_allclose(power_spectrum(HENNEQUIN, both([2]), frequencies), whole, rtol=1e-12)


def test_spectra_have_gradients():
    weights = torch.tensor(HENNEQUIN.weights, requires_grad=True)
    noise = torch.tensor(HENNEQUIN.noise_factor, requires_grad=True)
    drive = torch.tensor(both([2, 5]), requires_grad=True)

    def spectrum(weights, noise, drive):
        circuit = Circuit(weights, 1, noise, tau_eta=50.0)
        power = power_spectrum(circuit, drive, [0.0, 20.0], of="r")
        return power, coherence(circuit, drive, [5.0], "E", "I")

    assert spectrum(weights, noise, drive)[0].requires_grad
    assert torch.autograd.gradcheck(spectrum, (weights, noise, drive), eps=1e-5, rtol=1e-4)


def test_inputs_without_a_stable_state():
    runaway = Circuit([[2.5]], 1, 0.1, k=0.04)
    found = power_spectrum(runaway, [[1.0], [50.0]], FREQUENCIES)
    assert_array_equal(np.isnan(found[..., 0]).all(1), [False, True])
    assert_allclose(found[0], power_spectrum(runaway, [[1.0]], FREQUENCIES)[0])
    persistent = replace(PERSISTENT, noise_factor=0.1)
    low, high = (
        power_spectrum(persistent, [[0.0, 0.0]], [5.0], start=start)[0, 0, 0]
        for start in (None, [15.0, 20.0])
    )
    assert high > 2 * low


def test_simulations():
    """A circuit with weak noise, so that it is linear; Welch's method over 1,600 s."""
    quiet = replace(HENNEQUIN, noise_factor=0.1 * HENNEQUIN.noise_factor)
    drive = both([2, 10])
    simulation = simulate(
        quiet, drive, n_trials=200, duration=8000.0, burn_in=500.0, record="u", random_state=0
    )
    found = simulated_spectrum(simulation, segment=1000.0)
    chosen = (found.frequencies >= 2) & (found.frequencies <= 60)
    expected = power_spectrum(quiet, drive, found.frequencies[chosen])
    assert_allclose(found.power[:, chosen], expected, rtol=0.12)


def test_simulated_spectra_are_of_trials_that_stay():
    circuit = Circuit([[0.5]], 1, 0.3)
    simulation = simulate(
        circuit,
        [[1.6], [9.0], [0.5]],
        n_trials=20,
        duration=400.0,
        record="r",
        random_state=0,
    )
    stay = ~simulation.diverged
    assert stay[2].all()
    assert not stay[1].any()
    assert 0 < stay[0].sum() < 20  # noise carries some beyond the unstable point
    found = simulated_spectrum(simulation, segment=1e9, of="r")
    assert_allclose(np.diff(found.frequencies), 2.5, rtol=1e-6)
    assert_array_equal(np.isnan(found.power[:, :, 0]).all(1), [False, True, False])
    assert np.isfinite(found.power[0]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_spectrum(PAIR_A, [[1.0, 1.0]], [-1.0]), "frequencies must be"),
        (lambda: power_spectrum(PAIR_A, [[1.0, 1.0]], [np.nan]), "frequencies must be"),
        (lambda: power_spectrum(PAIR_A, [[1.0, 1.0]], []), "frequencies must be"),
        (lambda: power_spectrum(PAIR_A, [[1.0, 1.0]], 10.0), "frequencies must be"),
        (lambda: power_spectrum(PAIR_A, [[1.0]], [1.0]), "drive must have shape"),
        (lambda: power_spectrum(PAIR_A, [[1.0, np.inf]], [1.0]), "drive must be finite"),
        (lambda: power_spectrum(PAIR_A, [[1.0, 1.0]], [1.0], of="v"), "of must be"),
        (lambda: power_spectrum(PAIR_A, [[1.0, 1.0]], [1.0], cells=[5]), "cells must be"),
        (lambda: coherence(PAIR_A, [[1.0, 1.0]], [1.0], "E", "PV"), "population must be"),
        (lambda: lfp_spectrum(PAIR_A, [[1.0, 1.0]], [1.0], [1.0]), "weights must be"),
        (lambda: lfp_spectrum(PAIR_A, [[1.0, 1.0]], [1.0], [1.0, np.nan]), "weights must be"),
        (lambda: simulated_spectrum(simulate(PAIR_A, [[1.0, 1.0]])), "was not recorded"),
        (
            lambda: simulated_spectrum(simulate(PAIR_A, [[1.0, 1.0]], record="u"), segment=1.0),
            "segment must be",
        ),
        (
            lambda: simulated_spectrum(simulate(PAIR_A, [[1.0, 1.0]], record="u"), segment=-1.0),
            "segment",
        ),
        (
            lambda: simulated_spectrum(simulate(PAIR_A, [[1.0, 1.0]], duration=1.0, record="u")),
            "two steps",
        ),
        (lambda: simulated_spectrum(simulate(PAIR_A, [[1.0, 1.0]]), of="eta"), "of must be"),
    ],
)
def test_what_is_not_legal(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_spectra_of_the_rate_form():
    """Of rates as in the voltage form; of potentials, which are W r + h + eta, by simulation."""
    pair = Circuit([[1.25, -0.65], [1.2, -0.5]], 1, 0.02, k=0.3, tau_eta=20.0)
    in_rates = replace(pair, dynamics="rate")
    drive, frequencies = [[4.0, 4.0]], np.arange(5.0, 100.0, 5.0)
    powers = [power_spectrum(x, drive, frequencies, of="r") for x in (pair, in_rates)]
    assert_allclose(*powers, rtol=1e-8)
    settings = {"n_trials": 200, "duration": 2000.0, "burn_in": 300.0, "dt": 0.5}
    found = simulate(in_rates, drive, record=("u", "r"), random_state=0, **settings)
    for of in ("u", "r"):
        spectrum = simulated_spectrum(found, segment=400.0, of=of)
        some = (spectrum.frequencies > 9) & (spectrum.frequencies < 61)
        linear = power_spectrum(in_rates, drive, spectrum.frequencies[some], of=of)
        assert_allclose(spectrum.power[:, some], linear, rtol=0.12)
