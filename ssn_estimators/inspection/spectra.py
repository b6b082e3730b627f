"""Power spectra of fluctuations: of the linearised circuit, and of simulations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.signal import welch
from sklearn.utils import Bunch

from ssn_estimators._sklearn import POSITIVE, validate_params
from ssn_estimators._torch import made_on_cpu, to_numbers
from ssn_estimators.inspection.populations import choose_cells
from ssn_estimators.inspection.steady_states import steady_states

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from ssn_estimators._typing import Array, ArrayLike
    from ssn_estimators.circuit import Circuit
    from ssn_estimators.simulation import Simulation

__all__ = [
    "coherence",
    "cross_spectrum",
    "lfp_spectrum",
    "power_spectrum",
    "simulated_spectrum",
]

SIGNALS = ("u", "r")
MOST_ENTRIES = 2**22  # of the matrices of a block of frequencies


def power_spectrum(
    circuit: Circuit,
    drive: ArrayLike,
    frequencies: ArrayLike,
    *,
    cells: str | Sequence[int] | None = None,
    of: Literal["u", "r"] = "u",
    start: ArrayLike | None = None,
) -> Array:
    r"""Power spectra of cells in the circuit linearised at its steady state.

    With the Jacobian J, :math:`T = \mathrm{diag}(\tau)` and the spectrum of the Ornstein-Uhlenbeck
    noise, the diagonal of

    .. math::
        S(\omega) = (i \omega - J)^{-1} T^{-1} \Sigma_\eta
        \frac{2 \tau_\eta}{1 + \omega^2 \tau_\eta^2} T^{-1} (i \omega - J)^{-H}.

    It is one-sided: the integral over frequencies from 0 is the variance, that of
    :func:`~ssn_estimators.stationary_moments` with ``closure="linear"``.

    Parameters
    ----------
    circuit : Circuit
        With tensors that require a gradient, spectra can be differentiated (once) with respect to
        them and to `drive`.
    drive : array of shape (n_inputs, n_neurons)
        External drive f(h) in mV.
    frequencies : array-like of shape (n_frequencies,)
        In Hz, >= 0.
    cells : str or sequence of int, default=None
        Which cells: a population, or indices. None means all.
    of : {"u", "r"}, default="u"
        Of potentials, or of rates; those of rates are the same in the voltage and the rate form.
    start : array-like of shape (n_neurons,) or (n_inputs, n_neurons), default=None
        Potentials from which the circuit settles, in mV; None means rest, u = 0.

    Returns
    -------
    power : array of shape (n_inputs, n_frequencies, n_cells)
        In mV**2 / Hz, or Hz**2 / Hz, in float64, of the kind of the circuit's arrays; NaN for
        inputs without a stable state.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, a frequency is below 0, or there is no such
        cell or signal.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import power_spectrum
    >>> cell = Circuit([[0.0]], n_excitatory=1, noise_factor=1.0)
    >>> power_spectrum(cell, [[2.0]], [0.0, 10.0]).ravel().round(4)
    array([0.08 , 0.012])
    """
    chosen = choose_cells(circuit, cells)
    readout = np.eye(circuit.n_neurons)[chosen]
    transfer = _transfer(circuit, drive, frequencies, readout, of, start)
    return _like(circuit, (transfer.abs() ** 2).sum(-1))


def cross_spectrum(
    circuit: Circuit,
    drive: ArrayLike,
    frequencies: ArrayLike,
    *,
    cells: str | Sequence[int] | None = None,
    of: Literal["u", "r"] = "u",
    start: ArrayLike | None = None,
) -> Array:
    """Spectra and cross-spectra of cells in the circuit linearised at its steady state.

    Parameters
    ----------
    circuit, drive, frequencies, cells, of, start
        As in :func:`power_spectrum`.

    Returns
    -------
    spectrum : complex array of shape (n_inputs, n_frequencies, n_cells, n_cells)
        S as in :func:`power_spectrum`, one-sided: the integral of its real part is the covariance.

    Raises
    ------
    ValueError
        As in :func:`power_spectrum`.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import cross_spectrum
    >>> pair = Circuit([[1.25, -0.65], [1.2, -0.5]], n_excitatory=1, noise_factor=0.2)
    >>> cross_spectrum(pair, [[2.0, 2.0]], [10.0]).shape
    (1, 1, 2, 2)
    """
    chosen = choose_cells(circuit, cells)
    readout = np.eye(circuit.n_neurons)[chosen]
    transfer = _transfer(circuit, drive, frequencies, readout, of, start)
    return _like(circuit, transfer @ transfer.mH)


def coherence(
    circuit: Circuit,
    drive: ArrayLike,
    frequencies: ArrayLike,
    first: str | Sequence[int],
    second: str | Sequence[int],
    *,
    of: Literal["u", "r"] = "u",
    start: ArrayLike | None = None,
) -> Array:
    """Coherence between two cells, or the means of two groups of them.

    Parameters
    ----------
    circuit, drive, frequencies, of, start
        As in :func:`power_spectrum`.
    first, second : str or sequence of int
        A population, or the indices of one or more cells, whose mean is taken.

    Returns
    -------
    coherence : array of shape (n_inputs, n_frequencies)
        From 0 to 1: squared modulus of the cross-spectrum over the product of the spectra. NaN
        without a stable state, and for signals that do not vary.

    Raises
    ------
    ValueError
        As in :func:`power_spectrum`.

    Examples
    --------
    Noise of one cell alone is the only source of both signals.

    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import coherence
    >>> pair = Circuit([[1.25, -0.65], [1.2, -0.5]], n_excitatory=1, noise_factor=[0.2, 0.0])
    >>> coherence(pair, [[2.0, 2.0]], [10.0], "E", "I").round(6)
    array([[1.]])
    """
    readout = np.zeros((2, circuit.n_neurons))
    for row, cells in zip(readout, (first, second), strict=True):
        chosen = choose_cells(circuit, cells)
        np.add.at(row, chosen, 1 / len(chosen))
    transfer = _transfer(circuit, drive, frequencies, readout, of, start)
    cross = (transfer[..., 0, :] * transfer[..., 1, :].conj()).sum(-1)
    power = (transfer.abs() ** 2).sum(-1)
    return _like(circuit, cross.abs() ** 2 / power.prod(-1))


def lfp_spectrum(
    circuit: Circuit,
    drive: ArrayLike,
    frequencies: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    of: Literal["u", "r"] = "u",
    start: ArrayLike | None = None,
) -> Array:
    """Power spectrum of a weighted sum of potentials, such as a local field potential.

    Parameters
    ----------
    circuit, drive, frequencies, of, start
        As in :func:`power_spectrum`.
    weights : array-like of shape (n_neurons,), default=None
        Of each cell in the sum; None means the mean over the excitatory cells.

    Returns
    -------
    power : array of shape (n_inputs, n_frequencies)
        In mV**2 / Hz (with weights without units), as in :func:`power_spectrum`.

    Raises
    ------
    ValueError
        As in :func:`power_spectrum`, or if weights are not one finite number for each cell.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import lfp_spectrum
    >>> cells = Circuit([[0.0, 0.0], [0.0, 0.0]], n_excitatory=2, noise_factor=1.0)
    >>> lfp_spectrum(cells, [[2.0, 2.0]], [0.0]).round(4)  # independent noise averages out
    array([[0.04]])
    """
    n, n_excitatory = circuit.n_neurons, circuit.n_excitatory
    if weights is None:
        weights = (np.arange(n) < n_excitatory) / n_excitatory
    weights = to_numbers(weights, float, "weights")
    if weights.shape != (n,) or not np.isfinite(weights).all():
        raise ValueError(f"weights must be {n} finite numbers, got shape {weights.shape}.")
    transfer = _transfer(circuit, drive, frequencies, weights[None], of, start)
    return _like(circuit, (transfer.abs() ** 2).sum(-1)[..., 0])


def _like(circuit, found):
    return found if torch.is_tensor(circuit.weights) else found.detach().numpy()


@made_on_cpu
def _transfer(circuit, drive, frequencies, readout, of, start):
    """From white noise of one-sided spectrum 1 / Hz to signals, the rows of `readout`.

    Complex tensor of shape (n_inputs, n_frequencies, n_signals, n_neurons), whose product with its
    own adjoint is the cross-spectrum of the signals.
    """
    if of not in SIGNALS:
        raise ValueError(f"of must be one of {SIGNALS}, got {of!r}.")
    frequencies = to_numbers(frequencies, float, "frequencies")
    legal = frequencies.ndim == 1 and frequencies.size and np.isfinite(frequencies).all()
    if not legal or frequencies.min() < 0:
        raise ValueError(f"frequencies must be one or more numbers >= 0, got {frequencies!r}.")
    circuit.dense("spectra")
    tensors = replace(circuit.to_torch(dtype=torch.float64), dynamics="voltage")
    # linearised, both forms have the same rates; potentials of the rate form are W r + f(h) + eta
    through_rates = of == "u" and circuit.dynamics == "rate"
    drive = tensors.check_drive(drive)
    u = _steady(tensors, drive, start)
    omega = torch.from_numpy(2 * np.pi * frequencies / 1000).to(drive)  # 1/ms
    readout = torch.from_numpy(readout).to(drive)
    tau_eta = circuit.tau_eta
    # 4, not 2, since it is one-sided; from ms to 1/Hz
    size = torch.sqrt(4 * tau_eta / (1 + (omega * tau_eta) ** 2) / 1000)
    n_blocks = -(-len(omega) * circuit.n_neurons**2 // MOST_ENTRIES)
    blocks = torch.tensor_split(torch.arange(len(omega)), n_blocks)
    lags = _lags(circuit, omega)
    found = []
    for own, gain in zip(u, tensors.gain(u), strict=True):
        signals = readout
        if of == "r" or through_rates:
            signals = (readout @ tensors.weights if through_rates else readout) * gain
        signals = signals.to(torch.complex128)
        if own.isnan().any():
            found.append(signals.new_full((len(omega), *readout.shape), torch.nan))
            continue
        parts = []
        for block in blocks:
            own_lags, filters = (x[block] for x in lags)
            matrices = torch.diag_embed(own_lags) - tensors.weights * (filters * gain)[:, None]
            rows = torch.linalg.solve(matrices, signals[None], left=False)
            rows = rows @ tensors.noise_factor.to(rows)
            if through_rates:
                rows = rows + (readout @ tensors.noise_factor).to(rows)
            parts.append(rows * size[block, None, None])
        found.append(torch.cat(parts))
    return torch.stack(found)


def _lags(circuit, omega):
    """L and F of shape (n_frequencies, n_neurons) in L u = W F g u + f(h) + eta, complex."""
    lags = 1 + 1j * omega[:, None] * torch.from_numpy(circuit.tau).to(omega)
    if circuit.receptors is None:
        return lags, torch.ones_like(lags)
    tau = circuit.receptors.tau
    lags = (1 + 1j * omega * tau[circuit.receptors.external])[:, None]
    shares = torch.tensor(circuit.receptors.shares_of_cells(circuit.populations)).to(omega)
    of_receptors = 1 / (1 + 1j * omega[:, None] * torch.tensor(list(tau.values())).to(omega))
    filters = of_receptors @ shares.to(of_receptors)
    return lags.expand_as(filters), lags * filters


def _steady(circuit, drive, start):
    """Potentials of stable states, NaN without one; tensors that can be differentiated once."""
    states = steady_states(circuit, drive, start=start)
    u = np.where(states.stable[:, None], states.u, np.nan)
    u = torch.from_numpy(u).to(drive)
    # a Newton step from the solution: its derivatives are those of the implicit function
    residual = drive - u + circuit.recurrent(circuit.rates(u))
    matrix = torch.eye(circuit.n_neurons).to(u) - circuit.weights * circuit.gain(u)[:, None]
    matrix = matrix.detach()
    return u + torch.linalg.solve_ex(matrix, residual[..., None]).result[..., 0]


@validate_params(segment=POSITIVE)
def simulated_spectrum(
    simulation: Simulation, *, segment: float = 500.0, of: Literal["u", "r"] = "u"
) -> Bunch:
    """Power spectra of simulated cells, by Welch's method.

    Parameters
    ----------
    simulation : Simulation
        With trajectories: ``simulate(..., record="u")``.
    segment : float, default=500.0
        Length in ms of the segments, which overlap by a half, each without its mean and under a
        Hann window; at most that of the simulation. Frequencies are multiples of its inverse.
    of : {"u", "r"}, default="u"
        Of potentials, or of rates, whatever was recorded.

    Returns
    -------
    spectrum : Bunch
        `frequencies` of shape (n_frequencies,) in Hz; `power` of shape (n_inputs, n_frequencies,
        n_neurons), one-sided, in mV**2 / Hz (of "r", Hz**2 / Hz), the mean over the trials that did
        not diverge; NaN for inputs without one.

    Raises
    ------
    ValueError
        If the signal was not recorded, or `segment` is not longer than a step.

    References
    ----------
    .. [1] Welch (1967). The use of fast Fourier transform for the estimation of power spectra.
       IEEE Transactions on Audio and Electroacoustics 15, 70-73.

    Examples
    --------
    >>> from ssn_estimators import Circuit, simulate
    >>> from ssn_estimators.inspection import simulated_spectrum
    >>> cell = Circuit([[0.0]], n_excitatory=1, noise_factor=1.0)
    >>> simulation = simulate(cell, [[2.0]], duration=1000.0, record="u", random_state=0)
    >>> simulated_spectrum(simulation).frequencies[:3]
    array([0., 2., 4.])
    """
    if of not in SIGNALS:
        raise ValueError(f"of must be one of {SIGNALS}, got {of!r}.")
    signal = getattr(simulation, of)
    if signal is None:
        raise ValueError(f"of={of!r} was not recorded; simulate with record={of!r}.")
    times, signal, diverged = (
        x.detach().cpu().numpy() if torch.is_tensor(x) else x
        for x in (simulation.times, signal, simulation.diverged)
    )
    dt = float(times[-1] / len(times))
    n_steps = round(segment / dt)
    if len(times) < 2:
        raise ValueError(f"a spectrum needs a simulation of two steps or more, got {len(times)}.")
    if n_steps < 2:
        raise ValueError(f"segment must be at least two steps of {dt:g} ms, got {segment:g}.")
    with np.errstate(over="ignore", invalid="ignore"):  # of trials that diverged
        frequencies, power = welch(
            signal.astype(float), fs=1000 / dt, nperseg=min(n_steps, len(times)), axis=0
        )
    power = power.transpose(1, 2, 0, 3)
    stays = ~diverged[..., None, None]
    n_trials = stays.sum(1)
    total = np.where(stays, power, 0.0).sum(1)
    return Bunch(
        frequencies=frequencies,
        power=np.where(n_trials > 0, total / np.maximum(n_trials, 1), np.nan),
    )
