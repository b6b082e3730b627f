"""Triton kernels of the GPU engine: a tile of columns is followed through all steps at once.

A column is one trial of one input of one network. Arrays over columns are contiguous with
shape (n_networks, n_columns, n_cells); time, where there is one, comes first. A matrix of
networks is stacked along the axis before.

`PIECES` is the number of float16 numbers that stand for one float32 in a product: one has the
11-bit significand of TF32, two have 22 bits and take three products.
"""

from ssn_estimators.simulation.gpu.kernels.arithmetic import COUNTS
from ssn_estimators.simulation.gpu.kernels.ornstein_uhlenbeck import noise
from ssn_estimators.simulation.gpu.kernels.outer_products import outer
from ssn_estimators.simulation.gpu.kernels.resident import adjoint, forward
from ssn_estimators.simulation.gpu.kernels.tiled import adjoint_tiled, forward_tiled

__all__ = ["COUNTS", "adjoint", "adjoint_tiled", "forward", "forward_tiled", "noise", "outer"]
