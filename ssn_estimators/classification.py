"""The classification task: inputs into a circuit, mean potentials out to a linear readout."""

from __future__ import annotations

import numpy as np
from torch.nn.functional import cross_entropy

from ssn_estimators.growth import shares_of

__all__ = ["Classification"]


class Classification:
    """Softmax readout of the mean excitatory potentials (section 3 of the paper).

    Its arrays are ``coef`` (n_classes, n_excitatory), ``intercept`` (n_classes,) and, with
    dense input, ``input_weights`` (n_neurons, n_features).
    """

    def __init__(self, dense):
        self.dense = dense

    def start(self, n_excitatory, n_neurons, inputs, n_classes, rng):
        """Arrays for a circuit that has not been trained yet, and gets these inputs."""
        # with dense input, a readout that knows nothing would teach cells to ignore it for good
        scale = 0.0 if self.dense else 1 / np.sqrt(n_excitatory)
        coef = rng.normal(scale=scale, size=(n_classes, n_excitatory))
        arrays = {"coef": coef.astype(np.float32), "intercept": np.zeros(n_classes, np.float32)}
        if self.dense:
            n_features = inputs.shape[1]
            weights = rng.normal(scale=1 / np.sqrt(n_features), size=(n_neurons, n_features))
            # a cell that no input drives has no gradient, and nor have any of its clones
            weights[weights @ np.asarray(inputs.mean(0)) < 0] *= -1
            arrays["input_weights"] = weights.astype(np.float32)
        return arrays

    def drive(self, circuit, arrays, inputs):
        if self.dense:
            return circuit.drive(inputs @ arrays["input_weights"].T)
        return circuit.drive(inputs[:, : circuit.n_excitatory])

    def logits(self, potentials, arrays):
        return potentials[:, : arrays["coef"].shape[1]] @ arrays["coef"].T + arrays["intercept"]

    def loss(self, simulation, arrays, targets):
        return cross_entropy(self.logits(simulation.mean, arrays), targets)

    def grow(self, arrays, old, new, origin, shares):
        read, coef = origin[: new.n_excitatory], arrays["coef"]
        # clones that get different inputs need nothing else to become different
        parts = (shares if self.dense else shares_of)(read, len(coef))
        coef = (coef[:, read] * parts).astype(coef.dtype)
        grown = dict(arrays, coef=coef)
        if self.dense:
            grown["input_weights"] = arrays["input_weights"][origin]
        return grown
