"""What training adds to the cost: penalties on what leads to instability, and on slow answers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat

import torch

from ssn_estimators.simulation.reference import integrate

__all__ = [
    "Penalties",
    "excess_growth",
    "excess_potential",
    "excess_variance",
    "growth_of_deviations",
    "silence",
    "unsettled",
]

SOFT_LIMIT = 20.0  # mV; mean potentials beyond it are penalised, long before they run away
USUAL_VARIANCE = 1.0  # mV**2; I cells that are free to vary may vary as much
AWAKE = 1.0  # mV; some input must bring a cell there
HORIZON, N_DOUBLINGS = 256.0, 9  # ms; deviations are followed as long, from steps of .5 ms on
LARGEST_GROWTH = -1.0  # logarithm of what may be left of deviations after this time
N_WATCHED, SMALL = 16, 40  # inputs whose Jacobian is looked at, in circuits up to this size
LEAST_WATCHED = 4
ALIKE = 1e-3  # share of squared means: inputs that differ by less leave nothing to settle
SETTLING_TIME = 40.0  # ms; within it the means of the paper follow a new input (Fig. 4B)


@dataclass(frozen=True)
class Penalties:
    """Factors of what is added to the cost; 0 leaves it out.

    Parameters
    ----------
    potential, silence, stability, settling : float
        Factors of :func:`excess_potential`, :func:`silence`, :func:`excess_growth` and
        :func:`unsettled`.
    variance, asked_variance : float
        Factor of :func:`excess_variance`, and the largest variance that the task asks for, in
        mV**2.
    rate, weight : float
        Factors of the mean rate, in Hz, and of the mean magnitude of the recurrent weights, in
        mV s.
    dt, solver : float and str
        Time step and scheme in :func:`unsettled`.
    """

    potential: float = 0.0
    silence: float = 0.0
    stability: float = 0.0
    settling: float = 0.0
    variance: float = 0.0
    asked_variance: float = 0.0
    dt: float = 1.0
    solver: str = "heun"
    rate: float = 0.0
    weight: float = 0.0

    def of_potentials(self, mean):
        """Tensor: of means that are too large or, in all inputs of a batch, too small."""
        penalty = self.potential * excess_potential(mean)
        return penalty + self.silence * silence(mean) if self.silence else penalty

    def of_variances(self, circuit, covariance):
        """Tensor: of I potentials that vary more than is needed."""
        inhibitory = covariance.diagonal(dim1=1, dim2=2)[:, circuit.n_excitatory :]
        allowed = max(USUAL_VARIANCE, self.asked_variance)
        return self.variance * excess_variance(inhibitory, allowed)

    def of_activity(self, circuit, mean):
        """Tensor: of what activity and synapses cost."""
        rates = self.rate * circuit.rates(mean).mean() if self.rate else 0.0
        return rates + (self.weight * circuit.weights.abs().mean() if self.weight else 0.0)

    def of_dynamics(self, circuit, mean, caution):
        """Tensor, `caution` times the factor; and whether an input was too unstable."""
        growth = excess_growth(circuit, mean)
        return caution * self.stability * growth, bool(growth > 0)

    def of_slowness(self, circuit, drive, mean):
        """Tensor; means are of any number of copies of the inputs."""
        settled = mean.unflatten(0, (-1, len(drive))).mean(0)
        return self.settling * unsettled(circuit, drive, settled, self.dt, self.solver)


def excess_potential(mean):
    """Mean squared excess of mean potentials over 20 mV."""
    return (torch.relu(mean.abs() - SOFT_LIMIT) ** 2).mean()


def excess_variance(variance, allowed):
    """Mean excess of variances over what is allowed, in mV**2.

    Noise that is strong enough to silence inhibition now and then lets activity burst: too seldom
    to be seen in the trials of a step, and by equations of weak noise not at all.
    """
    return torch.relu(variance - allowed).mean()


def silence(mean):
    """Squares of what cells lack to 1 mV that stay below it on all inputs of a batch, added up.

    A cell that never fires gets no gradient for what it receives.
    """
    return (torch.relu(AWAKE - mean.amax(0)) ** 2).sum()


def growth_of_deviations(circuit, mean):
    r"""How deviations from mean potentials have grown after 256 ms.

    Deviations follow :math:`\exp(J t)` with the Jacobian J at the mean potentials. Simulations as
    short as those of training can run away without reaching any bound: J says so long before.

    Parameters
    ----------
    circuit : Circuit
        One of tensors.
    mean : Tensor of shape (n_inputs, n_neurons)
        Mean potentials in mV.

    Returns
    -------
    growth : Tensor of shape (n_inputs,)
        :math:`\log |\exp(J t)|_F`, an upper bound of t times the spectral abscissa, and smooth
        where that is not.
    """
    one = torch.eye(circuit.n_neurons).to(mean)
    step = HORIZON / 2**N_DOUBLINGS * circuit.jacobian(circuit.gain(mean))
    matrix = one + step @ (one + step @ (one + step / 3) / 2)
    growth = mean.new_zeros(len(mean))  # logarithm of a factor, so that nothing overflows
    for _ in range(N_DOUBLINGS):
        matrix = matrix @ matrix
        norm = torch.linalg.matrix_norm(matrix)
        growth = 2 * growth + norm.log()
        matrix = matrix / norm[:, None, None]
    return growth


def excess_growth(circuit, mean):
    """Squared excess of the growth of deviations over a bound, summed over some inputs.

    These are the inputs of a batch with the largest gains of E cells, and as many others: one
    input that runs away is enough.

    Parameters
    ----------
    circuit : Circuit
        One of tensors.
    mean : Tensor of shape (n_inputs, n_neurons)
        Mean potentials in mV, of inputs in random order.

    Returns
    -------
    excess : Tensor
    """
    n_watched = max(LEAST_WATCHED, round(N_WATCHED * min(1, SMALL / circuit.n_neurons) ** 2))
    if n_watched < len(mean):
        activity = mean[:, : circuit.n_excitatory].detach().clamp_min(0).sum(1)
        largest = activity.topk(n_watched // 2).indices
        mean = torch.cat([mean[largest], mean[: n_watched - len(largest)]])
    growth = growth_of_deviations(circuit, mean)
    return (torch.relu(growth - LARGEST_GROWTH) ** 2).sum()


def unsettled(circuit, drive, mean, dt=1.0, solver="heun", time=SETTLING_TIME):
    """How far E cells still have to go some time after each input has replaced the next one.

    Parameters
    ----------
    circuit : Circuit
        One of tensors.
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
        at the start; both summed over inputs. 0 where means are alike, as of a single input.
    """
    start, n = mean.detach().roll(1, 0), circuit.n_excitatory
    *_, (u, _) = integrate(circuit, start, repeat(drive, round(time / dt) + 1), dt, solver)
    mean_now = mean.detach()[:, :n]
    way, size = ((mean_now - start[:, :n]) ** 2).sum(), (mean_now**2).sum()
    # nothing to go: what is left is how far means are from fixed points, and rounding
    alike = way <= ALIKE * size
    share = ((u - mean)[:, :n] ** 2).sum() / torch.where(alike, torch.ones_like(way), way)
    return torch.where(alike, torch.zeros_like(share), share)
