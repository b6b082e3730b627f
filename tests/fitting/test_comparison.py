"""Circuits compared: against scikit-learn's cross-validation, and the truth among them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_predict

from ssn_estimators import Circuit, CircuitRegressor
from ssn_estimators.fitting import compare
from ssn_estimators.inspection import steady_states

X = np.linspace(1.0, 40.0, 12)[:, None]
TO_BOTH = [[1.0], [1.0]]
EXTRA = np.repeat([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]], 12, axis=0)
INPUTS = np.tile(X, (3, 1))


def regressor(weights, **options):
    circuit = Circuit(weights, n_excitatory=1, k=0.04)
    options = {"input_map": TO_BOTH, "n_starts": 2, "random_state": 0} | options
    return CircuitRegressor(circuit, ["weights"], **options)


MODELS = {
    "less": regressor([[0.0, -1.0], [0.5, 0.0]]),
    "true": regressor([[0.5, -1.0], [0.5, 0.0]]),
    "more": regressor([[0.5, -1.0], [0.5, -0.3]]),
}


def recorded(seed):
    pair = Circuit([[1.0, -0.8], [1.2, 0.0]], n_excitatory=1, k=0.04)
    rates = steady_states(pair, INPUTS * [1.0, 1.0] + EXTRA).rates
    return np.random.default_rng(seed).normal(rates, 0.1)


@pytest.mark.parametrize("error", [0.1, None])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_true_structure_wins(error, seed):
    """Of nested ones, over one that cannot and one that need not be as it is."""
    rates = recorded(seed)
    found = compare(MODELS, INPUTS, rates, cv=3, sample_error=error, perturbation=EXTRA)
    assert found.name == ["less", "true", "more"]
    assert found.n_parameters.tolist() == [2, 3, 4]
    assert np.argmin(found.bic) == 1
    less, true, more = found.chi2
    assert more <= true * (1 + 1e-6) < less
    assert found.test_chi2[1] < found.test_chi2[0] / 10
    assert (found.test_chi2 > found.chi2).all()
    assert found.test_explained_variance[1] > 0.99 > found.test_explained_variance[0]


def test_numbers_are_those_of_fits_and_of_cross_validation():
    rates = recorded(0)[:12]
    rates[3, 1] = np.nan
    cv = KFold(4, shuffle=True, random_state=0)
    found = compare([MODELS["true"]], X, rates, cv=cv, sample_error=[0.1, 0.2])
    model = clone(MODELS["true"]).fit(X, rates, sample_error=[0.1, 0.2])
    assert found.name == ["0"]
    assert_allclose(found.chi2, [model.cost_], rtol=1e-6)
    assert_allclose(found.bic, model.cost_ + 3 * np.log(23), rtol=1e-6)
    assert_allclose(found.aic, model.cost_ + 6, rtol=1e-6)
    assert_allclose(found.explained_variance, model.explained_variance_.mean(), rtol=1e-6)
    unknown = compare([MODELS["true"]], X, rates, cv=cv)
    predicted = cross_val_predict(MODELS["true"], X, rates, cv=cv)
    assert_allclose(unknown.test_chi2, [np.nansum((rates - predicted) ** 2)])
    assert_allclose(unknown.bic, 23 * np.log(unknown.chi2 / 23) + 3 * np.log(23))
    two = compare([MODELS["true"]] * 2, X, rates, cv=cv, n_jobs=2)
    assert_array_equal(two.test_chi2, np.repeat(unknown.test_chi2, 2))
    assert not hasattr(MODELS["true"], "circuit_")


def test_one_output_and_a_data_frame():
    pandas = pytest.importorskip("pandas")
    model = regressor([[0.5, -1.0], [0.5, 0.0]], observed=["E"])
    table = pandas.DataFrame(compare([model], X, recorded(0)[:12, 0], cv=3))
    assert table.loc[0, "test_explained_variance"] > 0.9


def test_no_stable_state_under_a_condition_left_out():
    """Weak inputs say little of what keeps activity from running away under strong ones."""
    circuit = Circuit([[0.05]], n_excitatory=1, k=0.04)
    inputs = np.array([[1.0], [1.5], [2.0], [60.0]])
    rates = np.where(inputs < 3, steady_states(Circuit([[1.5]], 1, k=0.04), inputs).rates, 1.0)
    model = CircuitRegressor(circuit, ["weights"], input_map=[[1.0]], n_starts=1)
    found = compare([model], inputs, rates, cv=[([0, 1, 2], [3])])
    assert found.test_chi2[0] == np.inf
    assert found.test_explained_variance[0] == -np.inf


@pytest.mark.parametrize("models", [[], {}, ["a circuit"], {"a": Circuit([[0.0]], 1)}])
def test_what_cannot_be_compared(models):
    with pytest.raises(ValueError, match="models"):
        compare(models, X, recorded(0)[:12])
