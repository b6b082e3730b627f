"""Whatever comes in: an answer, or an error that somebody meant, before work starts.

Values are legal, nearly so, or nonsense. An error is meant if the line that raised it says so, in
this package or in scikit-learn's validation: an IndexError of NumPy's or a RuntimeError of torch's
is not. Answers are finite, or say where they are not.
"""

import linecache
import os
import traceback
import warnings
from inspect import Parameter, signature
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.base import clone
from zoo import ESTIMATORS, METHODS, short_confirmations

import ssn_estimators
from ssn_estimators import (
    Circuit,
    Receptors,
    circuits,
    geometry,
    rate_functions,
    simulate,
    stationary_moments,
    stimuli,
)
from ssn_estimators import datasets as made
from ssn_estimators.inspection import (
    ei_balance,
    fixed_points,
    jacobian,
    oscillations,
    power_spectrum,
    response_matrix,
    steady_states,
)
from ssn_estimators.lateral import add_gaussian_noise, add_salt_pepper

MEANT = (ValueError, TypeError, FloatingPointError, ssn_estimators.DivergenceError)
LONGER = int(os.environ.get("FUZZ", "0"))  # times as many cases as usual, with -m slow
NONSENSE = st.sampled_from(
    [
        *(None, True, -1, 0, 1, 2, 3, 2.5, 0.0, -0.5, 1e-300, 1e300, float("nan"), float("inf")),
        *("x", "", b"x", [], [1], (1, 2), {}, {"a": 1}, object(), np.float32(0.5), np.int64(2)),
        *(np.array(2.0), np.array([1.0, 2.0]), 1j, "heun", "linear", "double", 10**30),
    ]
)
NUMBERS = st.one_of(
    st.floats(-5, 20, width=32),
    st.sampled_from([0.0, 1e-30, 1e10, 1e38, 1e200, np.nan, np.inf, -np.inf]),
)


def check(call):
    """Do it, and say what came of it; fail on an error that nobody meant."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return call()
        except MEANT as error:
            told = error
    frame = traceback.extract_tb(told.__traceback__)[-1]
    where = frame.filename.replace("\\", "/")
    line = linecache.getline(frame.filename, frame.lineno).strip()
    ours = "/ssn_estimators/" in where or "/sklearn/" in where
    if not (ours and line.startswith("raise") and str(told)):
        raise AssertionError(f"{where}:{frame.lineno}: {line}: {told!r}") from told
    return None


def fuzz(n):
    """Few cases, always the same, in every run of the tests; many where they are asked for."""
    options = {
        "deadline": None,
        "derandomize": True,
        "database": None,
        "suppress_health_check": list(HealthCheck),
    }

    def decorate(test):
        few = settings(max_examples=n, **options)(given(st.data())(test))
        many = settings(max_examples=max(LONGER, 1) * n, **options)(given(st.data())(test))
        asked = pytest.mark.skipif(not LONGER, reason="asked for by FUZZ=5, or more")

        @pytest.mark.parametrize("run", [few, pytest.param(many, marks=[pytest.mark.slow, asked])])
        def both(run):
            run()

        both.__name__, both.__doc__ = test.__name__, test.__doc__
        return both

    return decorate


@st.composite
def arrays(draw, shapes):
    """Of one of some shapes, of numbers or nonsense."""
    if draw(st.integers(0, 9)) == 0:
        return draw(NONSENSE)
    shape = draw(st.sampled_from(shapes))
    size = int(np.prod(shape))
    plain = draw(st.booleans())
    values = draw(
        st.lists(st.floats(0, 5, width=32) if plain else NUMBERS, min_size=size, max_size=size)
    )
    array = np.array(values, float).reshape(shape)
    kind = draw(st.sampled_from(["array", "list", "float32", "tensor", "reversed", "object"]))
    return {
        "array": lambda: array,
        "list": array.tolist,
        "float32": lambda: array.astype(np.float32),
        "tensor": lambda: torch.tensor(array),
        "reversed": lambda: array[::-1] if array.ndim else array,
        "object": lambda: array.astype(object),
    }[kind]()


@st.composite
def some_circuits(draw):
    """Legal ones, of few cells and of any strength."""
    n_e, n_i = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    n = n_e + n_i
    size = draw(st.sampled_from([0.01, 0.3, 3.0, 1e6]))
    rng = np.random.RandomState(draw(st.integers(0, 1000)))
    weights = size * abs(rng.standard_normal((n, n))) * np.where(np.arange(n) < n_e, 1, -1)
    weights = weights.astype(draw(st.sampled_from([np.float32, np.float64])))
    law = {"gamma": draw(st.sampled_from([1.0, 2.0, 2.5, 3.0, np.linspace(1.0, 2.0, n)]))}
    return Circuit(
        draw(st.sampled_from([weights, weights, weights, csr_array(weights)])),
        n_e,
        draw(st.sampled_from([0.0, 0.2, 1e4])),
        k=draw(st.sampled_from([0.04, 0.3, np.linspace(0.1, 0.2, n)])),
        **draw(st.sampled_from([law, law, *({"rate_function": x} for x in FUNCTIONS)])),
        **draw(st.sampled_from([{}, {}, {"dynamics": "rate"}, filters(n_i)])),
    )


FUNCTIONS = [
    rate_functions.AbbottChance(),
    rate_functions.MillerTroyer(0.5, gamma=1.5),
    rate_functions.Ricciardi(sigma=1.0),
    rate_functions.Saturating(100.0, 200.0),
]


def filters(n_inhibitory):
    shares = {"E": {"fast": 0.5, "slow": 0.5}} | ({"I": {"fast": 1.0}} if n_inhibitory else {})
    return {"receptors": Receptors({"fast": 4.0, "slow": 60.0}, shares)}


@fuzz(60)
def test_circuits(data):
    arguments = {
        "weights": data.draw(arrays([(2, 2), (1, 1), (2, 3), (4,), (0, 0), ()])),
        "n_excitatory": data.draw(st.one_of(st.sampled_from([1, 2]), NONSENSE)),
        "noise_factor": data.draw(arrays([(), (2, 2), (1, 1), (2,)])),
    }
    names = ["theta", "k", "gamma", "tau_e", "tau_eta", "tau", "populations", "dynamics"]
    names += ["rate_function", "receptors"]
    for name in data.draw(st.sets(st.sampled_from(names))):
        arguments[name] = data.draw(NONSENSE)
    circuit = check(lambda: Circuit(**arguments))
    if circuit is not None:
        drive = check(lambda: circuit.drive(np.ones((2, circuit.n_neurons))))
        assert np.isfinite(np.asarray(drive.detach() if torch.is_tensor(drive) else drive)).all()


TIMES = st.sampled_from([1.0, 2, 5.0, 7.3, 20.0])


@fuzz(60)
def test_simulations(data):
    circuit = data.draw(some_circuits())
    n = circuit.n_neurons
    options = {"duration": data.draw(TIMES), "burn_in": data.draw(TIMES), "n_trials": 2}
    names = set(signature(simulate).parameters) - {"circuit", "drive"}
    for name in data.draw(st.sets(st.sampled_from(sorted(names)), max_size=3)):
        options[name] = data.draw(NONSENSE)
    drive = data.draw(arrays([(1, n), (3, n), (27, 2, n), (2, n + 1), (n,), (0, n), (2, 0)]))
    found = check(lambda: simulate(circuit, drive, **options))
    if found is not None:
        some = ~np.asarray(found.diverged).all(1)
        for name in ("mean", "covariance", "rates"):
            moments = getattr(found, name)
            assert moments is None or np.isfinite(np.asarray(moments)[some]).all()
            assert moments is None or np.isnan(np.asarray(moments)[~some]).all()


@fuzz(40)
def test_stationary_states(data):
    circuit = data.draw(some_circuits())
    n = circuit.n_neurons
    drive = data.draw(arrays([(1, n), (3, n), (2, n + 1), (n,), (0, n)]))
    options = {}
    for name in data.draw(st.sets(st.sampled_from(["closure", "tol"]), max_size=1)):
        options[name] = data.draw(NONSENSE)
    if circuit.dynamics == "rate":
        options = {"closure": "linear"}
    found = check(lambda: stationary_moments(circuit, drive, max_iter=20, **options))
    if found is not None:
        assert np.isfinite(found.mean[found.converged]).all()
        assert (np.einsum("nii->ni", found.covariance[found.converged]) >= 0).all()
    looks = (jacobian, ei_balance, steady_states, response_matrix)
    for look in (*looks, lambda *args: power_spectrum(*args, [1.0, 10.0])):
        check(lambda look=look: look(circuit, drive))
    check(lambda: fixed_points(circuit, drive, n_starts=2))
    check(lambda: oscillations(circuit, drive, settling=10.0, duration=10.0))


LARGE = "obeid_2021_sheet"
TRIALS = made.make_cognitive_task("dms", 3, n_ring=4, random_state=0)


class Flashes:
    """What an environment with trials needs at least."""

    dt = 10.0

    def new_trial(self):
        self.ob, self.gt = np.ones((3, 1)), np.zeros(3, int)

    def seed(self, seed):
        pass


MAKERS = [getattr(made, name) for name in made.__all__ if not name.startswith("make_ring")]
MAKERS += [
    ssn_estimators.low_rank_init,
    ssn_estimators.dale_init,
    ssn_estimators.random_circuit,
    ssn_estimators.stage_sizes,
    ssn_estimators.with_inhibition,
    ssn_estimators.from_connectivity,
    ssn_estimators.gaussian_ring,
    ssn_estimators.gabor_filters,
    ssn_estimators.energy_distance,
    ssn_estimators.sliced_wasserstein,
    add_gaussian_noise,
    add_salt_pepper,
    *(getattr(circuits, name) for name in circuits.__all__ if name not in ("Published", LARGE)),
    *(type(function) for function in FUNCTIONS),
    Receptors,
    *(getattr(stimuli, name) for name in stimuli.__all__),
    geometry.ring,
    geometry.line,
    geometry.sheet,
    geometry.orientation_map,
    geometry.connect,
    geometry.signed,
]
MAKERS = [make for make in MAKERS if signature(make).parameters]
# what makes small things of them
SMALL = {
    "n_samples": 3,
    "n_times": 4,
    "n_neurons": 3,
    "n_words": 6,
    "n_inputs": 2,
    "delay": 1,
    "n": 4,
    "rank": 2,
    "n_excitatory": 2,
    "n_inhibitory": 1,
    "schedule": "double",
    "excitation": [[0.0, 1.0], [1.0, 0.0]],
    "connectivity": [[0.0, 1.0], [1.0, 0.0]],
    "n_pairs": 3,
    "amplitudes": [[0.3, 0.1], [0.4, 0.1]],
    "widths": [[0.8, 0.6], [0.9, 0.6]],
    "orientation": [0.1],
    "size": [0.5],
    "center": [[0.0, 0.0]],
    "image_shape": (4, 4),
    "space": geometry.ring(4, 180.0),
    "width": 20.0,
    "length": 20.0,
    "inner": 10.0,
    "outer": 30.0,
    "orientations": (0.0, 90.0),
    "pattern": [0.0, 1.0],
    "gains": [1.0, 2.0],
    "shape": (3, 3),
    "spacing": 1.0,
    "period": 4.0,
    "weights": [[1.0, 2.0], [3.0, 4.0]],
    "drives": [[1.0, 2.0]],
    "durations": [2.0],
    "tau": {"AMPA": 4.0},
    "shares": {"E": {"AMPA": 1.0}},
    "signs": [1, -1],
    "x": [[0.0], [1.0]],
    "y": [[0.0], [1.0]],
    "X": [[0.5, 0.2]],
    "sigma": 0.1,
    "p": 0.1,
    "env": Flashes(),
    "trials": TRIALS,
    "outputs": TRIALS.y,
}


@fuzz(80)
def test_makers(data):
    make = data.draw(st.sampled_from(MAKERS))
    names = [
        name
        for name, parameter in signature(make).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    arguments = {name: SMALL[name] for name in names if name in SMALL}
    needed = [x for x in names if signature(make).parameters[x].default is Parameter.empty]
    assert arguments.keys() >= set(needed), f"{make} needs small {needed}"
    for name in data.draw(st.sets(st.sampled_from(names), min_size=1, max_size=2)):
        arguments[name] = data.draw(NONSENSE)
    check(lambda: make(**arguments))


@st.composite
def tables(draw):
    if draw(st.integers(0, 3)) == 0:
        return draw(arrays([(6, 4), (6,), (0, 4), (6, 0), (1, 4), (6, 4, 2)]))
    X = np.random.RandomState(draw(st.integers(0, 99))).rand(12, 4)
    return X * draw(st.sampled_from([1, 0, 1e-30, 1e30, 1e200]))


LABELS = st.sampled_from(
    [
        *(np.arange(12) % 2, np.arange(12) % 3, np.array(["a", "b", "c"] * 4), np.arange(12) / 7),
        *(np.zeros(12), np.arange(12), [None] * 12, ["a", 1] * 6, np.arange(6), None, "labels"),
        *(np.full(12, np.nan), np.arange(24).reshape(12, 2) % 2, [[1]] * 12),
    ]
)


@fuzz(60)
def test_estimators(data):
    estimator = clone(data.draw(st.sampled_from(ESTIMATORS)))
    names = sorted(estimator.get_params(deep=False))
    few = {"max_iter": 2, "growth_iter": 1, "finetune_iter": 1, "random_state": 0}
    estimator.set_params(**{name: value for name, value in few.items() if name in names})
    # what only takes long: a search among so many pairs, filters, components
    names = [name for name in names if name not in ("generative_model", "encoder", "verbose")]
    for name in data.draw(st.sets(st.sampled_from(names), max_size=2)):
        value = data.draw(NONSENSE)
        if isinstance(value, int) and value > 1000:
            continue
        estimator.set_params(**{name: value})
    X = data.draw(tables())
    y = data.draw(LABELS)
    with short_confirmations(), mock.patch("ssn_estimators.training.loop.N_ATTEMPTS", 1):
        if check(lambda: estimator.fit(X, y)) is None:
            return
    other = data.draw(st.one_of(st.just(X), tables()))
    for method in METHODS:
        if hasattr(estimator, method):
            found = check(lambda method=method: getattr(estimator, method)(other))
            numeric = found is not None and np.asarray(found).dtype.kind == "f"
            assert not numeric or np.isfinite(found).all(), (estimator, method)
