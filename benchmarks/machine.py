"""What every benchmark writes beside its numbers: the machine, the versions, the code."""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "numba", "jax")
KERNELS = """
import scipy.linalg.blas, threadpoolctl
libraries = [x for x in threadpoolctl.threadpool_info() if x["user_api"] == "blas"]
names = [f"{x['internal_api']} {x['version']} {x['architecture']}" for x in libraries]
print(*sorted(names), sep=", ")
"""


def machine():
    """Processor, cores, load and versions, as a dict."""
    return {
        "processor": processor(),
        "architecture": platform.machine(),
        "cores": n_cores(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in PACKAGES if installed(name)},
        "blas": kernels(),
        "code": code(),
    }


def processor():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor()


@cache
def kernels():
    """Which kernels SciPy's and NumPy's BLAS have chosen; the compiled loops use SciPy's.

    Asked of a process of its own, since those that measure memory import no library.
    """
    done = subprocess.run([sys.executable, "-c", KERNELS], capture_output=True, text=True)
    return done.stdout.strip() or None


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
