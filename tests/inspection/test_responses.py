"""Contrast, size and two stimuli, against published circuits."""

import sys
from unittest import mock

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from published import CENTRE, CONTRASTS, HENNEQUIN, PAIR_A, PAIR_B, SIZES, size_contrast
from scipy.optimize import brentq
from scipy.special import expit

from ssn_estimators import Circuit
from ssn_estimators.inspection import (
    SizeTuning,
    contrast_response,
    is_inhibition_stabilized,
    normalization,
    paradoxical_effect,
    response_matrix,
    size_tuning,
    steady_states,
)

close = {"rtol": 5e-3}
GRID = np.geomspace(0.5, 120, 25)
PAIRS = {  # onsets of stabilisation and paradox; peak; onset of sublinearity; where E is silenced
    "A": (PAIR_A, 3.921, (60.6, 21.05), 8.239, None),
    "B": (PAIR_B, 1.613, (24.92, 3.559), 3.388, 148.5),
    "Hennequin": (HENNEQUIN, 1.046, (16.16, 11.22), 2.197, 96.5),
}


@pytest.mark.parametrize("name", PAIRS)
def test_from_supralinear_to_sublinear_to_supersaturation(name):
    circuit, _, peak, sublinear, silenced = PAIRS[name]
    response = contrast_response(circuit, 1.0, GRID)
    assert_allclose(response.supersaturation(), peak, **close)
    assert_allclose(response.sublinear_onset(), sublinear, **close)
    assert np.isnan(response.supersaturation("I")).all()
    # there the responses of E to either input cancel
    chi = response_matrix(circuit, [[response.supersaturation().contrast] * 2])[0]
    assert_allclose(chi[0].sum() / chi[0, 0], 0, atol=1e-4)
    assert_allclose(response.by_population()["E"], response.rates[:, 0])
    if silenced:
        found = brentq(lambda c: steady_states(circuit, [[c, c]]).u[0, 0], 50, 200)
        assert_allclose(found, silenced, **close)
    else:
        assert contrast_response(circuit, 1.0, [200.0]).rates[0, 0] > 0


@pytest.mark.parametrize("name", PAIRS)
def test_onset_of_stabilisation_by_inhibition_is_that_of_the_paradox_in_a_pair(name):
    circuit, onset = PAIRS[name][:2]
    around = np.repeat(onset * np.array([[0.995], [1.005]]), 2, 1)
    assert_array_equal(is_inhibition_stabilized(circuit, around, closure="linear"), [False, True])
    assert_array_equal(paradoxical_effect(circuit, around), [False, True])


@pytest.mark.parametrize(
    ("name", "contrasts", "expected"),
    [
        ("A", (1, 20), (2.243, 0.620)),
        ("B", (1, 20), (2.910, 0.473)),
        ("Hennequin", (1, 20), (3.43, 0.368)),
    ],
)
def test_doubled_contrast(name, contrasts, expected):
    circuit = PAIRS[name][0]
    for contrast, ratio in zip(contrasts, expected, strict=True):
        single, double = contrast_response(circuit, 1.0, [contrast, 2 * contrast]).rates[:, 0]
        assert_allclose(double / (2 * single), ratio, **close)


def test_baselines_are_not_responses():
    cell = Circuit([[0.0]], 1, k=1.0)  # r = (1 + c)^2, supralinear for ever
    response = contrast_response(cell, 1.0, [0.0, 1.0, 2.0], baseline=1.0)
    assert_allclose(response.rates[:, 0], [1, 4, 9])
    assert np.isnan(response.sublinear_onset())
    assert np.isnan(response.supersaturation()).all()


@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_rates_that_are_constant_or_linear_but_for_rounding_have_no_peak_or_onset(baseline):
    linear = Circuit([[0.3, -0.2], [0.4, -0.1]], n_excitatory=1, k=0.7, gamma=1.0)
    contrasts = np.linspace(0.1, 9.0, 40)
    response = contrast_response(linear, 1.0, contrasts, baseline=baseline)
    assert np.isnan(response.sublinear_onset())
    for pattern in ([0.0, 0.0], [-1.0, 1.0]):  # no input, or none that E cells answer to
        response = contrast_response(linear, pattern, contrasts, baseline=[-baseline, baseline])
        assert np.isnan(response.supersaturation()).all()
    constant = contrast_response(linear, 0.0, contrasts, baseline=5.0)
    assert np.isnan(constant.supersaturation()).all()
    assert np.isnan(constant.sublinear_onset())


def test_the_preferred_size_is_the_first_of_those_alike_but_for_rounding():
    rates = np.array([[1.0, 0.0, np.nan], [2.0, 0.0, 1.0], [2.0 + 1e-12, 0.0, 2.0]])
    tuning = SizeTuning(np.array([1.0, 2.0, 3.0]), rates, np.array(["E", "E", "I"]))
    assert_allclose(tuning.preferred_size, [2.0, np.nan, np.nan])


def test_onsets_next_to_a_runaway():
    """Responses jump by thousands of Hz, and next to the jump have no stable state: no onset."""
    pair = Circuit([[2.777, -0.5557], [2.5528, -0.4856]], 1, k=0.04, tau_i=5.0)
    response = contrast_response(pair, 1.0, [0.5, 1.0, 2.0, 4.0, 8.0])
    assert response.rates[2, 0] < 1 < 1000 < response.rates[3, 0]
    assert np.isnan(response.sublinear_onset())


def test_size_tuning():
    circuit, drives = size_contrast()
    tuning = size_tuning(circuit, drives, SIZES, cells=CENTRE)
    assert tuning.types.tolist() == ["E", "PV", "SST", "VIP"]
    assert_allclose(tuning.suppression_index[-1], [0.327, 0.292, 0, 0.680], rtol=5e-3)
    by_contrast = dict(zip(CONTRASTS, tuning.preferred_size[:, 0], strict=True))
    expected = {0.06: 60, 0.12: 60, 0.25: 36, 0.5: 22, 1: 22}
    assert {c: by_contrast[c] for c in expected} == expected
    half, quarter = tuning.rates[-2, :, 0], tuning.rates[-3, :, 0]
    assert_allclose(half, [0.703, 3.869, 12.46, 16.72, 15.77, 13.42], **close)
    assert_allclose(quarter, [0.330, 1.740, 5.469, 7.562, 7.587, 7.403], **close)
    # one contrast, and means of populations
    alone = size_tuning(circuit, drives[-1], SIZES)
    assert_allclose(alone.rates[:, CENTRE], tuning.rates[-1])
    means = alone.by_population()
    assert_allclose(means.rates[:, 0], alone.rates[:, :2].mean(1))
    assert_allclose(means.suppression_index[0], 1 - means.rates[-1, 0] / means.rates[:, 0].max())


def test_size_tuning_of_silent_and_of_unstable_cells():
    circuit = Circuit([[0.5, 0.0], [0.0, 0.0]], 1, k=0.3)
    tuning = size_tuning(circuit, [[1.0, -1.0], [1.5, -1.0]], [1.0, 2.0])
    assert_array_equal(np.isnan(tuning.preferred_size), [False, True])
    assert_array_equal(np.isnan(tuning.suppression_index), [False, True])
    tuning = size_tuning(circuit, [[1.0, 1.0], [9.0, 1.0]], [1.0, 2.0])  # the second runs away
    assert np.isnan(tuning.preferred_size).all()
    assert np.isnan(tuning.suppression_index).all()


def ring(n, J, width):
    """Circuit of 2 n cells on a ring of 180 deg, and a grating's drive by preferred angle."""
    theta = np.arange(n) * 180 / n

    def bump(angle, width):
        distance = abs(theta - angle)
        return np.exp(-(np.minimum(distance, 180 - distance) ** 2) / (2 * width**2))

    kernel = np.stack([bump(angle, 32) for angle in theta])
    circuit = Circuit(np.kron(J, kernel), n, k=0.04)
    return circuit, lambda angle: np.tile(bump(angle, width), 2)


@pytest.mark.parametrize("n", [60, pytest.param(180, marks=pytest.mark.slow)])
def test_normalization_on_a_ring(n):
    """Rubin, Van Hooser & Miller 2015; the weight of a sum, and winners that take all."""
    J = np.array([[0.044, -0.023], [0.042, -0.018]]) * 180 / n
    circuit, grating = ring(n, J, 30)
    contrasts = [1, 2, 5, 7, 10, 15, 20, 30, 40, 50, 100]
    alone = contrast_response(circuit, grating(45), contrasts).rates
    excitatory = [0.0433, 0.1888, 1.664, 4.513, 11.74, 19.30, 24.04, 30.55, 35.13, 38.61, 47.76]
    assert_allclose(alone[:, n // 4], excitatory, **close)
    found = normalization(circuit, grating(45), grating(135), contrasts)
    expected = [1.161, 1.211, 1.538, 1.431, 0.868, 0.725, 0.695, 0.681, 0.682, 0.689, 0.729]
    assert_allclose(found.weight, expected, **close)
    assert_allclose(found.first, alone[:, :n], rtol=1e-9)
    expected = [1.050, 1.088, 1.343, 1.248, 0.780, 0.668, 0.653, 0.660, 0.677, 0.695, 0.759]
    at_first, at_second, at_both = (x[:, n // 4] for x in (found.first, found.second, found.both))
    assert_allclose(at_both / (at_first + at_second), expected, **close)
    unequal = [[50, 50], [50, 25], [50, 10], [20, 10]]
    found = normalization(circuit, grating(45), grating(135), unequal)
    expected = [[0.689, 0.689], [0.835, 0.444], [0.955, 0.123], [0.882, 0.533]]
    assert_allclose(found.weights, expected, **close)


@pytest.mark.parametrize("n", [52, pytest.param(180, marks=pytest.mark.slow)])
def test_a_grating_and_a_plaid_on_a_ring(n):
    """Ahmadian, Rubin & Miller 2013."""
    circuit, grating = ring(n, np.pi * PAIR_A.weights / n, 30)
    contrasts = [1, 2, 5, 10, 20, 30, 40, 50]
    found = normalization(circuit, grating(0), grating(90), contrasts, cells=[0, n])
    excitatory = [0.0432, 0.1886, 1.637, 10.09, 21.11, 27.05, 31.19, 34.31]
    inhibitory = [0.0438, 0.1940, 1.796, 13.65, 36.21, 53.05, 67.89, 81.67]
    assert_allclose(found.first.T, [excitatory, inhibitory], **close)
    ratio = (found.both / (found.first + found.second))[:, 0]
    expected = [1.049, 1.086, 1.284, 0.792, 0.663, 0.669, 0.685, 0.703]
    assert_allclose(ratio, expected, **close)
    # width at half height
    theta, fine = np.arange(n) * 180 / n, np.arange(0, 90, 0.01)
    for contrast, width in ((1, 50.4), (10, 54.3), (50, 42.3)):
        rates = contrast_response(circuit, grating(0), [contrast]).rates[0, :n]
        curve = np.interp(fine, theta, rates)
        assert_allclose(2 * fine[np.argmin(curve > curve[0] / 2)], width, rtol=0.01)


def line(exponent):
    """101 positions in steps of 1/3 deg, and a bar's drive by its length."""
    x = (np.arange(101) - 50) / 3

    def bump(width):
        return np.exp(-((x[:, None] - x) ** 2) / (2 * width**2))

    blocks = [[bump(2 / 3), -np.eye(101)], [1.25 * bump(4 / 3), -0.75 * np.eye(101)]]

    def bar(length):
        edges = (x[None] + np.array([[length], [-length]]) / 2) / (0.125 / 3)
        return np.tile(expit(edges[0]) * (1 - expit(edges[1])), 2)

    return Circuit(np.block(blocks), 101, k=0.01, gamma=exponent), bar


LENGTHS = np.array([*np.arange(1, 22, 2) / 3, 31 / 3, 14.0, 30.0])


@pytest.mark.parametrize(
    ("exponent", "contrast", "preferred", "suppression", "curve"),
    [
        (2.0, 20, (5 / 3, 3.0), (0.608, 0.140), [3.51, 6.46, 6.99, 6.12, 4.88]),
        (2.2, 50, (1 / 3, 5 / 3), (0.788, 0.126), [14.80, 12.72, 9.95, 7.05, 3.27]),
        (2.0, 1, (13 / 3, 14.0), (0.0, 0.0), [0.0093, 0.0103, 0.0106, 0.0108, 0.0108]),
        (2.0, 10, (7 / 3, 5.0), (0.344, 0.064), [0.916, 1.429, 1.869, 2.003, 1.909]),
        (2.0, 50, (1.0, 7 / 3), (0.739, 0.170), [16.07, 18.92, 16.22, 12.52, 7.99]),
        (2.2, 5, (3.0, 19 / 3), (0.204, 0.033), [0.315, 0.451, 0.564, 0.621, 0.622]),
        (2.2, 20, (1.0, 7 / 3), (0.713, 0.155), [5.25, 6.95, 6.09, 4.77, 3.25]),
    ],
)
def test_surround_suppression_on_a_line(exponent, contrast, preferred, suppression, curve):
    """Rubin, Van Hooser & Miller 2015: less of it and at larger sizes in I cells."""
    circuit, bar = line(exponent)
    drives = contrast * np.array([bar(length) for length in LENGTHS])
    tuning = size_tuning(circuit, drives, LENGTHS, cells=[50, 151])
    assert_allclose(tuning.suppression_index, suppression, rtol=5e-3, atol=5e-4)
    assert_allclose(tuning.rates[:5, 0], curve, rtol=5e-3, atol=5e-5)
    assert_allclose(tuning.preferred_size, preferred)


def test_normalization_without_an_answer():
    same = normalization(PAIR_A, 1.0, 1.0, [5.0])  # two stimuli that cannot be told apart
    assert np.isnan(same.weights).all()
    assert same.weight[0] > 1
    silent = normalization(PAIR_A, 0.0, 0.0, [5.0])
    assert np.isnan(silent.weight).all()
    runaway = Circuit(np.eye(2) * 2.5, 2, k=0.04)
    found = normalization(runaway, [50.0, 0.0], [0.0, 50.0], [0.01, 1.0])
    assert_array_equal(np.isnan(found.weights), [[False, False], [True, True]])


def test_tables():
    pytest.importorskip("pandas")
    response = contrast_response(PAIR_A, 1.0, [1.0, 5.0])
    frame = response.to_dataframe()
    assert frame.columns.tolist() == ["contrast", "E", "I"]
    assert_allclose(frame["E"], response.rates[:, 0])
    circuit, drives = size_contrast()
    tuning = size_tuning(circuit, drives[-2:], SIZES, cells=CENTRE)
    frame = tuning.to_dataframe()
    assert frame.columns.tolist() == ["size", "contrast", "E", "PV", "SST", "VIP"]
    assert_allclose(frame["VIP"], tuning.rates[..., 3].ravel())
    with mock.patch.dict(sys.modules, {"pandas": None}), pytest.raises(ImportError, match="tables"):
        response.to_dataframe()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contrast_response(PAIR_A, 1.0, [2.0, 1.0]), "contrasts must rise"),
        (lambda: contrast_response(PAIR_A, 1.0, [-1.0, 1.0]), "contrasts must rise"),
        (lambda: contrast_response(PAIR_A, 1.0, [np.nan]), "contrasts must be"),
        (lambda: contrast_response(PAIR_A, 1.0, []), "contrasts must be"),
        (lambda: contrast_response(PAIR_A, [1.0], [1.0]), "pattern must be"),
        (lambda: contrast_response(PAIR_A, np.inf, [1.0]), "pattern must be"),
        (lambda: contrast_response(PAIR_A, 1.0, [1.0], baseline=[1, 2, 3]), "baseline must be"),
        (lambda: contrast_response(PAIR_A, 1.0, [1.0, 2.0]).supersaturation("PV"), "population"),
        (lambda: size_tuning(PAIR_A, [[1.0, 1.0]], [1.0, 2.0]), "drives must have shape"),
        (lambda: size_tuning(PAIR_A, [[1.0]], [1.0]), "drives must have shape"),
        (lambda: size_tuning(PAIR_A, [[1.0, 1.0]] * 2, [2.0, 1.0]), "sizes must"),
        (lambda: size_tuning(PAIR_A, [[np.nan, 1.0]], [1.0]), "drive must be finite"),
        (lambda: size_tuning(PAIR_A, [[1.0, 1.0]], [1.0], cells=[2]), "cells must be"),
        (lambda: size_tuning(PAIR_A, [[1.0, 1.0]], [1.0], cells=[0.5]), "cells must be"),
        (lambda: size_tuning(PAIR_A, [[1.0, 1.0]], [1.0], cells="VIP"), "population must be"),
        (lambda: normalization(PAIR_A, 1.0, [1.0], [1.0]), "second must be"),
        (lambda: normalization(PAIR_A, 1.0, 1.0, [[1.0, 2.0, 3.0]]), "contrasts must be"),
        (lambda: normalization(PAIR_A, 1.0, 1.0, [np.inf]), "contrasts must be"),
    ],
)
def test_what_is_not_legal(call, message):
    with pytest.raises(ValueError, match=message):
        call()
