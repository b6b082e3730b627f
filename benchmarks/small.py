"""What small circuits, short calls and other exponents cost on one thread.

    python benchmarks/small.py --out benchmarks/results/small.json

Medians in ms. "4 cells, 13,500 steps" is one trial of Euler steps; "100 steps" the same circuit
in a short call; "gamma 2.2" the time of 100 or 256 cells and 400 columns over that with gamma 2, in
turns, forwards and with a gradient; "sheet" the steady states of 2 x 17 x 17 cells under 12 sizes
(on two threads).
"""

import argparse
import time
from itertools import product
from statistics import median

import numpy as np
import torch
from machine import machine, save

from ssn_estimators import Circuit, circuits, simulate
from ssn_estimators.inspection import steady_states

TYPES = {"E": 2, "PV": 1, "SST": 1}
FEW = [[0.3, 0.2, -0.4, -0.3], [0.2, 0.3, -0.3, 0.0], [0.5, 0.4, -0.3, -0.2], [0.3, 0.6, 0.0, -0.2]]


def times(functions, repeats):
    """Milliseconds of each, in turns, after one run of each."""
    found = [[] for _ in functions]
    for repeat in range(repeats + 1):
        for function, own in zip(functions, found, strict=True):
            start = time.perf_counter()
            function()
            if repeat:
                own.append(1e3 * (time.perf_counter() - start))
    return [median(own) for own in found]


def few_cells(dynamics, n_steps):
    circuit = Circuit(FEW, populations=TYPES, k=0.04, dynamics=dynamics)
    settings = {"n_trials": 1, "burn_in": n_steps / 2, "duration": n_steps / 2, "solver": "euler"}
    return lambda: simulate(circuit, np.full((1, 4), 3.0), random_state=0, **settings)


def many_cells(n, gamma, gradient):
    rng = np.random.RandomState(0)
    signs = np.where(np.arange(n) < n // 2, 1.0, -2.0)
    weights = np.abs(rng.normal(scale=3 / n, size=(n, n))) * signs
    drive = torch.tensor(rng.uniform(2, 6, (20, n)), dtype=torch.float32)
    circuit = Circuit(weights.astype(np.float32), n // 2, 0.2, k=0.04, gamma=gamma).to_torch()
    settings = {"n_trials": 20, "burn_in": 200.0, "duration": 100.0, "dt": 0.5, "solver": "euler"}
    settings |= {"random_state": 0, "covariance": False, "rates": False}

    def run():
        leaf = circuit.weights.clone().requires_grad_(gradient)
        mean = simulate(circuit.with_checked({"weights": leaf}), drive, **settings).mean
        if gradient:
            torch.autograd.grad(mean.sum(), leaf)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out")
    args = parser.parse_args()
    results = {"machine": machine()}
    torch.set_num_threads(1)
    for dynamics in ("voltage", "rate"):
        for n_steps, repeats in ((13_500, 20), (100, 300)):
            (own,) = times([few_cells(dynamics, n_steps)], repeats)
            results[f"4 cells, {n_steps:,} steps, {dynamics} form, ms"] = own
    for n, gradient in product((100, 256), (False, True)):
        two, other = times([many_cells(n, gamma, gradient) for gamma in (2.0, 2.2)], 15)
        how = "with gradient" if gradient else "forwards"
        results[f"{n} cells, gamma 2.2 over 2, {how}"] = other / two
    torch.set_num_threads(2)
    model = circuits.holt_2023_sheet()
    radii = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.3, 1.6, 2.5]
    drive = model.drive(50.0, radii)
    (results["sheet, 12 sizes, ms"],) = times([lambda: steady_states(model.circuit, drive)], 5)
    for name, value in results.items():
        print(name, value)
    save(results, args.out)


if __name__ == "__main__":
    main()
