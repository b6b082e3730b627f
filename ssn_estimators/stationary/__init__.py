"""Moments of a circuit's stationary activity from equations, without simulation."""

from ssn_estimators.stationary.moments import CLOSURES, StationaryMoments, stationary_moments

__all__ = ["CLOSURES", "StationaryMoments", "stationary_moments"]
