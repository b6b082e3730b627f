"""Dynamics and quality of sampling, against processes whose answers are known."""

import copy

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from ssn_estimators import (
    Circuit,
    SSNSampler,
    energy_distance,
    sampling_report,
    sliced_wasserstein,
    stimulus_switch,
)
from ssn_estimators.inspection.switching import StimulusSwitch
from ssn_estimators.plotting import PosteriorDisplay, StimulusSwitchDisplay

RNG = np.random.RandomState


class Known:
    """A Gaussian posterior that cells without synapses sample exactly."""

    def posterior_moments(self, X):
        return X - 5, np.repeat(np.diag([0.5, 0.5])[None], len(X), 0)

    def posterior_sample(self, X, n_samples, random_state):
        noise = random_state.normal(scale=np.sqrt(0.5), size=(len(X), n_samples, X.shape[1]))
        return (X - 5)[:, None] + noise

    def inverse_transform(self, latents):
        return latents + 5


@pytest.fixture(scope="module")
def sampler():
    """Cells of 20 ms under noise of 20 ms and 1 mV: their variance is 1/2 mV**2."""
    sampler = SSNSampler(Known(), burn_in=200.0)
    sampler.circuit_ = Circuit(np.zeros((4, 4)), 2, 1.0, theta=(1.0, 0.0, 1.0))
    sampler.generative_model_, sampler.encoder_ = sampler.generative_model, None
    sampler.input_scale_, sampler.potential_shift_, sampler.noise_seed_ = 1.0, 5.0, 0
    sampler.n_features_in_, sampler._fitted_pool = 2, None
    sampler.pool_weights_ = sampler.pool_components_ = None
    return sampler


def test_report_of_a_process_whose_autocorrelation_is_known(sampler):
    pytest.importorskip("arviz_stats")
    X = np.array([[4.0, 6.0], [5.0, 5.0]])
    report = sampling_report(sampler, X, n_trials=8, duration=8000.0, interval=4.0)
    # autocorrelation (1 + t / 20) e^(-t / 20): its integral over both sides is 80 ms
    assert np.median(report.autocorrelation_time) == pytest.approx(80, rel=0.25)
    np.testing.assert_allclose(report.effective_rate, 1000 / report.autocorrelation_time)
    total = 8 * 8000.0
    np.testing.assert_allclose(report.effective_samples, total / report.autocorrelation_time)
    assert report.r_hat.shape == (2, 2)
    assert report.r_hat.max() < 1.02
    # a right sampler is as far from the posterior as exact samples are from each other
    for name in ("distance", "sliced"):
        found, exact, gaussian = (
            getattr(report, name + which) for which in ("", "_exact", "_gaussian")
        )
        assert (found < 2 * exact + 0.01).all()
        assert (gaussian < 2 * exact + 0.01).all()  # the posterior is one
    assert "Gaussian of the exact moments" in str(report)
    assert "effective samples per second" in str(report)


class Other(BaseEstimator):
    """A network that does not sample."""

    def simulate(self, X):
        raise NotImplementedError

    def fit(self, X, y):
        raise NotImplementedError

    def __sklearn_is_fitted__(self):
        return True


def test_chains_that_do_not_mix_are_found(sampler):
    pytest.importorskip("arviz_stats")
    levels = iter(range(0, 12, 3))

    def sample(X, n, interval, random_state):
        return next(levels) + random_state.normal(size=(len(X), n, 2))

    stuck = copy.copy(sampler)
    stuck.sample, stuck.generative_model_ = sample, None
    report = sampling_report(stuck, np.zeros((1, 2)), n_trials=4, duration=500.0)
    assert report.r_hat.min() > 1.5
    assert report.distance is None
    with pytest.raises(ValueError, match="n_trials must be an integer"):
        sampling_report(sampler, np.zeros((1, 2)), n_trials=2.5)
    with pytest.raises(TypeError, match="an SSNSampler is needed, got Other"):
        sampling_report(Other(), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="at least 2 trials of 4 samples"):
        sampling_report(sampler, np.zeros((1, 2)), n_trials=1)


def test_the_cost_of_a_right_sampler_is_zero(sampler):
    X = np.full((400, 2), 5.0)
    cost = sampler.normalized_cost(X)
    # some 200 effective samples an input leave an error of 1% in each, and of 1/20 of it in the
    # mean over inputs, whose noise is independent
    assert abs(cost.variance) < 0.003
    assert abs(cost.covariance) < 0.003
    assert abs(cost.mean) < 0.001


def test_energy_distance():
    x, y = RNG(0).normal(size=(2, 500, 3))
    assert energy_distance(x, x) == 0
    for distance in (energy_distance, sliced_wasserstein):
        with pytest.raises(ValueError, match="of one dimension, got 3 and 2"):
            distance(x, y[:, :2])
    near, far = energy_distance(x, y), energy_distance(x, y + 1)
    assert near < 0.15 < far
    # of two points at distance d it is sqrt(2 d)
    assert energy_distance([[0.0]], [[2.0]]) == pytest.approx(2)


def test_sliced_wasserstein_distance():
    x, y = RNG(0).normal(size=(2, 1000, 3))
    assert sliced_wasserstein(x, x) == 0
    # of what is shifted, the mean length of the shift along a direction: a half of it in 3-D
    shift = np.array([0.0, 3.0, 4.0])
    assert sliced_wasserstein(x, x + shift, 1000) == pytest.approx(2.5, rel=0.04)
    assert sliced_wasserstein(x, y + shift, 1000) == pytest.approx(2.5, rel=0.06)
    assert sliced_wasserstein(x, y[:500]) < 0.15
    with pytest.raises(ValueError, match="n_projections"):
        sliced_wasserstein(x, y, 0)


def test_switch_follows_the_membrane(sampler):
    old, new = np.array([[4.0, 6.0], [5.0, 8.0]]), np.array([[6.0, 5.0], [5.0, 4.0]])
    switch = stimulus_switch(sampler, old, new, n_trials=2000, before=100.0, after=200.0)
    assert switch.times[0] == pytest.approx(-99)
    assert switch.times[-1] == pytest.approx(200)
    np.testing.assert_allclose(switch.mean[switch.times <= 0].mean(0), old - 5, atol=0.03)
    np.testing.assert_allclose(switch.variance.mean(0), 0.5, rtol=0.05)
    # an exponential of 20 ms has come 1 - e^(-t/20) of the way
    expected = np.where(switch.times > 0, 1 - np.exp(-switch.times / 20), 0)
    assert abs(switch.progress().T - expected).max() < 0.06
    assert abs(switch.time_to(0.9) - 20 * np.log(10)).max() < 8
    np.testing.assert_array_equal(switch.new_mean, new - 5)
    np.testing.assert_array_equal(switch.old_variance, 0.5)
    np.testing.assert_allclose(switch.percepts, switch.mean + 5)
    with pytest.raises(ValueError, match="pairs are needed"):
        stimulus_switch(sampler, old, new[:1])
    for times in ({"before": 0}, {"after": 2.0}, {"after": -1.0}):
        with pytest.raises(ValueError, match="must be at least"):
            stimulus_switch(sampler, old, new, **times)
    with pytest.raises(ValueError, match="before must be a multiple of dt"):
        stimulus_switch(sampler, old, new, before=199.5, after=300.5)
    with pytest.raises(TypeError, match="an SSNSampler is needed, got Other"):
        stimulus_switch(Other(), old, new)
    with pytest.raises(ValueError, match="share must be between 0 and 1"):
        switch.time_to(1.5)
    with pytest.raises(ValueError, match="'mean' or 'variance'"):
        switch.progress("median")


def test_what_does_not_change_takes_no_time(sampler):
    stimuli = np.array([[4.0, 6.0]])
    pipeline = make_pipeline(FunctionTransformer(), sampler)
    switch = stimulus_switch(pipeline, stimuli, stimuli, before=100.0)
    for moment in ("mean", "variance"):
        assert np.isnan(switch.time_to(0.9, moment)).all()


def test_display_of_a_switch(sampler):
    plt = pytest.importorskip("matplotlib.pyplot")
    old, new = np.array([[4.0, 6.0]]), np.array([[6.0, 5.0]])
    display = StimulusSwitchDisplay.from_estimator(
        sampler, old, new, image_shape=(1, 2), n_trials=20, before=20.0, after=60.0
    )
    assert isinstance(display.switch, StimulusSwitch)
    assert len(display.axes_) == 3
    assert display.axes_.shape[1] == len(display.times_)
    plt.close(display.figure_)


def shifted_search(sampler):
    """A search that has found a pipeline with the sampler, whose inputs are one less."""
    pipeline = make_pipeline(FunctionTransformer(lambda X: X + 1), sampler)
    search = GridSearchCV(pipeline, {})
    search.best_estimator_ = pipeline
    return search


def test_samplers_in_searches(sampler):
    plt = pytest.importorskip("matplotlib.pyplot")
    search, old, new = shifted_search(sampler), np.array([[4.0, 6.0]]), np.array([[6.0, 5.0]])
    short = {"n_trials": 5, "before": 20.0, "after": 30.0}
    for of in (
        lambda e, *X: stimulus_switch(e, *X, **short).mean,
        lambda e, *X: StimulusSwitchDisplay.from_estimator(e, *X, **short).switch.mean,
        lambda e, X, _: PosteriorDisplay.from_estimator(e, X).mean,
    ):
        np.testing.assert_array_equal(of(search, old - 1, new - 1), of(sampler, old, new))
    plt.close("all")
    pytest.importorskip("arviz_stats")
    reports = [
        sampling_report(e, X, n_trials=2, duration=200.0)
        for e, X in ((search, old - 1), (sampler, old))
    ]
    np.testing.assert_array_equal(*[report.effective_samples for report in reports])


def test_display_of_a_posterior(sampler):
    plt = pytest.importorskip("matplotlib.pyplot")
    X = np.array([[4.0, 6.0], [5.0, 7.0]])
    _, axes = plt.subplots(1, 2)
    display = PosteriorDisplay.from_estimator(sampler, X, index=1, latents=(1, 0), ax=axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is axes[1].figure
    assert not axes[0].has_data()
    assert (axes[1].get_xlabel(), axes[1].get_ylabel()) == ("latent 1 (mV)", "latent 0 (mV)")
    # the posterior has means of 0 and 2 and variances of 1/2
    for k, ellipse in enumerate(display.ellipses_["posterior"], 1):
        distance = np.hypot(ellipse.get_xdata() - 2.0, ellipse.get_ydata())
        np.testing.assert_allclose(distance, k * np.sqrt(0.5))
    mean, covariance = sampler.predict(X[1:], return_cov=True)
    np.testing.assert_array_equal(display.mean, mean[0])
    for k, ellipse in enumerate(display.ellipses_["network"], 1):
        away = ellipse.get_xydata() - mean[0][::-1]
        whitened = np.linalg.solve(covariance[0][::-1, ::-1], away.T).T
        np.testing.assert_allclose((away * whitened).sum(1), k**2, rtol=1e-5)
    samples = sampler.sample(X[1:], 200, random_state=0)[0]
    np.testing.assert_array_equal(display.dots_.get_xydata(), samples[:, ::-1])
    again = PosteriorDisplay.from_estimator(sampler, X, n_samples=0, target=(X, [np.eye(2)] * 2))
    assert again.dots_ is None
    np.testing.assert_array_equal(again.target_mean, X[0])
    again.figure_.canvas.draw()
    plt.close("all")


def test_posteriors_that_cannot_be_drawn(sampler):
    pytest.importorskip("matplotlib")
    X = np.array([[4.0, 6.0]])
    with pytest.raises(ValueError, match="index must be that of one of 1 inputs"):
        PosteriorDisplay.from_estimator(sampler, X, index=1)
    for latents in ((0, 2), (0, 0), (0, 0.5), (-1, 0)):
        with pytest.raises(ValueError, match="latents must be two of 2"):
            PosteriorDisplay.from_estimator(sampler, X, latents=latents)
    without = copy.copy(sampler)
    without.generative_model_ = None
    with pytest.raises(ValueError, match="give its target moments"):
        PosteriorDisplay.from_estimator(without, X)
    with pytest.raises(TypeError, match="got LogisticRegression"):
        PosteriorDisplay.from_estimator(LogisticRegression(), X)
