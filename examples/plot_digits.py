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
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

from ssn_estimators import (
    AutoencoderEncoder,
    GrowthDisplay,
    SSNClassifier,
    StabilityDisplay,
    TrajectoryDisplay,
)

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
plt.show()
