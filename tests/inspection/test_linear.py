"""Jacobian and its spectrum at the stationary state; the bias of the closures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssn_estimators import Circuit, Receptors, simulate
from ssn_estimators.datasets import make_ring_gsm, make_ring_network
from ssn_estimators.inspection import closure_bias, jacobian, local_dynamics, spectral_abscissa
from ssn_estimators.stationary.moments import stationary_moments

PAIR = Circuit([[0.25, -0.4], [0.4, -0.2]], 1, 0.5)
DRIVE = np.array([[2.0, 2.0], [4.0, 1.0]])
RUNAWAY = Circuit([[3.0]], 1, 0.1)


def potential_slopes(circuit, mean):
    """du/dt of the noise-free circuit, as a function of its potentials."""
    return (mean - circuit.k * np.maximum(mean, 0) ** circuit.gamma @ circuit.weights.T) / (
        -circuit.tau
    )


def test_jacobian_is_the_derivative_of_the_dynamics():
    moments = stationary_moments(PAIR, DRIVE, closure="linear")
    found = jacobian(PAIR, DRIVE, closure="linear")
    assert found.shape == (2, 2, 2)
    for i, step in enumerate(1e-6 * np.eye(2)):
        change = potential_slopes(PAIR, moments.mean + step)
        change -= potential_slopes(PAIR, moments.mean - step)
        np.testing.assert_allclose(found[:, :, i], change / 2e-6, rtol=1e-6)


def test_noise_averages_the_gain():
    cell = Circuit([[0.2]], 1, 2.0, gamma=2.0)
    drive = [[0.0]]
    moments = stationary_moments(cell, drive)
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    u = moments.mean + np.sqrt(moments.covariance[0]) * nodes
    gain = 2 * cell.k * np.maximum(u, 0) @ weights / weights.sum()
    expected = (0.2 * gain - 1) / cell.tau
    np.testing.assert_allclose(jacobian(cell, drive)[0, 0], expected, rtol=1e-3)


@pytest.mark.parametrize("closure", ["gaussian", "linear"])
def test_spectral_abscissa_is_that_of_the_jacobian(closure):
    matrices = jacobian(PAIR, DRIVE, closure=closure)
    expected = [np.linalg.eigvals(matrix).real.max() for matrix in matrices]
    found = spectral_abscissa(PAIR, DRIVE, closure=closure)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert (found < 0).all()


def test_inputs_without_a_stationary_state_have_no_jacobian():
    drive = [[0.05], [5.0]]
    assert np.isfinite(jacobian(RUNAWAY, drive)[:, 0, 0]).tolist() == [True, False]
    assert np.isfinite(spectral_abscissa(RUNAWAY, drive)).tolist() == [True, False]


def test_tensors_give_tensors_and_gradients():
    circuit = PAIR.to_torch()
    weights = circuit.weights.clone().requires_grad_()
    abscissa = spectral_abscissa(replace(circuit, weights=weights), torch.tensor(DRIVE))
    abscissa.sum().backward()

    def shifted(step):
        moved = PAIR.weights.copy()
        moved[0, 0] += step
        return spectral_abscissa(replace(PAIR, weights=moved), DRIVE).sum()

    slope = (shifted(1e-4) - shifted(-1e-4)) / 2e-4
    assert weights.grad[0, 0].item() == pytest.approx(slope, rel=1e-3)
    np.testing.assert_allclose(abscissa.detach(), spectral_abscissa(PAIR, DRIVE), rtol=1e-12)


def test_local_dynamics_are_those_of_small_deviations():
    path = simulate(replace(PAIR, noise_factor=np.zeros((2, 2))), DRIVE, record="u", burn_in=0.0).u
    local = local_dynamics(PAIR, path[::50], spectrum=True)
    assert local.eigenvalues.shape == (*path[::50].shape[:-1], 2)
    for u, values in zip(path[::50, 1, 0], local.eigenvalues[:, 1, 0], strict=True):
        slopes = [
            (potential_slopes(PAIR, u + step) - potential_slopes(PAIR, u - step)) / 2e-3
            for step in 1e-3 * np.eye(2)
        ]
        expected = np.linalg.eigvals(np.transpose(slopes))
        np.testing.assert_allclose(np.sort(values), np.sort(expected), rtol=1e-3)
    np.testing.assert_array_equal(local.abscissa, local.eigenvalues.real.max(-1))
    np.testing.assert_array_equal(local.time_constant, -1 / local.abscissa)
    turns = np.abs(local.eigenvalues[..., 0].imag) * 1000 / (2 * np.pi)
    np.testing.assert_array_equal(local.frequency, turns)
    # where it ends it is the stationary state
    settled = spectral_abscissa(PAIR, DRIVE, closure="linear")
    np.testing.assert_allclose(local_dynamics(PAIR, path[-1, :, 0]).abscissa, settled, rtol=1e-3)


def test_local_dynamics_of_other_circuits():
    u = np.array([[2.0, 1.0], [-1.0, -1.0], [np.nan, 1.0]])
    found = local_dynamics(PAIR, u)
    assert found.time_constant[1] == pytest.approx(20)  # silent: the E cell's own
    assert np.isnan(found.abscissa).tolist() == [False, False, True]
    # the rate form has the same eigenvalues, receptors more of them
    by_rates = local_dynamics(replace(PAIR, dynamics="rate"), u)
    np.testing.assert_allclose(by_rates.abscissa, found.abscissa)
    receptors = Receptors({"AMPA": 5.0, "GABA": 7.0}, {"E": {"AMPA": 1.0}, "I": {"GABA": 1.0}})
    with_receptors = replace(PAIR, receptors=receptors)
    values = local_dynamics(with_receptors, u, spectrum=True).eigenvalues
    assert values.shape == (3, with_receptors.n_states)
    one = local_dynamics(PAIR.to_torch(), u[0].tolist())
    assert one.abscissa.shape == ()
    assert one.abscissa == found.abscissa[0]


@pytest.mark.parametrize("u", [[[np.nan, 1.0]], np.full((3, 2, 2), np.inf), np.empty((0, 2))])
def test_local_dynamics_where_no_potential_is_finite(u):
    found = local_dynamics(PAIR, u, spectrum=True)
    assert found.abscissa.shape == np.shape(u)[:-1]
    assert all(np.isnan(values).all() for values in found.values())


@pytest.mark.parametrize("u", [[[1.0]], 1.0, [["a", "b"]]])
def test_local_dynamics_need_potentials_of_all_cells(u):
    with pytest.raises(ValueError, match="u must"):
        local_dynamics(PAIR, u)


def test_closure_is_exact_without_synapses():
    circuit = replace(PAIR, weights=np.zeros((2, 2)), noise_factor=[[1.0, 0.0], [0.5, 0.8]])
    bias = closure_bias(circuit, DRIVE, duration=1000.0, burn_in=200.0, random_state=0)
    for name in ("mean", "variance", "covariance"):
        difference, error = getattr(bias, name), getattr(bias, f"{name}_error")
        assert (error < 0.1).all()
        assert (difference < 5 * error.max()).all()
    assert (bias.diverged == 0).all()
    assert str(bias).count("+-") == 4


def test_sampling_error_falls_with_the_number_of_trials():
    few, many = (
        closure_bias(PAIR, DRIVE[:1].repeat(20, 0), n_trials=n, random_state=0) for n in (4, 64)
    )
    ratio = few.variance_error.mean() / many.variance_error.mean()
    assert ratio == pytest.approx(4, rel=0.4)


def test_bias_on_the_published_ring_network():
    target = make_ring_gsm()
    ring = make_ring_network()
    settings = {"n_trials": 100, "duration": 500.0, "burn_in": 200.0, "random_state": 0}
    bias = closure_bias(ring, ring.drive(target.h), **settings)
    # without input, potentials vary across the threshold; with much, they do not
    assert (bias.mean < 0.12).all()
    assert 0.1 < bias.variance[0] < 0.3
    assert bias.variance[-1] < 0.1
    assert 0.3 < bias.covariance[0] < 0.6
    assert bias.covariance[-1] < 0.15


def test_divergence_is_reported():
    bias = closure_bias(RUNAWAY, [[0.05], [5.0]], n_trials=4, random_state=0)
    assert bias.diverged.tolist() == [0.0, 1.0]
    assert np.isfinite(bias.mean).tolist() == [True, False]


@pytest.mark.parametrize("n_trials", [0, 3, 2.0])
def test_trials_come_in_two_halves(n_trials):
    with pytest.raises(ValueError, match="n_trials must be a positive even integer"):
        closure_bias(PAIR, DRIVE, n_trials=n_trials)


@pytest.mark.parametrize("function", [jacobian, spectral_abscissa, closure_bias])
def test_errors_say_what_is_legal(function):
    with pytest.raises(ValueError, match="'closure' parameter"):
        function(PAIR, DRIVE, closure="cubic")
    with pytest.raises(ValueError, match="drive must have shape"):
        function(PAIR, DRIVE[:, :1])
