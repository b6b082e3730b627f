"""`EvolutionStrategy`: descent along gradients that are estimated from losses alone."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING

import joblib
import torch
from sklearn.utils import check_random_state

from ssn_estimators._torch import restore, state_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal, Self

    from ssn_estimators._typing import Function, RandomState

__all__ = ["ESTIMATORS", "EvolutionStrategy", "estimate_gradient"]

ESTIMATORS = ("antithetic", "baseline", "plain")
OPTIMIZERS = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}


def estimate_gradient(
    noise: torch.Tensor,
    losses: torch.Tensor,
    sigma: float,
    *,
    estimator: Literal["antithetic", "baseline", "plain"] = "antithetic",
    baseline: float = 0.0,
) -> tuple[torch.Tensor, int]:
    r"""Gradient of a loss, smoothed over normal perturbations of its parameters.

    .. math::
        g = \frac{1}{S \sigma^2} \sum_s (L(\theta + \epsilon_s) - b) \epsilon_s, \qquad
        \epsilon_s \sim N(0, \sigma^2 I),

    is unbiased for the gradient of :math:`E[L(\theta + \epsilon)]` whatever b, the
    `baseline`. In antithetic pairs, :math:`\pm \epsilon_s`, what is even in the perturbation
    cancels.

    Parameters
    ----------
    noise : Tensor of shape (n, n_parameters)
        Perturbations, or the first ones of the pairs.
    losses : Tensor of shape (n,), or (2, n) if antithetic
        With the perturbations, and with their opposites.
    sigma : float
        Their standard deviation.
    estimator : {"antithetic", "baseline", "plain"}, default="antithetic"
        What `losses` are.
    baseline : float, default=0.0
        Subtracted from each loss, unless antithetic.

    Returns
    -------
    gradient : Tensor of shape (n_parameters,)
    n_dropped : int
        Losses that did not count since they, or the ones of the opposite, are not finite.

    Raises
    ------
    FloatingPointError
        If none is finite, or the gradient is not.
    ValueError
        If there is no such estimator.
    """
    _check_estimator(estimator)
    if estimator == "antithetic":
        values, weight = (losses[0] - losses[1]) / 2, 2
    else:
        values, weight = losses - baseline, 1
    finite = torch.isfinite(values)
    n_finite = int(finite.sum())
    if not n_finite:
        raise FloatingPointError(
            f"none of {losses.numel()} losses is finite: nothing is known about the gradient. "
            "Lower sigma or the learning rate, or start from other parameters."
        )
    gradient = values[finite].to(noise) @ noise[finite] / (n_finite * sigma**2)
    if not torch.isfinite(gradient).all():
        raise FloatingPointError(
            f"the gradient is not finite: losses of up to {float(values[finite].abs().max()):.3g} "
            f"under sigma={sigma:g} are too much for {noise.dtype}. Scale the loss, or raise sigma."
        )
    return gradient, weight * (len(values) - n_finite)


class EvolutionStrategy:
    r"""Descent along gradients that are estimated from losses alone.

    For losses without a useful derivative: spike counts and other discrete ones, stiff or
    chaotic dynamics whose exact gradient explodes [1]_. The gradient is that of the loss
    smoothed over normal perturbations of the parameters, see :func:`estimate_gradient`; its
    error falls as :math:`\sqrt{n / S}` for n parameters and S losses.

    Parameters
    ----------
    parameters : dict of str to Tensor, Module or iterable of Tensors
        Leaf tensors that are changed in place. Those of a module by their names, those of an
        iterable as "0", "1" and so on.
    n_samples : int, default=100
        Losses per step; an even number if antithetic.
    sigma : float, default=0.1
        Standard deviation of the perturbations.
    estimator : {"antithetic", "baseline", "plain"}, default="antithetic"
        Perturbations in opposite pairs; independent, with the unperturbed loss as a baseline;
        or independent without, of which the error has no bound as the loss has any offset.
    block : {None, "tensor"} or int, default=None
        What a step perturbs: everything; one tensor after the other; or as many coordinates,
        chosen at random (block-coordinate descent; optimisers with momentum move the others too,
        by what they learned of them before).
    optimizer : {"adam", "rmsprop", "sgd"} or callable, default="adam"
        From torch; a callable is called with the list of parameters.
    learning_rate_init : float, default=0.005
        Rate of the named optimisers.
    max_grad_norm : float, default=None
        Longer estimates are scaled down to it.
    evaluation : {"loop", "vmap", "batch"}, default="loop"
        How a step calls its loss: with one dict of parameters after the other, on `n_jobs`
        workers of joblib; all at once through :func:`torch.func.vmap`; or once with tensors
        that have a leading axis of samples, for a tensor of losses.
    n_jobs : int, default=None
        Workers of "loop", as in :class:`joblib.Parallel`; any backend of joblib's will do. With
        threads, a loss must leave shared things as they are: :func:`torch.func.functional_call`
        does not, it puts the parameters into the module for the time of the call.
    random_state : int, RandomState instance or None, default=None
        Source of the perturbations.

    Attributes
    ----------
    n_dropped_ : int
        Losses that were not finite, and have been left out, so far.
    n_evaluations_ : int
        Losses so far.
    loss_curve_ : list of float
        Mean of the (finite) losses of every step.

    References
    ----------
    .. [1] Hazelden, Liu, Shlizerman & Shea-Brown (2023). Evolutionary algorithms as an
       alternative to backpropagation for supervised training of biophysical neural networks
       and neural ODEs. arXiv:2311.10869.

    Examples
    --------
    >>> import torch
    >>> from ssn_estimators import EvolutionStrategy
    >>> x = torch.ones(3)
    >>> search = EvolutionStrategy([x], optimizer="sgd", random_state=0)
    >>> for _ in range(500):
    ...     loss = search.step(lambda p: (p["0"] ** 2).round(decimals=1).sum())
    >>> bool(x.abs().max() < 0.5)
    True
    """

    def __init__(
        self,
        parameters: dict[str, torch.Tensor] | torch.nn.Module | Iterable[torch.Tensor],
        *,
        n_samples: int = 100,
        sigma: float = 0.1,
        estimator: Literal["antithetic", "baseline", "plain"] = "antithetic",
        block: Literal["tensor"] | int | None = None,
        optimizer: Literal["adam", "rmsprop", "sgd"] | Function = "adam",
        learning_rate_init: float = 0.005,
        max_grad_norm: float | None = None,
        evaluation: Literal["loop", "vmap", "batch"] = "loop",
        n_jobs: int | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.parameters = _named(parameters)
        _check_options(estimator, n_samples, sigma, evaluation, block, max_grad_norm)
        if callable(optimizer):
            self.optimizer = optimizer(list(self.parameters.values()))
        elif optimizer in OPTIMIZERS:
            make = OPTIMIZERS[optimizer]
            self.optimizer = make(self.parameters.values(), lr=learning_rate_init)
        else:
            raise ValueError(
                f"optimizer must be callable or one of {sorted(OPTIMIZERS)}, got {optimizer!r}."
            )
        self.n_samples, self.sigma, self.estimator = int(n_samples), float(sigma), estimator
        self.block, self.max_grad_norm = block, max_grad_norm
        self.evaluation, self.n_jobs = evaluation, n_jobs
        seed = check_random_state(random_state).randint(2**31 - 1)
        self._generator = torch.Generator().manual_seed(int(seed))
        self._n_steps = 0
        self.n_dropped_ = self.n_evaluations_ = 0
        self.loss_curve_: list[float] = []

    def state(self) -> dict:
        """All that a search over the same parameters needs to go on as this one.

        Returns
        -------
        state : dict
            Arrays, numbers and strings, for :meth:`restore`.
        """
        return {
            "parameters": state_of(list(self.parameters.values())),
            "optimizer": state_of(self.optimizer),
            "generator": state_of(self._generator),
            "counts": (self._n_steps, self.n_dropped_, self.n_evaluations_),
            "loss_curve": list(self.loss_curve_),
        }

    def restore(self, state: dict) -> None:
        """Go on from a state.

        Parameters
        ----------
        state : dict
            As :meth:`state` gives it, of a search with the same arguments.
        """
        restore(list(self.parameters.values()), state["parameters"])
        restore(self.optimizer, state["optimizer"])
        restore(self._generator, state["generator"])
        self._n_steps, self.n_dropped_, self.n_evaluations_ = state["counts"]
        self.loss_curve_ = list(state["loss_curve"])

    def step(self, loss: Function) -> float:
        """Estimate the gradient and let the optimiser take one step.

        Parameters
        ----------
        loss : callable
            From a dict of parameters to a number, see `evaluation`.

        Returns
        -------
        loss : float
            Mean of the finite losses.

        Raises
        ------
        FloatingPointError
            If no loss is finite.
        """
        value = self.estimate(loss)
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.max_grad_norm)
        self.optimizer.step()
        self._n_steps += 1
        self.loss_curve_.append(value)
        return value

    def minimize(self, loss: Function, n_iter: int, *, callback: Function | None = None) -> Self:
        """Take steps.

        Parameters
        ----------
        loss : callable
            See `step`.
        n_iter : int
            Steps.
        callback : callable, default=None
            ``callback(self)`` after each; True ends the search.

        Returns
        -------
        self : EvolutionStrategy
        """
        for _ in range(n_iter):
            self.step(loss)
            if callback is not None and callback(self):
                break
        return self

    @torch.no_grad()
    def estimate(self, loss: Function) -> float:
        """Estimate the gradient, and write it to the `grad` of the parameters.

        Parameters
        ----------
        loss : callable
            See `step`.

        Returns
        -------
        loss : float
            Mean of the finite losses.
        """
        antithetic = self.estimator == "antithetic"
        centre = torch.cat([value.reshape(-1) for value in self.parameters.values()])
        noise = self._noise(self.n_samples // (1 + antithetic), centre)
        perturbed = centre + torch.cat([noise, -noise] if antithetic else [noise])
        if self.estimator == "baseline":
            perturbed = torch.cat([perturbed, centre[None]])
        losses = self._losses(loss, perturbed)
        self.n_evaluations_ += len(losses)
        baseline = 0.0
        if self.estimator == "baseline":
            losses, baseline = losses[:-1], losses[-1]
            if not torch.isfinite(baseline):
                raise FloatingPointError("the loss of the unperturbed parameters is not finite.")
        pairs = losses.view(2, -1) if antithetic else losses
        gradient, n_dropped = estimate_gradient(
            noise, pairs, self.sigma, estimator=self.estimator, baseline=baseline
        )
        self.n_dropped_ += n_dropped
        for name, value in self._split(gradient[None]).items():
            value = value[0].clone()
            unseen = self.block == "tensor" and name != self._turn()
            self.parameters[name].grad = None if unseen else value
        return float(losses[torch.isfinite(losses)].mean())

    def _noise(self, n, centre):
        kind = {"generator": self._generator, "dtype": torch.float32, "device": "cpu"}
        noise = torch.randn(n, len(centre), **kind).to(centre) * self.sigma
        if self.block == "tensor":
            names = torch.cat(
                [
                    torch.full((v.numel(),), name == self._turn())
                    for name, v in self.parameters.items()
                ]
            )
            noise[:, ~names] = 0.0
        elif self.block is not None:
            order = torch.randperm(len(centre), generator=self._generator)
            noise[:, order[self.block :].to(noise.device)] = 0.0
        return noise

    def _turn(self):
        names = list(self.parameters)
        return names[self._n_steps % len(names)]

    def _losses(self, loss, perturbed):
        if self.evaluation != "loop":
            call = torch.func.vmap(loss, randomness="same") if self.evaluation == "vmap" else loss
            losses = torch.as_tensor(call(self._split(perturbed)))
            if losses.shape != (len(perturbed),):
                raise ValueError(
                    f"the loss must give one number for each of the {len(perturbed)} samples, got "
                    f"shape {tuple(losses.shape)}."
                )
            return losses.detach().double()
        samples = (self._split(row[None], single=True) for row in perturbed)
        parallel = joblib.Parallel(n_jobs=self.n_jobs)
        return torch.tensor(
            parallel(joblib.delayed(_number)(loss, sample) for sample in samples),
            dtype=torch.float64,
        )

    def _split(self, rows, single=False):
        """Rows of all parameters, by name and in their shapes."""
        parts = rows.split([value.numel() for value in self.parameters.values()], dim=1)
        split = {
            name: part.reshape(len(rows), *value.shape)
            for part, (name, value) in zip(parts, self.parameters.items(), strict=True)
        }
        # copies: what is sent to a worker must not take the whole population with it
        return {name: value[0].clone() for name, value in split.items()} if single else split


def _check_options(estimator, n_samples, sigma, evaluation, block, max_grad_norm):
    _check_estimator(estimator)
    even = estimator == "antithetic"
    if not isinstance(n_samples, Integral) or n_samples < 1 + even or (even and n_samples % 2):
        kind = "even integer, as samples come in pairs" if even else "integer"
        raise ValueError(f"n_samples must be a positive {kind}, got {n_samples!r}.")
    if not isinstance(sigma, Real) or not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma!r}.")
    if evaluation not in ("loop", "vmap", "batch"):
        raise ValueError(f"evaluation must be 'loop', 'vmap' or 'batch', got {evaluation!r}.")
    if not (block is None or block == "tensor" or (isinstance(block, Integral) and block > 0)):
        raise ValueError(f"block must be None, 'tensor' or a positive integer, got {block!r}.")
    if max_grad_norm is not None and not (isinstance(max_grad_norm, Real) and max_grad_norm > 0):
        raise ValueError(f"max_grad_norm must be None or positive, got {max_grad_norm!r}.")


def _check_estimator(estimator):
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {ESTIMATORS}, got {estimator!r}.")


def _number(loss, parameters):
    with torch.no_grad():
        return float(loss(parameters))


def _named(parameters):
    if isinstance(parameters, torch.nn.Module):
        parameters = {k: v for k, v in parameters.named_parameters() if v.requires_grad}
    elif not isinstance(parameters, Mapping):
        parameters = {str(i): value for i, value in enumerate(parameters)}
    parameters = dict(parameters)
    if not parameters:
        raise ValueError("there are no parameters to search over.")
    for name, value in parameters.items():
        if not torch.is_tensor(value) or not value.is_floating_point() or not value.is_leaf:
            raise ValueError(f"parameter {name!r} must be a leaf tensor of floating point.")
    kinds = {(value.dtype, value.device) for value in parameters.values()}
    if len(kinds) > 1:
        raise ValueError(f"parameters must have one dtype and device, got {kinds}.")
    return parameters
