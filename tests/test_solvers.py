"""Solvers: order of convergence, stationary moments, and the adjoint engine's gradients."""

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.linalg import block_diag, solve_continuous_lyapunov

from ssn_estimators import Circuit, simulate
from ssn_estimators.simulation import SCHEMES, adjoint, reference

ORDER = {"euler": 1, "heun": 2, "ab2": 2}
WEIGHTS = [[1.0, 0.4, -1.5], [0.5, 0.6, -1.0], [1.6, 1.0, -0.8]]
NOISE = [[0.5, 0.1, 0.0], [-0.2, 0.4, 0.1], [0.3, 0.0, 0.3]]


def circuit(**changes):
    parameters = {"noise_factor": NOISE, "k": 0.05, "tau_eta": 15.0}
    return Circuit(WEIGHTS, 2, **parameters | changes)


def linear_circuit():
    """A circuit that stays linear under a large constant drive, and that drive."""
    return circuit(gamma=1.0, k=0.3), np.array([[20.0, 22.0, 25.0]])


def fitted_order(steps, errors):
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


def linear_system(circuit):
    """A and the stationary covariance P of d(u, eta) = A (u, eta) dt + white noise."""
    n = circuit.n_neurons
    rate, eye = np.diag(1 / circuit.tau), np.eye(n)
    to_u = np.hstack([rate @ (circuit.k * circuit.weights - eye), rate])
    A = np.vstack([to_u, np.hstack([np.zeros((n, n)), -eye / circuit.tau_eta])])
    noise = 2 / circuit.tau_eta * circuit.noise_factor @ circuit.noise_factor.T
    return A, solve_continuous_lyapunov(A, -block_diag(np.zeros((n, n)), noise))


def fixed_point(circuit, drive):
    return np.linalg.solve(np.eye(circuit.n_neurons) - circuit.k * circuit.weights, drive.T).T


@pytest.mark.parametrize("moving", [False, True], ids=["constant", "moving"])
@pytest.mark.parametrize("solver", SCHEMES)
def test_order_without_noise(solver, moving):
    quiet = circuit(noise_factor=0.0)

    def end(solver, dt, duration=40.0):
        phase = dt * np.arange(round(duration / dt))[:, None, None] / 25.0
        drive = np.array([[6.0, 3.0, 4.0]]) * (1 + 0.5 * moving * np.sin(phase + np.arange(3)))
        settings = {"n_trials": 1, "burn_in": 0.0, "duration": duration, "record": "u"}
        path = simulate(quiet, drive, dt=dt, solver=solver, **settings).u[:, 0, 0]
        assert (path > 0).all()  # smooth right-hand side
        return path[-1]

    exact = end("heun", 2.0**-6)
    steps = [1.0, 0.5, 0.25, 0.125]
    errors = [np.abs(end(solver, dt) - exact).max() for dt in steps]
    assert fitted_order(steps, errors) == pytest.approx(ORDER[solver], abs=0.2)


def discrete_covariance(circuit, drive, dt, solver, duration=300.0):
    """Covariance of u at the end, exactly: the sum of squared responses to single draws.

    One column for every standard normal number that enters the OU noise: each step's, and
    those of the stationary start. The first column has none of them.
    """
    n, n_steps = circuit.n_neurons, round(duration / dt)
    decay = np.exp(-dt / circuit.tau_eta)
    lag = np.arange(n_steps + 1)[:, None] - np.arange(n_steps + 1)
    response = np.where(lag >= 0, decay ** np.maximum(lag, 0), 0.0)
    response[:, 1:] *= np.sqrt(1 - decay**2)
    eta = response[:, :, None, None] * circuit.noise_factor.T  # step, draw's step, draw, cell
    eta = np.concatenate([np.zeros((n_steps + 1, 1, n)), eta.reshape(n_steps + 1, -1, n)], axis=1)
    start = torch.tensor(fixed_point(circuit, drive)).expand(eta.shape[1], -1)
    forcing = torch.tensor(drive + eta)
    path, _ = adjoint.integrate(circuit.to_torch(), start, forcing, dt, solver)
    assert (path > 0).all()  # the response is linear
    deviation = (path[-1, 1:] - path[-1, 0]).numpy()
    return deviation.T @ deviation


@pytest.mark.parametrize("solver", SCHEMES)
def test_order_with_noise(solver):
    linear, drive = linear_circuit()
    exact = linear_system(linear)[1][:3, :3]
    steps = [2.0, 1.5, 1.0, 0.75]
    covariances = [discrete_covariance(linear, drive, dt, solver) for dt in steps]
    errors = [np.abs(covariance - exact).max() for covariance in covariances]
    assert fitted_order(steps, errors) == pytest.approx(ORDER[solver], abs=0.2)
    assert errors[-1] < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("solver", ["heun", "ab2"])
def test_moments_of_a_linear_circuit(solver):
    linear, drive = linear_circuit()
    settings = {"n_trials": 200, "duration": 500.0, "burn_in": 300.0, "dt": 0.5}
    outcome = simulate(linear, drive, solver=solver, random_state=0, record="u", **settings)
    mean = fixed_point(linear, drive)[0]
    covariance = linear_system(linear)[1][:3, :3]
    assert (outcome.u > 0).all()
    # trials are independent: the standard error is that of the mean of their time averages
    deviation = outcome.u[:, 0] - mean
    of_trials = np.einsum("tki,tkj->kij", deviation, deviation) / len(deviation)
    standard_error = of_trials.std(0, ddof=1) / np.sqrt(len(of_trials))
    assert (standard_error < 0.05 * np.abs(covariance).max()).all()
    assert (np.abs(outcome.covariance[0] - covariance) < 4 * standard_error).all()
    standard_error = deviation.mean(0).std(0, ddof=1) / np.sqrt(len(of_trials))
    assert (np.abs(outcome.mean[0] - mean) < 4 * standard_error).all()
    assert_allclose(outcome.rates, linear.k * outcome.mean)
    assert_allclose(outcome.rates[0], linear.k * mean, atol=4 * linear.k * standard_error.max())


@pytest.mark.parametrize("dt", [0.5, 4.0])
def test_noise_is_stationary_at_any_step(dt):
    noisy = circuit()
    settings = {"n_trials": 400, "duration": 400.0, "burn_in": 0.0, "random_state": 0}
    eta = simulate(noisy, np.zeros((1, 3)), dt=dt, record="eta", **settings).eta[:, 0]
    covariance = noisy.noise_factor @ noisy.noise_factor.T
    # from the first sample on
    at_start = np.cov(eta[0].T)
    assert_allclose(at_start, covariance, atol=4 * np.sqrt(2 / 400) * covariance.max())
    for lag in (0, 8, 16, 32):
        steps = round(lag / dt)
        products = np.einsum("tki,tkj->tkij", eta[: len(eta) - steps], eta[steps:]).mean(0)
        standard_error = products.std(0, ddof=1) / np.sqrt(len(products))
        difference = products.mean(0) - np.exp(-lag / noisy.tau_eta) * covariance
        assert (np.abs(difference) < 4 * standard_error).all()
    correlation = (eta[round(16 / dt) :] * eta[: -round(16 / dt)]).mean() / (eta**2).mean()
    assert -16 / np.log(correlation) == pytest.approx(noisy.tau_eta, rel=0.05)


def problem(gamma, start):
    """Leaf tensors and the integration's constants; some cells are below threshold."""
    rng = np.random.RandomState(1)
    values = {"weights": 3 * np.array(WEIGHTS), "forcing": 3 * rng.normal(size=(26, 4, 3))}
    if start != "cold":
        values["slope"] = rng.normal(size=(4, 3))
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    tensors = replace(circuit(gamma=gamma).to_torch(), weights=leaves["weights"])
    return leaves, tensors, torch.tensor(rng.normal(size=(4, 3)))


@pytest.mark.parametrize("start", ["cold", "warm"])
@pytest.mark.parametrize("gamma", [1.0, 2.0, 2.5])
@pytest.mark.parametrize("solver", SCHEMES)
def test_adjoint_is_the_gradient_of_the_reference(solver, gamma, start):
    paths, slopes, gradients = [], [], []
    for engine in (reference.integrate, adjoint.integrate):
        leaves, tensors, u = problem(gamma, start)
        result = engine(tensors, u, leaves["forcing"], 1.0, solver, leaves.get("slope"))
        if engine is reference.integrate:
            states, all_slopes = zip(*result, strict=True)
            result = torch.stack(states), all_slopes[-1]
        path, slope = result
        rng = np.random.RandomState(2)
        loss = (path * torch.tensor(rng.normal(size=path.shape))).sum()
        if solver == "ab2":  # others do not hand the slope on
            loss = loss + (slope * torch.tensor(rng.normal(size=slope.shape))).sum()
        gradients.append(torch.autograd.grad(loss, leaves.values(), materialize_grads=True))
        paths.append(path.detach())
        slopes.append(slope.detach())
    assert (paths[0] < 0).any()
    assert (paths[0] > 0).any()
    assert_allclose(paths[1], paths[0], rtol=1e-10, atol=1e-12)
    assert_allclose(slopes[1], slopes[0], rtol=1e-10, atol=1e-12)
    for of_adjoint, of_reference in zip(gradients[1], gradients[0], strict=True):
        assert_allclose(of_adjoint, of_reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk_elements", [None, 24], ids=["one chunk", "chunks"])
@pytest.mark.parametrize("solver", SCHEMES)
def test_gradcheck_through_simulate(solver, chunk_elements, monkeypatch):
    if chunk_elements:  # 2 steps of 2 inputs, 2 trials and 3 cells
        module = importlib.import_module("ssn_estimators.simulation.simulate")
        monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk_elements)
    settings = {"n_trials": 2, "duration": 5.0, "burn_in": 0.0, "solver": solver, "record": "u"}

    def outcome(weights, noise_factor, theta, h, bias):
        tensors = Circuit(weights, 2, noise_factor, theta=theta, k=0.05, gamma=2.5)
        outcome = simulate(tensors, tensors.drive(h) + bias, random_state=0, **settings)
        return outcome.mean, outcome.covariance, outcome.rates, outcome.u[[0, -1]]

    h, bias = [[2.0, 1.0, 3.0], [0.5, 4.0, 1.0]], [[0.1, 0.0, -0.2], [0.0, 0.3, 0.0]]
    values = (WEIGHTS, NOISE, [1.5, 0.2, 1.3], h, bias)
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in values]
    assert torch.autograd.gradcheck(outcome, leaves)
