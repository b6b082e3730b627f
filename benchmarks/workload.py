"""The work that all variants of engine.py do: one circuit, its drive, a number of steps."""

import math
from dataclasses import dataclass

import numpy as np

DT = 0.2  # ms, the published step
K, GAMMA = 0.3, 2
TAU_E, TAU_I, TAU_ETA = 20.0, 10.0, 20.0
DECAY = math.exp(-DT / TAU_ETA)
KICK = math.sqrt(1 - DECAY**2)


@dataclass(frozen=True)
class Workload:
    """`n_networks` circuits of `n_neurons` cells, each with `columns` trials of its inputs."""

    n_neurons: int = 100
    columns: int = 10_000
    burn: int = 2000
    window: int = 500
    solver: str = "euler"
    n_networks: int = 1

    @property
    def n_inputs(self):
        """Columns are inputs times trials, as near to a square as can be."""
        root = math.isqrt(self.columns)
        return next(i for i in range(root, 0, -1) if self.columns % i == 0)

    @property
    def n_trials(self):
        return self.columns // self.n_inputs

    @property
    def n_excitatory(self):
        return self.n_neurons // 2

    @property
    def evaluations(self):
        """Evaluations of the recurrent input in a step."""
        return 2 if self.solver == "heun" else 1

    def products(self, gradient):
        """How many products of a matrix with the columns' potentials the work needs, by kind.

        "apply": W r and n xi forwards, W^T g backwards; "outer": the gradients of W and of n.
        """
        steps, evaluations = self.burn + self.window, self.evaluations
        apply, outer = steps * (evaluations + 1), 0
        if gradient:
            apply += self.window * evaluations
            outer += self.window * (evaluations + 1)
        return {"apply": apply, "outer": outer}

    @property
    def gflop(self):
        """Of the products of one forward and backward run, in 1e9 operations."""
        each = 2 * self.n_networks * self.columns * self.n_neurons**2
        return each * sum(self.products(gradient=True).values()) / 1e9

    def arrays(self):
        """Weights, noise factor, drive and readout, in float32.

        Where there are several networks, theirs are along the first axis. Recurrent input is
        of the same size whatever the number of cells, and inhibition outweighs excitation, so
        that no trial diverges. The noise factor is dense and far from singular. The readout
        is the random linear functional of the mean potentials that is differentiated.
        """
        rng = np.random.RandomState(0)
        n, many = self.n_neurons, (self.n_networks,) if self.n_networks > 1 else ()
        signs = np.where(np.arange(n) < self.n_excitatory, 1.0, -2.0)
        weights = np.abs(rng.normal(scale=3 / n, size=(*many, n, n))) * signs
        noise_factor = 0.5 * np.eye(n) + rng.normal(scale=0.1 / np.sqrt(n), size=(*many, n, n))
        drive = rng.uniform(2, 8, size=(*many, self.n_inputs, n))
        readout = rng.normal(size=drive.shape)
        return [x.astype(np.float32) for x in (weights, noise_factor, drive, readout)]
