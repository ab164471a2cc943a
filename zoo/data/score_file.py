"""A user's own score: one number a training example, from a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.arrays import read_npy
from zoo.errors import DataError, MissingDataError
from zoo.paths import absolute

__all__ = ["file_fingerprint", "read_scores", "values_fingerprint"]


def read_scores(
    path: str | os.PathLike[str], count: int | None = None, *, name: str = ""
) -> NDArray[np.float64]:
    """Return the scores of a file ``[N]``, in the published order of the training set.

    Args:
        path: ``.npy``, or text with a number per line.
        count: N, to be checked.
        name: the score as the sweep names it, for messages.

    Raises:
        MissingDataError: there is no such file.
        DataError: it cannot be read, has another number of values, or values that are not finite.
    """
    file = absolute(path)
    score = name or f"file:{path}"
    if not file.is_file():
        msg = (
            f"score = {score!r}: there is no such file: {file}; allowed: a .npy file, or text with"
            f" one number per line; if it lies elsewhere, give --data '{score}=PATH' on the command"
            f" line or paths={{{score!r}: ...}} in Python"
        )
        raise MissingDataError(msg)
    try:
        values = _read(file)
        found = np.asarray(values, dtype=np.float64)
    except (ValueError, OSError) as error:
        allowed = "a .npy file, or text with one number per line"
        msg = f"score = {score!r}: {file} cannot be read ({error}); allowed: {allowed}"
        raise DataError(msg) from error
    if found.ndim != 1 or not np.isfinite(found).all() or count not in (None, len(found)):
        wanted = "finite numbers" if count is None else f"{count} finite numbers, one an example"
        bad = int((~np.isfinite(found)).sum())
        what = f"has shape {list(found.shape)}, and {bad} of its values are not finite"
        msg = f"score = {score!r}: {file} {what}; allowed: {wanted}"
        raise DataError(msg)
    return found


def _read(file: Path) -> NDArray[np.generic]:
    if file.suffix == ".npy":
        with file.open("rb") as open_file:
            return read_npy(open_file, file.stat().st_size)
    return np.loadtxt(file, encoding="utf-8-sig")


def values_fingerprint(values: NDArray[np.float64]) -> str:
    """Return the sha256 of scores ``[N]``."""
    return hashlib.sha256(values.astype("<f8").tobytes()).hexdigest()


def file_fingerprint(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a score file's values: two spellings of them are the same scores."""
    return values_fingerprint(read_scores(path))
