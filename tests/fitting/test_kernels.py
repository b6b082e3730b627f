"""Weights by distance: against `connect`, finite differences and a known circuit."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ssn_estimators import Circuit, CircuitRegressor, load, save
from ssn_estimators.fitting import Connectivity, Free
from ssn_estimators.fitting.kernels import Kernels
from ssn_estimators.fitting.problem import problem_of
from ssn_estimators.fitting.steady import Steady, fixed_points_of
from ssn_estimators.geometry import connect, line, ring, sheet, signed
from ssn_estimators.inspection import steady_states

AMPLITUDES = np.array([[0.6, 0.5], [0.7, 0.3]])
WIDTHS = np.array([[2.0, 1.2], [2.5, 0.8]])
TURNED = np.linspace(0.0, 170.0, 12)
KINDS = {
    "line": {"space": line(12)},
    "rows": {"space": line(12), "normalize": "rows"},
    "density": {"space": ring(12, 12.0), "normalize": "density", "profile": "exponential"},
    "ring": {"space": ring(12), "profile": "von_mises", "normalize": "rows"},
    "local": {
        "space": line(12, periodic=True),
        "profile": [["exponential", "local"], ["gaussian", "gaussian"]],
        "local_share": [[0.3, 0.0], [0.2, 0.0]],
        "normalize": "rows",
    },
    "sheet": {
        "space": sheet((3, 4), orientation=TURNED),
        "feature_widths": [[40.0, np.inf], [60.0, np.inf]],
        "normalize": "rows",
    },
}


def connectivity(kind, scale=1.0):
    options = dict(KINDS[kind])
    widths = WIDTHS / 3 if kind == "ring" else WIDTHS
    return Connectivity(options.pop("space"), scale * AMPLITUDES, scale * widths, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_connect(kind):
    own, other = connectivity(kind), connectivity(kind, 1.3)
    options = {k: v for k, v in vars(own).items() if k not in ("space", "amplitudes", "widths")}
    expected = signed(connect(own.space, own.amplitudes, own.widths, **options), [1, -1])
    assert_array_equal(own.weights([1, -1]), expected)
    kernels = Kernels(other, other.weights([1, -1]), {"E": 12, "I": 12})
    found = kernels.weights({"amplitudes": AMPLITUDES * [1, -1], "widths": own.widths})
    assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    several = {
        "amplitudes": np.stack([own.amplitudes * [1, -1], other.amplitudes * [1, -1]]),
        "widths": np.stack([own.widths, other.widths]),
    }
    assert_allclose(kernels.weights(several), [expected, other.weights([1, -1])], atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobian_by_finite_differences(kind):
    """Through the fixed points, by pairs and by presynaptic type, with other numbers beside."""
    rng = np.random.RandomState(0)
    own = connectivity(kind)
    circuit = Circuit(own.weights([1, -1]), n_excitatory=12, k=0.04)
    free = [
        "amplitudes",
        Free("amplitudes", by="presynaptic", name="out"),
        Free("widths", prior=own.widths, prior_error=0.5),
        Free("widths", by="presynaptic", name="reach"),
        Free("k"),
    ]
    inputs = rng.uniform(0, 4, (5, 2))
    regressor = CircuitRegressor(
        circuit, free, input_map=rng.uniform(0, 1, (24, 2)), baseline=1.0, connectivity=own
    )
    y = rng.uniform(0, 3, (5, 24))
    others = {"traces": None, "spectra": None, "covariances": None}
    model, problem, _ = problem_of(regressor, inputs, y, 0.5, None, None, **others)
    n_widths = 3 if kind == "local" else 4
    assert len(model.parameters) == 4 + 2 + n_widths + 2 + 2
    theta = model.parameters.start + 0.05 * rng.normal(size=len(model.parameters))
    u = fixed_points_of(problem.conditions, model.parameters.arrays(theta))
    steady = Steady(model.parameters, problem.conditions, theta, u)

    def residuals(theta):
        return problem.residuals(steady.outputs(theta), theta)

    steps = 1e-5 * np.eye(len(theta))
    differences = [(residuals(theta + d) - residuals(theta - d)) / 2e-5 for d in steps]
    differences = np.stack(differences, -1)
    found = problem.jacobian(steady.jacobian(theta), theta)
    size = np.abs(differences).max(0)
    assert (size > 0).all()
    assert_allclose(found / size, differences / size, atol=1e-6)


SPACE = line(21)
TRUE = Connectivity(SPACE, AMPLITUDES, WIDTHS, normalize="rows")
GUESS = Connectivity(SPACE, np.full((2, 2), 0.4), np.full((2, 2), 1.5), normalize="rows")


def tuned(connectivity):
    """A line circuit, and its rates under stimuli of six sizes and three strengths."""
    circuit = Circuit(connectivity.weights([1, -1]), n_excitatory=21, k=0.04)
    place = np.abs(SPACE.positions[:, 0])
    sizes, strengths = np.array([0.5, 1.5, 2.5, 4.5, 7.5, 10.5]), np.array([3.0, 8.0, 20.0])
    X = (strengths[:, None, None] * (place <= sizes[:, None])).reshape(-1, 21)
    both = np.tile(np.eye(21), (2, 1))
    return circuit, X, both, steady_states(circuit, X @ both.T).rates


def test_amplitudes_and_widths_are_recovered_from_size_tuning(tmp_path):
    """Of the cells at the centre, and those four places off, seen with errors."""
    _, X, both, rates = tuned(TRUE)
    guess, *_ = tuned(GUESS)
    seen = [10, 14, 31, 35]
    model = CircuitRegressor(
        guess, ["amplitudes", "widths"], input_map=both, connectivity=GUESS, observed=seen,
        n_starts=4, random_state=0,
    )  # fmt: skip
    model.fit(X, rates[:, seen])
    found = model.connectivity_
    assert_allclose(found.amplitudes, AMPLITUDES, rtol=1e-3)
    assert_allclose(found.widths, WIDTHS, rtol=1e-3)
    assert_allclose(model.circuit_.weights, TRUE.weights([1, -1]), atol=1e-3)
    assert_allclose(found.weights([1, -1]), model.circuit_.weights, atol=1e-12)
    assert model.parameter_names_[:2] == ["amplitudes[E, E]", "amplitudes[E, I]"]
    assert_allclose(model.values_[:2], [0.6, -0.5], rtol=1e-3)
    save(model, tmp_path / "model.ssn")
    again = load(tmp_path / "model.ssn")
    assert_array_equal(again.predict(X), model.predict(X))
    assert_array_equal(again.connectivity_.widths, found.widths)
    assert_array_equal(again.connectivity.space.positions, SPACE.positions)

    noisy = rates[:, seen] + np.random.RandomState(0).normal(scale=0.05, size=(len(X), 4))
    model.fit(X, noisy, sample_error=0.05)
    low, high = model.intervals_.T
    truth = np.concatenate([(AMPLITUDES * [1, -1]).ravel(), WIDTHS.ravel()])
    assert ((low <= truth) & (truth <= high)).sum() >= 7


def test_one_width_for_all_that_a_type_sends():
    widths = np.array([[2.5, 1.0], [2.5, 1.0]])
    true = Connectivity(SPACE, AMPLITUDES, widths, normalize="rows")
    _, X, both, rates = tuned(true)
    start = Connectivity(SPACE, AMPLITUDES, np.full((2, 2), 1.5), normalize="rows")
    free = [Free("widths", by="presynaptic", low=0.5, high=5.0)]
    model = CircuitRegressor(
        tuned(start)[0], free, input_map=both, connectivity=start, random_state=0
    )
    model.fit(X, rates)
    assert_allclose(model.values_, [2.5, 1.0], rtol=1e-4)
    assert_allclose(model.connectivity_.widths, widths, rtol=1e-4)


def test_what_is_not_connected_stays_so():
    amplitudes = AMPLITUDES * [[1, 1], [1, 0]]
    own = Connectivity(SPACE, amplitudes, WIDTHS, normalize="rows")
    circuit, X, both, rates = tuned(own)
    model = CircuitRegressor(
        circuit, ["amplitudes", "widths"], input_map=both, connectivity=own, n_starts=1
    )
    model.fit(X, rates)
    assert len(model.values_) == 6
    assert (model.circuit_.weights[21:, 21:] == 0).all()
    assert model.connectivity_.widths[1, 1] == 0.8


CIRCUIT, X, BOTH, RATES = tuned(GUESS)
BAD = {
    "no connectivity": ({"free": ["widths"], "connectivity": None}, "give one"),
    "weights": ({"free": ["weights"]}, "not weights"),
    "nothing of it": ({"free": ["k"]}, "does not count"),
    "other weights": ({"connectivity": TRUE}, "not those of connectivity"),
    "cells": ({"connectivity": Connectivity(line(20), 1.0, 1.0)}, "1 types with 20 cells"),
    "no connectivity at all": ({"connectivity": CIRCUIT}, "connectivity"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused(case):
    options, message = BAD[case]
    options = {"free": ["widths"], "connectivity": GUESS, "input_map": BOTH} | options
    with pytest.raises(ValueError, match=message):
        CircuitRegressor(CIRCUIT, **options).fit(X, RATES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": 3}, "must be a Space"),
        ({"normalize": "columns"}, "normalize must be"),
        ({"profile": lambda d, w: d}, "must be names"),
        ({"profile": "square"}, "profile must be"),
        ({"profile": "von_mises"}, "is for rings"),
        ({"widths": 0.0}, "widths must be"),
        ({"amplitudes": -1.0}, "amplitudes must be"),
    ],
)
def test_what_is_no_connectivity(options, message):
    with pytest.raises(ValueError, match=message):
        Connectivity(**{"space": SPACE, "amplitudes": 1.0, "widths": 1.0} | options)


def test_signs_are_one_for_each_type():
    with pytest.raises(ValueError, match="one for each of 2 types"):
        GUESS.weights([1])
