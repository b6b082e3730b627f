"""What every estimator that takes a table promises, each written once and asked of all.

The answer to a row does not depend on company; the same seed gives the same network; pickles
answer and go on as before; what is interrupted keeps what it has; what is not finite is an error;
dtypes and global state stay; whatever the caller has set for torch and scikit-learn, however the
table lies in memory, in threads and in forked processes, the outcome is the same; parameters that
do not count are named.
"""

import contextlib
import inspect
import multiprocessing
import pickle
import re
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import sklearn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import _config as sklearn_config
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_info
from zoo import ESTIMATORS, METHODS, short_confirmations, small

from ssn_estimators import (
    Circuit,
    DivergenceError,
    SpikingRegressor,
    inspection,
    simulate,
    stationary_moments,
)
from ssn_estimators.datasets import make_spiral

# numbers that half precision holds, so that arrays of any precision are the same table
X = np.random.RandomState(0).randint(0, 64, (60, 9)) / 8
y = np.arange(60) % 3


def outcome(estimator, X=X):
    """What a fitted estimator says of some rows."""
    found = {m: getattr(estimator, m)(X[:9]) for m in METHODS if hasattr(estimator, m)}
    for name in ("readout_weights_", "coef_"):
        if hasattr(estimator, name):
            found[name] = getattr(estimator, name)
    return {name: np.asarray(value) for name, value in found.items()}


def answers(estimator, X=X):
    """The same, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return outcome(estimator, X)


def fitted(estimator, X=X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return small(estimator).fit(X, y)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.fixture(scope="module", autouse=True)
def short():
    with short_confirmations():
        yield


@pytest.fixture(scope="module", params=ESTIMATORS, ids=lambda e: type(e).__name__)
def case(request):
    """An estimator and its answers under no special circumstances."""
    return request.param, answers(fitted(request.param))


def test_a_row_alone_is_the_row_in_company(case):
    estimator, expected = case
    model = fitted(estimator)
    for name in METHODS:
        if hasattr(model, name):
            method = getattr(model, name)
            alone = np.concatenate([method(X[i : i + 1]) for i in range(9)])
            turned = method(X[8::-1])[::-1]
            for found in (alone, turned):
                if found.dtype.kind == "f":
                    assert_allclose(found, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
                else:
                    assert_array_equal(found, expected[name], err_msg=name)


def test_same_seed_same_network(case):
    estimator, expected = case
    assert_same(answers(fitted(estimator)), expected)
    generator = {"random_state": np.random.RandomState(0)}
    if "random_state" in estimator.get_params():
        made = small(estimator).set_params(**generator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            assert_same(answers(made.fit(X, y)), expected)


def test_pickles_answer_as_before_and_go_on(case):
    estimator, expected = case
    model = fitted(estimator)
    again = pickle.loads(pickle.dumps(model))
    assert_same(answers(again), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for one in (model, again):
            if "warm_start" in one.get_params():
                one.set_params(warm_start=True)
            one.fit(X, y)
    assert_same(answers(again), answers(model))


@pytest.mark.parametrize("size", [1e30, 1e300])
def test_an_answer_is_finite_or_an_error(case, size):
    """Also far away from all that was seen."""
    estimator, _ = case
    model, far = fitted(estimator), np.vstack([X[:3], size * np.ones((1, 9))])
    for name in METHODS:
        if hasattr(model, name):
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    found = np.asarray(getattr(model, name)(far))
            except (DivergenceError, ValueError, FloatingPointError):
                continue
            assert found.dtype.kind != "f" or np.isfinite(found).all(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_in_dtype_out(case, dtype):
    estimator, _ = case
    model = fitted(estimator, X.astype(dtype))
    for name in ("transform", "inverse_transform"):
        if hasattr(model, name):
            given = X if name == "transform" else model.transform(X)
            assert getattr(model, name)(given.astype(dtype)).dtype == dtype, name


EVERY = [*ESTIMATORS, SpikingRegressor()]
# What a parameter may be set to, by its usual value
OTHERS = {
    bool: lambda x: not x,
    int: lambda x: x + 2,
    float: lambda x: x / 2,
    tuple: lambda x: (*x, 2),
}
CHANGED = {
    "parents": "random",
    "clone_shares": "random",
    "estimator": "plain",
    "dynamics": None,
    "flow": "affine",
    "image_shape": (3, 3),
    "n_plastic": 3,
    "learning_rate": "constant",
}
COUNTS_NOT = {  # values of others under which it does not
    "growth": None,
    "moments": "simulation",
    "trainer": "bptt",
    "lateral": None,
    "normalize": False,
    "n_layers": 0,
    "filters": np.eye(9)[:3],
    "static_weights": False,
    "early_stopping": False,
    "trained": "readout",
}


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
def test_parameters_that_do_not_count_are_named(estimator):
    """A set one that does not; not one that does, nor one that is as usual."""
    defaults = inspect.signature(type(estimator)).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        type(estimator)()._heed_ignored()
        estimator._heed_ignored()
    for name, (other, *_) in type(estimator)._only_with.items():
        usual = defaults[name].default
        value = CHANGED[name] if name in CHANGED else OTHERS[type(usual)](usual)
        if value is None or other == "objective":
            continue
        value = "equal" if value == usual else value
        made = type(estimator)(**{name: value, other: COUNTS_NOT[other]})
        with pytest.warns(UserWarning, match=rf"ignores {name}=.* it counts with "):
            made._heed_ignored()


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
def test_clones_are_not_warned_of_what_is_as_usual(estimator):
    """They have copies of it."""
    usual = type(estimator)()
    others = {other for other, *_ in usual._only_with.values()} & set(COUNTS_NOT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in others:
            clone(clone(usual).set_params(**{other: COUNTS_NOT[other]}))._heed_ignored()


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
def test_parameters_are_valid_before_they_are_compared(estimator):
    for name, (other, *_) in type(estimator)._only_with.items():
        for value in ([[1], [1, 2]], np.array([1, 2]), 3 + 1j):
            for wrong in (name, other):
                if wrong in ("filters", "image_shape", "hidden_layer_sizes", "parents"):
                    continue  # arrays may be legal
                made = type(estimator)().set_params(**{wrong: value})
                with pytest.raises(ValueError, match=f"'{wrong}' parameter"):
                    made.fit(X, y)


def test_parameters_that_do_not_count_are_named_by_fits():
    estimator = ESTIMATORS[0]
    with pytest.warns(UserWarning, match="ignores es_samples=4: it counts with trainer='es' only"):
        small(estimator).set_params(es_samples=4).fit(X, y)


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


SURROUNDINGS = {
    "default dtype": default_dtype,
    "default device": default_device,
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "pandas output": lambda: sklearn.config_context(transform_output="pandas"),
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_what_the_caller_has_set(case, surroundings):
    estimator, expected = case
    with SURROUNDINGS[surroundings]():
        assert_same(answers(fitted(estimator)), expected)


FUNCTIONS = [
    inspection.bifurcations,
    inspection.closure_bias,
    inspection.coherence,
    inspection.cross_spectrum,
    inspection.ei_balance,
    inspection.fixed_points,
    inspection.jacobian,
    inspection.lfp_spectrum,
    inspection.oscillations,
    inspection.perturb,
    inspection.power_spectrum,
    inspection.response_matrix,
    inspection.spectral_abscissa,
    inspection.steady_states,
    inspection.transient_amplification,
    simulate,
    stationary_moments,
]
MORE = {  # what they take besides a circuit and its drive
    "bifurcations": ([0.0, 1.0],),
    "coherence": ([5.0], "E", "I"),
    "perturb": ("I", 0.1),
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_of_circuits_heed_no_default_device(function):
    pair = Circuit([[1.25, -0.65], [1.2, -0.5]], n_excitatory=1, noise_factor=0.2)
    name, drive = function.__name__, [[2.0, 2.0], [5.0, 4.0]]
    more = ([5.0],) if "spectrum" in name else MORE.get(name, ())
    seed = {"random_state": 0} if name in ("closure_bias", "simulate", "perturb") else {}
    expected = function(pair, drive, *more, **seed)
    with default_device():
        found = function(pair, drive, *more, **seed)
    assert joblib.hash(found) == joblib.hash(expected)


def test_nothing_global_is_changed(case):
    """Neither generators of random numbers nor numbers of threads."""

    def state():
        threads = {(i["filepath"], i["num_threads"]) for i in threadpool_info()}
        numbers = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        return *numbers, threads, torch.get_num_threads(), torch.is_grad_enabled()

    estimator, _ = case
    threadpool_info()
    before = state()
    answers(fitted(estimator))
    assert state() == before


def mapped(X, folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


LAYOUTS = {
    "columns": np.asfortranarray,
    "backwards": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "byte order": lambda X: X.astype(X.dtype.newbyteorder()),
    "half": lambda X: X.astype(np.float16),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_how_a_table_lies_in_memory(case, layout):
    estimator, expected = case
    table = LAYOUTS[layout](X)
    assert_same(answers(fitted(estimator, table), table), expected)


def test_memory_mapped_tables(case, tmp_path):
    estimator, expected = case
    table = mapped(X, tmp_path)
    assert_same(answers(fitted(estimator, table), table), expected)


def test_data_frames_are_known_by_their_names(case):
    pd = pytest.importorskip("pandas")
    estimator, expected = case
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    found = fitted(estimator, frame)
    assert_array_equal(found.feature_names_in_, frame.columns)
    assert_same(answers(found, frame), expected)  # a warning would be an error


def test_threads(case):
    estimator, expected = case
    with warnings.catch_warnings(), ThreadPoolExecutor(3) as pool:  # whose filters are shared
        warnings.simplefilter("ignore", ConvergenceWarning)
        for found in pool.map(lambda _: outcome(small(estimator).fit(X, y)), range(3)):
            assert_same(found, expected)


def send(connection, work):
    connection.send(work())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_forked_processes(case):
    """Whose threads are those of the parent, and gone."""
    estimator, expected = case
    parent, n_threads = fitted(estimator), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.ones(10**6).exp().sum()  # threads are made when first needed
        context = multiprocessing.get_context("fork")
        for work in (lambda: answers(parent), lambda: answers(fitted(estimator))):
            mine, theirs = context.Pipe()
            child = context.Process(target=send, args=(theirs, work))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # there are threads
                child.start()
            try:
                assert mine.poll(60), "the child hangs"
                assert_same(mine.recv(), expected)
            finally:
                child.kill()
                child.join()
    finally:
        torch.set_num_threads(n_threads)


def interrupted_after(seconds, work):
    """Whether Ctrl-C, so many seconds later, went through the work."""

    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGALRM, interrupt)
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = False
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        work()
        done = True
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:  # maybe when all was done
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, usual)
    return not done


def check_interrupt(estimator, seconds):
    """The best so far is kept, or nothing is half written."""
    made, threads, config = small(estimator), threading.active_count(), sklearn.get_config()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        raised = interrupted_after(seconds, lambda: made.fit(X, y))
    if raised and vars(made).keys() == vars(small(estimator)).keys():
        with pytest.raises(NotFittedError):
            check_is_fitted(made)
    else:
        assert answers(made)
    assert threading.active_count() <= threads + torch.get_num_threads()
    assert sklearn.get_config() == config


@pytest.mark.parametrize("work", [*ESTIMATORS, make_spiral], ids=lambda work: type(work).__name__)
def test_interrupts_while_settings_are_put_back(work, monkeypatch):
    """Where scikit-learn ends a call, they left its checks of parameters off, for all that came."""
    config, put_back = sklearn.get_config(), sklearn_config.set_config

    def interrupted(**options):
        monkeypatch.setattr(sklearn_config, "set_config", put_back)
        if options["skip_parameter_validation"] is False:
            raise KeyboardInterrupt
        put_back(**options)
        monkeypatch.setattr(sklearn_config, "set_config", interrupted)

    monkeypatch.setattr(sklearn_config, "set_config", interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        make_spiral() if work is make_spiral else small(work).fit(X, y)
    assert sklearn_config.set_config is put_back  # it was interrupted
    assert sklearn.get_config() == config


@pytest.mark.parametrize("seconds", [0.002, 0.03])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_interrupts(estimator, seconds):
    check_interrupt(estimator, seconds)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_interrupts_at_random_times(estimator):
    """200 of them, over all that are fitted."""
    start = time.perf_counter()
    fitted(estimator)
    whole = time.perf_counter() - start
    rng = np.random.RandomState(0)
    for share in rng.uniform(size=-(-200 // len(ESTIMATORS))):
        check_interrupt(estimator, max(share * whole, 1e-4))


@pytest.mark.parametrize(
    "estimator", [*ESTIMATORS, SpikingRegressor()], ids=lambda e: type(e).__name__
)
def test_choices_that_are_documented_are_those_that_are_legal(estimator):
    lines = re.findall(r"(?m)^([\w, ]+) : (.*)$", inspect.getdoc(type(estimator)))
    documented = {
        name: set(re.findall(r'"([^"]+)"', kind.split(", default")[0]))
        for names, kind in lines
        for name in names.split(", ")
    }
    for name, constraints in type(estimator)._parameter_constraints.items():
        found = [one for one in constraints if isinstance(one, StrOptions)]
        if name in estimator.get_params() and documented[name]:
            assert documented[name] == set().union(*(one.options for one in found)), name


def options_of(method):
    return inspect.signature(method).parameters


BAD_WEIGHTS = {
    "negative": -np.ones(60),
    "NaN": np.full(60, np.nan),
    "all 0": np.zeros(60),
    "too few": np.ones(3),
    "columns": np.ones((60, 2)),
}


@pytest.mark.parametrize("weights", BAD_WEIGHTS)
@pytest.mark.parametrize(
    "estimator",
    [
        e
        for e in ESTIMATORS
        if "sample_weight" in options_of(getattr(e, "score", print))
        and type(e).score.__module__.startswith("ssn_estimators")
    ],
    ids=lambda e: type(e).__name__,
)
def test_weights_that_scores_refuse(estimator, weights):
    with pytest.raises(ValueError, match=r"(?i)weight"):
        fitted(estimator).score(X, y, sample_weight=BAD_WEIGHTS[weights])


@pytest.mark.parametrize("bad", [y[:1], y[:-1], np.column_stack([y, y, y, y]), None])
@pytest.mark.parametrize(
    "estimator", [e for e in ESTIMATORS if is_classifier(e)], ids=lambda e: type(e).__name__
)
def test_scores_are_of_one_label_for_each_sample(estimator, bad):
    network = fitted(estimator)
    assert network.score(X, y) == np.mean(network.predict(X) == y)
    with pytest.raises(ValueError, match=r"(?i)\by\b|y_true|samples|metrics"):
        network.score(X, bad)


@pytest.mark.parametrize(
    "estimator",
    [e for e in ESTIMATORS if "early_stopping" in e.get_params()],
    ids=lambda e: type(e).__name__,
)
def test_too_few_samples_to_hold_out(estimator):
    with pytest.raises(ValueError, match="validation_fraction"):
        small(estimator).set_params(early_stopping=True, validation_fraction=0.999).fit(X, y)


def test_failed_fits_leave_what_was_there(case):
    estimator, expected = case
    before = fitted(estimator)
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        before.fit(np.where(X > 4, np.nan, X), y)
    assert_same(answers(before), expected)
