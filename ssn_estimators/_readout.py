"""What classifiers make of logits, and how matrices that are trained begin."""

import numpy as np
from scipy.special import softmax

__all__ = [
    "LogitsMixin",
    "labels_of",
    "probabilities_of",
    "refuse_one_class",
    "uniform_weights",
]


def refuse_one_class(classes, estimator):
    """Raise unless there are two classes or more."""
    if len(classes) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs samples of at least 2 classes, got one class: "
            f"{classes[0]!r}."
        )


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
    """Labels and probabilities of classifiers that have a `decision_function`."""

    def predict(self, X):
        """Most probable class of every input.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        labels : ndarray of shape (n_samples,)
        """
        return labels_of(self.decision_function(X), self.classes_)

    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        return probabilities_of(self.decision_function(X))


def uniform_weights(rng, n_from, *shape):
    """Between plus and minus the inverse root of the number of inputs, float32."""
    return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(n_from))
