"""Courses of time that a network or a differential equation is to follow."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
from scipy.integrate import solve_ivp
from sklearn.utils import Bunch, check_random_state

from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    NOT_NEGATIVE,
    NUMBER,
    POSITIVE,
    RANDOM,
    Interval,
    validate_params,
)

if TYPE_CHECKING:
    from ssn_estimators._typing import RandomState

__all__ = ["make_cued_sinusoids", "make_robertson", "make_spiral"]

CUE_CORRELATION = 20.0  # ms
LONGEST = 1e6  # of a spiral, which has come to rest by then


@validate_params(
    n_neurons=COUNT,
    n_conditions=COUNT,
    n_times=COUNT,
    update_interval=POSITIVE,
    period=POSITIVE,
    amplitude=NUMBER,
    cue_amplitude=NOT_NEGATIVE,
    cue_duration=[Interval(Real, 1, MOST, closed="both")],
    random_state=RANDOM,
)
def make_cued_sinusoids(
    n_neurons: int = 1000,
    *,
    n_conditions: int = 1,
    n_times: int = 100,
    update_interval: float = 10.0,
    period: float = 1000.0,
    amplitude: float = 0.5,
    cue_amplitude: float = 0.63,
    cue_duration: float = 200.0,
    random_state: RandomState = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Cue currents, and sinusoids of random phase that are to follow them in every cell.

    The task of [1]_ for spiking networks: cell i is to have the drive :math:`a \sin(2 \pi (t
    - \phi_i) / T)` about its mean after a frozen random cue.

    Parameters
    ----------
    n_neurons : int, default=1000
        Number of cells.
    n_conditions : int, default=1
        Number of cues, each with phases of its own.
    n_times : int, default=100
        Entries of a target.
    update_interval : float, default=10.0
        Time in ms between them; the first is as much after the cue.
    period : float, default=1000.0
        T in ms.
    amplitude : float, default=0.5
        a, in units of the threshold.
    cue_amplitude : float, default=0.63
        Standard deviation of the cue currents, stationary Ornstein-Uhlenbeck processes with a
        correlation time of 20 ms; the default is that of noise of .2 per square root of a ms.
    cue_duration : float, default=200.0
        In ms; the cue has an entry for each.
    random_state : int, RandomState instance or None, default=None
        Source of cues and phases.

    Returns
    -------
    X : ndarray of shape (n_conditions, cue_duration, n_neurons)
        Cue currents.
    y : ndarray of shape (n_conditions, n_times, n_neurons)
        Target drives.

    References
    ----------
    .. [1] Kim & Chow (2021). Training spiking neural networks in the strong coupling regime.
       Neural Computation 33(5).
    """
    rng = check_random_state(random_state)
    n_steps, keep = round(cue_duration), np.exp(-1 / CUE_CORRELATION)
    X = rng.standard_normal((n_conditions, n_steps, n_neurons))
    for i in range(1, n_steps):
        X[:, i] = keep * X[:, i - 1] + np.sqrt(1 - keep**2) * X[:, i]
    phases = period * rng.random_sample((n_conditions, 1, n_neurons))
    t = update_interval * np.arange(1, n_times + 1)[:, None]
    return cue_amplitude * X, amplitude * np.sin(2 * np.pi * (t - phases) / period)


@validate_params(
    n_times=[Interval(Integral, 2, MOST, closed="both")],
    duration=[Interval(Real, 0, LONGEST, closed="right")],
)
def make_spiral(n_times: int = 200, *, duration: float = 25.0) -> Bunch:
    r"""A cubic spiral, :math:`\dot y = A y^3`, as data for neural differential equations.

    Parameters
    ----------
    n_times : int, default=200
        Evenly spread times.
    duration : float, default=25.0
        The last of them, at most a million.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With `t` of shape (n_times,), `y` of shape (n_times, 2), and `slope`, from t and y to
        the derivative.
    """
    matrix = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    return _solution(lambda t, y: matrix @ y**3, [2.0, 0.0], np.linspace(0, duration, n_times))


@validate_params(n_times=[Interval(Integral, 2, MOST, closed="both")])
def make_robertson(n_times: int = 50) -> Bunch:
    r"""Robertson's chemical reaction, the usual stiff differential equation.

    .. math::
        \dot y_1 &= -k_1 y_1 + k_3 y_2 y_3, \\
        \dot y_2 &= k_1 y_1 - k_2 y_2^2 - k_3 y_2 y_3, \\
        \dot y_3 &= k_2 y_2^2,

    with :math:`k = (0.04, 3 \cdot 10^7, 10^4)` from y = (1, 0, 0).

    Parameters
    ----------
    n_times : int, default=50
        Times, evenly spread on a logarithmic scale from 1e-5 to 1e5.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With `t` of shape (n_times,), `y` of shape (n_times, 3), and `slope`, from t and y to
        the derivative.
    """

    def slope(t, y):
        slow, fast, back = 0.04 * y[0], 3e7 * y[1] ** 2, 1e4 * y[1] * y[2]
        return np.array([back - slow, slow - fast - back, fast])

    return _solution(slope, [1.0, 0.0, 0.0], np.logspace(-5, 5, n_times))


def _solution(slope, start, t):
    solution = solve_ivp(slope, (0, t[-1]), start, method="Radau", t_eval=t, rtol=1e-8, atol=1e-12)
    return Bunch(t=t, y=solution.y.T, slope=slope)
