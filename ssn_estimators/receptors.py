"""Synaptic receptors: filters between the rates of a circuit and its potentials, as a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Receptors"]


@dataclass(frozen=True, eq=False)
class Receptors:
    r"""Receptors that low-pass what cells send, each with its own time constant.

    Weights of a presynaptic population are shared out to receptors. With the share
    :math:`c_{sj}` of cell j's synapses that have receptor s, potentials are ([1]_)

    .. math::
        u = x + W \sum_s c_s \circ y_s, \qquad \tau_s \dot y_s = -y_s + r(u), \qquad
        \tau_{ext} \dot x = -x + f(h) + \eta .

    That is the sum of the :math:`v_s = W_s y_s` of [1]_, with :math:`W_s = W \mathrm{diag}(c_s)`
    and the external input in one of them. Cells have no time constants of their own: rates
    follow the potentials at once. Fixed points are those of the circuit without receptors.

    Parameters
    ----------
    tau : mapping of str to float
        Time constant of each receptor in ms, > 0.
    shares : mapping of str to mapping
        For each population of the circuit, which receptors its synapses have: a share >= 0 for
        each, which sum to 1.
    external : str, default=None
        Receptor through which external input and noise enter; None means the first.

    Raises
    ------
    ValueError
        If a time constant or a share is not legal, or there is no such receptor.

    References
    ----------
    .. [1] Holt, Miller & Ahmadian (2024). PLOS Computational Biology 20, e1012190.

    Examples
    --------
    >>> from ssn_estimators import Circuit, Receptors
    >>> receptors = Receptors({"AMPA": 4.0, "GABA": 5.0, "NMDA": 100.0},
    ...                       {"E": {"AMPA": 0.6, "NMDA": 0.4}, "I": {"GABA": 1.0}})
    >>> pair = Circuit([[2.7, -2.3], [2.6, -1.3]], 1, k=0.04, receptors=receptors)
    >>> pair.jacobian(pair.gain([[2.0, 2.0]])).shape  # of x and three kinds of y
    (1, 8, 8)
    """

    tau: Mapping[str, float]
    shares: Mapping[str, Mapping[str, float]]
    external: str | None = None

    def __post_init__(self):
        tau, shares = dict(_mapping(self.tau, "tau")), {}
        for name, value in tau.items():
            if not _is_number(value) or value <= 0:
                raise ValueError(f"tau of {name!r} must be a finite number of ms > 0, got {value}.")
        for population, own in _mapping(self.shares, "shares").items():
            own = dict(_mapping(own, f"shares of {population!r}"))
            unknown = own.keys() - tau.keys()
            if unknown:
                raise ValueError(
                    f"shares of {population!r} have receptors {sorted(unknown)}, which are none of "
                    f"{list(tau)}."
                )
            legal = all(_is_number(x) and x >= 0 for x in own.values())
            if not legal or not math.isclose(sum(own.values()), 1.0, rel_tol=1e-6):
                raise ValueError(
                    f"shares of {population!r} must be numbers >= 0 that sum to 1, got {own}."
                )
            shares[population] = MappingProxyType(own)
        external = next(iter(tau)) if self.external is None else self.external
        if external not in tau:
            raise ValueError(f"external must be one of {list(tau)}, got {external!r}.")
        object.__setattr__(self, "tau", MappingProxyType(tau))
        object.__setattr__(self, "shares", MappingProxyType(shares))
        object.__setattr__(self, "external", external)

    def __reduce__(self):
        return Receptors, tuple(self.state().values())

    def state(self) -> dict[str, Any]:
        """Parameters as dicts that can be written to a file."""
        shares = {name: dict(own) for name, own in self.shares.items()}
        return {"tau": dict(self.tau), "shares": shares, "external": self.external}

    def kind(self) -> tuple:
        """Equal for receptors that are alike."""
        shares = tuple((name, tuple(own.items())) for name, own in self.shares.items())
        return tuple(self.tau.items()), shares, self.external

    def check_populations(self, populations: Mapping[str, int]) -> None:
        """Raise ValueError unless there are shares for just these.

        Parameters
        ----------
        populations : mapping of str to int
            Cells of every population, as in :class:`Circuit`.
        """
        if self.shares.keys() != populations.keys():
            raise ValueError(
                f"receptors need shares of each population, {list(populations)}; got "
                f"{list(self.shares)}."
            )

    def shares_of_cells(self, populations: Mapping[str, int]) -> np.ndarray:
        """Array of shape (n_receptors, n_neurons).

        Parameters
        ----------
        populations : mapping of str to int
            Cells of every population, as in :class:`Circuit`.
        """
        return _shares_of_cells(self, tuple(populations.items()))


@lru_cache(64)
def _shares_of_cells(receptors, populations):
    names, sizes = zip(*populations, strict=True)
    own = [[receptors.shares[x].get(receptor, 0.0) for x in names] for receptor in receptors.tau]
    shares = np.repeat(own, sizes, axis=1)
    shares.setflags(write=False)
    return shares


def _mapping(value, name):
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{name} of receptors must be a mapping by names, got {value!r}.")
    if not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} of receptors must have names as keys, got {list(value)}.")
    return value


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
