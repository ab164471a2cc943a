"""The registry of export formats, and what they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreError
from zoo.registry import Registry

if TYPE_CHECKING:
    from zoo.dataset.splits import Split
    from zoo.dataset.view import View

__all__ = ["EXPORTS", "Export", "ExportFormat", "plain_columns", "refuse_existing"]


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


def refuse_existing(path: Path) -> None:
    """Refuse to write over something.

    Raises:
        StoreError: there is a file or folder.
    """
    if path.exists():
        msg = f"{path} exists; remove it, or export to another place"
        raise StoreError(msg)


def plain_columns(view: View) -> dict[str, NDArray[Any]]:
    """Return every column of a view in a type that any format has: text, float64, int64, bool."""
    found = {}
    for name in view.columns:
        values = view.column(name)
        if values.dtype.kind == "f":
            values = values.astype(np.float64)
        elif values.dtype.kind in "iu":
            values = values.astype(np.int64)
        found[name] = values
    return found
