"""
Gamma, and why its frequency rises with contrast
================================================

Gamma is a rhythm of cortex, here between 50 and 100 Hz. In V1 of macaques its frequency rises with
the contrast of a stimulus. Holt, Miller & Ahmadian (PLOS Computational Biology, 2024) let a
stabilized supralinear network (SSN) do the same: synapses get receptors, each with a time constant
of its own, and noise excites a damped oscillation between excitatory (E) and inhibitory (I) cells.
This page looks at one column of their circuit, asks what each receptor does, and ends with the
whole sheet. Nothing is trained, and nearly everything is linear algebra.
"""

# %%
# Rates by contrast
# -----------------
# :func:`ssn_estimators.circuits.holt_2023_gamma` has an E and an I cell with the parameters of
# figures 4 and 6 of the paper. AMPA (4 ms) and NMDA (100 ms) carry 60% and 40% of the excitation,
# GABA (5 ms) the inhibition. Input and noise enter through AMPA. Where nothing changes, filters do
# nothing, so rates are those of :func:`ssn_estimators.circuits.holt_2023_column`, which has none.

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from scipy.signal import find_peaks

from ssn_estimators import Receptors, circuits, simulate, split
from ssn_estimators.inspection import (
    bifurcations,
    coherence,
    contrast_response,
    cross_spectrum,
    lfp_spectrum,
    power_spectrum,
    simulated_spectrum,
    steady_states,
)

RED, BLUE = "tab:red", "tab:blue"  # E and I cells
HZ = 1000 / (2 * np.pi)  # from 1/ms
FIGURES = (4, 6)

columns = {number: circuits.holt_2023_gamma(number) for number in FIGURES}
plain = {number: circuits.holt_2023_column(number).circuit for number in FIGURES}
contrasts = np.arange(101.0)
responses = {x: contrast_response(plain[x], columns[x].drive(1.0)[0], contrasts) for x in FIGURES}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained", sharey=True)
for axis, (number, response) in zip(axes, responses.items(), strict=True):
    for name, color in [("E", RED), ("I", BLUE)]:
        axis.plot(contrasts, response.by_population()[name], color=color, label=f"{name} cell")
    axis.set(xlabel="contrast", title=f"figure {number}", xlim=(0, 100), ylim=(0, 46))
axes[0].set_ylabel("rate (Hz)")
axes[0].legend(frameon=False)
plt.show()

# %%
# Rates rise with contrast, those of the I cell faster, and with rates rise the gains of the cells
# and all that synapses do. Put into these states, the circuit with receptors stays there.

chosen = np.array([0.0, 25.0, 50.0, 75.0, 100.0])
states = {}
for number, (circuit, _, drive) in columns.items():
    start = steady_states(plain[number], drive(chosen)).u
    states[number] = steady_states(circuit, drive(chosen), start=start)
    assert states[number].stable.all()
    assert np.allclose(states[number].u, start)
assert np.allclose(states[4].rates[[1, 4]], [[8.129, 8.829], [22.88, 38.31]], rtol=5e-3)
assert np.allclose(states[6].rates[[1, 4]], [[12.80, 16.13], [24.48, 44.49]], rtol=5e-3)

# %%
# Spectra
# -------
# :func:`~ssn_estimators.inspection.power_spectrum` has the spectrum of the E cell's input, which is
# its potential, in the circuit linearised about these states. Giving it the states as a start saves
# it from looking for them. On the right is the same, divided by the spectrum at contrast 0; dots
# are peaks.

frequencies = np.arange(10.0, 130.0, 0.5)
power, peaks, relative_peaks = {}, {}, {}
for number, (circuit, _, drive) in columns.items():
    start = states[number].u
    found = power_spectrum(circuit, drive(chosen), frequencies, cells="E", start=start)
    power[number] = found[..., 0]
    places = [find_peaks(own)[0] for own in power[number]]
    peaks[number] = np.array([frequencies[x[0]] if len(x) else np.nan for x in places])
    relative_peaks[number] = frequencies[(power[number] / power[number][0]).argmax(1)]
    print(f"figure {number}: peaks {peaks[number][1:]} Hz, of the ratio ", end="")
    print(f"{relative_peaks[number][1:]} Hz")

figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained", sharex=True)
for row, number in zip(axes, FIGURES, strict=True):
    for i, contrast in enumerate(chosen):
        color = RED if contrast else "0.5"
        alpha = 0.25 + 0.0075 * contrast if contrast else 1
        curves = power[number][i], power[number][i] / power[number][0]
        tops = peaks[number][i], relative_peaks[number][i] if contrast else np.nan
        for axis, curve, top in zip(row, curves, tops, strict=True):
            axis.plot(frequencies, curve, color=color, alpha=alpha, label=f"{contrast:g}")
            height = np.interp(top, frequencies, curve)
            axis.plot(top, height, "o", ms=4, color=color, alpha=alpha)
    row[0].set(yscale="log", ylabel=f"figure {number}\npower (mV$^2$ / Hz)")
    row[1].set(yscale="log", ylabel="power / that at contrast 0", xlim=(10, 129))
for axis in axes[1]:
    axis.set_xlabel("frequency (Hz)")
axes[0, 0].legend(frameon=False, title="contrast", ncols=2, loc="lower left")
plt.show()

# %%
# At contrast 0 the cells are silent, and noise is all there is, low-passed by its own correlation
# time and by AMPA. A stimulus adds a peak that moves up with contrast: in figure 4 from 58 Hz at a
# contrast of 50 to 85 Hz at 100, in figure 6 from 60 to 94 Hz, tall and narrow. At a contrast of 25
# the spectrum of figure 4 has a shoulder only. Divided by the noise it has a peak there too, and
# all peaks of figure 4 are higher: since the noise falls with frequency, what it drives looks
# slower than it is.

assert np.isnan(peaks[4][:2]).all()
assert np.allclose(peaks[4][2:], [58.5, 74.0, 85.0], atol=0.5)
assert np.allclose(relative_peaks[4][1:], [53.5, 73.0, 86.0, 96.5], atol=0.5)
assert np.allclose(peaks[6][[1, 2, 4]], [59.5, 75.0, 94.0], atol=0.5)
assert np.allclose(relative_peaks[6][1:], peaks[6][1:], atol=0.5)
assert (np.diff(power[4][0]) < 0).all()

# %%
# The mode behind the peak
# ------------------------
# The peak belongs to a pair of complex eigenvalues of the Jacobian, a damped oscillation.
# Its imaginary part is a frequency, its real part says how fast the oscillation dies away.


def mode(circuit, u):
    """The eigenvalue of the fastest oscillation at potentials u, in Hz."""
    values = np.linalg.eigvals(circuit.jacobian(circuit.gain(u))) * HZ
    return np.take_along_axis(values, values.imag.argmax(-1)[..., None], -1)[..., 0]


levels = np.arange(5.0, 101.0)
modes = {}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained")
for axis, (number, (circuit, _, drive)) in zip(axes, columns.items(), strict=False):
    modes[number] = mode(circuit, steady_states(plain[number], drive(levels)).u)
    axis.plot(levels, modes[number].imag, color="k", label="mode")
    axis.plot(
        chosen[1:], relative_peaks[number][1:], "o", color=RED, mfc="w", label="peak of ratio"
    )
    axis.plot(chosen, peaks[number], "o", ms=4, color=RED, label="peak of spectrum")
    axis.set(xlabel="contrast", title=f"figure {number}", xlim=(0, 104), ylim=(0, 100))
    line = {4: "-", 6: "--"}[number]
    axes[2].plot(levels, -modes[number].real, line, color="k", label=f"figure {number}")
axes[0].set_ylabel("frequency (Hz)")
axes[0].legend(frameon=False, loc="lower right")
axes[2].set(xlabel="contrast", ylabel="decay of the mode (Hz)", xlim=(0, 104), ylim=(0, 45))
axes[2].legend(frameon=False)
plt.show()

# %%
# The frequency of the mode (black) rises with contrast, because gains do: stronger loops turn
# faster. In figure 4 it decays to 1/e in less than a cycle, so that the peak is broad, and the
# noise, which falls with frequency, shifts it down. In figure 6 the decay takes 18 cycles at full
# contrast. There the peak is where the mode is, and it gets the higher the closer the mode comes to
# instability.

at_chosen = {x: mode(column.circuit, states[x].u[1:]) for x, column in columns.items()}
assert np.allclose(at_chosen[4].imag, [50.6, 70.2, 83.3, 93.6], atol=0.1)
assert np.allclose(-at_chosen[4].real, [22.3, 21.9, 22.3, 22.9], atol=0.06)
assert np.allclose(at_chosen[6].imag[[0, 1, 3]], [60.0, 75.2, 94.1], atol=0.1)
assert np.allclose(-at_chosen[6].real[[0, 1, 3]], [4.2, 2.0, 0.81], atol=0.06)
assert all((np.diff(own.imag) > 0).all() for own in modes.values())
assert np.allclose(peaks[6][1:], at_chosen[6].imag, atol=0.5)
assert (peaks[4][2:] < at_chosen[4].imag[1:] - 8).all()
cycles = {x: own.imag / (-2 * np.pi * own.real) for x, own in at_chosen.items()}
assert cycles[4].max() < 1
assert 18 < cycles[6][-1] < 19

# %%
# Against a simulation
# --------------------
# Do linear spectra hold for the circuit itself, with noise of 1.5 mV? Dots are spectra of
# 50 trials of 2 s by Welch's method, lines those from above.

circuit, _, drive = columns[4]
options = {"n_trials": 50, "duration": 2000.0, "burn_in": 300.0, "dt": 0.5, "random_state": 0}
simulation = simulate(circuit, drive([50.0, 100.0]), record="u", **options)
welch = simulated_spectrum(simulation)
gamma = (welch.frequencies >= 10) & (welch.frequencies <= 100)
linear = power_spectrum(circuit, drive([50.0, 100.0]), welch.frequencies[gamma], cells="E")[..., 0]
ratio = welch.power[:, gamma, 0] / linear
print(f"simulated / linear: {ratio.min():.2f} to {ratio.max():.2f}, mean {ratio.mean():.2f}")

figure, axes = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained", width_ratios=[1.3, 1])
window = simulation.times <= 400
for i, (contrast, alpha) in enumerate([(50, 0.5), (100, 1.0)]):
    path = simulation.u[window, i, 0, 0]
    axes[0].plot(simulation.times[window], path, color=RED, alpha=alpha, lw=0.9)
    axes[1].plot(welch.frequencies[gamma], welch.power[i, gamma, 0], "k.", ms=5, alpha=alpha)
    axes[1].plot(welch.frequencies[gamma], linear[i], color=RED, alpha=alpha, label=f"{contrast}")
axes[0].set(xlabel="time (ms)", ylabel="potential of the E cell (mV)", xlim=(0, 400))
axes[0].set_title("a trial at each contrast")
axes[1].set(xlabel="frequency (Hz)", ylabel="power (mV$^2$ / Hz)", xlim=(10, 100), ylim=(0, 0.08))
axes[1].legend(frameon=False, title="contrast")
plt.show()

# %%
# They agree to within 20%, a part of which is the scatter of the estimate. So what looks like
# bursts of an oscillation in single trials is noise, filtered by a damped mode.

assert 0.8 < ratio.min()
assert ratio.max() < 1.2
assert abs(ratio.mean() - 1) < 0.05

# %%
# What each receptor does
# -----------------------
# The state stays, whatever the receptors are, so their part in the rhythm can be read off the
# eigenvalue. Each of the three time constants is changed alone, and then the share of NMDA; figure
# 4 at full contrast. In the grey half-plane the oscillation grows.

standard = {"AMPA": 4.0, "GABA": 5.0, "NMDA": 100.0}
colors = {"AMPA": "tab:red", "GABA": "tab:blue", "NMDA": "tab:orange"}
u = states[4].u[-1]


def with_receptors(share=0.4, **tau):
    """The column of figure 4 with another share of NMDA, or other time constants."""
    shares = {"E": {"AMPA": 1 - share, "NMDA": share}, "I": {"GABA": 1.0}}
    return replace(circuit, receptors=Receptors(standard | tau, shares))


factors, shares = np.geomspace(0.5, 2.0, 61), np.linspace(0.0, 0.8, 41)
by_share = np.array([mode(with_receptors(share), u) for share in shares])
by_tau = {}
for name, tau in standard.items():
    by_tau[name] = np.array([mode(with_receptors(**{name: x * tau}), u) for x in factors])

figure, axes = plt.subplots(
    2, 2, figsize=(9, 5.4), layout="constrained", sharex="col", sharey="row"
)
for name, color in colors.items():
    axes[0, 0].plot(factors, by_tau[name].imag, color=color, label=name)
    axes[1, 0].plot(factors, by_tau[name].real, color=color)
axes[0, 1].plot(shares, by_share.imag, color="k")
axes[1, 1].plot(shares, by_share.real, color="k")
for axis, usual in zip(axes.T, [1.0, 0.4], strict=True):
    for part in axis:
        part.axvline(usual, color="0.8", lw=1, zorder=0)
    axis[1].axhspan(0, 30, color="0.93", zorder=0)
axes[0, 0].set(ylabel="frequency (Hz)", ylim=(0, 150))
axes[1, 0].set(ylabel="growth of the mode (Hz)", ylim=(-70, 30), xscale="log", xlim=(0.5, 2))
axes[1, 0].set_xlabel("time constant / the usual one")
axes[1, 0].set_xticks([0.5, 1, 2], ["1/2", "1", "2"])
axes[1, 0].minorticks_off()
axes[1, 1].set(xlabel="share of NMDA in excitation", xlim=(0, 0.8))
axes[0, 0].legend(frameon=False)
plt.show()

# %%
# Slower GABA lowers the frequency and takes the damping away. Faster AMPA takes it away too, at a
# higher frequency: what counts is how slow inhibition is compared with excitation. NMDA is too slow
# to follow the rhythm, and so its time constant hardly matters. Its share does: what NMDA carries
# is missing in the fast loop, so more of it damps the rhythm and slows it. Without NMDA the state
# would be unstable.

for name, sign in [("AMPA", -1), ("GABA", 1)]:
    assert (sign * np.diff(by_tau[name].real) > 0).all()
    assert by_tau[name].real.max() > 0
slower = factors >= 1
assert (np.diff(by_tau["GABA"].imag[slower]) < 0).all()
assert (np.diff(by_tau["AMPA"].imag) < 0).all()
assert np.ptp(by_tau["NMDA"].imag) < 0.5
assert np.ptp(by_tau["NMDA"].real) < 4
assert (np.diff(by_share.real) < 0).all()
assert (np.diff(by_share.imag) < 0).all()
assert by_share[0].real > 0

# %%
# Slow inhibition: a Hopf bifurcation
# -----------------------------------
# :func:`~ssn_estimators.inspection.bifurcations` finds where damping ends as GABA gets slower. On
# the right the circuit starts 1 mV beside the state, without noise.


def slow_gaba(tau):
    """The circuit and its input, as a function of the time constant of GABA."""
    return with_receptors(GABA=tau), drive(100.0)[0]


(hopf,) = bifurcations(circuit, slow_gaba, [5.0, 10.0], start=u).points
print(f"{hopf.kind} at {hopf.value:.2f} ms, {hopf.frequency:.1f} Hz")

figure, axes = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained", width_ratios=[1, 1.6])
taus = standard["GABA"] * factors[slower]
axes[0].plot(taus, by_tau["GABA"][slower].real, color=colors["GABA"])
axes[0].axhspan(0, 30, color="0.93", zorder=0)
axes[0].plot(hopf.value, 0, "o", color="k")
axes[0].annotate(f"{hopf.frequency:.0f} Hz", (hopf.value, 0), (6.3, 3))
axes[0].set(xlabel="time constant of GABA (ms)", ylabel="growth of the mode (Hz)")
axes[0].set(xlim=(5, 10), ylim=(-25, 15))
ends = {}
for tau, color in [(8.0, "k"), (7.0, "tab:green"), (5.0, "tab:purple")]:
    quiet = replace(with_receptors(GABA=tau), noise_factor=0.0)
    options = {"n_trials": 1, "burn_in": 0.0, "duration": 400.0, "dt": 0.2, "record": "u"}
    found = simulate(quiet, drive(100.0), initial=u + np.array([1.0, 0.0]), **options)
    path = found.u[:, 0, 0, 0]
    axes[1].plot(found.times, path, color=color, lw=1, label=f"{tau:g} ms")
    ends[tau] = np.ptp(path[found.times > 300])
    if tau > hopf.value:
        rising = np.flatnonzero((path[:-1] < u[0]) & (path[1:] >= u[0]))
        cycle = 1000 / (0.2 * np.diff(rising)[-8:].mean())
axes[1].set(xlabel="time (ms)", ylabel="potential of the E cell (mV)", xlim=(0, 250), ylim=(8, 46))
axes[1].legend(frameon=False, title="GABA", ncols=3, loc="upper left")
plt.show()
print(f"at 8 ms: a cycle of {ends[8.0]:.1f} mV and {cycle:.1f} Hz")

# %%
# Up to 7.6 ms a deviation dies away, ever more slowly. Beyond, it grows into a limit cycle, whose
# frequency is a little below that of the bifurcation. So the circuit can have gamma in two ways: as
# noise that a damped mode filters, with a phase that is soon forgotten, and as a clock. The
# parameters of the paper are of the first kind.

assert hopf.kind == "hopf"
assert 7.5 < hopf.value < 7.65
assert 77.5 < hopf.frequency < 78.5
assert max(ends[5.0], ends[7.0]) < 0.01
assert 28 < ends[8.0] < 30
assert 72 < cycle < hopf.frequency

# %%
# Many cells: the field and the single cell
# -----------------------------------------
# :func:`~ssn_estimators.split` makes 20 + 20 cells of the column, each with noise of its own.
# :func:`~ssn_estimators.inspection.lfp_spectrum` is that of the mean over the E cells, which may
# stand for a local field potential (LFP), and :func:`~ssn_estimators.inspection.coherence` says how
# much two signals have in common at a frequency.

n = 20
larger, origin = split(circuit, [0] * (n - 1) + [1] * (n - 1))
inputs, start = drive(chosen)[:, origin], states[4].u[:, origin]
single = power_spectrum(larger, inputs, frequencies, cells=[0], start=start)[..., 0]
field = lfp_spectrum(larger, inputs, frequencies, start=start)
common = coherence(larger, inputs[1:], frequencies, [0], [1], start=start[1:])

figure, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained")
for i, contrast in enumerate(chosen):
    color = RED if contrast else "0.5"
    alpha = 0.25 + 0.0075 * contrast if contrast else 1
    style = {"color": color, "alpha": alpha, "label": f"{contrast:g}"}
    axes[0].plot(frequencies, single[i], **style)
    axes[1].plot(frequencies, field[i], **style)
    if contrast:
        axes[2].plot(frequencies, common[i - 1], **style)
for axis, title in zip(axes, ["one E cell", "mean of 20 E cells", "two E cells"], strict=True):
    axis.set(xlabel="frequency (Hz)", xlim=(10, 129), title=title)
for axis in axes[:2]:
    axis.set(yscale="log", ylabel="power (mV$^2$ / Hz)")
axes[2].set(ylabel="coherence", ylim=(0, 0.5))
axes[0].legend(frameon=False, title="contrast", ncols=2, loc="lower left")
plt.show()

# %%
# The field has the spectrum of the column, with a twentieth of the power, and so its peaks. In a
# single cell they drown in its own noise. What cells share is the rhythm: their coherence is next
# to nothing at low frequencies, and peaks where the column's spectrum relative to noise does, by
# contrast from 53 to 96 Hz.

assert np.allclose(field, power[4] / n, rtol=1e-6)
assert not any(len(find_peaks(own)[0]) for own in single)
assert np.allclose(frequencies[common.argmax(1)], relative_peaks[4][1:], atol=0.5)
assert (np.diff(common.max(1)) > 0).all()
assert common[:, frequencies < 12].max() < 0.02
assert 0.3 < common.max() < 0.4

# %%
# The sheet
# ---------
# In the column all cells get the same. :func:`ssn_estimators.circuits.holt_2023_sheet` has E and I
# cells at 289 places, .4 mm apart. It is figure 6 again, with gratings of .75 and 2.5 degrees
# around the centre. Spectra take a second for each.

sheet, space, drive = circuits.holt_2023_sheet(6, receptors=True)
gratings = drive([50.0, 100.0, 50.0], [0.75, 0.75, 2.5])
start = steady_states(replace(sheet, receptors=None), gratings).u  # the same, and faster
coarse = np.arange(30.0, 105.0, 2.5)
cells = [144, 145, 146, 148]  # E cells at the centre, and beside it
distances = np.linalg.norm(space.positions[cells] - space.positions[144], axis=1)
cross = cross_spectrum(sheet, gratings, coarse, cells=cells, start=start)
own = np.einsum("ifaa->ifa", cross).real
to_others = np.abs(cross[..., 0, 1:]) ** 2 / (own[..., :1] * own[..., 1:])
at_centre = own[..., 0]
sheet_peaks = np.array([coarse[find_peaks(row)[0]][0] for row in at_centre])
print(f"peaks at the centre {sheet_peaks} Hz, of the column {peaks[6][[2, 4]]} Hz")

figure, axes = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
for row, alpha, line, label in zip(
    at_centre, [0.5, 1, 0.5], ["-", "-", "--"], ["50", "100", "50, large"], strict=True
):
    axes[0].plot(coarse, row, line, color=RED, alpha=alpha, label=label)
axes[0].set(ylabel="power at the centre (mV$^2$ / Hz)", ylim=(0, 0.085))
axes[0].legend(frameon=False, title="contrast")
for distance, row, line in zip(distances[1:], to_others[1].T, ["-", "--", ":"], strict=True):
    axes[1].plot(coarse, row, line, color=RED, label=f"{distance:.1f} mm")
axes[1].set(ylabel="coherence with the centre", ylim=(0, 0.75), title="contrast 100, .75 deg")
axes[1].legend(frameon=False)
for axis in axes:
    axis.set(xlabel="frequency (Hz)", xlim=(30, 102.5))
plt.show()

# %%
# With contrast the peak at the centre moves from 67 to 85 Hz. It is lower than in the column since
# the grating is small: in one of 2.5 degrees the centre has the column's 75 Hz at a contrast of 50.
# Noise is each cell's own, and still places share their gamma, the less the farther apart they are.

assert np.allclose(sheet_peaks, [67.5, 85.0, 75.0], atol=2.5)
assert (sheet_peaks[:2] < peaks[6][[2, 4]]).all()
assert np.allclose(distances, [0, 0.4, 0.8, 1.6])
coherent = to_others[1]
assert (np.diff(coherent.max(0)) < 0).all()
assert np.abs(coarse[coherent.argmax(0)] - 85).max() <= 5
assert coherent[coarse < 60].max() < 0.1
