"""The regression task: a linear readout, and the squared error in units of the targets' spread."""

from __future__ import annotations

import numpy as np
import torch

from ssn_estimators.training.readout import Readout

__all__ = ["Regression"]


class Regression(Readout):
    """Linear readout of the mean excitatory potentials, and the weighted mean squared error.

    Targets are standardised, so that no rate depends on their units; beside those of an input, in
    the last column, stands its weight.
    """

    chance = "the mean of the targets"

    @staticmethod
    def targets(values, weights):
        """Values (n_samples, n_outputs) and weights (n_samples,), of a mean of 1, as one tensor."""
        whole = np.column_stack([values, weights / weights.mean()])
        return torch.from_numpy(whole.astype(np.float32))

    def loss(self, moments, arrays, targets):
        errors = (self.outputs(moments.mean, arrays) - targets[:, :-1]) ** 2
        # divided by the batch's size, not its weight: that would prefer batches of small weights
        return (errors.mean(1) * targets[:, -1]).mean()

    def chance_loss(self, targets):
        """Loss of the mean of the targets, whatever the input; not known if they do not vary."""
        values, weights = targets[:, :-1].double(), targets[:, -1:].double()
        weights = weights / weights.sum()
        spread = float((weights * (values - (weights * values).sum(0)) ** 2).sum(0).mean())
        return spread if spread > 0 else np.inf
