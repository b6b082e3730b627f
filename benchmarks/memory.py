"""How much memory do fits and predictions take beside their data?

    python benchmarks/memory.py --out benchmarks/results/memory.json

Tables of 50 features: a fit on 200,000 rows, and what follows from it on 1,000,000; and steps of
training through 64 trials of 2,000 time steps, with 100 cells. Every row is a process of its own;
memory is the largest that it had, less what it had with the data made, in MB. Fits are short, since
what a step takes does not depend on their number. A file that is there keeps the rows that are not
asked for; each names its commit.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from machine import code, machine, save

N_FIT, N_PREDICT, N_FEATURES, N_CLASSES = 200_000, 1_000_000, 50, 4
ROWS = {
    "SSNClassifier": ({"max_iter": 200, "growth_iter": 20}, "predict"),
    "RNNClassifier": ({"n_hidden": 32, "max_iter": 100}, "predict"),
    "AutoencoderEncoder": ({"n_components": 10, "max_iter": 1}, "transform"),
    "GMMFlow": ({"n_components": 16, "n_layers": 2, "max_iter": 50}, "score_samples"),
    "GaussianScaleMixture": ({"n_components": 10, "max_iter": 5}, "transform"),
}
TRIALS = "SSNSequenceRegressor"


def largest():
    """The most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def figures(row):
    """Memory and seconds of a fit and of its answers."""
    import ssn_estimators

    parameters, method = ROWS[row]
    estimator = getattr(ssn_estimators, row)(**parameters, random_state=0)
    rng = np.random.RandomState(0)
    y = rng.randint(N_CLASSES, size=N_PREDICT)
    X = rng.normal(size=(N_PREDICT, N_FEATURES))
    for label, center in enumerate(rng.normal(size=(N_CLASSES, N_FEATURES))):
        X[y == label] += center
    small = ssn_estimators.SSNClassifier(2, 1, max_iter=1, growth_iter=1, random_state=0)
    small.fit(X[:100], y[:100]).predict(X[:100])  # what libraries load when they are first used
    found = {"row": row, "data": round(X.nbytes / 2**20)}
    before, start = largest(), time.perf_counter()
    estimator.fit(X[:N_FIT], y[:N_FIT])
    found |= {"fit": round(largest() - before), "fit seconds": round(time.perf_counter() - start)}
    before, start = largest(), time.perf_counter()
    getattr(estimator, method)(X)
    took = {method: round(largest() - before), "seconds": round(time.perf_counter() - start)}
    return found | took


def figures_of_trials():
    """Memory and seconds of a fit through whole trials, of ten steps at the last size."""
    from ssn_estimators import SSNSequenceRegressor

    rng = np.random.RandomState(0)
    X = rng.uniform(size=(64, 100, 8)).astype(np.float32)
    parameters = {"time_step": 20.0, "batch_size": 64, "growth_iter": 1, "random_state": 0}
    SSNSequenceRegressor(4, max_iter=1, **parameters).fit(X[:, :2], X[:, :2])
    before, start = largest(), time.perf_counter()
    made = SSNSequenceRegressor(80, 20, dt=1.0, max_iter=10, **parameters).fit(X, X)
    seconds = round(time.perf_counter() - start, 1)
    found = {"row": TRIALS, "data": round(X.nbytes / 2**20), "fit": round(largest() - before)}
    return found | {"fit seconds": seconds, "steps": made.n_iter_, "whole": round(largest())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, TRIALS], default=[*ROWS, TRIALS])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=[*ROWS, TRIALS], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(figures_of_trials() if args.one == TRIALS else figures(args.one)))
        return
    results = {"machine": machine(), "rows": []}
    if args.out and args.out.exists():
        known = json.loads(args.out.read_text())
        commit = known["machine"]["code"]
        kept = [row for row in known["rows"] if row["row"] not in args.rows]
        results["rows"] = [{"code": commit} | row for row in kept]
    for row in args.rows:
        command = [sys.executable, __file__, "--one", row]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        results["rows"].append({"code": code()} | json.loads(output.splitlines()[-1]))
        print(results["rows"][-1], flush=True)
        if args.out:
            save(results, args.out)


if __name__ == "__main__":
    main()
