"""
A circuit that remembers
========================

Look at a place, wait, and go there when told. A stabilized supralinear network (SSN) of 25 cells
whose slowest has a time constant of 100 ms learns to do that after delays of up to half a second.
How does it remember? This page trains it, looks at a trial, searches the delay for fixed points,
and waits longer than it was trained for.
"""

# %%
# Training
# --------
# :func:`~ssn_estimators.datasets.make_cognitive_task` makes trials of *dlygo*: fixation, a stimulus
# (a bump on one of two rings of 8 inputs), a delay, and a response: as soon as the fixation input
# goes off, the fixation output is to go off and a bump to come up on a ring of outputs. Delays are
# mixed: 0, 100, ... 500 ms. Shorter trials are filled up with zeros, which ``lengths`` and ``mask``
# leave out.

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

from ssn_estimators import SSNSequenceRegressor, TrialDisplay, simulate
from ssn_estimators.datasets import cognitive_task_scores, make_cognitive_task
from ssn_estimators.inspection import fixed_points, local_dynamics

STEP = 50.0  # ms


def trials_of(delay, n_samples, random_state, jitter=0.0):
    """Periods of 300 ms, and a delay."""
    return make_cognitive_task(
        "dlygo",
        n_samples,
        delay=delay,
        jitter=jitter,
        duration=300.0,
        grace=100.0,
        dt=STEP,
        n_ring=8,
        rules=False,
        random_state=random_state,
    )


delays = np.arange(0, 501, 100)
mixture = [trials_of(delay, 200, i, jitter=50.0) for i, delay in enumerate(delays)]
n_steps = max(trials.X.shape[1] for trials in mixture)


def padded(array):
    """With as many time steps as the longest trial."""
    more = [(0, 0)] * array.ndim
    more[1] = (0, n_steps - array.shape[1])
    return np.pad(array, more)


X, y, mask = (
    np.concatenate([padded(trials[name]) for trials in mixture]) for name in ("X", "y", "mask")
)
lengths = np.concatenate([trials.lengths for trials in mixture])
ssn = SSNSequenceRegressor(
    n_excitatory=20,
    tau_e=100.0,
    tau_i=50.0,
    tau_eta=100.0,
    time_step=STEP,
    dt=25.0,
    burn_in=100.0,
    n_trials_predict=1,
    max_iter=1500,
    batch_size=32,
    max_grad_norm=0.3,
    input_noise=0.05,
    random_state=0,
)
ssn.fit(X, y, lengths=lengths, mask=mask)

for delay in (0, 250, 500):
    trials = trials_of(delay, 200, 100)
    outputs = ssn.predict(padded(trials.X), lengths=trials.lengths)[:, : trials.X.shape[1]]
    scores = cognitive_task_scores(trials, outputs)
    print(f"delay {delay} ms: {scores.response:.1%} right, fixates {scores.fixation:.1%}")
    assert scores.response >= 0.9

# %%
# A trial
# -------
# On the left one trial: the stimulus, mean rates, outputs and what they should be. On the right the
# first two principal components of the E cells' potentials in 32 trials, by the direction of the
# stimulus. Circles are fixed points under the input of the delay, looked for from the states that
# the trials have visited.

trials = trials_of(500, 64, 100)
fixation, stimulus, delay, _, response = trials.periods[0, :, 0]
shown = slice(32)
display = TrialDisplay.from_estimator(
    ssn,
    padded(trials.X[shown]),
    index=5,
    lengths=trials.lengths[shown],
    y=padded(trials.y[shown]),
    conditions=np.round(trials.angles[shown] / (np.pi / 4)).astype(int) % 8 * 45,
    fixed_step=int(delay),
    periods=dict(zip(trials.period_names, trials.periods[5], strict=True)),
    cmap="hsv",
    condition_label="stimulus (deg)",
)
plt.show()

# %%
# In the delay no input tells the directions apart, but the trials stay apart, and most of the fixed
# points lie on a ring, in the order of the directions.
#
# What the network found
# ----------------------
# The same search once more, for numbers. The time constant says how long a small deviation
# takes to decay to 1/e, or, where it is negative, to grow by e; the frequency, whether it turns.

circuit = ssn.circuit_
drive = ssn.drive(padded(trials.X), trials.lengths)  # (time steps, trials, cells), in mV
before, wait, go = drive[:delay], drive[delay], drive[response : trials.lengths[0]]


def prolonged(delay, noise=1.0, n_trials=1):
    """Simulate all trials with a delay of this many ms and so many times the noise."""
    inputs = np.concatenate([before, np.repeat(wait[None], round(delay / STEP), axis=0), go])
    return simulate(
        replace(circuit, noise_factor=noise * circuit.noise_factor),
        inputs,
        drive_step=STEP,
        duration=STEP * len(inputs),
        burn_in=100.0,
        dt=25.0,
        n_trials=n_trials,
        record="u",
        covariance=False,
        rates=False,
        random_state=0,
    )


def answers(simulation):
    """Directions in rad, from the outputs in the last 200 ms."""
    ring = ssn.read_out(simulation.u[-8:])[..., 1:].mean(0)
    return np.angle(ring @ np.exp(2j * np.pi * np.arange(8) / 8))


usual = prolonged(500)
visited = usual.u[:, :, 0].reshape(-1, circuit.n_neurons)[::10]
points = fixed_points(circuit, wait[:1], n_starts=0, start=visited)[0]
for i in range(len(points.u)):
    kind = "stable" if points.stable[i] else "unstable"
    rates = circuit.rates(points.u[i])
    print(
        f"{kind:8}  {points.time_constant[i]:6.0f} ms  {points.frequency[i]:.2f} Hz, "
        f"E cells {rates[circuit['E']].mean():.1f} Hz"
    )
slowest = points.time_constant[points.stable].max()
assert 2 <= points.stable.sum() <= 20
assert slowest > 5 * ssn.tau_e
assert points.frequency[points.stable].max() < 0.5

# %%
# There are a handful of attractors, and between them at least as many unstable points. Deviations
# from the attractors take up to seconds to decay, many times as long as those of a cell, and next
# to nothing turns. So the network has neither a stable state for each direction that it can
# remember, nor a perfect ring of them, but a slow manifold: a ring along which it moves slowly, to
# one of a few attractors. Along a trial, :func:`~ssn_estimators.inspection.local_dynamics` says the
# same.

local = local_dynamics(circuit, usual.u[:, :, 0])
low, middle, high = np.percentile(1000 * local.abscissa, [10, 50, 90], axis=1)
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
axis.axhline(0, color="0.6", lw=1)
axis.axhline(-1000 / ssn.tau_e, color="0.6", lw=1, ls=":", label="an E cell alone")
axis.fill_between(usual.times, low, high, color="tab:purple", alpha=0.25, lw=0)
axis.plot(usual.times, middle, color="tab:purple", label="network (median, 10% to 90% of trials)")
for name, (first, stop) in zip(trials.period_names, trials.periods[0], strict=True):
    if stop > first:
        axis.axvline(first * STEP, color="0.3", lw=0.8, ls="--")
        axis.text(
            (first + stop) / 2 * STEP, 1.02, name, ha="center", transform=axis.get_xaxis_transform()
        )
axis.set(
    xlabel="time (ms)", ylabel="leading eigenvalue,\nreal part (1/s)", xlim=(0, usual.times[-1])
)
axis.legend(frameon=False)
plt.show()

in_delay = (usual.times > delay * STEP + 100) & (usual.times <= response * STEP)
assert np.abs(middle[in_delay]).max() < 0.3 * 1000 / ssn.tau_e

# %%
# In the delay the leading eigenvalue is close to 0: along one direction in the space of potentials
# almost nothing pulls. When the fixation input goes off, it is positive for a moment: the answer
# builds up from small differences.
#
# Waiting longer
# --------------
# The network has never waited for more than 550 ms. But a drive is an array with one entry for each
# time step, and so the input of the delay can be prolonged. What becomes of the directions without
# noise shows where the network goes: lines are the answers that the attractors stand for.

ends = simulate(
    replace(circuit, noise_factor=0 * circuit.noise_factor),
    np.repeat(go[:, :1], points.stable.sum(), axis=1),
    initial=points.u[points.stable],
    drive_step=STEP,
    duration=STEP * len(go),
    burn_in=0.0,
    dt=25.0,
    n_trials=1,
    record="u",
)
true = np.degrees(trials.angles)
figure, axes = plt.subplots(
    1, 3, figsize=(9.5, 3.4), layout="constrained", sharex=True, sharey=True
)
for axis, delay_now in zip(axes, [500, 2000, 10_000], strict=True):
    found = np.degrees(answers(prolonged(delay_now, noise=0.0))[:, 0]) % 360
    for end in np.degrees(answers(ends)[:, 0]) % 360:
        axis.axhline(end, color="tab:orange", lw=1)
    axis.plot([0, 360], [0, 360], color="0.6", lw=1, ls=":")
    axis.plot(true, found, ".", color="k")
    axis.set(xlabel="stimulus (deg)", title=f"after {delay_now / 1000:g} s")
    axis.set(xticks=[0, 90, 180, 270, 360], yticks=[0, 90, 180, 270, 360])
axes[0].set_ylabel("answer (deg)")
axes[2].plot([], [], color="tab:orange", lw=1, label="attractors")
axes[2].legend(frameon=False, loc="upper left")
plt.show()

# %%
# After half a second every direction is there. After 2 s they have begun to gather, and after 10 s
# hardly any but those of the attractors are left: what was the memory of an angle has become that
# of a category.
#
# What noise does
# ---------------
# The median error over 64 directions and 8 trials of each, with the noise that the network was
# trained with, with eight times as much, and with none.

waits = np.array([0, 250, 500, 1000, 2000, 4000, 8000])
errors = {}
for noise in (8, 1, 0):
    found = [answers(prolonged(wait, noise, n_trials=8 if noise else 1)) for wait in waits]
    apart = [np.abs(np.angle(np.exp(1j * (own - trials.angles[:, None])))) for own in found]
    # a trial that has run away has no answer, which is as far off as one can be
    errors[noise] = np.degrees([np.median(np.nan_to_num(own, nan=np.pi)) for own in apart])
    print(f"{noise} times the noise: errors of {errors[noise].round().tolist()} deg")

figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
looks = {8: ("o-", "tab:purple"), 1: ("o-", "tab:green"), 0: ("--", "k")}
names = {8: "8 times as much", 1: "as in training", 0: "none"}
for noise, (line, color) in looks.items():
    axis.plot(waits / 1000, errors[noise], line, ms=4, color=color, label=names[noise])
axis.axvspan(0, 0.55, color="0.9", lw=0)
axis.text(0.65, 0.5, "longest delay of training", color="0.4", va="bottom")
axis.set(xlabel="delay (s)", ylabel="median error (deg)", xlim=(0, 8.2), ylim=(0, None))
axis.legend(frameon=False, title="noise")
plt.show()

# %%
# The noise of training makes hardly a difference: what is lost is lost to the drift towards the
# attractors. Only much more noise makes the states diffuse along the ring as well, where next to
# nothing holds them.

assert errors[1][-1] > 2 * errors[1][2]
assert abs(errors[1] - errors[0]).max() < 10
assert errors[8][-1] > errors[0][-1]
