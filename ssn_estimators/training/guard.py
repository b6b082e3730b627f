"""Whether a network stays finite: long runs with more noise than it has, and what they prove."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from ssn_estimators._threads import together
from ssn_estimators.simulation import lasting
from ssn_estimators.training.penalties import HORIZON, growth_of_deviations
from ssn_estimators.training.side_by_side import Forward
from ssn_estimators.training.starts import CONFIRM_NOISE

__all__ = ["Confirmation", "Guard", "NoGuard", "divergence_bound"]

DURATION = 500.0  # ms; networks that pass training windows of 120 ms may diverge later
N_INPUTS = 256  # of each set of inputs, at the end of growth stages
FINAL_DURATION, FINAL_INPUTS = 2000.0, 2048  # the same for the network that will be returned
LEAST_TRIALS = 512  # of these, if there are fewer inputs
LONG_DURATION, LONG_INPUTS, LONG_TRIALS = 10_000.0, 32, 2  # of the least stable inputs
BEYOND = 1.25  # distance from the mean of inputs like those that will come, in that of the given
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Confirmation:
    """What long runs have shown.

    Attributes
    ----------
    share : float
        Share of trials that stayed finite.
    idle : ndarray of shape (n_neurons,), bool, or None
        Cells that take no part on any input; of final confirmations only, as the next.
    divergence_rate : float
        As of :func:`divergence_bound`, in 1/s.
    """

    share: float
    idle: np.ndarray | None = None
    divergence_rate: float = math.nan


class Guard:
    """Keeps the networks of one training stable: it confirms them, and undoes steps too far.

    What simulates is a generator.

    Parameters
    ----------
    task : Task
    sets : list of Tensors
        Inputs of training and, if there are any, of validation.
    trials : Trials
        Those of a training step.
    device : str
    rng : RandomState
    """

    def __init__(self, task, sets, trials, device, rng):
        self.task, self.sets, self.trials = task, sets, trials
        self.device, self.rng = device, rng

    def undo(self, descent, weaken=False):
        """Take the last step of a descent back."""
        descent.reject(weaken)

    def holds(self, model, inputs):
        """Whether no trial of some inputs diverges within 500 ms."""
        return _share_finite((yield from self._run(model, inputs))) == 1

    def confirm(self, model, final):
        """Long runs on a sample of every set; if final, longer ones, and beyond these inputs.

        Returns
        -------
        confirmation : Confirmation
        """
        found = []
        for inputs in self.sets:
            n_inputs = min(len(inputs), FINAL_INPUTS if final else N_INPUTS)
            order = torch.from_numpy(self.rng.choice(len(inputs), n_inputs, replace=False))
            confirm = self._final if final else self._share
            found.append((yield from confirm(model, inputs[order])))
            if found[-1].share < 1:
                break
        return replace(found[0], share=found[-1].share)

    def _share(self, model, inputs):
        return Confirmation(_share_finite((yield from self._run(model, inputs))))

    def _final(self, model, inputs):
        n_inputs, mean = len(inputs), inputs.mean(0)
        beyond = yield from self._run(model, mean + BEYOND * (inputs - mean))
        if _share_finite(beyond) < 1:
            return Confirmation(_share_finite(beyond))
        n_trials = -(-LEAST_TRIALS // n_inputs)
        first = yield from self._run(model, inputs, n_trials, FINAL_DURATION, rates=True)
        share = _share_finite(first)
        if share < 1:
            return Confirmation(share)
        with together():
            growth = growth_of_deviations(model.circuit.to_torch(self.device), first.mean).cpu()
        least_stable = growth.topk(min(LONG_INPUTS, n_inputs)).indices
        longer = yield from self._run(model, inputs[least_stable], LONG_TRIALS, LONG_DURATION)
        seconds = torch.full((n_inputs,), n_trials * FINAL_DURATION / 1000, dtype=torch.float64)
        seconds[least_stable] += LONG_TRIALS * LONG_DURATION / 1000
        share, bound = _share_finite(longer), math.nan
        if share == 1:
            bound = divergence_bound(growth.double().numpy(), seconds.numpy())
        return Confirmation(share, self.task.idle(first.rates), bound)

    def _run(self, model, inputs, n_trials=1, duration=DURATION, rates=False):
        """A simulation from rest with twice the noise; None if the drive is not finite."""
        circuit = model.circuit.to_torch(self.device)
        circuit = replace(circuit, noise_factor=CONFIRM_NOISE * circuit.noise_factor)
        arrays = {k: torch.as_tensor(v, device=self.device) for k, v in model.arrays.items()}
        drive = self.task.drive(circuit, arrays, inputs)
        if not torch.isfinite(drive).all():
            return None
        drive, duration = self._lasting(drive, duration)
        trials = replace(
            self.trials,
            n_trials=n_trials,
            duration=duration,
            burn_in=0.0,
            shared_noise=False,
            covariance=False,
            rates=rates,
            increments="weak",
        )
        return (yield Forward(circuit, drive, trials, self.rng, gradient=False))

    def _lasting(self, drive, duration):
        """Drive for at least so long, and for how long."""
        return drive, lasting(duration, self.trials.dt)


class TrialGuard(Guard):
    """The same where inputs change: they are shown again until the time is over.

    Networks may hold states that move slowly for as long as trials last: growth of deviations says
    nothing about them, and there is no bound of the rate of divergence.
    """

    def _final(self, model, inputs):
        inputs, mean = inputs[:LEAST_TRIALS], inputs.mean(0)
        beyond = yield from self._run(model, mean + BEYOND * (inputs - mean))
        if _share_finite(beyond) < 1:
            return Confirmation(_share_finite(beyond))
        longer = max(FINAL_DURATION, 2 * self.trials.duration)
        last = yield from self._run(model, inputs, duration=longer, rates=True)
        share = _share_finite(last)
        return Confirmation(share, self.task.idle(last.rates) if share == 1 else None)

    def _lasting(self, drive, duration):
        own = self.trials.duration
        trials = replace(self.trials, duration=math.ceil(duration / own) * own)
        return trials.shown_again(drive), trials.duration


class NoGuard(Guard):
    """For controls: nothing is looked at, and no step undone."""

    def undo(self, descent, weaken=False):
        pass

    def holds(self, model, inputs):
        yield from ()
        return True

    def confirm(self, model, final):
        yield from ()
        return Confirmation(1.0)


def divergence_bound(growth, seconds):
    r"""How often trials may diverge, given that none did with twice the noise.

    With 95% confidence no more than 3 divergences were to be expected in what was simulated, and
    if all on one input i, then at a rate of less than :math:`R_i = 3 / t_i`. Escape over a
    barrier follows :math:`A e^{-B / \sigma^2}` (Kramers), with a prefactor
    :math:`A_i = \lambda_i / 2 \pi` of the order of the slowest relaxation: with half of that noise
    it is :math:`A_i (R_i / A_i)^4`. The bound is that of the worst input, the others being safe,
    averaged over inputs. It holds for inputs like these and for weak noise; where :math:`R_i` is
    not below the prefactor it is not improved.

    Parameters
    ----------
    growth : ndarray of shape (n_inputs,)
        As of :func:`~ssn_estimators.training.penalties.growth_of_deviations`.
    seconds : ndarray of shape (n_inputs,)
        How long all trials of an input lasted together, in s.

    Returns
    -------
    rate : float
        Divergences in a second, averaged over inputs, in 1/s.
    """
    most = -math.log(1 - CONFIDENCE)  # with more expected, none would be seen in 5% of cases
    rate = most / seconds
    prefactor = np.maximum(-growth, 0) / (HORIZON / 1000) / (2 * np.pi)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(prefactor > rate, rate / prefactor, 1.0)
    return float((rate * ratio ** (CONFIRM_NOISE**2 - 1)).max() / len(rate))


def _share_finite(simulation):
    return 0.0 if simulation is None else 1 - simulation.diverged.double().mean().item()
