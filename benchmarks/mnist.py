"""MNIST as in Table 1 of Soo & Lengyel (2022): encoder on the training split, then the SSN.

    python benchmarks/mnist.py --data FOLDER --out benchmarks/results/mnist.json

FOLDER holds mnist.npz with x_train, y_train, x_test, y_test. The test split is read once, at
the end. The result file is rewritten after every network, and networks that it holds are not
trained again.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from ssn_estimators import AutoencoderEncoder, SSNClassifier, stability_report, stability_score
from ssn_estimators._compat import versions


def timed(function):
    start = time.perf_counter()
    result = function()
    return result, round(time.perf_counter() - start, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--out", type=Path, help="result file (JSON)")
    parser.add_argument("--seeds", type=int, default=1, help="number of networks")
    parser.add_argument("--max-iter", type=int, default=3000)
    parser.add_argument("--ratio", choices=["50:50", "80:20"], default="50:50")
    parser.add_argument("--solver", default="ab2")
    args = parser.parse_args()
    n_excitatory, n_inhibitory = map(int, args.ratio.split(":"))

    with np.load(args.data / "mnist.npz") as data:
        X, X_test = (
            data[k].reshape(-1, 784).astype(np.float32) / 255 for k in ("x_train", "x_test")
        )
        y, y_test = (data[k].astype(int) for k in ("y_train", "y_test"))
    encoder = AutoencoderEncoder(n_excitatory, random_state=0)
    codes, encoder_seconds = timed(lambda: encoder.fit_transform(X))
    codes_test = encoder.transform(X_test)

    results = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {versions()}",
        "settings": {k: v for k, v in vars(args).items() if k not in ("data", "out", "seeds")},
        "encoder_seconds": encoder_seconds,
        "baselines": {},
        "networks": [],
    }
    if args.out is not None and args.out.exists():
        before = json.loads(args.out.read_text())
        if before["settings"] == results["settings"]:
            results["networks"] = before["networks"]
            results["baselines"] = before["baselines"]

    def save():
        if args.out is not None:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(results, indent=1) + "\n")

    for seed in range(len(results["networks"]), args.seeds):
        ssn = SSNClassifier(
            n_excitatory,
            n_inhibitory,
            max_iter=args.max_iter,
            solver=args.solver,
            random_state=seed,
            verbose=True,
        )
        _, fit_seconds = timed(lambda ssn=ssn: ssn.fit(codes, y))
        report = stability_report(ssn, codes_test[:1000], n_surrogates=20, n_trials=100)
        network = {
            "seed": seed,
            "test_accuracy": ssn.score(codes_test, y_test),
            "fit_seconds": fit_seconds,
            "n_iter": ssn.n_iter_,
            "rejected_steps": ssn.n_rejected_steps_,
            "stability_2s_1000_test_inputs": stability_score(ssn, codes_test[:1000]),
            "diverging_trials": {k: [round(x, 4) for x in v] for k, v in report.summary().items()},
        }
        print(network, flush=True)
        results["networks"].append(network)
        save()

    if not results["baselines"]:
        for name, model in (
            ("logistic regression", LogisticRegression(max_iter=500)),
            ("MLP (100, 100)", MLPClassifier((100, 100), early_stopping=True, random_state=0)),
        ):
            _, seconds = timed(lambda model=model: model.fit(codes, y))
            results["baselines"][name] = {
                "test_accuracy": model.score(codes_test, y_test),
                "fit_seconds": seconds,
            }
        save()
    print(json.dumps(results["baselines"], indent=1))


if __name__ == "__main__":
    main()
