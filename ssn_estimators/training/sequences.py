"""Tasks in time: inputs that change, and answers read out while they do."""

from __future__ import annotations

import numpy as np
import torch

from ssn_estimators._torch import (
    chance_of_labels,
    labels_and_weights,
    loss_of_labels,
    times_rows,
)
from ssn_estimators.training.readout import INPUT_MEAN, INPUT_SPREAD, Readout

__all__ = ["SequenceClassification", "SequenceRegression"]

OF_CELLS = ("input_cells", "output_cells")


class SequenceReadout(Readout):
    """Linear readout of the E cells' potentials at every time step of the inputs.

    Inputs have shape (n_inputs, n_times, n_channels) and lie in [0, 1]; their weights are not
    negative. Moments are those of every input at every time step, see
    :class:`~ssn_estimators.training.gradients.Followed`. Beside the arrays of `Readout` there are
    two that are not trained: ``input_cells`` (n_neurons,) and ``output_cells`` (n_excitatory,) are
    1 for cells that get inputs, and that are read.

    Parameters
    ----------
    n_times : int
        Time steps of inputs.
    """

    nonnegative = ("input_weights",)

    def __init__(self, n_times):
        super().__init__(dense=True)
        self.n_times = n_times

    def start(self, cells, inputs, n_outputs, rng):
        """Arrays for a circuit with these input and output cells, not trained yet."""
        n_neurons, n_excitatory = map(len, cells)
        size = float((inputs**2).sum(-1).mean()) ** 0.5
        scale = INPUT_SPREAD / size if size else 0.0
        weights = np.abs(rng.normal(scale=scale, size=(n_neurons, inputs.shape[-1])))
        return {
            "coef": np.zeros((n_outputs, n_excitatory), np.float32),
            "intercept": np.zeros(n_outputs, np.float32),
            "input_weights": weights.astype(np.float32),
            "input_bias": np.full(n_neurons, INPUT_MEAN, np.float32),
            **dict(zip(OF_CELLS, cells, strict=True)),
        }

    def rates(self, circuit, inputs):
        return super().rates(circuit, inputs.flatten(0, 1))

    def external(self, arrays, inputs):
        weights = arrays["input_weights"] * arrays["input_cells"].detach()[:, None]
        return times_rows(inputs, weights) + arrays["input_bias"]

    def drive(self, circuit, arrays, inputs):
        """Of shape (n_times, n_inputs, n_neurons)."""
        return circuit.drive(self.external(arrays, inputs)).transpose(0, 1)

    def outputs(self, potentials, arrays):
        """Of shape (n_times, n_inputs, n_outputs)."""
        read = arrays["coef"] * arrays["output_cells"].detach()
        found = times_rows(potentials[:, : read.shape[1]], read) + arrays["intercept"]
        return found.unflatten(0, (self.n_times, -1))

    def grow(self, arrays, old, new, origin, shares):
        grown = super().grow(arrays, old, new, origin, shares)
        read = origin[: new.n_excitatory]
        return grown | {
            "input_cells": arrays["input_cells"][origin],
            "output_cells": arrays["output_cells"][read],
        }


class SequenceClassification(SequenceReadout):
    """Softmax of the outputs' mean over a part of the time, and the cross-entropy.

    Targets of an input are the number of its class, its weight (unless all are 1), and the
    weights of time steps, which add up to 1.
    """

    chance = "the frequencies of the classes"

    @staticmethod
    def targets(labels, weights, sample_weights=None):
        own = np.ones(len(labels)) if sample_weights is None else sample_weights
        own = labels_and_weights(labels, own).reshape(len(labels), -1)
        return torch.cat([own, torch.from_numpy(weights)], 1).float()

    def _split(self, targets):
        """Labels, maybe with weights, and the weights of time steps."""
        own, weights = targets.split([targets.shape[1] - self.n_times, self.n_times], 1)
        return own if own.shape[1] == 2 else own[:, 0].long(), weights

    @staticmethod
    def logits(outputs, weights):
        """Mean outputs (n_inputs, n_classes), by weights of shape (n_inputs, n_times)."""
        return torch.einsum("tik,it->ik", outputs, weights)

    def loss(self, moments, arrays, targets):
        own, weights = self._split(targets)
        return loss_of_labels(self.logits(self.outputs(moments.mean, arrays), weights), own)

    def chance_loss(self, targets):
        """Loss of the frequencies of the classes, whatever the input."""
        return chance_of_labels(self._split(targets)[0])


class SequenceRegression(SequenceReadout):
    """Outputs at every time step, and their weighted mean squared error.

    Targets have shape (n_inputs, n_times, 2 n_outputs): values, standardised, and their weights.
    """

    chance = "the mean course of the targets"

    @staticmethod
    def targets(values, weights):
        """Of shapes (n_inputs, n_times, n_outputs); weights are scaled to a mean of 1."""
        whole = np.concatenate([values, weights / weights.mean()], axis=2)
        return torch.from_numpy(whole.astype(np.float32))

    def loss(self, moments, arrays, targets):
        values, weights = targets.transpose(0, 1).chunk(2, -1)
        return (weights * (self.outputs(moments.mean, arrays) - values) ** 2).mean()

    def chance_loss(self, targets):
        """Loss of the mean course, whatever the input; not known if there is nothing else."""
        values, weights = targets.double().chunk(2, -1)
        total = weights.sum(0)
        course = (weights * values).sum(0) / torch.where(total > 0, total, 1.0)
        spread = float((weights * (values - course) ** 2).mean())
        return spread if spread > 0 else np.inf
