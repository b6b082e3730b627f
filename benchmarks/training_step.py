"""Time of one training iteration of SSNClassifier with its default settings.

    python benchmarks/training_step.py --out benchmarks/results/training_step.json
    python benchmarks/training_step.py --against CHECKOUT

80 features, so 80 E + 20 I cells with one-to-one input, batches of 256, 10 classes. The time
is that of a longer fit minus that of a shorter one, which grow alike to full size: it is the
optimiser's step with all that belongs to it, such as the long simulation that confirms the
network every 25 steps, and none of the work before and after. (Networks that start at full
size are not used, because some of their first steps are undone.) With --against, the package
of another checkout is measured in turn with this one's.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median

from machine import code, machine, n_cores, save

ROOT = Path(__file__).resolve().parent.parent
SHORT = 25  # steps; the number of long simulations is that of 25 steps each


def run_once(case):
    """Seconds of an iteration, in this process and with whatever package it finds."""
    import torch
    from sklearn.datasets import make_classification
    from sklearn.exceptions import ConvergenceWarning

    import ssn_estimators
    from ssn_estimators import SSNClassifier

    if not Path(ssn_estimators.__file__).is_relative_to(case["root"]):
        raise SystemExit("another ssn_estimators stands before that of the checkout.")
    torch.set_num_threads(case["threads"])
    X, y = make_classification(2000, n_features=80, n_informative=20, n_classes=10, random_state=0)

    def fit(n_steps):
        ssn = SSNClassifier(growth_iter=5, max_iter=n_steps, random_state=0, device=case["device"])
        start = time.perf_counter()
        ssn.fit(X, y)
        return time.perf_counter() - start, ssn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit(1)  # warms up
        short, _ = fit(SHORT)
        long, ssn = fit(SHORT + case["iterations"])
    return {
        "seconds": (long - short) / case["iterations"],
        "short_fit_seconds": short,
        "rejected_steps": ssn.n_rejected_steps_,
        "loss": ssn.loss_,
    }


def start_once(case):
    environment = os.environ | {
        "PYTHONPATH": case["root"],
        "OMP_NUM_THREADS": str(case["threads"]),
    }
    command = [sys.executable, __file__, "--case", json.dumps(case)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=100, help="a multiple of 25 is fairest")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path, help="root of another checkout")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--out", type=Path, help="result file (JSON)")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(run_once(args.case)))
        return

    roots = {"this checkout": ROOT}
    if args.against is not None:
        roots["the other"] = args.against.resolve()
    names = ("iterations", "repeats", "device", "threads")
    settings = {name: getattr(args, name) for name in names}
    results = {"machine": machine(), "settings": settings, "checkouts": {}}
    runs = {name: [] for name in roots}
    for _ in range(args.repeats):
        for name, root in roots.items():  # in turn, so that both see the same machine
            runs[name].append(start_once(settings | {"root": str(root)}))
            print(f"{name:16s} {1e3 * runs[name][-1]['seconds']:8.2f} ms", flush=True)
    for name, root in roots.items():
        seconds = [run["seconds"] for run in runs[name]]
        results["checkouts"][name] = {
            "code": code(root),
            "median": median(seconds),
            "min": min(seconds),
            "max": max(seconds),
            "short_fit_seconds": median(run["short_fit_seconds"] for run in runs[name]),
            "rejected_steps": runs[name][0]["rejected_steps"],
            "loss": runs[name][0]["loss"],
        }
        print(name, json.dumps(results["checkouts"][name]))
    if args.against is not None:
        this, other = (results["checkouts"][name]["median"] for name in roots)
        results["other_over_this"] = other / this
        print(f"the other / this checkout: {other / this:.2f}")
    save(results, args.out)


if __name__ == "__main__":
    main()
