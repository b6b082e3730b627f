"""Filters that span images as simple cells of the visual cortex do."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
import torch
from scipy.optimize import minimize
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import (
    COUNT,
    NOT_NEGATIVE,
    BaseEstimator,
    OnlyWith,
    StrOptions,
    check_array,
    fit_context,
    validate_data,
)
from ssn_estimators._torch import to_numbers, to_tensor
from ssn_estimators.images.contrast import is_constant
from ssn_estimators.images.shape import image_shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, Self

    from ssn_estimators._typing import ArrayLike

__all__ = ["GaborEncoder", "check_filters", "explained_energy", "gabor_filters"]

SIDE = 32  # pixels; the sizes and centres of Gabor filters are in units of an image of this side
RIDGE = 1e-9  # against filters that depend on each other
LEAST_NORM = 1e-6  # of a filter beyond those chosen before
SIZES = (0.2, 1.0)  # legal sizes of Gabor filters
WIDTH, FREQUENCY = 5.0, 0.5  # envelope's s.d. and the carrier's angular frequency at size 1


def gabor_filters(
    orientation: ArrayLike, size: ArrayLike, center: ArrayLike, image_shape: Sequence[int]
) -> np.ndarray:
    r"""Two-dimensional even Gabor filters.

    .. math:: A = \exp(-(x_1^2 + x_2^2) / 2 \sigma^2) \cos(\kappa x_1)

    with :math:`\sigma = 5 s`, :math:`\kappa = 0.5 / s` for the size s, and :math:`x_1, x_2`
    the distances from the centre along and across the orientation; for pixels of an image
    of 32 x 32, scaled to other images.

    Parameters
    ----------
    orientation : array-like of shape (n_filters,)
        Angle of the direction of modulation, in radians.
    size : array-like of shape (n_filters,)
        Scale of envelope and wavelength.
    center : array-like of shape (n_filters, 2)
        Row and column of the centre, from the centre of the image, which spans -16 to 16.
    image_shape : tuple of int
        Rows and columns.

    Returns
    -------
    filters : ndarray of shape (n_filters, n_pixels)
        Rows of pixels, the last axis of an image the fastest.
    """
    given = {"orientation": orientation, "size": size, "center": center}
    values = [to_tensor(value, name=name) for name, value in given.items()]
    n = len(values[0]) if values[0].ndim else 0
    if [tuple(value.shape) for value in values] != [(n,), (n,), (n, 2)]:
        raise ValueError(
            "orientation, size and center must have shapes (n,), (n,) and (n, 2), got "
            f"{[tuple(value.shape) for value in values]}."
        )
    if not all(torch.isfinite(value).all() for value in values) or not (values[1] > 0).all():
        raise ValueError("orientation, size and center must be finite, and size > 0.")
    shape = to_numbers(image_shape, name="image_shape")
    if shape.shape != (2,) or not (shape == shape.round()).all() or not (shape > 0).all():
        raise ValueError(f"image_shape must be numbers of rows and columns, got {image_shape!r}.")
    image_shape = tuple(map(int, shape))
    return _gabor_filters(*values, image_shape).numpy()


def _gabor_filters(orientation, size, center, image_shape):
    unit = SIDE / max(image_shape)
    rows, columns = (unit * (torch.arange(n, dtype=torch.float64) - n // 2) for n in image_shape)
    down = (rows - center[:, :1])[:, :, None]
    across = (columns - center[:, 1:])[:, None, :]
    cos, sin = orientation.cos()[:, None, None], orientation.sin()[:, None, None]
    along = across * cos + down * sin
    scale = size[:, None, None]
    envelope = torch.exp(-(down**2 + across**2) / (2 * (WIDTH * scale) ** 2))
    return (envelope * torch.cos(FREQUENCY / scale * along)).flatten(1)


def explained_energy(filters, second_moments):
    """Share of the images' energy within the span of the filters.

    Parameters
    ----------
    filters : Tensor of shape (n_filters, n_pixels)
        Rows, independent of each other.
    second_moments : Tensor of shape (n_pixels, n_pixels)
        Mean of x x^T / |x|^2: all that the share depends on.

    Returns
    -------
    share : Tensor
        Mean of |P x|^2 / |x|^2, P the projection onto the span.
    """
    gram, seen = filters @ filters.T, filters @ second_moments @ filters.T
    return torch.linalg.solve(gram, seen).trace()


class GaborEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Coefficients of images in a bank of Gabor filters, learned or given.

    The filters (see :func:`gabor_filters`) are those that maximise the explained share of
    the images' energy, :math:`1 - \langle |x - P x|^2 / |x|^2 \rangle`, where P projects onto
    the span of the filters [1]_. It depends on the images by one matrix of second moments
    only, so learning does not slow down with their number. It starts from filters chosen one
    by one out of a regular dictionary, each for what it adds, and goes on by L-BFGS.

    Parameters
    ----------
    n_components : int, default=50
        Number of filters to learn.
    coefficients : {"least_squares", "responses"}, default="least_squares"
        Whether `transform` gives the coefficients by which the filters come closest to an
        image, or the filters' inner products with it.
    filters : array-like of shape (n_components, n_pixels), default=None
        Filters to use instead of learning them.
    image_shape : tuple of int, default=None
        Rows and columns of the images; by default as close to a square as can be.
    max_iter : int, default=500
        Greatest number of iterations of L-BFGS.
    tol : float, default=1e-6
        Rise of the explained share below which learning ends.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_pixels)
        The filters, of unit norm if they were learned.
    orientations_, sizes_ : ndarrays of shape (n_components,), or None
        Parameters of learned filters, as in :func:`gabor_filters`.
    centers_ : ndarray of shape (n_components, 2), or None
        Their centres.
    explained_energy_ : float
        Explained share of the energy of the images seen during fit.
    n_iter_ : int
        Iterations done; 0 if the filters were given.
    n_features_in_ : int
        Number of pixels seen during fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, if `X` had names that are all strings.

    See Also
    --------
    ContrastNormalizer : Removes the mean luminance, which Gabor filters hardly see.
    GaussianScaleMixture : The generative model with these filters as projective fields.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35. Section 4.1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssn_estimators import GaborEncoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> encoder = GaborEncoder(10).fit(X)
    >>> encoder.transform(X).shape
    (1797, 10)
    """

    _parameter_constraints: dict = {
        "n_components": COUNT,
        "coefficients": [StrOptions({"least_squares", "responses"})],
        "filters": ["array-like", None],
        "image_shape": ["array-like", None],
        "max_iter": COUNT,
        "tol": NOT_NEGATIVE,
    }

    _fitted_shapes = {"components_": ("components", "n_features_in_")}

    _only_with = dict.fromkeys(
        ("n_components", "image_shape", "max_iter", "tol"),
        OnlyWith("filters", lambda filters: filters is None, "filters=None"),
    )

    def __init__(
        self,
        n_components: int = 50,
        *,
        coefficients: Literal["least_squares", "responses"] = "least_squares",
        filters: ArrayLike | None = None,
        image_shape: Sequence[int] | None = None,
        max_iter: int = 500,
        tol: float = 1e-6,
    ) -> None:
        self.n_components = n_components
        self.coefficients = coefficients
        self.filters = filters
        self.image_shape = image_shape
        self.max_iter = max_iter
        self.tol = tol

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn the filters.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images.
        y : None
            Ignored.

        Returns
        -------
        self : GaborEncoder

        Raises
        ------
        ValueError
            If all images are constant (single ones that are zero are left out), or if `filters`
            or `image_shape` do not fit the images.

        Warns
        -----
        ConvergenceWarning
            If learning was not over after `max_iter` iterations.
        """
        X = validate_data(self, X, squared=True)
        shape = image_shape_of(self.image_shape, X.shape[1])
        moments = torch.from_numpy(_second_moments(X))
        if self.filters is not None:
            filters = check_filters(self.filters, X.shape[1])
            self.orientations_ = self.sizes_ = self.centers_ = None
            self.n_iter_ = 0
        else:
            parameters, self.n_iter_ = self._learn(moments, shape)
            self.orientations_, self.sizes_, self.centers_ = parameters
            filters = gabor_filters(*parameters, shape)
            filters /= np.linalg.norm(filters, axis=1, keepdims=True)
        self.components_ = filters
        span = torch.from_numpy(scipy.linalg.orth(filters.T).T.copy())
        self.explained_energy_ = float(explained_energy(span, moments))
        return self

    def _learn(self, moments, shape):
        n = self.n_components
        extent = np.array(shape) / max(shape) * SIDE / 2
        start = _pursuit(moments.numpy(), _dictionary(extent), shape, n)

        def unexplained(flat):
            values = torch.tensor(flat.reshape(n, 4), requires_grad=True)
            filters = _gabor_filters(values[:, 0], values[:, 1], values[:, 2:], shape)
            # of unit norm, so that the ridge against dependent filters is the same for each
            filters = filters / filters.norm(dim=1, keepdim=True)
            gram = filters @ filters.T + RIDGE * torch.eye(n, dtype=filters.dtype)
            share = torch.linalg.solve(gram, filters @ moments @ filters.T).trace()
            (gradient,) = torch.autograd.grad(-share, values)
            return 1 - share.item(), gradient.numpy().ravel()

        bounds = [(None, None), SIZES, *((-x, x) for x in extent)] * n
        options = {"maxiter": self.max_iter, "ftol": self.tol, "maxcor": 20}
        found = minimize(
            unexplained, start.ravel(), jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        if found.nit >= self.max_iter:
            warnings.warn(
                f"The filters had not converged after max_iter={self.max_iter} iterations.",
                ConvergenceWarning,
                stacklevel=3,
            )
        values = found.x.reshape(n, 4)
        return (values[:, 0] % np.pi, values[:, 1], values[:, 2:]), found.nit

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Coefficients of the images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images.

        Returns
        -------
        coefficients : ndarray of shape (n_samples, n_components)
        """
        check_is_fitted(self)
        X = validate_data(self, X, squared=True, reset=False)
        matrix = self.components_.T
        if self.coefficients == "least_squares":
            matrix = np.linalg.pinv(self.components_)
        return X @ matrix.astype(X.dtype)

    def inverse_transform(self, X: ArrayLike) -> np.ndarray:
        """Images from coefficients.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Coefficients, or responses: of these, the shortest image that has them.

        Returns
        -------
        images : ndarray of shape (n_samples, n_pixels)
        """
        check_is_fitted(self)
        X = check_array(X, input_name="X", dtype=(np.float64, np.float32))
        if X.shape[1] != len(self.components_):
            raise ValueError(
                f"X must hold {len(self.components_)} coefficients a row, got {X.shape[1]}."
            )
        matrix = self.components_
        if self.coefficients == "responses":
            matrix = np.linalg.pinv(self.components_).T
        return X @ matrix.astype(X.dtype)

    @property
    def _n_features_out(self):
        return len(self.components_)


def _dictionary(extent):
    """Orientation, size and centre of filters all over the image, of shape (n, 4)."""
    grid = np.meshgrid(
        np.arange(8) * np.pi / 8,
        np.geomspace(*SIZES, 4),
        *(np.linspace(-x, x, 10)[:-1] + x / 9 for x in extent),
        indexing="ij",
    )
    return np.stack(grid, axis=-1).reshape(-1, 4)


def _pursuit(moments, candidates, shape, n):
    """The n candidates that explain most, each chosen for what it adds to those before."""
    rest = gabor_filters(candidates[:, 0], candidates[:, 1], candidates[:, 2:], shape)
    seen, chosen = rest @ moments, []
    for _ in range(n):
        # what is left of each candidate outside the span of the chosen ones
        norms = (rest**2).sum(1)
        gains = np.einsum("ij,ij->i", rest, seen) / np.where(norms > LEAST_NORM, norms, np.inf)
        chosen.append(gains.argmax())
        best = rest[chosen[-1]] / max(np.sqrt(norms[chosen[-1]]), LEAST_NORM)
        shares = rest @ best
        seen -= np.outer(shares, best @ moments)
        rest -= np.outer(shares, best)
    return candidates[chosen]


def check_filters(filters, n_pixels):
    """Given filters as an array, or why they cannot be."""
    filters = check_array(filters, dtype=np.float64, input_name="filters")
    if not filters.any(axis=1).all():
        raise ValueError("filters must not be zero everywhere.")
    if filters.shape[1] != n_pixels:
        raise ValueError(
            f"filters must have as many columns as the images have pixels, {n_pixels}; got shape "
            f"{filters.shape}."
        )
    return filters


def _second_moments(X):
    """Mean of x x^T / |x|^2 over images that are not constant."""
    seen = X[~is_constant(X)] if X.shape[1] > 1 else X[X[:, 0] != 0]
    if not len(seen):
        raise ValueError("All images are constant: there is nothing to learn from.")
    seen = np.ldexp(seen, -np.frexp(np.abs(seen).max(axis=1, keepdims=True))[1])
    unit = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    return (unit.T @ unit / len(seen)).astype(np.float64)
