"""`CircuitRegressor`: a circuit's parameters from its responses."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm
from sklearn.base import RegressorMixin
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import (
    COUNT,
    NOT_NEGATIVE,
    NUMBER,
    POSITIVE,
    BaseEstimator,
    HasMethods,
    Interval,
    StrOptions,
    fit_context,
    validate_data,
)
from ssn_estimators.circuit import Circuit
from ssn_estimators.fitting.data import (
    errors_of,
    explained_variance,
    responses_of,
    steady_responses,
)
from ssn_estimators.fitting.model import (
    by_cell,
    circuit_with,
    numbers_of,
    responses_in_time,
    sessions_of,
)
from ssn_estimators.fitting.problem import problem_of
from ssn_estimators.fitting.profiles import profile_intervals
from ssn_estimators.fitting.starts import descents, is_reached, warn_of
from ssn_estimators.fitting.uncertainty import (
    identified,
    intervals_of_values,
    table_of,
    uncertainty_of,
)
from ssn_estimators.simulation import simulate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal, Self

    import pandas as pd

    from ssn_estimators._typing import ArrayLike, RandomState
    from ssn_estimators.fitting.covariances import Covariances
    from ssn_estimators.fitting.kernels import Connectivity
    from ssn_estimators.fitting.parameters import Free
    from ssn_estimators.fitting.spectra import Spectra
    from ssn_estimators.fitting.traces import Traces
    from ssn_estimators.simulation import Simulation

__all__ = ["CircuitRegressor"]


class CircuitRegressor(RegressorMixin, BaseEstimator):
    r"""Parameters of a circuit, fitted to its steady responses.

    Under condition i cells settle at :math:`u = W r + M x_i + b + p_i` with :math:`r = k \lfloor u
    \rfloor_+^\gamma`: M maps inputs to cells, b is a constant drive, and p the extra drive of a
    perturbation. What is `free` of W, M, b and k minimises

    .. math::
        \sum_{ij} \left( \frac{r_j(x_i) - Y_{ij}}{s_{ij}} \right)^2 + \lambda \sum_l \left(
        \frac{\theta_l - m_l}{f_l m_l} \right)^2

    with the errors s of the responses, the means m and the fractional errors f of a prior, and its
    `penalty` :math:`\lambda`. Least squares are SciPy's trust-region method on exact Jacobians
    (implicit gradients through the fixed points [1]_), from several starts, of logarithms of
    whatever keeps its sign.

    Weights are often not identified although rates are fitted well. `intervals_` and `identified_`
    say so; a prior, or perturbations of more cell types, are the remedy.

    Parameters
    ----------
    circuit : Circuit, default=None
        The circuit whose numbers are fitted where they are free, and kept where they are not; they
        are the first start. None means an E and an I cell for each output, all connected, with an
        input map of any signs.
    free : sequence of str or Free, default=("weights", "input_map", "baseline")
        What is free: names of quantities, or :class:`~ssn_estimators.fitting.Free` for what has a
        parameter of its own, boxes and priors. A name stands for one positive factor for each
        population (for weights: each pair), for the baseline one number of any sign.
    input_map : array-like of shape (n_neurons, n_inputs), default=None
        Drive of each cell in mV by each input of 1. None means that inputs are the drives of cells,
        or of populations, if there are as many.
    baseline : float, or array-like of shape (n_neurons,) or (n_populations,), default=0.0
        Constant drive in mV.
    connectivity : Connectivity, default=None
        How the circuit's weights fall with distance, if amplitudes or widths are free: the circuit
        has a cell of each population at every position, and these weights.
    observed : sequence of str or int, default=None
        What the columns of y are: names of populations, for means over their cells, or indices of
        cells. None means all cells, or all populations, if there are as many.
    response : {"rates", "potentials"}, default="rates"
        Whether y are rates in Hz or potentials in mV.
    penalty : float, default=1.0
        Factor of the squared misfits of priors.
    n_starts : int, default=10
        Number of starts: the circuit, and random ones about it. Those that end where a state is
        lost, where an output has no active cells, or nowhere within `max_iter`, are drawn again.
    lost : {"redraw", "lead"}, default="redraw"
        What becomes of starts without a stable state: others are drawn, or as many as are needed
        are led to one by penalties on the spectral abscissa and on large potentials. This takes
        longer, and is for circuits most of whose neighbours run away; with the power law, without
        receptors, and with y.
    max_iter : int, default=100
        Largest number of evaluations of a start.
    tol : float, default=1e-5
        Relative change of the sum of squares, and of parameters, at which a start ends.
    intervals : {"jacobian", "profile"}, default="jacobian"
        Whether intervals are those of the linear model at the minimum, or go as far as the sum of
        squares allows with all other parameters fitted anew. The latter hold where parameters
        trade off along curves, and take some ten more fits of each parameter.
    level : float, default=0.95
        Of the intervals.
    n_jobs : int, default=None
        Number of processes over starts, as in joblib.
    random_state : int, RandomState instance or None, default=None
        Source of the starts.

    Attributes
    ----------
    circuit_ : Circuit
        With the parameters of the best start.
    input_map_ : ndarray of shape (n_neurons, n_inputs) or (n_sessions, n_neurons, n_inputs)
        That of each session, if there are sessions.
    baseline_ : ndarray of shape (n_neurons,) or (n_sessions, n_neurons)
        In mV.
    connectivity_ : Connectivity or None
        With the amplitudes and widths of the best start.
    sessions_ : ndarray of str of shape (n_sessions,) or None
        Labels of the sessions; None without.
    parameter_names_ : list of str
        Such as "weights[E, PV]" (post, pre), or "baseline[E, monday]" of a session.
    values_, standard_errors_ : ndarrays of shape (n_parameters,)
        Standard errors are those of the Jacobian. Where residuals are larger than their errors on
        average they are larger by as much; without `sample_error` the variance of the residuals
        stands for that of the responses. Infinite for what the data say nothing of.
    intervals_ : ndarray of shape (n_parameters, 2)
        Of the confidence `level`; of logarithms where these are fitted. Infinite, or 0, where they
        are open.
    identified_ : ndarray of shape (n_parameters,), bool
        Whether the interval of a logarithm spans less than a factor of 10, or half of a linear one
        less than the largest of its kind.
    covariance_ : ndarray of shape (n_parameters, n_parameters)
        Of the coordinates.
    coordinates_ : ndarray of shape (n_parameters,)
        Logarithms of the magnitudes where these are fitted, and the values of linear parameters.
    jacobian_ : ndarray of shape (n_residuals, n_parameters)
        Of the residuals and of the misfits of the prior, then of those of spectra, of covariances
        and of (a QR decomposition of) traces, by the coordinates.
    condition_number_ : float
        Of the Jacobian of the residuals: the ratio of its largest to its smallest singular value.
    cost_ : float
        The minimum.
    starts_ : Bunch
        Of each start, in the order of `cost`: `cost`, `n_evaluations`, `converged` and `failed`;
        and the numbers `n_drawn`, `n_lost` and `n_led` of starts drawn, of those without a stable
        state or that lost it, and of those led to one.
    explained_variance_ : ndarray of shape (n_outputs,)
        Of each column of y.
    explained_variance_traces_ : list of ndarray of shape (n_outputs,)
        Of the responses of each of the traces.
    explained_variance_spectra_ : list of ndarray of shape (n_signals,)
        Of the logarithms of the power of each of the spectra.
    explained_variance_covariances_ : list of ndarray of shape (n_signals, n_signals)
        Of each entry, over conditions, of each of the covariances.
    noise_ceiling_ : ndarray of shape (n_outputs,)
        What the true rates would explain on average, given the errors; NaN without `sample_error`.
    stability_ : ndarray of shape (n_conditions,)
        Largest real part of the eigenvalues of the Jacobian of each state, in 1/ms; after those
        of X, of the inputs of spectra and of covariances.
    readout_ : ndarray of shape (n_outputs, n_neurons)
        Weights of the cells in the columns of y.
    n_outputs_ : int
        Number of columns of y.
    n_iter_ : int
        Number of evaluations of the best start.
    n_features_in_ : int
        Number of inputs.

    References
    ----------
    .. [1] Mossing, Veit, Palmigiano, Miller & Adesnik (2021). Antagonistic inhibitory subnetworks
       control cooperation and competition across cortical space. bioRxiv 2021.03.31.437953.

    See Also
    --------
    ssn_estimators.fitting.Free : What is free, and how.

    Examples
    --------
    An E and an I cell, from their rates at six strengths of input.

    >>> import numpy as np
    >>> from ssn_estimators import Circuit, CircuitRegressor
    >>> from ssn_estimators.inspection import steady_states
    >>> pair = Circuit([[1.0, -1.5], [1.2, -0.5]], n_excitatory=1, k=0.04)
    >>> X = np.array([[1.0], [2.0], [5.0], [10.0], [20.0], [40.0]])
    >>> rates = steady_states(pair, X * [1.0, 1.0]).rates
    >>> guess = Circuit([[0.5, -1.0], [0.5, -1.0]], n_excitatory=1, k=0.04)
    >>> model = CircuitRegressor(guess, ["weights"], input_map=[[1.0], [1.0]], random_state=0)
    >>> model.fit(X, rates).circuit_.weights.round(3)
    array([[ 1. , -1.5],
           [ 1.2, -0.5]])
    """

    _parameter_constraints: dict = {
        "circuit": [Circuit, None],
        "free": ["array-like"],
        "input_map": ["array-like", None],
        "baseline": ["array-like", *NUMBER],
        "connectivity": [HasMethods(["weights"]), None],
        "observed": ["array-like", None],
        "response": [StrOptions({"rates", "potentials"})],
        "penalty": NOT_NEGATIVE,
        "n_starts": COUNT,
        "lost": [StrOptions({"redraw", "lead"})],
        "max_iter": COUNT,
        "tol": POSITIVE,
        "intervals": [StrOptions({"jacobian", "profile"})],
        "level": [Interval(Real, 0, 1, closed="neither")],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
    }

    _new_parameters = ("connectivity", "lost")  # of which the first files of format 2 do not know

    _fitted_shapes = {
        "circuit_": Circuit,
        "input_map_": (..., "circuit_.n_neurons", "n_features_in_"),
        "baseline_": (..., "circuit_.n_neurons"),
        "readout_": ("n_outputs_", "circuit_.n_neurons"),
        "values_": ("parameters",),
        "coordinates_": ("parameters",),
        "jacobian_": ("rows", "parameters"),
        "n_outputs_": int,
        "_is_flat": bool,
    }

    def __init__(
        self,
        circuit: Circuit | None = None,
        free: Sequence[str | Free] = ("weights", "input_map", "baseline"),
        *,
        input_map: ArrayLike | None = None,
        baseline: ArrayLike = 0.0,
        connectivity: Connectivity | None = None,
        observed: Sequence[str | int] | None = None,
        response: Literal["rates", "potentials"] = "rates",
        penalty: float = 1.0,
        n_starts: int = 10,
        lost: Literal["redraw", "lead"] = "redraw",
        max_iter: int = 100,
        tol: float = 1e-5,
        intervals: Literal["jacobian", "profile"] = "jacobian",
        level: float = 0.95,
        n_jobs: int | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.circuit = circuit
        self.free = free
        self.input_map = input_map
        self.baseline = baseline
        self.connectivity = connectivity
        self.observed = observed
        self.response = response
        self.penalty = penalty
        self.n_starts = n_starts
        self.lost = lost
        self.max_iter = max_iter
        self.tol = tol
        self.intervals = intervals
        self.level = level
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        sample_error: ArrayLike | None = None,
        perturbation: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        traces: Traces | Sequence[Traces] | None = None,
        spectra: Spectra | Sequence[Spectra] | None = None,
        covariances: Covariances | Sequence[Covariances] | None = None,
    ) -> Self:
        """Fit the circuit to responses.

        Parameters
        ----------
        X : array-like of shape (n_conditions, n_inputs), default=None
            Inputs.
        y : array-like of shape (n_conditions,) or (n_conditions, n_outputs), default=None
            Mean responses, in Hz (or mV). NaN is what has not been observed.
        sample_error : float or array-like of shape (n_outputs,) or of that of y, default=None
            Standard errors of y. None means that they are all alike, and not known.
        perturbation : array-like of shape (n_conditions, n_neurons) or \
                (n_conditions, n_populations), default=None
            Further drive in mV, to cells or to all cells of populations.
        sessions : array-like of str or int of shape (n_conditions,), default=None
            Of which session, animal or recording each condition is. They have the circuit in
            common, and what is ``Free(..., per_session=True)`` of the input map and the baseline is
            that of each. Traces, spectra and covariances have a `session` of their own.
        traces : Traces or sequence of Traces, default=None
            Responses in time, beside those of steady states or in their place (X and y are None
            then). Time constants may be free with them, and errors count as known.
        spectra : Spectra or sequence of Spectra, default=None
            Power spectra of fluctuations, likewise; the noise may be free with them.
        covariances : Covariances or sequence of Covariances, default=None
            Covariances of fluctuations, likewise.

        Returns
        -------
        self : CircuitRegressor

        Raises
        ------
        ValueError
            If data are not finite, a column of y is empty, errors are not positive, a shape is
            wrong, something free is not there or not in its box, or sessions are missing or not
            needed.
        DivergenceError
            If no start has a stable state under all conditions.
        """
        others = {"traces": traces, "spectra": spectra, "covariances": covariances}
        shown = X, y, sample_error, perturbation, sessions
        model, problem, is_flat = problem_of(self, *shown, **others)
        rng = check_random_state(self.random_state)
        limits = {"max_iter": self.max_iter, "tol": self.tol, "n_jobs": self.n_jobs}
        lead = self._leads(problem)
        found, counts = descents(problem, self.n_starts, rng, lead=lead, **limits)
        warn_of(found)
        self.n_outputs_, self._is_flat = problem.targets.shape[1], is_flat
        best = self._keep(model, problem, found, counts)
        known = sample_error is not None or bool(problem.recordings or problem.fluctuations)
        self._judge(problem, best, known)
        return self

    def _leads(self, problem):
        """Whether starts are led to a stable state, if that is possible."""
        law = problem.conditions.law
        legal = problem.seen.any() and law.receptors is None and law.rate_function is None
        if self.lost == "lead" and not legal:
            raise ValueError(
                "lost='lead' needs y, and a circuit with the power law and without receptors; take "
                "'redraw'."
            )
        return self.lost == "lead"

    def _keep(self, model, problem, found, counts):
        """The best start whose states are those that the circuit comes to from rest."""
        found = sorted(found, key=lambda descent: (descent.failed, descent.cost))
        best = next((x for x in found if is_reached(problem, x)), found[0])
        self.circuit_ = circuit_with(model.circuit, model.parameters, best.theta)
        arrays = model.parameters.arrays(best.theta)
        kernels = model.parameters.kernels
        self.connectivity_ = None if kernels is None else kernels.connectivity_of(arrays)
        n, n_sessions = arrays["baseline"].shape
        maps = arrays["input_map"].reshape(n, n_sessions, -1).swapaxes(0, 1)
        baselines = arrays["baseline"].T
        self.sessions_ = np.array(model.sessions) if model.sessions else None
        self.input_map_ = maps if model.sessions else maps[0]
        self.baseline_ = baselines if model.sessions else baselines[0]
        self.readout_, self.cost_, self.stability_ = model.readout, best.cost, best.abscissa
        self.n_iter_ = best.n_evaluations
        self.coordinates_, self.jacobian_ = best.theta, best.jacobian
        self.starts_ = Bunch(
            cost=np.array([x.cost for x in found]),
            n_evaluations=np.array([x.n_evaluations for x in found]),
            converged=np.array([x.converged for x in found]),
            failed=np.array([x.failed for x in found]),
            **counts,
        )
        return best

    def _judge(self, problem, best, errors_known):
        """What the fit says of the parameters, and how good it is."""
        parameters, Y = problem.parameters, problem.targets
        follower, arrays = problem.follower(), parameters.arrays(best.theta)
        outputs = problem.conditions.outputs(arrays, best.u)
        self.explained_variance_traces_ = [
            explained_variance(own.targets, follower.outputs(own, arrays)[..., -1])
            for own in problem.recordings
        ]
        for name in ("spectra", "covariances"):
            own = getattr(problem, name)
            explained = [] if own is None else own.explained_variance(arrays, best.u)
            setattr(self, f"explained_variance_{name}_", explained)
        n_free = max(1, problem.n_residuals + problem.has_prior.sum() - len(parameters))
        scale = np.sqrt(self.cost_ / n_free)
        scale = max(1.0, scale) if errors_known else scale
        found = uncertainty_of(best.jacobian, scale, parameters, best.theta, self.level)
        intervals = np.clip(found.intervals, parameters.low[:, None], parameters.high[:, None])
        if self.intervals == "profile":
            rise = (scale * norm.ppf(0.5 + self.level / 2)) ** 2
            intervals = profile_intervals(problem, best, found.covariance, rise, self.n_jobs)
        self.parameter_names_ = list(parameters.names)
        self.values_ = parameters.values(best.theta)
        self.covariance_, self.standard_errors_ = found.covariance, found.standard_errors
        self.intervals_ = intervals_of_values(intervals, parameters)
        self.identified_ = identified(intervals, parameters, best.theta)
        self.condition_number_ = found.condition_number
        self.explained_variance_ = explained_variance(Y, outputs)
        noise = np.where(problem.seen, problem.errors**2, 0.0).sum(0)
        total = (
            np.nansum((Y - np.nanmean(Y, axis=0)) ** 2, axis=0) if problem.seen.any() else 0 * noise
        )
        ceiling = 1 - noise / np.where(total > 0, total, 1.0)
        unknown = not errors_known
        self.noise_ceiling_ = np.where((total == 0) | unknown, np.nan, ceiling)

    @property
    def parameters_(self) -> pd.DataFrame:
        """Names, values, standard errors, intervals and whether identified; a pandas DataFrame."""
        check_is_fitted(self)
        values = (self.values_, self.standard_errors_, self.intervals_, self.identified_)
        return table_of(self.parameter_names_, *values)

    def drive(
        self,
        X: ArrayLike,
        *,
        perturbation: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> np.ndarray:
        """Drive of the cells.

        Parameters
        ----------
        X : array-like of shape (n_conditions, n_inputs)
            Conditions, as in :meth:`fit`.
        perturbation : array-like, default=None
            As in :meth:`fit`.
        sessions : array-like of shape (n_conditions,), str or int, default=None
            As in :meth:`fit`, or that of all conditions; of those of the fit.

        Returns
        -------
        drive : ndarray of shape (n_conditions, n_neurons)
            In mV.

        Raises
        ------
        ValueError
            If inputs are not legal, or there is no such session.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        extra = by_cell(self.circuit_, perturbation, len(X), "perturbation")
        number = numbers_of(sessions, len(X), sessions_of(self))
        n = self.circuit_.n_neurons
        maps = self.input_map_.reshape(-1, n, X.shape[1])[number]
        # one sum for each cell and condition, so that it does not depend on other conditions
        by_input = (X[:, None, :] * maps).sum(-1)
        return by_input + self.baseline_.reshape(-1, n)[number] + extra

    def predict(
        self,
        X: ArrayLike,
        *,
        perturbation: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> np.ndarray:
        """Steady responses.

        Parameters
        ----------
        X : array-like of shape (n_conditions, n_inputs)
            Conditions, as in :meth:`fit`.
        perturbation, sessions : array-like, default=None
            As in :meth:`drive`.

        Returns
        -------
        y : ndarray of shape (n_conditions,) or (n_conditions, n_outputs)
            As in :meth:`fit`.

        Raises
        ------
        ValueError
            If inputs are not legal, or there is no such session.
        DivergenceError
            If the circuit does not settle under some input.
        """
        drive = self.drive(X, perturbation=perturbation, sessions=sessions)
        potentials = self.response == "potentials"
        found = steady_responses(self.circuit_, drive, potentials) @ self.readout_.T
        return found[:, 0] if self._is_flat else found

    def residuals(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sample_error: ArrayLike | None = None,
        perturbation: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> np.ndarray:
        """Responses less their predictions.

        Parameters
        ----------
        X, y, sample_error, perturbation, sessions
            As in :meth:`fit`.

        Returns
        -------
        residuals : ndarray of the shape of y
            In units of the errors if these are given; NaN where y is.
        """
        predicted = self.predict(X, perturbation=perturbation, sessions=sessions)
        Y, _ = responses_of(y, len(predicted), self.n_outputs_)
        found = (Y - predicted.reshape(Y.shape)) / errors_of(sample_error, Y)
        return found.reshape(np.shape(y))

    def score(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        perturbation: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> float:
        """Explained variance (R squared), the mean over the columns of y.

        Parameters
        ----------
        X, y, perturbation, sessions
            As in :meth:`fit`.

        Returns
        -------
        score : float
            1 at best.
        """
        predicted = self.predict(X, perturbation=perturbation, sessions=sessions)
        Y, _ = responses_of(y, len(predicted), self.n_outputs_)
        return float(explained_variance(Y, predicted.reshape(len(Y), -1)).mean())

    def predict_traces(
        self,
        inputs: ArrayLike,
        *,
        dt: float = 1.0,
        initial: ArrayLike | None = None,
        perturbation: ArrayLike | None = None,
        session: str | int | None = None,
    ) -> np.ndarray:
        """Responses in time.

        Parameters
        ----------
        inputs, dt, initial, perturbation, session
            As in :class:`~ssn_estimators.fitting.Traces`.

        Returns
        -------
        responses : ndarray of shape (n_steps, n_outputs)
            After each step.

        Raises
        ------
        DivergenceError
            If activity runs away.
        """
        check_is_fitted(self)
        options = {"dt": dt, "initial": initial, "perturbation": perturbation}
        return responses_in_time(self, inputs, session=session, **options)

    def simulate(
        self,
        X: ArrayLike,
        *,
        perturbation: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        **options: Any,
    ) -> Simulation:
        """Simulate the fitted circuit.

        Parameters
        ----------
        X, perturbation, sessions
            As in :meth:`drive`.
        **options
            Of :func:`~ssn_estimators.simulate`, such as `n_trials` and `random_state`.

        Returns
        -------
        simulation : Simulation
        """
        drive = self.drive(X, perturbation=perturbation, sessions=sessions)
        return simulate(self.circuit_, drive, **options)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = True  # rates are never negative, as targets of tests are
        return tags
