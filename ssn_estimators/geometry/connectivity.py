"""Weights by distance, and by difference of preferred orientation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import csr_array, eye_array, hstack, issparse, vstack
from scipy.spatial import cKDTree
from sklearn.utils import gen_batches

from ssn_estimators._sklearn import NOT_NEGATIVE, POSITIVE, StrOptions, validate_params
from ssn_estimators._torch import to_numbers
from ssn_estimators.geometry.profiles import exponential, gaussian, local, von_mises
from ssn_estimators.geometry.space import ORIENTATION_PERIOD, Space, shortest, wrapped

if TYPE_CHECKING:
    from typing import Literal

    from ssn_estimators._typing import ArrayLike, Function, SparseLike

__all__ = [
    "ROUNDING",
    "Pairs",
    "block_of",
    "check_signs",
    "connect",
    "farthest",
    "kernels_by_type",
    "signed",
]

PROFILES = {
    "exponential": exponential,
    "gaussian": gaussian,
    "local": local,
    "von_mises": von_mises,
}
ROUNDING = 1e-9  # of distances, relative to a reach or the extent of a space
MOST_PAIRS = 2**21  # of positions at a time


class Kernel(NamedTuple):
    """Weights of one pair of types."""

    amplitude: float
    width: float
    profile: Callable  # of distances and the width
    feature_width: float  # degrees
    local_share: float


class Pairs(NamedTuple):
    """Pairs of positions that may be connected, arrays of one length."""

    post: np.ndarray  # counted from the first of some positions
    pre: np.ndarray
    distance: np.ndarray
    orientation: np.ndarray | None  # difference, in degrees


@validate_params(
    space=[Space],
    normalize=[StrOptions({"rows", "density"}), None],
    cutoff=NOT_NEGATIVE,
    reach=[*POSITIVE, None],
    sparse=["boolean"],
)
def connect(
    space: Space,
    amplitudes: ArrayLike,
    widths: ArrayLike,
    *,
    profile: str | Function | ArrayLike = "gaussian",
    normalize: Literal["rows", "density"] | None = None,
    feature_widths: ArrayLike | None = None,
    local_share: ArrayLike = 0.0,
    cutoff: float = 0.0,
    reach: float | None = None,
    sparse: bool = False,
) -> np.ndarray | csr_array:
    r"""Weights that fall off with distance, by pairs of types of cells.

    There is a cell of each type at every position of a space. The weights from cells of type b at
    positions j to cells of type a at positions i are

    .. math::
        |W_{ab}| = a_{ab} [p_{ab} I + (1 - p_{ab}) K_{ab}], \qquad
        K_{ab}(i, j) \propto f(d_{ij}, w_{ab}) \exp(-\Delta_{ij}^2 / 2 \sigma_{ab}^2),

    with distances d and differences :math:`\Delta` of preferred orientations. They have no signs
    yet: :func:`signed` gives them.

    Parameters
    ----------
    space : Space
        Where the cells are.
    amplitudes : float or array-like of shape (n_types, n_types)
        a >= 0 by type [post, pre]. Here and below, a number holds for all pairs of types; if there
        are numbers only, there is one type.
    widths : float or array-like of shape (n_types, n_types)
        w > 0 in the unit of the space, or in radians for the profile "von_mises". What a "local"
        profile does not need may be 0.
    profile : str, callable or array-like of shape (n_types, n_types), default="gaussian"
        Profile f, with 1 at distance 0:

        - "gaussian": :math:`\exp(-d^2 / 2 w^2)`;
        - "exponential": :math:`\exp(-d / w)`;
        - "von_mises": :math:`\exp((\cos(2 \pi d / \mathrm{period}) - 1) / w^2)`, on rings only;
        - "local": 1 at distance 0, and 0 elsewhere;
        - a function of an array of distances and a width that returns as many numbers >= 0.
    normalize : {"rows", "density"} or None, default=None
        What is done to K:

        - None: nothing, so that a weight at distance 0 is the amplitude;
        - "rows": rows sum to 1, so that an amplitude is the sum of the weights of one type onto a
          cell, also at a border. A row without connections stays 0;
        - "density": division by the number of positions, so that sums over many positions do not
          depend on their number.
    feature_widths : float or array-like of shape (n_types, n_types), default=None
        :math:`\sigma > 0` in degrees, infinite for pairs of types that do not care. None means
        that no pair does.
    local_share : float or array-like of shape (n_types, n_types), default=0.0
        Share p of the weights that stay at the same position, from 0 to 1.
    cutoff : float, default=0.0
        Entries of K below are dropped before it is normalised.
    reach : float, default=None
        Farthest distance with a connection, in the unit of the space; None for any.
    sparse : bool, default=False
        Whether to return a sparse matrix. With a `reach`, nothing is made on the way that is as
        large as a dense one.

    Returns
    -------
    weights : ndarray or csr_array of shape (n_types * n_positions, n_types * n_positions)
        Magnitudes W[post, pre], in mV s where amplitudes are. All cells of the first type come
        first, in the order of the positions.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite or out of range, there is no such profile or
        normalisation, "von_mises" is not on a ring, or there are `feature_widths` where the space
        has no orientation.

    Notes
    -----
    Published circuits have different conventions. Rings of [1]_: amplitudes of
    :math:`\pi J` and ``normalize="density"``. Rings and lines of [2]_: amplitudes by cell, on
    lines with "local" inhibition. Rings of [3]_: "von_mises" and ``normalize="rows"``. Sheets of
    [4]_: "exponential" excitation with a `local_share`, "gaussian" inhibition, `feature_widths`,
    a `cutoff` and ``normalize="rows"``.

    References
    ----------
    .. [1] Ahmadian, Rubin & Miller (2013). Neural Computation 25, 1994-2037.
    .. [2] Rubin, Van Hooser & Miller (2015). Neuron 85, 402-417.
    .. [3] Hennequin, Ahmadian, Rubin, Lengyel & Miller (2018). Neuron 98, 846-860.
    .. [4] Holt, Miller & Ahmadian (2024). PLOS Computational Biology 20, e1012190.

    Examples
    --------
    The ring of [2]_:

    >>> from ssn_estimators.geometry import connect, ring, signed
    >>> W = connect(ring(180, 180.0), [[0.044, 0.023], [0.042, 0.018]], 32.0)
    >>> W = signed(W, [1, -1])
    >>> W.shape
    (360, 360)
    >>> W[0, :180].sum().round(3), W[0, 180:].sum().round(3)
    (np.float64(3.512), np.float64(-1.836))
    """
    kernels = kernels_by_type(space, amplitudes, widths, profile, feature_widths, local_share)
    parts: list[list] = [[] for _ in kernels]
    # some rows at a time: what is made on the way is several times as large as the weights
    for rows in gen_batches(space.n_positions, max(1, MOST_PAIRS // space.n_positions)):
        pairs = _pairs(space, reach, rows)
        make = partial(block_of, pairs, space.n_positions, rows, normalize, cutoff)
        for part, row in zip(parts, kernels, strict=True):
            part.append(hstack([make(kernel) for kernel in row], format="csr"))
    weights = vstack([some for part in parts for some in part], format="csr")
    return weights if sparse else weights.toarray()


def signed(weights: SparseLike, signs: ArrayLike) -> np.ndarray | csr_array:
    """Weights of which those from each type of cells have its sign.

    Parameters
    ----------
    weights : ndarray or sparse array of shape (n_types * n_positions, n_types * n_positions)
        Magnitudes W[post, pre], as :func:`connect` makes them.
    signs : sequence of shape (n_types,)
        +1 for excitatory and -1 for inhibitory types.

    Returns
    -------
    weights : ndarray or csr_array of the same shape

    Raises
    ------
    ValueError
        If a sign is neither +1 nor -1, or the cells cannot be of as many types.

    Examples
    --------
    >>> from ssn_estimators.geometry import signed
    >>> signed([[1.0, 2.0], [3.0, 4.0]], [1, -1])
    array([[ 1., -2.],
           [ 3., -4.]])
    """
    signs = check_signs(signs)
    if not issparse(weights):
        weights = to_numbers(weights, name="weights")
    if weights.ndim != 2 or weights.shape[1] % len(signs):
        raise ValueError(
            f"weights must have columns for cells of {len(signs)} types, got shape {weights.shape}."
        )
    columns = np.repeat(signs, weights.shape[1] // len(signs))
    if not issparse(weights):
        return weights * columns
    rows = csr_array(weights)
    if rows.dtype.kind != "f":  # such as those of an adjacency matrix, which have no sign
        rows = rows.astype(float)
    data = rows.data * columns.astype(rows.dtype)[rows.indices]
    return csr_array((data, rows.indices, rows.indptr), shape=rows.shape)


def check_signs(signs):
    """Signs of types of cells as an array."""
    signs = to_numbers(signs, name="signs")
    if signs.ndim != 1 or not signs.size or not (abs(signs) == 1).all():
        raise ValueError(f"signs must be +1 or -1 for each type of cells, got {signs}.")
    return signs


def kernels_by_type(space, amplitudes, widths, profile, feature_widths, local_share):
    """Kernels [post, pre], as nested lists, from parameters of :func:`connect`, checked here."""
    if feature_widths is None:
        feature_widths = np.inf
    elif space.orientation is None:
        raise ValueError("feature_widths are of orientations, and this space has none.")
    tables = {
        "amplitudes": _numbers("amplitudes", amplitudes, _not_negative, "finite and >= 0"),
        "widths": _numbers("widths", widths, _not_negative, "finite and > 0"),
        "profile": _functions(profile, space),
        "feature_widths": _numbers("feature_widths", feature_widths, lambda x: x > 0, "> 0"),
        "local_share": _numbers(
            "local_share", local_share, lambda x: (x >= 0) & (x <= 1), "from 0 to 1"
        ),
    }
    shapes = {name: table.shape for name, table in tables.items() if table.ndim}
    n_types = next(iter(shapes.values()))[0] if shapes else 1
    if not n_types or any(shape != (n_types, n_types) for shape in shapes.values()):
        raise ValueError(
            "what is given by types of cells must have shape (n_types, n_types) [post, pre], got "
            f"{shapes}."
        )
    if not ((tables["widths"] > 0) | (tables["profile"] == local)).all():
        raise ValueError("widths must be > 0 wherever the profile is not 'local'.")
    matrices = [np.broadcast_to(table, (n_types, n_types)) for table in tables.values()]
    return [
        [Kernel(*kernel) for kernel in zip(*rows, strict=True)]
        for rows in zip(*matrices, strict=True)
    ]


def _not_negative(x):
    return (x >= 0) & (x < np.inf)


def _numbers(name, value, legal, words):
    array = to_numbers(value, name=name)
    if not legal(array).all():
        raise ValueError(f"{name} must be {words}, got {array.tolist()}.")
    return array


def _functions(profile, space):
    """Functions of distance and width, as an array like that of their names."""
    profiles = np.array(profile, dtype=object)
    functions = np.empty_like(profiles)
    for index, one in np.ndenumerate(profiles):
        if not callable(one) and not (isinstance(one, str) and one in PROFILES):
            raise ValueError(f"profile must be callable or one of {list(PROFILES)}, got {one!r}.")
        if one == "von_mises":
            if not space.is_ring:
                raise ValueError(
                    "profile 'von_mises' is for rings: spaces of one periodic dimension."
                )
            functions[index] = partial(von_mises, period=space.periods[0])
        else:
            functions[index] = one if callable(one) else PROFILES[one]
    return functions


def _pairs(space, reach, rows):
    """Pairs of some positions and those within reach of them, each with itself included."""
    own, index = np.arange(rows.stop - rows.start), np.arange(space.n_positions)
    if reach is None:
        post, pre = np.repeat(own, len(index)), np.tile(index, len(own))
    else:
        tree = _tree(space)
        some = cKDTree(tree.data[rows], boxsize=tree.boxsize)
        near = some.sparse_distance_matrix(tree, farthest(reach), output_type="ndarray")
        post, pre = near["i"], near["j"]
    displacement = space.positions[rows][post] - space.positions[pre]
    distance = np.linalg.norm(wrapped(displacement, space.periods), axis=1)
    if space.orientation is None:
        return Pairs(post, pre, distance, None)
    difference = space.orientation[rows][post] - space.orientation[pre]
    return Pairs(post, pre, distance, shortest(difference, ORIENTATION_PERIOD))


def farthest(reach):
    """The reach, so that positions at it are within it, however they were computed."""
    return reach * (1 + ROUNDING)


def _tree(space):
    lengths = np.array([period or 0.0 for period in space.periods])  # 0: not periodic
    periodic = lengths > 0
    inside = space.positions.copy()
    inside[:, periodic] %= lengths[periodic]
    # the remainder of a tiny negative number is the period itself, which is outside
    inside[:, periodic] = np.where(
        inside[:, periodic] < lengths[periodic], inside[:, periodic], 0.0
    )
    return cKDTree(inside, boxsize=lengths)


def block_of(pairs, n_positions, rows, normalize, cutoff, kernel):
    """Weights onto some cells of one type from all of another, or the same, as csr_array."""
    values = kernel.profile(pairs.distance, kernel.width)
    if np.shape(values) != pairs.distance.shape or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("a profile must return a finite number >= 0 for every distance.")
    if kernel.feature_width < np.inf:
        values = values * gaussian(pairs.orientation, kernel.feature_width)
    kept = (kernel.amplitude > 0) & (values > 0) & (values >= cutoff)
    values, post, pre = values[kept], pairs.post[kept], pairs.pre[kept]
    if normalize == "rows":
        values = values / np.bincount(post, values)[post]
    elif normalize == "density":
        values = values / n_positions
    shape = rows.stop - rows.start, n_positions
    block = csr_array((values, (post, pre)), shape=shape)
    share = kernel.local_share
    if share > 0:
        block = share * eye_array(*shape, k=rows.start, format="csr") + (1 - share) * block
    return kernel.amplitude * block
