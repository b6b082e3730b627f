"""Lateral weights and gates against theory; noise; convolutional networks that have them."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from ssn_estimators import (
    CNNClassifier,
    LateralContext,
    from_connectivity,
    load,
    robustness_curve,
    save,
)
from ssn_estimators.lateral import add_gaussian_noise, add_salt_pepper

ROWS, COLUMNS, K = 6, 5, 3


def random_maps(n, seed=0, shape=(ROWS, COLUMNS, K)):
    return np.random.RandomState(seed).dirichlet(np.ones(shape[2]), size=(n, *shape[:2]))


def flat(maps):
    return maps.reshape(len(maps), -1)


def of_places(a, b, extent, spacing, shape):
    """All pairs of places at an offset that are both in the map."""
    for i in range(shape[0]):
        for j in range(shape[1]):
            y, x = i + (a - extent) * spacing, j + (b - extent) * spacing
            if 0 <= y < shape[0] and 0 <= x < shape[1]:
                yield (i, j), (y, x)


@pytest.mark.parametrize(("extent", "spacing"), [(1, 1), (1, 2), (2, 1), (2, 3)])
def test_weights_and_gates_are_those_of_the_formula(extent, spacing):
    maps = random_maps(30)
    context = LateralContext((ROWS, COLUMNS), extent=extent, spacing=spacing, eps=0.0)
    context.fit(flat(maps))
    side, mean = 2 * extent + 1, maps.mean((0, 1, 2))
    assert_allclose(context.mean_, mean)
    sums = np.zeros_like(maps)
    for a in range(side):
        for b in range(side):
            pairs = list(of_places(a, b, extent, spacing, maps.shape[1:3]))
            expected = np.zeros((K, K))
            if (a, b) != (extent, extent) and pairs:
                products = [maps[:, y, x].T @ maps[:, i, j] / 30 for (i, j), (y, x) in pairs]
                expected = np.mean(products, 0) / np.outer(mean, mean) - 1
            assert_allclose(context.weights_[a, b], expected, atol=1e-12)
            for (i, j), (y, x) in pairs:
                sums[:, i, j] += maps[:, y, x] @ context.weights_[a, b]
    gates = np.maximum(1 + sums, 0)
    assert_allclose(context.transform(flat(maps)), flat(maps * gates), atol=1e-12)
    # and as one matrix
    linear = 1 + flat(maps) @ context.connectivity().T
    assert_allclose(np.maximum(linear, 0), flat(gates), atol=1e-12)


def test_the_product_form_is_bayes_rule_in_a_world_of_two_places():
    rng = np.random.RandomState(0)
    counts = rng.randint(1, 9, (K, K))
    counts = counts + counts.T  # one law of both places
    joint = counts / counts.sum()
    seen = np.repeat([(j, k) for j in range(K) for k in range(K)], counts.ravel(), axis=0)
    context = LateralContext((1, 2), spacing=1, form="product", eps=0.0)
    context.fit(np.eye(K)[seen].reshape(len(seen), -1))
    # patches z that say more or less about what is there: P(z | feature)
    likelihood = rng.uniform(0.1, 1, (50, 2, K))
    share = likelihood * joint.sum(1)
    share /= share.sum(-1, keepdims=True)
    both = likelihood[:, 0, :, None] * likelihood[:, 1, None] * joint
    both /= both.sum((1, 2), keepdims=True)
    exact = np.stack([both.sum(2), both.sum(1)], axis=1)
    found = context.transform(share.reshape(50, -1)).reshape(50, 2, K)
    assert_allclose(found, exact, atol=1e-12)


def test_independent_features_have_no_weights():
    context = LateralContext((ROWS, COLUMNS), spacing=1).fit(flat(random_maps(5000)))
    # as many products of relative deviations, of variance 1 / 2 each (Dirichlet)
    assert np.abs(context.weights_).max() < 5 * 0.5 / np.sqrt(5000 * ROWS * COLUMNS / 2)
    maps = flat(random_maps(20, seed=1))
    assert_allclose(context.transform(maps), maps, rtol=0.05)


@pytest.mark.parametrize("form", ["linear", "product"])
def test_nothing_is_one_more_feature(form):
    maps, settings = 5 * random_maps(30) ** 3, {"spacing": 1, "form": form, "alpha": 0.3}
    context = LateralContext((ROWS, COLUMNS), background=2.0, **settings).fit(flat(maps))
    assert_allclose(context.background_, 2 * maps.sum(-1).mean())
    nothing = np.full_like(maps[..., :1], context.background_)
    all_features = np.concatenate([maps, nothing], -1)
    explicit = LateralContext((ROWS, COLUMNS), **settings).fit(flat(all_features))
    assert_allclose(context.weights_, explicit.weights_)
    expected = explicit.transform(flat(all_features)).reshape(all_features.shape)[..., :K]
    assert_allclose(context.transform(flat(maps)), flat(expected), rtol=1e-12)
    assert context.connectivity().shape == (ROWS * COLUMNS * K,) * 2


def test_weak_activity_on_an_empty_ground_is_weak_evidence():
    # a bar of activity in an empty image
    rng = np.random.RandomState(0)
    maps = np.zeros((200, 12, 12, 2))
    for image, row in zip(maps, rng.randint(12, size=200), strict=True):
        image[row, :, 0] = 1.0
    test = np.zeros((1, 12, 12, 2))
    test[:, 6, :, 0] = 1.0
    test[:, 6, 3, 0] = test[:, 1, 3, 0] = 0.05  # a gap in the bar, and noise
    test[:, 1, 2:5:2, 0] = 0.05
    gates = {}
    for background in (0.0, 3.0):
        context = LateralContext((12, 12), spacing=1, alpha=0.1, background=background)
        gated = context.fit(flat(maps)).transform(flat(test)).reshape(test.shape)
        gates[background] = gated[0, [6, 1], 3, 0] / 0.05
    # shares are the same however weak activity is
    assert_allclose(*gates[0.0])
    assert gates[3.0][0] > 2 * gates[3.0][1]


def test_like_supports_like():
    # every image has one feature all over
    shares = np.random.RandomState(0).dirichlet(0.3 * np.ones(K), size=200)
    maps = np.broadcast_to(shares[:, None, None], (200, ROWS, COLUMNS, K))
    weights = LateralContext((ROWS, COLUMNS), spacing=1).fit(flat(maps)).weights_
    surround = weights.reshape(9, K, K)[[0, 1, 2, 3, 5, 6, 7, 8]]
    same = np.eye(K, dtype=bool)
    assert surround[:, same].min() > 0.3
    assert surround[:, ~same].max() < 0
    assert_array_equal(weights[1, 1], 0)


def test_weights_are_symmetric_but_for_edges():
    maps = random_maps(40, shape=(12, 12, K))
    maps[:, 1:] = 0.5 * maps[:, 1:] + 0.5 * maps[:, :-1]
    weights = LateralContext((12, 12), spacing=1, extent=2).fit(flat(maps)).weights_
    assert_allclose(weights, weights[::-1, ::-1].swapaxes(2, 3), atol=1e-12)
    assert weights[3, 2].diagonal().min() > 0.1


@pytest.mark.parametrize("form", ["linear", "product"])
def test_without_strength_nothing_changes(form):
    X = 3 * flat(random_maps(20))
    context = LateralContext((ROWS, COLUMNS), form=form, alpha=0.0).fit(X)
    assert_allclose(context.transform(X), X, rtol=1e-12)


def test_the_product_form_keeps_sums_and_scales():
    X = flat(random_maps(50) * np.random.RandomState(0).uniform(0, 5, (50, ROWS, COLUMNS, 1)))
    X[0] = 0
    context = LateralContext((ROWS, COLUMNS), form="product", spacing=1).fit(X)
    found = context.transform(X)
    assert_allclose(found.reshape(-1, K).sum(1), X.reshape(-1, K).sum(1), rtol=1e-10)
    # normalised weights and gates do not see the scale
    assert_allclose(
        LateralContext((ROWS, COLUMNS), spacing=1).fit(7 * X).weights_,
        LateralContext((ROWS, COLUMNS), spacing=1).fit(X).weights_,
    )


@pytest.mark.parametrize("form", ["linear", "product"])
def test_places_where_nothing_is_active_say_nothing(form):
    rng = np.random.RandomState(0)
    full, active = random_maps(4000), rng.uniform(size=(4000, ROWS, COLUMNS, 1)) < 0.3
    full[:, 1:] = 0.5 * full[:, 1:] + 0.5 * full[:, :-1]  # like beside like
    context = LateralContext((ROWS, COLUMNS), spacing=1, form=form).fit(flat(full * active))
    whole = LateralContext((ROWS, COLUMNS), spacing=1, form=form).fit(flat(full))
    # the same law, of a tenth of the pairs
    assert_allclose(context.weights_, whole.weights_, atol=0.04)
    assert whole.weights_[0, 1].diagonal().min() > 0.1
    assert_allclose(context.mean_, whole.mean_, atol=0.02)
    # a place alone is left as it is
    alone = np.zeros((1, ROWS, COLUMNS, K))
    alone[0, 2, 2] = 1.0, 0.5, 0.2
    assert_allclose(context.transform(flat(alone)), flat(alone), rtol=1e-12)


def test_a_single_feature_has_no_context():
    X = np.random.RandomState(0).uniform(size=(30, ROWS * COLUMNS))
    X[X < 0.5] = 0
    context = LateralContext((ROWS, COLUMNS), spacing=1).fit(X)
    assert_allclose(context.transform(X), X)


def test_learning_in_parts_is_learning_at_once():
    X = flat(random_maps(300))
    parts = LateralContext((ROWS, COLUMNS))
    for part in np.split(X, [10, 150]):
        parts.partial_fit(part)
    whole = LateralContext((ROWS, COLUMNS)).fit(X)
    assert_allclose(parts.weights_, whole.weights_, atol=1e-12)
    assert parts.n_samples_seen_ == 300
    parts.fit(X[:10])
    assert parts.n_samples_seen_ == 10


def test_a_fit_that_is_refused_forgets_nothing():
    X = flat(random_maps(30))
    context = LateralContext((ROWS, COLUMNS)).fit(X[:20])
    for bad in (np.full_like(X, np.nan), -X, 1e308 * np.ones_like(X)):
        with pytest.raises(ValueError, match=r"NaN|Negative|too large"):
            context.set_params(background=1.0).fit(bad)
    context.set_params(background=0.0).partial_fit(X[20:])
    assert context.n_samples_seen_ == 30
    whole = LateralContext((ROWS, COLUMNS)).fit(X)
    assert_allclose(context.weights_, whole.weights_, atol=1e-12)


def test_weights_as_a_connectivity():
    context = LateralContext((ROWS, COLUMNS), spacing=1).fit(flat(random_maps(100)))
    positive = np.maximum(context.connectivity(), 0)
    n = ROWS * COLUMNS * K
    assert context.connectivity((2, 2)).shape == (4 * K, 4 * K)
    weights = from_connectivity(positive, signs=np.ones(n), random_state=0)
    assert weights.shape == (n, n)
    assert weights.min() >= 0


def test_noise():
    X = np.full((100, 100), 0.5)
    noisy = add_gaussian_noise(X, 0.1, random_state=0)
    assert_allclose(noisy.std(), 0.1, rtol=0.03)
    assert add_gaussian_noise(X, 2.0, random_state=0).max() == 1
    assert add_gaussian_noise(X, 2.0, clip=None, random_state=0).max() > 1
    salted = add_salt_pepper(X, 0.3, random_state=0)
    assert_allclose([(salted == v).mean() for v in (0, 0.5, 1)], [0.15, 0.7, 0.15], atol=0.015)
    assert_array_equal(add_salt_pepper(X, 0.0), X)
    assert add_salt_pepper(X.astype(np.float32), 0.1).dtype == np.float32


@pytest.mark.parametrize("noise", ["gaussian", "salt_pepper"])
def test_limits_are_those_of_the_pixels(noise):
    seen = []

    def score(estimator, X, y):
        seen.append(X)
        return 0.0

    X = np.random.RandomState(0).uniform(-16, 16, size=(50, 64))
    options = {"noise": noise, "levels": (1.0,), "n_repeats": 1, "scoring": score}
    robustness_curve(LogisticRegression(), X, np.zeros(50), limits=(-16.0, 16.0), **options)
    assert seen[0].min() == -16
    assert seen[0].max() == 16


def test_robustness_falls_with_noise():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, random_state=0)
    model = LogisticRegression(max_iter=500).fit(X, y)
    scores = robustness_curve(model, X_test, y_test, levels=(0.0, 0.3, 1.0), n_repeats=2)
    assert scores.shape == (3, 2)
    assert_allclose(scores[0], model.score(X_test, y_test))
    assert (np.diff(scores.mean(1)) < 0).all()
    again = robustness_curve(model, X_test, y_test, levels=(0.0, 0.3, 1.0), n_repeats=2)
    assert_array_equal(scores, again)

    def black(X, level, random_state):
        return X * (1 - level)

    assert robustness_curve(model, X_test, y_test, noise=black, levels=(0.0,)).shape == (1, 3)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, random_state=0, stratify=y)


NETWORK = {"filters": (8, 16), "n_hidden": 32, "max_iter": 500, "learning_rate_init": 0.01}


@pytest.mark.parametrize("lateral", [None, "linear", "product"])
def test_networks_learn_digits(digits, lateral):
    X, X_test, y, y_test = digits
    network = CNNClassifier(lateral=lateral, random_state=0, **NETWORK).fit(X, y)
    assert network.score(X_test, y_test) > 0.95
    assert len(network.lateral_weights_) == (0 if lateral is None else 1)
    alone = np.concatenate([network.predict_proba(X_test[i : i + 1]) for i in range(5)])
    assert_allclose(network.predict_proba(X_test)[:5], alone, atol=1e-10)


def test_gates_without_strength_are_none(digits):
    X, _, y, _ = digits
    settings = NETWORK | {"max_iter": 20, "dropout": 0.2, "weight_decay": 0.1, "random_state": 0}
    plain = CNNClassifier(**settings).fit(X, y)
    gated = CNNClassifier(lateral="linear", lateral_alpha=0.0, **settings).fit(X, y)
    assert_allclose(plain.loss_curve_, gated.loss_curve_, rtol=1e-4)
    assert_allclose(plain.decision_function(X), gated.decision_function(X), atol=1e-3)


def test_weights_of_a_layer_are_those_of_its_maps(digits):
    X, _, y, _ = digits
    network = CNNClassifier((4,), lateral="linear", max_iter=20, random_state=0).fit(X, y)
    images = (X - network.input_mean_) / network.input_scale_
    images = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    kernel = network.parameters_["convolutions.0.weight"][:, 0]
    maps = np.einsum("nijab,kab->nijk", windows, kernel)
    maps = np.maximum(maps + network.parameters_["convolutions.0.bias"], 0)
    context = LateralContext((8, 8), spacing=1, background=10.0).fit(flat(maps))
    assert_allclose(network.lateral_backgrounds_, [context.background_], rtol=1e-4)
    assert_allclose(network.lateral_weights_[0], context.weights_, atol=1e-3)


def test_filters_are_learned_without_gates_unless_asked(digits):
    X, X_test, y, _ = digits
    settings = NETWORK | {"max_iter": 20, "random_state": 0}
    plain = CNNClassifier(**settings).fit(X, y)
    gated = CNNClassifier(lateral="linear", lateral_alpha=0.5, **settings).fit(X, y)
    assert_array_equal(gated.loss_curve_, plain.loss_curve_)
    assert np.abs(gated.decision_function(X_test) - plain.decision_function(X_test)).max() > 0.01
    # nor when training goes on
    for network in (plain, gated):
        network.set_params(warm_start=True).fit(X, y)
    assert_array_equal(gated.loss_curve_, plain.loss_curve_)
    under = CNNClassifier(lateral="linear", lateral_alpha=0.5, lateral_training=True, **settings)
    assert_array_equal(under.fit(X, y).loss_curve_[:10], plain.loss_curve_[:10])
    assert abs(under.loss_curve_[10] - plain.loss_curve_[10]) > 1e-3


def test_gates_are_given_to_a_fitted_network(digits):
    X, X_test, y, _ = digits
    settings = NETWORK | {"max_iter": 20, "random_state": 0}
    network = CNNClassifier(**settings).fit(X, y)
    plain = network.decision_function(X_test)
    # more images than these are not seen, so that both see the same
    wanted = CNNClassifier(lateral="product", **settings).fit(X, y)
    network.set_params(lateral="product").fit_lateral(X)
    for found, weights in zip(network.lateral_weights_, wanted.lateral_weights_, strict=True):
        assert_allclose(found, weights, atol=1e-3)
    found, expected = (n.decision_function(X_test) for n in (network, wanted))
    assert_allclose(found, expected, atol=1e-4)
    network.set_params(lateral=None).fit_lateral(X)
    assert network.lateral_weights_ == network.lateral_backgrounds_ == []
    assert_array_equal(network.decision_function(X_test), plain)


def test_gates_of_the_first_layers_only(digits, tmp_path):
    X, X_test, y, _ = digits
    settings = NETWORK | {"max_iter": 20, "random_state": 0}
    whole = CNNClassifier(lateral="linear", lateral_layers=None, **settings).fit(X, y)
    first = CNNClassifier(lateral="linear", **settings).fit(X, y)
    assert len(whole.lateral_weights_) == len(whole.lateral_backgrounds_) == 2
    assert len(first.lateral_weights_) == len(first.lateral_backgrounds_) == 1
    assert_array_equal(first.lateral_weights_[0], whole.lateral_weights_[0])
    # gates without strength in the others are none
    cut = copy.copy(whole).set_params(lateral_layers=1)
    cut.lateral_weights_ = whole.lateral_weights_[:1]
    cut.lateral_backgrounds_ = whole.lateral_backgrounds_[:1]
    assert_array_equal(cut.decision_function(X_test), first.decision_function(X_test))
    assert np.abs(whole.decision_function(X_test) - first.decision_function(X_test)).max() > 1e-3
    save(first, tmp_path / "first.ssn")
    again = load(tmp_path / "first.ssn")
    assert_array_equal(again.decision_function(X_test), first.decision_function(X_test))
    again.set_params(warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="lateral_layers must not be above the number of layers"):
        first.set_params(lateral_layers=3).fit(X, y)


def test_images_with_channels():
    X = np.random.RandomState(0).uniform(size=(60, 5 * 4 * 3))
    y = X.reshape(60, 20, 3)[..., 0].mean(1) > X.reshape(60, 20, 3)[..., 1].mean(1)
    network = CNNClassifier((4,), image_shape=(5, 4, 3), max_iter=150, random_state=0).fit(X, y)
    assert network.score(X, y) > 0.9
    assert network.parameters_["convolutions.0.weight"].shape == (4, 3, 3, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X, y: LateralContext((8, 8)).fit(-X), "Negative values"),
        (lambda X, y: LateralContext((8, 8)).fit(X).transform(-X), "Negative values"),
        (lambda X, y: LateralContext((7, 5)).fit(X), "does not fit"),
        (lambda X, y: LateralContext((0, 5)).fit(X), "does not fit"),
        (lambda X, y: CNNClassifier(image_shape=(8, 8, 3)).fit(X, y), "does not fit"),
        (lambda X, y: CNNClassifier(filters=()).fit(X, y), "filters"),
        (lambda X, y: CNNClassifier(filters=(4, 0)).fit(X, y), "positive integers"),
        (lambda X, y: CNNClassifier(filters=(4.5,)).fit(X, y), "positive integers"),
        (lambda X, y: CNNClassifier(kernel_size=2).fit(X, y), "odd"),
        (lambda X, y: add_gaussian_noise(X, -1.0), "sigma"),
        (lambda X, y: add_salt_pepper(X, 2.0), "'p' parameter"),
        (lambda X, y: robustness_curve(None, X, y, noise="snow"), "noise must"),
        (
            lambda X, y: robustness_curve(LogisticRegression().fit(X, y), 16 * X, y),
            "beyond limits",
        ),
    ],
)
def test_bad_input(digits, call, message):
    X, _, y, _ = digits
    with pytest.raises(ValueError, match=message):
        call(X, y)


def test_a_loss_that_is_not_finite_ends_the_fit(digits):
    X, _, y, _ = digits
    with pytest.raises(FloatingPointError, match="learning_rate_init"):
        CNNClassifier(learning_rate_init=1e30, max_iter=20, random_state=0).fit(X, y)
