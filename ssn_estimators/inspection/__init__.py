"""What one asks of a network: its stability, and how rich the learning was that made it."""

from ssn_estimators.inspection.closure_bias import ClosureBias, closure_bias, compare_moments
from ssn_estimators.inspection.linear import jacobian, spectral_abscissa
from ssn_estimators.inspection.operating_point import (
    ei_balance,
    fixed_points,
    is_inhibition_stabilized,
    oscillations,
    transient_amplification,
)
from ssn_estimators.inspection.regime import (
    LearningRegime,
    effective_rank,
    kernel_alignment,
    learning_regime,
    representation_alignment,
    tangent_kernel,
    weight_change,
)

__all__ = [
    "ClosureBias",
    "LearningRegime",
    "closure_bias",
    "compare_moments",
    "effective_rank",
    "ei_balance",
    "fixed_points",
    "is_inhibition_stabilized",
    "jacobian",
    "kernel_alignment",
    "learning_regime",
    "oscillations",
    "representation_alignment",
    "spectral_abscissa",
    "tangent_kernel",
    "transient_amplification",
    "weight_change",
]
