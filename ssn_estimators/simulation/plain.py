"""Any circuit on any device, by `reference.py` and autograd: nothing by hand.

Of circuits in the rate form the state that is integrated are the rates, and moments are taken of
them; potentials are what they become at any time.
"""

from dataclasses import replace

import torch

from ssn_estimators.simulation.cpu.engine import seed_of, tiles
from ssn_estimators.simulation.cpu.noise import OrnsteinUhlenbeck
from ssn_estimators.simulation.reference import velocity
from ssn_estimators.simulation.schemes import SCHEMES
from ssn_estimators.simulation.setup import largest_state

__all__ = ["moments"]

CHUNK = 64  # steps of noise at a time


def moments(circuits, drive, setup, record=()):
    """Moments of the potentials, or rates.

    Parameters
    ----------
    circuits : list of Circuit
        Of tensors.
    drive : Tensor of shape (n_networks, [n_steps,] n_inputs, n_neurons)
    setup : Setup
    record : sequence of {"path", "noise"}, default=()
        Trajectories to return.

    Returns
    -------
    mean, covariance, rates, diverged_at, path, z, r_final, z_final
        As :func:`ssn_estimators.simulation.cpu.moments`. The graph of the gradient holds every
        step of the window. Final states are those that are integrated.
    """
    every = [
        _moments_of_one(circuit, own, _of_network(setup, i), record)
        for i, (circuit, own) in enumerate(zip(circuits, drive, strict=True))
    ]
    columns = zip(*every, strict=True)
    return [None if column[0] is None else torch.stack(column) for column in columns]


def _of_network(setup, i):
    initial = None if setup.initial is None else tuple(x[i] for x in setup.initial)
    return replace(setup, seeds=(setup.seeds[i],), initial=initial)


def _moments_of_one(circuit, drive, setup, record):
    n_inputs, n = drive.shape[-2:]
    shape = (n_inputs, setup.n_trials, n)
    path, state, diverged_at, noise = _integrate(circuit, drive, setup, record)
    finite = diverged_at < 0
    if path.requires_grad and not finite.all():
        # infinite numbers would have gradients that are none: again, without these trials
        kept = _integrate(circuit, drive, setup, record, finite)[0]
        path = path.detach().index_copy(1, finite.nonzero()[:, 0], kept)
    path, diverged_at = path.view(-1, *shape), diverged_at.view(shape[:2])
    finite = finite.view(shape[:2])
    mean, covariance = _over_trials(path, finite, setup.covariance)
    rates = None
    if setup.rates:
        in_rates = circuit.dynamics == "rate"
        rates = mean if in_rates else _over_trials(circuit.rates(path), finite, False)[0]
    final = None, None
    if setup.final:
        alive = (diverged_at < 0)[..., None]
        last = state.detach().view(*shape[:2], -1), noise[-1].expand(shape)
        final = (torch.where(alive, x, torch.nan) for x in last)
    path = path if "path" in record else None
    noise = noise if "noise" in record else None
    return mean, covariance, rates, diverged_at, path, noise, *final


def _integrate(circuit, drive, setup, record, kept=slice(None)):
    """What moments are taken of, after every step of the window; the last state, and the rest.

    That is when columns diverged, and noise if recorded.
    """
    n_columns, n_steps = drive.shape[-2] * setup.n_trials, setup.n_burn + setup.n_window
    state, slope = drive.new_zeros((n_columns, circuit.n_states)), None
    if setup.initial is not None:
        state = setup.initial[0].flatten(0, 1)
    state = state[kept]
    largest = largest_state(setup)
    diverged_at = torch.full((len(state),), -1, device=drive.device)
    path, differentiable = [], torch.is_grad_enabled()
    noise = [] if "noise" in record or setup.final else None
    forcing = _forcing(circuit, drive, setup, noise)
    step, follow = SCHEMES[setup.solver], velocity(circuit)
    with torch.set_grad_enabled(differentiable and setup.n_burn == 0):
        now = next(forcing)[kept]
    for t in range(n_steps):
        # the gradient reaches back to the start of the window, and what acts there
        with torch.set_grad_enabled(differentiable and t >= setup.n_burn - 1):
            ahead = next(forcing)[kept]
        with torch.set_grad_enabled(differentiable and t >= setup.n_burn):
            state, slope = step(follow, state, now, ahead, setup.dt, slope)
            seen = circuit.potentials(state)
        now = ahead
        beyond = ~(seen.detach().abs() <= largest).all(1)
        diverged_at[beyond & (diverged_at < 0)] = t + 1
        if t >= setup.n_burn:
            path.append(seen)
    return torch.stack(path), state, diverged_at, None if noise is None else torch.stack(noise)


def _over_trials(path, finite, with_covariance):
    """Mean and covariance over time and the trials that stayed finite; NaN where none did."""
    kept = finite[None, :, :, None]
    count = (finite.sum(1) * len(path)).to(path)[:, None]
    count = torch.where(count > 0, count, torch.nan)
    mean = torch.where(kept, path, 0).sum((0, 2)) / count
    if not with_covariance:
        return mean, None
    deviations = torch.where(kept, path - mean[:, None], 0).permute(1, 0, 2, 3).flatten(1, 2)
    return mean, deviations.mT @ deviations / count[..., None]


def _forcing(circuit, drive, setup, noise=None):
    """f(h) + eta of all columns at the start of every step, and at the end of the last."""
    moving, n_steps = drive.ndim == 3, setup.n_burn + setup.n_window
    for t, z in enumerate(_unit_noise(drive, setup)):
        if noise is not None and t > setup.n_burn:
            noise.append(z)
        own = drive[min(t, len(drive) - 1)] if moving else drive
        yield (own[:, None] + circuit.noise(z)).flatten(0, 1)
        if t == n_steps:
            return


def _unit_noise(drive, setup):
    """Of shape (n_inputs, or 1 if shared, n_trials, n_neurons): that of the compiled loops."""
    n_inputs, n = drive.shape[-2:]
    of_inputs, n_draws = 1 if setup.shared_noise else n_inputs, setup.n_draws
    kind = setup.increments, drive.dtype, drive.device, True
    parts = []
    for inputs, draws in tiles(n, n_inputs, setup):
        if setup.shared_noise and inputs.start:
            continue
        rows = slice(0, 1) if setup.shared_noise else inputs
        shape = (n, rows.stop - rows.start, draws.stop - draws.start)
        seed = seed_of(setup, 0, inputs, draws)
        process = OrnsteinUhlenbeck((n, shape[1] * shape[2]), setup.dt, setup.tau_eta, seed, *kind)
        if setup.initial is not None:
            own = setup.initial[1][:, :n_draws][rows, draws]
            process.begin_at(own.permute(2, 0, 1))
        parts.append((process, rows, draws, shape))
    first = True
    while True:
        values = drive.new_empty((CHUNK + 1, of_inputs, n_draws, n))
        for process, rows, draws, shape in parts:
            own = process.advance(CHUNK).view(-1, *shape)
            values[:, rows, draws] = own.permute(0, 2, 3, 1)
        for z in values[0 if first else 1 :]:
            yield torch.cat([z, -z], 1) if setup.antithetic else z
        first = False
