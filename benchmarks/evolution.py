r"""Evidence integration by Morris-Lecar cells: evolution strategy against backpropagation.

    python benchmarks/evolution.py --models MODELS --minutes 12 --threads 1 --part 250 \
        --out benchmarks/results/evolution.json
    python benchmarks/evolution.py --models MODELS --minutes 30 \
        --rows "readout alone" "readout alone, strong recurrence" "es, input weights" \
        --out benchmarks/results/evolution_long.json

Networks of 128 cells read 50 words of 4 ms and answer which of three kinds was the most frequent
(chance 1/3). The evolution strategy, with antithetic pairs, trains input weights or all; beside it
backpropagation through time trains the same, at other rates and with clipped gradients. The readout
of every row is a regression; two rows have nothing else, one of them with recurrent weights as
strong as in the published code. Every row has the same time (`--minutes`) on `--threads` threads,
during which its rate falls along half a cosine. Steps are 0.5 ms. After each part of it the network
is judged on 2,000 other sequences, at the end also with steps of 0.1 ms and from varied potentials,
and written to MODELS, so that the script may be killed at any time; what is done is not done again.
"Passes" are sequences simulated forward; one of backpropagation is followed by the way back.
"""

from functools import partial
from pathlib import Path

import joblib
import numpy as np
import torch
from machine import code
from resumable import dump, parser, timed, work

from ssn_estimators import MorrisLecarClassifier
from ssn_estimators._torch import learning_rate
from ssn_estimators.datasets import make_evidence_integration

N_TRAIN, N_TEST = 20_000, 2000
SIZES = {
    "full": {"n_cells": 128, "n_words": 50, "word_duration": 4.0},
    "small": {"n_cells": 32, "n_words": 15, "word_duration": 2.0},
}
BPTT = {"trainer": "bptt"}
STRONG = {"input_scaling": 1.0, "recurrent_scaling": 1.0}
ROWS = {
    "readout alone": {"trained": "readout"},
    "readout alone, strong recurrence": STRONG | {"trained": "readout"},
    "es, input weights": {"trained": "input"},
    "es, all weights": {},
    "bptt, all weights": BPTT,
    "bptt, input weights": BPTT | {"trained": "input"},
    "bptt, all weights, rate 0.001": BPTT | {"learning_rate_init": 0.001},
    "bptt, input weights, rate 0.001": BPTT | {"trained": "input", "learning_rate_init": 0.001},
    "bptt, all weights, clipped": BPTT | {"max_grad_norm": 1.0},
    "bptt, input weights, clipped": BPTT | {"trained": "input", "max_grad_norm": 1.0},
}


def varied_score(network, X, y, rng):
    """Accuracy from potentials of -20 +- 5 mV, as they are in the published code."""
    start = rng.normal(-20, 5, (len(X), network.n_cells))
    mean = network._respond(network._sequences(X), start, torch.float32)
    logits = mean @ network.readout_weights_.T + network.readout_bias_
    return float((network.classes_[logits.argmax(1)] == y).mean())


def figures(args, row, seed):
    settings = SIZES[args.size] | ROWS[row]
    X, y = make_evidence_integration(
        N_TRAIN + N_TEST, n_words=settings["n_words"], random_state=seed
    )
    X_test, y_test, X, y = X[:N_TEST], y[:N_TEST], X[N_TEST:], y[N_TEST:]
    path = args.models / f"evolution {args.size} {args.minutes:g} {row} {seed}.joblib"
    if path.exists():
        network, curve = joblib.load(path)
    else:
        # a generator of its own goes on from part to part
        rng = np.random.RandomState(seed)
        network = MorrisLecarClassifier(
            warm_start=True,
            learning_rate="constant",
            max_iter=args.part,
            random_state=rng,
            **settings,
        )
        curve = []
    schedule = MorrisLecarClassifier(**settings)
    torch.set_num_threads(args.threads)
    goes_on = settings.get("trained") != "readout"
    while not curve or (
        goes_on and curve[-1]["seconds"] < 60 * args.minutes and "ended" not in curve[-1]
    ):
        before = curve[-1]["seconds"] if curve else 0.0
        now = {}
        network.learning_rate_init = learning_rate(schedule, before / (60 * args.minutes))
        try:
            _, seconds = timed(lambda: network.fit(X, y))
        except FloatingPointError as error:
            seconds, now["ended"] = 0.0, str(error)
        if hasattr(network, "readout_weights_"):
            recent = network.loss_curve_[-args.part :]
            now |= {
                "iteration": network.n_iter_,
                "forward passes": network.n_forward_,
                "loss": float(np.mean(recent)) if recent else None,
                "accuracy": network.score(X_test, y_test),
            }
        curve.append(now | {"seconds": round(before + seconds, 1)})
        dump((network, curve), path)
    finer = varied = None
    if hasattr(network, "readout_weights_"):
        varied = varied_score(network, X_test, y_test, np.random.RandomState(seed))
        finer = network.set_params(dt=0.1).score(X_test, y_test)
    judged = [point["accuracy"] for point in curve if "accuracy" in point]
    return {
        "row": row,
        "seed": seed,
        "settings": ROWS[row],
        "size": args.size,
        "code": code(),
        "accuracy": judged[-1] if judged else None,
        "accuracy, steps of 0.1 ms": finer,
        "accuracy, varied potentials at the start": varied,
        "best": max(judged, default=None),
        "curve": curve,
    }


def summary(results):
    lines = []
    for row in ROWS:
        for network in results["networks"]:
            if network["row"] != row or network["accuracy"] is None:
                continue
            last = network["curve"][-1]
            lines.append(
                f"{row:42} {network['size']:5} seed {network['seed']}  accuracy "
                f"{network['accuracy']:.3f} (best {network['best']:.3f})  "
                f"{last.get('iteration', 0)} steps, {last.get('forward passes', 0)} passes, "
                f"{last['seconds'] / 60:.0f} min"
                + (f"  ended: {last['ended'][:40]}" if "ended" in last else "")
            )
    return "\n".join(lines)


def main():
    command = parser(__doc__, ROWS, seeds=1, jobs=1)
    command.add_argument("--models", type=Path, required=True, help="folder for networks")
    command.add_argument("--size", choices=list(SIZES), default="full")
    command.add_argument("--minutes", type=float, default=60, help="of training, for each row")
    command.add_argument("--part", type=int, default=500, help="steps between two judgements")
    command.add_argument("--threads", type=int, default=2, help="of each")
    args = command.parse_args()
    args.models.mkdir(parents=True, exist_ok=True)
    work(args, partial(figures, args), ROWS, summary)


if __name__ == "__main__":
    main()
