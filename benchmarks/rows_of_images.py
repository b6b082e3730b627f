"""Images row by row, and a temporal XOR: SSNs with their default settings, and linear readouts.

    OMP_NUM_THREADS=1 python benchmarks/rows_of_images.py --data FOLDER \
        --out benchmarks/results/rows_of_images.json

Scikit-learn's digits are sequences of eight rows of eight pixels; a seed splits them into 75% and
25%. MNIST's, of 28 rows, need a FOLDER with mnist.npz (x_train, y_train, x_test, y_test): a seed
draws 5,000 images to train on, and all of the test set test. Beside the networks stand logistic
regression on all pixels, and on the last row, which is what a network without memory would know.
In the XOR the classes are alike at any moment, so that both are at chance. What is there already is
not done again.
"""

import time
import warnings
from pathlib import Path

import numpy as np
import torch
from images import mnist
from resumable import parser, timed, work
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from ssn_estimators import SSNSequenceClassifier
from ssn_estimators.datasets import load_digits_by_row, make_temporal_xor

ROWS = {
    "digits": {"data": "digits", "others": {}},
    "temporal XOR": {"data": "xor", "others": {}},
    "MNIST, 5,000 images": {
        "data": "mnist",
        "others": {"dt": 4.0, "n_excitatory": 80, "batch_size": 128, "max_iter": 1500},
    },
}


def sets(data, seed, folder):
    """X and y to train on, and to test."""
    if data == "digits":
        X, y = load_digits_by_row()
        train, test = train_test_split(
            np.arange(len(X)), test_size=0.25, random_state=seed, stratify=y
        )
        return X[train], y[train], X[test], y[test]
    if data == "xor":
        made = (make_temporal_xor(n, random_state=s) for n, s in ((1000, seed), (500, seed + 1000)))
        return tuple(array for part in made for array in part)
    X, y = mnist(folder, "train")
    chosen = np.random.RandomState(seed).choice(len(X), 5000, replace=False)
    X_test, y_test = mnist(folder, "test")
    return X[chosen].reshape(-1, 28, 28), y[chosen], X_test.reshape(-1, 28, 28), y_test


def linear(X, y, X_test, y_test):
    scale = X.max() or 1.0  # nothing is seen in the last step of the XOR
    fitted = LogisticRegression(max_iter=3000).fit(X.reshape(len(X), -1) / scale, y)
    return float(fitted.score(X_test.reshape(len(X_test), -1) / scale, y_test))


def figures_with(folder):
    def figures(name, seed):
        torch.set_num_threads(1)
        settings = ROWS[name]
        X, y, X_test, y_test = sets(settings["data"], seed, folder)
        network = SSNSequenceClassifier(random_state=seed, **settings["others"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.process_time()
            _, seconds = timed(lambda: network.fit(X, y))
        return {
            "row": name,
            "seed": seed,
            "settings": settings,
            "accuracy": float(network.score(X_test, y_test)),
            "train_accuracy": float(network.score(X[:2000], y[:2000])),
            "seconds": seconds,
            "cpu_seconds": round(time.process_time() - start, 1),
            "stability": network.stability_,
            "n_iter": network.n_iter_,
            "n_rejected": network.n_rejected_steps_,
            "linear": linear(X, y, X_test, y_test),
            "linear_of_last_row": linear(X[:, -1], y, X_test[:, -1], y_test),
        }

    return figures


def summary(results):
    lines = [f"{'row':24s} seeds  accuracy (least)  linear  of last row   CPU s  undone"]
    for name in ROWS:
        own = [n for n in results["networks"] if n["row"] == name]
        if own:
            each = {key: [n[key] for n in own] for key in own[0] if key not in ("row", "settings")}
            lines.append(
                f"{name:24s} {len(own):5d}  {np.mean(each['accuracy']):8.4f} "
                f"({min(each['accuracy']):.4f})  {np.mean(each['linear']):6.4f}  "
                f"{np.mean(each['linear_of_last_row']):11.4f}  "
                f"{np.median(each['cpu_seconds']):6.0f}  {np.mean(each['n_rejected']):6.1f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    command = parser(__doc__, ROWS)
    command.add_argument("--data", type=Path, help="folder with mnist.npz")
    args = command.parse_args()
    if args.data is None:
        args.rows = [row for row in args.rows if ROWS[row]["data"] != "mnist"]
    work(args, figures_with(args.data), ROWS, summary)
