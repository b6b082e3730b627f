"""`Langevin`: stochastic dynamics as a value, and a circuit's as such."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ssn_estimators._torch import to_tensor
from ssn_estimators.circuit import Circuit

if TYPE_CHECKING:
    from typing import Any

    from ssn_estimators._typing import ArrayLike

__all__ = ["Langevin", "circuit_dynamics"]


@dataclass(frozen=True, eq=False)
class Langevin:
    r"""Stochastic dynamics :math:`dx = f(x) dt + \sqrt{2 D(x)} dW` (Ito).

    Parameters
    ----------
    drift : callable
        f, from an array of shape (n, d) to one alike. It gets what its callers have: arrays,
        or tensors where its derivatives are needed (:func:`fokker_planck_residual`).
    diffusion : array-like of shape (d, d), or callable
        D, symmetric and positive semidefinite; it may be singular. A callable goes from shape
        (n, d) to (n, d, d).

    Examples
    --------
    >>> from ssn_estimators.density import Langevin
    >>> relaxation = Langevin(lambda x: -x, [[1.0]])  # its stationary density: N(0, 1)
    """

    drift: Callable[..., Any]
    diffusion: Callable[..., Any] | ArrayLike

    def __post_init__(self):
        if not callable(self.drift):
            raise TypeError(f"drift must be callable, got {type(self.drift).__name__}.")
        if callable(self.diffusion):
            return
        diffusion = np.array(self.diffusion, dtype=float)
        if diffusion.ndim != 2 or diffusion.shape[0] != diffusion.shape[1]:
            raise ValueError(f"diffusion must be a square matrix, got shape {diffusion.shape}.")
        if not np.isfinite(diffusion).all():
            raise ValueError("diffusion holds NaN or infinity.")
        if not np.allclose(diffusion, diffusion.T):
            raise ValueError("diffusion must be symmetric.")
        if np.linalg.eigvalsh(diffusion)[0] < -1e-10 * max(1.0, np.abs(diffusion).max()):
            raise ValueError("diffusion must be positive semidefinite.")
        object.__setattr__(self, "diffusion", diffusion)

    def drift_at(self, X: ArrayLike) -> np.ndarray:
        """The drift, checked: an ndarray of the shape (n, d) of X.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Where to evaluate it.
        """
        drift = np.asarray(self.drift(X), dtype=float)
        if drift.shape != X.shape:
            raise ValueError(
                f"drift must give an array of the shape of its argument, {X.shape}; got "
                f"{drift.shape}."
            )
        return drift

    def diffusion_at(self, X: ArrayLike) -> np.ndarray:
        """D at every row of X, as an ndarray of shape (n, d, d) or (1, d, d).

        Parameters
        ----------
        X : array-like of shape (n, d)
            Where to evaluate it.
        """
        d = X.shape[1]
        if not callable(self.diffusion):
            if len(self.diffusion) != d:
                raise ValueError(
                    f"diffusion has {len(self.diffusion)} dimensions, the samples have {d}."
                )
            return self.diffusion[None]  # type: ignore[return-value]
        diffusion = np.asarray(self.diffusion(X), dtype=float)
        if diffusion.shape != (*X.shape, d):
            raise ValueError(
                f"diffusion must give an array of shape {(*X.shape, d)}, got {diffusion.shape}."
            )
        return diffusion


def circuit_dynamics(circuit: Circuit, drive: ArrayLike) -> Langevin:
    r"""Dynamics of a circuit's potentials and noise together, :math:`x = (u, \eta)`.

    .. math::
        \dot u = (-u + f(h) + W r + \eta) / \tau, \qquad
        d\eta = -\eta / \tau_\eta \, dt + \sqrt{2 / \tau_\eta} \, n \, dW.

    Parameters
    ----------
    circuit : Circuit
        The circuit.
    drive : array of shape (n_neurons,)
        External drive f(h) of one input, in mV.

    Returns
    -------
    dynamics : Langevin
        Dynamics of 2 `n_neurons` dimensions, with times in ms. Its diffusion is singular: noise
        reaches the potentials only through :math:`\eta`.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.density import circuit_dynamics
    >>> pair = Circuit([[1.25, -0.65], [1.2, -0.5]], n_excitatory=1, noise_factor=0.2, k=0.04)
    >>> circuit_dynamics(pair, [2.0, 2.0]).diffusion.shape
    (4, 4)
    """
    n = circuit.n_neurons
    drive = np.array(drive, dtype=float)
    if drive.shape != (n,):
        raise ValueError(f"drive must have shape ({n},), one input, got {drive.shape}.")
    circuit = circuit.to_numpy()
    factor, diffusion = circuit.noise_factor.astype(float), np.zeros((2 * n, 2 * n))
    diffusion[n:, n:] = factor @ factor.T / circuit.tau_eta
    return Langevin(_CircuitDrift(circuit, drive), diffusion)


@dataclass(frozen=True, eq=False)
class _CircuitDrift:
    """Drift of potentials and noise, for tensors; a class, so that it can be pickled."""

    circuit: Circuit
    drive: np.ndarray

    def __call__(self, x):
        circuit, n = self.circuit, self.circuit.n_neurons
        x = to_tensor(x)
        u, eta = x[..., :n], x[..., n:]
        weights, outside, tau = map(to_tensor, (circuit.weights, self.drive, circuit.tau))
        du = (outside - u + circuit.rates(u) @ weights.T + eta) / tau
        return torch.cat([du, -eta / circuit.tau_eta], dim=-1)
