"""Outputs that potentials stand for are those of prediction."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ssn_estimators import SSNSequenceClassifier, SSNSequenceRegressor, simulate

SHORT = {"time_step": 10.0, "dt": 5.0, "burn_in": 20.0, "max_iter": 5, "growth_iter": 2}
X = np.random.RandomState(0).uniform(size=(20, 6, 2))
LABELS = np.repeat([0, 1, 2, 0], 5)


def recorded(estimator):
    """Mean potentials of the time steps of all sequences, simulated from outside."""
    simulation = simulate(
        estimator.circuit_,
        estimator.drive(X),
        drive_step=10.0,
        duration=60.0,
        burn_in=20.0,
        dt=5.0,
        n_trials=4,
        shared_noise=True,
        random_state=estimator.noise_seed_,
        record="u",
    )
    return simulation.u.reshape(6, 2, 20, 4, -1).mean((1, 3)).swapaxes(0, 1)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_outputs_of_potentials():
    lags = 100 + 10 * np.roll(X, 1, axis=1)  # which are standardised in training
    regressor = SSNSequenceRegressor(8, **SHORT, random_state=0).fit(X, lags)
    assert_allclose(regressor.read_out(recorded(regressor)), regressor.predict(X), rtol=1e-5)
    classifier = SSNSequenceClassifier(8, **SHORT, random_state=0).fit(X, LABELS)
    logits = classifier.read_out(recorded(classifier))
    assert_allclose(logits[:, -1], classifier.decision_function(X), rtol=1e-4, atol=1e-5)
    # linear, but for the bias
    u = recorded(classifier)[0]
    assert_allclose(classifier.read_out(u.mean(0)), classifier.read_out(u).mean(0), atol=1e-10)
    with pytest.raises(ValueError, match=r"u must have shape \(\.\.\., 10\), got \(3, 9\)"):
        regressor.read_out(np.zeros((3, 9)))
