"""Displays in scikit-learn's style; matplotlib is imported when something is drawn."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ssn_estimators._sklearn import check_matplotlib_support
from ssn_estimators.inspection.populations import means_by_population, types_of
from ssn_estimators.inspection.responses import contrast_response, size_tuning
from ssn_estimators.inspection.spectra import power_spectrum
from ssn_estimators.inspection.stability import network_and_inputs, stability_report
from ssn_estimators.inspection.switching import stimulus_switch

__all__ = [
    "ContrastResponseDisplay",
    "GrowthDisplay",
    "SizeTuningDisplay",
    "SpectrumDisplay",
    "StabilityDisplay",
    "StimulusSwitchDisplay",
    "TrajectoryDisplay",
]

EXCITATORY, INHIBITORY, NEUTRAL = "#c0392b", "#2563a8", "#555555"
TYPES = (EXCITATORY, INHIBITORY, "#2e7d32", "#b7791f", "#7b4397", NEUTRAL)


def _axes(display, ax):
    check_matplotlib_support(f"{type(display).__name__}.plot")
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    display.ax_, display.figure_ = ax, ax.figure
    return ax


class GrowthDisplay:
    """Training loss and number of cells over the steps of training.

    Parameters
    ----------
    loss_curve : array-like of shape (n_steps,)
        Loss at every step.
    growth_history : list of dict
        Sizes and last step of every stage, as in ``SSNClassifier.growth_history_``.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where the loss was drawn.
    size_ax_ : matplotlib Axes
        The axis of the sizes, sharing the steps.
    """

    def __init__(self, *, loss_curve, growth_history):
        self.loss_curve = loss_curve
        self.growth_history = growth_history

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the growth of a fitted `SSNClassifier` (or of a Pipeline's).

        Parameters
        ----------
        estimator : SSNClassifier, SSNRegressor or Pipeline
            Fitted.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : GrowthDisplay
        """
        estimator = _last_step(estimator)
        check_is_fitted(estimator)
        display = cls(loss_curve=estimator.loss_curve_, growth_history=estimator.growth_history_)
        return display.plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw; see `from_estimator`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = _axes(self, ax)
        loss = np.asarray(self.loss_curve)
        width = max(1, len(loss) // 100)
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid") if len(loss) else loss
        ax.plot(np.arange(len(loss)) + 1, loss, color=NEUTRAL, alpha=0.25, lw=0.8)
        ax.plot(np.arange(len(smooth)) + width, smooth, color=NEUTRAL, label="loss")
        ax.set(xlabel="optimiser step", ylabel="training cost")
        ax.set_ylim(bottom=min(0.0, smooth.min(initial=0.0)))
        self.size_ax_ = ax.twinx()
        ends = [0] + [stage["n_iter"] for stage in self.growth_history]
        for name, colour in (("n_excitatory", EXCITATORY), ("n_inhibitory", INHIBITORY)):
            sizes = [stage[name] for stage in self.growth_history]
            label = f"{name[2:]} cells"
            self.size_ax_.step(ends, sizes[:1] + sizes, where="pre", color=colour, label=label)
        self.size_ax_.set_ylabel("number of cells")
        self.size_ax_.set_ylim(bottom=0)
        handles = [h for a in (ax, self.size_ax_) for h in a.get_legend_handles_labels()[0]]
        ax.legend(handles=handles, loc="center right", frameon=False)
        return self


class TrajectoryDisplay:
    """Potentials of excitatory and inhibitory cells over time, for one trial of one input.

    Parameters
    ----------
    times : array-like of shape (n_steps,)
        In ms.
    potentials : array-like of shape (n_steps, n_neurons)
        In mV.
    n_excitatory : int
        Number of excitatory cells, which come first.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
    """

    def __init__(self, *, times, potentials, n_excitatory):
        self.times = times
        self.potentials = potentials
        self.n_excitatory = n_excitatory

    @classmethod
    def from_estimator(cls, estimator, X, *, duration=300.0, ax=None):
        """Simulate the first input of `X` from u = 0 and draw the potentials.

        Parameters
        ----------
        estimator : SSNClassifier, SSNRegressor or Pipeline
            Fitted.
        X : array-like of shape (n_samples, n_features)
            Inputs.
        duration : float, default=300.0
            Time in ms.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : TrajectoryDisplay
        """
        network, X = network_and_inputs(estimator, X)
        simulation = network.simulate(
            X[:1], n_trials=1, duration=duration, burn_in=0.0, record="u", covariance=False
        )
        display = cls(
            times=simulation.times,
            potentials=simulation.u[:, 0, 0],
            n_excitatory=network.circuit_.n_excitatory,
        )
        return display.plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw; see `from_estimator`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = _axes(self, ax)
        populations = np.split(np.asarray(self.potentials), [self.n_excitatory], axis=1)
        self.lines_ = []
        for u, colour, name in zip(
            populations, (EXCITATORY, INHIBITORY), ("excitatory", "inhibitory"), strict=True
        ):
            self.lines_ += ax.plot(self.times, u, color=colour, alpha=0.2, lw=0.6)
            label = f"{name} (mean of {u.shape[1]})"
            self.lines_ += ax.plot(self.times, u.mean(1), color=colour, lw=2, label=label)
        ax.set(xlabel="time (ms)", ylabel="membrane potential (mV)")
        ax.legend(loc="upper right", frameon=False)
        return self


class StabilityDisplay:
    """Share of diverging trials of a trained network and its surrogates.

    Parameters
    ----------
    report : StabilityReport
        As from :func:`stability_report`.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    bars_ : matplotlib BarContainer
    """

    def __init__(self, *, report):
        self.report = report

    @classmethod
    def from_estimator(cls, estimator, X, *, ax=None, **parameters):
        """Compute the report and draw it.

        Parameters
        ----------
        estimator : SSNClassifier, SSNRegressor or Pipeline
            Fitted.
        X : array-like of shape (n_samples, n_features)
            Inputs.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        **parameters
            Parameters of :func:`stability_report`.

        Returns
        -------
        display : StabilityDisplay
        """
        return cls(report=stability_report(estimator, X, **parameters)).plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw; see `from_estimator`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = _axes(self, ax)
        summary = self.report.summary()
        means, errors = np.array(list(summary.values())).T
        labels = ["trained", "shuffled within\nquadrants", "random, same\nvariance"]
        colours = ["#2e7d32", "#b7791f", NEUTRAL]
        self.bars_ = ax.bar(labels, means, yerr=np.nan_to_num(errors), color=colours, capsize=4)
        ax.bar_label(self.bars_, [f"{mean:.2f}" for mean in means], padding=3)
        ax.set_ylabel(f"share of trials diverging within {self.report.duration:g} ms")
        ax.set_ylim(0, 1.1)
        return self


def _last_step(estimator):
    return estimator[-1] if hasattr(estimator, "steps") else estimator


class StimulusSwitchDisplay:
    """Percept, means and variances at some times after a change of the stimulus.

    Parameters
    ----------
    switch : StimulusSwitch
        What :func:`stimulus_switch` saw, of a generative model.
    image_shape : tuple of int, default=None
        Rows and columns of the percepts; None leaves them out.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Percepts (if any), means and variances in rows, one column for each time.
    figure_ : matplotlib Figure
        Where they are.
    times_ : ndarray of shape (n_columns,)
        Times of the columns, in ms.
    """

    def __init__(self, *, switch, image_shape=None):
        self.switch = switch
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls, estimator, X_old, X_new, *, image_shape=None, pair=0, times=None, **parameters
    ):
        """Simulate and draw the switch of a fitted `SSNSampler`.

        Parameters
        ----------
        estimator : SSNSampler
            Fitted, with a generative model.
        X_old, X_new : array-likes of shape (n_pairs, n_features)
            Stimuli before and after the switch.
        image_shape : tuple of int, default=None
            Rows and columns of the percepts; None leaves them out.
        pair : int, default=0
            Which pair of stimuli to draw.
        times : sequence of float, default=None
            Times in ms; by default 0, 10, 20, 40 and the last one.
        **parameters
            Parameters of :func:`stimulus_switch`.

        Returns
        -------
        display : StimulusSwitchDisplay
        """
        switch = stimulus_switch(estimator, X_old, X_new, **parameters)
        return cls(switch=switch, image_shape=image_shape).plot(pair=pair, times=times)

    def plot(self, *, pair=0, times=None):
        """Draw; see `from_estimator`.

        Parameters
        ----------
        pair : int, default=0
            Which pair of stimuli to draw.
        times : sequence of float, default=None
            Times in ms; by default 0, 10, 20, 40 and the last one.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        switch = self.switch
        if switch.new_mean is None:
            raise ValueError("there are no posteriors to compare with: the model is missing.")
        wanted = (0.0, 10.0, 20.0, 40.0, switch.times[-1]) if times is None else times
        steps = [int(abs(switch.times - t).argmin()) for t in wanted]
        self.times_ = switch.times[steps]
        with_percepts = self.image_shape is not None and switch.percepts is not None
        self.figure_, self.axes_ = plt.subplots(
            2 + with_percepts,
            len(steps),
            figsize=(2.2 * len(steps), 2.3 * (2 + with_percepts)),
            squeeze=False,
            layout="constrained",
        )
        for axes, step in zip(self.axes_.T, steps, strict=True):
            axes[0].set_title(f"{switch.times[step]:g} ms")
            if with_percepts:
                limit = abs(switch.percepts[:, pair]).max()
                axes[0].imshow(
                    switch.percepts[step, pair].reshape(self.image_shape),
                    cmap="gray",
                    vmin=-limit,
                    vmax=limit,
                )
                axes[0].set_axis_off()
            for ax, name in zip(axes[-2:], ("mean", "variance"), strict=True):
                found = getattr(switch, name)[step, pair]
                for when, colour in (("old", NEUTRAL), ("new", EXCITATORY)):
                    target = getattr(switch, f"{when}_{name}")[pair]
                    ax.plot(target, found, ".", ms=4, color=colour, label=f"{when} stimulus")
                ends = [getattr(switch, f"{when}_{name}")[pair] for when in ("old", "new")]
                low, high = np.min(ends), np.max(ends)
                ax.plot([low, high], [low, high], color="0.8", lw=0.8, zorder=0)
                ax.set_xlabel(f"posterior {name}")
        for ax, name in zip(self.axes_[-2:, 0], ("mean", "variance"), strict=True):
            ax.set_ylabel(f"{name} of the samples")
        found = {name: switch.time_to(0.9, name)[pair] for name in ("mean", "variance")}
        ways = [f"{name}s {time:.0f} ms" for name, time in found.items() if np.isfinite(time)]
        if ways:
            self.figure_.suptitle(f"90% of the way: {', '.join(ways)}", fontsize="medium")
        self.axes_[-2, 0].legend(frameon=False, fontsize="small")
        return self


def _lines_by_population(ax, x, curves):
    """A line for each population, or several, paler ones first."""
    lines = []
    for i, (name, y) in enumerate(curves.items()):
        colour, rows = TYPES[i % len(TYPES)], np.atleast_2d(y)
        for j, row in enumerate(rows, 1):
            label = name if j == len(rows) else None
            lines += ax.plot(x, row, color=colour, alpha=j / len(rows), label=label)
    ax.legend(frameon=False)
    return lines


class ContrastResponseDisplay:
    """Mean rate of each population over contrast.

    Parameters
    ----------
    response : ContrastResponse
        As from :func:`inspection.contrast_response`.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
        One for each population.
    """

    def __init__(self, *, response):
        self.response = response

    @classmethod
    def from_circuit(cls, circuit, pattern, contrasts, *, ax=None, **parameters):
        """Compute the response of a circuit and draw it.

        Parameters
        ----------
        circuit : Circuit
            The circuit.
        pattern, contrasts, **parameters
            As in :func:`inspection.contrast_response`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : ContrastResponseDisplay
        """
        response = contrast_response(circuit, pattern, contrasts, **parameters)
        return cls(response=response).plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw; see `from_circuit`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = _axes(self, ax)
        curves = self.response.by_population()
        self.lines_ = _lines_by_population(ax, self.response.contrasts, curves)
        ax.set(xlabel="contrast", ylabel="firing rate (Hz)")
        return self


class SizeTuningDisplay:
    """Mean rate of each population over the size of a stimulus.

    Parameters
    ----------
    tuning : SizeTuning
        As from :func:`inspection.size_tuning`.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
        One for each population and contrast; the last contrast is the darkest.
    """

    def __init__(self, *, tuning):
        self.tuning = tuning

    @classmethod
    def from_circuit(cls, circuit, drives, sizes, *, ax=None, **parameters):
        """Compute the tuning of a circuit and draw it.

        Parameters
        ----------
        circuit : Circuit
            The circuit.
        drives, sizes, **parameters
            As in :func:`inspection.size_tuning`.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : SizeTuningDisplay
        """
        return cls(tuning=size_tuning(circuit, drives, sizes, **parameters)).plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw; see `from_circuit`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = _axes(self, ax)
        curves = means_by_population(self.tuning.rates, self.tuning.types)
        self.lines_ = _lines_by_population(ax, self.tuning.sizes, curves)
        ax.set(xlabel="size", ylabel="firing rate (Hz)")
        return self


class SpectrumDisplay:
    """Power spectrum of the potentials, or the rates, of each population.

    Parameters
    ----------
    frequencies : array-like of shape (n_frequencies,)
        In Hz.
    power : dict of str to array-like of shape (n_frequencies,) or (n_inputs, n_frequencies)
        In mV**2 / Hz, or Hz**2 / Hz, by population.
    of : {"u", "r"}, default="u"
        Whether it is that of potentials or of rates.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    lines_ : list of matplotlib lines
        One for each population and input; the last input is the darkest.
    """

    def __init__(self, *, frequencies, power, of="u"):
        self.frequencies = frequencies
        self.power = power
        self.of = of

    @classmethod
    def from_circuit(cls, circuit, drive, frequencies, *, ax=None, **parameters):
        """Compute the spectra of a circuit, and draw their means over the cells of a population.

        Parameters
        ----------
        circuit : Circuit
            The circuit.
        drive, frequencies, **parameters
            As in :func:`inspection.power_spectrum`, of all cells.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : SpectrumDisplay
        """
        power = power_spectrum(circuit.to_numpy(), drive, frequencies, **parameters)
        power = means_by_population(power, types_of(circuit))
        display = cls(frequencies=frequencies, power=power, of=parameters.get("of", "u"))
        return display.plot(ax=ax)

    def plot(self, *, ax=None):
        """Draw; see `from_circuit`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        """
        ax = _axes(self, ax)
        self.lines_ = _lines_by_population(ax, self.frequencies, self.power)
        unit = "mV" if self.of == "u" else "Hz"
        ax.set(xlabel="frequency (Hz)", ylabel=f"power ({unit}$^2$ / Hz)", yscale="log")
        return self
