"""Simulation of circuits: a pure function from a circuit and a drive to an outcome."""

from ssn_estimators.simulation.reference import SCHEMES
from ssn_estimators.simulation.simulate import Simulation, simulate, simulate_many

__all__ = ["SCHEMES", "Simulation", "simulate", "simulate_many"]
