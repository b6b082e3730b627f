"""Fits that were killed and are started again end with the network that they would have had."""

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.datasets import load_iris
from zoo import short_confirmations

from ssn_estimators import (
    AutoencoderEncoder,
    Checkpoint,
    CNNClassifier,
    EvolutionStrategy,
    GaussianScaleMixture,
    GMMFlow,
    MorrisLecarClassifier,
    RNNClassifier,
    SSNClassifier,
    SSNRegressor,
    SSNSampler,
    fit_many,
)
from ssn_estimators._stepwise import StepwiseMixin
from ssn_estimators.density import Langevin
from ssn_estimators.persistence import read_values, write_values
from ssn_estimators.training.descent import Descent

N_KILLS = int(os.environ.get("N_KILLS", "5"))  # of each kind of network, in the slow test
IRIS = load_iris(return_X_y=True)
IMAGES = np.random.RandomState(0).normal(size=(60, 9))
QUICK = {"n_excitatory": 4, "n_inhibitory": 2, "burn_in": 20.0, "window": 20.0, "random_state": 0}
SHORT = QUICK | {"max_iter": 30, "growth_iter": 8}


class Killed(BaseException):
    """Whoever is killed cannot clean up."""


def drift(x):
    return -x


NETWORKS = {
    "classifier": lambda: SSNClassifier(**SHORT),
    "early stopping": lambda: SSNClassifier(**SHORT | {"max_iter": 110}, early_stopping=True),
    "undone steps, several attempts": lambda: SSNClassifier(
        **SHORT, learning_rate_init=0.3, stability_penalty=0.0, potential_penalty=0.0
    ),
    "cell by cell": lambda: SSNClassifier(**SHORT, growth="single", parents="gradient"),
    "evolution strategy": lambda: SSNClassifier(**SHORT, trainer="es", es_samples=4),
    "generator": lambda: SSNClassifier(**SHORT | {"random_state": np.random.RandomState(3)}),
    "regressor": lambda: SSNRegressor(**SHORT | {"max_iter": 110}, early_stopping=True),
    "sampler": lambda: SSNSampler(
        GaussianScaleMixture(2, max_iter=5, random_state=0),
        max_iter=12,
        growth_iter=4,
        finetune_iter=8,
        n_trials_predict=4,
        window_predict=60.0,
        random_state=0,
    ),
}
COMPANIONS = {
    "autoencoder": lambda: AutoencoderEncoder(3, hidden_layer_sizes=(8,), early_stopping=True),
    "rnn": lambda: RNNClassifier(12, early_stopping=True),
    "cnn": lambda: CNNClassifier((4,), lateral="linear", dropout=0.2),
    "flow": lambda: GMMFlow(3, n_layers=2, hidden_layer_sizes=(8,)),
    "carried flow": lambda: GMMFlow(
        3, n_layers=0, objective="fokker_planck", dynamics=Langevin(drift, np.eye(9))
    ),
    "morris-lecar": lambda: MorrisLecarClassifier(
        6, word_duration=5.0, read_duration=5.0, n_samples=4, early_stopping=True
    ),
    "morris-lecar, bptt": lambda: MorrisLecarClassifier(
        6, word_duration=5.0, read_duration=5.0, trainer="bptt"
    ),
}


@pytest.fixture(autouse=True)
def short():
    with short_confirmations():
        yield


def fitted(model, data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(*data)


def everything(model):
    """All that a fit has left, but for the callbacks."""
    found = {}
    for name, value in vars(model).items():
        if name.endswith("_") and not name.startswith("_"):
            found[name] = value
    return found


def assert_same(found, expected, place=""):
    if hasattr(expected, "weights") and hasattr(expected, "theta"):
        found, expected = vars(found), vars(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for name in expected:
            assert_same(found[name], expected[name], f"{place}.{name}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), place
        for i, (x, y) in enumerate(zip(found, expected, strict=True)):
            assert_same(x, y, f"{place}[{i}]")
    elif isinstance(expected, (np.ndarray, int, float, str, type(None))):
        assert_array_equal(found, expected, err_msg=place)


def killed_at(k, place):
    """Fits end at the k-th call of a method."""
    cls, name = place
    original, calls = getattr(cls, name), []

    def killing(*args, **kwargs):
        calls.append(True)
        if len(calls) == k:
            raise Killed
        return original(*args, **kwargs)

    return mock.patch.object(cls, name, killing)


def n_steps(make, data):
    calls, original = [], Descent.step

    def counting(*args):
        calls.append(True)
        return original(*args)

    with mock.patch.object(Descent, "step", counting):
        model = fitted(make(), data)
    return len(calls), everything(model)


LONG = ("early stopping", "undone steps, several attempts", "cell by cell")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in NETWORKS]
)
def test_networks_go_on_to_the_same_bits(name, tmp_path):
    make, data = NETWORKS[name], (IMAGES,) if name == "sampler" else IRIS
    total, expected = n_steps(make, data)
    for k in np.random.RandomState(0).randint(2, total, 3):
        with killed_at(k, (Descent, "step")), pytest.raises(Killed):
            fitted(make().set_callbacks(Checkpoint(tmp_path, every=5)), data)
        assert [path.suffix for path in tmp_path.iterdir()] == [".checkpoint"]
        # killed once more, and again before another checkpoint
        for _ in range(2):
            with killed_at(2, (Descent, "step")), pytest.raises(Killed):
                fitted(make().set_callbacks(Checkpoint(tmp_path, every=5)), data)
        again, found = n_steps(lambda: make().set_callbacks(Checkpoint(tmp_path, every=5)), data)
        assert_same(found, expected)
        assert again <= total
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMPANIONS)
def test_companions_go_on_to_the_same_bits(name, tmp_path):
    if "flow" in name:
        pytest.importorskip("zuko")

    def make():
        return COMPANIONS[name]().set_params(max_iter=120, random_state=0)

    data = (IMAGES, np.arange(60) % 3)
    expected = everything(fitted(make(), data))
    if "bptt" not in name and isinstance(make(), MorrisLecarClassifier):
        assert expected["n_iter_"] < 120 or expected["validation_scores_"]
    take_steps = StepwiseMixin._take_steps

    def stopping(k):
        def some(self, step, *args, **kwargs):
            def until(i):
                if i == k:
                    raise Killed
                return step(i)

            return take_steps(self, until, *args, **kwargs)

        return mock.patch.object(StepwiseMixin, "_take_steps", some)

    last = expected["n_iter_"] - 1
    for k in (last // 3, last):
        with stopping(k), pytest.raises(Killed):
            fitted(make().set_callbacks(Checkpoint(tmp_path, every=7)), data)
        assert list(tmp_path.iterdir())
        found = everything(fitted(make().set_callbacks(Checkpoint(tmp_path, every=7)), data))
        assert_same(found, expected)
        assert not list(tmp_path.iterdir())


def test_many_networks_go_on(tmp_path):
    def make():
        return [SSNClassifier(**SHORT | {"random_state": i, "max_iter": 10 + i}) for i in (0, 1)]

    expected = [everything(fitted(one, IRIS)) for one in make()]
    with killed_at(50, (Descent, "step")), pytest.raises(Killed):
        fit_many(make(), *IRIS, checkpoint=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit_many(make(), *IRIS, checkpoint=tmp_path)
    for one, other in zip(found, expected, strict=True):
        assert_same(everything(one), other)
        assert not hasattr(one, "_skl_callbacks")


def test_without_a_seed_it_goes_on_too(tmp_path):
    """The start of the first call is kept, and the global generator left alone."""

    def make():
        return SSNClassifier(**SHORT | {"random_state": None}).set_callbacks(Checkpoint(tmp_path))

    with killed_at(45, (Descent, "step")), pytest.raises(Killed):
        fitted(make(), IRIS)
    saved = read_values(next(tmp_path.iterdir()))
    before = np.random.get_state()[1].tolist()
    again = fitted(make(), IRIS)
    assert np.random.get_state()[1].tolist() == before
    seeded = np.random.RandomState()
    seeded.set_state(saved["begin"].get_state())
    expected = fitted(SSNClassifier(**SHORT | {"random_state": seeded}), IRIS)
    assert_same(everything(again), everything(expected))


def test_other_fits_are_refused(tmp_path):
    def make(**others):
        return SSNClassifier(**SHORT | others).set_callbacks(Checkpoint(tmp_path))

    with killed_at(10, (Descent, "step")), pytest.raises(Killed):
        fitted(make(), IRIS)
    X, y = IRIS
    for other, data in ((make(max_iter=31), IRIS), (make(), (X[:140], y[:140]))):
        with pytest.raises(ValueError, match="checkpoint of a fit with other data, parameters"):
            other.fit(*data)
        assert not hasattr(other, "circuit_")
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be loaded"):
        make().fit(*IRIS)


def test_an_interrupted_fit_keeps_its_checkpoint(tmp_path):
    expected = everything(fitted(SSNClassifier(**SHORT), IRIS))
    original, calls = Descent.step, []

    def interrupted(*args):
        calls.append(True)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return original(*args)

    ssn = SSNClassifier(**SHORT).set_callbacks(Checkpoint(tmp_path))
    with mock.patch.object(Descent, "step", interrupted):
        assert fitted(ssn, IRIS).n_iter_ < expected["n_iter_"]
    assert_same(everything(fitted(ssn, IRIS)), expected)


def test_bad_parameters(tmp_path):
    for every in (0, 2.5, True, "often"):
        with pytest.raises(ValueError, match="every must be a positive integer"):
            Checkpoint(tmp_path, every=every)
    ssn = SSNClassifier(**SHORT, growth=None, init=lambda n, rng: rng.rand(n, n))
    with pytest.raises(TypeError, match="can be pickled"):
        ssn.set_callbacks(Checkpoint(tmp_path)).fit(*IRIS)
    # a failure before the first step leaves nothing behind
    with pytest.raises(ValueError, match="n_trials"):
        SSNSampler(n_trials=5).set_callbacks(Checkpoint(tmp_path)).fit(IMAGES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_searches_go_on(optimizer, tmp_path):
    def search():
        parameters = {"x": torch.ones(3), "y": torch.zeros(2, 2)}
        return EvolutionStrategy(parameters, optimizer=optimizer, n_samples=10, random_state=0)

    def loss(p):
        return (p["x"] ** 2).sum() + ((p["y"] - 1) ** 2).sum()

    whole = search().minimize(loss, 20)
    first = search().minimize(loss, 8)
    write_values(first.state(), tmp_path / "search")
    second = search()
    second.restore(read_values(tmp_path / "search"))
    second.minimize(loss, 12)
    assert second.loss_curve_ == whole.loss_curve_
    assert second.n_evaluations_ == whole.n_evaluations_
    for name, value in whole.parameters.items():
        assert_array_equal(second.parameters[name], value)


SCRIPT = """
import sys, warnings
import numpy as np
sys.path.insert(0, {tests!r})
import test_checkpoints as t
from ssn_estimators import Checkpoint, save
warnings.simplefilter("ignore")
name, folder, out = sys.argv[1:]
data = (t.IMAGES,) if name == "sampler" else t.IRIS
model = t.NETWORKS[name]()
if folder != "-":
    model.set_callbacks(Checkpoint(folder, every=3))
with t.short_confirmations():
    model.fit(*data)
save(model, out)
"""


def bits(path):
    from ssn_estimators import load

    return everything(load(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classifier", "sampler"])
def test_killed_with_9_at_random_times(name, tmp_path):
    """Wherever it hits, writing included; N_KILLS=25 in the environment for a longer run."""
    script = tmp_path / "fit.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(folder, out):
        return subprocess.Popen([sys.executable, script, name, folder, out], env=environment)

    begun = time.perf_counter()
    assert start("-", str(tmp_path / "whole.ssn")).wait() == 0
    whole, expected = time.perf_counter() - begun, bits(tmp_path / "whole.ssn")
    rng, n_killed = np.random.RandomState(0), 0
    for i in range(4 * N_KILLS):
        folder, out = tmp_path / str(i), tmp_path / f"{i}.ssn"
        child = start(str(folder), str(out))
        time.sleep(rng.uniform(0.3, 1.1) * whole)
        if child.poll() is not None:  # it was over
            assert_same(bits(out), expected)
            continue
        child.send_signal(signal.SIGKILL)
        child.wait()
        n_killed += 1
        assert start(str(folder), str(out)).wait() == 0
        assert_same(bits(out), expected)
        if n_killed == N_KILLS:
            break
    assert n_killed == N_KILLS
