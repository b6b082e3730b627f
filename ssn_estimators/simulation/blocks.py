"""A block of columns: simulated, summed up and led back as one.

A column is one trial of one input of one network. Columns do not depend on each other, so a
block that fits the cache runs through all steps before the next block begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ssn_estimators.simulation import steps
from ssn_estimators.simulation.setup import DIVERGENCE_THRESHOLD, Setup
from ssn_estimators.simulation.steps import Adjoint, Stepper

__all__ = ["Block"]

CHECKPOINT = 64  # steps between two points from which the noise can be made again


@dataclass
class Block:
    """Some columns of one network; units and layout as in `steps.py`.

    Parameters
    ----------
    setup : Setup
        Time grid, scheme, noise.
    recurrent, noise_factor : Tensors of shape (n_neurons, n_neurons)
        A and e n.
    step : Tensor of shape (n_neurons, 1)
        e.
    drive : Tensor of shape (n_neurons, n_inputs) or (n_steps, n_neurons, n_inputs)
        e f(h).
    columns : tuple of 3 ints
        Numbers of inputs, signs and draws.
    seed : tuple of int
        Of the noise.
    """

    setup: Setup
    recurrent: torch.Tensor
    noise_factor: torch.Tensor
    step: torch.Tensor
    drive: torch.Tensor
    columns: tuple
    seed: tuple

    def __post_init__(self):
        self.n, self.n_columns = len(self.recurrent), math.prod(self.columns)
        self.shape = (self.n, *self.columns)
        self.alive = None  # bool, of shape columns, where trials are left out

    def prepare(self, keep, record):
        """Make room; `keep` says whether `backward` follows, `record` whether to return paths."""
        setup, shape = self.setup, (self.n, self.n_columns)
        self.keep, self.record, self.stepper = keep, record, Stepper(self)
        self.noise, self.checkpoints = self.stepper.noise, []
        n_kept = setup.n_window if keep or record else min(steps.CHUNK, setup.n_window)
        # row 0 is the start of the window
        self.states = self.drive.new_empty((n_kept + 1, *shape))
        self.path = self.states[1:]
        self.predictions = torch.empty_like(self.path) if keep and setup.solver == "heun" else None

    def forward(self):
        """Simulate, once prepared, and keep what `backward` needs."""
        sums = self._run()
        diverged = sums["exceeded"] >= 0
        if (self.keep or self.setup.covariance) and diverged.any() and not diverged.all():
            # A trial spoils sums over columns before it is known to diverge: repeat with the
            # same noise, now knowing which trials to leave out.
            self.alive = ~diverged
            self.prepare(self.keep, False)
            sums = self._run() | {k: sums[k] for k in ("exceeded", "path", "noise")}
        elif diverged.all():
            # nothing to add up or to lead back
            self.states = self.path = self.predictions = None
            self.checkpoints = []
            sums = {k: sums[k] for k in ("exceeded", "path", "noise")}
        self.sums, self.stepper = sums, None
        return self

    def _run(self):
        setup, stepper, array, record = self.setup, self.stepper, self.stepper.array, self.record
        exceeded = torch.full(self.columns, -1, device=self.drive.device)
        sums = {"exceeded": exceeded, "path": None, "noise": None}
        u = array(self.drive.new_zeros((self.n, self.n_columns)))
        ring = self.drive.new_empty((min(steps.CHUNK, setup.n_burn), *u.shape))
        t = 0
        while t < setup.n_burn:
            u, n_done, legal = stepper.advance(u, array(ring), setup.n_burn - t, None)
            t += n_done
            last = ring[: (n_done - 1) % steps.CHUNK + 1]
            if not legal and self._note(last, t, exceeded) and not record:
                return sums
        self.states[0] = torch.as_tensor(u)
        t = 0
        while t < setup.n_window:
            if (self.keep or record) and t % CHECKPOINT == 0:
                self.checkpoints.append(stepper.noise.state())
            first = t if len(self.path) == setup.n_window else 0
            n_steps = min(CHECKPOINT - t % CHECKPOINT, len(self.path) - first, setup.n_window - t)
            part = slice(first, first + n_steps)
            path = self.path[part]
            predictions = None if self.predictions is None else array(self.predictions[part])
            u, n_done, legal = stepper.advance(u, array(path), len(path), predictions)
            t += n_done
            last = path[:n_done][-steps.CHUNK :]
            if not legal and self._note(last, setup.n_burn + t, exceeded) and not record:
                return sums
            self._add(path[:n_done], sums)
        if record:
            sums["path"] = self.path.unflatten(2, self.columns)
            noise = [self._noise(i)[1:] for i in range(len(self.checkpoints))]
            noise = torch.cat(noise).unflatten(2, (-1, 1, self.columns[2]))
            sums["noise"] = torch.cat([noise, -noise], 3) if self.columns[1] == 2 else noise
        return sums

    def _noise(self, checkpoint):
        """Values from a checkpoint to the next, both included."""
        n_steps = min(CHECKPOINT, self.setup.n_window - checkpoint * CHECKPOINT)
        self.noise.restore(self.checkpoints[checkpoint])
        return self.noise.advance(n_steps)

    def _note(self, path, t, exceeded):
        """Note trials that leave the legal range on a path to step t; whether all have by now."""
        beyond = ~(path.abs() <= DIVERGENCE_THRESHOLD).all(1)
        first = beyond.to(torch.uint8).argmax(0) + 1 + t - len(path)
        new = beyond.any(0).view(self.columns) & (exceeded < 0)
        exceeded[new] = first.view(self.columns)[new]
        return bool((exceeded >= 0).all())

    def _add(self, path, sums):
        """Add a chunk of the window to the sums over time, or over samples."""
        setup = self.setup
        sums["u"] = sums.get("u", 0) + path.sum(0)
        if setup.rates:
            sums["rates"] = sums.get("rates", 0) + torch.relu(path).pow_(setup.gamma).sum(0)
        if setup.covariance:
            samples = path.unflatten(2, self.columns)
            if "centre" not in sums:
                # near the mean, so that float32 covariances stay accurate
                alive = torch.ones(self.columns) if self.alive is None else self.alive
                centre = torch.nan_to_num(samples[0].sum((2, 3)) / alive.sum((1, 2)).to(path))
                sums["centre"] = centre[:, :, None, None]
            deviation = samples - sums["centre"]
            if self.alive is not None:
                deviation.mul_(self.alive)
            deviation = deviation.permute(2, 1, 0, 3, 4).flatten(2)
            sums["products"] = sums.get("products", 0) + deviation @ deviation.mT

    def added_up(self):
        """Sums over samples, once simulated.

        Returns
        -------
        sums : dict
            "exceeded", of shape columns: number of steps after which a trial left the legal
            range, -1 if it never did. Over the samples of each input that did not, "count"
            (n_inputs,), "u" and "rates" (n_inputs, n_neurons), "scatter" (n_inputs,
            n_neurons, n_neurons), the sum of squares and products about the mean; if
            recorded, "path" and "noise" (n_window, n_neurons, n_inputs, n_signs, n_draws).
        """
        sums, self.sums = self.sums, None
        alive = sums["exceeded"] < 0
        all_alive = bool(alive.all())
        count = alive.sum((1, 2)).to(self.drive.dtype) * self.setup.n_window
        result = {k: sums[k] for k in ("exceeded", "path", "noise")} | {"count": count}
        for name in ("u", "rates"):
            if name in sums:
                total = sums[name].view(self.shape)
                total = total if all_alive else torch.where(alive, total, 0)
                result[name] = total.sum((2, 3)).T
        if "products" in sums:
            total = result["u"] - count[:, None] * sums["centre"][:, :, 0, 0].T
            offset = total / count.clamp_min(1)[:, None]
            result["scatter"] = sums["products"] - total[:, :, None] * offset[:, None]
        return result

    def prepare_backward(self, owe):
        """Make room, and note what is owed; see `backward`."""
        self.adjoint, self.owe = Adjoint(self), owe

    def backward(self):
        """Gradient of a loss with respect to A, e n and e f(h), of the shapes of these.

        Before, `prepare_backward` was given ``owe(path, first)``: what the loss owes directly
        to the potentials after some steps of the window, of the shape of `path`, or of one
        step for all.
        """
        adjoint, owe = self.adjoint, self.owe
        for checkpoint in reversed(range(len(self.checkpoints))):
            first = checkpoint * CHECKPOINT
            part = slice(first, first + CHECKPOINT)
            path = self.path[part]
            predictions = None if self.predictions is None else self.predictions[part]
            z = self._noise(checkpoint)
            u = self.states[first : first + len(path)]
            adjoint.back(owe(path, first), u, predictions, z, first)
        # large, and not needed again
        self.states = self.path = self.predictions = self.checkpoints = self.noise = None
        return adjoint.gradients()
