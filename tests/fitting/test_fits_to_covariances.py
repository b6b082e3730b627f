"""Covariances: against those of the linear closure, finite differences and known circuits."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ssn_estimators import Circuit, CircuitRegressor, Receptors, simulate, stationary_moments
from ssn_estimators.fitting import Covariances, Free, Spectra
from ssn_estimators.fitting.covariances import CovaryingNoise, with_covariances
from ssn_estimators.fitting.model import model_of
from ssn_estimators.fitting.steady import Steady, fixed_points_of
from ssn_estimators.inspection import lfp_spectrum, steady_states
from ssn_estimators.rate_functions import AbbottChance

WEIGHTS = [[1.0, -1.5], [1.2, -0.5]]
TO_BOTH = np.ones((2, 1))
X = np.array([[2.0], [8.0], [20.0]])
EXTRA = np.array([[0.0, 0.0], [1.0, 0.5], [0.0, 2.0]])


def pair(**options):
    noise = np.array([[0.3, 0.0], [0.1, 0.2]])
    options = {"k": 0.04, "noise_factor": noise, "tau": [20.0, 10.0]} | options
    return Circuit(WEIGHTS, n_excitatory=1, **options)


KINDS = {
    "potentials": (pair(), "u"),
    "rates": (pair(), "r"),
    "gamma": (pair(gamma=2.3), "r"),
    "rate form": (pair(dynamics="rate"), "r"),
}


def seen(circuit, drive, of):
    """Covariances by the linear closure."""
    moments = stationary_moments(circuit, drive, closure="linear")
    if of == "u" or circuit.dynamics == "rate":
        return moments.covariance
    gain = circuit.gain(moments.mean)
    return gain[:, :, None] * moments.covariance * gain[:, None, :]


def noise_of(circuit, own, free):
    regressor = CircuitRegressor(circuit, free, input_map=TO_BOTH, baseline=1.0)
    model = model_of(regressor, np.zeros((0, 1)), 2, fluctuates=True)
    nothing = np.zeros((0, 2))
    conditions = model.conditions(np.zeros((0, 1)), None)
    targets, conditions, Y, _ = with_covariances(own, model, conditions, nothing, nothing)
    assert Y.shape == (3, 2)
    return model, CovaryingNoise(targets, model.circuit, conditions)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_those_of_the_linear_closure_and_slopes_are_differences(kind):
    circuit, of = KINDS[kind]
    free = [Free(name) for name in ("weights", "input_map", "baseline", "k", "noise", "tau")]
    values = np.full((3, 2, 2), 0.5)
    values[1, 0, 1] = values[1, 1, 0] = np.nan
    own = Covariances(X, values, 0.1, cells=["I", 0], of=of, perturbation=EXTRA)
    model, noise = noise_of(circuit, own, free)
    (target,), parameters, conditions = noise.targets, model.parameters, noise.conditions
    start = parameters.arrays(parameters.start)
    found = noise.values(target, start, fixed_points_of(conditions, start))
    expected = seen(circuit, 1.0 + X + EXTRA, of)
    expected = np.stack([expected[:, 1, 1], expected[:, 1, 0], expected[:, 0, 0]], 1)
    assert_allclose(found, expected, rtol=1e-8)

    theta = parameters.start + 0.02 * np.random.RandomState(0).normal(size=len(parameters))
    u = fixed_points_of(conditions, parameters.arrays(theta))
    steady = Steady(parameters, conditions, theta, u)

    def residuals(theta):
        steady.outputs(theta)
        return noise.residuals(steady.last.arrays, steady.last.u)

    steps = 1e-5 * np.eye(len(theta))
    differences = [(residuals(theta + d) - residuals(theta - d)) / 2e-5 for d in steps]
    differences = np.stack(differences, -1)
    assert len(differences) == 3 * 3 - 1
    steady.jacobian(theta)
    arrays, by_parameters = steady.here.arrays, steady.by_parameters()
    found = noise.jacobian(arrays, steady.slopes, steady.here.u, by_parameters)
    size = np.abs(differences).max(0)
    assert (size > 0).all()
    assert_allclose(found / size, differences / size, atol=1e-6)


def test_means_over_cells():
    """The variance of a mean, and its covariance with a cell."""
    weights = np.kron(WEIGHTS, np.full((2, 2), 0.5))
    noise = np.random.RandomState(0).normal(scale=0.2, size=(4, 4))
    circuit = Circuit(weights, n_excitatory=2, k=0.04, noise_factor=noise)
    whole = seen(circuit, np.tile(1.0 + X, 4), "r")
    readout = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    expected = readout @ whole @ readout.T
    guess = replace(circuit, noise_factor=0.5 * noise)
    free = [Free("noise", by=np.full(4, "all"))]
    model = CircuitRegressor(guess, free, input_map=np.ones((4, 1)), baseline=1.0)
    model.fit(covariances=Covariances(X, expected, cells=["E", 3]))
    assert_allclose(model.circuit_.noise_factor, noise, rtol=1e-4)
    assert_allclose(model.explained_variance_covariances_[0], np.ones((2, 2)))


@pytest.mark.parametrize("kind", ["potentials", "rates", "rate form"])
def test_a_circuit_is_recovered_from_covariances(kind):
    """With the size of its noise: from them and rates, and from them alone."""
    circuit, of = KINDS[kind]
    guess = replace(
        circuit, weights=[[0.7, -1.2], [1.0, -0.7]], noise_factor=0.6 * circuit.noise_factor
    )
    free = [Free("weights"), Free("noise", by=np.array(["all", "all"]))]
    drive = 1.0 + X * [1.0, 1.0]
    own = Covariances(X, seen(circuit, drive, of), of=of)
    options = {"input_map": TO_BOTH, "baseline": 1.0, "n_starts": 3, "random_state": 0, "tol": 1e-9}
    model = CircuitRegressor(guess, free, **options)
    rates = steady_states(circuit, drive).rates
    both = model.fit(X, rates, sample_error=0.1, covariances=own)
    assert_allclose(both.circuit_.weights, WEIGHTS, rtol=1e-4)
    assert_allclose(both.circuit_.noise_factor, circuit.noise_factor, rtol=1e-4)
    assert len(both.stability_) == 6
    assert len(both.jacobian_) == 6 + 9
    alone = CircuitRegressor(guess, free, **options).fit(covariances=[own])
    assert_allclose(alone.circuit_.weights, WEIGHTS, rtol=1e-4)
    assert (alone.explained_variance_covariances_[0] > 0.9999).all()
    assert np.isnan(alone.explained_variance_).all()


def test_what_is_not_seen_does_not_count():
    """Variances alone, with spectra beside them."""
    circuit, drive = pair(), 1.0 + X * [1.0, 1.0]
    values = seen(circuit, drive, "r")
    values[:, 0, 1] = values[:, 1, 0] = np.nan
    free = [Free("tau"), Free("noise", by=np.array(["all", "all"]))]
    options = {"input_map": TO_BOTH, "baseline": 1.0, "n_starts": 2, "random_state": 0, "tol": 1e-9}
    guess = pair(tau=[15.0, 15.0], noise_factor=0.5 * circuit.noise_factor)
    frequencies = [5.0, 30.0]
    spectra = Spectra(X, frequencies, lfp_spectrum(circuit, drive, frequencies))
    model = CircuitRegressor(guess, free, **options)
    model.fit(spectra=spectra, covariances=Covariances(X, values))
    assert_allclose(model.circuit_.tau, [20.0, 10.0], rtol=1e-4)
    assert_allclose(model.circuit_.noise_factor, circuit.noise_factor, rtol=1e-4)
    assert len(model.jacobian_) == 6 + 6
    assert np.isnan(model.explained_variance_covariances_[0]).sum() == 2


def test_a_circuit_is_recovered_from_simulations():
    """Of weak noise; covariances tell more than rates alone."""
    circuit = pair()
    options = {"n_trials": 300, "duration": 1500.0, "burn_in": 300.0, "dt": 0.5, "random_state": 0}
    found = simulate(circuit, 1.0 + X * [1.0, 1.0], **options)
    n_independent = 300 * 1500 / 40  # two correlation times
    variance = np.diagonal(found.covariance, axis1=1, axis2=2)
    product = variance[:, :, None] * variance[:, None, :]
    errors = np.sqrt((product + found.covariance**2) / n_independent)
    of_rates = np.sqrt(variance / n_independent).max() * circuit.gain(found.mean).max()
    guess = replace(circuit, weights=[[0.7, -1.2], [1.0, -0.7]])
    options = {"input_map": TO_BOTH, "baseline": 1.0, "n_starts": 2, "random_state": 0}
    model = CircuitRegressor(guess, ["weights"], **options)
    alone = model.fit(X, found.rates, sample_error=of_rates).standard_errors_
    own = Covariances(X, found.covariance, errors, of="u")
    model.fit(X, found.rates, sample_error=of_rates, covariances=own)
    assert (np.abs(model.circuit_.weights - WEIGHTS).ravel() < 4 * model.standard_errors_).all()
    assert (model.standard_errors_ < alone).all()
    assert (model.explained_variance_covariances_[0] > 0.95).all()


def test_profiles_go_past_states_that_oscillate():
    """They have no covariances, though they are fixed points; the profile stopped the fit there."""
    values = seen(pair(), 1.0 + X * [1.0, 1.0], "u")
    own = Covariances(X, values, 0.5 * np.abs(values), of="u")
    options = {"input_map": TO_BOTH, "baseline": 1.0, "n_starts": 1, "intervals": "profile"}
    model = CircuitRegressor(pair(), ["weights", "tau"], **options).fit(covariances=own)
    low, high = model.intervals_.T
    truth = np.append(WEIGHTS, [20.0, 10.0])
    assert ((low < truth) & (truth < high)).all()


def test_errors_are_those_of_a_hundred_samples():
    rng, covariance = np.random.RandomState(0), np.array([[2.0, 0.8], [0.8, 1.0]])
    samples = rng.multivariate_normal(np.zeros(2), covariance, size=(4000, 100))
    found = np.einsum("nsi,nsj->nij", samples, samples) / 100
    own = Covariances(X, np.tile(covariance, (3, 1, 1)))
    _, noise = noise_of(pair(), own, ["noise"])
    assert_allclose(noise.targets[0].errors[0], found.std(0)[[0, 0, 1], [0, 1, 1]], rtol=0.05)


VALUES = np.tile(np.eye(2), (3, 1, 1))
BAD = {
    "nothing": (lambda m: m.fit(covariances=["variance"]), "must be Covariances"),
    "shape": (lambda m: m.fit(covariances=Covariances(X, VALUES[:2])), "must have shape"),
    "asymmetric": (
        lambda m: m.fit(covariances=Covariances(X, np.triu(VALUES + 1))),
        "symmetric",
    ),
    "one NaN": (
        lambda m: m.fit(covariances=Covariances(X, VALUES + np.triu([[0, np.nan]] * 2))),
        "symmetric",
    ),
    "infinite": (lambda m: m.fit(covariances=Covariances(X, VALUES + np.inf)), "finite"),
    "no variances": (
        lambda m: m.fit(covariances=Covariances(X, np.where(VALUES, np.nan, 0.1))),
        "without a sample_error",
    ),
    "errors": (lambda m: m.fit(covariances=Covariances(X, VALUES, 0.0)), "sample_error"),
    "shape of errors": (
        lambda m: m.fit(covariances=Covariances(X, VALUES, [1.0, 1.0])),
        "sample_error",
    ),
    "inputs": (lambda m: m.fit(X, X, covariances=Covariances([[1.0, 2.0]], VALUES)), "inputs of"),
    "cells": (lambda m: m.fit(covariances=Covariances(X, VALUES, cells=["E", "PV"])), "PV"),
    "of": (lambda m: m.fit(covariances=Covariances(X, VALUES, of="v")), "of of covariances"),
    "perturbation": (
        lambda m: m.fit(covariances=Covariances(X, VALUES, perturbation=[1.0])),
        "perturbation",
    ),
    "receptors": (
        lambda m: m.set_params(
            circuit=pair(receptors=Receptors({"fast": 4.0}, {"E": {"fast": 1}, "I": {"fast": 1}}))
        ).fit(covariances=Covariances(X, VALUES)),
        "without receptors",
    ),
    "rate function": (
        lambda m: m.set_params(
            circuit=Circuit(WEIGHTS, 1, rate_function=AbbottChance(), noise_factor=0.1)
        ).fit(covariances=Covariances(X, VALUES)),
        "power law",
    ),
    "rate form": (
        lambda m: m.set_params(circuit=pair(dynamics="rate")).fit(
            covariances=Covariances(X, VALUES, of="u")
        ),
        "rate form",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(CircuitRegressor(pair(), ["weights"], input_map=TO_BOTH))
