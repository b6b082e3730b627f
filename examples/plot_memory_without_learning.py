"""
A memory without learning
=========================

Cells of prefrontal cortex go on firing after a cue has gone (Fuster & Alexander, Science, 1971).
A stabilized supralinear network (SSN) can do that with two cells and fixed weights:
Kraynyukova & Tchumatchenko (PNAS, 2018) mapped where SSNs have one, two or more states, among them
persistent activity without any input. :func:`ssn_estimators.circuits.bistable_pair` is of that
kind. This page looks at its states, switches it on and off, and asks how long it remembers when
there is noise.
"""

# %%
# Three fixed points
# ------------------
# Without input, :func:`~ssn_estimators.inspection.fixed_points` finds three states: silence,
# persistent activity, and an unstable one between them.

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

from ssn_estimators import circuits, simulate, split
from ssn_estimators.inspection import fixed_points, steady_states

RED, BLUE = "tab:red", "tab:blue"  # E and I cells

pair, _, drive = circuits.bistable_pair()
found = fixed_points(pair, drive(0.0))[0]
for u, stable in zip(found.u, found.stable, strict=True):
    rates = pair.rates(u).round(2)
    print(f"E {rates[0]:5.2f} Hz, I {rates[1]:5.2f} Hz: {'stable' if stable else 'unstable'}")
assert found.stable.sum() == 2
assert len(found.u) == 3
active = found.u[found.stable][found.u[found.stable][:, 0].argmax()]
saddle = found.u[~found.stable][0]

# %%
# Switched on by excitation, off by inhibition
# --------------------------------------------
# A drive may change in time: one entry for each step. The E cell gets 5 mV for 100 ms, and 600 ms
# later the I cell 20 mV for 50 ms.

dt = 0.5
options = {"n_trials": 1, "burn_in": 0.0, "dt": dt, "record": ("u", "r", "final")}


def pulses(*parts):
    """A drive in time from parts of (duration in ms, input to E, input to I)."""
    return np.concatenate([np.repeat(drive(e, i)[None], round(t / dt), 0) for t, e, i in parts])


protocol = pulses((100, 0, 0), (100, 5, 0), (600, 0, 0), (50, 0, 20), (250, 0, 0))
memory = simulate(pair, protocol, duration=1100, **options)
assert np.abs(memory.u[round(750 / dt), 0, 0] - active).max() < 0.01
assert memory.r[-1].max() < 0.01

# %%
# The phase plane shows why it stays where it is. On the red curves the E cell's potential does not
# change, on the blue one that of the I cell; they cross in the three states. From the grey region
# the circuit settles in activity, from the white one in silence.

u_e, u_i = np.meshgrid(np.linspace(-21, 32, 160), np.linspace(-3, 36, 118))
grid = np.stack([u_e, u_i], -1).reshape(-1, 2)
slopes = -grid + pair.rates(grid) @ pair.weights.T  # of potentials, times the time constants
settled = steady_states(pair, np.zeros_like(grid), start=grid)
remembers = settled.rates[:, 0] > 1
print(f"{settled}: {remembers.mean():.0%} active")

figure, (plane, over_time) = plt.subplots(
    1, 2, figsize=(10, 4), layout="constrained", width_ratios=[1, 1.3]
)
plane.contourf(u_e, u_i, remembers.reshape(u_e.shape), [0.5, 1.5], colors=["0.92"])
for cell, color in enumerate([RED, BLUE]):
    plane.contour(u_e, u_i, slopes[:, cell].reshape(u_e.shape), [0], colors=[color])
path = memory.u[:, 0, 0]
on, off = round(800 / dt), len(path)
plane.plot(*path[:on].T, color="k", lw=1.2, label="switched on")
plane.plot(*path[on:off].T, "--", color="k", lw=1.2, label="switched off")
for u, stable in zip(found.u, found.stable, strict=True):
    plane.plot(*u, "o", ms=7, mec="k", mfc="k" if stable else "w", zorder=3)
plane.set(xlabel="potential of the E cell (mV)", ylabel="potential of the I cell (mV)")
plane.legend(frameon=False, loc="upper left")

for cell, (name, color) in enumerate([("E cell", RED), ("I cell", BLUE)]):
    over_time.plot(memory.times, memory.r[:, 0, 0, cell], color=color, label=name)
for start, end, color, text in [(100, 200, RED, "E + 5 mV"), (800, 850, BLUE, "I + 20 mV")]:
    over_time.axvspan(start, end, color=color, alpha=0.15, lw=0)
    over_time.text(end + 8, 46, text, color=color, va="center")
over_time.set(xlabel="time (ms)", ylabel="rate (Hz)", xlim=(0, 1100), ylim=(0, 50))
over_time.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.8))
plt.show()

# %%
# The pulse to the E cell takes the circuit past the unstable state (white) and into the grey
# region; that to the I cell silences the E cell, and with it what had kept both going. In either
# state a small disturbance dies away. Delay activity in the motor cortex of mice is discrete in the
# same sense: disturbed by light, it goes back to one of two end points (Inagaki et al., Nature,
# 2019).
#
# The grey region is a band. To its right the E cell is so active that the fast I cell overshoots
# and ends everything, so a cue may also be too strong. Of pulses of 100 ms to the E cell, those
# from 3.2 to 10.7 mV are remembered; of pulses to both cells, none is.

strengths = np.linspace(0.2, 12.0, 119)
cues = np.zeros((round(600 / dt), 2 * len(strengths), 2))
cues[: round(100 / dt)] = np.concatenate([drive(strengths, 0.0), drive(strengths, strengths)])
after = simulate(pair, cues, **options | {"duration": 600, "record": "r"}).r[-1, :, 0, 0]
to_e, to_both = np.split(after > 1, 2)
print(f"remembered: {strengths[to_e].min():.1f} to {strengths[to_e].max():.1f} mV")
assert not to_both.any()
assert 3.15 < strengths[to_e].min() < 3.25
assert to_e[(strengths > 3.15) & (strengths < 10.65)].all()
assert not to_e[strengths > 10.85].any()

# %%
# Going on from where a simulation ended
# --------------------------------------
# The same experiment in pieces: each begins in the ``final`` state of the one before. That serves
# where a later input depends on what has happened, and for several futures of one past. Here the I
# cell gets 20 mV for 2, 5 or 50 ms during the delay, or both cells get it for 50 ms.

cue = simulate(pair, pulses((100, 0, 0), (100, 5, 0), (100, 0, 0)), duration=300, **options)
delay = simulate(pair, drive(0.0), duration=500, initial=cue.final, **options)
in_pieces = np.concatenate([cue.r, delay.r])[:-1]  # at whose end the next pulse begins
print("largest difference:", np.abs(in_pieces - memory.r[: len(in_pieces)]).max(), "Hz")

futures = {
    "I + 20 mV, 2 ms": [(2, 0, 20), (248, 0, 0)],
    "I + 20 mV, 5 ms": [(5, 0, 20), (245, 0, 0)],
    "I + 20 mV, 50 ms": [(50, 0, 20), (200, 0, 0)],
    "both + 20 mV, 50 ms": [(50, 20, 20), (200, 0, 0)],
}
ends = {}
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
axis.plot(delay.times[-200:] - 500, delay.r[-200:, 0, 0, 0], color="k")
for (name, parts), line in zip(futures.items(), [":", "--", "-", "-."], strict=True):
    future = simulate(pair, pulses(*parts), duration=250, initial=delay.final, **options)
    axis.plot(future.times, future.r[:, 0, 0, 0], line, color=RED, label=name)
    ends[name] = future.r[-1, 0, 0, 0]
axis.set(xlabel="time from the second pulse (ms)", ylabel="rate of the E cell (Hz)")
axis.set(xlim=(-100, 250), ylim=(0, 20))
axis.legend(frameon=False, ncols=2, loc="upper right")
plt.show()

# %%
# After 2 ms of inhibition the memory comes back, after 5 ms it is gone. Nor does excitation help if
# inhibition comes with it: the I cell, of 5 ms against 20 ms, is faster.

assert np.abs(in_pieces - memory.r[: len(in_pieces)]).max() < 1e-3
kept = {name: rate > 1 for name, rate in ends.items()}
assert list(kept.values()) == [True, False, False, False]

# %%
# What noise does
# ---------------
# Now both cells get noise with a standard deviation of .6 to 1 mV and a correlation time of 20 ms.
# 400 trials start in the active state, others in silence. A trial remembers for as long as the E
# cell's rate is above that of the unstable state.

threshold = pair.rates(saddle)[0]
levels = [0.6, 0.8, 1.0]
noisy = {}
for level in levels:
    circuit = replace(pair, noise_factor=level * np.eye(2))
    common = {"n_trials": 400, "burn_in": 0.0, "duration": 4000.0, "record": "r"}
    starts = np.stack([active, np.zeros(2)])
    noisy[level] = simulate(circuit, drive([0.0, 0.0]), initial=starts, random_state=0, **common)
times = noisy[1.0].times
survival = {level: (trial.r[:, 0, :, 0] > threshold).mean(1) for level, trial in noisy.items()}
silent = {level: (trial.r[:, 1, :, 0] > threshold).mean() for level, trial in noisy.items()}
print("remembered after 4 s:", {level: round(float(own[-1]), 2) for level, own in survival.items()})

# %%
# The noise is each cell's own. So what if four cells stand for each?
# :func:`~ssn_estimators.split` makes such a circuit, which without noise does the same.

alone = replace(pair, noise_factor=np.eye(2))
larger, origin = split(alone, [0, 0, 0, 1, 1, 1])
crowd = simulate(larger, np.zeros((1, 8)), initial=active[origin], random_state=0, **common)
survival["1.0, 4 + 4 cells"] = (crowd.r[:, 0, :, larger["E"]].mean(-1) > threshold).mean(1)

figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
lost = (noisy[1.0].r[-1, 0, :, 0] < threshold).nonzero()[0][:3]
for trial, shade in zip(lost, [1.0, 0.65, 0.35], strict=True):
    axes[0].plot(times / 1000, noisy[1.0].r[:, 0, trial, 0], color=RED, alpha=shade, lw=0.9)
axes[0].axhline(threshold, color="0.6", lw=1)
axes[0].text(4, threshold, "unstable state", color="0.4", ha="right", va="bottom")
axes[0].set(xlabel="time (s)", ylabel="rate of the E cell (Hz)", title="3 trials, noise of 1 mV")
axes[0].set(xlim=(0, 4), ylim=(0, None))
for (name, own), line in zip(survival.items(), ["-", "--", "-.", ":"], strict=True):
    axes[1].plot(times / 1000, own, line, color="k", label=name)
axes[1].set(xlabel="time (s)", ylabel="share of trials that remember", xlim=(0, 4), ylim=(0, 1.05))
axes[1].legend(frameon=False, title="noise (mV)", bbox_to_anchor=(1, 1), loc="upper left")
plt.show()

# %%
# Noise ends the memory, always in one direction: silent cells have no gain, so their noise goes
# nowhere, and no trial that started in silence became active. With 1 mV half of the trials have
# forgotten after a second, with .8 mV after four, and with .6 mV hardly any. The share that is left
# falls exponentially: the circuit does not age, it waits for one fluctuation that is large enough,
# and that wait grows steeply as noise falls. For the same reason a few more cells make a memory
# that lasts: independent noise averages out, four cells halve it, and nearly all trials of the
# circuit of 4 + 4 cells remember.

assert not any(silent.values())
assert 0.4 < survival[1.0][999] < 0.6
assert 0.4 < survival[0.8][-1] < 0.6
assert survival[0.6][-1] > 0.93
assert survival["1.0, 4 + 4 cells"][-1] > 0.98
left = survival[1.0][[999, 1999, 2999]]
per_second = np.log(left[:-1] / left[1:])
assert per_second.max() < 1.5 * per_second.min()
