"""Networks of any size: products of a library, and a CUDA graph of many steps.

Products have the precision that torch is set to: its setting holds for all threads of a process,
and so is not ours to change.
"""

import math

import numpy as np
import torch

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.simulation.gpu.columns import NEVER
from ssn_estimators.simulation.powers import power, slope_of_power
from ssn_estimators.simulation.schemes import COEFFICIENTS

__all__ = ["CHUNK_ELEMENTS", "Library", "Products"]

CHUNK_ELEMENTS = 2**28  # of a buffer over time: 1 GiB
GRAPH_STEPS = 32  # of a CUDA graph
AB2_NOW, AB2_BEFORE = COEFFICIENTS["ab2"]


class Library:
    """Networks of any size: library products, step by step, replayed as a CUDA graph.

    Time passes in stretches of `n_steps` through buffers that stay where they are.
    """

    def __init__(self, run, weights, noise_factor, choice):
        self.run, setup, columns = run, run.setup, run.columns
        self.weights, self.noise_factor = setup.k * weights, noise_factor
        tau = torch.tensor(np.asarray(setup.tau), dtype=torch.float32, device=columns.device)
        self.relative_step, self.solver = setup.dt / tau, setup.solver
        self.n_steps = max(1, min(GRAPH_STEPS, CHUNK_ELEMENTS // math.prod(columns.shape)))
        self.u, self.z, self.slope = run.buffer(), run.buffer(), run.buffer()
        self.sums, self.rate_sums = run.buffer(), run.buffer()
        self.forcing, self.path = run.buffer(self.n_steps + 1), run.buffer(self.n_steps + 1)
        self.predictions = run.buffer(self.n_steps) if self.solver == "heun" else None
        self.stretch, self.stretch_back = (
            _Replayed(steps, self.u.is_cuda) for steps in (self.steps, self.steps_back)
        )

    def begin(self):
        for x in (self.u, self.slope, self.sums, self.rate_sums):
            x.zero_()
        shape = self.run.columns.shape[:2]
        self.diverged_at = torch.full(shape, NEVER, dtype=torch.int32, device=self.u.device)
        self.run.columns.noise(self.z, 0, 0)

    def begin_at(self, u, z):
        """Potentials and noise other than at rest."""
        self.u.copy_(u)
        self.z.copy_(z)

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
            self.diverged_at = torch.minimum(self.diverged_at, times.amin(0))
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
        return power(u, self.run.setup.gamma)

    def gains(self, u):
        gamma = self.run.setup.gamma
        return gamma * slope_of_power(u, gamma)

    def change(self, u, forcing):
        """du/dt times dt."""
        return (
            torch.baddbmm(forcing, self.rates(u), self.weights.mT).sub_(u).mul_(self.relative_step)
        )

    def steps(self, n_steps):
        for t in range(n_steps):
            now = self.change(self.path[t], self.forcing[t])
            if self.solver == "heun":
                torch.add(self.path[t], now, out=self.predictions[t])
                now = (now + self.change(self.predictions[t], self.forcing[t + 1])) / 2
            elif self.solver == "ab2":
                before, now = now, AB2_NOW * now + AB2_BEFORE * self.slope
                self.slope.copy_(before)
            torch.add(self.path[t], now, out=self.path[t + 1])

    def begin_backward(self):
        run, n = self.run, self.n_steps
        self.grad, self.carried, self.x_sums = run.buffer(), run.buffer(), run.buffer()
        self.largest = run.drive.new_zeros((run.columns.shape[0], 1))  # of the last x
        self.source, self.x = run.buffer(n), run.buffer(n)
        self.x_ahead = run.buffer(n) if self.solver == "heun" else None

    def backward(self, start, stop, sources, x, x_ahead):
        run, mean, finite = self.run, sources["mean"][:, :, None], self.run.finite
        self.largest.zero_()
        for end in range(stop, start, -self.n_steps):
            at = max(start, end - self.n_steps)
            size, here = end - at, slice(at - start, end - start)
            self.path[: size + 1] = run.path[at : end + 1]
            source = run.by_input(self.source[:size])
            source.copy_(finite * mean)
            if sources["rates"] is not None:
                gains = self.gains(run.by_input(self.path[1 : size + 1]))
                source += finite * sources["rates"][:, :, None] * gains
            if sources["path"] is not None:
                self.source[:size] += sources["path"][here]
            if run.predictions is not None:
                self.predictions[:size] = run.predictions[at:end]
            cold = at == 0 and run.setup.n_burn == 0
            self.stretch_back(size, cold, replay=size == self.n_steps and not cold)
            for of_forcing, whole in ((self.x, x), (self.x_ahead, x_ahead)):
                if whole is not None:
                    whole[here] = of_forcing[:size]
                    self.x_sums += of_forcing[:size].sum(0)
                    largest = torch.linalg.vector_norm(of_forcing[:size], torch.inf, (0, 2, 3))
                    self.largest = torch.maximum(self.largest, largest[:, None])

    def steps_back(self, n_steps, cold=False):
        for t in reversed(range(n_steps)):
            self.grad.add_(self.source[t])
            if self.solver == "heun":
                torch.mul(self.grad, self.relative_step / 2, out=self.x_ahead[t])
                of_predicted = self.through(self.x_ahead[t], self.predictions[t])
                of_slope = self.grad / 2 + of_predicted
                self.grad.add_(of_predicted)
            elif self.solver == "ab2":
                of_slope = AB2_NOW * self.grad + self.carried
                torch.mul(self.grad, AB2_BEFORE, out=self.carried)
                if cold and t == 0:
                    of_slope += self.carried
            else:
                of_slope = self.grad
            torch.mul(of_slope, self.relative_step, out=self.x[t])
            self.grad.add_(self.through(self.x[t], self.path[t]))

    def through(self, x, u):
        """Gradient of u from that of the forcing, of dt du/dt = (forcing + W r(u) - u) dt / tau."""
        return (x @ self.weights).mul_(self.gains(u)).sub_(x)


class Products:
    """`programs.Outer` by products of a library, from the noise itself."""

    def __init__(self, run):
        self.run = run
        n_networks, _, n = run.columns.shape
        self.grad_weights = run.drive.new_zeros((n_networks, n, n))
        self.grad_noise = torch.zeros_like(self.grad_weights)
        self.starts, z = {}, run.z.clone()
        for start, stop in run.chunks:
            self.starts[start] = z.clone()
            run.columns.noise(z, run.setup.n_burn + start, run.setup.n_burn + stop)

    def add(self, start, stop, x, x_ahead):
        run, n_burn, size = self.run, self.run.setup.n_burn, stop - start
        z = run.path_buffer(size + 1)
        run.columns.noise(self.starts[start].clone(), n_burn + start, n_burn + stop, z)
        pairs = [(x, run.path[start:stop], z[:-1])]
        if x_ahead is not None:
            pairs.append((x_ahead, run.predictions[start:stop], z[1:]))
        for of_forcing, u, noise in pairs:
            turned = _by_network(of_forcing[:size]).mT
            self.grad_weights += turned @ _by_network(power(u, run.setup.gamma))
            self.grad_noise += turned @ _by_network(noise)

    def result(self):
        return self.run.setup.k * self.grad_weights, self.grad_noise


def _by_network(x):
    """All times and columns of a network side by side: (n_networks, steps * columns, cells)."""
    return x.transpose(0, 1).flatten(1, 2)


class _Replayed:
    """A function that works on fixed buffers; on CUDA, a graph of it runs from its second time."""

    def __init__(self, function, on_cuda):
        self.function, self.on_cuda, self.graph, self.warm = function, on_cuda, None, False

    def __call__(self, *arguments, replay):
        if not (replay and self.warm and self.on_cuda):
            self.warm |= replay
            self.function(*arguments)
            return
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            # not by `torch.cuda.graph`, which empties the allocator's cache
            now, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(now)
            with torch.cuda.stream(aside):
                self.graph.capture_begin(capture_error_mode="thread_local")
                self.function(*arguments)
                self.graph.capture_end()
            now.wait_stream(aside)
        self.graph.replay()
