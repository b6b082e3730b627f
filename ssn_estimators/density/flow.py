"""`GMMFlow`: a mixture of Gaussians behind a normalising flow, from samples or from dynamics."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from numbers import Integral, Real
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.base import DensityMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted
from torch.func import grad, jacfwd, vmap

from ssn_estimators._classifiers import check_answers
from ssn_estimators._scaling import spread_of
from ssn_estimators._sklearn import (
    COUNT,
    MOST,
    BaseEstimator,
    Interval,
    OnlyWith,
    StrOptions,
    fit_context,
    validate_data,
    with_callbacks,
)
from ssn_estimators._stepwise import StepwiseMixin
from ssn_estimators._torch import (
    Minibatches,
    check_parameters,
    check_trained,
    draw_parameters,
    in_blocks,
    in_pieces,
    on_cpu,
    to_tensor,
)
from ssn_estimators.density.dynamics import Langevin
from ssn_estimators.density.stationarity import fokker_planck_residual, generator_moments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, Self

    from ssn_estimators._typing import ArrayLike, RandomState

__all__ = ["GMMFlow"]

OBJECTIVES = ("likelihood", "score_matching", "fokker_planck")
SAME_MODE = 1e-3  # distance in the latent space, of standardised data
TINY = 1e-30
STILL = 1e-6  # the same, of a step of the concave-convex procedure
MOST_ROWS = 1024  # compared with all components at once
MOST_COMPONENTS, SAMPLES_EACH = 64, 8  # by default
RESIDUAL = 0.1  # weight of the residual beside the likelihood of places that are carried along
# Their steps: what drift moves, squared, by what noise does, in half of them; in the first half of
# those before training what it moves, in standard deviations; the longest, in these
STEP, APPROACH, JUMP = 0.01, 0.05, 0.2
BURN_IN, N_STEPS = 4000, 20  # before training, and before each of its steps
# How far means of the generator may be from 0, over their standard errors and over deviations:
# errors of time steps show in many samples, but are small
CHANCE, UNSETTLED = 5.0, 0.15
_DRAWING = Lock()


class GMMFlow(DensityMixin, StepwiseMixin, BaseEstimator):
    r"""Density as a mixture of Gaussians in the latent space of a normalising flow.

    .. math::
        \log p(x) = \log \sum_k \pi_k N(T(x); \mu_k, v I) + \log |\det J_T(x)|

    In the latent space this is a modern Hopfield network with patterns :math:`\mu_k`: the
    concave-convex procedure :math:`z \leftarrow \sum_k r_k(z) \mu_k`, with r the posterior
    probabilities of the components, never raises its energy. A few steps remove noise, and its
    fixed points are clusters [1]_. With the default flow, of additive couplings [2]_, volumes are
    preserved and the energy is that of the data space. Flows come from the library zuko (``pip
    install "ssn_estimators[density]"``).

    Parameters
    ----------
    n_components : int, default=None
        Number K of Gaussians. None means one for every eight samples, 64 at most.
    flow : {"additive", "affine"}, default="additive"
        Couplings T is made of; with "affine" ones the flow may change volumes.
    n_layers : int, default=6
        Number of couplings; 0 leaves a mixture. There are none for one-dimensional data.
    hidden_layer_sizes : tuple of int, default=(64, 64)
        Units of the perceptron in each.
    objective : str or dict of str to float, default="likelihood"
        What is minimised, or the weights of a sum: "likelihood", minus the mean log-likelihood
        of the samples; "score_matching", after Hyvärinen [3]_, of samples of standard deviations
        about 1, since it depends on their units; "fokker_planck", the mean of
        :math:`\log(1 + (R / m)^2)` at the samples, where R is the :func:`.fokker_planck_residual`
        under `dynamics` and m its median absolute value in a batch: squares of R alone would be
        those of places that the density hardly reaches. Under the last alone samples need not be
        of the density, and only say where to begin: the dynamics carry them along, and their
        likelihood is part of the objective, of ten times its weight. For the residual sees
        ripples, but hardly how much of the density is in which of two modes. Objectives without
        the likelihood are minimised from the density that its first steps lead to, a quarter of
        all: scores are too large before.
    dynamics : Langevin, default=None
        What "fokker_planck" is about. Its drift gets tensors.
    max_iter : int, default=1000
        Steps of Adam.
    batch_size : int, default=256
        Samples in a step.
    learning_rate_init : float, default=0.01
        Learning rate at first; it falls to 0 along a cosine.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of the samples, stop when the
        objective on them no longer falls, and keep what was best on them.
    validation_fraction : float, default=0.1
        Share of the samples held out.
    n_iter_no_change : int, default=10
        Looks at them (one every 50 steps) without progress before training stops.
    tol : float, default=1e-4
        Least growth of minus the objective that counts as progress.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted density.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, batches and the validation split.
    verbose : bool or int, default=False
        Whether to print a line every 50 steps; an int above 1 is another number of steps. See
        :ref:`verbose`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Shares :math:`\pi` of the components.
    means_ : ndarray of shape (n_components, n_features)
        Their means in the latent space.
    variance_ : float
        Their variance v.
    modes_ : ndarray of shape (n_modes, n_features)
        Fixed points of the concave-convex procedure from all means, in the latent space.
    center_, scale_ : ndarray of shape (n_features,)
        Samples are standardised by them before T.
    flow_parameters_ : dict of str to ndarray
        Those of T.
    loss_curve_ : list of float
        The objective in every step; minus the likelihood in those that come before it.
    validation_scores_ : list of float or None
        Minus the objective on the held-out samples at every look.
    best_validation_score_ : float or None
        The largest of them.
    n_iter_ : int
        Number of steps.
    n_features_in_ : int
        Number of features seen during fit.

    References
    ----------
    .. [1] Lu, Kuśmierz & Mihalas (2025). A Fokker-Planck-based loss function that bridges
       dynamics with density estimation. arXiv.
    .. [2] Dinh, Krueger & Bengio (2014). NICE: non-linear independent components estimation.
       arXiv:1410.8516.
    .. [3] Hyvärinen (2005). Estimation of non-normalized statistical models by score matching.
       JMLR 6, 695-709.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from ssn_estimators import GMMFlow
    >>> X, _ = make_moons(200, noise=0.05, random_state=0)
    >>> density = GMMFlow(8, max_iter=20, random_state=0).fit(X)
    >>> density.score_samples(X[:3]).shape, density.sample(5, random_state=0).shape
    ((3,), (5, 2))
    """

    _parameter_constraints: dict = StepwiseMixin._stepwise_constraints | {
        "n_components": [*COUNT, None],
        "flow": [StrOptions({"additive", "affine"})],
        "n_layers": [Interval(Integral, 0, MOST, closed="both")],
        "hidden_layer_sizes": ["array-like"],
        "objective": [StrOptions(set(OBJECTIVES)), Mapping],
        "dynamics": [Langevin, None],
    }

    _only_with = StepwiseMixin._only_with | {
        "dynamics": OnlyWith(
            "objective", lambda objective: "fokker_planck" in objective, 'objective="fokker_planck"'
        ),
        **dict.fromkeys(
            ("flow", "hidden_layer_sizes"), OnlyWith("n_layers", bool, "n_layers above 0")
        ),
    }

    _fitted_shapes = {
        "center_": ("n_features_in_",),
        "scale_": ("n_features_in_",),
        "weights_": ("components",),
        "means_": ("components", "n_features_in_"),
        "modes_": ("modes", "n_features_in_"),
        "variance_": float,
        "flow_parameters_": dict,
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        flow: Literal["additive", "affine"] = "additive",
        n_layers: int = 6,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        objective: str | Mapping[str, float] = "likelihood",
        dynamics: Langevin | None = None,
        max_iter: int = 1000,
        batch_size: int = 256,
        learning_rate_init: float = 0.01,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        random_state: RandomState = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_components = n_components
        self.flow = flow
        self.n_layers = n_layers
        self.hidden_layer_sizes = hidden_layer_sizes
        self.objective = objective
        self.dynamics = dynamics
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit the density.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            At least as many samples as components.
        y : None
            Ignored.

        Returns
        -------
        self : GMMFlow

        Raises
        ------
        ValueError
            If the objective is not one, lacks its dynamics, or there are too few samples.
        FloatingPointError
            If the objective is not finite at some step, or dynamics carry samples to infinity.
        ImportError
            If zuko is not installed.

        Warns
        -----
        ConvergenceWarning
            If samples that are carried along do not reach a stationary state.
        """
        objective, going_on = self._weights(), self._goes_on("means_")
        X = samples = validate_data(self, X, squared=True, dtype=np.float64, reset=not going_on)
        rng, record = self._begin(X)
        warm_up = 0 if "likelihood" in objective or going_on else self.max_iter // 4
        carried = set(objective) == {"fokker_planck"}
        held_out = None
        if self.early_stopping:
            if carried:
                raise ValueError(
                    "early_stopping judges by samples that are held out, but under "
                    'objective="fokker_planck" samples need not be of the density.'
                )
            X, held_out = map(to_tensor, self._split(rng, X))
        n_components = self._n_components(len(X), going_on)
        places = to_tensor(X)
        if carried:
            places = _Carried(places, self.dynamics, rng)
            X = places.all()
            objective = {"likelihood": 1.0, **{k: RESIDUAL * w for k, w in objective.items()}}
        if going_on:
            self._check_fitted()
            density = deepcopy(self._fitted()).requires_grad_(True)
        else:
            X = np.asarray(X)
            self.center_, self.scale_ = X.mean(0), spread_of(X)
            density = self._start((X - self.center_) / self.scale_, n_components, rng)
        cost = self._cost(density, objective)
        step, parts = self._step(density, places, cost, warm_up, rng)
        score = None if held_out is None else lambda: -float(cost(held_out).detach())
        fitted = self._take_steps(
            step,
            density.arrays,
            (samples, y),
            score=score,
            going_on=going_on,
            record=record,
            parts=(rng, *parts, *([places] if carried else [])),
        )
        check_trained(density.parameters(), self.learning_rate_init)
        if carried and places.unsettled():
            warnings.warn(
                "the dynamics have not brought samples to a stationary state: there is none, or it "
                "is far away, or slow. Raise max_iter, or begin with samples nearer to it.",
                ConvergenceWarning,
                stacklevel=4,
            )
        for name, value in fitted.items():
            setattr(self, name, value)
        return self

    def _n_components(self, n_samples, going_on):
        if going_on:
            if self.n_components not in (None, len(self.means_)):
                raise ValueError(
                    f"the fitted density has {len(self.means_)} components, and cannot go on with "
                    f"n_components={self.n_components}. Fit anew with warm_start=False."
                )
            return len(self.means_)
        n = self.n_components or min(MOST_COMPONENTS, max(1, n_samples // SAMPLES_EACH))
        if n_samples < n:
            raise ValueError(
                f"n_samples={n_samples} to train on is less than n_components={n}: every component "
                "starts as a cluster of samples."
            )
        return n

    def _completed(self, attributes):
        others = {name: getattr(self, name) for name in ("center_", "scale_", "n_features_in_")}
        mixture = [attributes[name] for name in ("weights_", "means_", "variance_")]
        modes = _distinct(_descended(attributes["means_"], 10_000, *mixture))
        return attributes | others | {"modes_": modes}

    def _weights(self):
        """Weight of every objective, checked."""
        weights = self.objective
        if isinstance(weights, str):
            weights = {weights: 1.0}
        valid = [isinstance(w, Real) and 0 <= w < np.inf for w in weights.values()]
        if set(weights) - set(OBJECTIVES) or not all(valid) or not any(weights.values()):
            raise ValueError(
                f"objective must name some of {OBJECTIVES}, with weights that are not negative "
                f"nor all 0; got {self.objective!r}."
            )
        if weights.get("fokker_planck") and self.dynamics is None:
            raise ValueError('objective "fokker_planck" needs the dynamics.')
        return {name: weight for name, weight in weights.items() if weight}

    def _start(self, Z, n_components, rng):
        """The density whose components are clusters, behind an identity."""
        seed = int(rng.randint(2**31 - 1))
        clusters = KMeans(n_components, n_init=1, random_state=seed).fit(Z)
        share = np.bincount(clusters.labels_, minlength=n_components) / len(Z)
        spread = max(clusters.inertia_ / Z.size, 1e-4)
        density = self._density(n_components, Z.shape[1])
        draw_parameters(density.couplings, np.random.RandomState(seed), torch.float64)
        with torch.no_grad():
            for coupling in density.couplings:  # each starts as the identity
                for parameter in coupling.hyper[-1].parameters():
                    parameter.zero_()
            density.means.copy_(torch.from_numpy(clusters.cluster_centers_))
            density.log_weights.copy_(torch.from_numpy(np.log(np.maximum(share, 1e-6))))
            density.log_variance.fill_(float(np.log(spread)))
        return density

    def _check_fitted(self):
        """Raise ValueError unless parameters are those of such a flow."""
        if not (self.weights_ > 0).all() or not self.variance_ > 0 or not (self.scale_ > 0).all():
            raise ValueError("weights_, variance_ and scale_ must be positive.")
        if not np.isclose(self.weights_.sum(), 1):
            raise ValueError("weights_ must add up to 1.")
        density = self._density(len(self.weights_), self.n_features_in_)
        wanted = density.couplings.state_dict(prefix="couplings.")
        check_parameters(self.flow_parameters_, wanted)

    def _density(self, n_components, d):
        n_layers = self.n_layers if d > 1 else 0
        hidden = list(self.hidden_layer_sizes)
        with on_cpu():
            return _Density(n_components, d, self.flow, n_layers, hidden)

    def _cost(self, density, objective):
        """The objective as a function of samples and, if others are wanted, of its weights."""
        center, scale = torch.from_numpy(self.center_), torch.from_numpy(self.scale_)

        def log_density(x):
            return density((x - center) / scale)

        def score(x):
            return grad(lambda rows: log_density(rows).sum())(x)

        def cost(x, weights=objective):
            loss = 0.0
            if "likelihood" in weights:
                loss = loss - weights["likelihood"] * log_density(x).mean()
            if "score_matching" in weights:
                loss = loss + weights["score_matching"] * _score_matching(log_density, x)
            if "fokker_planck" in weights:
                residual = fokker_planck_residual(self.dynamics, score, x)
                size = residual.detach().abs().median().clamp_min(TINY)
                ratio = residual / size
                loss = loss + weights["fokker_planck"] * torch.log1p(ratio**2).mean()
            return loss

        return cost

    def _step(self, density, places, cost, warm_up, rng):
        """A function that takes one step of training, and what it changes."""
        optimizer = torch.optim.Adam(density.parameters(), self.learning_rate_init)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.max_iter)
        batches = Minibatches(len(places), self.batch_size, rng)

        def step(i):
            x = places[next(batches)]
            loss = cost(x, {"likelihood": 1.0}) if i < warm_up else cost(x)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(density.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            return loss.item()

        return step, (density, optimizer, schedule, batches)

    def _fitted(self):
        check_is_fitted(self)
        density = self._density(*self.means_.shape)
        state = {name: to_tensor(x, x.dtype) for name, x in self.flow_parameters_.items()}
        state["means"] = to_tensor(self.means_)
        state["log_weights"] = to_tensor(np.log(self.weights_))
        state["log_variance"] = to_tensor(np.log(self.variance_))
        density.load_state_dict(state, assign=True)
        return density.requires_grad_(False)

    def _of_rows(self, function, X):
        """A function of samples that are checked and standardised."""
        check_is_fitted(self)
        X = validate_data(self, X, squared=True, dtype=np.float64, reset=False)
        return in_pieces(lambda rows: function((rows - self.center_) / self.scale_), X)

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Log-density of every sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
        """
        density = self._fitted()
        found = check_answers(self._of_rows(lambda rows: in_blocks(density, rows), X), self)
        return found - np.log(self.scale_).sum()

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean log-density of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.
        y : None
            Ignored.

        Returns
        -------
        score : float
        """
        return float(self.score_samples(X).mean())

    def score_function(self, X: ArrayLike) -> np.ndarray:
        r"""Gradient of the log-density, :math:`\nabla \log p`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        score : ndarray of shape (n_samples, n_features)
        """
        slope = vmap(grad(self._fitted()))
        return self._of_rows(lambda rows: in_blocks(slope, rows) / self.scale_, X)

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> np.ndarray:
        """Draw samples.

        Parameters
        ----------
        n_samples : int, default=1
            How many.
        random_state : int, RandomState instance or None, default=None
            Source of the samples.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        """
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be an integer of at least 1, got {n_samples!r}.")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        drawn = self._fitted().sample(n_samples, torch.Generator().manual_seed(seed))
        return drawn.numpy() * self.scale_ + self.center_

    def energy(self, X: ArrayLike) -> np.ndarray:
        r"""Hopfield energy in the latent space, :math:`-\log \sum_k \pi_k e^{-|z - \mu_k|^2 / 2v}`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        energy : ndarray of shape (n_samples,)
            With an additive flow, minus the log-density but for a constant.
        """
        density = self._fitted()

        def energy(rows):
            return in_blocks(lambda x: density.energy(density.encode(x)[0]), rows)

        return self._of_rows(energy, X)

    def denoise(self, X: ArrayLike, *, n_steps: int = 1) -> np.ndarray:
        """Move samples towards where the density is high, by the concave-convex procedure.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.
        n_steps : int, default=1
            The first removes the noise of variance `variance_` in the latent space, as well as
            can be in the mean squared error; further ones lead on to a mode.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
        """
        if not isinstance(n_steps, Integral) or n_steps < 0:
            raise ValueError(f"n_steps must be an integer of at least 0, got {n_steps!r}.")
        density = self._fitted()

        def denoised(rows):
            z = in_blocks(lambda x: density.encode(x)[0], rows)
            x = in_blocks(density.decode, self._descend(z, n_steps))
            return x * self.scale_ + self.center_

        return self._of_rows(denoised, X)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Cluster of every sample: the mode that the concave-convex procedure leads to.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Rows of `modes_`.
        """
        density = self._fitted()

        def cluster(rows):
            z = in_blocks(lambda x: density.encode(x)[0], rows)
            labels = np.empty(len(z), int)
            for few in gen_batches(len(z), MOST_ROWS):
                places = self._descend(z[few], 10_000)
                labels[few] = _squared_distances(places, self.modes_).argmin(1)
            return labels

        return self._of_rows(cluster, X)

    def _descend(self, z, n_steps):
        return _descended(z, n_steps, self.weights_, self.means_, self.variance_)


def _descended(z, n_steps, weights, means, variance):
    """Latent places after steps of the procedure, or where each stands still before."""
    z = z.copy()
    for rows in gen_batches(len(z), MOST_ROWS):
        moving = np.arange(len(z))[rows]
        for _ in range(n_steps):
            old = z[moving]
            logits = np.log(weights) - _squared_distances(old, means) / (2 * variance)
            share = np.exp(logits - logits.max(1, keepdims=True))
            z[moving] = share @ means / share.sum(1, keepdims=True)
            moving = moving[np.abs(z[moving] - old).max(1) >= STILL]
            if not len(moving):
                break
    return z


class _Carried:
    """Places that dynamics carry along: in the end they are samples of the stationary state."""

    def __init__(self, places, dynamics, rng):
        fokker_planck_residual(dynamics, torch.neg, places[:1])  # says what functions are wrong
        self.places, self.dynamics = places.clone(), dynamics
        self.generator = torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))
        for i in range(BURN_IN // N_STEPS):
            self.spread = float(self.places.std(0, correction=0).mean()) or 1.0
            self._move(slice(None), approach=i < BURN_IN // N_STEPS // 2)
        if not torch.isfinite(self.places).all():
            raise FloatingPointError("the dynamics carry samples to infinity.")

    def __len__(self):
        return len(self.places)

    def __getitem__(self, rows):
        self._move(rows)
        return self.places[rows]

    def all(self):
        return self.places.numpy().copy()

    def state(self):
        return self.all(), self.generator.get_state().numpy(), self.spread

    def restore(self, state):
        places, generator, self.spread = state
        self.places.copy_(torch.from_numpy(places))
        self.generator.set_state(torch.from_numpy(generator))

    def unsettled(self):
        """Whether first and second moments of the places are still on their way."""

        def on_arrays(function):
            return lambda x: function(to_tensor(x)).detach().numpy()

        drift, diffusion = self.dynamics.drift, self.dynamics.diffusion
        if callable(diffusion):
            diffusion = on_arrays(diffusion)
        if len(self) == 1:
            return False
        z = generator_moments(Langevin(on_arrays(drift), diffusion), self.all()).statistic
        return z > max(CHANCE, UNSETTLED * len(self) ** 0.5)

    @torch.no_grad()
    def _move(self, rows, *, approach=False):
        """Euler-Maruyama steps, short for the drift where most of the places are.

        Or longer ones, from places that are far from the density.
        """
        x, longest = self.places[rows], JUMP * self.spread
        for i in range(N_STEPS):
            drift = self.dynamics.drift(x)
            speed = drift.norm(dim=1, keepdim=True)
            if i == 0 or callable(self.dynamics.diffusion):
                root, power = self._noise(x)
            if i == 0:
                step = (
                    APPROACH * self.spread / speed[:, 0]
                    if approach
                    else STEP * power / speed[:, 0] ** 2
                )
                step = torch.minimum(step.median(), longest**2 / power.median())
            way = step * drift * (longest / (step * speed)).clamp(max=1.0)
            noise = torch.randn(x.shape, generator=self.generator, dtype=x.dtype)
            x = x + way + step.sqrt() * (root @ noise[..., None])[..., 0]
        self.places[rows] = x

    def _noise(self, x):
        """A root of 2 D, and its trace."""
        diffusion = self.dynamics.diffusion
        diffusion = diffusion(x) if callable(diffusion) else to_tensor(diffusion)[None]
        values, vectors = torch.linalg.eigh(2 * diffusion)
        values = values.clamp_min(0.0)
        return vectors * values.sqrt()[:, None], values.sum(1)


class _Density(torch.nn.Module):
    """log p of standardised samples, and its parts."""

    def __init__(self, n_components, d, flow, n_layers, hidden):
        super().__init__()
        shapes = {"means": (n_components, d), "log_weights": (n_components,), "log_variance": ()}
        for name, shape in shapes.items():
            setattr(self, name, torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64)))
        self.couplings = torch.nn.ModuleList(
            [_coupling(d, i, flow, hidden) for i in range(n_layers)]
        )

    def arrays(self):
        """Fitted attributes: copies."""
        state = {name: value.numpy().copy() for name, value in self.state_dict().items()}
        log_weights = torch.from_numpy(state.pop("log_weights"))
        return {
            "weights_": log_weights.softmax(0).numpy(),
            "means_": state.pop("means"),
            "variance_": float(np.exp(state.pop("log_variance"))),
            "flow_parameters_": state,
        }

    def forward(self, x):
        z, log_volume = self.encode(x)
        size = x.shape[-1] * (self.log_variance + np.log(2 * np.pi)) / 2
        return log_volume - size - self.energy(z)

    def encode(self, x):
        """Latent places, and the logarithm of |det J|."""
        log_volume = torch.zeros_like(x[..., 0])
        for coupling in self.couplings:
            x, change = coupling().call_and_ladj(x)
            log_volume = log_volume + change
        return x, log_volume

    def decode(self, z):
        for coupling in reversed(self.couplings):
            z = coupling().inv(z)
        return z

    def energy(self, z):
        distance = ((z[..., None, :] - self.means) ** 2).sum(-1)
        logits = self.log_weights.log_softmax(0) - distance / (2 * self.log_variance.exp())
        return -logits.logsumexp(-1)

    @torch.no_grad()
    def sample(self, n, generator):
        shares = self.log_weights.softmax(0)
        chosen = torch.multinomial(shares, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.decode(self.means[chosen] + (self.log_variance / 2).exp() * noise)


def _coupling(d, number, flow, hidden):
    """One layer, without values of its own; odd and even ones move the other features."""
    try:
        from zuko.flows.coupling import GeneralCouplingTransform
        from zuko.transforms import AdditiveTransform, MonotonicAffineTransform
    except ImportError as error:
        raise ImportError(
            "GMMFlow needs zuko: pip install 'ssn_estimators[density]' (or n_layers=0)."
        ) from error
    univariate, shapes = {
        "additive": (AdditiveTransform, [()]),
        "affine": (MonotonicAffineTransform, [(), ()]),
    }[flow]
    # zuko draws values, which are not used, from a generator that all threads share
    with _DRAWING, torch.random.fork_rng(devices=[]):
        return GeneralCouplingTransform(
            d,
            mask=torch.arange(d) % 2 == number % 2,
            univariate=univariate,
            shapes=shapes,
            hidden_features=hidden,
            activation=torch.nn.SiLU,
        )


def _squared_distances(places, others):
    return ((places[:, None] - others) ** 2).sum(-1)


def _score_matching(log_density, x):
    """Mean of |s|^2 / 2 and the divergence of s."""
    score = grad(log_density)

    def single(x):
        s = score(x)
        return (s @ s) / 2 + jacfwd(score)(x).trace()

    return vmap(single)(x).mean()


def _distinct(places):
    """Places without those that are the same as an earlier one."""
    kept = []
    for place in places:
        if all(np.abs(place - other).max() > SAME_MODE for other in kept):
            kept.append(place)
    return np.array(kept)
