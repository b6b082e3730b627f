"""How far training moves summed weights and signs: estimates, regressions and networks."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from ssn_estimators import SpikingRegressor
from ssn_estimators.datasets import make_cued_sinusoids
from ssn_estimators.spike_statistics import (
    coupling_drift,
    drift_statistics,
    expected_coupling_drift,
)

WEIGHTS, N_INPUTS = np.array([2.0, -1.5]), np.array([3, 4])
GROUPS = np.repeat([0, 1], N_INPUTS)
ACTIVITY = {
    "mean": [0.5, 0.9],
    "variance": [0.02, 0.05],
    "heterogeneity": [0.03, 0.01],
    "n_samples": 60,
    "n_effective": [4.0, 9.0],
    "deviation": 0.7,
    "deviation_variance": 0.3,
}


def ridge(inputs, deviation, penalty, sum_penalty, groups=GROUPS):
    """Change of weights of one cell."""
    prior = penalty * np.eye(len(groups)) + sum_penalty * (groups[:, None] == groups)
    return np.linalg.solve(prior + inputs.T @ inputs, inputs.T @ deviation)


def assumed(
    rng, mean, variance, heterogeneity, n_samples, n_effective, deviation, deviation_variance
):
    """Inputs and deviations just as the estimate assumes."""
    own = np.empty((2, len(GROUPS)))  # of mean 0 and variance 1 in each group, not correlated
    for g, n in enumerate(N_INPUTS):
        centred = np.linalg.qr(np.column_stack([np.ones(n), rng.randn(n, 2)]))[0][:, 1:]
        own[:, GROUPS == g] = np.sqrt(n) * centred.T
    means = np.take(mean, GROUPS) + np.sqrt(np.take(heterogeneity, GROUPS)) * own[0]
    random = rng.randn(n_samples, len(GROUPS) + 2)
    random[:, 0] = 1.0
    signal, *noise = np.sqrt(n_samples) * np.linalg.qr(random)[0][:, 1:].T
    noise = np.sqrt(np.take(variance, GROUPS)) * np.transpose(noise)
    shared = np.sqrt(np.take(variance, GROUPS) / np.take(n_effective, GROUPS)) * own[1]
    inputs = means + noise + signal[:, None] * shared
    return inputs, deviation - noise @ WEIGHTS[GROUPS] + np.sqrt(deviation_variance) * signal


@pytest.mark.parametrize("penalty", [0.1, 10.0])
@pytest.mark.parametrize("sum_penalty", [0.0, 3.0])
def test_estimates_are_exact_where_the_assumptions_hold(penalty, sum_penalty):
    inputs, deviation = assumed(np.random.RandomState(0), **ACTIVITY)
    change = ridge(inputs, deviation, penalty, sum_penalty)
    penalties = {"penalty": penalty, "sum_penalty": sum_penalty}
    expected = expected_coupling_drift(WEIGHTS, N_INPUTS, **ACTIVITY, **penalties)
    size = N_INPUTS * abs(WEIGHTS)
    assert_allclose(expected.drift, np.bincount(GROUPS, change) / size, rtol=1e-9)
    assert_allclose(expected.spread, [change[GROUPS == g].std() for g in (0, 1)], rtol=1e-9)


def test_spread_and_signs_are_those_of_regressions_on_noise():
    rng, n, n_samples = np.random.RandomState(0), np.array([40, 40]), 400
    groups, signs = np.repeat([0, 1], n), np.repeat([1, -1], n)
    changes = []
    for _ in range(100):
        inputs = 0.02 * rng.randn(n_samples, 80)
        deviation = 3.0 * rng.randn(n_samples) - inputs @ signs
        changes.append(ridge(inputs, deviation, 0.8, 8.0, groups))
    changes = np.array(changes)
    expected = expected_coupling_drift(
        [1.0, -1.0],
        n,
        mean=[0.0, 0.0],
        variance=[4e-4, 4e-4],
        n_samples=n_samples,
        deviation_variance=9.0,
    )
    assert_allclose(expected.spread, changes.std(), rtol=0.1)
    changed = (signs * (signs + changes) < 0).mean()
    assert 0.05 < changed < 0.3
    assert_allclose(expected.changed_signs, changed, rtol=0.2)


@pytest.mark.parametrize("name", ["penalty", "sum_penalty"])
def test_large_penalties_let_nothing_drift(name):
    drift = [
        abs(expected_coupling_drift(WEIGHTS, N_INPUTS, **ACTIVITY, **{name: size}).drift)
        for size in (1e6, 1e9)
    ]
    assert_allclose(drift[0] / drift[1], 1000, rtol=1e-3)
    assert (drift[1] < 1e-7).all()


def test_the_sum_penalty_does_little_to_signs_and_the_other_keeps_them():
    activity = ACTIVITY | {"deviation_variance": 200.0}

    def changed(**penalties):
        return expected_coupling_drift(WEIGHTS, N_INPUTS, **activity, **penalties).changed_signs

    assert (changed(sum_penalty=1e9) > 0.05).all()
    assert (changed(penalty=1e9) < 1e-9).all()


@pytest.mark.parametrize("sum_penalty", [0.0, 1.0, 100.0])
def test_noise_alone_shrinks_sums_by_what_is_known_of_it(sum_penalty):
    quiet = ACTIVITY | {"mean": [0.0, 0.0], "deviation": 0.0}
    expected = expected_coupling_drift(
        WEIGHTS, N_INPUTS, **quiet, penalty=0.5, sum_penalty=sum_penalty
    )
    known = 60 * np.array(ACTIVITY["variance"])
    share = known / (0.5 + known + sum_penalty * N_INPUTS)
    assert_allclose(expected.drift, -np.sign(WEIGHTS) * share)


def test_nothing_is_further_than_the_bound():
    rng = np.random.RandomState(0)
    for scale in np.logspace(-2, 2, 50):
        inputs = scale * rng.randn(30, 2) @ rng.randn(2, 7)  # far from what is assumed
        deviation = 1.0 + inputs @ rng.randn(7)
        sums = np.bincount(GROUPS, ridge(inputs, deviation, 0.8, 8.0))
        activity = {"mean": [0.0, 0.0], "variance": [1.0, 1.0], "n_samples": 30}
        bound = expected_coupling_drift(
            WEIGHTS,
            N_INPUTS,
            **activity,
            deviation=deviation.mean(),
            deviation_variance=deviation.var(),
        ).bound
        assert (abs(sums) / (N_INPUTS * abs(WEIGHTS)) <= bound).all()


def test_the_bound_can_be_reached():
    inputs, groups = np.full((1, 1), np.sqrt(0.8 + 8.0)), np.array([0])
    change = ridge(inputs, np.array([0.6]), 0.8, 8.0, groups)
    expected = expected_coupling_drift(
        [2.0], [1], mean=inputs[0], variance=[0.0], n_samples=1, deviation=0.6
    )
    assert_allclose(expected.bound, change / 2.0)
    assert_allclose(expected.drift, change / 2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.1, 0.1, 0.1]}, "mean must have an entry for each of the 2 groups"),
        ({"mean": [-0.1, 0.1]}, "mean must be finite and at least 0"),
        ({"variance": [np.nan, 0.1]}, "variance must be finite"),
        ({"heterogeneity": [-1.0, 0.1]}, "heterogeneity"),
        ({"n_inputs": [0, 1]}, "n_inputs"),
        ({"n_effective": [0.0, 1.0]}, "n_effective"),
        ({"weights": [0.0, 1.0]}, "weights must not be 0"),
        ({"n_samples": 0}, "n_samples"),
        ({"recurring": 0.0}, "recurring"),
        ({"penalty": 0.0}, "penalty"),
        ({"deviation": np.inf}, "deviation"),
    ],
)
def test_bad_statistics_are_refused(change, message):
    given = {"weights": WEIGHTS, "n_inputs": N_INPUTS} | ACTIVITY | change
    with pytest.raises(ValueError, match=message):
        expected_coupling_drift(**given)


OPTIONS = {"connectivity": 0.5, "external_drive": 0.16, "burn_in": 200.0, "random_state": 0}


def spread(network):
    change = network.plastic_weights_.weights - network.initial_weights_
    return np.array([own.std(1).mean() for own in np.split(change, 2, axis=1)])


# Rates move in the course of training, so that the deviation at its end is up to twice what it was
# on average, of which few trials tell; and the signals that inputs share are not of one size.
FACTOR = 3


@pytest.mark.slow
def test_networks_drift_as_estimated():
    X, y = make_cued_sinusoids(300, random_state=3)
    estimated, found = [], []
    for mu in (0.0, 0.2, 2.0):
        network = SpikingRegressor(sum_penalty=mu, max_iter=15, **OPTIONS).fit(X, y)
        expected = expected_coupling_drift(**drift_statistics(network, X, y), sum_penalty=mu)
        ratio = expected.spread / spread(network)
        assert ((1 / FACTOR < ratio) & (ratio < FACTOR)).all()
        # of both groups, as what raises and what lowers the sum of one may nearly cancel
        estimated.append(np.abs(expected.drift).sum())
        found.append(np.abs(list(coupling_drift(network).values())).sum())
    for drift in (estimated, found):
        assert drift[0] > 2 * drift[1] > 4 * drift[2]
    ratio = np.divide(estimated, found)
    assert ((1 / FACTOR < ratio) & (ratio < FACTOR)).all()


@pytest.fixture(scope="module")
def trained():
    """A task, and a network that was trained for it."""
    task = make_cued_sinusoids(120, n_times=60, random_state=0)
    return task, SpikingRegressor(sum_penalty=2.0, max_iter=5, **OPTIONS).fit(*task)


def test_changes_are_as_wide_as_estimated_and_within_the_bound(trained):
    task, network = trained
    expected = expected_coupling_drift(**drift_statistics(network, *task), sum_penalty=2.0)
    ratio = expected.spread / spread(network)
    assert ((1 / FACTOR < ratio) & (ratio < FACTOR)).all()
    assert (np.abs(list(coupling_drift(network).values())) < expected.bound).all()


def test_statistics_are_those_of_the_simulation(trained):
    task, network = trained
    statistics = drift_statistics(network, *task)
    assert_allclose(statistics.weights, network.initial_weights_[0, [0, -1]])
    assert_allclose(statistics.n_inputs, 10)
    assert statistics.n_samples == 5 * 60
    simulation = network.simulate(task[0], n_trials=8, random_state=0)
    rates = np.split(simulation.rates(), 2)
    # the filter still remembers the cue
    assert_allclose(1000 * statistics.mean, [r.mean() for r in rates], rtol=0.2)
    # about as irregular as Poisson trains, filtered with 150 ms
    assert_allclose(statistics.variance / (statistics.mean / 300), 1, atol=0.5)
    assert 0 < statistics.recurring < 1


def test_deviations_are_those_of_the_initial_weights():
    """Where they are the present ones, they are what the drive misses."""
    X, y = make_cued_sinusoids(80, n_conditions=2, n_times=20, random_state=0)
    network = SpikingRegressor(penalty=1e9, max_iter=1, **OPTIONS).fit(X, y)
    statistics = drift_statistics(network, X, y, n_trials=3)
    simulation = network.simulate(X, n_trials=3, random_state=0)
    missed = y[:, None] + network.baseline_ - simulation.drive
    assert_allclose(statistics.deviation, missed.mean(), rtol=1e-4)
    assert_allclose(statistics.deviation_variance, missed.var((0, 1, 2)).mean(), rtol=1e-4)
    assert statistics.n_samples == 40


def test_filtered_trains_make_the_drive():
    """Had all synapses started from nothing, targets would be all that is missed."""
    X, y = make_cued_sinusoids(80, n_conditions=2, n_times=20, random_state=0)
    y += 0.5
    network = SpikingRegressor(static_weights=False, baseline=None, max_iter=1, **OPTIONS)
    network.fit(X, y).initial_weights_ *= 1e-9
    statistics = drift_statistics(network, X, y, n_trials=2)
    assert_allclose(statistics.deviation, y.mean(), rtol=0.01)
    assert_allclose(statistics.deviation_variance, y.var((0, 1)).mean(), rtol=0.02)
    assert_allclose(statistics.recurring, 1.0, atol=0.02)


def test_statistics_need_trials_and_groups_of_cell_types(trained):
    task, network = trained
    with pytest.raises(ValueError, match="at least 2"):
        drift_statistics(network, *task, n_trials=1)
    with pytest.raises(NotFittedError):
        drift_statistics(SpikingRegressor(), *task)
    other = clone(network).set_params(groups=np.zeros(120), max_iter=1).fit(*task)
    with pytest.raises(ValueError, match="groups=None"):
        drift_statistics(other, *task)
