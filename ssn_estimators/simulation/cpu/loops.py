"""Some steps of a block of columns, forwards and backwards, one array operation at a time.

With u of shape (n_neurons, n_columns) and increments du = F - e u + A [u]+^gamma (see
`steps.py`), these are the schemes of `reference.py` in place, and their adjoints.

Parameters, for all
-------------------
u : Tensor of shape (n_neurons, n_columns)
    Potentials at the start; backwards, of shape (n_steps, ...), at the start of every step.
path : Tensor of shape (n_steps, n_neurons, n_columns)
    Takes the potentials after every step.
inputs : tuple of Tensors
    base, kicks, column and sign of the forcing F = base + sign * kicks[..., column]: base, e f(h),
    of shape (1 or n_steps + 1, n_neurons, n_columns), and kicks, e n z, of shape (n_steps + 1,
    n_neurons, n_kicks), constant or at the start of every step and at the end of the last; column
    and sign of shape (n_columns,). Backwards z, and the pair of column and sign.
circuit : tuple
    A, backwards its transpose, of shape (n_neurons, n_neurons); e, of shape (n_neurons, 1); gamma.
most : float
    Legal potentials do not exceed it.
current, before : floats
    Share of this step's increment and of the last one's in a linear multi-step scheme.
cold : bool
    Whether there is no step before the first, whose increment then stands in for it.
last : Tensor like u
    Increment of the step before.
predictions : Tensor of shape (n_steps, n_neurons, n_columns)
    Takes Heun's predictions (in turn, if it is shorter).
owed : Tensor of shape (n_steps, ...), or of one step for all
    What the loss owes to the potentials after every step directly.
grad_u : Tensor like u
    Gradient at the end, changed to that at the start.
carried : Tensor like u
    What the step after owes to the increment of the last one; changed.
grads : tuple of Tensors
    Take, in addition, the gradients of base, of A and of e n.
room : tuple of Tensors, and x, y : Tensors like u
    To work in: one of shape (2, ...) and two like u; backwards one like A, two like u and one
    like the kicks of a step. After `_multistep`, the third and `last` have changed roles if the
    number of steps is odd.

Returns
-------
legal : bool
    Forwards: whether all potentials are finite and legal.
"""

import torch

__all__ = ["back_heun", "back_multistep", "run"]


def _increment(u, force, recurrent, step, new, r, gamma):
    torch.clamp_min(u, 0.0, out=r)
    torch.mul(r, r, out=r) if gamma == 2 else r.pow_(gamma)
    torch.addcmul(force, u, step, value=-1.0, out=new)
    return new.addmm_(recurrent, r)


def _legal(path, most):
    low, high = path.aminmax()  # NaN if there is one
    return bool(low >= -most) and bool(high <= most)


def _multistep(u, path, inputs, circuit, most, room, current, before, cold, last):
    (base, kicks, column, sign), (recurrent, step, gamma) = inputs, circuit
    _, r, new = room
    forcing = torch.addcmul(base, kicks[..., column], sign)
    for out, force in zip(path, forcing, strict=False):
        _increment(u, force, recurrent, step, new, r, gamma)
        torch.add(u, new, alpha=current + before if cold else current, out=out)
        if before and not cold:
            out.add_(last, alpha=before)
        u, new, last, cold = out, last, new, False
    return _legal(path, most)


def _heun(u, path, inputs, circuit, most, room, half, predictions):
    (base, kicks, column, sign), (recurrent, step, gamma) = inputs, circuit
    _, r, new = room
    forcing = torch.addcmul(base, kicks[..., column], sign)
    for t, out in enumerate(path):
        predicted = predictions[t % len(predictions)]
        _increment(u, forcing[t], recurrent, step, new, r, gamma)
        torch.add(u, new, out=predicted)
        torch.add(u, new, alpha=half, out=out)
        _increment(predicted, forcing[t + 1], recurrent, step, new, r, gamma)
        out.add_(new, alpha=half)
        u = out
    return _legal(path, most)


def run(
    u,
    path,
    n_steps,
    base,
    noise,
    columns,
    circuit,
    most,
    room,
    heun,
    shares,
    predictions,
    cold,
    totals,
):
    """As in `compiled.py`."""
    process, z, _, noise_factor = noise
    (force, r, new), last, done, legal = room, predictions[0], 0, True
    while done < n_steps and legal:
        size, first = min(len(z) - 1, n_steps - done), done % len(path)
        part, kicks = path[first : first + size], noise_factor @ process.advance(size)
        inputs = base, kicks, *columns
        if heun:
            some = predictions[done : done + size] if len(predictions) > 1 else predictions
            legal = _heun(u, part, inputs, circuit, most, room, shares[0], some)
        else:
            legal = _multistep(
                u, part, inputs, circuit, most, (force, r, new), *shares, cold and done == 0, last
            )
            if size % 2:
                new, last = last, new
        for total, power in zip(totals, (None, circuit[2]), strict=False):
            total += (part if power is None else torch.relu(part).pow_(power)).sum(0)
        u = part[-1]
        done += size
    if not heun and last is not predictions[0]:
        predictions[0] = last
    return done, legal


def _through(grad_u, x, u, circuit, grad_recurrent, room):
    (transposed, step, gamma), (_, r, back, _) = circuit, room
    gain = torch.clamp_min(u, 0.0)
    torch.mul(gain, gain, out=r) if gamma == 2 else torch.pow(gain, gamma, out=r)
    grad_recurrent.addmm_(x, r.T)
    torch.mm(transposed, x, out=back)
    if gamma != 2:
        gain = gain.pow_(gamma - 1) if gamma > 1 else (u > 0).to(u)
    grad_u.addcmul_(x, step, value=-1.0).addcmul_(back, gain, value=gamma)


def _owe_forcing(x, z, columns, grad_base, grad_noise, room):
    """Add to the gradients what the gradient x of F at one time means for them."""
    (column, sign), kick = columns, room[3]
    grad_base.add_(x)
    kick.zero_().index_add_(1, column, sign * x)
    grad_noise.addmm_(kick, z.T)


def back_multistep(
    grad_u, owed, u, inputs, circuit, grads, room, current, before, cold, carried, x
):
    (grad_base, grad_recurrent, grad_noise), (z, columns) = grads, inputs
    for t in reversed(range(len(u))):
        grad_u.add_(owed[t % len(owed)])
        torch.add(carried, grad_u, alpha=current, out=x)
        torch.mul(grad_u, before, out=carried)
        if cold and t == 0:
            x.add_(carried)
        _owe_forcing(x, z[t], columns, grad_base[t % len(grad_base)], grad_noise, room)
        _through(grad_u, x, u[t], circuit, grad_recurrent, room)


def back_heun(grad_u, owed, u, inputs, circuit, grads, room, half, predictions, y, x):
    (grad_base, grad_recurrent, grad_noise), (z, columns) = grads, inputs
    x.zero_()
    for t in reversed(range(len(u))):
        grad_u.add_(owed[t % len(owed)])
        torch.mul(grad_u, half, out=y)
        # F at the end of this step is that at the start of the next, of which x is still the first
        x.add_(y)
        after = grad_base[(t + 1) % len(grad_base)]
        _owe_forcing(x, z[t + 1], columns, after, grad_noise, room)
        _through(x.zero_(), y, predictions[t], circuit, grad_recurrent, room)  # to the prediction
        grad_u.add_(x)
        x.add_(y)
        _through(grad_u, x, u[t], circuit, grad_recurrent, room)
    _owe_forcing(x, z[0], columns, grad_base[0], grad_noise, room)
