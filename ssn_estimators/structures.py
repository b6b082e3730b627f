"""What is trained of a circuit: unconstrained magnitudes, circulant blocks or a Gaussian ring.

A structure maps a circuit to a dictionary of free parameters (`parameters`, exact for
circuits that have the structure and sensible ones for those that have not) and
back (`circuit`, differentiable). Signs are fixed by Dale's law, so every value of the
parameters is a legal circuit. `weaken` scales the weights among E cells in place. `magnitudes`
names the parameter, if there is one, that is kept from falling below 0: at 0 a weight still has
a gradient. (Of |w|, steps past 0 would let small weights grow whatever the sign of the gradient.)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ssn_estimators.geometry import ring_matrices

__all__ = ["STRUCTURES", "Circulant", "GaussianRing", "InLogs", "Unconstrained"]

LEAST_WEIGHT = 1e-6  # mV s; of weights that are trained as logarithms


class Unconstrained:
    """Every weight by itself: W = w sign(presynaptic cell), n and theta = roots**2 free."""

    needs_pairs = False
    magnitudes = "weights"

    @staticmethod
    def weaken(parameters, n_excitatory, factor):
        parameters["weights"][:n_excitatory, :n_excitatory] *= factor

    @staticmethod
    def parameters(circuit):
        return {
            "weights": np.abs(circuit.weights),
            "noise_factor": circuit.noise_factor.copy(),
            "theta_roots": np.sqrt(circuit.theta),
        }

    @staticmethod
    def circuit(parameters, like):
        weights = parameters["weights"]
        signs = torch.as_tensor(like.signs, dtype=weights.dtype, device=weights.device)
        return replace(
            like,
            weights=weights.clamp_min(0) * signs,
            noise_factor=parameters["noise_factor"],
            theta=parameters["theta_roots"] ** 2,
        )


class Circulant:
    """Four symmetric circulant blocks of W, and of n: n_pairs // 2 + 1 numbers a block."""

    needs_pairs = True
    magnitudes = "weight_profiles"

    @staticmethod
    def weaken(parameters, n_excitatory, factor):
        parameters["weight_profiles"][0, 0] *= factor

    @staticmethod
    def parameters(circuit):
        return {
            "weight_profiles": np.abs(_profiles(circuit.weights)),
            "noise_profiles": _profiles(circuit.noise_factor),
            "theta_roots": np.sqrt(circuit.theta),
        }

    @staticmethod
    def circuit(parameters, like):
        weights = parameters["weight_profiles"]
        n_pairs = like.n_excitatory
        distance = torch.as_tensor(_distance(n_pairs), device=weights.device)
        signs = torch.as_tensor(like.signs, dtype=weights.dtype, device=weights.device)
        return replace(
            like,
            weights=_from_blocks(weights.clamp_min(0)[:, :, distance]) * signs,
            noise_factor=_from_blocks(parameters["noise_profiles"][:, :, distance]),
            theta=parameters["theta_roots"] ** 2,
        )


class GaussianRing:
    """The 15 numbers of `gaussian_ring`; those that must be positive are trained as logs.

    A block without a profile, as in a circuit grown from a pair, gets the width 0.7 (noise
    0.5) and the amplitude that keeps its mean weight.
    """

    needs_pairs = True
    magnitudes = None
    noise_floor = 0.01

    @staticmethod
    def weaken(parameters, n_excitatory, factor):
        parameters["log_amplitudes"][0, 0] += np.log(factor)

    @classmethod
    def parameters(cls, circuit):
        n_pairs, dtype = circuit.n_excitatory, circuit.weights.dtype
        profiles = np.abs(_profiles(circuit.weights.astype(float)))
        fits = [[_width(profile, n_pairs, 0.7) for profile in row] for row in profiles]
        noise_factor = circuit.noise_factor.astype(float)
        covariance = noise_factor @ noise_factor.T - cls.noise_floor * np.eye(2 * n_pairs)
        noise_profiles = _profiles(covariance)
        variances = np.maximum(np.diagonal(noise_profiles[:, :, 0]), cls.noise_floor)
        correlation = noise_profiles[0, 1, 0] / np.sqrt(variances.prod())
        noise_width = _width(noise_profiles[0, 0], n_pairs, 0.5)[1]
        parameters = {
            "log_amplitudes": np.log([[max(fit[0], 1e-6) for fit in row] for row in fits]),
            "log_widths": np.log([[fit[1] for fit in row] for row in fits]),
            "log_noise": np.log([*variances, noise_width]),
            "noise_correlation": np.arctanh(np.clip([correlation], -0.9999, 0.9999)),
            "theta_roots": np.sqrt(circuit.theta),
        }
        return {name: value.astype(dtype) for name, value in parameters.items()}

    @classmethod
    def circuit(cls, parameters, like):
        noise = parameters["log_noise"].exp()
        weights, noise_factor = ring_matrices(
            like.n_excitatory,
            parameters["log_amplitudes"].exp(),
            parameters["log_widths"].exp(),
            noise[:2],
            torch.tanh(parameters["noise_correlation"][0]),
            noise[2],
            cls.noise_floor,
        )
        return replace(
            like, weights=weights, noise_factor=noise_factor, theta=parameters["theta_roots"] ** 2
        )


class InLogs:
    """A structure with the magnitudes of its weights as logarithms.

    A step then changes small and large weights by the same share.
    """

    magnitudes = None

    def __init__(self, structure):
        self.structure, self.name = structure, structure.magnitudes

    def parameters(self, circuit):
        parameters = self.structure.parameters(circuit)
        magnitudes = np.maximum(parameters[self.name], LEAST_WEIGHT)
        return parameters | {self.name: np.log(magnitudes)}

    def circuit(self, parameters, like):
        magnitudes = parameters[self.name].exp()
        return self.structure.circuit(parameters | {self.name: magnitudes}, like)

    def weaken(self, parameters, n_excitatory, factor):
        magnitudes = parameters[self.name].exp()
        self.structure.weaken({self.name: magnitudes}, n_excitatory, factor)
        parameters[self.name].copy_(magnitudes.log())


STRUCTURES = {None: Unconstrained, "circulant": Circulant, "gaussian_ring": GaussianRing}


def _distance(n_pairs):
    gap = np.abs(np.arange(n_pairs)[:, None] - np.arange(n_pairs))
    return np.minimum(gap, n_pairs - gap)


def _profiles(matrix):
    """Mean over each diagonal of the four blocks, folded: shape (2, 2, n_pairs // 2 + 1)."""
    n_pairs = len(matrix) // 2
    distance = _distance(n_pairs)
    blocks = matrix.reshape(2, n_pairs, 2, n_pairs).transpose(0, 2, 1, 3)
    means = [blocks[:, :, distance == d].mean(-1) for d in range(n_pairs // 2 + 1)]
    return np.stack(means, axis=-1)


def _width(profile, n_pairs, default):
    """Amplitude and width of a profile a exp((cos(angle) - 1) / width**2)."""
    drop = np.cos(2 * np.pi * np.arange(len(profile)) / n_pairs) - 1
    usable = np.flatnonzero((profile > 1e-4 * profile[0]) & (profile < 0.999 * profile[0]))
    if profile[0] > 0 and len(usable):
        d = usable[-1]
        return profile[0], np.sqrt(drop[d] / np.log(profile[d] / profile[0]))
    repeats = _distance(n_pairs)[0]
    shape = np.exp(drop / default**2)
    return profile[repeats].mean() / shape[repeats].mean(), default


def _from_blocks(blocks):
    n_pairs = blocks.shape[-1]
    return blocks.permute(0, 2, 1, 3).reshape(2 * n_pairs, 2 * n_pairs)
