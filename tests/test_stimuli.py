"""Patterns of input against their formulas."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import erf

from ssn_estimators.geometry import Space, connect, line, orientation_map, ring, sheet
from ssn_estimators.stimuli import annulus, bar, bump, for_types, grating, in_time, plaid, uniform

LINE = line(101, 1 / 3)
SHEET = sheet((9, 9), 0.4, orientation=orientation_map((9, 9), 0.4, 2.0, random_state=0))
X = LINE.positions[:, 0]
RADIUS = np.linalg.norm(SHEET.positions, axis=1)


def logistic(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("place", [0.0, 45.0, 170.0])
def test_a_bump_on_a_ring_is_the_shorter_way_round(place):
    space = ring(180, 180.0)
    difference = abs(np.arange(180.0) - place)
    distance = np.minimum(difference, 180 - difference)
    expected = 20 * np.exp(-(distance**2) / 2 / 30**2)
    assert_allclose(bump(space, 30.0, place=place, contrast=20.0), expected)
    assert_allclose(bump(space, 30.0, orientation=place + 180, contrast=20.0), expected)
    assert_allclose(grating(space, place, 30.0, contrast=20.0), expected)


def test_a_von_mises_bump():
    """The input of Hennequin et al. 2018."""
    theta = 2 * np.pi * np.arange(50) / 50
    width = np.radians(60)
    expected = np.exp((np.cos(theta - theta[10]) - 1) / width**2)
    assert_allclose(bump(ring(50), width, place=72.0, profile="von_mises"), expected)
    preferred = np.radians(2 * SHEET.orientation)  # the period is 180 degrees
    expected = np.exp((np.cos(preferred - np.radians(60)) - 1) / width**2)
    assert_allclose(bump(SHEET, width, orientation=30.0, profile="von_mises"), expected)


def test_a_bump_on_a_sheet():
    distance = np.linalg.norm(SHEET.positions - [0.4, 0.8], axis=1)
    expected = np.exp(-(distance**2) / 2 / 0.5**2)
    assert_allclose(bump(SHEET, 0.5, place=[0.4, 0.8]), expected)
    assert bump(SHEET, 0.5).argmax() == 40


def test_a_bar_with_soft_ends():
    """The input of Rubin et al. 2015."""
    width = 0.125 / 3
    left, right = (X + 0.5) / width, (X - 0.5) / width
    with np.errstate(over="ignore"):
        soft = logistic(left) * (1 - logistic(right))
    assert_allclose(bar(LINE, 1.0, edge="logistic", edge_width=width), soft, atol=1e-12)
    scale = 2**0.5 * 0.4
    normal = (1 + erf((X + 2) / scale)) / 2 * (1 + erf((2 - X) / scale)) / 2
    assert_allclose(bar(LINE, 4.0, edge="erf", edge_width=0.4), normal, atol=1e-12)
    assert_array_equal(bar(LINE, 4.0), abs(X) <= 2)


def test_a_bar_on_a_sheet_is_a_square():
    x, y = SHEET.positions.T
    assert_array_equal(bar(SHEET, 1.0), (abs(x) <= 0.5) & (abs(y) <= 0.5))
    along = bar(line(9, 0.4), 1.0, edge="erf", edge_width=0.2)
    square = bar(SHEET, 1.0, edge="erf", edge_width=0.2).reshape(9, 9)
    assert_allclose(square, np.outer(along, along), atol=1e-12)


def test_a_bar_over_the_seam_of_a_ring():
    pattern = bar(ring(6), 130.0, place=0.0)
    assert_array_equal(pattern, [1, 1, 0, 0, 0, 1])


def test_a_grating_in_a_disc():
    difference = abs(SHEET.orientation - 20)
    tuning = np.exp(-(np.minimum(difference, 180 - difference) ** 2) / 2 / 32**2)
    disc = logistic((1.0 - RADIUS) / 0.08)
    options = {"radius": 1.0, "edge": "logistic", "edge_width": 0.08}
    assert_allclose(grating(SHEET, 20.0, 32.0, **options, contrast=3.0), 3 * tuning * disc)
    assert_allclose(grating(SHEET, **options), disc)
    assert_allclose(grating(SHEET, 20.0, 32.0), tuning)
    assert_allclose(grating(SHEET, 200.0, 32.0), tuning)


@pytest.mark.parametrize("n", [12, 50, 180])
def test_cells_on_a_border_are_within_it_on_both_sides(n):
    """However their distances are rounded."""
    space = ring(n, 180.0)
    spacing = 180.0 / n
    for whole in range(1, n // 2 - 1):
        for place in (0.0, 5 * spacing):
            assert grating(space, radius=whole * spacing, place=place).sum() == 2 * whole + 1
            assert bar(space, 2 * whole * spacing, place=place).sum() == 2 * whole + 1
            assert annulus(space, whole * spacing, whole * spacing, place=place).sum() == 2
    assert connect(line(11, 0.1), 1.0, 1.0, reach=0.3)[5].astype(bool).sum() == 7
    assert grating(line(11, 0.1), radius=0.3).sum() == 7


def test_an_annulus_is_what_a_disc_leaves_of_a_larger_one():
    disc, larger = grating(SHEET, 20.0, 32.0, radius=[0.7, 1.3])
    assert_allclose(annulus(SHEET, 0.7, 1.3, 20.0, 32.0), larger - disc)
    soft = annulus(SHEET, 0.7, 1.3, edge="erf", edge_width=0.1)
    inner, outer = erf((RADIUS - 0.7) / 0.1 / 2**0.5), erf((1.3 - RADIUS) / 0.1 / 2**0.5)
    assert_allclose(soft, (1 + inner) * (1 + outer) / 4, atol=1e-12)


def test_a_plaid_is_the_sum_of_its_gratings():
    options = {"radius": 1.0, "place": [0.4, 0.0], "edge": "erf", "edge_width": 0.1}
    found = plaid(SHEET, (0.0, 90.0), 32.0, contrasts=(0.7, [0.0, 0.2]), **options)
    first = grating(SHEET, 0.0, 32.0, contrast=0.7, **options)
    second = grating(SHEET, 90.0, 32.0, **options)
    assert_allclose(found, [first, first + 0.2 * second])


@pytest.mark.parametrize("space", [LINE, SHEET, ring(60, 180.0)], ids=["line", "sheet", "ring"])
def test_patterns_are_between_0_and_1(space):
    soft = {"edge": "logistic", "edge_width": 0.5}
    patterns = [
        uniform(space),
        bump(space, 1.0),
        bar(space, [0.0, 2.0], **soft),
        grating(space, radius=[0.0, 2.0], **soft),
        annulus(space, 1.0, 3.0, **soft),
    ]
    for pattern in patterns:
        assert pattern.min() >= 0
        assert pattern.max() <= 1


def test_parameters_that_are_arrays_make_several_patterns():
    lengths, contrasts, places = [1.0, 2.0], [0.5, 1.0], [0.0, 3.0]
    several = bar(LINE, lengths, place=places, contrast=contrasts)
    for pattern, length, contrast, place in zip(several, lengths, contrasts, places, strict=True):
        assert_array_equal(pattern, bar(LINE, length, place=place, contrast=contrast))
    several = bump(SHEET, 0.5, place=[[0.0, 0.0], [0.4, 0.8]])
    assert_array_equal(several[1], bump(SHEET, 0.5, place=[0.4, 0.8]))
    several = grating(SHEET, [0.0, 90.0], 32.0, radius=0.8)
    assert_array_equal(several[1], grating(SHEET, 90.0, 32.0, radius=0.8))
    assert uniform(SHEET, contrast=[0.1, 0.2, 0.3]).shape == (3, 81)
    assert bump(SHEET, [0.5]).shape == (1, 81)


def test_types_have_gains():
    pattern = bump(SHEET, [0.5, 1.0])
    tiled = for_types(pattern, [0.481, 0.226])
    assert_array_equal(tiled, np.hstack([0.481 * pattern, 0.226 * pattern]))
    assert for_types(pattern[0], [1, 0, 2]).shape == (3 * 81,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform("line"), "'space' parameter"),
        (lambda: uniform(LINE, contrast=-1.0), "contrast must be finite and >= 0"),
        (lambda: uniform(LINE, contrast=[[1.0]]), "contrast must be"),
        (lambda: uniform(LINE, contrast=np.nan), "contrast must be"),
        (lambda: uniform(LINE, contrast="high"), "contrast must be an array of numbers"),
        (lambda: bump(LINE, 0.0), "width must be finite and > 0"),
        (lambda: bump(LINE, np.inf), "width must be finite and > 0"),
        (lambda: bump(LINE, 1.0, place=np.nan), "place must be finite"),
        (lambda: bump(LINE, 1.0, place=[[1.0, 2.0]]), "place must be finite and have 1"),
        (lambda: bump(LINE, 1.0, place=[[[1.0]]]), "place must be one for each"),
        (lambda: bump(SHEET, 1.0, place=1.0), "place must be finite and have 2"),
        (lambda: bump(SHEET, 1.0, place=[0.0, 0.0], orientation=0.0), "a place or an orientation"),
        (lambda: bump(LINE, 1.0, orientation=0.0), "orientation is for a ring"),
        (lambda: bump(SHEET, 1.0, orientation=np.nan), "orientation must be finite"),
        (lambda: bump(LINE, 1.0, profile="von_mises"), "is for rings"),
        (lambda: bump(LINE, 1.0, profile="box"), "'profile' parameter"),
        (lambda: bump(LINE, [1.0, 2.0], place=[0.0, 1.0, 2.0]), "as many of each"),
        (lambda: bar(LINE, -1.0), "length must be finite and >= 0"),
        (lambda: bar(LINE, 1.0, edge="linear", edge_width=1.0), "edge must be None or one of"),
        (lambda: bar(LINE, 1.0, edge="erf"), "needs an edge_width"),
        (lambda: bar(LINE, 1.0, edge="erf", edge_width=0.0), "edge_width must be finite and > 0"),
        (lambda: bar(LINE, 1.0, edge_width=1.0), "with an edge only"),
        (lambda: bar(LINE, [1.0, 2.0], contrast=[1.0, 2.0, 3.0]), "as many of each"),
        (lambda: grating(SHEET, 0.0), "needs a width"),
        (lambda: grating(SHEET, width=30.0), "with an orientation only"),
        (lambda: grating(SHEET, edge="erf", edge_width=0.1), "with a radius only"),
        (lambda: grating(SHEET, place=[0.0, 0.0]), "with a radius only"),
        (lambda: grating(SHEET, radius=-1.0), "radius must be finite and >= 0"),
        (lambda: grating(SHEET, radius=[1.0, 2.0], contrast=[1.0] * 3), "as many of each"),
        (lambda: grating(SHEET, [0.0, 1.0], 30.0, contrast=[1.0] * 3), "as many of each"),
        (lambda: annulus(SHEET, 2.0, 1.0), "inner must not be larger"),
        (lambda: plaid(SHEET, (0.0, 1.0, 2.0), 30.0), "orientations must be two"),
        (lambda: plaid(SHEET, (0.0, 90.0), 30.0, contrasts=(1.0,)), "contrasts must be two"),
        (lambda: plaid(SHEET, (0.0, 90.0), 30.0, contrasts=([1.0] * 2, [1.0] * 3)), "as many"),
        (lambda: for_types(1.0, [1.0, 1.0]), "pattern must be"),
        (lambda: for_types([np.nan], [1.0, 1.0]), "pattern must be"),
        (lambda: for_types([1.0], 1.0), "gains must be"),
        (lambda: for_types([1.0], [np.inf]), "gains must be"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_space_without_a_grid():
    space = Space([[0.0, 0.0], [3.0, 4.0]])
    assert_allclose(bump(space, 5.0), [1.0, np.exp(-0.5)])


def test_drives_in_time():
    first, second = np.zeros((3, 2)), np.arange(6.0).reshape(3, 2)
    drive = in_time([first, second, first], [1.5, 1.0, 0.0], dt=0.5)
    assert drive.shape == (5, 3, 2)
    assert_allclose(drive[:3], 0)
    assert_allclose(drive[3:], np.stack([second, second]))


@pytest.mark.parametrize(
    ("drives", "durations", "message"),
    [
        ([[1.0]], [1.0, 2.0], "one duration for each drive"),
        ([], [], "one duration for each drive"),
        ([[1.0], [1.0, 2.0]], [1.0, 2.0], "drives must be of one shape"),
        ([[np.nan]], [1.0], "drives must be finite"),
        ([[1.0]], [0.7], "multiples of dt=0.5"),
        ([[1.0]], [-1.0], "durations must be >= 0"),
        ([[1.0]], [np.inf], "durations must be"),
        ([[1.0]], [1e30], "durations must be >= 0"),
    ],
)
def test_what_is_no_time_course(drives, durations, message):
    with pytest.raises(ValueError, match=message):
        in_time(drives, durations, dt=0.5)
