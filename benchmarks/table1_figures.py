"""Figures and the table of Table 1, from its result file alone.

    python benchmarks/table1_figures.py benchmarks/results/table1.json

writes accuracy.png, stability.png, size.png and steps.png beside it, with the name of the result
file before theirs, and the table as a .rst file, which the documentation includes.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
from table1 import N_GROWTH, ROWS, STEPS, interval

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PAPER = {"SSN 50:50": 0.949, "SSN 80:20": 0.952}  # mean test accuracies
PAPER_SHUFFLED = {"SSN 50:50": 0.790, "SSN 80:20": 0.794}  # shares of diverging trials
SSN, OTHER, PUBLISHED = "#0072b2", "#999999", "#d55e00"
LEAST = 0.88  # accuracy on the axis
DENSE = "dense input, "


def accuracy(networks):
    """Mean test accuracy of every kind of model, with its 95% confidence interval."""
    # those that learn nothing would need most of the axis
    names = [n for n in ROWS if max(by_row(networks, n, "accuracy"), default=0) > LEAST]
    names = [name for name in names if not name.startswith(DENSE) or ROWS[name].pixels][::-1]
    figure, axes = plt.subplots(figsize=(7, 1 + 0.27 * len(names)), layout="constrained")
    for y, name in enumerate(names):
        values = by_row(networks, name, "accuracy")
        mean, half = interval(values)
        axes.plot(values, np.full(len(values), y), ".", color="#cccccc", zorder=1)
        color = SSN if ROWS[name].model == "ssn" else OTHER
        axes.errorbar(mean, y, xerr=np.nan_to_num(half), fmt="o", color=color, capsize=3)
        if name in PAPER:
            axes.plot(PAPER[name], y, "|", color=PUBLISHED, markersize=14, markeredgewidth=2)
    axes.set_yticks(
        range(len(names)), [f"{n} ({len(by_row(networks, n, 'accuracy'))})" for n in names]
    )
    axes.set_xlim(left=max(LEAST, axes.get_xlim()[0]))
    axes.set_xlabel("MNIST test accuracy\n(mean, 95% CI; points: networks; |: the paper)")
    return figure


def stability(networks):
    """Shares of diverging trials of trained, shuffled and random weights."""
    rows = [name for name in PAPER if by_row(networks, name, "diverging_trials")]
    if not rows:
        return None
    figure, all_axes = plt.subplots(
        1, len(rows), figsize=(3.6 * len(rows), 3), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, name in zip(all_axes[0], rows, strict=True):
        trials = by_row(networks, name, "diverging_trials")
        kinds = {
            "trained\n(2 s)": [x["diverging_in_2s"] for x in networks if x["row"] == name],
            "shuffled": [np.mean(t["shuffled"]) for t in trials],
            "random": [np.mean(t["random"]) for t in trials],
        }
        for x, values in enumerate(kinds.values()):
            spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0]
            axes.plot(x + np.asarray(spread), values, ".", color="#cccccc")
            mean, half = interval(values)
            axes.errorbar(x, mean, np.nan_to_num(half), fmt="o", color=SSN, capsize=3)
        axes.plot([0, 1, 2], [0, PAPER_SHUFFLED[name], 1], "_", color=PUBLISHED, markersize=22)
        axes.set_xticks(range(3), kinds)
        axes.set_title(f"{name} ({len(trials)} networks)")
    all_axes[0, 0].set_ylabel("share of trials that diverge\n(-: the paper)")
    return figure


def size(networks):
    """Accuracy and time against the number of cells, dense input."""
    found = {size_of(x["row"]): x["row"] for x in networks if size_of(x["row"]) is not None}
    if not found:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    cells = np.array(sorted(found))
    for axes, what in ((left, "accuracy"), (right, "fit_seconds")):
        means = [np.mean(by_row(networks, found[n], what)) for n in cells]
        axes.plot(2 * cells, means, "o-", color=SSN)
        axes.set(xscale="log", xlabel="cells (half of them inhibitory)")
        axes.set_xticks(2 * cells, [f"{2 * n:,}" for n in cells])
        axes.minorticks_off()
    left.set_ylabel("MNIST test accuracy")
    right.set_ylabel("seconds of fitting, one core")
    right.set_yscale("log")
    right.set_yticks([10, 100, 1000], ["10", "100", "1,000"])
    right.minorticks_off()
    return figure


def steps(networks):
    """Accuracy and size of the weights against training time, and what that does to shuffles."""
    names = [f"{n:,} steps" for n in STEPS] + ["SSN 50:50"]
    names = [name for name in names if by_row(networks, name, "weights_rms")]
    if len(names) < 2:
        return None
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    for name in names:
        n_steps = N_GROWTH + ROWS[name].settings["max_iter"]
        weights = by_row(networks, name, "weights_rms")
        for axes, values in ((left, by_row(networks, name, "accuracy")), (middle, weights)):
            axes.plot(np.full(len(values), n_steps), values, ".", color="#cccccc")
            axes.plot(n_steps, np.mean(values), "o", color=SSN)
        trials = by_row(networks, name, "diverging_trials")
        right.plot(weights, [np.mean(t["shuffled"]) for t in trials], ".", color=SSN)
    for axes in (left, middle):
        axes.set(xscale="log", xlabel="steps of training, with growth")
        axes.set_xticks([300, 1000, 3000], ["300", "1,000", "3,000"])
        axes.minorticks_off()
    left.set_ylabel("MNIST test accuracy")
    middle.set_ylabel("weights, root mean square (mV s)")
    right.set(
        xlabel="weights, root mean square (mV s)", ylabel="diverging trials, shuffled weights"
    )
    right.axhline(PAPER_SHUFFLED["SSN 50:50"], color=PUBLISHED, linestyle="--", label="the paper")
    right.legend()
    return figure


def by_row(networks, name, what):
    """What the networks of a row have of it, where they have an answer."""
    found = [x.get(what) for x in networks if x["row"] == name]
    return [x for x in found if x is not None]


def size_of(name):
    """Excitatory cells of a row of the sweep over sizes; None of others."""
    if name == "dense input":
        return ROWS[name].settings["n_excitatory"]
    rest = name.removeprefix(DENSE)
    return int(rest.split(":")[0]) if rest != name and ":" in rest else None


def table(results):
    """All rows as a list-table of reStructuredText."""
    head = ("network", "n", "test accuracy", "s.d.", "best", "unstable", "steps undone")
    head += ("shuffled", "random", "s")
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for cells in [head, *rows(results["networks"])]:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(cells)]
    machine = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    codes = ", ".join(sorted({x["code"] for x in results["networks"]}))
    return "\n".join([*lines, "", f"{machine['processor']}, {versions}; commits {codes}.", ""])


def rows(networks):
    for name in ROWS:
        values = by_row(networks, name, "accuracy")
        if not values:
            continue
        mean, half = interval(values)
        several = len(values) > 1
        accuracy = f"{mean:.4f} +- {half:.4f}" if several else f"{mean:.4f}"
        spread = f"{np.std(values, ddof=1):.4f}" if several else ""
        diverging = by_row(networks, name, "diverging_in_2s")
        unstable = f"{sum(d > 0 for d in diverging)} of {len(diverging)}" if diverging else ""
        undone = np.array(by_row(networks, name, "rejected_steps"))
        steps = f"{(undone > 0).sum()} of {len(undone)}, most {undone.max()}" if len(undone) else ""
        trials = by_row(networks, name, "diverging_trials")
        surrogates = [with_error([np.mean(t[k]) for t in trials]) for k in ("shuffled", "random")]
        seconds = f"{np.median(by_row(networks, name, 'fit_seconds')):.0f}"
        n = len([x for x in networks if x["row"] == name])
        yield name, n, accuracy, spread, f"{max(values):.4f}", unstable, steps, *surrogates, seconds


def with_error(values):
    """Mean and standard error."""
    if not values:
        return ""
    mean = f"{np.mean(values):.3f}"
    if len(values) < 2:
        return mean
    return f"{mean} (s.e. {np.std(values, ddof=1) / np.sqrt(len(values)):.3f})"


FIGURES = {"accuracy": accuracy, "stability": stability, "size": size, "steps": steps}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="result file of table1.py")
    args = parser.parse_args()
    results = json.loads(args.results.read_text())
    networks = results["networks"]
    path = args.results.with_suffix(".rst")
    path.write_text(table(results))
    print(path)
    for name, draw in FIGURES.items():
        path = args.results.with_name(f"{args.results.stem}_{name}.png")
        figure = draw(networks)
        if figure is not None:
            figure.savefig(path, dpi=120)
            print(path)


if __name__ == "__main__":
    main()
