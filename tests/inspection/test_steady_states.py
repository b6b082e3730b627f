"""Steady states against published circuits, theory, and the search for all fixed points."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from published import (
    HENNEQUIN,
    KUCHIBHOTLA,
    LIMIT_CYCLE,
    PAIR_A,
    PAIR_B,
    PERSISTENT,
    both,
    size_contrast,
)

from ssn_estimators import Circuit, circuits, simulate
from ssn_estimators.inspection import (
    fixed_points,
    is_inhibition_stabilized,
    oscillations,
    spectral_abscissa,
    steady_states,
)

module = sys.modules["ssn_estimators.inspection.steady_states"]
close = {"rtol": 5e-3}


def test_rates_of_the_pairs():
    contrasts = both([1, 2, 5, 8, 12, 20, 30, 50, 75, 100])
    excitatory = [0.0443, 0.1987, 1.954, 7.005, 11.88, 16.34, 18.94, 20.86, 20.79, 19.49]
    inhibitory = [0.0450, 0.2062, 2.228, 9.446, 18.82, 31.26, 42.77, 61.01, 80.13, 97.42]
    assert_allclose(
        steady_states(PAIR_A, contrasts).rates.T, [excitatory, inhibitory], rtol=5e-3, atol=5e-5
    )
    rates = [[0, 0], [3.5594, 11.7695], [3.0192, 18.8752], [1.0752, 32.0624]]
    assert_allclose(steady_states(PAIR_B, both([0, 25, 50, 100])).rates, rates, rtol=5e-5)


def test_rates_and_slowest_eigenvalues_of_the_stochastic_pair():
    states = steady_states(HENNEQUIN, both([0, 1, 2, 3, 4, 5, 7, 10, 15, 20]))
    excitatory = [0, 0.475, 3.261, 5.973, 7.469, 8.454, 9.695, 10.67, 11.21, 11.09]
    inhibitory = [0, 0.516, 4.276, 9.237, 12.84, 15.78, 20.67, 26.72, 35.23, 42.74]
    assert_allclose(states.rates.T, [excitatory, inhibitory], **close)
    slowest = [-0.05, -0.0227, -0.0141, -0.0292, -0.0461, -0.0647, -0.093, -0.105, -0.123, -0.14]
    assert_allclose(states.abscissa, slowest, **close)
    assert states.stable.all()


def test_a_large_step_overshoots_on_its_way_to_the_state_it_ends_in():
    states = steady_states(HENNEQUIN, [[1.0, 1.0], [8.0, 6.0]])
    assert_allclose(states.rates[1], [22.465, 42.197], **close)
    drive = np.full((6000, 1, 2), [8.0, 6.0])
    drive[:4000] = 1.0
    quiet = replace(HENNEQUIN, noise_factor=np.zeros((2, 2)))
    settings = {"n_trials": 1, "duration": 500.0, "burn_in": 1000.0, "dt": 0.25, "record": "r"}
    rates = simulate(quiet, drive, **settings).r[:, 0, 0]
    assert_allclose(rates[:, 0].max(), 23.66, **close)
    assert_allclose((rates[:, 0].argmax() + 1) * 0.25, 41.8, atol=0.3)
    assert_allclose(rates[-1], states.rates[1], rtol=1e-3)


@pytest.mark.parametrize("scale", [0.1, 7.5, 30.0])
def test_units_of_potentials_are_free(scale):
    """r(s h; k s^(1 - n)) = s r(h; k)."""
    for circuit, n in ((HENNEQUIN, 2), (LIMIT_CYCLE, 3)):
        drive = both([0.3, 0.5])
        other = replace(circuit, k=circuit.k * scale ** (1 - n))
        expected = scale * steady_states(circuit, drive).rates
        assert_allclose(steady_states(other, scale * drive).rates, expected, rtol=1e-12)


def test_four_types():
    states = steady_states(KUCHIBHOTLA, np.repeat([[15.0], [30.0], [60.0]], 4, 1))
    expected = [
        [1.610, 2.438, 4.816, 3.537],
        [2.700, 6.398, 21.29, 6.410],
        [0.631, 10.85, 84.09, 0.0],
    ]
    assert_allclose(states.rates, expected, **close)
    rates = steady_states(KUCHIBHOTLA, [[60.0, 60.0, 0.0, 0.0]]).rates
    assert_allclose(rates, [[14.31, 31.37, 5.309, 7.647]], **close)


def test_a_circuit_of_four_types_and_two_places_is_stable_for_all_stimuli():
    circuit, drives = size_contrast()
    states = steady_states(circuit, drives.reshape(-1, 8))
    assert states.stable.all()
    assert_allclose(states.abscissa.max(), -0.026, rtol=0.01)
    residual = drives.reshape(-1, 8) - states.u + states.rates @ circuit.weights.T
    assert abs(residual).max() < 1e-12
    centre = states.rates.reshape(*drives.shape)[-1, :, ::2].T
    expected = [
        [1.085, 6.156, 19.44, 24.62, 21.69, 16.57],
        [2.095, 6.864, 19.27, 24.26, 21.68, 17.18],
        [0.882, 1.948, 6.550, 10.13, 11.35, 12.62],
        [1.410, 3.967, 11.09, 13.01, 9.358, 4.164],
    ]
    assert_allclose(centre, expected, **close)


BISTABLE = {  # drive: rates of E, of I, and abscissa of each fixed point
    (0.0, 0.0): [(0, 0, -0.05), (11.97, 14.63, -0.0265), (3.160, 1.160, 0.036)],
    (1.0, 0.5): [(0.054, 0.014, -0.035), (11.94, 15.19, -0.027), (2.321, 0.797, 0.028)],
    (2.0, 2.0): [(9.581, 11.94, -0.037), (0.240, 0.229, -0.022), (2.214, 1.305, 0.018)],
    (3.0, 3.0): [(8.293, 10.50, -0.043)],
}


@pytest.mark.parametrize("drive", BISTABLE)
def test_all_fixed_points_of_a_bistable_pair(drive):
    points = fixed_points(PERSISTENT, [drive])[0]
    found = np.column_stack([PERSISTENT.rates(points.u), points.abscissa])
    expected = np.array(BISTABLE[drive])
    assert_allclose(found[:, :2], expected[:, :2], rtol=5e-3, atol=5e-4)
    assert_allclose(found[:, 2], expected[:, 2], atol=6e-4)  # given to three places
    # from rest and from far up, a circuit settles in its lowest and its highest stable state
    stable = found[points.stable][:, :2]
    for start, chosen in ((None, stable[:, 0].argmin()), ([15.0, 20.0], stable[:, 0].argmax())):
        assert_allclose(steady_states(PERSISTENT, [drive], start=start).rates[0], stable[chosen])


def test_memory_of_a_bistable_pair():
    steps = np.zeros((1150, 1, 2))
    steps[:100, 0, 0] = 5.0  # on
    steps[1100:, 0, 1] = 20.0  # off
    steps = np.concatenate([steps, np.zeros((300, 1, 2))])
    settings = {"n_trials": 1, "burn_in": 0.0, "duration": 1450.0, "record": "r"}
    rates = simulate(PERSISTENT, steps, **settings).r[:, 0, 0]
    assert_allclose(rates[1095], [11.97, 14.63], rtol=0.01)
    assert_allclose(rates[-1], 0, atol=1e-3)
    for strength in (5.0, 10.0):  # to both alike does not switch it on
        steps = np.zeros((600, 1, 2))
        steps[:100] = strength
        rates = simulate(PERSISTENT, steps, **settings | {"duration": 600.0}).r[:, 0, 0]
        assert_allclose(rates[-1], 0, atol=1e-3)


def test_sweeps_have_hysteresis():
    up = both(np.linspace(0, 3, 61))
    rising = steady_states(PERSISTENT, up, follow=True)
    falling = steady_states(PERSISTENT, up[::-1], start=rising.u[-1], follow=True)
    assert rising.stable.all()
    assert falling.stable.all()
    assert_allclose(rising.rates[0], 0)
    assert_allclose(falling.rates[-1], [11.97, 14.63], **close)
    assert_allclose(falling.rates[0], rising.rates[-1])


def test_the_regimes_of_a_pair():
    cubic = {"n_excitatory": 1, "k": 1.0, "gamma": 3}
    focus = Circuit([[1.1, -0.9], [2, -1]], tau_e=1.0, tau_i=1.0, **cubic)
    states = steady_states(focus, [[0.4, 0.3]])
    assert_allclose(states.rates, [[0.08053, 0.06305]], **close)
    assert_allclose(states.abscissa, -0.9299, **close)
    assert_allclose(fixed_points(focus, [[0.4, 0.3]])[0].u, states.u, rtol=1e-6)

    saddle = Circuit([[1.5, -1], [0.5, -1]], tau_e=1.0, tau_i=1.0, **cubic)
    points = fixed_points(saddle, [[0.1, 0.1]])[0]
    assert_allclose(
        saddle.rates(points.u), [[0.00102, 0.00099], [0.4715, 0.0289]], rtol=5e-3, atol=5e-6
    )
    assert_array_equal(points.stable, [True, False])
    beyond = steady_states(saddle, [[0.1, 0.1]], start=points.u[1] + [0.05, 0.0])
    assert not beyond.converged.any()
    assert np.isnan(beyond.rates).all()

    states = steady_states(LIMIT_CYCLE, [[0.7, 0.01]])  # taus are a hundred times as long there
    assert_allclose(states.rates, [[0.1104, 0.3859]], **close)
    assert_allclose(states.abscissa, -1.117 / 100, **close)


def test_a_circuit_in_a_limit_cycle_has_no_stable_state():
    states = steady_states(LIMIT_CYCLE, [[5.0, 0.01]])
    assert not states.stable.any()
    points = fixed_points(LIMIT_CYCLE, [[5.0, 0.01]])[0]
    assert_allclose(LIMIT_CYCLE.rates(points.u), [[0.6864, 5.1475]], **close)
    assert_allclose(points.abscissa, 7.536 / 100, **close)


def test_jacobians_of_potentials_and_of_rates_have_the_same_eigenvalues():
    circuit, drives = size_contrast()
    drive = drives[-1]
    u = steady_states(circuit, drive).u
    for own in u:
        gain = circuit.gain(own)
        of_rates = (gain[:, None] * circuit.weights - np.eye(8)) / circuit.tau[:, None]
        of_potentials = circuit.jacobian(gain)
        # by characteristic polynomials, as equal eigenvalues are found to few digits
        assert_allclose(np.poly(20 * of_rates), np.poly(20 * of_potentials), rtol=1e-10)
    assert_allclose(
        steady_states(circuit, drive).abscissa,
        spectral_abscissa(circuit, drive, closure="linear"),
        rtol=1e-6,
    )


def test_stabilisation_by_inhibition_is_of_e_cells_whatever_other_types_there_are():
    assert not is_inhibition_stabilized(KUCHIBHOTLA, [[30.0] * 4], closure="linear").any()
    circuit, drives = size_contrast()
    u = steady_states(circuit, drives[2:, 2]).u
    matrix = circuit.weights[:2, :2] * circuit.gain(u)[:, None, :2]
    alone = np.linalg.eigvals(matrix).real.max(1) > 1
    found = is_inhibition_stabilized(circuit, drives[2:, 2], closure="linear")
    assert_array_equal(found, alone)


@pytest.mark.parametrize("seed", range(5))
def test_random_circuits_settle_where_simulations_do(seed):
    rng = np.random.RandomState(seed)
    weights = abs(rng.randn(12, 12)) / 12 * np.where(np.arange(12) < 8, 1.5, -2.5)
    circuit = Circuit(weights, 8, k=0.1, gamma=rng.uniform(1, 2.5, 12))
    drive = rng.uniform(0, 15, (4, 12))
    states = steady_states(circuit, drive)
    simulation = simulate(circuit, drive, n_trials=1, burn_in=3000.0, duration=20.0)
    found = oscillations(circuit, drive, settling=3000.0)
    settled = ~simulation.diverged[:, 0] & ~found.oscillating
    assert_array_equal(states.stable, settled)
    assert settled.any()
    assert_allclose(states.u[settled], simulation.mean[settled], rtol=1e-3, atol=1e-3)
    # rows of a batch do not know each other
    assert_allclose(steady_states(circuit, drive[1:2]).u, states.u[1:2], rtol=1e-9)


def test_runaways_are_not_errors():
    runaway = Circuit([[2.5]], 1, k=0.04)
    states = steady_states(runaway, [[1.0], [50.0], [1e300], [2.0]])
    assert_array_equal(states.stable, [True, False, False, True])
    assert_array_equal(np.isnan(states.u[:, 0]), ~states.converged)
    following = steady_states(runaway, [[1.0], [50.0], [1.0]], follow=True)
    assert_array_equal(following.stable, [True, False, True])
    singular = Circuit([[1.0]], 1, k=1.0, gamma=1.0)  # u = h + u
    assert not steady_states(singular, [[1.0]]).converged.any()


def test_what_is_not_legal():
    for start in ([1.0], [[1.0, 2.0]] * 3, [np.nan, 1.0]):
        with pytest.raises(ValueError, match="start must"):
            steady_states(PAIR_A, both([1, 2]), start=start)
    with pytest.raises(ValueError, match="start must have shape"):
        steady_states(PAIR_A, both([1, 2]), start=both([1, 2]), follow=True)
    with pytest.raises(ValueError, match="drive must have shape"):
        steady_states(PAIR_A, [[1.0]])
    with pytest.raises(ValueError, match="drive must be finite"):
        steady_states(PAIR_A, [[1.0, np.inf]])
    for duration in (0.0, np.nan, np.inf, "long"):
        with pytest.raises(ValueError, match="duration must be"):
            steady_states(PAIR_A, [[1.0, 1.0]], duration=duration)


def test_silent_cells_have_eigenvalues_too(monkeypatch):
    """Which are those of all cells at once."""
    model = circuits.rubin_2015_line()
    drive = model.drive(20.0, [1 / 3, 3.0, 30.0])
    found = steady_states(model.circuit, drive)
    assert (found.rates == 0).any()
    monkeypatch.setattr(module, "FEW", 10**4)
    whole = steady_states(model.circuit, drive)
    assert_allclose(found.abscissa, whole.abscissa, rtol=1e-9)
    gain = model.circuit.gain(found.u)
    every = np.linalg.eigvals(model.circuit.jacobian(gain))
    monkeypatch.undo()
    for one, other in zip(module.eigenvalues(model.circuit, found.u), every, strict=True):
        assert_allclose(np.sort(one.real), np.sort(other.real), atol=1e-8)
