"""Networks whose weights stay on chip: one launch for any number of steps."""

import triton
import triton.language as tl

from ssn_estimators.simulation.gpu.kernels.arithmetic import (
    AB2_BEFORE,
    AB2_NOW,
    COUNTS,
    HALF,
    NEVER,
    THRESHOLD,
    by_four,
    gains_of,
    interleaved,
    load_matrix,
    multiply,
    multiply_in_tf32,
    multiply_turned,
    rates_of,
)
from ssn_estimators.simulation.gpu.kernels.ornstein_uhlenbeck import draw

__all__ = ["adjoint", "forward"]


@triton.jit
def _load_noise_factor(pointer, rows, columns, n_cells):
    """All columns, which lie in the order of the draws; zeros beyond the last cell."""
    at = pointer + rows[:, None] * columns.shape[0] + columns[None, :]
    return tl.load(at, mask=rows[:, None] < n_cells, other=0.0)


@triton.jit(do_not_specialize=COUNTS)
def forward(
    weights,
    noise_factor,
    weight_units,
    noise_units,
    drive,
    rate,
    seeds,
    ids,
    signs,
    u_state,
    z_state,
    slope_state,
    first_state,
    u_sums,
    rate_sums,
    path,
    predictions,
    n_networks,
    n_columns,
    n_cells,
    n_trials,
    n_inputs,
    n_steps,
    start,
    stop,
    dt,
    decay,
    kick,
    gamma,
    rate_scale,
    SOLVER: tl.constexpr,
    POWER: tl.constexpr,
    PIECES: tl.constexpr,
    WEAK: tl.constexpr,
    ANTITHETIC: tl.constexpr,
    MOVING: tl.constexpr,
    MEAN: tl.constexpr,
    RATES: tl.constexpr,
    PATH: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Steps `start` to `stop` of a tile of columns; weights and noise factor stay on chip.

    The columns of the noise factor are in the order of the draws, and as many as a block has.
    MEAN and RATES add to sums over time. PATH writes u after every step; if it is 2, Heun's
    predictions as well.
    """
    QUARTER: tl.constexpr = BLOCK // 4
    n_cells = by_four(n_cells)
    network = tl.program_id(1).to(tl.int64)
    cells, lanes = tl.arange(0, BLOCK), tl.arange(0, QUARTER)
    offset, own = tl.program_id(0).to(tl.int64) * COLUMNS, tl.arange(0, COLUMNS)
    columns = offset.to(tl.int32) + own
    weights += network * n_cells * n_cells
    noise_factor += network * n_cells * BLOCK
    w_high = load_matrix(weights, cells, cells, n_cells)
    n_high = _load_noise_factor(noise_factor, cells, cells, n_cells)
    w_low, n_low = w_high, n_high
    if PIECES == 2:
        weights += n_networks.to(tl.int64) * n_cells * n_cells
        noise_factor += n_networks.to(tl.int64) * n_cells * BLOCK
        w_low = load_matrix(weights, cells, cells, n_cells)
        n_low = _load_noise_factor(noise_factor, cells, cells, n_cells)

    seed = tl.load(seeds + network)
    ids = tl.load(ids + columns, mask=columns < n_columns, other=0)
    signs = tl.load(signs + columns, mask=columns < n_columns, other=0.0)[:, None]
    speed = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
    weight_gain = speed * tl.load(weight_units + network)
    noise_gain = speed * tl.load(noise_units + network)
    size = n_columns.to(tl.int64) * n_cells
    at = own[None, :] * n_cells + cells[:, None]
    inside = (columns[None, :] < n_columns) & (cells[:, None] < n_cells)
    steps_in_drive = 1
    if MOVING:
        steps_in_drive = n_steps
    drive += network * steps_in_drive * n_inputs * n_cells
    drive_at = (columns // n_trials).to(tl.int64)[None, :] * n_cells + cells[:, None]
    base = network * size + offset * n_cells
    u = tl.load(u_state + base + at, mask=inside, other=0.0)
    slope = tl.zeros((BLOCK, COLUMNS), tl.float32)
    if SOLVER == "ab2":
        slope = tl.load(slope_state + base + at, mask=inside, other=0.0)
    fixed = speed * tl.load(drive + drive_at, mask=inside, other=0.0)
    z_at = z_state + base + own[:, None] * n_cells + lanes[None, :]
    in_columns = columns[:, None] < n_columns
    in0 = in_columns & (lanes[None, :] < n_cells)
    in1 = in_columns & (lanes[None, :] + QUARTER < n_cells)
    in2 = in_columns & (lanes[None, :] + 2 * QUARTER < n_cells)
    in3 = in_columns & (lanes[None, :] + 3 * QUARTER < n_cells)
    z0 = tl.load(z_at, mask=in0, other=0.0)
    z1 = tl.load(z_at + QUARTER, mask=in1, other=0.0)
    z2 = tl.load(z_at + 2 * QUARTER, mask=in2, other=0.0)
    z3 = tl.load(z_at + 3 * QUARTER, mask=in3, other=0.0)
    first = tl.full((BLOCK, COLUMNS), NEVER, tl.int32)
    u_sum = tl.zeros((BLOCK, COLUMNS), tl.float32)
    rate_sum = tl.zeros((BLOCK, COLUMNS), tl.float32)
    if SOLVER == "heun":
        noise = multiply_turned(n_high, n_low, interleaved(z0, z1, z2, z3), PIECES)

    for step in range(start, stop):
        if MOVING:
            fixed = speed * tl.load(
                drive + step * n_inputs.to(tl.int64) * n_cells + drive_at, mask=inside, other=0.0
            )
        if SOLVER != "heun":
            noise = multiply_turned(n_high, n_low, interleaved(z0, z1, z2, z3), PIECES)
        recurrent = multiply(w_high, w_low, rates_of(u, gamma, POWER), rate_scale, PIECES)
        x0, x1, x2, x3 = draw(seed, lanes, step + 1, ids, signs, PIECES, WEAK, ANTITHETIC)
        z0 = decay * z0 + kick * x0
        z1 = decay * z1 + kick * x1
        z2 = decay * z2 + kick * x2
        z3 = decay * z3 + kick * x3
        now = weight_gain * recurrent + (noise_gain * noise + fixed)

        written = (step - start) * (n_networks * size) + base + at
        if SOLVER == "euler":
            u = (1 - speed) * u + now
        elif SOLVER == "ab2":
            now -= speed * u
            u += now * AB2_NOW + tl.where(step == 0, now, slope) * AB2_BEFORE
            slope = now
        else:
            now -= speed * u
            if MOVING:
                ahead = tl.minimum(step + 1, n_steps - 1) * n_inputs.to(tl.int64) * n_cells
                fixed = speed * tl.load(drive + ahead + drive_at, mask=inside, other=0.0)
            predicted = u + now
            if PATH == 2:
                tl.store(predictions + written, predicted, mask=inside)
            noise = multiply_turned(n_high, n_low, interleaved(z0, z1, z2, z3), PIECES)
            rates = rates_of(predicted, gamma, POWER)
            recurrent = multiply(w_high, w_low, rates, rate_scale, PIECES)
            now += weight_gain * recurrent + (noise_gain * noise + fixed) - speed * predicted
            u += now * HALF
        first = tl.where(tl.abs(u) <= THRESHOLD, first, tl.minimum(first, step + 1))
        if MEAN:
            u_sum += u
        if RATES:
            rate_sum += rates_of(u, gamma, POWER)
        if PATH:
            tl.store(path + written, u, mask=inside)

    tl.store(u_state + base + at, u, mask=inside)
    if SOLVER == "ab2":
        tl.store(slope_state + base + at, slope, mask=inside)
    tl.store(z_at, z0, mask=in0)
    tl.store(z_at + QUARTER, z1, mask=in1)
    tl.store(z_at + 2 * QUARTER, z2, mask=in2)
    tl.store(z_at + 3 * QUARTER, z3, mask=in3)
    if MEAN:
        u_sum += tl.load(u_sums + base + at, mask=inside, other=0.0)
        tl.store(u_sums + base + at, u_sum, mask=inside)
    if RATES:
        rate_sum += tl.load(rate_sums + base + at, mask=inside, other=0.0)
        tl.store(rate_sums + base + at, rate_sum, mask=inside)
    first_at = first_state + network * n_columns + columns
    earliest = tl.min(tl.where(inside, first, NEVER), axis=0)
    earliest = tl.minimum(earliest, tl.load(first_at, mask=columns < n_columns, other=NEVER))
    tl.store(first_at, earliest, mask=columns < n_columns)


@triton.jit(do_not_specialize=COUNTS)
def adjoint(
    turned,
    rate,
    finite,
    grad_mean,
    grad_rates,
    grad_path,
    path,
    predictions,
    x,
    x_ahead,
    grad_state,
    carried_state,
    x_sums,
    largest,
    n_networks,
    n_columns,
    n_cells,
    n_trials,
    n_inputs,
    start,
    stop,
    dt,
    gamma,
    SOLVER: tl.constexpr,
    POWER: tl.constexpr,
    PIECES: tl.constexpr,
    RATES: tl.constexpr,
    DENSE: tl.constexpr,
    COLD: tl.constexpr,
    SUMS: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Steps `stop` back to `start` of the window; x gets the gradient of the forcing.

    `path` holds u before step 0 of the window in entry 0. `x`, `x_ahead` (Heun's gradient of
    the forcing one step ahead) and, with DENSE, `grad_path` begin at `start`. COLD is AB2
    without burn-in, where the first slope stands in for the one before it. SUMS adds x and
    x_ahead to sums over time; `largest` gets the largest of both of every program.
    """
    n_cells = by_four(n_cells)
    network = tl.program_id(1).to(tl.int64)
    cells = tl.arange(0, BLOCK)
    offset, own = tl.program_id(0).to(tl.int64) * COLUMNS, tl.arange(0, COLUMNS)
    columns = offset.to(tl.int32) + own
    turned += network * n_cells * n_cells
    turned_high = load_matrix(turned, cells, cells, n_cells)
    turned_low = turned_high
    if PIECES == 2:
        turned += n_networks.to(tl.int64) * n_cells * n_cells
        turned_low = load_matrix(turned, cells, cells, n_cells)
    zeros = tl.zeros((BLOCK, COLUMNS), tl.float32)
    relative_step = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
    at = own[None, :] * n_cells + cells[:, None]
    inside = (columns[None, :] < n_columns) & (cells[:, None] < n_cells)
    base = (network * n_columns + offset) * n_cells
    stride = n_networks * n_columns.to(tl.int64) * n_cells
    finite = tl.load(finite + network * n_columns + columns, mask=columns < n_columns, other=0.0)
    grad_at = (network * n_inputs + columns // n_trials)[None, :] * n_cells + cells[:, None]
    of_mean = finite[None, :] * tl.load(grad_mean + grad_at, mask=inside, other=0.0)
    of_rates = finite[None, :] * tl.load(grad_rates + grad_at, mask=inside & RATES, other=0.0)
    grad = tl.load(grad_state + base + at, mask=inside, other=0.0)
    carried = tl.zeros((BLOCK, COLUMNS), tl.float32)
    if SOLVER == "ab2":
        carried = tl.load(carried_state + base + at, mask=inside, other=0.0)
    x_sum = tl.zeros((BLOCK, COLUMNS), tl.float32)
    x_largest = tl.zeros((BLOCK, COLUMNS), tl.float32)
    after = tl.load(path + stop * stride + base + at, mask=inside, other=0.0)

    for back in range(stop - start):
        step = stop - 1 - back
        here = (step - start) * stride + base + at
        before = tl.load(path + step * stride + base + at, mask=inside, other=0.0)
        grad += of_mean
        if RATES:
            grad += of_rates * gains_of(after, gamma, POWER)
        if DENSE:
            grad += tl.load(grad_path + here, mask=inside, other=0.0)
        if SOLVER == "euler":
            of_forcing = relative_step * grad
        elif SOLVER == "ab2":
            of_slope = grad * AB2_NOW + carried
            carried = grad * AB2_BEFORE
            if COLD:
                of_slope += tl.where(step == 0, carried, 0.0)
            of_forcing = relative_step * of_slope
        else:
            of_ahead = relative_step * HALF * grad
            tl.store(x_ahead + here, of_ahead, mask=inside)
            predicted = tl.load(predictions + here, mask=inside, other=0.0)
            product = multiply_in_tf32(turned_high, turned_low, of_ahead, zeros, PIECES)
            of_predicted = gains_of(predicted, gamma, POWER) * product - of_ahead
            of_forcing = relative_step * (grad * HALF + of_predicted)
            grad += of_predicted
            x_largest = tl.maximum(x_largest, tl.abs(of_ahead))
            if SUMS:
                x_sum += of_ahead
        tl.store(x + here, of_forcing, mask=inside)
        x_largest = tl.maximum(x_largest, tl.abs(of_forcing))
        if SUMS:
            x_sum += of_forcing
        product = multiply_in_tf32(turned_high, turned_low, of_forcing, zeros, PIECES)
        grad += gains_of(before, gamma, POWER) * product - of_forcing
        after = before

    tl.store(grad_state + base + at, grad, mask=inside)
    if SOLVER == "ab2":
        tl.store(carried_state + base + at, carried, mask=inside)
    if SUMS:
        x_sum += tl.load(x_sums + base + at, mask=inside, other=0.0)
        tl.store(x_sums + base + at, x_sum, mask=inside)
    x_largest = tl.max(tl.where(inside, x_largest, 0.0))
    tl.store(largest + network * tl.num_programs(0) + tl.program_id(0), x_largest)
