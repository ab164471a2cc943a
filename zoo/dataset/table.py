"""Columns to a numpy structured array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["structured"]


def structured(columns: Mapping[str, NDArray[Any]], n: int) -> NDArray[Any]:
    """Return a structured array ``[n]`` with one field a column, each in its own type."""
    # numpy has no text of width 0 in a field
    types = {k: "<U1" if v.dtype == np.dtype("<U0") else v.dtype for k, v in columns.items()}
    table = np.empty(n, dtype=list(types.items()))
    for name, values in columns.items():
        table[name] = values
    return table
