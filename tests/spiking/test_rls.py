"""Recursive least squares is ridge regression."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ssn_estimators.spiking.rls import CHUNK, RecursiveLeastSquares

N_CELLS, N_INPUTS, N_SAMPLES = 5, 6, 50


@pytest.fixture
def problem():
    rng = np.random.RandomState(0)
    start = rng.randn(N_CELLS, N_INPUTS)
    x, y = rng.randn(N_SAMPLES, N_CELLS, N_INPUTS), rng.randn(N_SAMPLES, N_CELLS)
    half = np.repeat(np.eye(2), N_INPUTS // 2, axis=0)
    return start, x, y, 0.8 * np.eye(N_INPUTS) + 8.0 * half @ half.T


def trained(start, x, y, penalty):
    rls = RecursiveLeastSquares(start, penalty)
    for inputs, targets in zip(x, y, strict=True):
        rls.update(inputs, (rls.weights * inputs).sum(1) - targets)
    return rls


def ridge(start, x, y, penalty):
    """The minimum at once, of one cell."""
    return start + np.linalg.solve(penalty + x.T @ x, x.T @ (y - x @ start))


@pytest.mark.parametrize("n_samples", [1, 16, 17, 50])
def test_weights_are_those_of_the_batch_solution(problem, n_samples):
    start, x, y, penalty = problem
    x, y = x[:n_samples], y[:n_samples]
    rls = trained(start, x, y, penalty)
    for i in range(N_CELLS):
        assert_allclose(rls.weights[i], ridge(start[i], x[:, i], y[:, i], penalty), rtol=1e-10)
        precision = np.linalg.inv(penalty + x[:, i].T @ x[:, i])
        assert_allclose(rls.precision[i], precision, atol=1e-12)


def test_penalties_may_differ_between_cells(problem):
    start, x, y, penalty = problem
    penalties = penalty * np.arange(1, N_CELLS + 1)[:, None, None]
    rls = trained(start, x, y, lambda cells: penalties[cells])
    for i in range(N_CELLS):
        assert_allclose(rls.weights[i], ridge(start[i], x[:, i], y[:, i], penalties[i]), rtol=1e-10)


def test_precision_stays_symmetric_and_positive_definite(problem):
    precision = trained(*problem).precision
    assert_allclose(precision, precision.swapaxes(1, 2), atol=1e-15)
    assert (np.linalg.eigvalsh(precision) > 0).all()


def test_weights_fixed_at_zero_are_a_constraint_of_the_regression(problem):
    start, x, y, penalty = problem
    rls = trained(start, x[:20], y[:20], penalty)
    which = np.zeros((N_CELLS, N_INPUTS), bool)
    which[1, [0, 4]] = which[3, 2] = True
    rls.fix_at_zero(which)
    rls.fix_at_zero(which)  # again changes nothing
    for inputs, targets in zip(x[20:], y[20:], strict=True):
        rls.update(inputs, (rls.weights * inputs).sum(1) - targets)
    for i in range(N_CELLS):
        free = ~which[i]
        quadratic = penalty + x[:, i].T @ x[:, i]
        linear = penalty @ start[i] + x[:, i].T @ y[:, i]
        wanted = np.linalg.solve(quadratic[np.ix_(free, free)], linear[free])
        assert_allclose(rls.weights[i, free], wanted, rtol=1e-9)
        assert (rls.weights[i, ~free] == 0).all()


def test_many_cells_are_worked_on_in_parts():
    rng, n_cells = np.random.RandomState(0), 2 * CHUNK + 3
    start, scale = rng.randn(n_cells, 3), 1 + rng.rand(n_cells)
    x, y = rng.randn(20, n_cells, 3), rng.randn(20, n_cells)
    rls = trained(start, x, y, lambda cells: scale[cells, None, None] * np.eye(3))
    for i in (0, CHUNK - 1, CHUNK, n_cells - 1):
        wanted = ridge(start[i], x[:, i], y[:, i], scale[i] * np.eye(3))
        assert_allclose(rls.weights[i], wanted, rtol=1e-9)
    which = rng.rand(n_cells, 3) < 0.3
    rls.fix_at_zero(which)
    assert ((rls.weights == 0) == which).all()


def test_weights_are_fixed_even_where_rounding_has_spoilt_the_precision(problem):
    start, x, y, penalty = problem
    rls = trained(start, x, y, penalty)
    rls.precision[2, 1, 1] = -1e-3
    which = np.zeros((N_CELLS, N_INPUTS), bool)
    which[2, 1] = True
    rls.fix_at_zero(which)
    assert rls.weights[2, 1] == 0
    assert np.isfinite(rls.weights).all()


def test_copies_go_on_as_the_original(problem):
    rls = trained(*problem)
    copy = pickle.loads(pickle.dumps(rls))
    for each in (rls, copy):
        each.update(problem[1][0], np.ones(N_CELLS))
    assert_allclose(copy.weights, rls.weights)


def test_single_precision_is_kept(problem):
    start, x, y, penalty = problem
    rls = trained(start.astype(np.float32), x, y, penalty)
    assert rls.weights.dtype == rls.precision.dtype == np.float32
    assert_allclose(rls.weights, trained(*problem).weights, atol=1e-4)
