"""Gradients of the stationary moments."""

import torch

from ssn_estimators.stationary.solvers import Anderson, Lyapunov

__all__ = ["Adjoint"]


class Adjoint:
    """Gradient by the implicit function theorem: the linearised equations, transposed."""

    def __init__(self, system, mean, covariance, gradients):
        self.system, self.covariance = system, covariance
        self.to_mean, to_covariance, self.to_rates = gradients
        self.to_covariance = (to_covariance + to_covariance.mT) / 2
        with torch.enable_grad():
            mean = mean.detach().requires_grad_()
            variance = covariance.diagonal(dim1=1, dim2=2).detach().requires_grad_()
            rates, gain = system.activity(mean, variance)
            self.gain_by_mean, self.gain_by_variance = torch.autograd.grad(
                gain.sum(), (mean, variance), materialize_grads=True
            )
        self.rates, self.gain = rates.detach(), gain.detach()
        # E[r] obeys the heat equation in (mean, variance)
        self.rates_by_variance = self.gain_by_mean / 2 if system.closure == "gaussian" else 0.0
        self.lyapunov = Lyapunov(system, self.gain, mean.new_zeros(len(mean), 1))
        source = (system.rate[:, None] * system.noise).to(system.dtype)
        self.cross = self.lyapunov.inverse @ source
        self.factors = torch.linalg.lu_factor(-system.recurrence(self.gain))

    def through(self, to_variance):
        """Gradient of the variances that set the rates, from one of the resulting variances."""
        rate, weights = self.system.rate, self.system.weights
        source = self.to_covariance + torch.diag_embed(to_variance)
        sensitivity = self.lyapunov.solve_adjoint(source)
        to_cross = self.lyapunov.inverse.mT @ (2 * sensitivity * rate).to(sensitivity)
        to_jacobian = 2 * sensitivity @ self.covariance + to_cross @ self.cross.mT
        to_recurrence = rate[:, None] * to_jacobian
        to_gain = (to_recurrence * weights).sum(1)
        to_mean = self.to_mean + self.gain * self.to_rates + self.gain_by_mean * to_gain
        to_mean = torch.linalg.lu_solve(*self.factors, to_mean[..., None], adjoint=True)[..., 0]
        to_rates = to_mean @ weights + self.to_rates
        to_variance = self.rates_by_variance * to_rates + self.gain_by_variance * to_gain
        return to_variance, to_recurrence, to_cross, to_mean

    def solve(self, tol=1e-11, max_iter=100):
        """Gradients of the weights, the noise covariance and the drive."""
        to_variance, accelerate = torch.zeros_like(self.rates), Anderson(history=20)
        for _ in range(max_iter):
            result, to_recurrence, to_cross, to_mean = self.through(to_variance)
            residual = result - to_variance
            solved = residual.abs().amax(1) <= tol * result.abs().amax(1)
            if solved.all():
                break
            to_variance = accelerate(result, residual)
        # rather no gradient than a wrong one
        to_mean = to_mean.masked_fill(~solved[:, None], torch.nan)
        to_weights = (to_recurrence * self.gain[:, None]).sum(0) + to_mean.mT @ self.rates
        return to_weights, (self.system.rate[:, None] * to_cross).sum(0), to_mean
