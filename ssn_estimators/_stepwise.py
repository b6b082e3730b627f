"""Estimators that a single optimiser trains, step by step: one loop for all of them."""

from __future__ import annotations

import math
from numbers import Real

from sklearn.utils import check_random_state

from ssn_estimators._logging import is_due, tell
from ssn_estimators._sklearn import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    CallbackSupportMixin,
    FitProgress,
    Interval,
    OnlyWith,
    record_of,
)
from ssn_estimators._threads import alone
from ssn_estimators._torch import Patience, restore, state_of, until_interrupted
from ssn_estimators._weights import hold_out

__all__ = ["StepwiseMixin"]


class StepwiseMixin(CallbackSupportMixin):
    """Callbacks, early stopping, warm start, verbosity and interruption, the same for all.

    Their `fit` hands `_take_steps` a function that takes one step, and one that gives the fitted
    attributes of the state it has led to.
    """

    _stepwise_constraints: dict = {
        "max_iter": COUNT,
        "batch_size": COUNT,
        "learning_rate_init": POSITIVE,
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": COUNT,
        "tol": NOT_NEGATIVE,
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    _only_with: dict = dict.fromkeys(
        ("validation_fraction", "n_iter_no_change", "tol"),
        OnlyWith("early_stopping", bool, "early_stopping=True"),
    )

    _look_every = 50  # steps between two scores, and two lines of `verbose=True`
    _checks_loss = True  # whether one that is not finite ends the fit

    @staticmethod
    def _upgraded(state, file_format):
        """State of a file of an earlier format, as it is now."""
        if file_format == 1 and "loss_curve_" in state:
            losses = state.pop("validation_losses_", None)  # of AutoencoderEncoder
            scores = losses and [-loss for loss in losses]
            best = max(scores, default=None) if scores else None
            state |= {"validation_scores_": scores, "best_validation_score_": best}
        return state

    def _goes_on(self, fitted):
        """Whether this fit goes on from an earlier one, which has left this attribute."""
        return self.warm_start and hasattr(self, fitted)

    def _split(self, rng, *arrays, stratify=None):
        """Training and held-out parts of every array, one after the other."""
        return hold_out(self, rng, *arrays, stratify=stratify)

    def _told(self):
        """What is told of training so far, for an estimator of now."""
        return {"loss_curve_": list(self.loss_curve_), "n_iter_": self.n_iter_}

    def _is_told(self, step, look):
        """Whether there is a line after this step, which may be one to look at the score."""
        if self.verbose > 1:
            return is_due(self.verbose, step) or step == self.max_iter
        return self.verbose and look

    def _completed(self, attributes):
        """Fitted attributes with what follows from them, and is not worth it at every step."""
        return attributes

    def _begin(self, *data):
        """The source of random numbers of a fit to these data, and the record of its state."""
        record = record_of(self, data)
        return (record.generator if record else check_random_state)(self.random_state), record

    def _take_steps(
        self,
        step,
        attributes,
        samples,
        *,
        score=None,
        going_on=False,
        record=None,
        parts=(),
        largest_product=0,
    ):
        """Train, and set what tells of it.

        Parameters
        ----------
        step : callable
            ``step(i)`` takes step i of this call, and returns its loss.
        attributes : callable
            ``attributes()`` are the fitted attributes of the present state: copies.
        samples : pair
            X and y, for callbacks that ask for them.
        score : callable, default=None
            ``score()`` of the present state on held-out data, greater is better. The best state is
            kept, and training ends when scores no longer grow.
        going_on : bool, default=False
            Whether curves go on.
        record : record of a `Checkpoint`, default=None
            As of `_begin`.
        parts : sequence
            All that steps change, see :func:`~ssn_estimators._torch.state_of`; the RandomState of
            the fit first.
        largest_product : int, default=0
            Multiplications in the largest operation of a step, see :func:`alone`.

        Returns
        -------
        fitted : dict
            Attributes of the state that is kept.

        Raises
        ------
        FloatingPointError
            If a loss is not finite.
        """
        # lists of their own: those of before may be shared, and are kept if this fit fails
        self.loss_curve_ = list(self.loss_curve_) if going_on else []
        self.n_iter_ = self.n_iter_ if going_on else 0
        before = getattr(self, "validation_scores_", None) if going_on else None
        progress = FitProgress(self, 1, *samples, self._completed)
        progress.begin_stage(type(self).__name__, self.max_iter)
        first, scores, best, interrupted = 0, [], None, True
        if record and record.saved:
            first, scores, best, self.loss_curve_, self.n_iter_ = record.saved["place"]
            parts[0].set_state(record.saved["rng"].get_state())
            for part, state in zip(parts[1:], record.saved["parts"], strict=True):
                restore(part, state)
        patience = Patience(self.n_iter_no_change, self.tol)
        with until_interrupted(), alone(largest_product):
            for i in range(first, self.max_iter):
                if record and record.due(i):
                    place = (i, scores, best, self.loss_curve_, self.n_iter_)
                    states = [state_of(part) for part in parts[1:]]
                    record.write(parts[0], {"place": place, "parts": states})
                loss = step(i)
                if self._checks_loss and not math.isfinite(loss):
                    raise FloatingPointError(
                        f"the loss of step {self.n_iter_ + 1} is not finite; lower "
                        f"learning_rate_init (now {self.learning_rate_init:g})."
                    )
                self.loss_curve_.append(loss)
                self.n_iter_ += 1
                stop = progress.step(lambda: self._told() | attributes())
                look = (i + 1) % self._look_every == 0 or i + 1 == self.max_iter
                if self._is_told(i + 1, look):
                    tell(f"[{type(self).__name__}] step {self.n_iter_:6d}   loss {loss:.4f}")
                if score and look:
                    scores.append(score())
                    if scores[-1] > max(scores[:-1], default=-math.inf):
                        best = attributes()
                    stop |= patience.exhausted(scores)
                if stop:
                    break
            interrupted = False
        self.validation_scores_ = (before or []) + scores if score or before else None
        self.best_validation_score_ = max(scores, default=None)
        kept = self._completed(best or attributes())
        progress.end_stage(lambda: self._told() | kept)
        progress.end(self._told() | kept)
        if record and not interrupted:
            record.end()
        return kept
