r"""Evidence integration by Morris-Lecar cells: evolution strategy against backpropagation.

    python benchmarks/evolution.py --models MODELS --minutes 12 \
        --out benchmarks/results/evolution.json
    python benchmarks/evolution.py --models MODELS --minutes 1.5 --published \
        --out benchmarks/results/evolution_published.json

Networks of 128 cells read 50 words of 4 ms and answer which of three kinds was the most frequent
(chance 1/3). The evolution strategy, with antithetic pairs, trains input weights or all; beside it
backpropagation through time trains the same, at other rates and with clipped gradients. The readout
of every row is a regression, and some rows have nothing else.

The rows of `--published` are of the published task, in which all counts of the kinds are equally
likely and margins therefore wide. Weights start as strong as in the published code, with larger
input weights, or with stronger recurrent ones; backpropagation has the published rate and batches,
the strategy the published perturbations, and six times the published rate; smaller ones for all
weights, and lower rates for larger weights and for longer training (.01 was better than .003 on
another seed). "memory" is the same task with 20 silent words, 80 ms, before the end. In the
published code the readout starts from nothing and is never fitted by a regression.

Every row has the same processor time (`--minutes`), the regressions included, during which its rate
falls along half a cosine. Steps are 0.5 ms where the row does not say otherwise. After each part of
that time the network is judged on 2,000 other sequences: from potentials of -20 mV, and from varied
ones, as in the published code, by a readout that is fitted from varied ones. It is written to
MODELS, so that the script may be killed at any time; what is done is not done again. At the end it
is judged with steps of 0.1 ms, too. "Passes" are sequences simulated forward; one of
backpropagation is followed by the way back.
"""

import copy
import time
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import torch
from machine import code
from resumable import dump, parser, work

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
# of the published task: what it starts from, and what trains it
START = {"task": "published", "input_scaling": 0.625, "recurrent_scaling": 1.0}
MEMORY = START | {"task": "memory"}
LARGE, CHAOTIC = {"input_scaling": 4.0}, {"recurrent_scaling": 4.0}
ALONE = {"trained": "readout"}
SEARCH = {"n_samples": 100, "batch_size": 8, "sigma": 0.1, "learning_rate_init": 0.03}
BACK = {"trainer": "bptt", "batch_size": 50, "learning_rate_init": 0.005}
PUBLISHED = {
    "published, readout alone": START | ALONE,
    "published, readout alone, larger input weights": START | LARGE | ALONE,
    "published, es, input weights": START | SEARCH | {"trained": "input"},
    "published, bptt, all weights": START | BACK,
    "published, bptt, input weights": START | BACK | {"trained": "input"},
    "published, bptt, input weights, clipped": (
        START | BACK | {"trained": "input", "max_grad_norm": 1.0}
    ),
    "memory, readout alone": MEMORY | ALONE,
    "memory, readout alone, larger input weights": MEMORY | LARGE | ALONE,
    "memory, es, input weights": MEMORY | SEARCH | {"trained": "input"},
    "memory, es, input weights, rate 0.01": (
        MEMORY | SEARCH | {"trained": "input", "learning_rate_init": 0.01}
    ),
    "memory, bptt, all weights": MEMORY | BACK,
    "published, readout alone, four times the recurrence": START | CHAOTIC | ALONE,
    "published, es, input weights, four times the recurrence": (
        START | CHAOTIC | SEARCH | {"trained": "input"}
    ),
    "published, bptt, all weights, four times the recurrence": START | CHAOTIC | BACK,
    "published, bptt, all weights, four times the recurrence, clipped, rate 0.001": (
        START | CHAOTIC | BACK | {"max_grad_norm": 1.0, "learning_rate_init": 0.001}
    ),
    "published, es, all weights": START | SEARCH | {"sigma": 0.02, "learning_rate_init": 0.002},
    "published, es, larger input weights": (
        START | LARGE | SEARCH | {"trained": "input", "learning_rate_init": 0.01}
    ),
    "published, bptt, all weights, clipped": START | BACK | {"max_grad_norm": 1.0},
    "published, bptt, all weights, steps of 0.1 ms": START | BACK | {"dt": 0.1},
    "published, bptt, all weights, rate 0.001": START | BACK | {"learning_rate_init": 0.001},
    "published, es, input weights, rate 0.005": (
        START | SEARCH | {"trained": "input", "learning_rate_init": 0.005}
    ),
}
ALL = ROWS | PUBLISHED
N_REGRESSION = 4000  # training sequences of the readout from varied potentials


def accuracy(network, X, y, start):
    """From these potentials, by the network's readout."""
    mean = network._respond(network._sequences(X, network.n_words), start, torch.float32)
    logits = mean @ network.readout_weights_.T + network.readout_bias_
    return float((network.classes_[logits.argmax(1)] == y).mean())


def judged(network, train, test, seed):
    """Accuracies on other sequences, from one potential and from varied ones."""
    rng = np.random.RandomState(seed)
    varied, network = copy.copy(network), copy.copy(network)
    X, y = (x[:N_REGRESSION] for x in train)
    starts = [network._potentials((len(x), network.n_cells), rng) for x in (X, test[0])]
    varied._fit_readout(varied._sequences(X, varied.n_words), y, np.ones(len(y)), starts[0])
    return {
        "accuracy": accuracy(network, *test, -20.0),
        "varied": accuracy(varied, *test, starts[1]),
    }


def figures(args, row, seed):
    settings = SIZES[args.size] | ALL[row]
    task = settings.pop("task", "equal")
    n_words = settings["n_words"]
    X, y = make_evidence_integration(
        N_TRAIN + N_TEST,
        n_words=n_words,
        delay=2 * n_words // 5 if task == "memory" else 0,
        uniform_counts=task != "equal",
        random_state=seed,
    )
    test, train = (X[:N_TEST], y[:N_TEST]), (X[N_TEST:], y[N_TEST:])
    path = args.models / f"evolution {args.size} {args.minutes:g} {row} {seed}.joblib"
    if path.exists():
        network, curve = joblib.load(path)
    else:
        # a generator of its own goes on from part to part
        rng = np.random.RandomState(seed)
        network = MorrisLecarClassifier(
            warm_start=True, learning_rate="constant", random_state=rng, **settings
        )
        if settings.get("trained") != "readout":
            network.max_iter = 10  # to see how long a step takes
        curve = []
    schedule, budget = MorrisLecarClassifier(**settings), 60 * args.minutes
    torch.set_num_threads(args.threads)
    goes_on = settings.get("trained") != "readout"
    while not curve or (goes_on and curve[-1]["seconds"] < budget and "ended" not in curve[-1]):
        before = curve[-1]["seconds"] if curve else 0.0
        now, started = {}, time.process_time()
        network.learning_rate_init = learning_rate(schedule, before / budget)
        try:
            network.fit(*train)
        except FloatingPointError as error:
            now["ended"] = str(error)
        seconds = time.process_time() - started
        if hasattr(network, "readout_weights_"):
            recent = network.loss_curve_[-network.max_iter :]
            now |= {
                "iteration": network.n_iter_,
                "forward passes": network.n_forward_,
                "loss": float(np.mean(recent)) if recent else None,
            } | judged(network, train, test, seed)
        # parts are a quarter of the time, and last five minutes at most
        part = min(budget / 4, 300.0)
        network.max_iter = max(1, round(network.max_iter * part / seconds))
        curve.append(now | {"seconds": round(before + seconds, 1)})
        dump((network, curve), path)
    finer = {}
    if hasattr(network, "readout_weights_"):
        network.dt = 0.1
        finer = judged(network, train, test, seed)
    seen = [point for point in curve if "accuracy" in point]
    return {
        "row": row,
        "seed": seed,
        "settings": ALL[row],
        "size": args.size,
        "minutes": args.minutes,
        "code": code(),
        "accuracy": seen[-1]["accuracy"] if seen else None,
        "accuracy, varied potentials at the start": seen[-1]["varied"] if seen else None,
        "accuracy, steps of 0.1 ms": finer.get("accuracy"),
        "accuracy, steps of 0.1 ms, varied potentials": finer.get("varied"),
        "best": max((point["accuracy"] for point in seen), default=None),
        "curve": curve,
    }


def summary(results):
    lines = []
    for row in ALL:
        for network in results["networks"]:
            if network["row"] != row or network["accuracy"] is None:
                continue
            last = network["curve"][-1]
            varied = network["accuracy, varied potentials at the start"]
            lines.append(
                f"{row:48} {network['size']:5} seed {network['seed']}  accuracy "
                f"{network['accuracy']:.3f} (varied {varied:.3f}, best {network['best']:.3f})  "
                f"{last.get('iteration', 0)} steps, {last.get('forward passes', 0)} passes, "
                f"{last['seconds'] / 60:.1f} min"
                + (f"  ended: {last['ended'][:40]}" if "ended" in last else "")
            )
    return "\n".join(lines)


def main():
    command = parser(__doc__, ALL, seeds=1, jobs=1)
    command.add_argument("--models", type=Path, required=True, help="folder for networks")
    command.add_argument("--size", choices=list(SIZES), default="full")
    command.add_argument("--minutes", type=float, default=60, help="of training, for each row")
    command.add_argument("--threads", type=int, default=1, help="of each")
    command.add_argument("--published", action="store_true", help="rows of the published task")
    args = command.parse_args()
    if args.rows == list(ALL):  # where none are named
        args.rows = list(PUBLISHED if args.published else ROWS)
    args.models.mkdir(parents=True, exist_ok=True)
    work(args, partial(figures, args), ALL, summary)


if __name__ == "__main__":
    main()
