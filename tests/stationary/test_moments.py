"""Stationary moments: against closed forms, quadrature, simulation and finite differences."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.linalg import block_diag, solve_continuous_lyapunov
from scipy.stats import norm

from ssn_estimators import Circuit, random_circuit, simulate
from ssn_estimators.datasets import make_ring_gsm, make_ring_network
from ssn_estimators.rate_functions.gaussian import rate_moments
from ssn_estimators.stationary.moments import StationaryMoments, stationary_moments

CLOSURES = ("gaussian", "linear")
closures = pytest.mark.parametrize("closure", CLOSURES)


def stable_circuit(n_excitatory, n_inhibitory, seed=0, scale=0.3, **parameters):
    """Random weights, correlated noise."""
    rng = np.random.RandomState(seed)
    n = n_excitatory + n_inhibitory
    circuit = random_circuit(
        n_excitatory, n_inhibitory, scale=scale / np.sqrt(n), random_state=rng, **parameters
    )
    return replace(circuit, noise_factor=rng.uniform(-0.2, 0.4, (n, n)) + 0.6 * np.eye(n))


def ring_circuit():
    """The published network of Echeveste et al. 2020, and its five drives."""
    ring = make_ring_network()
    return ring, ring.drive(make_ring_gsm().h)


def exact_linear_moments(circuit, drive):
    """Mean and covariance where every potential is far above 0, from the (u, eta) system."""
    n, slope = circuit.n_neurons, circuit.k
    recurrence = slope * circuit.weights - np.eye(n)
    mean = np.linalg.solve(-recurrence, drive.T).T
    rate = np.diag(1 / circuit.tau)
    drift = np.block([[rate @ recurrence, rate], [np.zeros((n, n)), -np.eye(n) / circuit.tau_eta]])
    kick = 2 / circuit.tau_eta * circuit.noise_factor @ circuit.noise_factor.T
    covariance = solve_continuous_lyapunov(drift, -block_diag(np.zeros((n, n)), kick))
    return mean, covariance[:n, :n]


@closures
def test_linear_circuit_has_its_exact_moments(closure):
    circuit = stable_circuit(5, 3, k=1.0, gamma=1.0, tau_i=7.0, tau_eta=30.0)
    drive = np.random.RandomState(1).uniform(60, 90, (4, 8))
    mean, covariance = exact_linear_moments(circuit, drive)
    assert (mean / np.sqrt(np.diag(covariance)) > 10).all()
    moments = stationary_moments(circuit, drive, closure=closure)
    assert moments.converged.all()
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(moments.rates, mean, rtol=1e-9)
    for found in moments.covariance:
        np.testing.assert_allclose(found, covariance, rtol=1e-8, atol=1e-10)


@closures
@pytest.mark.parametrize("gamma", [1.0, 1.7, 2.0, 3.0])
def test_cells_without_synapses_are_exact(closure, gamma):
    circuit = Circuit(
        np.zeros((2, 2)), 1, np.diag([1.5, 0.5]), gamma=gamma, tau_e=20.0, tau_i=10.0, tau_eta=5.0
    )
    drive = np.array([[2.0, 1.0], [0.0, 3.0]])
    moments = stationary_moments(circuit, drive, closure=closure)
    variance = np.array([1.5, 0.5]) ** 2 * 5 / (circuit.tau + 5)
    np.testing.assert_allclose(moments.mean, drive, rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, [np.diag(variance)] * 2, rtol=1e-12)
    if closure == "linear":
        np.testing.assert_allclose(moments.rates, 0.3 * drive**gamma)
    else:
        expected = expected_power(2.0, np.sqrt(variance[0]), gamma)
        assert moments.rates[0, 0] == pytest.approx(0.3 * expected, rel=1e-9)


def expected_power(mean, scale, power):
    """E[[u]+^power] by adaptive quadrature."""
    top = max(mean, 0)
    edges = sorted({0.0, *(top + scale * np.array([-6, -3, -1, -0.3, 0, 0.1, 0.3, 1, 3, 6, 12]))})
    edges = [edge for edge in edges if edge >= 0]

    def integrand(u):
        return u**power * norm.pdf(u, mean, scale)

    return sum(quad(integrand, *piece, epsabs=0, epsrel=1e-11)[0] for piece in pairwise(edges))


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.0, 2.5, 1.3])
def test_rates_and_gains_agree_with_quadrature_in_both_tails(gamma):
    x = np.array([-8.0, -4.0, -1.0, 0.0, 0.5, 3.0, 8.0, 8.99, 9.01, 30.0])
    for scale in (0.2, 3.0):
        mean = torch.tensor(x * scale, requires_grad=True)
        variance = torch.full_like(mean, scale**2, requires_grad=True)
        rates, gain = rate_moments(mean, variance, 0.3, gamma)
        expected = [0.3 * expected_power(m, scale, gamma) for m in x * scale]
        np.testing.assert_allclose(rates.detach(), expected, rtol=1e-8)
        expected = [0.3 * gamma * expected_power(m, scale, gamma - 1) for m in x * scale]
        np.testing.assert_allclose(gain.detach(), expected, rtol=1e-8)
        # dE[r]/dmean = E[dr/du], and the heat equation dE[r]/dvariance = E[d2r/du2] / 2
        slopes = torch.autograd.grad(rates.sum(), (mean, variance), retain_graph=True)
        (curvature,) = torch.autograd.grad(gain.sum(), mean)
        np.testing.assert_allclose(slopes[0], gain.detach(), rtol=1e-8)
        np.testing.assert_allclose(slopes[1], curvature / 2, rtol=1e-6, atol=1e-13)


@closures
def test_weak_coupling_agrees_with_simulation(closure):
    circuit = stable_circuit(6, 3, scale=0.1)
    if closure == "linear":  # exact for weak noise
        circuit = replace(circuit, noise_factor=0.04 * circuit.noise_factor)
    drive = np.random.RandomState(2).uniform(1, 3, (2, 9))
    moments = stationary_moments(circuit, drive, closure=closure)
    settings = {"n_trials": 50, "duration": 1000.0, "burn_in": 400.0}
    samples = [simulate(circuit, drive, random_state=seed, **settings) for seed in range(8)]
    for name in ("mean", "covariance", "rates"):
        values = np.array([getattr(sample, name) for sample in samples])
        error = values.std(0, ddof=1) / np.sqrt(len(values))
        scores = (getattr(moments, name) - values.mean(0)) / error
        # correlated scores that follow a t-distribution with 7 degrees of freedom, if exact
        assert np.sqrt((scores**2).mean()) < 2, name


def test_published_ring_network():
    ring, drive = ring_circuit()
    moments = stationary_moments(ring, drive)
    assert moments.converged.all()
    assert moments.stable.all()
    assert moments.rates.min() >= 0
    assert np.linalg.eigvalsh(moments.covariance).min() > 0
    # a rotation of the ring without input changes nothing
    np.testing.assert_allclose(moments.mean[0, :50], moments.mean[0, 0], rtol=1e-6)


def test_noise_free_ring_network_oscillates():
    # at two of its contrasts the published network is stationary only thanks to its noise
    ring, drive = ring_circuit()
    moments = stationary_moments(ring, drive, closure="linear")
    assert moments.converged.tolist() == [True, False, False, True, True]
    assert moments.stable.tolist() == moments.converged.tolist()
    assert np.isnan(moments.mean[1:3]).all()
    assert np.isnan(moments.covariance[1:3]).all()
    quiet = replace(ring, noise_factor=np.zeros((100, 100)))
    late = simulate(quiet, drive, n_trials=1, burn_in=1500.0, duration=500.0)
    swing = np.sqrt(np.diagonal(late.covariance, axis1=1, axis2=2).max(1))
    assert (swing > 0.1).tolist() == [False, True, True, False, False]
    np.testing.assert_allclose(late.mean[moments.converged], moments.mean[moments.converged], 1e-5)


@closures
def test_runaway_excitation_is_reported(closure):
    circuit = Circuit([[3.0]], 1, 0.1)
    moments = stationary_moments(circuit, [[0.05], [5.0]], closure=closure)
    assert moments.converged.tolist() == [True, False]
    assert moments.stable.tolist() == [True, False]
    for name in ("mean", "covariance", "rates"):
        values = getattr(moments, name)
        assert np.isfinite(values[0]).all()
        assert np.isnan(values[1]).all()
    assert "1 of 2 inputs converged" in repr(moments)


def test_too_few_iterations_are_reported():
    ring, drive = ring_circuit()
    moments = stationary_moments(ring, drive[:1], max_iter=2)
    assert not moments.converged.any()
    assert np.isnan(moments.mean).all()


def test_no_input_depends_on_the_others():
    circuit = stable_circuit(6, 6, scale=0.1)
    drive = np.random.RandomState(3).uniform(0, 4, (70, 12))  # more than a block
    together = stationary_moments(circuit, drive)
    assert together.converged.all()
    for i in (0, 66):
        alone = stationary_moments(circuit, drive[i : i + 1])
        np.testing.assert_allclose(alone.mean[0], together.mean[i], rtol=1e-13)
        np.testing.assert_allclose(alone.covariance[0], together.covariance[i], rtol=1e-11)


def test_noise_may_be_absent():
    circuit = replace(stable_circuit(4, 2), noise_factor=np.zeros((6, 6)))
    drive = np.full((1, 6), 3.0)
    closed, linear = (stationary_moments(circuit, drive, closure=c) for c in CLOSURES)
    np.testing.assert_array_equal(closed.covariance, 0)
    np.testing.assert_allclose(closed.mean, linear.mean, rtol=1e-6)
    still = simulate(circuit, drive, n_trials=1, burn_in=500.0)
    np.testing.assert_allclose(linear.mean, still.mean, rtol=1e-6)


@closures
@pytest.mark.parametrize("gamma", [2.0, 1.5])
def test_gradient_is_that_of_the_equations(closure, gamma):
    circuit = stable_circuit(2, 1, scale=0.15, gamma=gamma, tau_i=7.0)
    h = np.random.RandomState(4).uniform(0.5, 1.5, (2, 3))
    arrays = [
        torch.tensor(np.array(x), dtype=torch.float64, requires_grad=True)
        for x in (circuit.weights, circuit.noise_factor, h, (1.2, 0.3, 1.1))
    ]

    def moments(weights, noise_factor, h, theta):
        tensors = replace(circuit, weights=weights, noise_factor=noise_factor, theta=theta)
        found = stationary_moments(tensors, tensors.drive(h), closure=closure, tol=1e-12)
        assert found.converged.all()
        return found.mean, found.covariance, found.rates

    torch.autograd.gradcheck(moments, arrays, eps=1e-6, atol=1e-6)


@closures
def test_gradient_of_twenty_cells_along_a_direction(closure):
    circuit = stable_circuit(10, 10, scale=0.1)
    rng = np.random.RandomState(5)
    drive, direction = rng.uniform(1, 4, (3, 20)), rng.uniform(0, 1, (20, 20))

    def cost(step):
        weights = circuit.weights * (1 + step * direction)
        found = stationary_moments(
            replace(circuit, weights=weights).to_torch(), drive, closure=closure, tol=1e-10
        )
        return (found.mean.sin().sum() + found.covariance.square().sum()).item()

    weights = torch.tensor(circuit.weights, requires_grad=True)
    found = stationary_moments(replace(circuit, weights=weights), drive, closure=closure)
    (found.mean.sin().sum() + found.covariance.square().sum()).backward()
    slope = (weights.grad.numpy() * circuit.weights * direction).sum()
    assert slope == pytest.approx((cost(1e-4) - cost(-1e-4)) / 2e-4, rel=1e-5)


def test_lost_inputs_leave_the_gradient_alone():
    weights = torch.tensor([[3.0]], dtype=torch.float64, requires_grad=True)
    drive = torch.tensor([[0.05], [5.0]], dtype=torch.float64, requires_grad=True)
    moments = stationary_moments(Circuit(weights, 1, 0.1), drive)
    moments.mean[moments.converged].sum().backward()
    assert weights.grad > 0
    assert drive.grad[0] > 1
    assert drive.grad[1] == 0
    lost = stationary_moments(Circuit(weights, 1, 0.1), drive[1:])
    lost.mean.sum().backward()
    assert torch.isfinite(weights.grad).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_are_of_the_circuits_kind(dtype):
    circuit = stable_circuit(3, 2)
    circuit = replace(circuit, weights=circuit.weights.astype(dtype))
    drive = np.ones((2, 5))
    moments = stationary_moments(circuit, drive)
    assert isinstance(moments, StationaryMoments)
    assert moments.mean.dtype == moments.covariance.dtype == moments.rates.dtype == dtype
    assert moments.covariance.shape == (2, 5, 5)
    assert moments.converged.dtype == moments.stable.dtype == bool
    tensors = stationary_moments(circuit.to_torch(), torch.ones(2, 5))
    assert tensors.mean.dtype == getattr(torch, np.dtype(dtype).name)
    np.testing.assert_array_equal(tensors.mean, moments.mean)
    with pytest.raises(AttributeError):
        moments.mean = 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"closure": "cubic"}, "'closure' parameter"),
        ({"tol": 0}, "'tol' parameter"),
        ({"tol": "tight"}, "'tol' parameter"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"max_iter": 2.5}, "'max_iter' parameter"),
        ({"drive": np.ones(5)}, "drive must have shape"),
        ({"drive": np.ones((2, 4))}, r"drive must have shape \(n_inputs, 5\)"),
        ({"drive": np.ones((0, 5))}, "at least one input"),
        ({"drive": np.full((1, 5), np.nan)}, "drive must be finite"),
    ],
)
def test_errors_say_what_is_legal(parameters, message):
    arguments = {"drive": np.ones((1, 5))} | parameters
    with pytest.raises(ValueError, match=message):
        stationary_moments(stable_circuit(3, 2), **arguments)
