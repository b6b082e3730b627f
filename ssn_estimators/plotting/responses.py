"""What populations of a circuit answer to stimuli."""

from __future__ import annotations

from ssn_estimators.inspection.populations import means_by_population, types_of
from ssn_estimators.inspection.responses import contrast_response, size_tuning
from ssn_estimators.inspection.spectra import power_spectrum
from ssn_estimators.plotting.style import axes_of, lines_by_population

__all__ = ["ContrastResponseDisplay", "SizeTuningDisplay", "SpectrumDisplay"]


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
        ax = axes_of(self, ax)
        curves = self.response.by_population()
        self.lines_ = lines_by_population(ax, self.response.contrasts, curves)
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
        ax = axes_of(self, ax)
        curves = means_by_population(self.tuning.rates, self.tuning.types)
        self.lines_ = lines_by_population(ax, self.tuning.sizes, curves)
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
        ax = axes_of(self, ax)
        self.lines_ = lines_by_population(ax, self.frequencies, self.power)
        unit = "mV" if self.of == "u" else "Hz"
        ax.set(xlabel="frequency (Hz)", ylabel=f"power ({unit}$^2$ / Hz)", yscale="log")
        return self
