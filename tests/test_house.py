"""The house in order: what docs/contributing.rst says of functions and modules."""

import ast
from pathlib import Path

import pytest

import ssn_estimators

ROOT = Path(ssn_estimators.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
KERNELS = ROOT / "simulation" / "gpu" / "kernels"  # which pass through a chip in one go
MOST_LINES, MOST_MODULES = 60, 9


def name_of(path):
    return str(path.relative_to(ROOT))


def is_module(name):
    path = ROOT.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def imports(path):
    """Modules of the package, and names out of them, that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ssn_estimators"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, None) if is_module(whole) else (node.module, alias.name)


@pytest.mark.parametrize("path", [p for p in FILES if KERNELS not in p.parents], ids=name_of)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body:
                n_lines = body[-1].end_lineno - body[0].lineno + 1
                assert n_lines <= MOST_LINES, f"{node.name} has {n_lines} lines"


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "__init__.py"], ids=name_of)
def test_modules_know_few_others_and_nothing_private(path):
    found = list(imports(path))
    assert len({module for module, _ in found}) <= MOST_MODULES
    for module, name in found:
        private = name is not None and name.startswith("_") and not name.startswith("__")
        assert not private, f"{name} of {module}"
