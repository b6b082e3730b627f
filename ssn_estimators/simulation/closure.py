"""Equations of the stationary moments, and the linear algebra that solves them."""

import math

import torch

from ssn_estimators.simulation.gaussian import rate_moments
from ssn_estimators.simulation.setup import DIVERGENCE_THRESHOLD

__all__ = ["Anderson", "Lyapunov", "System", "mean_activity"]

START_ACCURACY = 0.05  # mV per step of the start
SETTLING = 8  # membrane time constants of the start
TINY_VARIANCE = 1e-16  # mV**2; a cell with less counts as having this


def mean_activity(mean, variance, k, gamma, closure):
    """Mean rates (Hz) and gains (Hz / mV) under a closure, tensors of the shape of `mean`."""
    if closure == "gaussian":
        return rate_moments(mean, variance.clamp_min(TINY_VARIANCE), k, gamma)
    active = mean > 0
    # the inner `where` keeps powers of 0 out of the backward pass, where they give NaN
    u = torch.where(active, mean, 1.0)
    return tuple(torch.where(active, x, 0.0) for x in (k * u**gamma, k * gamma * u ** (gamma - 1)))


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
        self.constants = (circuit.k, circuit.gamma, closure)
        self.closure, self.tau_eta = closure, circuit.tau_eta
        self.rate = torch.as_tensor(1 / circuit.tau).to(weights)
        self.eye = torch.eye(len(weights)).to(weights)

    def activity(self, mean, variance):
        return mean_activity(mean, variance, *self.constants)

    def recurrence(self, gain):
        """W diag(gain) - I = T J, of shape (n_inputs, n_neurons, n_neurons)."""
        return self.weights * gain[:, None] - self.eye

    def start(self, drive):
        """X and Sigma of cells without synapses, and the mean some time after rest."""
        rate, duration = self.rate, SETTLING / float(self.rate.min())
        cross = (rate * self.tau_eta / (1 + rate * self.tau_eta))[:, None] * self.noise
        covariance = (cross * rate + (cross * rate).mT) / (rate[:, None] + rate)
        variance = covariance.diagonal()

        def slope(u):
            return rate * (drive - u + self.rough_rates(u, variance) @ self.weights.mT)

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

    def rough_rates(self, mean, variance):
        """Mean rates, for a real exponent interpolated between the integers around it."""
        k, gamma, closure = self.constants
        low, part = math.floor(gamma), gamma % 1
        rates = mean_activity(mean, variance, k, low, closure)[0]
        if part:
            above = mean_activity(mean, variance, k, low + 1, closure)[0]
            rates = rates.clamp_min(0) ** (1 - part) * above.clamp_min(0) ** part
        return rates

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


class Lyapunov:
    r"""Solver of A P + P A^T + Q = 0 by doubling, where A = J - pace / 2.

    P = C P C^T + 2 s M Q M^T with M = (s - A)^{-1} and the Cayley transform C = 2 s M - I.
    With s = 1 / tau_eta + pace / 2, M is also what X needs, and near the best choice.
    """

    def __init__(self, system, gain, pace, accuracy=1e-16):
        pace = pace[..., None]
        shift = 1 / system.tau_eta + pace / 2
        jacobian = system.rate[:, None] * system.recurrence(gain)
        inverse = torch.linalg.inv_ex((shift + pace / 2) * system.eye - jacobian).inverse
        power = (2 * shift * inverse - system.eye).to(system.dtype)
        self.shift, self.inverse = shift.to(system.dtype), inverse.to(system.dtype)
        self.powers = []
        for _ in range(60):
            size = torch.linalg.matrix_norm(power)
            self.stable = size**2 < accuracy
            if (self.stable | ~(size < 1e100)).all():  # powers of an unstable one overflow soon
                break
            # each input stops for itself, so that its result does not depend on the others
            power = power.masked_fill(self.stable[:, None, None], 0.0)
            self.powers.append(power)
            power = power @ power

    def solve(self, source):
        return self._doubled(self.inverse, source, self.powers)

    def solve_adjoint(self, source):
        """Solution of A^T P + P A + Q = 0."""
        return self._doubled(self.inverse.mT, source, [power.mT for power in self.powers])

    def _doubled(self, inverse, source, powers):
        solution = 2 * self.shift * (inverse @ source.to(inverse) @ inverse.mT)
        for power in powers:
            solution = torch.baddbmm(solution, power @ solution, power.mT)
        return solution


class Anderson:
    """Anderson acceleration of the fixed-point iterations z -> g(z) in the rows of a batch.

    For a linear g and a history that is long enough, it is GMRES.
    """

    def __init__(self, history):
        self.history, self.columns, self.last = history, [], None

    def __call__(self, result, residual, trusted=None):
        """Next iterates, from g(z) and g(z) - z.

        Rows that are not `trusted`, (n_rows, 1), since they did not iterate the same g as in
        the call before, forget their history and go on from g(z).
        """
        if self.last is not None:
            column = (result - self.last[0], residual - self.last[1])
            self.columns = [*self.columns, column][-self.history :]
        if trusted is not None:
            self.columns = [tuple(x.masked_fill(~trusted, 0.0) for x in c) for c in self.columns]
        self.last = (result, residual)
        if not self.columns:
            return result.clone()
        results, residuals = (torch.stack(x, 2) for x in zip(*self.columns, strict=True))
        size = residuals.norm(dim=1, keepdim=True)
        scale = torch.where(size > 0, 1 / size, 0.0)
        residuals, results = residuals * scale, results * scale
        # the small ridge only decides where columns are linearly dependent
        gram = residuals.mT @ residuals + 1e-14 * torch.eye(len(self.columns)).to(residuals)
        mixture = torch.linalg.solve_ex(gram, residuals.mT @ residual[..., None]).result
        return result - (results @ mixture)[..., 0]

    def keep(self, rows):
        """Go on with these rows only."""
        self.columns = [tuple(x[rows] for x in c) for c in self.columns]
        self.last = tuple(x[rows] for x in self.last)
