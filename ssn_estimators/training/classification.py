"""The classification task: a softmax of a linear readout, and the cross-entropy."""

from ssn_estimators._torch import chance_of_labels, labels_and_weights, loss_of_labels
from ssn_estimators.training.readout import Readout

__all__ = ["Classification"]


class Classification(Readout):
    """Softmax readout of the mean excitatory potentials (section 3 of the paper).

    Targets are integer labels, with weights beside them or without.
    """

    chance = "the frequencies of the classes"
    targets = staticmethod(labels_and_weights)

    def loss(self, simulation, arrays, targets):
        return loss_of_labels(self.outputs(simulation.mean, arrays), targets)

    def chance_loss(self, targets):
        """Loss of the frequencies of the classes, whatever the input."""
        return chance_of_labels(targets)
