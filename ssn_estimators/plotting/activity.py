"""What cells of a network do in time."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import unwrapped
from ssn_estimators._torch import to_numbers
from ssn_estimators.inspection.stability import network_and_inputs
from ssn_estimators.plotting.style import EXCITATORY, INHIBITORY, TYPES, axes_of, by_type
from ssn_estimators.simulation import lasting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal, Self

    from matplotlib.axes import Axes
    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike, RandomState
    from ssn_estimators.spiking.simulation import SpikingSimulation

__all__ = ["RasterDisplay", "TrajectoryDisplay"]

MILLISECONDS = {"ms": 1.0, "s": 1000.0}  # of a unit


class TrajectoryDisplay:
    """Potentials of excitatory and inhibitory cells over time, for one trial of one input.

    Parameters
    ----------
    times : array-like of shape (n_steps,)
        In ms.
    potentials : array-like of shape (n_steps, n_neurons)
        In mV.
    n_excitatory : int
        Number of excitatory cells, which come first.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
    """

    def __init__(self, *, times: ArrayLike, potentials: ArrayLike, n_excitatory: int) -> None:
        self.times = times
        self.potentials = potentials
        self.n_excitatory = n_excitatory

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: ArrayLike,
        *,
        duration: float = 300.0,
        ax: Axes | None = None,
    ) -> Self:
        """Simulate the first input of `X` from u = 0 and draw the potentials.

        Parameters
        ----------
        estimator : SSNClassifier, SSNRegressor, or Pipeline or search with one
            Fitted.
        X : array-like of shape (n_samples, n_features)
            Inputs.
        duration : float, default=300.0
            Time in ms.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : TrajectoryDisplay
        """
        network, X = network_and_inputs(estimator, X)
        whole = lasting(duration, float(np.ravel(network.dt)[-1]))
        simulation = network.simulate(
            X[:1], n_trials=1, duration=whole, burn_in=0.0, record="u", covariance=False
        )
        display = cls(
            times=simulation.times,
            potentials=simulation.u[:, 0, 0],
            n_excitatory=network.circuit_.n_excitatory,
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw; see `from_estimator`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = axes_of(self, ax)
        populations = np.split(np.asarray(self.potentials), [self.n_excitatory], axis=1)
        self.lines_: list = []
        for u, colour, name in zip(
            populations, (EXCITATORY, INHIBITORY), ("excitatory", "inhibitory"), strict=True
        ):
            self.lines_ += ax.plot(self.times, u, color=colour, alpha=0.2, lw=0.6)
            label = f"{name} (mean of {u.shape[1]})"
            self.lines_ += ax.plot(self.times, u.mean(1), color=colour, lw=2, label=label)
        ax.set(xlabel="time (ms)", ylabel="membrane potential (mV)")
        ax.legend(loc="upper right", frameon=False)
        return self


class RasterDisplay:
    """Spikes of all cells of a network in one trial.

    Parameters
    ----------
    spike_times : array-like of shape (n_spikes,)
        In ms.
    spike_neurons : array-like of shape (n_spikes,), int
        The cell of each.
    populations : mapping of str to int
        Cell types in the order of the cells, and how many cells each has.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
        The spikes of each type.

    Examples
    --------
    >>> from ssn_estimators import RasterDisplay
    >>> display = RasterDisplay(
    ...     spike_times=[1.0, 5.0, 7.5], spike_neurons=[0, 2, 1], populations={"E": 2, "I": 1}
    ... )
    >>> display.plot()  # doctest: +SKIP
    """

    def __init__(
        self, *, spike_times: ArrayLike, spike_neurons: ArrayLike, populations: Mapping[str, int]
    ) -> None:
        self.spike_times = spike_times
        self.spike_neurons = spike_neurons
        self.populations = populations

    @classmethod
    def from_simulation(
        cls,
        simulation: SpikingSimulation,
        *,
        condition: int = 0,
        trial: int = 0,
        ax: Axes | None = None,
        **how: Any,
    ) -> Self:
        """Draw the spikes of one trial.

        Parameters
        ----------
        simulation : SpikingSimulation
            Times are from the end of its cue.
        condition, trial : int, default=0
            Which trial.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **how
            Parameters of :meth:`plot`.

        Returns
        -------
        display : RasterDisplay

        Raises
        ------
        ValueError
            If there is no such trial.
        """
        shape = simulation.drive.shape[:2]
        for name, value, n in zip(("condition", "trial"), (condition, trial), shape, strict=True):
            if not isinstance(value, Integral) or not 0 <= value < n:
                raise ValueError(f"{name} must be from 0 to {n - 1}, got {value!r}.")
        own = (simulation.spike_conditions == condition) & (simulation.spike_trials == trial)
        display = cls(
            spike_times=simulation.spike_times[own],
            spike_neurons=simulation.spike_neurons[own],
            populations=simulation.populations,
        )
        return display.plot(ax=ax, **how)

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: ArrayLike | None = None,
        *,
        random_state: RandomState = None,
        ax: Axes | None = None,
        **how: Any,
    ) -> Self:
        """Simulate one trial of the first cue, and draw its spikes.

        Parameters
        ----------
        estimator : SpikingRegressor, or Pipeline or search with one
            Fitted.
        X : None or array-like, default=None
            Cue currents, as in its `fit`.
        random_state : int, RandomState instance or None, default=None
            Source of initial potentials; None takes the seed that `predict` uses.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **how
            Parameters of :meth:`plot`.

        Returns
        -------
        display : RasterDisplay

        Raises
        ------
        TypeError
            If the network has no spikes.
        """
        network, X = unwrapped(estimator, X)
        check_is_fitted(network)
        if not hasattr(network, "plastic_weights_"):
            raise TypeError(f"a SpikingRegressor is needed, got {type(network).__name__}.")
        X = None if X is None else X[:1]
        simulation = network.simulate(X, n_trials=1, random_state=random_state)
        return cls.from_simulation(simulation, ax=ax, **how)

    def plot(
        self,
        *,
        ax: Axes | None = None,
        unit: Literal["ms", "s"] = "ms",
        window: tuple[float, float] | None = None,
        order: ArrayLike | None = None,
    ) -> Self:
        """Draw; see `from_simulation`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        unit : {"ms", "s"}, default="ms"
            Of the time axis.
        window : (float, float), default=None
            First and last time drawn, in ms; None draws all spikes.
        order : array-like of shape (n_neurons,), default=None
            Numbers of all cells in the order in which those of each type are drawn, from below.
            None leaves the cells as they are.

        Returns
        -------
        display : RasterDisplay

        Raises
        ------
        ValueError
            If there is no such unit, `order` does not have every cell once, `window` is empty, or
            spikes are not of a cell and a time each.
        """
        if not isinstance(unit, str) or unit not in MILLISECONDS:
            raise ValueError(f"unit must be one of {sorted(MILLISECONDS)}, got {unit!r}.")
        sizes, scale = list(self.populations.values()), MILLISECONDS[unit]
        times, neurons = to_numbers(self.spike_times, float), to_numbers(self.spike_neurons)
        legal = (neurons >= 0) & (neurons < sum(sizes)) & (neurons == np.floor(neurons))
        if times.ndim != 1 or times.shape != neurons.shape or not legal.all():
            raise ValueError(
                f"each spike must have a time and a cell from 0 to {sum(sizes) - 1}, got "
                f"{times.shape} times and cells {np.unique(neurons)}."
            )
        neurons = neurons.astype(int)
        if window is not None and not window[0] < window[1]:
            raise ValueError(f"window must be a first and a later time, got {window!r}.")
        cells = by_type(order, sizes)
        place = np.empty(len(cells), int)
        place[cells] = np.arange(len(cells))
        if window is not None:
            shown = (times >= window[0]) & (times <= window[1])
            times, neurons = times[shown], neurons[shown]
        ax = axes_of(self, ax)
        self.lines_: list = []
        kinds = np.searchsorted(np.cumsum(sizes), neurons, side="right")
        for i, name in enumerate(self.populations):
            x, y = times[kinds == i] / scale, place[neurons[kinds == i]]
            self.lines_ += ax.plot(x, y, "|", ms=2.5, color=TYPES[i % len(TYPES)], label=name)
        ax.set(xlabel=f"time ({unit})", ylabel="neuron" if order is None else "neuron (sorted)")
        ax.set_ylim(-0.5, len(cells) - 0.5)
        ax.yaxis.get_major_locator().set_params(integer=True)
        if window is not None:
            ax.set_xlim(window[0] / scale, window[1] / scale)
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, markerscale=3)
        return self
