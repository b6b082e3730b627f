"""Many networks, one after the other or side by side, that an interruption does not lose."""

import argparse
import json
import time
from pathlib import Path

import joblib
from machine import code, machine, package, save


def timed(function):
    """Its result, and the seconds it took."""
    start = time.perf_counter()
    result = function()
    return result, round(time.perf_counter() - start, 1)


def dump(value, path):
    """Write with joblib at once: an interruption leaves no half of a file."""
    unfinished = path.with_suffix(".part")
    joblib.dump(value, unfinished)
    unfinished.replace(path)


def open_results(path, **empty):
    """What a result file holds, or an empty one, under this machine."""
    results = {"networks": []} | empty
    if path is not None and path.exists():
        results |= json.loads(path.read_text())
    return results | {"machine": machine()}


def run(figures, tasks, results, settings, args):
    """Do the tasks that the results lack, and write every outcome when it is there.

    Parameters
    ----------
    figures : callable
        From row and seed to a dict with "row", "seed", "settings" and what was measured.
    tasks : list of (str, int)
        Rows and seeds, in the order of work.
    results : dict
        As of `open_results`; those of other settings are dropped.
    settings : dict
        Settings of every row, in the order of the file.
    args : Namespace
        With `jobs`, the tasks at once, `out`, the result file or None, and `keep`, whether to
        keep networks of other sources of the package than those that are here.
    """
    path, sources = args.out, {"code": code(), "package": package()}
    settings = json.loads(json.dumps(settings))  # as they come back from the file
    kept = [n for n in results["networks"] if n["settings"] == settings[n["row"]]]
    other = [n for n in kept if n.get("package") != sources["package"]]
    if other and not args.keep:
        raise SystemExit(
            f"{path} has {len(other)} networks of other sources of the package (commits "
            f"{sorted({str(n.get('code')) for n in other})}). Write to another file, or keep them "
            "with --keep: every network names its commit."
        )
    done = {(n["row"], n["seed"]) for n in kept}
    results["networks"] = kept
    parallel = joblib.Parallel(args.jobs, return_as="generator_unordered")
    for network in parallel(joblib.delayed(figures)(*task) for task in tasks if task not in done):
        print(json.dumps(network), flush=True)
        kept.append(network | sources)
        save(results, path)
    kept.sort(key=lambda n: (list(settings).index(n["row"]), n["seed"]))
    save(results, path)


def parser(doc, rows, *, seeds=5, jobs=2):
    """Command line of a benchmark whose rows are done with so many seeds."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--out", type=Path, help="result file (JSON)")
    made.add_argument("--rows", nargs="+", choices=list(rows), default=list(rows), metavar="ROW")
    made.add_argument("--seeds", type=int, default=seeds)
    made.add_argument("--jobs", type=int, default=jobs, help="tasks at once")
    add_keep(made)
    return made


def add_keep(parser):
    parser.add_argument("--keep", action="store_true", help="networks of other sources, too")


def work(args, figures, settings, summary):
    """Do what a command line of `parser` asks for, and print the summary."""
    results = open_results(args.out)
    tasks = [(row, seed) for seed in range(args.seeds) for row in args.rows]
    run(figures, tasks, results, settings, args)
    print(json.dumps(results["machine"]))
    print(summary(results))
