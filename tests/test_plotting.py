"""Displays draw what they should where they should; importing the package stays light."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ssn_estimators import (
    Circuit,
    ContrastResponseDisplay,
    GrowthDisplay,
    SizeTuningDisplay,
    SpectrumDisplay,
    StabilityDisplay,
    TrajectoryDisplay,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

REPORT = {"n_surrogates": 2, "n_trials": 5, "duration": 60.0}
DISPLAYS = {
    GrowthDisplay: lambda ssn, X, **kw: GrowthDisplay.from_estimator(ssn, **kw),
    TrajectoryDisplay: lambda ssn, X, **kw: TrajectoryDisplay.from_estimator(
        ssn, X, duration=60.0, **kw
    ),
    StabilityDisplay: lambda ssn, X, **kw: StabilityDisplay.from_estimator(ssn, X, **REPORT, **kw),
}
LABELS = {
    GrowthDisplay: ("optimiser step", "training cost"),
    TrajectoryDisplay: ("time (ms)", "membrane potential (mV)"),
    StabilityDisplay: ("", "share of trials diverging within 60 ms"),
}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("kind", DISPLAYS, ids=lambda kind: kind.__name__)
def test_from_estimator(fitted, blobs, kind, piped):
    estimator = make_pipeline(FunctionTransformer(), fitted) if piped else fitted
    display = DISPLAYS[kind](estimator, blobs[0])
    assert isinstance(display, kind)
    assert display.figure_ is display.ax_.figure
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == LABELS[kind]
    display.figure_.canvas.draw()


@pytest.mark.parametrize("kind", DISPLAYS, ids=lambda kind: kind.__name__)
def test_draws_on_the_given_axes(fitted, blobs, kind):
    figure, axes = plt.subplots(1, 2)
    display = DISPLAYS[kind](fitted, blobs[0], ax=axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    assert axes[1].has_data()
    assert not axes[0].has_data()
    assert len(plt.get_fignums()) == 1
    assert display.plot() is display  # again, on axes of its own
    assert display.ax_ is not axes[1]


def test_growth_shows_losses_and_sizes(fitted):
    display = GrowthDisplay.from_estimator(fitted)
    np.testing.assert_array_equal(display.ax_.lines[0].get_ydata(), fitted.loss_curve_)
    assert display.size_ax_.get_ylabel() == "number of cells"
    cells = {line.get_label(): list(line.get_ydata()) for line in display.size_ax_.lines}
    assert cells == {"excitatory cells": [1, 1, 2, 4], "inhibitory cells": [1, 1, 1, 1]}


def test_growth_without_an_accepted_step():
    history = [{"n_excitatory": 1, "n_inhibitory": 1, "n_iter": 0}]
    assert GrowthDisplay(loss_curve=[], growth_history=history).plot().ax_.has_data()


def test_trajectories_are_those_of_the_first_input(fitted, blobs):
    X, _ = blobs
    display = TrajectoryDisplay.from_estimator(fitted, X, duration=50.0)
    again = fitted.simulate(X[:1], n_trials=1, duration=50.0, burn_in=0.0, record="u")
    np.testing.assert_array_equal(display.potentials, again.u[:, 0, 0])
    assert len(display.lines_) == 5 + 2  # every cell and two means
    assert len(display.times) == 50


CIRCUIT = Circuit([[2.5, -1.3], [2.4, -1.0]], 1, 0.3, k=0.04)
OF_CIRCUITS = {
    ContrastResponseDisplay: (1.0, [1.0, 5.0, 20.0]),
    SizeTuningDisplay: ([[[1.0, 1.0], [5.0, 5.0]], [[2.0, 2.0], [9.0, 9.0]]], [1.0, 2.0]),
    SpectrumDisplay: ([[2.0, 2.0], [20.0, 20.0]], [0.0, 10.0, 50.0]),
}


@pytest.mark.parametrize("kind", OF_CIRCUITS, ids=lambda kind: kind.__name__)
def test_experiments_on_circuits(kind):
    figure, axes = plt.subplots(1, 2)
    display = kind.from_circuit(CIRCUIT, *OF_CIRCUITS[kind], ax=axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    labels = [line.get_label() for line in display.lines_]
    assert [name for name in labels if name in "EI"] == ["E", "I"]
    assert len(labels) == (2 if kind is ContrastResponseDisplay else 4)
    assert display.plot().ax_ is not axes[1]
    display.figure_.canvas.draw()


def test_spectra_say_of_what_they_are():
    arguments = OF_CIRCUITS[SpectrumDisplay]
    for of, unit in (("u", "mV"), ("r", "Hz")):
        display = SpectrumDisplay.from_circuit(CIRCUIT, *arguments, of=of)
        assert display.ax_.get_ylabel() == f"power ({unit}$^2$ / Hz)"


def test_curves_are_the_responses():
    display = ContrastResponseDisplay.from_circuit(CIRCUIT, 1.0, [1.0, 5.0, 20.0])
    for line, cell in zip(display.lines_, display.response.rates.T, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), cell)


def test_bars_are_the_shares(fitted, blobs):
    display = StabilityDisplay.from_estimator(fitted, blobs[0], **REPORT)
    means = [mean for mean, _ in display.report.summary().values()]
    assert [bar.get_height() for bar in display.bars_] == means
    assert display.ax_.get_ylim()[0] == 0


@pytest.mark.parametrize("kind", [TrajectoryDisplay, StabilityDisplay])
def test_other_estimators_are_refused(blobs, kind):
    with pytest.raises(TypeError, match="got LogisticRegression"):
        kind.from_estimator(LogisticRegression(), blobs[0])


def test_importing_the_package_is_light():
    code = (
        "import sys, ssn_estimators; dir(ssn_estimators)\n"
        "print(sorted({'torch', 'matplotlib', 'sklearn'} & set(sys.modules)))\n"
        "ssn_estimators.SSNClassifier, ssn_estimators.GrowthDisplay\n"
        "print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]", "['torch']"]
