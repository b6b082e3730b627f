"""Gradients of matrices: outer products over columns and time."""

import triton
import triton.language as tl

from ssn_estimators.simulation.gpu.kernels.arithmetic import (
    COUNTS,
    add_outer,
    add_outer_exact,
    by_four,
    interleaved,
    rates_of,
)
from ssn_estimators.simulation.gpu.kernels.ornstein_uhlenbeck import draw

__all__ = ["outer"]


@triton.jit(do_not_specialize=COUNTS)
def outer(
    path,
    predictions,
    x,
    x_ahead,
    g_state,
    g_after,
    seeds,
    ids,
    signs,
    scales,
    grad_weights,
    grad_noise,
    n_networks,
    n_columns,
    n_cells,
    n_tiles,
    n_blocks,
    start,
    stop,
    n_burn,
    decay,
    gamma,
    rate_scale,
    HEUN: tl.constexpr,
    POWER: tl.constexpr,
    PIECES: tl.constexpr,
    WEAK: tl.constexpr,
    ANTITHETIC: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Add sum_t x_t r_t^T and sum_t G_t xi_t^T, G_t = x_t + decay G_{t+1}, for a block of each.

    The sums over the columns of every program of axis 0 are apart, so that they are added up
    in the same order every time. Products are of float16: `scales` keeps x and G within them.
    """
    QUARTER: tl.constexpr = BLOCK // 4
    n_cells = by_four(n_cells)
    split, network = tl.program_id(0), tl.program_id(2).to(tl.int64)
    row, column = tl.program_id(1) // n_blocks, tl.program_id(1) % n_blocks
    rows = row * BLOCK + tl.arange(0, BLOCK)
    cells = column * BLOCK + tl.arange(0, BLOCK)
    lanes = column * QUARTER + tl.arange(0, QUARTER)
    seed, scale = tl.load(seeds + network), tl.load(scales + network)
    unit, rate_unit = 1 / scale, 1 / rate_scale
    own = tl.arange(0, COLUMNS)
    stride = n_networks * n_columns.to(tl.int64) * n_cells
    of_weights = tl.zeros((BLOCK, BLOCK), tl.float32)
    of_noise = tl.zeros((BLOCK, BLOCK), tl.float32)
    for tile in range(split, n_tiles, tl.num_programs(0)):
        columns = tile * COLUMNS + own
        base = (network * n_columns + tile * COLUMNS) * n_cells
        in_columns = columns < n_columns
        tile_ids = tl.load(ids + columns, mask=in_columns, other=0)
        tile_signs = tl.load(signs + columns, mask=in_columns, other=0.0)[:, None]
        row_at = own[:, None] * n_cells + rows[None, :]
        in_rows = in_columns[:, None] & (rows[None, :] < n_cells)
        cell_at = own[:, None] * n_cells + cells[None, :]
        in_cells = in_columns[:, None] & (cells[None, :] < n_cells)
        g = scale * tl.load(g_state + base + row_at, mask=in_rows, other=0.0)
        for back in range(stop - start):
            step = stop - 1 - back
            here = (step - start) * stride + base
            of_forcing = scale * tl.load(x + here + row_at, mask=in_rows, other=0.0)
            u = tl.load(path + step * stride + base + cell_at, mask=in_cells, other=0.0)
            if HEUN:
                of_ahead = scale * tl.load(x_ahead + here + row_at, mask=in_rows, other=0.0)
                predicted = tl.load(predictions + here + cell_at, mask=in_cells, other=0.0)
                rates = rate_scale * rates_of(predicted, gamma, POWER)
                of_weights = add_outer(of_ahead, rates, of_weights, PIECES)
                g += of_ahead
            counter = n_burn + step + 1
            x0, x1, x2, x3 = draw(
                seed, lanes, counter, tile_ids, tile_signs, PIECES, WEAK, ANTITHETIC
            )
            xi = interleaved(
                x0.to(tl.float16), x1.to(tl.float16), x2.to(tl.float16), x3.to(tl.float16)
            )
            of_noise = add_outer_exact(g, xi, of_noise, PIECES)
            rates = rate_scale * rates_of(u, gamma, POWER)
            of_weights = add_outer(of_forcing, rates, of_weights, PIECES)
            g = of_forcing + decay * g
        tl.store(g_after + base + row_at, unit * g, mask=in_rows)

    matrix = (split * n_networks + network) * n_cells * n_cells
    in_matrix = (rows[:, None] < n_cells) & (cells[None, :] < n_cells)
    at = matrix + rows[:, None] * n_cells + cells[None, :]
    tl.store(grad_weights + at, (unit * rate_unit) * of_weights, mask=in_matrix)
    number = tl.arange(0, BLOCK)
    cells = column * BLOCK + number % 4 * QUARTER + number // 4  # in the order of the draws
    in_matrix = (rows[:, None] < n_cells) & (cells[None, :] < n_cells)
    at = matrix + rows[:, None] * n_cells + cells[None, :]
    tl.store(grad_noise + at, unit * of_noise, mask=in_matrix)
