"""The loops of `loops.py`, compiled by Numba: few passes over a step, no lock on Python.

Rows are gone over several times with few arrays at a time: they stay in the nearest cache, and
the compiler can still tell that so few arrays do not overlap. Numbers that are passed have the
dtype of the arrays, so that nothing is computed in another.
"""

import numpy as np
from numba import njit

__all__ = ["back_heun", "back_multistep", "heun", "multistep"]

options = {"nogil": True, "cache": True, "fastmath": {"contract"}, "error_model": "numpy"}


@njit(**options)
def _rate(u, r, gamma):
    zero = u.dtype.type(0)
    if gamma == 2:
        for j in range(len(u)):
            r[j] = zero if u[j] <= 0 else u[j] * u[j]
    else:
        for j in range(len(u)):
            r[j] = zero if u[j] <= 0 else u[j] ** gamma


@njit(**options)
def _rates(u, r, gamma):
    for i in range(len(u)):
        _rate(u[i], r[i], gamma)


@njit(**options)
def _add_gain(grad_u, back, u, gamma):
    zero, one = u.dtype.type(0), u.dtype.type(1)
    if gamma == 2:
        for j in range(len(u)):
            grad_u[j] += zero if u[j] <= 0 else back[j] * u[j]
    else:
        for j in range(len(u)):
            grad_u[j] += zero if u[j] <= 0 else back[j] * u[j] ** (gamma - one)


@njit(**options)
def _increment(product, forcing, u, step):
    for j in range(len(u)):
        product[j] += forcing[j] - step * u[j]


@njit(**options)
def _step(product, forcing, u, last, out, step, current, before):
    for j in range(len(u)):
        new = product[j] + forcing[j] - step * u[j]
        product[j] = new
        out[j] = u[j] + current * new + before * last[j]


@njit(**options)
def _axpy(out, x, scale, y):
    for j in range(len(x)):
        out[j] = x[j] + scale * y[j]


@njit(**options)
def _add(out, scale, y):
    # not `_axpy` with x = out, which looks like an overlap that must not be vectorised
    for j in range(len(out)):
        out[j] += scale * y[j]


@njit(**options)
def multistep(u, path, forcing, recurrent, step, current, before, cold, new, last, r, gamma):
    _rates(u, r, gamma)
    if cold:
        last[:] = 0
    for t in range(len(path)):
        out, share = path[t], current + before if cold and t == 0 else current
        np.dot(recurrent, r, new)
        for i in range(len(u)):
            _step(new[i], forcing[t, i], u[i], last[i], out[i], step[i, 0], share, before)
            _rate(out[i], r[i], gamma)
        u, new, last = out, last, new


@njit(**options)
def heun(u, path, predictions, forcing, recurrent, step, half, new, r, gamma):
    one = half + half
    for t in range(len(path)):
        out, predicted = path[t], predictions[t % len(predictions)]
        _rates(u, r, gamma)
        np.dot(recurrent, r, new)
        for i in range(len(u)):
            _increment(new[i], forcing[t, i], u[i], step[i, 0])
            _axpy(predicted[i], u[i], one, new[i])
            _axpy(out[i], u[i], half, new[i])
            _rate(predicted[i], r[i], gamma)
        np.dot(recurrent, r, new)
        for i in range(len(u)):
            _increment(new[i], forcing[t + 1, i], predicted[i], step[i, 0])
            _add(out[i], half, new[i])
        u = out


@njit(**options)
def _through(grad_u, x, u, transposed, step, grad_recurrent, outer, r, back, gamma):
    _rates(u, r, gamma)
    np.dot(x, r.T, outer)
    np.dot(transposed, x, back)
    one = step.dtype.type(1)
    for i in range(len(u)):
        _add(grad_recurrent[i], one, outer[i])
        _add(grad_u[i], -step[i, 0], x[i])
        _add_gain(grad_u[i], back[i], u[i], gamma)


@njit(**options)
def back_multistep(
    grad_u,
    owed,
    u,
    xs,
    transposed,
    step,
    current,
    before,
    cold,
    carried,
    grad_recurrent,
    outer,
    r,
    back,
    gamma,
):
    one = step.dtype.type(1)
    for t in range(len(xs) - 1, -1, -1):
        x, owing = xs[t], owed[t % len(owed)]
        for i in range(len(x)):
            _add(grad_u[i], one, owing[i])
            _axpy(x[i], carried[i], current, grad_u[i])
            if before != 0:
                for j in range(len(grad_u[i])):
                    carried[i, j] = before * grad_u[i, j]
                if cold and t == 0:
                    _add(x[i], one, carried[i])
        _through(grad_u, x, u[t], transposed, step, grad_recurrent, outer, r, back, gamma)


@njit(**options)
def back_heun(
    grad_u,
    owed,
    u,
    predictions,
    xs,
    ys,
    transposed,
    step,
    half,
    grad_recurrent,
    outer,
    r,
    back,
    gamma,
):
    one = half + half
    rest = transposed, step, grad_recurrent, outer, r, back, gamma
    for t in range(len(xs) - 1, -1, -1):
        x, y, owing = xs[t], ys[t], owed[t % len(owed)]
        for i in range(len(x)):
            _add(grad_u[i], one, owing[i])
            for j in range(len(grad_u[i])):
                y[i, j] = half * grad_u[i, j]
                x[i, j] = 0
        _through(x, y, predictions[t], *rest)  # what is owed to the prediction
        for i in range(len(x)):
            _add(grad_u[i], one, x[i])
            _add(x[i], one, y[i])
        _through(grad_u, x, u[t], *rest)
