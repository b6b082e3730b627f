"""Ornstein-Uhlenbeck noise by its exact update, whatever the time step."""

import math

import torch

__all__ = ["ou_chunks"]


def ou_chunks(shape, sizes, dt, tau_eta, generator, dtype):
    r"""Independent, unit-variance OU processes in consecutive chunks of time.

    The update :math:`z' = e^{-dt/\tau} z + \sqrt{1 - e^{-2dt/\tau}} \xi` is exact: the samples
    have the stationary variance 1 and the correlation :math:`e^{-t/\tau}` at any `dt`, from
    the first one on. They do not depend on how time is cut into chunks.

    Parameters
    ----------
    shape : tuple of int
        Shape of the noise at one time.
    sizes : iterable of int
        Number of steps of each chunk.
    dt, tau_eta : float
        Time step and correlation time in ms.
    generator : torch.Generator
        Source of randomness; its device is the noise's.
    dtype : torch.dtype
        Of the noise.

    Yields
    ------
    chunk : Tensor of shape (size + 1, *shape)
        The last sample is the first of the next chunk, because a scheme of second order
        looks one sample ahead.
    """
    decay = math.exp(-dt / tau_eta)
    kick = math.sqrt(1 - decay**2)
    last = torch.empty(shape, dtype=dtype, device=generator.device).normal_(generator=generator)
    for size in sizes:
        chunk = torch.empty((size + 1, *shape), dtype=dtype, device=generator.device)
        chunk[0] = last
        for t in range(size):
            chunk[t + 1].normal_(generator=generator).mul_(kick).add_(chunk[t], alpha=decay)
        last = chunk[-1].clone()
        yield chunk
