"""`SSNSequenceRegressor`: a stabilized supralinear network with an output at every time step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.validation import check_consistent_length

from ssn_estimators._scaling import check_target_scaler, in_units, standardised, target_scaler
from ssn_estimators._sklearn import check_array, fit_context, with_callbacks
from ssn_estimators._weights import check_weights
from ssn_estimators.base import documented_by
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.sequences.base import SequenceSSN
from ssn_estimators.sequences.data import check_mask, response_weights
from ssn_estimators.training import SequenceRegression, run_together

if TYPE_CHECKING:
    from typing import Self, Unpack

    from ssn_estimators._typing import ArrayLike, SequenceParameters

__all__ = ["SSNSequenceRegressor"]


@documented_by(SequenceSSN)
class SSNSequenceRegressor(RegressorMixin, SequenceSSN):
    r"""Regressor of sequences that trains a stochastic stabilized supralinear network (SSN).

    The twin of :class:`SSNSequenceClassifier`: a linear layer reads an answer out of the potentials
    of E cells at every time step, and is trained on the squared error of standardised targets,
    weighted by a mask. It learns the tasks of
    :func:`~ssn_estimators.datasets.make_cognitive_task`: a stimulus, a delay, a response.

    Where all different samples make one batch, equal ones are one, of the sum of their weights: an
    integer weight is as good as so many copies.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    n_outputs_ : int
        Number of outputs.
    target_scaler_ : StandardScaler
        The map of each output, over all sequences and time steps that count, to a mean of 0 and a
        variance of 1, in which the readout is trained; fixed at the first fit, or for outputs that
        have been constant so far, which are answered exactly, by the first in which they change.
    {attributes}

    See Also
    --------
    SSNSequenceClassifier : The same network for one label for each sequence.
    datasets.make_cognitive_task : Tasks with delays.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35.
    .. [2] Soo, Goudar & Wang (2023). Training biologically plausible recurrent neural networks on
       cognitive tasks with long-term dependencies. NeurIPS 36.

    Examples
    --------
    Follow the input with a lag of a time step:

    >>> import numpy as np
    >>> from ssn_estimators import SSNSequenceRegressor
    >>> X = np.random.RandomState(0).uniform(size=(100, 10))
    >>> y = np.roll(X, 1, axis=1)
    >>> y[:, 0] = 0
    >>> ssn = SSNSequenceRegressor(8, max_iter=100, random_state=0).fit(X, y)
    >>> ssn.predict(X[:2]).shape
    (2, 10)
    """

    _task = SequenceRegression

    if TYPE_CHECKING:  # what is assigned is anything to type checkers

        def __init__(
            self,
            n_excitatory: int = 40,
            n_inhibitory: int | None = None,
            **parameters: Unpack[SequenceParameters],
        ) -> None: ...

    # for editors that look no further than the first base, and take what is last
    __init__ = SequenceSSN.__init__

    _fitted_shapes = SequenceSSN._fitted_shapes | {
        "n_outputs_": int,
        "target_scaler_": StandardScaler,
        "_axes": int,
    }

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> Self:
        """Grow and train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Sequences; 2-D ones have one channel.
        y : array-like of shape (n_samples, n_timesteps, n_outputs), (n_samples, n_timesteps) or \
                (n_samples,)
            Targets at every time step, of one or more outputs; or one for each sequence, at its
            last valid time step.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the sequences, not negative and relative to each other; None is 1 for each.
            Those of weight 0 are left out.
        lengths : array-like of shape (n_samples,), default=None
            Valid time steps of sequences that have been padded; what follows them does not count.
        mask : array-like of shape (n_samples, n_timesteps[, n_outputs]), default=None
            Weights of the targets, not negative; None is 1 for each.

        Returns
        -------
        self : SSNSequenceRegressor

        Raises
        ------
        ValueError
            If data or parameters are not legal, before training begins.

        Warns
        -----
        ConvergenceWarning
            If training could not be kept stable in any attempt (the last stable network is kept),
            if the loss ends at that of the mean course of the targets, or if cells are silent on
            all inputs.
        """
        told = {"lengths": lengths, "mask": mask, "sample_weight": sample_weight}
        return run_together([self._training(X, y, **told)])[0]

    def _checked_targets(self, going_on, X, y, lengths, mask=None, sample_weight=None):
        if y is None:
            name = type(self).__name__
            raise ValueError(f"{name} requires y to be passed, but the target y is None.")
        y = self._targets_of(X, y)
        if going_on:
            self._check_outputs(y)
        else:
            self._axes, self.n_outputs_ = y.ndim, _n_outputs_of(y)
        return self._counting(X, y, lengths, mask, sample_weight)

    def _check_outputs(self, y):
        if (y.ndim > 1, _n_outputs_of(y)) != (self._axes > 1, self.n_outputs_):
            wanted = f", {self.n_features_in_}, {self.n_outputs_}" if self._axes > 1 else ","
            raise ValueError(
                f"y must have shape (n_samples{wanted}) as in the fit before, got {y.shape}."
            )

    def _counting(self, X, y, lengths, mask, sample_weight):
        """Targets in time, their weights, and those of sequences: 0 if no target counts."""
        y, mask = self._in_time(X, y, lengths, mask)
        weights = np.where(mask.any((1, 2)), check_weights(sample_weight, X), 0.0)
        if not weights.any():
            raise ValueError("all weights are zero at the time steps that count by the mask.")
        return y, mask, weights

    @staticmethod
    def _targets_of(X, y):
        """As floats, of as many time steps as X if there is an axis of them."""
        options = {"allow_nd": True, "ensure_2d": False, "dtype": float, "ensure_all_finite": False}
        y = check_array(y, input_name="y", **options)
        check_consistent_length(X, y)
        if y.ndim == 2 and y.shape[1] == 1 != X.shape[1]:
            y = column_or_1d(y, warn=True)
        if y.ndim not in (1, 2, 3) or (y.ndim > 1 and y.shape[1] != X.shape[1]) or 0 in y.shape:
            raise ValueError(
                f"y must have shape (n_samples, {X.shape[1]}, n_outputs) or (n_samples, "
                f"{X.shape[1]}), as X has {X.shape[1]} time steps, or (n_samples,); got {y.shape}."
            )
        return y

    @staticmethod
    def _in_time(X, y, lengths, mask):
        """Targets and their weights, of shape (n_samples, n_timesteps, n_outputs).

        Targets that do not count are 0, whatever they were.
        """
        shape = (*X.shape[:2], y.shape[2] if y.ndim == 3 else 1)
        weights = check_mask(mask, lengths, shape)
        if y.ndim == 1:
            weights = weights * (response_weights(None, lengths, shape[1]) > 0)[:, :, None]
            y = y[:, None, None]
        y = np.where(weights > 0, y.reshape(len(y), -1, shape[2]), 0.0)
        assert_all_finite(y, input_name="y")
        return y, weights

    def _targets(self, going_on, y, mask, weights):
        weights = mask * weights[:, None, None]
        counts, known = weights > 0, self.target_scaler_ if going_on else None
        seen = np.where(counts, y, np.nan).reshape(-1, y.shape[2])
        self.target_scaler_ = target_scaler(seen[~np.isnan(seen).all(1)], known=known)
        values = np.nan_to_num(standardised(seen, self.target_scaler_)).reshape(y.shape)
        return self._task.targets(values, weights)

    @property
    def _n_outputs(self):
        return self.n_outputs_

    def _scorer(self, X, lengths, y, mask, weights):
        """Coefficient of determination on held-out data, of a model."""
        weights = mask * weights[:, None, None]
        if not _judged(weights).any():
            raise ValueError(
                "R^2 needs at least 2 targets of an output that are held out and count; raise "
                f"validation_fraction (now {self.validation_fraction:g})."
            )

        def score(model):
            try:
                found = self._courses(X, lengths, model)
            except DivergenceError:  # no answer is worse than any
                return -np.inf
            return _explained(y, found, weights)

        return score

    def _courses(self, X, lengths, model):
        return self._in_units(self._outputs(X, lengths, model))

    def _in_units(self, outputs):
        return in_units(outputs, self.target_scaler_)

    def _attributes(self, model):
        names = ("n_outputs_", "target_scaler_", "_axes")
        return super()._attributes(model) | {name: getattr(self, name) for name in names}

    def _check_fitted(self):
        super()._check_fitted()
        if self.n_outputs_ != len(self.readout_bias_):
            raise ValueError(f"the network does not have {self.n_outputs_} outputs.")
        check_target_scaler(self.target_scaler_, self.n_outputs_)
        if self._axes not in (1, 2, 3) or (self._axes < 3 and self.n_outputs_ != 1):
            raise ValueError(f"answers with {self._axes} axes are none of such a network.")

    def predict(self, X: ArrayLike, *, lengths: ArrayLike | None = None) -> np.ndarray:
        """Outputs at every time step.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Sequences.
        lengths : array-like of shape (n_samples,), default=None
            Valid time steps.

        Returns
        -------
        y : ndarray of shape (n_samples, n_timesteps, n_outputs), (n_samples, n_timesteps) or \
                (n_samples,)
            As the targets of `fit`, in their units. The same for a sequence whatever the others,
            but for rounding.

        Raises
        ------
        DivergenceError
            If the network diverges on some sequence.
        """
        X, lengths = self._checked(X, lengths)
        found = self._courses(X, lengths, self._fitted_model())
        if self._axes == 3:
            return found
        return found[np.arange(len(X)), lengths - 1, 0] if self._axes == 1 else found[:, :, 0]

    def score(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> float:
        """Coefficient of determination R^2 over the time steps that count.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Sequences.
        y : array-like
            Targets as in :meth:`fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the sequences; None means that all are alike.
        lengths, mask : array-likes, default=None
            See :meth:`fit`.

        Returns
        -------
        score : float
            Mean over the outputs of which at least two targets count; NaN, with a warning, if there
            is none.

        Raises
        ------
        ValueError
            If data or weights are not legal, or targets not of the outputs of the fit.
        """
        X, lengths = self._checked(X, lengths)
        if y is None:
            raise ValueError("score requires y to be passed, but the target y is None.")
        y = self._targets_of(X, y)
        self._check_outputs(y)
        y, mask, weights = self._counting(X, y, lengths, mask, sample_weight)
        found = self._courses(X, lengths, self._fitted_model())
        return _explained(y, found, mask * weights[:, None, None])


def _n_outputs_of(y):
    return y.shape[2] if y.ndim == 3 else 1


def _judged(weights):
    """Outputs of which enough targets count for R^2."""
    return (weights > 0).sum((0, 1)) > 1


def _explained(y, found, weights):
    """R^2 over entries of any shape, the mean over outputs."""
    scores = []
    for k in np.flatnonzero(_judged(weights)) if _judged(weights).any() else [0]:
        counts = weights[..., k] > 0
        own = (values[..., k][counts] for values in (y, found, weights))
        true, predicted, each = own
        scores.append(r2_score(true, predicted, sample_weight=each))
    return float(np.mean(scores))
