"""What training adds to the cost: penalties on what leads to instability, and on slow answers."""

from __future__ import annotations

from itertools import repeat

import torch

from ssn_estimators.simulation.reference import integrate

__all__ = ["excess_growth", "excess_potential", "unsettled"]

SOFT_LIMIT = 20.0  # mV; mean potentials beyond it are penalised, long before they run away
HORIZON, N_DOUBLINGS = 256.0, 9  # ms; deviations are followed as long, from steps of .5 ms on
LARGEST_GROWTH = -1.0  # logarithm of what may be left of deviations after this time
N_WATCHED, SMALL = 16, 40  # inputs whose Jacobian is looked at, in circuits up to this size
SETTLING_TIME = 40.0  # ms; within it the means of the paper follow a new input (Fig. 4B)


def excess_potential(mean):
    """Mean squared excess of mean potentials over 20 mV."""
    return (torch.relu(mean.abs() - SOFT_LIMIT) ** 2).mean()


def excess_growth(circuit, mean):
    r"""Mean squared excess of the growth of deviations from mean potentials.

    Deviations follow :math:`\exp(J t)` with the Jacobian J at the mean potentials. Simulations as
    short as those of training can run away without reaching any bound: J says so long before.
    The logarithm of :math:`|\exp(J t)|_F` at t = 256 ms is an upper bound of t times the spectral
    abscissa, and smooth where that is not. Looked at are the inputs of a batch with the largest
    gains of E cells, and as many others.

    Parameters
    ----------
    circuit : Circuit
        Of tensors.
    mean : Tensor of shape (n_inputs, n_neurons)
        Mean potentials in mV, of inputs in random order.

    Returns
    -------
    excess : Tensor
        Of the logarithm over -1, squared, averaged over the inputs looked at.
    """
    n, n_e = circuit.n_neurons, circuit.n_excitatory
    gain = circuit.k * circuit.gamma * mean.clamp_min(0) ** (circuit.gamma - 1)
    n_watched = max(N_WATCHED // 4, min(N_WATCHED, round(N_WATCHED * (SMALL / n) ** 2)))
    if n_watched < len(mean):
        largest = gain[:, :n_e].sum(1).topk(n_watched // 2).indices
        gain = torch.cat([gain[largest], gain[: n_watched - len(largest)]])
    tau = torch.as_tensor(circuit.tau).to(gain)
    one = torch.eye(n).to(gain)
    step = HORIZON / 2**N_DOUBLINGS * (circuit.weights * gain[:, None] - one) / tau[:, None]
    matrix = one + step @ (one + step @ (one + step / 3) / 2)
    size = gain.new_zeros(len(gain))  # logarithm of a factor, so that nothing overflows
    for _ in range(N_DOUBLINGS):
        matrix = matrix @ matrix
        norm = torch.linalg.matrix_norm(matrix)
        size = 2 * size + norm.log()
        matrix = matrix / norm[:, None, None]
    return (torch.relu(size - LARGEST_GROWTH) ** 2).sum()


def unsettled(circuit, drive, mean, dt=1.0, solver="heun", time=SETTLING_TIME):
    """How far E cells still have to go some time after each input has replaced the next one.

    Parameters
    ----------
    circuit : Circuit
        Of tensors.
    drive, mean : Tensors of shape (n_inputs, n_neurons)
        External drive and the mean potentials that it leads to, in mV.
    dt, solver : float and str
        See :func:`simulate`.
    time : float, default=40.0
        In ms.

    Returns
    -------
    share : Tensor
        Squared distance from the new mean of potentials that follow without noise, over that
        at the start; both summed over inputs. 0 for a single input.
    """
    start, n = mean.detach().roll(1, 0), circuit.n_excitatory
    *_, (u, _) = integrate(circuit, start, repeat(drive, round(time / dt) + 1), dt, solver)
    way = ((mean.detach() - start)[:, :n] ** 2).sum()
    return ((u - mean)[:, :n] ** 2).sum() / way.clamp_min(torch.finfo(way.dtype).tiny)
