"""Dynamics of inference: how a network's samples follow a change of the stimulus (Fig. 4)."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import count_steps
from ssn_estimators.images.generative import named, percepts
from ssn_estimators.inspection.stability import sampler_and_inputs
from ssn_estimators.simulation import check_steps, simulate

if TYPE_CHECKING:
    from typing import Literal

    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike, RandomState

__all__ = ["StimulusSwitch", "stimulus_switch"]


@dataclass(frozen=True, eq=False)
class StimulusSwitch:
    """What :func:`stimulus_switch` saw.

    Attributes
    ----------
    times : ndarray of shape (n_times,)
        In ms from the switch.
    mean, variance : ndarrays of shape (n_times, n_pairs, n_latents)
        Moments of the latents that the potentials of E cells stand for, over trials.
    old_mean, new_mean, old_variance, new_variance : ndarrays of shape (n_pairs, n_latents)
        Moments of the generative model's posterior for each stimulus; None without such a model.
    percepts : ndarray of shape (n_times, n_pairs, n_features), or None
        Images that the means stand for, if the generative model can make them: at the contrast
        that the network itself holds, by :meth:`GaussianScaleMixture.z_from_variance` of the
        variances at that time, if the model knows contrasts.
    n_trials : int
        Trials of each pair.
    """

    times: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    old_mean: np.ndarray | None
    new_mean: np.ndarray | None
    old_variance: np.ndarray | None
    new_variance: np.ndarray | None
    percepts: np.ndarray | None
    n_trials: int

    def progress(self, moment: Literal["mean", "variance"] = "mean") -> np.ndarray:
        """How far the moments have come from where they were towards where they end up.

        Parameters
        ----------
        moment : {"mean", "variance"}, default="mean"
            Which one.

        Returns
        -------
        progress : ndarray of shape (n_times, n_pairs)
            Projection on the way from the network's moments before the switch, averaged over
            time, to those in the last third of the time after it: 0 before, 1 in the end.
            NaN for a pair whose moments differ by no more than sampling errors.
        """
        if moment not in ("mean", "variance"):
            raise ValueError(f"moment must be 'mean' or 'variance', got {moment!r}.")
        values = getattr(self, moment)
        start = values[self.times <= 0].mean(0)
        end = values[self.times > 2 / 3 * self.times[-1]].mean(0)
        way = end - start
        length = (way**2).sum(1)
        variance = self.variance.mean(0)
        # what a single time has of it by chance, twice; averages over time have less
        chance = variance if moment == "mean" else 2 * variance**2
        changed = length > 4 * chance.sum(1) / self.n_trials
        return ((values - start) * way).sum(2) / np.where(changed, length, np.nan)

    def time_to(
        self, share: float = 0.9, moment: Literal["mean", "variance"] = "mean"
    ) -> np.ndarray:
        """When the moments have come a share of the way.

        Parameters
        ----------
        share : float, default=0.9
            Between 0 and 1.
        moment : {"mean", "variance"}, default="mean"
            Which one.

        Returns
        -------
        times : ndarray of shape (n_pairs,)
            In ms after the switch, for each pair of stimuli; NaN where they never do, or
            do not change.
        """
        if not isinstance(share, Real) or not 0 < share < 1:
            raise ValueError(f"share must be between 0 and 1, got {share!r}.")
        there = (self.progress(moment) >= share) & (self.times > 0)[:, None]
        return np.where(there.any(0), self.times[there.argmax(0)], np.nan)


def stimulus_switch(
    sampler: BaseEstimator,
    X_old: ArrayLike,
    X_new: ArrayLike,
    *,
    n_trials: int = 200,
    before: float = 200.0,
    after: float = 300.0,
    random_state: RandomState = 0,
) -> StimulusSwitch:
    """Replace one stimulus by another, and follow mean and variance of the samples.

    Parameters
    ----------
    sampler : SSNSampler, or Pipeline or search with one
        Fitted.
    X_old, X_new : array-likes of shape (n_pairs, n_features)
        Stimuli before and after the switch.
    n_trials : int, default=200
        Trials of each pair, over which moments are taken.
    before, after : float, default=200.0 and 300.0
        Time before the switch, after burn-in, and after it, in ms.
    random_state : int, RandomState instance or None, default=0
        Source of the noise.

    Returns
    -------
    switch : StimulusSwitch

    Raises
    ------
    ValueError
        If the two are not as many, or a time is shorter than a step (`after`: three steps).
    DivergenceError
        If the network diverges.
    """
    X_new = sampler_and_inputs(sampler, X_new)[1]
    sampler, X_old = sampler_and_inputs(sampler, X_old)
    circuit, dt, burn_in = sampler.circuit_, sampler.dt, sampler.burn_in
    for name, time, least in (("before", before, dt), ("after", after, 3 * dt)):
        if not isinstance(time, Real) or not time >= least:
            raise ValueError(f"{name} must be at least {least:g} ms, got {time!r}.")
        check_steps(time, dt, name)
    X_old, X_new = sampler._check_X(X_old), sampler._check_X(X_new)
    old, new = sampler._drive(X_old), sampler._drive(X_new)
    if old.shape != new.shape:
        raise ValueError(f"X_old has {len(old)} stimuli, X_new has {len(new)}; pairs are needed.")
    if not isinstance(n_trials, Integral) or n_trials < 2:
        raise ValueError(f"n_trials must be an integer of at least 2, got {n_trials!r}.")
    n_before = count_steps(burn_in + before, dt, "before")
    n_steps = n_before + count_steps(after, dt, "after")
    n, shift = circuit.n_excitatory, sampler.potential_shift_
    rng, means, variances = check_random_state(random_state), [], []
    for i in range(len(old)):
        drive = np.where(np.arange(n_steps)[:, None] < n_before, old[i], new[i])
        simulation = simulate(
            circuit,
            drive[:, None],
            n_trials=n_trials,
            duration=before + after,
            burn_in=burn_in,
            dt=dt,
            solver=sampler.solver,
            random_state=rng,
            record="u",
            covariance=False,
            rates=False,
        )
        simulation.check_finite()
        latents = simulation.u[:, 0, :, :n] - shift
        means.append(latents.mean(1))
        variances.append(latents.var(1, ddof=1))
    mean, variance = np.stack(means, 1), np.stack(variances, 1)
    model = sampler.generative_model_
    posteriors = _posteriors(model, X_old) + _posteriors(model, X_new)
    known = hasattr(model, "inverse_transform")
    return StimulusSwitch(
        times=simulation.times - before,
        mean=mean,
        variance=variance,
        old_mean=posteriors[0],
        new_mean=posteriors[2],
        old_variance=posteriors[1],
        new_variance=posteriors[3],
        percepts=percepts(model, mean, variance) if known else None,
        n_trials=n_trials,
    )


def _posteriors(model, X):
    """Mean and variance by a generative model, if there is one."""
    if model is None:
        return [None, None]
    mean, covariance = model.posterior_moments(named(X, model))
    return [mean, np.einsum("nii->ni", covariance)]
