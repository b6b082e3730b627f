"""`simulate`: moments, rates and divergence of a circuit's activity."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_random_state

from ssn_estimators.simulation.adjoint import integrate
from ssn_estimators.simulation.noise import ou_chunks
from ssn_estimators.simulation.reference import SCHEMES
from ssn_estimators.simulation.reference import rates as firing_rates

__all__ = ["DIVERGENCE_THRESHOLD", "Simulation", "check_time_grid", "simulate"]

DIVERGENCE_THRESHOLD = 1e3  # mV; [P] and biology stay below 50, a runaway passes it within ms
CHUNK_STEPS = 256  # at most, so that a run whose trials have all diverged ends early
RECORDABLE = ("u", "r", "eta")
CHUNK_ELEMENTS = 2**19  # of a chunk of trajectories, so that it stays in the cache


@dataclass(frozen=True, eq=False)
class Simulation:
    """What :func:`simulate` saw. Arrays are of the kind (NumPy or torch) of the circuit's.

    Attributes
    ----------
    mean : array of shape (n_inputs, n_neurons)
        Mean potential in mV over the trials and the time after burn-in.
    covariance : array of shape (n_inputs, n_neurons, n_neurons) or None
        Covariance of the potentials in mV**2 over the same samples (divided by their number).
    rates : array of shape (n_inputs, n_neurons) or None
        Mean firing rates in Hz over the same samples.
    diverged : array of shape (n_inputs, n_trials), bool
        Trials in which some potential exceeded 1000 mV in magnitude or was not finite. They
        are left out of the moments; an input whose trials all diverged has NaN there.
    divergence_time : array of shape (n_inputs, n_trials)
        When, in ms from the start of burn-in; NaN for trials that stayed finite.
    times : array of shape (n_steps,)
        Times of the recorded trajectories, in ms from the end of burn-in.
    u, r, eta : arrays of shape (n_steps, n_inputs, n_trials, n_neurons), or None
        Trajectories, if asked for: potentials (mV), rates (Hz), noise (mV). `eta` has one
        trial axis for all inputs, shape (n_steps, 1, n_trials, n_neurons), if it was shared.
    """

    mean: np.ndarray | torch.Tensor
    covariance: np.ndarray | torch.Tensor | None
    rates: np.ndarray | torch.Tensor
    diverged: np.ndarray | torch.Tensor
    divergence_time: np.ndarray | torch.Tensor
    times: np.ndarray | torch.Tensor
    u: np.ndarray | torch.Tensor | None = None
    r: np.ndarray | torch.Tensor | None = None
    eta: np.ndarray | torch.Tensor | None = None

    @property
    def message(self):
        """The outcome in one sentence."""
        n_diverged, n_trials = (
            int(self.diverged.sum()),
            self.diverged.shape[0] * self.diverged.shape[1],
        )
        if not n_diverged:
            return f"All {n_trials} trials stayed finite."
        first = float(np.nanmin(np.asarray(self.divergence_time.tolist())))
        return (
            f"{n_diverged} of {n_trials} trials diverged (|u| > {DIVERGENCE_THRESHOLD:g} mV), "
            f"the first {first:g} ms after the start."
        )

    def __repr__(self):
        n_inputs, n_neurons = self.mean.shape
        return (
            f"Simulation(n_inputs={n_inputs}, n_trials={self.diverged.shape[1]}, "
            f"n_neurons={n_neurons}: {self.message})"
        )


def simulate(
    circuit,
    drive,
    *,
    n_trials=10,
    duration=500.0,
    burn_in=100.0,
    dt=1.0,
    solver="heun",
    shared_noise=False,
    random_state=None,
    record=None,
    covariance=True,
    rates=True,
):
    """Simulate a circuit from u = 0 and stationary noise.

    Nothing is clipped: an unstable circuit diverges, and the result says so.

    Parameters
    ----------
    circuit : Circuit
        Its arrays set the dtype and the device. With tensors that require a gradient, the
        moments can be differentiated with respect to them and to `drive`; the gradient
        reaches back to the end of burn-in, as in the training of [1]_.
    drive : array of shape (n_inputs, n_neurons) or (n_steps, n_inputs, n_neurons)
        External drive f(h) in mV, constant or changing in time; then `n_steps` is the
        number of steps of burn-in and duration together.
    n_trials : int, default=10
        Number of trials of every input.
    duration : float, default=500.0
        Time over which moments are taken, after burn-in, in ms.
    burn_in : float, default=100.0
        Time simulated before, in ms.
    dt : float, default=1.0
        Time step in ms.
    solver : {"heun", "ab2", "euler"}, default="heun"
        Integration scheme: Heun (two evaluations a step) and Adams-Bashforth 2 (one) are of
        second order, Euler of first. The noise is updated exactly under each. [1]_ uses
        Euler at 0.2 ms, which inflates the variability of strongly coupled circuits.
    shared_noise : bool, default=False
        Whether trial i of every input has the same noise (common random numbers). Then an
        input's result does not depend on the other inputs, and the errors of the inputs are
        correlated.
    random_state : int, RandomState instance or None, default=None
        Source of the noise.
    record : {"u", "r", "eta"}, tuple of them or None, default=None
        Trajectories to return.
    covariance, rates : bool, default=True
        Whether to compute the covariance, which costs about as much as the recurrent input,
        and the mean rates.

    Returns
    -------
    simulation : Simulation
        Moments, rates, divergence and, if asked for, trajectories.

    Raises
    ------
    ValueError
        If a parameter is not legal or `drive` has the wrong shape or is not finite.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35.

    Examples
    --------
    >>> from ssn_estimators import Circuit, simulate
    >>> cell = Circuit([[0.0]], n_excitatory=1, noise_factor=0.0)
    >>> simulate(cell, [[2.0]], n_trials=1, duration=1.0, burn_in=500.0).mean.round(6)
    array([[2.]])
    """
    n_burn, n_window = check_time_grid(duration=duration, burn_in=burn_in, dt=dt)
    if not isinstance(n_trials, Integral) or n_trials < 1:
        raise ValueError(f"n_trials must be a positive integer, got {n_trials!r}.")
    if solver not in SCHEMES:
        raise ValueError(f"solver must be one of {sorted(SCHEMES)}, got {solver!r}.")
    if record is None or isinstance(record, str):
        record = (record,) if record else ()
    if not isinstance(record, (tuple, list)) or not set(record) <= set(RECORDABLE):
        raise ValueError(f"record must hold names out of {RECORDABLE}, got {record!r}.")
    tensors = circuit.to_torch()
    drive = _check_drive(drive, tensors, n_burn + n_window)
    seed = check_random_state(random_state).randint(2**31 - 1)

    run = _Run(tensors, drive, n_trials, n_burn, n_window, dt, solver, shared_noise, seed, record)
    wanted = {"covariance": covariance, "rates": rates}
    simulation = run(wanted)
    if simulation.diverged.any() and not simulation.diverged.all():
        # A trial spoils the sums before it is known to diverge: repeat with the same noise,
        # now knowing which trials to leave out.
        simulation = run(wanted, diverged=simulation.diverged, found=simulation)
    if torch.is_tensor(circuit.weights):
        return simulation
    arrays = {f.name: getattr(simulation, f.name) for f in fields(simulation)}
    return Simulation(**{k: v if v is None else v.detach().numpy() for k, v in arrays.items()})


def check_time_grid(*, duration, burn_in, dt):
    """Numbers of steps of burn-in and of the time after it."""
    for name, value, low in (("dt", dt, None), ("duration", duration, dt), ("burn_in", burn_in, 0)):
        legal = isinstance(value, Real) and np.isfinite(value)
        if not legal or (value <= 0 if low is None else value < low):
            bound = "> 0" if low is None else f">= {low:g}" + (" (one step dt)" if low else "")
            raise ValueError(f"{name} must be a finite number of ms {bound}, got {value!r}.")
    return round(burn_in / dt), round(duration / dt)


def _check_drive(drive, circuit, n_steps):
    if not torch.is_tensor(drive):
        drive = torch.tensor(np.asarray(drive, dtype=float))
    drive = drive.to(dtype=circuit.weights.dtype, device=circuit.weights.device)
    if drive.ndim not in (2, 3) or drive.shape[-1] != circuit.n_neurons:
        raise ValueError(
            f"drive must have shape (n_inputs, {circuit.n_neurons}) or (n_steps, n_inputs, "
            f"{circuit.n_neurons}) for a circuit of {circuit.n_neurons} cells, got "
            f"{tuple(drive.shape)}. Circuit.drive maps external inputs h to it."
        )
    if drive.ndim == 3 and len(drive) != n_steps:
        raise ValueError(
            f"a drive that changes in time needs one entry for each of the {n_steps} steps of "
            f"burn-in and duration, got {len(drive)}."
        )
    if not torch.isfinite(drive).all():
        raise ValueError("drive must be finite, got NaN or infinity.")
    return drive


@dataclass
class _Run:
    """One simulation, which can be repeated with the same noise."""

    circuit: object
    drive: torch.Tensor
    n_trials: int
    n_burn: int
    n_window: int
    dt: float
    solver: str
    shared_noise: bool
    seed: int
    record: tuple

    def __call__(self, wanted, diverged=None, found=None):
        moments = _Moments(self, wanted, diverged)
        exceeded, trajectories = [], {name: [] for name in self.record}
        for window, u, eta in self.chunks(diverged):
            with torch.no_grad():
                peak = torch.maximum(u.amax(-1), -u.amin(-1))
                exceeded.append(~(peak <= DIVERGENCE_THRESHOLD))
            if window:
                moments.add(u)
                values = {"u": u, "eta": eta}
                if "r" in self.record:
                    values["r"] = firing_rates(u, self.circuit.k, self.circuit.gamma)
                for name in self.record:
                    trajectories[name].append(values[name])
            if not self.record and exceeded[-1].any() and torch.cat(exceeded).any(0).all():
                break
        if diverged is None:
            exceeded = torch.cat(exceeded)
            diverged = exceeded.any(0)
            first = (exceeded.to(torch.uint8).argmax(0) + 1).to(self.drive)
            divergence_time = torch.where(diverged, first * self.dt, torch.nan)
        else:
            divergence_time = found.divergence_time
        steps = torch.arange(1, self.n_window + 1).to(self.drive)
        simulation = moments.result(diverged, divergence_time, steps * self.dt)
        recorded = {name: torch.cat(chunks) for name, chunks in trajectories.items()}
        for name in set(recorded) & {"u", "r"} if found else ():
            ran_away = getattr(found, name).detach()
            recorded[name] = torch.where(diverged[:, :, None], ran_away, recorded[name])
        return replace(simulation, **recorded)

    def chunks(self, left_out):
        """Yield (in the window?, u, eta) for consecutive chunks of steps, time first.

        Trials that are left out rest at u = 0, where neither they nor their gradient can
        become infinite.
        """
        circuit, (n_inputs, n) = self.circuit, self.drive.shape[-2:]
        dtype, device = circuit.weights.dtype, circuit.weights.device
        u = torch.zeros((n_inputs * self.n_trials, n), dtype=dtype, device=device)
        size = min(CHUNK_STEPS, max(1, CHUNK_ELEMENTS // u.numel()))
        chunks = [(False, min(size, self.n_burn - i)) for i in range(0, self.n_burn, size)]
        chunks += [(True, min(size, self.n_window - i)) for i in range(0, self.n_window, size)]
        noise = ou_chunks(
            (1 if self.shared_noise else n_inputs, self.n_trials, n),
            [steps for _, steps in chunks],
            self.dt,
            circuit.tau_eta,
            torch.Generator(device).manual_seed(self.seed),
            dtype,
        )
        slope, start = None, 0
        for (window, steps), z in zip(chunks, noise, strict=True):
            with torch.set_grad_enabled(window and torch.is_grad_enabled()):
                eta = z @ circuit.noise_factor.T
                forcing = eta + self.drive_at(start, steps)
                if left_out is not None:
                    forcing = torch.where(left_out[:, :, None], 0.0, forcing)
                path, slope = integrate(
                    circuit, u, forcing.flatten(1, 2), self.dt, self.solver, slope
                )
                u = path[-1]
                yield window, path.unflatten(1, (n_inputs, self.n_trials)), eta[1:]
            start += steps

    def drive_at(self, start, steps):
        if self.drive.ndim == 2:
            return self.drive[:, None].expand(-1, self.n_trials, -1)
        times = torch.arange(start, start + steps + 1).clamp_max(len(self.drive) - 1)
        return self.drive[times][:, :, None].expand(-1, -1, self.n_trials, -1)


class _Moments:
    """Running sums over trials and time of the wanted moments."""

    def __init__(self, run, wanted, left_out):
        self.run, self.left_out = run, left_out
        self.sums = {"mean": 0} | {name: 0 for name, is_wanted in wanted.items() if is_wanted}
        self.centre = None  # near the mean, so that float32 covariances stay accurate

    def add(self, u):
        """Add a chunk of shape (n_steps, n_inputs, n_trials, n_neurons)."""
        self.sums["mean"] = self.sums["mean"] + u.sum((0, 2))
        if "rates" in self.sums:
            rates = firing_rates(u, self.run.circuit.k, self.run.circuit.gamma)
            self.sums["rates"] = self.sums["rates"] + rates.sum((0, 2))
        if "covariance" in self.sums:
            if self.centre is None:
                self.centre = (u[0].detach().sum(1) / self.n_kept)[:, None]
            deviation = u - self.centre
            if self.left_out is not None:
                deviation = torch.where(self.left_out[:, :, None], 0.0, deviation)
            samples = deviation.transpose(0, 1).flatten(1, 2)
            self.sums["covariance"] = self.sums["covariance"] + samples.mT @ samples

    @property
    def n_kept(self):
        """Number of trials in the sums, of shape (n_inputs, 1) or a number."""
        return (
            self.run.n_trials
            if self.left_out is None
            else (~self.left_out).sum(1, keepdim=True).clamp_min(1)
        )

    def result(self, diverged, divergence_time, times):
        n_inputs, n = self.run.drive.shape[-2:]
        lost = diverged.all(1)
        count = self.n_kept * self.run.n_window
        moments = dict.fromkeys(("mean", "covariance", "rates"))
        for name, total in self.sums.items():
            shape = (n_inputs, n, n) if name == "covariance" else (n_inputs, n)
            each = count if name != "covariance" or self.left_out is None else count[:, None]
            value = self.run.drive.new_zeros(shape) + total / each
            if name == "covariance" and self.centre is not None:
                offset = moments["mean"] - self.centre[:, 0]
                value = value - offset[:, :, None] * offset[:, None]
            keep_shape = (-1,) + (1,) * (len(shape) - 1)
            moments[name] = torch.where(lost.view(keep_shape), torch.nan, value)
        return Simulation(
            **moments, diverged=diverged, divergence_time=divergence_time, times=times
        )
