"""Cells by type: which are meant, and their means."""

from __future__ import annotations

import numpy as np

__all__ = ["cells_of", "choose_cells", "means_by_population", "types_of"]


def types_of(circuit):
    """Name of the population of each cell, ndarray of shape (n_neurons,)."""
    return np.repeat(list(circuit.populations), list(circuit.populations.values()))


def cells_of(circuit, population):
    """Indices of the cells of a population, or why there are none."""
    if not isinstance(population, str) or population not in circuit.populations:
        raise ValueError(
            f"population must be one of {list(circuit.populations)}, got {population!r}."
        )
    return np.arange(circuit.n_neurons)[circuit[population]]


def choose_cells(circuit, cells, usual=slice(None)):
    """Indices of cells from the name of a population, from indices, or None for the usual ones."""
    n = circuit.n_neurons
    if cells is None:
        return np.arange(n)[usual]
    if isinstance(cells, str):
        return cells_of(circuit, cells)
    chosen = np.asarray(cells)
    legal = chosen.ndim == 1 and chosen.dtype.kind in "iu" and chosen.size
    if not legal or chosen.min() < 0 or chosen.max() >= n:
        raise ValueError(
            f"cells must be a population, one of {list(circuit.populations)}, or indices from 0 to "
            f"{n - 1}; got {cells!r}."
        )
    return chosen


def means_by_population(values, types):
    """Mean over the cells of each type, along the last axis; a dict in the order of the cells."""
    return {str(name): values[..., types == name].mean(-1) for name in dict.fromkeys(types)}
