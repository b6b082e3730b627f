"""The ring benchmark of probabilistic inference, and the network published with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.utils import Bunch

from ssn_estimators.geometry import gaussian_ring

if TYPE_CHECKING:
    from ssn_estimators.circuit import Circuit

__all__ = ["make_ring_gsm", "make_ring_network"]

N_LATENTS = 50
N_PIXELS = 16  # along each side of the image
CONTRASTS = (0.0, 0.125, 0.25, 0.5, 1.0)
PIXEL_NOISE = 10.0  # standard deviation sigma_x of a pixel
INPUT_SCALE = 1 / 15
NODES = np.linspace(-4, 4, 201)  # of the quadrature, in standard deviations

DESCR = """\
Ring benchmark of probabilistic inference
-----------------------------------------

An image x of 16 x 16 pixels comes from a Gaussian scale mixture,

    x = z A y + noise,   y ~ N(0, C),   noise ~ N(0, sigma_x^2 I),   sigma_x = 10,

where the 50 columns of A are Gabor filters whose orientations fill a half circle, C is
circulant, and z is the contrast. The five stimuli are x = z A y for one pattern y centred on
filter 25 and five contrasts z, without noise. A network gets A^T x / 15 as input to both
populations; its excitatory potentials are to have the mean and the covariance that the
posterior of y given x and z has after the latents have been mapped to potentials (mV) by
2.4 [y + 1.8754]_+^0.6.

Source: Echeveste, Aitchison, Hennequin & Lengyel (2020). Cortical-like dynamics in recurrent
circuits optimized for sampling-based probabilistic inference. Nature Neuroscience 23,
1138-1149. The numbers are computed from the formulas.
"""


def make_ring_gsm() -> Bunch:
    r"""Ring benchmark: posterior moments that a network of 50 + 50 cells is to reproduce.

    The five stimuli differ in contrast only. The targets are the moments of the potentials
    :math:`u = 2.4 \lfloor y + 1.8754 \rfloor_+^{0.6}` (mV) when y follows the posterior of a
    Gaussian scale mixture given the stimulus and its contrast [1]_, by quadrature on 201
    nodes within four standard deviations. [2]_ sets the benchmark to networks grown cell by
    cell.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With these attributes, all arrays float64:

        A : ndarray of shape (256, 50)
            Gabor filters of unit norm as columns; a filter reshaped to (16, 16) is an image.
        C : ndarray of shape (50, 50)
            Prior covariance of the latents, circulant.
        y : ndarray of shape (50,)
            The latents behind all stimuli.
        x : ndarray of shape (5, 256)
            The stimuli.
        h : ndarray of shape (5, 100)
            External inputs, for 50 excitatory and then 50 inhibitory cells; the input
            function of a circuit maps them to mV.
        mu : ndarray of shape (5, 50)
            Target means of the excitatory potentials, in mV.
        sigma : ndarray of shape (5, 50, 50)
            Target covariances of the excitatory potentials, in mV**2.
        z : ndarray of shape (5,)
            Contrasts of the stimuli: 0, 0.125, 0.25, 0.5 and 1.
        DESCR : str
            Description and source.

    References
    ----------
    .. [1] Echeveste, Aitchison, Hennequin & Lengyel (2020). Nature Neuroscience 23,
       1138-1149.
    .. [2] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35. Section 4.

    Examples
    --------
    >>> from ssn_estimators.datasets import make_ring_gsm
    >>> ring = make_ring_gsm()
    >>> ring.h.shape, ring.sigma.shape
    ((5, 100), (5, 50, 50))
    """
    filters, prior = _gabor_filters(), _prior_covariance()
    latents = 6 * np.exp(-(((np.arange(N_LATENTS) - 25) / 7.5) ** 2) / 2)
    contrasts = np.array(CONTRASTS)
    stimuli = contrasts[:, None] * (filters @ latents)
    inputs = INPUT_SCALE * stimuli @ filters
    moments = [
        _transformed_moments(*_posterior(filters, prior, stimulus, contrast), _potential)
        for stimulus, contrast in zip(stimuli, contrasts, strict=True)
    ]
    means, covariances = (np.array(each) for each in zip(*moments, strict=True))
    return Bunch(
        A=filters,
        C=prior,
        y=latents,
        x=stimuli,
        h=np.hstack([inputs, inputs]),
        mu=means,
        sigma=covariances,
        z=contrasts,
        DESCR=DESCR,
    )


def make_ring_network() -> Circuit:
    """The network that was optimised for :func:`make_ring_gsm` when that was published.

    Its 15 numbers are those of [1]_, found with Euler's scheme at a step of 0.2 ms.

    Returns
    -------
    circuit : Circuit
        50 excitatory and 50 inhibitory cells.

    References
    ----------
    .. [1] Echeveste, Aitchison, Hennequin & Lengyel (2020). Nature Neuroscience 23,
       1138-1149, and its public code.

    Examples
    --------
    >>> from ssn_estimators.datasets import make_ring_network
    >>> make_ring_network().n_neurons
    100
    """
    return gaussian_ring(
        N_LATENTS,
        amplitudes=[[0.33109, 0.08131], [0.36321, 0.07360]],
        widths=[[0.80276, 0.56873], [0.85983, 0.62980]],
        noise_variances=(6.39919, 3.53351),
        noise_correlation=0.99285,
        noise_width=0.47795,
        theta=(1.95552, 0.10323, 2.03427),
    )


def _gabor_filters():
    """Filters of unit norm as columns, of evenly spaced orientations."""
    side = np.linspace(-3, 3, N_PIXELS)
    horizontal, vertical = (axis.reshape(-1, 1) for axis in np.meshgrid(side, side))
    orientation = np.pi * np.arange(N_LATENTS) / N_LATENTS
    cosine, sine = np.cos(orientation), np.sin(orientation)
    across = horizontal * cosine + vertical * sine
    along = vertical * cosine - horizontal * sine
    gabors = np.exp(-(across**2 + along**2) / 2) * np.cos(np.pi * across)
    return gabors / np.linalg.norm(gabors, axis=0)


def _prior_covariance():
    """Circulant covariance whose power falls by a factor e per frequency; C_00 = 4."""
    # the benchmark ends at frequency 24, without the highest one that 50 latents allow
    frequency = np.arange(N_LATENTS // 2)
    power = 20 * np.exp(-frequency)
    lag = np.arange(N_LATENTS)
    angle = 2 * np.pi / N_LATENTS * (lag[:, None] - lag)
    # cos a cos b + sin a sin b over unit-norm waves; the constant has half as many of them
    norm = np.where(frequency == 0, N_LATENTS, N_LATENTS / 2)
    covariance = np.cos(angle[..., None] * frequency) @ (power / norm)
    covariance += 0.01 * np.eye(N_LATENTS) - 0.25
    return covariance * (4 / covariance[0, 0])


def _posterior(filters, prior, stimulus, contrast):
    """Mean and covariance of the latents given a stimulus and its contrast."""
    precision = np.linalg.inv(prior) + (contrast / PIXEL_NOISE) ** 2 * filters.T @ filters
    covariance = np.linalg.inv(precision)
    return contrast / PIXEL_NOISE**2 * covariance @ (filters.T @ stimulus), covariance


def _potential(latents):
    """Membrane potential, in mV, that stands for a latent; it is 3.5 mV at 0."""
    baseline = (3.5 / 2.4) ** (1 / 0.6)
    return 2.4 * np.maximum(latents + baseline, 0) ** 0.6


def _transformed_moments(mean, covariance, transform):
    """Mean and covariance of `transform` of a Gaussian vector, element by element."""
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale)
    density = np.exp(-(NODES**2) / 2)
    density /= density.sum()
    values = transform(mean[:, None] + scale[:, None] * NODES)
    means = values @ density
    deviations = values - means[:, None]
    products = np.diag(deviations**2 @ density)
    for i in range(1, len(mean)):
        products[i, :i] = products[:i, i] = _expected_products(
            deviations[i], deviations[:i], correlation[i, :i]
        )
    return means, products


def _expected_products(f, g, correlation):
    """E[f(a) g_j(b)] for standard normal a and b of correlation r_j, f and g on the nodes.

    With evenly spaced nodes the density is exp(-(a + b)^2 / (4 (1 + r))) times
    exp(-(a - b)^2 / (4 (1 - r))): its exponentials are needed at the 401 sums of two nodes
    only, which also are the differences.
    """
    n = len(NODES)
    sums = np.linspace(2 * NODES[0], 2 * NODES[-1], 2 * n - 1)
    r = correlation[:, None]
    of_sum = sliding_window_view(np.exp(-(sums**2) / (4 * (1 + r))), n, axis=1)
    of_difference = sliding_window_view(np.exp(-(sums**2) / (4 * (1 - r))), n, axis=1)[:, ::-1]
    density = of_sum * of_difference
    return ((f @ density) * g).sum(1) / density.sum((1, 2))
