"""Power spectra: against those of inspection, finite differences and known circuits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ssn_estimators import Circuit, CircuitRegressor, Receptors
from ssn_estimators.fitting import Free, Spectra, Traces
from ssn_estimators.fitting.model import model_of
from ssn_estimators.fitting.spectra import Fluctuations, with_spectra
from ssn_estimators.fitting.steady import Steady, fixed_points_of, spectral_abscissae
from ssn_estimators.inspection import lfp_spectrum, power_spectrum, steady_states
from ssn_estimators.rate_functions import AbbottChance

WEIGHTS = [[1.0, -1.5], [1.2, -0.5]]
TO_BOTH = np.ones((2, 1))
X = np.array([[2.0], [8.0], [20.0]])
FREQUENCIES = np.linspace(1.0, 90.0, 12)
RECEPTORS = Receptors(
    {"AMPA": 5.0, "GABA": 8.0, "NMDA": 100.0},
    {"E": {"AMPA": 0.7, "NMDA": 0.3}, "I": {"GABA": 1.0}},
)


def pair(**options):
    noise = np.array([[0.3, 0.0], [0.1, 0.2]])
    options = {"k": 0.04, "noise_factor": noise, "tau": [20.0, 10.0]} | options
    return Circuit(WEIGHTS, n_excitatory=1, **options)


KINDS = {
    "voltage": (pair(), "u"),
    "rates": (pair(), "r"),
    "gamma": (pair(gamma=2.3), "r"),
    "rate form": (pair(dynamics="rate"), "r"),
    "receptors": (pair(receptors=RECEPTORS), "u"),
}


def problem_of(circuit, of, free):
    regressor = CircuitRegressor(circuit, free, input_map=TO_BOTH, baseline=1.0)
    model = model_of(regressor, np.zeros((0, 1)), 2, fluctuates=True)
    power = np.full((3, 12, 2), 0.5)
    power[1, 2, 0] = np.nan
    extra = [[0.0, 0.0], [1.0, 0.5], [0.0, 2.0]]
    own = Spectra(X, FREQUENCIES, power, 0.1, ["I", 0], of, extra)
    nothing = np.zeros((0, 2))
    conditions = model.conditions(np.zeros((0, 1)), None)
    targets, conditions, Y, errors = with_spectra(own, model, conditions, nothing, nothing)
    assert Y.shape == errors.shape == (3, 2)
    return model, Fluctuations(targets, model.circuit, conditions), extra


@pytest.mark.parametrize("kind", KINDS)
def test_power_is_that_of_inspection_and_slopes_are_differences(kind):
    circuit, of = KINDS[kind]
    free = [Free(name) for name in ("weights", "input_map", "baseline", "k", "noise")]
    free += [] if circuit.receptors else [Free("tau")]
    model, fluctuations, extra = problem_of(circuit, of, free)
    (target,), parameters = fluctuations.targets, model.parameters
    theta = parameters.start + 0.02 * np.random.RandomState(0).normal(size=len(parameters))
    conditions = fluctuations.conditions
    start = parameters.arrays(parameters.start)
    found = fluctuations.power(target, start, fixed_points_of(conditions, start))
    expected = power_spectrum(circuit, 1.0 + X + np.array(extra), FREQUENCIES, of=of)
    assert_allclose(found, expected[..., [1, 0]], rtol=1e-8)

    u = fixed_points_of(conditions, parameters.arrays(theta))
    steady = Steady(parameters, conditions, theta, u)

    def residuals(theta):
        steady.outputs(theta)
        return fluctuations.residuals(steady.last.arrays, steady.last.u)

    steps = 1e-5 * np.eye(len(theta))
    differences = [(residuals(theta + d) - residuals(theta - d)) / 2e-5 for d in steps]
    differences = np.stack(differences, -1)
    assert len(differences) == 3 * 12 * 2 - 1
    steady.jacobian(theta)
    arrays, by_parameters = steady.here.arrays, steady.by_parameters()
    found = fluctuations.jacobian(arrays, steady.slopes, steady.here.u, by_parameters)
    assert (np.abs(found).max(0) > 0).all()
    size = np.abs(differences).max(0)
    assert_allclose(found / size, differences / size, atol=1e-6)


@pytest.mark.parametrize("kind", ["voltage", "rate form", "receptors"])
def test_a_circuit_is_recovered_from_spectra(kind):
    """With the size of its noise, from rates and spectra together, and from spectra alone."""
    circuit, of = KINDS[kind]
    guess = Circuit(
        [[0.7, -1.2], [1.0, -0.7]],
        n_excitatory=1,
        k=0.04,
        noise_factor=0.5 * circuit.noise_factor,
        tau=circuit.tau,
        dynamics=circuit.dynamics,
        receptors=circuit.receptors,
    )
    free = [Free("weights"), Free("noise", by=np.array(["all", "all"]))]
    drive = 1.0 + X * [1.0, 1.0]
    rates = steady_states(circuit, drive).rates
    power = power_spectrum(circuit, drive, FREQUENCIES, of=of)
    spectra = Spectra(X, FREQUENCIES, power, cells=[0, 1], of=of)
    options = {"input_map": TO_BOTH, "baseline": 1.0, "n_starts": 3, "random_state": 0, "tol": 1e-9}
    model = CircuitRegressor(guess, free, **options)
    both = model.fit(X, rates, sample_error=0.1, spectra=spectra)
    assert_allclose(both.circuit_.weights, WEIGHTS, rtol=1e-4)
    assert_allclose(both.circuit_.noise_factor, circuit.noise_factor, rtol=1e-4)
    assert_allclose(both.predict(X), rates, rtol=1e-3)
    assert (both.explained_variance_spectra_[0] > 0.9999).all()
    assert (both.explained_variance_ > 0.9999).all()
    assert len(both.stability_) == 6
    alone = CircuitRegressor(guess, free, **options).fit(spectra=[spectra])
    assert_allclose(alone.circuit_.weights, WEIGHTS, rtol=1e-4)
    assert alone.predict(X).shape == (3, 2)
    assert np.isnan(alone.explained_variance_).all()


def test_local_field_potentials_are_the_default():
    circuit = pair()
    power = lfp_spectrum(circuit, 1.0 + X * [1.0, 1.0], FREQUENCIES)
    free = [Free("tau"), Free("noise", by=np.array(["all", "all"]))]
    options = {"input_map": TO_BOTH, "baseline": 1.0, "n_starts": 2, "random_state": 0}
    model = CircuitRegressor(pair(tau=[15.0, 15.0]), free, **options)
    model.fit(spectra=Spectra(X, FREQUENCIES, power))
    assert_allclose(model.circuit_.tau, [20.0, 10.0], rtol=1e-3)
    assert model.jacobian_.shape == (36, 3)


@pytest.mark.parametrize("gain", [0.01, 0.1, 3.0])
def test_stability_with_receptors_is_that_of_circuits(gain):
    model, fluctuations, _ = problem_of(pair(receptors=RECEPTORS), "u", ["weights"])
    arrays = model.parameters.arrays(model.parameters.start)
    u = gain * np.array([[1.0, 2.0], [10.0, 3.0], [0.1, 30.0]])
    circuit = model.circuit
    expected = np.linalg.eigvals(circuit.jacobian(circuit.gain(u))).real
    expected = np.sort(expected, axis=1)
    slowest = -1 / 5.0  # of the external input, which this leaves out
    found = spectral_abscissae(fluctuations.conditions, arrays, u)
    assert_allclose(np.maximum(found, slowest), expected[:, -1], rtol=1e-9)
    several = {name: np.array([array, array]) for name, array in arrays.items()}
    again = spectral_abscissae(fluctuations.conditions, several, np.array([u, u]))
    assert_allclose(again, [found, found])


POWER = np.ones((3, 12))
BAD = {
    "nothing": (lambda m: m.fit(spectra=["power"]), "must be Spectra"),
    "shape": (lambda m: m.fit(spectra=Spectra(X, FREQUENCIES, POWER[:2])), "power of spectra must"),
    "sign": (lambda m: m.fit(spectra=Spectra(X, FREQUENCIES, -POWER)), "> 0"),
    "inputs": (lambda m: m.fit(X, X, spectra=Spectra([[1.0, 2.0]], [1.0], [[1.0]])), "inputs of"),
    "frequencies": (lambda m: m.fit(spectra=Spectra(X, -FREQUENCIES, POWER)), "frequencies of"),
    "cells": (lambda m: m.fit(spectra=Spectra(X, FREQUENCIES, POWER, cells=["PV"])), "PV"),
    "errors": (lambda m: m.fit(spectra=Spectra(X, FREQUENCIES, POWER, 0.0)), "sample_error"),
    "of": (lambda m: m.fit(spectra=Spectra(X, FREQUENCIES, POWER, of="v")), "of of spectra"),
    "noise": (lambda m: m.set_params(free=["noise"]).fit(X, X), "noise cannot be free"),
    "rate function": (
        lambda m: m.set_params(
            circuit=Circuit(WEIGHTS, 1, rate_function=AbbottChance(), noise_factor=0.1)
        ).fit(spectra=Spectra(X, FREQUENCIES, POWER)),
        "power law",
    ),
    "tau of receptors": (
        lambda m: m.set_params(circuit=pair(receptors=RECEPTORS), free=["tau"]).fit(
            spectra=Spectra(X, FREQUENCIES, POWER)
        ),
        "do without",
    ),
    "traces of receptors": (
        lambda m: m.set_params(circuit=pair(receptors=RECEPTORS)).fit(traces=Traces(X, X)),
        "without receptors",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(CircuitRegressor(pair(), ["weights"], input_map=TO_BOTH, observed=["E"]))
