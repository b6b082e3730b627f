"""`RNNClassifier`: a rate network without a cell type, to study how structure shapes learning."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import column_or_1d
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._classifiers import (
    LogitsMixin,
    check_answers,
    check_same_classes,
    classes_of,
    refuse_one_class,
    uniform_weights,
)
from ssn_estimators._sequences import SequencesMixin
from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    POSITIVE,
    BaseEstimator,
    Interval,
    check_squares,
    fit_context,
    validate_data,
    with_callbacks,
)
from ssn_estimators._stepwise import StepwiseMixin
from ssn_estimators._torch import (
    Minibatches,
    check_trained,
    in_blocks,
    in_pieces,
    labels_and_weights,
    loss_of_labels,
)
from ssn_estimators._weights import (
    CLASS_WEIGHT,
    counting,
    joined,
    share_right,
    weights_of_labels,
)
from ssn_estimators.initial_weights import initial_matrix, low_rank_init

if TYPE_CHECKING:
    from typing import Self

    from ssn_estimators._typing import ArrayLike, ClassWeight, Function, RandomState

__all__ = ["RNNClassifier"]

WEIGHTS = ("input_weights_", "recurrent_weights_", "readout_weights_")


class RNNClassifier(
    LogitsMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClassifierMixin,
    SequencesMixin,
    StepwiseMixin,
    BaseEstimator,
):
    r"""Rate network on sequences, trained by backpropagation through time.

    .. math::
        h_t = \lfloor (1 - \alpha) h_{t-1} + \alpha (W_\mathrm{in} x_t + W h_{t-1}) \rfloor_+,
        \qquad o_t = C h_t, \qquad \alpha = \mathrm{dt} / \tau,

    from :math:`h_0 = 0`, without biases. The network of studies of rich and lazy learning
    [1]_, in which the structure of the initial W is what is varied.

    Where all different samples make one batch, equal ones are one, of the sum of their weights: an
    integer weight is as good as so many copies.

    Parameters
    ----------
    n_hidden : int, default=300
        Number of cells.
    n_steps : int, default=None
        Steps of a sequence, which follow each other in the rows of `X`. None is one step, or as
        many as `X` has if it has an axis of them.
    init : None, array of shape (n_hidden, n_hidden) or callable, default=None
        Initial W[post, pre]; a callable is called with the number of cells and a RandomState.
        None draws independent normal weights of standard deviation
        :math:`1.25 / \sqrt n`.
    dt, tau : float, default=100.0 and 100.0
        Time step and time constant, in ms.
    max_iter : int, default=10000
        Optimiser steps.
    batch_size : int, default=32
        Samples of a step.
    learning_rate_init : float, default=0.003
        Rate of stochastic gradient descent.
    momentum : float, default=0.9
        Its momentum.
    class_weight : dict, "balanced" or None, default=None
        What the classes count, by label; those that are not named count 1. "balanced" ones count
        as much as each other, however many samples they have.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of the samples, stop when accuracy on
        them no longer grows, and keep what was best on them.
    validation_fraction : float, default=0.1
        Share of the samples held out, stratified by class unless labels are of
        every step.
    n_iter_no_change : int, default=10
        Looks at them (one every 50 steps) without progress before training stops.
    tol : float, default=1e-4
        Least growth of accuracy that counts as progress.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted network, whatever `init`.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, batches and the validation split.
    verbose : bool or int, default=False
        Whether to print a line every 50 steps; an int above 1 is another number of steps. See
        :ref:`verbose`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    input_weights_ : ndarray of shape (n_hidden, n_inputs)
    recurrent_weights_ : ndarray of shape (n_hidden, n_hidden)
    readout_weights_ : ndarray of shape (n_classes, n_hidden)
        Readout weights.
    loss_curve_ : list of float
        Cross-entropy in nats of every step.
    validation_scores_ : list of float or None
        Weighted accuracy on the held-out samples at every look.
    best_validation_score_ : float or None
        The largest of them.
    n_iter_ : int
        Steps so far.
    n_features_in_ : int
        Number of features seen during fit.

    See Also
    --------
    inspection.learning_regime : How much training has changed.

    References
    ----------
    .. [1] Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2024). How connectivity
       structure shapes rich and lazy learning in neural circuits. ICLR. Defaults as in its
       published code.

    Examples
    --------
    >>> from ssn_estimators import RNNClassifier
    >>> from ssn_estimators.datasets import make_delayed_match
    >>> X, y = make_delayed_match(200, random_state=0)
    >>> rnn = RNNClassifier(50, n_steps=8, max_iter=100, random_state=0).fit(X, y)
    >>> rnn.predict(X[:2]).shape
    (2, 8)
    """

    _parameter_constraints: dict = StepwiseMixin._stepwise_constraints | {
        "n_hidden": COUNT,
        "n_steps": [*COUNT, None],
        "init": ["array-like", callable, None],
        "dt": POSITIVE,
        "tau": POSITIVE,
        "max_iter": [Interval(Integral, 0, MOST, closed="both")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "class_weight": CLASS_WEIGHT,
    }

    _new_parameters = ("class_weight",)  # of which the first files of format 2 do not know

    _fitted_shapes = {
        "classes_": ("classes",),
        "input_weights_": ("cells", "inputs"),
        "recurrent_weights_": ("cells", "cells"),
        "readout_weights_": ("classes", "cells"),
        "_every_step": bool,
    }

    def __init__(
        self,
        n_hidden: int = 300,
        *,
        n_steps: int | None = None,
        init: ArrayLike | Function | None = None,
        dt: float = 100.0,
        tau: float = 100.0,
        max_iter: int = 10_000,
        batch_size: int = 32,
        learning_rate_init: float = 0.003,
        momentum: float = 0.9,
        class_weight: ClassWeight = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        random_state: RandomState = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_hidden = n_hidden
        self.n_steps = n_steps
        self.init = init
        self.dt = dt
        self.tau = tau
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_steps * n_inputs) or (n_samples, n_steps, n_inputs)
            Sequences, step after step.
        y : array-like of shape (n_samples,) or (n_samples, n_steps)
            Labels of the last step, or of every step.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative and relative to each other; None is 1 for each.
            Those of weight 0 are left out.

        Returns
        -------
        self : RNNClassifier

        Raises
        ------
        ValueError
            If shapes do not fit together, weights are not legal, or there is only one class.
        FloatingPointError
            If the loss is no longer finite.
        """
        going_on = self._goes_on("readout_weights_")
        X, n_steps = self._rows(X, fitted=going_on)
        X, y = validate_data(self, X, y, multi_output=True, reset=not going_on)
        rng, record = self._begin(X, y, sample_weight)
        samples = (X, y)
        data = self._prepared(self._sequences(X, n_steps), y, sample_weight, rng, going_on)
        score = None
        if self.early_stopping:
            stratify = data[1] if data[1].ndim == 1 else None
            parts = self._split(rng, *data, stratify=stratify)
            data, (held_out, right, counts) = parts[::2], parts[1::2]

            def score():
                with torch.no_grad():
                    found = self._logits(torch.from_numpy(held_out), weights).argmax(-1)
                hits = found.view(right.shape).numpy() == right
                return float(np.average(hits, weights=counts))

        check_squares(data[0], "X")
        sequences, *labels = joined(self.batch_size, *data)
        sequences, targets = torch.from_numpy(sequences), labels_and_weights(*labels)
        weights = [torch.tensor(getattr(self, name), requires_grad=True) for name in WEIGHTS]
        optimizer = torch.optim.SGD(weights, self.learning_rate_init, momentum=self.momentum)
        batches = Minibatches(len(sequences), self.batch_size, rng)

        def step(_):
            batch = next(batches)
            loss = loss_of_labels(self._logits(sequences[batch], weights), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        def attributes():
            arrays = (value.detach().numpy().copy() for value in weights)
            return dict(zip(WEIGHTS, arrays, strict=True))

        fitted = self._take_steps(
            step,
            attributes,
            samples,
            score=score,
            going_on=going_on,
            record=record,
            parts=(rng, weights, optimizer, batches),
        )
        check_trained(weights, self.learning_rate_init)
        for name, value in fitted.items():
            setattr(self, name, value)
        return self

    def _prepared(self, sequences, y, sample_weight, rng, going_on):
        """Sequences, labels and weights, and a network to train on them, all checked."""
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        n_steps, n_inputs = sequences.shape[1:]
        if y.ndim == 2 and y.shape[1] != n_steps:
            raise ValueError(
                f"y has labels for {y.shape[1]} steps, but n_steps={n_steps}; give one label "
                "for each sequence or for each step."
            )
        weights = weights_of_labels(self, sequences, y, sample_weight)
        sequences, y, weights = counting(sequences, y, weights)
        known, labels = classes_of(y)
        refuse_one_class(known, self)
        if going_on:
            check_same_classes(known, self)
        if not 0 < self.dt <= self.tau:
            raise ValueError(f"dt must not exceed tau={self.tau:g} ms, got {self.dt:g}.")
        if going_on and self.input_weights_.shape != (self.n_hidden, n_inputs):
            raise ValueError(
                f"warm_start goes on with {len(self.input_weights_)} cells and "
                f"{self.input_weights_.shape[1]} inputs, but n_hidden={self.n_hidden} and n_steps="
                f"{n_steps} ask for {self.n_hidden} and {n_inputs}."
            )
        if not going_on:
            self._start(known, n_inputs, rng)
        self._every_step = y.ndim == 2
        return sequences, labels.reshape(y.shape), weights

    def _completed(self, attributes):
        others = ("classes_", "n_features_in_", "_every_step")
        return attributes | {name: getattr(self, name) for name in others}

    def _logits(self, sequences, weights):
        return self._outputs(self._run(sequences, *weights[:2]), weights[2])

    def _start(self, classes, n_inputs, rng):
        n = self.n_hidden
        init = self.init
        self.classes_ = classes
        self.input_weights_ = uniform_weights(rng, n_inputs, n, n_inputs)
        self.readout_weights_ = uniform_weights(rng, n, len(classes), n)
        if init is None:
            init = low_rank_init(n, n, random_state=rng)
        self.recurrent_weights_ = initial_matrix(init, n, rng).astype(np.float32)

    def _sequences(self, X, n_steps):
        return self._shared_out(X, n_steps).astype(np.float32)

    def _run(self, sequences, input_weights, recurrent_weights):
        """States h after every step, shape (n_samples, n_steps, n_hidden)."""
        share = self.dt / self.tau
        outside = share * (sequences @ input_weights.T)
        h, states = torch.zeros_like(outside[:, 0]), []
        for step in outside.unbind(1):
            h = torch.relu((1 - share) * h + step + share * (h @ recurrent_weights.T))
            states.append(h)
        return torch.stack(states, 1)

    def _outputs(self, states, coef):
        return (states if self._every_step else states[:, -1:]) @ coef.T

    def _of_states(self, function, X, every=False):
        """A function of the states after the last step, or after every, and the dtype of X."""
        check_is_fitted(self)
        X, n_steps = self._rows(X)
        X = validate_data(self, X, reset=False)
        weights = (torch.from_numpy(w) for w in (self.input_weights_, self.recurrent_weights_))
        weights, first = tuple(weights), 0 if every else -1

        def states(block):
            return self._run(block, *weights)[:, first:].clone()

        def answers(rows):
            return function(in_blocks(states, self._sequences(rows, n_steps)))

        return check_answers(in_pieces(answers, X), self), X.dtype

    def transform(self, X: ArrayLike) -> np.ndarray:
        """States of the cells after the last step.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_steps, n_inputs)
            Sequences, as in :meth:`fit`.

        Returns
        -------
        states : ndarray of shape (n_samples, n_hidden)
        """
        states, dtype = self._of_states(lambda states: states[:, -1], X)
        return states.astype(dtype, copy=False)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Logits of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_steps, n_inputs)
            Sequences, as in :meth:`fit`.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) if binary
            After the last step; of every step, shape (n_samples, n_steps, n_classes), if the
            network was fitted to labels of every step.
        """
        check_is_fitted(self)

        def read(states):
            return self._outputs(states.astype(float), self.readout_weights_)

        logits = self._of_states(read, X, self._every_step)[0]
        if self._every_step:
            return logits
        logits = logits[:, -1]
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Share of right labels of the last step.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_steps, n_inputs)
            Sequences, as in :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_steps)
            Their labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the sequences; None means that all are alike.

        Returns
        -------
        score : float
        """
        predicted = self.predict(X)
        last = predicted[:, -1] if predicted.ndim == 2 else predicted
        if np.ndim(y) == 2 and np.shape(y)[1] == self._rows(X)[1]:
            y = np.asarray(y)[:, -1]
        return share_right(y, last, sample_weight)

    def unrolled(self, X: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """What backpropagation through time makes gradients of, see `tangent_kernel`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_steps, n_inputs)
            Sequences, as in :meth:`fit`.

        Returns
        -------
        owed : ndarray of shape (n_samples, n_steps * n_classes, n_steps, n_hidden)
            Derivatives of the outputs at all steps (of the last one alone if the network was
            fitted to its labels: then n_classes outputs) by the recurrent input of all steps.
        states : ndarray of shape (n_samples, n_steps, n_hidden)
            The states before these, so that the gradient is the sum over steps of their outer
            products.
        """
        check_is_fitted(self)
        X, n_steps = self._rows(X)
        X = validate_data(self, X, reset=False)
        weights = [w.astype(float) for w in (self.input_weights_, self.recurrent_weights_)]
        sequences = torch.from_numpy(self._sequences(X, n_steps).astype(float))
        states = self._run(sequences, *map(torch.from_numpy, weights)).numpy()
        active = (states > 0)[:, None]  # with an axis of outputs
        share, (n_samples, n_steps, n) = self.dt / self.tau, states.shape
        read = range(n_steps) if self._every_step else [n_steps - 1]
        n_classes = len(self.readout_weights_)
        owed = np.zeros((n_samples, len(read), n_classes, n_steps, n))
        for place, last in enumerate(read):
            now = self.readout_weights_.astype(float) * active[:, :, last]
            owed[:, place, :, last] = now
            for step in range(last - 1, -1, -1):
                now = ((1 - share) * now + share * (now @ weights[1])) * active[:, :, step]
                owed[:, place, :, step] = now
        owed = share * owed.reshape(n_samples, -1, n_steps, n)
        before = np.concatenate([np.zeros_like(states[:, :1]), states[:, :-1]], axis=1)
        return owed, before

    @property
    def _n_features_out(self):
        return self.n_hidden
