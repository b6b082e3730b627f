"""The fast engine on CUDA devices: moments of many networks at once, and their gradient.

A network of up to 128 cells stays on chip: one launch of `kernels.forward` takes a tile of its
trials through all steps. Up to 1024 cells, blocks of weights pass through the chip in every
step; beyond, library products take over. The noise is made in place by counting, so that the
way back can make it again. The window's potentials are kept for the gradient, which is then a
sum of outer products over columns and time (`kernels.outer`).
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from ssn_estimators.simulation.gpu.cards import choose
from ssn_estimators.simulation.gpu.columns import NEVER, Columns
from ssn_estimators.simulation.gpu.library import CHUNK_ELEMENTS, Library, Products
from ssn_estimators.simulation.gpu.programs import Outer, Resident, Tiled

__all__ = ["moments", "noise"]


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
        products: scaled float16 where the range is known, TF32 in the adjoint. All sums are
        float32.
    left_out : bool Tensor of shape (n_networks, n_inputs, n_trials), default=None
        Trials that contribute nothing.
    engine : {"resident", "tiled", "library"}, default=None
        By default, the number of cells and the card decide.

    Returns
    -------
    mean : Tensor of shape (n_networks, n_inputs, n_neurons)
        Mean of the potentials at the end of the window's steps. Trials that diverged are left
        out; an input of which none remains has NaN.
    covariance : Tensor of shape (n_networks, n_inputs, n_neurons, n_neurons) or None
    rates : Tensor of shape (n_networks, n_inputs, n_neurons) or None
    diverged_at : int64 Tensor of shape (n_networks, n_inputs, n_trials)
        Number of steps done when some potential first exceeded 1000 mV or was not finite,
        -1 if none did.
    u_final, z_final : Tensors of shape (n_networks, n_inputs, n_trials, n_neurons), or None
        As :func:`ssn_estimators.simulation.cpu.moments` returns them.
    """
    inputs = (weights, noise_factor, drive)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    n = drive.shape[-1]
    more = -n % 4  # cells at rest, so that 16 bytes go at a time
    if more:
        inputs = (
            pad(weights, (0, more, 0, more)),
            pad(noise_factor, (0, more, 0, more)),
            pad(drive, (0, more)),
        )
        more_cells = {"tau": np.append(np.broadcast_to(setup.tau, n), more * [np.inf])}
        for name in ("k", "gamma"):
            if torch.is_tensor(getattr(setup, name)):
                more_cells[name] = pad(getattr(setup, name), (0, more), value=1.0)
        if setup.initial is not None:
            more_cells["initial"] = tuple(pad(x, (0, more)) for x in setup.initial)
        setup = replace(setup, **more_cells)
    mean, covariance, rates, diverged_at, *final = _Moments.apply(
        *inputs, setup, left_out, engine, keep
    )
    if more:
        mean, rates, *final = (x if x is None else x[..., :n] for x in (mean, rates, *final))
        covariance = None if covariance is None else covariance[..., :n, :n]
    return mean, covariance, rates, diverged_at, *final


def noise(setup, n_inputs, n_neurons, device):
    """The noise of every step, of shape (n_steps + 1, n_networks, n_inputs, n_trials, n_neurons).

    The kernels make the same numbers in place; this is for tests and for small circuits.
    """
    columns = Columns(setup, n_inputs, -(-n_neurons // 4) * 4, device)
    n_steps = setup.n_burn + setup.n_window
    path = torch.empty((n_steps + 1, *columns.shape), device=device)
    columns.noise(path.new_zeros(columns.shape), 0, n_steps, path)
    return path.unflatten(2, (n_inputs, setup.n_trials))[..., :n_neurons]


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, noise_factor, drive, setup, left_out, engine, keep):
        ctx.set_materialize_grads(False)
        with torch.cuda.device_of(drive):
            run = _Run(weights, noise_factor, drive, setup, engine, keep)
            *moments, diverged_at = run.forward(left_out)
            final = run.final(diverged_at) if setup.final else ()
        if keep:
            ctx.run = run
        ctx.mark_non_differentiable(diverged_at, *final)
        return *moments, diverged_at, *(final or (None, None))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_mean, grad_covariance, grad_rates, *_):
        if ctx.run is None:
            raise RuntimeError("the gradient of a simulation can be taken only once")
        # the path is large, and buffers of a graph that was captured are used up
        run, ctx.run = ctx.run, None
        with torch.cuda.device_of(run.drive):
            gradients = run.backward(grad_mean, grad_covariance, grad_rates)
        return *gradients, None, None, None, None


class _Run:
    """One simulation: the engine's stretches of time, the moments, and the way back."""

    def __init__(self, weights, noise_factor, drive, setup, engine, keep):
        self.setup, self.keep = setup, keep
        self.drive, self.moving = drive.contiguous(), drive.ndim == 4
        self.columns = Columns(setup, drive.shape[-2], drive.shape[-1], drive.device)
        self.choice = choose(drive.shape[-1], setup, drive.device, engine)
        matrices = weights.contiguous(), noise_factor.contiguous()
        self.engine = ENGINES[self.choice.engine](self, *matrices, self.choice)
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
        self.finite = everyone if left_out is None else ~left_out[..., None]
        chosen = self.finite
        self.simulate()
        diverged_at = engine.diverged_at.view(shape)
        self.finite = chosen & (diverged_at == NEVER)
        streaming = setup.covariance and not self.keep
        if streaming and (self.finite != chosen).any():
            self.simulate()  # a column was in the sums before it was known to diverge
        self.n_finite = self.finite.sum(2)  # of shape (n_networks, n_inputs, 1)
        count = self.n_finite * setup.n_window
        self.mean = self.finite_sum(engine.sums) / count
        covariance = rates = None
        if self.keep:
            # a column at rest passes no gradient, and none that is infinite
            for path in (self.path, self.predictions):
                if path is not None and not self.finite.all():
                    path.masked_fill_(~self.finite.flatten(1, 2), 0.0)
        if setup.covariance:
            if self.keep:
                self.centre = self.finite_sum(self.path[0]) / self.n_finite
                products = [self.products(self.path[1 + i : 1 + j]) for i, j in self.chunks]
                self.total = sum(products)
            offset = self.mean - self.centre
            covariance = self.total / count[..., None] - offset[..., None] * offset[..., None, :]
            covariance.diagonal(dim1=-2, dim2=-1).clamp_(min=0)  # rounding
        if setup.rates:
            rates = setup.k * self.finite_sum(engine.rate_sums) / count
        diverged_at = torch.where((diverged_at == NEVER) | ~chosen, -1, diverged_at.to(torch.int64))
        # a copy: an output kept here would keep itself alive
        return self.mean.clone(), covariance, rates, diverged_at[..., 0]

    def simulate(self):
        """Burn-in and window; the sums and, if wanted, the path are left behind."""
        setup, engine = self.setup, self.engine
        length = setup.n_window if self.keep else self.chunks[0][1]
        # entry 0 of the path is the state before the window
        self.path = self.path_buffer(length + 1) if self.with_path else None
        heun = self.keep and setup.solver == "heun"
        self.predictions = self.path_buffer(length) if heun else None
        engine.begin()
        if setup.initial is not None:
            engine.begin_at(*(x.flatten(1, 2).to(self.drive) for x in setup.initial))
        engine.forward(0, setup.n_burn)
        self.total = 0.0
        if self.keep:
            self.path[0], self.z = engine.u, engine.z.clone()
        if setup.covariance:
            self.centre = self.finite_sum(engine.u) / self.finite.sum(2)
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

    def final(self, diverged_at):
        """Potentials and noise after the last step; NaN where a trial diverged."""
        return [
            torch.where((diverged_at < 0)[..., None], self.by_input(x), torch.nan)
            for x in (self.engine.u, self.engine.z)
        ]

    def finite_sum(self, x):
        """Sum over the trials that are kept, of shape (n_networks, n_inputs, n_neurons)."""
        return torch.where(self.finite, self.by_input(x), 0.0).sum(2)

    def deviations(self, path, centre):
        """Of kept trials, of shape (n_networks, n_inputs, steps * n_trials, n_neurons)."""
        path = self.by_input(path).permute(1, 2, 0, 3, 4)
        samples = torch.empty(path.shape, device=path.device)
        torch.sub(path, centre[:, :, None, None], out=samples)
        if not self.finite.all():
            samples.masked_fill_(~self.finite[:, :, None], 0.0)
        return samples.flatten(2, 3)

    def products(self, path):
        samples = self.deviations(path, self.centre)
        return samples.mT @ samples

    def backward(self, grad_mean, grad_covariance, grad_rates):
        setup = self.setup
        count = (self.n_finite * setup.n_window).clamp_min(1)

        def of_sample(grad):
            """Gradient of one sample, zero for inputs without trials, whose moments are NaN."""
            if grad is None:
                return torch.zeros_like(self.mean)
            # kernels get an address, and know no strides but those of a whole
            return torch.where(self.n_finite > 0, grad / count, 0.0).contiguous()

        sources = {"mean": of_sample(grad_mean), "rates": None}
        if grad_rates is not None:
            sources["rates"] = (setup.k * of_sample(grad_rates)).contiguous()
        if grad_covariance is not None:
            both = (grad_covariance + grad_covariance.mT) / count[..., None]
            both = torch.where(self.n_finite[..., None] > 0, both, 0.0)
            centre = torch.where(self.n_finite > 0, self.mean, 0.0)
        length = max(stop - start for start, stop in self.chunks)
        heun = setup.solver == "heun"
        x, x_ahead = self.path_buffer(length), self.path_buffer(length) if heun else None
        grad_drive = torch.zeros_like(self.drive) if self.moving else None
        self.engine.begin_backward()
        outer = Outer(self) if self.choice.outer else Products(self)
        for start, stop in reversed(self.chunks):
            sources["path"] = None
            if grad_covariance is not None:
                samples = self.deviations(self.path[1 + start : 1 + stop], centre) @ both
                samples = samples.unflatten(2, (stop - start, -1)).permute(2, 0, 1, 3, 4)
                sources["path"] = samples.flatten(2, 3).contiguous()
            self.engine.backward(start, stop, sources, x, x_ahead)
            outer.add(start, stop, x, x_ahead)
            for of_forcing, ahead in ((x, 0), (x_ahead, 1)) if self.moving else ():
                if of_forcing is None:
                    continue
                of_drive = self.by_input(of_forcing[: stop - start])
                steps = torch.arange(start, stop, device=x.device) + setup.n_burn + ahead
                steps.clamp_max_(self.drive.shape[1] - 1)
                grad_drive.index_add_(1, steps, of_drive.sum(3).transpose(0, 1))
        if not self.moving:
            grad_drive = self.by_input(self.engine.x_sums).sum(2)
        grad_weights, grad_noise = outer.result()
        return grad_weights, grad_noise, grad_drive


ENGINES = {"resident": Resident, "tiled": Tiled, "library": Library}
