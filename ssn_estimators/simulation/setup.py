"""`Setup`: how circuits are simulated, apart from the circuits and their inputs."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from ssn_estimators.simulation.reference import SCHEMES

__all__ = ["DIVERGENCE_THRESHOLD", "INCREMENTS", "PRECISIONS", "Setup", "check_time_grid"]

DIVERGENCE_THRESHOLD = 1e3  # mV; networks and biology stay below 50, a runaway passes it within ms
INCREMENTS = ("gaussian", "weak")
PRECISIONS = ("float32", "tf32")


@dataclass(frozen=True)
class Setup:
    """What an engine needs besides weights, noise factor and drive; :func:`simulate` explains."""

    n_trials: int
    n_burn: int  # steps
    n_window: int  # steps
    dt: float
    solver: str
    tau: np.ndarray
    tau_eta: float
    k: float
    gamma: float
    seeds: tuple  # one integer a network
    shared_noise: bool = False
    antithetic: bool = False
    increments: str = "gaussian"
    covariance: bool = True
    rates: bool = True
    precision: str = "float32"

    def check(self):
        """Raise ValueError unless every choice is legal."""
        if not isinstance(self.n_trials, Integral) or self.n_trials < 1:
            raise ValueError(f"n_trials must be a positive integer, got {self.n_trials!r}.")
        for name, legal in (
            ("solver", sorted(SCHEMES)),
            ("increments", INCREMENTS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in legal:
                raise ValueError(
                    f"{name} must be one of {list(legal)}, got {getattr(self, name)!r}."
                )
        if self.antithetic and self.n_trials % 2:
            raise ValueError(
                f"antithetic trials come in pairs: n_trials must be even, got {self.n_trials}."
            )


def check_time_grid(*, duration, burn_in, dt):
    """Numbers of steps of burn-in and of the time after it."""
    for name, value, low in (("dt", dt, None), ("duration", duration, dt), ("burn_in", burn_in, 0)):
        legal = isinstance(value, Real) and np.isfinite(value)
        if not legal or (value <= 0 if low is None else value < low):
            bound = "> 0" if low is None else f">= {low:g}" + (" (one step dt)" if low else "")
            raise ValueError(f"{name} must be a finite number of ms {bound}, got {value!r}.")
    return round(burn_in / dt), round(duration / dt)
