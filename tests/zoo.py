"""One estimator of each class that takes a table, small enough to be fitted many times."""

from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
from sklearn.base import clone, is_regressor

from ssn_estimators import (
    AutoencoderEncoder,
    CircuitRegressor,
    CNNClassifier,
    ContrastNormalizer,
    FokkerPlanckRegressor,
    GaborEncoder,
    GaussianScaleMixture,
    GMMFlow,
    LateralContext,
    MorrisLecarClassifier,
    RNNClassifier,
    SSNClassifier,
    SSNRegressor,
    SSNSampler,
    SSNSequenceClassifier,
    SSNSequenceRegressor,
)

ESTIMATORS = [
    SSNClassifier(
        max_iter=40,
        growth_iter=10,
        learning_rate_init=0.03,
        n_trials_predict=2,
        burn_in=40.0,
        window=20.0,
    ),
    SSNRegressor(
        max_iter=40,
        growth_iter=10,
        learning_rate_init=0.03,
        n_trials_predict=2,
        burn_in=40.0,
        window=20.0,
    ),
    SSNSequenceClassifier(
        8,
        time_step=10.0,
        dt=5.0,
        burn_in=20.0,
        max_iter=40,
        growth_iter=10,
        learning_rate_init=0.03,
        n_trials_predict=2,
    ),
    SSNSequenceRegressor(
        12,
        6,
        time_step=10.0,
        dt=5.0,
        solver="ab2",
        burn_in=20.0,
        max_iter=40,
        growth_iter=10,
        learning_rate_init=0.02,
        input_noise=0.0,
        n_trials_predict=2,
    ),
    MorrisLecarClassifier(
        16,
        word_duration=15.0,
        dt=0.5,
        n_samples=4,
        max_iter=40,
        learning_rate_init=0.05,
    ),
    RNNClassifier(30, max_iter=300, learning_rate_init=0.03),
    AutoencoderEncoder(3, hidden_layer_sizes=(8,), max_iter=10),
    ContrastNormalizer(),
    LateralContext(),
    CNNClassifier((4,), n_hidden=16, lateral="linear", max_iter=60, learning_rate_init=0.02),
    FokkerPlanckRegressor(n_frequencies=60),
    GMMFlow(2, n_layers=2, hidden_layer_sizes=(8,), max_iter=10),
    GaborEncoder(3),
    GaussianScaleMixture(3, max_iter=20),
    CircuitRegressor(n_starts=2, random_state=0),
    SSNSampler(
        GaussianScaleMixture(2, max_iter=10),
        max_iter=3,
        growth_iter=1,
        finetune_iter=1,
        n_trials_predict=4,
        window_predict=60.0,
    ),
]

METHODS = ("predict", "predict_proba", "decision_function", "transform", "score_samples")


def targets(estimator, y):
    """Labels, or for regressors numbers in their place."""
    return np.unique(y, return_inverse=True)[1] if is_regressor(estimator) else y


def small(estimator):
    """A clone that is fitted in a moment."""
    made = clone(estimator)
    few = {"max_iter": 6, "growth_iter": 2, "random_state": 0}
    return made.set_params(**{k: v for k, v in few.items() if k in made.get_params()})


@contextmanager
def short_confirmations():
    """For tests that do not ask how long networks are watched before they are called stable."""
    short = {
        "training.guard.FINAL_DURATION": 50.0,
        "training.guard.LONG_DURATION": 50.0,
        "training.loop.REPAIRS": 0,
    }
    with ExitStack() as stack:
        for name, value in short.items():
            stack.enter_context(mock.patch(f"ssn_estimators.{name}", value))
        yield
