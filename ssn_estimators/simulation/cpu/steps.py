"""Steps of a block of columns: what the loops need, before and after them.

Arrays have shape (n_neurons, n_columns), columns ordered (input, sign, draw): draws are
independent noise, and with antithetic pairs each is used with either sign. All is measured in
increments of u per step: with e = dt / tau,

    du = F - e u + A r,    r = [u]+^gamma,    A = e k W,    F = e (f(h) + n z).
"""

from functools import lru_cache

import torch

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.simulation.cpu.noise import OrnsteinUhlenbeck

__all__ = ["CHUNK", "Adjoint", "Stepper"]

CHUNK = 16  # steps at a time: more would not stay in the cache
# Shares of increments in a step; for linear multi-step schemes of this one and of the last one
SHARES = {"euler": (1.0, 0.0), "ab2": (1.5, -0.5), "heun": (0.5, 0.0)}


class Stepper:
    """Steps forward in time, from the first on."""

    def __init__(self, block):
        self.block, setup, self.arrays = block, block.setup, block.arrays
        n_inputs, _, n_draws = block.columns
        shape = (block.n, n_draws if setup.shared_noise else n_inputs * n_draws)
        kind = setup.increments, block.drive.dtype, block.drive.device
        self.noise = OrnsteinUhlenbeck(shape, setup.dt, setup.tau_eta, block.seed, *kind)
        empty, shape, size = self.arrays.empty, (block.n, block.n_columns), shape[-1]
        self.room = empty((2, *shape)), empty(shape), empty(shape)
        self.last = empty((1, *shape))  # increment; or room for Heun's predictions
        values = (empty((CHUNK + 1, block.n, size)) for _ in range(2))
        process = self.noise.compiled if self.arrays.compiled else self.noise
        self.inputs = process, *values, block.circuit.noise_factor
        number = self.arrays.number
        self.circuit = block.circuit.recurrent, block.circuit.step, number(setup.gamma)
        self.most = number(DIVERGENCE_THRESHOLD)
        self.scheme = setup.solver == "heun", tuple(number(x) for x in SHARES[setup.solver])
        self.columns = _signed_columns(block)
        self.base = self._base(block.drive[None]) if block.drive.ndim == 2 else None
        self.t = 0

    def _base(self, drive):
        block, arrays = self.block, self.arrays
        base = arrays.repeat(arrays.array(drive), block.n_columns // block.columns[0], 2)
        if block.alive is not None:
            base = base * arrays.array(block.alive.reshape(-1))
        return base

    def advance(self, u, path, n_steps, predictions, totals):
        """Go on by some steps, until all are done or a trial leaves the legal range.

        Parameters
        ----------
        u : array
            As all arrays, of the kind that the loops work on.
        path : array
            Takes u after each step, in turn if it is shorter, which then is CHUNK.
        n_steps : int
        predictions : array or None
            Takes Heun's.
        totals : array of shape (at most 2, n_neurons, n_columns)
            Sums over steps of u, and of [u]+^gamma, to add to.

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
            base = self._base(drive[times])
        if predictions is None:
            predictions = self.last
        state = u, path, n_steps, base, self.inputs, self.columns, self.circuit, self.most
        rest = self.room, *self.scheme, predictions, self.t == 0, totals
        n_done, legal = self.arrays.loops.run(*state, *rest)
        self.t += n_done
        return path[(n_done - 1) % len(path)], n_done, legal


class Adjoint:
    """Steps back in time, from the last on, and the gradients that they add up."""

    def __init__(self, block):
        self.block, self.setup, self.arrays = block, block.setup, block.arrays
        empty, zeros, number = self.arrays.empty, self.arrays.zeros, self.arrays.number
        shape, square = (block.n, block.n_columns), (block.n, block.n)
        self.columns = _signed_columns(block)
        self.sums = zeros(square), zeros(square)  # of the gradients of A and e n
        self.base = zeros((1, *shape))
        self.drive = None if block.drive.ndim == 2 else torch.zeros_like(block.drive)
        self.grad_u, self.carried, self.x = zeros(shape), zeros(shape), empty(shape)
        kicks = empty((block.n, block.noise.shape[-1]))
        self.room = empty(square), empty(shape), empty(shape), kicks
        self.circuit = block.circuit.transposed, block.circuit.step, number(self.setup.gamma)
        self.shares = [number(x) for x in SHARES[self.setup.solver]]

    def back(self, owed, u, predictions, z, first):
        """Go back over the steps that begin at `u`, of which `first` is the number of the first.

        `z` is the noise at their starts, and at the end of the last.
        """
        base = self.base
        if self.drive is not None:
            base = self.arrays.zeros((len(z), *base.shape[1:]))
        grads, inputs = (base, *self.sums), (z, self.columns)
        common = self.grad_u, owed, u, inputs, self.circuit, grads, self.room
        if predictions is not None:
            half, _ = self.shares
            self.arrays.loops.back_heun(*common, half, predictions, self.carried, self.x)
        else:
            cold = first == 0 and self.setup.n_burn == 0
            rest = *self.shares, cold, self.carried, self.x
            self.arrays.loops.back_multistep(*common, *rest)
        if self.drive is not None:
            start = self.setup.n_burn + first
            times = torch.arange(start, start + len(z)).clamp_max_(len(self.drive) - 1)
            self.drive.index_add_(0, times.to(self.drive.device), self._of_inputs(base))

    def gradients(self):
        """Of A, e n and e f(h)."""
        drive = self._of_inputs(self.base)[0] if self.drive is None else self.drive
        return *(self.arrays.tensor(x) for x in self.sums), drive

    def _of_inputs(self, base):
        return self.arrays.tensor(base).view(*base.shape[:2], self.block.columns[0], -1).sum(3)


def _signed_columns(block):
    """The kick that each column gets, and its sign."""
    column, sign = _columns(block.columns, block.setup.shared_noise, block.arrays)
    if block.alive is not None:  # trials that are left out rest at u = 0
        sign = sign * block.arrays.array(block.alive.reshape(-1))
    return column, sign


@lru_cache(64)
def _columns(columns, shared, arrays):
    n_inputs, n_signs, n_draws = columns
    sign = arrays.zeros(columns)
    own = torch.arange(1 if shared else n_inputs) * n_draws
    column = (own[:, None, None] + torch.arange(n_draws)).expand(columns).flatten().contiguous()
    for k in range(n_signs):
        sign[:, k] = 1 - 2 * k
    column = column.numpy() if arrays.compiled else column.to(sign.device)
    return column, sign.reshape(-1)
