"""A user's own data: one ``.npz`` file of arrays named after split and role: ``train_x``, ..."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.arrays import open_npz
from zoo.data.base import DATASETS, WINDOW_OPTIONS, DataSource, data_error
from zoo.data.problems import split_problems
from zoo.data.splits import ordered
from zoo.errors import DataError, Problem

__all__ = ["read"]


def read(path: Path | None) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file; nothing in it is ever unpickled.

    Raises:
        DataError: not an ``.npz`` file, or arrays that are no data set, all problems at once.
    """
    if path is None or path.is_dir():
        msg = f"{path}: not a file; an npz data set is one .npz file"
        raise DataError(msg)
    problems: list[Problem] = []
    found: dict[str, NDArray[Any]] = {}
    lost: set[str] = set()
    try:
        with open_npz(path) as held:
            there = list(held.names)
            for name in ordered(dict.fromkeys(held.names, np.empty(0))):
                try:
                    found[name] = held[name]
                except ValueError as error:
                    problems.append(Problem(name, None, f"cannot be read: {error}"))
                    lost.add(name)
    except (OSError, ValueError) as error:
        msg = f"{path}: not a readable .npz file: {error}"
        raise DataError(msg) from error
    problems += split_problems(found, there=there, lost=lost)
    if problems:
        raise data_error(str(path), problems)
    return found


DATASETS.register("npz", doc="your own: an .npz file, as npz:NAME")(
    DataSource(
        name="npz",
        source="user-path",
        licence="the user's own",
        citation="",
        example_shape=None,
        classes=None,
        sizes=None,
        read=read,
        files="one .npz file with the arrays train_x, train_y, test_x and test_y",
        options=WINDOW_OPTIONS,
    )
)
