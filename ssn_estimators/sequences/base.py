"""`SequenceSSN`: what classifier and regressor of sequences share."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import COUNT, NOT_NEGATIVE, POSITIVE, Interval, StrOptions
from ssn_estimators._torch import in_blocks, is_whole, resolve_device, to_numbers, to_tensor
from ssn_estimators._weights import counting, hold_out, joined
from ssn_estimators.base import BaseSSN
from ssn_estimators.circuit import CONSTANTS, Circuit
from ssn_estimators.growth import choose_parents, split
from ssn_estimators.sequences.data import check_sequences, unit_range_of, valid_steps
from ssn_estimators.training import INFORMED, Followed, Model, Penalties, Skip, TrialGuard
from ssn_estimators.training.courses import means

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from ssn_estimators._typing import ArrayLike, Function, RandomState, Record, Solver
    from ssn_estimators.simulation import Simulation

__all__ = ["SequenceSSN"]

ROWS = 16  # that are simulated at once in prediction
LEAST_ROLES = 5  # E cells at the start where only a share of them gets inputs or is read
SHARE = [Interval(Real, 0, 1, closed="right")]


class SequenceSSN(BaseSSN):
    r"""Base of `SSNSequenceClassifier` and `SSNSequenceRegressor`.

    They supply `_task`, a class of :mod:`~ssn_estimators.training`; `_checked_targets`, arrays with
    a row for each sequence, the last of which is their weights; `_targets` of these for the task;
    `_scorer`; and `_n_outputs`.

    Parameters
    ----------
    n_excitatory : int, default=40
        Number of E cells.
    n_inhibitory : int, default=None
        Number of I cells. None means a quarter of the E cells, rounded up (80:20).
    time_step : float, default=20.0
        How long a time step of `X` lasts, in ms. The input is constant in it, and outputs are read
        from mean potentials in it.
    input_share, output_share : float, default=1.0
        About the share of the E cells that receive the inputs, and of those that are read; up to a
        sum of 1 no cell does both. I cells receive inputs if all E cells do. The networks then
        begin with five E cells or more, of which clones inherit what they do.
    growth : {"double", "single", None}, default="double"
        Split every cell at once until the target sizes are reached; or add one cell at a time
        to the larger population, while the other keeps pace; or start at full size from small
        random weights (the control).
    initial : Circuit, default=None
        Circuit of E and I cells to begin with, such as :func:`circuits.bistable_pair`, which holds
        a memory before it has learned anything; it has the `k`, `gamma` and time constants of the
        network. None is a stable pair that is searched for, or without growth a random circuit.
    growth_iter : int, default=40
        Optimiser steps at each size before the last.
    parents : {"last", "random", "gradient", "output"} or callable, default="last"
        Which cells are split when not all are, see :class:`SSNClassifier`.
    clone_shares : {"random", "equal"}, default="random"
        How outgoing and readout weights of a cell are shared out between it and its clones,
        see :func:`split`.
    k, gamma : float, default=0.3 and 2.0
        Gain and exponent of the rate function.
    tau_e, tau_i, tau_eta : float, default=20.0, 10.0 and 20.0
        Time constants of E cells, I cells and noise, in ms. Delays of a second are learned sooner
        by slow cells, such as of 100 and 50 ms [2]_.
    solver : {"heun", "ab2", "euler"}, default="heun"
        Integration scheme, see :func:`simulate`.
    dt : float or sequence of floats, default=2.0
        Time step of the simulation in ms, of which `time_step` is a multiple. Several are used one
        after the other, each for the same share of the steps at the final size, with the optimiser
        as it was; coarse ones come first, cost less and shorten the way of gradients [2]_. The
        last is that of prediction.
    burn_in : float, default=60.0
        Time with the first input before a sequence, in ms; gradients do not reach into it.
    truncation : float or None, default=None
        Time in ms after which gradients no longer reach back; None is the whole sequence.
    skip : float or None, default=None
        In training the state is mixed with that of so long before, in ms, as often: a shortcut for
        gradients through long delays [2]_.
    skip_share : float or sequence of floats, default=(0.8, 0.5, 0.2, 0.0)
        Share of the earlier state. Several are used one after the other, as several `dt`, of
        which there are as many or one; the last is 0, the circuit as it is.
    skip_from : {"state", "tangent"}, default="state"
        What is mixed in: the earlier state, or where its velocity would have led to by now.
    n_trials_predict : int, default=4
        Trials per sequence in prediction, over which outputs are averaged.
    max_iter : int, default=1000
        Optimiser steps at the final size, each on one mini-batch.
    batch_size : int, default=256
        Sequences of a mini-batch; all of them if there are fewer.
    learning_rate : {"cosine", "constant"}, default="cosine"
        How the rate goes on from `learning_rate_init` at the final size (with several `dt` or
        `skip_share`, at the last of them): down to 0 along a half cosine, or not at all.
    learning_rate_init : float, default=0.01
        Rate of Adam.
    max_grad_norm : float, default=1.0
        Gradients longer than this are scaled down to it.
    input_noise : float, default=0.2
        Standard deviation of the normal noise added to inputs (scaled to [0, 1]) in training, anew
        in every time step.
    potential_penalty : float, default=0.01
        Factor of a penalty added to the cost, of potentials in all time steps: the mean squared
        excess over 20 mV, and, of every cell that never comes to 1 mV in a batch, the square of
        what is missing.
    rate_penalty : float, default=0.0
        Factor of the mean rate of all cells, in Hz, added to the cost.
    weight_penalty : float, default=0.0
        Factor of the mean magnitude of recurrent weights, in mV s, added to the cost.
    max_rejected_steps : int, default=10
        Training gives up when more steps than this have to be undone in a row.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of the sequences, keep the network that
        has the best `score` on them (by weight) and stop when it no longer grows.
    validation_fraction : float, default=0.1
        Share of the sequences held out; in classification, of each class.
    n_iter_no_change : int, default=10
        Looks at the validation data (one every 50 steps) without progress before stopping.
    tol : float, default=1e-4
        Least growth of the validation score that counts as progress.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted network, growing it further if it was asked to
        be larger.
    device : str, default="auto"
        Torch device; "auto" takes a GPU where there is one.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, batches, noise and the validation split.
    verbose : bool or int, default=False
        Whether to print a line for each stage of growth; an int above 1 asks for another one every
        so many steps. See :ref:`verbose`.

    Attributes
    ----------
    circuit_ : Circuit
        The trained circuit.
    readout_weights_ : ndarray of shape (n_outputs, n_excitatory)
        Readout weights, per mV; 0 for cells that are not read.
    readout_bias_ : ndarray of shape (n_outputs,)
        Readout biases.
    input_weights_ : ndarray of shape (n_neurons, n_channels)
        Trained input weights, not negative; 0 for cells that receive no input.
    input_bias_ : ndarray of shape (n_neurons,)
        Trained external input of every cell while all channels are at their least.
    input_cells_ : ndarray of shape (n_neurons,), bool
        Cells that receive the inputs.
    output_cells_ : ndarray of shape (n_excitatory,), bool
        E cells that are read.
    scaler_ : MinMaxScaler
        The map of each channel, over all sequences and time steps, to [0, 1]; fixed at the first
        fit. Values outside of the range seen then are taken at its edge.
    stability_ : float
        Share of trials that stayed finite after training, with twice the trained noise: up to 512
        sequences for twice their length, at least 2 s, one after the other; and once the same, a
        quarter farther from their mean. 1.0 unless training failed.
    divergence_rate_ : float
        NaN: states that are meant to last look like those that grow, see the user guide.
    n_rejected_steps_ : int
        Optimiser steps that were undone because the circuit diverged, in all attempts.
    n_runaway_steps_ : int
        Those of them in which a training trial ran away, or a drive or gradient was not finite;
        the others failed a simulation with twice the noise.
    n_attempts_ : int
        Starts that were tried.
    growth_history_ : list of dict
        Sizes, last step, loss and rejected steps of every stage, and of every `dt` or share.
    loss_curve_ : list of float
        Training loss at every accepted step, growth included.
    loss_ : float
        The last of them.
    validation_scores_ : list of float or None
        `score` at each look at the validation data.
    best_validation_score_ : float or None
        That of the network that was kept.
    n_iter_ : int
        Number of optimiser steps, growth and rejected ones included.
    noise_seed_ : int
        Seed of the noise in prediction.
    n_features_in_ : int
        Number of time steps.
    n_channels_ : int
        Number of channels.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the time steps, if `X` was a table with names that are all strings.
    """

    weight_structure = None
    _new_parameters = ("skip", "skip_share", "skip_from")  # that older files do not have

    _parameter_constraints: dict = BaseSSN._parameter_constraints | {
        "n_excitatory": COUNT,
        "n_inhibitory": [*COUNT, None],
        "time_step": POSITIVE,
        "input_share": SHARE,
        "output_share": SHARE,
        "initial": [Circuit, None],
        "parents": [StrOptions({"last", "random", *INFORMED}), callable],
        "dt": [*POSITIVE, "array-like"],
        "truncation": [*POSITIVE, None],
        "skip": [*POSITIVE, None],
        "skip_share": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "skip_from": [StrOptions({"state", "tangent"})],
        "input_noise": NOT_NEGATIVE,
        "rate_penalty": NOT_NEGATIVE,
        "weight_penalty": NOT_NEGATIVE,
    }

    _fitted_shapes = BaseSSN._fitted_shapes | {
        "readout_weights_": ("outputs", "circuit_.n_excitatory"),
        "readout_bias_": ("outputs",),
        "input_weights_": ("circuit_.n_neurons", "n_channels_"),
        "input_bias_": ("circuit_.n_neurons",),
        "input_cells_": ("circuit_.n_neurons",),
        "output_cells_": ("circuit_.n_excitatory",),
        "n_channels_": int,
        "scaler_": MinMaxScaler,
    }

    def __init__(
        self,
        n_excitatory: int = 40,
        n_inhibitory: int | None = None,
        *,
        time_step: float = 20.0,
        input_share: float = 1.0,
        output_share: float = 1.0,
        growth: Literal["double", "single"] | None = "double",
        initial: Circuit | None = None,
        growth_iter: int = 40,
        parents: Literal["last", "random", "gradient", "output"] | Function = "last",
        clone_shares: Literal["random", "equal"] = "random",
        k: float = 0.3,
        gamma: float = 2.0,
        tau_e: float = 20.0,
        tau_i: float = 10.0,
        tau_eta: float = 20.0,
        solver: Solver = "heun",
        dt: float | Sequence[float] = 2.0,
        burn_in: float = 60.0,
        truncation: float | None = None,
        skip: float | None = None,
        skip_share: float | Sequence[float] = (0.8, 0.5, 0.2, 0.0),
        skip_from: Literal["state", "tangent"] = "state",
        n_trials_predict: int = 4,
        max_iter: int = 1000,
        batch_size: int = 256,
        learning_rate: Literal["cosine", "constant"] = "cosine",
        learning_rate_init: float = 0.01,
        max_grad_norm: float = 1.0,
        input_noise: float = 0.2,
        potential_penalty: float = 0.01,
        rate_penalty: float = 0.0,
        weight_penalty: float = 0.0,
        max_rejected_steps: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_excitatory = n_excitatory
        self.n_inhibitory = n_inhibitory
        self.time_step = time_step
        self.input_share = input_share
        self.output_share = output_share
        self.growth = growth
        self.initial = initial
        self.growth_iter = growth_iter
        self.parents = parents
        self.clone_shares = clone_shares
        self.k = k
        self.gamma = gamma
        self.tau_e = tau_e
        self.tau_i = tau_i
        self.tau_eta = tau_eta
        self.solver = solver
        self.dt = dt
        self.burn_in = burn_in
        self.truncation = truncation
        self.skip = skip
        self.skip_share = skip_share
        self.skip_from = skip_from
        self.n_trials_predict = n_trials_predict
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_grad_norm = max_grad_norm
        self.input_noise = input_noise
        self.potential_penalty = potential_penalty
        self.rate_penalty = rate_penalty
        self.weight_penalty = weight_penalty
        self.max_rejected_steps = max_rejected_steps
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    # --- the fit -------------------------------------------------------------------------------

    def _plan(self, rng, going_on, X, y, lengths=None, **told):
        X, lengths = check_sequences(self, X, lengths, reset=not going_on)
        given = X, y
        X, lengths, *known = counting(
            X, lengths, *self._checked_targets(going_on, X, y, lengths, **told)
        )
        sources, sizes = self._sources(X.shape[1]), self._target_sizes()
        if going_on:
            self._check_size(sizes[-1])
        held_out = None
        if self.early_stopping:
            X, lengths, known, held_out = self._split(rng, X, lengths, known)
        X, lengths, *known = joined(self.batch_size, X, lengths, *known)
        if not going_on:
            self.scaler_ = unit_range_of(X, lengths)
        device = resolve_device(self.device)
        inputs = self._inputs(X, lengths)
        task = self._task(X.shape[1])
        data = inputs.to(device), self._targets(going_on, *known).to(device)

        def restart():
            return self._start(task, sizes[0], inputs, rng)

        if going_on:
            start, state = self._fitted_model(), getattr(self, "_optimizer_state", None)
            sizes = self._from_size(sizes, start.size)
        else:
            start, state = restart(), None
            self.noise_seed_ = int(rng.randint(2**31 - 1))
        score = self._scorer(*held_out) if held_out else None
        return self._usual_plan(
            start,
            task,
            data,
            self._phases(sizes, sources, score),
            trials=sources[-1].trials,
            held_out=self._inputs(*held_out[:2]).to(device) if held_out else None,
            samples=given,
            state=state,
            restart=None if going_on else restart,
            guard=TrialGuard,
            penalties=self._penalties(),
            input_noise=2 * (self.input_noise,),
            device=device,
        )

    def _penalties(self):
        return Penalties(
            potential=self.potential_penalty,
            silence=self.potential_penalty,
            rate=self.rate_penalty,
            weight=self.weight_penalty,
        )

    @property
    def _steps(self):
        """Time steps of simulations in ms, from the first to that of prediction."""
        steps = np.atleast_1d(np.asarray(self.dt, dtype=float))
        if steps.ndim != 1 or not len(steps) or not (np.isfinite(steps) & (steps > 0)).all():
            raise ValueError(f"dt must be one or more positive numbers of ms, got {self.dt!r}.")
        return steps.tolist()

    @property
    def _shares(self):
        """Shares of skips, from the first to 0."""
        if self.skip is None:
            return [0.0]
        shares = np.atleast_1d(np.asarray(self.skip_share, dtype=float))
        legal = shares.ndim == 1 and len(shares) and ((shares >= 0) & (shares < 1)).all()
        if not legal or shares[-1] != 0:
            raise ValueError(
                "skip_share must be one or more numbers of at least 0 and less than 1, the last of "
                f"them 0, got {self.skip_share!r}."
            )
        return shares.tolist()

    def _sources(self, n_times):
        """Of gradients, in every phase of training; checked."""
        steps, shares = self._steps, self._shares
        n = max(len(steps), len(shares))
        if not {len(steps), len(shares)} <= {1, n}:
            raise ValueError(
                f"dt and skip_share must be as many, or one, got {len(steps)} and {len(shares)}."
            )
        if self.skip is not None and self.truncation is not None:
            raise ValueError("skip and truncation exclude each other: set one of them to None.")
        length, found = self.truncation or self.skip, []
        if length is not None:
            length = max(1, round(length / self.time_step))
        for dt, share in zip(steps * (n // len(steps)), shares * (n // len(shares)), strict=True):
            if not is_whole(self.time_step / dt):
                raise ValueError(
                    f"time_step must be a multiple of dt={dt:g} ms, got {self.time_step:g} ms."
                )
            trials = self._trials_in_time(
                n_times,
                n_trials=1,
                dt=dt,
                shared_noise=False,
                increments="weak",
                covariance=False,
            )
            skip = Skip(share, self.skip_from == "tangent") if share else None
            own = length if skip or self.truncation else None
            found.append(Followed(trials, n_times, own, skip))
        return found

    def _phases(self, sizes, sources, score):
        """Training with every source, growth with the first."""
        n, phases = len(sources), []
        for i, source in enumerate(sources):
            last = i == n - 1
            n_steps = self.max_iter // n + (self.max_iter % n if last else 0)
            more = {} if last else {"learning_rate": "constant"}
            more |= {"score": score if last else None, "goes_on": i > 0, "max_iter": n_steps}
            phases.append(self._phase(sizes if i == 0 else sizes[-1:], source, **more))
        return tuple(phases)

    def _target_sizes(self):
        n_inhibitory = self.n_inhibitory or -(-self.n_excitatory // 4)
        target = self.n_excitatory, n_inhibitory
        sizes = self._sizes(target)
        if self.initial is not None:
            own = self._given_circuit(target)
            own = own.n_excitatory, own.n_inhibitory
            return [own] + [size for size in self._from_size(sizes, own) if size != own]
        if min(self.input_share, self.output_share) < 1:
            sizes = [s for s in sizes if s[0] >= LEAST_ROLES] or sizes[-1:]
        return sizes

    def _given_circuit(self, target):
        """`initial`, checked."""
        circuit = self.initial
        usual = tuple(circuit.populations) == ("E", "I") and not circuit.is_sparse
        usual &= circuit.dynamics == "voltage" and circuit.receptors is None
        if not usual or circuit.rate_function is not None:
            raise ValueError(
                "initial must be a circuit of E and I cells in the voltage form with dense weights "
                f"and rates that are a power, got {circuit!r}."
            )
        other = [x for x in CONSTANTS if np.any(getattr(circuit, x) != getattr(self, x))]
        if other:
            found = ", ".join(f"{name}={getattr(circuit, name)}" for name in other)
            raise ValueError(f"initial has {found}; give the network the same.")
        own = circuit.n_excitatory, circuit.n_inhibitory
        if own[0] > target[0] or own[1] > target[1] or (own != target and self.growth is None):
            raise ValueError(
                f"initial has {own[0]}:{own[1]} cells, from which the network of {target[0]}:"
                f"{target[1]} cannot grow with growth={self.growth!r}."
            )
        return circuit.to_torch(dtype=torch.float32).to_numpy()

    def _split(self, rng, X, lengths, known):
        """Sequences to train on, and those held out."""
        parts = hold_out(self, rng, X, lengths, *known, stratify=self._strata(*known))
        train, held_out = parts[::2], parts[1::2]
        return train[0], train[1], train[2:], held_out

    @staticmethod
    def _strata(*known):
        return None

    def _start(self, task, size, inputs, rng):
        first = (1, 1) if self.growth and self.initial is None else size
        sample = inputs[rng.permutation(len(inputs))[:64]].flatten(0, 1)
        arrays = task.start(_roles(first, 1.0, 1.0), sample, self._n_outputs, rng)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self.initial is None:
            h = task.external(tensors, sample).numpy()
            circuit = self._first_circuit(first, lambda: h, rng)
        else:
            circuit = self._given_circuit(size)
        if first != size:
            parents = choose_parents(circuit, *size, "last", rng)
            circuit, _ = split(circuit, parents, shares="random", random_state=rng)
        cells = _roles(size, self.input_share, self.output_share)
        if first != size or min(self.input_share, self.output_share) < 1:
            arrays = task.start(cells, sample, self._n_outputs, rng)
        return Model(circuit, arrays)

    def _attributes(self, model):
        """The fitted attributes that prediction needs."""
        arrays = model.arrays
        read, get = arrays["output_cells"] > 0, arrays["input_cells"] > 0
        return {
            "circuit_": model.circuit,
            "readout_weights_": arrays["coef"] * read,
            "readout_bias_": arrays["intercept"],
            "input_weights_": arrays["input_weights"] * get[:, None],
            "input_bias_": arrays["input_bias"],
            "input_cells_": get,
            "output_cells_": read,
            "scaler_": self.scaler_,
            "noise_seed_": self.noise_seed_,
            "n_features_in_": self.n_features_in_,
            "n_channels_": self.n_channels_,
            "_fitted_structure": self.weight_structure,
        }

    def _check_fitted(self):
        super()._check_fitted()
        if self.scaler_.n_features_in_ != self.n_channels_:
            raise ValueError(f"the network does not take {self.n_channels_} channels.")
        if (self.input_weights_ < 0).any():
            raise ValueError("input weights must not be negative.")

    def _fitted_model(self):
        arrays = {
            "coef": self.readout_weights_,
            "intercept": self.readout_bias_,
            "input_weights": self.input_weights_,
            "input_bias": self.input_bias_,
            "input_cells": self.input_cells_.astype(np.float32),
            "output_cells": self.output_cells_.astype(np.float32),
        }
        return Model(self.circuit_, arrays)

    # --- the answer ----------------------------------------------------------------------------

    def _inputs(self, X, lengths):
        """Scaled to [0, 1], and 0 after the end of sequences."""
        scaled = self.scaler_.transform(X.reshape(-1, X.shape[2])).reshape(X.shape)
        scaled[~valid_steps(lengths, X.shape[1])] = 0.0
        return torch.from_numpy(scaled.astype(np.float32))

    def _checked(self, X, lengths):
        check_is_fitted(self)
        return check_sequences(self, X, lengths, reset=False)

    def _of_prediction(self):
        return super()._of_prediction() | {"dt": self._steps[-1], "n_trials": self.n_trials_predict}

    def _outputs(self, X, lengths, model):
        """Of shape (n_samples, n_timesteps, n_outputs)."""
        n_times, device = X.shape[1], resolve_device(self.device)
        trials = self._trials_in_time(n_times, covariance=False)
        circuit = model.circuit.to_torch(device)
        arrays = {name: torch.tensor(value, device=device) for name, value in model.arrays.items()}
        task = self._task(n_times)

        def read(block):
            drive = task.drive(circuit, arrays, block.to(device))
            simulation = self._run(circuit, drive, trials, self.noise_seed_, ("u",))
            simulation.check_finite()
            return task.outputs(means(simulation.u, n_times), arrays).transpose(0, 1).cpu()

        return in_blocks(read, self._inputs(X, lengths).numpy(), rows=ROWS).astype(float)

    def drive(self, X: ArrayLike, lengths: ArrayLike | None = None) -> np.ndarray:
        """External drive f(h) of every cell in every time step.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Inputs.
        lengths : array-like of shape (n_samples,), default=None
            Valid time steps.

        Returns
        -------
        drive : ndarray of shape (n_timesteps, n_samples, n_neurons)
            In mV, ready for :func:`simulate` with ``drive_step=time_step``.
        """
        return self._drive(*self._checked(X, lengths))

    def _drive(self, X, lengths):
        model = self._fitted_model()
        arrays = {name: to_tensor(value, value.dtype) for name, value in model.arrays.items()}
        task = self._task(X.shape[1])
        return task.drive(model.circuit.to_torch(), arrays, self._inputs(X, lengths)).numpy()

    def read_out(self, u: ArrayLike) -> np.ndarray:
        """Outputs that potentials stand for, such as those of a simulation of the circuit.

        Parameters
        ----------
        u : array-like of shape (..., n_neurons)
            Potentials in mV. Outputs are linear in them: those of mean potentials are the mean
            outputs.

        Returns
        -------
        outputs : ndarray of shape (..., n_outputs)
            Of a classifier, logits of `classes_`; of a regressor, in the units of its targets.

        Raises
        ------
        ValueError
            If `u` has the wrong shape.
        """
        check_is_fitted(self)
        u, n_neurons = to_numbers(u, float, "u"), self.circuit_.n_neurons
        if not u.ndim or u.shape[-1] != n_neurons:
            raise ValueError(f"u must have shape (..., {n_neurons}), got {u.shape}.")
        read = u[..., : self.circuit_.n_excitatory]
        return self._in_units(read @ self.readout_weights_.T + self.readout_bias_)

    @staticmethod
    def _in_units(outputs):
        """What outputs of the readout are to the user."""
        return outputs

    def _trials_in_time(self, n_times, **others):
        """Of inputs of so many time steps."""
        step = self.time_step
        return self._trials(**({"duration": n_times * step, "drive_step": step} | others))

    def simulate(
        self,
        X: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        duration: float | None = None,
        record: Record = None,
        random_state: RandomState = None,
        **parameters: Any,
    ) -> Simulation:
        """Simulate the fitted circuit on inputs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Inputs.
        lengths : array-like of shape (n_samples,), default=None
            Valid time steps.
        duration : float, default=None
            Time in ms, after burn-in; sequences are shown again from their start until it is over.
            None is that of the sequences.
        record : str or tuple of str, default=None
            Trajectories to return, see :func:`simulate`.
        random_state : int, RandomState instance or None, default=None
            Source of the noise; None is that of prediction.
        **parameters
            Parameters of :func:`simulate` but `initial`; time step, solver, burn-in, number of
            trials and (shared) noise are by default those of prediction.

        Returns
        -------
        simulation : Simulation
            A network that diverges says so here, it does not raise.
        """
        X, lengths = self._checked(X, lengths)
        told = {"rates": True} | parameters | ({} if duration is None else {"duration": duration})
        trials = self._trials_in_time(X.shape[1], **told)
        drive = trials.shown_again(self._drive(X, lengths))
        seed = self.noise_seed_ if random_state is None else random_state
        return self._run(self.circuit_, drive, trials, seed, record)


def _roles(size, input_share, output_share):
    """1 for cells that receive inputs, and for E cells that are read; of these sizes."""
    n_excitatory, n_inhibitory = size
    places = np.arange(n_excitatory)
    get = places < max(1, round(input_share * n_excitatory))
    read = places >= n_excitatory - max(1, round(output_share * n_excitatory))
    get = np.append(get, np.full(n_inhibitory, input_share == 1))
    return get.astype(np.float32), read.astype(np.float32)
