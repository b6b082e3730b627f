"""Growth: Eq. 5 and its neutrality, noise of clones, stage sizes, choice of parents, starts."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from ssn_estimators import (
    Circuit,
    choose_parents,
    gain_of_splits,
    random_circuit,
    simulate,
    split,
    stable_pair,
    stage_sizes,
)
from ssn_estimators.growth import shares_of

WEIGHTS = [[0.6, 0.2, -0.5], [0.3, 0.4, -0.3], [0.7, 0.5, -0.6]]
# Sequences of splits: one parent, one of each kind, one several times, E, I, all, all again
SPLITS = {
    "excitatory": [[0]],
    "inhibitory": [[2]],
    "nothing": [[]],
    "one of each": [[1, 2]],
    "repeated": [[0, 0, 2, 0]],
    "all excitatory": [[0, 1]],
    "all": [[0, 1, 2]],
    "chain": [[2], [0, 3, 0], range(7), [6, 1, 1, 13]],
}


def example(noise_factor=0.0, dtype=float):
    theta = (1.5, 0.2, 1.3)
    return Circuit(np.array(WEIGHTS, dtype), 2, noise_factor, theta=theta, k=0.05, tau_i=12.0)


def grown(circuit, splits, **how):
    origin = np.arange(circuit.n_neurons)
    for parents in splits:
        circuit, latest = split(circuit, parents, **how)
        origin = origin[latest]
    return circuit, origin


def covariance(circuit):
    return circuit.noise_factor @ circuit.noise_factor.T


def test_split_is_equation_5():
    circuit = Circuit([[1.0, 2.0, -6.0], [3.0, 4.0, -9.0], [5.0, 8.0, -3.0]], 2, 1.0, k=0.1)
    larger, origin = split(circuit, [2, 0, 2])
    assert_array_equal(origin, [0, 1, 0, 2, 2, 2])
    row_0 = [0.5, 2.0, 0.5, -2.0, -2.0, -2.0]
    row_1 = [1.5, 4.0, 1.5, -3.0, -3.0, -3.0]
    row_2 = [2.5, 8.0, 2.5, -1.0, -1.0, -1.0]
    assert_array_equal(larger.weights, [row_0, row_1, row_0, row_2, row_2, row_2])
    assert (larger.n_excitatory, larger.n_inhibitory, larger.k) == (3, 3, 0.1)


@pytest.mark.parametrize("shares", ["equal", "random"])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("splits", SPLITS.values(), ids=SPLITS)
def test_cells_go_on_as_their_origins(splits, dtype, rtol, shares):
    circuit = example(dtype=dtype)
    larger, origin = grown(circuit, splits, shares=shares, random_state=0)
    h = np.array([[2.0, 1.0, 1.5], [0.5, 4.0, 3.0]])
    settings = {"n_trials": 1, "burn_in": 0.0, "duration": 400.0, "record": "u"}
    before = simulate(circuit, circuit.drive(h), **settings)
    after = simulate(larger, larger.drive(h[:, origin]), **settings)
    assert before.u.dtype == after.u.dtype == dtype
    assert_allclose(after.u, before.u[..., origin], rtol=rtol)
    # the end of the trajectory is the fixed point
    assert_allclose(before.u[-1], before.u[-51], rtol=1e-3)


def test_random_shares_of_inhibition_differ_between_clones_and_targets():
    (larger, origin), (again, _) = (
        split(example(), [0, 1, 2, 2], shares="random", random_state=0) for _ in range(2)
    )
    assert_array_equal(larger.weights, again.weights)
    assert_array_equal(larger.weights[:, :4], split(example(), [0, 1, 2, 2])[0].weights[:, :4])
    parts = larger.weights[:, 4:] / np.array(WEIGHTS)[origin, 2][:, None]
    assert_allclose(parts.sum(1), 1.0, rtol=1e-12)
    assert (parts > 0).all()
    assert len(np.unique(parts[[0, 1, 4]].round(12))) == 3 * 3  # of the three parents
    # siblings get the same input, so that nothing but their leak acts on their differences
    for cell, parent in enumerate(origin):
        assert_allclose(larger.weights[cell], larger.weights[parent if parent < 2 else 4])


def test_mean_random_share_is_equal():
    origin = np.array([0, 0, 0, 1, 1])
    shares = shares_of(origin, 20_000, "random", 0)
    # a part of a Dirichlet distribution of n times c has the variance (n - 1) / (n^2 (n c + 1))
    n, c = np.array([3, 3, 3, 2, 2]), 0.3
    deviation = np.sqrt((n - 1) / (n * c + 1)) / n
    assert_array_equal(np.abs(shares.mean(0) - 1 / n) < 4 * deviation / np.sqrt(len(shares)), True)
    assert_allclose(shares.std(0), deviation, rtol=0.03)


def test_split_refuses_unknown_shares():
    with pytest.raises(ValueError, match=r"shares must be one of \('equal', 'random'\), got 'all'"):
        split(example(), [0], shares="all")


@pytest.mark.parametrize("splits", SPLITS.values(), ids=SPLITS)
def test_noise_is_cloned_in_distribution(splits):
    circuit = example(np.random.RandomState(0).normal(size=(3, 3)))
    larger, origin = grown(circuit, splits)
    variances = np.diag(covariance(circuit))
    assert_allclose(np.diag(covariance(larger)), variances[origin], rtol=1e-12)


@pytest.mark.parametrize("parents", [[0], [2], [0, 1, 2], [0, 0, 2], [1, 1, 1, 2]])
@pytest.mark.parametrize("kind", ["full", "shared source", "diagonal"])
def test_clones_have_noise_of_their_own(parents, kind):
    factors = {
        "full": np.random.RandomState(0).normal(size=(3, 3)),
        "shared source": np.array([[1.0, 0, 0], [0.99, 0.1, 0], [-0.8, 0, 0.01]]),
        "diagonal": np.diag([0.7, 0.2, 0.0]),
    }
    circuit = example(factors[kind])
    larger, origin = split(circuit, parents)
    before, after = covariance(circuit)[np.ix_(origin, origin)], covariance(larger)
    assert_allclose(np.diag(after), np.diag(before), rtol=1e-12, atol=1e-14)
    siblings = (origin[:, None] == origin) & ~np.eye(len(origin), dtype=bool)
    assert siblings.any()
    assert_allclose(after[siblings], 0, atol=1e-14)
    m = np.bincount(origin)[origin]
    shared = before / np.sqrt(np.outer(m, m))
    others = origin[:, None] != origin
    assert_allclose(after[others], shared[others], atol=1e-14)


@pytest.mark.parametrize("splits", SPLITS.values(), ids=SPLITS)
def test_noise_covariance_between_origins_does_not_grow(splits):
    # of a factor whose terms do not cancel; others may lose a negative term of the sum
    circuit = example(np.random.RandomState(0).uniform(0.1, 1.0, size=(3, 3)))
    larger, origin = grown(circuit, splits)
    before, after = covariance(circuit)[np.ix_(origin, origin)], covariance(larger)
    different = origin[:, None] != origin
    assert (np.abs(after) <= np.abs(before) * (1 + 1e-12))[different].all()
    assert (after[different] > 0).all()


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([1, -1, 3], r"from 0 to 2, got \[1, -1, 3\]"),
        ([0.0], "list of cell indices"),
        (1, "list of cell indices"),
        ([True, False, True], "list of cell indices"),
    ],
)
def test_split_refuses(parents, message):
    with pytest.raises(ValueError, match=message):
        split(example(), parents)


@pytest.mark.parametrize("schedule", ["double", "single"])
@pytest.mark.parametrize("target", [(50, 50), (80, 20), (10, 50), (1, 1), (20, 5), (7, 3)])
def test_stage_sizes(target, schedule):
    sizes = stage_sizes(*target, schedule)
    assert (sizes[0], sizes[-1]) == ((1, 1), target)
    larger = int(np.argmax(target))
    for size in sizes:
        whole = size[larger]
        assert size == tuple(int(np.ceil(x * whole / target[larger] - 1e-9)) for x in target)
    for old, new in pairwise(sizes):
        assert old != new
        for x, y in zip(old, new, strict=True):
            assert x <= y <= (2 * x if schedule == "double" else x + 1)
    n_stages = np.ceil(np.log2(max(target))) if schedule == "double" else max(target) - 1
    assert len(sizes) == n_stages + 1


def test_stage_sizes_refuses():
    with pytest.raises(ValueError, match="'n_excitatory' parameter"):
        stage_sizes(0, 5, "double")
    with pytest.raises(ValueError, match=r"'schedule' parameter .* Got 'triple'"):
        stage_sizes(5, 5, "triple")


@pytest.mark.parametrize(
    ("size", "parents"),
    [((2, 1), []), ((3, 1), [1]), ((4, 3), [0, 1, 2, 2]), ((5, 2), [0, 1, 1, 2])],
)
def test_last_parents(size, parents):
    assert_array_equal(choose_parents(example(), *size, "last"), parents)


@pytest.mark.parametrize("how", ["last", "random"])
def test_chosen_parents_lead_to_the_target(how):
    circuit = random_circuit(4, 3, random_state=0)
    for size in [(4, 3), (6, 3), (8, 6), (19, 7)]:
        parents = choose_parents(circuit, *size, how, random_state=0)
        larger, _ = split(circuit, parents)
        assert (larger.n_excitatory, larger.n_inhibitory) == size
        # every cell once before one is split twice
        for cells in (range(4), range(4, 7)):
            times = [np.sum(parents == cell) for cell in cells]
            assert max(times) - min(times) <= 1


def test_random_parents_follow_the_seed():
    circuit = random_circuit(20, 20, random_state=0)
    chosen = [choose_parents(circuit, 25, 25, "random", random_state=seed) for seed in (0, 0, 1)]
    assert_array_equal(chosen[0], chosen[1])
    assert (chosen[0] != chosen[2]).any()


def test_callable_chooses_parents():
    circuit, seen = example(), []

    def first(*arguments):
        seen.extend(arguments)
        return [0, 0, 2]

    assert_array_equal(choose_parents(circuit, 4, 2, first, random_state=0), [0, 0, 2])
    assert seen[:3] == [circuit, 4, 2]
    assert isinstance(seen[3], np.random.RandomState)
    with pytest.raises(ValueError, match=r"1 excitatory and 2 inhibitory cells, got \[0, 0, 2\]"):
        choose_parents(circuit, 3, 3, first)


def test_choose_parents_refuses():
    with pytest.raises(ValueError, match="2:1 cells cannot grow to 1:1"):
        choose_parents(example(), 1, 1)
    with pytest.raises(ValueError, match="'last', 'random', an array or a callable, got 'first'"):
        choose_parents(example(), 3, 1, "first")
    with pytest.raises(ValueError, match="a number for each of 3 cells, got"):
        choose_parents(example(), 3, 1, [1.0, 2.0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, float, np.float32])
def test_parents_of_the_largest_values_of_any_kind(dtype):
    circuit = random_circuit(3, 1, random_state=0)
    values = np.array([0, 5, 3, 1], dtype)
    assert_array_equal(choose_parents(circuit, 4, 1, values), [1])
    assert_array_equal(choose_parents(circuit, 5, 1, values), [1, 2])


def test_values_and_cells_that_are_none():
    circuit = random_circuit(3, 1, random_state=0)
    with pytest.raises(ValueError, match="a number for each of 4 cells"):
        choose_parents(circuit, 4, 1, [0.0, np.nan, 1.0, 0.0])
    for parents in ([-5], [1.5], [[0]], [7], [True]):
        with pytest.raises(ValueError, match="must return an array of cells from 0 to 3"):
            choose_parents(circuit, 4, 1, lambda *args, parents=parents: parents)
    assert not len(choose_parents(circuit, 3, 1, lambda *args: []))


def test_gain_of_splits_of_integers():
    weights, incoming = [[1, 2], [3, 4]], [np.array([[100], [3]], np.int8)]
    expected = gain_of_splits(np.array(weights, float), [incoming[0].astype(float)])
    assert_array_equal(gain_of_splits(weights, incoming), expected)
    assert expected[0] == 10 - 5 / 2 - 1 / 2 - 5000


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        (([[1.0, 2.0]],), "weights must have shape"),
        ((np.eye(2), [[[1.0]]]), "a row for each of 2 cells"),
        ((np.eye(2), [], [np.ones((1, 3))]), "a column for each E cell"),
        ((np.eye(2), [], [np.ones(2)]), "a column for each E cell"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(gradients, message):
    with pytest.raises(ValueError, match=message):
        gain_of_splits(*gradients)


def test_parents_by_value():
    circuit = random_circuit(4, 3, random_state=0)
    values = [1.0, 3.0, 2.0, 0.0, 5.0, 5.0, 6.0]
    assert_array_equal(choose_parents(circuit, 6, 5, values), [1, 2, 4, 6])
    assert_array_equal(choose_parents(circuit, 9, 3, values), [0, 1, 2, 3, 1])


def test_gain_of_splits_is_what_the_gradient_gains():
    """By gradients of a loss of the fixed points, before and after each split."""
    rng = np.random.RandomState(0)
    circuit = random_circuit(3, 2, random_state=1, scale=0.1)
    inputs, target = rng.uniform(3, 6, (4, 2)), rng.normal(size=(4, 2))
    arrays = {"input": rng.uniform(0.5, 1, (5, 2)), "coef": rng.normal(size=(2, 3))}

    def gradient(circuit, arrays):
        tensors = {k: torch.tensor(v, requires_grad=True) for k, v in arrays.items()}
        tensors["weights"] = torch.tensor(circuit.weights, requires_grad=True)
        drive, u = torch.tensor(inputs) @ tensors["input"].T, torch.zeros(4, circuit.n_neurons)
        for _ in range(200):
            rates = circuit.k * u.clamp_min(0) ** circuit.gamma
            u = 0.8 * u + 0.2 * (drive + rates.double() @ tensors["weights"].T)
        answer = u[:, : circuit.n_excitatory] @ tensors["coef"].T
        (answer - torch.tensor(target)).square().mean().backward()
        return {k: v.grad.numpy() for k, v in tensors.items()}

    def length(gradients):
        return sum((g**2).sum() for g in gradients.values())

    before = gradient(circuit, arrays)
    gain = gain_of_splits(before["weights"], [before["input"]], [before["coef"]])
    for cell in range(5):
        grown, origin = split(circuit, [cell])
        read = origin[: grown.n_excitatory]
        larger = {
            "input": arrays["input"][origin],
            "coef": arrays["coef"][:, read] * shares_of(read, 2),
        }
        after = gradient(grown, larger)
        assert_allclose(length(after) - length(before), gain[cell], rtol=1e-6)


@pytest.mark.parametrize("h", [[[0.2], [1.0]], [[0.2, 0.1], [1.0, 0.5]]])
def test_stable_pair_is_stable(h):
    pair = stable_pair(h, random_state=0, tau_i=12.0)
    assert (pair.n_excitatory, pair.n_inhibitory, pair.tau_i) == (1, 1, 12.0)
    assert_allclose(pair.theta, [5.0, 0.3, 2.0])
    assert_array_equal(pair.noise_factor, 0.3 * np.eye(2))
    outcome = simulate(pair, pair.drive(h), n_trials=20, duration=500.0, random_state=1)
    assert not outcome.diverged.any()
    again = stable_pair(h, random_state=0, dtype=np.float32, tau_i=12.0)
    assert again.weights.dtype == np.float32
    assert_allclose(again.weights, pair.weights, rtol=1e-6)
    assert (stable_pair(h, random_state=1).weights != pair.weights).all()


def test_stable_pair_gives_up():
    with pytest.raises(RuntimeError, match="none of 3 random pairs of cells was stable for 100 ms"):
        stable_pair([[1.0]], k=1e6, max_tries=3, duration=100.0, random_state=0)


def test_random_circuit_obeys_dales_law():
    circuit = random_circuit(30, 10, scale=0.5, random_state=0, dtype=np.float32)
    assert circuit.weights.dtype == np.float32
    assert (circuit.weights * circuit.signs > 0).all()
    assert np.sqrt(np.mean(circuit.weights**2)) == pytest.approx(0.5, rel=0.1)
    again = random_circuit(30, 10, scale=0.5, random_state=0)
    assert_allclose(circuit.weights, again.weights, rtol=1e-6)


@pytest.mark.parametrize("dtype", [True, "x", int, object, np.float16, [1]])
def test_dtypes_that_are_none_of_floats(dtype):
    for make in (
        lambda: random_circuit(2, 1, dtype=dtype),
        lambda: stable_pair([[1]], dtype=dtype),
    ):
        with pytest.raises(ValueError, match="dtype must be float32 or float64, got"):
            make()
