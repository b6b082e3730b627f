"""What a fit takes where other processes have the cores, over what it takes alone.

    python benchmarks/busy.py --out benchmarks/results/busy.json

Small fits, alone and beside processes that do nothing but compute (four by default), in turns; the
medians and, for each fit, the ratio. On c cores, beside n processes, a fit on one core cannot do
better than (n + 1) / c, and one that uses all cores, in as many threads, than n / c + 1.
"""

import argparse
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from machine import machine, save
from sklearn.datasets import load_digits, load_iris

from ssn_estimators import (
    AutoencoderEncoder,
    CNNClassifier,
    GMMFlow,
    RNNClassifier,
    SSNClassifier,
)

IRIS, DIGITS = (load(return_X_y=True) for load in (load_iris, load_digits))
FITS = {
    "SSN, iris": (SSNClassifier(max_iter=150, random_state=0), IRIS),
    "SSN, 50 + 50 cells": (SSNClassifier(50, 50, max_iter=60, random_state=0), DIGITS),
    "autoencoder, digits": (AutoencoderEncoder(20, max_iter=300, random_state=0), DIGITS),
    "RNN, digits": (RNNClassifier(30, max_iter=300, random_state=0), DIGITS),
    "CNN, digits": (CNNClassifier((4,), max_iter=200, random_state=0), DIGITS),
    "flow, iris": (GMMFlow(2, n_layers=2, max_iter=200, random_state=0), IRIS),
}


@contextmanager
def busy(n):
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=4, help="beside the fit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="result file (JSON)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    results = {"machine": machine(), "processes": args.processes, "seconds": {}}
    for name, (estimator, data) in FITS.items():
        estimator.fit(*data)  # compiles
        seconds = {0: [], args.processes: []}
        for _ in range(args.rounds):
            for n, times in seconds.items():
                with busy(n):
                    start = time.perf_counter()
                    estimator.fit(*data)
                    times.append(time.perf_counter() - start)
        alone, beside = (median(times) for times in seconds.values())
        results["seconds"][name] = {"alone": alone, "beside": beside, "ratio": beside / alone}
        print(f"{name:22} {alone:7.2f} s alone, {beside:7.2f} s: {beside / alone:.1f}", flush=True)
        save(results, args.out)


if __name__ == "__main__":
    main()
