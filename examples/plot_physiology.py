"""
The physiology of an SSN
========================

A stabilized supralinear network (SSN) needs three things: rates that grow faster than linearly
with potentials, recurrent excitation that is strong, and inhibition that is fast and strong enough
to hold it. This page takes published circuits of that kind through five experiments of visual
physiology: contrast, stimulation of inhibitory cells, two gratings at once, size, and variability
over trials. Nothing is trained.
"""

# %%
# Contrast: first supralinear, then sublinear
# -------------------------------------------
# An excitatory (E) and an inhibitory (I) cell, the mean-field reduction that Ahmadian, Rubin &
# Miller (Neural Computation, 2013) analysed. Both get the same input, which stands for contrast.
# A cell without synapses would follow the dashed parabola.

import matplotlib.pyplot as plt
import numpy as np

from ssn_estimators import circuits, simulate, stationary_moments
from ssn_estimators.inspection import (
    contrast_response,
    is_inhibition_stabilized,
    normalization,
    response_matrix,
    size_tuning,
    steady_states,
)

RED, BLUE = "tab:red", "tab:blue"  # E and I cells

pair = circuits.ahmadian_2013_pair()
contrasts = np.linspace(0, 100, 201)
response = contrast_response(pair.circuit, 1.0, contrasts)
rates = response.by_population()
onset, peak = response.sublinear_onset(), response.supersaturation()
print(f"sublinear beyond {onset:.2f} mV, largest rate {peak.rate:.1f} Hz at {peak.contrast:.1f} mV")

external, recurrent = contrasts[1:], pair.circuit.weights[0, 0] * rates["E"][1:]

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
for axis, logarithmic in [(axes[0], True), (axes[1], False)]:
    axis.plot(contrasts, rates["E"], color=RED, label="E cell")
    axis.plot(contrasts, rates["I"], color=BLUE, label="I cell")
    axis.plot(contrasts, 0.04 * contrasts**2, "--", color="0.6", label="no synapses")
    axis.axvline(onset, color="0.8", lw=1, zorder=0)
    if logarithmic:
        axis.set(xscale="log", yscale="log", xlim=(1, 100), ylim=(0.03, 200))
        axis.legend(frameon=False, loc="lower right")
    else:
        axis.plot(peak.contrast, peak.rate, "v", color=RED)
        axis.annotate("supersaturation", (peak.contrast, peak.rate), (44, 6), color=RED)
        axis.set(xlim=(0, 100), ylim=(0, 100))
    axis.set(xlabel="input to both cells (mV)", ylabel="rate (Hz)")
axes[2].plot(external, recurrent / external, color="k")
axes[2].axvline(onset, color="0.8", lw=1, zorder=0)
axes[2].set(
    xlabel="input to both cells (mV)",
    ylabel="recurrent E / external input,\nE cell",
    xlim=(0, 100),
    ylim=(0, None),
)
plt.show()

# %%
# Weak input leaves the cells on their own: gains are low, synapses do little, and rates follow the
# parabola. As gains rise, recurrent excitation takes over (right), and at first it makes responses
# steeper still. The I cell then grows more than the E cell, and beyond 8.2 mV (grey) doubling the
# input less than doubles the E cell's response. Beyond 60.6 mV more input *lowers* it:
# supersaturation, as Peirce (Journal of Vision, 2007) reviews it for cells of visual cortex.

assert 8.2 < onset < 8.3
assert 60.5 < peak.contrast < 60.7
assert rates["E"][10] > 0.04 * contrasts[10] ** 2
assert rates["E"][-1] < peak.rate

# %%
# Inhibition stabilization and the paradoxical effect
# ---------------------------------------------------
# Is the circuit stable without its inhibition? With the I cell's activity frozen, the E cell alone
# would run away once its gain times its weight onto itself is above 1. Tsodyks et al. (Journal of
# Neuroscience, 1997) showed what then happens to I cells that are stimulated: their rate *falls*.
# For two cells, one is the same as the other.

inputs = np.linspace(0.1, 30, 300)
states = steady_states(pair.circuit, pair.drive(inputs))
loop = pair.circuit.weights[0, 0] * pair.circuit.gain(states.u)[:, 0]
to_inhibition = response_matrix(pair.circuit, pair.drive(inputs))[:, :, 1]
stabilized = is_inhibition_stabilized(pair.circuit, pair.drive(inputs))
assert (stabilized == (to_inhibition[:, 1] < 0)).all()
assert (stabilized == (loop > 1)).all()
first = np.interp(1.0, loop[:80], inputs[:80])
print(f"inhibition stabilizes the circuit beyond {first:.2f} mV")


def step(strength, more=1.0):
    """Rates from 50 ms before the I cell gets more input to 100 ms after."""
    drive = np.repeat(pair.drive(strength)[None], 1300, axis=0)
    drive[1100:, :, 1] += more  # after 550 ms, 500 of them burn-in
    options = {"n_trials": 1, "dt": 0.5, "burn_in": 500.0, "duration": 150.0, "record": "r"}
    result = simulate(pair.circuit, drive, **options)
    return result.times - 50, result.r[:, 0, 0]


figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
axes[0].axhline(0, color="0.8", lw=1)
axes[0].plot(inputs, to_inhibition[:, 0], color=RED, label="E cell")
axes[0].plot(inputs, to_inhibition[:, 1], color=BLUE, label="I cell")
axes[0].set(xlabel="input to both cells (mV)", ylabel="change of rate with\ninput to I (Hz / mV)")
axes[0].axvline(first, color="0.8", lw=1, zorder=0)
weak, strong = step(2.0), step(20.0)
for axis, (times, path), title in zip(
    axes[1:], [weak, strong], ["both cells at 2 mV", "both cells at 20 mV"], strict=True
):
    axis.axhline(0, color="0.8", lw=1)
    for cell, color in enumerate([RED, BLUE]):
        axis.plot(times, path[:, cell] - path[0, cell], color=color)
    axis.set(xlabel="time after + 1 mV to I (ms)", ylabel="change of rate (Hz)", title=title)
axes[1].legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="center right")
plt.show()

# %%
# At 2 mV the I cell does what one expects. At 20 mV it rises for a few ms, as its input tells it
# to, takes excitation away from itself by way of the E cell, and settles below where it was.
# The sign changes at 3.9 mV (grey), before responses become sublinear. Sanzeni et al. (eLife, 2020)
# stimulated inhibitory cells in visual, somatosensory and motor cortex of mice and found the
# paradoxical effect without any sensory stimulus: spontaneous activity would then lie to the right
# of the grey line.

(times, weak), (_, strong) = weak, strong
assert 3.9 < first < 3.95 < onset
assert weak[-1, 1] > weak[0, 1]
assert strong[:, 1].max() > strong[0, 1] + 0.1
assert strong[-1, 1] < strong[0, 1] - 1

# %%
# Two gratings at once: normalization
# -----------------------------------
# The ring of Rubin, Van Hooser & Miller (Neuron, 2015) has an E and an I cell for each of 180
# preferred orientations. Gratings of 45 and 135 degrees are shown alone and together, and
# :func:`~ssn_estimators.inspection.normalization` fits the E cells' response to both by a weighted
# sum of those to each.

ring = circuits.rubin_2015_ring()
orientations = ring.space.positions[:, 0]
gratings = ring.drive(1.0, 45.0)[0], ring.drive(1.0, 135.0)[0]
levels = np.array([1.0, 2.0, 3.5, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0])
alike = normalization(ring.circuit, *gratings, levels)
second = np.array([50.0, 40.0, 25.0, 15.0, 10.0, 5.0])
unlike = normalization(ring.circuit, *gratings, np.stack([np.full(6, 50.0), second], 1))

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
axes[0].semilogx(levels, alike.weight, "o-", ms=4, color=RED)
for height, name in [(1.0, "linear sum"), (0.5, "average")]:
    axes[0].axhline(height, color="0.8", lw=1, zorder=0)
    axes[0].text(50, height, name, ha="right", va="bottom", color="0.5")
axes[0].set(xlabel="contrast of both (mV)", ylabel="weight of each grating", ylim=(0, 1.7))
last = len(levels) - 1
axes[1].plot(orientations, alike.first[last], "--", color="0.4", label="45 deg")
axes[1].plot(orientations, alike.second[last], ":", color="0.4", label="135 deg")
axes[1].plot(orientations, alike.both[last], color=RED, label="both")
axes[1].set(xlabel="preferred orientation (deg)", ylabel="rate of E cells (Hz)", ylim=(0, 52))
axes[1].set_title("contrast 50 mV")
axes[1].legend(frameon=False, ncols=3, loc="upper center", columnspacing=1, handlelength=1.5)
axes[2].plot(second, unlike.weights[:, 0], "o-", ms=4, color="k", label="of the 50 mV one")
axes[2].plot(second, unlike.weights[:, 1], "s-", ms=4, color="0.6", label="of the other")
axes[2].set(xlabel="contrast of the other (mV)", ylabel="weight of each grating", ylim=(0, 1.15))
axes[2].legend(frameon=False)
plt.show()

# %%
# Weak gratings add up to more than their sum, with weights of up to 1.5; strong ones to about .7 of
# it, closer to an average. Where one is stronger, it takes the response over: at 50 and 10 mV
# weights are .96 and .12. Busse, Wade & Carandini (Neuron, 2009) described populations in cat V1 in
# this way, from equal weights to a winner that takes all; that summation is weaker at high contrast
# Heuer & Britten (Journal of Neurophysiology, 2002) had seen in area MT. No one divides here: the
# division is what recurrent inhibition amounts to.

assert alike.weight.max() > 1.5
assert 0.65 < alike.weight[-1] < 0.72
assert unlike.weights[4, 0] > 0.95
assert unlike.weights[4, 1] < 0.13

# %%
# Size: surround suppression
# --------------------------
# The line of the same paper: 101 places of the visual field, with excitation that reaches farther
# onto I cells than onto E cells. The stimulus is a bar that grows about the centre. Triangles mark
# the length that a cell prefers.

space = circuits.rubin_2015_line()
lengths = np.concatenate([np.arange(1, 16) / 3, np.arange(5.5, 20.0, 0.5)])
bars = np.array([2.0, 10.0, 50.0])
centre = [50, 151]  # the E and the I cell at the middle of the line
tuning = size_tuning(
    space.circuit, [space.drive(contrast, lengths) for contrast in bars], lengths, cells=centre
)
for contrast, preferred, index in zip(
    bars, tuning.preferred_size, tuning.suppression_index, strict=True
):
    print(f"contrast {contrast:2g}: preferred lengths {preferred.round(2)} deg, ", end="")
    print(f"suppression {index.round(2)} (E, I)")

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for axis, cell, color, name in zip(axes, [0, 1], [RED, BLUE], ["E cell", "I cell"], strict=True):
    for contrast, curve, alpha in zip(bars, tuning.rates[..., cell], [0.35, 0.65, 1], strict=True):
        label = f"{contrast:g} mV"
        axis.plot(lengths, curve / curve.max(), color=color, alpha=alpha, label=label)
        axis.plot(lengths[curve.argmax()], 1.04, "v", color=color, alpha=alpha, mec="none")
    axis.set(
        xlabel="length of the bar (deg)",
        ylabel="rate / largest rate",
        ylim=(0, 1.1),
        title=f"{name} at the centre",
    )
axes[1].legend(frameon=False, title="contrast", loc="lower right")
plt.show()

# %%
# Longer bars first add to the response and then suppress it. At high contrast the preferred length
# is shorter and suppression of the E cell stronger, as Sceniak et al. (Nature Neuroscience, 1999)
# found in macaque V1. At 2 mV there is hardly any: gains are too low for the surround's I cells to
# matter. I cells are suppressed too, though less: as in the paradoxical effect, E cells withdraw
# more excitation from them than the surround adds. Ozeki et al. (Neuron, 2009) recorded that in cat
# V1, where a surround lowers excitation *and* inhibition of the cells that it suppresses. At 50 mV
# the model's responses also wax and wane with length.

preferred, index = tuning.preferred_size, tuning.suppression_index
assert (np.diff(preferred, axis=0) < 0).all()
assert (np.diff(index, axis=0) > 0).all()
assert index[0].max() < 0.01
assert (index[1:, 1] < index[1:, 0]).all()
low = tuning.rates[2, lengths < 8, 0].min()
assert low < 0.2 * tuning.rates[2, -1, 0]

# %%
# Variability: quenched by a stimulus
# -----------------------------------
# A pair with noise of 50 ms correlation time, of Hennequin et al. (Neuron, 2018). At 1 s its input
# goes from 2 to 15 mV. On the right the standard deviation at many constant inputs, simulated
# (dots) and from the Gaussian closure (lines).

noisy = circuits.hennequin_2018_pair()
drive = np.repeat(noisy.drive(2.0)[None], 1800, axis=0)
drive[1000:] = noisy.drive(15.0)
onset = simulate(
    noisy.circuit, drive, n_trials=200, duration=1500, burn_in=300, record="u", random_state=0
)
after = onset.times - 700

strengths = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0])
constant = simulate(
    noisy.circuit, noisy.drive(strengths), n_trials=40, duration=1000, random_state=0
)
finer = np.linspace(0, 20, 81)
closure = stationary_moments(noisy.circuit, noisy.drive(finer))
deviation = np.sqrt(constant.covariance[:, 0, 0])

figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
axes[0].plot(after, onset.u[:, 0, :8, 0], color=RED, lw=0.8, alpha=0.6)
axes[0].set(xlabel="time from onset (ms)", ylabel="potential of the E cell (mV)", xlim=(-400, 400))
axes[0].set_title("8 trials")
over_trials = onset.u[:, 0].std(1)
for cell, color, name in [(0, RED, "E cell"), (1, BLUE, "I cell")]:
    axes[1].plot(after, over_trials[:, cell], color=color, label=name)
    axes[2].plot(finer, np.sqrt(closure.covariance[:, cell, cell]), color=color)
    axes[2].plot(strengths, np.sqrt(constant.covariance[:, cell, cell]), "o", ms=4, color=color)
axes[1].set(xlabel="time from onset (ms)", ylabel="sd over trials (mV)", xlim=(-400, 400))
axes[1].set_ylim(0, 1.3)
axes[1].legend(frameon=False)
axes[2].set(xlabel="input to both cells (mV)", ylabel="sd over time and trials (mV)", ylim=(0, 1.3))
plt.show()

# %%
# Weak input raises gains, and with them what recurrent excitation makes of noise; strong input
# brings inhibition that responds to every fluctuation. Between 2 mV, which may stand for
# spontaneous activity, and 15 mV the variance of the E cell falls to about an eighth. A fall at the
# onset of a stimulus is what Churchland et al. (Nature Neuroscience, 2010) found in all cortical
# areas they looked at. Hennequin et al. explained it in this way: one stable state whose
# fluctuations change, where other models have several states between which a circuit wanders.

before, later = over_trials[(after < 0)].mean(0), over_trials[after > 100].mean(0)
ratio = (deviation[strengths == 2] / deviation[strengths == 15])[0] ** 2
print(f"variance at 2 mV / at 15 mV: {ratio:.1f}")
assert 7 < ratio < 10
assert (later < 0.5 * before).all()
assert strengths[deviation.argmax()] == 2
