"""The inference task: excitatory potentials with the moments of a posterior (section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.utils import gen_batches

from ssn_estimators._sklearn import check_array, check_squares
from ssn_estimators._torch import times_rows, to_tensor
from ssn_estimators.growth import choose_parents

__all__ = [
    "AVERAGES",
    "COST_WEIGHTS",
    "NORMALIZED",
    "N_GROUPS",
    "POOLS",
    "Inference",
    "Pool",
    "check_cost_weights",
    "check_moments",
    "check_together",
    "moment_errors",
    "parents_in_pairs",
]

N_GROUPS = 4  # of trials, for costs without bias
NORMALIZED = ("per_input", "pooled")
AVERAGES = (*NORMALIZED, "unnormalized")
LARGEST_TARGET = 1e15  # whose squares, and sums of them, are numbers of float32
MOMENT_ROWS = 1024  # targets checked at once
ROUNDING = 1e-6  # relative to the largest variance: what a covariance may be below zero
LEAST_MEAN = 0.01  # of the total variance: what the squared length of a target mean counts at least
POOLS = {"rectified": torch.abs, "squared": torch.square}  # of whitened inputs
LEAST_DIRECTION = 1e-8  # of the largest mean square of inputs along one: what counts as any
LARGEST_INPUT = 1e12  # times the usual size; no network stays finite, but pools of them are
POOL_RATE = 0.1  # of the learning rate: there are many of these weights, and each counts in mV
# of the published code, in its last and in its earlier versions; the paper does not state them
COST_WEIGHTS = {"published": (0.01, 2.0, 1.0), "published_early": (0.01, 0.02, 0.01)}


def check_cost_weights(cost_weights):
    """The weights of the three errors as an array, or a ValueError."""
    if isinstance(cost_weights, str) and cost_weights in COST_WEIGHTS:
        cost_weights = COST_WEIGHTS[cost_weights]
    try:
        weights = np.asarray(cost_weights, dtype=float)
    except (TypeError, ValueError):
        weights = np.empty(0)
    if weights.shape != (3,) or not (weights >= 0).all() or not weights.any():
        raise ValueError(
            "cost_weights must be three numbers >= 0, not all 0, for mean, variance and "
            f"covariance, or one of {sorted(COST_WEIGHTS)}; got {cost_weights!r}."
        )
    return weights


def check_together(mean, covariance):
    if (mean is None) != (covariance is None):
        raise ValueError("mean and covariance must be given together.")


def check_moments(mean, covariance, n_samples, dtype):
    """Moments as arrays, or why they cannot be those of any distribution."""
    mean = check_array(mean, dtype=dtype, input_name="mean")
    covariance = check_array(
        covariance, dtype=dtype, allow_nd=True, ensure_2d=False, input_name="covariance"
    )
    d = mean.shape[1]
    if len(mean) != n_samples or covariance.shape != (n_samples, d, d):
        raise ValueError(
            f"mean and covariance must have shapes ({n_samples}, d) and ({n_samples}, d, d) for "
            f"{n_samples} samples, got {mean.shape} and {covariance.shape}."
        )
    for name, moment in (("mean", mean), ("covariance", covariance)):
        check_squares(moment, name, LARGEST_TARGET)
    for rows in gen_batches(n_samples, MOMENT_ROWS):
        block = torch.from_numpy(covariance[rows].astype(float))
        scale = block.diagonal(dim1=1, dim2=2).abs().amax(1)[:, None, None]
        uneven = ((block - block.mT).abs() > ROUNDING * scale).flatten(1).any(1)
        _, failed = torch.linalg.cholesky_ex(block + ROUNDING * scale * torch.eye(d))
        wrong = torch.nonzero(uneven | (failed != 0)).flatten().tolist()
        if wrong:
            first = block[wrong[0]]
            reason = f"its least eigenvalue is {torch.linalg.eigvalsh(first)[0]:.3g}"
            if uneven[wrong[0]]:
                reason = f"it differs from its transpose by {(first - first.mT).abs().max():.3g}"
            raise ValueError(
                f"covariance[{rows.start + wrong[0]}] is not symmetric and positive definite: "
                f"{reason}."
            )
    return mean, covariance


def moment_errors(
    means, covariances, target_mean, target_covariance, averaging="per_input", n_latents=None
):
    r"""Squared errors of mean, variance and covariance (the three terms of Eq. 12 or 13).

    With moments estimated from four groups of trials, errors are products of the error of two
    of them and that of the other two, :math:`\langle \hat C_1 - C, \hat C_2 - C \rangle`,
    averaged over the three ways to pair them: the sampling variance, which a square contains,
    is then not counted; and the variance that a group's covariance lacks for being about its
    own mean is known from the other's.

    Parameters
    ----------
    means : sequence of one or four Tensors of shape (n_inputs, d)
        Means of one exact solution, or of each group of as many trials.
    covariances : sequence of as many Tensors of shape (n_inputs, d, d)
        About the mean of the same group.
    target_mean, target_covariance : Tensors of such shapes
    averaging : {"per_input", "pooled", "unnormalized"}
        Mean over inputs of the ratio of squared norms of error and target, or ratio of their
        means; or mean over inputs and elements of the squared error.
    n_latents : int, default=None
        How many of the d latents have moments, the first ones; all by default. The error is
        relative to the targets of all: those of a few may be close to 0.

    Returns
    -------
    errors : Tensor of shape (3,)
        Those of mean, variance and covariance.
    """
    groups = list(zip(means, covariances, strict=True))
    if len(groups) > 1:
        pairs = {(i, j): _joined(groups[i], groups[j]) for i, j in combinations(range(N_GROUPS), 2)}
        splits = [
            (pairs[0, 1], pairs[2, 3]),
            (pairs[0, 2], pairs[1, 3]),
            (pairs[0, 3], pairs[1, 2]),
        ]
    else:
        splits = [(groups[0], groups[0])]
    n = target_mean.shape[1] if n_latents is None else n_latents
    part = _terms(target_mean[:, :n], target_covariance[:, :n, :n])
    squares = 0.0
    for split in splits:
        one, other = (_terms(*group) for group in split)
        products = [((x - t) * (y - t)).sum(1) for x, y, t in zip(one, other, part, strict=True)]
        squares = squares + torch.stack(products) / len(splits)
    whole = _terms(target_mean, target_covariance)
    if averaging == "unnormalized":
        return squares.mean(1) / squares.new_tensor([target.shape[1] for target in whole])
    norms = torch.stack([(target**2).sum(1) for target in whole])
    # where the mean is smaller than the spread, its relative error means nothing
    least = torch.zeros_like(norms)
    least[0] = LEAST_MEAN * whole[1].sum(1)
    norms = torch.maximum(norms, least)
    if averaging == "pooled":
        return squares.mean(1) / norms.mean(1)
    return (squares / norms).mean(1)


def _terms(mean, covariance):
    """What is compared, as vectors: mean, variance and covariance."""
    return mean, covariance.diagonal(dim1=1, dim2=2), covariance.flatten(1)


def _joined(one, other):
    """Unbiased mean and covariance from those of two groups."""
    apart = one[0] - other[0]
    covariance = (one[1] + other[1] + apart[:, :, None] * apart[:, None]) / 2
    return (one[0] + other[0]) / 2, covariance


@dataclass(frozen=True)
class Pool:
    """What I cells receive of all inputs: magnitudes of their whitened principal components.

    Of inputs as they are, few directions would make up nearly all of the magnitude: it would tell
    how strong these are in an image, not its contrast.

    Parameters
    ----------
    kind : {"rectified", "squared"}
    components : ndarray of shape (n_latents, n_latents), float32
        One a row, scaled so that inputs have a mean square of 1 along it.
    """

    kind: str
    components: np.ndarray

    @classmethod
    def of(cls, kind, inputs):
        """Magnitudes count from 0, about which contrast scales inputs, not from their mean."""
        inputs = inputs.astype(float)
        squares = inputs.T @ inputs / len(inputs)
        if len(inputs) > 1:
            squares, _ = ledoit_wolf(inputs, assume_centered=True)
        values, vectors = np.linalg.eigh(squares)
        # what is next to nothing in these inputs would count as much as all else in others
        told = values > LEAST_DIRECTION * values.max()
        scales = 1 / np.sqrt(np.where(told, values, np.inf))
        return cls(kind, np.ascontiguousarray((vectors * scales).T, np.float32))

    def __call__(self, inputs):
        components = to_tensor(self.components, np.float32).to(inputs)
        within = inputs.clamp(-LARGEST_INPUT, LARGEST_INPUT)
        return POOLS[self.kind](times_rows(within, components))


class Inference:
    """Pairs of cells that get the same input, E potentials that are to have target moments.

    Targets are tensors of shape (n_inputs, d, d + 1): the mean beside the covariance. While
    the circuit has fewer than d pairs, they stand for the first latents.

    Parameters
    ----------
    cost_weights : sequence of 3 floats, or str
        Weights of the errors of mean, variance and covariance; or the name of published ones.
    averaging : {"per_input", "pooled", "unnormalized"}
    pool : Pool, default=None
        What I cells receive of all inputs besides, through weights in the array "pool".
    """

    outgoing = incoming = ()
    chance = "the mean posterior"  # which is not known

    def __init__(self, cost_weights, averaging, pool=None):
        self.cost_weights = check_cost_weights(cost_weights).tolist()
        self.averaging, self.pool = averaging, pool
        self.nonnegative = ("pool",) if pool else ()

    @staticmethod
    def targets(mean, covariance):
        return torch.cat([mean[:, :, None], covariance], dim=2)

    def drive(self, circuit, arrays, inputs):
        own = inputs[:, : circuit.n_excitatory]
        drive = circuit.drive(torch.cat([own, own], dim=1))
        if self.pool is None:
            return drive
        pooled = times_rows(self.pool(inputs), arrays["pool"])
        both = drive[:, own.shape[1] :] + pooled
        both = both.clamp_max(torch.finfo(both.dtype).max)  # as in `Circuit.drive`
        return torch.cat([drive[:, : own.shape[1]], both], dim=1)

    @staticmethod
    def rates(circuit, inputs):
        return {"pool": POOL_RATE}

    def start(self, circuit, n_latents):
        """Arrays around the circuit, with which it does what it would do without."""
        shape = (circuit.n_inhibitory, n_latents)
        return {"pool": np.zeros(shape, np.float32)} if self.pool else {}

    @staticmethod
    def idle(rates):
        """None: potentials are what is asked for, with or without rates."""
        return np.zeros(rates.shape[1], bool)

    @staticmethod
    def chance_loss(targets):
        return np.inf

    def loss(self, moments, arrays, targets):
        n, n_pairs = len(targets), moments.mean.shape[1] // 2
        means = moments.mean[:, :n_pairs].split(n)
        covariances = moments.covariance[:, :n_pairs, :n_pairs].split(n)
        errors = moment_errors(
            means, covariances, targets[:, :, 0], targets[:, :, 1:], self.averaging, n_pairs
        )
        return (errors * errors.new_tensor(self.cost_weights)).sum()

    def grow(self, arrays, old, new, origin, shares):
        of_i = origin[new.n_excitatory :] - old.n_excitatory
        return {name: rows[of_i] for name, rows in arrays.items()}


def parents_in_pairs(how):
    """The same choice of parents for E and for I cells."""
    if callable(how):
        return how

    def parents(circuit, n_excitatory, n_inhibitory, random_state):
        chosen = choose_parents(circuit, n_excitatory, circuit.n_inhibitory, how, random_state)
        return np.concatenate([chosen, chosen + circuit.n_excitatory])

    return parents
