"""Differential equations with a learned right-hand side: evolution strategy and backpropagation.

    python benchmarks/neural_ode.py --out benchmarks/results/neural_ode.json

A spiral, in windows of ten points from every place on it, and Robertson's stiff reaction from its
start, as solved by a perceptron of 16 hidden cells, or of 64 ("wide", 200 steps in place of 500),
far more weights than the equations need. Both gradients are tried with the same explicit solver
(Runge-Kutta, order 4) and, for the stiff reaction, with the same linearly implicit one
(Rosenbrock-Euler, in logarithmic time). "Passes" are solutions forward; a step of backpropagation
has one, and goes back through it.
What is there already is not done again.
"""

from itertools import pairwise

import numpy as np
import torch
from machine import code
from resumable import parser, timed, work
from torch.func import functional_call, jacrev

from ssn_estimators import EvolutionStrategy
from ssn_estimators.datasets import make_robertson, make_spiral

N_SAMPLES, SIGMA, RATE = 500, 0.01, 1e-3
BASE = {"solver": "explicit", "n_steps": 1, "max_iter": 500}
SPIRAL = BASE | {"task": "spiral", "window": 10}
STIFF = BASE | {"task": "stiff", "n_steps": 4}
WIDE = {"n_hidden": 64, "max_iter": 200}
ROWS = {
    "spiral, explicit, es": SPIRAL | {"trainer": "es"},
    "spiral, explicit, bptt": SPIRAL | {"trainer": "bptt"},
    "stiff, explicit, es": STIFF | {"trainer": "es"},
    "stiff, explicit, bptt": STIFF | {"trainer": "bptt"},
    "stiff, explicit, bptt, clipped": STIFF | {"trainer": "bptt", "max_grad_norm": 1.0},
    "stiff, implicit, es": STIFF | {"solver": "implicit", "trainer": "es"},
    "stiff, implicit, bptt": STIFF | {"solver": "implicit", "trainer": "bptt"},
    "spiral, explicit, es, wide": SPIRAL | {"trainer": "es"} | WIDE,
    "spiral, explicit, bptt, wide": SPIRAL | {"trainer": "bptt"} | WIDE,
    "stiff, implicit, es, wide": STIFF | {"solver": "implicit", "trainer": "es"} | WIDE,
    "stiff, implicit, bptt, wide": STIFF | {"solver": "implicit", "trainer": "bptt"} | WIDE,
}


class Cubic(torch.nn.Module):
    """Slope of the spiral: a perceptron of the cubes of the state."""

    def __init__(self, data, n_hidden):
        super().__init__()
        self.layers = perceptron(data.y.shape[1], n_hidden)
        self.double()

    def forward(self, y):
        return self.layers(y**3)


class Relaxation(torch.nn.Module):
    """Slope of a reaction: each substance approaches, at a rate of its own, what a perceptron says.

    Rates start as the largest slopes in the data, in units of the largest values.
    """

    def __init__(self, data, n_hidden):
        super().__init__()
        largest = np.abs(data.y).max(0)
        slopes = [data.slope(t, y) for t, y in zip(data.t, data.y, strict=True)]
        self.layers = perceptron(len(largest), n_hidden)
        self.log_rate = torch.nn.Parameter(
            torch.from_numpy(np.log(np.abs(slopes).max(0) / largest))
        )
        self.register_buffer("scale", torch.from_numpy(largest))
        self.double()

    def forward(self, y):
        y = y / self.scale
        return self.scale * self.log_rate.exp() * (self.layers(y).sigmoid() - y)


def perceptron(n, n_hidden):
    return torch.nn.Sequential(
        torch.nn.Linear(n, n_hidden), torch.nn.Tanh(), torch.nn.Linear(n_hidden, n)
    )


def explicit(slope, y, dt):
    """A step of the classical Runge-Kutta method."""
    a = slope(y)
    b = slope(y + dt / 2 * a)
    c = slope(y + dt / 2 * b)
    d = slope(y + dt * c)
    return y + dt / 6 * (a + 2 * b + 2 * c + d)


def implicit(slope, y, dt):
    """A step of the linearly implicit Euler method."""
    system = torch.eye(len(y)).to(y) - dt * jacrev(slope)(y)
    return y + torch.linalg.solve_ex(system, dt * slope(y)).result


STEPS = {"explicit": explicit, "implicit": implicit}


def solve(model, parameters, start, times, step, n_steps):
    """States at all times but the first; `n_steps` steps, evenly spread, between any two."""

    def slope(y):
        return functional_call(model, parameters, (y,))

    y, states = start, []
    for before, after in pairwise(times):
        for k in range(n_steps):
            dt = between(before, after, k + 1, n_steps) - between(before, after, k, n_steps)
            y = step(slope, y, dt)
        states.append(y)
    return torch.stack(states)


def between(before, after, k, n):
    """Time after k of n steps; where times grow by a factor, steps grow with them."""
    if before > 0 and after / before > 1.1:
        return before * (after / before) ** (k / n)
    return before + (after - before) * k / n


def figures(row, seed):
    settings = ROWS[row]
    stiff = settings["task"] == "stiff"
    data = make_robertson() if stiff else make_spiral(100, duration=12.0)
    torch.manual_seed(seed)
    model = (Relaxation if stiff else Cubic)(data, settings.get("n_hidden", 16))
    y, times = torch.from_numpy(data.y), data.t.tolist()
    window = settings.get("window", len(y) - 1)
    windows = y.unfold(0, window + 1, 1).permute(2, 0, 1)  # (time, place, dimension)
    start, target = windows[0].squeeze(0), windows[1:].squeeze(1)
    times = times[: window + 1]  # the spiral's are even
    scale = torch.from_numpy(np.abs(data.y).max(0))
    step = STEPS[settings["solver"]]

    def error(parameters):
        y = solve(model, parameters, start, times, step, settings["n_steps"])
        return ((y - target) / scale).abs().mean()

    curve, passes, seconds = train(model, error, settings, seed)
    with torch.no_grad():
        last = float(error(dict(model.named_parameters())))
    finite = [x for x in curve if np.isfinite(x)]
    return {
        "row": row,
        "seed": seed,
        "settings": settings,
        "code": code(),
        "error before": number(curve[0]),
        "error": number(last),
        "least error": min(finite, default=None),
        "steps without a finite gradient": settings["max_iter"] - len(finite),
        "forward passes": passes,
        "seconds": seconds,
        "curve": [number(round(x, 5)) for x in curve[:: max(1, len(curve) // 100)]],
    }


def number(x):
    """As JSON has it, without NaN."""
    return x if np.isfinite(x) else None


def train(model, error, settings, seed):
    """Scaled absolute error of every step, trajectories solved, seconds."""
    n_iter, free = settings["max_iter"], dict(model.named_parameters())
    if settings["trainer"] == "es":
        search = EvolutionStrategy(
            model,
            n_samples=N_SAMPLES,
            sigma=SIGMA,
            optimizer="rmsprop",
            learning_rate_init=RATE,
            evaluation="vmap",
            random_state=seed,
        )

        def guarded():
            for _ in range(n_iter):
                try:
                    search.step(error)
                except FloatingPointError:
                    search.loss_curve_.append(float("nan"))

        _, seconds = timed(guarded)
        return search.loss_curve_, search.n_evaluations_, seconds
    optimizer = torch.optim.RMSprop(model.parameters(), lr=RATE)
    curve = []

    def descend():
        for _ in range(n_iter):
            optimizer.zero_grad()
            loss = error(free)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(
                model.parameters(), settings.get("max_grad_norm", float("inf"))
            )
            curve.append(loss.item() if torch.isfinite(norm) else float("nan"))
            if torch.isfinite(norm):
                optimizer.step()

    _, seconds = timed(descend)
    return curve, n_iter, seconds


def summary(results):
    lines = []
    for row in ROWS:
        own = [n for n in results["networks"] if n["row"] == row]
        if own:
            first, last = (
                np.median(np.array([n[k] for n in own], float)) for k in ("error before", "error")
            )
            lost = np.median([n["steps without a finite gradient"] for n in own])
            lines.append(
                f"{row:32} n={len(own)}  scaled error {first:.4f} -> {last:.4f}  "
                f"steps lost {lost:.0f}  passes {own[0]['forward passes']}  "
                f"{np.median([n['seconds'] for n in own]):.0f} s"
            )
    return "\n".join(lines)


def main():
    work(parser(__doc__, ROWS, seeds=3).parse_args(), figures, ROWS, summary)


if __name__ == "__main__":
    main()
