"""Columns of a run, one for each trial of each input, and their noise."""

import math

import torch

from ssn_estimators.simulation.gpu import kernels

__all__ = ["NEVER", "TILE", "Columns"]

TILE = 32  # of them, of a program
NEVER = 2**31 - 1
PIECES = {"float32": 2, "tf32": 1}  # numbers that stand for one in a product


class Columns:
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
        self.n_pieces = PIECES[setup.precision]
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
            PIECES=self.n_pieces,
            WEAK=self.weak,
            KEEP=path is not None,
        )
