"""Small and finite perturbations against published circuits and theory."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from published import (
    CENTRE,
    HENNEQUIN,
    KUCHIBHOTLA,
    PAIR_A,
    PAIR_B,
    PERSISTENT,
    SIZES,
    both,
    size_contrast,
)
from scipy.optimize import brentq

from ssn_estimators import Circuit
from ssn_estimators.inspection import (
    paradoxical_effect,
    perturb,
    population_response,
    response_matrix,
    size_tuning,
    steady_states,
)

close = {"rtol": 5e-3}
SIZE_13 = 2


def test_responses_of_inhibitory_cells_to_their_own_input():
    contrasts = both([2, 3, 5, 20])
    found = [response_matrix(pair, contrasts)[:, 1, 1] for pair in (PAIR_A, PAIR_B)]
    assert_allclose(found[0], [0.133, 0.133, -0.585, -4.74], **close)
    assert_allclose(found[1], [-0.193, -1.82, -2.25, -1.49], **close)


def test_response_matrices_are_derivatives():
    circuit, drives = size_contrast()
    drive = drives[-1, SIZE_13]
    found, step = response_matrix(circuit, [drive])[0], 1e-4
    more, less = (steady_states(circuit, drive + sign * np.eye(8)).rates for sign in (step, -step))
    assert_allclose(found, (more - less).T / (2 * step), rtol=1e-6, atol=1e-7)


def test_population_responses_of_four_types():
    circuit, drives = size_contrast()
    found = population_response(circuit, drives[2:, SIZE_13], cells=CENTRE)
    assert found.responding == found.perturbed == ("E", "PV", "SST", "VIP")
    expected = [
        [[-0.250, -0.147, 0.040], [0.180, -0.164, 0.044], [-0.067, 0.404, -0.128]],
        [[-0.732, -0.439, 0.162], [-0.105, -0.440, 0.162], [-0.240, 0.535, -0.251]],
        [[-1.355, -1.093, 0.542], [-0.574, -1.092, 0.541], [-0.624, 0.763, -0.507]],
        [[-1.653, -1.959, 1.153], [-0.796, -1.976, 1.163], [-1.063, 1.017, -0.825]],
    ]
    assert_allclose(found.values[:, :3, 1:], expected, rtol=5e-3, atol=5e-4)
    large = population_response(circuit, drives[-1:, -1], cells=CENTRE).values
    assert_allclose(large[0, 1, 1], 0.389, **close)
    gain = circuit.gain(steady_states(circuit, drives[-1:, -1]).u)
    assert_allclose(gain[0, 0] * circuit.weights[0, 0], 2.12, **close)
    # without a choice of cells, means over both places
    chi = response_matrix(circuit, drives[-1:, -1])[0]
    every = population_response(circuit, drives[-1:, -1]).values
    assert_allclose(every[0, 1, 2], chi[2:4, 4:6].sum() / 2)


def test_where_the_paradox_of_pv_cells_begins():
    circuit, _ = size_contrast()
    x = np.array([20, 14, 0, 6.5])
    rest = np.array([1, 5, 4.8, 4.5])

    def drive(contrast):
        strength = 1.25 * contrast**1.2 / (contrast**1.2 + 0.25**1.2)
        places = strength * np.array([1 - np.exp(-((13 / 9) ** 2)), (4 / 45) ** 0.7])
        return (np.outer(x, places) + rest[:, None]).reshape(1, 8)

    def of_pv(contrast):
        return population_response(circuit, drive(contrast), cells=CENTRE).values[0, 1, 1]

    assert_allclose(brentq(of_pv, 0.1, 0.5), 0.2079, **close)
    drives = np.concatenate([drive(c) for c in np.geomspace(0.01, 1, 20)])
    assert not paradoxical_effect(circuit, drives, "SST").any()


def test_no_paradox_without_stabilisation():
    drives = np.repeat(np.array([[5.0], [15.0], [30.0], [60.0]]), 4, 1)
    for population in ("PV", "SST", "VIP"):
        assert not paradoxical_effect(KUCHIBHOTLA, drives, population).any()
    assert_allclose(population_response(KUCHIBHOTLA, drives[2:3]).values[0, 0, 3], 0.0186, **close)


def test_finite_perturbations_of_four_types():
    circuit, drives = size_contrast()
    drive = drives[-1:, SIZE_13]
    more, less = (perturb(circuit, drive, "VIP", sign).change[0, CENTRE] for sign in (1, -1))
    assert_allclose(more[:3], [1.341, 1.355, -0.906], **close)
    assert_allclose(less[:3], [-1.003, -1.010, 0.757], **close)
    assert_allclose(perturb(circuit, drive, "PV", -1).change[0, [0, 2]], [1.649, 0.781], **close)
    for sign, suppression in ((1, 0.346), (-1, 0.314)):
        perturbed = drives[-1] + sign * np.repeat([0, 0, 0, 1], 2)
        tuning = size_tuning(circuit, perturbed, SIZES, cells=CENTRE)
        assert_allclose(tuning.suppression_index[0], suppression, **close)


def homogeneous(n):
    """Pair A as n + n cells that are alike."""
    return Circuit(np.kron(PAIR_A.weights, np.ones((n, n)) / n), n, k=0.04)


def test_perturbations_of_some_inhibitory_cells():
    """They respond in the paradoxical way only if they are many."""
    circuit, drive, strength = homogeneous(100), np.full((1, 200), 20.0), 0.05
    gain = PAIR_A.gain(steady_states(PAIR_A, [[20.0, 20.0]]).u)[0, 1]
    chi = response_matrix(PAIR_A, [[20.0, 20.0]])[0, 1, 1]
    assert_allclose(gain / (gain - chi), 0.3207, **close)
    for share, expected in ((0.3, 0.143), (0.34, -0.136), (1.0, -4.73)):
        found = perturb(circuit, drive, "I", strength, share=share, random_state=0)
        assert found.stimulated.sum() == share * 100
        per_mv = found.change_of_stimulated / strength
        # the theory is of a small perturbation, and two shares are next to the change of sign
        assert_allclose(per_mv, expected, rtol=5e-3, atol=1e-3)
        assert_allclose(per_mv, gain + share * (chi - gain), rtol=5e-3, atol=0.02)
        assert (found.by_population()["I"] < 0).all()
        if share == 0.3:
            assert_allclose(found.change_of_others / strength, -2.09, **close)
    assert np.isnan(found.change_of_others).all()


def test_at_least_one_cell_is_perturbed_and_always_the_same_ones():
    circuit, drive = homogeneous(10), np.full((2, 20), 5.0)
    one = perturb(circuit, drive, "E", 1.0, share=1e-3, random_state=3)
    assert one.stimulated[:10].sum() == one.stimulated.sum() == 1
    again = perturb(circuit, drive, "E", 1.0, share=1e-3, random_state=3)
    assert_array_equal(one.stimulated, again.stimulated)


def test_states_that_are_lost():
    drive = [[0.0, 0.0]]
    persistent = perturb(PERSISTENT, drive, "E", -0.1, start=[15.0, 20.0])
    assert_allclose(persistent.before, [[11.97, 14.63]], **close)
    assert (persistent.after[:, 0] > 10).all()
    silenced = perturb(PERSISTENT, drive, "E", -10.0, start=[15.0, 20.0])
    assert_allclose(silenced.after, 0)
    assert response_matrix(PERSISTENT, drive, start=[15.0, 20.0])[0, 0, 0] > 0
    assert not response_matrix(PERSISTENT, drive).any()
    # states that do not exist
    runaway = Circuit([[2.5, 0.0], [0.0, 0.0]], 1, k=0.04)
    found = perturb(runaway, [[1.0, 1.0], [50.0, 1.0]], "E", 50.0)
    assert_array_equal(np.isnan(found.before[:, 0]), [False, True])
    assert np.isnan(found.after).all()
    assert np.isnan(response_matrix(runaway, [[50.0, 1.0]])).all()
    assert paradoxical_effect(runaway, [[50.0, 1.0]]).mask.all()


def test_tables():
    pytest.importorskip("pandas")
    frame = population_response(HENNEQUIN, both([1, 5])).to_dataframe()
    assert frame.columns.tolist() == ["input", "responding", "E", "I"]
    assert frame["responding"].tolist() == ["E", "I", "E", "I"]
    assert_allclose(frame.loc[3, ["E", "I"]].tolist(), response_matrix(HENNEQUIN, both([5]))[0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: perturb(PAIR_A, [[1.0, 1.0]], "PV", 1.0), "population must be one of"),
        (lambda: perturb(PAIR_A, [[1.0, 1.0]], 1, 1.0), "population must be one of"),
        (lambda: perturb(PAIR_A, [[1.0, 1.0]], "I", 1.0, share=0.0), "share must be"),
        (lambda: perturb(PAIR_A, [[1.0, 1.0]], "I", 1.0, share=1.1), "share must be"),
        (lambda: perturb(PAIR_A, [[1.0, 1.0]], "I", 1.0, share=np.nan), "share must be"),
        (lambda: perturb(PAIR_A, [[1.0, 1.0]], "I", np.inf), "strength must be"),
        (lambda: perturb(PAIR_A, [[1.0, 1.0]], "I", "more"), "strength must be"),
        (lambda: perturb(PAIR_A, [[1.0, 1.0]], "I", 1.0, random_state="seed"), "random_state"),
        (lambda: perturb(PAIR_A, [[1.0]], "I", 1.0), "drive must have shape"),
        (lambda: paradoxical_effect(PAIR_A, [[1.0, 1.0]], "PV"), "population must be one of"),
        (lambda: response_matrix(PAIR_A, [1.0, 1.0]), "drive must have shape"),
        (lambda: response_matrix(PAIR_A, [[np.nan, 1.0]]), "drive must be finite"),
        (lambda: population_response(PAIR_A, [[1.0, 1.0]], cells=[-1]), "cells must be"),
    ],
)
def test_what_is_not_legal(call, message):
    with pytest.raises(ValueError, match=message):
        call()
