"""Small data and fitted networks that many tests look at; none may change them."""

import copy
import os
import re
from dataclasses import replace
from types import SimpleNamespace

if "PYTEST_XDIST_WORKER" in os.environ:  # there is a process for every core
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything that reads it is imported

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from ssn_estimators import SSNClassifier

# of scikit-learn's checks, which cannot be marked where they are: a thousand steps of training, and
# what is asked of other arrays once more
SLOW_CHECKS = (
    "check_class_weight_classifiers",
    "SSNSequenceRegressor.*check_regressors_train.*memmap",
)
SETTINGS = {
    "max_iter": 60,
    "growth_iter": 10,
    "burn_in": 40.0,
    "window": 20.0,
    "n_trials_predict": 4,
    "random_state": 0,
}


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are left out
def pytest_collection_modifyitems(items):
    for item in items:
        if any(re.search(check, item.name) for check in SLOW_CHECKS):
            item.add_marker(pytest.mark.slow)


def runaway_copy(network):
    """The network with a circuit in which excitation is not held in check."""
    circuit = network.circuit_
    weights = np.where(circuit.signs > 0, 20.0, 0.0) * np.ones_like(circuit.weights)
    network = copy.copy(network)
    network.circuit_ = replace(circuit, weights=weights.astype(np.float32))
    return network


def noting_callback(answer=lambda hook, context: None):
    """A callback that notes (hook, task) and answers as it is told."""
    record = []

    def note(hook, context):
        record.append((hook, context.task_name))
        return answer(hook, context)

    return SimpleNamespace(
        record=record,
        setup=lambda estimator, context: note("setup", context),
        on_fit_task_begin=lambda estimator, context: note("begin", context),
        on_fit_task_end=lambda estimator, context: note("end", context),
        teardown=lambda estimator, context: note("teardown", context),
    )


@pytest.fixture(scope="session")
def recorder():
    """Makes callbacks that note what they see."""
    return noting_callback


@pytest.fixture(scope="session")
def blobs():
    return make_blobs(150, n_features=4, centers=3, random_state=0)


@pytest.fixture(scope="session")
def small_ssn():
    """Makes classifiers that are quick to train."""
    return lambda **parameters: SSNClassifier(**(SETTINGS | parameters))


@pytest.fixture(scope="session")
def fitted(small_ssn, blobs):
    return small_ssn().fit(*blobs)


@pytest.fixture(scope="session")
def runaway(fitted):
    return runaway_copy(fitted)
