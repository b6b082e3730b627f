"""The engine on CPUs: blocks of columns, compiled loops over time, many threads."""

from ssn_estimators.simulation.cpu.engine import moments

__all__ = ["moments"]
