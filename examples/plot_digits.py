"""
From digits to an E/I circuit you can probe
===========================================

An autoencoder brings 8x8 images to 30 numbers, which a circuit of 30 excitatory and 8 inhibitory
cells reads, grown from one pair of cells while it learns.
"""

# %%
# Train
# -----
# The pipeline is an ordinary scikit-learn estimator.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

from ssn_estimators import (
    AutoencoderEncoder,
    GrowthDisplay,
    SSNClassifier,
    StabilityDisplay,
    TrajectoryDisplay,
    WeightsDisplay,
)
from ssn_estimators.inspection import is_inhibition_stabilized, perturb

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
pipeline = Pipeline(
    [
        ("encoder", AutoencoderEncoder(30, max_iter=400, random_state=0)),
        ("ssn", SSNClassifier(max_iter=200, random_state=0)),
    ]
)
pipeline.fit(X_train, y_train)
print(f"test accuracy: {pipeline.score(X_test, y_test):.3f}")

# %%
# Growth
# ------
# Every stage but the last doubles the circuit. Cells that are split go on as before, with the
# inputs of their parents, so that the loss does not jump; then it falls on, with more cells.
GrowthDisplay.from_estimator(pipeline)

# %%
# Activity
# --------
# From rest, an excitatory transient is caught by inhibition within some 20 ms; then potentials
# fluctuate about a fixed point.
TrajectoryDisplay.from_estimator(pipeline, X_test)

# %%
# Stability
# ---------
# The trained circuit stays finite. With weights of the same size, shuffled within the four
# quadrants or drawn at random, trials diverge: how many depends on how strong the weights have
# become, so on the seed and on the length of training.
StabilityDisplay.from_estimator(pipeline, X_test, n_surrogates=10, n_trials=50)

# %%
# Weights
# -------
# What an E cell sends is not negative, what an I cell sends not positive: Dale's law holds all
# through training. Clones have shared out what their parents sent.
WeightsDisplay.from_estimator(pipeline)

# %%
# Probe it
# --------
# The circuit is a value of its own, and can be asked what one would ask of a slice of cortex. Is
# it stabilised by inhibition: would E cells run away if inhibition stood still? And what do rates
# do when I cells, or E cells, get 1 mV more or less, as by optogenetics?
ssn = pipeline[-1]
circuit, drive = ssn.circuit_, ssn.drive(pipeline[:-1].transform(X_test[:100]))
stabilised = is_inhibition_stabilized(circuit, drive)
print(f"stabilised by inhibition on {stabilised.mean():.0%} of the digits")

strengths = [-2.0, -1.0, -0.5, 0.5, 1.0, 2.0]  # mV
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
for axis, perturbed in zip(axes, ("I", "E"), strict=True):
    changes = [perturb(circuit, drive, perturbed, x).by_population() for x in strengths]
    for cells, colour in (("E", "tab:red"), ("I", "tab:blue")):
        means = [np.nanmean(change[cells]) for change in changes]
        axis.plot(strengths, means, "o-", color=colour, label=f"{cells} cells")
    axis.axhline(0, color="0.7", lw=1)
    axis.set(xlabel=f"more drive to all {perturbed} cells (mV)", title=f"{perturbed} perturbed")
axes[0].set_ylabel("change of mean rates (Hz)")
axes[0].legend(frameon=False)
plt.show()

# %%
# More drive to the I cells lowers the rates of E cells, and theirs hardly change: what they gain
# they lose again from E cells that fall silent. That is the border of the paradoxical response, as
# of a circuit that inhibition stabilises on some of its inputs and not on others.
