"""What happens inside a network when training fails: the steps of four cases, with and without.

    python benchmarks/failures.py --out benchmarks/results/failures.json

writes failures.png beside it. Every case is trained as by default and with one measure switched
off. Recorded at each step are, over the inputs of the batch: the largest real part of the
eigenvalues of the Jacobian at the mean potentials, the largest mean potential, the share of cells
with a drive above 0 for some input, and the standard deviation of the noise.
"""

import argparse
import contextlib
import json
import warnings
from pathlib import Path
from unittest import mock

import matplotlib
import numpy as np
import torch
from machine import machine, save
from reliability import data_set, without
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from ssn_estimators import SSNClassifier
from ssn_estimators.training import loop

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WIDE = {"n_excitatory": 16, "n_inhibitory": 4, "max_iter": 200, "random_state": 0}
XOR = {"input_weights": "one_to_one", "random_state": 3}
DIGITS = {"n_excitatory": 40, "n_inhibitory": 10, "max_iter": 300, "random_state": 0}
CODES = DIGITS | {"input_weights": "one_to_one"}
# data, parameters, the measure to do without, and what shows the failure
CASES = {
    "dead from the start (200 features)": (
        "200 features",
        WIDE,
        "centred inputs and rate by fan-in",
        "driven",
    ),
    "slow runaways (XOR)": ("xor", XOR, "penalty on instability", "abscissa"),
    "in circles (codes of digits)": ("codes", CODES, "memory of the guard, penalty", "abscissa"),
    "noise that learns noise (digits)": ("digits", DIGITS, "rate by fan-in", "noise"),
}
LABELS = {
    "abscissa": "largest real part of J (1/ms)",
    "driven": "share of cells with a drive",
    "noise": "noise of a cell (mV, s.d.)",
}


def abscissa(circuit, mean):
    weights, tau = circuit.weights.double(), torch.as_tensor(circuit.tau)
    gain = circuit.k * circuit.gamma * mean.double().clamp_min(0) ** (circuit.gamma - 1)
    jacobian = (weights * gain[:, None] - torch.eye(len(weights))) / tau[:, None]
    return torch.linalg.eigvals(jacobian).real.amax().item()


@contextlib.contextmanager
def recorded(rows, abscissae):
    """Note what every step of training sees."""
    step = loop._Run._step

    def watched(self, descent, batch, rate, done=1.0):
        walk, answer, seen = step(self, descent, batch, rate, done), None, {}
        try:
            while True:
                request = walk.send(answer)
                answer = yield request
                if answer is not None:
                    circuit, mean = request.circuit, torch.nan_to_num(answer.mean.detach())
                    noise = (circuit.noise_factor.detach() ** 2).sum(1).sqrt()
                    seen = {
                        "cells": circuit.n_neurons,
                        "abscissa": abscissa(circuit, mean) if abscissae else None,
                        "largest": mean.abs().max().item(),
                        "driven": (request.drive > 0).any(0).double().mean().item(),
                        "noise": noise.mean().item(),
                    }
        except StopIteration as stop:
            rows.append(seen | {"undone": not stop.value})
            return stop.value

    with mock.patch.object(loop._Run, "_step", watched):
        yield


def trace(data, parameters, part, what):
    """Steps of one training, and the accuracy on its data."""
    if data in ("digits", "codes"):
        X, y = load_digits(return_X_y=True)
        if data == "codes":
            X = PCA(parameters["n_excitatory"], random_state=0).fit_transform(X)
    else:
        X, _, y, _ = data_set(data)
    rows = []
    with warnings.catch_warnings(), without(part), recorded(rows, what == "abscissa"):
        warnings.simplefilter("ignore")
        network = SSNClassifier(**parameters).fit(X, y)
    return {
        "steps": rows,
        "accuracy on training data": network.score(X, y),
        "n_rejected_steps": network.n_rejected_steps_,
        "n_attempts": network.n_attempts_,
    }


def draw(results, path):
    figure, all_axes = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
    for axes, (name, (_, _, part, what)) in zip(all_axes.flat, CASES.items(), strict=True):
        for key, color in ((f"without {part}", "#d55e00"), ("as by default", "#0072b2")):
            run = results["cases"][name][key]
            values = [row.get(what, np.nan) for row in run["steps"]]
            axes.plot(values, color=color, linewidth=0.8, label=key)
            undone = [i for i, row in enumerate(run["steps"]) if row["undone"]]
            axes.plot(undone, [values[i] for i in undone], "x", color=color, markersize=4)
        axes.set(title=name, xlabel="step (x: undone)", ylabel=LABELS[what])
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="result file (JSON)")
    args = parser.parse_args()
    results = {"machine": machine(), "cases": {}}
    for name, (data, parameters, part, what) in CASES.items():
        results["cases"][name] = {
            f"without {part}": trace(data, parameters, part, what),
            "as by default": trace(data, parameters, "nothing", what),
        }
        for key, run in results["cases"][name].items():
            last = [row[what] for row in run["steps"][-50:] if what in row]
            print(
                f"{name}, {key}: {run['n_rejected_steps']} steps undone, accuracy "
                f"{run['accuracy on training data']:.3f}, {LABELS[what]} at the end "
                f"{np.mean(last):.3f}"
            )
    keys = ("abscissa", "largest", "driven", "noise")
    for case in results["cases"].values():
        for run in case.values():
            for row in run["steps"]:
                row |= {k: round(row[k], 4) for k in keys if row.get(k) is not None}
    draw(results, args.out.with_suffix(".png"))
    save(results, args.out)
    print(json.dumps(results["machine"]))


if __name__ == "__main__":
    main()
