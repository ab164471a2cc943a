"""The registry of export formats, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.splits import Split
from zoo.dataset.view import View
from zoo.errors import QueryError
from zoo.registry import Registry

__all__ = ["EXPORTS", "Export", "ExportFormat", "plain_columns"]


@dataclass(frozen=True, slots=True)
class Export:
    """What an export wrote.

    Args:
        path: the file or folder.
        files: number of files.
        bytes: in all of them.
    """

    path: Path
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """One format.

    Args:
        write: (rows, where, split or None) → what was written.
        readers: who reads it, one line.
        suffix: of the file; empty for a folder.
    """

    write: Callable[[View, Path, Split | None], Export]
    readers: str
    suffix: str = ""


EXPORTS: Registry[ExportFormat] = Registry("export format")


def plain_columns(view: View, *reserved: str) -> dict[str, NDArray[Any]]:
    """Return every column of a view in a type that any format has: text, float64, int64, bool.

    Args:
        view: the rows.
        reserved: names that mean something else in the format.

    Raises:
        QueryError: a column that a stage added has a reserved name.
    """
    clash = sorted(set(view.columns) & set(reserved))
    if clash:
        msg = f"columns {', '.join(clash)}: the format uses these names; publish them under others"
        raise QueryError(msg)
    found = {}
    for name in view.columns:
        values = view.column(name)
        if values.dtype.kind == "f":
            values = values.astype(np.float64)
        elif values.dtype.kind in "iu":
            values = values.astype(np.int64)
        found[name] = values
    return found
