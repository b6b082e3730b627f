"""Files beside the package say the same of it: its version, what it needs."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import yaml

from ssn_estimators import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
RECIPE = yaml.safe_load((ROOT / ".github" / "conda" / "recipe.yaml").read_text())
CONDA = {"pytorch": "torch"}  # where names differ there


def test_one_version_and_one_date():
    changes = (ROOT / "CHANGELOG.md").read_text()
    version, date = re.search(r"^## \[(\d.*)\] - (.*)$", changes, re.M).groups()
    assert version == __version__ == CITATION["version"] == RECIPE["context"]["version"]
    assert date == str(CITATION["date-released"])
    assert f"\n[{version}]: " in changes


def test_the_recipe_needs_what_the_package_needs():
    python, *needed = RECIPE["requirements"]["run"]
    assert python == "python >=${{ python_min }}"
    assert f">={RECIPE['context']['python_min']}" == PROJECT["project"]["requires-python"]
    named = [line.split(" ") for line in needed]
    assert [CONDA.get(name, name) + bound for name, bound in named] == (
        PROJECT["project"]["dependencies"]
    )
    built_with = [line.replace(" ", "") for line in RECIPE["requirements"]["host"]]
    assert set(PROJECT["build-system"]["requires"]) <= set(built_with)


def test_the_recipe_says_what_the_package_says():
    about = RECIPE["about"]
    assert about["license"] == PROJECT["project"]["license"]
    assert about["documentation"] == PROJECT["project"]["urls"]["Documentation"]
    assert about["repository"] == PROJECT["project"]["urls"]["Source"]
    known = PROJECT["project"]["license-files"]
    assert all(any(fnmatch(path, pattern) for pattern in known) for path in about["license_file"])
