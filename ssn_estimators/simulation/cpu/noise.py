"""Ornstein-Uhlenbeck noise by its exact update, from a generator made for whole arrays."""

import math
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from ssn_estimators.simulation.cpu import backend

__all__ = ["LaggedFibonacci", "OrnsteinUhlenbeck"]

PIECE = 1024  # numbers that are made at once, in the nearest cache
UNIT = (1 - 2**-24) * 2.0**-31  # of integers, so that float32 stays inside (-1, 1)
WEAK_SHARE = 42 / 256  # of bytes below -86, and of those above 85: +-1, the others 0


class LaggedFibonacci:
    r"""Random bits by :math:`x_n = x_{n-1279} + x_{n-418} \bmod 2^{32}`, many at a time.

    Library generators make one number after the other, and at the speed of a small circuit's
    matrix products that is what a simulation would wait for. This recurrence [1]_ needs one
    vectorised addition for 418 steps of all lanes. Lanes are independent sequences, filled
    from NumPy's SFC64. Numbers are independent in pairs; the three of the recurrence are not
    in threes, which moments of second order do not see.

    Parameters
    ----------
    n_words : int
        Number of words wanted at a time; decides how many lanes are worth it.
    seed : sequence of int
        Entropy for NumPy's SeedSequence.
    device : torch.device or str, default="cpu"
        Where the numbers are made.

    References
    ----------
    .. [1] Knuth (1997). The Art of Computer Programming 2, section 3.2.2. Lags as in
       Mascagni & Srinivasan (2000), SPRNG. ACM TOMS 26, 436-461.
    """

    LONG, SHORT, MAX_LANES = 1279, 418, 8

    def __init__(self, n_words, seed, device="cpu"):
        lanes = min(self.MAX_LANES, -(-n_words // self.LONG))
        raw = np.random.SFC64(np.random.SeedSequence(seed)).random_raw(self.LONG * lanes)
        self.words = raw.astype(np.uint32).view(np.int32).reshape(self.LONG, lanes)
        self.device = device
        self.n_read = np.array([self.words.nbytes])  # an array, for the compiled loops

    @cached_property
    def table(self):
        """The words on the device; on the CPU, where compiled loops use them, the same memory."""
        return torch.from_numpy(self.words).to(self.device)

    def state(self):
        return self.table.clone(), self.n_read.copy()

    def restore(self, state):
        self.table.copy_(state[0])
        self.n_read[:] = state[1]

    def read(self, out, dtype):
        """Fill the flat tensor `out` with the next integers of `dtype`."""
        size, start = dtype.itemsize, 0
        numbers = self.table.view(-1).view(dtype)
        while start < len(out):
            if self.n_read[0] == numbers.numel() * size:
                self._refill()
            first = int(self.n_read[0]) // size
            n = min(len(out) - start, numbers.numel() - first)
            out[start : start + n].copy_(numbers[first : first + n])
            start += n
            self.n_read += n * size

    def _refill(self):
        # x[n - 418] is in the last table for the first rows, then in this one
        self.table[: self.SHORT] += self.table[self.LONG - self.SHORT :]
        for start, stop in pairwise((*range(self.SHORT, self.LONG, self.SHORT), self.LONG)):
            self.table[start:stop] += self.table[start - self.SHORT : stop - self.SHORT]
        self.n_read[:] = 0


class OrnsteinUhlenbeck:
    r"""Independent stationary Ornstein-Uhlenbeck processes, some steps at a time.

    The update :math:`z' = e^{-dt/\tau} z + \sqrt{1 - e^{-2dt/\tau}} \xi` is exact: the
    process has the stationary variance 1 and the correlation :math:`e^{-t/\tau}` at any `dt`,
    from the first value on.

    Parameters
    ----------
    shape : tuple of int
        Shape of the noise at one time.
    dt, tau_eta : float
        Time step and correlation time in ms.
    seed : sequence of int
        Seed of the generator.
    increments : {"gaussian", "weak"}
        Law of :math:`\xi`. "weak" are three-point variables with the mean, variance and
        skewness of normal ones and a kurtosis of 3.05, as in weak schemes of second order
        [1]_; the start is normal in either case.
    dtype, device
        Kind of the noise.
    only_plain : bool, default=False
        Whether the loops are not to be the compiled ones.

    Attributes
    ----------
    compiled : tuple
        What `compiled.ornstein_uhlenbeck` takes besides the path, if that is used.

    References
    ----------
    .. [1] Kloeden & Platen (1992). Numerical Solution of Stochastic Differential Equations,
       section 14.2.
    """

    def __init__(self, shape, dt, tau_eta, seed, increments, dtype, device="cpu", only_plain=False):
        n = math.prod(shape)
        self.shape, self.weak = shape, increments == "weak"
        self.generator = LaggedFibonacci(16 * n, seed, device)
        self.decay = math.exp(-dt / tau_eta)
        # variance of an increment as it is made
        variance = 2 * WEAK_SHARE if self.weak else 0.5
        self.kick = math.sqrt(-math.expm1(-2 * dt / tau_eta) / variance)
        self.arrays = backend.arrays(dtype, device, only_plain)
        self.now = self.arrays.empty(n)
        if self.arrays.compiled:
            self.compiled = (
                self.now,
                self.generator.words.reshape(-1),
                self.generator.n_read,
                np.empty((4, PIECE), np.float32),
                self.arrays.number(self.decay),
                self.arrays.number(self.kick),
                self.weak,
            )
            self.arrays.loops.start_process((*self.compiled[:-1], False))
        else:
            self._gaussian(self.now).mul_(math.sqrt(2))

    def begin_at(self, values):
        """Take other values, of shape `shape` or one that can be viewed as it, as the first."""
        self.now[:] = self.arrays.array(values.reshape(-1).contiguous())

    def advance(self, n_steps):
        """Go on by some steps; values before, between and after them.

        Returns
        -------
        path : array of shape (n_steps + 1, *shape)
            An array of the kind that the loops work on.
        """
        path = self.arrays.empty((n_steps + 1, len(self.now)))
        if self.arrays.compiled:
            self.arrays.loops.ornstein_uhlenbeck(path, self.compiled)
        else:
            path[0] = self.now
            self._increments(path[1:].view(-1))
            for last, new in pairwise(path):
                new.mul_(self.kick).add_(last, alpha=self.decay)
            self.now.copy_(path[-1])
        return path.reshape(-1, *self.shape)

    def state(self):
        return self.generator.state(), self.now * 1

    def restore(self, state):
        self.generator.restore(state[0])
        self.now[:] = state[1]

    def _increments(self, new):
        if not self.weak:
            self._gaussian(new)
            return
        integers = torch.empty(len(new), dtype=torch.int8, device=new.device)
        self.generator.read(integers, torch.int8)
        inside = integers.clamp(-86, 85)
        new.copy_(torch.sub(integers, inside, out=inside).sign_())

    def _gaussian(self, out):
        """Normal numbers of variance 1/2, by inversion."""
        self.generator.read(out, torch.int32)
        return torch.erfinv(out.mul_(UNIT), out=out)
