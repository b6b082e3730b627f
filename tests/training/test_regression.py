"""The regression task: its loss against formulas."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from ssn_estimators.training import Regression

RNG = np.random.RandomState(0)
VALUES, WEIGHTS = RNG.normal(size=(7, 2)), RNG.uniform(0.1, 3, 7)


ARRAYS = {"coef": RNG.normal(size=(2, 4)), "intercept": RNG.normal(size=2)}
MEAN = RNG.normal(size=(7, 5))  # of potentials; the fifth cell is inhibitory


def loss(rows=slice(None)):
    tensors = {name: torch.from_numpy(value) for name, value in ARRAYS.items()}
    moments = SimpleNamespace(mean=torch.from_numpy(MEAN[rows]))
    targets = Regression.targets(VALUES, WEIGHTS)[rows]
    return float(Regression(True).loss(moments, tensors, targets))


def test_loss_is_the_weighted_mean_squared_error():
    found = MEAN[:, :4] @ ARRAYS["coef"].T + ARRAYS["intercept"]
    expected = np.average((found - VALUES) ** 2, axis=0, weights=WEIGHTS).mean()
    assert_allclose(loss(), expected, rtol=1e-6)


def test_batches_are_unbiased():
    """Losses of batches of one size are on average that of all samples."""
    batches = [loss(list(rows)) for rows in combinations(range(7), 3)]
    assert_allclose(np.mean(batches), loss(), rtol=1e-6)


def test_loss_of_chance_is_the_variance():
    found = Regression(True).chance_loss(Regression.targets(VALUES, WEIGHTS))
    mean = np.average(VALUES, axis=0, weights=WEIGHTS)
    assert_allclose(found, np.average((VALUES - mean) ** 2, axis=0, weights=WEIGHTS).mean(), 1e-6)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_targets_that_do_not_vary_are_not_compared_with_chance(value):
    """Nothing can be learned from them, and nothing is to be complained about."""
    targets = Regression.targets(np.full((4, 1), value), np.ones(4))
    assert Regression(True).chance_loss(targets) == np.inf
