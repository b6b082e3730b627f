"""Which loops over time run: those that Numba compiles, where it is installed, or plain ones."""

from ssn_estimators.simulation import loops as plain

try:
    from ssn_estimators.simulation import compiled
except ImportError:  # Numba comes with an extra
    compiled = None

__all__ = ["compiled", "loops", "plain"]


def loops(like):
    """The module of loops for tensors like this."""
    return plain if compiled is None or like.device.type != "cpu" else compiled
