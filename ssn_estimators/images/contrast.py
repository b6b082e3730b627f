"""Images without luminance, in units of their contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import BaseEstimator, StrOptions, fit_context, validate_data

if TYPE_CHECKING:
    from typing import Literal, Self

    from ssn_estimators._typing import ArrayLike

__all__ = ["ContrastNormalizer", "is_constant"]


class ContrastNormalizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Images without their mean luminance, in units of contrast.

    Parameters
    ----------
    contrast : {"global", "per_image"}, default="global"
        "global" divides all images by one standard deviation, that of all pixels seen in
        fit, and so keeps which image has how much contrast. "per_image" divides each image
        by its own.

    Attributes
    ----------
    scale_ : float
        Standard deviation over all pixels of images without their means.
    n_features_in_ : int
        Number of pixels seen during fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, if `X` had names that are all strings.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssn_estimators import ContrastNormalizer
    >>> X, _ = load_digits(return_X_y=True)
    >>> float(ContrastNormalizer().fit_transform(X).std().round(3))
    1.0
    """

    _parameter_constraints: dict = {"contrast": [StrOptions({"global", "per_image"})]}

    _fitted_shapes = {"scale_": float}

    def __init__(self, contrast: Literal["global", "per_image"] = "global") -> None:
        self.contrast = contrast

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn the scale.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images.
        y : None
            Ignored.

        Returns
        -------
        self : ContrastNormalizer

        Raises
        ------
        ValueError
            If an image is constant and `contrast` is "per_image", or if all are.
        """
        X = validate_data(self, X, squared=True, ensure_min_features=2)
        self.scale_ = float(np.sqrt(np.mean(_deviations(X) ** 2, dtype=float)))
        # what rounding leaves of constant images is no contrast
        if is_constant(X).all():
            raise ValueError("All images are constant: there is no contrast to normalise.")
        self._check_constant(X)
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Normalise.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_pixels)
            Images.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_pixels)

        Raises
        ------
        ValueError
            If an image is constant and `contrast` is "per_image".
        """
        check_is_fitted(self)
        X = validate_data(self, X, squared=True, reset=False)
        deviations = _deviations(X)
        if self.contrast == "global":
            return deviations / X.dtype.type(self.scale_)
        self._check_constant(X)
        # squares of images in units of their own are numbers, however dark these are
        largest = np.abs(deviations).max(axis=1, keepdims=True)
        deviations = np.ldexp(deviations, -np.frexp(largest)[1])
        return deviations / np.sqrt(np.mean(deviations**2, axis=1, keepdims=True))

    def _check_constant(self, X):
        constant = is_constant(X)
        if self.contrast == "per_image" and constant.any():
            raise ValueError(
                f"{constant.sum()} of {len(X)} images are constant, the first in row "
                f"{constant.argmax()}: they have no contrast to divide by. Remove them, or take "
                "contrast='global'."
            )


def is_constant(X):
    return np.ptp(X, axis=1) == 0


def _deviations(X):
    return X - X.mean(axis=1, keepdims=True)
