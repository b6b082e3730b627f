"""Rows and columns of images that come as rows of pixels."""

import math

__all__ = ["image_shape_of"]


def image_shape_of(image_shape, n_pixels):
    """Given, or as close to a square as the number of pixels allows."""
    if image_shape is None:
        rows = next(n for n in range(math.isqrt(n_pixels), 0, -1) if n_pixels % n == 0)
        return rows, n_pixels // rows
    shape = tuple(image_shape)
    if len(shape) != 2 or min(shape) < 1 or math.prod(shape) != n_pixels:
        raise ValueError(f"image_shape={image_shape!r} does not fit images of {n_pixels} pixels.")
    return shape
