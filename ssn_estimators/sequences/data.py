"""Sequences as arrays, what is valid of them, and which of their time steps count."""

from __future__ import annotations

import numpy as np
from sklearn.utils import assert_all_finite

from ssn_estimators._scaling import unit_range
from ssn_estimators._sklearn import check_array, validate_data

__all__ = ["check_mask", "check_sequences", "response_weights", "unit_range_of", "valid_steps"]


def check_sequences(estimator, X, lengths, *, reset):
    """Sequences, and the valid time steps of each.

    Parameters
    ----------
    estimator : estimator
    X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
    lengths : array-like of shape (n_samples,) or None
    reset : bool
        Whether the estimator is to take note of their shape, or they must be of that noted.

    Returns
    -------
    X : ndarray of shape (n_samples, n_timesteps, n_channels)
        0 where it has been padded, with whatever numbers.
    lengths : ndarray of shape (n_samples,), int

    Raises
    ------
    ValueError
        If `X` is not of numbers, or ragged, or of other time steps or channels than those of the
        fit.
    """
    _refuse_ragged(X)
    # what is no array yet, as nested lists, is looked at below
    shape = getattr(X, "shape", ())
    if len(shape) == 3 and not reset:
        wanted = estimator.n_features_in_, estimator.n_channels_
        if shape[1:] != wanted:
            raise ValueError(
                f"X has {shape[1]} time steps of {shape[2]} channels, but "
                f"{type(estimator).__name__} was fitted to {wanted[0]} of {wanted[1]}. Pad shorter "
                "sequences and give their lengths."
            )
    options = {"allow_nd": True, "ensure_all_finite": lengths is None}
    X = validate_data(estimator, X, reset=reset, **options)
    if X.ndim > 3 or 0 in X.shape:
        raise ValueError(
            "X must have shape (n_samples, n_timesteps, n_channels), or (n_samples, n_timesteps) "
            f"with one channel, got {X.shape}."
        )
    X = X[..., None] if X.ndim == 2 else X
    if reset:
        estimator.n_channels_ = X.shape[2]
    elif X.shape[2] != estimator.n_channels_:
        raise ValueError(
            f"X has {X.shape[2]} channels, but {type(estimator).__name__} was fitted to "
            f"{estimator.n_channels_}."
        )
    if lengths is None:
        return X, np.full(len(X), X.shape[1])
    lengths = _check_lengths(lengths, X)
    X = np.where(valid_steps(lengths, X.shape[1])[:, :, None], X, X.dtype.type(0))
    assert_all_finite(X, input_name="X", estimator_name=type(estimator).__name__)
    return X, lengths


def _refuse_ragged(X):
    if not isinstance(X, (list, tuple)):
        return
    found = {len(x) if hasattr(x, "__len__") else 0 for x in X}
    if len(found) > 1:
        raise ValueError(
            f"X has sequences of {min(found)} to {max(found)} time steps. Pad them to one length, "
            "with any numbers, and give their lengths."
        )


def _check_lengths(lengths, X):
    """Valid time steps of every sequence, as integers."""
    n_samples, n_times = X.shape[:2]
    found = np.asarray(lengths)
    right = found.shape == (n_samples,) and found.dtype.kind in "iu"
    if not right or not ((found >= 1) & (found <= n_times)).all():
        raise ValueError(
            f"lengths must be {n_samples} integers of 1 to {n_times} time steps, one for each "
            f"sequence, got {lengths!r}."
        )
    return found.astype(int)


def valid_steps(lengths, n_times):
    """Mask of shape (n_samples, n_timesteps)."""
    return np.arange(n_times) < lengths[:, None]


def unit_range_of(X, lengths):
    """Scaler of every channel to [0, 1], fitted to all valid time steps."""
    return unit_range(X[valid_steps(lengths, X.shape[1])])


def response_weights(response, lengths, n_times):
    """Weights of time steps, of sum 1: equal ones in [first, stop) of every sequence.

    Parameters
    ----------
    response : array-like of shape (n_samples, 2) or (2,), or None
        First step, and the one after the last; None is the last valid step.
    lengths : ndarray of shape (n_samples,)
    n_times : int

    Raises
    ------
    ValueError
        If a period has no step, or one outside of its sequence.
    """
    if response is None:
        found = np.stack([lengths - 1, lengths], axis=1)
    else:
        found = np.asarray(response)
        if found.shape == (2,):
            found = np.broadcast_to(found, (len(lengths), 2))
        right = found.shape == (len(lengths), 2) and found.dtype.kind in "iu"
        if right:
            first, stop = found.T
            right = ((first >= 0) & (first < stop) & (stop <= lengths)).all()
        if not right:
            raise ValueError(
                f"response must hold the first time step and the one after the last of every "
                f"sequence, of shape ({len(lengths)}, 2), within their lengths; got {response!r}."
            )
    steps = np.arange(n_times)
    inside = (steps >= found[:, :1]) & (steps < found[:, 1:])
    return inside / inside.sum(1, keepdims=True)


def check_mask(mask, lengths, shape):
    """Weights of targets of shape (n_samples, n_timesteps, n_outputs); None is 1 where valid.

    Raises
    ------
    ValueError
        If the shape is another, a weight is negative or not finite, or nothing counts.
    """
    valid = valid_steps(lengths, shape[1])[:, :, None]
    if mask is None:
        return np.broadcast_to(valid, shape).astype(float)
    options = {"allow_nd": True, "ensure_2d": False, "dtype": float, "ensure_all_finite": False}
    found = check_array(mask, input_name="mask", **options)
    found = found[:, :, None] if found.ndim == 2 else found
    fits = found.ndim == 3 and found.shape[:2] == shape[:2] and found.shape[2] in (1, shape[2])
    if not fits:
        raise ValueError(
            f"mask must have shape {shape[:2]} or {shape}, as the targets, got {np.shape(mask)}."
        )
    found = np.where(valid, found, 0.0) * np.ones(shape[2])
    assert_all_finite(found, input_name="mask")
    if (found < 0).any() or not found.any():
        raise ValueError("mask must be weights that are not negative, and not all 0.")
    return found / found.max()  # sums can be held
