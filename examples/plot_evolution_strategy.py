"""
Evolution strategy for a spiking cell
=====================================

The number of spikes is a cost without a useful derivative. An evolution strategy estimates the
gradient of its smoothed version from costs alone.
"""

# %%
# A Morris-Lecar cell under the current 100 w; it is to be silenced. The cost is the number of its
# spikes in 300 ms, or the mean transmitter that it releases.
import matplotlib.pyplot as plt
import torch

from ssn_estimators import EvolutionStrategy, MorrisLecar

cell, dt, n_steps = MorrisLecar(), 0.2, 1500


def response(weight, trace=None):
    """Spikes, and mean transmitter, of cells with these weights."""
    v, w = torch.full_like(weight, -40.0), torch.zeros_like(weight)
    spikes, released = torch.zeros_like(weight), torch.zeros_like(weight)
    for _ in range(n_steps):
        before = v
        v, w = cell.step(v, w, 100 * weight, dt)
        spikes = spikes + ((before <= 0) & (v > 0)).to(v)
        released = released + cell.transmitter(v) / n_steps
        if trace is not None:
            trace.append(v.item())
    return spikes, released


# %%
# All perturbed cells of a step are simulated side by side (``evaluation="batch"``).
curves, weights = {}, {}
for name, which in (("number of spikes", 0), ("mean transmitter", 1)):
    weight = torch.tensor([0.8])
    search = EvolutionStrategy(
        [weight],
        n_samples=20,
        sigma=0.1,
        learning_rate_init=0.03,
        evaluation="batch",
        random_state=0,
    )
    search.minimize(lambda p, which=which: response(p["0"])[which].squeeze(1), 25)
    curves[name], weights[name] = search.loss_curve_, weight

# %%
# The derivative of a number of spikes is 0 almost everywhere, so that backpropagation has
# nothing to go by.
weight = torch.tensor([0.8], requires_grad=True)
spikes, released = response(weight)
print(f"number of spikes {spikes.item():.0f}, with a gradient: {spikes.requires_grad}")
(slope,) = torch.autograd.grad(released, weight)
print(f"derivative of the mean transmitter through {n_steps} steps: {slope.item():.3g}")

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for name, curve in curves.items():
    left.plot([value / curve[0] for value in curve], label=name)
left.set(xlabel="step", ylabel="cost, of that at first", ylim=(0, None))
left.legend()
times = [dt * i for i in range(n_steps)]
for label, weight in (("before", torch.tensor([0.8])), ("after", weights["number of spikes"])):
    trace = []
    response(weight, trace)
    right.plot(times, trace, label=f"{label}, {100 * weight.item():.0f} uA/cm$^2$")
right.set(xlabel="time (ms)", ylabel="potential (mV)")
right.legend(fontsize="small")
plt.show()
