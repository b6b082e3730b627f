"""What data say of the parameters of a fit, from the Jacobian of its residuals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from ssn_estimators._tables import data_frame

__all__ = [
    "Uncertainty",
    "identified",
    "intervals_of_values",
    "table_of",
    "uncertainty_of",
]

NONE = 1e-3  # share of a parameter, squared, in what residuals do not depend on
DECADE = np.log(10.0)


class Uncertainty(NamedTuple):
    """By the Jacobian."""

    covariance: np.ndarray  # of the coordinates
    standard_errors: np.ndarray  # of the values
    intervals: np.ndarray  # of the coordinates
    condition_number: float


def uncertainty_of(jacobian, scale, parameters, theta, level):
    """Standard errors and intervals for errors of the residuals of this size."""
    _, singular, right = np.linalg.svd(jacobian, full_matrices=False)
    size = singular.max(initial=0.0)
    none = singular <= size * max(jacobian.shape) * np.finfo(float).eps
    unknown = 1 - (right[~none] ** 2).sum(0) > NONE
    scaled = right[~none] / singular[~none, None]
    covariance = scale**2 * scaled.T @ scaled
    covariance[unknown], covariance[:, unknown] = np.inf, np.inf
    deviations = np.sqrt(np.diag(covariance))
    half = norm.ppf(0.5 + level / 2) * deviations
    values = parameters.values(theta)
    complete = len(singular) == len(theta) and not none.any()
    return Uncertainty(
        covariance=covariance,
        standard_errors=np.where(parameters.is_log, np.abs(values), 1.0) * deviations,
        intervals=theta[:, None] + half[:, None] * [-1, 1],
        condition_number=float(size / singular.min()) if complete else np.inf,
    )


def intervals_of_values(intervals, parameters):
    """Intervals of values, with signs, from those of coordinates."""
    with np.errstate(over="ignore"):
        found = np.where(parameters.is_log[:, None], np.exp(intervals), intervals)
    return np.where((parameters.signs < 0)[:, None], -found[:, ::-1], found)


def identified(intervals, parameters, theta):
    """Which intervals of coordinates are short.

    Those of logarithms span less than a decade, half of those of linear parameters is less than the
    largest of its kind.
    """
    is_log, largest = parameters.is_log, np.zeros(len(theta))
    for group in np.unique(parameters.group):
        own = parameters.group == group
        largest[own] = np.abs(theta[own]).max()
    width = intervals[:, 1] - intervals[:, 0]
    return np.where(is_log, width < DECADE, width < 2 * largest)


def table_of(names, values, standard_errors, intervals, identified):
    """The parameters as a pandas DataFrame, one in each row."""
    low, high = intervals.T
    columns = {"value": values, "standard_error": standard_errors, "low": low, "high": high}
    return data_frame({"name": names, **columns, "identified": identified})
