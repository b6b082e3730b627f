"""`LateralContext`: lateral weights from what is active together, and their gates."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import (
    COUNT,
    NOT_NEGATIVE,
    BaseEstimator,
    OnlyWith,
    StrOptions,
    fit_context,
    validate_data,
)
from ssn_estimators._torch import in_blocks, in_pieces, to_tensor
from ssn_estimators.images.shape import image_shape_of
from ssn_estimators.lateral.rule import CoActivation, Reading, gated, offsets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal, Self

    from ssn_estimators._typing import ArrayLike

__all__ = ["LateralContext"]


class LateralContext(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Gate feature maps by their surround, through weights learned without labels.

    The activity f of feature k at a place is read as the probability that k is there, given
    what the place alone shows. Neighbours at a distance :math:`\Delta` change that through

    .. math:: W^\Delta_{jk} = \frac{\langle f_j^{n + \Delta} f_k^n \rangle}{\langle f_j \rangle
       \langle f_k \rangle} - 1,

    means over images and places n: what has been seen together supports each other, and the -1
    is an inhibition that all features share [1]_. If places are independent given their
    features, the product form is Bayes' rule,

    .. math:: g_k^n \propto f_k^n \prod_\Delta \Big(1 + \sum_j W^\Delta_{jk}
       f_j^{n + \Delta} \Big)^\alpha,

    and the linear form is its first order, :math:`g_k^n = f_k^n \lfloor 1 + \alpha \sum_\Delta
    \sum_j W^\Delta_{jk} f_j^{n + \Delta} \rfloor_+`, one convolution. One pass over the data
    learns the weights.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        Rows and columns of the maps; X has as many features at every place as are left. None
        means one feature, in a square or else in one column.
    extent : int, default=1
        Neighbours to each side.
    spacing : int, default=3
        Distance between neighbours, in places. Best that of features which share no pixels:
        noise in pixels that both see looks like context.
    form : {"linear", "product"}, default="linear"
        See above.
    alpha : float, default=1.0
        Strength; 0 leaves maps as they are.
    normalize : bool, default=True
        Whether gates and weights see the maps over their sum at each place. Places where nothing
        is active then say nothing: weights are learned from the others, and gates do not change
        for them. A single feature, whose share is 1 wherever it is active, has no context.
        Without, sums should be at most 1, or gates grow with the activity.
    background : float, default=0.0
        How much speaks at every place for nothing being there, in mean activities of a place (of
        the maps of the first fit). More than 0 makes that one more feature, the last, which
        supports itself and is supported like any other: rectified maps then do not take weak noise
        on an empty ground for evidence. Only with `normalize`.
    eps : float, default=1e-6
        Weight of independence, as if it had been seen in so many places more, as a share.

    Attributes
    ----------
    weights_ : ndarray of shape (2 * extent + 1, 2 * extent + 1, n, n)
        From feature j of the neighbour to feature k of the centre; 0 at the centre. n is
        `n_channels_`, and one more with a `background`.
    mean_ : ndarray of shape (n,)
        Mean activity, as gates see it.
    background_ : float
        Activity that speaks for nothing being there.
    n_channels_ : int
        Number of features at each place.
    n_samples_seen_ : int
        Number of images seen so far.
    n_features_in_ : int
        Number of features seen during fit.

    See Also
    --------
    CNNClassifier : A convolutional network with such layers.

    References
    ----------
    .. [1] Hu & Mihalas (2018). Convolutional neural networks with extra-classical receptive
       fields. arXiv:1810.11594.

    Examples
    --------
    >>> import numpy as np
    >>> from ssn_estimators import LateralContext
    >>> maps = np.random.RandomState(0).dirichlet(np.ones(4), size=(20, 6, 6))
    >>> context = LateralContext((6, 6), spacing=1).fit(maps.reshape(20, -1))
    >>> context.weights_.shape, context.transform(maps.reshape(20, -1)).shape
    ((3, 3, 4, 4), (20, 144))
    """

    _parameter_constraints: dict = {
        "image_shape": ["array-like", None],
        "extent": COUNT,
        "spacing": COUNT,
        "form": [StrOptions({"linear", "product"})],
        "alpha": NOT_NEGATIVE,
        "normalize": ["boolean"],
        "background": NOT_NEGATIVE,
        "eps": NOT_NEGATIVE,
    }

    _only_with = {
        "background": OnlyWith("normalize", lambda normalize: normalize, "normalize=True")
    }

    _new_parameters = ("background",)  # of which the first files of format 2 do not know
    _new_attributes = {"background_": 0.0}

    _fitted_shapes = {
        "weights_": ("side", "side", "features", "features"),
        "mean_": ("features",),
        "background_": float,
        "_sums": CoActivation,
        "_shape": tuple,
    }

    _sums: CoActivation

    def __init__(
        self,
        image_shape: Sequence[int] | None = None,
        *,
        extent: int = 1,
        spacing: int = 3,
        form: Literal["linear", "product"] = "linear",
        alpha: float = 1.0,
        normalize: bool = True,
        background: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        self.image_shape = image_shape
        self.extent = extent
        self.spacing = spacing
        self.form = form
        self.alpha = alpha
        self.normalize = normalize
        self.background = background
        self.eps = eps

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn the weights, afresh.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_rows * n_columns * n_channels)
            Maps, not negative, the features of a place side by side.
        y : None
            Ignored.

        Returns
        -------
        self : LateralContext
        """
        return self._learn(X, first=True)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: ArrayLike, y: object = None) -> Self:
        """Go on learning from more maps.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_rows * n_columns * n_channels)
            Maps, as in :meth:`fit`.
        y : None
            Ignored.

        Returns
        -------
        self : LateralContext
        """
        return self._learn(X, first=not hasattr(self, "_sums"))

    def _learn(self, X: ArrayLike, *, first: bool) -> Self:
        X = validate_data(self, X, reset=first)
        _refuse_negative(X)
        # whole, if this one is interrupted
        sums: Any = None if first else copy.deepcopy(self._sums)
        if first:
            self._shape = image_shape_of(self.image_shape, X.shape[1], whole=False)
            n_places = int(np.prod(self._shape))
            self.n_channels_ = X.shape[1] // n_places
            background = self.background if self.normalize else 0.0
            with np.errstate(over="ignore", invalid="ignore"):
                self.background_ = float(background * X.sum(1).mean() / n_places)
            if not np.isfinite(self.background_):
                raise ValueError(
                    f"X has values of up to {X.max():.3g}, whose sums are too large for numbers of "
                    "this precision; give it other units."
                )
            n_features = self._reading().n_features(self.n_channels_)
            sums = CoActivation(n_features, self.extent, self.spacing)
            self.n_samples_seen_ = 0
        reading = self._reading()
        for start in range(0, len(X), 256):
            shares = reading(self._maps(to_tensor(X[start : start + 256], X.dtype)))
            sums.add(shares, all_places=not self.normalize)
        self._sums = sums
        self.n_samples_seen_ += len(X)
        self.weights_, self.mean_ = self._sums.weights(self.eps)
        return self

    def _check_fitted(self):
        """Raise ValueError unless maps are of as many numbers as inputs, with neighbours."""
        if np.prod([*self._shape, self.n_channels_]) != self.n_features_in_:
            raise ValueError(f"the maps do not have {self.n_features_in_} numbers.")
        if not len(self.weights_) % 2 or self.background_ < 0:
            raise ValueError("weights_ must have an odd side, and background_ not be negative.")

    def _reading(self):
        return Reading(self.normalize, self.background_)

    def _maps(self, X):
        return X.view(len(X), *self._shape, self.n_channels_)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Maps under the gates of their surround.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_rows * n_columns * n_channels)
            Maps, as in :meth:`fit`.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_rows * n_columns * n_channels)
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        _refuse_negative(X)
        weights = to_tensor(self.weights_, X.dtype)

        def gate(block):
            options = {"spacing": self.spacing, "form": self.form, "alpha": self.alpha}
            return gated(self._maps(block), weights, self._reading(), **options).flatten(1)

        return in_pieces(lambda rows: in_blocks(gate, rows), X)

    def connectivity(self, image_shape: Sequence[int] | None = None) -> np.ndarray:
        """Weights between all features of all places, as a matrix.

        As initial excitatory weights of a spatial circuit: their positive part with
        :func:`~ssn_estimators.from_connectivity`; the inhibition that all share is that of the
        circuit's own inhibitory cells.

        Parameters
        ----------
        image_shape : tuple of int, default=None
            Rows and columns; None takes those of the maps.

        Returns
        -------
        weights : ndarray of shape (n, n)
            To rows from columns, n the number of places times that of features.
        """
        check_is_fitted(self)
        rows, columns = self._shape if image_shape is None else image_shape
        k = self.n_channels_
        matrix = np.zeros((rows, columns, k, rows, columns, k))
        for a, b in offsets(self.extent):
            down, right = ((x - self.extent) * self.spacing for x in (a, b))
            for i in range(max(0, -down), min(rows, rows - down)):
                for j in range(max(0, -right), min(columns, columns - right)):
                    matrix[i, j, :, i + down, j + right] = self.weights_[a, b, :k, :k].T
        return matrix.reshape(rows * columns * k, -1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        return tags


def _refuse_negative(X):
    if X.min(initial=0) < 0:
        raise ValueError(
            f"Negative values in data: maps are read as probabilities, and the least is "
            f"{X.min():.3g}. Rectify them first."
        )
