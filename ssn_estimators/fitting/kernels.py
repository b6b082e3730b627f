r"""Weights by distance as a function of their amplitudes and widths, and their slopes.

With the profile :math:`f(d, w)` the derivative of a kernel by the logarithm of its width is
:math:`f \, \partial \ln f / \partial \ln w`, and of one with normalised rows, :math:`K = f /
\sum f`, it is :math:`(f' - K \sum f') / \sum f`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ssn_estimators._torch import to_numbers
from ssn_estimators.geometry.connectivity import connect, kernels_by_type
from ssn_estimators.geometry.profiles import gaussian
from ssn_estimators.geometry.space import Space

if TYPE_CHECKING:
    from typing import Any, Literal

    from ssn_estimators._typing import ArrayLike

__all__ = ["Connectivity", "Kernels"]

# d ln f / d ln w of a profile f, from distances over widths, or of angles and widths
SLOPES = {
    "gaussian": lambda distance, width, period: (distance / width) ** 2,
    "exponential": lambda distance, width, period: distance / width,
    "von_mises": lambda distance, width, period: (
        2 * (1 - np.cos(2 * np.pi / period * distance)) / width**2
    ),
    "local": lambda distance, width, period: np.zeros_like(distance),
}
CLOSE = 1e-6  # relative to the largest weight; more is another circuit


@dataclass(frozen=True, eq=False)
class Connectivity:
    r"""Weights by distance, whose amplitudes and widths :class:`.CircuitRegressor` may fit.

    They are those of :func:`.geometry.connect`, with a cell of each type at every position.

    Parameters
    ----------
    space : Space
        Where the cells are.
    amplitudes, widths : float or array-like of shape (n_types, n_types)
        By type [post, pre], as of :func:`.geometry.connect`; amplitudes are magnitudes.
    profile : str or array-like of shape (n_types, n_types), default="gaussian"
        Names of profiles.
    normalize : {"rows", "density"} or None, default=None
        As of :func:`.geometry.connect`.
    feature_widths : float or array-like of shape (n_types, n_types), default=None
        As of :func:`.geometry.connect`.
    local_share : float or array-like of shape (n_types, n_types), default=0.0
        As there. These are not fitted.

    Raises
    ------
    ValueError
        As :func:`.geometry.connect`, and if a profile is a function, whose slope is not known.

    Examples
    --------
    How far synapses of a line of cells reach, from their rates under inputs of two widths.

    >>> import numpy as np
    >>> from ssn_estimators import Circuit, CircuitRegressor
    >>> from ssn_estimators.fitting import Connectivity, Free
    >>> from ssn_estimators.geometry import line
    >>> from ssn_estimators.inspection import steady_states
    >>> space = line(9)
    >>> inputs = 5.0 * (np.abs(space.positions[:, 0]) <= [[1], [3]])
    >>> true = Circuit(Connectivity(space, 0.2, 1.5).weights(), n_excitatory=9, k=0.04)
    >>> rates = steady_states(true, inputs).rates
    >>> guess = Connectivity(space, 0.1, 1.0)
    >>> model = CircuitRegressor(
    ...     Circuit(guess.weights(), n_excitatory=9, k=0.04), ["amplitudes", "widths"],
    ...     connectivity=guess, n_starts=2, random_state=0,
    ... )
    >>> found = model.fit(inputs, rates).connectivity_
    >>> found.amplitudes.round(3), found.widths.round(3)
    (array([[0.2]]), array([[1.5]]))
    """

    space: Space
    amplitudes: Any  # ArrayLike; arrays where they have been fitted
    widths: Any
    profile: ArrayLike = "gaussian"
    normalize: Literal["rows", "density"] | None = None
    feature_widths: ArrayLike | None = None
    local_share: ArrayLike = 0.0

    def __post_init__(self):
        if not isinstance(self.space, Space):
            raise ValueError(f"space of Connectivity must be a Space, got {self.space!r}.")
        if self.normalize not in (None, "rows", "density"):
            raise ValueError(f"normalize must be 'rows', 'density' or None, got {self.normalize!r}")
        if any(callable(one) for one in np.array(self.profile, dtype=object).ravel()):
            raise ValueError(f"profile of Connectivity must be names out of {list(SLOPES)}.")
        kernels_by_type(self.space, *self._of_types(), self.feature_widths, self.local_share)

    def _of_types(self):
        return self.amplitudes, self.widths, self.profile

    @property
    def n_types(self) -> int:
        """Number of types of cells."""
        kernels = kernels_by_type(
            self.space, *self._of_types(), self.feature_widths, self.local_share
        )
        return len(kernels)

    def weights(self, signs: ArrayLike | None = None) -> np.ndarray:
        """Weights of a circuit.

        Parameters
        ----------
        signs : sequence of shape (n_types,), default=None
            +1 for excitatory and -1 for inhibitory types; None leaves all weights >= 0.

        Returns
        -------
        weights : ndarray of shape (n_types * n_positions, n_types * n_positions)
            W[post, pre] in mV s, if amplitudes are.
        """
        found = connect(
            self.space,
            self.amplitudes,
            self.widths,
            profile=self.profile,
            normalize=self.normalize,
            feature_widths=self.feature_widths,
            local_share=self.local_share,
        )
        signs = np.ones(self.n_types) if signs is None else to_numbers(signs, float, "signs")
        if signs.shape != (self.n_types,):
            raise ValueError(f"signs must be one for each of {self.n_types} types, got {signs}.")
        return found * np.repeat(signs, self.space.n_positions)


class Kernels:
    """The map from amplitudes, with signs, and widths to the weights of a circuit.

    Parameters
    ----------
    connectivity : Connectivity
    weights : ndarray of shape (n_neurons, n_neurons)
        Of the circuit given, which must be those of the connectivity, with any signs.
    populations : dict
        Numbers of cells by name.
    """

    def __init__(self, connectivity, weights, populations):
        self.connectivity, space = connectivity, connectivity.space
        n, n_types = space.n_positions, connectivity.n_types
        if list(populations.values()) != [n] * n_types:
            raise ValueError(
                f"connectivity is of {n_types} types with {n} cells each, and the circuit has "
                f"{dict(populations)}."
            )
        signs = np.sign(weights.reshape(n_types * n, n_types, n).sum((0, 2)))
        signs = np.where(signs < 0, -1.0, 1.0)
        if not np.allclose(connectivity.weights(signs), weights, 0, CLOSE * np.abs(weights).max()):
            raise ValueError(
                "the circuit's weights are not those of connectivity: make it with "
                "connectivity.weights(signs)."
            )
        tables = connectivity.amplitudes, connectivity.widths, connectivity.profile
        local_share, feature_widths = connectivity.local_share, connectivity.feature_widths
        self.profiles = kernels_by_type(space, *tables, feature_widths, local_share)
        shape = n_types, n_types
        self.names = np.broadcast_to(np.array(connectivity.profile, dtype=object), shape)
        self.amplitudes = signs * np.broadcast_to(np.array(connectivity.amplitudes, float), shape)
        # what is not connected has no width that could be found
        widths = np.broadcast_to(np.array(connectivity.widths, float), shape)
        self.widths = np.where((self.amplitudes != 0) & (self.names != "local"), widths, 0.0)
        self.distance, self.period = space.distances(), space.periods[0]
        self.difference = None if space.orientation is None else space.orientation_differences()

    def arrays(self):
        """Those of the circuit given, of shape (n_types, n_types)."""
        return {"amplitudes": self.amplitudes, "widths": self.widths}

    def connectivity_of(self, arrays):
        """The connectivity with other numbers."""
        given = np.broadcast_to(np.array(self.connectivity.widths, float), self.widths.shape)
        widths = np.where(self.widths == 0, given, arrays["widths"])
        return replace(self.connectivity, amplitudes=np.abs(arrays["amplitudes"]), widths=widths)

    def weights(self, arrays):
        """Of shape (..., n_neurons, n_neurons), with leading axes as the arrays have them."""
        blocks = self._blocks(arrays["widths"], slopes=False)
        return self._joined(arrays["amplitudes"][..., None, None] * blocks)

    def slopes(self, arrays, slopes):
        """Derivatives of the weights, of shape (n_neurons**2, n_parameters)."""
        found = 0.0
        if "amplitudes" in slopes:
            kernels = self._blocks(arrays["widths"], slopes=False)
            found = found + self._times(kernels, slopes["amplitudes"])
        if "widths" in slopes:
            widths = np.where(self.widths == 0, 1.0, arrays["widths"])
            of_widths = self._blocks(arrays["widths"], slopes=True) / widths[..., None, None]
            of_widths = arrays["amplitudes"][..., None, None] * of_widths
            found = found + self._times(of_widths, slopes["widths"])
        return found

    def _times(self, blocks, slopes):
        """Blocks, of which each goes with a number, times the slopes of these numbers."""
        n_types, p = len(blocks), slopes.shape[1]
        by_pair = blocks[..., None] * slopes.reshape(n_types, n_types, 1, 1, p)
        return by_pair.swapaxes(1, 2).reshape(-1, p)

    @staticmethod
    def _joined(blocks):
        n = blocks.shape[-4] * blocks.shape[-1]
        return np.swapaxes(blocks, -3, -2).reshape(*blocks.shape[:-4], n, n)

    def _blocks(self, widths, slopes):
        """Kernels of shape (..., n_types, n_types, n_positions, n_positions).

        Or their slopes by the logarithms of the widths.
        """
        found = np.zeros((*widths.shape, *self.distance.shape))
        for place, name in np.ndenumerate(self.names):
            if self.amplitudes[place] == 0:
                continue
            width = np.where(self.widths[place] == 0, 1.0, widths[(..., *place)])[..., None, None]
            found[(..., *place, slice(None), slice(None))] = self._block(place, name, width, slopes)
        return found

    def _block(self, place, name, width, slopes):
        kernel = self.profiles[place[0]][place[1]]
        values = kernel.profile(self.distance, width)
        if kernel.feature_width < np.inf:
            values = values * gaussian(self.difference, kernel.feature_width)
        by_width = 0.0
        if slopes:
            with np.errstate(over="ignore", invalid="ignore"):
                by_width = values * SLOPES[name](self.distance, width, self.period)
            by_width = np.where(values > 0, by_width, 0.0)  # far away in units of the width
        total = 1.0
        if self.connectivity.normalize == "rows":
            total = values.sum(-1, keepdims=True)
            by_width = by_width - values / total * np.sum(by_width, -1, keepdims=True)
        elif self.connectivity.normalize == "density":
            total = len(self.distance)
        share = kernel.local_share
        if slopes:
            return (1 - share) * by_width / total
        return share * np.eye(len(self.distance)) + (1 - share) * values / total
