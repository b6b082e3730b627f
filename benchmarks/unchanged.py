"""Whether a change of the code leaves fits as they were: bit for bit the same numbers.

    python benchmarks/unchanged.py --against COMMIT [--only NAME ...]

Short fits are made with the code of this checkout and with that of a commit, each in a process of
its own, and everything they lead to is compared: loss curves, fitted arrays, answers. It ends with
exit code 1 if a fit differs.
"""

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent


def digits(n_features=None):
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X[:300, 20 : 20 + n_features] if n_features else X[:300], y[:300]


def classifier(**parameters):
    from sklearn.datasets import load_iris

    from ssn_estimators import SSNClassifier

    X, y = load_iris(return_X_y=True)
    short = {"max_iter": 40, "growth_iter": 8, "random_state": 0}
    return SSNClassifier(**(short | parameters)), X, y


def of_classifier(ssn, X):
    arrays = [getattr(ssn, name) for name in ("loss_curve_", "validation_scores_")]
    arrays += [ssn.readout_weights_, ssn.readout_bias_, ssn.input_weights_, ssn.stability_]
    arrays += [ssn.divergence_rate_, ssn.n_rejected_steps_, ssn.decision_function(X)]
    arrays += [ssn.decision_function(X, method="moments"), ssn.simulate(X[:5]).mean]
    return [*arrays, ssn.circuit_.weights, ssn.circuit_.noise_factor, ssn.circuit_.theta]


def fitted_classifier(**parameters):
    ssn, X, y = classifier(**parameters)
    return of_classifier(ssn.fit(X, y), X)


def warm_start():
    ssn, X, y = classifier(n_excitatory=4, n_inhibitory=2)
    ssn.fit(X, y).set_params(warm_start=True, n_excitatory=6).fit(X, y)
    return of_classifier(ssn, X)


def partial_fit():
    ssn, X, y = classifier()
    for _ in range(3):
        ssn.partial_fit(X, y, classes=[0, 1, 2])
    return of_classifier(ssn, X)


def ring_of_digits(structure):
    from ssn_estimators import SSNClassifier

    X, y = digits(6)
    ssn = SSNClassifier(weight_structure=structure, max_iter=40, growth_iter=10, random_state=0)
    return of_classifier(ssn.fit(X, y), X)


def sampler(given=False, **parameters):
    import numpy as np

    from ssn_estimators import ContrastNormalizer, GaussianScaleMixture, SSNSampler

    X = ContrastNormalizer().fit_transform(digits()[0])
    model = GaussianScaleMixture(4, random_state=0).fit(X)
    short = {"max_iter": 20, "growth_iter": 5, "finetune_iter": 5, "random_state": 0}
    if given:
        mean, covariance = model.posterior_moments(X)
        ssn = SSNSampler(**(short | parameters)).fit(
            np.abs(X[:, :4]), mean=mean, covariance=covariance
        )
        X = np.abs(X[:, :4])
    else:
        ssn = SSNSampler(model, **(short | parameters)).fit(X)
    mean, covariance = ssn.predict(X[:20], return_cov=True)
    arrays = [ssn.loss_curve_, ssn.validation_scores_, ssn.stability_, mean, covariance]
    arrays += [ssn.circuit_.weights, ssn.circuit_.noise_factor, ssn.circuit_.theta]
    return [*arrays, ssn.sample(X[:3], 5, random_state=0)]


def simulations():
    import numpy as np

    from ssn_estimators import simulate, stable_pair, stationary_moments

    circuit = stable_pair(np.ones((1, 2)), random_state=0)
    drive = circuit.drive(np.linspace(0, 3, 14).reshape(7, 2))
    arrays = []
    for solver in ("euler", "heun", "ab2"):
        for shared in (False, True):
            found = simulate(
                circuit,
                drive,
                solver=solver,
                shared_noise=shared,
                n_trials=3,
                random_state=0,
                record="u",
            )
            arrays += [found.mean, found.covariance, found.rates, found.u]
    moments = stationary_moments(circuit, drive)
    return [*arrays, moments.mean, moments.covariance]


def many():
    from ssn_estimators import fit_networks

    ssn, X, y = classifier()
    return [
        array
        for one in fit_networks(ssn, X, y, 2, random_state=0)
        for array in of_classifier(one, X)
    ]


def rnn():
    from ssn_estimators import RNNClassifier

    _, X, y = classifier()
    found = RNNClassifier(n_hidden=10, max_iter=50, random_state=0).fit(X, y)
    return [found.loss_curve_, found.predict_proba(X)]


def autoencoder():
    from ssn_estimators import AutoencoderEncoder

    X, _ = digits()
    return [AutoencoderEncoder(8, max_iter=3, random_state=0).fit_transform(X)]


def cnn():
    from ssn_estimators import CNNClassifier, LateralContext

    X, y = digits()
    found = CNNClassifier(max_iter=10, lateral="linear", random_state=0).fit(X, y)
    return [found.loss_curve_, found.predict_proba(X), LateralContext().fit_transform(X)]


def flow():
    import numpy as np

    from ssn_estimators import GMMFlow

    X = np.random.RandomState(0).normal(size=(200, 2))
    found = GMMFlow(n_components=4, max_iter=5, random_state=0).fit(X)
    return [found.score_samples(X)]


def morris_lecar():
    from ssn_estimators import MorrisLecarClassifier
    from ssn_estimators.datasets import make_evidence_integration

    X, y = make_evidence_integration(60, n_words=4, n_inputs=10, random_state=0)
    times = {"n_words": 4, "word_duration": 4.0}
    found = MorrisLecarClassifier(8, **times, n_samples=4, max_iter=4, random_state=0).fit(X, y)
    return [found.loss_curve_, found.predict_proba(X)]


def spiking():
    from ssn_estimators import SpikingRegressor
    from ssn_estimators.datasets import make_cued_sinusoids

    X, y = make_cued_sinusoids(60, random_state=0)
    found = SpikingRegressor(connectivity=0.5, max_iter=2, random_state=0).fit(X, y)
    return [found.predict(X)]


FITS = {
    "one to one": lambda: fitted_classifier(input_weights="one_to_one", n_excitatory=4),
    "dense": fitted_classifier,
    "single, gradient": lambda: fitted_classifier(growth="single", parents="gradient"),
    "full size": lambda: fitted_classifier(growth=None, n_excitatory=6),
    "circulant": lambda: ring_of_digits("circulant"),
    "ring": lambda: ring_of_digits("gaussian_ring"),
    "es": lambda: fitted_classifier(trainer="es", es_samples=4, max_iter=10, growth_iter=3),
    "validation": lambda: fitted_classifier(early_stopping=True, max_iter=120),
    "undone steps": lambda: fitted_classifier(
        learning_rate_init=0.3, stability_penalty=0.0, potential_penalty=0.0, input_weights="dense"
    ),
    "warm start": warm_start,
    "partial_fit": partial_fit,
    "many": many,
    "sampler, closure": sampler,
    "sampler, simulation": lambda: sampler(moments="simulation"),
    "sampler, targets": lambda: sampler(given=True, early_stopping=True),
    "sampler, ring": lambda: sampler(weight_structure="circulant"),
    "simulations": simulations,
    "rnn": rnn,
    "autoencoder": autoencoder,
    "cnn": cnn,
    "flow": flow,
    "morris-lecar": morris_lecar,
    "spiking": spiking,
}


def digest(arrays):
    import numpy as np

    known = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(np.asarray(array, dtype=float))
        known.update(repr(array.shape).encode() + array.tobytes())
    return known.hexdigest()[:16]


def make(names):
    """Print the digest of every fit, in a process that sees one version of the package."""
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = digest(FITS[name]())
        except Exception as error:  # the other fits are to be seen all the same
            found = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"{name}\t{found}", flush=True)


def digests(package, cache, names):
    # a cache of compiled code may come from elsewhere, and round differently
    own = {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": cache}
    environment = os.environ | own
    command = [sys.executable, __file__, "--make", *names]
    return subprocess.Popen(
        command, env=environment, cwd=package, stdout=subprocess.PIPE, text=True
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", default="HEAD", help="commit to compare with")
    parser.add_argument("--only", nargs="*", default=list(FITS), help="names of fits")
    parser.add_argument("--make", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make is not None:
        make(options.make)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", options.against, "ssn_estimators"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        tarfile.open(fileobj=io.BytesIO(archive)).extractall(folder, filter="data")
        both = [
            digests(package, f"{folder}/cache{i}", options.only)
            for i, package in enumerate((folder, ROOT))
        ]
        before, now = (
            dict(line.split("\t") for line in run.communicate()[0].splitlines()) for run in both
        )
    changed = 0
    for name in options.only:
        same = before.get(name) == now.get(name)
        changed += not same
        print(f"{name:22s} {'same' if same else f'{before.get(name)} -> {now.get(name)}'}")
    print(f"{changed} of {len(options.only)} fits changed since {options.against}")
    return min(changed, 1)


if __name__ == "__main__":
    sys.exit(main())
