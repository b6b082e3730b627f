r"""Covariances of the linearised circuit as a function of its free numbers, and their slopes.

With the Jacobian :math:`J = T^{-1} (W G - I)` the covariance :math:`\Sigma` of the potentials and
that with the noise, X, solve

.. math::
    0 = J X - X / \tau_\eta + T^{-1} \Sigma_\eta, \qquad
    0 = J \Sigma + \Sigma J^T + X T^{-1} + T^{-1} X^T.

For the slopes of an entry :math:`c^T \Sigma d` the second one is solved once more, transposed, with
:math:`d c^T` in place of the source: once for each entry, not once for each parameter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ssn_estimators._torch import to_numbers
from ssn_estimators.fitting.data import explained_variance
from ssn_estimators.fitting.model import means_of, with_conditions
from ssn_estimators.fitting.steady import gain_slopes
from ssn_estimators.stationary.closure import System
from ssn_estimators.stationary.solvers import Lyapunov

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from ssn_estimators._typing import ArrayLike

__all__ = ["CovarianceTarget", "Covariances", "CovaryingNoise", "with_covariances"]

SIGNALS = ("u", "r")
N_SAMPLES = 100  # of which errors are, where there are none
ASYMMETRY = 1e-6  # relative; more is not rounding


@dataclass(frozen=True, eq=False)
class Covariances:
    """Covariances of fluctuations about steady states, for :class:`.CircuitRegressor`.

    They are those of the linearised circuit, as of :func:`~ssn_estimators.stationary_moments` with
    ``closure="linear"``: right where the noise is weak.

    Parameters
    ----------
    inputs : array-like of shape (n_conditions, n_inputs)
        Conditions, as the X of a fit.
    covariance : array-like of shape (n_conditions, n_observed, n_observed)
        In Hz**2, or mV**2, symmetric; NaN is what has not been observed, such as all but the
        variances.
    sample_error : float or array-like, default=None
        Standard errors of the covariances: one, of shape (n_observed, n_observed), or of theirs.
        None means those of 100 independent normal samples, for which variances must be observed
        where covariances are.
    cells : sequence of str or int, default=None
        Of which cells, or means over the cells of which populations, they are. None means those of
        the columns of y.
    of : {"r", "u"}, default="r"
        Of rates, or of potentials; circuits in the rate form have those of rates.
    perturbation : array-like of shape (n_conditions, n_neurons) or \
            (n_conditions, n_populations), default=None
        Further drive in mV.
    session : str or int, default=None
        Of all conditions, if there are several.

    Examples
    --------
    How much noise a cell gets, from the variance of its potential.

    >>> from ssn_estimators import Circuit, CircuitRegressor, stationary_moments
    >>> from ssn_estimators.fitting import Covariances
    >>> cell = Circuit([[0.0]], n_excitatory=1, noise_factor=0.5)
    >>> seen = stationary_moments(cell, [[2.0]], closure="linear").covariance
    >>> guess = Circuit([[0.0]], n_excitatory=1, noise_factor=1.0)
    >>> model = CircuitRegressor(guess, ["noise"], input_map=[[1.0]], random_state=0)
    >>> model.fit(covariances=Covariances([[2.0]], seen, of="u")).circuit_.noise_factor.round(3)
    array([[0.5]])
    """

    inputs: ArrayLike
    covariance: ArrayLike
    sample_error: ArrayLike | None = None
    cells: Sequence[str | int] | None = None
    of: Literal["u", "r"] = "r"
    perturbation: ArrayLike | None = None
    session: str | int | None = None


@dataclass(frozen=True, eq=False)
class CovarianceTarget:
    """Covariances, checked: of the pairs of signals of the upper triangle.

    Parameters
    ----------
    rows : slice
        Of the conditions.
    readout : ndarray of shape (n_signals, n_neurons)
    values, errors : ndarrays of shape (n_conditions, n_pairs)
        NaN among the values is what has not been seen.
    of_rates : bool
    """

    rows: slice
    readout: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    of_rates: bool

    @property
    def pairs(self):
        """Numbers of the signals of each pair."""
        return np.triu_indices(len(self.readout))

    @property
    def seen(self):
        """What has been seen, of the shape of the values."""
        return np.isfinite(self.values)


def with_covariances(covariances, model, conditions, Y, errors):
    """Covariances as targets, and conditions, responses and errors with theirs, not seen."""
    return with_conditions(covariances, Covariances, _target, model, conditions, Y, errors)


def _target(own, model, rows):
    circuit, n_conditions = model.circuit, rows.stop - rows.start
    if own.of not in SIGNALS or (own.of == "u" and circuit.dynamics == "rate"):
        raise ValueError(
            f"of of covariances must be one of {SIGNALS}, and 'r' in the rate form; got {own.of!r}."
        )
    if circuit.receptors is not None:
        raise ValueError("covariances are fitted by circuits without receptors; spectra are by all")
    readout = model.readout if own.cells is None else means_of(circuit, own.cells)
    shape = (n_conditions, len(readout), len(readout))
    values = to_numbers(own.covariance, float, "covariance of covariances")
    if values.shape != shape:
        raise ValueError(f"covariance of covariances must have shape {shape}, got {values.shape}.")
    if np.isinf(values).any() or not np.isfinite(values).any():
        raise ValueError("covariance of covariances must be finite where it is not NaN, and seen.")
    size = np.nanmax(np.abs(values))
    if not np.allclose(values, values.swapaxes(1, 2), 0, ASYMMETRY * size, equal_nan=True):
        raise ValueError("covariance of covariances must be symmetric, with NaN in both places.")
    upper = (slice(None), *np.triu_indices(len(readout)))
    errors = _errors(own, values)[upper]
    values = values[upper]
    if not (errors[np.isfinite(values)] > 0).all() or np.isinf(errors).any():
        raise ValueError("sample_error of covariances must be finite and > 0 where they are seen.")
    errors = np.where(np.isfinite(values), errors, 1.0)
    return CovarianceTarget(rows, readout, values, errors, own.of == "r")


def _errors(own, values):
    if own.sample_error is not None:
        errors = to_numbers(own.sample_error, float, "sample_error of covariances")
        if errors.shape not in ((), values.shape[1:], values.shape):
            raise ValueError(
                f"sample_error of covariances must be a number, or of shape {values.shape[1:]} or "
                f"{values.shape}; got {errors.shape}."
            )
        return np.broadcast_to(errors, values.shape)
    variance = np.diagonal(values, axis1=1, axis2=2)
    product = variance[:, :, None] * variance[:, None, :]
    if not (product[np.isfinite(values)] > 0).all():
        raise ValueError(
            "covariances without a sample_error must come with variances > 0 of all signals."
        )
    return np.sqrt((product + values**2) / N_SAMPLES)


class CovaryingNoise:
    """Misfits of covariances.

    Parameters
    ----------
    targets : sequence of CovarianceTarget
    circuit : Circuit
        Whose noise holds, NumPy.
    conditions : Conditions
    """

    def __init__(self, targets, circuit, conditions):
        self.targets, self.conditions = targets, conditions
        self.tensors = replace(circuit, dynamics="voltage").to_torch(dtype=torch.float64)
        self.noise = circuit.noise_factor @ circuit.noise_factor.T

    def explained_variance(self, arrays, u):
        """Of each target's entries, of shape (n_signals, n_signals); NaN of what is not seen."""
        found = []
        for own in self.targets:
            of_pairs = explained_variance(own.values, self.values(own, arrays, u))
            n, pairs = len(own.readout), own.pairs
            whole = np.full((n, n), np.nan)
            whole[pairs], whole[pairs[::-1]] = of_pairs, of_pairs
            found.append(whole)
        return found

    def values(self, target, arrays, u):
        """Of shape (n_conditions, n_pairs); NaN without a stable state."""
        state = self._state(target, arrays, u)
        first, second = target.pairs
        signals = state.signals
        whole = signals @ state.covariance @ signals.swapaxes(1, 2)
        return whole[:, first, second]

    def residuals(self, arrays, u):
        """In units of errors, of what has been seen; NaN without a stable state."""
        found = [
            ((self.values(own, arrays, u) - own.values) / own.errors)[own.seen]
            for own in self.targets
        ]
        return np.concatenate(found)

    def jacobian(self, arrays, slopes, u, by_parameters):
        """Derivatives of the residuals, from those of all potentials by the parameters."""
        found = []
        for own in self.targets:
            changes = by_parameters[own.rows]
            by_gain = gain_slopes(self.conditions.law, arrays, slopes, u[own.rows], changes)
            state = self._state(own, arrays, u)
            of_pairs = [
                self._slopes(own, state, arrays, slopes, by_gain, *pair)
                for pair in zip(*own.pairs, strict=True)
            ]
            of_pairs = np.stack(of_pairs, 1) / own.errors[..., None]
            found.append(of_pairs[own.seen])
        return np.concatenate(found)

    def _state(self, target, arrays, u):
        gain = self.conditions.gain(arrays, u[target.rows])
        return _State(self.tensors, self.noise, target, arrays, gain)

    def _slopes(self, target, state, arrays, slopes, by_gain, first, second):
        """Of one entry under all conditions, of shape (n_conditions, n_parameters)."""
        weights, rate, gain, cross = arrays["weights"], state.rate, state.gain, state.cross
        c, d = state.signals[:, first], state.signals[:, second]
        to_covariance = c[:, :, None] * d[:, None, :]
        source = (to_covariance + to_covariance.swapaxes(1, 2)) / 2
        sensitivity = state.solve_adjoint(source)
        to_cross = 2 * state.inverse.swapaxes(1, 2) @ (sensitivity * rate)
        to_jacobian = 2 * sensitivity @ state.covariance + to_cross @ cross.swapaxes(1, 2)
        to_recurrence = rate[:, None] * to_jacobian
        of_gain = (to_recurrence * weights).sum(1)
        if target.of_rates:
            with_c, with_d = ((state.covariance @ x[..., None])[..., 0] for x in (c, d))
            of_gain = of_gain + target.readout[first] * with_d + target.readout[second] * with_c
        found = (of_gain[:, None] @ by_gain)[:, 0]
        if "weights" in slopes:
            of_weights = to_recurrence * gain[:, None]
            found = found + of_weights.reshape(len(gain), -1) @ slopes["weights"]
        if "tau" in slopes:
            recurrence = weights * gain[:, None] - np.eye(len(weights))
            of_rate = (to_jacobian * recurrence).sum(2) + (to_cross * state.noise).sum(2)
            of_rate = of_rate + 2 * (sensitivity * cross.swapaxes(1, 2)).sum(2)
            found = found - (of_rate * rate**2) @ slopes["tau"]
        if "noise" in slopes:
            to_noise = rate[:, None] * to_cross
            to_noise = (to_noise + to_noise.swapaxes(1, 2)) * self.noise
            found = found + (to_noise @ arrays["noise"]) @ slopes["noise"]
        return found


class _State:
    """Of the linearised circuit under several conditions."""

    def __init__(self, tensors, noise, target, arrays, gain):
        self.gain, self.rate = gain, 1 / arrays["tau"]
        self.noise = arrays["noise"][:, None] * noise * arrays["noise"]
        weights = torch.from_numpy(arrays["weights"].astype(float))
        system = System(tensors, weights, torch.from_numpy(self.noise), "linear")
        system.rate = torch.from_numpy(self.rate)
        known = torch.from_numpy(np.nan_to_num(gain))
        self.equation = Lyapunov(system, known, known.new_zeros(len(gain), 1))
        inverse = self.equation.inverse
        cross = inverse @ (system.rate[:, None] * system.noise)
        flow = cross * system.rate
        covariance = self.equation.solve(flow + flow.mT).numpy()
        stable = self.equation.stable.numpy() & np.isfinite(gain).all(1)
        self.covariance = np.where(stable[:, None, None], covariance, np.nan)
        self.inverse, self.cross = inverse.numpy(), cross.numpy()
        self.signals = np.broadcast_to(target.readout, (len(gain), *target.readout.shape))
        if target.of_rates:
            self.signals = self.signals * gain[:, None]

    def solve_adjoint(self, source):
        """Solution of J^T P + P J + Q = 0."""
        return self.equation.solve_adjoint(torch.from_numpy(source)).numpy()
