"""Sequences with one answer: the most frequent word, two pulses that differ, digits by row."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    NOT_NEGATIVE,
    POSITIVE,
    RANDOM,
    Interval,
    count_steps,
    validate_params,
)

if TYPE_CHECKING:
    from ssn_estimators._typing import RandomState

__all__ = [
    "load_digits_by_row",
    "make_evidence_integration",
    "make_temporal_xor",
    "make_working_memory",
]


@validate_params(
    n_samples=COUNT,
    n_words=COUNT,
    n_inputs=COUNT,
    n_classes=[Interval(Integral, 2, MOST, closed="both")],
    delay=[Interval(Integral, 0, MOST, closed="both")],
    uniform_counts=["boolean"],
    random_state=RANDOM,
)
def make_evidence_integration(
    n_samples: int = 1000,
    *,
    n_words: int = 50,
    n_inputs: int = 50,
    n_classes: int = 3,
    delay: int = 0,
    uniform_counts: bool = False,
    random_state: RandomState = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of words for one of several options; the most frequent option wins.

    Words are random binary vectors over 5: one for each class, one that stands for nothing,
    and one that ends every sequence. Sequences in which two options are equally frequent are
    left out [1]_.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of sequences.
    n_words : int, default=50
        Words of a sequence, the delay and the end marker included.
    n_inputs : int, default=50
        Numbers of a word.
    n_classes : int, default=3
        Options.
    delay : int, default=0
        Words of zeros before the end marker.
    uniform_counts : bool, default=False
        Whether all counts of the options are equally likely, as in the published code, rather than
        all sequences. Most margins are then wide: of 49 words, the last 20 suffice for 87.6% of the
        answers, instead of 62.2%.
    random_state : int, RandomState instance or None, default=None
        Source of words and sequences. Sequences drawn at once share their words; split them
        to get training and test data.

    Returns
    -------
    X : ndarray of shape (n_samples, n_words * n_inputs)
        Word after word.
    y : ndarray of shape (n_samples,), int
        The most frequent option.

    References
    ----------
    .. [1] Hazelden, Liu, Shlizerman & Shea-Brown (2023). Evolutionary algorithms as an
       alternative to backpropagation for supervised training of biophysical neural networks
       and neural ODEs. arXiv:2311.10869. As in its first author's public code.
    """
    n_evidence = n_words - delay - 1
    if n_evidence < 1:
        raise ValueError(
            f"n_words={n_words} leaves no evidence before a delay of {delay} words and an end."
        )
    rng = check_random_state(random_state)
    words = rng.randint(0, 2, (n_classes + 2, n_inputs)) / 5
    drawn, labels, n_found = [], [], 0
    while n_found < n_samples:
        if uniform_counts:  # as those of words of which the shares are uniform
            shares = rng.dirichlet(np.ones(n_classes + 1), n_samples)
            bounds = np.cumsum(shares, axis=1)[:, None, :-1]
            sequences = (rng.random_sample((n_samples, n_evidence, 1)) > bounds).sum(2)
        else:
            sequences = rng.randint(0, n_classes + 1, (n_samples, n_evidence))
        counts = (sequences[:, :, None] == np.arange(n_classes)).sum(1)
        first, second = np.sort(counts, axis=1)[:, :-3:-1].T
        drawn.append(sequences[first > second])
        labels.append(counts[first > second].argmax(1))
        n_found += len(labels[-1])
    sequences, y = np.concatenate(drawn)[:n_samples], np.concatenate(labels)[:n_samples]
    end = np.broadcast_to(words[-1], (n_samples, 1, n_inputs))
    silence = np.zeros((n_samples, delay, n_inputs))
    return np.concatenate([words[sequences], silence, end], axis=1).reshape(n_samples, -1), y


def make_working_memory(
    n_samples: int = 1000,
    *,
    n_words: int = 50,
    n_inputs: int = 50,
    n_classes: int = 3,
    delay: int = 20,
    uniform_counts: bool = False,
    random_state: RandomState = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Evidence integration with a silent delay before the end marker.

    Parameters
    ----------
    n_samples, n_words, n_inputs, n_classes, uniform_counts, random_state
        See :func:`make_evidence_integration`.
    delay : int, default=20
        Words of zeros before the end marker.

    Returns
    -------
    X : ndarray of shape (n_samples, n_words * n_inputs)
    y : ndarray of shape (n_samples,), int
    """
    return make_evidence_integration(
        n_samples,
        n_words=n_words,
        n_inputs=n_inputs,
        n_classes=n_classes,
        delay=delay,
        uniform_counts=uniform_counts,
        random_state=random_state,
    )


@validate_params(
    n_samples=COUNT,
    delay=NOT_NEGATIVE,
    pulse=POSITIVE,
    wait=NOT_NEGATIVE,
    dt=POSITIVE,
    noise=NOT_NEGATIVE,
    random_state=RANDOM,
)
def make_temporal_xor(
    n_samples: int = 1000,
    *,
    delay: float = 500.0,
    pulse: float = 100.0,
    wait: float = 200.0,
    dt: float = 20.0,
    noise: float = 0.0,
    random_state: RandomState = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Two pulses, one after the other: do they differ?

    A trial is a pulse of 1 or -1, a delay, a second pulse and a wait for the answer, as in [1]_. No
    linear function of the input tells the classes apart, and none of the present alone.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of trials; the four pairs of pulses are as frequent as each other.
    delay : float, default=500.0
        Time between the pulses, in ms.
    pulse : float, default=100.0
        Duration of each, in ms.
    wait : float, default=200.0
        Time after the second, in ms.
    dt : float, default=20.0
        Time step in ms.
    noise : float, default=0.0
        Standard deviation of normal noise in every step.
    random_state : int, RandomState instance or None, default=None
        Source of all trials.

    Returns
    -------
    X : ndarray of shape (n_samples, n_timesteps, 1)
    y : ndarray of shape (n_samples,), int
        1 if the pulses differ, otherwise 0.

    Raises
    ------
    ValueError
        If a pulse is shorter than half a step.

    References
    ----------
    .. [1] Kim, Li & Sejnowski (2019). Simple framework for constructing functional spiking
       recurrent neural networks. PNAS 116, 22811-22820.

    Examples
    --------
    >>> from ssn_estimators.datasets import make_temporal_xor
    >>> X, y = make_temporal_xor(8, random_state=0)
    >>> X.shape, y.mean()
    ((8, 45, 1), np.float64(0.5))
    """
    on, off, after = (
        count_steps(time, dt, name)
        for time, name in ((pulse, "pulse"), (delay, "delay"), (wait, "wait"))
    )
    if on < 1:
        raise ValueError(f"pulse={pulse:g} ms is shorter than half a step of dt={dt:g} ms.")
    rng = check_random_state(random_state)
    first, second = np.divmod(rng.permutation(n_samples) % 4, 2)
    X = np.zeros((n_samples, 2 * on + off + after, 1))
    for begin, sign in ((0, first), (on + off, second)):
        X[:, begin : begin + on, 0] = (2 * sign - 1)[:, None]
    if noise:
        X += noise * rng.standard_normal(X.shape)
    return X, (first != second).astype(int)


def load_digits_by_row() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's handwritten digits as sequences: eight rows of eight pixels, from above.

    Returns
    -------
    X : ndarray of shape (1797, 8, 8)
        Between 0 and 1.
    y : ndarray of shape (1797,), int
        The digits.

    See Also
    --------
    sklearn.datasets.load_digits : The images.

    Examples
    --------
    >>> from ssn_estimators.datasets import load_digits_by_row
    >>> X, y = load_digits_by_row()
    >>> X.shape
    (1797, 8, 8)
    """
    digits = load_digits()
    return digits.images / digits.images.max(), digits.target
