"""Where cells are, how far from each other, and which orientations they prefer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np

from ssn_estimators._torch import to_numbers

if TYPE_CHECKING:
    from ssn_estimators._typing import ArrayLike

__all__ = ["ORIENTATION_PERIOD", "Space", "check_shape", "shortest", "wrapped"]

ORIENTATION_PERIOD = 180.0  # degrees


@dataclass(frozen=True, eq=False)
class Space:
    """Positions of cells, of which each may hold a cell of every type.

    A space is a frozen value; its arrays are copied and made read-only. :func:`ring`,
    :func:`line` and :func:`sheet` make the common ones.

    Parameters
    ----------
    positions : array-like of shape (n_positions, n_dimensions)
        In `unit`.
    periods : sequence of float or None, default=None
        For each dimension the length after which it repeats, in `unit`, or None where it does
        not. None alone means that no dimension does.
    orientation : array-like of shape (n_positions,), default=None
        Preferred orientation at each position in degrees, with a period of 180.
    shape : tuple of int, default=None
        Of the regular grid that positions form, with the last dimension running fastest. None
        means that they form none, or that nobody needs to know.
    unit : str, default=None
        Name of the unit of positions, such as "mm"; for labels only.

    Raises
    ------
    ValueError
        If a shape is wrong, or a number is not finite or out of range.

    Examples
    --------
    >>> from ssn_estimators.geometry import Space
    >>> space = Space([[10.0], [170.0]], periods=[180.0], unit="deg")
    >>> space.distances()
    array([[ 0., 20.],
           [20.,  0.]])
    """

    positions: np.ndarray
    periods: tuple[float | None, ...] | None = None
    orientation: np.ndarray | None = None
    shape: tuple[int, ...] | None = None
    unit: str | None = None

    def __post_init__(self):
        positions = _frozen(self.positions, "positions")
        if positions.ndim != 2 or not positions.size:
            raise ValueError(
                "positions must have shape (n_positions, n_dimensions) and not be empty, got "
                f"shape {positions.shape}."
            )
        n, d = positions.shape
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "periods", _checked_periods(self.periods, d))
        if self.orientation is not None:
            orientation = _frozen(self.orientation, "orientation")
            if orientation.shape != (n,):
                raise ValueError(
                    f"orientation must have shape ({n},), one for each position, got shape "
                    f"{orientation.shape}."
                )
            object.__setattr__(self, "orientation", orientation)
        if self.shape is not None:
            shape = check_shape(self.shape)
            if len(shape) != d or math.prod(shape) != n:
                raise ValueError(
                    f"shape must have {d} dimensions and {n} positions in all, got {self.shape!r}."
                )
            object.__setattr__(self, "shape", shape)
        if self.unit is not None and not isinstance(self.unit, str):
            raise ValueError(f"unit must be None or a name, got {self.unit!r}.")

    def __repr__(self):
        return (
            f"Space(n_positions={self.n_positions}, n_dimensions={self.n_dimensions}, "
            f"periods={self.periods}, unit={self.unit!r})"
        )

    def __setstate__(self, state):
        # pickle drops NumPy's read-only flag, which is part of the value's promise
        self.__init__(**state)

    @property
    def n_positions(self) -> int:
        """Number of positions."""
        return len(self.positions)

    @property
    def n_dimensions(self) -> int:
        """Number of dimensions."""
        return self.positions.shape[1]

    @property
    def is_ring(self) -> bool:
        """Whether there is one dimension, and it is periodic."""
        return self.n_dimensions == 1 and self.periods[0] is not None

    def displacements(self, place: ArrayLike) -> np.ndarray:
        """From a place to all positions, the short way round where space is periodic.

        Parameters
        ----------
        place : array-like of shape (..., n_dimensions)
            One place or several, in `unit`.

        Returns
        -------
        displacements : ndarray of shape (..., n_positions, n_dimensions)
            In `unit`.

        Raises
        ------
        ValueError
            If a place has another number of dimensions, or is not finite.
        """
        place = to_numbers(place, name="place")
        if place.shape[-1:] != (self.n_dimensions,) or not np.isfinite(place).all():
            raise ValueError(
                f"place must be finite and have {self.n_dimensions} coordinates, got an array of "
                f"shape {place.shape}."
            )
        return wrapped(self.positions - place[..., None, :], self.periods)

    def distances(self) -> np.ndarray:
        """Euclidean distances of all pairs of positions.

        Returns
        -------
        distances : ndarray of shape (n_positions, n_positions)
            In `unit`.
        """
        return np.linalg.norm(self.displacements(self.positions), axis=-1)

    def orientation_differences(self) -> np.ndarray:
        """Differences of the preferred orientations of all pairs of positions.

        Returns
        -------
        differences : ndarray of shape (n_positions, n_positions)
            In degrees, from 0 to 90.

        Raises
        ------
        ValueError
            If the space has no orientations.
        """
        if self.orientation is None:
            raise ValueError("this space has no orientation; give Space or sheet one.")
        difference = self.orientation[:, None] - self.orientation
        return np.abs(shortest(difference, ORIENTATION_PERIOD))


def wrapped(difference, periods):
    """Displacements, with dimensions as their last axis, the short way round."""
    difference = np.array(difference, dtype=float)
    for axis, period in enumerate(periods):
        if period is not None:
            difference[..., axis] = shortest(difference[..., axis], period)
    return difference


def shortest(difference, period):
    """Differences brought to half a period at most."""
    return difference - period * np.round(difference / period)


def check_shape(shape, n_dimensions=None):
    """A shape as a tuple of int; ValueError if it is none."""
    try:
        shape = tuple(shape)
    except TypeError:
        shape = (shape,)
    counts = all(isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in shape)
    if not counts or n_dimensions not in (None, len(shape)):
        many = "counts" if n_dimensions is None else f"{n_dimensions} counts"
        raise ValueError(f"shape must be {many} of positions, got {shape!r}.")
    return tuple(int(n) for n in shape)


def _checked_periods(periods, n_dimensions):
    if periods is None:
        return (None,) * n_dimensions
    periods = tuple(np.atleast_1d(np.array(periods, dtype=object)))
    legal = all(p is None or (isinstance(p, Real) and 0 < p < math.inf) for p in periods)
    if len(periods) != n_dimensions or not legal:
        raise ValueError(
            f"periods must be None or have {n_dimensions} entries, one for each dimension, that "
            f"are positive or None; got {periods}."
        )
    return tuple(None if p is None else float(p) for p in periods)


def _frozen(value, name):
    array = to_numbers(value, name=name)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity.")
    array.setflags(write=False)
    return array
