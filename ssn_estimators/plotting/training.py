"""How a network was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import unwrapped
from ssn_estimators.plotting.style import EXCITATORY, INHIBITORY, NEUTRAL, axes_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from matplotlib.axes import Axes
    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike

__all__ = ["GrowthDisplay"]


class GrowthDisplay:
    """Training loss and number of cells over the steps of training.

    Parameters
    ----------
    loss_curve : array-like of shape (n_steps,)
        Loss at every step.
    growth_history : list of dict
        Sizes and last step of every stage, as in ``SSNClassifier.growth_history_``.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where the loss was drawn.
    size_ax_ : matplotlib Axes
        The axis of the sizes, sharing the steps.
    """

    def __init__(self, *, loss_curve: ArrayLike, growth_history: Sequence[dict]) -> None:
        self.loss_curve = loss_curve
        self.growth_history = growth_history

    @classmethod
    def from_estimator(cls, estimator: BaseEstimator, *, ax: Axes | None = None) -> Self:
        """Draw the growth of a fitted `SSNClassifier` (or one in a Pipeline or search).

        Parameters
        ----------
        estimator : SSNClassifier, SSNRegressor, or Pipeline or search with one
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : GrowthDisplay
        """
        estimator, _ = unwrapped(estimator)
        check_is_fitted(estimator)
        display = cls(loss_curve=estimator.loss_curve_, growth_history=estimator.growth_history_)
        return display.plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw; see `from_estimator`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = axes_of(self, ax)
        loss = np.asarray(self.loss_curve)
        width = max(1, len(loss) // 100)
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid") if len(loss) else loss
        ax.plot(np.arange(len(loss)) + 1, loss, color=NEUTRAL, alpha=0.25, lw=0.8)
        ax.plot(np.arange(len(smooth)) + width, smooth, color=NEUTRAL, label="loss")
        ax.set(xlabel="optimiser step", ylabel="training cost")
        ax.set_ylim(bottom=min(0.0, smooth.min(initial=0.0)))
        self.size_ax_ = ax.twinx()
        ends = [0] + [stage["n_iter"] for stage in self.growth_history]
        for name, colour in (("n_excitatory", EXCITATORY), ("n_inhibitory", INHIBITORY)):
            sizes = [stage[name] for stage in self.growth_history]
            label = f"{name[2:]} cells"
            self.size_ax_.step(ends, sizes[:1] + sizes, where="pre", color=colour, label=label)
        self.size_ax_.set_ylabel("number of cells")
        self.size_ax_.set_ylim(bottom=0)
        handles = [h for a in (ax, self.size_ax_) for h in a.get_legend_handles_labels()[0]]
        ax.legend(handles=handles, loc="center right", frameon=False)
        return self
