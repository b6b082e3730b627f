"""From what an estimator was told to the circuit, its readout and its free parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral, Real

import numpy as np

from ssn_estimators._sklearn import validate_data
from ssn_estimators._torch import to_numbers
from ssn_estimators.circuit import Circuit
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.fitting.data import errors_of, responses_of
from ssn_estimators.fitting.parameters import QUANTITIES, Free, Parameters, parameters_of
from ssn_estimators.fitting.steady import Conditions
from ssn_estimators.fitting.traces import Follower, Recording, Traces
from ssn_estimators.inspection.populations import choose_cells

__all__ = [
    "Model",
    "by_cell",
    "circuit_with",
    "data_of",
    "labels_of",
    "means_of",
    "model_of",
    "numbers_of",
    "recordings_of",
    "responses_in_time",
    "sessions_of",
    "with_conditions",
]

USUAL_WEIGHTS = [[0.5, -0.5], [0.5, -0.25]]  # mV s; stable under any input
USUAL_K = 0.04


@dataclass(frozen=True, eq=False)
class Model:
    """A circuit, what is seen of it and what is free.

    Parameters
    ----------
    circuit : Circuit
    readout : ndarray of shape (n_outputs, n_neurons)
    parameters : Parameters
    potentials : bool
        Whether potentials are seen, not rates.
    sessions : tuple of str
        Their labels; empty if there are none.
    """

    circuit: Circuit
    readout: np.ndarray
    parameters: Parameters
    potentials: bool
    sessions: tuple = ()

    def conditions(self, X, perturbation, sessions=None):
        """What the circuit is shown."""
        extra = by_cell(self.circuit, perturbation, len(X), "perturbation")
        law = replace(self.circuit, k=1.0)
        numbers = numbers_of(sessions, len(X), self.sessions)
        return Conditions(*self.shown(X, numbers), extra, self.readout, law, self.potentials)

    def shown(self, X, numbers):
        """Inputs in columns of their sessions, and which session it is."""
        which = np.eye(max(1, len(self.sessions)))[numbers]
        return np.einsum("cs,ci->csi", which, X).reshape(len(X), which.shape[1] * X.shape[1]), which


def data_of(estimator, X, y, **others):
    """Inputs, responses and whether these had one axis; none of both if there are others only."""
    if X is None and y is None:
        for kinds, given in others.items():
            first = given[0] if isinstance(given, list | tuple) and given else given
            if first is not None:
                return _without_responses(estimator, first, kinds)
    X = validate_data(estimator, X, dtype=np.float64, ensure_min_samples=2)
    return X, *responses_of(y, len(X))


def _without_responses(estimator, first, kinds):
    if not hasattr(first, "inputs"):
        kind = kinds.capitalize()
        raise ValueError(f"{kinds} must be {kind} or a sequence of them, got {first!r}.")
    inputs = to_numbers(first.inputs, float, f"inputs of {kinds}")
    estimator.n_features_in_ = inputs.shape[1] if inputs.ndim == 2 else 0
    n_outputs = _n_seen(estimator)
    if isinstance(first, Traces):
        n_outputs = np.shape(first.responses)[-1] if np.ndim(first.responses) > 1 else 1
    return np.zeros((0, estimator.n_features_in_)), np.zeros((0, n_outputs)), False


def _n_seen(estimator):
    """Number of outputs of a model without responses."""
    if estimator.observed is not None:
        return len(estimator.observed)
    return 1 if estimator.circuit is None else estimator.circuit.n_neurons


def model_of(estimator, X, n_outputs, in_time=False, fluctuates=False, sessions=()):
    """The model of an estimator's parameters, or why there is none."""
    circuit = estimator.circuit
    usual = circuit is None
    circuit = _usual_circuit(n_outputs) if usual else circuit.dense("fits").to_numpy()
    _check_kind(circuit, in_time)
    n = circuit.n_neurons
    arrays = {
        "weights": circuit.weights,
        "input_map": _input_map(circuit, estimator.input_map, X, usual),
        "baseline": by_cell(circuit, estimator.baseline, 1, "baseline")[0],
        "k": np.broadcast_to(circuit.of_cells("k", circuit.weights), n),
        "tau": circuit.tau,
        "noise": np.ones(n),
    }
    frees = [_checked_free(free, usual) for free in _listed(estimator.free)]
    _check_free({free.quantity for free in frees}, circuit, in_time, fluctuates)
    if in_time and circuit.dynamics == "rate" and estimator.response == "potentials":
        raise ValueError("Traces of a circuit in the rate form are rates: it has no potentials.")
    if any(free.per_session for free in frees) != bool(sessions):
        raise ValueError(
            "sessions and Free(..., per_session=True), of what differs between them, go together."
        )
    if estimator.connectivity is not None and not hasattr(estimator.connectivity, "space"):
        raise ValueError(f"connectivity must be a Connectivity, got {estimator.connectivity!r}.")
    own = circuit.populations, sessions, estimator.connectivity
    parameters = parameters_of(frees, arrays, *own)
    readout = _readout(circuit, estimator.observed, n_outputs)
    return Model(circuit, readout, parameters, estimator.response == "potentials", sessions)


def _check_free(quantities, circuit, in_time, fluctuates):
    if "noise" in quantities and not fluctuates:
        raise ValueError(
            "noise cannot be free without spectra or covariances: steady states have none."
        )
    if "tau" in quantities and not in_time and not fluctuates:
        raise ValueError(
            "tau cannot be free without traces, spectra or covariances: steady states do not "
            "depend on it."
        )
    if "tau" in quantities and circuit.receptors is not None:
        raise ValueError("tau cannot be free in circuits with receptors, which do without.")


def _check_kind(circuit, in_time):
    if in_time and circuit.receptors is not None:
        raise ValueError("traces are fitted by circuits without receptors.")
    if in_time and circuit.rate_function is not None:
        raise ValueError(
            f"traces are fitted by circuits with the power law, got {circuit.rate_function}."
        )


def with_conditions(given, kind, checked, model, conditions, Y, errors):
    """Values of a kind as targets, and conditions, responses and errors with theirs, not seen.

    ``checked(own, model, rows)`` makes a target of one of them, given the slice of its conditions.
    """
    targets, name = [], kind.__name__.lower()
    for own in [given] if isinstance(given, kind) else () if given is None else given:
        if not isinstance(own, kind):
            raise ValueError(f"{name} must be {kind.__name__} or a sequence of them, got {own!r}.")
        if model.circuit.rate_function is not None:
            raise ValueError(
                f"{name} are fitted by circuits with the power law, got "
                f"{model.circuit.rate_function}."
            )
        X = to_numbers(own.inputs, float, f"inputs of {name}")
        n_inputs = conditions.X.shape[1] // conditions.sessions.shape[1]
        if X.ndim != 2 or X.shape[1] != n_inputs or not np.isfinite(X).all():
            raise ValueError(
                f"inputs of {name} must be finite and of shape (n_conditions, {n_inputs}), got "
                f"{X.shape}."
            )
        extra = by_cell(model.circuit, own.perturbation, len(X), "perturbation")
        X, which = model.shown(X, numbers_of(own.session, len(X), model.sessions))
        first = len(conditions.X)
        targets.append(checked(own, model, slice(first, first + len(X))))
        conditions = replace(
            conditions,
            X=np.vstack([conditions.X, X]),
            sessions=np.vstack([conditions.sessions, which]),
            extra=np.vstack([conditions.extra, extra]),
        )
        unseen = np.ones((len(X), Y.shape[1]))
        Y, errors = np.vstack([Y, np.nan * unseen]), np.vstack([errors, unseen])
    return tuple(targets), conditions, Y, errors


def recordings_of(traces, model, n_inputs):
    """Traces, checked, as recordings of a model's circuit."""
    traces = [traces] if isinstance(traces, Traces) else list(traces)
    return tuple(_recording(own, model, n_inputs) for own in traces)


def responses_in_time(estimator, inputs, **options):
    """What a fitted estimator's circuit does in time, unless it runs away."""
    circuit, readout, n = estimator.circuit_, estimator.readout_, estimator.circuit_.n_neurons
    arrays = {
        "weights": circuit.weights,
        "input_map": np.hstack(estimator.input_map_.reshape(-1, n, estimator.n_features_in_)),
        "baseline": estimator.baseline_.reshape(-1, n).T,
        "k": np.broadcast_to(circuit.of_cells("k", circuit.weights), circuit.n_neurons),
        "tau": circuit.tau,
    }
    parameters = Parameters(arrays, [], {"names": []})
    sessions = sessions_of(estimator)
    model = Model(circuit, readout, parameters, estimator.response == "potentials", sessions)
    traces = Traces(inputs, np.zeros((len(inputs), len(readout))), **options)
    recordings = recordings_of(traces, model, estimator.n_features_in_)
    nothing = np.zeros((0, estimator.n_features_in_))
    conditions = model.conditions(nothing, None)
    follower = Follower(recordings, parameters, conditions, circuit.dynamics == "rate")
    found = follower.outputs(recordings[0], arrays)[..., -1].copy()
    if not np.isfinite(found).all():
        raise DivergenceError("Activity runs away: give weaker inputs, or a shorter dt.")
    return found


def _recording(own, model, n_inputs):
    circuit, n = model.circuit, model.circuit.n_neurons
    if not isinstance(own, Traces):
        raise ValueError(f"traces must be Traces or a sequence of them, got {own!r}.")
    X = to_numbers(own.inputs, float, "inputs of traces")
    if X.ndim != 2 or X.shape[1] != n_inputs or not np.isfinite(X).all():
        raise ValueError(
            f"inputs of traces must be finite and of shape (n_steps, {n_inputs}), got {X.shape}."
        )
    Y, _ = responses_of(own.responses, len(X))
    if Y.shape[1] != len(model.readout):
        raise ValueError(
            f"responses of traces must have {len(model.readout)} columns, got {Y.shape[1]}."
        )
    errors = errors_of(own.sample_error, Y)
    if not isinstance(own.dt, Real) or not 0 < own.dt < np.inf:
        raise ValueError(f"dt of traces must be a finite number > 0, got {own.dt!r}.")
    initial = np.zeros(n) if own.initial is None else to_numbers(own.initial, float, "initial")
    if initial.shape != (n,) or not np.isfinite(initial).all():
        raise ValueError(f"initial of traces must be finite and of shape ({n},).")
    extra = None if own.perturbation is None else [own.perturbation]
    extra = by_cell(circuit, extra, 1, "perturbation")[0]
    first = int(np.argmax(np.isfinite(Y).any(1)))
    session = int(numbers_of(own.session, 1, model.sessions)[0])
    seen = Y[first:], errors[first:]
    return Recording(X, extra, initial, first, *seen, float(own.dt), session)


def _usual_circuit(n_outputs):
    weights = np.kron(USUAL_WEIGHTS, np.full((n_outputs, n_outputs), 1 / n_outputs))
    return Circuit(weights, n_outputs, k=USUAL_K)


def _input_map(circuit, given, X, usual):
    n, n_inputs = circuit.n_neurons, X.shape[1]
    sizes = np.array(list(circuit.populations.values()))
    if given is not None:
        given = to_numbers(given, float, "input_map")
        if given.shape != (n, n_inputs) or not np.isfinite(given).all():
            raise ValueError(
                f"input_map must be finite and of shape ({n}, {n_inputs}) for {n} cells and "
                f"{n_inputs} inputs, got shape {given.shape}."
            )
        return given
    if usual:
        size = X.std(0) if len(X) else np.ones(n_inputs)
        return np.tile(1 / np.where(size > 0, size, 1.0) / np.sqrt(n_inputs), (n, 1))
    if n_inputs == n:
        return np.eye(n)
    if n_inputs == len(sizes):
        return np.repeat(np.eye(len(sizes)), sizes, axis=0)
    raise ValueError(
        f"X has {n_inputs} inputs, which are neither drives of {n} cells nor of {len(sizes)} "
        f"populations: input_map of shape ({n}, {n_inputs}) must say where they go."
    )


def _listed(free):
    free = list(free)
    if not free:
        raise ValueError("free is empty: there is nothing to fit.")
    return free


def _checked_free(free, usual):
    if isinstance(free, Free):
        return free
    if not isinstance(free, str) or free not in QUANTITIES:
        raise ValueError(f"free must have names out of {QUANTITIES}, or Free values; got {free!r}.")
    if usual and free == "input_map":
        return Free(free, by="each", scale="linear", spread=2.0)
    return Free(free, by="each") if usual and free == "baseline" else Free(free)


def _readout(circuit, observed, n_outputs):
    """Weights of cells in each column of y."""
    n, populations = circuit.n_neurons, list(circuit.populations)
    if observed is None:
        if n_outputs == n:
            observed = range(n)
        elif n_outputs == len(populations):
            observed = populations
        elif n_outputs == circuit.n_excitatory:
            observed = range(n_outputs)
        else:
            raise ValueError(
                f"y has {n_outputs} columns, neither one for each of {n} cells nor for each of "
                f"{len(populations)} populations: observed must say what they are."
            )
    observed = list(observed)
    if len(observed) != n_outputs:
        raise ValueError(f"observed names {len(observed)} columns of y, which has {n_outputs}.")
    return means_of(circuit, observed)


def means_of(circuit, names):
    """Weights of cells in the means over what is named, of shape (n_names, n_neurons)."""
    names = list(names)
    readout = np.zeros((len(names), circuit.n_neurons))
    for row, name in zip(readout, names, strict=True):
        cells = choose_cells(circuit, [name] if isinstance(name, Integral) else name)
        row[cells] = 1 / len(cells)
    return readout


def by_cell(circuit, values, n_rows, name):
    """Numbers for each of n_rows and each cell, from those of populations, or of cells, or 0."""
    n, sizes = circuit.n_neurons, list(circuit.populations.values())
    if values is None:
        return np.zeros((n_rows, n))
    numbers = to_numbers(values, float, name)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity.")
    rows = "" if name == "baseline" else f"{n_rows}, "
    if name == "baseline":
        numbers = np.atleast_1d(numbers)
        numbers = np.broadcast_to(numbers, n) if numbers.shape == (1,) else numbers
        numbers = numbers[None]
    if numbers.shape == (n_rows, n):
        return numbers
    if numbers.shape == (n_rows, len(sizes)):
        return np.repeat(numbers, sizes, axis=1)
    raise ValueError(
        f"{name} must have shape ({rows}{n}) for cells or ({rows}{len(sizes)}) for populations, "
        f"got {np.shape(values)}."
    )


def labels_of(sessions, n_rows):
    """Labels of n_rows, as strings, from as many or from one."""
    labels = np.asarray(sessions)
    if labels.dtype == object and all(isinstance(label, str) for label in labels.ravel()):
        labels = labels.astype(str)
    if labels.dtype.kind not in "iuU" or labels.shape not in ((), (n_rows,)):
        raise ValueError(
            f"sessions must be a label (str or int), or one for each of {n_rows} conditions; got "
            f"{sessions!r}."
        )
    return np.broadcast_to(labels.astype(str), n_rows)


def numbers_of(sessions, n_rows, known):
    """Numbers of the sessions of n_rows, among those known; 0 if there are none."""
    if not n_rows:
        return np.zeros(0, int)
    if (sessions is None) == bool(known):
        raise ValueError(
            f"there are the sessions {list(known)}: of which one is it?"
            if known
            else f"the fit has no sessions, got {sessions!r}."
        )
    if not known:
        return np.zeros(n_rows, int)
    labels = labels_of(sessions, n_rows)
    unknown = sorted(set(labels.tolist()) - set(known))
    if unknown:
        raise ValueError(f"there are no sessions {unknown}, but {list(known)}.")
    return np.array([known.index(label) for label in labels.tolist()])


def sessions_of(estimator):
    """Labels of the sessions of a fit, empty if there are none."""
    labels = getattr(estimator, "sessions_", None)  # of which fits of before know nothing
    return () if labels is None else tuple(labels.tolist())


def circuit_with(circuit, parameters, theta):
    """The circuit with fitted numbers."""
    arrays = parameters.arrays(theta)
    tau_e, tau_i = np.split(arrays["tau"], [circuit.n_excitatory])
    tau_i = tau_i if len(tau_i) else circuit.tau_i
    noise = arrays["noise"][:, None] * circuit.noise_factor
    made = {"weights": arrays["weights"], "k": arrays["k"], "tau_e": tau_e, "tau_i": tau_i}
    made["noise_factor"] = noise
    return replace(circuit, **made)
