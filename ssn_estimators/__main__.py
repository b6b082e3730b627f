"""The main job: grow a circuit that reads digits, and put it beside its baselines.

``python -m ssn_estimators --help`` tells the options.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
import warnings
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone
from sklearn.datasets import fetch_openml, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier

from ssn_estimators import AutoencoderEncoder, SSNClassifier, stability_report
from ssn_estimators._sklearn import versions

SSN, PIXELS = "SSN", "logistic regression on pixels"
QUICK_TRAIN, QUICK_TEST = 5000, 1000  # images
MOST_BYTES = 2**30  # of a copy of MNIST, which has 55 million in integers


def models(n_components, quick):
    """The encoder and the classifiers that work on its codes."""
    encoder = AutoencoderEncoder(n_components, max_iter=150 if quick else 600, random_state=0)
    steps = {"max_iter": 100, "growth_iter": 20} if quick else {"max_iter": 200}
    return encoder, {
        SSN: SSNClassifier(**steps, random_state=0, verbose=True),
        "logistic regression": LogisticRegression(max_iter=2000),
        "MLP (64 units)": MLPClassifier((64,), max_iter=2000, random_state=0),
    }


def evaluate(X, y, split, fold, n_components, quick):
    """Fit everything on one fold: accuracy, time and stability, and what there is to draw."""
    train, test = split
    encoder, classifiers = models(n_components, quick)
    start = time.perf_counter()
    codes = encoder.fit_transform(X[train])
    fold_result = {"encoder_seconds": time.perf_counter() - start, "accuracy": {}, "seconds": {}}
    held_out = encoder.transform(X[test])
    for name, classifier in classifiers.items():
        if fold > 0 and name == SSN:
            classifier = clone(classifier).set_params(verbose=False)
        start = time.perf_counter()
        classifier.fit(codes, y[train])
        fold_result["seconds"][name] = time.perf_counter() - start
        fold_result["accuracy"][name] = classifier.score(held_out, y[test])
        if name == SSN:
            fold_result |= {"ssn": classifier, "data": (codes, y[train]), "held_out": held_out}
            fold_result["stability"] = stability_report(
                classifier, held_out, n_surrogates=5 if quick else 20, n_trials=50
            )
    start = time.perf_counter()
    pixels = LogisticRegression(max_iter=2000).fit(X[train], y[train])
    fold_result["seconds"][PIXELS] = time.perf_counter() - start
    fold_result["accuracy"][PIXELS] = pixels.score(X[test], y[test])
    print(f"fold {fold + 1} done", flush=True)
    return fold_result


def table(results):
    """The results as text."""
    lines = [f"{'model':<30}{'test accuracy':>18}{'fit time (s)':>14}"]
    for name in results[0]["accuracy"]:
        accuracy = np.array([r["accuracy"][name] for r in results])
        seconds = np.median([r["seconds"][name] for r in results])
        deviation = f"+-{accuracy.std():.3f}" if len(results) > 1 else ""
        lines.append(f"{name:<30}{accuracy.mean():>10.4f} {deviation:<7}{seconds:>14.2f}")
    lines.append(f"\n{'SSN weights':<30}{'diverging trials':>18}")
    for name in ("trained", "shuffled", "random"):
        share = np.mean([np.mean(getattr(r["stability"], name)) for r in results])
        lines.append(f"{name:<30}{share:>18.3f}")
    return "\n".join(lines)


def draw(result, folder):
    """Write the figures of one fold."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from ssn_estimators import GrowthDisplay, StabilityDisplay, TrajectoryDisplay

    ssn, X = result["ssn"], result["held_out"]
    displays = {
        "growth": GrowthDisplay.from_estimator(ssn),
        "potentials": TrajectoryDisplay.from_estimator(ssn, X),
        "stability": StabilityDisplay(report=result["stability"]).plot(),
    }
    for name, display in displays.items():
        display.figure_.savefig(folder / f"{name}.png", dpi=150)
    untrained = clone(ssn).set_params(
        max_iter=1, growth_iter=0, learning_rate_init=1e-9, verbose=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is not meant to learn
        untrained.fit(*result["data"])  # the same seed and data find the same pair
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for ax, network, title in zip(
        axes, (untrained, ssn), ("grown, untrained", "trained"), strict=True
    ):
        weights = network.circuit_.weights
        limit = np.abs(weights).max()
        image = ax.imshow(weights, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set(title=title, xlabel="presynaptic cell (E first)", ylabel="postsynaptic cell")
        figure.colorbar(image, ax=ax, label="weight (mV s)")
    figure.savefig(folder / "weights.png", dpi=150)
    plt.close("all")


def read_mnist(path):
    """Pixels, labels and the number of training images of an npz file as that of Keras."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"unpacked it has {size:.3g} bytes")
        with np.load(path) as file:
            data = {name: file[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not an npz file with x_train, y_train, x_test and y_test: {error}"
        ) from error
    X = np.concatenate([data["x_train"], data["x_test"]])
    y = np.concatenate([data["y_train"], data["y_test"]]).astype(int)
    if X.shape[1:] not in ((28, 28), (784,)) or len(X) != len(y):
        raise ValueError(f"{path} holds images of shape {X.shape} and {len(y)} labels.")
    return X.reshape(-1, 784) / 255, y, len(data["x_train"])


def load(args):
    """Inputs, labels and splits into training and test samples."""
    if args.mnist is not None:
        X, y, n_train = read_mnist(args.mnist)
    elif args.data == "mnist":
        X, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False)
        X, y, n_train = X / 255, y.astype(int), 60_000
    else:
        X, y = load_digits(return_X_y=True)
        X = X / 16
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        return X, y, list(folds.split(X, y))[: 1 if args.quick else None]
    split = np.split(np.arange(len(X)), [n_train])
    if args.quick:
        split[0], split[1] = split[0][:QUICK_TRAIN], split[1][:QUICK_TEST]
    return X, y, [split]


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m ssn_estimators", description=__doc__)
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--mnist", type=Path, metavar="FILE.npz", help="a local copy of MNIST")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write figures and the table here")
    parser.add_argument("--quick", action="store_true", help="one fold and little training")
    parser.add_argument("--jobs", type=int, default=2, help="folds at the same time (default 2)")
    args = parser.parse_args(arguments)
    if args.mnist is not None and not args.mnist.is_file():
        parser.error(f"--mnist: there is no file {args.mnist}")
    if args.out is not None:  # rather now than after all training
        try:
            import_module("matplotlib")  # which may be there, and yet not fit the other packages
        except ImportError as error:
            parser.error(f"--out needs matplotlib: pip install 'ssn_estimators[plot]' ({error})")
        try:
            args.out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=args.out):
                pass
        except OSError as error:
            parser.error(f"--out: cannot write to {args.out}: {error}")

    start = time.perf_counter()
    try:
        X, y, splits = load(args)
    except (OSError, ValueError) as error:
        parser.error(f"the data cannot be read: {error}")
    n_components = 30 if X.shape[1] == 64 else 50
    print(
        f"{len(X)} images of {X.shape[1]} pixels -> autoencoder -> {n_components} numbers -> SSN, "
        f"{len(splits)} split(s).\nThe network of the first one grows:",
        flush=True,
    )
    # one thread each: folds at the same time use the cores better than small products do
    with parallel_config("loky", n_jobs=args.jobs, inner_max_num_threads=1):
        results = Parallel()(
            delayed(evaluate)(X, y, split, fold, n_components, args.quick)
            for fold, split in enumerate(splits)
        )
    text = table(results)
    seconds = time.perf_counter() - start
    about = f"{platform.processor() or platform.machine()}, {versions()}; {seconds:.0f} s in all"
    if args.quick:
        about += (
            f"\n--quick is a first look: one split, of at most {QUICK_TRAIN} training images, and "
            "training far too short to be judged by."
        )
    print(f"\n{text}\n\n{about}")
    if args.out is not None:
        (args.out / "table.txt").write_text(f"{text}\n\n{about}\n")
        draw(results[0], args.out)
        print(f"Figures: {args.out}")


if __name__ == "__main__":
    main()
