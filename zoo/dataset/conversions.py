"""Views as data frames and xarray data sets; each library is imported on use."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from zoo.dataset.any_view import AnyRows, AnyView
from zoo.dataset.selection import column_names

__all__ = ["to_pandas", "to_polars", "to_xarray"]


def _library(name: str, method: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        msg = f"{method}() needs {name}: pip install {name} (or use .table(), which does not)"
        raise ImportError(msg) from error


def to_pandas(view: AnyRows, columns: Iterable[str] | None) -> Any:
    """Return a ``pandas.DataFrame``; see :meth:`zoo.dataset.View.to_pandas`."""
    return _library("pandas", "to_pandas").DataFrame.from_records(view.table(columns))


def to_polars(view: AnyRows, columns: Iterable[str] | None) -> Any:
    """Return a ``polars.DataFrame``; see :meth:`zoo.dataset.View.to_polars`."""
    polars = _library("polars", "to_polars")
    names = view.columns if columns is None else column_names(columns)
    values = {}
    for name in names:
        column = view.column(name)
        # missing numbers are NaN here and null there
        values[name] = (
            polars.Series(name, column, nan_to_null=True)
            if column.dtype.kind == "f"
            else polars.Series(name, column.tolist())
        )
    return polars.DataFrame(values)


def to_xarray(view: AnyView, columns: Iterable[str] | None, *, weights: bool) -> Any:
    """Return an ``xarray.Dataset``; see :meth:`zoo.dataset.View.to_xarray`."""
    xarray = _library("xarray", "to_xarray")
    names = view.columns if columns is None else column_names(columns)
    info = view.zoo.column_info
    variables = {name: ("row", view.column(name), {"long_name": info[name].doc}) for name in names}
    if weights:
        variables["weights"] = (
            ("row", "param"),  # type: ignore[assignment]
            view.stacked_weights(),
            {"long_name": "parameters and buffers, in the order of the layout"},
        )
    return xarray.Dataset(variables, attrs={"zoo": view.zoo.name})
