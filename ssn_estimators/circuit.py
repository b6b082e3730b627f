"""The circuit: weights, noise and constants of a stabilized supralinear network, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import issparse

from ssn_estimators._matrices import (
    against_signs,
    as_matrix,
    detached,
    frozen,
    is_sparse,
    sparse_noise,
    times,
    to_torch,
)
from ssn_estimators._torch import to_numbers, to_tensor
from ssn_estimators.rate_functions import RateFunction
from ssn_estimators.receptors import Receptors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal, Self

    from scipy.sparse import sparray

    from ssn_estimators._typing import AnyArray, Array, ArrayLike, Constant, SparseLike, StrPath

__all__ = ["CONSTANTS", "DIVERGENCE_THRESHOLD", "Circuit", "kind_of"]

DIVERGENCE_THRESHOLD = 1e3  # mV; networks and biology stay below 50, a runaway passes it within ms
DYNAMICS = ("voltage", "rate")
CONSTANTS = ("k", "gamma", "tau_e", "tau_i", "tau_eta")  # of a circuit, besides its arrays


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Circuit:
    r"""Stochastic stabilized supralinear network (SSN) of excitatory and inhibitory cells.

    The membrane potentials :math:`u` (mV) follow Eqs. 1-3 of [1]_,

    .. math::
        \tau \dot u &= -u + f(h) + W r + \eta, \\
        r &= k \lfloor u \rfloor_+^\gamma, \qquad
        f(h) = \theta_1 \lfloor h + \theta_2 \rfloor_+^{\theta_3},

    where :math:`\eta` is an Ornstein-Uhlenbeck process with correlation time `tau_eta` and
    stationary covariance :math:`n n^T`. The rectification in :math:`f` makes it defined for
    any input; it changes nothing where :math:`h \ge -\theta_2`.

    A circuit is a frozen value. Its arrays are either all NumPy (the default; copied and
    made read-only) or all torch tensors, in which case everything computed from the circuit
    is a tensor too and can be differentiated.

    Parameters
    ----------
    weights : array-like, sparse array or Tensor of shape (n_neurons, n_neurons)
        Synaptic weights W[post, pre], in mV s. Excitatory cells come first: the first
        `n_excitatory` columns must be >= 0, the others <= 0 (Dale's law). With a sparse array of
        SciPy, the noise factor is one too; such circuits can be simulated, and
        :func:`~ssn_estimators.inspection.steady_states` finds where they settle.
    n_excitatory : int, default=None
        Number of excitatory cells, from 1 to n_neurons. None means the cells of the first of
        the `populations`.
    noise_factor : float, mapping, array-like or Tensor, default=0.0
        Factor n of the stationary noise covariance :math:`\Sigma_\eta = n n^T`, in mV, of shape
        (n_neurons, n_neurons). Numbers mean independent noise of that standard deviation: of every
        cell, by population, or of each cell, then of shape (n_neurons,).
    theta : sequence of 3 floats or Tensor of shape (3,), default=(1.0, 0.0, 1.0)
        Scale, shift and exponent of the input function f, all >= 0. The default is f(h) = h
        for h >= 0.
    k : float, mapping or array-like of shape (n_neurons,), default=None
        Gain of the rate function, in Hz / mV**gamma: of all cells, by population, or of each
        cell. None means 0.3, or 1 with a `rate_function`.
    gamma : float, mapping or array-like of shape (n_neurons,), default=None
        Exponent of the rate function, >= 1. None means 2.
    tau_e, tau_i : float or array-like, default=20.0 and 10.0
        Membrane time constants of excitatory and inhibitory cells, in ms; arrays have one for
        each of these cells.
    tau_eta : float, default=20.0
        Correlation time of the noise, in ms.
    populations : mapping of str to int, default=None
        Cell types in the order of the cells, and how many cells each has: the excitatory ones
        first, then the inhibitory ones. None means "E" and "I".
    tau : float, mapping or array-like of shape (n_neurons,), default=None
        Membrane time constants of all cells, by population, or of each cell, in ms; in place of
        `tau_e` and `tau_i`.
    dynamics : {"voltage", "rate"}, default="voltage"
        Whether potentials or rates have the time constants. The rate form is :math:`\tau \dot r =
        -r + k \lfloor W r + f(h) + \eta \rfloor_+^\gamma`: it has the same fixed points with the
        same stability, and for weak noise the same spectra of rates; large transients differ.
    rate_function : RateFunction, default=None
        What rates are in place of the power law: :math:`r = k \phi(u)`, such as
        :class:`~ssn_estimators.rate_functions.Ricciardi`. Then there is no `gamma`: it is None.
    receptors : Receptors, default=None
        Filters by receptors of the synapses, in place of the membrane time constants.
    unconnected : sequence of (str, str), default=()
        Pairs (post, pre) of populations without synapses from pre to post: those weights must be 0.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite or out of range, populations do not add up
        or are not known, a weight breaks Dale's law or is where there are no synapses, or arguments
        exclude each other.

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> pair = Circuit([[1.25, -0.65], [1.2, -0.5]], n_excitatory=1, noise_factor=0.2, k=0.04)
    >>> pair.n_inhibitory
    1
    >>> pair.drive([[2.0, 2.0]])
    array([[2., 2.]])
    >>> types = {"E": 4, "PV": 1, "SST": 1}
    >>> circuit = Circuit([[0.1] * 4 + [-0.2] * 2] * 6, populations=types, tau={"E": 20,
    ...                   "PV": 10, "SST": 15})
    >>> circuit["SST"], circuit.tau
    (slice(5, 6, None), array([20., 20., 20., 20., 10., 15.]))
    """

    weights: np.ndarray | torch.Tensor
    n_excitatory: int
    noise_factor: np.ndarray | torch.Tensor
    theta: np.ndarray | torch.Tensor
    k: float | np.ndarray
    gamma: float | np.ndarray
    tau_e: float | np.ndarray
    tau_i: float | np.ndarray
    tau_eta: float
    populations: Mapping[str, int]
    dynamics: str
    rate_function: RateFunction | None
    receptors: Receptors | None
    unconnected: tuple[tuple[str, str], ...]

    def __init__(
        self,
        weights: SparseLike | torch.Tensor,
        n_excitatory: int | None = None,
        noise_factor: Constant | torch.Tensor | sparray = 0.0,
        theta: AnyArray = (1.0, 0.0, 1.0),
        k: Constant | None = None,
        gamma: Constant | None = None,
        tau_e: ArrayLike = 20.0,
        tau_i: ArrayLike = 10.0,
        tau_eta: float = 20.0,
        *,
        populations: Mapping[str, int] | None = None,
        tau: Constant | None = None,
        dynamics: Literal["voltage", "rate"] = "voltage",
        rate_function: RateFunction | None = None,
        receptors: Receptors | None = None,
        unconnected: Sequence[tuple[str, str]] = (),
    ) -> None:
        _check_parts(dynamics, gamma, rate_function, receptors)
        weights = as_matrix(weights)
        if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
            raise ValueError(
                f"weights must be a square matrix W[post, pre], got shape {tuple(weights.shape)}."
            )
        n = weights.shape[0]
        n_excitatory, populations = _cells(n, n_excitatory, populations)
        noise_factor = self._square(noise_factor, weights, populations)
        theta = self._like(theta, weights, "theta")
        if tuple(theta.shape) != (3,):
            raise ValueError(
                "theta must be the three numbers (theta1, theta2, theta3) of the input "
                f"function, got shape {tuple(theta.shape)}."
            )
        if tau is not None:
            tau = _by_cell(tau, populations, "tau")
            tau_e, tau_i = tau[:n_excitatory], tau[n_excitatory:] if n > n_excitatory else tau_i
        if receptors is not None:
            receptors.check_populations(populations)
        if rate_function is None:
            gamma = _constant(2.0 if gamma is None else gamma, n, populations, "gamma")
        k = (0.3 if rate_function is None else 1.0) if k is None else k
        values = {
            "weights": weights,
            "n_excitatory": n_excitatory,
            "noise_factor": noise_factor,
            "theta": theta,
            "k": _constant(k, n, populations, "k"),
            "gamma": gamma,
            "tau_e": _constant(tau_e, n_excitatory, populations, "tau_e"),
            "tau_i": _constant(tau_i, n - n_excitatory, populations, "tau_i"),
            "tau_eta": tau_eta,
            "populations": populations,
            "dynamics": dynamics,
            "rate_function": rate_function,
            "receptors": receptors,
            "unconnected": _pairs(unconnected, populations),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_values()

    @classmethod
    def _square(cls, noise_factor, weights, populations):
        """The noise factor as a matrix."""
        n, tensors = weights.shape[0], torch.is_tensor(weights)
        if isinstance(noise_factor, Mapping):
            noise_factor = _by_cell(noise_factor, populations, "noise_factor")
        if is_sparse(weights):
            return sparse_noise(noise_factor, weights)
        noise_factor = cls._like(noise_factor, weights, "noise_factor")
        if noise_factor.ndim == 0:
            noise_factor = noise_factor.expand(n) if tensors else np.full(n, noise_factor)
        if tuple(noise_factor.shape) == (n,):
            if tensors:
                return torch.diag(noise_factor)
            return frozen(np.diag(noise_factor), weights.dtype, "noise_factor")
        if tuple(noise_factor.shape) != (n, n):
            raise ValueError(
                f"noise_factor must be a number or have the shape of weights, ({n}, {n}), or one "
                f"entry for each cell; got shape {tuple(noise_factor.shape)}."
            )
        return noise_factor

    @staticmethod
    def _like(value, weights, name):
        if torch.is_tensor(weights):
            if not torch.is_tensor(value):
                value = to_tensor(value, name=name)
            return value.to(dtype=weights.dtype, device=weights.device)
        return frozen(value, weights.dtype, name)

    def _check_values(self):
        for name in ("weights", "noise_factor", "theta"):
            array = detached(getattr(self, name))
            if not np.isfinite(array.data if issparse(array) else array).all():
                raise ValueError(f"{name} must be finite, got NaN or infinity.")
        if (detached(self.theta) < 0).any():
            raise ValueError(f"theta must be >= 0, got {detached(self.theta).tolist()}.")
        against, weight = against_signs(detached(self.weights), self.signs)
        if len(against):
            post, pre = against[0]
            kind, sign = (
                ("excitatory", ">= 0") if pre < self.n_excitatory else ("inhibitory", "<= 0")
            )
            raise ValueError(
                f"weights break Dale's law at {len(against)} places, first at W[post={post}, "
                f"pre={pre}] = {weight:g}: column {pre} is {kind} "
                f"(n_excitatory={self.n_excitatory}) and must be {sign}."
            )
        for name in self._constants():
            value, least = getattr(self, name), 1 if name == "gamma" else 0
            legal = isinstance(value, (Real, np.ndarray)) and np.isfinite(np.asarray(value)).all()
            if not legal or np.min(value) < least or np.min(value) == 0:
                raise ValueError(f"{name} must be {_bound(name)}, got {value!r}.")
        self._check_connected()

    def _check_connected(self):
        """Raise ValueError for a weight where there are no synapses."""
        for pair in self.unconnected:
            rows, columns = (self[name] for name in pair)
            block = detached(self.weights)[rows, columns]
            posts, pres = block.nonzero()
            if len(posts):
                i, j = posts[0], pres[0]
                raise ValueError(
                    f"weights from {pair[1]} to {pair[0]} must be 0, since {pair} are unconnected; "
                    f"got W[post={rows.start + i}, pre={columns.start + j}] = "
                    f"{float(block[i, j]):g}."
                )

    def _constants(self):
        """Names of those that there are: only the power law has an exponent."""
        return [name for name in CONSTANTS if getattr(self, name) is not None]

    def __repr__(self):
        values = ", ".join(f"{name}={self._shown(name)}" for name in self._constants())
        if set(self.populations) <= {"E", "I"}:
            cells = f"n_excitatory={self.n_excitatory}, n_inhibitory={self.n_inhibitory}"
        else:
            cells = f"populations={dict(self.populations)}"
        if self.dynamics != "voltage":
            values += f", dynamics={self.dynamics!r}"
        if self.rate_function is not None:
            values += f", rate_function={self.rate_function}"
        if self.receptors is not None:
            values += f", receptors={list(self.receptors.tau)}"
        if self.unconnected:
            values += f", unconnected={self.unconnected}"
        return f"Circuit({cells}, {values})"

    def _shown(self, name):
        """A number, or one for each population where that is all there is to say."""
        value = getattr(self, name)
        if not isinstance(value, np.ndarray):
            return value
        of_cells = np.full(self.n_neurons, np.nan)
        cells = {"tau_e": self.signs > 0, "tau_i": self.signs < 0}.get(name, slice(None))
        of_cells[cells] = value
        shown = {}
        for kind in self.populations:
            own = of_cells[self[kind]]
            if not np.isnan(own).any():
                low, high = own.min(), own.max()
                shown[kind] = float(low) if low == high else f"{low:g} to {high:g}"
        return shown

    def __getitem__(self, population):
        """Slice of the cells of a population.

        Raises
        ------
        KeyError
            If there is no such population.
        """
        start = 0
        for name, size in self.populations.items():
            if name == population:
                return slice(start, start + size)
            start += size
        raise KeyError(f"{population!r} is none of the populations, {list(self.populations)}.")

    def __getstate__(self):
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        return state | {"populations": dict(self.populations)}

    def __setstate__(self, state):
        # pickle drops NumPy's read-only flag, which is part of the value's promise
        self.__init__(**state)

    @property
    def n_neurons(self) -> int:
        """Number of cells, excitatory and inhibitory."""
        return self.weights.shape[0]

    @property
    def n_inhibitory(self) -> int:
        """Number of inhibitory cells."""
        return self.n_neurons - self.n_excitatory

    @property
    def signs(self) -> np.ndarray:
        """+1 for excitatory and -1 for inhibitory cells, ndarray of shape (n_neurons,)."""
        return np.where(np.arange(self.n_neurons) < self.n_excitatory, 1.0, -1.0)

    @property
    def connected(self) -> np.ndarray:
        """Where weights may be other than 0, bool ndarray of shape (n_neurons, n_neurons)."""
        connected = np.ones((self.n_neurons, self.n_neurons), bool)
        for post, pre in self.unconnected:
            connected[self[post], self[pre]] = False
        return connected

    @property
    def tau(self) -> np.ndarray:
        """Membrane time constant of each cell in ms, ndarray of shape (n_neurons,)."""
        n, n_excitatory = self.n_neurons, self.n_excitatory
        of_e, of_i = (np.asarray(tau, float) for tau in (self.tau_e, self.tau_i))
        return np.concatenate(
            [np.broadcast_to(of_e, n_excitatory), np.broadcast_to(of_i, n - n_excitatory)]
        )

    @property
    def is_sparse(self) -> bool:
        """Whether weights and noise factor are sparse."""
        return is_sparse(self.weights)

    @property
    def n_states(self) -> int:
        """Numbers that a trial is at any time: one for each cell, or of x and all y."""
        filters = 0 if self.receptors is None else len(self.receptors.tau)
        return self.n_neurons * (1 + filters)

    @property
    def tau_states(self) -> np.ndarray:
        """Time constant of each of them in ms, ndarray of shape (n_states,)."""
        if self.receptors is None:
            return self.tau
        tau = self.receptors.tau
        return np.repeat([tau[self.receptors.external], *tau.values()], self.n_neurons)

    def potentials(self, state: Array) -> Array:
        """Potentials in a state: themselves, or of a circuit with receptors x and what y add.

        Parameters
        ----------
        state : ndarray or Tensor of shape (..., n_states)
            Of the kind of the circuit's arrays. Not of the rate form, where potentials depend on
            the input at the time.

        Returns
        -------
        u : ndarray or Tensor of shape (..., n_neurons)
            In mV.
        """
        if self.receptors is None:
            return state
        parts = state.reshape(*state.shape[:-1], -1, self.n_neurons)
        shares = self._shares(state)
        return parts[..., 0, :] + self.recurrent((parts[..., 1:, :] * shares).sum(-2))

    def state_at(self, u: Array) -> Array:
        """State in which potentials are u, as if they had always been.

        Parameters
        ----------
        u : ndarray or Tensor of shape (..., n_neurons)
            In mV, of the kind of the circuit's arrays.

        Returns
        -------
        state : ndarray or Tensor of shape (..., n_states)
        """
        if self.receptors is None:
            return u
        rates = self.rates(u)
        join = torch.cat if torch.is_tensor(u) else np.concatenate
        return join([u - self.recurrent(rates), *[rates] * len(self.receptors.tau)], -1)

    def recurrent(self, rates: Array) -> Array:
        """Recurrent input W r.

        Parameters
        ----------
        rates : ndarray or Tensor of shape (..., n_neurons)
            In Hz, of the kind of the circuit's arrays.

        Returns
        -------
        recurrent : ndarray or Tensor of the same shape
            In mV.
        """
        return times(self.weights, rates)

    def noise(self, z: AnyArray) -> Array:
        r"""Noise :math:`\eta = n z` in mV, of independent processes z, as :meth:`recurrent`.

        Parameters
        ----------
        z : array-like or Tensor of shape (..., n_neurons)
            Independent processes of variance 1.
        """
        return times(self.noise_factor, z)

    def dense(self, what: str) -> Self:
        """The circuit itself if its weights are dense; else raise ValueError.

        Parameters
        ----------
        what : str
            What sparse weights are refused for, as the error says it.
        """
        if self.is_sparse:
            raise ValueError(f"{what} need dense weights: replace(circuit, weights=W.toarray()).")
        return self

    def _shares(self, like):
        shares = self.receptors.shares_of_cells(self.populations)
        return torch.from_numpy(shares.copy()).to(like) if torch.is_tensor(like) else shares

    def drive(self, h: AnyArray) -> Array:
        """Input function f (Eq. 2), element by element.

        Parameters
        ----------
        h : array-like or Tensor of shape (..., n_neurons) or (..., n_excitatory)
            External input. With `n_excitatory` columns only the excitatory cells receive
            it, and the drive of the inhibitory ones is 0.

        Returns
        -------
        drive : ndarray or Tensor of shape (..., n_neurons)
            f(h) in mV, of the kind (NumPy or torch) of the circuit's arrays. Finite for any
            finite h.
        """
        theta1, theta2, theta3 = self.to_torch().theta
        h = to_tensor(h, name="h").to(theta1)
        if h.ndim == 0 or h.shape[-1] not in (self.n_neurons, self.n_excitatory):
            raise ValueError(
                f"h must have {self.n_neurons} columns (one per cell) or {self.n_excitatory} "
                f"(one per excitatory cell), got shape {tuple(h.shape)}."
            )
        shifted = h + theta2
        positive = ~(shifted <= 0)  # NaN included, so that it goes through
        # the inner `where` keeps 0 ** theta3 out of the backward pass, where it gives NaN
        drive = torch.where(positive, theta1 * torch.where(positive, shifted, 1.0) ** theta3, 0.0)
        drive = drive.clamp_max(torch.finfo(drive.dtype).max)  # NaN goes through
        drive = torch.nn.functional.pad(drive, (0, self.n_neurons - h.shape[-1]))
        return drive if torch.is_tensor(self.weights) else drive.detach().numpy()

    def rates(self, u: AnyArray) -> Array:
        """Firing rates r = k [u]+^gamma (Eq. 3), or k phi(u), element by element.

        Parameters
        ----------
        u : array-like or Tensor
            Potentials in mV; where cells differ, of shape (..., n_neurons).

        Returns
        -------
        rates : ndarray or Tensor of the same shape
            In Hz; a tensor if `u` is one.
        """
        if self.rate_function is not None:
            return self.of_cells("k", u) * self._by_function("value", u)
        # powers of integers would be integers, and overflow
        if torch.is_tensor(u):
            positive = torch.relu(u if u.is_floating_point() else u.double())
        else:
            positive = np.maximum(u, 0.0)
        return self.of_cells("k", u) * positive ** self.of_cells("gamma", u)

    def gain(self, u: AnyArray) -> Array:
        """Slope dr/du of the rate function, element by element.

        Parameters
        ----------
        u : array-like or Tensor
            Potentials in mV.

        Returns
        -------
        gain : ndarray or Tensor of the same shape
            In Hz / mV; a tensor if `u` is one. 0 where cells do not fire, NaN where `u` is NaN.
        """
        if self.rate_function is not None:
            return self.of_cells("k", u) * self._by_function("gain", u)
        where = torch.where if torch.is_tensor(u) else np.where
        active = ~(u <= 0 if torch.is_tensor(u) else np.less_equal(u, 0))
        k, gamma = self.of_cells("k", u), self.of_cells("gamma", u)
        # the inner `where` keeps powers of 0 out of the backward pass, where they give NaN
        return k * gamma * where(active, u, 1.0) ** (gamma - 1) * active

    def _by_function(self, name, u):
        function = getattr(self.rate_function, name)
        if torch.is_tensor(u):
            return function(u)
        return function(torch.from_numpy(np.array(u, float))).numpy()

    def of_cells(self, name: str, like: Array) -> float | Array:
        """A constant: a number, or where cells differ an array of the kind of `like`.

        Parameters
        ----------
        name : str
            Name of the constant, such as "k".
        like : ndarray or Tensor
            An array of the kind that is wanted.
        """
        value = getattr(self, name)
        if torch.is_tensor(like) and isinstance(value, np.ndarray):
            return torch.from_numpy(value.copy()).to(like)
        return value

    def jacobian(self, gain: Array) -> Array:
        r"""Jacobian :math:`T^{-1} (W \mathrm{diag}(g) - I)` of Eq. 1 where cells have gains g.

        In the rate form :math:`T^{-1} (\mathrm{diag}(g) W - I)`, with the same eigenvalues. With
        receptors, of x and all y (see :class:`Receptors`).

        Parameters
        ----------
        gain : ndarray or Tensor of shape (..., n_neurons)
            In Hz / mV, such as :meth:`gain` gives them; of the kind of the circuit's arrays.

        Returns
        -------
        jacobian : ndarray or Tensor of shape (..., n_states, n_states)
            In 1/ms: a small deviation of the potentials, or rates, follows it.

        Raises
        ------
        ValueError
            If weights are sparse.
        """
        self.dense("Jacobians")
        if torch.is_tensor(gain):
            eye, tau = torch.eye(self.n_states).to(gain), torch.as_tensor(self.tau_states).to(gain)
        else:
            eye, tau = np.eye(self.n_states), self.tau_states
        if self.receptors is not None:
            return (self._onto_filters(gain) - eye) / tau[:, None]
        along = gain[..., None] if self.dynamics == "rate" else gain[..., None, :]
        return (self.weights * along - eye) / tau[:, None]

    def _onto_filters(self, gain):
        """How rates change, which all y follow and x does not, with x and each y."""
        eye = torch.eye(self.n_neurons).to(gain) if torch.is_tensor(gain) else np.eye(len(self.tau))
        join = torch.cat if torch.is_tensor(gain) else np.concatenate
        of_rates = gain[..., None] * join([eye, *[self.weights * c for c in self._shares(gain)]], 1)
        return join([0 * of_rates, *[of_rates] * len(self.receptors.tau)], -2)

    def check_drive(
        self, drive: AnyArray, *, n_steps: int | None = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """External drive of inputs as a tensor, or why it cannot be.

        Parameters
        ----------
        drive : array-like or Tensor of shape (n_inputs, n_neurons)
            f(h) in mV; or of shape (n_steps, n_inputs, n_neurons), if that is allowed.
        n_steps : int, default=None
            Number of time steps of a drive that changes in time, if it may.
        dtype : torch.dtype, default=None
            Precision of the result; None means that of the circuit.

        Returns
        -------
        drive : Tensor
            On the circuit's device.

        Raises
        ------
        ValueError
            If the shape is wrong, there is no input, or a number is not finite.
        """
        n, like = self.n_neurons, self.to_torch().weights
        drive = to_tensor(drive, name="drive").to(dtype=dtype or like.dtype, device=like.device)
        changing = n_steps is not None and drive.ndim == 3
        if (drive.ndim != 2 and not changing) or drive.shape[-1] != n:
            also = f" or (n_steps, n_inputs, {n})" if n_steps else ""
            raise ValueError(
                f"drive must have shape (n_inputs, {n}){also} for a circuit of {n} cells, got "
                f"{tuple(drive.shape)}. Circuit.drive maps external inputs h to it."
            )
        if changing and len(drive) != n_steps:
            raise ValueError(
                f"a drive that changes in time needs one entry for each of the {n_steps} steps of "
                f"burn-in and duration, got {len(drive)}."
            )
        if not drive.shape[-2]:
            raise ValueError("drive must have at least one input, got none.")
        if not torch.isfinite(drive).all():
            raise ValueError("drive must be finite, got NaN or infinity.")
        return drive  # type: ignore[return-value]

    def to_torch(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Circuit:
        """The same circuit with torch tensors, on `device` and of `dtype` if given.

        Parameters
        ----------
        device : torch.device or str, default=None
            Where the tensors are; None leaves them where they are.
        dtype : torch.dtype, default=None
            Precision of the tensors; None leaves it as it is.
        """
        arrays = {}
        for name in ("weights", "noise_factor", "theta"):
            array = getattr(self, name)
            if issparse(array):
                array = to_torch(array)
            elif not torch.is_tensor(array):
                array = to_tensor(array, array.dtype)
            arrays[name] = array.to(device=device, dtype=dtype)
        return self.with_checked(arrays)

    def to_numpy(self) -> Self:
        """The same circuit with NumPy arrays, detached from any graph and on the CPU."""
        names = ("weights", "noise_factor", "theta")
        return replace(self, **{name: detached(getattr(self, name)) for name in names})

    def save(self, path: StrPath) -> None:
        """Save the circuit, without pickle.

        Parameters
        ----------
        path : str or path-like
            File to write. A circuit of tensors is saved as one of arrays.

        Raises
        ------
        TypeError
            If its rate function is not one of :mod:`~ssn_estimators.rate_functions`.

        See Also
        --------
        ssn_estimators.save : The same, of estimators too.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> from ssn_estimators import Circuit
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "pair.ssn"
        >>> Circuit([[1.0, -2.0], [3.0, -4.0]], n_excitatory=1).save(path)
        >>> Circuit.load(path).n_inhibitory
        1
        """
        # by its public name, and not before: files know circuits, not circuits files
        from ssn_estimators import save

        save(self, path)

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Load a circuit that :meth:`save` or :func:`ssn_estimators.save` has written.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        circuit : Circuit
            With NumPy arrays.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged, of a later format, or holds an estimator.

        Warns
        -----
        UserWarning
            If it was written by another version of this package.
        """
        from ssn_estimators import load

        found = load(path)
        if not isinstance(found, cls):
            raise ValueError(
                f"{path} holds no circuit but an estimator, {type(found).__name__}: "
                "ssn_estimators.load reads it."
            )
        return found

    def with_checked(self, arrays: Mapping[str, Any]) -> Circuit:
        """A copy with other arrays, whose values have passed the checks already.

        Parameters
        ----------
        arrays : dict of str to array
            New values of attributes, by their names.
        """
        other = object.__new__(Circuit)
        for name, value in (self.__getstate__() | arrays).items():
            object.__setattr__(other, name, value)
        return other


def kind_of(circuit):
    """Constants and populations, equal for circuits that can be simulated as one."""
    constants = (getattr(circuit, name) for name in CONSTANTS)
    constants = (tuple(x) if isinstance(x, np.ndarray) else x for x in constants)
    receptors = None if circuit.receptors is None else circuit.receptors.kind()
    parts = circuit.dynamics, circuit.rate_function, receptors, circuit.unconnected
    parts = *parts, circuit.is_sparse
    return tuple(circuit.populations.items()), *parts, *constants


def _check_parts(dynamics, gamma, rate_function, receptors):
    """Raise ValueError unless they are legal, and go together."""
    if not isinstance(dynamics, str) or dynamics not in DYNAMICS:
        raise ValueError(f"dynamics must be one of {DYNAMICS}, got {dynamics!r}.")
    for name, part, kind in (
        ("rate_function", rate_function, RateFunction),
        ("receptors", receptors, Receptors),
    ):
        if part is not None and not isinstance(part, kind):
            raise ValueError(f"{name} must be a {kind.__name__} or None, got {part!r}.")
    if rate_function is not None and gamma is not None:
        raise ValueError(
            f"gamma belongs to the power law, got gamma={gamma!r} and {rate_function}: leave it at "
            "None."
        )
    if receptors is not None and dynamics != "voltage":
        raise ValueError("receptors are for dynamics='voltage': rates follow the potentials then.")


def _cells(n, n_excitatory, populations):
    """Number of excitatory cells, and populations, read-only."""
    if populations is None:
        legal = isinstance(n_excitatory, Integral) and not isinstance(n_excitatory, bool)
        if not legal or not 1 <= n_excitatory <= n:
            raise ValueError(
                f"n_excitatory must be an integer from 1 to {n}, the number of cells in "
                f"weights; got {n_excitatory!r}."
            )
        sizes = {"E": n_excitatory, "I": n - n_excitatory}
        return n_excitatory, MappingProxyType({k: int(x) for k, x in sizes.items() if x})
    legal = isinstance(populations, Mapping) and all(
        isinstance(name, str) and isinstance(size, Integral) and size > 0
        for name, size in populations.items()
    )
    if not legal or not populations:
        raise ValueError(
            f"populations must name cell types and their numbers of cells, got {populations!r}."
        )
    ends = np.cumsum(list(populations.values()))
    if ends[-1] != n:
        raise ValueError(
            f"populations must add up to the number of cells in weights, {n}; {dict(populations)} "
            f"have {ends[-1]}."
        )
    n_excitatory = int(ends[0]) if n_excitatory is None else n_excitatory
    if n_excitatory not in ends:
        raise ValueError(
            f"n_excitatory must be the number of cells of the first populations, one of "
            f"{ends.tolist()}; got {n_excitatory!r}."
        )
    sizes = {name: int(size) for name, size in populations.items()}
    return int(n_excitatory), MappingProxyType(sizes)


def _pairs(unconnected, populations):
    """Pairs of populations, each once and in the order of the populations."""
    names = list(populations)
    legal = isinstance(unconnected, (tuple, list)) and all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 and all(x in names for x in pair)
        for pair in unconnected
    )
    if not legal:
        raise ValueError(
            f"unconnected must be pairs (post, pre) of populations, which are {names}; got "
            f"{unconnected!r}."
        )
    return tuple(sorted(set(map(tuple, unconnected)), key=lambda pair: [*map(names.index, pair)]))


def _by_cell(value, populations, name):
    """One number for each cell, from one for all, one by population, or as many."""
    sizes = np.array(list(populations.values()))
    if isinstance(value, Mapping):
        if value.keys() != populations.keys():
            raise ValueError(
                f"{name} must have a number for each population, {list(populations)}; got "
                f"{list(value)}."
            )
        return np.repeat(to_numbers([value[x] for x in populations], float, name), sizes)
    numbers = to_numbers(value, float, name)
    if numbers.shape not in ((), (sizes.sum(),)):
        raise ValueError(
            f"{name} must be one number, one for each population by its name, or one for each of "
            f"{sizes.sum()} cells; got shape {numbers.shape}."
        )
    return np.broadcast_to(numbers, sizes.sum())


def _constant(value, n, populations, name):
    """A float, or an array of shape (n,) where cells differ."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        value = _by_cell(value, populations, name)
    numbers = np.empty(()) if isinstance(value, str) else to_numbers(value, float, name)
    if numbers.shape != (n,) or not n:
        raise ValueError(
            f"{name} must be {_bound(name)}, got {value!r}; or one for each of {n} cells."
        )
    if (numbers == numbers[0]).all():
        return float(numbers[0])
    numbers.setflags(write=False)
    return numbers


def _bound(name):
    return f"a finite number {'>= 1' if name == 'gamma' else '> 0'}"
