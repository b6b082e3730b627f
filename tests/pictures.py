"""Run a script of the gallery, and say what its pictures lack: ``python tests/pictures.py SCRIPT``.

Empty axes, axes with numbers but no name, and names of quantities without a unit.
"""

import re
import runpy
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

# in these names a quantity with a unit is meant, unless it is relative to another
QUANTITIES = re.compile(
    r"\b(time|duration|rate|potential|mean|input|drive|weight|frequency|current|voltage|delay)s?\b"
)
UNIT = re.compile(
    r"\(.*\S.*\)|%|share|accuracy|relative|normali[sz]ed|factor|number of|rank|loss|score"
    r"|\w / \w|of each|posterior|of the samples"  # latents have no unit
)


def faults_of(axes):
    """What is wrong with one of the axes of a figure."""
    if not axes.axison or not axes.get_visible():
        return
    bar = getattr(axes, "_colorbar", None) is not None
    if not (bar or axes.has_data() or axes.texts):
        yield "is empty"
        return
    names = [axes.get_xlabel() or _of_grid(axes, "x"), axes.get_ylabel() or _of_grid(axes, "y")]
    if bar:
        if not any(names):
            yield "is a colour bar without a name"
        names = [name for name in names if name]
        numbers = [True] * len(names)
    else:
        numbers = [_has_numbers(axes.xaxis), _has_numbers(axes.yaxis)]
    for name, wanted in zip(names, numbers, strict=True):
        if wanted and not name:
            yield "has numbers but no name along an axis"
        if wanted and QUANTITIES.search(name.lower()) and not UNIT.search(name):
            yield f"has no unit in {name!r}"


def _of_grid(axes, direction):
    """The name of an axis that others in its row or column have, or the whole figure."""
    whole = getattr(axes.figure, f"get_sup{direction}label")()
    place = axes.get_subplotspec()
    if whole or place is None:
        return whole
    span = "colspan" if direction == "x" else "rowspan"
    for other in axes.figure.axes:
        own = other.get_subplotspec()
        if own is not None and own.get_gridspec() is place.get_gridspec():
            if getattr(own, span) == getattr(place, span):
                whole = whole or getattr(other, f"get_{direction}label")()
    return whole


def _has_numbers(axis):
    """Whether tick labels are seen, and are numbers."""
    if not axis.get_visible():
        return False
    labels = [label.get_text() for label in axis.get_ticklabels() if label.get_visible()]
    labels = [label.replace("\N{MINUS SIGN}", "-") for label in labels if label]
    return bool(labels) and all(re.fullmatch(r"\$?[-+\d.e{}^\\a-z]*\$?", s) for s in labels)


def faults():
    """Of all figures that are open."""
    for number in plt.get_fignums():
        figure = plt.figure(number)
        figure.canvas.draw()
        if not figure.axes:
            yield f"figure {number} has no axes"
        for i, axes in enumerate(figure.axes):
            title = axes.get_title() or axes.get_ylabel() or axes.get_xlabel()
            yield from (f"figure {number}, axes {i} ({title}): {x}" for x in faults_of(axes))


def main(script):
    runpy.run_path(script, run_name="__main__")
    found = list(faults())
    print("\n".join(found))
    print(f"{len(plt.get_fignums())} figures: {len(found)} faults")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
