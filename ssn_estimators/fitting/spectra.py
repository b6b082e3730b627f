r"""Power spectra of the linearised circuit as a function of its free numbers, and their slopes.

With :math:`M = L - W F g` (lags L, filters F, gains g) and the signals' weights c, a spectrum is
:math:`s |t|^2` with :math:`t = y N` and :math:`y = c M^{-1}`. Its derivatives are those of
:math:`dt = (dc + y \, d(W F g) - y \, dL) M^{-1} N + y \, dN`: one inverse for each frequency, in
place of one solution for each parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ssn_estimators._torch import to_numbers
from ssn_estimators.fitting.data import errors_of, explained_variance
from ssn_estimators.fitting.model import means_of, with_conditions
from ssn_estimators.fitting.steady import gain_slopes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from ssn_estimators._typing import ArrayLike

__all__ = ["Fluctuations", "Spectra", "SpectralTarget", "with_spectra"]

SIGNALS = ("u", "r")


@dataclass(frozen=True, eq=False)
class Spectra:
    """Power spectra of fluctuations about steady states, for :class:`.CircuitRegressor`.

    They are one-sided, as those of :func:`~ssn_estimators.inspection.lfp_spectrum` and
    :func:`~ssn_estimators.inspection.simulated_spectrum`. If their unit is arbitrary, as with local
    field potentials, ``Free("noise")`` takes it up.

    Parameters
    ----------
    inputs : array-like of shape (n_conditions, n_inputs)
        Conditions, as the X of a fit.
    frequencies : array-like of shape (n_frequencies,)
        In Hz, >= 0.
    power : array-like of shape (n_conditions, n_frequencies) or \
            (n_conditions, n_frequencies, n_signals)
        In mV**2 / Hz, or Hz**2 / Hz; NaN is what has not been observed.
    sample_error : float or array-like, default=None
        Standard errors of the power: one, or of its shape. None means that they are 10% of the
        power, as those of Welch's method with 100 segments.
    cells : sequence of str or int, default=None
        Of which cell, or mean over the cells of which population, each signal is. None means the
        mean over the excitatory cells.
    of : {"u", "r"}, default="u"
        Of potentials, or of rates; circuits in the rate form have those of rates.
    perturbation : array-like of shape (n_conditions, n_neurons) or \
            (n_conditions, n_populations), default=None
        Further drive in mV.
    session : str or int, default=None
        Of all conditions, if there are several.

    Examples
    --------
    The time constant of a cell, and the size of its noise, from a spectrum.

    >>> from ssn_estimators import Circuit, CircuitRegressor
    >>> from ssn_estimators.fitting import Spectra
    >>> from ssn_estimators.inspection import lfp_spectrum
    >>> frequencies = [1.0, 10.0, 30.0, 100.0]
    >>> cell = Circuit([[0.0]], n_excitatory=1, tau_e=20.0, noise_factor=0.5)
    >>> power = lfp_spectrum(cell, [[2.0]], frequencies)
    >>> guess = Circuit([[0.0]], n_excitatory=1, tau_e=10.0, noise_factor=1.0)
    >>> model = CircuitRegressor(guess, ["tau", "noise"], input_map=[[1.0]], random_state=0)
    >>> model.fit(spectra=Spectra([[2.0]], frequencies, power)).circuit_.tau.round(3)
    array([20.])
    """

    inputs: ArrayLike
    frequencies: ArrayLike
    power: ArrayLike
    sample_error: ArrayLike | None = None
    cells: Sequence[str | int] | None = None
    of: Literal["u", "r"] = "u"
    perturbation: ArrayLike | None = None
    session: str | int | None = None


@dataclass(frozen=True, eq=False)
class SpectralTarget:
    """Spectra, checked.

    Parameters
    ----------
    rows : slice
        Of the conditions.
    frequencies : ndarray of shape (n_frequencies,)
        In Hz.
    readout : ndarray of shape (n_signals, n_neurons)
    power, errors : ndarrays of shape (n_conditions, n_frequencies, n_signals)
        NaN among the powers is what has not been seen.
    of_rates : bool
    """

    rows: slice
    frequencies: np.ndarray
    readout: np.ndarray
    power: np.ndarray
    errors: np.ndarray
    of_rates: bool

    @property
    def seen(self):
        """What has been seen, of the shape of the power."""
        return np.isfinite(self.power)


def with_spectra(spectra, model, conditions, Y, errors):
    """Spectra as targets, and conditions, responses and errors with theirs, which are not seen."""
    return with_conditions(spectra, Spectra, _target, model, conditions, Y, errors)


def _target(own, model, rows):
    circuit, n_conditions = model.circuit, rows.stop - rows.start
    if own.of not in SIGNALS or (own.of == "u" and circuit.dynamics == "rate"):
        raise ValueError(
            f"of of spectra must be one of {SIGNALS}, and 'r' in the rate form; got {own.of!r}."
        )
    frequencies = to_numbers(own.frequencies, float, "frequencies of spectra")
    power = to_numbers(own.power, float, "power of spectra")
    if frequencies.ndim != 1 or not (np.isfinite(frequencies) & (frequencies >= 0)).all():
        raise ValueError("frequencies of spectra must be numbers >= 0, along one axis.")
    excitatory = [list(range(circuit.n_excitatory))]
    readout = means_of(circuit, excitatory if own.cells is None else own.cells)
    shape = (n_conditions, len(frequencies), len(readout))
    if power.shape not in (shape, shape[:2] if shape[2] == 1 else shape):
        raise ValueError(f"power of spectra must have shape {shape}, got {power.shape}.")
    power = power.reshape(shape)
    if not (np.nan_to_num(power, nan=1.0) > 0).all() or np.isinf(power).any():
        raise ValueError("power of spectra must be finite and > 0 where it is not NaN.")
    errors = 0.1 * power if own.sample_error is None else own.sample_error
    errors = to_numbers(errors, float, "sample_error")
    errors = errors.reshape(shape) if errors.size == power.size else errors
    flat = errors if errors.ndim == 0 else errors.reshape(shape[0], -1)
    errors = errors_of(flat, power.reshape(shape[0], -1)).reshape(shape)
    return SpectralTarget(rows, frequencies, readout, power, errors, own.of == "r")


class Fluctuations:
    """Misfits of spectra.

    Parameters
    ----------
    targets : sequence of SpectralTarget
    circuit : Circuit
        Whose noise and receptors hold, NumPy.
    conditions : Conditions
    """

    def __init__(self, targets, circuit, conditions):
        self.targets, self.circuit, self.conditions = targets, circuit, conditions

    def power(self, target, arrays, u):
        """Of shape (n_conditions, n_frequencies, n_signals), at potentials of all conditions."""
        gains = self.conditions.gain(arrays, u[target.rows])
        return np.array([self._state(target, arrays, gain).power for gain in gains])

    def explained_variance(self, arrays, u):
        """Of the logarithms of the power, of each target's signals."""
        found = []
        for own in self.targets:
            logs = np.log(own.power), np.log(self.power(own, arrays, u))
            found.append(explained_variance(*(x.reshape(-1, x.shape[-1]) for x in logs)))
        return found

    def residuals(self, arrays, u):
        """In units of errors, of what has been seen; NaN without a state."""
        found = [
            ((self.power(own, arrays, u) - own.power) / own.errors)[own.seen]
            for own in self.targets
        ]
        return np.concatenate(found)

    def jacobian(self, arrays, slopes, u, by_parameters):
        """Derivatives of the residuals, from those of all potentials by the parameters."""
        law, found = self.conditions.law, []
        for own in self.targets:
            rows = []
            for potentials, change in zip(u[own.rows], by_parameters[own.rows], strict=True):
                by_gain = gain_slopes(law, arrays, slopes, potentials, change)
                gain = arrays["k"] * law.gain(potentials)
                rows.append(self._slopes(own, arrays, slopes, gain, by_gain))
            found.append((np.array(rows) / own.errors[..., None])[own.seen])
        return np.concatenate(found)

    def _state(self, target, arrays, gain):
        return _State(self.circuit, target, arrays, gain)

    def _slopes(self, target, arrays, slopes, gain, by_gain):
        """Of the power under one condition, of shape (n_frequencies, n_signals, n_parameters)."""
        state, weights = self._state(target, arrays, gain), arrays["weights"]
        y, filters, noise = state.rows, state.filters, state.noise
        back = state.transfer.conj()
        v = ((state.inverse @ noise) @ back.swapaxes(1, 2)).swapaxes(1, 2)
        of_gain = ((y @ weights) * filters[:, None] * v).real
        if target.of_rates:
            of_gain = of_gain + (target.readout * v).real
        found = of_gain @ by_gain
        if "weights" in slopes:
            pairs = (y[..., None] * (filters * gain)[:, None, None] * v[..., None, :]).real
            found = found + pairs.reshape(*pairs.shape[:2], -1) @ slopes["weights"]
        if "tau" in slopes:
            of_tau = -(y * 1j * state.omega[:, None, None] * v).real
            found = found + of_tau @ slopes["tau"]
        if "noise" in slopes:
            found = found + (y * (back @ self.circuit.noise_factor.T)).real @ slopes["noise"]
        return 2 * state.size[:, None, None] * found


class _State:
    """Of the linearised circuit under one condition, over frequencies."""

    def __init__(self, circuit, target, arrays, gain):
        self.omega = 2 * np.pi * target.frequencies / 1000  # 1/ms
        # 4, not 2, since it is one-sided; from ms to 1/Hz
        self.size = 4 * circuit.tau_eta / (1 + (self.omega * circuit.tau_eta) ** 2) / 1000
        lags, self.filters = _response(circuit, arrays["tau"], self.omega)
        matrix = lags[..., None] * np.eye(len(gain))
        self.inverse = np.linalg.inv(matrix - arrays["weights"] * (self.filters * gain)[:, None])
        self.noise = arrays["noise"][:, None] * circuit.noise_factor
        self.rows = (target.readout * gain if target.of_rates else target.readout) @ self.inverse
        self.transfer = self.rows @ self.noise
        self.power = self.size[:, None] * (np.abs(self.transfer) ** 2).sum(-1)


def _response(circuit, tau, omega):
    """Lags and filters, complex and of shape (n_frequencies, n_neurons)."""
    if circuit.receptors is None:
        lags = 1 + 1j * omega[:, None] * tau
        return lags, np.ones_like(lags)
    tau = circuit.receptors.tau
    lags = np.repeat(
        (1 + 1j * omega * tau[circuit.receptors.external])[:, None], len(circuit.tau), 1
    )
    of_receptors = 1 / (1 + 1j * omega[:, None] * np.array(list(tau.values())))
    shares = circuit.receptors.shares_of_cells(circuit.populations)
    return lags, lags * (of_receptors @ shares)
