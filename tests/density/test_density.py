"""Fokker-Planck residuals, generator moments and dynamics from samples, against theory."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import LinAlgWarning, solve_continuous_lyapunov
from scipy.signal import lfilter

from ssn_estimators import Circuit, FokkerPlanckRegressor, simulate
from ssn_estimators.density import (
    Langevin,
    circuit_dynamics,
    circuit_from_samples,
    fokker_planck_residual,
    generator_moments,
    random_frequencies,
    stationarity_test,
)
from ssn_estimators.inspection import jacobian
from ssn_estimators.stationary.moments import stationary_moments

A = np.array([[-1.0, 2.0, 0.0], [-1.0, -0.5, 0.3], [0.2, 0.0, -2.0]])
D = np.diag([1.0, 0.5, 0.2])
C = solve_continuous_lyapunov(A, -2 * D)
PAIR = Circuit(
    np.array([[1.25, -0.65], [1.2, -0.5]]),
    n_excitatory=1,
    noise_factor=np.diag([0.2 * 1.4**0.5, 0.1 * 1.2**0.5]),
    tau_eta=50.0,
)
INPUTS = np.repeat([[0.0], [2.0], [5.0], [10.0], [15.0]], 2, axis=1)


def linear(x):
    return x @ (A.T if isinstance(x, np.ndarray) else torch.from_numpy(A.T))


def normal_score(covariance):
    precision = torch.from_numpy(np.linalg.inv(covariance))
    return lambda x: -x @ precision


@pytest.fixture(scope="module")
def normal():
    return np.random.RandomState(0).multivariate_normal(np.zeros(3), C, size=20_000)


@pytest.fixture(scope="module")
def snapshots():
    """Potentials and noise of the pair, one moment of each of many trials."""
    drive = PAIR.drive(INPUTS)
    simulation = simulate(
        PAIR,
        drive,
        n_trials=8000,
        burn_in=400.0,
        duration=0.2,
        dt=0.2,
        record=("u", "eta"),
        covariance=False,
        rates=False,
        random_state=0,
    )
    return drive, np.concatenate([simulation.u[0], simulation.eta[0]], axis=-1)


def test_the_residual_of_an_ornstein_uhlenbeck_process(normal):
    process = Langevin(linear, D)
    X = normal[:200]
    assert_allclose(fokker_planck_residual(process, normal_score(C), X), 0, atol=1e-8)
    wrong = fokker_planck_residual(process, normal_score(1.1 * C), X)
    assert wrong.abs().mean() > 0.05


@pytest.mark.parametrize("speed", [0.0, 3.0])
def test_the_residual_of_a_rotating_limit_cycle(speed):
    # f = (Q - D) grad U with Q antisymmetric has the density exp(-U)
    flow = torch.tensor([[-1.0, speed], [-speed, -1.0]], dtype=torch.float64)

    def gradient(x):
        return 8 * ((x**2).sum(-1, keepdim=True) - 1) * x

    cycle = Langevin(lambda x: gradient(x) @ flow.T, np.eye(2))
    X = np.random.RandomState(0).normal(size=(100, 2))
    assert_allclose(fokker_planck_residual(cycle, lambda x: -gradient(x), X), 0, atol=1e-8)


def test_the_residual_where_the_diffusion_depends_on_the_place():
    # dx = f dt + sqrt(2 D) dW with f = D' - D U' has the density exp(-U)
    def diffusion(x):
        return (1 + x**2)[..., None]

    process = Langevin(lambda x: 2 * x - (1 + x**2) * x**3, diffusion)
    X = np.linspace(-2, 2, 20)[:, None]
    assert_allclose(fokker_planck_residual(process, lambda x: -(x**3), X), 0, atol=1e-8)
    assert fokker_planck_residual(process, lambda x: -x, X).abs().max() > 0.1


def test_the_residual_of_a_linearised_circuit():
    drive = PAIR.drive([[2.0, 2.0]])
    fixed = stationary_moments(PAIR, drive, closure="linear").mean[0]
    n = PAIR.n_neurons
    slope = np.zeros((4, 4))
    slope[:n, :n] = jacobian(PAIR, drive, closure="linear")[0]
    slope[:n, n:] = np.diag(1 / PAIR.tau)
    slope[n:, n:] = -np.eye(n) / PAIR.tau_eta
    dynamics = circuit_dynamics(PAIR, drive[0])
    place = torch.tensor([*fixed, 0.0, 0.0], dtype=torch.float64)
    assert_allclose(torch.func.jacfwd(dynamics.drift)(place), slope, atol=1e-8)
    assert_allclose(dynamics.drift(place), 0, atol=1e-6)
    covariance = solve_continuous_lyapunov(slope, -2 * dynamics.diffusion)
    linearised = Langevin(lambda x: x @ torch.from_numpy(slope.T), dynamics.diffusion)
    X = np.random.RandomState(0).multivariate_normal(np.zeros(4), covariance, size=50)
    score = normal_score(covariance)
    assert_allclose(fokker_planck_residual(linearised, score, X), 0, atol=1e-8)


@pytest.mark.parametrize("tests", ["quadratic", "waves"])
def test_samples_are_stationary_under_their_own_dynamics_only(normal, tests):
    if tests == "waves":
        tests = random_frequencies(normal, 100, length_scale=1.0, random_state=0)
    assert generator_moments(Langevin(linear, D), normal, tests=tests).p_value > 0.01
    assert generator_moments(Langevin(linear, 1.1 * D), normal, tests=tests).p_value < 1e-6


def test_generators_of_waves_are_those_of_their_derivatives(normal):
    waves, X = np.array([[0.3, -1.0, 0.5]]), torch.from_numpy(normal[:50])
    values = []
    for wave in (torch.cos, torch.sin):

        def psi(x, wave=wave):
            return wave(x @ torch.from_numpy(waves[0]))

        def generator(x, psi=psi):
            slope, curvature = torch.func.grad(psi)(x), torch.func.hessian(psi)(x)
            return linear(x) @ slope + (torch.from_numpy(D) * curvature).sum()

        values.append(torch.func.vmap(generator)(X).mean())
    found = generator_moments(Langevin(linear, D), normal[:50], tests=waves)
    assert_allclose(found.mean, values, atol=1e-12)


def test_errors_of_trajectories_know_of_autocorrelation():
    # the autoregressive process has the integrated autocorrelation time (1 + a) / (1 - a)
    a, rng = 0.9, np.random.RandomState(0)
    x = lfilter([1.0], [1.0, -a], rng.normal(size=(20_000, 8, 1)), axis=0)[100:]
    constant = Langevin(lambda x: x, [[0.0]])
    error = generator_moments(constant, x).standard_error[0]
    assert_allclose(error, x.std() * np.sqrt(19 / x.size), rtol=0.1)
    independent = generator_moments(constant, x.reshape(-1, 1)).standard_error[0]
    assert_allclose(independent, x.std() / np.sqrt(x.size), rtol=1e-6)


def test_too_short_trajectories_say_so():
    # trials that do not forget their start: a sample each, and no window that closes
    x = np.repeat(np.random.RandomState(0).normal(size=(1, 10, 1)), 30, axis=0)
    x = x + 0.01 * np.random.RandomState(1).normal(size=x.shape)
    constant = Langevin(lambda x: x, [[0.0]])
    with pytest.warns(RuntimeWarning, match="independent"):
        error = generator_moments(constant, x).standard_error[0]
    # the time is at least half of that of trajectories that never decay
    assert error > np.sqrt(0.5) * x.std() / np.sqrt(10)


@pytest.mark.filterwarnings("ignore:trajectories of")
def test_false_alarms_of_short_trajectories_are_rare():
    # autocorrelation time 19: ten trajectories of ten independent samples
    a, rng = 0.9, np.random.RandomState(0)
    x = lfilter([1.0], [1.0, -a], rng.normal(size=(190 + 100, 10, 300)), axis=0)[100:]
    constant = Langevin(lambda x: x, [[0.0]])
    z = [generator_moments(constant, x[:, :, i, None]).z[0] for i in range(300)]
    assert np.mean(np.abs(z) > 1.96) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_what_overflows_has_no_p_value(normal):
    with np.errstate(all="ignore"):
        moments = generator_moments(Langevin(lambda x: -x, [[1.0]]), 1e200 * np.ones((50, 1)))
    assert np.isnan(moments.p_value) or moments.p_value < 1e-3


@pytest.mark.parametrize("change", [{"X": [[np.nan], [1.0]]}, {"length_scale": 0.0}])
def test_frequencies_of_what_is_no_number(change):
    with pytest.raises(ValueError, match=r"NaN|length_scale must be"):
        random_frequencies(**{"X": [[0.0], [1.0]]} | change)


def test_what_does_not_move_has_no_z():
    still = generator_moments(Langevin(lambda x: 0 * x, [[0.0]]), [[1.0], [2.0]])
    assert still.statistic == 0
    assert still.p_value == 1
    assert "p-value" in str(still)


def test_snapshots_of_a_circuit_reject_other_weights(snapshots):
    drive, X = snapshots
    assert stationarity_test(PAIR, X, drive=drive).statistic < 4
    other = Circuit(PAIR.weights * [[1.05, 1], [1, 1]], 1, PAIR.noise_factor, tau_eta=PAIR.tau_eta)
    assert stationarity_test(other, X, drive=drive).statistic > 20


def test_simulations_with_recorded_trajectories_are_tested():
    drive = PAIR.drive([[2.0, 2.0], [10.0, 10.0]])
    options = {"n_trials": 50, "dt": 0.5, "duration": 500.0, "record": ("u", "eta")}
    settled = simulate(PAIR, drive, burn_in=300.0, random_state=0, **options)
    assert stationarity_test(PAIR, settled, drive=drive).p_value > 0.001
    early = simulate(PAIR, drive, burn_in=0.0, random_state=0, **options)
    assert stationarity_test(PAIR, early, drive=drive).p_value < 1e-6


def test_weights_of_a_circuit_from_snapshots(snapshots):
    drive, X = snapshots
    found = circuit_from_samples(PAIR, X, drive, n_frequencies=300, random_state=0)
    assert_allclose(found.weights, PAIR.weights, rtol=0.01)
    assert (np.abs(found.weights - PAIR.weights) < 5 * found.stderr).all()
    assert_allclose(found.circuit.weights, found.weights)


def test_signs_bind():
    # Dale's law is wrong on purpose: the second cell excites
    wrong = Circuit(np.abs(PAIR.weights), 2, PAIR.noise_factor, tau_eta=PAIR.tau_eta)
    rng = np.random.RandomState(0)
    X = rng.normal(size=(2, 500, 4)) * [0.8, 0.9, 0.2, 0.1] + [3.3, 3.9, 0, 0]
    drive = PAIR.drive([[2.0, 2.0], [3.0, 3.0]])
    found = circuit_from_samples(wrong, X, drive, n_frequencies=50, random_state=0)
    assert (found.weights >= 0).all()
    assert (found.weights == 0).any()
    assert np.isnan(found.stderr[found.weights == 0]).all()
    free = circuit_from_samples(wrong, X, drive, dale=False, n_frequencies=50, random_state=0)
    assert free.circuit is None
    assert np.isfinite(free.stderr).all()


def test_a_known_rotation_makes_the_drift_unique(normal):
    # all of A but what one density cannot tell: its antisymmetric part over C
    known = (A @ C - C @ A.T) / 2 @ np.linalg.inv(C)
    symmetric = np.stack(
        [np.eye(3)[[i]].T @ np.eye(3)[[j]] for i in range(3) for j in range(3)]
    ).reshape(3, 3, 3, 3)
    symmetric = [symmetric[i, j] + symmetric[j, i] for i in range(3) for j in range(i, 3)]
    basis = np.stack([s @ np.linalg.inv(C) for s in symmetric], axis=-1)
    regressor = FokkerPlanckRegressor(
        lambda x: np.einsum("nk,ikj->nij", x, basis),
        offset=lambda x: x @ known.T,
        diffusion=D,
        length_scale=1.0,
        random_state=0,
    ).fit(normal)
    # A C + C A^T = -2 D: each symmetric part is counted twice on its diagonal
    expected = [-D[i, j] / (2 if i == j else 1) for i in range(3) for j in range(i, 3)]
    error = np.abs(regressor.coef_ - expected)
    assert (error < 5 * regressor.stderr_).all()
    assert error.max() < 0.05
    assert regressor.condition_number_ < 100
    assert_allclose(regressor.predict(normal[:5]), linear(normal[:5]), rtol=0.2, atol=0.1)


def test_standard_errors_are_those_of_repetitions():
    errors, stated = [], []
    for seed in range(40):
        X = np.random.RandomState(seed).normal(size=(500, 1))
        fitted = FokkerPlanckRegressor(n_frequencies=50, random_state=0).fit(X)
        errors.append(fitted.coef_[0] + 1)
        stated.append(fitted.stderr_[0])
    assert_allclose(np.mean(stated), np.std(errors), rtol=0.35)


def test_what_a_density_cannot_tell_is_insensitive():
    X = np.random.RandomState(0).normal(size=(20_000, 2))
    with pytest.warns(LinAlgWarning, match="errors above"):
        regressor = FokkerPlanckRegressor(length_scale=1.0, random_state=0).fit(X)
    # A = -I + Q: rotations leave a round Gaussian as it is
    assert_array_equal(np.isinf(regressor.stderr_), [False, True, True, False, False, False])
    assert_allclose(regressor.coef_[[0, 3]], -1, atol=0.1)
    direction = regressor.sensitivity_.eigenvectors[:, -1]
    assert_allclose(np.abs(direction[[1, 2]]), 0.5**0.5, atol=0.02)
    assert np.sign(direction[1]) != np.sign(direction[2])
    assert regressor.condition_number_ > 20
    symmetric = (regressor.coef_[1] + regressor.coef_[2]) / 2
    assert abs(symmetric) < 0.1


def test_a_singular_fit_says_so():
    X = np.random.RandomState(0).normal(size=(200, 1))

    def twice(x):
        return np.stack([x, x], axis=2)

    with pytest.warns(LinAlgWarning, match="singular"):
        regressor = FokkerPlanckRegressor(twice, random_state=0).fit(X)
    assert regressor.condition_number_ == np.inf
    assert_allclose(regressor.coef_[0], regressor.coef_[1])
    once = FokkerPlanckRegressor(lambda x: x[..., None], random_state=0).fit(X)
    assert_allclose(regressor.coef_.sum(), once.coef_)
    assert_array_equal(regressor.stderr_, np.inf)

    def idle(x):
        return np.stack([x, 0 * x], axis=2)

    with pytest.warns(LinAlgWarning, match="singular"):
        regressor = FokkerPlanckRegressor(idle, random_state=0).fit(X)
    assert_allclose(regressor.stderr_, [once.stderr_[0], np.inf])
    assert_allclose(regressor.coef_, [once.coef_[0], 0])


def test_the_right_features_score_best():
    rng = np.random.RandomState(0)
    X, other = rng.normal(scale=0.5**0.5, size=(2, 4000, 1))  # dx = -2 x dt + sqrt(2) dW
    scores = []
    for power in (1, 3):
        regressor = FokkerPlanckRegressor(
            lambda x, power=power: (x**power)[..., None], random_state=0
        )
        scores.append(regressor.fit(X).score(other))
    assert scores[0] > 10 * scores[1]


def lorenz_samples(n_chains=500, diffusion=1.0, seed=0):
    """Eight moments of each of some noisy Lorenz systems, shuffled."""
    rng, dt, every = np.random.RandomState(seed), 0.002, 200
    x = rng.normal([0, 0, 25], size=(n_chains, 3))
    found = []
    for step in range(3000 + 8 * every):
        a, b, c = x.T
        slope = np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], axis=1)
        x = x + dt * slope + np.sqrt(2 * diffusion * dt) * rng.normal(size=x.shape)
        if step >= 3000 and step % every == 0:
            found.append(x)
    return rng.permutation(np.concatenate(found))


def test_lorenz_parameters_from_unordered_samples():
    def features(x):
        a, b, c = x.T
        phi = np.zeros((len(x), 3, 3))
        phi[:, 0, 0], phi[:, 1, 1], phi[:, 2, 2] = b - a, a, -c
        return phi

    def offset(x):
        a, b, c = x.T
        return np.stack([0 * a, -a * c - b, a * b], axis=1)

    regressor = FokkerPlanckRegressor(features, offset=offset, random_state=0)
    regressor.fit(lorenz_samples())
    error = np.abs(regressor.coef_ / [10, 28, 8 / 3] - 1)
    assert (error < [0.1, 0.03, 0.06]).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_many_unknowns_do_not_shrink(seed):
    """Least squares gave -5 +- .7 for -10 and 17 +- 1.2 for 28."""
    truth = np.zeros((3, 7))
    truth[0, :2], truth[1, [0, 1, 4]], truth[2, [2, 3]] = [-10, 10], [28, -1, -1], [-8 / 3, 1]

    def library(x):
        a, b, c = x.T
        terms = np.stack([a, b, c, a * b, a * c, b * c, np.ones(len(x))], axis=1)
        return np.einsum("nt,ij->nijt", terms, np.eye(3)).reshape(len(x), 3, 21)

    X = lorenz_samples(2500, 10.0, seed)
    regressor = FokkerPlanckRegressor(library, diffusion=10.0, random_state=seed).fit(X)
    z = (regressor.coef_ - truth.ravel()) / regressor.stderr_
    assert np.abs(z).max() < 3
    assert 0.4 < np.sqrt((z**2).mean()) < 1.6


def test_the_order_of_samples_does_not_matter():
    X = np.random.RandomState(0).normal(size=(4000, 1))
    for ordered in (X, np.sort(X, axis=0)):
        regressor = FokkerPlanckRegressor(n_frequencies=50, random_state=0).fit(ordered)
        assert_allclose(regressor.coef_[0], -1, atol=0.15)
        assert 0.01 < regressor.stderr_[0] < 0.15


def test_features_that_hardly_differ():
    X = np.random.RandomState(0).normal(size=(2000, 1))
    for apart in (1e-12, 1e-9):
        pair = FokkerPlanckRegressor(
            lambda x, apart=apart: np.stack([x, x * (1 + apart * x)], axis=2), random_state=0
        )
        with pytest.warns(LinAlgWarning, match="do not determine"):
            pair.fit(X)
        assert_allclose(pair.coef_, -0.5, atol=0.1)
        assert np.isinf(pair.stderr_).all()


def test_features_without_effect_have_no_sign():
    X = np.random.RandomState(0).normal(size=(500, 1))
    idle = FokkerPlanckRegressor(
        lambda x: np.stack([x, 0 * x], axis=2), signs=[-1, 1], random_state=0
    )
    with pytest.warns(LinAlgWarning, match="do not determine"):
        idle.fit(X)
    assert_allclose(idle.coef_, [-1, 0], atol=0.3)
    assert np.isfinite(idle.stderr_[0])
    assert np.isinf(idle.stderr_[1])


def test_many_conditions_of_two_samples():
    rng = np.random.RandomState(0)
    inputs = np.repeat(rng.normal(size=400), 2)
    X = inputs[:, None] + rng.normal(size=(len(inputs), 1))
    regressor = FokkerPlanckRegressor(
        lambda x, c: np.stack([x, c], axis=2), n_frequencies=20, random_state=0
    ).fit(X, condition=inputs)
    error = np.abs(regressor.coef_ - [-1, 1])
    assert (error < 3 * regressor.stderr_).all()
    assert (regressor.stderr_ > 0).all()


def test_conditions_may_have_few_samples():
    rng = np.random.RandomState(0)
    inputs = np.repeat([0.0, 1.0, 2.0, 3.0], [1, 3, 500, 1000])
    X = inputs[:, None] + rng.normal(size=(len(inputs), 1))  # dx = (input - x) dt + sqrt(2) dW
    regressor = FokkerPlanckRegressor(
        lambda x, c: np.stack([x, c], axis=2), n_frequencies=50, random_state=0
    )
    regressor.fit(X, condition=inputs)
    assert_allclose(regressor.coef_, [-1, 1], atol=0.3)
    assert (np.abs(regressor.coef_ - [-1, 1]) < 3 * regressor.stderr_).all()
    with pytest.raises(ValueError, match="one sample only"):
        regressor.fit(X, condition=np.arange(len(X)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X: Langevin(1.0, np.eye(3)), "callable"),
        (lambda X: Langevin(linear, np.ones(3)), "square"),
        (lambda X: Langevin(linear, [[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (lambda X: Langevin(linear, -np.eye(3)), "semidefinite"),
        (lambda X: generator_moments(Langevin(lambda x: x[:, :1], D), X), "drift must give"),
        (lambda X: generator_moments(Langevin(linear, np.eye(2)), X), "2 dimensions"),
        (lambda X: generator_moments(Langevin(linear, lambda x: D), X), "diffusion must give"),
        (lambda X: generator_moments(Langevin(linear, D), X + np.nan), "NaN"),
        (lambda X: generator_moments(Langevin(linear, D), X, tests="cubic"), "quadratic"),
        (lambda X: generator_moments(Langevin(linear, D), X, tests=[[1.0]]), "frequencies"),
        (lambda X: generator_moments(Langevin(lambda x: x / 0, D), X), "not finite"),
        (lambda X: generator_moments(Langevin(linear, D), X[0]), "shape"),
        (lambda X: generator_moments(Langevin(linear, D), X[:1]), "one sample"),
        (lambda X: Langevin(linear, np.nan * D), "NaN"),
        (lambda X: fokker_planck_residual(Langevin(linear, np.eye(2)), linear, X), "2 dimensions"),
        (
            lambda X: fokker_planck_residual(Langevin(linear, lambda x: np.eye(3)), linear, X),
            "diffusion must give a tensor",
        ),
        (lambda X: fokker_planck_residual(Langevin(linear, D), lambda x: x[:, 0], X), "score"),
        (lambda X: fokker_planck_residual(Langevin(linear, D), linear, X[0]), "shape"),
        (lambda X: stationarity_test(PAIR, X), "drive"),
        (lambda X: stationarity_test(linear, X), "Langevin or Circuit"),
        (lambda X: stationarity_test(Langevin(linear, D), X, drive=[0.0]), "their own"),
        (lambda X: stationarity_test(PAIR, X[None], drive=np.zeros((2, 2))), "inputs"),
        (lambda X: circuit_dynamics(PAIR, [1.0]), "shape"),
        (lambda X: circuit_from_samples(PAIR, X, [[1.0, 1.0]]), "shape"),
        (lambda X: FokkerPlanckRegressor(lambda x: x).fit(X), "axis of coefficients"),
        (lambda X: FokkerPlanckRegressor(offset=lambda x: x[:, 0]).fit(X), "offset"),
        (lambda X: FokkerPlanckRegressor(signs=[1]).fit(X), "signs"),
        (lambda X: FokkerPlanckRegressor(n_frequencies=2).fit(X), "n_frequencies"),
        (lambda X: FokkerPlanckRegressor().fit(X, condition=[1.0]), "condition has"),
    ],
)
def test_bad_input(call, message):
    X = np.random.RandomState(0).normal(size=(20, 3))
    with pytest.raises((ValueError, TypeError), match=message), np.errstate(all="ignore"):
        call(X)
