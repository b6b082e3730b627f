"""Rich or lazy: how much learning has changed weights, representations and the tangent kernel."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import check_array
from ssn_estimators._torch import to_numbers
from ssn_estimators.stationary.moments import stationary_moments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from sklearn.base import BaseEstimator

    from ssn_estimators._typing import ArrayLike

__all__ = [
    "LearningRegime",
    "effective_rank",
    "kernel_alignment",
    "learning_regime",
    "representation_alignment",
    "tangent_kernel",
    "weight_change",
]

RANKS = ("eig", "stable", "participation", "entropy")


def effective_rank(
    weights: ArrayLike, *, kind: Literal["eig", "stable", "participation", "entropy"] = "eig"
) -> float:
    r"""How many directions a weight matrix uses.

    Parameters
    ----------
    weights : array-like of shape (n, n), or (n, m) unless `kind` is "eig"
        With at least one entry that is not 0.
    kind : {"eig", "stable", "participation", "entropy"}, default="eig"
        With eigenvalues :math:`\lambda` and singular values s, both in falling order:
        :math:`\sum |\lambda_i| / (n |\lambda_1|)`, a share between 0 and 1 [1]_;
        :math:`\sum s_i^2 / s_1^2`; :math:`(\sum s_i^2)^2 / \sum s_i^4`; or the exponential
        of the entropy of :math:`s / \sum s`.

    Returns
    -------
    rank : float

    References
    ----------
    .. [1] Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2024). How connectivity
       structure shapes rich and lazy learning in neural circuits. ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from ssn_estimators.inspection import effective_rank
    >>> effective_rank(np.eye(4))
    1.0
    >>> effective_rank(np.ones((4, 4)), kind="stable")
    1.0
    """
    if kind not in RANKS:
        raise ValueError(f"kind must be one of {RANKS}, got {kind!r}.")
    weights = check_array(weights, dtype=float, input_name="weights")
    if kind == "eig" and weights.shape[0] != weights.shape[1]:
        raise ValueError(f"eigenvalues need a square matrix, got shape {weights.shape}.")
    if not weights.any():
        raise ValueError("a matrix of zeros has no effective rank.")
    weights = weights / np.abs(weights).max()  # of any unit: no square is lost
    if kind == "eig":
        values = np.abs(np.linalg.eigvals(weights))
        if values.max() == 0:
            raise ValueError(
                "all eigenvalues are 0 (a feedforward network); take another kind, of singular "
                "values."
            )
        return float(values.sum() / (values.max() * len(values)))
    values = np.linalg.svd(weights, compute_uv=False)
    if kind == "stable":
        return float((values**2).sum() / values[0] ** 2)
    if kind == "participation":
        return float((values**2).sum() ** 2 / (values**4).sum())
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def weight_change(before: ArrayLike, after: ArrayLike, *, relative: bool = False) -> float:
    """Frobenius norm of the difference of two weight matrices.

    Parameters
    ----------
    before, after : array-like of shape (n, m)
        The matrices.
    relative : bool, default=False
        Whether over the norm of `before`.

    Returns
    -------
    change : float
    """
    before, after = (_finite(x, "weights") for x in (before, after))
    _check_same_shape(before, after, "weights")
    change = np.linalg.norm(after - before)
    if relative and not before.any():
        raise ValueError("relative=True needs weights that were not all 0.")
    return float(change / np.linalg.norm(before) if relative else change)


def kernel_alignment(before: ArrayLike, after: ArrayLike, *, center: bool = False) -> float:
    r"""Cosine between two kernel matrices, :math:`\mathrm{tr}(K_1 K_0) / (|K_1| |K_0|)`.

    Parameters
    ----------
    before, after : array-like of shape (n, n)
        Symmetric.
    center : bool, default=False
        Whether to centre both in feature space first. As in the source [1]_, they are not.

    Returns
    -------
    alignment : float
        1 if training has not changed the kernel but for a factor.

    References
    ----------
    .. [1] Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2024). How connectivity
       structure shapes rich and lazy learning in neural circuits. ICLR.
    """
    before, after = (_finite(x, "kernels") for x in (before, after))
    _check_same_shape(before, after, "kernels")
    if before.ndim != 2 or before.shape[0] != before.shape[1]:
        raise ValueError(f"kernels must be square matrices, got shape {before.shape}.")
    if center:
        before, after = _centered(before), _centered(after)
    if not before.any() or not after.any():
        raise ValueError("a kernel of zeros has no alignment with others.")
    before, after = (x / np.abs(x).max() for x in (before, after))
    size = np.linalg.norm(before) * np.linalg.norm(after)
    return float((before * after).sum() / size)


def _centered(kernel):
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()


def representation_alignment(before: ArrayLike, after: ArrayLike, *, center: bool = False) -> float:
    """Alignment of the linear kernels of two representations of the same inputs.

    Parameters
    ----------
    before, after : array-like of shape (n_samples, n_neurons)
        The numbers of neurons may differ.
    center : bool, default=False
        See :func:`kernel_alignment`.

    Returns
    -------
    alignment : float
    """
    states = (_finite(x, "states") for x in (before, after))
    kernels = [x @ x.T for x in states]
    return kernel_alignment(*kernels, center=center)


def _finite(x, name):
    x = to_numbers(x, float, name)
    if not np.isfinite(x).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity.")
    return x


def _check_same_shape(before, after, what):
    if before.shape != after.shape:
        raise ValueError(f"{what} must have one shape, got {before.shape} and {after.shape}.")


def tangent_kernel(
    model: BaseEstimator | torch.nn.Module, X: Any, *, parameters: Sequence[str] | None = None
) -> np.ndarray:
    r"""Neural tangent kernel: products of the gradients of all outputs for all inputs.

    For a fitted network of this package the gradients are those with respect to its recurrent
    weights: of an :class:`.RNNClassifier` of the outputs at all steps, by the outer products
    that backpropagation through time is made of; of an :class:`.SSNClassifier` of the logits,
    or an :class:`.SSNRegressor` of the standardised targets, at its noise-free fixed points,
    :math:`\partial o / \partial W = a r^T` with
    :math:`a = (I - W \mathrm{diag}(r'))^{-T} c`, one linear solve for each input.

    Parameters
    ----------
    model : RNNClassifier, SSNClassifier or torch Module
        A fitted network, or a Module.
    X : array-like, or for a Module anything that it can be called with
        Inputs.
    parameters : list of str, default=None
        Names of the parameters of a Module to differentiate with respect to; all if
        None.

    Returns
    -------
    kernel : ndarray of shape (n_outputs, n_outputs)
        Rows and columns run over inputs, then over the outputs of each.

    Raises
    ------
    ValueError
        If an SSN has no stable fixed point for some input, or a Module no such parameters.

    Notes
    -----
    A Module is evaluated as it is after ``eval()``, without dropout, and left in its mode.
    """
    if isinstance(model, torch.nn.Module):
        return _module_kernel(model, X, parameters)
    check_is_fitted(model)
    if all(hasattr(model, name) for name in ("circuit_", "readout_weights_", "transform")):
        return _circuit_kernel(model, X)
    if hasattr(model, "recurrent_weights_") and hasattr(model, "unrolled"):
        return _unrolled_kernel(*model.unrolled(X))
    raise TypeError(
        "tangent_kernel takes an RNNClassifier, an SSNClassifier or a torch Module, got "
        f"{type(model).__name__}."
    )


def _module_kernel(model, X, names):
    chosen = _parameters(model, names)
    fixed = {k: v.detach() for k, v in model.named_parameters() if k not in chosen}

    def outputs(values):
        return torch.func.functional_call(model, fixed | values, (X,)).flatten()

    with _evaluated(model):
        jacobian = torch.func.jacrev(outputs)(chosen)
    flat = [value.reshape(len(value), -1).double() for value in jacobian.values()]
    return sum(part @ part.T for part in flat).cpu().numpy()


def _parameters(model, names):
    """Parameters of a module by their names, in this order; all if None."""
    every = {name: value.detach() for name, value in model.named_parameters()}
    names = list(every) if names is None else list(names)
    unknown = set(names) - set(every)
    if unknown or not names:
        missing = f"the module has no parameters {sorted(unknown)}" if unknown else "no parameters"
        raise ValueError(f"{missing}; there are {list(every)}.")
    return {name: every[name] for name in names}


@contextmanager
def _evaluated(model):
    """A module as it predicts; afterwards in its mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _circuit_kernel(model, X):
    circuit = model.circuit_
    moments = stationary_moments(circuit, model.drive(X), closure="linear")
    if not moments.converged.all():
        raise ValueError(
            f"the network has no stable fixed point for {(~moments.converged).sum()} of "
            f"{len(moments.mean)} inputs; its tangent kernel is that of the fixed points."
        )
    u = moments.mean.astype(float)
    rates, gain = circuit.rates(u), circuit.gain(u)
    matrix = np.eye(circuit.n_neurons) - circuit.weights.astype(float) * gain[:, None]
    readout = np.zeros((circuit.n_neurons, len(model.readout_weights_)))
    readout[: circuit.n_excitatory] = model.readout_weights_.T
    owed = np.linalg.solve(
        matrix.swapaxes(1, 2), np.broadcast_to(readout, (len(u), *readout.shape))
    )
    owed = owed.swapaxes(1, 2).reshape(-1, circuit.n_neurons)
    same = np.repeat(
        np.repeat(rates @ rates.T, len(model.readout_weights_), 0), len(model.readout_weights_), 1
    )
    return (owed @ owed.T) * same


def _unrolled_kernel(owed, states):
    """From derivatives of outputs by the sums of all steps, and the states before these.

    Parameters
    ----------
    owed : ndarray of shape (n_samples, n_outputs, n_steps, n_hidden)
    states : ndarray of shape (n_samples, n_steps, n_hidden)
    """
    n_samples, n_outputs, n_steps, n = owed.shape
    inner = states.reshape(-1, n) @ states.reshape(-1, n).T
    inner = inner.reshape(n_samples, n_steps, n_samples, n_steps).transpose(0, 2, 1, 3)
    kernel = np.empty((n_samples, n_outputs, n_samples, n_outputs))
    rows = owed.transpose(0, 2, 1, 3)  # (sample, step, output, hidden)
    for i in range(n_samples):
        total = np.zeros((n_outputs, n_samples, n_outputs))
        for step in range(n_steps):
            # every output of this step against those of all samples and steps
            products = rows[i, step] @ rows.reshape(-1, n).T
            products = products.reshape(n_outputs, n_samples, n_steps, n_outputs)
            total += np.einsum("ajtb,jt->ajb", products, inner[i, :, step])
        kernel[i] = total
    return kernel.reshape(n_samples * n_outputs, -1)


@dataclass(frozen=True)
class LearningRegime:
    """How training has changed a network; what changes little was learnt lazily.

    Attributes
    ----------
    weight_change : float
        Frobenius norm of the change of the recurrent weights, NaN if their number has changed.
    representation_alignment : float
        Alignment of the activities, by :func:`representation_alignment`; near 1 is lazy.
    kernel_alignment : float
        Alignment of the tangent kernels, by :func:`kernel_alignment`; near 1 is lazy.
    sign_similarity : float
        Share of cells and inputs whose activity has kept its sign; NaN if the number of cells
        has changed.
    effective_rank : float
        Rank of the recurrent weights before, by :func:`effective_rank`.
    spectral_radius : float
        Largest absolute eigenvalue of the recurrent weights before.
    """

    weight_change: float
    representation_alignment: float
    kernel_alignment: float
    sign_similarity: float
    effective_rank: float
    spectral_radius: float


def learning_regime(
    before: BaseEstimator | torch.nn.Module,
    after: BaseEstimator | torch.nn.Module,
    X: ArrayLike,
    *,
    parameters: Sequence[str] | None = None,
) -> LearningRegime:
    """Compare a network before and after training.

    Parameters
    ----------
    before, after : RNNClassifier, SSNClassifier or torch Module
        Networks of one kind. An SSN may have been grown in between.
    X : array-like
        Inputs, chosen before training; the tangent kernel costs the square of their number.
    parameters : list of str, default=None
        Names of the (matrix) parameters of Modules that count, see
        :func:`tangent_kernel`; the first of them stands for the recurrent weights, and the
        outputs for the representation.

    Returns
    -------
    regime : LearningRegime
    """
    if not len(X):
        raise ValueError("networks are compared on inputs, and X has none.")
    w0, w1 = (_recurrent_weights(model, parameters) for model in (before, after))
    h0, h1 = (_representation(model, X) for model in (before, after))
    k0, k1 = (tangent_kernel(model, X, parameters=parameters) for model in (before, after))
    square = w0.ndim == 2 and w0.shape[0] == w0.shape[1]
    return LearningRegime(
        weight_change=weight_change(w0, w1) if w0.shape == w1.shape else np.nan,
        representation_alignment=representation_alignment(h0, h1),
        kernel_alignment=kernel_alignment(k0, k1),
        sign_similarity=(
            float((np.sign(h0) == np.sign(h1)).mean()) if h0.shape == h1.shape else np.nan
        ),
        effective_rank=effective_rank(w0) if square else np.nan,
        spectral_radius=float(np.abs(np.linalg.eigvals(w0)).max()) if square else np.nan,
    )


def _recurrent_weights(model, parameters):
    if isinstance(model, torch.nn.Module):
        return next(iter(_parameters(model, parameters).values())).double().cpu().numpy()
    check_is_fitted(model)
    weights = model.circuit_.weights if hasattr(model, "circuit_") else model.recurrent_weights_
    return np.asarray(weights, float)


def _representation(model, X):
    if isinstance(model, torch.nn.Module):
        with torch.no_grad(), _evaluated(model):
            states = model(X)
        return states.reshape(len(states), -1).double().cpu().numpy()
    return np.asarray(model.transform(X), dtype=float)
