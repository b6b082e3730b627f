"""Any time step that divides the times that were given: others are rounded up to whole steps."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from zoo import ESTIMATORS, short_confirmations, small, targets

from ssn_estimators import Circuit, stability_report, stability_score, stable_pair
from ssn_estimators.base import BaseSSN
from ssn_estimators.inspection import oscillations
from ssn_estimators.plotting import TrajectoryDisplay
from ssn_estimators.simulation import lasting

X = np.random.RandomState(0).uniform(size=(40, 9))  # as many as models of the zoo may be fitted to
LABELS = np.arange(40) % 2
NETWORKS = [e for e in ESTIMATORS if isinstance(e, BaseSSN)]
# multiples of 0.3, 1.5 and 3
TIMES = {"burn_in": 60.0, "window": 60.0, "window_predict": 60.0, "time_step": 30.0}


@pytest.mark.parametrize(("dt", "duration"), [(0.3, 500.1), (3.0, 501.0), (1.0, 500.0)])
def test_durations_are_rounded_up(dt, duration):
    assert lasting(500.0, dt) == pytest.approx(duration, rel=1e-12)


@pytest.mark.parametrize("duration", [np.inf, np.nan, "long", None])
def test_what_is_no_time_is_left_to_others(duration):
    assert lasting(duration, 1.0) is duration


@pytest.mark.parametrize("dt", [0.3, 1.5, 3.0])
@pytest.mark.parametrize("estimator", NETWORKS, ids=lambda e: type(e).__name__)
def test_networks_are_trained_and_judged_at_any_step(estimator, dt):
    network = small(estimator)
    known = network.get_params()
    network.set_params(dt=dt, **{k: v for k, v in TIMES.items() if k in known})
    with short_confirmations(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(X, targets(network, LABELS))
    assert 0 <= stability_score(network, X[:2], duration=100.0) <= 1
    report = stability_report(network, X[:2], duration=100.0, n_surrogates=1)
    assert 0 <= report.trained <= 1
    assert (
        len(TrajectoryDisplay.from_estimator(network, X[:1], duration=100.0).times) > 100 / dt - 1
    )


@pytest.mark.parametrize("estimator", NETWORKS, ids=lambda e: type(e).__name__)
def test_times_that_were_given_are_named(estimator):
    names = [name for name in TIMES if name in estimator.get_params()]
    assert len(names) > 1
    for name in names:
        network = clone(estimator).set_params(dt=1.0, **{n: TIMES[n] for n in names})
        network.set_params(**{name: 60.5})
        with pytest.raises(ValueError, match=rf"{name} must be a multiple of dt=1 ms"):
            network.fit(X, targets(network, LABELS))


def test_functions_of_circuits():
    pair = stable_pair([[1.0, 1.0]], dt=0.3, random_state=0)
    assert isinstance(pair, Circuit)
    assert not oscillations(pair, [[1.0, 1.0]], dt=0.3).oscillating.any()
