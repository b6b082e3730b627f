"""Stationary moments of a circuit without simulation: Gaussian closure and linear noise."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from ssn_estimators._sklearn import (
    COUNT,
    Interval,
    StrOptions,
    validate_params,
)
from ssn_estimators._torch import made_on_cpu
from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.stationary.adjoint import Adjoint
from ssn_estimators.stationary.closure import System
from ssn_estimators.stationary.solvers import Anderson

if TYPE_CHECKING:
    from typing import Literal

    from ssn_estimators._typing import AnyArray
    from ssn_estimators.circuit import Circuit

__all__ = ["CLOSURES", "StationaryMoments", "stationary_moments"]

MOST_GAMMA = 20  # of the Gaussian closure: moments of the rate grow with its factorial
CLOSURES = ("gaussian", "linear")
BLOCK = 64  # inputs solved at once
FIRST_STEP, SMALLEST_STEP = 300.0, 1.0  # ms of pseudo-time
LARGEST_CHANGE = 10.0  # relative, of a step; beyond it is repeated, shorter
CLOSE = 0.1  # relative change below which steps become infinitely long


@dataclass(frozen=True, eq=False)
class StationaryMoments:
    """What :func:`stationary_moments` found. Arrays are of the kind of the circuit's.

    Attributes
    ----------
    mean : array of shape (n_inputs, n_neurons)
        Mean potentials in mV.
    covariance : array of shape (n_inputs, n_neurons, n_neurons)
        Covariance of the potentials in mV**2.
    rates : array of shape (n_inputs, n_neurons)
        Mean firing rates in Hz; those of the noise-free circuit under "linear".
    converged : array of shape (n_inputs,), bool
        Where a stable stationary state was found; all moments are NaN elsewhere.
    stable : array of shape (n_inputs,), bool
        Whether the Jacobian J, of the mean at fixed variances, has only eigenvalues with
        negative real part at the last iterate; false where activity ran away. Where `stable`
        is true without `converged`, more iterations may help. Mean and covariance together
        may oscillate about a state that is stable in this sense.
    """

    mean: np.ndarray | torch.Tensor
    covariance: np.ndarray | torch.Tensor
    rates: np.ndarray | torch.Tensor
    converged: np.ndarray | torch.Tensor
    stable: np.ndarray | torch.Tensor

    def __repr__(self):
        n_inputs, n_neurons = self.mean.shape
        return (
            f"StationaryMoments(n_inputs={n_inputs}, n_neurons={n_neurons}: "
            f"{int(self.converged.sum())} of {n_inputs} inputs converged)"
        )


@validate_params(
    closure=[StrOptions(set(CLOSURES))],
    tol=[Interval(Real, 0, 1, closed="neither")],
    max_iter=COUNT,
)
@made_on_cpu
def stationary_moments(
    circuit: Circuit,
    drive: AnyArray,
    *,
    closure: Literal["gaussian", "linear"] = "gaussian",
    tol: float = 1e-6,
    max_iter: int = 100,
) -> StationaryMoments:
    r"""Mean and covariance of the stationary activity, from equations instead of samples.

    With mean rates :math:`\nu = E[r]`, gains :math:`E[dr/du]` and :math:`X = \langle \delta u
    \, \eta^T \rangle`, the state solves (:math:`T = \mathrm{diag}(\tau)`; [1]_)

    .. math::
        0 &= -\mu + f(h) + W \nu, \qquad J = T^{-1} (W \mathrm{diag}(E[dr/du]) - I), \\
        0 &= J X - X / \tau_\eta + T^{-1} \Sigma_\eta, \\
        0 &= J \Sigma + \Sigma J^T + X T^{-1} + T^{-1} X^T.

    The mean first follows its dynamics from rest, with the variances of cells without
    synapses; then mean and covariance go on together in implicit steps of growing length, so
    that they arrive where the dynamics lead rather than at just any fixed point. No random
    numbers are drawn.

    Parameters
    ----------
    circuit : Circuit
        With tensors that require a gradient, all moments can be differentiated with respect
        to them and to `drive` (once; by the implicit function theorem).
    drive : array of shape (n_inputs, n_neurons)
        External drive f(h) in mV.
    closure : {"gaussian", "linear"}, default="gaussian"
        "gaussian" takes potentials as normally distributed, with :math:`\nu` and the gains
        that follow from their mean and variance: exact where the rate function is linear,
        biased where a cell's potential varies much across its threshold. "linear" takes
        :math:`\nu = r(\mu)` and :math:`r'(\mu)`, the first order in weak noise; several times
        as fast.
    tol : float, default=1e-6
        Largest change of a mean by an iteration, relative to 1 mV + its size, and of a
        variance, relative to 1 mV**2 + its size.
    max_iter : int, default=100
        Iterations before giving an input up.

    Returns
    -------
    moments : StationaryMoments
        Of the potentials; of circuits in the rate form, of the rates. Computed in float64, of the
        circuit's dtype; under "linear", covariances are computed in that dtype too.

    Raises
    ------
    ValueError
        If a parameter is not legal or `drive` has the wrong shape or is not finite, a circuit
        in the rate form comes with the "gaussian" closure, which is for the other one, or a circuit
        has receptors.

    References
    ----------
    .. [1] Hennequin & Lengyel (2016). Characterizing variability in nonlinear recurrent
       neuronal networks. arXiv:1610.03110.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.stationary.moments import stationary_moments
    >>> cell = Circuit([[0.0]], n_excitatory=1, noise_factor=1.0)
    >>> moments = stationary_moments(cell, [[2.0]])
    >>> moments.mean, moments.covariance
    (array([[2.]]), array([[[0.5]]]))
    """
    circuit.dense("stationary moments")
    if circuit.receptors is not None:
        raise ValueError(
            "stationary moments are for circuits without receptors; simulate, or take "
            "steady_states and spectra of inspection."
        )
    powers = circuit.rate_function is None
    if closure == "gaussian" and powers and np.max(circuit.gamma) > MOST_GAMMA:
        raise ValueError(
            f"closure='gaussian' is for exponents of up to {MOST_GAMMA}, got gamma="
            f"{np.max(circuit.gamma):g}; take closure='linear' or simulate."
        )
    if circuit.dynamics == "rate":
        return _in_rates(circuit, drive, closure, tol=tol, max_iter=max_iter)
    tensors = circuit.to_torch()
    weights, noise_factor = tensors.weights.double(), tensors.noise_factor.double()
    drive = tensors.check_drive(drive, dtype=torch.float64)
    noise = noise_factor @ noise_factor.mT
    system = System(tensors, weights, noise, closure)
    blocks = [
        _Stationary.apply(weights, noise, block, system, tol, max_iter)
        for block in drive.split(BLOCK)
    ]
    moments = StationaryMoments(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))
    arrays = {f.name: getattr(moments, f.name) for f in fields(moments)}
    for name in ("mean", "covariance", "rates"):
        arrays[name] = arrays[name].to(tensors.weights.dtype)
    if not torch.is_tensor(circuit.weights):
        arrays = {name: array.detach().numpy() for name, array in arrays.items()}
    return StationaryMoments(**arrays)


def moments_of_potentials(circuit, drive, closure, **options):
    """As :func:`stationary_moments`, of potentials in the rate form too, where they are W r + h."""
    if circuit.dynamics == "rate" and closure != "linear":
        raise ValueError(f"circuits in the rate form have closure='linear' only, got {closure!r}.")
    voltage = replace(circuit, dynamics="voltage")
    return stationary_moments(voltage, drive, closure=closure, **options)


def _in_rates(circuit, drive, closure, **options):
    """The same fixed points, and to first order the same spectra of rates."""
    moments = moments_of_potentials(circuit, drive, closure, **options)
    gain = circuit.gain(moments.mean)
    covariance = gain[:, :, None] * moments.covariance * gain[:, None, :]
    return replace(moments, mean=moments.rates, covariance=covariance)


class _Stationary(torch.autograd.Function):
    """Mean, covariance, rates, converged, stable from weights, noise covariance and drive."""

    @staticmethod
    def forward(ctx, weights, noise, drive, system, tol, max_iter):
        mean, variance, covariance, converged, stable = _search(system, drive, tol, max_iter)
        rates = system.activity(mean, variance)[0]
        ctx.save_for_backward(mean[converged], covariance[converged], converged)
        ctx.system = system
        ctx.mark_non_differentiable(converged, stable)
        moments = (
            x.masked_fill(~converged.view(-1, *[1] * (x.ndim - 1)), torch.nan)
            for x in (mean, covariance, rates)
        )
        return *moments, converged, stable

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        mean, covariance, converged = ctx.saved_tensors
        adjoint = Adjoint(ctx.system, mean, covariance, [x[converged] for x in gradients[:3]])
        to_weights, to_noise, to_mean = adjoint.solve()
        to_drive = mean.new_zeros(len(converged), mean.shape[1])
        to_drive[converged] = to_mean
        return to_weights, to_noise, to_drive, None, None, None


def _paced(pace, change, before, legal):
    """Inverse of the next step: as long as changes shrink, steps grow, the sooner the faster."""
    longer = pace / torch.clamp(before / change, 0.5, 4.0)
    longer[(change < CLOSE) & (pace < 1 / FIRST_STEP)] = 0.0
    worse = legal & (pace == 0) & (change > CLOSE) & (change > 2 * before)
    return torch.where(legal & ~worse, longer, (4 * pace).clamp_min(1 / FIRST_STEP))


def _search(system, drive, tol, max_iter):
    """Mean, variance and covariance, whether they were found, and whether they are stable."""
    n, gaussian = drive.shape[1], system.closure == "gaussian"
    mean, cross, covariance = system.start(drive)
    ran_away = mean.abs().amax(1) > DIVERGENCE_THRESHOLD
    states = torch.cat([mean, covariance.diagonal(dim1=1, dim2=2)], 1)
    states[ran_away] = torch.nan
    covariances, found = covariance.to(system.dtype, copy=True), torch.zeros_like(ran_away)
    # row by row, of the inputs still searched for: 1 / step, last change, step was infinite
    pace, before = drive.new_full((len(drive), 1), 1 / FIRST_STEP), drive.new_ones(len(drive), 1)
    rows, steady = torch.arange(len(drive), device=drive.device), pace == 0
    now = (rows, drive, states, cross, covariance, pace, before, steady)
    now = tuple(x[~ran_away] for x in now)
    accelerate = Anderson(history=5)
    for _ in range(max_iter):
        rows, inputs, state, cross, covariance, pace, before, steady = now
        if not len(rows):
            break
        mean, variance = state.split(n, 1)
        mean = system.mean_step(inputs, mean, variance, pace)
        moments, stable = (cross, covariance), torch.ones_like(rows, dtype=torch.bool)
        if gaussian:  # under "linear", the mean does not wait for the covariance
            *moments, stable = system.covariances(
                mean, variance, pace, cross, covariance, accuracy=tol / 100
            )
            variance = moments[1].diagonal(dim1=1, dim2=2)
        result = torch.cat([mean, variance], 1)
        change = ((result - state).abs() / (1 + state.abs())).amax(1, keepdim=True)
        legal = stable & (change[:, 0] < LARGEST_CHANGE) & (variance >= 0).all(1)
        legal = (legal & (mean.abs() < DIVERGENCE_THRESHOLD).all(1))[:, None]

        infinite = legal & (pace == 0)
        arrived = (infinite & (change < tol))[:, 0]
        ran_away = ~legal & (pace >= 1 / SMALLEST_STEP)
        result = torch.where(legal, result, state)
        states[rows] = result.masked_fill(ran_away, torch.nan)
        found[rows] = arrived
        if gaussian:
            covariances[rows[arrived]] = moments[1][arrived]

        following = accelerate(result, result - state, infinite & steady)
        # extrapolation must not cost a variance its sign
        following[:, n:] = torch.maximum(following[:, n:], 0.3 * result[:, n:])
        pace = _paced(pace, change, before, legal)
        before = torch.where(legal, change, before)
        cross, covariance = (
            torch.where(legal[..., None], new, old)
            for new, old in zip(moments, (cross, covariance), strict=True)
        )
        going_on = ~(arrived | ran_away[:, 0])
        now = (rows, inputs, following, cross, covariance, pace, before, infinite)
        if not going_on.all():
            now = tuple(x[going_on] for x in now)
            accelerate.keep(going_on)

    return _judged(system, *states.split(n, 1), covariances, found)


def _judged(system, mean, variance, covariances, found):
    """What the search led to, with whether it is stable; under "linear", with covariances."""
    gaussian, stable = system.closure == "gaussian", found.clone()
    ask = mean.isfinite().all(1) & (~found if gaussian else True)
    _, covariance, stable[ask] = system.covariances(
        mean[ask], variance[ask], mean.new_zeros(int(ask.sum()), 1), 0, 0
    )
    if not gaussian:
        covariances[ask], found = covariance, found & stable
    return mean, variance, covariances, found, stable
