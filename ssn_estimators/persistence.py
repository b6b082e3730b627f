"""`save` and `load`: fitted estimators and circuits in one file of arrays and JSON.

The file is a zip archive, without compression, of ``model.json`` and of one ``.npy`` for each
array. Loading it runs no code but that of this package and of scikit-learn, and takes no more
memory than the file is long; what does not fit together is refused.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import tempfile
import warnings
import zipfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import Bunch

import ssn_estimators
from ssn_estimators.circuit import Circuit
from ssn_estimators.fitting.kernels import Connectivity
from ssn_estimators.fitting.parameters import Free
from ssn_estimators.geometry.space import Space
from ssn_estimators.lateral.rule import CoActivation
from ssn_estimators.rate_functions import AbbottChance, MillerTroyer, Ricciardi, Saturating
from ssn_estimators.receptors import Receptors
from ssn_estimators.spiking.lif import Synapses
from ssn_estimators.spiking.rls import PENDING, RecursiveLeastSquares

if TYPE_CHECKING:
    from typing import Any

    from ssn_estimators._typing import StrPath

__all__ = ["load", "read_values", "save", "write_values"]

FORMAT = 2
KIND = "ssn_estimators"
NUMERIC = "biuf"  # kinds of arrays
SCALARS = (bool, int, str)
# Of arrays that hold something else than floats
KINDS = {"classes_": "biufUO", "sources": "iu", "input_cells_": "b", "output_cells_": "b"}
LONG = 32  # floats in a list that are kept as an array
MOST_JSON = 2**24  # bytes; what is large stands in arrays
NOT_KEPT = re.compile("_.*callback")  # names of what scikit-learn notes while it calls them back
# What values that estimators hold are made of, with the shapes of arrays
PARTS = {
    CoActivation: {
        "extent": int,
        "spacing": int,
        "single": ("features",),
        "n_single": (int, float),
        "pairs": ("side", "side", "features", "features"),
        "n_pairs": ("side", "side"),
    },
    RecursiveLeastSquares: {
        "weights": ("cells", "inputs"),
        "_p": ("cells", "inputs", "inputs"),
        "_kept": ("cells", PENDING, "inputs"),
        "_n_kept": int,
    },
    Synapses: {"sources": ("cells", "inputs"), "weights": ("cells", "inputs")},
}
POSITIVE = ("input_scale_", "noise_std_", "scale_", "variance_", "z_shape_", "z_rate_")
# What fits of all estimators of this package tell of themselves
TOLD = {
    "loss_curve_?": list,
    "validation_scores_?": list,
    "n_iter_?": int,
    "n_samples_seen_?": int,
    "_seed?": int,
}
# Values that are made anew from their parameters, which they check
MADE = (Receptors, Connectivity, Free, Space, AbbottChance, MillerTroyer, Ricciardi, Saturating)
# Those of scikit-learn's that networks hold
FEATURES = ("n_features_in_",)
SHAPES = {
    MinMaxScaler: dict.fromkeys(
        ("min_", "scale_", "data_min_", "data_max_", "data_range_"), FEATURES
    ),
    StandardScaler: {"mean_?": FEATURES, "scale_?": FEATURES, "var_?": FEATURES},
}


def save(model: BaseEstimator | Circuit, path: StrPath) -> None:
    """Save a fitted estimator or a circuit, without pickle.

    Parameters
    ----------
    model : estimator or Circuit
        One of this package, or one of scikit-learn's that holds numbers, strings and arrays, such
        as a Pipeline of an encoder and a network. A circuit of tensors is saved as one of arrays.
    path : str or path-like
        File to write. It is written aside and renamed, so that there is never half of one.

    Raises
    ------
    TypeError
        If something in it is neither of those nor an estimator, such as a function that is a
        parameter.

    See Also
    --------
    load : Reads such files.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from ssn_estimators import Circuit, load, save
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "pair.ssn"
    >>> save(Circuit([[1.0, -2.0], [3.0, -4.0]], n_excitatory=1, noise_factor=1.0), path)
    >>> load(path).n_inhibitory
    1
    """
    if not isinstance(model, (Circuit, BaseEstimator)):
        raise TypeError(f"model must be an estimator or a Circuit, got {type(model).__name__}.")
    _write("model", model, type(model).__name__, path)


def write_values(values, path):
    """Write a dict of arrays, numbers, strings and circuits as :func:`save` writes models."""
    _write("values", values, "values", path)


def _write(member, value, place, path):
    writer = _Writer()
    content = {
        "kind": KIND,
        "format": FORMAT,
        "versions": {name: version(name) for name in (KIND, "scikit-learn", "numpy")},
        member: writer.encoded(value, place),
    }
    path = Path(path)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model.json", json.dumps(content, allow_nan=False))
            for i, array in enumerate(writer.arrays):
                with archive.open(_member(i), "w", force_zip64=True) as part:
                    np.lib.format.write_array(part, array, allow_pickle=False)
        os.chmod(unfinished, 0o666 & ~_umask())
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def load(path: StrPath) -> Any:
    """Load what :func:`save` has written.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    model : estimator or Circuit

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, of a later format, or what it holds does not fit together.

    Warns
    -----
    UserWarning
        If it was written by another version of this package.

    See Also
    --------
    save : Writes such files.
    """
    return _read(path, _Reader.model)


def read_values(path):
    """Read what :func:`write_values` has written."""
    return _read(path, _Reader.values)


def _read(path, what):
    try:
        with zipfile.ZipFile(path) as archive:
            reader = _Reader(archive)
            return what(reader, json.loads(reader.member("model.json")))
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file does to those who read it
        raise ValueError(f"{path} cannot be loaded: {error}") from error


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _member(i):
    return f"arrays/{i}.npy"


class _Writer:
    """Values as JSON, and the arrays that it names."""

    def __init__(self):
        self.arrays = []

    def encoded(self, value, place):
        """JSON of a value; `place` says where it stands, for errors."""
        value = str(value) if type(value) is np.str_ else value  # of a grid of parameters
        if value is None or type(value) in SCALARS:
            return value
        if isinstance(value, float) and type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, np.generic) and value.dtype.kind in NUMERIC:
            return {"number": self._array(np.asarray(value))}
        if isinstance(value, np.ndarray) or issparse(value):
            return self._of_array(value, place)
        if type(value) is list and len(value) >= LONG and all(type(x) is float for x in value):
            return {"floats": self._array(np.array(value))}
        if type(value) in (list, tuple):
            items = [self.encoded(x, f"{place}[{i}]") for i, x in enumerate(value)]
            return {type(value).__name__: items}
        if type(value) in (dict, Bunch):
            pairs = [
                [self.encoded(k, place), self.encoded(v, f"{place}[{k!r}]")]
                for k, v in value.items()
            ]
            return {"bunch" if isinstance(value, Bunch) else "dict": pairs}
        if isinstance(value, np.random.RandomState):
            state = value.get_state(legacy=True)
            return {"random_state": self.encoded(tuple(state), place)}
        if isinstance(value, Circuit):
            state = value.to_numpy().__getstate__()
        elif type(value) is Receptors:
            state = value.state()
        elif type(value) in MADE:
            state = dict(vars(value))
        elif type(value) in PARTS:
            state = {name: getattr(value, name) for name in PARTS[type(value)]}
        elif isinstance(value, BaseEstimator):
            state = {k: v for k, v in vars(value).items() if not NOT_KEPT.match(k)}
        else:
            raise TypeError(
                f"{place} is of type {type(value).__name__}, which a file of arrays and JSON "
                "cannot hold. Set it to something else before saving, or use joblib or pickle."
            )
        if "_metadata_request" in state:
            state["_metadata_request"] = _requests(value)
        return {
            "object": _name(type(value), place),
            "state": {name: self.encoded(v, f"{place}.{name}") for name, v in state.items()},
        }

    def _of_array(self, value, place):
        if issparse(value):
            rows = value.tocsr()
            parts = rows.data, rows.indices, rows.indptr
            return {"csr": [*map(self._array, parts), list(rows.shape)]}
        if value.dtype.kind in NUMERIC:
            return {"array": self._array(value)}
        flat = value.ravel().tolist()
        if value.dtype.kind in "UO" and all(type(x) is str for x in flat):
            kind = "object" if value.dtype.kind == "O" else "str"
            return {"strings": flat, "shape": list(value.shape), "as": kind}
        raise TypeError(f"{place} is an array of {value.dtype}, which the file cannot hold.")

    def _array(self, array):
        dtype = array.dtype.newbyteorder("=")
        self.arrays.append(np.array(array, dtype=dtype, order="C"))
        return len(self.arrays) - 1


def _name(cls, place):
    """By which `_class` finds it again."""
    name = cls.__name__
    if cls is Circuit or cls in PARTS or cls in MADE or cls is getattr(ssn_estimators, name, None):
        return name
    public = re.sub(r"\._.*", "", cls.__module__)
    if public.split(".")[0] == "sklearn" and getattr(import_module(public), name, None) is cls:
        return f"{public}.{name}"
    raise TypeError(
        f"{place} is a {cls.__module__}.{name}, neither of this package nor of scikit-learn. Save "
        "the rest without it, or use joblib or pickle."
    )


def _class(name):
    found = {part.__name__: part for part in (*PARTS, *MADE)}.get(name)
    if found is not None:
        return found
    if name in ssn_estimators.__all__:
        found = getattr(ssn_estimators, name)
    elif re.fullmatch(r"sklearn(\.[a-z][a-z_]*)+\.[A-Za-z]+", name):
        module, _, last = name.rpartition(".")
        found = getattr(import_module(module), last, None)
    if not isinstance(found, type) or not issubclass(found, (Circuit, BaseEstimator)):
        raise ValueError(f"there is no class {name!r} of estimators.")
    return found


def _requests(estimator):
    """Requests of metadata, by method and name."""
    request = estimator._get_metadata_request()
    return {
        method: dict(requests)
        for method, requests in (
            (name, getattr(own, "requests", {})) for name, own in vars(request).items()
        )
        if requests
    }


class _Reader:
    """What an archive holds, checked before memory is taken."""

    def __init__(self, archive):
        self.archive, self.used, self.format = archive, set(), FORMAT
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError("members of the archive must not be compressed.")
        size = Path(archive.filename).stat().st_size if archive.filename else math.inf
        if sum(info.file_size for info in archive.infolist()) > size:
            raise ValueError("members of the archive overlap.")
        if archive.getinfo("model.json").file_size > MOST_JSON:
            raise ValueError(f"model.json has more than {MOST_JSON} bytes.")

    def member(self, name):
        if name in self.used:
            raise ValueError(f"{name} is used twice.")
        self.used.add(name)
        return self.archive.read(name)

    def values(self, content):
        self._check_format(content)
        return self.decoded(content["values"])

    def model(self, content):
        wrote = self._check_format(content)
        model = self.decoded(content["model"])
        if not isinstance(model, (Circuit, BaseEstimator)):
            raise ValueError("it holds no estimator and no circuit.")
        if wrote != version(KIND):
            warnings.warn(
                f"The file was written by {KIND} {wrote!r}, and this is {version(KIND)}: check "
                "that the model answers as before.",
                UserWarning,
                stacklevel=4,
            )
        return model

    def _check_format(self, content):
        """Raise ValueError unless it can be read; the version that wrote it."""
        if not isinstance(content, dict) or content.get("kind") != KIND:
            raise ValueError(f"it is no file of {KIND}.")
        if not isinstance(content["format"], int) or not 1 <= content["format"] <= FORMAT:
            raise ValueError(
                f"it is of format {content['format']!r}, and this version of {KIND} reads up to "
                f"format {FORMAT}; a later one wrote it."
            )
        self.format = content["format"]
        return content["versions"][KIND]

    def decoded(self, value):
        if value is None or type(value) in (*SCALARS, float):
            return value
        if type(value) is not dict or not value:
            raise ValueError(f"{str(value)[:40]!r} stands for nothing.")
        if "object" in value:
            return self._object(value)
        if "strings" in value:
            flat = value["strings"]
            if not all(type(x) is str for x in flat):
                raise ValueError("an array of strings holds something else.")
            dtype = {"object": object, "str": str}[value["as"]]
            return np.array(flat, dtype=dtype).reshape(value["shape"])
        ((kind, content),) = value.items()
        if kind == "float":
            return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content]
        if kind == "number":
            return self._array(content)[()]
        if kind == "array":
            return self._array(content)
        if kind == "floats":
            return self._array(content).tolist()
        if kind == "csr":
            *parts, shape = content
            rows = csr_array(tuple(map(self._array, parts)), shape=tuple(shape))
            rows.check_format(full_check=True)
            return rows
        if kind in ("list", "tuple"):
            return {"list": list, "tuple": tuple}[kind](map(self.decoded, content))
        if kind in ("dict", "bunch"):
            made = {self.decoded(k): self.decoded(v) for k, v in content}
            return Bunch(**made) if kind == "bunch" else made
        if kind == "random_state":
            generator = np.random.RandomState()
            generator.set_state(self.decoded(content))
            return generator
        raise ValueError(f"{kind!r} stands for nothing.")

    def _array(self, i):
        if type(i) is not int:
            raise ValueError(f"{i!r} is the number of no array.")
        content = self.member(_member(i))
        return _array_of(content)

    def _object(self, value):
        cls = _class(value["object"])
        state = value["state"]
        if type(state) is not dict:
            raise ValueError("the state of an object is not one.")
        requests = state.pop("_metadata_request", None)
        state = {name: self.decoded(content) for name, content in state.items()}
        for name in state:
            if not name.isidentifier() or name.startswith("__"):
                raise ValueError(f"{name!r} is the name of no attribute.")
        if cls is Circuit or cls in MADE:
            return cls(**state)
        if not issubclass(cls, BaseEstimator):
            return _part(cls, state)
        if self.format < FORMAT:
            state = _upgraded(cls, state, self.format)
        return _estimator(cls, state, requests and self.decoded(requests))


def _array_of(content):
    """An array from the bytes of an .npy file, of which it is not larger."""
    if content[:6] != b"\x93NUMPY" or content[6] not in (1, 2):
        raise ValueError("an array is no .npy file.")
    start = 10 if content[6] == 1 else 12
    length = int.from_bytes(content[8:start], "little")
    header = content[start : start + length].decode("latin1")
    pattern = (
        r"\{'descr': '([|<>=])([biuf])(\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \}\s*"
    )
    found = re.fullmatch(pattern, header)
    if not found:
        raise ValueError("the head of an array cannot be read.")
    dtype = np.dtype("".join(found.groups()[:3]))
    shape = tuple(int(n) for n in found.group(4).replace(" ", "").split(",") if n)
    data = content[start + length :]
    if len(shape) > 32 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} has {len(data)} bytes.")
    return np.frombuffer(bytearray(data), dtype).reshape(shape)


def _part(cls, state):
    """A value that estimators hold."""
    if set(state) != set(PARTS[cls]):
        raise ValueError(f"{cls.__name__} has other attributes: {sorted(state)}.")
    _check_shapes(SimpleNamespace(**state), PARTS[cls], cls.__name__)
    if cls is Synapses:
        sources = state["sources"]
        if sources.dtype.kind not in "iu" or not ((sources >= 0) & (sources < len(sources))).all():
            raise ValueError("sources of Synapses are no cells.")
        return Synapses(sources, state["weights"])
    made = cls.__new__(cls)
    vars(made).update(state)
    return made


def _check_shapes(model, shapes, name):
    """Raise ValueError unless attributes are finite arrays of shapes that go together.

    They hold floats, but for those of KINDS; sizes and counts are not negative. Names that end with
    "?" may be None. Sizes are numbers, attributes of the model, or free but the same everywhere; a
    first "..." stands for any others.
    """
    free = {}
    for attribute, shape in shapes.items():
        value = getattr(model, attribute.rstrip("?"), None)
        if value is None and attribute.endswith("?"):
            continue
        place = f"{name}.{attribute.rstrip('?')}"
        if not isinstance(shape, tuple) or any(isinstance(size, type) for size in shape):
            if not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
                raise ValueError(f"{place} is a {type(value).__name__}.")
            if isinstance(value, int) and value < 0:
                raise ValueError(f"{place} must not be negative, got {value}.")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{place} must be finite, got {value}.")
            if attribute in POSITIVE and not value > 0:
                raise ValueError(f"{place} must be positive, got {value}.")
            continue
        sizes = shape[1:] if shape[:1] == (...,) else shape
        n_others = np.ndim(value) - len(sizes)
        if not isinstance(value, np.ndarray) or n_others < 0 or (n_others and sizes is shape):
            raise ValueError(f"{place} must be an array of {len(sizes)} dimensions.")
        if value.dtype.kind not in KINDS.get(attribute, "f"):
            raise ValueError(f"{place} must not be of {value.dtype}.")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"{place} must be finite.")
        if attribute == "classes_" and not np.array_equal(np.unique(value), value):
            raise ValueError(f"{place} must be different labels in order.")
        for size, found in zip(sizes, value.shape[n_others:], strict=True):
            if isinstance(size, str):
                known = _known(model, size)
                size = free.setdefault(size, found) if known is None else known
            if size != found:
                raise ValueError(f"{place} must have shape {shape}, got {value.shape}.")


def _known(model, size):
    """A number that a model has under this name, or None."""
    for attribute in size.split("."):
        model = getattr(model, attribute, None)
    return model


def _upgraded(cls, state, file_format):
    """State of an estimator of an earlier format, as it is now.

    Parameters that it did not have yet have their defaults.
    """
    if hasattr(cls, "_upgraded"):
        state = cls._upgraded(state, file_format)
    return _defaults(cls) | state


def _defaults(cls):
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _estimator(cls, state, requests):
    names = set(cls._get_param_names())
    if hasattr(cls, "_of_today"):
        state = cls._of_today(state)
    missing = names - set(state)
    if missing:
        raise ValueError(f"{cls.__name__} lacks the parameters {sorted(missing)}.")
    for name in set(state) - names:
        # it would stand before a method or a property
        if hasattr(cls, name):
            raise ValueError(f"{cls.__name__} cannot have an attribute {name!r}.")
    made = cls.__new__(cls)
    vars(made).update(state)
    if hasattr(made, "_validate_params"):
        made._validate_params()
    if requests:
        request = made._get_metadata_request()
        for method, own in requests.items():
            getattr(request, method).requests.update(own)
        made._metadata_request = request
    if any(re.fullmatch("[a-z].*_", name) for name in set(state) - names):
        own = getattr(cls, "_fitted_shapes", None)
        shapes = SHAPES.get(cls, {}) if own is None else TOLD | own
        _check_shapes(made, shapes, cls.__name__)
        if cls in SHAPES and made.scale_ is not None and not (made.scale_ > 0).all():
            raise ValueError(f"{cls.__name__}.scale_ must be positive.")
        getattr(made, "_check_fitted", lambda: None)()
    return made
