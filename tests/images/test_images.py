"""Contrast and Gabor filters: formulas, projections, and what learning finds."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from zoo import ESTIMATORS

from ssn_estimators import ContrastNormalizer, GaborEncoder, gabor_filters
from ssn_estimators.images.gabor import explained_energy

RNG = np.random.RandomState


@pytest.fixture(scope="module")
def digits():
    return ContrastNormalizer().fit_transform(load_digits(return_X_y=True)[0])


def test_gabor_filters_follow_their_formula():
    orientation, size, center = 0.3, 0.7, np.array([3.0, -5.0])
    (image,) = gabor_filters([orientation], [size], [center], (32, 32))
    rows, columns = np.mgrid[-16:16, -16:16]
    down, across = rows - center[0], columns - center[1]
    along = across * np.cos(orientation) + down * np.sin(orientation)
    expected = np.exp(-(down**2 + across**2) / (2 * (5 * size) ** 2)) * np.cos(0.5 / size * along)
    assert_allclose(image.reshape(32, 32), expected, atol=1e-14)


def test_smaller_images_hold_scaled_filters():
    parameters = ([0.4], [1.0], [[2.0, 4.0]])
    large = gabor_filters(*parameters, (32, 32)).reshape(32, 32)
    small = gabor_filters(*parameters, (16, 16)).reshape(16, 16)
    assert_allclose(small, large[::2, ::2], atol=1e-14)
    assert gabor_filters(*parameters, (8, 16)).shape == (1, 128)


def test_explained_energy_is_that_of_the_projections(digits):
    filters = RNG(0).normal(size=(5, 64))
    unit = digits / np.linalg.norm(digits, axis=1, keepdims=True)
    inside = unit @ np.linalg.pinv(filters) @ filters
    expected = (inside**2).sum(1).mean()
    share = explained_energy(*map(torch.from_numpy, (filters, unit.T @ unit / len(unit))))
    assert share.item() == pytest.approx(expected, rel=1e-10)
    assert GaborEncoder(filters=filters).fit(digits).explained_energy_ == pytest.approx(expected)


def test_learning_explains_more_than_its_start(digits):
    with pytest.warns(ConvergenceWarning, match="max_iter=1 "):
        start = GaborEncoder(10, max_iter=1).fit(digits)
    learned = GaborEncoder(10).fit(digits)
    assert learned.n_iter_ > 1
    assert learned.explained_energy_ > start.explained_energy_ + 0.05
    assert_allclose(np.linalg.norm(learned.components_, axis=1), 1)
    made = gabor_filters(learned.orientations_, learned.sizes_, learned.centers_, (8, 8))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    assert_allclose(learned.components_, made, atol=1e-12)


def test_learning_finds_filters_that_made_the_images():
    truth = gabor_filters([0.2, 1.5, 2.5], [0.5, 0.8, 0.6], [[0, 0], [4, -6], [-5, 5]], (16, 16))
    X = RNG(0).normal(size=(500, 3)) @ truth
    assert GaborEncoder(3).fit(X).explained_energy_ > 0.999


@pytest.mark.parametrize("coefficients", ["least_squares", "responses"])
def test_images_in_the_span_come_back(digits, coefficients):
    encoder = GaborEncoder(10, coefficients=coefficients).fit(digits)
    inside = RNG(0).normal(size=(20, 10)) @ encoder.components_
    assert_allclose(encoder.inverse_transform(encoder.transform(inside)), inside, atol=1e-8)
    again = encoder.inverse_transform(encoder.transform(digits))
    assert_allclose(encoder.transform(again), encoder.transform(digits), atol=1e-8)


def test_least_squares_and_responses(digits):
    encoder = GaborEncoder(10).fit(digits)
    coefficients, *_ = np.linalg.lstsq(encoder.components_.T, digits.T, rcond=None)
    assert_allclose(encoder.transform(digits), coefficients.T, atol=1e-8)
    encoder.set_params(coefficients="responses")
    assert_allclose(encoder.transform(digits), digits @ encoder.components_.T, atol=1e-10)


def test_global_contrast_keeps_the_differences_between_images():
    X = RNG(0).normal(size=(100, 16)) * np.arange(1, 101)[:, None] + 7
    normalized = ContrastNormalizer().fit_transform(X)
    assert_allclose(normalized.mean(1), 0, atol=1e-12)
    assert normalized.std() == pytest.approx(1)
    assert_allclose(normalized.std(1) / X.std(1), normalized[0].std() / X[0].std())
    each = ContrastNormalizer("per_image").fit_transform(X)
    assert_allclose(each.std(1), 1)
    assert_allclose(each.mean(1), 0, atol=1e-12)


def test_constant_images():
    X = np.vstack([RNG(0).normal(size=(5, 9)), np.full(9, 3.0)])
    assert (ContrastNormalizer().fit_transform(X)[5] == 0).all()
    with pytest.raises(ValueError, match="1 of 6 images are constant, the first in row 5"):
        ContrastNormalizer("per_image").fit(X)
    fitted = ContrastNormalizer("per_image").fit(X[:5])
    with pytest.raises(ValueError, match="are constant"):
        fitted.transform(X)
    with pytest.raises(ValueError, match="All images are constant"):
        ContrastNormalizer().fit(np.ones((3, 4)))
    with pytest.raises(ValueError, match="All images are constant"):  # but for rounding
        ContrastNormalizer().fit(np.full((3, 1024), 0.1, np.float32))
    # of images without contrast there is nothing to explain
    normalized = ContrastNormalizer().fit_transform(X)
    one, other = (GaborEncoder(2).fit(images) for images in (normalized, normalized[:5]))
    assert one.explained_energy_ == pytest.approx(other.explained_energy_)
    with pytest.raises(ValueError, match="All images are constant"):
        GaborEncoder(2).fit(np.zeros((3, 4)))


def test_dark_images_have_their_contrast(digits):
    X = digits[:50].copy()
    X[3] *= 1e-170
    found = ContrastNormalizer("per_image").fit(digits[:50]).transform(X)
    assert_allclose(found, ContrastNormalizer("per_image").fit_transform(digits[:50]), rtol=1e-10)
    assert np.isfinite(GaborEncoder(2).fit(X).explained_energy_)


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan])
def test_filters_without_a_size(size):
    with pytest.raises(ValueError, match="size > 0"):
        gabor_filters([0.0], [size], [[0.0, 0.0]], (4, 4))


def test_filters_of_another_size_are_refused(digits):
    with pytest.raises(ValueError, match="as many columns as the images have pixels, 64"):
        GaborEncoder(filters=np.ones((3, 16))).fit(digits)
    with pytest.raises(ValueError, match="does not fit images of 64 pixels"):
        GaborEncoder(2, image_shape=(7, 9)).fit(digits)
    encoder = GaborEncoder(3).fit(digits)
    with pytest.raises(ValueError, match="3 coefficients a row, got 4"):
        encoder.inverse_transform(np.ones((2, 4)))


@pytest.mark.parametrize(
    "image_shape", [np.array(4.0), (2.0, 2.0), "22", ("2", "2"), (True, 4), (4,), (2, -2), [[2, 2]]]
)
@pytest.mark.parametrize("name", ["GaborEncoder", "LateralContext", "CNNClassifier"])
def test_image_shapes_are_two_whole_numbers(name, image_shape):
    estimator = clone(next(x for x in ESTIMATORS if type(x).__name__ == name))
    estimator.set_params(image_shape=image_shape)
    message = "does not fit images of 4 pixels|The 'image_shape' parameter of"
    with pytest.raises(ValueError, match=message):
        estimator.fit(RNG(0).rand(6, 4), [0, 1] * 3)
