"""Some steps of a block of columns, forwards and backwards, one array operation at a time.

With u of shape (n_neurons, n_columns) and increments du = F - e u + A [u]+^gamma (see
`steps.py`), these are the schemes of `reference.py` in place, and their adjoints.

Parameters, for all
-------------------
u : Tensor of shape (n_neurons, n_columns)
    Potentials at the start; backwards, of shape (n_steps, ...), at the start of every step.
path, predictions : Tensors of shape (n_steps, n_neurons, n_columns)
    Take the potentials after every step, and Heun's predictions (in turn, if they are fewer).
forcing : Tensor of shape (n_steps, ...), of n_steps + 1 for Heun
    F at the start of every step and at the end of the last.
recurrent, transposed : Tensors of shape (n_neurons, n_neurons)
    A; gamma times its transpose.
step : Tensor of shape (n_neurons, 1)
    e.
current, before : floats
    Share of this step's increment and of the last one's in a linear multi-step scheme.
cold : bool
    Whether there is no step before the first, whose increment then stands in for it.
last : Tensor like u
    Increment of the step before.
owed : Tensor of shape (n_steps, ...), or of one step for all
    What the loss owes to the potentials after every step directly.
grad_u : Tensor like u
    Gradient at the end, changed to that at the start.
xs, ys : Tensors of shape (n_steps, ...)
    Take the gradients of the increments: of the only or first, and of Heun's second.
carried : Tensor like u
    What the step after owes to the increment of the last one; changed.
grad_recurrent : Tensor like recurrent
    Takes, in addition, what the increments owe to A.
new, r, back : Tensors like u, and outer : Tensor like recurrent
    Room to work in. After `multistep`, `new` and `last` have changed roles if the number of
    steps is odd.
"""

import torch

__all__ = ["back_heun", "back_multistep", "heun", "multistep"]


def _increment(u, forcing, recurrent, step, new, r, gamma):
    torch.clamp_min(u, 0.0, out=r)
    torch.mul(r, r, out=r) if gamma == 2 else r.pow_(gamma)
    torch.addcmul(forcing, u, step, value=-1.0, out=new)
    return new.addmm_(recurrent, r)


def multistep(u, path, forcing, recurrent, step, current, before, cold, new, last, r, gamma):
    for out, force in zip(path, forcing, strict=False):
        _increment(u, force, recurrent, step, new, r, gamma)
        torch.add(u, new, alpha=current + before if cold else current, out=out)
        if before and not cold:
            out.add_(last, alpha=before)
        u, new, last, cold = out, last, new, False


def heun(u, path, predictions, forcing, recurrent, step, half, new, r, gamma):
    for t, out in enumerate(path):
        predicted = predictions[t % len(predictions)]
        _increment(u, forcing[t], recurrent, step, new, r, gamma)
        torch.add(u, new, out=predicted)
        torch.add(u, new, alpha=half, out=out)
        _increment(predicted, forcing[t + 1], recurrent, step, new, r, gamma)
        out.add_(new, alpha=half)
        u = out


def _through(grad_u, x, u, transposed, step, grad_recurrent, outer, r, back, gamma):
    gain = torch.clamp_min(u, 0.0)
    torch.mul(gain, gain, out=r) if gamma == 2 else torch.pow(gain, gamma, out=r)
    grad_recurrent.addmm_(x, r.T)
    torch.mm(transposed, x, out=back)
    if gamma != 2:
        gain = gain.pow_(gamma - 1) if gamma > 1 else (u > 0).to(u)
    grad_u.addcmul_(x, step, value=-1.0).addcmul_(back, gain)


def back_multistep(grad_u, owed, u, xs, transposed, step, current, before, cold, carried, *room):
    for t in reversed(range(len(xs))):
        x = xs[t]
        grad_u.add_(owed[t % len(owed)])
        torch.add(carried, grad_u, alpha=current, out=x)
        if before:
            torch.mul(grad_u, before, out=carried)
            if cold and t == 0:
                x.add_(carried)
        _through(grad_u, x, u[t], transposed, step, *room)


def back_heun(grad_u, owed, u, predictions, xs, ys, transposed, step, half, *room):
    for t in reversed(range(len(xs))):
        x, y = xs[t].zero_(), ys[t]
        grad_u.add_(owed[t % len(owed)])
        torch.mul(grad_u, half, out=y)
        _through(x, y, predictions[t], transposed, step, *room)  # what is owed to the prediction
        grad_u.add_(x)
        x.add_(y)
        _through(grad_u, x, u[t], transposed, step, *room)
