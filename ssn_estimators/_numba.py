"""Numba with a cache on disk that may fail: code is then compiled anew, in every process."""

from contextlib import suppress

from numba import njit

__all__ = ["OPTIONS", "compiled", "polynomial"]

OPTIONS = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}


class _Cache:
    """A cache of Numba's that can be missing, full or damaged."""

    def __init__(self, cache):
        self._cache = cache

    def __getattr__(self, name):
        return getattr(self._cache, name)

    def load_overload(self, *arguments):
        try:
            return self._cache.load_overload(*arguments)
        except Exception:  # whatever a damaged file makes of unpickling
            with suppress(Exception):
                self._cache.flush()
            return None

    def save_overload(self, *arguments):
        with suppress(Exception):
            self._cache.save_overload(*arguments)


def compiled(**options):
    """As ``njit(cache=True)``, but for computations that do not depend on a cache."""

    def decorate(function):
        try:
            dispatcher = njit(cache=True, **options)(function)
        except RuntimeError:  # no folder for it
            return njit(**options)(function)
        dispatcher._cache = _Cache(dispatcher._cache)
        return dispatcher

    return decorate


@compiled(**OPTIONS)
def polynomial(coefficients, x):
    """Its value, coefficients from the highest power."""
    value = coefficients[0]
    for k in range(1, len(coefficients)):
        value = value * x + coefficients[k]
    return value
