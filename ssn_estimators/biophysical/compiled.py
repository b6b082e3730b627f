"""Networks of Morris-Lecar cells, compiled by Numba: one pass over all cells in a step."""

import numpy as np

from ssn_estimators._numba import OPTIONS, compiled, polynomial

__all__ = ["run"]


# tanh(x) as x P(x^2) / Q(x^2) for |x| < LARGE, where it rounds to 1; from the highest power.
# The coefficients are those of the library Eigen; the error is some units of the last place.
LARGE = np.float32(7.9)
ONE, HALF = np.float32(1), np.float32(0.5)
ODD = tuple(
    np.float32(x)
    for x in (
        *(-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11),
        *(5.12229709037114e-08, 1.48572235717979e-05, 6.37261928875436e-04),
        4.89352455891786e-03,
    )
)
EVEN = tuple(
    np.float32(x)
    for x in (
        *(1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03),
        4.89352518554385e-03,
    )
)


@compiled(**OPTIONS)
def _tanh(x):
    x = LARGE if x > LARGE else x
    x = -LARGE if x < -LARGE else x
    square = x * x
    return x * polynomial(ODD, square) / polynomial(EVEN, square)


@compiled(**OPTIONS)
def _step(v, w, t, current, outside, constants):
    """One step of dt, as `MorrisLecar.step`, under both currents; `t` gets the transmitter."""
    dt, g_ca, g_k, g_l, e_ca, e_k, e_l = constants[:7]
    v1, v2, v3, v4, phi, capacitance, _, _, v_t, k_t = constants[7:]
    by_v2, by_v4, by_k = ONE / v2, HALF / v4, HALF / k_t
    for i in range(len(v)):
        u = v[i]
        half = _tanh((u - v3) * by_v4)
        square = half * half
        # cosh from tanh
        pace = dt * phi / np.sqrt(ONE - square)
        open_share = w[i] + pace * (HALF + half / (ONE + square) - w[i])
        m = HALF + HALF * _tanh((u - v1) * by_v2)
        ionic = g_ca * m * (u - e_ca) + g_k * open_share * (u - e_k) + g_l * (u - e_l)
        u += dt / capacitance * (current[i] + outside[i] - ionic)
        v[i], w[i] = u, open_share
        t[i] = HALF + HALF * _tanh((u - v_t) * by_k)


@compiled(**OPTIONS)
def run(v, w, t, total, among, outside, constants, n_steps, n_read):
    """A word of networks side by side; `total` gets the sum of the last `n_read` transmitters.

    State, `total` and the currents from `outside` are of shape (n_networks, n_samples, n_cells).
    """
    current = np.empty_like(v)
    for i in range(n_steps):
        for k in range(len(v)):
            np.dot(t[k], among[k], current[k])
        _step(
            *(v.reshape(-1), w.reshape(-1), t.reshape(-1)),
            *(current.reshape(-1), outside.reshape(-1), constants),
        )
        if i >= n_steps - n_read:
            total += t
