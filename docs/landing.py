"""The picture of the landing page: ``python docs/landing.py`` writes docs/_static/landing.png."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from ssn_estimators import SSNClassifier, circuits, simulate
from ssn_estimators.inspection import contrast_response

RED, BLUE = "tab:red", "tab:blue"


def build(axes):
    """Rates against contrast, and potentials in time, of a published pair."""
    pair = circuits.ahmadian_2013_pair()
    response = contrast_response(pair.circuit, [1.0, 1.0], range(1, 101))
    for name, colour in (("E", RED), ("I", BLUE)):
        axes[0].plot(response.contrasts, response.by_population()[name], color=colour, label=name)
    axes[0].set(title="Build", xlabel="contrast", ylabel="rate (Hz)")
    axes[0].legend(frameon=False)

    ring = circuits.hennequin_2018_ring()
    seen = simulate(
        ring.circuit,
        ring.drive([1.0], 0.0),
        n_trials=1,
        duration=1000.0,
        record="u",
        random_state=0,
    )
    axes[1].plot(seen.times, np.squeeze(seen.u)[:, ::10], linewidth=0.8)
    axes[1].set(title="Simulate", xlabel="time (ms)", ylabel="potential (mV)")


def learn(axis):
    """The weights of a network that reads digits."""
    X, y = load_digits(return_X_y=True)
    ssn = SSNClassifier(30, 8, max_iter=300, random_state=0).fit(X, y)
    weights = ssn.circuit_.weights
    most = np.quantile(np.abs(weights), 0.98)
    axis.imshow(weights, cmap="RdBu_r", vmin=-most, vmax=most)
    axis.set(title="Learn", xlabel="from cell", ylabel="to cell")


def main():
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
    build(axes[:2])
    learn(axes[2])
    figure.savefig(Path(__file__).parent / "_static/landing.png", dpi=110)


if __name__ == "__main__":
    main()
