"""Stationary densities of stochastic dynamics: tested, turned into dynamics, and learned."""

from ssn_estimators.density.dynamics import Langevin, circuit_dynamics
from ssn_estimators.density.flow import GMMFlow
from ssn_estimators.density.regressor import FokkerPlanckRegressor, circuit_from_samples
from ssn_estimators.density.stationarity import (
    GeneratorMoments,
    fokker_planck_residual,
    generator_moments,
    random_frequencies,
    stationarity_test,
)

__all__ = [
    "FokkerPlanckRegressor",
    "GMMFlow",
    "GeneratorMoments",
    "Langevin",
    "circuit_dynamics",
    "circuit_from_samples",
    "fokker_planck_residual",
    "generator_moments",
    "random_frequencies",
    "stationarity_test",
]
