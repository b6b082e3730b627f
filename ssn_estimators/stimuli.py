"""Stimuli: patterns of input to the positions of a space.

Patterns are 1 where a stimulus of contrast 1 is at its best. A contrast is a factor: it may as well
be the strength of an input in mV.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit, ndtr

from ssn_estimators._sklearn import MOST, POSITIVE, StrOptions, validate_params
from ssn_estimators._torch import is_whole, to_numbers
from ssn_estimators.geometry.connectivity import ROUNDING
from ssn_estimators.geometry.profiles import gaussian, von_mises
from ssn_estimators.geometry.space import ORIENTATION_PERIOD, Space, shortest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from ssn_estimators._typing import ArrayLike

__all__ = ["annulus", "bar", "bump", "for_types", "grating", "in_time", "plaid", "uniform"]

EDGES = {"logistic": expit, "erf": ndtr}
LEGAL = {  # numbers, by the words of errors; comparisons are false for NaN
    "finite": lambda x: abs(x) < np.inf,
    "finite and >= 0": lambda x: (x >= 0) & (x < np.inf),
    "finite and > 0": lambda x: (x > 0) & (x < np.inf),
}


class Edge(NamedTuple):
    """How a stimulus ends."""

    function: Callable
    width: np.ndarray | float

    def __call__(self, inside):
        """What is left of the stimulus at a distance inside of its border."""
        return self.function(inside / self.width)


@validate_params(space=[Space])
def uniform(space: Space, *, contrast: ArrayLike = 1.0) -> np.ndarray:
    """The same input everywhere.

    Parameters
    ----------
    space : Space
        Where the cells are.
    contrast : float or array-like of shape (n_stimuli,), default=1.0
        Height, >= 0.

    Returns
    -------
    pattern : ndarray of shape (n_positions,) or (n_stimuli, n_positions)

    Raises
    ------
    ValueError
        If the contrast is negative or not finite.

    Examples
    --------
    >>> from ssn_estimators.geometry import line
    >>> from ssn_estimators.stimuli import uniform
    >>> uniform(line(3), contrast=[0.0, 0.5])
    array([[0. , 0. , 0. ],
           [0.5, 0.5, 0.5]])
    """
    return _column("contrast", contrast) * np.ones(space.n_positions)


@validate_params(space=[Space], profile=[StrOptions({"gaussian", "von_mises"})])
def bump(
    space: Space,
    width: ArrayLike,
    *,
    place: ArrayLike | None = None,
    orientation: ArrayLike | None = None,
    profile: Literal["gaussian", "von_mises"] = "gaussian",
    contrast: ArrayLike = 1.0,
) -> np.ndarray:
    r"""Input that falls off with the distance d from a place, or from an orientation.

    It is :math:`c \exp(-d^2 / 2 w^2)`, or
    :math:`c \exp((\cos(2 \pi d / \mathrm{period}) - 1) / w^2)` with the profile "von_mises", the
    inputs of [1]_ and [2]_.

    Parameters
    ----------
    space : Space
        Where the cells are.
    width : float or array-like of shape (n_stimuli,)
        w > 0 in the unit of the space, about an orientation in that of the orientation, and in
        radians for "von_mises".
    place : float or array-like, default=None
        Centre: of shape (n_dimensions,) or (n_stimuli, n_dimensions), in one dimension also a
        number or an array of shape (n_stimuli,). None means 0, unless there is an orientation.
    orientation : float or array-like of shape (n_stimuli,), default=None
        In degrees, instead of a place: d is the difference to the preferred orientation of a
        position, or to the position itself on a ring without such, in the unit of that ring.
    profile : {"gaussian", "von_mises"}, default="gaussian"
        Shape; "von_mises" on rings or about orientations only.
    contrast : float or array-like of shape (n_stimuli,), default=1.0
        c >= 0.

    Returns
    -------
    pattern : ndarray of shape (n_positions,) or (n_stimuli, n_positions)
        One for each entry of a parameter that is an array.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite or out of range, there are a place and an
        orientation, there is no orientation in the space, or "von_mises" is not periodic.

    References
    ----------
    .. [1] Rubin, Van Hooser & Miller (2015). Neuron 85, 402-417.
    .. [2] Hennequin, Ahmadian, Rubin, Lengyel & Miller (2018). Neuron 98, 846-860.

    Examples
    --------
    >>> from ssn_estimators.geometry import ring
    >>> from ssn_estimators.stimuli import bump
    >>> bump(ring(4, 180.0), 30.0, place=[0.0, 45.0]).round(3)
    array([[1.   , 0.325, 0.011, 0.325],
           [0.325, 1.   , 0.325, 0.011]])
    """
    if place is not None and orientation is not None:
        raise ValueError("give a place or an orientation; grating takes both.")
    width, contrast = _column("width", width, "finite and > 0"), _column("contrast", contrast)
    if orientation is None:
        distance = _distance(space, place)
        period = space.periods[0] if space.is_ring else None
    else:
        distance, period = _orientation_distance(space, orientation)
    _check_lengths(width=width, contrast=contrast, centre=distance)
    if profile == "gaussian":
        return contrast * gaussian(distance, width)
    if period is None:
        raise ValueError("profile 'von_mises' is for rings: spaces of one periodic dimension.")
    return contrast * von_mises(distance, width, period)


@validate_params(space=[Space])
def bar(
    space: Space,
    length: ArrayLike,
    *,
    place: ArrayLike | None = None,
    edge: Literal["logistic", "erf"] | None = None,
    edge_width: ArrayLike | None = None,
    contrast: ArrayLike = 1.0,
) -> np.ndarray:
    r"""Bar of light: a stretch of a line, a square on a sheet.

    Along each dimension x from its centre it is :math:`s((l/2 + x)/q) \, s((l/2 - x)/q)`, with a
    step, a logistic function or the normal distribution function s, as in the lines of [1]_.

    Parameters
    ----------
    space : Space
        Where the cells are.
    length : float or array-like of shape (n_stimuli,)
        l >= 0 in the unit of the space: the length, or the side of a square.
    place : float or array-like, default=None
        Centre, as in :func:`bump`.
    edge : {"logistic", "erf"} or None, default=None
        How the bar ends: as a logistic function, as the distribution function of a normal
        variable, or all at once.
    edge_width : float or array-like of shape (n_stimuli,), default=None
        q > 0 in the unit of the space, for edges only; the standard deviation for "erf".
    contrast : float or array-like of shape (n_stimuli,), default=1.0
        Height, >= 0.

    Returns
    -------
    pattern : ndarray of shape (n_positions,) or (n_stimuli, n_positions)
        One for each entry of a parameter that is an array.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite or out of range, or there is no such edge.

    References
    ----------
    .. [1] Rubin, Van Hooser & Miller (2015). Neuron 85, 402-417.

    Examples
    --------
    >>> from ssn_estimators.geometry import line
    >>> from ssn_estimators.stimuli import bar
    >>> bar(line(5), [1.0, 3.0])
    array([[0., 0., 1., 0., 0.],
           [0., 1., 1., 1., 0.]])
    """
    length, contrast = _column("length", length), _column("contrast", contrast)
    step = _edge(space, edge, edge_width)
    offset = _offset(space, place)
    _check_lengths(length=length, contrast=contrast, place=offset[..., 0], edge_width=step.width)
    pattern: np.ndarray = np.ones(space.n_positions) * contrast
    for x in np.moveaxis(offset, -1, 0):
        pattern = pattern * step(length / 2 + x) * step(length / 2 - x)
    return pattern


@validate_params(space=[Space])
def grating(
    space: Space,
    orientation: ArrayLike | None = None,
    width: ArrayLike | None = None,
    *,
    radius: ArrayLike | None = None,
    place: ArrayLike | None = None,
    edge: Literal["logistic", "erf"] | None = None,
    edge_width: ArrayLike | None = None,
    contrast: ArrayLike = 1.0,
) -> np.ndarray:
    r"""Grating in a disc, as cells see it that prefer orientations.

    It is :math:`c \, s((R - d)/q) \exp(-\Delta^2 / 2 w^2)`, with the distance d from its centre,
    the difference :math:`\Delta` of its orientation to the one that a position prefers, and a
    function s as in :func:`bar`: the input of [1]_.

    Parameters
    ----------
    space : Space
        Where the cells are.
    orientation : float or array-like of shape (n_stimuli,), default=None
        In degrees. On a ring without preferred orientations the position is the preferred one, and
        the unit that of the ring. None means that all cells see the grating alike.
    width : float or array-like of shape (n_stimuli,), default=None
        w > 0 in the unit of the orientation, for an orientation only.
    radius : float or array-like of shape (n_stimuli,), default=None
        R >= 0 in the unit of the space; None for a grating without end.
    place : float or array-like, default=None
        Centre of the disc, as in :func:`bump`.
    edge : {"logistic", "erf"} or None, default=None
        How the disc ends, as in :func:`bar`.
    edge_width : float or array-like of shape (n_stimuli,), default=None
        q > 0 in the unit of the space, for edges only.
    contrast : float or array-like of shape (n_stimuli,), default=1.0
        c >= 0.

    Returns
    -------
    pattern : ndarray of shape (n_positions,) or (n_stimuli, n_positions)
        One for each entry of a parameter that is an array.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite or out of range, there is no such edge, a
        parameter would not count for want of another, or there is no orientation in the space.

    References
    ----------
    .. [1] Holt, Miller & Ahmadian (2024). PLOS Computational Biology 20, e1012190.

    Examples
    --------
    >>> from ssn_estimators.geometry import sheet
    >>> from ssn_estimators.stimuli import grating
    >>> space = sheet((1, 5), orientation=[[0.0, 0.0, 30.0, 30.0, 30.0]])
    >>> grating(space, 30.0, 20.0, radius=1.5).round(3)
    array([0.   , 0.325, 1.   , 1.   , 0.   ])
    """
    pattern, step = _tuned(space, orientation, width, contrast), _edge(space, edge, edge_width)
    if radius is None:
        if place is not None or edge is not None:
            raise ValueError("place and edge count with a radius only.")
        return pattern
    radius, distance = _column("radius", radius), _distance(space, place)
    _check_lengths(pattern=pattern, radius=radius, place=distance, edge_width=step.width)
    return pattern * step(radius - distance)


@validate_params(space=[Space])
def annulus(
    space: Space,
    inner: ArrayLike,
    outer: ArrayLike,
    orientation: ArrayLike | None = None,
    width: ArrayLike | None = None,
    *,
    place: ArrayLike | None = None,
    edge: Literal["logistic", "erf"] | None = None,
    edge_width: ArrayLike | None = None,
    contrast: ArrayLike = 1.0,
) -> np.ndarray:
    r"""Grating in a ring about an empty disc.

    It is :math:`c \, s((d - R_1)/q) \, s((R_2 - d)/q) \exp(-\Delta^2 / 2 w^2)`, in the notation of
    :func:`grating`.

    Parameters
    ----------
    space : Space
        Where the cells are.
    inner, outer : float or array-like of shape (n_stimuli,)
        Radii :math:`0 \le R_1 \le R_2` in the unit of the space.
    orientation, width : float or array-like of shape (n_stimuli,), default=None
        In degrees, as in :func:`grating`.
    place : float or array-like, default=None
        Centre, as in :func:`bump`.
    edge : {"logistic", "erf"} or None, default=None
        How it ends on both sides, as in :func:`bar`.
    edge_width : float or array-like of shape (n_stimuli,), default=None
        q > 0 in the unit of the space, for edges only.
    contrast : float or array-like of shape (n_stimuli,), default=1.0
        c >= 0.

    Returns
    -------
    pattern : ndarray of shape (n_positions,) or (n_stimuli, n_positions)
        One for each entry of a parameter that is an array.

    Raises
    ------
    ValueError
        As :func:`grating`, and if an inner radius is larger than the outer one.

    Examples
    --------
    >>> from ssn_estimators.geometry import line
    >>> from ssn_estimators.stimuli import annulus
    >>> annulus(line(7), 1.5, 2.5)
    array([0., 1., 0., 0., 0., 1., 0.])
    """
    pattern, step = _tuned(space, orientation, width, contrast), _edge(space, edge, edge_width)
    inner, outer = _column("inner", inner), _column("outer", outer)
    distance = _distance(space, place)
    _check_lengths(pattern=pattern, inner=inner, outer=outer, place=distance, edge_width=step.width)
    if (inner > outer).any():
        raise ValueError("inner must not be larger than outer.")
    return pattern * step(distance - inner) * step(outer - distance)


@validate_params(space=[Space], orientations=["array-like"], contrasts=["array-like"])
def plaid(
    space: Space,
    orientations: ArrayLike,
    width: ArrayLike,
    *,
    contrasts: ArrayLike = (1.0, 1.0),
    radius: ArrayLike | None = None,
    place: ArrayLike | None = None,
    edge: Literal["logistic", "erf"] | None = None,
    edge_width: ArrayLike | None = None,
) -> np.ndarray:
    """Sum of two gratings of different orientations, on a ring of two bumps.

    Parameters
    ----------
    space : Space
        Where the cells are.
    orientations : pair
        Of what :func:`grating` takes as an orientation, in degrees.
    width : float or array-like of shape (n_stimuli,)
        In degrees, of both.
    contrasts : pair, default=(1.0, 1.0)
        Of what it takes as a contrast.
    radius, place, edge, edge_width : default=None
        Of both, as in :func:`grating`.

    Returns
    -------
    pattern : ndarray of shape (n_positions,) or (n_stimuli, n_positions)
        Up to the sum of both contrasts.

    Raises
    ------
    ValueError
        As :func:`grating`, and if there are not two orientations and two contrasts.

    Examples
    --------
    >>> from ssn_estimators.geometry import ring
    >>> from ssn_estimators.stimuli import plaid
    >>> plaid(ring(4, 180.0), (0.0, 90.0), 30.0, contrasts=(1.0, 0.5)).round(3)
    array([1.006, 0.487, 0.511, 0.487])
    """
    for name, pair in (("orientations", orientations), ("contrasts", contrasts)):
        sized = isinstance(pair, (list, tuple)) or (isinstance(pair, np.ndarray) and pair.ndim)
        if not sized or len(pair) != 2:
            raise ValueError(f"{name} must be two, got {pair!r}.")
    first, second = (
        grating(
            space,
            orientation,
            width,
            radius=radius,
            place=place,
            edge=edge,
            edge_width=edge_width,
            contrast=contrast,
        )
        for orientation, contrast in zip(orientations, contrasts, strict=True)
    )
    _check_lengths(first=first, second=second)
    return first + second


def for_types(pattern: ArrayLike, gains: ArrayLike) -> np.ndarray:
    """Input of the cells of all types: a pattern, times the gain of each type.

    Parameters
    ----------
    pattern : array-like of shape (n_positions,) or (n_stimuli, n_positions)
        Pattern over positions.
    gains : array-like of shape (n_types,)
        Factor of each type of cells, in the order of types.

    Returns
    -------
    pattern : ndarray of shape (n_types * n_positions,) or (n_stimuli, n_types * n_positions)
        All cells of the first type come first, as in the weights of :func:`.connect`.

    Raises
    ------
    ValueError
        If a shape is wrong, or a number is not finite.

    Examples
    --------
    >>> from ssn_estimators.stimuli import for_types
    >>> for_types([[1.0, 2.0]], [1.0, 0.5])
    array([[1. , 2. , 0.5, 1. ]])
    """
    pattern, gains = to_numbers(pattern, name="pattern"), to_numbers(gains, name="gains")
    if pattern.ndim not in (1, 2) or not np.isfinite(pattern).all():
        raise ValueError(
            "pattern must be finite and have shape (n_positions,) or (n_stimuli, n_positions), got "
            f"shape {pattern.shape}."
        )
    if gains.ndim != 1 or not gains.size or not np.isfinite(gains).all():
        raise ValueError(f"gains must be a finite number for each type of cells, got {gains}.")
    return np.concatenate([gain * pattern for gain in gains], axis=-1)


@validate_params(dt=POSITIVE)
def in_time(drives: Sequence[ArrayLike], durations: ArrayLike, dt: float = 1.0) -> np.ndarray:
    """Drives one after the other, each for some time, as :func:`.simulate` takes them.

    Parameters
    ----------
    drives : sequence of array-like of shape (n_inputs, n_neurons) or (n_neurons,)
        External drives in mV.
    durations : sequence of float
        How long each lasts, in ms: a multiple of `dt`.
    dt : float, default=1.0
        Time step in ms.

    Returns
    -------
    drive : ndarray of shape (n_steps, n_inputs, n_neurons)
        At the start of every step.

    Raises
    ------
    ValueError
        If there are not as many drives as durations, shapes differ, a number is not finite, or a
        duration is no multiple of `dt`.

    Examples
    --------
    >>> from ssn_estimators.stimuli import in_time
    >>> in_time([[0.0, 0.0], [5.0, 0.0]], [1.0, 2.0])[:, 0]
    array([[0., 0.],
           [5., 0.],
           [5., 0.]])
    """
    durations = to_numbers(durations, name="durations")
    if not np.iterable(drives):
        raise ValueError(f"drives must be a sequence of them, got {drives!r}.")
    each = [np.atleast_2d(to_numbers(drive, name="drives")) for drive in drives]
    if durations.ndim != 1 or len(each) != len(durations) or not each:
        raise ValueError(f"there must be one duration for each drive, got {durations}.")
    if any(drive.shape != each[0].shape or drive.ndim != 2 for drive in each):
        raise ValueError(f"drives must be of one shape, got {[drive.shape for drive in each]}.")
    if not all(np.isfinite(drive).all() for drive in each):
        raise ValueError("drives must be finite, got NaN or infinity.")
    steps = durations / dt
    if not is_whole(steps).all():
        raise ValueError(f"durations must be multiples of dt={dt:g} ms, got {durations}.")
    if not ((steps >= 0) & (steps.sum() > 0) & (steps.sum() <= MOST)).all():
        raise ValueError(f"durations must be >= 0, not all 0, and finite, got {durations}.")
    return np.concatenate(
        [np.repeat(drive[None], round(n), 0) for drive, n in zip(each, steps, strict=True)]
    )


def _column(name, value, legal="finite and >= 0"):
    """A parameter that is a number or has an entry for each stimulus, for rows of patterns."""
    array = to_numbers(value, name=name)
    if array.ndim > 1 or not LEGAL[legal](array).all():
        raise ValueError(
            f"{name} must be {legal}, a number or one for each stimulus, got {array.tolist()}."
        )
    return array[..., None]


def _check_lengths(**columns):
    """Raise ValueError unless all that have rows have as many."""
    lengths = {name: len(column) for name, column in columns.items() if np.ndim(column) == 2}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"there must be as many of each as there are stimuli, got {lengths}.")


def _edge(space, edge, width):
    if edge is None:
        if width is not None:
            raise ValueError("edge_width counts with an edge only.")
        # a position on the border is within it, however its distance was computed
        least = -ROUNDING * np.ptp(space.positions, axis=0).max()
        return Edge(lambda inside: (inside >= least).astype(float), 1.0)
    if not isinstance(edge, str) or edge not in EDGES:
        raise ValueError(f"edge must be None or one of {list(EDGES)}, got {edge!r}.")
    if width is None:
        raise ValueError(f"edge={edge!r} needs an edge_width.")
    return Edge(EDGES[edge], _column("edge_width", width, "finite and > 0"))


def _offset(space, place):
    """Displacements from one place, or from one for each stimulus."""
    if place is None:
        return space.displacements(np.zeros(space.n_dimensions))
    place = to_numbers(place, name="place")
    if space.n_dimensions == 1 and place.ndim < 2:
        place = place[..., None]
    if place.ndim > 2:
        raise ValueError(f"place must be one for each stimulus, got shape {place.shape}.")
    return space.displacements(place)


def _distance(space, place):
    return np.linalg.norm(_offset(space, place), axis=-1)


def _orientation_distance(space, orientation):
    """Differences to the preferred orientations, and the period of these."""
    orientation = _column("orientation", orientation, "finite")
    if space.orientation is not None:
        preferred, period = space.orientation, ORIENTATION_PERIOD
    elif space.is_ring:
        preferred, period = space.positions[:, 0], space.periods[0]
    else:
        raise ValueError("orientation is for a ring, or a space with preferred orientations.")
    return np.abs(shortest(preferred - orientation, period)), period


def _tuned(space, orientation, width, contrast):
    """A grating without end."""
    if orientation is None:
        if width is not None:
            raise ValueError("width counts with an orientation only.")
        return uniform(space, contrast=contrast)
    if width is None:
        raise ValueError("an orientation needs a width, that of the cells' tuning.")
    return bump(space, width, orientation=orientation, contrast=contrast)
