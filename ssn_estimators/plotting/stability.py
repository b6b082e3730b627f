"""How reliably a network stays finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ssn_estimators.inspection.stability import stability_report
from ssn_estimators.plotting.style import NEUTRAL, axes_of

if TYPE_CHECKING:
    from typing import Any, Self

    from matplotlib.axes import Axes
    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike
    from ssn_estimators.inspection.stability import StabilityReport

__all__ = ["StabilityDisplay"]


class StabilityDisplay:
    """Share of diverging trials of a trained network and its surrogates.

    Parameters
    ----------
    report : StabilityReport
        As from :func:`stability_report`.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    bars_ : matplotlib BarContainer
    """

    def __init__(self, *, report: StabilityReport) -> None:
        self.report = report

    @classmethod
    def from_estimator(
        cls, estimator: BaseEstimator, X: ArrayLike, *, ax: Axes | None = None, **parameters: Any
    ) -> Self:
        """Compute the report and draw it.

        Parameters
        ----------
        estimator : SSNClassifier, SSNRegressor, or Pipeline or search with one
            Fitted.
        X : array-like of shape (n_samples, n_features)
            Inputs.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **parameters
            Parameters of :func:`stability_report`.

        Returns
        -------
        display : StabilityDisplay
        """
        return cls(report=stability_report(estimator, X, **parameters)).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw; see `from_estimator`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = axes_of(self, ax)
        summary = self.report.summary()
        means, errors = np.array(list(summary.values())).T
        labels = ["trained", "shuffled within\nquadrants", "random, same\nvariance"]
        colours = ["#2e7d32", "#b7791f", NEUTRAL]
        self.bars_ = ax.bar(labels, means, yerr=np.nan_to_num(errors), color=colours, capsize=4)
        ax.bar_label(self.bars_, [f"{mean:.2f}" for mean in means], padding=3)
        ax.set_ylabel(f"share of trials diverging within {self.report.duration:g} ms")
        ax.set_ylim(0, 1.1)
        return self
