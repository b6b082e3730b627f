"""Model files of every format: what was saved once must be read for good.

python tests/saved.py                 # after a new format: files as the present version writes them
python tests/saved.py SSNRegressor    # of a new estimator
"""

import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from zoo import ESTIMATORS, METHODS, short_confirmations, small, targets

from ssn_estimators import save
from ssn_estimators.persistence import FORMAT

X = np.random.RandomState(0).rand(60, 9)
y = np.array(["left", "right", "up"])[np.arange(60) % 3]
FOLDER = Path(__file__).parent / "saved"
FORMATS = [FOLDER / f"format_{i}" for i in range(1, FORMAT + 1)]


def answers(model):
    """What a fitted estimator says of ten inputs, by method."""
    return {name: getattr(model, name)(X[:10]) for name in METHODS if hasattr(model, name)}


def main(*names):
    FORMATS[-1].mkdir(parents=True, exist_ok=True)
    for estimator in ESTIMATORS:
        if names and type(estimator).__name__ not in names:
            continue
        with short_confirmations(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = small(estimator).fit(X, targets(estimator, y))
        path = FORMATS[-1] / type(model).__name__
        save(model, path.with_suffix(".ssn"))
        np.savez_compressed(path.with_suffix(".npz"), **answers(model))


if __name__ == "__main__":
    main(*sys.argv[1:])
