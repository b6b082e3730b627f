"""`sweep` and `as_sbi_simulator`: the same table by whatever way; diverged trials are counted."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib.parallel import ThreadingBackend
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from ssn_estimators import Circuit, DivergenceError, as_sbi_simulator, simulate, sweep

pd = pytest.importorskip("pandas")

N_KILLS = int(os.environ.get("N_KILLS", "4"))  # of a sweep; more are asked for
GRID = {"w": [0.3, 0.6, 30.0], "h": [1.0, 2.0, 4.0], "n": [1, 2]}
BRIEF = {"n_trials": 3, "duration": 20.0, "burn_in": 10.0, "random_state": 0}


def network(w, h, n):
    """Of n pairs; with w of 30 it diverges under the stronger inputs."""
    one = np.kron([[w, -0.3], [w, -0.3]], np.ones((n, n)) / n)
    return Circuit(one, n_excitatory=n, noise_factor=0.3), np.full((2, 2 * n), h)


def product(w, h, n):
    return {"product": w * h * n}


def same(found, expected):
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.fixture(scope="module")
def table():
    return sweep(network, GRID, **BRIEF)


def test_rows_are_the_points_of_the_grid(table):
    assert len(table) == 18
    assert table.columns.tolist() == ["h", "n", "w", "diverged", "rate_E", "rate_I"]
    assert table.index.name == "point"
    assert not table.duplicated(["w", "h", "n"]).any()
    found = sweep(product, GRID, random_state=0)
    assert_array_equal(found["product"], found.w * found.h * found.n)
    assert (found.diverged == 0).all()


def test_each_row_is_a_simulation_of_its_own(table):
    """Whatever was simulated beside it: with a seed for each point."""
    seeds = set()

    def noting(random_state, **parameters):
        seeds.add(random_state)
        circuit, drive = network(**parameters)
        options = {name: BRIEF[name] for name in ("n_trials", "duration", "burn_in")}
        found = simulate(circuit, drive, random_state=random_state, **options)
        rates = found.rates.mean(0)
        n = circuit.n_excitatory
        return {
            "diverged": found.diverged.mean(),
            "rate_E": rates[:n].mean(),
            "rate_I": rates[n:].mean(),
        }

    found = sweep(noting, GRID, random_state=0)
    assert len(seeds) == 18
    assert_array_equal(found.diverged, table.diverged)
    assert_allclose(found.rate_E, table.rate_E, rtol=1e-12)
    assert_allclose(found.rate_I, table.rate_I, rtol=1e-12)


def test_the_share_of_diverged_trials_is_counted(table):
    strong = table.w == 30.0
    assert (table.diverged[~strong] == 0).all()
    assert (table.diverged[strong & (table.h == 4.0)] == 1).all()
    assert table.rate_E[table.diverged == 1].isna().all()
    assert table.rate_E[table.diverged == 0].notna().all()


def test_rates_of_an_uncoupled_cell_are_those_of_its_input():
    """Without noise or recurrence the potential settles at the drive h, and the rate at k h**2."""

    def cell(h):
        return Circuit([[0.0]], n_excitatory=1, noise_factor=0.0), [[h]]

    found = sweep(cell, {"h": [1.0, 2.0, 5.0]}, n_trials=1, burn_in=400.0, duration=1.0)
    assert_allclose(found.rate_E, 0.3 * found.h**2, rtol=1e-6)


def test_functions_that_diverge():
    def sometimes(x):
        if x > 1:
            raise DivergenceError("too far")
        return {"y": x, "diverged": x / 2}

    found = sweep(sometimes, {"x": [0.0, 1.0, 2.0]}, random_state=0)
    assert found.diverged.tolist() == [0.0, 0.5, 1.0]
    assert found.y.isna().tolist() == [False, False, True]


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_any_backend(table, backend, n_jobs):
    with joblib.parallel_config(backend=backend):
        same(sweep(network, GRID, n_jobs=n_jobs, batch_size=5, **BRIEF), table)


def test_workers_do_not_use_more_threads_than_there_are_cores():
    def count(i):
        return {"threads": torch.get_num_threads()}

    with joblib.parallel_config(backend="loky"):
        found = sweep(count, {"i": range(4)}, n_jobs=2, batch_size=1)
    assert (2 * found.threads <= max(2, joblib.cpu_count())).all()


def test_summaries(table):
    def spread(simulation, circuit):
        variance = simulation.covariance.diagonal(axis1=1, axis2=2).mean()
        return {"variance": variance, "steps": len(simulation.u), "cells": circuit.n_neurons}

    grid = GRID | {"w": [0.3]}
    found = sweep(network, grid, summaries=spread, record="u", **BRIEF)
    assert (found.steps == 20).all()
    assert (found.cells == 2 * found.n).all()
    assert (found.variance > 0).all()


def test_draws_and_seeds_depend_on_numbers_only():
    space = {"w": stats.uniform(0, 0.5), "h": [1.0, 2.0], "n": [1, 2]}
    long = sweep(network, space, n_points=12, **BRIEF)
    assert long.w.between(0, 0.5).all()
    assert long.w.nunique() == 12
    same(sweep(network, space, n_points=5, **BRIEF), long[:5])
    other = sweep(network, space, n_points=5, **BRIEF | {"random_state": 1})
    assert not (other.w == long.w[:5]).any()


def test_shards_are_the_table(table, tmp_path):
    parts = [
        sweep(network, GRID, shard=(i, 4), batch_size=3, out=tmp_path / f"{i}.jsonl", **BRIEF)
        for i in range(4)
    ]
    assert [len(part) for part in parts] == [6, 6, 3, 3]
    same(pd.concat(parts).sort_index(), table)
    assert len(sweep(product, GRID, shard=(4, 5))) == 0


def points_of(path):
    return [json.loads(line)["point"] for line in path.read_text().splitlines()[1:]]


def test_a_file_cut_anywhere_goes_on(tmp_path):
    """As after a kill at any time: the same table, and nothing in it twice."""
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    how = {"batch_size": 5, "random_state": 0}
    expected = sweep(product, GRID, out=whole, **how)
    content = whole.read_bytes()
    assert sorted(points_of(whole)) == list(range(18))
    places = {0, 1, 5, len(content) - 1, len(content)}
    places |= set(np.random.RandomState(0).randint(len(content), size=60).tolist())
    for n in sorted(places):
        cut.write_bytes(content[:n])
        same(sweep(product, GRID, out=cut, **how), expected)
        assert sorted(points_of(cut)) == list(range(18))
        assert cut.read_bytes() == content


def test_what_is_done_is_not_done_again(tmp_path):
    calls = []

    def counting(x):
        calls.append(x)
        if x == failing:
            raise RuntimeError("on purpose")
        return {"y": x}

    failing, path = 5, tmp_path / "sweep.jsonl"
    how = {"batch_size": 2, "out": path, "random_state": 0}
    with pytest.raises(RuntimeError, match="on purpose") as caught:
        sweep(counting, {"x": range(8)}, **how)
    assert "point 5, {'x': 5}" in caught.value.__notes__[0]
    assert calls == [0, 1, 2, 3, 4, 5]
    failing = None
    found = sweep(counting, {"x": range(8)}, **how)
    assert calls[6:] == [4, 5, 6, 7]
    assert found.y.tolist() == list(range(8))
    same(sweep(counting, {"x": range(8)}, **how), found)
    assert len(calls) == 10


def test_a_drawn_seed_is_that_of_the_file(tmp_path):
    space, how = {"x": stats.norm()}, {"n_points": 4, "out": tmp_path / "a"}
    first = sweep(lambda x: {"y": 2 * x}, space, **how)
    same(sweep(lambda x: {"y": 2 * x}, space, **how), first)
    other = sweep(lambda x: {"y": 2 * x}, space, **how | {"out": None})
    assert not (other.x == first.x).any()


OTHERS = {
    "points": lambda how: sweep(product, GRID | {"h": [1.0]}, **how),
    "function": lambda how: sweep(lambda w, h, n: {"product": w + h + n}, GRID, **how),
    "random_state": lambda how: sweep(product, GRID, **how | {"random_state": 1}),
    "batch_size": lambda how: sweep(product, GRID, **how | {"batch_size": 4}),
    "shard": lambda how: sweep(product, GRID, shard=(0, 2), **how),
    "options": lambda how: sweep(network, GRID, n_trials=4, **how),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_sweep_does_not_go_on(tmp_path, name):
    path = tmp_path / "sweep.jsonl"
    how = {"out": path, "random_state": 0}
    sweep(product, GRID, **how)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"differs in .*{name}"):
        OTHERS[name](how)
    assert path.read_bytes() == before


def test_the_code_of_a_function_is_compared():
    """But not its comments or its place; defaults and what is bound are."""
    from ssn_estimators.sweeps import _hash, _Work

    def made(text):
        space = {}
        exec(text, space)
        return space["f"]

    def code(function):
        return _hash(_Work(function, None, None, {}).functions())

    one = code(made("def f(x):\n    return {'y': x + 1}"))
    assert code(made("\n# why\n\ndef f(x):\n    # how\n    return {'y': x + 1}")) == one
    others = [
        "def f(x):\n    return {'y': x + 2}",
        "def f(x):\n    return {'y': x - 1}",
        "def f(x, z=1):\n    return {'y': x + 1}",
        "def f(x):\n    return (lambda: {'y': x + 1})()",
    ]
    assert len({one, *(code(made(text)) for text in others)}) == 5
    partials = [functools.partial(product, w=w) for w in (1, 2, 2)]
    assert code(partials[0]) != code(partials[1]) == code(partials[2])


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "text", '{"kind": "another"}\n', "\n"])
def test_files_of_others_are_left_alone(tmp_path, content):
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(ValueError, match="is no file of a sweep"):
        sweep(product, GRID, out=path)
    assert path.read_text() == content


def test_damaged_files(tmp_path):
    path = tmp_path / "file"
    sweep(product, GRID, out=path, random_state=0)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], lines[3][5:], *lines[4:]]))
    with pytest.raises(ValueError, match="is damaged"):
        sweep(product, GRID, out=path, random_state=0)


def test_two_processes_do_not_write_one_file(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "file"
    script = "\n".join(
        [
            "import fcntl, sys",
            f"file = open({str(path)!r}, 'a')",
            "fcntl.lockf(file, fcntl.LOCK_EX)",
            "print('locked', flush=True)",
            "sys.stdin.read()",
        ]
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match="being written by another process"):
            sweep(product, GRID, out=path)
    finally:
        other.communicate()
    sweep(product, GRID, out=path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"point": 3}, TypeError, "point must be callable"),
        ({"summaries": 3}, TypeError, "summaries must be callable"),
        ({"n_points": 0}, ValueError, "n_points must be a positive integer"),
        ({"batch_size": 1.5}, ValueError, "batch_size must be a positive integer"),
        ({"shard": (2, 2)}, ValueError, "shard must be a pair"),
        ({"shard": 1}, ValueError, "shard must be a pair"),
        ({"random_state": -1}, ValueError, "random_state must be None or an integer"),
        ({"random_state": np.random}, ValueError, "random_state must be None or an integer"),
        ({"n_trial": 3}, TypeError, r"no options \['n_trial'\]"),
        ({"n_trials": 0}, ValueError, "n_trials must be a positive integer"),
        ({"record": "u"}, ValueError, "no trajectories"),
        ({"rates": False}, ValueError, "mean rates are kept"),
        ({"parameters": {"diverged": [1]}}, ValueError, "can be called 'diverged'"),
        ({"parameters": {"w": 3}}, TypeError, "needs to be a list"),
    ],
)
def test_bad_options_fail_before_work(tmp_path, change, error, message):
    def never(**_):
        pytest.fail("there was work")

    path = tmp_path / "file"
    with pytest.raises(error, match=message):
        sweep(**{"point": never, "parameters": GRID, "out": path} | change)
    assert not path.exists()


@pytest.mark.parametrize(
    ("point", "options", "error", "message"),
    [
        (lambda x: 3, {}, TypeError, "a circuit and its drive, or a dict of numbers, got int"),
        (lambda x: (1, 2), {}, TypeError, "a circuit and its drive"),
        (lambda x: {"y": "a"}, {}, TypeError, "must be numbers, but 'y' is 'a'"),
        (lambda x: {"y": 1j}, {}, TypeError, "must be numbers"),
        (lambda x: {"x": 1}, {}, ValueError, "the name of a parameter"),
        (lambda x: {"y": 1}, {"n_trials": 3}, ValueError, "n_trials would not count"),
        (lambda x: {"y": 1}, {"summaries": print}, ValueError, "summaries would not count"),
        (lambda x: network(1.0, 1.0, 1), {"summaries": lambda *_: 3}, TypeError, "must be a dict"),
        (lambda x: network(np.nan, 1.0, 1), {}, ValueError, "finite"),
        (
            lambda x: network(1.0, 1.0, 1),
            {"summaries": lambda *_: {"diverged": 1.0}},
            ValueError,
            "cannot be called 'diverged'",
        ),
    ],
)
def test_functions_that_return_something_else(point, options, error, message):
    with pytest.raises(error, match=message):
        sweep(point, {"x": [1]}, **options)


SCRIPT = """
import sys, time
from pathlib import Path
import joblib
sys.path.insert(0, sys.argv[1])
import test_sweeps as t
def slow(w, h, n):
    time.sleep(0.05)
    return t.network(w, h, n)
grid = t.GRID | {"h": [0.5 + 0.25 * i for i in range(20)]}
print("ready", flush=True)
how = {"out": sys.argv[2], "n_jobs": int(sys.argv[3]), "batch_size": 4}
t.sweep(slow, grid, **how, **t.BRIEF).to_pickle(sys.argv[2] + ".pickle")
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_kills_at_random_times(tmp_path, n_jobs):
    """The table of one that was never killed, and every point once in its file."""
    folder = str(Path(__file__).parent)

    def started(path):
        command = [sys.executable, "-c", SCRIPT, folder, str(path), str(n_jobs)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    def size(path):
        return path.stat().st_size if path.exists() else 0

    whole, path = tmp_path / "whole", tmp_path / "killed"
    assert started(whole).wait() == 0
    rng, sizes = np.random.RandomState(n_jobs), []
    while len(sizes) < N_KILLS:
        # workers take seconds to start: time counts from when there was something more to lose
        least, process = size(path) + rng.randint(1, 2000), started(path)
        while size(path) < least and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            sizes.append(size(path))
        else:  # it was done before: begin again
            assert sorted(points_of(path)) == list(range(120))
            path.unlink()
    assert started(path).wait() == 0
    assert sorted(points_of(path)) == list(range(120))
    found, expected = (pd.read_pickle(f"{x}.pickle") for x in (path, whole))
    same(found, expected)
    assert len(set(sizes)) > N_KILLS / 2  # they were killed at different places


def theta(n):
    return torch.from_numpy(np.random.RandomState(0).uniform(0, 1, (n, 2)))


def pair(w, h):
    return network(w, h, 1)


def test_simulators_of_sbi():
    simulator = as_sbi_simulator(pair, ["w", "h"], n_trials=3, batch_size=4, random_state=0)
    x = simulator(theta(10))
    assert x.shape == (10, 2)
    assert x.dtype == torch.float64
    assert simulator(theta(3).float()).dtype == torch.float32
    assert simulator(theta(1)[0]).shape == (2,)
    assert simulator.summary_names == ("rate_E", "rate_I")
    assert (simulator.n_points, simulator.n_diverged) == (14, 0)
    # the order of names is that of columns
    turned = as_sbi_simulator(pair, ["h", "w"], n_trials=3, batch_size=4, random_state=0)
    assert torch.equal(turned(theta(10).flip(1)), x)


def test_simulators_do_not_repeat_their_noise():
    twice = theta(1).expand(6, 2)
    simulator = as_sbi_simulator(pair, ["w", "h"], random_state=0)
    x = torch.cat([simulator(twice), simulator(twice)])
    assert len(set(x[:, 0].tolist())) == 12
    # and go by the generator of torch, which sbi seeds
    simulator = as_sbi_simulator(pair, ["w", "h"])
    found = []
    with torch.random.fork_rng():
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            found.append(simulator(twice))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_points_that_diverge_are_nan_and_counted():
    def sometimes(x):
        if x == 3:
            raise DivergenceError("none")
        return {"y": x, "diverged": x / 4}

    grid = torch.arange(4.0)[:, None]
    for share, lost in ((0.0, [1, 2, 3]), (0.25, [2, 3]), (1.0, [3])):
        simulator = as_sbi_simulator(sometimes, ["x"], max_diverged=share, batch_size=1)
        x = simulator(grid)
        assert torch.nonzero(x[:, 0].isnan())[:, 0].tolist() == lost
        assert (simulator.n_points, simulator.n_diverged) == (4, len(lost))
    with pytest.raises(ValueError, match="are not known: all points diverged"):
        as_sbi_simulator(sometimes, ["x"])(torch.tensor([[3.0]]))


def test_backends_that_give_all_results_at_the_end(tmp_path):
    """As ray's; what is done before an error is in the file."""

    class Late(ThreadingBackend):
        supports_return_generator = False

    def sometimes(x):
        if x == 15:
            raise ArithmeticError("of point 15")
        return {"y": 2 * x}

    joblib.register_parallel_backend("late", Late)
    path = tmp_path / "sweep"
    how = {"batch_size": 1, "random_state": 0, "n_jobs": 2}
    expected = sweep(network, GRID, batch_size=5, **BRIEF)
    with joblib.parallel_config(backend="late"):
        same(sweep(network, GRID, batch_size=5, n_jobs=2, **BRIEF), expected)
        with pytest.raises(ArithmeticError, match="of point 15"):
            sweep(sometimes, {"x": range(16)}, out=path, **how)
    assert path.read_text().count('"point"') >= 8


def test_sbi_takes_them():
    pytest.importorskip("sbi")
    from sbi.inference import simulate_for_sbi
    from sbi.utils import BoxUniform
    from sbi.utils.user_input_checks import process_simulator

    prior = BoxUniform(torch.tensor([0.1, 1.0]), torch.tensor([20.0, 10.0]))
    simulator = as_sbi_simulator(pair, ["w", "h"], n_trials=2, duration=20.0)
    checked = process_simulator(simulator, prior, False)
    before = simulator.n_points, simulator.n_diverged
    theta, x = simulate_for_sbi(
        checked,
        prior,
        num_simulations=40,
        simulation_batch_size=20,
        seed=0,
        show_progress_bar=False,
    )
    assert theta.shape == x.shape == (40, 2)
    lost = int(x.isnan().any(1).sum())
    assert 0 < lost < 40
    assert (simulator.n_points, simulator.n_diverged) == (before[0] + 40, before[1] + lost)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": []}, "names must be different strings"),
        ({"names": ["w", "w"]}, "names must be different strings"),
        ({"max_diverged": 2}, "max_diverged must be a share"),
        ({"batch_size": 0}, "batch_size"),
        ({"random_state": "a"}, "random_state"),
        ({"dt": -1.0}, "dt must be"),
    ],
)
def test_simulators_refuse(change, message):
    with pytest.raises(ValueError, match=message):
        as_sbi_simulator(**{"point": pair, "names": ["w", "h"]} | change)


@pytest.mark.parametrize(
    "wrong", [torch.ones(3), torch.ones(2, 3), torch.ones(1, 1, 2), torch.ones(0, 2)]
)
def test_simulators_refuse_other_thetas(wrong):
    with pytest.raises(ValueError, match=r"theta must be finite and of shape \(n_points, 2\)"):
        as_sbi_simulator(pair, ["w", "h"])(wrong)
    with pytest.raises(ValueError, match="theta must be finite"):
        as_sbi_simulator(pair, ["w", "h"])(torch.tensor([[1.0, np.nan]]))
