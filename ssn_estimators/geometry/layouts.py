"""Common spaces: rings, lines and sheets, and maps of orientation for sheets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import COUNT, POSITIVE, RANDOM, validate_params
from ssn_estimators._torch import to_numbers
from ssn_estimators.geometry.space import ORIENTATION_PERIOD, Space, check_shape

if TYPE_CHECKING:
    from ssn_estimators._typing import ArrayLike, RandomState

__all__ = ["line", "orientation_map", "ring", "sheet"]


@validate_params(n=COUNT, period=POSITIVE, unit=[str, None])
def ring(n: int, period: float = 360.0, *, unit: str | None = "deg") -> Space:
    """Positions at equal distances on a ring, from 0 on.

    Parameters
    ----------
    n : int
        Number of positions.
    period : float, default=360.0
        Length of the ring: 360 for directions, 180 for orientations in degrees.
    unit : str or None, default="deg"
        Unit of `period`.

    Returns
    -------
    space : Space

    Examples
    --------
    >>> from ssn_estimators.geometry import ring
    >>> ring(4, 180.0).distances()[0]
    array([ 0., 45., 90., 45.])
    """
    return Space(np.arange(n)[:, None] * (period / n), (period,), shape=(n,), unit=unit)


@validate_params(n=COUNT, spacing=POSITIVE, periodic=["boolean"], unit=[str, None])
def line(n: int, spacing: float = 1.0, periodic: bool = False, *, unit: str | None = None) -> Space:
    """Positions at equal distances on a line, centred on 0.

    Parameters
    ----------
    n : int
        Number of positions.
    spacing : float, default=1.0
        Distance of neighbours.
    periodic : bool, default=False
        Whether the last position is also the neighbour of the first.
    unit : str or None, default=None
        Unit of `spacing`.

    Returns
    -------
    space : Space

    Examples
    --------
    >>> from ssn_estimators.geometry import line
    >>> line(3, 0.5).positions[:, 0]
    array([-0.5,  0. ,  0.5])
    """
    periods = (n * spacing if periodic else None,)
    return Space(_centred(n, spacing)[:, None], periods, shape=(n,), unit=unit)


@validate_params(spacing=POSITIVE, periodic=["boolean"], unit=[str, None])
def sheet(
    shape: tuple[int, int],
    spacing: float = 1.0,
    periodic: bool = False,
    orientation: ArrayLike | None = None,
    *,
    unit: str | None = None,
) -> Space:
    """Positions on a regular sheet, centred on 0.

    They are in the order of an array of this shape, so that ``values.reshape(shape)`` is the map
    of one value for each position.

    Parameters
    ----------
    shape : pair of int
        Number of positions along both dimensions.
    spacing : float, default=1.0
        Distance of neighbours.
    periodic : bool, default=False
        Whether opposite borders are neighbours.
    orientation : array-like of `shape` or of shape (n_positions,), default=None
        Preferred orientations in degrees, such as :func:`orientation_map` makes them.
    unit : str or None, default=None
        Unit of `spacing`.

    Returns
    -------
    space : Space

    Raises
    ------
    ValueError
        If `shape` is no pair of counts, or there is not one orientation for each position.

    Examples
    --------
    >>> from ssn_estimators.geometry import sheet
    >>> space = sheet((17, 17), spacing=0.4, unit="mm")
    >>> space.n_positions, space.positions[0]
    (289, array([-3.2, -3.2]))
    """
    shape = check_shape(shape, n_dimensions=2)
    if orientation is not None:
        orientation = to_numbers(orientation, name="orientation")
        if orientation.shape not in (shape, (math.prod(shape),)):
            raise ValueError(
                f"orientation must have the shape {shape} of the sheet, got {orientation.shape}."
            )
        orientation = orientation.ravel()
    periods = [n * spacing for n in shape] if periodic else None
    return Space(_grid(shape, spacing), periods, orientation, shape, unit)


@validate_params(spacing=POSITIVE, period=POSITIVE, n_waves=COUNT, random_state=RANDOM)
def orientation_map(
    shape: tuple[int, int],
    spacing: float,
    period: float,
    n_waves: int = 30,
    random_state: RandomState = None,
) -> np.ndarray:
    """Map of preferred orientations as random as one of a given period can be.

    It is half the angle of a sum of complex plane waves of one spatial period in directions at
    equal angles, with random signs and phases [1]_.

    Parameters
    ----------
    shape : pair of int
        Number of positions along both dimensions, as in :func:`sheet`.
    spacing : float
        Distance of neighbours.
    period : float
        Period of the map in the unit of `spacing`: the width of a hypercolumn. With one much
        larger than the sheet, all positions prefer about the same orientation.
    n_waves : int, default=30
        Number of waves.
    random_state : int, RandomState instance or None, default=None
        Source of signs and phases.

    Returns
    -------
    orientation : ndarray of `shape`
        In degrees, from 0 to below 180.

    Raises
    ------
    ValueError
        If `shape` is no pair of counts.

    References
    ----------
    .. [1] Kaschube et al. (2010). Universality in the evolution of orientation columns in the
       visual cortex. Science 330, 1113-1116.

    Examples
    --------
    >>> from ssn_estimators.geometry import orientation_map, sheet
    >>> orientation = orientation_map((17, 17), 0.4, 0.8, random_state=0)
    >>> sheet((17, 17), 0.4, orientation=orientation, unit="mm").n_positions
    289
    """
    shape = check_shape(shape, n_dimensions=2)
    rng = check_random_state(random_state)
    direction = np.pi / n_waves * np.arange(n_waves)
    sign, phase = rng.choice([-1.0, 1.0], n_waves), rng.uniform(0, 2 * np.pi, n_waves)
    wave = 2 * np.pi / period * sign * [np.cos(direction), np.sin(direction)]
    field = np.exp(1j * (_grid(shape, spacing) @ wave + phase)).sum(axis=1)
    half_angle = np.degrees(np.angle(field)) / 2 % ORIENTATION_PERIOD
    # the remainder of a tiny negative number is the period itself
    return np.where(half_angle < ORIENTATION_PERIOD, half_angle, 0.0).reshape(shape)


def _centred(n, spacing):
    return (np.arange(n) - (n - 1) / 2) * spacing


def _grid(shape, spacing):
    axes = np.meshgrid(*(_centred(n, spacing) for n in shape), indexing="ij")
    return np.stack([axis.ravel() for axis in axes], axis=1)
