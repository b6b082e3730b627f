"""`Trials`: how circuits are simulated, apart from their inputs and the source of their noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real

import numpy as np

from ssn_estimators._torch import MOST, is_whole
from ssn_estimators.simulation.schemes import SCHEMES

__all__ = ["INCREMENTS", "PRECISIONS", "Trials", "check_steps", "lasting"]

MOST_STEPS = 2**31  # of a trial; a single cell would take hours
INCREMENTS = ("gaussian", "weak")
PRECISIONS = ("float32", "tf32")
CHOICES = {"solver": sorted(SCHEMES), "increments": INCREMENTS, "precision": PRECISIONS}


def check_steps(time, dt, name):
    """Raise ValueError unless a time in ms, of this name, has a whole number of steps."""
    n_steps = time / dt
    if not is_whole(n_steps):
        below, above = (f"{x * dt:.6g}" for x in (int(n_steps), int(n_steps) + 1))
        raise ValueError(
            f"{name} must be a multiple of dt={dt:g} ms, such as {below} or {above} ms, got "
            f"{time:g} ms."
        )


def lasting(duration, dt):
    """The shortest time of whole steps that is not shorter, where nobody asks for the very time.

    What is no time is for `Trials` to refuse.
    """
    if not isinstance(duration, Real) or not math.isfinite(duration / dt):
        return duration
    return duration if is_whole(duration / dt) else math.ceil(duration / dt) * dt


@dataclass(frozen=True)
class Trials:
    """Trials of every input of a simulation; :func:`simulate` explains each value.

    Raises
    ------
    ValueError
        If a value is not legal, or there are more steps than can be counted.
    """

    n_trials: int = 10
    duration: float = 500.0
    burn_in: float = 100.0
    dt: float = 1.0
    solver: str = "heun"
    shared_noise: bool = False
    antithetic: bool = False
    increments: str = "gaussian"
    precision: str = "float32"
    covariance: bool = True
    rates: bool = True
    drive_step: float | None = None

    def __post_init__(self):
        self._check_times()
        counted = isinstance(self.n_trials, Integral) and not isinstance(self.n_trials, bool)
        if not counted or not 1 <= self.n_trials <= MOST:
            raise ValueError(f"n_trials must be a positive integer, got {self.n_trials!r}.")
        for name, legal in CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in legal:
                raise ValueError(f"{name} must be one of {list(legal)}, got {value!r}.")
        for name in (f.name for f in fields(self) if isinstance(f.default, bool)):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}.")
        if self.antithetic and self.n_trials % 2:
            raise ValueError(
                f"antithetic trials come in pairs: n_trials must be even, got {self.n_trials}."
            )

    def _check_times(self):
        least = {"dt": None, "duration": self.dt, "burn_in": 0}
        if self.drive_step is not None:
            least["drive_step"] = None
        for name, low in least.items():
            value = getattr(self, name)
            legal = isinstance(value, Real) and -math.inf < value < math.inf
            if not legal or (value <= 0 if low is None else value < low):
                bound = "> 0" if low is None else f">= {low:g}" + (" (one step dt)" if low else "")
                raise ValueError(f"{name} must be a finite number of ms {bound}, got {value!r}.")
        n_steps = (self.burn_in + self.duration) / self.dt
        if n_steps > MOST_STEPS:
            raise ValueError(
                f"burn_in and duration of {self.burn_in:g} and {self.duration:g} ms take "
                f"{n_steps:.3g} steps of dt={self.dt:g} ms, more than can be simulated."
            )

        for name in list(least)[1:]:
            check_steps(getattr(self, name), self.dt, name)

    @property
    def n_burn(self):
        """Steps of burn-in."""
        return round(self.burn_in / self.dt)

    @property
    def held(self):
        """Steps of each time of a changing drive, None if that is given for all steps."""
        return None if self.drive_step is None else round(self.drive_step / self.dt)

    @property
    def n_drives(self):
        """Times of a changing drive."""
        if self.held is None:
            return self.n_burn + self.n_window
        return -(-self.n_window // self.held)

    def shown_again(self, drive):
        """A drive in time, an array or tensor, from its start again until all is over."""
        return drive[np.arange(self.n_drives) % len(drive)]

    @property
    def n_window(self):
        """Steps after burn-in."""
        return round(self.duration / self.dt)

    def check_cells(self, cells):
        """Raise ValueError unless steps are shorter than the time constants.

        No scheme follows a cell in steps as long as those, and moments may be wrong long before
        trials diverge.

        Parameters
        ----------
        cells : Circuit or estimator
            With `tau_e` and `tau_i`, in ms, or receptors.
        """
        least = {name: np.min(getattr(cells, name)) for name in ("tau_e", "tau_i")}
        if getattr(cells, "receptors", None) is not None:
            least = {f"tau of {name}": tau for name, tau in cells.receptors.tau.items()}
        shortest = min(least, key=least.get)
        if self.dt >= least[shortest]:
            raise ValueError(
                f"dt must be shorter than the time constants of the cells: it is {self.dt:g} ms, "
                f"and {shortest} is {least[shortest]:g} ms."
            )
