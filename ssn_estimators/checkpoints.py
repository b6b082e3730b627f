"""`Checkpoint`: fits that go on where they were, however they ended."""

from __future__ import annotations

import pickle
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import versions
from ssn_estimators.persistence import read_values, write_values

if TYPE_CHECKING:
    from typing import Any

    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import StrPath

__all__ = ["Checkpoint"]


def _is_count(value):
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


class Checkpoint:
    """Callback that writes the state of a fit to a folder, from which the fit goes on.

    A fit that was killed, at any time and in any way, and is started again with the same data and
    parameters, ends with the network that it would have ended with: bit for bit on the same
    machine. Without a file in the folder it starts from the beginning. A fit that ends removes its
    file, but for one that was interrupted with Ctrl-C: it keeps what it has reached, and goes on
    from its last checkpoint if it is started again.

    Give it to the `set_callbacks` of an estimator that is trained in steps. :func:`fit_many` takes
    a folder for all of its networks.

    Parameters
    ----------
    folder : str or path-like
        Is made if it is not there. Estimators of one class need a folder each.
    every : int, default=50
        Steps of the optimiser between two checkpoints; there is another at the start of every
        stage of growth.

    Raises
    ------
    ValueError
        In `fit`, if the folder holds the checkpoint of a fit with other data, parameters or
        versions, or a file that cannot be read.

    Notes
    -----
    Files hold arrays and JSON, no code. They are written aside and renamed, so that there is never
    half of one. What comes before the first step (a generative model, an encoder, the search for
    a stable pair) is done again.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from ssn_estimators import Checkpoint, SSNClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> folder = tempfile.mkdtemp()
    >>> ssn = SSNClassifier(max_iter=20, growth_iter=5, random_state=0)
    >>> ssn.set_callbacks(Checkpoint(folder)).fit(X, y).n_iter_
    30
    """

    def __init__(self, folder: StrPath, *, every: int = 50) -> None:
        if not _is_count(every):
            raise ValueError(f"every must be a positive integer, got {every!r}.")
        self.folder, self.every = folder, int(every)

    # scikit-learn's protocol: the state of a fit is more than the estimator that it would give
    # what scikit-learn calls, and what a checkpoint does not need: fits ask for `checkpoint_record`

    def setup(self, estimator: object, context: object) -> None:
        """Nothing: a hook of scikit-learn's callbacks.

        Parameters
        ----------
        estimator, context : object
            Not looked at.
        """

    def teardown(self, estimator: object, context: object) -> None:
        """Nothing: a hook of scikit-learn's callbacks.

        Parameters
        ----------
        estimator, context : object
            Not looked at.
        """

    def on_fit_task_begin(self, estimator: object, context: object) -> None:
        """Nothing: a hook of scikit-learn's callbacks.

        Parameters
        ----------
        estimator, context : object
            Not looked at.
        """

    def on_fit_task_end(self, estimator: object, context: object) -> bool:
        """Do not stop the fit: a hook of scikit-learn's callbacks.

        Parameters
        ----------
        estimator, context : object
            Not looked at.

        Returns
        -------
        stop : bool
            False.
        """
        return False

    def checkpoint_record(self, estimator: BaseEstimator, data: object) -> Any:
        """The record of a fit to these data, with what it goes on from.

        Parameters
        ----------
        estimator : estimator
            The one that is fitted.
        data : object
            What it is fitted to.
        """
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{type(estimator).__name__}.checkpoint"
        what = [type(estimator).__name__, versions(), estimator.get_params(), data]
        try:
            fingerprint = joblib.hash(what)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"a checkpoint needs parameters and data that can be pickled: {error}"
            ) from error
        saved = None
        if path.exists():
            saved = read_values(path)
            if not isinstance(saved, dict) or saved.get("fingerprint") != fingerprint:
                raise ValueError(
                    f"{path} is the checkpoint of a fit with other data, parameters or versions. "
                    "Go on with the same ones, remove it, or take another folder."
                )
        return _Record(path, fingerprint, self.every, saved)


class _Record:
    """Where one fit notes its state.

    Attributes
    ----------
    saved : dict or None
        The state that it goes on from.
    """

    def __init__(self, path, fingerprint, every, saved):
        self.path, self.fingerprint, self.every, self.saved = path, fingerprint, every, saved

    def generator(self, random_state):
        """The source of the fit's random numbers, as it was when the fit was first begun."""
        if self.saved is None:
            rng = check_random_state(random_state)
        elif random_state is None:  # not the global generator, which is not ours to change
            rng = np.random.RandomState()
        else:
            rng = check_random_state(random_state)
        if self.saved is not None:
            rng.set_state(self.saved["begin"].get_state())
        self.begin = _copied(rng)
        return rng

    def due(self, step):
        return step % self.every == 0

    def write(self, rng, state):
        head = {"fingerprint": self.fingerprint, "begin": self.begin, "rng": _copied(rng)}
        write_values(head | state, self.path)

    def end(self):
        self.path.unlink(missing_ok=True)


def _copied(rng):
    copy = np.random.RandomState()
    copy.set_state(rng.get_state())
    return copy
