"""The rate form: orders, fixed points, linear noise, transients and gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from ssn_estimators import Circuit, simulate, simulate_many, stationary_moments
from ssn_estimators.inspection import fixed_points, jacobian
from ssn_estimators.simulation import SCHEMES, reference
from ssn_estimators.simulation.cpu import backend

ORDER = {"euler": 1, "heun": 2, "ab2": 2}
# of Hennequin et al. (2018)
PAIR = Circuit([[1.25, -0.65], [1.2, -0.5]], 1, k=0.3, dynamics="rate")
TYPES = Circuit(
    [[0.3, 0.2, -0.4, -0.3], [0.2, 0.3, -0.3, 0.0], [0.5, 0.4, -0.3, -0.2], [0.3, 0.6, 0.0, -0.2]],
    populations={"E": 2, "PV": 1, "SST": 1},
    tau={"E": 20.0, "PV": 8.0, "SST": 14.0},
    k={"E": 0.1, "PV": 0.2, "SST": 0.1},
    gamma={"E": 2.0, "PV": 2.0, "SST": 1.5},
    dynamics="rate",
)
DRIVE = np.array([[4.0, 3.0, 3.5, 2.0], [2.0, 5.0, 4.0, 3.0]])


def voltage(circuit):
    return replace(circuit, dynamics="voltage")


@pytest.mark.parametrize("moving", [False, True], ids=["constant", "moving"])
@pytest.mark.parametrize("solver", SCHEMES)
def test_order(solver, moving):
    def end(dt, solver=solver, duration=40.0):
        phase = dt * np.arange(round(duration / dt))[:, None, None] / 25.0
        drive = DRIVE * (1 + 0.4 * moving * np.sin(phase + np.arange(4)))
        settings = {"n_trials": 1, "burn_in": 0.0, "duration": duration, "record": "r"}
        return simulate(TYPES, drive, dt=dt, solver=solver, **settings).r[-1, :, 0]

    steps = np.array([2.0, 1.0, 0.5]) / 4
    if moving:  # the drive of the last step is that at its start
        exact = end(0.005, "heun")
        errors = [np.abs(end(dt) - exact).max() for dt in steps]
        assert errors[-1] < errors[0] / 2
        return
    exact = end(0.01, "heun")
    errors = [np.abs(end(dt) - exact).max() for dt in steps]
    order = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx(ORDER[solver], abs=0.25)


def test_fixed_points_and_eigenvalues_are_those_of_the_voltage_form():
    settings = {"n_trials": 1, "burn_in": 2000.0, "duration": 1.0, "record": ("u", "r")}
    for circuit in (TYPES, Circuit(TYPES.weights, 2, k=0.1, dynamics="rate")):
        rates, potentials = (simulate(x, DRIVE, **settings) for x in (circuit, voltage(circuit)))
        for name in ("u", "r"):
            assert_allclose(getattr(rates, name), getattr(potentials, name), rtol=1e-10)
        assert_allclose(rates.mean, potentials.r[0, :, 0], rtol=1e-10)
        assert_allclose(rates.r, circuit.rates(rates.u), rtol=1e-10)
        pairs = zip(*(fixed_points(x, DRIVE) for x in (circuit, voltage(circuit))), strict=True)
        for one, other in pairs:
            assert_allclose(one.u, other.u, rtol=1e-10)
            assert_allclose(one.abscissa, other.abscissa, rtol=1e-9)
        eigenvalues = (
            np.sort_complex(np.linalg.eigvals(jacobian(x, DRIVE, closure="linear")))
            for x in (circuit, voltage(circuit))
        )
        assert_allclose(*eigenvalues, rtol=1e-9)


def test_overshoots_differ_where_time_constants_do():
    """A step of the input of Hennequin's pair from (1, 1) to (8, 6)."""
    drive = np.concatenate([np.full((5000, 1, 2), 1.0), np.full((4000, 1, 2), [8.0, 6.0])])
    settings = {"n_trials": 1, "burn_in": 500.0, "duration": 400.0, "dt": 0.1, "record": "r"}
    for circuit, height, time in ((PAIR, 25.48, 23.6), (voltage(PAIR), 23.66, 41.8)):
        excitatory = simulate(circuit, drive, **settings).r[:, 0, 0, 0]
        assert excitatory.max() == pytest.approx(height, rel=0.005)
        assert 0.1 * (excitatory.argmax() + 1) == pytest.approx(time, abs=0.3)
        assert excitatory[-1] == pytest.approx(22.465, rel=1e-3)


@pytest.mark.parametrize("increments", ["gaussian", "weak"])
def test_weak_noise_has_the_linear_covariance_of_rates(increments):
    quiet = replace(PAIR, noise_factor=0.02 * np.array([[1.0, 0.0], [0.5, 0.8]]), tau_eta=50.0)
    linear = stationary_moments(quiet, [[2.0, 2.0]], closure="linear")
    in_voltage = stationary_moments(voltage(quiet), [[2.0, 2.0]], closure="linear")
    gain = np.diag(quiet.gain(in_voltage.mean[0]))
    assert_allclose(linear.covariance[0], gain @ in_voltage.covariance[0] @ gain, rtol=1e-10)
    assert_allclose(linear.mean, linear.rates)
    settings = {"n_trials": 500, "duration": 2000.0, "burn_in": 500.0, "dt": 2.0}
    outcome = simulate(quiet, [[2.0, 2.0]], increments=increments, random_state=0, **settings)
    assert_allclose(outcome.covariance, linear.covariance, rtol=0.05)
    assert_allclose(outcome.mean, linear.mean, rtol=3e-3)


def test_rates_of_moderate_noise_are_higher_than_in_the_voltage_form():
    """At input 2, where the pair is most variable."""
    sizes = 0.2 * np.sqrt(1 + 20 / 50), 0.1 * np.sqrt(1 + 10 / 50)
    noisy = replace(PAIR, noise_factor=np.diag(sizes), tau_eta=50.0)
    settings = {"n_trials": 200, "duration": 3000.0, "burn_in": 500.0, "random_state": 0}
    found = simulate(noisy, [[2.0, 2.0]], **settings)
    assert found.mean[0, 0] == pytest.approx(3.719, rel=0.03)
    deviations = np.sqrt(np.diagonal(found.covariance[0]))
    assert_allclose(deviations, [1.908, 2.563], rtol=0.03)


@pytest.mark.parametrize("moving", [False, True], ids=["constant", "moving"])
@pytest.mark.parametrize("solver", SCHEMES)
def test_compiled_loops_are_the_reference(solver, moving, monkeypatch):
    """On the same noise, which they make alike."""
    if backend.compiled is None:
        pytest.skip("Numba is not installed")
    circuit = replace(TYPES, gamma=2.0, noise_factor=0.3 * np.eye(4))
    drive = np.tile(DRIVE, (19, 1, 1)) * (1 + 0.02 * np.arange(19)[:, None, None] * moving)
    settings = {"n_trials": 1, "burn_in": 6.0, "duration": 13.0, "solver": solver}
    settings |= {"record": ("u", "r", "eta", "final"), "random_state": 0}
    compiled = simulate(circuit, drive if moving else DRIVE, **settings)
    drive, eta = torch.tensor(drive), torch.tensor(compiled.eta)
    tensors, rates = circuit.to_torch(), torch.tensor(compiled.r[0, :, 0])
    for t in range(1, 13):  # one step at a time, from where it has been
        now, ahead = (drive[min(6 + t + i, 18)] + eta[t - 1 + i, :, 0] for i in range(2))
        if solver == "ab2":
            break
        rates, _ = SCHEMES[solver](reference.velocity(tensors), rates, now, ahead, 1.0, None)
        assert_allclose(compiled.r[t, :, 0], rates, rtol=1e-10)
    monkeypatch.setattr(backend, "compiled", None)
    quiet = replace(circuit, noise_factor=0.0)
    plain = simulate(quiet, drive.numpy() if moving else DRIVE, **settings)
    monkeypatch.undo()
    again = simulate(quiet, drive.numpy() if moving else DRIVE, **settings)
    for name in ("mean", "covariance", "rates", "u", "r"):
        assert_allclose(getattr(again, name), getattr(plain, name), rtol=1e-9, atol=1e-12)
    assert_allclose(again.final.state, plain.final.state, rtol=1e-10)


@pytest.mark.parametrize("options", [{}, {"shared_noise": True}, {"antithetic": True}])
@pytest.mark.parametrize("solver", SCHEMES)
def test_a_gradient_does_not_change_the_outcome(solver, options):
    """However many trials there are: compiled loops and plain torch have the same noise.

    But for rounding in float32, which is large where normal numbers are very large.
    """
    circuit = replace(TYPES, gamma=2.0, noise_factor=0.3 * np.eye(4))
    drive, names = np.concatenate([DRIVE] * 3), ("mean", "covariance", "rates", "r", "eta")
    settings = {"duration": 100.0, "burn_in": 30.0, "solver": solver, "random_state": 3}
    settings |= {"n_trials": 700, "record": ("r", "eta"), **options}
    one = simulate(circuit, drive, **settings)
    other = simulate(circuit.to_torch(), torch.tensor(drive, requires_grad=True), **settings)
    assert other.mean.requires_grad
    for name in names:
        expected = getattr(one, name)
        error = np.abs(getattr(other, name).detach().numpy() - expected)
        assert np.quantile(error, 0.999) < 1e-3
        assert error.max() < 0.05


def test_tiny_products_are_products():
    """A few cells, and such that a library multiplies."""
    for n, n_trials in ((2, 1), (4, 3), (6, 9), (12, 40)):
        rng = np.random.RandomState(n)
        weights = 0.2 * rng.rand(n, n) * np.where(np.arange(n) < n / 2, 1, -1)
        for dynamics in ("voltage", "rate"):
            circuit = Circuit(weights, n // 2, 0.2 * rng.rand(n, n), dynamics=dynamics)
            drive = rng.uniform(1, 3, (2, n))
            settings = {"n_trials": n_trials, "duration": 5.0, "burn_in": 0.0, "dt": 1.0}
            names = ("u", "r", "eta")
            found = simulate(circuit, drive, solver="euler", record=names, **settings)
            state = found.u if dynamics == "voltage" else found.r
            slope = reference.velocity(circuit.to_torch())
            for t in range(1, 5):
                forcing = torch.tensor(drive[:, None] + found.eta[t - 1]).flatten(0, 1)
                before = torch.tensor(state[t - 1]).flatten(0, 1)
                after = before + slope(before, forcing)
                assert_allclose(state[t].reshape(-1, n), after, rtol=1e-10)


def noisy():
    return replace(TYPES, noise_factor=0.3 * np.eye(4))


@pytest.mark.parametrize("solver", SCHEMES)
@pytest.mark.parametrize("burn_in", [0.0, 5.0])
def test_gradients_are_differences(solver, burn_in):
    rng, circuit = np.random.RandomState(0), noisy()
    directions = [
        torch.tensor(circuit.weights * rng.normal(size=(4, 4))),
        torch.tensor(rng.normal(size=(4, 4))),
        torch.tensor(rng.normal(size=(2, 4))),
    ]
    n_burn = int(burn_in)
    start = torch.tensor(DRIVE).expand(n_burn, -1, -1)

    def loss(step, all_along):
        """Steps that begin with the window, as the gradient does, or all along."""
        tensors = circuit.to_torch()
        arrays = {
            "weights": tensors.weights + all_along * directions[0],
            "noise_factor": tensors.noise_factor + all_along * directions[1],
        }
        window = (torch.tensor(DRIVE) + step * directions[2]).expand(8, -1, -1)
        outcome = simulate(
            tensors.with_checked(arrays),
            torch.cat([start, window]),
            n_trials=3,
            burn_in=burn_in,
            duration=8.0,
            solver=solver,
            random_state=1,
        )
        return outcome.mean.sum() + outcome.covariance.sum() + outcome.rates[0].sum()

    steps = [torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2)]
    slopes = torch.autograd.grad(loss(*steps), steps)
    small = 1e-6
    difference = (loss(small, 0.0) - loss(-small, 0.0)) / (2 * small)
    if solver != "heun" or not burn_in:  # whose last step of burn-in sees the window's drive
        assert_allclose(slopes[0], difference, rtol=1e-6)
    if not burn_in:
        difference = (loss(0.0, small) - loss(0.0, -small)) / (2 * small)
        assert_allclose(slopes[1], difference, rtol=1e-6)


def test_noise_is_shared_and_mirrored():
    settings = {"n_trials": 4, "duration": 5.0, "burn_in": 2.0, "random_state": 0}
    settings |= {"record": ("u", "r", "eta")}
    outcome = simulate(noisy(), DRIVE, antithetic=True, **settings)
    assert outcome.eta.shape == outcome.u.shape == (5, 2, 4, 4)
    assert_array_equal(outcome.eta[:, :, 2:], -outcome.eta[:, :, :2])
    shared = simulate(noisy(), DRIVE, shared_noise=True, **settings)
    assert shared.eta.shape == (5, 1, 4, 4)
    alone = simulate(noisy(), DRIVE[1:], shared_noise=True, **settings)
    assert_allclose(alone.r[:, 0], shared.r[:, 1], rtol=1e-12)
    assert_allclose(
        outcome.u, outcome.r @ TYPES.weights.T + DRIVE[:, None] + outcome.eta, rtol=1e-12
    )
    assert_allclose(outcome.mean, outcome.r.mean((0, 2)), rtol=1e-12)


def test_networks_together_are_as_alone():
    circuits = [noisy(), replace(noisy(), weights=0.5 * TYPES.weights)]
    settings = {"n_trials": 3, "duration": 5.0}
    together = simulate_many(circuits, [DRIVE, DRIVE], random_state=[1, 2], **settings)
    for circuit, seed, outcome in zip(circuits, (1, 2), together, strict=True):
        alone = simulate(circuit, DRIVE, random_state=seed, **settings)
        assert_array_equal(alone.covariance, outcome.covariance)
    with pytest.raises(ValueError, match="same constants"):
        simulate_many([noisy(), voltage(noisy())], [DRIVE, DRIVE])


def test_divergence_is_told_and_passes_no_gradient():
    weights = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    cell = Circuit(weights, 1, 1.5, dynamics="rate")
    settings = {"n_trials": 60, "duration": 40.0, "burn_in": 0.0, "random_state": 0}
    outcome = simulate(cell, [[0.2], [0.0]], **settings)
    assert 0 < outcome.diverged.sum() < 120
    assert (outcome.divergence_time[outcome.diverged] > 0).all()
    assert torch.isfinite(outcome.mean).all()
    (gradient,) = torch.autograd.grad(outcome.mean.sum() + outcome.covariance.sum(), weights)
    assert torch.isfinite(gradient).all()


def test_what_is_only_for_the_voltage_form():
    with pytest.raises(ValueError, match="closure='linear' only"):
        stationary_moments(TYPES, DRIVE)
    with pytest.raises(ValueError, match="closure='linear' only"):
        jacobian(TYPES, DRIVE)
    with pytest.raises(ValueError, match="dynamics must be one of"):
        Circuit([[1.0]], 1, dynamics="rates")
    assert "dynamics='rate'" in repr(TYPES)
