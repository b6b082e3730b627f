"""The engine on GPUs: fused kernels, or library products where circuits are large."""

from ssn_estimators.simulation.gpu.cards import runs_on
from ssn_estimators.simulation.gpu.engine import moments, noise

__all__ = ["moments", "noise", "runs_on"]
