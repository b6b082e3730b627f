"""What editors and notebooks show of names that are loaded only when asked for."""

import pytest
from sklearn.base import BaseEstimator
from stub import PATH, text
from zoo import ESTIMATORS

import ssn_estimators
from ssn_estimators._sklearn import DOCUMENTATION


def test_the_stub_has_all_public_names():
    assert PATH.read_text() == text(), "run python tests/stub.py"


@pytest.mark.parametrize("name", ["SSNClassifier", "SSNRegressor", "Circuit", "simulate"])
def test_editors_explain(name):
    jedi = pytest.importorskip("jedi")
    script = jedi.Script(f"from ssn_estimators import {name}\n{name}(")
    (found,) = script.goto(2, 1, follow_imports=True)
    summary = getattr(ssn_estimators, name).__doc__.strip().split("\n")[0]
    assert found.docstring(raw=True).startswith(summary)
    if name != "Circuit":  # Jedi takes no signature from dataclass(init=False)
        assert script.get_signatures()[0].params


@pytest.mark.parametrize(
    "start", ["import ssn_estimators as se\nse.", "from ssn_estimators import "]
)
def test_names_are_completed(start):
    jedi = pytest.importorskip("jedi")
    assert [found.name for found in jedi.Script(start + "SSNCl").complete()] == ["SSNClassifier"]


def test_methods_are_completed():
    jedi = pytest.importorskip("jedi")
    script = jedi.Script("from ssn_estimators import SSNClassifier\nSSNClassifier().predict")
    assert {"predict", "predict_proba"} <= {found.name for found in script.complete()}


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda x: type(x).__name__)
def test_the_question_mark_leads_to_the_page_of_the_estimator(estimator):
    page = f"{DOCUMENTATION}/generated/ssn_estimators.{type(estimator).__name__}.html"
    assert isinstance(estimator, BaseEstimator)
    assert f'href="{page}"' in estimator._repr_html_()
