"""How the scores of models fall with noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ssn_estimators._torch import to_numbers
from ssn_estimators.lateral import robustness_curve
from ssn_estimators.plotting.style import TYPES, axes_of, band

if TYPE_CHECKING:
    from typing import Any, Self

    from matplotlib.axes import Axes

    from ssn_estimators._typing import ArrayLike

__all__ = ["RobustnessDisplay"]

MODELS = (*TYPES[2:], *TYPES[:2])  # those of E and I cells last
STRENGTHS = {
    "gaussian": "standard deviation of the noise",
    "salt_pepper": "share of noisy pixels",
}


class RobustnessDisplay:
    """Scores against the strength of noise, a line for each model.

    Parameters
    ----------
    levels : array-like of shape (n_levels,)
        Strengths of the noise.
    scores : mapping of str to array-like of shape (n_levels,) or (n_levels, n_seeds)
        Scores of each model, by its name. Over seeds, such as those of fits or of the noise, the
        line is the mean, and a band of one standard deviation is around it.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
        One for each model.

    Examples
    --------
    >>> from ssn_estimators import RobustnessDisplay
    >>> scores = {"plain": [[0.9, 0.8], [0.5, 0.6]], "gated": [[0.9, 0.9], [0.7, 0.8]]}
    >>> RobustnessDisplay(levels=[0.0, 0.5], scores=scores).plot()  # doctest: +SKIP
    """

    def __init__(self, *, levels: ArrayLike, scores: Mapping[str, ArrayLike]) -> None:
        self.levels = levels
        self.scores = scores

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        X: ArrayLike,
        y: ArrayLike,
        *,
        levels: ArrayLike = (0.0, 0.2, 0.4, 0.6),
        ax: Axes | None = None,
        label: str = "accuracy",
        **parameters: Any,
    ) -> Self:
        """Score fitted estimators on ever noisier inputs, and draw that.

        Parameters
        ----------
        estimators : mapping of str to estimator, or to sequence of estimators
            Fitted, by the name of the model. Bands are over the estimators of a sequence, such as
            fits with several seeds, or else over the draws of the noise.
        X, y, levels, **parameters
            As in :func:`.robustness_curve`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        label : str, default="accuracy"
            What the score is.

        Returns
        -------
        display : RobustnessDisplay
        """
        if not isinstance(estimators, Mapping):
            raise TypeError(
                "estimators must be a mapping of names to fitted estimators, got "
                f"{type(estimators).__name__}."
            )
        parameters["levels"] = levels
        scores = {}
        for name, fitted in estimators.items():
            if hasattr(fitted, "predict"):
                scores[name] = robustness_curve(fitted, X, y, **parameters)
            else:
                curves = [robustness_curve(one, X, y, **parameters).mean(1) for one in fitted]
                scores[name] = np.stack(curves, 1)
        noise = parameters.get("noise", "gaussian")
        strength = STRENGTHS.get(noise) if isinstance(noise, str) else None
        return cls(levels=levels, scores=scores).plot(ax=ax, label=label, strength=strength)

    def plot(
        self, *, ax: Axes | None = None, label: str = "accuracy", strength: str | None = None
    ) -> Self:
        """Draw; see `from_estimators`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        label : str, default="accuracy"
            What the score is.
        strength : str, default=None
            What the strength of the noise is; None calls it that.

        Returns
        -------
        display : RobustnessDisplay

        Raises
        ------
        ValueError
            If scores are not as many as levels.
        """
        levels, scores = to_numbers(self.levels, float, "levels"), {}
        for name, values in self.scores.items():
            values = to_numbers(values, float, "scores")
            scores[name] = values[:, None] if values.ndim == 1 else values
            if scores[name].ndim != 2 or len(values) != len(levels):
                raise ValueError(
                    f"scores of {name!r} must have shape ({len(levels)},) or ({len(levels)}, "
                    f"n_seeds), for as many levels, got {values.shape}."
                )
        ax, self.lines_ = axes_of(self, ax), []
        for i, (name, values) in enumerate(scores.items()):
            spread = values.std(1, ddof=1) if values.shape[1] > 1 else 0.0
            look = {"colour": MODELS[i % len(MODELS)], "label": name, "marker": "o"}
            self.lines_ += band(ax, levels, values.mean(1), spread, **look)
        ax.set(xlabel=strength or "strength of the noise", ylabel=label)
        ax.legend(frameon=False)
        return self
