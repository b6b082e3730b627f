"""The CPU engine: held against `reference.py` on its own noise, however the work is cut."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from functools import lru_cache
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from numpy.testing import assert_allclose, assert_array_equal

import ssn_estimators
from ssn_estimators import Circuit, simulate, simulate_many
from ssn_estimators.rate_functions import MillerTroyer
from ssn_estimators.simulation import SCHEMES, reference
from ssn_estimators.simulation.cpu import backend, blocks, steps
from ssn_estimators.simulation.cpu import engine as cpu
from ssn_estimators.simulation.cpu.tables import NO_TABLE
from ssn_estimators.simulation.cpu.values import Law
from ssn_estimators.simulation.setup import Setup

BOTH = ("path", "noise")  # trajectories
MOMENTS = ("mean", "covariance", "rates")
TAU = np.array([20.0, 20.0, 10.0])
# Blocks of at most so many columns; 3 inputs of 10 trials are cut into (inputs, signs, draws)
LAYOUTS = {"one": None, "inputs": 20, "trials": 4}
CUTS = {"one": {(3, 1, 10)}, "inputs": {(2, 1, 10), (1, 1, 10)}, "trials": {(1, 1, 4), (1, 1, 2)}}
LAWS = list(product((False, True), (False, True), ("gaussian", "weak")))


@pytest.fixture
def cut(monkeypatch):
    """Cuts the work as a name of `LAYOUTS` says, and time into pieces with remainders."""

    def patch(layout, chunk=3, checkpoint=6):
        if LAYOUTS[layout]:
            monkeypatch.setattr(cpu, "BLOCK_ELEMENTS", 1)
            monkeypatch.setattr(cpu, "BLOCK_COLUMNS", LAYOUTS[layout])
            monkeypatch.setattr(steps, "CHUNK", chunk)
            monkeypatch.setattr(steps, "FEW", 0)
            monkeypatch.setattr(blocks, "CHECKPOINT", checkpoint)

    return patch


@pytest.fixture(params=["compiled", "plain"])
def loops(request, monkeypatch):
    """The loops over time: those of Numba, and those that do without."""
    if request.param == "plain":
        monkeypatch.setattr(backend, "compiled", None)
    elif backend.compiled is None:
        pytest.skip("Numba is not installed")


@pytest.fixture
def threads():
    """Sets the number of threads; afterwards it is what it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def setup_of(**changes):
    settings = {"n_trials": 10, "n_burn": 4, "n_window": 8, "dt": 1.0, "solver": "heun"}
    settings |= {"tau": TAU, "tau_eta": 15.0, "k": 0.05, "gamma": 2.0, "seeds": (1, 2)}
    return Setup(**settings | changes)


def problem(setup, moving=False, n_inputs=3, dtype=torch.float64):
    """Weights, noise factor and drive of every network; some cells are below threshold."""
    rng, m, n = np.random.RandomState(0), len(setup.seeds), len(setup.tau)
    weights = rng.uniform(0, 1, (m, n, n)) * np.where(setup.tau > 15, 0.5, -2.0)
    shape = (m, setup.n_burn + setup.n_window, n_inputs, n) if moving else (m, n_inputs, n)
    values = weights, rng.normal(size=(m, n, n)), 3 * rng.normal(size=shape) + 2
    return [torch.tensor(x, dtype=dtype, requires_grad=True) for x in values]


def engine_noise(drive, setup):
    """z before and after every step, shape (n_networks, n_steps + 1, n_inputs or 1, ...).

    Before the first it is read off the step of Euler from u = 0, without synapses and drive.
    """
    n_steps, (m, n) = setup.n_burn + setup.n_window, (len(drive), drive.shape[-1])
    bare = {"solver": "euler", "covariance": False, "rates": False}
    bare = replace(setup, n_burn=0, n_window=n_steps, **bare)
    eye = torch.eye(n).to(drive).expand(m, n, n)
    nothing = torch.zeros_like(drive.detach())
    *_, u, z, _, _ = cpu.moments(0 * eye, eye, nothing, bare, BOTH)
    start = u[:, :1, : z.shape[2]] * torch.tensor(setup.tau / setup.dt).to(u)
    return torch.cat([start, z], 1)


def reference_outcome(weights, factors, drive, setup, alive=None):
    """Moments and, where `alive` is None, potentials; other trials are not integrated."""
    n_steps, n_inputs = setup.n_burn + setup.n_window, drive.shape[-2]
    noise, results = engine_noise(drive, setup), []
    for m, z in enumerate(noise):
        steps = drive[m] if drive.ndim == 4 else drive[m].expand(n_steps, -1, -1)
        steps = torch.cat([steps, steps[-1:]])[:, :, None]
        forcing = steps + z @ factors[m].T
        kept = torch.ones(forcing.shape[1:3]).bool() if alive is None else alive[m]
        circuit = SimpleNamespace(
            weights=weights[m],
            tau_states=setup.tau,
            recurrent=lambda rates, own=weights[m]: rates @ own.T,
            receptors=None,
            dynamics="voltage",
            rates=lambda u: setup.k * torch.relu(u) ** setup.gamma,
        )
        columns = forcing[:, kept]

        def path(u, columns, slope, circuit=circuit):
            steps = reference.integrate(circuit, u, columns, setup.dt, setup.solver, slope)
            return [(u, None), *steps] if slope is None else list(steps)

        with torch.no_grad():
            u, slope = path(0 * columns[0], columns[: setup.n_burn + 1], None)[-1]
        path = torch.stack([u for u, _ in path(u, columns[setup.n_burn :], slope)])
        path = path[-setup.n_window :]
        samples = [path[:, kept.nonzero()[:, 0] == i].flatten(0, 1) for i in range(n_inputs)]
        found = [
            torch.stack([x.mean(0) for x in samples]),
            torch.stack([x.T.cov(correction=0) for x in samples]),
            torch.stack([(setup.k * torch.relu(x) ** setup.gamma).mean(0) for x in samples]),
        ]
        if alive is None:
            found.append(path.unflatten(1, kept.shape))
        results.append(found)
    return [torch.stack(x) for x in zip(*results, strict=True)]


def gradients(outcome, leaves, of=None):
    """Gradients of a random linear function of the outcome."""
    rng = np.random.RandomState(3)
    loss = 0
    for i, x in enumerate(outcome):
        weights = torch.tensor(rng.normal(size=x.shape)).to(x)
        loss = loss + (weights * x).sum() if of is None or i in of else loss
    return torch.autograd.grad(loss, leaves)


def run_engine(leaves, setup):
    mean, covariance, rates, _, u, *_ = cpu.moments(*leaves, setup, BOTH)
    return [mean, covariance, rates, u]


def assert_same(values, expected, tolerance):
    for value, exact in zip(values, expected, strict=True):
        value, exact = value.detach(), exact.detach()
        assert_allclose(value, exact, rtol=0, atol=tolerance * float(exact.abs().max()))


def assert_like_reference(setup, moving, n_inputs=3):
    leaves = problem(setup, moving, n_inputs)
    outcome, expected = run_engine(leaves, setup), reference_outcome(*leaves, setup)
    assert (expected[3] < 0).any()
    assert (expected[3] > 0).any()
    assert_same(outcome, expected, 1e-11)
    assert_same(gradients(outcome, leaves), gradients(expected, leaves), 1e-11)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_work_is_cut_as_the_layouts_say(layout, cut, monkeypatch):
    cut(layout)
    seen = set()

    def spy(*args):
        seen.add(args[4])
        return blocks.Block(*args)

    monkeypatch.setattr(cpu, "Block", spy)
    setup = setup_of()
    cpu.moments(*problem(setup), setup)
    assert seen == CUTS[layout]


@pytest.mark.parametrize(
    ("layout", "gamma"), [("one", 1.0), ("one", 2.0), ("one", 2.5), ("trials", 2.0)]
)
@pytest.mark.parametrize(("shared_noise", "antithetic", "increments"), LAWS)
@pytest.mark.parametrize("moving", [False, True], ids=["constant", "moving"])
@pytest.mark.parametrize("solver", SCHEMES)
def test_engine_is_the_reference(
    solver, moving, shared_noise, antithetic, increments, layout, gamma, cut, loops
):
    cut(layout)
    law = {"shared_noise": shared_noise, "antithetic": antithetic, "increments": increments}
    assert_like_reference(
        setup_of(solver=solver, gamma=gamma, seeds=(3,), **law), moving, n_inputs=2
    )


@pytest.mark.skipif(backend.compiled is None, reason="Numba is not installed")
@pytest.mark.parametrize("gamma", [1.0, 1.3, 2.0, 2.2, 2.5, 3.0, 4.6])
def test_compiled_powers(gamma):
    """In float32 of numbers that occur, and of those that should not."""
    u = np.concatenate([10.0 ** np.linspace(-3, 3, 5001), -np.linspace(0, 9, 200)])
    for dtype, tolerance in ((np.float32, 6e-7), (np.float64, 1e-14)):
        u, exponent = u.astype(dtype), float(dtype(gamma))
        rates = np.empty_like(u)
        assert backend.compiled._rate(u, rates, Law(dtype(gamma), NO_TABLE), dtype(1001))
        assert not backend.compiled._rate(u, rates, Law(dtype(gamma), NO_TABLE), dtype(999))
        expected = np.maximum(u, 0).astype(float) ** exponent
        assert_allclose(rates, expected, rtol=tolerance)
        odd = np.array([np.nan, np.inf, -np.inf, 1e-42, 0.0], dtype)
        rates = np.empty_like(odd)
        for i in range(3):
            own = odd[i : i + 1]
            assert not backend.compiled._rate(own, rates, Law(dtype(gamma), NO_TABLE), dtype(1001))
        backend.compiled._rate(odd, rates, Law(dtype(gamma), NO_TABLE), dtype(1001))
        assert np.isnan(rates[0])
        assert rates[1] == np.inf
        assert_allclose(rates[2:], 0, atol=1e-41)
        grad_u, back = np.zeros_like(u), np.linspace(-1, 1, len(u)).astype(dtype)
        rates = expected.astype(dtype)
        backend.compiled._add_gain(grad_u, back, u, rates, dtype(gamma))
        slope = np.where(u > 0, exponent * np.maximum(u, 1e-9) ** (exponent - 1.0), 0)
        assert_allclose(grad_u, back * slope, rtol=10 * tolerance, atol=1e-30)


OF_CELLS = {"k": torch.tensor([0.05, 0.03, 0.08]), "gamma": torch.tensor([2.0, 1.0, 2.5])}
OF_CELLS = {name: value.double() for name, value in OF_CELLS.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("names", [("k",), ("gamma",), ("k", "gamma")], ids=" and ".join)
@pytest.mark.parametrize("solver", SCHEMES)
def test_engine_is_the_reference_where_cells_differ(solver, names, layout, cut, loops):
    cut(layout)
    tau = np.array([20.0, 12.0, 7.0])
    constants = {name: OF_CELLS[name] for name in names}
    setup = setup_of(solver=solver, tau=tau, seeds=(3,), **constants)
    assert_like_reference(setup, moving=layout == "one")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("moving", [False, True], ids=["constant", "moving"])
@pytest.mark.parametrize("solver", SCHEMES)
def test_engine_is_the_reference_for_several_networks(solver, moving, layout, cut):
    cut(layout)
    assert_like_reference(setup_of(solver=solver, seeds=(1, 2, 3)), moving)


@pytest.mark.parametrize(("chunk", "checkpoint"), [(1, 1), (3, 6), (4, 4), (16, 64)])
@pytest.mark.parametrize(("n_burn", "n_window"), [(0, 1), (0, 11), (1, 12), (13, 8)])
@pytest.mark.parametrize("solver", SCHEMES)
def test_engine_is_the_reference_however_time_is_cut(
    solver, n_burn, n_window, chunk, checkpoint, cut, loops
):
    cut("inputs", chunk, checkpoint)
    setup = setup_of(solver=solver, n_burn=n_burn, n_window=n_window, seeds=(3,))
    leaves = problem(setup, moving=True)
    outcome, expected = run_engine(leaves, setup), reference_outcome(*leaves, setup)
    assert_same(outcome, expected, 1e-11)
    assert_same(gradients(outcome, leaves), gradients(expected, leaves), 1e-11)


@pytest.mark.parametrize("solver", SCHEMES)
def test_engine_is_the_reference_over_several_checkpoints(solver):
    assert_like_reference(setup_of(solver=solver, n_burn=37, n_window=150, seeds=(3,)), False)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (0, 2), (1, 3)])
def test_gradient_of_some_outcomes(wanted, cut):
    cut("trials")
    setup = setup_of()
    leaves = problem(setup)
    expected = gradients(reference_outcome(*leaves, setup), leaves, wanted)
    assert_same(gradients(run_engine(leaves, setup), leaves, wanted), expected, 1e-11)


@pytest.mark.parametrize("i", range(3), ids=["weights", "noise factor", "drive"])
def test_gradient_with_respect_to_one_tensor(i):
    setup = setup_of(covariance=False)
    leaves = problem(setup)
    expected = gradients(cpu.moments(*leaves, setup)[:1], leaves)[i]
    alone = [x if i == j else x.detach() for j, x in enumerate(leaves)]
    assert_array_equal(*gradients(cpu.moments(*alone, setup)[:1], leaves[i]), expected)


def test_no_gradient_reaches_into_burn_in(cut):
    cut("inputs")
    setup = setup_of()
    leaves = problem(setup, moving=True)
    of_drive = gradients(run_engine(leaves, setup), leaves)[2]
    assert (of_drive[:, : setup.n_burn] == 0).all()
    assert (of_drive[:, setup.n_burn :] != 0).any((0, 2, 3)).all()


@pytest.mark.parametrize("layout", ["one", "trials"])
@pytest.mark.parametrize("increments", ["gaussian", "weak"])
@pytest.mark.parametrize("solver", SCHEMES)
def test_single_precision_is_near_double(solver, increments, layout, cut):
    cut(layout)
    setup = setup_of(solver=solver, increments=increments, n_burn=10, n_window=30)
    double = problem(setup)
    single = [x.detach().float().requires_grad_() for x in double]
    outcomes = [run_engine(leaves, setup) for leaves in (single, double)]
    assert all(x.dtype == torch.float32 for x in outcomes[0])
    assert_same(*outcomes, 1e-4)
    assert_same(*map(gradients, outcomes, (single, double)), 1e-4)


def test_covariance_in_single_precision_far_from_zero():
    # a variance of 1e-4 mV**2 at a mean of 60 mV is lost in sums of squares
    circuit = Circuit(np.zeros((2, 2)), 1, 0.02)
    settings = {"n_trials": 20, "burn_in": 300.0, "duration": 200.0, "random_state": 0}
    double = simulate(circuit, [[60.0, -60.0]], **settings).covariance
    single = circuit.to_torch(dtype=torch.float32).to_numpy()
    single = simulate(single, [[60.0, -60.0]], **settings).covariance
    assert_allclose(single, double, atol=0.01 * double.max())


def circuits(n_networks=3, n=7, dtype=np.float32):
    """Tensors with gradient, and drives; odd sizes, so that not every row is aligned."""
    rng, result = np.random.RandomState(n), []
    for _ in range(n_networks):
        weights = rng.uniform(0, 0.2, (n, n)) * np.where(np.arange(n) < 4, 1, -1)
        arrays = weights, rng.normal(size=(n, n)) / np.sqrt(n)
        weights, factor = (torch.tensor(x.astype(dtype), requires_grad=True) for x in arrays)
        result.append(Circuit(weights, 4, factor, k=0.05))
    drives = [torch.tensor(rng.uniform(1, 6, (3, n)).astype(dtype)) for _ in result]
    return result, [drive.requires_grad_() for drive in drives]


def everything(circuit, drive, simulation):
    """Moments, trajectories and gradients."""
    values = [getattr(simulation, name) for name in (*MOMENTS, "u", "eta")]
    leaves = (circuit.weights, circuit.noise_factor, drive)
    return [x.detach() for x in values] + list(gradients(values[:4], leaves))


def in_order(weights, column, out):
    """Their product, as the loop over a few numbers has it."""
    for i in range(len(out)):
        total = column.dtype.type(0)
        for k in range(len(column)):
            total += weights[i, k] * column[k, 0]
        out[i, 0] = total


@lru_cache
def compiled_in_order():
    return pytest.importorskip("numba").njit(fastmath={"contract"})(in_order)


@lru_cache
def rounds_alike(n_neurons, dtype):
    """Whether products of whole vectors round a column alike wherever it stands: in order.

    Kernels of BLAS for AVX-512 do; those for AVX2 treat the ends of rows differently.
    """
    rng = np.random.RandomState(0)
    weights, column = (rng.normal(size=(n_neurons, m)).astype(dtype) for m in (n_neurons, 1))
    alone = np.empty_like(column)
    compiled_in_order()(weights, column, alone)
    ways = {alone.tobytes()} if n_neurons <= 32 else set()
    for width in (16, 64, 112, 256):
        out = np.empty((n_neurons, width), dtype)
        backend.compiled._product(weights, np.repeat(column, width, 1), out)
        ways |= {out[:, i].tobytes() for i in range(width)}
    return len(ways) == 1


@pytest.mark.skipif(backend.compiled is None, reason="Numba is not installed")
@pytest.mark.parametrize("solver", SCHEMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("law", [{"gamma": 2.0}, {"gamma": 2.2}, {"rate_function": MillerTroyer()}])
@pytest.mark.parametrize("dynamics", ["voltage", "rate"])
@pytest.mark.parametrize("n_neurons", [1, 4, 17, 100])
def test_an_input_alone_is_that_in_company_to_the_last_bit(n_neurons, dynamics, law, dtype, solver):
    if not rounds_alike(n_neurons, dtype):
        pytest.skip("this processor's BLAS rounds columns by where they stand")
    rng = np.random.RandomState(0)
    signs = np.where(np.arange(n_neurons) < (n_neurons + 1) // 2, 1.0, -2.0)
    weights = np.abs(rng.normal(scale=0.3 / n_neurons**0.5, size=(n_neurons, n_neurons))) * signs
    circuit = Circuit(
        weights.astype(dtype), (n_neurons + 1) // 2, 0.2, k=0.04, dynamics=dynamics, **law
    )
    drive = rng.uniform(2, 6, (70, n_neurons)).astype(dtype)

    def moments(inputs, n_trials):
        settings = {"n_trials": n_trials, "burn_in": 10.0, "duration": 40.0, "dt": 0.5}
        settings |= {"shared_noise": True, "antithetic": n_trials == 4, "covariance": False}
        found = simulate(circuit, inputs, solver=solver, random_state=0, **settings)
        assert not found.diverged.any()
        return found.mean, found.rates

    for n_trials in (1, 3, 4):
        together = moments(drive, n_trials)
        for part in (slice(0, 1), slice(3, 4), slice(5, 12), slice(20, 53), slice(69, 70)):
            for whole, own in zip(together, moments(drive[part], n_trials), strict=True):
                assert_array_equal(whole[part], own)


RECORDED = {"n_trials": 10, "duration": 20.0, "burn_in": 10.0, "record": ("u", "eta")}


@pytest.mark.parametrize("layout", ["one", "trials"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", SCHEMES)
def test_networks_in_a_batch_are_as_alone(solver, dtype, layout, cut):
    cut(layout)
    settings = RECORDED | {"solver": solver}
    several, drives = circuits(dtype=dtype)
    batch = simulate_many(several, drives, random_state=[4, 5, 6], **settings)
    values = [x for s in batch for x in (*(getattr(s, name) for name in MOMENTS), s.u)]
    leaves = [x for c, d in zip(several, drives, strict=True) for x in _sources(c, d)]
    together = torch.autograd.grad(sum(x.sum() for x in values), leaves)
    for i, (circuit, drive) in enumerate(zip(several, drives, strict=True)):
        alone = simulate(circuit, drive, random_state=4 + i, **settings)
        for name in (*MOMENTS, "diverged", "u", "eta"):
            assert torch.equal(getattr(batch[i], name), getattr(alone, name))
        values = [*(getattr(alone, name) for name in MOMENTS), alone.u]
        gradient = torch.autograd.grad(sum(x.sum() for x in values), _sources(circuit, drive))
        assert all(map(torch.equal, together[3 * i : 3 * i + 3], gradient))


def _sources(circuit, drive):
    return circuit.weights, circuit.noise_factor, drive


@pytest.mark.parametrize("dynamics", ["voltage", "rate"])
def test_tensors_may_lie_in_memory_in_any_order(dynamics, loops):
    (circuit, *_), (drive, *_) = circuits()
    weights, noise_factor = circuit.weights.detach(), circuit.noise_factor.detach()

    def moments(turn):
        made = Circuit(turn(weights), 4, turn(noise_factor), k=0.05, dynamics=dynamics)
        return simulate(made, turn(drive.detach()), random_state=0, **RECORDED)

    found, turned = moments(lambda x: x), moments(lambda x: x.T.contiguous().T)
    for name in MOMENTS:
        assert_allclose(getattr(turned, name), getattr(found, name), rtol=1e-5, atol=1e-6)


def test_one_random_state_gives_every_network_its_own_noise():
    several, drives = circuits()
    first, again = (simulate_many(several, drives, random_state=0, **RECORDED) for _ in range(2))
    assert all(torch.equal(x.eta, y.eta) for x, y in zip(first, again, strict=True))
    same = simulate_many([several[0]] * 2, [drives[0]] * 2, random_state=0, **RECORDED)
    assert (same[0].eta != same[1].eta).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"circuits": [Circuit(np.eye(3), 3, 0.1), Circuit(np.eye(2), 2, 0.1)]}, "same numbers of"),
        ({"circuits": [Circuit(np.eye(3), 3, 0.1, k=k) for k in (0.1, 0.2)]}, "same constants"),
        ({"circuits": [Circuit(np.eye(3), 3, 0.1, tau_eta=t) for t in (9, 8)]}, "same constants"),
        ({"drives": [np.ones((1, 3))]}, "drives must be as many as circuits .*got 1 for 2"),
        ({"drives": [np.ones((1, 3)), np.ones((2, 3))]}, r"of one shape.*\(1, 3\), \(2, 3\)"),
        ({"drives": [np.ones((1, 3)), np.ones((1, 2))]}, r"drive must have shape .*\(1, 2\)"),
        ({"random_state": [1, 2, 3]}, "one for each of the 2 circuits, got 3"),
        ({"random_state": [1]}, "one for each of the 2 circuits, got 1"),
    ],
)
def test_circuits_that_do_not_match_are_refused(changes, message):
    alike = [Circuit(np.eye(3), 3, 0.1)] * 2
    settings = {"circuits": alike, "drives": [np.ones((1, 3))] * 2, "duration": 5.0, "burn_in": 0.0}
    with pytest.raises(ValueError, match=message):
        simulate_many(**settings | changes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_do_not_depend_on_the_number_of_threads(layout, cut, threads):
    cut(layout)
    results = []
    for n_threads in (1, 2, 3):
        threads(n_threads)
        (circuit,), (drive,) = circuits(1, n=61)
        simulation = simulate(circuit, drive, random_state=0, **RECORDED)
        results.append(everything(circuit, drive, simulation))
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_numbers_of_threads_are_left_as_they_were(n_threads, cut, threads):
    cut("trials")
    threads(n_threads)
    (circuit,), (drive,) = circuits(1)
    torch.autograd.grad(simulate(circuit, drive, **RECORDED).mean.sum(), circuit.weights)
    seen = []
    new = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert seen == [torch.get_num_threads()] == [n_threads]


def runaway(noise_factor, weight=0.6):
    """One excitatory cell: beyond u = 1 / (W k) = 5.6 mV, nothing holds it."""
    weights = torch.tensor([[weight]], dtype=torch.float64, requires_grad=True)
    factor = torch.tensor([[noise_factor]], dtype=torch.float64, requires_grad=True)
    return Circuit(weights, 1, factor)


def metastable(solver, **changes):
    """Leaves and setup of two cells, of which noise carries some trials over the threshold."""
    constants = {"tau": np.array([20.0, 20.0]), "tau_eta": 20.0, "k": 0.3, "seeds": (7,)}
    setup = setup_of(**constants | {"solver": solver, "n_burn": 20, "n_window": 50} | changes)
    values = (
        [[[0.6, 0.01], [0.02, 0.5]]],
        4.5 * np.eye(2)[None],
        [[[0.0, 0.0], [1.0, 0.5], [0.5, 1.0]]],
    )
    leaves = [torch.tensor(np.array(x, float), requires_grad=True) for x in values]
    return leaves, setup


@pytest.mark.parametrize("record", [(), ("path",)])
@pytest.mark.parametrize(("layout", "antithetic"), [("one", True), ("trials", False)])
@pytest.mark.parametrize("solver", SCHEMES)
def test_diverging_trials_are_as_if_they_were_not(solver, layout, antithetic, record, cut, loops):
    cut(layout)
    leaves, setup = metastable(solver, antithetic=antithetic)
    mean, covariance, rates, exceeded, *_ = cpu.moments(*leaves, setup, record)
    alive = exceeded < 0
    assert alive.any(2).all()
    assert ((exceeded >= 0).sum(2) > 0).all()
    assert (exceeded > setup.n_burn).any()
    outcome = [mean, covariance, rates]
    expected = reference_outcome(*leaves, setup, alive)
    assert_same(outcome, expected, 1e-10)
    assert_same(gradients(outcome, leaves), gradients(expected, leaves), 1e-8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_diverging_input_leaves_the_others_alone(layout, cut):
    cut(layout)
    drives = np.array([[0.0], [0.3], [20.0], [0.1]])
    settings = {"n_trials": 10, "duration": 60.0, "burn_in": 0.0, "random_state": 0}
    others, means, found = [0, 1, 3], [], []
    for third in (20.0, 0.0):
        drives[2] = third
        circuit = runaway(0.2)
        simulation = simulate(circuit, drives, **settings)
        assert_array_equal(simulation.diverged.all(1), np.array(drives)[:, 0] == 20)
        means.append([getattr(simulation, name)[others].detach() for name in MOMENTS])
        loss = sum(getattr(simulation, name)[others].sum() for name in MOMENTS)
        found.append(torch.autograd.grad(loss, circuit.weights)[0])
    assert all(map(torch.equal, *means))
    assert_allclose(*found, rtol=1e-10)


@pytest.mark.parametrize("record", [None, "u"])
@pytest.mark.parametrize("burn_in", [0.0, 15.0, 100.0])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("solver", SCHEMES)
def test_nothing_is_learnt_when_all_trials_diverge(solver, layout, burn_in, record, cut, loops):
    cut(layout)
    circuit, drive = runaway(0.5), torch.tensor([[20.0], [25.0]], requires_grad=True)
    settings = {"n_trials": 6, "duration": 100.0, "burn_in": burn_in, "solver": solver}
    simulation = simulate(circuit, drive, record=record, random_state=0, **settings)
    assert simulation.diverged.all()
    moments = [getattr(simulation, name) for name in MOMENTS]
    assert all(torch.isnan(x).all() for x in moments)
    found = torch.autograd.grad(sum(x.sum() for x in moments), _sources(circuit, drive))
    assert all((x == 0).all() for x in found)


@pytest.mark.parametrize("record", [None, "u"])
@pytest.mark.parametrize("seed", range(2))
def test_blocks_without_a_survivor_add_nothing_to_the_moments(seed, record, monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(cpu, "BLOCK_COLUMNS", 1)
    settings = {"n_trials": 20, "burn_in": 20.0, "duration": 60.0, "random_state": seed}
    circuit = runaway(4.0).to_numpy()
    outcome = simulate(circuit, [[0.0]], record=record, **settings)
    u = simulate(circuit, [[0.0]], record="u", **settings).u[:, 0, ~outcome.diverged[0]]
    assert 0 < outcome.diverged.sum() < 20
    assert_allclose(outcome.mean[0, 0], u.mean())
    assert_allclose(outcome.covariance[0, 0, 0], u.var())


def test_gradient_can_be_taken_only_once():
    setup = setup_of()
    leaves = problem(setup)
    loss = cpu.moments(*leaves, setup)[0].sum()
    torch.autograd.grad(loss, leaves, retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("n_networks", [1, 2])
def test_nothing_is_kept_for_a_gradient_that_nobody_can_take(context, n_networks, monkeypatch):
    kept, forward = [], cpu._Run.forward

    def watched(run, keep, record):
        kept.append(keep)
        return forward(run, keep, record)

    monkeypatch.setattr(cpu._Run, "forward", watched)
    weights = torch.tensor([[0.5, -0.4], [0.6, -0.2]], dtype=torch.float64, requires_grad=True)
    circuits = [Circuit(weights, 1, 0.2)] * n_networks
    drives = [torch.ones(1, 2, dtype=torch.float64, requires_grad=True)] * n_networks
    options = {"duration": 5.0, "burn_in": 5.0, "n_trials": 2, "record": "final"}

    def run(initial=None):
        if n_networks > 1:
            return simulate_many(circuits, drives, random_state=0, **options)[0]
        return simulate(circuits[0], drives[0], initial=initial, random_state=0, **options)

    with context():
        first = run()
        if n_networks == 1:
            state = first.final.state.clone().requires_grad_()
            run(first.final._replace(state=state))
    assert not any(kept)
    run()
    assert kept[-1]


def test_changing_a_moment_in_place_does_not_change_the_gradient():
    setup = setup_of()
    leaves = problem(setup)
    expected = gradients(run_engine(leaves, setup), leaves)
    outcome = run_engine(leaves, setup)
    for x in outcome:
        x.data.mul_(0)
    assert_same(gradients(outcome, leaves), expected, 1e-14)


@pytest.mark.parametrize("solver", ["heun", "ab2"])
def test_independent_noise_needs_no_product(solver, loops, monkeypatch):
    setup = replace(setup_of(), solver=solver)
    weights, noise_factor, drive = problem(setup)
    leaves = weights, torch.diag_embed(noise_factor.detach().diagonal(dim1=1, dim2=2)), drive
    leaves[1].requires_grad_()
    assert cpu._compact(leaves[1][0].detach()).shape == (leaves[1].shape[1], 1)
    found = run_engine(leaves, setup)
    of_found = gradients(found, leaves)
    monkeypatch.setattr(cpu, "_compact", torch.clone)
    expected = run_engine(leaves, setup)
    assert_same(found, expected, 1e-14)
    assert_same(of_found, gradients(expected, leaves), 1e-14)


SMALL = {"k": 0.05, "noise_factor": 0.5, "n_excitatory": 2}
WEIGHTS = [[1.0, 0.4, -1.5], [0.5, 0.6, -1.0], [1.6, 1.0, -0.8]]
SHORT = {"duration": 4.0, "burn_in": 2.0, "random_state": 0, "record": ("u", "eta")}


@pytest.mark.parametrize("elements", [1, 60, 120, 2**15])
@pytest.mark.parametrize(("n_trials", "columns"), [(10, 4), (30, 4), (30, 20), (300, 128)])
@pytest.mark.parametrize("antithetic", [False, True])
def test_shared_noise_is_that_of_the_trial(antithetic, n_trials, columns, elements, monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK_COLUMNS", columns)
    monkeypatch.setattr(cpu, "BLOCK_ELEMENTS", elements)
    circuit, drive = Circuit(WEIGHTS, **SMALL), np.random.RandomState(0).uniform(0, 6, (6, 3))
    settings = SHORT | {"shared_noise": True, "antithetic": antithetic, "n_trials": n_trials}
    together = simulate(circuit, drive, **settings)
    assert together.eta.shape == (4, 1, n_trials, 3)
    assert len(np.unique(together.eta[0, 0])) == 3 * n_trials
    for inputs in ([0], [3, 5, 2]):
        some = simulate(circuit, drive[inputs], **settings)
        assert_array_equal(some.eta, together.eta)
        for name in (*MOMENTS, "diverged"):
            exact = getattr(together, name)[inputs]
            assert_allclose(getattr(some, name), exact, rtol=1e-10, atol=1e-14)
    twice = simulate(circuit, drive[[3, 0, 3]], **settings).u
    assert_allclose(twice[:, 0], twice[:, 2], rtol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("increments", ["gaussian", "weak"])
@pytest.mark.parametrize("shared_noise", [False, True])
def test_antithetic_trials_have_opposite_noise(shared_noise, increments, layout, cut):
    cut(layout)
    circuit, drive = Circuit(WEIGHTS, **SMALL), np.ones((5, 3))
    settings = SHORT | {"shared_noise": shared_noise, "increments": increments}
    eta = simulate(circuit, drive, n_trials=10, antithetic=True, **settings).eta
    assert_array_equal(eta[:, :, :5], -eta[:, :, 5:])
    n_columns = 5 * 3 * (1 if shared_noise else 5)
    assert len(np.unique(simulate(circuit, drive, n_trials=5, **settings).eta[0])) == n_columns
    assert len(np.unique(np.abs(eta[0]))) == n_columns


def test_antithetic_trials_of_a_linear_circuit_have_the_mean_of_the_quiet_one():
    quiet = Circuit(WEIGHTS, 2, 0.0, k=0.1, gamma=1.0)
    noisy = Circuit(WEIGHTS, 2, 0.5, k=0.1, gamma=1.0)
    settings = {"n_trials": 4, "burn_in": 100.0, "duration": 50.0, "random_state": 0}
    found = simulate(noisy, [[20.0, 22.0, 25.0]], antithetic=True, record="u", **settings)
    assert (found.u > 0).all()
    expected = simulate(quiet, [[20.0, 22.0, 25.0]], **settings).mean
    assert_allclose(found.mean, expected, rtol=1e-12)


def test_odd_numbers_of_antithetic_trials_are_refused():
    with pytest.raises(ValueError, match="n_trials must be even, got 3"):
        simulate(Circuit(WEIGHTS, **SMALL), np.ones((1, 3)), n_trials=3, antithetic=True)


IN_A_FORK = """
import multiprocessing, numpy as np, torch
from ssn_estimators import Circuit, simulate

torch.set_num_threads(2)

def mean(n):
    circuit, drive = Circuit(np.eye(n) / 10, n, 0.5), np.ones((100, n))
    return simulate(circuit, drive, duration=20.0, burn_in=10.0, random_state=0).mean

for n in (5, 25):  # small and large moments
    here = mean(n)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for there in pool.map(mean, [n, n]):
            assert (there == here).all()
    print(n, end=" ", flush=True)
"""


def test_simulations_in_a_fork_do_not_hang():
    command = [sys.executable, "-c", IN_A_FORK]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.communicate(timeout=60)[0] == "5 25 "
        finally:
            if process.returncode is None:
                os.killpg(process.pid, 9)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_simulations_in_parallel(backend, threads):
    threads(2)
    circuit, drive = Circuit(WEIGHTS, **SMALL), np.ones((100, 3))
    settings = {"duration": 10.0, "burn_in": 5.0}
    here = [simulate(circuit, drive, random_state=i, **settings).mean for i in range(4)]
    call = delayed(simulate)
    there = Parallel(n_jobs=2, backend=backend)(
        call(circuit, drive, random_state=i, **settings) for i in range(4)
    )
    for simulation, expected in zip(there, here, strict=True):
        assert_array_equal(simulation.mean, expected)


def test_public_names_can_be_imported():
    for name in ssn_estimators.__all__:
        assert getattr(ssn_estimators, name) is not None
    from ssn_estimators import Simulation
    from ssn_estimators.simulation import simulate as same

    assert callable(simulate)
    assert simulate is same
    circuit = Circuit(WEIGHTS, **SMALL)
    assert isinstance(simulate(circuit, np.ones((1, 3)), **SHORT), Simulation)
