"""Triton kernels of the GPU engine: a tile of columns is followed through all steps at once.

A column is one trial of one input of one network. Arrays over columns are contiguous with
shape (n_networks, n_columns, n_cells); time, where there is one, comes first. A matrix of
networks is stacked along the axis before.

`PIECES` is the number of float16 numbers that stand for one float32 in a product: one has the
11-bit significand of TF32, two have 22 bits and take three products.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD

__all__ = ["adjoint", "adjoint_tiled", "forward", "forward_tiled", "noise", "outer"]

# The interpreter runs on NumPy and knows the portable functions only
FAST = tl.constexpr(not triton.knobs.runtime.interpret)
# Numbers that change from call to call; the kernels do not depend on their being 1 or even
COUNTS = "n_networks n_columns n_trials n_inputs n_steps start stop n_tiles n_blocks n_burn".split()
ROUNDS = tl.constexpr(7)  # of Philox-4x32; the fewest that pass BigCrush (Salmon et al. 2011)
NEVER = tl.constexpr(2**31 - 1)
THRESHOLD = tl.constexpr(DIVERGENCE_THRESHOLD)


@triton.jit
def _two_normals(a, b):
    """Box-Muller transform of two words of 32 random bits."""
    uniform = (a.to(tl.float32) + 0.5) * 2.0**-32
    angle = b.to(tl.int32, bitcast=True).to(tl.float32) * (3.141592653589793 * 2.0**-31)
    if FAST:
        log, cos, sin = (
            libdevice.fast_logf(uniform),
            libdevice.fast_cosf(angle),
            libdevice.fast_sinf(angle),
        )
    else:
        log, cos, sin = tl.log(uniform), tl.cos(angle), tl.sin(angle)
    radius = tl.sqrt(tl.maximum(-2 * log, 0.0))
    return radius * cos, radius * sin


@triton.jit
def _three_point(a):
    """+1 and -1 with probability 1/6 each, else 0."""
    low, high = 715827883, 3579139413  # 2**32 / 6 and its complement
    return tl.where(a < low, -1.0, tl.where(a >= high, 1.0, 0.0))


@triton.jit
def _draws(seed, lanes, step, ids, WEAK: tl.constexpr, signs, ANTITHETIC: tl.constexpr):
    """Four independent increments of shape (columns, lanes), for the quarters of a block."""
    a, b, c, d = tl.philox(seed, lanes[None, :], step, ids[:, None], 0, ROUNDS)
    if WEAK:
        a, b, c, d = _three_point(a), _three_point(b), _three_point(c), _three_point(d)
    else:
        a, b = _two_normals(a, b)
        c, d = _two_normals(c, d)
    if ANTITHETIC:
        a, b, c, d = a * signs, b * signs, c * signs, d * signs
    return a, b, c, d


@triton.jit
def _rates(u, gamma, POWER: tl.constexpr):
    """[u]+^gamma; POWER is gamma if that is 1 or 2, else 0."""
    above = tl.maximum(u, 0.0)
    if POWER == 2:
        above = above * above
    elif POWER == 0:
        above = tl.where(above > 0, tl.exp2(gamma * tl.log2(above)), 0.0)
    return above


@triton.jit
def _gains(u, gamma, POWER: tl.constexpr):
    """Derivative of `_rates`."""
    if POWER == 1:
        gains = tl.where(u > 0, 1.0, 0.0)
    elif POWER == 2:
        gains = 2 * tl.maximum(u, 0.0)
    else:
        above = tl.maximum(u, 0.0)
        gains = tl.where(above > 0, gamma * tl.exp2((gamma - 1) * tl.log2(above)), 0.0)
    return gains


@triton.jit
def _matrix(pointer, rows, columns, n_cells):
    """Block of a matrix over cells; zeros beyond the last cell."""
    inside = (rows[:, None] < n_cells) & (columns[None, :] < n_cells)
    return tl.load(pointer + rows[:, None] * n_cells + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _product(high, low, x, scale, PIECES: tl.constexpr):
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
def _quarter(high, low, x, total, PIECES: tl.constexpr):
    """total + (high + low) x^T for increments x, which float16 holds exactly."""
    x = tl.trans(x.to(tl.float16))
    if PIECES == 2:
        total = tl.dot(low, x, total)
    return tl.dot(high, x, total)


@triton.jit
def _halves(x):
    """Two numbers that add up to x; the first is the nearest TF32 number."""
    high = ((x.to(tl.int32, bitcast=True) + 4096) & -8192).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def _accurate(a_high, a_low, b, total, PIECES: tl.constexpr):
    """total + (a_high + a_low) b in TF32, small terms first."""
    b_high, b_low = _halves(b)
    if PIECES == 2:
        total = tl.dot(a_low, b_high, total, input_precision="tf32")
        total = tl.dot(a_high, b_low, total, input_precision="tf32")
    return tl.dot(a_high, b_high, total, input_precision="tf32")


@triton.jit
def _simple(a_high, a_low, b, total, PIECES: tl.constexpr):
    """The same for b that are TF32 numbers."""
    if PIECES == 2:
        total = tl.dot(a_low, b, total, input_precision="tf32")
    return tl.dot(a_high, b, total, input_precision="tf32")


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
    WEAK: tl.constexpr,
    KEEP: tl.constexpr,
):
    """OU processes z from step `start` to `stop`; the start itself is drawn if it is 0.

    With KEEP, `path` gets z at every step from `start` on, `stop` included.
    """
    QUARTER: tl.constexpr = BLOCK // 4
    block, network = tl.program_id(1), tl.program_id(2)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    lanes = block * QUARTER + tl.arange(0, QUARTER)
    seed = tl.load(seeds + network)
    ids = tl.load(ids + columns, mask=columns < n_columns, other=0)
    signs = tl.load(signs + columns, mask=columns < n_columns, other=0.0)[:, None]
    size = n_columns.to(tl.int64) * n_cells
    z += network * size
    path += network * size
    for step in range(start, stop + 1):
        x = _draws(seed, lanes, step, ids, WEAK, signs, True)
        if step == 0:
            x = _draws(seed, lanes, step, ids, False, signs, True)
        for i in tl.static_range(4):
            cells = block * BLOCK + i * QUARTER + tl.arange(0, QUARTER)[None, :]
            inside = (columns < n_columns)[:, None] & (cells < n_cells)
            at = columns[:, None] * n_cells + cells
            value = x[i]
            if step > 0:
                value = tl.load(z + at, mask=inside, other=0.0)
                if step > start:
                    value = decay * value + kick * x[i].to(tl.float16).to(tl.float32)
            tl.store(z + at, value, mask=inside)
            if KEEP:
                tl.store(path + (step - start) * n_networks * size + at, value, mask=inside)
        tl.debug_barrier()


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
    w_high = _matrix(weights, cells, cells, n_cells)
    n0_high = _matrix(noise_factor, cells, lanes, n_cells)
    n1_high = _matrix(noise_factor, cells, lanes + QUARTER, n_cells)
    n2_high = _matrix(noise_factor, cells, lanes + 2 * QUARTER, n_cells)
    n3_high = _matrix(noise_factor, cells, lanes + 3 * QUARTER, n_cells)
    w_low, n0_low, n1_low, n2_low, n3_low = w_high, n0_high, n1_high, n2_high, n3_high
    if PIECES == 2:
        weights += n_networks.to(tl.int64) * square
        noise_factor += n_networks.to(tl.int64) * square
        w_low = _matrix(weights, cells, cells, n_cells)
        n0_low = _matrix(noise_factor, cells, lanes, n_cells)
        n1_low = _matrix(noise_factor, cells, lanes + QUARTER, n_cells)
        n2_low = _matrix(noise_factor, cells, lanes + 2 * QUARTER, n_cells)
        n3_low = _matrix(noise_factor, cells, lanes + 3 * QUARTER, n_cells)
    weight_unit, noise_unit = tl.load(weight_units + network), tl.load(noise_units + network)

    seed = tl.load(seeds + network)
    ids = tl.load(ids + columns, mask=columns < n_columns, other=0)
    signs = tl.load(signs + columns, mask=columns < n_columns, other=0.0)[:, None]
    speed = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
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
        recurrent = _product(w_high, w_low, _rates(u, gamma, POWER), rate_scale, PIECES)
        now = speed * (weight_unit * recurrent + fixed + eta - u)  # slope times dt

        x0, x1, x2, x3 = _draws(seed, lanes, step + 1, ids, WEAK, signs, ANTITHETIC)
        kicks = tl.zeros((BLOCK, COLUMNS), tl.float32)
        kicks = _quarter(n0_high, n0_low, x0, kicks, PIECES)
        kicks = _quarter(n1_high, n1_low, x1, kicks, PIECES)
        kicks = _quarter(n2_high, n2_low, x2, kicks, PIECES)
        kicks = _quarter(n3_high, n3_low, x3, kicks, PIECES)
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
            u += 1.5 * now - 0.5 * tl.where(step == 0, now, slope)
            slope = now
        else:
            if MOVING:
                ahead = tl.minimum(step + 1, n_steps - 1) * n_inputs.to(tl.int64) * n_cells
                fixed = tl.load(drive + ahead + drive_at, mask=inside, other=0.0)
            predicted = u + now
            if PATH == 2:
                tl.store(predictions + written, predicted, mask=inside)
            rates = _rates(predicted, gamma, POWER)
            recurrent = _product(w_high, w_low, rates, rate_scale, PIECES)
            u += 0.5 * (now + speed * (weight_unit * recurrent + fixed + eta - predicted))
        first = tl.minimum(first, tl.where(tl.abs(u) <= THRESHOLD, NEVER, step + 1))
        if MEAN:
            u_sum += u
        if RATES:
            rate_sum += _rates(u, gamma, POWER)
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
    kept,
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
    turned_high = _matrix(turned, cells, cells, n_cells)
    turned_low = turned_high
    if PIECES == 2:
        turned += n_networks.to(tl.int64) * n_cells * n_cells
        turned_low = _matrix(turned, cells, cells, n_cells)
    zeros = tl.zeros((BLOCK, COLUMNS), tl.float32)
    speed = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
    at = columns[None, :] * n_cells + cells[:, None]
    inside = (columns[None, :] < n_columns) & (cells[:, None] < n_cells)
    base = network * n_columns.to(tl.int64) * n_cells
    stride = n_networks * n_columns.to(tl.int64) * n_cells
    kept = tl.load(kept + network * n_columns + columns, mask=columns < n_columns, other=0.0)
    grad_at = (network * n_inputs + columns // n_trials)[None, :] * n_cells + cells[:, None]
    of_mean = kept[None, :] * tl.load(grad_mean + grad_at, mask=inside, other=0.0)
    of_rates = kept[None, :] * tl.load(grad_rates + grad_at, mask=inside & RATES, other=0.0)
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
            grad += of_rates * _gains(after, gamma, POWER)
        if DENSE:
            grad += tl.load(grad_path + here, mask=inside, other=0.0)
        if SOLVER == "euler":
            of_forcing = speed * grad
        elif SOLVER == "ab2":
            of_slope = 1.5 * grad + carried
            carried = -0.5 * grad
            if COLD:
                of_slope += tl.where(step == 0, carried, 0.0)
            of_forcing = speed * of_slope
        else:
            of_ahead = 0.5 * speed * grad
            tl.store(x_ahead + here, of_ahead, mask=inside)
            predicted = tl.load(predictions + here, mask=inside, other=0.0)
            product = _accurate(turned_high, turned_low, of_ahead, zeros, PIECES)
            of_predicted = _gains(predicted, gamma, POWER) * product - of_ahead
            of_forcing = speed * (0.5 * grad + of_predicted)
            grad += of_predicted
        tl.store(x + here, of_forcing, mask=inside)
        product = _accurate(turned_high, turned_low, of_forcing, zeros, PIECES)
        grad += _gains(before, gamma, POWER) * product - of_forcing
        after = before

    tl.store(grad_state + base + at, grad, mask=inside)
    if SOLVER == "ab2":
        tl.store(carried_state + base + at, carried, mask=inside)


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
                rates = _rates(predicted, gamma, POWER)
                high, low = _halves(of_ahead)
                of_weights = _accurate(high, low, rates, of_weights, PIECES)
                g += of_ahead
            counter = n_burn + step + 1
            x0, x1, x2, x3 = _draws(seed, lanes, counter, tile_ids, WEAK, tile_signs, ANTITHETIC)
            high, low = _halves(g)
            of_noise0 = _simple(high, low, x0.to(tl.float16).to(tl.float32), of_noise0, PIECES)
            of_noise1 = _simple(high, low, x1.to(tl.float16).to(tl.float32), of_noise1, PIECES)
            of_noise2 = _simple(high, low, x2.to(tl.float16).to(tl.float32), of_noise2, PIECES)
            of_noise3 = _simple(high, low, x3.to(tl.float16).to(tl.float32), of_noise3, PIECES)
            high, low = _halves(of_forcing)
            of_weights = _accurate(high, low, _rates(u, gamma, POWER), of_weights, PIECES)
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
    rates = _rates(u, gamma, POWER) * scale
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
    network = tl.program_id(1)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    in_columns = columns < n_columns
    square = size.to(tl.int64) * size
    weights += network * square
    noise_factor += network * square
    to_low_matrix = n_networks * square
    slot = n_networks * padded_columns.to(tl.int64) * size
    scratch += network * padded_columns.to(tl.int64) * size
    weight_unit, noise_unit = tl.load(weight_units + network), tl.load(noise_units + network)
    seed = tl.load(seeds + network)
    ids = tl.load(ids + columns, mask=in_columns, other=0)
    signs = tl.load(signs + columns, mask=in_columns, other=0.0)[:, None]
    extent = n_columns.to(tl.int64) * n_cells
    base = network * extent
    u_state += base
    eta_state += base
    z_state += base
    slope_state += base
    u_sums += base
    rate_sums += base
    steps_in_drive = 1
    if MOVING:
        steps_in_drive = n_steps
    drive += network.to(tl.int64) * steps_in_drive * n_inputs * n_cells
    first_at = first_state + network * n_columns + columns
    first = tl.load(first_at, mask=in_columns, other=NEVER)
    n_blocks = size // BLOCK

    for block in range(n_blocks):
        cells = block * BLOCK + tl.arange(0, BLOCK)
        inside = in_columns[None, :] & (cells[:, None] < n_cells)
        u = tl.load(u_state + columns[None, :] * n_cells + cells[:, None], mask=inside, other=0.0)
        scratch_at = columns[None, :] * size + cells[:, None]
        _put_rates(scratch, scratch_at, slot, u, gamma, rate_scale, POWER, PIECES)

    for step in range(start, stop):
        now_slot = 0 * slot
        if SOLVER != "heun":
            now_slot = 2 * ((step - start) % 2) * slot
        ahead_slot = 2 * slot - now_slot
        fixed_at = 0 * slot
        if MOVING:
            fixed_at = step * n_inputs.to(tl.int64) * n_cells
        written = (step - start) * n_networks * extent + base
        for block in range(n_blocks):
            lanes = block * QUARTER + tl.arange(0, QUARTER)
            increments = _draws(seed, lanes, step + 1, ids, WEAK, signs, ANTITHETIC)
            for i in tl.static_range(4):
                cells = block * BLOCK + i * QUARTER + tl.arange(0, QUARTER)[None, :]
                inside = in_columns[:, None] & (cells < n_cells)
                at = columns[:, None] * n_cells + cells
                x = increments[i].to(tl.float16)
                tl.store(scratch + 4 * slot + columns[:, None] * size + cells, x)
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
                columns,
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
                columns,
                size,
                to_low_matrix,
                slot,
                PIECES,
                True,
                BATCH,
            )
            at = columns[None, :] * n_cells + cells[:, None]
            inside = in_columns[None, :] & (cells[:, None] < n_cells)
            speed = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
            fixed = fixed_at + (columns // n_trials)[None, :] * n_cells + cells[:, None]
            fixed = tl.load(drive + fixed, mask=inside, other=0.0)
            u = tl.load(u_state + at, mask=inside, other=0.0)
            eta = tl.load(eta_state + at, mask=inside, other=0.0)
            now = speed * (weight_unit * recurrent + fixed + eta - u)
            tl.store(eta_state + at, decay * eta + noise_unit * kicks, mask=inside)
            if SOLVER == "euler":
                u += now
            elif SOLVER == "ab2":
                before = tl.load(slope_state + at, mask=inside, other=0.0)
                u += 1.5 * now - 0.5 * tl.where(step == 0, now, before)
                tl.store(slope_state + at, now, mask=inside)
            else:
                tl.store(slope_state + at, now, mask=inside)
                u += now
                if PATH == 2:
                    tl.store(predictions + written + at, u, mask=inside)
            scratch_at = columns[None, :] * size + cells[:, None]
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
                    columns,
                    size,
                    to_low_matrix,
                    slot,
                    PIECES,
                    False,
                    BATCH,
                )
                at = columns[None, :] * n_cells + cells[:, None]
                inside = in_columns[None, :] & (cells[:, None] < n_cells)
                speed = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
                fixed = fixed_at + (columns // n_trials)[None, :] * n_cells + cells[:, None]
                fixed = tl.load(drive + fixed, mask=inside, other=0.0)
                u = tl.load(u_state + at, mask=inside, other=0.0)
                eta = tl.load(eta_state + at, mask=inside, other=0.0)
                now = tl.load(slope_state + at, mask=inside, other=0.0)
                ahead = speed * (weight_unit * recurrent + fixed + eta - u - now)
                u += 0.5 * (now + ahead)
                tl.store(u_state + at, u, mask=inside)
                scratch_at = columns[None, :] * size + cells[:, None]
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
        rates = tl.load(rate_sums, mask=inside, other=0.0) + _rates(u, gamma, POWER)
        tl.store(rate_sums, rates, mask=inside)
    if PATH:
        tl.store(path, u, mask=inside)
    fine = (tl.abs(u) <= THRESHOLD) | ~inside
    return tl.minimum(first, tl.min(tl.where(fine, NEVER, step + 1), axis=0))


@triton.jit
def _streamed_back(
    turned, x, cells, columns, n_cells, n_columns, to_low, PIECES: tl.constexpr, BATCH: tl.constexpr
):
    """Rows of (high + low) x in TF32 from memory, for the adjoint."""
    total = tl.zeros((cells.shape[0], columns.shape[0]), tl.float32)
    for k in range(0, n_cells, BATCH):
        others = k + tl.arange(0, BATCH)
        inside = (cells[:, None] < n_cells) & (others[None, :] < n_cells)
        at = turned + cells[:, None] * n_cells + others[None, :]
        high = tl.load(at, mask=inside, other=0.0)
        low = high
        if PIECES == 2:
            low = tl.load(at + to_low, mask=inside, other=0.0)
        inside = (columns[None, :] < n_columns) & (others[:, None] < n_cells)
        block = tl.load(x + columns[None, :] * n_cells + others[:, None], mask=inside, other=0.0)
        total = _accurate(high, low, block, total, PIECES)
    return total


@triton.jit(do_not_specialize=COUNTS)
def adjoint_tiled(
    turned,
    rate,
    kept,
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
    BATCH: tl.constexpr,
):
    """As `adjoint` for any number of cells; the blocks exchange x through memory."""
    network = tl.program_id(1)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    in_columns = columns < n_columns
    turned += network.to(tl.int64) * n_cells * n_cells
    to_low = n_networks.to(tl.int64) * n_cells * n_cells
    base = network * n_columns.to(tl.int64) * n_cells
    stride = n_networks * n_columns.to(tl.int64) * n_cells
    path += base
    grad_state += base
    carried_state += base
    kept = tl.load(kept + network * n_columns + columns, mask=in_columns, other=0.0)[None, :]
    inputs = (network * n_inputs + columns // n_trials)[None, :] * n_cells
    n_blocks = tl.cdiv(n_cells, BLOCK)

    for back in range(stop - start):
        step = stop - 1 - back
        here = (step - start) * stride + base
        for block in range(n_blocks):
            cells = block * BLOCK + tl.arange(0, BLOCK)
            at = columns[None, :] * n_cells + cells[:, None]
            inside = in_columns[None, :] & (cells[:, None] < n_cells)
            speed = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
            of_mean = tl.load(grad_mean + inputs + cells[:, None], mask=inside, other=0.0)
            grad = tl.load(grad_state + at, mask=inside, other=0.0) + kept * of_mean
            if RATES:
                after = tl.load(path + (step + 1) * stride + at, mask=inside, other=0.0)
                of_rates = tl.load(grad_rates + inputs + cells[:, None], mask=inside, other=0.0)
                grad += kept * of_rates * _gains(after, gamma, POWER)
            if DENSE:
                grad += tl.load(grad_path + here + at, mask=inside, other=0.0)
            tl.store(grad_state + at, grad, mask=inside)
            if SOLVER == "euler":
                tl.store(x + here + at, speed * grad, mask=inside)
            elif SOLVER == "ab2":
                of_slope = 1.5 * grad + tl.load(carried_state + at, mask=inside, other=0.0)
                carried = -0.5 * grad
                tl.store(carried_state + at, carried, mask=inside)
                if COLD:
                    of_slope += tl.where(step == 0, carried, 0.0)
                tl.store(x + here + at, speed * of_slope, mask=inside)
            else:
                tl.store(x_ahead + here + at, 0.5 * speed * grad, mask=inside)
        tl.debug_barrier()

        if SOLVER == "heun":
            for block in range(n_blocks):
                cells = block * BLOCK + tl.arange(0, BLOCK)
                product = _streamed_back(
                    turned,
                    x_ahead + here,
                    cells,
                    columns,
                    n_cells,
                    n_columns,
                    to_low,
                    PIECES,
                    BATCH,
                )
                at = columns[None, :] * n_cells + cells[:, None]
                inside = in_columns[None, :] & (cells[:, None] < n_cells)
                speed = dt * tl.load(rate + cells, mask=cells < n_cells, other=0.0)[:, None]
                grad = tl.load(grad_state + at, mask=inside, other=0.0)
                predicted = tl.load(predictions + here + at, mask=inside, other=0.0)
                of_predicted = _gains(predicted, gamma, POWER) * product - 0.5 * speed * grad
                tl.store(x + here + at, speed * (0.5 * grad + of_predicted), mask=inside)
                tl.store(grad_state + at, grad + of_predicted, mask=inside)
            tl.debug_barrier()

        for block in range(n_blocks):
            cells = block * BLOCK + tl.arange(0, BLOCK)
            product = _streamed_back(
                turned, x + here, cells, columns, n_cells, n_columns, to_low, PIECES, BATCH
            )
            at = columns[None, :] * n_cells + cells[:, None]
            inside = in_columns[None, :] & (cells[:, None] < n_cells)
            of_forcing = tl.load(x + here + at, mask=inside, other=0.0)
            before = tl.load(path + step * stride + at, mask=inside, other=0.0)
            grad = tl.load(grad_state + at, mask=inside, other=0.0)
            grad += _gains(before, gamma, POWER) * product - of_forcing
            tl.store(grad_state + at, grad, mask=inside)
        tl.debug_barrier()
