"""The equations, step by step, in plain torch: any dtype, any device, differentiable.

The engines that `simulate` runs are held against this file by the tests.
"""

import numpy as np
import torch

from ssn_estimators.simulation.schemes import SCHEMES

__all__ = ["integrate", "velocity"]


def velocity(circuit):
    """Right-hand side du/dt of Eq. 1 (mV/ms) as a function of u and the forcing f(h) + eta.

    In the rate form that of the rates, in Hz/ms; with receptors that of x and all y. Arrays are
    of the kind of the circuit's.
    """
    rate = 1 / circuit.tau_states
    if torch.is_tensor(circuit.weights):
        rate = torch.as_tensor(rate).to(circuit.weights)

    def du_dt(u, forcing):
        return (forcing + circuit.recurrent(circuit.rates(u)) - u) * rate

    def dr_dt(r, forcing):
        return (circuit.rates(forcing + circuit.recurrent(r)) - r) * rate

    def of_filters(state, forcing):
        rates = circuit.rates(circuit.potentials(state))
        join = torch.cat if torch.is_tensor(state) else np.concatenate
        return (join([forcing, *[rates] * len(circuit.receptors.tau)], -1) - state) * rate

    if circuit.receptors is not None:
        return of_filters
    return dr_dt if circuit.dynamics == "rate" else du_dt


def integrate(circuit, u, forcing, dt, solver, slope=None):
    """Potentials at the end of every step.

    Parameters
    ----------
    circuit : Circuit
        One of torch tensors.
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
