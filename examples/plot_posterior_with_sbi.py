"""
Posterior over circuits with sbi
================================

Which circuits have the rates that were measured? Simulation-based inference answers with a
posterior over all parameters, from simulations alone: no likelihood and no gradient is needed, and
circuits that run away are an outcome like any other. :func:`~ssn_estimators.as_sbi_simulator` makes
of a function from parameters to a circuit a simulator of the package sbi. Here the four weights of
an E and an I cell are to be found from their rates under three strengths of input. Rates tell how
excitation and inhibition of a cell balance, but not how strong they are.

This page needs sbi (``python -m pip install "ssn_estimators[sbi]"``), and says so without it.
"""

# %%
# A circuit of four numbers
# -------------------------
# A function says what circuit and what drive belong to parameters. Another one says what is kept of
# a simulation, four trials of half a second: logarithms of the rates of both cells, between .1 and
# 100 Hz.

import contextlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch

from ssn_estimators import Circuit, as_sbi_simulator

try:
    from sbi.inference import NPE
    from sbi.utils import BoxUniform
except ImportError:
    print('This page needs sbi: python -m pip install "ssn_estimators[sbi]".')
    raise SystemExit from None

NAMES = ["EE", "EI", "IE", "II"]  # post, pre
STRENGTHS = np.array([2.0, 5.0, 10.0])  # mV, to both cells


def pair(EE, EI, IE, II):
    circuit = Circuit([[EE, -EI], [IE, -II]], n_excitatory=1, k=0.04, noise_factor=0.5)
    return circuit, STRENGTHS[:, None] * [1.0, 1.0]


def log_rates(simulation, circuit):
    rates = np.log(simulation.rates.clip(0.1, 100.0))
    return {f"{cell} {i}": rates[i, j] for i in range(3) for j, cell in enumerate("EI")}


simulator = as_sbi_simulator(
    pair,
    NAMES,
    summaries=log_rates,
    n_trials=4,
    duration=500.0,
    dt=0.5,
    batch_size=200,
    random_state=0,
)

# %%
# Simulations and what is learned from them
# -----------------------------------------
# Weights are drawn from a box, and neural posterior estimation learns from the simulations which
# weights belong to which rates. Points of which a trial runs away have no rates. They are NaN,
# which sbi leaves out: the prior is that of circuits that stay finite.

LOW, HIGH = 0.2, 1.6  # mV s
torch.manual_seed(0)
prior = BoxUniform(torch.full((4,), LOW), torch.full((4,), HIGH))
weights = prior.sample((3000,))
rates = simulator(weights)
print(f"{simulator.n_diverged} of {simulator.n_points} circuits run away")

truth = torch.tensor([1.2, 0.7, 1.1, 0.5])
measured = simulator(truth)

# sbi writes logs into the folder where it is run
with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    inference = NPE(prior, show_progress_bars=False)
    inference.append_simulations(weights, rates)
    inference.train(training_batch_size=100, learning_rate=1e-3, stop_after_epochs=10)
posterior = inference.build_posterior()
samples = posterior.sample((2000,), x=measured, show_progress_bars=False).numpy()

# %%
# The posterior
# -------------
# All pairs of weights, with those of the circuit that was measured. Its excitation and inhibition
# of each cell lie on a narrow ridge: more of one takes more of the other. Along the ridge the
# posterior is nearly as wide as the prior (dashed).

figure, axes = plt.subplots(4, 4, figsize=(7.5, 7.5), layout="constrained", sharex="col")
for i, j in np.ndindex(4, 4):
    axis = axes[i, j]
    if j > i:
        axis.set_axis_off()
    elif i == j:
        axis.hist(
            samples[:, i], np.linspace(LOW, HIGH, 31), density=True, color="tab:blue", alpha=0.6
        )
        axis.axhline(1 / (HIGH - LOW), color="0.5", ls="--")
        axis.axvline(truth[i], color="tab:red")
        axis.set_yticks([])
    else:
        axis.plot(samples[:, j], samples[:, i], ".", ms=2, alpha=0.3, color="tab:blue")
        axis.plot(truth[j], truth[i], "+", ms=14, mew=2.5, color="tab:red")
        axis.set_ylim(LOW, HIGH)
    axis.set_xlim(LOW, HIGH)
    if i == 3:
        axis.set_xlabel(f"$W_{{{NAMES[j]}}}$ (mV s)")
    if j == 0 and i:
        axis.set_ylabel(f"$W_{{{NAMES[i]}}}$ (mV s)")
handles = [
    plt.Line2D([], [], ls="", marker=".", color="tab:blue", label="posterior"),
    plt.Line2D([], [], ls="--", color="0.5", label="prior"),
    plt.Line2D([], [], ls="", marker="+", ms=12, mew=2.5, color="tab:red", label="true circuit"),
]
figure.legend(handles=handles, loc="upper right", bbox_to_anchor=(0.9, 0.9), frameon=False)
plt.show()

# %%
# In numbers: the correlation within the pairs that act on one cell, and the share of the prior's
# standard deviation that is left along the ridge and across it.

correlation = np.corrcoef(samples.T)
print("correlation of EE with EI", correlation[0, 1].round(3))
print("correlation of IE with II", correlation[2, 3].round(3))
before = (HIGH - LOW) / np.sqrt(12)
for cell, own in (("E", samples[:, :2]), ("I", samples[:, 2:])):
    across, along = np.sqrt(np.linalg.eigvalsh(np.cov(own.T)))
    print(f"onto the {cell} cell: along {along / before:.2f}, across {across / before:.3f}")
    assert across < 0.1 * along
low, high = np.quantile(samples, [0.025, 0.975], axis=0)
assert ((low < truth.numpy()) & (truth.numpy() < high)).all()
assert min(correlation[0, 1], correlation[2, 3]) > 0.95

# %%
# Circuits of the posterior have the rates that were measured, however different their weights are.
# To tell them apart takes other measurements than steady rates under common input: input to one of
# the cells, time courses, or spectra, as :class:`~ssn_estimators.CircuitRegressor` takes them.

some = simulator(torch.from_numpy(samples[:100]))
fine = ~some.isnan().any(1)
off = (some[fine] - measured).abs().median()
print(f"median deviation of the rates of posterior circuits: {100 * float(off):.0f}%")
assert off < 0.1
