"""Solvers: order of convergence, stationary moments and gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.linalg import block_diag, solve_continuous_lyapunov
from torch.autograd.function import once_differentiable

from ssn_estimators import Circuit, simulate
from ssn_estimators.simulation import SCHEMES
from ssn_estimators.simulation.cpu import blocks, steps
from ssn_estimators.simulation.cpu import engine as cpu

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

    One input for every standard normal number that enters the OU noise: each step's, and
    those of the stationary start. The first input has none of them.
    """
    n, n_steps = circuit.n_neurons, round(duration / dt)
    decay = np.exp(-dt / circuit.tau_eta)
    lag = np.arange(n_steps + 1)[:, None] - np.arange(n_steps + 1)
    response = np.where(lag >= 0, decay ** np.maximum(lag, 0), 0.0)
    response[:, 1:] *= np.sqrt(1 - decay**2)
    eta = response[:, :, None, None] * circuit.noise_factor.T  # step, draw's step, draw, cell
    eta = np.concatenate([np.zeros((n_steps + 1, 1, n)), eta.reshape(n_steps + 1, -1, n)], axis=1)
    # one step more, as Heun looks at the forcing at the end of a step
    burn_in = np.broadcast_to(drive, (round(150 / dt), *eta.shape[1:]))
    settings = {"burn_in": 150.0, "duration": dt * (n_steps + 1), "dt": dt, "n_trials": 1}
    settings |= {"solver": solver, "record": "u", "covariance": False}
    quiet = replace(circuit, noise_factor=0.0)
    u = simulate(quiet, np.concatenate([burn_in, drive + eta]), **settings).u[:, :, 0]
    assert (u > 0).all()  # the response is linear
    deviation = u[-2, 1:] - u[-2, 0]
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


class _Anew(torch.autograd.Function):
    """A function evaluated again for every gradient, which a simulation hands out only once."""

    @staticmethod
    def forward(ctx, function, *leaves):
        ctx.function, ctx.leaves = function, leaves
        return tuple(x.detach() for x in function(*leaves))

    @staticmethod
    @once_differentiable
    def backward(ctx, *owed):
        leaves = [x.detach().requires_grad_() for x in ctx.leaves]
        with torch.enable_grad():
            outcome = ctx.function(*leaves)
        return None, *torch.autograd.grad(outcome, leaves, owed)


@pytest.mark.parametrize(("gamma", "cut"), [(1.0, False), (2.5, False), (2.5, True)])
@pytest.mark.parametrize("solver", SCHEMES)
def test_gradcheck_through_simulate(solver, gamma, cut, monkeypatch):
    if cut:  # one trial of one input, and two steps, at a time
        for module, name, value in (
            (cpu, "BLOCK_ELEMENTS", 1),
            (cpu, "BLOCK_COLUMNS", 1),
            (steps, "CHUNK", 2),
            (steps, "FEW", 0),
            (blocks, "CHECKPOINT", 2),
        ):
            monkeypatch.setattr(module, name, value)
    settings = {"n_trials": 2, "duration": 5.0, "burn_in": 0.0, "solver": solver, "record": "u"}

    def outcome(weights, noise_factor, theta, h, bias):
        tensors = Circuit(weights, 2, noise_factor, theta=theta, k=0.05, gamma=gamma)
        outcome = simulate(tensors, tensors.drive(h) + bias, random_state=0, **settings)
        values = outcome.mean, outcome.covariance, outcome.rates, outcome.u[[0, -1]]
        rng = np.random.RandomState(0)  # a random sum of each depends on all of its entries
        return [(torch.tensor(rng.normal(size=x.shape)) * x).sum() for x in values]

    h, bias = [[2.0, 1.0, 3.0], [0.5, 4.0, 1.0]], [[0.1, 0.0, -0.2], [0.0, 0.3, 0.0]]
    values = (WEIGHTS, NOISE, [1.5, 0.2, 1.3], h, bias)
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in values]
    assert torch.autograd.gradcheck(lambda *leaves: _Anew.apply(outcome, *leaves), leaves)
