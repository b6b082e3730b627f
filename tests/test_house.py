"""The house in order: what docs/contributing.rst says of functions and modules."""

import ast
import subprocess
import sys
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
    """Modules of the package, and names out of them, that a file imports when code runs."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
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


def test_simulation_needs_nothing_that_scikit_learn_may_still_change():
    """It is of use where scikit-learn is older, such as on GPU machines of others."""
    script = (
        "import sys; sys.modules['sklearn.callback'] = None\n"
        "import ssn_estimators.simulation.cpu\n"
        "from ssn_estimators import Circuit, simulate\n"
        "print(simulate(Circuit([[0.0]], 1, 0.0), [[2.0]], burn_in=500.0).mean.round(3))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[[2.]]", done.stderr
