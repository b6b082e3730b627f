"""`MorrisLecarClassifier`: networks of conductance-based cells, with and without backprop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.base import ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils import gen_batches
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
    NOT_NEGATIVE,
    POSITIVE,
    BaseEstimator,
    OnlyWith,
    StrOptions,
    count_steps,
    fit_context,
    validate_data,
    with_callbacks,
)
from ssn_estimators._stepwise import StepwiseMixin
from ssn_estimators._torch import (
    Minibatches,
    in_blocks,
    in_pieces,
    learning_rate,
    resolve_device,
    restore,
    state_of,
)
from ssn_estimators._weights import CLASS_WEIGHT, counting, joined, weights_of_labels
from ssn_estimators.biophysical.morris_lecar import MorrisLecar
from ssn_estimators.evolution import ESTIMATORS, EvolutionStrategy

if TYPE_CHECKING:
    from typing import Literal, Self

    from ssn_estimators._typing import ArrayLike, ClassWeight, RandomState

__all__ = ["MorrisLecarClassifier"]

START = -20.0  # mean of potentials, in mV
SCORED = 256  # held-out sequences at once


class MorrisLecarClassifier(
    LogitsMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClassifierMixin,
    SequencesMixin,
    StepwiseMixin,
    BaseEstimator,
):
    """Classifier of sequences by a recurrent network of Morris-Lecar cells.

    Words, vectors of numbers, follow each other as constant input; the mean transmitter of
    the cells at the end is read out by a softmax layer. Spiking cells make gradients through
    time explode, so that the weights may be trained by an evolution strategy instead [1]_.
    The readout is fitted by logistic regression, to the untrained network and to the trained
    one, and follows by its exact gradient in between. Training samples start from potentials
    around -20 mV, drawn anew each time; prediction, and the last regression, from -20 mV.

    Where all different samples make one batch, equal ones are one, of the sum of their weights: an
    integer weight is as good as so many copies.

    Parameters
    ----------
    n_cells : int, default=128
        Number of cells.
    n_words : int, default=None
        Words in a row of `X`, one after the other. None is one word, or as many as `X` has if it
        has an axis of them.
    word_duration : float, default=50.0
        Duration of each in ms.
    read_duration : float, default=10.0
        Time at the end over which the transmitter is averaged, in ms.
    dt : float, default=0.5
        Time step of the semi-implicit Euler method in ms. Rates of single cells are those of 0.1 ms
        within 0.1 Hz.
    start_sd : float, default=5.0
        Standard deviation of the potentials from which training samples start, in mV. Sequences of
        some ten milliseconds do not outlast it.
    input_scaling, recurrent_scaling : float, default=2.0 and 0.25
        Initial weights are uniform within this over the root of the number of inputs, or of
        cells. Strong recurrence is chaotic, and forgets its inputs.
    trainer : {"es", "bptt"}, default="es"
        Evolution strategy, or backpropagation through time.
    trained : {"all", "input", "readout"}, default="all"
        Input, recurrent and readout weights; input and readout; or the readout alone, without
        any steps.
    C : float, default=10.0
        Inverse strength of the regularisation of the readout, see
        :class:`~sklearn.linear_model.LogisticRegression`; for weights of a mean of 1.
    n_samples : int, default=32
        Losses per step of the evolution strategy.
    sigma : float, default=0.01
        Standard deviation of its perturbations of input weights. Recurrent weights are perturbed,
        and move, as much for the range that they start from.
    estimator : {"antithetic", "baseline", "plain"}, default="antithetic"
        See :class:`EvolutionStrategy`.
    max_iter : int, default=3000
        Steps of the optimiser (Adam).
    batch_size : int, default=16
        Samples of a step, under "es" for each pair of perturbed networks (or each network, if
        they are "plain"; one batch for all with a "baseline"); all if there are fewer.
    learning_rate : {"cosine", "constant"}, default="cosine"
        Whether the rate falls to zero along half a cosine in each `fit`, or not at all.
    learning_rate_init : float, default=0.004
        Rate of Adam, for recurrent weights in units as under `sigma`.
    max_grad_norm : float, default=None
        Longer gradients are scaled down to it.
    class_weight : dict, "balanced" or None, default=None
        What the classes count, by label; those that are not named count 1. "balanced" ones count
        as much as each other, however many samples they have.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of the samples, stop when accuracy on
        them no longer grows, and keep what was best on them.
    validation_fraction : float, default=0.1
        Share of the samples held out, stratified by class.
    n_iter_no_change : int, default=10
        Looks at them (one every 10 steps) without progress before training stops.
    tol : float, default=1e-4
        Least growth of accuracy that counts as progress.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted weights.
    device : str, default="auto"
        Torch device; "auto" takes a GPU where there is one.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, potentials, batches, perturbations and the validation split.
    verbose : bool or int, default=False
        Whether to print a line every 10 steps; an int above 1 is another number of steps. See
        :ref:`verbose`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    input_scale_ : float
        Largest absolute value seen during fit, or 1 if it is less; inputs are divided by it.
    input_weights_ : ndarray of shape (n_cells, n_inputs)
    recurrent_weights_ : ndarray of shape (n_cells, n_cells)
        W[post, pre].
    readout_weights_ : ndarray of shape (n_classes, n_cells)
        Readout weights.
    readout_bias_ : ndarray of shape (n_classes,)
        Readout biases.
    loss_curve_ : list of float
        Cross-entropy of every step, under "es" the mean over perturbations.
    validation_scores_ : list of float or None
        Weighted accuracy on the held-out samples at every look.
    best_validation_score_ : float or None
        The largest of them.
    n_iter_ : int
        Steps so far.
    n_forward_ : int
        Sequences simulated so far in training, those for the regressions included.
    n_dropped_ : int
        Losses, or under "bptt" gradients, that were not finite and did not count.
    n_features_in_ : int
        Number of features seen during fit.

    See Also
    --------
    EvolutionStrategy : The search, for any loss.

    References
    ----------
    .. [1] Hazelden, Liu, Shlizerman & Shea-Brown (2023). Evolutionary algorithms as an
       alternative to backpropagation for supervised training of biophysical neural networks
       and neural ODEs. arXiv:2311.10869. Constants as in its first author's public code.

    Examples
    --------
    >>> from ssn_estimators import MorrisLecarClassifier
    >>> from ssn_estimators.datasets import make_evidence_integration
    >>> X, y = make_evidence_integration(100, n_words=5, n_inputs=10, random_state=0)
    >>> cells = MorrisLecarClassifier(
    ...     8, n_words=5, word_duration=4.0, n_samples=4, max_iter=2, random_state=0
    ... )
    >>> cells.fit(X, y).predict(X[:3]).shape
    (3,)
    """

    _steps = "n_words"
    _look_every = 10
    _checks_loss = False  # steps without a gradient are skipped, if not too many

    _parameter_constraints: dict = StepwiseMixin._stepwise_constraints | {
        "n_cells": COUNT,
        "n_words": [*COUNT, None],
        "word_duration": POSITIVE,
        "read_duration": POSITIVE,
        "dt": POSITIVE,
        "start_sd": NOT_NEGATIVE,
        "input_scaling": NOT_NEGATIVE,
        "recurrent_scaling": NOT_NEGATIVE,
        "trainer": [StrOptions({"es", "bptt"})],
        "trained": [StrOptions({"all", "input", "readout"})],
        "C": POSITIVE,
        "n_samples": COUNT,
        "sigma": POSITIVE,
        "estimator": [StrOptions(set(ESTIMATORS))],
        "learning_rate": [StrOptions({"cosine", "constant"})],
        "max_grad_norm": [*POSITIVE, None],
        "class_weight": CLASS_WEIGHT,
        "device": [str],
    }

    _only_with = StepwiseMixin._only_with | {
        **dict.fromkeys(
            ("n_samples", "sigma", "estimator"),
            OnlyWith("trainer", lambda name: name == "es", "trainer='es'"),
        ),
        **dict.fromkeys(
            ("early_stopping", "max_iter", "batch_size", "learning_rate", "learning_rate_init"),
            OnlyWith(
                "trained", lambda name: name != "readout", "weights that are trained in steps"
            ),
        ),
    }

    _new_parameters = ("class_weight",)  # of which the first files of format 2 do not know

    _fitted_shapes = {
        "classes_": ("classes",),
        "input_scale_": float,
        "input_weights_": ("cells", "inputs"),
        "recurrent_weights_": ("cells", "cells"),
        "readout_weights_": ("classes", "cells"),
        "readout_bias_": ("classes",),
    }

    def __init__(
        self,
        n_cells: int = 128,
        *,
        n_words: int | None = None,
        word_duration: float = 50.0,
        read_duration: float = 10.0,
        dt: float = 0.5,
        start_sd: float = 5.0,
        input_scaling: float = 2.0,
        recurrent_scaling: float = 0.25,
        trainer: Literal["es", "bptt"] = "es",
        trained: Literal["all", "input", "readout"] = "all",
        C: float = 10.0,
        n_samples: int = 32,
        sigma: float = 0.01,
        estimator: Literal["antithetic", "baseline", "plain"] = "antithetic",
        max_iter: int = 3000,
        batch_size: int = 16,
        learning_rate: Literal["cosine", "constant"] = "cosine",
        learning_rate_init: float = 0.004,
        max_grad_norm: float | None = None,
        class_weight: ClassWeight = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_cells = n_cells
        self.n_words = n_words
        self.word_duration = word_duration
        self.read_duration = read_duration
        self.dt = dt
        self.start_sd = start_sd
        self.input_scaling = input_scaling
        self.recurrent_scaling = recurrent_scaling
        self.trainer = trainer
        self.trained = trained
        self.C = C
        self.n_samples = n_samples
        self.sigma = sigma
        self.estimator = estimator
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_grad_norm = max_grad_norm
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_words * n_inputs) or (n_samples, n_words, n_inputs)
            Sequences, word after word.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative and relative to each other; None is 1 for each.
            Those of weight 0 are left out.

        Returns
        -------
        self : MorrisLecarClassifier

        Raises
        ------
        ValueError
            If the features cannot be shared out among the words, weights are not legal, or there
            is only one class.
        FloatingPointError
            If in a step no loss, or with backpropagation in ten steps in a row no gradient,
            is finite; or the responses to whole classes are not.
        """
        going_on = self._goes_on("readout_weights_")
        X, n_words = self._rows(X, fitted=going_on)
        X, y = validate_data(self, X, y, reset=not going_on)
        samples = (X, y)
        X, y, weights = counting(X, y, weights_of_labels(self, X, y, sample_weight))
        known, labels = classes_of(y)
        if going_on:
            check_same_classes(known, self)
        refuse_one_class(known, self)
        self._grid(n_words)
        if not going_on:
            self.input_scale_ = max(1.0, float(np.abs(X).max()))
        sequences = self._sequences(X, n_words)
        if self.trainer == "es" and self.estimator == "antithetic" and self.n_samples % 2:
            raise ValueError(f"antithetic samples come in pairs, got n_samples={self.n_samples}.")
        (rng, record), device = self._begin(*samples, sample_weight), resolve_device(self.device)
        if going_on:
            self._check_size(sequences.shape[2])
        else:
            self.classes_ = known
            self._start(sequences.shape[2], rng)
        data, held_out = (sequences, labels, weights), None
        if self._weights_through_time() and self.early_stopping:
            parts = self._split(rng, *data, stratify=labels)
            data, held_out = parts[::2], parts[1::2]
        # all at once where there are no batches
        data = joined(self.batch_size if self._weights_through_time() else len(labels), *data)
        if self._weights_through_time():
            if not going_on:
                varied = self._potentials((len(data[0]), self.n_cells), rng)
                self._fit_readout(*data, varied)
            trainer = _Trainer(self, self._grid(n_words), device, rng)
            self._train(data, held_out, samples, trainer, going_on, record)
        self._fit_readout(*data, START)
        return self

    def _start(self, n_inputs, rng):
        n, n_classes = self.n_cells, len(self.classes_)
        self.input_weights_ = uniform_weights(rng, n_inputs, n, n_inputs) * np.float32(
            self.input_scaling
        )
        self.recurrent_weights_ = uniform_weights(rng, n, n, n) * np.float32(self.recurrent_scaling)
        self.readout_weights_ = np.zeros((n_classes, n), np.float32)
        self.readout_bias_ = np.zeros(n_classes, np.float32)
        self.loss_curve_, self.n_iter_, self.n_forward_, self.n_dropped_ = [], 0, 0, 0
        self.validation_scores_ = self.best_validation_score_ = None
        self._progress = {}

    def _weights_through_time(self):
        """Names of the trained arrays but for the readout's."""
        return {
            "all": ["input_weights_", "recurrent_weights_"],
            "input": ["input_weights_"],
            "readout": [],
        }[self.trained]

    def _fit_readout(self, sequences, labels, weights, start):
        # in single precision steps are compiled, where that is there
        responses = self._respond(sequences, start, torch.float32).astype(float)
        self.n_forward_ += len(sequences)
        sound = np.isfinite(responses).all(1)
        if len(np.unique(labels[sound])) < len(self.classes_):
            raise FloatingPointError(
                "the cells' responses to all samples of a class are not finite; lower dt, "
                "input_scaling or recurrent_scaling."
            )
        # by Newton's method, since responses of cells are correlated
        readout = LogisticRegression(C=self.C, solver="newton-cholesky")
        readout.fit(responses[sound], labels[sound], sample_weight=weights[sound])
        coef, intercept = readout.coef_, readout.intercept_
        if len(self.classes_) == 2:  # of the log odds
            coef, intercept = (np.concatenate([-x, x]) / 2 for x in (coef, intercept))
        # products of another order in memory would be rounded otherwise once it has been saved
        self.readout_weights_ = coef.astype(np.float32, order="C")
        self.readout_bias_ = intercept.astype(np.float32)

    def _potentials(self, shape, rng):
        """Potentials at the start of training samples, in mV."""
        return rng.normal(START, self.start_sd, shape).astype(np.float32)

    def _train(self, data, held_out, samples, trainer, going_on, record):
        sequences, labels, weights = data
        data = (sequences, labels, weights.astype(np.float32))
        tensors = [torch.from_numpy(x) for x in data]
        batches = Minibatches(len(data[0]), self.batch_size, trainer.rng)
        n_forward, n_dropped = self.n_forward_, self.n_dropped_

        def step(i):
            trainer.set_rate(learning_rate(self, i / self.max_iter))
            batch = trainer.draw(batches)
            return trainer.step(*(x[batch].to(trainer.device) for x in tensors))

        def attributes():
            values = trainer.weights(trainer.through_time) | trainer.readout
            arrays = {name: value.detach().cpu().numpy().copy() for name, value in values.items()}
            counts = {"n_forward_": n_forward + trainer.n_forward}
            # of this state: a later fit goes on from it
            progress = {"_progress": trainer.progress()}
            return arrays | counts | progress | {"n_dropped_": n_dropped + trainer.n_dropped}

        score = None if held_out is None else lambda: trainer.accuracy(*held_out)
        kept = self._take_steps(
            step,
            attributes,
            samples,
            score=score,
            going_on=going_on,
            record=record,
            parts=(trainer.rng, trainer, batches),
        )
        for name, value in kept.items():
            setattr(self, name, value)
        self.n_forward_ = n_forward + trainer.n_forward
        self.n_dropped_ = n_dropped + trainer.n_dropped

    def _completed(self, attributes):
        fixed = [
            *("input_weights_", "recurrent_weights_", "readout_weights_", "readout_bias_"),
            *("classes_", "input_scale_", "n_features_in_", "_progress"),
        ]
        return {name: getattr(self, name) for name in fixed} | attributes

    @staticmethod
    def _upgraded(state, file_format):
        """State of a file of an earlier format, as it is now."""
        if file_format == 1:  # weights went from rows to columns, and so do what Adam knew of them
            for name in {"input_weights_", "recurrent_weights_"} & set(state):
                state[name] = state[name].T.copy()
            state["_progress"] = {}
        return StepwiseMixin._upgraded(state, file_format)

    def _grid(self, n_words):
        """Time steps of a word, and those that are read out."""
        n_steps, n_read = (
            count_steps(getattr(self, name), self.dt, name)
            for name in ("word_duration", "read_duration")
        )
        total = n_steps * n_words
        if n_steps < 1 or not 1 <= n_read <= total:
            raise ValueError(
                f"a word must last at least one time step of {self.dt:g} ms, and read_duration "
                f"between one and all {total} of them; got word_duration={self.word_duration:g} "
                f"and read_duration={self.read_duration:g} ms."
            )
        return {"n_steps": n_steps, "n_read": n_read, "dt": self.dt}

    def _sequences(self, X, n_words):
        return self._shared_out((X / self.input_scale_).astype(np.float32), n_words)

    def _check_size(self, n_inputs):
        size = self.input_weights_.shape
        if size != (self.n_cells, n_inputs):
            raise ValueError(
                f"the fitted network has {size[1]} inputs to {size[0]} cells, but by n_words and "
                f"n_cells it would be {n_inputs} to {self.n_cells}; fit anew."
            )

    def _respond(self, sequences, start, dtype):
        """Mean transmitter, from potentials of every sequence or of all of them."""
        device, grid = resolve_device(self.device), self._grid(sequences.shape[1])
        self._check_size(sequences.shape[2])
        weights = [
            torch.tensor(w, device=device, dtype=dtype)
            for w in (self.input_weights_, self.recurrent_weights_)
        ]
        starts = np.broadcast_to(np.float32(start), (len(sequences), self.n_cells))
        cell = MorrisLecar()

        def respond(words, start):
            words, start = words.to(weights[0]), start.to(weights[0])
            return cell.respond(words, *weights, start, **grid).cpu()

        with torch.no_grad():
            return in_blocks(respond, sequences, starts)

    def _of_transmitter(self, function, X):
        """A function of the mean transmitter, which is of X's dtype."""
        check_is_fitted(self)
        X, n_words = self._rows(X)
        X = validate_data(self, X, reset=False)

        def answers(rows):
            # in double precision: libraries round the rows of a product by their places
            found = self._respond(self._sequences(rows, n_words), START, torch.float64)
            return function(found.astype(X.dtype, copy=False))

        return check_answers(in_pieces(answers, X), self)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Mean transmitter of the cells.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_words, n_inputs)
            Sequences, as in :meth:`fit`.

        Returns
        -------
        transmitter : ndarray of shape (n_samples, n_cells)
        """
        return self._of_transmitter(lambda transmitter: transmitter, X)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Logits of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_words, n_inputs)
            Sequences, as in :meth:`fit`.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) if binary
            In the binary case, the log odds of ``classes_[1]``.
        """
        # not of `transform`, which gives a data frame where one asks for it

        def read(transmitter):
            return transmitter @ self.readout_weights_.T.astype(float) + self.readout_bias_

        logits = self._of_transmitter(read, X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    @property
    def _n_features_out(self):
        return self.n_cells


class _Trainer:
    """Steps of one fit, by either kind of gradient."""

    def __init__(self, estimator, grid, device, rng):
        self.estimator, self.device, self.rng = estimator, device, rng
        self._kind = estimator.trainer, estimator.trained
        state, readout = estimator._progress.get(
            self._kind,
            (
                None,
                {name: getattr(estimator, name) for name in ("readout_weights_", "readout_bias_")},
            ),
        )
        self.readout = {
            name: torch.tensor(value, device=device, requires_grad=True)
            for name, value in readout.items()
        }
        weights = {
            name: torch.tensor(getattr(estimator, name), device=device)
            for name in ("input_weights_", "recurrent_weights_")
        }
        # searched in units of the initial range, over that of the input weights; what starts from
        # nothing counts as if it had started from a scaling of 1
        scaling = (estimator.recurrent_scaling or 1.0) / (estimator.input_scaling or 1.0)
        n_cells, n_inputs = weights["input_weights_"].shape
        recurrent = scaling * np.sqrt(n_inputs / n_cells)
        self.units = {"input_weights_": 1.0, "recurrent_weights_": recurrent}
        self.through_time = {
            name: weights.pop(name) / self.units[name] for name in estimator._weights_through_time()
        }
        self.fixed = weights
        self.cell, self.grid = MorrisLecar(), grid
        self.by_search = estimator.trainer == "es"
        learned = list(self.readout.values())
        if self.by_search:
            self.search = EvolutionStrategy(
                self.through_time,
                n_samples=estimator.n_samples,
                sigma=estimator.sigma,
                estimator=estimator.estimator,
                learning_rate_init=estimator.learning_rate_init,
                max_grad_norm=estimator.max_grad_norm,
                evaluation="batch",
                random_state=rng,
            )
        else:
            learned += [value.requires_grad_() for value in self.through_time.values()]
        self.optimizer = torch.optim.Adam(learned, lr=estimator.learning_rate_init)
        if state is not None:
            for optimizer, own in zip(self.optimizers, state, strict=True):
                own = {
                    i: {name: torch.from_numpy(np.array(value)) for name, value in moments.items()}
                    for i, moments in own.items()
                }
                optimizer.load_state_dict(optimizer.state_dict() | {"state": own})
        self.n_forward, self.n_failed, self._n_dropped = 0, 0, 0

    @property
    def n_dropped(self):
        return self._n_dropped + (self.search.n_dropped_ if self.by_search else 0)

    def progress(self):
        """What an earlier fit goes on from, by the kind of training; as arrays.

        States of the optimisers, and the readout as it was before its last regression.
        """
        state = [
            {
                i: {name: value.cpu().numpy().copy() for name, value in moments.items()}
                for i, moments in optimizer.state_dict()["state"].items()
            }
            for optimizer in self.optimizers
        ]
        readout = {name: value.detach().cpu().numpy() for name, value in self.readout.items()}
        return {self._kind: (state, readout)}

    def state(self):
        tensors = [*self.through_time.values(), *self.readout.values()]
        state = {
            "tensors": state_of(tensors),
            "optimizer": state_of(self.optimizer),
            "counts": (self.n_forward, self.n_failed, self._n_dropped),
        }
        return state | {"search": self.search.state()} if self.by_search else state

    def restore(self, state):
        restore([*self.through_time.values(), *self.readout.values()], state["tensors"])
        restore(self.optimizer, state["optimizer"])
        self.n_forward, self.n_failed, self._n_dropped = state["counts"]
        if self.by_search:
            self.search.restore(state["search"])

    def set_rate(self, rate):
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    @property
    def optimizers(self):
        return [self.optimizer, *([self.search.optimizer] if self.by_search else [])]

    def draw(self, batches):
        """Samples of a step; in a search of every pair, since what differs averages out."""
        if not self.by_search or self.estimator.estimator == "baseline":
            return next(batches)
        in_pairs = self.estimator.estimator == "antithetic"
        return torch.stack([next(batches) for _ in range(self.search.n_samples // (1 + in_pairs))])

    def step(self, inputs, *targets):
        """One with labels and their weights."""
        shape = (*targets[0].shape, self.estimator.n_cells)
        start = torch.from_numpy(self.estimator._potentials(shape, self.rng)).to(inputs)
        self.optimizer.zero_grad()
        if self.by_search:
            return self.search.step(lambda free: self._population(free, inputs, targets, start))
        loss = self._losses(self._respond(self.through_time, inputs, start), *targets)
        loss.backward()
        self._descend()
        return loss.item()

    @torch.no_grad()
    def accuracy(self, sequences, labels, weights):
        """Of the present network and readout, from the potentials at which answers begin."""
        right = []
        for rows in gen_batches(len(labels), SCORED):
            words = torch.from_numpy(sequences[rows]).to(self.device)
            start = words.new_full((len(words), self.estimator.n_cells), START)
            free = {name: value.detach() for name, value in self.through_time.items()}
            logits = self._logits(self._respond(free, words, start))
            right.append(logits.argmax(-1).cpu().numpy() == labels[rows])
        return float(np.average(np.concatenate(right), weights=weights))

    def weights(self, free):
        """Arrays of the network, of what is trained."""
        return {name: value * self.units[name] for name, value in free.items()}

    def _respond(self, free, inputs, start):
        """Mean transmitter; of each network if the parameters have a leading axis."""
        weights = self.fixed | self.weights(free)
        mean = self.cell.respond(
            inputs, weights["input_weights_"], weights["recurrent_weights_"], start, **self.grid
        )
        self.n_forward += mean.shape[:-1].numel()
        return mean

    def _logits(self, mean):
        return mean @ self.readout["readout_weights_"].T + self.readout["readout_bias_"]

    def _losses(self, mean, targets, weights):
        """Weighted cross-entropy, of each network."""
        logits = self._logits(mean)
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, -2), targets.flatten(), reduction="none"
        )
        return (weights * losses.view(targets.shape)).mean(-1)

    def _population(self, free, inputs, targets, start):
        """Losses of all networks of a step, and meanwhile a step of the readout."""
        if targets[0].dim() > 1:  # the signs of perturbations on an axis before their samples
            free = {name: value.unflatten(0, (-1, len(targets[0]))) for name, value in free.items()}
        mean = self._respond(free, inputs, start)
        targets = [x.expand(mean.shape[:-1]).flatten(0, -2) for x in targets]
        mean = mean.flatten(0, -3)
        sound = torch.isfinite(mean).flatten(1).all(1)
        found = torch.full((len(mean),), torch.nan, dtype=torch.float32)
        if sound.any():
            with torch.enable_grad():
                losses = self._losses(mean[sound], *(x[sound] for x in targets))
                losses.mean().backward()
            self._descend()
            found[sound.cpu()] = losses.detach().cpu()
        return found

    def _descend(self):
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(
            parameters, self.estimator.max_grad_norm or float("inf")
        )
        if torch.isfinite(norm):
            self.n_failed = 0
            self.optimizer.step()
            return
        self._n_dropped += 1
        self.n_failed += 1
        if self.n_failed == 10:
            raise FloatingPointError(
                "no gradient of the last 10 steps is finite; lower learning_rate_init, set "
                "max_grad_norm, or take trainer='es'."
            )
