"""Loading a data set by name, once a process."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from zoo.data.base import DATASETS, Dataset, make_dataset
from zoo.data.files import find_path

__all__ = ["load"]


def load(name: str, *, path: str | os.PathLike[str] | None = None) -> Dataset:
    """Return a data set, raw and in its published order; read once a process.

    Args:
        name: a registered name, or ``npz:NAME``.
        path: where its files are. Where it is not given, the environment variable
            ``ZOO_DATA_<NAME>`` and the place of the system package are tried.

    Raises:
        UnknownNameError: no such data set.
        MissingDataError: its files are not there; the message says how to get them.
        DataError: the files are not what they should be.

    Example:
        >>> digits = load("digits")
        >>> digits.train_x.shape, digits.test_x.shape, digits.classes
        ((1437, 1, 8, 8), (360, 1, 8, 8), 10)
    """
    found = find_path(DATASETS[name], path)
    stamp = None
    if found is not None:
        status = found.stat()
        stamp = (status.st_mtime_ns, status.st_size)
    return _load(name, found, stamp)


@lru_cache(maxsize=8)
def _load(name: str, path: Path | None, stamp: tuple[int, int] | None) -> Dataset:
    """Read a data set; ``stamp`` keeps a file that was replaced from being served from memory."""
    about = DATASETS[name]
    return make_dataset(about, about.read(path))
