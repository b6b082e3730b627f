"""What one asks of a network: its stability, its responses, and how rich its learning was."""

from ssn_estimators.inspection.closure_bias import ClosureBias, closure_bias, compare_moments
from ssn_estimators.inspection.linear import jacobian, spectral_abscissa
from ssn_estimators.inspection.operating_point import (
    ei_balance,
    fixed_points,
    is_inhibition_stabilized,
    oscillations,
    transient_amplification,
)
from ssn_estimators.inspection.perturbations import (
    Perturbation,
    PopulationResponse,
    paradoxical_effect,
    perturb,
    population_response,
    response_matrix,
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
from ssn_estimators.inspection.responses import (
    ContrastResponse,
    Normalization,
    Peak,
    SizeTuning,
    contrast_response,
    normalization,
    size_tuning,
)
from ssn_estimators.inspection.steady_states import SteadyStates, steady_states

__all__ = [
    "ClosureBias",
    "ContrastResponse",
    "LearningRegime",
    "Normalization",
    "Peak",
    "Perturbation",
    "PopulationResponse",
    "SizeTuning",
    "SteadyStates",
    "closure_bias",
    "compare_moments",
    "contrast_response",
    "effective_rank",
    "ei_balance",
    "fixed_points",
    "is_inhibition_stabilized",
    "jacobian",
    "kernel_alignment",
    "learning_regime",
    "normalization",
    "oscillations",
    "paradoxical_effect",
    "perturb",
    "population_response",
    "representation_alignment",
    "response_matrix",
    "size_tuning",
    "spectral_abscissa",
    "steady_states",
    "tangent_kernel",
    "transient_amplification",
    "weight_change",
]
