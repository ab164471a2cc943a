"""Loading a data set by name, once a process."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.data.base import DATASETS, WINDOW_OPTIONS, Dataset, make_dataset
from zoo.data.files import find_path
from zoo.errors import no_such

__all__ = ["load"]

#: A file younger than this may be written again within a tick of the file system's clock.
_YOUNG_NS = 2_000_000_000
#: Where the files of a data set lie in its folder.
_WITHIN = ("*", "*/*", "*/raw/*")


def load(name: str, *, path: str | os.PathLike[str] | None = None, **options: Any) -> Dataset:
    """Return a data set, raw and in its published order; read once a process.

    Args:
        name: a registered name, or ``npz:NAME``.
        path: where its files are. Where it is not given, the environment variable
            ``ZOO_DATA_<NAME>`` and the place of the system package are tried.
        options: the data set's own fields (``context`` of an ``npz:NAME``); each that is not given
            has its default.

    Raises:
        UnknownNameError: no such data set, or it has no such option.
        MissingDataError: its files are not there; the message says how to get them.
        DataError: the files are not what they should be.

    Example:
        >>> digits = load("digits")
        >>> digits.train_x.shape, digits.test_x.shape, digits.classes
        ((1437, 1, 8, 8), (360, 1, 8, 8), 10)
    """
    about = DATASETS[name]
    unknown = [option for option in options if option not in about.options]
    if unknown:
        raise no_such(unknown[0], f"option of the data set {name!r}", list(about.options))
    defaults = {option: field.default for option, field in about.options.items()}
    own = tuple({**defaults, **options}.items())
    found = find_path(about, path)
    return _load(name, found, () if found is None else _stamp(found), own)


def _stamp(path: Path) -> tuple[object, ...]:
    """Return what changes when a file, or one in a folder, is written anew.

    Of a file that was written a moment ago the clock may not tell a second writing, so such a file
    is never taken from memory.
    """
    files = sorted(f for p in _WITHIN for f in path.glob(p)) if path.is_dir() else [path]
    states = [file.stat() for file in files if file.is_file()]
    young = any(time.time_ns() - state.st_mtime_ns < _YOUNG_NS for state in states)
    stamp = tuple((s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_size) for s in states)
    return (*stamp, time.monotonic_ns()) if young else stamp


@lru_cache(maxsize=8)
def _load(
    name: str, path: Path | None, stamp: tuple[object, ...], options: tuple[tuple[str, Any], ...]
) -> Dataset:
    """Read a data set; ``stamp`` keeps a file that was replaced from being served from memory."""
    about = DATASETS[name]
    cut = {option: value for option, value in options if option in WINDOW_OPTIONS}
    own = {option: value for option, value in options if option not in WINDOW_OPTIONS}
    return make_dataset(about, about.read(path, **own), **cut)
