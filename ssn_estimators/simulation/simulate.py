"""`simulate`: moments, rates and divergence of a circuit's activity."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Integral
from threading import local
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state

from ssn_estimators._torch import on_cpu, to_tensor
from ssn_estimators.circuit import DIVERGENCE_THRESHOLD, kind_of
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.simulation import cpu, plain
from ssn_estimators.simulation.setup import Setup
from ssn_estimators.simulation.tables import data_set_of, table_of_moments
from ssn_estimators.simulation.trials import Trials

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    import pandas as pd
    import xarray as xr

    from ssn_estimators._typing import AnyArray, RandomState, Record, Solver
    from ssn_estimators.circuit import Circuit

__all__ = ["Simulation", "State", "simulate", "simulate_many", "simulate_trials"]

RECORDABLE = ("u", "r", "eta", "final")


class State(NamedTuple):
    """Where the trials of a simulation are, and their noise; NaN where a trial diverged.

    Attributes
    ----------
    state : array of shape (n_inputs, n_trials, n_neurons)
        Potentials in mV; of circuits in the rate form, rates in Hz.
    noise : array of shape (n_inputs, n_trials, n_neurons)
        Independent Ornstein-Uhlenbeck processes z of variance 1; :math:`\\eta = n z`.
    """

    state: np.ndarray | torch.Tensor
    noise: np.ndarray | torch.Tensor


@dataclass(frozen=True, eq=False)
class Simulation:
    """What :func:`simulate` saw. Arrays are of the kind (NumPy or torch) of the circuit's.

    Attributes
    ----------
    mean : array of shape (n_inputs, n_neurons)
        Mean potential in mV over the trials and the time after burn-in; of circuits in the rate
        form, mean rate in Hz.
    covariance : array of shape (n_inputs, n_neurons, n_neurons) or None
        Covariance of the potentials in mV**2 over the same samples (divided by their number); in
        the rate form, of the rates in Hz**2.
    rates : array of shape (n_inputs, n_neurons) or None
        Mean firing rates in Hz over the same samples.
    diverged : array of shape (n_inputs, n_trials), bool
        Trials in which some potential exceeded 1000 mV in magnitude or was not finite (in the
        rate form, some rate that of 1000 mV). They
        are left out of the moments; an input whose trials all diverged has NaN there.
    divergence_time : array of shape (n_inputs, n_trials)
        When, in ms from the start of burn-in; NaN for trials that stayed finite.
    times : array of shape (n_steps,)
        Times of the recorded trajectories, in ms from the end of burn-in.
    u, r, eta : arrays of shape (n_steps, n_inputs, n_trials, n_neurons), or None
        Trajectories, if asked for: potentials (mV), rates (Hz), noise (mV). `eta` has one
        trial axis for all inputs, shape (n_steps, 1, n_trials, n_neurons), if it was shared.
    final : State or None
        Where all trials are at the end, if asked for: `initial` of another simulation that goes
        on from there.
    populations : dict of str to int, or None
        Cell types in the order of the cells, and how many cells each has, if known.
    dynamics : {"voltage", "rate"}
        The form of the circuit.
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
    final: State | None = None
    populations: dict[str, int] | None = None
    dynamics: str = "voltage"

    @property
    def message(self) -> str:
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

    def check_finite(self) -> None:
        """Raise DivergenceError if a trial has diverged."""
        if self.diverged.any():
            raise DivergenceError(f"The network does not stay finite: {self.message}")

    def to_xarray(self) -> xr.Dataset:
        """Moments, divergence and trajectories as arrays whose axes have names.

        Returns
        -------
        data : xarray.Dataset
            With the dimensions input, trial, time, neuron and, of the covariance, other_neuron;
            time in ms and, if known, the population of each neuron as coordinates; and "units" in
            the attributes of its variables. What is None here is not in it, nor is `final`. `eta`
            has no dimension input if several inputs shared their noise.

        Raises
        ------
        ImportError
            If there is no xarray.
        """
        return data_set_of(self)

    def to_dataframe(self) -> pd.DataFrame:
        """Moments of each cell, one row for each input and cell.

        Returns
        -------
        frame : pandas.DataFrame
            Columns input and neuron (numbers from 0); population, if known; mean and sd, in mV (in
            the rate form, Hz), and rate in Hz, as far as they were computed; and diverged, the
            share of the input's trials that diverged.

        Raises
        ------
        ImportError
            If there is no pandas.
        """
        return table_of_moments(self)

    def __repr__(self):
        n_inputs, n_neurons = self.mean.shape
        return (
            f"Simulation(n_inputs={n_inputs}, n_trials={self.diverged.shape[1]}, "
            f"n_neurons={n_neurons}: {self.message})"
        )


def simulate(
    circuit: Circuit,
    drive: AnyArray,
    *,
    n_trials: int = 10,
    duration: float = 500.0,
    burn_in: float = 100.0,
    dt: float = 1.0,
    solver: Solver = "heun",
    shared_noise: bool = False,
    antithetic: bool = False,
    increments: Literal["gaussian", "weak"] = "gaussian",
    precision: Literal["float32", "tf32"] = "float32",
    random_state: RandomState = None,
    record: Record = None,
    covariance: bool = True,
    rates: bool = True,
    drive_step: float | None = None,
    initial: State | AnyArray | None = None,
) -> Simulation:
    """Simulate a circuit from u = 0 and stationary noise, or from where another one ended.

    Nothing is clipped: an unstable circuit diverges, and the result says so.

    Parameters
    ----------
    circuit : Circuit
        Its arrays set the dtype and the device. With tensors that require a gradient, the
        moments can be differentiated with respect to them and to `drive`; the gradient
        reaches back to the end of burn-in, as in the training of [1]_.
    drive : array of shape (n_inputs, n_neurons) or (n_steps, n_inputs, n_neurons)
        External drive f(h) in mV, constant or changing in time; then `n_steps` is the
        number of steps of burn-in and duration together, or see `drive_step`.
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
    antithetic : bool, default=False
        Whether trials come in pairs with opposite noise: trial i and trial ``i + n_trials //
        2``. Odd functions of the noise then average out, and so does most of the error of
        the mean; pairs have the same even functions, so they count as one trial for the
        covariance. Half the noise has to be made.
    increments : {"gaussian", "weak"}, default="gaussian"
        Law of the increments of the noise. "weak" are three-point variables with the same
        first three moments and nearly the same fourth, as in weak schemes of second order
        [2]_: moments of the potentials change by less than the scheme's own error, for a
        third of the cost.
    precision : {"float32", "tf32"}, default="float32"
        Precision of matrix products on a GPU, for circuits in single precision: "tf32" rounds their
        factors to 10 bits of mantissa and is several times faster. Beyond 1,024 cells, or a
        `gamma` of 2.5, products are of the precision that torch is set to.
    random_state : int, RandomState instance or None, default=None
        Source of the noise.
    record : {"u", "r", "eta", "final"}, tuple of them or None, default=None
        Trajectories to return, and whether the final state is wanted.
    covariance, rates : bool, default=True
        Whether to compute the covariance, which costs about as much as the recurrent input,
        and the mean rates.
    drive_step : float, default=None
        How long each entry of a drive that changes in time acts, in ms: a multiple of `dt`. They
        are those of `duration` then, and the first acts in burn-in too. None: each acts in one
        step.
    initial : State, or array of shape (n_neurons,), (n_inputs, n_neurons) or \
            (n_inputs, n_trials, n_neurons), default=None
        Where to begin: the `final` state of a simulation, noise included; or potentials in mV (in
        the rate form, rates in Hz), and noise as if it had always been there. Without burn-in,
        the gradient reaches tensors of it, but not their noise.

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
    .. [2] Kloeden & Platen (1992). Numerical Solution of Stochastic Differential Equations,
       section 14.2.

    Examples
    --------
    >>> from ssn_estimators import Circuit, simulate
    >>> cell = Circuit([[0.0]], n_excitatory=1, noise_factor=0.0)
    >>> simulate(cell, [[2.0]], n_trials=1, duration=1.0, burn_in=500.0).mean.round(6)
    array([[2.]])
    """
    return simulate_many(
        [circuit],
        [drive],
        n_trials=n_trials,
        duration=duration,
        burn_in=burn_in,
        dt=dt,
        solver=solver,
        shared_noise=shared_noise,
        antithetic=antithetic,
        increments=increments,
        precision=precision,
        random_state=[random_state],
        record=record,
        covariance=covariance,
        rates=rates,
        drive_step=drive_step,
        initial=None if initial is None else [initial],
    )[0]


def simulate_many(
    circuits: Sequence[Circuit],
    drives: Sequence[AnyArray],
    *,
    random_state: RandomState | Sequence[RandomState] | None = None,
    record: Record = None,
    initial: Sequence[Any] | None = None,
    **options: Any,
) -> list[Simulation]:
    """Simulate circuits of one size at once, each as by :func:`simulate`.

    Parameters
    ----------
    circuits : sequence of Circuit
        With the same numbers of cells and the same constants; all of NumPy arrays or all of
        torch tensors of one dtype and device.
    drives : sequence of arrays of shape (n_inputs, n_neurons) or (n_steps, n_inputs, n_neurons)
        The drive of every circuit, all of one shape.
    random_state : sequence of, or int, RandomState instance or None, default=None
        Source of the noise of every circuit: with the random states of a sequence, the
        results are those of :func:`simulate` with each. From a single one, seeds are drawn.
    initial : sequence, default=None
        Where to begin, for every circuit.
    record, **options
        See :func:`simulate`.

    Returns
    -------
    simulations : list of Simulation

    Raises
    ------
    ValueError
        If a parameter is not legal, or circuits or drives do not match.
    """
    return simulate_trials(circuits, drives, Trials(**options), random_state, record, initial)


def simulate_trials(circuits, drives, trials, random_state=None, record=None, initial=None):
    """As :func:`simulate_many`, with `Trials` in place of its options."""
    if record is None or isinstance(record, str):
        record = (record,) if record else ()
    if not isinstance(record, (tuple, list)) or not set(record) <= set(RECORDABLE):
        raise ValueError(f"record must hold names out of {RECORDABLE}, got {record!r}.")
    if len({torch.is_tensor(circuit.weights) for circuit in circuits}) != 1:
        raise ValueError("circuits must be one or more, all of NumPy arrays or all of tensors.")
    tensors = [circuit.to_torch() for circuit in circuits]
    first = tensors[0]
    _check_alike(tensors)
    trials.check_cells(first)
    drives = [first.check_drive(drive, n_steps=trials.n_drives) for drive in drives]
    if len(drives) != len(circuits) or len({drive.shape for drive in drives}) > 1:
        raise ValueError(
            f"drives must be as many as circuits and of one shape, got {len(drives)} for "
            f"{len(circuits)} circuits, of shapes {sorted({tuple(d.shape) for d in drives})}."
        )
    seeds = _seeds(random_state, len(circuits))
    setup = Setup.of(trials, first, seeds, final="final" in record)
    shape = (len(circuits), drives[0].shape[-2], trials.n_trials, first.n_neurons)
    if initial is not None:
        setup = _from(initial, setup, shape, tensors, drives[0])
    with on_cpu():
        simulations = _run(tensors, _stacked(drives), setup, tuple(record))
    if torch.is_tensor(circuits[0].weights):
        return simulations
    return [_in_numpy(simulation) for simulation in simulations]


def _from(initial, setup, shape, circuits, like):
    """A setup that begins there, with states and unit noise of trials of that shape."""
    if len(initial) != shape[0]:
        raise ValueError(
            f"initial must be one for each of {shape[0]} circuits, got {len(initial)}."
        )
    states, noise, seeds = [], [], []
    for own, circuit, seed in zip(initial, circuits, setup.seeds, strict=True):
        given = isinstance(own, State)
        state = to_tensor(own.state if given else own, name="initial").to(like)
        state = state[:, None] if state.ndim == 2 else state
        n_states = circuit.n_states if given else shape[-1]
        try:
            state = state.expand(*shape[1:3], n_states)
            states.append(state if given else circuit.state_at(state))
        except RuntimeError:
            raise ValueError(
                f"initial must be a State, or an array of shape ({shape[-1]},), one for each of "
                f"{shape[1]} inputs, or also for each of {shape[2]} trials; got "
                f"{tuple(state.shape)}."
            ) from None
        if given:
            z = to_tensor(own.noise, name="initial").detach().to(like)
            # or the same random state would give the increments that have led there
            seed = zlib.crc32(z.cpu().numpy().tobytes(), seed) % 2**31
        else:
            z = _stationary_noise(seed, setup, shape[1:]).to(like).expand(shape[1:])
        if z.shape != shape[1:]:
            raise ValueError(
                f"the noise of initial must have shape {shape[1:]}, got {tuple(z.shape)}: go on "
                "with as many inputs and trials."
            )
        noise.append(z)
        seeds.append(seed)
    states, noise = torch.stack(states), torch.stack(noise)
    if not (torch.isfinite(states).all() and torch.isfinite(noise).all()):
        raise ValueError("initial must be finite; trials that diverged cannot go on.")
    return replace(setup, initial=(states, noise), seeds=tuple(seeds))


def _stationary_noise(seed, setup, shape):
    """Of variance 1; the same for all inputs, or of either sign, where that is asked for."""
    shape = (1 if setup.shared_noise else shape[0], setup.n_draws, shape[2])
    z = torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))
    return torch.cat([z, -z], 1) if setup.antithetic else z


def _run(circuits, drives, setup, record):
    """Of tensors that have been checked."""
    paths = [name for name in record if name != "final"]
    wanted = ()
    if paths:
        noisy = "eta" in paths or ("u" in paths and circuits[0].dynamics == "rate")
        wanted = ("path", "noise") if noisy else ("path",)
    if circuits[0].receptors is not None or circuits[0].is_sparse:
        outcome = plain.moments(circuits, *_at_every_step(drives, setup), wanted)
    else:
        outcome = _of_dense(circuits, drives, setup, wanted)
    mean, covariance, rates, diverged_at, path, z, *final = outcome
    steps = torch.arange(1, setup.n_window + 1).to(drives)
    simulations = []
    for i, circuit in enumerate(circuits):
        recorded = {}
        if paths:
            noise = None if z is None else z[i]
            recorded = _trajectories(paths, circuit, path[i], noise, drives[i], setup)
        if setup.final:
            recorded["final"] = State(*(x[i] for x in final))
        diverged = diverged_at[i] >= 0
        simulations.append(
            Simulation(
                mean=mean[i],
                covariance=None if covariance is None else covariance[i],
                rates=None if rates is None else rates[i],
                diverged=diverged,
                divergence_time=torch.where(
                    diverged, diverged_at[i].to(mean) * setup.dt, torch.nan
                ),
                times=steps * setup.dt,
                populations=dict(circuit.populations),
                dynamics=circuit.dynamics,
                **recorded,
            )
        )
    return simulations


def _at_every_step(drives, setup):
    """Where an engine does not know of drives that are held for many."""
    if drives.ndim == 3 or setup.held is None:
        return drives, replace(setup, held=None)
    times = torch.arange(setup.n_burn + setup.n_window, device=drives.device)
    return drives[:, setup.of_drive(times, drives.shape[1])], replace(setup, held=None)


def _of_dense(circuits, drives, setup, record):
    """Moments of circuits without receptors, by an engine of their kind if there is one."""
    weights, factors = (
        _stacked([getattr(circuit, name) for circuit in circuits])
        for name in ("weights", "noise_factor")
    )
    if not cpu.runs_here(weights, factors, drives, setup):
        return plain.moments(circuits, *_at_every_step(drives, setup), record)
    return _moments(weights, factors, drives, setup, record)


def _stacked(tensors):
    """One of them without a copy, which threads would share out: see `cpu.moments`."""
    return tensors[0].contiguous()[None] if len(tensors) == 1 else torch.stack(tensors)


def _trajectories(names, circuit, path, z, drive, setup):
    """Those of one circuit that are asked for, from its states and unit noise."""
    found, in_rates = dict.fromkeys(names, path), circuit.dynamics == "rate"
    if "r" in names and not in_rates:
        found["r"] = circuit.rates(path)
    if "eta" in names:
        found["eta"] = circuit.noise(z)
    if "u" in names and in_rates:
        eta = found["eta"] if "eta" in names else circuit.noise(z)
        found["u"] = circuit.recurrent(path) + _after_steps(drive, setup)[:, :, None] + eta
    return found


def _after_steps(drive, setup):
    """Drive at the end of every step of the window, of shape (n_window, n_inputs, n_neurons)."""
    if drive.ndim == 2:
        return drive.expand(setup.n_window, -1, -1)
    times = torch.arange(1, setup.n_window + 1, device=drive.device) + setup.n_burn
    return drive[setup.of_drive(times, len(drive))]


def _moments(weights, noise_factors, drives, setup, record):
    """By the fused kernels where they run, else by library products."""
    led_back = torch.is_grad_enabled() and setup.initial is not None
    led_back = led_back and setup.initial[0].requires_grad
    if drives.is_cuda and drives.dtype == torch.float32 and not (record or led_back):
        try:
            # only here, so that nobody else has to have Triton
            from ssn_estimators.simulation import gpu
        except ImportError:
            pass
        else:
            if gpu.runs_on(drives.device):
                drives, setup = _at_every_step(drives, setup)
                *outcome, u, z = gpu.moments(weights, noise_factors, drives, setup)
                return *outcome, None, None, u, z
    return cpu.moments(weights, noise_factors, drives, setup, record)


def _in_numpy(simulation):
    arrays = {k: v.detach().numpy() for k, v in vars(simulation).items() if torch.is_tensor(v)}
    final = simulation.final and State(*(x.numpy() for x in simulation.final))
    return replace(simulation, **arrays, final=final)


_of_thread = local()  # `source`: a generator to seed anew


def _seeds(random_state, n):
    if isinstance(random_state, (list, tuple, np.ndarray)):
        if len(random_state) != n:
            raise ValueError(
                f"random_state must be one or one for each of the {n} circuits, got "
                f"{len(random_state)}."
            )
        return tuple(x for own in random_state for x in _drawn(own, 1))
    return _drawn(random_state, n)


def _drawn(random_state, n):
    """Seeds from a source of random numbers."""
    if isinstance(random_state, Integral) and not isinstance(random_state, bool):
        return _drawn_of(int(random_state), n)
    return tuple(_source(random_state).randint(2**31 - 1, size=n).tolist())


@lru_cache(256)
def _drawn_of(seed, n):
    """The same from a seed: to seed a generator anew takes a fiftieth of making one."""
    if not hasattr(_of_thread, "source"):
        _of_thread.source = np.random.RandomState(0)
    try:
        _of_thread.source.seed(seed)
    except ValueError as error:
        raise ValueError(f"random_state {seed!r} is not legal: {error}") from error
    return tuple(_of_thread.source.randint(2**31 - 1, size=n).tolist())


def _source(random_state):
    try:
        return check_random_state(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(f"random_state {random_state!r} is not legal: {error}") from error


def _check_alike(circuits):
    kinds = {kind_of(circuit): circuit for circuit in circuits}
    if len(kinds) > 1:
        raise ValueError(
            "circuits that are simulated together need the same numbers of cells and the same "
            f"constants, got {list(kinds.values())}."
        )
    places = {(str(x.weights.dtype), str(x.weights.device)) for x in circuits}
    if len(places) > 1:
        raise ValueError(
            f"circuits that are simulated together need one dtype and device, got {sorted(places)}."
        )
