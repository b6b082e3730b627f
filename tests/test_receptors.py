"""Receptors between rates and potentials."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.signal import find_peaks

from ssn_estimators import Circuit, Receptors, circuits, load, save, simulate, split
from ssn_estimators.inspection import (
    bifurcations,
    coherence,
    lfp_spectrum,
    power_spectrum,
    response_matrix,
    simulated_spectrum,
    steady_states,
)
from ssn_estimators.inspection.steady_states import eigenvalues

TAU = {"AMPA": 4.0, "GABA": 5.0, "NMDA": 100.0}
SHARES = {"E": {"AMPA": 0.6, "NMDA": 0.4}, "I": {"GABA": 1.0}}
RECEPTORS = Receptors(TAU, SHARES)
COLUMN, _, CONTRAST = circuits.holt_2023_gamma(4)
HZ = 1000 / (2 * np.pi)


def of_figure(figure, contrasts):
    circuit, _, drive = circuits.holt_2023_gamma(figure)
    return circuit, drive(contrasts)


def filtered_inputs(circuit, v, forcing):
    """Right-hand side of Holt et al.: v of AMPA, GABA and NMDA, by the equation of the paper."""
    shares = np.array([[0.6, 0.0], [0.0, 1.0], [0.4, 0.0]])
    rates = circuit.rates(v.sum(0))
    slope = [circuit.weights @ (share * rates) - own for share, own in zip(shares, v, strict=True)]
    slope[0] = slope[0] + forcing
    return np.array(slope) / np.array(list(TAU.values()))[:, None]


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_potentials_are_those_of_the_paper(solver):
    drive, dt = CONTRAST(50.0), 0.2
    quiet = replace(COLUMN, noise_factor=0.0)
    settings = {"burn_in": 0.0, "duration": 60.0, "dt": dt, "n_trials": 1, "record": ("u", "r")}
    found = simulate(quiet, drive, solver=solver, **settings)
    v = np.zeros((3, 2))
    for u, r in zip(found.u[:, 0, 0], found.r[:, 0, 0], strict=True):
        now = filtered_inputs(quiet, v, drive[0])
        if solver == "heun":
            now = (now + filtered_inputs(quiet, v + dt * now, drive[0])) / 2
        v = v + dt * now
        assert_allclose(u, v.sum(0), rtol=1e-9)
        assert_allclose(r, quiet.rates(u), rtol=1e-9)


@pytest.mark.parametrize("solver", ["euler", "heun", "ab2"])
def test_order(solver):
    quiet = replace(COLUMN, noise_factor=0.0)
    settings = {"burn_in": 0.0, "duration": 8.0, "n_trials": 1, "record": "u"}

    def end(dt, solver=solver):
        return simulate(quiet, CONTRAST(30.0), dt=dt, solver=solver, **settings).u[-1, 0, 0]

    steps = np.array([0.2, 0.1, 0.05])
    errors = [np.abs(end(dt) - end(0.01, "heun")).max() for dt in steps]
    order = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order == pytest.approx({"euler": 1, "heun": 2, "ab2": 2}[solver], abs=0.25)


@pytest.mark.parametrize(
    ("figure", "contrast", "rates", "mode", "decay", "peak", "relative_peak"),
    [
        (4, 25.0, (8.129, 8.829), 50.6, 22.3, None, 53.5),
        (4, 50.0, (14.10, 19.35), 70.2, 21.9, 58.5, 73.0),
        (4, 75.0, (18.79, 29.04), 83.3, 22.3, 74.0, 86.0),
        (4, 100.0, (22.88, 38.31), 93.6, 22.9, 85.0, 96.5),
        (6, 25.0, (12.80, 16.13), 60.0, 4.2, 59.5, 59.5),
        pytest.param(*(6, 50.0, (17.72, 26.72), 75.2, 2.0, 75.0, 75.0), marks=pytest.mark.slow),
        pytest.param(*(6, 100.0, (24.48, 44.49), 94.1, 0.81, 94.0, 94.0), marks=pytest.mark.slow),
        ("pair", 10.0, (2.993, 6.183), 61.2, 12.8, 57.5, 62.0),
        ("pair", 25.0, (3.560, 11.77), 76.9, 21.1, 67.5, 79.0),
    ],
)
def test_gamma_of_holt(figure, contrast, rates, mode, decay, peak, relative_peak):
    if figure == "pair":
        strong, _, drive = circuits.ahmadian_2013_pair(strong=True)
        receptors = Receptors(TAU | {"AMPA": 3.0}, SHARES)
        circuit = replace(strong, receptors=receptors, noise_factor=1.5, tau_eta=5.0)
        drive = drive([0.0, contrast])
    else:
        circuit, drive = of_figure(figure, [0.0, contrast])
    found = steady_states(circuit, drive)
    assert found.stable.all()
    assert_allclose(found.rates[1], rates, rtol=0.005)
    leading = max(eigenvalues(circuit, found.u)[1] * HZ, key=lambda x: x.imag)
    assert leading.imag == pytest.approx(mode, abs=0.1)
    assert -leading.real == pytest.approx(decay, abs=0.06)
    frequencies = np.arange(10.0, 120.0, 0.25)
    silent, power = power_spectrum(circuit, drive, frequencies, cells="E")[..., 0]
    peaks = frequencies[find_peaks(power)[0]]
    assert_allclose(peaks, [] if peak is None else [peak], atol=0.5)
    assert frequencies[(power / silent).argmax()] == pytest.approx(relative_peak, abs=0.5)


def test_spectra_are_those_of_the_jacobian():
    """By the formula for a linear system of x and all y."""
    drive, frequencies = CONTRAST([20.0, 80.0]), np.array([0.0, 30.0, 77.0])
    found = power_spectrum(COLUMN, drive, frequencies)
    states = steady_states(COLUMN, drive)
    onto = np.zeros((8, 2))
    onto[:2] = np.eye(2) * 1.5 / TAU["AMPA"]
    for i, u in enumerate(states.u):
        matrix = COLUMN.jacobian(COLUMN.gain(u))
        potentials = np.array([COLUMN.potentials(row) for row in np.eye(8)]).T
        for f, frequency in enumerate(frequencies):
            omega = 2 * np.pi * frequency / 1000
            rows = potentials @ np.linalg.inv(1j * omega * np.eye(8) - matrix) @ onto
            size = 4 * COLUMN.tau_eta / (1 + (omega * COLUMN.tau_eta) ** 2) / 1000
            assert_allclose(found[i, f], (np.abs(rows) ** 2).sum(1) * size, rtol=1e-9)


def test_spectra_can_be_differentiated():
    drive, frequencies = torch.tensor(CONTRAST(40.0)), [40.0, 60.0]

    def power(weights):
        return power_spectrum(
            COLUMN.to_torch().with_checked({"weights": weights}), drive, frequencies
        )

    weights = COLUMN.to_torch().weights.requires_grad_()
    assert torch.autograd.gradcheck(power, (weights,), eps=1e-6, rtol=1e-5, atol=1e-7)


def test_the_gradient_of_a_simulation_is_a_difference():
    tensors = replace(COLUMN, noise_factor=0.5).to_torch()
    settings = {"duration": 20.0, "burn_in": 0.0, "n_trials": 2, "random_state": 0}

    def total(weights):
        circuit = tensors.with_checked({"weights": weights})
        found = simulate(circuit, CONTRAST([20.0, 60.0]), **settings)
        return found.mean.sum() + found.covariance.sum() + found.rates.sum()

    weights = tensors.weights.clone().requires_grad_()
    assert torch.autograd.gradcheck(total, (weights,), eps=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_linear_spectra_are_those_of_simulations():
    drive = CONTRAST([50.0, 100.0])
    for size in (0.1, 1.5):
        circuit = replace(COLUMN, noise_factor=size)
        settings = {"n_trials": 100, "duration": 4000.0, "burn_in": 500.0, "dt": 0.25}
        simulation = simulate(circuit, drive, record="u", random_state=0, **settings)
        found = simulated_spectrum(simulation, segment=500.0)
        gamma = (found.frequencies >= 10) & (found.frequencies <= 100)
        linear = power_spectrum(circuit, drive, found.frequencies[gamma], cells="E")
        ratio = found.power[:, gamma, :1] / linear
        assert 0.88 < ratio.min()
        assert ratio.max() < 1.12


@pytest.mark.slow
def test_sheet_of_holt_with_receptors():
    """Gamma at its centre."""
    circuit, _, drive = circuits.holt_2023_sheet(6, receptors=True)
    frequencies = np.arange(10.0, 105.0, 5.0)
    power = power_spectrum(circuit, drive([50.0, 100.0], 0.75), frequencies, cells=[144])[..., 0]
    peaks = [frequencies[find_peaks(own)[0]] for own in power]
    assert_allclose(peaks, [[65.0], [85.0]])


def test_fixed_points_are_those_without_receptors():
    plain = replace(COLUMN, receptors=None)
    drive = CONTRAST([10.0, 50.0])
    one, other = steady_states(COLUMN, drive), steady_states(plain, drive)
    assert_allclose(one.u, other.u, rtol=1e-10)
    assert_allclose(*(response_matrix(x, drive) for x in (COLUMN, plain)), rtol=1e-9)
    quiet = replace(COLUMN, noise_factor=0.0)
    settled = simulate(quiet, drive, burn_in=4000.0, duration=1.0, n_trials=1, dt=0.5)
    assert_allclose(settled.mean, one.u, rtol=1e-6)
    assert_allclose(settled.rates, one.rates, rtol=1e-6)


@pytest.mark.slow
def test_time_constants_decide_on_stability():
    """The same fixed point, which slow inhibition makes unstable."""
    figure, drive = of_figure(6, [100.0])
    slow = replace(figure, receptors=Receptors(TAU | {"GABA": 6.0}, SHARES))
    point = steady_states(replace(figure, receptors=None), drive).u
    abscissae = [eigenvalues(x, point).real.max() for x in (figure, slow)]
    assert abscissae[0] < 0 < abscissae[1]
    found = steady_states(slow, drive, duration=500.0)
    assert not found.stable.any()
    assert_allclose(found.u, point, rtol=1e-8)
    simulated = simulate(
        slow, drive, burn_in=1000.0, duration=500.0, dt=0.2, n_trials=1, record="u"
    )
    assert np.ptp(simulated.u[:, 0, 0, 0]) > 1.0
    assert not simulated.diverged.any()

    def through(tau):
        return replace(figure, receptors=Receptors(TAU | {"GABA": tau}, SHARES)), drive[0]

    (hopf,) = bifurcations(figure, through, [5.0, 6.0]).points
    assert hopf.kind == "hopf"
    assert hopf.frequency == pytest.approx(92.0, abs=5.0)


def test_one_receptor_is_a_membrane():
    """With one time constant for all, filters of rates and of potentials are the same."""
    weights = np.array([[1.25, -0.65], [1.2, -0.5]])
    noise = {"noise_factor": 0.05, "tau_eta": 50.0}
    one = Receptors({"all": 12.0}, {"E": {"all": 1.0}, "I": {"all": 1.0}})
    filtered = Circuit(weights, 1, receptors=one, **noise)
    membrane = Circuit(weights, 1, tau=12.0, **noise)
    settings = {"n_trials": 5, "duration": 50.0, "random_state": 0, "record": ("u", "r", "eta")}
    found, expected = (simulate(x, [[3.0, 2.0]], **settings) for x in (filtered, membrane))
    for name in ("mean", "covariance", "rates", "u", "r", "eta"):
        # noise is float32
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4)
    args = [[3.0, 2.0]], [0.0, 5.0, 40.0]
    for spectrum in (power_spectrum, lfp_spectrum):
        assert_allclose(*(spectrum(x, *args) for x in (filtered, membrane)), rtol=1e-9)
    assert_allclose(*(coherence(x, *args, "E", "I") for x in (filtered, membrane)), rtol=1e-9)


def test_going_on_is_as_if_never_stopped():
    settings = {"n_trials": 3, "dt": 0.5, "solver": "heun"}
    quiet = replace(COLUMN, noise_factor=0.0)
    whole = simulate(quiet, CONTRAST(40.0), burn_in=10.0, duration=20.0, record="u", **settings)
    first = simulate(quiet, CONTRAST(40.0), burn_in=0.0, duration=10.0, record="final", **settings)
    assert first.final.state.shape == (1, 3, 8)
    second = simulate(
        quiet,
        CONTRAST(40.0),
        burn_in=0.0,
        duration=20.0,
        record="u",
        initial=first.final,
        **settings,
    )
    assert_allclose(second.u, whole.u, rtol=1e-10)


def test_from_potentials_they_stay_where_they_are_at_rest():
    point = steady_states(COLUMN, CONTRAST([40.0, 70.0])).u
    quiet = replace(COLUMN, noise_factor=0.0)
    settings = {"burn_in": 0.0, "duration": 100.0, "n_trials": 2, "initial": point}
    found = simulate(quiet, CONTRAST([40.0, 70.0]), **settings)
    assert_allclose(found.mean, point, rtol=1e-8)
    assert_allclose(COLUMN.potentials(COLUMN.state_at(point)), point, rtol=1e-12)


def test_four_types_grow_and_are_kept(tmp_path):
    model = circuits.kuchibhotla_2017()
    shares = {kind: {"GABA": 1.0} for kind in ("PV", "SST", "VIP")}
    shares["E"] = {"AMPA": 0.8, "NMDA": 0.2}
    circuit = replace(model.circuit, receptors=Receptors(TAU, shares))
    drive = model.drive([20.0])
    grown, origin = split(circuit, [0, 1, 3], random_state=0)
    settings = {"burn_in": 0.0, "duration": 50.0, "n_trials": 1, "record": "u"}
    one, other = simulate(circuit, drive, **settings), simulate(grown, drive[:, origin], **settings)
    assert_allclose(other.u, one.u[..., origin], rtol=1e-8)
    save(circuit, tmp_path / "circuit.ssn")
    for copy in (load(tmp_path / "circuit.ssn"), pickle.loads(pickle.dumps(circuit))):
        assert copy.receptors.kind() == circuit.receptors.kind()
        assert_allclose(simulate(copy, drive, **settings).u, one.u)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Receptors({}, SHARES), "tau of receptors must be a mapping"),
        (lambda: Receptors([4.0], SHARES), "tau of receptors must be a mapping"),
        (lambda: Receptors({"AMPA": 0.0}, SHARES), "tau of 'AMPA' must be a finite number"),
        (lambda: Receptors(TAU, {"E": {"KA": 1.0}}), "have receptors ['KA'], which are none of"),
        (lambda: Receptors(TAU, {"E": {"AMPA": 0.5}}), "must be numbers >= 0 that sum to 1"),
        (
            lambda: Receptors(TAU, {"E": {"AMPA": 1.5, "NMDA": -0.5}}),
            "must be numbers >= 0 that sum to 1",
        ),
        (lambda: Receptors(TAU, SHARES, external="KA"), "external must be one of"),
        (lambda: replace(COLUMN, dynamics="rate"), "receptors are for dynamics='voltage'"),
        (lambda: Circuit([[0.0]], 1, receptors=TAU), "receptors must be a Receptors or None"),
        (lambda: Circuit([[0.0]], 1, receptors=RECEPTORS), "receptors need shares of each"),
        (
            lambda: simulate(COLUMN, CONTRAST(1.0), dt=4.0),
            "tau of AMPA is 4 ms",
        ),
        (
            lambda: simulate(COLUMN, CONTRAST(1.0), initial=np.zeros(3)),
            "initial must be a State, or an array of shape (2,)",
        ),
    ],
)
def test_errors(make, words):
    import re

    with pytest.raises(ValueError, match=re.escape(words)):
        make()


def test_moments_without_simulation_refuse_receptors():
    from ssn_estimators import stationary_moments
    from ssn_estimators.inspection import spectral_abscissa

    for ask in (stationary_moments, spectral_abscissa):
        with pytest.raises(ValueError, match="without receptors"):
            ask(COLUMN, CONTRAST(1.0))
