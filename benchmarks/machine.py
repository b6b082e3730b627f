"""What every benchmark writes beside its numbers: the machine, the versions, the code."""

import hashlib
import json
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "jax")


def machine():
    """Processor, cores, load and versions, as a dict."""
    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "cores": n_cores(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in PACKAGES if installed(name)},
        "code": code(),
    }


def processor():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor()


def n_cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def code(folder=None):
    """Commit of a checkout, with a + if it has been changed since; None outside of git."""
    folder = folder or Path(__file__).parent

    def git(*arguments):
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def package():
    """What the sources of the package are, in twelve digits."""
    folder, digest = Path(__file__).parents[1] / "ssn_estimators", hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def save(results, path):
    """Write results at once, so that an interruption leaves the old file or the new one."""
    if path is not None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(results, indent=1) + "\n")
        unfinished.replace(path)
