"""The stub that tells editors what is loaded only when asked for; run this to write it."""

from pathlib import Path

import ssn_estimators

PATH = Path(ssn_estimators.__file__).with_suffix(".pyi")


def text():
    lines = [
        "# Written by tests/stub.py from the tables of __init__.py.",
        "# ruff: noqa: I001",
        *(f"from ssn_estimators import {name} as {name}" for name in ssn_estimators._SUBMODULES),
        *(
            f"from ssn_estimators.{module} import {name} as {name}"
            for name, module in ssn_estimators._MODULES.items()
        ),
        "",
        "__version__: str",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
