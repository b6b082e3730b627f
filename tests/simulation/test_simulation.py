"""`simulate`: divergence, noise shared or not, kinds of arrays, legal parameters."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from ssn_estimators import Circuit, simulate
from ssn_estimators.simulation.cpu import blocks, steps

WEIGHTS = [[1.0, 0.4, -1.5], [0.5, 0.6, -1.0], [1.6, 1.0, -0.8]]
DRIVE = np.array([[4.0, 3.0, 2.0], [1.0, 6.0, 5.0]])
MOMENTS = ("mean", "covariance", "rates")
SHORT = {"n_trials": 3, "duration": 50.0, "burn_in": 20.0, "random_state": 0}


def circuit(dtype=float, noise_factor=0.5):
    return Circuit(np.array(WEIGHTS, dtype), 2, noise_factor, k=0.05)


def runaway(noise_factor=0.0):
    """One excitatory cell: beyond u = 1 / (W k) = 5.6 mV, nothing holds it."""
    return Circuit([[0.6]], 1, noise_factor)


@pytest.mark.parametrize("solver", ["heun", "ab2", "euler"])
@pytest.mark.parametrize(("chunk", "checkpoint"), [(1, 1), (3, 6), (7, 7)])
def test_chunks_do_not_change_results(chunk, checkpoint, solver, monkeypatch):
    moving = DRIVE * np.linspace(0.5, 1.5, 70)[:, None, None]
    settings = SHORT | {"solver": solver, "record": ("u", "r", "eta")}
    whole = simulate(circuit(), moving, **settings)
    monkeypatch.setattr(steps, "CHUNK", chunk)
    monkeypatch.setattr(steps, "FEW", 0)
    monkeypatch.setattr(blocks, "CHECKPOINT", checkpoint)
    parts = simulate(circuit(), moving, **settings)
    for name in (*MOMENTS, "u", "r", "eta", "times"):
        assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-14)


def test_moments_are_those_of_the_trajectories():
    outcome = simulate(circuit(), DRIVE, **SHORT, record=["u", "r"])
    assert_array_equal(outcome.times, np.arange(1, 51))
    assert outcome.u.shape == outcome.r.shape == (50, 2, 3, 3)
    assert outcome.eta is None
    assert_allclose(outcome.r, 0.05 * np.maximum(outcome.u, 0) ** 2, rtol=1e-12)
    assert_allclose(outcome.mean, outcome.u.mean((0, 2)))
    assert_allclose(outcome.rates, outcome.r.mean((0, 2)))
    samples = outcome.u.transpose(1, 3, 0, 2).reshape(2, 3, -1)
    assert_allclose(outcome.covariance, [np.cov(x, bias=True) for x in samples])
    assert outcome.message == "All 6 trials stayed finite."
    bare = simulate(circuit(), DRIVE, **SHORT, covariance=False, rates=False)
    assert bare.covariance is bare.rates is None
    assert_allclose(bare.mean, outcome.mean)


@pytest.mark.parametrize("burn_in", [0.0, 200.0])
@pytest.mark.parametrize("record", [None, "u"])
def test_runaway_input_leaves_the_other_alone(burn_in, record):
    drive = [[0.0], [20.0]]  # at rest, and carried off within one time constant or two
    settings = {"n_trials": 2, "burn_in": burn_in, "duration": 100.0, "record": record}
    outcome = simulate(runaway(0.1), drive, random_state=0, **settings)
    assert_array_equal(outcome.diverged, [[False, False], [True, True]])
    assert np.isnan(outcome.divergence_time[0]).all()
    assert ((outcome.divergence_time[1] > 5) & (outcome.divergence_time[1] < 40)).all()
    for name in MOMENTS:
        assert np.isfinite(getattr(outcome, name)[0]).all()
        assert np.isnan(getattr(outcome, name)[1]).all()
    assert 0 < outcome.covariance[0, 0, 0] < 0.1
    assert "2 of 4 trials diverged (|u| > 1000 mV), the first" in outcome.message
    assert outcome.message in repr(outcome)
    assert "n_inputs=2, n_trials=2, n_neurons=1" in repr(outcome)


def test_divergence_time_is_that_of_the_trajectory():
    outcome = simulate(runaway(), [[20.0]], n_trials=1, burn_in=0.0, record="u", dt=0.5)
    exceeded = ~(np.abs(outcome.u[:, 0, 0, 0]) <= 1000)
    assert outcome.divergence_time[0, 0] == pytest.approx(outcome.times[exceeded.argmax()])


def test_diverging_trials_are_left_out_of_the_moments():
    # metastable: the noise carries some trials of each input over the threshold
    settings = {"n_trials": 20, "duration": 100.0, "burn_in": 20.0, "random_state": 0}
    outcome = simulate(runaway(2.2), [[0.0], [1.0]], record=("u", "r"), **settings)
    n_diverged = outcome.diverged.sum(1)
    assert ((n_diverged > 0) & (n_diverged < 20)).all()
    assert_array_equal(np.isnan(outcome.divergence_time), ~outcome.diverged)
    for i, kept in enumerate(~outcome.diverged):
        u = outcome.u[:, i, kept]
        assert np.abs(u).max() < 1000
        assert_allclose(outcome.mean[i], u.mean((0, 1)))
        assert_allclose(outcome.covariance[i, 0], u.var((0, 1)))
        assert_allclose(outcome.rates[i], outcome.r[:, i, kept].mean((0, 1)))
    assert f"{n_diverged.sum()} of 40 trials diverged" in outcome.message
    quiet = simulate(runaway(2.2), [[0.0], [1.0]], **settings)
    assert_array_equal(quiet.diverged, outcome.diverged)
    assert_allclose(quiet.mean, outcome.mean)


def test_gradient_leaves_out_diverging_trials():
    def gradient(drive):
        weights = torch.tensor([[0.6]], dtype=torch.float64, requires_grad=True)
        noisy = Circuit(weights, 1, 0.5)
        mean = simulate(noisy, drive, n_trials=3, random_state=0, shared_noise=True).mean
        return torch.autograd.grad(mean[0].sum(), weights)[0]

    assert_allclose(gradient([[1.0], [20.0]]), gradient([[1.0]]), rtol=1e-10)


def test_nothing_is_clipped():
    # a transient far above 30 mV that comes back, integrated by hand
    weights, tau, dt = np.array([[1.0, -1.0], [1.5, -0.6]]), np.array([20.0, 10.0]), 0.1
    strong = Circuit(weights, 1, 0.0)
    settings = {"n_trials": 1, "duration": 150.0, "burn_in": 0.0, "dt": dt}
    outcome = simulate(strong, [[200.0, 0.0]], record="u", **settings)

    def slope(u):
        return (-u + np.array([200.0, 0.0]) + weights @ (0.3 * np.maximum(u, 0) ** 2)) / tau

    u, path = np.zeros(2), []
    for _ in range(1500):
        first = slope(u)
        u = u + dt / 2 * (first + slope(u + dt * first))
        path.append(u)
    assert (np.max(path, axis=0) > 30).all()
    assert u[0] < 30
    assert_allclose(outcome.u[:, 0, 0], path, rtol=1e-9)
    assert not outcome.diverged.any()


def test_shared_noise_makes_inputs_independent_of_each_other():
    settings = SHORT | {"shared_noise": True, "record": ("u", "eta")}
    both = simulate(circuit(), DRIVE, **settings)
    assert both.eta.shape == (50, 1, 3, 3)
    for i in range(2):
        alone = simulate(circuit(), DRIVE[[i]], **settings)
        assert_array_equal(alone.eta, both.eta)
        for name in MOMENTS:
            assert_allclose(getattr(alone, name)[0], getattr(both, name)[i], rtol=1e-10)


def test_independent_noise_differs_between_inputs_and_trials():
    outcome = simulate(circuit(), DRIVE[[0, 0]], **SHORT, record="eta")
    assert outcome.eta.shape == (50, 2, 3, 3)
    columns = outcome.eta.transpose(1, 2, 3, 0).reshape(18, -1)
    assert len(np.unique(columns[:, 0])) == 18
    assert (outcome.mean[0] != outcome.mean[1]).all()


def test_random_state():
    def mean(random_state):
        return simulate(circuit(), DRIVE, **SHORT | {"random_state": random_state}).mean

    assert_array_equal(mean(3), mean(3))
    assert_array_equal(mean(3), mean(np.random.RandomState(3)))
    assert (mean(3) != mean(4)).all()
    rng = np.random.RandomState(3)
    assert (mean(rng) != mean(rng)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_are_of_the_kind_of_the_circuit(dtype):
    settings = SHORT | {"record": ("u", "r", "eta")}
    arrays = simulate(circuit(dtype), DRIVE, **settings)
    tensors = simulate(circuit(dtype).to_torch(), DRIVE, **settings)
    for name in (*MOMENTS, "diverged", "divergence_time", "times", "u", "r", "eta"):
        assert isinstance(getattr(arrays, name), np.ndarray)
        assert torch.is_tensor(getattr(tensors, name))
        assert_array_equal(getattr(arrays, name), getattr(tensors, name))
    assert arrays.mean.dtype == arrays.covariance.dtype == arrays.u.dtype == dtype
    assert arrays.diverged.dtype == bool


def test_precisions_agree():
    # without noise, whose draws differ between them
    settings = {"n_trials": 1, "burn_in": 0.0, "duration": 200.0}
    single, double = (simulate(circuit(t, 0.0), DRIVE, **settings) for t in ("f", "d"))
    for name in MOMENTS:
        assert_allclose(getattr(single, name), getattr(double, name), rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dt": -1.0}, "dt must be .* > 0, got -1.0"),
        ({"dt": np.nan}, "dt must be .* > 0, got .*nan"),
        ({"duration": 0.5}, r"duration must be .* >= 1 \(one step dt\), got 0.5"),
        ({"burn_in": -1.0}, "burn_in must be .* >= 0, got -1.0"),
        ({"n_trials": 0}, "n_trials must be a positive integer, got 0"),
        ({"n_trials": 2.0}, "n_trials must be a positive integer, got 2.0"),
        ({"solver": "rk4"}, "solver must be one of .*'ab2', 'euler', 'heun'.*got 'rk4'"),
        ({"increments": "strong"}, "increments must be one of .*'gaussian', 'weak'.*got 'strong'"),
        ({"precision": "bf16"}, "precision must be one of .*'float32', 'tf32'.*got 'bf16'"),
        ({"antithetic": True}, "n_trials must be even, got 3"),
        ({"record": "v"}, "record must hold names out of .*got .*'v'"),
        ({"record": ("u", "rates")}, "record must hold names out of .*got .*'rates'"),
        ({"drive": np.ones((2, 2))}, r"drive must have shape .*3 cells, got \(2, 2\)"),
        ({"drive": np.ones(3)}, r"drive must have shape .*got \(3,\)"),
        ({"drive": [[np.nan, 0.0, 0.0]]}, "drive must be finite, got NaN"),
        ({"drive": np.ones((69, 2, 3))}, "each of the 70 steps .*got 69"),
    ],
)
def test_illegal_parameters_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        simulate(**{"circuit": circuit(), "drive": DRIVE} | SHORT | changes)
