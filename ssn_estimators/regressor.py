"""`SSNRegressor`: a stabilized supralinear network as a scikit-learn regressor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from ssn_estimators._scaling import check_target_scaler, in_units, standardised, target_scaler
from ssn_estimators._sklearn import check_array, fit_context, validate_data, with_callbacks
from ssn_estimators._weights import check_weights, distinct
from ssn_estimators.base import documented_by
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.supervised import SupervisedSSN
from ssn_estimators.training import Regression, run_together

if TYPE_CHECKING:
    from typing import Self, Unpack

    from ssn_estimators._typing import ArrayLike, Method, SupervisedParameters

__all__ = ["SSNRegressor"]


@documented_by(SupervisedSSN)
class SSNRegressor(RegressorMixin, SupervisedSSN):
    r"""Regressor that trains a stochastic stabilized supralinear network (SSN).

    The twin of :class:`SSNClassifier`: a recurrent circuit of excitatory (E) and inhibitory (I)
    cells receives the features as constant external input, and a linear layer reads targets out of
    the mean potentials of its E cells. It is trained on the squared error of standardised targets
    while it grows from one stable pair of cells by dynamics-neutral splitting [1]_. No potential is
    ever clipped: a step that makes the circuit diverge is undone.

    Samples that are equal in inputs and targets are one, of the sum of their weights, and the order
    of samples does not matter: an integer weight is as good as so many copies.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    n_outputs_ : int
        Number of targets.
    target_scaler_ : StandardScaler
        The map of targets to a mean of 0 and a variance of 1, in which the readout is trained and
        `loss_curve_` is the mean squared error; fixed at the first fit, or for targets that
        have been constant so far, which are answered exactly, by the first in which they change.
    {attributes}

    See Also
    --------
    SSNClassifier : The same network for classes.
    AutoencoderEncoder : Brings wide inputs to the number of E cells.
    stability_report : Stability of a trained network against shuffled and random weights.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35.
    .. [2] Hazelden, Liu, Shlizerman & Shea-Brown (2023). Evolutionary algorithms as an
       alternative to backpropagation for supervised training of biophysical neural networks
       and neural ODEs. arXiv:2311.10869.
    .. [3] Bishop (1995). Training with noise is equivalent to Tikhonov regularization. Neural
       Computation 7.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from ssn_estimators import SSNRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> ssn = SSNRegressor(max_iter=200, random_state=0).fit(X, y)
    >>> ssn.predict(X[:2]).shape
    (2,)
    >>> ssn.score(X, y) > 0.4
    True
    """

    _task = Regression

    if TYPE_CHECKING:  # what is assigned is anything to type checkers

        def __init__(
            self,
            n_excitatory: int | None = None,
            n_inhibitory: int | None = None,
            **parameters: Unpack[SupervisedParameters],
        ) -> None: ...

    # for editors that look no further than the first base, and take what is last
    __init__ = SupervisedSSN.__init__

    _fitted_shapes = SupervisedSSN._fitted_shapes | {
        "n_outputs_": int,
        "target_scaler_": StandardScaler,
        "_one_target": bool,
    }

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Grow and train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative; None is 1 for each.
        X_val, y_val : array-likes, default=None
            Validation data, on which the best network is chosen and training stopped. They
            must be encoded as `X` is; a Pipeline does so with ``transform_input=["X_val"]``
            and scikit-learn's metadata routing.

        Returns
        -------
        self : SSNRegressor

        Raises
        ------
        ValueError
            If a weight is negative or all are 0, if there are fewer than two samples to validate
            on, or if training is to go on with another number of targets.

        Warns
        -----
        ConvergenceWarning
            If training could not be kept stable in any attempt (the last stable network is kept),
            if the loss ends at that of the mean of the targets, or if cells are silent on all
            inputs.
        """
        return run_together([self._training(X, y, X_val, y_val, sample_weight=sample_weight)])[0]

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Go on training for one pass over the data, at a constant rate.

        The first call grows the network, with `growth_iter` steps at each size, on the data
        it gets; it also fixes the scaling of inputs and targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative, relative to each other; None is 1 for each.

        Returns
        -------
        self : SSNRegressor
        """
        return self._one_pass(X, y, sample_weight=sample_weight)

    def _labelled(self, going_on, X, y, sample_weight=None):
        """Samples that have been checked, every one once, in an order of their own; weights."""
        X, y = validate_data(
            self, X, y, reset=not going_on, multi_output=True, y_numeric=True, ensure_min_samples=1
        )
        weights = check_weights(sample_weight, X)
        y = y.astype(float)
        if going_on:
            self._check_targets(y, "y")
        self._one_target, self.n_outputs_ = y.ndim == 1, y[:1].size
        used = np.flatnonzero(weights)
        first, which = distinct(X[used], y[used])
        return X[used][first], y[used][first], np.bincount(which, weights[used])

    def _check_targets(self, y, name):
        one = y.ndim == 1
        if one != self._one_target or (not one and y.shape[1] != self.n_outputs_):
            wanted = "" if self._one_target else f", {self.n_outputs_}"
            raise ValueError(
                f"{name} must have shape (n_samples{wanted}), as in the fit that goes on or that "
                f"it validates, got {y.shape}."
            )

    def _held_out_targets(self, y_val):
        y_val = check_array(y_val, input_name="y_val", ensure_2d=False, dtype=float)
        self._check_targets(y_val, "y_val")
        return y_val, np.ones(len(y_val))

    def _targets(self, going_on, y, weights):
        y, known = y.reshape(len(y), -1), self.target_scaler_ if going_on else None
        self.target_scaler_ = target_scaler(y, weights, known)
        return Regression.targets(standardised(y, self.target_scaler_), weights)

    @property
    def _n_outputs(self):
        return self.n_outputs_

    def _scorer(self, X, y, weights):
        """Coefficient of determination on held-out data, of a model."""
        if len(X) < 2:
            raise ValueError(
                f"R^2 needs at least 2 samples that are held out, got {len(X)}; raise "
                f"validation_fraction (now {self.validation_fraction:g}), or give more."
            )

        def score(model):
            try:
                return float(r2_score(y, self._predicted(X, model), sample_weight=weights))
            except DivergenceError:  # no answer is worse than any
                return -np.inf

        return score

    def _attributes(self, model):
        names = ("n_outputs_", "target_scaler_", "_one_target")
        return super()._attributes(model) | {name: getattr(self, name) for name in names}

    def _check_fitted(self):
        super()._check_fitted()
        n = self.n_outputs_
        if n != len(self.readout_bias_) or (self._one_target and n != 1):
            raise ValueError(f"the network does not answer with {n} targets.")
        check_target_scaler(self.target_scaler_, n)

    def _predicted(self, X, model, method="simulation"):
        outputs = self._respond(X, model, method).astype(float)
        found = in_units(outputs, self.target_scaler_)
        return found[:, 0] if self._one_target else found

    def predict(self, X: ArrayLike, *, method: Method = "simulation") -> np.ndarray:
        """Targets of every input.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.
        method : {"simulation", "closure"}, default="simulation"
            Whether potentials are averaged over simulated trials, or their stationary means
            are taken from the Gaussian closure (:func:`stationary_moments`): without noise,
            but with the closure's bias. Inputs for which it finds no stable state are simulated.
            ("moments" is another name for it.)

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            As the targets of `fit`, in their units. The same for a row whatever the other rows,
            but for rounding.

        Raises
        ------
        DivergenceError
            If the network diverges on some input.
        """
        return self._predicted(self._check_X(X), self._fitted_model(), method)
