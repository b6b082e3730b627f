"""What a fit says while one waits, the same for all: lines of `verbose`, and bars."""

import logging
import warnings
from itertools import chain, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.callback import ProgressBar
from sklearn.exceptions import ConvergenceWarning
from zoo import ESTIMATORS, short_confirmations, small

from ssn_estimators import SpikingRegressor, fit_many
from ssn_estimators.datasets import make_cued_sinusoids

X = np.random.RandomState(0).randint(0, 64, (60, 9)) / 8
y = np.arange(60) % 3
GROWING = [e for e in ESTIMATORS if hasattr(e, "growth_iter") and hasattr(e, "verbose")]
STEPWISE = [e for e in ESTIMATORS if hasattr(e, "_take_steps")]


def name_of(estimator):
    return type(estimator).__name__


@pytest.fixture(autouse=True)
def short():
    with short_confirmations(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.fixture
def said(capsys):
    """The lines that a fit prints."""

    def lines(estimator, verbose, *data):
        estimator.set_params(verbose=verbose).fit(*data or (X, y))
        return capsys.readouterr().out.splitlines()

    return lines


@pytest.mark.parametrize("estimator", GROWING, ids=name_of)
def test_stages_and_every_so_many_steps(estimator, said):
    assert said(small(estimator), False) == said(small(estimator), 0) == []
    stages = said(small(estimator), True)
    assert said(small(estimator), 1) == stages
    assert all(" of " not in line for line in stages)

    lines = said(small(estimator), 2)
    assert [line for line in lines if " of " not in line] == stages
    steps = [line for line in lines if "of 6 steps" in line]
    for i, line in enumerate(steps):
        assert f"   {2 * (i % 3 + 1)} of 6 steps   loss " in line
    # the last step of a stage has the numbers that the stage ends with
    for before, after in pairwise(lines):
        if " of " in before and " of " not in after:
            assert before.split("loss")[1] == after.split("loss")[1]


def test_steps_undone_are_counted_by_stage(said, blobs, small_ssn):
    ssn = small_ssn(max_iter=30, growth_iter=10, learning_rate_init=3.0, max_rejected_steps=40)
    lines = said(ssn, 2, *blobs)
    so_far, undone, most = 0, [], 0
    for line in lines:
        n = int(line.split("rejected")[1])
        assert n >= so_far
        so_far, most = (n, max(most, n)) if " of " in line else (0, most)
        if " of " not in line:
            undone.append(n)
    assert most > 0
    assert sum(undone) == ssn.n_rejected_steps_


@pytest.mark.parametrize("estimator", STEPWISE, ids=name_of)
def test_companions_say_every_so_many_steps(estimator, said):
    assert said(small(estimator), False) == []
    assert len(said(small(estimator), True)) == 1
    lines = said(small(estimator), 4)
    assert [line.split()[2] for line in lines] == ["4", "6"]  # the last one, too


def test_spiking_networks_say_every_so_many_updates(said):
    inputs, paths = make_cued_sinusoids(40, random_state=0)
    cells = {"connectivity": 0.5, "burn_in": 50.0, "max_iter": 2, "random_state": 0}
    loops = said(SpikingRegressor(**cells), True, inputs, paths)
    assert [line.split()[2] for line in loops] == ["1", "2"]
    n_updates = paths.shape[0] * paths.shape[1]
    lines = said(SpikingRegressor(**cells), 10, inputs, paths)
    assert [line for line in lines if "updates" not in line] == loops
    assert len(lines) == 2 * (n_updates // 10) + 2


def heard(level=logging.NOTSET):
    """A handler that keeps its records."""
    handler = logging.Handler(level)
    handler.records = []
    handler.emit = handler.records.append
    return handler


@pytest.mark.parametrize("where", ["ssn_estimators", None])
@pytest.mark.parametrize("estimator", [GROWING[0], STEPWISE[0]], ids=name_of)
def test_handlers_get_every_line_once(estimator, where, said, monkeypatch):
    lines = said(small(estimator), 2)
    logger, handler = logging.getLogger(where), heard()
    monkeypatch.setattr(logger, "handlers", [*logger.handlers, handler])
    # at the level that a root has by default they would be lost, and are printed
    assert said(small(estimator), 2) == lines
    assert handler.records == []
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        assert said(small(estimator), 2) == []
        assert said(small(estimator), False) == []
    finally:
        logger.setLevel(level)
    assert [record.getMessage() for record in handler.records] == lines
    assert {record.name for record in handler.records} == {"ssn_estimators"}
    assert {record.module for record in handler.records} <= {"loop", "_stepwise"}


def test_without_a_handler_lines_are_printed_at_any_level(said, monkeypatch):
    """That of last resort knows warnings only."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logger = logging.getLogger("ssn_estimators")
    logger.setLevel(logging.DEBUG)
    try:
        assert said(small(GROWING[0]), True)
    finally:
        logger.setLevel(logging.NOTSET)


def test_networks_side_by_side_say_their_own_lines(said, capsys):
    alone = [said(small(GROWING[0]).set_params(random_state=seed), 3) for seed in (0, 1)]
    both = [small(GROWING[0]).set_params(random_state=seed, verbose=3) for seed in (0, 1)]
    fit_many(both, X, y)
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(chain(*alone))


@pytest.mark.parametrize("estimator", [GROWING[0], STEPWISE[0]], ids=name_of)
@pytest.mark.parametrize("widgets", [True, False])
def test_bars_that_a_notebook_cannot_show(estimator, widgets, monkeypatch):
    pytest.importorskip("rich")
    fit = small(estimator).set_callbacks(ProgressBar()).fit
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)  # of few steps
        fit(X, y)  # no notebook
    console = SimpleNamespace(is_jupyter=True)
    monkeypatch.setattr(
        "ssn_estimators._sklearn.import_module",
        lambda name: SimpleNamespace(get_console=lambda: console),
    )
    monkeypatch.setattr("ssn_estimators._sklearn.find_spec", lambda name: widgets or None)
    if widgets:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit(X, y)
    else:
        with pytest.warns(UserWarning, match="pip install ipywidgets"):
            fit(X, y)


@pytest.mark.parametrize("verbose", [-1, 1.5, "yes"])
def test_what_verbose_cannot_be(verbose):
    for estimator in (GROWING[0], STEPWISE[0]):
        with pytest.raises(ValueError, match="'verbose' parameter"):
            small(estimator).set_params(verbose=verbose).fit(X, y)
