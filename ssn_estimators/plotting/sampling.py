"""How well a network samples a posterior."""

from __future__ import annotations

import numpy as np

from ssn_estimators._sklearn import check_matplotlib_support
from ssn_estimators.inspection.switching import stimulus_switch
from ssn_estimators.plotting.style import EXCITATORY, NEUTRAL

__all__ = ["StimulusSwitchDisplay"]


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

    def __init__(self, *, switch, image_shape=None):
        self.switch = switch
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls, estimator, X_old, X_new, *, image_shape=None, pair=0, times=None, **parameters
    ):
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

    def plot(self, *, pair=0, times=None):
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
