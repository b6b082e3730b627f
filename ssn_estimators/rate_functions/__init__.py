"""Rate functions of cells besides the power law, for ``Circuit(rate_function=...)``."""

from ssn_estimators.rate_functions.functions import (
    AbbottChance,
    MillerTroyer,
    RateFunction,
    Ricciardi,
    Saturating,
)

__all__ = ["AbbottChance", "MillerTroyer", "RateFunction", "Ricciardi", "Saturating"]
