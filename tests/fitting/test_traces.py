"""Responses in time: against simulations, finite differences and known circuits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ssn_estimators import Circuit, CircuitRegressor, DivergenceError, simulate
from ssn_estimators.fitting import Free, Traces
from ssn_estimators.fitting.model import model_of, recordings_of
from ssn_estimators.fitting.traces import Follower
from ssn_estimators.inspection import steady_states

WEIGHTS = [[1.0, -1.5], [1.2, -0.5]]
TO_BOTH = np.ones((2, 1))
STEPS = np.where(np.arange(300) % 100 < 40, 8.0, 2.0)[:, None]


def pair(dynamics, **options):
    options = {"k": 0.04, "tau": [20.0, 10.0]} | options
    return Circuit(WEIGHTS, n_excitatory=1, dynamics=dynamics, **options)


def seen_by(circuit, inputs=STEPS, **options):
    """What a circuit does, by the regressor that knows all of it but one number."""
    model = CircuitRegressor(circuit, ["baseline"], input_map=TO_BOTH, baseline=1.0, n_starts=1)
    model.fit(
        [[1.0], [2.0]], steady_states(circuit, 1.0 + np.array([[1.0, 1.0], [2.0, 2.0]])).rates
    )
    assert_allclose(model.baseline_, 1.0, atol=1e-6)
    return model.predict_traces(inputs, **options)


@pytest.mark.parametrize("dynamics", ["rate", "voltage"])
def test_they_are_those_of_simulate(dynamics):
    circuit = pair(dynamics)
    drive = np.broadcast_to(1.0 + STEPS[:, None], (300, 1, 2)).copy()
    options = {"dt": 1.0, "solver": "euler", "burn_in": 0.0, "duration": 300.0, "n_trials": 1}
    found = simulate(circuit, drive, record="r", **options).r.squeeze()
    assert found.shape == (300, 2)
    assert_allclose(seen_by(circuit, initial=[0.0, 0.0]), found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gamma", [2.0, 2.3])
@pytest.mark.parametrize("dynamics", ["rate", "voltage"])
def test_slopes_by_finite_differences(dynamics, gamma):
    rng = np.random.RandomState(0)
    circuit = pair(dynamics, gamma=gamma)
    everywhere = {"by": np.full((2, 2), "all"), "name": "scale"}
    free = [
        *(Free(name) for name in ("weights", "input_map", "baseline", "k", "tau")),
        Free("weights", **everywhere),
        Free("input_map", by=np.full((2, 1), "all"), name="scale"),
    ]
    regressor = CircuitRegressor(circuit, free, input_map=TO_BOTH, baseline=1.0, observed=["I", 0])
    model = model_of(regressor, np.zeros((0, 1)), 2, in_time=True)
    traces = Traces(STEPS, rng.uniform(0, 5, (300, 2)), 0.5, initial=[1.0, 2.0])
    (recording,) = recordings_of(traces, model, 1)
    conditions = model.conditions(np.zeros((0, 1)), None)
    follower = Follower((recording,), model.parameters, conditions, dynamics == "rate")
    theta = model.parameters.start + 0.02 * rng.normal(size=len(model.parameters))
    assert len(theta) == 4 + 2 + 2 + 2 + 2 + 1

    def outputs(theta):
        return follower.outputs(recording, model.parameters.arrays(theta))[..., -1].copy()

    arrays, slopes = model.parameters.arrays(theta), model.parameters.slopes(theta)
    found = follower.outputs(recording, arrays, slopes).copy()
    steps = 1e-5 * np.eye(len(theta))
    differences = [(outputs(theta + d) - outputs(theta - d)) / 2e-5 for d in steps]
    differences = np.stack(differences, -1)
    assert_allclose(found[..., :-1], differences, atol=1e-6 * np.abs(differences).max())
    assert_allclose(found[..., -1], outputs(theta))
    # the few rows have the sum of squares, the gradient and the normal matrix of all
    rows, jacobian = follower.residuals(theta), follower.jacobian(theta)
    misfit = (found[..., -1] - recording.targets) / 0.5
    assert_allclose(rows @ rows, (misfit**2).sum())
    assert_allclose(follower.cost(theta), (misfit**2).sum())
    whole = found[..., :-1].reshape(-1, len(theta)) / 0.5
    assert_allclose(jacobian.T @ rows, whole.T @ misfit.ravel(), rtol=1e-6)
    assert_allclose(
        jacobian.T @ jacobian, whole.T @ whole, atol=1e-9 * np.abs(whole.T @ whole).max()
    )


@pytest.mark.parametrize("dynamics", ["rate", "voltage"])
def test_a_circuit_and_its_time_constants_are_recovered(dynamics):
    """Beside steady responses, and alone."""
    circuit = pair(dynamics)
    seen = seen_by(circuit).copy()
    guess = pair(dynamics, tau=[30.0, 20.0])
    free = [Free("weights"), Free("tau", low=5.0, high=100.0)]
    options = {"input_map": TO_BOTH, "baseline": 1.0, "n_starts": 3, "random_state": 0, "tol": 1e-8}
    seen[:20] = np.nan
    traces = Traces(STEPS, seen, 0.1)
    alone = CircuitRegressor(guess, free, **options).fit(traces=traces)
    X = np.array([[1.0], [4.0], [9.0]])
    rates = steady_states(circuit, 1.0 + X * [1.0, 1.0]).rates
    both = CircuitRegressor(guess, free, **options).fit(X, rates, traces=[traces, traces])
    for model in (alone, both):
        assert_allclose(model.circuit_.weights, WEIGHTS, rtol=1e-3)
        assert_allclose(model.circuit_.tau, [20.0, 10.0], rtol=1e-3)
        assert model.circuit_.dynamics == dynamics
        assert_allclose(model.predict_traces(STEPS)[20:], seen[20:], atol=1e-3)
        assert (np.array(model.explained_variance_traces_) > 0.9999).all()
    assert_allclose(both.predict(X), rates, rtol=1e-3)
    assert alone.predict(X).shape == (3, 2)


def test_activity_that_runs_away_is_refused():
    circuit = Circuit([[1.2, -0.1], [0.1, -0.1]], n_excitatory=1, k=0.04, dynamics="rate")
    with pytest.raises(DivergenceError, match="runs away"):
        seen_by(circuit, 100 * STEPS)


BAD = {
    "columns": (Traces(STEPS, np.ones((300, 3))), "observed must|columns"),
    "steps": (Traces(STEPS, np.ones((299, 2))), "300"),
    "inputs": (Traces(np.where(STEPS > 4, np.nan, STEPS), np.ones((300, 2))), "inputs of traces"),
    "nothing seen": (Traces(STEPS, np.full((300, 2), np.nan)), "NaN throughout"),
    "errors": (Traces(STEPS, np.ones((300, 2)), -1.0), "sample_error"),
    "dt": (Traces(STEPS, np.ones((300, 2)), dt=0.0), "dt of traces"),
    "initial": (Traces(STEPS, np.ones((300, 2)), initial=[1.0]), "initial of traces"),
    "no traces": ([STEPS], "must be Traces"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused(case):
    traces, message = BAD[case]
    model = CircuitRegressor(pair("rate"), ["weights"], input_map=TO_BOTH)
    with pytest.raises(ValueError, match=message):
        model.fit([[1.0], [2.0]], np.ones((2, 2)), traces=traces)


def test_rates_in_time_have_no_potentials():
    model = CircuitRegressor(pair("rate"), ["tau"], input_map=TO_BOTH, response="potentials")
    with pytest.raises(ValueError, match="no potentials"):
        model.fit(traces=Traces(STEPS, np.ones((300, 2))))
