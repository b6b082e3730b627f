"""Diagnostics of sampling that users of MCMC expect: how fast, how mixed, how right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import COUNT, RANDOM, check_array, validate_params
from ssn_estimators.images.generative import named
from ssn_estimators.inspection.stability import sampler_and_inputs

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike, RandomState

__all__ = ["SamplingReport", "energy_distance", "sampling_report", "sliced_wasserstein"]

MOST_COMPARED = 2000  # samples; the distance takes time and memory with their square


@dataclass(frozen=True, eq=False)
class SamplingReport:
    """Quality of a network's samples as a Markov chain, input by input and latent by latent.

    Attributes
    ----------
    autocorrelation_time : ndarray of shape (n_inputs, n_latents)
        Time in ms that an independent sample takes: network time over effective samples.
    effective_samples : ndarray of shape (n_inputs, n_latents)
        Effective sample size of all trials together (bulk, rank-normalised; [1]_).
    effective_rate : ndarray of shape (n_inputs, n_latents)
        Effective samples per second of network time of one trial.
    r_hat : ndarray of shape (n_inputs, n_latents)
        Rank-normalised split R-hat over trials; 1 where they all sample the same.
    distance : ndarray of shape (n_inputs,), or None
        Energy distance between samples of the network and of the exact posterior, if the
        generative model can draw them. As many samples are compared as are effectively
        independent in the least mixed latent, evenly over all trials.
    distance_exact : ndarray of shape (n_inputs,), or None
        The same between two sets of so many exact samples: what is left when nothing is wrong.
    distance_gaussian : ndarray of shape (n_inputs,), or None
        The same for samples of the Gaussian with the exact mean and covariance: what is left when
        these are right and nothing else.
    sliced, sliced_exact, sliced_gaussian : ndarrays of shape (n_inputs,), or None
        Sliced Wasserstein distances of the three, in the unit of the latents.

    References
    ----------
    .. [1] Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021). Rank-normalization, folding,
       and localization: an improved R-hat. Bayesian Analysis 16, 667-718.
    """

    autocorrelation_time: np.ndarray
    effective_samples: np.ndarray
    effective_rate: np.ndarray
    r_hat: np.ndarray
    distance: np.ndarray | None
    distance_exact: np.ndarray | None
    distance_gaussian: np.ndarray | None
    sliced: np.ndarray | None
    sliced_exact: np.ndarray | None
    sliced_gaussian: np.ndarray | None

    def __str__(self):
        rows = [
            f"time per independent sample  {np.median(self.autocorrelation_time):.0f} ms",
            f"effective samples per second {np.median(self.effective_rate):.1f}",
            f"largest R-hat                {self.r_hat.max():.3f}",
        ]
        if self.distance is not None:
            for name, title in (("distance", "energy distance"), ("sliced", "sliced Wasserstein")):
                found, exact, gaussian = (
                    np.median(getattr(self, name + which)) for which in COMPARED
                )
                rows.append(
                    f"{title:28} {found:.3f} (exact samples {exact:.3f}, Gaussian of the exact "
                    f"moments {gaussian:.3f})"
                )
        return "\n".join(["Sampling (medians over inputs and latents)", *rows])


def sampling_report(
    sampler: BaseEstimator,
    X: ArrayLike,
    *,
    n_trials: int = 8,
    duration: float = 5000.0,
    interval: float = 5.0,
    random_state: RandomState = 0,
) -> SamplingReport:
    """Judge a network's samples by the standards of Markov chain Monte Carlo.

    Every trial is a chain. Needs arviz-stats (``pip install "ssn_estimators[diagnostics]"``).

    Parameters
    ----------
    sampler : SSNSampler, or Pipeline or search with one
        Fitted.
    X : array-like of shape (n_samples, n_features)
        Inputs.
    n_trials : int, default=8
        Trials per input.
    duration : float, default=5000.0
        Length of a trial after burn-in, in ms.
    interval : float, default=5.0
        Time between two samples of a trial, in ms.
    random_state : int, RandomState instance or None, default=0
        Source of the noise and of exact samples.

    Returns
    -------
    report : SamplingReport
    """
    try:
        from arviz_stats.base import array_stats
    except ImportError as error:
        raise ImportError(
            "sampling_report needs arviz-stats: pip install 'ssn_estimators[diagnostics]'."
        ) from error
    rng = check_random_state(random_state)
    sampler, X = sampler_and_inputs(sampler, X)
    for name, value in (("duration", duration), ("interval", interval)):
        if not isinstance(value, Real) or not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive time in ms, got {value!r}.")
    if not isinstance(n_trials, Integral):
        raise ValueError(f"n_trials must be an integer, got {n_trials!r}.")
    n_draws = math.floor(duration / interval + 1e-9)
    if n_trials < 2 or n_draws < 4:
        raise ValueError(
            "chains are compared: at least 2 trials of 4 samples are needed, got "
            f"{n_trials} of {n_draws}."
        )
    chains = np.stack(
        [sampler.sample(X, n_draws, interval=interval, random_state=rng) for _ in range(n_trials)]
    )
    chains = np.moveaxis(chains.astype(float), 0, -2)  # inputs, draws, trials, latents
    effective = array_stats.ess(chains, chain_axis=2, draw_axis=1)
    r_hat = array_stats.rhat(chains, chain_axis=2, draw_axis=1)
    distances = dict.fromkeys(f"{how}{which}" for how in DISTANCES for which in COMPARED)
    if hasattr(sampler.generative_model_, "posterior_sample"):
        drawn = chains.swapaxes(1, 2).reshape(len(X), -1, chains.shape[-1])
        X = named(sampler._check_X(X), sampler.generative_model_)
        distances |= _distances(sampler.generative_model_, X, drawn, effective.min(1), rng)
    time = n_trials * n_draws * interval
    return SamplingReport(
        autocorrelation_time=time / effective,
        effective_samples=effective,
        effective_rate=1000 * effective / time,
        r_hat=r_hat,
        **distances,
    )


def _distances(model, X, drawn, effective, rng):
    """From the exact posterior, of the network's samples and of others, input by input."""
    found = {f"{how}{which}": np.empty(len(drawn)) for how in DISTANCES for which in COMPARED}
    means, covariances = model.posterior_moments(X)
    for i, samples in enumerate(drawn):
        n = int(np.clip(effective[i], 2, MOST_COMPARED))
        chosen = np.linspace(0, len(samples) - 1, n).round().astype(int)
        exact = model.posterior_sample(X[i : i + 1], 2 * n, random_state=rng)[0]
        gaussian = rng.multivariate_normal(means[i].astype(float), covariances[i].astype(float), n)
        for which, others in zip(COMPARED, (samples[chosen], exact[n:], gaussian), strict=True):
            for how, distance in DISTANCES.items():
                found[f"{how}{which}"][i] = distance(others, exact[:n])
    return found


def _of_one_space(x, y):
    """Two samples, checked."""
    x, y = check_array(x, dtype=float, input_name="x"), check_array(y, dtype=float, input_name="y")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"samples must be of one dimension, got {x.shape[1]} and {y.shape[1]}.")
    return x, y


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    r"""Energy distance :math:`\sqrt{2 E|x - y| - E|x - x'| - E|y - y'|}` of two samples.

    Parameters
    ----------
    x, y : array-likes of shape (n_samples, n_dimensions)
        Samples, any number of each.

    Returns
    -------
    distance : float
        0 if and only if the distributions are the same, but for sampling errors.

    References
    ----------
    .. [1] Székely & Rizzo (2013). Energy statistics: a class of statistics based on
       distances. Journal of Statistical Planning and Inference 143, 1249-1272.

    Examples
    --------
    >>> from ssn_estimators.inspection.sampling import energy_distance
    >>> energy_distance([[0.0], [2.0]], [[0.0], [2.0]])
    0.0
    """
    x, y = _of_one_space(x, y)
    squared = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    return math.sqrt(max(squared, 0.0))


@validate_params(n_projections=COUNT, random_state=RANDOM)
def sliced_wasserstein(
    x: ArrayLike, y: ArrayLike, n_projections: int = 100, random_state: RandomState = 0
) -> float:
    """Mean over random directions of the Wasserstein distance of two samples along each.

    Parameters
    ----------
    x, y : array-likes of shape (n_samples, n_dimensions)
        Samples, any number of each.
    n_projections : int, default=100
        Number of directions.
    random_state : int, RandomState instance or None, default=0
        Source of the directions.

    Returns
    -------
    distance : float
        In the unit of the samples; 0 if and only if the distributions are the same, but for
        sampling errors.

    References
    ----------
    .. [1] Bonneel, Rabin, Peyré & Pfister (2015). Sliced and Radon Wasserstein barycenters of
       measures. Journal of Mathematical Imaging and Vision 51, 22-45.

    Examples
    --------
    >>> from ssn_estimators.inspection.sampling import sliced_wasserstein
    >>> sliced_wasserstein([[0.0], [2.0]], [[1.0], [3.0]])
    1.0
    """
    x, y = _of_one_space(x, y)
    directions = check_random_state(random_state).normal(size=(n_projections, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    pairs = zip(directions @ x.T, directions @ y.T, strict=True)
    return float(np.mean([wasserstein_distance(*pair) for pair in pairs]))


DISTANCES = {"distance": energy_distance, "sliced": sliced_wasserstein}  # by names of attributes
COMPARED = ("", "_exact", "_gaussian")
