"""Spiking networks trained by recursive least squares: what they learn, and how long it takes.

    python benchmarks/spiking.py --out benchmarks/results/spiking.json
    python benchmarks/spiking.py --speed --out benchmarks/results/spiking_speed.json
    python benchmarks/spiking.py --drift --out benchmarks/results/spiking_drift.json

The first trains networks of 1,000 cells to follow a sinusoid of its own in each cell, for 70 loops
of 2 s, with and without the penalty on the sums of weights; with static synapses, and with all
recurrent synapses trained. What is there already is not done again. The second takes the time of
a training loop, with 205 static E inputs (and as many I) and 29 + 29 trained ones for each cell,
whatever the number of cells. The third compares what `expected_coupling_drift` says of sums and
signs with what training does, in networks of 300 cells after 15 loops of 1.4 s, over both
penalties.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from machine import code, machine, save
from resumable import add_keep, open_results, run, timed

from ssn_estimators import SpikingRegressor
from ssn_estimators.datasets import make_cued_sinusoids
from ssn_estimators.spike_statistics import (
    coupling_drift,
    coupling_spectrum,
    dale_violations,
    drift_statistics,
    expected_coupling_drift,
    fano_factor,
    isi_cv,
    paradoxical_response,
)

N = 1000
BASE = {"connectivity": 0.2, "penalty": 0.8, "sum_penalty": 8.0, "max_iter": 70}
RECURRENT = BASE | {"static_weights": False}
ROWS = {
    "static synapses, mu = 8": (BASE, 3),
    "static synapses, mu = 0": (BASE | {"sum_penalty": 0.0}, 3),
    "static synapses, signs frozen": (BASE | {"dale": "freeze"}, 1),
    "recurrent synapses, mu = 8": (RECURRENT, 2),
    "recurrent synapses, mu = 0": (RECURRENT | {"sum_penalty": 0.0}, 2),
}
N_DRIFT = 300
SMALL = {"connectivity": 0.5, "external_drive": 0.16, "burn_in": 200.0, "max_iter": 15}
PENALTIES = ((0.8, 0.0), (0.8, 0.1), (0.8, 1.0), (0.8, 8.0), (0.1, 8.0), (5.0, 8.0))
DRIFT_ROWS = {
    f"lambda = {penalty:g}, mu = {mu:g}": SMALL | {"penalty": penalty, "sum_penalty": mu}
    for penalty, mu in PENALTIES
}
SIZES, N_STATIC, N_PLASTIC = (512, 1024, 2048, 4096), 205, 29


def figures(row, seed):
    settings = ROWS[row][0]
    X, y = make_cued_sinusoids(N, random_state=seed)
    network = SpikingRegressor(random_state=seed, **settings)
    network, seconds = timed(lambda: network.fit(X, y))
    simulation = network.simulate(X, n_trials=20)
    rates, e = simulation.rates(), network.n_excitatory_
    eigenvalues = [coupling_spectrum(network, trained=t) for t in (False, True)]
    return {
        "row": row,
        "seed": seed,
        "settings": settings,
        "code": code(),
        "fit_seconds": seconds,
        "correlation": network.score(X, y),
        "error": [network.loss_curve_[0], network.loss_curve_[-1]],
        "dale_violations": dict(dale_violations(network)),
        "coupling_drift": dict(coupling_drift(network)),
        "rates_Hz": [float(rates[:e].mean()), float(rates[e:].mean())],
        "isi_cv": float(np.nanmean(isi_cv(simulation))),
        "fano_factor": float(np.nanmean(fano_factor(simulation))),
        "paradoxical_response_Hz": dict(
            paradoxical_response(network, X, increase=0.2, n_trials=40)
        ),
        "spectral_radius": [float(np.abs(x).max()) for x in eigenvalues],
    }


def drift_figures(row, seed):
    settings = DRIFT_ROWS[row]
    X, y = make_cued_sinusoids(N_DRIFT, random_state=seed)
    network, seconds = timed(lambda: SpikingRegressor(random_state=seed, **settings).fit(X, y))
    activity = drift_statistics(network, X, y)
    penalties = {name: settings[name] for name in ("penalty", "sum_penalty")}
    expected = expected_coupling_drift(**activity, **penalties)
    change = network.plastic_weights_.weights - network.initial_weights_
    groups = np.split(change, 2, axis=1)
    return {
        "row": row,
        "seed": seed,
        "settings": settings,
        "fit_seconds": seconds,
        "coupling_drift": list(coupling_drift(network).values()),
        "spread_ms": [float(own.std(1).mean()) for own in groups],
        "dale_violations": list(dale_violations(network).values()),
        "expected": {name: values.tolist() for name, values in expected.items()},
        "activity": {name: np.asarray(value).tolist() for name, value in activity.items()},
    }


def speed(sizes, repeats):
    rows = []
    for n in sizes:
        X, y = make_cued_sinusoids(n, random_state=0)
        network = SpikingRegressor(
            connectivity=2 * N_STATIC / n, n_plastic=N_PLASTIC, max_iter=1, random_state=0
        ).fit(X, y)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            network.partial_fit(X, y)
            times.append(time.perf_counter() - start)
        rows.append({"n_cells": n, "seconds": [round(t, 3) for t in times]})
        print(f"{n:6} cells  {np.median(times):.2f} s a loop of 2 s", flush=True)
    return rows


def summary(results):
    lines = []
    for row in ROWS:
        own = [n for n in results["networks"] if n["row"] == row]
        if not own:
            continue

        def median(*keys, own=own):
            values = own
            for key in keys:
                values = [v[key] for v in values]
            return np.median(values)

        dale = [median("dale_violations", k) for k in ("excitatory", "inhibitory")]
        drift = [median("coupling_drift", k) for k in ("excitatory", "inhibitory")]
        response = [median("paradoxical_response_Hz", k) for k in ("excitatory", "inhibitory")]
        lines.append(
            f"{row:32} n={len(own)}  correlation {median('correlation'):.3f}  Dale violations "
            f"E {dale[0]:.1%}, I {dale[1]:.1%}  drift {drift[0]:+.2%}, {drift[1]:+.2%}  rates "
            f"{median('rates_Hz', 0):.1f}, {median('rates_Hz', 1):.1f} Hz  CV "
            f"{median('isi_cv'):.2f}  response to more I input {response[0]:+.2f}, "
            f"{response[1]:+.2f} Hz"
        )
    return "\n".join(lines)


def drift_summary(results):
    lines = ["expected / found, E and I; mean sizes"]
    for row in DRIFT_ROWS:
        own = [n for n in results["networks"] if n["row"] == row]
        if not own:
            continue

        def pairs(expected, found, form, own=own):
            means = (
                np.abs([n["expected"][expected] for n in own]).mean(0),
                np.abs([n[found] for n in own]).mean(0),
            )
            return ", ".join(f"{a:{form}} / {b:{form}}" for a, b in zip(*means, strict=True))

        lines.append(
            f"{row:24} n={len(own)}  drift {pairs('drift', 'coupling_drift', '.2%')}  spread "
            f"{pairs('spread', 'spread_ms', '.2f')} ms  changed signs "
            f"{pairs('changed_signs', 'dale_violations', '.1%')}"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="result file (JSON)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument(
        "--drift", action="store_true", help="compare drifts with estimates instead"
    )
    parser.add_argument("--networks", type=int, help="networks a row, in place of its own number")
    parser.add_argument("--jobs", type=int, default=2, help="networks at once")
    parser.add_argument("--speed", action="store_true", help="time training loops instead")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=5)
    add_keep(parser)
    args = parser.parse_args()
    if args.speed:
        rows = speed(args.sizes, args.repeats)
        save({"machine": machine(), "code": code(), "loops": rows}, args.out)
        return
    results = open_results(args.out)
    if args.drift:
        tasks = [(row, seed) for seed in range(args.networks or 2) for row in DRIFT_ROWS]
        run(drift_figures, tasks, results, DRIFT_ROWS, args)
        print(drift_summary(results))
        return
    tasks = [(row, seed) for row in args.rows for seed in range(args.networks or ROWS[row][1])]
    settings = {row: ROWS[row][0] for row in ROWS}
    run(figures, tasks, results, settings, args)
    print(json.dumps(results["machine"]))
    print(summary(results))


if __name__ == "__main__":
    main()
