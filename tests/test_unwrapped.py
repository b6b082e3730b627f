"""Helpers and displays look at networks in pipelines, in searches, and in any nesting of them."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingRandomSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from ssn_estimators import (
    GrowthDisplay,
    StabilityDisplay,
    TrajectoryDisplay,
    TuningDisplay,
    WeightsDisplay,
    stability_report,
    stability_score,
)
from ssn_estimators._sklearn import unwrapped

REPORT = {"n_surrogates": 1, "n_trials": 3, "duration": 30.0}


def doubled(X):
    return 2 * np.asarray(X)


def piped(estimator):
    return make_pipeline(FunctionTransformer(doubled), estimator)


def searched(estimator, kind=GridSearchCV):
    """A search that has found a fitted estimator."""
    search = kind(estimator, {})
    search.best_estimator_ = estimator
    return search


WRAPPINGS = {  # and how often X is doubled
    "bare": (lambda e: e, 0),
    "alone in a pipeline": (make_pipeline, 0),
    "pipeline": (piped, 1),
    "search": (searched, 0),
    "search of pipelines": (lambda e: searched(piped(e)), 1),
    "search in a pipeline": (lambda e: piped(searched(e)), 1),
    "deep": (lambda e: piped(searched(piped(make_pipeline(searched(e))))), 2),
}
USES = {
    "stability_score": lambda e, X: stability_score(e, X[:10], duration=30.0),
    "stability_report": lambda e, X: str(stability_report(e, X, **REPORT)),
    "GrowthDisplay": lambda e, X: GrowthDisplay.from_estimator(e).loss_curve,
    "StabilityDisplay": lambda e, X: str(StabilityDisplay.from_estimator(e, X, **REPORT).report),
    "TuningDisplay": lambda e, X: (
        TuningDisplay.from_estimator(e, X[:6], range(6), duration=30.0).rates
    ),
    "WeightsDisplay": lambda e, X: WeightsDisplay.from_estimator(e).weights,
    "TrajectoryDisplay": lambda e, X: (
        TrajectoryDisplay.from_estimator(e, X, duration=30.0).potentials
    ),
}


@pytest.fixture(autouse=True)
def closed_figures():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_the_network_and_its_inputs(wrapping):
    wrap, times = WRAPPINGS[wrapping]
    inner = LogisticRegression()
    estimator, X = unwrapped(wrap(inner), np.ones((2, 3)))
    assert estimator is inner
    np.testing.assert_array_equal(X, np.full((2, 3), 2.0**times))
    assert unwrapped(wrap(inner)) == (inner, None)


@pytest.mark.parametrize("wrapping", [name for name in WRAPPINGS if name != "bare"])
@pytest.mark.parametrize("use", USES)
def test_what_helpers_and_displays_say_is_the_same(fitted, blobs, use, wrapping):
    wrap, times = WRAPPINGS[wrapping]
    X = blobs[0]
    expected = USES[use](fitted, 2**times * X)
    np.testing.assert_array_equal(USES[use](wrap(fitted), X), expected)


@pytest.mark.parametrize("kind", [GridSearchCV, RandomizedSearchCV, HalvingRandomSearchCV])
def test_searches(small_ssn, blobs, kind):
    X, y = blobs
    model = make_pipeline(StandardScaler(), small_ssn(max_iter=4, growth_iter=1))
    search = kind(model, {}, cv=2).fit(X, y)
    network, scaled = unwrapped(search, X)
    assert network is search.best_estimator_[-1]
    np.testing.assert_array_equal(scaled, search.best_estimator_[:-1].transform(X))
    assert stability_score(search, X, duration=30.0) == stability_score(
        network, scaled, duration=30.0
    )


@pytest.mark.parametrize("use", USES)
def test_a_search_that_kept_no_estimator(small_ssn, blobs, use):
    search = GridSearchCV(small_ssn(max_iter=4, growth_iter=1), {}, cv=2, refit=False)
    for model in (search, piped(search)):
        with pytest.raises(ValueError, match=r"GridSearchCV has no best estimator .* refit=True"):
            USES[use](model, blobs[0])


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("use", USES)
def test_what_is_not_fitted(small_ssn, blobs, use, wrapping):
    with pytest.raises(NotFittedError):
        USES[use](WRAPPINGS[wrapping][0](small_ssn()), blobs[0])
    with pytest.raises(NotFittedError):
        USES[use](piped(GridSearchCV(small_ssn(), {})), blobs[0])
