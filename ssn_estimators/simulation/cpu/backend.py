"""Which loops over time run: those that Numba compiles, where it is installed, or plain ones."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from types import ModuleType

import numpy as np
import torch

from ssn_estimators.simulation.cpu import loops as plain

try:
    from ssn_estimators.simulation.cpu import compiled
except ImportError:  # Numba comes with an extra
    compiled = None

__all__ = ["Arrays", "arrays", "compiled", "plain"]


@dataclass(frozen=True)
class Arrays:
    """Loops, and the arrays that they work on: NumPy's if they are compiled, else tensors."""

    loops: ModuleType
    empty: Callable  # of a shape
    zeros: Callable
    array: Callable  # of a tensor
    tensor: Callable  # of an array
    number: Callable  # of a float
    repeat: Callable  # every number of an array so often, along an axis

    @property
    def compiled(self):
        return self.loops is not plain


def arrays(dtype, device, only_plain=False):
    """The loops and arrays in which to simulate circuits of tensors of this kind."""
    return _arrays(dtype, torch.device(device), None if only_plain else compiled)


@lru_cache(64)
def _arrays(dtype, device, compiled):
    if compiled is None or device.type != "cpu":
        kind = {"dtype": dtype, "device": device}
        new = partial(torch.empty, **kind), partial(torch.zeros, **kind)
        return Arrays(plain, *new, lambda x: x, lambda x: x, float, torch.repeat_interleave)
    dtype = torch.empty(0, dtype=dtype).numpy().dtype
    new = partial(np.empty, dtype=dtype), partial(np.zeros, dtype=dtype)
    return Arrays(compiled, *new, torch.Tensor.numpy, torch.from_numpy, dtype.type, np.repeat)
