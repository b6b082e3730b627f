"""How far the moment closures are from simulation, as the noise of trained circuits grows.

    python benchmarks/closure.py --out benchmarks/results/closure.json

Circuits: the published ring network of Echeveste et al. (2020) on its five stimuli, and a
classifier trained on scikit-learn's digits. Differences are relative to the size of the
simulated moment, root mean squares over cells, medians over those inputs on which the closure
finds a stationary state; behind the sign +- is the sampling error of the simulation alone.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import machine
from sklearn.datasets import load_digits

from ssn_estimators import AutoencoderEncoder, SSNClassifier, simulate
from ssn_estimators.datasets import make_ring_gsm, make_ring_network
from ssn_estimators.inspection import compare_moments
from ssn_estimators.stationary.moments import CLOSURES, stationary_moments

NOISE = (0.5, 1.0, 2.0)  # times the trained noise
SIMULATION = {"solver": "ab2", "dt": 0.5, "burn_in": 300.0, "rates": False}


def ring():
    circuit = make_ring_network()
    return circuit, circuit.drive(make_ring_gsm().h), {"n_trials": 100, "duration": 1000.0}


def digits(n_inputs=8):
    X, y = load_digits(return_X_y=True)
    codes = AutoencoderEncoder(30, max_iter=400, random_state=0).fit_transform(X[:1400])
    ssn = SSNClassifier(max_iter=300, random_state=0).fit(codes, y[:1400])
    circuit = replace(
        ssn.circuit_,
        **{x: getattr(ssn.circuit_, x).astype(float) for x in ("weights", "noise_factor")},
    )
    drive = ssn.drive(codes[:n_inputs]).astype(float)
    return circuit, drive, {"n_trials": 100, "duration": 2500.0}


def timed(function, *arguments, **parameters):
    start = time.perf_counter()
    result = function(*arguments, **parameters)
    return result, time.perf_counter() - start


def differences(bias):
    """Medians over the inputs that both have, and the values of every input."""
    found = {}
    for name in ("mean", "variance", "covariance"):
        values, errors = getattr(bias, name), getattr(bias, f"{name}_error")
        known = np.isfinite(values)
        found[name] = {
            "median": float(np.median(values[known])) if known.any() else None,
            "sampling_error": float(np.median(errors[known])) if known.any() else None,
            "inputs": [round(x, 5) if np.isfinite(x) else None for x in values.tolist()],
        }
    return found


def rows(name, circuit, drive, sampling):
    for noise in NOISE:
        noisy = replace(circuit, noise_factor=noise * circuit.noise_factor)
        settings = SIMULATION | sampling
        halves, simulation_seconds = timed(
            lambda noisy=noisy, settings=settings: [
                simulate(noisy, drive, random_state=seed, **settings) for seed in (0, 1)
            ]
        )
        for closure in CLOSURES:
            moments, seconds = timed(stationary_moments, noisy, drive, closure=closure)
            bias = compare_moments(moments, halves)
            row = {
                "circuit": name,
                "noise": noise,
                "closure": closure,
                "converged": int(moments.converged.sum()),
                "inputs": len(drive),
                "diverged_trials": float(bias.diverged.mean()),
                "seconds": round(seconds, 3),
                "simulation_seconds": round(simulation_seconds, 1),
                **differences(bias),
            }
            yield row


def line(row):
    cells = [f"{row['circuit']:>7} {row['noise']:>5g} {row['closure']:>9}"]
    cells.append(f"{row['converged']:>5}/{row['inputs']}")
    for name in ("mean", "variance", "covariance"):
        value = row[name]
        known = value["median"] is not None
        text = f"{value['median']:.4f} +- {value['sampling_error']:.4f}" if known else "-"
        cells.append(f"{text:>18}")
    return " ".join([*cells, f"{row['seconds']:8.3f}", f"{row['simulation_seconds']:8.1f}"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="result file (JSON)")
    args = parser.parse_args()
    results = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "simulation": SIMULATION | {"halves": 2},
        "rows": [],
    }
    heads = ("mean", "variance", "covariance")
    print(
        f"{'circuit':>7} {'noise':>5} {'closure':>9} {'found':>7}",
        *(f"{head:>18}" for head in heads),
        f"{'s':>8} {'s (sim.)':>8}",
    )
    for make in (ring, digits):
        circuit, drive, sampling = make()
        results["simulation"][make.__name__] = sampling
        for row in rows(make.__name__, circuit, drive, sampling):
            results["rows"].append(row)
            print(line(row), flush=True)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
