"""`FokkerPlanckRegressor`: dynamics from samples that have no order."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import LinAlgWarning, block_diag
from scipy.optimize import lsq_linear
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    BaseEstimator,
    StrOptions,
    check_array,
    fit_context,
    validate_data,
)
from ssn_estimators._torch import in_pieces
from ssn_estimators.circuit import Circuit
from ssn_estimators.density.dynamics import Langevin
from ssn_estimators.density.stationarity import random_frequencies, wave_moments

if TYPE_CHECKING:
    from typing import Any, Literal, Self

    from ssn_estimators._typing import ArrayLike, Function, RandomState

__all__ = ["FokkerPlanckRegressor", "circuit_from_samples"]

# Blocks of samples, whose differences say what errors there are: of all, and of a state at least
N_BLOCKS, LEAST_BLOCKS = 40, 10
LARGEST = 1e70  # value; fourth powers are added up
EPSILON = np.finfo(float).eps
TAKES_PART = 0.01  # share of a coefficient, squared, in what samples say nothing of


class FokkerPlanckRegressor(BaseEstimator):
    r"""Drift of stochastic dynamics, from samples of their stationary state without times.

    The drift is affine in its unknown coefficients, :math:`f(x) = f_0(x) + \sum_j \theta_j
    \varphi_j(x)`, and the diffusion D is known. In the stationary state the mean of
    :math:`\mathcal{L} \psi = f \cdot \nabla \psi + \mathrm{tr}(D \nabla \nabla \psi)` is 0 for
    every function :math:`\psi`; with cosines and sines of random frequencies these means are linear
    in the coefficients [1]_, and need neither density nor score. Their sum of squares is the
    kernel deviation from stationarity [2]_ with a Gaussian kernel, by random features.

    Means over samples have errors, which depend on the coefficients, too: least squares would take
    their squares for signal and shrink the coefficients, the more of them there are the more. The
    squares of these errors, from the differences between random blocks of samples, are subtracted,
    as in jackknife estimators with instrumental variables [3]_. Samples should be independent.

    A density does not determine all dynamics: a current without sources leaves it unchanged, as
    the rotation of a Gaussian does. What the samples do not say shows in `condition_number_`,
    `sensitivity_` and `stderr_`. The remedies are fewer unknowns, signs, and samples under
    several conditions, such as inputs, that share the coefficients.

    Parameters
    ----------
    features : "linear" or callable, default="linear"
        :math:`\varphi`, from X of shape (n, d) to shape (n, d, n_coefficients), or from X and
        conditions of shape (n, n_conditions) where `fit` is given these. "linear" has the
        coefficients of :math:`f_i = \sum_k A_{ik} x_k + b_i`: A row by row, and then b.
    offset : callable, default=None
        :math:`f_0`, alike, to shape (n, d); None is 0.
    diffusion : float, array-like of shape (d, d) or callable, default=1.0
        D, as in :class:`.Langevin`; a number stands for that multiple of the identity. It sets
        the scale of the drift.
    n_frequencies : int, default=400
        Number of random frequencies.
    length_scale : float, default=0.5
        Width of the kernel, in standard deviations of the samples.
    signs : array-like of shape (n_coefficients,), default=None
        1 for coefficients that are not negative, -1 for those that are not positive, 0 for any.
    alpha : float, default=0.0
        Ridge penalty, on coefficients in units in which all columns of the problem have norm 1.
    random_state : int, RandomState instance or None, default=None
        Source of the frequencies.

    Attributes
    ----------
    coef_ : ndarray of shape (n_coefficients,)
        The coefficients :math:`\theta`.
    stderr_ : ndarray of shape (n_coefficients,)
        Their standard errors, by leaving out each of these blocks (40, or 10 of each condition
        where there are more than four). NaN for coefficients that a sign keeps at 0, infinite for
        those that the samples say nothing of.
    gram_ : ndarray of shape (n_coefficients, n_coefficients)
        Matrix of the sum of squares as a function of the coefficients.
    sensitivity_ : Bunch
        `eigenvalues` in falling order, and `eigenvectors` (as columns), of `gram_` scaled to a
        diagonal of 1:
        directions with small values are those that the samples say little of.
    condition_number_ : float
        Root of the ratio of the largest to the smallest of these values; infinite if the fit is
        singular, and then of all minima the one of least norm is taken.
    frequencies_ : list of ndarray of shape (n_frequencies, d)
        Those of every condition.
    n_features_in_ : int
        Number of features seen during fit.

    See Also
    --------
    ssn_estimators.density.stationarity_test : Whether samples contradict given dynamics.
    ssn_estimators.density.circuit_from_samples : Weights of an SSN, with Dale's law.

    References
    ----------
    .. [1] Lu, Kuśmierz & Mihalas (2025). A Fokker-Planck-based loss function that bridges
       dynamics with density estimation. arXiv.
    .. [2] Lorch, Krause & Schölkopf (2024). Causal modeling with stationary diffusions. AISTATS.
    .. [3] Angrist, Imbens & Krueger (1999). Jackknife instrumental variables estimation. J. Appl.
       Econometrics 14, 57-67.

    Examples
    --------
    >>> import numpy as np
    >>> from ssn_estimators import FokkerPlanckRegressor
    >>> X = np.random.RandomState(0).normal(scale=0.5**0.5, size=(4000, 1))
    >>> relaxation = FokkerPlanckRegressor(random_state=0).fit(X)  # dx = -2 x dt + sqrt(2) dW
    >>> bool(abs(relaxation.coef_[0] + 2) < 0.2)
    True
    """

    _parameter_constraints: dict = {
        "features": [StrOptions({"linear"}), callable],
        "offset": [callable, None],
        "diffusion": [*NOT_NEGATIVE, "array-like", callable],
        "n_frequencies": COUNT,
        "length_scale": POSITIVE,
        "signs": ["array-like", None],
        "alpha": NOT_NEGATIVE,
        "random_state": ["random_state"],
    }

    _fitted_shapes = {"coef_": ("coefficients",)}

    def __init__(
        self,
        features: Literal["linear"] | Function = "linear",
        *,
        offset: Function | None = None,
        diffusion: ArrayLike | Function = 1.0,
        n_frequencies: int = 400,
        length_scale: float = 0.5,
        signs: ArrayLike | None = None,
        alpha: float = 0.0,
        random_state: RandomState = None,
    ) -> None:
        self.features = features
        self.offset = offset
        self.diffusion = diffusion
        self.n_frequencies = n_frequencies
        self.length_scale = length_scale
        self.signs = signs
        self.alpha = alpha
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: object = None, *, condition: ArrayLike | None = None) -> Self:
        """Find the coefficients.

        Parameters
        ----------
        X : array-like of shape (n_samples, d)
            Samples of the stationary state, in any order.
        y : None
            Ignored.
        condition : array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
            Numbers that features and offset depend on beside x. Samples with the same numbers
            are of one stationary state.

        Returns
        -------
        self : FokkerPlanckRegressor

        Raises
        ------
        ValueError
            If the shapes of features, offset, diffusion, signs or conditions do not match, there
            are fewer test functions than coefficients, or no condition has two samples.

        Warns
        -----
        LinAlgWarning
            If some coefficients have infinite standard errors: the fit is singular, or errors of
            the means exceed all that the samples say.
        """
        X = validate_data(self, X, squared=LARGEST, dtype=np.float64, ensure_min_samples=2)
        condition = _conditions(condition, len(X))
        rng = check_random_state(self.random_state)
        states = _states(condition, len(X))
        self.frequencies_ = [
            random_frequencies(
                X[rows], self.n_frequencies, length_scale=self.length_scale, random_state=rng
            )
            for rows in states
        ]
        if max(map(len, states)) < 2:
            raise ValueError("every condition has one sample only; means need more of them.")
        n_blocks = max(LEAST_BLOCKS, N_BLOCKS // len(states))
        blocks = [
            np.array_split(rng.permutation(rows), min(n_blocks, len(rows))) for rows in states
        ]
        parts = [
            np.array([self._moments(X, condition, block, waves) for block in own])
            for own, waves in zip(blocks, self.frequencies_, strict=True)
        ]
        n_coefficients = parts[0].shape[2] - 1
        n_tests = sum(2 * len(waves) for waves in self.frequencies_)
        if n_coefficients > n_tests:
            raise ValueError(
                f"{n_coefficients} coefficients cannot be found from {n_tests} test functions; "
                "raise n_frequencies."
            )
        signs = np.zeros(n_coefficients) if self.signs is None else np.asarray(self.signs, float)
        if signs.shape != (n_coefficients,) or not np.isin(signs, (-1, 0, 1)).all():
            raise ValueError(
                f"signs must be -1, 0 or 1 for each of the {n_coefficients} coefficients."
            )
        counts = [np.array([len(block) for block in own]) for own in blocks]
        problem = _Problem(parts, counts, signs, self.alpha)
        self.gram_, self.sensitivity_ = problem.gram, problem.sensitivity()
        self.coef_, self.stderr_, lost = problem.solve()
        values = self.sensitivity_.eigenvalues
        self.condition_number_ = np.inf if lost else float((values[0] / values[-1]) ** 0.5)
        if np.isinf(self.stderr_).any():
            warnings.warn(
                "the samples do not determine all coefficients (singular fit, or errors above what "
                "they say); of these, the least values are taken. See sensitivity_, and fit "
                "samples of more conditions.",
                LinAlgWarning,
                stacklevel=4,
            )
        return self

    def _moments(self, X, condition, rows, waves):
        """Sums of the moments of samples of one state.

        Moments are linear in the coefficients and 1, which stands for all that is known.
        """
        X, condition = X[rows], None if condition is None else condition[rows]
        n, d = X.shape
        flat, offset = self._phi(X, condition).reshape(n, -1), self._offset(X, condition)
        phase = X @ waves.T
        by_sine, by_cosine = (
            np.einsum("fi,fij->fj", waves, (wave.T @ flat).reshape(len(waves), d, -1))
            for wave in (np.sin(phase), np.cos(phase))
        )
        known = wave_moments(self._dynamics(lambda _: offset, d), X, waves).sum(0)
        return np.column_stack([np.concatenate([-by_sine, by_cosine]), known])

    def _dynamics(self, drift, d):
        diffusion = self.diffusion
        if isinstance(diffusion, Real):
            diffusion = diffusion * np.eye(d)
        return Langevin(drift, diffusion)

    def _phi(self, X, condition):
        if isinstance(self.features, str):
            return _linear(X)
        phi = np.asarray(_called(self.features, X, condition), dtype=float)
        if phi.ndim != 3 or phi.shape[:2] != X.shape:
            raise ValueError(
                f"features must give an array of shape {X.shape} and an axis of coefficients, got "
                f"{phi.shape}."
            )
        if not np.isfinite(phi).all():
            raise ValueError("features are not finite at some sample.")
        return phi

    def _offset(self, X, condition):
        if self.offset is None:
            return np.zeros_like(X)
        offset = np.asarray(_called(self.offset, X, condition), dtype=float)
        if offset.shape != X.shape or not np.isfinite(offset).all():
            raise ValueError(
                f"offset must give finite numbers of shape {X.shape}, got shape {offset.shape}."
            )
        return offset

    def _drift(self, X, condition):
        return self._offset(X, condition) + self._phi(X, condition) @ self.coef_

    def predict(self, X: ArrayLike, *, condition: ArrayLike | None = None) -> np.ndarray:
        """The drift.

        Parameters
        ----------
        X : array-like of shape (n_samples, d)
            Where to evaluate it.
        condition : array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
            See `fit`.

        Returns
        -------
        drift : ndarray of shape (n_samples, d)
        """
        check_is_fitted(self)
        X = validate_data(self, X, squared=LARGEST, dtype=np.float64, reset=False)
        condition = _conditions(condition, len(X))

        def drift(rows):
            return self._drift(X[rows], None if condition is None else condition[rows])

        return in_pieces(drift, np.arange(len(X)))

    def score(self, X: ArrayLike, y: object = None, *, condition: ArrayLike | None = None) -> float:
        """How well the dynamics keep other samples stationary.

        Parameters
        ----------
        X : array-like of shape (n_samples, d)
            Samples.
        y : None
            Ignored.
        condition : array-like of shape (n_samples,) or (n_samples, n_conditions), default=None
            Those of `fit`.

        Returns
        -------
        score : float
            Minus the mean squared moment of the generator, over test functions and conditions.
        """
        check_is_fitted(self)
        X = validate_data(self, X, squared=LARGEST, dtype=np.float64, reset=False)
        condition = _conditions(condition, len(X))
        states = _states(condition, len(X))
        if len(states) != len(self.frequencies_):
            raise ValueError(
                f"score needs samples of all {len(self.frequencies_)} conditions of fit, got "
                f"{len(states)}."
            )
        total = 0.0
        for rows, waves in zip(states, self.frequencies_, strict=True):
            own = None if condition is None else condition[rows]
            dynamics = self._dynamics(lambda x, own=own: self._drift(x, own), X.shape[1])
            total += (wave_moments(dynamics, X[rows], waves).mean(0) ** 2).mean()
        return -float(total / len(states))


class _Problem:
    """The sum of squared mean moments, less that of their errors, over all states.

    Parameters
    ----------
    sums : list of ndarray of shape (n_blocks, n_tests, n_coefficients + 1)
        Sums of moments over the samples of a block: factors of the coefficients and of 1.
    counts : list of ndarray of shape (n_blocks,)
        Numbers of samples.
    signs : ndarray of shape (n_coefficients,)
    alpha : float
    """

    def __init__(self, sums, counts, signs, alpha):
        self.sums, self.counts, self.signs, self.alpha = sums, counts, signs, alpha
        n = np.array([count.sum() for count in counts])
        means = [s.sum(0) / size for s, size in zip(sums, n, strict=True)]
        rows = np.concatenate([np.sqrt(w) * m for w, m in zip(n / n.sum(), means, strict=True)])
        self.gram = rows[:, :-1].T @ rows[:, :-1]
        size = np.sqrt(np.diag(self.gram))
        self.scale = np.append(np.where(size > 0, size, 1.0), 1.0)
        self.rows = rows / self.scale
        self.own = [s.mT @ s for s in sums]
        self.forms = [self.part(state) for state in range(len(counts))]
        self.form = sum(self.forms)

    def part(self, state, without=None):
        """Matrix of a state's form of (scaled coefficients, 1), without one of its blocks."""
        sums, counts = self.sums[state], self.counts[state]
        used = np.arange(len(counts)) != without
        n, n_own = counts[used].sum(), (counts[used] ** 2).sum()
        if n**2 == n_own:  # one block says nothing of errors
            return np.zeros_like(self.own[state][0])
        whole = sums[used].sum(0)
        # a block times another has no error on average
        others = whole.T @ whole - self.own[state][used].sum(0)
        share = counts.sum() / sum(count.sum() for count in self.counts)
        return share * others / (n**2 - n_own) / np.outer(self.scale, self.scale)

    def sensitivity(self):
        _, singular, vectors = np.linalg.svd(self.rows[:, :-1], full_matrices=False)
        return Bunch(eigenvalues=singular**2, eigenvectors=vectors.T)

    def solve(self):
        """Coefficients, their standard errors, and whether the fit is singular."""
        free = np.ones(len(self.signs), bool)
        while True:
            seen, lost = self.seen(free)
            coef, unknown = self.minimum(free, seen)
            bound = free & (coef == 0) & (self.signs != 0) & ~lost
            if not bound.any():
                break
            free &= ~bound  # what is not there makes no errors
        stderr = np.full(len(free), np.nan)
        stderr[free] = np.sqrt(self.variance(free, seen))
        stderr[lost | unknown] = np.inf
        return coef / self.scale[:-1], stderr / self.scale[:-1], lost.any()

    def variance(self, free, seen):
        """Of the free coefficients, by the jackknife over the blocks of every state."""

        def solved(form):
            form = self.seen_form(form, free, seen)
            penalty = self.alpha * np.eye(len(form) - 1)
            return seen @ np.linalg.lstsq(form[:-1, :-1] + penalty, -form[:-1, -1])[0]

        whole, variance = solved(self.form), np.zeros(free.sum())
        for state, counts in enumerate(self.counts):
            for b in range(len(counts)):
                left = solved(self.form - self.forms[state] + self.part(state, b))
                variance += (1 - 1 / len(counts)) * (left - whole) ** 2
        return variance

    def seen(self, free):
        """Basis of what samples say of the free coefficients; those that they leave open."""
        _, singular, right = np.linalg.svd(self.rows[:, :-1][:, free], full_matrices=False)
        none = singular <= singular.max(initial=0.0) * EPSILON**0.5  # forms have their squares
        lost = free.copy()
        lost[free] = (right[none] ** 2).sum(0) > 1e-8
        return right[~none].T, lost

    def seen_form(self, form, free, seen):
        used, basis = np.append(free, True), block_diag(seen, 1.0)
        return basis.T @ form[np.ix_(used, used)] @ basis

    def minimum(self, free, seen):
        """Scaled coefficients at the least value, and those whose errors hide what they are."""
        form = self.seen_form(self.form, free, seen)
        value, vector = np.linalg.eigh(form[:-1, :-1])
        target = vector.T @ form[:-1, -1]
        hidden = value <= _rounding(np.abs(value))
        if hidden.any():  # with errors taken for signal, coefficients come out small
            whole = self.seen_form(self.rows.T @ self.rows, free, seen)
            value[hidden] = ((whole[:-1, :-1] @ vector) * vector).sum(0)[hidden]
            target[hidden] = (vector.T @ whole[:-1, -1])[hidden]
        root, vector = np.sqrt(value), seen @ vector
        penalty = np.sqrt(self.alpha) * np.eye(free.sum())
        rows = np.vstack([(vector * root).T, penalty])
        wanted = np.append(-target / root, np.zeros(len(penalty)))
        coef, unknown = np.zeros(len(free)), free.copy()
        if self.signs.any():
            signs = self.signs[free]
            low, high = np.where(signs > 0, 0, -np.inf), np.where(signs < 0, 0, np.inf)
            coef[free] = lsq_linear(rows, wanted, bounds=(low, high), method="bvls").x
        else:
            coef[free] = np.linalg.lstsq(rows, wanted)[0]
        unknown[free] = (vector[:, hidden] ** 2).sum(1) > TAKES_PART
        return coef, unknown


def _rounding(values):
    return values.max(initial=0.0) * len(values) * EPSILON


def _linear(X):
    """Features of an affine drift: those of every row of A, and those of b."""
    n, d = X.shape
    phi = np.zeros((n, d, d * d + d))
    for i in range(d):
        phi[:, i, i * d : (i + 1) * d] = X
        phi[:, i, d * d + i] = 1.0
    return phi


def _called(function, X, condition):
    return function(X) if condition is None else function(X, condition)


def _conditions(condition, n_samples):
    if condition is None:
        return None
    condition = check_array(condition, ensure_2d=False, dtype=float, input_name="condition")
    condition = condition.reshape(len(condition), -1)
    if len(condition) != n_samples:
        raise ValueError(f"condition has {len(condition)} rows, X has {n_samples}.")
    return condition


def _states(condition, n_samples):
    """Rows of every stationary state, in the order of the sorted conditions."""
    if condition is None:
        return [np.arange(n_samples)]
    _, state = np.unique(condition, axis=0, return_inverse=True)
    return [np.flatnonzero(state.ravel() == i) for i in range(state.max() + 1)]


def circuit_from_samples(
    circuit: Circuit, X: ArrayLike, drive: ArrayLike, *, dale: bool = True, **options: Any
) -> Bunch:
    r"""Weights of a circuit from potentials and noise, :math:`(u, \eta)`, in no order.

    The drift of the potentials is affine in the weights, so that they are a
    :class:`.FokkerPlanckRegressor`'s coefficients; everything else about the circuit is known.
    Inputs of different strengths make the weights unique. Memory grows with the number of samples
    under an input times the cube of the number of neurons: this is for circuits of some cells.

    Parameters
    ----------
    circuit : Circuit
        Its weights do not matter.
    X : array-like of shape (n_inputs, n_samples, 2 * n_neurons)
        Samples of the stationary state under every input: potentials, then noise, in mV.
    drive : array-like of shape (n_inputs, n_neurons)
        External drive f(h) in mV.
    dale : bool, default=True
        Whether weights keep Dale's law. Without, they may break it, and are returned only in
        `regressor`.
    **options
        Parameters of :class:`.FokkerPlanckRegressor`: `n_frequencies`, `length_scale`, `alpha`,
        `random_state`.

    Returns
    -------
    found : Bunch
        `weights` and their standard errors `stderr` of shape (n_neurons, n_neurons), the fitted
        `regressor`, and the `circuit` with these weights (None without Dale's law).

    References
    ----------
    .. [1] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35. Eqs. 1-3.
    """
    n, circuit = circuit.n_neurons, circuit.to_numpy()
    X, drive = np.asarray(X, dtype=float), np.asarray(drive, dtype=float)
    if X.ndim != 3 or X.shape[2] != 2 * n or drive.shape != (len(X), n):
        raise ValueError(
            f"X must have shape (n_inputs, n_samples, {2 * n}) and drive (n_inputs, {n}); got "
            f"{X.shape} and {drive.shape}."
        )
    noise = circuit.noise_factor @ circuit.noise_factor.T / circuit.tau_eta
    regressor = FokkerPlanckRegressor(
        _FeaturesOfWeights(circuit),
        offset=_KnownDrift(circuit),
        diffusion=block_diag(np.zeros((n, n)), noise),
        signs=np.tile(circuit.signs, n) if dale else None,
        **options,
    )
    regressor.fit(X.reshape(-1, 2 * n), condition=np.repeat(drive, X.shape[1], axis=0))
    weights, stderr = (a.reshape(n, n) for a in (regressor.coef_, regressor.stderr_))
    return Bunch(
        weights=weights,
        stderr=stderr,
        regressor=regressor,
        circuit=replace(circuit, weights=weights) if dale else None,
    )


@dataclass(frozen=True, eq=False)
class _KnownDrift:
    """What the drift of (u, eta) has beside the recurrent input."""

    circuit: Circuit

    def __call__(self, x, outside):
        circuit, n = self.circuit, self.circuit.n_neurons
        du = (outside - x[:, :n] + x[:, n:]) / circuit.tau
        return np.hstack([du, -x[:, n:] / circuit.tau_eta])


@dataclass(frozen=True, eq=False)
class _FeaturesOfWeights:
    """The recurrent input, linear in the weights."""

    circuit: Circuit

    def __call__(self, x, _):
        circuit, n = self.circuit, self.circuit.n_neurons
        rates = circuit.rates(x[:, :n])
        phi = np.zeros((len(x), 2 * n, n * n))
        for i in range(n):
            phi[:, i, i * n : (i + 1) * n] = rates / circuit.tau[i]
        return phi
