"""Circuits with sparse weights."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.sparse import coo_array, csr_array, diags_array, eye_array

from ssn_estimators import Circuit, circuits, load, save, simulate, split, stationary_moments
from ssn_estimators.geometry import connect, orientation_map, sheet, signed
from ssn_estimators.inspection import (
    contrast_response,
    fixed_points,
    power_spectrum,
    response_matrix,
    size_tuning,
    steady_states,
)
from ssn_estimators.receptors import Receptors


def circuit_of(dtype=float, **changes):
    space = sheet((5, 6), 0.4)
    weights = connect(
        space, [[1.2, 0.7], [1.3, 0.6]], 0.5, normalize="rows", sparse=True, reach=1.0
    )
    weights = signed(weights.astype(dtype), [1, -1])
    assert weights.nnz < 0.5 * 60**2
    return Circuit(weights, 30, **{"noise_factor": 0.3, "k": 0.04, **changes})


def dense(circuit):
    arrays = {name: getattr(circuit, name).toarray() for name in ("weights", "noise_factor")}
    return replace(circuit, **arrays)


DRIVE = np.random.RandomState(0).uniform(2, 12, (2, 60))
RECEPTORS = Receptors(
    {"AMPA": 4.0, "GABA": 5.0, "NMDA": 50.0}, {"E": {"AMPA": 0.7, "NMDA": 0.3}, "I": {"GABA": 1}}
)
FORMS = [{}, {"dynamics": "rate"}, {"receptors": RECEPTORS}]
forms = pytest.mark.parametrize("form", FORMS, ids=["voltage", "rate", "receptors"])


@forms
@pytest.mark.parametrize("solver", ["euler", "heun", "ab2"])
def test_simulations_are_those_of_dense_weights(form, solver):
    circuit = circuit_of(**form)
    settings = {"duration": 60.0, "burn_in": 20.0, "random_state": 0, "solver": solver}
    settings |= {"record": ("u", "r", "eta", "final"), "n_trials": 4}
    found, expected = (simulate(x, DRIVE, **settings) for x in (circuit, dense(circuit)))
    for name in ("mean", "covariance", "rates", "u", "r", "eta"):
        # noise is float32
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-3)
    assert_allclose(found.final.state, expected.final.state, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMS[::2], ids=["voltage", "receptors"])
def test_steady_states_are_those_of_dense_weights(form):
    circuit = circuit_of(**form)
    found, expected = (steady_states(x, DRIVE) for x in (circuit, dense(circuit)))
    assert found.stable.all()
    assert_allclose(found.u, expected.u, rtol=1e-8)
    assert_allclose(found.abscissa, expected.abscissa, rtol=1e-6)
    silent = steady_states(circuit, -DRIVE)
    assert_allclose(silent.u, -DRIVE)
    assert_allclose(silent.abscissa, -1 / circuit.tau_states.max())


@pytest.mark.parametrize("weight", [0.9, 1.2, 1.5, 3.0])
def test_a_chain_of_cells_is_as_stable_as_each(weight):
    """Its matrix is far from normal: Krylov methods see eigenvalues that are none."""
    chain = diags_array(np.full(59, weight), offsets=-1, format="csr")
    drive = np.full((1, 60), 2 - 2 * weight)
    drive[0, 0] = 2.0
    found = steady_states(Circuit(chain, 60, k=1.0, gamma=1.0), drive)
    assert found.stable.all()
    assert_allclose(found.u, 2.0)
    assert_allclose(found.abscissa, -0.05, rtol=1e-9)


@forms
@pytest.mark.parametrize("density", [0.01, 0.03, 0.1])
def test_stability_of_groups_of_cells_that_act_on_each_other(form, density):
    rng = np.random.RandomState(0)
    for _ in range(3):
        weights = 0.5 * rng.uniform(size=(80, 80)) * (rng.uniform(size=(80, 80)) < density)
        weights[:, 40:] *= -1
        circuit = Circuit(csr_array(weights), 40, k=0.04, tau_e=20.0, tau_i=35.0, **form)
        drive = rng.uniform(-3, 8, (4, 80))
        found, expected = steady_states(circuit, drive), steady_states(dense(circuit), drive)
        assert_allclose(found.u, expected.u, rtol=1e-8)
        assert_allclose(found.abscissa, expected.abscissa, rtol=1e-7)


def test_runaway_is_seen():
    circuit = circuit_of()
    strong = replace(
        circuit, weights=circuit.weights.multiply([[1.0] * 30 + [0.0] * 30]).tocsr() * 9
    )
    assert not steady_states(strong, 10 * DRIVE).converged.any()
    assert simulate(strong, 10 * DRIVE, n_trials=2, random_state=0).diverged.all()


def test_experiments():
    contrasts, sizes, pattern = [0.5, 1.0], [1.0, 2.0], DRIVE[0]
    found, expected = (
        contrast_response(x, pattern, contrasts).rates for x in (circuit_of(), dense(circuit_of()))
    )
    assert_allclose(found, expected, rtol=1e-8)
    found, expected = (
        size_tuning(x, np.multiply.outer(sizes, pattern), sizes).rates
        for x in (circuit_of(), dense(circuit_of()))
    )
    assert_allclose(found, expected, rtol=1e-8)


def test_gradient_of_the_drive():
    tensors = circuit_of().to_torch()
    settings = {"duration": 10.0, "burn_in": 0.0, "n_trials": 2, "random_state": 0}
    drive = torch.tensor(DRIVE, requires_grad=True)
    (found,) = torch.autograd.grad(simulate(tensors, drive, **settings).mean.sum(), drive)
    full = dense(circuit_of()).to_torch()
    (expected,) = torch.autograd.grad(simulate(full, drive, **settings).mean.sum(), drive)
    assert_allclose(found, expected, rtol=1e-5)


def test_types_and_copies(tmp_path):
    circuit = circuit_of(np.float32, tau={"E": 20.0, "I": 9.0})
    assert circuit.weights.dtype == np.float32
    assert isinstance(circuit.weights, csr_array)
    for part in (circuit.weights.data, circuit.weights.indices, circuit.weights.indptr):
        assert not part.flags.writeable
    again = replace(circuit, tau_e=18.0)
    assert np.shares_memory(again.weights.data, circuit.weights.data)
    save(circuit, tmp_path / "circuit.ssn")
    tensors = circuit.to_torch()
    assert tensors.is_sparse
    assert tensors.weights.dtype == torch.float32
    wide = circuit.to_torch(dtype=torch.float64).to_numpy()
    assert wide.weights.dtype == np.float64
    copies = [
        tensors.to_numpy(),
        pickle.loads(pickle.dumps(circuit)),
        load(tmp_path / "circuit.ssn"),
    ]
    for other in (*copies, wide):
        assert (other.weights != circuit.weights).nnz == 0
        assert (other.noise_factor != circuit.noise_factor).nnz == 0
        assert_allclose(other.tau, circuit.tau)
    from_tensor = Circuit(tensors.weights, 30, tensors.noise_factor, k=0.04)
    assert_allclose(
        from_tensor.recurrent(torch.ones(60)), circuit.recurrent(np.ones(60)), rtol=1e-5
    )


def test_what_was_given_is_not_kept():
    weights = csr_array([[1.0, -1.0], [1.0, 0.0]])
    circuit = Circuit(weights, 1)
    weights.data[:] = weights.data / 2
    assert circuit.weights[0, 0] == 1.0
    other = Circuit(coo_array([[1.0, -1.0], [1.0, 0.0]]), 1, np.array([[1.0, 0.0], [0.5, 1.0]]))
    assert_allclose(other.noise(np.array([1.0, 2.0])), [1.0, 2.5])
    assert_allclose(Circuit(weights, 1, eye_array(2)).noise(np.ones((3, 2))), 1.0)
    assert_allclose(Circuit(weights, 1, diags_array([1.0, 2.0])).noise(np.ones(2)), [1.0, 2.0])
    assert_allclose(Circuit(weights, 1, {"E": 1.0, "I": 3.0}).noise(np.ones(2)), [1.0, 3.0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Circuit(csr_array([[1.0, 1.0], [1.0, -1.0]]), 1), r"W\[post=0, pre=1\] = 1"),
        (lambda: Circuit(csr_array([[1.0, np.nan], [0, 0]]), 1), "weights must be finite"),
        (lambda: Circuit(csr_array(np.ones((2, 3))), 1), "square matrix"),
        (lambda: Circuit(eye_array(2), 2, np.ones(3)), "noise_factor must be a number or have"),
        (lambda: split(circuit_of(), [0]), "splits need dense weights"),
        (lambda: stationary_moments(circuit_of(), DRIVE), "need dense weights"),
        (lambda: response_matrix(circuit_of(), DRIVE), "need dense weights"),
        (lambda: power_spectrum(circuit_of(), DRIVE, [1.0]), "need dense weights"),
        (lambda: fixed_points(circuit_of(), DRIVE), "need dense weights"),
        (lambda: circuit_of().jacobian(np.ones(60)), "need dense weights"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.slow
def test_a_large_sheet():
    """Cells at the centre of a grating are suppressed by a larger one."""
    circuit, space, drive = circuits.obeid_2021_sheet()
    settings = {"burn_in": 199.0, "duration": 1.0, "n_trials": 1, "solver": "euler"}
    sides = [2.0, 6.0, 8.0, 24.0]
    found = simulate(circuit, drive(16.4, sides), covariance=False, **settings).rates
    middle = space.n_positions // 2
    excitatory, inhibitory = found[:, middle], found[:, space.n_positions + middle]
    assert excitatory[-1] < 0.5 * excitatory.max()
    assert inhibitory[-1] / inhibitory.max() > excitatory[-1] / excitatory.max()


def test_chunks_of_rows_do_not_matter(monkeypatch):
    from ssn_estimators.geometry import connectivity

    space = sheet((7, 5), orientation=orientation_map((7, 5), 1.0, 3.0, random_state=0))
    for reach in (None, 2.0):
        arguments = {
            "normalize": "rows",
            "feature_widths": 30.0,
            "local_share": 0.3,
            "reach": reach,
        }
        whole = connect(space, [[1.0, 2.0], [3.0, 4.0]], 1.5, **arguments)
        monkeypatch.setattr(connectivity, "MOST_PAIRS", 100)
        parts = connect(space, [[1.0, 2.0], [3.0, 4.0]], 1.5, sparse=True, **arguments)
        monkeypatch.undo()
        assert_allclose(parts.toarray(), whole, rtol=1e-14)
