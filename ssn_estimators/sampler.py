"""`SSNSampler`: a circuit whose noisy activity samples the posterior of a generative model."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import Bunch, check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import (
    MOST,
    NOT_NEGATIVE,
    POSITIVE,
    HasMethods,
    Interval,
    OnlyWith,
    StrOptions,
    check_array,
    check_squares,
    fit_context,
    validate_data,
    with_callbacks,
)
from ssn_estimators._torch import in_blocks, in_pieces, resolve_device, to_tensor
from ssn_estimators.base import BaseSSN
from ssn_estimators.images import GaborEncoder, GaussianScaleMixture
from ssn_estimators.images.generative import named, percepts
from ssn_estimators.stationary import CLOSURES, stationary_moments
from ssn_estimators.structures import STRUCTURES, GaussianRing, InLogs
from ssn_estimators.training import Growth, Model, Penalties, Simulated, Solved, run_together
from ssn_estimators.training.posterior import (
    AVERAGES,
    COST_WEIGHTS,
    N_GROUPS,
    NORMALIZED,
    POOLS,
    Inference,
    Pool,
    check_cost_weights,
    check_moments,
    check_together,
    moment_errors,
    parents_in_pairs,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal, Self

    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike, Function, Method, RandomState, Solver

__all__ = ["SSNSampler"]

THETA = (5.0, 1.0, 2.0)  # of the input function at the start
PREDICT_ROWS = 8  # inputs simulated at once, filled up to as many
SAMPLE_ROWS = 8  # inputs whose trajectories are in memory at once


class SSNSampler(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseSSN):
    r"""Circuit that samples the posterior of a generative model, for any input.

    A stochastic stabilized supralinear network (SSN) of pairs of an excitatory (E) and an
    inhibitory (I) cell gets an image's coefficients as constant input; pair i has those of
    latent i. It is grown and trained so that the potentials of its E cells have, in time and
    over trials, the mean and the covariance of the posterior of the latents given that image
    (section 4 of [1]_). One set of weights then does inference by sampling for all images.

    Parameters
    ----------
    generative_model : object with `posterior_moments`, default=None
        Whose posterior is to be sampled. A fitted one is taken as it is, one that is not is
        cloned and fitted. None is a :class:`GaussianScaleMixture`. Where the sampler itself
        is cloned, as in cross-validation and :func:`fit_networks`, a fitted model must be
        wrapped in :class:`~sklearn.frozen.FrozenEstimator` to stay fitted.
    encoder : transformer, default=None
        From data to one number per latent, the external input of its pair; is cloned and
        fitted. None takes least-squares coefficients in the model's `components_`, or the
        data as they are if the model has none.
    input_pool : {"rectified", "squared"}, default=None
        Whether I cells also receive the magnitudes, or the squares, of the whitened principal
        components of all external inputs, through weights that are trained and not negative: a
        pool by which inhibition can follow the contrast of a whole image, where a pair's own
        coefficient cannot tell a strong feature in a faint image from a weak one.
    weight_structure : {None, "circulant", "gaussian_ring"}, default=None
        None trains every weight; "circulant" four symmetric circulant blocks; "gaussian_ring"
        four Gaussian profiles. The rings grow from the pair to the full size in one stage.
    growth : {"double", "single", None}, default="double"
        Split every pair at once until there is one for each latent; or one at a time; or
        start at full size from small random weights (the control).
    growth_iter : int, default=10
        Optimiser steps at each size before the last.
    parents : {"last", "random"} or callable, default="last"
        Which pairs are split when not all are. A callable is as in :func:`choose_parents`.
    clone_shares : {"equal", "random"}, default="equal"
        How the outgoing weights of a cell are shared out between it and its clones, see
        :func:`split`.
    k, gamma : float, default=0.3 and 2.0
        Gain and exponent of the rate function.
    tau_e, tau_i, tau_eta : float, default=20.0, 10.0 and 20.0
        Time constants of E cells, I cells and noise, in ms.
    solver : {"heun", "ab2", "euler"}, default="heun"
        Integration scheme, see :func:`simulate`.
    dt : float, default=1.0
        Time step in ms.
    burn_in : float, default=500.0
        Time before the window, in ms; gradients do not reach into it. Networks may have modes
        that are far slower than their cells, whose fluctuations short trials do not show.
    window : float, default=100.0
        Time over which moments are taken in training, in ms.
    window_predict : float, default=500.0
        Time over which they are in prediction, in ms.
    n_trials : int, default=12
        Trials per input in training, a multiple of four: the cost is the product of the errors
        of independent groups of trials, so that it is not biased by their number.
    n_trials_predict : int, default=20
        Trials per input in prediction, a multiple of four.
    moments : {"closure", "simulation"}, default="closure"
        What growth and training go by: moments from equations, without noise but biased where
        potentials vary much across their threshold, and in the end, for `finetune_iter` steps,
        simulated ones; or simulated ones all the time.
    closure : {"linear", "gaussian"}, default="linear"
        Equations of ``moments="closure"``, see :func:`stationary_moments`.
    cost_weights : sequence of 3 floats, or str, default=(1.0, 2.0, 1.0)
        Weights of the (normalised) squared errors of mean, variance and covariance in the
        cost (Eq. 13 of [1]_, which does not state them). Its reference implementation weighs
        errors that are not normalised by (0.01, 2, 1), here "published", or in earlier
        versions by (0.01, 0.02, 0.01), "published_early". With normalised ones variances then
        are somewhat closer, but means nearly free.
    averaging : {"per_input", "pooled", "unnormalized"}, default="per_input"
        Whether errors are normalised input by input, or by the mean over inputs; or not at
        all: then the cost is that of the reference implementation, squared errors averaged
        over inputs and elements (Eq. 12). A mean's squared length counts at least as 1% of
        the posterior's total variance.
    precision : {"float32", "tf32"}, default="float32"
        Precision of matrix products in training on a GPU, see :func:`simulate`.
    max_iter : int, default=2500
        Optimiser steps at the final size, each on one mini-batch.
    finetune_iter : int, default=500
        Further steps on simulated moments after those with ``moments="closure"``. Training
        finds where the equations are wrong, such as in cells whose potentials vary much across
        their threshold, and these steps lead back.
    batch_size : int, default=20
        Samples of a mini-batch; all samples if there are fewer.
    learning_rate : {"cosine", "constant"}, default="cosine"
        How the rate goes on from `learning_rate_init` at the final size.
    learning_rate_init : float, default=0.02
        Rate of Adam, which acts on the logarithms of the weights.
    finetune_rate : float, default=0.25
        Share of it with which `finetune_iter` begins.
    max_grad_norm : float, default=1.0
        Gradients longer than this are scaled down to it.
    potential_penalty : float, default=0.01
        Factor of the mean squared excess of mean potentials over 20 mV, added to the cost.
    settling_penalty : float, default=1.0
        Factor of the squared share of the way that potentials have left 40 ms after one input
        of the mini-batch has replaced another, added to the cost: networks that only have the
        right moments may be slow to reach them. 0 leaves their speed free.
    variance_penalty : float, default=0.02
        Factor of the mean excess of the variances of I potentials, in mV**2, over the largest one
        that is asked of a latent, or 1 mV**2 if that is more, added to the cost. Noise that is
        free to grow in I cells silences them now and then, and activity bursts: seldom, so that
        short trials do not show it, and equations of weak noise never do.
    stability_penalty : float, default=0.0
        Factor of a penalty on slow instabilities, as of :class:`SSNClassifier`. Off by default:
        where posteriors are broad, slow fluctuations are what is asked for.
    max_rejected_steps : int, default=10
        Training gives up when more steps than this have to be undone in a row.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of the samples, keep the network that has
        the least cost on them and stop when it no longer falls; in each phase, that of the
        closure and that of simulation, by its own moments.
    validation_fraction : float, default=0.1
        Share of the samples held out.
    n_iter_no_change : int, default=10
        Looks at the validation data (one every 50 steps) without progress before stopping.
    tol : float, default=1e-4
        Least fall of the validation cost that counts as progress.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted network.
    device : str, default="auto"
        Torch device; "auto" takes a GPU where there is one.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, batches, noise, and of what is fitted with the network.
    verbose : bool or int, default=False
        Whether to print a line for each stage of growth; an int above 1 asks for another one every
        so many steps. See :ref:`verbose`.

    Attributes
    ----------
    circuit_ : Circuit
        The trained circuit.
    generative_model_ : object or None
        The fitted generative model; None if `fit` was given targets.
    encoder_ : transformer or None
        The fitted encoder.
    pool_components_ : ndarray of shape (n_latents, n_latents) or None
        The whitened components, one a row, with `input_pool`: what each is of the encoded data
        over `input_scale_`. From a covariance about 0, shrunk where samples are few
        (:func:`~sklearn.covariance.ledoit_wolf`).
    pool_weights_ : ndarray of shape (n_latents, n_latents) or None
        What one unit of each component's magnitude adds to the drive of each I cell, in mV.
    input_scale_ : float
        Root mean square of the encoded data, by which they are divided.
    potential_shift_ : float
        Potential in mV that stands for a latent of 0: the least that keeps target means from
        being negative on the data seen during fit.
    stability_ : float
        Share of trials that stayed finite after training, with twice the trained noise: 2 s of up
        to 2048 training inputs, 500 ms of the same a quarter farther from their mean, and 10 s of
        the 32 least stable. 1.0 unless training failed.
    divergence_rate_ : float
        Upper bound (95%) of how often a trial of a training input diverges, in 1/s, as of
        :class:`SSNClassifier`.
    n_rejected_steps_ : int
        Optimiser steps that were undone because the circuit diverged, in all attempts.
    n_runaway_steps_ : int
        Those of them in which a trial ran away within the training window itself, or a drive or
        gradient was not finite.
    n_attempts_ : int
        Starts that were tried; another one where training could not be kept stable.
    growth_history_ : list of dict
        Sizes, last step, loss and rejected steps of every stage.
    loss_curve_ : list of float
        Cost at every accepted step, growth included.
    loss_ : float
        The last of them.
    validation_scores_ : list of float or None
        Minus the cost at each look at the validation data.
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

    See Also
    --------
    GaussianScaleMixture : The generative model of natural images.
    ContrastNormalizer : Brings images into the form that model is made for.
    stimulus_switch : How fast the samples follow a new image.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssn_estimators import ContrastNormalizer, GaussianScaleMixture, SSNSampler
    >>> X, _ = load_digits(return_X_y=True)
    >>> X = ContrastNormalizer().fit_transform(X)
    >>> model = GaussianScaleMixture(4, random_state=0).fit(X)
    >>> sampler = SSNSampler(model, max_iter=20, growth_iter=5, finetune_iter=5, random_state=0)
    >>> mean, std = sampler.fit(X).predict(X[:3], return_std=True)
    >>> mean.shape
    (3, 4)
    """

    _parameter_constraints: dict = BaseSSN._parameter_constraints | {
        "generative_model": [HasMethods("posterior_moments"), None],
        "encoder": [HasMethods(["fit", "transform"]), None],
        "input_pool": [StrOptions(set(POOLS)), None],
        "window_predict": POSITIVE,
        "moments": [StrOptions({"closure", "simulation"})],
        "closure": [StrOptions(set(CLOSURES))],
        "cost_weights": ["array-like", StrOptions(set(COST_WEIGHTS))],
        "averaging": [StrOptions(set(AVERAGES))],
        "finetune_iter": [Interval(Integral, 0, MOST, closed="both")],
        "finetune_rate": POSITIVE,
        "settling_penalty": NOT_NEGATIVE,
        "variance_penalty": NOT_NEGATIVE,
        "n_trials": [Interval(Integral, N_GROUPS, None, closed="left")],
        "n_trials_predict": [Interval(Integral, N_GROUPS, None, closed="left")],
    }

    _only_with = BaseSSN._only_with | {
        **dict.fromkeys(
            ("finetune_iter", "finetune_rate"),
            OnlyWith("moments", lambda name: name == "closure", "moments='closure'"),
        ),
        **dict.fromkeys(
            ("n_iter_no_change", "tol"), OnlyWith("early_stopping", bool, "early_stopping=True")
        ),
    }

    # that older files do not have, and what was done before
    _new_parameters: dict = {"input_pool": None, "variance_penalty": 0.0}
    _new_attributes = {"pool_weights_": None, "pool_components_": None, "_fitted_pool": None}

    _fitted_shapes = BaseSSN._fitted_shapes | {
        "input_scale_": float,
        "potential_shift_": float,
        "pool_weights_?": ("circuit_.n_inhibitory", "circuit_.n_excitatory"),
        "pool_components_?": ("circuit_.n_excitatory", "circuit_.n_excitatory"),
    }

    def __init__(
        self,
        generative_model: Any = None,
        *,
        encoder: BaseEstimator | None = None,
        input_pool: Literal["rectified", "squared"] | None = None,
        weight_structure: Literal["circulant", "gaussian_ring"] | None = None,
        growth: Literal["double", "single"] | None = "double",
        growth_iter: int = 10,
        parents: Literal["last", "random"] | Function = "last",
        clone_shares: Literal["equal", "random"] = "equal",
        k: float = 0.3,
        gamma: float = 2.0,
        tau_e: float = 20.0,
        tau_i: float = 10.0,
        tau_eta: float = 20.0,
        solver: Solver = "heun",
        dt: float = 1.0,
        burn_in: float = 500.0,
        window: float = 100.0,
        window_predict: float = 500.0,
        n_trials: int = 12,
        n_trials_predict: int = 20,
        moments: Literal["closure", "simulation"] = "closure",
        closure: Literal["linear", "gaussian"] = "linear",
        cost_weights: Sequence[float] | str = (1.0, 2.0, 1.0),
        averaging: Literal["per_input", "pooled", "unnormalized"] = "per_input",
        precision: Literal["float32", "tf32"] = "float32",
        max_iter: int = 2500,
        finetune_iter: int = 500,
        batch_size: int = 20,
        learning_rate: Literal["cosine", "constant"] = "cosine",
        learning_rate_init: float = 0.02,
        finetune_rate: float = 0.25,
        max_grad_norm: float = 1.0,
        potential_penalty: float = 0.01,
        stability_penalty: float = 0.0,
        settling_penalty: float = 1.0,
        variance_penalty: float = 0.02,
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
        self.generative_model = generative_model
        self.encoder = encoder
        self.input_pool = input_pool
        self.weight_structure = weight_structure
        self.growth = growth
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
        self.window = window
        self.window_predict = window_predict
        self.n_trials = n_trials
        self.n_trials_predict = n_trials_predict
        self.moments = moments
        self.closure = closure
        self.cost_weights = cost_weights
        self.averaging = averaging
        self.precision = precision
        self.max_iter = max_iter
        self.finetune_iter = finetune_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.finetune_rate = finetune_rate
        self.max_grad_norm = max_grad_norm
        self.potential_penalty = potential_penalty
        self.stability_penalty = stability_penalty
        self.settling_penalty = settling_penalty
        self.variance_penalty = variance_penalty
        self.max_rejected_steps = max_rejected_steps
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: object = None,
        *,
        mean: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
    ) -> Self:
        """Fit the generative model if it is not fitted, then grow and train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Images, or other data of the generative model. With targets, external inputs,
            one column per latent, unless there is an `encoder`.
        y : None
            Ignored.
        mean : array-like of shape (n_samples, n_latents), default=None
            Target means of the E potentials, in place of those of the generative model.
        covariance : array-like of shape (n_samples, n_latents, n_latents), default=None
            Their target covariances.

        Returns
        -------
        self : SSNSampler

        Raises
        ------
        ValueError
            If targets have the wrong shape or are not the moments of any distribution, or
            the encoder does not give one number per latent.

        Warns
        -----
        ConvergenceWarning
            If training could not be kept stable; the last stable network is kept.
        """
        return run_together([self._training(X, mean=mean, covariance=covariance)])[0]

    def _plan(self, rng, going_on, X, y=None, *, mean=None, covariance=None):
        X = validate_data(self, X, squared="in units of the largest", reset=not going_on)
        for window in ("window", "window_predict"):
            self._trials(window)
        self._check_groups()
        check_cost_weights(self.cost_weights)
        device = resolve_device(self.device)
        mean, covariance = self._targets(X, mean, covariance, rng, going_on)
        n_latents = mean.shape[1]
        inputs = self._inputs(X, n_latents, going_on)
        task = self._task()
        if not going_on:
            self.noise_seed_ = int(rng.randint(2**31 - 1))
        data, held_out = self._data(inputs, mean, covariance, rng, device)
        sizes = self._sizes((n_latents, n_latents))
        noise = {}
        if self.weight_structure == "gaussian_ring":
            # from weaker noise its few numbers end where variances and covariances are too small
            noise["noise"] = float(np.sqrt(np.einsum("nii->ni", covariance).mean()))

        def restart():
            circuit = self._start(sizes[0], data[0].cpu().numpy(), rng, **noise)
            return Model(circuit, task.start(circuit, n_latents))

        if going_on:
            self._check_unchanged(
                *["the number of latents"] * (n_latents != self._n_features_out),
                *["input_pool"] * (self.input_pool != self._fitted_pool),
            )
            start = Model(self.circuit_, self._pool())
            state = getattr(self, "_optimizer_state", None)
            sizes = sizes[-1:]
        else:
            start, state = restart(), None
        trials = self._trials(
            n_trials=self.n_trials // N_GROUPS,
            duration=self.window,
            shared_noise=False,
            precision=self.precision,
        )
        structure = STRUCTURES[self.weight_structure]
        return self._usual_plan(
            start,
            task,
            data,
            self._phases(trials, sizes, task, held_out, device),
            # the 15 numbers of the Gaussian ring are logarithms already
            structure=structure if structure is GaussianRing else InLogs(structure),
            trials=trials,
            held_out=held_out[0] if held_out else None,
            samples=(X, None),
            state=state,
            restart=None if going_on else restart,
            growth=Growth(parents_in_pairs(self.parents), self.clone_shares),
            penalties=self._penalties(covariance),
            grows_fully=True,
            device=device,
        )

    def _penalties(self, covariance):
        return Penalties(
            variance=self.variance_penalty,
            asked_variance=float(np.einsum("nii->ni", covariance).max()),
            potential=self.potential_penalty,
            stability=self.stability_penalty,
            settling=self.settling_penalty,
            dt=self.dt,
            solver=self.solver,
        )

    def _data(self, inputs, mean, covariance, rng, device):
        """Inputs and targets as tensors, and those held out."""
        tensors = [
            torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
            for x in (inputs, mean + self.potential_shift_, covariance)
        ]
        data = (tensors[0].to(device), Inference.targets(*tensors[1:]).to(device))
        if not self.early_stopping:
            return data, None
        n = len(inputs)
        order = torch.from_numpy(rng.permutation(n))
        n_held = max(1, round(self.validation_fraction * n))
        if n_held == n:
            raise ValueError(
                f"early_stopping=True with validation_fraction={self.validation_fraction:g} leaves "
                f"none of {n} samples to train on."
            )
        return tuple(x[order[n_held:]] for x in data), tuple(x[order[:n_held]] for x in data)

    def _targets(self, X, mean, covariance, rng, going_on):
        """Moments that potentials are to have, but for their shift: given, or the model's."""
        check_together(mean, covariance)
        if mean is None:
            if not going_on:
                self.generative_model_ = self._fitted_generative_model(X, rng)
            elif self.generative_model_ is None:
                raise ValueError("the network was fitted to targets; it needs some to go on.")
            mean, covariance = self._posterior_moments(X)
        elif not going_on:
            self.generative_model_ = None
        mean, covariance = check_moments(mean, covariance, len(X), X.dtype)
        if not going_on:
            self.potential_shift_ = float(max(0.0, -mean.min()))
        return mean, covariance

    def _inputs(self, X, n_latents, going_on):
        """External inputs of E cells, in units of their size at the first fit, and their pool."""
        if not going_on:
            self.encoder_, self.input_scale_ = self._fitted_encoder(X), 1.0
        inputs = self._encode(X)
        if inputs.shape[1] != n_latents:
            raise ValueError(
                f"there are {n_latents} latents, but "
                f"{'the encoder gives' if self.encoder_ is not None else 'X has'} "
                f"{inputs.shape[1]} numbers a row: one for each latent is needed."
            )
        if not going_on:
            check_squares(inputs, "encoded X")
            self.input_scale_ = _size(inputs)
            inputs = inputs / inputs.dtype.type(self.input_scale_)
            self._fitted_pool, self.pool_components_ = self.input_pool, None
            if self.input_pool:
                self.pool_components_ = Pool.of(self.input_pool, inputs).components
        return inputs

    def _check_groups(self):
        if self.n_trials % N_GROUPS or self.n_trials_predict % N_GROUPS:
            raise ValueError(
                f"n_trials and n_trials_predict must be multiples of {N_GROUPS}, the groups of "
                f"trials in the cost; got {self.n_trials} and {self.n_trials_predict}."
            )

    def _phases(self, trials, sizes, task, held_out, device):
        """First by equations, if these are asked for, then by simulation."""

        def phase(sizes, source, closure, **others):
            score = self._score_of(task, held_out, closure, device) if held_out else None
            return self._phase(sizes, source, score=score, **others)

        simulated = Simulated(trials, n_copies=N_GROUPS)
        if self.moments == "simulation":
            return (phase(sizes, simulated, None),)
        phases = [phase(sizes, Solved(self.closure), self.closure)]
        if self.finetune_iter:
            rate = self.finetune_rate * self.learning_rate_init
            short = {"max_iter": self.finetune_iter, "learning_rate_init": rate}
            phases.append(phase(sizes[-1:], simulated, None, **short))
        return tuple(phases)

    def _fitted_generative_model(self, X, rng):
        model = self.generative_model
        if model is None:
            model = GaussianScaleMixture(random_state=rng)
        else:
            try:
                check_is_fitted(model)
                return model
            except (NotFittedError, TypeError):  # TypeError: not an estimator, takes no fit
                if not hasattr(model, "fit"):
                    return model
            model = clone(model)
        return model.fit(X)

    def _fitted_encoder(self, X):
        filters = getattr(self.generative_model_, "components_", None)
        if self.encoder is not None:
            encoder = clone(self.encoder)
            if hasattr(encoder, "set_output"):
                encoder.set_output(transform="default")
            return encoder.fit(X)
        if filters is None:
            return None
        return GaborEncoder(filters=filters).set_output(transform="default").fit(X)

    def _encode(self, X):
        """External inputs of valid data, but for those of I cells, which are the same."""
        inputs = X
        if self.encoder_ is not None:
            kinds = (np.float64, np.float32)
            inputs = check_array(self.encoder_.transform(X), dtype=kinds, input_name="encoded X")
        return inputs / inputs.dtype.type(self.input_scale_)

    def _start(self, size, inputs, rng, **noise):
        def h():
            # a pair that stands the strongest inputs stands those of all latents
            sample = inputs[rng.permutation(len(inputs))[:256]].max(1, keepdims=True)
            return np.hstack([sample, sample])

        return self._first_circuit(size, h, rng, theta=THETA, **noise)

    def _score_of(self, task, held_out, closure, device):
        """Minus the cost on held-out data: from equations, or with the seed of prediction."""
        trials = self._trials(
            n_trials=self.n_trials_predict // N_GROUPS,
            duration=self.window_predict,
            shared_noise=False,
        )

        def score(model):
            circuit = model.circuit.to_torch(device)
            inputs, targets = held_out
            arrays = {name: to_tensor(value).to(inputs) for name, value in model.arrays.items()}
            drive = task.drive(circuit, arrays, inputs)
            if closure:
                moments = stationary_moments(circuit, drive, closure=closure)
                failed = ~moments.converged.all()
            else:
                moments = self._run(circuit, drive.repeat(N_GROUPS, 1), trials, self.noise_seed_)
                failed = moments.diverged.any()
            return -np.inf if failed else -float(task.loss(moments, {}, targets))

        return score

    def _attributes(self, model):
        """The fitted attributes that prediction needs."""
        names = ("generative_model_", "encoder_", "input_scale_", "potential_shift_", "noise_seed_")
        names += ("n_features_in_", "pool_components_", "_fitted_pool")
        fitted = {name: getattr(self, name) for name in names}
        fitted |= {"circuit_": model.circuit, "pool_weights_": model.arrays.get("pool")}
        fitted |= {"_fitted_structure": self.weight_structure}
        return fitted

    def _check_fitted(self):
        super()._check_fitted()
        parts = (self._fitted_pool, self.pool_weights_, self.pool_components_)
        if len({part is None for part in parts}) > 1:
            raise ValueError("the kind of a pool, its weights and its components come together.")
        if self._fitted_pool is not None:
            if self._fitted_pool not in POOLS:
                raise ValueError(f"there is no pool {self._fitted_pool!r}.")
            if (self.pool_weights_ < 0).any():
                raise ValueError("pool_weights_ must not be negative.")

    def _task(self):
        pool = self._fitted_pool and Pool(self._fitted_pool, self.pool_components_)
        return Inference(self.cost_weights, self.averaging, pool)

    def _pool(self):
        """Arrays of the fitted network around its circuit."""
        return {} if self.pool_weights_ is None else {"pool": self.pool_weights_}

    def _drive(self, X):
        most = np.finfo(np.float32).max
        inputs = self._encode(X).clip(-most, most).astype(np.float32)
        circuit = self.circuit_.to_torch()
        task = self._task()
        arrays = {name: to_tensor(value, np.float32) for name, value in self._pool().items()}
        return in_blocks(lambda block: task.drive(circuit, arrays, block), inputs)

    def _potentials(self, X, method="simulation", grouped=False):
        """Means and covariances of the potentials of E cells, float32; by group if grouped."""
        self._check_method(method)
        self._check_groups()
        circuit = self.circuit_.to_torch(resolve_device(self.device))
        n, n_trials, sources = circuit.n_excitatory, self.n_trials_predict, [self.noise_seed_]
        if grouped and method == "simulation":
            n_trials //= N_GROUPS
            sources = [np.random.RandomState(self.noise_seed_ + i) for i in range(N_GROUPS)]
        # errors are averaged over inputs: noise of their own averages out, shared noise does not
        trials = self._trials(
            n_trials=n_trials, duration=self.window_predict, shared_noise=not grouped
        )

        def respond(drive):
            drive = drive.to(circuit.weights.device)
            parts = [
                self._moments(circuit, drive, trials, method, source, self.closure)
                for source in sources
            ]
            packed = [Inference.targets(m.mean[:, :n], m.covariance[:, :n, :n]) for m in parts]
            return torch.stack(packed, 1).cpu()

        packed = in_blocks(respond, self._drive(X), rows=PREDICT_ROWS)
        return [(part[:, :, 0], part[:, :, 1:]) for part in packed.swapaxes(0, 1)]

    @overload
    def predict(
        self,
        X: ArrayLike,
        return_std: Literal[False] = False,
        return_cov: Literal[False] = False,
        *,
        method: Method = "simulation",
    ) -> np.ndarray: ...

    @overload
    def predict(
        self,
        X: ArrayLike,
        return_std: Literal[True],
        return_cov: Literal[False] = False,
        *,
        method: Method = "simulation",
    ) -> tuple[np.ndarray, np.ndarray]: ...

    @overload
    def predict(
        self,
        X: ArrayLike,
        return_std: Literal[False] = False,
        *,
        return_cov: Literal[True],
        method: Method = "simulation",
    ) -> tuple[np.ndarray, np.ndarray]: ...

    @overload
    def predict(
        self,
        X: ArrayLike,
        return_std: bool = False,
        return_cov: bool = False,
        *,
        method: Method = "simulation",
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]: ...

    def predict(
        self,
        X: ArrayLike,
        return_std: bool = False,
        return_cov: bool = False,
        *,
        method: Method = "simulation",
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Mean of the latents under the network's samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.
        return_std : bool, default=False
            Whether to return standard deviations too.
        return_cov : bool, default=False
            Whether to return covariances too.
        method : {"simulation", "closure"}, default="simulation"
            Whether moments are those of simulated trials, over `window_predict`, or the
            stationary ones of the `closure`; inputs for which it finds none are simulated.

        Returns
        -------
        mean : ndarray of shape (n_samples, n_latents)
            The potentials without `potential_shift_`; the same for a row whatever the other
            rows, but for rounding.
        std : ndarray of shape (n_samples, n_latents)
            Only if `return_std`.
        covariance : ndarray of shape (n_samples, n_latents, n_latents)
            Only if `return_cov`.

        Raises
        ------
        DivergenceError
            If the network diverges on some input.
        """
        if return_std and return_cov:
            raise ValueError("Only one of return_std and return_cov can be True.")
        X = self._check_X(X)
        if return_cov:
            return self._latents(X, method)
        if not return_std:
            return self._means(X, method)

        def moments(rows):
            mean, covariance = self._latents(rows, method)
            return np.stack([mean, np.sqrt(np.einsum("nii->ni", covariance))], axis=1)

        return tuple(np.ascontiguousarray(in_pieces(moments, X).swapaxes(0, 1)))

    def _means(self, X, method="simulation"):
        return in_pieces(lambda rows: self._latents(rows, method)[0], X)

    def _latents(self, X, method="simulation"):
        """Means and covariances of the latents, of the dtype of X."""
        ((mean, covariance),) = self._potentials(X, method)
        mean = mean - np.float32(self.potential_shift_)
        return mean.astype(X.dtype), covariance.astype(X.dtype)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Mean of the latents under the network's samples, as by `predict`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        mean : ndarray of shape (n_samples, n_latents)
        """
        return self.predict(X)

    def sample(
        self,
        X: ArrayLike,
        n_samples: int = 100,
        *,
        interval: float = 20.0,
        random_state: RandomState = None,
    ) -> np.ndarray:
        """Samples of the posterior, as the network draws them one after the other.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.
        n_samples : int, default=100
            Samples per input, from one trial after burn-in.
        interval : float, default=20.0
            Time in ms between two of them, a multiple of `dt`.
        random_state : int, RandomState instance or None, default=None
            Source of the noise.

        Returns
        -------
        samples : ndarray of shape (n_inputs, n_samples, n_latents)

        Raises
        ------
        DivergenceError
            If the network diverges on some input.
        """
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be a positive integer, got {n_samples!r}.")
        X = self._check_X(X)
        if not isinstance(interval, Real) or not interval > 0:
            raise ValueError(f"interval must be a positive time in ms, got {interval!r}.")
        every = round(interval / self.dt)
        if every < 1 or not np.isclose(every * self.dt, interval):
            raise ValueError(
                f"interval must be a multiple of the time step, {self.dt:g} ms, got {interval:g}."
            )
        rng, n = check_random_state(random_state), self.circuit_.n_excitatory
        samples = np.empty((len(X), n_samples, n), X.dtype)
        for rows in gen_batches(len(X), SAMPLE_ROWS):
            simulation = self._simulate(
                X[rows],
                n_trials=1,
                duration=n_samples * interval,
                shared_noise=False,
                random_state=rng,
                record="u",
                covariance=False,
                rates=False,
            )
            simulation.check_finite()
            samples[rows] = simulation.u[every - 1 :: every, :, 0, :n].swapaxes(0, 1)
        return samples - X.dtype.type(self.potential_shift_)

    def reconstruct(self, X: ArrayLike) -> np.ndarray:
        """What the network perceives: the image that its mean samples stand for.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Images.

        Returns
        -------
        images : ndarray of shape (n_samples, n_features)
            By the generative model, at the contrast that the variances of the samples tell if it
            knows contrasts, see :meth:`GaussianScaleMixture.z_from_variance`.
        """
        model = self._known_model("inverse_transform")
        mean, std = self.predict(X, return_std=True)
        return percepts(model, mean[None], std[None] ** 2)[0]

    def normalized_cost(
        self,
        X: ArrayLike,
        mean: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        *,
        cost_weights: Sequence[float] | str | None = None,
        averaging: Literal["per_input", "pooled"] | None = None,
        method: Method = "simulation",
    ) -> Bunch:
        r"""Normalised squared errors of the moments, and their weighted sum (Eq. 13).

        Simulated moments are compared by the product of the errors of independent groups of
        trials, which is free of their sampling variance (and may be negative for it). Unlike
        in `predict`, every input has noise of its own, so that the mean over many is precise.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.
        mean : array-like of shape (n_samples, n_latents), default=None
            Target means of the potentials; by default those of the generative model.
        covariance : array-like of shape (n_samples, n_latents, n_latents), default=None
            Their target covariances.
        cost_weights : sequence of 3 floats, or str, default=None
            Weights of the errors, or the name of published ones; by default those of the
            network.
        averaging : {"per_input", "pooled"}, default=None
            Over inputs; by default that of the network, or "per_input" if that is
            "unnormalized".
        method : {"simulation", "closure"}, default="simulation"
            See `predict`.

        Returns
        -------
        cost : :class:`~sklearn.utils.Bunch`
            With the floats `total`, `mean`, `variance` and `covariance`, the last three
            before weighting.
        """
        X = self._check_X(X)
        weights = check_cost_weights(self.cost_weights if cost_weights is None else cost_weights)
        if averaging is None:
            averaging = self.averaging if self.averaging in NORMALIZED else NORMALIZED[0]
        if averaging not in NORMALIZED:
            legal = " or ".join(map(repr, NORMALIZED))
            raise ValueError(f"averaging must be {legal}, got {averaging!r}.")
        check_together(mean, covariance)
        if mean is None:
            self._known_model("posterior_moments")
            mean, covariance = self._posterior_moments(X)
        mean, covariance = check_moments(mean, covariance, len(X), np.float32)
        if mean.shape[1] != self.circuit_.n_excitatory:
            raise ValueError(
                f"the network has {self.circuit_.n_excitatory} latents, mean and covariance have "
                f"{mean.shape[1]}."
            )
        parts = self._potentials(X, method, grouped=True)
        means, covariances = (
            [torch.from_numpy(np.ascontiguousarray(x)) for x in kind]
            for kind in zip(*parts, strict=True)
        )
        targets = [
            torch.from_numpy(x) for x in (mean + np.float32(self.potential_shift_), covariance)
        ]
        errors = moment_errors(means, covariances, *targets, averaging).numpy().astype(float)
        return Bunch(
            total=float(errors @ weights),
            **dict(zip(("mean", "variance", "covariance"), errors.tolist(), strict=True)),
        )

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Minus the normalised cost against the generative model's posterior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.
        y : None
            Ignored.

        Returns
        -------
        score : float
            The greater, the better; 0 is perfect.
        """
        return -self.normalized_cost(X).total

    def _posterior_moments(self, X):
        """Of valid inputs, by the generative model."""
        return self.generative_model_.posterior_moments(named(X, self.generative_model_))

    def _known_model(self, method):
        model = self.generative_model_
        if not hasattr(model, method):
            raise AttributeError(
                f"this needs a generative model with {method}; "
                + ("fit was given targets instead." if model is None else f"{model!r} has none.")
            )
        return model


def _size(inputs):
    """Root mean square; of squares that are numbers, however small the inputs."""
    unit = 2.0 ** np.frexp(np.abs(inputs).max())[1]
    return float(np.sqrt(np.mean((inputs.astype(float) / unit) ** 2)) * unit) or 1.0
