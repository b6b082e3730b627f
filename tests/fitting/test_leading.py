"""Starts without a stable state: penalties against finite differences, and where they lead."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ssn_estimators import Circuit, CircuitRegressor, DivergenceError, Receptors
from ssn_estimators.fitting import Free, Traces
from ssn_estimators.fitting.leading import MISSING, Capped, Penalties, led_back
from ssn_estimators.fitting.problem import problem_of
from ssn_estimators.fitting.steady import fixed_points_of, spectral_abscissae
from ssn_estimators.inspection import steady_states
from ssn_estimators.rate_functions import AbbottChance

PAIR = Circuit([[1.0, -1.5], [1.2, -0.5]], n_excitatory=1, k=0.04)
RUNAWAY = replace(PAIR, weights=[[4.0, -0.5], [1.0, -0.1]])
X = np.array([[1.0], [2.0], [5.0], [10.0], [20.0], [40.0]])
RATES = steady_states(PAIR, X * [1.0, 1.0]).rates
FREE = ["weights", "input_map", Free("baseline", spread=0.2), "k"]
SAME = [[1.0], [1.0]]


def problem(circuit, free=FREE, traces=None):
    regressor = CircuitRegressor(circuit, free, input_map=SAME, baseline=1.0)
    others = {"traces": traces, "spectra": None, "covariances": None}
    _, found, _ = problem_of(regressor, X, RATES, None, None, None, **others)
    return found


@pytest.mark.parametrize("gamma", [2.0, 2.3])
def test_slopes_by_finite_differences(gamma):
    """Of a state that oscillates and of one that has run away, with free time constants."""
    weights = [[3.1, -0.9], [4.6, -0.9]]
    circuit = replace(PAIR, weights=weights, tau={"E": 5.0, "I": 50.0}, gamma=gamma)
    own = problem(circuit, [*FREE, "tau"], Traces(X, RATES))
    theta = own.parameters.start
    penalties = Penalties(own, theta)
    found, jacobian = penalties.residuals(theta), penalties.jacobian(theta)
    assert (found != MISSING).all()
    assert (found[: len(X)] > 0).any()
    assert (found[2 * len(X) :] > 0).any()
    steps = 1e-5 * np.eye(len(theta))
    differences = [penalties.residuals(theta + d) - penalties.residuals(theta - d) for d in steps]
    differences = np.stack(differences, -1) / 2e-5
    assert_allclose(jacobian, differences, atol=1e-6 * np.abs(differences).max())


def test_slopes_of_a_state_that_is_unstable_with_one_time_constant_for_all():
    circuit = replace(PAIR, weights=[[5.7, -2.5], [3.1, -0.7]], tau={"E": 50.0, "I": 5.0})
    own = problem(circuit, ["weights", "tau"], Traces(X, RATES))
    penalties, theta = Penalties(own, own.parameters.start), own.parameters.start
    found, jacobian = penalties.residuals(theta), penalties.jacobian(theta)
    steps = 1e-5 * np.eye(len(theta))
    differences = [penalties.residuals(theta + d) - penalties.residuals(theta - d) for d in steps]
    differences = np.stack(differences, -1) / 2e-5
    assert (found[len(X) : 2 * len(X)] > 0).any()
    assert_allclose(jacobian, differences, atol=1e-6 * np.abs(differences).max())


def test_slopes_of_the_capped_law():
    law, u = replace(PAIR, k=1.0, gamma=2.3), np.linspace(0.5, 60.0, 8)[:, None] * [1.0, 1.0]
    capped = Capped(law, np.array([20.0, 30.0]))
    gain = (capped.rates(u + 1e-5) - capped.rates(u - 1e-5)) / 2e-5
    assert_allclose(capped.gain(u), gain, atol=1e-6 * gain.max())
    bent = (capped.gain(u + 1e-5) - capped.gain(u - 1e-5)) / 2e-5
    assert_allclose(capped.curvature(u), bent, atol=1e-6 * bent.max())
    assert_allclose(capped.rates(1e-3 * u), law.rates(1e-3 * u), rtol=1e-4)


def test_they_lead_to_a_stable_state():
    own = problem(RUNAWAY)
    theta = own.parameters.start
    arrays = own.parameters.arrays(theta)
    assert np.isnan(fixed_points_of(own.conditions, arrays)).any()
    led, u = led_back(own, theta)
    arrays = own.parameters.arrays(led)
    rest = own.conditions.drive(arrays) + own.conditions.rates(arrays, u) @ arrays["weights"].T - u
    assert_allclose(rest, 0, atol=1e-6)
    assert (spectral_abscissae(own.conditions, arrays, u) < 0).all()
    assert np.linalg.norm(led - theta) < 5


def test_fits_where_all_neighbours_run_away():
    """Drawing finds no start; led ones end where the true circuit is."""
    far = replace(PAIR, weights=[[30.0, -0.5], [1.0, -0.1]])
    free = [Free("weights", spread=0.3)]
    model = CircuitRegressor(far, free, input_map=SAME, n_starts=3, random_state=0)
    with pytest.raises(DivergenceError, match="lost='lead'"):
        model.fit(X, RATES)
    model.set_params(lost="lead").fit(X, RATES)
    assert_allclose(model.circuit_.weights, PAIR.weights, rtol=1e-3)
    assert model.starts_.n_led >= 3


def test_they_must_be_stable_in_time_too():
    """Of the starts that are led, some run away in the longer steps of what was recorded."""
    steps = np.tile(np.repeat([[2.0], [8.0]], 10, axis=0), (3, 1))
    plain = CircuitRegressor(PAIR, ["weights"], input_map=SAME, n_starts=1).fit(X, RATES)
    seen = plain.predict_traces(steps, dt=5.0)
    far = replace(PAIR, weights=[[30.0, -0.5], [1.0, -0.1]])
    free = [Free("weights", spread=0.3)]
    model = CircuitRegressor(far, free, input_map=SAME, n_starts=2, lost="lead", random_state=0)
    model.fit(X, RATES, traces=Traces(steps, seen, dt=5.0))
    assert_allclose(model.circuit_.weights, PAIR.weights, rtol=1e-3)


def test_stable_starts_are_left_alone():
    guess = replace(PAIR, weights=[[0.5, -1.0], [0.5, -1.0]])
    model = CircuitRegressor(guess, ["weights"], input_map=SAME, n_starts=2, random_state=0)
    plain = model.fit(X, RATES).values_
    led = model.set_params(lost="lead").fit(X, RATES)
    assert_allclose(led.values_, plain, rtol=0)
    assert led.starts_.n_led == 0


@pytest.mark.parametrize(
    "options",
    [
        {"rate_function": AbbottChance()},
        {"receptors": Receptors({"fast": 4.0}, {"E": {"fast": 1.0}, "I": {"fast": 1.0}})},
    ],
)
def test_other_circuits_are_refused(options):
    options = {"k": {"E": 1, "I": 2}} | options
    circuit = Circuit([[0.4, -0.5], [0.6, -0.3]], 1, **options)
    with pytest.raises(ValueError, match="lost='lead' needs y"):
        CircuitRegressor(circuit, ["weights"], input_map=SAME, lost="lead").fit(X, RATES)


def test_traces_alone_are_refused():
    with pytest.raises(ValueError, match="lost='lead' needs y"):
        CircuitRegressor(PAIR, ["weights"], input_map=SAME, lost="lead").fit(
            traces=Traces(X, RATES)
        )
