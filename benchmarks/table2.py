"""Sampling posteriors, as in Table 2 of Soo & Lengyel (2022): the ring and natural images.

    python benchmarks/table2.py --data FOLDER --models MODELS --out benchmarks/results/table2.json

FOLDER holds CIFAR-10: the files data_batch_1 to 5 and test_batch of its version for Python, or
cifar10_train.npz and cifar10_test.npz (see images.py). Every network is written to the folder
MODELS, and its figures to the result file, when it is done; what is there already, with the same
settings, is not done again. Networks are trained on the training split; the test split is read
when a network is done.

Each network is simulated at a converged step (Heun 0.2 ms), and rings, whose errors depend on it,
at the published one (Euler 0.2 ms) too; without clipping.
"""

import argparse
import copy
import json
import resource
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
from images import cifar10
from machine import code, save
from resumable import add_keep, dump, open_results, run, timed
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV

from ssn_estimators import (
    ContrastNormalizer,
    GaborEncoder,
    GaussianScaleMixture,
    SSNSampler,
    stability_report,
    stability_score,
    stimulus_switch,
)
from ssn_estimators.datasets import make_ring_gsm, make_ring_network
from ssn_estimators.inspection import is_inhibition_stabilized, steady_states

ERRORS = ("mean", "variance", "covariance")
WEIGHTS = {
    "L' (.01, 2, 1)": (0.01, 2.0, 1.0),
    "L' (.01, .02, .01)": (0.01, 0.02, 0.01),
    "L' (1, 2, 1)": (1.0, 2.0, 1.0),
}
SCHEMES = {"euler 0.2 ms": {"solver": "euler", "dt": 0.2}, "heun 0.2 ms": {"dt": 0.2}}
GREY = np.array([0.2989, 0.5870, 0.1140], np.float32)
POOLED = 15000  # training images on which pools are judged
N_PAIRS = 20  # of test images, for the switch
RING = {
    # (.01, 2, 1), by which networks sell the mean for the covariance
    "cost_weights": "published",
    "growth_iter": 40,
    "max_iter": 400,
    "learning_rate_init": 0.02,
    "finetune_iter": 1800,
    "finetune_rate": 1.0,
    "n_trials": 100,
    "burn_in": 100.0,
    "window": 60.0,
    "settling_penalty": 0.0,  # the published network does not have to be fast either
}
MEANS_TOO = RING | {"cost_weights": (1.0, 2.0, 1.0)}
GENERAL = {
    "growth_iter": 1,
    "max_iter": 5000,
    "finetune_iter": 1000,
    "finetune_rate": 0.25,
    # shorter ones do not see modes that grow slowly
    "burn_in": 500.0,
    "window": 100.0,
}
POOL = GENERAL | {
    "input_pool": "rectified",
    "max_iter": 4000,
    "finetune_rate": 0.5,
    "learning_rate_init": 0.03,
}


class Row(NamedTuple):
    settings: dict
    contrast: str | None = None  # None: the ring
    networks: int = 5
    latents: int = 50
    n_train: int | None = None  # images, of the network and the trivial predictor; None: all
    n_test: int = 1000
    # how the network of BEGUN is strengthened before it goes on with the settings: a function here
    # and its weights, in mV s; None: it is trained by the settings alone
    recurrence: tuple | None = None


# without the penalty on variances of I potentials
FREE = POOL | {"max_iter": 6000, "finetune_iter": 1500, "variance_penalty": 0.0}
# strongly and weakly coupled networks begin alike, and have as many steps as others
BEGUN = POOL | {"max_iter": 2000, "finetune_iter": 0, "settling_penalty": 0.0}
GOES_ON = POOL | {"max_iter": 2000}
# larger ones: steps cost ten and a hundred times as much, so that there are few
LARGER = {"n_train": 5000, "n_test": 100, "networks": 1}
ROWS = {
    "published Gaussian ring": Row(RING, networks=1),
    "published Gaussian ring, fine-tuned": Row(RING, networks=2),
    "Gaussian ring": Row(MEANS_TOO | {"weight_structure": "gaussian_ring"}, networks=3),
    "ring SSN": Row(RING | {"weight_structure": "circulant"}, networks=10),
    "ring SSN, means as well": Row(MEANS_TOO | {"weight_structure": "circulant"}, networks=10),
    "Gaussian ring, images": Row(
        GENERAL | {"weight_structure": "gaussian_ring", "max_iter": 1000}, "global", 1
    ),
    "general SSN, per-image contrast": Row(GENERAL, "per_image"),
    "general SSN, global contrast": Row(GENERAL, "global"),
    "general SSN, per-image contrast, pool": Row(POOL, "per_image"),
    "general SSN, global contrast, pool": Row(POOL, "global"),
    "general SSN, per-image contrast, pool, variances free": Row(FREE, "per_image", 1),
    "general SSN, global contrast, pool, variances free": Row(FREE, "global"),
    "general SSN, pool, strong recurrence": Row(
        GOES_ON, "global", 1, recurrence=("all_to_all", 0.6, 1.8)
    ),
    "general SSN, pool, strong pairs": Row(
        GOES_ON, "global", 1, recurrence=("within_pairs", 0.4, 0.3, 1.5, 0.2)
    ),
    "general SSN, pool, the same without": Row(
        GOES_ON, "global", 1, recurrence=("all_to_all", 0.0, 0.0)
    ),
    "general SSN, global contrast, 128 latents": Row(
        GENERAL | {"max_iter": 1000, "finetune_iter": 200}, "global", latents=128, **LARGER
    ),
    "general SSN, global contrast, 128 latents, pool": Row(
        POOL | {"max_iter": 1000, "finetune_iter": 200}, "global", latents=128, **LARGER
    ),
    "general SSN, global contrast, 256 latents, pool": Row(
        POOL | {"max_iter": 100, "finetune_iter": 20}, "global", latents=256, **LARGER
    ),
}


def grey_images(folder, split):
    """All images of a split, shape (n, 1024)."""
    images, _ = cifar10(folder, split)
    return images.reshape(len(images), -1, 3) @ GREY


def name_of_model(row):
    kind = ROWS[row]
    return kind.contrast if kind.latents == 50 else f"{kind.contrast}, {kind.latents} latents"


def generative_model(args, row):
    """The fitted normaliser and model of natural images, from the folder of models if there."""
    path, kind = args.models / f"model {name_of_model(row)}.joblib", ROWS[row]
    if path.exists():
        return joblib.load(path)[:2]
    X = grey_images(args.data, "train")[: kind.n_train]
    normalizer = ContrastNormalizer(contrast=kind.contrast).fit(X)
    X = normalizer.transform(X)
    model = GaussianScaleMixture(kind.latents, random_state=0, n_jobs=2)
    model, seconds = timed(lambda: model.fit(X))
    (mean, covariance), moment_seconds = timed(lambda: model.posterior_moments(X))
    constant_mean, constant = mean.mean(0), covariance.mean(0)
    shift = max(0.0, -float(mean.min()))  # as in the networks
    del mean, covariance
    told = told_by_pools(model, X[:POOLED])
    X_test = normalizer.transform(grey_images(args.data, "test"))
    errors = trivial_errors(model, X_test[: kind.n_test], constant_mean, constant, shift)
    figures = {
        "fit_seconds": seconds,
        "moments_seconds": moment_seconds,
        "explained_energy": model.explained_energy_,
        "log_likelihood": {"train": model.score(X), "test": model.score(X_test)},
        "trivial predictor": errors,
        "told by pools": told,
    }
    dump((normalizer, model, figures), path)
    return normalizer, model


def told_by_pools(model, X):
    """How much magnitudes of coefficients tell of the posterior variance: R2 of its logarithm.

    By linear regressions, on images that they were not fitted to.
    """
    variance = np.einsum("nii->ni", model.posterior_moments(X)[1]).mean(1)
    coefficients = GaborEncoder(filters=model.components_).fit_transform(X)
    known = slice(None, -POOLED // 5), slice(-POOLED // 5, None)

    def told(inputs):
        parts = [(np.abs(inputs[rows]), np.log(variance[rows])) for rows in known]
        return round(RidgeCV(np.logspace(-3, 6, 20)).fit(*parts[0]).score(*parts[1]), 3)

    whitened = PCA(whiten=True).fit_transform(coefficients)
    return {"coefficients": told(coefficients), "whitened components": told(whitened)}


def trivial_errors(model, X, constant_mean, constant, shift):
    """Errors of the predictor that gives every image the mean moments of the training data."""
    mean, covariance = model.posterior_moments(X)

    def error(found, wanted):
        axes = tuple(range(1, wanted.ndim))
        return float((((found - wanted) ** 2).sum(axes) / (wanted**2).sum(axes)).mean())

    variance = np.einsum("nii->ni", covariance)
    return rounded(
        {
            "mean": error(constant_mean + shift, mean + shift),
            "variance": error(np.diagonal(constant), variance),
            "covariance": error(constant, covariance),
        }
    )


def schemes_of(row):
    """Those at which a row is judged: images at the converged one."""
    return [name for name in SCHEMES if ROWS[row].contrast is None or name != "euler 0.2 ms"]


def rounded(errors):
    return {name: round(errors[name], 5) for name in ERRORS}


def totals(errors):
    """L' under all weights."""
    return {name: float(np.dot(w, [errors[e] for e in ERRORS])) for name, w in WEIGHTS.items()}


def trained(args, row, seed):
    """The network, its inputs and targets of test, and the seconds of its training."""
    kind = ROWS[row]
    settings = kind.settings
    path = args.models / f"{row} {seed}.joblib"
    sampler = SSNSampler(random_state=seed, **settings)
    if kind.contrast is None:
        ring = make_ring_gsm()
        X, targets = ring.h[:, :50], {"mean": ring.mu, "covariance": ring.sigma}
        test = (X, ring.mu, ring.sigma)
    else:
        normalizer, model = generative_model(args, row)
        X_test = normalizer.transform(grey_images(args.data, "test")[: kind.n_test])
        test = (X_test, *model.posterior_moments(X_test))
    saved = saved_with({} if row.startswith("published") else settings, path)
    if saved:
        return *saved, test
    if kind.contrast is not None:
        X, targets = normalizer.transform(grey_images(args.data, "train")[: kind.n_train]), {}
        sampler.set_params(generative_model=model)
    if row.startswith("published"):
        sampler, seconds = timed(lambda: published(sampler, X, targets, "fine-tuned" in row))
    elif kind.recurrence is not None:
        begun, before = begin(args, model, X, seed)
        strengthen(begun, X[:200], *kind.recurrence)
        begun.set_params(**settings, warm_start=True)
        sampler, seconds = timed(lambda: begun.fit(X))
        seconds += before
    else:
        sampler, seconds = timed(lambda: sampler.fit(X, **targets))
    dump((sampler, seconds), path)
    return sampler, seconds, test


def saved_with(settings, path):
    """What a file holds, sampler and seconds, if the sampler has these settings; None otherwise."""
    if path.exists():
        saved = joblib.load(path)
        parameters = saved[0].get_params(deep=False)
        if all(parameters[k] == v for k, v in settings.items()):
            return saved
    return None


def begin(args, model, X, seed):
    """The first part of the training of some rows, and its seconds."""
    path = args.models / f"begun {seed}.joblib"
    if not saved_with(BEGUN, path):
        sampler = SSNSampler(model, random_state=seed, **BEGUN)
        dump(timed(lambda: sampler.fit(X)), path)
    return joblib.load(path)


def strengthen(sampler, X, how, *weights):
    """Add recurrent weights to a network that goes on training."""
    circuit = sampler.circuit_
    added = {"all_to_all": all_to_all, "within_pairs": within_pairs}[how]
    sampler.circuit_ = replace(circuit, weights=circuit.weights + added(sampler, X, *weights))
    sampler._optimizer_state = None  # of the network that was there before


def all_to_all(sampler, X, to_e, to_i):
    """Excitation that E and I cells get from all E cells, and inhibition that cancels it.

    At the mean rates on X: steady states stay nearly where they are; but E cells alone would now
    run away.
    """
    circuit, n = sampler.circuit_, sampler.circuit_.n_excitatory
    rates = circuit.rates(steady_states(circuit, sampler.drive(X)).u).mean(0)
    added = np.zeros_like(circuit.weights)
    for rows, weight in ((slice(n), to_e), (slice(n, None), to_i)):
        added[rows, :n] += weight / n
        added[rows, n:] -= weight / n * rates[:n].sum() / rates[n:].sum()
    return added


def within_pairs(sampler, _, e_to_e, i_to_e, e_to_i, i_to_i):
    """A stable pair of strong weights in every pair: without its own I cell, E would run away.

    Steady states change, and with them all moments.
    """
    own = np.eye(sampler.circuit_.n_excitatory, dtype=np.float32)
    return np.block([[e_to_e * own, -i_to_e * own], [e_to_i * own, -i_to_i * own]])


def published(sampler, X, targets, fine_tuned):
    """The network of Echeveste et al. (2020) in a sampler, and trained further on simulations."""
    start = {"weight_structure": "gaussian_ring", "max_iter": 1}
    sampler.set_params(**start, finetune_iter=0, growth=None).fit(X, **targets)
    sampler.circuit_, sampler.input_scale_ = make_ring_network(), 1.0
    if fine_tuned:
        sampler._optimizer_state = None  # of the network that was there before
        sampler.set_params(moments="simulation", max_iter=RING["finetune_iter"], finetune_iter=500)
        sampler.set_params(warm_start=True, learning_rate_init=0.01).fit(X, **targets)
    return sampler


def settings_of(row):
    """What a row's networks are, for the result file."""
    settings = ROWS[row].settings
    if row.startswith("published"):
        return {"fine_tuned": settings["finetune_iter"] if "fine-tuned" in row else 0}
    if ROWS[row].recurrence is not None:
        return settings | {"recurrence": ROWS[row].recurrence, "begun": BEGUN}
    return settings


def figures(args, row, seed):
    sampler, seconds, (X, mean, covariance) = trained(args, row, seed)
    images = ROWS[row].contrast is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    many = {} if images else {"window_predict": 2000.0, "n_trials_predict": 200}
    sampler.set_params(burn_in=400.0, **many)
    out = {"row": row, "seed": seed, "fit_seconds": seconds, "n_iter": sampler.n_iter_}
    out["peak_gib"] = round(peak, 2)  # of the process so far, with data and targets
    out["rejected_steps"] = sampler.n_rejected_steps_
    out |= {"settings": settings_of(row), "code": code()}
    out["diverging_in_2s"] = {}
    for name in schemes_of(row):
        own = copy.copy(sampler).set_params(**SCHEMES[name])
        out[name] = rounded(own.normalized_cost(X, mean, covariance))
        share = stability_score(own, X, n_trials=-(-1000 // len(X)))  # a thousand trials
        out["diverging_in_2s"][name] = 1 - share
    if images:
        stabilized = is_inhibition_stabilized(sampler.circuit_, sampler.drive(X[:200]))
        out["inhibition_stabilized"] = float(stabilized.mean())  # where there is a fixed point
        report = stability_report(sampler, X, n_surrogates=20, n_trials=100)
        out["diverging_trials"] = {k: [round(x, 4) for x in v] for k, v in report.summary().items()}
        switch = stimulus_switch(sampler, X[:N_PAIRS], X[N_PAIRS : 2 * N_PAIRS], after=600.0)
        for moment in ("mean", "variance"):
            times = switch.time_to(0.9, moment)
            quantiles = np.nanquantile(times, (0.25, 0.5, 0.75, 1))
            out[f"time_to_90%_{moment}_ms"] = [float(q) for q in quantiles]
            out[f"unchanged_{moment}"] = int(np.isnan(times).sum())
    return out


def summary(results):
    """Lines of each row: medians over networks, and ratios to the published network."""
    networks = results["networks"]
    baseline = next((n for n in networks if n["row"] == "published Gaussian ring"), None)
    lines = []
    for row in ROWS:
        own = [n for n in networks if n["row"] == row]
        for scheme in schemes_of(row) if own else ():
            errors = {name: np.median([n[scheme][name] for n in own]) for name in ERRORS}
            lines.append(f"{row}, {scheme}, {len(own)} networks: ")
            lines[-1] += ", ".join(f"{name} {value:.4f}" for name, value in errors.items())
            lines[-1] += f"; diverging in 2 s {max(n['diverging_in_2s'][scheme] for n in own):g}"
            for name in WEIGHTS:
                values = [totals(n[scheme])[name] for n in own]
                line = f"    {name:20} {np.median(values):.4f} ({min(values):.4f} to "
                line += f"{max(values):.4f})"
                if baseline and ROWS[row].contrast is None:
                    ratios = np.array(values) / totals(baseline[scheme])[name]
                    line += f", of the published network {np.median(ratios):.3f} "
                    line += f"({ratios.min():.3f} to {ratios.max():.3f})"
                lines.append(line)
        if own and "diverging_trials" in own[0]:
            shares = {
                which: float(np.median([n["diverging_trials"][which][0] for n in own]))
                for which in own[0]["diverging_trials"]
            }
            lines.append(f"    trials that diverge: {shares}")
        if own and "inhibition_stabilized" in own[0]:
            stabilized = np.median([n["inhibition_stabilized"] for n in own])
            lines.append(f"    inhibition-stabilised on {stabilized:.2f} of the images")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10")
    parser.add_argument("--models", type=Path, required=True, help="folder for networks")
    parser.add_argument("--out", type=Path, help="result file (JSON)")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--networks", type=int, help="networks a row, in place of its own number")
    parser.add_argument("--jobs", type=int, default=2, help="networks at once")
    add_keep(parser)
    args = parser.parse_args()
    args.models.mkdir(parents=True, exist_ok=True)

    results = open_results(args.out, models={})
    for row in args.rows:
        if ROWS[row].contrast is not None:
            generative_model(args, row)
            name = name_of_model(row)
            results["models"][name] = joblib.load(args.models / f"model {name}.joblib")[2]
            save(results, args.out)
    tasks = [(r, seed) for r in args.rows for seed in range(args.networks or ROWS[r].networks)]
    settings = {row: settings_of(row) for row in ROWS}
    run(partial(figures, args), tasks, results, settings, args)
    print(json.dumps(results["models"], indent=1))
    print(summary(results))


if __name__ == "__main__":
    main()
