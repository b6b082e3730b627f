"""Displays in scikit-learn's style; matplotlib is imported when something is drawn."""

from ssn_estimators.plotting.activity import TrajectoryDisplay
from ssn_estimators.plotting.responses import (
    ContrastResponseDisplay,
    SizeTuningDisplay,
    SpectrumDisplay,
)
from ssn_estimators.plotting.sampling import StimulusSwitchDisplay
from ssn_estimators.plotting.stability import StabilityDisplay
from ssn_estimators.plotting.training import GrowthDisplay
from ssn_estimators.plotting.trials import TrialDisplay

__all__ = [
    "ContrastResponseDisplay",
    "GrowthDisplay",
    "SizeTuningDisplay",
    "SpectrumDisplay",
    "StabilityDisplay",
    "StimulusSwitchDisplay",
    "TrajectoryDisplay",
    "TrialDisplay",
]
