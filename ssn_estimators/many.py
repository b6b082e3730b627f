"""Many networks at once: one batch of simulations for all of them at every step."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

from sklearn.base import clone
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import fit_contexts
from ssn_estimators.checkpoints import Checkpoint
from ssn_estimators.training.side_by_side import run_together

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ssn_estimators._typing import ArrayLike, Estimator, RandomState, StrPath

__all__ = ["fit_many", "fit_networks"]


def fit_many(
    estimators: Sequence[Estimator],
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    checkpoint: StrPath | None = None,
    **fit_params: Any,
) -> list[Estimator]:
    """Fit estimators side by side on the same data, each in place and as by its own `fit`.

    At every step the simulations of all networks that have the same size and time grid are
    run as one batch, which fills a GPU, or all cores of a CPU, when one network does not. A
    network that diverges is led back alone. The results are those of fitting one after the
    other with the same `random_state`, but those of estimators that share a RandomState
    instance.

    Parameters
    ----------
    estimators : sequence of SSNClassifier, of SSNRegressor, or of SSNSampler
        Their parameters may differ: a sweep, an ensemble, a study of reliability.
    X : array-like of shape (n_samples, n_features)
        Training inputs.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Targets, if they are classifiers or regressors.
    checkpoint : str or path-like, default=None
        Folder in which every network gets a folder for its :class:`Checkpoint`: called again with
        the same arguments, all go on where they were.
    **fit_params
        What else their `fit` takes: validation data, weights of samples or target moments.

    Returns
    -------
    estimators : list
        The fitted estimators.

    Raises
    ------
    TypeError
        If an estimator does not train a network.
    ValueError
        If an estimator is named twice, or a parameter of one is not legal. Nothing has been
        fitted then.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ssn_estimators import SSNClassifier, fit_many
    >>> X, y = load_iris(return_X_y=True)
    >>> slow, fast = (
    ...     SSNClassifier(max_iter=20, growth_iter=5, learning_rate_init=rate, random_state=0)
    ...     for rate in (0.001, 0.01)
    ... )
    >>> [ssn.n_iter_ for ssn in fit_many([slow, fast], X, y)]
    [30, 30]
    """
    estimators = list(estimators)
    for estimator in estimators:
        if not hasattr(estimator, "_training"):
            raise TypeError(
                "fit_many trains SSNClassifiers, SSNRegressors or SSNSamplers, got "
                f"{type(estimator).__name__}; apply the other steps of a Pipeline to X first."
            )
    if len({id(estimator) for estimator in estimators}) < len(estimators):
        raise ValueError("an estimator was given more than once; use clones of it.")
    with ExitStack() as stack:
        for i, estimator in enumerate(estimators):
            if checkpoint is not None:
                stack.enter_context(_checkpointed(estimator, Path(checkpoint) / str(i)))
            stack.enter_context(fit_contexts(estimator))
        return run_together([e._training(X, y, **fit_params) for e in estimators])


@contextmanager
def _checkpointed(estimator, folder):
    """An estimator with a checkpoint beside its own callbacks."""
    before = getattr(estimator, "_skl_callbacks", [])
    estimator.set_callbacks(*before, Checkpoint(folder))
    try:
        yield
    finally:
        estimator.set_callbacks(*before)


def fit_networks(
    estimator: Estimator,
    X: ArrayLike,
    y: ArrayLike | None = None,
    n_networks: int = 10,
    *,
    random_state: RandomState = None,
    **fit_params: Any,
) -> list[Estimator]:
    """Fit networks that differ in their random state only.

    Parameters
    ----------
    estimator : SSNClassifier, SSNRegressor or SSNSampler
        Is cloned.
    X : array-like of shape (n_samples, n_features)
        Training inputs.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Targets, if it is a classifier or a regressor.
    n_networks : int, default=10
        Number of networks.
    random_state : int, RandomState instance or None, default=None
        Source of the networks' random states.
    **fit_params
        Further parameters of :func:`fit_many`.

    Returns
    -------
    networks : list
    """
    if not isinstance(n_networks, Integral) or n_networks < 1:
        raise ValueError(f"n_networks must be a positive integer, got {n_networks!r}.")
    seeds = check_random_state(random_state).randint(2**31 - 1, size=n_networks).tolist()
    networks = [clone(estimator).set_params(random_state=seed) for seed in seeds]
    return fit_many(networks, X, y, **fit_params)
