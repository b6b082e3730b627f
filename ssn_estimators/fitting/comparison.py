"""Which of several circuits responses speak for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch

from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.fitting.data import errors_of, explained_variance, responses_of
from ssn_estimators.fitting.regressor import CircuitRegressor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ssn_estimators._typing import ArrayLike

__all__ = ["compare"]


def compare(
    models: Mapping[str, CircuitRegressor] | Sequence[CircuitRegressor],
    X: ArrayLike,
    y: ArrayLike,
    *,
    cv: Any = 5,
    sample_error: ArrayLike | None = None,
    perturbation: ArrayLike | None = None,
    sessions: ArrayLike | None = None,
    n_jobs: int | None = None,
) -> Bunch:
    r"""Compare circuits by what they explain of responses, and by information criteria.

    Each model is fitted anew to all conditions, and to those outside of each fold of a
    cross-validation, whose responses it then predicts. With p parameters and n responses

    .. math::
        \mathrm{BIC} = \chi^2 + p \ln n, \qquad \mathrm{AIC} = \chi^2 + 2 p

    up to a constant that is the same for all models. Without `sample_error`, when the variance of
    the responses is one more unknown, :math:`\chi^2` is the sum of squares, and these have
    :math:`n \ln (\chi^2 / n)` in its place. Parameters with a prior count as all others, and a
    prior's misfits do not.

    Parameters
    ----------
    models : dict of str to CircuitRegressor, or sequence of CircuitRegressor
        Fitted or not; they stay as they are. Those of a sequence are called "0", "1", ...
    X : array-like of shape (n_conditions, n_inputs)
        Inputs.
    y : array-like of shape (n_conditions,) or (n_conditions, n_outputs)
        Responses.
    cv : int, cross-validation generator or iterable, default=5
        Of conditions, as scikit-learn's ``check_cv`` takes it. Numbers are those of folds of
        successive conditions: give ``KFold(5, shuffle=True, random_state=0)`` if their order means
        something.
    sample_error, perturbation, sessions : array-like, default=None
        As in :meth:`.CircuitRegressor.fit`.
    n_jobs : int, default=None
        Number of processes over fits, as in joblib.

    Returns
    -------
    comparison : Bunch
        In the order of the models, as ``pandas.DataFrame`` takes it: `name`, `n_parameters`,
        `chi2`, `bic`, `aic` and `explained_variance` (of all responses, the mean over outputs), and
        `test_chi2` and `test_explained_variance` of responses that were predicted from other
        conditions. A model without a stable state under one of these has an infinite `test_chi2`,
        and a `test_explained_variance` of -inf.

    Raises
    ------
    ValueError
        If there is no model, one is not a `CircuitRegressor`, or a fit refuses the data, which
        must have responses of each output outside of each fold.
    DivergenceError
        If a model has no start with stable states.

    Examples
    --------
    Do the I cells of this circuit inhibit each other?

    >>> import numpy as np
    >>> from ssn_estimators import Circuit, CircuitRegressor
    >>> from ssn_estimators.fitting import compare
    >>> from ssn_estimators.inspection import steady_states
    >>> X = np.linspace(1.0, 30.0, 10)[:, None]
    >>> pair = Circuit([[1.0, -1.5], [1.2, 0.0]], n_excitatory=1, k=0.04)
    >>> noise = np.random.default_rng(0).normal(scale=0.1, size=(10, 2))
    >>> rates = steady_states(pair, X * [1.0, 1.0]).rates + noise
    >>> guesses = {"without": [[0.5, -1.0], [0.5, 0.0]], "with": [[0.5, -1.0], [0.5, -0.5]]}
    >>> models = {
    ...     name: CircuitRegressor(
    ...         Circuit(guess, n_excitatory=1, k=0.04), ["weights"], input_map=[[1.0], [1.0]],
    ...         n_starts=2, random_state=0,
    ...     )
    ...     for name, guess in guesses.items()
    ... }
    >>> found = compare(models, X, rates, sample_error=0.1)
    >>> found.name[np.argmin(found.bic)], found.n_parameters
    ('without', array([3, 4]))
    """
    models = _checked(models)
    Y, _ = responses_of(y, len(X))
    errors = errors_of(sample_error, Y)
    X = np.asarray(X)
    given = {"perturbation": perturbation, "sessions": sessions}
    options = {name: np.asarray(own) for name, own in given.items() if own is not None}
    folds = [test for _, test in check_cv(cv).split(X, Y)]
    parts = [None, *folds]
    known = sample_error is not None
    found = Parallel(n_jobs)(
        delayed(_predicted)(model, X, Y, errors if known else None, options, test)
        for model in models.values()
        for test in parts
    )
    columns = []
    for number in range(len(models)):
        whole, *held_out = found[number * len(parts) : (number + 1) * len(parts)]
        columns.append(_row(whole, held_out, folds, Y, errors, known))
    columns = {name: np.array([row[name] for row in columns]) for name in columns[0]}
    return Bunch(name=list(models), **columns)


def _checked(models):
    if not isinstance(models, Mapping):
        models = {str(number): model for number, model in enumerate(models)}
    if not models:
        raise ValueError("models is empty: there is nothing to compare.")
    for name, model in models.items():
        if not isinstance(model, CircuitRegressor):
            raise ValueError(f"models must be CircuitRegressor objects, got {name}: {model!r}.")
    return models


def _predicted(model, X, Y, errors, options, test):
    """Responses to conditions that were left out, NaN if there are none; of all without a test."""
    left = np.ones(len(X), bool)
    if test is not None:
        left[test] = False
    own = slice(None) if test is None else test
    model = clone(model).set_params(intervals="jacobian")  # which are not looked at
    fitted, asked = ({name: x[rows] for name, x in options.items()} for rows in (left, own))
    model.fit(X[left], Y[left], sample_error=None if errors is None else errors[left], **fitted)
    try:
        found = model.predict(X[own], **asked)
    except DivergenceError:
        found = np.full(Y[own].shape, np.nan)
    return found.reshape(Y[own].shape), len(model.values_)


def _row(whole, held_out, folds, Y, errors, known):
    predicted, n_parameters = whole
    n, chi2 = int(np.isfinite(Y).sum()), _chi2(Y, predicted, errors)
    misfit = chi2 if known else n * np.log(max(chi2, np.finfo(float).tiny) / n)
    tested = np.concatenate(folds)
    left_out = np.concatenate([found for found, _ in held_out])
    lost = np.isnan(left_out).any()
    gained = explained_variance(Y[tested], left_out)
    return {
        "n_parameters": n_parameters,
        "chi2": chi2,
        "bic": misfit + n_parameters * np.log(n),
        "aic": misfit + 2 * n_parameters,
        "explained_variance": explained_variance(Y, predicted).mean(),
        "test_chi2": np.inf if lost else _chi2(Y[tested], left_out, errors[tested]),
        "test_explained_variance": -np.inf if lost else gained.mean(),
    }


def _chi2(Y, predicted, errors):
    return float(np.nansum(((Y - predicted) / errors) ** 2))
