"""Annotations of what is public; ``mypy`` says whether they are right, with ``tests/typed.py``."""

import inspect
import types
from functools import cached_property

import pytest

import ssn_estimators
from ssn_estimators import _typing
from ssn_estimators.sequences.base import SequenceSSN
from ssn_estimators.supervised import SupervisedSSN

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def public_objects(module, names):
    for name in names:
        found = getattr(module, name)
        if inspect.ismodule(found):
            yield from public_objects(found, found.__all__)
        elif callable(found):
            yield found


def functions_of(cls):
    """Public methods and properties, and those that it has of bases in the package."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] != "ssn_estimators":
            continue
        for name, found in vars(base).items():
            if name.startswith("_") and name not in ("__init__", "__call__"):
                continue
            if isinstance(found, (classmethod, staticmethod)):
                found = found.__func__
            elif isinstance(found, property):
                found = found.fget
            elif isinstance(found, cached_property):
                found = found.func
            if isinstance(found, types.FunctionType):
                yield found


def public_functions():
    names = [*ssn_estimators._SUBMODULES, *ssn_estimators._MODULES]
    found = {}
    for one in public_objects(ssn_estimators, names):
        functions = functions_of(one) if inspect.isclass(one) else [one]
        for function in map(inspect.unwrap, functions):
            if function.__module__.startswith("ssn_estimators"):
                found[f"{function.__module__}.{function.__qualname__}"] = function
    return found


FUNCTIONS = public_functions()


def test_public_functions_are_found():
    names = {"classifier.SSNClassifier.fit", "simulation.simulate.simulate", "base.BaseSSN.drive"}
    assert {f"ssn_estimators.{name}" for name in names} <= FUNCTIONS.keys()


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_what_is_public_is_annotated(name):
    function = FUNCTIONS[name]
    annotated = function.__annotations__
    parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    if hasattr(function, "__signature__"):  # of `extending`: what it takes over is its base's
        code = function.__code__
        own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        parameters = [parameter for parameter in parameters if parameter.name in own]
    missing = [
        parameter.name
        for parameter in parameters
        if parameter.kind not in VARIADIC
        and parameter.name not in annotated
        and parameter.name not in ("self", "cls")
    ]
    assert not missing
    assert "return" in annotated


@pytest.mark.parametrize(
    ("base", "keywords"),
    [
        (SupervisedSSN, _typing.SupervisedParameters),
        (SequenceSSN, _typing.SequenceParameters),
    ],
)
def test_keywords_that_are_passed_on_are_those_of_the_base(base, keywords):
    parameters = inspect.signature(base.__init__).parameters.values()
    own = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    found = keywords.__annotations__
    assert {name: getattr(of, "__forward_arg__", of) for name, of in found.items()} == own
