"""Networks that learn tasks in time: a classifier and a regressor of sequences."""

from ssn_estimators.sequences.classifier import SSNSequenceClassifier
from ssn_estimators.sequences.regressor import SSNSequenceRegressor

__all__ = ["SSNSequenceClassifier", "SSNSequenceRegressor"]
