"""A user's own data: one ``.npz`` file with ``train_x``, ``train_y``, ``test_x`` and ``test_y``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.arrays import ArrayArchive, open_npz
from zoo.data.base import DATASETS, Arrays, DataSource, array_problems, data_error
from zoo.errors import DataError, Problem, listed

__all__ = ["read"]


def _member(held: ArrayArchive, name: str, problems: list[Problem]) -> NDArray[Any] | None:
    """Return one array of the file, or None with the problem added."""
    if name not in held.names:
        there = listed(held.names) or "nothing"
        problems.append(Problem(name, None, f"is missing; the file has {there}"))
        return None
    try:
        return held[name]
    except ValueError as error:
        problems.append(Problem(name, None, f"cannot be read: {error}"))
        return None


def read(path: Path | None) -> Arrays:
    """Return the arrays of an ``.npz`` file; nothing in it is ever unpickled.

    Raises:
        DataError: not an ``.npz`` file, or arrays that are no data set, all problems at once.
    """
    if path is None or path.is_dir():
        msg = f"{path}: not a file; an npz data set is one .npz file"
        raise DataError(msg)
    problems: list[Problem] = []
    try:
        with open_npz(path) as held:
            found = {name: _member(held, name, problems) for name in Arrays._fields}
    except (OSError, ValueError) as error:
        msg = f"{path}: not a readable .npz file: {error}"
        raise DataError(msg) from error
    # A member that is missing is judged once; a harmless stand-in takes its place below.
    whole = Arrays(*(_stand_in(name, found) for name in Arrays._fields))
    lacking = {name for name, array in found.items() if array is None}
    problems += [
        p for p in array_problems(whole) if p.field not in lacking and not _compared(p, lacking)
    ]
    if problems:
        raise data_error(str(path), problems)
    return whole


def _stand_in(name: str, found: dict[str, NDArray[Any] | None]) -> NDArray[Any]:
    array = found[name]
    return array if array is not None else np.zeros((1, 1) if name.endswith("x") else 1, np.uint8)


def _compared(problem: Problem, lacking: set[str]) -> bool:
    """Whether a problem comes from comparing with an array that is missing."""
    partner = {"train_y": "train_x", "test_y": "test_x", "test_x": "train_x"}
    comparing = problem.message in ("one target per example", "unlike train_x", "unlike train_y")
    return comparing and partner.get(problem.field) in lacking


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
    )
)
