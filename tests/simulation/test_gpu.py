"""The GPU engines against the plain loop of `reference.py` on the very same noise.

Without a CUDA device, the kernels run in Triton's interpreter. It multiplies float32 exactly
where the device would round to TF32, so that the kernels round explicitly.
"""

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is first imported
pytest.importorskip("triton")

from ssn_estimators.simulation import (  # noqa: E402
    SCHEMES,
    gpu,
    reference,
)
from ssn_estimators.simulation.gpu import (  # noqa: E402
    cards,
    columns,
    engine,
    library,
    programs,
)

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")


@dataclass(frozen=True)
class Setup:
    tau: tuple = (20.0, 20.0, 10.0)
    n_trials: int = 4
    n_burn: int = 2
    n_window: int = 4
    dt: float = 1.0
    solver: str = "euler"
    tau_eta: float = 15.0
    k: float = 0.05
    gamma: float = 2.0
    seeds: tuple = (2**40 + 5,)
    shared_noise: bool = False
    antithetic: bool = False
    increments: str = "gaussian"
    covariance: bool = True
    rates: bool = True
    precision: str = "float32"
    initial: tuple | None = None
    final: bool = False


def problem(setup, moving=False, n=3, n_inputs=2):
    """Weights, noise factor and drive; some cells are below threshold."""
    rng = np.random.RandomState(0)
    m, n_steps = len(setup.seeds), setup.n_burn + setup.n_window
    weights = rng.uniform(0, 6 / n, (m, n, n)) * np.where(np.arange(n) < 0.6 * n, 1.5, -2.0)
    noise_factor = rng.normal(size=(m, n, n)) * np.sqrt(3 / n)
    drive = 2 + 3 * rng.normal(size=(m, n_steps, n_inputs, n) if moving else (m, n_inputs, n))
    return [torch.tensor(x, dtype=torch.float32) for x in (weights, noise_factor, drive)]


def reference_moments(weights, noise_factor, drive, setup):
    """float64, with the gradient through the window only; and the potentials of the window."""
    n_burn, n_steps = setup.n_burn, setup.n_burn + setup.n_window
    n_inputs, n = drive.shape[-2:]
    z = gpu.noise(setup, n_inputs, n, DEVICE).to("cpu", torch.float64)
    results = []

    def rates_of(u):
        k, gamma = (torch.as_tensor(x).to("cpu", torch.float64) for x in (setup.k, setup.gamma))
        return k * torch.relu(u) ** gamma

    for m in range(len(weights)):
        steps = drive[m] if drive.ndim == 4 else drive[m].expand(n_steps, -1, -1)
        steps = torch.cat([steps, steps[-1:]])[:, :, None]
        forcing = (steps + z[:, m] @ noise_factor[m].T).flatten(1, 2)
        circuit = SimpleNamespace(
            weights=weights[m],
            tau_states=np.array(setup.tau),
            recurrent=lambda rates, own=weights[m]: rates @ own.T,
            receptors=None,
            dynamics="voltage",
            rates=rates_of,
        )
        du_dt = reference.velocity(circuit)
        step = SCHEMES[setup.solver]
        u, slope, path = torch.zeros_like(forcing[0]), None, []
        for t in range(n_steps):
            if t == n_burn:
                u, slope = u.detach(), slope if slope is None else slope.detach()
            u, slope = step(du_dt, u, forcing[t], forcing[t + 1], setup.dt, slope)
            path.append(u.unflatten(0, (n_inputs, setup.n_trials)))
        path = torch.stack(path)
        samples = path[n_burn:].transpose(0, 1).flatten(1, 2)
        mean = samples.mean(1)
        deviations = samples - mean[:, None]
        covariance = deviations.mT @ deviations / samples.shape[1]
        rates = rates_of(samples).mean(1)
        results.append((mean, covariance, rates, path))
    return [torch.stack(x) for x in zip(*results, strict=True)]


def relative_error(got, want):
    want = want.detach()
    return ((got.detach().cpu() - want).abs().max() / want.abs().max()).item()


def on_device(tensors):
    return [x.to(DEVICE).requires_grad_() for x in tensors]


def check(setup, inputs, engine, tolerance):
    """Hold moments, and the gradient of a random functional of them, against the reference."""
    ours, exact = on_device(inputs), [x.double().requires_grad_() for x in inputs]
    *got, first, _, _ = gpu.moments(*ours, setup, engine=engine)
    *want, _ = reference_moments(*exact, setup)
    assert (first == -1).all()
    rng = np.random.RandomState(1)
    factors = [torch.tensor(rng.normal(size=x.shape)) for x in want]
    loss = sum((f.to(x) * x).sum() for f, x in zip(factors, got, strict=True))
    gradients = torch.autograd.grad(loss, ours)
    loss = sum((f * x).sum() for f, x in zip(factors, want, strict=True))
    for x, y in zip(got, want, strict=True):
        assert relative_error(x, y) < tolerance
    for x, y in zip(gradients, torch.autograd.grad(loss, exact), strict=True):
        assert relative_error(x, y) < tolerance


LOSSES = {
    "transposed": lambda x, f: (x.mT * f.mT).sum() if x.ndim > 2 else (x.T * f.T).sum(),
    "permuted": lambda x, f: (x.movedim(0, -1).contiguous() * f.movedim(0, -1)).sum(),
    "expanded": lambda x, f: x.sum() + 0 * f.sum(),
    "every other": lambda x, f: (x[..., ::2] * f[..., ::2]).sum(),
    "summed twice": lambda x, f: (x * f).sum() + (x.mT * f.mT).sum(),
}


@pytest.mark.parametrize("engine", ["resident", "tiled", "library"])
@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_through_views(kind, engine):
    """Which come with other strides than their tensors: kernels get an address."""
    setup = Setup(n_window=3, seeds=TWO, covariance=engine == "resident")
    inputs = problem(setup)
    ours, exact = on_device(inputs), [x.double().requires_grad_() for x in inputs]
    *got, _, _, _ = gpu.moments(*ours, setup, engine=engine)
    *want, _ = reference_moments(*exact, setup)
    rng = np.random.RandomState(1)
    pairs = [(x, y) for x, y in zip(got, want, strict=True) if x is not None]
    factors = [torch.tensor(rng.normal(size=y.shape)) for _, y in pairs]
    one = sum(LOSSES[kind](x, f.to(x)) for (x, _), f in zip(pairs, factors, strict=True))
    other = sum(LOSSES[kind](y, f) for (_, y), f in zip(pairs, factors, strict=True))
    found, expected = torch.autograd.grad(one, ours), torch.autograd.grad(other, exact)
    for x, y in zip(found, expected, strict=True):
        assert relative_error(x, y) < 1e-5


@pytest.mark.parametrize("engine", ["resident", "tiled", "library"])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_gradients_of_any_size(solver, engine):
    """Products of float16 numbers are scaled by what there is."""
    setup = Setup(n_window=3, seeds=TWO, solver=solver, covariance=False, rates=False)
    found = {}
    for size in (0.0, 1e-25, 1.0, 1e25):
        ours = on_device(problem(setup))
        mean = gpu.moments(*ours, setup, engine=engine)[0]
        # networks side by side, whose gradients differ
        factors = torch.tensor([size, 1e-3 * size], device=DEVICE)[:, None, None]
        found[size] = [x.cpu().double() for x in torch.autograd.grad((factors * mean).sum(), ours)]
    assert all((x == 0).all() for x in found[0.0])
    for size in (1e-25, 1e25):
        for x, y in zip(found[size], found[1.0], strict=True):
            for network in range(2):
                assert relative_error(x[network] / size, y[network]) < 1e-5


@pytest.mark.parametrize("engine", ["resident", "tiled", "library"])
def test_a_second_gradient_is_refused(engine):
    setup = Setup(n_window=2)
    ours = on_device(problem(setup))
    mean = gpu.moments(*ours, setup, engine=engine)[0]
    torch.autograd.grad(mean.sum(), ours, retain_graph=True)
    with pytest.raises(RuntimeError, match="can be taken only once"):
        torch.autograd.grad(mean.sum(), ours)


def test_settings_of_torch_are_left_alone():
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        setup = Setup(n_window=2, precision="tf32")
        gpu.moments(*(x.to(DEVICE) for x in problem(setup)), setup, engine="library")
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize(
    "choice",
    [
        cards.Choice("resident", cards.Tile(16), cards.Tile(16), cards.Tile(16)),
        cards.Choice("tiled", cards.Tile(32, 64), cards.Tile(64, 32), cards.Tile(16)),
        cards.Choice("resident", cards.Tile(32), cards.Tile(16)),
        cards.Choice("library"),
    ],
)
def test_on_small_cards(choice, solver, monkeypatch):
    """Smaller tiles, and outer products by a library."""
    monkeypatch.setattr(engine, "choose", lambda *_: choice)
    monkeypatch.setattr(engine, "CHUNK_ELEMENTS", 3 * 2 * 8 * 3)  # three steps
    setup = Setup(solver=solver, seeds=TWO)
    check(setup, problem(setup), choice.engine, 1e-5)


def test_outer_products_are_added_up_in_short_stretches(monkeypatch):
    setup = Setup(n_window=7, solver="heun")
    monkeypatch.setattr(programs, "OUTER_STEPS", 3)
    check(setup, problem(setup), "resident", 1e-5)


def chosen(capability, precision, n, **changes):
    setup = Setup(precision=precision, **changes)
    return cards.choose_for(n, setup, cards.CARDS[capability], capability)


@pytest.mark.parametrize("capability", cards.CARDS)
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_there_is_an_engine_for_every_card(capability, precision):
    for solver in SCHEMES:
        for n in (2, 64, 65, 128, 129, 1024, 1025):
            choice = chosen(capability, precision, n, solver=solver)
            assert (choice.engine == "library") == (n > 1024)
            empty = capability == (10, 0) and n > 64 and precision == "float32"
            assert (choice.outer is None) == empty
        # powers beyond the range of float16
        choice = chosen(capability, precision, 100, gamma=3.0, solver=solver)
        assert choice.engine == "library"
        assert choice.outer is None


def test_large_cards_keep_networks_on_the_chip():
    for precision in ("float32", "tf32"):
        assert chosen((9, 0), precision, 100).engine == "resident"
    assert chosen((12, 0), "float32", 50).engine == "resident"
    assert chosen((12, 0), "float32", 100).engine == "tiled"


TWO = (3, 2**40 + 5)
VARIANTS = {
    "euler": ({"solver": "euler", "seeds": TWO}, False),
    "euler-moving": ({"solver": "euler", "shared_noise": True, "gamma": 1.0}, True),
    "ab2": ({"solver": "ab2", "increments": "weak", "seeds": TWO}, False),
    "ab2-cold": ({"solver": "ab2", "n_burn": 0, "antithetic": True, "gamma": 2.5}, True),
    "heun": ({"solver": "heun", "antithetic": True, "gamma": 2.5}, False),
    "heun-cold": ({"solver": "heun", "n_burn": 0, "increments": "weak"}, True),
}
ENGINES = ["resident", "tiled", "library"]
CASES = [
    *(("resident", variant) for variant in VARIANTS),
    *(("tiled", variant) for variant in ("euler", "ab2-cold", "heun")),
    *(("library", variant) for variant in ("euler-moving", "ab2", "heun-cold")),
]


@pytest.mark.parametrize(("engine", "variant"), CASES)
def test_moments_and_gradient(engine, variant, monkeypatch):
    monkeypatch.setattr(library, "GRAPH_STEPS", 3)
    changes, moving = VARIANTS[variant]
    setup = Setup(**changes)
    check(setup, problem(setup, moving), engine, 1e-5)


@pytest.mark.parametrize("engine", ["resident", "tiled"])
def test_tf32(engine):
    setup = Setup(precision="tf32")
    check(setup, problem(setup), engine, 2e-3)


@pytest.mark.parametrize("solver", SCHEMES)
@pytest.mark.parametrize("engine", ENGINES)
def test_cells_that_differ(engine, solver):
    """Each has a gain and a time constant; exponents of their own are for library products."""
    constants = {"k": torch.tensor([0.05, 0.03, 0.08])}
    if engine == "library":
        constants["gamma"] = torch.tensor([2.0, 1.0, 2.5])
        assert cards.choose(3, Setup(**constants), DEVICE).engine == "library"
    constants = {name: value.to(DEVICE) for name, value in constants.items()}
    setup = Setup(tau=(20.0, 12.0, 7.0), solver=solver, seeds=TWO, **constants)
    check(setup, problem(setup), engine, 1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_runs_go_on(engine):
    """The potentials and the noise at the end, and another run from there."""
    setup = Setup(n_burn=2, n_window=5, seeds=TWO, covariance=False, rates=False, final=True)
    inputs = [x.to(DEVICE) for x in problem(setup)]
    inputs[1] = 0 * inputs[1]
    *_, u, z = gpu.moments(*inputs, setup, engine=engine)
    every = gpu.noise(setup, 2, 3, DEVICE)
    assert_allclose(z.cpu(), every[-1].cpu(), atol=1e-6)
    first = replace(setup, n_window=2)
    *_, u_first, z_first = gpu.moments(*inputs, first, engine=engine)
    assert_allclose(z_first.cpu(), every[4].cpu(), atol=1e-6)
    second = replace(setup, n_burn=0, n_window=3, initial=(u_first, z_first))
    mean, *_, u_second, _ = gpu.moments(*inputs, second, engine=engine)
    assert_allclose(u_second.cpu(), u.cpu(), rtol=1e-5)
    assert mean.isfinite().all()


def test_many_cells():
    """More than one block of cells, and more trials than one tile has columns."""
    setup = Setup(tau=(20.0,) * 140, n_trials=35, n_burn=0, n_window=2, seeds=(1,), dt=0.5)
    check(setup, problem(setup, n=140), "tiled", 1e-5)


@pytest.mark.parametrize("solver", ["ab2", "heun"])
def test_chunks_of_time(solver, monkeypatch):
    setup = Setup(solver=solver)
    inputs = problem(setup)
    whole = gpu.moments(*(x.to(DEVICE) for x in inputs), setup)[:3]
    monkeypatch.setattr(engine, "CHUNK_ELEMENTS", 3 * 2 * 8 * 3)  # three steps
    check(setup, inputs, "resident", 1e-5)
    pieces = gpu.moments(*(x.to(DEVICE) for x in inputs), setup)[:3]
    for x, y in zip(pieces, whole, strict=True):
        assert relative_error(x, y.cpu()) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_does_not_see_the_others(engine):
    setup = Setup(n_window=2, seeds=TWO)
    inputs = problem(setup)
    together = gpu.moments(*(x.to(DEVICE) for x in inputs), setup, engine=engine)
    for m, seed in enumerate(setup.seeds):
        alone = [x[m : m + 1].to(DEVICE) for x in inputs]
        alone = gpu.moments(*alone, replace(setup, seeds=(seed,)), engine=engine)
        for x, y in zip(alone[:4], together[:4], strict=True):
            assert_allclose(x[0].cpu(), y[m].cpu(), rtol=1e-6, atol=1e-6)


def test_only_the_mean():
    setup = Setup(n_window=3)
    inputs = [x.to(DEVICE) for x in problem(setup)]
    full = gpu.moments(*inputs, setup)
    mean, covariance, rates, first, *_ = gpu.moments(
        *inputs, replace(setup, covariance=False, rates=False)
    )
    assert covariance is None
    assert rates is None
    assert_allclose(mean.cpu(), full[0].cpu())
    assert_allclose(first.cpu(), full[3].cpu())


@pytest.mark.parametrize("engine", ENGINES)
def test_divergence(engine):
    """Trials run away at the reference's step, and the moments are those of the others."""
    setup = Setup(n_burn=6, n_window=4, dt=4.0, k=0.3, n_trials=6)
    weights, noise_factor, drive = problem(setup)
    drive[0] = torch.tensor([[2.0] * 3, [60.0] * 3])
    noise_factor[0] = 2.0 * torch.eye(3)
    inputs = [0.3 * weights.abs(), noise_factor, drive]
    path = reference_moments(*(x.double() for x in inputs), setup)[-1]
    large = ~(path.abs().amax(-1) <= 1e3)
    want = torch.where(large.any(1), large.to(torch.uint8).argmax(1) + 1, -1)
    partly = ((want >= 0).any(-1) & (want < 0).any(-1)).nonzero().tolist()
    assert partly  # some input with trials of both kinds
    ours = on_device(inputs)
    *moments, first, _, _ = gpu.moments(*ours, setup, engine=engine)
    # float32 and float64 part on their way up
    assert ((first.cpu() - want).abs() <= 1).all()
    assert ((first.cpu() < 0) == (want < 0)).all()
    m, i = partly[0]
    kept = path[m, setup.n_burn :, i, want[m, i] < 0].flatten(0, 1)
    assert_allclose(moments[0][m, i].detach().cpu(), kept.mean(0), rtol=1e-4)
    covariance = np.cov(kept.T, bias=True)
    assert_allclose(moments[1][m, i].detach().cpu(), covariance, rtol=1e-3, atol=1e-3)
    lost = (want >= 0).all(-1)
    assert lost.any()
    for x in moments:
        assert (torch.isnan(x.cpu()).flatten(2).all(-1) == lost).all()
    loss = sum(x[~lost.to(DEVICE)].square().sum() for x in moments)
    gradients = torch.autograd.grad(loss, ours)
    assert all(torch.isfinite(x).all() for x in gradients)
    # the same without a gradient, where time is not kept, and if they are left out from the start
    for left_out in (None, first >= 0):
        with torch.no_grad():
            *again, first_again, _, _ = gpu.moments(*ours, setup, left_out, engine=engine)
        assert (first_again == (first if left_out is None else -1)).all()
        for x, y in zip(again, moments, strict=True):
            assert_allclose(x.cpu(), y.detach().cpu(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("increments", ["gaussian", "weak"])
def test_noise_is_stationary(increments, monkeypatch):
    if DEVICE == "cpu":
        monkeypatch.setattr(columns, "TILE", 1024)  # the interpreter's time is that of a program
    setup = Setup(n_trials=400, increments=increments, n_burn=0, n_window=20, dt=3.0, seeds=TWO)
    z = gpu.noise(setup, 2, 3, DEVICE).cpu().numpy()
    n_series = z[0].size
    assert z.shape == (21, 2, 2, 400, 3)
    for t in (0, 1, 20):
        assert abs(z[t].mean()) < 4 / np.sqrt(n_series)
        assert z[t].var() == pytest.approx(1, abs=4 * np.sqrt(2 / n_series))
    for lag in (1, 5, 10):
        correlation = (z[lag:] * z[:-lag]).mean() / (z**2).mean()
        assert correlation == pytest.approx(np.exp(-3.0 * lag / 15), abs=0.03)
    decay = np.exp(-3.0 / 15)
    xi = (z[1:] - decay * z[:-1]) / np.sqrt(1 - decay**2)
    assert xi.var() == pytest.approx(1, abs=0.02)
    # both have the fourth moment 3; it is noisier for normal numbers
    assert (xi**4).mean() == pytest.approx(3, abs=0.1)
    if increments == "weak":
        nearest = np.sqrt(3) * np.round(xi / np.sqrt(3))
        assert_allclose(xi, nearest, atol=1e-4)
    # cells, trials, inputs and networks are independent
    correlations = np.corrcoef(xi.transpose(1, 2, 4, 0, 3).reshape(12, -1))
    assert np.abs(correlations - np.eye(12)).max() < 5 / np.sqrt(20 * 400)


def test_shared_and_antithetic_noise():
    setup = Setup(n_trials=6, n_window=4)
    z = gpu.noise(setup, 2, 3, DEVICE).cpu()
    shared = gpu.noise(replace(setup, shared_noise=True), 2, 3, DEVICE).cpu()
    assert_allclose(shared[:, :, 0], z[:, :, 0])
    assert_allclose(shared[:, :, 1], shared[:, :, 0])
    mirrored = gpu.noise(replace(setup, antithetic=True), 2, 3, DEVICE).cpu()
    assert_allclose(mirrored[:, :, :, 3:], -mirrored[:, :, :, :3])
    assert_allclose(mirrored[:, :, 0, :3], z[:, :, 0, :3])
    assert (mirrored[:, :, 1] != mirrored[:, :, 0]).all()


ALL = ("euler", "ab2", "heun")
BUILDS = [
    ("9.0", "tf32", 50, ("heun",)),
    *(("9.0", precision, n, ALL) for precision in ("float32", "tf32") for n in (100, 200)),
    *(
        (card, precision, n, ("euler", "heun"))
        for card in ("8.0", "10.0", "12.0")
        for precision in ("float32", "tf32")
        for n in (50, 100, 200)
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_kernels_compile_for_cards(build, tmp_path):
    """Without a device; in another process, because this one may have the interpreter."""
    card, precision, n, solvers = build
    script = Path(__file__).parents[2] / "benchmarks/gpu/compiled.py"
    options = {"--card": [card], "--precision": [precision], "--cells": [n], "--solver": solvers}
    command = [sys.executable, script, "--check"]
    command += [str(x) for name, values in options.items() for x in (name, *values)]
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
