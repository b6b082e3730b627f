"""The training loop: grow, descend, and never keep a step that made the circuit diverge."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from ssn_estimators._torch import falling, learning_rate, minibatches
from ssn_estimators.evolution import estimate_gradient
from ssn_estimators.growth import choose_parents, gain_of_splits, shares_of, split
from ssn_estimators.simulation import Trials
from ssn_estimators.stationary.moments import stationary_moments
from ssn_estimators.training.descent import MOST_CAUTION, Descent, Model
from ssn_estimators.training.guard import Confirmation, Guard
from ssn_estimators.training.penalties import (
    excess_growth,
    excess_potential,
    silence,
    unsettled,
)
from ssn_estimators.training.side_by_side import Backward, Forward

__all__ = ["Settings", "Task", "Training", "train"]

N_ATTEMPTS = 3
CHANCE = 0.98  # of the loss of class frequencies; beyond it nothing has been learned
RECENT = 25  # losses that say where training is
CALMER_RATE, CALMER_PENALTY = 0.5, 10.0  # of an attempt after one that was not stable
REPAIRS, REPAIR_STEPS, REPAIR_RATE = 3, 50, 0.1  # times, steps and rate, if the end is not stable
LEAST_STEPS, TOLD = 200, 0.25  # of the last stage, and the share of them after which it is asked
CONFIRM_INTERVAL = 50  # accepted steps between two confirmations on the running batch
# Steps until the rate of a stage is whole, if not above an eighth of the stage. Adam's first
# steps change all parameters by the rate, those of clones alike: far more than later ones do.
WARM_UP = 20
MANY_REJECTED = 0.1  # of all steps: the fit ended well, but the rate does not suit the network
INFORMED = ("gradient", "output")  # choices of parents that look at more than the circuit
LOOK_INTERVALS = (8, 2)  # steps between two looks at the Jacobian if it was stable, and if not


class Task(Protocol):
    """What a circuit is trained for. Arrays are tensors, but NumPy in `grow`.

    `incoming` and `outgoing` name the arrays with a row for each cell, and with a column for each
    E cell.
    """

    incoming: tuple
    outgoing: tuple

    def drive(self, circuit, arrays, inputs):
        """External drive of shape (n_inputs, n_neurons)."""

    def rates(self, circuit, inputs):
        """Factors of the learning rate, by the names of parameters."""

    def loss(self, moments, arrays, targets):
        """Scalar cost of the moments, of all inputs as often as the settings have copies."""

    def chance_loss(self, targets):
        """Loss of an answer that knows the targets but no inputs; infinite if not known."""

    def idle(self, rates):
        """Mask of the cells that take no part, from rates of shape (n_inputs, n_neurons)."""

    def grow(self, arrays, old, new, origin, shares):
        """The arrays of the circuit `new`, grown from `old`.

        `shares` is a function of origins and a number of targets, as `shares_of`.
        """


@dataclass(frozen=True)
class Settings:
    """How to train; times in ms. `SSNClassifier` explains each."""

    structure: type
    solver: str
    dt: float
    burn_in: float
    window: float
    n_trials: int
    shared_noise: bool
    precision: str
    batch_size: int
    learning_rate: str
    learning_rate_init: float
    max_grad_norm: float
    potential_penalty: float
    stability_penalty: float
    growth_iter: int
    max_iter: int
    parents: object
    clone_shares: str
    max_rejected: int
    evaluation_interval: int
    n_iter_no_change: int
    tol: float
    device: str
    verbose: bool
    input_noise: tuple = (0.0, 0.0)  # at first, and at the end of the last stage
    covariance: bool = False  # whether the cost needs covariances
    n_copies: int = 1  # of every input, with noise of their own
    closure: str | None = None  # moments from `stationary_moments`, not from simulation
    settling_penalty: float = 0.0
    trainer: str = "bptt"
    es_samples: int = 0
    es_sigma: float = 0.0
    all_fire: bool = False  # whether cells that no input makes fire are penalised
    whole: bool = True  # or one of many short calls, which are not judged as thoroughly


@dataclass
class Training:
    """Outcome and history of :func:`train`."""

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


def train(
    model,
    sizes,
    task,
    data,
    settings,
    rng,
    *,
    validation=None,
    score=None,
    progress=None,
    state=None,
    restart=None,
    n_before=0,
):
    """Grow a model through `sizes`, training at each: a generator for `run_together`.

    Parameters
    ----------
    model : Model
        A stable start, of the first size.
    sizes : list of (int, int)
        Excitatory and inhibitory cells at each stage of growth.
    task : Task
        Drive, loss and growth of the arrays around the circuit.
    data : pair of Tensors
        Inputs and targets.
    settings : Settings
        Time grid, optimiser, guard.
    rng : RandomState
        Batches, parents and noise.
    validation : pair of Tensors, default=None
        Held-out inputs and targets.
    score : callable, default=None
        ``score(model)`` on the validation data, greater is better. At the last stage the
        best model by it is kept, and training stops when it no longer grows.
    progress : FitProgress, default=None
        Is told of stages and steps, and may ask to stop.
    state : dict, default=None
        State of Adam to go on from, as left in ``Training.optimizer_state``.
    restart : callable, default=None
        ``restart()`` makes another start, for another attempt where training could not be kept
        stable, or has learned nothing after a quarter of the last stage. None: no such attempt.
    n_before : int, default=0
        Accepted steps of earlier phases of the same fit, for what is printed.

    Returns
    -------
    training : Training
        Of the best attempt; counts of steps are those of all. Its model has been confirmed
        stable with twice its noise, if ``stability`` is 1.

    Warns
    -----
    ConvergenceWarning
        If training could not be kept stable; the last stable model is returned.
    """
    attempts, asked, run = [], settings, None
    for again in range(N_ATTEMPTS if restart else 1):
        if again:
            try:
                model, state = restart(), None
            except KeyboardInterrupt:
                run.interrupt()
                break
            except RuntimeError:
                run.fail("no stable start was found for another attempt")
                break
            if attempts[-1].failure:
                settings = replace(
                    settings,
                    learning_rate_init=settings.learning_rate_init * CALMER_RATE,
                    stability_penalty=settings.stability_penalty * CALMER_PENALTY,
                )
            if progress:
                progress.begin_again(len(sizes))
        run = _Run(
            task, data, settings, rng, validation, score, progress, Training(model), n_before
        )
        run.may_give_up = restart is not None and again < N_ATTEMPTS - 1
        yield from run.all_stages(sizes, state)
        attempts.append(run.result)
        if not run.wants_another():
            break
    kept, latest = min(attempts, key=_rank), attempts[-1]
    if latest.interrupted:
        kept.stopped, kept.failure = True, latest.failure
    for name in ("n_rejected_steps", "n_runaways", "n_steps", "n_dropped"):
        setattr(kept, name, sum(getattr(attempt, name) for attempt in attempts))
    kept.n_attempts = len(attempts)
    for message in _complaints(kept, asked):
        warnings.warn(message, ConvergenceWarning, stacklevel=7)
    return kept


def _rank(training):
    """Smaller for better outcomes."""
    last = training.loss_curve[-RECENT:]
    loss = np.mean(last) if last else math.inf
    size = training.model.circuit.n_neurons
    return training.stability != 1, training.failure is not None, -size, training.at_chance, loss


def _complaints(training, settings):
    """What the user should be warned of."""
    circuit = training.model.circuit
    if training.failure:
        cause, outcome = training.failure
        state = "stable" if training.stability == 1 else "(unstable)"
        yield (
            f"{outcome}: {cause}. The last {state} network, of {circuit.n_excitatory} excitatory "
            f"and {circuit.n_inhibitory} inhibitory cells, is kept. If it diverged, lower "
            f"learning_rate_init (now {settings.learning_rate_init:g}), raise growth_iter (now "
            f"{settings.growth_iter}) or stability_penalty (now {settings.stability_penalty:g}), "
            "or try another random_state."
        )
        return
    if training.at_chance and settings.whole:
        yield (
            "The network has learned nothing: its loss is that of the frequencies of the classes, "
            "whatever the input. Raise max_iter (now "
            f"{settings.max_iter}), give it more cells, or try another random_state or encoding."
        )
    if training.idle is not None and training.idle.any():
        yield (
            f"{training.idle.sum()} of {circuit.n_neurons} cells are silent on all inputs: "
            f"{np.flatnonzero(training.idle).tolist()}. They take no part; "
            f"raise potential_penalty (now {settings.potential_penalty:g}) or choose fewer cells."
        )


class _Run:
    """One call of :func:`train`."""

    def __init__(self, task, data, settings, rng, validation, score, progress, result, n_before):
        self.task, self.data, self.settings, self.rng = task, data, settings, rng
        self.validation, self.score, self.progress = validation, score, progress
        self.result, self.n_before = result, n_before
        sets = [data[0]] + ([validation[0]] if validation else [])
        self.guard = Guard(task, sets, self.trials, settings.device, rng)
        self.batches = minibatches(len(data[0]), settings.batch_size, rng)
        self.unstable = False  # at the latest look at the Jacobian
        self.may_give_up = self.gave_up_learning = False  # there will be another attempt
        self.gradients = {}  # at the end of the latest stage
        self.chance = CHANCE * task.chance_loss(data[1]) if len(data[1]) else math.inf

    def all_stages(self, sizes, state):
        result = self.result
        try:
            for stage, size in enumerate(sizes):
                start = result.model
                if (start.circuit.n_excitatory, start.circuit.n_inhibitory) != size:
                    start, state = self.grow(start, *size), None
                if not (yield from self.stage(start, stage == len(sizes) - 1, state)):
                    result.stopped = True
                    return
                state = None
        except KeyboardInterrupt:  # between stages; inside, a stage keeps what it has reached
            self.interrupt()
            return
        if result.n_rejected_steps > MANY_REJECTED * result.n_steps:
            self.fail(
                f"{result.n_rejected_steps} of {result.n_steps} steps made the network diverge",
                outcome="Training was kept stable only by undoing steps",
            )

    def fail(self, cause, outcome="Training stopped early"):
        self.result.failure = (cause, outcome)

    def interrupt(self):
        self.result.stopped = self.result.interrupted = True
        self.fail("interrupted by the user")

    def wants_another(self):
        """Whether another attempt may do better."""
        result = self.result
        if result.interrupted:
            return False
        learned = not result.at_chance or self.settings.max_iter < LEAST_STEPS
        return result.failure is not None or not (learned or result.stopped)

    def learned_nothing(self):
        losses = self.result.loss_curve[-RECENT:]
        return bool(losses) and np.mean(losses) > self.chance

    def grow(self, model, n_excitatory, n_inhibitory):
        how, rng = self.settings.parents, self.rng
        if how in INFORMED:
            how = self.values_of_cells(model, how)
        parents = choose_parents(model.circuit, n_excitatory, n_inhibitory, how, rng)
        how = self.settings.clone_shares
        circuit, origin = split(model.circuit, parents, shares=how, random_state=rng)
        shares = partial(shares_of, how=how, random_state=rng)
        return Model(circuit, self.task.grow(model.arrays, model.circuit, circuit, origin, shares))

    def values_of_cells(self, model, how):
        """What speaks for a split of each cell."""
        gradient = self.gradients.get(("circuit", "weights"), np.zeros(0))
        if how == "gradient" and gradient.any():  # there is none after a step that was undone
            arrays = {name: g for (group, name), g in self.gradients.items() if group == "arrays"}
            incoming = [arrays[name] for name in self.task.incoming if name in arrays]
            outgoing = [arrays[name] for name in self.task.outgoing]
            return gain_of_splits(gradient, incoming, outgoing)
        values = (model.circuit.weights.astype(float) ** 2).sum(0)
        for name in self.task.outgoing:
            weights = model.arrays[name]
            values[: weights.shape[1]] += (weights**2).sum(0)
        return values

    def stage(self, start, last, state):
        """Train at one size; False if there is nothing left to do, for good or ill."""
        settings, result = self.settings, self.result
        n_steps = settings.max_iter if last else settings.growth_iter
        if self.progress:
            n_e, n_i = start.circuit.n_excitatory, start.circuit.n_inhibitory
            self.progress.begin_stage(f"{n_e} E + {n_i} I", n_steps)
        rejected_before = result.n_rejected_steps
        descent = Descent(start, settings, state, self.task.rates(start.circuit, self.data[0]))
        best = []  # (score, model) that raised the validation score, the latest last
        try:
            yield from self._descend(descent, n_steps, last, best, fresh=state is None)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True

        self.gradients = descent.gradients() if settings.parents == "gradient" else {}
        previous = result.model
        if self.gave_up_learning and not interrupted:
            result.at_chance = True
            if settings.verbose:
                print("[SSN] nothing learned so far: another attempt", flush=True)
            return not (self.progress and self.progress.end_stage(lambda: result.model))
        try:
            kept = yield from self._keep(descent, best, start, last)
        except KeyboardInterrupt:
            interrupted = True
            if descent.anchors:  # confirmed already, if on fewer inputs
                confirmed = Confirmation(1.0)
                self._take(descent.model(descent.anchors[-1]), None, confirmed)
            kept = result.model
        untrained = n_steps > 0 and (kept is start or kept is previous)
        result.growth_history.append(
            {
                "n_excitatory": result.model.circuit.n_excitatory,
                "n_inhibitory": result.model.circuit.n_inhibitory,
                "n_iter": len(result.loss_curve),
                "loss": result.loss_curve[-1] if result.loss_curve else math.nan,
                "n_rejected_steps": result.n_rejected_steps - rejected_before,
            }
        )
        if settings.verbose:
            line = (
                "[SSN] {n_excitatory:4d} E + {n_inhibitory:4d} I   step {n_iter:5d}   "
                "loss {loss:.4f}   rejected {n_rejected_steps}"
            )
            noted = result.growth_history[-1]
            print(line.format(**noted | {"n_iter": self.n_before + noted["n_iter"]}), flush=True)
        stop = self.progress.end_stage(lambda: result.model) if self.progress else False
        if interrupted:
            self.interrupt()
        elif descent.gave_up:
            self.fail(f"more than {settings.max_rejected} steps in a row made the network diverge")
        elif (last and untrained) or kept is previous is not start:
            self.fail("no network of the last stage stayed finite in long runs")
        else:
            result.at_chance = last and self.learned_nothing()
            return not stop
        return False

    def _keep(self, descent, best, start, last):
        """Keep the best model of a stage that is stable in the long run."""
        result, latest, previous = self.result, None, self.result.model
        candidates = best[::-1]
        if not candidates and not descent.gave_up and descent.made() is not None:
            latest = descent.model()
            candidates = [(None, latest)]
        for score, model in candidates:
            if (yield from self._passes(model, last, score)):
                result.optimizer_state = descent.optimizer_state() if model is latest else None
                return model
        if last and self.settings.whole and self.settings.max_iter and not descent.gave_up:
            for _ in range(REPAIRS):
                model = yield from self._repaired(descent)
                if model and (yield from self._passes(model, last)):
                    return model
        # weakened networks answer badly, but later stages train on
        anchors = (descent.model(values) for values in descent.anchors[::-1])
        for model in chain(anchors, () if last else descent.weakened(), [start]):
            if (yield from self._passes(model, last)):
                return model
        yield from self._passes(previous, last, whatever=True)
        return previous

    def _passes(self, model, last, score=None, *, whatever=False):
        """Whether a model is stable in the long run; it is the outcome then, or whatever."""
        final = last and self.settings.whole
        confirmation = yield from self.guard.confirm(model, final)
        if confirmation.share == 1 or whatever:
            self._take(model, score, confirmation)
        return confirmation.share == 1

    def _take(self, model, score, confirmation):
        result = self.result
        result.model, result.validation_score = model, score
        result.stability, result.idle = confirmation.share, confirmation.idle
        result.divergence_rate, result.optimizer_state = confirmation.divergence_rate, None

    def _repaired(self, descent):
        """The latest model after some short steps that heed stability most; None if it failed."""
        descent.caution, rate = MOST_CAUTION, REPAIR_RATE * self.settings.learning_rate_init
        for _ in range(REPAIR_STEPS):
            self._note((yield from self._step(descent, next(self.batches), rate)))
            if descent.gave_up:
                return None
        return descent.model() if descent.made() is not None else None

    def _note(self, loss):
        """Count a step, by its loss or None."""
        result = self.result
        result.n_steps += 1
        if loss is None:
            result.n_rejected_steps += 1
            result.n_runaways += 1
        else:
            result.loss_curve.append(loss)

    def _descend(self, descent, n_steps, last, best, fresh):
        settings, result = self.settings, self.result
        scores, n_accepted = [], 0
        warm_up = min(WARM_UP, 1 + n_steps // 8) if fresh else 1
        for step in range(n_steps):
            batch, done = next(self.batches), step / n_steps if last else 0.0
            rate = learning_rate(settings, done) * min(1.0, (step + 1) / warm_up)
            loss = yield from self._step(descent, batch, rate, done)
            self._note(loss)
            if descent.gave_up:
                return
            if loss is not None:
                n_accepted += 1
                if n_accepted % CONFIRM_INTERVAL == 0:
                    result.n_rejected_steps += not (yield from self._anchor(descent, batch))
            stop = False
            look = (step + 1) % settings.evaluation_interval == 0 or step + 1 == n_steps
            if self.score and last and look and descent.made() is not None:
                model = descent.model()
                scores.append(self.score(model))
                result.validation_scores.append(scores[-1])
                if scores[-1] > max(scores[:-1], default=-math.inf):
                    best.append((scores[-1], model))
                patience = settings.n_iter_no_change
                before = max(scores[:-patience], default=math.inf)
                stop = len(scores) > patience and max(scores[-patience:]) <= before + settings.tol
            if self.progress:
                stop |= self.progress.step(lambda: descent.model(descent.good))
            told = last and n_steps >= LEAST_STEPS and step + 1 == round(TOLD * n_steps)
            if stop:
                return
            if told and self.may_give_up and self.learned_nothing():
                self.gave_up_learning = True
                return

    def _step(self, descent, batch, rate, done=1.0):
        """One step after a share of the last stage; its loss, or None if it was rejected."""
        inputs, targets = (tensor[batch] for tensor in self.data)
        settings = self.settings
        if any(settings.input_noise):
            first, end = settings.input_noise
            scale = end + (first - end) * falling(done)
            noise = self.rng.normal(scale=scale, size=tuple(inputs.shape))
            inputs = inputs + torch.as_tensor(noise, dtype=inputs.dtype, device=inputs.device)
        made = descent.made()
        if made is None:
            return descent.reject()
        if settings.trainer == "es":
            return (yield from self._search(descent, inputs, targets, rate))
        circuit, arrays = made
        drive = self.task.drive(circuit, arrays, inputs)
        if not torch.isfinite(drive).all():
            return descent.reject()
        if settings.closure:
            yield  # Ctrl-C
            moments, forward = stationary_moments(circuit, drive, closure=settings.closure), None
            stable = bool(moments.converged.all())
        else:
            forward = Forward(circuit, drive.repeat(settings.n_copies, 1), self.trials, self.rng)
            moments = yield forward
            stable = not moments.diverged.any()
        if stable:
            loss = self.task.loss(moments, arrays, targets)
            penalty = self._penalty(circuit, drive, moments.mean, descent.caution)
            # the way back through the simulation will pass the circuit once more
            again = forward is not None and (settings.settling_penalty + settings.stability_penalty)
            descent.backward(loss + penalty, retain_graph=bool(again))
        if forward:
            yield Backward(forward)
        return descent.step(loss.item(), rate) if stable else descent.reject()

    def _search(self, descent, inputs, targets, rate):
        """A step along an estimate of the gradient, from costs at perturbed parameters."""
        settings, seed = self.settings, int(self.rng.randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        shape = (settings.es_samples // 2, descent.n_parameters)
        noise = settings.es_sigma * torch.randn(shape, generator=generator, dtype=torch.float32)
        noise = noise.to(settings.device)
        costs = torch.empty(2, len(noise), dtype=torch.float64)
        for side, sign in enumerate((1, -1)):
            for i, change in enumerate(noise):
                with torch.no_grad():
                    made = descent.made(sign * change)
                # with the same random numbers, so that costs differ by their parameters only
                costs[side, i] = yield from self._cost(made, inputs, targets, seed, descent.caution)
        try:
            gradient, n_dropped = estimate_gradient(noise, costs, settings.es_sigma)
        except FloatingPointError:
            self.result.n_dropped += costs.numel()
            return descent.reject()
        self.result.n_dropped += n_dropped
        descent.set_gradient(gradient)
        return descent.step(float(costs[torch.isfinite(costs)].mean()), rate)

    def _cost(self, made, inputs, targets, seed, caution):
        if made is None:
            return math.inf
        circuit, arrays = made
        drive = self.task.drive(circuit, arrays, inputs)
        if not torch.isfinite(drive).all():
            return math.inf
        moments = yield Forward(circuit, drive, self.trials, seed, gradient=False)
        if moments.diverged.any():
            return math.inf
        loss = self.task.loss(moments, arrays, targets)
        return float(loss + self._penalty(circuit, drive, moments.mean, caution))

    def _penalty(self, circuit, drive, mean, caution):
        """Of large potentials, instability and slow answers, in addition to the cost."""
        settings = self.settings
        penalty = settings.potential_penalty * excess_potential(mean)
        if settings.all_fire:
            penalty = penalty + settings.potential_penalty * silence(mean)
        interval = LOOK_INTERVALS[self.unstable]
        if settings.trainer == "es":
            interval = 1  # costs that are compared all have it
        due = self.result.n_steps % interval == 0
        if settings.stability_penalty and due:
            growth = excess_growth(circuit, mean)
            self.unstable = bool(growth > 0)
            penalty = penalty + caution * settings.stability_penalty * growth
        if settings.settling_penalty:
            settled = mean.unflatten(0, (-1, len(drive))).mean(0)  # over copies of the inputs
            share = unsettled(circuit, drive, settled, settings.dt, settings.solver)
            penalty = penalty + settings.settling_penalty * share
        return penalty

    @property
    def trials(self):
        settings = self.settings
        return Trials(
            n_trials=settings.n_trials,
            duration=settings.window,
            burn_in=settings.burn_in,
            dt=settings.dt,
            solver=settings.solver,
            shared_noise=settings.shared_noise,
            precision=settings.precision,
            covariance=settings.covariance,
            rates=False,
        )

    def _anchor(self, descent, batch):
        """Note the parameters as safe to return to if they pass the long run."""
        if (yield from self.guard.holds(descent.model(descent.good), self.data[0][batch])):
            descent.anchors.append(descent.good)
            return True
        descent.reject(weaken=True)
        return False
