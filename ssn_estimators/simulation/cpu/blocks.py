"""A block of columns: simulated, summed up and led back as one.

A column is one trial of one input of one network. Columns do not depend on each other, so a
block that fits the cache runs through all steps before the next block begins.

Arrays of the compiled loops have whole vectors of columns, the last of which may rest at 0. BLAS
rounds what is left over of a vector differently: now what becomes of a column does not depend on
how many there are, to the last bit, where whole vectors are rounded alike (with AVX-512, not with
the kernels for AVX2, which treat the ends of rows differently).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ssn_estimators.simulation.cpu.backend import Arrays
from ssn_estimators.simulation.cpu.steps import Adjoint, Stepper, chunk_of, width_of
from ssn_estimators.simulation.cpu.values import Totals
from ssn_estimators.simulation.setup import Setup, largest_state

__all__ = ["Block", "Network", "Sums"]

CHECKPOINT = 64  # steps between two points from which the noise can be made again
SUMMED = ("totals", "centre", "products", "final")  # over the trials that are not left out


class Network(NamedTuple):
    """What the loops know of a circuit; units as in `values.py`."""

    recurrent: object  # A
    transposed: object
    noise_factor: object  # e n; of shape (n_neurons, 1) if noise is independent
    relative_step: object  # e, of shape (n_neurons, 1)
    response: object  # c of the rate form, of the same shape; else of (0, 1)


@dataclass
class Sums:
    """Over the samples, of each input of a block, of trials that stayed legal.

    Parameters
    ----------
    count : Tensor of shape (n_inputs,)
        Number of samples.
    u, rates : Tensors of shape (n_inputs, n_neurons), or None
    scatter : Tensor of shape (n_inputs, n_neurons, n_neurons), or None
        Sums of squares and products about the mean.
    diverged_at : int Tensor of shape columns, or None
        Number of steps after which a trial left the legal range, -1 if it never did; None if none
        did.
    path, noise : Tensors of shape (n_window, n_neurons, n_inputs, n_signs, n_draws), or None
        If recorded.
    final : pair of Tensors of shape (n_neurons, n_inputs, n_signs, n_draws), or None
        Potentials and noise after the last step; None where all trials diverged.
    """

    count: torch.Tensor
    u: torch.Tensor | None = None
    rates: torch.Tensor | None = None
    scatter: torch.Tensor | None = None
    diverged_at: torch.Tensor | None = None
    path: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    final: tuple | None = None


@dataclass
class Running:
    """What a block adds up while time goes on; None where there is nothing yet."""

    totals: object = None  # of u and phi(u) over steps, of shape (1 or 2, n, n_columns)
    centre: torch.Tensor | None = None  # near the mean; products are about it
    products: torch.Tensor | None = None
    diverged_at: torch.Tensor | None = None
    path: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    final: tuple | None = None  # u and noise after the last step


@dataclass
class Block:
    """Some columns of one network; units and layout as in `values.py`.

    Parameters
    ----------
    setup : Setup
        Time grid, scheme, noise.
    arrays : Arrays
        Loops and their kind of arrays.
    network : Network
        One of such arrays.
    drive : Tensor of shape (n_neurons, n_inputs) or (n_steps, n_neurons, n_inputs)
        e f(h).
    columns : tuple of 3 ints
        Numbers of inputs, signs and draws.
    seed : tuple of int
        Seed of the noise.
    initial : tuple of Tensors of shape (n_neurons, n_inputs, n_signs, n_draws), default=None
        Potentials and noise at the start.
    """

    setup: Setup
    arrays: Arrays
    network: Network
    drive: torch.Tensor
    columns: tuple
    seed: tuple
    initial: tuple | None = None

    def __post_init__(self):
        self.n, self.n_columns = len(self.network.recurrent), math.prod(self.columns)
        self.width = width_of(self.n_columns, self.arrays)
        self.shape = (self.n, *self.columns)
        self.most, self.chunk = largest_state(self.setup), chunk_of(self.n * self.n_columns)
        self.finite = None  # bool, of shape columns, where trials are left out

    def prepare(self, keep, record, empty):
        """Make ready for `forward`.

        Parameters
        ----------
        keep : bool
            Whether `backward` follows.
        record : sequence of {"path", "noise"}
            Trajectories to return.
        empty : callable
            Makes an array of a shape, for what is kept.
        """
        setup, shape = self.setup, (self.n, self.width)
        self.keep, self.record = keep, record
        n_kept = setup.n_window if keep or record else min(self.chunk, setup.n_window)
        # row 0 is the start of the window
        self.states = empty((n_kept + 1, *shape))
        self.path = self.states[1:]
        heun = setup.solver == "heun"
        self.predictions = empty((n_kept, *shape)) if keep and heun else None
        self._start()

    def _start(self):
        self.stepper, self.checkpoints = Stepper(self), []
        self.noise = self.stepper.noise
        if self.initial is not None:
            draws = self.initial[1][:, :, :1]  # of one sign
            self.noise.begin_at(draws[:, :1] if self.setup.shared_noise else draws)

    def forward(self):
        """Simulate, once prepared, and keep what `backward` needs."""
        sums = self._run()
        if sums.diverged_at is not None:
            diverged = sums.diverged_at >= 0
            seen = Running(diverged_at=sums.diverged_at, path=sums.path, noise=sums.noise)
            if diverged.all():
                # nothing to add up or to lead back
                self.states = self.path = self.predictions = None
                self.checkpoints = []
                sums = seen
            elif self.keep or self.setup.covariance:
                # A trial spoils sums over columns before it is known to diverge: repeat with the
                # same noise, now knowing which trials to leave out.
                self.finite = ~diverged
                if seen.path is not None:  # a view of the memory that the second run uses
                    seen.path = seen.path.clone()
                self._start()
                again = self._run()
                sums = replace(seen, **{k: getattr(again, k) for k in SUMMED})
        self.running, self.stepper = sums, None
        return self

    def _run(self):
        sums = Running()
        u = self.arrays.zeros((self.n, self.width))
        if self.initial is not None:
            start = self.initial[0] if self.finite is None else self.initial[0] * self.finite
            u[:, : self.n_columns] = self.arrays.array(start.reshape(self.n, -1))
        u, legal = self._burn_in(u, sums)
        if not legal and not self.record:
            return sums
        self.states[0] = u
        if not self._window(u, sums) and not self.record:
            return sums
        if self.record:
            sums.path = self.of_trials(self.path)
        if "noise" in self.record:
            noise = [self._noise(i)[1:] for i in range(len(self.checkpoints))]
            noise = torch.cat([self.arrays.tensor(x) for x in noise])
            noise = noise.unflatten(2, (-1, 1, self.columns[2]))
            sums.noise = torch.cat([noise, -noise], 3) if self.columns[1] == 2 else noise
        return sums

    def _final(self, u):
        """Potentials and noise after the last step."""
        z = self.arrays.tensor(self.noise.now).clone().view(self.n, -1, 1, self.columns[2])
        z = torch.cat([z, -z], 2) if self.columns[1] == 2 else z
        return self.of_trials(u).clone(), z.expand(self.shape)

    def of_trials(self, array):
        """View of columns as a tensor with axes of inputs, signs and draws in their place."""
        return self.arrays.tensor(array)[..., : self.n_columns].unflatten(-1, self.columns)

    def _burn_in(self, u, sums):
        """Potentials at its end, and whether some trial is legal by then."""
        setup, stepper, shape = self.setup, self.stepper, (self.n, self.width)
        ring = self.arrays.zeros((min(self.chunk, setup.n_burn), *shape))
        t, finite = 0, True
        while t < setup.n_burn:
            u, n_done, legal = stepper.advance(u, ring, setup.n_burn - t, None)
            t += n_done
            if not legal:
                finite = not self._note(ring, n_done, t, sums)
                if not finite and not self.record:
                    break
        return u, finite

    def _window(self, u, sums):
        """Add up; whether some trial is legal at the end."""
        setup, stepper, arrays = self.setup, self.stepper, self.arrays
        t, whole, finite = 0, len(self.path) == setup.n_window, True
        shape = (1 + setup.rates, self.n, self.width)
        sums.totals, stretch = arrays.zeros(shape), arrays.zeros(shape)
        # a product of all their samples is taken of what the path holds
        most = self.chunk if setup.covariance and not whole else max(CHECKPOINT, self.chunk)
        while t < setup.n_window:
            n_steps = min(setup.n_window - t, most)
            if self.keep or self.record:
                n_steps = min(n_steps, CHECKPOINT - t % CHECKPOINT)
                if t % CHECKPOINT == 0:
                    self.checkpoints.append(stepper.noise.state())
            path = self.path[t : t + n_steps] if whole else self.path
            predictions = None if self.predictions is None else self.predictions[t : t + n_steps]
            totals = Totals(sums.totals, stretch, t)
            u, n_done, legal = stepper.advance(u, path, n_steps, predictions, totals)
            t += n_done
            if not legal:
                finite = not self._note(path, n_done, setup.n_burn + t, sums)
                if not finite and not self.record:
                    break
            if setup.covariance:
                self._add_products(self.of_trials(path[:n_done]), sums)
        sums.totals += stretch
        if setup.final:
            sums.final = self._final(u)
        return finite

    def _noise(self, checkpoint):
        """Values from a checkpoint to the next, both included."""
        n_steps = min(CHECKPOINT, self.setup.n_window - checkpoint * CHECKPOINT)
        self.noise.restore(self.checkpoints[checkpoint])
        return self.noise.advance(n_steps)

    def _note(self, path, n_done, t, sums):
        """Note trials that left the legal range just before step t; whether all have by now."""
        path = path[: (n_done - 1) % len(path) + 1][-self.chunk :]
        beyond = ~(self.of_trials(path).abs() <= self.most).all(1)
        first = beyond.to(torch.uint8).argmax(0) + 1 + t - len(path)
        if sums.diverged_at is None:
            sums.diverged_at = torch.full_like(first, -1)
        new = beyond.any(0) & (sums.diverged_at < 0)
        sums.diverged_at[new] = first[new]
        return bool((sums.diverged_at >= 0).all())

    def _add_products(self, samples, sums):
        """Add a chunk of the window to the sum of products over samples."""
        if sums.centre is None:
            # near the mean, so that float32 covariances stay accurate
            finite = torch.ones(self.columns) if self.finite is None else self.finite
            centre = torch.nan_to_num(_over_trials(samples[0]) / finite.sum((1, 2)).to(samples))
            sums.centre, sums.products = centre[:, :, None, None], 0
        deviation = samples - sums.centre
        if self.finite is not None:
            deviation.mul_(self.finite)
        deviation = deviation.permute(2, 1, 0, 3, 4).flatten(2)
        sums.products = sums.products + deviation @ deviation.mT

    def added_up(self):
        """Sums over samples, once simulated."""
        running, self.running, setup = self.running, None, self.setup
        diverged_at, finite = running.diverged_at, None
        count = self.drive.new_full(self.columns[:1], math.prod(self.columns[1:]))
        if diverged_at is not None:
            finite = diverged_at < 0
            count = finite.sum((1, 2)).to(self.drive)
        sums = Sums(
            count * setup.n_window,
            diverged_at=diverged_at,
            path=running.path,
            noise=running.noise,
            final=running.final,
        )
        if running.totals is not None:
            totals = self.of_trials(running.totals)
            if finite is not None:
                totals = torch.where(finite, totals, 0)
            totals = _over_trials(totals).mT
            sums.u, sums.rates = totals[0], totals[1] if setup.rates else None
        if running.products is not None:
            total = sums.u - sums.count[:, None] * running.centre[:, :, 0, 0].T
            offset = total / sums.count.clamp_min(1)[:, None]
            sums.scatter = running.products - total[:, :, None] * offset[:, None]
        return sums

    def prepare_backward(self, owe):
        """Make room, and note what is owed; see `backward`."""
        self.adjoint, self.owe = Adjoint(self), owe

    def backward(self):
        """Gradient of a loss with respect to A, e n, e f(h) and the start of the window.

        They have the shapes of these. Before, `prepare_backward` was given ``owe(path, first)``:
        what the loss owes directly to the potentials after some steps of the window, of the shape
        of `path`, or of one step for all.
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
        return self.adjoint.result()


def _over_trials(x):
    """Sum over the last two axes, in an order that depends on their lengths alone."""
    x = x.flatten(-2)
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        first, second, odd = x.split([half, half, x.shape[-1] % 2], -1)
        x = torch.cat([first + second, odd], -1)
    return x[..., 0]
