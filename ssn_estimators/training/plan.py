"""What training is told, and what it leads to: values only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ssn_estimators._torch import Patience
from ssn_estimators.circuit import Circuit
from ssn_estimators.growth import split
from ssn_estimators.simulation import Trials
from ssn_estimators.training.guard import Guard
from ssn_estimators.training.penalties import Penalties

__all__ = ["INFORMED", "Growth", "Model", "Outcome", "Phase", "Plan", "Task"]


INFORMED = ("gradient", "output")  # choices of parents that look at more than the circuit


@dataclass(frozen=True)
class Model:
    """A circuit and the arrays around it (input weights, readout) trained with it; NumPy."""

    circuit: Circuit
    arrays: dict

    @property
    def size(self):
        return self.circuit.n_excitatory, self.circuit.n_inhibitory


class Task(Protocol):
    """What a circuit is trained for. Arrays are tensors, but NumPy in `grow`.

    `incoming` and `outgoing` name the arrays with a row for each cell, and with a column for each
    E cell; `nonnegative` those that are kept from falling below 0. `chance` says in words which
    answer `chance_loss` is that of.
    """

    incoming: tuple
    outgoing: tuple
    nonnegative: tuple
    chance: str

    def drive(self, circuit, arrays, inputs):
        """External drive of shape (n_inputs, n_neurons)."""

    def rates(self, circuit, inputs):
        """Factors of the learning rate, by the names of parameters."""

    def loss(self, moments, arrays, targets):
        """Scalar cost of the moments, of all inputs as often as there are copies of them."""

    def chance_loss(self, targets):
        """Loss of an answer that knows the targets but no inputs; infinite if not known."""

    def idle(self, rates):
        """Mask of the cells that take no part, from rates of shape (n_inputs, n_neurons)."""

    def grow(self, arrays, old, new, origin, shares):
        """The arrays of the circuit `new`, grown from `old`.

        `shares` is a function of origins and a number of targets, as `shares_of`.
        """


@dataclass(frozen=True)
class Growth:
    """Which cells are split, and how; see :func:`choose_parents` and :func:`split`.

    `parents` may also be one of `INFORMED`. `split` is replaced in controls.
    """

    parents: object = "last"
    clone_shares: str = "equal"
    split: Callable = split


@dataclass(frozen=True)
class Phase:
    """Training at some sizes, one after the other, with gradients from one source.

    Parameters
    ----------
    sizes : tuple of (int, int)
        Excitatory and inhibitory cells at each stage.
    gradients : Simulated, Solved or Searched
    max_iter, growth_iter : int
        Optimiser steps at the last size, and at those before.
    learning_rate : {"cosine", "constant"}
        How the rate goes on at the last size.
    learning_rate_init : float
    score : callable, default=None
        ``score(model)`` on held-out data, greater is better. At the last size the best model by it
        is kept, and training stops when it no longer grows.
    goes_on : bool, default=False
        Whether Adam goes on with what it knows from the phase before.
    """

    sizes: tuple
    gradients: object
    max_iter: int
    growth_iter: int
    learning_rate: str
    learning_rate_init: float
    score: Callable | None = None
    goes_on: bool = False


@dataclass(frozen=True)
class Plan:
    """A whole training; times in ms. `SSNClassifier` explains what it names alike.

    Parameters
    ----------
    start : Model
        Stable, of the first size.
    task : Task
    data : pair of Tensors
        Inputs and targets.
    phases : tuple of Phase
    structure : structure of :mod:`~ssn_estimators.structures`
        What is trained of the circuit.
    trials : Trials
        Those of a training step, and (but for their number, length and noise) of the guard.
    growth : Growth
    penalties : Penalties
    patience : Patience
        When scores no longer grow.
    held_out : Tensor, default=None
        Inputs on which the network must be stable too.
    samples : pair of arrays, default=(None, None)
        Training data for callbacks that ask for it.
    state : dict, default=None
        State of Adam to go on from, as left in ``Outcome.optimizer_state``.
    restart : callable, default=None
        ``restart()`` makes another start, for another attempt where training could not be kept
        stable, or has learned nothing after a quarter of the last stage. None: no such attempt.
    guard : type, default=Guard
        Replaced in controls.
    batch_size, max_grad_norm, max_rejected
        See `SSNClassifier`.
    input_noise : pair of floats, default=(0, 0)
        Standard deviation at first, and at the end of the last stage.
    grows_fully : bool, default=False
        Whether the last size is reached, without training, where training was stopped before.
    whole : bool, default=True
        Or one of many short calls, which are not judged as thoroughly.
    device : str, default="cpu"
    verbose : bool or int, default=False
        Whether to say how a stage has ended; above 1, also how it goes every so many steps.
    """

    start: Model
    task: Task
    data: tuple
    phases: tuple
    structure: object
    trials: Trials
    growth: Growth
    penalties: Penalties
    patience: Patience
    held_out: object = None
    samples: tuple = (None, None)
    state: dict | None = None
    restart: Callable | None = None
    guard: type = Guard
    batch_size: int = 256
    max_grad_norm: float = 1.0
    max_rejected: int = 10
    input_noise: tuple = (0.0, 0.0)
    grows_fully: bool = False
    whole: bool = True
    device: str = "cpu"
    verbose: bool | int = False

    @property
    def n_stages(self):
        return sum(len(phase.sizes) for phase in self.phases)


@dataclass
class Outcome:
    """Where training has led, and its history."""

    model: Model
    loss_curve: list = field(default_factory=list)
    growth_history: list = field(default_factory=list)
    validation_scores: list = field(default_factory=list)
    n_rejected_steps: int = 0
    n_runaways: int = 0  # of these, steps at which a trial ran away in the training window
    n_attempts: int = 1
    n_dropped: int = 0
    stability: float = math.nan
    n_steps: int = 0
    validation_score: float | None = None
    optimizer_state: dict | None = None
    stopped: bool = False  # before its end: interrupted, by a callback, or given up
    failure: tuple | None = None  # cause and outcome, for the warning
    interrupted: bool = False
    idle: np.ndarray | None = None  # mask of cells that take no part, of the last confirmation
    divergence_rate: float = math.nan  # bound from there, in 1/s
    at_chance: bool = False  # the loss ends at that of the frequencies of the targets

    @classmethod
    def joined(cls, outcomes):
        """Of phases one after the other."""
        curve, history, scores = [], [], []
        for outcome in outcomes:
            history += [dict(g, n_iter=g["n_iter"] + len(curve)) for g in outcome.growth_history]
            curve, scores = curve + outcome.loss_curve, scores + outcome.validation_scores
        counts = {
            name: sum(getattr(outcome, name) for outcome in outcomes)
            for name in ("n_rejected_steps", "n_runaways", "n_steps", "n_dropped")
        }
        return replace(
            outcomes[-1],
            loss_curve=curve,
            growth_history=history,
            validation_scores=scores,
            n_attempts=1 + sum(outcome.n_attempts - 1 for outcome in outcomes),
            **counts,
        )
