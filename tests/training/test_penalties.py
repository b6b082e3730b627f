"""Penalties that keep training stable, against the matrix exponential and their purpose."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.linalg import expm

from ssn_estimators import Circuit, random_circuit, stationary_moments
from ssn_estimators.inspection import spectral_abscissa
from ssn_estimators.training.penalties import (
    Penalties,
    excess_growth,
    excess_potential,
    excess_variance,
    growth_of_deviations,
    silence,
)

HORIZON = 256.0


def jacobian(circuit, mean):
    gain = circuit.k * circuit.gamma * np.maximum(mean, 0) ** (circuit.gamma - 1)
    return (circuit.weights * gain - np.eye(circuit.n_neurons)) / circuit.tau[:, None]


@pytest.mark.parametrize("size", [(1, 1), (6, 2), (20, 20)])
def test_growth_is_the_norm_of_the_matrix_exponential(size):
    circuit = random_circuit(*size, scale=0.1, random_state=0)
    mean = np.random.RandomState(1).uniform(-1, 4, size=(5, sum(size)))
    growth = growth_of_deviations(circuit.to_torch(), torch.tensor(mean))
    for found, u in zip(growth.tolist(), mean, strict=True):
        exact = np.log(np.linalg.norm(expm(HORIZON * jacobian(circuit, u))))
        assert found == pytest.approx(exact, rel=1e-3)


def test_growth_bounds_the_spectral_abscissa():
    circuit = random_circuit(10, 10, scale=0.1, random_state=0)
    mean = np.random.RandomState(1).uniform(0, 6, size=(20, 20))
    growth = growth_of_deviations(circuit.to_torch(), torch.tensor(mean)).numpy()
    abscissae = [np.linalg.eigvals(jacobian(circuit, u)).real.max() for u in mean]
    assert (growth >= HORIZON * np.array(abscissae) - 1e-3).all()


def test_growth_far_beyond_the_range_of_floats_is_finite():
    circuit = Circuit(np.array([[20.0]], np.float32), 1, 0.1).to_torch()
    growth = growth_of_deviations(circuit, torch.tensor([[3.0]]))
    # the slope is (20 * .6 * 3 - 1) / 20 per ms: e^448
    assert growth.item() == pytest.approx(448, rel=0.02)


def test_gradient_of_growth():
    weights = torch.tensor([[0.8, -0.6], [1.2, -0.5]], dtype=torch.float64, requires_grad=True)
    mean = torch.tensor([[3.0, 2.0], [5.0, 1.0]], dtype=torch.float64, requires_grad=True)

    def growth(weights, mean):
        return growth_of_deviations(Circuit(weights, 1, 0.1), mean)

    assert torch.autograd.gradcheck(growth, (weights, mean))


def test_descent_on_the_penalty_makes_a_circuit_stable():
    weights = torch.tensor([[1.0, -0.3], [1.0, -0.3]], dtype=torch.float64, requires_grad=True)
    mean = torch.tensor([[3.0, 2.0]] * 3, dtype=torch.float64)
    optimizer = torch.optim.Adam([weights], lr=0.01)
    before = np.linalg.eigvals(jacobian(Circuit(weights.detach().numpy(), 1, 0.1), mean[0].numpy()))
    assert before.real.max() > 0
    for _ in range(200):
        penalty = excess_growth(Circuit(weights, 1, 0.1), mean)
        if penalty == 0:
            break
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
    after = np.linalg.eigvals(jacobian(Circuit(weights.detach().numpy(), 1, 0.1), mean[0].numpy()))
    assert after.real.max() < 0


def test_one_input_that_runs_away_is_seen_among_many():
    weights = torch.tensor([[0.6, -0.1], [0.1, -0.1]])
    mean = torch.full((256, 2), 0.5)
    circuit = Circuit(weights, 1, 0.1)
    assert excess_growth(circuit, mean) == 0
    mean[200] = 6.0
    assert excess_growth(circuit, mean) > 1


def test_stable_circuits_cost_nothing():
    circuit = Circuit([[1.25, -0.65], [1.2, -0.5]], 1, 0.2, k=0.04)
    assert (spectral_abscissa(circuit, [[2.0, 2.0]], closure="linear") < -0.01).all()
    assert excess_growth(circuit.to_torch(), torch.tensor([[2.0, 2.0]]).double()) == 0


def test_potentials_are_penalised_outside_of_their_range():
    mean = torch.tensor([[5.0, 0.2, 0.0], [26.0, 0.6, 3.0]])
    assert excess_potential(mean).item() == pytest.approx(36 / 6)
    assert silence(mean).item() == pytest.approx(0.16)  # one cell is .4 mV below on all inputs
    assert silence(torch.tensor([[5.0, 1.0], [0.0, 7.0]])) == 0


def test_variances_cost_what_they_exceed():
    variance = torch.tensor([[0.5, 3.0], [1.0, 2.0]])
    assert excess_variance(variance, 1.0).item() == pytest.approx((2 + 1) / 4)
    assert excess_variance(variance, 2.5).item() == pytest.approx(0.5 / 4)
    assert excess_variance(variance, 3.0) == 0


@pytest.mark.parametrize("closure", ["linear", "gaussian"])
def test_variances_of_inhibitory_cells_alone_count(closure):
    """Of cells without synapses: noise of s mV gives s**2 / 2 and, with 10 ms, 2 s**2 / 3."""
    circuit = Circuit(np.zeros((2, 2)), 1, [3.0, 6.0], tau=[20.0, 10.0]).to_torch()
    covariance = stationary_moments(circuit, [[5.0, 5.0]], closure=closure).covariance
    assert_allclose(covariance.diagonal(dim1=1, dim2=2), [[4.5, 24.0]], rtol=1e-5)
    penalties = Penalties(variance=0.1, asked_variance=4.0)
    assert penalties.of_variances(circuit, covariance).item() == pytest.approx(0.1 * 20, rel=1e-5)
