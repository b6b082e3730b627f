"""The GPU engine on a card: is it right, how fast is it, and what does training cost there?

    python benchmarks/gpu/measure.py --out benchmarks/results             # at most 8 minutes
    python benchmarks/gpu/measure.py --data FOLDER --out benchmarks/results   # training too
    python benchmarks/gpu/measure.py --device cpu --out /tmp/dry          # all steps, small,
                                                                          # interpreted

One command, no network. Every step is a process with its own time limit, writes a file of its
own, and fails alone:

gpu_card.json       the card, and what it does at best: copies, products, normal numbers
gpu_right.json      moments and gradients against float64 on the CPU, and the same bits twice
gpu_published.json  the published workload: engine, floor, torch loop, CUDA graph; 100 networks
gpu_tiles.json      time of every kernel under several tiles, warps and limits on registers
gpu_training.json   networks an hour by `fit_networks`, and MNIST 50:50 to .97 (needs --data, a
                    folder with mnist.npz, and scikit-learn)
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve()
PROJECT = HERE.parents[2]
LIMITS = {"card": 60, "right": 120, "published": 150, "tiles": 90, "training": 480}
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks"), str(PROJECT / "tests/simulation")]

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
parser.add_argument("--steps", nargs="*", choices=list(LIMITS), default=list(LIMITS))
parser.add_argument("--budget", type=float, default=470, help="seconds for all steps")
parser.add_argument("--data", type=Path, help="folder with mnist.npz")
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--only", choices=list(LIMITS), help=argparse.SUPPRESS)
args = parser.parse_args()
SMALL = args.device == "cpu"
if SMALL:
    os.environ["TRITON_INTERPRET"] = "1"

from machine import machine, save  # noqa: E402
from workload import DT, GAMMA, TAU_E, TAU_ETA, TAU_I, K, Workload  # noqa: E402


def in_turn():
    """All steps, one after the other, and what came of them."""
    start, outcomes = time.monotonic(), {}
    for step in args.steps:
        if step == "training" and args.data is None:
            outcomes[step] = "skipped: no --data"
            continue
        limit = min(LIMITS[step], args.budget - (time.monotonic() - start))
        if limit < 15:
            outcomes[step] = "skipped: no time left"
            continue
        command = [sys.executable, str(HERE), "--only", step, "--device", args.device]
        command += ["--out", str(args.out)] + (["--data", str(args.data)] if args.data else [])
        before = time.monotonic()
        try:
            done = subprocess.run(command, timeout=limit)
            outcomes[step] = "ok" if done.returncode == 0 else f"failed ({done.returncode})"
        except subprocess.TimeoutExpired:
            outcomes[step] = f"stopped after {limit:.0f} s"
        outcomes[step] += f", {time.monotonic() - before:.0f} s"
    print(json.dumps(outcomes, indent=1))


def keep(results):
    save({"machine": machine(), "card": card_name(), **results}, args.out / f"gpu_{args.only}.json")


def card_name():
    import torch

    return "interpreter" if SMALL else torch.cuda.get_device_name()


def sync():
    import torch

    if not SMALL:
        torch.cuda.synchronize()


def milliseconds(function, repeats=5):
    """Of every one of some runs after the first."""
    times = []
    for _ in range(repeats + 1):
        sync()
        start = time.perf_counter()
        function()
        sync()
        times.append(1e3 * (time.perf_counter() - start))
    return times[1:]


# --------------------------------------------------------------------------------- steps


def card():
    """What the card is, and does at best."""
    import torch

    n = 256 if SMALL else 8192
    found = {"torch": torch.__version__, "triton": importlib.metadata.version("triton")}
    if not SMALL:
        properties = torch.cuda.get_device_properties(0)
        found["capability"] = [properties.major, properties.minor]
        found["multiprocessors"] = properties.multi_processor_count
        found["shared_memory"] = properties.shared_memory_per_block_optin
        query = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv"]
        found["nvidia-smi"] = subprocess.run(command, capture_output=True, text=True).stdout
    x = torch.randn(n, n, device=args.device)
    copy = median(milliseconds(x.clone, 10))
    found["copy, GB/s"] = 2 * x.nbytes / copy / 1e6
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("float16", torch.float16, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        y = x.to(dtype)
        found[f"products in {name}, TFLOP/s"] = 2 * n**3 / median(milliseconds(lambda: y @ y)) / 1e9  # noqa: B023
    torch.backends.cuda.matmul.allow_tf32 = False
    normal = median(milliseconds(lambda: torch.randn_like(x), 10))
    found["normal numbers, 1e9/s"] = x.numel() / normal / 1e6
    keep(found)


# cells, inputs, trials, burn-in, window; changes of the setup; engine
CASES = {
    "euler": ((100, 16, 16, 200, 200), {}, "resident"),
    "euler, long window": ((100, 8, 16, 50, 500), {}, "resident"),
    "heun": ((100, 8, 16, 50, 60), {"solver": "heun"}, "resident"),
    "ab2, antithetic": ((100, 8, 16, 50, 60), {"solver": "ab2", "antithetic": True}, "resident"),
    "weak, shared": (
        (100, 8, 16, 50, 60),
        {"increments": "weak", "shared_noise": True},
        "resident",
    ),
    "gamma 2.5": ((100, 8, 16, 50, 60), {"gamma": 2.5, "k": 0.05}, "resident"),
    "63 cells, 3 networks": ((63, 8, 20, 50, 60), {"seeds": (7, 8, 9)}, "resident"),
    "128 cells": ((128, 8, 16, 50, 60), {}, "resident"),
    "100 cells, tiled": ((100, 8, 20, 50, 60), {}, "tiled"),
    "300 cells, tiled": ((300, 5, 15, 30, 30), {"solver": "heun"}, "tiled"),
    "1024 cells, tiled": ((1024, 4, 20, 10, 10), {}, "tiled"),
    "300 cells, library": ((300, 5, 15, 40, 70), {"solver": "ab2"}, "library"),
}


def right():
    """Errors of moments and gradients, and whether a second run gives the same bits."""
    import numpy as np
    import test_gpu
    import torch

    from ssn_estimators.simulation import gpu

    test_gpu.DEVICE = args.device
    results = {}
    for name, (shape, changes, engine) in list(CASES.items())[: 3 if SMALL else None]:
        n, n_inputs, n_trials, burn, window = (6, 2, 2, 2, 3) if SMALL else shape
        work = Workload(n, n_inputs * n_trials)
        weights, noise_factor, _, _ = work.arrays()
        drive = np.random.RandomState(1).uniform(2, 8, (n_inputs, n)).astype(np.float32)
        tau = tuple(np.where(np.arange(n) < work.n_excitatory, TAU_E, TAU_I))
        settings = {"dt": 0.2, "k": K, "gamma": float(GAMMA), "tau_eta": TAU_ETA, "seeds": (7,)}
        settings |= {"tau": tau, "n_trials": n_trials, "n_burn": burn, "n_window": window}
        setup = test_gpu.Setup(**settings | changes)
        inputs = [torch.tensor(x) for x in (weights, noise_factor, drive)]
        inputs = [x.expand(len(setup.seeds), *x.shape).contiguous() for x in inputs]
        for precision, tolerance in (("float32", 1e-4), ("tf32", 2e-2)):
            setup = replace(setup, precision=precision)
            exact = [x.double().requires_grad_() for x in inputs]
            *want, _ = test_gpu.reference_moments(*exact, setup)
            rng = np.random.RandomState(1)
            factors = [torch.tensor(rng.normal(size=x.shape)) / x.detach().norm() for x in want]
            loss = sum((f * x).sum() for f, x in zip(factors, want, strict=True))
            expected = [*want, *torch.autograd.grad(loss, exact)]
            runs = []
            for _ in range(2):
                ours = [x.to(args.device).requires_grad_() for x in inputs]
                *got, first, _, _ = gpu.moments(*ours, setup, engine=engine)
                loss = sum((f.to(x) * x).sum() for f, x in zip(factors, got, strict=True))
                runs.append([*got, *torch.autograd.grad(loss, ours)])
            errors = [
                ((x.detach().cpu().double() - y.detach()).norm() / y.detach().norm()).item()
                for x, y in zip(runs[0], expected, strict=True)
            ]
            names = ("mean", "covariance", "rates", "d weights", "d noise factor", "d drive")
            results[f"{name}, {precision}"] = {
                "ok": max(errors) < tolerance and bool((first == -1).all()),
                "same again": all(torch.equal(x, y) for x, y in zip(*runs, strict=True)),
                **dict(zip(names, errors, strict=True)),
            }
            print(name, precision, f"{max(errors):.1e}", flush=True)
            keep({"cases": results})


PUBLISHED = Workload(20, 100, 20, 10) if SMALL else Workload(100, 10_000, 2000, 500)
MANY = replace(PUBLISHED, columns=PUBLISHED.columns // 100 or 1, n_networks=4 if SMALL else 100)
TF32 = {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
MEASURED = [  # name, variant of engine.py, mode, workload, environment; the most wanted first
    ("engine, tf32", "engine, tf32", "gradient", PUBLISHED, {}),
    ("engine", "engine", "gradient", PUBLISHED, {}),
    ("100 networks", "engine, networks in one call", "gradient", MANY, {}),
    ("floor, tf32", "floor", "gradient", PUBLISHED, TF32),
    ("cuda graph, tf32", "cuda graph", "gradient", PUBLISHED, TF32),
    ("torch loop, tf32", "torch loop", "gradient", PUBLISHED, TF32),
    ("floor", "floor", "gradient", PUBLISHED, {}),
    ("engine, tf32", "engine, tf32", "forward", PUBLISHED, {}),
    ("engine", "engine", "forward", PUBLISHED, {}),
    ("cuda graph", "cuda graph", "gradient", PUBLISHED, {}),
    ("torch loop", "torch loop", "gradient", PUBLISHED, {}),
]


def published():
    """By engine.py, in processes of their own."""
    results = {"workload": asdict(PUBLISHED), "cases": {}}
    for name, variant, mode, workload, environment in MEASURED[1:3] if SMALL else MEASURED:
        case = {
            "workload": asdict(workload),
            "variant": variant,
            "mode": mode,
            "device": args.device,
            "threads": os.cpu_count(),
            "repeats": 5,
            "memory_limit": 40.0,
        }
        command = [sys.executable, str(PROJECT / "benchmarks/engine.py"), "--case"]
        try:
            done = subprocess.run(
                [*command, json.dumps(case)],
                env=os.environ | environment | {"PYTHONPATH": str(PROJECT)},
                capture_output=True,
                text=True,
                timeout=45,
            )
            lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
            outcome = {"failed": lines[-1]} if done.returncode else json.loads(lines[-1])
        except subprocess.TimeoutExpired:
            outcome = {"failed": "longer than 45 s"}
        if "seconds" in outcome:
            outcome["ms"] = 1e3 * median(outcome["seconds"])
        results["cases"].setdefault(name, {})[mode] = outcome
        print(name, mode, outcome.get("ms", outcome), flush=True)
        keep(results)


def tiles():
    """Milliseconds of every kernel, and what the compiler made of it, under other settings."""
    import numpy as np
    import torch

    from ssn_estimators.simulation import gpu
    from ssn_estimators.simulation.gpu import cards, engine, kernels, programs
    from ssn_estimators.simulation.setup import Setup

    burn, window = (3, 2) if SMALL else (2000, 500)
    work = Workload(8, 16) if SMALL else Workload(100, 10_000)
    *arrays, readout = (torch.tensor(x, device=args.device)[None] for x in work.arrays())
    leaves = [x.requires_grad_() for x in arrays]
    events, plain = [], {name: getattr(kernels, name) for name in ("forward", "adjoint", "outer")}

    class Timed:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, grid):
            def launch(*arguments, **options):
                marks = [] if SMALL else [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                if marks:
                    marks[0].record()
                compiled = plain[self.name][grid](*arguments, **options)
                if marks:
                    marks[1].record()
                stretch = " window" if options.get("MEAN") else " burn-in"
                label = self.name + (stretch if self.name == "forward" else "")
                events.append((label, marks, compiled))

            return launch

    programs.Resident.step, programs.Resident.step_back = Timed("forward"), Timed("adjoint")
    kernels.outer = Timed("outer")
    tau = np.where(np.arange(work.n_neurons) < work.n_excitatory, TAU_E, TAU_I)
    results = {}
    for precision in ("tf32", "float32"):
        setup = Setup(
            n_trials=work.n_trials,
            n_burn=burn,
            n_window=window,
            dt=DT,
            solver="euler",
            tau=tau,
            tau_eta=TAU_ETA,
            k=K,
            gamma=float(GAMMA),
            seeds=(1,),
            covariance=False,
            rates=False,
            precision=precision,
        )
        usual = cards.choose(work.n_neurons, setup, args.device, "resident")
        Tile = cards.Tile
        others = [
            Tile(columns, warps=warps, registers=registers, stages=stages)
            for columns, warps, registers, stages in (
                (16, 8, None, None),
                (16, 8, 80, None),
                (16, 4, None, None),
                (32, 8, None, None),
                (32, 8, 128, None),
                (64, 8, None, None),
                (16, 8, None, 1),
                (32, 8, None, 1),
                (32, 8, None, 2),
            )
        ]
        for tile in [None, *others][: 2 if SMALL else None]:
            choice = usual if tile is None else cards.Choice("resident", tile, tile, tile)
            engine.choose = lambda *_, choice=choice: choice
            totals, parts, made = [], {}, {}
            try:
                for repeat in range(1 if SMALL else 5):
                    events.clear()
                    sync()
                    start = time.perf_counter()
                    mean, *_ = gpu.moments(*leaves, setup, engine="resident")
                    torch.autograd.grad((mean * readout).sum(), leaves)
                    sync()
                    if repeat == 0 and not SMALL:
                        continue  # compiles
                    totals.append(1e3 * (time.perf_counter() - start))
                    for label, marks, compiled in events:
                        elapsed = 0.0 if SMALL else marks[0].elapsed_time(marks[1])
                        parts.setdefault(label, []).append(elapsed)
                        made[label] = {
                            "registers": getattr(compiled, "n_regs", None),
                            "spills": getattr(compiled, "n_spills", None),
                        }
                outcome = {"ms": {x: median(v) for x, v in parts.items()} | {"all": median(totals)}}
                outcome["made"] = made
            except Exception as error:
                outcome = {"failed": repr(error)[:300]}
            label = "as it is" if tile is None else str(tile._asdict())
            results[f"{precision}, {label}"] = outcome
            print(precision, label, outcome.get("ms", outcome), flush=True)
            keep({"settings": results})


def training():
    """Networks an hour, side by side, and one to .97 of MNIST's test images."""
    import numpy as np
    from images import mnist
    from sklearn.decomposition import PCA

    from ssn_estimators import SSNClassifier, fit_networks

    X, y = mnist(args.data, "train")
    X_test, y_test = mnist(args.data, "test")
    encoder = PCA(50, random_state=0).fit(X)
    X, X_test = (encoder.transform(x).astype(np.float32) for x in (X, X_test))
    if SMALL:
        X, y, X_test, y_test = X[:500], y[:500], X_test[:200], y_test[:200]
    network = SSNClassifier(
        5 if SMALL else 50,
        5 if SMALL else 50,
        growth_iter=5 if SMALL else 40,
        max_iter=10 if SMALL else 1000,
        dt=2.0,
        device=args.device,
        random_state=0,
    )
    start = time.perf_counter()
    network.fit(X, y)
    seconds = time.perf_counter() - start
    results = {
        "steps": network.n_iter_,
        "seconds": seconds,
        "test_accuracy": network.score(X_test, y_test),
        "stability": network.stability_,
    }
    keep({"one network": results})
    print(results, flush=True)
    n_networks = 2 if SMALL else 20
    start = time.perf_counter()
    networks = fit_networks(network, X, y, n_networks, random_state=0)
    seconds = time.perf_counter() - start
    many = {
        "networks": n_networks,
        "seconds": seconds,
        "networks_an_hour": 3600 * n_networks / seconds,
        "test_accuracies": [x.score(X_test, y_test) for x in networks],
    }
    keep({"one network": results, "many": many})
    print(many, flush=True)


if __name__ == "__main__":
    if args.only:
        globals()[args.only]()
    else:
        in_turn()
