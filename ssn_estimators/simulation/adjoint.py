"""The steps of `reference.py` without an autograd tape: in place forwards, adjoint backwards.

The window keeps the potentials (and Heun's predictions) only; rates and gains are computed
again on the way back, and the gradient of the weights is one product over the whole window.
"""

import torch
from torch.autograd.function import once_differentiable

__all__ = ["integrate"]

# Slopes of this step and of the step before in a step of a linear multi-step scheme
MULTISTEP = {"euler": (1.0, 0.0), "ab2": (1.5, -0.5)}


def integrate(circuit, u, forcing, dt, solver, slope=None):
    """Potentials at the end of every step, as `reference.integrate`, but all at once.

    Parameters
    ----------
    circuit : Circuit
        Of torch tensors.
    u : Tensor of shape (n_columns, n_neurons)
        Potentials at the start, in mV; a constant for the gradient.
    forcing : Tensor of shape (n_steps + 1, n_columns, n_neurons)
        f(h) + eta at the start of every step and at the end of the last.
    dt, solver, slope
        As there.

    Returns
    -------
    path : Tensor of shape (n_steps, n_columns, n_neurons)
    slope : Tensor of shape (n_columns, n_neurons)
        Slope at the start of the last step.
    """
    rate = torch.as_tensor(1 / circuit.tau, dtype=forcing.dtype, device=forcing.device)
    constants = (rate, circuit.k, circuit.gamma, dt, solver)
    return _Window.apply(circuit.weights, forcing, u, slope, constants)


class _Window(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, forcing, u, slope, constants):
        rate, k, gamma, dt, solver = constants
        transposed = k * weights.T
        n_steps = len(forcing) - 1
        path = forcing.new_empty((n_steps, *u.shape))
        predictions = torch.empty_like(path) if solver == "heun" else None

        def du_dt(u, forcing):
            return torch.addmm(forcing, torch.relu(u).pow_(gamma), transposed).sub_(u).mul_(rate)

        start, cold = u, slope is None
        for t in range(n_steps):
            previous, slope = slope, du_dt(u, forcing[t])
            if solver == "heun":
                predicted = torch.add(u, slope, alpha=dt, out=predictions[t])
                total = du_dt(predicted, forcing[t + 1]).add_(slope)
                u = torch.add(u, total, alpha=dt / 2, out=path[t])
            else:
                now, before = MULTISTEP[solver]
                u = torch.add(u, slope, alpha=now * dt, out=path[t])
                if before:
                    u.add_(slope if previous is None else previous, alpha=before * dt)
        ctx.save_for_backward(weights, start, path, predictions)
        ctx.constants, ctx.cold = constants, cold
        ctx.set_materialize_grads(False)
        return path, slope

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_path, grad_slope_after):
        weights, start, path, predictions = ctx.saved_tensors
        rate, k, gamma, dt, solver = ctx.constants
        states = torch.cat([start[None], path[:-1]])
        scale, scaled = rate * dt, (k * gamma) * weights
        n_steps = len(path)
        # dL/d(forcing) of each evaluation of the right-hand side: at the states, and for
        # Heun at the predictions, whose forcing is that of the next step
        at_states = torch.empty_like(path)
        at_predictions = torch.empty_like(path) if solver == "heun" else None

        def through_velocity(x, u):
            """dL/du from x = dL/d(forcing), of du/dt = (forcing + W r(u) - u) / tau."""
            gain = torch.relu(u).pow_(gamma - 1) if gamma > 1 else u > 0
            return (x @ scaled).mul_(gain).sub_(x)

        grad_u = torch.zeros_like(start)
        # what AB2's next step adds to the gradient of a slope
        carried = None if grad_slope_after is None else grad_slope_after / dt
        for t in reversed(range(n_steps)):
            grad_next = grad_u if grad_path is None else grad_u + grad_path[t]
            if solver == "heun":
                torch.mul(grad_next, scale / 2, out=at_predictions[t])
                grad_predicted = through_velocity(at_predictions[t], predictions[t])
                grad_slope = grad_next / 2 + grad_predicted
                grad_next = grad_next + grad_predicted
            else:
                now, before = MULTISTEP[solver]
                grad_slope = grad_next * now
                if carried is not None:
                    grad_slope.add_(carried)
                carried = grad_next * before if before else None
            if t == 0 and ctx.cold and carried is not None:
                grad_slope.add_(carried)  # the first slope stands in for the one before it
            torch.mul(grad_slope, scale, out=at_states[t])
            grad_u = grad_next + through_velocity(at_states[t], states[t])

        grad_weights = _outer(at_states, states, gamma)
        grad_forcing = torch.nn.functional.pad(at_states, (0, 0, 0, 0, 0, 1))
        if solver == "heun":
            grad_weights += _outer(at_predictions, predictions, gamma)
            grad_forcing[1:] += at_predictions
        grad_before = None if ctx.cold or carried is None else carried * dt
        return k * grad_weights, grad_forcing, grad_u, grad_before, None


def _outer(x, u, gamma):
    """Sum of x [u]+^gamma^T over all steps and columns."""
    return x.flatten(0, 1).T @ torch.relu(u).pow_(gamma).flatten(0, 1)
