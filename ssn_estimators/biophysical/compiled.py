"""Networks of Morris-Lecar cells, compiled by Numba: one pass over all cells in a step."""

import numpy as np

from ssn_estimators._numba import OPTIONS, compiled, polynomial

__all__ = ["record", "run", "trace_back"]


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


@compiled(**OPTIONS)
def record(vs, ws, ts, among, outside, constants, n_steps, n_read):
    """One network through all words; returns the sum of the last `n_read` transmitters.

    Potentials, open shares and transmitters, of shape (n_words * n_steps + 1, n_samples, n_cells),
    have the start in front and get all that follows. Currents from `outside` are of shape
    (n_words, n_samples, n_cells).
    """
    n_total = len(vs) - 1
    current, total = np.empty_like(vs[0]), np.zeros_like(vs[0])
    for i in range(n_total):
        np.dot(ts[i], among, current)
        vs[i + 1], ws[i + 1] = vs[i], ws[i]
        _step(
            *(vs[i + 1].reshape(-1), ws[i + 1].reshape(-1), ts[i + 1].reshape(-1)),
            *(current.reshape(-1), outside[i // n_steps].reshape(-1), constants),
        )
        if i >= n_total - n_read:
            total += ts[i + 1]
    return total


@compiled(**OPTIONS)
def _step_back(v, w, after, t, of_v, of_w, of_t, of_current, constants):
    """Gradients through one step, from those of what is after it to those of what was before.

    `after` and `t` are the open share and the transmitter after the step; `of_t` is the gradient of
    this transmitter, and `of_current` gets that of the current.
    """
    dt, g_ca, g_k, g_l, e_ca, e_k, _ = constants[:7]
    v1, v2, v3, v4, phi, capacitance, _, _, _, k_t = constants[7:]
    by_v2, by_v4, by_k, by_c = ONE / v2, HALF / v4, ONE / k_t, dt / capacitance
    for i in range(len(v)):
        u = v[i]
        half = _tanh((u - v3) * by_v4)
        square = half * half
        pace = dt * phi / np.sqrt(ONE - square)
        whole = half / (ONE + square)  # half of tanh of twice the argument
        steep = (HALF - (whole + whole) * whole) / v4
        lag = HALF + whole - w[i]
        slope = _tanh((u - v1) * by_v2)
        m, rise = HALF + HALF * slope, HALF * (ONE - slope * slope) * by_v2
        g_v = of_v[i] + of_t[i] * t[i] * (ONE - t[i]) * by_k
        g_w = of_w[i] - by_c * g_k * (u - e_k) * g_v
        of_current[i] = by_c * g_v
        leak = g_ca * (m + rise * (u - e_ca)) + g_k * after[i] + g_l
        of_v[i] = g_v * (ONE - by_c * leak) + g_w * pace * (half * by_v4 * lag + steep)
        of_w[i] = g_w * (ONE - pace)


@compiled(**OPTIONS)
def trace_back(vs, ws, ts, of_total, among, constants, n_steps, n_read):
    """Gradients of the currents from outside and of `among`, from that of what `record` returns."""
    n_total = len(vs) - 1
    of_v, of_w, of_t = np.zeros_like(of_total), np.zeros_like(of_total), np.zeros_like(of_total)
    of_outside = np.zeros((n_total // n_steps, *of_total.shape), of_total.dtype)
    of_among, among_back = np.zeros_like(among), np.ascontiguousarray(among.T)
    of_current = np.empty_like(vs[:n_steps])
    for i in range(n_total - 1, -1, -1):
        if i >= n_total - n_read:
            of_t += of_total
        k = i % n_steps
        _step_back(
            *(vs[i].reshape(-1), ws[i].reshape(-1), ws[i + 1].reshape(-1), ts[i + 1].reshape(-1)),
            *(of_v.reshape(-1), of_w.reshape(-1), of_t.reshape(-1)),
            *(of_current[k].reshape(-1), constants),
        )
        of_outside[i // n_steps] += of_current[k]
        np.dot(of_current[k], among_back, of_t)
        if k == 0:  # those of a word in one product
            before = ts[i : i + n_steps].reshape(-1, among.shape[0])
            of_among += np.dot(before.T, of_current.reshape(-1, among.shape[0]))
    return of_outside, of_among
