"""Circuits of several cell types: constants by type or by cell, and all that takes circuits."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from ssn_estimators import Circuit, load, save, simulate, simulate_many, split, stationary_moments
from ssn_estimators.circuit import kind_of
from ssn_estimators.inspection import ei_balance, fixed_points, is_inhibition_stabilized, jacobian
from ssn_estimators.inspection.stability import random_surrogate, shuffled_surrogate

TYPES = {"E": 4, "PV": 2, "SST": 1, "VIP": 1}
TAU = {"E": 20.0, "PV": 10.0, "SST": 15.0, "VIP": 12.0}
K = {"E": 0.04, "PV": 0.06, "SST": 0.03, "VIP": 0.04}
GAMMA = {"E": 2.0, "PV": 2.0, "SST": 2.5, "VIP": 1.0}
NOISE = {"E": 0.3, "PV": 0.1, "SST": 0.2, "VIP": 0.2}
SIZES = np.array(list(TYPES.values()))


def of_cells(by_type):
    return np.repeat(list(by_type.values()), SIZES)


def weights_of(types=TYPES, size=0.1, seed=0):
    n = sum(types.values())
    signs = np.where(np.arange(n) < types["E"], 1.0, -1.0)
    return size * np.abs(np.random.RandomState(seed).normal(size=(n, n))) * signs


def circuit(**changes):
    parameters = {"populations": TYPES, "tau": TAU, "k": K, "gamma": GAMMA, "noise_factor": NOISE}
    return Circuit(weights_of(), **parameters | changes)


DRIVE = np.random.RandomState(1).uniform(2, 6, (3, 8))


def test_types_are_slices_in_their_order():
    own = circuit()
    assert dict(own.populations) == TYPES
    assert [own[name] for name in TYPES] == [slice(0, 4), slice(4, 6), slice(6, 7), slice(7, 8)]
    assert (own.n_excitatory, own.n_inhibitory) == (4, 4)
    assert_array_equal(own.signs, [1] * 4 + [-1] * 4)
    with pytest.raises(KeyError, match="none of the populations"):
        own["NDNF"]
    with pytest.raises(TypeError):
        own.populations["E"] = 3


def test_e_and_i_are_the_shorthand():
    one = Circuit(weights_of(), 4, k=0.04)
    other = Circuit(weights_of(), populations={"E": 4, "I": 4}, k=0.04)
    assert one.populations == other.populations
    assert repr(one) == repr(other)
    two = Circuit(weights_of({"E": 8}), 8, populations={"L4": 5, "L2/3": 3})
    assert (two.n_inhibitory, two["L2/3"]) == (0, slice(5, 8))


@pytest.mark.parametrize("name", ["tau", "k", "gamma", "noise_factor"])
def test_constants_by_type_by_cell_and_as_one_number(name):
    by_type = {"tau": TAU, "k": K, "gamma": GAMMA, "noise_factor": NOISE}[name]
    found = [getattr(circuit(**{name: x}), name) for x in (by_type, of_cells(by_type))]
    assert_array_equal(*found)
    numbers = np.diagonal(found[0]) if name == "noise_factor" else found[0]
    assert_array_equal(numbers, of_cells(by_type))
    alike = circuit(**{name: dict.fromkeys(TYPES, 2.0)})
    assert_array_equal(getattr(alike, name), getattr(circuit(**{name: 2.0}), name))


def test_rates_and_gains_are_those_of_each_cell():
    own, u = circuit(), np.random.RandomState(2).normal(size=(5, 8)) * 3
    k, gamma = of_cells(K), of_cells(GAMMA)
    assert_allclose(own.rates(u), k * np.maximum(u, 0) ** gamma)
    step = 1e-6
    slope = (own.rates(u + step) - own.rates(u - step)) / (2 * step)
    assert_allclose(own.gain(u), slope, rtol=1e-6, atol=1e-8)
    tensor = torch.tensor(u)
    assert_allclose(own.to_torch().rates(tensor), own.rates(u))
    assert_allclose(own.to_torch().gain(tensor), own.gain(u))


@pytest.mark.parametrize(
    "again",
    [
        copy.deepcopy,
        lambda x: pickle.loads(pickle.dumps(x)),
        lambda x: x.to_torch().to_numpy(),
        lambda x: replace(x, theta=x.theta),
    ],
    ids=["copy", "pickle", "torch", "replace"],
)
def test_copies_keep_the_types(again):
    one, other = circuit(), again(circuit())
    for name in ("weights", "noise_factor", "k", "gamma", "tau", "signs"):
        assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.populations == other.populations
    assert repr(one) == repr(other)


def test_files_keep_the_types(tmp_path):
    one = circuit()
    save(one, tmp_path / "circuit.ssn")
    other = load(tmp_path / "circuit.ssn")
    assert one.populations == other.populations
    for name in ("weights", "k", "gamma", "tau"):
        assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_clone_is_of_its_parent_s_type():
    own = circuit()
    grown, origin = split(own, [0, 5, 5, 7])
    assert dict(grown.populations) == {"E": 5, "PV": 4, "SST": 1, "VIP": 2}
    assert_array_equal(origin, [0, 1, 2, 3, 0, 4, 5, 5, 5, 6, 7, 7])
    for name in ("k", "gamma", "tau", "signs"):
        assert_array_equal(getattr(grown, name), getattr(own, name)[origin])
    quiet = [replace(x, noise_factor=0.0) for x in (own, grown)]
    settings = {"n_trials": 1, "duration": 20.0, "burn_in": 0.0, "record": "u"}
    u, u_grown = (
        simulate(x, drive, **settings).u
        for x, drive in zip(quiet, (DRIVE, DRIVE[:, origin]), strict=True)
    )
    assert_allclose(u_grown, u[..., origin], rtol=1e-12)


def test_types_are_the_same_as_inhibitory_cells_that_differ():
    """Names do not matter to the dynamics, constants do."""
    one = circuit()
    other = Circuit(one.weights, 4, one.noise_factor, k=one.k, gamma=one.gamma, tau=one.tau)
    outcomes = [simulate(x, DRIVE, duration=50.0, random_state=0) for x in (one, other)]
    for name in ("mean", "covariance", "rates"):
        assert_array_equal(*(getattr(x, name) for x in outcomes))
    with pytest.raises(ValueError, match="same numbers of cells and the same constants"):
        simulate_many([one, other], [DRIVE, DRIVE])


@pytest.mark.parametrize("closure", ["gaussian", "linear"])
def test_closures_know_each_cell(closure):
    """Of cells without synapses each is as if it were alone."""
    own = Circuit(np.zeros((8, 8)), populations=TYPES, tau=TAU, k=K, gamma=GAMMA, noise_factor=0.3)
    together = stationary_moments(own, DRIVE, closure=closure)
    for i in range(8):
        alone = Circuit(
            [[0.0]], 1, 0.3, k=of_cells(K)[i], gamma=of_cells(GAMMA)[i], tau=of_cells(TAU)[i]
        )
        single = stationary_moments(alone, DRIVE[:, [i]], closure=closure)
        for name in ("mean", "rates"):
            assert_allclose(getattr(together, name)[:, [i]], getattr(single, name), rtol=1e-8)
        assert_allclose(together.covariance[:, [i], [i]], single.covariance[:, 0], rtol=1e-8)


def test_closure_is_near_simulation():
    own = circuit()
    found = stationary_moments(own, DRIVE)
    simulated = simulate(own, DRIVE, n_trials=200, duration=2000.0, random_state=0)
    assert found.converged.all()
    assert_allclose(found.mean, simulated.mean, rtol=0.02, atol=0.02)
    assert_allclose(found.rates, simulated.rates, rtol=0.03, atol=0.003)
    variances = [np.einsum("nii->ni", x.covariance) for x in (found, simulated)]
    assert_allclose(*variances, rtol=0.1)


def test_gradients_with_constants_of_cells():
    """Along random directions, against differences."""
    own, rng = circuit(noise_factor=0.2), np.random.RandomState(3)
    directions = [torch.tensor(rng.normal(size=x.shape)) for x in (own.weights, DRIVE)]
    directions[0] *= torch.tensor(own.weights)  # signs are kept

    def loss(step):
        tensors = own.to_torch()
        tensors = tensors.with_checked({"weights": tensors.weights + step * directions[0]})
        settings = {"n_trials": 2, "duration": 6.0, "burn_in": 0.0, "random_state": 0}
        outcome = simulate(tensors, torch.tensor(DRIVE) + step * directions[1], **settings)
        return outcome.mean.sum() + outcome.rates.sum() + outcome.covariance.sum()

    step = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(step), step)
    small = 1e-5
    assert_allclose(slope, (loss(small) - loss(-small)) / (2 * small), rtol=1e-7)


def test_what_is_asked_of_circuits():
    own = circuit()
    matrices = jacobian(own, DRIVE, closure="linear")
    points = fixed_points(own, DRIVE, n_starts=5)
    for matrix, point, drive in zip(matrices, points, DRIVE, strict=True):
        u = point.u[0]
        assert_allclose(u, drive + own.weights @ own.rates(u), rtol=1e-8)
        assert_allclose(np.linalg.eigvals(matrix).real.max(), point.abscissa[0], rtol=1e-6)
    assert is_inhibition_stabilized(own, DRIVE).shape == (3,)
    assert ei_balance(own, DRIVE).index.shape == (3, 8)
    shuffled = shuffled_surrogate(own, np.random.RandomState(0))
    for post in TYPES:
        for pre in TYPES:
            blocks = [x.weights[own[post], own[pre]].ravel() for x in (own, shuffled)]
            assert_array_equal(*map(np.sort, blocks))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"populations": {"E": 4, "PV": 3}}, "add up to the number of cells in weights, 8"),
        ({"populations": {"E": 4, "PV": 2.0, "SST": 2}}, "name cell types and their numbers"),
        ({"populations": {"E": 4, "PV": 0, "SST": 4}}, "name cell types and their numbers"),
        ({"populations": {}}, "name cell types and their numbers"),
        ({"populations": ["E", "PV"]}, "name cell types and their numbers"),
        ({"n_excitatory": 5}, "n_excitatory must be the number of cells of the first populations"),
        ({"n_excitatory": 6}, "Dale's law"),
        ({"tau": {"E": 20.0, "PV": 10.0}}, "tau must have a number for each population"),
        ({"k": K | {"NDNF": 0.1}}, "k must have a number for each population"),
        ({"k": K | {"E": "x"}}, "k must be an array of numbers"),
        ({"tau": np.ones(7)}, "tau must be one number, one for each population"),
        ({"gamma": np.full(7, 2.0)}, "gamma must be a finite number >= 1.*each of 8 cells"),
        ({"gamma": np.full(8, 0.5)}, "gamma must be a finite number >= 1"),
        ({"k": np.append(np.ones(7), np.nan)}, "k must be a finite number > 0"),
        ({"tau": np.append(np.ones(7), -1.0)}, "tau_i must be a finite number > 0"),
        ({"noise_factor": np.ones(7)}, r"noise_factor must be a number"),
        ({"noise_factor": {"E": 1.0}}, "noise_factor must have a number for each population"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        circuit(**changes)


NONE = (("SST", "SST"), ("VIP", "VIP"), ("PV", "VIP"))


def without_synapses(**changes):
    weights = weights_of()
    weights[6, 6] = weights[7, 7] = 0.0
    weights[4:6, 7] = 0.0
    parameters = {"populations": TYPES, "tau": TAU, "k": K, "noise_factor": NOISE}
    return Circuit(weights, **parameters | {"unconnected": NONE} | changes)


def test_where_weights_may_be():
    own = without_synapses()
    assert_array_equal(own.connected, own.weights != 0)
    assert circuit().unconnected == ()
    assert circuit().connected.all()
    assert "unconnected=(('PV', 'VIP'), " in repr(own)
    assert "unconnected" not in repr(circuit())


@pytest.mark.parametrize("kind", [np.array, torch.tensor, csr_array])
def test_weights_where_there_are_no_synapses(kind):
    weights = without_synapses().weights.copy()
    weights[5, 7] = -0.25
    words = r"from VIP to PV must be 0, .*\('PV', 'VIP'\).*W\[post=5, pre=7\] = -0\.25"
    with pytest.raises(ValueError, match=words):
        replace(without_synapses(), weights=weights)
    allowed = kind(without_synapses().weights.copy())
    assert Circuit(allowed, populations=TYPES, unconnected=NONE).unconnected
    weights = kind(weights)
    with pytest.raises(ValueError, match=words):
        Circuit(weights, populations=TYPES, unconnected=NONE[2:])


@pytest.mark.parametrize(
    "unconnected",
    [("SST", "SST"), [("SST", "NDNF")], [("SST",)], [("SST", "VIP", "E")], "SST", None, [(1, 2)]],
)
def test_what_is_no_pair_of_populations(unconnected):
    with pytest.raises(ValueError, match=r"pairs \(post, pre\) of populations"):
        without_synapses(unconnected=unconnected)


def test_circuits_remain_without_synapses(tmp_path):
    own, path = without_synapses(), tmp_path / "circuit.ssn"
    own.save(path)
    grown, origin = split(own, [0, 4, 6, 7, 7], random_state=0, shares="random")
    assert_array_equal(grown.connected, own.connected[np.ix_(origin, origin)])
    copies = [
        replace(own, k=0.05),
        own.to_torch(),
        own.to_torch().to_numpy(),
        own.with_checked({"weights": own.weights}),
        pickle.loads(pickle.dumps(own)),
        copy.deepcopy(own),
        Circuit.load(path),
        shuffled_surrogate(own, np.random.RandomState(0)),
        random_surrogate(own, np.random.RandomState(0)),
        grown,
    ]
    for other in copies:
        assert other.unconnected == own.unconnected
        assert not (np.asarray(other.weights) * ~other.connected).any()


def test_kinds_differ_by_connections():
    own = without_synapses()
    assert kind_of(own) == kind_of(without_synapses(unconnected=[list(x) for x in NONE[::-1] * 2]))
    other = replace(own, unconnected=())
    assert kind_of(own) != kind_of(other)
    with pytest.raises(ValueError, match="same constants"):
        simulate_many([own, other], [DRIVE, DRIVE], n_trials=1)
