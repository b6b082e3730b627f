"""Trials of networks that do tasks in time."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
from sklearn.decomposition import PCA

from ssn_estimators._sklearn import check_matplotlib_support
from ssn_estimators._torch import to_numbers
from ssn_estimators.inspection.operating_point import fixed_points
from ssn_estimators.inspection.populations import means_by_population, types_of
from ssn_estimators.inspection.stability import network_and_inputs
from ssn_estimators.plotting.style import NEUTRAL, TYPES, band

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Self

    from sklearn.base import BaseEstimator
    from sklearn.utils import Bunch

    from ssn_estimators._typing import ArrayLike, Bounds, RandomState

__all__ = ["TrialDisplay"]

LINES = 6  # outputs that are drawn as lines; more are an image
CONDITIONS = 12  # that have a legend; more have a colour bar
VISITED = 200  # states from which fixed points are looked for


class TrialDisplay:
    """A trial of a network that does a task in time, and where trials go in its leading plane.

    Parameters
    ----------
    time_step : float
        Of inputs and outputs, in ms.
    times : array-like of shape (n_steps,)
        Times of the rates, in ms.
    inputs : array-like of shape (n_timesteps, n_channels)
        Inputs of the trial.
    rates : dict of str to array-like of shape (n_steps, n_trials)
        Mean rates by cell type in Hz, in trials with noise of their own.
    outputs : array-like of shape (n_timesteps, n_outputs)
        Mean outputs over the trials.
    paths : list of array-like of shape (n_timesteps of a path, 2)
        Trials of several inputs in a plane, in mV.
    explained : array-like of shape (2,)
        Share of the variance of the paths along both axes of the plane.
    index : int, default=0
        Which of the paths the trial is.
    targets : array-like of shape (n_timesteps, n_outputs), default=None
        Wanted outputs.
    conditions : array-like of shape (n_paths,), default=None
        Numbers or names by which paths are coloured.
    points : Bunch, default=None
        Fixed points: `plane` of shape (n_points, 2) and `stable`.
    periods : dict of str to (int, int), default=None
        First time step, and the one after the last, of parts of the trial.
    output_names : list of str, default=None
        For the legend.

    Attributes
    ----------
    axes_ : dict of str to matplotlib Axes
        "inputs", "rates", "outputs", "targets" (where these are an image) and "plane".
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        *,
        time_step: float,
        times: ArrayLike,
        inputs: ArrayLike,
        rates: Mapping[str, ArrayLike],
        outputs: ArrayLike,
        paths: Sequence[ArrayLike],
        explained: ArrayLike,
        index: int = 0,
        targets: ArrayLike | None = None,
        conditions: ArrayLike | None = None,
        points: Bunch | None = None,
        periods: Bounds | None = None,
        output_names: Sequence[str] | None = None,
    ) -> None:
        self.time_step = time_step
        self.times = times
        self.inputs = inputs
        self.rates = rates
        self.outputs = outputs
        self.paths = paths
        self.explained = explained
        self.index = index
        self.targets = targets
        self.conditions = conditions
        self.points = points
        self.periods = periods
        self.output_names = output_names

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: ArrayLike,
        *,
        index: int = 0,
        lengths: ArrayLike | None = None,
        y: ArrayLike | None = None,
        conditions: ArrayLike | None = None,
        fixed_step: int | None = None,
        periods: Bounds | None = None,
        n_trials: int = 4,
        random_state: RandomState = None,
        **how: Any,
    ) -> Self:
        """Simulate sequences and draw one of them.

        Parameters
        ----------
        estimator : SSNSequenceRegressor, SSNSequenceClassifier, or Pipeline or search with one
            Fitted.
        X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
            Sequences, which all have a path in the plane: that of the first two principal
            components of the E potentials in all of them.
        index : int, default=0
            The sequence that is drawn.
        lengths : array-like of shape (n_samples,), default=None
            Valid time steps.
        y : array-like of shape (n_samples, n_timesteps, n_outputs) or (n_samples, n_timesteps), \
                default=None
            Wanted outputs.
        conditions : array-like of shape (n_samples,), default=None
            Numbers or names by which paths are coloured.
        fixed_step : int, default=None
            A time step of the drawn sequence: the plane shows fixed points under its input, looked
            for from states in the paths.
        periods : mapping of str to (int, int), default=None
            First time step, and the one after the last, of parts of the drawn sequence; those
            without a step are left out.
        n_trials : int, default=4
            Trials of every sequence. Rates and outputs are of all of them, paths of the first.
        random_state : int, RandomState instance or None, default=None
            Source of the noise; None is that of prediction.
        **how
            Parameters of :meth:`plot`.

        Returns
        -------
        display : TrialDisplay

        Raises
        ------
        TypeError
            If the estimator is none of sequences.
        ValueError
            If something does not fit the sequences.
        DivergenceError
            If a trial diverges.
        """
        network, X = network_and_inputs(estimator, X)
        if not hasattr(network, "read_out"):
            raise TypeError(
                "an SSNSequenceRegressor or an SSNSequenceClassifier is needed, got "
                f"{type(network).__name__}."
            )
        drive = network.drive(X, lengths)
        given, X = X, to_numbers(X, float, "X")
        X = X[:, :, None] if X.ndim == 2 else X
        lengths = np.full(len(X), X.shape[1]) if lengths is None else np.asarray(lengths)
        y = _checked_trial(network, X, lengths, index, y, conditions, fixed_step, periods)
        simulation = network.simulate(
            given,
            lengths=lengths,
            n_trials=n_trials,
            record="u",
            random_state=random_state,
            covariance=False,
            rates=False,
        )
        simulation.check_finite()
        u, n = simulation.u, lengths[index]
        per_step = len(u) // X.shape[1]
        by_step = u.reshape(X.shape[1], per_step, *u.shape[1:]).mean(1)
        states = [by_step[:end, i, 0] for i, end in enumerate(lengths)]
        circuit, shown = network.circuit_, slice(n * per_step)
        excitatory = slice(circuit.n_excitatory)
        plane = PCA(2, svd_solver="full").fit(np.concatenate(states)[:, excitatory])
        points = None
        if fixed_step is not None:
            visited = np.concatenate(states)[:: max(1, lengths.sum() // VISITED)]
            points = fixed_points(circuit, drive[fixed_step, [index]], n_starts=0, start=visited)[0]
            points.plane = (points.u[:, excitatory] - plane.mean_) @ plane.components_.T
        display = cls(
            time_step=network.time_step,
            times=simulation.times[shown],
            inputs=X[index, :n],
            rates=means_by_population(circuit.rates(u[shown, index]), types_of(circuit)),
            outputs=network.read_out(by_step[:n, index].mean(1)),
            paths=[plane.transform(own[:, excitatory]) for own in states],
            explained=plane.explained_variance_ratio_,
            index=index,
            targets=None if y is None else y[index, :n],
            conditions=conditions,
            points=points,
            periods=periods,
            output_names=[str(name) for name in getattr(network, "classes_", [])] or None,
        )
        return display.plot(**how)

    def plot(self, *, cmap: str = "viridis", condition_label: str = "condition") -> Self:
        """Draw on a figure of its own.

        Parameters
        ----------
        cmap : str, default="viridis"
            Colours of the conditions; a cyclic one, such as "hsv", for angles.
        condition_label : str, default="condition"
            What the conditions are, with their unit.

        Returns
        -------
        display : TrialDisplay
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        outputs, targets = np.asarray(self.outputs), self.targets
        as_image = outputs.shape[1] > LINES
        names = ["inputs", "rates", "outputs", *["targets"] * (as_image and targets is not None)]
        self.figure_, axes = plt.subplot_mosaic(
            [[name, f"beside {name}", "plane"] for name in names],
            width_ratios=[1.0, 0.035, 1.0],
            figsize=(11, 1.4 + 1.5 * len(names)),
            layout="constrained",
        )
        self.axes_ = {name: axes[name] for name in [*names, "plane"]}
        beside = {name: axes[f"beside {name}"] for name in names}
        limits = [np.min(outputs), np.max(outputs)]
        if targets is not None:
            limits = min(limits[0], np.min(targets)), max(limits[1], np.max(targets))
        self._image("inputs", self.inputs, beside)
        self._lines("rates", self.times, self.rates, "rate (Hz)", beside)
        if as_image:
            self._image("outputs", outputs, beside, *limits)
            if targets is not None:
                self._image("targets", targets, beside, *limits)
        else:
            self._few_outputs(beside)
        self._over_time(names)
        self._plane(axes["plane"], cmap, condition_label)
        return self

    @property
    def _end(self):
        return len(self.inputs) * self.time_step

    def _image(self, name, values, beside, low=None, high=None):
        ax, values = self.axes_[name], np.asarray(values)
        extent = (0, self._end, -0.5, values.shape[1] - 0.5)
        image = ax.imshow(
            values.T,
            aspect="auto",
            origin="lower",
            extent=extent,
            interpolation="nearest",
            cmap="Greys" if name == "inputs" else "magma",
            vmin=low,
            vmax=high,
        )
        kind = "channel" if name == "inputs" else "unit"
        ax.set_ylabel(f"{name}\n({kind})")
        ax.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        self.figure_.colorbar(image, cax=beside[name])

    def _lines(self, name, times, curves, label, beside):
        """Means of curves (n_steps, n_trials), and the standard deviation over trials around."""
        ax = self.axes_[name]
        for (kind, values), colour in zip(curves.items(), TYPES, strict=False):
            mean, spread = np.mean(values, axis=1), np.std(values, axis=1)
            band(ax, times, mean, spread, colour=colour, label=kind)
        ax.set_ylabel(label)
        ax.set_ylim(bottom=0)
        beside[name].set_axis_off()
        beside[name].legend(*ax.get_legend_handles_labels(), frameon=False, loc="center")

    def _few_outputs(self, beside):
        ax, outputs = self.axes_["outputs"], np.asarray(self.outputs)
        edges = np.arange(len(outputs) + 1) * self.time_step
        names = self.output_names or [str(k) for k in range(outputs.shape[1])]
        for k, (name, colour) in enumerate(zip(names, reversed(TYPES), strict=False)):
            ax.stairs(outputs[:, k], edges, baseline=None, color=colour, label=name)
            if self.targets is not None:
                target = np.asarray(self.targets)[:, k]
                ax.stairs(target, edges, baseline=None, color=colour, ls=":", lw=2)
        ax.set_ylabel("output" if self.output_names is None else "logit")
        handles, labels = ax.get_legend_handles_labels()
        if self.targets is not None:
            handles.append(ax.plot([], [], color=NEUTRAL, ls=":", lw=2)[0])
            labels.append("target")
        beside["outputs"].set_axis_off()
        if len(handles) > 1:
            beside["outputs"].legend(handles, labels, frameon=False, loc="center", fontsize="small")

    def _over_time(self, names):
        """The time axis that they share, and borders of periods."""
        periods = {
            name: (first * self.time_step, stop * self.time_step)
            for name, (first, stop) in (self.periods or {}).items()
            if stop > first
        }
        for name in names:
            ax = self.axes_[name]
            ax.set_xlim(0, self._end)
            ax.tick_params(labelbottom=name == names[-1])
            for first, _ in periods.values():
                if first > 0:
                    ax.axvline(first, color=NEUTRAL, lw=0.8, ls="--")
        self.axes_[names[-1]].set_xlabel("time (ms)")
        for name, (first, stop) in periods.items():
            self.axes_["inputs"].annotate(
                name,
                ((first + stop) / 2, 1.03),
                xycoords=("data", "axes fraction"),
                ha="center",
                fontsize="small",
            )

    def _plane(self, ax, cmap, condition_label):
        paths, conditions = [np.asarray(path) for path in self.paths], self.conditions
        colours, handles = _colours_of(conditions, len(paths), cmap, ax, condition_label)
        for path, colour in zip(paths, colours, strict=True):
            ax.plot(*path.T, color=colour, lw=1, alpha=0.7)
            ax.plot(*path[-1], "s", color=colour, ms=4)
        ax.plot(*paths[self.index].T, color="k", lw=1.5, label="trial on the left")
        ax.plot([], [], "s", color=NEUTRAL, ms=4, label="end")
        if self.points is not None:
            stable = np.asarray(self.points.stable)
            for own, name in ((stable, "stable"), (~stable, "unstable")):
                if own.any():
                    ax.plot(
                        *np.asarray(self.points.plane)[own].T,
                        "o",
                        ms=6,
                        mec="k",
                        mfc="k" if name == "stable" else "w",
                        zorder=3,
                        label=f"{name} fixed point",
                    )
        for k, name in enumerate("xy"):
            text = f"component {k + 1} (mV), {self.explained[k]:.0%} of variance"
            ax.set(**{f"{name}label": text})
        look = {"frameon": False, "fontsize": "small", "title_fontsize": "small"}
        below = ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, **look)
        if handles:
            ax.add_artist(below)
            below.set_clip_on(False)  # or no room is left for it
            ax.legend(
                handles=handles,
                title=condition_label,
                loc="upper left",
                bbox_to_anchor=(1, 1),
                **look,
            )


def _colours_of(conditions, n, cmap, ax, label):
    """A colour for each path, and handles of a legend, unless there is a colour bar."""
    from matplotlib import cm, colormaps, colors, lines

    if conditions is None:
        return [NEUTRAL] * n, []
    conditions, colour_map = np.asarray(conditions), colormaps[cmap]
    kinds, places = np.unique(conditions, return_inverse=True)
    if len(kinds) <= CONDITIONS or kinds.dtype.kind not in "iuf":
        shades = colour_map(np.arange(len(kinds)) / len(kinds))
        kinds = [f"{kind:g}" if kinds.dtype.kind == "f" else str(kind) for kind in kinds]
        handles = [
            lines.Line2D([], [], color=shade, label=kind)
            for shade, kind in zip(shades, kinds, strict=True)
        ]
        return shades[places], handles
    scale = cm.ScalarMappable(colors.Normalize(np.nanmin(kinds), np.nanmax(kinds)), colour_map)
    ax.figure.colorbar(scale, ax=ax, label=label)
    return scale.to_rgba(conditions), []


def _checked_trial(network, X, lengths, index, y, conditions, fixed_step, periods):
    """Wanted outputs with an axis of their own, if all fits the sequences."""
    if not isinstance(index, Integral) or not -len(X) <= index < len(X):
        raise ValueError(f"index must be that of one of {len(X)} sequences, got {index!r}.")
    if conditions is not None and len(conditions) != len(X):
        raise ValueError(f"conditions must be {len(X)}, as sequences, got {len(conditions)}.")
    n = lengths[index]
    if fixed_step is not None and not (isinstance(fixed_step, Integral) and 0 <= fixed_step < n):
        raise ValueError(f"fixed_step must be one of {n} time steps from 0, got {fixed_step!r}.")
    for name, borders in (periods or {}).items():
        if np.shape(borders) != (2,):
            raise ValueError(
                f"periods must have a first time step and the one after the last, got {borders!r} "
                f"for {name!r}."
            )
    if y is None:
        return None
    y = to_numbers(y, float, "y")
    y = y[:, :, None] if y.ndim == 2 else y
    wanted = (*X.shape[:2], len(network.readout_bias_))
    if y.shape != wanted:
        raise ValueError(f"y must have shape {wanted}, as outputs, got {y.shape}.")
    return y
