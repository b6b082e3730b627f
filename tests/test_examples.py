"""The scripts of the gallery run from end to end, as a reader would start them."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted(Path(__file__).parents[1].glob("examples/*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_runs(script, tmp_path):
    command = [sys.executable, "-W", "error::DeprecationWarning", script.resolve()]
    subprocess.run(command, cwd=tmp_path, check=True)
