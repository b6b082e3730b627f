"""Small helpers around torch that every estimator shares."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import gen_batches
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from ssn_estimators._typing import Decorated

__all__ = [
    "MOST",
    "Minibatches",
    "Patience",
    "chance_of_labels",
    "check_parameters",
    "check_trained",
    "draw_parameters",
    "in_blocks",
    "in_pieces",
    "is_whole",
    "labels_and_weights",
    "learning_rate",
    "loss_of_labels",
    "made_on_cpu",
    "on_cpu",
    "resolve_device",
    "restore",
    "state_of",
    "times_rows",
    "to_numbers",
    "to_tensor",
    "until_interrupted",
]

MOST = 2**31 - 1  # of what is counted
PIECE = 8192  # rows; a multiple of all sizes of blocks


# Threads do not survive a fork: torch would wait for its own for ever, in any larger operation.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def resolve_device(device):
    """`device`, with "auto" as the GPU where there is one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used here: {error}") from error
    return device


def on_cpu():
    """Context in which tensors are made on the CPU, unless another device is named.

    Users may have chosen another default for tensors of their own.
    """
    usual = torch.get_default_device().type == "cpu"
    return nullcontext() if usual else torch.device("cpu")


def made_on_cpu(function: Decorated) -> Decorated:
    """Decorator: a function that runs in the context of :func:`on_cpu`."""

    @wraps(function)
    def run(*args, **kwargs):
        with on_cpu():
            return function(*args, **kwargs)

    return cast("Decorated", run)


def to_tensor(array, dtype=np.float64, name="array"):
    """A copy as a tensor of `dtype`, whatever torch does not take.

    Arrays may be read backwards, of foreign byte order, of extended precision or read-only, or
    not be arrays yet, as data frames. Tensors are returned as they are.
    """
    if torch.is_tensor(array):
        if array.is_complex():
            raise ValueError(f"{name} must be an array of numbers, got complex ones.")
        return array
    return torch.from_numpy(to_numbers(array, dtype, name))


def to_numbers(array, dtype=np.float64, name="array"):
    """A copy as an array of `dtype`; `name` is for errors.

    What NumPy would read numbers out of, strings and complex numbers, is refused.
    """
    try:
        given = np.asarray(array)
        strings = given.dtype.kind == "O" and any(isinstance(x, str) for x in given.flat)
        if strings or given.dtype.kind not in "biufO":
            raise TypeError(f"got one of {'str' if strings else given.dtype}.")
        return np.array(given, dtype=dtype, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from error


def is_whole(n_steps):
    """Whether numbers of steps are whole but for rounding, element by element."""
    return np.abs(n_steps - np.round(n_steps)) <= 1e-9 * np.maximum(n_steps, 1)


def times_rows(rows, matrix):
    """``rows @ matrix.T``, in which every row is rounded alike.

    Of rows in memory, MKL rounds those that do not begin where a vector does differently; columns
    it rounds alike, wherever they stand.
    """
    return (matrix @ rows.mT).mT


def in_blocks(function, *arrays, rows=64):
    """Apply a function of tensors to blocks of exactly `rows` rows, and join the results.

    Matrix products of different shapes round differently, so the result of a row would
    depend on how many rows stand beside it. With blocks of one size (the last one filled up
    with copies of its last row) it does not, unless the library also rounds the rows of one
    product differently: see `times_rows`.
    """
    results = []
    for start in range(0, len(arrays[0]), rows):
        blocks = [x[start : start + rows] for x in arrays]
        size = len(blocks[0])
        filled = [np.concatenate([x, np.repeat(x[-1:], rows - size, axis=0)]) for x in blocks]
        with on_cpu():
            results.append(function(*map(torch.from_numpy, filled))[:size].numpy())
    return np.concatenate(results)


def in_pieces(function, X):
    """Apply to pieces of many rows, and join: what is made on the way is never of all rows."""
    whole = None
    for piece in gen_batches(len(X), PIECE):
        found = function(X[piece])
        if whole is None:
            whole = np.empty((len(X), *found.shape[1:]), found.dtype)
        whole[piece] = found
    return whole


def state_of(part):
    """What a part of a training needs to go on, as arrays, numbers and names.

    Parts are modules, optimisers, schedules, generators, lists of tensors, objects with `state` and
    `restore`, or a pair of functions that are these.
    """
    if isinstance(part, torch.Generator):
        return part.get_state().numpy()
    if isinstance(part, list):
        return [value.detach().cpu().numpy().copy() for value in part]
    if isinstance(part, tuple):
        return part[0]()
    return _as_arrays(part.state_dict()) if hasattr(part, "state_dict") else part.state()


def restore(part, state):
    """Set a part to what :func:`state_of` gave."""
    if isinstance(part, torch.Generator):
        part.set_state(torch.from_numpy(state))
    elif isinstance(part, list):
        with torch.no_grad():
            for value, array in zip(part, state, strict=True):
                value.copy_(torch.from_numpy(array))
    elif isinstance(part, tuple):
        part[1](state)
    elif hasattr(part, "state_dict"):
        part.load_state_dict(_as_tensors(state))
    else:
        part.restore(state)


def _as_arrays(value):
    if torch.is_tensor(value):
        return value.detach().cpu().numpy().copy()
    if isinstance(value, Mapping):
        return {name: _as_arrays(one) for name, one in value.items()}
    return type(value)(map(_as_arrays, value)) if type(value) in (list, tuple) else value


def _as_tensors(value):
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {name: _as_tensors(one) for name, one in value.items()}
    return type(value)(map(_as_tensors, value)) if type(value) in (list, tuple) else value


class Minibatches:
    """Endless batches of one size: the samples in random order, then in another.

    Attributes
    ----------
    rest : ndarray of int
        Samples of the present order that are still to come.
    """

    def __init__(self, n_samples, batch_size, rng):
        self.n_samples, self.size, self.rng = n_samples, min(batch_size, n_samples), rng
        self.rest = np.empty(0, dtype=int)

    def state(self):
        return self.rest

    def restore(self, state):
        self.rest = state

    def __next__(self):
        while len(self.rest) < self.size:
            self.rest = np.concatenate([self.rest, self.rng.permutation(self.n_samples)])
        batch, self.rest = self.rest[: self.size], self.rest[self.size :]
        return torch.from_numpy(batch)


def learning_rate(settings, done):
    """Rate after the share `done` of training."""
    if settings.learning_rate == "constant":
        return settings.learning_rate_init
    return settings.learning_rate_init * falling(done)


@dataclass(frozen=True)
class Patience:
    """When to stop, by scores of which greater ones are better."""

    n_iter_no_change: int  # scores without progress
    tol: float  # what is progress

    def exhausted(self, scores):
        n = self.n_iter_no_change
        return len(scores) > n and max(scores[-n:]) <= max(scores[:-n]) + self.tol


def falling(done):
    """From 1 to 0 along half a cosine, after the share `done`."""
    return (1 + math.cos(math.pi * done)) / 2


def draw_parameters(module, rng, dtype):
    """Give layers parameters with the law of torch's.

    Torch itself draws them from a generator that all threads share, and in a dtype that users may
    set.
    """
    for layer in module.modules():
        own = dict(layer.named_parameters(recurse=False))
        for name, empty in own.items():
            bound = own["weight"][0].numel() ** -0.5
            values = torch.from_numpy(rng.uniform(-bound, bound, tuple(empty.shape)))
            setattr(layer, name, torch.nn.Parameter(values.to(dtype)))


def labels_and_weights(labels, weights):
    """Integer labels and weights, arrays of one shape, as one tensor of targets.

    Weights stand beside labels on a last axis, unless all are 1: then there are labels alone.
    """
    labels, weights = torch.from_numpy(labels), torch.from_numpy(weights.astype(np.float32))
    return labels if (weights == 1).all() else torch.stack([labels, weights], -1)


def loss_of_labels(logits, targets):
    """Mean of the weighted cross-entropies: not over a sum of weights, as theirs is 1 per target.

    That would prefer batches of small weights.
    """
    logits = logits.flatten(0, -2)
    if not targets.is_floating_point():
        return cross_entropy(logits, targets.flatten())
    labels, weights = targets.flatten(0, -2).unbind(-1)
    return (weights * cross_entropy(logits, labels.long(), reduction="none")).mean()


def chance_of_labels(targets):
    """Loss of the (weighted) frequencies of the classes, whatever the input."""
    labels, weights = targets.flatten(), None
    if targets.is_floating_point():
        labels, weights = targets.double().flatten(0, -2).unbind(-1)
    counts = labels.long().bincount(weights)
    shares = counts / counts.sum()
    scale = 1.0 if weights is None else weights.mean()
    return float(-scale * (shares * shares.clamp_min(1e-12).log()).sum())


@contextmanager
def until_interrupted():
    """Training that Ctrl-C ends: what has been learned is kept, as in the SSN estimators."""
    try:
        yield
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", ConvergenceWarning, stacklevel=4)


def check_trained(parameters, learning_rate_init):
    """Raise FloatingPointError unless all are finite: the loss does not tell of the last step."""
    if not all(bool(torch.isfinite(value).all()) for value in parameters):
        raise FloatingPointError(
            "training left no finite parameters; lower learning_rate_init (now "
            f"{learning_rate_init:g})."
        )


def check_parameters(parameters, wanted):
    """Raise ValueError unless arrays are finite and of the names and shapes of tensors."""
    shapes = {name: tuple(value.shape) for name, value in wanted.items()}
    found = {name: np.shape(value) for name, value in parameters.items()}
    if found != shapes:
        raise ValueError(f"parameters must be of shapes {shapes}, got {found}.")
    if not all(np.isfinite(value).all() for value in parameters.values()):
        raise ValueError("parameters must be finite.")
