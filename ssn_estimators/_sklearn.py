"""The one place that touches what scikit-learn may still change: callbacks and private names."""

from __future__ import annotations

import functools
import inspect
import platform
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from numbers import Integral, Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import sklearn
import torch
from sklearn.base import BaseEstimator as _BaseEstimator
from sklearn.base import _fit_context
from sklearn.callback import CallbackSupportMixin, ProgressBar
from sklearn.callback import with_callbacks as _with_callbacks
from sklearn.callback._callback_support import callback_management_context
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils._param_validation import validate_params as _validate_params
from sklearn.utils.validation import check_array as _check_array
from sklearn.utils.validation import check_is_fitted
from sklearn.utils.validation import validate_data as _validate_data

from ssn_estimators._torch import MOST, on_cpu

if TYPE_CHECKING:
    from ssn_estimators._typing import Decorated

__all__ = [
    "COUNT",
    "DOCUMENTATION",
    "MOST",
    "NOT_NEGATIVE",
    "NUMBER",
    "POSITIVE",
    "RANDOM",
    "BaseEstimator",
    "CallbackSupportMixin",
    "FitProgress",
    "HasMethods",
    "Interval",
    "OnlyWith",
    "StrOptions",
    "check_array",
    "check_matplotlib_support",
    "count_steps",
    "fit_context",
    "fit_contexts",
    "record_of",
    "unwrapped",
    "validate_data",
    "validate_params",
    "versions",
    "with_callbacks",
]

DOCUMENTATION = "https://ssn-estimators.readthedocs.io/en/stable"  # where the site is


class OnlyWith(NamedTuple):
    """When a parameter counts: if another one is so."""

    other: str
    counts: Callable  # of its value
    how: str


class BaseEstimator(_BaseEstimator):
    """Scikit-learn's, whose pickles know the version of this package.

    It warns of parameters that are set, but count only together with others.
    """

    _only_with: dict = {}  # by name, an `OnlyWith`

    # where the "?" of the representation in notebooks leads
    _doc_link_module = "ssn_estimators"
    _doc_link_template = f"{DOCUMENTATION}/generated/ssn_estimators.{{estimator_name}}.html"

    def _heed_ignored(self):
        defaults = inspect.signature(type(self)).parameters
        for name, (other, counts, how) in self._only_with.items():
            if name not in defaults or other not in defaults:  # of a subclass
                continue
            value, usual = getattr(self, name), defaults[name].default
            if not _alike(value, usual) and not counts(getattr(self, other)):
                warnings.warn(
                    f"{type(self).__name__} ignores {name}={value!r}: it counts with {how} only.",
                    UserWarning,
                    stacklevel=4,
                )

    def __getstate__(self):
        return dict(super().__getstate__(), _package_version=version("ssn_estimators"))

    def __setstate__(self, state):
        state = dict(state)
        wrote, now = state.pop("_package_version", "an earlier version"), version("ssn_estimators")
        if wrote != now:
            warnings.warn(
                f"This {type(self).__name__} was pickled by ssn_estimators {wrote}, and this is "
                f"{now}: check that it answers as before.",
                UserWarning,
                stacklevel=2,
            )
        super().__setstate__(self._of_today(state))

    @classmethod
    def _of_today(cls, state):
        """State that was saved before there were all parameters and attributes of today."""
        new = getattr(cls, "_new_parameters", ())
        if not isinstance(new, dict):  # what they default to is what was done before
            known = inspect.signature(cls).parameters
            new = {name: known[name].default for name in new}
        state = new | state
        new = getattr(cls, "_new_attributes", {}) if "n_features_in_" in state else {}
        return new | state


def _alike(value, usual):
    if value is usual:
        return True
    if isinstance(usual, (tuple, list)) and isinstance(value, (tuple, list)):
        return list(value) == list(usual)
    return np.ndim(value) == 0 and value == usual


class Interval(_Interval):
    """Scikit-learn's; True and False are no numbers in it, nor what arrays cannot hold."""

    def is_satisfied_by(self, val):
        if isinstance(val, (bool, np.bool_)) or (isinstance(val, int) and abs(val) >= 2**63):
            return False
        return super().is_satisfied_by(val)


# Constraints of parameters
COUNT = [Interval(Integral, 1, MOST, closed="both")]
NUMBER = [Interval(Real, None, None, closed="neither")]
POSITIVE = [Interval(Real, 0, None, closed="neither")]
NOT_NEGATIVE = [Interval(Real, 0, None, closed="left")]
RANDOM = ["random_state"]


def count_steps(time, dt, name):
    """A time as a number of steps; ValueError if nobody could wait for as many."""
    n_steps = time / dt
    if not n_steps <= MOST:
        raise ValueError(
            f"{name}={time:g} ms takes {n_steps:.3g} steps of {dt:g} ms, more than can be "
            "simulated."
        )
    return round(n_steps)


def validate_params(**constraints) -> Callable[[Decorated], Decorated]:
    """Scikit-learn's check of the parameters of a function; errors name the parameter."""
    checked = _validate_params(constraints, prefer_skip_nested_validation=True)

    def decorate(function):
        validated = checked(function)

        @functools.wraps(function)
        def whole(*args, **kwargs):
            with _same_config():
                return validated(*args, **kwargs)

        return whole

    return decorate


@contextmanager
def _same_config():
    """Scikit-learn's settings are left as they were.

    It turns checks of parameters off while one is done, and Ctrl-C in its own `finally` would leave
    them off: for all estimators, until Python ends.
    """
    config = sklearn.get_config()
    try:
        yield
    finally:
        sklearn.set_config(**config)


def with_callbacks(fit: Decorated) -> Decorated:
    """Scikit-learn's decorator of `fit`; type checkers see what is decorated."""
    return _with_callbacks(fit)


def fit_context(*, prefer_skip_nested_validation) -> Callable[[Decorated], Decorated]:
    """Scikit-learn's decorator of `fit` and `partial_fit`, and what all of ours need."""

    def decorate(fit):
        @functools.wraps(fit)
        def heeding(estimator, *args, **kwargs):
            estimator._heed_ignored()  # of parameters that are valid
            return fit(estimator, *args, **kwargs)

        validated = _fit_context(prefer_skip_nested_validation=prefer_skip_nested_validation)(
            heeding
        )

        @functools.wraps(fit)
        def whole(estimator, *args, **kwargs):
            with _all_or_nothing(estimator):
                return validated(estimator, *args, **kwargs)

        return whole

    return decorate


LARGEST = {np.dtype(np.float64): 1e150, np.dtype(np.float32): 1e15}  # squares, and sums of many


def validate_data(estimator, *arrays, dtype=(np.float64, np.float32), squared=False, **options):
    """Scikit-learn's, with rows of floats side by side in memory.

    Sums over data that lie otherwise, as those of data frames, round differently. Where data are
    to be squared, they are refused if that is too large, or in a fit too small. `squared` is the
    largest value, where squares are multiplied further, and "in units of the largest" where values
    are divided by that first.
    """
    with _of_numbers("X"):
        valid = _validate_data(estimator, *arrays, dtype=dtype, order="C", **options)
    if squared:
        X = valid[0] if isinstance(valid, tuple) else valid
        most = LARGEST[X.dtype]
        if not isinstance(squared, (bool, str)):
            most = min(most, squared)
        scaled = isinstance(squared, str) or not options.get("reset", True)
        check_squares(X, "X", most, 0.0 if scaled else 1 / most)
    return valid


def check_squares(array, name, largest=None, smallest=0.0):
    """Refuse values whose squares could not be added up, or would all be 0 though they are not."""
    largest = LARGEST[array.dtype] if largest is None else largest
    found = float(max(array.max(initial=0), -array.min(initial=0)))
    if found > largest or 0 < found < smallest:
        raise ValueError(
            f"{name} has values of up to {found:.3g}, whose squares are too "
            f"{'large' if found > largest else 'small'} for numbers of this precision; give it "
            "other units."
        )


def check_array(array, *, input_name, **options):
    """Scikit-learn's, whose errors name the array."""
    with _of_numbers(input_name):
        return _check_array(array, input_name=input_name, **options)


NOT_NUMBERS = (  # how messages of NumPy begin, which say neither what nor where
    "float() argument must be",
    "could not convert",
    "setting an array element",
    "only 0-dimensional arrays",
    "int too large",
)


@contextmanager
def _of_numbers(name):
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        if not str(error).startswith(NOT_NUMBERS):
            raise
        kind = ValueError if isinstance(error, OverflowError) else type(error)
        raise kind(f"{name} must be an array of numbers: {error}") from error


@contextmanager
def fit_contexts(estimator):
    """What `fit_context` does around a fit, where fits are not calls of their own."""
    estimator._validate_params()
    estimator._heed_ignored()
    with callback_management_context(estimator), _all_or_nothing(estimator):
        yield


@contextmanager
def _all_or_nothing(estimator):
    """A fit with gradients, also where the caller has none; one that fails leaves no trace."""
    before = dict(vars(estimator))
    try:
        with _same_config(), torch.inference_mode(False), torch.enable_grad(), on_cpu():
            yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def unwrapped(estimator, X=None):
    """What fitted pipelines and searches end with, however nested, and the inputs as it gets them.

    Parameters
    ----------
    estimator : estimator, Pipeline or search
        A search is asked for its best estimator.
    X : array-like, default=None
        Inputs, which the steps passed on the way transform.

    Returns
    -------
    estimator : estimator
        Whether it is fitted is not looked at.
    X : array-like or None

    Raises
    ------
    ValueError
        If a search has not kept its best estimator.
    NotFittedError
        If a search, or a step that has to transform, is not fitted.
    """
    while True:
        if isinstance(estimator, Pipeline):
            if X is not None and len(estimator) > 1:
                X = estimator[:-1].transform(X)
            estimator = estimator[-1]
        elif isinstance(estimator, BaseSearchCV):
            if estimator.refit is False:
                raise ValueError(
                    f"this {type(estimator).__name__} has no best estimator to look at, because of "
                    "refit=False: fit it with refit=True, or give an estimator with its "
                    "best_params_ that is fitted."
                )
            check_is_fitted(estimator)
            estimator = estimator.best_estimator_
        else:
            return estimator, X


def record_of(estimator, data):
    """Where a fit to these data notes its state, if there is a `Checkpoint` among its callbacks."""
    for callback in getattr(estimator, "_skl_callbacks", []):
        if hasattr(callback, "checkpoint_record"):
            return callback.checkpoint_record(estimator, data)
    return None


def _heed_notebook(callbacks):
    """Warn where rich, which draws the bars, could show none, and names no way out."""
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        in_notebook = import_module("rich").get_console().is_jupyter
        if in_notebook and find_spec("ipywidgets") is None:
            warnings.warn(
                "ProgressBar shows nothing in a notebook without ipywidgets: pip install "
                "ipywidgets, and restart the kernel. Or verbose=True says how the fit goes.",
                UserWarning,
                stacklevel=2,
            )


class FitProgress:
    """Tells scikit-learn's callbacks how far a fit has come: stages, then iterations.

    Parameters
    ----------
    estimator : estimator with CallbackSupportMixin
        The estimator being fitted.
    n_stages : int
        Number of stages.
    X, y : arrays
        Training data for callbacks that ask for it.
    attributes : callable
        From the state of the fit to the attributes of an estimator fitted so far.
    """

    def __init__(self, estimator, n_stages, X, y, attributes):
        self.estimator, self.data, self.attributes = estimator, {"X": X, "y": y}, attributes
        self.fit = estimator._init_callback_context(max_subtasks=n_stages)
        self.fit.call_on_fit_task_begin(estimator=estimator, **self.data)
        callbacks = getattr(estimator, "_skl_callbacks", [])
        self.listening = bool(callbacks)
        _heed_notebook(callbacks)

    def begin_again(self, n_stages):
        """There will be as many stages more than were announced."""
        self.fit.max_subtasks += n_stages

    def begin_stage(self, name, n_steps):
        self.stage = self.fit.subcontext(task_name=name, max_subtasks=n_steps)
        self.stage.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def step(self, state):
        """One iteration is done, and `state()` its outcome; True to stop the stage."""
        if not self.listening:
            return False
        iteration = self.stage.subcontext(task_name="iteration")
        iteration.call_on_fit_task_begin(estimator=self.estimator, **self.data)
        return self._end(iteration, state)

    def end_stage(self, state):
        """The stage is over; True to begin no further one."""
        return self._end(self.stage, state)

    def end(self, state):
        self._end(self.fit, lambda: state)

    def _end(self, context, state):
        return context.call_on_fit_task_end(
            estimator=self.estimator,
            reconstruction_attributes=lambda: self.attributes(state()),
            **self.data,
        )


def versions():
    """The versions that results depend on, in one line."""
    names = ("numpy", "scikit-learn", "torch")
    return ", ".join([f"Python {platform.python_version()}", *(f"{n} {version(n)}" for n in names)])
