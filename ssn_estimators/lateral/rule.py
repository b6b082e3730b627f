"""The rule: weights from co-activation, and the gates that they make."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

__all__ = ["CoActivation", "Reading", "gated", "offsets"]


def offsets(extent):
    """Places in the surround, as (row, column) of the weights: all but the centre."""
    side = range(2 * extent + 1)
    return [(a, b) for a in side for b in side if (a, b) != (extent, extent)]


def _windows(shape, offset, extent, spacing):
    """Slices of centres and of their neighbours at an offset, where both are in the map."""
    here, there = [], []
    for size, place in zip(shape, offset, strict=True):
        shift = (place - extent) * spacing
        here.append(slice(max(0, -shift), max(0, size - max(0, shift))))
        there.append(slice(max(0, shift), max(0, size + min(0, shift))))
    return (slice(None), *here), (slice(None), *there)


class Reading(NamedTuple):
    """How activities are read as probabilities.

    Parameters
    ----------
    normalize : bool, default=True
        Whether they are shares of the sum at each place, or what they are.
    background : float, default=0.0
        What speaks at every place for a last feature, which is that nothing is there.
    """

    normalize: bool = True
    background: float = 0.0

    def of_all(self, maps):
        """Activities with that of the last feature, if there is one."""
        if not self.background:
            return maps
        return torch.cat([maps, torch.full_like(maps[..., :1], self.background)], -1)

    def __call__(self, maps):
        """Probabilities; 0, which is no evidence, where nothing is active and may be there."""
        if not self.normalize:
            return maps
        maps = self.of_all(maps)
        total = maps.sum(-1, keepdim=True)
        return maps / torch.where(total > 0, total, 1.0)

    def n_features(self, n_channels):
        return n_channels + (self.background > 0)


class CoActivation:
    """Running sums of activities and of their products at half of the offsets, as arrays."""

    def __init__(self, n_features, extent, spacing):
        side = 2 * extent + 1
        self.extent, self.spacing = extent, spacing
        self.single, self.n_single = np.zeros(n_features), 0
        self.pairs = np.zeros((side, side, n_features, n_features))
        self.n_pairs = np.zeros((side, side))

    def add(self, maps, *, all_places=True):
        """Count maps, a Tensor of shape (n, rows, columns, features).

        All places, or only those where something is active: shares are known of no others.
        """
        known = torch.ones_like(maps[..., 0]) if all_places else maps.any(-1).to(maps)
        self.single += maps.sum((0, 1, 2), dtype=torch.float64).cpu().numpy()
        self.n_single += float(known.sum(dtype=torch.float64))
        places = offsets(self.extent)
        for place in places[: len(places) // 2]:
            here, there = _windows(maps.shape[1:3], place, self.extent, self.spacing)
            centre, neighbour = maps[here].flatten(0, 2), maps[there].flatten(0, 2)
            self.pairs[place] += (neighbour.T @ centre).cpu().numpy()
            self.n_pairs[place] += float((known[here] * known[there]).sum(dtype=torch.float64))

    def weights(self, eps):
        r""":math:`\langle f_j f_k \rangle / (\langle f_j \rangle \langle f_k \rangle) - 1`,
        and the means."""
        mean = self.single / max(self.n_single, 1)
        # at the other offsets stand the same pairs, seen from the neighbour
        pairs = self.pairs + self.pairs[::-1, ::-1].swapaxes(-1, -2)
        n_pairs = self.n_pairs + self.n_pairs[::-1, ::-1]
        together = pairs / np.maximum(n_pairs, 1)[..., None, None]
        apart = np.outer(mean, mean)
        seen = (n_pairs > 0)[..., None, None] & (apart > 0)
        size = (1 + eps) * np.where(apart > 0, apart, 1.0)
        return np.where(seen, (together + eps * apart) / size - 1, 0.0), mean


def gated(maps, weights, reading, *, spacing, form, alpha):
    """Maps under their lateral gates.

    Parameters
    ----------
    maps : Tensor of shape (n, rows, columns, channels)
        What is gated.
    weights : Tensor of shape (2 * extent + 1, 2 * extent + 1, features, features)
        From a neighbour's feature to the centre's.
    reading : Reading
        What the gates see of the maps, as many features as weights are between.
    """
    extent, n_channels, shares = len(weights) // 2, maps.shape[-1], reading(maps)
    if form == "linear":
        kernel = weights[..., :n_channels].permute(3, 2, 0, 1)  # to, from, rows, columns
        context = functional.conv2d(
            shares.permute(0, 3, 1, 2), kernel, padding=extent * spacing, dilation=spacing
        )
        return maps * (1 + alpha * context.permute(0, 2, 3, 1)).clamp(min=0)
    evidence = torch.zeros_like(shares)
    for place in offsets(extent):
        # nothing comes from beyond the map
        here, there = _windows(maps.shape[1:3], place, extent, spacing)
        said = torch.log((1 + shares[there] @ weights[place]).clamp(min=1e-30))
        evidence[here] += said
    gate = torch.exp(alpha * (evidence - evidence.amax(-1, keepdim=True)))
    activities = reading.of_all(maps)
    product = activities * gate
    # features compete, with nothing too: their sum at a place stays
    total = product.sum(-1, keepdim=True)
    product = product * (activities.sum(-1, keepdim=True) / torch.where(total > 0, total, 1.0))
    return product[..., :n_channels]
