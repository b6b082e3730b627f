"""Trials of environments that others have written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ssn_estimators._sklearn import COUNT, RANDOM, validate_params

if TYPE_CHECKING:
    from typing import Any

    from ssn_estimators._typing import RandomState

__all__ = ["from_neurogym"]

LARGEST_SEED = 2**31 - 1


@validate_params(n_samples=COUNT, random_state=RANDOM)
def from_neurogym(
    env: Any, n_samples: int = 1000, *, random_state: RandomState = None, **options: Any
) -> Bunch:
    """Trials of an environment of the library NeuroGym, as data to learn from.

    Every trial is drawn by the environment's `new_trial`, with its observations and the right
    action in every step; nothing acts in it. NeuroGym need not be installed for what has the same
    attributes: `new_trial`, then `ob` and `gt` of this trial, and `dt`.

    Parameters
    ----------
    env : neurogym.TrialEnv, or wrappers of it
        As from ``neurogym.make("DelayMatchSample-v0")``.
    n_samples : int, default=1000
        Number of trials.
    random_state : int, RandomState instance or None, default=None
        From which the environment is seeded; None leaves its random numbers as they are.
    **options
        Of `new_trial`: what all trials are to have in common.

    Returns
    -------
    trials : :class:`~sklearn.utils.Bunch`
        With these attributes, 0 after the end of a trial:

        X : ndarray of shape (n_samples, n_timesteps, n_channels), float32
            Observations.
        y : ndarray of shape (n_samples, n_timesteps), int
            Right actions; float32 if they are not whole, or vectors, of shape (n_samples,
            n_timesteps, n_outputs).
        mask : ndarray of shape (n_samples, n_timesteps), float32
            1 until the end of a trial.
        lengths : ndarray of shape (n_samples,), int
            Steps of every trial.
        trials : list
            What the environment tells of every trial.
        dt : float
            Time step in ms.

    Raises
    ------
    TypeError
        If the environment has no trials.
    ValueError
        If a trial has no observations, or not one right action for each, or shapes change from
        trial to trial.

    References
    ----------
    .. [1] Molano-Mazon, Barbosa, Pastor-Ciurana, Fradera, Zhang, Forest, del Pozo Lerida, Ji-An,
       Cueva, de la Rocha, Narain & Yang (2022). NeuroGym: an open resource for developing and
       sharing neuroscience tasks. PsyArXiv, doi:10.31234/osf.io/aqc9n.

    Examples
    --------
    >>> import neurogym  # doctest: +SKIP
    >>> env = neurogym.make("DelayMatchSample-v0", dt=100)  # doctest: +SKIP
    >>> from_neurogym(env, 50, random_state=0).X.shape  # doctest: +SKIP
    (50, 32, 3)
    """
    outer = _with_trials(env)
    inner = getattr(env, "unwrapped", env)
    if random_state is not None:
        inner.seed(int(check_random_state(random_state).randint(LARGEST_SEED)))
    observations, actions, told = [], [], []
    for _ in range(n_samples):
        told.append(outer.new_trial(**options))
        seen, right = _shown(inner)
        observations.append(seen)
        actions.append(right)
    lengths = np.array([len(seen) for seen in observations])
    X = _padded(observations, lengths)
    y = _padded(actions, lengths)
    are_labels = y.ndim == 2 and bool((y == np.floor(y)).all())
    mask = np.arange(X.shape[1]) < lengths[:, None]
    return Bunch(
        X=X.astype(np.float32),
        y=y.astype(np.int64 if are_labels else np.float32),
        mask=mask.astype(np.float32),
        lengths=lengths,
        trials=told,
        dt=float(inner.dt),
    )


def _with_trials(env):
    """The environment, or what is in its wrappers, that draws trials."""
    while not callable(getattr(env, "new_trial", None)):
        if getattr(env, "env", None) is None:
            raise TypeError(
                f"env must be an environment with trials (a method new_trial), got {env!r}."
            )
        env = env.env
    return env


def _shown(env):
    """Copies of observations and right actions of the present trial, which are its to reuse."""
    seen, right = (getattr(env, name, None) for name in ("ob", "gt"))
    if seen is None or right is None or len(seen) == 0 or len(seen) != len(right):
        n_seen, n_right = (None if part is None else len(part) for part in (seen, right))
        raise ValueError(
            f"a trial of {type(env).__name__} needs observations (ob) and as many right actions "
            f"(gt), got {n_seen} and {n_right}."
        )
    seen, right = np.array(seen), np.array(right)
    return seen.reshape(len(seen), -1), right


def _padded(parts, lengths):
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ValueError(f"observations and actions must keep their shape, got {sorted(shapes)}.")
    padded = np.zeros((len(parts), lengths.max(), *parts[0].shape[1:]), np.result_type(*parts))
    for row, part in zip(padded, parts, strict=True):
        row[: len(part)] = part
    return padded
