"""Weights of samples and of classes, samples that are equal, and those that are held out.

Where arrays with a row for each sample are passed on together, the last holds their weights.
"""

import numbers

import numpy as np
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight, check_consistent_length

from ssn_estimators._classifiers import classes_of
from ssn_estimators._sklearn import StrOptions

__all__ = [
    "CLASS_WEIGHT",
    "alike",
    "check_weights",
    "counting",
    "distinct",
    "hold_out",
    "joined",
    "of_labels",
    "share_right",
    "weights_of_labels",
]

CLASS_WEIGHT = [dict, StrOptions({"balanced"}), None]  # constraint of the parameter


def check_weights(sample_weight, X):
    """Weights of the rows of `X` as floats: finite, not negative and not all 0; None is 1."""
    weights = _check_sample_weight(sample_weight, X, dtype=float, ensure_non_negative=True)
    return _of_finite_sum(weights, "sample_weight")


def _of_finite_sum(weights, name):
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not 0 < total < np.inf:
        raise ValueError(f"{name} must not be all zero, nor add up to more than a float can hold.")
    return weights


def of_labels(class_weight, y, weights, more=()):
    """What the classes of labels count.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        Those that are not named count 1. "balanced" classes count as much as each other.
    y, weights : ndarrays of one shape
        Labels, and weights of their own.
    more : sequence, default=()
        Classes that may be named besides those of `y`.

    Returns
    -------
    factors : ndarray of that shape

    Raises
    ------
    ValueError
        If a class is named that there is not, or counts what is not a number of at least 0.
    """
    if class_weight is None:
        return np.ones(y.shape)
    classes, labels = classes_of(y)
    labels = labels.reshape(y.shape)
    if isinstance(class_weight, dict):
        unknown = set(class_weight) - set(classes.tolist()) - set(np.ravel(more).tolist())
        if unknown:
            raise ValueError(
                f"class_weight names {sorted(unknown, key=str)}, which are not among the classes "
                f"{classes}."
            )
        for label, value in class_weight.items():
            if not (isinstance(value, numbers.Real) and 0 <= value < np.inf):
                raise ValueError(
                    f"class_weight must be numbers of at least 0, got {value!r} for {label!r}."
                )
        return np.array([class_weight.get(label, 1.0) for label in classes.tolist()])[labels]
    counts = weights > 0
    present, factors = np.unique(labels[counts]), np.zeros(len(classes))
    factors[present] = compute_class_weight(
        class_weight, classes=present, y=labels[counts], sample_weight=weights[counts]
    )
    return factors[labels]


def weights_of_labels(estimator, X, y, sample_weight=None, more=()):
    """Weights of the labels of a classifier: those of samples, times those of classes."""
    weights = check_weights(sample_weight, X)
    if y.ndim == 2:  # of every step
        weights = np.repeat(weights[:, None], y.shape[1], axis=1)
    found = weights * of_labels(estimator.class_weight, y, weights, more)
    return _of_finite_sum(found, "sample_weight times class_weight")


def share_right(y, predicted, sample_weight=None):
    """Share of the labels `y`, one for each sample, that were predicted.

    ValueError unless there are as many labels and legal weights.
    """
    if y is None:
        raise ValueError("score requires y to be passed, but the target y is None.")
    y = column_or_1d(y, warn=True)
    check_consistent_length(predicted, y)
    weights = check_weights(sample_weight, predicted)
    return float(accuracy_score(y, predicted, sample_weight=weights))


def hold_out(estimator, rng, *arrays, stratify=None):
    """Parts of every array to train on and to hold out, one after the other.

    ValueError, which names the parameter, if there are too few samples.
    """
    fraction = estimator.validation_fraction
    try:
        return train_test_split(*arrays, test_size=fraction, stratify=stratify, random_state=rng)
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"early_stopping=True cannot hold out validation_fraction={fraction:g} of "
            f"{len(arrays[0])} samples: {reason}. Give more samples, another validation_fraction, "
            "or early_stopping=False."
        ) from error


def counting(*arrays):
    """Without the samples of weight 0."""
    counts = arrays[-1].reshape(len(arrays[-1]), -1).any(1)
    return arrays if counts.all() else tuple(array[counts] for array in arrays)


def alike(weights):
    """Whether all are the same."""
    return bool((weights == weights.flat[0]).all())


def distinct(*arrays):
    """Which samples differ from each other, in an order of their own.

    Parameters
    ----------
    *arrays : ndarrays
        With a row for each sample.

    Returns
    -------
    first : ndarray of int
        The first of each.
    which : ndarray of shape (n_samples,), int
        Of which of these every sample is one.
    """
    columns = [
        array if array.dtype.kind == "f" else np.unique(array, return_inverse=True)[1]
        for array in arrays
    ]
    rows = np.column_stack([column.reshape(len(arrays[0]), -1) for column in columns])
    rows = rows + 0.0  # no negative zeros
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    return np.unique(whole, return_index=True, return_inverse=True)[1:]


def joined(most, *arrays):
    """Samples with weights of a mean of 1; equal ones are one where all of them make one batch.

    An integer weight then is as good as so many copies. Larger data are left as they are: a batch
    in which one sample in a thousand weighs as much as all others says less than one of copies.

    Parameters
    ----------
    most : int
        Samples of a batch.
    *arrays : ndarrays

    Returns
    -------
    arrays : tuple
    """
    *known, weights = arrays
    for n in (2 * most, len(weights)):  # few rows tell where many are too many
        first, which = distinct(*(array[:n] for array in known))
        if len(first) > most:
            return *known, weights / weights.mean()
    sums = np.zeros((len(first), *weights.shape[1:]))
    np.add.at(sums, which, weights)
    if alike(sums):  # as without weights, in the order in which they came
        first = np.sort(first)
    return *(array[first] for array in known), sums / sums.mean()
