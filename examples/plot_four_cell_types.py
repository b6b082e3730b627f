"""
Four cell types and optogenetics
================================

Inhibitory cells of cortex are of several types, and textbook intuition from one of them can
mislead. :func:`ssn_estimators.circuits.size_contrast` has excitatory cells (E) and the three
largest classes of interneurons, PV, SST and VIP cells, at the centre of a stimulus and in its
surround. Its weights are chosen by hand, with the structure that Palmigiano et al. (bioRxiv, 2021)
and Mossing et al. (bioRxiv, 2021) fitted to recordings in mouse V1: VIP cells inhibit SST cells,
SST cells inhibit all others, and SST cells alone reach the other place as strongly as their own.
"""

# %%
# The circuit
# -----------
# The first cell of each type is the one at the centre.

import matplotlib.pyplot as plt
import numpy as np

from ssn_estimators import Circuit, WeightsDisplay, circuits
from ssn_estimators.inspection import (
    is_inhibition_stabilized,
    perturb,
    population_response,
    response_matrix,
    size_tuning,
    steady_states,
)

COLORS = {"E": "tab:red", "PV": "tab:blue", "SST": "tab:orange", "VIP": "tab:green"}

circuit, _, drive = circuits.size_contrast()
WeightsDisplay.from_circuit(circuit)
plt.show()

# %%
# Size tuning by type
# -------------------
# ``drive(contrast, size)`` gives the inputs of all eight cells.

centre = [circuit[name].start for name in COLORS]
sizes = np.concatenate([np.arange(3.0, 30.0), np.arange(30.0, 62.0, 2.0)])
contrasts = np.array([0.12, 0.25, 0.5, 1.0])
stimuli = [drive(contrast, sizes) for contrast in contrasts]
tuning = size_tuning(circuit, stimuli, sizes, cells=centre)
index = tuning.suppression_index

figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
for axis, cell, (name, color) in zip(axes, range(4), COLORS.items(), strict=True):
    for contrast, curve in zip(contrasts, tuning.rates[..., cell], strict=True):
        alpha = 0.25 + 0.75 * contrast
        axis.plot(sizes, curve, color=color, alpha=alpha, label=f"{contrast:g}")
    axis.set(xlabel="size (deg)", ylim=(0, 27), title=f"{name}, suppression {index[-1, cell]:.2f}")
axes[0].set_ylabel("rate at the centre (Hz)")
axes[2].legend(frameon=False, title="contrast", loc="upper left", ncols=2)
plt.show()

# %%
# At full contrast E, PV and VIP cells are suppressed by large stimuli, VIP cells most; the number
# above each panel is 1 - rate at the largest size / largest rate. SST cells are not suppressed at
# all, and they bring the surround's inhibition to the centre: Adesnik et al. (Nature, 2012) found
# that SST cells of mouse V1 prefer large stimuli and cause part of surround suppression. At a
# contrast of .12 no type is suppressed.

assert index[-1, 3] > index[-1, 0] > 0.3
assert index[-1, 1] > 0.25
assert (index[:, 2] < 1e-12).all()  # but for rounding
assert (index[0] < 1e-12).all()

# %%
# What a little input to each type does
# -------------------------------------
# ``population_response`` is the table that an optogeneticist would like to have: the change of the
# rate of each type (rows) with a small input to all cells of another (columns), at the working
# point that a stimulus sets.

table = population_response(circuit, drive([0.12, 1.0], 13.0), cells=centre)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for axis, values, contrast in zip(axes, table.values, [0.12, 1.0], strict=True):
    limit = 1.4 * np.abs(values).max()  # so that all numbers can be read
    axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axis.text(column, row, f"{value:.2f}", ha="center", va="center")
    axis.set_xticks(range(4), table.perturbed)
    axis.set_yticks(range(4), table.responding)
    axis.set(xlabel="input to", title=f"contrast {contrast:g}, size 13 deg")
    axis.tick_params(length=0)
axes[0].set_ylabel("response of (Hz / mV)")
plt.show()

# %%
# At low contrast every type responds to input to itself as one expects: the diagonal is positive.
# At full contrast the PV cell's entry is negative, the paradoxical effect. That of the SST cell is
# positive and larger than before. Input to VIP cells raises E cells in both, and by about 30 times
# as much at full contrast.

low, high = table.values
assert (np.diag(low) > 0).all()
assert high[1, 1] < -0.7
assert high[2, 2] > low[2, 2]
assert 25 < high[0, 3] / low[0, 3] < 35

# %%
# Paradoxical cells and inhibition stabilization are two things
# -------------------------------------------------------------
# With a single inhibitory type, its paradoxical response says that excitation alone would be
# unstable, and the other way round. Not so with three. The figure has responses of the cells at the
# centre to input to all cells of their own type, over contrast. E cells alone are unstable to the
# right of the grey line.

levels = np.linspace(0.01, 1, 199)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharey=True)
own, unstable = {}, {}
for axis, size in zip(axes, [13.0, 60.0], strict=True):
    inputs = drive(levels, size)
    values = population_response(circuit, inputs, cells=centre).values
    own[size] = dict(zip(COLORS, np.diagonal(values, axis1=1, axis2=2).T, strict=True))
    unstable[size] = is_inhibition_stabilized(circuit, inputs)
    axis.axhline(0, color="0.8", lw=1)
    axis.axvline(levels[unstable[size].argmax()], color="0.6", lw=1)
    for name in ("PV", "SST"):
        axis.plot(levels, own[size][name], color=COLORS[name], label=name)
    axis.set(xlabel="contrast", title=f"size {size:g} deg", xlim=(0, 1))
axes[0].set_ylabel("response to input to\nthe own type (Hz / mV)")
axes[1].legend(frameon=False, loc="lower right")
plt.show()

paradoxical = {size: levels[own[size]["PV"] < 0] for size in own}
for size, found in paradoxical.items():
    print(
        f"size {size:g}: E cells alone unstable beyond {levels[unstable[size].argmax()]:.3f}; ",
        end="",
    )
    print(f"PV cells paradoxical from {found[0]:.3f} to {found[-1]:.3f}")

states = steady_states(circuit, drive([0.3, 1.0], 60.0))
jacobians = circuit.jacobian(circuit.gain(states.u))
by_type = jacobians.reshape(2, 4, 2, 4, 2).sum(4).mean(2)  # both places alike
without_pv = np.linalg.eigvals(by_type[:, [0, 2, 3]][:, :, [0, 2, 3]])
n_unstable = (without_pv.real > 0).sum(1)
print(f"size 60: {n_unstable} unstable modes without PV cells at contrasts of .3 and 1")

# %%
# In a stimulus of 13 degrees PV cells become paradoxical above a contrast of .21, a little after
# inhibition has become necessary. SST cells never are, at any of six sizes: with their activity
# frozen the rest of the circuit is stable, since PV cells hold it. And in a stimulus of 60 degrees
# the PV cells' paradox ends above a contrast of .4, although E cells alone are still unstable.
#
# The reason is in the signs. Cells of a type are alike at 60 degrees, and then a type is
# paradoxical exactly if the others, with that type frozen, have an *odd* number of unstable modes.
# Without PV cells there is one at a contrast of .3, and there are two at full contrast. So a
# paradoxical response shows that inhibition by that type is needed, and its absence shows nothing.
# Litwin-Kumar, Rosenbaum & Doiron (Journal of Neurophysiology, 2016) had shown that with several
# interneurons stabilization need not make any one of them paradoxical.

assert 0.2 < paradoxical[13.0][0] < 0.215
assert paradoxical[13.0][-1] == 1
assert 0.4 < paradoxical[60.0][-1] < 0.42
assert n_unstable.tolist() == [1, 2]
for size, found in paradoxical.items():
    assert unstable[size][np.isin(levels, found)].all()
assert unstable[60.0][-1]
others = np.delete(np.arange(8), [4, 5])  # all but SST cells
for size in (5.0, 8.0, 13.0, 22.0, 36.0, 60.0):
    chi = response_matrix(circuit, drive(levels, size))[:, 4:6, 4:6]
    assert (chi.sum(2) > 0).all()
    gain = circuit.gain(steady_states(circuit, drive(levels, size)).u)
    rest = circuit.jacobian(gain)[:, others][:, :, others]
    assert np.linalg.eigvals(rest).real.max() < 0

# %%
# Disinhibition by VIP cells, small and large
# -------------------------------------------
# :func:`~ssn_estimators.inspection.perturb` adds a finite input and lets the circuit settle again,
# here at full contrast. The dotted lines extend the table above.

strengths = np.linspace(-4, 4, 17)
changes = np.array(
    [perturb(circuit, drive(1.0, 13.0), "VIP", s).change[0, centre] for s in strengths]
)
figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
axis.axhline(0, color="0.8", lw=1)
for cell, (name, color) in enumerate(COLORS.items()):
    if name != "VIP":
        line = "--" if name == "PV" else "-"
        axis.plot(strengths, changes[:, cell], line, color=color, label=name)
        axis.plot(strengths, high[cell, 3] * strengths, ":", color=color, lw=1)
axis.set(xlabel="input to VIP cells (mV)", ylabel="change of rate at the centre (Hz)")
axis.legend(frameon=False)
plt.show()

# %%
# VIP cells inhibit SST cells, and so input to them raises E and PV cells. Fu et al. (Cell, 2014)
# found that locomotion activates VIP cells of mouse V1, and that they raise visual responses. Since
# gains rise with rates, + 4 mV does three times as much to E cells as - 4 mV, and about twice what
# the table says: stimulation and silencing of the same strength are no mirror images.

assert changes[-1, 0] > 3 * -changes[0, 0] > 0
assert 1.8 < changes[-1, 0] / (4 * high[0, 3]) < 2.2
assert changes[-1, 2] < 0 < changes[0, 2]

# %%
# How many cells must be stimulated?
# ----------------------------------
# The paradoxical effect belongs to a population. Here 50 cells of each type stand for the four at
# the centre, with weights such that nothing else changes, and + 0.2 mV goes to a share of the PV
# cells. A cell of gain g rises by g for each mV of its own; what the stimulated cells do together
# comes back to all PV cells through the circuit. With the response :math:`\chi` of the whole
# population, stimulated cells should fall only if they are more than :math:`g / (g - \chi)` of it.

n_clones = 50
weights = circuit.weights[np.ix_(centre, centre)]
tau = dict(zip(COLORS, circuit.tau[centre], strict=True))
column = Circuit(weights, populations=dict.fromkeys(COLORS, 1), k=0.04, tau=tau)
large = Circuit(
    np.kron(weights, np.full((n_clones, n_clones), 1 / n_clones)),
    populations=dict.fromkeys(COLORS, n_clones),
    k=0.04,
    tau=tau,
)
stimulus = drive(1.0, 13.0)[:, centre]
gain = column.gain(steady_states(column, stimulus).u)[0, 1]
chi = response_matrix(column, stimulus)[0, 1, 1]
critical = gain / (gain - chi)
print(f"critical share {critical:.2f}")

shares = np.array([0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
trials = [
    perturb(large, np.repeat(stimulus, n_clones, axis=1), "PV", 0.2, share=share, random_state=0)
    for share in shares
]
stimulated = np.array([trial.change_of_stimulated[0] for trial in trials])
rest = np.array([trial.change_of_others[0] for trial in trials])
mean = np.array([trial.by_population()["PV"][0] for trial in trials])

figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
axis.axhline(0, color="0.8", lw=1)
axis.axvline(critical, color="0.6", lw=1)
axis.plot(shares, stimulated, "o-", ms=4, color=COLORS["PV"], label="stimulated PV cells")
axis.plot(shares, rest, "o:", ms=4, color=COLORS["PV"], mfc="w", label="other PV cells")
axis.plot(shares, mean, color="k", lw=1, label="mean of PV cells")
axis.set(xlabel="share of PV cells stimulated", ylabel="change of rate (Hz)", xlim=(0, 1.02))
axis.legend(frameon=False, loc="lower left")
plt.show()

# %%
# Below a share of .54 (grey) the stimulated cells rise and only the others fall, although the mean
# falls whatever the share. An experiment that reaches few of the cells, and looks at those that it
# reaches, does not see that they are paradoxical as a population: Sadeh et al. (Journal of
# Neuroscience, 2017).

assert 0.53 < critical < 0.55
assert (np.sign(stimulated) == np.sign(critical - shares)).all()
assert (mean < 0).all()
assert (rest[:-1] < 0).all()
