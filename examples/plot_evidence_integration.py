"""
Conductance-based cells weigh evidence
======================================

A network of Morris-Lecar cells reads words and answers which kind was the most frequent, untrained
and trained by an evolution strategy and by backpropagation through time.
"""

# %%
# Every word is a binary pattern of 50 inputs, shown for 2 ms; three kinds are evidence, one is
# neutral. Chance is one in three.
import matplotlib.pyplot as plt
import numpy as np
import torch

from ssn_estimators import MorrisLecar, MorrisLecarClassifier
from ssn_estimators.datasets import make_evidence_integration

X, y = make_evidence_integration(4000, n_words=15, random_state=0)
X_test, y_test, X, y = X[:1000], y[:1000], X[1000:], y[1000:]

# %%
# Three networks from the same weights: the readout alone is a regression on what untrained cells
# make of the words; both trainers change the input weights as well. Over 30 ms gradients are still
# sound, given enough sequences for each, and cost far fewer of them than the strategy. But its
# estimates do not depend on the length of the sequence.
settings = {"n_cells": 32, "n_words": 15, "word_duration": 2.0, "max_iter": 500, "random_state": 0}
networks = {
    "readout alone": MorrisLecarClassifier(trained="readout", **settings),
    "evolution strategy": MorrisLecarClassifier(
        trained="input", sigma=0.2, learning_rate_init=0.06, **settings
    ),
    "backpropagation": MorrisLecarClassifier(
        trained="input", trainer="bptt", learning_rate_init=0.02, batch_size=128, **settings
    ),
}
figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for name, network in networks.items():
    network.fit(X, y)
    print(
        f"{name}: test accuracy {network.score(X_test, y_test):.2f}, "
        f"{network.n_forward_} sequences simulated"
    )
    if network.n_iter_:
        mean = np.convolve(network.loss_curve_, np.ones(10) / 10, "valid")
        ax.plot(np.arange(len(mean)) + 10, mean, label=name)
ax.axhline(np.log(3), color="0.6", ls="--", lw=1, label="chance")
ax.set(xlabel="step", ylabel="cross-entropy, mean of 10 steps (nats)")
ax.legend(loc="lower left")

# %%
# Potentials of some cells of the second network while it reads two sequences with different
# answers.
network, cell = networks["evolution strategy"], MorrisLecar()
chosen = [np.flatnonzero(network.predict(X_test) == kind)[0] for kind in network.classes_[:2]]
words = torch.tensor(X_test[chosen] / network.input_scale_, dtype=torch.float32)
words = words.reshape(2, network.n_words, -1)
from_words = cell.gain * words @ torch.tensor(network.input_weights_).T + cell.onset
weights = cell.gain * torch.tensor(network.recurrent_weights_).T
v = torch.full((2, network.n_cells), -20.0)  # where prediction starts
w, trace = cell.open_share(v), []
for word in from_words.repeat_interleave(round(network.word_duration / network.dt), 1).unbind(1):
    v, w = cell.step(v, w, word + cell.transmitter(v) @ weights, network.dt)
    trace.append(v)
trace = torch.stack(trace).numpy()
times = network.dt * np.arange(1, len(trace) + 1)
apart = np.argsort(-np.abs(trace[-20:, 0] - trace[-20:, 1]).mean(0))[:4]
figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for i, one in enumerate(apart):
    for sequence, color in enumerate(("C0", "C3")):
        label = f"answer {network.classes_[sequence]}" if i == 0 else None
        ax.plot(times, trace[:, sequence, one] - 100 * i, color=color, label=label)
ax.set(xlabel="time (ms)", ylabel="potential (mV), shifted by cell")
ax.legend(loc="lower left")
plt.show()
