"""Circuits whose cells have a place: positions, distances and connectivity by distance."""

from ssn_estimators.geometry.connectivity import connect, signed
from ssn_estimators.geometry.convolution import convolution
from ssn_estimators.geometry.layouts import line, orientation_map, ring, sheet
from ssn_estimators.geometry.ring_circuit import gaussian_ring, ring_matrices
from ssn_estimators.geometry.space import Space

__all__ = [
    "Space",
    "connect",
    "convolution",
    "gaussian_ring",
    "line",
    "orientation_map",
    "ring",
    "ring_matrices",
    "sheet",
    "signed",
]
