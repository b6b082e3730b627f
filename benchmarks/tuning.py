"""Heterogeneous circuits from the size tuning of many: 12 numbers by simulation-based inference.

    python benchmarks/tuning.py --data FOLDER --out benchmarks/results/tuning.json

`field_tuning.npz` holds noisy curves of an E and an I cell of 400 random lines of 51 + 51 cells,
W = +-(J + delta z) exp(-d^2 / 2 s^2) with z uniform on [0, 1], and the J, delta and s (2 x 2 each)
that made them, which are read at the very end. Numbers are drawn from a wide box, whose middle is
the trivial guess; each draw is summarised by the moments over some networks of the logarithms of
rates, and networks of scikit-learn learn the numbers from the moments. Further rounds draw around
the last answer, of more networks each. Draws are kept in a file beside `--out`: a run that is
interrupted goes on. The error is sMAPE, the mean of 200 |x - y| / (x + y).
"""

import argparse
from pathlib import Path

import numpy as np
from machine import machine, save
from scipy.special import expit
from scipy.stats import loguniform
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from ssn_estimators import Circuit, simulate_many, sweep

PAIRS = ["EE", "EI", "IE", "II"]
BOXES = {"J": (0.03, 1.0), "delta": (0.03, 1.0), "sigma": (0.1, 2.0)}
NAMES = [f"{kind}_{pair}" for kind in BOXES for pair in PAIRS]
N_CELLS, SIZES = 51, np.array([0.0, 0.5, 1.0, 1.5, 2.0, 4.0, 6.0, 8.0])
PLACES = (np.arange(N_CELLS) - N_CELLS // 2) * 8 / (N_CELLS - 1)
MOST_LOST = 0.1  # share of networks that may diverge: in the data it was 2 of 402


def drive():
    edges = [expit((s / 2 + PLACES) / 0.25) * expit((s / 2 - PLACES) / 0.25) for s in SIZES]
    return 20.0 * np.tile(edges, 2)


def networks(numbers, n_networks, rng):
    square = np.square(PLACES[:, None] - PLACES)
    made = []
    for _ in range(n_networks):
        weights = np.empty((2, N_CELLS, 2, N_CELLS))
        for index, pair in enumerate(PAIRS):
            low, spread, width = (numbers[f"{kind}_{pair}"] for kind in BOXES)
            block = low + spread * rng.random_sample((N_CELLS, N_CELLS))
            block *= np.exp(-square / (2 * width**2)) * (-1 if pair[1] == "I" else 1)
            weights[index // 2, :, index % 2] = block
        weights = weights.reshape(2 * N_CELLS, 2 * N_CELLS).astype(np.float32)
        made.append(Circuit(weights, N_CELLS, k=0.01, gamma=2.2))
    return made


def summaries(curves):
    """Of shape (n_networks, 2, n_sizes), in Hz: moments of the logarithms."""
    logs = np.log(np.maximum(curves, 0) + 0.1).reshape(len(curves), -1)
    correlations = np.corrcoef(logs.T + 0.0)[np.triu_indices(logs.shape[1], 1)]
    return np.concatenate([logs.mean(0), np.log(logs.std(0) + 1e-3), np.nan_to_num(correlations)])


def point(random_state, n_networks, **numbers):
    """Summaries of some networks, noisy as the data."""
    rng = np.random.RandomState(random_state)
    circuits = networks(numbers, int(n_networks), rng)
    settings = {"n_trials": 1, "burn_in": 298.0, "duration": 2.0, "dt": 2.0, "solver": "euler"}
    found = simulate_many(circuits, [drive()] * len(circuits), covariance=False, **settings)
    stays = [not x.diverged.any() for x in found]
    cells = [N_CELLS // 2, N_CELLS + N_CELLS // 2]
    curves = np.array([x.rates[:, cells].T for x, own in zip(found, stays, strict=True) if own])
    lost = 1 - np.mean(stays)
    numbers = np.full(2 * 16 + 120, np.nan)
    if lost <= MOST_LOST:
        numbers = summaries(rng.normal(curves, 0.05 * curves + 0.05))
    return {"diverged": lost} | {f"s{i}": float(x) for i, x in enumerate(numbers)}


def learned(table, observed):
    """Answer in logarithms, its expected error for each number, and how well they are predicted."""
    kept = table.dropna()
    theta = np.log(kept[NAMES].to_numpy())
    features = kept[[x for x in kept if x.startswith("s") and x[1:].isdigit()]].to_numpy()
    network = MLPRegressor(
        hidden_layer_sizes=(128,), alpha=1e-2, early_stopping=True, max_iter=500, random_state=0
    )
    ways = {
        "linear": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))),
        "networks": make_pipeline(
            QuantileTransformer(output_distribution="normal", random_state=0),
            BaggingRegressor(network, 8, random_state=0),
        ),
    }
    ways = {k: TransformedTargetRegressor(x, transformer=StandardScaler()) for k, x in ways.items()}
    errors = {k: theta - cross_val_predict(x, features, theta, cv=5) for k, x in ways.items()}
    best = min(ways, key=lambda k: np.square(errors[k]).mean())
    answer = ways[best].fit(features, theta).predict(observed[None])[0]
    rmse = np.sqrt(np.square(errors[best]).mean(0))
    return answer, rmse, {"draws": len(kept), "lost": len(table) - len(kept), "by": best}


def smape(found, truth):
    return float(np.mean(200 * np.abs(found - truth) / (found + truth)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--draws", type=int, nargs="+", default=[4000, 800, 800])
    parser.add_argument("--networks", type=int, nargs="+", default=[12, 40, 80])
    arguments = parser.parse_args()
    data = np.load(Path(arguments.data) / "field_tuning.npz")
    np.testing.assert_allclose(drive().T, data["drive"], rtol=1e-5)
    observed, rounds = summaries(data["curves"].astype(float)), []
    centre = np.array([np.mean(np.log(BOXES[x.split("_")[0]])) for x in NAMES])
    bounds = np.log([BOXES[x.split("_")[0]] for x in NAMES])
    answers, width = [centre], None
    for number, (n_draws, n_networks) in enumerate(
        zip(arguments.draws, arguments.networks, strict=True)
    ):
        low, high = bounds.T
        if width is not None:
            low, high = np.maximum(low, answers[-1] - width), np.minimum(high, answers[-1] + width)
        priors = dict(zip(NAMES, map(loguniform, np.exp(low), np.exp(high)), strict=True))
        table = sweep(
            point,
            priors | {"n_networks": [n_networks]},
            n_points=n_draws,
            out=Path(arguments.out).with_suffix(f".{number}.jsonl"),
            random_state=number,
        )
        answer, rmse, about = learned(table, observed)
        answers.append(np.clip(answer, *bounds.T))
        width = 2.5 * rmse
        rounds.append(
            about | {"networks each": n_networks, "expected error of logs": rmse.tolist()}
        )
        print(number, about, np.round(np.exp(answers[-1]), 3), flush=True)
    truth = np.concatenate([data[f"true_{x}"].ravel() for x in ("low", "delta", "sigma")])
    for about, answer in zip(rounds, answers[1:], strict=True):
        about["sMAPE"] = smape(np.exp(answer), truth)
    result = {
        "machine": machine(),
        "sMAPE of the trivial guess": smape(np.exp(centre), truth),
        "rounds": rounds,
        "found": dict(zip(NAMES, np.exp(answers[-1]).tolist(), strict=True)),
        "truth": dict(zip(NAMES, truth.tolist(), strict=True)),
    }
    save(result, arguments.out)
    print(result["sMAPE of the trivial guess"], [x["sMAPE"] for x in rounds])


if __name__ == "__main__":
    main()
