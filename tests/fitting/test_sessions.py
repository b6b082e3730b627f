"""Sessions: one circuit, shown things in several ways."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ssn_estimators import Circuit, CircuitRegressor, load, save, stationary_moments
from ssn_estimators.fitting import Covariances, Free, Spectra, Traces, compare
from ssn_estimators.fitting.model import model_of
from ssn_estimators.fitting.problem import problem_of
from ssn_estimators.fitting.steady import Steady, fixed_points_of
from ssn_estimators.fitting.traces import Follower
from ssn_estimators.inspection import lfp_spectrum, steady_states

PAIR = Circuit([[1.0, -1.5], [1.2, -0.5]], n_excitatory=1, k=0.04, noise_factor=0.2)
GUESS = replace(PAIR, weights=[[0.5, -1.0], [0.5, -1.0]])
SAME = [[1.0], [1.0]]
STRENGTHS = np.array([1.0, 2.0, 5.0, 10.0, 20.0, 40.0])[:, None]
X = np.tile(STRENGTHS, (3, 1))
LABELS = np.repeat(["monday", "tuesday", "friday"], 6)
GAINS = np.array([[1.0, 1.0], [1.5, 0.8], [0.7, 1.2]])  # by session and cell
BASELINES = np.array([[0.5, 1.0], [2.0, 0.2], [1.0, 1.5]])
DRIVE = X * np.repeat(GAINS, 6, axis=0) + np.repeat(BASELINES, 6, axis=0)
RATES = steady_states(PAIR, DRIVE).rates
FREE = [
    Free("weights"),
    Free("input_map", per_session=True),
    Free("baseline", per_session=True),
]
OPTIONS = {"input_map": SAME, "baseline": 1.0, "n_starts": 3, "random_state": 0, "tol": 1e-9}


def test_a_circuit_and_its_sessions_are_recovered(tmp_path):
    model = CircuitRegressor(GUESS, FREE, **OPTIONS)
    model.fit(X, RATES, sessions=LABELS)
    assert_allclose(model.circuit_.weights, PAIR.weights, rtol=1e-3)
    assert_array_equal(model.sessions_, ["monday", "tuesday", "friday"])
    assert_allclose(model.input_map_[..., 0], GAINS, rtol=1e-3)
    assert_allclose(model.baseline_, BASELINES, rtol=1e-2)
    assert len(model.values_) == 4 + 6 + 6
    names = dict(zip(model.parameter_names_, model.values_, strict=True))
    assert_allclose(names["input_map[I, tuesday]"], 0.8, rtol=1e-3)
    assert_allclose(names["baseline[E, friday]"], 1.0, rtol=1e-2)
    order = np.random.RandomState(0).permutation(18)
    assert_allclose(model.predict(X[order], sessions=LABELS[order]), RATES[order], rtol=1e-3)
    assert_allclose(model.predict(STRENGTHS, sessions="friday"), RATES[12:], rtol=1e-3)
    assert_allclose(model.drive(X, sessions=LABELS), DRIVE, rtol=1e-2)
    assert model.score(X, RATES, sessions=LABELS) > 0.9999
    assert np.abs(model.residuals(X, RATES, sessions=LABELS)).max() < 0.01
    in_time = model.predict_traces(np.full((2000, 1), 5.0), session="tuesday", dt=0.5)
    assert_allclose(in_time[-1], RATES[8], rtol=1e-3)
    save(model, tmp_path / "model.ssn")
    again = load(tmp_path / "model.ssn")
    assert_array_equal(again.predict(X, sessions=LABELS), model.predict(X, sessions=LABELS))


def test_parameters_by_session_have_a_table():
    pytest.importorskip("pandas")
    model = CircuitRegressor(GUESS, FREE, **OPTIONS).fit(X, RATES, sessions=np.repeat([1, 2, 3], 6))
    table = model.parameters_.set_index("name")
    assert_allclose(table.value["input_map[E, 2]"], 1.5, rtol=1e-3)
    assert "weights[E, I]" in table.index


def test_one_circuit_for_all_is_known_better():
    """Noisy rates of three sessions, each fitted alone, and together."""
    noisy = RATES + np.random.RandomState(1).normal(scale=0.05, size=RATES.shape)
    together = CircuitRegressor(GUESS, FREE, **OPTIONS)
    together.fit(X, noisy, sample_error=0.05, sessions=LABELS)
    free = [Free("weights"), Free("input_map"), Free("baseline")]
    for label in together.sessions_:
        own = LABELS == label
        alone = CircuitRegressor(GUESS, free, **OPTIONS)
        alone.fit(X[own], noisy[own], sample_error=0.05)
        assert (together.standard_errors_[:4] < alone.standard_errors_[:4]).all()
    truth = PAIR.weights.ravel()
    assert (np.abs(together.values_[:4] - truth) < 3 * together.standard_errors_[:4]).all()


@pytest.mark.parametrize("gamma", [2.0, 2.3])
def test_jacobian_by_finite_differences(gamma):
    """Of what is shared and what is not, of the same numbers and of several cells."""
    rng = np.random.RandomState(0)
    weights = np.abs(rng.normal(0.3, 0.1, (4, 4))) * [1, 1, -1, -1]
    circuit = Circuit(weights, n_excitatory=2, k=0.04, gamma=gamma)
    free = [
        "weights",
        Free("input_map", by="each", scale="linear"),
        Free("input_map", per_session=True, name="gain", prior=[1.0, 2.0], prior_error=0.5),
        Free("baseline", by=np.array([0, 0, 1, 1]), per_session=True),
        Free("baseline", name="all"),
    ]
    inputs, y = rng.uniform(1, 5, (9, 2)), rng.uniform(0, 3, (9, 2))
    map_ = rng.uniform(0.5, 2, (4, 2))
    regressor = CircuitRegressor(circuit, free, input_map=map_, baseline=2.0, observed=["E", 2])
    labels = np.arange(9) % 3
    model, problem, _ = problem_of(
        regressor, inputs, y, 0.5, rng.normal(size=(9, 2)), labels,
        traces=None, spectra=None, covariances=None,
    )  # fmt: skip
    assert len(model.parameters) == 4 + 8 + 6 + 6 + 2
    conditions = problem.conditions
    theta = model.parameters.start + 0.01 * rng.normal(size=len(model.parameters))
    arrays = model.parameters.arrays(theta)
    for row, label in enumerate(labels):
        own = arrays["input_map"].reshape(4, 3, 2)[:, label] @ inputs[row]
        own = own + arrays["baseline"][:, label] + conditions.extra[row]
        assert_allclose(conditions.drive(arrays)[row], own)
    steady = Steady(model.parameters, conditions, theta, fixed_points_of(conditions, arrays))

    def residuals(theta):
        return problem.residuals(steady.outputs(theta), theta)

    steps = 1e-5 * np.eye(len(theta))
    differences = [(residuals(theta + d) - residuals(theta - d)) / 2e-5 for d in steps]
    differences = np.stack(differences, axis=1)
    found = problem.jacobian(steady.jacobian(theta), theta)
    assert_allclose(found, differences, atol=1e-6 * np.abs(differences).max())


def traces_of(session):
    """Steps of input in a session, by the regressor that knows all but one number."""
    steps = np.where(np.arange(300) % 100 < 40, 8.0, 2.0)[:, None]
    options = {"input_map": GAINS[session][:, None], "baseline": BASELINES[session]}
    known = CircuitRegressor(PAIR, ["baseline"], n_starts=1, **options)
    own = RATES[6 * session : 6 * session + 6]
    return steps, known.fit(STRENGTHS, own).predict_traces(steps)


def test_traces_of_sessions():
    recorded = [Traces(*traces_of(i), session=label) for i, label in enumerate("abc")]
    model = CircuitRegressor(GUESS, FREE, **OPTIONS).fit(traces=recorded)
    assert_allclose(model.circuit_.weights, PAIR.weights, rtol=1e-3)
    assert_allclose(model.input_map_[..., 0], GAINS, rtol=1e-3)
    assert_allclose(model.baseline_, BASELINES, rtol=1e-2)


def test_slopes_of_traces_of_sessions():
    rng = np.random.RandomState(0)
    regressor = CircuitRegressor(PAIR, FREE, input_map=SAME, baseline=1.0)
    recorded = [Traces(*traces_of(i), session=label) for i, label in enumerate("abc")]
    model, problem, _ = problem_of(
        regressor, None, None, None, None, None, traces=recorded, spectra=None, covariances=None
    )
    theta = model.parameters.start + 0.02 * rng.normal(size=len(model.parameters))
    follower = Follower(problem.recordings, model.parameters, problem.conditions, False)
    for recording in problem.recordings:

        def outputs(theta, recording=recording):
            return follower.outputs(recording, model.parameters.arrays(theta))[..., -1].copy()

        slopes = model.parameters.slopes(theta)
        found = follower.outputs(recording, model.parameters.arrays(theta), slopes)[..., :-1].copy()
        steps = 1e-5 * np.eye(len(theta))
        differences = [(outputs(theta + d) - outputs(theta - d)) / 2e-5 for d in steps]
        differences = np.stack(differences, -1)
        assert_allclose(found, differences, atol=1e-6 * np.abs(differences).max())


def test_spectra_and_covariances_have_a_session():
    """A second session that has been seen by these only."""
    drive = STRENGTHS * GAINS[1] + BASELINES[0]
    gain = PAIR.gain(steady_states(PAIR, drive).u)
    frequencies = [5.0, 20.0, 60.0]
    spectra = Spectra(
        STRENGTHS, frequencies, lfp_spectrum(PAIR, drive, frequencies), session="second"
    )
    free = [Free("weights"), Free("input_map", per_session=True)]
    options = OPTIONS | {"baseline": BASELINES[0]}
    model = CircuitRegressor(GUESS, free, **options)
    model.fit(X[:6], RATES[:6], sample_error=0.1, sessions="first", spectra=spectra)
    assert_allclose(model.input_map_[..., 0], GAINS[:2], rtol=1e-2)

    values = stationary_moments(PAIR, drive, closure="linear").covariance
    values = gain[:, :, None] * values * gain[:, None, :]
    model.fit(
        X[:6], RATES[:6], sample_error=0.1, sessions="first",
        covariances=Covariances(STRENGTHS, values, session="second"),
    )  # fmt: skip
    assert_allclose(model.input_map_[..., 0], GAINS[:2], rtol=1e-2)


@pytest.mark.slow
def test_comparisons_of_sessions():
    models = {
        "own gains": CircuitRegressor(GUESS, FREE, **OPTIONS),
        "own baselines": CircuitRegressor(GUESS, ["weights", "input_map", FREE[2]], **OPTIONS),
    }
    noisy = RATES + np.random.RandomState(1).normal(scale=0.05, size=RATES.shape)
    folds = [(np.arange(18)[i::3], np.arange(18)[i::3]) for i in range(3)]
    found = compare(models, X, noisy, cv=folds, sample_error=0.05, sessions=LABELS)
    assert found.name[np.argmin(found.bic)] == "own gains"
    assert found.n_parameters.tolist() == [16, 12]


def fitted(**options):
    return CircuitRegressor(GUESS, FREE, **OPTIONS | {"n_starts": 1} | options)


BAD = {
    "none": (lambda m: m.fit(X, RATES), "go together"),
    "nothing of their own": (
        lambda m: m.set_params(free=["weights"]).fit(X, RATES, sessions=LABELS),
        "go together",
    ),
    "too few": (lambda m: m.fit(X, RATES, sessions=LABELS[:-1]), "sessions must be a label"),
    "numbers": (lambda m: m.fit(X, RATES, sessions=X[:, 0]), "sessions must be a label"),
    "missing": (
        lambda m: m.fit(X, RATES, sessions=[None, *LABELS[1:]]),
        "sessions must be a label",
    ),
    "traces without": (
        lambda m: m.fit(X, RATES, sessions=LABELS, traces=Traces(X, RATES)),
        "of which one is it",
    ),
    "conditions without": (
        lambda m: m.fit(X, RATES, traces=Traces(X, RATES, session="a")),
        "of which one is it",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(fitted())


def test_predictions_are_of_known_sessions():
    model = fitted(max_iter=3).fit(X, RATES, sessions=LABELS)
    for sessions, message in (
        (None, "of which one is it"),
        ("sunday", r"no sessions \['sunday'\]"),
        (LABELS[:3], "one for each of 18 conditions"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(X, sessions=sessions)
    without = CircuitRegressor(GUESS, ["weights"], input_map=SAME, n_starts=1)
    without.fit(STRENGTHS, RATES[:6])
    with pytest.raises(ValueError, match="the fit has no sessions"):
        without.predict(STRENGTHS, sessions="monday")


def test_what_can_differ_between_sessions():
    with pytest.raises(ValueError, match="weights cannot be per_session"):
        Free("weights", per_session=True)
    with pytest.raises(ValueError, match="per_session must be True or False"):
        Free("baseline", per_session="monday")
    regressor = CircuitRegressor(GUESS, FREE, input_map=SAME)
    with pytest.raises(ValueError, match="go together"):
        model_of(regressor, X, 2)
