"""Noise on images, and how accuracy falls with it."""

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import (
    COUNT,
    NOT_NEGATIVE,
    NUMBER,
    RANDOM,
    Interval,
    check_array,
    validate_params,
)
from ssn_estimators._torch import to_numbers

if TYPE_CHECKING:
    from typing import Literal

    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike, Function, RandomState

__all__ = ["add_gaussian_noise", "add_salt_pepper", "robustness_curve"]


@validate_params(sigma=NOT_NEGATIVE, clip=["array-like", None], random_state=RANDOM)
def add_gaussian_noise(
    X: ArrayLike,
    sigma: float,
    *,
    clip: tuple[float, float] | None = (0.0, 1.0),
    random_state: RandomState = None,
) -> np.ndarray:
    """Add independent normal noise to every pixel.

    Parameters
    ----------
    X : array-like
        Images, of any shape.
    sigma : float
        Standard deviation.
    clip : tuple of two floats or None, default=(0.0, 1.0)
        Legal range of pixels.
    random_state : int, RandomState instance or None, default=None
        Source of the noise.

    Returns
    -------
    X : ndarray

    Examples
    --------
    >>> from ssn_estimators.lateral import add_gaussian_noise
    >>> add_gaussian_noise([[0.5, 0.5]], 0.0)
    array([[0.5, 0.5]])
    """
    X = _images(X)
    if clip is not None:
        clip = to_numbers(clip, name="clip")
        if clip.shape != (2,) or not clip[0] < clip[1]:
            raise ValueError(f"clip must be None or two numbers, the lower first, got {clip}.")
    noise = check_random_state(random_state).normal(size=X.shape).astype(X.dtype)
    noisy = X + X.dtype.type(sigma) * noise
    return noisy if clip is None else np.clip(noisy, *clip)


@validate_params(
    p=[Interval(Real, 0, 1, closed="both")], low=NUMBER, high=NUMBER, random_state=RANDOM
)
def add_salt_pepper(
    X: ArrayLike, p: float, *, low: float = 0.0, high: float = 1.0, random_state: RandomState = None
) -> np.ndarray:
    """Set a share of all pixels to black or white.

    Parameters
    ----------
    X : array-like
        Images, of any shape.
    p : float
        Probability of a pixel to be changed, to either with the same probability.
    low, high : float, default=0.0 and 1.0
        Black and white.
    random_state : int, RandomState instance or None, default=None
        Source of the noise.

    Returns
    -------
    X : ndarray
    """
    X = _images(X)
    drawn = check_random_state(random_state).uniform(size=X.shape)
    X = np.where(drawn < p / 2, X.dtype.type(low), X)
    return np.where((drawn >= p / 2) & (drawn < p), X.dtype.type(high), X)


def _images(X):
    return check_array(
        X, input_name="X", dtype=(np.float64, np.float32), allow_nd=True, ensure_2d=False
    )


NOISES = {  # between limits
    "gaussian": lambda low, high: partial(add_gaussian_noise, clip=(low, high)),
    "salt_pepper": lambda low, high: partial(add_salt_pepper, low=low, high=high),
}


@validate_params(levels=["array-like"], limits=["array-like"], n_repeats=COUNT, random_state=RANDOM)
def robustness_curve(
    estimator: BaseEstimator,
    X: ArrayLike,
    y: ArrayLike,
    *,
    noise: Literal["gaussian", "salt_pepper"] | Function = "gaussian",
    levels: ArrayLike = (0.0, 0.2, 0.4, 0.6),
    limits: tuple[float, float] = (0.0, 1.0),
    n_repeats: int = 3,
    scoring: str | Function | None = None,
    random_state: RandomState = 0,
) -> np.ndarray:
    """Score of a fitted estimator on ever noisier inputs.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    X : array-like of shape (n_samples, n_features)
        Images.
    y : array-like of shape (n_samples,)
        Their labels.
    noise : {"gaussian", "salt_pepper"} or callable, default="gaussian"
        :func:`.add_gaussian_noise`, :func:`.add_salt_pepper`, or a function of X, the level and
        `random_state`.
    levels : sequence of float, default=(0.0, 0.2, 0.4, 0.6)
        Sizes of the noise: its standard deviation, or the share of pixels.
    limits : tuple of two floats, default=(0.0, 1.0)
        Least and largest value of a pixel: black and white, between which noisy pixels stay. A
        callable `noise` has its own.
    n_repeats : int, default=3
        Draws of the noise; the same for any estimator with the same `random_state`.
    scoring : str, callable or None, default=None
        As in scikit-learn.
    random_state : int or RandomState instance, default=0
        Source of the noise.

    Returns
    -------
    scores : ndarray of shape (n_levels, n_repeats)

    Raises
    ------
    ValueError
        If there is no such noise, or X is not within `limits`.
    """
    if not callable(noise) and noise not in NOISES:
        raise ValueError(f"noise must be callable or one of {sorted(NOISES)}, got {noise!r}.")
    frame = X if hasattr(X, "iloc") else None
    if callable(noise):
        add = noise
    else:
        X, (low, high) = _images(X), limits
        if X.min() < low or X.max() > high:
            raise ValueError(
                f"X lies between {X.min():.3g} and {X.max():.3g}, beyond limits={limits!r}: "
                "noise would clip what was there. Give the limits of your pixels."
            )
        add = NOISES[noise](low, high)
    score = check_scoring(estimator, scoring)
    seeds = check_random_state(random_state).randint(2**31 - 1, size=n_repeats)

    def noisy(level, seed):
        found = add(X, level, random_state=seed)
        # under the names that the estimator may have been fitted with
        named = frame is None or hasattr(found, "iloc")
        return found if named else type(frame)(found, frame.index, frame.columns)

    return np.array([[score(estimator, noisy(level, s), y) for s in seeds] for level in levels])
