"""What cells of a network do in time."""

from __future__ import annotations

import numpy as np

from ssn_estimators.inspection.stability import network_and_inputs
from ssn_estimators.plotting.style import EXCITATORY, INHIBITORY, axes_of

__all__ = ["TrajectoryDisplay"]


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
        estimator : SSNClassifier, SSNRegressor, or Pipeline or search with one
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
        ax = axes_of(self, ax)
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
