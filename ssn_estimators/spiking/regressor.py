"""`SpikingRegressor`: strongly coupled spiking networks, trained by recursive least squares."""

from __future__ import annotations

import copy
import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._logging import is_due, tell
from ssn_estimators._scaling import is_rounding
from ssn_estimators._sklearn import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    BaseEstimator,
    Interval,
    OnlyWith,
    StrOptions,
    check_array,
    count_steps,
    fit_context,
)
from ssn_estimators._torch import to_numbers, until_interrupted
from ssn_estimators._weights import check_weights
from ssn_estimators.spiking.lif import LIFState, Synapses, random_synapses
from ssn_estimators.spiking.rls import RecursiveLeastSquares
from ssn_estimators.spiking.simulation import SpikingSimulation

if TYPE_CHECKING:
    from typing import Literal, Self

    from ssn_estimators._typing import ArrayLike, RandomState

__all__ = ["SpikingRegressor"]

# weights from E to E, E to I, I to E, I to I, over 2 tau_m / sqrt(K); external input to E and I
RECURRENT = {"EE": 0.15, "IE": 1.0, "EI": -0.75, "II": -1.0}
EXTERNAL = {"E": 1.5, "I": 1.0}
SILENT = 0.1  # Hz
MOST_RATIO = 0.1  # of the penalties, in units of the inverse precision
SMOOTHING = 50.0  # ms; half the width of the running average in the score
UNTRAINED_TRIALS = 4


class SpikingRegressor(RegressorMixin, BaseEstimator):
    r"""Spiking network in the strong-coupling regime that learns drives in all of its cells.

    Leaky integrate-and-fire cells, excitatory (E) and inhibitory (I), are coupled so strongly
    (weights of order :math:`1 / \sqrt K` for K inputs a cell) that large excitation and
    inhibition cancel and cells fire irregularly. After a cue, a transient external current,
    the synaptic drive of *every* cell is to follow a target of its own. Synapses are trained
    by recursive least squares with a penalty on the change of each cell's summed excitatory
    and inhibitory weights, which keeps the network in its regime [1]_.

    Parameters
    ----------
    n_excitatory : int, default=None
        Number of E cells, the first ones; None takes half of the cells of `y`.
    connectivity : float, default=0.2
        Share of the E, and of the I cells, that each cell gets (static) synapses from.
    static_weights : bool, default=True
        Whether trained synapses come on top of static, strong and fast ones. Otherwise the
        recurrent synapses themselves are trained.
    n_plastic : int, default=None
        Trained synapses onto each cell from E cells, and as many from I cells; None takes
        :math:`2 \sqrt K` for :math:`K` static E inputs. Only with `static_weights`.
    external_drive : float, default=0.12
        External input of I cells over :math:`\sqrt K`; that of E cells is 1.5 times as much.
        A network whose E cells get less than the threshold, 1, is silent.
    penalty : float, default=0.8
        Factor of the squared change of each weight (per ms**2).
    sum_penalty : float, default=8.0
        Factor of the squared change of the sum of a cell's weights from each of the `groups`.
    groups : array-like of shape (n_neurons,), default=None
        Labels of presynaptic groups for `sum_penalty`; None takes E and I cells.
    dale : {None, "freeze"}, default=None
        None leaves signs free, as in [1]_. With "freeze", weights that have changed their
        sign after a loop are set to zero for good, and the others of the cell adapted.
    baseline : {"untrained", None}, default="untrained"
        Whether targets, predictions and scores are deviations from the mean drive of the
        untrained network after the cue, or drives as they are.
    tau_m, tau_static : float, default=10.0 and 3.0
        Time constants of the membrane and of the drive by static synapses, in ms.
    tau_plastic : float, default=None
        That of the drive by trained synapses, in ms. None means 150, or 20 if the recurrent
        synapses themselves are trained: where all synapses are as slow as 150 ms, most cells of
        a small network fall silent.
    dt : float, default=0.1
        Time step of Euler's method, in ms.
    update_interval : float, default=10.0
        Time in ms between two entries of a target, and so between two updates.
    burn_in : float, default=800.0
        Time in ms before the cue.
    cue_duration : float, default=200.0
        Duration of the cue in ms.
    max_iter : int, default=70
        Training loops; each shows every condition once.
    n_trials_predict : int, default=8
        Trials whose mean is predicted.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the regression.
    random_state : int, RandomState instance or None, default=None
        Source of connectivity, initial potentials and the order of conditions.
    verbose : bool or int, default=False
        Whether to print a line for each training loop; an int above 1 asks for another one every so
        many updates of the weights. See :ref:`verbose`.

    Attributes
    ----------
    static_weights_ : Synapses or None
        Fixed synapses, with `sources` and `weights` of shape (n_neurons, n_inputs), in ms.
    plastic_weights_ : Synapses
        Trained synapses, those from E cells first.
    initial_weights_ : ndarray of shape (n_neurons, n_plastic_inputs)
        Their weights before training.
    external_input_ : ndarray of shape (n_neurons,)
        Constant external input.
    baseline_ : ndarray of shape (n_neurons,)
        Mean drive of the untrained network after the cue, or zeros.
    loss_curve_ : list of float
        Mean squared error of the drives during each training loop, before each update.
    n_iter_ : int
        Training loops so far.
    n_features_in_ : int
        Number of cells, and of cue currents.

    Notes
    -----
    Memory: the regression keeps k * (k + 16) numbers for each cell with k trained inputs (410 MB
    for 10,000 cells with 32 + 32 of them in "float64"); a synapse takes up to 30 bytes.

    Not for 2-D tables: `X` has cue currents and `y` trajectories, each with an entry for
    every cell.

    ======================================================  ===================================
    `X`, cue                                                shape
    ======================================================  ===================================
    none, one condition                                     None
    constant currents                                       (n_conditions, n_neurons)
    currents in time, spread evenly over the cue            (n_conditions, n_steps, n_neurons)
    ======================================================  ===================================

    `y` has shape (n_conditions, n_times, n_neurons), or (n_times, n_neurons) for a single
    condition; entry i is the drive at ``(i + 1) * update_interval`` ms after the cue.

    References
    ----------
    .. [1] Kim & Chow (2021). Training spiking neural networks in the strong coupling regime.
       Neural Computation 33(5). Couplings and time constants as in its authors' published code.

    Examples
    --------
    >>> from ssn_estimators.datasets import make_cued_sinusoids
    >>> from ssn_estimators import SpikingRegressor
    >>> X, y = make_cued_sinusoids(200, random_state=0)
    >>> network = SpikingRegressor(connectivity=0.5, max_iter=3, random_state=0).fit(X, y)
    >>> network.predict(X).shape
    (1, 100, 200)
    """

    _parameter_constraints: dict = {
        "n_excitatory": [*COUNT, None],
        "connectivity": [Interval(Real, 0, 1, closed="right")],
        "static_weights": ["boolean"],
        "n_plastic": [*COUNT, None],
        "external_drive": NOT_NEGATIVE,
        "penalty": POSITIVE,
        "sum_penalty": NOT_NEGATIVE,
        "groups": ["array-like", None],
        "dale": [StrOptions({"freeze"}), None],
        "baseline": [StrOptions({"untrained"}), None],
        "tau_m": POSITIVE,
        "tau_static": POSITIVE,
        "tau_plastic": [*POSITIVE, None],
        "dt": POSITIVE,
        "update_interval": POSITIVE,
        "burn_in": NOT_NEGATIVE,
        "cue_duration": NOT_NEGATIVE,
        "max_iter": COUNT,
        "n_trials_predict": COUNT,
        "dtype": [StrOptions({"float64", "float32"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    _fitted_shapes = {
        "plastic_weights_": Synapses,
        "static_weights_?": Synapses,
        "initial_weights_": ("n_features_in_", "inputs"),
        "external_input_": ("n_features_in_",),
        "baseline_": ("n_features_in_",),
        "_rls": RecursiveLeastSquares,
        "_rng": np.random.RandomState,
        "n_excitatory_": int,
        "_n_times": int,
    }

    _only_with = {"n_plastic": OnlyWith("static_weights", bool, "static_weights=True")}

    def __init__(
        self,
        *,
        n_excitatory: int | None = None,
        connectivity: float = 0.2,
        static_weights: bool = True,
        n_plastic: int | None = None,
        external_drive: float = 0.12,
        penalty: float = 0.8,
        sum_penalty: float = 8.0,
        groups: ArrayLike | None = None,
        dale: Literal["freeze"] | None = None,
        baseline: Literal["untrained"] | None = "untrained",
        tau_m: float = 10.0,
        tau_static: float = 3.0,
        tau_plastic: float | None = None,
        dt: float = 0.1,
        update_interval: float = 10.0,
        burn_in: float = 800.0,
        cue_duration: float = 200.0,
        max_iter: int = 70,
        n_trials_predict: int = 8,
        dtype: Literal["float64", "float32"] = "float64",
        random_state: RandomState = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_excitatory = n_excitatory
        self.connectivity = connectivity
        self.static_weights = static_weights
        self.n_plastic = n_plastic
        self.external_drive = external_drive
        self.penalty = penalty
        self.sum_penalty = sum_penalty
        self.groups = groups
        self.dale = dale
        self.baseline = baseline
        self.tau_m = tau_m
        self.tau_static = tau_static
        self.tau_plastic = tau_plastic
        self.dt = dt
        self.update_interval = update_interval
        self.burn_in = burn_in
        self.cue_duration = cue_duration
        self.max_iter = max_iter
        self.n_trials_predict = n_trials_predict
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Make a network and train it for `max_iter` loops.

        Parameters
        ----------
        X : None or array-like
            Cue currents, see Notes.
        y : array-like of shape (n_conditions, n_times, n_neurons) or (n_times, n_neurons)
            Target drives.

        Returns
        -------
        self : SpikingRegressor

        Raises
        ------
        ValueError
            If shapes do not fit together, there are more trained inputs than cells, or the time
            step is not shorter than all time constants.
        FloatingPointError
            If weights or drives become infinite.

        Warns
        -----
        UserWarning
            If the untrained network is silent.
        """
        X, y = self._check(X, y)
        self._make(X, y)
        with until_interrupted():
            for _ in range(self.max_iter):
                self._loop(X, y)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train for one loop, making the network at the first call.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        self : SpikingRegressor
        """
        X, y = self._check(X, y)
        if not hasattr(self, "plastic_weights_"):
            self._make(X, y)
        self._check_size(y)
        # a loop changes these in place, and one that fails is to leave them as they were
        for name in ("plastic_weights_", "_rls", "_rng", "loss_curve_"):
            setattr(self, name, copy.deepcopy(getattr(self, name)))
        with until_interrupted():
            self._loop(X, y)
        return self

    def _check_fitted(self):
        """Raise ValueError unless it has cells and times."""
        if not 1 <= self.n_excitatory_ <= self.n_features_in_ or self._n_times < 1:
            raise ValueError("the network has no such cells or times.")

    def _check_size(self, y):
        if y.shape[2] != self.n_features_in_:
            raise ValueError(
                f"y has {y.shape[2]} cells, but the network has {self.n_features_in_}; fit anew."
            )

    def _check(self, X, y):
        y = check_array(y, dtype=float, allow_nd=True, input_name="y")
        if y.ndim == 2:
            y = y[None]
        if y.ndim != 3:
            raise ValueError(
                "y must have shape (n_conditions, n_times, n_neurons), or (n_times, n_neurons) "
                f"for one condition, got {y.ndim} dimensions."
            )
        X = self._check_cue(X, y.shape[2])
        if len(X) != len(y):
            raise ValueError(
                f"X has {len(X)} conditions, y has {len(y)}; a target of several conditions has "
                "shape (n_conditions, n_times, n_neurons)."
            )
        if self.groups is not None and np.shape(self.groups) != (y.shape[2],):
            raise ValueError(
                f"groups must have a label for each of the {y.shape[2]} cells, got shape "
                f"{np.shape(self.groups)}."
            )
        constants = {"tau_m": self.tau_m, "tau_static": self.tau_static}
        constants["tau_plastic"] = self._tau_plastic()
        shortest = min(constants, key=constants.get)
        if self.dt >= constants[shortest]:
            raise ValueError(
                f"dt must be shorter than all time constants: it is {self.dt:g} ms, and {shortest} "
                f"is {constants[shortest]:g} ms."
            )
        steps = self.update_interval / self.dt
        if not np.isclose(steps, round(steps)) or round(steps) < 1:
            raise ValueError(
                f"update_interval must be a multiple of dt={self.dt:g} ms, got "
                f"{self.update_interval:g}."
            )
        return X, y

    def _check_cue(self, X, n_neurons):
        """Cue currents as (n_conditions, n_steps, n_neurons)."""
        if X is None:
            X = np.zeros((1, 1, n_neurons))
        X = check_array(X, dtype=float, allow_nd=True, input_name="X")
        if X.ndim == 2:
            X = X[:, None]
        if X.ndim != 3 or X.shape[2] != n_neurons:
            raise ValueError(
                f"X must have shape (n_conditions, {n_neurons}) or (n_conditions, n_steps, "
                f"{n_neurons}), one current for each of the {n_neurons} cells, got "
                f"{X.shape if X.ndim == 3 else (len(X), *X.shape[2:])}."
            )
        for name in ("burn_in", "update_interval"):
            count_steps(getattr(self, name), self.dt, name)
        n_steps = count_steps(self.cue_duration, self.dt, "cue_duration")
        if X.shape[1] > max(n_steps, 1):
            raise ValueError(
                f"X has {X.shape[1]} steps of the cue, which has {n_steps} time steps only."
            )
        return X

    def _make(self, X, y):
        """Connectivity, initial weights, baseline and the start of the regression."""
        rng = check_random_state(self.random_state)
        n = y.shape[2]
        n_e = n // 2 if self.n_excitatory is None else self.n_excitatory
        if not 0 < n_e < n:
            raise ValueError(
                f"there must be excitatory and inhibitory cells, got n_excitatory={n_e} of {n} "
                "cells in y."
            )
        populations = [np.arange(n_e), np.arange(n_e, n)]
        n_inputs = [max(1, round(self.connectivity * len(cells))) for cells in populations]
        unit = 2 * self.tau_m / np.sqrt(n_inputs[0])
        excited = np.arange(n) < n_e
        strengths = np.where(
            excited[:, None],
            [RECURRENT["EE"], RECURRENT["EI"]],
            [RECURRENT["IE"], RECURRENT["II"]],
        )
        # as much inhibition whatever the number of I cells
        strengths = strengths * unit * [1.0, n_inputs[0] / n_inputs[1]]
        recurrent = list(zip(populations, n_inputs, strict=True))
        if self.static_weights:
            n_plastic = self.n_plastic or int(2 * np.sqrt(n_inputs[0]))
            plastic = [(cells, n_plastic) for cells in populations]
            size = self.tau_m / np.sqrt(n_plastic)
            start = np.tile([[size, -size]], (n, 1))
        else:
            plastic, recurrent, start = recurrent, [(cells, 0) for cells in populations], strengths
        kinds = 2 * ("excitatory", "inhibitory")
        for (cells, wanted), kind in zip(plastic + recurrent, kinds, strict=True):
            if wanted >= len(cells):
                raise ValueError(
                    f"each cell is to have {wanted} {kind} inputs of one kind, but there are "
                    f"{len(cells)} {kind} cells, itself perhaps among them; lower n_plastic or "
                    "connectivity."
                )
        static = random_synapses(n, recurrent, strengths, rng)
        self.plastic_weights_ = random_synapses(n, plastic, start, rng)
        self.static_weights_ = static if self.static_weights else None
        self.initial_weights_ = self.plastic_weights_.weights.copy()
        root = np.sqrt(n_inputs[0])
        external = np.where(excited, EXTERNAL["E"], EXTERNAL["I"])
        self.external_input_ = self.external_drive * root * external
        self.n_excitatory_, self.n_features_in_ = int(n_e), n
        self.loss_curve_, self.n_iter_ = [], 0
        self._rls = RecursiveLeastSquares(self.initial_weights_.astype(self.dtype), self._penalty())
        self._seed = int(rng.randint(2**31 - 1))
        self._rng = np.random.RandomState(self._seed)
        self.baseline_ = np.zeros(n)
        self._n_times = y.shape[1]
        untrained = self._simulate(X, UNTRAINED_TRIALS, y.shape[1], self._rng)
        self._heed_silence(untrained, n_inputs[0])
        if self.baseline == "untrained":
            self.baseline_ = untrained.drive.mean((0, 1, 2))

    def _heed_silence(self, untrained, n_inputs):
        if untrained.rates().mean() < SILENT:
            warnings.warn(
                f"the untrained network is nearly silent ({untrained.rates().mean():.2g} Hz): "
                "cells that do not spike cannot be trained. Raise external_drive (now "
                f"{self.external_drive:g}) until it times 1.5 times the square root of the "
                f"number of excitatory inputs, {n_inputs}, is well above 1.",
                UserWarning,
                stacklevel=5,
            )

    def _penalty(self):
        """C0 of the regression, for each cell or for all alike."""
        sources = self.plastic_weights_.sources
        labels = np.arange(self.n_features_in_) >= self.n_excitatory_
        if self.groups is not None:
            labels = np.asarray(self.groups)

        # P is found by inverting this, which has the condition number 1 + ratio
        ratio = self.sum_penalty * sources.shape[1] / self.penalty
        if not ratio < MOST_RATIO / np.finfo(self.dtype).eps:
            raise ValueError(
                f"penalty={self.penalty:g} is too small beside sum_penalty={self.sum_penalty:g} "
                f"and {sources.shape[1]} inputs of a cell, for numbers of {self.dtype}."
            )

        def of(cells):
            own = labels[sources[cells]]
            same = own[..., :, None] == own[..., None, :]
            return self.penalty * np.eye(sources.shape[1]) + self.sum_penalty * same

        return of(0) if self.groups is None else of  # alike for all cells, or not

    def _tau_plastic(self):
        return self.tau_plastic or (150.0 if self.static_weights else 20.0)

    def _state(self, n_trials, rng):
        n = self.n_features_in_
        static = self.static_weights_
        if static is None:
            static = Synapses(np.empty((n, 0), int), np.empty((n, 0)))
        return LIFState(
            static,
            self.plastic_weights_,
            tau_m=self.tau_m,
            tau_static=self.tau_static,
            tau_plastic=self._tau_plastic(),
            dt=self.dt,
            n_trials=n_trials,
            rng=rng,
        )

    def _episode(self, state, cue, n_times, external):
        """Burn-in and cue, then one update interval after the other.

        Yields the index of the interval that has just ended, -1 after the cue, and the spikes
        in it (times in ms from the end of the cue, flat indices of cells).
        """
        n_burn, n_cue = (round(t / self.dt) for t in (self.burn_in, self.cue_duration))
        before = [state.advance(n_burn, external)]
        starts = [-n_burn - n_cue]
        ends = np.linspace(0, n_cue, len(cue) + 1).round().astype(int)
        for i, current in enumerate(cue):
            before.append(state.advance(ends[i + 1] - ends[i], external + current))
            starts.append(ends[i] - n_cue)
        times = [self.dt * (steps + s) for (steps, _), s in zip(before, starts, strict=True)]
        yield -1, np.concatenate(times), np.concatenate([spikes for _, spikes in before])
        n_steps = round(self.update_interval / self.dt)
        for i in range(n_times):
            steps, spikes = state.advance(n_steps, external)
            yield i, self.dt * (steps + i * n_steps), spikes

    def _loop(self, X, y):
        """One training loop: every condition once, an update after every interval."""
        errors = []
        try:
            for condition in self._rng.permutation(len(X)):
                state = self._state(1, self._rng)
                target = y[condition] + self.baseline_
                episode = self._episode(state, X[condition], len(target), self.external_input_)
                for i, _, _ in episode:
                    if i < 0:
                        continue
                    error = state.drive[0] - target[i]
                    errors.append(np.mean(error**2))
                    self._rls.update(state.plastic_traces(), error)
                    state.set_plastic_weights(self._rls.weights.astype(float))
                    if is_due(self.verbose, len(errors)):
                        tell(
                            f"[spiking] loop {self.n_iter_ + 1:4d}   {len(errors)} of "
                            f"{len(X) * len(target)} updates   error {errors[-1]:.4f}"
                        )
        finally:  # also of a loop that is interrupted
            if self.dale == "freeze":
                self._keep_dale()
        error = float(np.mean(errors))
        if not (np.isfinite(error) and np.isfinite(self._rls.weights).all()):
            raise FloatingPointError(
                f"weights or drives became infinite in training loop {self.n_iter_ + 1}: raise "
                "penalty, lower dt, or take dtype='float64'."
            )
        self.loss_curve_.append(error)
        self.n_iter_ += 1
        if self.verbose:
            tell(f"[spiking] loop {self.n_iter_:4d}   error {self.loss_curve_[-1]:.4f}")

    def _keep_dale(self):
        signs = self._signs()
        while (wrong := self._rls.weights * signs < 0).any():  # others may follow
            self._rls.fix_at_zero(wrong)
        self.plastic_weights_.weights = self._rls.weights.astype(float)

    def _signs(self):
        return np.where(self.plastic_weights_.sources < self.n_excitatory_, 1, -1)

    def _simulate(self, X, n_trials, n_times, rng, external=0.0):
        n = self.n_features_in_
        drive = np.empty((len(X), n_trials, n_times, n))
        found = []
        for condition, cue in enumerate(X):
            state = self._state(n_trials, rng)
            for i, times, spikes in self._episode(
                state, cue, n_times, self.external_input_ + external
            ):
                trials, neurons = np.divmod(spikes, n)
                found.append((times, np.full(len(times), condition), trials, neurons))
                if i >= 0:
                    drive[condition, :, i] = state.drive
        times, *owners = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return SpikingSimulation(
            drive,
            self.update_interval * np.arange(1, n_times + 1),
            times,
            *owners,
            self.n_excitatory_,
            start=-self.dt * (round(self.burn_in / self.dt) + round(self.cue_duration / self.dt)),
        )

    def simulate(
        self,
        X: ArrayLike | None = None,
        *,
        n_trials: int | None = None,
        duration: float | None = None,
        external: ArrayLike = 0.0,
        random_state: RandomState = None,
    ) -> SpikingSimulation:
        """Simulate the network after cues.

        Parameters
        ----------
        X : None or array-like, default=None
            Cue currents, as in `fit`.
        n_trials : int, default=None
            Trials of each condition; by default `n_trials_predict`.
        duration : float, default=None
            Time after the cue in ms; by default that of the targets.
        external : float or array-like of shape (n_neurons,), default=0.0
            Constant external input in addition.
        random_state : int, RandomState instance or None, default=None
            Source of initial potentials; None takes the seed that `predict` uses.

        Returns
        -------
        simulation : SpikingSimulation
        """
        check_is_fitted(self)
        X = self._check_cue(X, self.n_features_in_)
        n_times = self._n_times
        if duration is not None:
            n_times = count_steps(duration, self.update_interval, "duration")
            if n_times < 1:
                raise ValueError(f"duration must be at least one update_interval, got {duration}.")
        n_trials = self.n_trials_predict if n_trials is None else n_trials
        if not isinstance(n_trials, Integral) or n_trials < 1:
            raise ValueError(f"n_trials must be a positive integer, got {n_trials!r}.")
        external = to_numbers(external, float, "external")
        legal = external.shape in ((), (self.n_features_in_,))
        if not legal or not np.isfinite(external).all():
            raise ValueError(
                f"external must be a finite number or one for each of the {self.n_features_in_} "
                f"cells, got {external!r}."
            )
        rng = np.random.RandomState(self._seed) if random_state is None else random_state
        return self._simulate(X, n_trials, n_times, check_random_state(rng), external)

    def predict(self, X: ArrayLike | None = None) -> np.ndarray:
        """Mean drive over trials after cues.

        Parameters
        ----------
        X : None or array-like, default=None
            Cue currents, as in `fit`.

        Returns
        -------
        drive : ndarray of shape (n_conditions, n_times, n_neurons)
            Deviations from `baseline_`, at the times of the targets.
        """
        return self.simulate(X).drive.mean(1) - self.baseline_

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Mean correlation, over cells and conditions, of predicted and target drives.

        Parameters
        ----------
        X, y
            As in `fit`. Predictions are averaged over 50 ms to either side.
        sample_weight : array-like of shape (n_conditions,), default=None
            Weights of the conditions.

        Returns
        -------
        score : float
            Up to 1. A cell whose target does not change does not count; NaN, with a warning, if
            none does.
        """
        check_is_fitted(self)
        X, y = self._check(X, y)
        self._check_size(y)
        weights = check_weights(sample_weight, X)
        drive = self._simulate(
            X, self.n_trials_predict, y.shape[1], np.random.RandomState(self._seed)
        ).drive.mean(1)
        correlation = correlations(running_mean(drive, round(SMOOTHING / self.update_interval)), y)
        weights = np.where(np.isnan(correlation), 0.0, weights[:, None])
        if not weights.any():
            warnings.warn(
                "the score is not defined: no target changes in time.",
                UndefinedMetricWarning,
                stacklevel=2,
            )
            return float("nan")
        return float(np.average(np.nan_to_num(correlation), weights=weights))


def running_mean(series, half_width):
    """Mean over as many entries to either side, fewer at the ends; over axis 1."""
    total = np.cumsum(np.insert(series, 0, 0.0, axis=1), axis=1)
    i = np.arange(series.shape[1])
    low = np.maximum(i - half_width, 0)
    high = np.minimum(i + half_width + 1, len(i))
    return (total[:, high] - total[:, low]) / (high - low)[:, None]


def correlations(found, wanted):
    """Correlation in time of every condition and cell; NaN where the target is constant."""
    silent, constant = (is_rounding(x.min(1), x.max(1)) for x in (found, wanted))
    found, wanted = map(_unit_deviations, (found, wanted))
    correlation = np.where(silent, 0.0, (found * wanted).sum(1))
    return np.where(constant, np.nan, correlation)


def _unit_deviations(series):
    """Deviations from the mean over axis 1, of length 1 if there are any; in any units."""
    deviations = series - series.mean(1, keepdims=True)
    largest = np.abs(deviations).max(1, keepdims=True)
    deviations = deviations / np.where(largest > 0, largest, 1.0)
    length = np.sqrt((deviations**2).sum(1, keepdims=True))
    return deviations / np.where(length > 0, length, 1.0)
