"""Numbers do not depend on where they are computed: dask's workers give those of one process."""

import os
import time

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from test_sweeps import BRIEF, GRID, network, same
from zoo import short_confirmations

from ssn_estimators import SSNClassifier, stability_score, sweep

distributed = pytest.importorskip("distributed")

X, Y = load_iris(return_X_y=True)
SSN = SSNClassifier(max_iter=20, growth_iter=4, burn_in=20.0, window=20.0, random_state=0)


def fitted(rate, random_state):
    """A start of several, from the seed of the point."""
    with short_confirmations():
        ssn = SSN.set_params(learning_rate_init=rate, random_state=random_state).fit(X, Y)
    return {"loss": ssn.loss_, "stable": stability_score(ssn, X[:5]), "score": ssn.score(X, Y)}


@pytest.fixture(scope="module")
def dask():
    """Two workers of one thread, processes of their own."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        yield lambda: joblib.parallel_config(backend="dask")


def test_sweeps(dask, tmp_path):
    expected = sweep(network, GRID, batch_size=5, **BRIEF)
    path = tmp_path / "sweep"
    with dask():
        same(sweep(network, GRID, batch_size=5, out=path, n_jobs=2, **BRIEF), expected)
    path.write_bytes(path.read_bytes()[:-200])
    with dask():
        same(sweep(network, GRID, batch_size=5, out=path, n_jobs=2, **BRIEF), expected)


def test_many_starts(dask):
    how = {"batch_size": 1, "random_state": 0}
    grid = {"rate": [0.01, 0.03]}
    expected = sweep(fitted, grid, **how)
    with dask():
        same(sweep(fitted, grid, n_jobs=2, **how), expected)


@pytest.mark.slow
def test_cross_validation(dask):
    expected = cross_val_score(SSN, X, Y, cv=3)
    search = GridSearchCV(SSN, {"learning_rate_init": [0.01, 0.03]}, cv=2).fit(X, Y)
    with dask():
        np.testing.assert_array_equal(cross_val_score(SSN, X, Y, cv=3, n_jobs=2), expected)
        again = GridSearchCV(SSN, {"learning_rate_init": [0.01, 0.03]}, cv=2, n_jobs=2).fit(X, Y)
    for name in ("mean_test_score", "split0_test_score"):
        np.testing.assert_array_equal(again.cv_results_[name], search.cv_results_[name])


def test_workers_use_one_thread_each(dask):
    def count(i):
        import torch

        time.sleep(0.2)  # or one of them may do all
        return {"threads": torch.get_num_threads(), "process": os.getpid()}

    with dask():
        found = sweep(count, {"i": range(6)}, n_jobs=2, batch_size=1)
    assert (found.threads == 1).all()
    assert found.process.nunique() == 2
    assert os.getpid() not in found.process.to_list()
