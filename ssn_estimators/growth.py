"""Dynamics-neutral growth: functions from a circuit to a larger one that behaves the same."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    RANDOM,
    Interval,
    StrOptions,
    validate_params,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from ssn_estimators._typing import ArrayLike, Function, RandomState
    from ssn_estimators.circuit import Circuit

__all__ = ["choose_parents", "gain_of_splits", "shares_of", "split", "stage_sizes"]

SHARES = ("equal", "random")
CONCENTRATION = 0.3  # of the Dirichlet distribution of random shares: mostly one has the most


def split(
    circuit: Circuit,
    parents: ArrayLike,
    *,
    shares: Literal["equal", "random"] = "equal",
    random_state: RandomState = None,
) -> tuple[Circuit, np.ndarray]:
    """Clone cells without changing the dynamics (Eq. 5 of [1]_).

    A clone copies its parent's incoming weights, and the outgoing weights are shared out
    between a parent and its clones. With equal inputs and without noise every cell goes on as
    before.

    A clone gets noise of its own, independent of that of its parent and siblings, with its
    parent's variance. With other cells each of m siblings shares 1 / sqrt(m) of what their parent
    shared with them.

    Parameters
    ----------
    circuit : Circuit
        The circuit to grow.
    parents : sequence of int
        Index of the parent of every clone. A parent named m times is split into m + 1.
    shares : {"equal", "random"}, default="equal"
        How outgoing weights are shared out: equally, as in Eq. 5; or those of inhibitory cells
        in random parts, others for every parent of the cells they lead to. Both leave the
        dynamics as they are, and siblings with equal incoming weights, so that differences
        between them decay. But clones with equal outgoing weights and inputs also get equal
        gradients: but for their noise all inhibitory cells would for ever remain a single one.
        (Excitatory cells in any case share equally. One that kept most of what excites its
        like, and little of what excites inhibition, would run away once its input differs.)
    random_state : int, RandomState instance or None, default=None
        Source of random parts.

    Returns
    -------
    circuit : Circuit
        The larger circuit (NumPy arrays), populations in their order, and in each the old
        cells before their clones, which have their parents' constants.
    origin : ndarray of shape (n_neurons,)
        The index in the old circuit of every cell of the new one.

    Raises
    ------
    ValueError
        If a parent is not a cell of the circuit, or `shares` is not known.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35.

    Examples
    --------
    >>> from ssn_estimators import Circuit, split
    >>> pair = Circuit([[1.0, -2.0], [3.0, -4.0]], n_excitatory=1, noise_factor=1.0)
    >>> grown, origin = split(pair, parents=[1])
    >>> grown.weights
    array([[ 1., -1., -1.],
           [ 3., -2., -2.],
           [ 3., -2., -2.]])
    >>> origin
    array([0, 1, 1])
    """
    circuit, n = circuit.dense("splits").to_numpy(), circuit.n_neurons
    parents = np.asarray(parents)
    if parents.ndim != 1 or (parents.size and parents.dtype.kind not in "iu"):
        raise ValueError(f"parents must be a list of cell indices, got {parents!r}.")
    parents = parents.astype(int)
    if ((parents < 0) | (parents >= n)).any():
        raise ValueError(f"parents must be indices from 0 to {n - 1}, got {parents.tolist()}.")

    groups, populations = [], {}
    for name in circuit.populations:
        cells = np.arange(n)[circuit[name]]
        clones = parents[np.isin(parents, cells)]
        groups += [cells, clones]
        populations[name] = len(cells) + len(clones)
    origin = np.concatenate(groups)
    n_excitatory = int((origin < circuit.n_excitatory).sum())
    parts = shares_of(origin, len(origin), "equal")
    # alike for siblings, which so get the same input, and whose differences go as they came
    parts[:, n_excitatory:] = shares_of(origin[n_excitatory:], n, shares, random_state)[origin]
    weights = (circuit.weights[np.ix_(origin, origin)] * parts).astype(circuit.weights.dtype)
    noise = clone_noise(circuit.noise_factor, origin) if parents.size else circuit.noise_factor
    of_cells = ("k", "gamma") if circuit.rate_function is None else ("k",)
    grown: dict[str, Any] = {
        name: np.broadcast_to(getattr(circuit, name), n)[origin] for name in of_cells
    }
    grown |= {"populations": populations, "tau": circuit.tau[origin]}
    grown |= {"weights": weights, "noise_factor": noise, "n_excitatory": n_excitatory}
    return replace(circuit, **grown), origin


def clone_noise(noise_factor, origin):
    r"""Noise factor of a circuit whose clones have noise of their own.

    Siblings are independent and have their parent's variance. What one of m siblings shares with
    another cell is 1 / sqrt(m) of what the parent shared with it: with the origin o of a cell and
    the number m of its siblings, itself included,

    .. math::
        \Sigma'_{ab} = \Sigma_{o(a) o(b)} / \sqrt{m_a m_b} \quad \text{for } o(a) \ne o(b),
        \qquad \Sigma'_{ab} = \delta_{ab} \, \Sigma_{o(a) o(a)} \quad \text{for } o(a) = o(b),

    which is a covariance for any :math:`\Sigma`.

    Parameters
    ----------
    noise_factor : ndarray of shape (n, n)
        Factor of the covariance before.
    origin : ndarray of int, shape (n_neurons,)
        As :func:`split` returns it.

    Returns
    -------
    noise_factor : ndarray of shape (n_neurons, n_neurons)
        The symmetric root of the covariance: a factor is fixed up to a rotation only.
    """
    shares = 1 / np.sqrt(np.bincount(origin)[origin])
    factor = np.asarray(noise_factor, float)
    before = (factor @ factor.T)[np.ix_(origin, origin)]
    siblings = origin[:, None] == origin
    covariance = np.where(siblings, np.diag(np.diag(before)), before * np.outer(shares, shares))
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    return root.astype(noise_factor.dtype)


def shares_of(origin, n_targets, how="equal", random_state=None):
    """What part of a weight from its origin every cell keeps, by the target of the weight.

    Parameters
    ----------
    origin : ndarray of int, shape (n_neurons,)
        As :func:`split` returns it, or a part of that.
    n_targets : int
        Number of targets.
    how : {"equal", "random"}, default="equal"
        Whether siblings keep equal or random parts.
    random_state : int, RandomState instance or None, default=None
        Source of random parts.

    Returns
    -------
    shares : ndarray of shape (n_targets, n_neurons)
        Those of siblings add up to 1.
    """
    if how not in SHARES:
        raise ValueError(f"shares must be one of {SHARES}, got {how!r}.")
    parts = np.ones((n_targets, len(origin)))
    if how == "random":
        parts = check_random_state(random_state).gamma(CONCENTRATION, size=parts.shape)
    siblings = (origin[:, None] == origin).astype(float)
    return parts / (parts @ siblings)


@validate_params(
    n_excitatory=COUNT, n_inhibitory=COUNT, schedule=[StrOptions({"double", "single"})]
)
def stage_sizes(
    n_excitatory: int, n_inhibitory: int, schedule: Literal["double", "single"]
) -> list[tuple[int, int]]:
    """Population sizes on the way from a pair to the target, its E:I ratio kept throughout.

    Parameters
    ----------
    n_excitatory, n_inhibitory : int
        Target sizes, at least 1.
    schedule : {"double", "single"}
        Whether a stage doubles the circuit or adds one cell to the larger population.

    Returns
    -------
    sizes : list of (int, int)
        Numbers of excitatory and inhibitory cells, from (1, 1) to the target.

    Examples
    --------
    >>> from ssn_estimators import stage_sizes
    >>> stage_sizes(20, 5, "double")
    [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4), (20, 5)]
    """
    target = (n_excitatory, n_inhibitory)
    largest = max(target)
    size = 1
    sizes: list = []
    while True:
        # ceil(target * size / largest) in integers
        sizes.append(tuple(-(-int(x) * size // int(largest)) for x in target))
        if size == largest:
            return sizes
        size = min(2 * size, largest) if schedule == "double" else size + 1


@validate_params(
    n_excitatory=COUNT,
    n_inhibitory=[Interval(Integral, 0, MOST, closed="both")],
    random_state=RANDOM,
)
def choose_parents(
    circuit: Circuit,
    n_excitatory: int,
    n_inhibitory: int,
    how: Literal["last", "random"] | ArrayLike | Function = "last",
    random_state: RandomState = None,
) -> np.ndarray:
    """Parents to split so that the circuit reaches the given sizes.

    Parameters
    ----------
    circuit : Circuit
        The circuit to grow.
    n_excitatory, n_inhibitory : int
        Sizes to reach, not below the present ones.
    how : {"last", "random"}, array-like of shape (n_neurons,) or callable, default="last"
        Which cells of a population: the last ones (as the reference implementation of the
        paper does), a random choice, or those of the largest values of an array, such as
        :func:`gain_of_splits` finds. Every cell is split once before one is split twice.
        A callable gets ``(circuit, n_excitatory, n_inhibitory, random_state)`` and returns
        the parents.
    random_state : int, RandomState instance or None, default=None
        Source of the random choice.

    Returns
    -------
    parents : ndarray of int
        Indices for :func:`split`.
    """
    rng = check_random_state(random_state)
    wanted = (n_excitatory - circuit.n_excitatory, n_inhibitory - circuit.n_inhibitory)
    if min(wanted) < 0:
        raise ValueError(
            f"a circuit of {circuit.n_excitatory}:{circuit.n_inhibitory} cells cannot grow to "
            f"{n_excitatory}:{n_inhibitory}: growth never removes cells."
        )
    if callable(how):
        parents = np.asarray(how(circuit, n_excitatory, n_inhibitory, rng))
        known = np.isin(parents, np.arange(circuit.n_neurons))
        counts = parents.dtype.kind in "iu" or not parents.size
        if parents.ndim != 1 or not counts or not known.all():
            raise ValueError(
                f"a callable must return an array of cells from 0 to {circuit.n_neurons - 1}, the "
                f"parents; got {parents.tolist()}."
            )
        n_clones = int((parents < circuit.n_excitatory).sum())
        if (n_clones, len(parents) - n_clones) != wanted:
            raise ValueError(
                f"parents must name {wanted[0]} excitatory and {wanted[1]} inhibitory cells, "
                f"got {parents.tolist()}; cells from {circuit.n_excitatory} on are inhibitory."
            )
        return parents
    values = None
    if not isinstance(how, str):
        values = np.asarray(how)
        legal = values.shape == (circuit.n_neurons,) and values.dtype.kind in "iuf"
        if not legal or np.isnan(values).any():
            raise ValueError(
                f"parents must be chosen by a number for each of {circuit.n_neurons} cells, "
                f"got {how!r}."
            )
    elif how not in ("last", "random"):
        raise ValueError(f"parents must be 'last', 'random', an array or a callable, got {how!r}.")
    if circuit.n_inhibitory == 0 and wanted[1]:
        raise ValueError("the circuit has no inhibitory cell that could be split.")
    chosen = []
    populations = np.split(np.arange(circuit.n_neurons), [circuit.n_excitatory])
    for cells, n_clones in zip(populations, wanted, strict=True):
        rounds, rest = divmod(n_clones, max(len(cells), 1))
        if values is not None:
            some = cells[np.argsort(-values[cells].astype(float), kind="stable")][:rest]
        elif how == "last":
            some = cells[len(cells) - rest :]
        else:
            some = rng.choice(cells, rest, replace=False)
        chosen += [cells] * rounds + [np.sort(some)]
    return np.concatenate(chosen)


def gain_of_splits(
    weights: ArrayLike, incoming: Sequence[ArrayLike] = (), outgoing: Sequence[ArrayLike] = ()
) -> np.ndarray:
    r"""How much longer the gradient of a loss gets if a cell is split in equal halves.

    A clone's weights onto others have the gradient that those of its parent have, and its
    incoming weights half of it. So the squared length of the gradient, which is how fast the loss
    falls along it, grows by :math:`\sum_j g_{ji}^2 - \frac12 \sum_j g_{ij}^2 - \frac12 g_{ii}^2`.

    Parameters
    ----------
    weights : array-like of shape (n_neurons, n_neurons)
        Gradient g with respect to the weights, [post, pre].
    incoming : sequence of array-like of shape (n_neurons, ...)
        Gradients with respect to other parameters of what a cell receives.
    outgoing : sequence of array-like of shape (n_targets, n_excitatory)
        Gradients with respect to other weights of what E cells send out, such as a readout's.

    Returns
    -------
    gain : ndarray of shape (n_neurons,)

    Raises
    ------
    ValueError
        If a shape is wrong.
    """
    squares, n = _squares(weights), len(np.atleast_1d(weights))
    if squares.shape != (n, n):
        raise ValueError(f"weights must have shape (n_neurons, n_neurons), got {squares.shape}.")
    if any(np.shape(gradient)[:1] != (n,) for gradient in incoming):
        raise ValueError(f"incoming gradients must have a row for each of {n} cells.")
    if any(np.ndim(gradient) != 2 or np.shape(gradient)[1] > n for gradient in outgoing):
        raise ValueError(f"outgoing gradients must have a column for each E cell of {n} cells.")
    gain = squares.sum(0) - squares.sum(1) / 2 - np.diagonal(squares) / 2
    for gradient in incoming:
        gain -= _squares(gradient).reshape(len(gradient), -1).sum(1) / 2
    for gradient in outgoing:
        gain[: np.shape(gradient)[1]] += _squares(gradient).sum(0)
    return gain


def _squares(gradient):
    """In the precision of the gradient; those of integers as floats."""
    gradient = np.asarray(gradient)
    return np.square(gradient if gradient.dtype.kind == "f" else gradient.astype(float))
