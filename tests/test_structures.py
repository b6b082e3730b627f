"""Structures: parameters and circuit are inverse, every parameter value is a legal circuit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from ssn_estimators import Circuit, gaussian_ring, random_circuit
from ssn_estimators.structures import STRUCTURES, Circulant, GaussianRing

THETA = (1.9, 0.1, 2.0)
CONSTANTS = {"theta": THETA, "k": 0.2, "gamma": 2.5, "tau_e": 25.0, "tau_i": 8.0, "tau_eta": 15.0}
RING_NOISE = {"noise_variances": (3.0, 2.0), "noise_correlation": 0.8, "noise_floor": 0.01}


def symmetric_circulant(n_pairs, rng):
    first = rng.normal(size=n_pairs // 2 + 1)
    row = [first[min(j, n_pairs - j)] for j in range(n_pairs)]
    return np.array([np.roll(row, i) for i in range(n_pairs)])


def circulant_circuit(n_pairs, seed=0):
    rng = np.random.RandomState(seed)
    weights = np.block([[np.abs(symmetric_circulant(n_pairs, rng)) for _ in "EI"] for _ in "EI"])
    weights[:, n_pairs:] *= -1
    noise = np.block([[symmetric_circulant(n_pairs, rng) for _ in "EI"] for _ in "EI"])
    return Circuit(weights, n_pairs, noise, **CONSTANTS)


def ring_circuit(n_pairs):
    amplitudes, widths = [[0.3, 0.1], [0.4, 0.2]], [[0.8, 0.6], [0.9, 0.5]]
    return gaussian_ring(n_pairs, amplitudes, widths, **RING_NOISE, **CONSTANTS)


def example(name, n_pairs=6):
    if name == "circulant":
        return circulant_circuit(n_pairs)
    if name == "gaussian_ring":
        return ring_circuit(n_pairs)
    rng = np.random.RandomState(0)
    n = 2 * n_pairs
    return random_circuit(
        n_pairs + 2, n_pairs - 2, noise=rng.normal(size=(n, n)), random_state=rng, **CONSTANTS
    )


def as_tensors(parameters):
    return {name: torch.tensor(value, requires_grad=True) for name, value in parameters.items()}


def back_and_forth(structure, circuit):
    return structure.circuit(as_tensors(structure.parameters(circuit)), circuit).to_numpy()


def random_parameters(structure, circuit, seed, scale=1.5):
    rng = np.random.RandomState(seed)
    shapes = {name: np.shape(value) for name, value in structure.parameters(circuit).items()}
    return as_tensors({name: scale * rng.normal(size=shape) for name, shape in shapes.items()})


def assert_same_constants(circuit, other):
    for name in ("n_excitatory", "n_inhibitory", "k", "gamma", "tau_e", "tau_i", "tau_eta"):
        assert getattr(circuit, name) == getattr(other, name)


@pytest.mark.parametrize(
    ("name", "n_pairs"),
    [(None, 4), (None, 7), ("circulant", 1), ("circulant", 6), ("circulant", 7)],
)
def test_parameters_and_circuit_are_inverse(name, n_pairs):
    circuit = example(name, n_pairs)
    other = back_and_forth(STRUCTURES[name], circuit)
    for array in ("weights", "noise_factor", "theta"):
        assert_allclose(getattr(other, array), getattr(circuit, array), rtol=1e-13, atol=1e-15)
    assert_same_constants(other, circuit)


def test_gaussian_ring_keeps_mean_weights_and_noise_variances():
    n_pairs = 12
    circuit = ring_circuit(n_pairs)
    other = back_and_forth(GaussianRing, circuit)

    def block_means(matrix):
        return matrix.reshape(2, n_pairs, 2, n_pairs).mean((1, 3))

    assert_allclose(block_means(other.weights), block_means(circuit.weights), rtol=1e-12)
    covariances = [c.noise_factor @ c.noise_factor.T for c in (other, circuit)]
    assert_allclose(*map(np.diag, covariances), rtol=1e-12)
    assert_allclose(*(np.diag(c, n_pairs) for c in covariances), rtol=1e-12)
    assert_allclose(other.theta, circuit.theta, rtol=1e-12)
    assert_same_constants(other, circuit)


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_is_a_projection(name):
    # also for a circuit without the structure: what it is mapped to has it
    rng = np.random.RandomState(1)
    circuit = random_circuit(5, 5, scale=0.5, noise=rng.normal(size=(10, 10)), random_state=rng)
    once = back_and_forth(STRUCTURES[name], circuit)
    twice = back_and_forth(STRUCTURES[name], once)
    assert_allclose(twice.weights, once.weights, rtol=1e-9)
    assert_allclose(
        twice.noise_factor @ twice.noise_factor.T,
        once.noise_factor @ once.noise_factor.T,
        rtol=1e-9,
        atol=1e-12,
    )


def test_numbers_of_free_parameters():
    parameters = Circulant.parameters(circulant_circuit(50))
    assert parameters["weight_profiles"].shape == (2, 2, 26)
    assert parameters["noise_profiles"].shape == (2, 2, 26)
    ring = GaussianRing.parameters(ring_circuit(50))
    # 8 of the weights, 4 of the noise, 3 of the input function
    assert sum(np.size(value) for value in ring.values()) == 15


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", STRUCTURES)
def test_all_values_of_the_parameters_are_legal(name, seed):
    circuit = example(name)
    parameters = random_parameters(STRUCTURES[name], circuit, seed)
    other = STRUCTURES[name].circuit(parameters, circuit)  # Circuit itself checks Dale's law
    weights, theta = other.to_numpy().weights, other.to_numpy().theta
    assert (weights[:, : circuit.n_excitatory] >= 0).all()
    assert (weights[:, circuit.n_excitatory :] <= 0).all()
    assert (theta >= 0).all()
    assert_same_constants(other, circuit)


@pytest.mark.parametrize("name", STRUCTURES)
def test_gradients_reach_every_parameter(name):
    circuit = example(name)
    parameters = random_parameters(STRUCTURES[name], circuit, seed=0, scale=0.5)
    if STRUCTURES[name].magnitudes:  # never below 0
        with torch.no_grad():
            parameters[STRUCTURES[name].magnitudes].abs_()
    other = STRUCTURES[name].circuit(parameters, circuit)
    n = circuit.n_neurons
    by_place = torch.tensor(np.random.RandomState(3).uniform(1, 2, size=(n, n)))
    loss = other.weights.sum() + (by_place * other.noise_factor**2).sum() + other.theta.sum()
    loss.backward()
    for parameter in parameters.values():
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", STRUCTURES)
def test_dtype_is_kept(name, dtype):
    circuit = example(name)
    circuit = Circuit(
        circuit.weights.astype(dtype), circuit.n_excitatory, circuit.noise_factor, **CONSTANTS
    )
    parameters = STRUCTURES[name].parameters(circuit)
    assert {value.dtype for value in parameters.values()} == {np.dtype(dtype)}
    assert back_and_forth(STRUCTURES[name], circuit).weights.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gaussian_ring_parameters_are_recovered(dtype):
    ring = gaussian_ring(
        12,
        [[0.3, 0.1], [0.4, 0.2]],
        [[0.4, 0.6], [1.2, 0.9]],
        noise_variances=(2.0, 0.5),
        noise_correlation=0.3,
        noise_width=0.8,
    )
    ring = replace(
        ring, weights=ring.weights.astype(dtype), noise_factor=ring.noise_factor.astype(dtype)
    )
    free = {name: torch.tensor(value) for name, value in GaussianRing.parameters(ring).items()}
    again = GaussianRing.circuit(free, ring).to_numpy()
    tolerance = 1e-9 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(again.weights, ring.weights, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        again.noise_factor @ again.noise_factor.T,
        ring.noise_factor @ ring.noise_factor.T,
        atol=10 * tolerance,
    )


@pytest.mark.parametrize("name", [None, "circulant"])
def test_weights_of_zero_have_a_gradient_and_steps_stop_at_zero(name):
    structure, circuit = STRUCTURES[name], example(name)
    free = structure.parameters(circuit)
    free[structure.magnitudes][:] = 0
    free = as_tensors(free)
    structure.circuit(free, circuit).weights.sum().backward()
    assert (free[structure.magnitudes].grad != 0).all()


def test_steps_past_zero_end_there(small_ssn, blobs):
    ssn = small_ssn(max_iter=120, growth=None).fit(*blobs)
    before = ssn.circuit_
    assert (before.weights == 0).any()
    ssn.set_params(warm_start=True).fit(*blobs)
    # some that were 0 have grown again
    assert (ssn.circuit_.weights[before.weights == 0] != 0).any()


def test_narrow_rings_have_no_neighbours():
    """However narrow: weights within pairs, and noise that no pairs share."""
    narrow = gaussian_ring(4, [[0.3, 0.1], [0.4, 0.1]], np.full((2, 2), 1e-300), noise_width=1e-300)
    pairs = np.kron(np.ones((2, 2)), np.eye(4)) > 0
    assert (narrow.weights[~pairs] == 0).all()
    assert_allclose(narrow.weights[pairs].reshape(8, 2)[:4], [[0.3, -0.1]] * 4)
    assert (narrow.noise_factor[~pairs] == 0).all()
