"""Descent on the parameters of a model, and the way back when a step went too far."""

from __future__ import annotations

import math

import numpy as np
import torch

from ssn_estimators.training.plan import Model

__all__ = ["Descent"]

WEAKENING = 0.8  # of E-to-E weights after a failed long run; without them no circuit runs away
MAX_WEAKENED = 20  # times in a row; they leave a hundredth of it
RECOVERY = 1.1  # of the learning rate per accepted step after it has been halved
MEMORY = 0.9  # of the rate it recovers to, for every step undone at this size
LEAST_RATE = 0.1  # of that rate
CAUTION = 2.0  # of the penalty on instability, for every step undone at this size
MOST_CAUTION = 64.0


class Descent:
    """Adam on the free parameters of one model, with the way back to the last good ones.

    Parameters
    ----------
    model : Model
        Where it starts.
    structure : structure of :mod:`~ssn_estimators.structures`
        What is trained of the circuit.
    rates : dict, default={}
        Factors of the learning rate by the names of parameters.
    nonnegative : sequence of str, default=()
        Arrays around the circuit that are kept from falling below 0.
    state : dict, default=None
        What Adam knows, as :meth:`optimizer_state` gives it.
    device : str, default="cpu"
    max_grad_norm : float, default=1.0
        Longer gradients are scaled down to it.
    max_rejected : int, default=10
        More steps than this undone in a row, and it has given up.
    """

    def __init__(
        self,
        model,
        structure,
        rates=(),
        state=None,
        *,
        device="cpu",
        nonnegative=(),
        max_grad_norm=1.0,
        max_rejected=10,
    ):
        self.like, self.structure, self.rates = model.circuit, structure, dict(rates)
        self.device, self.max_grad_norm, self.max_rejected = device, max_grad_norm, max_rejected
        dtype = model.circuit.weights.dtype
        groups = {"circuit": self.structure.parameters(model.circuit), "arrays": model.arrays}
        self.parameters = {
            (group, name): torch.tensor(
                np.asarray(value, dtype=dtype), device=self.device, requires_grad=True
            )
            for group, values in groups.items()
            for name, value in values.items()
        }
        magnitudes = [("circuit", structure.magnitudes)] if structure.magnitudes else []
        self.at_least_0 = magnitudes + [("arrays", name) for name in nonnegative]
        self.backoff, self.ceiling, self.caution, self.n_in_a_row = 1.0, 1.0, 1.0, 0
        self.good = self._snapshot()  # the latest under which a window did not diverge
        self.anchors = []  # those that were confirmed in the long run
        self._restart(state)
        self.tensors()  # at the start an error is an error, later a step too far

    @property
    def gave_up(self):
        return self.n_in_a_row > self.max_rejected

    @property
    def n_parameters(self):
        return sum(value.numel() for value in self.parameters.values())

    def made(self, change=None):
        """Circuit and arrays made of the parameters; None if a step has left all bounds.

        Parameters
        ----------
        change : Tensor of shape (n_parameters,), default=None
            Added to the parameters before.
        """
        values = self.parameters
        if change is not None:
            values = {
                k: v + c for (k, v), c in zip(values.items(), self._split(change), strict=True)
            }
        if not torch.cat([value.detach().flatten() for value in values.values()]).isfinite().all():
            return None
        try:
            return self.tensors(values)
        except (torch.linalg.LinAlgError, ValueError):  # no Cholesky factor, overflow
            return None

    def tensors(self, values=None):
        """Circuit and arrays made of the parameters, or of a snapshot of them."""
        groups = {"circuit": {}, "arrays": {}}
        for (group, name), value in (values or self.parameters).items():
            groups[group][name] = value
        return self.structure.circuit(groups["circuit"], self.like), groups["arrays"]

    def model(self, values=None):
        with torch.no_grad():
            circuit, arrays = self.tensors(values)
        arrays = {name: value.detach().cpu().numpy().copy() for name, value in arrays.items()}
        return Model(circuit.to_numpy(), arrays)

    def backward(self, loss, retain_graph=False):
        """Add up the gradients anew."""
        self.optimizer.zero_grad()
        loss.backward(retain_graph=retain_graph)

    def set_gradient(self, gradient):
        """Take one that did not come by `backward`, of shape (n_parameters,)."""
        parts = self._split(gradient)
        for value, part in zip(self.parameters.values(), parts, strict=True):
            value.grad = part.clone()

    def gradients(self):
        """Running means of the gradients, by group and name; {} before the first step."""
        return {key: known["exp_avg"] for key, known in self.optimizer_state().items()}

    def _split(self, flat):
        parts = flat.split([value.numel() for value in self.parameters.values()])
        return [p.view_as(v) for p, v in zip(parts, self.parameters.values(), strict=True)]

    def step(self, loss, rate):
        """One step down the gradient, from parameters under which nothing diverged.

        Returns the loss, or None where it, or the gradient, is not finite.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.max_grad_norm)
        if not (torch.isfinite(norm) and math.isfinite(loss)):
            return None
        self.good = self._snapshot()
        self.n_in_a_row = 0
        self.backoff = min(self.ceiling, self.backoff * RECOVERY)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.backoff * group["factor"]
        self.optimizer.step()
        with torch.no_grad():
            for key in self.at_least_0:
                self.parameters[key].clamp_(min=0)
        return loss

    def reject(self, weaken=False):
        """Undo the last step.

        If the parameters before it are no better, go back to the last anchor, and weaken
        the excitation among excitatory cells: a gradient that keeps leading out of the
        stable region would else lead there again.
        """
        self.n_in_a_row += 1
        weaken |= self.n_in_a_row > 1
        source = self.anchors[-1] if weaken and self.anchors else self.good
        with torch.no_grad():
            for key, value in self.parameters.items():
                value.copy_(source[key])
            if weaken:
                self._weaken(self.parameters, WEAKENING ** max(1, self.n_in_a_row - 1))
        self.backoff /= 2
        self.ceiling = max(LEAST_RATE, MEMORY * self.ceiling)
        self.caution = min(MOST_CAUTION, CAUTION * self.caution)
        self._calm()

    def weakened(self):
        """Models of the last good parameters, with ever less excitation among E cells."""
        values = {key: value.clone() for key, value in self.good.items()}
        for _ in range(MAX_WEAKENED):
            self._weaken(values, WEAKENING)
            yield self.model(values)

    def _weaken(self, values, factor):
        free = {name: value for (_, name), value in values.items()}
        self.structure.weaken(free, self.like.n_excitatory, factor)

    def optimizer_state(self):
        """What Adam knows, by group and name."""
        state = self.optimizer.state
        return {
            key: {k: v.cpu().numpy() for k, v in state[value].items()}
            for key, value in self.parameters.items()
            if value in state
        }

    def state(self):
        """All that a descent from the same start needs to go on as this one."""
        return {
            "values": _arrays(self.parameters),
            "good": _arrays(self.good),
            "anchors": [_arrays(values) for values in self.anchors],
            "numbers": (self.backoff, self.ceiling, self.caution, self.n_in_a_row),
            "optimizer": self.optimizer_state(),
        }

    def restore(self, state):
        with torch.no_grad():
            for key, value in self.parameters.items():
                value.copy_(torch.from_numpy(state["values"][key]))
        self.good = self._tensors(state["good"])
        self.anchors = [self._tensors(values) for values in state["anchors"]]
        self.backoff, self.ceiling, self.caution, self.n_in_a_row = state["numbers"]
        self._restart(state["optimizer"])

    def _tensors(self, arrays):
        return {key: torch.tensor(value, device=self.device) for key, value in arrays.items()}

    def _restart(self, state=None):
        groups = {}
        for (_, name), value in self.parameters.items():
            groups.setdefault(name if name in self.rates else None, []).append(value)
        groups = [
            {"params": values, "factor": self.rates.get(name, 1.0)}
            for name, values in groups.items()
        ]
        # one kernel a group: with small circuits the optimiser is a good part of a step
        self.optimizer = torch.optim.Adam(groups, fused=True)
        for key, known in (state or {}).items():
            value = self.parameters[key]
            self.optimizer.state[value] = {
                k: torch.tensor(v, device=value.device) for k, v in known.items()
            }

    def _calm(self):
        """Forget where Adam was heading, but not how large gradients are.

        Without these its next step would change all parameters by the whole rate.
        """
        for state in self.optimizer.state.values():
            state["exp_avg"].zero_()

    def _snapshot(self):
        return {key: value.detach().clone() for key, value in self.parameters.items()}


def _arrays(values):
    return {key: value.detach().cpu().numpy().copy() for key, value in values.items()}
