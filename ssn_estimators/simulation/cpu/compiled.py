"""The loops of `loops.py`, compiled by Numba: few passes over a step, no lock on Python.

Arrays of one step are gone over as flat ones, over all neurons with the same time constant at
once, in loops with few arrays each: the compiler can still tell that so few do not overlap, and
uses vectors. Numbers that are passed have the dtype of the arrays, so that nothing is computed
in another.
"""

import numpy as np

from ssn_estimators._numba import OPTIONS, compiled, polynomial
from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.simulation.cpu.values import Forcing, Totals

__all__ = ["back_heun", "back_multistep", "ornstein_uhlenbeck", "run", "start_process"]


ROOM = 512  # numbers of which powers are taken at a time
FEW = 32  # numbers in a step
STRETCH = 64  # steps that are added up apart
MOST = DIVERGENCE_THRESHOLD  # at both ends of tables
SMALL = 16  # entries of a matrix whose products are not worth a library's call
LONG, SHORT = 1279, 418  # lags, see `noise.LaggedFibonacci`
UNIT = np.float32((1 - 2**-24) * 2.0**-31)  # of integers, so that numbers stay inside (-1, 1)
BITS, SQRT_HALF = np.int32(23), np.int32(0x3F3504F3)  # of a mantissa; the root's as an integer
ONE, HALF, LOG_2 = np.float32(1), np.float32(0.5), np.float32(np.log(2))


def _coefficients(*numbers):
    return tuple(np.float32(x) for x in numbers)


# Polynomials, from the highest power: (log(1 + x) - x + x^2 / 2) / x^3, from Moshier's Cephes
LOG = _coefficients(
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
# the same, for powers: least squares with weights that make the largest error least, 7e-9
SHORT_LOG = _coefficients(
    *(0.0867219199, -0.143790132, 0.149779937, -0.165644251, 0.199548756, -0.250016988),
    0.333341659,
)
# 2^x for |x| <= 1/2, in the same way, 1 at 0
EXP2 = _coefficients(0.00132647273, 0.00967151279, 0.0555073374, 0.240222421, 0.693146978, 1)
PER_LOG_2 = np.float32(1 / np.log(2))
# erfinv(x) / x in w - 2.5, and beyond w = 5 in sqrt(w) - 3, where w = -log(1 - x^2), from
# Giles (2012). Approximating the erfinv function. GPU Computing Gems Jade, chapter 10.
MIDDLE = _coefficients(
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087),
    *(-0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
TAIL = _coefficients(
    *(-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773),
    *(-0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)


@compiled(**OPTIONS)
def _uniform(integers, x, y):
    for j in range(len(x)):
        x[j] = np.float32(integers[j]) * UNIT
        y[j] = (ONE - x[j]) * (ONE + x[j])


@compiled(**OPTIONS)
def _split(bits, mantissa, exponent):
    for j in range(len(bits)):
        e = (bits[j] - SQRT_HALF) >> BITS
        mantissa[j] = bits[j] - (e << BITS)
        exponent[j] = np.float32(e)


@compiled(**OPTIONS)
def _minus_log(mantissa, w):
    """From the exponents in w."""
    for j in range(len(w)):
        x = mantissa[j] - ONE
        w[j] = -(x + x * x * (x * polynomial(LOG, x) - HALF) + w[j] * LOG_2)


@compiled(**OPTIONS)
def _erfinv(x, w, out):
    for j in range(len(x)):
        middle = polynomial(MIDDLE, w[j] - np.float32(2.5))
        tail = polynomial(TAIL, np.sqrt(w[j]) - np.float32(3))
        out[j] = x[j] * (middle if w[j] < np.float32(5) else tail)


@compiled(**OPTIONS)
def _gaussian(integers, out, room):
    """Normal numbers of variance 1/2, by inversion in float32."""
    for first in range(0, len(out), room.shape[1]):
        size = min(room.shape[1], len(out) - first)
        x, y, mantissa, w = room[0, :size], room[1, :size], room[2, :size], room[3, :size]
        _uniform(integers[first : first + size], x, y)
        _split(y.view(np.int32), mantissa.view(np.int32), w)
        _minus_log(mantissa, w)
        _erfinv(x, w, out[first : first + size])


@compiled(**OPTIONS)
def _three_point(integers, out):
    for j in range(len(out)):
        out[j] = np.float32(integers[j] > 85) - np.float32(integers[j] < -86)


@compiled(**OPTIONS)
def _refill(table):
    lanes = len(table) // LONG
    _add(table[: SHORT * lanes], np.int32(1), table[(LONG - SHORT) * lanes :])
    for first in range(SHORT, LONG, SHORT):
        part = table[first * lanes : min(first + SHORT, LONG) * lanes]
        _add(part, np.int32(1), table[(first - SHORT) * lanes : first * lanes])


@compiled(**OPTIONS)
def _increments(out, table, n_read, room, weak):
    """As `OrnsteinUhlenbeck` draws them; `n_read` are bytes."""
    start, size = 0, 1 if weak else 4
    while start < len(out):
        if n_read[0] == 4 * len(table):
            _refill(table)
            n_read[0] = 0
        first = n_read[0] // size
        n = min(len(out) - start, 4 * len(table) // size - first)
        if weak:
            _three_point(table.view(np.int8)[first : first + n], out[start : start + n])
        else:
            _gaussian(table[first : first + n], out[start : start + n], room)
        start += n
        n_read[0] += n * size


@compiled(**OPTIONS)
def _copy(out, x):
    for j in range(len(out)):  # assignment of a slice takes seconds to compile
        out[j] = x[j]


@compiled(**OPTIONS)
def start_process(process):
    """`process` as for `ornstein_uhlenbeck`, but not weak: the start is normal in either case."""
    now, table, n_read, room, _, _, weak = process
    _increments(now, table, n_read, room, weak)
    for j in range(len(now)):
        now[j] *= np.sqrt(2)


@compiled(**OPTIONS)
def ornstein_uhlenbeck(path, process):
    """Values now, of a shape (n_steps + 1, -1), and after every step."""
    now, table, n_read, room, decay, kick, weak = process
    _copy(path[0], now)
    together = len(now) <= FEW  # the calls of single steps take longer than a few numbers
    if together:
        _increments(path[1:].reshape(-1), table, n_read, room, weak)
    for t in range(1, len(path)):
        if not together:
            _increments(path[t], table, n_read, room, weak)
        for j in range(len(now)):
            path[t, j] = decay * path[t - 1, j] + kick * path[t, j]
    _copy(now, path[-1])


@compiled(**OPTIONS)
def _groups(step, n_columns):
    """Bounds of the neurons with the same step in a flat array, and that step."""
    bounds, steps, n_groups = np.zeros(len(step) + 1, np.int64), np.empty_like(step[:, 0]), 0
    for i in range(1, len(step) + 1):
        if i == len(step) or step[i, 0] != step[i - 1, 0]:
            steps[n_groups] = step[i - 1, 0]
            n_groups += 1
            bounds[n_groups] = i * n_columns
    return bounds[: n_groups + 1], steps[:n_groups]


@compiled(**OPTIONS)
def _powers(u, r, gamma, most, room):
    """u^gamma in float32, 0 for u <= 0: whole powers times 2^(part log2 u), within some 1e-7.

    Also tells whether all of u are legal.
    """
    whole, beyond = np.int64(gamma), False
    part = np.float32(gamma - whole)
    for first in range(0, len(u), len(room)):
        size = min(len(room), len(u) - first)
        base, out, w = u[first : first + size], r[first : first + size], room[:size]
        _split(base.view(np.int32), out.view(np.int32), w)
        _split_power(out, w, part)
        _scale(w.view(np.int32), out)
        for _ in range(1, whole):
            for j in range(size):
                w[j] *= base[j]
        for j in range(size):
            beyond |= not abs(base[j]) <= most  # NaN too
            out[j] = np.float32(0) if base[j] <= 0 else w[j] * base[j]
    return not beyond


@compiled(**OPTIONS)
def _split_power(mantissa, w, part):
    """2^y with y = part log2 of mantissas and exponents w: the whole part of y, and 2^ the rest.

    They take the places of the mantissas and of w.
    """
    for j in range(len(w)):
        x = mantissa[j] - ONE
        y = part * (w[j] + PER_LOG_2 * (x + x * x * (x * polynomial(SHORT_LOG, x) - HALF)))
        whole = np.floor(y + HALF)
        mantissa[j] = whole
        w[j] = polynomial(EXP2, y - whole)


@compiled(**OPTIONS)
def _scale(bits, whole):
    """Multiply numbers, given by their bits, by powers of 2."""
    for j in range(len(bits)):
        bits[j] += np.int32(whole[j]) << BITS


@compiled(**OPTIONS)
def _looked_up(v, table):
    """Cubic between the nodes of a table of :mod:`tables`, linear beyond."""
    last = len(table) - 1
    place = (v + MOST) * (last / (2 * MOST))
    if not place >= 0:
        return table[0, 0]
    i = min(np.int64(min(place, last)), last - 1)
    t = place - i
    if t > 1:
        return table[last, 0] + (t - 1) * table[last, 1]
    rest = 1 - t
    return rest * rest * ((1 + 2 * t) * table[i, 0] + t * table[i, 1]) + t * t * (
        (1 + 2 * rest) * table[i + 1, 0] - rest * table[i + 1, 1]
    )


@compiled(**OPTIONS)
def _rate(u, r, law, most):
    """phi(u); also tell whether all potentials are legal."""
    gamma, table = law
    zero, beyond = u.dtype.type(0), False
    if len(table):
        for j in range(len(u)):
            beyond |= not abs(u[j]) <= most  # NaN too
            r[j] = _looked_up(u[j], table)
    elif gamma == 2:
        for j in range(len(u)):
            beyond |= not abs(u[j]) <= most
            r[j] = zero if u[j] <= 0 else u[j] * u[j]
    elif u.itemsize == 4 and gamma < 8:
        return _powers(u, r, gamma, most, np.empty(ROOM, np.float32))
    else:
        for j in range(len(u)):
            beyond |= not abs(u[j]) <= most
            r[j] = zero if u[j] <= 0 else u[j] ** gamma
    return not beyond


@compiled(**OPTIONS)
def _add_gain(grad_u, back, u, r, gamma):
    """From the rates r, whose derivative is gamma r / u."""
    zero = u.dtype.type(0)
    if gamma == 2:
        for j in range(len(u)):
            grad_u[j] += zero if u[j] <= 0 else gamma * back[j] * u[j]
    else:
        for j in range(len(u)):
            grad_u[j] += zero if u[j] <= 0 else gamma * back[j] * (r[j] / u[j])


@compiled(**OPTIONS)
def _add(out, scale, y):
    for j in range(len(out)):
        out[j] += scale * y[j]


@compiled(**OPTIONS)
def _force(base, kick, column, sign, out):
    """Forcing of one step; in the two common cases without looking up the column."""
    n_columns = len(sign)
    for i in range(len(out)):
        if kick.shape[1] == n_columns:
            for j in range(n_columns):
                out[i, j] = base[i, j] + sign[j] * kick[i, j]
        elif kick.shape[1] == 1:
            shared = kick[i, 0]
            for j in range(n_columns):
                out[i, j] = base[i, j] + sign[j] * shared
        else:
            for j in range(n_columns):
                out[i, j] = base[i, j] + sign[j] * kick[i, column[j]]


@compiled(**OPTIONS)
def _add_force(base, kick, column, sign, u, step, new):
    """Add forcing and leak to what is recurrent, in one pass; columns as in `_force`."""
    n_columns = len(sign)
    for i in range(len(new)):
        e = step[i, 0]
        if kick.shape[1] == n_columns:
            for j in range(n_columns):
                new[i, j] += base[i, j] + sign[j] * kick[i, j] - e * u[i, j]
        elif kick.shape[1] == 1:
            shared = kick[i, 0]
            for j in range(n_columns):
                new[i, j] += base[i, j] + sign[j] * shared - e * u[i, j]
        else:
            for j in range(n_columns):
                new[i, j] += base[i, j] + sign[j] * kick[i, column[j]] - e * u[i, j]


@compiled(**OPTIONS)
def _move(new, last, u, out, current, before):
    if before == 0:
        for j in range(len(u)):
            out[j] = u[j] + current * new[j]
    else:
        for j in range(len(u)):
            out[j] = u[j] + current * new[j] + before * last[j]


@compiled(**OPTIONS)
def _predict(new, force, u, predicted, e):
    for j in range(len(u)):
        predicted[j] = u[j] + (new[j] + force[j] - e * u[j])


@compiled(**OPTIONS)
def _correct(new, force, u, predicted, out, e, half):
    for j in range(len(u)):
        out[j] = half * (u[j] + predicted[j] + (new[j] + force[j] - e * predicted[j]))


@compiled(**OPTIONS)
def _product(a, b, out):
    """The calls of a library take longer than the products of a few cells.

    Which of them it is must not depend on the number of columns: they round differently.
    """
    n, m = a.shape
    if n * m > SMALL:
        np.dot(a, b, out)
        return
    for i in range(n):
        for j in range(b.shape[1]):
            out[i, j] = a[i, 0] * b[0, j]
        for k in range(1, m):
            share = a[i, k]
            for j in range(b.shape[1]):
                out[i, j] += share * b[k, j]


@compiled(**OPTIONS)
def _kick(noise_factor, z, out):
    if noise_factor.shape[0] == noise_factor.shape[1]:
        _product(noise_factor, z, out)
        return
    for i in range(len(out)):
        own = noise_factor[i, 0]
        for j in range(out.shape[1]):
            out[i, j] = own * z[i, j]


@compiled(**OPTIONS)
def _respond(new, force, u, c, e, law):
    """Increment of a cell's rates in the rate form, from their recurrent input."""
    gamma, table = law
    zero = u.dtype.type(0)
    if len(table):
        for j in range(len(u)):
            new[j] = c * _looked_up(new[j] + force[j], table) - e * u[j]
    elif gamma == 2:
        for j in range(len(u)):
            v = new[j] + force[j]
            new[j] = (zero if v <= 0 else c * v * v) - e * u[j]
    else:
        for j in range(len(u)):
            v = new[j] + force[j]
            new[j] = (zero if v <= 0 else c * v**gamma) - e * u[j]


@compiled(**OPTIONS)
def _rates_increment(u, force, cells, new):
    _product(cells.recurrent, u, new)
    for i in range(len(u)):
        c, e = cells.response[i, 0], cells.relative_step[i, 0]
        _respond(new[i], force[i], u[i], c, e, cells.law)


@compiled(**OPTIONS)
def _all_legal(u, most):
    beyond = False
    for j in range(len(u)):
        beyond |= not abs(u[j]) <= most  # NaN too
    return not beyond


@compiled(**OPTIONS)
def _multistep_of_rates(u, path, forcing, cells, scheme, room, last, cold):
    before, now, (column, sign) = last, room.increment, forcing.columns
    start, force, legal = u, room.force[0], True
    if cold:
        last[:] = 0
    for t in range(len(path)):
        out = path[t]
        _force(forcing.base[t % len(forcing.base)], forcing.kicks[t], column, sign, force)
        _rates_increment(start, force, cells, now)
        share = scheme.current + scheme.before if cold and t == 0 else scheme.current
        flat_start, flat_out = start.reshape(-1), out.reshape(-1)
        flat_now, flat_before = now.reshape(-1), before.reshape(-1)
        _move(flat_now, flat_before, flat_start, flat_out, share, scheme.before)
        legal &= _all_legal(flat_out, cells.most)
        start, now, before = out, before, now
    if len(path) % 2:  # what was last is in the other array
        _copy(last.reshape(-1), before.reshape(-1))
    return legal


@compiled(**OPTIONS)
def _heun_of_rates(u, path, forcing, cells, scheme, room, predictions):
    base, kicks, (column, sign), half = forcing.base, forcing.kicks, forcing.columns, scheme.current
    new, second, start, legal = room.increment, room.rates, u, True
    _force(base[0], kicks[0], column, sign, room.force[0])
    for t in range(len(path)):
        out, predicted = path[t], predictions[t % len(predictions)]
        now, after = room.force[t % 2], room.force[(t + 1) % 2]
        _rates_increment(start, now, cells, new)
        for i in range(len(out)):
            for j in range(out.shape[1]):
                predicted[i, j] = start[i, j] + new[i, j]
        _force(base[(t + 1) % len(base)], kicks[t + 1], column, sign, after)
        _rates_increment(predicted, after, cells, second)
        for i in range(len(out)):
            for j in range(out.shape[1]):
                out[i, j] = start[i, j] + half * (new[i, j] + second[i, j])
        legal &= _all_legal(out.reshape(-1), cells.most)
        start = out
    return legal


@compiled(**OPTIONS)
def _multistep(u, path, forcing, cells, scheme, room, last, cold):
    before, now, (column, sign) = last, room.increment, forcing.columns
    flat_r, start, legal = room.rates.reshape(-1), u, True
    _rate(start.reshape(-1), flat_r, cells.law, cells.most)
    if cold:
        last[:] = 0
    for t in range(len(path)):
        out, flat_out, base = path[t], path[t].reshape(-1), forcing.base[t % len(forcing.base)]
        _product(cells.recurrent, room.rates, now)
        _add_force(base, forcing.kicks[t], column, sign, start, cells.relative_step, now)
        share = scheme.current + scheme.before if cold and t == 0 else scheme.current
        flat_now, flat_before = now.reshape(-1), before.reshape(-1)
        _move(flat_now, flat_before, start.reshape(-1), flat_out, share, scheme.before)
        legal &= _rate(flat_out, flat_r, cells.law, cells.most)
        start, now, before = out, before, now
    if len(path) % 2:  # what was last is in the other array
        _copy(last.reshape(-1), before.reshape(-1))
    return legal


@compiled(**OPTIONS)
def _heun(u, path, forcing, cells, scheme, room, predictions):
    base, kicks, (column, sign), half = forcing.base, forcing.kicks, forcing.columns, scheme.current
    bounds, steps = _groups(cells.relative_step, u.shape[1])
    new, flat_new, flat_r = room.increment, room.increment.reshape(-1), room.rates.reshape(-1)
    start, legal = u.reshape(-1), True
    _rate(start, flat_r, cells.law, cells.most)
    _force(base[0], kicks[0], column, sign, room.force[0])
    for t in range(len(path)):
        out, predicted = path[t].reshape(-1), predictions[t % len(predictions)].reshape(-1)
        now, after = room.force[t % 2].reshape(-1), room.force[(t + 1) % 2].reshape(-1)
        _product(cells.recurrent, room.rates, new)
        for g in range(len(steps)):
            part = slice(bounds[g], bounds[g + 1])
            _predict(flat_new[part], now[part], start[part], predicted[part], steps[g])
        _rate(predicted, flat_r, cells.law, cells.most)
        _force(base[(t + 1) % len(base)], kicks[t + 1], column, sign, room.force[(t + 1) % 2])
        _product(cells.recurrent, room.rates, new)
        for g in range(len(steps)):
            part = slice(bounds[g], bounds[g + 1])
            _correct(
                flat_new[part], after[part], start[part], predicted[part], out[part], steps[g], half
            )
        legal &= _rate(out, flat_r, cells.law, cells.most)
        start = out
    return legal


@compiled(**OPTIONS)
def _square(v, zero):
    return zero if v <= 0 else v * v


@compiled(**OPTIONS)
def _are_few(u, columns, law):
    """Whether steps are taken number by number: slices take longer than a few of them.

    What comes out is to be the same to the last bit, which other laws than the square are not.
    """
    return len(u) * len(columns.sign) <= FEW and law.gamma == 2


@compiled(**OPTIONS)
def _few_multistep(u, path, forcing, cells, scheme, room, last, cold):
    """`_multistep`, or that of rates, number by number, in the same order."""
    base, kicks, (column, sign) = forcing.base, forcing.kicks, forcing.columns
    n, m, zero = len(u), len(sign), u.dtype.type(0)
    state, source, in_rates = room.force[0], room.rates, len(cells.response) > 0
    legal = True
    for i in range(n):
        for j in range(m):
            state[i, j] = u[i, j]
            if cold:
                last[i, j] = zero
    for t in range(len(path)):
        share = scheme.current + scheme.before if cold and t == 0 else scheme.current
        at = t % len(base)
        for i in range(n):
            for j in range(m):
                v = state[i, j]
                source[i, j] = v if in_rates else _square(v, zero)
        for i in range(n):
            e = cells.relative_step[i, 0]
            for j in range(m):
                force = base[at, i, j] + sign[j] * kicks[t, i, column[j]]
                v = zero  # or a single product would not be rounded before the next sum
                for k in range(n):
                    v += cells.recurrent[i, k] * source[k, j]
                if in_rates:
                    v += force
                    v = (zero if v <= 0 else cells.response[i, 0] * v * v) - e * state[i, j]
                else:
                    v += force - e * state[i, j]
                room.increment[i, j] = v
        for i in range(n):
            for j in range(m):
                v = state[i, j] + share * room.increment[i, j] + scheme.before * last[i, j]
                last[i, j] = room.increment[i, j]
                state[i, j] = path[t, i, j] = v
                legal &= abs(v) <= cells.most  # not NaN
    return legal


@compiled(**OPTIONS)
def _add_up(part, columns, totals, room, cells, with_rates):
    """Add states after some steps, and their rates, to the sums of both."""
    zero, one, stretch = part.dtype.type(0), part.dtype.type(1), totals.stretch
    few = _are_few(part[0], columns, cells.law)
    for t in range(len(part)):
        if few:
            for i in range(len(part[t])):
                for j in range(len(columns.sign)):
                    stretch[0, i, j] += part[t, i, j]
                    if with_rates:
                        stretch[1, i, j] += _square(part[t, i, j], zero)
        else:
            out = part[t].reshape(-1)
            _add(stretch[0].reshape(-1), one, out)
            if with_rates:
                _rate(out, room.rates.reshape(-1), cells.law, cells.most)
                _add(stretch[1].reshape(-1), one, room.rates.reshape(-1))
        if (totals.n_steps + t + 1) % STRETCH == 0:
            _add(totals.before.reshape(-1), one, stretch.reshape(-1))
            stretch[:] = 0


@compiled(**OPTIONS)
def run(u, path, n_steps, source, cells, scheme, room, predictions, cold, totals):
    """Steps with their noise, until all are done or some potential is beyond the legal range.

    Parameters
    ----------
    u, predictions, cold
        See `loops.py`; predictions are the increment of the last step in multi-step schemes.
    path : array
        Rows for all steps, or for as many as noise is made at a time, to be used in turn.
    n_steps : int
    source : Source
    cells : Cells
    scheme : Scheme
    room : Room
    totals : Totals
        To add to.

    Returns
    -------
    n_done : int
    legal : bool
        Whether the last steps, since the noise was made, are legal.
    """
    z, kicks = source.values, source.kicks
    flat, done, legal = z.reshape(len(z), -1), 0, True
    while done < n_steps and legal:
        size, first = min(len(z) - 1, n_steps - done), done % len(path)
        if not source.quiet:
            ornstein_uhlenbeck(flat[: size + 1], source.process)
            for t in range(size + 1):
                _kick(source.noise_factor, z[t], kicks[t])
        forcing, part = Forcing(source.base, kicks, source.columns), path[first : first + size]
        first_ever, in_rates = cold and done == 0, len(cells.response) > 0
        if scheme.heun:
            some = predictions[done : done + size] if len(predictions) > 1 else predictions
            if in_rates:
                legal = _heun_of_rates(u, part, forcing, cells, scheme, room, some)
            else:
                legal = _heun(u, part, forcing, cells, scheme, room, some)
        elif _are_few(u, source.columns, cells.law):
            last = predictions[0]
            legal = _few_multistep(u, part, forcing, cells, scheme, room, last, first_ever)
        elif in_rates:
            last = predictions[0]
            legal = _multistep_of_rates(u, part, forcing, cells, scheme, room, last, first_ever)
        else:
            legal = _multistep(u, part, forcing, cells, scheme, room, predictions[0], first_ever)
        if len(totals.stretch):
            with_rates = len(totals.stretch) > 1 and not in_rates
            own = Totals(totals.before, totals.stretch, totals.n_steps + done)
            _add_up(part, source.columns, own, room, cells, with_rates)
        u = part[-1]
        done += size
    return done, legal


@compiled(**OPTIONS)
def _through(grad_u, x, u, cells, grad_recurrent, state):
    bounds, steps = _groups(cells.relative_step, u.shape[1])
    flat_grad, flat_x, flat_u = grad_u.reshape(-1), x.reshape(-1), u.reshape(-1)
    _rate(flat_u, state.rates.reshape(-1), cells.law, cells.most)
    np.dot(x, state.rates.T, state.outer)
    np.dot(cells.recurrent, x, state.back)
    _add(grad_recurrent.reshape(-1), u.dtype.type(1), state.outer.reshape(-1))
    for g in range(len(steps)):
        part = slice(bounds[g], bounds[g + 1])
        _add(flat_grad[part], -steps[g], flat_x[part])
    _add_gain(flat_grad, state.back.reshape(-1), flat_u, state.rates.reshape(-1), cells.law.gamma)


@compiled(**OPTIONS | {"fastmath": {"contract", "reassoc", "nsz"}})
def _signed_sum(x, sign):
    total = x.dtype.type(0)
    for j in range(len(sign)):
        total += sign[j] * x[j]
    return total


@compiled(**OPTIONS)
def _owe_forcing(x, z, columns, grad_base, grad_noise, state):
    """Add to the gradients what the gradient x of F at one time means for them."""
    (column, sign), kick, outer = columns, state.kick, state.outer
    n_columns = len(sign)
    _add(grad_base.reshape(-1), x.dtype.type(1), x.reshape(-1))
    for i in range(len(x)):
        if kick.shape[1] == n_columns:
            for j in range(n_columns):
                kick[i, j] = sign[j] * x[i, j]
        elif kick.shape[1] == 1:
            kick[i, 0] = _signed_sum(x[i], sign)  # of as many as there are signs
        else:
            kick[i] = 0
            for j in range(n_columns):
                kick[i, column[j]] += sign[j] * x[i, j]
    np.dot(kick, z.T, outer)
    _add(grad_noise.reshape(-1), x.dtype.type(1), outer.reshape(-1))


@compiled(**OPTIONS)
def _lead(x, carried, grad_u, current, before):
    for j in range(len(x)):
        x[j] = carried[j] + current * grad_u[j]
        carried[j] = before * grad_u[j]


@compiled(**OPTIONS)
def back_multistep(owed, cells, scheme, gradients, state, cold):
    """Lead `state` back over a stretch of time; `cold` if that begins with the very first step."""
    flat_grad, flat_carried, flat_x = (
        state.grad_u.reshape(-1),
        state.carried.reshape(-1),
        state.x.reshape(-1),
    )
    u, direct, z, one = owed.u, owed.direct, owed.z, owed.u.dtype.type(1)
    base, recurrent, noise = gradients
    for t in range(len(u) - 1, -1, -1):
        _add(flat_grad, one, direct[t % len(direct)].reshape(-1))
        _lead(flat_x, flat_carried, flat_grad, scheme.current, scheme.before)
        if cold and t == 0:
            _add(flat_x, one, flat_carried)
        _owe_forcing(state.x, z[t], owed.columns, base[t % len(base)], noise, state)
        _through(state.grad_u, state.x, u[t], cells, recurrent, state)


@compiled(**OPTIONS)
def back_heun(owed, cells, scheme, gradients, state, predictions):
    """As `back_multistep`."""
    grad_u, y, x = state.grad_u, state.carried, state.x
    flat_grad, flat_x, flat_y = grad_u.reshape(-1), x.reshape(-1), y.reshape(-1)
    u, direct, z, half, one = owed.u, owed.direct, owed.z, scheme.current, owed.u.dtype.type(1)
    base, recurrent, noise = gradients
    x[:] = 0
    for t in range(len(u) - 1, -1, -1):
        _add(flat_grad, one, direct[t % len(direct)].reshape(-1))
        for j in range(len(flat_y)):
            flat_y[j] = half * flat_grad[j]
        # F at the end of this step is that at the start of the next, of which x is still the first
        _add(flat_x, one, flat_y)
        _owe_forcing(x, z[t + 1], owed.columns, base[(t + 1) % len(base)], noise, state)
        x[:] = 0
        _through(x, y, predictions[t], cells, recurrent, state)  # owed to the prediction
        _add(flat_grad, one, flat_x)
        _add(flat_x, one, flat_y)
        _through(grad_u, x, u[t], cells, recurrent, state)
    _owe_forcing(x, z[0], owed.columns, base[0], noise, state)
