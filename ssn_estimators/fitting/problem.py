"""What is minimised: misfits of all that was observed, and of the prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssn_estimators.fitting.covariances import CovaryingNoise, with_covariances
from ssn_estimators.fitting.data import errors_of
from ssn_estimators.fitting.model import data_of, labels_of, model_of, recordings_of
from ssn_estimators.fitting.parameters import Parameters
from ssn_estimators.fitting.spectra import Fluctuations, with_spectra
from ssn_estimators.fitting.steady import Conditions, fixed_points_of, spectral_abscissae
from ssn_estimators.fitting.traces import Follower

__all__ = ["Problem", "problem_of"]


def problem_of(estimator, X, y, sample_error, perturbation, sessions, **others):
    """The model of an estimator, the problem of its fit, and whether y had one axis.

    The others are traces, spectra and covariances, None or as :meth:`.CircuitRegressor.fit` takes
    them.
    """
    X, Y, is_flat = data_of(estimator, X, y, **others)
    errors = errors_of(sample_error, Y)
    seen = {name: given is not None for name, given in others.items()}
    fluctuates = seen["spectra"] or seen["covariances"]
    labels = _all_sessions(sessions, len(X), others)
    model = model_of(estimator, X, Y.shape[1], seen["traces"], fluctuates, labels)
    conditions = model.conditions(X, perturbation, sessions)
    recordings = recordings_of(others["traces"], model, X.shape[1]) if seen["traces"] else ()
    powers, *shown = with_spectra(others["spectra"], model, conditions, Y, errors)
    second, conditions, Y, errors = with_covariances(others["covariances"], model, *shown)
    own = model.circuit, conditions
    problem = Problem(
        model.parameters,
        conditions,
        Y,
        errors,
        estimator.penalty,
        recordings,
        rate_form=model.circuit.dynamics == "rate",
        spectra=Fluctuations(powers, *own) if powers else None,
        covariances=CovaryingNoise(second, *own) if second else None,
    )
    return model, problem, is_flat


def _all_sessions(sessions, n_rows, others):
    """Labels of all sessions in the order in which they come."""
    labels = [] if sessions is None else list(labels_of(sessions, n_rows))
    for given in others.values():
        for own in given if isinstance(given, list | tuple) else [given]:
            label = getattr(own, "session", None)
            labels += [] if label is None else list(labels_of(label, 1))
    return tuple(dict.fromkeys(map(str, labels)))


@dataclass(frozen=True, eq=False)
class Problem:
    """Residuals in units of errors, then those of the prior, and their derivatives.

    Parameters
    ----------
    parameters : Parameters
    conditions : Conditions
    targets, errors : ndarrays of shape (n_conditions, n_outputs)
        NaN among the targets is what has not been seen.
    penalty : float
        Factor of the squared misfits of the prior.
    recordings : sequence of Recording
    rate_form : bool
        Of what is recorded.
    spectra : Fluctuations
        That have been seen; None for none.
    covariances : CovaryingNoise
        Likewise.
    """

    parameters: Parameters
    conditions: Conditions
    targets: np.ndarray
    errors: np.ndarray
    penalty: float
    recordings: tuple = ()
    rate_form: bool = False
    spectra: Fluctuations | None = None
    covariances: CovaryingNoise | None = None

    @property
    def fluctuations(self):
        """What has been seen of fluctuations."""
        return [own for own in (self.spectra, self.covariances) if own is not None]

    def follower(self):
        """Of the recordings."""
        return Follower(self.recordings, self.parameters, self.conditions, self.rate_form)

    @property
    def n_residuals(self):
        """Numbers of observations."""
        in_time = sum(np.isfinite(recording.targets).sum() for recording in self.recordings)
        targets = [target for own in self.fluctuations for target in own.targets]
        return int(self.seen.sum() + in_time + sum(own.seen.sum() for own in targets))

    @property
    def seen(self):
        """What has been seen, of the targets' shape."""
        return np.isfinite(self.targets)

    @property
    def has_prior(self):
        """For which parameters there is a prior that counts."""
        return np.isfinite(self.parameters.prior_mean) & (self.penalty > 0)

    def residuals(self, outputs, theta):
        """Their squares add up to what is minimised; of one circuit, or of several."""
        misfit = ((outputs - self.targets) / self.errors)[..., self.seen]
        prior = np.sqrt(self.penalty) * self.parameters.prior(theta)[0][..., self.has_prior]
        return np.concatenate([misfit, prior], -1)

    def jacobian(self, of_outputs, theta):
        """Derivatives of the residuals, of shape (n_residuals, n_parameters)."""
        misfit = (of_outputs / self.errors[..., None])[self.seen]
        slopes = np.sqrt(self.penalty) * self.parameters.prior(theta)[1]
        return np.concatenate([misfit, np.diag(slopes)[self.has_prior]])

    def candidates(self, thetas):
        """States of circuits, and their sums of squares; infinite without a stable state."""
        arrays = self.parameters.arrays(thetas)
        u = fixed_points_of(self.conditions, arrays)
        cost, found = np.full(len(thetas), np.inf), np.flatnonzero(np.isfinite(u).all((1, 2)))
        own = {name: array[found] for name, array in arrays.items()}
        stable = (spectral_abscissae(self.conditions, own, u[found]) < 0).all(1)
        outputs = self.conditions.outputs(own, u[found])
        costs = (self.residuals(outputs, thetas[found]) ** 2).sum(-1)
        cost[found[stable]] = costs[stable]
        follower = self.follower()
        for i in found[stable]:
            cost[i] += self.cost_of_others(thetas[i], u[i], follower)
        return u, cost

    def cost_of_others(self, theta, u, follower):
        """Sum of squares of all but steady responses; infinite if activity in time runs away."""
        cost = follower.cost(theta)
        arrays = self.parameters.arrays(theta) if self.fluctuations else None
        for own in self.fluctuations:
            cost += (own.residuals(arrays, u) ** 2).sum()
        return cost if np.isfinite(cost) else np.inf

    def is_dead(self, arrays, u):
        """Whether there is an output that no parameter acts on, for its cells are silent."""
        if self.conditions.potentials or not len(u):
            return False
        moves = self.conditions.gain(arrays, u) @ self.conditions.readout.T != 0
        return bool((self.seen.any(0) & ~(moves & self.seen).any(0)).any())
