"""What type checkers make of the package as users call it; mypy reads this, nothing runs it.

A comment to ignore an error is one itself where there is none: each says what is refused.
"""

from typing import assert_type

import numpy as np
import torch
from sklearn.datasets import load_digits

import ssn_estimators
from ssn_estimators import (
    Circuit,
    GaussianScaleMixture,
    Simulation,
    SSNClassifier,
    SSNRegressor,
    SSNSampler,
    SSNSequenceClassifier,
    StabilityReport,
    StationaryMoments,
    circuits,
    fit_many,
    gaussian_ring,
    simulate,
    simulate_many,
    stability_report,
    stationary_moments,
)
from ssn_estimators.inspection import contrast_response, steady_states


def checked() -> None:
    """Never called: what fails here fails mypy."""
    X, y = load_digits(return_X_y=True)

    # estimators: fit gives back what it was called on
    classifier = SSNClassifier(20, 5, growth="single", gamma=2.0, class_weight={3: 2.0}, verbose=1)
    assert_type(classifier.fit(X, y), SSNClassifier)
    assert_type(classifier.partial_fit(X, y, classes=range(10)), SSNClassifier)
    assert_type(SSNClassifier().fit(X, y).predict(X), np.ndarray)
    assert_type(classifier.predict_proba(X, method="closure"), np.ndarray)
    assert_type(classifier.simulate(X, n_trials=3), Simulation)
    assert_type(SSNClassifier.from_paper("mnist-50:50"), SSNClassifier)
    assert_type(SSNRegressor(max_iter=10).fit(X, y, sample_weight=None), SSNRegressor)
    assert_type(SSNSequenceClassifier(time_step=10.0).fit(X[:, :, None], y), SSNSequenceClassifier)
    assert_type(fit_many([SSNClassifier(), SSNClassifier()], X, y), list[SSNClassifier])
    assert_type(stability_report(classifier, X), StabilityReport)

    class Mine(SSNClassifier):
        pass

    assert_type(Mine().fit(X, y), Mine)

    SSNClassifier(solver="rk4")  # type: ignore[arg-type]
    SSNClassifier(max_itr=3)  # type: ignore[call-arg]
    SSNClassifier().fit(X)  # type: ignore[call-arg]
    SSNRegressor(burn_in="long")  # type: ignore[arg-type]

    # a model and its sampler
    model = GaussianScaleMixture(10, random_state=np.random.RandomState(0)).fit(X)
    assert_type(model, GaussianScaleMixture)
    assert_type(model.posterior_moments(X), tuple[np.ndarray, np.ndarray])
    sampler = SSNSampler(model, random_state=0).fit(X)
    assert_type(sampler, SSNSampler)
    assert_type(sampler.predict(X), np.ndarray)
    assert_type(sampler.predict(X, return_std=True), tuple[np.ndarray, np.ndarray])
    assert_type(sampler.predict(X, return_cov=True), tuple[np.ndarray, np.ndarray])
    assert_type(sampler.sample(X, 1000), np.ndarray)

    # circuits and what is asked of them
    pair = Circuit([[1.25, -0.65], [1.2, -0.5]], n_excitatory=1, noise_factor=0.2, k=0.04)
    assert_type(pair.n_neurons, int)
    assert_type(pair.to_torch(dtype=torch.float64), Circuit)
    assert_type(pair.drive([[2.0, 2.0]]), np.ndarray | torch.Tensor)
    simulation = simulate(pair, pair.drive([[2.0, 2.0]]), n_trials=100, duration=1000.0, record="u")
    assert_type(simulation, Simulation)
    assert_type(simulation.message, str)
    assert_type(simulate_many([pair], [np.ones((1, 2))], random_state=[0]), list[Simulation])
    assert_type(stationary_moments(pair, torch.ones(1, 2)), StationaryMoments)
    assert_type(steady_states(pair, [[2.0, 2.0]]).rates, np.ndarray)
    assert_type(gaussian_ring(8, [[1.0, 0.5], [1.0, 0.5]], [[1.0, 1.0], [1.0, 1.0]]), Circuit)
    published = circuits.ahmadian_2013_pair()
    assert_type(published.circuit, Circuit)
    contrast_response(published.circuit, [1.0, 1.0], range(1, 101)).supersaturation()

    Circuit([[0.0]], 1, dynamics="spikes")  # type: ignore[arg-type]
    simulate(pair, solver="rk4")  # type: ignore[call-arg, arg-type]

    assert_type(ssn_estimators.__version__, str)
