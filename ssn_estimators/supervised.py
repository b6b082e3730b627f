"""`SupervisedSSN`: what classifier and regressor share, a circuit between inputs and a readout."""

from __future__ import annotations

import warnings
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, is_classifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from ssn_estimators._scaling import unit_range
from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    NOT_NEGATIVE,
    POSITIVE,
    Interval,
    OnlyWith,
    StrOptions,
    validate_data,
)
from ssn_estimators._torch import in_blocks, in_pieces, is_whole, resolve_device, to_tensor
from ssn_estimators._weights import hold_out
from ssn_estimators.base import BaseSSN
from ssn_estimators.initial_weights import initial_matrix
from ssn_estimators.simulation import check_steps
from ssn_estimators.structures import STRUCTURES
from ssn_estimators.training import INFORMED, Model, Penalties, Searched, Simulated, run_together

if TYPE_CHECKING:
    from typing import Literal

    from ssn_estimators._typing import ArrayLike, Function, Method, RandomState, Solver

__all__ = ["SupervisedSSN"]

# By default, with dense input: the larger network of the paper; and what two features need
LEAST_EXCITATORY, MOST_EXCITATORY = 4, 80
INPUT_NOISE = (0.05, 0.1)  # least and most by default, where there are more samples than features
WIDE_NOISE = 0.8  # at first, with as many features as samples or more
# Steps of training by default, in those of answers, and how many of them a time constant has at
# least: the spread of strongly inhibited circuits is wrong in such steps, what they learn is not
LONGER_STEP, STEPS_OF_TAU = 2, 5
ROUNDING = 1e-6  # relative; of inputs that are compared with the range seen in training


def _scaler(X, dense):
    """Features to [0, 1]; with dense input on to a mean of 0; fitted.

    Inputs that are not centred share a direction in which a step of all weights adds up.
    """
    scaler = unit_range(X)
    if dense:
        centre = StandardScaler(with_std=False).set_output(transform="default")
        scaler = make_pipeline(scaler, centre.fit(scaler.transform(X)))
    return scaler


def _out_of_range(X, scaler):
    """How many features of every sample a scaler has not seen such values of."""
    scaler = scaler[0] if isinstance(scaler, Pipeline) else scaler
    # scaled back and forth, values at the edge differ from it by rounding
    slack = ROUNDING * np.maximum(np.abs(scaler.data_min_), np.abs(scaler.data_max_))
    low, high = scaler.data_min_ - slack, scaler.data_max_ + slack
    return in_pieces(lambda rows: ((rows < low) | (rows > high)).sum(1), X)


def _usual_noise(n_samples, n_features):
    """Standard deviation of the noise on inputs at first and in the end, in units of their range.

    Noise as strong as wide data need it would leave cells silent that fire with it alone.
    """
    ratio = n_features / n_samples
    end = float(np.clip(ratio**0.5 / 2, *INPUT_NOISE))
    return max(end, WIDE_NOISE * min(ratio, 1.0) ** 2), end


class SupervisedSSN(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseSSN):
    r"""Base of `SSNClassifier` and `SSNRegressor`.

    They supply `_task`, a class of :mod:`~ssn_estimators.training`; `_labelled`, which checks
    samples and has their weights last; `_targets` of these for the task; `_held_out_targets` and
    `_scorer`; `_n_outputs`; and their answers, made of those of `_respond`.

    Parameters
    ----------
    n_excitatory : int, default=None
        Number of E cells. None means as many as features; with dense input at least 4 and as many
        as outputs (classes or targets), but at most 80.
    n_inhibitory : int, default=None
        Number of I cells. None means a quarter of the E cells, rounded up (80:20), or as
        many as E cells if `weight_structure` is a ring.
    input_weights : {"auto", "dense", "one_to_one"}, default="auto"
        "dense": every cell receives a trained mixture of all features, which clones inherit, so
        that growth is exactly neutral (the future work of the paper). "one_to_one": E cell i
        receives feature i, I cells receive none, as in the paper. "auto": dense, but one-to-one
        on rings with an E cell for each feature.
    weight_structure : {None, "circulant", "gaussian_ring"}, default=None
        None trains every weight; "circulant" four symmetric circulant blocks; "gaussian_ring"
        four Gaussian profiles (15 numbers with noise and input function). The rings grow from
        the pair to the full size in one stage.
    growth : {"double", "single", None}, default="double"
        Split every cell at once until the target sizes are reached; or add one cell at a time
        to the larger population, while the other keeps pace; or start at full size from small
        random weights (the control).
    init : array-like of shape (n_neurons, n_neurons) or callable, default=None
        Initial weights [post, pre] at full size, with ``growth=None``, E cells first and under
        Dale's law: a matrix such as that of :func:`dale_init`, or a function of the number of
        cells and a RandomState that makes one. None takes small random ones.
    growth_iter : int, default=40
        Optimiser steps at each size before the last.
    parents : {"last", "random", "gradient", "output"} or callable, default="last"
        Which cells are split when not all are, see :func:`choose_parents`: "gradient" takes those
        whose split makes the gradient of the loss longest (:func:`gain_of_splits`), "output"
        those of the largest outgoing and readout weights, and so does "gradient" where there is
        no gradient since the latest step was undone.
    clone_shares : {"random", "equal"}, default="random"
        How outgoing and readout weights of a cell are shared out between it and its clones,
        see :func:`split`. Equal shares are the paper's. Both are neutral; random ones let
        clones become different sooner.
    k, gamma : float, default=0.3 and 2.0
        Gain and exponent of the rate function.
    tau_e, tau_i, tau_eta : float, default=20.0, 10.0 and 20.0
        Time constants of E cells, I cells and noise, in ms.
    solver : {"heun", "ab2", "euler"}, default="heun"
        Integration scheme, see :func:`simulate`. Adams-Bashforth 2 at the default step costs
        half as much, but circuits of strong inhibition oscillate under it.
    dt : float, default=1.0
        Time step in ms.
    dt_training : float, "auto" or None, default="auto"
        Time step of training in ms; answers, and the long runs that confirm stability, take `dt`.
        "auto" is twice `dt` with Heun's scheme, if `burn_in` and `window` are multiples of it and
        time constants at least five times as long, and `dt` otherwise: gradients need not be as
        exact as answers. None is `dt`.
    burn_in : float, default=60.0
        Time before the window, in ms; gradients do not reach into it.
    window : float, default=60.0
        Time over which potentials are averaged, in ms.
    n_trials : int, default=1
        Trials per input in training.
    n_trials_predict : int, default=10
        Trials per input in prediction.
    shared_noise : bool, default=True
        Whether the inputs of a training batch share their noise. Independent noise makes the
        gradient less noisy and a step about twice as long. (In prediction noise is always
        shared, so that a row's prediction does not depend on the other rows.)
    precision : {"float32", "tf32"}, default="float32"
        Precision of matrix products in training on a GPU, see :func:`simulate`.
    trainer : {"bptt", "es"}, default="bptt"
        Whether gradients come from backpropagation through time, or are estimated from costs
        at perturbed parameters by an evolution strategy ([2]_; antithetic pairs, with the
        same noise in the dynamics). Each step then needs `es_samples` simulations.
    es_samples : int, default=50
        Costs per step of the evolution strategy, an even number.
    es_sigma : float, default=0.02
        Standard deviation of its perturbations.
    max_iter : int, default=1000
        Optimiser steps at the final size, each on one mini-batch. Unlike epochs, they cost
        the same whatever the number of samples.
    batch_size : int, default=256
        Samples of a mini-batch; all samples if there are fewer.
    learning_rate : {"cosine", "constant"}, default="cosine"
        How the rate goes on from `learning_rate_init` at the final size: down to 0 along a
        half cosine, or not at all.
    learning_rate_init : float, default=0.01
        Rate of Adam.
    max_grad_norm : float, default=1.0
        Gradients longer than this are scaled down to it.
    input_noise : float or "auto", default="auto"
        Standard deviation of the normal noise added to inputs (scaled to [0, 1]) in training,
        anew at every step, against overfitting. It acts like a ridge penalty [3]_, of which more
        is needed where there are many features for the samples: "auto" takes half of the square
        root of n_features / n_samples, but at least .05 and at most .1. Where there are more
        features than a third of the samples, it starts with .8 (n_features / n_samples)^2, at
        most .8, and falls to that along half a cosine in the last stage. In `partial_fit` it
        takes .05.
    potential_penalty : float, default=0.01
        Factor of a penalty added to the cost: the mean squared excess of mean potentials over 20
        mV, and, of every cell that no input of a batch brings to 1 mV, the square of what is
        missing. A cell that never fires learns nothing about its inputs.
    stability_penalty : float, default=0.1
        Factor of a penalty on slow instabilities, which a training window is too short to show: the
        squared excess of :math:`\log |\exp(J t)|_F` over -1 at t = 256 ms, with the Jacobian J at
        mean potentials, summed over the most active inputs of a batch and as many others. Doubled,
        up to 64 times, whenever a step is undone.
    max_rejected_steps : int, default=10
        Training gives up when more steps than this have to be undone in a row.
    out_of_range : {"clip", "warn", "raise"}, default="clip"
        What to do with features outside of the range seen at the first fit, also in later calls of
        `fit` and `partial_fit` and in validation data given to them: take them at its edge,
        silently or with a warning that counts them, or refuse them. :meth:`n_out_of_range` counts
        them for every sample.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of the samples, keep the network that
        has the best `score` on them (by weight) and stop when it no longer grows. Validation data
        passed to `fit` are used in the same way.
    validation_fraction : float, default=0.1
        Share of the samples held out; in classification, of each class.
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
        Readout weights, per mV: a row for each class or target.
    readout_bias_ : ndarray of shape (n_outputs,)
        Readout biases.
    input_weights_ : ndarray of shape (n_neurons, n_features) or None
        Trained input weights if the input is dense.
    input_bias_ : ndarray of shape (n_neurons,) or None
        Trained mean external input of every cell if the input is dense.
    scaler_ : MinMaxScaler, or Pipeline of it and a StandardScaler
        The map of the features to [0, 1], inside the domain of f, and with dense input on to a
        mean of 0; fixed at the first fit. Features outside the range seen then are taken at its
        edge.
    stability_ : float
        Share of trials that stayed finite after training, with twice the trained noise: 2 s of up
        to 2048 training and as many validation inputs, 500 ms of the same a quarter farther from
        their mean, and 10 s of the 32 least stable of each. 1.0 unless training failed. After
        `partial_fit`, 500 ms of 256 inputs.
    divergence_rate_ : float
        Upper bound (95%) of how often a trial of a training input diverges, in 1/s, from these
        simulations: with the noise as trained, averaged over inputs. 95% is of one network; if
        others failed before it, one may also have passed by chance. NaN if none was confirmed, and
        after `partial_fit`. See the user guide for what it rests on.
    n_rejected_steps_ : int
        Optimiser steps that were undone because the circuit diverged, in all attempts.
    n_runaway_steps_ : int
        Those of them in which a trial ran away within the training window itself, or a drive or
        gradient was not finite; the others failed a longer simulation with twice the noise.
    n_attempts_ : int
        Starts that were tried: another one where training could not be kept stable, or had learned
        nothing after a quarter of the last stage.
    n_dropped_ : int
        Costs of perturbed circuits that did not count since they, or those of the opposite
        perturbation, diverged; 0 but for `trainer="es"`.
    growth_history_ : list of dict
        Sizes, last step, loss and rejected steps of every stage.
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
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, if `X` had names that are all strings.
    """

    _parameter_constraints: dict = BaseSSN._parameter_constraints | {
        "n_excitatory": [*COUNT, None],
        "n_inhibitory": [*COUNT, None],
        "input_weights": [StrOptions({"auto", "one_to_one", "dense"})],
        "dt_training": [*POSITIVE, StrOptions({"auto"}), None],
        "shared_noise": ["boolean"],
        "parents": [StrOptions({"last", "random", *INFORMED}), callable],
        "init": ["array-like", callable, None],
        "out_of_range": [StrOptions({"clip", "warn", "raise"})],
        "input_noise": [*NOT_NEGATIVE, StrOptions({"auto"})],
        "trainer": [StrOptions({"bptt", "es"})],
        "es_samples": [Interval(Integral, 2, MOST, closed="both")],
        "es_sigma": POSITIVE,
    }

    _only_with = BaseSSN._only_with | dict.fromkeys(
        ("es_samples", "es_sigma"), OnlyWith("trainer", lambda name: name == "es", "trainer='es'")
    )

    _new_parameters: dict = {"dt_training": None}  # of which older files do not know

    _fitted_shapes = BaseSSN._fitted_shapes | {
        "readout_weights_": ("outputs", "circuit_.n_excitatory"),
        "readout_bias_": ("outputs",),
        "input_weights_?": ("circuit_.n_neurons", "n_features_in_"),
        "input_bias_?": ("circuit_.n_neurons",),
        "scaler_": (MinMaxScaler, Pipeline),
    }

    def __init__(
        self,
        n_excitatory: int | None = None,
        n_inhibitory: int | None = None,
        *,
        input_weights: Literal["auto", "dense", "one_to_one"] = "auto",
        weight_structure: Literal["circulant", "gaussian_ring"] | None = None,
        growth: Literal["double", "single"] | None = "double",
        init: ArrayLike | Function | None = None,
        growth_iter: int = 40,
        parents: Literal["last", "random", "gradient", "output"] | Function = "last",
        clone_shares: Literal["random", "equal"] = "random",
        k: float = 0.3,
        gamma: float = 2.0,
        tau_e: float = 20.0,
        tau_i: float = 10.0,
        tau_eta: float = 20.0,
        solver: Solver = "heun",
        dt: float = 1.0,
        dt_training: float | Literal["auto"] | None = "auto",
        burn_in: float = 60.0,
        window: float = 60.0,
        n_trials: int = 1,
        n_trials_predict: int = 10,
        shared_noise: bool = True,
        precision: Literal["float32", "tf32"] = "float32",
        trainer: Literal["bptt", "es"] = "bptt",
        es_samples: int = 50,
        es_sigma: float = 0.02,
        max_iter: int = 1000,
        batch_size: int = 256,
        learning_rate: Literal["cosine", "constant"] = "cosine",
        learning_rate_init: float = 0.01,
        max_grad_norm: float = 1.0,
        input_noise: float | Literal["auto"] = "auto",
        potential_penalty: float = 0.01,
        stability_penalty: float = 0.1,
        max_rejected_steps: int = 10,
        out_of_range: Literal["clip", "warn", "raise"] = "clip",
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
        self.input_weights = input_weights
        self.weight_structure = weight_structure
        self.growth = growth
        self.init = init
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
        self.dt_training = dt_training
        self.burn_in = burn_in
        self.window = window
        self.n_trials = n_trials
        self.n_trials_predict = n_trials_predict
        self.shared_noise = shared_noise
        self.precision = precision
        self.trainer = trainer
        self.es_samples = es_samples
        self.es_sigma = es_sigma
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_grad_norm = max_grad_norm
        self.input_noise = input_noise
        self.potential_penalty = potential_penalty
        self.stability_penalty = stability_penalty
        self.max_rejected_steps = max_rejected_steps
        self.out_of_range = out_of_range
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _one_pass(self, X, y, **told):
        """`partial_fit`."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True.")
        return run_together([self._training(X, y, one_pass=True, **told)])[0]

    def _plan(self, rng, going_on, X, y, X_val=None, y_val=None, *, one_pass=False, **told):
        X, *known = self._labelled(going_on, X, y, **told)
        self._check_parameters()
        dense, sizes = self._layout(X.shape[1])
        if going_on:
            self._check_changes(dense, sizes[-1])
        device = resolve_device(self.device)
        held_out, given_later = self._given_validation(X_val, y_val)
        if self.early_stopping and held_out is None:
            (X, *known), held_out = self._split(rng, X, *known)
        if not one_pass:
            X, *known = self._joined(X, *known)
        scaler = self.scaler_ if going_on else _scaler(X, dense)
        for later in given_later + ([X] if going_on else []):
            self._heed_range(later, scaler)

        def inputs(X):
            return torch.from_numpy(scaler.transform(X).astype(np.float32)).to(device)

        data = inputs(X), self._targets(going_on, *known).to(device)
        task = self._task(dense)

        def restart():
            return self._start(task, sizes[0], data[0].cpu(), rng)

        if going_on:
            start, state = self._fitted_model(), getattr(self, "_optimizer_state", None)
            sizes = self._from_size(sizes, start.size)
        else:
            start, state = restart(), None
            self.noise_seed_ = int(rng.randint(2**31 - 1))
        self.scaler_ = scaler
        shorter = {}
        if one_pass:
            epoch = -(-len(X) // min(self.batch_size, len(X)))
            shorter = {"max_iter": epoch, "learning_rate": "constant"}
        source, trials = self._source()
        score = self._scorer(*held_out) if held_out else None
        return self._usual_plan(
            start,
            task,
            data,
            (self._phase(sizes, source, score=score, **shorter),),
            trials=trials,
            held_out=inputs(held_out[0]) if held_out else None,
            samples=(X, known[0]),
            state=state,
            restart=None if going_on or self.trainer == "es" else restart,
            penalties=self._penalties(),
            input_noise=self._noise(X, going_on, one_pass),
            whole=not one_pass,
            device=device,
        )

    def _split(self, rng, *known):
        """Samples to train on, and those held out."""
        strata = known[1] if is_classifier(self) else None
        parts = hold_out(self, rng, *known, stratify=strata)
        return parts[::2], tuple(parts[1::2])

    def _joined(self, *known):
        """Samples to train on, of which those that are equal may be made one."""
        return known

    def _source(self):
        """Where gradients come from, and the trials of long runs."""
        trials = self._trials(
            "window",
            n_trials=self.n_trials,
            shared_noise=self.shared_noise,
            precision=self.precision,
            covariance=False,
        )
        try:
            check_steps(self.window, self._training_step(), "window")
            own = replace(trials, dt=self._training_step())
            own.check_cells(self)
        except ValueError as error:
            raise ValueError(f"dt_training={self.dt_training!r}: {error}") from None
        if self.trainer == "es":
            return Searched(own, self.es_samples, self.es_sigma), trials
        return Simulated(own), trials

    def _training_step(self):
        """Time step of training, in ms."""
        if self.dt_training != "auto":
            return self.dt if self.dt_training is None else self.dt_training
        longer = LONGER_STEP * self.dt
        fits = is_whole(self.burn_in / longer) and is_whole(self.window / longer)
        fits &= min(self.tau_e, self.tau_i) >= STEPS_OF_TAU * longer
        return longer if fits and self.solver == "heun" else self.dt

    def _penalties(self):
        return Penalties(
            potential=self.potential_penalty,
            silence=self.potential_penalty,
            stability=self.stability_penalty,
        )

    def _check_parameters(self):
        """Raise ValueError where parameters do not go together."""
        self._source()
        if self.es_samples % 2:
            raise ValueError(f"es_samples come in pairs: an even number, got {self.es_samples}.")
        if self.init is not None and (self.growth or self.weight_structure):
            raise ValueError(
                "init sets all weights of a network that does not grow: it needs growth=None and "
                f"weight_structure=None, got {self.growth!r} and {self.weight_structure!r}."
            )

    def _given_validation(self, X_val, y_val):
        """Validation data that were given, and a list of their inputs."""
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together.")
        if X_val is None:
            return None, []
        X_val = validate_data(self, X_val, reset=False)
        y_val, *more = self._held_out_targets(y_val)
        if len(X_val) != len(y_val):
            raise ValueError(f"X_val has {len(X_val)} samples, y_val has {len(y_val)}.")
        return (X_val, y_val, *more), [X_val]

    def _noise(self, X, going_on, one_pass):
        """Standard deviation of the noise on inputs, at first and in the end."""
        if self.input_noise != "auto":
            return 2 * (self.input_noise,)
        if one_pass:  # there are more samples to come
            return 2 * (INPUT_NOISE[0],)
        first, end = _usual_noise(*X.shape)
        return (end if going_on else first), end

    def _keep(self, plan, outcome, going_on):
        super()._keep(plan, outcome, going_on)
        before = getattr(self, "n_dropped_", 0) if going_on else 0
        self.n_dropped_ = outcome.n_dropped + before

    def _layout(self, n_features):
        """Whether the input is dense, and the sizes of the stages of growth."""
        n_excitatory = self.n_excitatory
        ring = STRUCTURES[self.weight_structure].needs_pairs
        dense = self.input_weights == "dense"
        if self.input_weights == "auto":
            dense = not (ring and n_excitatory in (None, n_features))
        if n_excitatory is None:
            n_excitatory = n_features
            if dense:
                wanted = max(n_features, self._n_outputs, LEAST_EXCITATORY)
                n_excitatory = min(wanted, MOST_EXCITATORY)
        if not dense and n_excitatory != n_features:
            raise ValueError(
                f"input_weights='one_to_one' connects each feature to one excitatory cell, but "
                f"n_excitatory={n_excitatory} and X has {n_features} features. Set n_excitatory="
                f"{n_features} or input_weights='dense', or encode X to {n_excitatory} features."
            )
        n_inhibitory = self.n_inhibitory
        if n_inhibitory is None:
            n_inhibitory = n_excitatory if ring else -(-n_excitatory // 4)
        if ring and n_inhibitory != n_excitatory:
            raise ValueError(
                f"weight_structure={self.weight_structure!r} pairs excitatory with inhibitory "
                f"cells, so n_inhibitory must be {n_excitatory}, got {n_inhibitory}."
            )
        target = (int(n_excitatory), int(n_inhibitory))
        return dense, self._sizes(target)

    def _check_changes(self, dense, target):
        """Refuse to go on where the parameters ask for another circuit than the fitted one."""
        if dense != (self.input_weights_ is not None):
            raise ValueError(
                f"the fitted network has {'one-to-one' if dense else 'dense'} input weights, but "
                f"input_weights={self.input_weights!r} with n_excitatory={self.n_excitatory} asks "
                f"for {'dense' if dense else 'one-to-one'} ones. Fit anew with warm_start=False."
            )
        self._check_size(target)

    def _start(self, task, size, inputs, rng):
        arrays = task.start(size[0], sum(size), inputs, self._n_outputs, rng)

        def h():
            # a pair that stands the strongest channel stands those it will get
            sample = inputs[rng.permutation(len(inputs))[:256]]
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            h = task.external(tensors, sample)
            return h.numpy() if task.dense else h.amax(1, keepdim=True).numpy()

        circuit = self._first_circuit(size, h, rng)
        if self.init is not None:
            weights = initial_matrix(self.init, sum(size), rng).astype(np.float32)
            circuit = replace(circuit, weights=weights)
        return Model(circuit, arrays)

    def _attributes(self, model):
        """The fitted attributes that prediction needs."""
        return {
            "circuit_": model.circuit,
            "readout_weights_": model.arrays["coef"],
            "readout_bias_": model.arrays["intercept"],
            "input_weights_": model.arrays.get("input_weights"),
            "input_bias_": model.arrays.get("input_bias"),
            "scaler_": self.scaler_,
            "noise_seed_": self.noise_seed_,
            "n_features_in_": self.n_features_in_,
            "_fitted_structure": self.weight_structure,
        }

    def _check_fitted(self):
        super()._check_fitted()
        dense, d = self.input_weights_ is not None, self.n_features_in_
        if dense != (self.input_bias_ is not None):
            raise ValueError("input_weights_ and input_bias_ come together.")
        if self.scaler_.n_features_in_ != d or not (dense or d == self.circuit_.n_excitatory):
            raise ValueError(f"the network does not take {d} features.")

    def _fitted_model(self):
        arrays = {"coef": self.readout_weights_, "intercept": self.readout_bias_}
        if self.input_weights_ is not None:
            arrays |= {"input_weights": self.input_weights_, "input_bias": self.input_bias_}
        return Model(self.circuit_, arrays)

    def _respond(self, X, model, method="simulation", *, potentials=False):
        """Outputs or mean E potentials for valid inputs; the same in any company up to rounding."""
        self._check_method(method)
        device = resolve_device(self.device)
        circuit = model.circuit.to_torch(device)
        arrays = {name: torch.tensor(value, device=device) for name, value in model.arrays.items()}
        task = self._task("input_weights" in arrays)
        trials = self._trials("window", covariance=False)

        def respond(block):
            drive = task.drive(circuit, arrays, block.to(device))
            mean = self._moments(circuit, drive, trials, method, self.noise_seed_).mean
            own = mean[:, : circuit.n_excitatory]
            return (own if potentials else task.outputs(mean, arrays)).cpu()

        def answers(rows):
            return in_blocks(respond, self.scaler_.transform(rows).astype(np.float32))

        return in_pieces(answers, X)

    def n_out_of_range(self, X: ArrayLike) -> np.ndarray:
        """How many features of every sample lie outside of the range seen in training.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        counts : ndarray of shape (n_samples,)
        """
        return _out_of_range(super()._check_X(X), self.scaler_)

    def _check_X(self, X):
        X = super()._check_X(X)
        self._heed_range(X, self.scaler_)
        return X

    def _heed_range(self, X, scaler):
        """Warn of what lies outside of the range seen in training or refuse it, if asked to."""
        if self.out_of_range == "clip":
            return
        counts = _out_of_range(X, scaler)
        if not counts.any():
            return
        message = (
            f"{(counts > 0).sum()} of {len(X)} samples have features outside of the range "
            f"seen in training ({counts.sum()} values, first in sample {counts.argmax()})"
        )
        if self.out_of_range == "raise":
            raise ValueError(f"{message}. Retrain with such inputs, or clip them.")
        warnings.warn(f"{message}; they are taken at its edge.", UserWarning, stacklevel=3)

    def transform(self, X: ArrayLike, *, method: Method = "simulation") -> np.ndarray:
        """Mean potentials of the E cells.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.
        method : {"simulation", "closure"}, default="simulation"
            Whether potentials are averaged over simulated trials, or their stationary means
            are taken from the Gaussian closure (:func:`stationary_moments`): without noise,
            but with the closure's bias. Inputs for which it finds no stable state are simulated.
            ("moments" is another name for it.)

        Returns
        -------
        potentials : ndarray of shape (n_samples, n_excitatory)
            In mV; the same for a row whatever the other rows, but for rounding.
        """
        X = self._check_X(X)
        found = self._respond(X, self._fitted_model(), method, potentials=True)
        return found.astype(X.dtype, copy=False)

    def _drive(self, X):
        inputs = torch.from_numpy(self.scaler_.transform(X).astype(np.float32))
        model = self._fitted_model()
        arrays = {name: to_tensor(value, value.dtype) for name, value in model.arrays.items()}
        task = self._task("input_weights" in arrays)
        return task.drive(model.circuit.to_torch(), arrays, inputs).numpy()
