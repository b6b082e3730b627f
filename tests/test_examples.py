"""The scripts of the gallery run from end to end, and their pictures have names and units."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.resolve()
SCRIPTS = sorted(TESTS.parent.glob("examples/*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_runs(script, tmp_path):
    command = [sys.executable, "-W", "error::DeprecationWarning", TESTS / "pictures.py", script]
    subprocess.run(command, cwd=tmp_path, check=True)
