"""Types that signatures share; for type checkers and editors, nothing imports it when code runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike
from scipy.sparse import sparray, spmatrix

if TYPE_CHECKING:
    from ssn_estimators.base import BaseSSN
    from ssn_estimators.circuit import Circuit

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
    "SequenceParameters",
    "Signal",
    "Solver",
    "SparseLike",
    "StrPath",
    "SupervisedParameters",
]

Estimator = TypeVar(
    "Estimator", bound="BaseSSN"
)  # what a function returns of the kind that it gets

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


class SupervisedParameters(TypedDict, total=False):
    """The keywords of `SupervisedSSN`, which its subclasses pass on."""

    input_weights: Literal["auto", "dense", "one_to_one"]
    weight_structure: Literal["circulant", "gaussian_ring"] | None
    growth: Literal["double", "single"] | None
    init: ArrayLike | Function | None
    growth_iter: int
    parents: Literal["last", "random", "gradient", "output"] | Function
    clone_shares: Literal["random", "equal"]
    k: float
    gamma: float
    tau_e: float
    tau_i: float
    tau_eta: float
    solver: Solver
    dt: float
    dt_training: float | Literal["auto"] | None
    burn_in: float
    window: float
    n_trials: int
    n_trials_predict: int
    shared_noise: bool
    precision: Literal["float32", "tf32"]
    trainer: Literal["bptt", "es"]
    es_samples: int
    es_sigma: float
    max_iter: int
    batch_size: int
    learning_rate: Literal["cosine", "constant"]
    learning_rate_init: float
    max_grad_norm: float
    input_noise: float | Literal["auto"]
    potential_penalty: float
    stability_penalty: float
    max_rejected_steps: int
    out_of_range: Literal["clip", "warn", "raise"]
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    tol: float
    warm_start: bool
    device: str
    random_state: RandomState
    verbose: bool | int


class SequenceParameters(TypedDict, total=False):
    """The keywords of `SequenceSSN`, which its subclasses pass on."""

    time_step: float
    input_share: float
    output_share: float
    growth: Literal["double", "single"] | None
    initial: Circuit | None
    growth_iter: int
    parents: Literal["last", "random", "gradient", "output"] | Function
    clone_shares: Literal["random", "equal"]
    k: float
    gamma: float
    tau_e: float
    tau_i: float
    tau_eta: float
    solver: Solver
    dt: float | Sequence[float]
    burn_in: float
    truncation: float | None
    skip: float | None
    skip_share: float | Sequence[float]
    skip_from: Literal["state", "tangent"]
    n_trials_predict: int
    max_iter: int
    batch_size: int
    learning_rate: Literal["cosine", "constant"]
    learning_rate_init: float
    max_grad_norm: float
    input_noise: float
    potential_penalty: float
    rate_penalty: float
    weight_penalty: float
    max_rejected_steps: int
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    tol: float
    warm_start: bool
    device: str
    random_state: RandomState
    verbose: bool | int
