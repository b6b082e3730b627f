"""How well a network samples a posterior."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from ssn_estimators._sklearn import check_matplotlib_support
from ssn_estimators.inspection.stability import sampler_and_inputs
from ssn_estimators.inspection.switching import stimulus_switch
from ssn_estimators.plotting.style import EXCITATORY, NEUTRAL, TYPES, axes_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self

    from matplotlib.axes import Axes
    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike, RandomState
    from ssn_estimators.inspection.switching import StimulusSwitch

__all__ = ["PosteriorDisplay", "StimulusSwitchDisplay"]

NETWORK = TYPES[2]  # neither E nor I


class StimulusSwitchDisplay:
    """Percept, means and variances at some times after a change of the stimulus.

    Parameters
    ----------
    switch : StimulusSwitch
        What :func:`stimulus_switch` saw, of a generative model.
    image_shape : tuple of int, default=None
        Rows and columns of the percepts; None leaves them out.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Percepts (if any), means and variances in rows, one column for each time.
    figure_ : matplotlib Figure
        Where they are.
    times_ : ndarray of shape (n_columns,)
        Times of the columns, in ms.
    """

    def __init__(self, *, switch: StimulusSwitch, image_shape: Sequence[int] | None = None) -> None:
        self.switch = switch
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X_old: ArrayLike,
        X_new: ArrayLike,
        *,
        image_shape: Sequence[int] | None = None,
        pair: int = 0,
        times: ArrayLike | None = None,
        **parameters: Any,
    ) -> Self:
        """Simulate and draw the switch of a fitted `SSNSampler`.

        Parameters
        ----------
        estimator : SSNSampler, or Pipeline or search with one
            Fitted, with a generative model.
        X_old, X_new : array-likes of shape (n_pairs, n_features)
            Stimuli before and after the switch.
        image_shape : tuple of int, default=None
            Rows and columns of the percepts; None leaves them out.
        pair : int, default=0
            Which pair of stimuli to draw.
        times : sequence of float, default=None
            Times in ms; by default 0, 10, 20, 40 and the last one.
        **parameters
            Parameters of :func:`stimulus_switch`.

        Returns
        -------
        display : StimulusSwitchDisplay
        """
        switch = stimulus_switch(estimator, X_old, X_new, **parameters)
        return cls(switch=switch, image_shape=image_shape).plot(pair=pair, times=times)

    def plot(self, *, pair: int = 0, times: ArrayLike | None = None) -> Self:
        """Draw; see `from_estimator`.

        Parameters
        ----------
        pair : int, default=0
            Which pair of stimuli to draw.
        times : sequence of float, default=None
            Times in ms; by default 0, 10, 20, 40 and the last one.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        switch = self.switch
        if switch.new_mean is None:
            raise ValueError("there are no posteriors to compare with: the model is missing.")
        wanted = (0.0, 10.0, 20.0, 40.0, switch.times[-1]) if times is None else times
        steps = [int(abs(switch.times - t).argmin()) for t in wanted]
        self.times_ = switch.times[steps]
        with_percepts = self.image_shape is not None and switch.percepts is not None
        self.figure_, self.axes_ = plt.subplots(
            2 + with_percepts,
            len(steps),
            figsize=(2.2 * len(steps), 2.3 * (2 + with_percepts)),
            squeeze=False,
            layout="constrained",
        )
        for axes, step in zip(self.axes_.T, steps, strict=True):
            axes[0].set_title(f"{switch.times[step]:g} ms")
            if with_percepts:
                limit = abs(switch.percepts[:, pair]).max()
                axes[0].imshow(
                    switch.percepts[step, pair].reshape(self.image_shape),
                    cmap="gray",
                    vmin=-limit,
                    vmax=limit,
                )
                axes[0].set_axis_off()
            for ax, name in zip(axes[-2:], ("mean", "variance"), strict=True):
                found = getattr(switch, name)[step, pair]
                for when, colour in (("old", NEUTRAL), ("new", EXCITATORY)):
                    target = getattr(switch, f"{when}_{name}")[pair]
                    ax.plot(target, found, ".", ms=4, color=colour, label=f"{when} stimulus")
                ends = [getattr(switch, f"{when}_{name}")[pair] for when in ("old", "new")]
                low, high = np.min(ends), np.max(ends)
                ax.plot([low, high], [low, high], color="0.8", lw=0.8, zorder=0)
                ax.set_xlabel(f"posterior {name}")
        for ax, name in zip(self.axes_[-2:, 0], ("mean", "variance"), strict=True):
            ax.set_ylabel(f"{name} of the samples")
        found = {name: switch.time_to(0.9, name)[pair] for name in ("mean", "variance")}
        ways = [f"{name}s {time:.0f} ms" for name, time in found.items() if np.isfinite(time)]
        if ways:
            self.figure_.suptitle(f"90% of the way: {', '.join(ways)}", fontsize="medium")
        self.axes_[-2, 0].legend(frameon=False, fontsize="small")
        return self


class PosteriorDisplay:
    """Two latents under a network's samples, and under the posterior that these should have.

    Parameters
    ----------
    mean, target_mean : array-like of shape (n_latents,)
        Of the samples and of the posterior, in mV.
    covariance, target_covariance : array-like of shape (n_latents, n_latents)
        Of the samples and of the posterior, in mV**2.
    samples : array-like of shape (n_samples, n_latents), default=None
        Samples of the network, in mV.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    ellipses_ : dict of str to list of matplotlib lines
        At one and at two standard deviations, of "network" and of "posterior".
    dots_ : matplotlib line, or None
        The samples.

    Examples
    --------
    >>> from ssn_estimators import PosteriorDisplay
    >>> display = PosteriorDisplay(
    ...     mean=[1.0, 2.0],
    ...     covariance=[[1.0, 0.2], [0.2, 0.5]],
    ...     target_mean=[1.1, 2.0],
    ...     target_covariance=[[1.0, 0.4], [0.4, 0.6]],
    ... )
    >>> display.plot()  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        mean: ArrayLike,
        covariance: ArrayLike,
        target_mean: ArrayLike,
        target_covariance: ArrayLike,
        samples: ArrayLike | None = None,
    ) -> None:
        self.mean = mean
        self.covariance = covariance
        self.target_mean = target_mean
        self.target_covariance = target_covariance
        self.samples = samples

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: ArrayLike,
        *,
        target: tuple[ArrayLike, ArrayLike] | None = None,
        index: int = 0,
        n_samples: int = 200,
        random_state: RandomState = 0,
        ax: Axes | None = None,
        **how: Any,
    ) -> Self:
        """Draw samples of a fitted network for one input, their moments and those of the posterior.

        Parameters
        ----------
        estimator : SSNSampler, or Pipeline or search with one
            Fitted.
        X : array-like of shape (n_inputs, n_features)
            Inputs.
        target : (array-like, array-like), default=None
            Means (n_inputs, n_latents) and covariances (n_inputs, n_latents, n_latents) of the
            posterior; None takes those of the generative model.
        index : int, default=0
            The input.
        n_samples : int, default=200
            Samples that are drawn, every 20 ms; 0 draws none.
        random_state : int, RandomState instance or None, default=0
            Source of the samples' noise.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **how
            Parameters of :meth:`plot`.

        Returns
        -------
        display : PosteriorDisplay

        Raises
        ------
        TypeError
            If the network does not sample.
        ValueError
            If there are no posteriors, or there is no such input.
        DivergenceError
            If the network diverges.
        """
        sampler, X = sampler_and_inputs(estimator, X)
        X = sampler._check_X(X)
        if not isinstance(index, Integral) or not -len(X) <= index < len(X):
            raise ValueError(f"index must be that of one of {len(X)} inputs, got {index!r}.")
        one = [index % len(X)]
        if target is not None:
            target = [np.asarray(moment)[one] for moment in target]
        elif sampler.generative_model_ is None:
            raise ValueError("there is no posterior to compare with: give its target moments.")
        else:
            target = sampler._posterior_moments(X[one])
        mean, covariance = sampler.predict(X[one], return_cov=True)
        samples = None
        if n_samples:
            samples = sampler.sample(X[one], n_samples, random_state=random_state)[0]
        display = cls(
            mean=mean[0],
            covariance=covariance[0],
            target_mean=target[0][0],
            target_covariance=target[1][0],
            samples=samples,
        )
        return display.plot(ax=ax, **how)

    def plot(self, *, ax: Axes | None = None, latents: tuple[int, int] = (0, 1)) -> Self:
        """Draw; see `from_estimator`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        latents : (int, int), default=(0, 1)
            Those along x and y.

        Returns
        -------
        display : PosteriorDisplay

        Raises
        ------
        ValueError
            If there are no such two latents.
        """
        n, pair = len(self.mean), list(latents)
        if len(set(pair)) != 2 or not all(isinstance(k, Integral) and 0 <= k < n for k in pair):
            raise ValueError(f"latents must be two of {n}, counted from 0, got {latents!r}.")
        ax, self.ellipses_, self.dots_ = axes_of(self, ax), {}, None
        if self.samples is not None:
            x, y = np.asarray(self.samples)[:, pair].T
            self.dots_ = ax.plot(x, y, ".", ms=3, color=NETWORK, alpha=0.5, label="samples")[0]
        for name, mean, covariance, colour in (
            ("posterior", self.target_mean, self.target_covariance, NEUTRAL),
            ("network", self.mean, self.covariance, NETWORK),
        ):
            mean, covariance = np.asarray(mean)[pair], np.asarray(covariance)[np.ix_(pair, pair)]
            ax.plot(*mean, "+", color=colour)
            self.ellipses_[name] = [
                ax.plot(*_ellipse(mean, covariance, k), color=colour, ls=style, label=label)[0]
                for k, style, label in ((1, "-", name), (2, "--", None))
            ]
        ax.set(xlabel=f"latent {pair[0]} (mV)", ylabel=f"latent {pair[1]} (mV)", aspect="equal")
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
        ax.legend(title="1 and 2 sd", frameon=False, fontsize="small", **beside)
        return self


def _ellipse(mean, covariance, k):
    """Points that are k standard deviations from the mean, array of shape (2, n_points)."""
    values, vectors = np.linalg.eigh(covariance)
    angles = np.linspace(0, 2 * np.pi, 181)
    circle = np.sqrt(values.clip(0))[:, None] * [np.cos(angles), np.sin(angles)]
    return mean[:, None] + k * vectors @ circle
