"""Published circuits: what they are known to do, by the numbers."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import brentq

from ssn_estimators import circuits, simulate
from ssn_estimators.inspection import (
    bifurcations,
    fixed_points,
    paradoxical_effect,
    population_response,
    response_matrix,
    steady_states,
)
from ssn_estimators.inspection.steady_states import eigenvalues

WITHIN = {"rtol": 5e-3}


def rates(published, *what, **more):
    found = steady_states(published.circuit, published.drive(*what, **more))
    assert found.stable.all()
    return found.rates


def test_every_circuit_has_a_drive():
    for name in circuits.__all__:
        if name != "Published":
            model = getattr(circuits, name)()
            n_arguments = model.drive.__code__.co_argcount - len(model.drive.__defaults__ or ())
            drive = model.drive(*[1.0] * n_arguments)
            assert drive.shape == (1, model.circuit.n_neurons)
            assert np.isfinite(drive).all()
            if model.space is not None:
                n_types = len(model.circuit.populations)
                assert model.space.n_positions * n_types == model.circuit.n_neurons


def test_pair_of_ahmadian():
    pair = circuits.ahmadian_2013_pair()
    found = rates(pair, [1, 2, 5, 8, 12, 20, 30, 50, 75, 100])
    excitatory = [0.0443, 0.1987, 1.954, 7.005, 11.88, 16.34, 18.94, 20.86, 20.79, 19.49]
    inhibitory = [0.0450, 0.2062, 2.228, 9.446, 18.82, 31.26, 42.77, 61.01, 80.13, 97.42]
    assert_allclose(found, np.transpose([excitatory, inhibitory]), **WITHIN)


@pytest.mark.parametrize(
    ("make", "onset", "largest", "height", "silent"),
    [
        (circuits.ahmadian_2013_pair, 3.921, 60.6, 21.05, None),
        (lambda: circuits.ahmadian_2013_pair(strong=True), 1.613, 24.92, 3.559, 148.5),
        (circuits.hennequin_2018_pair, 1.046, 16.16, 11.22, 96.5),
    ],
    ids=["Ahmadian", "Ahmadian, strong", "Hennequin"],
)
def test_pairs_are_stabilized_paradoxical_and_supersaturate(make, onset, largest, height, silent):
    pair = make()

    def state(strength):
        return steady_states(pair.circuit, pair.drive(strength))

    def beyond(strength):
        u = state(strength).u
        return pair.circuit.gain(u)[0, 0] * pair.circuit.weights[0, 0] - 1

    def paradox(strength):
        return response_matrix(pair.circuit, pair.drive(strength))[0, 1, 1]

    assert brentq(beyond, 0.3, 10.0) == pytest.approx(onset, rel=2e-3)
    assert brentq(paradox, 0.3, 10.0) == pytest.approx(onset, rel=2e-3)
    strengths = np.linspace(0.9, 1.1, 201) * largest
    excitatory = state(strengths).rates[:, 0]
    assert strengths[excitatory.argmax()] == pytest.approx(largest, rel=5e-3)
    assert excitatory.max() == pytest.approx(height, rel=5e-3)
    if silent:
        at_silence = state([silent * 0.99, silent * 1.01]).rates[:, 0]
        assert at_silence[0] > 0 == at_silence[1]


def test_ring_of_ahmadian():
    for n in (52, 180):
        found = rates(circuits.ahmadian_2013_ring(n), [1, 2, 5, 10, 20, 30, 40, 50])
        excitatory = [0.0432, 0.1886, 1.637, 10.09, 21.11, 27.05, 31.19, 34.31]
        inhibitory = [0.0438, 0.1940, 1.796, 13.65, 36.21, 53.05, 67.89, 81.67]
        assert_allclose(found[:, [0, n]], np.transpose([excitatory, inhibitory]), **WITHIN)


def test_ring_of_rubin():
    ring, contrasts = circuits.rubin_2015_ring(), [1, 2, 5, 7, 10, 15, 20, 30, 40, 50, 100]
    alone = [ring.drive(contrasts, orientation) for orientation in (45.0, 135.0)]
    one, other, both = (
        steady_states(ring.circuit, drive).rates for drive in (*alone, alone[0] + alone[1])
    )
    excitatory = [0.0433, 0.1888, 1.664, 4.513, 11.74, 19.30, 24.04, 30.55, 35.13, 38.61, 47.76]
    assert_allclose(one[:, 45], excitatory, **WITHIN)
    ratio = [1.050, 1.088, 1.343, 1.248, 0.780, 0.668, 0.653, 0.660, 0.677, 0.695, 0.759]
    assert_allclose(both[:, 45] / (one[:, 45] + other[:, 45]), ratio, **WITHIN)


def test_line_of_rubin():
    model = circuits.rubin_2015_line()
    lengths = np.array([*np.arange(1, 32, 2) / 3, 30])
    found = rates(model, 20.0, lengths)[:, [50, 151]]
    assert_allclose(found[:5, 0], [3.51, 6.46, 6.99, 6.12, 4.88], **WITHIN)
    assert_allclose(lengths[found.argmax(0)], [5 / 3, 3])
    assert_allclose(1 - found[-1] / found.max(0), [0.608, 0.140], atol=2e-3)
    other = rates(circuits.rubin_2015_line(2.2), 20.0, lengths)[:, 50]
    assert_allclose(other[:5], [5.25, 6.95, 6.09, 4.77, 3.25], **WITHIN)


def test_pair_of_hennequin():
    pair, strengths = circuits.hennequin_2018_pair(), [1, 2, 3, 4, 5, 7, 10, 15, 20]
    excitatory = [0.475, 3.261, 5.973, 7.469, 8.454, 9.695, 10.67, 11.21, 11.09]
    inhibitory = [0.516, 4.276, 9.237, 12.84, 15.78, 20.67, 26.72, 35.23, 42.74]
    found = steady_states(pair.circuit, pair.drive(strengths))
    assert_allclose(found.rates, np.transpose([excitatory, inhibitory]), **WITHIN)
    slowest = [-0.0227, -0.0141, -0.0292, -0.0461, -0.0647, -0.093, -0.105, -0.123, -0.140]
    assert_allclose(found.abscissa, slowest, atol=6e-4)


@pytest.mark.slow
def test_variability_of_the_pair_of_hennequin_is_quenched():
    pair, strengths = circuits.hennequin_2018_pair(), [0, 1, 2, 3, 5, 10, 15]
    settings = {"n_trials": 4000, "duration": 2000.0, "burn_in": 500.0, "random_state": 0}
    found = simulate(pair.circuit, pair.drive(strengths), **settings)
    deviations = np.sqrt(found.covariance[:, 0, 0])
    assert_allclose(deviations, [0.213, 0.568, 0.872, 0.707, 0.509, 0.355, 0.298], rtol=0.05)
    correlation = found.covariance[:, 0, 1] / np.sqrt(
        found.covariance[:, 0, 0] * found.covariance[:, 1, 1]
    )
    assert correlation[0] == pytest.approx(0.14, abs=0.03)
    assert (correlation[2:] > 0.98).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "variances", "at_stimulus"),
    [
        ("shared", [4.36, 2.64, 1.38], [2.04, 1.41, 0.81]),
        ("independent", [8.07, 5.92, 3.58], [2.77, 2.26, 1.52]),
    ],
)
def test_ring_of_hennequin(noise, variances, at_stimulus):
    model = circuits.hennequin_2018_ring(noise)
    drive = model.drive([0.0, 0.25, 1.0])
    mean = steady_states(model.circuit, drive).rates
    assert_allclose(mean[:, 0], [3.26, 15.83, 26.25], **WITHIN)
    settings = {"n_trials": 200, "duration": 1000.0, "burn_in": 500.0, "dt": 0.5}
    found = simulate(model.circuit, drive, random_state=0, **settings)
    variance = np.einsum("nii->ni", found.covariance)[:, :50]
    assert_allclose(variance.mean(1), variances, rtol=0.08)
    assert_allclose(np.sqrt(variance[:, 0]), at_stimulus, rtol=0.08)


def test_the_pair_of_kraynyukova_oscillates():
    """Beyond a Hopf bifurcation; the cycle is that of the rate form."""
    pair, strengths = circuits.kraynyukova_2018_pair(), np.linspace(0.8, 1.4, 13)
    (hopf,) = bifurcations(pair.circuit, pair.drive(strengths), strengths).points
    assert hopf.kind == "hopf"
    assert 1.0 < hopf.value < 1.1
    settings = {"n_trials": 1, "burn_in": 300.0, "duration": 130.0, "dt": 0.05, "record": "r"}
    circuit = replace(pair.circuit, dynamics="rate")
    excitatory, inhibitory = simulate(circuit, pair.drive(5.0), **settings).r[:, 0, 0].T
    assert_allclose([excitatory.min(), excitatory.max()], [0.0195, 1.150], rtol=0.01)
    assert_allclose([inhibitory.min(), inhibitory.max()], [4.221, 7.035], rtol=0.01)
    above = excitatory > excitatory.mean()
    starts = np.flatnonzero(~above[:-1] & above[1:])
    assert 0.05 * np.diff(starts).mean() == pytest.approx(55.73, rel=0.01)


def test_the_fixed_point_of_kraynyukova_loses_its_stability():
    """Eigenvalues before and beyond the Hopf bifurcation, in units of the I cell's 100 ms."""
    pair = circuits.kraynyukova_2018_pair()
    states = steady_states(pair.circuit, pair.drive([1.0, 1.1]))
    assert states.stable.tolist() == [True, False]
    leading = [max(x * 100, key=lambda x: x.imag) for x in eigenvalues(pair.circuit, states.u)]
    assert_allclose(np.real(leading), [-0.123, 0.167], rtol=0.01)
    assert_allclose(np.imag(leading), [13.98, 15.04], rtol=0.01)


def test_cycles_of_kraynyukova_grow_with_input():
    """From nothing at the bifurcation, as a supercritical one does."""
    pair = circuits.kraynyukova_2018_pair()
    circuit = replace(pair.circuit, dynamics="rate")
    strengths = [1.1, 1.3, 1.5, 2.0, 3.0]
    # deviations from the cycle at 1.1 decay in about 300 ms
    settings = {"n_trials": 1, "burn_in": 4000.0, "duration": 300.0, "dt": 0.1, "record": "r"}
    excitatory = simulate(circuit, pair.drive(strengths), **settings).r[:, :, 0, 0].T
    amplitudes = dict(zip(strengths, np.ptp(excitatory, 1), strict=True))
    for strength, amplitude in ((1.1, 0.109), (1.3, 0.226), (2.0, 0.446), (3.0, 0.689)):
        assert amplitudes[strength] == pytest.approx(amplitude, rel=0.01)
    for strength, period in ((1.1, 46.4), (1.5, 53.8), (3.0, 54.97)):
        path = excitatory[strengths.index(strength)]
        level = path.mean()
        (before,) = ((path[:-1] < level) & (path[1:] >= level)).nonzero()
        crossings = before + (level - path[before]) / (path[before + 1] - path[before])
        assert 0.1 * np.diff(crossings).mean() == pytest.approx(period, rel=0.01)


@pytest.mark.parametrize("dynamics", ["voltage", "rate"])
def test_the_bistable_pair_remembers(dynamics):
    pair = circuits.bistable_pair()
    circuit = replace(pair.circuit, dynamics=dynamics)
    points = fixed_points(circuit, pair.drive(0.0))[0]
    assert points.stable.tolist() == [True, True, False]
    assert_allclose(
        sorted(map(tuple, circuit.rates(points.u))),
        [(0, 0), (3.160, 1.160), (11.97, 14.63)],
        rtol=5e-3,
    )

    def pulses(*pairs):
        """Input to E and I, and its time in ms."""
        steps = [np.tile(pair.drive(e, i), (int(2 * t), 1, 1)) for e, i, t in pairs]
        drive = np.concatenate(steps)
        settings = {"n_trials": 1, "burn_in": 0.0, "duration": len(drive) / 2, "dt": 0.5}
        return simulate(circuit, drive, record="r", **settings).r[:, 0, 0]

    on = pulses((5, 0, 100), (0, 0, 1000))
    assert_allclose(on[-1], [11.97, 14.63], rtol=0.01)
    off = pulses((5, 0, 100), (0, 0, 1000), (0, 20, 50), (0, 0, 500))
    assert_allclose(off[-1], [0, 0], atol=1e-3)
    for both in (5, 10):
        assert_allclose(pulses((both, both, 100), (0, 0, 500))[-1], [0, 0], atol=1e-3)


def test_four_types_of_kuchibhotla():
    model = circuits.kuchibhotla_2017()
    found = rates(model, [15.0, 30.0, 60.0])
    expected = [
        [1.610, 2.438, 4.816, 3.537],
        [2.700, 6.398, 21.29, 6.410],
        [0.631, 10.85, 84.09, 0.0],
    ]
    assert_allclose(found, expected, rtol=5e-3, atol=1e-3)
    to_two = rates(model, 60.0, gains=(1, 1, 0, 0))
    assert_allclose(to_two, [[14.31, 31.37, 5.309, 7.647]], **WITHIN)
    chi = response_matrix(model.circuit, model.drive(30.0))[0]
    assert chi[0, 3] == pytest.approx(0.0186, rel=5e-3)


def test_size_and_contrast_of_four_types():
    model, sizes = circuits.size_contrast(), [5, 8, 13, 22, 36, 60]
    centre = rates(model, 1.0, sizes)[:, ::2].T
    expected = [
        [1.085, 6.156, 19.44, 24.62, 21.69, 16.57],
        [2.095, 6.864, 19.27, 24.26, 21.68, 17.18],
        [0.882, 1.948, 6.550, 10.13, 11.35, 12.62],
        [1.410, 3.967, 11.09, 13.01, 9.358, 4.164],
    ]
    assert_allclose(centre, expected, **WITHIN)
    for contrast, preferred in ((0.06, 60), (0.12, 60), (0.25, 36), (0.5, 22), (1.0, 22)):
        excitatory = rates(model, contrast, sizes)[:, 0]
        assert sizes[excitatory.argmax()] == preferred


def test_pv_cells_are_paradoxical_at_high_contrast_sst_cells_never():
    """Of the centre, to input to a type at both places."""
    model = circuits.size_contrast()

    def table(contrast, size=13.0):
        drive = model.drive(contrast, size)
        return population_response(model.circuit, drive, cells=[0, 2, 4, 6]).values[0]

    assert brentq(lambda c: table(c)[1, 1], 0.1, 0.4) == pytest.approx(0.2079, rel=5e-3)
    assert table(1.0, 60.0)[1, 1] == pytest.approx(0.389, rel=5e-3)
    for contrast, expected in (
        (0.12, [[-0.250, -0.147, 0.040], [0.180, -0.164, 0.044], [-0.067, 0.404, -0.128]]),
        (1.0, [[-1.653, -1.959, 1.153], [-0.796, -1.976, 1.163], [-1.063, 1.017, -0.825]]),
    ):
        assert_allclose(table(contrast)[:3, 1:], expected, rtol=5e-3, atol=6e-4)
    paradoxical = [
        paradoxical_effect(model.circuit, model.drive([0.12, 1.0], 13.0), name).tolist()
        for name in ("PV", "SST")
    ]
    assert paradoxical == [[False, True], [False, False]]


@pytest.mark.parametrize(
    ("figure", "contrast", "excitatory", "inhibitory"),
    [(4, 25, 8.129, 8.829), (4, 100, 22.88, 38.31), (6, 25, 12.80, 16.13), (6, 100, 24.48, 44.49)],
)
def test_column_of_holt(figure, contrast, excitatory, inhibitory):
    found = rates(circuits.holt_2023_column(figure), contrast)
    assert_allclose(found, [[excitatory, inhibitory]], **WITHIN)


@pytest.mark.parametrize(
    ("figure", "expected", "suppression"),
    [(4, [18.98, 22.21, 17.39, 14.10], 0.365), (6, [28.67, 26.62, 17.62, 17.72], 0.417)],
)
def test_sheet_of_holt(figure, expected, suppression):
    radii = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 1.3, 1.6, 2.5])
    centre = rates(circuits.holt_2023_sheet(figure), 50.0, radii)[:, 144]
    assert_allclose(centre[[0, 2, 6, 11]], expected, **WITHIN)
    assert 1 - centre[-1] / centre.max() == pytest.approx(suppression, abs=2e-3)


def test_what_is_no_figure_or_circuit():
    with pytest.raises(ValueError, match="figure"):
        circuits.holt_2023_sheet(5)
    with pytest.raises(ValueError, match="gamma"):
        circuits.rubin_2015_line(0.5)
    with pytest.raises(ValueError, match="noise"):
        circuits.hennequin_2018_ring("common")
    with pytest.raises(ValueError, match="strength"):
        circuits.bistable_pair().drive("strong")
