"""What a rate function is, and those in use besides the power law."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from numbers import Real

import numpy as np
import torch

from ssn_estimators.rate_functions.gaussian import rate_moments

__all__ = ["AbbottChance", "MillerTroyer", "RateFunction", "Ricciardi", "Saturating"]

SERIES = 1e-3  # of an argument, below which a quotient of small numbers is a polynomial
_NODES, _WEIGHTS = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(64))


class RateFunction(ABC):
    r"""How rates depend on potentials: :math:`r = k \phi(u)` with a function :math:`\phi` >= 0.

    Subclasses are frozen dataclasses with numbers as their fields, and say what
    :math:`\phi` is by :meth:`value`. Everything that takes a
    :class:`~ssn_estimators.Circuit` takes one with any of them: simulations without a gradient
    run in compiled loops, on a fine table of :math:`\phi` and its slope, and all others in plain
    torch, on any device.

    See Also
    --------
    AbbottChance : Rectified linear, with a soft threshold.
    MillerTroyer : Power law, averaged over fast noise.
    Ricciardi : Integrate-and-fire cells in white noise.
    Saturating : Power law up to a bound.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import torch
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.rate_functions import RateFunction
    >>> @dataclass(frozen=True)
    ... class Softplus(RateFunction):
    ...     width: float = 1.0
    ...
    ...     def value(self, u):
    ...         return self.width * torch.nn.functional.softplus(u / self.width)
    >>> cell = Circuit([[0.0]], n_excitatory=1, rate_function=Softplus(2.0))
    >>> cell.rates([-5.0, 0.0, 5.0]).round(3), cell.gain([0.0])
    (array([0.158, 1.386, 5.158]), array([0.5]))
    """

    @abstractmethod
    def value(self, u: torch.Tensor) -> torch.Tensor:
        r"""The function :math:`\phi`, element by element.

        Parameters
        ----------
        u : Tensor
            Potentials in mV.

        Returns
        -------
        value : Tensor of the same shape
            Such that k times it is in Hz.
        """

    def gain(self, u: torch.Tensor) -> torch.Tensor:
        r"""Its slope :math:`\phi'`, element by element; by default by differentiation.

        Parameters
        ----------
        u : Tensor
            Potentials in mV.

        Returns
        -------
        gain : Tensor of the same shape
        """
        value, pull = torch.func.vjp(self.value, u)  # type: ignore[misc]
        return pull(torch.ones_like(value))[0]

    def _check(self, **least):
        """Raise ValueError unless fields are numbers beyond these."""
        for field in fields(self):
            value, low = getattr(self, field.name), least.get(field.name, 0)
            legal = isinstance(value, Real) and not isinstance(value, bool)
            if not legal or not math.isfinite(value) or value < low or (value == low == 0):
                bound = "> 0" if low == 0 else "" if low == -math.inf else f">= {low:g}"
                words = f"a finite number {bound}".strip()
                name = type(self).__name__
                raise ValueError(f"{field.name} of {name} must be {words}, got {value!r}.")


@dataclass(frozen=True)
class AbbottChance(RateFunction):
    r"""Rectified linear, with a soft threshold: :math:`\phi(u) = u / (1 - e^{-u / w})` ([1]_).

    An approximation of integrate-and-fire cells in noise. The circuit of [2]_ has it, with
    :math:`k = 1 / \tau (V_{th} - V_r)` and potentials above threshold.

    Parameters
    ----------
    width : float, default=1.0
        w in mV, > 0.

    References
    ----------
    .. [1] Abbott & Chance (2005). Drivers and modulators from push-pull and balanced synaptic
       input. Progress in Brain Research 149, 147-155.
    .. [2] Garcia del Molino, Yang, Mejias & Wang (2017). Paradoxical response reversal of top-down
       modulation in cortical circuits with three interneuron types. eLife 6, e29742.

    Examples
    --------
    >>> import torch
    >>> from ssn_estimators.rate_functions import AbbottChance
    >>> AbbottChance().value(torch.tensor([-2.0, 0.0, 20.0]))
    tensor([ 0.3130,  1.0000, 20.0000])
    """

    width: float = 1.0

    def __post_init__(self):
        self._check()

    def value(self, u: torch.Tensor) -> torch.Tensor:
        """As of :class:`RateFunction`.

        Parameters
        ----------
        u : Tensor
            Potentials in mV.
        """
        x = u / self.width
        near = x.abs() < SERIES
        # of the half without overflow; the inner `where` keeps 0 / 0 out of the gradient
        far = torch.where(near, 1.0, x)
        decayed = torch.exp(-far.abs())
        ratio = far.abs() / -torch.expm1(-far.abs())
        ratio = torch.where(far < 0, ratio * decayed, ratio)
        return self.width * torch.where(near, 1 + x / 2 + x**2 / 12, ratio)


@dataclass(frozen=True)
class MillerTroyer(RateFunction):
    r"""Power law, averaged over fast noise: :math:`\phi(u) = E \lfloor u + \sigma \xi
    \rfloor_+^\gamma` with normal :math:`\xi` ([1]_, [2]_).

    Parameters
    ----------
    sigma : float, default=1.0
        Standard deviation of the noise in mV, > 0.
    gamma : float, default=2.0
        Exponent, from 1 to 20.

    References
    ----------
    .. [1] Miller & Troyer (2002). Neural noise can explain expansive, power-law nonlinearities in
       neural response functions. Journal of Neurophysiology 87, 653-659.
    .. [2] Hennequin & Lengyel (2016). Characterizing variability in nonlinear recurrent neuronal
       networks. arXiv:1610.03110.

    Examples
    --------
    Rectified linear cells fire below threshold:

    >>> import torch
    >>> from ssn_estimators.rate_functions import MillerTroyer
    >>> MillerTroyer(gamma=1.0).value(torch.tensor([-1.0, 0.0, 10.0]))
    tensor([ 0.0833,  0.3989, 10.0000])
    """

    sigma: float = 1.0
    gamma: float = 2.0

    def __post_init__(self):
        self._check(gamma=1)
        if self.gamma > 20:
            raise ValueError(f"gamma of MillerTroyer must be at most 20, got {self.gamma!r}.")

    def value(self, u: torch.Tensor) -> torch.Tensor:
        """As of :class:`RateFunction`.

        Parameters
        ----------
        u : Tensor
            Potentials in mV.
        """
        return self._moments(u)[0]

    def gain(self, u: torch.Tensor) -> torch.Tensor:
        """As of :class:`RateFunction`.

        Parameters
        ----------
        u : Tensor
            Potentials in mV.
        """
        return self._moments(u)[1]

    def _moments(self, u):
        variance = torch.full_like(u, self.sigma, dtype=torch.float64) ** 2
        return tuple(x.to(u.dtype) for x in rate_moments(u.double(), variance, 1.0, self.gamma))


@dataclass(frozen=True)
class Ricciardi(RateFunction):
    r"""Leaky integrate-and-fire cells in white noise ([1]_, [2]_),

    .. math::
        \frac{1000}{\phi(u)} = \tau_{ref} + \tau \sqrt{\pi}
        \int_{(V_r - u) / \sigma}^{(V_{th} - u) / \sigma} e^{x^2} (1 + \mathrm{erf}\, x) \, dx .

    Here u is the mean potential without spikes, and :math:`\phi` is in Hz: leave k at 1.

    Parameters
    ----------
    tau : float, default=20.0
        Membrane time constant in ms, > 0.
    threshold, reset : float, default=20.0 and 10.0
        :math:`V_{th}` and :math:`V_r < V_{th}` in mV, above rest.
    sigma : float, default=10.0
        Size of the noise in mV, > 0: without spikes, the variance of the potential is
        :math:`\sigma^2 / 2`.
    refractory : float, default=2.0
        :math:`\tau_{ref}` in ms, > 0.

    References
    ----------
    .. [1] Ricciardi (1977). Diffusion Processes and Related Topics in Biology. Springer.
    .. [2] Sanzeni, Histed & Brunel (2020). Response nonlinearities in networks of spiking neurons.
       PLOS Computational Biology 16, e1008165.

    Examples
    --------
    >>> import torch
    >>> from ssn_estimators.rate_functions import Ricciardi
    >>> Ricciardi().value(torch.tensor([0.0, 10.0, 20.0, 40.0]))
    tensor([  0.9495,  12.0839,  40.0886, 104.7376])
    """

    tau: float = 20.0
    threshold: float = 20.0
    reset: float = 10.0
    sigma: float = 10.0
    refractory: float = 2.0

    def __post_init__(self):
        self._check(threshold=-math.inf, reset=-math.inf)
        if self.reset >= self.threshold:
            raise ValueError(
                f"reset of Ricciardi must be below threshold={self.threshold:g}, got {self.reset}."
            )

    def value(self, u: torch.Tensor) -> torch.Tensor:
        """As of :class:`RateFunction`.

        Parameters
        ----------
        u : Tensor
            Potentials in mV.
        """
        return self._interval(u.double())[0].to(u.dtype)

    def gain(self, u: torch.Tensor) -> torch.Tensor:
        """As of :class:`RateFunction`.

        Parameters
        ----------
        u : Tensor
            Potentials in mV.
        """
        value, period, scale, low, high = self._interval(u.double())
        ends = _scaled(high, scale) - _scaled(low, scale)
        return (value * ends / period * self.tau * math.sqrt(math.pi) / self.sigma).to(u.dtype)

    def _interval(self, u):
        """Rate in Hz, period in ms over a factor, the factor's logarithm, and the bounds."""
        low, high = ((x - u) / self.sigma for x in (self.reset, self.threshold))
        scale = high.clamp_min(0) ** 2  # the integrand is largest at the upper bound
        # nodes crowd where it is: within some 1 / high of the upper bound
        share = (1 + _NODES.to(u)) / 2
        part = share**3
        width = (high - low)[..., None]
        points = high[..., None] - width * part
        weights = _WEIGHTS.to(u) / 2 * 3 * share**2
        integral = (_scaled(points, scale[..., None]) * weights * width).sum(-1)
        silent = torch.exp(-scale)
        period = self.refractory * silent + self.tau * math.sqrt(math.pi) * integral
        return 1000 * silent / period, period, scale, low, high


def _scaled(x, scale):
    """exp(x^2 - scale) (1 + erf x), without overflow for x^2 <= scale or x <= 0."""
    below = torch.special.erfcx(-x.clamp_max(0)) * torch.exp(-scale)
    above = torch.exp(x.clamp_min(0) ** 2 - scale) * (1 + torch.erf(x.clamp_min(0)))
    return torch.where(x < 0, below, above)


@dataclass(frozen=True)
class Saturating(RateFunction):
    r"""Power law up to a rate, from which it bends towards a bound ([1]_):

    .. math::
        \phi(u) = \lfloor u \rfloor_+^\gamma \; \text{up to } \phi_0, \qquad
        \phi_0 + (\phi_1 - \phi_0) \tanh \frac{\gamma \phi_0 (u - u_0)}{u_0 (\phi_1 - \phi_0)}
        \; \text{beyond } u_0 = \phi_0^{1 / \gamma} .

    No circuit runs away with it; rates far beyond `soft` tell that it would.

    Parameters
    ----------
    soft, hard : float, default=20000.0 and 100000.0
        :math:`\phi_0` and :math:`\phi_1 > \phi_0`, > 0: rates over k. With k = .01, the defaults
        are 200 and 1000 Hz.
    gamma : float, default=2.0
        Exponent, >= 1.

    References
    ----------
    .. [1] Arakaki, Barello & Ahmadian (2019). Inferring neural circuit structure from datasets of
       heterogeneous tuning curves. PLOS Computational Biology 15, e1006816.

    Examples
    --------
    >>> import torch
    >>> from ssn_estimators.rate_functions import Saturating
    >>> Saturating(soft=100.0, hard=200.0).value(torch.tensor([-1.0, 5.0, 10.0, 100.0]))
    tensor([  0.,  25., 100., 200.])
    """

    soft: float = 20000.0
    hard: float = 100000.0
    gamma: float = 2.0

    def __post_init__(self):
        self._check(gamma=1)
        if self.hard <= self.soft:
            raise ValueError(f"hard of Saturating must be > soft={self.soft:g}, got {self.hard}.")

    def value(self, u: torch.Tensor) -> torch.Tensor:
        """As of :class:`RateFunction`.

        Parameters
        ----------
        u : Tensor
            Potentials in mV.
        """
        bend, room = self.soft ** (1 / self.gamma), self.hard - self.soft
        below = torch.where(u > 0, u.clamp(1e-30, bend), 1.0) ** self.gamma * (u > 0)
        beyond = room * torch.tanh(self.gamma * self.soft / bend / room * (u - bend).clamp_min(0))
        return below + beyond
