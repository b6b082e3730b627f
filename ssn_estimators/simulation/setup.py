"""`Setup`: what engines are told besides weights, noise factors and drives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.rate_functions import RateFunction

__all__ = ["Setup", "largest_state"]


@dataclass(frozen=True)
class Setup:
    """What an engine needs of :class:`~ssn_estimators.simulation.Trials` and of the circuits."""

    n_trials: int
    n_burn: int  # steps
    n_window: int  # steps
    dt: float
    solver: str
    tau: np.ndarray
    tau_eta: float
    k: float | torch.Tensor  # of shape (n_neurons,), where cells differ
    gamma: float | torch.Tensor | None  # None with a rate function
    seeds: tuple  # one integer a network
    shared_noise: bool = False
    antithetic: bool = False
    increments: str = "gaussian"
    covariance: bool = True
    rates: bool = True
    precision: str = "float32"
    dynamics: str = "voltage"
    rate_function: RateFunction | None = None
    initial: tuple | None = None  # states and unit noise, (n_networks, n_inputs, n_trials, n)
    final: bool = False  # whether the same after the last step is wanted
    held: int | None = None  # steps of each time of a changing drive, if it is that of the window

    @classmethod
    def of(cls, trials, circuit, seeds, final=False):
        """Of trials of circuits with the constants of this one."""
        shared = cls.__dataclass_fields__.keys()
        values = {name: getattr(trials, name) for name in shared if hasattr(trials, name)}
        constants = {name: circuit.of_cells(name, circuit.weights) for name in ("k", "gamma")}
        same = "tau", "tau_eta", "dynamics", "rate_function"
        constants |= {name: getattr(circuit, name) for name in same}
        return cls(**values, **constants, seeds=seeds, final=final)

    def of_drive(self, times, n_times):
        """Which of so many times of a changing drive acts at steps counted from the very first."""
        if self.held is not None:
            times = (times - self.n_burn).clamp_min(0) // self.held
        return times.clamp_max(n_times - 1)

    @property
    def signs(self):
        """How often each noise is used: with either sign, or once."""
        return 2 if self.antithetic else 1

    @property
    def n_draws(self):
        """Trials of an input whose noise is drawn."""
        return self.n_trials // self.signs


def largest_state(setup):
    """Beyond, a trial counts as diverged: of potentials in mV, or of rates in Hz."""
    if setup.dynamics == "voltage":
        return DIVERGENCE_THRESHOLD
    if setup.rate_function is None:
        most = DIVERGENCE_THRESHOLD**setup.gamma
    else:
        u = torch.tensor(DIVERGENCE_THRESHOLD, dtype=torch.float64)
        most = float(setup.rate_function.value(u))
    rates = setup.k * most
    return float(rates.max()) if torch.is_tensor(rates) else rates
