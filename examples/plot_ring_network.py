"""
A circuit built by hand: the ring network of Echeveste et al.
=============================================================

No training here: a published circuit is written down, driven by the stimuli of its benchmark
and compared with the posterior moments it was made to sample.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

from ssn_estimators import WeightsDisplay, simulate
from ssn_estimators.datasets import make_ring_gsm, make_ring_network

benchmark = make_ring_gsm()
ring = make_ring_network()

# %%
# Cells of each type are in the order of the orientations that they prefer: those that prefer the
# same are coupled, by excitation more strongly than by inhibition.
WeightsDisplay.from_circuit(ring)
plt.show()

# %%
# `simulate` returns moments over trials and time; no potential is clipped.
simulation = simulate(
    ring, ring.drive(benchmark.h), n_trials=20, duration=500.0, burn_in=200.0, random_state=0
)
print(simulation.message)

# %%
# Mean and standard deviation of the excitatory potentials (dots) against the posterior (lines),
# for the five contrasts of the stimulus.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True)
colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(benchmark.z)))
angles = np.linspace(-90, 90, 50, endpoint=False)
for i, (z, colour) in enumerate(zip(benchmark.z, colours, strict=True)):
    deviation = np.sqrt(np.diag(simulation.covariance[i])[:50])
    axes[0].plot(angles, benchmark.mu[i], color=colour, label=f"z = {z:g}")
    axes[0].plot(angles, simulation.mean[i, :50], ".", color=colour)
    axes[1].plot(angles, np.sqrt(np.diag(benchmark.sigma[i])), color=colour)
    axes[1].plot(angles, deviation, ".", color=colour)
axes[0].set(xlabel="preferred orientation (deg)", ylabel="mean (mV)")
axes[1].set(xlabel="preferred orientation (deg)", ylabel="standard deviation (mV)", ylim=(0, None))
axes[0].legend(frameon=False)
plt.show()
