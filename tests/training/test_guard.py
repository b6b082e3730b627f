"""What is promised of a trained network, and how often it may be wrong."""

import numpy as np
import pytest
import torch

from ssn_estimators import Circuit, simulate
from ssn_estimators.simulation import Trials
from ssn_estimators.training.guard import HORIZON, Guard, divergence_bound
from ssn_estimators.training.plan import Model
from ssn_estimators.training.posterior import Inference
from ssn_estimators.training.side_by_side import run_together


class Given:
    """A task whose inputs are drives."""

    drive = staticmethod(lambda circuit, arrays, inputs: inputs)
    idle = staticmethod(Inference.idle)


def confirm(circuit, drives, final=True, more=()):
    rng = np.random.RandomState(0)
    sets = [torch.as_tensor(d, dtype=torch.float32) for d in (drives, *more)]
    guard = Guard(Given, sets, Trials(), "cpu", rng)
    model = Model(circuit.to_torch(dtype=torch.float32).to_numpy(), {})
    return run_together([guard.confirm(model, final)])[0]


PAIR = Circuit([[1.25, -0.65], [1.2, -0.5]], 1, 0.2, k=0.04)


def cell(drive, noise):
    """One cell: u' = (-u + h + .3 u^2 / 2) / tau, which has a barrier for h < 5 / 3."""
    return Circuit([[0.5]], 1, noise), [[drive]]


def test_a_stable_circuit_is_confirmed():
    found = confirm(PAIR, [[2.0, 2.0], [4.0, 3.0]])
    assert found.share == 1
    assert found.idle.tolist() == [False, False]
    assert 0 < found.divergence_rate < 1e-3


def test_slow_runaways_are_found_by_final_confirmations_only():
    # just beyond the fold at h = 5 / 3: activity lingers there for longer than 500 ms
    circuit, drive = cell(5 / 3 + 0.015, 1e-4)
    late = simulate(circuit, drive, n_trials=5, duration=5000.0, burn_in=0.0, random_state=0)
    assert late.diverged.all()
    assert 500 < np.min(late.divergence_time) < 2000
    assert confirm(circuit, drive, final=False).share == 1
    assert confirm(circuit, drive).share < 1


def test_inputs_a_little_beyond_those_of_training_are_confirmed_too():
    circuit, _ = cell(1.0, 1e-4)
    assert confirm(circuit, [[0.4], [1.3]]).share == 1  # up to 1.41
    wide = [[-0.5], [1.6]]  # up to 1.86, beyond the fold at 5 / 3
    assert confirm(circuit, wide).share == 0.5
    assert confirm(circuit, wide, final=False).share == 1


def test_one_input_of_any_set_is_enough():
    circuit, bad = cell(5 / 3 + 0.015, 1e-4)
    good = np.full((600, 1), 0.5)
    assert confirm(circuit, good).share == 1
    assert 0 < confirm(circuit, np.vstack([good, bad])).share < 1
    assert confirm(circuit, good, more=[bad]).share < 1


@pytest.mark.slow
def test_the_bound_covers_what_is_seen():
    """Escapes over barriers of different heights, against the bound from twice their noise."""
    n_seen = 0
    for drive in (1.2, 1.4, 1.5):
        for noise in (0.3, 0.4, 0.5, 0.6):
            circuit, drives = cell(drive, noise)
            found = confirm(circuit, drives)
            if found.share < 1:
                continue
            long = simulate(
                circuit, drives, n_trials=400, duration=10_000.0, burn_in=0.0, random_state=1
            )
            rate = long.diverged.sum() / (400 * 10.0)
            n_seen += long.diverged.any()
            assert rate <= found.divergence_rate
    # and with noise at which a circuit is confirmed, hardly any trial escapes
    assert n_seen <= 1


def test_bound():
    growth, seconds = np.array([-5.0, -2.0]), np.array([4.0, 20.0])
    rate = 3 / seconds
    prefactor = -growth / (HORIZON / 1000) / (2 * np.pi)
    expected = (prefactor * (rate / prefactor) ** 4).max() / 2
    assert divergence_bound(growth, seconds) == pytest.approx(expected, rel=0.01)
    # without a relaxation that is known, it is what was seen
    assert divergence_bound(np.array([1.0]), np.array([10.0])) == pytest.approx(0.3, rel=0.01)
    # more time proves more
    assert divergence_bound(growth, 2 * seconds) < divergence_bound(growth, seconds) / 10
