"""A block of columns: simulated, summed up and led back as one.

A column is one trial of one input of one network. Columns do not depend on each other, so a
block that fits the cache runs through all steps before the next block begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.simulation.cpu import steps
from ssn_estimators.simulation.cpu.backend import Arrays
from ssn_estimators.simulation.cpu.steps import Adjoint, Stepper
from ssn_estimators.simulation.setup import Setup

__all__ = ["Block", "Network"]

CHECKPOINT = 64  # steps between two points from which the noise can be made again


class Network(NamedTuple):
    """What the loops know of a circuit; units as in `steps.py`."""

    recurrent: object  # A
    transposed: object
    noise_factor: object  # e n
    step: object  # e, of shape (n_neurons, 1)


@dataclass
class Block:
    """Some columns of one network; units and layout as in `steps.py`.

    Parameters
    ----------
    setup : Setup
        Time grid, scheme, noise.
    arrays : Arrays
        Loops and their kind of arrays.
    circuit : Network
        Of such arrays.
    drive : Tensor of shape (n_neurons, n_inputs) or (n_steps, n_neurons, n_inputs)
        e f(h).
    columns : tuple of 3 ints
        Numbers of inputs, signs and draws.
    seed : tuple of int
        Of the noise.
    """

    setup: Setup
    arrays: Arrays
    circuit: Network
    drive: torch.Tensor
    columns: tuple
    seed: tuple

    def __post_init__(self):
        self.n, self.n_columns = len(self.circuit.recurrent), math.prod(self.columns)
        self.shape = (self.n, *self.columns)
        self.alive = None  # bool, of shape columns, where trials are left out

    def prepare(self, keep, record, empty):
        """Make ready for `forward`.

        Parameters
        ----------
        keep, record : bool
            Whether `backward` follows; whether to return paths.
        empty : callable
            Makes an array of a shape, for what is kept.
        """
        setup, shape = self.setup, (self.n, self.n_columns)
        self.keep, self.record = keep, record
        n_kept = setup.n_window if keep or record else min(steps.CHUNK, setup.n_window)
        # row 0 is the start of the window
        self.states = empty((n_kept + 1, *shape))
        self.path = self.states[1:]
        heun = setup.solver == "heun"
        self.predictions = empty((n_kept, *shape)) if keep and heun else None
        self._start()

    def _start(self):
        self.stepper, self.checkpoints = Stepper(self), []
        self.noise = self.stepper.noise

    def forward(self):
        """Simulate, once prepared, and keep what `backward` needs."""
        sums = self._run()
        if "exceeded" in sums:
            diverged = sums["exceeded"] >= 0
            paths = {k: sums[k] for k in ("exceeded", "path", "noise") if k in sums}
            if diverged.all():
                # nothing to add up or to lead back
                self.states = self.path = self.predictions = None
                self.checkpoints = []
                sums = paths
            elif self.keep or self.setup.covariance:
                # A trial spoils sums over columns before it is known to diverge: repeat with the
                # same noise, now knowing which trials to leave out.
                self.alive = ~diverged
                if "path" in paths:  # a view of the memory that the second run uses
                    paths["path"] = paths["path"].clone()
                self._start()
                sums = self._run() | paths
        self.sums, self.stepper = sums, None
        return self

    def _run(self):
        setup, stepper, arrays = self.setup, self.stepper, self.arrays
        shape, sums, record = (self.n, self.n_columns), {}, self.record
        u, ring, t = arrays.zeros(shape), arrays.empty((min(steps.CHUNK, setup.n_burn), *shape)), 0
        nothing = arrays.empty((0, *shape))
        while t < setup.n_burn:
            u, n_done, legal = stepper.advance(u, ring, setup.n_burn - t, None, nothing)
            t += n_done
            if not legal and self._note(ring, n_done, t, sums) and not record:
                return sums
        self.states[0] = u
        t, whole = 0, len(self.path) == setup.n_window
        totals = sums["totals"] = arrays.zeros((1 + setup.rates, *shape))
        # a product of all their samples is taken of what the path holds
        most = steps.CHUNK if setup.covariance and not whole else CHECKPOINT
        while t < setup.n_window:
            if (self.keep or record) and t % CHECKPOINT == 0:
                self.checkpoints.append(stepper.noise.state())
            n_steps = min(CHECKPOINT - t % CHECKPOINT, setup.n_window - t, most)
            path = self.path[t : t + n_steps] if whole else self.path
            predictions = None if self.predictions is None else self.predictions[t : t + n_steps]
            few = arrays.zeros(totals.shape)  # added up apart, for the sake of rounding
            u, n_done, legal = stepper.advance(u, path, n_steps, predictions, few)
            totals += few
            t += n_done
            if not legal and self._note(path, n_done, setup.n_burn + t, sums) and not record:
                return sums
            if setup.covariance:
                self._add_products(arrays.tensor(path[:n_done]), sums)
        if record:
            sums["path"] = arrays.tensor(self.path).unflatten(2, self.columns)
            noise = [self._noise(i)[1:] for i in range(len(self.checkpoints))]
            noise = torch.cat([arrays.tensor(x) for x in noise])
            noise = noise.unflatten(2, (-1, 1, self.columns[2]))
            sums["noise"] = torch.cat([noise, -noise], 3) if self.columns[1] == 2 else noise
        return sums

    def _noise(self, checkpoint):
        """Values from a checkpoint to the next, both included."""
        n_steps = min(CHECKPOINT, self.setup.n_window - checkpoint * CHECKPOINT)
        self.noise.restore(self.checkpoints[checkpoint])
        return self.noise.advance(n_steps)

    def _note(self, path, n_done, t, sums):
        """Note trials that left the legal range just before step t; whether all have by now."""
        path = path[: (n_done - 1) % len(path) + 1][-steps.CHUNK :]
        beyond = ~(self.arrays.tensor(path).abs() <= DIVERGENCE_THRESHOLD).all(1)
        first = beyond.to(torch.uint8).argmax(0) + 1 + t - len(path)
        exceeded = sums.setdefault("exceeded", torch.full_like(first, -1).view(self.columns))
        new = beyond.any(0).view(self.columns) & (exceeded < 0)
        exceeded[new] = first.view(self.columns)[new]
        return bool((exceeded >= 0).all())

    def _add_products(self, path, sums):
        """Add a chunk of the window to the sum of products over samples."""
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
            "exceeded", of shape columns, if there are any: number of steps after which a trial
            left the legal range, -1 if it never did. Over the samples of each input that did
            not, "count" (n_inputs,), "u" and "rates" (n_inputs, n_neurons), "scatter"
            (n_inputs, n_neurons, n_neurons), the sum of squares and products about the mean;
            if recorded, "path" and "noise" (n_window, n_neurons, n_inputs, n_signs, n_draws).
        """
        sums, self.sums, setup = self.sums, None, self.setup
        result = {k: sums[k] for k in ("exceeded", "path", "noise") if k in sums}
        count = self.drive.new_full(self.columns[:1], math.prod(self.columns[1:]))
        if "exceeded" in sums:
            alive = sums["exceeded"] < 0
            count = alive.sum((1, 2)).to(self.drive)
        result["count"] = count = count * setup.n_window
        if "totals" in sums:
            totals = self.arrays.tensor(sums["totals"]).unflatten(2, self.columns)
            if "exceeded" in sums:
                totals = torch.where(alive, totals, 0)
            totals = totals.sum((3, 4)).mT
            result |= dict(zip(("u", "rates"), totals, strict=False))
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
        for checkpoint in reversed(range(len(self.checkpoints))):
            first = checkpoint * CHECKPOINT
            part = slice(first, first + CHECKPOINT)
            path = self.path[part]
            predictions = None if self.predictions is None else self.predictions[part]
            u, z = self.states[first : first + len(path)], self._noise(checkpoint)
            self.adjoint.back(self.owe(path, first), u, predictions, z, first)
        # large, and not needed again
        self.states = self.path = self.predictions = self.checkpoints = self.noise = None
        return self.adjoint.gradients()
