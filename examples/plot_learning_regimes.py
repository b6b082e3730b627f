"""
Rich and lazy learning
======================

Networks that begin with weights of low rank change their representations more as they learn.
"""

# %%
# Rate networks decide which of two inputs is larger. Their initial weights have one norm, and use
# one direction, or ten, or all that there are.
import matplotlib.pyplot as plt
import numpy as np

from ssn_estimators import RNNClassifier, low_rank_init
from ssn_estimators.datasets import make_two_alternatives
from ssn_estimators.inspection import learning_regime

N, RANKS, SEEDS = 150, (1, 10, 150), range(3)
X, y = make_two_alternatives(5000, random_state=0)
X0 = X[:32]  # inputs on which representations and kernels are compared


def networks(rank, seed):
    """The same network before and after training."""
    init = low_rank_init(N, rank, random_state=seed)
    return [
        RNNClassifier(N, n_steps=8, init=init, max_iter=steps, random_state=seed).fit(X, y)
        for steps in (0, 2000)
    ]


regimes = {rank: [learning_regime(*networks(rank, seed), X0) for seed in SEEDS] for rank in RANKS}

# %%
# Kernel alignment is the cosine between the tangent kernels, of the logits with respect to the
# recurrent weights, before and after: 1 where training has only moved along directions that were
# there from the start (lazy), less where it has made new ones (rich). Representation alignment
# compares the activity in the same way.
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
measures = {
    "kernel_alignment": "kernel alignment",
    "representation_alignment": "representation alignment",
    "weight_change": "change of the weights (norm)",
}
for ax, (name, label) in zip(axes, measures.items(), strict=True):
    for x, rank in enumerate(RANKS):
        values = [getattr(regime, name) for regime in regimes[rank]]
        print(f"{label}, rank {rank}: {np.round(values, 3)}")
        ax.plot(np.full(len(values), x), values, ".", color="0.6")
        ax.plot(x, np.mean(values), "o", color="C0")
    ax.set_xticks(range(len(RANKS)), RANKS)
    ax.set(xlabel="rank of the initial weights", ylabel=label, ylim=(0, None))
plt.show()
