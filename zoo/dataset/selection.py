"""Which rows a caller means: integers, masks and names, checked before anything is read."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import QueryError

__all__ = ["column_names", "position", "row_count", "row_indices"]


def position(i: Any, n: int) -> int:
    """Return the position of row ``i`` of n from the start.

    Raises:
        IndexError: there is no such row.
        TypeError: no integer.
    """
    try:
        at = operator.index(i)
    except TypeError:
        at = None
    if at is None or isinstance(i, bool | np.bool_):
        msg = f"row {i!r} of a view: rows are counted by integers, from 0; -1 is the last"
        raise TypeError(msg)
    if not -n <= at < n:
        msg = f"row {at} of a view of {n} rows"
        raise IndexError(msg)
    return at % n


def row_indices(key: Any, n: int) -> NDArray[np.int64]:
    """Return the positions that a list, an array or a mask names, from the start.

    Raises:
        IndexError: a position that is not there, or a mask of another length.
        TypeError: anything else than integers or a mask.
    """
    at = np.asarray(key)
    if at.ndim == 1 and not at.size:
        return np.empty(0, dtype=np.int64)
    if at.dtype.kind not in "iub" or at.ndim != 1:
        shown = f"{at.dtype} values" if at.ndim == 1 else type(key).__name__
        msg = (
            f"rows are taken by integers or a mask, in one list or array, not by {shown}; columns"
            " by their names"
        )
        raise TypeError(msg)
    if at.dtype.kind == "b":
        if len(at) != n:
            msg = f"a mask of {len(at)} values for a view of {n} rows"
            raise IndexError(msg)
        return np.flatnonzero(at)
    wrong = at[(at < -n) | (at >= n)]
    if len(wrong):
        msg = f"row {wrong[0]} of a view of {n} rows"
        raise IndexError(msg)
    return at.astype(np.int64) % n if n else at.astype(np.int64)


def row_count(value: Any, name: str, least: int = 0) -> int:
    """Return a number of rows.

    Raises:
        QueryError: no whole number, or one below ``least``.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        msg = f"{name} = {value!r}; allowed: a whole number, at least {least}"
        raise QueryError(msg)
    return int(value)


def column_names(names: Any, what: str = "columns") -> tuple[str, ...]:
    """Return the names of columns as a tuple; one name may stand alone, lists may be nested.

    Raises:
        TypeError: something that is no text.
    """
    if isinstance(names, str):
        return (names,)
    if not isinstance(names, Iterable):
        msg = f"{what}: {names!r} is not the name of a column, nor a list of names"
        raise TypeError(msg)
    return tuple(name for part in names for name in column_names(part, what))
