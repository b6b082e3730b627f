"""Responses to contrast, to size, and to two stimuli at once, as an experimenter takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from ssn_estimators._tables import data_frame
from ssn_estimators._torch import to_numbers
from ssn_estimators.circuit import Circuit
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.inspection.populations import (
    cells_of,
    choose_cells,
    means_by_population,
    types_of,
)
from ssn_estimators.inspection.steady_states import steady_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ssn_estimators._typing import ArrayLike

__all__ = [
    "ContrastResponse",
    "Normalization",
    "Peak",
    "SizeTuning",
    "contrast_response",
    "normalization",
    "size_tuning",
    "stable_rates",
]


SAME = 1e-9  # of rates, relative; what differs by less is rounding


class Peak(NamedTuple):
    """Where a response is largest.

    Attributes
    ----------
    contrast : float
        Where the rate is highest.
    rate : float
        In Hz.
    """

    contrast: float
    rate: float


@dataclass(frozen=True, eq=False)
class ContrastResponse:
    """What :func:`contrast_response` saw.

    Attributes
    ----------
    contrasts : ndarray of shape (n_contrasts,)
        In rising order.
    rates : ndarray of shape (n_contrasts, n_cells)
        In Hz; NaN where there is no stable state.
    circuit : Circuit
        The circuit that was asked.
    pattern, baseline : ndarrays of shape (n_cells,)
        In mV.
    """

    contrasts: np.ndarray
    rates: np.ndarray
    circuit: Circuit
    pattern: np.ndarray
    baseline: np.ndarray

    def by_population(self) -> dict[str, np.ndarray]:
        """Mean rates of each population.

        Returns
        -------
        rates : dict of str to ndarray of shape (n_contrasts,)
            In Hz.
        """
        return means_by_population(self.rates, types_of(self.circuit))

    def to_dataframe(self) -> pd.DataFrame:
        """Mean rates of populations in columns, one row for each contrast.

        Returns
        -------
        frame : pandas.DataFrame

        Raises
        ------
        ImportError
            If there is no pandas.
        """
        return data_frame({"contrast": self.contrasts, **self.by_population()})

    def supersaturation(self, population: str | None = None) -> Peak:
        """Contrast from which on more contrast lowers the response.

        Parameters
        ----------
        population : str, default=None
            Whose mean rate; None means the first one.

        Returns
        -------
        peak : Peak
            The largest mean rate between the first and the last of the contrasts, and where it is,
            between those given too. NaN if it is at the last one, or the last one with a stable
            state, as those of a rate that does not change: there is no supersaturation.
        """
        of = self._mean_rate(population)
        rates = of(self.contrasts)
        known = rates[np.isfinite(rates)]
        # the last of those that are the highest but for rounding: constant rates have no peak
        like_highest = np.flatnonzero(rates >= (1 - SAME) * known.max(initial=0.0))
        highest = like_highest[-1] if len(known) else len(rates) - 1
        if highest == len(rates) - 1 or np.isnan(rates[highest + 1]):
            return Peak(np.nan, np.nan)
        low, high = self.contrasts[max(highest - 1, 0)], self.contrasts[highest + 1]
        found = minimize_scalar(
            lambda contrast: -of([contrast])[0],
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-6 * high},
        )
        return Peak(float(found.x), float(-found.fun))

    def sublinear_onset(self, population: str | None = None) -> float:
        """Contrast c at which the response to 2c is twice that to c.

        Below, responses grow faster than contrast; above, more slowly. Responses are those above
        the rate at contrast 0.

        Parameters
        ----------
        population : str, default=None
            Whose mean rate; None means the first one.

        Returns
        -------
        contrast : float
            The first one between the contrasts given; NaN if there is none, or no stable state on
            the way to it.
        """
        of = self._mean_rate(population)
        rest = of([0.0])[0]

        def excess(contrasts):
            contrasts = np.asarray(contrasts)
            return of(2 * contrasts) - 2 * of(contrasts) + rest

        found = excess(self.contrasts)
        faster = found > SAME * of(2 * self.contrasts)
        falls = np.flatnonzero(faster[:-1] & (found[1:] <= 0))
        if not len(falls):
            return np.nan
        low, high = self.contrasts[falls[0]], self.contrasts[falls[0] + 1]

        def stable_excess(contrast):
            (value,) = excess([contrast])
            if np.isnan(value):
                raise DivergenceError
            return value

        try:
            return float(brentq(stable_excess, low, high, rtol=1e-10))
        except DivergenceError:
            return np.nan

    def _mean_rate(self, population):
        """Mean rate of a population as a function of contrasts."""
        name = next(iter(self.circuit.populations)) if population is None else population
        cells = cells_of(self.circuit, name)

        def rates(contrasts):
            drive = self.baseline + np.asarray(contrasts)[:, None] * self.pattern
            return stable_rates(self.circuit, drive)[:, cells].mean(1)

        return rates


def contrast_response(
    circuit: Circuit, pattern: ArrayLike, contrasts: ArrayLike, *, baseline: ArrayLike = 0.0
) -> ContrastResponse:
    """Steady rates of a circuit at several contrasts of one stimulus.

    Parameters
    ----------
    circuit : Circuit
        The circuit.
    pattern : float or array-like of shape (n_cells,)
        Drive by the stimulus at contrast 1, in mV.
    contrasts : array-like of shape (n_contrasts,)
        In rising order, >= 0; the drive is baseline + contrast * pattern.
    baseline : float or array-like of shape (n_cells,), default=0.0
        Drive without the stimulus, in mV.

    Returns
    -------
    response : ContrastResponse

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, or contrasts do not rise from 0 or above.

    References
    ----------
    .. [1] Ahmadian, Rubin & Miller (2013). Analysis of the stabilized supralinear network. Neural
       Computation 25, 1994-2037.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import contrast_response
    >>> pair = Circuit([[2.5, -1.3], [2.4, -1.0]], n_excitatory=1, k=0.04)
    >>> response = contrast_response(pair, 1.0, [1.0, 5.0, 20.0, 50.0, 100.0])
    >>> response.by_population()["E"].round(2)
    array([ 0.04,  1.95, 16.34, 20.86, 19.49])
    >>> round(response.sublinear_onset(), 2), round(response.supersaturation().contrast, 1)
    (8.24, 60.6)
    """
    contrasts = to_numbers(contrasts, float, "contrasts")
    if contrasts.ndim != 1 or not contrasts.size or not np.isfinite(contrasts).all():
        raise ValueError(f"contrasts must be one or more finite numbers, got {contrasts!r}.")
    if contrasts[0] < 0 or (np.diff(contrasts) <= 0).any():
        raise ValueError(f"contrasts must rise, from 0 or above; got {contrasts.tolist()}.")
    pattern = _pattern(circuit, pattern, "pattern")
    baseline = _pattern(circuit, baseline, "baseline")
    rates = stable_rates(circuit, baseline + contrasts[:, None] * pattern)
    return ContrastResponse(contrasts, rates, circuit, pattern, baseline)


def _pattern(circuit, value, name):
    """Drive of each cell, from one number for all or one for each."""
    numbers, n = to_numbers(value, float, name), circuit.n_neurons
    if numbers.shape not in ((), (n,)) or not np.isfinite(numbers).all():
        raise ValueError(
            f"{name} must be a finite number or have one for each of {n} cells, got {value!r}."
        )
    return np.broadcast_to(numbers, n)


def stable_rates(circuit, drive):
    """Rates in Hz of stable states from rest, NaN where there is none."""
    states = steady_states(circuit, drive)
    return np.where(states.stable[:, None], states.rates, np.nan)


@dataclass(frozen=True, eq=False)
class SizeTuning:
    """What :func:`size_tuning` saw, of the cells chosen.

    Attributes
    ----------
    sizes : ndarray of shape (n_sizes,)
        In rising order.
    rates : ndarray of shape (n_sizes, n_cells), or (n_contrasts, n_sizes, n_cells)
        In Hz; NaN where there is no stable state.
    types : ndarray of shape (n_cells,)
        Population of each cell.
    contrasts : ndarray of shape (n_contrasts,), or None
        If they were given.
    """

    sizes: np.ndarray
    rates: np.ndarray
    types: np.ndarray
    contrasts: np.ndarray | None = None

    @property
    def suppression_index(self) -> np.ndarray:
        """1 - rate at the largest size / largest rate: ndarray of shape (..., n_cells).

        0 where there is no surround suppression, 1 where it silences a cell, NaN for cells that
        fire at no size.
        """
        highest = self.rates.max(-2)
        with np.errstate(invalid="ignore"):
            return 1 - self.rates[..., -1, :] / np.where(highest > 0, highest, np.nan)

    @property
    def preferred_size(self) -> np.ndarray:
        """The size with the largest rate: ndarray of shape (..., n_cells).

        The first of those with the same rate but for rounding; NaN for cells that fire at no size,
        or without a stable state at one of them.
        """
        highest = self.rates.max(-2, keepdims=True)
        preferred = self.sizes[(self.rates >= (1 - SAME) * highest).argmax(-2)]
        return np.where(highest[..., 0, :] > 0, preferred, np.nan)

    def by_population(self) -> SizeTuning:
        """The same of the mean rate of each population.

        Returns
        -------
        tuning : SizeTuning
            With one cell for each population.
        """
        means = means_by_population(self.rates, self.types)
        rates = np.stack(list(means.values()), -1)
        return SizeTuning(self.sizes, rates, np.array(list(means)), self.contrasts)

    def to_dataframe(self) -> pd.DataFrame:
        """Mean rates of populations in columns, one row for each stimulus.

        Returns
        -------
        frame : pandas.DataFrame
            With a column `contrast` if there are several; 0, 1, ..., if they were not given.

        Raises
        ------
        ImportError
            If there is no pandas.
        """
        means = means_by_population(self.rates, self.types)
        shape = self.rates.shape[:-1]
        columns = {"size": np.broadcast_to(self.sizes, shape).ravel()}
        if len(shape) > 1:
            contrasts = np.arange(shape[0]) if self.contrasts is None else self.contrasts
            columns["contrast"] = np.repeat(contrasts, shape[1])
        return data_frame(columns | {name: rates.ravel() for name, rates in means.items()})


def size_tuning(
    circuit: Circuit,
    drives: ArrayLike,
    sizes: ArrayLike,
    *,
    cells: str | Sequence[int] | None = None,
    contrasts: ArrayLike | None = None,
) -> SizeTuning:
    """Steady rates of a circuit for stimuli of several sizes.

    Parameters
    ----------
    circuit : Circuit
        The circuit.
    drives : array-like of shape (n_sizes, n_neurons), or (n_contrasts, n_sizes, n_neurons)
        External drive f(h) in mV by each stimulus.
    sizes : array-like of shape (n_sizes,)
        In rising order.
    cells : str or sequence of int, default=None
        The cells that are looked at: a population, or indices, such as of those in the centre of
        the stimuli. None means all.
    contrasts : array-like of shape (n_contrasts,), default=None
        Of the stimuli; names only.

    Returns
    -------
    tuning : SizeTuning

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, sizes do not rise, or there is no such cell.

    Examples
    --------
    The largest stimulus drives I cells more, and E cells as the one before.

    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import size_tuning
    >>> pair = Circuit([[1.0, -1.5], [1.0, -0.5]], n_excitatory=1, k=0.04)
    >>> tuning = size_tuning(pair, [[5.0, 0.0], [10.0, 5.0], [10.0, 10.0]], [1.0, 2.0, 3.0])
    >>> tuning.preferred_size.tolist(), tuning.suppression_index.round(2).tolist()
    ([2.0, 3.0], [0.68, 0.0])
    """
    sizes, drives = to_numbers(sizes, float, "sizes"), to_numbers(drives, float, "drives")
    if sizes.ndim != 1 or not np.isfinite(sizes).all() or (np.diff(sizes) <= 0).any():
        raise ValueError(f"sizes must be finite and rise, got {sizes!r}.")
    n = circuit.n_neurons
    if drives.ndim not in (2, 3) or drives.shape[-2:] != (len(sizes), n):
        raise ValueError(
            f"drives must have shape ({len(sizes)}, {n}) or (n_contrasts, {len(sizes)}, {n}) for "
            f"{len(sizes)} sizes and {n} cells, got {drives.shape}."
        )
    if contrasts is not None:
        contrasts = to_numbers(contrasts, float, "contrasts")
        if drives.ndim != 3 or contrasts.shape != drives.shape[:1]:
            raise ValueError(
                f"contrasts must be one for each of the first axis of drives, of shape "
                f"{drives.shape}; got {contrasts!r}."
            )
    chosen = choose_cells(circuit, cells)
    rates = stable_rates(circuit, drives.reshape(-1, n)).reshape(drives.shape)
    return SizeTuning(sizes, rates[..., chosen], types_of(circuit)[chosen], contrasts)


@dataclass(frozen=True, eq=False)
class Normalization:
    """What :func:`normalization` saw, of the cells chosen.

    Attributes
    ----------
    contrasts : ndarray of shape (n_pairs, 2)
        Of the first and of the second stimulus.
    first, second, both : ndarrays of shape (n_pairs, n_cells)
        Rates in Hz with one stimulus or both; NaN where there is no stable state.
    weights : ndarray of shape (n_pairs, 2)
        Least squares w1, w2 of both = w1 first + w2 second.
    weight : ndarray of shape (n_pairs,)
        Least squares w of both = w (first + second). 1 is a linear sum, 1/2 an average.
    """

    contrasts: np.ndarray
    first: np.ndarray
    second: np.ndarray
    both: np.ndarray
    weights: np.ndarray
    weight: np.ndarray


def normalization(
    circuit: Circuit,
    first: ArrayLike,
    second: ArrayLike,
    contrasts: ArrayLike,
    *,
    baseline: ArrayLike = 0.0,
    cells: str | Sequence[int] | None = None,
) -> Normalization:
    """How responses to two stimuli add up when both are shown.

    Parameters
    ----------
    circuit : Circuit
        The circuit.
    first, second : float or array-like of shape (n_neurons,)
        Drive by each stimulus at contrast 1, in mV.
    contrasts : array-like of shape (n_pairs,) or (n_pairs, 2)
        Contrasts of both alike, or of each.
    baseline : float or array-like of shape (n_neurons,), default=0.0
        Drive without a stimulus, in mV.
    cells : str or sequence of int, default=None
        Over which least squares go: a population, or indices. None means the excitatory cells.

    Returns
    -------
    normalization : Normalization
        Weights are NaN without a stable state, and for pairs of stimuli to which responses are
        the same but for a factor.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, or there is no such cell.

    References
    ----------
    .. [1] Busse, Wade & Carandini (2009). Representation of concurrent stimuli by population
       activity in visual cortex. Neuron 64, 931-942.

    Examples
    --------
    Cells without synapses and with an exponent of 2: the sum is larger than its parts.

    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import normalization
    >>> cells = Circuit([[0.0, 0.0], [0.0, 0.0]], n_excitatory=2, k=1.0)
    >>> normalization(cells, [1.0, 0.5], [0.5, 1.0], [1.0]).weights
    array([[1.8, 1.8]])
    """
    pairs = to_numbers(contrasts, float, "contrasts")
    pairs = np.stack([pairs, pairs], 1) if pairs.ndim == 1 else pairs
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.isfinite(pairs).all():
        raise ValueError(
            f"contrasts must be finite, one for both stimuli or a pair in each row; got "
            f"{contrasts!r}."
        )
    first = pairs[:, :1] * _pattern(circuit, first, "first")
    second = pairs[:, 1:] * _pattern(circuit, second, "second")
    chosen = choose_cells(circuit, cells, slice(circuit.n_excitatory))
    drives = np.concatenate([first, second, first + second])
    rates = stable_rates(circuit, _pattern(circuit, baseline, "baseline") + drives)[:, chosen]
    first, second, both = np.split(rates, 3)
    weights, weight = np.full((len(pairs), 2), np.nan), np.full(len(pairs), np.nan)
    for i, (one, other, together) in enumerate(zip(first, second, both, strict=True)):
        parts, total = np.stack([one, other], 1), one + other
        if not np.isfinite(together).all() or not np.isfinite(parts).all():
            continue
        found, _, rank, _ = np.linalg.lstsq(parts, together, rcond=None)
        weights[i] = found if rank == 2 else np.nan
        weight[i] = total @ together / (total @ total) if total.any() else np.nan
    return Normalization(pairs, first, second, both, weights, weight)
