"""What is free of a circuit and its inputs, and the map from free numbers to its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ssn_estimators._torch import to_numbers
from ssn_estimators.fitting.kernels import Kernels

if TYPE_CHECKING:
    from typing import Literal

    from ssn_estimators._typing import ArrayLike

__all__ = ["QUANTITIES", "Free", "Parameters", "over_sessions", "parameters_of"]

QUANTITIES = ("weights", "input_map", "baseline", "k", "tau", "noise", "amplitudes", "widths")
BY_PAIRS = ("weights", "amplitudes", "widths")  # of populations
TIES = ("populations", "presynaptic", "each")
SCALES = ("log", "linear")
OF_SESSIONS = ("input_map", "baseline")  # which may differ between sessions
LINEAR = ("baseline",)  # may change their sign, unless told otherwise
ONE_SIGN = (
    "weights",
    "k",
    "tau",
    "noise",
    "amplitudes",
    "widths",
)  # by Dale\'s law, and by what they are
MOST_LOG = 50.0  # |log| of a magnitude; beyond, squares of exponentials overflow


@dataclass(frozen=True, eq=False)
class Free:
    """Numbers of a circuit that :class:`.CircuitRegressor` fits, and how.

    Those of one group are multiplied by one parameter: the ratios between them, signs and zeros
    stay. Where several of these are about the same numbers, such as the weights of a pair of
    populations and what is left of them at another place, their parameters are multiplied.

    Parameters
    ----------
    quantity : {"weights", "input_map", "baseline", "k", "tau", "noise", "amplitudes", "widths"}
        What is free: W[post, pre], the map from inputs to cells, the constant drive in mV, the gain
        and the time constants of the cells, the amplitude of their noise in units of the circuit's;
        or, in place of weights, amplitudes and widths of their fall with distance, by populations
        [post, pre], of a regressor with a :class:`~ssn_estimators.fitting.Connectivity`.
    by : {"populations", "presynaptic", "each"} or array-like of str or int, default="populations"
        What has a parameter of its own: each population (for weights, each pair of populations),
        the presynaptic population of weights, each number, or each label of an array of the
        quantity's shape.
    where : array-like of bool of the quantity's shape, default=None
        Which of the numbers. None means all.
    scale : {"log", "linear"}, default=None
        Whether the logarithm of a magnitude is fitted, which keeps its sign and leaves zeros out,
        or the number itself. None means "linear" for the baseline, "log" for all others.
    low, high : float or array-like, default=None
        Bounds of the parameters; of the magnitudes with "log". None means none.
    prior, prior_error : float or array-like, default=None
        Mean of the parameters, and its fractional error. Arrays, of these and of bounds, have the
        shape of the groups:
        (n_populations, n_populations)[post, pre] for weights (and what they are made of) by
        populations, (n_populations,) for
        all else by population, or the quantity's. Signs of the mean do not count with "log". NaN
        means that there is none.
    spread : float, default=0.5
        Standard deviation of random starts about the circuit given: of the logarithm, or with
        "linear" in multiples of the largest of the quantity's numbers, and at least of 1.
    name : str, default=None
        What the parameters are called; None means as the quantity. Groups of two quantities that
        are called alike have one parameter, such as a factor of weights and of inputs.
    per_session : bool, default=False
        Whether each session has parameters of its own, see :meth:`.CircuitRegressor.fit`; of the
        input map and the baseline. Boxes and priors are those of each.

    Examples
    --------
    The weights of pairs of populations, those of the E cells in a box.

    >>> from ssn_estimators.fitting import Free
    >>> Free("weights", low=0.1, high=10.0)
    Free(weights by populations, log)
    """

    quantity: Literal[
        "weights", "input_map", "baseline", "k", "tau", "noise", "amplitudes", "widths"
    ]
    by: ArrayLike = "populations"
    where: ArrayLike | None = None
    scale: Literal["log", "linear"] | None = None
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    prior: ArrayLike | None = None
    prior_error: ArrayLike | None = None
    spread: float = 0.5
    name: str | None = None
    per_session: bool = False

    def __post_init__(self):
        self._check("quantity", QUANTITIES)
        if isinstance(self.by, str):
            self._check("by", TIES)
            if self.by == "presynaptic" and self.quantity not in BY_PAIRS:
                raise ValueError(
                    "by='presynaptic' is for weights only, and for their amplitudes and widths."
                )
        if self.scale is not None:
            self._check("scale", SCALES)
        if self.per_session not in (False, True):
            raise ValueError(f"per_session must be True or False, got {self.per_session!r}.")
        if self.per_session and self.quantity not in OF_SESSIONS:
            raise ValueError(
                f"{self.quantity} cannot be per_session: sessions have circuits in common, and may "
                f"differ in {OF_SESSIONS}."
            )
        least = 0.0 if self.is_log else -np.inf
        low, high = (to_numbers(bound, float, "a bound of Free") for bound in self.bounds)
        try:
            legal = ((least <= low) & (low < high)).all()
        except ValueError:  # of shapes
            legal = False
        if not legal:
            of_log = " of a magnitude, > 0 at most," if self.is_log else ""
            raise ValueError(
                f"The box{of_log} must have low < high, got low={self.low} and high={self.high} "
                f"for {self.title}."
            )
        if not _is_number(self.spread) or self.spread < 0:
            raise ValueError(f"spread must be a finite number >= 0, got {self.spread!r}.")
        if (self.prior is None) != (self.prior_error is None):
            raise ValueError("A prior needs both prior and prior_error.")

    def _check(self, name, legal):
        value = getattr(self, name)
        if not isinstance(value, str) or value not in legal:
            raise ValueError(f"{name} of Free must be one of {legal}, got {value!r}.")

    def __repr__(self):
        by = self.by if isinstance(self.by, str) else "labels"
        each = " and session" if self.per_session else ""
        return f"Free({self.title} by {by}{each}, {'log' if self.is_log else 'linear'})"

    @property
    def title(self) -> str:
        """What its parameters are called."""
        return self.quantity if self.name is None else self.name

    @property
    def is_log(self) -> bool:
        """Whether logarithms are fitted."""
        return self.quantity not in LINEAR if self.scale is None else self.scale == "log"

    @property
    def bounds(self) -> tuple[ArrayLike, ArrayLike]:
        """Bounds of the parameters, infinite or 0 where there are none."""
        low = (0.0 if self.is_log else -np.inf) if self.low is None else self.low
        return low, np.inf if self.high is None else self.high


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(value)


class _Factor(NamedTuple):
    """The parameters of one `Free`, and which numbers they multiply."""

    quantity: str
    index: np.ndarray  # of the parameter, for each number of the quantity; -1 for none
    is_log: bool


class Parameters:
    """The map from coordinates (logarithms, or numbers) to the arrays of a circuit.

    Attributes
    ----------
    names : list of str
    start : ndarray of shape (n_parameters,)
        Coordinates of the circuit given.
    low, high : ndarrays of shape (n_parameters,)
        Bounds of the coordinates.
    spread : ndarray of shape (n_parameters,)
        Of random starts, in coordinates.
    is_log : ndarray of shape (n_parameters,), bool
    signs : ndarray of shape (n_parameters,)
        Of the numbers that a parameter multiplies; 1 where they differ.
    group : ndarray of shape (n_parameters,), int
        Which `Free` it is of.
    prior_mean, prior_error : ndarrays of shape (n_parameters,)
        Of the values; NaN where there is none.
    """

    def __init__(self, patterns, factors, columns, kernels=None):
        self.patterns, self.factors, self.kernels = patterns, factors, kernels
        for name, values in columns.items():
            setattr(self, name, values)

    def __len__(self):
        return len(self.names)

    def magnitudes(self, theta):
        """What multiplies the patterns; theta of shape (..., n_parameters)."""
        return np.where(self.is_log, np.exp(np.clip(theta, -MOST_LOG, MOST_LOG)), theta)

    def values(self, theta):
        """Values as they are told of, with signs."""
        return self.signs * self.magnitudes(theta)

    def arrays(self, theta):
        """The quantities, as a dict of arrays; with leading axes as theta has them."""
        p, found = self.magnitudes(theta), {}
        for name, pattern in self.patterns.items():
            array, factors = pattern.ravel(), self._of(name)
            if theta.ndim > 1 and not factors:
                array = np.broadcast_to(array, (*theta.shape[:-1], pattern.size))
            for factor in factors:
                array = array * self._multiplier(factor, p)
            found[name] = array.reshape(*theta.shape[:-1], *pattern.shape)
        if self.kernels is not None:
            found["weights"] = self.kernels.weights(found)
        return found

    def slopes(self, theta):
        """Derivatives of the quantities, a dict of arrays of shape (quantity's size, n_parameters).

        Only of those that are free.
        """
        p, found = self.magnitudes(theta), {}
        for name, pattern in self.patterns.items():
            factors = self._of(name)
            if not factors:
                continue
            slope = np.zeros((pattern.size, len(self)))
            multipliers = [self._multiplier(factor, p) for factor in factors]
            for i, factor in enumerate(factors):
                others = pattern.ravel()
                for j, multiplier in enumerate(multipliers):
                    others = others if i == j else others * multiplier
                rows = np.flatnonzero(factor.index >= 0)
                columns = factor.index[rows]
                inner = p[columns] if factor.is_log else 1.0
                slope[rows, columns] = others[rows] * inner
            found[name] = slope
        if self.kernels is not None and not {"amplitudes", "widths"}.isdisjoint(found):
            found["weights"] = self.kernels.slopes(self.arrays(theta), found)
        return found

    def _of(self, quantity):
        return [factor for factor in self.factors if factor.quantity == quantity]

    @staticmethod
    def _multiplier(factor, p):
        return np.where(factor.index >= 0, p[..., factor.index], 1.0)

    def prior(self, theta):
        """Misfits of the prior in its errors, and their derivatives (diagonal)."""
        p = self.magnitudes(theta)
        error = np.abs(self.prior_mean) * self.prior_error
        return (p - self.prior_mean) / error, np.where(self.is_log, p, 1.0) / error


def parameters_of(frees, arrays, populations, sessions=(), connectivity=None):
    """The :class:`Parameters` of all that is free, from the arrays of a circuit.

    The input map gets columns, and the baseline a column, for each session, one after the other.
    With a connectivity weights follow from amplitudes and widths.
    """
    kernels = None
    if connectivity is not None:
        kernels = Kernels(connectivity, arrays["weights"], populations)
        arrays = arrays | kernels.arrays()
    _check_made(frees, kernels)
    given = {name: np.array(array, float) for name, array in arrays.items()}
    patterns = {name: over_sessions(array, name, sessions) for name, array in given.items()}
    factors, parts, n = [], [], 0
    for number, free in enumerate(frees):
        pattern, quantity = patterns[free.quantity], free.quantity
        groups = _groups(free, given[quantity], populations, sessions)
        places = [_where(other, given[quantity]) for other in frees if other.quantity == quantity]
        places = [over_sessions(where, quantity, sessions) for where in places]
        own = sum(other.quantity == quantity for other in frees[:number])
        later = np.any([np.zeros(pattern.shape, bool), *places[own + 1 :]], axis=0)
        factor, part = _factor(free, pattern, groups, places[own], later, n)
        part["group"] = np.full(len(part["names"]), number)
        factors.append(factor)
        parts.append(part)
        n += len(part["names"])
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    columns["names"] = [str(name) for name in columns["names"]]
    return Parameters(patterns, *_tied(factors, columns, frees), kernels)


def _check_made(frees, kernels):
    """Of what weights are made, one or the other is free."""
    quantities = {free.quantity for free in frees}
    if kernels is None and not quantities.isdisjoint({"amplitudes", "widths"}):
        raise ValueError("amplitudes and widths are those of a connectivity: give one.")
    if kernels is not None and "weights" in quantities:
        raise ValueError("with a connectivity, amplitudes and widths may be free, and not weights.")
    if kernels is not None and quantities.isdisjoint({"amplitudes", "widths"}):
        raise ValueError("connectivity does not count unless amplitudes or widths are free.")


def over_sessions(array, quantity, sessions):
    """An array of a quantity as it is with columns for each session, where it may differ."""
    n_sessions = max(1, len(sessions))
    if quantity == "baseline":
        return np.repeat(array[:, None], n_sessions, axis=1)
    return np.tile(array, (1, n_sessions)) if quantity == "input_map" else array


def _tied(factors, columns, frees):
    """One parameter for all that are called alike in several quantities."""
    names = columns["names"]
    unique = list(dict.fromkeys(names))
    for name in unique:
        alike = [i for i, other in enumerate(names) if other == name]
        quantities = {frees[columns["group"][i]].quantity for i in alike}
        if len(quantities) < len(alike):
            raise ValueError(
                f"free names {name!r} twice: give one of them another name, as in Free(..., "
                "name='between')."
            )
        if not np.allclose(columns["start"][alike], columns["start"][alike[0]]):
            raise ValueError(
                f"{name!r} of {sorted(quantities)} cannot be one parameter: its values in the "
                "circuit given differ."
            )
    new = np.array([unique.index(name) for name in names] + [-1])  # the last one for none
    kept = [names.index(name) for name in unique]
    columns = {name: [values[i] for i in kept] for name, values in columns.items()}
    columns = {k: v if k == "names" else np.array(v) for k, v in columns.items()}
    return [factor._replace(index=new[factor.index]) for factor in factors], columns


def _where(free, pattern):
    if free.where is None:
        return np.ones(pattern.shape, bool)
    where = np.asarray(free.where)
    if where.shape != pattern.shape or where.dtype != bool:
        raise ValueError(
            f"where of {free.title} must be booleans of shape {pattern.shape}, got "
            f"{where.dtype} of shape {where.shape}."
        )
    return where


class _Groups(NamedTuple):
    """What has one parameter."""

    labels: np.ndarray  # of the shape of the quantity, with sessions where these differ
    shared: np.ndarray  # without
    shape: tuple | None  # of what priors and bounds are given for


def _groups(free, pattern, populations, sessions):
    labels, shape = _labels(free, pattern, populations)
    shared = own = over_sessions(labels, free.quantity, sessions)
    if free.per_session:
        names = np.repeat(np.array(sessions), shared.shape[1] // len(sessions))
        own = np.strings.add(np.strings.add(shared, ", "), names)
    return _Groups(own, shared, shape)


def _labels(free, pattern, populations):
    """Name of the group of each number, and the shape of the groups."""
    types, names = np.repeat(list(populations), list(populations.values())), list(populations)
    n = len(names)
    if not isinstance(free.by, str):
        labels = np.asarray(free.by)
        if labels.shape != pattern.shape or labels.dtype.kind not in "iuU":
            raise ValueError(
                f"by of {free.title} must be one of {TIES}, or labels (str or int) of shape "
                f"{pattern.shape}; got {labels.dtype} of shape {labels.shape}."
            )
        return labels.astype(str), None
    if free.by == "each":
        labels = [", ".join(map(str, place)) for place in np.ndindex(pattern.shape)]
        return np.array(labels).reshape(pattern.shape), pattern.shape
    if free.quantity not in BY_PAIRS:
        return np.broadcast_to(types.reshape(-1, *[1] * (pattern.ndim - 1)), pattern.shape), (n,)
    types = types if free.quantity == "weights" else names
    if free.by == "presynaptic":
        return np.broadcast_to(types, pattern.shape), (n,)
    pairs = [[f"{post}, {pre}" for pre in types] for post in types]
    return np.array(pairs), (n, n)


def _factor(free, pattern, groups, open_, later, first):
    """The factor of a `Free`, whose values are taken out of the pattern in place."""
    labels = groups.labels
    if free.is_log:
        open_ = open_ & (pattern != 0)
    names = list(dict.fromkeys(labels[open_].tolist()))
    if not names:
        raise ValueError(
            f"{free.title} cannot be free: there is no number that is not 0. With scale='log' "
            "zeros stay zeros."
        )
    index = np.full(pattern.shape, -1)
    start, signs = np.zeros(len(names)), np.ones(len(names))
    for i, name in enumerate(names):
        own = open_ & (labels == name)
        index[own] = first + i
        alone = own & ~later
        numbers = pattern[alone if alone.any() else own]
        size = np.abs(numbers).mean()
        if (numbers <= 0).all() and size:
            signs[i] = -1.0
        if free.is_log:
            start[i] = size
            pattern[own] /= size
        elif size:
            start[i] = signs[i] * size
            pattern[own] /= signs[i] * size
            signs[i] = 1.0
        else:
            pattern[own] = 1.0
    low, high = (_of_groups(free, names, groups, bound, "a bound") for bound in free.bounds)
    if free.quantity in ONE_SIGN:
        low, high = (
            np.where(start > 0, np.maximum(low, 0), low),
            np.where(start < 0, np.minimum(high, 0), high),
        )
    outside = (start < low) | (start > high)
    if outside.any():
        i = int(np.argmax(outside))
        raise ValueError(
            f"{free.title}[{names[i]}] of the circuit is {start[i]:g}, which is not in its box "
            f"from {low[i]:g} to {high[i]:g}."
        )
    mean, error = _priors(free, names, groups)
    largest = max(1.0, np.abs(start).max())
    with np.errstate(divide="ignore"):
        part = {
            "names": np.array([f"{free.title}[{name}]" for name in names], object),
            "start": np.log(start) if free.is_log else start,
            "low": np.log(low) if free.is_log else low,
            "high": np.log(high) if free.is_log else high,
            "spread": np.full(len(names), free.spread * (1.0 if free.is_log else largest)),
            "is_log": np.full(len(names), free.is_log),
            "signs": signs,
            "prior_mean": mean,
            "prior_error": error,
        }
    return _Factor(free.quantity, index.ravel(), free.is_log), part


def _priors(free, names, groups):
    """Means and fractional errors of the priors of the groups, NaN where there are none."""
    if free.prior is None:
        return np.full((2, len(names)), np.nan)
    mean = _of_groups(free, names, groups, free.prior, "prior")
    error = _of_groups(free, names, groups, free.prior_error, "prior_error")
    if np.isinf(mean).any() or not (np.isnan(error) | ((error > 0) & (error < np.inf))).all():
        raise ValueError(f"The prior of {free.title} must be finite, and its errors > 0.")
    mean = np.abs(mean) if free.is_log else mean
    return np.where(np.isnan(mean + error) | (mean == 0), np.nan, [mean, error])


def _of_groups(free, names, groups, value, what):
    """Numbers of the groups named, from one or from an array of the shape of all groups."""
    numbers = to_numbers(value, float, f"{what} of {free.title}")
    order = list(dict.fromkeys(groups.shared.ravel().tolist()))
    shape = (len(order),) if groups.shape is None else groups.shape
    if numbers.shape not in ((), shape):
        raise ValueError(
            f"{what} of {free.title} must be a number or have shape {shape}, got {numbers.shape}."
        )
    by_name = dict(zip(order, np.broadcast_to(numbers, shape).ravel(), strict=True))
    shared = dict(zip(groups.labels.ravel().tolist(), groups.shared.ravel().tolist(), strict=True))
    return np.array([by_name[shared[name]] for name in names])
