"""The published ring network of Echeveste et al. 2020 on its benchmark."""

import numpy as np
import pytest

from ssn_estimators import simulate
from ssn_estimators.datasets import make_ring_gsm, make_ring_network


def ring_errors(mean, covariance, target):
    """Errors of mean, variance and covariance of the E cells, over the size of the target."""
    errors = mean[:, :50] - target.mu, covariance[:, :50, :50] - target.sigma
    pairs = [(errors[0], target.mu), (errors[1], target.sigma)]
    pairs.insert(1, tuple(np.diagonal(x, axis1=1, axis2=2) for x in pairs[1]))
    sizes = [np.sqrt((y**2).reshape(5, -1).mean(1)) for _, y in pairs]
    return [x.reshape(5, -1) / size[:, None] for (x, _), size in zip(pairs, sizes, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "cost", "margin"), [("euler", 0.32, 0.04), ("heun", 0.12, 0.03)]
)
def test_published_ring_network(solver, cost, margin):
    # Echeveste et al. 2020: at their step of 0.2 ms, Euler's error is most of the cost
    target = make_ring_gsm()
    ring = make_ring_network()
    settings = {"n_trials": 100, "duration": 1000.0, "burn_in": 200.0, "dt": 0.2, "rates": False}
    halves = []
    for seed in (0, 1):
        drive = ring.drive(target.h)
        outcome = simulate(ring, drive, solver=solver, random_state=seed, **settings)
        assert not outcome.diverged.any()
        halves.append(ring_errors(outcome.mean, outcome.covariance, target))
    # a squared error contains the sampling variance, the product of two halves' does not
    normalised = [(x * y).mean() for x, y in zip(*halves, strict=True)]
    assert np.dot([0.01, 2, 1], normalised) == pytest.approx(cost, abs=margin)
