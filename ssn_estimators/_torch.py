"""Small helpers around torch that every estimator shares."""

import math

import numpy as np
import torch

__all__ = ["in_blocks", "learning_rate", "minibatches", "resolve_device"]


def resolve_device(device):
    """`device`, with "auto" as the GPU where there is one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used here: {error}") from error
    return device


def in_blocks(function, *arrays, rows=64):
    """Apply a function of tensors to blocks of exactly `rows` rows, and join the results.

    Matrix products of different shapes round differently, so the result of a row would
    depend on how many rows stand beside it. With blocks of one size (the last one filled up
    with copies of its last row) it does not, unless the library also rounds the rows of one
    product differently, as OpenBLAS and MKL do on some processors.
    """
    results = []
    for start in range(0, len(arrays[0]), rows):
        blocks = [x[start : start + rows] for x in arrays]
        size = len(blocks[0])
        filled = [np.concatenate([x, np.repeat(x[-1:], rows - size, axis=0)]) for x in blocks]
        results.append(function(*map(torch.from_numpy, filled))[:size].numpy())
    return np.concatenate(results)


def minibatches(n_samples, batch_size, rng):
    """Endless batches of one size: the samples in random order, then in another."""
    size = min(batch_size, n_samples)
    rest = np.empty(0, dtype=int)
    while True:
        while len(rest) < size:
            rest = np.concatenate([rest, rng.permutation(n_samples)])
        yield torch.from_numpy(rest[:size])
        rest = rest[size:]


def learning_rate(settings, done):
    """Rate after the share `done` of training."""
    if settings.learning_rate == "constant":
        return settings.learning_rate_init
    return settings.learning_rate_init * (1 + math.cos(math.pi * done)) / 2
