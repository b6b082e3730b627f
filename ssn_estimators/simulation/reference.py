"""The equations, step by step, in plain torch: any dtype, any device, differentiable.

The engines that `simulate` runs are held against this file by the tests.
"""

import torch

__all__ = ["SCHEMES", "integrate", "velocity"]


def velocity(circuit):
    """Right-hand side du/dt of Eq. 1 (mV/ms) as a function of u and the forcing f(h) + eta."""
    weights = circuit.weights.T
    rate = torch.as_tensor(1 / circuit.tau, dtype=weights.dtype, device=weights.device)

    def du_dt(u, forcing):
        return (torch.addmm(forcing, circuit.rates(u), weights) - u) * rate

    return du_dt


# A scheme takes u one step of dt ahead. It gets the forcing at both ends of the step and the
# slope at the start of the step before (None at the first), and returns u and its own slope.


def euler(du_dt, u, forcing, forcing_next, dt, previous):
    slope = du_dt(u, forcing)
    return u + dt * slope, slope


def heun(du_dt, u, forcing, forcing_next, dt, previous):
    slope = du_dt(u, forcing)
    return u + dt / 2 * (slope + du_dt(u + dt * slope, forcing_next)), slope


def ab2(du_dt, u, forcing, forcing_next, dt, previous):
    slope = du_dt(u, forcing)
    previous = slope if previous is None else previous
    return u + dt / 2 * (3 * slope - previous), slope


SCHEMES = {"euler": euler, "heun": heun, "ab2": ab2}


def integrate(circuit, u, forcing, dt, solver, slope=None):
    """Potentials at the end of every step.

    Parameters
    ----------
    circuit : Circuit
        Of torch tensors.
    u : Tensor of shape (n_columns, n_neurons)
        Potentials at the start, in mV.
    forcing : iterable of Tensors of shape (n_columns, n_neurons)
        f(h) + eta at the start of every step and at the end of the last.
    dt : float
        Time step in ms.
    solver : {"euler", "heun", "ab2"}
        A key of `SCHEMES`.
    slope : Tensor of shape (n_columns, n_neurons), default=None
        Slope of the step before, where a multi-step scheme goes on.

    Yields
    ------
    u, slope : Tensors of shape (n_columns, n_neurons)
        Potentials after the step, and the slope at its start.
    """
    step, du_dt = SCHEMES[solver], velocity(circuit)
    forcing = iter(forcing)
    now = next(forcing)
    for ahead in forcing:
        u, slope = step(du_dt, u, now, ahead, dt, slope)
        yield u, slope
        now = ahead
