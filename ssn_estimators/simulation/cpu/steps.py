"""Steps of a block of columns: what the loops need, before and after them; see `values.py`."""

import math
from functools import lru_cache

import torch

from ssn_estimators.simulation.cpu.noise import OrnsteinUhlenbeck
from ssn_estimators.simulation.cpu.tables import NO_TABLE, table_of
from ssn_estimators.simulation.cpu.values import (
    Cells,
    Columns,
    Gradients,
    Law,
    Owed,
    Returning,
    Room,
    Scheme,
    Source,
    Totals,
)
from ssn_estimators.simulation.schemes import COEFFICIENTS

__all__ = ["VECTOR", "Adjoint", "Stepper", "chunk_of", "width_of"]

VECTOR = 16  # columns that the processor goes over at once

CHUNK = 16  # steps at a time: more would not stay in the cache
LONG_CHUNK, FEW = 512, 2**12  # of few cells and columns, as many as have so many numbers


def chunk_of(n_elements):
    """Steps at a time, of arrays with so many elements in a step; a power of 2."""
    steps = max(CHUNK, min(LONG_CHUNK, FEW // n_elements))
    return 2 ** int(math.log2(steps))


def width_of(n_columns, arrays):
    """Columns of the arrays of so many: whole vectors, see `blocks.py`."""
    return -(-n_columns // VECTOR) * VECTOR if arrays.compiled else n_columns


class Stepper:
    """Steps forward in time, from the first on."""

    def __init__(self, block):
        self.block, setup, self.arrays = block, block.setup, block.arrays
        n_inputs, _, n_draws = block.columns
        shape = (block.n, n_draws if setup.shared_noise else n_inputs * n_draws)
        kind = setup.increments, block.drive.dtype, block.drive.device, not self.arrays.compiled
        self.noise = OrnsteinUhlenbeck(shape, setup.dt, setup.tau_eta, block.seed, *kind)
        empty, zeros = self.arrays.empty, self.arrays.zeros
        shape, size = (block.n, block.width), shape[-1]
        self.room = Room(zeros((2, *shape)), zeros(shape), zeros(shape))
        self.last = zeros((1, *shape))  # increment; or room for Heun's predictions
        quiet = not (block.keep or block.record or block.network.noise_factor.any())
        values, kicks = (empty((block.chunk + 1, block.n, size)) for _ in range(2))
        if quiet:
            kicks[:] = 0
        process = self.noise.compiled if self.arrays.compiled else self.noise
        self.base = self._base(block.drive[None]) if block.drive.ndim == 2 else None
        self.source = Source(
            self.base,
            process,
            values,
            kicks,
            block.network.noise_factor,
            _columns_of(block),
            quiet,
        )
        self.cells = _cells(block, block.network.recurrent)
        self.scheme = _scheme(block)
        nothing = empty((0, *shape))
        self.t, self.no_totals = 0, Totals(nothing, nothing, 0)

    def _base(self, drive):
        block, arrays = self.block, self.arrays
        base = arrays.repeat(arrays.array(drive), block.n_columns // block.columns[0], 2)
        if block.finite is not None:
            base = base * arrays.array(block.finite.reshape(-1))
        return base

    def advance(self, u, path, n_steps, predictions, totals=None):
        """Go on by some steps, until all are done or a trial leaves the legal range.

        Parameters
        ----------
        u : array
            As all arrays, of the kind that the loops work on.
        path : array
            Takes u after each step, in turn if it is shorter, which then is a chunk.
        n_steps : int
        predictions : array or None
            Takes Heun's.
        totals : Totals, default=None
            Sums over steps to add to.

        Returns
        -------
        u : array
            After the last step.
        n_done : int
            Number of steps done.
        legal : bool
            Whether all of the last steps, a chunk or what is left of `n_done`, are.
        """
        source = self.source
        if source.base is None:
            drive, n_steps = self.block.drive, min(n_steps, self.block.chunk)
            times = torch.arange(self.t, self.t + n_steps + 1)
            own = drive[self.block.setup.of_drive(times, len(drive))]
            source = source._replace(base=self._base(own))
        if predictions is None:
            predictions = self.last
        totals = self.no_totals if totals is None else totals
        what = source, self.cells, self.scheme, self.room
        n_done, legal = self.arrays.loops.run(
            u, path, n_steps, *what, predictions, self.t == 0, totals
        )
        self.t += n_done
        return path[(n_done - 1) % len(path)], n_done, legal


class Adjoint:
    """Steps back in time, from the last on, and the gradients that they add up."""

    def __init__(self, block):
        self.block, self.setup, self.arrays = block, block.setup, block.arrays
        empty, zeros = self.arrays.empty, self.arrays.zeros
        shape, square = (block.n, block.width), (block.n, block.n)
        self.columns = _columns_of(block)
        self.gradients = Gradients(zeros((1, *shape)), zeros(square), zeros(square))
        self.drive = None if block.drive.ndim == 2 else torch.zeros_like(block.drive)
        self.state = Returning(
            grad_u=zeros(shape),
            carried=zeros(shape),
            x=zeros(shape),
            outer=empty(square),
            rates=empty(shape),
            back=empty(shape),
            kick=empty((block.n, block.noise.shape[-1])),
        )
        self.cells = _cells(block, block.network.transposed)
        self.scheme = _scheme(block)

    def back(self, direct, u, predictions, z, first):
        """Go back over the steps that begin at `u`, of which `first` is the number of the first.

        `z` is the noise at their starts, and at the end of the last.
        """
        gradients, loops = self.gradients, self.arrays.loops
        if self.drive is not None:
            own = self.arrays.zeros((len(z), *gradients.base.shape[1:]))
            gradients = gradients._replace(base=own)
        owed = Owed(u, direct, z, self.columns)
        common = owed, self.cells, self.scheme, gradients, self.state
        if predictions is not None:
            loops.back_heun(*common, predictions)
        else:
            loops.back_multistep(*common, first == 0 and self.setup.n_burn == 0)
        if self.drive is not None:
            start = self.setup.n_burn + first
            times = torch.arange(start, start + len(z), device=self.drive.device)
            own = self._of_inputs(gradients.base)
            self.drive.index_add_(0, self.setup.of_drive(times, len(self.drive)), own)

    def result(self):
        """Gradients of A, e n, e f(h) and of u at the start of the window."""
        base, recurrent, noise = self.gradients
        drive = self._of_inputs(base)[0] if self.drive is None else self.drive
        start = self.block.of_trials(self.state.grad_u)
        return self.arrays.tensor(recurrent), self.arrays.tensor(noise), drive, start

    def _of_inputs(self, base):
        return self.block.of_trials(base).sum((3, 4))


def _cells(block, matrix):
    number, network = block.arrays.number, block.network
    gamma, table = block.setup.gamma, NO_TABLE
    if block.setup.rate_function is not None:
        gamma, table = 0.0, table_of(block.setup.rate_function)
    gamma = gamma[:, None] if torch.is_tensor(gamma) else number(gamma)
    law = Law(gamma, table)
    return Cells(matrix, network.relative_step, law, number(block.most), network.response)


def _scheme(block):
    shares = (block.arrays.number(share) for share in COEFFICIENTS[block.setup.solver])
    return Scheme(block.setup.solver == "heun", *shares)


def _columns_of(block):
    """The kick that each column gets, and its sign."""
    columns = _columns(block.columns, block.setup.shared_noise, block.arrays)
    if block.finite is not None:  # trials that are left out rest at u = 0
        finite = block.arrays.array(block.finite.reshape(-1))
        columns = columns._replace(sign=columns.sign * finite)
    return columns


@lru_cache(64)
def _columns(columns, shared, arrays):
    n_inputs, n_signs, n_draws = columns
    sign = arrays.zeros(columns)
    own = torch.arange(1 if shared else n_inputs) * n_draws
    kick = (own[:, None, None] + torch.arange(n_draws)).expand(columns).flatten().contiguous()
    for k in range(n_signs):
        sign[:, k] = 1 - 2 * k
    kick = kick.numpy() if arrays.compiled else kick.to(sign.device)
    return Columns(kick, sign.reshape(-1))
