"""The pages of the documentation: their code runs, and they know all public names."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

import ssn_estimators

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path for path in DOCS.glob("*.rst") if ">>> " in path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_code_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where files that the page writes stay
    assert doctest.testfile(str(page), module_relative=False).failed == 0


def test_every_public_name_has_its_place():
    listed = "\n".join(path.read_text() for path in DOCS.glob("api/*.rst"))
    listed = set(re.findall(r"^   (?:\w+\.)*(\w+)$", listed, re.M))
    names = set(ssn_estimators._MODULES)
    for room in ssn_estimators._SUBMODULES:
        module = import_module(f"ssn_estimators.{room}")
        names |= {
            name for name in getattr(module, "__all__", ()) if callable(getattr(module, name))
        }
    assert names <= listed
