"""Results as pandas and xarray know them, where these are installed."""

from __future__ import annotations

from importlib import import_module

__all__ = ["data_frame", "data_set"]


def data_frame(columns):
    """A pandas DataFrame, if there is pandas."""
    return _imported("pandas").DataFrame(columns)


def data_set(variables, coordinates, attributes):
    """An xarray Dataset, if there is xarray."""
    return _imported("xarray").Dataset(variables, coordinates, attributes)


def _imported(name):
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"this table needs {name}: python -m pip install 'ssn_estimators[tables]'."
        ) from error
