"""Simulation of circuits: a pure function from a circuit and a drive to an outcome."""

from ssn_estimators.simulation.schemes import SCHEMES
from ssn_estimators.simulation.simulate import (
    Simulation,
    State,
    simulate,
    simulate_many,
    simulate_trials,
)
from ssn_estimators.simulation.trials import PRECISIONS, Trials, check_steps, lasting

__all__ = [
    "PRECISIONS",
    "SCHEMES",
    "Simulation",
    "State",
    "Trials",
    "check_steps",
    "lasting",
    "simulate",
    "simulate_many",
    "simulate_trials",
]
