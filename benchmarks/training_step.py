"""Time of one training iteration of SSNClassifier with its default settings, and of whole fits.

    python benchmarks/training_step.py --out benchmarks/results/training_step.json
    python benchmarks/training_step.py --against CHECKOUT --fits iris breast_cancer digits

As many features as E cells, one-to-one input, batches of 256, 10 classes. The time (of the clock,
and of the processor, which tells more where others have the cores) is that of a longer fit minus
that of a shorter one, which grow alike to full size: it is the
optimiser's step with all that belongs to it, such as the long simulation that confirms the
network every 25 steps, and none of the work before and after. (Networks that start at full
size are not used, because some of their first steps are undone.) With --fits, whole fits with
no parameter but the seed are timed as well, on data sets of scikit-learn, after one that warms
up. With --against, the package of another checkout is measured in turn with this one's.
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
    from sklearn import datasets as toys
    from sklearn.exceptions import ConvergenceWarning

    import ssn_estimators
    from ssn_estimators import SSNClassifier

    if not Path(ssn_estimators.__file__).is_relative_to(case["root"]):
        raise SystemExit("another ssn_estimators stands before that of the checkout.")
    torch.set_num_threads(case["threads"])
    warnings.simplefilter("ignore", ConvergenceWarning)
    cells = dict(zip(("n_excitatory", "n_inhibitory"), case["cells"], strict=True))
    n_features = cells["n_excitatory"]
    X, y = toys.make_classification(
        2000, n_features, n_informative=20, n_classes=10, random_state=0
    )

    def fit(X, y, **parameters):
        ssn = SSNClassifier(device=case["device"], **parameters)
        start, used = time.perf_counter(), time.process_time()
        ssn.fit(X, y)
        return time.perf_counter() - start, time.process_time() - used, ssn

    short = {"growth_iter": 5, "random_state": case["repeat"], "input_weights": "one_to_one"}
    short |= cells
    fit(X, y, max_iter=1, **short)  # warms up
    first, first_used, _ = fit(X, y, max_iter=SHORT, **short)
    second, second_used, ssn = fit(X, y, max_iter=SHORT + case["iterations"], **short)
    fits = {
        name: fit(*getattr(toys, f"load_{name}")(return_X_y=True), random_state=case["repeat"])[0]
        for name in case["fits"]
    }
    return {
        "seconds": (second - first) / case["iterations"],
        "cpu_seconds": (second_used - first_used) / case["iterations"],
        "short_fit_seconds": first,
        "rejected_steps": ssn.n_rejected_steps_,
        "loss": ssn.loss_,
        "fits": fits,
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
    parser.add_argument("--cells", type=int, nargs=2, default=[80, 20], help="E and I")
    parser.add_argument("--fits", nargs="+", default=[], help="load_... of sklearn.datasets")
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
    names = ("iterations", "repeats", "cells", "device", "threads", "fits")
    settings = {name: getattr(args, name) for name in names}
    results = {"machine": machine(), "settings": settings, "checkouts": {}}
    runs = {name: [] for name in roots}
    for repeat in range(args.repeats):
        for name, root in roots.items():  # in turn, so that both see the same machine
            run = start_once(settings | {"root": str(root), "repeat": repeat})
            runs[name].append(run)
            fits = ", ".join(f"{data} {seconds:.1f} s" for data, seconds in run["fits"].items())
            own = f"{1e3 * run['seconds']:8.2f} ms, {1e3 * run['cpu_seconds']:.2f} of the processor"
            print(f"{name:16s} {own}  {fits}", flush=True)
    for name, root in roots.items():
        seconds = [run["seconds"] for run in runs[name]]
        results["checkouts"][name] = {
            "code": code(root),
            "median": median(seconds),
            "min": min(seconds),
            "max": max(seconds),
            "median_cpu": median(run["cpu_seconds"] for run in runs[name]),
            "short_fit_seconds": median(run["short_fit_seconds"] for run in runs[name]),
            "rejected_steps": runs[name][0]["rejected_steps"],
            "loss": runs[name][0]["loss"],
            "fit_seconds": {
                data: median(run["fits"][data] for run in runs[name]) for data in args.fits
            },
        }
        print(name, json.dumps(results["checkouts"][name]))
    if args.against is not None:
        for key, figure in (("", "median"), ("_cpu", "median_cpu")):
            this, other = (results["checkouts"][name][figure] for name in roots)
            results["other_over_this" + key] = other / this
            print(f"the other / this checkout, {figure}: {other / this:.2f}")
        this, other = (results["checkouts"][name]["fit_seconds"] for name in roots)
        results["other_over_this_fits"] = {data: other[data] / this[data] for data in this}
        print(json.dumps(results["other_over_this_fits"]))
    save(results, args.out)


if __name__ == "__main__":
    main()
