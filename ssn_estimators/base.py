"""What the estimators around a circuit share: parameters, the fit, the network's answer."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    NOT_NEGATIVE,
    POSITIVE,
    BaseEstimator,
    CallbackSupportMixin,
    FitProgress,
    Interval,
    OnlyWith,
    StrOptions,
    record_of,
    validate_data,
)
from ssn_estimators.circuit import CONSTANTS, Circuit
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.growth import SHARES, stage_sizes
from ssn_estimators.simulation import (
    PRECISIONS,
    SCHEMES,
    Trials,
    check_steps,
    simulate,
    simulate_trials,
)
from ssn_estimators.stationary import stationary_moments
from ssn_estimators.structures import STRUCTURES
from ssn_estimators.training import (
    Growth,
    Patience,
    Phase,
    Plan,
    random_circuit,
    stable_pair,
    train,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ssn_estimators._typing import ArrayLike, Decorated
    from ssn_estimators.simulation import Simulation

__all__ = ["BaseSSN", "documented_by", "extending"]

METHODS = ("simulation", "closure", "moments")  # the last two are the same


def documented_by(base: type) -> Callable[[Decorated], Decorated]:
    """Decorator that fills the lines {parameters} and {attributes} of a docstring from a base's."""

    def decorate(estimator):
        if estimator.__doc__:
            shared = inspect.cleandoc(base.__doc__)
            _, parameters, attributes = re.split("\n(?:Parameters|Attributes)\n-+\n", shared)
            text = inspect.cleandoc(estimator.__doc__)
            text = text.replace("{parameters}", parameters.strip())
            estimator.__doc__ = text.replace("{attributes}", attributes.strip())
        return estimator

    return decorate


def extending(base: type) -> Callable[[Decorated], Decorated]:
    """Decorator of an `__init__` with ``**parameters`` of a base's, which scikit-learn must see.

    Its own parameters, by keyword only, come after them.
    """

    def decorate(init):
        shared, own = inspect.signature(base.__init__), inspect.signature(init).parameters.values()
        more = [p for p in own if p.kind is p.KEYWORD_ONLY]
        init.__signature__ = shared.replace(parameters=[*shared.parameters.values(), *more])
        return init

    return decorate


class BaseSSN(CallbackSupportMixin, BaseEstimator):
    """Base of `SSNClassifier`, `SSNRegressor` and `SSNSampler`.

    They supply `_plan`, which checks data and parameters and says how to train; `_attributes`, what
    prediction needs of a model; and `_drive` of inputs that have been checked.
    """

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

    _only_with: dict = {
        **dict.fromkeys(
            ("growth_iter", "parents", "clone_shares"),
            OnlyWith("growth", lambda growth: growth is not None, "growth"),
        ),
        "validation_fraction": OnlyWith("early_stopping", bool, "early_stopping=True"),
    }

    _fitted_shapes: dict = {
        "circuit_": Circuit,
        "noise_seed_": int,
        "n_features_in_": int,
        "growth_history_?": list,
    }

    def _check_fitted(self):
        """Raise ValueError unless fitted attributes, of the right shapes, go together."""
        if not 0 <= self.noise_seed_ < 2**32:
            raise ValueError(f"noise_seed_={self.noise_seed_} is no seed.")
        if self._fitted_structure not in STRUCTURES:
            raise ValueError(f"there is no weight_structure {self._fitted_structure!r}.")
        pairs = self.circuit_.n_excitatory == self.circuit_.n_inhibitory
        if STRUCTURES[self._fitted_structure].needs_pairs and not pairs:
            raise ValueError(f"the circuit is not {self._fitted_structure}.")
        known = getattr(self, "_optimizer_state", None)
        if known is None:
            return
        for moments in known.values():
            mean, square = (moments[name] for name in ("exp_avg", "exp_avg_sq"))
            if mean.shape != square.shape or not (np.isfinite(mean) & (square >= 0)).all():
                raise ValueError("the state of the optimizer is not legal.")

    # --- the fit -------------------------------------------------------------------------------

    def _training(self, *data, one_pass=False, **more):
        """The fit as a generator for `run_together`."""
        going_on = (self.warm_start or one_pass) and hasattr(self, "circuit_")
        record = record_of(self, (data, more))
        rng = (record.generator if record else check_random_state)(self.random_state)
        how = {"one_pass": True} if one_pass else {}
        plan = self._plan(rng, going_on, *data, **how, **more)
        progress = FitProgress(self, plan.n_stages, *plan.samples, self._attributes)
        outcome = yield from train(plan, rng, progress, record)
        self._keep(plan, outcome, going_on)
        progress.end(outcome.model)
        if record and not outcome.interrupted:
            record.end()
        return self

    def _keep(self, plan, outcome, going_on):
        """Set the fitted attributes."""
        for name, value in self._attributes(outcome.model).items():
            setattr(self, name, value)
        self._record_history(outcome, going_on)
        if plan.held_out is None:
            self.validation_scores_ = None

    def _record_history(self, outcome, going_on):
        """Set the attributes that tell of training, after what they told before."""
        if not going_on or not hasattr(self, "loss_curve_"):  # a callback's snapshot has none
            self.loss_curve_, self.growth_history_, self.validation_scores_ = [], [], []
            self.n_rejected_steps_ = self.n_runaway_steps_ = self.n_iter_ = 0
        n_before = len(self.loss_curve_)
        history = [dict(g, n_iter=g["n_iter"] + n_before) for g in outcome.growth_history]
        self.loss_curve_ = self.loss_curve_ + outcome.loss_curve
        self.growth_history_ = self.growth_history_ + history
        self.validation_scores_ = (self.validation_scores_ or []) + outcome.validation_scores
        self.n_rejected_steps_ += outcome.n_rejected_steps
        self.n_runaway_steps_ += outcome.n_runaways
        self.n_iter_ += outcome.n_steps
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else np.nan
        self.stability_ = outcome.stability
        self.divergence_rate_ = outcome.divergence_rate
        self.n_attempts_ = outcome.n_attempts
        self.best_validation_score_ = outcome.validation_score
        self._optimizer_state = outcome.optimizer_state

    def _usual_plan(self, start, task, data, phases, **others):
        """A plan by the parameters that all estimators have, and others."""
        usual = {
            "structure": STRUCTURES[self.weight_structure],
            "growth": Growth(self.parents, self.clone_shares),
            "batch_size": self.batch_size,
            "max_grad_norm": self.max_grad_norm,
            "max_rejected": self.max_rejected_steps,
            "patience": Patience(self.n_iter_no_change, self.tol),
            "verbose": self.verbose,
        }
        return Plan(start, task, data, phases, **(usual | others))

    def _phase(self, sizes, gradients, **others):
        """A phase by the parameters of the same names, and others."""
        named = ("max_iter", "growth_iter", "learning_rate", "learning_rate_init")
        usual = {name: getattr(self, name) for name in named}
        return Phase(tuple(sizes), gradients, **(usual | others))

    def _sizes(self, target):
        """Of the stages of growth."""
        if self.growth is None:
            return [target]
        sizes = stage_sizes(*target, self.growth)
        ring = STRUCTURES[self.weight_structure].needs_pairs
        return [sizes[0], sizes[-1]] if ring and len(sizes) > 1 else sizes

    @staticmethod
    def _from_size(sizes, least):
        """Those that a network of that size can grow to."""
        return [size for size in sizes if size[0] >= least[0] and size[1] >= least[1]]

    def _check_size(self, target):
        """Refuse to go on towards fewer cells than the fitted circuit has."""
        circuit = self.circuit_
        smaller = not self._from_size([target], (circuit.n_excitatory, circuit.n_inhibitory))
        self._check_unchanged(*([f"a size of {target[0]}:{target[1]}, below that"] * smaller))

    def _first_circuit(self, size, h, rng, **options):
        """A stable pair under external inputs `h()`; without growth, a random circuit."""
        options |= {name: float(getattr(self, name)) for name in CONSTANTS}
        options |= {"random_state": rng, "dtype": np.float32}
        if self.growth is None:
            return random_circuit(*size, **options)
        how = self._of_prediction()
        return stable_pair(h(), dt=how["dt"], solver=how["solver"], **options)

    def _check_unchanged(self, *changed):
        """Refuse to go on where parameters ask for another circuit than the fitted one."""
        circuit = self.circuit_
        names = [x for x in CONSTANTS if np.any(getattr(self, x) != getattr(circuit, x))]
        if self.weight_structure != self._fitted_structure:
            names.append("weight_structure")
        names += changed
        if names:
            raise ValueError(
                f"the fitted network of {circuit.n_excitatory}:{circuit.n_inhibitory} cells cannot "
                f"go on with another value of {', '.join(names)}. Fit anew with warm_start=False."
            )

    # --- the answer ----------------------------------------------------------------------------

    def _of_prediction(self):
        """Parameters of simulations."""
        named = {name: getattr(self, name) for name in ("burn_in", "dt", "solver")}
        return named | {"n_trials": self.n_trials_predict, "shared_noise": True}

    def _trials(self, window=None, **others):
        """Trials of prediction, checked, but for what is given otherwise.

        `window` is the name of the parameter that says how long they last.
        """
        values = self._of_prediction() | {"rates": False} | others
        if window is not None:
            values["duration"] = getattr(self, window)
            check_steps(values["duration"], values["dt"], window)
        trials = Trials(**values)
        trials.check_cells(self)
        return trials

    def _run(self, circuit, drive, trials, random_state, record=None):
        """One simulation; controls put another in its place."""
        return simulate_trials([circuit], [drive], trials, [random_state], record)[0]

    def _moments(self, circuit, drive, trials, method, random_state, closure="gaussian"):
        """Moments of the potentials, simulated or stationary.

        Where the equations have no solution, inputs are simulated.

        Raises
        ------
        DivergenceError
            If a trial diverges.
        """
        if not torch.isfinite(drive).all():
            raise DivergenceError("The input function of the network is not finite.")
        moments, found = None, torch.zeros(len(drive), dtype=torch.bool, device=drive.device)
        if method != "simulation":
            moments = stationary_moments(circuit, drive, closure=closure)
            found = moments.converged
            if found.all():
                return moments
        simulation = self._run(circuit, drive, trials, random_state)
        if simulation.diverged[~found].any():
            raise DivergenceError(
                f"The network has no stationary answer to some of the inputs: "
                f"{simulation.message} See which with simulate(X).diverged; retrain with "
                "inputs like them, or use a smaller dt."
            )
        if moments is None:
            return simulation
        mean = torch.where(found[:, None], moments.mean, simulation.mean)
        covariance = moments.covariance
        if trials.covariance:
            covariance = torch.where(found[:, None, None], covariance, simulation.covariance)
        return replace(moments, mean=mean, covariance=covariance)

    @staticmethod
    def _check_method(method):
        if method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {method!r}.")

    def _check_X(self, X):
        check_is_fitted(self)
        return validate_data(self, X, reset=False)

    def drive(self, X: ArrayLike) -> np.ndarray:
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

    def simulate(self, X: ArrayLike, **parameters: Any) -> Simulation:
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
        usual = self._of_prediction() | {"random_state": self.noise_seed_}
        return simulate(self.circuit_, self._drive(X), **(usual | parameters))

    @property
    def _n_features_out(self):
        return self.circuit_.n_excitatory
