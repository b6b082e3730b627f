"""What displays share: axes, and colours of cell types."""

from __future__ import annotations

import numpy as np

from ssn_estimators._sklearn import check_matplotlib_support

__all__ = [
    "EXCITATORY",
    "INHIBITORY",
    "NEUTRAL",
    "TYPES",
    "axes_of",
    "band",
    "by_type",
    "lines_by_population",
]

EXCITATORY, INHIBITORY, NEUTRAL = "#c0392b", "#2563a8", "#555555"
TYPES = (EXCITATORY, INHIBITORY, "#2e7d32", "#b7791f", "#7b4397", NEUTRAL)


def axes_of(display, ax):
    """Where a display draws: the given axes, or those of a new figure."""
    check_matplotlib_support(f"{type(display).__name__}.plot")
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    display.ax_, display.figure_ = ax, ax.figure
    return ax


def lines_by_population(ax, x, curves):
    """A line for each population, or several, paler ones first."""
    lines = []
    for i, (name, y) in enumerate(curves.items()):
        colour, rows = TYPES[i % len(TYPES)], np.atleast_2d(y)
        for j, row in enumerate(rows, 1):
            label = name if j == len(rows) else None
            lines += ax.plot(x, row, color=colour, alpha=j / len(rows), label=label)
    ax.legend(frameon=False)
    return lines


def band(ax, x, mean, spread, *, colour, label, marker=""):
    """A line, and what is less than a spread from it; the lines drawn."""
    ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, lw=0)
    return ax.plot(x, mean, marker=marker, ms=4, color=colour, label=label)


def by_type(order, sizes):
    """All cells, type by type, those of each in the wanted order."""
    n = sum(sizes)
    if order is None:
        return np.arange(n)
    order = np.asarray(order)
    if not np.array_equal(np.sort(order, axis=None), np.arange(n)) or order.ndim != 1:
        raise ValueError(f"order must have each of the {n} cells once, got {order!r}.")
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    return order[np.argsort(kinds[order], kind="stable")]
