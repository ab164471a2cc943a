"""Columns to a numpy structured array, and to groups of equal values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["group_codes", "stable_order", "structured"]


def structured(columns: Mapping[str, NDArray[Any]], n: int) -> NDArray[Any]:
    """Return a structured array ``[n]`` with one field a column, each in its own type."""
    # numpy has no text of width 0 in a field
    types = {k: "<U1" if v.dtype == np.dtype("<U0") else v.dtype for k, v in columns.items()}
    table = np.empty(n, dtype=list(types.items()))
    for name, values in columns.items():
        table[name] = values
    return table


def group_codes(keys: Sequence[NDArray[Any]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the group number of each row, and a row of each group; groups in key order.

    Two NaN are the same value.

    Args:
        keys: arrays ``[n]``, the first one weighing most.
    """
    codes = np.zeros(len(keys[0]), dtype=np.intp)
    for key in keys:
        values, inverse = np.unique(key, return_inverse=True)
        # renumbered at every key, so that the product of many keys cannot overflow
        codes = np.unique(codes * max(len(values), 1) + inverse, return_inverse=True)[1]
    first = np.unique(codes, return_index=True)[1]
    return codes, first


def stable_order(values: NDArray[Any], *, descending: bool) -> NDArray[np.intp]:
    """Return the stable order of values, NaN last."""
    codes = np.unique(values, return_inverse=True)[1].astype(np.int64)
    missing = values != values
    codes = np.where(missing, np.iinfo(np.int64).max, -codes if descending else codes)
    return np.argsort(codes, kind="stable")
