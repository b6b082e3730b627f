"""How much of unseen targets does `SSNRegressor` explain, and how much do other regressors?

    python benchmarks/regression.py --seeds 3 --jobs 1 --out benchmarks/results/regression.json

Diabetes (442 samples, ten features, mostly linear and noisy) and the first problem of Friedman
(1,000 samples, noise of 1, ten features of which five count, a product and a square among them).
Three quarters train, the rest is scored by R^2; a seed draws the split, Friedman's samples and the
networks. All get standardised features and targets: the multi-layer perceptron and kernel ridge
need them. Everything else is by default, but for what a row names; the kernel of kernel ridge is
the Gaussian one, as its default is linear. What is there already is not done again.
"""

import warnings

import numpy as np
from resumable import parser, timed, work
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssn_estimators import SSNRegressor

N_FRIEDMAN, NOISE = 1000, 1.0
DATA = {
    "diabetes": lambda seed: load_diabetes(return_X_y=True),
    "Friedman 1": lambda seed: make_friedman1(N_FRIEDMAN, noise=NOISE, random_state=seed),
}
MODELS = {
    "SSNRegressor": lambda seed: SSNRegressor(random_state=seed),
    "SSNRegressor, early stopping": lambda seed: SSNRegressor(
        early_stopping=True, random_state=seed
    ),
    "SSNRegressor, input_noise=0.15": lambda seed: SSNRegressor(
        input_noise=0.15, random_state=seed
    ),
    "ridge": lambda seed: Ridge(),
    "kernel ridge": lambda seed: KernelRidge(kernel="rbf"),
    "MLPRegressor": lambda seed: MLPRegressor(random_state=seed),
    "MLPRegressor, early stopping": lambda seed: MLPRegressor(
        early_stopping=True, random_state=seed
    ),
}
ROWS = {f"{data}, {model}": {"data": data, "model": model} for data in DATA for model in MODELS}
SETTINGS = {
    row: settings | {"n_friedman": N_FRIEDMAN, "noise": NOISE, "test_size": 0.25}
    for row, settings in ROWS.items()
}


def figures(row, seed):
    settings = SETTINGS[row]
    X, y = DATA[settings["data"]](seed)
    X, X_test, y, y_test = train_test_split(
        X, y, test_size=settings["test_size"], random_state=seed
    )
    model = TransformedTargetRegressor(
        make_pipeline(StandardScaler(), MODELS[settings["model"]](seed)),
        transformer=StandardScaler(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLPRegressor says when its 200 epochs were too few
        _, seconds = timed(lambda: model.fit(X, y))
    found = {
        "row": row,
        "seed": seed,
        "settings": settings,
        "r2": model.score(X_test, y_test),
        "r2_train": model.score(X, y),
        "fit_seconds": seconds,
    }
    network = model.regressor_[-1]
    if isinstance(network, SSNRegressor):
        cells = network.circuit_.n_excitatory, network.circuit_.n_inhibitory
        found |= {"stability": network.stability_, "cells": cells, "n_iter": network.n_iter_}
    return found


def summary(results):
    lines = [f"{'':45s} R^2 median (range)     training   fit (s)   stability"]
    for row in ROWS:
        found = [n for n in results["networks"] if n["row"] == row]
        if found:
            r2 = [n["r2"] for n in found]
            train, seconds = (np.median([n[x] for n in found]) for x in ("r2_train", "fit_seconds"))
            stability = min((n["stability"] for n in found if "stability" in n), default="")
            lines.append(
                f"{row:45s} {np.median(r2):.3f} ({min(r2):.3f} to {max(r2):.3f})   {train:.3f}"
                f"   {seconds:7.1f}   {stability}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    work(parser(__doc__, ROWS, seeds=3, jobs=1).parse_args(), figures, SETTINGS, summary)
