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
    gains_of,
    load_matrix,
    multiply,
    multiply_in_tf32,
    multiply_quarter,
    rates_of,
)
from ssn_estimators.simulation.gpu.kernels.ornstein_uhlenbeck import draw

__all__ = ["adjoint", "forward"]


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
    eta_state,
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
    TRACK: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Steps `start` to `stop` of a tile of columns; weights and noise factor stay on chip.

    MEAN and RATES add to sums over time. PATH writes u after every step; if it is 2, Heun's
    predictions as well. TRACK follows the OU processes z, which only the gradient needs.
    """
    QUARTER: tl.constexpr = BLOCK // 4
    network = tl.program_id(1)
    cells, lanes = tl.arange(0, BLOCK), tl.arange(0, QUARTER)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    square = n_cells * n_cells
    weights += network.to(tl.int64) * square
    noise_factor += network.to(tl.int64) * square
    w_high = load_matrix(weights, cells, cells, n_cells)
    n0_high = load_matrix(noise_factor, cells, lanes, n_cells)
    n1_high = load_matrix(noise_factor, cells, lanes + QUARTER, n_cells)
    n2_high = load_matrix(noise_factor, cells, lanes + 2 * QUARTER, n_cells)
    n3_high = load_matrix(noise_factor, cells, lanes + 3 * QUARTER, n_cells)
    w_low, n0_low, n1_low, n2_low, n3_low = w_high, n0_high, n1_high, n2_high, n3_high
    if PIECES == 2:
        weights += n_networks.to(tl.int64) * square
        noise_factor += n_networks.to(tl.int64) * square
        w_low = load_matrix(weights, cells, cells, n_cells)
        n0_low = load_matrix(noise_factor, cells, lanes, n_cells)
        n1_low = load_matrix(noise_factor, cells, lanes + QUARTER, n_cells)
        n2_low = load_matrix(noise_factor, cells, lanes + 2 * QUARTER, n_cells)
        n3_low = load_matrix(noise_factor, cells, lanes + 3 * QUARTER, n_cells)
    weight_unit, noise_unit = tl.load(weight_units + network), tl.load(noise_units + network)

    seed = tl.load(seeds + network)
    ids = tl.load(ids + columns, mask=columns < n_columns, other=0)
    signs = tl.load(signs + columns, mask=columns < n_columns, other=0.0)[:, None]
    relative_step = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
    size = n_columns.to(tl.int64) * n_cells
    at = columns[None, :] * n_cells + cells[:, None]
    inside = (columns[None, :] < n_columns) & (cells[:, None] < n_cells)
    steps_in_drive = 1
    if MOVING:
        steps_in_drive = n_steps
    drive += network.to(tl.int64) * steps_in_drive * n_inputs * n_cells
    drive_at = (columns // n_trials)[None, :] * n_cells + cells[:, None]
    base = network * size
    u = tl.load(u_state + base + at, mask=inside, other=0.0)
    eta = tl.load(eta_state + base + at, mask=inside, other=0.0)
    slope = tl.zeros((BLOCK, COLUMNS), tl.float32)
    if SOLVER == "ab2":
        slope = tl.load(slope_state + base + at, mask=inside, other=0.0)
    fixed = tl.load(drive + drive_at, mask=inside, other=0.0)
    if TRACK:
        z_at = z_state + base + columns[:, None] * n_cells + lanes[None, :]
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

    for step in range(start, stop):
        if MOVING:
            fixed = tl.load(
                drive + step * n_inputs.to(tl.int64) * n_cells + drive_at, mask=inside, other=0.0
            )
        recurrent = multiply(w_high, w_low, rates_of(u, gamma, POWER), rate_scale, PIECES)
        now = relative_step * (weight_unit * recurrent + fixed + eta - u)  # slope times dt

        x0, x1, x2, x3 = draw(seed, lanes, step + 1, ids, WEAK, signs, ANTITHETIC)
        kicks = tl.zeros((BLOCK, COLUMNS), tl.float32)
        kicks = multiply_quarter(n0_high, n0_low, x0, kicks, PIECES)
        kicks = multiply_quarter(n1_high, n1_low, x1, kicks, PIECES)
        kicks = multiply_quarter(n2_high, n2_low, x2, kicks, PIECES)
        kicks = multiply_quarter(n3_high, n3_low, x3, kicks, PIECES)
        eta = decay * eta + noise_unit * kicks
        if TRACK:
            z0 = decay * z0 + kick * x0.to(tl.float16).to(tl.float32)
            z1 = decay * z1 + kick * x1.to(tl.float16).to(tl.float32)
            z2 = decay * z2 + kick * x2.to(tl.float16).to(tl.float32)
            z3 = decay * z3 + kick * x3.to(tl.float16).to(tl.float32)

        written = (step - start) * n_networks * size + base + at
        if SOLVER == "euler":
            u += now
        elif SOLVER == "ab2":
            u += now * AB2_NOW + tl.where(step == 0, now, slope) * AB2_BEFORE
            slope = now
        else:
            if MOVING:
                ahead = tl.minimum(step + 1, n_steps - 1) * n_inputs.to(tl.int64) * n_cells
                fixed = tl.load(drive + ahead + drive_at, mask=inside, other=0.0)
            predicted = u + now
            if PATH == 2:
                tl.store(predictions + written, predicted, mask=inside)
            rates = rates_of(predicted, gamma, POWER)
            recurrent = multiply(w_high, w_low, rates, rate_scale, PIECES)
            u += (now + relative_step * (weight_unit * recurrent + fixed + eta - predicted)) * HALF
        first = tl.minimum(first, tl.where(tl.abs(u) <= THRESHOLD, NEVER, step + 1))
        if MEAN:
            u_sum += u
        if RATES:
            rate_sum += rates_of(u, gamma, POWER)
        if PATH:
            tl.store(path + written, u, mask=inside)

    tl.store(u_state + base + at, u, mask=inside)
    tl.store(eta_state + base + at, eta, mask=inside)
    if SOLVER == "ab2":
        tl.store(slope_state + base + at, slope, mask=inside)
    if TRACK:
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
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Steps `stop` back to `start` of the window; x gets the gradient of the forcing.

    `path` holds u before step 0 of the window in entry 0. `x`, `x_ahead` (Heun's gradient of
    the forcing one step ahead) and, with DENSE, `grad_path` begin at `start`. COLD is AB2
    without burn-in, where the first slope stands in for the one before it.
    """
    network = tl.program_id(1)
    cells = tl.arange(0, BLOCK)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    turned += network.to(tl.int64) * n_cells * n_cells
    turned_high = load_matrix(turned, cells, cells, n_cells)
    turned_low = turned_high
    if PIECES == 2:
        turned += n_networks.to(tl.int64) * n_cells * n_cells
        turned_low = load_matrix(turned, cells, cells, n_cells)
    zeros = tl.zeros((BLOCK, COLUMNS), tl.float32)
    relative_step = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
    at = columns[None, :] * n_cells + cells[:, None]
    inside = (columns[None, :] < n_columns) & (cells[:, None] < n_cells)
    base = network * n_columns.to(tl.int64) * n_cells
    stride = n_networks * n_columns.to(tl.int64) * n_cells
    finite = tl.load(finite + network * n_columns + columns, mask=columns < n_columns, other=0.0)
    grad_at = (network * n_inputs + columns // n_trials)[None, :] * n_cells + cells[:, None]
    of_mean = finite[None, :] * tl.load(grad_mean + grad_at, mask=inside, other=0.0)
    of_rates = finite[None, :] * tl.load(grad_rates + grad_at, mask=inside & RATES, other=0.0)
    grad = tl.load(grad_state + base + at, mask=inside, other=0.0)
    carried = tl.zeros((BLOCK, COLUMNS), tl.float32)
    if SOLVER == "ab2":
        carried = tl.load(carried_state + base + at, mask=inside, other=0.0)
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
        tl.store(x + here, of_forcing, mask=inside)
        product = multiply_in_tf32(turned_high, turned_low, of_forcing, zeros, PIECES)
        grad += gains_of(before, gamma, POWER) * product - of_forcing
        after = before

    tl.store(grad_state + base + at, grad, mask=inside)
    if SOLVER == "ab2":
        tl.store(carried_state + base + at, carried, mask=inside)
