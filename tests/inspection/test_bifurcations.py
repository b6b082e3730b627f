"""Bifurcations against formulae and published regimes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from published import LIMIT_CYCLE, PAIR_A, PERSISTENT, both

from ssn_estimators import Circuit, simulate
from ssn_estimators.inspection import bifurcations, fixed_points, steady_states

CELL = Circuit([[0.5]], 1)  # u = h + 0.15 u^2


@pytest.mark.parametrize("values", [[0.0, 2.0], [-3.0, 0.0, 1.0, 1.5, 1.66, 1.67, 9.0]])
def test_the_saddle_node_of_a_cell(values):
    found = bifurcations(CELL, lambda h: [h], values)
    (point,) = found.points
    assert point.kind == "saddle-node"
    assert_allclose(point.value, 1 / 0.6, rtol=1e-8)
    assert_allclose(point.u, 1 / 0.3, rtol=1e-3)
    assert np.isnan(point.frequency)
    beyond = found.values > point.value
    assert_array_equal(found.stable, ~beyond)
    assert_array_equal(np.isnan(found.u[:, 0]), beyond)


@pytest.mark.parametrize("values", [[1.0, 1.1], [0.7, 3.0], [3.0, 2.0, 0.7]])
def test_the_hopf_bifurcation_of_a_pair(values):
    drive = [values[0], 0.01]
    start = fixed_points(LIMIT_CYCLE, [drive])[0].u[0]
    found = bifurcations(LIMIT_CYCLE, lambda h: [h, 0.01], values, start=start)
    (point,) = found.points
    assert point.kind == "hopf"
    assert 1.0 < point.value < 1.1
    matrix = LIMIT_CYCLE.jacobian(LIMIT_CYCLE.gain(point.u))
    assert_allclose(np.trace(matrix), 0, atol=1e-9)
    assert_allclose(point.frequency, 1000 * np.sqrt(np.linalg.det(matrix)) / (2 * np.pi))
    assert_array_equal(found.stable, found.values < point.value)


def test_eigenvalues_on_both_sides_of_the_hopf_bifurcation():
    found = bifurcations(LIMIT_CYCLE, lambda h: [h, 0.01], [0.7, 1.0, 1.1])
    expected = np.array([-1.117 + 10.37j, -0.123 + 13.98j, 0.167 + 15.04j]) / 100
    assert_allclose(found.abscissa, expected.real, rtol=5e-3)
    for u, value in zip(found.u, expected, strict=True):
        eigenvalues = np.linalg.eigvals(LIMIT_CYCLE.jacobian(LIMIT_CYCLE.gain(u)))
        assert_allclose(abs(eigenvalues.imag), value.imag, rtol=5e-3)


def test_oscillations_begin_there_with_its_frequency():
    (point,) = bifurcations(LIMIT_CYCLE, lambda h: [h, 0.01], [0.7, 3.0]).points
    n_steps, dt = 20_000, 0.2
    drive = np.full((n_steps, 2, 2), 0.01)
    # from rest at once, the transient would be too fast for steps of one length
    ramp = np.minimum(np.arange(n_steps) / 2500, 1)[:, None]
    drive[:, :, 0] = ramp * point.value * [0.95, 1.05]
    settings = {"n_trials": 1, "duration": n_steps * dt, "burn_in": 0.0, "dt": dt, "record": "u"}
    below, above = simulate(LIMIT_CYCLE, drive, **settings).u[-2500:, :, 0, 0].T
    assert np.ptp(below) < 0.02 < 0.2 < np.ptp(above)
    rises = np.flatnonzero((above[:-1] < above.mean()) & (above[1:] >= above.mean()))
    assert_allclose(1000 / (dt * np.diff(rises).mean()), point.frequency, rtol=0.05)


def test_after_a_saddle_node_the_other_state_is_followed():
    values = np.linspace(0, 3, 7)
    found = bifurcations(PERSISTENT, lambda h: [h, h], values)
    (point,) = found.points
    assert point.kind == "saddle-node"
    assert 2.5 < point.value < 3.0
    for side, n_points in ((-1e-3, 3), (1e-3, 1)):
        drive = [[point.value + side] * 2]
        assert len(fixed_points(PERSISTENT, drive, n_starts=200)[0].u) == n_points
    assert found.stable.all()
    expected = steady_states(PERSISTENT, both(values), follow=True).u
    assert_allclose(found.u, expected, rtol=1e-9, atol=1e-12)
    # and back: the persistent state has no end on this way
    back = bifurcations(PERSISTENT, lambda h: [h, h], values[::-1], start=found.u[-1])
    assert not back.points
    assert_allclose(back.rates[-1], [11.97, 14.63], rtol=5e-3)


def test_of_weights():
    def weaker(share):
        return Circuit(PERSISTENT.weights * [share, 1], 1, k=0.04, tau_i=5.0), [0.0, 0.0]

    found = bifurcations(PERSISTENT, weaker, [1.0, 0.5], start=[15.0, 20.0])
    kinds = [point.kind for point in found.points]
    assert kinds[-1] == "saddle-node"
    last = found.points[-1]
    circuit = weaker(last.value)[0]
    matrix = np.eye(2) - circuit.weights * circuit.gain(last.u)
    assert_allclose(np.linalg.det(matrix), 0, atol=1e-3)
    assert_allclose(found.rates[-1], 0)


def test_two_populations_that_compete():
    """A symmetric state goes on, unstable, where the winner takes all."""
    weights = [[2.0, 0.5, -1.2], [0.5, 2.0, -1.2], [1.2, 1.2, -0.8]]
    circuit = Circuit(weights, 2, k=0.04)
    found = bifurcations(circuit, lambda h: [h, h, h], [0.0, 5.0, 10.0])
    (point,) = found.points
    assert point.kind == "branch point"
    assert_allclose(point.u[0], point.u[1])
    # the difference of the two grows where its own gain is 1
    assert_allclose(circuit.gain(point.u)[0] * (2.0 - 0.5), 1, rtol=1e-6)


def test_drives_in_an_array_are_linear_between():
    values = np.array([3.0, 1.0, 0.0])
    drives = np.column_stack([2 * values, 2 * values + 0.5])
    found = bifurcations(PAIR_A, drives, values)
    assert not found.points
    assert_allclose(found.u, steady_states(PAIR_A, drives).u, rtol=1e-9)
    array = bifurcations(CELL, [[0.0], [2.0]], [0.0, 1.0])
    assert_allclose(array.points[0].value, 0.5 / 0.6, rtol=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bifurcations(CELL, lambda h: [h], [1.0]), "values must be two"),
        (lambda: bifurcations(CELL, lambda h: [h], [1.0, np.nan]), "values must be two"),
        (lambda: bifurcations(CELL, lambda h: [h], [1.0, 2.0, 1.0]), "values must rise"),
        (lambda: bifurcations(CELL, lambda h: [h], [1.0, 1.0]), "values must rise"),
        (lambda: bifurcations(CELL, [[0.0], [1.0]], [0.0, 1.0, 2.0]), "as many drives"),
        (lambda: bifurcations(CELL, lambda h: [h, h], [0.0, 1.0]), "drive must have shape"),
        (lambda: bifurcations(CELL, lambda h: [np.inf], [0.0, 1.0]), "drive must be finite"),
        (lambda: bifurcations(CELL, lambda h: (PAIR_A, [h, h]), [0.0, 1.0]), "must all have 1"),
        (lambda: bifurcations(CELL, lambda h: [h], [0.0, 1.0], start=[1.0, 1.0]), "start must"),
    ],
)
def test_what_is_not_legal(call, message):
    with pytest.raises(ValueError, match=message):
        call()
