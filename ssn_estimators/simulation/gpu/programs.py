"""The way of fused kernels: their arguments, and the state that they leave behind."""

import math

import numpy as np
import torch

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.simulation.gpu import kernels
from ssn_estimators.simulation.gpu.columns import NEVER

__all__ = ["Outer", "Resident", "Tiled"]

OUTER_PROGRAMS = 528  # wanted at once for the outer products
OUTER_STEPS = 32  # that are added up within one


class Resident:
    """Weights and noise factor on chip: one launch for any number of steps."""

    step, step_back = kernels.forward, kernels.adjoint

    def __init__(self, run, weights, noise_factor, choice):
        self.run, setup, columns = run, run.setup, run.columns
        self.choice, self.noise_factor = choice, noise_factor
        rate = np.broadcast_to(1 / np.asarray(setup.tau), columns.shape[-1:])
        self.rate = torch.tensor(rate, dtype=torch.float32, device=columns.device)
        self.rate_scale = rate_scale_of(setup)
        weights = setup.k * weights
        self.pieces, units = in_pieces(weights, columns.n_pieces)
        self.units = units / self.rate_scale
        self.noise_pieces, self.noise_units = in_pieces(noise_factor, columns.n_pieces)
        turned = weights.mT.contiguous()
        high = (turned.view(torch.int32) + 4096 & -8192).view(torch.float32)  # nearest in TF32
        self.turned = torch.stack([high, turned - high])
        self.prepare()

    def prepare(self):
        """Columns of the noise factor in the order of the draws, as many as a block has."""
        block, n = self.run.columns.block, self.noise_pieces.shape[-1]
        self.noise_pieces = torch.nn.functional.pad(self.noise_pieces, (0, block - n))
        number = torch.arange(block, device=self.noise_pieces.device)
        order = number % 4 * (block // 4) + number // 4
        self.noise_pieces = self.noise_pieces[..., order].contiguous()

    def begin(self):
        run, columns = self.run, self.run.columns
        self.u, self.z, self.slope = run.buffer(), run.buffer(), run.buffer()
        self.sums, self.rate_sums = run.buffer(), run.buffer()
        self.diverged_at = torch.full(
            columns.shape[:2], NEVER, dtype=torch.int32, device=columns.device
        )
        columns.noise(self.z, 0, 0)

    def begin_at(self, u, z):
        """Potentials and noise other than at rest."""
        self.u.copy_(u)
        self.z.copy_(z)

    def grid(self, tile):
        n_networks, n_columns, _ = self.run.columns.shape
        return -(-n_columns // tile.columns), n_networks

    def of_kernel(self, sums):
        """What one of the forward kernels takes besides: states, numbers, and constants."""
        return (self.z,), (), {}

    def forward(self, start, stop, sums=False, path=None, predictions=None):
        run, setup, columns = self.run, self.run.setup, self.run.columns
        if stop == start:
            return
        states, numbers, constants = self.of_kernel(sums)
        self.step[self.grid(self.choice.forward)](
            *(self.pieces, self.noise_pieces, self.units, self.noise_units, run.drive, self.rate),
            *(columns.seeds, columns.ids, columns.signs, self.u, *states, self.slope),
            *(self.diverged_at, self.sums, self.rate_sums),
            self.u if path is None else path,
            self.u if predictions is None else predictions,
            *(*columns.shape, columns.n_trials, columns.n_inputs),
            *(setup.n_burn + setup.n_window, start, stop),
            *(float(setup.dt), columns.decay, columns.kick, float(setup.gamma), self.rate_scale),
            *numbers,
            SOLVER=setup.solver,
            POWER=power_of(setup),
            PIECES=columns.n_pieces,
            WEAK=columns.weak,
            ANTITHETIC=setup.antithetic,
            MOVING=run.moving,
            MEAN=sums,
            RATES=sums and setup.rates,
            PATH=(path is not None) + (predictions is not None),
            BLOCK=columns.block,
            **constants,
            **self.choice.forward.options(),
        )

    def begin_backward(self):
        run = self.run
        self.grad, self.carried, self.x_sums = run.buffer(), run.buffer(), run.buffer()
        programs, n_networks = self.grid(self.choice.adjoint)
        self.largest = run.drive.new_zeros((n_networks, programs))  # of the last x

    def backward(self, start, stop, sources, x, x_ahead):
        run, setup, columns = self.run, self.run.setup, self.run.columns
        rates, dense = sources["rates"], sources["path"]
        self.step_back[self.grid(self.choice.adjoint)](
            *(self.turned, self.rate, run.finite.float().contiguous(), sources["mean"]),
            sources["mean"] if rates is None else rates,
            x if dense is None else dense,
            run.path,
            x if run.predictions is None else run.predictions[start:stop],
            *(x, x if x_ahead is None else x_ahead, self.grad, self.carried),
            *(self.x_sums, self.largest),
            *(*columns.shape, columns.n_trials, columns.n_inputs, start, stop),
            *(float(setup.dt), float(setup.gamma)),
            SOLVER=setup.solver,
            POWER=power_of(setup),
            PIECES=columns.n_pieces,
            RATES=rates is not None,
            DENSE=dense is not None,
            COLD=setup.n_burn == 0,
            SUMS=not run.moving,
            BLOCK=columns.block,
            **self.choice.adjoint.options(),
        )


class Tiled(Resident):
    """Blocks of weights pass through the chip in every step, rates through a scratch buffer."""

    step, step_back = kernels.forward_tiled, kernels.adjoint_tiled

    def prepare(self):
        columns, tile = self.run.columns, self.choice.forward.columns
        n_networks, n_columns, n = columns.shape
        self.size = columns.n_blocks * columns.block
        self.padded_columns = -(-n_columns // tile) * tile
        pad = (0, self.size - n, 0, self.size - n)
        self.pieces = torch.nn.functional.pad(self.pieces, pad)
        self.noise_pieces = torch.nn.functional.pad(self.noise_pieces, pad)
        self.noise_units = self.noise_units * columns.kick
        # rates before and after the step, in two pieces each, and the noise's increments
        shape = (5, n_networks, self.padded_columns, self.size)
        self.scratch = torch.zeros(shape, dtype=torch.float16, device=columns.device)

    def begin(self):
        super().begin()
        self.eta = self.z @ self.noise_factor.mT

    def begin_at(self, u, z):
        super().begin_at(u, z)
        self.eta = self.z @ self.noise_factor.mT

    def of_kernel(self, sums):
        numbers = (self.scratch, self.size, self.padded_columns)
        track = self.run.setup.final or (self.run.keep and not sums)
        return (self.eta, self.z), numbers, {"TRACK": track}


class Outer:
    """Gradients of weights and noise factor: outer products over columns and time."""

    def __init__(self, run):
        self.run, self.tile = run, run.choice.outer
        n_networks, n_columns, n = run.columns.shape
        self.n_tiles, self.n_blocks = -(-n_columns // self.tile.columns), run.columns.n_blocks
        # a tensor core cuts off what it adds up: over many steps that is a bias
        exact = run.setup.precision == "float32"
        self.n_steps = OUTER_STEPS if exact else max(run.setup.n_window, 1)
        programs = n_networks * self.n_blocks**2
        self.n_splits = min(self.n_tiles, -(-OUTER_PROGRAMS // programs))
        self.rate_scale = rate_scale_of(run.setup)
        self.largest = run.drive.new_zeros(n_networks)  # of x so far, by network
        self.g, self.g_after = run.buffer(), run.buffer()
        self.grad_weights = run.drive.new_zeros((n_networks, n, n))
        self.grad_noise = torch.zeros_like(self.grad_weights)

    def add(self, start, stop, x, x_ahead):
        self.largest = torch.maximum(self.largest, self.run.engine.largest.amax(1))
        # powers of 2 with which x and its sums over time are numbers of float16
        largest = (1 if x_ahead is None else 2) * self.largest / (1 - self.run.columns.decay)
        _, exponents = torch.frexp(torch.where(largest.isfinite(), largest, 0.0))
        self.scales = torch.ldexp(torch.ones_like(largest), (15 - exponents).clamp_max(100))
        for end in range(stop, start, -self.n_steps):
            begin = max(start, end - self.n_steps)
            ahead = None if x_ahead is None else x_ahead[begin - start :]
            self._add(begin, end, x[begin - start :], ahead)

    def _add(self, start, stop, x, x_ahead):
        run, setup, columns = self.run, self.run.setup, self.run.columns
        parts = self.grad_weights.new_empty((2, self.n_splits, *self.grad_weights.shape))
        kernels.outer[(self.n_splits, self.n_blocks**2, columns.shape[0])](
            run.path,
            x if run.predictions is None else run.predictions[start:stop],
            x,
            x if x_ahead is None else x_ahead,
            *(self.g, self.g_after, columns.seeds, columns.ids, columns.signs, self.scales),
            *parts,
            *(*columns.shape, self.n_tiles, self.n_blocks, start, stop, setup.n_burn),
            *(columns.decay, float(setup.gamma), self.rate_scale),
            HEUN=setup.solver == "heun",
            POWER=power_of(setup),
            PIECES=columns.n_pieces,
            WEAK=columns.weak,
            ANTITHETIC=setup.antithetic,
            BLOCK=columns.block,
            **self.tile.options(),
        )
        self.g, self.g_after = self.g_after, self.g
        of_weights, of_noise = parts.sum(1)
        self.grad_weights += of_weights
        self.grad_noise += of_noise

    def result(self):
        of_start = self.g.mT @ self.run.z
        kick = self.run.columns.kick
        return self.run.setup.k * self.grad_weights, kick * self.grad_noise + of_start


def rate_scale_of(setup):
    """A power of 2 with which rates are float16 numbers up to the threshold of divergence."""
    largest = math.floor(math.log2(6e4) - setup.gamma * math.log2(DIVERGENCE_THRESHOLD))
    return min(1.0, 2.0**largest)


def power_of(setup):
    return int(setup.gamma) if setup.gamma in (1, 2) else 0


def in_pieces(matrices, n_pieces):
    """Matrices as sums of float16 numbers, and the power of 2 that is the unit of each."""
    _, exponents = torch.frexp(matrices.abs().amax((1, 2)))
    units = torch.ldexp(torch.ones_like(matrices[:, 0, 0]), exponents)
    rest, pieces = matrices / units[:, None, None], []
    for _ in range(n_pieces):
        pieces.append(rest.half())
        rest = rest - pieces[-1].float()
    return torch.stack(pieces), units
