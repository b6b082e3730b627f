"""Classification of MNIST as in Table 1 of Soo & Lengyel (2022), its baselines and controls.

    python benchmarks/table1.py --data FOLDER --models MODELS --out benchmarks/results/table1.json

FOLDER holds mnist.npz with x_train, y_train, x_test, y_test. Encoders are fitted on the training
split. Every fitted model is written to the folder MODELS and its figures to the result file when
they are there; what is there already, with the same settings, is not done again, so that the
script may be killed at any time. The test split is read once per model. With `--validate` models
are fitted to the first 50,000 training images and judged on the last 10,000; the test split is
not read: that is the way to choose settings.
"""

import argparse
import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
from clipped import share_clipped, simulate_clipped_trials
from images import mnist
from machine import code
from plain_rnn import PlainRNN
from resumable import add_keep, dump, open_results, run, timed
from scipy.stats import t
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from ssn_estimators import (
    AutoencoderEncoder,
    DivergenceError,
    SSNClassifier,
    split,
    stability_report,
    stability_score,
)
from ssn_estimators._sklearn import fit_contexts
from ssn_estimators.training.classification import Classification
from ssn_estimators.training.guard import NoGuard
from ssn_estimators.training.side_by_side import run_together

N_VALIDATION, N_CLIPPED = 10_000, 1000
GROWTH_ITER, MAX_ITER = 40, 6000
DT, DT_JUDGED = 2.0, 1.0  # ms, of training, and of all that is measured afterwards
NOISE = 0.08  # on inputs; on validation data .05 is better at 1,000 steps, worse from 3,000 on
N_GROWTH = 6 * GROWTH_ITER  # steps before the last size, of 50:50 by doubling


@dataclass(frozen=True)
class Row:
    """One kind of model: how it is made, and what is measured of it."""

    n_components: int
    settings: dict
    n_networks: int = 3
    model: str = "ssn"
    encoder: str = "autoencoder"  # or "pca"; none for pixels
    growth_rule: str | None = None
    guard: bool = True
    fixed_readout: bool = False  # at its random start
    clip: bool = False  # potentials in training, at 30 mV
    surrogates: tuple = (0, 0)  # surrogates of each kind, and trials of each
    pixels: bool = False
    variants: bool = False  # whether to predict without noise and at the published step too
    n_judged: int = 10_000  # inputs on which no trial of 2 s may diverge


BASE = {
    "n_excitatory": 50,
    "n_inhibitory": 50,
    "growth_iter": GROWTH_ITER,
    "max_iter": MAX_ITER,
    "dt": DT,
    "input_weights": "one_to_one",
}
WIDE = BASE | {"n_excitatory": 80, "n_inhibitory": 20}
BEST = BASE | {"input_noise": NOISE}
# what is compared among itself is trained half as long
SHORT = BASE | {"max_iter": MAX_ITER // 2}
ONE_BY_ONE = {"growth": "single", "growth_iter": 5}  # as many steps in all
SIZES = (10, 25, 100, 200, 500)  # E cells; as many I cells
DENSE = BASE | {"max_iter": MAX_ITER // 6, "input_weights": "dense"}
STEPS = (60, 250, 500, 1000, 1600, 3000)  # at the last size; with the row of 6,000: against time

TABLE = {
    "SSN 50:50": Row(50, BEST, 100, surrogates=(20, 100), variants=True),
    "SSN 80:20": Row(80, WIDE | {"input_noise": NOISE}, 100, surrogates=(20, 100), variants=True),
    **{f"{n:,} steps": Row(50, BASE | {"max_iter": n}, surrogates=(20, 100)) for n in STEPS},
    "logistic regression, encoded-50": Row(50, {"max_iter": 1000}, 1, "logistic"),
    "logistic regression, encoded-80": Row(80, {"max_iter": 1000}, 1, "logistic"),
    # three layers of weights with as many parameters as the SSN (20,513 and 20,813)
    "MLP, encoded-50": Row(50, {"hidden_layer_sizes": (115, 115)}, 5, "mlp"),
    "MLP, encoded-80": Row(80, {"hidden_layer_sizes": (105, 105)}, 5, "mlp"),
    "RNN of 100 cells, encoded-50": Row(50, {"n_hidden": 100, "max_iter": MAX_ITER}, 5, "rnn"),
    "SSN 80:20, PCA, defaults": Row(80, {}, 5, encoder="pca"),
    "logistic regression, PCA to 80": Row(80, {"max_iter": 1000}, 1, "logistic", "pca"),
    "MLP, PCA to 80": Row(80, {"hidden_layer_sizes": (105, 105)}, 5, "mlp", "pca"),
}
# what of training matters, against the first of them
CONTROLS = {
    "half as many steps": Row(50, SHORT, surrogates=(20, 100)),
    "Gaussian ring SSN": Row(50, SHORT | {"weight_structure": "gaussian_ring"}),
    "Gaussian ring SSN, readout fixed": Row(
        50, SHORT | {"weight_structure": "gaussian_ring"}, fixed_readout=True
    ),
    "Gaussian ring SSN of full size, readout fixed": Row(
        50,
        SHORT
        | {
            "weight_structure": "gaussian_ring",
            "growth": None,
            "max_iter": N_GROWTH + MAX_ITER // 2,
        },
        fixed_readout=True,
    ),
    "circulant SSN": Row(50, SHORT | {"weight_structure": "circulant"}),
    "full size from small weights": Row(
        50, SHORT | {"growth": None, "max_iter": N_GROWTH + MAX_ITER // 2}
    ),
    "clones with equal shares": Row(50, SHORT | {"clone_shares": "equal"}),
    "no noise on inputs in training": Row(50, SHORT | {"input_noise": 0.0}),
    "gradient through 40 ms, not 60": Row(50, SHORT | {"window": 40.0}),
    "half the time step": Row(50, SHORT | {"dt": DT / 2}),
    "clones halve incoming weights": Row(50, SHORT, growth_rule="halve_rows"),
    "clones halve nothing": Row(50, SHORT, growth_rule="halve_nothing"),
    "one cell at a time": Row(50, SHORT | ONE_BY_ONE),
    "parents at random": Row(50, SHORT | ONE_BY_ONE | {"parents": "random"}),
    "no guard": Row(50, SHORT, guard=False),
    "no guard, no penalty": Row(50, SHORT | {"potential_penalty": 0.0}, guard=False),
    "clipped in training, no penalty": Row(50, SHORT | {"potential_penalty": 0.0}, 2, clip=True),
    "dense input": Row(50, DENSE),
    "dense input, pixels": Row(784, WIDE | {"input_weights": "dense"}, pixels=True),
    **{
        f"dense input, {n}:{n}": Row(
            50,
            DENSE | {"n_excitatory": n, "n_inhibitory": n},
            1,
            n_judged=10_000 if n <= 100 else 1000,
        )
        for n in SIZES
    },
}
ROWS = TABLE | CONTROLS


def halve_nothing(circuit, parents, **how):
    """Plain copies: what a clone sends out comes on top."""
    grown, origin = split(circuit, parents)
    return replace(grown, weights=grown.weights * shares(grown, origin)), origin


def halve_rows(circuit, parents, **how):
    """The rule of the published code: parent and clone share incoming, not outgoing weights."""
    grown, origin = halve_nothing(circuit, parents)
    return replace(grown, weights=grown.weights / shares(grown, origin)[:, None]), origin


def shares(grown, origin):
    """Into how many cells the parent of every cell was split."""
    return np.bincount(origin)[origin].astype(grown.weights.dtype)


RULES = {"halve_rows": halve_rows, "halve_nothing": halve_nothing}


class FixedReadout(Classification):
    def rates(self, circuit, inputs):
        return super().rates(circuit, inputs) | {"coef": 0.0, "intercept": 0.0}


class Controlled(SSNClassifier):
    """With another rule of growth, a fixed readout or steps never undone, as its `row` has it."""

    @property
    def _task(self):
        return FixedReadout if self.row.fixed_readout else Classification

    def _plan(self, *args, **kwargs):
        plan = super()._plan(*args, **kwargs)
        if self.row.growth_rule:
            rule = RULES[self.row.growth_rule]
            plan = replace(plan, growth=replace(plan.growth, split=rule))
        return plan if self.row.guard else replace(plan, guard=NoGuard)


class Clipped(SSNClassifier):
    """Answers with potentials that are clipped."""

    def _run(self, circuit, drive, trials, random_state):
        return simulate_clipped_trials([circuit], [drive], trials, [random_state])[0]


def fit(row, model, X, y):
    if row.model != "ssn":
        return model.fit(X, y)
    model.row, model.__class__ = row, Controlled
    with fit_contexts(model):
        run_together([model._training(X, y)], simulate_clipped_trials if row.clip else None)
    del model.row
    model.__class__ = SSNClassifier
    return model


def make(row, seed, device):
    if row.model == "ssn":
        return SSNClassifier(random_state=seed, device=device, **row.settings)
    if row.model == "mlp":
        return MLPClassifier(
            **row.settings,
            early_stopping=True,
            n_iter_no_change=20,
            max_iter=200,
            random_state=seed,
        )
    if row.model == "rnn":
        return PlainRNN(random_state=seed, **row.settings)
    return LogisticRegression(**row.settings)


def data(args, n_components, encoder):
    """Training inputs, and those to judge by; codes from the folder of models if there."""
    validation = "validation " if args.validate else ""
    kind = "pca " if encoder == "pca" else ""
    path = args.models / f"{validation}{kind}codes {n_components}.joblib"
    if path.exists():
        return joblib.load(path)
    X, y = mnist(args.data, "train")
    if args.validate:
        held_out = X[-N_VALIDATION:], y[-N_VALIDATION:]
        X, y = X[:-N_VALIDATION], y[:-N_VALIDATION]
    else:
        held_out = mnist(args.data, "test")
    X_test, y_test = held_out
    if n_components != 784:
        if encoder == "pca":
            encoder = PCA(n_components, random_state=0).fit(X)
        else:
            encoder = AutoencoderEncoder(
                n_components, max_iter=2800, device=args.device, random_state=0
            ).fit(X)
        X, X_test = encoder.transform(X), encoder.transform(X_test)
    found = X, y, X_test, y_test
    dump(found, path)
    return found


def trained(args, name, seed, X, y):
    """The fitted model and the seconds it took."""
    row, validation = ROWS[name], "validation " if args.validate else ""
    path = args.models / f"{validation}{name} {seed}.joblib"
    if path.exists():
        settings, model, seconds = joblib.load(path)
        if settings == row.settings:
            return model, seconds
    model, seconds = timed(lambda: fit(row, make(row, seed, args.device), X, y))
    dump((row.settings, model, seconds), path)
    return model, seconds


def figures(args, name, seed):
    row = ROWS[name]
    X, y, X_test, y_test = data(args, row.n_components, row.encoder)
    model, seconds = trained(args, name, seed, X, y)
    out = {"row": name, "seed": seed, "fit_seconds": seconds}
    out |= {"settings": row.settings, "code": code()}
    if row.model != "ssn":
        return out | {"accuracy": accuracy(model, X_test, y_test)}
    model = copy.copy(model).set_params(dt=DT_JUDGED, device=args.device)
    stable = stability_score(model, X_test[: row.n_judged])  # 2 s
    out |= {
        "n_iter": model.n_iter_,
        "rejected_steps": model.n_rejected_steps_,
        "runaway_steps": model.n_runaway_steps_,
        "confirmed": model.stability_,
        "diverging_in_2s": 1 - stable,
        "accuracy": accuracy(model, X_test, y_test),
        "trials that reach 30 mV": share_clipped(model, X_test[:N_CLIPPED]),
        **strengths(model),
    }
    clipped = copy.copy(model)
    clipped.__class__ = Clipped
    out["accuracy clipped at 30 mV"] = accuracy(clipped, X_test, y_test)
    if row.variants:
        published = copy.copy(model).set_params(dt=0.2, solver="euler")
        out["accuracy at the published step"] = accuracy(published, X_test, y_test)
        out["accuracy without noise"] = accuracy(silenced(model), X_test, y_test)
    n_surrogates, n_trials = row.surrogates
    if n_surrogates:
        report = stability_report(model, X_test, n_surrogates=n_surrogates, n_trials=n_trials)
        out["diverging_trials"] = {
            "trained": report.trained,
            "shuffled": np.round(report.shuffled, 4).tolist(),
            "random": np.round(report.random, 4).tolist(),
        }
    return out


def strengths(model):
    """How strong the weights are that surrogates shuffle, and the feed-forward gain."""
    weights, n_excitatory = model.circuit_.weights, model.circuit_.n_excitatory
    among_excitatory = np.linalg.eigvals(weights[:n_excitatory, :n_excitatory])
    return {
        "weights_rms": float(np.sqrt(np.mean(weights**2))),
        "excitatory_abscissa": float(among_excitatory.real.max()),
        "input_gain": float(model.circuit_.theta[0]),
    }


def accuracy(model, X, y):
    """Share of right answers; None if the network diverges on an input and gives none."""
    try:
        return float(np.mean(model.predict(X) == y))
    except DivergenceError:
        return None


def silenced(model):
    """The network without noise."""
    model, circuit = copy.copy(model), model.circuit_
    model.circuit_ = replace(circuit, noise_factor=0 * circuit.noise_factor)
    return model.set_params(n_trials_predict=1)


def interval(values):
    """Mean, and half the width of its 95% confidence interval (Student)."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return values.mean(), np.nan
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), half


def summary(results):
    lines = []
    for name in ROWS:
        own = [n for n in results["networks"] if n["row"] == name]
        if not own:
            continue
        accuracy = [n["accuracy"] for n in own if n["accuracy"] is not None]
        line = f"{name:34} n={len(own):3}"
        if accuracy:
            mean, half = interval(accuracy)
            line += f"  accuracy {mean:.4f} +- {half:.4f}"
            line += (
                f" (s.d. {np.std(accuracy, ddof=len(accuracy) > 1):.4f}, best {max(accuracy):.4f})"
            )
        line += f"  {np.median([n['fit_seconds'] for n in own]):.0f} s"
        if "diverging_in_2s" in own[0]:
            line += f"  unstable {sum(n['diverging_in_2s'] > 0 for n in own)}"
            line += f"  reaching 30 mV {np.mean([n['trials that reach 30 mV'] for n in own]):.3f}"
            line += f"  steps undone {np.mean([n['rejected_steps'] for n in own]):.1f}"
        with_surrogates = [n["diverging_trials"] for n in own if "diverging_trials" in n]
        for kind in ("shuffled", "random") if with_surrogates else ():
            shares = [np.mean(n[kind]) for n in with_surrogates]
            error = np.std(shares, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else np.nan
            line += f"  {kind} {np.mean(shares):.3f} (s.e. {error:.3f})"
        lines.append(line)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--models", type=Path, required=True, help="folder for fitted models")
    parser.add_argument("--out", type=Path, help="result file (JSON)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--controls", action="store_true", help="the rows of controls only")
    parser.add_argument("--networks", type=int, help="models a row, in place of its own number")
    parser.add_argument("--jobs", type=int, default=2, help="models at once, one core each")
    parser.add_argument("--device", default="auto", help="torch device of SSNs and encoders")
    parser.add_argument("--validate", action="store_true", help="do not read the test split")
    parser.add_argument("--summary", action="store_true", help="print what is there, and end")
    add_keep(parser)
    args = parser.parse_args()
    if args.controls:
        args.rows = list(CONTROLS)
    args.models.mkdir(parents=True, exist_ok=True)

    results = open_results(args.out, validation=args.validate)
    if args.summary:
        print(summary(results))
        return
    if results["validation"] != args.validate:
        parser.error(f"{args.out} holds figures of the other kind: validation and test apart")
    for kind in {(ROWS[row].n_components, ROWS[row].encoder) for row in args.rows}:
        data(args, *kind)
    numbers = {row: args.networks or ROWS[row].n_networks for row in args.rows}
    # one network of every row before the second of any
    tasks = [
        (row, i) for i in range(max(numbers.values())) for row in args.rows if i < numbers[row]
    ]
    settings = {name: row.settings for name, row in ROWS.items()}
    run(partial(figures, args), tasks, results, settings, args)
    print(summary(results))


if __name__ == "__main__":
    main()
