"""Circuits of the literature, and two of our own, whose behaviour is known."""

import numpy as np

from ssn_estimators import circuits

PAIR_A = circuits.ahmadian_2013_pair().circuit
PAIR_B = circuits.ahmadian_2013_pair(strong=True).circuit
HENNEQUIN = circuits.hennequin_2018_pair().circuit
PERSISTENT = circuits.bistable_pair().circuit
LIMIT_CYCLE = circuits.kraynyukova_2018_pair().circuit
KUCHIBHOTLA = circuits.kuchibhotla_2017().circuit

# of the size-contrast circuit, whose cells of one type are side by side: centre and surround
SIZES, CONTRASTS = np.array([5.0, 8, 13, 22, 36, 60]), np.array([0.03, 0.06, 0.12, 0.25, 0.5, 1])
CENTRE = [0, 2, 4, 6]


def size_contrast():
    """The circuit, and its drives of shape (n_contrasts, n_sizes, n_cells)."""
    model = circuits.size_contrast()
    return model.circuit, np.stack([model.drive(contrast, SIZES) for contrast in CONTRASTS])


def both(values):
    """The same drive to E and I."""
    return np.repeat(np.asarray(values, float)[:, None], 2, 1)
