"""Lateral context under noise: digits with fixed features, and convolutional networks.

    python benchmarks/lateral.py --out benchmarks/results/lateral.json
    python benchmarks/lateral.py --data FOLDER --seeds 3 --out benchmarks/results/lateral.json

The first: scikit-learn's digits, three times as large, 12 features of 3 x 3 pixels (k-means), a
logistic regression (its penalty by cross-validation) on their pooled maps; clean training data,
noisy test data, the same noise for all models of a seed. Beside it the negative control, in which
neighbours see common pixels. The second, for folders with mnist.npz and cifar10_*.npz: networks
of two convolutions, with lateral layers or without, the same seeds, and dropout and weight decay or
none, 600 steps, judged on 2,500 test images. What is there already is not done again.
"""

from functools import partial
from pathlib import Path

import numpy as np
from images import cifar10, mnist
from machine import code
from resumable import parser, timed, work
from scipy.stats import t
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import MiniBatchKMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ssn_estimators import CNNClassifier, LateralContext
from ssn_estimators.lateral import robustness_curve

NOISES = {"gaussian": (0.0, 0.2, 0.4, 0.6), "salt_pepper": (0.1, 0.2, 0.3)}
APART = {"side": 24, "spacing": 3, "extent": 1, "pool": 6}
OVERLAPPING = {"side": 8, "spacing": 1, "extent": 2, "pool": 1}
NETWORK = {"filters": (16, 32), "n_hidden": 64, "max_iter": 600}
REGULARISED = {"dropout": 0.3, "weight_decay": 0.01}
GATES = {
    "none": {"lateral": None},
    "linear": {"lateral": "linear"},
    "product": {"lateral": "product"},
}
DIGITS = {
    f"digits, {name}, {form}, alpha {alpha:g}": where | {"form": form, "alpha": alpha}
    for name, where in (("apart", APART), ("overlapping", OVERLAPPING))
    for form, alpha in (("linear", 0.0), ("linear", 1.0), ("product", 1.0))
}
NETWORKS = {
    f"{data}, {regularised}, {gate}": {"data": data} | NETWORK | extra | settings
    for data in ("mnist", "cifar10")
    for regularised, extra in (("plain", {}), ("regularised", REGULARISED))
    for gate, settings in GATES.items()
}
ROWS = DIGITS | NETWORKS


class PatchFeatures(TransformerMixin, BaseEstimator):
    """Which of some typical 3 x 3 patches stands where: softmax of squared distances."""

    def __init__(self, side, n_features=12, sharpness=6.0, random_state=None):
        self.side, self.n_features = side, n_features
        self.sharpness, self.random_state = sharpness, random_state

    def fit(self, X, y=None):
        patches = self._patches(X).reshape(-1, 9)
        self.kmeans_ = MiniBatchKMeans(
            self.n_features, random_state=self.random_state, n_init=3
        ).fit(patches[np.random.RandomState(self.random_state).permutation(len(patches))[:50_000]])
        return self

    def _patches(self, X):
        images = np.pad(X.reshape(-1, self.side, self.side), ((0, 0), (1, 1), (1, 1)))
        return np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))

    def transform(self, X):
        patches, maps = self._patches(X).reshape(-1, 9), []
        for block in np.array_split(patches, max(1, len(patches) // 100_000)):
            logits = -self.sharpness * self.kmeans_.transform(block) ** 2
            shares = np.exp(logits - logits.max(1, keepdims=True))
            maps.append(shares / shares.sum(1, keepdims=True))
        return np.concatenate(maps).reshape(len(X), -1)


class OneScale(TransformerMixin, BaseEstimator):
    """All features over one number, their standard deviation as a whole: gates that only make
    maps larger weaken the penalty of the readout no more."""

    def fit(self, X, y=None):
        self.scale_ = (X - X.mean(0)).std()
        return self

    def transform(self, X):
        return X / self.scale_


def enlarged(X, side):
    return np.kron(X.reshape(-1, 8, 8), np.ones((1, side // 8, side // 8))).reshape(len(X), -1)


def pooled(F, side, pool):
    maps = F.reshape(len(F), side // pool, pool, side // pool, pool, -1)
    return maps.mean((2, 4)).reshape(len(F), -1)


def digits(settings, seed):
    """Scores under noise of features, context, pooling and a logistic regression."""
    side = settings["side"]
    X, y = load_digits(return_X_y=True)
    X = enlarged(X / 16, side)
    X, X_test, y, y_test = train_test_split(X, y, random_state=seed, stratify=y)
    model = make_pipeline(
        PatchFeatures(side, random_state=seed),
        LateralContext(
            (side, side),
            extent=settings["extent"],
            spacing=settings["spacing"],
            form=settings["form"],
            alpha=settings["alpha"],
        ),
        FunctionTransformer(pooled, kw_args={"side": side, "pool": settings["pool"]}),
        OneScale(),
        LogisticRegressionCV(
            Cs=5,
            cv=3,
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
            scoring="accuracy",
            max_iter=500,
        ),
    )
    return model, X, y, X_test, y_test


def images(folder, name):
    """Training and test images with pixels between 0 and 1, and their shape."""
    if name == "mnist":
        return *mnist(folder, "train"), *mnist(folder, "test"), (28, 28)
    parts = []
    for part in ("train", "test"):
        X, y = cifar10(folder, part)
        parts += [X.reshape(len(X), -1).astype(np.float32) / 255, y]
    return *parts, (32, 32, 3)


def figures(folder, row, seed):
    settings = ROWS[row]
    if row in DIGITS:
        model, X, y, X_test, y_test = digits(settings, seed)
        repeats = 3
    else:
        X, y, X_test, y_test, shape = images(folder, settings["data"])
        own = {k: v for k, v in settings.items() if k != "data"}
        model, repeats = CNNClassifier(image_shape=shape, random_state=seed, **own), 1
        X_test, y_test = X_test[:2500], y_test[:2500]
    model, seconds = timed(lambda: model.fit(X, y))
    scores = {
        noise: robustness_curve(
            model, X_test, y_test, noise=noise, levels=levels, n_repeats=repeats, random_state=seed
        )
        .mean(1)
        .round(5)
        .tolist()
        for noise, levels in NOISES.items()
    }
    return {
        "row": row,
        "seed": seed,
        "settings": settings,
        "code": code(),
        "fit_seconds": seconds,
        "accuracy": scores,
    }


def scores_of(results, row):
    """From seed to accuracies under all noises."""
    own = [n for n in results["networks"] if n["row"] == row]
    return {n["seed"]: np.concatenate([n["accuracy"][noise] for noise in NOISES]) for n in own}


def summary(results):
    head = [f"{noise[:5]} {level:g}" for noise, levels in NOISES.items() for level in levels]
    lines = [" " * 46 + "".join(f"{h:>14}" for h in head)]
    for row in ROWS:
        own = scores_of(results, row)
        if not own:
            continue
        base = next(r for r in ROWS if r.split(", ")[:2] == row.split(", ")[:2])
        lines.append(
            f"{row:38} n={len(own):2}    "
            + "".join(f"{100 * x:14.1f}" for x in np.mean(list(own.values()), 0))
        )
        paired = [own[seed] - x for seed, x in scores_of(results, base).items() if seed in own]
        if row != base and len(paired) > 1:
            gain = 100 * np.array(paired)
            half = t.ppf(0.975, len(gain) - 1) * gain.std(0, ddof=1) / np.sqrt(len(gain))
            lines.append(
                " " * 38
                + "gain    "
                + "".join(f"{m:+7.1f} +-{h:4.1f}" for m, h in zip(gain.mean(0), half, strict=True))
            )
    return "\n".join(lines)


def main():
    command = parser(__doc__, ROWS)
    command.add_argument("--data", type=Path, help="folder with mnist.npz and cifar10_*.npz")
    command.set_defaults(rows=None)
    args = command.parse_args()
    args.rows = args.rows or list(NETWORKS if args.data else DIGITS)
    work(args, partial(figures, args.data), ROWS, summary)


if __name__ == "__main__":
    main()
