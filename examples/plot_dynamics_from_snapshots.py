"""
Dynamics from snapshots
=======================

Samples of a circuit's stationary state, without any times, say which weights it has, and
whether a simulation is right.
"""

# %%
# An E and an I cell, and one moment of each of many trials: potentials and noise under five
# inputs.
import matplotlib.pyplot as plt
import numpy as np

from ssn_estimators import Circuit, simulate
from ssn_estimators.density import circuit_from_samples, stationarity_test

pair = Circuit(
    [[1.25, -0.65], [1.2, -0.5]], n_excitatory=1, noise_factor=np.diag([0.24, 0.11]), tau_eta=50.0
)
drive = pair.drive(np.repeat([[0.0], [2.0], [5.0], [10.0], [15.0]], 2, axis=1))
simulation = simulate(
    pair,
    drive,
    n_trials=4000,
    burn_in=400.0,
    duration=0.2,
    dt=0.2,
    record=("u", "eta"),
    random_state=0,
)
snapshots = np.concatenate([simulation.u[0], simulation.eta[0]], axis=-1)

# %%
# The weights that keep these samples stationary, under Dale's law:
found = circuit_from_samples(pair, snapshots, drive, n_frequencies=200, random_state=0)
for name, true, weight, error in zip(
    ("E to E", "I to E", "E to I", "I to I"),
    pair.weights.ravel(),
    found.weights.ravel(),
    found.stderr.ravel(),
    strict=True,
):
    print(f"{name}: {weight:+.3f} +- {error:.3f}, in truth {true:+.2f}")
print(f"condition number {found.regressor.condition_number_:.0f}")

# %%
# The same samples reject other weights, the more clearly the further these are off.
factors = np.linspace(0.95, 1.05, 21)
statistics = []
for factor in factors:
    other = Circuit(pair.weights * [[factor, 1], [1, 1]], 1, pair.noise_factor, tau_eta=50.0)
    statistics.append(stationarity_test(other, snapshots, drive=drive).statistic)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for own, label in zip(snapshots, drive[:, 0], strict=True):
    left.plot(*own[:500, :2].T, ".", markersize=2, label=f"{label:g} mV")
left.set(xlabel="potential of the E cell (mV)", ylabel="potential of the I cell (mV)")
left.legend(title="input", markerscale=4, fontsize="small")
right.plot(100 * (factors - 1), statistics, "o-", color="#0072b2", markersize=3)
right.axhline(4, color="0.6", linestyle="--")
right.set(xlabel="change of the weight from E to E (%)", ylabel="largest |z| of all moments")
plt.show()
