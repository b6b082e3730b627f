"""What displays share: axes, and colours of cell types."""

from __future__ import annotations

import numpy as np

from ssn_estimators._sklearn import check_matplotlib_support

__all__ = ["EXCITATORY", "INHIBITORY", "NEUTRAL", "TYPES", "axes_of", "lines_by_population"]

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
