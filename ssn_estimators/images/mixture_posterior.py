"""Gaussian scale mixtures in the coordinates in which their posteriors are diagonal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from joblib import Parallel, delayed
from scipy.special import digamma, gammaln, logsumexp
from sklearn.utils import gen_batches

__all__ = ["Images", "Mixture"]

ROWS = 4096  # images that are projected at once
BLOCK = 128  # images whose integrals over z are taken at once
DEPTH = 40.0  # nats below its peak where an integrand over log z no longer counts
COARSE = 512  # nodes of the search for its extent
HIGHEST = 25.0  # log of the largest contrast over the mean one


@dataclass(frozen=True)
class Images:
    """Images by their coordinates in the span of the fields, and by what lies outside of it.

    Parameters
    ----------
    inside : ndarray of shape (n_images, rank)
        Coordinates in an orthonormal basis of the span.
    outside : ndarray of shape (n_images,)
        Squared norm of the rest.
    n_pixels : int
    """

    inside: np.ndarray
    outside: np.ndarray
    n_pixels: int

    @classmethod
    def project(cls, X, basis):
        """`basis` has shape (n_pixels, rank) and orthonormal columns."""
        inside, outside = np.empty((len(X), basis.shape[1])), np.empty(len(X))
        for rows in gen_batches(len(X), ROWS):
            own = X[rows].astype(float)  # the rest is a small difference of large numbers
            inside[rows] = own @ basis
            outside[rows] = np.einsum("ij,ij->i", own, own) - (inside[rows] ** 2).sum(1)
        return cls(inside, np.maximum(outside, 0.0), X.shape[1])

    def __len__(self):
        return len(self.outside)

    def __getitem__(self, rows):
        return Images(self.inside[rows], self.outside[rows], self.n_pixels)


@dataclass(frozen=True)
class Mixture:
    """x = z A y + noise, with y ~ N(0, L L^T), z ~ Gamma(shape, rate), noise ~ N(0, variance).

    Parameters
    ----------
    fields : ndarray of shape (rank, n_latents)
        A, in an orthonormal basis of its span.
    factor : ndarray of shape (n_latents, n_latents)
        Lower triangular L.
    noise_variance, shape, rate : float
    n_nodes : int
        Nodes of the integral over z.
    n_jobs : int or None
        Threads.
    """

    fields: np.ndarray
    factor: np.ndarray
    noise_variance: float
    shape: float
    rate: float
    n_nodes: int = 64
    n_jobs: int | None = None

    @cached_property
    def basis(self):
        """U, s and V of A L = U diag(s) V^T, V complete and s filled up with zeros."""
        rank, n_latents = self.fields.shape
        U, s, Vt = np.linalg.svd(self.fields @ self.factor, full_matrices=rank < n_latents)
        return U, np.concatenate([s, np.zeros(n_latents - rank)]), Vt.T

    @cached_property
    def turn(self):
        """Log of a contrast that leaves no trace in any image, or that is below the mean one."""
        unseen = 0.5 * math.log(self.noise_variance / max(self.basis[1][0] ** 2, 1e-300))
        return min(math.log(self.shape / self.rate), unseen)

    def nodes(self, t):
        """log z at t, and log p(t) but for its normaliser.

        Below the turn, where a small shape makes p(log z) fall slowly, log z runs ever faster;
        above, t is log z.
        """
        below = np.exp(self.turn - t)
        log_z = t - below
        return log_z, self.shape * log_z - self.rate * np.exp(log_z) + np.log1p(below)

    @cached_property
    def coarse(self):
        """A grid of t, log p(t) and, at each, precisions and the log of their product."""
        t = np.linspace(
            self.turn - math.log(DEPTH / self.shape + math.e),
            math.log(self.shape / self.rate) + HIGHEST,
            COARSE,
        )
        log_z, log_prior = self.nodes(t)
        precision = 1 / (self.noise_variance + np.exp(2 * log_z)[:, None] * self.basis[1] ** 2)
        return t, log_prior, precision, np.log(precision).sum(1)

    def _blocks(self, function, images):
        """`function` of the posteriors over z of blocks of images."""
        blocks = gen_batches(len(images), BLOCK)
        self.basis, self.coarse  # noqa: B018 (before threads ask for them)
        parallel = Parallel(self.n_jobs, require="sharedmem")
        return parallel(delayed(lambda b: function(_Contrasts(self, images[b])))(b) for b in blocks)

    def log_likelihood(self, images):
        """log p(x) of every image."""
        return np.concatenate(self._blocks(lambda block: block.log_likelihood, images))

    def log_likelihood_and_gradient(self, images):
        """Sum of log p(x), and its gradient by factor, noise variance, shape and rate."""
        parts = zip(*self._blocks(_Contrasts.gradient, images), strict=True)
        total, squares, precisions, by_noise, by_shape, by_rate = (sum(part) for part in parts)
        U, s, V = self.basis
        rank = len(self.fields)
        by_factor = self.fields.T @ U @ (squares - np.diag(precisions))[:rank] * s @ V.T
        return total, (np.tril(by_factor), by_noise, by_shape, by_rate)

    def contrasts(self, images):
        """Posterior means and variances of z."""
        parts = self._blocks(lambda block: (block.mean(block.z), block.variance()), images)
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def contrasts_of(self, variances):
        """Contrasts given which the variances of y have such sums."""
        t, _, precision, _ = self.coarse
        back = self.factor @ self.basis[2]
        # falls with the contrast, from that of the prior on
        sums = self.noise_variance * precision @ (back**2).sum(0)
        return np.exp(np.interp(variances, sums[::-1], self.nodes(t)[0][::-1]))

    def draw(self, images, n_samples, rng):
        """Samples of y from the posterior, of shape (n_images, n_samples, n_latents)."""
        _, s, V = self.basis
        samples = np.empty((len(images), n_samples, len(s)))
        for i in range(len(images)):
            block = _Contrasts(self, images[i : i + 1])
            # between nodes, which are close to each other, the posterior is linear enough
            steps = np.concatenate([[0.0], np.cumsum(block.weights[0])])
            at = np.interp(rng.uniform(0, steps[-1], n_samples), steps, np.arange(len(steps)))
            z = np.exp(np.interp(at - 0.5, np.arange(len(steps) - 1), block.log_z[0]))[:, None]
            precision = 1 / (self.noise_variance + z**2 * s**2)
            mean = precision * z * s * block.coordinates
            spread = np.sqrt(self.noise_variance * precision)
            samples[i] = (mean + spread * rng.normal(size=mean.shape)) @ (self.factor @ V).T
        return samples

    def moments(self, images, dtype=float):
        """Posterior means and covariances of y."""
        n, d = len(images), len(self.factor)
        means, covariances = np.empty((n, d), dtype), np.empty((n, d, d), dtype)
        blocks = self._blocks(_Contrasts.moments, images)
        for rows, (mean, covariance) in zip(gen_batches(n, BLOCK), blocks, strict=True):
            means[rows], covariances[rows] = mean, covariance
        return means, covariances


class _Contrasts:
    """Posterior over z of some images, on nodes of their own.

    Attributes
    ----------
    z, weights : ndarrays of shape (n_images, n_nodes)
    precision : ndarray of shape (n_images, n_nodes, n_latents)
        1 / (noise variance + z^2 s^2), of the images' coordinates given z.
    coordinates : ndarray of shape (n_images, n_latents)
        Those in the basis U, filled up with zeros.
    log_likelihood : ndarray of shape (n_images,)
    """

    def __init__(self, mixture, images):
        self.mixture, self.images = mixture, images
        U, self.s, _ = mixture.basis
        n_images, (rank, n_latents) = len(images), mixture.fields.shape
        self.coordinates = np.zeros((n_images, n_latents))
        self.coordinates[:, :rank] = images.inside @ U
        squares = self.coordinates**2

        t, log_prior, precision, log_product = mixture.coarse
        heights = log_prior + (log_product - squares @ precision.T) / 2
        counts = heights > heights.max(1, keepdims=True) - DEPTH
        step = t[1] - t[0]
        low = t[counts.argmax(1)] - step
        high = t[COARSE - 1 - counts[:, ::-1].argmax(1)] + step
        # the integrand and its derivatives vanish at both ends, where the trapezoidal sum has
        # no error but one that falls exponentially with the number of nodes
        width = ((high - low) / (mixture.n_nodes - 1))[:, None]
        self.log_z, heights = mixture.nodes(low[:, None] + width * np.arange(mixture.n_nodes))
        self.z = np.exp(self.log_z)
        variance = (self.z**2)[..., None] * self.s**2
        variance += mixture.noise_variance
        self.precision = np.reciprocal(variance, out=variance)
        heights -= np.einsum("bqd,bd->bq", self.precision, squares) / 2
        heights += np.log(self.precision).sum(2) / 2
        total = logsumexp(heights, axis=1, keepdims=True)
        self.weights = np.exp(heights - total)
        normalizer = mixture.shape * math.log(mixture.rate) - gammaln(mixture.shape)
        # the product of precisions is over all latents, those beyond the rank included
        n_outside = images.n_pixels - n_latents
        self.log_likelihood = (
            (total + np.log(width))[:, 0]
            + normalizer
            - 0.5
            * (
                images.outside / mixture.noise_variance
                + n_outside * math.log(mixture.noise_variance)
                + images.n_pixels * math.log(2 * math.pi)
            )
        )

    def mean(self, values):
        return (self.weights * values).sum(1)

    def variance(self):
        return self.mean((self.z - self.mean(self.z)[:, None]) ** 2)

    def moments(self):
        mixture, root = self.mixture, np.sqrt(self.weights)[..., None]
        gain = self.precision * self.z[..., None] * self.s  # from coordinates to L^-1 y
        expected = np.einsum("bq,bqd->bd", self.weights, gain)
        spread = (gain - expected[:, None]) * root * self.coordinates[:, None]
        covariance = spread.mT @ spread
        own = mixture.noise_variance * np.einsum("bq,bqd->bd", self.weights, self.precision)
        np.einsum("bii->bi", covariance)[:] += own
        back = mixture.factor @ mixture.basis[2]
        return (expected * self.coordinates) @ back.T, back @ covariance @ back.T

    def gradient(self):
        """What the gradient of the log-likelihood is made of, summed over images."""
        mixture, images = self.mixture, self.images
        n_images, rank = len(images), len(mixture.fields)
        root = np.sqrt(self.weights) * self.z
        whitened = self.precision * self.coordinates[:, None]
        seen = (whitened * root[..., None]).reshape(-1, whitened.shape[2])
        precisions = np.einsum("bq,bqd->d", root**2, self.precision)
        power = np.einsum("bqd->bq", whitened[..., :rank] ** 2 - self.precision[..., :rank])
        noise = mixture.noise_variance
        by_noise = (
            (self.weights * power).sum()
            + images.outside.sum() / noise**2
            - n_images * (images.n_pixels - rank) / noise
        ) / 2
        by_shape = n_images * (math.log(mixture.rate) - digamma(mixture.shape))
        by_shape += self.mean(self.log_z).sum()
        by_rate = n_images * mixture.shape / mixture.rate - self.mean(self.z).sum()
        return (
            self.log_likelihood.sum(),
            seen.T @ seen,
            precisions,
            by_noise,
            by_shape,
            by_rate,
        )
