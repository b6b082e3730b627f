"""Cognitive tasks with delays: response accuracy, steps and seconds, of grown SSNs and others.

    OMP_NUM_THREADS=1 python benchmarks/tasks_in_time.py --out benchmarks/results/tasks_in_time.json

Tasks and timing are those of Soo, Goudar & Wang (2023), with 32 units on a ring; networks have 80%
E cells of 100 ms and 20% I cells of 50 ms, the noise that training leaves them, and rates that
nothing bounds. A network is trained on trials whose delays are a mixture, from none to the longest;
200 new trials with the longest delay test it, one run of each, by the accuracy of responses alone:
fixation, which is most of a trial, is easy. It also runs through two test trials, one after the
other, without a pause: trials that diverge are counted. A seed draws the trials and the network.
Where there is a delay, fixed points under its input are looked for from states that trials visit.

`--rows` chooses: names of rows begin with their task. What is there already is not done again.
"""

import time
import warnings

import numpy as np
import torch
from reliability import list_table, markdown
from resumable import open_results, parser, run, timed
from sklearn.preprocessing import StandardScaler

from ssn_estimators import SSNSequenceRegressor, simulate
from ssn_estimators.datasets import cognitive_task_scores, make_cognitive_task
from ssn_estimators.inspection import fixed_points

N_TRAIN, N_TEST, N_RING, LEARNED = 4000, 200, 32, 0.1
SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1)  # of the longest delay
SSN = {
    "n_excitatory": 40,
    "tau_e": 100.0,
    "tau_i": 50.0,
    "tau_eta": 100.0,
    "time_step": 20.0,
    "dt": 10.0,
    "batch_size": 32,
    "input_noise": 0.05,
    "learning_rate_init": 0.004,
    "potential_penalty": 1.0,
    "n_trials_predict": 1,
    "max_iter": 2500,
}
RNN = {"n_hidden": 50, "max_iter": 2500, "batch_size": 32, "learning_rate_init": 0.002}
FURTHER = (
    *("rtgo", "anti", "dlyanti", "dm1", "ctxdm1", "multsendm"),
    *("dlydm1", "ctxdlydm1", "dnms", "dmc"),
)
ALL = (
    *("go", "rtgo", "dlygo", "anti", "rtanti", "dlyanti", "dm1", "dm2", "ctxdm1", "ctxdm2"),
    *("multsendm", "dlydm1", "dlydm2", "ctxdlydm1", "ctxdlydm2", "multsendlydm"),
    *("dms", "dnms", "dmc", "dnmc"),
)


def row(task, delay=1000.0, model="ssn", **others):
    return {"task": task, "delay": delay, "model": model, "mixture": True, "others": others}


IN_TURN = ("dms", "dlydm1", "ctxdlydm1", "dnms", "dmc")  # two stimuli to compare: more steps


def enough(task):
    return row(task, **({"max_iter": 5000} if task in IN_TURN else {}))


ROWS = {f"{task}, grown": enough(task) for task in ("go", "dlygo", "dms")}
ROWS |= {"dms, default penalty": row("dms", max_iter=5000, potential_penalty=0.01)}
ROWS |= {"dlygo, RNN without types": row("dlygo", model="rnn")}
ROWS |= {f"{task}, grown": enough(task) for task in FURTHER}
ROWS |= {f"{task}, RNN without types": row(task, model="rnn") for task in ("dms", *FURTHER)}
ROWS |= {
    "dlygo, .5 s, steps of 5 ms": row("dlygo", 500.0, dt=5.0, max_iter=1200),
    "dlygo, .5 s, of 20, 10 and 5 ms": row("dlygo", 500.0, dt=(20.0, 10.0, 5.0), max_iter=1200),
    "dlygo, from small weights": row("dlygo", growth=None),
    "dlygo, rates clipped": row("dlygo", model="clipped"),
    "dlygo, delays of 1 s only": row("dlygo") | {"mixture": False},
    "dlygo, 1 s only, skips": row("dlygo", skip=200.0) | {"mixture": False},
    "dlygo, 1 s only, skips by tangents": row("dlygo", skip=200.0, skip_from="tangent")
    | {"mixture": False},
    "dlygo, skips": row("dlygo", skip=200.0),
    "dlygo, input and output apart": row("dlygo", input_share=0.4, output_share=0.4),
    "dlygo, delay .2 s": row("dlygo", 200.0),
    "dlygo, delay 2 s": row("dlygo", 2000.0),
    "dlygo, delay 4 s": row("dlygo", 4000.0),
    "dlygo, RNN without types, delay 4 s": row("dlygo", 4000.0, "rnn"),
    "all 20, grown": row(list(ALL), n_excitatory=80),
    "all 20, RNN without types": row(list(ALL), model="rnn", n_hidden=100),
}
SETTINGS = {
    name: settings | {"usual": RNN if settings["model"] == "rnn" else SSN, "n_train": N_TRAIN}
    for name, settings in ROWS.items()
}


def mixture(settings, n_trials, seed):
    """Trials with delays of all lengths, padded to the longest."""
    task, delay = settings["task"], settings["delay"]
    shares = SHARES if settings["mixture"] else SHARES[-1:]
    parts = [
        make(task, n_trials // len(shares), share * delay, 1000 * seed + i)
        for i, share in enumerate(shares)
    ]
    longest = max(part.X.shape[1] for part in parts)
    whole = {name: np.concatenate([padded(p[name], longest) for p in parts]) for name in ARRAYS}
    return whole | {"lengths": np.concatenate([part.lengths for part in parts])}


ARRAYS = ("X", "y", "mask")


def make(task, n_trials, delay, seed):
    rules = not isinstance(task, str)
    return make_cognitive_task(
        task, n_trials, delay=delay, n_ring=N_RING, rules=rules, random_state=seed
    )


def padded(array, n_times):
    rest = np.zeros((len(array), max(0, n_times - array.shape[1]), *array.shape[2:]), array.dtype)
    return np.concatenate([array, rest], axis=1)[:, :n_times]


class Torch:
    """A network of plain torch, by Euler's method in the time steps of the inputs.

    Without types: r' = -r + relu(W r + W_in x + b + .1 eta), as by Soo et al. Clipped: an SSN under
    Dale's law, whose rates are cut at 100 Hz; gradients end there, and nothing diverges.
    """

    def __init__(
        self,
        n_hidden=50,
        max_iter=2500,
        batch_size=32,
        learning_rate_init=0.002,
        *,
        clipped=False,
        seed=0,
    ):
        self.n, self.max_iter, self.batch_size = n_hidden, max_iter, batch_size
        self.rate, self.clipped, self.seed = learning_rate_init, clipped, seed

    def fit(self, X, y, lengths, mask):
        generator = torch.Generator().manual_seed(self.seed)
        n, n_in, n_out = self.n, X.shape[2], y.shape[2]

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        scale = 0.1 if self.clipped else 1 / n**0.5
        values = [
            scale * normal(n, n),
            normal(n, n_in) * (0.15 if self.clipped else 1) / n_in**0.5,
            torch.full((n,), 0.5 if self.clipped else 0.0),
            torch.zeros(n_out, n),
            torch.zeros(n_out),
        ]
        if self.clipped:
            values[0], values[1] = values[0].abs() / 3, values[1].abs()
        self.values = [value.requires_grad_() for value in values]
        self.scaler = StandardScaler().fit(y[mask > 0])
        targets = torch.from_numpy(self.scaler.transform(y.reshape(-1, n_out)).astype(np.float32))
        targets = targets.view(y.shape)
        weights = torch.from_numpy(mask / mask.mean())[..., None]
        inputs = torch.from_numpy(X)
        optimizer = torch.optim.Adam(self.values, self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.max_iter)
        self.loss_curve_ = []
        for _ in range(self.max_iter):
            batch = torch.randint(len(X), (self.batch_size,), generator=generator)
            errors = weights[batch] * (self.run(inputs[batch], generator) - targets[batch]) ** 2
            loss = errors.mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.values, 1.0)
            optimizer.step()
            schedule.step()
            if self.clipped:
                with torch.no_grad():
                    self.values[0].clamp_(min=0)
                    self.values[1].clamp_(min=0)
            self.loss_curve_.append(loss.item())
        return self

    def run(self, inputs, generator):
        recurrent, weights, bias, coef, intercept = self.values
        share, z = 0.2, torch.randn(len(inputs), self.n, generator=generator)
        state, outputs = torch.zeros(len(inputs), self.n), []
        if self.clipped:
            n_e = round(0.8 * self.n)
            recurrent = recurrent * torch.where(torch.arange(self.n) < n_e, 1.0, -1.0)
            share = torch.where(torch.arange(self.n) < n_e, 0.2, 0.4)
        for x in inputs.unbind(1):
            fresh = torch.randn(len(inputs), self.n, generator=generator)
            z = 0.8 * z + (1 - 0.8**2) ** 0.5 * fresh
            external = x @ weights.T + bias
            if self.clipped:
                drive = 5 * torch.relu(external + 0.3) ** 2 + 0.3 * z
                rates = (0.3 * torch.relu(state) ** 2).clamp(max=100)
                state = state + share * (drive + rates @ recurrent.T - state)
            else:
                drive = external + 0.1 * z
                state = state + share * (torch.relu(state @ recurrent.T + drive) - state)
            outputs.append(state @ coef.T + intercept)
        return torch.stack(outputs, 1)

    @torch.no_grad()
    def predict(self, X):
        generator = torch.Generator().manual_seed(self.seed + 1)
        found = self.run(torch.from_numpy(X), generator).numpy()
        return found * self.scaler.scale_ + self.scaler.mean_


def fitted(settings, data, seed):
    others = {k: tuple(v) if isinstance(v, list) else v for k, v in settings["others"].items()}
    if settings["model"] == "ssn":
        network = SSNSequenceRegressor(random_state=seed, **(SSN | others))
    elif settings["model"] == "rnn":
        network = Torch(seed=seed, **(RNN | others))
    else:
        network = Torch(
            n_hidden=50, max_iter=SSN["max_iter"], learning_rate_init=0.004, clipped=True, seed=seed
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.process_time()
        _, seconds = timed(lambda: network.fit(**data))
    return network, seconds, round(time.process_time() - start, 1)


def figures(name, seed):
    torch.set_num_threads(1)
    settings = SETTINGS[name]
    data = mixture(settings, N_TRAIN, seed)
    network, seconds, cpu = fitted(settings, data, seed)
    test = make(settings["task"], N_TEST, settings["delay"], 10_000 + seed)
    n_times = data["X"].shape[1]
    X, lengths = padded(test.X, n_times), np.minimum(test.lengths, n_times)
    more = {"lengths": lengths} if settings["model"] == "ssn" else {}
    outputs = padded(network.predict(X, **more), test.X.shape[1])
    scores = cognitive_task_scores(test, outputs)
    losses = np.array(network.loss_curve_ or [np.inf])  # none, if every step has been undone
    losses = np.convolve(losses, np.full(50, 0.02), "valid") if len(losses) >= 50 else losses
    learned = np.flatnonzero(losses < LEARNED)
    found = {
        "row": name,
        "seed": seed,
        "settings": settings,
        "response": float(scores.response),
        "fixation": float(scores.fixation),
        "composite": float(scores.composite),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "loss": float(losses[-1]) if np.isfinite(losses[-1]) else None,
        f"steps_to_{LEARNED}": int(learned[0]) + 50 if len(learned) else None,
    }
    if not isinstance(settings["task"], str):
        found["by_task"] = {k: float(v["response"]) for k, v in scores.by_task.items()}
    if settings["model"] == "ssn":
        drive = network.drive(X, lengths)
        twice = np.concatenate([drive, drive])
        step, dt = network.time_step, np.min(network.dt)
        outcome = simulate(
            network.circuit_,
            twice,
            n_trials=1,
            duration=len(twice) * step,
            drive_step=step,
            dt=dt,
            burn_in=network.burn_in,
            covariance=False,
            rates=True,
            record="u",
            random_state=seed,
        )
        found |= {
            "diverged": int(outcome.diverged.sum()),
            "trials": int(outcome.diverged.size),
            "stability": network.stability_,
            "n_iter": network.n_iter_,
            "n_rejected": network.n_rejected_steps_,
            "n_attempts": network.n_attempts_,
            "mean_rate": float(outcome.rates.mean()),
            "most_rate": float(outcome.rates.max()),
        }
        delay = test.period_names.index("delay")
        if isinstance(settings["task"], str) and (np.diff(test.periods[:, delay]) > 1).all():
            once = outcome.u[: len(outcome.u) // 2, :, 0]
            found["delay_points"] = points_in_delay(network, drive, once, test.periods[:, delay])
    return found


def points_in_delay(network, drive, seen, periods):
    """Fixed points under the input of the delay, the same in all trials, from their potentials."""
    middle = periods.mean(1).astype(int)
    n_steps, trials = len(seen) // len(drive), np.arange(len(middle))
    visited = np.concatenate(
        [seen[when * n_steps - 1, trials] for when in (middle, periods[:, 1])]
    )[::4]
    visited = visited[np.isfinite(visited).all(1)]
    points = fixed_points(network.circuit_, drive[middle[0], :1], n_starts=0, start=visited)[0]
    stable = points.stable
    return {
        "stable": int(stable.sum()),
        "unstable": int((~stable).sum()),
        "slowest_ms": float(points.time_constant[stable].max()) if stable.any() else None,
        "fastest_turn_hz": float(points.frequency[stable].max()) if stable.any() else None,
    }


def summary(results):
    head = ["", "networks", "right answers", "fewest", "fixation", "trials that diverge"]
    rows = [[*head, "steps undone", f"steps to a loss of {LEARNED}", "CPU s", "stable states"]]
    for name in ROWS:
        own = [n for n in results["networks"] if n["row"] == name]
        if own:
            each = {key: [n.get(key) for n in own] for key in {key for n in own for key in n}}
            points = [points["stable"] for points in each.get("delay_points", []) if points]
            some = "diverged" in each
            rows.append(
                [
                    name,
                    str(len(own)),
                    f"{np.mean(each['response']):.3f}",
                    f"{min(each['response']):.3f}",
                    f"{np.mean(each['fixation']):.3f}",
                    f"{sum(each['diverged'])} of {sum(each['trials'])}" if some else "",
                    f"{np.mean(each['n_rejected']):.0f}" if some else "",
                    median_of_known(each[f"steps_to_{LEARNED}"]),
                    f"{np.median(each['cpu_seconds']):.0f}",
                    ", ".join(map(str, points)),
                ]
            )
    return rows


def median_of_known(values):
    """With how many of them are known, if not all."""
    known = [value for value in values if value is not None]
    some = f" ({len(known)} of {len(values)})" if 0 < len(known) < len(values) else ""
    return f"{np.median(known):.0f}{some}" if known else "none"


def main():
    args = parser(__doc__, ROWS, seeds=5).parse_args()
    results = open_results(args.out)
    tasks = [(row, seed) for seed in range(args.seeds) for row in args.rows]
    run(figures, tasks, results, SETTINGS, args)
    print(markdown(summary(results)))
    if args.out:
        commits = sorted({str(network["code"]) for network in results["networks"]})
        origin = f"{results['machine']['processor']}, commits {', '.join(commits)}."
        args.out.with_suffix(".rst").write_text(f"{list_table(summary(results))}\n\n{origin}\n")


if __name__ == "__main__":
    main()
