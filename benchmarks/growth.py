"""What is growth for? Networks that grow from a pair, and such that start at full size.

    python benchmarks/growth.py --out benchmarks/results/growth.json

Handwritten digits, 30 E + 8 I cells unless said otherwise; as many optimiser steps in all for all
starts; networks of the same seed have the same data split. Metric 1 of the paper (section 2.4)
counts networks that become unstable over training: here, those of which at least one trial ran
away in a training window. Steps at which that happened are undone, in all rows, but no network
gets another attempt. The rows called "parents" grow one cell at a time and are trained briefly at
full size, since the question is whether a choice of the cells to split gets further in as many
steps.
"""

import time
import warnings
from functools import partial

import numpy as np
from machine import code
from reliability import data_set, list_table, markdown, without
from resumable import open_results, parser, run
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from table1 import interval
from threadpoolctl import threadpool_limits

SIZE = {"n_excitatory": 30, "n_inhibitory": 8}
MAX_ITER, GROWTH_ITER, N_STAGES = 300, 40, 5  # of doubling, before the last size
N_GROWTH = GROWTH_ITER * N_STAGES
UNPENALISED = {"stability_penalty": 0.0, "potential_penalty": 0.0}
REGIMES = {
    "defaults": {},
    "no penalty on instability": {"stability_penalty": 0.0},
    "no penalties": UNPENALISED,
    "k = 1.2": {"k": 1.2},
    "gamma = 3": {"gamma": 3.0},
    "no penalties, k = 1.2": UNPENALISED | {"k": 1.2},
    "no penalties, 35 E + 3 I": UNPENALISED | {"n_excitatory": 35, "n_inhibitory": 3},
    "no penalties, rate .03": UNPENALISED | {"learning_rate_init": 0.03},
    "no penalties, input one-to-one": UNPENALISED | {"input_weights": "one_to_one"},
}


def single(parameters):
    n_stages = parameters["n_excitatory"] - 1
    return {"growth": "single", "growth_iter": round(N_GROWTH / n_stages)}


STARTS = {
    "growth by doubling": lambda parameters: {"growth": "double", "growth_iter": GROWTH_ITER},
    "one cell at a time": single,
    "full size": lambda parameters: {"growth": None, "max_iter": MAX_ITER + N_GROWTH},
}
PARENTS = ("last", "random", "output", "gradient")
PARENTS_DATA, BRIEF = ("digits", "40 features"), 100


def settings():
    made = {}
    for regime, changes in REGIMES.items():
        for start, how in STARTS.items():
            parameters = SIZE | {"max_iter": MAX_ITER} | changes
            parameters |= how(parameters)
            made[f"{regime}: {start}"] = {"data": "digits", "parameters": parameters}
    for data in PARENTS_DATA:
        for parents in PARENTS:
            parameters = SIZE | {"max_iter": BRIEF, "parents": parents}
            parameters |= single(parameters)
            made[f"parents, {data}: {parents}"] = {"data": data, "parameters": parameters}
    return made


def figures(row, seed, *, settings):
    """Train one network; what happened on the way, and how well it ended."""
    import torch

    from ssn_estimators import DivergenceError, SSNClassifier

    torch.set_num_threads(1)
    chosen = settings[row]
    parameters = chosen["parameters"]
    X, X_test, y, y_test = data_set(chosen["data"])
    X, y = np.concatenate([X, X_test]), np.concatenate([y, y_test])
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, random_state=seed, stratify=y)
    if parameters.get("input_weights") == "one_to_one":
        encoder = PCA(parameters["n_excitatory"], random_state=0).fit(X)
        X, X_test = encoder.transform(X), encoder.transform(X_test)
    ssn = SSNClassifier(random_state=seed, **parameters)
    start = time.perf_counter()
    with threadpool_limits(1), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with without("other attempts"):
            ssn.fit(X, y)
        seconds = time.perf_counter() - start
        try:
            accuracy = float(ssn.score(X_test, y_test))
        except DivergenceError:
            accuracy = None
    return {
        "row": row,
        "seed": seed,
        "settings": chosen,
        "code": code(),
        "seconds": round(seconds, 1),
        "accuracy": accuracy,
        "stability_": float(ssn.stability_),
        "cells": [int(ssn.circuit_.n_excitatory), int(ssn.circuit_.n_inhibitory)],
        "n_runaway_steps_": int(ssn.n_runaway_steps_),
        "n_rejected_steps_": int(ssn.n_rejected_steps_),
        "loss": float(np.mean(ssn.loss_curve_[-25:])),
        "mean weight": float(np.abs(ssn.circuit_.weights).mean()),
        "warnings": [str(w.message) for w in warned if "Convergence" in w.category.__name__],
    }


def shown(values):
    """Mean, and its 95% confidence interval."""
    mean, half = interval(values)
    return f"{mean:.3f}" if np.isnan(half) else f"{mean:.3f} ± {half:.3f}"


def summary(results):
    head = ["", "networks", "run away (metric 1)", "steps undone", "warned"]
    rows = [[*head, "accuracy", "loss at the end"]]
    groups = {}
    for network in results["networks"]:
        groups.setdefault(network["row"], []).append(network)
    for name, group in groups.items():
        rows.append(
            [
                name,
                str(len(group)),
                str(sum(n["n_runaway_steps_"] > 0 for n in group)),
                f"{np.mean([n['n_rejected_steps_'] for n in group]):.1f}",
                str(sum(bool(n["warnings"]) for n in group)),
                shown([n["accuracy"] or 0.0 for n in group]),
                shown([n["loss"] for n in group]),
            ]
        )
    return rows


if __name__ == "__main__":
    settings = settings()
    args = parser(__doc__, settings, seeds=5).parse_args()
    results = open_results(args.out)
    tasks = [(row, seed) for seed in range(args.seeds) for row in args.rows]
    run(partial(figures, settings=settings), tasks, results, settings, args)
    print(markdown(summary(results)))
    if args.out:
        commits = sorted({network["code"] for network in results["networks"]})
        origin = f"{results['machine']['processor']}, commits {', '.join(commits)}."
        args.out.with_suffix(".rst").write_text(f"{list_table(summary(results))}\n\n{origin}\n")
