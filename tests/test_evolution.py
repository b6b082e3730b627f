"""Evolution strategies: estimates against theory, and searches."""

import pickle

import joblib
import pytest
import torch
from joblib._parallel_backends import ThreadingBackend
from torch.testing import assert_close

from ssn_estimators.biophysical.morris_lecar import MorrisLecar
from ssn_estimators.datasets import make_spiral
from ssn_estimators.evolution import ESTIMATORS, EvolutionStrategy, estimate_gradient

N = 10


def quadratic(parameters):
    return ((parameters["0"] - 1) ** 2).sum(-1) + 5.0


def gradient_estimates(estimator, n_samples, n_repeats, seed=0):
    x = torch.zeros(N, dtype=torch.float64)
    search = EvolutionStrategy(
        [x],
        n_samples=n_samples,
        estimator=estimator,
        evaluation="batch",
        random_state=seed,
    )
    found = []
    for _ in range(n_repeats):
        search.estimate(quadratic)
        found.append(x.grad.clone())
    return torch.stack(found)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimates_are_unbiased(estimator):
    found = gradient_estimates(estimator, 20, 5000)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) + 2.0).abs() < 4 * error).all()


def test_error_falls_with_the_root_of_samples_over_parameters():
    # the antithetic estimate of a quadratic: S / 2 products of g.e and e
    for n_samples in (50, 200, 800):
        found = gradient_estimates("antithetic", n_samples, 2000)
        relative = ((found + 2.0) ** 2).sum(1).mean().sqrt() / (2 * N**0.5)
        assert_close(float(relative), ((N + 1) / (n_samples / 2)) ** 0.5, rtol=0.05, atol=0)


def test_pairs_and_a_baseline_take_an_offset_away():
    errors = {
        name: (gradient_estimates(name, 100, 500) + 2.0).norm(dim=1).mean() for name in ESTIMATORS
    }
    assert errors["antithetic"] < errors["plain"] / 5
    assert errors["baseline"] < errors["plain"] / 5


def module_and_data():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    X = torch.randn(40, 3)
    return model, X, X @ torch.tensor([[1.0], [-2.0], [0.5]])


def test_all_evaluations_agree():
    found = {}
    for evaluation in ("loop", "vmap", "batch"):
        model, X, y = module_and_data()

        def single(p, model=model, X=X, y=y):
            return ((torch.func.functional_call(model, p, (X,)) - y) ** 2).mean()

        def batch(p, X=X, y=y):
            return ((X @ p["weight"].mT + p["bias"][:, None] - y) ** 2).mean((1, 2))

        loss = batch if evaluation == "batch" else single
        search = EvolutionStrategy(model, n_samples=20, evaluation=evaluation, random_state=0)
        search.minimize(loss, 5)
        found[evaluation] = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert_close(found["loop"], found["vmap"])
    assert_close(found["loop"], found["batch"])


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_any_backend_of_joblib(backend):
    x, alone = torch.zeros(N), torch.zeros(N)
    with joblib.parallel_backend(backend, n_jobs=2):
        EvolutionStrategy([x], n_samples=8, n_jobs=2, random_state=0).step(quadratic)
    EvolutionStrategy([alone], n_samples=8, random_state=0).step(quadratic)
    assert_close(x, alone)


def test_a_backend_that_somebody_registered():
    sizes = []

    class Recording(ThreadingBackend):
        def compute_batch_size(self):
            return 1

        def submit(self, func, callback=None):
            sizes.append(len(pickle.dumps(func.items)))
            return super().submit(func, callback)

    joblib.register_parallel_backend("recording", Recording)
    with joblib.parallel_config("recording", n_jobs=2):
        EvolutionStrategy([torch.zeros(1000)], n_samples=40, random_state=0).step(first)
    assert len(sizes) == 40
    assert max(sizes) < 10_000  # one sample of 4 kB, not the whole population


def first(p):
    return p["0"][0]


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
@pytest.mark.parametrize("block", [None, "tensor", 3])
def test_searches_find_the_minimum(optimizer, block):
    x, y = torch.zeros(4), torch.zeros(3)

    def loss(p):
        return ((p["x"] - 1) ** 2).sum(-1) + ((p["y"] + 1) ** 2).sum(-1)

    search = EvolutionStrategy(
        {"x": x, "y": y},
        n_samples=20,
        optimizer=optimizer,
        block=block,
        learning_rate_init=0.02,
        evaluation="batch",
        random_state=0,
    )
    search.minimize(loss, 600)
    assert_close(x, torch.ones(4), atol=0.1, rtol=0)
    assert_close(y, -torch.ones(3), atol=0.1, rtol=0)
    assert search.n_evaluations_ == 600 * 20


def test_a_block_leaves_the_rest_alone():
    x, y = torch.zeros(4), torch.zeros(3)
    search = EvolutionStrategy({"x": x, "y": y}, block="tensor", n_samples=4, random_state=0)
    search.step(lambda p: p["x"].sum() + p["y"].sum())
    assert (y == 0).all()
    search.step(lambda p: p["x"].sum() + p["y"].sum())
    assert (y != 0).any()
    z = torch.zeros(10)
    EvolutionStrategy([z], block=2, n_samples=4, optimizer="sgd", random_state=0).step(quadratic)
    assert int((z != 0).sum()) == 2


def test_a_discrete_loss_has_no_gradient_but_an_estimate():
    x = torch.full((3,), 0.02, requires_grad=True)

    def count(p):
        return (p["0"] > 0).float().sum()

    loss = count({"0": x})
    assert not loss.requires_grad
    EvolutionStrategy([x], n_samples=4000, random_state=0).estimate(count)
    # derivative of Phi(x / sigma)
    theory = torch.distributions.Normal(0, 0.1).log_prob(torch.tensor(0.02)).exp()
    assert_close(x.grad, theory.expand(3), rtol=0.1, atol=0)


def test_losses_that_are_not_finite_are_dropped_and_counted():
    x = torch.zeros(N)
    search = EvolutionStrategy([x], n_samples=40, evaluation="batch", random_state=0)

    def partly(p):
        return torch.where(p["0"][:, 0] > 0.1, torch.nan, quadratic(p))

    loss = search.step(partly)
    assert loss == pytest.approx(15.0, abs=2)
    assert 0 < search.n_dropped_ < 40
    assert search.n_dropped_ % 2 == 0
    with pytest.raises(FloatingPointError, match="none of 40"):
        search.step(lambda p: torch.full((len(p["0"]),), torch.nan))
    with pytest.raises(FloatingPointError, match="unperturbed"):
        EvolutionStrategy([x], estimator="baseline", n_samples=3).step(
            lambda p: torch.nan if (p["0"] == x).all() else 1.0
        )


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_that_single_precision_cannot_hold(estimator):
    values = torch.zeros(3)
    strategy = EvolutionStrategy([values], n_samples=4, estimator=estimator, random_state=0)

    def loss(parameters):
        return 3e39 * (1 + next(iter(parameters.values())).double().sum(-1))

    with pytest.raises(FloatingPointError, match="the gradient is not finite"):
        strategy.step(loss)
    assert (values == 0).all()


def test_a_spiral_is_learned():
    """From windows of ten points the error of trajectories falls to a fifth."""
    data = make_spiral(100, duration=12.0)
    y, dt = torch.from_numpy(data.y), data.t[1]
    torch.manual_seed(0)
    layers = [torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)]
    model = torch.nn.Sequential(*layers).double()
    windows = y.unfold(0, 11, 1).permute(2, 0, 1)

    def error(parameters):
        def slope(y):
            return torch.func.functional_call(model, parameters, (y**3,))

        y, total = windows[0], 0.0
        for target in windows[1:]:  # by the classical Runge-Kutta method
            a = slope(y)
            b = slope(y + dt / 2 * a)
            c = slope(y + dt / 2 * b)
            y = y + dt / 6 * (a + 2 * b + 2 * c + slope(y + dt * c))
            total = total + (y - target).abs().mean()
        return total / 10

    search = EvolutionStrategy(
        model,
        n_samples=500,
        sigma=0.01,
        optimizer="rmsprop",
        learning_rate_init=1e-3,
        evaluation="vmap",
        random_state=0,
    )
    before = error(dict(model.named_parameters())).item()
    search.minimize(error, 500)
    assert error(dict(model.named_parameters())).item() < before / 5


def test_estimates_from_losses_by_hand():
    noise = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    gradient, n_dropped = estimate_gradient(noise, torch.tensor([[3.0, 1.0], [1.0, 1.0]]), 1.0)
    assert_close(gradient, torch.tensor([0.5, 0.0]))
    assert n_dropped == 0
    with pytest.raises(ValueError, match="estimator"):
        estimate_gradient(noise, torch.ones(2), 1.0, estimator="best")


def test_a_callback_ends_the_search():
    search = EvolutionStrategy([torch.zeros(2)], n_samples=2, random_state=0)
    search.minimize(quadratic, 100, callback=lambda s: len(s.loss_curve_) == 3)
    assert len(search.loss_curve_) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_samples": 3}, "pairs"),
        ({"n_samples": 0, "estimator": "plain"}, "n_samples"),
        ({"sigma": 0.0}, "sigma"),
        ({"estimator": "best"}, "estimator"),
        ({"optimizer": "newton"}, "optimizer"),
        ({"evaluation": "fast"}, "evaluation"),
        ({"block": -1}, "block"),
        ({"parameters": []}, "no parameters"),
        ({"parameters": [torch.zeros(2, dtype=int)]}, "floating"),
        ({"parameters": [torch.zeros(2), torch.zeros(2).double()]}, "one dtype"),
    ],
)
def test_bad_input(change, message):
    parameters = change.pop("parameters", [torch.zeros(2)])
    with pytest.raises(ValueError, match=message):
        EvolutionStrategy(parameters, **change)


def test_a_loss_of_the_wrong_shape():
    search = EvolutionStrategy([torch.zeros(2)], evaluation="batch", n_samples=4)
    with pytest.raises(ValueError, match="one number"):
        search.step(lambda p: p["0"])


def test_a_count_of_spikes_is_learned():
    """A cell that fires at a current of 60 learns not to: the count has no gradient."""
    cell, n_steps = MorrisLecar(), 400

    def spikes(p):
        current = 100 * p["0"]
        v = torch.full_like(current, -60.0)
        w, count = cell.open_share(v), torch.zeros_like(current)
        for _ in range(n_steps):  # a fifth of a second
            before = v
            v, w = cell.step(v, w, current, 0.5)
            count = count + ((before <= 0) & (v > 0))
        return count[:, 0]

    weight = torch.full((1,), 0.6, requires_grad=True)
    start = spikes({"0": weight[None]})
    assert start > 2
    assert not start.requires_grad
    search = EvolutionStrategy(
        [weight], n_samples=20, learning_rate_init=0.05, evaluation="batch", random_state=0
    )
    search.minimize(spikes, 15)
    assert spikes({"0": weight[None]}) == 0
