"""Where training starts: a stable pair of cells, or a circuit of small random weights."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    NOT_NEGATIVE,
    POSITIVE,
    RANDOM,
    Interval,
    validate_params,
)
from ssn_estimators.circuit import Circuit
from ssn_estimators.simulation import lasting, simulate

if TYPE_CHECKING:
    from typing import Any

    from ssn_estimators._typing import ArrayLike, DTypeLike, RandomState, Solver

__all__ = ["CONFIRM_NOISE", "random_circuit", "stable_pair"]

CONFIRM_NOISE = 2.0  # times a network's noise: what survives it is not merely metastable
PAIR_TRIALS = 4


@validate_params(
    noise=[*NOT_NEGATIVE, "array-like"],
    excitation=NOT_NEGATIVE,
    random_state=RANDOM,
    max_tries=COUNT,
    duration=POSITIVE,
    dt=POSITIVE,
)
def stable_pair(
    h: ArrayLike,
    *,
    theta: ArrayLike = (5.0, 0.3, 2.0),
    noise: float = 0.3,
    excitation: float = 0.25,
    random_state: RandomState = None,
    max_tries: int = 200,
    duration: float = 500.0,
    dt: float = 1.0,
    solver: Solver = "heun",
    dtype: DTypeLike = float,
    **constants: Any,
) -> Circuit:
    """Search for a stable circuit of one excitatory and one inhibitory cell.

    Weights are magnitudes of draws from N(0, 1/2), that of the excitatory cell onto itself
    times `excitation`, repeated until no trial diverges, even with twice the noise. A pair that
    starts with weak self-excitation and an input of some mV learns to use its input; one with
    strong self-excitation learns to amplify it, which ends in metastable networks.

    Parameters
    ----------
    h : array-like of shape (n_inputs, 1) or (n_inputs, 2)
        External inputs under which the pair must be stable: with one column only the
        excitatory cell receives it, with two both.
    theta : sequence of 3 floats, default=(5.0, 0.3, 2.0)
        Parameters of the input function.
    noise : float, default=0.3
        Standard deviation of the noise in mV.
    excitation : float, default=0.25
        Factor of the self-excitation.
    random_state : int, RandomState instance or None, default=None
        Source of weights and noise.
    max_tries : int, default=200
        Draws before giving up.
    duration : float, default=500.0
        Time in ms over which a pair must not diverge, rounded up to whole steps.
    dt, solver : float, default=1.0, and str, default="heun"
        Time step in ms and scheme under which it must not, see :func:`simulate`.
    dtype : NumPy dtype, default=float
        Precision of the circuit.
    **constants
        Further parameters of :class:`Circuit`, such as `gamma` or `tau_e`.

    Returns
    -------
    circuit : Circuit

    Raises
    ------
    RuntimeError
        If no draw is stable.
    ValueError
        If a parameter is not legal.
    """
    rng, dtype = check_random_state(random_state), _float_dtype(dtype)
    for _ in range(max_tries):
        magnitudes = np.abs(rng.normal(scale=np.sqrt(0.5), size=(2, 2)))
        weights = magnitudes * [[excitation, -1], [1, -1]]
        pair = Circuit(weights.astype(dtype), 1, noise, theta=theta, **constants)
        outcome = simulate(
            replace(pair, noise_factor=CONFIRM_NOISE * pair.noise_factor),
            pair.drive(h),
            n_trials=PAIR_TRIALS,
            duration=lasting(duration, dt),
            burn_in=0.0,
            dt=dt,
            solver=solver,
            random_state=rng,
            covariance=False,
            rates=False,
        )
        if not outcome.diverged.any():
            return pair
    raise RuntimeError(
        f"none of {max_tries} random pairs of cells was stable for {duration:g} ms. Scale the "
        "inputs or theta down, or lower gamma or k."
    )


@validate_params(
    n_excitatory=COUNT,
    n_inhibitory=[Interval(Integral, 0, MOST, closed="both")],
    scale=NOT_NEGATIVE,
    noise=[*NOT_NEGATIVE, "array-like"],
    random_state=RANDOM,
)
def random_circuit(
    n_excitatory: int,
    n_inhibitory: int,
    *,
    scale: float = 0.03,
    theta: ArrayLike = (5.0, 0.3, 2.0),
    noise: float = 0.3,
    random_state: RandomState = None,
    dtype: DTypeLike = float,
    **constants: Any,
) -> Circuit:
    """Circuit of independent random weights, the start of the control without growth.

    Parameters
    ----------
    n_excitatory, n_inhibitory : int
        Population sizes.
    scale : float, default=0.03
        Standard deviation of the normal draws whose magnitudes are the weights. Circuits of
        50 + 50 cells are stable at 0.03 and mostly unstable at 0.11, the size of trained
        weights.
    theta : sequence of 3 floats, default=(5.0, 0.3, 2.0)
        Parameters of the input function.
    noise : float, default=0.3
        Standard deviation of the noise in mV.
    random_state : int, RandomState instance or None, default=None
        Source of the weights.
    dtype : NumPy dtype, default=float
        Precision of the circuit.
    **constants
        Further parameters of :class:`Circuit`.

    Returns
    -------
    circuit : Circuit
    """
    rng, dtype = check_random_state(random_state), _float_dtype(dtype)
    n = n_excitatory + n_inhibitory
    signs = np.where(np.arange(n) < n_excitatory, 1.0, -1.0)
    weights = np.abs(rng.normal(scale=scale, size=(n, n))) * signs
    return Circuit(weights.astype(dtype), n_excitatory, noise, theta=theta, **constants)


def _float_dtype(dtype):
    """As NumPy's, or a ValueError."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}.")
    return found
