"""What comes in where arrays and numbers are taken: refused by name, or answered as it should."""

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.datasets import load_iris
from threadpoolctl import threadpool_info

from ssn_estimators import (
    Circuit,
    CNNClassifier,
    EvolutionStrategy,
    GMMFlow,
    LateralContext,
    MorrisLecar,
    MorrisLecarClassifier,
    RNNClassifier,
    SpikingRegressor,
    SSNClassifier,
    SSNSampler,
    choose_parents,
    gabor_filters,
    random_circuit,
    simulate,
    simulate_many,
    stability_report,
    stable_pair,
)
from ssn_estimators.datasets import (
    make_cued_sinusoids,
    make_delayed_match,
    make_evidence_integration,
    make_robertson,
    make_spiral,
)
from ssn_estimators.density import (
    circuit_dynamics,
    circuit_from_samples,
    fokker_planck_residual,
)
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.initial_weights import block_init, dale_init, low_rank_init
from ssn_estimators.inspection import (
    ei_balance,
    fixed_points,
    jacobian,
    oscillations,
    perturb,
    power_spectrum,
    response_matrix,
    steady_states,
    transient_amplification,
)
from ssn_estimators.inspection.sampling import energy_distance, sliced_wasserstein
from ssn_estimators.lateral import add_salt_pepper, robustness_curve
from ssn_estimators.lateral.rule import Reading, gated
from ssn_estimators.stationary.moments import stationary_moments

PAIR = Circuit([[1.25, -0.65], [1.2, -0.5]], 1, 0.2, k=0.04)
DRIVES = np.linspace(0.5, 2.0, 8).reshape(4, 2)
RUNAWAY = Circuit([[5.0, -0.1], [0.1, -0.1]], 1, 0.2, k=0.3)


@pytest.mark.parametrize("solver", ["heun", "ab2", "euler"])
@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("covariance", [False, True])
def test_a_recorded_runaway_is_that_of_the_trial_alone(solver, antithetic, covariance):
    """Moments are of the other trials: for their sake those that diverged are held at rest."""
    settings = {
        "n_trials": 2,
        "duration": 40.0,
        "burn_in": 0.0,
        "solver": solver,
        "antithetic": antithetic,
        "covariance": covariance,
        "record": "u",
        "shared_noise": True,
        "random_state": 0,
    }
    alone = simulate(RUNAWAY, [[2.0, 2.0]], **settings)
    both = simulate(RUNAWAY, [[2.0, 2.0], [0.0, 0.0]], **settings)
    assert alone.diverged.all()
    assert_array_equal(both.diverged, [[True, True], [False, False]])
    assert_array_equal(both.u[:, :1], alone.u)
    assert np.nanmax(abs(both.u[:, 0])) > 1000
    assert np.isfinite(both.mean[1]).all()


def in_time(drive):
    return np.broadcast_to(drive, (40, *drive.shape)).copy()


ENTRIES = {
    "simulate": lambda x: simulate(PAIR, x, duration=20.0, burn_in=0.0, random_state=0).mean,
    "simulate in time": lambda x: (
        simulate(PAIR, in_time(DRIVES) * x[0, 0], duration=40.0, burn_in=0.0, random_state=0).mean
    ),
    "stationary_moments": lambda x: stationary_moments(PAIR, x).covariance,
    "jacobian": lambda x: jacobian(PAIR, x),
    "ei_balance": lambda x: ei_balance(PAIR, x).index,
    "fixed_points": lambda x: np.concatenate([p.u for p in fixed_points(PAIR, x, n_starts=3)]),
    "oscillations": lambda x: oscillations(PAIR, x, settling=20.0, duration=20.0).amplitude,
    "steady_states": lambda x: steady_states(PAIR, x).u,
    "response_matrix": lambda x: response_matrix(PAIR, x),
    "perturb": lambda x: perturb(PAIR, x, "I", 0.1).after,
    "power_spectrum": lambda x: power_spectrum(PAIR, x, [0.0, 10.0]),
    "drive": lambda x: PAIR.drive(x),
    "gabor_filters": lambda x: gabor_filters(x[:, 0], 0.5 + x[:, 1], x, (8, 8)),
    "residual": lambda x: fokker_planck_residual(
        circuit_dynamics(PAIR, [2.0, 2.0]), lambda z: -z, np.hstack([x, x])
    ).numpy(),
    "circuit_dynamics": lambda x: (
        circuit_dynamics(PAIR, x[0]).drift(np.hstack([DRIVES, DRIVES])).numpy()
    ),
    "weights": lambda x: Circuit(x[:2], 2, 0.1).weights,
}
LAYOUTS = {
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "columns": np.asfortranarray,
    "byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "extended": lambda x: x.astype(np.longdouble),
    "list": lambda x: x,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_how_an_array_lies_in_memory(entry, layout):
    expected = ENTRIES[entry](DRIVES)
    assert_array_equal(ENTRIES[entry](LAYOUTS[layout](DRIVES)), expected)


@pytest.mark.parametrize("entry", ["simulate", "stationary_moments", "drive", "jacobian"])
def test_data_frames_where_arrays_are_taken(entry):
    pd = pytest.importorskip("pandas")
    expected = ENTRIES[entry](DRIVES)
    assert_array_equal(ENTRIES[entry](pd.DataFrame(DRIVES)), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, ">f4", ">f8", int, np.float32])
def test_circuits_are_in_single_or_double_precision(dtype):
    circuit = Circuit(np.array([[2, -1], [3, -4]], dtype), 1, 0.0, k=0.001)
    assert circuit.weights.dtype in (np.float32, np.float64)
    assert circuit.weights.dtype.isnative
    assert np.isfinite(simulate(circuit, [[1.0, 1.0]]).mean).all()


def test_labels_of_validation_in_a_column():
    X, y = load_iris(return_X_y=True)
    settings = {"max_iter": 60, "growth_iter": 5, "random_state": 0}
    flat = SSNClassifier(**settings).fit(X, y, X_val=X, y_val=y)
    with pytest.warns(Warning, match="column-vector"):
        column = SSNClassifier(**settings).fit(X, y, X_val=X, y_val=y[:, None])
    assert flat.validation_scores_ == column.validation_scores_


def test_answers_that_are_not_finite_are_not_the_first_class():
    X, y = load_iris(return_X_y=True)
    cells = MorrisLecarClassifier(
        8, n_words=4, word_duration=4.0, n_samples=4, max_iter=2, random_state=0
    )
    networks = [cells, RNNClassifier(8, n_steps=2, max_iter=5, random_state=0)]
    networks += [CNNClassifier((2,), n_hidden=4, max_iter=5, random_state=0)]
    huge = X * [1e140, 1, 1, 1]
    for network in networks:
        network.fit(X, y)
        far = X[:3] * 1000 if network is cells else huge[:3]
        for method in ("predict", "predict_proba", "decision_function", "transform"):
            if hasattr(network, method):
                with (
                    np.errstate(all="ignore"),
                    pytest.raises((DivergenceError, ValueError), match=r"finite|infinity"),
                ):
                    getattr(network, method)(far)


@pytest.mark.parametrize(("dt", "solver"), [(10.0, "ab2"), (20.0, "euler"), (20.0, "heun")])
def test_steps_as_long_as_the_cells_time_constants(dt, solver, fitted, blobs):
    with pytest.raises(ValueError, match=r"dt must be shorter .* tau_i is 10 ms"):
        simulate(PAIR, DRIVES, dt=dt, solver=solver)
    with pytest.raises(ValueError, match="dt must be shorter"):
        SSNClassifier(dt=dt, solver=solver).fit(*blobs)
    with pytest.raises(ValueError, match="dt must be shorter"):
        SSNSampler(dt=dt, solver=solver).fit(blobs[0])
    coarse = copy.copy(fitted).set_params(dt=dt, solver=solver)
    with pytest.raises(ValueError, match="dt must be shorter"):
        stability_report(coarse, blobs[0], n_surrogates=1, n_trials=1)


def test_limits_of_threads_are_restored_by_the_last_who_needs_them():
    def limits():
        return {(i["filepath"], i["num_threads"]) for i in threadpool_info()}

    def job(_):
        for _ in range(10):
            simulate(PAIR, np.tile(DRIVES, (10, 1)), duration=50.0)

    job(0)
    before = limits()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(job, range(8)))
    assert limits() == before


@pytest.mark.parametrize("form", ["product", "linear"])
@pytest.mark.parametrize("shape", [(2, 2), (1, 4), (8, 8)])
def test_no_context_from_beyond_a_map(form, shape):
    """The same as in the middle of a large map of nothing."""
    rng = np.random.RandomState(0)
    maps = rng.dirichlet(np.ones(3), size=(20, *shape))
    context = LateralContext(shape, extent=2, spacing=3, form=form, normalize=False)
    found = context.fit(maps.reshape(20, -1)).transform(maps.reshape(20, -1))
    margin = 12
    padded = np.zeros((20, shape[0] + 2 * margin, shape[1] + 2 * margin, 3))
    inside = (slice(None), *(slice(margin, margin + n) for n in shape))
    padded[inside] = maps
    weights = torch.from_numpy(context.weights_)
    wide = torch.from_numpy(padded)
    seen = Reading(normalize=False)
    expected = gated(wide, weights, seen, spacing=3, form=form, alpha=1.0)[inside]
    np.testing.assert_allclose(found, expected.reshape(20, -1).numpy(), rtol=1e-9, atol=1e-12)


def test_deep_lateral_networks_on_small_images():
    X, y = np.random.RandomState(0).rand(30, 64), np.arange(30) % 2
    network = CNNClassifier((4, 4, 4), lateral="product", max_iter=4, random_state=0)
    assert np.isfinite(network.fit(X, y).decision_function(X)).all()


def test_what_holds_functions_can_be_pickled():
    rng = np.random.RandomState(0)
    dynamics = circuit_dynamics(PAIR, [2.0, 2.0])
    x = rng.rand(5, 4)
    again = pickle.loads(pickle.dumps(dynamics))
    assert_array_equal(again.drift(x), dynamics.drift(x))
    flow = GMMFlow(
        2, n_layers=0, max_iter=2, objective="fokker_planck", dynamics=dynamics, random_state=0
    )
    X = rng.rand(20, 4)
    assert_array_equal(
        pickle.loads(pickle.dumps(flow.fit(X))).score_samples(X), flow.score_samples(X)
    )
    samples = simulate(PAIR, DRIVES, n_trials=50, duration=1.0, record=("u", "eta"), random_state=0)
    states = np.concatenate([samples.u[-1], samples.eta[-1]], axis=-1)
    regressor = circuit_from_samples(PAIR, states, DRIVES, n_frequencies=30).regressor
    again = pickle.loads(pickle.dumps(regressor))
    assert_array_equal(again.coef_, regressor.coef_)


def test_variances_without_noise_are_not_negative():
    circuit = Circuit(np.float32([[0.3, -0.2], [0.3, -0.1]]), 1, 0.0, k=0.04)
    drive = np.random.RandomState(0).uniform(0, 20, (100, 2))
    found = simulate(circuit, drive, burn_in=1000.0, duration=50.0)
    assert (np.einsum("nii->ni", found.covariance) >= 0).all()


def test_clusters_are_found_row_by_row():
    rng = np.random.RandomState(0)
    X = rng.randn(3000, 2) + 4 * rng.randint(2, size=(3000, 1))
    flow = GMMFlow(4, n_layers=0, max_iter=20, random_state=0).fit(X)
    labels = flow.predict(X)
    assert_array_equal(flow.predict(X[:100]), labels[:100])
    assert_array_equal(flow.denoise(X, n_steps=50)[:10], flow.denoise(X[:10], n_steps=50))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate(PAIR, np.zeros((0, 2))), "at least one input"),
        (lambda: simulate(PAIR, DRIVES, dt=1e-300), "more than can be simulated"),
        (lambda: simulate(PAIR, DRIVES, duration=1e308, dt=1e-300), "more than can"),
        (lambda: simulate(PAIR, DRIVES, random_state="seed"), "seed"),
        (lambda: EvolutionStrategy([torch.zeros(1)], max_grad_norm=-1.0), "max_grad_norm"),
        (lambda: make_spiral(0), "n_times"),
        (lambda: make_spiral(duration=-1.0), "duration"),
        (lambda: make_robertson(n_times=0), "n_times"),
        (lambda: make_cued_sinusoids(period=np.nan), "period"),
        (lambda: make_cued_sinusoids(2.5), "n_neurons"),
        (lambda: make_delayed_match("many"), "n_samples"),
        (lambda: make_evidence_integration(n_inputs=0), "n_inputs"),
        (lambda: make_evidence_integration(n_words=3, delay=5), "no evidence"),
        (lambda: low_rank_init(5, 2, gain=-1.0), "gain"),
        (lambda: low_rank_init(5.0, 2), "'n'"),
        (lambda: dale_init(5, excitatory=2.0), "excitatory"),
        (lambda: block_init([1.5], [[1.0]], [[0.0]], [[0.0]], [1]), "sizes"),
        (lambda: block_init([2], [[1.0]], [[np.nan]], [[0.0]], [1]), "mean must be finite"),
        (lambda: random_circuit(2.0, 1), "n_excitatory"),
        (lambda: random_circuit(2, 1, scale=np.nan), "scale"),
        (lambda: stable_pair([[1.0]], max_tries=0), "max_tries"),
        (lambda: choose_parents(PAIR, 2.5, 1), "n_excitatory"),
        (lambda: add_salt_pepper([[0.5]], np.nan), "'p'"),
        (lambda: robustness_curve(None, [[0.5]], [0], n_repeats=0), "n_repeats"),
        (lambda: energy_distance(np.zeros((0, 2)), np.zeros((3, 2))), "x|0 sample"),
        (lambda: sliced_wasserstein(np.zeros((0, 2)), np.zeros((3, 2))), "x|0 sample"),
        (
            lambda: stationary_moments(Circuit([[0.1]], 1, 0.1, gamma=1000.0), [[1.0]]),
            "gamma=1000",
        ),
    ],
)
def test_bad_numbers_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("network", [SSNClassifier(), RNNClassifier(), CNNClassifier()])
def test_labels_of_mixed_kinds(network):
    X, y = np.random.RandomState(0).rand(4, 4), np.array([1, "a", 2, "b"], dtype=object)
    with pytest.raises(ValueError, match=r"one kind|[Uu]nknown label"):
        network.fit(X, y)


def test_one_seed_for_each_circuit_in_an_array():
    as_array = simulate_many([PAIR, PAIR], [DRIVES, DRIVES], random_state=np.arange(2))
    as_list = simulate_many([PAIR, PAIR], [DRIVES, DRIVES], random_state=[0, 1])
    for one, other in zip(as_array, as_list, strict=True):
        assert_array_equal(one.mean, other.mean)


COMPILES = """
from ssn_estimators._numba import compiled

@compiled(nogil=True)
def double(x):
    return 2 * x

print(double(3))
"""


def test_a_damaged_cache_of_compiled_code(tmp_path):
    pytest.importorskip("numba")
    script, cache = tmp_path / "script.py", tmp_path / "cache"
    script.write_text(COMPILES)

    def run():
        environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
        return subprocess.check_output([sys.executable, script], env=environment)

    assert run() == b"6\n"
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:20])
    assert run() == b"6\n"


def test_no_place_for_a_cache_of_compiled_code():
    pytest.importorskip("numba")
    from ssn_estimators._numba import compiled

    with mock.patch("numba.core.dispatcher.Dispatcher.enable_caching", side_effect=RuntimeError):

        @compiled(nogil=True)
        def double(x):
            return 2 * x

    assert double(3) == 6


LONG = 1e300  # ms


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_cued_sinusoids(4, cue_duration=LONG),
        lambda: SpikingRegressor(burn_in=LONG).fit(np.zeros((1, 4)), np.zeros((1, 3, 4))),
        lambda: SpikingRegressor(cue_duration=LONG).fit(np.zeros((1, 4)), np.zeros((1, 3, 4))),
        lambda: SpikingRegressor(update_interval=LONG).fit(np.zeros((1, 4)), np.zeros((1, 3, 4))),
        lambda: MorrisLecarClassifier(word_duration=LONG).fit(np.eye(4), [0, 1, 0, 1]),
        lambda: MorrisLecar().rate([1.0], duration=LONG),
        lambda: MorrisLecar().rate([1.0], settling=LONG),
        lambda: transient_amplification(Circuit([[0.0]], 1, 1.0), [[1.0]], duration=LONG),
    ],
)
def test_times_that_take_too_many_steps(call):
    """They are refused before anyone waits."""
    with pytest.raises(ValueError, match=r"more than can be simulated|parameter of make_cued"):
        call()


@pytest.mark.parametrize("value", [10**30, -(10**30), True])
def test_numbers_that_arrays_cannot_hold(value):
    with pytest.raises(ValueError, match="'period' parameter of make_cued_sinusoids"):
        make_cued_sinusoids(4, period=value)
    with pytest.raises(ValueError, match="'k' parameter of SSNClassifier"):
        SSNClassifier(k=value).fit(*load_iris(return_X_y=True))
    with pytest.raises(ValueError, match="'duration' parameter of make_spiral"):
        make_spiral(duration=1e7 if value is True else value)
