"""
Lateral context against noise
=============================

Feature maps gated by what usually stands around a feature, learned without labels.
"""

# %%
# Digits, three times as large, as maps of 12 typical patches of 3 x 3 pixels.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ssn_estimators import (
    Circuit,
    LateralContext,
    RobustnessDisplay,
    stationary_moments,
    with_inhibition,
)

SIDE, N_FEATURES = 24, 12


def patches(X):
    images = np.pad(X.reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    return windows.reshape(-1, 9)


X, y = load_digits(return_X_y=True)
X = np.kron(X.reshape(-1, 8, 8) / 16, np.ones((1, 3, 3))).reshape(len(X), -1)
X, X_test, y, y_test = train_test_split(X, y, random_state=0, stratify=y)
kmeans = KMeans(N_FEATURES, n_init=1, random_state=0).fit(patches(X)[::20])


def maps(X):
    logits = -6 * kmeans.transform(patches(X)) ** 2
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return (shares / shares.sum(1, keepdims=True)).reshape(len(X), -1)


def pooled(F):
    return F.reshape(len(F), 4, 6, 4, 6, -1).mean((2, 4)).reshape(len(F), -1)


# %%
# Trained on clean images, tested on noisy ones. Neighbours are three places away, so that no two
# of them see the same pixels.
levels = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
models = {}
for label, alpha in (("without context", 0.0), ("with context", 1.0)):
    context = LateralContext((SIDE, SIDE), spacing=3, alpha=alpha)
    models[label] = make_pipeline(
        FunctionTransformer(maps),
        context,
        FunctionTransformer(pooled),
        LogisticRegression(max_iter=1000),
    ).fit(X, y)
display = RobustnessDisplay.from_estimators(
    models, X_test, y_test, levels=levels, n_repeats=1, label="test accuracy"
)
display.ax_.set_ylim(0, 1)
for label, scores in display.scores.items():
    print(f"{label}: {scores.mean(1).round(3)}")

# %%
# A weight says how much more often than by chance a feature is seen beside another: here that of
# every feature to itself, at the eight neighbouring places.
weights = context.weights_.reshape(9, N_FEATURES, N_FEATURES)
likes = np.diagonal(weights, axis1=1, axis2=2).mean(1).reshape(3, 3)
limit = np.abs(likes).max()
figure, ax = plt.subplots(figsize=(4, 3.2), layout="constrained")
image = ax.imshow(likes, cmap="RdBu_r", vmin=-limit, vmax=limit)
ax.set(xticks=range(3), yticks=range(3))
ax.set_xticklabels([-3, 0, 3])
ax.set_yticklabels([-3, 0, 3])
ax.set(xlabel="horizontal distance (pixels)", ylabel="vertical distance (pixels)")
figure.colorbar(image, ax=ax, label="weight of like features (excess over chance)")
plt.show()

# %%
# The same weights in a circuit: 12 E cells at each of 3 x 3 places, one for each patch, excite
# what they are seen with, and all share the I cells. The cell of a patch in the middle answers its
# input more strongly if the surround shows what usually stands there.
apart = maps(X).reshape(len(X), SIDE, SIDE, -1)[:, 1::3, 1::3]
context = LateralContext((8, 8), spacing=1).fit(apart.reshape(len(X), -1))
excitation = np.maximum(context.connectivity((3, 3)), 0)
n = len(excitation)
circuit = Circuit(with_inhibition(excitation, n // 4, norm=1.0), n_excitatory=n, noise_factor=0.2)
patch = np.arange(N_FEATURES)
middle = 4 * N_FEATURES + patch
support = excitation[middle].reshape(N_FEATURES, 9, N_FEATURES)
for surround, chosen in (("none", None), ("usual", support.argmax(2)), ("rare", support.argmin(2))):
    drive = np.zeros((N_FEATURES, circuit.n_neurons))
    if chosen is not None:
        cells = chosen + N_FEATURES * np.arange(9)
        drive[patch[:, None], cells] = 4.0  # mV
    drive[:, 4 * N_FEATURES : 5 * N_FEATURES] = 4.0 * np.eye(N_FEATURES)
    potentials = stationary_moments(circuit, drive).mean[patch, middle]
    print(f"surround {surround}: {potentials.mean():.2f} mV")
