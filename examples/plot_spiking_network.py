"""
A spiking network learns a trajectory in every cell
===================================================

Strong excitation and inhibition cancel in this network, so that its cells fire irregularly. After
a short cue, the synaptic drive of every cell is to follow a sinusoid of a phase of its own;
recursive least squares changes the trained synapses while the network runs, and keeps the sums of
excitatory and of inhibitory weights of each cell.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

from ssn_estimators import RasterDisplay, SpikingRegressor
from ssn_estimators.datasets import make_cued_sinusoids
from ssn_estimators.spike_statistics import coupling_drift, dale_violations, isi_cv

X, y = make_cued_sinusoids(300, random_state=0)
network = SpikingRegressor(connectivity=0.4, penalty=0.1, max_iter=1, random_state=0)
network.fit(X, y)
before = network.simulate(X)
network.set_params(max_iter=30).fit(X, y)
after = network.simulate(X)
print(f"Correlation of drives and targets after 30 loops: {network.score(X, y):.2f}")

# %%
# Spikes in one trial, cells of each type sorted by the phase of their targets, and the drives of
# three cells: single trials, their mean, and the target.
order = np.argsort(y[0].argmax(0))
figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, layout="constrained")
for column, (title, simulation) in enumerate({"1 loop": before, "30 loops": after}.items()):
    top, bottom = axes[:, column]
    end = simulation.times[-1]
    RasterDisplay.from_simulation(simulation, order=order, window=(-200.0, end), ax=top)
    top.axvspan(-200, 0, color="tab:orange", alpha=0.2, lw=0)
    top.set(title=f"{title} of training", xlabel="")
    for i, cell in enumerate(order[[0, 99, 198]]):
        drive = simulation.drive[0, :, :, cell] - network.baseline_[cell] + 3 * i
        bottom.plot(simulation.times, drive.T, color="0.8", lw=0.5)
        bottom.plot(simulation.times, drive.mean(0), color="tab:blue")
        bottom.plot(simulation.times, y[0, :, cell] + 3 * i, color="tab:red", ls="--")
    bottom.set(xlabel="time after the cue (ms)", ylabel="drive (of threshold), shifted")
plt.show()

# %%
# Cells go on firing irregularly, and their summed weights hardly change. Some weights have changed
# their sign; ``dale="freeze"`` would forbid it.
print(f"Coefficient of variation of intervals: {np.nanmean(isi_cv(after)):.2f}")
print("Change of summed weights:", {k: f"{v:.2%}" for k, v in coupling_drift(network).items()})
print("Changed signs:", {k: f"{v:.1%}" for k, v in dale_violations(network).items()})
