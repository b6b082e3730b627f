r"""Speed, memory and accuracy of `simulate` against other ways to do the same work.

    python benchmarks/engine.py --out benchmarks/results/engine.json
    python benchmarks/engine.py --published --out benchmarks/results/engine_published.json
    python benchmarks/engine.py --networks 100 --sizes 100 --columns 100 --steps 200 100 \
        --out benchmarks/results/engine_networks.json
    python benchmarks/engine.py --scaling --out benchmarks/results/engine_scaling.json

Each variant runs in a process of its own, forwards only and with the gradient. Variants take turns
in rounds, so that a machine that slows down does so for all of them: times are medians over rounds,
and ratios medians of the ratios within a round. The file is rewritten after every process; with
--resume cells that it holds whole are not measured again, whatever version measured them, which
every cell names.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import median

from machine import code, machine, n_cores, save
from workload import Workload

MODES = ("forward", "gradient")
PUBLISHED = Workload(100, 10_000, 2000, 500)
ALWAYS = (
    "engine",
    "engine, weak increments",
    "torch loop",
    "torch loop, column blocks",
    "torch.compile",
)
JAX = ("jax scan", "jax scan, noise given")
GPU = ("engine, tf32", "cuda graph")
MANY = "engine, networks in one call"
FEWEST = 4  # steps of a shortened window

# ----------------------------------------------------------------------- in the subprocess


def run_case(case):
    """Measure one variant in one mode, or check its gradient; a dict of the outcome."""
    import resource

    if hasattr(os, "sched_setaffinity"):  # XLA has no other way to use fewer threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case["threads"]])

    def peak():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    import torch
    import variants

    name, device = case["variant"], case["device"]
    torch.set_num_threads(case["threads"])
    torch.manual_seed(0)
    workload = Workload(**case["workload"])
    if name == "floor":
        seconds, details = variants.floor_seconds(workload, case["mode"], device)
        return {"seconds": [seconds], "products": details}
    if name in JAX:
        try:
            import jax  # noqa: F401 (its memory counts as that of a library)
        except ImportError:
            pass
    imported = peak()
    kind = variants.VARIANTS[name]
    try:
        variant = kind(workload, case["mode"], device, case["memory_limit"] * 1e9)
        if case.get("check"):
            return {"gradient_error": variants.gradient_error(variant)}
        start = time.perf_counter()
        variant.prepare()
        variant.sync()
        prepared = time.perf_counter() - start
    except variants.Unavailable as reason:
        return {"skipped": str(reason)}

    seconds = []
    # the first run warms up; short ones are repeated for longer
    while len(seconds) <= case["repeats"] or (sum(seconds[1:]) < 1 and len(seconds) < 20):
        start = time.perf_counter()
        output = variant.run()
        if name in JAX:
            variant.jax.block_until_ready(output)
        variant.sync()
        seconds.append(time.perf_counter() - start)
    if device == "cuda":
        peak_bytes, imported = peak_on_gpu(name, torch), 0
    else:
        peak_bytes = peak()
    return {
        "seconds": seconds[1:],
        "prepare_seconds": prepared,
        "peak_mb": peak_bytes / 1e6,
        "added_mb": (peak_bytes - imported) / 1e6,
        "column_chunks": variant.n_chunks,
    }


def peak_on_gpu(name, torch):
    if name not in JAX:
        return torch.cuda.max_memory_allocated()
    import jax

    return jax.devices()[0].memory_stats()["peak_bytes_in_use"]


# --------------------------------------------------------------------------- in the parent
# It imports neither torch nor jax: the peak memory of a child starts from its parent's.


def start_case(case):
    """Run a case in a fresh process."""
    root = Path(__file__).resolve().parent
    environment = os.environ | {
        "OMP_NUM_THREADS": str(case["threads"]),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_PLATFORMS": "cuda" if case["device"] == "cuda" else "cpu",
        # this checkout's package, unless the caller asks for another one
        "PYTHONPATH": os.environ.get("PYTHONPATH", str(root.parent)),
    }
    command = [sys.executable, str(root / "engine.py"), "--case", json.dumps(case)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        return {"failed": lines[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def shortened(workload, max_gflop):
    """The workload with fewer steps if it is too large, and the factor to multiply times by."""
    if workload.gflop <= max_gflop:
        return workload, 1.0
    window = max(FEWEST, int(workload.window * max_gflop / workload.gflop))
    window = min(window, workload.window)
    fewer = replace(workload, burn=round(workload.burn * window / workload.window), window=window)
    return fewer, (workload.burn + workload.window) / (fewer.burn + fewer.window)


def measure(workload, name, mode, args):
    """Median time and memory of one variant in one mode, in one process."""
    fewer, factor = shortened(workload, args.max_gflop)
    case = {
        "workload": asdict(fewer),
        "variant": name,
        "mode": mode,
        "device": args.device,
        "threads": args.threads,
        "repeats": args.repeats,
        "memory_limit": args.memory_limit,
    }
    outcome = start_case(case)
    if "seconds" in outcome:
        seconds = [factor * s for s in outcome.pop("seconds")]
        outcome["median"], outcome["n_runs"] = median(seconds), len(seconds)
        if factor != 1:
            outcome["extrapolated_from_steps"] = [fewer.burn, fewer.window]
    return outcome


def check(name, args):
    """Error of a variant's gradients in a small case."""
    small = Workload(40, 100, burn=60, window=40, solver=args.solver)
    case = {
        "workload": asdict(small),
        "variant": name,
        "mode": "gradient",
        "device": args.device,
        "threads": args.threads,
        "memory_limit": args.memory_limit,
        "check": True,
    }
    return start_case(case)


def ratios(cell):
    """Add the ratios to the engine, and the engine's to the floor: medians over rounds."""

    def over(times, others):
        return median(a / b for a, b in zip(times, others, strict=False))

    for mode in MODES:
        rounds = {
            name: outcomes[mode]["rounds"]
            for name, outcomes in cell["variants"].items()
            if outcomes.get(mode, {}).get("rounds")
        }
        engine = rounds.get("engine")
        for name, times in rounds.items():
            if engine:
                cell["variants"][name][mode]["over_engine"] = over(times, engine)
        if engine and "floor" in rounds:
            cell["variants"]["engine"][mode]["over_floor"] = over(engine, rounds["floor"])


def print_cell(cell, errors):
    w = Workload(**cell["workload"])
    networks = f"{w.n_networks} networks of " if w.n_networks > 1 else ""
    print(
        f"\n{networks}{w.n_neurons} cells, {w.n_inputs} inputs x {w.n_trials} trials, "
        f"{w.burn} + {w.window} steps, {w.solver}"
    )
    head = ("forward", "/engine", "+gradient", "/engine", "added MB", "prepare", "grad. error")
    print(f"{'':30s}" + "".join(f"{h:>12s}" for h in head))
    for name, outcomes in cell["variants"].items():
        texts, note = [], ""
        for mode in MODES:
            outcome = outcomes.get(mode, {})
            note = outcome.get("skipped") or outcome.get("failed") or note
            mark = "~" if "extrapolated_from_steps" in outcome else ""
            texts.append(f"{mark}{outcome['median']:.4g} s" if "median" in outcome else "")
            texts.append(f"{outcome['over_engine']:.2f}" if "over_engine" in outcome else "")
        gradient = outcomes.get("gradient", {})
        texts.append(f"{gradient['added_mb']:.0f}" if "added_mb" in gradient else "")
        texts.append(
            f"{gradient['prepare_seconds']:.1f} s" if "prepare_seconds" in gradient else ""
        )
        error = errors.get(name, {}).get("gradient_error")
        texts.append(f"{error:.1e}" if error is not None else "")
        print(f"{name:30s}" + "".join(f"{t:>12s}" for t in texts) + (f"  ({note})" if note else ""))
    over = [cell["variants"].get("engine", {}).get(mode, {}).get("over_floor") for mode in MODES]
    if all(over):
        print(f"engine / floor: forward {over[0]:.2f}, with gradient {over[1]:.2f}")
    if any("extrapolated_from_steps" in o for v in cell["variants"].values() for o in v.values()):
        print("~ extrapolated from fewer steps (memory is that of the fewer steps)")


def run_cells(workloads, names, results, args):
    """Measure all variants of all workloads, saving as it goes."""
    for name in names:
        if name not in ("floor", MANY) and name not in results["gradient_check"]:
            results["gradient_check"][name] = check(name, args)
            save(results, args.out)
    for workload in workloads:
        cell = next((c for c in results["cells"] if c["workload"] == asdict(workload)), None)
        if cell is None or not (cell["whole"] or cell["code"] == code()):
            results["cells"] = [c for c in results["cells"] if c is not cell]
            cell = {"workload": asdict(workload), "gflop": workload.gflop, "code": code()}
            cell |= {"whole": False, "variants": {}}
            results["cells"].append(cell)
        if not cell["whole"]:
            measure_in_rounds(cell, workload, names, results, args)
            cell["whole"] = True
            save(results, args.out)
        print_cell(cell, results["gradient_check"])


def measure_in_rounds(cell, workload, names, results, args):
    for round_, name, mode in product(range(args.rounds), names, MODES):
        outcome = cell["variants"].setdefault(name, {}).setdefault(mode, {"rounds": []})
        if "skipped" in outcome or "failed" in outcome or len(outcome["rounds"]) > round_:
            continue
        outcome |= measure(workload, name, mode, args)
        if "median" in outcome:
            outcome["rounds"].append(outcome["median"])
            outcome["median"] = median(outcome["rounds"])
        ratios(cell)
        save(results, args.out)


def scaling(results, args):
    """Time against each of steps, columns and cells, the others fixed, over the expected power.

    The rounds go over all cases, so that a machine that slows down does so for every one.
    Prints the median time over what a cost proportional to steps, columns and the square of
    the number of cells predicts from the largest case of each axis.
    """
    base = Workload(100, 1000, *args.steps, args.solver)
    wide = replace(base, n_neurons=256)
    factors = (0.25, 0.5, 1, 2, 4)
    axes = {
        "steps": [
            replace(base, burn=int(base.burn * f), window=int(base.window * f)) for f in factors
        ],
        "columns": [replace(base, columns=int(base.columns * f)) for f in factors],
        "cells (squared)": [replace(wide, n_neurons=256 * f) for f in (1, 2, 4)],
    }
    names = args.variants or ["engine"]
    once = argparse.Namespace(**(vars(args) | {"max_gflop": float("inf"), "repeats": 1}))
    cases = {
        f"{w.n_neurons} cells, {w.columns} columns, {w.burn} + {w.window} steps, {m}, {n}": (
            w,
            n,
            m,
        )
        for workloads in axes.values()
        for w in workloads
        for m in MODES
        for n in names
    }
    seconds = results["scaling"]
    for round_ in range(args.rounds):
        for label, case in cases.items():
            times = seconds.setdefault(label, [])
            if len(times) <= round_:
                times.append(measure(*case, once)["median"])
                save(results, args.out)

    label_of = {case: label for label, case in cases.items()}
    for axis, workloads in axes.items():
        power = 2 if axis.startswith("cells") else 1
        size = [w.n_neurons if power == 2 else w.columns * w.burn for w in workloads]
        for mode in MODES:
            for name in names:
                times = [median(seconds[label_of[w, name, mode]]) for w in workloads]
                over = [
                    t / times[-1] * (size[-1] / s) ** power
                    for t, s in zip(times, size, strict=True)
                ]
                results["over_prediction"][f"{axis}, {mode}, {name}"] = over
                print(f"{axis:16s} {mode:9s} {name:12s}" + "".join(f"{x:8.2f}" for x in over))
    save(results, args.out)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[40, 100, 256, 1024])
    parser.add_argument("--columns", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument(
        "--steps", type=int, nargs=2, default=[400, 100], metavar=("BURN", "WINDOW")
    )
    parser.add_argument("--solver", choices=["euler", "heun", "ab2"], default="euler")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each variant, in turns")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, after one to warm up")
    parser.add_argument(
        "--published", action="store_true", help="100 cells, 100 x 100 columns, 2000 + 500 steps"
    )
    parser.add_argument(
        "--networks", type=int, metavar="M", help="M networks against one with all their columns"
    )
    parser.add_argument(
        "--scaling", action="store_true", help="is the cost linear where it should be?"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument(
        "--memory-limit",
        type=float,
        default=16.0,
        metavar="GB",
        help="above it, the loops and the scan take the trials in chunks",
    )
    parser.add_argument(
        "--max-gflop",
        type=float,
        default=300.0,
        help="a grid cell with larger matrix products has fewer steps, and is marked",
    )
    parser.add_argument("--variants", nargs="+", help="only these")
    parser.add_argument("--out", type=Path, help="result file (JSON)")
    parser.add_argument("--resume", action="store_true", help="keep what the result file holds")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = arguments()
    if args.case is not None:
        print(json.dumps(run_case(args.case)))
        return
    unsaved = ("out", "case", "resume", "sizes", "columns")  # cells name their workloads
    settings = {k: v for k, v in vars(args).items() if k not in unsaved}
    results = {"machine": machine(), "settings": settings, "gradient_check": {}}
    results |= {"scaling": {}, "over_prediction": {}} if args.scaling else {"cells": []}
    if args.resume and args.out is not None and args.out.exists():
        before = json.loads(args.out.read_text())
        if before["settings"] != settings:
            raise SystemExit(f"{args.out} was made with other settings.")
        results = before | {"machine": results["machine"]}
    print(json.dumps(results["machine"]))

    names = [*ALWAYS, *(GPU if args.device == "cuda" else ()), *JAX, "floor"]
    if args.scaling:
        scaling(results, args)
        return
    if args.published:
        args.max_gflop = float("inf")
        workloads = [replace(PUBLISHED, solver=args.solver)]
    elif args.networks:
        n, columns, m = args.sizes[0], args.columns[0], args.networks
        one = Workload(n, m * columns, *args.steps, args.solver)
        workloads = [one, replace(one, columns=columns, n_networks=m)]
        names.insert(1, MANY)
    else:
        workloads = [
            Workload(n, c, *args.steps, args.solver) for n in args.sizes for c in args.columns
        ]
    run_cells(workloads, args.variants or names, results, args)
    if args.networks and len(results["cells"]) == 2:
        one, many = (cell["variants"] for cell in results["cells"])
        print(f"\n{args.networks} networks over one with as many columns:")
        for name in many:
            pair = [[v.get(name, {}).get(m, {}).get("median") for v in (many, one)] for m in MODES]
            if all(map(all, pair)):
                texts = (f"{mode} {x / y:.2f}" for mode, (x, y) in zip(MODES, pair, strict=True))
                print(f"{name:30s}" + ", ".join(texts))


if __name__ == "__main__":
    main()
