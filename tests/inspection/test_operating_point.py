"""Fixed points, stabilisation, transients and balance of circuits, against theory."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import expm

from ssn_estimators import Circuit, simulate
from ssn_estimators.inspection import (
    ei_balance,
    fixed_points,
    is_inhibition_stabilized,
    jacobian,
    oscillations,
    transient_amplification,
)
from ssn_estimators.stationary.moments import stationary_moments
from ssn_estimators.training.penalties import growth_of_deviations

PAIR = Circuit([[1.25, -0.65], [1.2, -0.5]], 1, 0.2)
DRIVES = np.array([[0.1, 0.1], [2.0, 2.0], [15.0, 15.0]])
RUNAWAY = Circuit([[3.0]], 1, 0.1)


def test_fixed_points_of_a_cell_are_the_roots_of_its_quadratic():
    cell = Circuit([[0.5]], 1, 0.0)
    for h in (0.5, 1.0, 1.5):
        roots = np.sort(np.roots([0.15, -1, h]))
        points = fixed_points(cell, [[h]])[0]
        assert_allclose(points.u.ravel(), roots, rtol=1e-6)
        # the slope of the excess is 0.3 u - 1
        assert_allclose(points.abscissa, (0.3 * roots - 1) / 20, rtol=1e-6)
        assert_array_equal(points.stable, [True, False])
    assert not len(fixed_points(cell, [[2.0]])[0].u)  # the roots are complex


def test_fixed_points_from_given_places():
    cell = Circuit([[0.5]], 1, 0.0)
    low, high = np.sort(np.roots([0.15, -1, 1.0]))
    for start, roots in (([[0.0]], [low]), ([[7.0]], [high]), ([[0.0], [7.0]], [low, high])):
        points = fixed_points(cell, [[1.0]], n_starts=0, start=start)[0]
        assert_allclose(points.u.ravel(), roots, rtol=1e-6)
    # for each input its own
    both = fixed_points(cell, [[1.0], [1.0]], n_starts=0, start=[[[0.0]], [[7.0]]])
    assert_allclose([own.u.item() for own in both], [low, high], rtol=1e-6)
    # random places stay the same
    alone = fixed_points(PAIR, DRIVES)
    for own, more in zip(alone, fixed_points(PAIR, DRIVES, start=DRIVES), strict=True):
        assert_array_equal(own.u, more.u)


@pytest.mark.parametrize(("w", "beyond"), [(0.5, 1e-6), (0.05, 5e-5), (0.01, 2e-4)])
def test_no_fixed_point_is_made_up_beyond_a_fold(w, beyond):
    """Of u = h + 0.3 w u^2, where solutions end at h = 5 / 6 w and the excess is small for long."""
    cell = Circuit([[w]], 1)
    fold = 1 / (4 * w * cell.k)
    before, after = fixed_points(cell, [[fold - beyond], [fold + beyond]], n_starts=500)
    assert before.stable.tolist() == [True, False]
    assert len(after.u) == 0


def test_time_constants_and_frequencies_of_fixed_points():
    # E and I cell, both active: a trace and a determinant, and so a pair of eigenvalues
    circuit = Circuit([[2.0, -2.0], [3.0, -0.1]], 1, 0.3, k=0.04, tau_i=60.0)
    for point in fixed_points(circuit, [[1.0, 0.5], [10.0, 0.5]]):
        for u, time_constant, frequency in zip(
            point.u, point.time_constant, point.frequency, strict=True
        ):
            a, b = 0.08 * np.maximum(u, 0)
            trace = (2 * a - 1) / 20 + (-0.1 * b - 1) / 60
            product = ((2 * a - 1) * (-0.1 * b - 1) + 6 * a * b) / 1200
            root = np.sqrt(complex(trace**2 / 4 - product))
            assert time_constant == pytest.approx(-1 / (trace / 2 + root.real), rel=1e-6)
            assert frequency == pytest.approx(abs(root.imag) * 1000 / (2 * np.pi), abs=1e-6)


def test_stable_fixed_points_are_where_simulations_settle():
    points = fixed_points(PAIR, DRIVES)
    quiet = Circuit(PAIR.weights, 1, 0.0)
    settled = simulate(quiet, DRIVES, n_trials=1, burn_in=1000.0, duration=10.0).mean
    for point, mean in zip(points, settled, strict=True):
        assert point.stable.any()
        distance = np.abs(point.u[point.stable] - mean).max(1)
        assert distance.min() < 1e-2


def test_inhibition_stabilises_where_excitation_alone_runs_away():
    found = is_inhibition_stabilized(PAIR, DRIVES, closure="linear")
    u = stationary_moments(PAIR, DRIVES, closure="linear").mean
    # E alone: W_EE k gamma u_E > 1
    assert_array_equal(found, 1.25 * 0.3 * 2 * u[:, 0] > 1)
    assert found.tolist() == [False, True, True]


def test_the_response_to_more_input_to_inhibitory_cells_is_paradoxical_there():
    more = DRIVES + np.array([0, 0.01])
    before, after = (
        stationary_moments(PAIR, drive, closure="linear").mean[:, 1] for drive in (DRIVES, more)
    )
    stabilised = is_inhibition_stabilized(PAIR, DRIVES, closure="linear")
    assert_array_equal(after < before, stabilised)


def test_transients_are_those_of_the_matrix_exponential():
    found = transient_amplification(PAIR, DRIVES, closure="linear", dt=0.5)
    matrices = jacobian(PAIR, DRIVES, closure="linear")
    times = np.arange(0, 200.5, 0.5)
    for i, matrix in enumerate(matrices):
        norms = [np.linalg.norm(expm(matrix * t), 2) for t in times]
        assert_allclose(found.amplification[i], max(norms))
        assert found.time[i] == times[np.argmax(norms)]
        grown = expm(matrix * found.time[i]) @ found.pattern[i]
        assert_allclose(np.abs(grown), np.abs(found.response[i]), atol=1e-10)
        assert_allclose(np.linalg.norm(found.pattern[i]), 1)
    assert found.amplification[2] > 1.2
    # without connections dynamics are normal, and nothing grows
    alone = Circuit(np.zeros((2, 2)), 1, 0.1)
    assert_allclose(transient_amplification(alone, DRIVES).amplification, 1)


def test_currents_add_up_to_the_potential():
    balance = ei_balance(PAIR, DRIVES)
    mean = stationary_moments(PAIR, DRIVES).mean
    assert_allclose(balance.excitation + balance.inhibition, mean, rtol=1e-4)
    assert (balance.inhibition < 0).all()
    # a strong input is balanced best
    assert (np.diff(balance.index, axis=0) < 0).all()
    outside = ei_balance(Circuit(np.zeros((2, 2)), 1, 0.1), [[1.0, -1.0]])
    assert_allclose(outside.index, 1)


def test_limit_cycles_beyond_a_hopf_bifurcation():
    # slow inhibition: the abscissa crosses 0 with a complex pair
    circuit = Circuit([[2.0, -2.0], [3.0, -0.1]], 1, 0.3, k=0.04, tau_i=60.0)
    drives = [[1.0, 0.5], [10.0, 0.5]]
    points = fixed_points(circuit, drives)
    assert points[0].stable.any()
    assert not points[1].stable.any()
    u = points[1].u[0]
    slope = circuit.weights * (2 * circuit.k * np.maximum(u, 0)) - np.eye(2)
    values = np.linalg.eigvals(slope / circuit.tau[:, None])
    found = oscillations(circuit, drives)
    assert found.oscillating.tolist() == [False, True]
    assert found.amplitude[0] == 0
    assert found.amplitude[1] > 0.1
    assert np.isnan(found.frequency[0])
    # near the bifurcation the frequency is that of the eigenvalues; noise plays no part
    assert found.frequency[1] == pytest.approx(abs(values.imag[0]) * 1000 / (2 * np.pi), rel=0.15)


@pytest.mark.parametrize("strength", [0.9999, 1.0005])
def test_drifts_are_no_oscillations(strength):
    """One E cell near its fold, beyond which it runs away; without inhibition it cannot cycle."""
    drive = 20.0
    cell = Circuit([[strength / (4 * drive * 0.3)]], 1, 0.0, k=0.3)
    found = oscillations(cell, [[drive]])
    assert found.oscillating.tolist() == [False]
    assert np.isnan(found.frequency).all()


def test_silent_cells_have_no_gain():
    """With gamma = 1 too, where the gain of active cells does not depend on their potential."""
    circuit = Circuit([[3.0, -0.5], [0.5, -0.5]], 1, 0.1, k=0.5, gamma=1.0)
    mean = torch.tensor([[-1.0, -1.0], [2.0, -1.0]], dtype=torch.float64)
    silent, active = growth_of_deviations(circuit.to_torch(), mean)
    alone = torch.tensor([-256 / 20, -256 / 10]).exp().norm().log()
    assert silent.item() == pytest.approx(alone.item(), abs=1e-3)
    assert active.item() > 0
    u, stable = (fixed_points(circuit, [[-1.0, -1.0]])[0][key] for key in ("u", "stable"))
    assert stable[(u < 0).all(1)].tolist() == [True]


def test_divergence_is_no_oscillation():
    found = oscillations(RUNAWAY, [[0.05], [5.0]])
    assert found.oscillating.tolist() == [False, False]
    assert found.amplitude[0] == 0
    assert np.isnan(found.amplitude[1])


def test_inputs_without_a_stationary_state():
    drive = [[0.05], [5.0]]
    assert is_inhibition_stabilized(RUNAWAY, drive).tolist() == [False, None]
    for result in (ei_balance(RUNAWAY, drive), transient_amplification(RUNAWAY, drive)):
        for values in result.values():
            assert np.isfinite(values[0]).all()
            assert np.isnan(values[1]).all() or values is result.get("inhibition")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fixed_points(PAIR, [1.0, 2.0]), "shape"),
        (lambda: fixed_points(PAIR, DRIVES, n_starts=0), "n_starts"),
        (lambda: fixed_points(PAIR, DRIVES, n_starts=-1), "n_starts"),
        (lambda: fixed_points(PAIR, DRIVES, start=[1.0, 2.0]), "start must have shape"),
        (lambda: fixed_points(PAIR, DRIVES, start=np.ones((2, 1, 2))), "start must have shape"),
        (lambda: fixed_points(PAIR, DRIVES, start=[[np.nan, 0.0]]), "start must be finite"),
        (lambda: fixed_points(PAIR, DRIVES, n_starts=0, start=np.ones((0, 2))), "no place"),
        (lambda: ei_balance(PAIR, [[np.nan, 1.0]]), "finite"),
        (lambda: transient_amplification(PAIR, DRIVES, dt=0.0), "dt"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
