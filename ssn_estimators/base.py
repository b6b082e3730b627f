"""What the estimators around a circuit share: parameters, training's outcome, simulation."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    NOT_NEGATIVE,
    POSITIVE,
    BaseEstimator,
    CallbackSupportMixin,
    Interval,
    StrOptions,
    validate_data,
)
from ssn_estimators.growth import SHARES
from ssn_estimators.simulation import SCHEMES, Trials, simulate
from ssn_estimators.simulation.trials import PRECISIONS
from ssn_estimators.structures import STRUCTURES
from ssn_estimators.training.loop import Settings

__all__ = ["BaseSSN"]


class BaseSSN(CallbackSupportMixin, BaseEstimator):
    """Base of `SSNClassifier` and `SSNSampler`; they add the task, and `_drive` of
    inputs that have been checked."""

    _parameter_constraints: dict = {
        "weight_structure": [StrOptions({"circulant", "gaussian_ring"}), None],
        "growth": [StrOptions({"double", "single"}), None],
        "growth_iter": [Interval(Integral, 0, MOST, closed="both")],
        "parents": [StrOptions({"last", "random"}), callable],
        "clone_shares": [StrOptions(set(SHARES))],
        "k": POSITIVE,
        "gamma": [Interval(Real, 1, None, closed="left")],
        "tau_e": POSITIVE,
        "tau_i": POSITIVE,
        "tau_eta": POSITIVE,
        "solver": [StrOptions(set(SCHEMES))],
        "dt": POSITIVE,
        "burn_in": NOT_NEGATIVE,
        "window": POSITIVE,
        "n_trials": COUNT,
        "n_trials_predict": COUNT,
        "precision": [StrOptions(set(PRECISIONS))],
        "max_iter": COUNT,
        "batch_size": COUNT,
        "learning_rate": [StrOptions({"cosine", "constant"})],
        "learning_rate_init": POSITIVE,
        "max_grad_norm": POSITIVE,
        "potential_penalty": NOT_NEGATIVE,
        "stability_penalty": NOT_NEGATIVE,
        "max_rejected_steps": COUNT,
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": COUNT,
        "tol": NOT_NEGATIVE,
        "warm_start": ["boolean"],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def _settings(self, device, **others):
        """Settings of training, from the parameters of the same names and others."""
        named = set(Settings.__dataclass_fields__) & set(self._parameter_constraints)
        values = {name: getattr(self, name) for name in named}
        values |= {
            "structure": STRUCTURES[self.weight_structure],
            "max_rejected": self.max_rejected_steps,
            "device": device,
        }
        return Settings(**(values | others))

    def _trials(self, **others):
        """Trials of prediction, checked, but for what is given otherwise."""
        usual = {
            "n_trials": self.n_trials_predict,
            "burn_in": self.burn_in,
            "dt": self.dt,
            "solver": self.solver,
            "shared_noise": True,
        }
        trials = Trials(**(usual | others))
        trials.check_cells(self)
        return trials

    def _note(self, trainings, going_on):
        """Set the attributes that tell of training, after what they told before."""
        if not going_on or not hasattr(self, "loss_curve_"):  # a callback's snapshot has none
            self.loss_curve_, self.growth_history_, self.validation_scores_ = [], [], []
            self.n_rejected_steps_ = self.n_runaway_steps_ = self.n_iter_ = 0
        for training in trainings:
            n_before = len(self.loss_curve_)
            history = [dict(g, n_iter=g["n_iter"] + n_before) for g in training.growth_history]
            self.loss_curve_ = self.loss_curve_ + training.loss_curve
            self.growth_history_ = self.growth_history_ + history
            self.validation_scores_ = (self.validation_scores_ or []) + training.validation_scores
            self.n_rejected_steps_ += training.n_rejected_steps
            self.n_runaway_steps_ += training.n_runaways
            self.n_iter_ += training.n_steps
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else np.nan
        self.stability_ = training.stability
        self.divergence_rate_ = training.divergence_rate
        self.n_attempts_ = 1 + sum(training.n_attempts - 1 for training in trainings)
        self.best_validation_score_ = training.validation_score
        self._optimizer_state = training.optimizer_state

    def _check_X(self, X):
        check_is_fitted(self)
        return validate_data(self, X, reset=False)

    def drive(self, X):
        """External drive f(h) of every cell.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        drive : ndarray of shape (n_samples, n_neurons)
            In mV, ready for :func:`simulate`.
        """
        return self._drive(self._check_X(X))

    def simulate(self, X, **parameters):
        """Simulate the fitted circuit on inputs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.
        **parameters
            Parameters of :func:`simulate`; time step, solver, burn-in, number of trials and
            (shared) noise are by default those of prediction.

        Returns
        -------
        simulation : Simulation
            A network that diverges says so here, it does not raise.
        """
        return self._simulate(self._check_X(X), **parameters)

    def _simulate(self, X, **parameters):
        defaults = {
            "n_trials": self.n_trials_predict,
            "burn_in": self.burn_in,
            "dt": self.dt,
            "solver": self.solver,
            "shared_noise": True,
            "random_state": self.noise_seed_,
        }
        return simulate(self.circuit_, self._drive(X), **(defaults | parameters))

    @property
    def _n_features_out(self):
        return self.circuit_.n_excitatory
