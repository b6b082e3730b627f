"""scikit-learn's own checks of estimators; none may fail, and none may go missing."""

from contextlib import nullcontext
from inspect import isclass

import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks
from zoo import ESTIMATORS, short_confirmations

import ssn_estimators
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
    SpikingRegressor,
    SSNClassifier,
    SSNRegressor,
    SSNSampler,
    SSNSequenceClassifier,
    SSNSequenceRegressor,
)

N_CHECKS = {
    SSNClassifier: 69,
    SSNRegressor: 66,
    SSNSequenceClassifier: 63,
    SSNSequenceRegressor: 59,
    MorrisLecarClassifier: 69,
    RNNClassifier: 69,
    AutoencoderEncoder: 47,
    ContrastNormalizer: 47,
    LateralContext: 48,
    CNNClassifier: 63,
    FokkerPlanckRegressor: 41,
    GMMFlow: 41,
    GaborEncoder: 47,
    GaussianScaleMixture: 47,
    SSNSampler: 47,
    CircuitRegressor: 53,
}


OF_LEARNING = {
    "check_classifiers_train",
    "check_regressors_train",
    "check_class_weight_classifiers",
}
LONGER = {
    (SSNSequenceClassifier, "check_classifiers_train"): {"max_iter": 100},
    # to remember the fifth of ten numbers
    (SSNSequenceRegressor, "check_regressors_train"): {"max_iter": 400, "learning_rate_init": 0.03},
}


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_check(estimator, check):
    name = getattr(check, "func", check).__name__
    estimator = clone(estimator).set_params(**LONGER.get((type(estimator), name), {}))
    with nullcontext() if name in OF_LEARNING else short_confirmations():
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
