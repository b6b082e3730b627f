"""What classifiers make of logits, and how matrices that are trained begin."""

import numpy as np
from scipy.special import softmax

__all__ = ["labels_of", "probabilities_of", "uniform_weights"]


def labels_of(decision, classes):
    """Most probable classes, from logits (..., n_classes) or log odds (n_samples,)."""
    best = (decision > 0).astype(int) if decision.ndim == 1 else decision.argmax(-1)
    return classes[best]


def probabilities_of(decision):
    """Probabilities of the classes, from logits (..., n_classes) or log odds (n_samples,)."""
    if decision.ndim == 1:
        decision = np.column_stack([np.zeros_like(decision), decision])
    return softmax(decision, axis=-1)


def uniform_weights(rng, n_from, *shape):
    """Between plus and minus the inverse root of the number of inputs, float32."""
    return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(n_from))
