"""Networks of biophysical cells, trained without gradients or through them."""

from ssn_estimators.biophysical.classifier import MorrisLecarClassifier
from ssn_estimators.biophysical.morris_lecar import MorrisLecar

__all__ = ["MorrisLecar", "MorrisLecarClassifier"]
