"""`CNNClassifier`: a small convolutional network, with lateral layers or without."""

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch.nn import functional

from ssn_estimators._classifiers import (
    LogitsMixin,
    check_answers,
    check_same_classes,
    classes_of,
    refuse_one_class,
)
from ssn_estimators._scaling import is_rounding
from ssn_estimators._sklearn import (
    COUNT,
    NOT_NEGATIVE,
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
    labels_and_weights,
    loss_of_labels,
    resolve_device,
    to_tensor,
)
from ssn_estimators._weights import (
    CLASS_WEIGHT,
    alike,
    counting,
    joined,
    weights_of_labels,
)
from ssn_estimators.images.shape import image_shape_of
from ssn_estimators.lateral.rule import CoActivation, Reading, gated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, Self

    from ssn_estimators._typing import ArrayLike, ClassWeight, RandomState

__all__ = ["CNNClassifier"]

N_UPDATES = 5  # times that lateral weights are learned in the second half, and once at the end
MOST_SEEN = 4000  # images in each


class CNNClassifier(LogitsMixin, ClassifierMixin, StepwiseMixin, BaseEstimator):
    r"""Convolutional network whose feature maps may be gated by their surround.

    Layers of rectified convolutions, each followed by its lateral gate and by maximum pooling;
    then a rectified layer and a softmax. Filters are learned by backpropagation, lateral weights
    from what is active together, without labels [1]_, see :class:`LateralContext`: at the end, from
    4,000 of the samples if there are more. They help layers that have learned from clean images
    with noisy ones; layers that learn under gates gain less from them.

    Where all different samples make one batch, equal ones are one, of the sum of their weights: an
    integer weight is as good as so many copies. Lateral weights do not heed them.

    Parameters
    ----------
    filters : tuple of int, default=(16, 32)
        Filters of every convolution.
    kernel_size : int, default=3
        Their width; odd.
    pool_size : int, default=2
        Width and stride of pooling.
    n_hidden : int, default=64
        Cells of the rectified layer.
    lateral : {None, "linear", "product"}, default=None
        Form of the gates, if any.
    lateral_layers : int or None, default=1
        Number of layers that are gated, from the first one on; None is all.
    lateral_extent : int, default=1
        Neighbours to each side.
    lateral_spacing : int or None, default=1
        Distance between neighbours, in places; None is `kernel_size`, so that their filters share
        no input.
    lateral_alpha : float, default=0.1
        Strength of the gates.
    lateral_background : float, default=10.0
        How much speaks at every place for nothing being there, in mean activities of a place. See
        :class:`LateralContext`.
    lateral_training : bool, default=False
        Whether the second half of the steps is taken under the gates, of which the weights are then
        learned again as the filters go on changing.
    dropout : float, default=0.0
        Probability of a cell of the pooled maps and of the rectified layer to be left out in a
        step.
    weight_decay : float, default=0.0
        Decay of the filters and weights (decoupled, as in AdamW).
    image_shape : tuple of int, default=None
        Rows and columns of the images, and channels if more than one (last in X). None means
        images of one channel, as close to a square as can be.
    max_iter : int, default=2000
        Steps of the optimiser.
    batch_size : int, default=128
        Images in each.
    learning_rate_init : float, default=0.002
        Learning rate at first; it falls to 0 along a cosine.
    class_weight : dict, "balanced" or None, default=None
        What the classes count, by label; those that are not named count 1. "balanced" ones count
        as much as each other, however many samples they have.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of the samples, stop when accuracy on
        them no longer grows, and keep what was best on them.
    validation_fraction : float, default=0.1
        Share of the samples held out, stratified by class.
    n_iter_no_change : int, default=10
        Looks at them (one every 50 steps) without progress before training stops.
    tol : float, default=1e-4
        Least growth of accuracy that counts as progress.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted network.
    device : str, default="auto"
        Torch device of training; "auto" takes a GPU where there is one.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, batches, dropout and the validation split.
    verbose : bool or int, default=False
        Whether to print a line every 50 steps; an int above 1 is another number of steps. See
        :ref:`verbose`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    parameters_ : dict of str to ndarray
        Filters, weights and biases.
    lateral_weights_ : list of ndarray of shape (side, side, n_filters, n_filters)
        Weights of every gated layer, as in :class:`LateralContext`, with one feature more for
        nothing being there; empty without gates.
    lateral_backgrounds_ : list of float
        Activity of every gated layer that speaks for nothing being there; empty without gates.
    input_mean_, input_scale_ : float
        Mean and standard deviation of all pixels seen during fit, by weight.
    loss_curve_ : list of float
        Cross-entropy of every step.
    validation_scores_ : list of float or None
        Weighted accuracy on the held-out samples at every look.
    best_validation_score_ : float or None
        The largest of them.
    n_iter_ : int
        Number of steps.
    n_features_in_ : int
        Number of features seen during fit.

    References
    ----------
    .. [1] Hu & Mihalas (2018). Convolutional neural networks with extra-classical receptive
       fields. arXiv:1810.11594.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from ssn_estimators import CNNClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> CNNClassifier((4,), max_iter=50, random_state=0).fit(X, y).predict(X[:5]).shape
    (5,)
    """

    _parameter_constraints: dict = StepwiseMixin._stepwise_constraints | {
        "filters": ["array-like"],
        "kernel_size": COUNT,
        "pool_size": COUNT,
        "n_hidden": COUNT,
        "lateral": [StrOptions({"linear", "product"}), None],
        "lateral_layers": [*COUNT, None],
        "lateral_extent": COUNT,
        "lateral_spacing": [*COUNT, None],
        "lateral_alpha": NOT_NEGATIVE,
        "lateral_background": NOT_NEGATIVE,
        "lateral_training": ["boolean"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": NOT_NEGATIVE,
        "class_weight": CLASS_WEIGHT,
        "image_shape": ["array-like", None],
        "device": [str],
    }

    _only_with = StepwiseMixin._only_with | dict.fromkeys(
        (
            "lateral_layers",
            "lateral_extent",
            "lateral_spacing",
            "lateral_alpha",
            "lateral_background",
            "lateral_training",
        ),
        OnlyWith("lateral", lambda form: form is not None, "lateral gates"),
    )

    # of which the first files of format 2 do not know, and what they stood for
    _new_parameters = {
        "class_weight": None,
        "lateral_layers": None,
        "lateral_spacing": None,
        "lateral_background": 0.0,
        "lateral_training": True,
    }
    _new_attributes: dict = {"lateral_backgrounds_": []}

    _fitted_shapes = {
        "classes_": ("classes",),
        "input_mean_": float,
        "input_scale_": float,
        "parameters_": dict,
        "lateral_weights_": list,
        "lateral_backgrounds_": list,
    }

    def __init__(
        self,
        filters: Sequence[int] = (16, 32),
        *,
        kernel_size: int = 3,
        pool_size: int = 2,
        n_hidden: int = 64,
        lateral: Literal["linear", "product"] | None = None,
        lateral_layers: int | None = 1,
        lateral_extent: int = 1,
        lateral_spacing: int | None = 1,
        lateral_alpha: float = 0.1,
        lateral_background: float = 10.0,
        lateral_training: bool = False,
        dropout: float = 0.0,
        weight_decay: float = 0.0,
        image_shape: Sequence[int] | None = None,
        max_iter: int = 2000,
        batch_size: int = 128,
        learning_rate_init: float = 0.002,
        class_weight: ClassWeight = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: bool | int = False,
    ) -> None:
        self.filters = filters
        self.kernel_size = kernel_size
        self.pool_size = pool_size
        self.n_hidden = n_hidden
        self.lateral = lateral
        self.lateral_layers = lateral_layers
        self.lateral_extent = lateral_extent
        self.lateral_spacing = lateral_spacing
        self.lateral_alpha = lateral_alpha
        self.lateral_background = lateral_background
        self.lateral_training = lateral_training
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.image_shape = image_shape
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.class_weight = class_weight
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
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_rows * n_columns * n_channels)
            Images, row after row, the channels of a pixel side by side.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative and relative to each other; None is 1 for each.
            Those of weight 0 are left out.

        Returns
        -------
        self : CNNClassifier

        Raises
        ------
        ValueError
            If the images do not fit `image_shape`, weights are not legal, or there is only one
            class.
        FloatingPointError
            If the loss is not finite at some step.
        """
        going_on = self._goes_on("parameters_")
        X, y = validate_data(self, X, y, squared=True, reset=not going_on)
        self._check_layers(X.shape[1])
        (rng, record), device = self._begin(X, y, sample_weight), resolve_device(self.device)
        samples = (X, y)
        data, known = self._prepared(X, y, sample_weight, going_on)
        network = self._network(X.shape[1], len(known))
        own = np.random.RandomState(rng.randint(2**31 - 1))
        draw_parameters(network, own, torch.float32)
        if going_on:
            self._check_fitted()
            self._restore(network, torch.float32)
        if not self.lateral_training:
            network.restore_lateral(([], []))
        network.to(device).seed(int(own.randint(2**31 - 1)))
        score = None
        if self.early_stopping:
            parts = self._split(rng, *data, stratify=data[1])
            data, held_out = parts[::2], parts[1::2]
            score = partial(accuracy, network, torch.from_numpy(held_out[0]), *held_out[1:])
        images, *labels = joined(self.batch_size, *data)
        images, targets = torch.from_numpy(images), labels_and_weights(*labels)
        # drawn without gates too: networks of one seed see the same batches
        seen = images[rng.permutation(len(images))[:MOST_SEEN]]
        batches = Minibatches(len(images), self.batch_size, rng)
        step, parts = self._step(network, images, targets, seen, batches)

        def attributes():
            parameters = {k: v.cpu().numpy().copy() for k, v in network.state_dict().items()}
            weights, backgrounds = network.lateral_state()
            lateral = {"lateral_weights_": weights, "lateral_backgrounds_": backgrounds}
            return {"parameters_": parameters} | lateral

        fitted = self._take_steps(
            step,
            attributes,
            samples,
            score=score,
            going_on=going_on,
            record=record,
            parts=(rng, *parts),
            largest_product=min(self.batch_size, len(images)) * network.largest_product,
        )
        check_trained(network.parameters(), self.learning_rate_init)
        for name, value in fitted.items():
            setattr(self, name, value)
        self._learn_context(network, seen)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def fit_lateral(self, X: ArrayLike) -> Self:
        """Learn the lateral weights anew, and leave the filters and the layers after them.

        They need no labels, and less time than training: the way to try other gates on a network
        (`set_params`), or to learn weights from other images.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Images, as in :meth:`fit`; the first 4,000 are seen.

        Returns
        -------
        self : CNNClassifier
        """
        check_is_fitted(self)
        X = validate_data(self, X, squared=True, reset=False)
        network = self._network(X.shape[1], len(self.classes_))
        network.to_empty(device=resolve_device(self.device))
        self._learn_context(network, torch.from_numpy(self._images(X[:MOST_SEEN])))
        return self

    def _learn_context(self, network, images):
        """Lateral weights of the fitted filters, if there are gates."""
        self._restore(network, torch.float32)
        if self.lateral is not None:
            network.learn_context(images)
        self.lateral_weights_, self.lateral_backgrounds_ = network.lateral_state()

    def _prepared(self, X, y, sample_weight, going_on):
        """Images, labels and weights, all checked, and the classes."""
        X, y, weights = counting(X, y, weights_of_labels(self, X, y, sample_weight))
        known, labels = classes_of(y)
        refuse_one_class(known, self)
        if going_on:
            check_same_classes(known, self)
        else:
            mean, spread = X.mean(), X.std()
            if not alike(weights):
                mean = np.average(X.mean(1, dtype=float), weights=weights)
                spread = np.average(((X - mean) ** 2).mean(1), weights=weights) ** 0.5
            self.classes_, self.input_mean_ = known, float(mean)
            self.input_scale_ = 1.0 if is_rounding(X.min(), X.max()) else float(spread)
        return (self._images(X), labels, weights), known

    def _step(self, network, images, targets, seen, batches):
        """A function that takes one step of training, and what it changes."""
        device = next(network.parameters()).device
        optimizer = torch.optim.AdamW(
            network.parameters(), self.learning_rate_init, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.max_iter)
        half = self.max_iter // 2
        every = max(1, (self.max_iter - half) // N_UPDATES)
        under_gates = self.lateral is not None and self.lateral_training

        def step(i):
            batch = next(batches)
            if under_gates and i >= half and (i - half) % every == 0:
                network.learn_context(seen)
            logits = network(images[batch].to(device))
            loss = loss_of_labels(logits, targets[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            return loss.item()

        lateral = (network.lateral_state, network.restore_lateral)
        return step, (network, lateral, network.generator, optimizer, schedule, batches)

    def _completed(self, attributes):
        others = ("classes_", "n_features_in_", "input_mean_", "input_scale_")
        return attributes | {name: getattr(self, name) for name in others}

    def _restore(self, network, dtype):
        """Fitted values into a network of that size, on its device."""
        kind = {"dtype": dtype}
        if not network.hidden.weight.is_meta:
            kind["device"] = network.hidden.weight.device
        state = {name: to_tensor(value).to(**kind) for name, value in self.parameters_.items()}
        network.load_state_dict(state, assign=network.hidden.weight.is_meta)
        network.weights, network.backgrounds = [], []
        if self.lateral is not None:
            network.weights = [to_tensor(x).to(**kind) for x in self.lateral_weights_]
            network.backgrounds = self._backgrounds()

    def _check_layers(self, n_features):
        filters = np.asarray(self.filters)
        if filters.ndim != 1 or filters.dtype.kind not in "iu" or not (filters > 0).all():
            raise ValueError(f"filters must be positive integers, got {self.filters!r}.")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}.")
        if self._n_gated > len(filters):
            raise ValueError(
                f"lateral_layers must not be above the number of layers, {len(filters)}, got "
                f"{self.lateral_layers}."
            )
        self._shape(n_features)

    def _shape(self, n_features):
        """Rows, columns and channels."""
        shape = image_shape_of(self.image_shape, n_features, n_dims=(2, 3))
        return (*shape, 1) if len(shape) == 2 else shape

    def _images(self, X):
        X = ((X - self.input_mean_) / self.input_scale_).astype(np.float32)
        images = X.reshape(len(X), *self._shape(X.shape[1]))
        # a copy: strides of a single channel would tell where the pixels came from
        return np.array(images.transpose(0, 3, 1, 2), order="C")

    def _check_fitted(self):
        """Raise ValueError unless parameters are those of such a network."""
        self._check_layers(self.n_features_in_)
        wanted = self._network(self.n_features_in_, len(self.classes_)).state_dict()
        check_parameters(self.parameters_, wanted)
        if not self.lateral_weights_:
            return
        side, backgrounds = 2 * self.lateral_extent + 1, self._backgrounds()
        gated_filters = self.filters[: self._n_gated]
        if len(backgrounds) != len(gated_filters):
            raise ValueError(
                f"lateral_backgrounds_ must be of {len(gated_filters)} layers, got "
                f"{len(backgrounds)}."
            )
        n_features = [
            Reading(background=background).n_features(n_channels)
            for n_channels, background in zip(gated_filters, backgrounds, strict=True)
        ]
        wanted = [(side, side, n, n) for n in n_features]
        found = [np.shape(weights) for weights in self.lateral_weights_]
        if found != wanted:
            raise ValueError(f"lateral_weights_ must be of shapes {wanted}, got {found}.")

    def _backgrounds(self):
        """Of every layer; the first files have none."""
        return self.lateral_backgrounds_ or [0.0] * len(self.lateral_weights_)

    @property
    def _n_gated(self):
        return len(self.filters) if self.lateral_layers is None else self.lateral_layers

    def _network(self, n_features, n_classes):
        """Of this size, without values."""
        with torch.device("meta"):
            return _Network(
                self._shape(n_features),
                n_classes,
                filters=self.filters,
                kernel_size=self.kernel_size,
                pool_size=self.pool_size,
                n_hidden=self.n_hidden,
                dropout=self.dropout,
                gate=Gate(
                    self.lateral,
                    self._n_gated,
                    self.lateral_alpha,
                    self.lateral_extent,
                    self.lateral_spacing or self.kernel_size,
                    self.lateral_background,
                ),
            )

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Logits of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Images, as in :meth:`fit`.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) if binary
            In the binary case, the log odds of ``classes_[1]``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, squared=True, reset=False)
        # in double precision: libraries round the rows of a product differently
        network = self._network(X.shape[1], len(self.classes_))
        self._restore(network, torch.float64)
        network.eval().requires_grad_(False)

        def answers(rows):
            return in_blocks(network, self._images(rows).astype(float))

        logits = check_answers(in_pieces(answers, X), self)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits


class Gate(NamedTuple):
    """How surrounds gate a layer; see :class:`LateralContext`."""

    form: str | None
    n_layers: int
    alpha: float
    extent: int
    spacing: int
    background: float


def accuracy(network, images, labels, weights):
    """Of a network as it predicts, by weight."""
    network.eval()
    device = network.hidden.weight.device
    with torch.no_grad():
        parts = [network(block.to(device)).argmax(1).cpu() for block in images.split(256)]
    network.train()
    return float(np.average(torch.cat(parts).numpy() == labels, weights=weights))


class _Network(torch.nn.Module):
    """Convolutions, gates, pooling and the dense layers."""

    def __init__(
        self, shape, n_classes, *, filters, kernel_size, pool_size, n_hidden, dropout, gate
    ):
        super().__init__()
        rows, columns, n = shape
        self.convolutions, self.largest_product = torch.nn.ModuleList(), 0  # of an image
        for n_filters in filters:
            padding = kernel_size // 2
            self.largest_product = max(
                self.largest_product, rows * columns * kernel_size**2 * n * n_filters
            )
            self.convolutions.append(torch.nn.Conv2d(n, n_filters, kernel_size, padding=padding))
            n = n_filters
            rows, columns = (-(-size // pool_size) for size in (rows, columns))
        self.hidden = torch.nn.Linear(rows * columns * n, n_hidden)
        self.readout = torch.nn.Linear(n_hidden, n_classes)
        self.pool_size, self.dropout, self.gate = pool_size, dropout, gate
        self.weights, self.backgrounds = [], []

    def seed(self, seed):
        """Source of what dropout draws: not torch's, which all threads share."""
        self.generator = torch.Generator(self.hidden.weight.device).manual_seed(seed)

    def lateral_state(self):
        return [x.cpu().numpy().copy() for x in self.weights], list(self.backgrounds)

    def restore_lateral(self, state):
        weights, backgrounds = state
        self.weights = [torch.tensor(x, device=self.hidden.weight.device) for x in weights]
        self.backgrounds = list(backgrounds)

    def forward(self, x):
        for i in range(len(self.convolutions)):
            x = self._dropped(self._layer(i, x))
        x = functional.relu(self.hidden(x.flatten(1)))
        return self.readout(self._dropped(x))

    def _dropped(self, x):
        if not self.training or not self.dropout:
            return x
        drawn = torch.rand(x.shape, generator=self.generator, dtype=x.dtype, device=x.device)
        return x * (drawn >= self.dropout) / (1 - self.dropout)

    def _maps(self, i, x):
        """Rectified maps of a layer, its features last."""
        return functional.relu(self.convolutions[i](x)).permute(0, 2, 3, 1).contiguous()

    def _layer(self, i, x):
        """Gated and pooled maps of a layer."""
        if i < len(self.weights):
            gate, reading = self.gate, Reading(background=self.backgrounds[i])
            options = {"spacing": gate.spacing, "form": gate.form, "alpha": gate.alpha}
            maps = gated(self._maps(i, x), self.weights[i], reading, **options)
            maps = maps.permute(0, 3, 1, 2)
        else:
            maps = functional.relu(self.convolutions[i](x))
        return functional.max_pool2d(maps, self.pool_size, ceil_mode=True)

    @torch.no_grad()
    def learn_context(self, images):
        """Lateral weights of one layer after the other, each under the gates before it."""
        device = self.hidden.weight.device
        blocks = [block.to(device) for block in images.split(256)]
        self.weights, self.backgrounds = [], []
        for i, convolution in enumerate(self.convolutions[: self.gate.n_layers]):
            active = [self._maps(i, block).sum(-1).mean((1, 2)) for block in blocks]
            reading = Reading(background=self.gate.background * float(torch.cat(active).mean()))
            n_features = reading.n_features(convolution.out_channels)
            seen = CoActivation(n_features, self.gate.extent, self.gate.spacing)
            for block in blocks:
                seen.add(reading(self._maps(i, block)), all_places=False)
            weights, _ = seen.weights(1e-6)
            self.weights.append(torch.from_numpy(weights).to(block))
            self.backgrounds.append(reading.background)
            blocks = [self._layer(i, block) for block in blocks]
