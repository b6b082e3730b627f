"""Lateral context: feature maps that know what usually stands around them."""

from ssn_estimators.lateral.cnn import CNNClassifier
from ssn_estimators.lateral.context import LateralContext
from ssn_estimators.lateral.noise import add_gaussian_noise, add_salt_pepper, robustness_curve

__all__ = [
    "CNNClassifier",
    "LateralContext",
    "add_gaussian_noise",
    "add_salt_pepper",
    "robustness_curve",
]
