"""
Growth does not change the dynamics
===================================

A network of two cells grows to 32 by :func:`~ssn_estimators.split`. Without noise, and with
equal inputs to a cell and its clones, every clone repeats its parent's potential and no cell
notices that there are more of them. The control is a rule that looks as plausible: halve the
weights *onto* parent and clone instead of those *from* them.
"""

# %%
# A stable pair
# -------------
# :func:`~ssn_estimators.stable_pair` draws one excitatory (E) and one inhibitory (I) cell until
# they are stable under the given input. Here they have no noise, and the input function is the
# identity, so that the inputs are in mV.

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

from ssn_estimators import choose_parents, simulate, split, stable_pair, stage_sizes

h = [[5.0, 3.0]]
pair = stable_pair(h, theta=(1, 0, 1), noise=0.0, random_state=5)


def potentials(circuit, ancestors):
    """Potentials (mV) over time; every cell gets the input of the one it descends from."""
    drive = pair.drive(h)[:, ancestors]
    result = simulate(circuit, drive, n_trials=1, duration=150, burn_in=0, dt=0.5, record="u")
    return result.times, result.u[:, 0, 0]


times, u_pair = potentials(pair, [0, 1])

# %%
# Growth, cell by cell
# --------------------
# ``split`` says where every cell of the larger circuit comes from, ``choose_parents`` which
# cells to split on the way to the next size. The control copies the weights of the parent and
# divides rows (incoming) instead of columns (outgoing).


def split_rows(circuit, parents):
    grown, origin = split(circuit, parents)
    share = np.bincount(origin)[origin]
    weights = circuit.weights[np.ix_(origin, origin)] / share[:, None]
    return replace(grown, weights=weights), origin


def grow(rule):
    circuit, ancestors, n_cells, deviations = pair, np.array([0, 1]), [], []
    for size in stage_sizes(24, 8, "single")[1:]:
        circuit, origin = rule(circuit, choose_parents(circuit, *size))
        ancestors = ancestors[origin]
        _, u = potentials(circuit, ancestors)
        n_cells.append(circuit.n_neurons)
        deviations.append(np.abs(u - u_pair[:, ancestors]).max())
    return u, ancestors, n_cells, deviations


u, ancestors, n_cells, deviations = grow(split)
u_rows, _, _, deviations_rows = grow(split_rows)

# %%
# Parents and clones
# ------------------
# On top, the potentials of all 32 cells, thin, over those of the pair, thick. Below, the largest
# distance between a cell and the one it descends from, over all cells and times: rounding
# errors where columns are divided, and another network where rows are.

figure, axes = plt.subplot_mosaic(
    [["columns", "rows"], ["distance", "distance"]], figsize=(8, 6.5), layout="constrained"
)
panels = [("columns", u, "columns divided: split"), ("rows", u_rows, "rows divided: control")]
for panel, u_grown, title in panels:
    axis = axes[panel]
    for cell, (name, color) in enumerate([("E", "tab:red"), ("I", "tab:blue")]):
        family = np.flatnonzero(ancestors == cell)
        axis.plot(times, u_pair[:, cell], color=color, lw=7, alpha=0.3, label=f"{name} of the pair")
        lines = axis.plot(times, u_grown[:, family], color=color, lw=1)
        lines[0].set_label(f"{len(family)} {name} cells after growth")
    axis.set(xlabel="time (ms)", ylabel="membrane potential (mV)", title=title)
axes["columns"].legend(loc="lower right", frameon=False)

axis = axes["distance"]
axis.semilogy(n_cells, deviations_rows, "s", ms=4, color="0.6", label="rows divided: control")
axis.semilogy(n_cells, deviations, "o", ms=4, color="k", label="columns divided: split")
axis.set(
    xlabel="number of cells",
    ylabel="largest distance\nfrom the pair (mV)",
    xlim=(2, 33),
    ylim=(1e-18, 1e4),
)
axis.legend(loc="center right", frameon=False)
plt.show()

# %%
# Splitting does not depend on chance or on training: it holds for any circuit. What it leaves
# out is noise, of which every clone gets its own, and inputs that differ between clones. These
# are what training then works with.
