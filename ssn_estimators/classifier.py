"""`SSNClassifier`: a stabilized supralinear network as a scikit-learn classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d

from ssn_estimators._classifiers import (
    classes_of,
    labels_of,
    probabilities_of,
    refuse_one_class,
)
from ssn_estimators._sklearn import fit_context, validate_data, with_callbacks
from ssn_estimators._weights import (
    CLASS_WEIGHT,
    counting,
    joined,
    of_labels,
    weights_of_labels,
)
from ssn_estimators.base import documented_by, extending
from ssn_estimators.exceptions import DivergenceError
from ssn_estimators.supervised import SupervisedSSN
from ssn_estimators.training import Classification, run_together

if TYPE_CHECKING:
    from typing import Any, Literal, Self, Unpack

    from ssn_estimators._typing import ArrayLike, ClassWeight, Method, SupervisedParameters

__all__ = ["SSNClassifier"]

_PUBLISHED = {
    "growth": "single",
    "parents": "last",
    "clone_shares": "equal",
    "input_noise": 0.0,
    "input_weights": "one_to_one",
    "solver": "euler",
    "dt": 0.2,
    "burn_in": 400.0,
    "window": 100.0,
    "n_trials": 100,
    "shared_noise": False,
    "batch_size": 100,
    "learning_rate": "constant",
    "learning_rate_init": 0.001,
    "potential_penalty": 0.0,
    "stability_penalty": 0.0,
}
PRESETS = {
    "mnist-50:50": _PUBLISHED | {"n_excitatory": 50, "n_inhibitory": 50},
    "mnist-80:20": _PUBLISHED | {"n_excitatory": 80, "n_inhibitory": 20},
}


@documented_by(SupervisedSSN)
class SSNClassifier(ClassifierMixin, SupervisedSSN):
    r"""Classifier that trains a stochastic stabilized supralinear network (SSN).

    A recurrent circuit of excitatory (E) and inhibitory (I) cells receives the features as
    constant external input; after a burn-in, the mean potentials of its E cells over a
    window and over trials are read out by a softmax layer. Weights, noise, input function
    and readout are trained by backpropagation through time, while the circuit grows from one
    stable pair of cells by dynamics-neutral splitting [1]_. No potential is ever clipped: a
    step that makes the circuit diverge is undone.

    Where all different samples make one batch, equal ones are one, of the sum of their weights: an
    integer weight is as good as so many copies.

    Parameters
    ----------
    {parameters}
    class_weight : dict, "balanced" or None, default=None
        What the classes count, by label; those that are not named count 1. "balanced" ones count
        as much as each other, however many samples they have.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    {attributes}

    See Also
    --------
    AutoencoderEncoder : Brings wide inputs to the number of E cells.
    stability_report : Stability of a trained network against shuffled and random weights.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35.
    .. [2] Hazelden, Liu, Shlizerman & Shea-Brown (2023). Evolutionary algorithms as an
       alternative to backpropagation for supervised training of biophysical neural networks
       and neural ODEs. arXiv:2311.10869.
    .. [3] Bishop (1995). Training with noise is equivalent to Tikhonov regularization. Neural
       Computation 7.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ssn_estimators import SSNClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> ssn = SSNClassifier(max_iter=100, random_state=0).fit(X, y)
    >>> ssn.circuit_.n_excitatory, ssn.circuit_.n_inhibitory
    (4, 1)
    >>> ssn.stability_
    1.0
    """

    _task = Classification

    _parameter_constraints: dict = SupervisedSSN._parameter_constraints | {
        "class_weight": CLASS_WEIGHT
    }

    _new_parameters = SupervisedSSN._new_parameters | {"class_weight": None}

    _fitted_shapes = SupervisedSSN._fitted_shapes | {"classes_": ("outputs",)}

    @extending(SupervisedSSN)
    def __init__(
        self,
        n_excitatory: int | None = None,
        n_inhibitory: int | None = None,
        *,
        class_weight: ClassWeight = None,
        **parameters: Unpack[SupervisedParameters],
    ) -> None:
        super().__init__(n_excitatory, n_inhibitory, **parameters)
        self.class_weight = class_weight

    @classmethod
    def from_paper(cls, name: Literal["mnist-50:50", "mnist-80:20"], **parameters: Any) -> Self:
        """Classifier in a configuration published by Soo & Lengyel (2022).

        Sizes, one-to-one input, growth pair by pair, Euler at 0.2 ms, 2000 steps of burn-in
        and 500 of window, 100 images x 100 trials, Adam at 0.001. What the paper leaves open
        (such as the initial pair) is as in the defaults, and so is what keeps training stable:
        the guard, other attempts, and the lower rate of the noise factor. Training takes days on
        a CPU.

        Parameters
        ----------
        name : {"mnist-50:50", "mnist-80:20"}
            For encodings of 50 and of 80 numbers.
        **parameters
            Parameters to set differently.

        Returns
        -------
        classifier : SSNClassifier
        """
        if name not in PRESETS:
            raise ValueError(f"name must be one of {sorted(PRESETS)}, got {name!r}.")
        return cls(**(PRESETS[name] | parameters))

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Grow and train the network.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative and relative to each other; None is 1 for each.
            Those of weight 0 are left out.
        X_val, y_val : array-likes, default=None
            Validation data, on which the best network is chosen and training stopped. They
            must be encoded as `X` is; a Pipeline does so with ``transform_input=["X_val"]``
            and scikit-learn's metadata routing.

        Returns
        -------
        self : SSNClassifier

        Raises
        ------
        ValueError
            If data, weights or parameters are not legal, or samples that count are of one class.

        Warns
        -----
        ConvergenceWarning
            If training could not be kept stable in any attempt (the last stable network is kept),
            if the loss ends at that of the frequencies of the classes, or if cells are silent on
            all inputs.
        """
        return run_together([self._training(X, y, X_val, y_val, sample_weight=sample_weight)])[0]

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Go on training for one pass over the data, at a constant rate.

        The first call grows the network, with `growth_iter` steps at each size, on the data
        it gets; it also fixes the scaling of the inputs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training inputs.
        y : array-like of shape (n_samples,)
            Class labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever occur; needed in the first call.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, not negative; None is 1 for each. They are taken as they are,
            since other calls may bring smaller or larger ones; so are those of `class_weight`.

        Returns
        -------
        self : SSNClassifier
        """
        if not hasattr(self, "circuit_") and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs the frequencies of all classes, which partial_fit "
                "does not know; give their weights as a dict."
            )
        return self._one_pass(X, y, classes=classes, sample_weight=sample_weight)

    def _labelled(self, going_on, X, y, classes=None, sample_weight=None):
        """Samples that have been checked and count."""
        X, y = validate_data(self, X, y, reset=not going_on)
        more = self.classes_ if going_on else () if classes is None else classes
        X, y, weights = counting(X, y, weights_of_labels(self, X, y, sample_weight, more))
        self.classes_ = self._known_classes(y, classes, going_on)
        return X, self._refuse_unknown(y, "y"), weights

    def _held_out_targets(self, y_val):
        y_val = self._refuse_unknown(column_or_1d(y_val, warn=True), "y_val")
        return y_val, of_labels(self.class_weight, y_val, np.ones(y_val.shape), self.classes_)

    def _joined(self, *known):
        return joined(self.batch_size, *known)

    def _refuse_unknown(self, y, name):
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"{name} contains labels {unknown} that are not in classes {self.classes_}."
            )
        return y

    def _targets(self, going_on, y, weights):
        return self._task.targets(np.searchsorted(self.classes_, y), weights)

    @property
    def _n_outputs(self):
        return len(self.classes_)

    def _known_classes(self, y, classes, going_on):
        """Those of the data, those given, or those of the fit that goes on."""
        known = classes_of(y)[0]
        if classes is not None:
            known = classes_of(column_or_1d(classes), "classes")[0]
        if going_on:
            if classes is not None and not np.array_equal(known, self.classes_):
                raise ValueError(
                    f"classes={known} differ from those of the first call, {self.classes_}."
                )
            known = self.classes_
        refuse_one_class(known, self)
        return known

    def _scorer(self, X, y, weights):
        """Weighted accuracy on held-out data, of a model."""

        def score(model):
            try:
                logits = self._respond(X, model)
            except DivergenceError:  # without an answer, none is right
                return 0.0
            return float(np.average(self.classes_[logits.argmax(1)] == y, weights=weights))

        return score

    def _attributes(self, model):
        return super()._attributes(model) | {"classes_": self.classes_}

    def decision_function(self, X: ArrayLike, *, method: Method = "simulation") -> np.ndarray:
        """Logits of the classes.

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
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) if binary
            In the binary case, the log odds of ``classes_[1]``.

        Raises
        ------
        DivergenceError
            If the network diverges on some input.
        """
        logits = self._respond(self._check_X(X), self._fitted_model(), method).astype(float)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X: ArrayLike, *, method: Method = "simulation") -> np.ndarray:
        """Most probable class of every input.

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
        labels : ndarray of shape (n_samples,)
            The same for a row whatever the other rows, but for rounding.
        """
        return labels_of(self.decision_function(X, method=method), self.classes_)

    def predict_proba(self, X: ArrayLike, *, method: Method = "simulation") -> np.ndarray:
        """Probabilities of the classes.

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
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        return probabilities_of(self.decision_function(X, method=method))
