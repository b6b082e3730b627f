"""`sweep`: a function at many points of its parameters; `as_sbi_simulator`: the same for sbi.

A chunk of points is what one task does, what is simulated at once and what is written at once.
Which points are in it, and their seeds, depend on nothing else: neither does the table, whoever
does the work and however often it was interrupted.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import pickle
import types
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING

import joblib
import numpy as np
import torch
from sklearn.model_selection import ParameterGrid, ParameterSampler

from ssn_estimators._journal import journal
from ssn_estimators._sklearn import versions
from ssn_estimators._tables import data_frame
from ssn_estimators.circuit import Circuit, kind_of
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.inspection.populations import means_by_population, types_of
from ssn_estimators.simulation import Trials, simulate_trials

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd

    from ssn_estimators._typing import Function, Record, StrPath

__all__ = ["as_sbi_simulator", "sweep"]

MOST_SEED = 2**31 - 1
ROUND = 4  # chunks of each job, of backends that give results at the end only


def sweep(
    point: Function,
    parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    n_points: int | None = None,
    summaries: Function | None = None,
    record: Record = None,
    out: StrPath | None = None,
    n_jobs: int | None = None,
    batch_size: int = 16,
    shard: tuple[int, int] | None = None,
    random_state: int | None = None,
    **trials: Any,
) -> pd.DataFrame:
    """Evaluate a function at many points of its parameters: a table that survives interruptions.

    Parameters
    ----------
    point : callable
        ``point(**parameters)`` is a pair of a circuit and its drive (in mV, as of
        :func:`simulate`): the circuits of a chunk that are alike in size and constants are
        simulated at once. Or it is a dict of numbers, such as the scores of a fit; a "diverged"
        among them is the share of trials that diverged. If it has an argument `random_state` that
        is no parameter, it gets the seed of the point, an int.
    parameters : dict, or list of dicts
        Values of every parameter, a :class:`~sklearn.model_selection.ParameterGrid`; or, with
        `n_points`, values or distributions of :mod:`scipy.stats` that a
        :class:`~sklearn.model_selection.ParameterSampler` draws from.
    n_points : int, default=None
        Number of points that are drawn. None takes every point of the grid.
    summaries : callable, default=None
        ``summaries(simulation, circuit)`` is a dict of numbers, what is kept of a
        :class:`Simulation`. None keeps the mean rate of each cell type over inputs, in Hz:
        ``rate_E``, ``rate_I``, ....
    record : str or tuple of str, default=None
        What `summaries` needs of trajectories, see :func:`simulate`.
    out : str or path-like, default=None
        File to which chunks are appended when they are done, as lines of JSON. If it is there, the
        same sweep goes on.
    n_jobs : int, default=None
        Chunks at once, as in :class:`joblib.Parallel`; :func:`joblib.parallel_config` says where:
        in processes, or on a cluster of dask or ray.
    batch_size : int, default=16
        Points of a chunk. Large ones fill a worker, small ones keep more workers busy.
    shard : pair of int, default=None
        ``(i, n)`` does chunks i, i + n, i + 2 n, ... only, i from 0 on: one of n jobs of a cluster,
        each with a file of its own.
    random_state : int, default=None
        Source of the points that are drawn, and of a seed for each that depends on its number but
        not on how many there are. None draws one, or takes that of the file.
    **trials
        Options of :func:`simulate`, such as `n_trials`. By default there is a covariance only with
        `summaries`.

    Returns
    -------
    table : pandas.DataFrame
        By the number of the point: its parameters, ``diverged`` (the share of trials that did), and
        the numbers. Those of a simulation are of the trials that stayed finite, NaN if an input
        has none. Where the function raised :class:`DivergenceError`, the share is 1 and all are
        NaN.

    Raises
    ------
    ImportError
        If there is no pandas.
    TypeError
        If the function returns something else.
    ValueError
        If an option is not legal or would not count; or if the file is that of another sweep (of
        other points, options, versions or code of the function itself), damaged, or being written
        by another process. An error leaves what has been written.

    See Also
    --------
    as_sbi_simulator : The same function as a simulator of sbi.
    fit_many : Networks trained side by side.

    Examples
    --------
    >>> from ssn_estimators import Circuit, sweep
    >>> def pair(w, h):
    ...     circuit = Circuit([[w, -1.0], [w, -0.5]], n_excitatory=1, noise_factor=0.3)
    ...     return circuit, [[h, h]]
    >>> table = sweep(pair, {"w": [0.5, 1.0], "h": [1.0, 2.0]}, n_trials=2, random_state=0)
    >>> table.columns.tolist()
    ['h', 'w', 'diverged', 'rate_E', 'rate_I']
    >>> len(table)
    4
    """
    data_frame({})  # or there would be no table in the end
    work = _Work(point, summaries, record, trials)
    _check_options(n_points, batch_size, shard, random_state)
    first, step = shard or (0, 1)
    with journal(out, "sweep of ssn_estimators") as file:
        seed = random_state
        if seed is None:
            seed = (file.head or {}).get("random_state", _fresh_seed())
        points = _points(parameters, n_points, seed)
        file.begin(
            {
                "format": 1,
                "random_state": seed,
                "points": _hash(points),
                "function": _hash(work.functions()),
                "options": _hash([work.trials, work.record]),
                "versions": versions(),
                "batch_size": batch_size,
                "shard": [first, step],
            }
        )
        rows = {line["point"]: line["values"] for line in file.lines}
        chunks = np.arange(len(points))
        chunks = [chunks[i : i + batch_size].tolist() for i in range(0, len(points), batch_size)]
        # a chunk that was half written is done as a whole: what is simulated at once stays so
        todo = [chunk for chunk in chunks[first::step] if not rows.keys() >= set(chunk)]
        for found in _in_parallel(work, todo, points, lambda i: _seed(seed, i), n_jobs):
            new = {i: values for i, values in found.items() if i not in rows}
            shown = {i: {k: _shown(x) for k, x in points[i].items()} for i in new}
            file.append([{"point": i, "parameters": shown[i], "values": new[i]} for i in new])
            rows |= new
    table = data_frame([points[i] | rows[i] for i in sorted(rows)])
    table.index = sorted(rows)
    return table.rename_axis(index="point")


def as_sbi_simulator(
    point: Function,
    names: Sequence[str],
    *,
    summaries: Function | None = None,
    record: Record = None,
    max_diverged: float = 0.0,
    n_jobs: int | None = None,
    batch_size: int = 16,
    random_state: int | None = None,
    **trials: Any,
) -> Function:
    """Make a function of parameters, as of :func:`sweep`, a simulator of the package sbi.

    Parameters
    ----------
    point : callable
        See :func:`sweep`.
    names : sequence of str
        The parameters that are the columns of theta.
    summaries, record
        See :func:`sweep`.
    max_diverged : float, default=0.0
        Share of trials that may diverge; the summaries of a point with more are NaN, which sbi
        leaves out of training. Those of the trials that are left would be biased.
    n_jobs, batch_size
        See :func:`sweep`.
    random_state : int, default=None
        Source of a seed for each point in turn. None draws them from torch's generator, which sbi
        seeds for each of its workers; with an int, do not let sbi copy the simulator into workers:
        they would repeat each other's noise.
    **trials
        Options of :func:`simulate`.

    Returns
    -------
    simulator : callable
        From theta, a tensor of shape (n_points, n_parameters), to one of shape (n_points,
        n_summaries), in the order of ``simulator.summary_names``. ``simulator.n_points`` and
        ``simulator.n_diverged`` count the points so far, and those that became NaN.

    Raises
    ------
    TypeError, ValueError
        As of :func:`sweep`; and of the simulator if theta has another shape or is not finite.

    See Also
    --------
    sweep : The same function in a table.

    Examples
    --------
    >>> import torch
    >>> from ssn_estimators import Circuit, as_sbi_simulator
    >>> def pair(w, h):
    ...     circuit = Circuit([[w, -1.0], [w, -0.5]], n_excitatory=1, noise_factor=0.3)
    ...     return circuit, [[h, h]]
    >>> simulator = as_sbi_simulator(pair, ["w", "h"], n_trials=2, random_state=0)
    >>> simulator(torch.tensor([[0.5, 1.0], [1.0, 2.0], [50.0, 2.0]])).shape
    torch.Size([3, 2])
    >>> simulator.n_diverged, simulator.summary_names
    (1, ('rate_E', 'rate_I'))
    """
    names = tuple(names)
    if not names or len(set(names)) < len(names) or not all(isinstance(x, str) for x in names):
        raise ValueError(f"names must be different strings, got {names}.")
    if not isinstance(max_diverged, Real) or not 0 <= max_diverged <= 1:
        raise ValueError(f"max_diverged must be a share from 0 to 1, got {max_diverged!r}.")
    _check_options(None, batch_size, None, random_state)
    work = _Work(point, summaries, record, trials)
    return _Simulator(work, names, max_diverged, n_jobs, batch_size, random_state)


class _Simulator:
    """See :func:`as_sbi_simulator`."""

    def __init__(self, work, names, max_diverged, n_jobs, batch_size, random_state):
        self.work, self.names, self.max_diverged = work, names, max_diverged
        self.n_jobs, self.batch_size, self.random_state = n_jobs, batch_size, random_state
        self.n_points = self.n_diverged = 0
        self.summary_names = None

    def __call__(self, theta):
        theta = torch.as_tensor(theta)
        rows = torch.atleast_2d(theta).detach().cpu()
        shaped = rows.ndim == 2 and len(rows) and rows.shape[1] == len(self.names)
        if not shaped or not rows.isfinite().all():
            raise ValueError(
                f"theta must be finite and of shape (n_points, {len(self.names)}), for the "
                f"parameters {self.names}; got {tuple(theta.shape)}."
            )
        points = [dict(zip(self.names, row, strict=True)) for row in rows.tolist()]
        root, before = self.random_state, self.n_points
        if root is None:
            root, before = int(torch.randint(MOST_SEED, (), device="cpu")), 0
        chunks = np.arange(len(points))
        chunks = [
            chunks[i : i + self.batch_size].tolist() for i in range(0, len(points), self.batch_size)
        ]
        found = {}
        seeds = functools.partial(_seed, root)
        for done in _in_parallel(
            self.work, chunks, points, lambda i: seeds(before + i), self.n_jobs
        ):
            found |= done
        values = self._values([found[i] for i in range(len(points))])
        self.n_points += len(values)
        self.n_diverged += int(values.isnan().any(1).sum())
        values = values.to(theta.dtype if theta.is_floating_point() else torch.float32)
        return values if theta.ndim == 2 else values[0]

    def _values(self, rows):
        """Summaries of all points, NaN where more trials than may have diverged."""
        names = {tuple(x for x in row if x != "diverged") for row in rows} - {()}
        names |= {self.summary_names} - {None}
        if len(names) != 1:
            what = f"differ: {sorted(names)}" if names else "are not known: all points diverged"
            raise ValueError(f"the summaries of the points {what}.")
        (self.summary_names,) = names
        nothing = [np.nan] * len(self.summary_names)
        lost = [row["diverged"] > self.max_diverged or len(row) == 1 for row in rows]
        return torch.tensor(
            [
                nothing if gone else [row[name] for name in self.summary_names]
                for row, gone in zip(rows, lost, strict=True)
            ],
            dtype=torch.float64,
            device="cpu",
        )


def _in_parallel(work, chunks, points, seed_of, n_jobs):
    """Rows by number, of one chunk after the other as they are done."""
    tasks = (
        joblib.delayed(work)(chunk, [points[i] for i in chunk], [seed_of(i) for i in chunk])
        for chunk in chunks
    )
    try:
        parallel = joblib.Parallel(n_jobs, return_as="generator_unordered")
    except ValueError:  # of backends that give all results at the end, such as ray's
        return _in_rounds(tasks, n_jobs)
    return parallel(tasks)


def _in_rounds(tasks, n_jobs):
    """Results of some tasks at a time, so that not all are lost if there is no end."""
    n = ROUND * joblib.effective_n_jobs(n_jobs)
    while own := list(itertools.islice(tasks, n)):
        yield from joblib.Parallel(n_jobs)(own)


class _Work:
    """From points to rows of numbers, on whatever worker."""

    def __init__(self, point, summaries, record, trials):
        for name, function in (("point", point), ("summaries", summaries)):
            if not callable(function) and (function is not None or name == "point"):
                raise TypeError(f"{name} must be callable, got {type(function).__name__}.")
        unknown = trials.keys() - inspect.signature(Trials).parameters.keys()
        if unknown:
            raise TypeError(f"there are no options {sorted(unknown)} of simulations.")
        self.point, self.summaries, self.record = point, summaries, record
        self.trials = Trials(**{"covariance": summaries is not None} | trials)
        if summaries is None and (record or not self.trials.rates):
            raise ValueError("without summaries, mean rates are kept, and no trajectories.")
        self.of_circuits = [*trials, *(["summaries"] if summaries else [])]
        self.seeded = "random_state" in _arguments(point)

    def functions(self):
        """What both do, as far as it stands in them."""
        return [_code(self.point), _code(self.summaries)]

    def __call__(self, numbers, points, seeds):
        rows, batches = {}, {}
        for i, parameters, seed in zip(numbers, points, seeds, strict=True):
            try:
                made = self._made(parameters, seed)
                if isinstance(made, Mapping):
                    rows[i] = {"diverged": 0.0} | _numbers(made, parameters)
                else:
                    kind, *rest = made
                    batches.setdefault(kind, []).append((i, parameters, seed, *rest))
            except DivergenceError:
                rows[i] = {"diverged": 1.0}
            except Exception as error:
                error.add_note(f"This was at point {i}, {parameters}.")
                raise
        for batch in batches.values():
            rows |= self._simulated(*zip(*batch, strict=True))
        return {i: rows[i] for i in numbers}

    def _made(self, parameters, seed):
        """Numbers; or what circuits that are simulated at once have in common, and a circuit."""
        if self.seeded and "random_state" not in parameters:
            parameters = parameters | {"random_state": seed}
        made = self.point(**parameters)
        if isinstance(made, Mapping):
            if self.of_circuits:
                raise ValueError(
                    f"{', '.join(self.of_circuits)} would not count: the function returns numbers, "
                    "and no circuit."
                )
            return made
        pair = isinstance(made, Sequence) and len(made) == 2
        if not pair or not isinstance(made[0], Circuit):
            raise TypeError(
                "point must return a circuit and its drive, or a dict of numbers, got "
                f"{type(made).__name__}."
            )
        circuit, drive = made
        weights = circuit.weights
        place = type(weights), str(weights.dtype), str(getattr(weights, "device", None))
        return (kind_of(circuit), place, tuple(np.shape(drive))), circuit, drive

    def _simulated(self, numbers, points, seeds, circuits, drives):
        found = simulate_trials(list(circuits), list(drives), self.trials, list(seeds), self.record)
        rows = {}
        for i, parameters, circuit, one in zip(numbers, points, circuits, found, strict=True):
            values = (self.summaries or _mean_rates)(one, circuit)
            if isinstance(values, Mapping) and "diverged" in values:
                raise ValueError("summaries cannot be called 'diverged', as that of all trials.")
            share = sum(map(sum, one.diverged.tolist())) / (len(one.mean) * self.trials.n_trials)
            rows[i] = {"diverged": share} | _numbers(values, parameters)
        return rows


def _mean_rates(simulation, circuit):
    rates = torch.as_tensor(simulation.rates).detach().cpu().double().numpy().mean(0)
    means = means_by_population(rates, types_of(circuit))
    return {f"rate_{name}": value for name, value in means.items()}


def _numbers(values, parameters):
    """Python's numbers, by name."""
    if not isinstance(values, Mapping):
        raise TypeError(f"summaries must be a dict of numbers, got {type(values).__name__}.")
    found = {}
    for name, value in values.items():
        value = value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
        if not isinstance(name, str) or not isinstance(value, (bool, int, float)):
            raise TypeError(f"what is kept must be numbers, but {name!r} is {value!r}.")
        if name in parameters:
            raise ValueError(f"{name!r} is the name of a parameter, and of a number that is kept.")
        found[name] = value
    return found


def _points(parameters, n_points, seed):
    """Of a grid, or drawn."""
    if n_points is None:
        points = list(ParameterGrid(parameters))
    else:
        points = list(ParameterSampler(parameters, n_points, random_state=seed))
    if any("diverged" in point for point in points):
        raise ValueError("no parameter can be called 'diverged', as a column of the table is.")
    return points


def _check_options(n_points, batch_size, shard, random_state):
    for name, value in (("n_points", n_points), ("batch_size", batch_size)):
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if (value is not None or name == "batch_size") and (not whole or value < 1):
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    whole = isinstance(random_state, Integral) and not isinstance(random_state, bool)
    if random_state is not None and not (whole and 0 <= random_state <= MOST_SEED):
        raise ValueError(
            f"random_state must be None or an integer from 0 to {MOST_SEED}, got {random_state!r}."
        )
    if shard is not None:
        legal = isinstance(shard, (tuple, list)) and len(shard) == 2
        if (
            not legal
            or not all(isinstance(x, Integral) for x in shard)
            or not (0 <= shard[0] < shard[1])
        ):
            raise ValueError(f"shard must be a pair (i, n) with 0 <= i < n, got {shard!r}.")


def _fresh_seed():
    return int(np.random.SeedSequence().generate_state(1)[0]) % MOST_SEED


def _seed(root, i):
    """Of point i, whatever other points there are."""
    return int(np.random.SeedSequence(root, spawn_key=(i,)).generate_state(1)[0]) % MOST_SEED


def _arguments(function):
    try:
        return inspect.signature(function).parameters
    except ValueError:  # of some that are built in
        return {}


def _hash(value):
    try:
        return joblib.hash(value)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(f"a sweep needs parameters that can be pickled: {error}") from error


def _code(function):
    """What a function does, but for what it calls: not its name's file, line or comments."""
    if isinstance(function, functools.partial):
        return [_code(function.func), function.args, function.keywords]
    if function is None or isinstance(function, (types.BuiltinFunctionType, type)):
        return getattr(function, "__qualname__", None)
    if not hasattr(function, "__code__"):  # an object that is called
        return [type(function).__qualname__, _code(type(function).__call__), function]
    usual = function.__defaults__, function.__kwdefaults__
    return [function.__qualname__, _instructions(function.__code__), usual]


def _instructions(code):
    inner = [_instructions(x) if inspect.iscode(x) else x for x in code.co_consts]
    return [code.co_code, code.co_names, inner]


def _shown(value):
    """A parameter as JSON, for those who read the file."""
    value = value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)
