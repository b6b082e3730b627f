"""Rich and lazy learning: measures, initial weights, the networks and tasks of their study."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import root
from sklearn.preprocessing import StandardScaler

from ssn_estimators import RNNClassifier, stationary_moments
from ssn_estimators.datasets import (
    make_contextual_decision,
    make_delayed_match,
    make_two_alternatives,
)
from ssn_estimators.initial_weights import (
    block_init,
    dale_init,
    from_connectivity,
    low_rank_init,
    with_inhibition,
)
from ssn_estimators.inspection import (
    effective_rank,
    kernel_alignment,
    learning_regime,
    representation_alignment,
    spectral_abscissa,
    tangent_kernel,
    weight_change,
)

TASKS = (make_two_alternatives, make_delayed_match, make_contextual_decision)


def test_effective_ranks():
    identity, one = np.eye(6), np.outer(np.arange(1.0, 7), np.ones(6))
    expected = {"eig": (1, 1 / 6), "stable": (6, 1), "participation": (6, 1), "entropy": (6, 1)}
    for kind, (full, least) in expected.items():
        assert effective_rank(identity, kind=kind) == pytest.approx(full)
        assert effective_rank(one, kind=kind) == pytest.approx(least, rel=1e-6)
    # eigenvalues of a random matrix fill a disc, whose mean radius is 2/3
    normal = np.random.RandomState(0).randn(400, 400)
    assert effective_rank(normal) == pytest.approx(2 / 3, abs=0.05)
    assert effective_rank(np.ones((3, 5)), kind="stable") == pytest.approx(1)
    for kind in expected:  # in any unit
        for unit in (1e-250, 1e-100, 1e100, 1e250):
            rank = effective_rank(normal[:9, :9], kind=kind)
            assert effective_rank(unit * normal[:9, :9], kind=kind) == pytest.approx(rank)


def test_alignments():
    rng = np.random.RandomState(0)
    h = rng.randn(20, 7)
    rotation = np.linalg.qr(rng.randn(7, 7))[0]
    assert representation_alignment(h, 3 * h @ rotation) == pytest.approx(1)
    assert representation_alignment(h, rng.randn(20, 7)) < 0.8
    shifted = h + 100.0
    assert representation_alignment(h, shifted) < 0.9
    assert representation_alignment(h, shifted, center=True) == pytest.approx(1)
    assert kernel_alignment(np.diag([1.0, 0]), np.diag([0, 1.0])) == 0
    kernel, other = h @ h.T, rng.randn(20, 20)
    found = kernel_alignment(1e-200 * kernel, 1e200 * other)
    assert found == pytest.approx(kernel_alignment(kernel, other))
    assert weight_change(h, h + 1) == pytest.approx(np.sqrt(140))
    assert weight_change(h, 2 * h, relative=True) == pytest.approx(1)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (effective_rank, (np.zeros((2, 2)),), "zeros"),
        (effective_rank, (np.ones((2, 3)),), "square"),
        (effective_rank, (np.eye(3, k=1),), "eigenvalues are 0"),
        (kernel_alignment, (np.eye(2), np.eye(3)), "one shape"),
        (kernel_alignment, (np.eye(2), np.zeros((2, 2))), "zeros"),
        (kernel_alignment, (np.ones(3), np.ones(3)), "square"),
        (weight_change, (np.eye(2), np.eye(3)), "one shape"),
        (weight_change, (np.eye(2), np.full((2, 2), np.nan)), "finite"),
        (kernel_alignment, ([["1"]], [["1"]]), "numbers"),
        (kernel_alignment, ([[np.nan]], [[1.0]]), "finite"),
        (representation_alignment, ([[1j]], [[1.0]]), "numbers"),
        (low_rank_init, (5, 6), "rank"),
        (low_rank_init, (5, 1.5), "rank"),
        (with_inhibition, (np.ones((2, 3)), 1), "square"),
        (with_inhibition, (-np.ones((2, 2)), 1), "negative"),
        (with_inhibition, (np.ones((2, 2)), 0), "n_inhibitory"),
        (from_connectivity, (np.ones((2, 3)),), "square"),
        (from_connectivity, (np.ones((3, 3)), 4), "n must be"),
        (block_init, ([2, 2], np.ones((3, 3)), np.ones((2, 2)), np.ones((2, 2)), [1, -1]), "shape"),
        (block_init, ([2, 2], np.eye(2), np.eye(2), np.eye(2), [1, 2]), "signs"),
        (block_init, ([2, 2], 2 * np.eye(2), np.eye(2), np.eye(2), [1, -1]), "between"),
    ],
)
def test_bad_input(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def linear_student(rank, rng, d=20, hidden=40, size=0.05, *, aligned=False, balanced=False):
    """Kernel alignment of a linear network of small weights after learning a random target.

    And what it should be for this target: after training the kernel is that of the input, but
    for the direction of the target.
    """
    target = rng.standard_normal(d)
    target /= np.linalg.norm(target)
    left = np.linalg.qr(rng.standard_normal((hidden, rank)))[0]
    right = np.linalg.qr(rng.standard_normal((d, rank)))[0]
    if aligned:
        right = target[:, None]
    first = size * left @ right.T / np.sqrt(rank)
    second = size * left[:, 0] if balanced else np.zeros(hidden)

    def kernel():  # of outputs for the d unit vectors: with respect to both layers
        return first.T @ first + (second @ second) * np.eye(d)

    start = kernel()
    for _ in range(6000):
        error = second @ first - target
        first, second = first - 0.02 * np.outer(second, error), second - 0.02 * first @ error
    inside = ((right.T @ target) ** 2).sum()
    return kernel_alignment(start, kernel()), (rank + inside) / np.sqrt(rank * (d + 3))


def test_linear_students_follow_the_closed_form():
    d, rng = 20, np.random.default_rng(0)
    for rank in (1, 2, 5, 10, 20):
        found, own = np.array([linear_student(rank, rng) for _ in range(12)]).T
        assert_allclose(found, own, rtol=0.01)
        error = found.std(ddof=1) / np.sqrt(len(found))
        theory = (1 + 1 / d) * np.sqrt(rank / (d + 3))
        assert abs(found.mean() - theory) < 2 * error + 1e-4  # no spread at full rank
    aligned, _ = linear_student(1, rng, aligned=True)
    assert aligned == pytest.approx(2 / np.sqrt(d + 3), rel=0.01)
    assert linear_student(1, rng, aligned=True, balanced=True)[0] == pytest.approx(1, abs=1e-3)


class Unrolled(torch.nn.Module):
    """The equations of `RNNClassifier`, for autograd."""

    def __init__(self, rnn):
        super().__init__()
        names = ("input_weights_", "recurrent_weights_", "readout_weights_")
        self.into, self.among, self.out = (
            torch.nn.Parameter(torch.tensor(getattr(rnn, name)).double()) for name in names
        )
        self.share, self.n_steps, self.every = rnn.dt / rnn.tau, rnn.n_steps, rnn._every_step

    def forward(self, X):
        h, outputs = torch.zeros(len(X), len(self.among)).double(), []
        for x in X.reshape(len(X), self.n_steps, -1).unbind(1):
            total = x @ self.into.T + h @ self.among.T
            h = torch.relu((1 - self.share) * h + self.share * total)
            outputs.append(h @ self.out.T)
        return torch.stack(outputs, 1) if self.every else outputs[-1]


@pytest.mark.parametrize("every_step", [True, False])
def test_the_tangent_kernel_is_that_of_autograd(every_step):
    X, y = make_delayed_match(6, random_state=0)
    X = X.astype(np.float32)
    y = y if every_step else y[:, -1]
    rnn = RNNClassifier(9, n_steps=8, dt=60.0, max_iter=3, random_state=0).fit(X, y)
    module, inputs = Unrolled(rnn), torch.from_numpy(X).double()
    expected = tangent_kernel(module, inputs, parameters=["among"])
    found = tangent_kernel(rnn, X)
    assert found.shape == expected.shape
    assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
    other = tangent_kernel(module, inputs, parameters=["out"])
    assert_allclose(tangent_kernel(module, inputs, parameters=["out", "among"]), expected + other)


def stable_inputs(network, X):
    """Those far from an instability."""
    abscissa = spectral_abscissa(network.circuit_, network.drive(X), closure="linear")
    return X[np.nan_to_num(abscissa, nan=0.0) < -0.03]


def test_the_tangent_kernel_of_an_ssn_is_that_of_its_fixed_points(fitted, blobs):
    X = stable_inputs(fitted, blobs[0])[:3]
    kernel = tangent_kernel(fitted, X)
    circuit, drive = fitted.circuit_, fitted.drive(X).astype(float)
    weights, n_e = circuit.weights.astype(float), circuit.n_excitatory

    start = stationary_moments(circuit, drive, closure="linear").mean

    def logits(weights):
        def excess(u, own):
            return own - u + weights @ (circuit.k * np.maximum(u, 0) ** circuit.gamma)

        u = np.array(
            [root(excess, u, args=(own,), tol=1e-12).x for u, own in zip(start, drive, strict=True)]
        )
        return (u[:, :n_e] @ fitted.readout_weights_.T.astype(float)).ravel()

    step, n = 1e-4, circuit.n_neurons
    gradient = np.empty((kernel.shape[0], n, n))
    for i in range(n):
        for j in range(n):
            change = np.zeros((n, n))
            change[i, j] = step
            gradient[:, i, j] = (logits(weights + change) - logits(weights - change)) / (2 * step)
    flat = gradient.reshape(len(kernel), -1)
    assert_allclose(kernel, flat @ flat.T, rtol=1e-3, atol=1e-5 * np.abs(kernel).max())


def test_low_rank_weights_keep_their_norm():
    full, low = (low_rank_init(50, r, random_state=0) for r in (50, 3))
    assert np.linalg.matrix_rank(low) == 3
    assert np.linalg.norm(low) == pytest.approx(np.linalg.norm(full))
    assert full.std() == pytest.approx(1.25 / np.sqrt(50), rel=0.05)
    spectral = low_rank_init(50, 3, norm="spectral", random_state=0)
    radii = [np.abs(np.linalg.eigvals(w)).max() for w in (full, spectral)]
    assert radii[0] == pytest.approx(radii[1])


def test_weights_that_obey_dales_law():
    weights = dale_init(200, random_state=0)
    assert (weights[:, :160] >= 0).all()
    assert (weights[:, 160:] <= 0).all()
    loose = dale_init(200, balanced=False, random_state=0)
    assert abs(weights.sum(1).mean()) < 0.1 * abs(loose.sum(1).mean())
    assert np.linalg.norm(weights) == pytest.approx(np.linalg.norm(loose))
    # the outlier makes the other eigenvalues small in comparison
    assert effective_rank(loose) < 0.5 * effective_rank(weights)


@pytest.mark.parametrize("rank", [1, 3, 40])
def test_low_rank_weights_that_obey_dales_law(rank, blobs, small_ssn):
    weights = low_rank_init(40, rank, excitatory=0.8, random_state=0)
    assert np.linalg.matrix_rank(weights) == rank
    assert (weights[:, :32] > 0).all()
    assert (weights[:, 32:] < 0).all()
    # balanced in the mean, whatever the rank, and of one norm
    assert abs(weights.sum(1).mean()) < 0.3 * weights[:, :32].sum(1).mean()
    assert np.linalg.norm(weights) == pytest.approx(
        np.linalg.norm(low_rank_init(40, 40, random_state=0))
    )
    for norm in ("frobenius", "Fro"):
        with pytest.raises(ValueError, match="norm"):
            low_rank_init(40, rank, norm=norm)

    def init(n, rng):
        return low_rank_init(n, min(rank, n), excitatory=0.8, gain=0.1, random_state=rng)

    settings = {"growth": None, "n_excitatory": 4, "n_inhibitory": 1, "max_iter": 2}
    assert small_ssn(init=init, **settings).fit(*blobs).stability_ == 1


def test_excitation_with_shared_inhibition():
    rng = np.random.RandomState(0)
    excitation = rng.uniform(size=(12, 12))
    weights = with_inhibition(excitation, 3, balance=0.8, norm=2.0)
    scale = weights[0, 0] / excitation[0, 0]
    assert np.linalg.norm(weights) == pytest.approx(2)
    assert_allclose(weights[:12, :12], scale * excitation)
    assert (weights[:, 12:] < 0).all()
    excited, inhibited = weights[:, :12].sum(1), weights[:, 12:].sum(1)
    assert_allclose(inhibited, -0.8 * excited)
    assert_allclose(excited[12:], excited[:12].mean())
    assert_allclose(weights[12:, :12].std(), 0, atol=1e-12)


def test_blocks_of_cell_types():
    p, m = np.array([[0.1, 0.5], [1.0, 0.0]]), np.array([[0.0, 1.0], [-1.0, 0.0]])
    weights = block_init([300, 100], p, m, np.zeros((2, 2)), [1, -1], random_state=0)
    share = (weights[:300, :300] != 0).mean()
    assert share == pytest.approx(0.1, abs=0.01)
    assert_allclose(weights[300:, :300], np.exp(-1))
    assert set(np.unique(weights[:300, 300:]).round(6)) == {0, round(-np.e, 6)}
    assert (weights[300:, 300:] == 0).all()


def test_weights_from_measured_connectivity():
    counts = np.random.RandomState(0).poisson(2.0, (30, 30))
    signs = np.where(np.arange(30) < 20, 1, -1)
    weights = from_connectivity(counts, 12, signs=signs, norm=5.0, random_state=0)
    assert weights.shape == (12, 12)
    assert np.linalg.norm(weights) == pytest.approx(5)
    assert all(len(set(np.sign(column[column != 0]))) <= 1 for column in weights.T)
    assert from_connectivity(counts, center=True).mean() == pytest.approx(0)
    assert_array_equal(from_connectivity(counts), counts)


@pytest.mark.parametrize("make", TASKS)
def test_tasks_can_be_solved_by_their_rules(make):
    X, y = make(2000, random_state=0)
    steps = X.reshape(2000, 8, -1)
    assert y.shape == (2000, 8)
    assert (y[:, :-1] == 0).all()
    assert_allclose(np.bincount(y[:, -1]) / 2000, [0, 0.5, 0.5], atol=0.05)
    if make is make_two_alternatives:
        mean = steps[:, :7, 1:].mean(1)
        right = mean.argmax(1) + 1 == y[:, -1]
        assert 0.8 < right.mean() < 0.95  # nothing to see in a fifth of the trials
    elif make is make_delayed_match:
        same = steps[:, 0, 1:].argmax(1) == steps[:, 6, 1:].argmax(1)
        assert_array_equal(np.where(same, 1, 2), y[:, -1])
    else:
        context = steps[:, 0, 5:].argmax(1)
        modality = steps[:, :2, 1:5].mean(1).reshape(2000, 2, 2)[np.arange(2000), context]
        assert (modality.argmax(1) + 1 == y[:, -1]).mean() > 0.8


def test_networks_learn_the_tasks():
    X, y = make_delayed_match(1200, random_state=0)
    rnn = RNNClassifier(60, n_steps=8, max_iter=1500, learning_rate_init=0.02, random_state=0).fit(
        X[:1000], y[:1000]
    )
    assert rnn.score(X[1000:], y[1000:]) > 0.9
    assert rnn.predict(X[:5]).shape == (5, 8)
    assert_allclose(rnn.predict_proba(X[:5]).sum(-1), 1)
    last = RNNClassifier(60, n_steps=8, max_iter=5, random_state=0).fit(X, y[:, -1])
    assert last.predict(X[:5]).shape == (5,)


def test_initial_weights_are_taken_and_checked():
    X, y = make_delayed_match(50, random_state=0)
    weights = dale_init(20, random_state=0)
    rnn = RNNClassifier(20, n_steps=8, init=weights, max_iter=0).fit(X, y)
    assert_allclose(rnn.recurrent_weights_, weights, rtol=1e-6)
    rnn.set_params(init=lambda n, rng: low_rank_init(n, 1, random_state=rng)).fit(X, y)
    assert np.linalg.matrix_rank(rnn.recurrent_weights_) == 1
    with pytest.raises(ValueError, match="init must have shape"):
        RNNClassifier(21, n_steps=8, init=weights).fit(X, y)
    with pytest.raises(ValueError, match="n_steps"):
        RNNClassifier(20, n_steps=7).fit(X, y)
    with pytest.raises(ValueError, match="labels for 8 steps"):
        RNNClassifier(20, n_steps=4).fit(X, y)
    with pytest.raises(ValueError, match="tau"):
        RNNClassifier(20, n_steps=8, dt=200.0).fit(X, y)
    with pytest.raises(FloatingPointError, match="learning_rate_init"):
        RNNClassifier(20, n_steps=8, learning_rate_init=1e20, max_iter=50).fit(X, y)


def test_learning_regimes(fitted, small_ssn, blobs):
    X, y = make_delayed_match(64, random_state=0)
    before = RNNClassifier(20, n_steps=8, max_iter=0, random_state=0).fit(X, y)
    same = learning_regime(before, before, X[:10])
    assert same.weight_change == 0
    assert same.kernel_alignment == pytest.approx(1)
    assert same.representation_alignment == pytest.approx(1)
    assert same.sign_similarity == 1
    after = RNNClassifier(20, n_steps=8, max_iter=200, random_state=0).fit(X, y)
    regime = learning_regime(before, after, X[:10])
    assert regime.weight_change > 0
    assert 0 < regime.kernel_alignment < 1
    # an SSN that grew in between has other sizes, but kernels of the same inputs
    pair = small_ssn(input_weights="dense", n_excitatory=2, n_inhibitory=2, max_iter=3)
    X_stable = stable_inputs(fitted, blobs[0])
    grown = learning_regime(pair.fit(*blobs), fitted, X_stable[:5])
    assert np.isnan(grown.weight_change)
    assert 0 < grown.kernel_alignment < 1
    modules = [Unrolled(rnn) for rnn in (before, after)]
    inputs = torch.from_numpy(X[:10]).double()
    found = learning_regime(*modules, inputs, parameters=["among"])
    assert found.kernel_alignment == pytest.approx(regime.kernel_alignment, abs=1e-4)
    with pytest.raises(TypeError, match="torch Module"):
        tangent_kernel(StandardScaler().fit(X), X)


def test_a_module_is_evaluated_as_it_predicts_and_left_in_its_mode():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.dropout = torch.nn.Linear(3, 2), torch.nn.Dropout(0.5)
            self.scale = torch.nn.Parameter(torch.tensor(2.0))  # without axes

        def forward(self, x):
            return self.scale * self.dropout(self.linear(x))

    model, X = Scaled().train(), torch.randn(5, 3)
    model.dropout.eval()
    kernel = tangent_kernel(model, X)
    assert model.training
    assert not model.dropout.training
    model.dropout.train()
    assert_allclose(tangent_kernel(model, X), kernel)
    # by hand: gradients by weights and biases, and by the scale
    outputs = model.linear(X).detach().double().flatten().numpy()
    same_output = np.tile(np.eye(2), (5, 5))
    products = np.repeat(np.repeat((X @ X.T + 1).numpy(), 2, 0), 2, 1)
    assert_allclose(kernel, 4 * products * same_output + np.outer(outputs, outputs), rtol=1e-4)
    regime = learning_regime(model, model, X, parameters=["linear.weight"])
    assert regime.representation_alignment == pytest.approx(1)
    for names in (["linear.weights"], []):
        with pytest.raises(ValueError, match="no parameters"):
            tangent_kernel(model, X, parameters=names)
        with pytest.raises(ValueError, match="no parameters"):
            learning_regime(model, model, X, parameters=names)


def test_a_warm_start_keeps_its_size():
    X, y = make_delayed_match(50, random_state=0)
    y = y[:, -1]
    rnn = RNNClassifier(10, n_steps=8, max_iter=2, warm_start=True, random_state=0).fit(X, y)
    rnn.fit(X, y)
    assert rnn.n_iter_ == 4
    for changed in ({"n_hidden": 11}, {"n_hidden": 10, "n_steps": 4}):
        with pytest.raises(ValueError, match="warm_start goes on with 10 cells"):
            rnn.set_params(**changed).fit(X, y)
