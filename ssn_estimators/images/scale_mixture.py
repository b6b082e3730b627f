"""Gaussian scale mixture: a generative model of images whose posterior circuits can sample."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from sklearn.base import ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    NOT_NEGATIVE,
    BaseEstimator,
    Interval,
    OnlyWith,
    check_array,
    fit_context,
    validate_data,
)
from ssn_estimators._torch import in_pieces
from ssn_estimators.images.gabor import GaborEncoder
from ssn_estimators.images.mixture_posterior import Images, Mixture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from ssn_estimators._typing import ArrayLike, RandomState

__all__ = ["GaussianScaleMixture"]

SUBSET = 5000  # images of the first round of learning
LARGEST = 1e70  # value; fourth powers are added up
LEAST_NOISE = 1e-6  # share of the images' mean square below which sigma_x**2 does not fall
LEAST_VARIANCE = 1e-6  # share of the mean variance, in the first guess of the covariance
SHAPES = (0.3, 1e4)  # legal shapes of the distribution of z


class GaussianScaleMixture(
    ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin, BaseEstimator
):
    r"""Gaussian scale mixture model of image patches.

    An image x of D pixels is a sum of projective fields, the columns of A, weighted by
    latents y, at a contrast z and with noise (Eq. 8-10 of [1]_):

    .. math::
        x = z A y + \sigma_x \epsilon, \qquad y \sim N(0, C), \qquad
        z \sim \mathrm{Gamma}(\alpha, \beta), \qquad \epsilon \sim N(0, I).

    The fields are the Gabor filters of :class:`GaborEncoder`. Then C, :math:`\sigma_x`,
    :math:`\alpha` and :math:`\beta` maximise the marginal likelihood by L-BFGS, with its
    exact gradient.

    Given z, everything is Gaussian and, in the basis of the singular value decomposition
    :math:`A C^{1/2} = U S V^T`, independent, whatever z: densities and moments are sums
    over latents, and the integral over z is a trapezoidal sum over log z between the points
    at which the integrand of the image in question vanishes in double precision.

    Parameters
    ----------
    n_components : int, default=50
        Number of projective fields to learn.
    filters : array-like of shape (n_components, n_pixels), default=None
        Projective fields to use instead of learning them.
    image_shape : tuple of int, default=None
        Rows and columns of the images; by default as close to a square as can be.
    n_quadrature : int, default=64
        Nodes of the integral over z.
    max_iter : int, default=200
        Greatest number of iterations of L-BFGS.
    tol : float, default=1e-6
        Relative rise of the log-likelihood below which learning ends.
    n_jobs : int, default=None
        Threads that take integrals over z; -1 for one a core.
    random_state : int, RandomState instance or None, default=None
        Source of the images learning begins with.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_pixels)
        Projective fields, the rows of :math:`A^T`. Learned ones are scaled so that every
        latent has unit variance.
    covariance_ : ndarray of shape (n_components, n_components)
        Prior covariance C of the latents, with a mean variance of 1 (contrasts take up the
        rest).
    noise_std_ : float
        :math:`\sigma_x`, in units of X; at least a thousandth of the images' root mean square.
    z_shape_, z_rate_ : float
        :math:`\alpha` and :math:`\beta`.
    explained_energy_ : float
        Share of the energy of the images that the fields span, see :class:`GaborEncoder`.
    lower_bound_ : float
        Mean log-likelihood of the images seen during fit, in nats.
    n_iter_ : int
        Iterations of L-BFGS done.
    n_features_in_ : int
        Number of pixels seen during fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, if `X` had names that are all strings.

    See Also
    --------
    ContrastNormalizer : Brings images into the form this model is made for.
    SSNSampler : A circuit that samples this model's posterior.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssn_estimators import ContrastNormalizer, GaussianScaleMixture
    >>> X, _ = load_digits(return_X_y=True)
    >>> X = ContrastNormalizer().fit_transform(X)
    >>> model = GaussianScaleMixture(10, random_state=0).fit(X)
    >>> mean, covariance = model.posterior_moments(X[:5])
    >>> covariance.shape
    (5, 10, 10)
    """

    _parameter_constraints: dict = {
        "n_components": COUNT,
        "filters": ["array-like", None],
        "image_shape": ["array-like", None],
        "n_quadrature": [Interval(Integral, 8, MOST, closed="both")],
        "max_iter": COUNT,
        "tol": NOT_NEGATIVE,
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    _fitted_shapes = {
        "components_": ("components", "n_features_in_"),
        "covariance_": ("components", "components"),
        "noise_std_": float,
        "z_shape_": float,
        "z_rate_": float,
    }

    _only_with = dict.fromkeys(
        ("n_components", "image_shape"),
        OnlyWith("filters", lambda filters: filters is None, "filters=None"),
    )

    def __init__(
        self,
        n_components: int = 50,
        *,
        filters: ArrayLike | None = None,
        image_shape: Sequence[int] | None = None,
        n_quadrature: int = 64,
        max_iter: int = 200,
        tol: float = 1e-6,
        n_jobs: int | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.n_components = n_components
        self.filters = filters
        self.image_shape = image_shape
        self.n_quadrature = n_quadrature
        self.max_iter = max_iter
        self.tol = tol
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn the projective fields and the distributions of latents, contrast and noise.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images without their mean luminance.
        y : None
            Ignored.

        Returns
        -------
        self : GaussianScaleMixture

        Raises
        ------
        ValueError
            If all images are constant, or if `filters` or `image_shape` do not fit.

        Warns
        -----
        ConvergenceWarning
            If learning was not over after `max_iter` iterations.
        """
        X = validate_data(self, X, squared=LARGEST, ensure_min_samples=2)
        rng = check_random_state(self.random_state)
        if self.filters is None:
            encoder = GaborEncoder(self.n_components, image_shape=self.image_shape).fit(X)
        else:
            encoder = GaborEncoder(filters=self.filters).fit(X)
        self.components_ = encoder.components_
        self.explained_energy_ = encoder.explained_energy_

        basis, fields = _span(self.components_)
        images = Images.project(X, basis)
        mixture = _first_guess(images, fields, self.n_quadrature, self.n_jobs)
        if len(X) > SUBSET:
            mixture, _ = self._ascend(mixture, images[rng.permutation(len(X))[:SUBSET]])
        mixture, outcome = self._ascend(mixture, images)
        self.lower_bound_, self.n_iter_ = -outcome.fun, outcome.nit
        if outcome.nit >= self.max_iter:
            warnings.warn(
                f"The likelihood had not converged after max_iter={self.max_iter} iterations.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._keep(mixture)
        return self

    def _ascend(self, mixture, images):
        """Maximise the mean log-likelihood; the mixture and what the optimiser says."""
        d = len(mixture.factor)
        lower, on_diagonal = np.tril_indices(d), np.diag_indices(d)
        # in units in which the likelihood is about equally curved: the factor relative to the
        # present one, logarithms, and that of the noise, which all pixels tell of, in finer ones
        units = np.array([1 / math.sqrt(max(1, images.n_pixels - d)), 1.0, 1.0])

        def made(flat):
            change = np.zeros((d, d))
            change[lower] = flat[:-3]
            change[on_diagonal] = np.exp(change[on_diagonal])
            noise_variance, shape, rate = scalars * np.exp(units * flat[-3:])
            return change, replace(
                mixture,
                factor=mixture.factor @ change,
                noise_variance=noise_variance,
                shape=shape,
                rate=rate,
            )

        def cost(flat):
            change, candidate = made(flat)
            value, (by_factor, *by_scalars) = candidate.log_likelihood_and_gradient(images)
            by_change = mixture.factor.T @ by_factor
            by_change[on_diagonal] *= change[on_diagonal]
            values = (candidate.noise_variance, candidate.shape, candidate.rate)
            flat_gradient = np.concatenate(
                [by_change[lower], np.multiply(by_scalars, values) * units]
            )
            return -value / len(images), -flat_gradient / len(images)

        scalars = np.array([mixture.noise_variance, mixture.shape, mixture.rate])
        mean_square = np.mean((images.inside**2).sum(1) + images.outside) / images.n_pixels
        least = math.log(LEAST_NOISE * mean_square / mixture.noise_variance) / units[0]
        bounds = [(None, None)] * len(lower[0]) + [
            (min(least, 0.0), None),
            tuple(np.log(np.divide(SHAPES, mixture.shape))),
            (None, None),
        ]
        outcome = minimize(
            cost,
            np.zeros(len(bounds)),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": self.max_iter, "ftol": self.tol, "gtol": 0.0, "maxcor": 20},
        )
        return made(outcome.x)[1], outcome

    def _check_fitted(self):
        """Raise ValueError unless the covariance is one."""
        covariance = self.covariance_
        least = np.linalg.eigvalsh(covariance).min()
        if not np.allclose(covariance, covariance.T) or least < -1e-6 * np.trace(covariance):
            raise ValueError("covariance_ must be symmetric and positive semi-definite.")

    def _keep(self, mixture):
        """Set the fitted attributes; of what the likelihood leaves open, unit variances."""
        covariance = mixture.factor @ mixture.factor.T
        unit = np.sqrt(np.diag(covariance))
        self.z_shape_, self.z_rate_ = float(mixture.shape), float(mixture.rate)
        if self.filters is None:
            self.components_ = self.components_ * unit[:, None]
        else:
            unit = np.sqrt(np.mean(unit**2))
            self.z_rate_ /= unit
            unit = np.full(len(covariance), unit)
        self.covariance_ = covariance / np.outer(unit, unit)
        self.noise_std_ = math.sqrt(mixture.noise_variance)

    def _mixture(self):
        """The mixture, and the basis of its fields."""
        basis, fields = _span(self.components_)
        mixture = Mixture(
            fields,
            np.linalg.cholesky(self.covariance_),
            self.noise_std_**2,
            self.z_shape_,
            self.z_rate_,
            self.n_quadrature,
            self.n_jobs,
        )
        return mixture, basis

    def _check_X(self, X):
        check_is_fitted(self)
        return validate_data(self, X, squared=LARGEST, reset=False)

    def _project(self, X):
        """Valid images and the mixture, in the basis of its fields."""
        X = self._check_X(X)
        mixture, basis = self._mixture()
        return Images.project(X, basis), mixture, X.dtype

    def _of_images(self, function, X):
        """A function of the mixture and of valid images in the basis of its fields."""
        mixture, basis = self._mixture()
        return in_pieces(lambda rows: function(mixture, Images.project(rows, basis)), X)

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Log-likelihood of images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            log p(x), in nats.
        """
        return self._of_images(Mixture.log_likelihood, self._check_X(X))

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean log-likelihood of images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images.
        y : None
            Ignored.

        Returns
        -------
        log_likelihood : float
            In nats per image.
        """
        return float(self.score_samples(X).mean())

    def posterior_moments(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the latents given images.

        Contrast is integrated out, so that uncertainty about it adds to the covariance.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images.

        Returns
        -------
        mean : ndarray of shape (n_samples, n_components)
        covariance : ndarray of shape (n_samples, n_components, n_components)
        """
        images, mixture, dtype = self._project(X)
        return mixture.moments(images, dtype)

    def posterior_sample(
        self, X: ArrayLike, n_samples: int = 1, random_state: RandomState = None
    ) -> np.ndarray:
        """Draw latents from the exact posterior given images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images.
        n_samples : int, default=1
            Draws per image, independent of each other.
        random_state : int, RandomState instance or None, default=None
            Source of the draws.

        Returns
        -------
        latents : ndarray of shape (n_images, n_samples, n_components)
        """
        images, mixture, dtype = self._project(X)
        return mixture.draw(images, n_samples, check_random_state(random_state)).astype(dtype)

    def posterior_z(self, X: ArrayLike, return_std: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Mean contrast given images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images.
        return_std : bool, default=False
            Whether to return the standard deviation too.

        Returns
        -------
        mean : ndarray of shape (n_samples,)
        std : ndarray of shape (n_samples,)
            Only if `return_std`.
        """
        X = self._check_X(X)
        found = self._of_images(lambda *parts: np.stack(Mixture.contrasts(*parts), axis=1), X)
        mean, variance = found.T.astype(X.dtype, order="C")
        return (mean, np.sqrt(variance)) if return_std else mean

    def z_from_variance(self, variance: ArrayLike) -> np.ndarray:
        """Contrast that latents tell by how much they vary: the higher, the surer they are.

        Parameters
        ----------
        variance : array-like of shape (n_samples, n_components)
            Variances of latents, such as those of samples that a network draws.

        Returns
        -------
        z : ndarray of shape (n_samples,)
            Contrasts given which posteriors have variances of the same sum; or the lowest and the
            highest that count, for latents that vary more or less than any posterior's.

        Raises
        ------
        ValueError
            If variances are negative, or not those of as many latents.
        """
        check_is_fitted(self)
        variance = check_array(variance, input_name="variance", dtype=(np.float64, np.float32))
        if variance.shape[1] != len(self.components_) or variance.min() < 0:
            raise ValueError(
                f"variance must hold {len(self.components_)} numbers >= 0 a row, got shape "
                f"{variance.shape} and a least one of {variance.min():.3g}."
            )
        found = self._mixture()[0].contrasts_of(variance.sum(1, dtype=float))
        return found.astype(variance.dtype)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Posterior mean of the latents.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images.

        Returns
        -------
        latents : ndarray of shape (n_samples, n_components)
        """
        X = self._check_X(X)
        return self._of_images(lambda *parts: Mixture.moments(*parts, X.dtype)[0], X)

    def inverse_transform(self, X: ArrayLike, z: ArrayLike | None = None) -> np.ndarray:
        """Images z A y from latents, without noise.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Latents y.
        z : float or array-like of shape (n_samples,), default=None
            Contrasts; by default the mean one.

        Returns
        -------
        images : ndarray of shape (n_samples, n_pixels)
        """
        check_is_fitted(self)
        Y = check_array(X, input_name="X", dtype=(np.float64, np.float32))
        if Y.shape[1] != len(self.components_):
            raise ValueError(
                f"X must hold {len(self.components_)} latents a row, got {Y.shape[1]}."
            )
        z = self.z_shape_ / self.z_rate_ if z is None else np.asarray(z, dtype=Y.dtype)
        if np.ndim(z) and z.shape != (len(Y),):
            raise ValueError(f"z must have shape ({len(Y)},), one contrast a row; got {z.shape}.")
        return np.multiply(z, (Y @ self.components_.astype(Y.dtype)).T).T

    def marginal(self, pixels: ArrayLike) -> Self:
        """The model of some of the pixels alone, such as those that nothing covers.

        Its posterior means, put into :meth:`inverse_transform` of the whole model, fill in the
        other pixels.

        Parameters
        ----------
        pixels : array-like of shape (n_pixels,), bool, or of int
            Which ones: a mask, or their places in a row.

        Returns
        -------
        model : GaussianScaleMixture
            Fitted; its `filters` are the projective fields in these pixels.

        Raises
        ------
        ValueError
            If there are no such pixels.
        """
        check_is_fitted(self)
        places = np.asarray(pixels)
        if places.dtype == bool and places.shape == (self.n_features_in_,):
            places = np.flatnonzero(places)
        legal = places.ndim == 1 and places.dtype.kind in "iu" and len(places)
        if not (legal and places.min() >= 0 and places.max() < self.n_features_in_):
            raise ValueError(
                f"pixels must be a mask of {self.n_features_in_} or places among as many, and not "
                f"empty; got {pixels!r}."
            )
        components = self.components_[:, places]
        made = type(self)(**self.get_params()).set_params(filters=components)
        made.components_, made.n_features_in_ = components, len(places)
        for name in ("covariance_", "noise_std_", "z_shape_", "z_rate_"):
            setattr(made, name, getattr(self, name))
        return made

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> np.ndarray:
        """Draw images from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of images.
        random_state : int, RandomState instance or None, default=None
            Source of the draws.

        Returns
        -------
        images : ndarray of shape (n_samples, n_pixels)
        """
        check_is_fitted(self)
        rng = check_random_state(random_state)
        z = rng.gamma(self.z_shape_, 1 / self.z_rate_, size=n_samples)
        factor = np.linalg.cholesky(self.covariance_)
        latents = rng.normal(size=(n_samples, len(factor))) @ factor.T
        noise = rng.normal(scale=self.noise_std_, size=(n_samples, self.components_.shape[1]))
        return self.inverse_transform(latents, z) + noise

    @property
    def _n_features_out(self):
        return len(self.components_)


def _span(components):
    """Orthonormal basis of the span of the fields, and the fields in it."""
    return np.linalg.qr(components.T)


def _first_guess(images, fields, n_nodes, n_jobs):
    """Covariance of least-squares latents, contrasts around 1, and noise of what is left over."""
    latents = images.inside @ np.linalg.pinv(fields).T
    covariance = latents.T @ latents / len(images)
    least = LEAST_VARIANCE * np.trace(covariance) / len(covariance)
    mean_square = ((images.inside**2).sum() + images.outside.sum()) / len(images) / images.n_pixels
    n_outside = max(1, images.n_pixels - len(fields))
    noise_variance = max(images.outside.mean() / n_outside, 1e-3 * mean_square)
    return Mixture(
        fields,
        np.linalg.cholesky(covariance + least * np.eye(len(covariance))),
        float(noise_variance),
        shape=4.0,
        rate=4.0,
        n_nodes=n_nodes,
        n_jobs=n_jobs,
    )
