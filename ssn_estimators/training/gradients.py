"""Where gradients come from: simulation, equations, or a search. Each is a generator.

A source takes a batch to the gradient of its cost with respect to a descent's parameters, and
leaves it there; or refuses, where a network diverges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ssn_estimators._threads import together
from ssn_estimators.evolution import estimate_gradient
from ssn_estimators.simulation import State, Trials
from ssn_estimators.stationary.moments import stationary_moments
from ssn_estimators.training.courses import means, stretches
from ssn_estimators.training.side_by_side import Backward, Forward

__all__ = ["Followed", "Found", "Searched", "Simulated", "Skip", "Solved"]


class Found(NamedTuple):
    """The loss, or None where there is no gradient; and costs that could not be used."""

    loss: float | None
    n_dropped: int = 0


REFUSED = Found(None)


@dataclass(frozen=True)
class Simulated:
    """By backpropagation through simulated trials.

    Parameters
    ----------
    trials : Trials
    n_copies : int, default=1
        Copies of every input, with noise of their own.
    """

    trials: Trials
    n_copies: int = 1
    looks_always = False

    def find(self, descent, objective, inputs, targets, rng):
        made = descent.made()
        drive = objective.drive(made, inputs)
        if drive is None:
            return REFUSED
        forward = Forward(made[0], drive.repeat(self.n_copies, 1), self.trials, rng)
        moments = yield forward
        loss = None
        if not moments.diverged.any():
            loss, penalty = objective(made, drive, moments, targets, descent.caution)
            # the way back through the simulation will pass the circuit once more
            descent.backward(loss + penalty, retain_graph=True)
        yield Backward(forward)
        return REFUSED if loss is None else Found(loss.item())


@dataclass(frozen=True)
class Skip:
    """Shortcuts of gradients through time: now and then a state is partly that of long before.

    Parameters
    ----------
    share : float
        Of what is skipped from in the state that goes on.
    tangent : bool, default=False
        Skip from where the velocity of long before would have led to, not from the state.
    """

    share: float
    tangent: bool = False

    def state(self, before, simulation):
        """State to go on from; `before` is that from which the simulation did, or None."""
        end = simulation.u[-1]
        if before is not None:
            source = before.state
            if self.tangent:
                source = source + len(simulation.u) * (simulation.u[0] - source)
            end = end + self.share * (source - end)
        return State(end, simulation.final.noise)


@dataclass(frozen=True)
class Followed:
    """By backpropagation through trials in which inputs and outputs change.

    The objective gets the means of every time step of every input as if each were an input.

    Parameters
    ----------
    trials : Trials
        As long as the inputs.
    n_times : int
        Time steps of the inputs.
    stretch : int, default=None
        Time steps of a stretch of time; None is all.
    skip : Skip, default=None
        What happens at the end of stretches, the first apart; None: the gradient does not reach
        from one into another.
    """

    trials: Trials
    n_times: int
    stretch: int | None = None
    skip: Skip | None = None
    looks_always = False

    def find(self, descent, objective, inputs, targets, rng):
        made = descent.made()
        drive = objective.drive(made, inputs)
        if drive is None:
            return REFUSED
        forwards, seen, state = [], [], None
        for trials, own in stretches(drive, self.trials, self.stretch):
            record = ("u",) if self.stretch is None else ("u", "final")
            forward = Forward(made[0], own, trials, rng, record=record, initial=state)
            forwards.append(forward)
            simulation = yield forward
            if simulation.diverged.any():
                break
            state = self.skip.state(state, simulation) if self.skip else simulation.final
            seen.append(simulation.u)
        loss = None
        if len(seen) == len(forwards):
            moments = replace(simulation, mean=means(torch.cat(seen), self.n_times))
            loss, penalty = objective(made, drive, moments, targets, descent.caution)
            descent.backward(loss + penalty, retain_graph=True)
        # what a stretch leads back to its start, an earlier one leads on
        for forward in reversed(forwards):
            yield Backward(forward, more=forward is not forwards[0])
        return REFUSED if loss is None else Found(loss.item())


@dataclass(frozen=True)
class Solved:
    """Through the equations of the stationary moments.

    Parameters
    ----------
    closure : {"gaussian", "linear"}
        See :func:`stationary_moments`.
    """

    closure: str
    looks_always = False

    def find(self, descent, objective, inputs, targets, rng):
        made = descent.made()
        drive = objective.drive(made, inputs)
        if drive is None:
            return REFUSED
        yield  # Ctrl-C
        with together():
            moments = stationary_moments(made[0], drive, closure=self.closure)
            if not moments.converged.all():
                return REFUSED
            loss, penalty = objective(made, drive, moments, targets, descent.caution)
            descent.backward(loss + penalty)
        return Found(loss.item())


@dataclass(frozen=True)
class Searched:
    """By an evolution strategy, from costs at perturbed parameters.

    Parameters
    ----------
    trials : Trials
    n_samples : int
        Costs, in antithetic pairs.
    sigma : float
        Standard deviation of perturbations.
    """

    trials: Trials
    n_samples: int
    sigma: float
    looks_always = True  # costs that are compared all have the same penalties

    def find(self, descent, objective, inputs, targets, rng):
        if descent.made() is None:
            return REFUSED
        seed = int(rng.randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        shape = (self.n_samples // 2, descent.n_parameters)
        noise = self.sigma * torch.randn(shape, generator=generator, dtype=torch.float32)
        noise = noise.to(descent.device)
        costs = torch.full((2, len(noise)), torch.inf, dtype=torch.float64)
        for side, sign in enumerate((1, -1)):
            for i, change in enumerate(noise):
                with torch.no_grad():
                    made = descent.made(sign * change)
                drive = objective.drive(made, inputs)
                if drive is None:
                    continue
                # with the same random numbers, so that costs differ by their parameters only
                moments = yield Forward(made[0], drive, self.trials, seed, gradient=False)
                if not moments.diverged.any():
                    parts = objective(made, drive, moments, targets, descent.caution)
                    costs[side, i] = sum(parts)
        try:
            gradient, n_dropped = estimate_gradient(noise, costs, self.sigma)
        except FloatingPointError:
            return Found(None, costs.numel())
        descent.set_gradient(gradient)
        return Found(float(costs[torch.isfinite(costs)].mean()), n_dropped)
