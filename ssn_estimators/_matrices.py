"""Matrices and vectors of circuits: dense or sparse, of NumPy and SciPy or of torch."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array, issparse

from ssn_estimators._torch import to_numbers

__all__ = [
    "against_signs",
    "as_matrix",
    "detached",
    "frozen",
    "is_sparse",
    "sparse_noise",
    "times",
    "to_torch",
]


def is_sparse(matrix):
    """Whether it is a sparse array of SciPy, or a sparse tensor."""
    return issparse(matrix) or (torch.is_tensor(matrix) and matrix.layout != torch.strided)


def detached(array):
    """An array of NumPy or SciPy with the same numbers."""
    if torch.is_tensor(array) and is_sparse(array):
        parts = (array.values(), array.col_indices(), array.crow_indices())
        data, indices, indptr = (x.detach().cpu().numpy() for x in parts)
        return csr_array((data, indices, indptr), shape=tuple(array.shape))
    if issparse(array):
        return array
    return array.detach().cpu().numpy() if torch.is_tensor(array) else np.asarray(array)


def frozen(value, dtype, name):
    """A read-only copy as an array of NumPy."""
    array = to_numbers(detached(value) if torch.is_tensor(value) else value, dtype, name)
    array.setflags(write=False)
    return array


def _frozen_sparse(array, dtype):
    """In rows, read-only, and copied unless nothing can change it."""
    rows = csr_array(array).astype(dtype, copy=False)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    parts = rows.data, rows.indices, rows.indptr
    if any(part.flags.writeable for part in parts):
        parts = tuple(part.copy() for part in parts)
        for part in parts:
            part.setflags(write=False)
    frozen = csr_array(rows.shape, dtype=dtype)
    frozen.data, frozen.indices, frozen.indptr = parts
    return frozen


def as_matrix(weights):
    """Weights as they are kept."""
    dtype = getattr(weights, "dtype", None)
    if torch.is_tensor(weights):
        weights = weights if dtype in (torch.float32, torch.float64) else weights.float()
        return weights.to_sparse_csr() if is_sparse(weights) else weights
    single = isinstance(dtype, np.dtype) and dtype.newbyteorder("=") == np.float32
    dtype = np.float32 if single else float
    return (
        _frozen_sparse(weights, dtype) if issparse(weights) else frozen(weights, dtype, "weights")
    )


def sparse_noise(noise_factor, weights):
    """The noise factor of a circuit with sparse weights, sparse as they are."""
    n = weights.shape[0]
    if torch.is_tensor(noise_factor) or is_sparse(noise_factor):
        noise_factor = detached(noise_factor)
    if not issparse(noise_factor):
        noise_factor = to_numbers(noise_factor, float, "noise_factor")
        if noise_factor.shape in ((), (n,)):
            noise_factor = diags_array(np.broadcast_to(noise_factor, n))
    if noise_factor.shape != (n, n):
        raise ValueError(
            f"noise_factor must be a number or have the shape of weights, ({n}, {n}), or one entry "
            f"for each cell; got shape {noise_factor.shape}."
        )
    tensors = torch.is_tensor(weights)
    noise_factor = _frozen_sparse(noise_factor, float if tensors else weights.dtype)
    return to_torch(noise_factor).to(weights) if tensors else noise_factor


def to_torch(array):
    """A sparse tensor, which shares no memory with the array."""
    parts = (torch.tensor(x) for x in (array.indptr, array.indices, array.data))
    with warnings.catch_warnings():  # that they are new
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(*parts, size=array.shape)


def times(matrix, x):
    """Products of a matrix with vectors, the last axis of x."""
    if not is_sparse(matrix):
        return x @ matrix.T
    columns = x.reshape(-1, x.shape[-1]).T
    return (matrix @ columns).T.reshape(x.shape)


def against_signs(weights, signs):
    """Where weights break Dale's law, as pairs (post, pre), and the first of these weights."""
    if not issparse(weights):
        found = np.argwhere(weights * signs < 0)
        return found, float(weights[tuple(found[0])]) if len(found) else 0.0
    where = np.flatnonzero(weights.data * signs.astype(weights.dtype)[weights.indices] < 0)
    posts = np.searchsorted(weights.indptr, where, side="right") - 1
    first = float(weights.data[where[0]]) if len(where) else 0.0
    return np.stack([posts, weights.indices[where]], 1), first
