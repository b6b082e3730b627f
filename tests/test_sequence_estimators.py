"""Estimators of sequences: what counts of these, what is learned, and what is refused."""

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from zoo import short_confirmations

from ssn_estimators import (
    SSNSequenceClassifier,
    SSNSequenceRegressor,
    choose_parents,
    circuits,
    fit_many,
    stability_report,
    stability_score,
)
from ssn_estimators.datasets import make_temporal_xor
from ssn_estimators.growth import shares_of, split
from ssn_estimators.simulation import Trials, simulate_trials
from ssn_estimators.training import Model, SequenceRegression, loop
from ssn_estimators.training.courses import means
from ssn_estimators.training.descent import MOST_CAUTION
from ssn_estimators.training.guard import Confirmation, TrialGuard
from ssn_estimators.training.penalties import Penalties

RNG = np.random.RandomState(0)
N, T, C = 40, 6, 3
X = RNG.uniform(size=(N, T, C))
Y = np.stack([X[:, :, 0], X[:, :, 1] - X[:, :, 2]], axis=2)
LABELS = (X[:, -2:, 0].mean(1) > 0.5).astype(int)
LENGTHS = RNG.randint(3, T + 1, N)
BRIEF = {
    "n_excitatory": 6,
    "max_iter": 8,
    "growth_iter": 3,
    "time_step": 10.0,
    "dt": 5.0,
    "burn_in": 10.0,
    "random_state": 0,
}
PARENTS = ("last", "gradient", "output")
KINDS = {"classifier": (SSNSequenceClassifier, LABELS), "regressor": (SSNSequenceRegressor, Y)}


@pytest.fixture(autouse=True)
def short():
    with short_confirmations(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def brief(kind="regressor", **parameters):
    return KINDS[kind][0](**BRIEF | parameters)


def fitted(kind="regressor", X=X, parameters=(), **told):
    return brief(kind, **dict(parameters)).fit(X, KINDS[kind][1], **told)


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_a_sequence_does_not_count(kind):
    other = X.copy()
    other[np.arange(T) >= LENGTHS[:, None]] = 1e6
    one, two = fitted(kind, lengths=LENGTHS), fitted(kind, other, lengths=LENGTHS)
    assert one.loss_curve_ == two.loss_curve_
    assert_array_equal(one.predict(X, lengths=LENGTHS), two.predict(other, lengths=LENGTHS))
    assert one.loss_curve_ != fitted(kind).loss_curve_


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [7.0, np.nan, -np.inf])
def test_padding_is_neither_looked_at_nor_compared(kind, padding):
    """Copies are copies whatever they are padded with; targets, too."""
    y, after = KINDS[kind][1], np.arange(T) >= LENGTHS[:, None]
    twice = np.concatenate([X, np.where(after[..., None], padding, X)])
    targets = np.concatenate([y, np.where(after[..., None], padding, y) if y.ndim > 2 else y])
    lengths = np.tile(LENGTHS, 2)
    found = brief(kind).fit(twice, targets, lengths=lengths)
    assert found.loss_curve_ == fitted(kind, lengths=LENGTHS).loss_curve_
    same = found.predict(twice, lengths=lengths)
    assert_array_equal(same[:N], same[N:])
    whole = found.score(twice, targets, lengths=lengths)
    assert_allclose(whole, found.score(X, y, lengths=LENGTHS), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_within_a_sequence_is_refused(kind):
    bad = X.copy()
    bad[3, LENGTHS[3] - 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fitted(kind, bad, lengths=LENGTHS)
    with pytest.raises(ValueError, match="NaN"):
        fitted(kind).predict(bad, lengths=LENGTHS)


def test_sequences_without_a_target_that_counts_are_left_out():
    mask = np.ones((N, T))
    mask[::2] = 0.0
    network = brief().fit(X, Y, mask=mask)
    assert network.loss_curve_ == brief().fit(X[1::2], Y[1::2]).loss_curve_
    assert network.score(X, Y, mask=mask) == network.score(X[1::2], Y[1::2])
    for seed in range(4):  # whatever sequences are held out, there is something to judge by
        stopped = brief(early_stopping=True, random_state=seed).fit(X, Y, mask=mask)
        assert np.isfinite(stopped.validation_scores_).all()


def test_scores_are_of_outputs_with_targets():
    mask = np.ones((N, T, 2))
    mask[3:, :, 1] = 0.0
    network = brief().fit(X, Y, mask=mask)
    assert_allclose(network.target_scaler_.mean_[1], Y[:3, :, 1].mean())
    mask[:, :, 1] = 0.0
    first = r2_score(Y[..., 0].ravel(), network.predict(X)[..., 0].ravel())
    assert_allclose(network.score(X, Y, mask=mask), first)
    mask[0, 0, 1] = 1.0  # of which there is no R^2
    assert_allclose(network.score(X, Y, mask=mask), first)
    mask[:, :, 1] = 0.0
    with pytest.raises(ValueError, match="output 1 of y has no target"):
        brief().fit(X, Y, mask=mask)


def test_early_stopping_needs_two_targets_to_judge_by():
    with pytest.raises(ValueError, match=r"at least 2 targets.* raise validation_fraction"):
        brief(early_stopping=True).fit(X[:9], Y[:9, -1, 0])


@pytest.mark.parametrize("y", [Y[..., :1], Y[..., 0], Y[:, 0, 0], np.dstack([Y, Y]), None])
def test_scores_are_of_the_outputs_of_the_fit(y):
    with pytest.raises(ValueError, match=r"y must have shape \(n_samples, 6, 2\)|y to be passed"):
        fitted().score(X, y)


def test_one_output_may_have_no_axis():
    network = brief().fit(X, Y[..., :1])
    assert network.score(X, Y[..., 0]) == network.score(X, Y[..., :1])
    network.set_params(warm_start=True).fit(X, Y[..., 0])
    assert network.predict(X).shape == (N, T, 1)
    last = brief().fit(X, Y[:, -1, 0])
    with pytest.raises(ValueError, match=r"y must have shape \(n_samples,\)"):
        last.score(X, Y[..., 0])


def test_an_output_may_have_no_targets_later():
    constant, mask = Y.copy(), np.ones((N, T, 2))
    constant[..., 1] = 2.0
    network = brief(warm_start=True).fit(X, constant)
    mask[..., 1] = 0.0
    assert_allclose(network.fit(X, Y, mask=mask).predict(X)[..., 1], 2.0)


def test_masked_targets_do_not_count():
    mask = RNG.uniform(size=(N, T)) * (RNG.uniform(size=(N, T)) < 0.5)
    other = np.where(mask[..., None] > 0, Y, 1e3)
    one, two = brief().fit(X, Y, mask=mask), brief().fit(X, other, mask=mask)
    assert one.loss_curve_ == two.loss_curve_
    assert one.score(X, Y, mask=mask) == two.score(X, other, mask=mask)
    each = np.repeat(mask[..., None], 2, axis=2)
    assert brief().fit(X, Y, mask=each).loss_curve_ == one.loss_curve_
    doubled = brief().fit(X, Y, mask=2 * mask)  # exact: a power of two
    assert doubled.loss_curve_ == one.loss_curve_


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_readout_of_mean_potentials_of_time_steps(kind):
    network = fitted(kind)
    simulation = network.simulate(X, record="u")
    per_step = simulation.u.reshape(T, -1, N, 4, 8).mean(axis=(1, 3))[:, :, :6]
    outputs = per_step @ network.readout_weights_.T + network.readout_bias_
    outputs = outputs.swapaxes(0, 1)
    if kind == "regressor":
        scaler = network.target_scaler_
        expected = outputs * scaler.scale_ + scaler.mean_
        assert_allclose(network.predict(X), expected, rtol=1e-4, atol=1e-5)
        assert_allclose(network.score(X, Y), r2_score(Y.reshape(-1, 2), expected.reshape(-1, 2)))
        return
    for response, steps in ((None, slice(5, 6)), ((1, 4), slice(1, 4))):
        logits = outputs[:, steps].mean(1)
        found = network.decision_function(X, response=response)
        assert_allclose(found, logits[:, 1] - logits[:, 0], rtol=1e-4, atol=1e-5)
    own = np.stack([np.zeros(N, int), LENGTHS], axis=1)
    found = network.decision_function(X, lengths=LENGTHS, response=own)
    assert found.shape == (N,)


def test_axes_of_targets_are_those_of_answers():
    for y, shape in ((Y, (2, T, 2)), (Y[..., 0], (2, T)), (Y[:, -1, 0], (2,))):
        network = brief().fit(X, y)
        assert network.predict(X[:2]).shape == shape
        assert np.isfinite(network.score(X, y))
    last = brief().fit(X, Y[:, -1, 0], lengths=LENGTHS)
    every = last._courses(X, LENGTHS, last._fitted_model())[:, :, 0]
    assert_array_equal(last.predict(X, lengths=LENGTHS), every[np.arange(N), LENGTHS - 1])


def test_one_channel_may_be_two_dimensional():
    one, two = fitted(X=X[:, :, 0]), fitted(X=X[:, :, :1])
    assert one.loss_curve_ == two.loss_curve_
    assert one.n_channels_ == two.n_channels_ == 1


def test_shares_of_cells_have_inputs_and_outputs():
    shares = {"n_excitatory": 20, "input_share": 0.4, "output_share": 0.4}
    network = fitted(parameters=shares)
    get, read = network.input_cells_, network.output_cells_
    assert abs(get[:20].sum() - 8) <= 2
    assert abs(read.sum() - 8) <= 2
    assert not (get[:20] & read).any()
    assert not get[20:].any()
    assert not network.input_weights_[~get].any()
    assert not network.readout_weights_[:, ~read].any()
    assert network.input_weights_[get].any(axis=1).all()
    assert fitted().input_cells_.all()
    assert fitted().output_cells_.all()


def test_input_weights_do_not_fall_below_0():
    network = fitted(parameters={"learning_rate_init": 1.0})
    assert (network.input_weights_ >= 0).all()
    assert (network.input_weights_ == 0).any()


def test_growth_leaves_all_outputs_as_they_were():
    task, rng = SequenceRegression(T), np.random.RandomState(1)
    network = fitted(parameters={"n_excitatory": 10, "input_share": 0.4, "output_share": 0.6})
    inputs = torch.from_numpy(X.astype(np.float32))
    trials = Trials(1, T * 10.0, 10.0, 1.0, covariance=False, rates=False, drive_step=10.0)

    def outputs(model):
        quiet = replace(model.circuit, noise_factor=0 * model.circuit.noise_factor).to_torch()
        arrays = {name: torch.from_numpy(value) for name, value in model.arrays.items()}
        drive = task.drive(quiet, arrays, inputs)
        u = simulate_trials([quiet], [drive], trials, [0], "u")[0].u
        return task.outputs(means(u, T), arrays)

    old = network._fitted_model()
    parents = choose_parents(old.circuit, 20, 6, "random", rng)
    circuit, origin = split(old.circuit, parents, shares="random", random_state=rng)
    shares = partial(shares_of, how="random", random_state=rng)
    new = Model(circuit, task.grow(old.arrays, old.circuit, circuit, origin, shares))
    assert_allclose(outputs(new), outputs(old), rtol=1e-4, atol=1e-5)
    assert new.arrays["output_cells"].mean() == pytest.approx(0.6, abs=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_parents_by_gradients_and_by_outputs(kind):
    """They differ from each other, and from the last cells."""
    curves = [fitted(kind, parameters={"parents": p}).loss_curve_ for p in PARENTS]
    assert len(set(map(tuple, curves))) == 3


def test_several_time_steps_one_after_the_other():
    network = fitted(parameters={"dt": (10.0, 5.0, 2.5), "tau_i": 20.0})
    assert network._of_prediction()["dt"] == 2.5
    assert len(network.loss_curve_) + network.n_rejected_steps_ == network.n_iter_ == 3 * 3 + 8
    stages = [(g["n_excitatory"], g["n_iter"]) for g in network.growth_history_]
    assert stages == [(1, 3), (2, 6), (4, 9), (6, 11), (6, 13), (6, 17)]


def test_a_given_circuit_is_where_training_begins():
    pair, *_ = circuits.bistable_pair()
    constants = {name: getattr(pair, name) for name in ("k", "tau_i")}
    how = {"initial": pair, "dt": 2.5, "learning_rate_init": 1e-6, "growth_iter": 0, "max_iter": 1}
    network = fitted(parameters=how | constants | {"clone_shares": "equal"})
    made = network.circuit_
    assert (made.n_excitatory, made.n_inhibitory) == (6, 2)
    total = [[made.weights[made[a], made[b]].sum(1).mean() for b in "EI"] for a in "EI"]
    assert_allclose(total, pair.weights, rtol=1e-4)
    for wrong, message in (
        ({}, "initial has k=0.04"),
        ({"initial": circuits.size_contrast()[0]}, "must be a circuit of E and I cells"),
        ({"n_excitatory": 2, "growth": None} | constants, "cannot grow with growth=None"),
        ({"initial": "pair"}, "'initial' parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            brief(**{"initial": pair, "dt": 2.5} | wrong).fit(X, Y)


def test_fits_go_on_and_grow():
    network = fitted(parameters={"warm_start": True})
    before = network.n_iter_
    network.set_params(n_excitatory=8).fit(X, Y)
    assert network.circuit_.n_excitatory == 8
    assert network.n_iter_ > before
    with pytest.raises(ValueError, match="below that"):
        network.set_params(n_excitatory=4).fit(X, Y)
    with pytest.raises(ValueError, match="another value of tau_e"):
        network.set_params(n_excitatory=8, tau_e=30.0).fit(X, Y)


@pytest.mark.parametrize("kind", KINDS)
def test_many_at_once_are_as_one_after_the_other(kind):
    alone = [fitted(kind, parameters={"random_state": seed}, lengths=LENGTHS) for seed in (0, 1)]
    networks = [brief(kind, random_state=seed) for seed in (0, 1)]
    fit_many(networks, X, KINDS[kind][1], lengths=LENGTHS)
    for one, other in zip(alone, networks, strict=True):
        assert_allclose(other.loss_curve_, one.loss_curve_, rtol=1e-4)
        assert_allclose(other.circuit_.weights, one.circuit_.weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_validation_keeps_the_best(kind):
    network = fitted(kind, parameters={"early_stopping": True, "max_iter": 110}, lengths=LENGTHS)
    assert network.best_validation_score_ == max(network.validation_scores_)
    assert len(network.validation_scores_) == 3


def test_truncated_and_regularised():
    plain = fitted()
    for parameters in ({"truncation": 20.0}, {"rate_penalty": 0.1}, {"weight_penalty": 1.0}):
        other = fitted(parameters=parameters)
        assert np.isfinite(other.loss_)
        assert not np.array_equal(other.circuit_.weights, plain.circuit_.weights)
    heavy = fitted(parameters={"weight_penalty": 100.0, "max_iter": 40})
    assert np.abs(heavy.circuit_.weights).sum() < np.abs(plain.circuit_.weights).sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", [{}, {"skip_from": "tangent", "dt": (5.0, 2.5)}])
def test_skips(kind, told):
    told = {"skip": 40.0, "skip_share": (0.5, 0.0), "max_iter": 20} | told
    network, plain = fitted(kind, parameters=told), fitted(kind, parameters={"max_iter": 20})
    assert np.isfinite(network.loss_)
    assert network.growth_history_[-1]["n_iter"] == plain.growth_history_[-1]["n_iter"]
    assert len(network.growth_history_) == len(plain.growth_history_) + 1
    assert not np.array_equal(network.circuit_.weights, plain.circuit_.weights)
    no_skip = fitted(kind, parameters={"skip": 40.0, "skip_share": 0.0, "max_iter": 20})
    assert_array_equal(no_skip.circuit_.weights, plain.circuit_.weights)


def test_skips_of_many_at_once():
    told = {"skip": 20.0, "skip_share": (0.5, 0.0)}
    alone = [fitted(parameters=told | {"random_state": seed}) for seed in (0, 1)]
    networks = [brief(random_state=seed, **told) for seed in (0, 1)]
    fit_many(networks, X, Y)
    for one, other in zip(alone, networks, strict=True):
        assert_allclose(other.loss_curve_, one.loss_curve_, rtol=1e-4)


def test_a_lag_is_learned():
    X = RNG.uniform(size=(200, 8))
    y = np.column_stack([np.full(200, 0.5), X[:, :-1]])
    mask = np.ones((200, 8))
    mask[:, 0] = 0
    how = {"n_excitatory": 8, "time_step": 20.0, "max_iter": 200, "input_noise": 0.0}
    network = brief(**how).fit(X, y, mask=mask)
    assert network.score(X, y, mask=mask) > 0.5
    assert network.score(X, y, mask=mask) > 5 * network.score(X, X)
    assert network.stability_ == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_temporal_xor_is_learned(seed):
    """Which no linear readout of a linear memory can do.

    A loss that jumps about says to take shorter steps of training: with 16 E cells and a rate of
    .02 two or three networks of five stay at chance.
    """
    times = {"pulse": 40.0, "delay": 20.0, "wait": 20.0}
    X, y = make_temporal_xor(400, random_state=0, **times)
    how = {"dt": 5.0, "max_iter": 1500, "input_noise": 0.05, "learning_rate_init": 0.005}
    network = SSNSequenceClassifier(random_state=seed, **how).fit(X, y)
    assert network.score(*make_temporal_xor(200, random_state=1, **times)) > 0.9


BAD = {
    "ragged": ({"X": [[1.0, 2.0], [1.0]] * 20}, "sequences of 1 to 2 time steps. Pad them"),
    "NaN": ({"X": np.where(X > 0.99, np.nan, X)}, "NaN"),
    "four axes": ({"X": X[..., None]}, "must have shape"),
    "lengths": ({"lengths": np.zeros(N, int)}, "lengths must be 40 integers of 1 to 6"),
    "lengths of floats": ({"lengths": np.ones(N)}, "lengths must be 40 integers"),
    "few lengths": ({"lengths": [1, 2]}, "lengths must be 40 integers"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(kind, case):
    told, message = BAD[case]
    arguments = {"X": X, "y": KINDS[kind][1]} | told
    with pytest.raises(ValueError, match=message):
        brief(kind).fit(**arguments)
    network = brief(kind)
    assert not hasattr(network, "n_features_in_")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"mask": np.ones((N, T - 1))}, "mask must have shape"),
        ({"mask": np.ones((N, T, 3))}, "mask must have shape"),
        ({"mask": np.zeros((N, T))}, "not all 0"),
        ({"mask": -np.ones((N, T))}, "not negative"),
        ({"mask": np.full((N, T), np.nan)}, "NaN"),
        ({"y": Y[:, :-1]}, "as X has 6 time steps"),
        ({"y": Y[:-1]}, "inconsistent numbers of samples"),
        ({"y": Y[..., None]}, "y must have shape"),
        ({"y": np.where(Y > 0.9, np.inf, Y)}, "infinity"),
    ],
)
def test_bad_targets_are_refused(told, message):
    with pytest.raises(ValueError, match=message):
        brief().fit(**({"X": X, "y": Y} | told))


@pytest.mark.parametrize("response", [(2, 2), (0, 7), (-1, 3), (0.0, 2.0), np.zeros((3, 2), int)])
def test_bad_responses_are_refused(response):
    with pytest.raises(ValueError, match="response must hold the first time step"):
        brief("classifier").fit(X, LABELS, response=response)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dt": 3.0}, "time_step must be a multiple of dt=3 ms"),
        ({"dt": (5.0, 0.0)}, "dt must be one or more positive"),
        ({"dt": []}, "dt must be one or more positive"),
        ({"burn_in": 7.0}, "burn_in must be a multiple of dt"),
        ({"input_share": 0.0}, "'input_share' parameter"),
        ({"dt": 10.0}, "dt must be shorter than the time constants"),
        ({"truncation": 0.0}, "'truncation' parameter"),
        ({"skip": 0.0}, "'skip' parameter"),
        ({"skip": 40.0, "truncation": 40.0}, "exclude each other"),
        ({"skip": 40.0, "skip_share": (0.5, 0.2)}, "the last of them 0"),
        ({"skip": 40.0, "skip_share": (1.0, 0.0)}, "less than 1"),
        ({"skip": 40.0, "skip_share": []}, "skip_share must be"),
        ({"skip": 40.0, "skip_share": (np.nan, 0.0)}, "skip_share must be"),
        ({"skip": 40.0, "dt": (5.0, 2.5)}, "as many, or one, got 2 and 4"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        brief(**parameters).fit(X, Y)


@pytest.mark.parametrize("kind", KINDS)
def test_other_axes_are_refused_in_prediction(kind):
    network = fitted(kind)
    for wrong, message in (
        (X[:, :-1], "5 time steps of 3 channels, but .* was fitted to 6 of 3"),
        (X[:, :, :2], "6 time steps of 2 channels"),
        (X[:, :, 0], "X has 1 channels"),
        (X[:, :4, 0], "4 features"),
    ):
        with pytest.raises(ValueError, match=message):
            network.predict(wrong)


def test_stability_is_that_of_sequences_shown_again():
    network = fitted("classifier")
    assert stability_score(network, X, duration=300.0) == 1.0
    report = stability_report(network, X, n_surrogates=2, n_trials=5, duration=200.0)
    assert report.trained == 0
    assert report.operating.oscillation_amplitude.shape == (5,)
    twice = network.simulate(X[:2], duration=120.0, record="u")
    again = network.simulate(X[:2], record="u")
    assert_array_equal(twice.u[:11], again.u[:11])  # Heun looks at the drive after the last step
    assert len(twice.times) == 24
    assert len(network.simulate(X[:2], duration=25.0, record="u").times) == 5


def test_repairs_heed_stability_where_training_does_not(monkeypatch):
    """Trials may end before they run away: no cost of training shows it."""
    seen, usual = [], Penalties.of_dynamics

    def of_dynamics(self, circuit, mean, caution):
        seen.append(caution * self.stability)
        return usual(self, circuit, mean, caution)

    def confirm(self, model, final):
        """Fails until there was a repair."""
        yield from ()
        return Confirmation(0.0 if final and not seen else 1.0)

    monkeypatch.setattr(Penalties, "of_dynamics", of_dynamics)
    monkeypatch.setattr(TrialGuard, "confirm", confirm)
    monkeypatch.setattr(loop, "REPAIRS", 1)
    network = SSNSequenceRegressor(**BRIEF).fit(X, Y)
    assert len(seen) == loop.REPAIR_STEPS
    assert set(seen) == {MOST_CAUTION * loop.REPAIR_PENALTY}
    assert network.stability_ == 1
