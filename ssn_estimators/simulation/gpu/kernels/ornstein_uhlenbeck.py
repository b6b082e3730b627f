"""The noise: increments by counting, and the processes that they drive."""

import math

import triton
import triton.language as tl
from triton.language.extra import libdevice

from ssn_estimators.simulation.gpu.kernels.arithmetic import COUNTS, FAST, by_four, log2

__all__ = ["draw", "noise"]

TWO_LOG_2 = tl.constexpr(2 * math.log(2))
ROUNDS = tl.constexpr(7)  # of Philox-4x32; the fewest that pass BigCrush (Salmon et al. 2011)


@triton.jit
def _two_normals(a, b):
    """Box-Muller transform of two words of 32 random bits."""
    uniform = a.to(tl.float32) * 2.0**-32 + 2.0**-33
    angle = b.to(tl.int32, bitcast=True).to(tl.float32) * (3.141592653589793 * 2.0**-31)
    if FAST:
        cos, sin = libdevice.fast_cosf(angle), libdevice.fast_sinf(angle)
    else:
        cos, sin = tl.cos(angle), tl.sin(angle)
    radius = tl.sqrt(tl.abs(log2(uniform) * TWO_LOG_2))
    return radius * cos, radius * sin


@triton.jit
def _three_point(a):
    """+1 and -1 with probability 1/6 each, else 0."""
    low, high = 715827883, 3579139413  # 2**32 / 6 and its complement
    return tl.where(a < low, -1.0, tl.where(a >= high, 1.0, 0.0))


@triton.jit
def _rounded(x):
    return x.to(tl.float16).to(tl.float32)


@triton.jit
def draw(
    seed,
    lanes,
    step,
    ids,
    signs,
    PIECES: tl.constexpr,
    WEAK: tl.constexpr,
    ANTITHETIC: tl.constexpr,
):
    """Four independent increments of shape (columns, lanes), for the quarters of a block.

    Where products are to be those of float32, increments are numbers that float16 holds exactly.
    """
    a, b, c, d = tl.philox(seed, lanes[None, :], step, ids[:, None], 0, ROUNDS)
    if WEAK:
        a, b, c, d = _three_point(a), _three_point(b), _three_point(c), _three_point(d)
    else:
        a, b = _two_normals(a, b)
        c, d = _two_normals(c, d)
        if PIECES == 2:
            a, b, c, d = _rounded(a), _rounded(b), _rounded(c), _rounded(d)
    if ANTITHETIC:
        a, b, c, d = a * signs, b * signs, c * signs, d * signs
    return a, b, c, d


@triton.jit(do_not_specialize=COUNTS)
def noise(
    z,
    path,
    seeds,
    ids,
    signs,
    n_networks,
    n_columns,
    n_cells,
    start,
    stop,
    decay,
    kick,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    PIECES: tl.constexpr,
    WEAK: tl.constexpr,
    KEEP: tl.constexpr,
):
    """OU processes z from step `start` to `stop`; the start itself is drawn if it is 0.

    With KEEP, `path` gets z at every step from `start` on, `stop` included.
    """
    QUARTER: tl.constexpr = BLOCK // 4
    n_cells = by_four(n_cells)
    block, network = tl.program_id(1), tl.program_id(2).to(tl.int64)
    offset, own = tl.program_id(0).to(tl.int64) * COLUMNS, tl.arange(0, COLUMNS)
    columns = offset.to(tl.int32) + own
    lanes = block * QUARTER + tl.arange(0, QUARTER)
    seed = tl.load(seeds + network)
    ids = tl.load(ids + columns, mask=columns < n_columns, other=0)
    signs = tl.load(signs + columns, mask=columns < n_columns, other=0.0)[:, None]
    size = n_columns.to(tl.int64) * n_cells
    z += network * size + offset * n_cells
    path += network * size + offset * n_cells
    for step in range(start, stop + 1):
        x = draw(seed, lanes, step, ids, signs, PIECES, WEAK, True)
        if step == 0:
            x = draw(seed, lanes, step, ids, signs, 1, False, True)
        for i in tl.static_range(4):
            cells = block * BLOCK + i * QUARTER + tl.arange(0, QUARTER)[None, :]
            inside = (columns < n_columns)[:, None] & (cells < n_cells)
            at = own[:, None] * n_cells + cells
            value = x[i]
            if step > 0:
                value = tl.load(z + at, mask=inside, other=0.0)
                if step > start:
                    value = decay * value + kick * x[i]
            tl.store(z + at, value, mask=inside)
            if KEEP:
                tl.store(path + (step - start) * (n_networks * size) + at, value, mask=inside)
        tl.debug_barrier()
