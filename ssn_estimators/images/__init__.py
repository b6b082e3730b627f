"""Images as circuits of the visual cortex see them: contrast, filters, causes."""

from ssn_estimators.images.contrast import ContrastNormalizer
from ssn_estimators.images.gabor import GaborEncoder, gabor_filters
from ssn_estimators.images.scale_mixture import GaussianScaleMixture

__all__ = [
    "ContrastNormalizer",
    "GaborEncoder",
    "GaussianScaleMixture",
    "gabor_filters",
    "named",
    "percepts",
]
