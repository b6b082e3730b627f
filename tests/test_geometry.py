"""Cells with a place: distances and weights by formulas, and fixed points of published circuits."""

import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from ssn_estimators import Circuit, geometry, stimuli
from ssn_estimators.geometry import Space, connect, line, orientation_map, ring, sheet, signed

RELAXATION = np.array([0.05, 0.1])  # Euler's step over the time constants of E and I cells


def fixed_points(weights, inputs, k, n):
    """Rates of E and I cells without noise, of shape (2, n_inputs, n_positions).

    Euler's method from rest in the rate form finds the fixed point, Newton's polishes it.
    """
    step = np.repeat(RELAXATION, len(weights) // 2)
    rates = np.zeros_like(inputs)
    for _ in range(1500):
        rates += step * (k * np.maximum(rates @ weights.T + inputs, 0) ** n - rates)
    for _ in range(10):
        u = np.maximum(rates @ weights.T + inputs, 0)
        error = k * u**n - rates
        jacobian = np.eye(len(weights)) - k * n * u[:, :, None] ** (n - 1) * weights
        rates = rates + np.linalg.solve(jacobian, error[..., None])[..., 0]
        if abs(error).max() < 1e-9:
            return np.moveaxis(rates.reshape(len(rates), 2, -1), 1, 0)
    raise AssertionError(f"no fixed point, error {abs(error).max()}")


def block_sums(weights, n_types=2):
    """Sums of rows, of shape (post, position, pre)."""
    n = len(weights) // n_types
    return weights.reshape(n_types, n, n_types, n).sum(axis=3)


RUBIN_AMPLITUDES = [[0.044, 0.023], [0.042, 0.018]]  # Neuron 85, 402-417
AHMADIAN_AMPLITUDES = np.pi * np.array([[2.5, 1.3], [2.4, 1.0]])  # Neural Computation 25, 1994-2037


def rubin_ring():
    space = ring(180, 180.0)
    return space, signed(connect(space, RUBIN_AMPLITUDES, 32.0), [1, -1])


def rubin_line():
    space = line(101, 1 / 3)
    excitation_only = [["gaussian", "local"]] * 2
    magnitudes = connect(
        space, [[1.0, 1.0], [1.25, 0.75]], [[2 / 3, 0], [4 / 3, 0]], profile=excitation_only
    )
    return space, signed(magnitudes, [1, -1])


SHEETS = {  # of Holt, Miller & Ahmadian 2024: J, input gains, widths in mm, local shares
    "Fig 4": (
        [[1.124, 0.931], [1.049, 0.537]],
        (0.481, 0.226),
        [[0.2955, 0.09], [0.5542, 0.09]],
        [[0.72, 0], [0.70, 0]],
    ),
    "Fig 6": (
        [[1.495, 1.034], [1.110, 0.517]],
        (0.476, 0.232),
        [[0.2654, 0.09], [0.2940, 0.09]],
        0.0,
    ),
}
MM_PER_DEGREE = 2.0


def holt_sheet(name):
    efficacy, gains, widths, local_share = SHEETS[name]
    flat = orientation_map((17, 17), 0.4, period=1e4, random_state=0)
    space = sheet((17, 17), 0.4, orientation=flat, unit="mm")
    magnitudes = connect(
        space,
        np.pi * 0.774 * np.array(efficacy),
        widths,
        profile=[["exponential", "gaussian"]] * 2,
        normalize="rows",
        feature_widths=45.0,
        local_share=local_share,
        cutoff=1e-4,
    )
    return space, signed(magnitudes, [1, -1]), gains


# -- spaces ------------------------------------------------------------------------------------


def test_distances_on_a_ring_are_the_shorter_way_round():
    space = ring(180, 180.0)
    difference = abs(np.subtract.outer(np.arange(180.0), np.arange(180.0)))
    assert_allclose(space.distances(), np.minimum(difference, 180 - difference), atol=1e-12)


def test_distances_on_lines_and_sheets():
    assert_allclose(line(4, 0.5).distances()[0], [0, 0.5, 1.0, 1.5])
    assert_allclose(line(4, 0.5, periodic=True).distances()[0], [0, 0.5, 1.0, 0.5])
    assert line(4, 0.5).positions.mean() == 0
    assert_allclose(sheet((2, 3)).distances()[0], [0, 1, 2, 1, 2**0.5, 5**0.5])
    assert_allclose(sheet((2, 3), periodic=True).distances()[0], [0, 1, 1, 1, 2**0.5, 2**0.5])
    assert_allclose(sheet((3, 5), 2.0).positions.mean(axis=0), 0, atol=1e-15)


def test_positions_of_a_sheet_are_in_the_order_of_a_map():
    x, y = sheet((2, 3), 2.0).positions.T.reshape(2, 2, 3)
    assert_array_equal(x, [[-1, -1, -1], [1, 1, 1]])
    assert_array_equal(y, [[-2, 0, 2], [-2, 0, 2]])


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8),
    st.floats(0.1, 500.0),
    st.integers(-3, 3),
)
def test_whole_periods_change_no_distance(positions, period, n_periods):
    positions = np.array(positions)[:, None]
    distances = Space(positions, [period]).distances()
    assert (distances <= period / 2 * (1 + 1e-9)).all()
    shifted = positions + n_periods * period * (np.arange(len(positions)) % 2)[:, None]
    assert_allclose(Space(shifted, [period]).distances(), distances, atol=1e-9)


def test_orientations_have_a_period_of_180_degrees():
    space = sheet((1, 4), orientation=[[0.0, 45.0, 90.0, 170.0]])
    assert_allclose(space.orientation_differences()[0], [0, 45, 90, 10])
    turned = replace(space, orientation=space.orientation + 180.0)
    assert_allclose(turned.orientation_differences(), space.orientation_differences())
    with pytest.raises(ValueError, match="no orientation"):
        sheet((1, 4)).orientation_differences()


def test_maps_of_orientation_have_one_period():
    """Their spectrum is on a ring of the wave number, and all orientations are as frequent."""
    spacing, period = 0.1, 1.0
    orientation = orientation_map((100, 100), spacing, period, random_state=0)
    assert orientation.min() >= 0
    assert orientation.max() < 180
    field = np.exp(2j * np.radians(orientation))
    power = abs(np.fft.fft2(field * np.outer(np.hanning(100), np.hanning(100)))) ** 2
    frequency = np.fft.fftfreq(100, spacing)
    radius = np.hypot(*np.meshgrid(frequency, frequency))
    on_ring = abs(radius - 1 / period) < 0.25
    assert power[on_ring].sum() > 0.7 * power.sum()
    shares = np.histogram(orientation, 4, (0, 180))[0] / orientation.size
    assert_allclose(shares, 0.25, atol=0.06)
    again = orientation_map((100, 100), spacing, period, random_state=0)
    assert_array_equal(again, orientation)
    assert np.ptp(orientation_map((9, 9), spacing, 1e5, random_state=0)) < 0.1


def test_spaces_are_frozen_values():
    for space in (ring(4), pickle.loads(pickle.dumps(ring(4)))):
        with pytest.raises(ValueError, match="read-only"):
            space.positions[0] = 1.0
        with pytest.raises(FrozenInstanceError):
            space.unit = "mm"
    assert repr(ring(4, 180.0)) == (
        "Space(n_positions=4, n_dimensions=1, periods=(180.0,), unit='deg')"
    )


# -- conventions of published circuits ---------------------------------------------------------


def test_ring_of_rubin():
    _, weights = rubin_ring()
    expected = np.array([[3.512, -1.836], [3.352, -1.437]])
    assert_allclose(block_sums(weights), np.repeat(expected[:, None], 180, 1), atol=5e-4)
    assert Circuit(weights, 180, 0.0).n_inhibitory == 180


@pytest.mark.parametrize("n", [52, 180])
def test_ring_of_ahmadian(n):
    """Sums do not depend on the number of positions: they are integrals of the Gaussian."""
    weights = connect(ring(n, 180.0), AHMADIAN_AMPLITUDES, 32.0, normalize="density")
    grid = np.linspace(-90, 90, 100_001)
    mean = np.exp(-(grid**2) / 2 / 32**2).mean()
    expected = (AHMADIAN_AMPLITUDES * mean)[:, None] * np.ones((n, 1))
    assert_allclose(block_sums(weights), expected, rtol=1e-3)
    index = np.minimum(np.arange(n), n - np.arange(n)) * (180 / n)
    assert_allclose(weights[0, :n], 2.5 * np.pi / n * np.exp(-(index**2) / 2 / 32**2))


def test_ring_of_hennequin():
    """Neuron 98, 846-860: rows of von Mises functions that sum to 1."""
    amplitudes = np.array([[1.25, 0.65], [1.2, 0.5]])
    space = ring(50)
    weights = connect(space, amplitudes, np.radians(45), profile="von_mises", normalize="rows")
    assert_allclose(block_sums(weights), np.repeat(amplitudes[:, None], 50, 1))
    ratio = np.exp((np.cos(2 * np.pi / 50) - 1) / np.radians(45) ** 2)
    assert_allclose(weights[0, 1] / weights[0, 0], ratio)


def test_ring_of_echeveste_is_the_same_with_the_profile_von_mises():
    amplitudes, widths = [[0.3, 0.1], [0.4, 0.2]], [[0.8, 0.6], [0.9, 0.7]]
    circuit = geometry.gaussian_ring(12, amplitudes, widths)
    weights = signed(connect(ring(12), amplitudes, widths, profile="von_mises"), [1, -1])
    assert_allclose(weights, circuit.weights, rtol=1e-12)


def test_von_mises_of_small_width_is_gaussian_in_the_angle():
    """A width of sigma degrees on a ring of 180 is one of 2 sigma pi / 180 radians."""
    space = ring(720, 180.0)
    gauss = connect(space, 1.0, 2.0)
    von_mises = connect(space, 1.0, 2 * np.radians(2.0), profile="von_mises")
    assert_allclose(von_mises, gauss, atol=2e-3)


def test_line_of_rubin():
    _, weights = rubin_line()
    sums = block_sums(weights)
    assert_allclose(sums[:, 50, 0], [5.01, 12.53], atol=5e-3)  # in the middle
    assert sums[0, 0, 0] < 0.6 * sums[0, 50, 0]  # at a border
    assert_array_equal(weights[:101, 101:], -np.eye(101))
    assert_array_equal(weights[101:, 101:], -0.75 * np.eye(101))


@pytest.mark.parametrize("name", SHEETS)
def test_sheet_of_holt(name):
    space, weights, _ = holt_sheet(name)
    efficacy, _, widths, local_share = SHEETS[name]
    amplitudes = np.pi * 0.774 * np.array(efficacy)
    assert_allclose(abs(block_sums(weights)), np.repeat(amplitudes[:, None], 289, 1))
    # by the formula, for the weights onto the E cell in the middle
    distance, share = space.distances()[144], np.broadcast_to(local_share, (2, 2))[0, 0]
    kernel = np.exp(-distance / widths[0][0])
    kernel[kernel < 1e-4] = 0
    expected = amplitudes[0, 0] * (share * (distance == 0) + (1 - share) * kernel / kernel.sum())
    assert_allclose(weights[144, :289], expected, rtol=1e-3)  # the map is flat to .1 degrees
    assert (weights[144, :289] == 0).sum() == (kernel == 0).sum() > 0


def test_cells_of_like_orientation_are_connected():
    space = sheet((1, 3), orientation=[[0.0, 10.0, 90.0]])
    weights = connect(space, 1.0, 1e6, feature_widths=[[20.0, np.inf], [np.inf, 20.0]])
    tuned = np.exp(-(np.array([0.0, 10.0, 90.0]) ** 2) / 2 / 20**2)
    assert_allclose(weights[0], [*tuned, 1, 1, 1], rtol=1e-9)


def test_profiles_may_be_functions():
    near = connect(line(4), 2.0, 1.5, profile=lambda d, w: d <= w)
    assert_array_equal(near[0], [2, 2, 0, 0])
    mixed = connect(line(4), 1.0, 1.5, profile=[[lambda d, w: d <= w, "local"]] * 2)
    assert_array_equal(mixed[0], [1, 1, 0, 0, 1, 0, 0, 0])


def test_rows_without_connections_stay_empty():
    weights = connect(line(3), 1.0, 1.0, profile=lambda d, w: d == 2.0, normalize="rows")
    assert_array_equal(weights, [[0, 0, 1], [0, 0, 0], [1, 0, 0]])


def test_weights_beyond_reach_are_zero():
    space = sheet((5, 6), 0.4, periodic=True)
    all_weights, within = connect(space, 1.0, 0.5), connect(space, 1.0, 0.5, reach=0.8)
    near = space.distances() <= 0.8 * (1 + 1e-9)
    assert_array_equal(within, np.where(near, all_weights, 0))
    assert_array_equal(near, near.T)


# -- sparse ------------------------------------------------------------------------------------

ORIENTATION = orientation_map((6, 7), 0.4, 1.0, random_state=0)


@pytest.mark.parametrize(
    "space",
    [
        ring(40, 180.0),
        line(30, 7.0, periodic=True),
        sheet((6, 7), 10.0, orientation=ORIENTATION),
        sheet((6, 7), 10.0, periodic=True, orientation=ORIENTATION),
        Space(np.random.RandomState(0).uniform(-90, 90, (40, 2)), [180.0, None]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("normalize", [None, "rows", "density"])
@pytest.mark.parametrize("reach", [20.0, 1e3, None])
def test_sparse_weights_are_the_same(space, normalize, reach):
    settings = {
        "profile": [["exponential", "gaussian"], ["gaussian", "local"]],
        "feature_widths": None if space.orientation is None else 30.0,
        "local_share": [[0.2, 0.0], [1.0, 0.5]],
        "cutoff": 1e-3,
        "normalize": normalize,
        "reach": reach,
    }
    arguments = space, [[1.0, 2.0], [0.0, 4.0]], [[10.0, 20.0], [30.0, 0.0]]
    dense = connect(*arguments, **settings)
    sparse = connect(*arguments, **settings, sparse=True)
    assert isinstance(sparse, csr_array)
    assert_allclose(sparse.toarray(), dense, rtol=1e-12)
    given_signs = signed(sparse, [1, -1])
    assert isinstance(given_signs, csr_array)
    assert_allclose(given_signs.toarray(), signed(dense, [1, -1]), rtol=1e-12)
    for kind in (bool, np.uint8, np.int64, np.float32):  # such as adjacency matrices
        whole = (dense != 0).astype(kind)
        assert_array_equal(signed(csr_array(whole), [1, -1]).toarray(), signed(whole, [1, -1]))


def test_large_sheets_need_no_matrix_of_all_pairs():
    """A dense matrix of 11,250 cells would take 1 GB."""
    space = sheet((75, 75), 1.0, orientation=orientation_map((75, 75), 1.0, 10.0, random_state=0))
    weights = connect(
        space,
        [[0.06, 0.044], [0.05, 0.024]],
        [[3.0, 2.0], [6.0, 2.0]],
        feature_widths=55.0,
        normalize="rows",
        reach=6.0,
        sparse=True,
    )
    assert weights.shape == (11_250, 11_250)
    assert weights.nnz <= 4 * 5625 * 113  # of a disc of 6 cells
    assert_allclose(weights[[2812, 5625 + 2812]].sum(axis=1), [0.104, 0.074])


@pytest.mark.parametrize(
    "space",
    [ring(9, 180.0), line(8, 7.0, periodic=True), sheet((6, 7), 10.0, periodic=True)],
    ids=repr,
)
@pytest.mark.parametrize("reach", [25.0, None])
@pytest.mark.parametrize("normalize", [None, "rows", "density"])
def test_convolutions_are_products_with_weights(space, reach, normalize):
    arguments = space, [[1.0, 2.0], [0.0, 4.0]], [[10.0, 20.0], [30.0, 0.0]]
    settings = {
        "profile": [["exponential", "gaussian"], ["gaussian", "local"]],
        "local_share": [[0.2, 0.0], [0.5, 0.5]],
        "cutoff": 1e-3,
        "normalize": normalize,
        "reach": reach,
    }
    weights = signed(connect(*arguments, **settings), [1, -1])
    operator = geometry.convolution(*arguments, signs=[1, -1], **settings)
    rates = np.random.RandomState(0).uniform(0, 10, (2 * space.n_positions, 3))
    for product, expected in ((operator, weights), (operator.T, weights.T)):
        assert_allclose(product @ rates, expected @ rates, rtol=1e-9, atol=1e-12)
        assert_allclose(product @ rates[:, 0], expected @ rates[:, 0], rtol=1e-9, atol=1e-12)


# -- fixed points of the published circuits ----------------------------------------------------


def test_responses_of_the_ring_of_rubin():
    space, weights = rubin_ring()
    contrast = np.array([1, 2, 5, 7, 10, 15, 20, 30, 40, 50, 100.0])
    excitatory = [0.0433, 0.1888, 1.664, 4.513, 11.74, 19.30, 24.04, 30.55, 35.13, 38.61, 47.76]
    inhibitory = [0.0438, 0.1935, 1.802, 5.232, 15.67, 29.56, 40.14, 57.70, 73.04, 87.18, 149.98]
    both = [1.050, 1.088, 1.343, 1.248, 0.780, 0.668, 0.653, 0.660, 0.677, 0.695, 0.759]

    def response(pattern):
        return fixed_points(weights, stimuli.for_types(pattern, [1, 1]), 0.04, 2)

    alone = response(stimuli.bump(space, 30.0, place=45.0, contrast=contrast))
    assert_allclose(alone[0, :, 45], excitatory, rtol=5e-3)
    assert_allclose(alone[1, :, 45], inhibitory, rtol=5e-3)
    plaid = response(stimuli.plaid(space, (45.0, 135.0), 30.0, contrasts=(contrast, contrast)))
    assert_allclose(plaid[0, :, 45] / (alone[0, :, 45] + alone[0, :, 135]), both, rtol=5e-3)


def test_the_stronger_of_two_stimuli_wins_on_the_ring_of_rubin():
    space, weights = rubin_ring()
    first, second = np.array([50, 50, 50, 20.0]), np.array([50, 25, 10, 10.0])
    expected = [[0.689, 0.689], [0.835, 0.444], [0.955, 0.123], [0.882, 0.533]]
    patterns = [
        stimuli.bump(space, 30.0, place=45.0, contrast=first),
        stimuli.bump(space, 30.0, place=135.0, contrast=second),
        stimuli.plaid(space, (45.0, 135.0), 30.0, contrasts=(first, second)),
    ]
    inputs = stimuli.for_types(np.concatenate(patterns), [1, 1])
    alone, other, both = np.split(fixed_points(weights, inputs, 0.04, 2)[0], 3)
    for a, b, together, weight in zip(alone, other, both, expected, strict=True):
        found = np.linalg.lstsq(np.stack([a, b], axis=1), together, rcond=None)[0]
        assert_allclose(found, weight, rtol=5e-3)


@pytest.mark.parametrize("n", [52, 180])
def test_responses_of_the_ring_of_ahmadian(n):
    space = ring(n, 180.0)
    weights = signed(connect(space, AHMADIAN_AMPLITUDES, 32.0, normalize="density"), [1, -1])
    contrast = np.array([1, 2, 5, 10, 20, 30, 40, 50.0])
    excitatory = [0.0432, 0.1886, 1.637, 10.09, 21.11, 27.05, 31.19, 34.31]
    inhibitory = [0.0438, 0.1940, 1.796, 13.65, 36.21, 53.05, 67.89, 81.67]
    both = [1.049, 1.086, 1.284, 0.792, 0.663, 0.669, 0.685, 0.703]
    alone, plaid = (
        fixed_points(weights, stimuli.for_types(pattern, [1, 1]), 0.04, 2)
        for pattern in (
            stimuli.bump(space, 30.0, contrast=contrast),
            stimuli.plaid(space, (0.0, 90.0), 30.0, contrasts=(contrast, contrast)),
        )
    )
    assert_allclose(alone[0, :, 0], excitatory, rtol=5e-3)
    assert_allclose(alone[1, :, 0], inhibitory, rtol=5e-3)
    assert_allclose(plaid[0, :, 0] / (alone[0, :, 0] + alone[0, :, n // 2]), both, rtol=5e-3)


# preferred lengths are of this grid: where the contrast is low, maxima are flat
LENGTHS = np.array([*np.arange(1, 32, 2) / 3, 14, 30])


@pytest.mark.parametrize(
    ("n", "contrast", "preferred", "suppression", "excitatory"),
    [
        (2.0, 1.0, (13 / 3, 14), (0.0, 0.0), [0.0093, 0.0103, 0.0106, 0.0108, 0.0108]),
        (2.0, 10.0, (7 / 3, 5), (0.344, 0.064), [0.916, 1.429, 1.869, 2.003, 1.909]),
        (2.0, 20.0, (5 / 3, 3), (0.608, 0.140), [3.51, 6.46, 6.99, 6.12, 4.88]),
        (2.0, 50.0, (1, 7 / 3), (0.739, 0.170), [16.07, 18.92, 16.22, 12.52, 7.99]),
        (2.2, 5.0, (3, 19 / 3), (0.204, 0.033), [0.315, 0.451, 0.564, 0.621, 0.622]),
        (2.2, 20.0, (1, 7 / 3), (0.713, 0.155), [5.25, 6.95, 6.09, 4.77, 3.25]),
        (2.2, 50.0, (1 / 3, 5 / 3), (0.788, 0.126), [14.80, 12.72, 9.95, 7.05, 3.27]),
    ],
)
def test_responses_of_the_line_of_rubin(n, contrast, preferred, suppression, excitatory):
    space, weights = rubin_line()
    bars = stimuli.bar(space, LENGTHS, edge="logistic", edge_width=0.125 / 3, contrast=contrast)
    rates = fixed_points(weights, stimuli.for_types(bars, [1, 1]), 0.01, n)[:, :, 50]
    assert_allclose(rates[0, :5], excitatory, rtol=5e-3)
    assert_allclose(LENGTHS[rates.argmax(axis=1)], preferred)
    assert_allclose(1 - rates[:, -1] / rates.max(axis=1), suppression, rtol=5e-3, atol=5e-4)
    if (n, contrast) == (2.0, 50.0):  # responses oscillate over length
        at = [np.argmin(abs(LENGTHS - length)) for length in (13 / 3, 25 / 3, 30)]
        assert_allclose(rates[0, at], [1.027, 8.006, 4.945], rtol=5e-3)


RADII = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.3, 1.6, 2.5]  # degrees
FIG_4_25 = [9.68, 11.23, 12.48, 12.62, 12.12, 11.52, 10.34, 9.37, 8.60, 8.24, 8.11, 8.13]
FIG_4_50 = [18.98, 21.26, 22.21, 21.76, 20.62, 19.33, 17.39, 15.84, 14.70, 14.21, 14.06, 14.10]
FIG_4_100 = [32.49, 35.40, 36.04, 34.83, 32.84, 30.68, 27.67, 25.37, 23.70, 23.02, 22.82, 22.88]
FIG_6_50 = [28.67, 30.40, 26.62, 23.29, 20.23, 18.75, 17.62, 17.43, 17.56, 17.64, 17.71, 17.72]


@pytest.mark.parametrize(
    ("name", "contrasts", "excitatory", "suppression", "preferred"),
    [
        (
            "Fig 4",
            [10.0, 25.0, 50.0, 100.0],
            [
                [1.65, 2.09, 2.56, 2.89, 3.07, 3.12, 3.01, 2.85, 2.66, 2.54, 2.46, 2.44],
                FIG_4_25,
                FIG_4_50,
                FIG_4_100,
            ],
            [[0.219, 0.356, 0.365, 0.365], [0.127, 0.235, 0.215, 0.191]],
            [0.75, 0.5, 0.4, 0.4],
        ),
        ("Fig 6", [50.0], [FIG_6_50], [[0.417], [0.086]], [0.5]),
    ],
)
def test_responses_of_the_sheets_of_holt(name, contrasts, excitatory, suppression, preferred):
    space, weights, gains = holt_sheet(name)
    middle = space.n_positions // 2
    discs = stimuli.grating(
        space,
        space.orientation[middle],
        32.0,
        radius=MM_PER_DEGREE * np.array(RADII),
        edge="logistic",
        edge_width=MM_PER_DEGREE * 0.04,
    )
    inputs = np.concatenate([c * stimuli.for_types(discs, gains) for c in contrasts])
    rates = fixed_points(weights, inputs, 0.04, 2)[:, :, middle]
    rates = rates.reshape(2, len(contrasts), len(RADII))
    assert_allclose(rates[0], excitatory, rtol=5e-3)
    found = 1 - rates[:, :, -1] / rates.max(axis=2)
    assert_allclose(found, suppression, rtol=5e-3, atol=5e-4)
    assert_array_equal(np.take(RADII, rates[1].argmax(axis=1)), preferred)


def test_far_from_borders_a_sheet_is_a_pair_of_cells():
    """Rows sum to amplitudes, so that the same input everywhere is answered as by two cells."""
    space, weights, gains = holt_sheet("Fig 4")
    inputs = stimuli.for_types(stimuli.uniform(space, contrast=[100.0]), gains)
    rates = fixed_points(weights, inputs, 0.04, 2)
    assert_allclose(rates[0], 22.88, rtol=1e-3)
    assert_allclose(rates[1], 38.31, rtol=1e-3)


# -- bad input ---------------------------------------------------------------------------------

PAIR = [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Space([1.0, 2.0]), "positions must have shape"),
        (lambda: Space(np.zeros((0, 2))), "positions must have shape"),
        (lambda: Space([[np.nan]]), "positions must be finite"),
        (lambda: Space([["a"]]), "positions must be an array of numbers"),
        (lambda: Space([[0.0]], periods=[1.0, 2.0]), "periods must"),
        (lambda: Space([[0.0]], periods=[0.0]), "periods must"),
        (lambda: Space([[0.0]], periods=[np.inf]), "periods must"),
        (lambda: Space([[0.0, 0.0]], periods=360.0), "periods must"),
        (lambda: Space([[0.0]], orientation=[0.0, 1.0]), "orientation must have shape"),
        (lambda: Space([[0.0]], orientation=[np.inf]), "orientation must be finite"),
        (lambda: Space([[0.0]], shape=(2,)), "shape must have"),
        (lambda: Space([[0.0]], unit=3), "unit must"),
        (lambda: ring(0), "'n' parameter of ring"),
        (lambda: ring(4, -1.0), "'period' parameter of ring"),
        (lambda: line(4, 0.0), "'spacing' parameter of line"),
        (lambda: sheet(5), "shape must be 2 counts"),
        (lambda: sheet((5, 2.5)), "shape must be 2 counts"),
        (lambda: sheet((5, 0)), "shape must be 2 counts"),
        (lambda: sheet((2, 3), orientation=np.zeros((3, 2))), "orientation must have the shape"),
        (lambda: orientation_map((2, 3), 1.0, np.nan), "'period' parameter"),
        (lambda: orientation_map((2, 3), 1.0, 1.0, n_waves=0), "'n_waves' parameter"),
        (lambda: ring(4).displacements([1.0, 2.0]), "place must"),
        (lambda: connect("ring", 1.0, 1.0), "'space' parameter"),
        (lambda: connect(ring(4), [1.0, 2.0], 1.0), "shape"),
        (lambda: connect(ring(4), PAIR, np.ones((3, 3))), "shape"),
        (lambda: connect(ring(4), np.zeros((0, 0)), 1.0), "shape"),
        (lambda: connect(ring(4), -1.0, 1.0), "amplitudes must be finite and >= 0"),
        (lambda: connect(ring(4), np.nan, 1.0), "amplitudes must be finite and >= 0"),
        (lambda: connect(ring(4), np.inf, 1.0), "amplitudes must be finite and >= 0"),
        (lambda: connect(ring(4), 1.0, -1.0), "widths must be finite and > 0"),
        (lambda: connect(ring(4), 1.0, 0.0), "widths must be > 0"),
        (lambda: connect(ring(4), 1.0, [[np.inf]]), "widths must be finite"),
        (lambda: connect(ring(4), "a", 1.0), "amplitudes must be an array of numbers"),
        (lambda: connect(ring(4), 1.0, 1.0, profile="box"), "profile must be callable or one of"),
        (lambda: connect(ring(4), PAIR, 1.0, profile=["gaussian", "local"]), "shape"),
        (lambda: connect(line(4), 1.0, 1.0, profile="von_mises"), "is for rings"),
        (lambda: connect(sheet((2, 2), periodic=True), 1.0, 1.0, profile="von_mises"), "rings"),
        (lambda: connect(ring(4), 1.0, 1.0, profile=lambda d, w: -d), "profile must return"),
        (lambda: connect(ring(4), 1.0, 1.0, profile=lambda d, w: 1.0), "profile must return"),
        (lambda: connect(ring(4), 1.0, 1.0, normalize="columns"), "'normalize' parameter"),
        (lambda: connect(ring(4), 1.0, 1.0, local_share=1.5), "local_share must be from 0 to 1"),
        (lambda: connect(ring(4), 1.0, 1.0, feature_widths=30.0), "this space has none"),
        (
            lambda: connect(sheet((1, 1), orientation=[[0.0]]), 1.0, 1.0, feature_widths=0.0),
            "feature_widths must be > 0",
        ),
        (lambda: connect(ring(4), 1.0, 1.0, cutoff=-1.0), "'cutoff' parameter"),
        (lambda: connect(ring(4), 1.0, 1.0, reach=0.0), "'reach' parameter"),
        (lambda: connect(ring(4), 1.0, 1.0, profile=[["local"], ["local"] * 2]), "profile must"),
        (lambda: geometry.convolution(line(4), 1.0, 1.0), "periodic lines and sheets"),
        (
            lambda: geometry.convolution(Space([[0.0], [1.0]], [4.0], shape=(2,)), 1.0, 1.0),
            "periodic lines and sheets",
        ),
        (lambda: geometry.convolution(ring(4), 1.0, 1.0, signs=[1, -1]), "1 types of cells"),
        (lambda: signed(np.ones((4, 4)), [1, 2]), "signs must be"),
        (lambda: signed(np.ones((4, 4)), [1, -1, -1]), "3 types"),
        (lambda: signed([1.0, 2.0], [1, -1]), "2 types"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
