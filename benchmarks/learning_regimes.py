r"""Rank and regime: how richly do rate networks and SSNs learn, from which initial weights?

    python benchmarks/learning_regimes.py --data FOLDER \
        --out benchmarks/results/learning_regimes.json

Rate networks of 300 cells learn three decision tasks from initial weights of one norm and of
different ranks (10,000 steps of stochastic gradient descent; contextual decisions at a rate at
which all of them stay finite), and digits row by row (sMNIST, 2,000 steps in batches of 200; FOLDER
holds mnist.npz, and is not needed by other rows). "measured types" are weights between E, PV, SST
and VIP cells whose strengths were measured in paired recordings, E cells 80% of all; "E and I,
balanced" have two types, so that inhibition cancels excitation on average; all are of the same norm
as the others. SSNs of 24 + 8 cells learn digits from full size, with initial
weights of different structure, and by growth from a pair. Each network is compared before and
after, see `inspection.learning_regime`; an alignment near 1 is lazy. What is there already is not
done again.
"""

from functools import partial
from pathlib import Path

import numpy as np
from images import mnist
from machine import code
from resumable import parser, timed, work
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler

from ssn_estimators import (
    AutoencoderEncoder,
    RNNClassifier,
    SSNClassifier,
    block_init,
    dale_init,
    low_rank_init,
    stationary_moments,
)
from ssn_estimators.datasets import (
    load_allen_traces,
    make_contextual_decision,
    make_delayed_match,
    make_two_alternatives,
)
from ssn_estimators.inspection import learning_regime, tangent_kernel

N_HIDDEN, N_ITER, N_COMPARED = 300, 10_000, 32
TASKS = {
    "2AF": make_two_alternatives,
    "DMS": make_delayed_match,
    "CXT": make_contextual_decision,
}
RANKS = (1, 30, 100, 300)
ROW_BY_ROW = {"n_steps": 28, "batch_size": 200}  # as in the published code, but for max_iter
STEPS = {"sMNIST": 2000}
TYPES = (240, 24, 18, 18)  # E, PV, SST and VIP cells
# of all ranks alike; at the default, .003, a network of rank 1 diverges on CXT
RATES = {"CXT": {"learning_rate_init": 0.001}}
CELLS = {"n_excitatory": 24, "n_inhibitory": 8}
SMALL = 0.03 * 32**0.5  # gain at which weights have a root mean square of .03
SSN = {"input_weights": "dense", "max_iter": 600}
FULL = SSN | CELLS | {"growth": None}


def balanced(n, rng, gain=SMALL):
    return dale_init(n, excitatory=0.75, gain=gain, random_state=rng)


def one_direction(n, rng):
    return low_rank_init(n, 1, excitatory=0.75, gain=SMALL, random_state=rng)


def measured_types(n, rng):
    """Sparse log-normal weights; their strengths are those between types in mouse cortex."""
    strengths = load_allen_traces().weights
    sure = np.abs(strengths) > 0
    logs = np.log(np.where(sure, np.abs(strengths), 1.0))
    signs = np.sign(strengths.sum(0)).astype(int)
    norm = np.linalg.norm(low_rank_init(n, n, random_state=rng))
    spread = np.ones_like(logs)  # of log-normal strengths of single synapses
    return block_init(TYPES, 0.2 * sure, logs, spread, signs, norm=norm, random_state=rng)


def two_types(n, rng):
    return dale_init(n, random_state=rng)


STRUCTURES = {
    "measured types": measured_types,
    "E and I, balanced": two_types,
}
INITIAL = {
    "rank 1": one_direction,
    "full rank": balanced,
    "full rank, a third as large": partial(balanced, gain=SMALL / 3),
}
ROWS = {
    **{
        f"RNN, {task}, rank {r}": {"task": task, "rank": r, **RATES.get(task, {})}
        for task in TASKS
        for r in RANKS
    },
    **{f"RNN, sMNIST, rank {r}": {"task": "sMNIST", "rank": r} for r in (5, 30, 300)},
    **{
        f"RNN, {task}, {name}": {"task": task, "structure": name, **RATES.get(task, {})}
        for task in (*TASKS, "sMNIST")
        for name in STRUCTURES
    },
    **{f"SSN, {name}": {"init": name} for name in INITIAL},
    "SSN, grown from a pair": {"init": "growth"},
}


def sequences(task, seed, folder):
    """Training sequences, those to compare networks on, and test sequences, with labels."""
    if task == "sMNIST":
        X, y = mnist(folder, "train")
        X_test, y_test = mnist(folder, "test")
        chosen = np.random.RandomState(1000 + seed).permutation(len(X))[:N_COMPARED]
        return X, y, X[chosen], X_test, y_test
    make = TASKS[task]
    X0 = make(N_COMPARED, random_state=1000 + seed)[0]
    return *make(20_000, random_state=seed), X0, *make(5000, random_state=2000 + seed)


def rate_network(folder, settings, seed):
    optimiser = dict(settings)
    task = optimiser.pop("task")
    X, y, X0, X_test, y_test = sequences(task, seed, folder)
    if "rank" in optimiser:
        init = low_rank_init(N_HIDDEN, optimiser.pop("rank"), random_state=seed)
    else:
        init = STRUCTURES[optimiser.pop("structure")]
    optimiser = (ROW_BY_ROW if task == "sMNIST" else {"n_steps": 8}) | optimiser
    network = RNNClassifier(N_HIDDEN, init=init, random_state=seed, **optimiser)
    before = clone(network).set_params(max_iter=0).fit(X, y)
    after = network.set_params(max_iter=STEPS.get(task, N_ITER))
    after, seconds = timed(lambda: after.fit(X, y))
    kernel_seconds = timed(lambda: tangent_kernel(after, X0))[1]
    return (
        before,
        after,
        X0,
        seconds,
        after.score(X_test, y_test),
        {"tangent_kernel_seconds": kernel_seconds},
    )


def ssn(_, settings, seed):
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, random_state=seed, stratify=y)
    encoder = AutoencoderEncoder(20, random_state=seed).fit(X)
    scaler = MinMaxScaler(clip=True).fit(encoder.transform(X))
    X, X_test = (scaler.transform(encoder.transform(x)) for x in (X, X_test))
    if settings["init"] == "growth":
        start = SSN | {"n_excitatory": 1, "n_inhibitory": 1}
        whole = SSN | CELLS
    else:
        start = whole = FULL | {"init": INITIAL[settings["init"]]}
    untrained = {"max_iter": 1, "learning_rate_init": 1e-9}
    before = SSNClassifier(random_state=seed, **(start | untrained)).fit(X, y)
    after = SSNClassifier(random_state=seed, **whole)
    after, seconds = timed(lambda: after.fit(X, y))
    # inputs with a noise-free fixed point in both
    found = np.all(
        [
            stationary_moments(n.circuit_, n.drive(X_test), closure="linear").converged
            for n in (before, after)
        ],
        axis=0,
    )
    X0 = X_test[found][:N_COMPARED]
    extra = {"inputs_with_fixed_points": float(found.mean()), "stability": after.stability_}
    return before, after, X0, seconds, after.score(X_test, y_test), extra


def figures(folder, row, seed):
    settings = ROWS[row]
    make = rate_network if "task" in settings else ssn
    before, after, X0, seconds, accuracy, extra = make(folder, settings, seed)
    # an untrained circuit may be so unstable that it has no fixed points, or never got a readout
    sound = len(X0) and before.readout_weights_.any()
    regime = vars(learning_regime(before, after, X0)) if sound else {}
    return {
        "row": row,
        "seed": seed,
        "settings": settings,
        "code": code(),
        "fit_seconds": seconds,
        "accuracy": accuracy,
        **extra,
        **regime,
    }


MEASURES = (
    "effective_rank",
    "spectral_radius",
    "weight_change",
    "representation_alignment",
    "kernel_alignment",
)


def with_error(values):
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):+13.3f} +- {error:5.3f}"


def summary(results):
    """Means and standard errors; and of the differences from full rank, seed by seed."""
    lines = [f"{'':43}{'accuracy':>10}" + "".join(f"{m[:18]:>22}" for m in MEASURES)]
    for row in ROWS:
        own = {
            n["seed"]: n for n in results["networks"] if n["row"] == row and "kernel_alignment" in n
        }
        if not own:
            continue
        total = sum(n["row"] == row for n in results["networks"])
        accuracy = np.mean([n["accuracy"] for n in own.values()])
        line = f"{row:34} n={len(own):2} of {total:2} {accuracy:10.3f}"
        lines.append(line + "".join(with_error([n[m] for n in own.values()]) for m in MEASURES))
        full = f"{', '.join(row.split(', ')[:2])}, rank {RANKS[-1]}"
        pairs = [
            (own[n["seed"]], n)
            for n in results["networks"]
            if n["row"] == full != row and n["seed"] in own
        ]
        if pairs:
            line = "".join(with_error([a[m] - b[m] for a, b in pairs]) for m in MEASURES)
            lines.append(f"{'    less full rank':55}" + line)
    return "\n".join(lines)


def main():
    command = parser(__doc__, ROWS)
    command.add_argument("--data", type=Path, help="folder of MNIST, for rows of sMNIST")
    args = command.parse_args()
    if args.data is None and any("sMNIST" in row for row in args.rows):
        command.error("rows of sMNIST need --data; name others with --rows.")
    work(args, partial(figures, args.data), ROWS, summary)


if __name__ == "__main__":
    main()
