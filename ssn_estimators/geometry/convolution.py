"""Weights of a periodic space, whose product with rates is a convolution."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import irfftn, rfftn
from scipy.sparse.linalg import LinearOperator

from ssn_estimators._sklearn import NOT_NEGATIVE, POSITIVE, StrOptions, validate_params
from ssn_estimators.geometry.connectivity import (
    Pairs,
    block_of,
    check_signs,
    farthest,
    kernels_by_type,
)
from ssn_estimators.geometry.space import Space, wrapped

if TYPE_CHECKING:
    from typing import Literal

    from ssn_estimators._typing import ArrayLike, Function

__all__ = ["convolution"]


@validate_params(
    space=[Space],
    normalize=[StrOptions({"rows", "density"}), None],
    cutoff=NOT_NEGATIVE,
    reach=[*POSITIVE, None],
)
def convolution(
    space: Space,
    amplitudes: ArrayLike,
    widths: ArrayLike,
    *,
    signs: ArrayLike | None = None,
    profile: str | Function | ArrayLike = "gaussian",
    normalize: Literal["rows", "density"] | None = None,
    local_share: ArrayLike = 0.0,
    cutoff: float = 0.0,
    reach: float | None = None,
) -> LinearOperator:
    """The weights of :func:`.connect` as an operator, on a grid that is periodic throughout.

    All positions of such a space have the same neighbours, so that a product with rates takes
    Fourier transforms only: a time of n log n and a memory of n, whatever the reach.

    Parameters
    ----------
    space : Space
        A ring, or a periodic line or sheet. Its orientations do not count.
    amplitudes, widths : float or array-like of shape (n_types, n_types)
        As in :func:`.connect`.
    signs : sequence of shape (n_types,), default=None
        +1 for excitatory and -1 for inhibitory types; None leaves all weights >= 0.
    profile, normalize, local_share, cutoff, reach : default as there
        As in :func:`.connect`.

    Returns
    -------
    weights : LinearOperator of shape (n_types * n_positions, n_types * n_positions)
        ``weights @ rates`` is the input to all cells.

    Raises
    ------
    ValueError
        As :func:`.connect`, and if the space is no periodic grid.

    Examples
    --------
    >>> import numpy as np
    >>> from ssn_estimators.geometry import convolution, sheet
    >>> space = sheet((75, 75), periodic=True)
    >>> weights = convolution(space, 2.0, 20.0, normalize="rows")
    >>> (weights @ np.ones(5625)).round(6)[:3]
    array([2., 2., 2.])
    """
    if not _is_periodic_grid(space):
        raise ValueError("a convolution is for rings, and for periodic lines and sheets.")
    kernels = kernels_by_type(space, amplitudes, widths, profile, None, local_share)
    signs = np.ones(len(kernels)) if signs is None else check_signs(signs)
    if len(signs) != len(kernels):
        raise ValueError(f"there are {len(kernels)} types of cells, but {len(signs)} signs.")
    distance = np.linalg.norm(space.displacements(space.positions[0]), axis=-1)
    near = np.flatnonzero(distance <= farthest(np.inf if reach is None else reach))
    pairs = Pairs(np.zeros_like(near), near, distance[near], None)
    make = partial(block_of, pairs, space.n_positions, slice(0, 1), normalize, cutoff)
    onto_first = np.array([[make(kernel).toarray()[0] for kernel in row] for row in kernels])
    onto_first = (onto_first * signs[:, None]).reshape(onto_first.shape[:2] + space.shape)
    spectra = rfftn(onto_first, axes=range(2, onto_first.ndim))
    product = partial(_product, spectra, space.shape)
    transposed = partial(_product, spectra.swapaxes(0, 1), space.shape)
    n = len(kernels) * space.n_positions
    return LinearOperator(
        (n, n),
        matvec=product,
        rmatvec=transposed,
        matmat=product,
        rmatmat=transposed,
        dtype=float,
    )


def _product(spectra, shape, x):
    """Weights times vectors, which are columns; weights are even functions of displacement."""
    axes = range(1, 1 + len(shape))
    transformed = rfftn(x.reshape(len(spectra), *shape, -1), axes=axes)
    summed = np.einsum("ab...,b...k->a...k", spectra, transformed)
    return irfftn(summed, s=shape, axes=axes).reshape(x.shape)


def _is_periodic_grid(space):
    if space.shape is None or None in space.periods:
        return False
    spacing = np.divide(space.periods, space.shape)
    grid = np.indices(space.shape).reshape(space.n_dimensions, -1).T * spacing
    off = wrapped(space.positions - space.positions[0] - grid, space.periods)
    return bool((abs(off) < 1e-6 * spacing).all())
