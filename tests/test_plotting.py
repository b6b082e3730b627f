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
    SSNSequenceClassifier,
    SSNSequenceRegressor,
    StabilityDisplay,
    TrajectoryDisplay,
    TrialDisplay,
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


SHORT = {"time_step": 10.0, "dt": 5.0, "burn_in": 20.0, "max_iter": 5, "growth_iter": 2}
SEQUENCES = np.random.RandomState(0).uniform(size=(30, 6, 2))
LENGTHS = np.array([6, 5, 4] * 10)


def lagged(n_outputs):
    return np.repeat(np.roll(SEQUENCES[:, :, :1], 1, axis=1), n_outputs, axis=2)


@pytest.fixture(scope="module")
def of_sequences():
    """Fitted estimators and their targets: classes, few outputs, many, and one."""
    labels = np.where(SEQUENCES[:, 0, 0] > 0.5, "high", "low")
    of = {"classes": (SSNSequenceClassifier, labels)}
    of |= {n: (SSNSequenceRegressor, lagged(n)) for n in (2, 9)}
    of["flat"] = (SSNSequenceRegressor, lagged(1)[:, :, 0])
    return {
        name: (kind(8, **SHORT, random_state=0).fit(SEQUENCES, y, lengths=LENGTHS), y)
        for name, (kind, y) in of.items()
    }


@pytest.mark.parametrize("kind", ["classes", 2, 9, "flat"])
def test_a_trial(of_sequences, kind):
    estimator, y = of_sequences[kind]
    display = TrialDisplay.from_estimator(
        estimator,
        SEQUENCES[:7],
        index=1,
        lengths=LENGTHS[:7],
        y=None if kind == "classes" else y[:7],
        conditions=["a", "b"] * 3 + ["a"],
        fixed_step=2,
        periods={"first": (0, 2), "none": (2, 2), "second": (2, 5)},
    )
    display.figure_.canvas.draw()
    drawn = {"inputs", "rates", "outputs", "plane"} | ({"targets"} if kind == 9 else set())
    assert set(display.axes_) == drawn
    # five time steps of 10 ms, on one axis
    for name in drawn - {"plane"}:
        assert display.axes_[name].get_xlim() == (0, 50)
        assert display.axes_[name].get_ylabel()
    assert {"time (ms)"} == {
        axes.get_xlabel() for name, axes in display.axes_.items() if name != "plane"
    } - {""}
    assert [text.get_text() for text in display.axes_["inputs"].texts] == ["first", "second"]
    assert [len(path) for path in display.paths] == LENGTHS[:7].tolist()
    assert display.inputs.shape == (5, 2)
    assert list(display.rates) == ["E", "I"]
    assert display.rates["E"].shape == (10, 4)
    np.testing.assert_array_equal(display.times, np.arange(1, 11) * 5.0)
    for label in ("xlabel", "ylabel"):
        assert "mV" in display.axes_["plane"].properties()[label]
    # what is called a fixed point is one
    circuit, u = estimator.circuit_, display.points.u
    drive = estimator.drive(SEQUENCES[:7], LENGTHS[:7])[2, 1]
    assert len(u)
    np.testing.assert_allclose(drive + circuit.rates(u) @ circuit.weights.T, u, atol=1e-4)


def test_outputs_of_a_trial_are_those_of_prediction(of_sequences):
    for kind in (2, 9):
        estimator, _ = of_sequences[kind]
        display = TrialDisplay.from_estimator(estimator, SEQUENCES, index=4)
        np.testing.assert_allclose(
            display.outputs, estimator.predict(SEQUENCES)[4], rtol=1e-4, atol=1e-5
        )
    estimator, _ = of_sequences["classes"]
    display = TrialDisplay.from_estimator(estimator, SEQUENCES, index=4)
    odds = np.diff(display.outputs[-1]).item()
    assert odds == pytest.approx(estimator.decision_function(SEQUENCES)[4], rel=1e-3, abs=1e-5)
    legend = [axes.get_legend() for axes in display.figure_.axes if axes.get_legend()]
    names = [[text.get_text() for text in one.get_texts()] for one in legend]
    assert ["high", "low"] in names


def test_paths_of_a_plane_keep_their_variance(of_sequences):
    estimator, _ = of_sequences[2]
    display = TrialDisplay.from_estimator(estimator, SEQUENCES, n_trials=1, conditions=range(30))
    u = estimator.simulate(SEQUENCES, n_trials=1, record="u").u[:, :, 0, :8]
    u = u.reshape(6, 2, 30, 8).mean(1).reshape(-1, 8)
    values = np.linalg.eigvalsh(np.cov(u.T))[::-1]
    np.testing.assert_allclose(display.explained, values[:2] / values.sum(), rtol=1e-4)
    within = np.concatenate(display.paths)
    np.testing.assert_allclose(within.var(0, ddof=1), values[:2], rtol=1e-4)
    # as many conditions have a colour bar
    assert "condition" in [axes.get_ylabel() for axes in display.figure_.axes]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"index": 30}, "index must be"),
        ({"conditions": [1, 2]}, "conditions must be 30"),
        ({"fixed_step": 6}, "fixed_step must be"),
        ({"lengths": [7] * 30}, "lengths must be"),
        ({"y": np.zeros((30, 5))}, "y must have shape"),
        ({"y": np.zeros((30, 6, 3))}, "y must have shape"),
        ({"periods": {"all": 6}}, "periods must"),
    ],
)
def test_what_does_not_fit_a_trial(of_sequences, how, message):
    with pytest.raises(ValueError, match=message):
        TrialDisplay.from_estimator(of_sequences[2][0], SEQUENCES, **how)


def test_a_trial_needs_sequences(fitted, blobs):
    with pytest.raises(TypeError, match=r"SSNSequenceRegressor .* got SSNClassifier"):
        TrialDisplay.from_estimator(fitted, blobs[0])
