"""How often does training fail, over data sets, sizes, inputs, schedules of growth and seeds?

Every fit is judged on all rows, of training and test: trials that diverge within 2 s (five a
row) and 10 s (one), rows that oscillate, silent cells, undone steps, warnings, and the test
accuracy beside that of logistic regression and a perceptron of as many parameters on the same
inputs. The data sets called "tuning" may be looked at while the package is changed; the others,
and all seeds of the final run, are not.
"""

from __future__ import annotations

import contextlib
import time
import warnings
import zlib
from functools import partial
from unittest import mock

import numpy as np
from resumable import open_results, parser, run
from sklearn import datasets as toys
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from threadpoolctl import threadpool_limits

N_ROWS, N_TRAIN = 600, 200  # of a data set at most, but for the widest ones
FIRST_SEED = 1000  # of the final run; below it is for tuning


def normal(rng, n, n_features):
    return rng.standard_normal((n, n_features))


def xor(rng):
    X = normal(rng, 400, 2)
    return X, X[:, 0] * X[:, 1] > 0


def parity(rng):
    X = normal(rng, N_ROWS, 3)
    return X, X.prod(1) > 0


def noisy_labels(rng):
    X, y = toys.make_blobs(N_ROWS, 6, centers=3, cluster_std=3.0, random_state=rng)
    wrong = rng.uniform(size=len(y)) < 0.2
    return X, np.where(wrong, rng.randint(3, size=len(y)), y)


def made(n_features, n_classes, n=N_ROWS, **parameters):
    """A task of scikit-learn with standardised, signed features."""

    def make(rng):
        options = {"n_informative": max(2, n_features // 4), "n_redundant": 0, "class_sep": 1.5}
        X, y = toys.make_classification(
            n, n_features, n_classes=n_classes, random_state=rng, **(options | parameters)
        )
        return StandardScaler().fit_transform(X), y

    return make


def sparse_counts(n_features):
    """Counts, of which most are 0, with a vocabulary that leans on the class."""

    def make(rng):
        y = rng.randint(4, size=N_ROWS)
        base = rng.gamma(0.3, size=n_features)
        lean = rng.gamma(0.5, size=(4, n_features)) * base
        return rng.poisson(12 * (lean / lean.sum(1, keepdims=True))[y] * 3), y

    return make


def forest(rng):
    """Ten numbers and 44 flags, seven classes of unequal size."""
    y = rng.choice(7, N_ROWS, p=[0.36, 0.3, 0.12, 0.08, 0.06, 0.05, 0.03])
    numbers = normal(rng, 7, 10)[y] + normal(rng, N_ROWS, 10)
    kinds = rng.dirichlet(np.full(44, 0.3), 7)
    flags = np.array([rng.multinomial(1, kinds[c]) for c in y])
    return np.hstack([numbers, flags]), y


def faces(rng):
    """Pictures of 20 x 20 that are sums of smooth patterns, ten of each of 20 people."""
    grid = np.linspace(0, np.pi, 20)
    cosines = np.cos(np.arange(6)[:, None] * grid)
    waves = np.einsum("ix,jy->ijxy", cosines, cosines).reshape(36, 400)
    waves = waves / (1 + np.arange(36)[:, None] ** 0.5)
    people = np.repeat(normal(rng, 20, 36), 15, axis=0)
    X = (people + 0.6 * normal(rng, 300, 36)) @ waves + 0.1 * normal(rng, 300, 400)
    return X, np.repeat(np.arange(20), 15)


WHOLE = {
    "iris": toys.load_iris,
    "digits": toys.load_digits,
    "wine": toys.load_wine,
    "breast cancer": toys.load_breast_cancer,
}


def some(name):
    def make(rng):
        X, y = WHOLE[name](return_X_y=True)
        chosen = rng.permutation(len(X))[:N_ROWS]
        return X[chosen], y[chosen]

    return make


TUNING = {
    "iris": some("iris"),
    "moons": lambda rng: toys.make_moons(N_ROWS, noise=0.2, random_state=rng),
    "xor": xor,
    "blobs": lambda rng: toys.make_blobs(N_ROWS, 10, centers=5, cluster_std=4.0, random_state=rng),
    "20 features": made(20, 3),
    "200 features": made(200, 3, n=1500, n_informative=30),
    "forest": forest,
    "digits": some("digits"),
    "noisy labels": noisy_labels,
    "300 counts": sparse_counts(300),
}
HELD_OUT = {
    "wine": some("wine"),
    "breast cancer": some("breast cancer"),
    "circles": lambda rng: toys.make_circles(N_ROWS, noise=0.1, factor=0.5, random_state=rng),
    "parity": parity,
    "skewed classes": made(12, 2, weights=[0.85], flip_y=0.05),
    "40 features": made(40, 5, n_informative=12),
    "120 features": made(120, 2, n=1000, n_informative=20),
    "faces": faces,
    "1000 counts": sparse_counts(1000),
    "2000 features": made(2000, 3, n=1000, n_informative=200),
}
DATA = TUNING | HELD_OUT
N_CLASSES = {"forest": 7, "digits": 10, "faces": 20}  # others have 5 at most
ONE_TO_ONE = 20  # features up to which a cell for each is among the sizes
GROWTH = ("double", "single")


def sizes(name, n_features):
    """Numbers of E and I cells; a linear readout needs as many E cells as classes less one."""
    n = N_CLASSES.get(name, 0)
    if n > 5:
        chosen = [(n, -(-n // 4)), (n, n // 2), (n, n), (3 * n // 2, n // 2), (2 * n, n // 2)]
    else:
        chosen = [(4, 1), (8, 2), (5, 5), (10, 10), (16, 4)]
        default = (n_features, -(-n_features // 4))
        if n_features <= ONE_TO_ONE and default not in chosen:
            chosen[2] = default
    return chosen


def data_set(name, whole=False):
    """Training and test inputs, and their labels; 7 of 10 rows for training if whole."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if whole and name in WHOLE:
        X, y = WHOLE[name](return_X_y=True)
    else:
        X, y = DATA[name](rng)
    n_train = round(0.7 * len(X))
    if len(X) <= N_ROWS and not whole:
        n_train = min(n_train, N_TRAIN)
    X, y = np.asarray(X, float), np.asarray(y, int)
    return train_test_split(X, y, train_size=n_train, random_state=0, stratify=y)


def n_parameters(ssn):
    parts = (
        ssn.circuit_.weights,
        ssn.circuit_.noise_factor,
        ssn.readout_weights_,
        ssn.readout_bias_,
    )
    dense = 0 if ssn.input_weights_ is None else ssn.input_weights_.size
    return 3 + dense + sum(part.size for part in parts)


def compared(model, X, y, X_test, y_test):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(make_pipeline(StandardScaler(), model).fit(X, y).score(X_test, y_test))


ABLATIONS = {
    "nothing": {},
    "penalty on instability": {
        "training.penalties.excess_growth": lambda circuit, mean: mean.new_zeros(())
    },
    "penalty on silence": {"training.penalties.silence": lambda mean: mean.new_zeros(())},
    "rate by fan-in": {"training.readout.FAN_IN": np.inf},
    "centred inputs and rate by fan-in": {
        "training.readout.FAN_IN": np.inf,
        "supervised._scaler": lambda dense: MinMaxScaler(clip=True),
    },
    "memory of the guard": {"training.descent.MEMORY": 1.0, "training.descent.CAUTION": 1.0},
    "memory of the guard, penalty": {
        "training.descent.MEMORY": 1.0,
        "training.descent.CAUTION": 1.0,
        "training.penalties.excess_growth": lambda circuit, mean: mean.new_zeros(()),
    },
    "rate of weights by gain": {"training.readout.USUAL_GAIN": np.inf},
    "more noise on inputs for more features": {
        "supervised.INPUT_NOISE": (0.05, 0.05),
        "supervised.WIDE_NOISE": 0.0,
    },
    "slow first steps after growth": {"training.loop.WARM_UP": 1},
    "other attempts": {"training.loop.N_ATTEMPTS": 1},
    "final confirmation and repair": {
        "training.loop.REPAIRS": 0,
        "training.guard.FINAL_DURATION": 500.0,
        "training.guard.LONG_DURATION": 500.0,
    },
}
DEFAULTS = ("iris", "blobs", "digits", "wine", "breast cancer")
WIDE = ("120 features", "200 features", "300 counts", "faces", "1000 counts", "2000 features")
EVEN = {"n_excitatory": 10, "n_inhibitory": 10}
ABLATED = {
    "xor, one-to-one": ("xor", {"input_weights": "one_to_one"}),
    "blobs, one-to-one": ("blobs", {"input_weights": "one_to_one"}),
    "moons": ("moons", EVEN),
    "200 features": ("200 features", EVEN),
    "noisy labels": ("noisy labels", EVEN),
    "digits, gamma = 3": ("digits", EVEN | {"gamma": 3.0}),
}


@contextlib.contextmanager
def without(part):
    """The package without one of the measures against failures."""
    with contextlib.ExitStack() as stack:
        for name, value in ABLATIONS[part or "nothing"].items():
            stack.enter_context(mock.patch(f"ssn_estimators.{name}", value))
        yield


def figures(row, seed, *, settings):
    """Fit one network, and judge it."""
    import torch

    from ssn_estimators import DivergenceError, SSNClassifier

    torch.set_num_threads(1)
    settings = settings[row]
    X, X_test, y, y_test = data_set(settings["data"], settings.get("whole", False))
    every = np.concatenate([X, X_test])
    ssn = SSNClassifier(random_state=seed, **settings["parameters"])
    start = time.perf_counter()
    with threadpool_limits(1), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with without(settings.get("without")):
            ssn.fit(X, y)
        seconds = time.perf_counter() - start
        hidden = max(1, round(n_parameters(ssn) / (X.shape[1] + len(ssn.classes_))))
        outcome = {
            "row": row,
            "seed": seed,
            "settings": settings,
            "seconds": round(seconds, 1),
            "cells": list(map(int, (ssn.circuit_.n_excitatory, ssn.circuit_.n_inhibitory))),
            "logistic": compared(LogisticRegression(max_iter=1000), X, y, X_test, y_test),
            "mlp": compared(
                MLPClassifier((hidden,), max_iter=500, random_state=seed), X, y, X_test, y_test
            ),
            "chance": float(np.bincount(y_test).max() / len(y_test)),
            "loss": round(float(ssn.loss_), 4),
            "stability_": float(ssn.stability_),
            "n_rejected_steps": int(ssn.n_rejected_steps_),
            "warnings": [str(w.message) for w in warned if "Convergence" in w.category.__name__],
        }
        try:
            outcome["accuracy"] = float(ssn.score(X_test, y_test))
        except DivergenceError:
            outcome["accuracy"] = None
        for name, duration, n_trials in (("2 s", 2000.0, 5), ("10 s", 10000.0, 1)):
            simulation = ssn.simulate(
                every,
                n_trials=n_trials,
                duration=duration,
                burn_in=0.0,
                shared_noise=False,
                random_state=seed,
                covariance=False,
            )
            outcome[f"diverging trials in {name}"] = int(simulation.diverged.sum())
            outcome[f"trials of {name}"] = simulation.diverged.size
            if name == "2 s":
                rates = np.nan_to_num(simulation.rates)
                outcome["silent cells"] = int((rates.max(0) < 0.1).sum())
        n = ssn.circuit_.n_excitatory
        outcome["drives above 0"] = float((ssn.drive(every)[:, :n] > 0).mean())
        outcome["divergence_rate_"] = float(getattr(ssn, "divergence_rate_", np.nan))
        outcome["n_attempts_"] = int(getattr(ssn, "n_attempts_", 1))
    return outcome


def rows():
    """Settings of the fits: data x size x growth, all else as by default."""
    made = {}
    for data in DATA:
        n_features = data_set(data)[0].shape[1]
        for n_excitatory, n_inhibitory in sizes(data, n_features):
            for growth in GROWTH:
                parameters = {
                    "n_excitatory": n_excitatory,
                    "n_inhibitory": n_inhibitory,
                    "growth": growth,
                }
                name = f"{data}, {n_excitatory}:{n_inhibitory}, {growth}"
                made[name] = {"data": data, "parameters": parameters}
    return made


def ablations():
    """Settings of fits without one measure each, on the hardest of the tuning data."""
    made = {}
    for part in ABLATIONS:
        for name, (data, parameters) in ABLATED.items():
            settings = {"data": data, "parameters": parameters, "without": part}
            made[f"without {part}, {name}"] = settings
    return made


def defaults():
    """Settings of fits without any parameter, on all rows of small tables."""
    chosen = {"parameters": {}, "whole": True}
    return {f"{data}, defaults": {"data": data} | chosen for data in DEFAULTS}


def wide():
    """Settings of fits without any parameter, on wide data."""
    return {f"{data}, defaults": {"data": data, "parameters": {}} for data in WIDE}


def failed(network):
    """Which bars a fit misses."""
    accuracy, best = network["accuracy"] or 0.0, max(network["logistic"], network["mlp"])
    return {
        "diverge in 2 s": network["diverging trials in 2 s"] > 0,
        "in 10 s": network["diverging trials in 10 s"] > 0,
        "warned": len(network["warnings"]) > 0,
        "silent cells": network["silent cells"] > 0,
        "at chance": accuracy <= network["chance"] + 0.01 and best > network["chance"] + 0.05,
        "> 3 below LR": accuracy < network["logistic"] - 0.03,
    }


def summary(results):
    """Head and rows: bars missed and means, by data set or by what was left out."""
    groups = {}
    for network in results["networks"]:
        settings = network["settings"]
        kinds = (settings["data"], "all")
        if "without" in settings:
            kinds = (f"without {settings['without']}",)
        elif not settings["parameters"]:
            kinds = (f"{settings['data']}, defaults",)
        for kind in kinds:
            groups.setdefault(kind, []).append(network)
    counted = list(failed(results["networks"][0]))
    head = ["", "fits", *counted, "undone steps", "SSN", "worst", "LR", "MLP", "s"]
    return [head, *([name, *figures_of(group)] for name, group in groups.items())]


def figures_of(group):
    """What a group of fits has in the table."""
    missed = [failed(network) for network in group]
    counts = [str(sum(m[kind] for m in missed)) for kind in missed[0]]

    def mean(key):
        return np.mean([n[key] or 0.0 for n in group])

    worst = min(n["accuracy"] or 0.0 for n in group)
    accuracies = [mean("accuracy"), worst, mean("logistic"), mean("mlp")]
    shown = [f"{mean('n_rejected_steps'):.1f}", *(f"{a:.3f}" for a in accuracies)]
    return [str(len(group)), *counts, *shown, f"{np.median([n['seconds'] for n in group]):.0f}"]


def markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def list_table(rows):
    """For the documentation."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for cells in rows:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(cells)]
    return "\n".join(lines)


def rates(networks):
    """Divergences seen in runs of 10 s, and those that the bounds of the networks allow."""
    trials = [n["trials of 10 s"] for n in networks]
    seen = sum(n["diverging trials in 10 s"] for n in networks)
    bounds = np.array([n["divergence_rate_"] for n in networks])
    allowed = np.nansum(10 * np.array(trials) * bounds)
    unknown = np.isnan(bounds).sum()
    return (
        f"{seen} of {sum(trials)} trials of 10 s diverge; the bounds of the networks allow "
        f"{allowed:.2f} ({unknown} networks have none)."
    )


if __name__ == "__main__":
    settings = rows()
    main = parser(__doc__, settings, seeds=5)
    main.add_argument("--tuning", action="store_true", help="data and seeds that may be looked at")
    main.add_argument("--ablations", action="store_true", help="without one measure each")
    main.add_argument("--defaults", action="store_true", help="small tables, no parameters")
    main.add_argument("--wide", action="store_true", help="wide data, no parameters")
    args = main.parse_args()
    for made in (ablations, defaults, wide):
        if getattr(args, made.__name__):
            settings = made()
            args.rows = list(settings)
    tuning = args.tuning or args.ablations
    first = 0 if tuning else FIRST_SEED
    allowed = TUNING if tuning else DATA
    chosen = [row for row in args.rows if settings[row]["data"] in allowed]
    tasks = [(row, first + i) for i in range(args.seeds) for row in chosen]
    results = open_results(args.out)
    run(partial(figures, settings=settings), tasks, results, settings, args)
    print(markdown(summary(results)))
    print(rates(results["networks"]))
    if args.out:
        machine = results["machine"]
        origin = f"{machine['processor']}, commit {machine['code']}."
        parts = [list_table(summary(results)), rates(results["networks"]), origin, ""]
        args.out.with_suffix(".rst").write_text("\n\n".join(parts))
