"""Small cases that run at every commit, to notice when something becomes slower or wrong.

Found and run by asv, see benchmarks/README.md.
"""

import warnings

import numpy as np
import torch

from ssn_estimators import Circuit, SSNClassifier, simulate
from ssn_estimators.simulation import reference

STEP = 0.5  # ms
BURN_IN, DURATION = 20.0, 10.0


def stable_arrays(n_neurons, n_inputs, dtype):
    """Weights, dense noise factor and drive of a circuit that does not diverge."""
    rng = np.random.RandomState(0)
    signs = np.where(np.arange(n_neurons) < n_neurons // 2, 1.0, -2.0)
    weights = np.abs(rng.normal(scale=3 / n_neurons, size=(n_neurons, n_neurons))) * signs
    noise = rng.normal(scale=0.1 / np.sqrt(n_neurons), size=weights.shape)
    noise_factor = 0.5 * np.eye(n_neurons) + noise
    drive = rng.uniform(2, 8, size=(n_inputs, n_neurons))
    arrays = (torch.tensor(x, dtype=dtype) for x in (weights, noise_factor, drive))
    return [x.requires_grad_() for x in arrays]


def run(leaves, solver, n_trials, **options):
    weights, noise_factor, drive = leaves
    settings = {"duration": DURATION, "burn_in": BURN_IN, "dt": STEP, "random_state": 0}
    return simulate(
        Circuit(weights, len(weights) // 2, noise_factor),
        drive,
        n_trials=n_trials,
        solver=solver,
        covariance=False,
        rates=False,
        **(settings | options),
    )


def gradients(leaves, solver, n_trials):
    return torch.autograd.grad(run(leaves, solver, n_trials).mean.square().sum(), leaves)


class Time:
    """Of `simulate`; columns are inputs times trials."""

    params = (["euler", "heun", "ab2"], [20, 100], [100, 2500])
    param_names = ("solver", "n_neurons", "n_columns")

    def setup(self, solver, n_neurons, n_columns):
        self.n = round(n_columns**0.5)  # inputs, and trials of each
        self.leaves = stable_arrays(n_neurons, self.n, torch.float32)

    def time_forward(self, solver, n_neurons, n_columns):
        with torch.no_grad():
            run(self.leaves, solver, self.n)

    def time_forward_and_gradient(self, solver, n_neurons, n_columns):
        gradients(self.leaves, solver, self.n)


class Memory:
    """Of `simulate`, libraries included, for 100 cells and 2500 columns."""

    params = ["euler", "heun"]
    param_names = ("solver",)
    n_trials = 50

    def setup(self, solver):
        self.leaves = stable_arrays(100, 50, torch.float32)

    def peakmem_forward(self, solver):
        with torch.no_grad():
            run(self.leaves, solver, self.n_trials)

    def peakmem_forward_and_gradient(self, solver):
        gradients(self.leaves, solver, self.n_trials)


class Gradient:
    """Gradients against autograd through the readable loop, in float64."""

    params = (["euler", "heun", "ab2"], ["float32", "float64"])
    param_names = ("solver", "dtype")
    unit = "relative error"
    n_trials = 3

    def track_gradient_error(self, solver, dtype):
        leaves = stable_arrays(10, 4, getattr(torch, dtype))
        found = gradients(leaves, solver, self.n_trials)
        exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
        expected = torch.autograd.grad(self.reference(exact, leaves, solver), exact)
        return max(float((x - y).norm() / y.norm()) for x, y in zip(found, expected, strict=True))

    def reference(self, exact, leaves, solver):
        """The differentiated number, from the noise that `simulate` has drawn."""
        # a window that begins two steps earlier records what the window starts from
        with torch.no_grad():
            earlier = {"burn_in": BURN_IN - 2 * STEP, "duration": DURATION + 2 * STEP}
            early = run(leaves, solver, self.n_trials, record=("u", "eta"), **earlier)
        weights, noise_factor, drive = exact
        u, eta = (x.flatten(1, 2).double() for x in (early.u, early.eta))
        z = torch.linalg.solve(noise_factor.detach(), eta.mT).mT
        drive = drive.repeat_interleave(self.n_trials, 0)
        circuit = Circuit(weights, len(weights) // 2, noise_factor)
        slope = reference.velocity(circuit)(u[0], drive + eta[0]).detach()
        forcing = drive + z[1:] @ noise_factor.T
        path = [u for u, _ in reference.integrate(circuit, u[1], forcing, STEP, solver, slope)]
        mean = torch.stack(path).unflatten(1, (-1, self.n_trials)).mean((0, 2))
        return mean.square().sum()


class Training:
    """Growth to 20 + 5 cells and 30 iterations at that size."""

    timeout = 120

    def setup(self):
        warnings.simplefilter("ignore")
        rng = np.random.RandomState(0)
        self.X, self.y = rng.uniform(size=(512, 20)), rng.randint(4, size=512)

    def time_fit(self):
        SSNClassifier(growth_iter=5, max_iter=30, random_state=0).fit(self.X, self.y)
