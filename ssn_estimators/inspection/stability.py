"""How reliably a trained network stays finite, against shuffled and random weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import unwrapped
from ssn_estimators._torch import resolve_device
from ssn_estimators.inspection.operating_point import is_inhibition_stabilized, oscillations
from ssn_estimators.simulation import Trials, lasting, simulate_trials

if TYPE_CHECKING:
    from typing import Any

    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike, Function, RandomState

__all__ = [
    "OperatingReport",
    "StabilityReport",
    "make_stability_scorer",
    "network_and_inputs",
    "random_surrogate",
    "sampler_and_inputs",
    "shuffled_surrogate",
    "stability_report",
    "stability_score",
]


def stability_score(
    estimator: BaseEstimator,
    X: ArrayLike,
    *,
    duration: float = 2000.0,
    n_trials: int = 1,
    random_state: RandomState = 0,
) -> float:
    """Share of trials in which a fitted network stays finite. Nothing is clipped.

    Parameters
    ----------
    estimator : SSNClassifier, SSNRegressor or SSNSampler, or Pipeline or search with one
        Fitted.
    X : array-like of shape (n_samples, n_features)
        Inputs, best not those of training.
    duration : float, default=2000.0
        Time in ms that a trial must survive, from u = 0; rounded up to whole steps.
    n_trials : int, default=1
        Trials per input, each with noise of its own.
    random_state : int, RandomState instance or None, default=0
        Source of the noise.

    Returns
    -------
    score : float
        From 0 (every trial diverges) to 1 (none does).
    """
    network, X = network_and_inputs(estimator, X)
    simulation = network.simulate(
        X,
        n_trials=n_trials,
        duration=lasting(duration, _dt_of(network)),
        burn_in=0.0,
        shared_noise=False,
        random_state=random_state,
        covariance=False,
        rates=False,
    )
    return float(1 - simulation.diverged.mean())


def make_stability_scorer(**parameters: Any) -> Function:
    """Scorer of stability for `cross_validate` and model selection.

    Parameters
    ----------
    **parameters
        Parameters of :func:`stability_score`.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None)``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_validate
    >>> from ssn_estimators import SSNClassifier, make_stability_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> scoring = {"accuracy": "accuracy", "stability": make_stability_scorer(duration=500.0)}
    >>> ssn = SSNClassifier(max_iter=20, growth_iter=5, random_state=0)
    >>> scores = cross_validate(ssn, X, y, cv=2, scoring=scoring)
    >>> scores["test_stability"]
    array([1., 1.])
    """
    return _StabilityScorer(parameters)


class _StabilityScorer:
    # a class rather than a closure, so that it can be sent to joblib's workers

    def __init__(self, parameters):
        self.parameters = parameters

    def __call__(self, estimator, X, y=None):
        return stability_score(estimator, X, **self.parameters)

    def __repr__(self):
        return (
            f"make_stability_scorer({', '.join(f'{k}={v!r}' for k, v in self.parameters.items())})"
        )


@dataclass(frozen=True, eq=False)
class OperatingReport:
    """How a trained network works, and what training had to undo.

    Attributes
    ----------
    n_runaway_steps : int
        Steps of training at which a trial ran away: with a guard, they were undone. The paper's
        first metric counts networks with any such step, in training without one.
    n_rejected_steps : int
        All steps that were undone: these, and those after which a long run with twice the noise
        diverged.
    divergence_rate : float
        Upper bound for trials of training inputs at the trained noise, in 1/s; NaN if the network
        was not confirmed.
    oscillation_amplitude, oscillation_frequency : ndarray of shape (n_inputs,)
        In mV and Hz, as of :func:`inspection.oscillations`: 0 and NaN for inputs without.
    inhibition_stabilized : masked array of shape (n_inputs,), bool
        As of :func:`inspection.is_inhibition_stabilized` with linear closure; masked for inputs
        without a stable fixed point.
    """

    n_runaway_steps: int
    n_rejected_steps: int
    divergence_rate: float
    oscillation_amplitude: np.ndarray
    oscillation_frequency: np.ndarray
    inhibition_stabilized: np.ndarray

    @property
    def oscillating(self) -> float:
        """Share of inputs on which the noise-free activity does not come to rest."""
        return float((self.oscillation_amplitude > 0).mean())

    def __str__(self):
        lines = [
            f"Steps undone in training: {self.n_rejected_steps}, of which "
            f"{self.n_runaway_steps} ran away",
            f"Divergences a second: at most {self.divergence_rate:.1e} (95%)",
            f"Share of oscillating inputs: {self.oscillating:.3f}",
        ]
        if self.oscillating:
            moving = self.oscillation_amplitude > 0
            amplitude = np.median(self.oscillation_amplitude[moving])
            frequency = np.median(self.oscillation_frequency[moving])
            lines[-1] += f" (medians: {amplitude:.2g} mV, {frequency:.3g} Hz)"
        stabilized = self.inhibition_stabilized
        n_found = stabilized.count()
        share = f"{stabilized.mean():.3f} of {n_found} inputs" if n_found else "no input"
        lines.append(f"Share of inhibition-stabilized inputs: {share} with a stable fixed point")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class StabilityReport:
    """Shares of diverging trials of one trained network and its surrogates.

    Attributes
    ----------
    trained : float
        Share of the trained network's trials that diverge.
    shuffled, random : ndarray of shape (n_surrogates,)
        The same for each surrogate with shuffled and with random weights.
    n_trials : int
        Trials of the trained network and of each surrogate, each with an input of its own
        (or as many times as needed if there are fewer inputs).
    duration : float
        Length of a trial in ms.
    operating : OperatingReport or None
        What else the trained network does on these inputs.
    """

    trained: float
    shuffled: np.ndarray
    random: np.ndarray
    n_trials: int
    duration: float
    operating: OperatingReport | None = None

    def summary(self) -> dict[str, tuple[float, float]]:
        """Mean and standard error of each share.

        Returns
        -------
        summary : dict of str to (float, float)
            The standard error is over trials for the trained network, over surrogates for
            the others.
        """
        trained_error = np.sqrt(self.trained * (1 - self.trained) / self.n_trials)
        rows = {"trained": (self.trained, float(trained_error))}
        for name in ("shuffled", "random"):
            shares = getattr(self, name)
            error = shares.std(ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else np.nan
            rows[name] = (float(shares.mean()), float(error))
        return rows

    def __str__(self):
        rows = (f"{name:>8}: {m:.3f} +- {s:.3f}" for name, (m, s) in self.summary().items())
        title = f"Share of diverging trials ({self.duration:g} ms, mean +- s.e.)"
        lines = [title, *rows]
        return "\n".join(lines if self.operating is None else [*lines, str(self.operating)])


def stability_report(
    estimator: BaseEstimator,
    X: ArrayLike,
    *,
    n_surrogates: int = 100,
    n_trials: int = 100,
    duration: float = 500.0,
    random_state: RandomState = 0,
) -> StabilityReport:
    """Compare the stability of a trained network with that of its surrogates.

    The three measures of section 2.4 of [1]_, for one network: the share of trials that
    diverge with the trained weights; with weights shuffled within each of the four quadrants
    (E or I, pre- or postsynaptic); and with weights drawn from a normal distribution of the
    variance of all trained weights, signs set by the presynaptic cell. Beside them, what the
    trained network does on as many inputs: oscillations, inhibition-stabilisation, a bound on the
    rate of divergence, and what its training had to undo.

    Parameters
    ----------
    estimator : SSNClassifier, SSNRegressor or SSNSampler, or Pipeline or search with one
        Fitted.
    X : array-like of shape (n_samples, n_features)
        Inputs; every trial takes another one. Sequences are shown again until a trial is over; what
        the network does on inputs is that at their time steps, held.
    n_surrogates : int, default=100
        Number of shuffles, and of random networks.
    n_trials : int, default=100
        Trials of each network.
    duration : float, default=500.0
        Length of a trial in ms, rounded up to whole steps.
    random_state : int, RandomState instance or None, default=0
        Source of surrogates, choice of inputs and noise.

    Returns
    -------
    report : StabilityReport

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35.
    """
    for name, value in (("n_surrogates", n_surrogates), ("n_trials", n_trials)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    network, X = network_and_inputs(estimator, X)
    drive, circuit = network.drive(X), network.circuit_
    in_time = drive.ndim == 3
    trials = Trials(
        n_trials=1,
        duration=lasting(duration, _dt_of(network)),
        burn_in=0.0,
        dt=_dt_of(network),
        solver=network.solver,
        covariance=False,
        rates=False,
        drive_step=network.time_step if in_time else None,
    )
    trials.check_cells(circuit)
    rng, held = check_random_state(random_state), drive
    if in_time:
        held = drive.reshape(-1, circuit.n_neurons)
        drive = trials.shown_again(drive)
    n_inputs = drive.shape[-2]

    def inputs():
        repeats = -(-n_trials // n_inputs)
        return np.concatenate([rng.permutation(n_inputs) for _ in range(repeats)])[:n_trials]

    device = resolve_device(network.device)
    circuits, drives, sources = [], [], []
    for surrogate in [None] + [shuffled_surrogate, random_surrogate] * n_surrogates:
        own = np.random.RandomState(rng.randint(2**31 - 1))
        made = circuit if surrogate is None else surrogate(circuit, own)
        circuits.append(made.to_torch(device))
        drives.append(drive[..., inputs(), :])
        sources.append(own)
    simulations = simulate_trials(circuits, drives, trials, sources)
    shares = [simulation.diverged.double().mean().item() for simulation in simulations]
    shuffled, random = np.array(shares[1::2]), np.array(shares[2::2])
    chosen = held[np.sort(rng.permutation(len(held))[:n_trials])]
    grid = {"dt": trials.dt, "solver": trials.solver}
    found = oscillations(circuit, chosen, **grid)
    operating = OperatingReport(
        n_runaway_steps=network.n_runaway_steps_,
        n_rejected_steps=network.n_rejected_steps_,
        divergence_rate=network.divergence_rate_,
        oscillation_amplitude=found.amplitude,
        oscillation_frequency=found.frequency,
        inhibition_stabilized=is_inhibition_stabilized(circuit, chosen, closure="linear"),
    )
    return StabilityReport(shares[0], shuffled, random, n_trials, duration, operating)


def shuffled_surrogate(circuit, rng):
    """The circuit with its weights shuffled between the cells of any two populations."""
    weights = circuit.weights.copy()
    populations = [circuit[name] for name in circuit.populations]
    for post in populations:
        for pre in populations:
            block = weights[post, pre]
            weights[post, pre] = rng.permutation(block.ravel()).reshape(block.shape)
    return replace(circuit, weights=weights)


def random_surrogate(circuit, rng):
    """The circuit with normal weights of the trained variance and Dale's signs."""
    scale = circuit.weights.std()
    weights = np.abs(rng.normal(scale=scale, size=circuit.weights.shape)) * circuit.signs
    weights = weights * circuit.connected
    return replace(circuit, weights=weights.astype(circuit.weights.dtype))


def _dt_of(network):
    """Time step of its answers, in ms."""
    return float(np.ravel(network.dt)[-1])


def network_and_inputs(estimator, X):
    """The network, and the inputs as it gets them."""
    estimator, X = unwrapped(estimator, X)
    if not hasattr(estimator, "simulate"):
        raise TypeError(
            "a fitted SSN estimator, or a Pipeline or search that ends with one, is needed, got "
            f"{type(estimator).__name__}."
        )
    check_is_fitted(estimator)
    return estimator, X


def sampler_and_inputs(estimator, X):
    """The sampler, and the inputs as it gets them."""
    sampler, X = network_and_inputs(estimator, X)
    if not hasattr(sampler, "sample"):
        raise TypeError(f"an SSNSampler is needed, got {type(sampler).__name__}.")
    return sampler, X
