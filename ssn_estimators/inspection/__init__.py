"""What one asks of a network: its stability, its responses, and how rich its learning was."""

from ssn_estimators.inspection.bifurcations import Bifurcation, Bifurcations, bifurcations
from ssn_estimators.inspection.closure_bias import ClosureBias, closure_bias, compare_moments
from ssn_estimators.inspection.linear import jacobian, local_dynamics, spectral_abscissa
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
from ssn_estimators.inspection.spectra import (
    coherence,
    cross_spectrum,
    lfp_spectrum,
    power_spectrum,
    simulated_spectrum,
)
from ssn_estimators.inspection.steady_states import SteadyStates, steady_states

__all__ = [
    "Bifurcation",
    "Bifurcations",
    "ClosureBias",
    "ContrastResponse",
    "LearningRegime",
    "Normalization",
    "Peak",
    "Perturbation",
    "PopulationResponse",
    "SizeTuning",
    "SteadyStates",
    "bifurcations",
    "closure_bias",
    "coherence",
    "compare_moments",
    "contrast_response",
    "cross_spectrum",
    "effective_rank",
    "ei_balance",
    "fixed_points",
    "is_inhibition_stabilized",
    "jacobian",
    "kernel_alignment",
    "learning_regime",
    "lfp_spectrum",
    "local_dynamics",
    "normalization",
    "oscillations",
    "paradoxical_effect",
    "perturb",
    "population_response",
    "power_spectrum",
    "representation_alignment",
    "response_matrix",
    "simulated_spectrum",
    "size_tuning",
    "spectral_abscissa",
    "steady_states",
    "tangent_kernel",
    "transient_amplification",
    "weight_change",
]
