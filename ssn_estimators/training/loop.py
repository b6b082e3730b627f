"""The training loop: grow, descend, and never keep a step that made the circuit diverge."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from ssn_estimators._logging import is_due, tell
from ssn_estimators._torch import Minibatches, falling, learning_rate
from ssn_estimators.growth import choose_parents, gain_of_splits, shares_of
from ssn_estimators.training.checkpoints import (
    model_from,
    model_state,
    outcome_from,
    outcome_state,
)
from ssn_estimators.training.descent import MOST_CAUTION, Descent
from ssn_estimators.training.guard import Confirmation
from ssn_estimators.training.plan import INFORMED, Model, Outcome

__all__ = ["train"]

N_ATTEMPTS = 3
CHANCE = 0.98  # of the loss of the best constant answer; beyond it nothing has been learned
RECENT = 25  # losses that say where training is
LARGE_RATE = 0.1  # a step of Adam then is as large as most weights
CALMER_RATE, CALMER_PENALTY = 0.5, 10.0  # of an attempt after one that was not stable
REPAIRS, REPAIR_STEPS, REPAIR_RATE = 3, 50, 0.1  # times, steps and rate, if the end is not stable
REPAIR_PENALTY = 0.1  # least factor of instability then, which trials that end early do not show
LEAST_STEPS, TOLD = 200, 0.25  # of the last stage, and the share of them after which it is asked
CONFIRM_INTERVAL = 50  # accepted steps between two confirmations on the running batch
SCORE_INTERVAL = 50  # steps between two looks at the score
# Steps until the rate of a stage is whole, if not above an eighth of the stage. Adam's first
# steps change all parameters by the rate, those of clones alike: far more than later ones do.
WARM_UP = 20
MANY_REJECTED = 0.1  # of all steps: the fit ended well, but the rate does not suit the network
LOOK_INTERVALS = (8, 2)  # steps between two looks at the Jacobian if it was stable, and if not


def train(plan, rng, progress=None, record=None):
    """Carry out a plan: a generator for `run_together`.

    Parameters
    ----------
    plan : Plan
    rng : RandomState
        Batches, parents and noise.
    progress : FitProgress, default=None
        Is told of stages and steps, and may ask to stop.
    record : record of a `Checkpoint`, default=None
        Takes the state of training now and then, and may have one to go on from.

    Returns
    -------
    outcome : Outcome
        That of the best attempt; counts of steps are those of all. Its model has been confirmed
        stable with twice its noise, if ``stability`` is 1.

    Warns
    -----
    ConvergenceWarning
        If training could not be kept stable; the last stable model is returned.
    """
    saved = record.saved if record else None
    outcomes = [outcome_from(state) for state in saved["outcomes"]] if saved else []
    if saved:
        rng.set_state(saved["rng"].get_state())
    for phase in plan.phases[len(outcomes) :]:
        if outcomes:
            known = outcomes[-1].optimizer_state if phase.goes_on else None
            plan = replace(plan, start=outcomes[-1].model, state=known, restart=None)
        notes = _Notes(record, outcomes, saved)
        outcomes.append((yield from _attempts(plan, phase, rng, progress, notes)))
        saved = None
        _complain(outcomes[-1], plan, phase, last=phase is plan.phases[-1])
        if outcomes[-1].stopped:
            break
    model, wanted = outcomes[-1].model, phase.sizes[-1]
    if plan.grows_fully and model.size != wanted:
        untrained = replace(phase, sizes=(wanted,), max_iter=0, growth_iter=0, score=None)
        rest = replace(plan, start=model, state=None, held_out=None, restart=None, verbose=False)
        outcomes.append((yield from _attempts(rest, untrained, rng, None, _Notes(None, outcomes))))
        _complain(outcomes[-1], rest, untrained, last=True)
    return Outcome.joined(outcomes)


class _Notes:
    """Where a phase notes its state, and what came before it."""

    def __init__(self, record, outcomes, saved=None):
        self.record, self.outcomes, self.saved, self.attempts = record, list(outcomes), saved, []
        if saved:
            self.attempts = [outcome_from(state) for state in saved["attempts"]]

    @property
    def n_before(self):
        """Accepted steps of earlier phases, for what is printed."""
        return sum(len(outcome.loss_curve) for outcome in self.outcomes)

    def take(self):
        """State of the run that was going on, once."""
        saved, self.saved = self.saved, None
        return saved and saved["run"]

    def note(self, step, rng, run_state):
        if self.record and self.record.due(step):
            around = {
                "outcomes": [outcome_state(outcome) for outcome in self.outcomes],
                "attempts": [outcome_state(attempt) for attempt in self.attempts],
            }
            self.record.write(rng, around | {"run": run_state()})


def _attempts(plan, phase, rng, progress, notes):
    """The best outcome of one phase."""
    attempts, run, model, state = notes.attempts, None, plan.start, plan.state
    for attempt in attempts:
        if attempt.failure:
            phase, plan = _calmer(phase, plan)
        if progress:
            progress.begin_again(len(phase.sizes))
    for again in range(len(attempts), N_ATTEMPTS if plan.restart else 1):
        if again and not notes.saved:
            try:
                model, state = plan.restart(), None
            except KeyboardInterrupt:
                run.interrupt()
                break
            except RuntimeError:
                run.fail("no stable start was found for another attempt")
                break
            if attempts[-1].failure:
                phase, plan = _calmer(phase, plan)
            if progress:
                progress.begin_again(len(phase.sizes))
        run = _Run(plan, phase, model, rng, progress, notes)
        run.may_give_up = plan.restart is not None and again < N_ATTEMPTS - 1
        yield from run.all_stages(state)
        attempts.append(run.outcome)
        if not run.wants_another():
            break
    kept, latest = min(attempts, key=_rank), attempts[-1]
    if latest.interrupted:
        kept.stopped, kept.failure = True, latest.failure
    for name in ("n_rejected_steps", "n_runaways", "n_steps", "n_dropped"):
        setattr(kept, name, sum(getattr(attempt, name) for attempt in attempts))
    kept.n_attempts = len(attempts)
    return kept


def _calmer(phase, plan):
    """For an attempt after one that was not stable."""
    rate = CALMER_RATE * phase.learning_rate_init
    penalties = replace(plan.penalties, stability=CALMER_PENALTY * plan.penalties.stability)
    return replace(phase, learning_rate_init=rate), replace(plan, penalties=penalties)


def _rank(outcome):
    """Smaller for better outcomes."""
    last = outcome.loss_curve[-RECENT:]
    loss = np.mean(last) if last else math.inf
    size = outcome.model.circuit.n_neurons
    return outcome.stability != 1, outcome.failure is not None, -size, outcome.at_chance, loss


def _complain(outcome, plan, phase, last):
    for message in _complaints(outcome, plan, phase, last):
        warnings.warn(message, ConvergenceWarning, stacklevel=8)


def _complaints(outcome, plan, phase, last):
    """What the user should be warned of."""
    circuit = outcome.model.circuit
    if outcome.failure:
        cause, what = outcome.failure
        state, penalty = "stable" if outcome.stability == 1 else "(unstable)", ""
        if plan.penalties.stability:
            penalty = f" or stability_penalty (now {plan.penalties.stability:g})"
        yield (
            f"{what}: {cause}. The last {state} network, of {circuit.n_excitatory} excitatory "
            f"and {circuit.n_inhibitory} inhibitory cells, is kept. If it diverged, lower "
            f"learning_rate_init (now {phase.learning_rate_init:g}), raise growth_iter (now "
            f"{phase.growth_iter}){penalty}, or try another random_state."
        )
        return
    if outcome.at_chance and plan.whole and last:
        rate = phase.learning_rate_init
        slower = f"lower learning_rate_init (now {rate:g}), " if rate > LARGE_RATE else ""
        yield (
            f"The network has learned nothing: its loss is that of {plan.task.chance}, "
            f"whatever the input. Raise max_iter (now {phase.max_iter}), {slower}give it more "
            "cells, or try another random_state or encoding."
        )
    if outcome.idle is not None and outcome.idle.any():
        yield (
            f"{outcome.idle.sum()} of {circuit.n_neurons} cells are silent on all inputs: "
            f"{np.flatnonzero(outcome.idle).tolist()}. They take no part; "
            f"raise potential_penalty (now {plan.penalties.potential:g}) or choose fewer cells."
        )


class _Objective:
    """What a batch costs: the task's loss, and penalties, of which one is looked at now and then.

    Parameters
    ----------
    task : Task
    penalties : Penalties
    always : bool
        Whether instability counts at every step.
    """

    def __init__(self, task, penalties, always):
        self.task, self.penalties, self.always = task, penalties, always
        self.n_steps, self.unstable = 0, False  # steps so far; the latest look at the Jacobian

    def drive(self, made, inputs):
        """Of a circuit and its arrays; None where there is no such circuit or drive."""
        if made is None:
            return None
        drive = self.task.drive(*made, inputs)
        return drive if torch.isfinite(drive).all() else None

    def __call__(self, made, drive, moments, targets, caution):
        """Loss and penalties, tensors."""
        circuit, arrays = made
        loss = self.task.loss(moments, arrays, targets)
        penalties, mean = self.penalties, moments.mean
        penalty = penalties.of_potentials(mean) + penalties.of_activity(circuit, mean)
        due = self.always or self.n_steps % LOOK_INTERVALS[self.unstable] == 0
        if penalties.stability and due:
            excess, self.unstable = penalties.of_dynamics(circuit, mean, caution)
            penalty = penalty + excess
        if penalties.variance:
            penalty = penalty + penalties.of_variances(circuit, moments.covariance)
        if penalties.settling:
            penalty = penalty + penalties.of_slowness(circuit, drive, mean)
        return loss, penalty


class _Run:
    """One attempt at one phase."""

    def __init__(self, plan, phase, model, rng, progress, notes):
        self.plan, self.phase, self.rng, self.progress = plan, phase, rng, progress
        self.task, self.data, self.notes = plan.task, plan.data, notes
        self.outcome = Outcome(model)
        self.objective = _Objective(plan.task, plan.penalties, phase.gradients.looks_always)
        sets = [plan.data[0]] + ([] if plan.held_out is None else [plan.held_out])
        self.guard = plan.guard(plan.task, sets, plan.trials, plan.device, rng)
        self.batches = Minibatches(len(plan.data[0]), plan.batch_size, rng)
        self.may_give_up = self.gave_up_learning = False  # there will be another attempt
        self.gradients = {}  # at the end of the latest stage
        inputs, targets = plan.data
        self.chance = CHANCE * plan.task.chance_loss(targets) if len(inputs) else math.inf

    def all_stages(self, state):
        sizes, saved = self.phase.sizes, self.notes.take()
        outcome, start = self.outcome, None
        if saved:
            outcome = self.outcome = outcome_from(saved["outcome"])
            self.restore(saved)
            start = model_from(saved["start"]) if saved["start"] else outcome.model
        try:
            for stage in range(saved["stage"] if saved else 0, len(sizes)):
                if start is None:
                    start = outcome.model
                    if start.size != sizes[stage]:
                        start, state = self.grow(start, *sizes[stage]), None
                if not (yield from self.stage(start, stage, state, saved)):
                    outcome.stopped = True
                    return
                start = state = saved = None
        except KeyboardInterrupt:  # between stages; inside, a stage keeps what it has reached
            self.interrupt()
            return
        if outcome.n_rejected_steps > MANY_REJECTED * outcome.n_steps:
            self.fail(
                f"{outcome.n_rejected_steps} of {outcome.n_steps} steps made the network diverge",
                what="Training was kept stable only by undoing steps",
            )

    def fail(self, cause, what="Training stopped early"):
        self.outcome.failure = (cause, what)

    def interrupt(self):
        self.outcome.stopped = self.outcome.interrupted = True
        self.fail("interrupted by the user")

    def wants_another(self):
        """Whether another attempt may do better."""
        outcome = self.outcome
        if outcome.interrupted:
            return False
        learned = not outcome.at_chance or self.phase.max_iter < LEAST_STEPS
        return outcome.failure is not None or not (learned or outcome.stopped)

    def learned_nothing(self):
        losses = self.outcome.loss_curve[-RECENT:]
        return bool(losses) and np.mean(losses) > self.chance

    def grow(self, model, n_excitatory, n_inhibitory):
        rule, rng = self.plan.growth, self.rng
        how = rule.parents
        if isinstance(how, str) and how in INFORMED:
            how = self.values_of_cells(model, how)
        parents = choose_parents(model.circuit, n_excitatory, n_inhibitory, how, rng)
        how = rule.clone_shares
        circuit, origin = rule.split(model.circuit, parents, shares=how, random_state=rng)
        shares = partial(shares_of, how=how, random_state=rng)
        return Model(circuit, self.task.grow(model.arrays, model.circuit, circuit, origin, shares))

    def values_of_cells(self, model, how):
        """What speaks for a split of each cell."""
        gradient = self.gradients.get(("circuit", "weights"), np.zeros(0))
        if how == "gradient" and gradient.any():  # there is none after a step that was undone
            arrays = {name: g for (group, name), g in self.gradients.items() if group == "arrays"}
            incoming = [arrays[name] for name in self.task.incoming if name in arrays]
            outgoing = [arrays[name] for name in self.task.outgoing]
            found = gain_of_splits(gradient, incoming, outgoing)
            if np.isfinite(found).all():
                return found
        values = (model.circuit.weights.astype(float) ** 2).sum(0)
        for name in self.task.outgoing:
            weights = model.arrays[name]
            values[: weights.shape[1]] += (weights**2).sum(0)
        return values

    def state(self, stage, start, fresh, descent, place):
        """All that a run of the same plan needs to go on as this one; see `restore`."""
        place = place | {"best": [(score, model_state(model)) for score, model in place["best"]]}
        return {
            "outcome": outcome_state(self.outcome),
            "stage": stage,
            "start": None if start is self.outcome.model else model_state(start),
            "fresh": fresh,
            "descent": descent.state(),
            "place": place,
            "gradients": self.gradients,
            "objective": (self.objective.n_steps, self.objective.unstable),
            "rest": self.batches.rest,
        }

    def descent(self, start, state):
        plan = self.plan
        return Descent(
            start,
            plan.structure,
            self.task.rates(start.circuit, self.data[0]),
            state,
            device=plan.device,
            nonnegative=self.task.nonnegative,
            max_grad_norm=plan.max_grad_norm,
            max_rejected=plan.max_rejected,
        )

    def restore(self, saved):
        self.objective.n_steps, self.objective.unstable = saved["objective"]
        self.gradients, self.batches.rest = saved["gradients"], saved["rest"]

    def stage(self, start, stage, state, saved=None):
        """Train at one size; False if there is nothing left to do, for good or ill."""
        plan, outcome, last = self.plan, self.outcome, stage == len(self.phase.sizes) - 1
        n_steps = self.phase.max_iter if last else self.phase.growth_iter
        if self.progress:
            n_e, n_i = start.size
            self.progress.begin_stage(f"{n_e} E + {n_i} I", n_steps)
        place = {"step": 0, "n_accepted": 0, "scores": [], "best": []}
        place["rejected_before"] = outcome.n_rejected_steps
        descent, fresh = self.descent(start, state), state is None
        if saved:
            descent.restore(saved["descent"])
            fresh, place = saved["fresh"], saved["place"]
            place["best"] = [(score, model_from(model)) for score, model in place["best"]]

        def note():
            self.notes.note(
                place["step"],
                self.rng,
                lambda: self.state(stage, start, fresh, descent, place),
            )

        try:
            yield from self._descend(descent, n_steps, last, place, fresh, note)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True

        self.gradients = descent.gradients() if plan.growth.parents == "gradient" else {}
        previous = outcome.model
        if self.gave_up_learning and not interrupted:
            outcome.at_chance = True
            if plan.verbose:
                tell("[SSN] nothing learned so far: another attempt")
            return not self._stops()
        try:
            kept = yield from self._keep(descent, place["best"], start, last)
        except KeyboardInterrupt:
            interrupted = True
            if descent.anchors:  # confirmed already, if on fewer inputs
                confirmed = Confirmation(1.0)
                self._take(descent.model(descent.anchors[-1]), None, confirmed)
            kept = outcome.model
        untrained = n_steps > 0 and (kept is start or kept is previous)
        self._record_stage(place["rejected_before"])
        stop = self._stops()
        if interrupted:
            self.interrupt()
        elif descent.gave_up:
            self.fail(f"more than {plan.max_rejected} steps in a row made the network diverge")
        elif (last and untrained) or kept is previous is not start:
            self.fail("no network of the last stage stayed finite in long runs")
        else:
            outcome.at_chance = last and self.learned_nothing()
            return not stop
        return False

    def _stops(self):
        """Whether someone who is told that a stage is over asks for no further one."""
        return bool(self.progress and self.progress.end_stage(lambda: self.outcome.model))

    def _record_stage(self, rejected_before):
        outcome = self.outcome
        n_excitatory, n_inhibitory = outcome.model.size
        record = {
            "n_excitatory": n_excitatory,
            "n_inhibitory": n_inhibitory,
            "n_iter": len(outcome.loss_curve),
            "loss": outcome.loss_curve[-1] if outcome.loss_curve else math.nan,
            "n_rejected_steps": outcome.n_rejected_steps - rejected_before,
        }
        outcome.growth_history.append(record)
        if self.plan.verbose:
            line = (
                "[SSN] {n_excitatory:4d} E + {n_inhibitory:4d} I   step {n_iter:5d}   "
                "loss {loss:.4f}   rejected {n_rejected_steps}"
            )
            n_iter = self.notes.n_before + record["n_iter"]
            tell(line.format(**record | {"n_iter": n_iter}))

    def _tell_step(self, circuit, step, n_steps, rejected_before):
        """Say how far a stage has come."""
        outcome = self.outcome
        loss = outcome.loss_curve[-1] if outcome.loss_curve else math.nan
        tell(
            f"[SSN] {circuit.n_excitatory:4d} E + {circuit.n_inhibitory:4d} I   "
            f"{step} of {n_steps} steps   loss {loss:.4f}   "
            f"rejected {outcome.n_rejected_steps - rejected_before}"
        )

    def _keep(self, descent, best, start, last):
        """Keep the best model of a stage that is stable in the long run."""
        outcome, latest, previous = self.outcome, None, self.outcome.model
        candidates = best[::-1]
        if not candidates and not descent.gave_up and descent.made() is not None:
            latest = descent.model()
            candidates = [(None, latest)]
        for score, model in candidates:
            if (yield from self._passes(model, last, score)):
                outcome.optimizer_state = descent.optimizer_state() if model is latest else None
                return model
        if last and self.plan.whole and self.phase.max_iter and not descent.gave_up:
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
        final = last and self.plan.whole
        confirmation = yield from self.guard.confirm(model, final)
        if confirmation.share == 1 or whatever:
            self._take(model, score, confirmation)
        return confirmation.share == 1

    def _take(self, model, score, confirmation):
        outcome = self.outcome
        outcome.model, outcome.validation_score = model, score
        outcome.stability, outcome.idle = confirmation.share, confirmation.idle
        outcome.divergence_rate, outcome.optimizer_state = confirmation.divergence_rate, None

    def _repaired(self, descent):
        """The latest model after some short steps that heed stability most; None if it failed."""
        penalties = self.plan.penalties
        heeding = replace(penalties, stability=max(REPAIR_PENALTY, penalties.stability))
        self.objective = _Objective(self.task, heeding, always=True)
        descent.caution, rate = MOST_CAUTION, REPAIR_RATE * self.phase.learning_rate_init
        for _ in range(REPAIR_STEPS):
            yield from self._step(descent, next(self.batches), rate)
            if descent.gave_up:
                return None
        return descent.model() if descent.made() is not None else None

    def _descend(self, descent, n_steps, last, place, fresh, note):
        """Take the steps from `place` on, which is kept up to date: `note` writes it down.

        Its "best" are (score, model) that raised the score, the latest last.
        """
        score = self.phase.score if last else None
        warm_up = min(WARM_UP, 1 + n_steps // 8) if fresh else 1
        for step in range(place["step"], n_steps):
            place["step"] = step
            note()
            batch, done = next(self.batches), step / n_steps if last else 0.0
            rate = learning_rate(self.phase, done) * min(1.0, (step + 1) / warm_up)
            accepted = yield from self._step(descent, batch, rate, done)
            if is_due(self.plan.verbose, step + 1):
                self._tell_step(descent.like, step + 1, n_steps, place["rejected_before"])
            if descent.gave_up:
                return
            if accepted:
                place["n_accepted"] += 1
                if place["n_accepted"] % CONFIRM_INTERVAL == 0:
                    self.outcome.n_rejected_steps += not (yield from self._anchor(descent, batch))
            stop = False
            look = (step + 1) % SCORE_INTERVAL == 0 or step + 1 == n_steps
            if score and look and descent.made() is not None:
                stop = self._look(score, descent.model(), place["scores"], place["best"])
            if self.progress:
                stop |= self.progress.step(lambda: descent.model(descent.good))
            told = last and n_steps >= LEAST_STEPS and step + 1 == round(TOLD * n_steps)
            if stop:
                return
            if told and self.may_give_up and self.learned_nothing():
                self.gave_up_learning = True
                return

    def _look(self, score, model, scores, best):
        """Score a model; whether scores no longer grow."""
        scores.append(score(model))
        self.outcome.validation_scores.append(scores[-1])
        if scores[-1] > max(scores[:-1], default=-math.inf):
            best.append((scores[-1], model))
        return self.plan.patience.exhausted(scores)

    def _step(self, descent, batch, rate, done=1.0):
        """One step after a share of the last stage, counted; whether it was accepted."""
        inputs, targets = (tensor[batch] for tensor in self.data)
        if any(self.plan.input_noise):
            first, end = self.plan.input_noise
            scale = end + (first - end) * falling(done)
            noise = self.rng.normal(scale=scale, size=tuple(inputs.shape))
            inputs = inputs + torch.as_tensor(noise, dtype=inputs.dtype, device=inputs.device)
        source, outcome = self.phase.gradients, self.outcome
        found = yield from source.find(descent, self.objective, inputs, targets, self.rng)
        loss = None if found.loss is None else descent.step(found.loss, rate)
        self.objective.n_steps += 1
        outcome.n_steps += 1
        outcome.n_dropped += found.n_dropped
        if loss is None:
            self.guard.undo(descent)
            outcome.n_rejected_steps += 1
            outcome.n_runaways += 1
        else:
            outcome.loss_curve.append(loss)
        return loss is not None

    def _anchor(self, descent, batch):
        """Note the parameters as safe to return to if they pass the long run."""
        if (yield from self.guard.holds(descent.model(descent.good), self.data[0][batch])):
            descent.anchors.append(descent.good)
            return True
        self.guard.undo(descent, weaken=True)
        return False
