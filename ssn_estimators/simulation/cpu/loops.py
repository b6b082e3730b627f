"""Some steps of a block of columns, forwards and backwards, one array operation at a time.

These are the schemes of `schemes.py` in place, and their adjoints; `values.py` says what they get.
`compiled.py` has the same functions for Numba.

Parameters, for all
-------------------
u : Tensor of shape (n_neurons, n_columns)
    Potentials at the start.
path : Tensor of shape (n_steps, n_neurons, n_columns)
    Takes the potentials after every step.
predictions : Tensor of shape (n_steps, n_neurons, n_columns)
    Takes Heun's predictions (in turn, if it is shorter); backwards, holds them.
last : Tensor like u
    Increment of the step before; changed to that of the last one.
cold : bool
    Whether there is no step before the first, whose increment then stands in for it.

Returns
-------
legal : bool
    Forwards: whether all potentials are finite and legal.
"""

import torch

from ssn_estimators.simulation.cpu.values import Forcing
from ssn_estimators.simulation.powers import power, slope_of_power

__all__ = ["back_heun", "back_multistep", "run"]


def _is_square(gamma):
    return not torch.is_tensor(gamma) and gamma == 2


def _increment(u, force, cells, new, r):
    torch.clamp_min(u, 0.0, out=r)
    torch.mul(r, r, out=r) if _is_square(cells.law.gamma) else r.pow_(cells.law.gamma)
    torch.addcmul(force, u, cells.relative_step, value=-1.0, out=new)
    return new.addmm_(cells.recurrent, r)


def _at_every_step(forcing):
    column, sign = forcing.columns
    return torch.addcmul(forcing.base, forcing.kicks[..., column], sign)


def _legal(path, most):
    low, high = path.aminmax()  # NaN if there is one
    return bool(low >= -most) and bool(high <= most)


def _multistep(u, path, forcing, cells, scheme, room, last, cold):
    before, now = last, room.increment
    for out, force in zip(path, _at_every_step(forcing), strict=False):
        _increment(u, force, cells, now, room.rates)
        share = scheme.current + scheme.before if cold else scheme.current
        torch.add(u, now, alpha=share, out=out)
        if scheme.before and not cold:
            out.add_(before, alpha=scheme.before)
        u, before, now, cold = out, now, before, False
    if before is not last:
        last.copy_(before)
    return _legal(path, cells.most)


def _heun(u, path, forcing, cells, scheme, room, predictions):
    every, half, now = _at_every_step(forcing), scheme.current, room.increment
    for t, out in enumerate(path):
        predicted = predictions[t % len(predictions)]
        _increment(u, every[t], cells, now, room.rates)
        torch.add(u, now, out=predicted)
        torch.add(u, now, alpha=half, out=out)
        _increment(predicted, every[t + 1], cells, now, room.rates)
        out.add_(now, alpha=half)
        u = out
    return _legal(path, cells.most)


def run(u, path, n_steps, source, cells, scheme, room, predictions, cold, totals):
    """As in `compiled.py`."""
    done, legal = 0, True
    while done < n_steps and legal:
        size, first = min(len(source.values) - 1, n_steps - done), done % len(path)
        part = path[first : first + size]
        kicks = source.kicks
        if not source.quiet:
            n, z = source.noise_factor, source.process.advance(size)
            kicks = n @ z if n.shape[0] == n.shape[1] else n * z
        forcing = Forcing(source.base, kicks, source.columns)
        if scheme.heun:
            some = predictions[done : done + size] if len(predictions) > 1 else predictions
            legal = _heun(u, part, forcing, cells, scheme, room, some)
        else:
            first_ever = cold and done == 0
            legal = _multistep(u, part, forcing, cells, scheme, room, predictions[0], first_ever)
        for total, gamma in zip(totals.stretch, (None, cells.law.gamma), strict=False):
            total += (part if gamma is None else power(part, gamma)).sum(0)
        u = part[-1]
        done += size
    return done, legal


def _through(grad_u, x, u, cells, grad_recurrent, state):
    gain = torch.clamp_min(u, 0.0)
    r, gamma = state.rates, cells.law.gamma
    torch.mul(gain, gain, out=r) if _is_square(gamma) else torch.pow(gain, gamma, out=r)
    grad_recurrent.addmm_(x, r.T)
    torch.mm(cells.recurrent, x, out=state.back)
    if not _is_square(gamma):
        gain = slope_of_power(u, gamma)
    grad_u.addcmul_(x, cells.relative_step, value=-1.0)
    if torch.is_tensor(gamma):
        grad_u.addcmul_(state.back, gain.mul_(gamma))
    else:
        grad_u.addcmul_(state.back, gain, value=gamma)


def _owe_forcing(x, z, columns, grad_base, grad_noise, kick):
    """Add to the gradients what the gradient x of F at one time means for them."""
    column, sign = columns
    grad_base.add_(x)
    kick.zero_().index_add_(1, column, sign * x)
    grad_noise.addmm_(kick, z.T)


def back_multistep(owed, cells, scheme, gradients, state, cold):
    """Lead `state` back over a stretch of time; `cold` if that begins with the very first step."""
    grad_u, carried, x = state.grad_u, state.carried, state.x
    for t in reversed(range(len(owed.u))):
        grad_u.add_(owed.direct[t % len(owed.direct)])
        torch.add(carried, grad_u, alpha=scheme.current, out=x)
        torch.mul(grad_u, scheme.before, out=carried)
        if cold and t == 0:
            x.add_(carried)
        base = gradients.base[t % len(gradients.base)]
        _owe_forcing(x, owed.z[t], owed.columns, base, gradients.noise, state.kick)
        _through(grad_u, x, owed.u[t], cells, gradients.recurrent, state)


def back_heun(owed, cells, scheme, gradients, state, predictions):
    """As `back_multistep`."""
    grad_u, y, x, base = state.grad_u, state.carried, state.x, gradients.base
    x.zero_()
    for t in reversed(range(len(owed.u))):
        grad_u.add_(owed.direct[t % len(owed.direct)])
        torch.mul(grad_u, scheme.current, out=y)
        # F at the end of this step is that at the start of the next, of which x is still the first
        x.add_(y)
        after = base[(t + 1) % len(base)]
        _owe_forcing(x, owed.z[t + 1], owed.columns, after, gradients.noise, state.kick)
        # to the prediction
        _through(x.zero_(), y, predictions[t], cells, gradients.recurrent, state)
        grad_u.add_(x)
        x.add_(y)
        _through(grad_u, x, owed.u[t], cells, gradients.recurrent, state)
    _owe_forcing(x, owed.z[0], owed.columns, base[0], gradients.noise, state.kick)
