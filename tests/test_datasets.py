"""The ring benchmark against theory, and its numbers against a frozen few; other data."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import circulant
from scipy.stats import norm

from ssn_estimators.datasets import (
    load_allen_traces,
    make_cued_sinusoids,
    make_ring_gsm,
    make_robertson,
    make_spiral,
)
from ssn_estimators.datasets.ring import _posterior, _transformed_moments

CELLS = [0, 13, 25, 38]
PAIRS = [(0, 0), (25, 25), (25, 24), (20, 32)]
# one row per contrast, with all the digits that float64 holds
FROZEN_MEANS = [
    [3.246959957697779, 3.246959957697779, 3.2469599576977792, 3.2469599576977792],
    [3.2970580804489593, 3.5378724036151032, 3.7757289022584213, 3.5086128747621155],
    [3.3385112587774435, 4.115648470579646, 4.857843735322566, 4.019488962083043],
    [3.232499196124243, 4.902925797240489, 6.396442355299422, 4.7016917170557635],
    [3.1461359195695584, 5.262740561808795, 7.44784180412693, 4.988636418003681],
]
FROZEN_COVARIANCES = [
    [4.410736035312298, 4.410736035312283, 4.215811456107278, 0.4515213769895463],
    [4.219704268869722, 4.075134733992869, 3.8924747664608623, 0.3292345149593347],
    [3.76459878994326, 2.8881148090723, 2.752220206855451, 0.07818489189213668],
    [2.9151088297582497, 1.2679404204750002, 1.1904913159018236, -0.13649491038631942],
    [1.9729033197520947, 0.5917044963432309, 0.5355779498970856, -0.14473525311860927],
]


@pytest.fixture(scope="module")
def ring():
    return make_ring_gsm()


def posterior(ring, i):
    """Posterior of the latents in its pixel form (conditioning of a joint Gaussian)."""
    predicted = ring.z[i] * ring.A @ ring.C
    pixels = ring.z[i] * predicted @ ring.A.T + 10.0**2 * np.eye(256)
    gain = np.linalg.solve(pixels, predicted).T
    return gain @ ring.x[i], ring.C - gain @ predicted


def test_shapes(ring):
    shapes = {
        "A": (256, 50),
        "C": (50, 50),
        "y": (50,),
        "x": (5, 256),
        "h": (5, 100),
        "mu": (5, 50),
        "sigma": (5, 50, 50),
        "z": (5,),
    }
    assert set(ring) == {*shapes, "DESCR"}
    for name, shape in shapes.items():
        assert ring[name].shape == shape, name
        assert ring[name].dtype == np.float64, name
    assert "Echeveste" in ring.DESCR


def test_filters_have_unit_norm_and_turn(ring):
    assert_allclose(np.linalg.norm(ring.A, axis=0), 1, rtol=1e-14)
    # half of the half circle is a quarter turn, which maps the grid onto itself
    images = ring.A.T.reshape(50, 16, 16)
    assert_allclose(images[25:], np.rot90(images[:25], axes=(2, 1)), atol=1e-14)


def test_prior_is_circulant_with_the_stated_spectrum(ring):
    assert_allclose(ring.C, ring.C.T, rtol=0, atol=1e-14)
    assert_allclose(ring.C, circulant(ring.C[0]), rtol=0, atol=1e-13)
    assert ring.C[0, 0] == pytest.approx(4, rel=1e-15)
    spectrum = np.fft.rfft(ring.C[0]).real
    assert spectrum.min() > 0
    power = 0.01 + 20 * np.exp(-np.arange(26.0))
    power[0] -= 0.25 * 50
    power[25] = 0.01
    assert_allclose(spectrum / spectrum[25], power / power[25], rtol=1e-10)


def test_stimuli_differ_in_contrast_only(ring):
    assert_allclose(ring.z, [0, 0.125, 0.25, 0.5, 1])
    assert ring.y.argmax() == 25
    assert ring.y.max() == 6
    for x, z in zip(ring.x, ring.z, strict=True):
        assert_allclose(x, z * ring.A @ ring.y, atol=1e-12)


def test_inputs_are_filter_responses_for_both_populations(ring):
    responses = ring.x @ ring.A / 15
    assert_allclose(ring.h, np.hstack([responses, responses]), atol=1e-12)


def test_without_contrast_the_targets_are_those_of_the_prior(ring):
    mean, covariance = posterior(ring, 0)
    assert_allclose(mean, 0, atol=0)
    assert_allclose(covariance, ring.C, rtol=0, atol=0)
    assert_allclose(ring.x[0], 0, atol=0)
    assert_allclose(ring.mu[0], ring.mu[0, 0], rtol=1e-13)
    assert_allclose(ring.sigma[0], circulant(ring.sigma[0, 0]), rtol=0, atol=1e-12)


def test_contrast_raises_the_mean_and_quenches_the_variance(ring):
    at_stimulus = ring.mu[:, 25]
    variance = np.diagonal(ring.sigma, axis1=1, axis2=2).mean(1)
    assert (np.diff(at_stimulus) > 0).all()
    assert (np.diff(variance) < 0).all()
    for sigma in ring.sigma:
        assert_allclose(sigma, sigma.T, rtol=0, atol=0)
        assert np.linalg.eigvalsh(sigma).min() > 0


@pytest.mark.parametrize("i", range(5))
def test_posterior_of_latents_equals_its_pixel_form(ring, i):
    mean, covariance = posterior(ring, i)
    found_mean, found_covariance = _posterior(ring.A, ring.C, ring.x[i], ring.z[i])
    assert_allclose(found_mean, mean, rtol=0, atol=1e-11)
    assert_allclose(found_covariance, covariance, rtol=0, atol=1e-11)


def test_transformed_moments_of_the_identity_are_those_of_a_truncated_normal():
    mean, covariance = np.array([1.0, -3.0]), np.diag([4.0, 0.25])
    found_mean, found_covariance = _transformed_moments(mean, covariance, lambda u: u)
    # the standard normal within 4 s.d. has variance 1 - 8 pdf(4) / (cdf(4) - cdf(-4))
    inside = norm.cdf(4) - norm.cdf(-4)
    shrinkage = 1 - 8 * norm.pdf(4) / inside
    assert_allclose(found_mean, mean, rtol=1e-14)
    # the trapezoid rule counts the two ends in full: 0.04 * 16 * pdf(4) more than the integral
    tolerance = 1.1 * 0.04 * 16 * norm.pdf(4)
    assert_allclose(found_covariance, shrinkage * covariance, rtol=tolerance, atol=1e-15)


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.5, 0.99])
def test_transformed_moments_of_the_cosine(correlation):
    """E cos u and E cos u cos v have closed forms.

    Leaving out what lies beyond 4 s.d., of probability p for one variable and at most 2 p
    for a pair, moves an expectation of something bounded by b by at most 2 b p or 4 b p.
    """
    mean, scale = np.array([0.3, -1.2]), np.array([0.8, 1.1])
    covariance = np.outer(scale, scale) * [[1, correlation], [correlation, 1]]
    found_mean, found_covariance = _transformed_moments(mean, covariance, np.cos)

    p = 2 * norm.sf(4)
    expected = np.cos(mean) * np.exp(-(scale**2) / 2)
    assert_allclose(found_mean, expected, rtol=0, atol=2 * p)
    variances = scale[:, None] ** 2 + scale**2
    plus = np.cos(mean[:, None] + mean) * np.exp(-variances / 2 - covariance)
    minus = np.cos(mean[:, None] - mean) * np.exp(-variances / 2 + covariance)
    expected = (plus + minus) / 2 - np.outer(expected, expected)
    assert_allclose(found_covariance, expected, rtol=0, atol=4 * 4 * p)


@pytest.mark.parametrize("i", [0, 2, 4])
def test_targets_against_samples_of_the_posterior(ring, i):
    """The quadrature is the expectation given that all variables in it lie within 4 s.d.

    The same condition on samples, pair by pair, leaves their sampling error, measured from
    the samples, and that of nodes 0.04 s.d. apart: below 1e-2 mV, by the kink of the map.
    """
    mean, covariance = posterior(ring, i)
    rng = np.random.default_rng(i)
    scale = np.sqrt(np.diag(covariance))
    deviation = rng.multivariate_normal(np.zeros(50), covariance, 40_000, method="cholesky")
    kept = (np.abs(deviation) <= 4 * scale).astype(float)
    baseline = (3.5 / 2.4) ** (1 / 0.6)
    potential = 2.4 * np.maximum(mean + deviation + baseline, 0) ** 0.6
    deviation = (potential - ring.mu[i]) * kept

    sampled_error = deviation.sum(0) / kept.sum(0)
    standard_error = np.sqrt((deviation**2).sum(0)) / kept.sum(0)
    assert (np.abs(sampled_error) < 5 * standard_error).all()

    count = kept.T @ kept
    sampled = deviation.T @ deviation / count
    spread = (deviation**2).T @ deviation**2 / count - sampled**2
    assert (np.abs(sampled - ring.sigma[i]) < 5 * np.sqrt(spread / count)).all()


def test_frozen_numbers(ring):
    assert_allclose(ring.mu[:, CELLS], FROZEN_MEANS, rtol=0, atol=1e-12)
    rows, columns = zip(*PAIRS, strict=True)
    assert_allclose(ring.sigma[:, rows, columns], FROZEN_COVARIANCES, rtol=0, atol=1e-12)


def test_differential_equations():
    spiral, robertson = make_spiral(), make_robertson()
    assert spiral.y.shape == (200, 2)
    assert_allclose(spiral.y[0], [2, 0])
    radius = np.linalg.norm(spiral.y, axis=1)
    assert radius[-1] < 0.5 * radius[0]
    assert robertson.y.shape == (50, 3)
    assert_allclose(robertson.y.sum(1), 1, atol=1e-6)  # nothing is lost
    # known value at t = 40, by interpolation on the logarithmic scale
    y1 = np.interp(np.log(40.0), np.log(robertson.t), robertson.y[:, 0])
    assert y1 == pytest.approx(0.7158, abs=0.01)
    for data in (spiral, robertson):
        middle = (data.t[1:] + data.t[:-1]) / 2
        assert np.isfinite([data.slope(t, y) for t, y in zip(middle, data.y, strict=False)]).all()


def test_cued_sinusoids():
    X, y = make_cued_sinusoids(50, n_conditions=2, random_state=0)
    assert X.shape == (2, 200, 50)
    assert y.shape == (2, 100, 50)
    assert_allclose(y.std(1), 0.5 / np.sqrt(2), rtol=1e-6)  # one period
    assert X.std() == pytest.approx(0.63, rel=0.05)
    lag = 20
    assert np.mean(X[:, lag:] * X[:, :-lag]) / np.mean(X**2) == pytest.approx(np.exp(-1), abs=0.1)


def test_recordings_of_the_allen_institute():
    found = load_allen_traces()
    assert found.rates.shape == found.deviations.shape == found.errors.shape == (2, 7000, 4)
    assert found.layer_4.shape == (2, 7000)
    assert found.n_cells.tolist() == [[34, 33, 8, 3], [35, 34, 5, 4]]
    n_cells = (found.deviations / found.errors) ** 2
    assert_allclose(n_cells, np.broadcast_to(found.n_cells[:, None], n_cells.shape), rtol=1e-3)
    assert (found.weights[:, 0] >= 0).all()
    assert (found.weights[:, 1:] <= 0).all()
    assert (found.weights_error[found.weights != 0] > 0).all()
    # layer 4 follows the images, but for the omitted one
    onsets = [found.layer_4[:, start : start + 250].mean() for start in range(0, 6000, 750)]
    greys = [found.layer_4[:, start : start + 500].mean() for start in range(250, 6000, 750)]
    shown = np.arange(8) != 4
    assert (np.array(onsets)[shown] > np.array(greys)[shown]).all()
    assert min(np.array(onsets)[shown]) > 1.3 * onsets[4]
    assert "Copyright (c) 2023, Allen Institute" in found.DESCR
    assert "Redistributions in binary form" in found.DESCR


def test_recordings_are_part_of_the_package():
    """Of what setuptools puts into a wheel."""
    setuptools = pytest.importorskip("setuptools")
    root = Path(__file__).parents[1]
    if not (root / "ssn_estimators").is_dir():
        pytest.skip("the package is installed from an archive, and tests above have read them")
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    distribution = setuptools.Distribution(
        {
            "packages": ["ssn_estimators.datasets"],
            "package_dir": {"": str(root)},
            "package_data": settings["package-data"],
        }
    )
    command = distribution.get_command_obj("build_py")
    command.ensure_finalized()
    names = {Path(name).name for _, _, _, own in command.data_files for name in own}
    assert {"allen_traces.npz", "allen_traces_LICENSE.txt"} <= names
