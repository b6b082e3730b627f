"""What training does to the mean strength of weights, from what it is told (Kim & Chow)."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import COUNT, NOT_NEGATIVE, NUMBER, POSITIVE, Interval, validate_params

if TYPE_CHECKING:
    from ssn_estimators._typing import ArrayLike
    from ssn_estimators.spiking.regressor import SpikingRegressor

__all__ = ["drift_statistics", "expected_coupling_drift"]


def _per_group(value, n_groups, name, *, least=-np.inf):
    """A number for every group, finite and not below `least`."""
    value = np.asarray(value, float)
    if value.shape not in ((), (n_groups,)):
        raise ValueError(
            f"{name} must have an entry for each of the {n_groups} groups of weights, got shape "
            f"{value.shape}."
        )
    if not (np.isfinite(value).all() and (value >= least).all()):
        limit = "" if np.isinf(least) else f" and at least {least:g}"
        raise ValueError(f"{name} must be finite{limit}, got {value}.")
    return np.broadcast_to(value, (n_groups,))


@validate_params(
    weights=["array-like"],
    n_inputs=["array-like"],
    mean=["array-like"],
    variance=["array-like"],
    heterogeneity=[*NOT_NEGATIVE, "array-like"],
    n_samples=COUNT,
    n_effective=[*POSITIVE, "array-like", None],
    deviation=NUMBER,
    deviation_variance=NOT_NEGATIVE,
    recurring=[Interval(Real, 0, 1, closed="right")],
    penalty=POSITIVE,
    sum_penalty=NOT_NEGATIVE,
)
def expected_coupling_drift(
    weights: ArrayLike,
    n_inputs: ArrayLike,
    *,
    mean: ArrayLike,
    variance: ArrayLike,
    heterogeneity: ArrayLike = 0.0,
    n_samples: int,
    n_effective: ArrayLike | None = None,
    deviation: float = 0.0,
    deviation_variance: float = 0.0,
    recurring: float = 1.0,
    penalty: float = 0.8,
    sum_penalty: float = 8.0,
) -> Bunch:
    r"""Analytical estimate of what training does to summed weights and to signs.

    From the penalties and a few statistics of spike trains and targets, for cells whose trained
    inputs fall into groups of alike ones; and a bound for any cells. See Notes for what is assumed.

    Parameters
    ----------
    weights : array-like of shape (n_groups,)
        Weight of all trained synapses from a group before training, w, in ms; not 0.
    n_inputs : array-like of shape (n_groups,), int
        Trained synapses from each group, n.
    mean : array-like of shape (n_groups,)
        Mean of the filtered spike trains, :math:`\bar r`, per ms: a rate in Hz over 1000.
    variance : array-like of shape (n_groups,)
        Their variance in time, v, per ms**2. Poisson trains of rate :math:`\bar r` have
        :math:`\bar r / 2 \tau` with the time constant :math:`\tau` of the filter.
    heterogeneity : float or array-like of shape (n_groups,), default=0.0
        Variance of the means among the inputs of a cell from a group, h, per ms**2.
    n_samples : int
        Updates of the weights in all of training, T.
    n_effective : float or array-like of shape (n_groups,), default=None
        How many samples without correlations in time would make the covariance of a spike train
        with the deviation scatter as much as it does. Where trials are repeated with what spikes
        and targets have in common, this is much less than T, which None takes.
    deviation : float, default=0.0
        Mean of target minus drive with the weights from before training, d, in units of the
        threshold.
    deviation_variance : float, default=0.0
        Variance of the same in time, :math:`\sigma^2`.
    recurring : float, default=1.0
        Which share of it comes back in every trial, q, above 0.
    penalty, sum_penalty : float, default=0.8 and 8.0
        Those of :class:`~ssn_estimators.SpikingRegressor`, :math:`\lambda` and :math:`\mu`.

    Returns
    -------
    expected : :class:`~sklearn.utils.Bunch`
        With ndarrays of shape (n_groups,): `drift`, the change of the summed weights over their
        size before, as in :func:`coupling_drift`; `bound`, which no cell with such a deviation
        passes, whatever its spike trains are; `spread`, the standard deviation of changes within
        a group, in ms; `changed_signs`, the share of weights whose sign is another, as in
        :func:`dale_violations`.

    Raises
    ------
    ValueError
        If entries do not fit to `weights`, are not finite, or negative where they cannot be, or a
        weight is 0.

    Notes
    -----
    The weights of a cell change by

    .. math:: \Delta w = (C_0 + R^T R)^{-1} R^T d_t, \qquad
              C_0 = \lambda I + \mu \sum_g 1_g 1_g^T,

    with filtered spike trains R of T rows and the deviation :math:`d_t`. Assume that trains
    fluctuate independently about their means, as much within a group, and that the deviation
    fluctuates with them only as the own weight w of each makes it, by :math:`-w` times the train,
    and by chance, or as trials have both in common. With

    .. math:: c_g = \lambda + T v_g, \qquad a_g = \frac{n_g}{c_g + \mu n_g}

    the sums :math:`S_g` of the changes, and what they leave of the mean deviation, then are

    .. math:: S_g &= T a_g (\bar r_g \varepsilon - v_g w_g), \\
              \varepsilon &= \frac{d + T \sum_g \bar r_g a_g v_g w_g}
              {1 + T \sum_g (\bar r_g^2 a_g + n_g h_g / c_g)},

    and the variance of changes within a group is, with what training leaves of a deviation that
    all inputs share in, :math:`\kappa`,

    .. math:: \frac{T^2}{c_g^2} \Big( h_g \varepsilon^2 +
              \frac{v_g \sigma^2 \kappa^2}{T_{\mathrm{eff}, g}} \Big), \qquad
              \kappa^{-1} = 1 + \frac{T}{q} \sum_g \frac{n_g v_g}{c_g T_{\mathrm{eff}, g}}.

    Signs change as those of normal variables do. A large :math:`\mu` keeps sums as
    :math:`1 / (c_g + \mu n_g)`, a large :math:`\lambda` the signs.

    Without any of this, :math:`S_g^2 \leq (\Delta w^T C_0 \Delta w) (1_g^T C_0^{-1} 1_g)`, and
    what training costs is at most a quarter of the sum of squares of :math:`d_t`, so that

    .. math:: |S_g| \leq \frac{1}{2} \sqrt{\frac{T (d^2 + \sigma^2) n_g}{\lambda + \mu n_g}}.

    All this is for ``dale=None``, and given the spike trains, which training changes, too:
    :func:`drift_statistics` has those of a trained network. In an untrained one the deviation is 0
    in the mean, and what the estimate then has is only how weights shrink to make the drive less
    noisy. [1]_ have an estimate, too; this one was derived for this package and may differ.

    References
    ----------
    .. [1] Kim & Chow (2021). Training spiking neural networks in the strong coupling regime.
       Neural Computation 33(5).

    Examples
    --------
    Twenty synapses from cells of 5, and as many from cells of 9 Hz:

    >>> from ssn_estimators.spike_statistics import expected_coupling_drift
    >>> activity = {"mean": [0.005, 0.009], "variance": [2e-5, 4e-5], "n_samples": 7000,
    ...             "n_effective": 200, "deviation": 0.1, "deviation_variance": 0.6}
    >>> for mu in (0.0, 8.0):
    ...     expected = expected_coupling_drift([2.2, -2.2], [20, 20], sum_penalty=mu, **activity)
    ...     print(expected.drift.round(3), expected.changed_signs.round(3))
    [-0.115  0.312] [0.133 0.241]
    [0.008 0.018] [0.103 0.158]
    """
    n_groups = len(weights)
    weights = _per_group(weights, n_groups, "weights")
    n_inputs = _per_group(n_inputs, n_groups, "n_inputs", least=1)
    mean = _per_group(mean, n_groups, "mean", least=0)
    variance = _per_group(variance, n_groups, "variance", least=0)
    heterogeneity = _per_group(heterogeneity, n_groups, "heterogeneity", least=0)
    n_effective = n_samples if n_effective is None else n_effective
    n_effective = _per_group(n_effective, n_groups, "n_effective", least=np.finfo(float).tiny)
    if not weights.all():
        raise ValueError(f"weights must not be 0, which has no sign, got {weights}.")
    curvature = penalty + n_samples * variance
    yielding = n_inputs / (curvature + sum_penalty * n_inputs)
    lost = n_samples * yielding * variance * weights  # to make the drive less noisy
    left = (deviation + mean @ lost) / (
        1 + n_samples * np.sum(mean**2 * yielding + n_inputs * heterogeneity / curvature)
    )
    sums = n_samples * yielding * mean * left - lost
    shared = variance / n_effective
    kept = 1 / (1 + n_samples * np.sum(n_inputs * shared / curvature) / recurring)
    scatter = heterogeneity * left**2 + shared * deviation_variance * kept**2
    spread = n_samples * np.sqrt(scatter) / curvature
    squares = n_samples * (deviation**2 + deviation_variance)
    size = n_inputs * np.abs(weights)
    with np.errstate(divide="ignore"):
        changed = ndtr(-np.sign(weights) * (weights + sums / n_inputs) / spread)
    return Bunch(
        drift=sums / size,
        bound=np.sqrt(squares * n_inputs / (penalty + sum_penalty * n_inputs)) / 2 / size,
        spread=spread,
        changed_signs=changed,
    )


def drift_statistics(
    network: SpikingRegressor,
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_trials: int = 8,
    random_state: int = 0,
) -> Bunch:
    """What :func:`expected_coupling_drift` asks of the activity of a network.

    Parameters
    ----------
    network : SpikingRegressor
        Fitted, with E and I cells as its groups.
    X, y
        As in `fit`.
    n_trials : int, default=8
        Trials of each condition, at least 2.
    random_state : int, default=0
        Seed of the initial potentials.

    Returns
    -------
    statistics : :class:`~sklearn.utils.Bunch`
        All arguments but for the penalties, with E before I cells and means over all postsynaptic
        cells, also of weights that start differently (``static_weights=False``). What
        does not come back in every trial counts as little as the mean over all training loops
        leaves of it, in `heterogeneity`, `n_effective` and `recurring`.

    Raises
    ------
    ValueError
        If there is but one trial, or the network has other groups than E and I cells.
    """
    check_is_fitted(network)
    if network.groups is not None:
        raise ValueError("drift_statistics is for networks with groups=None.")
    if n_trials < 2:
        raise ValueError("what trials have in common takes at least 2 of them to tell.")
    X, y = network._check(X, y)
    duration = y.shape[1] * network.update_interval
    simulation = network.simulate(
        X, n_trials=n_trials, duration=duration, random_state=random_state
    )
    found = _inputs_and_deviations(network, simulation, y)
    n_e = int((network.plastic_weights_.sources[0] < network.n_excitatory_).sum())  # come first

    def groups(values):
        return np.split(values, [n_e], axis=-1)

    variance = np.array([v.mean() for v in groups(found["variance"])])
    heterogeneity, scatter = (
        np.array([_variance_of_means(v, network.n_iter_) for v in groups(found[name])])
        for name in ("mean", "covariance")
    )
    return Bunch(
        weights=np.array([w.mean() for w in groups(network.initial_weights_)]),
        n_inputs=np.array([w.shape[1] for w in groups(network.initial_weights_)]),
        mean=np.array([m.mean() for m in groups(found["mean"])]),
        variance=variance,
        heterogeneity=heterogeneity,
        n_samples=network.n_iter_ * y.shape[0] * y.shape[1],
        n_effective=variance * found["deviation_variance"].mean() / scatter,
        deviation=float(found["deviation"].mean()),
        deviation_variance=float(found["deviation_variance"].mean()),
        recurring=min(1.0, float(found["recurring"].mean() / found["deviation_variance"].mean())),
    )


def _traces(network, simulation):
    """Filtered spike trains at the times of the drive, in its shape, per ms."""
    shape, interval = simulation.drive.shape, network.update_interval
    tau, times = network._tau_plastic(), simulation.spike_times
    bins = np.clip(np.floor(times / interval + 1e-9).astype(int), 0, shape[2] - 1)
    owner = (simulation.spike_conditions, simulation.spike_trials, bins, simulation.spike_neurons)
    left = np.exp((times - interval * (bins + 1)) / tau) / tau
    added = np.bincount(np.ravel_multi_index(owner, shape), left, np.prod(shape)).reshape(shape)
    for i in range(1, shape[2]):
        added[:, :, i] += np.exp(-interval / tau) * added[:, :, i - 1]
    return added


def _inputs_and_deviations(network, simulation, y):
    """Moments of the trains that a cell gets, of its deviation, and of both; for every cell.

    Means and covariances are those of single trials, shape (n_neurons, n_trials, n_inputs).
    """
    traces = _traces(network, simulation)
    change = network.plastic_weights_.weights - network.initial_weights_
    keys = ("mean", "variance", "covariance", "deviation", "deviation_variance", "recurring")
    found = {key: [] for key in keys}
    for i, sources in enumerate(network.plastic_weights_.sources):
        inputs = traces[..., sources]
        target = (y[:, :, i] + network.baseline_[i])[:, None]
        # with the weights from before training, whatever the network does with its present ones
        deviation = target - simulation.drive[..., i] + inputs @ change[i]
        centred = deviation - deviation.mean()
        products = (inputs - inputs.mean((0, 1, 2))) * centred[..., None]
        values = (
            inputs.mean((0, 2)),
            inputs.var((0, 1, 2)),
            products.mean((0, 2)),
            deviation.mean(),
            deviation.var(),
            _variance_of_means(
                deviation.swapaxes(0, 1).reshape(1, len(deviation[0]), -1), network.n_iter_
            ),
        )
        for key, value in zip(keys, values, strict=True):
            found[key].append(value)
    return {key: np.array(values) for key, values in found.items()}


def _variance_of_means(values, n_trials):
    """Variance, along the last axis, of means over so many trials; values are of fewer.

    Parameters
    ----------
    values : ndarray of shape (n_neurons, trials, n_values)
    n_trials : int
    """
    chance = values.var(1, ddof=1).mean()
    lasting = values.mean(1).var(-1).mean() - chance / values.shape[1]
    return max(lasting, 0.0) + chance / n_trials
