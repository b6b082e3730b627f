"""Dynamics from samples without times: how near are the coefficients?

    python benchmarks/density.py --seeds 3 --out benchmarks/results/density.json

The noisy Lorenz system, 4,000 unordered samples, three parameters, diffusion known; the same with
21 unknowns (a constant, all linear terms and all products, in each equation) and 20,000 samples;
an E-I pair of an SSN with Ornstein-Uhlenbeck noise, 8,000 snapshots under each of five inputs,
four weights; and a network of six genes that activate and repress each other (Hill functions),
5,000 snapshots of each condition: the wild type, or also each gene made more by a known amount,
with the nine regulations that there are known, or not. Errors are relative to the truth, or to its
norm where there are many numbers or some of them 0. What is there already is not done again.

Beside it, on the same samples, the loss of `stadion` (kernel deviation from stationarity, Lorch et
al. 2024) with its default kernel and others: at its exact minimum over the three parameters, which
is one linear solve as the drift is affine in them, and by Adam as in its own `fit` (10,000 batches
of 128, rate 0.003, a start near zero) and at ten times its rate. Install it by
`pip install --no-deps stadion==1.0.2`: of its requirements the loss needs jax alone. Without it,
these rows are left out.
"""

import importlib.util

import numpy as np
from machine import code
from resumable import parser, timed, work
from sklearn.metrics import roc_auc_score

from ssn_estimators import Circuit, FokkerPlanckRegressor, simulate
from ssn_estimators.density import circuit_from_samples, stationarity_test

LORENZ = np.array([10.0, 28.0, 8 / 3])
CHAINS, BURN_IN, GAP, N_EACH = 500, 6.0, 0.4, 8
ROWS = {
    f"Lorenz, D {d:g}, step {dt:g}, width {width:g}": {"d": d, "dt": dt, "width": width}
    for d in (1.0, 10.0)
    for dt in (0.002, 0.0005)
    for width in (0.5, 1.0, 2.0)
}
PEER = {
    f"Lorenz, D {d:g}, step 0.0005, stadion, bandwidth {width:g}, {search}": {
        "d": d,
        "dt": 0.0005,
        "bandwidth": width,
        "search": search,
    }
    for d in (1.0, 10.0)
    for width in (2.0, 5.0, 10.0)
    for search in ("minimum", "Adam 0.003", "Adam 0.03")
}
LIBRARY = {
    "Lorenz, D 10, step 0.002, 21 unknowns": {"d": 10.0, "dt": 0.002, "width": 0.5, "chains": 2500}
}
# gene i is activated (> 0) or repressed by gene j, per unit of time
REGULATION = np.array(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, -1.5],
        [2.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, -1.5, 0.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 2.0, 0.0, 0.0, 0.0],
        [1.5, 0.0, 0.0, -1.5, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0, 1.5, 0.0],
    ]
)
BASAL = np.array([1.5, 0.2, 1.2, 0.2, 1.0, 0.2])
DECAY = np.array([1.0, 0.8, 1.2, 1.0, 0.7, 0.9])
MADE_MORE, GENE_NOISE = 1.0, 0.05  # per unit of time; diffusion
GENES = {
    f"genes, {known}, {conditions}": {"known": known == "regulations known", "n_conditions": n}
    for known in ("regulations known", "all possible")
    for conditions, n in (("wild type", 1), ("7 conditions", 7))
}
ROWS |= PEER | LIBRARY | {"E-I pair": {"n_samples": 8000, "dt": 0.2}} | GENES


def lorenz_samples(d, dt, seed, n_chains=CHAINS):
    rng = np.random.RandomState(seed)
    x, found = rng.normal([0, 0, 25], size=(n_chains, 3)), []
    start, every = round(BURN_IN / dt), round(GAP / dt)
    for step in range(start + N_EACH * every):
        a, b, c = x.T
        slope = np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], axis=1)
        x = x + dt * slope + np.sqrt(2 * d * dt) * rng.normal(size=x.shape)
        if step >= start and step % every == 0:
            found.append(x)
    return rng.permutation(np.concatenate(found))


def features(x):
    a, b, c = x.T
    phi = np.zeros((len(x), 3, 3))
    phi[:, 0, 0], phi[:, 1, 1], phi[:, 2, 2] = b - a, a, -c
    return phi


def offset(x):
    a, b, c = x.T
    return np.stack([0 * a, -a * c - b, a * b], axis=1)


def lorenz(settings, seed):
    X = lorenz_samples(settings["d"], settings["dt"], seed)
    regressor = FokkerPlanckRegressor(
        features,
        offset=offset,
        diffusion=settings["d"],
        length_scale=settings["width"],
        random_state=seed,
    )
    _, seconds = timed(lambda: regressor.fit(X))
    return {
        "coef": regressor.coef_.tolist(),
        "stderr": regressor.stderr_.tolist(),
        "relative_error": (regressor.coef_ / LORENZ - 1).tolist(),
        "condition_number": regressor.condition_number_,
        "fit_seconds": seconds,
    }


def library(settings, seed):
    truth = np.zeros((3, 7))
    truth[0, :2], truth[1, [0, 1, 4]], truth[2, [2, 3]] = [-10, 10], [28, -1, -1], [-8 / 3, 1]

    def terms(x):
        a, b, c = x.T
        every = np.stack([a, b, c, a * b, a * c, b * c, np.ones(len(x))], axis=1)
        return np.einsum("nt,ij->nijt", every, np.eye(3)).reshape(len(x), 3, 21)

    X = lorenz_samples(settings["d"], settings["dt"], seed, settings["chains"])
    regressor = FokkerPlanckRegressor(
        terms, diffusion=settings["d"], length_scale=settings["width"], random_state=seed
    )
    _, seconds = timed(lambda: regressor.fit(X))
    error = regressor.coef_ - truth.ravel()
    z = error / regressor.stderr_
    return {
        "coef": regressor.coef_.tolist(),
        "stderr": regressor.stderr_.tolist(),
        "relative_error": [np.linalg.norm(error) / np.linalg.norm(truth)],
        "condition_number": regressor.condition_number_,
        "largest_z_of_coefficients": np.abs(z).max(),
        "root_mean_square_z": np.sqrt((z**2).mean()),
        "fit_seconds": seconds,
    }


def stadion(settings, seed):
    import jax
    from jax import numpy as jnp
    from jax.example_libraries.optimizers import adam

    jax.tree_map = jax.tree.map  # a name that jax has given up and stadion still asks for
    from stadion import kds_loss

    def drift(x, theta):
        return jnp.array(
            [
                theta[0] * (x[1] - x[0]),
                x[0] * (theta[1] - x[2]) - x[1],
                x[0] * x[1] - theta[2] * x[2],
            ]
        )

    def root_of_2d(x, theta):
        return jnp.sqrt(2 * settings["d"]) * jnp.eye(3)

    def kernel(x, y):
        return jnp.exp(-jnp.square(x - y).sum() / (2 * settings["bandwidth"] ** 2))

    loss = kds_loss(drift, root_of_2d, kernel, estimator="linear")
    X = lorenz_samples(settings["d"], settings["dt"], seed)

    def minimum():
        # over all pairs of two halves, in pieces that fit into memory
        first, second = jnp.array(X[::2]), jnp.array(X[1::2])

        @jax.jit
        def system(shift):
            data = jnp.concatenate([first, jnp.roll(second, shift, axis=0)])
            at = jnp.zeros(3)
            return jax.hessian(loss, 1)(data, at), jax.grad(loss, 1)(data, at)

        hessian, gradient = (sum(x) for x in zip(*map(system, range(len(first))), strict=True))
        return -np.linalg.solve(hessian, gradient)

    def descend():
        start, update, read = adam(float(settings["search"].removeprefix("Adam ")))

        @jax.jit
        def step(i, state, data):
            return update(i, jax.grad(loss, 1)(data, read(state)), state)

        rng = np.random.RandomState(seed)
        state = start(jnp.array(1e-6 * rng.normal(size=3)))
        for i in range(10_000):
            state = step(i, state, X[rng.choice(len(X), 128, replace=False)])
        return np.array(read(state))

    with jax.enable_x64(True):
        found, seconds = timed(minimum if settings["search"] == "minimum" else descend)
    return {
        "coef": found.tolist(),
        "relative_error": (found / LORENZ - 1).tolist(),
        "fit_seconds": seconds,
    }


def pair(settings, seed):
    noise = np.diag([0.2 * 1.4**0.5, 0.1 * 1.2**0.5])
    circuit = Circuit([[1.25, -0.65], [1.2, -0.5]], 1, noise, tau_eta=50.0)
    drive = circuit.drive(np.repeat([[0.0], [2.0], [5.0], [10.0], [15.0]], 2, axis=1))
    simulation = simulate(
        circuit,
        drive,
        n_trials=settings["n_samples"],
        burn_in=400.0,
        duration=settings["dt"],
        dt=settings["dt"],
        record=("u", "eta"),
        covariance=False,
        rates=False,
        random_state=seed,
    )
    X = np.concatenate([simulation.u[0], simulation.eta[0]], axis=-1)
    found, seconds = timed(lambda: circuit_from_samples(circuit, X, drive, random_state=seed))
    other = Circuit(circuit.weights * [[1.05, 1], [1, 1]], 1, noise, tau_eta=50.0)
    return {
        "coef": found.weights.ravel().tolist(),
        "stderr": found.stderr.ravel().tolist(),
        "relative_error": (found.weights / circuit.weights - 1).ravel().tolist(),
        "condition_number": found.regressor.condition_number_,
        "largest_z": stationarity_test(circuit, X, drive=drive).statistic,
        "largest_z_of_5_percent_more": stationarity_test(other, X, drive=drive).statistic,
        "fit_seconds": seconds,
    }


def hill(x):
    x = np.maximum(x, 0)
    return x**2 / (1 + x**2)


def genes(settings, seed):
    """Regulations, basal rates and decay of all genes, from all conditions at once."""
    rng, n = np.random.RandomState(seed), len(BASAL)
    more = np.vstack([np.zeros(n), MADE_MORE * np.eye(n)])[: settings["n_conditions"]]
    condition = np.repeat(more, 5000, axis=0)
    x, dt = rng.uniform(0, 2, size=condition.shape), 0.005
    for _ in range(4000):
        slope = BASAL + condition - DECAY * x + hill(x) @ REGULATION.T
        x = x + dt * slope + np.sqrt(2 * GENE_NOISE * dt) * rng.normal(size=x.shape)
    possible = ~np.eye(n, dtype=bool)
    if settings["known"]:
        possible &= REGULATION != 0
    to, by = np.nonzero(possible)

    def features(x, condition=None):
        phi = np.zeros((len(x), n, len(to) + 2 * n))
        phi[:, to, np.arange(len(to))] = hill(x)[:, by]
        phi[:, range(n), len(to) + np.arange(n)] = 1.0
        phi[:, range(n), len(to) + n + np.arange(n)] = -x
        return phi

    regressor = FokkerPlanckRegressor(
        features,
        offset=lambda x, condition: condition,
        diffusion=GENE_NOISE,
        signs=np.r_[np.sign(REGULATION[to, by]) if settings["known"] else 0 * to, np.ones(2 * n)],
        random_state=seed,
    )
    _, seconds = timed(lambda: regressor.fit(x, condition=condition))
    truth = np.r_[REGULATION[to, by], BASAL, DECAY]
    error, found = regressor.coef_ - truth, np.abs(regressor.coef_[: len(to)])
    out = {
        "coef": regressor.coef_.tolist(),
        "stderr": regressor.stderr_.tolist(),
        "relative_error": [np.linalg.norm(error) / np.linalg.norm(truth)],
        "condition_number": regressor.condition_number_,
        "root_mean_square_z": np.sqrt(np.nanmean((error / regressor.stderr_) ** 2)),
        "fit_seconds": seconds,
    }
    if not settings["known"]:
        there = truth[: len(to)] != 0
        out["area_under_curve"] = roc_auc_score(there, found / regressor.stderr_[: len(to)])
    return out


def figures(row, seed):
    settings = ROWS[row]
    make = lorenz if "d" in settings else genes if row in GENES else pair
    if row in PEER or row in LIBRARY:
        make = stadion if row in PEER else library
    found = make(settings, seed)
    return {"row": row, "seed": seed, "settings": settings, "code": code(), **found}


def summary(results):
    lines = []
    for row in ROWS:
        own = [n for n in results["networks"] if n["row"] == row]
        if not own:
            continue
        errors = np.abs([n["relative_error"] for n in own])
        middle, most = 100 * np.median(errors, 0), 100 * errors.max(0)
        line = f"{row:60} n={len(own)}  error in % (median, largest):"
        line += "".join(f"  {a:.2f}, {b:.2f}" for a, b in zip(middle, most, strict=True))
        if "condition_number" in own[0]:
            line += f"   condition {np.median([n['condition_number'] for n in own]):.1f}"
        line += f"   {np.median([n['fit_seconds'] for n in own]):.1f} s"
        for name in own[0]:
            if "_z" in name or name == "area_under_curve":
                values = [n[name] for n in own]
                line += f"   {name.replace('_', ' ')} {min(values):.2g} to {max(values):.2g}"
        lines.append(line)
    return "\n".join(lines)


def main():
    installed = importlib.util.find_spec("stadion") is not None
    possible = [row for row in ROWS if installed or row not in PEER]
    work(parser(__doc__, possible).parse_args(), figures, ROWS, summary)


if __name__ == "__main__":
    main()
