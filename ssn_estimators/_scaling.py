"""Inputs to [0, 1], and targets to a mean of 0 and a variance of 1, whatever their units."""

from copy import deepcopy

import numpy as np
from sklearn.preprocessing import MinMaxScaler, StandardScaler

__all__ = [
    "check_target_scaler",
    "in_units",
    "is_rounding",
    "spread_of",
    "standardised",
    "target_scaler",
    "unit_range",
]

ROUNDING = 4  # in units of the last place: what values of a constant differ by
MOST_DEVIATIONS = 1e15  # standard deviations from the mean; squares must be float32
RELATIVE = 1e-12  # difference of targets, as a share of them, below which they are a constant


def unit_range(X):
    """Scaler of every feature to [0, 1], fitted; what does not change becomes 0.

    Raises
    ------
    ValueError
        If the difference of largest and smallest value cannot be held.
    """
    scaler = MinMaxScaler(clip=True).set_output(transform="default")  # whatever is asked for
    with np.errstate(over="ignore"):
        scaler.fit(X)
    low, high, span = scaler.data_min_, scaler.data_max_, scaler.data_range_
    if not np.isfinite(span).all():
        worst = int(np.argmin(np.isfinite(span)))
        raise ValueError(
            f"X has values from {low[worst]:.3g} to {high[worst]:.3g} in a feature, which are too "
            "far apart for numbers of this precision; give it other units."
        )
    # scikit-learn takes ranges below 2e-15 for 0, whatever the units, and no others
    with np.errstate(divide="ignore", over="ignore"):
        scale = 1 / span
    scaler.scale_ = np.where(is_rounding(low, high) | np.isinf(scale), 1, scale).astype(span.dtype)
    scaler.min_ = -low * scaler.scale_
    return scaler


def is_rounding(low, high):
    """Whether values between these are a constant, but for rounding."""
    return high - low <= ROUNDING * np.spacing(np.maximum(np.abs(low), np.abs(high)))


def spread_of(X):
    """Standard deviation of every feature; 1 of those that are constant."""
    return np.where(is_rounding(X.min(0), X.max(0)), 1.0, X.std(0))


def target_scaler(y, weights=None, known=None):
    """Scaler of targets, fitted.

    Parameters
    ----------
    y : ndarray of shape (n_samples, n_outputs)
        NaN is what does not count.
    weights : ndarray of shape (n_samples,), default=None
        Weights of the samples.
    known : StandardScaler, default=None
        That of the fits before. It stays as it is, but for outputs that have not changed so far:
        their scale is not known before they do.

    Raises
    ------
    ValueError
        If squared differences of targets cannot be held, or an output has no target.
    """
    if known is not None and not _constant(known).any():
        return known
    weights = None if weights is None else weights / weights.max()
    found = deepcopy(known) or StandardScaler().set_output(transform="default")
    with np.errstate(over="ignore", invalid="ignore"):
        found.partial_fit(y, sample_weight=weights)
    missing = np.isnan(y).all(0)
    if known is not None:
        changes = _constant(known) & ~missing
        for name in ("mean_", "var_", "scale_"):
            setattr(found, name, np.where(changes, getattr(found, name), getattr(known, name)))
    elif missing.any():
        raise ValueError(
            f"output {int(missing.argmax())} of y has no target to learn: none counts, or all that "
            "do are held out by early_stopping=True; then lower validation_fraction."
        )
    if not np.isfinite(found.scale_).all():
        raise _too_far(y)
    spread, size = np.ptp(_filled(y, found), axis=0), np.abs(_filled(y, found)).max(0)
    if (_constant(found) & (spread > RELATIVE * size)).any():
        raise ValueError(
            f"y has values that differ by no more than {spread[_constant(found)].max():.3g}, "
            f"about {size[_constant(found)].max():.3g}: too little for squared errors of this "
            "precision; give it other units, or subtract its mean."
        )
    return found


def _constant(scaler):
    """Outputs that have not changed so far, by which scikit-learn does not divide."""
    return scaler.scale_ != np.sqrt(scaler.var_)


def _filled(y, scaler):
    return np.where(np.isnan(y), scaler.mean_, y)


def _too_far(y):
    return ValueError(
        f"y has values of up to {np.nanmax(np.abs(y)):.3g}, too far from the others, or from those "
        "of the first fit, for squared errors of this precision."
    )


def standardised(y, scaler):
    """Targets of a mean of 0 and a variance of 1; exactly 0 where nothing has changed so far.

    ValueError if squares of them cannot be held.
    """
    found = np.where(_constant(scaler), 0.0 * y, scaler.transform(y))
    if (np.abs(found) >= MOST_DEVIATIONS).any():
        raise _too_far(y)
    return found


def in_units(outputs, scaler):
    """What standardised outputs, with an axis of them last, are in the units of the targets."""
    return outputs * np.where(_constant(scaler), 0.0, scaler.scale_) + scaler.mean_


def check_target_scaler(scaler, n_outputs):
    """Raise ValueError unless it scales so many outputs."""
    arrays = [getattr(scaler, name) for name in ("mean_", "var_", "scale_")]
    if any(array is None or array.shape != (n_outputs,) for array in arrays):
        raise ValueError(f"target_scaler_ does not scale {n_outputs} outputs.")
    if not (scaler.scale_ > 0).all() or not (scaler.var_ >= 0).all():
        raise ValueError("target_scaler_ must have positive scales.")
