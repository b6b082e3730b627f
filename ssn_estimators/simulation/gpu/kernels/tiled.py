"""Larger networks: blocks of weights pass through the chip in every step."""

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
    multiply_in_tf32,
    rates_of,
)
from ssn_estimators.simulation.gpu.kernels.ornstein_uhlenbeck import draw

__all__ = ["adjoint_tiled", "forward_tiled"]


@triton.jit
def _streamed(
    matrix,
    x,
    rows,
    columns,
    size,
    to_low_matrix,
    to_low_x,
    PIECES: tl.constexpr,
    EXACT: tl.constexpr,
    BATCH: tl.constexpr,
):
    """Rows of (high + low) x from memory; `size` is the padded number of cells.

    The low pieces lie `to_low_matrix` and `to_low_x` further; EXACT x has none.
    """
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for k in range(0, size, BATCH):
        cells = k + tl.arange(0, BATCH)
        at_matrix = matrix + rows[:, None] * size + cells[None, :]
        at_x = x + columns[None, :] * size + cells[:, None]
        high, x_high = tl.load(at_matrix), tl.load(at_x)
        if PIECES == 2:
            total = tl.dot(tl.load(at_matrix + to_low_matrix), x_high, total)
            if not EXACT:
                total = tl.dot(high, tl.load(at_x + to_low_x), total)
        total = tl.dot(high, x_high, total)
    return total


@triton.jit
def _put_rates(scratch, at, to_low, u, gamma, scale, POWER: tl.constexpr, PIECES: tl.constexpr):
    """Write the rates of u as float16 pieces."""
    rates = rates_of(u, gamma, POWER) * scale
    high = rates.to(tl.float16)
    tl.store(scratch + at, high)
    if PIECES == 2:
        tl.store(scratch + to_low + at, (rates - high.to(tl.float32)).to(tl.float16))


@triton.jit(do_not_specialize=COUNTS)
def forward_tiled(
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
    scratch,
    size,
    padded_columns,
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
    BATCH: tl.constexpr,
):
    """As `forward` for any number of cells, in blocks: all but a block's own lies in memory.

    `scratch` holds, as float16, the rates now and after the step, in two pieces each, and the
    increments; the weights are padded to `size` cells as well.
    """
    QUARTER: tl.constexpr = BLOCK // 4
    n_cells = by_four(n_cells)
    network = tl.program_id(1).to(tl.int64)
    offset, own = tl.program_id(0).to(tl.int64) * COLUMNS, tl.arange(0, COLUMNS)
    columns = offset.to(tl.int32) + own
    in_columns = columns < n_columns
    square = size.to(tl.int64) * size
    weights += network * square
    noise_factor += network * square
    to_low_matrix = n_networks * square
    slot = n_networks * padded_columns.to(tl.int64) * size
    scratch += (network * padded_columns + offset) * size
    weight_unit, noise_unit = tl.load(weight_units + network), tl.load(noise_units + network)
    seed = tl.load(seeds + network)
    ids = tl.load(ids + columns, mask=in_columns, other=0)
    signs = tl.load(signs + columns, mask=in_columns, other=0.0)[:, None]
    extent = n_columns.to(tl.int64) * n_cells
    base = network * extent + offset * n_cells
    u_state += base
    eta_state += base
    z_state += base
    slope_state += base
    u_sums += base
    rate_sums += base
    steps_in_drive = 1
    if MOVING:
        steps_in_drive = n_steps
    drive += network * steps_in_drive * n_inputs * n_cells
    first_at = first_state + network * n_columns + columns
    first = tl.load(first_at, mask=in_columns, other=NEVER)
    inputs = (columns // n_trials).to(tl.int64)[None, :]
    n_blocks = size // BLOCK

    for block in range(n_blocks):
        cells = block * BLOCK + tl.arange(0, BLOCK)
        inside = in_columns[None, :] & (cells[:, None] < n_cells)
        u = tl.load(u_state + own[None, :] * n_cells + cells[:, None], mask=inside, other=0.0)
        scratch_at = own[None, :] * size + cells[:, None]
        _put_rates(scratch, scratch_at, slot, u, gamma, rate_scale, POWER, PIECES)

    for step in range(start, stop):
        now_slot = 0 * slot
        if SOLVER != "heun":
            now_slot = 2 * ((step - start) % 2) * slot
        ahead_slot = 2 * slot - now_slot
        fixed_at = 0 * slot
        if MOVING:
            fixed_at = step * n_inputs.to(tl.int64) * n_cells
        written = (step - start) * (n_networks * extent) + base
        for block in range(n_blocks):
            lanes = block * QUARTER + tl.arange(0, QUARTER)
            increments = draw(seed, lanes, step + 1, ids, signs, PIECES, WEAK, ANTITHETIC)
            for i in tl.static_range(4):
                cells = block * BLOCK + i * QUARTER + tl.arange(0, QUARTER)[None, :]
                inside = in_columns[:, None] & (cells < n_cells)
                at = own[:, None] * n_cells + cells
                x = increments[i].to(tl.float16)
                tl.store(scratch + 4 * slot + own[:, None] * size + cells, x)
                if TRACK:
                    z = tl.load(z_state + at, mask=inside, other=0.0)
                    z = decay * z + kick * x.to(tl.float32)
                    tl.store(z_state + at, z, mask=inside)
        tl.debug_barrier()

        for block in range(n_blocks):
            cells = block * BLOCK + tl.arange(0, BLOCK)
            recurrent = _streamed(
                weights,
                scratch + now_slot,
                cells,
                own,
                size,
                to_low_matrix,
                slot,
                PIECES,
                False,
                BATCH,
            )
            kicks = _streamed(
                noise_factor,
                scratch + 4 * slot,
                cells,
                own,
                size,
                to_low_matrix,
                slot,
                PIECES,
                True,
                BATCH,
            )
            at = own[None, :] * n_cells + cells[:, None]
            inside = in_columns[None, :] & (cells[:, None] < n_cells)
            relative_step = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
            fixed = fixed_at + inputs * n_cells + cells[:, None]
            fixed = tl.load(drive + fixed, mask=inside, other=0.0)
            u = tl.load(u_state + at, mask=inside, other=0.0)
            eta = tl.load(eta_state + at, mask=inside, other=0.0)
            now = relative_step * (weight_unit * recurrent + fixed + eta - u)
            tl.store(eta_state + at, decay * eta + noise_unit * kicks, mask=inside)
            if SOLVER == "euler":
                u += now
            elif SOLVER == "ab2":
                before = tl.load(slope_state + at, mask=inside, other=0.0)
                u += now * AB2_NOW + tl.where(step == 0, now, before) * AB2_BEFORE
                tl.store(slope_state + at, now, mask=inside)
            else:
                tl.store(slope_state + at, now, mask=inside)
                u += now
                if PATH == 2:
                    tl.store(predictions + written + at, u, mask=inside)
            scratch_at = own[None, :] * size + cells[:, None]
            ahead = scratch + ahead_slot
            _put_rates(ahead, scratch_at, slot, u, gamma, rate_scale, POWER, PIECES)
            if SOLVER != "heun":
                tl.store(u_state + at, u, mask=inside)
                first = _record(
                    u,
                    first,
                    step,
                    inside,
                    u_sums + at,
                    rate_sums + at,
                    path + written + at,
                    gamma,
                    POWER,
                    MEAN,
                    RATES,
                    PATH,
                )
        tl.debug_barrier()

        if SOLVER == "heun":
            if MOVING:
                fixed_at = tl.minimum(step + 1, n_steps - 1) * n_inputs.to(tl.int64) * n_cells
            for block in range(n_blocks):
                cells = block * BLOCK + tl.arange(0, BLOCK)
                recurrent = _streamed(
                    weights,
                    scratch + ahead_slot,
                    cells,
                    own,
                    size,
                    to_low_matrix,
                    slot,
                    PIECES,
                    False,
                    BATCH,
                )
                at = own[None, :] * n_cells + cells[:, None]
                inside = in_columns[None, :] & (cells[:, None] < n_cells)
                relative_step = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
                fixed = fixed_at + inputs * n_cells + cells[:, None]
                fixed = tl.load(drive + fixed, mask=inside, other=0.0)
                u = tl.load(u_state + at, mask=inside, other=0.0)
                eta = tl.load(eta_state + at, mask=inside, other=0.0)
                now = tl.load(slope_state + at, mask=inside, other=0.0)
                ahead = relative_step * (weight_unit * recurrent + fixed + eta - u - now)
                u += (now + ahead) * HALF
                tl.store(u_state + at, u, mask=inside)
                scratch_at = own[None, :] * size + cells[:, None]
                _put_rates(scratch, scratch_at, slot, u, gamma, rate_scale, POWER, PIECES)
                first = _record(
                    u,
                    first,
                    step,
                    inside,
                    u_sums + at,
                    rate_sums + at,
                    path + written + at,
                    gamma,
                    POWER,
                    MEAN,
                    RATES,
                    PATH,
                )
            tl.debug_barrier()
    tl.store(first_at, first, mask=in_columns)


@triton.jit
def _record(
    u,
    first,
    step,
    inside,
    u_sums,
    rate_sums,
    path,
    gamma,
    POWER: tl.constexpr,
    MEAN: tl.constexpr,
    RATES: tl.constexpr,
    PATH: tl.constexpr,
):
    """Add a block of potentials to the sums and the path; when a column first diverged."""
    if MEAN:
        tl.store(u_sums, tl.load(u_sums, mask=inside, other=0.0) + u, mask=inside)
    if RATES:
        rates = tl.load(rate_sums, mask=inside, other=0.0) + rates_of(u, gamma, POWER)
        tl.store(rate_sums, rates, mask=inside)
    if PATH:
        tl.store(path, u, mask=inside)
    fine = (tl.abs(u) <= THRESHOLD) | ~inside
    return tl.minimum(first, tl.min(tl.where(fine, NEVER, step + 1), axis=0))


@triton.jit
def _streamed_back(
    turned, x, cells, own, in_columns, n_cells, to_low, PIECES: tl.constexpr, BATCH: tl.constexpr
):
    """Rows of (high + low) x in TF32 from memory, for the adjoint."""
    total = tl.zeros((cells.shape[0], own.shape[0]), tl.float32)
    for k in range(0, n_cells, BATCH):
        others = k + tl.arange(0, BATCH)
        inside = (cells[:, None] < n_cells) & (others[None, :] < n_cells)
        at = turned + cells[:, None] * n_cells + others[None, :]
        high = tl.load(at, mask=inside, other=0.0)
        low = high
        if PIECES == 2:
            low = tl.load(at + to_low, mask=inside, other=0.0)
        inside = in_columns[None, :] & (others[:, None] < n_cells)
        block = tl.load(x + own[None, :] * n_cells + others[:, None], mask=inside, other=0.0)
        total = multiply_in_tf32(high, low, block, total, PIECES)
    return total


@triton.jit(do_not_specialize=COUNTS)
def adjoint_tiled(
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
    BATCH: tl.constexpr,
):
    """As `adjoint` for any number of cells; the blocks exchange x through memory."""
    n_cells = by_four(n_cells)
    network = tl.program_id(1).to(tl.int64)
    offset, own = tl.program_id(0).to(tl.int64) * COLUMNS, tl.arange(0, COLUMNS)
    columns = offset.to(tl.int32) + own
    in_columns = columns < n_columns
    turned += network * n_cells * n_cells
    to_low = n_networks.to(tl.int64) * n_cells * n_cells
    base = (network * n_columns + offset) * n_cells
    stride = n_networks * n_columns.to(tl.int64) * n_cells
    path += base
    grad_state += base
    carried_state += base
    x_sums += base
    x_largest = tl.zeros((BLOCK, COLUMNS), tl.float32)
    finite = tl.load(finite + network * n_columns + columns, mask=in_columns, other=0.0)[None, :]
    inputs = (network * n_inputs + columns // n_trials)[None, :] * n_cells
    n_blocks = tl.cdiv(n_cells, BLOCK)

    for back in range(stop - start):
        step = stop - 1 - back
        here = (step - start) * stride + base
        for block in range(n_blocks):
            cells = block * BLOCK + tl.arange(0, BLOCK)
            at = own[None, :] * n_cells + cells[:, None]
            inside = in_columns[None, :] & (cells[:, None] < n_cells)
            relative_step = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
            of_mean = tl.load(grad_mean + inputs + cells[:, None], mask=inside, other=0.0)
            grad = tl.load(grad_state + at, mask=inside, other=0.0) + finite * of_mean
            if RATES:
                after = tl.load(path + (step + 1) * stride + at, mask=inside, other=0.0)
                of_rates = tl.load(grad_rates + inputs + cells[:, None], mask=inside, other=0.0)
                grad += finite * of_rates * gains_of(after, gamma, POWER)
            if DENSE:
                grad += tl.load(grad_path + here + at, mask=inside, other=0.0)
            tl.store(grad_state + at, grad, mask=inside)
            if SOLVER == "euler":
                tl.store(x + here + at, relative_step * grad, mask=inside)
            elif SOLVER == "ab2":
                of_slope = grad * AB2_NOW + tl.load(carried_state + at, mask=inside, other=0.0)
                carried = grad * AB2_BEFORE
                tl.store(carried_state + at, carried, mask=inside)
                if COLD:
                    of_slope += tl.where(step == 0, carried, 0.0)
                tl.store(x + here + at, relative_step * of_slope, mask=inside)
            else:
                tl.store(x_ahead + here + at, relative_step * HALF * grad, mask=inside)
        tl.debug_barrier()

        if SOLVER == "heun":
            for block in range(n_blocks):
                cells = block * BLOCK + tl.arange(0, BLOCK)
                product = _streamed_back(
                    turned,
                    x_ahead + here,
                    cells,
                    own,
                    in_columns,
                    n_cells,
                    to_low,
                    PIECES,
                    BATCH,
                )
                at = own[None, :] * n_cells + cells[:, None]
                inside = in_columns[None, :] & (cells[:, None] < n_cells)
                relative_step = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
                grad = tl.load(grad_state + at, mask=inside, other=0.0)
                predicted = tl.load(predictions + here + at, mask=inside, other=0.0)
                of_predicted = (
                    gains_of(predicted, gamma, POWER) * product - relative_step * HALF * grad
                )
                tl.store(x + here + at, relative_step * (grad * HALF + of_predicted), mask=inside)
                tl.store(grad_state + at, grad + of_predicted, mask=inside)
            tl.debug_barrier()

        for block in range(n_blocks):
            cells = block * BLOCK + tl.arange(0, BLOCK)
            product = _streamed_back(
                turned, x + here, cells, own, in_columns, n_cells, to_low, PIECES, BATCH
            )
            at = own[None, :] * n_cells + cells[:, None]
            inside = in_columns[None, :] & (cells[:, None] < n_cells)
            of_forcing = tl.load(x + here + at, mask=inside, other=0.0)
            before = tl.load(path + step * stride + at, mask=inside, other=0.0)
            grad = tl.load(grad_state + at, mask=inside, other=0.0)
            grad += gains_of(before, gamma, POWER) * product - of_forcing
            tl.store(grad_state + at, grad, mask=inside)
            x_largest = tl.maximum(x_largest, tl.abs(of_forcing))
            if SOLVER == "heun":
                of_ahead = tl.load(x_ahead + here + at, mask=inside, other=0.0)
                x_largest = tl.maximum(x_largest, tl.abs(of_ahead))
                of_forcing += of_ahead
            if SUMS:
                of_forcing += tl.load(x_sums + at, mask=inside, other=0.0)
                tl.store(x_sums + at, of_forcing, mask=inside)
        tl.debug_barrier()
    x_largest = tl.max(x_largest)
    tl.store(largest + network * tl.num_programs(0) + tl.program_id(0), x_largest)
