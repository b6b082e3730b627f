"""The classification task: a softmax of a linear readout, and the cross-entropy."""

from torch.nn.functional import cross_entropy

from ssn_estimators.training.readout import Readout

__all__ = ["Classification"]


class Classification(Readout):
    """Softmax readout of the mean excitatory potentials (section 3 of the paper)."""

    chance = "the frequencies of the classes"

    def loss(self, simulation, arrays, targets):
        return cross_entropy(self.outputs(simulation.mean, arrays), targets)

    def chance_loss(self, targets):
        """Loss of the frequencies of the classes, whatever the input."""
        shares = targets.bincount() / len(targets)
        return float(-(shares * shares.clamp_min(1e-12).log()).sum())
