"""Encoders that bring data into the form and the number of inputs that a circuit takes."""

from __future__ import annotations

import math
from itertools import pairwise
from numbers import Real

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    BaseEstimator,
    CallbackSupportMixin,
    FitProgress,
    Interval,
    fit_context,
    validate_data,
    with_callbacks,
)
from ssn_estimators._torch import (
    check_trained,
    in_blocks,
    in_pieces,
    minibatches,
    resolve_device,
    until_interrupted,
)

__all__ = ["AutoencoderEncoder"]

EVALUATION_INTERVAL = 100  # steps between two looks at the validation loss


class AutoencoderEncoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator
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
        Whether to hold out `validation_fraction` of the samples, stop when their cost has
        not fallen by `tol` for `n_iter_no_change` looks (one every 100 steps), and keep the
        weights that were best on them.
    validation_fraction : float, default=0.1
        Share of the samples held out for early stopping.
    n_iter_no_change : int, default=5
        Looks without progress before training stops.
    tol : float, default=1e-4
        Least fall of the validation cost that counts as progress.
    device : str, default="auto"
        Torch device; "auto" takes a GPU where there is one.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, batches and the validation split.
    verbose : bool, default=False
        Whether to print the cost every 100 steps.

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
    validation_losses_ : list of float or None
        Cost on the held-out samples at every look.
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

    _parameter_constraints: dict = {
        "n_components": COUNT,
        "hidden_layer_sizes": ["array-like"],
        "max_iter": COUNT,
        "batch_size": COUNT,
        "learning_rate_init": POSITIVE,
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": COUNT,
        "tol": NOT_NEGATIVE,
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    _fitted_shapes = {"scaler_": MinMaxScaler, "coefs_": list, "intercepts_": list}

    def __init__(
        self,
        n_components=50,
        *,
        hidden_layer_sizes=(360, 120),
        max_iter=2000,
        batch_size=256,
        learning_rate_init=0.002,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        tol=1e-4,
        device="auto",
        random_state=None,
        verbose=False,
    ):
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
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
        hidden = list(self.hidden_layer_sizes)
        if not all(isinstance(size, (int, np.integer)) and size > 0 for size in hidden):
            raise ValueError(
                f"hidden_layer_sizes must hold positive integers, got {self.hidden_layer_sizes!r}."
            )
        X = validate_data(self, X)
        rng = check_random_state(self.random_state)
        self.scaler_ = MinMaxScaler(clip=True).set_output(transform="default").fit(X)
        inputs = torch.from_numpy(self.scaler_.transform(X).astype(np.float32)).to(device)
        held_out = None
        if self.early_stopping:
            order = rng.permutation(len(inputs))
            n_held = math.ceil(self.validation_fraction * len(inputs))
            if n_held == len(inputs):
                raise ValueError(
                    f"early_stopping leaves no samples to train on: {len(inputs)} samples, "
                    f"validation_fraction={self.validation_fraction}."
                )
            held_out, inputs = inputs[order[:n_held]], inputs[order[n_held:]]

        sizes = [X.shape[1], *hidden, self.n_components]
        sizes += sizes[-2::-1]
        parameters = _initial_layers(sizes, rng, device)
        progress = FitProgress(self, 1, X, y, self._fitted)
        progress.begin_stage("autoencoder", self.max_iter)

        self.loss_curve_ = []
        self.validation_losses_ = [] if self.early_stopping else None
        best = None
        optimizer = torch.optim.Adam([p for layer in parameters for p in layer])
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate_init, total_steps=int(self.max_iter) + 1
        )
        batches = minibatches(len(inputs), self.batch_size, rng)
        with until_interrupted():
            for step in range(1, self.max_iter + 1):
                batch = inputs[next(batches).to(device)]
                optimizer.zero_grad()
                loss = _cost(parameters, batch)
                loss.backward()
                optimizer.step()
                schedule.step()
                self.loss_curve_.append(loss.item())
                stop = progress.step(lambda: parameters)
                if step % EVALUATION_INTERVAL == 0 or step == self.max_iter:
                    if self.verbose:
                        print(f"[{type(self).__name__}] step {step}: cost {loss.item():.4f}")
                    if self.early_stopping:
                        best = self._look(parameters, held_out, best)
                        looks = self.validation_losses_
                        recent = looks[-self.n_iter_no_change :]
                        before = looks[: -self.n_iter_no_change]
                        stop |= bool(before) and min(recent) > min(before) - self.tol
                if stop:
                    break
        check_trained([p for layer in parameters for p in layer], self.learning_rate_init)
        for name, value in (best or self._fitted(parameters)).items():
            setattr(self, name, value)
        self.n_iter_ = len(self.loss_curve_)
        progress.end_stage(lambda: parameters)
        progress.end(parameters)
        return self

    def _look(self, parameters, held_out, best):
        """Note the validation cost; the fitted attributes that are best so far."""
        with torch.no_grad():
            cost = _cost(parameters, held_out).item()
        improved = cost < min(self.validation_losses_, default=math.inf)
        self.validation_losses_.append(cost)
        return self._fitted(parameters) if improved or best is None else best

    def _fitted(self, parameters):
        arrays = [[p.detach().cpu().numpy().copy() for p in layer] for layer in parameters]
        return {
            "coefs_": [weights for weights, _ in arrays],
            "intercepts_": [bias for _, bias in arrays],
            "scaler_": self.scaler_,
            "n_features_in_": self.n_features_in_,
        }

    def _check_fitted(self):
        """Raise ValueError unless the layers of encoder and decoder follow each other."""
        sizes = [self.n_features_in_, *self.hidden_layer_sizes, self.n_components]
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

    def transform(self, X):
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
        layers = slice(None, len(self.coefs_) // 2)

        def code(rows):
            return self._half(self.scaler_.transform(rows).astype(np.float32), layers)

        return in_pieces(code, X).astype(X.dtype, copy=False)

    def inverse_transform(self, X):
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
        codes = np.asarray(X, dtype=np.float32)
        if codes.ndim != 2 or codes.shape[1] != self.n_components:
            raise ValueError(
                f"codes must have shape (n_samples, {self.n_components}), got {codes.shape}."
            )
        layers = slice(len(self.coefs_) // 2, None)

        def reconstruction(rows):
            scaled = self._half(rows, layers).astype(np.float64)
            data = self.scaler_.inverse_transform(scaled)
            return np.where(self.scaler_.data_range_ > 0, data, self.scaler_.data_min_)

        return in_pieces(reconstruction, codes)

    def _half(self, inputs, layers):
        # Some libraries round rows of one product differently; in double precision that is too
        # little to be seen in the float32 result.
        kind = {"device": resolve_device(self.device), "dtype": torch.float64}
        layers = [
            [torch.tensor(array, **kind) for array in layer]
            for layer in zip(self.coefs_[layers], self.intercepts_[layers], strict=True)
        ]
        return in_blocks(
            lambda block: torch.sigmoid(_forward(layers, block.to(**kind))).float().cpu(), inputs
        )

    @property
    def _n_features_out(self):
        return self.coefs_[len(self.coefs_) // 2 - 1].shape[1]


def _initial_layers(sizes, rng, device):
    """He-normal weights and zero biases, drawn from the estimator's own random state."""
    layers = []
    for n_in, n_out in pairwise(sizes):
        weights = rng.normal(scale=np.sqrt(2 / n_in), size=(n_in, n_out)).astype(np.float32)
        bias = np.zeros(n_out, np.float32)
        layer = [torch.tensor(array, device=device) for array in (weights, bias)]
        layers.append([p.requires_grad_() for p in layer])
    return layers


def _forward(layers, x):
    """The layers with rectification between them, and nothing after the last."""
    for i, (weights, bias) in enumerate(layers):
        x = torch.addmm(bias, torch.relu(x) if i else x, weights)
    return x


def _cost(layers, inputs):
    half = len(layers) // 2
    code = torch.sigmoid(_forward(layers[:half], inputs))
    return torch.nn.functional.binary_cross_entropy_with_logits(
        _forward(layers[half:], code), inputs
    )
