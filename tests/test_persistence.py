"""Files of `save`: they answer as before, and hostile or damaged ones are refused."""

import io
import json
import pickle
import tracemalloc
import warnings
import zipfile
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from saved import FORMATS, X, answers, y
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from zoo import ESTIMATORS, METHODS, short_confirmations, small, targets

from ssn_estimators import (
    Circuit,
    ContrastNormalizer,
    GaussianScaleMixture,
    SpikingRegressor,
    SSNClassifier,
    SSNRegressor,
    SSNSequenceRegressor,
    circuits,
    load,
    save,
)
from ssn_estimators.circuit import kind_of
from ssn_estimators.datasets import make_cued_sinusoids
from ssn_estimators.rate_functions import Saturating


@pytest.fixture(scope="module", autouse=True)
def short():
    with short_confirmations(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.fixture(scope="module", params=ESTIMATORS, ids=lambda e: type(e).__name__)
def model(request, short):
    return small(request.param).fit(X, targets(request.param, y))


@pytest.fixture(scope="module")
def network(short):
    return small(ESTIMATORS[0]).fit(X, y)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.ssn"


def assert_same_answers(found, expected):
    assert type(found) is type(expected)
    assert vars(found).keys() == vars(expected).keys()
    for method in METHODS:
        if hasattr(expected, method):
            assert_array_equal(getattr(found, method)(X), getattr(expected, method)(X))


def test_answers_are_as_before(model, path):
    save(model, path)
    assert_same_answers(load(path), model)


# most were written by an earlier version, which is said
earlier = pytest.mark.filterwarnings("ignore:The file was written by:UserWarning")
every_file = pytest.mark.parametrize(
    "path",
    [path for folder in FORMATS for path in sorted(folder.glob("*.ssn"))],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)


def test_the_present_format_has_a_file_of_every_estimator():
    names = {path.stem for path in FORMATS[-1].glob("*.ssn")}
    assert names == {type(estimator).__name__ for estimator in ESTIMATORS}


@earlier
@every_file
def test_files_of_every_format_are_read(path):
    """Under any Python, and on any processor: see saved.py."""
    found = answers(load(path))
    with np.load(path.with_suffix(".npz")) as expected:
        assert found.keys() == set(expected)
        for method, values in expected.items():
            if values.dtype.kind == "f":
                assert_allclose(found[method], values, rtol=1e-3, atol=1e-5)
            else:
                assert_array_equal(found[method], values)


@earlier
@every_file
def test_files_of_every_format_go_on(path):
    """A fit can go on from them, and has what a fit of today has."""
    model = load(path)
    if "warm_start" not in model.get_params():
        pytest.skip("no fit goes on")
    today = set(vars(small(model).fit(X, targets(model, y))))
    assert today - set(vars(model)) <= {"_skl_callbacks"}
    n_iter = model.n_iter_
    model.set_params(warm_start=True).fit(X, targets(model, y))
    assert model.n_iter_ > n_iter
    assert answers(model).keys() == answers(load(path)).keys()


def test_networks_go_on_as_before(network, path):
    going_on = small(network).set_params(warm_start=True, learning_rate_init=0.001).fit(X, y)
    save(going_on, path)
    loaded = load(path)
    assert_same_answers(loaded.fit(X, y), going_on.fit(X, y))


def test_pickles_know_their_version(model):
    again = pickle.loads(pickle.dumps(model))
    assert_same_answers(again, model)
    with mock.patch("ssn_estimators._sklearn.version", return_value="0.0.1"):
        old = pickle.dumps(model)
    with pytest.warns(UserWarning, match=r"pickled by ssn_estimators 0\.0\.1"):
        assert_same_answers(pickle.loads(old), model)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_circuits(dtype, path):
    weights = np.array([[1.0, -2.0], [3.0, -4.0]], dtype)
    circuit = Circuit(weights, 1, 0.3, theta=(1.0, 2.0, 3.0), gamma=2.5, tau_i=7.0)
    save(circuit, path)
    loaded = load(path)
    assert loaded.weights.dtype == dtype
    for name, value in circuit.__getstate__().items():
        assert_array_equal(getattr(loaded, name), value)
    save(circuit.to_torch(), path)
    assert_array_equal(load(path).weights, weights)


@pytest.mark.parametrize(
    "circuit",
    [
        circuits.kuchibhotla_2017().circuit,
        circuits.del_molino_2017().circuit,
        circuits.holt_2023_gamma(6).circuit,
        Circuit([[0.5, -1.0], [1.0, -0.5]], 1, k=0.5, rate_function=Saturating(50.0)),
    ],
    ids=["four types", "rate function", "receptors", "saturating"],
)
def test_circuits_save_and_load_themselves(circuit, path):
    circuit.save(str(path))
    for found in (Circuit.load(path), load(path)):
        assert kind_of(found) == kind_of(circuit)
        for name in ("weights", "noise_factor", "theta"):
            assert_array_equal(getattr(found, name), getattr(circuit, name))
    circuit.to_torch().save(path)
    assert_array_equal(Circuit.load(path).weights, circuit.weights)


def test_a_circuit_is_not_loaded_from_other_files(network, path):
    with pytest.raises(OSError, match=r"model\.ssn"):
        Circuit.load(path)
    save(network, path)
    with pytest.raises(ValueError, match=r"model\.ssn holds no circuit but .* SSNClassifier"):
        Circuit.load(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cannot be loaded"):
        Circuit.load(path)


def test_spiking_networks(path):
    cues, targets = make_cued_sinusoids(20, n_times=5, random_state=0)
    network = SpikingRegressor(max_iter=1, n_plastic=3, random_state=0).fit(cues, targets)
    save(network, path)
    loaded = load(path)
    assert_array_equal(loaded.predict(cues), network.predict(cues))
    again, expected = (n.partial_fit(cues, targets).predict(cues) for n in (loaded, network))
    assert_array_equal(again, expected)


def test_what_is_made_of_others(path):
    pipeline = make_pipeline(PCA(4, random_state=0), small(ESTIMATORS[0])).fit(X, y)
    save(pipeline, path)
    assert_array_equal(load(path).predict_proba(X), pipeline.predict_proba(X))
    images = ContrastNormalizer().fit_transform(X)
    generative = GaussianScaleMixture(2, max_iter=5, random_state=0).fit(images)
    sampler = small(ESTIMATORS[-1].set_params(generative_model=FrozenEstimator(generative))).fit(
        images
    )
    save(sampler, path)
    loaded = load(path)
    assert_array_equal(loaded.predict(images[:4]), sampler.predict(images[:4]))
    assert loaded.score(images[:4]) == sampler.score(images[:4])


def test_what_is_not_fitted_and_random_states(path):
    rng = np.random.RandomState(3)
    save(SSNClassifier(random_state=rng), path)
    loaded = load(path)
    assert loaded.random_state.randint(10**6) == rng.randint(10**6)


@pytest.mark.parametrize(
    "estimator",
    [e for e in ESTIMATORS if hasattr(e, "set_callbacks")],
    ids=lambda e: type(e).__name__,
)
def test_what_callbacks_are_shown_can_be_saved(estimator, path):
    """And does not know of them when it is loaded."""
    kept = []

    class Saving:
        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context, **_): ...

        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None, **_):
            if fitted_estimator is not None:
                save(fitted_estimator, path)
                kept.append((fitted_estimator, answers_of(fitted_estimator)))
            return False

    small(estimator).set_callbacks(Saving()).fit(X, targets(estimator, y))
    shown, before = kept[-1]
    for later in (False, True):
        if later:
            save(shown, path)
        found = load(path)
        assert not [name for name in vars(found) if "callback" in name]
        for one, other in zip(answers_of(found), before, strict=True):
            assert_array_equal(one, other)


def answers_of(model):
    return [getattr(model, method)(X) for method in METHODS if hasattr(model, method)]


def test_parameters_from_an_array_of_strings(path):
    save(SSNClassifier(weight_structure=np.array(["circulant"])[0]), path)
    assert type(load(path).weight_structure) is str


def test_what_a_file_cannot_hold_is_named(network, path):
    network = pickle.loads(pickle.dumps(network)).set_params(parents=lambda *_: [0])
    with pytest.raises(TypeError, match=r"SSNClassifier\.parents is of type function"):
        save(network, path)
    with pytest.raises(TypeError, match="model must be an estimator or a Circuit, got dict"):
        save({}, path)

    class Own(ContrastNormalizer):
        pass

    with pytest.raises(TypeError, match=r"Own is a .*Own, neither of this package nor"):
        save(Own().fit(X), path)
    assert not list(path.parent.iterdir())


def test_a_file_is_there_whole_or_as_before(network, path):
    save(ContrastNormalizer().fit(X), path)
    before = path.read_bytes()
    with (
        mock.patch("numpy.lib.format.write_array", side_effect=OSError("disk full")),
        pytest.raises(OSError, match="disk full"),
    ):
        save(network, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_versions_and_formats(network, path):
    with mock.patch("ssn_estimators.persistence.version", return_value="0.0.1"):
        save(network, path)
    with pytest.warns(UserWarning, match=r"written by ssn_estimators '0\.0\.1'"):
        load(path)
    with mock.patch("ssn_estimators.persistence.FORMAT", 3):
        save(network, path)
    with pytest.raises(ValueError, match=r"of format 3, .* reads up to format 2; a later one"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(path.with_name("nowhere"))


def test_files_of_the_version_that_was_never_released():
    path = FORMATS[0] / "SSNClassifier.ssn"
    with (
        mock.patch("ssn_estimators.persistence.version", return_value="0.2.0"),
        pytest.warns(UserWarning, match=r"ssn_estimators '0\.1\.0', and this is 0\.2\.0"),
    ):
        load(path)


def rewritten(path, change=lambda content: None, arrays=lambda name, array: array, **options):
    """The file with other contents, whole as far as zip archives are concerned."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(members["model.json"])
    change(content)
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("model.json", json.dumps(content))
        for name, data in members.items():
            if name != "model.json":
                stream = io.BytesIO()
                np.save(stream, arrays(name, np.load(io.BytesIO(data))))
                archive.writestr(name, stream.getvalue())


def state(content):
    return content["model"]["state"]


def member(content, *place):
    """Name of the member that holds an array."""
    value = content["model"]
    for name in place:
        value = value["state"][name]
    return f"arrays/{value['array']}.npy"


CHANGES = {
    "another class": lambda c: c["model"].update(object="os.system"),
    "a module": lambda c: c["model"].update(object="datasets"),
    "no estimator": lambda c: c["model"].update(object="sklearn.preprocessing.os"),
    "a class of it": lambda c: c["model"].update(object="sklearn.utils.Bunch"),
    "instead of a method": lambda c: state(c).update(predict=1),
    "special names": lambda c: state(c).update(__class__=1),
    "no parameter": lambda c: state(c).pop("gamma"),
    "illegal parameter": lambda c: state(c).update(gamma=-1.0),
    "no attribute": lambda c: state(c).pop("readout_weights_"),
    "another type": lambda c: state(c).update(readout_weights_=1.0),
    "no circuit": lambda c: state(c).update(circuit_=None),
    "no seed": lambda c: state(c).update(noise_seed_="x"),
    "no scaler": lambda c: state(c).update(scaler_=None),
    "dense without bias": lambda c: state(c).update(input_bias_=None),
    "one-to-one": lambda c: state(c).update(
        input_bias_=None, input_weights_=None, n_features_in_=5
    ),
    "an array twice": lambda c: state(c).update(readout_weights_=state(c)["readout_bias_"]),
    "an array that is not there": lambda c: state(c).update(readout_weights_={"array": 10**6}),
    "a path": lambda c: state(c).update(readout_weights_={"array": "../../etc/passwd"}),
    "an unknown kind": lambda c: state(c).update(readout_weights_={"eval": "1"}),
    "two kinds": lambda c: state(c).update(readout_weights_={"array": 0, "list": []}),
    "nothing": lambda c: c.update(model=None),
    "no format": lambda c: c.pop("format"),
    "another kind": lambda c: c.update(kind="weights"),
    "strings": lambda c: state(c).update(
        classes_={"strings": ["a"], "shape": [10**12], "as": "str"}
    ),
}


CHANGES |= {
    "labels twice": lambda c: state(c)["classes_"].update(strings=["a", "a", "b"]),
    "labels upside down": lambda c: state(c)["classes_"]["strings"].reverse(),
    "a negative seed": lambda c: state(c).update(noise_seed_=-1),
    "a large seed": lambda c: state(c).update(noise_seed_=2**40),
    "no structure": lambda c: state(c).update(_fitted_structure="nonsense"),
    "no ring": lambda c: state(c).update(_fitted_structure="circulant"),
    "no curve": lambda c: state(c).update(loss_curve_="x"),
    "no scores": lambda c: state(c).update(validation_scores_="x"),
    "no state of Adam": lambda c: state(c).update(_optimizer_state=3),
    "another state of Adam": lambda c: state(c).update(
        _optimizer_state={"dict": [["circuit", {"dict": []}]]}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_contents_that_do_not_fit(network, path, change):
    save(network, path)
    rewritten(path, CHANGES[change])
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(path)


def changed(*place, to):
    """A change of one array."""

    def change(path):
        with zipfile.ZipFile(path) as archive:
            name = member(json.loads(archive.read("model.json")), *place)
        rewritten(path, arrays=lambda n, array: to(array) if n == name else array)

    return change


ARRAYS = {
    "shape": changed("readout_weights_", to=lambda a: a[:, :-1]),
    "dimensions": changed("readout_weights_", to=lambda a: a[None]),
    "NaN": changed("readout_weights_", to=lambda a: np.full_like(a, np.nan)),
    "infinity": changed("input_weights_", to=lambda a: np.full_like(a, np.inf)),
    "Dale": changed("circuit_", "weights", to=lambda a: -a),
    "square": changed("circuit_", "weights", to=lambda a: a[:-1]),
    "complex": changed("readout_weights_", to=lambda a: a.astype(complex)),
    "columns": changed("readout_weights_", to=lambda a: np.asfortranarray(a)),
    "empty": changed("readout_weights_", to=lambda a: a[:0]),
    "integers": changed("readout_weights_", to=lambda a: np.zeros(a.shape, int)),
}
OF_TARGETS = {
    "scale 0": changed("target_scaler_", "scale_", to=np.zeros_like),
    "negative variance": changed("target_scaler_", "var_", to=lambda a: -a),
    "other targets": changed("target_scaler_", "mean_", to=lambda a: np.append(a, a)),
}
OF_SEQUENCES = {
    "scale 0": changed("scaler_", "scale_", to=np.zeros_like),
    "cells as numbers": changed("input_cells_", to=lambda a: a.astype(float)),
    "cells as bytes": changed("output_cells_", to=lambda a: a.astype(np.uint8)),
}
ALL_ARRAYS = [
    *((SSNClassifier, change) for change in ARRAYS.values()),
    *((kind, own) for own in OF_TARGETS.values() for kind in (SSNRegressor, SSNSequenceRegressor)),
    *((SSNSequenceRegressor, change) for change in OF_SEQUENCES.values()),
]


@pytest.mark.parametrize(
    ("kind", "change"), ALL_ARRAYS, ids=[*ARRAYS, *np.repeat([*OF_TARGETS], 2), *OF_SEQUENCES]
)
def test_arrays_that_do_not_fit(kind, change, path):
    found = next(e for e in ESTIMATORS if type(e) is kind)
    save(small(found).fit(X, targets(found, y)), path)
    change(path)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(path)


NAN = {"float": "nan"}
NUMBERS = {
    "ContrastNormalizer": {"scale_": (0.0, -1.0, NAN)},
    "GaussianScaleMixture": {"noise_std_": (-1.0, NAN), "z_shape_": (0.0,), "z_rate_": (-1.0,)},
    "MorrisLecarClassifier": {"input_scale_": (0.0, -1.0, NAN), "validation_scores_": ("x",)},
    "CNNClassifier": {"input_scale_": (0.0, -1.0), "input_mean_": (NAN,)},
    "LateralContext": {"background_": (NAN, -1.0), "n_channels_": (3,), "n_samples_seen_": (-4,)},
    "RNNClassifier": {"n_iter_": ("x", -1), "loss_curve_": (3,), "validation_scores_": ("x",)},
}
ALL_NUMBERS = [
    (kind, name, value)
    for kind, names in NUMBERS.items()
    for name, values in names.items()
    for value in values
]


@pytest.mark.parametrize(("kind", "name", "value"), ALL_NUMBERS)
def test_numbers_that_are_not_legal(kind, name, value, path):
    found = next(e for e in ESTIMATORS if type(e).__name__ == kind)
    save(small(found).fit(X, targets(found, y)), path)
    rewritten(path, lambda c: state(c).update({name: value}))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(path)


def test_regressors_without_scales(path):
    for kind in (SSNRegressor, SSNSequenceRegressor):
        found = next(e for e in ESTIMATORS if type(e) is kind)
        save(small(found).fit(X, targets(found, y)), path)
        rewritten(path, lambda c: state(c)["target_scaler_"]["state"].update(scale_=None))
        with pytest.raises(ValueError, match="target_scaler_ does not scale"):
            load(path)


def test_no_memory_is_taken_for_what_a_file_only_claims(network, path):
    save(network, path)
    huge = np.lib.format.header_data_from_array_1_0(np.zeros(1)) | {"shape": (10**6, 10**6)}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, huge)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, stream.getvalue() if name == "arrays/0.npy" else data)
    with pytest.raises(ValueError, match="has 0 bytes"):
        load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # a thousandth of its size
        archive.writestr("model.json", b" " * 10**8)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="must not be compressed"):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def check_damaged(data, path, rng, n):
    """Flipped, cut, overwritten and inserted bytes: an error, or the same model."""
    expected = load(path)
    for _ in range(n):
        damaged, at = bytearray(data), rng.randint(len(data))
        how = rng.randint(5)
        if how == 0:
            damaged[at] ^= 1 << rng.randint(8)
        elif how == 1:
            del damaged[at:]
        elif how == 2:
            damaged[at : at + 20] = rng.bytes(20)
        elif how == 3:
            damaged[at:at] = rng.bytes(rng.randint(1, 50))
        else:
            del damaged[at : at + rng.randint(1, 200)]
        path.write_bytes(damaged)
        try:
            loaded = load(path)
        except (ValueError, OSError):
            continue
        # a byte that says nothing, such as of a date
        assert_array_equal(loaded.readout_weights_, expected.readout_weights_)
        assert_array_equal(loaded.circuit_.weights, expected.circuit_.weights)
        assert_array_equal(loaded.predict(X[:2]), expected.predict(X[:2]))


def test_damaged_files(network, path):
    save(network, path)
    check_damaged(path.read_bytes(), path, np.random.RandomState(0), 300)


@pytest.mark.slow
def test_ten_thousand_damaged_files(network, path):
    save(network, path)
    tracemalloc.start()
    try:
        check_damaged(path.read_bytes(), path, np.random.RandomState(1), 10_000)
        assert tracemalloc.get_traced_memory()[1] < 10**8
    finally:
        tracemalloc.stop()


def test_tensors_are_not_needed_to_read_a_file(network, path):
    """A file of a network from a GPU names no device but the estimator's parameter."""
    save(network, path)
    with zipfile.ZipFile(path) as archive:
        assert b"torch" not in archive.read("model.json")
    assert not torch.cuda.is_available() or load(path).predict(X).shape == (60,)
