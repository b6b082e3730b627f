"""Training through whole trials: drives that are held, gradients, truncation, the guard."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from ssn_estimators import Circuit, simulate
from ssn_estimators.simulation import State, Trials
from ssn_estimators.structures import Unconstrained
from ssn_estimators.training import (
    Followed,
    Model,
    SequenceClassification,
    SequenceRegression,
    Skip,
)
from ssn_estimators.training.courses import means, stretches
from ssn_estimators.training.descent import Descent
from ssn_estimators.training.guard import TrialGuard
from ssn_estimators.training.loop import _Objective
from ssn_estimators.training.penalties import Penalties
from ssn_estimators.training.side_by_side import run_together

RNG = np.random.RandomState(0)
N_E, N_I, N_TIMES, N_INPUTS, N_CHANNELS = 4, 2, 10, 5, 3


def circuit(dtype=np.float64, excitation=1.0):
    n = N_E + N_I
    signs = np.where(np.arange(n) < N_E, 1.0, -1.0)
    weights = 0.2 * np.abs(np.random.RandomState(1).normal(size=(n, n))) * signs
    weights[:N_E, :N_E] *= excitation
    return Circuit(weights.astype(dtype), N_E, 0.3, tau_e=20.0, tau_i=10.0)


@pytest.mark.parametrize("solver", ["heun", "ab2", "euler"])
@pytest.mark.parametrize("kind", ["plain", "sparse", "rate"])
def test_a_drive_that_is_held_is_the_one_given_at_every_step(solver, kind):
    made = circuit()
    if kind == "sparse":
        sparse = pytest.importorskip("scipy.sparse")
        made = replace(made, weights=sparse.csr_array(made.weights))
    if kind == "rate":
        made = replace(made, dynamics="rate")
    drive = 2 * RNG.uniform(size=(N_TIMES, N_INPUTS, N_E + N_I))
    how = {"duration": 50.0, "burn_in": 10.0, "dt": 0.5, "solver": solver, "record": ("u", "eta")}
    how |= {"n_trials": 3, "random_state": 0}
    every = np.concatenate([np.repeat(drive[:1], 20, 0), np.repeat(drive, 10, 0)])
    one, other = simulate(made, drive, drive_step=5.0, **how), simulate(made, every, **how)
    for name in ("mean", "covariance", "u", "eta"):
        assert_array_equal(getattr(one, name), getattr(other, name))


def test_drives_of_the_wrong_length_are_refused():
    how = {"duration": 50.0, "burn_in": 10.0, "dt": 0.5}
    with pytest.raises(ValueError, match="one entry for each of the 10 "):
        simulate(circuit(), np.ones((11, 1, 6)), drive_step=5.0, **how)
    for wrong in (0.7, -1.0, np.nan, "5"):
        with pytest.raises(ValueError, match="drive_step must be"):
            simulate(circuit(), np.ones((10, 1, 6)), drive_step=wrong, **how)


def test_gradient_through_2000_steps_is_that_of_finite_differences():
    """Of a loss of potentials at all times, by weights, noise and a drive that is held."""
    made, rng = circuit().to_torch(), np.random.RandomState(2)
    drive = torch.from_numpy(2 * rng.uniform(size=(20, 2, N_E + N_I)))
    weight = torch.from_numpy(rng.normal(size=(2000, 2, 1, N_E + N_I)))

    def loss(weights, noise_factor, drive):
        circuit = made.with_checked({"weights": weights, "noise_factor": noise_factor})
        how = {"duration": 1000.0, "burn_in": 0.0, "dt": 0.5, "n_trials": 1, "drive_step": 50.0}
        u = simulate(circuit, drive, record="u", random_state=0, **how).u
        return (weight * torch.tanh(u)).sum() / 100

    values = [made.weights, made.noise_factor, drive]
    leaves = [value.clone().requires_grad_() for value in values]
    found = torch.autograd.grad(loss(*leaves), leaves)
    for i, gradient in enumerate(found):
        direction = torch.from_numpy(rng.normal(size=tuple(values[i].shape)))
        if i == 0:
            direction = direction * (values[i] != 0)
        step, sides = 1e-5, []
        for sign in (1, -1):
            moved = list(values)
            moved[i] = values[i] + sign * step * direction
            sides.append(loss(*moved).item())
        expected = (sides[0] - sides[1]) / (2 * step)
        assert_allclose((gradient * direction).sum().item(), expected, rtol=1e-5)


def problem(task, n_outputs=2, dtype=np.float32):
    inputs = torch.from_numpy(RNG.uniform(size=(N_INPUTS, N_TIMES, N_CHANNELS)).astype(np.float32))
    cells = np.ones(N_E + N_I, np.float32), np.ones(N_E, np.float32)
    arrays = task.start(cells, inputs.flatten(0, 1), n_outputs, RNG)
    arrays["coef"] = RNG.normal(size=arrays["coef"].shape).astype(np.float32)
    return Model(circuit(dtype), arrays), inputs


def trials(**others):
    usual = {"n_trials": 1, "duration": 50.0, "burn_in": 10.0, "dt": 1.0, "drive_step": 5.0}
    return Trials(**usual | {"covariance": False, "rates": False} | others)


def followed(source, weights, moved=0.0, direction=None, dtype=np.float32, noise=0.3):
    """Loss and gradients of a batch, at parameters that are moved that far."""
    task = SequenceRegression(N_TIMES)
    RNG.seed(3)
    model, inputs = problem(task, dtype=dtype)
    model = replace(model, circuit=replace(model.circuit, noise_factor=noise * np.eye(N_E + N_I)))
    targets = task.targets(np.ones((N_INPUTS, N_TIMES, 2)), weights)
    inputs, targets = (torch.from_numpy(x.numpy().astype(dtype)) for x in (inputs, targets))
    descent = Descent(model, Unconstrained, nonnegative=task.nonnegative)
    with torch.no_grad():
        for key in direction or ():
            descent.parameters[key] += moved * direction[key]
    objective = _Objective(task, Penalties(), False)

    def training():
        return (yield from source.find(descent, objective, inputs, targets, 7))

    found = run_together([training()])[0]
    return found.loss, {
        k: v.grad.clone() for k, v in descent.parameters.items() if v.grad is not None
    }


def gradients(stretch, weights, skip=None):
    # other schemes look at the drive after the last step of a stretch, or begin anew
    return followed(Followed(trials(solver="euler"), N_TIMES, stretch, skip), weights)


def test_truncated_gradients_are_whole_ones_where_nothing_is_cut():
    """A loss in the first stretch alone does not know of the others."""
    weights = np.zeros((N_INPUTS, N_TIMES, 2))
    weights[:, :4] = 1
    whole, cut = gradients(None, weights), gradients(4, weights)
    assert_allclose(cut[0], whole[0], rtol=1e-6)
    for key, value in whole[1].items():
        assert_allclose(cut[1][key], value, rtol=1e-4, atol=1e-7, err_msg=str(key))
    shorter = gradients(2, weights)
    key = ("circuit", "weights")
    assert not np.allclose(shorter[1][key], whole[1][key], rtol=1e-3)
    assert ("arrays", "input_cells") not in whole[1]


def test_gradients_reach_from_stretch_to_stretch():
    """Nothing of the past is mixed in, so it is the whole that one stretch would be."""
    sources = [Followed(trials(solver="euler"), N_TIMES, *how) for how in ((), (3, Skip(0.0)))]
    weights = np.ones((N_INPUTS, N_TIMES, 2))
    whole, parts = (followed(source, weights, noise=0.0) for source in sources)
    assert_allclose(parts[0], whole[0], rtol=1e-6)
    del whole[1]["circuit", "noise_factor"]  # of other draws
    for key, value in whole[1].items():
        assert_allclose(parts[1][key], value, rtol=1e-4, atol=1e-7, err_msg=str(key))


@pytest.mark.parametrize("solver", ["heun", "euler"])
@pytest.mark.parametrize("skip", [Skip(0.8), Skip(0.3, tangent=True)])
def test_gradients_through_skips_are_finite_differences(skip, solver):
    source = Followed(trials(solver=solver, burn_in=0.0), N_TIMES, 2, skip)
    weights = np.zeros((N_INPUTS, N_TIMES, 2))
    weights[:, -1] = 1  # all that comes before acts by skips, or by the cells
    _, found = followed(source, weights, dtype=np.float64)
    rng = np.random.RandomState(4)
    for key, gradient in found.items():
        value = rng.normal(size=tuple(gradient.shape))
        if key == ("circuit", "weights"):
            value *= circuit().weights != 0
        direction = {key: torch.from_numpy(value)}
        sides = [followed(source, weights, x, direction, np.float64)[0] for x in (1e-5, -1e-5)]
        difference = (sides[0] - sides[1]) / 2e-5
        assert_allclose((gradient * direction[key]).sum(), difference, rtol=1e-5, atol=1e-9)


def test_what_skips_mix_in():
    end, start, first = 4.0, 1.0, 1.5
    u = torch.linspace(first, end, 6)[:, None, None, None]

    class Stretch:
        final = State(None, torch.zeros(1))

    Stretch.u = u
    before = State(torch.full((1, 1, 1), start), None)
    assert Skip(0.25).state(None, Stretch).state == end
    assert Skip(0.25).state(before, Stretch).state == 0.75 * end + 0.25 * start
    assert Skip(0.25, True).state(before, Stretch).state == 0.75 * end + 0.25 * (start + 6 * 0.5)


def test_stretches_are_the_whole():
    drive = torch.arange(10.0)[:, None, None].expand(10, 2, 6)
    parts = list(stretches(drive, trials(), 4))
    assert [own.duration for own, _ in parts] == [20.0, 20.0, 10.0]
    assert [own.burn_in for own, _ in parts] == [10.0, 0.0, 0.0]
    assert torch.equal(torch.cat([part for _, part in parts]), drive)


def test_means_are_those_of_time_steps():
    u = torch.from_numpy(RNG.normal(size=(20, 3, 2, 4)))
    found = means(u, 5)
    assert_allclose(found.reshape(5, 3, 4), u.reshape(5, 4, 3, 2, 4).mean(dim=(1, 3)))


def test_losses_are_their_formulas():
    task = SequenceRegression(N_TIMES)
    model, _ = problem(task)
    arrays = {name: torch.from_numpy(value) for name, value in model.arrays.items()}
    potentials = RNG.normal(size=(N_TIMES * N_INPUTS, N_E + N_I)).astype(np.float32)
    outputs = potentials[:, :N_E] @ model.arrays["coef"].T
    outputs = outputs.reshape(N_TIMES, N_INPUTS, 2).swapaxes(0, 1)

    class Moments:
        mean = torch.from_numpy(potentials)

    values, weights = RNG.normal(size=outputs.shape), RNG.uniform(size=outputs.shape)
    found = task.loss(Moments, arrays, task.targets(values, weights))
    expected = (weights / weights.mean() * (outputs - values) ** 2).mean()
    assert_allclose(found, expected, rtol=1e-5)
    course = (weights * values).sum(0) / weights.sum(0)
    chance = (weights / weights.mean() * (values - course) ** 2).mean()
    assert_allclose(task.chance_loss(task.targets(values, weights)), chance, rtol=1e-5)

    task, labels = SequenceClassification(N_TIMES), RNG.randint(2, size=N_INPUTS)
    period = np.zeros((N_INPUTS, N_TIMES))
    period[:, 3:5] = 0.5
    logits = outputs[:, 3:5].mean(1)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = task.loss(Moments, arrays, task.targets(labels, period))
    assert_allclose(found, -np.log(p[np.arange(N_INPUTS), labels]).mean(), rtol=1e-5)


def test_the_guard_shows_inputs_until_the_time_is_over():
    task = SequenceRegression(N_TIMES)
    model, inputs = problem(task)
    asked = []

    def watching(circuits, drives, own, *others):
        from ssn_estimators.simulation import simulate_trials

        asked.append((own.duration, len(drives[0]), float(circuits[0].noise_factor[0, 0])))
        return simulate_trials(circuits, drives, own, *others)

    guard = TrialGuard(task, [inputs], trials(), "cpu", np.random.RandomState(0))
    found = run_together([guard.confirm(model, True)], watching)[0]
    assert found.share == 1
    assert [duration for duration, *_ in asked] == [500.0, 2000.0]
    assert [n for _, n, _ in asked] == [100, 400]
    assert asked[0][2] == pytest.approx(0.6)
    wild = replace(model, circuit=circuit(np.float32, excitation=20.0))
    assert run_together([guard.confirm(wild, True)])[0].share < 1
