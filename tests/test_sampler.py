"""SSNSampler: posterior moments from a circuit, with a model or with given targets."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline

from ssn_estimators import (
    Circuit,
    ContrastNormalizer,
    DivergenceError,
    GaussianScaleMixture,
    SSNSampler,
    load,
    save,
    split,
    stability_score,
    stationary_moments,
)
from ssn_estimators.datasets import make_ring_gsm
from ssn_estimators.training.posterior import Inference, Pool, check_moments, moment_errors

SHORT = {"max_iter": 3, "growth_iter": 1, "finetune_iter": 2, "random_state": 0}


@pytest.fixture(scope="module")
def images():
    return ContrastNormalizer().fit_transform(load_digits(return_X_y=True)[0])


@pytest.fixture(scope="module")
def model(images):
    return GaussianScaleMixture(4, random_state=0).fit(images)


@pytest.fixture(scope="module")
def fitted(images, model):
    sampler = SSNSampler(model, max_iter=150, growth_iter=5, finetune_iter=20, random_state=0)
    return sampler.fit(images)


def test_training_brings_the_moments_closer(fitted, images, model):
    untrained = SSNSampler(model, **SHORT).fit(images)
    assert fitted.score(images[:50]) > untrained.score(images[:50])
    mean = model.transform(images)
    # to answer with no variance has an error of 1
    cost = fitted.normalized_cost(images[:50])
    assert cost.variance < 1
    assert cost.total == pytest.approx(cost.mean + 2 * cost.variance + cost.covariance)
    assert fitted.stability_ == 1
    assert fitted.circuit_.n_excitatory == fitted.circuit_.n_inhibitory == 4
    assert_allclose(fitted.potential_shift_, max(0, -mean.min()))


def test_predictions_are_moments_of_the_samples(fitted, images):
    X = images[:3]
    mean, covariance = fitted.predict(X, return_cov=True)
    same, std = fitted.predict(X, return_std=True)
    assert_array_equal(mean, same)
    assert_allclose(std**2, np.einsum("nii->ni", covariance))
    assert_array_equal(fitted.transform(X), mean)
    samples = fitted.sample(X, 2000, interval=50.0, random_state=0)
    assert samples.shape == (3, 2000, 4)
    error = std / np.sqrt(1000)
    assert (abs(samples.mean(1) - mean) < 6 * error).all()
    assert_allclose(samples.std(1), std, rtol=0.2)
    with pytest.raises(ValueError, match="Only one of return_std and return_cov"):
        fitted.predict(X, True, True)


def test_equations_agree_with_simulation(fitted, images):
    """The Gaussian closure, and simulations long enough for their errors not to matter."""
    X = images[:20]
    long = copy.copy(fitted).set_params(
        closure="gaussian", n_trials_predict=200, window_predict=2000.0
    )
    simulated, std = long.predict(X, return_std=True)
    solved, solved_std = long.predict(X, return_std=True, method="moments")
    assert abs(simulated - solved).max() < 0.1 * std.max()
    assert_allclose(solved_std, std, rtol=0.1)


@pytest.mark.slow
def test_the_sampler_is_better_than_one_answer_to_all_images(images, model):
    """That of the mean moments of the training images, whose errors are those of `Inference`."""
    train, test = images[:1500], images[1500:1600]
    sampler = SSNSampler(model, max_iter=400, growth_iter=5, finetune_iter=50, random_state=0)
    cost = sampler.fit(train).normalized_cost(test)
    mean, covariance = map(torch.from_numpy, model.posterior_moments(test))
    usual_mean, usual_covariance = (
        torch.from_numpy(x).mean(0).expand(len(test), *x.shape[1:])
        for x in model.posterior_moments(train)
    )
    shift = sampler.potential_shift_
    usual = moment_errors([usual_mean + shift], [usual_covariance], mean + shift, covariance)
    assert cost.mean < 0.2 * float(usual[0])
    assert cost.total < 0.2 * float(usual @ torch.tensor([1.0, 2.0, 1.0]).to(usual))


def test_pairs_share_their_input(fitted, images):
    drive = fitted.drive(images[:5])
    assert drive.shape == (5, 8)
    assert_array_equal(drive[:, :4], drive[:, 4:])


@pytest.mark.parametrize("parents", ["last", "random"])
def test_pairs_grow_together(images, model, parents):
    sampler = SSNSampler(GaussianScaleMixture(5, max_iter=3), growth="single", parents=parents)
    with pytest.warns(match="max_iter=3"):
        sampler.set_params(**SHORT).fit(images[:200])
    sizes = [(g["n_excitatory"], g["n_inhibitory"]) for g in sampler.growth_history_]
    assert sizes == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (5, 5)]


def test_a_fitted_model_is_taken_as_it_is_and_another_is_fitted(images, model):
    assert SSNSampler(model, **SHORT).fit(images[:100]).generative_model_ is model
    unfitted = GaussianScaleMixture(2)
    sampler = SSNSampler(unfitted, **SHORT).fit(images[:100])
    assert not hasattr(unfitted, "components_")
    assert sampler.generative_model_.components_.shape == (2, 64)
    assert sampler.predict(images[:3]).shape == (3, 2)


def test_targets_in_place_of_a_model():
    ring = make_ring_gsm()
    X = ring.h[:, :50]
    sampler = SSNSampler(weight_structure="circulant", **SHORT)
    sampler.fit(X, mean=ring.mu, covariance=ring.sigma)
    assert sampler.potential_shift_ == 0
    assert sampler.generative_model_ is None
    assert sampler.predict(X).shape == (5, 50)
    cost = sampler.normalized_cost(X, ring.mu, ring.sigma, cost_weights=(1, 0, 0))
    assert cost.total == cost.mean
    cost = sampler.normalized_cost(X, ring.mu, ring.sigma, cost_weights="published")
    assert cost.total == pytest.approx(0.01 * cost.mean + 2 * cost.variance + cost.covariance)
    with pytest.raises(AttributeError, match="fit was given targets instead"):
        sampler.score(X)
    with pytest.raises(AttributeError, match="inverse_transform"):
        sampler.reconstruct(X)


class Beta:
    """Any object with `posterior_moments` serves as a model."""

    def posterior_moments(self, X):
        return X - 1, np.repeat(np.eye(X.shape[1])[None], len(X), 0)


def test_a_model_of_the_users_own(images):
    X = images[:60, 20:23]
    sampler = SSNSampler(Beta(), **SHORT).fit(X)
    assert sampler.encoder_ is None
    assert sampler.predict(X).shape == (60, 3)
    assert np.isfinite(sampler.score(X))
    with pytest.raises(AttributeError, match="inverse_transform"):
        sampler.reconstruct(X)


def test_the_closure_alone_draws_no_random_numbers_in_its_steps(images, model):
    sampler = SSNSampler(model, **SHORT | {"finetune_iter": 0, "batch_size": 100, "growth": None})
    one = sampler.fit(images[:100]).loss_curve_
    assert one == sampler.fit(images[:100]).loss_curve_
    assert len(one) == 3


def test_simulation_all_the_way(images, model):
    sampler = SSNSampler(model, moments="simulation", **SHORT).fit(images[:100])
    assert sampler.n_iter_ == 2 * 1 + 3
    sampler = SSNSampler(model, moments="closure", **SHORT).fit(images[:100])
    assert sampler.n_iter_ == 2 * 1 + 3 + 2


def test_what_is_printed_counts_the_steps_of_all_phases(images, model, capsys):
    SSNSampler(model, verbose=True, **SHORT).fit(images[:100])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("step")[1].split()[0] for line in lines] == ["1", "2", "5", "7"]


@pytest.mark.parametrize("task", ["2 E + 2 I", "4 E + 4 I"])
def test_an_interrupt_ends_training_and_leaves_a_whole_network(images, model, task, recorder):
    def interrupt(hook, context):
        if hook == "end" and context.task_name == task:
            raise KeyboardInterrupt

    sampler = SSNSampler(model, **SHORT).set_callbacks(recorder(interrupt))
    with pytest.warns(ConvergenceWarning, match="interrupted by the user"):
        sampler.fit(images[:100])
    assert sampler.n_iter_ == {"2 E + 2 I": 2, "4 E + 4 I": 5}[task]  # nothing came after it
    assert sampler.predict(images[:2]).shape == (2, 4)
    assert sampler.stability_ == 1


def test_target_means_of_zero():
    covariance = np.repeat(np.eye(2)[None], 20, 0)
    X = np.random.RandomState(0).uniform(size=(20, 2))
    sampler = SSNSampler(**SHORT).fit(X, mean=np.zeros((20, 2)), covariance=covariance)
    assert np.isfinite(sampler.loss_curve_).all()
    assert sampler.n_rejected_steps_ == 0


def test_errors_may_stay_unnormalised(images, model):
    sampler = SSNSampler(model, averaging="unnormalized", **SHORT).fit(images[:100])
    assert sampler.normalized_cost(images[:4]) == sampler.normalized_cost(
        images[:4], averaging="per_input"
    )


def test_early_stopping_and_warm_start(images, model):
    sampler = SSNSampler(model, **SHORT, early_stopping=True, warm_start=True).fit(images[:200])
    assert len(sampler.validation_scores_) == 2  # one look at the end of each phase
    assert sampler.best_validation_score_ == sampler.validation_scores_[-1]
    n_iter = sampler.n_iter_
    sampler.fit(images[:200])
    assert sampler.n_iter_ == n_iter + 3 + 2
    with pytest.raises(ValueError, match="cannot go on with another value of gamma"):
        sampler.set_params(gamma=2.5).fit(images[:200])


def test_percept_and_pipeline(fitted, images, model):
    X = images[:10]
    mean, std = fitted.predict(X, return_std=True)
    expected = model.inverse_transform(mean, z=model.z_from_variance(std**2))
    assert_array_equal(fitted.reconstruct(X), expected)
    pipeline = make_pipeline(ContrastNormalizer(), SSNSampler(model, **SHORT)).fit(images[:100])
    assert np.isfinite(pipeline.score(images[:20]))
    assert stability_score(pipeline, images[:20], duration=500.0) == 1


def test_a_diverging_network_says_so(fitted, images):
    sampler = copy.copy(fitted)
    weights = np.abs(fitted.circuit_.weights) * np.where(fitted.circuit_.signs > 0, 100, 0)
    sampler.circuit_ = replace(fitted.circuit_, weights=weights.astype(np.float32))
    for call in (sampler.predict, sampler.sample, sampler.score):
        with pytest.raises(DivergenceError):
            call(images[:2])
    assert sampler.simulate(images[:2]).diverged.all()


GOOD = np.ones((3, 2)), np.repeat(np.eye(2)[None], 3, 0)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (GOOD[0], None, "must be given together"),
        (GOOD[0][:2], GOOD[1], "must have shapes"),
        (GOOD[0], GOOD[1][:, :1], "must have shapes"),
        (np.full((3, 2), np.nan), GOOD[1], "mean contains NaN"),
        (GOOD[0], -GOOD[1], r"covariance\[0\] is not symmetric and positive definite"),
        (GOOD[0], GOOD[1] + [[0, 0.5], [0, 0]], r"covariance\[0\] is not symmetric"),
        (np.ones((3, 3)), np.repeat(np.eye(3)[None], 3, 0), "one for each latent is needed"),
    ],
)
def test_bad_targets_are_refused(mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        SSNSampler(**SHORT).fit(np.ones((3, 2)), mean=mean, covariance=covariance)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_trials": 6}, "multiples of 4"),
        ({"cost_weights": (1, 2)}, "three numbers"),
        ({"cost_weights": (0, 0, 0)}, "three numbers"),
        ({"cost_weights": "none"}, "cost_weights"),
        ({"window": 0.1}, "window must"),
        ({"generative_model": BaseEstimator()}, "generative_model"),
        ({"moments": "exact"}, "moments"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        SSNSampler(**parameters).fit(np.ones((3, 2)), mean=GOOD[0], covariance=GOOD[1])


def test_bad_questions_are_refused(fitted, images):
    X, (mean, covariance) = images[:3], fitted.generative_model_.posterior_moments(images[:3])
    for given in ({"mean": mean}, {"covariance": covariance}):
        with pytest.raises(ValueError, match="given together"):
            fitted.normalized_cost(X, **given)
    with pytest.raises(ValueError, match="has 4 latents, mean and covariance have 3"):
        fitted.normalized_cost(X, mean[:, :3], covariance[:, :3, :3])
    with pytest.raises(ValueError, match="'per_input' or 'pooled'"):
        fitted.normalized_cost(X, averaging="unnormalized")
    for interval in (0.4, 2.5, 0, "1"):
        with pytest.raises(ValueError, match="interval must be"):
            fitted.sample(X, 2, interval=interval)
    with pytest.raises(ValueError, match="multiples of 4"):
        copy.copy(fitted).set_params(n_trials_predict=6).predict(X)


def test_constant_images_are_refused_before_training():
    for value in (0.0, 0.1, 3.0):
        with pytest.raises(ValueError, match="All images are constant"):
            SSNSampler(GaussianScaleMixture(2), **SHORT).fit(np.full((9, 16), value))


def test_images_of_another_size_and_an_unfitted_sampler(fitted):
    with pytest.raises(ValueError, match="64 features"):
        fitted.predict(np.ones((2, 16)))
    with pytest.raises(NotFittedError):
        SSNSampler().predict(np.ones((2, 16)))


def test_a_singular_covariance_is_legal_up_to_rounding():
    covariance = np.repeat(np.ones((1, 2, 2)), 3, 0)
    assert_array_equal(check_moments(GOOD[0], covariance, 3, float)[1], covariance)


POOLED = {"input_pool": "rectified", "max_iter": 30, "growth_iter": 5, "finetune_iter": 3}


@pytest.fixture(scope="module")
def pooled(images, model):
    return SSNSampler(model, random_state=0, **POOLED).fit(images)


@pytest.mark.parametrize(("pool", "magnitudes"), [("rectified", np.abs), ("squared", np.square)])
def test_pool_reaches_inhibitory_cells(images, model, pool, magnitudes):
    sampler = SSNSampler(model, random_state=0, **(POOLED | {"input_pool": pool})).fit(images)
    assert sampler.pool_weights_.shape == (4, 4)
    assert (sampler.pool_weights_ >= 0).all()
    assert sampler.pool_weights_.any()
    X = images[:5]
    coefficients = sampler.encoder_.transform(X) / sampler.input_scale_
    own = sampler.circuit_.drive(np.hstack([coefficients, coefficients]))
    own[:, 4:] += magnitudes(coefficients @ sampler.pool_components_.T) @ sampler.pool_weights_.T
    assert_allclose(sampler.drive(X), own, rtol=1e-5)


def test_pool_has_as_much_of_each_direction(images, model, pooled):
    """However unlike they are in strength, and in the units in which data come."""
    inputs = pooled.encoder_.transform(images) / pooled.input_scale_
    components = inputs @ pooled.pool_components_.T
    assert_allclose(components.T @ components / len(images), np.eye(4), atol=0.05)
    larger = SSNSampler(model, random_state=0, **POOLED).fit(3 * images)
    assert_allclose(np.abs(larger.pool_components_), np.abs(pooled.pool_components_), rtol=1e-3)


@pytest.mark.parametrize("inputs", [np.zeros((5, 3)), np.ones((5, 3)), np.eye(3)[:2]])
def test_pool_of_few_directions_is_finite(inputs):
    """Directions that training inputs do not have are not blown up."""
    pool = Pool.of("rectified", inputs)
    pooled = pool(torch.from_numpy(inputs))
    assert pooled.isfinite().all()
    assert (pooled <= 10).all()


@pytest.mark.parametrize("signs", [[1], [1, 1], [1, -1, -1, 1, 1]])
@pytest.mark.parametrize("n", [4, 20])
def test_pool_does_not_see_rounding(signs, n):
    """Inputs that span one line exactly, and others close to it."""
    rng = np.random.RandomState(0)
    line = rng.randn(n)
    inputs = np.array(signs)[:, None] * line
    pool = Pool.of("rectified", inputs)
    assert np.linalg.norm(pool.components) == pytest.approx(1 / np.linalg.norm(line))
    near = inputs + 1e-3 * rng.randn(*inputs.shape)
    assert_allclose(pool(torch.from_numpy(near)).sum(1), 1, atol=1e-2)


@pytest.mark.parametrize("pool", ["rectified", "squared"])
def test_drive_is_finite_for_any_finite_input(images, model, pool):
    sampler = SSNSampler(model, **(POOLED | {"input_pool": pool}), random_state=0).fit(images[:50])
    signs = np.random.RandomState(0).choice([-1.0, 1.0], images[:5].shape)
    for size in (1e10, 1e21, 1e38, 1e149):
        assert np.isfinite(sampler.drive(size * signs)).all()
    assert not stability_score(sampler, 1e21 * signs, n_trials=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool_weights_": np.ones((3, 4), np.float32)},
        {"pool_weights_": np.full((4, 4), np.nan, np.float32)},
        {"pool_weights_": -np.ones((4, 4), np.float32)},
        {"pool_weights_": None},
        {"pool_components_": np.ones((4, 3), np.float32)},
        {"pool_components_": None},
        {"_fitted_pool": "cubed"},
        {"_fitted_pool": None},
    ],
)
def test_files_of_pools_that_do_not_fit_are_refused(pooled, wrong, tmp_path):
    other = copy.copy(pooled)
    vars(other).update(wrong)
    save(other, tmp_path / "wrong.ssn")
    with pytest.raises(ValueError, match="pool"):
        load(tmp_path / "wrong.ssn")


def few_inputs(n):
    rng = np.random.RandomState(0)
    X = rng.gamma(2, 0.5, (n, 1)) * rng.randn(n, 3)
    return X, {"mean": X / 2, "covariance": np.repeat(np.eye(3)[None], n, 0)}


@pytest.mark.parametrize("n_equal", [1, 5])
def test_inputs_that_are_alike_can_be_learned(n_equal):
    """Where no input replaces another, no answer is too slow."""
    X, targets = few_inputs(1)
    X, targets = np.repeat(X, n_equal, 0), {k: np.repeat(v, n_equal, 0) for k, v in targets.items()}
    how = {"max_iter": 60, "growth_iter": 5, "finetune_iter": 0, "random_state": 0}
    sampler = SSNSampler(**how).fit(X, **targets)
    assert sampler.n_rejected_steps_ == 0
    same = SSNSampler(**how, settling_penalty=0.0).fit(X, **targets)
    assert_array_equal(sampler.circuit_.weights, same.circuit_.weights)


def test_units_of_inputs_do_not_matter():
    """As long as their squares can be added up; otherwise they are refused."""
    X, targets = few_inputs(30)
    sampler = SSNSampler(**SHORT, input_pool="squared").fit(X, **targets)
    for scale in (2.0**-600, 2.0**400):
        other = SSNSampler(**SHORT, input_pool="squared").fit(scale * X, **targets)
        assert_array_equal(other.circuit_.weights, sampler.circuit_.weights)
        assert_array_equal(other.drive(scale * X), sampler.drive(X))
    with pytest.raises(ValueError, match=r"X has values of up to .*, whose squares are too large"):
        SSNSampler(**SHORT).fit(1e160 * X, **targets)
    for name in targets:
        large = targets | {name: 1e20 * targets[name]}
        with pytest.raises(ValueError, match=rf"{name} has values of up to .* other units"):
            SSNSampler(**SHORT).fit(X, **large)
    with pytest.raises(ValueError, match="least eigenvalue is -1"):
        SSNSampler(**SHORT).fit(X, mean=targets["mean"], covariance=-targets["covariance"])


def test_pool_tells_the_contrast_of_inputs_of_unlike_strength():
    rng = np.random.RandomState(0)
    contrast = rng.gamma(2, 0.5, 2000)
    rotated = np.linalg.qr(rng.randn(20, 20))[0] * np.geomspace(1, 0.03, 20)
    inputs = contrast[:, None] * (rng.randn(2000, 20) @ rotated.T)
    pooled = Pool.of("rectified", inputs)(torch.from_numpy(inputs)).sum(1)
    assert np.corrcoef(pooled, contrast)[0, 1] > 0.95  # of 20 independent numbers: .96
    assert np.corrcoef(np.abs(inputs).sum(1), contrast)[0, 1] < 0.9


def test_pool_is_neutral_at_the_start(images, model):
    """Weights from 0 on, so that nothing differs before the first step."""
    first = {"max_iter": 1, "growth": None, "finetune_iter": 0, "random_state": 0}
    alone = SSNSampler(model, **first).fit(images)
    with_pool = SSNSampler(model, **first, input_pool="rectified").fit(images)
    assert with_pool.loss_curve_ == pytest.approx(alone.loss_curve_)


def test_clones_inherit_the_pool():
    rng = np.random.RandomState(0)
    pool = Pool("rectified", rng.randn(3, 3).astype(np.float32))
    task = Inference((1, 2, 1), "per_input", pool)
    pair, pool = Circuit([[0.5, -1.0], [1.0, -0.5]], 1), {"pool": rng.rand(1, 3)}
    grown, origin = split(pair, [0, 1])
    inputs = torch.from_numpy(rng.rand(6, 3))[:, [0, 0, 2]]  # alike for the pair and its clone
    before, after = (
        task.drive(circuit.to_torch(), {"pool": torch.from_numpy(arrays["pool"])}, inputs)
        for circuit, arrays in ((pair, pool), (grown, task.grow(pool, pair, grown, origin, None)))
    )
    assert (before[:, 1] > before[:, 0]).all()
    assert_allclose(after, before[:, origin], rtol=1e-14)


def test_prediction_goes_by_the_pool_of_the_fit(pooled, images, tmp_path):
    X, drive = images[:5], pooled.drive(images[:5])
    changed = copy.copy(pooled).set_params(input_pool=None)
    assert_array_equal(changed.drive(X), drive)
    with pytest.raises(ValueError, match="another value of input_pool"):
        changed.set_params(warm_start=True).fit(images)
    save(pooled, tmp_path / "pooled.ssn")
    assert_array_equal(load(tmp_path / "pooled.ssn").drive(X), drive)


def test_older_pickles_have_no_pool(fitted, images):
    older = copy.copy(fitted)
    for name in ("input_pool", "pool_weights_", "pool_components_", "_fitted_pool"):
        delattr(older, name)
    again = pickle.loads(pickle.dumps(older))
    assert again.get_params()["input_pool"] is None
    assert_array_equal(again.drive(images[:3]), fitted.drive(images[:3]))


def test_pool_goes_on_with_a_warm_start(pooled, images):
    again = copy.copy(pooled).set_params(warm_start=True, max_iter=5).fit(images)
    assert not np.array_equal(again.pool_weights_, pooled.pool_weights_)
    assert_allclose(again.pool_weights_, pooled.pool_weights_, atol=0.1)


def test_noise_of_inhibitory_cells_does_not_grow_freely(fitted, images):
    """From noise that silences them now and then, training with the penalty leads away."""

    def variance(penalty):
        again = copy.copy(fitted).set_params(variance_penalty=penalty, warm_start=True)
        noise_factor = fitted.circuit_.noise_factor * np.repeat([[1.0], [10.0]], 4, 0)
        again.circuit_ = replace(fitted.circuit_, noise_factor=noise_factor.astype(np.float32))
        again._optimizer_state = None
        again.set_params(max_iter=30, finetune_iter=0).fit(images)
        moments = stationary_moments(again.circuit_, again.drive(images[:20]), closure="linear")
        return np.einsum("nii->ni", moments.covariance)[:, 4:].mean()

    assert variance(1.0) < 0.8 * variance(0.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_gaussian_rings_learn_from_a_pair(seed):
    """Moments of its 15 numbers, by the closure: from noise of .3 mV the cost ends above 2."""
    ring, settings = make_ring_gsm(), {"max_iter": 400, "growth_iter": 40, "finetune_iter": 0}
    sampler = SSNSampler(
        weight_structure="gaussian_ring",
        cost_weights=(1.0, 2.0, 1.0),
        settling_penalty=0.0,
        learning_rate_init=0.02,
        random_state=seed,
        **settings,
    )
    X, targets = ring.h[:, :50], {"mean": ring.mu, "covariance": ring.sigma}
    sampler.fit(X, **targets)
    assert sampler.normalized_cost(X, **targets, method="closure").total < 0.3
