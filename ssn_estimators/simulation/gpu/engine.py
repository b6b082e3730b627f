"""The fast engine on CUDA devices: moments of many networks at once, and their gradient.

A network of up to 128 cells stays on chip: one launch of `kernels.forward` takes a tile of its
trials through all steps. Up to 1024 cells, blocks of weights pass through the chip in every
step; beyond, library products take over. The noise is made in place by counting, so that the
way back can make it again. The window's potentials are kept for the gradient, which is then a
sum of outer products over columns and time (`kernels.outer`).
"""

import math
from contextlib import contextmanager

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.simulation.gpu import kernels

__all__ = ["moments", "noise"]

CHUNK_ELEMENTS = 2**28  # of a buffer over time: 1 GiB
PIECES = {"float32": 2, "tf32": 1}  # numbers that stand for one in a product
RESIDENT = 128  # cells of which all weights fit on chip
TILED = 1024  # cells up to which blocks of weights pass through one kernel
TILE, TILE_WIDE = 32, 64  # columns of a program
BATCH, BATCH_BACK = 64, 32  # columns of weights that pass at a time
OUTER_PROGRAMS = 528  # wanted at once for the outer products
NEVER = 2**31 - 1
FLOAT16_GAMMA = 2.5  # beyond, rates up to divergence need more than the range of float16
GRAPH_STEPS = 32  # of a CUDA graph


def moments(weights, noise_factor, drive, setup, left_out=None, engine=None):
    """Moments of the potentials of independent networks over trials and time.

    Parameters
    ----------
    weights, noise_factor : Tensors of shape (n_networks, n_neurons, n_neurons), float32
    drive : Tensor of shape (n_networks, n_inputs, n_neurons), float32
        Or of shape (n_networks, n_steps, n_inputs, n_neurons): the drive at the start of
        every step of burn-in and window.
    setup : object
        With attributes n_trials, n_burn, n_window, dt, solver, tau, tau_eta, k, gamma, seeds,
        shared_noise, antithetic, increments, covariance, rates and precision. In products,
        "tf32" keeps 11 bits of every factor and "float32" 22, as two numbers of 11 in three
        products: scaled float16 forwards, where the range is known, TF32 on the way back.
        All sums are float32.
    left_out : bool Tensor of shape (n_networks, n_inputs, n_trials), default=None
        Trials that contribute nothing.
    engine : {"resident", "tiled", "library"}, default=None
        By default, the number of cells decides.

    Returns
    -------
    mean : Tensor of shape (n_networks, n_inputs, n_neurons)
        Of the potentials at the end of the window's steps. Trials that diverged are left
        out; an input of which none remains has NaN.
    covariance : Tensor of shape (n_networks, n_inputs, n_neurons, n_neurons) or None
    rates : Tensor of shape (n_networks, n_inputs, n_neurons) or None
    first : int64 Tensor of shape (n_networks, n_inputs, n_trials)
        Number of steps done when some potential first exceeded 1000 mV or was not finite,
        -1 if none did.
    """
    inputs = (weights, noise_factor, drive)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    return _Moments.apply(*inputs, setup, left_out, engine, keep)


def noise(setup, n_inputs, n_neurons, device):
    """The noise of every step, of shape (n_steps + 1, n_networks, n_inputs, n_trials, n_neurons).

    The kernels make the same numbers in place; this is for tests and for small circuits.
    """
    columns = _Columns(setup, n_inputs, n_neurons, device)
    n_steps = setup.n_burn + setup.n_window
    path = torch.empty((n_steps + 1, *columns.shape), device=device)
    columns.noise(path.new_zeros(columns.shape), 0, n_steps, path)
    return path.unflatten(2, (n_inputs, setup.n_trials))


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, noise_factor, drive, setup, left_out, engine, keep):
        ctx.set_materialize_grads(False)
        with torch.cuda.device_of(drive), _precision(setup):
            run = _Run(weights, noise_factor, drive, setup, engine, keep)
            *moments, first = run.forward(left_out)
        if keep:
            ctx.run = run
        ctx.mark_non_differentiable(first)
        return *moments, first

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mean, grad_covariance, grad_rates, _):
        run = ctx.run
        with torch.cuda.device_of(run.drive), _precision(run.setup):
            gradients = run.backward(grad_mean, grad_covariance, grad_rates)
        return *gradients, None, None, None, None


class _Columns:
    """The columns of a run, one for each trial of each input, and their noise."""

    def __init__(self, setup, n_inputs, n_neurons, device):
        self.n_inputs, self.n_trials = n_inputs, setup.n_trials
        self.shape = (len(setup.seeds), n_inputs * setup.n_trials, n_neurons)
        self.device = torch.device(device)
        distinct = setup.n_trials // 2 if setup.antithetic else setup.n_trials
        trials, inputs = torch.arange(setup.n_trials), torch.arange(n_inputs)[:, None]
        ids = trials % distinct + (0 if setup.shared_noise else distinct) * inputs
        signs = torch.where(trials < distinct, 1.0, -1.0)
        self.ids = ids.expand(n_inputs, -1).flatten().to(self.device, torch.int32)
        self.signs = signs.expand(n_inputs, -1).flatten().to(self.device)
        self.seeds = torch.tensor(setup.seeds, dtype=torch.int64, device=self.device)
        self.weak = setup.increments == "weak"
        self.decay = math.exp(-setup.dt / setup.tau_eta)
        # a weak increment is -1, 0 or 1 in the kernels, of variance 1/3
        self.kick = math.sqrt((3 if self.weak else 1) * (1 - self.decay**2))
        self.block = 64 if n_neurons <= 64 else 128
        self.n_blocks = -(-n_neurons // self.block)

    def noise(self, z, start, stop, path=None):
        """Take z, at step `start`, to `stop`; `path` gets it at every step. 0 starts anew."""
        n_networks, n_columns, _ = self.shape
        kernels.noise[(-(-n_columns // TILE), self.n_blocks, n_networks)](
            z,
            z if path is None else path,
            *(self.seeds, self.ids, self.signs),
            *self.shape,
            start,
            stop,
            self.decay,
            self.kick,
            BLOCK=self.block,
            COLUMNS=TILE,
            WEAK=self.weak,
            KEEP=path is not None,
        )


class _Run:
    """One simulation: the engine's stretches of time, the moments, and the way back."""

    def __init__(self, weights, noise_factor, drive, setup, engine, keep):
        self.setup, self.keep = setup, keep
        self.drive, self.moving = drive.contiguous(), drive.ndim == 4
        self.columns = _Columns(setup, drive.shape[-2], drive.shape[-1], drive.device)
        if engine is None:
            n = drive.shape[-1] if setup.gamma <= FLOAT16_GAMMA else math.inf
            engine = "resident" if n <= RESIDENT else "tiled" if n <= TILED else "library"
        self.engine = ENGINES[engine](self, weights.contiguous(), noise_factor.contiguous())
        self.with_path = keep or setup.covariance
        self.chunks = [(0, setup.n_window)]
        if self.with_path:
            size = max(1, CHUNK_ELEMENTS // math.prod(self.columns.shape))
            starts = range(0, setup.n_window, size)
            self.chunks = [(i, min(i + size, setup.n_window)) for i in starts]

    def buffer(self, *shape):
        return self.drive.new_zeros((*shape, *self.columns.shape))

    def path_buffer(self, n_steps):
        return self.drive.new_empty((n_steps, *self.columns.shape))

    def by_input(self, x):
        """Columns apart by input and trial; they are the last axis but one."""
        return x.unflatten(-2, (self.columns.n_inputs, self.columns.n_trials))

    def forward(self, left_out):
        setup, engine = self.setup, self.engine
        shape = (self.columns.shape[0], self.columns.n_inputs, self.columns.n_trials, 1)
        everyone = torch.ones(shape, dtype=torch.bool, device=self.drive.device)
        self.kept = everyone if left_out is None else ~left_out[..., None]
        chosen = self.kept
        self.simulate()
        first = engine.first.view(shape)
        self.kept = chosen & (first == NEVER)
        streaming = setup.covariance and not self.keep
        if streaming and (self.kept != chosen).any():
            self.simulate()  # a column was in the sums before it was known to diverge
        self.n_kept = self.kept.sum(2)  # of shape (n_networks, n_inputs, 1)
        count = self.n_kept * setup.n_window
        self.mean = self.kept_sum(engine.sums) / count
        covariance = rates = None
        if self.keep:
            # a column at rest passes no gradient, and none that is infinite
            for path in (self.path, self.predictions):
                if path is not None and not self.kept.all():
                    path.masked_fill_(~self.kept.flatten(1, 2), 0.0)
        if setup.covariance:
            if self.keep:
                self.centre = self.kept_sum(self.path[0]) / self.n_kept
                products = [self.products(self.path[1 + i : 1 + j]) for i, j in self.chunks]
                self.total = sum(products)
            offset = self.mean - self.centre
            covariance = self.total / count[..., None] - offset[..., None] * offset[..., None, :]
            covariance.diagonal(dim1=-2, dim2=-1).clamp_(min=0)  # rounding
        if setup.rates:
            rates = setup.k * self.kept_sum(engine.rate_sums) / count
        first = torch.where((first == NEVER) | ~chosen, -1, first.to(torch.int64))
        # a copy: an output kept here would keep itself alive
        return self.mean.clone(), covariance, rates, first[..., 0]

    def simulate(self):
        """Burn-in and window; the sums and, if wanted, the path are left behind."""
        setup, engine = self.setup, self.engine
        length = setup.n_window if self.keep else self.chunks[0][1]
        # entry 0 of the path is the state before the window
        self.path = self.path_buffer(length + 1) if self.with_path else None
        heun = self.keep and setup.solver == "heun"
        self.predictions = self.path_buffer(length) if heun else None
        engine.begin()
        engine.forward(0, setup.n_burn)
        self.total = 0.0
        if self.keep:
            self.path[0], self.z = engine.u, engine.z.clone()
        if setup.covariance:
            self.centre = self.kept_sum(engine.u) / self.kept.sum(2)
        for start, stop in self.chunks:
            at = start if self.keep else 0
            path, predictions = None, None
            if self.with_path:
                path = self.path[at + 1 : at + 1 + stop - start]
            if heun:
                predictions = self.predictions[at : at + stop - start]
            engine.forward(setup.n_burn + start, setup.n_burn + stop, True, path, predictions)
            if setup.covariance and not self.keep:
                self.total = self.total + self.products(path)

    def kept_sum(self, x):
        """Sum over the trials that are kept, of shape (n_networks, n_inputs, n_neurons)."""
        return torch.where(self.kept, self.by_input(x), 0.0).sum(2)

    def deviations(self, path, centre):
        """Of kept trials, of shape (n_networks, n_inputs, steps * n_trials, n_neurons)."""
        path = self.by_input(path).permute(1, 2, 0, 3, 4)
        samples = torch.empty(path.shape, device=path.device)
        torch.sub(path, centre[:, :, None, None], out=samples)
        if not self.kept.all():
            samples.masked_fill_(~self.kept[:, :, None], 0.0)
        return samples.flatten(2, 3)

    def products(self, path):
        samples = self.deviations(path, self.centre)
        return samples.mT @ samples

    def backward(self, grad_mean, grad_covariance, grad_rates):
        setup = self.setup
        count = (self.n_kept * setup.n_window).clamp_min(1)

        def of_sample(grad):
            """Gradient of one sample, zero for inputs without trials, whose moments are NaN."""
            if grad is None:
                return torch.zeros_like(self.mean)
            return torch.where(self.n_kept > 0, grad / count, 0.0)

        sources = {"mean": of_sample(grad_mean), "rates": None}
        if grad_rates is not None:
            sources["rates"] = setup.k * of_sample(grad_rates)
        if grad_covariance is not None:
            both = (grad_covariance + grad_covariance.mT) / count[..., None]
            both = torch.where(self.n_kept[..., None] > 0, both, 0.0)
            centre = torch.where(self.n_kept > 0, self.mean, 0.0)
        length = max(stop - start for start, stop in self.chunks)
        heun = setup.solver == "heun"
        x, x_ahead = self.path_buffer(length), self.path_buffer(length) if heun else None
        grad_drive = torch.zeros_like(self.drive)
        self.engine.begin_backward()
        outer = _Outer(self)
        for start, stop in reversed(self.chunks):
            sources["path"] = None
            if grad_covariance is not None:
                samples = self.deviations(self.path[1 + start : 1 + stop], centre) @ both
                samples = samples.unflatten(2, (stop - start, -1)).permute(2, 0, 1, 3, 4)
                sources["path"] = samples.flatten(2, 3).contiguous()
            self.engine.backward(start, stop, sources, x, x_ahead)
            outer.add(start, stop, x, x_ahead)
            for of_forcing, ahead in ((x, 0), (x_ahead, 1)):
                if of_forcing is None:
                    continue
                of_drive = self.by_input(of_forcing[: stop - start])
                if not self.moving:
                    grad_drive += of_drive.sum((0, 3))
                    continue
                steps = torch.arange(start, stop, device=x.device) + setup.n_burn + ahead
                steps.clamp_max_(self.drive.shape[1] - 1)
                grad_drive.index_add_(1, steps, of_drive.sum(3).transpose(0, 1))
        grad_weights, grad_noise = outer.result()
        return grad_weights, grad_noise, grad_drive


class _Outer:
    """Gradients of weights and noise factor: outer products over columns and time."""

    def __init__(self, run):
        self.run = run
        n_networks, n_columns, n = run.columns.shape
        self.n_tiles, self.n_blocks = -(-n_columns // TILE), run.columns.n_blocks
        programs = n_networks * self.n_blocks**2
        self.n_splits = min(self.n_tiles, -(-OUTER_PROGRAMS // programs))
        self.g, self.g_after = run.buffer(), run.buffer()
        self.grad_weights = run.drive.new_zeros((n_networks, n, n))
        self.grad_noise = torch.zeros_like(self.grad_weights)

    def add(self, start, stop, x, x_ahead):
        run, setup, columns = self.run, self.run.setup, self.run.columns
        parts = self.grad_weights.new_empty((2, self.n_splits, *self.grad_weights.shape))
        kernels.outer[(self.n_splits, self.n_blocks**2, columns.shape[0])](
            run.path,
            x if run.predictions is None else run.predictions[start:stop],
            x,
            x if x_ahead is None else x_ahead,
            *(self.g, self.g_after, columns.seeds, columns.ids, columns.signs, *parts),
            *(*columns.shape, self.n_tiles, self.n_blocks, start, stop, setup.n_burn),
            *(columns.decay, float(setup.gamma)),
            HEUN=setup.solver == "heun",
            POWER=_power(setup),
            PIECES=PIECES[setup.precision],
            WEAK=columns.weak,
            ANTITHETIC=setup.antithetic,
            BLOCK=columns.block,
            COLUMNS=TILE,
            num_warps=8,
        )
        self.g, self.g_after = self.g_after, self.g
        of_weights, of_noise = parts.sum(1)
        self.grad_weights += of_weights
        self.grad_noise += of_noise

    def result(self):
        of_start = self.g.mT @ self.run.z
        kick = self.run.columns.kick
        return self.run.setup.k * self.grad_weights, kick * self.grad_noise + of_start


class _Resident:
    """Weights and noise factor on chip: one launch for any number of steps."""

    step, step_back = kernels.forward, kernels.adjoint
    scratch = ()

    def __init__(self, run, weights, noise_factor):
        self.run, setup, columns = run, run.setup, run.columns
        self.n_pieces = PIECES[setup.precision]
        self.noise_factor = noise_factor
        rate = np.broadcast_to(1 / np.asarray(setup.tau), columns.shape[-1:])
        self.rate = torch.tensor(rate, dtype=torch.float32, device=columns.device)
        # a power of 2 with which rates are float16 numbers up to the threshold of divergence
        largest = math.floor(math.log2(6e4) - setup.gamma * math.log2(DIVERGENCE_THRESHOLD))
        self.rate_scale = min(1.0, 2.0**largest)
        weights = setup.k * weights
        self.pieces, units = _pieces(weights, self.n_pieces)
        self.units = units / self.rate_scale
        self.noise_pieces, units = _pieces(noise_factor, self.n_pieces)
        self.noise_units = units * columns.kick
        turned = weights.mT.contiguous()
        high = (turned.view(torch.int32) + 4096 & -8192).view(torch.float32)  # nearest in TF32
        self.turned = torch.stack([high, turned - high])
        self.tiles = {"BLOCK": columns.block, "COLUMNS": TILE, "num_warps": 8}
        self.tiles_back = self.tiles
        self.grid = (-(-columns.shape[1] // TILE), columns.shape[0])

    def begin(self):
        run, columns = self.run, self.run.columns
        self.u, self.z, self.slope = run.buffer(), run.buffer(), run.buffer()
        self.sums, self.rate_sums = run.buffer(), run.buffer()
        self.first = torch.full(columns.shape[:2], NEVER, dtype=torch.int32, device=columns.device)
        columns.noise(self.z, 0, 0)
        self.eta = self.z @ self.noise_factor.mT

    def forward(self, start, stop, sums=False, path=None, predictions=None):
        run, setup, columns = self.run, self.run.setup, self.run.columns
        if stop == start:
            return
        self.step[self.grid](
            *(self.pieces, self.noise_pieces, self.units, self.noise_units, run.drive, self.rate),
            *(columns.seeds, columns.ids, columns.signs, self.u, self.eta, self.z, self.slope),
            *(self.first, self.sums, self.rate_sums),
            self.u if path is None else path,
            self.u if predictions is None else predictions,
            *(*columns.shape, columns.n_trials, columns.n_inputs),
            *(setup.n_burn + setup.n_window, start, stop),
            *(float(setup.dt), columns.decay, columns.kick, float(setup.gamma), self.rate_scale),
            *self.scratch,
            SOLVER=setup.solver,
            POWER=_power(setup),
            PIECES=self.n_pieces,
            WEAK=columns.weak,
            ANTITHETIC=setup.antithetic,
            MOVING=run.moving,
            MEAN=sums,
            RATES=sums and setup.rates,
            PATH=(path is not None) + (predictions is not None),
            TRACK=run.keep and not sums,
            **self.tiles,
        )

    def begin_backward(self):
        self.grad, self.carried = self.run.buffer(), self.run.buffer()

    def backward(self, start, stop, sources, x, x_ahead):
        run, setup, columns = self.run, self.run.setup, self.run.columns
        rates, dense = sources["rates"], sources["path"]
        self.step_back[self.grid](
            *(self.turned, self.rate, run.kept.float(), sources["mean"]),
            sources["mean"] if rates is None else rates,
            x if dense is None else dense,
            run.path,
            x if run.predictions is None else run.predictions[start:stop],
            *(x, x if x_ahead is None else x_ahead, self.grad, self.carried),
            *(*columns.shape, columns.n_trials, columns.n_inputs, start, stop),
            *(float(setup.dt), float(setup.gamma)),
            SOLVER=setup.solver,
            POWER=_power(setup),
            PIECES=PIECES[setup.precision],
            RATES=rates is not None,
            DENSE=dense is not None,
            COLD=setup.n_burn == 0,
            **self.tiles_back,
        )


class _Tiled(_Resident):
    """Blocks of weights pass through the chip in every step, rates through a scratch buffer."""

    step, step_back = kernels.forward_tiled, kernels.adjoint_tiled

    def __init__(self, run, weights, noise_factor):
        super().__init__(run, weights, noise_factor)
        n_networks, n_columns, n = run.columns.shape
        size = run.columns.n_blocks * run.columns.block
        pad = (0, size - n, 0, size - n)
        self.pieces = torch.nn.functional.pad(self.pieces, pad)
        self.noise_pieces = torch.nn.functional.pad(self.noise_pieces, pad)
        padded_columns = -(-n_columns // TILE_WIDE) * TILE_WIDE
        # rates before and after the step, in two pieces each, and the noise's increments
        shape = (5, n_networks, padded_columns, size)
        scratch = torch.zeros(shape, dtype=torch.float16, device=weights.device)
        self.scratch = (scratch, size, padded_columns)
        self.tiles = self.tiles | {"COLUMNS": TILE_WIDE, "BATCH": BATCH}
        self.tiles_back = self.tiles | {"BATCH": BATCH_BACK}
        self.grid = (padded_columns // TILE_WIDE, n_networks)


class _Library:
    """Networks of any size: library products, step by step, replayed as a CUDA graph.

    Time passes in stretches of `n_steps` through buffers that stay where they are.
    """

    def __init__(self, run, weights, noise_factor):
        self.run, setup, columns = run, run.setup, run.columns
        self.weights, self.noise_factor = setup.k * weights, noise_factor
        tau = torch.tensor(np.asarray(setup.tau), dtype=torch.float32, device=columns.device)
        self.speed, self.solver = setup.dt / tau, setup.solver
        self.n_steps = max(1, min(GRAPH_STEPS, CHUNK_ELEMENTS // math.prod(columns.shape)))
        self.u, self.z, self.slope = run.buffer(), run.buffer(), run.buffer()
        self.sums, self.rate_sums = run.buffer(), run.buffer()
        self.forcing, self.path = run.buffer(self.n_steps + 1), run.buffer(self.n_steps + 1)
        self.predictions = run.buffer(self.n_steps) if self.solver == "heun" else None
        self.stretch, self.stretch_back = _Replayed(self.steps), _Replayed(self.steps_back)

    def begin(self):
        for x in (self.u, self.slope, self.sums, self.rate_sums):
            x.zero_()
        shape = self.run.columns.shape[:2]
        self.first = torch.full(shape, NEVER, dtype=torch.int32, device=self.u.device)
        self.run.columns.noise(self.z, 0, 0)

    def forward(self, start, stop, sums=False, path=None, predictions=None):
        for at in range(start, stop, self.n_steps):
            size = min(self.n_steps, stop - at)
            self.force(at, at + size)
            if at == 0:
                self.slope.copy_(self.change(self.u, self.forcing[0]))
            self.path[0] = self.u
            self.stretch(size, replay=size == self.n_steps)
            self.u.copy_(self.path[size])
            after = self.path[1 : size + 1]
            steps = torch.arange(at + 1, at + size + 1, dtype=torch.int32, device=after.device)
            large = ~(after.abs().amax(-1) <= DIVERGENCE_THRESHOLD)
            times = torch.where(large, steps[:, None, None], NEVER)
            self.first = torch.minimum(self.first, times.amin(0))
            if sums:
                self.sums += after.sum(0)
                self.rate_sums += self.rates(after).sum(0)
            here = slice(at - start, at - start + size)
            if path is not None:
                path[here] = after
            if predictions is not None:
                predictions[here] = self.predictions[:size]

    def force(self, start, stop):
        """Forcing of the steps from `start` to `stop`, the latter included."""
        run = self.run
        forcing = self.forcing[: stop - start + 1]
        run.columns.noise(self.z, start, stop, self.path)
        torch.matmul(self.path[: len(forcing)], self.noise_factor.mT, out=forcing)
        drive = run.drive[:, None]
        if run.moving:
            times = torch.arange(start, stop + 1, device=forcing.device)
            drive = run.drive[:, times.clamp_max(run.drive.shape[1] - 1)]
        run.by_input(forcing).add_(drive.transpose(0, 1)[:, :, :, None])

    def rates(self, u):
        return torch.relu(u).pow_(self.run.setup.gamma)

    def gains(self, u):
        gamma = self.run.setup.gamma
        return (u > 0) * 1.0 if gamma == 1 else gamma * torch.relu(u).pow_(gamma - 1)

    def change(self, u, forcing):
        """du/dt times dt."""
        return torch.baddbmm(forcing, self.rates(u), self.weights.mT).sub_(u).mul_(self.speed)

    def steps(self, n_steps):
        for t in range(n_steps):
            now = self.change(self.path[t], self.forcing[t])
            if self.solver == "heun":
                torch.add(self.path[t], now, out=self.predictions[t])
                now = (now + self.change(self.predictions[t], self.forcing[t + 1])) / 2
            elif self.solver == "ab2":
                before, now = now, 1.5 * now - 0.5 * self.slope
                self.slope.copy_(before)
            torch.add(self.path[t], now, out=self.path[t + 1])

    def begin_backward(self):
        run, n = self.run, self.n_steps
        self.grad, self.carried = run.buffer(), run.buffer()
        self.source, self.x = run.buffer(n), run.buffer(n)
        self.x_ahead = run.buffer(n) if self.solver == "heun" else None

    def backward(self, start, stop, sources, x, x_ahead):
        run, mean, kept = self.run, sources["mean"][:, :, None], self.run.kept
        for end in range(stop, start, -self.n_steps):
            at = max(start, end - self.n_steps)
            size, here = end - at, slice(at - start, end - start)
            self.path[: size + 1] = run.path[at : end + 1]
            source = run.by_input(self.source[:size])
            source.copy_(kept * mean)
            if sources["rates"] is not None:
                gains = self.gains(run.by_input(self.path[1 : size + 1]))
                source += kept * sources["rates"][:, :, None] * gains
            if sources["path"] is not None:
                self.source[:size] += sources["path"][here]
            if run.predictions is not None:
                self.predictions[:size] = run.predictions[at:end]
            cold = at == 0 and run.setup.n_burn == 0
            self.stretch_back(size, cold, replay=size == self.n_steps and not cold)
            x[here] = self.x[:size]
            if x_ahead is not None:
                x_ahead[here] = self.x_ahead[:size]

    def steps_back(self, n_steps, cold=False):
        for t in reversed(range(n_steps)):
            self.grad.add_(self.source[t])
            if self.solver == "heun":
                torch.mul(self.grad, self.speed / 2, out=self.x_ahead[t])
                of_predicted = self.through(self.x_ahead[t], self.predictions[t])
                of_slope = self.grad / 2 + of_predicted
                self.grad.add_(of_predicted)
            elif self.solver == "ab2":
                of_slope = 1.5 * self.grad + self.carried
                torch.mul(self.grad, -0.5, out=self.carried)
                if cold and t == 0:
                    of_slope += self.carried
            else:
                of_slope = self.grad
            torch.mul(of_slope, self.speed, out=self.x[t])
            self.grad.add_(self.through(self.x[t], self.path[t]))

    def through(self, x, u):
        """Gradient of u from that of the forcing, of dt du/dt = (forcing + W r(u) - u) dt / tau."""
        return (x @ self.weights).mul_(self.gains(u)).sub_(x)


class _Replayed:
    """A function that works on fixed buffers; on CUDA, a graph of it runs from its second time."""

    def __init__(self, function):
        self.function, self.graph, self.warm = function, None, False

    def __call__(self, *arguments, replay):
        if not (replay and self.warm and torch.cuda.is_available()):
            self.warm |= replay
            self.function(*arguments)
            return
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.function(*arguments)
        self.graph.replay()


@contextmanager
def _precision(setup):
    """Precision of library products; PyTorch's setting holds for the whole process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if setup.precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


ENGINES = {"resident": _Resident, "tiled": _Tiled, "library": _Library}


def _power(setup):
    return int(setup.gamma) if setup.gamma in (1, 2) else 0


def _pieces(matrices, n_pieces):
    """Matrices as sums of float16 numbers, and the power of 2 that is the unit of each."""
    _, exponents = torch.frexp(matrices.abs().amax((1, 2)))
    units = torch.ldexp(torch.ones_like(matrices[:, 0, 0]), exponents)
    rest, pieces = matrices / units[:, None, None], []
    for _ in range(n_pieces):
        pieces.append(rest.half())
        rest = rest - pieces[-1].float()
    return torch.stack(pieces), units
