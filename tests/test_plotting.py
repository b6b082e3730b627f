"""Displays draw what they should where they should; importing the package stays light."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ssn_estimators import (
    Circuit,
    ContrastResponseDisplay,
    GrowthDisplay,
    RobustnessDisplay,
    SizeTuningDisplay,
    SpectrumDisplay,
    SSNSequenceClassifier,
    SSNSequenceRegressor,
    StabilityDisplay,
    TrajectoryDisplay,
    TrialDisplay,
    TuningDisplay,
    WeightsDisplay,
    robustness_curve,
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


def test_a_trial_of_a_network_in_a_search(of_sequences):
    estimator, _ = of_sequences[2]
    pipeline = make_pipeline(FunctionTransformer(lambda X: X + 1), estimator)
    search = GridSearchCV(pipeline, {})
    search.best_estimator_ = pipeline
    shown = TrialDisplay.from_estimator(search, SEQUENCES[:5] - 1)
    expected = TrialDisplay.from_estimator(estimator, SEQUENCES[:5] - 1 + 1)
    np.testing.assert_array_equal(shown.outputs, expected.outputs)


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


TYPED = Circuit(
    np.arange(1, 26).reshape(5, 5) / 25 * [1, 1, 1, -1, -1],
    populations={"E": 3, "PV": 1, "SST": 1},
    noise_factor=0.1,
)


@pytest.mark.parametrize("kind", ["numpy", "torch", "sparse"])
def test_weights(kind):
    circuit = TYPED.to_torch() if kind == "torch" else TYPED
    if kind == "sparse":
        circuit = Circuit(csr_array(TYPED.weights), populations=TYPED.populations)
    _, axes = plt.subplots(1, 2)
    order = [4, 2, 0, 3, 1]
    display = WeightsDisplay.from_circuit(circuit, order=order, ax=axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is axes[1].figure
    assert not axes[0].has_data()
    assert display.image_.get_clim() == (-1.0, 1.0)  # the largest is inhibitory
    assert display.colorbar_.ax.get_ylabel() == "weight (mV s)"
    assert (axes[1].get_xlabel(), axes[1].get_ylabel()) == ("presynaptic cell", "postsynaptic cell")
    for axis in (axes[1].xaxis, axes[1].yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == ["E", "PV", "SST"]
    lines = [line.get_xydata()[0] for line in axes[1].lines]
    assert sorted(place for line in lines for place in line if place > 1) == [2.5, 2.5, 3.5, 3.5]
    cells = [2, 0, 1, 3, 4]  # types stay together
    expected = TYPED.weights[np.ix_(cells, cells)]
    if kind == "sparse":
        drawn = np.zeros((5, 5))
        column, row = display.image_.get_offsets().astype(int).T
        drawn[row, column] = display.image_.get_array()
        assert axes[1].get_ylim() == (4.5, -0.5)
    else:
        drawn = display.image_.get_array()
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    blue, white, red = display.image_.to_rgba([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(white, 1.0, atol=0.02)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert display.plot(limit=3.0).image_.get_clim() == (-3.0, 3.0)
    display.figure_.canvas.draw()


def test_weights_of_an_estimator(fitted):
    display = WeightsDisplay.from_estimator(make_pipeline(FunctionTransformer(), fitted))
    np.testing.assert_array_equal(display.weights, fitted.circuit_.weights)
    assert display.populations == dict(fitted.circuit_.populations)
    other = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(TypeError, match="circuit_ is needed, got LogisticRegression"):
        WeightsDisplay.from_estimator(other)
    none = WeightsDisplay(weights=np.zeros((2, 2)), populations={"E": 1, "I": 1}).plot()
    assert none.image_.get_clim() == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"order": [0, 1]}, "order must have each of the 5 cells once"),
        ({"order": [0, 1, 2, 3, 3]}, "order must have"),
        ({"order": [[0, 1, 2, 3, 4]]}, "order must have"),
        ({"limit": 0.0}, "limit must be positive"),
    ],
)
def test_weights_that_cannot_be_drawn(how, message):
    with pytest.raises(ValueError, match=message):
        WeightsDisplay.from_circuit(TYPED, **how)
    with pytest.raises(ValueError, match="weights must have shape"):
        WeightsDisplay(weights=TYPED.weights, populations={"E": 3, "I": 1}).plot()


def test_tuning_over_a_variable():
    rates = [[1.0, 3.0, 5.0], [2.0, 6.0, 7.0], [4.0, 8.0, 9.0]]
    _, axes = plt.subplots(1, 2)
    display = TuningDisplay(values=[10.0, 0.0, 10.0], rates=rates, types=["E", "E", "I"])
    display.plot(ax=axes[1], label="contrast")
    assert display.ax_ is axes[1]
    assert display.figure_ is axes[1].figure
    assert (axes[1].get_xlabel(), axes[1].get_ylabel()) == ("contrast", "firing rate (Hz)")
    excitatory, inhibitory = display.lines_
    np.testing.assert_allclose(excitatory.get_xydata(), [[0, 4], [10, 4]])
    np.testing.assert_allclose(inhibitory.get_xydata(), [[0, 7], [10, 7]])
    assert [line.get_label() for line in display.lines_] == ["E", "I"]
    display.plot(n_bins=1)
    np.testing.assert_allclose(display.lines_[0].get_xydata(), [[5, 4]])


def test_tuning_around_what_cells_prefer():
    """All cells have the same curve, so there is no spread around it."""
    preferred, values = np.arange(0, 180, 22.5), np.arange(0, 180, 45.0)
    curve = lambda x: 2 + np.cos(np.radians(2 * x))  # noqa: E731
    rates = curve(values[:, None] - preferred)
    display = TuningDisplay(
        values=values, rates=rates, types=["E"] * 8, preferred=preferred, period=180.0
    ).plot(label="orientation (deg)")
    x, y = display.lines_[0].get_xydata().T
    np.testing.assert_allclose(x, np.arange(-90, 90, 22.5), atol=1e-6)
    np.testing.assert_allclose(y, curve(x))
    assert display.ax_.get_xlabel() == "orientation (deg), from the preferred"
    band = display.ax_.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(band[:, 1], curve(band[:, 0]), atol=1e-6)
    # in radians, and cells without a preference are left out
    display = TuningDisplay(
        values=np.radians(values),
        rates=np.column_stack([rates, rates[:, 0]]),
        types=["E"] * 9,
        preferred=[*np.radians(preferred), np.nan],
        period=np.pi,
    ).plot()
    np.testing.assert_allclose(display.lines_[0].get_xdata(), np.radians(x), atol=1e-6)


@pytest.mark.parametrize("n", [12, 18, 36, 101])
def test_each_stimulus_has_the_bin_that_is_its_own(n):
    """Their edges are stimuli themselves, which rounding put into the bin before."""
    cells = np.arange(n) * 180 / n
    rates = np.exp(np.cos(np.radians(2 * (cells[:, None] - cells))))
    around = TuningDisplay(
        values=cells, rates=rates, types=["E"] * n, preferred=cells, period=180.0
    ).plot(n_bins=n)
    x, y = around.lines_[0].get_xydata().T
    np.testing.assert_allclose(np.diff(x), 180 / n)
    np.testing.assert_allclose(x[0], -90 + 90 / n)
    to_centre = 90 / n if n % 2 == 0 else 0.0  # of a bin, from the stimulus in it
    np.testing.assert_allclose(y, np.exp(np.cos(np.radians(2 * (x - to_centre)))))
    plain = TuningDisplay(values=np.arange(n), rates=rates, types=["E"] * n).plot(n_bins=n - 1)
    assert len(plain.lines_[0].get_xdata()) == n - 1


@pytest.mark.parametrize(
    ("change", "n_bins", "message"),
    [
        ({}, 0, "n_bins"),
        ({}, 1.5, "n_bins"),
        ({}, "2", "n_bins"),
        ({"period": 0.0}, 2, "period"),
        ({"period": np.nan}, None, "period"),
        ({"period": -180.0}, None, "period"),
        ({"rates": np.full((2, 1), np.nan)}, None, "a rate that is known"),
    ],
)
def test_tuning_that_cannot_be_drawn(change, n_bins, message):
    known = {"values": [1.0, 2.0], "rates": [[1.0], [2.0]], "types": ["E"], "preferred": [0.0]}
    with pytest.raises(ValueError, match=message):
        TuningDisplay(**known | change).plot(n_bins=n_bins)


def test_tuning_of_circuits_and_networks(fitted, blobs):
    drives, values = [[2.0, 2.0], [5.0, 5.0]], [1.0, 2.0]
    display = TuningDisplay.from_circuit(CIRCUIT, drives, values, label="strength (mV)")
    for cell, line in enumerate(display.lines_):
        np.testing.assert_allclose(line.get_ydata(), display.rates[:, cell])
    u = np.array(drives) + display.rates @ CIRCUIT.weights.T
    np.testing.assert_allclose(CIRCUIT.rates(u), display.rates, rtol=1e-4)
    X = blobs[0][:4]
    display = TuningDisplay.from_estimator(fitted, X, [0, 0, 1, 1], duration=30.0, label="blob")
    np.testing.assert_array_equal(display.rates, fitted.simulate(X, duration=30.0).rates)
    assert display.ax_.get_xlabel() == "blob"
    assert [len(line.get_xdata()) for line in display.lines_] == [2, 2]
    with pytest.raises(ValueError, match=r"rates must have shape .* values of shape \(3,\)"):
        TuningDisplay.from_circuit(CIRCUIT, drives, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="preferred must have shape"):
        TuningDisplay.from_circuit(CIRCUIT, drives, values, preferred=[1.0])


def test_robustness(blobs):
    X, y = blobs
    X = (X - X.min()) / np.ptp(X)
    models = [LogisticRegression(C=c).fit(X, y) for c in (0.1, 1.0, 10.0)]
    how = {"levels": (0.0, 0.3, 0.9), "n_repeats": 2}
    figure, axes = plt.subplots(1, 2)
    estimators = {"one": models[0], "several": models}
    display = RobustnessDisplay.from_estimators(estimators, X, y, ax=axes[1], **how)
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    labels = ("standard deviation of the noise", "accuracy")
    assert (axes[1].get_xlabel(), axes[1].get_ylabel()) == labels
    assert [line.get_label() for line in display.lines_] == ["one", "several"]
    curves = np.stack([robustness_curve(model, X, y, **how) for model in models])
    np.testing.assert_array_equal(display.scores["one"], curves[0])
    np.testing.assert_allclose(display.lines_[0].get_ydata(), curves[0].mean(1))
    np.testing.assert_allclose(display.scores["several"], curves.mean(2).T)
    np.testing.assert_allclose(display.lines_[1].get_ydata(), curves.mean((0, 2)))
    spread = curves.mean(2).std(0, ddof=1)
    band = axes[1].collections[1].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx((curves.mean((0, 2)) + spread).max())
    display = RobustnessDisplay.from_estimators(
        estimators, X, y, noise="salt_pepper", label="balanced accuracy", **how
    )
    labels = ("share of noisy pixels", "balanced accuracy")
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == labels
    display.figure_.canvas.draw()


def test_robustness_of_what_was_measured():
    display = RobustnessDisplay(levels=[0.0, 1.0], scores={"only": [0.9, 0.4]}).plot()
    np.testing.assert_array_equal(display.lines_[0].get_xydata(), [[0, 0.9], [1, 0.4]])
    assert display.ax_.get_xlabel() == "strength of the noise"
    with pytest.raises(ValueError, match="scores of 'only' must have shape"):
        RobustnessDisplay(levels=[0.0, 1.0], scores={"only": [0.9]}).plot()
    with pytest.raises(TypeError, match="estimators must be a mapping"):
        RobustnessDisplay.from_estimators([LogisticRegression()], [[0.0]], [0])
