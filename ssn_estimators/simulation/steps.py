"""Steps of a block of columns: forcing and noise before the loops, sums after them.

Arrays have shape (n_neurons, n_columns), columns ordered (input, sign, draw): draws are
independent noise, and with antithetic pairs each is used with either sign. All is measured in
increments of u per step: with e = dt / tau,

    du = F - e u + A r,    r = [u]+^gamma,    A = e k W,    F = e (f(h) + n z).
"""

from functools import lru_cache, partial

import numpy as np
import torch

from ssn_estimators.simulation import backend
from ssn_estimators.simulation.noise import OrnsteinUhlenbeck
from ssn_estimators.simulation.setup import DIVERGENCE_THRESHOLD

__all__ = ["CHUNK", "Adjoint", "Stepper"]

CHUNK = 16  # steps at a time: more would not stay in the cache
# Shares of increments in a step; for linear multi-step schemes of this one and of the last one
SHARES = {"euler": (1.0, 0.0), "ab2": (1.5, -0.5), "heun": (0.5, 0.0)}


class Stepper:
    """Steps forward in time, from the first on."""

    def __init__(self, block):
        self.block, self.setup = block, block.setup
        setup, (n_inputs, _, n_draws), like = block.setup, block.columns, block.drive
        self.loops, self.array, self.new, number = _loops(like)
        shape = (block.n, n_draws if setup.shared_noise else n_inputs * n_draws)
        self.noise = noise = OrnsteinUhlenbeck(
            shape, setup.dt, setup.tau_eta, block.seed, setup.increments, like.dtype, like.device
        )
        shape, size = (block.n, block.n_columns), noise.shape[-1]
        self.room = self.new((2, *shape)), self.new(shape), self.new(shape)
        self.last = self.new((1, *shape))  # increment; or room for Heun's predictions
        values = (self.new((CHUNK + 1, block.n, size)) for _ in range(2))
        self.inputs = noise.compiled or noise, *values, self.array(block.noise_factor)
        self.circuit = self.array(block.recurrent), self.array(block.step), number(setup.gamma)
        self.most = number(DIVERGENCE_THRESHOLD)
        self.scheme = setup.solver == "heun", tuple(number(x) for x in SHARES[setup.solver])
        self.columns = _signed_columns(block)
        self.base = self.array(self._base(like[None])) if like.ndim == 2 else None
        self.t = 0

    def _base(self, drive):
        base = drive[..., None, None].expand(len(drive), *self.block.shape)
        if self.block.alive is not None:
            base = base * self.block.alive
        return base.flatten(2)

    def advance(self, u, path, n_steps, predictions):
        """Go on by some steps, until all are done or a trial leaves the legal range.

        Parameters
        ----------
        u : array
            Of the type that the attribute `array` makes of tensors, as are the others.
        path : array
            Takes u after each step, in turn if it is shorter, which then is CHUNK.
        n_steps : int
        predictions : array or None
            Takes Heun's.

        Returns
        -------
        u : array
            After the last step.
        n_done : int
            Number of steps done.
        legal : bool
            Whether all of the last steps, CHUNK or what is left of `n_done`, are.
        """
        base = self.base
        if base is None:
            drive, n_steps = self.block.drive, min(n_steps, CHUNK)
            times = torch.arange(self.t, self.t + n_steps + 1).clamp_max_(len(drive) - 1)
            base = self.array(self._base(drive[times]))
        if predictions is None:
            predictions = self.last
        state = u, path, n_steps, base, self.inputs, self.columns, self.circuit, self.most
        n_done, legal = self.loops.run(*state, self.room, *self.scheme, predictions, self.t == 0)
        self.t += n_done
        return path[(n_done - 1) % len(path)], n_done, legal


class Adjoint:
    """Steps back in time, from the last on, and the gradients that they add up."""

    def __init__(self, block):
        self.block, self.setup, like = block, block.setup, block.drive
        self.loops, self.array, new, number = _loops(like)
        self.columns = _signed_columns(block)
        shape, n_kicks = (block.n, block.n_columns), block.noise.shape[-1]
        self.sums = like.new_zeros((2, block.n, block.n))  # of the gradients of A and e n
        self.base = like.new_zeros((1, *shape))
        self.drive = None if like.ndim == 2 else torch.zeros_like(like)
        self.grad_u, self.carried = self.array(like.new_zeros((2, *shape)))
        self.x = new(shape)
        self.room = new((block.n, block.n)), new(shape), new(shape), new((block.n, n_kicks))
        transposed, gamma = block.recurrent.mT.contiguous(), number(self.setup.gamma)
        self.circuit = self.array(transposed), self.array(block.step), gamma
        self.shares = [number(x) for x in SHARES[self.setup.solver]]

    def back(self, owed, u, predictions, z, first):
        """Go back over the steps that begin at `u`, of which `first` is the number of the first.

        `z` is the noise at their starts, and at the end of the last.
        """
        base = self.base
        if self.drive is not None:
            base = base.new_zeros((len(z), *base.shape[1:]))
        grads = tuple(self.array(x) for x in (base, *self.sums))
        inputs, room = (self.array(z), *self.columns), self.room
        owed, u = self.array(owed), self.array(u)
        common = self.grad_u, owed, u, inputs, self.circuit, grads, room
        if predictions is not None:
            half, _ = self.shares
            self.loops.back_heun(*common, half, self.array(predictions), self.carried, self.x)
        else:
            cold = first == 0 and self.setup.n_burn == 0
            self.loops.back_multistep(*common, *self.shares, cold, self.carried, self.x)
        if self.drive is not None:
            start = self.setup.n_burn + first
            times = torch.arange(start, start + len(z)).clamp_max_(len(self.drive) - 1)
            self.drive.index_add_(0, times.to(base.device), self._of_inputs(base))

    def gradients(self):
        """Of A, e n and e f(h)."""
        drive = self._of_inputs(self.base)[0] if self.drive is None else self.drive
        return *self.sums, drive

    def _of_inputs(self, base):
        return base.view(len(base), *self.block.shape).sum((3, 4))


def _loops(like):
    """The loops for tensors like this; what makes arrays of tensors, arrays, and numbers."""
    loops = backend.loops(like)
    if loops is backend.plain:
        return loops, lambda x: x, like.new_empty, float
    dtype = like.numpy().dtype
    return loops, torch.Tensor.numpy, partial(np.empty, dtype=dtype), dtype.type


def _signed_columns(block):
    """The kick that each column gets, and its sign."""
    like = block.drive
    column, sign = _columns(block.columns, block.setup.shared_noise, like.dtype, like.device)
    if block.alive is not None:
        sign = sign * block.alive.view(-1)  # trials that are left out rest at u = 0
    array = _loops(like)[1]
    return array(column), array(sign)


@lru_cache(64)
def _columns(columns, shared, dtype, device):
    n_inputs, n_signs, n_draws = columns
    own = torch.arange(1 if shared else n_inputs) * n_draws
    column = (own[:, None, None] + torch.arange(n_draws)).expand(columns)
    sign = torch.tensor([1.0, -1.0])[:n_signs, None].expand(columns)
    return column.reshape(-1).to(device), sign.reshape(-1).to(device, dtype)
