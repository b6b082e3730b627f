"""Tables of rate functions for compiled loops, which cannot call them."""

from functools import lru_cache

import numpy as np
import torch

from ssn_estimators.circuit import DIVERGENCE_THRESHOLD

__all__ = ["NO_TABLE", "table_of"]

SIZES = (2**15, 2**18)  # intervals over all legal potentials
ACCURACY = 1e-7  # relative to 1 + the value
NO_TABLE = np.empty((0, 2))


@lru_cache(16)
def table_of(rate_function):
    """Values, and slopes times the distance of two nodes, of shape (n_nodes, 2).

    Cubic in between. None if no table of a reasonable size is accurate, as for steps.
    """
    for size in SIZES:
        ends = -DIVERGENCE_THRESHOLD, DIVERGENCE_THRESHOLD
        nodes = torch.linspace(*ends, size + 1, dtype=torch.float64)
        step = float(nodes[1] - nodes[0])
        value, slope = rate_function.value(nodes), rate_function.gain(nodes) * step
        expected = rate_function.value(nodes[:-1] + step / 2)
        between = (value[1:] + value[:-1]) / 2 + (slope[:-1] - slope[1:]) / 8
        if ((between - expected).abs() <= ACCURACY * (1 + expected.abs())).all():
            return torch.stack([value, slope], 1).numpy()
    return None
