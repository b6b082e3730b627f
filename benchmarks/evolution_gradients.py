"""Gradients through time of Morris-Lecar cells: how large they are, how far they tell the way.

    python benchmarks/evolution_gradients.py --out benchmarks/results/evolution_gradients.json

Untrained networks of 128 cells, with input weights as in the published code and recurrent weights
of several strengths (1 is the published one), read words of 4 ms. "norms" are those of gradients
of the cross-entropy by input weights, of single sequences and with a readout that is not fitted:
medians and 95th percentiles over 32 sequences. For 50 words, and a fitted readout, the gradient of
32 sequences is followed. "fall" is by how much their loss falls along it, over what the gradient
foretells, for steps that are so long for a weight (root mean square; Adam's first one at the
published rate is 0.005). "smoothed" is the slope along the gradient of the loss that is
smoothed over perturbations of the input weights, over the gradient's norm: 1 if it foretells this
loss as well. It is estimated from antithetic pairs, with steps of 0.5 ms, and followed by its
standard error. Potentials at the start are varied, and the same in all that is compared. What is
there already is not done again.
"""

import time
from functools import partial

import numpy as np
import torch
from resumable import parser, work

from ssn_estimators import MorrisLecarClassifier
from ssn_estimators.biophysical.morris_lecar import MorrisLecar
from ssn_estimators.datasets import make_evidence_integration

N_CELLS, N_FIT, N_WORDS, BATCH = 128, 2000, 50, 32
LENGTHS = (5, 10, 20, 50, 100)
STEPS = (0.0001, 0.001, 0.005, 0.02, 0.1)
SIGMAS = (0.01, 0.1)
CELL = MorrisLecar()
ROWS = {
    f"recurrent {scaling:g}, dt {dt:g}": {"recurrent_scaling": scaling, "dt": dt}
    for dt, scalings in ((0.5, (0.0, 0.5, 1.0, 2.0, 4.0)), (0.1, (0.0, 1.0)))
    for scaling in scalings
}


class Problem:
    """Sequences, an untrained network, and its readouts: one that is fitted, one that is not."""

    def __init__(self, settings, n_words, seed, fitted=False):
        X, y = make_evidence_integration(
            BATCH + N_FIT, n_words=n_words, uniform_counts=True, random_state=seed
        )
        rng = np.random.RandomState(seed)
        made = MorrisLecarClassifier(
            N_CELLS,
            n_words=n_words,
            word_duration=4.0,
            input_scaling=0.625,
            trained="readout",
            random_state=rng,
            **settings,
        )
        made.fit(X[:BATCH], y[:BATCH])
        sequences = made._sequences(X, n_words)
        if fitted:
            start = made._potentials((N_FIT, N_CELLS), rng)
            made._fit_readout(sequences[BATCH:], y[BATCH:], np.ones(N_FIT), start)
        self.grid, self.recurrent = made._grid(n_words), torch.from_numpy(made.recurrent_weights_)
        self.weights = torch.from_numpy(made.input_weights_)
        self.words, self.labels = torch.from_numpy(sequences[:BATCH]), torch.from_numpy(y[:BATCH])
        self.start = torch.from_numpy(made._potentials((BATCH, N_CELLS), rng))
        self.fitted = made.readout_weights_, made.readout_bias_
        self.plain = rng.uniform(-1, 1, (3, N_CELLS)) / np.sqrt(N_CELLS), np.zeros(3)

    def losses(self, weights, readout, part=slice(None)):
        """Cross-entropy of every sequence; of every network, if there are several."""
        mean = CELL.respond(
            self.words[part], weights, self.recurrent, self.start[part], **self.grid
        )
        coef, intercept = (torch.from_numpy(x.astype(np.float32)) for x in readout)
        logits = (mean @ coef.T + intercept).flatten(0, -2)
        targets = self.labels[part].repeat(len(logits) // mean.shape[-2])
        found = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return found.view(mean.shape[:-1])

    def gradient(self, *arguments):
        weights = self.weights.clone().requires_grad_()
        self.losses(weights, *arguments).mean().backward()
        return weights.grad

    def fall(self, exact, step):
        """Of the loss along the gradient, over what it foretells; `step` for a weight."""
        length, norm = step * np.sqrt(exact.numel()), exact.norm()
        before, after = (
            self.losses(weights, self.fitted).mean()
            for weights in (self.weights, self.weights - exact * (length / norm))
        )
        return float((before - after) / (length * norm))

    def smoothed(self, exact, sigma, n_pairs, rng, block=20):
        """Slope of the smoothed loss along the gradient, over its norm, and the standard error."""
        slopes = []
        for _ in range(n_pairs // block):
            noise = rng.standard_normal((block, *self.weights.shape)).astype(np.float32)
            noise = torch.from_numpy(noise)
            networks = self.weights + sigma * torch.cat([noise, -noise])
            plus, minus = self.losses(networks, self.fitted).mean(1).view(2, block)
            along = torch.einsum("nij,ij->n", noise, exact) / exact.norm()
            slopes.append((plus - minus) / (2 * sigma) * along)
        slopes = torch.cat(slopes) / exact.norm()
        return [float(slopes.mean()), float(slopes.std() / np.sqrt(len(slopes)))]


def figures(args, row, seed):
    settings, started = ROWS[row], time.process_time()
    norms = {}
    for n_words in LENGTHS:
        problem = Problem(settings, n_words, seed)
        each = [
            float(problem.gradient(problem.plain, slice(i, i + 1)).norm()) for i in range(BATCH)
        ]
        norms[n_words] = np.percentile(each, [50, 95]).tolist()
    problem = Problem(settings, N_WORDS, seed, fitted=True)
    exact = problem.gradient(problem.fitted)
    falls = {step: problem.fall(exact, step) for step in STEPS}
    smooth = {}
    for sigma in SIGMAS if settings["dt"] == 0.5 else ():  # five times as long otherwise
        smooth[sigma] = problem.smoothed(exact, sigma, args.pairs, np.random.RandomState(seed))
    return {
        "row": row,
        "seed": seed,
        "settings": settings,
        "norms": norms,
        "norm": float(exact.norm()),
        "fall": falls,
        "smoothed": smooth,
        "pairs": args.pairs,
        "seconds": round(time.process_time() - started, 1),
    }


def summary(results):
    lines = []
    for found in results["networks"]:
        norms = ", ".join(f"{n} {x[0]:.2g} ({x[1]:.2g})" for n, x in found["norms"].items())
        falls = ", ".join(f"{step} {x:.2f}" for step, x in found["fall"].items())
        smooth = ", ".join(
            f"{sigma} {mean:.3f} +- {error:.3f}"
            for sigma, (mean, error) in found["smoothed"].items()
        )
        lines.append(
            f"{found['row']:24} seed {found['seed']}  norms of words: {norms}; norm "
            f"{found['norm']:.2g}; fall: {falls}; smoothed: {smooth}"
        )
    return "\n".join(lines)


def main():
    command = parser(__doc__, ROWS, seeds=1, jobs=1)
    command.add_argument("--pairs", type=int, default=400, help="of perturbations")
    args = command.parse_args()
    torch.set_num_threads(1)
    work(args, partial(figures, args), ROWS, summary)


if __name__ == "__main__":
    main()
