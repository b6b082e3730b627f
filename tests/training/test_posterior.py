"""The cost of moments: free of sampling variance, and what it is worth for known errors."""

import numpy as np
import pytest
import torch

from ssn_estimators.training.posterior import Inference, moment_errors

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
    # nothing is explained of their share of all
    share = ((mean[:, :2] ** 2).sum(1) / (mean**2).sum(1)).mean()
    for target in (covariance[0].diagonal(), covariance[0]):
        share += (target[:2] if target.ndim == 1 else target[:2, :2]).square().sum() / (
            target.square().sum()
        )
    assert loss == pytest.approx(float(share))
    Moments.mean = torch.cat([mean[:, :2], mean[:, :2]], 1)
    Moments.covariance[:, :2, :2] = covariance[:, :2, :2]
    assert task.loss(Moments, {}, Inference.targets(mean, covariance)) == 0


def test_few_latents_are_measured_against_all(targets):
    # the first latent's own target may be 0, as the least of all target means is
    mean, factor = targets
    mean = mean - mean[:, :1]
    covariance = (factor @ factor.mT).expand(2, 3, 3)
    means, covariances = [mean[:, :1] + 0.3], [2 * covariance[:, :1, :1]]
    errors = moment_errors(means, covariances, mean, covariance, n_latents=1)
    variances = covariance[0].diagonal()
    expected = [
        (0.09 / (mean**2).sum(1)).mean(),
        variances[0] ** 2 / (variances**2).sum(),
        variances[0] ** 2 / (covariance[0] ** 2).sum(),
    ]
    np.testing.assert_allclose(errors, expected)


def test_a_target_mean_of_zero_counts_as_a_share_of_the_variance(targets):
    mean, factor = targets
    covariance = (factor @ factor.mT).expand(2, 3, 3)
    errors = moment_errors([0 * mean + 0.1], [covariance], 0 * mean, covariance)
    assert errors[0] == pytest.approx(0.03 / (0.01 * float(covariance[0].trace())))


def test_errors_that_are_not_normalised(targets):
    mean, factor = targets
    covariance = (factor @ factor.mT).expand(2, 3, 3)
    found = moment_errors([mean + 0.1], [covariance + 0.2], mean, covariance, "unnormalized")
    np.testing.assert_allclose(found, [0.01, 0.04, 0.04])
