"""Displays in scikit-learn's style; matplotlib is imported when something is drawn."""

from ssn_estimators.plotting.activity import RasterDisplay, TrajectoryDisplay
from ssn_estimators.plotting.responses import (
    ContrastResponseDisplay,
    SizeTuningDisplay,
    SpectrumDisplay,
    TuningDisplay,
)
from ssn_estimators.plotting.robustness import RobustnessDisplay
from ssn_estimators.plotting.sampling import PosteriorDisplay, StimulusSwitchDisplay
from ssn_estimators.plotting.stability import StabilityDisplay
from ssn_estimators.plotting.training import GrowthDisplay
from ssn_estimators.plotting.trials import TrialDisplay
from ssn_estimators.plotting.weights import WeightsDisplay

__all__ = [
    "ContrastResponseDisplay",
    "GrowthDisplay",
    "PosteriorDisplay",
    "RasterDisplay",
    "RobustnessDisplay",
    "SizeTuningDisplay",
    "SpectrumDisplay",
    "StabilityDisplay",
    "StimulusSwitchDisplay",
    "TrajectoryDisplay",
    "TrialDisplay",
    "TuningDisplay",
    "WeightsDisplay",
]
