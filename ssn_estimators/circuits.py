"""Published circuits, with the inputs that they were shown.

Each function returns a :class:`Published`: the circuit, where its cells are, and a function that
makes external drives for :func:`~ssn_estimators.simulate` and
:mod:`~ssn_estimators.inspection`. All weights are W[post, pre] in mV s, times in ms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ssn_estimators._sklearn import COUNT, Interval, StrOptions, validate_params
from ssn_estimators._torch import to_numbers
from ssn_estimators.circuit import Circuit
from ssn_estimators.geometry import Space, connect, line, orientation_map, ring, sheet, signed
from ssn_estimators.rate_functions import AbbottChance
from ssn_estimators.receptors import Receptors
from ssn_estimators.stimuli import bar, bump, for_types, grating

if TYPE_CHECKING:
    from typing import Literal

    from ssn_estimators._typing import ArrayLike

__all__ = [
    "Published",
    "ahmadian_2013_pair",
    "ahmadian_2013_ring",
    "bistable_pair",
    "del_molino_2017",
    "hennequin_2018_pair",
    "hennequin_2018_ring",
    "holt_2023_column",
    "holt_2023_gamma",
    "holt_2023_sheet",
    "kraynyukova_2018_pair",
    "kuchibhotla_2017",
    "obeid_2021_sheet",
    "rubin_2015_line",
    "rubin_2015_ring",
    "size_contrast",
]

COLUMN = np.pi * 0.774  # factor of all weights of Holt et al.


class Published(NamedTuple):
    """A circuit and its surroundings.

    Attributes
    ----------
    circuit : Circuit
        With the constants and weights of the publication.
    space : Space or None
        Where the cells of every type are; None for circuits without places.
    drive : callable
        Returns external drives in mV, of shape (n_inputs, n_neurons), one for each number of its
        first argument (or of another one that has several).
    """

    circuit: Circuit
    space: Space | None
    drive: Callable[..., np.ndarray]


def _to_all(weights):
    """Drive of circuits that get one input in all cells."""
    n = len(weights)

    def drive(strength):
        """The same strength, in mV, to all cells."""
        return _numbers(strength)[:, None] * np.ones(n)

    return drive


def _numbers(values):
    return np.atleast_1d(to_numbers(values, name="the strength of an input"))


@validate_params(strong=["boolean"])
def ahmadian_2013_pair(strong: bool = False) -> Published:
    """An E and an I cell, the mean-field reduction of the ring of Ahmadian et al. [1]_.

    From an input of 3.9 mV on the E cell alone would be unstable: inhibition stabilizes it, and
    more input to the I cell lowers its rate. Beyond 60.6 mV the E cell responds less to more input.

    Parameters
    ----------
    strong : bool, default=False
        Whether weights are 2.43 times as large, as in the circuits of [2]_: then these inputs are
        1.6 and 24.9 mV, and the E cell is silent beyond 148.5 mV.

    Returns
    -------
    published : Published
        ``drive(strength)`` is the same for both cells.

    References
    ----------
    .. [1] Ahmadian, Rubin & Miller (2013). Analysis of the stabilized supralinear network. Neural
       Computation 25, 1994-2037.
    .. [2] Holt, Miller & Ahmadian (2024). PLOS Computational Biology 20, e1012190.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> pair = circuits.ahmadian_2013_pair()
    >>> pair.drive([1.0, 20.0])
    array([[ 1.,  1.],
           [20., 20.]])
    """
    weights = np.array([[2.5, -1.3], [2.4, -1.0]]) * (COLUMN if strong else 1.0)
    return Published(Circuit(weights, 1, k=0.04), None, _to_all(weights))


def _orientation_drive(space, width):
    def drive(contrast, orientation=0.0):
        """A Gaussian of the preferred orientation, its height the contrast, to E and I cells."""
        contrast, orientation = np.broadcast_arrays(np.atleast_1d(contrast), orientation)
        return for_types(bump(space, width, orientation=orientation, contrast=contrast), [1.0, 1.0])

    return drive


@validate_params(n_positions=COUNT)
def ahmadian_2013_ring(n_positions: int = 180) -> Published:
    """Ring of preferred orientations of Ahmadian et al. [1]_.

    Weights of all types fall off with a standard deviation of 32 degrees.

    Parameters
    ----------
    n_positions : int, default=180
        Number of E cells, and of I cells. Responses hardly depend on it.

    Returns
    -------
    published : Published
        ``drive(contrast, orientation=0.0)`` is a Gaussian of the preferred orientation with a
        standard deviation of 30 degrees, to E and I cells.

    References
    ----------
    .. [1] Ahmadian, Rubin & Miller (2013). Neural Computation 25, 1994-2037.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> circuits.ahmadian_2013_ring(52).circuit.n_neurons
    104
    """
    space = ring(n_positions, 180.0)
    efficacies = np.pi * np.array([[2.5, 1.3], [2.4, 1.0]])
    weights = signed(connect(space, efficacies, 32.0, normalize="density"), [1, -1])
    return Published(Circuit(weights, n_positions, k=0.04), space, _orientation_drive(space, 30.0))


def rubin_2015_ring() -> Published:
    """Ring of 180 + 180 cells of Rubin et al. [1]_, for normalization of two orientations.

    Responses to two orientations at once add up more than linearly when they are weak, and are
    averaged, or won by the stronger one, when they are strong.

    Returns
    -------
    published : Published
        ``drive(contrast, orientation=0.0)`` is a Gaussian of the preferred orientation with a
        standard deviation of 30 degrees, to E and I cells. Drives of several orientations add up.

    References
    ----------
    .. [1] Rubin, Van Hooser & Miller (2015). The stabilized supralinear network. Neuron 85,
       402-417.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> ring = circuits.rubin_2015_ring()
    >>> plaid = ring.drive([1.0, 20.0], 45.0) + ring.drive([1.0, 20.0], 135.0)
    >>> plaid.shape
    (2, 360)
    """
    space = ring(180, 180.0)
    weights = signed(connect(space, [[0.044, 0.023], [0.042, 0.018]], 32.0), [1, -1])
    return Published(Circuit(weights, 180, k=0.04), space, _orientation_drive(space, 30.0))


@validate_params(gamma=[Interval(Real, 1, None, closed="left")])
def rubin_2015_line(gamma: float = 2.0) -> Published:
    """Line of 101 + 101 cells of Rubin et al. [1]_, for surround suppression.

    Excitation reaches others, farther onto I cells than onto E cells; inhibition is local.
    Preferred lengths shrink with contrast, and E cells are suppressed more than I cells.

    Parameters
    ----------
    gamma : float, default=2.0
        Exponent of the rate function: 2.0 in the public code, 2.2 in the paper.

    Returns
    -------
    published : Published
        Positions are in degrees of visual angle, with a spacing of 1/3. ``drive(contrast, length)``
        is a bar of that length about the centre, to E and I cells.

    References
    ----------
    .. [1] Rubin, Van Hooser & Miller (2015). The stabilized supralinear network. Neuron 85,
       402-417.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> circuits.rubin_2015_line().drive(20.0, [1.0, 5.0, 30.0]).shape
    (3, 202)
    """
    space = line(101, 1 / 3, unit="deg")
    widths = [[2 / 3, 1.0], [4 / 3, 1.0]]
    profile = [["gaussian", "local"]] * 2
    weights = signed(connect(space, [[1.0, 1.0], [1.25, 0.75]], widths, profile=profile), [1, -1])

    def drive(contrast, length):
        """A bar about the centre, with logistic edges."""
        contrast, length = np.broadcast_arrays(np.atleast_1d(contrast), np.atleast_1d(length))
        pattern = bar(space, length, edge="logistic", edge_width=0.125 / 3, contrast=contrast)
        return for_types(pattern, [1.0, 1.0])

    return Published(Circuit(weights, 101, k=0.01, gamma=float(gamma)), space, drive)


def hennequin_2018_pair() -> Published:
    """An E and an I cell with noise, of Hennequin et al. [1]_: variability is quenched.

    Weak input lets the standard deviation of the E cell's potential grow to .87 mV, stronger input
    makes it fall below .3 mV.

    Returns
    -------
    published : Published
        ``drive(strength)`` is the same for both cells.

    References
    ----------
    .. [1] Hennequin, Ahmadian, Rubin, Lengyel & Miller (2018). The dynamical regime of sensory
       cortex. Neuron 98, 846-860.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> circuits.hennequin_2018_pair().circuit.tau_eta
    50.0
    """
    weights = np.array([[1.25, -0.65], [1.2, -0.5]])
    noise = _noise_of_potentials(np.array([0.2, 0.1]))
    circuit = Circuit(weights, 1, noise, k=0.3, tau_eta=50.0)
    return Published(circuit, None, _to_all(weights))


def _noise_of_potentials(deviations, tau=np.array([20.0, 10.0]), tau_eta=50.0):  # noqa: B008
    """Standard deviations of noise with which those of potentials without synapses are these."""
    return deviations * np.sqrt(1 + tau / tau_eta)


@validate_params(noise=[StrOptions({"shared", "independent"})])
def hennequin_2018_ring(noise: Literal["shared", "independent"] = "shared") -> Published:
    """Ring of 50 + 50 cells with noise, of Hennequin et al. [1]_.

    The variability of a cell falls with contrast, most where the stimulus is, and so do
    correlations.

    Parameters
    ----------
    noise : {"shared", "independent"}, default="shared"
        Whether the E and I cell at a place share their noise, of which the sources do not tell.

    Returns
    -------
    published : Published
        ``drive(contrast, direction=0.0)``: a baseline of 2 mV, and a bump of up to 20 mV at
        contrast 1, to E and I cells.

    References
    ----------
    .. [1] Hennequin, Ahmadian, Rubin, Lengyel & Miller (2018). The dynamical regime of sensory
       cortex. Neuron 98, 846-860.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> circuits.hennequin_2018_ring().drive([0.0, 1.0]).max(1)
    array([ 2., 22.])
    """
    n, space = 50, ring(50)
    amplitudes = [[1.25, 0.65], [1.2, 0.5]]
    weights = connect(space, amplitudes, np.radians(45), profile="von_mises", normalize="rows")
    kernel = connect(space, 1.0, np.radians(60), profile="von_mises")
    deviations = _noise_of_potentials(np.array([1.0, 0.5]))
    between = np.outer(deviations, deviations)
    between = between if noise == "shared" else np.diag(np.diag(between))
    values, vectors = np.linalg.eigh(np.kron(between, kernel))
    factor = vectors * np.sqrt(np.maximum(values, 0.0))
    circuit = Circuit(signed(weights, [1, -1]), n, factor, k=0.3, tau_eta=50.0)

    def drive(contrast, direction=0.0):
        """A baseline of 2 mV, and a bump at a direction in degrees."""
        contrast, direction = np.broadcast_arrays(np.atleast_1d(contrast), direction)
        width = np.radians(60)
        pattern = bump(space, width, place=direction, profile="von_mises", contrast=contrast)
        return for_types(2.0 + 20.0 * pattern, [1.0, 1.0])

    return Published(circuit, space, drive)


def kraynyukova_2018_pair() -> Published:
    """An E and a slow I cell that oscillate, in the regimes of Kraynyukova & Tchumatchenko [1]_.

    Between inputs to the E cell of 1.0 and 1.1 the fixed point becomes unstable (a Hopf
    bifurcation); at 5 the cycle takes 56 ms, 18 Hz. The numbers are those of a public
    re-implementation of its limit cycle, in its units, with a time constant of 100 ms of the I
    cell.

    Returns
    -------
    published : Published
        ``drive(strength)`` is that of the E cell; the I cell gets .01.

    References
    ----------
    .. [1] Kraynyukova & Tchumatchenko (2018). Stabilized supralinear network can give rise to
       bistable, oscillatory, and persistent activity. PNAS 115, 3464-3469.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> circuits.kraynyukova_2018_pair().drive(5.0)
    array([[5.  , 0.01]])
    """
    circuit = Circuit([[1.5, -1.0], [10.0, -1.0]], 1, k=1.0, gamma=3.0, tau=[10.0, 100.0])

    def drive(strength):
        """To the E cell; the I cell gets .01."""
        strength = _numbers(strength)
        return np.stack([strength, np.full_like(strength, 0.01)], 1)

    return Published(circuit, None, drive)


def bistable_pair() -> Published:
    """An E and a fast I cell that remember: without input they are silent, or at 12 and 15 Hz.

    An input of 5 mV to the E cell for 100 ms switches them on, one of 20 mV to the I cell for 50 ms
    off. The same input to both does not switch them on. The circuit is this package's own, of the
    persistent regime of [1]_.

    Returns
    -------
    published : Published
        ``drive(excitatory, inhibitory=0.0)``.

    References
    ----------
    .. [1] Kraynyukova & Tchumatchenko (2018). PNAS 115, 3464-3469.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> circuits.bistable_pair().drive([5.0, 0.0], [0.0, 20.0])
    array([[ 5.,  0.],
           [ 0., 20.]])
    """
    circuit = Circuit([[3.4, -1.6], [1.75, -0.125]], 1, k=0.04, tau_i=5.0)

    def drive(excitatory, inhibitory=0.0):
        """Inputs to both cells."""
        return np.stack(np.broadcast_arrays(_numbers(excitatory), _numbers(inhibitory)), 1)

    return Published(circuit, None, drive)


def kuchibhotla_2017() -> Published:
    """One E, PV, SST and VIP cell with the weights of Kuchibhotla et al. [1]_.

    The E cell is never stabilized by inhibition, so no type responds paradoxically; input to the
    VIP cell raises the E cell's rate through the SST cell.

    Returns
    -------
    published : Published
        ``drive(strength, gains=(1, 1, 1, 1))``: the strength times a gain of each type.

    References
    ----------
    .. [1] Kuchibhotla, Gill, Lindsay, Papadoyannis, Field, Sten, Miller & Froemke (2017). Parallel
       processing by cortical inhibition enables context-dependent behavior. Nature Neuroscience 20,
       62-71.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> list(circuits.kuchibhotla_2017().circuit.populations)
    ['E', 'PV', 'SST', 'VIP']
    """
    weights = [
        [0.017, -0.956, -0.512, -0.045],
        [0.8535, -0.99, -0.307, -0.09],
        [1.285, 0.0, 0.0, -0.14],
        [2.104, -0.184, -0.734, 0.0],
    ]
    types = {"E": 1, "PV": 1, "SST": 1, "VIP": 1}
    circuit = Circuit(weights, populations=types, k=0.01, gamma=2.2)

    def drive(strength, gains=(1.0, 1.0, 1.0, 1.0)):
        """The strength times a gain of each type."""
        return _numbers(strength)[:, None] * to_numbers(gains, name="gains")

    return Published(circuit, None, drive)


def del_molino_2017() -> Published:
    r"""E, PV, SST and VIP populations of Garcia del Molino et al. [1]_, in the rate form.

    Whether input to the VIP population lowers or raises the rate of the SST population depends on
    the activity before it, the response reversal. Rates are :math:`F(V)` of a mean potential
    :math:`V = -70 + (W r + I) / g_L`, in mV, with :math:`F` of :class:`.AbbottChance`; here
    :math:`u = V + 50` is the potential above threshold, and weights are :math:`W / g_L`.

    Returns
    -------
    published : Published
        ``drive(currents)``: currents I in pA of the four populations, of shape (4,) or
        (n_inputs, 4).

    References
    ----------
    .. [1] Garcia del Molino, Yang, Mejias & Wang (2017). Paradoxical response reversal of top-down
       modulation in cortical circuits with three interneuron types. eLife 6, e29742.

    Examples
    --------
    >>> import numpy as np
    >>> from ssn_estimators import circuits
    >>> from ssn_estimators.inspection import steady_states
    >>> circuit, _, drive = circuits.del_molino_2017()
    >>> quiet = np.array([115.03, 233.66, 94.31, 89.91])
    >>> steady_states(circuit, drive([quiet, quiet + [0, 0, 0, 10]])).rates.round(1)
    array([[ 1. , 10. ,  3. ,  2. ],
           [ 1.3, 11.1,  0.6,  6.7]])
    """
    weights = [
        [2.4167, -0.3329, -0.8039, 0.0],
        [2.9706, -3.4554, -2.1291, 0.0],
        [4.644, 0.0, 0.0, -2.7896],
        [0.7162, 0.0, -0.156, 0.0],
    ]
    leak = np.array([6.25, 10.0, 5.0, 5.0])  # nS
    membrane = np.array([0.0288, 0.008, 0.016, 0.016])  # s
    circuit = Circuit(
        np.array(weights) / leak[:, None],
        populations={"E": 1, "PV": 1, "SST": 1, "VIP": 1},
        k=1 / (10.0 * membrane),  # 10 mV from reset to threshold
        rate_function=AbbottChance(width=1.0),
        tau=2.0,
        dynamics="rate",
    )

    def drive(currents):
        """Currents in pA, as potentials above threshold."""
        return np.atleast_2d(to_numbers(currents, name="currents")) / leak - 20.0

    return Published(circuit, None, drive)


def size_contrast() -> Published:
    """E, PV, SST and VIP cells at a centre and its surround, for size and contrast.

    E and PV cells prefer small stimuli at high contrast, SST cells large ones, and VIP cells are
    suppressed most. In a stimulus of 13 degrees more input to PV cells lowers the rate of those at
    the centre from a contrast of .21 on, more input to SST cells never does: with several
    inhibitory types, inhibition stabilization and a paradoxical response are not the same. The
    circuit is this package's own, of the structure that [1]_ and [2]_ fit.

    Returns
    -------
    published : Published
        Cells of a type are those of the centre and of the surround. ``drive(contrast, size)``:
        contrast from 0 to 1, size in degrees.

    References
    ----------
    .. [1] Palmigiano, Fumarola, Mossing, Kraynyukova, Adesnik & Miller (2021). bioRxiv
       2020.11.11.378729.
    .. [2] Mossing, Veit, Palmigiano, Miller & Adesnik (2021). bioRxiv 2021.03.31.437953.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> circuits.size_contrast().drive([0.25, 1.0], 13.0).round(2)[:, :2]
    array([[11.95,  3.3 ],
           [19.41,  4.86]])
    """
    within = np.array(
        [
            [1.3, -1.0, -0.35, 0.0],
            [1.75, -1.4, -0.3, 0.0],
            [0.8, -0.05, 0.0, -0.6],
            [0.65, -0.1, -0.5, 0.0],
        ]
    )
    between = within * [0.25, 0.15, 1.0, 0.05]  # by type of the presynaptic cell
    same = np.eye(2)
    weights = np.kron(within, same) + np.kron(between, 1 - same)
    types = dict.fromkeys(["E", "PV", "SST", "VIP"], 2)
    tau = {"E": 20.0, "PV": 10.0, "SST": 20.0, "VIP": 20.0}
    gains, baseline = np.array([20.0, 14.0, 0.0, 6.5]), np.array([1.0, 5.0, 4.8, 4.5])

    def drive(contrast, size):
        """Of stimuli of a contrast, from 0 to 1, and a size in degrees."""
        contrast, size = np.broadcast_arrays(_numbers(contrast), _numbers(size))
        strength = 1.25 * contrast**1.2 / (contrast**1.2 + 0.25**1.2)
        centre = strength * (1 - np.exp(-((size / 9) ** 2)))
        surround = strength * np.clip((size - 9) / 45, 0, 1) ** 0.7
        places = np.stack([centre, surround], 1)
        both = gains[:, None] * places[:, None] + baseline[:, None]
        return both.reshape(len(contrast), -1)

    return Published(Circuit(weights, populations=types, k=0.04, tau=tau), None, drive)


# of Holt et al., by the figure: J, gains of the input, widths in mm, shares that stay local
HOLT = {
    4: (
        [[1.124, 0.931], [1.049, 0.537]],
        [0.481, 0.226],
        [[0.2955, 0.09], [0.5542, 0.09]],
        [[0.72, 0.0], [0.70, 0.0]],
    ),
    6: (
        [[1.495, 1.034], [1.110, 0.517]],
        [0.476, 0.232],
        [[0.2654, 0.09], [0.2940, 0.09]],
        0.0,
    ),
}
FIGURE = [Interval(Integral, min(HOLT), max(HOLT), closed="both")]


@validate_params(figure=FIGURE)
def holt_2023_column(figure: Literal[4, 6] = 4) -> Published:
    """An E and an I cell, the column of the sheet of Holt et al. [1]_.

    Its rates are those of the sheet far from the edge of a large grating. Its gamma oscillations
    need receptors: see :func:`holt_2023_gamma`.

    Parameters
    ----------
    figure : {4, 6}, default=4
        Figure of the paper whose parameters are taken.

    Returns
    -------
    published : Published
        ``drive(contrast)``: contrast from 0 to 100.

    References
    ----------
    .. [1] Holt, Miller & Ahmadian (2024). PLOS Computational Biology 20, e1012190.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> circuits.holt_2023_column().drive(100.0)
    array([[48.1, 22.6]])
    """
    efficacies, gains, *_ = _of_figure(figure)
    weights = COLUMN * np.array(efficacies) * [1, -1]

    def drive(contrast):
        """Of a contrast from 0 to 100."""
        return _numbers(contrast)[:, None] * gains

    return Published(Circuit(weights, 1, k=0.04), None, drive)


@validate_params(figure=FIGURE)
def holt_2023_gamma(figure: Literal[4, 6] = 4) -> Published:
    """The column of Holt et al. [1]_ with AMPA, GABA and NMDA receptors, and noise.

    The peak of the spectrum of the E cell's input moves with contrast, in figure 4 from 58 Hz at a
    contrast of 50 to 85 Hz at 100. Noise of 1.5 mV and 5 ms is independent in both cells.

    Parameters
    ----------
    figure : {4, 6}, default=4
        Figure of the paper whose parameters are taken.

    Returns
    -------
    published : Published
        ``drive(contrast)``: contrast from 0 to 100.

    References
    ----------
    .. [1] Holt, Miller & Ahmadian (2024). PLOS Computational Biology 20, e1012190.

    Examples
    --------
    >>> import numpy as np
    >>> from ssn_estimators import circuits
    >>> from ssn_estimators.inspection import power_spectrum
    >>> column, _, drive = circuits.holt_2023_gamma()
    >>> frequencies = np.arange(40.0, 120.0, 0.5)
    >>> power = power_spectrum(column, drive([50.0, 100.0]), frequencies, cells="E")
    >>> frequencies[power[..., 0].argmax(1)]
    array([58.5, 85. ])
    """
    column = holt_2023_column(figure)
    return column._replace(circuit=replace(column.circuit, **_fast_and_slow()))


def _fast_and_slow():
    """Receptors, and noise, of Holt et al."""
    tau = {"AMPA": 4.0, "GABA": 5.0, "NMDA": 100.0}
    receptors = Receptors(tau, {"E": {"AMPA": 0.6, "NMDA": 0.4}, "I": {"GABA": 1.0}})
    return {"receptors": receptors, "noise_factor": 1.5, "tau_eta": 5.0}


def _of_figure(figure):
    if figure not in HOLT:
        raise ValueError(f"figure must be one of {list(HOLT)}, got {figure!r}.")
    return HOLT[figure]


@validate_params(figure=FIGURE, receptors=["boolean"])
def holt_2023_sheet(
    figure: Literal[4, 6] = 4, orientation: ArrayLike | None = None, receptors: bool = False
) -> Published:
    """Sheet of 17 x 17 positions of Holt et al. [1]_, for surround suppression.

    Parameters
    ----------
    figure : {4, 6}, default=4
        Figure of the paper whose parameters are taken: with or without weights that stay local.
    orientation : array-like of shape (289,), default=None
        Preferred orientations in degrees, such as :func:`.geometry.orientation_map` makes them.
        None means that all are alike.
    receptors : bool, default=False
        Whether the circuit has the receptors and the noise of :func:`holt_2023_gamma`. How far the
        noise is correlated in the paper is not known; here it is independent.

    Returns
    -------
    published : Published
        Positions are in mm of cortex, 2 mm to a degree. ``drive(contrast, radius)``: a grating of
        contrast from 0 to 100 and a radius in degrees about the centre, of the orientation that is
        preferred there.

    References
    ----------
    .. [1] Holt, Miller & Ahmadian (2024). PLOS Computational Biology 20, e1012190.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> circuits.holt_2023_sheet().drive(50.0, [0.5, 1.0]).shape
    (2, 578)
    """
    efficacies, gains, widths, local_share = _of_figure(figure)
    flat = np.zeros(289) if orientation is None else orientation
    space = sheet((17, 17), 0.4, orientation=flat, unit="mm")
    magnitudes = connect(
        space,
        COLUMN * np.array(efficacies),
        widths,
        profile=[["exponential", "gaussian"]] * 2,
        normalize="rows",
        feature_widths=45.0,
        local_share=local_share,
        cutoff=1e-4,
    )

    def drive(contrast, radius):
        """A grating about the centre, with logistic edges."""
        contrast, radius = np.broadcast_arrays(np.atleast_1d(contrast), np.atleast_1d(radius))
        pattern = grating(
            space,
            orientation=space.orientation[len(space.orientation) // 2],
            width=32.0,
            radius=2 * radius,
            edge="logistic",
            edge_width=0.08,
            contrast=contrast,
        )
        return for_types(pattern, gains)

    more = _fast_and_slow() if receptors else {}
    return Published(Circuit(signed(magnitudes, [1, -1]), 289, k=0.04, **more), space, drive)


def obeid_2021_sheet(orientation: ArrayLike | None = None) -> Published:
    """Sheet of 75 x 75 positions with an orientation map, after Obeid & Miller [1]_.

    A cell's excitation comes from up to 3 positions away, tuned broadly, and from farther away,
    tuned narrowly; its inhibition from nearby. Weights are sparse: 10 million synapses. Only the
    constants are the paper's; it does not give the rule by which they become weights, and the one
    here is our guess.

    Parameters
    ----------
    orientation : array-like of shape (5625,), default=None
        Preferred orientations in degrees; None means a random map.

    Returns
    -------
    published : Published
        Positions are in cells. ``drive(contrast, side, place=None)``: a square grating of a
        contrast in percent and a side in cells, with the orientation that is preferred at its
        centre: the position of that number, or None for the middle.

    References
    ----------
    .. [1] Obeid & Miller (2021). Stabilized supralinear network: model of layer 2/3 of the primary
       visual cortex. bioRxiv 2020.12.30.424892.

    Examples
    --------
    >>> from ssn_estimators import circuits
    >>> sheet = circuits.obeid_2021_sheet()
    >>> sheet.circuit, sheet.drive(16.4, [4.0, 8.0]).shape  # doctest: +SKIP
    (Circuit(n_excitatory=5625, n_inhibitory=5625, k=0.01, ...), (2, 11250))
    """
    if orientation is None:
        orientation = orientation_map((75, 75), 1.0, 10.0, random_state=0)
    space = sheet((75, 75), 1.0, orientation=orientation, unit="cells")
    options = {"sparse": True, "cutoff": 1e-3}
    weights = connect(
        space,
        [[0.072, 0.0528], [0.06, 0.0288]],
        [[3.0, 2.0], [3.0, 2.0]],
        profile=[[_within, "gaussian"]] * 2,
        feature_widths=55.0,
        reach=8.0,
        **options,
    ) + connect(
        space,
        [[0.036, 0.0], [0.036, 0.0]],
        [[3.0, 1.0], [6.0, 1.0]],
        profile=_beyond,
        feature_widths=25.0,
        reach=26.0,
        **options,
    )
    weights = signed(weights.astype(np.float32), [1, -1])

    def drive(contrast, side, place=None):
        """A square grating in the orientation that its centre prefers."""
        place = len(space.positions) // 2 if place is None else place
        strength = 50 * _numbers(contrast) ** 3.5 / (_numbers(contrast) ** 3.5 + 11.0**3.5)
        centre = {"place": space.positions[place], "edge": "erf", "edge_width": 0.25 / 0.6}
        pattern = grating(space, space.orientation[place], 20.0, contrast=strength)
        return for_types(pattern * bar(space, np.atleast_1d(side), **centre), [1.0, 1.0])

    return Published(
        Circuit(weights, 5625, k=0.01, gamma=2.2, tau_e=10.0, tau_i=6.67), space, drive
    )


def _within(distance, width):
    return (distance <= width).astype(float)


def _beyond(distance, width):
    return np.where(distance > 3, np.exp(-((distance - 3) ** 2) / (2 * width**2)), 0.0)
