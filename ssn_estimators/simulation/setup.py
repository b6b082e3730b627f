"""`Setup`: how circuits are simulated, apart from the circuits and their inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from ssn_estimators._sklearn import MOST
from ssn_estimators.simulation.reference import SCHEMES

__all__ = ["INCREMENTS", "PRECISIONS", "Setup", "check_time_grid"]

MOST_STEPS = 2**31  # of a trial; a single cell would take hours
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
        counted = isinstance(self.n_trials, Integral) and not isinstance(self.n_trials, bool)
        if not counted or not 1 <= self.n_trials <= MOST:
            raise ValueError(f"n_trials must be a positive integer, got {self.n_trials!r}.")
        for name, legal in (
            ("solver", sorted(SCHEMES)),
            ("increments", INCREMENTS),
            ("precision", PRECISIONS),
        ):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in legal:
                raise ValueError(
                    f"{name} must be one of {list(legal)}, got {getattr(self, name)!r}."
                )
        for name in ("shared_noise", "antithetic", "covariance", "rates"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}.")
        if self.antithetic and self.n_trials % 2:
            raise ValueError(
                f"antithetic trials come in pairs: n_trials must be even, got {self.n_trials}."
            )


def check_time_grid(cells, *, duration, burn_in, dt):
    """Numbers of steps of burn-in and of the time after it.

    Parameters
    ----------
    cells : Circuit or estimator
        With the time constants `tau_e` and `tau_i`. No scheme follows a cell in steps as long as
        they are, and moments may be wrong long before trials diverge.
    duration, burn_in, dt : float
        In ms; times are rounded to whole steps.

    Raises
    ------
    ValueError
        If a time is not legal, or there are more steps than can be counted.
    """
    for name, value, low in (("dt", dt, None), ("duration", duration, dt), ("burn_in", burn_in, 0)):
        legal = isinstance(value, Real) and -math.inf < value < math.inf
        if not legal or (value <= 0 if low is None else value < low):
            bound = "> 0" if low is None else f">= {low:g}" + (" (one step dt)" if low else "")
            raise ValueError(f"{name} must be a finite number of ms {bound}, got {value!r}.")
    shortest = min(("tau_e", "tau_i"), key=lambda name: getattr(cells, name))
    if dt >= getattr(cells, shortest):
        raise ValueError(
            f"dt must be shorter than the time constants of the cells: it is {dt:g} ms, and "
            f"{shortest} is {getattr(cells, shortest):g} ms."
        )
    if (burn_in + duration) / dt > MOST_STEPS:
        raise ValueError(
            f"burn_in and duration of {burn_in:g} and {duration:g} ms take "
            f"{(burn_in + duration) / dt:.3g} steps of dt={dt:g} ms, more than can be simulated."
        )
    return round(burn_in / dt), round(duration / dt)
