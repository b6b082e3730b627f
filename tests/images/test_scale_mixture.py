"""The scale mixture against brute force in the space of pixels, and against what it sampled."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import gamma, multivariate_normal
from sklearn.exceptions import NotFittedError

from ssn_estimators import GaussianScaleMixture
from ssn_estimators.images.mixture_posterior import Images, Mixture

RNG = np.random.RandomState


def make_model(n_latents=6, n_pixels=16, noise=0.4, shape=2.5, rate=1.5, seed=0):
    """A fitted model with parameters of our own."""
    rng = RNG(seed)
    model = GaussianScaleMixture(filters=rng.normal(size=(n_latents, n_pixels)))
    root = rng.normal(size=(n_latents, 2 * n_latents))
    model.components_ = np.asarray(model.filters)
    model.covariance_ = root @ root.T / (2 * n_latents)
    model.noise_std_, model.z_shape_, model.z_rate_ = noise, shape, rate
    model.n_features_in_ = n_pixels
    return model


def brute_force(model, x, n_nodes=20001):
    """log p(x), moments of y, and those of z, with one Gaussian of all pixels for every z."""
    A, C, noise = model.components_.T, model.covariance_, model.noise_std_**2
    log_z = np.linspace(-14, 6, n_nodes)
    z = np.exp(log_z)
    heights = gamma.logpdf(z, model.z_shape_, scale=1 / model.z_rate_) + log_z
    wide = np.flatnonzero(heights > heights.max() - 700)
    means, seconds = [], []
    for i in wide:
        S = z[i] ** 2 * A @ C @ A.T + noise * np.eye(len(x))
        heights[i] += multivariate_normal(np.zeros(len(x)), S).logpdf(x)
        mean = z[i] * C @ A.T @ np.linalg.solve(S, x)
        means.append(mean)
        explained = z[i] ** 2 * C @ A.T @ np.linalg.solve(S, A @ C)
        seconds.append(C - explained + np.outer(mean, mean))
    heights, z = heights[wide], z[wide]
    total = logsumexp(heights)
    p = np.exp(heights - total)
    mean = p @ np.array(means)
    covariance = np.tensordot(p, np.array(seconds), 1) - np.outer(mean, mean)
    z_mean = p @ z
    log_likelihood = total + np.log(log_z[1] - log_z[0])
    return log_likelihood, mean, covariance, z_mean, np.sqrt(p @ (z - z_mean) ** 2)


@pytest.mark.parametrize(
    ("n_latents", "n_pixels"), [pytest.param(6, 16, marks=pytest.mark.slow), (6, 4)]
)
def test_density_and_posterior_match_brute_force(n_latents, n_pixels):
    model = make_model(n_latents, n_pixels)
    # among them an empty image and one of a contrast that the prior all but excludes
    X = np.vstack([model.sample(6, random_state=1), np.zeros(n_pixels), np.full(n_pixels, 10.0)])
    mean, covariance = model.posterior_moments(X)
    z_mean, z_std = model.posterior_z(X, return_std=True)
    log_likelihood = model.score_samples(X)
    for i, x in enumerate(X):
        expected = brute_force(model, x, n_nodes=2001)
        assert log_likelihood[i] == pytest.approx(expected[0], rel=1e-8)
        np.testing.assert_allclose(mean[i], expected[1], rtol=0, atol=1e-8 * abs(expected[1]).max())
        scale = abs(expected[2]).max()
        np.testing.assert_allclose(covariance[i], expected[2], rtol=0, atol=1e-8 * scale)
        assert z_mean[i] == pytest.approx(expected[3], rel=1e-8)
        assert z_std[i] == pytest.approx(expected[4], rel=1e-7)


def test_variances_tell_the_contrast_they_are_given():
    model = make_model()
    A, C, noise = model.components_.T, model.covariance_, model.noise_std_**2
    z = np.geomspace(0.1, 10, 7)
    seen = [
        x**2 * C @ A.T @ np.linalg.solve(x**2 * A @ C @ A.T + noise * np.eye(len(A)), A @ C)
        for x in z
    ]
    variance = np.diagonal(C - np.array(seen), axis1=1, axis2=2)
    np.testing.assert_allclose(model.z_from_variance(variance), z, rtol=1e-3)
    # beyond what any contrast leads to
    low, high = model.z_from_variance([[0.0] * len(C), [100.0] * len(C)])[::-1]
    assert 0 < low < 1e-3 < 1e3 < high < np.inf
    with pytest.raises(ValueError, match="numbers >= 0 a row"):
        model.z_from_variance(-variance)
    with pytest.raises(ValueError, match="numbers >= 0 a row"):
        model.z_from_variance(variance[:, 1:])


@pytest.mark.parametrize("shape", [0.5, 2.0, 40.0])
@pytest.mark.parametrize("noise", [0.05, 2.0])
def test_error_of_the_integral_over_contrast_is_rounding(shape, noise):
    model = make_model(noise=noise, shape=shape)
    X = model.sample(50, random_state=0)
    results = []
    for n_quadrature in (64, 96, 400):
        model.n_quadrature = n_quadrature
        results.append((model.score_samples(X), *model.posterior_moments(X)))
    for few, tolerance in zip(results[:2], (1e-9, 1e-13), strict=True):
        for x, y in zip(few, results[2], strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * abs(y).max())


@pytest.mark.parametrize(("n_latents", "n_pixels"), [(4, 9), (5, 3)])
def test_gradient_of_the_likelihood(n_latents, n_pixels):
    model = make_model(n_latents, n_pixels)
    basis, fields = np.linalg.qr(model.components_.T)
    images = Images.project(model.sample(30, random_state=0), basis)
    factor = np.linalg.cholesky(model.covariance_)
    values = (factor, model.noise_std_**2, model.z_shape_, model.z_rate_)
    gradients = Mixture(fields, *values).log_likelihood_and_gradient(images)[1]

    def total(values):
        return Mixture(fields, *values).log_likelihood(images).sum()

    # differences of sixth order: their own error is below 1e-9
    step, rule = 1e-3, {3: 1, 2: -9, 1: 45, -1: -45, -2: 9, -3: -1}
    for i, gradient in enumerate(gradients):
        for index in np.ndindex(np.shape(gradient)):
            if len(index) and index[1] > index[0]:
                assert gradient[index] == 0
                continue
            slope = 0.0
            for steps, weight in rule.items():
                moved = [np.array(value) for value in values]
                moved[i][index] += steps * step
                slope += weight * total(moved) / (60 * step)
            assert slope == pytest.approx(gradient[index], rel=1e-8, abs=1e-8)


def test_fit_recovers_the_model_that_made_the_images():
    truth = make_model(n_latents=3, n_pixels=12, noise=0.3, shape=3.0, rate=3.0)
    X = truth.sample(4000, random_state=2)
    fitted = GaussianScaleMixture(filters=truth.components_, tol=1e-10).fit(X)
    assert fitted.score(X) >= truth.score(X)
    assert fitted.noise_std_ == pytest.approx(0.3, rel=0.02)
    # only z^2 C is identified
    scale = np.trace(truth.covariance_) / 3
    np.testing.assert_allclose(fitted.covariance_, truth.covariance_ / scale, atol=0.1)
    assert fitted.z_shape_ == pytest.approx(3.0, rel=0.2)
    assert fitted.z_rate_ == pytest.approx(3.0 / np.sqrt(scale), rel=0.2)
    held_out = truth.sample(4000, random_state=3)
    assert fitted.score(held_out) == pytest.approx(truth.score(held_out), abs=0.05)


def test_samples_have_the_moments_of_the_model():
    model = make_model(n_latents=2, n_pixels=4)
    X = model.sample(200_000, random_state=0)
    squared_contrast = model.z_shape_ * (model.z_shape_ + 1) / model.z_rate_**2
    A = model.components_.T
    expected = squared_contrast * A @ model.covariance_ @ A.T + model.noise_std_**2 * np.eye(4)
    covariance = X.T @ X / len(X)
    np.testing.assert_allclose(covariance, expected, atol=0.05 * expected.max())


def test_learned_fields_leave_latents_of_unit_variance():
    X = make_model(4, 16).sample(300, random_state=0)
    model = GaussianScaleMixture(4, random_state=0, max_iter=500).fit(X)
    np.testing.assert_allclose(np.diag(model.covariance_), 1)
    again = GaussianScaleMixture(filters=model.components_, max_iter=500).fit(X)
    assert again.lower_bound_ == pytest.approx(model.lower_bound_, abs=1e-2)


def test_posterior_does_not_depend_on_other_images():
    model = make_model()
    X = model.sample(300, random_state=0)
    mean, covariance = model.posterior_moments(X)
    one_mean, one_covariance = model.posterior_moments(X[200:201])
    np.testing.assert_allclose(one_mean[0], mean[200], rtol=1e-12)
    np.testing.assert_allclose(one_covariance[0], covariance[200], rtol=1e-12, atol=1e-15)


def test_threads_change_nothing():
    model = make_model()
    X = model.sample(300, random_state=0)
    alone = model.posterior_moments(X)
    model.n_jobs = 2
    for x, y in zip(alone, model.posterior_moments(X), strict=True):
        np.testing.assert_array_equal(x, y)


def test_reconstruction_is_the_mean_image():
    model = make_model(noise=0.01)
    X = model.sample(5, random_state=0)
    # with next to no noise the latents explain the image, at whichever contrast
    images = model.inverse_transform(model.transform(X), model.posterior_z(X))
    inside = X @ np.linalg.pinv(model.components_) @ model.components_
    np.testing.assert_allclose(images, inside, rtol=0.1, atol=0.1)


def test_likelihoods_of_single_precision_are_those_of_double():
    """Where the noise is a thousandth of the images, what they leave out is what counts."""
    rng = np.random.RandomState(0)
    filters = rng.normal(size=(3, 16))
    X = rng.gamma(2.0, size=(200, 1)) * rng.normal(size=(200, 3)) @ filters
    X = (X + 1e-2 * rng.normal(size=X.shape)).astype(np.float32)
    model = GaussianScaleMixture(filters=filters).fit(X.astype(float))
    assert model.noise_std_ < 0.02
    np.testing.assert_allclose(model.score_samples(X), model.score_samples(X.astype(float)))


def test_single_precision_in_single_precision_out():
    model = make_model()
    X = model.sample(5, random_state=0)
    mean, covariance = model.posterior_moments(X.astype(np.float32))
    assert mean.dtype == covariance.dtype == np.float32
    np.testing.assert_allclose(mean, model.transform(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("X", "parameters", "message"),
    [
        (np.zeros((4, 4)), {}, "All images are constant"),
        (np.full((4, 4), 3.0), {}, "All images are constant"),
        (np.eye(3, 4), {"filters": np.ones((2, 5))}, "filters must have as many columns"),
        (np.eye(3, 4), {"image_shape": (3, 2)}, "does not fit images of 4 pixels"),
        (np.eye(3, 4), {"n_quadrature": 2}, "n_quadrature"),
    ],
)
def test_bad_input_is_refused(X, parameters, message):
    with pytest.raises(ValueError, match=message):
        GaussianScaleMixture(2, **parameters).fit(X)


def test_an_unfitted_model_and_images_of_another_size_are_refused():
    with pytest.raises(NotFittedError):
        GaussianScaleMixture().posterior_moments(np.ones((2, 4)))
    with pytest.raises(ValueError, match="16 features"):
        make_model().score(np.ones((2, 4)))
    with pytest.raises(ValueError, match="6 latents a row"):
        make_model().inverse_transform(np.ones((2, 4)))


def test_posterior_samples_have_the_posterior_moments():
    model = make_model()
    X = model.sample(4, random_state=0)
    mean, covariance = model.posterior_moments(X)
    samples = model.posterior_sample(X, 40_000, random_state=1)
    std = np.sqrt(np.einsum("nii->ni", covariance))
    np.testing.assert_array_less(abs(samples.mean(1) - mean), 5 * std / 200)
    for i in range(4):
        found = np.cov(samples[i].T)
        np.testing.assert_allclose(found, covariance[i], atol=0.05 * covariance[i].max())
    again = model.posterior_sample(X, 40_000, random_state=1)
    np.testing.assert_array_equal(samples, again)


def test_some_of_the_pixels_have_their_marginal():
    model = make_model(n_latents=4, n_pixels=16)
    X = model.sample(400, random_state=1)
    seen = RNG(2).permutation(16) < 10
    part = model.marginal(seen)
    X_seen = X[:, seen]
    mean, covariance = part.posterior_moments(X_seen[:3])
    for i in range(3):
        found = brute_force(part, X_seen[i])
        np.testing.assert_allclose(part.score_samples(X_seen[i : i + 1]), found[0], rtol=1e-8)
        np.testing.assert_allclose(mean[i], found[1], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(covariance[i], found[2], rtol=1e-6, atol=1e-8)
    # the law of total variance: what is seen leaves more open than the whole, on average
    whole = np.einsum("nii->n", model.posterior_moments(X)[1])
    assert np.einsum("nii->n", part.posterior_moments(X_seen)[1]).mean() > whole.mean()
    # and fills in the rest better than nothing does
    filled = model.inverse_transform(part.transform(X_seen), part.posterior_z(X_seen))
    missing = X[:, ~seen]
    assert ((filled[:, ~seen] - missing) ** 2).mean() < 0.5 * (missing**2).mean()
    # all pixels, as places
    all_of_them = model.marginal(range(16))
    np.testing.assert_array_equal(all_of_them.transform(X), model.transform(X))
    # pixels may be fewer than latents
    few = model.marginal([3, 0])
    np.testing.assert_allclose(
        few.transform(X[:1, [3, 0]])[0], brute_force(few, X[0, [3, 0]])[1], rtol=1e-6
    )


@pytest.mark.parametrize("pixels", [[], [True, False], [16], [-1], [0.5], [[0, 1]]])
def test_pixels_that_there_are_not_are_refused(pixels):
    with pytest.raises(ValueError, match="pixels must be a mask of 16"):
        make_model().marginal(pixels)
