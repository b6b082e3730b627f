"""The inference task: excitatory potentials with the moments of a posterior (section 4)."""

from __future__ import annotations

import numpy as np
import torch

__all__ = [
    "AVERAGES",
    "COST_WEIGHTS",
    "N_GROUPS",
    "Inference",
    "check_cost_weights",
    "moment_errors",
]

N_GROUPS = 4  # of trials, for costs without bias
AVERAGES = ("per_input", "pooled", "unnormalized")
LEAST_MEAN = 0.01  # of the total variance: what the squared length of a target mean counts at least
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


def moment_errors(
    means, covariances, target_mean, target_covariance, averaging="per_input", n_latents=None
):
    r"""Squared errors of mean, variance and covariance (the three terms of Eq. 12 or 13).

    With moments estimated from four groups of trials, errors are products of the error of two
    of them and that of the other two, :math:`\langle \hat C_1 - C, \hat C_2 - C \rangle`, so
    that the sampling variance, which a square contains, is not counted; and the variance that
    a group's covariance lacks for being about its own mean is known from the other's.

    Parameters
    ----------
    means : sequence of one or four Tensors of shape (n_inputs, d)
        Of one exact solution, or of each group of as many trials.
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
        Of mean, variance and covariance.
    """
    if len(means) > 1:
        halves = [_joined(means[i : i + 2], covariances[i : i + 2]) for i in range(0, N_GROUPS, 2)]
        means, covariances = zip(*halves, strict=True)
    n = target_mean.shape[1] if n_latents is None else n_latents
    target_variance = _variance(target_covariance)
    part = target_covariance[:, :n, :n]
    # where the mean is smaller than the spread, its relative error means nothing
    least = (LEAST_MEAN * target_variance.sum(1), 0.0, 0.0)
    terms = (
        (means, target_mean[:, :n], target_mean),
        ([_variance(covariance) for covariance in covariances], _variance(part), target_variance),
        ([covariance.flatten(1) for covariance in covariances], part.flatten(1), target_covariance),
    )
    errors = []
    for (estimates, target, whole), at_least in zip(terms, least, strict=True):
        squares = ((estimates[0] - target) * (estimates[-1] - target)).sum(1)
        norms = (whole.flatten(1) ** 2).sum(1).clamp_min(at_least)
        if averaging == "unnormalized":
            errors.append(squares.mean() / whole[0].numel())
        elif averaging == "pooled":
            errors.append(squares.mean() / norms.mean())
        else:
            errors.append((squares / norms).mean())
    return torch.stack(errors)


def _joined(means, covariances):
    """Unbiased mean and covariance from those of two groups."""
    apart = means[0] - means[1]
    covariance = (covariances[0] + covariances[1] + apart[:, :, None] * apart[:, None]) / 2
    return (means[0] + means[1]) / 2, covariance


def _variance(covariance):
    return covariance.diagonal(dim1=1, dim2=2)


class Inference:
    """Pairs of cells that get the same input, E potentials that are to have target moments.

    Targets are tensors of shape (n_inputs, d, d + 1): the mean beside the covariance. While
    the circuit has fewer than d pairs, they stand for the first latents.

    Parameters
    ----------
    cost_weights : sequence of 3 floats, or str
        Of the errors of mean, variance and covariance; or the name of published ones.
    averaging : {"per_input", "pooled", "unnormalized"}
    """

    def __init__(self, cost_weights, averaging):
        self.cost_weights = check_cost_weights(cost_weights).tolist()
        self.averaging = averaging

    @staticmethod
    def targets(mean, covariance):
        return torch.cat([mean[:, :, None], covariance], dim=2)

    def drive(self, circuit, arrays, inputs):
        own = inputs[:, : circuit.n_excitatory]
        return circuit.drive(torch.cat([own, own], dim=1))

    def loss(self, moments, arrays, targets):
        n, n_pairs = len(targets), moments.mean.shape[1] // 2
        means = moments.mean[:, :n_pairs].split(n)
        covariances = moments.covariance[:, :n_pairs, :n_pairs].split(n)
        errors = moment_errors(
            means, covariances, targets[:, :, 0], targets[:, :, 1:], self.averaging, n_pairs
        )
        return (errors * errors.new_tensor(self.cost_weights)).sum()

    def grow(self, arrays, old, new, origin):
        return arrays
