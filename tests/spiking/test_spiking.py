"""Spiking networks: cells, synapses, training, and the measures of both."""

import pickle
import sys
import warnings
from unittest import mock

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

from ssn_estimators import RasterDisplay
from ssn_estimators.datasets import make_cued_sinusoids
from ssn_estimators.spike_statistics import (
    coupling_drift,
    coupling_spectrum,
    dale_violations,
    fano_factor,
    isi_cv,
    paradoxical_response,
)
from ssn_estimators.spiking.lif import LIFState, Synapses, random_synapses
from ssn_estimators.spiking.regressor import SpikingRegressor, correlations, running_mean
from ssn_estimators.spiking.simulation import SpikingSimulation

SMALL = {"connectivity": 0.5, "external_drive": 0.16, "burn_in": 200.0, "random_state": 0}


def none(n):
    return Synapses(np.empty((n, 0), int), np.empty((n, 0)))


def state(static, plastic, n_trials=1, dt=0.1):
    times = {"tau_m": 10.0, "tau_static": 3.0, "tau_plastic": 150.0, "dt": dt}
    return LIFState(static, plastic, n_trials=n_trials, rng=np.random.RandomState(0), **times)


@pytest.fixture(scope="module")
def task():
    return make_cued_sinusoids(120, random_state=0)


@pytest.fixture(scope="module")
def network(task):
    return SpikingRegressor(max_iter=4, **SMALL).fit(*task)


def test_a_cell_fires_at_the_rate_of_theory():
    cells = state(none(2), none(2), dt=0.01)
    current = np.array([1.5, 3.0])
    steps, spikes = cells.advance(100_000, current)
    for i, strength in enumerate(current):
        intervals = 0.01 * np.diff(steps[spikes == i])
        assert_allclose(intervals, 10.0 * np.log(strength / (strength - 1)), rtol=0.01)


def test_below_threshold_a_cell_is_silent():
    assert len(state(none(1), none(1)).advance(5000, np.array([0.99]))[0]) == 0


def test_drives_are_filtered_spikes_times_weights():
    rng = np.random.RandomState(0)
    groups = [(np.arange(10), 4), (np.arange(10, 20), 3)]
    static = random_synapses(20, groups, rng.rand(20, 2), rng)
    plastic = random_synapses(20, groups, rng.rand(20, 2) - 0.5, rng)
    cells = state(static, plastic, n_trials=2)
    steps, spikes = cells.advance(300, np.full(20, 2.0))
    assert len(spikes) > 50
    trains = np.zeros((300, 2, 20))
    trains[steps, spikes // 20, spikes % 20] = 1
    for synapses, tau, found in (
        (static, 3.0, cells.static_drive),
        (plastic, 150.0, cells.plastic_drive),
    ):
        kernel = (1 - 0.1 / tau) ** np.arange(299, -1, -1) / tau
        filtered = np.einsum("t,tij->ij", kernel, trains)
        assert_allclose(found, filtered @ synapses.dense().T, atol=1e-12)
    assert_allclose(cells.trace, filtered, atol=1e-12)
    cells.set_plastic_weights(3 * plastic.weights)
    assert_allclose(cells.plastic_drive, filtered @ plastic.dense().T, atol=1e-12)


def test_synapses_come_from_other_cells_of_their_group():
    groups = [(np.arange(6), 5), (np.arange(6, 10), 2)]
    synapses = random_synapses(10, groups, np.ones((10, 2)), np.random.RandomState(0))
    for cell, sources in enumerate(synapses.sources):
        assert len(set(sources)) == 7
        assert cell not in sources
        assert (sources[:5] < 6).all()
        assert (sources[5:] >= 6).all()


def test_cells_learn_their_drives():
    X, y = make_cued_sinusoids(200, random_state=0)
    before = SpikingRegressor(max_iter=1, penalty=1e9, **SMALL).fit(X, y)
    trained = SpikingRegressor(max_iter=15, penalty=0.05, **SMALL).fit(X, y)
    assert trained.score(X, y) > before.score(X, y) + 0.4
    assert_allclose(before.plastic_weights_.weights, before.initial_weights_, rtol=1e-4)


def test_loops_may_be_trained_one_by_one(task, network):
    again = SpikingRegressor(**SMALL)
    for _ in range(4):
        again.partial_fit(*task)
    assert_array_equal(again.plastic_weights_.weights, network.plastic_weights_.weights)
    assert again.n_iter_ == 4
    assert len(again.loss_curve_) == 4


def test_predictions_repeat_and_are_deviations_from_the_baseline(task, network):
    X, _ = task
    prediction = network.predict(X)
    assert_array_equal(prediction, network.predict(X))
    simulation = network.simulate(X)
    assert_allclose(prediction, simulation.drive.mean(1) - network.baseline_)
    absolute = SpikingRegressor(max_iter=1, baseline=None, **SMALL).fit(*task)
    assert (absolute.baseline_ == 0).all()


def test_several_conditions(task):
    X, y = make_cued_sinusoids(80, n_conditions=2, n_times=20, random_state=0)
    network = SpikingRegressor(max_iter=1, **SMALL).fit(X, y)
    assert network.predict(X).shape == (2, 20, 80)
    assert len(network.loss_curve_) == 1
    flat = X.mean(1)
    assert network.predict(flat).shape == (2, 20, 80)
    weights = network.score(X, y, sample_weight=[1, 0])
    assert weights == pytest.approx(network.score(X[:1], y[:1]), abs=0.2)
    for illegal in ([-1, 1], [0, 0], [np.nan, 1], [1]):
        with pytest.raises(ValueError, match=r"(?i)weight"):
            network.score(X, y, sample_weight=illegal)


def test_without_a_cue(task):
    y = task[1][0, :10]
    network = SpikingRegressor(max_iter=1, **SMALL).fit(None, y)
    assert network.predict().shape == (1, 10, 120)


def test_recurrent_synapses_themselves_are_trained(task):
    network = SpikingRegressor(max_iter=1, static_weights=False, **SMALL).fit(*task)
    assert network.static_weights_ is None
    assert network.plastic_weights_.weights.shape == (120, 60)
    # fast enough by default for most cells to fire
    assert np.median(network.simulate(task[0]).rates()) > 1
    slow = clone(network).set_params(tau_plastic=20.0).fit(*task)
    assert_allclose(slow.initial_weights_, network.initial_weights_)
    assert_allclose(slow.predict(task[0]), network.predict(task[0]))


def test_frozen_signs_are_never_violated(task):
    free = SpikingRegressor(max_iter=3, penalty=1e-3, **SMALL).fit(*task)
    assert dale_violations(free).excitatory > 0.05
    frozen = clone(free).set_params(dale="freeze").fit(*task)
    assert dale_violations(frozen) == {"excitatory": 0.0, "inhibitory": 0.0}


def test_the_sum_penalty_keeps_sums(task):
    options = SMALL | {"max_iter": 3, "penalty": 0.01}
    kept, free = (
        coupling_drift(SpikingRegressor(sum_penalty=mu, **options).fit(*task)) for mu in (8.0, 0.0)
    )
    assert abs(kept.inhibitory) < 0.02 < abs(free.inhibitory)


def test_groups_of_one_label_share_one_sum(task):
    one = SpikingRegressor(max_iter=1, groups=np.zeros(120), **SMALL).fit(*task)
    change = one.plastic_weights_.weights - one.initial_weights_
    assert abs(change.sum(1)).mean() < 0.1 * abs(np.split(change, 2, axis=1)[0].sum(1)).mean()


def test_any_ratio_of_excitatory_to_inhibitory_cells_is_balanced(task):
    X, y = make_cued_sinusoids(250, n_times=20, random_state=0)
    network = SpikingRegressor(n_excitatory=200, max_iter=1, **SMALL).fit(X, y)
    rates = network.simulate(X).rates()
    assert 1 < rates[:200].mean() < 30
    assert 1 < rates[200:].mean() < 50


def test_more_input_to_inhibitory_cells_makes_them_fire_less():
    X, y = make_cued_sinusoids(400, n_times=50, random_state=0)
    network = SpikingRegressor(max_iter=1, penalty=1e9, random_state=0).fit(X, y)
    change = paradoxical_response(network, X, increase=0.2)
    assert change.inhibitory < 0
    assert change.excitatory < 0


@pytest.mark.slow
def test_recurrent_synapses_learn_and_the_sum_penalty_keeps_the_paradoxical_response():
    X, y = make_cued_sinusoids(300, n_times=50, random_state=0)
    settings = {"static_weights": False, "max_iter": 15, "penalty": 0.05, "burn_in": 300.0}
    response = {}
    for mu in (8.0, 0.0):
        network = SpikingRegressor(
            sum_penalty=mu, external_drive=0.16, random_state=0, **settings
        ).fit(X, y)
        assert network.score(X, y) > 0.6
        response[mu] = paradoxical_response(network, X, increase=0.2).inhibitory
    assert response[8.0] < 0 < response[0.0]


@pytest.mark.slow
def test_a_thousand_cells_learn_and_keep_their_balance():
    X, y = make_cued_sinusoids(1000, random_state=0)
    network = SpikingRegressor(
        connectivity=0.2, penalty=0.8, sum_penalty=8.0, max_iter=70, random_state=0
    ).fit(X, y)
    assert network.score(X, y) > 0.75
    assert max(map(abs, coupling_drift(network).values())) < 0.01
    violations = dale_violations(network)
    assert violations.excitatory < 0.15
    assert violations.inhibitory < 0.20
    simulation = network.simulate(X, n_trials=5)
    assert np.nanmean(isi_cv(simulation)) > 0.8
    for rates in np.split(simulation.rates(), [network.n_excitatory_]):
        assert 3 < rates.mean() < 15


def test_spectra(network):
    assert coupling_spectrum(network).shape == (120,)
    start = coupling_spectrum(network, trained=False)
    assert start.sum().real == pytest.approx(0.0, abs=1e-6)  # no cell reaches itself


def recorded(times, trials, neurons, shape, duration=1000.0):
    n_conditions, n_trials, n_neurons = shape
    drive = np.zeros((n_conditions, n_trials, 1, n_neurons))
    order = np.argsort(times)
    conditions = np.zeros(len(times), int)
    columns = (x[order] for x in (times, conditions, trials, neurons))
    return SpikingSimulation(drive, np.array([duration]), *columns, n_excitatory=1)


def test_statistics_of_poisson_and_of_regular_trains():
    rng, duration = np.random.RandomState(0), 20_000.0
    times, trials, neurons = [], [], []
    for trial in range(40):
        poisson = np.sort(rng.uniform(0, duration, rng.poisson(0.02 * duration)))
        regular = np.arange(10.0, duration, 50.0)
        for neuron, train in enumerate((poisson, regular)):
            times.append(train)
            trials.append(np.full(len(train), trial))
            neurons.append(np.full(len(train), neuron))
    arrays = (np.concatenate(x) for x in (times, trials, neurons))
    simulation = recorded(*arrays, shape=(1, 40, 3), duration=duration)
    cv, fano = isi_cv(simulation), fano_factor(simulation, window=100.0)
    assert_allclose(cv[:2], [1, 0], atol=0.03)
    assert_allclose(fano[:2], [1, 0], atol=0.05)
    assert np.isnan([cv[2], fano[2]]).all()
    assert_allclose(simulation.rates(), [20, 20, 0], rtol=0.02)


def test_running_mean_and_correlation():
    series = np.arange(12.0).reshape(1, 6, 2)
    assert_allclose(running_mean(series, 1)[0, :, 0], [1, 2, 4, 6, 8, 9])
    wanted = np.stack([np.arange(6.0), -np.arange(6.0)], -1)[None]
    assert_allclose(correlations(series, wanted), [[1, -1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(correlations(series, np.zeros_like(series))).all()
        assert (correlations(np.zeros_like(series), wanted) == 0).all()


def test_a_silent_network_is_named(task):
    with pytest.warns(UserWarning, match="external_drive"):
        SpikingRegressor(**(SMALL | {"external_drive": 0.05, "max_iter": 1})).fit(*task)


def test_fitted_networks_are_pickled_and_go_on(task):
    network = SpikingRegressor(max_iter=1, **SMALL).fit(*task)
    copy, before = pickle.loads(pickle.dumps(network)), network.plastic_weights_.weights
    for each in (network, copy):
        each.partial_fit(*task)
    assert_array_equal(copy.plastic_weights_.weights, network.plastic_weights_.weights)
    assert abs(copy.plastic_weights_.weights - before).max() > 1e-3


@pytest.mark.slow
def test_the_regression_goes_on_from_loop_to_loop(task):
    network, left = SpikingRegressor(penalty=1e-4, sum_penalty=0.0, **SMALL), []
    for _ in range(3):
        network.partial_fit(*task)
        # of the best known direction: twice as much is known of it after two loops as after one
        left.append(np.linalg.eigvalsh(network._rls.precision)[:, 0].mean())
    assert_allclose(left[0] / np.array(left), [1, 2, 3], rtol=0.2)


def test_a_score_without_a_changing_target_is_not_defined(task, network):
    X, y = task
    with pytest.warns(UndefinedMetricWarning, match="no target changes"):
        assert np.isnan(network.score(X, np.ones_like(y)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_trials": 0}, "n_trials"),
        ({"n_trials": 1.5}, "n_trials"),
        ({"external": np.zeros(3)}, "external"),
        ({"external": np.nan}, "external"),
    ],
)
def test_bad_settings_of_simulations_are_refused(task, network, change, message):
    with pytest.raises(ValueError, match=message):
        network.simulate(task[0], **change)


def test_infinite_weights_end_training(task):
    network = SpikingRegressor(max_iter=1, **SMALL).fit(*task)
    network._rls.weights[0, 0] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match="loop 2"):
        network.partial_fit(*task)


def test_a_loop_that_fails_leaves_the_network_as_it_was(task):
    X, y = task
    network = SpikingRegressor(max_iter=1, **SMALL).fit(X, y)
    before, weights = network.predict(X), network.plastic_weights_.weights.copy()
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError):
        network.partial_fit(X, y + 1e200)
    assert_array_equal(network.plastic_weights_.weights, weights)
    assert_array_equal(network.predict(X), before)
    assert len(network.loss_curve_) == network.n_iter_ == 1
    again = SpikingRegressor(max_iter=1, **SMALL).fit(X, y).partial_fit(X, y)
    assert_array_equal(network.partial_fit(X, y).predict(X), again.predict(X))


@pytest.mark.parametrize(
    "options", [{"penalty": 1e-20}, {"sum_penalty": 1e16}, {"penalty": 1e-5, "dtype": "float32"}]
)
def test_penalties_that_cannot_be_inverted_are_refused(task, options):
    with pytest.raises(ValueError, match=r"penalty=.* is too small beside sum_penalty="):
        SpikingRegressor(max_iter=1, **SMALL | options).fit(*task)


@pytest.mark.parametrize("unit", [1e-170, 1.0, 1e170])
@pytest.mark.parametrize("value", [0.1, 0.5])
def test_constant_targets_do_not_count_whatever_they_are(unit, value):
    found = np.random.RandomState(0).normal(size=(1, 30, 3))
    wanted = unit * found.copy()
    wanted[..., 2] = unit * value
    correlation = correlations(found, wanted)
    assert_allclose(correlation[0, :2], 1.0, rtol=1e-12)
    assert np.isnan(correlation[0, 2])


@pytest.mark.parametrize("measure", [dale_violations, coupling_drift, coupling_spectrum])
def test_measures_need_a_fitted_network(measure):
    with pytest.raises(NotFittedError):
        measure(SpikingRegressor())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(5)}, "1D array|2D"),
        ({"y": np.zeros((1, 1, 10, 120))}, "dimensions"),
        ({"y": np.full((10, 120), np.nan)}, "NaN"),
        ({"y": np.zeros((2, 10, 120))}, "conditions"),
        ({"X": np.zeros((1, 119))}, "current"),
        ({"X": np.zeros((1, 5000, 120))}, "time steps"),
        ({"n_plastic": 60}, "n_plastic"),
        ({"n_excitatory": 120}, "n_excitatory"),
        ({"update_interval": 0.25}, "update_interval"),
        ({"groups": [0, 1]}, "groups"),
        ({"dt": 3.0, "update_interval": 30.0, "X": np.zeros((1, 120))}, "tau_static"),
        ({"connectivity": 1.0}, "connectivity"),
        ({"connectivity": 1.5}, "connectivity"),
        ({"connectivity": 1.0, "static_weights": False}, "connectivity"),
        ({"dtype": "int"}, "dtype"),
    ],
)
def test_bad_input_fails_before_any_work(task, change, message):
    X, y = task
    data = {"X": change.pop("X", X), "y": change.pop("y", y)}
    with pytest.raises(ValueError, match=message):
        SpikingRegressor(**(SMALL | change)).fit(**data)


def test_a_fitted_network_refuses_other_sizes(task, network):
    with pytest.raises(ValueError, match="fit anew"):
        pickle.loads(pickle.dumps(network)).partial_fit(None, np.zeros((10, 100)))
    with pytest.raises(ValueError, match="fit anew"):
        network.score(None, np.zeros((10, 100)))
    for width in (5000.0, 0.0, -1.0):
        with pytest.raises(ValueError, match="bin_width"):
            network.simulate(task[0], n_trials=1).counts(width)
    with pytest.raises(ValueError, match="at least 2"):
        fano_factor(network.simulate(task[0], n_trials=1))
    with pytest.raises(ValueError, match="duration"):
        network.simulate(task[0], duration=1.0)


def test_spike_trains_for_neo(network, task):
    neo = pytest.importorskip("neo")
    simulation = network.simulate(np.repeat(task[0], 2, axis=0), n_trials=3, duration=200.0)
    block = simulation.to_neo()
    assert isinstance(block, neo.Block)
    assert len(block.segments) == 6
    found = 0
    for i, segment in enumerate(block.segments):
        condition, trial = divmod(i, 3)
        assert segment.annotations == {"condition": condition, "trial": trial}
        assert len(segment.spiketrains) == 120
        for neuron, train in enumerate(segment.spiketrains):
            kind = "E" if neuron < network.n_excitatory_ else "I"
            assert train.annotations == {"neuron": neuron, "population": kind}
            assert train.units.dimensionality.string == "ms"
            # 200 ms of burn-in, and as long a cue
            assert (float(train.t_start), float(train.t_stop)) == (-400.0, 200.0)
            own = simulation.spike_conditions == condition
            own &= (simulation.spike_trials == trial) & (simulation.spike_neurons == neuron)
            assert_array_equal(train.magnitude, np.sort(simulation.spike_times[own]))
            found += len(train)
    assert found == len(simulation.spike_times) > 0
    counts = [[len(train.time_slice(0, None)) for train in s.spiketrains] for s in block.segments]
    assert_array_equal(np.reshape(counts, (2, 3, 120)), simulation.counts()[:, :, 0])


def test_spike_trains_whose_start_is_not_known():
    pytest.importorskip("neo")
    columns = np.array([-30.0, 50.0]), np.array([0, 0]), np.array([1, 0])
    block = recorded(*columns, shape=(1, 1, 3)).to_neo()
    first, second, silent = block.segments[0].spiketrains
    assert (first.tolist(), second.tolist(), silent.tolist()) == ([50.0], [-30.0], [])
    assert {float(train.t_start) for train in (first, second, silent)} == {-30.0}
    assert {float(train.t_stop) for train in (first, second, silent)} == {1000.0}


def test_neo_is_an_extra():
    nothing = recorded(np.empty(0), *np.empty((2, 0), int), shape=(1, 1, 2))
    wanted = r"needs neo: .*ssn_estimators\[neo\]"
    with mock.patch.dict(sys.modules, {"neo": None}), pytest.raises(ImportError, match=wanted):
        nothing.to_neo()


def test_rasters(network, task):
    plt = pytest.importorskip("matplotlib.pyplot")
    X = task[0]
    simulation = network.simulate(X, n_trials=2)
    _, axes = plt.subplots(1, 2)
    display = RasterDisplay.from_simulation(simulation, trial=1, ax=axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is axes[1].figure
    assert not axes[0].has_data()
    assert (axes[1].get_xlabel(), axes[1].get_ylabel()) == ("time (ms)", "neuron")
    own = simulation.spike_trials == 1
    drawn = np.concatenate([line.get_xydata() for line in display.lines_])
    spikes = np.stack([simulation.spike_times[own], simulation.spike_neurons[own]], 1)
    assert {tuple(spike) for spike in drawn} == {tuple(spike) for spike in spikes}
    excitatory, inhibitory = (line.get_ydata() for line in display.lines_)
    assert excitatory.max() < network.n_excitatory_ <= inhibitory.min()
    assert [line.get_label() for line in display.lines_] == ["E", "I"]
    # in seconds, in part, and the other way round within each type
    display.plot(unit="s", window=(-100.0, 50.0), order=np.arange(120)[::-1])
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("time (s)", "neuron (sorted)")
    assert display.ax_.get_xlim() == (-0.1, 0.05)
    n_excitatory = network.n_excitatory_
    shown = own & (simulation.spike_times >= -100) & (simulation.spike_times <= 50)
    shown &= simulation.spike_neurons < n_excitatory
    assert_array_equal(
        display.lines_[0].get_ydata(), n_excitatory - 1 - simulation.spike_neurons[shown]
    )
    display.figure_.canvas.draw()
    once = RasterDisplay.from_estimator(make_pipeline(network), X)
    assert_array_equal(once.spike_times, network.simulate(X, n_trials=1).spike_times)
    plt.close("all")


def test_rasters_that_cannot_be_drawn(network):
    pytest.importorskip("matplotlib")
    raster = RasterDisplay(spike_times=[1.0], spike_neurons=[0], populations={"E": 1, "I": 1})
    with pytest.raises(ValueError, match="unit must be one of"):
        raster.plot(unit="min")
    with pytest.raises(ValueError, match="order must have each of the 2 cells once"):
        raster.plot(order=[0, 0])
    with pytest.raises(ValueError, match="a first and a later time"):
        raster.plot(window=(5.0, 0.0))
    for times, cells in (([1.0], [2]), ([1.0], [-1]), ([1.0], [0.5]), ([1.0, 2.0], [0])):
        spikes = RasterDisplay(spike_times=times, spike_neurons=cells, populations={"E": 1, "I": 1})
        with pytest.raises(ValueError, match="a time and a cell from 0 to 1"):
            spikes.plot()
    simulation = network.simulate(n_trials=1, duration=20.0)
    with pytest.raises(ValueError, match="trial must be from 0 to 0"):
        RasterDisplay.from_simulation(simulation, trial=1)
    with pytest.raises(NotFittedError):
        RasterDisplay.from_estimator(SpikingRegressor())
    with pytest.raises(TypeError, match="got LinearRegression"):
        RasterDisplay.from_estimator(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]))
