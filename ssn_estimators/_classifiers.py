"""What classifiers make of logits, and how matrices that are trained begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax
from sklearn.utils.multiclass import check_classification_targets

from ssn_estimators.exceptions import DivergenceError

if TYPE_CHECKING:
    from ssn_estimators._typing import ArrayLike, Function

__all__ = [
    "LogitsMixin",
    "check_answers",
    "check_same_classes",
    "classes_of",
    "labels_of",
    "probabilities_of",
    "refuse_one_class",
    "uniform_weights",
]


def classes_of(y, name="y"):
    """Sorted labels that occur in `y`, checked, and the place of each of its entries in them."""
    check_classification_targets(np.ravel(y))
    try:
        return np.unique(y, return_inverse=True)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in np.ravel(y)})
        raise ValueError(f"labels in {name} must be of one kind, got {kinds}.") from None


def refuse_one_class(classes, estimator):
    """Raise unless there are two classes or more."""
    if len(classes) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs samples of at least 2 classes, got one class: "
            f"{classes[0]!r}."
        )


def check_same_classes(classes, estimator):
    """Raise ValueError unless they are those of the network that a fit goes on from."""
    if not np.array_equal(classes, estimator.classes_):
        raise ValueError(
            f"classes {classes} differ from those of the fitted network, {estimator.classes_}."
        )


def check_answers(answers, estimator):
    """Raise DivergenceError where the answer to an input is not finite.

    NaN has a largest entry for `argmax`, and would be read as the first class.
    """
    lost = ~np.isfinite(answers).reshape(len(answers), -1).all(1)
    if lost.any():
        raise DivergenceError(
            f"{type(estimator).__name__} has no finite answer to {lost.sum()} of {len(lost)} "
            f"inputs, first in row {lost.argmax()}. Are they on the scale of those of training?"
        )
    return answers


def labels_of(decision, classes):
    """Most probable classes, from logits (..., n_classes) or log odds (n_samples,)."""
    best = (decision > 0).astype(int) if decision.ndim == 1 else decision.argmax(-1)
    return classes[best]


def probabilities_of(decision):
    """Probabilities of the classes, from logits (..., n_classes) or log odds (n_samples,)."""
    if decision.ndim == 1:
        decision = np.column_stack([np.zeros_like(decision), decision])
    return softmax(decision, axis=-1)


class LogitsMixin:
    classes_: np.ndarray
    decision_function: Function  # of the estimator

    """Labels and probabilities of classifiers that have a `decision_function`."""

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Most probable class of every input.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs, as in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Of every step, shape (n_samples, n_steps), in networks that are fitted to such labels.
        """
        return labels_of(self.decision_function(X), self.classes_)

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs, as in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            With an axis of steps before the last in networks that are fitted to labels of every
            step.
        """
        return probabilities_of(self.decision_function(X))


def uniform_weights(rng, n_from, *shape):
    """Between plus and minus the inverse root of the number of inputs, float32."""
    return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(n_from))
