"""The engine on CPUs: blocks of columns, compiled loops over time, many threads."""

from ssn_estimators.simulation.cpu.engine import moments, runs_here

__all__ = ["moments", "runs_here"]
