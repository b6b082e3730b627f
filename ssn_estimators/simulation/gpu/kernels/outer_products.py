"""Gradients of matrices: outer products over columns and time."""

import triton
import triton.language as tl

from ssn_estimators.simulation.gpu.kernels.arithmetic import (
    COUNTS,
    in_halves,
    multiply_in_tf32,
    multiply_tf32,
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
    in the same order every time.
    """
    QUARTER: tl.constexpr = BLOCK // 4
    split, network = tl.program_id(0), tl.program_id(2)
    row, column = tl.program_id(1) // n_blocks, tl.program_id(1) % n_blocks
    rows = row * BLOCK + tl.arange(0, BLOCK)
    cells = column * BLOCK + tl.arange(0, BLOCK)
    lanes = column * QUARTER + tl.arange(0, QUARTER)
    seed = tl.load(seeds + network)
    base = network * n_columns.to(tl.int64) * n_cells
    stride = n_networks * n_columns.to(tl.int64) * n_cells
    of_weights = tl.zeros((BLOCK, BLOCK), tl.float32)
    of_noise0 = tl.zeros((BLOCK, QUARTER), tl.float32)
    of_noise1 = tl.zeros((BLOCK, QUARTER), tl.float32)
    of_noise2 = tl.zeros((BLOCK, QUARTER), tl.float32)
    of_noise3 = tl.zeros((BLOCK, QUARTER), tl.float32)
    for tile in range(split, n_tiles, tl.num_programs(0)):
        columns = tile * COLUMNS + tl.arange(0, COLUMNS)
        in_columns = columns < n_columns
        tile_ids = tl.load(ids + columns, mask=in_columns, other=0)
        tile_signs = tl.load(signs + columns, mask=in_columns, other=0.0)[:, None]
        row_at = columns[None, :] * n_cells + rows[:, None]
        in_rows = in_columns[None, :] & (rows[:, None] < n_cells)
        cell_at = columns[:, None] * n_cells + cells[None, :]
        in_cells = in_columns[:, None] & (cells[None, :] < n_cells)
        g = tl.load(g_state + base + row_at, mask=in_rows, other=0.0)
        for back in range(stop - start):
            step = stop - 1 - back
            here = (step - start) * stride + base
            of_forcing = tl.load(x + here + row_at, mask=in_rows, other=0.0)
            u = tl.load(path + step * stride + base + cell_at, mask=in_cells, other=0.0)
            if HEUN:
                of_ahead = tl.load(x_ahead + here + row_at, mask=in_rows, other=0.0)
                predicted = tl.load(predictions + here + cell_at, mask=in_cells, other=0.0)
                rates = rates_of(predicted, gamma, POWER)
                high, low = in_halves(of_ahead)
                of_weights = multiply_in_tf32(high, low, rates, of_weights, PIECES)
                g += of_ahead
            counter = n_burn + step + 1
            x0, x1, x2, x3 = draw(seed, lanes, counter, tile_ids, WEAK, tile_signs, ANTITHETIC)
            high, low = in_halves(g)
            of_noise0 = multiply_tf32(
                high, low, x0.to(tl.float16).to(tl.float32), of_noise0, PIECES
            )
            of_noise1 = multiply_tf32(
                high, low, x1.to(tl.float16).to(tl.float32), of_noise1, PIECES
            )
            of_noise2 = multiply_tf32(
                high, low, x2.to(tl.float16).to(tl.float32), of_noise2, PIECES
            )
            of_noise3 = multiply_tf32(
                high, low, x3.to(tl.float16).to(tl.float32), of_noise3, PIECES
            )
            high, low = in_halves(of_forcing)
            of_weights = multiply_in_tf32(high, low, rates_of(u, gamma, POWER), of_weights, PIECES)
            g = of_forcing + decay * g
        tl.store(g_after + base + row_at, g, mask=in_rows)

    matrix = (split * n_networks + network).to(tl.int64) * n_cells * n_cells
    in_matrix = (rows[:, None] < n_cells) & (cells[None, :] < n_cells)
    at = matrix + rows[:, None] * n_cells + cells[None, :]
    tl.store(grad_weights + at, of_weights, mask=in_matrix)
    cells = column * BLOCK + tl.arange(0, QUARTER)
    at = grad_noise + matrix + rows[:, None] * n_cells + cells[None, :]
    in_row = rows[:, None] < n_cells
    tl.store(at, of_noise0, mask=in_row & (cells[None, :] < n_cells))
    tl.store(at + QUARTER, of_noise1, mask=in_row & (cells[None, :] + QUARTER < n_cells))
    tl.store(at + 2 * QUARTER, of_noise2, mask=in_row & (cells[None, :] + 2 * QUARTER < n_cells))
    tl.store(at + 3 * QUARTER, of_noise3, mask=in_row & (cells[None, :] + 3 * QUARTER < n_cells))
