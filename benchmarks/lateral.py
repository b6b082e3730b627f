"""Lateral context under noise: digits with fixed features, and convolutional networks.

    python benchmarks/lateral.py --out benchmarks/results/lateral.json
    python benchmarks/lateral.py --data FOLDER --out benchmarks/results/lateral_networks.json

The first: scikit-learn's digits, three times as large, 12 features of 3 x 3 pixels (k-means), a
logistic regression (its penalty by cross-validation) on their pooled maps; clean training data,
noisy test data, the same noise for all models of a seed. Beside it the negative control, in which
neighbours see common pixels. The second, for folders with mnist.npz and cifar10_*.npz: networks
of two convolutions, 600 steps, plain, with dropout or with weight decay, each without gates and
with several; gates are given to one and the same trained network, but where it was trained under
them. Judged on 2,500 test images, with the same noise. With `--validate` the last 5,000 training
images are left out, and networks judged on the first 2,500 of these: the way to choose gates.
"""

import copy
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
# of the networks: what costs colour images as much as these do digits is less
WEAKER = {
    "mnist": NOISES,
    "cifar10": {"gaussian": (0.0, 0.05, 0.1, 0.2), "salt_pepper": (0.02, 0.05, 0.1)},
}
APART = {"side": 24, "spacing": 3, "extent": 1, "pool": 6}
OVERLAPPING = {"side": 8, "spacing": 1, "extent": 2, "pool": 1}
NETWORK = {"filters": (16, 32), "n_hidden": 64, "max_iter": 600}
REGULARISED = {"dropout": {"dropout": 0.3}, "decay": {"weight_decay": 0.01}}
# Their layers and strength are those of most use under noise that cost validation images without
# noise less than .5 points, by three networks for each set of images.
GATES = {"none": {"lateral": None}, "linear": {"lateral": "linear"}}
MORE_GATES = GATES | {
    "product": {"lateral": "product"},
    "linear, all layers": {"lateral": "linear", "lateral_layers": None, "lateral_alpha": 0.05},
    "linear, no background": {"lateral": "linear", "lateral_background": 0.0},
    "linear, apart": {"lateral": "linear", "lateral_spacing": None},
}
IN_TRAINING = {
    "linear, in training": {"lateral": "linear", "lateral_training": True},
    # as these gates were at first
    "linear, in training, apart, no background, alpha .5": {
        "lateral": "linear",
        "lateral_training": True,
        "lateral_layers": None,
        "lateral_spacing": None,
        "lateral_background": 0.0,
        "lateral_alpha": 0.5,
    },
}
DIGITS = {
    f"digits, {name}, {form}, alpha {alpha:g}": where | {"form": form, "alpha": alpha}
    for name, where in (("apart", APART), ("overlapping", OVERLAPPING))
    for form, alpha in (("linear", 0.0), ("linear", 1.0), ("product", 1.0))
}
NETWORKS = {
    f"{data}, {name}": {"data": data, "gates": gates} | NETWORK | extra
    for data in ("mnist", "cifar10")
    for name, gates, extra in [
        ("plain", MORE_GATES, {}),
        *((name, GATES, extra) for name, extra in REGULARISED.items()),
    ]
} | {
    f"mnist, plain, {name}": {"data": "mnist", "gates": {name: gate}} | NETWORK
    for name, gate in IN_TRAINING.items()
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


def images(folder, name, validate):
    """Training and test images with pixels between 0 and 1, and their shape."""
    if name == "mnist":
        parts, shape = [*mnist(folder, "train"), *mnist(folder, "test")], (28, 28)
    else:
        parts, shape = [], (32, 32, 3)
        for part in ("train", "test"):
            X, y = cifar10(folder, part)
            parts += [X.reshape(len(X), -1).astype(np.float32) / 255, y]
    X, y, X_test, y_test = parts
    if validate:
        X, X_test, y, y_test = X[:-5000], X[-5000:], y[:-5000], y[-5000:]
    return X, y, X_test[:2500], y_test[:2500], shape


def accuracies(model, X, y, noises, n_repeats, seed):
    """Under the same noise for every model of a seed."""
    return {
        noise: robustness_curve(
            model, X, y, noise=noise, levels=levels, n_repeats=n_repeats, random_state=seed
        )
        .mean(1)
        .round(5)
        .tolist()
        for noise, levels in noises.items()
    }


def figures(folder, validate, row, seed):
    settings = ROWS[row]
    out = {"row": row, "seed": seed, "settings": settings, "code": code()}
    if row in DIGITS:
        model, X, y, X_test, y_test = digits(settings, seed)
        model, seconds = timed(lambda: model.fit(X, y))
        scores = accuracies(model, X_test, y_test, NOISES, 3, seed)
        return out | {"fit_seconds": seconds, "accuracy": scores}
    X, y, X_test, y_test, shape = images(folder, settings["data"], validate)
    own = {k: v for k, v in settings.items() if k not in ("data", "gates")}
    gates = settings["gates"]
    model = CNNClassifier(image_shape=shape, random_state=seed, **own, **next(iter(gates.values())))
    model, seconds = timed(lambda: model.fit(X, y))
    out |= {"fit_seconds": seconds, "accuracy": {}}
    for i, (gate, parameters) in enumerate(gates.items()):
        if i:
            model = clone_of(model).set_params(**parameters).fit_lateral(X)
        scores = accuracies(model, X_test, y_test, WEAKER[settings["data"]], 1, seed)
        out["accuracy"][gate] = scores
    return out


def clone_of(model):
    """The same fitted network, whose gates are as usual."""
    usual = CNNClassifier().get_params()
    return copy.copy(model).set_params(**{k: v for k, v in usual.items() if "lateral" in k})


def scores_of(networks, noises):
    """From row (and gate) to accuracies by seed, under all noises."""
    found = {}
    for network in networks:
        gates = network["accuracy"]
        if network["row"] in DIGITS:
            gates = {"": gates}
        for gate, scores in gates.items():
            name = network["row"].removesuffix(f", {gate}") + (gate and f", {gate}")
            found.setdefault(name, {})[network["seed"]] = np.concatenate(
                [scores[noise] for noise in noises]
            )
    return found


def summary(results):
    lines = []
    for name, noises in ({"digits": NOISES} | WEAKER).items():
        own = [n for n in results["networks"] if n["row"].startswith(name)]
        if not own:
            continue
        head = [f"{noise[:5]} {level:g}" for noise, levels in noises.items() for level in levels]
        lines.append(" " * 76 + "".join(f"{h:>14}" for h in head))
        found = scores_of(own, noises)
        for row, by_seed in found.items():
            lines.append(
                f"{row:64} n={len(by_seed):2}    "
                + "".join(f"{100 * x:14.1f}" for x in np.mean(list(by_seed.values()), 0))
            )
            base = next(r for r in found if r.split(", ")[:2] == row.split(", ")[:2])
            paired = [by_seed[s] - x for s, x in found[base].items() if s in by_seed]
            if row != base and len(paired) > 1:
                gain = 100 * np.array(paired)
                half = t.ppf(0.975, len(gain) - 1) * gain.std(0, ddof=1) / np.sqrt(len(gain))
                lines.append(
                    " " * 64
                    + "gain        "
                    + "".join(
                        f"{m:+7.1f} +-{h:4.1f}" for m, h in zip(gain.mean(0), half, strict=True)
                    )
                )
    return "\n".join(lines)


def main():
    command = parser(__doc__, ROWS)
    command.add_argument("--data", type=Path, help="folder with mnist.npz and cifar10_*.npz")
    command.add_argument("--validate", action="store_true", help="do not read the test split")
    command.set_defaults(rows=None)
    args = command.parse_args()
    args.rows = args.rows or list(NETWORKS if args.data else DIGITS)
    work(args, partial(figures, args.data, args.validate), ROWS, summary)


if __name__ == "__main__":
    main()
