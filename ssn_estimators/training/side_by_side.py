"""Trainings side by side: each waits for simulations, which are run in batches.

A training is a generator. It yields `Forward` and gets the simulation, whose moments are
leaves of its own graph; having led its loss back to them, it yields `Backward`, which leads on
to its parameters. One training or a hundred are written, and behave, the same. One that simulates
nothing for long yields None now and then, so that Ctrl-C finds it.
"""

from __future__ import annotations

import signal
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from sklearn.exceptions import ConvergenceWarning

from ssn_estimators._threads import alone
from ssn_estimators.circuit import kind_of
from ssn_estimators.simulation import Trials, simulate_trials

__all__ = ["Backward", "Forward", "run_together"]

ANSWERS = ("mean", "covariance", "rates", "u")  # that have a gradient


@dataclass(frozen=True, eq=False)
class Forward:
    """A simulation that a training asks for.

    Parameters
    ----------
    circuit : Circuit
        One of tensors.
    drive : Tensor
        See :func:`simulate`.
    trials : Trials
    random_state : RandomState or int
        Source of the noise.
    gradient : bool, default=True
        Whether there will be a `Backward`.
    record : tuple of str, default=()
        Trajectories that are wanted: a loss may be one of "u".
    initial : State, default=None
        Where to begin; `Backward` leads to its potentials too, if they have a graph.
    """

    circuit: object
    drive: torch.Tensor
    trials: Trials
    random_state: object
    gradient: bool = True
    record: tuple = ()
    initial: object = None

    def kind(self):
        """Equal for simulations that can be run in one batch."""
        circuit = self.circuit
        arrays = circuit.weights.dtype, circuit.weights.device, tuple(self.drive.shape)
        how = self.gradient, self.trials, self.record, self.initial is None
        return (kind_of(circuit), *arrays, *how, len(self.sources()))

    def sources(self):
        """What it is made of, with a graph of the training."""
        given = [self.circuit.weights, self.circuit.noise_factor, self.drive]
        if self.initial is not None and self.initial.state.requires_grad:
            given.append(self.initial.state)
        return given


@dataclass(frozen=True, eq=False)
class Backward:
    """The gradient of a simulation's moments is known, or is not wanted after all.

    `more` says that there will be others through the same circuit.
    """

    forward: Forward
    more: bool = False


class _Batch:
    """Simulations that are run as one, and the way back through them."""

    def __init__(self, forwards, simulate):
        gradient = forwards[0].gradient
        self.sources = [forward.sources() for forward in forwards]
        self.leaves, circuits, drives, initial = [], [], [], []
        for forward, sources in zip(forwards, self.sources, strict=True):
            leaves = [x.detach().requires_grad_(gradient) for x in sources]
            self.leaves += leaves
            arrays = {"weights": leaves[0], "noise_factor": leaves[1]}
            circuits.append(forward.circuit.with_checked(arrays))
            drives.append(leaves[2])
            if forward.initial is not None:
                state = leaves[3] if len(leaves) == 4 else forward.initial.state
                initial.append(forward.initial._replace(state=state))
        first, random_states = forwards[0], [forward.random_state for forward in forwards]
        more = {"record": first.record} if first.record else {}
        if initial:
            more["initial"] = initial
        simulations = simulate(circuits, drives, first.trials, random_states, **more)
        self.moments, self.answers = [], []
        for simulation in simulations:
            own = {name: getattr(simulation, name) for name in ANSWERS}
            own = {name: value for name, value in own.items() if value is not None}
            self.moments.append(own)
            seen = {name: x.detach().requires_grad_(gradient) for name, x in own.items()}
            self.answers.append(replace(simulation, **seen))

    def backward(self, more):
        moments, gradients, wanted = [], [], []
        for answer, own in zip(self.answers, self.moments, strict=True):
            found = {name: getattr(answer, name).grad for name in own}
            found = {name: gradient for name, gradient in found.items() if gradient is not None}
            wanted.append(bool(found))
            moments += [own[name] for name in found]
            gradients += found.values()
        if not moments:
            return
        found = torch.autograd.grad(moments, self.leaves, gradients)
        for i, sources in enumerate(self.sources):
            if wanted[i]:
                own = found[i * len(sources) : (i + 1) * len(sources)]
                pairs = zip(sources, own, strict=True)
                pairs = [(source, gradient) for source, gradient in pairs if source.requires_grad]
                torch.autograd.backward(*zip(*pairs, strict=True), retain_graph=more)


class _Batches:
    """Answers requests, those of one kind together, and knows the way back."""

    def __init__(self, simulate):
        self.simulate, self.of_forward = simulate, WeakKeyDictionary()

    def groups(self, requests):
        """Numbers of the requests that can be answered together."""
        groups = {}
        for i, request in requests.items():
            if isinstance(request, Forward):
                kind = request.kind()
            else:
                kind = id(self.of_forward[request.forward])
            groups.setdefault((type(request), kind), []).append(i)
        return list(groups.values())

    def answers(self, requests):
        """To requests of one group, in order."""
        if isinstance(requests[0], Forward):
            batch = _Batch(requests, self.simulate)
            self.of_forward.update(dict.fromkeys(requests, batch))
            return batch.answers
        self.of_forward[requests[0].forward].backward(any(request.more for request in requests))
        return [None] * len(requests)


@contextmanager
def _deferred_interrupt():
    """Gives a function that tells whether Ctrl-C was pressed since the last time it was asked.

    It then reaches all trainings, where each of them waits, instead of one of them somewhere. If
    pressed again before it is asked for, it is raised at once, as always.
    """
    pressed = []

    def note(*_):
        if pressed:
            pressed.clear()
            raise KeyboardInterrupt
        pressed.append(True)

    def asked():
        return bool(pressed) and pressed.pop()

    usual = signal.default_int_handler
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not usual
    ):
        yield asked
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, usual)


def run_together(trainings, simulate=None):
    """Run trainings to their ends; what they return, in order.

    Ctrl-C reaches all of them; each keeps what it has. Controls put another function in the place
    of :func:`simulate_trials`.
    """
    batches = _Batches(simulate or simulate_trials)
    results, active, requests = [None] * len(trainings), {}, {}

    def advance(i, step, *value):
        try:
            requests[i] = step(*value)
        except StopIteration as stop:
            results[i] = stop.value
            active.pop(i, None)

    # up to its first simulation a training has nothing to keep
    for i, training in enumerate(trainings):
        active[i] = training
        advance(i, training.send, None)
    with _deferred_interrupt() as pressed, alone():
        while active:
            answers, interrupted = {}, pressed()
            asked = {i: requests[i] for i in active if requests[i] is not None}
            try:
                for group in batches.groups(asked):
                    if interrupted:
                        break
                    found = batches.answers([asked[i] for i in group])
                    answers |= dict(zip(group, found, strict=True))
                    interrupted = pressed()
            except KeyboardInterrupt:
                interrupted = True
            for i, training in list(active.items()):
                if interrupted:
                    advance(i, training.throw, KeyboardInterrupt())
                else:
                    advance(i, training.send, answers.get(i))
    if pressed():
        warnings.warn(
            "Interrupted by the user when training was over: what it led to is kept.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return results
