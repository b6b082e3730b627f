"""Which scheme and which time step are the most accurate for their cost?

    python benchmarks/schemes.py --out benchmarks/results/schemes.json

Two networks, the ring of Echeveste et al. (2020) on the five stimuli of its benchmark and a
circuit trained on scikit-learn's digits, are simulated by every scheme at every step. Errors of
mean, variance and covariance are root mean squares over inputs and cells, relative to the root
mean square of the converged values, those of Heun's scheme at a far smaller step. The picture
stands beside the result file. A run that was interrupted goes on where it stopped.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import matplotlib
import numpy as np
import torch
from machine import machine, n_cores, save
from matplotlib.ticker import LogLocator, NullFormatter
from sklearn.datasets import load_digits

from ssn_estimators import SSNClassifier, simulate
from ssn_estimators.datasets import make_ring_gsm, make_ring_network

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SCHEMES = {"euler": 1, "heun": 2, "ab2": 1}  # evaluations of the right-hand side in a step
NAMES = {"euler": "Euler", "heun": "Heun", "ab2": "Adams-Bashforth 2"}
STEPS = (0.1, 0.2, 0.5, 1.0, 2.0)  # ms
STATISTICS = ("mean", "variance", "covariance")
TIMED = 100.0  # ms


def ring():
    """The published ring network and its stimuli."""
    circuit = make_ring_network()
    drive = circuit.drive(make_ring_gsm().h)
    return replace(circuit, weights=circuit.weights.astype(np.float32)), drive


def digits():
    """A circuit of 20 E + 5 I cells that reads digits, and one input of each class."""
    X, y = load_digits(return_X_y=True)
    ssn = SSNClassifier(20, max_iter=300, random_state=0).fit(X[:1500], y[:1500])
    print(f"digits: accuracy {ssn.score(X[1500:], y[1500:]):.3f} on samples not trained on")
    inputs = [1500 + np.flatnonzero(y[1500:] == label)[0] for label in range(10)]
    return ssn.circuit_, ssn.drive(X[inputs])


def moments(circuit, drive, solver, dt, seed, args):
    """Mean, variance and covariance of one group of trials; None if some diverged."""
    outcome = simulate(
        circuit,
        drive,
        n_trials=args.trials,
        duration=args.duration,
        burn_in=args.burn_in,
        dt=dt,
        solver=solver,
        random_state=seed,
        rates=False,
    )
    if outcome.diverged.any():
        return None
    variance = np.diagonal(outcome.covariance, axis1=1, axis2=2)
    return dict(zip(STATISTICS, (outcome.mean, variance, outcome.covariance), strict=True))


def groups(circuit, drive, solver, dt, first_seed, args):
    """Moments of independent groups of trials, stacked; None if some trial diverged."""
    found = []
    for k in range(args.groups):
        found.append(moments(circuit, drive, solver, dt, first_seed + k, args))
        if found[-1] is None:
            return None
    return {name: np.stack([each[name] for each in found]) for name in STATISTICS}


def relative_error(found, converged):
    """Squared relative error, free of the bias that sampling adds to a square.

    The groups' differences from those of the converged run are independent, so products of
    two different ones estimate the squared difference of the expected values.

    Returns
    -------
    squared, standard_error, floor : float
        The estimate (which can be negative), its standard error by the jackknife, and the
        standard deviation it would have if there were no error.
    """
    n = len(found)
    scale = (converged.mean(0).astype(float) ** 2).mean()
    difference = (found.astype(float) - converged).reshape(n, -1)
    gram = difference @ difference.T / difference.shape[1] / scale

    def off_diagonal(gram):
        return gram[~np.eye(len(gram), dtype=bool)]

    left_out = [off_diagonal(np.delete(np.delete(gram, i, 0), i, 1)).mean() for i in range(n)]
    centre = np.eye(n) - 1 / n
    return (
        off_diagonal(gram).mean(),
        np.sqrt((n - 1) * np.var(left_out)),
        off_diagonal(centre @ gram @ centre).std() * np.sqrt(2 / (n * (n - 1))),
    )


def seconds_per_second(circuit, drive, solver, dt, args):
    """Time to simulate a second of all trials of a group, without their covariance."""
    seconds = []
    for _ in range(1 + args.repeats):
        start = time.perf_counter()
        simulate(
            circuit,
            drive,
            n_trials=args.trials,
            duration=TIMED,
            burn_in=0.0,
            dt=dt,
            solver=solver,
            random_state=0,
            covariance=False,
            rates=False,
        )
        seconds.append((time.perf_counter() - start) * 1000 / TIMED)
    return median(seconds[1:])


def converged_moments(name, circuit, drive, args):
    """Of the reference run, kept beside the result file."""
    path = args.out.with_name(f"{args.out.stem}_{name}.npz")
    if path.exists():
        with np.load(path) as kept:
            return dict(kept)
    found = groups(circuit, drive, "heun", args.reference_step, 10_000, args)
    np.savez(path, **found)
    return found


def plot(results, path):
    colours = {"euler": "#d1495b", "heun": "#1f6f8b", "ab2": "#e0a030"}
    markers = {"euler": "o", "heun": "s", "ab2": "D"}
    networks = results["networks"]
    figure, axes = plt.subplots(
        len(networks),
        3,
        figsize=(11.5, 3.6 * len(networks)),
        sharex="row",
        squeeze=False,
    )
    figure.subplots_adjust(0.07, 0.15, 0.98, 0.9, wspace=0.25, hspace=0.3)
    for row, (title, network) in zip(axes, networks.items(), strict=True):
        finite = [run for run in network["runs"] if "errors" in run]
        for ax, statistic in zip(row, STATISTICS, strict=True):
            errors = [run["errors"][statistic] for run in finite]
            # twice the standard deviation that the estimate has without any error
            floor = np.sqrt(2 * np.median([error["floor"] for error in errors]))
            highest = floor
            for solver, colour in colours.items():
                points = []
                for run in finite:
                    if run["solver"] != solver:
                        continue
                    error = run["errors"][statistic]
                    above = error["squared"] > floor**2
                    y = np.sqrt(error["squared"]) if above else floor
                    points.append((run["seconds_per_second"], y, above, run["dt"]))
                points.sort(key=lambda point: -point[3])
                if not points:
                    continue
                x, y, above, steps = map(np.array, zip(*points, strict=True))
                highest = max(highest, y.max())
                # the curve ends with the first point that sampling hides
                end = len(x) if above.all() else np.argmin(above) + 1
                ax.plot(x[:end], y[:end], "-", color=colour, lw=1.5, zorder=2)
                style = {"marker": markers[solver], "ls": "", "ms": 6, "mec": colour, "zorder": 3}
                ax.plot(x[above], y[above], color=colour, label=NAMES[solver], **style)
                ax.plot(x[~above], y[~above], mfc="white", **style, clip_on=False)
                for i in range(len(x)):
                    if i < end:
                        ax.annotate(
                            f"{steps[i]:g}",
                            (x[i], y[i]),
                            xytext=(5, 4),
                            textcoords="offset points",
                            fontsize=8,
                            color=colour,
                        )
            ax.axhline(floor, color="0.45", ls="--", lw=1, zorder=1)
            ax.axhspan(floor / 10, floor, color="0.92", zorder=0)
            ax.set(xscale="log", yscale="log", ylim=(floor / 1.6, 2 * highest))
            ax.set_title(f"{title}: {statistic}", fontsize=10)
            ax.grid(True, which="major", color="0.9", lw=0.6, zorder=0)
            ax.spines[["top", "right"]].set_visible(False)
            for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
                few = high / low < 100  # then a label for every decade is too little
                axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel("relative error (rms)")
        lost = [
            f"{NAMES[run['solver']]} {run['dt']:g} ms"
            for run in network["runs"]
            if "errors" not in run
        ]
        if lost:
            row[0].annotate(
                "diverges: " + ", ".join(lost),
                (0.98, 0.98),
                xycoords="axes fraction",
                ha="right",
                va="top",
                fontsize=8,
            )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], marker="o", mfc="white", mec="0.3", ls=""))
    labels.append("too small to tell from sampling error (grey)")
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.supxlabel("seconds of computing per simulated second", fontsize=10, y=0.06)
    figure.suptitle("Error against cost; numbers are time steps in ms", fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=60, help="of every input in a group")
    parser.add_argument("--groups", type=int, default=10, help="independent groups of trials")
    parser.add_argument("--duration", type=float, default=500.0, help="ms, after burn-in")
    parser.add_argument("--burn-in", type=float, default=200.0, help="ms")
    parser.add_argument("--reference-step", type=float, default=0.05, help="ms, of Heun's scheme")
    parser.add_argument("--repeats", type=int, default=3, help="of the timing")
    parser.add_argument("--threads", type=int, default=n_cores())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/schemes.json")
    parser.add_argument("--plot-only", action="store_true", help="draw the results again")
    args = parser.parse_args()
    picture = args.out.with_suffix(".png")
    if args.plot_only:
        plot(json.loads(args.out.read_text()), picture)
        return
    torch.set_num_threads(args.threads)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "plot_only")}
    results = {"machine": machine(), "settings": settings, "networks": {}}
    before = json.loads(args.out.read_text()) if args.out.exists() else None
    same = before and before["settings"] == settings
    if same and before["machine"]["code"] == results["machine"]["code"]:
        results = before
    else:
        for old in args.out.parent.glob(f"{args.out.stem}_*.npz"):
            old.unlink()

    for title, make in {"ring": ring, "digits": digits}.items():
        network = results["networks"].setdefault(title, {"runs": []})
        done = {(run["solver"], run["dt"]) for run in network["runs"]}
        if len(done) == len(SCHEMES) * len(STEPS):
            continue
        circuit, drive = make()
        network["columns"] = len(drive) * args.trials
        network["n_neurons"] = circuit.n_neurons
        converged = converged_moments(title, circuit, drive, args)
        for dt in STEPS[::-1]:
            for solver, evaluations in SCHEMES.items():
                if (solver, dt) in done:
                    continue
                run = {"solver": solver, "dt": dt, "evaluations_per_ms": evaluations / dt}
                found = groups(circuit, drive, solver, dt, 0, args)
                if found is None:
                    run["diverged"] = True
                else:
                    run["seconds_per_second"] = seconds_per_second(circuit, drive, solver, dt, args)
                    run["errors"] = {
                        name: dict(
                            zip(
                                ("squared", "standard_error", "floor"),
                                relative_error(found[name], converged[name]),
                                strict=True,
                            )
                        )
                        for name in STATISTICS
                    }
                network["runs"].append(run)
                save(results, args.out)
                print(title, describe(run), flush=True)
    plot(results, picture)


def describe(run):
    """One line of the table; an error is given with the least that sampling lets one see."""
    line = f"{NAMES[run['solver']]:18s} {run['dt']:4g} ms  {run['evaluations_per_ms']:5.1f} /ms"
    if "errors" not in run:
        return line + "  diverged"
    line += f"  {run['seconds_per_second']:8.3f} s/s"
    for name, error in run["errors"].items():
        size, floor = np.sqrt(max(error["squared"], 0)), np.sqrt(2 * error["floor"])
        line += f"  {name} {size:.4f} (>{floor:.4f})"
    return line


if __name__ == "__main__":
    main()
