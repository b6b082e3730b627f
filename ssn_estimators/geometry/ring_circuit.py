"""The ring circuit of Echeveste et al. 2020, differentiable in its parameters."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import torch

from ssn_estimators._sklearn import COUNT, POSITIVE, Interval, validate_params
from ssn_estimators._torch import to_numbers, to_tensor
from ssn_estimators.circuit import Circuit

if TYPE_CHECKING:
    from typing import Any

    from ssn_estimators._typing import ArrayLike

__all__ = ["gaussian_ring", "ring_matrices"]


@validate_params(
    n_pairs=COUNT,
    noise_correlation=[Interval(Real, -1, 1, closed="neither")],
    noise_width=POSITIVE,
    noise_floor=POSITIVE,
)
def gaussian_ring(
    n_pairs: int,
    amplitudes: ArrayLike,
    widths: ArrayLike,
    *,
    noise_variances: ArrayLike = (1.0, 1.0),
    noise_correlation: float = 0.0,
    noise_width: float = 0.5,
    noise_floor: float = 0.01,
    **constants: Any,
) -> Circuit:
    r"""Ring circuit with Gaussian-like weight profiles, after Echeveste et al. [1]_.

    Excitatory and inhibitory cell i sit at the angle :math:`\vartheta_i = 2 \pi i / n`. With
    a, b in {E, I},

    .. math::
        W_{ab}(i, j) = \pm a_{ab} \exp((\cos(\vartheta_i - \vartheta_j) - 1) / d_{ab}^2), \quad
        \Sigma_\eta = \begin{bmatrix} \sigma_E^2 & \rho \sigma_E \sigma_I \\
        \rho \sigma_E \sigma_I & \sigma_I^2 \end{bmatrix} \otimes
        \exp((\cos(\vartheta_i - \vartheta_j) - 1) / d_\eta^2) + \epsilon I.

    Parameters
    ----------
    n_pairs : int
        Number of excitatory cells, and of inhibitory cells.
    amplitudes, widths : array-like of shape (2, 2)
        a >= 0 and d > 0 (in radians) of the blocks [[E<-E, E<-I], [I<-E, I<-I]].
    noise_variances : pair of floats, default=(1.0, 1.0)
        Noise variance of excitatory and inhibitory cells, in mV**2.
    noise_correlation : float, default=0.0
        Noise correlation rho of the two cells of a pair, in (-1, 1).
    noise_width : float, default=0.5
        d_eta > 0, in radians.
    noise_floor : float, default=0.01
        Private noise variance epsilon > 0 of every cell, in mV**2.
    **constants
        Further parameters of :class:`Circuit`.

    Returns
    -------
    circuit : Circuit
        One of NumPy arrays in float64.

    References
    ----------
    .. [1] Echeveste, Aitchison, Hennequin & Lengyel (2020). Nature Neuroscience 23,
       1138-1149.

    Examples
    --------
    >>> from ssn_estimators import gaussian_ring
    >>> ring = gaussian_ring(8, [[0.3, 0.1], [0.4, 0.1]], [[0.8, 0.6], [0.9, 0.6]])
    >>> ring.n_excitatory, ring.n_inhibitory
    (8, 8)
    """
    values = {}
    for name, value in (("amplitudes", amplitudes), ("widths", widths)):
        values[name] = to_numbers(value, name=name)
        if values[name].shape != (2, 2):
            raise ValueError(f"{name} must have shape (2, 2), got {values[name].shape}.")
    if not (values["amplitudes"] >= 0).all() or not (values["widths"] > 0).all():
        raise ValueError("amplitudes must be >= 0 and widths > 0; the signs are Dale's.")
    noise_variances = to_numbers(noise_variances, name="noise_variances")
    if noise_variances.shape != (2,) or not (noise_variances > 0).all():
        raise ValueError(f"noise_variances must be two positive numbers, got {noise_variances}.")
    numbers = [
        values["amplitudes"],
        values["widths"],
        noise_variances,
        noise_correlation,
        noise_width,
    ]
    weights, noise_factor = ring_matrices(n_pairs, *map(to_tensor, numbers), noise_floor)
    return Circuit(weights.numpy(), n_pairs, noise_factor.numpy(), **constants)


def ring_matrices(
    n_pairs: int,
    amplitudes: torch.Tensor,
    widths: torch.Tensor,
    variances: torch.Tensor,
    correlation: torch.Tensor,
    noise_width: torch.Tensor,
    noise_floor: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and noise factor of a Gaussian ring, from tensors and differentiable in them.

    Parameters
    ----------
    n_pairs : int
        Number of excitatory cells, and of inhibitory cells.
    amplitudes, widths : Tensor of shape (2, 2)
        As of :func:`.gaussian_ring`.
    variances : Tensor of shape (2,)
        Its `noise_variances`.
    correlation, noise_width : Tensor of shape ()
        Its `noise_correlation` and `noise_width`.
    noise_floor : float
        As there.

    Returns
    -------
    weights, noise_factor : Tensor of shape (2 * n_pairs, 2 * n_pairs)
        Those of a :class:`.Circuit`.
    """
    index = torch.arange(n_pairs, dtype=amplitudes.dtype, device=amplitudes.device)
    angle = index * (2 * torch.pi / n_pairs)
    distance = torch.cos(angle[:, None] - angle) - 1
    sign = torch.tensor([1.0, -1.0], dtype=amplitudes.dtype, device=amplitudes.device)
    blocks = (sign * amplitudes)[:, :, None, None] * torch.exp(
        distance / widths[:, :, None, None] / widths[:, :, None, None]  # a square might be 0
    )
    weights = blocks.permute(0, 2, 1, 3).reshape(2 * n_pairs, 2 * n_pairs)
    off_diagonal = correlation * torch.sqrt(variances[0] * variances[1])
    pair = torch.stack([variances[0], off_diagonal, off_diagonal, variances[1]]).reshape(2, 2)
    covariance = torch.kron(pair, torch.exp(distance / noise_width / noise_width))
    covariance = covariance + noise_floor * torch.eye(
        2 * n_pairs, dtype=angle.dtype, device=angle.device
    )
    return weights, torch.linalg.cholesky(covariance)
