"""Simulation whose potentials are clipped at 30 mV, as in the published code: a control.

A clipped network never shows that it has run away. Here is what it shows instead, with the
signature of `simulate` as far as training and prediction use it.
"""

import math
from dataclasses import asdict

import numpy as np
import torch
from sklearn.utils import check_random_state

from ssn_estimators import Simulation
from ssn_estimators.simulation import SCHEMES, Trials
from ssn_estimators.simulation.reference import velocity

BOUND = 30.0  # mV


def simulate_clipped(circuit, drive, *, random_state=None, record=None, **options):
    """As `simulate`, but `divergence_time` is when the clip first acts; no trial diverges."""
    trials = Trials(**options)
    tensors, drive = circuit.to_torch(), torch.as_tensor(drive)
    n_trials, dt, n_burn, n_window = trials.n_trials, trials.dt, trials.n_burn, trials.n_window
    n_inputs, n = drive.shape
    generator = torch.Generator().manual_seed(check_random_state(random_state).randint(2**31 - 1))
    decay, du_dt, step = math.exp(-dt / tensors.tau_eta), velocity(tensors), SCHEMES[trials.solver]

    def fresh():
        shape = (1 if trials.shared_noise else n_inputs, n_trials, n)
        noise = torch.randn(shape, generator=generator, dtype=drive.dtype) @ tensors.noise_factor.T
        return noise.expand(n_inputs, -1, -1).reshape(-1, n)

    drive = drive.repeat_interleave(n_trials, 0)
    u, slope, noise = torch.zeros_like(drive), None, fresh()
    total, spikes, when = 0.0, 0.0, torch.full((len(drive),), math.inf)
    for i in range(n_burn + n_window):
        with torch.set_grad_enabled(i >= n_burn and torch.is_grad_enabled()):
            ahead = decay * noise + math.sqrt(1 - decay**2) * fresh()
            free, slope = step(du_dt, u, drive + noise, drive + ahead, dt, slope)
            acts = free.detach().abs().amax(1) > BOUND
            when = torch.where(acts, when.clamp_max(i * dt), when)
            u, noise = free.clamp(-BOUND, BOUND), ahead
            if i >= n_burn:
                total, spikes = total + u, spikes + tensors.rates(u)

    def mean(x):
        return (x / n_window).unflatten(0, (n_inputs, n_trials)).mean(1)

    when = torch.where(when.isinf(), torch.nan, when).view(n_inputs, n_trials)
    found = {
        "mean": mean(total),
        "rates": mean(spikes),
        "diverged": torch.zeros_like(when, dtype=torch.bool),
    }
    found |= {"divergence_time": when, "times": torch.arange(1, n_window + 1) * dt}
    if not torch.is_tensor(circuit.weights):
        found = {name: value.detach().numpy() for name, value in found.items()}
    return Simulation(covariance=None, **found)


def simulate_clipped_trials(circuits, drives, trials, random_state):
    """As `simulate_trials`."""
    triples = zip(circuits, drives, random_state, strict=True)
    return [simulate_clipped(c, d, random_state=r, **asdict(trials)) for c, d, r in triples]


def share_clipped(model, X, duration=2000.0):
    """Share of trials, one of each input, in which some potential exceeds the bound."""
    drives = np.array_split(model.drive(X), max(1, len(X) // 1000))
    options = {"n_trials": 1, "duration": duration, "burn_in": 0.0, "random_state": 0}
    options |= {"dt": model.dt, "solver": model.solver}
    times = [simulate_clipped(model.circuit_, d, **options).divergence_time for d in drives]
    return float(np.isfinite(np.concatenate(times)).mean())
