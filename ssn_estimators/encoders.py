"""Encoders that bring data into the form and the number of inputs that a circuit takes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._scaling import unit_range
from ssn_estimators._sklearn import (
    COUNT,
    BaseEstimator,
    fit_context,
    validate_data,
    with_callbacks,
)
from ssn_estimators._stepwise import StepwiseMixin
from ssn_estimators._torch import (
    Minibatches,
    check_trained,
    in_blocks,
    in_pieces,
    resolve_device,
    to_numbers,
    to_tensor,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from ssn_estimators._typing import ArrayLike, RandomState

__all__ = ["AutoencoderEncoder"]


class AutoencoderEncoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, StepwiseMixin, BaseEstimator
):
    r"""Autoencoder whose sigmoid code serves as input to a circuit.

    Encoder and decoder have three layers each (with the default `hidden_layer_sizes`),
    rectified except for the code and the reconstruction, which are sigmoid. Inputs are
    scaled to [0, 1] feature by feature; the cost is the cross-entropy between them and their
    reconstruction. The paper [1]_ brings MNIST from 784 pixels to 50 or 80 numbers this way,
    by 360 and 120 units.

    Parameters
    ----------
    n_components : int, default=50
        Size of the code.
    hidden_layer_sizes : sequence of int, default=(360, 120)
        Units of the hidden layers of the encoder; the decoder has the same in reverse.
    max_iter : int, default=2000
        Number of optimiser steps, each on one mini-batch.
    batch_size : int, default=256
        Samples of a mini-batch; all samples if there are fewer.
    learning_rate_init : float, default=0.002
        Peak rate of Adam, under a one-cycle schedule.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of the samples, stop when their
        cost no longer falls, and keep what was best on them.
    validation_fraction : float, default=0.1
        Share of the samples held out.
    n_iter_no_change : int, default=5
        Looks at them (one every 100 steps) without progress before training stops.
    tol : float, default=1e-4
        Least growth of minus the cost that counts as progress.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted layers and scaling.
    device : str, default="auto"
        Torch device; "auto" takes a GPU where there is one.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, batches and the validation split.
    verbose : bool or int, default=False
        Whether to print a line every 100 steps; an int above 1 is another number of steps. See
        :ref:`verbose`.

    Attributes
    ----------
    coefs_ : list of ndarray
        Weights of the layers of encoder and decoder, each of shape (n_in, n_out).
    intercepts_ : list of ndarray
        Their biases.
    scaler_ : MinMaxScaler
        The map of the inputs to [0, 1].
    loss_curve_ : list of float
        Cost at every step, in nats per feature.
    validation_scores_ : list of float or None
        Minus the cost on the held-out samples at every look.
    best_validation_score_ : float or None
        The largest of them.
    n_iter_ : int
        Number of steps done.
    n_features_in_ : int
        Number of features seen during fit.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Their names, if `X` had names that are all strings.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35. Section 3.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssn_estimators import AutoencoderEncoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> encoder = AutoencoderEncoder(n_components=10, max_iter=50, random_state=0)
    >>> encoder.fit_transform(X).shape
    (1797, 10)
    """

    _parameter_constraints: dict = StepwiseMixin._stepwise_constraints | {
        "n_components": COUNT,
        "hidden_layer_sizes": ["array-like"],
        "device": [str],
    }

    _look_every = 100

    _fitted_shapes = {"scaler_": MinMaxScaler, "coefs_": list, "intercepts_": list}

    def __init__(
        self,
        n_components: int = 50,
        *,
        hidden_layer_sizes: Sequence[int] = (360, 120),
        max_iter: int = 2000,
        batch_size: int = 256,
        learning_rate_init: float = 0.002,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        tol: float = 1e-4,
        warm_start: bool = False,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = False,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Train encoder and decoder.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data.
        y : None
            Ignored.

        Returns
        -------
        self : AutoencoderEncoder
        """
        device = resolve_device(self.device)
        going_on = self._goes_on("coefs_")
        sizes = self._sizes()
        X = validate_data(self, X, reset=not going_on)
        rng, record = self._begin(X)
        if going_on:
            self._check_fitted()
        else:
            self.scaler_ = unit_range(X)
        inputs = torch.from_numpy(self.scaler_.transform(X).astype(np.float32)).to(device)
        score = None
        if self.early_stopping:
            inputs, held_out = self._split(rng, inputs)

            def score():
                with torch.no_grad():
                    return -network.cost(held_out).item()

        network = _Autoencoder([X.shape[1], *sizes])
        if going_on:
            network.restore(self.coefs_, self.intercepts_, torch.float32)
        else:
            network.start(rng)
        network.to(device)
        optimizer = torch.optim.Adam(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate_init, total_steps=int(self.max_iter) + 1
        )
        batches = Minibatches(len(inputs), self.batch_size, rng)

        def step(_):
            optimizer.zero_grad()
            loss = network.cost(inputs[next(batches).to(device)])
            loss.backward()
            optimizer.step()
            schedule.step()
            return loss.item()

        fitted = self._take_steps(
            step,
            network.arrays,
            (X, y),
            score=score,
            going_on=going_on,
            record=record,
            parts=(rng, network, optimizer, schedule, batches),
            largest_product=min(self.batch_size, len(inputs)) * network.largest_layer(),
        )
        check_trained(network.parameters(), self.learning_rate_init)
        for name, value in fitted.items():
            setattr(self, name, value)
        return self

    def _sizes(self):
        """Of the layers of the encoder after its input."""
        hidden = list(self.hidden_layer_sizes)
        if not all(isinstance(size, (int, np.integer)) and size > 0 for size in hidden):
            raise ValueError(
                f"hidden_layer_sizes must hold positive integers, got {self.hidden_layer_sizes!r}."
            )
        return [*hidden, self.n_components]

    def _completed(self, attributes):
        others = ("scaler_", "n_features_in_")
        return attributes | {name: getattr(self, name) for name in others}

    def _check_fitted(self):
        """Raise ValueError unless the layers of encoder and decoder follow each other."""
        sizes = [self.n_features_in_, *self._sizes()]
        sizes += sizes[-2::-1]
        found = [np.shape(weights) for weights in self.coefs_]
        if found != list(pairwise(sizes)) or [(b,) for _, b in found] != [
            np.shape(bias) for bias in self.intercepts_
        ]:
            raise ValueError(f"layers must be of the sizes {sizes}, got {found}.")
        if not all(np.isfinite(x).all() for x in (*self.coefs_, *self.intercepts_)):
            raise ValueError("weights must be finite.")
        if self.scaler_.n_features_in_ != self.n_features_in_:
            raise ValueError("the scaler is of other features.")

    def _network(self):
        """The fitted one, in double precision.

        Some libraries round rows of one product differently; there it is too little to be seen in
        the float32 result.
        """
        n_layers = len(self.coefs_) // 2
        sizes = [len(weights) for weights in self.coefs_[: n_layers + 1]]
        network = _Autoencoder(sizes)
        network.restore(self.coefs_, self.intercepts_, torch.float64)
        return network.to(resolve_device(self.device)).requires_grad_(False)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Codes of the inputs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        codes : ndarray of shape (n_samples, n_components)
            Numbers in (0, 1). A row's code does not depend on the other rows.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        encoder = self._network().encoder

        def code(rows):
            return _applied(encoder, self.scaler_.transform(rows).astype(np.float32))

        return in_pieces(code, X).astype(X.dtype, copy=False)

    def inverse_transform(self, X: ArrayLike) -> np.ndarray:
        """Reconstructions from codes, in the units of the data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        dtype = getattr(X, "dtype", None)
        codes, n = to_numbers(X, name="codes").astype(np.float32), self._n_features_out
        if codes.ndim != 2 or codes.shape[1] != n or not len(codes):
            raise ValueError(f"codes must have shape (n_samples, {n}), got {codes.shape}.")
        if not np.isfinite(codes).all():
            raise ValueError("codes must be finite, got NaN or infinity.")
        network = self._network()
        decoder = torch.nn.Sequential(network.decoder, torch.nn.Sigmoid())

        def reconstruction(rows):
            scaled = _applied(decoder, rows).astype(np.float64)
            data = self.scaler_.inverse_transform(scaled)
            return np.where(self.scaler_.data_range_ > 0, data, self.scaler_.data_min_)

        found = in_pieces(reconstruction, codes)
        return found.astype(np.float32) if dtype == np.float32 else found

    @property
    def _n_features_out(self):
        return self.coefs_[len(self.coefs_) // 2 - 1].shape[1]


def _applied(layers, inputs):
    """Of inputs in single precision, and so the result."""
    like = next(layers.parameters())
    return in_blocks(lambda block: layers(block.to(like)).float().cpu(), inputs)


class _Autoencoder(torch.nn.Module):
    """Rectified layers, but for the code, which is sigmoid, and the logits of reconstructions."""

    def __init__(self, sizes):
        super().__init__()
        with torch.device("meta"):
            self.encoder = _layers(sizes, torch.nn.Sigmoid())
            self.decoder = _layers(sizes[::-1])
        self.linear = [layer for layer in self.modules() if isinstance(layer, torch.nn.Linear)]

    def cost(self, inputs):
        logits = self.decoder(self.encoder(inputs))
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, inputs)

    def start(self, rng):
        """He-normal weights and zero biases."""
        sizes = [(layer.in_features, layer.out_features) for layer in self.linear]
        weights = [rng.normal(scale=np.sqrt(2 / n), size=(n, m)) for n, m in sizes]
        self.restore(weights, [np.zeros(m) for _, m in sizes], torch.float32)

    def restore(self, weights, biases, dtype):
        """Layers from arrays, weights from rows to columns."""
        for layer, weight, bias in zip(self.linear, weights, biases, strict=True):
            layer.weight = torch.nn.Parameter(to_tensor(weight).to(dtype).T.contiguous())
            layer.bias = torch.nn.Parameter(to_tensor(bias).to(dtype))

    def largest_layer(self):
        return max(layer.weight.numel() for layer in self.linear)

    def arrays(self):
        """Copies of weights, from rows to columns as scikit-learn has them, and of biases."""
        weights = [layer.weight.detach().cpu().numpy().T.copy() for layer in self.linear]
        biases = [layer.bias.detach().cpu().numpy().copy() for layer in self.linear]
        return {"coefs_": weights, "intercepts_": biases}


def _layers(sizes, last=None):
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1], *([] if last is None else [last]))
