"""Threads of libraries: one in loops of small operations, all of them before, between and after."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from zoo import short_confirmations

from ssn_estimators import (
    AutoencoderEncoder,
    CNNClassifier,
    GaussianScaleMixture,
    GMMFlow,
    MorrisLecarClassifier,
    RNNClassifier,
    SSNClassifier,
    SSNSampler,
    SSNSequenceClassifier,
)
from ssn_estimators._threads import alone, is_alone, n_threads, pool, together

N_THREADS = 3
FEW = {"max_iter": 3, "random_state": 0}
GROWN = FEW | {"growth_iter": 1}
IN_SMALL_STEPS = {
    "circuit": SSNClassifier(**GROWN),
    "circuit in time": SSNSequenceClassifier(4, 2, **GROWN),
    "RNN": RNNClassifier(5, **FEW),
    "autoencoder": AutoencoderEncoder(2, **FEW),
    "CNN": CNNClassifier((2,), **FEW),
    "flow": GMMFlow(2, **FEW),
    "Morris-Lecar cells": MorrisLecarClassifier(4, trainer="bptt", word_duration=10.0, **FEW),
}
X, Y = load_iris(return_X_y=True)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(N_THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def seen(monkeypatch):
    """Numbers of threads at every step: of libraries, and of what is shared out."""
    found, usual = [], torch.Tensor.backward

    def backward(self, *args, **kwargs):
        found.append((torch.get_num_threads(), n_threads()))
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    return found


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", IN_SMALL_STEPS.values(), ids=IN_SMALL_STEPS)
def test_small_steps_take_one_thread(estimator, seen):
    with short_confirmations():
        estimator.fit(X, Y)
    assert set(seen) == {(1, N_THREADS)}
    assert torch.get_num_threads() == n_threads() == N_THREADS


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_equations_are_solved_by_all_threads(seen):
    model = GaussianScaleMixture(2, max_iter=3, random_state=0)
    SSNSampler(model, finetune_iter=2, **GROWN).fit(X)
    assert {(N_THREADS, N_THREADS), (1, N_THREADS)} == set(seen)
    assert torch.get_num_threads() == N_THREADS


def test_large_steps_take_all_threads(seen):
    images = np.random.RandomState(0).uniform(size=(300, 4000))
    AutoencoderEncoder(2, hidden_layer_sizes=(100,), max_iter=1, random_state=0).fit(images)
    assert set(seen) == {(N_THREADS, N_THREADS)}


def test_threads_come_back_after_an_error():
    def fail():
        assert is_alone()
        assert pool()._max_workers == N_THREADS
        raise ZeroDivisionError

    with alone():
        with pytest.raises(ZeroDivisionError), together(), alone():
            fail()
        assert is_alone()
        assert n_threads() == N_THREADS
    assert not is_alone()
    assert torch.get_num_threads() == n_threads() == N_THREADS
