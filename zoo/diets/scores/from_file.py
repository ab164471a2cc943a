"""A user's own score: one number a training example, from a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.diets.scores.base import SCORES, Score
from zoo.errors import DataError, MissingDataError

__all__ = ["file_fingerprint", "read_scores"]


def read_scores(path: str | Path, count: int | None = None) -> NDArray[np.float64]:
    """Return the scores of a file ``[N]``, in the published order of the training set.

    Args:
        path: ``.npy``, or text with a number a line.
        count: N, to be checked.

    Raises:
        MissingDataError: there is no such file.
        DataError: it cannot be read, has another number of values, or values that are not finite.
    """
    file = Path(path)
    if not file.is_file():
        msg = f"score = 'file:{path}': there is no such file; allowed: a .npy file, or text"
        raise MissingDataError(msg)
    try:
        values = np.load(file, allow_pickle=False) if file.suffix == ".npy" else np.loadtxt(file)
        found = np.asarray(values, dtype=np.float64)
    except (ValueError, OSError, EOFError) as error:
        msg = f"score = 'file:{path}': cannot be read ({error}); allowed: .npy, or a number a line"
        raise DataError(msg) from error
    if found.ndim != 1 or not np.isfinite(found).all() or count not in (None, len(found)):
        wanted = "finite numbers" if count is None else f"{count} finite numbers, one an example"
        msg = f"score = 'file:{path}': has shape {list(found.shape)}; allowed: {wanted}"
        raise DataError(msg)
    return found


def file_fingerprint(path: str | Path) -> str:
    """Return the sha256 of a score file's values: two spellings of them are the same scores."""
    return hashlib.sha256(read_scores(path).astype("<f8").tobytes()).hexdigest()


SCORES.register("file:PATH")(
    Score(kind="file", doc="a user's own, as file:PATH", source="", compute=read_scores)
)
