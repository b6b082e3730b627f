"""Circuit: a checked, frozen value; its input function; the Gaussian ring."""

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from ssn_estimators import Circuit, gaussian_ring
from ssn_estimators.simulation.reference import velocity

ARRAYS = ("weights", "noise_factor", "theta")
WEIGHTS = [[1.0, 2.0, -3.0], [0.5, 0.0, -1.0], [2.0, 1.0, -0.5]]


def example(**changes):
    parameters = {"weights": WEIGHTS, "n_excitatory": 2, "noise_factor": 0.5}
    return Circuit(**parameters | changes)


def tensor(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize("kind", [np.array, tensor])
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((1, 0), -0.25, r"1 places.*W\[post=1, pre=0\] = -0\.25: column 0 is excitatory.*>= 0"),
        ((0, 2), 4.0, r"1 places.*W\[post=0, pre=2\] = 4: column 2 is inhibitory.*<= 0"),
    ],
)
def test_dales_law_errors_name_the_place(kind, place, value, message):
    weights = np.array(WEIGHTS)
    weights[place] = value
    with pytest.raises(ValueError, match=message):
        example(weights=kind(weights.tolist()))


def test_dales_law_counts_all_places():
    with pytest.raises(ValueError, match=r"at 5 places, first at W\[post=0, pre=0\] = -1"):
        example(weights=-np.abs(WEIGHTS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [[1.0, 2.0]]}, r"square.*\(1, 2\)"),
        ({"weights": [1.0, 2.0]}, r"square.*\(2,\)"),
        ({"noise_factor": np.ones((2, 2))}, r"\(3, 3\).*\(2, 2\)"),
        ({"noise_factor": np.ones(4)}, r"\(3, 3\).*\(4,\)"),
        ({"theta": [1.0, 0.0]}, r"theta1, theta2, theta3.*\(2,\)"),
        ({"theta": 1.0}, r"theta.*\(\)"),
        ({"n_excitatory": 0}, "from 1 to 3.*got 0"),
        ({"n_excitatory": 4}, "from 1 to 3.*got 4"),
        ({"n_excitatory": 2.0}, "integer.*got 2.0"),
        ({"weights": np.full((3, 3), np.nan)}, "weights must be finite"),
        ({"noise_factor": np.inf}, "noise_factor must be finite"),
        ({"theta": [1.0, np.nan, 1.0]}, "theta must be finite"),
        ({"theta": [1.0, -0.5, 1.0]}, r"theta must be >= 0, got \[1.0, -0.5, 1.0\]"),
        ({"k": 0.0}, "k must be .* > 0, got 0.0"),
        ({"k": "0.3"}, "k must be .* > 0, got '0.3'"),
        ({"gamma": 0.5}, "gamma must be .* >= 1, got 0.5"),
        ({"tau_e": -20.0}, "tau_e must be .* > 0, got -20.0"),
        ({"tau_i": np.inf}, "tau_i must be .* > 0, got .*inf"),
        ({"tau_eta": np.nan}, "tau_eta must be .* > 0, got .*nan"),
    ],
)
def test_illegal_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        example(**changes)


@pytest.mark.parametrize("kind", [np.array, tensor])
def test_scalar_noise_is_independent_noise(kind):
    circuit = example(weights=kind(WEIGHTS), noise_factor=0.5)
    assert_array_equal(circuit.noise_factor, 0.5 * np.eye(3))
    assert type(circuit.noise_factor) is type(circuit.weights)


def test_arrays_are_read_only_copies():
    given = {"weights": np.array(WEIGHTS), "noise_factor": np.eye(3), "theta": np.ones(3)}
    circuit = example(**given)
    for name, array in given.items():
        kept = getattr(circuit, name)
        before = kept.copy()
        array[...] = 7.0
        assert_array_equal(kept, before)
        with pytest.raises(ValueError, match="read-only"):
            kept[0] = 1.0


def test_integer_weights_become_floats():
    circuit = example(weights=np.array([[1, -1], [1, -1]]), n_excitatory=1)
    assert circuit.weights.dtype == float
    assert circuit.noise_factor[0, 0] == 0.5


def test_circuit_is_frozen():
    circuit = example()
    with pytest.raises(FrozenInstanceError):
        circuit.k = 1.0
    assert replace(circuit, k=1.0).k == 1.0
    assert circuit.k == 0.3


@pytest.mark.parametrize("clone", [lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_keep_values_and_the_read_only_flag(clone, dtype):
    circuit = example(weights=np.array(WEIGHTS, dtype), theta=(1.5, 0.1, 2.0), tau_i=12.0)
    other = clone(circuit)
    for field in fields(Circuit):
        assert_array_equal(getattr(other, field.name), getattr(circuit, field.name))
    for name in ARRAYS:
        assert getattr(other, name).dtype == dtype
        assert not getattr(other, name).flags.writeable


def test_populations():
    circuit = example(tau_e=30.0, tau_i=5.0)
    assert (circuit.n_neurons, circuit.n_excitatory, circuit.n_inhibitory) == (3, 2, 1)
    assert_array_equal(circuit.signs, [1, 1, -1])
    assert_array_equal(circuit.tau, [30, 30, 5])
    assert "n_excitatory=2, n_inhibitory=1" in repr(circuit)


def test_drive_is_the_rectified_power_law():
    circuit = example(theta=(2.0, 0.5, 1.5))
    drive = circuit.drive([[1.75, -0.5, -3.0], [0.5, 0.0, -0.25]])
    expected = [[2 * 2.25**1.5, 0, 0], [2.0, 2 * 0.5**1.5, 2 * 0.25**1.5]]
    assert isinstance(drive, np.ndarray)
    assert_allclose(drive, expected, rtol=1e-14)


def test_drive_of_inhibitory_cells_without_input_is_zero():
    circuit = example(theta=(2.0, 0.5, 1.0))  # f(0) = 1: no input is not an input of 0
    assert_allclose(circuit.drive([[0.0, 1.0]]), [[1.0, 3.0, 0.0]])
    assert circuit.drive(np.zeros((4, 5, 2))).shape == (4, 5, 3)


@pytest.mark.parametrize("h", [np.zeros((4, 1)), np.zeros((4, 4)), 1.0])
def test_drive_names_the_wrong_shape(h):
    with pytest.raises(ValueError, match=r"h must have 3 columns .* or 2 .*, got shape"):
        example().drive(h)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 2.5, 3.0])
def test_gain_is_the_slope_of_the_rates(gamma):
    circuit = example(k=0.2, gamma=gamma)
    u = torch.tensor([-2.0, -1e-3, 1e-3, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    rates = circuit.rates(u)
    assert_allclose(rates.detach(), 0.2 * np.maximum(u.detach().numpy(), 0) ** gamma)
    (slope,) = torch.autograd.grad(rates.sum(), u)
    assert_allclose(circuit.gain(u).detach(), slope)
    assert_array_equal(circuit.gain(u.tolist()), circuit.gain(u).detach())
    assert_array_equal(circuit.rates(u.tolist()), rates.detach())


@pytest.mark.parametrize("gamma", [2, 2.0])
def test_rates_of_integers_do_not_overflow(gamma):
    circuit = Circuit([[0.1]], 1, gamma=gamma, k=1)
    for u in (np.array([100, -3], np.int8), np.array([50_000, 0], np.int32)):
        expected = np.maximum(u, 0.0).astype(float) ** 2
        assert_array_equal(circuit.rates(u), expected)
        assert_array_equal(circuit.rates(torch.from_numpy(u)), expected)
        assert_array_equal(circuit.gain(u), 2.0 * np.maximum(u, 0.0))
    assert circuit.rates(np.ones(1, np.float32)).dtype == np.float32
    assert circuit.rates(torch.ones(1)).dtype == torch.float32


def test_what_is_no_number_has_no_rate_and_no_gain():
    circuit = Circuit([[0.1]], 1)
    for u in (np.array([np.nan]), torch.tensor([torch.nan])):
        assert np.isnan(np.asarray(circuit.rates(u))).all()
        assert np.isnan(np.asarray(circuit.gain(u))).all()


@pytest.mark.parametrize("value", [[[1 + 1j]], [["0.1"]], np.array([["0.1"]], object)])
def test_complex_numbers_and_strings_are_refused(value):
    with pytest.raises(ValueError, match="weights must be an array of numbers"):
        Circuit(value, 1)
    for drive in (value, torch.tensor([[1 + 2j]])):
        with pytest.raises(ValueError, match="drive must be an array of numbers"):
            Circuit([[0.1]], 1).check_drive(drive)


def test_gradient_of_gain_is_finite_at_the_threshold():
    u = torch.zeros(2, requires_grad=True)
    example(gamma=1.5).gain(u).sum().backward()
    assert torch.isfinite(u.grad).all()


def test_jacobian_is_that_of_the_equations():
    circuit = example(gamma=2.5)
    u = np.array([[0.5, 2.0, 1.0], [-1.0, 1.0, 3.0]])
    du_dt = velocity(circuit.to_torch())
    expected = [
        torch.autograd.functional.jacobian(
            lambda x: du_dt(x[None], torch.zeros(1, 3).double())[0], torch.from_numpy(row)
        )
        for row in u
    ]
    assert_allclose(circuit.jacobian(circuit.gain(u)), torch.stack(expected))
    tensors, u = circuit.to_torch(), torch.from_numpy(u)
    assert_allclose(tensors.jacobian(tensors.gain(u)), torch.stack(expected))


@pytest.mark.parametrize(
    ("drive", "n_steps", "message"),
    [
        ([1.0, 2.0, 3.0], None, r"shape \(n_inputs, 3\) for a circuit of 3 cells, got \(3,\)"),
        (np.ones((2, 4)), None, "got .2, 4."),
        (np.ones((5, 2, 3)), None, "got .5, 2, 3."),
        (np.ones((5, 2, 3)), 6, "each of the 6 steps"),
        (np.ones((0, 3)), None, "at least one input"),
        ([[1.0, np.nan, 2.0]], None, "finite"),
        ([["a", 1.0, 2.0]], None, "numbers"),
    ],
)
def test_check_drive_says_what_is_wrong(drive, n_steps, message):
    with pytest.raises((ValueError, TypeError), match=message):
        example().check_drive(drive, n_steps=n_steps)


def test_checked_drive_is_a_tensor_of_the_circuit_s_dtype():
    circuit = example(weights=np.float32(WEIGHTS))
    assert circuit.check_drive([[1, 2, 3]]).dtype == torch.float32
    assert circuit.check_drive([[1, 2, 3]], dtype=torch.float64).dtype == torch.float64
    assert circuit.check_drive(np.ones((5, 2, 3)), n_steps=5).shape == (5, 2, 3)


def test_gradient_of_drive_is_finite_at_the_threshold():
    theta = tensor([2.0, 0.5, 0.5]).requires_grad_()
    h = tensor([[-0.5, -1.0, 0.5]]).requires_grad_()
    example(weights=tensor(WEIGHTS), theta=theta).drive(h).sum().backward()
    assert_allclose(h.grad, [[0, 0, 1.0]])  # theta1 theta3 (h + theta2)^(theta3 - 1)
    assert_allclose(theta.grad, [1.0, 1.0, 0.0], atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_through_torch(dtype):
    circuit = example(weights=np.array(WEIGHTS, dtype), gamma=2.5)
    tensors = circuit.to_torch()
    back = tensors.to_numpy()
    for name in ARRAYS:
        assert torch.is_tensor(getattr(tensors, name))
        assert getattr(back, name).dtype == getattr(circuit, name).dtype == dtype
        assert_array_equal(getattr(back, name), getattr(circuit, name))
        assert not getattr(back, name).flags.writeable
    assert back.gamma == tensors.gamma == 2.5
    assert circuit.to_torch(dtype=torch.float64).theta.dtype == torch.float64


def test_to_numpy_leaves_the_graph():
    weights = tensor(WEIGHTS).requires_grad_()
    circuit = example(weights=weights * 2)
    assert circuit.weights.requires_grad
    assert_array_equal(circuit.to_numpy().weights, 2 * np.array(WEIGHTS))


def test_gaussian_ring_equals_its_formula():
    n, a, d = 5, [[0.3, 0.1], [0.4, 0.2]], [[0.8, 0.6], [0.9, 0.5]]
    variances, rho, d_eta, floor = (6.0, 3.0), 0.9, 0.45, 0.02
    ring = gaussian_ring(
        n,
        a,
        d,
        noise_variances=variances,
        noise_correlation=rho,
        noise_width=d_eta,
        noise_floor=floor,
        gamma=2.5,
    )
    covariance = ring.noise_factor @ ring.noise_factor.T
    for row in range(2 * n):
        for column in range(2 * n):
            (post, i), (pre, j) = divmod(row, n), divmod(column, n)
            bump = np.cos(2 * np.pi * (i - j) / n) - 1
            weight = (-1) ** pre * a[post][pre] * np.exp(bump / d[post][pre] ** 2)
            assert ring.weights[row, column] == pytest.approx(weight, rel=1e-12)
            noise = np.sqrt(variances[post] * variances[pre]) * (1 if post == pre else rho)
            noise = noise * np.exp(bump / d_eta**2) + (floor if row == column else 0)
            assert covariance[row, column] == pytest.approx(noise, rel=1e-12, abs=1e-14)
    assert (ring.n_excitatory, ring.n_inhibitory, ring.gamma) == (n, n, 2.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_pairs": 0}, "'n_pairs' parameter"),
        ({"amplitudes": [1.0, 1.0]}, r"amplitudes must have shape \(2, 2\), got \(2,\)"),
        ({"amplitudes": [[1.0, -1.0], [1.0, 1.0]]}, "amplitudes must be >= 0"),
        ({"widths": [[1.0, 0.0], [1.0, 1.0]]}, "widths > 0"),
    ],
)
def test_gaussian_ring_refuses(changes, message):
    legal = {"n_pairs": 3, "amplitudes": np.ones((2, 2)), "widths": np.ones((2, 2))}
    with pytest.raises(ValueError, match=message):
        gaussian_ring(**legal | changes)
