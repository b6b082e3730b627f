"""Rate functions: what they are, and that all that takes a circuit takes them."""

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import erfcx

from ssn_estimators import Circuit, circuits, load, save, simulate, split, stationary_moments
from ssn_estimators.inspection import (
    bifurcations,
    fixed_points,
    jacobian,
    power_spectrum,
    response_matrix,
    steady_states,
)
from ssn_estimators.rate_functions import (
    AbbottChance,
    MillerTroyer,
    RateFunction,
    Ricciardi,
    Saturating,
)
from ssn_estimators.simulation import reference
from ssn_estimators.simulation.cpu import backend
from ssn_estimators.simulation.cpu.tables import ACCURACY, table_of


@dataclass(frozen=True)
class Softplus(RateFunction):
    """A function of somebody else, who gave no slope."""

    width: float = 1.5

    def value(self, u):
        return self.width * torch.nn.functional.softplus(u / self.width)


@dataclass(frozen=True)
class Square(RateFunction):
    """The power law as if it were another function."""

    def value(self, u):
        return torch.relu(u) ** 2


FUNCTIONS = [
    AbbottChance(),
    AbbottChance(0.2),
    MillerTroyer(0.7),
    MillerTroyer(2.0, gamma=1.5),
    Ricciardi(),
    Ricciardi(sigma=2.0, refractory=1.0),
    Saturating(100.0, 400.0),
    Saturating(50.0, 60.0, gamma=3.0),
    Softplus(),
]
WEIGHTS = np.array([[0.4, -0.3], [0.5, -0.2]])
DRIVE = np.array([[3.0, 4.0], [12.0, 15.0]])
every = pytest.mark.parametrize("function", FUNCTIONS, ids=repr)
some = pytest.mark.parametrize("function", FUNCTIONS[::4], ids=repr)


def pair(function, **changes):
    # rates of up to some 100 Hz
    k = 100 / float(function.value(torch.tensor(30.0)))
    arguments = {"noise_factor": 0.5, "k": k, "rate_function": function, **changes}
    return Circuit(WEIGHTS, 1, **arguments)


@every
def test_slopes_are_those_of_values(function):
    u = torch.linspace(-20, 60, 777, dtype=torch.float64, requires_grad=True)
    value = function.value(u)
    (slope,) = torch.autograd.grad(value.sum(), u)
    assert_allclose(function.gain(u).detach(), slope, rtol=1e-8, atol=1e-10)
    assert (value >= 0).all()
    assert (slope >= -1e-12).all()
    with torch.no_grad():
        far = function.value(torch.tensor([-1e3, 1e3], dtype=torch.float64))
        wide = torch.tensor([-1e3, 1e3], dtype=torch.float32)
        assert function.value(wide).dtype == function.gain(wide).dtype == torch.float32
        assert torch.isfinite(torch.cat([far, function.gain(far)])).all()


def test_ricciardi_is_its_integral():
    for sigma in (10.0, 1.0, 0.5):
        cell = Ricciardi(tau=15.0, threshold=18.0, reset=5.0, sigma=sigma, refractory=3.0)
        for u in np.linspace(18 - 5 * sigma, 60, 9):
            integral = quad(lambda x: erfcx(-x), (5 - u) / sigma, (18 - u) / sigma, epsrel=1e-11)
            expected = 1000 / (3 + 15 * np.sqrt(np.pi) * integral[0])
            found = float(cell.value(torch.tensor(u, dtype=torch.float64)))
            assert found == pytest.approx(expected, rel=1e-9)


def test_ricciardi_without_noise_is_the_cell_that_needs_none():
    """From reset to threshold in tau log((u - reset) / (u - threshold)), up to order sigma^2."""
    u = torch.tensor([25.0, 40.0, 100.0], dtype=torch.float64)
    expected = 1000 / (2 + 20 * torch.log((u - 10) / (u - 20)))
    assert_allclose(Ricciardi(sigma=0.01).value(u), expected, rtol=1e-5)


def test_miller_troyer_is_the_mean_over_noise():
    z, weights = np.polynomial.hermite_e.hermegauss(200)
    for gamma in (1.0, 2.0, 3.0):
        u = np.linspace(-3, 8, 12)
        values = np.maximum(u[:, None] + 0.8 * z, 0) ** gamma @ weights / weights.sum()
        found = MillerTroyer(0.8, gamma).value(torch.tensor(u))
        assert_allclose(found, values, rtol=0.02, atol=2e-3)  # of a function with a kink


def test_saturating_is_the_power_law_below_its_bend():
    function = Saturating(100.0, 300.0)
    u = torch.linspace(-5, 10, 50, dtype=torch.float64)
    assert_allclose(function.value(u), torch.relu(u) ** 2)
    both = function.gain(torch.tensor([10 - 1e-9, 10 + 1e-9], dtype=torch.float64))
    assert_allclose(both, 20.0)
    assert float(function.value(torch.tensor(1e4))) == pytest.approx(300.0)


@every
def test_tables_are_accurate(function):
    table = table_of(function)
    if table is None:
        return
    last = len(table) - 1
    u = torch.from_numpy(np.random.RandomState(0).uniform(-999, 999, 2000))
    place = (u.numpy() + 1e3) * last / 2e3
    i = np.floor(place).astype(int)
    t = place - i
    (f0, s0), (f1, s1) = table[i].T, table[i + 1].T
    found = f0 * (1 + 2 * t) * (1 - t) ** 2 + s0 * t * (1 - t) ** 2
    found += f1 * t**2 * (3 - 2 * t) - s1 * t**2 * (1 - t)
    expected = function.value(u).numpy()
    assert (np.abs(found - expected) <= 2 * ACCURACY * (1 + np.abs(expected))).all()


@pytest.mark.parametrize("solver", ["euler", "heun", "ab2"])
@pytest.mark.parametrize("dynamics", ["voltage", "rate"])
@pytest.mark.parametrize("n_trials", [2, 40])
@some
def test_compiled_loops_and_plain_torch_agree(function, n_trials, dynamics, solver, monkeypatch):
    circuit = pair(function, dynamics=dynamics)
    settings = {"n_trials": n_trials, "duration": 60.0, "burn_in": 20.0, "random_state": 1}
    settings |= {"record": ("u", "r"), "solver": solver}
    found = simulate(circuit, DRIVE, **settings)
    monkeypatch.setattr(backend, "compiled", None)
    plain = simulate(circuit, DRIVE, **settings)
    for name in ("mean", "covariance", "rates", "u", "r"):
        expected = getattr(plain, name)
        # noise is float32
        assert_allclose(getattr(found, name), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("dynamics", ["voltage", "rate"])
def test_the_power_law_as_another_function(dynamics):
    settings = {"duration": 100.0, "random_state": 0, "n_trials": 4, "record": ("u", "r")}
    function = pair(Square(), k=0.04, dynamics=dynamics)
    powers = Circuit(WEIGHTS, 1, noise_factor=0.5, k=0.04, gamma=2.0, dynamics=dynamics)
    one, other = (simulate(x, DRIVE, **settings) for x in (function, powers))
    for name in ("mean", "covariance", "rates", "u", "r"):
        assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6, atol=1e-8)
    one, other = (steady_states(x, DRIVE) for x in (function, powers))
    assert_allclose(one.u, other.u, rtol=1e-12)
    assert_allclose(one.abscissa, other.abscissa, rtol=1e-10)
    if dynamics == "voltage":
        for closure in ("gaussian", "linear"):
            one, other = (stationary_moments(x, DRIVE, closure=closure) for x in (function, powers))
            assert_allclose(one.mean, other.mean, rtol=1e-4)
            assert_allclose(one.covariance, other.covariance, rtol=1e-3)


@every
def test_experiments(function):
    circuit = pair(function)
    found = steady_states(circuit, DRIVE)
    assert found.stable.all()
    rates = circuit.rates(found.u)
    assert_allclose(DRIVE + rates @ WEIGHTS.T, found.u, rtol=1e-9)
    points = fixed_points(circuit, DRIVE, random_state=0)
    assert all(np.abs(x.u - u).max(1).min() < 1e-6 for x, u in zip(points, found.u, strict=True))
    # responses to a little more input
    step = 1e-4
    more = steady_states(circuit, DRIVE + np.array([0, step])).rates
    chi = response_matrix(circuit, DRIVE)
    assert_allclose((more - found.rates) / step, chi[:, :, 1], rtol=1e-2, atol=1e-4)
    matrices = jacobian(circuit, DRIVE, closure="linear")
    gains = circuit.gain(found.u)
    expected = (WEIGHTS * gains[:, None] - np.eye(2)) / circuit.tau[:, None]
    assert_allclose(matrices, expected, rtol=1e-4)
    frequencies = np.linspace(0, 2000, 20001)
    power = power_spectrum(circuit, DRIVE, frequencies)
    linear = stationary_moments(circuit, DRIVE, closure="linear")
    variance = np.diagonal(linear.covariance, axis1=1, axis2=2)
    assert_allclose(np.trapezoid(power, frequencies, axis=1), variance, rtol=0.01)
    swept = bifurcations(circuit, DRIVE, [0.0, 1.0])
    assert_allclose(swept.u, found.u, rtol=1e-8)


@every
def test_gaussian_closure(function):
    """Rates are means over the normal distribution that they lead to."""
    circuit = pair(function, noise_factor=1.0)
    found = stationary_moments(circuit, DRIVE)
    assert found.converged.all()
    assert_allclose(DRIVE + found.rates @ WEIGHTS.T, found.mean, rtol=1e-5)
    deviation = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    z = np.linspace(-9, 9, 20001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    u = found.mean[..., None] + deviation[..., None] * z
    expected = np.trapezoid(circuit.rates(u) * density, z, axis=-1)
    assert_allclose(found.rates, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dynamics", ["voltage", "rate"])
@some
def test_gradients_are_differences(function, dynamics):
    circuit = pair(function, dynamics=dynamics).to_torch()
    settings = {"n_trials": 3, "duration": 12.0, "burn_in": 0.0, "random_state": 0}

    def mean(weights):
        return simulate(circuit.with_checked({"weights": weights}), DRIVE, **settings).mean

    weights = circuit.weights.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mean(weights).sum(), weights)
    direction, h = torch.tensor([[0.3, 0.1], [-0.2, 0.5]]).double(), 1e-4
    # with a gradient, these come from plain torch too, not from tables with their own rounding
    ends = [mean((circuit.weights + s * h * direction).requires_grad_()) for s in (1, -1)]
    difference = float((ends[0] - ends[1]).detach().sum()) / (2 * h)
    assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-6, abs=1e-10)


@every
def test_growing_keeps_the_dynamics(function):
    circuit = pair(function, noise_factor=0.0, k={"E": 0.2, "I": 0.1})
    grown, origin = split(circuit, [0, 1, 1], random_state=0)
    assert grown.rate_function == function
    before, after = steady_states(circuit, DRIVE), steady_states(grown, DRIVE[:, origin])
    assert_allclose(after.u, before.u[:, origin], rtol=1e-8)


@pytest.mark.parametrize("function", FUNCTIONS[:-1], ids=repr)
def test_files_and_copies(function, tmp_path):
    circuit = pair(function, tau={"E": 20.0, "I": 12.0})
    save(circuit, tmp_path / "circuit.ssn")
    for other in (load(tmp_path / "circuit.ssn"), pickle.loads(pickle.dumps(circuit))):
        assert other.rate_function == function
        assert other.gamma is None
        assert_allclose(other.rates(DRIVE), circuit.rates(DRIVE))
    assert repr(function) in repr(circuit)


def test_files_hold_no_function_of_somebody_else(tmp_path):
    with pytest.raises(TypeError, match="Softplus"):
        save(pair(Softplus()), tmp_path / "circuit.ssn")


def test_what_a_table_cannot_hold_runs_all_the_same():
    function = AbbottChance(0.001)
    assert table_of(function) is None
    settings = {"duration": 20.0, "n_trials": 2, "random_state": 0}
    found = simulate(pair(function), DRIVE, **settings)
    soft = simulate(pair(AbbottChance(0.01)), DRIVE, **settings)
    assert_allclose(found.mean, soft.mean, rtol=1e-3)


@pytest.mark.parametrize("dynamics", ["voltage", "rate"])
def test_divergence_is_seen_and_a_bound_prevents_it(dynamics):
    settings = {"duration": 1000.0, "n_trials": 2, "random_state": 0}
    runaway = replace(pair(AbbottChance(), k=1.0, dynamics=dynamics), weights=[[2.0, 0], [0, 0]])
    assert simulate(runaway, DRIVE, **settings).diverged.all()
    bound = replace(runaway, rate_function=Saturating(40.0, 200.0, gamma=1.0))
    found = simulate(bound, DRIVE, **settings)
    assert not found.diverged.any()
    assert (found.rates[:, 0] < 200).all()


def test_velocity_is_the_equation():
    circuit = pair(Ricciardi()).to_torch()
    u, forcing = torch.tensor(DRIVE), torch.tensor(DRIVE[::-1].copy())
    weights, tau = torch.tensor(WEIGHTS), torch.tensor(circuit.tau)
    for dynamics in ("voltage", "rate"):
        found = reference.velocity(replace(circuit, dynamics=dynamics))(u, forcing)
        if dynamics == "voltage":
            expected = (forcing + circuit.k * Ricciardi().value(u) @ weights.T - u) / tau
        else:
            expected = (circuit.k * Ricciardi().value(forcing + u @ weights.T) - u) / tau
        assert_allclose(found, expected, rtol=1e-12)


def test_response_reversal_of_del_molino():
    """More input to VIP lowers SST in a quiet circuit, and raises it in an active one."""
    circuit, _, drive = circuits.del_molino_2017()
    more = np.array([0.0, 0.0, 0.0, 10.0])
    for currents, rates, changed in (
        ([115.03, 233.66, 94.31, 89.91], [1.0, 10.0, 3.0, 2.0], [1.257, 11.13, 0.580, 6.711]),
        (
            [147.2512, 386.7281, 40.2657, 98.4368],
            [30.0, 50.0, 30.0, 20.0],
            [46.31, 56.39, 39.85, 44.27],
        ),
    ):
        found = steady_states(circuit, drive([currents, currents + more]))
        assert found.stable.all()
        assert_allclose(found.rates, [rates, changed], rtol=0.005)
        simulated = simulate(circuit, drive(currents), dt=0.1, duration=1.0, burn_in=800.0)
        assert_allclose(simulated.mean[0], found.rates[0], rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AbbottChance(0.0), "width of AbbottChance must be a finite number > 0"),
        (lambda: AbbottChance(np.nan), "width of AbbottChance"),
        (lambda: AbbottChance("1"), "width of AbbottChance"),
        (lambda: MillerTroyer(-1.0), "sigma of MillerTroyer"),
        (lambda: MillerTroyer(gamma=0.5), "gamma of MillerTroyer must be a finite number >= 1"),
        (lambda: MillerTroyer(gamma=30.0), "at most 20"),
        (lambda: Ricciardi(reset=20.0), "reset of Ricciardi must be below threshold"),
        (lambda: Ricciardi(threshold=np.inf), "threshold of Ricciardi must be a finite number,"),
        (lambda: Saturating(10.0, 10.0), "hard of Saturating"),
        (lambda: Circuit(WEIGHTS, 1, rate_function=np.tanh), "rate_function must be a RateFunct"),
        (lambda: Circuit(WEIGHTS, 1, rate_function="ricciardi"), "rate_function must be a RateFun"),
        (
            lambda: Circuit(WEIGHTS, 1, gamma=2.0, rate_function=AbbottChance()),
            "gamma belongs to the power law",
        ),
        (lambda: replace(Circuit(WEIGHTS, 1), rate_function=AbbottChance()), "leave it at None"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_circuits_of_different_functions_are_not_simulated_as_one():
    from ssn_estimators import simulate_many

    with pytest.raises(ValueError, match="same"):
        simulate_many([pair(AbbottChance()), pair(Ricciardi())], [DRIVE, DRIVE])
