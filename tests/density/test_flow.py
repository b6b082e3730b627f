"""Mixtures behind flows: densities, scores and the concave-convex procedure, against theory."""

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.datasets import make_blobs, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from ssn_estimators import GMMFlow
from ssn_estimators.density import Langevin
from ssn_estimators.density.flow import _Carried

pytest.importorskip("zuko")


@pytest.fixture(scope="module")
def moons():
    return make_moons(500, noise=0.08, random_state=0)[0]


@pytest.fixture(scope="module", params=["additive", "affine"])
def density(request, moons):
    return GMMFlow(8, flow=request.param, n_layers=4, max_iter=150, random_state=0).fit(moons)


def test_densities_are_normalised(density):
    x, y = np.meshgrid(np.linspace(-2.5, 3.5, 301), np.linspace(-2, 2.5, 301))
    values = np.exp(density.score_samples(np.column_stack([x.ravel(), y.ravel()])))
    assert_allclose(values.mean() * 6 * 4.5 * (301 / 300) ** 2, 1, atol=0.01)


def test_scores_are_gradients(density, moons):
    step, X = 1e-5, moons[:20]
    for i, unit in enumerate(np.eye(2)):
        above, below = (density.score_samples(X + sign * step * unit) for sign in (1, -1))
        slope = (above - below) / (2 * step)
        assert_allclose(density.score_function(X)[:, i], slope, rtol=1e-5, atol=1e-6)


def test_training_raises_the_likelihood_over_that_of_a_mixture(density, moons):
    other = make_moons(2000, noise=0.08, random_state=1)[0]
    mixture = GMMFlow(8, n_layers=0, max_iter=150, random_state=0).fit(moons)
    spherical = GaussianMixture(8, covariance_type="spherical", random_state=0).fit(moons)
    assert abs(mixture.score(other) - spherical.score(other)) < 0.1
    assert density.score(other) > mixture.score(other) + 0.05


def test_samples_are_of_the_density(density):
    X = density.sample(4000, random_state=0)
    # E[score] = 0, and E[x score^T] = -I
    assert_allclose(density.score_function(X).mean(0), 0, atol=0.15)
    assert_allclose(X.T @ density.score_function(X) / len(X), -np.eye(2), atol=0.15)
    assert_allclose(X, density.sample(4000, random_state=0))


def test_the_concave_convex_procedure_never_raises_the_energy(density):
    X = np.random.RandomState(0).uniform([-2, -1.5], [3, 2], size=(200, 2))
    energies = [density.energy(density.denoise(X, n_steps=n)) for n in range(61)]
    assert (np.diff(energies, axis=0) < 1e-10).all()


def test_a_step_of_it_is_a_step_along_the_score(moons):
    # without a flow: z + v s
    mixture = GMMFlow(8, n_layers=0, max_iter=20, random_state=0).fit(moons)
    variance = mixture.variance_ * mixture.scale_**2
    moved = moons + variance * mixture.score_function(moons)
    assert_allclose(mixture.denoise(moons), moved, atol=1e-10)


def test_additive_flows_preserve_volumes(moons):
    density = GMMFlow(8, max_iter=50, random_state=0).fit(moons)
    total = density.energy(moons) + density.score_samples(moons)
    assert_allclose(total, total[0], atol=1e-10)


def test_denoising_brings_samples_closer(moons):
    density = GMMFlow(16, max_iter=300, random_state=0).fit(moons)
    clean, _ = make_moons(300, random_state=1)
    noisy = clean + np.random.RandomState(0).normal(scale=0.08, size=clean.shape)

    def distance(X):
        dense, _ = make_moons(1000)
        return np.sqrt(((X[:, None] - dense) ** 2).sum(-1).min(1)).mean()

    assert distance(density.denoise(noisy)) < 0.75 * distance(noisy)


def test_modes_are_clusters():
    X, y = make_blobs(300, centers=[[-4, 0], [4, 0], [0, 6]], random_state=0)
    density = GMMFlow(3, n_layers=2, max_iter=100, random_state=0).fit(X)
    assert len(density.modes_) == 3
    assert adjusted_rand_score(y, density.predict(X)) > 0.98
    # more components than clusters
    merged = GMMFlow(6, n_layers=0, max_iter=300, random_state=0).fit(X)
    assert len(merged.modes_) <= 6
    assert set(merged.predict(X)) <= set(range(len(merged.modes_)))


def test_score_matching_finds_a_gaussian():
    rng = np.random.RandomState(0)
    X = rng.multivariate_normal([1, -2], [[2.0, 0.6], [0.6, 0.5]], size=4000)
    density = GMMFlow(
        1,
        flow="affine",
        n_layers=2,
        hidden_layer_sizes=(8,),
        objective="score_matching",
        max_iter=150,
        batch_size=128,
        learning_rate_init=0.02,
        random_state=0,
    ).fit(X)
    places = rng.multivariate_normal([1, -2], [[2.0, 0.6], [0.6, 0.5]], size=200)
    exact = -(places - [1, -2]) @ np.linalg.inv([[2.0, 0.6], [0.6, 0.5]])
    error = density.score_function(places) - exact
    assert (error**2).mean() < 0.02 * (exact**2).mean()


def turned(gradient, speed=0.0):
    """f = (Q - I) grad U has the density exp(-U), whatever the rotation Q."""

    def drift(x):
        return gradient(x) @ x.new_tensor([[-1.0, speed], [-speed, -1.0]]).T

    return drift


def wells(x):
    return torch.stack([4 * x[:, 0] * (x[:, 0] ** 2 - 1), 2 * x[:, 1]], dim=1)


def banana(x):
    off = x[:, 1] - x[:, 0] ** 2 / 2
    return torch.stack([x[:, 0] / 2 - 4 * off * x[:, 0], 4 * off], dim=1)


# Dynamics, log-density but for a constant, and how far from 0 it has to be looked at
TEXTBOOK = {
    "wells": (
        Langevin(turned(wells), 0.5 * np.eye(2)),
        lambda x: -2 * ((x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2),
        3.0,
    ),
    "turning Gaussian": (
        Langevin(turned(lambda x: x, 2.0), np.eye(2)),
        lambda x: -(x**2).sum(1) / 2,
        6.0,
    ),
    "limit cycle": (
        Langevin(turned(lambda x: 4 * ((x**2).sum(1, keepdims=True) - 1) * x, 2.0), np.eye(2)),
        lambda x: -(((x**2).sum(1) - 1) ** 2),
        3.0,
    ),
    "banana": (
        Langevin(turned(banana), 0.5 * np.eye(2)),
        lambda x: -(x[:, 0] ** 2) / 2 - 4 * (x[:, 1] - x[:, 0] ** 2 / 2) ** 2,
        7.0,
    ),
    "multiplicative noise": (
        Langevin(lambda x: -2 * x, lambda x: (1 + x[..., None] ** 2) / 2),
        lambda x: -3 * np.log(1 + x[:, 0] ** 2),
        30.0,
    ),
}


def total_variation(density, log_density, extent):
    d = density.n_features_in_
    axis = np.linspace(-extent, extent, 301 if d == 2 else 20_001)
    grid = np.stack(np.meshgrid(*[axis] * d), axis=-1).reshape(-1, d)
    cell = (axis[1] - axis[0]) ** d
    exact = np.exp(log_density(grid))
    found = np.exp(density.score_samples(grid))
    missed = 1 - found.sum() * cell
    return (np.abs(found - exact / (exact.sum() * cell)).sum() * cell + missed) / 2


def from_dynamics(name, **settings):
    """A density of places that are all over, by dynamics alone, and its total variation."""
    dynamics, log_density, extent = TEXTBOOK[name]
    d = 1 if callable(dynamics.diffusion) else 2
    places = np.random.RandomState(0).uniform(-2, 2, size=(1000, d))
    options = {"objective": "fokker_planck", "dynamics": dynamics, "random_state": 0}
    density = GMMFlow(**options, **settings).fit(places)
    return density, total_variation(density, log_density, extent)


@pytest.mark.slow
def test_a_density_in_one_dimension_from_dynamics_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        _, error = from_dynamics("multiplicative noise", max_iter=300)
    assert error < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTBOOK)
def test_densities_from_dynamics_alone(name):
    """Within .05 of those of textbooks; "wells" with the flow, too, as by default."""
    settings = {} if name == "wells" else {"n_layers": 0}
    density, error = from_dynamics(name, **settings)
    assert error < 0.05
    if name == "wells":  # as much of it in one as in the other
        left, right = (density.sample(20_000, random_state=0)[:, 0] * side > 0 for side in (-1, 1))
        assert abs(left.mean() - right.mean()) < 0.06


@pytest.mark.parametrize("spread", [0.0, 0.001, 1.0, 30.0])
def test_places_may_begin_anywhere(spread):
    """Far within the density, or far outside of it."""
    start = torch.as_tensor(spread * np.random.RandomState(0).normal(size=(500, 2)))
    relaxation = Langevin(lambda x: -x, np.eye(2))
    places = _Carried(start, relaxation, np.random.RandomState(0))
    assert_allclose(places.all().std(0), 1, atol=0.1)
    assert not places.unsettled()


def test_dynamics_without_a_density_are_told_of(moons):
    brief = {"objective": "fokker_planck", "n_layers": 0, "max_iter": 20, "random_state": 0}
    growing = Langevin(lambda x: x**3, np.eye(2))
    with pytest.warns(ConvergenceWarning, match="stationary state"):
        GMMFlow(4, dynamics=growing, **brief).fit(moons)
    lost = Langevin(lambda x: x / 0, np.eye(2))
    with pytest.raises(FloatingPointError, match="to infinity"):
        GMMFlow(4, dynamics=lost, **brief).fit(moons)
    arrays = Langevin(lambda x: -np.asarray(x), np.eye(2))
    with pytest.raises(ValueError, match="drift must give a tensor"):
        GMMFlow(4, dynamics=arrays, **brief).fit(moons)


def test_sums_of_objectives(moons):
    relaxation = Langevin(lambda x: -x, np.eye(2))
    weights = {"likelihood": 1.0, "score_matching": 0.1}
    options = {"n_layers": 2, "max_iter": 5, "random_state": 0}
    parts = [
        GMMFlow(4, objective={name: weight}, dynamics=relaxation, **options).fit(moons)
        for name, weight in weights.items()
    ]
    total = GMMFlow(4, objective=weights, dynamics=relaxation, **options).fit(moons)
    # score matching alone begins with the likelihood
    assert total.loss_curve_[0] != parts[0].loss_curve_[0] == parts[1].loss_curve_[0]
    # the residual adds what does not depend on its unit
    given = {"likelihood": 1.0, "fokker_planck": 0.5}
    losses = [
        GMMFlow(4, objective=given, dynamics=dynamics, **options).fit(moons).loss_curve_[0]
        for dynamics in (relaxation, Langevin(lambda x: -1000 * x, 1000 * np.eye(2)))
    ]
    assert_allclose(losses[0], losses[1])
    added = losses[0] - parts[0].loss_curve_[0]
    assert 0.5 * np.log(2) / 2 < added < 5  # half of the ratios are above 1


def test_one_dimension():
    X = np.random.RandomState(0).normal(3, 2, size=(500, 1))
    density = GMMFlow(2, max_iter=100, random_state=0).fit(X)
    assert_allclose(density.score(X), -np.log(2 * np.sqrt(2 * np.pi * np.e)), atol=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "accuracy"}, "objective"),
        ({"objective": {"likelihood": -1.0}}, "not negative"),
        ({"objective": {}}, "objective"),
        ({"objective": {"likelihood": 0.0}}, "all 0"),
        ({"objective": {"likelihood": "1"}}, "objective"),
        ({"objective": {"likelihood": np.nan}}, "objective"),
        ({"objective": "fokker_planck"}, "dynamics"),
        ({"n_components": 600}, "n_samples=500"),
        ({"n_components": 0}, "n_components"),
    ],
)
def test_bad_input(moons, change, message):
    with pytest.raises(ValueError, match=message):
        GMMFlow(**change).fit(moons)


def test_objectives_that_are_not_finite_end_the_fit(moons):
    explosive = Langevin(lambda x: x / 0, np.eye(2))
    both = {"likelihood": 1.0, "fokker_planck": 1.0}
    with pytest.raises(FloatingPointError, match="step 1 "):
        GMMFlow(4, objective=both, dynamics=explosive, max_iter=3).fit(moons)


@pytest.mark.parametrize(("n_samples", "n_components"), [(5, 1), (100, 12), (500, 62), (800, 64)])
def test_components_follow_the_number_of_samples(n_samples, n_components):
    X = np.random.RandomState(0).normal(size=(n_samples, 1))
    assert GMMFlow(max_iter=1, random_state=0).fit(X).weights_.shape == (n_components,)


def test_objectives_without_the_likelihood_begin_with_it(moons):
    options = {"n_layers": 2, "max_iter": 8, "random_state": 0}
    curves = [
        GMMFlow(4, objective=name, **options).fit(moons).loss_curve_
        for name in ("likelihood", "score_matching")
    ]
    assert_allclose(curves[0][:2], curves[1][:2])
    assert not np.allclose(curves[0][2:], curves[1][2:])


def test_samples_are_counted(density):
    for n_samples in (0, 1.5):
        with pytest.raises(ValueError, match="n_samples"):
            density.sample(n_samples)


def test_steps_of_denoising_are_counted(density, moons):
    with pytest.raises(ValueError, match="n_steps"):
        density.denoise(moons, n_steps=-1)
