"""The way of fused kernels: their arguments, and the state that they leave behind."""

import math

import numpy as np
import torch

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.simulation.gpu import kernels
from ssn_estimators.simulation.gpu.columns import NEVER

__all__ = ["Outer", "Resident", "Tiled"]

BATCH, BATCH_BACK = 64, 32  # columns of weights that pass at a time
PIECES = {"float32": 2, "tf32": 1}  # numbers that stand for one in a product
OUTER_PROGRAMS = 528  # wanted at once for the outer products
OUTER_STEPS = 32  # that are added up within one


class Resident:
    """Weights and noise factor on chip: one launch for any number of steps."""

    step, step_back = kernels.forward, kernels.adjoint
    scratch = ()

    def __init__(self, run, weights, noise_factor, tile):
        self.run, setup, columns = run, run.setup, run.columns
        self.n_pieces = PIECES[setup.precision]
        self.noise_factor = noise_factor
        rate = np.broadcast_to(1 / np.asarray(setup.tau), columns.shape[-1:])
        self.rate = torch.tensor(rate, dtype=torch.float32, device=columns.device)
        # a power of 2 with which rates are float16 numbers up to the threshold of divergence
        largest = math.floor(math.log2(6e4) - setup.gamma * math.log2(DIVERGENCE_THRESHOLD))
        self.rate_scale = min(1.0, 2.0**largest)
        weights = setup.k * weights
        self.pieces, units = in_pieces(weights, self.n_pieces)
        self.units = units / self.rate_scale
        self.noise_pieces, units = in_pieces(noise_factor, self.n_pieces)
        self.noise_units = units * columns.kick
        turned = weights.mT.contiguous()
        high = (turned.view(torch.int32) + 4096 & -8192).view(torch.float32)  # nearest in TF32
        self.turned = torch.stack([high, turned - high])
        self.tiles = {"BLOCK": columns.block, "COLUMNS": tile, "num_warps": 8}
        self.tiles_back = self.tiles
        self.grid = (-(-columns.shape[1] // tile), columns.shape[0])

    def begin(self):
        run, columns = self.run, self.run.columns
        self.u, self.z, self.slope = run.buffer(), run.buffer(), run.buffer()
        self.sums, self.rate_sums = run.buffer(), run.buffer()
        self.diverged_at = torch.full(
            columns.shape[:2], NEVER, dtype=torch.int32, device=columns.device
        )
        columns.noise(self.z, 0, 0)
        self.eta = self.z @ self.noise_factor.mT

    def forward(self, start, stop, sums=False, path=None, predictions=None):
        run, setup, columns = self.run, self.run.setup, self.run.columns
        if stop == start:
            return
        self.step[self.grid](
            *(self.pieces, self.noise_pieces, self.units, self.noise_units, run.drive, self.rate),
            *(columns.seeds, columns.ids, columns.signs, self.u, self.eta, self.z, self.slope),
            *(self.diverged_at, self.sums, self.rate_sums),
            self.u if path is None else path,
            self.u if predictions is None else predictions,
            *(*columns.shape, columns.n_trials, columns.n_inputs),
            *(setup.n_burn + setup.n_window, start, stop),
            *(float(setup.dt), columns.decay, columns.kick, float(setup.gamma), self.rate_scale),
            *self.scratch,
            SOLVER=setup.solver,
            POWER=power_of(setup),
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
            *(self.turned, self.rate, run.finite.float().contiguous(), sources["mean"]),
            sources["mean"] if rates is None else rates,
            x if dense is None else dense,
            run.path,
            x if run.predictions is None else run.predictions[start:stop],
            *(x, x if x_ahead is None else x_ahead, self.grad, self.carried),
            *(*columns.shape, columns.n_trials, columns.n_inputs, start, stop),
            *(float(setup.dt), float(setup.gamma)),
            SOLVER=setup.solver,
            POWER=power_of(setup),
            PIECES=PIECES[setup.precision],
            RATES=rates is not None,
            DENSE=dense is not None,
            COLD=setup.n_burn == 0,
            **self.tiles_back,
        )


class Tiled(Resident):
    """Blocks of weights pass through the chip in every step, rates through a scratch buffer."""

    step, step_back = kernels.forward_tiled, kernels.adjoint_tiled

    def __init__(self, run, weights, noise_factor, tile):
        super().__init__(run, weights, noise_factor, tile)
        n_networks, n_columns, n = run.columns.shape
        size = run.columns.n_blocks * run.columns.block
        pad = (0, size - n, 0, size - n)
        self.pieces = torch.nn.functional.pad(self.pieces, pad)
        self.noise_pieces = torch.nn.functional.pad(self.noise_pieces, pad)
        padded_columns = -(-n_columns // tile) * tile
        # rates before and after the step, in two pieces each, and the noise's increments
        shape = (5, n_networks, padded_columns, size)
        scratch = torch.zeros(shape, dtype=torch.float16, device=weights.device)
        self.scratch = (scratch, size, padded_columns)
        self.tiles = self.tiles | {"BATCH": BATCH}
        self.tiles_back = self.tiles | {"BATCH": BATCH_BACK}
        self.grid = (padded_columns // tile, n_networks)


class Outer:
    """Gradients of weights and noise factor: outer products over columns and time."""

    def __init__(self, run, tile):
        self.run, self.tile = run, tile
        n_networks, n_columns, n = run.columns.shape
        self.n_tiles, self.n_blocks = -(-n_columns // tile), run.columns.n_blocks
        # a tensor core cuts off what it adds up: over many steps that is a bias
        exact = run.setup.precision == "float32"
        self.n_steps = OUTER_STEPS if exact else max(run.setup.n_window, 1)
        programs = n_networks * self.n_blocks**2
        self.n_splits = min(self.n_tiles, -(-OUTER_PROGRAMS // programs))
        self.g, self.g_after = run.buffer(), run.buffer()
        self.grad_weights = run.drive.new_zeros((n_networks, n, n))
        self.grad_noise = torch.zeros_like(self.grad_weights)

    def add(self, start, stop, x, x_ahead):
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
            *(self.g, self.g_after, columns.seeds, columns.ids, columns.signs, *parts),
            *(*columns.shape, self.n_tiles, self.n_blocks, start, stop, setup.n_burn),
            *(columns.decay, float(setup.gamma)),
            HEUN=setup.solver == "heun",
            POWER=power_of(setup),
            PIECES=PIECES[setup.precision],
            WEAK=columns.weak,
            ANTITHETIC=setup.antithetic,
            BLOCK=columns.block,
            COLUMNS=self.tile,
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
