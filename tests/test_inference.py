"""The cost of moments: free of sampling variance, and what it is worth for known errors."""

import numpy as np
import pytest
import torch

from ssn_estimators.inference import Inference, moment_errors

GENERATOR = torch.Generator().manual_seed(0)


def sampled(mean, factor, n):
    x = mean[:, None] + torch.randn(len(mean), n, 3, generator=GENERATOR).double() @ factor.mT
    centred = x - x.mean(1, keepdim=True)
    return x.mean(1), centred.mT @ centred / n


@pytest.fixture
def targets():
    mean = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]).double()
    factor = torch.tril(torch.tensor([[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.4, 1.2]])).double()
    return mean, factor


def test_errors_of_known_size(targets):
    mean, factor = targets
    covariance = (factor @ factor.mT).expand(2, 3, 3)
    means, covariances = [1.1 * mean], [1.2 * covariance]
    for averaging in ("per_input", "pooled"):
        errors = moment_errors(means, covariances, mean, covariance, averaging)
        np.testing.assert_allclose(errors, [0.01, 0.04, 0.04])
    # averaging matters where inputs differ
    means = [mean * torch.tensor([[1.1], [1.3]])]
    errors = [
        moment_errors(means, covariances, mean, covariance, a)[0] for a in ("per_input", "pooled")
    ]
    norms = (mean**2).sum(1)
    assert errors[0] == pytest.approx((0.01 + 0.09) / 2)
    assert errors[1] == pytest.approx(float((0.01 * norms[0] + 0.09 * norms[1]) / norms.sum()))


def test_groups_of_trials_have_no_bias(targets):
    mean, factor = targets
    covariance = (factor @ factor.mT).expand(2, 3, 3)
    wrong_mean, wrong = mean + 0.1, 1.1 * covariance
    n_repeats, n_samples = 4000, 6
    found = []
    for _ in range(n_repeats):
        groups = [sampled(mean, factor, n_samples) for _ in range(4)]
        found.append(moment_errors(*zip(*groups, strict=True), wrong_mean, wrong))
    found = torch.stack(found)
    exact = moment_errors([mean], [covariance], wrong_mean, wrong)
    error = found.std(0) / n_repeats**0.5
    assert ((found.mean(0) - exact).abs() < 4 * error).all()
    # a single estimate would be off by its variance
    naive = moment_errors(*([x] for x in sampled(mean, factor, n_samples)), wrong_mean, wrong)
    assert naive[2] > exact[2]


def test_a_smaller_circuit_stands_for_the_first_latents(targets):
    mean, factor = targets
    covariance = (factor @ factor.mT).expand(2, 3, 3)
    task = Inference((1.0, 1.0, 1.0), "per_input")

    class Moments:
        mean = torch.zeros(2, 4).double()
        covariance = torch.zeros(2, 4, 4).double()

    loss = task.loss(Moments, {}, Inference.targets(mean, covariance))
    assert loss == pytest.approx(3.0)  # nothing is explained, of either
    Moments.mean = torch.cat([mean[:, :2], mean[:, :2]], 1)
    Moments.covariance[:, :2, :2] = covariance[:, :2, :2]
    assert task.loss(Moments, {}, Inference.targets(mean, covariance)) == 0
