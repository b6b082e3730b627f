"""The scripts of the gallery run from end to end, and their pictures lack nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted(Path(__file__).parents[1].glob("examples/*.py"))
PICTURES = Path(__file__).with_name("pictures.py")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_runs(script, tmp_path):
    command = [sys.executable, "-W", "error::DeprecationWarning", PICTURES, script.resolve()]
    subprocess.run(command, cwd=tmp_path, check=True)
