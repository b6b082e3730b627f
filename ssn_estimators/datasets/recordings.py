"""Recordings that come with the package."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
from sklearn.utils import Bunch

__all__ = ["load_allen_traces"]

TYPES = ["E", "PV", "SST", "VIP"]
SESSIONS = ["familiar", "novel"]
ARRAYS = {
    "mean": "rates",
    "std": "deviations",
    "sem": "errors",
    "n_cells": "n_cells",
    "l4_mean": "layer_4",
    "l4_std": "layer_4_deviations",
    "l4_sem": "layer_4_errors",
    "prior_weights": "weights",
    "prior_weights_fracerr": "weights_error",
    "prior_l4": "layer_4_weights",
    "prior_l4_fracerr": "layer_4_weights_error",
}


def load_allen_traces() -> Bunch:
    """Rates of four cell types of mouse visual cortex while images are flashed.

    Means over cells of layer 2/3, recorded by the Allen Institute with Neuropixels probes [1]_, in
    one session with familiar and one with novel images: 250 ms of an image, 500 ms of grey, and so
    on, the fifth image of those shown here omitted. Layer 4 is the input. Strengths of synapses
    from paired recordings are a prior of weights.

    Returns
    -------
    recordings : Bunch
        types : list of str
            E (regular-spiking), PV (fast-spiking), SST and VIP cells.
        sessions : list of str
            "familiar" and "novel".
        times : ndarray of shape (7000,)
            In ms, from the onset of an image; bins of 1 ms. The omitted image was due at 3000 ms.
        rates, deviations, errors : ndarrays of shape (2, 7000, 4)
            Mean rate of each type in each session, its standard deviation over cells and its
            standard error, in Hz.
        n_cells : ndarray of shape (2, 4)
            Cells of each type in each session.
        layer_4, layer_4_deviations, layer_4_errors : ndarrays of shape (2, 7000)
            The same of excitatory cells of layer 4.
        weights, weights_error : ndarrays of shape (4, 4)
            [post, pre]: strength of the synapses between the types, up to a common factor, with its
            sign, and its fractional error.
        layer_4_weights, layer_4_weights_error : ndarrays of shape (4,)
            The same of synapses from layer 4.
        DESCR : str
            Source and licence.

    Notes
    -----
    The data are the Allen Institute's, Copyright (c) 2023, under the BSD 3-Clause licence, which is
    in `DESCR`.

    References
    ----------
    .. [1] Allen Institute, visual_behavior_ssn_modeling,
       https://github.com/AllenInstitute/visual_behavior_ssn_modeling

    Examples
    --------
    >>> from ssn_estimators.datasets import load_allen_traces
    >>> recordings = load_allen_traces()
    >>> recordings.rates.shape, recordings.types
    ((2, 7000, 4), ['E', 'PV', 'SST', 'VIP'])
    """
    folder = files("ssn_estimators.datasets") / "data"
    with (folder / "allen_traces.npz").open("rb") as file, np.load(file) as stored:
        found = {name: stored[key] for key, name in ARRAYS.items()}
    for name in ("rates", "deviations", "errors"):
        found[name] = np.ascontiguousarray(found[name].swapaxes(1, 2))
    text = (folder / "allen_traces_LICENSE.txt").read_text(encoding="utf-8")
    times = np.arange(found["rates"].shape[1])
    return Bunch(types=list(TYPES), sessions=list(SESSIONS), times=times, **found, DESCR=text)
