"""Weights of samples and of classes: what they stand for, in every estimator that takes them."""

import warnings
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone, is_classifier
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from torch.nn.functional import cross_entropy
from zoo import ESTIMATORS, short_confirmations, small

from ssn_estimators import (
    RNNClassifier,
    SSNClassifier,
    SSNSequenceClassifier,
    SSNSequenceRegressor,
    fit_many,
)
from ssn_estimators._torch import chance_of_labels, labels_and_weights, loss_of_labels
from ssn_estimators._weights import joined, of_labels
from ssn_estimators.training import Classification, SequenceClassification

CLASSIFIERS = [estimator for estimator in ESTIMATORS if is_classifier(estimator)]
RNG = np.random.RandomState(0)
X, Y = RNG.normal(size=(60, 9)), np.array(["a", "b", "c"])[np.arange(60) % 3]
WEIGHTS = RNG.randint(0, 4, 60)


@pytest.fixture(scope="module", autouse=True)
def short():
    with short_confirmations(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.fixture(params=CLASSIFIERS, ids=lambda estimator: type(estimator).__name__)
def make(request):
    return lambda **parameters: small(request.param).set_params(**parameters)


def assert_same(one, other, exactly=True):
    compare = assert_array_equal if exactly else assert_allclose
    compare(one.loss_curve_, other.loss_curve_)
    compare(one.decision_function(X), other.decision_function(X))


def test_class_weights_are_those_of_scikit_learn():
    y, ones = Y[:50], np.ones(50)
    for class_weight in ("balanced", {"a": 2.0, "b": 0.5, "c": 3}):
        expected = compute_sample_weight(class_weight, y)
        assert_allclose(of_labels(class_weight, y, ones), expected)
    assert_array_equal(of_labels({"b": 3}, Y[:3], ones[:3]), [1, 3, 1])
    # as if there were so many copies
    copies = np.repeat(np.arange(50), WEIGHTS[:50])
    found = of_labels("balanced", y, WEIGHTS[:50])[copies]
    assert_allclose(found, compute_sample_weight("balanced", y[copies]))


@pytest.mark.parametrize("steps", [(), (4,)])
def test_loss_of_weights_is_that_of_copies(steps):
    labels, weights = RNG.randint(3, size=(7, *steps)), RNG.randint(1, 5, 7)
    logits = torch.from_numpy(RNG.normal(size=(7, *steps, 3))).requires_grad_()
    copies = np.repeat(np.arange(7), weights)
    each = (weights / weights.mean()).reshape(-1, *[1] * len(steps)) * np.ones((7, *steps))
    found = loss_of_labels(logits, labels_and_weights(labels, each))
    (slope,) = torch.autograd.grad(found, logits)
    expected = cross_entropy(logits[copies].flatten(0, -2), torch.tensor(labels[copies].ravel()))
    assert_allclose(found.item(), expected.item(), rtol=1e-6)
    assert_allclose(slope, torch.autograd.grad(expected, logits)[0], rtol=1e-6, atol=1e-9)
    # batches of one size are on average all of the data
    targets = labels_and_weights(labels, each)
    batches = [loss_of_labels(logits[list(b)], targets[list(b)]) for b in combinations(range(7), 3)]
    assert_allclose(np.mean([float(loss) for loss in batches]), found.item(), rtol=1e-6)
    shares = np.bincount(labels[copies].ravel()) / labels[copies].size
    assert_allclose(chance_of_labels(targets), -(shares * np.log(shares)).sum(), rtol=1e-6)


def test_tasks_pass_weights_on():
    n_times, labels, weights = 5, RNG.randint(3, size=6), RNG.uniform(size=6)
    arrays = {"coef": RNG.normal(size=(3, 4)), "intercept": RNG.normal(size=3)}
    arrays = {name: torch.from_numpy(value) for name, value in arrays.items()}
    arrays = {name: value.float() for name, value in arrays.items()}
    arrays["output_cells"] = torch.ones(4)
    period = np.full((6, n_times), 1 / n_times)
    potentials = torch.from_numpy(RNG.normal(size=(n_times, 6, 5))).float()
    logits = potentials.mean(0)[:, :4] @ arrays["coef"].T + arrays["intercept"]
    own = weights / weights.mean()
    expected = np.mean(own * cross_entropy(logits, torch.tensor(labels), reduction="none").numpy())
    shares = np.bincount(labels, weights, minlength=3) / weights.sum()
    chance = -(shares * np.log(np.maximum(shares, 1e-12))).sum()
    task = Classification(True)
    targets = task.targets(labels, own)
    moments = SimpleNamespace(mean=potentials.mean(0))
    assert_allclose(task.loss(moments, arrays, targets), expected, rtol=1e-5)
    assert_allclose(task.chance_loss(targets), chance, rtol=1e-6)
    task = SequenceClassification(n_times)
    targets = task.targets(labels, period, own)
    moments = SimpleNamespace(mean=potentials.flatten(0, 1))
    assert_allclose(task.loss(moments, arrays, targets), expected, rtol=1e-5)
    assert_allclose(task.chance_loss(targets), chance, rtol=1e-6)


def test_equal_samples_are_one_where_they_make_one_batch():
    inputs, labels = np.array([[2.0], [1.0], [2.0], [2.0]]), np.array(["a", "a", "a", "b"])
    for weights in ([1, 2, 3, 4], [4, 8, 12, 16]):
        found = joined(3, inputs, labels, np.array(weights))
        order = np.argsort(found[2])
        assert_array_equal(found[0][order], [[1], [2], [2]])
        assert_array_equal(found[1][order], ["a", "a", "b"])
        assert_allclose(found[2][order], [0.6, 1.2, 1.2])
    assert_array_equal(joined(2, inputs, labels, np.arange(4.0))[0], inputs)
    # the same in any order, unless all are alike
    again = joined(3, inputs[::-1], labels[::-1], np.array([4, 3, 2, 1]))
    for one, other in zip(again, joined(3, inputs, labels, np.array([1, 2, 3, 4])), strict=True):
        assert_array_equal(one, other)
    assert_array_equal(joined(3, inputs[1:], labels[1:], np.full(3, 7.0))[0], inputs[1:])


def test_only_ratios_of_weights_count(make):
    weighted = make().fit(X, Y, sample_weight=WEIGHTS)
    assert_same(weighted, make().fit(X, Y, sample_weight=4 * WEIGHTS))
    assert_same(weighted, make().fit(X, Y, sample_weight=WEIGHTS / 1024))
    assert_same(make().fit(X, Y), make().fit(X, Y, sample_weight=np.full(60, 0.3)))
    assert weighted.loss_curve_ != make().fit(X, Y).loss_curve_


def test_samples_of_weight_0_are_left_out(make):
    """Also where they would set the range of inputs, or be a class of their own."""
    left, far = WEIGHTS > 0, np.where(WEIGHTS[:, None] > 0, X, 100 * X)
    labels = np.where(left, Y, "d")
    weighted = make(early_stopping=True).fit(far, labels, sample_weight=WEIGHTS)
    assert_same(weighted, make(early_stopping=True).fit(X[left], Y[left], WEIGHTS[left]))
    assert_array_equal(weighted.classes_, ["a", "b", "c"])
    assert_same(make().fit(far, labels, left), make().fit(X[left], Y[left]))


def test_weights_are_as_good_as_copies_in_one_batch(make):
    order = RNG.permutation(60)
    copies = np.repeat(np.arange(60), WEIGHTS)
    weighted = make(batch_size=60).fit(X[order], Y[order], sample_weight=WEIGHTS[order])
    assert_same(weighted, make(batch_size=60).fit(X[copies], Y[copies]))


def test_class_weights_are_weights_of_samples(make):
    class_weight = {"a": 3.0, "c": 0.5}
    weights = 1.0 + WEIGHTS
    for early_stopping in (False, True):
        by_class = make(class_weight=class_weight, early_stopping=early_stopping)
        by_sample = make(early_stopping=early_stopping)
        by_class.fit(X, Y, weights)
        by_sample.fit(X, Y, weights * compute_sample_weight({"a": 3.0, "b": 1.0, "c": 0.5}, Y))
        assert_same(by_class, by_sample)
        assert by_class.validation_scores_ == by_sample.validation_scores_


def test_balanced_classes_count_alike(make):
    y = np.where(np.arange(60) % 6 > 0, "b", "a")
    values = compute_class_weight("balanced", classes=np.array(["a", "b"]), y=y)
    balanced = make(class_weight="balanced").fit(X, y)
    assert_same(balanced, make(class_weight=dict(zip("ab", values, strict=True))).fit(X, y))
    # nothing to balance: as without
    assert_same(make(class_weight="balanced").fit(X, Y), make().fit(X, Y))


ENOUGH = {"SSNClassifier": 60, "SSNSequenceClassifier": 100, "MorrisLecarClassifier": 40}


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=lambda e: type(e).__name__)
def test_balance_finds_more_of_the_rare_class(estimator):
    inputs, y = make_classification(
        240, 9, n_informative=4, weights=[0.9], class_sep=0.7, random_state=1
    )
    n = ENOUGH.get(type(estimator).__name__, estimator.max_iter)
    recall = {}
    for class_weight in (None, "balanced"):
        made = clone(estimator).set_params(max_iter=n, random_state=0, class_weight=class_weight)
        recall[class_weight] = recall_score(y, made.fit(inputs, y).predict(inputs))
    assert recall["balanced"] > recall[None] + 0.1


BAD = [
    (-np.ones(60), {}, "[Nn]egative"),
    (np.zeros(60), {}, "zero"),
    (np.full(60, np.nan), {}, "NaN"),
    (np.full(60, np.inf), {}, "infinity"),
    (np.ones(3), {}, "sample_weight.shape"),
    (np.ones((60, 2)), {}, "1D"),
    (np.where(Y == "a", 1, 0), {}, "2 classes"),
    (None, {"class_weight": {"a": 1, "d": 2}}, r"class_weight names \['d'\]"),
    (None, {"class_weight": {"a": -1}}, "at least 0, got -1 for 'a'"),
    (None, {"class_weight": {"a": np.nan}}, "at least 0, got nan"),
    (None, {"class_weight": {"a": "much"}}, "at least 0, got 'much'"),
    (None, {"class_weight": dict.fromkeys("abc", 0)}, "class_weight must not be all zero"),
    (np.full(60, 1e308), {}, "more than a float can hold"),
    (None, {"class_weight": "equal"}, "'class_weight' parameter"),
]


@pytest.mark.parametrize(("weights", "parameters", "message"), BAD)
def test_fit_refuses(make, weights, parameters, message):
    made = make(**parameters)
    before = set(vars(made))
    with pytest.raises(ValueError, match=message):
        made.fit(X, Y, sample_weight=weights)
    assert set(vars(made)) == before


def test_weights_are_routed_to_where_they_are_asked_for(make):
    with sklearn.config_context(enable_metadata_routing=True):
        own = make().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipe = make_pipeline(scaler, own)
        name = f"{pipe.steps[1][0]}__max_iter"
        search = GridSearchCV(pipe, {name: [2, 4]}, cv=2)
        search.fit(X, Y, sample_weight=WEIGHTS)
    alone = make(max_iter=search.best_params_[name])
    inputs = StandardScaler().fit_transform(X)
    alone.fit(inputs, Y, sample_weight=WEIGHTS)
    assert_array_equal(search.predict_proba(X), alone.predict_proba(inputs))


def test_warm_start_takes_other_weights(make):
    model = make(warm_start=True).fit(X, Y, sample_weight=WEIGHTS)
    curve = list(model.loss_curve_)
    model.fit(X, Y)
    assert model.loss_curve_[: len(curve)] == curve
    assert len(model.loss_curve_) > len(curve)


def brief(**parameters):
    return small(CLASSIFIERS[0]).set_params(**parameters)


def test_validation_data_are_weighted_by_class():
    class_weight = {"a": 5.0, "b": 0.5}
    ssn = brief(class_weight=class_weight, max_iter=60).fit(X, Y, X_val=X[:20], y_val=Y[:20])
    counts = compute_sample_weight({"a": 5.0, "b": 0.5, "c": 1.0}, Y[:20])
    assert_allclose(ssn.best_validation_score_, ssn.score(X[:20], Y[:20], counts), rtol=1e-12)


def test_side_by_side_as_alone():
    networks = [brief(random_state=seed, class_weight="balanced") for seed in (0, 1)]
    fit_many(networks, X, Y, sample_weight=WEIGHTS)
    for seed, found in enumerate(networks):
        alone = brief(random_state=seed, class_weight="balanced").fit(X, Y, sample_weight=WEIGHTS)
        assert_allclose(found.loss_curve_, alone.loss_curve_, rtol=1e-5)


def test_partial_fit_takes_weights_as_they_are():
    """A call may bring nothing but samples that count little."""
    kind = {"growth_iter": 0, "batch_size": 60}
    one = brief(**kind).partial_fit(X, Y, classes=["a", "b", "c"])
    for more in ({"sample_weight": np.full(60, 3.0)}, {}):
        weight = {} if more else dict.fromkeys("abc", 3.0)
        other = brief(class_weight=weight or None, **kind)
        other.partial_fit(X, Y, classes=["a", "b", "c"], **more)
        assert_allclose(other.loss_curve_, 3 * np.array(one.loss_curve_), rtol=1e-5)
    rare = brief(class_weight={"z": 2.0}).partial_fit(X, Y, classes=["a", "b", "c", "z"])
    rare.partial_fit(X[:3], Y[:3])
    with pytest.raises(ValueError, match="class_weight='balanced' needs"):
        brief(class_weight="balanced").partial_fit(X, Y, classes=["a", "b", "c"])


def test_labels_of_every_step():
    y = RNG.randint(3, size=(60, 3))

    def rnn(**parameters):
        return RNNClassifier(8, n_steps=3, max_iter=6, random_state=0, batch_size=60, **parameters)

    copies = np.repeat(np.arange(60), WEIGHTS)
    assert_same(rnn().fit(X, y, WEIGHTS), rnn().fit(X[copies], y[copies]))
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y.ravel())
    balanced = rnn(class_weight="balanced", early_stopping=True).fit(X, y)
    given = rnn(class_weight=dict(enumerate(expected)), early_stopping=True).fit(X, y)
    assert_same(balanced, given)
    assert balanced.validation_scores_ == given.validation_scores_


def sequences(kind, **parameters):
    usual = {"time_step": 10.0, "dt": 5.0, "burn_in": 20.0, "max_iter": 4, "growth_iter": 2}
    return kind(4, 1, random_state=0, **(usual | parameters))


def test_sequences_with_lengths_and_periods():
    lengths, order = RNG.randint(3, 9, 60), RNG.permutation(60)
    response = np.column_stack([lengths - 2, lengths])
    copies = np.repeat(np.arange(60), WEIGHTS)
    found = [
        sequences(SSNSequenceClassifier).fit(
            X[rows], Y[rows], weights, lengths=lengths[rows], response=response[rows]
        )
        for rows, weights in ((order, WEIGHTS[order]), (copies, None))
    ]
    assert found[0].loss_curve_ == found[1].loss_curve_


def test_sequences_with_masks():
    y, mask = np.cumsum(X, 1), RNG.uniform(size=X.shape)
    order, copies = RNG.permutation(60), np.repeat(np.arange(60), WEIGHTS)
    kind = SSNSequenceRegressor
    weighted = sequences(kind).fit(X[order], y[order], WEIGHTS[order], mask=mask[order])
    repeated = sequences(kind).fit(X[copies], y[copies], mask=mask[copies])
    assert weighted.loss_curve_ == repeated.loss_curve_
    left = WEIGHTS > 0
    early = [
        sequences(kind, early_stopping=True).fit(X[r], y[r], WEIGHTS[r], mask=mask[r])
        for r in (slice(None), left)
    ]
    assert early[0].loss_curve_ == early[1].loss_curve_
    assert early[0].validation_scores_ == early[1].validation_scores_
    with pytest.raises(ValueError, match="time steps that count by the mask"):
        sequences(kind).fit(X, y, np.arange(60) == 0, mask=np.arange(60)[:, None] * np.ones(9))


def test_classifiers_of_circuits_have_all_parameters_of_their_bases():
    for kind in (SSNClassifier, SSNSequenceClassifier):
        assert set(kind().get_params()) == {*kind.__mro__[2]().get_params(), "class_weight"}
        with pytest.raises(TypeError, match="unexpected keyword argument 'class_weights'"):
            kind(class_weights="balanced")
