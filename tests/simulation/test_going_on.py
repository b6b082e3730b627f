"""Simulations that begin where others ended, or anywhere else."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from ssn_estimators import Circuit, simulate, simulate_many
from ssn_estimators.simulation import State
from ssn_estimators.simulation.cpu import backend

WEIGHTS = np.array([[1.25, -0.65], [1.2, -0.5]])
DRIVE = np.array([[2.0, 2.0], [1.0, 3.0], [0.5, 0.2]])
FORMS = ("voltage", "rate")


def pair(noise=0.3, **changes):
    return Circuit(WEIGHTS, 1, noise, k=0.3, **changes)


@pytest.fixture(params=["compiled", "plain"])
def loops(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(backend, "compiled", None)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("dynamics", FORMS)
def test_two_halves_are_the_whole(dynamics, solver, loops):
    quiet, names = pair(0.0, dynamics=dynamics), ("u", "r", "final")
    settings = {"n_trials": 2, "burn_in": 0.0, "solver": solver, "record": names}
    whole = simulate(quiet, DRIVE, duration=61.0, **settings)
    first = simulate(quiet, DRIVE, duration=23.0, **settings)
    second = simulate(quiet, DRIVE, duration=38.0, initial=first.final, **settings)
    for name in ("u", "r"):
        parts = np.concatenate([getattr(first, name), getattr(second, name)])
        assert_allclose(parts, getattr(whole, name), rtol=1e-12)
    assert_allclose(second.final.state, whole.final.state, rtol=1e-12)


@pytest.mark.parametrize("dynamics", FORMS)
@pytest.mark.parametrize("burn_in", [0.0, 7.0])
def test_the_final_state_is_the_last_one(dynamics, burn_in, loops):
    circuit = pair(np.array([[0.3, 0.0], [0.1, 0.2]]), dynamics=dynamics)
    settings = {"n_trials": 40, "duration": 30.0, "burn_in": burn_in, "random_state": 0}
    for options in ({}, {"shared_noise": True}, {"antithetic": True}):
        found = simulate(circuit, DRIVE, record=("u", "r", "eta", "final"), **settings, **options)
        last = found.u if dynamics == "voltage" else found.r
        assert_array_equal(found.final.state, last[-1])
        eta = np.broadcast_to(found.eta[-1], (3, 40, 2))
        assert_allclose(found.final.noise @ circuit.noise_factor.T, eta, rtol=1e-12, atol=1e-14)
        alone = simulate(circuit, DRIVE, record="final", **settings, **options)
        for name in ("state", "noise"):
            assert_array_equal(getattr(alone.final, name), getattr(found.final, name))
        assert alone.u is None
        with_gradient = simulate(
            circuit.to_torch(), torch.tensor(DRIVE, requires_grad=True), record="final", **settings
        )
        assert not with_gradient.final.state.requires_grad


@pytest.mark.parametrize("dynamics", FORMS)
def test_noise_goes_on(dynamics, loops):
    """With the correlation that it has within a simulation, and other random numbers."""
    circuit = pair(0.3, dynamics=dynamics)
    settings = {"n_trials": 4000, "duration": 10.0, "burn_in": 0.0, "dt": 2.0}
    first = simulate(circuit, DRIVE[:1], record=("eta", "final"), random_state=0, **settings)
    for again in (0, 1):
        second = simulate(
            circuit, DRIVE[:1], initial=first.final, record="eta", random_state=again, **settings
        )
        for steps in (1, 3):
            pairs = first.eta[-1].ravel(), second.eta[steps - 1].ravel()
            expected = np.exp(-2.0 * steps / circuit.tau_eta)
            assert np.corrcoef(*pairs)[0, 1] == pytest.approx(expected, abs=0.02)
        assert second.eta.std() == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize("options", [{"shared_noise": True}, {"antithetic": True}])
@pytest.mark.parametrize("dynamics", FORMS)
def test_noise_stays_shared_and_mirrored(dynamics, options):
    circuit = pair(0.3, dynamics=dynamics)
    settings = {"n_trials": 4, "duration": 10.0, "burn_in": 0.0, "record": ("eta", "final")}
    first = simulate(circuit, DRIVE, **settings, **options)
    for initial in (first.final, [1.0, 1.0]):
        eta = simulate(circuit, DRIVE, initial=initial, **settings, **options).eta
        if options.get("antithetic"):
            assert_array_equal(eta[:, :, 2:], -eta[:, :, :2])
        else:
            assert eta.shape[1] == 1


@pytest.mark.parametrize("dynamics", FORMS)
def test_places_to_begin(dynamics):
    quiet = pair(0.0, dynamics=dynamics)
    settings = {"n_trials": 2, "burn_in": 0.0, "duration": 1.0, "dt": 1.0, "solver": "euler"}
    name = "u" if dynamics == "voltage" else "r"
    start = np.array([3.0, 1.0])

    def slope(x):
        if dynamics == "voltage":
            return (-x + DRIVE[:, None] + quiet.rates(x) @ WEIGHTS.T) / quiet.tau
        return (-x + quiet.rates(x @ WEIGHTS.T + DRIVE[:, None])) / quiet.tau

    for initial in (start, np.tile(start, (3, 1)), np.tile(start, (3, 2, 1)), start.tolist()):
        found = simulate(quiet, DRIVE, initial=initial, record=name, **settings)
        begin = np.broadcast_to(start, (3, 2, 2))
        assert_allclose(getattr(found, name)[0], begin + slope(begin), rtol=1e-12)


def test_of_many_circuits_each_has_its_own():
    circuits = [pair(), pair()]
    settings = {"n_trials": 3, "duration": 10.0, "record": "final"}
    first = simulate_many(circuits, [DRIVE, DRIVE], random_state=[0, 1], **settings)
    ends = [x.final for x in first]
    together = simulate_many(
        circuits, [DRIVE, DRIVE], random_state=[2, 3], initial=ends, **settings
    )
    for end, seed, found in zip(ends, (2, 3), together, strict=True):
        alone = simulate(pair(), DRIVE, random_state=seed, initial=end, **settings)
        assert_allclose(alone.mean, found.mean, rtol=1e-12)


def test_trials_that_diverged_have_no_end():
    cell = Circuit([[2.0]], 1, 1.5)
    settings = {"n_trials": 40, "duration": 60.0, "burn_in": 0.0, "random_state": 0}
    found = simulate(cell, [[0.2]], record="final", **settings)
    assert 0 < found.diverged.sum() < 40
    assert_array_equal(np.isnan(found.final.state[..., 0]), found.diverged)
    with pytest.raises(ValueError, match="trials that diverged cannot go on"):
        simulate(cell, [[0.2]], initial=found.final, **settings)


@pytest.mark.parametrize(
    ("initial", "n_trials", "message"),
    [
        (np.ones(3), 2, r"array of shape \(2,\), one for each of 3 inputs"),
        (np.ones((2, 2)), 2, r"got \(2, 1, 2\)"),
        (np.ones((3, 4, 2)), 2, "for each of 2 trials"),
        ([1.0, np.nan], 2, "initial must be finite"),
        ("rest", 2, "initial"),
        ("of another", 5, r"initial must be a State.*\(3, 2, 2\)"),
    ],
)
def test_where_nothing_can_begin(initial, n_trials, message):
    if isinstance(initial, str) and initial == "of another":
        initial = simulate(pair(), DRIVE, n_trials=2, duration=2.0, record="final").final
    with pytest.raises(ValueError, match=message):
        simulate(pair(), DRIVE, n_trials=n_trials, initial=initial)


@pytest.mark.parametrize("name", ["duration", "burn_in"])
def test_times_are_whole_numbers_of_steps(name):
    with pytest.raises(ValueError, match=f"{name} must be a multiple of dt=0.3 ms, such as 9.9"):
        simulate(pair(), DRIVE, **{"dt": 0.3, "duration": 9.0, "burn_in": 9.0, name: 10.0})
    for dt in (0.1, 0.2, 0.3, 0.7, 1 / 3):  # but for rounding
        simulate(pair(), DRIVE, dt=dt, duration=30 * dt, burn_in=10 * dt, n_trials=1)


def loss_from(start, circuit, noise, **settings):
    """Of a window that begins there, some of every answer."""
    initial = State(start, noise)
    found = simulate(circuit, torch.tensor(DRIVE), initial=initial, random_state=0, **settings)
    generator = torch.Generator().manual_seed(0)
    answers = found.mean, found.covariance, found.rates, found.u
    return sum((x * torch.randn(x.shape, generator=generator)).sum() for x in answers)


@pytest.mark.parametrize("solver", ["euler", "ab2", "heun"])
@pytest.mark.parametrize("kind", ["voltage", "antithetic", "by cell", "rate", "long"])
def test_gradients_of_the_start_are_differences(kind, solver, loops):
    more = {"by cell": {"gamma": np.array([2.0, 1.8])}, "rate": {"dynamics": "rate"}}
    circuit = pair(**more.get(kind, {})).to_torch()
    settings = {"n_trials": 4, "duration": 300.0 if kind == "long" else 12.0, "burn_in": 0.0}
    settings |= {"solver": solver, "record": "u", "antithetic": kind == "antithetic"}
    rng = np.random.RandomState(0)
    start = torch.tensor(1 + 3 * rng.uniform(size=(3, 4, 2)), requires_grad=True)
    noise = torch.from_numpy(rng.normal(size=(3, 4, 2)))
    if kind == "antithetic":
        noise = torch.cat([noise[:, :2], -noise[:, :2]], 1)
    (gradient,) = torch.autograd.grad(loss_from(start, circuit, noise, **settings), start)
    direction = torch.from_numpy(rng.normal(size=start.shape))
    with torch.no_grad():
        ends = [
            loss_from(start + sign * 1e-6 * direction, circuit, noise, **settings)
            for sign in (1, -1)
        ]
    assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_gradients_reach_the_start_of_each_of_many(loops):
    settings = {"n_trials": 3, "duration": 20.0, "burn_in": 0.0, "record": "u"}
    starts = [torch.tensor([value, 2.0], requires_grad=True) for value in (1.0, 3.0)]
    circuits = [pair().to_torch(), pair(0.1).to_torch()]
    drives = [torch.tensor(DRIVE)] * 2
    both = simulate_many(circuits, drives, random_state=[0, 1], initial=starts, **settings)
    sum(found.u[-1].sum() for found in both).backward()
    for i, start in enumerate(starts):
        own = start.detach().clone().requires_grad_()
        simulate(circuits[i], drives[i], random_state=i, initial=own, **settings).u[
            -1
        ].sum().backward()
        assert_allclose(start.grad, own.grad, rtol=1e-10)
        assert own.grad.abs().min() > 0


def test_burn_in_keeps_gradients_from_the_start(loops):
    start = torch.tensor([1.0, 2.0], requires_grad=True)
    weights = torch.tensor(WEIGHTS, requires_grad=True)
    circuit = Circuit(weights, 1, torch.zeros(2, 2, dtype=torch.float64))
    found = simulate(circuit, torch.tensor(DRIVE), initial=start, n_trials=2, duration=5.0)
    found.mean.sum().backward()
    assert weights.grad.abs().min() > 0
    assert start.grad is None or not start.grad.any()


def test_no_gradient_reaches_the_start_of_a_trial_that_diverges(loops):
    wild = Circuit([[3.0]], 1, 0.0).to_torch()
    start = torch.tensor([[[0.1], [200.0]]], dtype=torch.float64, requires_grad=True)
    settings = {"n_trials": 2, "duration": 10.0, "burn_in": 0.0}
    found = simulate(wild, torch.tensor([[0.1]], dtype=torch.float64), initial=start, **settings)
    assert found.diverged.tolist() == [[False, True]]
    alone = simulate(wild, [[0.1]], initial=start[:, :1].detach(), **settings | {"n_trials": 1})
    for name in ("mean", "covariance", "rates"):
        assert_allclose(getattr(found, name).detach(), getattr(alone, name), rtol=1e-12)
    (found.mean.sum() + found.covariance.sum()).backward()
    assert start.grad[0, 0] > 0
    assert start.grad[0, 1] == 0
