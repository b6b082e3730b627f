"""Profiles: how a weight or an input falls off with distance, from 1 at distance 0."""

import numpy as np

__all__ = ["exponential", "gaussian", "local", "von_mises"]


def gaussian(distance, width):
    """exp(-d^2 / 2 w^2)."""
    with np.errstate(over="ignore"):  # far away in units of the width: 0
        return np.exp(-((distance / width) ** 2) / 2)


def exponential(distance, width):
    """exp(-d / w)."""
    with np.errstate(over="ignore"):
        return np.exp(-distance / width)


def von_mises(distance, width, period):
    """exp((cos(2 pi d / period) - 1) / w^2), w in radians."""
    with np.errstate(over="ignore"):
        # a square of the width might be 0
        return np.exp((np.cos(2 * np.pi / period * distance) - 1) / width / width)


def local(distance, width):
    """1 at distance 0, and 0 elsewhere; the width does not count."""
    return (distance == 0).astype(float)
