"""scikit-learn's own checks of estimators; none may fail, and none may go missing."""

from inspect import isclass

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import ssn_estimators
from ssn_estimators import (
    AutoencoderEncoder,
    CNNClassifier,
    ContrastNormalizer,
    FokkerPlanckRegressor,
    GaborEncoder,
    GaussianScaleMixture,
    GMMFlow,
    LateralContext,
    MorrisLecarClassifier,
    RNNClassifier,
    SpikingRegressor,
    SSNClassifier,
    SSNSampler,
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
    SSNSampler(
        GaussianScaleMixture(2, max_iter=10),
        max_iter=3,
        growth_iter=1,
        finetune_iter=1,
        n_trials_predict=4,
        window_predict=60.0,
    ),
]
N_CHECKS = {
    SSNClassifier: 61,
    MorrisLecarClassifier: 61,
    RNNClassifier: 61,
    AutoencoderEncoder: 47,
    ContrastNormalizer: 47,
    LateralContext: 48,
    CNNClassifier: 55,
    FokkerPlanckRegressor: 41,
    GMMFlow: 41,
    GaborEncoder: 47,
    GaussianScaleMixture: 47,
    SSNSampler: 47,
}


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_all_checks_are_run(estimator):
    checks = [check for _, check in estimator_checks_generator(estimator)]
    names = [getattr(check, "func", check).__name__ for check in checks]
    assert len(names) == N_CHECKS[type(estimator)]
    # the only one that is skipped, where SCIPY_ARRAY_API is not set
    assert names.count("check_array_api_input") == 1


# its targets are trajectories: they and its errors are tested in test_spiking.py
NOT_OF_TABLES = {SpikingRegressor}


def test_every_public_estimator_is_checked():
    public = {getattr(ssn_estimators, name) for name in ssn_estimators.__all__}
    estimators = {x for x in public if isclass(x) and issubclass(x, BaseEstimator)}
    assert estimators - NOT_OF_TABLES == {type(estimator) for estimator in ESTIMATORS}
    assert {type(estimator) for estimator in ESTIMATORS} == set(N_CHECKS)
