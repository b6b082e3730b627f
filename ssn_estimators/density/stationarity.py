"""Is a density, or are samples, stationary under given stochastic dynamics?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import log_ndtr
from sklearn.utils import check_random_state
from torch.func import jacfwd, vmap

from ssn_estimators._scaling import spread_of
from ssn_estimators._sklearn import check_array
from ssn_estimators._torch import to_tensor
from ssn_estimators.circuit import Circuit
from ssn_estimators.density.dynamics import Langevin, circuit_dynamics

if TYPE_CHECKING:
    from typing import Literal

    from ssn_estimators._typing import AnyArray, ArrayLike, Function, RandomState
    from ssn_estimators.simulation import Simulation

__all__ = [
    "GeneratorMoments",
    "fokker_planck_residual",
    "generator_moments",
    "random_frequencies",
    "stationarity_test",
    "wave_moments",
]

WINDOW = 5  # autocorrelation times that autocorrelations are summed up over
FEW = 50  # independent samples, below which errors from autocorrelations are too small


def fokker_planck_residual(dynamics: Langevin, score: Function, X: AnyArray) -> torch.Tensor:
    r"""Residual of the stationary Fokker-Planck equation over the density, R = 0 where it holds.

    .. math::
        R = \nabla \cdot f + f \cdot s - \mathrm{tr}(D \nabla s) - s^T D s,
        \qquad s = \nabla \log p,

    and, where D depends on x, less :math:`\sum_{ij} \partial_i \partial_j D_{ij} + 2 s_i
    \partial_j D_{ij}`. Derivatives are taken by torch, so drift and score get tensors, and the
    residual can be differentiated with respect to anything that they depend on.

    Parameters
    ----------
    dynamics : Langevin
        Drift and diffusion.
    score : callable
        s, from a Tensor of shape (n, d) to one alike.
    X : array-like or Tensor of shape (n, d)
        Where to evaluate.

    Returns
    -------
    residual : Tensor of shape (n,)
        In units of one over time.

    Examples
    --------
    >>> import torch
    >>> from ssn_estimators.density import Langevin, fokker_planck_residual
    >>> relaxation = Langevin(lambda x: -x, [[1.0]])
    >>> fokker_planck_residual(relaxation, lambda x: -x, [[0.5], [2.0]])
    tensor([0., 0.], dtype=torch.float64)
    """
    X = to_tensor(X, name="X")
    if X.ndim != 2:
        raise ValueError(f"X must have shape (n, d), got {tuple(X.shape)}.")
    d = X.shape[1]
    wanted = {"drift": (dynamics.drift, (1, d)), "score": (score, (1, d))}
    if callable(dynamics.diffusion):
        wanted["diffusion"] = dynamics.diffusion, (1, d, d)
    for name, (function, shape) in wanted.items():
        value = function(X[:1])
        if not torch.is_tensor(value) or tuple(value.shape) != shape:
            found = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
            raise ValueError(
                f"{name} must give a tensor of shape {shape} for one of shape {(1, d)}; got "
                f"{found}."
            )

    def single(function):
        return lambda x: function(x[None])[0]

    drift, score = single(dynamics.drift), single(score)
    if callable(dynamics.diffusion):
        diffusion = single(dynamics.diffusion)
    else:
        constant = torch.as_tensor(dynamics.diffusion_at(X)[0]).to(X)

    def residual(x):
        s, slope = score(x), jacfwd(score)(x)
        value = jacfwd(drift)(x).trace() + drift(x) @ s
        if not callable(dynamics.diffusion):
            return value - (constant * slope).sum() - s @ constant @ s
        d, first = diffusion(x), jacfwd(diffusion)(x)
        second = torch.einsum("ijij", jacfwd(jacfwd(diffusion))(x))
        value = value - second - 2 * s @ torch.einsum("ijj->i", first)
        return value - (d * slope).sum() - s @ d @ s

    return vmap(residual)(X)


@dataclass(frozen=True, eq=False)
class GeneratorMoments:
    """Means of the generator over samples, which stationarity makes 0.

    Attributes
    ----------
    names : list of str
        Test functions.
    mean : ndarray of shape (n_tests,)
        Means of the generator, 0 but for their errors in a stationary state.
    standard_error : ndarray of shape (n_tests,)
        Standard errors of the means; with autocorrelations where samples have an order.
    """

    names: list[str]
    mean: np.ndarray
    standard_error: np.ndarray

    @property
    def z(self) -> np.ndarray:
        """Means over standard errors; 0 where both are 0, as of functions that do not move."""
        fixed = (self.standard_error == 0) & (self.mean == 0)
        return self.mean / np.where(fixed, 1.0, self.standard_error)

    @property
    def statistic(self) -> float:
        """Largest absolute value of z."""
        return float(np.abs(self.z).max())

    @property
    def p_value(self) -> float:
        """Of the largest absolute z under a normal law, by Bonferroni's correction.

        NaN if a moment is not a number.
        """
        return float(np.minimum(1.0, 2 * len(self.mean) * np.exp(log_ndtr(-self.statistic))))

    def __str__(self):
        worst = np.argsort(-np.abs(self.z))[:5]
        rows = [f"{self.names[i]:20} {self.mean[i]:+.3g}   z {self.z[i]:+.1f}" for i in worst]
        head = f"{len(self.mean)} moments, p-value {self.p_value:.3g}; those of the largest |z|:"
        return "\n".join([head, *rows])


def generator_moments(
    dynamics: Langevin, X: ArrayLike, *, tests: Literal["quadratic"] | ArrayLike = "quadratic"
) -> GeneratorMoments:
    r"""Means of :math:`\mathcal{L} \psi = f \cdot \nabla \psi + \mathrm{tr}(D \nabla \nabla \psi)`.

    In a stationary state they are 0 for every test function :math:`\psi`. No density is
    needed.

    Parameters
    ----------
    dynamics : Langevin
        Drift and diffusion.
    X : array-like of shape (n_samples, d) or (n_steps, n_chains, d)
        Independent samples; or trajectories at even intervals, whose autocorrelations enter
        the standard errors by their integrated times [1]_, corrected for the bias that the
        subtraction of the mean makes [2]_. Errors are never taken smaller than those of as
        many independent samples.
    tests : "quadratic" or array-like of shape (n_frequencies, d), default="quadratic"
        All :math:`x_i` and :math:`x_i x_j`; or :math:`\cos(\omega \cdot x)` and
        :math:`\sin(\omega \cdot x)` of these frequencies, see :func:`random_frequencies`.

    Returns
    -------
    moments : GeneratorMoments

    Raises
    ------
    ValueError
        If samples, tests, drift or diffusion do not match, or are not finite, or there is only
        one sample.

    Warns
    -----
    RuntimeWarning
        If trajectories are worth fewer than 50 independent samples: errors come out too small.

    References
    ----------
    .. [1] Sokal (1997). Monte Carlo methods in statistical mechanics: foundations and new
       algorithms. In Functional Integration, Springer.
    .. [2] Wolff (2004). Monte Carlo errors with less errors. Comput. Phys. Commun. 156, 143-153.

    Examples
    --------
    >>> import numpy as np
    >>> from ssn_estimators.density import Langevin, generator_moments
    >>> X = np.random.RandomState(0).normal(size=(1000, 1))
    >>> generator_moments(Langevin(lambda x: -x, [[1.0]]), X).p_value > 0.01
    True
    """
    X = np.asarray(X, dtype=float)
    if X.ndim not in (2, 3) or not X.size:
        raise ValueError(
            f"X must have shape (n_samples, d) or (n_steps, n_chains, d), got {X.shape}."
        )
    if not np.isfinite(X).all():
        raise ValueError("X holds NaN or infinity.")
    grid, rows = X.shape[:-1], X.reshape(-1, X.shape[-1])
    if len(rows) < 2:
        raise ValueError("X holds one sample, which has no standard error.")
    drift, diffusion = dynamics.drift_at(rows), dynamics.diffusion_at(rows)
    if not (np.isfinite(drift).all() and np.isfinite(diffusion).all()):
        raise ValueError("drift or diffusion is not finite at some sample.")
    if isinstance(tests, str):
        if tests != "quadratic":
            raise ValueError(f'tests must be "quadratic" or frequencies, got {tests!r}.')
        blocks = _polynomials(rows, drift, diffusion)
    else:
        blocks = _waves(rows, drift, diffusion, tests)
    names, means, errors, longest = [], [], [], 1.0
    for named, values in blocks:
        names += named
        means.append(values.mean(0))
        times = _autocorrelation_time(values.reshape(*grid, -1)) if X.ndim == 3 else 1.0
        errors.append(values.std(0) * np.sqrt(times / len(rows)))
        longest = max(longest, np.max(times))
    if X.ndim == 3 and len(rows) < FEW * longest:
        warnings.warn(
            f"trajectories of {len(rows)} samples with autocorrelation times of up to "
            f"{longest:.0f} are worth about {len(rows) / longest:.0f} independent ones: standard "
            "errors are too small, and p-values with them. Take longer or more trajectories.",
            RuntimeWarning,
            stacklevel=2,
        )
    return GeneratorMoments(names, np.concatenate(means), np.concatenate(errors))


def _polynomials(rows, drift, diffusion):
    """Names and values of the generator for x_i, and x_i x_j with j from i on."""
    d = rows.shape[1]
    yield [f"x{i}" for i in range(d)], drift
    for i in range(d):
        values = drift[:, i : i + 1] * rows[:, i:] + rows[:, i : i + 1] * drift[:, i:]
        yield [f"x{i} x{j}" for j in range(i, d)], values + 2 * diffusion[:, i, i:]


def _waves(rows, drift, diffusion, frequencies):
    """Names and values of the generator for the cosine and sine of every frequency."""
    frequencies = np.asarray(frequencies, dtype=float)
    if frequencies.ndim != 2 or frequencies.shape[1] != rows.shape[1]:
        raise ValueError(
            f"frequencies must have shape (n_frequencies, {rows.shape[1]}), got "
            f"{frequencies.shape}."
        )
    size = max(1, 2**22 // len(rows))
    for start in range(0, len(frequencies), size):
        block = frequencies[start : start + size]
        phase, along = rows @ block.T, drift @ block.T
        decay = np.einsum("fi,nij,fj->nf", block, diffusion, block, optimize=True)
        cosine, sine = np.cos(phase), np.sin(phase)
        names = [f"{wave} {start + i}" for wave in ("cos", "sin") for i in range(len(block))]
        yield names, np.hstack([-along * sine - decay * cosine, along * cosine - decay * sine])


def wave_moments(dynamics, X, frequencies):
    """Values of the generator at every sample: for all cosines, and then for all sines."""
    blocks = _waves(X, dynamics.drift_at(X), dynamics.diffusion_at(X), frequencies)
    halves = [np.split(values, 2, axis=1) for _, values in blocks]
    return np.hstack([half for pair in zip(*halves, strict=True) for half in pair])


def random_frequencies(
    X: ArrayLike,
    n_frequencies: int = 400,
    *,
    length_scale: float = 0.5,
    random_state: RandomState = None,
) -> np.ndarray:
    """Normal frequencies: those of a Gaussian kernel on standardised samples.

    Parameters
    ----------
    X : array-like of shape (n_samples, d)
        Sets the standard deviation of each dimension.
    n_frequencies : int, default=400
        How many.
    length_scale : float, default=0.5
        Width of the kernel in units of the standard deviation.
    random_state : int, RandomState instance or None, default=None
        Source of the frequencies.

    Returns
    -------
    frequencies : ndarray of shape (n_frequencies, d)
    """
    rng = check_random_state(random_state)
    X = check_array(X, dtype=float, input_name="X")
    if not isinstance(length_scale, Real) or not 0 < length_scale < np.inf:
        raise ValueError(f"length_scale must be a finite number > 0, got {length_scale!r}.")
    scale = spread_of(X)
    return rng.standard_normal((n_frequencies, len(scale))) / (length_scale * scale)


def _autocorrelation_time(values):
    """Integrated, in steps, at least 1, up to a window of some autocorrelation times.

    Of values of shape (n_steps, n_chains, n_tests).
    """
    n_steps, n_chains = values.shape[:2]
    spectrum = np.abs(np.fft.rfft(values - values.mean((0, 1)), 2 * n_steps, axis=0)) ** 2
    covariance = np.fft.irfft(spectrum.mean(1), axis=0)[:n_steps]
    size = np.where(covariance[0] > 0, covariance[0], 1.0)
    times = np.maximum(2 * np.cumsum(covariance / size, axis=0) - 1, 1.0)
    enough = np.arange(n_steps)[:, None] >= WINDOW * times
    # summed up to the end, autocorrelations around their own mean cancel
    window = np.where(enough.any(0), enough.argmax(0), times.argmax(0))
    bias = 1 + (2 * window + 1) / (n_steps * n_chains)
    return np.where(window > 0, bias, 1.0) * times[window, np.arange(times.shape[1])]


def stationarity_test(
    dynamics: Langevin | Circuit,
    X: ArrayLike | Simulation,
    *,
    drive: ArrayLike | None = None,
    tests: Literal["quadratic"] | ArrayLike = "quadratic",
) -> GeneratorMoments:
    """Do samples come from the stationary state of these dynamics?

    Catches samples before the stationary state is reached, noise of a wrong size, too large
    time steps, and dynamics that are not those of the samples.

    Parameters
    ----------
    dynamics : Langevin or Circuit
        Drift and diffusion, or a circuit.
    X : array-like, or Simulation
        As in :func:`generator_moments`. Of a circuit: a simulation with recorded "u" and
        "eta", or for each input potentials and noise side by side, shape (n_inputs, n_samples,
        2 * n_neurons) or (n_inputs, n_steps, n_chains, 2 * n_neurons).
    drive : array-like of shape (n_inputs, n_neurons), default=None
        External drive f(h) of a circuit, in mV.
    tests : "quadratic" or array-like of shape (n_frequencies, d), default="quadratic"
        See :func:`generator_moments`.

    Returns
    -------
    moments : GeneratorMoments
        Those of all inputs, if it is a circuit.

    Examples
    --------
    >>> from ssn_estimators import Circuit, simulate
    >>> from ssn_estimators.density import stationarity_test
    >>> pair = Circuit([[1.25, -0.65], [1.2, -0.5]], n_excitatory=1, noise_factor=0.2, k=0.04)
    >>> drive = pair.drive([[2.0, 2.0]])
    >>> simulation = simulate(
    ...     pair, drive, n_trials=20, dt=0.1, record=("u", "eta"), random_state=0
    ... )
    >>> stationarity_test(pair, simulation, drive=drive).p_value > 0.01
    True
    """
    if isinstance(dynamics, Langevin):
        if drive is not None:
            raise ValueError("drive belongs to a circuit; these dynamics have their own.")
        return generator_moments(dynamics, X, tests=tests)
    if not isinstance(dynamics, Circuit):
        raise TypeError(f"dynamics must be Langevin or Circuit, got {type(dynamics).__name__}.")
    if drive is None:
        raise ValueError("a circuit needs the drive of every input.")
    drive = np.atleast_2d(np.asarray(drive, dtype=float))
    if hasattr(X, "eta"):
        if X.u is None or X.eta is None:
            raise ValueError('the simulation lacks trajectories: record=("u", "eta").')
        u, eta = (np.asarray(x, dtype=float) for x in (X.u, X.eta))
        X = np.concatenate([u, np.broadcast_to(eta, u.shape)], axis=-1).swapaxes(0, 1)
    if len(X) != len(drive):
        raise ValueError(f"X holds {len(X)} inputs, drive {len(drive)}.")
    every = [
        generator_moments(circuit_dynamics(dynamics, own), samples, tests=tests)
        for own, samples in zip(drive, X, strict=True)
    ]
    return GeneratorMoments(
        [f"input {i}: {name}" for i, moments in enumerate(every) for name in moments.names],
        np.concatenate([moments.mean for moments in every]),
        np.concatenate([moments.standard_error for moments in every]),
    )
