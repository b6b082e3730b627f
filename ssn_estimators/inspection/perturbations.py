"""What more input to some cells does to all: small and finite perturbations."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from sklearn.utils import check_random_state

from ssn_estimators._sklearn import RANDOM, validate_params
from ssn_estimators._tables import data_frame
from ssn_estimators.inspection.populations import (
    cells_of,
    choose_cells,
    means_by_population,
    types_of,
)
from ssn_estimators.inspection.steady_states import (
    checked_drive,
    in_double,
    solved,
    steady_states,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ssn_estimators._typing import ArrayLike, RandomState
    from ssn_estimators.circuit import Circuit

__all__ = [
    "Perturbation",
    "PopulationResponse",
    "paradoxical_effect",
    "perturb",
    "population_response",
    "response_matrix",
]


def response_matrix(
    circuit: Circuit, drive: ArrayLike, *, start: ArrayLike | None = None
) -> np.ndarray:
    r"""Changes of the steady rates with small changes of the input.

    :math:`\chi = dr/dh = (I - \mathrm{diag}(g) W)^{-1} \mathrm{diag}(g)` with the gains
    :math:`g = dr/du` of the stable state.

    Parameters
    ----------
    circuit, drive, start
        As in :func:`steady_states`.

    Returns
    -------
    response : ndarray of shape (n_inputs, n_neurons, n_neurons)
        [responding, perturbed] cell, in Hz / mV; NaN for inputs without a stable state.

    Raises
    ------
    ValueError
        If a shape is wrong or a number is not finite.

    Examples
    --------
    More input to the I cell lowers its rate where it stabilises the circuit.

    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import response_matrix
    >>> pair = Circuit([[2.5, -1.3], [2.4, -1.0]], n_excitatory=1, k=0.04)
    >>> response_matrix(pair, [[2.0, 2.0], [20.0, 20.0]])[:, 1, 1].round(2)
    array([ 0.13, -4.74])
    """
    circuit.dense("response matrices")
    states = steady_states(circuit, drive, start=start)
    circuit = in_double(circuit)
    response = np.full((len(states.u), circuit.n_neurons, circuit.n_neurons), np.nan)
    gain = circuit.gain(states.u[states.stable])
    eye = np.eye(circuit.n_neurons)
    matrices = eye - gain[:, :, None] * circuit.weights
    response[states.stable] = solved(matrices, gain[:, :, None] * eye)
    return response


@dataclass(frozen=True, eq=False)
class PopulationResponse:
    """What :func:`population_response` found.

    Attributes
    ----------
    values : ndarray of shape (n_inputs, n_responding, n_perturbed)
        In Hz / mV; NaN for inputs without a stable state.
    responding, perturbed : tuples of str
        Names of the populations.
    """

    values: np.ndarray
    responding: tuple[str, ...]
    perturbed: tuple[str, ...]

    def to_dataframe(self) -> pd.DataFrame:
        """One row for each input and responding population, perturbed ones in columns.

        Returns
        -------
        frame : pandas.DataFrame

        Raises
        ------
        ImportError
            If there is no pandas.
        """
        n_inputs, n_responding, n_perturbed = self.values.shape
        columns = {
            "input": np.repeat(np.arange(n_inputs), n_responding),
            "responding": list(self.responding) * n_inputs,
        }
        table = self.values.reshape(-1, n_perturbed).T
        return data_frame(columns | dict(zip(self.perturbed, table, strict=True)))


def population_response(
    circuit: Circuit,
    drive: ArrayLike,
    *,
    cells: Sequence[int] | None = None,
    start: ArrayLike | None = None,
) -> PopulationResponse:
    """Changes of mean rates with a small input to all cells of one population.

    Parameters
    ----------
    circuit, drive, start
        As in :func:`steady_states`.
    cells : sequence of int, default=None
        Cells whose responses are looked at, such as those in the centre of a stimulus; None means
        all. Perturbations are of all cells of a population.

    Returns
    -------
    response : PopulationResponse
        :func:`response_matrix`, the sum over the cells of the perturbed population and the mean
        over those of the responding one.

    Raises
    ------
    ValueError
        If a shape is wrong, a number is not finite, or there is no such cell.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import population_response
    >>> pair = Circuit([[2.5, -1.3], [2.4, -1.0]], n_excitatory=1, k=0.04)
    >>> population_response(pair, [[20.0, 20.0]]).values.round(2)
    array([[[ 3.64, -3.27],
            [ 6.04, -4.74]]])
    """
    chosen, types = choose_cells(circuit, cells), types_of(circuit)
    chi = response_matrix(circuit, drive, start=start)[:, chosen]
    perturbed = tuple(circuit.populations)
    sums = np.stack([chi[..., types == name].sum(-1) for name in perturbed], 1)
    means = means_by_population(sums, types[chosen])
    return PopulationResponse(np.stack(list(means.values()), 1), tuple(means), perturbed)


def paradoxical_effect(
    circuit: Circuit,
    drive: ArrayLike,
    population: str = "I",
    *,
    cells: Sequence[int] | None = None,
    start: ArrayLike | None = None,
) -> np.ma.MaskedArray:
    """Does more input to a population lower its own mean rate?

    With two types of one cell each it does exactly where E cells alone would be unstable,
    :func:`is_inhibition_stabilized`; with more types, or cells that differ, these are different
    things. It takes many cells: of a homogeneous population, with the gain g of its cells and the
    response chi of their mean, the stimulated ones respond in this way only if they are more than
    a share g / (g - chi) of it. See :func:`perturb`.

    Parameters
    ----------
    circuit, drive, start
        As in :func:`steady_states`.
    population : str, default="I"
        Which cells get the input.
    cells : sequence of int, default=None
        Those of its cells whose mean rate is looked at, such as the ones in the centre of a
        stimulus; None means all.

    Returns
    -------
    paradoxical : masked array of shape (n_inputs,), bool
        Masked for inputs without a stable state.

    Raises
    ------
    ValueError
        If there is no such population, one of the cells is not of it, a shape is wrong, or a
        number is not finite.

    References
    ----------
    .. [1] Tsodyks, Skaggs, Sejnowski & McNaughton (1997). Paradoxical effects of external
       modulation of inhibitory interneurons. Journal of Neuroscience 17, 4382-4388.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import paradoxical_effect
    >>> pair = Circuit([[2.5, -1.3], [2.4, -1.0]], n_excitatory=1, k=0.04)
    >>> paradoxical_effect(pair, [[2.0, 2.0], [20.0, 20.0]]).tolist()
    [False, True]
    """
    own = np.arange(circuit.n_neurons)[cells_of(circuit, population)]
    chosen = own if cells is None else choose_cells(circuit, cells)
    if not np.isin(chosen, own).all():
        raise ValueError(f"cells must be of the population {population!r}, got {cells!r}.")
    response = response_matrix(circuit, drive, start=start)[:, chosen][:, :, own].sum(2).mean(1)
    return np.ma.masked_array(response < 0, mask=np.isnan(response))


@dataclass(frozen=True, eq=False)
class Perturbation:
    """What :func:`perturb` did.

    Attributes
    ----------
    before, after : ndarrays of shape (n_inputs, n_neurons)
        Steady rates in Hz; NaN where there is no stable state.
    stimulated : ndarray of shape (n_neurons,), bool
        Which cells were perturbed.
    population : str
        Of which population they are.
    types : ndarray of shape (n_neurons,)
        Population of each cell.
    """

    before: np.ndarray
    after: np.ndarray
    stimulated: np.ndarray
    population: str
    types: np.ndarray

    @property
    def change(self) -> np.ndarray:
        """after - before, in Hz: ndarray of shape (n_inputs, n_neurons)."""
        return self.after - self.before

    @property
    def change_of_stimulated(self) -> np.ndarray:
        """Mean change of the perturbed cells, in Hz: ndarray of shape (n_inputs,)."""
        return self.change[:, self.stimulated].mean(1)

    @property
    def change_of_others(self) -> np.ndarray:
        """Mean change of the other cells of that population, in Hz: ndarray of shape (n_inputs,).

        NaN if there are none.
        """
        others = (self.types == self.population) & ~self.stimulated
        if not others.any():
            return np.full(len(self.change), np.nan)
        return self.change[:, others].mean(1)

    def by_population(self) -> dict[str, np.ndarray]:
        """Mean change of each population.

        Returns
        -------
        changes : dict of str to ndarray of shape (n_inputs,)
            In Hz.
        """
        return means_by_population(self.change, self.types)


@validate_params(random_state=RANDOM)
def perturb(
    circuit: Circuit,
    drive: ArrayLike,
    population: str,
    strength: float,
    *,
    share: float = 1.0,
    random_state: RandomState = None,
    start: ArrayLike | None = None,
) -> Perturbation:
    """More or less input to some or all cells of a population, as by optogenetics.

    Parameters
    ----------
    circuit, drive, start
        As in :func:`steady_states`. After the perturbation, the circuit goes on from the state in
        which it was.
    population : str
        Whose cells are perturbed.
    strength : float
        What is added to their drive, in mV; below 0 to silence them.
    share : float, default=1.0
        Share of the cells of the population, above 0 and up to 1: at least one.
    random_state : int, RandomState instance or None, default=None
        Draws the cells if they are not all.

    Returns
    -------
    perturbation : Perturbation

    Raises
    ------
    ValueError
        If there is no such population, `share` or `strength` is not legal, a shape is wrong, or a
        number is not finite.

    References
    ----------
    .. [1] Sadeh, Silver, Mrsic-Flogel & Muir (2017). Assessing the role of inhibition in
       stabilizing neocortical networks requires large-scale perturbation of the inhibitory
       population. Journal of Neuroscience 37, 12050-12067.

    Examples
    --------
    >>> from ssn_estimators import Circuit
    >>> from ssn_estimators.inspection import perturb
    >>> pair = Circuit([[2.5, -1.3], [2.4, -1.0]], n_excitatory=1, k=0.04)
    >>> perturb(pair, [[20.0, 20.0]], "I", 0.05).change_of_stimulated.round(3)
    array([-0.236])
    """
    cells = cells_of(circuit, population)
    if not isinstance(strength, Real) or not np.isfinite(strength):
        raise ValueError(f"strength must be a finite number of mV, got {strength!r}.")
    if not isinstance(share, Real) or not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share!r}.")
    drive = checked_drive(circuit, drive)
    before = steady_states(circuit, drive, start=start)
    n_chosen = max(1, round(share * len(cells)))
    stimulated = np.zeros(circuit.n_neurons, bool)
    stimulated[check_random_state(random_state).permutation(cells)[:n_chosen]] = True
    rates, states = np.full((2, *before.u.shape), np.nan), before.stable
    rates[0, states] = before.rates[states]
    if states.any():
        more = drive[states] + strength * stimulated
        after = steady_states(circuit, more, start=before.u[states])
        rates[1, states] = np.where(after.stable[:, None], after.rates, np.nan)
    return Perturbation(*rates, stimulated, population, types_of(circuit))
