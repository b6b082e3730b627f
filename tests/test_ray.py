"""Numbers do not depend on where they are computed: ray's workers give those of one process."""

import os
import sys

import joblib
import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from test_sweeps import BRIEF, GRID, network, same

from ssn_estimators import CircuitRegressor, sweep

ray = pytest.importorskip("ray")
register_ray = pytest.importorskip("ray.util.joblib").register_ray


@pytest.fixture(scope="module")
def workers():
    """Two workers, processes of their own, that find the same modules."""
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # or it writes a token into the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": variables},
        )
        register_ray()
        yield lambda: joblib.parallel_config(backend="ray")
        ray.shutdown()


def test_sweeps(workers, tmp_path):
    expected = sweep(network, GRID, batch_size=5, **BRIEF)
    path = tmp_path / "sweep"
    with workers():
        same(sweep(network, GRID, batch_size=5, out=path, n_jobs=2, **BRIEF), expected)
    path.write_bytes(path.read_bytes()[:-200])
    with workers():
        same(sweep(network, GRID, batch_size=5, out=path, n_jobs=2, **BRIEF), expected)


def test_chunks_are_written_on_the_way(workers, tmp_path):
    """Ray gives all results at the end; one that fails must not take those before it along."""

    def sometimes(x):
        if x == 15:
            raise ArithmeticError("of point 15")
        return {"y": 2 * x}

    path = tmp_path / "sweep"
    how = {"out": path, "batch_size": 1, "random_state": 0}
    with workers(), pytest.raises(ArithmeticError, match="of point 15"):
        sweep(sometimes, {"x": range(16)}, n_jobs=2, **how)
    assert path.read_text().count('"point"') >= 8


def test_cross_validation(workers):
    X = np.linspace(1.0, 10.0, 12)[:, None]
    y = 0.1 * X[:, 0] ** 1.5
    model = CircuitRegressor(n_starts=1, random_state=0)
    expected = cross_val_score(model, X, y, cv=3)
    with workers():
        np.testing.assert_array_equal(cross_val_score(model, X, y, cv=3, n_jobs=2), expected)
