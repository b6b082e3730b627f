"""What populations of a circuit answer to stimuli."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np

from ssn_estimators._torch import to_numbers
from ssn_estimators.inspection.populations import means_by_population, types_of
from ssn_estimators.inspection.responses import contrast_response, size_tuning, stable_rates
from ssn_estimators.inspection.spectra import power_spectrum
from ssn_estimators.inspection.stability import network_and_inputs
from ssn_estimators.plotting.style import TYPES, axes_of, band, lines_by_population

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal, Self

    from matplotlib.axes import Axes
    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike
    from ssn_estimators.circuit import Circuit
    from ssn_estimators.inspection.responses import ContrastResponse, SizeTuning

__all__ = ["ContrastResponseDisplay", "SizeTuningDisplay", "SpectrumDisplay", "TuningDisplay"]


class ContrastResponseDisplay:
    """Mean rate of each population over contrast.

    Parameters
    ----------
    response : ContrastResponse
        As from :func:`inspection.contrast_response`.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
        One for each population.
    """

    def __init__(self, *, response: ContrastResponse) -> None:
        self.response = response

    @classmethod
    def from_circuit(
        cls,
        circuit: Circuit,
        pattern: ArrayLike,
        contrasts: ArrayLike,
        *,
        ax: Axes | None = None,
        **parameters: Any,
    ) -> Self:
        """Compute the response of a circuit and draw it.

        Parameters
        ----------
        circuit : Circuit
            The circuit.
        pattern, contrasts, **parameters
            As in :func:`inspection.contrast_response`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : ContrastResponseDisplay
        """
        response = contrast_response(circuit, pattern, contrasts, **parameters)
        return cls(response=response).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw; see `from_circuit`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = axes_of(self, ax)
        curves = self.response.by_population()
        self.lines_ = lines_by_population(ax, self.response.contrasts, curves)
        ax.set(xlabel="contrast", ylabel="firing rate (Hz)")
        return self


class SizeTuningDisplay:
    """Mean rate of each population over the size of a stimulus.

    Parameters
    ----------
    tuning : SizeTuning
        As from :func:`inspection.size_tuning`.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
        One for each population and contrast; the last contrast is the darkest.
    """

    def __init__(self, *, tuning: SizeTuning) -> None:
        self.tuning = tuning

    @classmethod
    def from_circuit(
        cls,
        circuit: Circuit,
        drives: ArrayLike,
        sizes: ArrayLike,
        *,
        ax: Axes | None = None,
        **parameters: Any,
    ) -> Self:
        """Compute the tuning of a circuit and draw it.

        Parameters
        ----------
        circuit : Circuit
            The circuit.
        drives, sizes, **parameters
            As in :func:`inspection.size_tuning`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : SizeTuningDisplay
        """
        return cls(tuning=size_tuning(circuit, drives, sizes, **parameters)).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw; see `from_circuit`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = axes_of(self, ax)
        curves = means_by_population(self.tuning.rates, self.tuning.types)
        self.lines_ = lines_by_population(ax, self.tuning.sizes, curves)
        ax.set(xlabel="size", ylabel="firing rate (Hz)")
        return self


class SpectrumDisplay:
    """Power spectrum of the potentials, or the rates, of each population.

    Parameters
    ----------
    frequencies : array-like of shape (n_frequencies,)
        In Hz.
    power : dict of str to array-like of shape (n_frequencies,) or (n_inputs, n_frequencies)
        In mV**2 / Hz, or Hz**2 / Hz, by population.
    of : {"u", "r"}, default="u"
        Whether it is that of potentials or of rates.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
        One for each population and input; the last input is the darkest.
    """

    def __init__(
        self, *, frequencies: ArrayLike, power: Mapping[str, ArrayLike], of: Literal["u", "r"] = "u"
    ) -> None:
        self.frequencies = frequencies
        self.power = power
        self.of = of

    @classmethod
    def from_circuit(
        cls,
        circuit: Circuit,
        drive: ArrayLike,
        frequencies: ArrayLike,
        *,
        ax: Axes | None = None,
        **parameters: Any,
    ) -> Self:
        """Compute the spectra of a circuit, and draw their means over the cells of a population.

        Parameters
        ----------
        circuit : Circuit
            The circuit.
        drive, frequencies, **parameters
            As in :func:`inspection.power_spectrum`, of all cells.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : SpectrumDisplay
        """
        power = power_spectrum(circuit.to_numpy(), drive, frequencies, **parameters)
        power = means_by_population(power, types_of(circuit))
        display = cls(frequencies=frequencies, power=power, of=parameters.get("of", "u"))
        return display.plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw; see `from_circuit`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = axes_of(self, ax)
        self.lines_ = lines_by_population(ax, self.frequencies, self.power)
        unit = "mV" if self.of == "u" else "Hz"
        ax.set(xlabel="frequency (Hz)", ylabel=f"power ({unit}$^2$ / Hz)", yscale="log")
        return self


class TuningDisplay:
    """Mean rate of each population over a variable of the stimulus, such as its orientation.

    Parameters
    ----------
    values : array-like of shape (n_stimuli,)
        The variable, of each stimulus.
    rates : array-like of shape (n_stimuli, n_cells)
        Rates in Hz; NaN is left out.
    types : array-like of shape (n_cells,)
        Name of the population of each cell.
    preferred : array-like of shape (n_cells,), default=None
        The value that each cell prefers: curves are over the difference from it. NaN leaves a cell
        out. None: they are over the values.
    period : float, default=None
        After which differences begin again, such as 180 degrees of orientation.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
        One for each population: means over its cells, and over stimuli of the same value or
        difference. Bands are one standard deviation.

    Examples
    --------
    >>> from ssn_estimators import TuningDisplay
    >>> rates = [[9.0, 1.0, 5.0], [1.0, 9.0, 5.0]]  # of two stimuli
    >>> display = TuningDisplay(values=[0.0, 90.0], rates=rates, types=["E", "E", "I"])
    >>> display.plot(label="orientation (deg)")  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        values: ArrayLike,
        rates: ArrayLike,
        types: ArrayLike,
        preferred: ArrayLike | None = None,
        period: float | None = None,
    ) -> None:
        self.values = values
        self.rates = rates
        self.types = types
        self.preferred = preferred
        self.period = period

    @classmethod
    def from_circuit(
        cls,
        circuit: Circuit,
        drives: ArrayLike,
        values: ArrayLike,
        *,
        preferred: ArrayLike | None = None,
        period: float | None = None,
        ax: Axes | None = None,
        **how: Any,
    ) -> Self:
        """Draw rates of a circuit in its stable states, found from rest.

        Parameters
        ----------
        circuit : Circuit
            The circuit.
        drives : array-like of shape (n_stimuli, n_neurons)
            External drive f(h) in mV by each stimulus.
        values, preferred, period
            As of the class.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **how
            Parameters of :meth:`plot`.

        Returns
        -------
        display : TuningDisplay
        """
        rates = stable_rates(circuit, to_numbers(drives, float, "drives"))
        display = cls(
            values=values,
            rates=rates,
            types=types_of(circuit),
            preferred=preferred,
            period=period,
        )
        return display.plot(ax=ax, **how)

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: ArrayLike,
        values: ArrayLike,
        *,
        preferred: ArrayLike | None = None,
        period: float | None = None,
        ax: Axes | None = None,
        label: str | None = None,
        n_bins: int | None = None,
        **parameters: Any,
    ) -> Self:
        """Simulate a fitted network, and draw its mean rates.

        Parameters
        ----------
        estimator : SSNClassifier, SSNRegressor or SSNSampler, or Pipeline or search with one
            Fitted.
        X : array-like of shape (n_stimuli, n_features)
            Inputs; several may have the same value.
        values, preferred, period
            As of the class.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        label, n_bins
            As in :meth:`plot`.
        **parameters
            Parameters of the network's `simulate`.

        Returns
        -------
        display : TuningDisplay

        Raises
        ------
        DivergenceError
            If a trial diverges.
        """
        network, X = network_and_inputs(estimator, X)
        simulation = network.simulate(X, **({"covariance": False} | parameters))
        simulation.check_finite()
        display = cls(
            values=values,
            rates=simulation.rates,
            types=types_of(network.circuit_),
            preferred=preferred,
            period=period,
        )
        return display.plot(ax=ax, label=label, n_bins=n_bins)

    def plot(
        self, *, ax: Axes | None = None, label: str | None = None, n_bins: int | None = None
    ) -> Self:
        """Draw; see `from_circuit`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        label : str, default=None
            What the variable is, with its unit.
        n_bins : int, default=None
            Bins of the variable, over which means are taken; None takes every value apart.

        Returns
        -------
        display : TuningDisplay

        Raises
        ------
        ValueError
            If shapes do not fit together, no rate is known, or the period or the number of bins is
            not legal.
        """
        places, rates, types = self._checked()
        if n_bins is not None and (not isinstance(n_bins, Integral) or n_bins < 1):
            raise ValueError(f"n_bins must be None or an integer of at least 1, got {n_bins!r}.")
        places = _places(places, self.period if self.preferred is not None else None, n_bins)
        ax, self.lines_ = axes_of(self, ax), []
        for i, name in enumerate(dict.fromkeys(types)):
            own = types == name
            chosen = np.isfinite(places[:, own]) & np.isfinite(rates[:, own])
            found = rates[:, own][chosen]
            x, which, count = np.unique(
                places[:, own][chosen], return_inverse=True, return_counts=True
            )
            mean = np.bincount(which, found) / count
            spread = np.sqrt(np.bincount(which, (found - mean[which]) ** 2) / count)
            look = {"colour": TYPES[i % len(TYPES)], "label": str(name)}
            self.lines_ += band(ax, x, mean, spread, marker="o", **look)
        if self.preferred is not None:
            label = f"{label or 'stimulus'}, from the preferred"
        ax.set(xlabel=label or "stimulus", ylabel="firing rate (Hz)")
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False)
        return self

    def _checked(self):
        """The variable of every stimulus and cell, rates and types, if they fit together."""
        values, rates = (to_numbers(x, float) for x in (self.values, self.rates))
        types = np.asarray(self.types)
        if rates.ndim != 2 or rates.shape != (*values.shape, *types.shape):
            raise ValueError(
                "rates must have shape (n_stimuli, n_cells), got "
                f"{rates.shape} for values of shape {values.shape} and types of {types.shape}."
            )
        places = np.repeat(values[:, None], len(types), axis=1)
        if self.preferred is not None:
            preferred = to_numbers(self.preferred, float, "preferred")
            if preferred.shape != types.shape:
                raise ValueError(
                    f"preferred must have shape {types.shape}, one value for each cell, got "
                    f"{preferred.shape}."
                )
            places -= preferred
        period = self.period
        if period is not None and not (isinstance(period, Real) and 0 < period < np.inf):
            raise ValueError(f"period must be None or a number above 0, got {period!r}.")
        if not (np.isfinite(places) & np.isfinite(rates)).any():
            raise ValueError("there must be a rate that is known at a value that is.")
        return places, rates, types


def _places(x, period, n_bins):
    """Values without rounding errors, within half a period of 0 and in bins if there are any."""
    low, width = (np.nanmin(x), np.ptp(x[np.isfinite(x)]) or 1.0)
    if period is not None:
        low, width = -period / 2, period
    shares = (x - low) / width
    if n_bins is None:
        shares = np.round(shares, 9)
        return low + width * (shares if period is None else shares % 1)
    bins = np.floor(np.round(shares * n_bins, 6))  # a value at the edge of a bin is in it
    bins = bins.clip(max=n_bins - 1) if period is None else bins % n_bins
    return low + width * (bins + 0.5) / n_bins
