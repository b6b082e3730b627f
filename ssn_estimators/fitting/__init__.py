"""Parameters of circuits from what they were seen to do."""

from ssn_estimators.fitting.comparison import compare
from ssn_estimators.fitting.covariances import Covariances
from ssn_estimators.fitting.kernels import Connectivity
from ssn_estimators.fitting.parameters import Free
from ssn_estimators.fitting.regressor import CircuitRegressor
from ssn_estimators.fitting.spectra import Spectra
from ssn_estimators.fitting.traces import Traces

__all__ = [
    "CircuitRegressor",
    "Connectivity",
    "Covariances",
    "Free",
    "Spectra",
    "Traces",
    "compare",
]
