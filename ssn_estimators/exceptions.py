"""Errors of the package."""

__all__ = ["DivergenceError"]


class DivergenceError(RuntimeError):
    """A network ran away, so that it has no answer to give."""
