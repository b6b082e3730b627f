"""Statistics of spike trains, and of what training does to spiking networks."""

from ssn_estimators.spiking import drift, statistics
from ssn_estimators.spiking.drift import *  # noqa: F403
from ssn_estimators.spiking.statistics import *  # noqa: F403

__all__ = sorted([*drift.__all__, *statistics.__all__])
