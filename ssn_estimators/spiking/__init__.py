"""Networks of spiking cells, trained by recursive least squares."""

from ssn_estimators.spiking.regressor import SpikingRegressor
from ssn_estimators.spiking.simulation import SpikingSimulation

__all__ = ["SpikingRegressor", "SpikingSimulation"]
