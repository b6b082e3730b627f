"""Rows and columns of images that come as rows of pixels."""

import math
from numbers import Integral

import numpy as np

__all__ = ["image_shape_of"]


def image_shape_of(image_shape, n_pixels, *, n_dims=(2,), whole=True):
    """As given, or rows and columns as close to a square as the number of pixels allows.

    ValueError unless it has one of these numbers of dimensions and as many pixels, or a number of
    pixels that divides them if they need not be the `whole`.
    """
    if image_shape is None:
        rows = next(n for n in range(math.isqrt(n_pixels), 0, -1) if n_pixels % n == 0)
        return rows, n_pixels // rows
    sizes = np.asarray(image_shape, dtype=object)
    if sizes.ndim == 1 and len(sizes) in n_dims and all(_is_count(size) for size in sizes):
        shape = tuple(int(size) for size in sizes)
        n = math.prod(shape)
        if n == n_pixels or (n_pixels % n == 0 and not whole):
            return shape
    raise ValueError(f"image_shape={image_shape!r} does not fit images of {n_pixels} pixels.")


def _is_count(size):
    return isinstance(size, Integral) and not isinstance(size, bool) and size > 0
