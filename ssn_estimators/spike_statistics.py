"""Statistics of spike trains; the public name of ``ssn_estimators.spiking.statistics``."""

from ssn_estimators.spiking.statistics import *  # noqa: F403
from ssn_estimators.spiking.statistics import __all__  # noqa: F401
