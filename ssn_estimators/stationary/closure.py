"""Equations of the stationary moments."""

import numpy as np
import torch

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.rate_functions.gaussian import rate_moments
from ssn_estimators.stationary.solvers import Lyapunov

__all__ = ["System", "mean_activity"]

START_ACCURACY = 0.05  # mV per step of the start
SETTLING = 8  # membrane time constants of the start
FAR, N_NODES = 8.0, 129  # standard deviations of the quadrature, and its nodes
TINY_VARIANCE = 1e-16  # mV**2; a cell with less counts as having this


def mean_activity(mean, variance, circuit, closure):
    """Mean rates (Hz) and gains (Hz / mV) under a closure, tensors of the shape of `mean`."""
    if closure == "gaussian":
        variance = variance.clamp_min(TINY_VARIANCE)
        if circuit.rate_function is not None:
            return _by_quadrature(mean, variance, circuit)
        return rate_moments(mean, variance, circuit.of_cells("k", mean), circuit.gamma)
    return circuit.rates(mean), circuit.gain(mean)


def _by_quadrature(mean, variance, circuit):
    """By the trapezoidal rule, which is exact to rounding for analytic functions."""
    nodes = torch.linspace(-FAR, FAR, N_NODES).to(mean)
    weights = torch.exp(-(nodes**2) / 2)
    u = mean + nodes.view(-1, *[1] * mean.ndim) * variance.sqrt()
    parts = circuit.rates(u), circuit.gain(u)
    return tuple(torch.tensordot(weights / weights.sum(), x, 1) for x in parts)


class System:
    """The equations of the moments of a circuit, for batches of inputs.

    Parameters
    ----------
    circuit : Circuit
        For its constants.
    weights, noise : Tensors of shape (n_neurons, n_neurons), float64
        W in mV s and Sigma_eta in mV**2.
    closure : {"gaussian", "linear"}
    """

    def __init__(self, circuit, weights, noise, closure):
        self.weights, self.noise = weights.detach().clone(), noise.detach().clone()
        # of the covariances; the iterations of "gaussian" go through them, and must converge
        self.dtype = circuit.weights.dtype if closure == "linear" else weights.dtype
        self.circuit, self.closure, self.tau_eta = circuit, closure, circuit.tau_eta
        self.rate = torch.as_tensor(1 / circuit.tau).to(weights)
        self.eye = torch.eye(len(weights)).to(weights)

    def activity(self, mean, variance):
        return mean_activity(mean, variance, self.circuit, self.closure)

    def recurrence(self, gain):
        """W diag(gain) - I = T J, of shape (n_inputs, n_neurons, n_neurons)."""
        return self.weights * gain[:, None] - self.eye

    def start(self, drive):
        """X and Sigma of cells without synapses, and the mean some time after rest."""
        rate, duration = self.rate, SETTLING / float(self.rate.min())
        cross = (rate * self.tau_eta / (1 + rate * self.tau_eta))[:, None] * self.noise
        covariance = (cross * rate + (cross * rate).mT) / (rate[:, None] + rate)
        rates_of = self.rough_rates(covariance.diagonal())

        def slope(u):
            return rate * (drive - u + rates_of(u) @ self.weights.mT)

        # Heun with a step length for each input, by the error of the Euler step
        mean, now = torch.zeros_like(drive), slope(torch.zeros_like(drive))
        step, time = drive.new_full((len(drive), 1), 0.5), drive.new_zeros((len(drive), 1))
        arrived = torch.zeros_like(time, dtype=torch.bool)
        for _ in range(2000):
            correction = step / 2 * (slope(mean + step * now) - now)
            error = torch.nan_to_num(correction.abs().amax(1, keepdim=True), nan=torch.inf)
            accepted = (error <= START_ACCURACY) & ~arrived
            mean = torch.where(accepted, mean + step * now + correction, mean)
            time = time + torch.where(accepted, step, 0.0)
            step = step * (0.8 * torch.sqrt(START_ACCURACY / error)).clamp(0.2, 2.0)
            arrived = (time >= duration) | (mean.abs().amax(1, keepdim=True) > DIVERGENCE_THRESHOLD)
            if arrived.all():
                break
            now = slope(mean)
        shape = (len(drive), -1, -1)
        return mean, cross.expand(shape), covariance.expand(shape)

    def rough_rates(self, variance):
        """Mean rates as a function of means, a real exponent between the integers around it."""
        gamma = self.circuit.gamma
        if gamma is None:
            return self._rates_of(self.circuit, variance)
        low, part = np.floor(gamma), gamma % 1
        # made once: it is called hundreds of times
        below = self._rates_of(self.circuit.with_checked({"gamma": low}), variance)
        if not np.any(part):
            return below
        above = self._rates_of(self.circuit.with_checked({"gamma": low + 1}), variance)
        part = torch.as_tensor(part).to(variance)

        def between(mean):
            return below(mean).clamp_min(0) ** (1 - part) * above(mean).clamp_min(0) ** part

        return between

    def _rates_of(self, circuit, variance):
        if self.closure == "linear":
            return circuit.rates
        return lambda mean: mean_activity(mean, variance, circuit, self.closure)[0]

    def mean_step(self, drive, mean, variance, pace):
        """Newton step of the mean (pace 0), or implicit Euler step of length 1 / pace."""
        rates, gain = self.activity(mean, variance)
        residual = drive - mean + rates @ self.weights.mT
        matrix = torch.diag_embed(pace / self.rate) - self.recurrence(gain)
        return mean + torch.linalg.solve_ex(matrix, residual).result

    def covariances(self, mean, variance, pace, cross, covariance, accuracy=1e-16):
        """Implicit Euler step of X and Sigma, and whether it is stable; exact at pace 0."""
        lyapunov = Lyapunov(self, self.activity(mean, variance)[1], pace, accuracy)
        pace, rate = pace[..., None], self.rate
        cross = lyapunov.inverse @ (rate[:, None] * self.noise + pace * cross).to(self.dtype)
        flow = cross * rate
        return cross, lyapunov.solve(flow + flow.mT + pace * covariance), lyapunov.stable
