"""Rates and gains, and products in pieces; constants of all kernels."""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD
from ssn_estimators.simulation.schemes import COEFFICIENTS

__all__ = [
    "AB2_BEFORE",
    "AB2_NOW",
    "COUNTS",
    "FAST",
    "HALF",
    "NEVER",
    "THRESHOLD",
    "add_outer",
    "add_outer_exact",
    "by_four",
    "gains_of",
    "in_halves",
    "interleaved",
    "load_matrix",
    "log2",
    "multiply",
    "multiply_in_tf32",
    "multiply_turned",
    "rates_of",
]

# Numbers that change from call to call; the kernels do not depend on their being 1 or even
COUNTS = "n_networks n_columns n_cells n_trials n_inputs n_steps".split()
COUNTS += "start stop n_tiles n_blocks n_burn".split()
# The interpreter runs on NumPy and knows the portable functions only
FAST = tl.constexpr(not triton.knobs.runtime.interpret)
NEVER = tl.constexpr(2**31 - 1)
THRESHOLD = tl.constexpr(DIVERGENCE_THRESHOLD)
AB2_NOW, AB2_BEFORE = (tl.constexpr(share) for share in COEFFICIENTS["ab2"])
HALF = tl.constexpr(COEFFICIENTS["heun"][0])


@triton.jit
def by_four(n_cells):
    """Rows hold a multiple of 4 cells: so the compiler knows that 16 bytes can go at a time."""
    return n_cells // 4 * 4


@triton.jit
def log2(x):
    """Within 3e-7 of the logarithm, or of 1 where that is small."""
    return libdevice.fast_log2f(x) if FAST else tl.log2(x)


@triton.jit
def _power(x, exponent):
    """Of x >= 0."""
    return tl.where(x > 0, tl.exp2(exponent * log2(x)), 0.0)


@triton.jit
def rates_of(u, gamma, POWER: tl.constexpr):
    """[u]+^gamma; POWER is gamma if that is 1 or 2, else 0."""
    above = tl.maximum(u, 0.0)
    if POWER == 2:
        above = above * above
    elif POWER == 0:
        above = _power(above, gamma)
    return above


@triton.jit
def gains_of(u, gamma, POWER: tl.constexpr):
    """Derivative of `rates_of`."""
    if POWER == 1:
        gains = tl.where(u > 0, 1.0, 0.0)
    elif POWER == 2:
        gains = 2 * tl.maximum(u, 0.0)
    else:
        above = tl.maximum(u, 0.0)
        gains = gamma * _power(above, gamma - 1)
    return gains


@triton.jit
def load_matrix(pointer, rows, columns, n_cells):
    """Block of a matrix over cells; zeros beyond the last cell."""
    inside = (rows[:, None] < n_cells) & (columns[None, :] < n_cells)
    return tl.load(pointer + rows[:, None] * n_cells + columns[None, :], mask=inside, other=0.0)


@triton.jit
def multiply(high, low, x, scale, PIECES: tl.constexpr):
    """(high + low) x, small terms first; `scale` keeps x within float16."""
    x = x * scale
    x_high = x.to(tl.float16)
    if PIECES == 2:
        x_low = (x - x_high.to(tl.float32)).to(tl.float16)
        product = tl.dot(low, x_high)
        product = tl.dot(high, x_low, product)
        product = tl.dot(high, x_high, product)
    else:
        product = tl.dot(high, x_high)
    return product


@triton.jit
def interleaved(a, b, c, d):
    """Quarters of shape (columns, lanes) as one block: number 4 l + i is lane l of quarter i."""
    pairs = tl.join(tl.join(a, c), tl.join(b, d))
    return pairs.reshape(a.shape[0], 4 * a.shape[1])


@triton.jit
def multiply_turned(high, low, x, PIECES: tl.constexpr):
    """(high + low) x^T for x within float16, small terms first."""
    x_high = x.to(tl.float16)
    if PIECES == 2:
        x_low = (x - x_high.to(tl.float32)).to(tl.float16)
        product = tl.dot(low, tl.trans(x_high))
        product = tl.dot(high, tl.trans(x_low), product)
        product = tl.dot(high, tl.trans(x_high), product)
    else:
        product = tl.dot(high, tl.trans(x_high))
    return product


@triton.jit
def in_halves(x):
    """Two numbers that add up to x; the first is the nearest TF32 number."""
    high = ((x.to(tl.int32, bitcast=True) + 4096) & -8192).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def multiply_in_tf32(a_high, a_low, b, total, PIECES: tl.constexpr):
    """total + (a_high + a_low) b in TF32, small terms first."""
    b_high, b_low = in_halves(b)
    if PIECES == 2:
        total = tl.dot(a_low, b_high, total, input_precision="tf32")
        total = tl.dot(a_high, b_low, total, input_precision="tf32")
    return tl.dot(a_high, b_high, total, input_precision="tf32")


@triton.jit
def add_outer(x, y, total, PIECES: tl.constexpr):
    """total + x^T y for x and y within float16, small terms first."""
    x_high, y_high = x.to(tl.float16), y.to(tl.float16)
    if PIECES == 2:
        x_low = (x - x_high.to(tl.float32)).to(tl.float16)
        y_low = (y - y_high.to(tl.float32)).to(tl.float16)
        total = tl.dot(tl.trans(x_low), y_high, total)
        total = tl.dot(tl.trans(x_high), y_low, total)
    return tl.dot(tl.trans(x_high), y_high, total)


@triton.jit
def add_outer_exact(x, y, total, PIECES: tl.constexpr):
    """The same for y of float16."""
    x_high = x.to(tl.float16)
    if PIECES == 2:
        x_low = (x - x_high.to(tl.float32)).to(tl.float16)
        total = tl.dot(tl.trans(x_low), y, total)
    return tl.dot(tl.trans(x_high), y, total)
