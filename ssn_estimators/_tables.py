"""Results as pandas, xarray and neo know them, where these are installed."""

from __future__ import annotations

from importlib import import_module

__all__ = ["data_frame", "data_set", "neo_with_units"]


def data_frame(columns):
    """A pandas DataFrame, if there is pandas."""
    return _imported("pandas").DataFrame(columns)


def data_set(variables, coordinates, attributes):
    """An xarray Dataset, if there is xarray."""
    return _imported("xarray").Dataset(variables, coordinates, attributes)


def neo_with_units():
    """The modules neo and quantities, if there are any."""
    return tuple(_imported(name, "neo") for name in ("neo", "quantities"))


def _imported(name, extra="tables"):
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"this needs {name}: python -m pip install 'ssn_estimators[{extra}]'."
        ) from error
