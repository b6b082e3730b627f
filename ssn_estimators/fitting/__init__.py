"""Parameters of circuits from what they were seen to do."""

from ssn_estimators.fitting.parameters import Free
from ssn_estimators.fitting.regressor import CircuitRegressor

__all__ = ["CircuitRegressor", "Free"]
