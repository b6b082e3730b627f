"""Initial recurrent weights by their structure, all brought to one norm if wanted."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    RANDOM,
    Interval,
    StrOptions,
    check_array,
    validate_params,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from ssn_estimators._typing import ArrayLike, RandomState

__all__ = ["block_init", "dale_init", "from_connectivity", "low_rank_init", "with_inhibition"]

GAIN = 1.25
SHARE = [Interval(Real, 0, 1, closed="neither")]
NORM = [StrOptions({"fro", "spectral"}), None]


@validate_params(
    n=COUNT, rank=COUNT, excitatory=[*SHARE, None], gain=POSITIVE, norm=NORM, random_state=RANDOM
)
def low_rank_init(
    n: int,
    rank: int,
    *,
    excitatory: float | None = None,
    gain: float = GAIN,
    norm: Literal["fro", "spectral"] | None = "fro",
    random_state: RandomState = None,
) -> np.ndarray:
    r"""Weights of low rank: normal ones reduced to their leading singular directions.

    Under Dale's law these would not do. Magnitudes are then products of two matrices of absolute
    normal numbers, n by `rank` and `rank` by n.

    Parameters
    ----------
    n : int
        Number of cells.
    rank : int
        Rank of the weights; n keeps the normal matrix, or, under Dale's law, its magnitudes.
    excitatory : float, default=None
        Share of E cells, the first ones, for weights that obey Dale's law and in which
        inhibition is scaled up by the ratio of E to I cells, as in :func:`dale_init`. For an
        :class:`SSNClassifier`.
    gain : float, default=1.25
        Weights have a standard deviation of :math:`gain / \sqrt n` before.
    norm : {"fro", "spectral", None}, default="fro"
        What is restored after: the Frobenius norm, the spectral radius, or nothing.
    random_state : int, RandomState instance or None, default=None
        Source of the weights.

    Returns
    -------
    weights : ndarray of shape (n, n)

    References
    ----------
    .. [1] Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2024). How connectivity
       structure shapes rich and lazy learning in neural circuits. ICLR.
    """
    if rank > n:
        raise ValueError(f"rank must be an integer between 1 and n={n}, got {rank!r}.")
    rng = check_random_state(random_state)
    weights = gain * rng.standard_normal((n, n)) / np.sqrt(n)
    if excitatory is not None:
        magnitudes = np.abs(weights)
        if rank < n:
            left, right = np.abs(rng.standard_normal((2, n, rank)))
            magnitudes = left @ right.T
        return _scaled_to(weights, magnitudes * _signs(n, excitatory, balanced=True), norm)
    if rank == n:
        return weights
    left, values, right = np.linalg.svd(weights)
    return _scaled_to(weights, (left[:, :rank] * values[:rank]) @ right[:rank], norm)


def _signs(n, excitatory, *, balanced):
    """Of presynaptic cells; under balance those of I cells are as large as cells are rare."""
    n_excitatory = round(excitatory * n)
    if not 0 < n_excitatory < n:
        raise ValueError(
            f"excitatory={excitatory} leaves {n_excitatory} E cells of {n}; both kinds are needed."
        )
    ratio = n_excitatory / (n - n_excitatory) if balanced else 1.0
    return np.where(np.arange(n) < n_excitatory, 1.0, -ratio)


@validate_params(
    n=COUNT, excitatory=SHARE, balanced=["boolean"], gain=POSITIVE, norm=NORM, random_state=RANDOM
)
def dale_init(
    n: int,
    *,
    excitatory: float = 0.8,
    balanced: bool = True,
    gain: float = GAIN,
    norm: Literal["fro", "spectral"] | None = "fro",
    random_state: RandomState = None,
) -> np.ndarray:
    r"""Normal weights made to obey Dale's law: the columns of E cells positive, of I negative.

    Parameters
    ----------
    n : int
        Number of cells.
    excitatory : float, default=0.8
        Share of E cells, the first ones.
    balanced : bool, default=True
        Whether inhibition is scaled up by the ratio of E to I cells, so that the expected sum
        of a row is 0. Otherwise an eigenvalue far outside of the others is left.
    gain : float, default=1.25
        Weights have a root mean square of about :math:`gain / \sqrt n`.
    norm : {"fro", "spectral", None}, default="fro"
        What is made that of independent normal weights: the Frobenius norm, the spectral
        radius, or nothing.
    random_state : int, RandomState instance or None, default=None
        Source of the weights.

    Returns
    -------
    weights : ndarray of shape (n, n)
    """
    signs = _signs(n, excitatory, balanced=balanced)
    free = gain * check_random_state(random_state).standard_normal((n, n)) / np.sqrt(n)
    return _scaled_to(free, np.abs(free) * signs, norm)


@validate_params(
    sizes=["array-like"], signs=["array-like"], norm=[*POSITIVE, None], random_state=RANDOM
)
def block_init(
    sizes: Sequence[int],
    probability: ArrayLike,
    mean: ArrayLike,
    deviation: ArrayLike,
    signs: Sequence[int],
    *,
    norm: float | None = None,
    random_state: RandomState = None,
) -> np.ndarray:
    r"""Weights between cell types: each is there by chance, of a log-normal size.

    Parameters
    ----------
    sizes : sequence of int
        Cells of each of the types.
    probability : array-like of shape (n_types, n_types)
        That a weight [post, pre] is not 0.
    mean, deviation : array-like of shape (n_types, n_types)
        Mean and standard deviation of the logarithms of the weights.
    signs : sequence of {-1, 1}
        Sign of each presynaptic type.
    norm : float, default=None
        Frobenius norm to scale to.
    random_state : int, RandomState instance or None, default=None
        Source of the weights.

    Returns
    -------
    weights : ndarray of shape (sum(sizes), sum(sizes))
    """
    n_types, rng = len(sizes), check_random_state(random_state)
    if not all(isinstance(size, Integral) and size >= 0 for size in sizes) or not sum(sizes):
        raise ValueError(f"sizes must be numbers of cells, some of them above 0, got {sizes!r}.")
    tables = {"probability": probability, "mean": mean, "deviation": deviation}
    tables = {name: np.asarray(table, float) for name, table in tables.items()}
    for name, table in tables.items():
        if table.shape != (n_types, n_types):
            raise ValueError(
                f"{name} must have shape ({n_types}, {n_types}) for {n_types} types, got "
                f"{table.shape}."
            )
        if not np.isfinite(table).all():
            raise ValueError(f"{name} must be finite, got {table.tolist()}.")
    if ((tables["probability"] < 0) | (tables["probability"] > 1)).any():
        raise ValueError("probability must lie between 0 and 1.")
    if (tables["deviation"] < 0).any():
        raise ValueError("deviation must not be negative.")
    if len(signs) != n_types or not set(signs) <= {-1, 1}:
        raise ValueError(f"signs must be -1 or 1 for each of {n_types} types, got {signs!r}.")
    kind = np.repeat(np.arange(n_types), sizes)
    p, m, s = (table[kind][:, kind] for table in tables.values())
    there = rng.random_sample(p.shape) < p
    weights = there * np.exp(m + s * rng.standard_normal(p.shape)) * np.asarray(signs)[kind]
    return weights if norm is None else _of_norm(weights, norm)


@validate_params(n=[*COUNT, None], center=["boolean"], norm=[*POSITIVE, None], random_state=RANDOM)
def from_connectivity(
    connectivity: ArrayLike,
    n: int | None = None,
    *,
    signs: ArrayLike | None = None,
    center: bool = False,
    norm: float | None = None,
    random_state: RandomState = None,
) -> np.ndarray:
    """Weights of a measured network, or of some of its cells.

    Parameters
    ----------
    connectivity : array-like of shape (n_cells, n_cells)
        Weights or numbers of synapses, [post, pre].
    n : int, default=None
        Cells to choose at random; None takes all.
    signs : array-like of shape (n_cells,), default=None
        Signs of the presynaptic cells, by which the magnitudes are multiplied; None leaves the
        matrix as it is.
    center : bool, default=False
        Whether to subtract the mean.
    norm : float, default=None
        Frobenius norm to scale to.
    random_state : int, RandomState instance or None, default=None
        Source of the choice.

    Returns
    -------
    weights : ndarray of shape (n, n)
    """
    weights = _square(connectivity, "connectivity")
    n = len(weights) if n is None else n
    if n > len(weights):
        raise ValueError(f"n must be between 1 and the {len(weights)} cells there are, got {n!r}.")
    if signs is not None:
        signs = np.asarray(signs, float)
        if signs.shape != (len(weights),):
            raise ValueError(f"signs must have shape ({len(weights)},), got {signs.shape}.")
        weights = np.abs(weights) * np.sign(signs)
    chosen = np.sort(check_random_state(random_state).choice(len(weights), n, replace=False))
    weights = weights[np.ix_(chosen, chosen)]
    if center:
        weights = weights - weights.mean()
    return weights if norm is None else _of_norm(weights, norm)


@validate_params(n_inhibitory=COUNT, balance=NOT_NEGATIVE, norm=[*POSITIVE, None])
def with_inhibition(
    excitation: ArrayLike, n_inhibitory: int, *, balance: float = 1.0, norm: float | None = None
) -> np.ndarray:
    """Weights of a circuit from those among its E cells, with I cells that all E cells share.

    Every I cell gets the same input from all E cells, together as much as an E cell gets on
    average. Every cell gets as much inhibition, the same from all I cells, as `balance` times its
    excitation.

    Parameters
    ----------
    excitation : array-like of shape (n_excitatory, n_excitatory)
        Weights among E cells, [post, pre], not negative: such as the positive part of
        :meth:`LateralContext.connectivity`.
    n_inhibitory : int
        Number of I cells.
    balance : float, default=1.0
        Ratio of summed inhibitory to excitatory weights of every cell.
    norm : float, default=None
        Frobenius norm to scale to.

    Returns
    -------
    weights : ndarray of shape (n_excitatory + n_inhibitory, n_excitatory + n_inhibitory)
        For ``init=`` of :class:`SSNClassifier`.

    Examples
    --------
    >>> from ssn_estimators import with_inhibition
    >>> with_inhibition([[0, 2], [4, 0]], 1)
    array([[ 0. ,  2. , -2. ],
           [ 4. ,  0. , -4. ],
           [ 1.5,  1.5, -3. ]])
    """
    excitation = _square(excitation, "excitation")
    n = len(excitation)
    if excitation.min() < 0:
        raise ValueError("excitation has negative weights; take its positive part.")
    to_all = np.vstack([excitation, np.full((n_inhibitory, n), excitation.sum(1).mean() / n)])
    back = np.repeat(-balance * to_all.sum(1, keepdims=True) / n_inhibitory, n_inhibitory, 1)
    weights = np.hstack([to_all, back])
    return weights if norm is None else _of_norm(weights, norm)


def initial_matrix(init, n, rng):
    """The matrix that a parameter `init` stands for."""
    weights = check_array(init(n, rng) if callable(init) else init, dtype=float, input_name="init")
    if weights.shape != (n, n):
        raise ValueError(f"init must have shape ({n}, {n}), got {weights.shape}.")
    return weights


def _square(weights, name):
    weights = check_array(weights, dtype=float, input_name=name)
    if weights.shape[0] != weights.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {weights.shape}.")
    return weights


def _scaled_to(like, weights, norm):
    if norm is None:
        return weights
    if norm == "fro":
        return _of_norm(weights, np.linalg.norm(like))
    wanted, found = (np.abs(np.linalg.eigvals(w)).max() for w in (like, weights))
    return weights * (wanted / found)


def _of_norm(weights, norm):
    size = np.linalg.norm(weights)
    if size == 0:
        raise ValueError("weights are all 0 and have no size to scale.")
    return weights * (norm / size)
