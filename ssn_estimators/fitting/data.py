"""Responses: those seen, checked, and those of a circuit."""

from __future__ import annotations

import numpy as np

from ssn_estimators._sklearn import check_array, check_squares
from ssn_estimators._torch import to_numbers
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.inspection import steady_states

__all__ = ["errors_of", "explained_variance", "responses_of", "steady_responses"]

LARGEST = 1e50  # response in units of its error, and its inverse: squares are squared again


def responses_of(Y, n_rows, n_outputs=None):
    """Responses of shape (n_rows, n_outputs), and whether they had one axis only.

    ValueError if there must be another number of outputs.
    """
    if Y is None:
        raise ValueError("requires y to be passed, but the target y is None.")
    Y = check_array(
        Y, ensure_2d=False, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y"
    )
    if Y.ndim > 2 or len(Y) != n_rows:
        raise ValueError(
            f"y must have shape ({n_rows},) or ({n_rows}, n_outputs) for {n_rows} conditions, got "
            f"{Y.shape}."
        )
    is_flat, Y = Y.ndim == 1, Y.reshape(n_rows, -1)
    empty = np.isnan(Y).all(0)
    if empty.any():
        raise ValueError(
            f"Column {int(np.argmax(empty))} of y is NaN throughout: drop it, or give responses."
        )
    if n_outputs not in (None, Y.shape[1]):
        raise ValueError(f"y must have {n_outputs} columns, as in fit, got {Y.shape[1]}.")
    return Y, is_flat


def errors_of(sample_error, Y):
    """Standard errors of the shape of Y, 1 where there are none.

    ValueError if squares of responses in units of them could not be added up.
    """
    if sample_error is None:
        check_squares(np.nan_to_num(Y), "y", LARGEST, 1 / LARGEST)
        return np.ones(Y.shape)
    errors = to_numbers(sample_error, float, "sample_error")
    if errors.ndim == 1 and Y.shape[1] == 1 and len(errors) == len(Y):
        errors = errors[:, None]
    if errors.shape not in ((), Y.shape[1:], Y.shape):
        raise ValueError(
            f"sample_error must be a number, or of shape ({Y.shape[1]},) or {Y.shape} as y; got "
            f"{errors.shape}."
        )
    errors = np.broadcast_to(errors, Y.shape)
    if not (errors[np.isfinite(Y)] > 0).all() or np.isinf(errors).any():
        raise ValueError("sample_error must be finite and > 0 wherever y is not NaN.")
    errors = np.where(np.isfinite(Y), errors, 1.0)
    with np.errstate(over="ignore"):
        own = np.maximum(np.abs(np.nan_to_num(Y)), 1.0) / errors
    check_squares(own, "y in units of sample_error", LARGEST, 1 / LARGEST)
    return errors


def steady_responses(circuit, drive, potentials):
    """Rates or potentials that a circuit settles at, one row for each drive."""
    states = steady_states(circuit, drive)
    if not states.stable.all():
        raise DivergenceError(
            f"The circuit has no stable state under {(~states.stable).sum()} of {len(drive)} "
            f"conditions, first under that of row {int(np.argmin(states.stable))}. Inputs may be "
            "far from those of fit; drive and circuit_ say what happens in simulate."
        )
    return states.u if potentials else states.rates


def explained_variance(targets, outputs):
    """Share of the variance of each target that outputs explain, where there are targets.

    As scikit-learn's R^2: a constant target is explained wholly or not at all.
    """
    seen = np.isfinite(targets)
    n_seen = seen.sum(0)
    known = np.where(seen, targets, 0.0)
    misfit = np.where(seen, (known - outputs) ** 2, 0.0).sum(0)
    mean = known.sum(0) / np.maximum(n_seen, 1)
    total = np.where(seen, (known - mean) ** 2, 0.0).sum(0)
    constant = np.where(misfit == 0, 1.0, 0.0)
    found = np.where(total > 0, 1 - misfit / np.where(total > 0, total, 1.0), constant)
    return np.where(n_seen > 0, found, np.nan)
