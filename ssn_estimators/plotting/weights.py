"""Weights between the cells of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import unwrapped
from ssn_estimators._torch import to_numbers
from ssn_estimators.plotting.style import EXCITATORY, INHIBITORY, axes_of, by_type

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

    from matplotlib.axes import Axes
    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike, SparseLike
    from ssn_estimators.circuit import Circuit

__all__ = ["WeightsDisplay"]

LINE = "0.4"  # between types of cells


class WeightsDisplay:
    """Weights W[post, pre] between all cells, with lines between their types.

    Parameters
    ----------
    weights : array-like or sparse array of shape (n_neurons, n_neurons)
        In mV s. Of a sparse array, synapses are drawn as points, whatever the number of cells.
    populations : mapping of str to int
        Cell types in the order of the cells, and how many cells each has.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    image_ : matplotlib AxesImage, or PathCollection of a sparse array
    colorbar_ : matplotlib Colorbar

    Examples
    --------
    >>> from ssn_estimators import Circuit, WeightsDisplay
    >>> circuit = Circuit([[0.3, 0.2, -0.4], [0.1, 0.3, -0.4], [0.5, 0.5, -0.2]], n_excitatory=2)
    >>> display = WeightsDisplay.from_circuit(circuit)  # doctest: +SKIP
    """

    def __init__(self, *, weights: SparseLike, populations: Mapping[str, int]) -> None:
        self.weights = weights
        self.populations = populations

    @classmethod
    def from_circuit(cls, circuit: Circuit, *, ax: Axes | None = None, **how: Any) -> Self:
        """Draw the weights of a circuit.

        Parameters
        ----------
        circuit : Circuit
            With weights of any kind: of NumPy, torch or sparse.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **how
            Parameters of :meth:`plot`.

        Returns
        -------
        display : WeightsDisplay
        """
        weights, populations = circuit.to_numpy().weights, dict(circuit.populations)
        return cls(weights=weights, populations=populations).plot(ax=ax, **how)

    @classmethod
    def from_estimator(
        cls, estimator: BaseEstimator, *, ax: Axes | None = None, **how: Any
    ) -> Self:
        """Draw the weights of a fitted network.

        Parameters
        ----------
        estimator : estimator with a `circuit_`, or Pipeline or search with one
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **how
            Parameters of :meth:`plot`.

        Returns
        -------
        display : WeightsDisplay

        Raises
        ------
        TypeError
            If the estimator has no circuit.
        """
        network, _ = unwrapped(estimator)
        check_is_fitted(network)
        if not hasattr(network, "circuit_"):
            raise TypeError(
                f"an estimator with a circuit_ is needed, got {type(network).__name__}."
            )
        return cls.from_circuit(network.circuit_, ax=ax, **how)

    def plot(
        self, *, ax: Axes | None = None, order: ArrayLike | None = None, limit: float | None = None
    ) -> Self:
        """Draw; see `from_circuit`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        order : array-like of shape (n_neurons,), default=None
            Numbers of all cells in the order in which those of each type are drawn, such as the
            `argsort` of what they prefer. None leaves the cells as they are.
        limit : float, default=None
            The weight in mV s, of either sign, at which the colours end; give several displays the
            same to compare them. None takes the largest weight.

        Returns
        -------
        display : WeightsDisplay

        Raises
        ------
        ValueError
            If `order` does not have every cell once, or `limit` is not positive.
        """
        weights = self.weights if issparse(self.weights) else to_numbers(self.weights, float)
        sizes = list(self.populations.values())
        if weights.shape != (sum(sizes),) * 2:
            raise ValueError(
                f"weights must have shape {(sum(sizes),) * 2} for these populations, got "
                f"{weights.shape}."
            )
        if limit is not None and not limit > 0:
            raise ValueError(f"limit must be positive, in mV s, got {limit!r}.")
        order = by_type(order, sizes)
        if limit is None:
            limit = float(abs(weights).max()) or 1.0
        ax = axes_of(self, ax)
        draw = _points if issparse(weights) else _image
        self.image_ = draw(ax, weights, order, {"cmap": _colours(), "vmin": -limit, "vmax": limit})
        edges = np.cumsum([0, *sizes]) - 0.5
        for edge in edges[1:-1]:
            ax.axhline(edge, color=LINE, lw=0.8)
            ax.axvline(edge, color=LINE, lw=0.8)
        middles = (edges[1:] + edges[:-1]) / 2
        ax.set_xticks(middles, list(self.populations))
        ax.set_yticks(middles, list(self.populations))
        ax.tick_params(length=0)
        ax.set(xlabel="presynaptic cell", ylabel="postsynaptic cell")
        self.colorbar_ = ax.figure.colorbar(self.image_, ax=ax, label="weight (mV s)")
        return self


def _colours():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("weights", [INHIBITORY, "white", EXCITATORY])


def _image(ax, weights, order, scale):
    return ax.imshow(weights[np.ix_(order, order)], interpolation="nearest", **scale)


def _points(ax, weights, order, scale):
    """Synapses that there are: a matrix of as many pixels might not fit into memory."""
    synapses, place = weights.tocoo(), np.empty(len(order), int)
    place[order] = np.arange(len(order))
    n = len(order)
    ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect="equal")
    # of a pixel's size while these can be told apart
    size = max(0.5, 150.0 / n) ** 2
    x, y = place[synapses.col], place[synapses.row]
    how = {"s": size, "marker": "s", "linewidths": 0, "rasterized": True}
    return ax.scatter(x, y, c=synapses.data, **how, **scale)
