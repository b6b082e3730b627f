"""Circuits fitted to responses: minima, time, intervals, and what perturbations add.

    python benchmarks/fits.py --data FOLDER --out benchmarks/results/fits.json

FOLDER holds `field_size_contrast.npz`: mean rates of E, PV, SST and VIP cells at the centre of
stimuli of 6 contrasts and 6 sizes, without and with input to VIP cells (synthetic). The circuit
that is given knows the types, places and zeros of the weights, k and time constants, and nothing
else: all E weights are 1, all others -.7, those to the other place .3 of these, gains 10, baselines
3. "random starts" are all but that one. Times are CPU seconds of one thread.

Coverage: data sets are drawn anew from the true rates, with errors from their own trials; how many
intervals of the parameters that fits call identified contain the truth. Perturbations: rates of the
true circuit with the same noise, under input to VIP cells only, and to SST and PV cells, too.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from machine import machine, save

from ssn_estimators import Circuit, CircuitRegressor
from ssn_estimators.fitting import Free
from ssn_estimators.inspection import steady_states

TYPES = ["E", "PV", "SST", "VIP"]
CENTRE = [0, 2, 4, 6]  # cells; those of the surround come after each
SAME = np.tile(np.eye(2, dtype=bool), (4, 4))
LEAST_ERROR = 0.1  # Hz
N_TRIALS = 20


def circuit(within, between, data):
    weights = np.kron(within, np.ones((2, 2))) * np.where(SAME, 1, np.repeat(between, 2))
    tau = dict(zip(TYPES, data["tau"], strict=True))
    return Circuit(weights, populations=dict.fromkeys(TYPES, 2), k=float(data["k"]), tau=tau)


def input_map(gains):
    return np.kron(np.reshape(gains, (4, 1)), np.eye(2))


def regressor(data, box=(None, None), **options):
    guess = (data["true_weights"] != 0) * [1, -0.7, -0.7, -0.7]
    free = [
        Free("weights", low=box[0], high=box[1]),
        Free("weights", by="presynaptic", where=~SAME, name="between"),
        Free("input_map"),
        Free("baseline"),
    ]
    return CircuitRegressor(
        circuit(guess, np.full(4, 0.3), data),
        free,
        input_map=input_map([10, 10, 0, 10]),
        baseline=np.full(8, 3.0),
        observed=CENTRE,
        **options,
    )


def truth(data):
    """Values of the parameters in the order in which they are fitted."""
    weights, gains = data["true_weights"], data["true_input_gain"]
    parts = [weights[weights != 0], data["true_between"], gains[gains != 0], data["true_baseline"]]
    signs = [np.ones(12), [1, -1, -1, -1], np.ones(3), np.ones(4)]
    return np.concatenate([part * sign for part, sign in zip(parts, signs, strict=True)])


def recorded(data):
    """Inputs, rates, errors and perturbations of all conditions, one after the other."""
    n_perturbations, n_conditions = data["rates"].shape[:2]
    errors = np.maximum(data["sem"].reshape(-1, 4), LEAST_ERROR)
    return (
        np.tile(data["features"], (n_perturbations, 1)),
        data["rates"].reshape(-1, 4).astype(float),
        errors.astype(float),
        np.repeat(data["perturbations"], n_conditions, axis=0),
    )


def drawn(rates, rng):
    """Means and errors of trials about rates, with the noise of the data."""
    deviation = np.sqrt(0.3 + rates + 0.02 * rates**2)
    trials = rng.normal(rates[..., None], deviation[..., None], (*rates.shape, N_TRIALS))
    errors = trials.std(-1, ddof=1) / np.sqrt(N_TRIALS)
    return trials.mean(-1), np.maximum(errors, LEAST_ERROR)


def many_starts(data, seeds):
    X, rates, errors, extra = recorded(data)
    found = []
    for seed in seeds:
        start = time.process_time()
        model = regressor(data, n_starts=21, random_state=seed)
        model.fit(X, rates, sample_error=errors, perturbation=extra)
        seconds = time.process_time() - start
        random = np.sort(model.starts_.cost / rates.size)[1:]  # the circuit given is one of them
        found.append(
            {
                "seed": seed,
                "CPU s": seconds,
                "chi2 / N": model.cost_ / rates.size,
                "random starts at 1.2010 or below, of 20": int((random <= 1.2010).sum()),
                "drawn": int(model.starts_.n_drawn),
                "lost": model.starts_.n_lost,
            }
        )
        print(found[-1])
    true = data["true_rates"].reshape(-1, 4)
    predicted = model.predict(X, perturbation=extra)
    of_true = 1 - ((true - predicted) ** 2).sum(0) / ((true - true.mean(0)) ** 2).sum(0)
    return {
        "fits": found,
        "residuals": rates.size,
        "parameters": len(model.values_),
        "explained variance": dict(zip(TYPES, model.explained_variance_, strict=True)),
        "noise ceiling": dict(zip(TYPES, model.noise_ceiling_, strict=True)),
        "explained variance of the true rates": dict(zip(TYPES, of_true, strict=True)),
        "condition number of J^T J": model.condition_number_**2,
        "not identified": _named(model, ~model.identified_),
    }


def _named(model, which):
    return [name for name, own in zip(model.parameter_names_, which, strict=True) if own]


def coverage(data, n_sets):
    X, _, _, extra = recorded(data)
    values, rng = truth(data), np.random.default_rng(1)
    inside, identified, names = [], [], None
    for seed in range(n_sets):
        rates, errors = drawn(data["true_rates"].reshape(-1, 4), rng)
        model = regressor(data, n_starts=3, random_state=seed)
        model.fit(X, rates, sample_error=errors, perturbation=extra)
        low, high = model.intervals_.T
        inside.append((low <= values) & (values <= high))
        identified.append(model.identified_)
        names = model.parameter_names_
    inside, identified = np.array(inside), np.array(identified)
    share = inside[identified].mean()
    often = dict(zip(names, identified.mean(0), strict=True))
    by_name = dict(zip(names, inside.mean(0), strict=True))
    found = {
        "data sets": n_sets,
        "of intervals of identified parameters, contain the truth": share,
        "intervals of identified parameters": int(identified.sum()),
        "of all intervals, contain the truth": inside.mean(),
        "identified in a share of the sets": often,
        "contain the truth, by parameter": by_name,
    }
    print(found)
    return found


def perturbed(data, n_sets=5):
    """The same with input to more types; medians over data sets."""
    designs = {
        "none": [],
        "VIP": ["VIP"],
        "VIP, SST": ["VIP", "SST"],
        "VIP, SST, PV": ["VIP", "SST", "PV"],
    }
    table = {}
    for name, types in designs.items():
        sets = [_design(data, types, seed) for seed in range(n_sets)]
        table[name] = {key: np.median([own[key] for own in sets]) for key in sets[0]}
        print(name, table[name])
    return table


def _design(data, types, seed):
    n, model = len(data["features"]), circuit(data["true_weights"], data["true_between"], data)
    extra = [np.zeros(4)] + [s * np.eye(4)[TYPES.index(t)] for t in types for s in (1.0, -1.0)]
    extra = np.repeat(extra, n, axis=0)
    inputs = np.tile(data["features"], (len(extra) // n, 1))
    constant = np.repeat(data["true_baseline"] + extra, 2, axis=1)
    drive = inputs @ input_map(data["true_input_gain"]).T + constant
    true_rates = steady_states(model, drive).rates[:, CENTRE]
    rates, errors = drawn(true_rates, np.random.default_rng(seed))
    fit = regressor(data, n_starts=3, random_state=0)
    fit.fit(inputs, rates, sample_error=errors, perturbation=extra)
    deviation = np.sqrt(np.diag(fit.covariance_))[:12]
    return {
        "conditions": len(rates),
        "condition number": fit.condition_number_,
        "standard error of log weights, median": np.median(deviation),
        "identified, of 23": int(fit.identified_.sum()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--out")
    args = parser.parse_args()
    warnings.simplefilter("error")
    data = dict(np.load(args.data / "field_size_contrast.npz"))
    results = {"machine": machine(), "size and contrast": many_starts(data, range(args.seeds))}
    results["coverage"] = coverage(data, args.sets)
    results["perturbations"] = perturbed(data)
    save(results, args.out)


if __name__ == "__main__":
    main()
