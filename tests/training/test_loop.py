"""SSNClassifier: warm start, partial_fit, validation, callbacks, and training that fails."""

import warnings
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_iris, make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from ssn_estimators import (
    AutoencoderEncoder,
    DivergenceError,
    SSNClassifier,
    dale_init,
    random_circuit,
    split,
    stable_pair,
)
from ssn_estimators.structures import Unconstrained
from ssn_estimators.training.classification import Classification
from ssn_estimators.training.descent import Descent
from ssn_estimators.training.guard import Guard
from ssn_estimators.training.loop import _rank
from ssn_estimators.training.plan import Model, Outcome

SHORT = {"max_iter": 3, "growth_iter": 2}


def size(network):
    return network.circuit_.n_excitatory, network.circuit_.n_inhibitory


def test_warm_start_grows_further(small_ssn, blobs):
    X, y = blobs
    ssn = small_ssn(**SHORT, input_weights="dense", n_excitatory=3, n_inhibitory=2, warm_start=True)
    scaler, losses = ssn.fit(X, y).scaler_, list(ssn.loss_curve_)
    ssn.set_params(n_excitatory=6, n_inhibitory=4).fit(X, y)
    assert size(ssn) == (6, 4)
    assert ssn.scaler_ is scaler
    assert ssn.loss_curve_[: len(losses)] == losses
    assert len(ssn.loss_curve_) > len(losses)
    sizes = [(stage["n_excitatory"], stage["n_inhibitory"]) for stage in ssn.growth_history_]
    assert sizes == sorted(sizes)
    assert ssn.set_params(warm_start=False).fit(X, y).scaler_ is not scaler


def test_warm_start_with_other_input_is_refused(small_ssn, blobs):
    # four cells have one input each; six need input weights, which were never trained
    ssn = small_ssn(**SHORT, warm_start=True, input_weights="one_to_one").fit(*blobs)
    with pytest.raises(ValueError, match="input_weights"):
        ssn.set_params(input_weights="dense", n_excitatory=6).fit(*blobs)


def test_partial_fit(small_ssn, blobs):
    X, y = blobs
    ssn = small_ssn(**SHORT, batch_size=64)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        ssn.partial_fit(X, y)
    assert not hasattr(ssn, "circuit_")
    ssn.partial_fit(X[:100], y[:100], classes=[0, 1, 2, 3])
    assert_array_equal(ssn.classes_, [0, 1, 2, 3])
    assert ssn.decision_function(X).shape == (150, 4)
    n_iter, weights, scaler = ssn.n_iter_, ssn.circuit_.weights, ssn.scaler_
    ssn.partial_fit(3 * X[100:], y[100:])
    assert ssn.n_iter_ == n_iter + 1
    assert (ssn.circuit_.weights != weights).any()
    assert ssn.scaler_ is scaler
    with pytest.raises(ValueError, match="differ from those of the first call"):
        ssn.partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"y contains labels \[7\] that are not in classes"):
        ssn.partial_fit(X, np.full(150, 7))
    with pytest.raises(ValueError, match="does not support early_stopping"):
        ssn.set_params(early_stopping=True).partial_fit(X, y)


def test_early_stopping(small_ssn, blobs):
    X, y = blobs
    stopper = small_ssn(max_iter=400, early_stopping=True, n_iter_no_change=1).fit(X, y)
    scores = stopper.validation_scores_
    assert 2 <= len(scores) < 8
    assert stopper.growth_history_[-1]["n_iter"] < 400
    assert scores[-1] <= scores[-2] + stopper.tol
    assert stopper.best_validation_score_ == max(scores)


def test_best_network_on_validation_data_is_kept(small_ssn, blobs):
    X, y = blobs
    wrong = (y + 1) % 3  # the better the network, the lower its score
    ssn = small_ssn(max_iter=150, learning_rate_init=0.003).fit(X, y, X_val=X, y_val=wrong)
    scores = ssn.validation_scores_
    assert len(scores) == 3
    assert np.argmax(scores) < 2
    assert ssn.score(X, wrong) == max(scores) == ssn.best_validation_score_


def test_without_validation_there_are_no_scores(fitted):
    assert fitted.validation_scores_ is None
    assert fitted.best_validation_score_ is None


def test_callbacks_see_stages_and_iterations(small_ssn, blobs, recorder):
    callback = recorder()
    small_ssn(**SHORT).set_callbacks(callback).fit(*blobs)
    expected = [("setup", "fit"), ("begin", "fit")]
    for stage, n_steps in (("1 E + 1 I", 2), ("2 E + 1 I", 2), ("4 E + 1 I", 3)):
        iteration = [("begin", "iteration"), ("end", "iteration")]
        expected += [("begin", stage), *n_steps * iteration, ("end", stage)]
    assert callback.record == [*expected, ("end", "fit"), ("teardown", "fit")]


def test_callbacks_do_not_change_training(small_ssn, blobs, recorder):
    plain, watched = small_ssn(**SHORT), small_ssn(**SHORT).set_callbacks(recorder())
    X, y = blobs
    assert_array_equal(*(ssn.fit(X, y).decision_function(X) for ssn in (plain, watched)))


@pytest.mark.parametrize(
    ("task", "grown", "n_steps"), [("iteration", (4, 1), 3), ("2 E + 1 I", (2, 1), 4)]
)
def test_callback_stops_its_level(small_ssn, blobs, task, grown, n_steps, recorder):
    callback = recorder(lambda hook, context: hook == "end" and context.task_name == task)
    ssn = small_ssn(**SHORT).set_callbacks(callback).fit(*blobs)
    assert size(ssn) == grown
    assert len(ssn.loss_curve_) == n_steps
    assert np.isfinite(ssn.decision_function(blobs[0])).all()


@pytest.mark.parametrize("within_pipeline", [False, True])
def test_scoring_monitor(small_ssn, blobs, within_pipeline):
    X, y = blobs
    monitor = ScoringMonitor(scoring="accuracy")
    model = ssn = small_ssn(**SHORT).set_callbacks(monitor)
    if within_pipeline:
        encoder = AutoencoderEncoder(4, hidden_layer_sizes=(8,), max_iter=5, random_state=0)
        model = make_pipeline(encoder, ssn)
    model.fit(X, y)
    logs = [row for row in monitor.get_logs().data if "accuracy" in row]
    steps = [row["accuracy"] for row in logs if row["task_name"] == "iteration"]
    assert len(steps) == len(ssn.loss_curve_) == 7
    assert all(0 <= score <= 1 for score in steps)
    assert [row["accuracy"] for row in logs if row["task_name"] == "fit"] == [model.score(X, y)]


def fit_or_fail(ssn, X, y):
    try:
        ssn.fit(X, y)
    except KeyboardInterrupt:  # would end pytest itself
        pytest.fail("the interrupt went through fit")


@pytest.mark.parametrize(("hook", "task"), [("end", "iteration"), ("end", "2 E + 1 I")])
def test_interrupt_keeps_the_network_fitted_so_far(small_ssn, blobs, hook, task, recorder):
    def interrupt(at, context):
        stage = context.task_name if context.parent is None else context.parent.task_name
        if at == hook and context.task_name == task and "1 E" not in stage:
            raise KeyboardInterrupt

    callback = recorder(interrupt)
    ssn = small_ssn(**SHORT).set_callbacks(callback)
    with pytest.warns(ConvergenceWarning, match="interrupted by the user"):
        fit_or_fail(ssn, *blobs)
    assert size(ssn) == (2, 1)
    assert callback.record[-1] == ("teardown", "fit")
    assert np.isfinite(ssn.decision_function(blobs[0])).all()


def test_what_adam_knows_goes_by_names(small_ssn):
    """Also if a later chunk has another rate of its input weights, which the first has not."""
    X = np.random.RandomState(0).uniform(size=(64, 13))
    y = np.arange(64) % 2
    network = small_ssn(**SHORT, n_excitatory=4, n_inhibitory=1).partial_fit(X, y, classes=[0, 1])
    small = X[:32] * 0.8 + 0.1
    inputs = [torch.as_tensor(network.scaler_.transform(part)) for part in (X, small)]
    rates = [Classification(True).rates(network.circuit_, part) for part in inputs]
    assert ["input_weights" in r for r in rates] == [True, False]
    for part in (small, X):
        network.partial_fit(part, y[: len(part)])
        fitted = network._fitted_model()
        known = {name: v["exp_avg"].shape for (_, name), v in network._optimizer_state.items()}
        assert known["weights"] == fitted.circuit.weights.shape
        assert {name: known[name] for name in fitted.arrays} == {
            name: array.shape for name, array in fitted.arrays.items()
        }


@pytest.mark.parametrize("n_steps", [3, 60])
def test_interrupt_in_a_confirmation(small_ssn, blobs, n_steps):
    """What is kept goes together, so that training can go on."""
    confirm = Guard.confirm

    def interrupted(self, model, final):
        if model.circuit.n_neurons > 3:
            raise KeyboardInterrupt
        return (yield from confirm(self, model, final))

    network = small_ssn(growth_iter=3, max_iter=n_steps, warm_start=True, learning_rate_init=1e-3)
    with (
        mock.patch.object(Guard, "confirm", interrupted),
        pytest.warns(ConvergenceWarning, match="interrupted by the user"),
    ):
        fit_or_fail(network, *blobs)
    assert size(network) == ((4, 1) if n_steps > 50 else (2, 1))  # confirmed every 50
    assert network._optimizer_state is None or n_steps == 3
    for (_, name), state in (network._optimizer_state or {}).items():
        now = network._fitted_model().arrays | {"weights": network.circuit_.weights}
        assert name not in now or state["exp_avg"].shape == now[name].shape
    assert np.isnan(network.divergence_rate_)
    network.set_params(max_iter=3).fit(*blobs)
    assert size(network) == (4, 1)


def test_an_attempt_that_succeeds_is_kept():
    """Whatever the loss of one before that failed."""
    pair = Model(random_circuit(2, 1, random_state=0), {})
    failed = Outcome(pair, loss_curve=[0.1], stability=1.0, failure=("a", "b"))
    fine = Outcome(pair, loss_curve=[0.2], stability=1.0)
    unstable = Outcome(pair, loss_curve=[0.0], stability=0.9)
    assert min([failed, fine, unstable], key=_rank) is fine
    assert min([unstable, failed], key=_rank) is failed


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_no_other_start(small_ssn, blobs, error):
    """What the first attempt has reached is kept if there is no second."""
    pairs = []

    def once(*args, **parameters):
        if pairs:
            raise error
        pairs.append(stable_pair(*args, **parameters))
        return pairs[0]

    X = np.random.RandomState(0).normal(size=(60, 4))
    settings = SHORT | {"max_iter": 200, "input_noise": 1.0, "burn_in": 20.0}
    network = small_ssn(**settings)
    with (
        mock.patch("ssn_estimators.base.stable_pair", once),
        pytest.warns(ConvergenceWarning, match="interrupted|no stable start .* 2 excitatory"),
    ):
        fit_or_fail(network, X, np.arange(60) % 2)
    assert network.n_attempts_ == 1
    assert len(network.loss_curve_) >= 50
    assert network.stability_ == 1


@pytest.mark.parametrize("data", ["blobs", "iris"])
def test_far_too_large_steps(small_ssn, blobs, data):
    X, y = blobs if data == "blobs" else load_iris(return_X_y=True)
    ssn = small_ssn(learning_rate_init=10.0)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        ssn.fit(X, y)
    # it has learned all the same, or says what to do
    said = [str(w.message) for w in warned]
    assert ssn.score(X, y) > 0.9 or any("lower learning_rate_init (now 10)" in m for m in said)
    assert ssn.stability_ == 1.0
    assert np.isfinite(ssn.decision_function(X)).all()


def test_runaway_network_gives_no_answer(runaway, blobs):
    X, _ = blobs
    for method in (runaway.predict, runaway.predict_proba, runaway.transform):
        with pytest.raises(DivergenceError, match="has no stationary answer to some of the inputs"):
            method(X)
    simulation = runaway.simulate(X[:5], duration=50.0)
    assert simulation.diverged.shape == (5, 4)
    assert simulation.diverged.any()
    assert "diverged" in simulation.message


def test_from_paper():
    for name, n_e, n_i in (("mnist-50:50", 50, 50), ("mnist-80:20", 80, 20)):
        ssn = SSNClassifier.from_paper(name)
        assert (ssn.n_excitatory, ssn.n_inhibitory) == (n_e, n_i)
        assert (ssn.growth, ssn.solver, ssn.dt, ssn.n_trials) == ("single", "euler", 0.2, 100)
        assert ssn.burn_in / ssn.dt == pytest.approx(2000)
        assert ssn.window / ssn.dt == pytest.approx(500)
        other = SSNClassifier.from_paper(name, dt=0.5, random_state=3)
        assert other.get_params() == ssn.get_params() | {"dt": 0.5, "random_state": 3}
    with pytest.raises(ValueError, match=r"\['mnist-50:50', 'mnist-80:20'\], got 'mnist'"):
        SSNClassifier.from_paper("mnist")


@pytest.mark.parametrize(
    "change", [{"gamma": 1.5}, {"weight_structure": "circulant"}, {"n_inhibitory": 2}]
)
def test_warm_start_refuses_another_circuit(small_ssn, blobs, change):
    size = {"n_excitatory": 4, "n_inhibitory": 4, "input_weights": "one_to_one"}
    ssn = small_ssn(**size, warm_start=True, max_iter=2, growth_iter=2)
    ssn.fit(*blobs).set_params(**change)
    with pytest.raises(ValueError, match="cannot go on with another value of"):
        ssn.fit(*blobs)


def test_warm_start_grows_to_another_ratio(small_ssn, blobs):
    ssn = small_ssn(n_excitatory=5, n_inhibitory=5, warm_start=True, max_iter=2, growth_iter=2)
    ssn.fit(*blobs).set_params(n_excitatory=20).fit(*blobs)
    assert (ssn.circuit_.n_excitatory, ssn.circuit_.n_inhibitory) == (20, 5)
    assert ssn.growth_history_[-1]["n_iter"] == len(ssn.loss_curve_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_validation_and_callbacks_survive_steps_that_lead_nowhere(small_ssn, blobs):
    ssn = small_ssn(learning_rate_init=60.0, max_iter=5, growth_iter=3, early_stopping=True)
    ssn.set_callbacks(ScoringMonitor(scoring="accuracy")).fit(*blobs)
    assert np.isfinite(ssn.decision_function(blobs[0])).all()


def test_evolution_strategy_estimates_the_gradient_of_backpropagation(
    small_ssn, blobs, monkeypatch
):
    found = {}

    class Known(Exception):
        pass

    def step(self, loss, rate):
        gradient = torch.cat([p.grad.flatten() for p in self.parameters.values()])
        raise Known(gradient)

    monkeypatch.setattr("ssn_estimators.training.descent.Descent.step", step)
    # without burn-in backpropagation reaches back to the start, and is exact
    settings = {"growth": None, "burn_in": 0.0, "window": 40.0, "n_trials": 20}
    for trainer in ("bptt", "es"):
        ssn = small_ssn(trainer=trainer, es_samples=400, es_sigma=0.005, **settings)
        with pytest.raises(Known) as raised:
            ssn.fit(*blobs)
        found[trainer] = raised.value.args[0]
    assert torch.cosine_similarity(found["bptt"], found["es"], dim=0) > 0.7
    assert found["es"].norm() == pytest.approx(found["bptt"].norm(), rel=0.5)


def test_evolution_strategy_learns(small_ssn, blobs):
    search = {"trainer": "es", "es_samples": 10, "max_iter": 40, "input_weights": "one_to_one"}
    ssn = small_ssn(**search).fit(*blobs)
    assert np.mean(ssn.loss_curve_[-5:]) < 0.5 * np.mean(ssn.loss_curve_[:5])
    assert ssn.stability_ == 1
    again = small_ssn(**search).fit(*blobs)
    assert_array_equal(ssn.circuit_.weights, again.circuit_.weights)


def test_evolution_strategy_counts_perturbations_that_diverge(small_ssn, blobs):
    search = {"trainer": "es", "es_samples": 10, "max_iter": 8, "random_state": 0}
    near = small_ssn(**search, es_sigma=0.001).fit(*blobs)
    assert near.n_dropped_ == 0
    far = small_ssn(**search, es_sigma=1.0).fit(*blobs)
    assert 0 < far.n_dropped_ <= 10 * far.n_iter_
    assert far.n_dropped_ % 2 == 0  # with the opposite ones


def test_input_noise_is_a_matter_of_training_only(small_ssn, blobs):
    quiet, noisy = (small_ssn(**SHORT, input_noise=noise).fit(*blobs) for noise in (0.0, 0.1))
    assert (quiet.circuit_.weights != noisy.circuit_.weights).any()
    inputs = noisy.scaler_.transform(blobs[0]).astype(np.float32)
    h = inputs @ noisy.input_weights_.T + noisy.input_bias_
    assert_allclose(noisy.drive(blobs[0]), noisy.circuit_.drive(h), rtol=1e-5)
    again = small_ssn(**SHORT, input_noise=0.1).fit(*blobs)
    assert_array_equal(noisy.circuit_.weights, again.circuit_.weights)


@pytest.mark.parametrize(
    ("n_samples", "n_features", "first", "end"),
    [
        (1000, 4, 0.05, 0.05),
        (60, 4, 0.1, 0.1),
        (200, 4, 0.02**0.5 / 2, 0.02**0.5 / 2),
        (60, 20, 0.1, 0.1),
        (60, 30, 0.2, 0.1),
        (30, 200, 0.8, 0.1),
    ],
)
def test_input_noise_follows_the_number_of_features_for_a_sample(
    small_ssn, n_samples, n_features, first, end
):
    """Half of its square root, from .05 to .1; at first .8 of its square, up to .8."""
    X, y = make_blobs(n_samples, n_features=n_features, random_state=0)
    brief = SHORT | {"growth_iter": 2, "max_iter": 3, "n_excitatory": 4}
    auto = small_ssn(**brief).fit(X, y)
    settings = "ssn_estimators.supervised._usual_noise"
    with mock.patch(settings, return_value=(first, end)):
        assert auto.loss_curve_ == small_ssn(**brief).fit(X, y).loss_curve_
    # that of growth is the first
    given = small_ssn(**brief, input_noise=first).fit(X, y)
    assert auto.loss_curve_[:3] == given.loss_curve_[:3]
    assert (auto.loss_curve_ == given.loss_curve_) == (first == end)


@pytest.mark.parametrize("parents", ["last", "random", "gradient", "output"])
def test_choices_of_parents(small_ssn, blobs, parents):
    """Each leads to the target; those that look at the network find other cells than the last."""
    chosen = []

    def noting(circuit, parents, **how):
        chosen.append(list(parents))
        return split(circuit, parents, **how)

    class Noting(SSNClassifier):
        def _plan(self, *args, **kwargs):
            plan = super()._plan(*args, **kwargs)
            return replace(plan, growth=replace(plan.growth, split=noting))

    settings = SHORT | {"growth": "single", "growth_iter": 3, "max_iter": 3, "parents": parents}
    like = small_ssn(n_excitatory=8, n_inhibitory=2, **settings)
    network = Noting(**like.get_params()).fit(*blobs)
    assert (network.circuit_.n_excitatory, network.circuit_.n_inhibitory) == (8, 2)
    sizes = [entry["n_excitatory"] + entry["n_inhibitory"] for entry in network.growth_history_]
    last = [[n_e - 1] for n_e in range(1, 8)]
    excitatory = [[cell for cell in cells if cell < i + 1] for i, cells in enumerate(chosen)]
    assert len(sizes) == 8
    assert (excitatory == last) == (parents == "last")


def test_inhibitory_cells_become_different_with_random_shares():
    # without noise, clones of equal shares get equal gradients for ever
    X, y = make_blobs(300, n_features=8, centers=8, random_state=1)
    parameters = {"n_inhibitory": 8, "growth_iter": 5, "max_iter": 30, "random_state": 0}
    for how, different in (("equal", False), ("random", True)):
        with mock.patch("ssn_estimators.base.stable_pair", quiet_pair):
            ssn = SSNClassifier(clone_shares=how, **parameters).fit(X, y)
        inhibition = ssn.circuit_.weights[:, 8:]
        singular = np.linalg.svd(inhibition, compute_uv=False)
        assert (singular[1] > 0.05 * singular[0]) == different


def test_weakened_networks_have_ever_less_excitation_among_excitatory_cells():
    circuit = random_circuit(3, 2, random_state=0, dtype=np.float32)
    descent = Descent(Model(circuit, {}), Unconstrained)
    weights = [model.circuit.weights for model in descent.weakened()]
    for i, weaker in enumerate(weights, start=1):
        assert_allclose(weaker[:3, :3], 0.8**i * circuit.weights[:3, :3], rtol=1e-5)
        assert_array_equal(weaker[:, 3:], circuit.weights[:, 3:])
        assert_array_equal(weaker[3:], circuit.weights[3:])
    assert 0.8 ** len(weights) < 0.02


def quiet_pair(*args, **kwargs):
    return replace(stable_pair(*args, **kwargs), noise_factor=0.0)


def test_training_starts_from_given_weights():
    X, y = load_iris(return_X_y=True)
    given = dale_init(5, excitatory=0.8, gain=0.02, random_state=0)
    settings = {"growth": None, "max_iter": 1, "learning_rate_init": 1e-6, "random_state": 0}
    by_matrix = SSNClassifier(init=given, **settings).fit(X, y)
    np.testing.assert_allclose(by_matrix.circuit_.weights, given, atol=1e-5)
    by_function = SSNClassifier(
        init=lambda n, rng: dale_init(n, excitatory=0.8, gain=0.02, random_state=0), **settings
    ).fit(X, y)
    np.testing.assert_array_equal(by_function.circuit_.weights, by_matrix.circuit_.weights)
    trained = SSNClassifier(init=given, growth=None, max_iter=400, random_state=0).fit(X, y)
    assert trained.score(X, y) > 0.9
    assert (np.sign(trained.circuit_.weights) * np.sign(given) >= 0).all()
