"""Decisions that animals are trained to make, with an answer in every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import COUNT, RANDOM, validate_params

if TYPE_CHECKING:
    from ssn_estimators._typing import RandomState

__all__ = ["make_contextual_decision", "make_delayed_match", "make_two_alternatives"]

TASK_STEPS = 8  # of 100 ms
CHANNEL_NOISE = 0.1  # standard deviation in a step


@validate_params(n_samples=COUNT, random_state=RANDOM)
def make_two_alternatives(
    n_samples: int = 1000, *, random_state: RandomState = None
) -> tuple[np.ndarray, np.ndarray]:
    """Perceptual decision between two alternatives: which of two inputs is stronger?

    Seven steps of 100 ms show both, a last one asks. Inputs are fixation (never on), and
    two channels of mean 0.5 plus or minus half the coherence, 0 to 51.2%, with normal noise of
    standard deviation 0.1. In a fifth of the trials there is nothing to see.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of trials.
    random_state : int, RandomState instance or None, default=None
        Source of all trials.

    Returns
    -------
    X : ndarray of shape (n_samples, 8 * 3)
        Step after step.
    y : ndarray of shape (n_samples, 8), int
        0 in all steps but the last, 1 or 2 there.

    References
    ----------
    .. [1] Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2024). How connectivity
       structure shapes rich and lazy learning in neural circuits. ICLR. The task is
       PerceptualDecisionMaking of the library NeuroGym.
    """
    rng = check_random_state(random_state)
    side = rng.randint(2, size=n_samples)
    coherence = rng.choice([0, 6.4, 12.8, 25.6, 51.2], n_samples) / 200
    X = np.zeros((n_samples, TASK_STEPS, 3))
    for channel in (0, 1):
        sign = np.where(side == channel, 1, -1)
        X[:, :-1, 1 + channel] = 0.5 + (sign * coherence)[:, None]
    X[:, :-1, 1:] += CHANNEL_NOISE * rng.standard_normal((n_samples, TASK_STEPS - 1, 2))
    return X.reshape(n_samples, -1), _at_the_end(side + 1)


@validate_params(n_samples=COUNT, random_state=RANDOM)
def make_delayed_match(
    n_samples: int = 1000, *, random_state: RandomState = None
) -> tuple[np.ndarray, np.ndarray]:
    """Delayed match to sample: are two stimuli, five steps apart, the same?

    Inputs are fixation, on until the last step, and two channels, (1, 0) or (0, 1) in the first
    step (sample) and the seventh (test), with normal noise of standard deviation 0.1. The
    last step asks.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of trials.
    random_state : int, RandomState instance or None, default=None
        Source of all trials.

    Returns
    -------
    X : ndarray of shape (n_samples, 8 * 3)
        Step after step.
    y : ndarray of shape (n_samples, 8), int
        0 in all steps but the last; there 1 if they match and 2 if not.

    References
    ----------
    .. [1] Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2024). How connectivity
       structure shapes rich and lazy learning in neural circuits. ICLR. The task is
       DelayMatchSample of the library NeuroGym.
    """
    rng = check_random_state(random_state)
    sample, test = rng.randint(2, size=(2, n_samples))
    X = np.zeros((n_samples, TASK_STEPS, 3))
    X[:, :-1, 0] = 1.0
    everyone = np.arange(n_samples)
    for step, shown in ((0, sample), (TASK_STEPS - 2, test)):
        X[everyone, step, 1 + shown] = 1.0
        X[:, step, 1:] += CHANNEL_NOISE * rng.standard_normal((n_samples, 2))
    return X.reshape(n_samples, -1), _at_the_end(np.where(sample == test, 1, 2))


@validate_params(n_samples=COUNT, random_state=RANDOM)
def make_contextual_decision(
    n_samples: int = 1000, *, random_state: RandomState = None
) -> tuple[np.ndarray, np.ndarray]:
    """Context-dependent decision: which input is stronger, in the modality that counts?

    Two steps show two modalities of two channels each, with independent sides and coherences
    of 5, 15 or 50% and normal noise of standard deviation 0.1; five steps later the last one
    asks. One of two more channels is on all the time and says which modality counts.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of trials.
    random_state : int, RandomState instance or None, default=None
        Source of all trials.

    Returns
    -------
    X : ndarray of shape (n_samples, 8 * 7)
        Step after step: fixation (never on), both modalities, cue.
    y : ndarray of shape (n_samples, 8), int
        0 in all steps but the last, 1 or 2 there.

    References
    ----------
    .. [1] Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2024). How connectivity
       structure shapes rich and lazy learning in neural circuits. ICLR. The task is
       ContextDecisionMaking of the library NeuroGym, with an explicit context.
    """
    rng = check_random_state(random_state)
    context = rng.randint(2, size=n_samples)
    sides = rng.randint(2, size=(n_samples, 2))
    coherence = rng.choice([5, 15, 50], (n_samples, 2)) / 200
    X = np.zeros((n_samples, TASK_STEPS, 7))
    for modality in (0, 1):
        for channel in (0, 1):
            sign = np.where(sides[:, modality] == channel, 1, -1)
            mean = 0.5 + sign * coherence[:, modality]
            noise = CHANNEL_NOISE * rng.standard_normal((n_samples, 2))
            X[:, :2, 1 + 2 * modality + channel] = mean[:, None] + noise
    everyone = np.arange(n_samples)
    X[everyone, :, 5 + context] = 1.0
    return X.reshape(n_samples, -1), _at_the_end(sides[everyone, context] + 1)


def _at_the_end(decision):
    y = np.zeros((len(decision), TASK_STEPS), dtype=int)
    y[:, -1] = decision
    return y
