"""How far the closures of the stationary moments can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.utils import check_random_state

from ssn_estimators.simulation import simulate
from ssn_estimators.stationary.moments import stationary_moments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from ssn_estimators._typing import ArrayLike, RandomState
    from ssn_estimators.circuit import Circuit
    from ssn_estimators.simulation import Simulation
    from ssn_estimators.stationary import StationaryMoments

__all__ = ["ClosureBias", "closure_bias", "compare_moments"]


@dataclass(frozen=True, eq=False)
class ClosureBias:
    """What :func:`closure_bias` found, NumPy arrays of shape (n_inputs,).

    Each is the root mean square over cells (or pairs of cells) relative to that of the
    simulated moment.

    Attributes
    ----------
    mean, variance, covariance : ndarray of shape (n_inputs,)
        Differences between closure and simulation; NaN where either found no stationary
        activity.
    mean_error, variance_error, covariance_error : ndarray of shape (n_inputs,)
        Sampling errors of the simulation, from the difference of its two halves. The bias
        proper is about ``sqrt(mean**2 - mean_error**2)``.
    diverged : ndarray of shape (n_inputs,)
        Share of trials that diverged, which the simulated moments leave out.
    """

    mean: np.ndarray
    variance: np.ndarray
    covariance: np.ndarray
    mean_error: np.ndarray
    variance_error: np.ndarray
    covariance_error: np.ndarray
    diverged: np.ndarray

    def __str__(self):
        """Medians over inputs, a line for each moment."""
        rows = ["Relative difference of closure and simulation, median over inputs (+- sampling)"]
        for name in ("mean", "variance", "covariance"):
            values = [np.nanmedian(getattr(self, x)) for x in (name, f"{name}_error")]
            rows.append(f"{name:>10}: {values[0]:.4f} +- {values[1]:.4f}")
        return "\n".join(rows)


def closure_bias(
    circuit: Circuit,
    drive: ArrayLike,
    *,
    closure: Literal["gaussian", "linear"] = "gaussian",
    n_trials: int = 100,
    random_state: RandomState = None,
    **simulate_parameters: Any,
) -> ClosureBias:
    """Errors of a closure's moments, judged by simulation.

    Parameters
    ----------
    circuit : Circuit
        The circuit.
    drive : array of shape (n_inputs, n_neurons)
        External drive f(h) in mV.
    closure : {"gaussian", "linear"}, default="gaussian"
        See :func:`~ssn_estimators.stationary_moments`.
    n_trials : int, default=100
        Trials of every input, an even number: they are simulated in two independent halves.
    random_state : int, RandomState instance or None, default=None
        Source of the noise.
    **simulate_parameters
        Further parameters of :func:`~ssn_estimators.simulate`. Burn-in should exceed the
        time that the circuit needs to become stationary.

    Returns
    -------
    bias : ClosureBias

    Raises
    ------
    ValueError
        If `n_trials` is not an even number, or another parameter is not legal.
    """
    if not isinstance(n_trials, Integral) or n_trials < 2 or n_trials % 2:
        raise ValueError(f"n_trials must be a positive even integer, got {n_trials!r}.")
    if not simulate_parameters.get("covariance", True):
        raise ValueError("covariance=False leaves nothing to compare: covariances are compared.")
    circuit, rng = circuit.to_numpy(), check_random_state(random_state)
    if torch.is_tensor(drive):
        drive = drive.detach().cpu().numpy()
    moments = stationary_moments(circuit, drive, closure=closure)
    parameters = {"n_trials": n_trials // 2, "rates": False, **simulate_parameters}
    halves = [simulate(circuit, drive, random_state=rng, **parameters) for _ in range(2)]
    return compare_moments(moments, halves)


def compare_moments(moments: StationaryMoments, halves: Sequence[Simulation]) -> ClosureBias:
    """Errors of stationary moments, judged by a simulation in two halves, as `closure_bias`.

    Parameters
    ----------
    moments : StationaryMoments
        Those of a closure.
    halves : sequence of two Simulation
        Independent simulations of the same circuit under the same drive.

    Returns
    -------
    bias : ClosureBias
        As of :func:`closure_bias`.
    """
    outcome = {"diverged": np.concatenate([half.diverged for half in halves], axis=1).mean(1)}
    for name in ("mean", "variance", "covariance"):
        expected, first, second = (_moment(x, name) for x in (moments, *halves))
        simulated = (first + second) / 2
        size = _rms(simulated)
        outcome[name] = _rms(expected - simulated) / size
        outcome[f"{name}_error"] = _rms(first - second) / 2 / size
    return ClosureBias(**outcome)


def _moment(moments, name):
    if name == "variance":
        return np.diagonal(moments.covariance, axis1=1, axis2=2)
    return getattr(moments, name)


def _rms(x):
    return np.sqrt((x.astype(float) ** 2).reshape(len(x), -1).mean(1))
