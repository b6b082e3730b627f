"""`SSNSequenceClassifier`: a stabilized supralinear network that tells sequences apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_consistent_length

from ssn_estimators._classifiers import (
    check_same_classes,
    classes_of,
    labels_of,
    probabilities_of,
    refuse_one_class,
)
from ssn_estimators._sklearn import fit_context, with_callbacks
from ssn_estimators._weights import CLASS_WEIGHT, share_right, weights_of_labels
from ssn_estimators.base import documented_by, extending
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.sequences.base import SequenceSSN
from ssn_estimators.sequences.data import response_weights
from ssn_estimators.training import SequenceClassification, run_together

if TYPE_CHECKING:
    from typing import Self, Unpack

    from ssn_estimators._typing import ArrayLike, ClassWeight, SequenceParameters

__all__ = ["SSNSequenceClassifier"]


@documented_by(SequenceSSN)
class SSNSequenceClassifier(ClassifierMixin, SequenceSSN):
    r"""Classifier of sequences that trains a stochastic stabilized supralinear network (SSN).

    A recurrent circuit of excitatory (E) and inhibitory (I) cells receives the channels of a
    sequence as input that changes in time, through weights that are trained and not negative. A
    linear layer reads logits out of the potentials of E cells, and their mean over the response, a
    part of the sequence, tells its class. The network grows from one stable pair of cells by
    dynamics-neutral splitting [1]_ and is trained by backpropagation through whole sequences. No
    potential is ever clipped: a step that makes the circuit diverge is undone.

    Where all different samples make one batch, equal ones are one, of the sum of their weights: an
    integer weight is as good as so many copies.

    Parameters
    ----------
    {parameters}
    class_weight : dict, "balanced" or None, default=None
        What the classes count, by label; those that are not named count 1. "balanced" ones count
        as much as each other, however many samples they have.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    {attributes}

    See Also
    --------
    SSNSequenceRegressor : The same network with an output at every time step.
    SSNClassifier : For inputs that do not change.
    datasets.make_cognitive_task : Tasks with delays.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35.
    .. [2] Soo, Goudar & Wang (2023). Training biologically plausible recurrent neural networks on
       cognitive tasks with long-term dependencies. NeurIPS 36.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssn_estimators import SSNSequenceClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> rows = X.reshape(-1, 8, 8)  # eight time steps of eight channels
    >>> ssn = SSNSequenceClassifier(20, max_iter=60, random_state=0).fit(rows, y)
    >>> ssn.score(rows, y) > 0.9
    True
    """

    _task = SequenceClassification

    _parameter_constraints: dict = SequenceSSN._parameter_constraints | {
        "class_weight": CLASS_WEIGHT
    }

    _new_parameters = (*SequenceSSN._new_parameters, "class_weight")

    _fitted_shapes = SequenceSSN._fitted_shapes | {"classes_": ("outputs",)}

    @extending(SequenceSSN)
    def __init__(
        self,
        n_excitatory: int = 40,
        n_inhibitory: int | None = None,
        *,
        class_weight: ClassWeight = None,
        **parameters: Unpack[SequenceParameters],
    ) -> None:
        super().__init__(n_excitatory, n_inhibitory, **parameters)
        self.class_weight = class_weight

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        response: ArrayLike | None = None,
    ) -> Self:
        """Grow and train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Sequences; 2-D ones have one channel.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative and relative to each other; None is 1 for each.
            Those of weight 0 are left out.
        lengths : array-like of shape (n_samples,), default=None
            Valid time steps of sequences that have been padded; what follows them does not count.
        response : array-like of shape (n_samples, 2) or (2,), default=None
            First time step in which the answer counts, and the one after the last; None is the
            last valid time step.

        Returns
        -------
        self : SSNSequenceClassifier

        Raises
        ------
        ValueError
            If data or parameters are not legal, before training begins.

        Warns
        -----
        ConvergenceWarning
            If training could not be kept stable in any attempt (the last stable network is kept),
            if the loss ends at that of the frequencies of the classes, or if cells are silent on
            all inputs.
        """
        told = {"lengths": lengths, "response": response, "sample_weight": sample_weight}
        return run_together([self._training(X, y, **told)])[0]

    def _checked_targets(self, going_on, X, y, lengths, response=None, sample_weight=None):
        if y is None:
            name = type(self).__name__
            raise ValueError(f"{name} requires y to be passed, but the target y is None.")
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        weights = weights_of_labels(self, X, y, sample_weight)
        known = classes_of(y[weights > 0])[0]
        refuse_one_class(known, self)
        if going_on:
            check_same_classes(known, self)
        self.classes_ = known
        return y, response_weights(response, lengths, X.shape[1]), weights

    @staticmethod
    def _strata(y, *others):
        return y

    def _targets(self, going_on, y, response, weights):
        return self._task.targets(np.searchsorted(self.classes_, y), response, weights)

    @property
    def _n_outputs(self):
        return len(self.classes_)

    def _scorer(self, X, lengths, y, response, weights):
        """Weighted accuracy on held-out data, of a model."""

        def score(model):
            try:
                logits = self._logits(X, lengths, response, model)
            except DivergenceError:  # without an answer, none is right
                return 0.0
            return float(np.average(self.classes_[logits.argmax(1)] == y, weights=weights))

        return score

    def _logits(self, X, lengths, weights, model):
        return np.einsum("itk,it->ik", self._outputs(X, lengths, model), weights)

    def _attributes(self, model):
        return super()._attributes(model) | {"classes_": self.classes_}

    def decision_function(
        self, X: ArrayLike, *, lengths: ArrayLike | None = None, response: ArrayLike | None = None
    ) -> np.ndarray:
        """Logits of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Sequences.
        lengths, response : array-likes, default=None
            See :meth:`fit`.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) if binary
            In the binary case, the log odds of ``classes_[1]``.

        Raises
        ------
        DivergenceError
            If the network diverges on some sequence.
        """
        X, lengths = self._checked(X, lengths)
        weights = response_weights(response, lengths, X.shape[1])
        logits = self._logits(X, lengths, weights, self._fitted_model())
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(
        self, X: ArrayLike, *, lengths: ArrayLike | None = None, response: ArrayLike | None = None
    ) -> np.ndarray:
        """Most probable class of every sequence.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Sequences.
        lengths, response : array-likes, default=None
            See :meth:`fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            The same for a sequence whatever the others, but for rounding.
        """
        return labels_of(
            self.decision_function(X, lengths=lengths, response=response), self.classes_
        )

    def predict_proba(
        self, X: ArrayLike, *, lengths: ArrayLike | None = None, response: ArrayLike | None = None
    ) -> np.ndarray:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Sequences.
        lengths, response : array-likes, default=None
            See :meth:`fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        return probabilities_of(self.decision_function(X, lengths=lengths, response=response))

    def score(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        response: ArrayLike | None = None,
    ) -> float:
        """Share of right labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Sequences.
        y : array-like of shape (n_samples,)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the sequences; None means that all are alike.
        lengths, response : array-likes, default=None
            See :meth:`fit`.

        Returns
        -------
        score : float
        """
        predicted = self.predict(X, lengths=lengths, response=response)
        return share_right(y, predicted, sample_weight)
