"""The CPU engine: blocks of columns on all cores, merged into moments."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ssn_estimators._threads import alone, n_threads, one_blas_thread, pool
from ssn_estimators.simulation.cpu import backend
from ssn_estimators.simulation.cpu.blocks import Block, Network
from ssn_estimators.simulation.cpu.steps import VECTOR, width_of
from ssn_estimators.simulation.cpu.tables import table_of
from ssn_estimators.simulation.powers import slope_of_power

__all__ = ["moments", "runs_here", "seed_of", "tiles"]

BLOCK_ELEMENTS = 2**13  # of one array of a block: some of them fit the nearest cache
SMALL_PRODUCT = 10**6  # multiplications; OpenBLAS does not copy the factors of small products
BLOCK_COLUMNS = 128  # where neither is possible, for products to be efficient
MANY_CELLS_COLUMNS = 4 * VECTOR  # of so many cells that a step of no more is work for a thread
WAVE = 8  # blocks a thread that are made ready at a time


def moments(weights, noise_factor, drive, setup, record=()):
    """Simulate networks and take moments, differentiable through the window.

    Parameters
    ----------
    weights, noise_factor : Tensors of shape (n_networks, n_neurons, n_neurons)
        W in mV s and n in mV.
    drive : Tensor of shape (n_networks, [n_times,] n_inputs, n_neurons)
        f(h) in mV, constant or at times that :meth:`Setup.of_drive` tells.
    setup : Setup
        Time grid, scheme, noise. Without burn-in the gradient reaches the states of `initial`.
    record : sequence of {"path", "noise"}, default=()
        Trajectories to return.

    Returns
    -------
    mean : Tensor of shape (n_networks, n_inputs, n_neurons)
    covariance : Tensor of shape (n_networks, n_inputs, n_neurons, n_neurons), or None
    rates : Tensor of shape (n_networks, n_inputs, n_neurons), or None
        Moments over the window and the trials that stayed finite; NaN where none did.
    diverged_at : Tensor of shape (n_networks, n_inputs, n_trials), int
        Number of steps after which |u| exceeded 1000 mV or was not finite; -1 if it never did.
    u, z : Tensors of shape (n_networks, n_window, n_inputs, n_trials, n_neurons), or None
        Trajectories of the potentials and of the unit noise (a constant for the gradient),
        if recorded; `z` has one input if the noise is shared.
    u_final, z_final : Tensors of shape (n_networks, n_inputs, n_trials, n_neurons), or None
        Potentials and unit noise after the last step, constants for the gradient, if they are
        wanted; NaN where a trial diverged.
    """
    initial = None
    if setup.initial is not None:
        initial, z = setup.initial
        setup = replace(setup, initial=(initial.detach(), z))
    inputs = (weights, noise_factor, drive, initial)
    # views of what requires a gradient say so under `no_grad` too
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    # Teams of OpenMP's would wait for the next operation, busily, beside the engine's own threads,
    # and not survive a fork of the caller's process.
    with alone():
        return _Moments.apply(*inputs, setup, record, keep)


def runs_here(weights, noise_factor, drive, setup):
    """Whether circuits of this kind do.

    Those in the rate form or with another rate function do in compiled loops, without a gradient.
    """
    if setup.dynamics == "voltage" and setup.rate_function is None:
        return True
    tensors = weights, noise_factor, drive, *(setup.initial or ())
    differentiable = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    if not _arrays_for(drive, setup).compiled or differentiable:
        return False
    return setup.rate_function is None or table_of(setup.rate_function) is not None


def _arrays_for(drive, setup):
    """Compiled loops know one exponent only."""
    return backend.arrays(drive.dtype, drive.device, only_plain=torch.is_tensor(setup.gamma))


def tiles(n_neurons, n_inputs, setup):
    """Slices of inputs and draws, of nearly equal sizes; the same on any machine."""
    largest = min(BLOCK_ELEMENTS // n_neurons, SMALL_PRODUCT // n_neurons**2)
    # below a quarter of it, or of all columns, calls would cost more than they compute
    least = BLOCK_COLUMNS
    if largest < MANY_CELLS_COLUMNS:
        largest, least = BLOCK_COLUMNS, MANY_CELLS_COLUMNS
    quarter = max(largest, n_inputs * setup.n_trials) // 4
    size = min(largest, max(least, quarter))
    # shared noise must not depend on the number of inputs
    most_draws = (largest if setup.shared_noise else size) // setup.signs
    draws = _slices(setup.n_draws, most_draws, VECTOR)
    n_columns = setup.signs * draws[0].stop
    inputs = _slices(n_inputs, size // n_columns, VECTOR // n_columns)
    return [(i, j) for i in inputs for j in draws]


def seed_of(setup, network, inputs, draws):
    """Seed of the noise of a tile."""
    place = (0, 0) if setup.shared_noise else (1, inputs.start)
    return setup.seeds[network], *place, draws.start


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, noise_factor, drive, initial, setup, record, keep):
        run = _Run(weights, noise_factor, drive, setup)
        run.forward(keep, record)
        mean, covariance, rates = run.mean, run.covariance, run.rates
        u, z = (run.recorded(name) if name in record else None for name in ("path", "noise"))
        final = run.final() if setup.final else ()
        ctx.mark_non_differentiable(run.diverged_at, *final, *([] if z is None else [z]))
        ctx.set_materialize_grads(False)
        # not `save_for_backward`: nobody else sees these tensors, and `mean` is returned detached
        ctx.run = run if keep else None
        final = final or (None, None)
        return mean.clone(), covariance, rates, run.diverged_at, u, z, *final

    @staticmethod
    @once_differentiable
    def backward(ctx, mean, covariance, rates, diverged_at, u, z, *final):
        if ctx.run is None:
            raise RuntimeError("the gradient of a simulation can be taken only once")
        run, ctx.run = ctx.run, None
        with alone():
            return *run.backward(mean, covariance, rates, u), None, None, None


class _Run:
    """The networks of one call, cut into blocks."""

    def __init__(self, weights, noise_factor, drive, setup):
        self.setup = setup
        like = {"dtype": drive.dtype, "device": drive.device}
        self.relative_step = (setup.dt / torch.as_tensor(setup.tau, **like))[:, None]
        self.recurrent, self.noise_factor = weights, noise_factor
        self.drive, response = drive.mT.contiguous(), self.relative_step * _by_row(setup.k)
        if setup.dynamics == "voltage":
            self.recurrent = self.relative_step * setup.k * weights
            self.noise_factor = self.relative_step * noise_factor
            self.drive, response = self.relative_step * self.drive, response[:0]
        self.arrays = _arrays_for(drive, setup)
        of_cells = self.relative_step, response
        self.networks = [
            Network(*map(self.arrays.array, (a, a.mT.contiguous(), _compact(n), *of_cells)))
            for a, n in zip(self.recurrent.detach(), self.noise_factor.detach(), strict=True)
        ]
        self.n_networks = len(drive)
        self.n, self.n_inputs = self.drive.shape[-2:]
        self.signs, self.n_draws = setup.signs, setup.n_draws
        self.places = [
            (network, *tile)
            for network in range(self.n_networks)
            for tile in tiles(self.n, self.n_inputs, setup)
        ]

    def _block(self, network, inputs, draws):
        return Block(
            self.setup,
            self.arrays,
            self.networks[network],
            self.drive[network, ..., inputs].contiguous(),
            self._columns(inputs, draws),
            seed_of(self.setup, network, inputs, draws),
            self._initial(network, inputs, draws),
        )

    def _columns(self, inputs, draws):
        return inputs.stop - inputs.start, self.signs, draws.stop - draws.start

    def _initial(self, network, inputs, draws):
        """Potentials and noise at the start, of a block."""
        if self.setup.initial is None:
            return None
        return tuple(
            x[network]
            .unflatten(1, (self.signs, self.n_draws))[inputs, :, draws]
            .permute(3, 0, 1, 2)
            for x in self.setup.initial
        )

    def forward(self, keep, record):
        self.blocks, self.sums = [], []

        empty = self._store(keep) if keep or record else self.arrays.empty

        def prepared(place):
            block = self._block(*place)
            block.prepare(keep, record, empty)
            return block

        def finish(blocks, last):
            self.blocks += blocks if keep else []
            self.sums += [block.added_up() for block in blocks]
            if last:
                self._merge()

        _in_waves(self.places, prepared, lambda x: x.forward(), finish, self.drive.device)

    def _store(self, keep):
        """Make arrays for all that blocks keep, as parts of a single one.

        Memory as large as that goes back to the system when it is no longer needed; that of
        single blocks would stay with the thread that asked for it.
        """
        n_steps = self.setup.n_window
        n_states = n_steps + 1 + (n_steps if keep and self.setup.solver == "heun" else 0)
        columns = (self._columns(*tile) for _, *tile in self.places)
        width = sum(width_of(math.prod(own), self.arrays) for own in columns)
        # 0 where columns rest, which the way back relies on
        store, used = self.arrays.zeros((n_states * width * self.n,)), 0

        def empty(shape):
            nonlocal used
            used += math.prod(shape)
            return store[used - math.prod(shape) : used].reshape(shape)

        return empty

    def _merge(self):
        shape, new = (self.n_networks, self.n_inputs), self.drive.new_zeros
        trials = (*shape, self.signs, self.n_draws)
        diverged_at = torch.full(trials, -1, device=self.drive.device)
        count = new(shape)
        mean, rates = (new((*shape, self.n)) for _ in range(2))
        for (network, inputs, draws), sums in zip(self.places, self.sums, strict=True):
            if sums.diverged_at is not None:
                diverged_at[network, inputs, :, draws] = sums.diverged_at
            count[network, inputs] += sums.count
            for total, own in ((mean, sums.u), (rates, sums.rates)):
                if own is not None:
                    total[network, inputs] += own
        self.diverged_at = diverged_at.flatten(2)
        self.count = torch.where(count > 0, count, torch.nan)[:, :, None]
        self.mean = mean / self.count
        if not self.setup.rates:
            self.rates = None
        elif self.setup.dynamics == "rate":
            self.rates = self.mean
        else:
            self.rates = self.setup.k * rates / self.count
        self.covariance = self._covariance() if self.setup.covariance else None

    def _covariance(self):
        scatter = self.drive.new_zeros((self.n_networks, self.n_inputs, self.n, self.n))
        for (network, inputs, _), sums in zip(self.places, self.sums, strict=True):
            if sums.scatter is not None:
                scatter[network, inputs] += sums.scatter
                sums.scatter, count = None, sums.count[:, None]  # it is large
                # of the block's mean from that of all blocks
                offset = sums.u / count.clamp_min(1) - self.mean[network, inputs]
                offset = torch.where(count > 0, offset, 0)
                scatter[network, inputs] += (count * offset)[:, :, None] * offset[:, None]
        scatter /= self.count[..., None]
        # what rounding leaves of a variance of 0 may be negative
        scatter.diagonal(dim1=-2, dim2=-1).clamp_(min=0)
        return scatter

    def final(self):
        """Potentials and noise after the last step."""
        shape = (self.n_networks, self.n_inputs, self.signs, self.n_draws, self.n)
        finals = [self.drive.new_full(shape, torch.nan) for _ in range(2)]
        for (network, inputs, draws), sums in zip(self.places, self.sums, strict=True):
            if sums.final is not None:
                for whole, part in zip(finals, sums.final, strict=True):
                    whole[network, inputs, :, draws] = part.permute(1, 2, 3, 0)
        alive = (self.diverged_at < 0)[..., None]
        return [torch.where(alive, x.flatten(2, 3), torch.nan) for x in finals]

    def recorded(self, name):
        shared = name == "noise" and self.setup.shared_noise
        n_inputs = 1 if shared else self.n_inputs
        shape = (self.n_networks, self.setup.n_window, n_inputs, self.signs, self.n_draws, self.n)
        result = self.drive.new_empty(shape)
        for (network, inputs, draws), sums in zip(self.places, self.sums, strict=True):
            part = getattr(sums, name).permute(0, 2, 3, 4, 1)
            setattr(sums, name, None)  # it is large
            result[network, :, slice(None) if shared else inputs, :, draws] = part
        return result.flatten(3, 4)

    def backward(self, mean, covariance, rates, u):
        weights, noise_factor, drive = totals = [
            torch.zeros_like(x) for x in (self.recurrent, self.noise_factor, self.drive)
        ]
        initial = None
        if self.setup.initial is not None:
            initial = torch.zeros_like(self.setup.initial[0])
            of_trials = initial.unflatten(2, (self.signs, self.n_draws))
        places = iter(self.places)

        def prepared(i):
            block = self.blocks[i]
            owe = self._owe(*self.places[i], block, mean, covariance, rates, u)
            block.prepare_backward(owe)
            return block

        def finish(parts, last):
            for part in parts:
                network, inputs, draws = next(places)
                weights[network] += part[0]
                noise_factor[network] += part[1]
                drive[network, ..., inputs] += part[2]
                if initial is not None and not self.setup.n_burn:
                    of_trials[network, inputs, :, draws] = part[3].permute(1, 2, 3, 0)
            if last:
                for total in totals:
                    total *= self.relative_step
                weights.mul_(self.setup.k)

        jobs = range(len(self.places))
        _in_waves(jobs, prepared, lambda x: x.backward(), finish, self.drive.device)
        return weights, noise_factor, drive.mT, initial

    def _owe(self, network, inputs, draws, block, mean, covariance, rates, u):
        """What the loss owes to the potentials of a block directly, see `Block.backward`."""
        shape, finite = block.shape, block.finite
        k, gamma = (_by_row(x) for x in (self.setup.k, self.setup.gamma))
        each = torch.nan_to_num(1 / self.count[network, inputs])

        def per_column(gradient):
            gradient = (gradient[network, inputs] * each).T[:, :, None, None].expand(shape)
            # NaN where a loss went through moments that are
            gradient = gradient if finite is None else torch.where(finite, gradient, 0)
            return gradient.reshape(self.n, -1)

        constant = None if mean is None else per_column(mean)
        if rates is not None:
            rates = per_column(rates) * (k * gamma)
        if covariance is not None:
            covariance = covariance[network, inputs]
            covariance = (covariance + covariance.mT) * each[:, :, None]
            centre = torch.nan_to_num(self.mean[network, inputs]).T[:, :, None, None]
        if u is not None:
            u = u[network].unflatten(2, (self.signs, self.n_draws))[:, inputs, :, draws]

        def owe(path, first):
            path = self.arrays.tensor(path)[..., : block.n_columns]
            owed = path.new_zeros((1, *path.shape[1:])) if constant is None else constant[None]
            if rates is not None:
                owed = owed + rates * slope_of_power(path, gamma)
            if covariance is not None:
                deviation = path.unflatten(-1, block.columns) - centre
                if finite is not None:
                    deviation.mul_(finite)
                # one product an input, of all times and trials at once
                deviation = deviation.permute(2, 1, 0, 3, 4)
                change = _products(covariance, deviation.flatten(2)).view(deviation.shape)
                owed = owed + change.permute(2, 1, 0, 3, 4).reshape(path.shape)
            if u is not None:
                part = u[first : first + len(path)]
                part = part if finite is None else part * finite[..., None]
                owed = owed + part.permute(0, 4, 1, 2, 3).reshape(path.shape)
            resting = block.width - block.n_columns
            return self.arrays.array(pad(owed, (0, resting)).contiguous())

        return owe


def _compact(noise_factor):
    """Independent noise as a column: one multiplication a cell in place of a product."""
    own = noise_factor.diagonal()
    return own[:, None].contiguous() if torch.equal(noise_factor, own.diag()) else noise_factor


def _by_row(constant):
    """Of cells as a column, or the number that is that of all."""
    return constant[:, None] if torch.is_tensor(constant) else constant


def _products(matrices, columns):
    """Their products; on a CPU by NumPy, since torch rounds them by the number of threads."""
    if matrices.device.type != "cpu":
        return matrices @ columns
    return torch.from_numpy(np.matmul(matrices.numpy(), columns.numpy()))


def _slices(n, largest, multiple):
    """Slices of nearly equal sizes, of a multiple where possible."""
    n_slices = -(-n // max(1, largest))
    size = -(-n // n_slices)
    size = max(size, min(largest, -(-size // max(1, multiple)) * multiple))
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def _in_waves(jobs, prepare, work, finish, device):
    """Do the jobs, in order, on as many threads as torch would use for one product.

    Each thread computes its products alone: blocks are the parallelism, and a result does not
    depend on the number of threads. What comes before and after the work, many small
    operations, is done for a wave of jobs by one thread, since several would wait for Python's
    lock most of the time.
    """
    jobs = list(jobs)
    threads = pool() if len(jobs) > 1 and device.type == "cpu" else None
    size = WAVE * (1 if threads is None else n_threads())
    each = map if threads is None else threads.map
    with one_blas_thread:
        for first in range(0, len(jobs), size):
            # together also on one thread: small operations are slow after large ones, which
            # leave nothing of them in the caches
            done = list(each(work, [prepare(job) for job in jobs[first : first + size]]))
            finish(done, first + size >= len(jobs))
