"""The penalty on slow answers: exact where the dynamics are linear, and worth something."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from sklearn.datasets import load_digits

from ssn_estimators import Circuit, ContrastNormalizer, GaussianScaleMixture, SSNSampler
from ssn_estimators.training.penalties import unsettled

DRIVE = torch.tensor([[3.0, 2.0], [5.0, 3.0], [4.0, 4.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([[0.8, -0.6], [1.2, -0.5]], dtype=torch.float64)


def linear_pair(weights):
    """Rates equal potentials as long as these are positive."""
    return Circuit(weights, n_excitatory=1, noise_factor=1.0, k=1.0, gamma=1.0)


def fixed_points(weights, drive):
    return torch.linalg.solve(torch.eye(2).double() - weights, drive.mT).mT


def test_without_synapses_potentials_decay_with_the_time_constant():
    circuit = linear_pair(torch.zeros(2, 2, dtype=torch.float64))
    for time in (20.0, 40.0):
        share = unsettled(circuit, DRIVE, DRIVE, dt=0.1, time=time)
        assert share == pytest.approx(np.exp(-2 * time / 20), rel=1e-4)


def test_with_synapses_it_is_the_matrix_exponential():
    circuit, mean = linear_pair(WEIGHTS), fixed_points(WEIGHTS, DRIVE)
    assert (mean > 0).all()
    jacobian = (WEIGHTS.numpy() - np.eye(2)) / np.array([[20.0], [10.0]])
    way = mean.roll(1, 0) - mean
    left = way.numpy() @ expm(40 * jacobian).T
    expected = (left[:, 0] ** 2).sum() / float((way[:, 0] ** 2).sum())
    assert unsettled(circuit, DRIVE, mean, dt=0.1) == pytest.approx(expected, rel=1e-4)


def test_gradient():
    weights = WEIGHTS.clone().requires_grad_()
    mean = fixed_points(WEIGHTS, DRIVE)

    def share(weights, drive):
        return unsettled(linear_pair(weights), drive, mean, dt=2.0)

    assert torch.autograd.gradcheck(share, (weights, DRIVE.clone().requires_grad_()))


@pytest.mark.parametrize("drive", [DRIVE[:1], DRIVE[:1].repeat(3, 1)])
def test_where_nothing_changes_nothing_is_left(drive):
    mean = fixed_points(WEIGHTS, drive)
    assert unsettled(linear_pair(WEIGHTS), drive, mean) == pytest.approx(0, abs=1e-9)
    # nor where means are not the fixed points, by rounding or by a closure
    share = unsettled(linear_pair(WEIGHTS), drive, 1.05 * mean.requires_grad_())
    assert share == 0
    share.backward()
    assert (mean.grad == 0).all()


@pytest.mark.slow
def test_networks_trained_for_speed_are_faster():
    X = ContrastNormalizer().fit_transform(load_digits(return_X_y=True)[0])
    model = GaussianScaleMixture(4, random_state=0).fit(X)
    settings = {"max_iter": 150, "growth_iter": 5, "finetune_iter": 0, "random_state": 0}

    def left(penalty):
        sampler = SSNSampler(model, settling_penalty=penalty, **settings).fit(X)
        mean, drive = sampler.simulate(X[:40]).mean, sampler.drive(X[:40])
        return unsettled(sampler.circuit_.to_torch(), torch.tensor(drive), torch.tensor(mean))

    assert left(10.0) < 0.8 * left(0.0)
