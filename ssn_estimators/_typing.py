"""Types that signatures share; for type checkers and editors, nothing imports it when code runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike
from scipy.sparse import sparray, spmatrix

__all__ = [
    "AnyArray",
    "Array",
    "ArrayLike",
    "Bounds",
    "ClassWeight",
    "Constant",
    "DTypeLike",
    "Decorated",
    "Estimator",
    "Function",
    "Method",
    "RandomState",
    "Record",
    "Signal",
    "Solver",
    "SparseLike",
    "StrPath",
]

Estimator = TypeVar("Estimator")  # what a function returns of the kind that it gets

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

Array: TypeAlias = np.ndarray | torch.Tensor  # what comes back, of the kind that was given
AnyArray: TypeAlias = ArrayLike | torch.Tensor  # what is taken where both are
SparseLike: TypeAlias = ArrayLike | sparray | spmatrix
Constant: TypeAlias = Mapping[str, float] | ArrayLike  # of cells: one, by population, or by cell
Function: TypeAlias = Callable[..., Any]
StrPath: TypeAlias = str | PathLike[str]
RandomState: TypeAlias = int | np.random.RandomState | None
ClassWeight: TypeAlias = Mapping[Any, float] | Literal["balanced"] | None
Bounds: TypeAlias = Mapping[str, tuple[int, int]]  # first step and the one after the last
Signal: TypeAlias = Literal["u", "r", "eta", "final"]
Record: TypeAlias = Signal | Sequence[Signal] | None

# options that several functions have
Solver: TypeAlias = Literal["heun", "ab2", "euler"]
Method: TypeAlias = Literal["simulation", "closure", "moments"]  # the last two are the same
