"""Resume states: the arrays that restart training bit for bit, as ``.npz`` without pickle."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError, StoreError
from zoo.store.commits import FileCheck
from zoo.store.files import checksum, read_bytes
from zoo.store.paths import StorePaths
from zoo.train.pause import PausePoint
from zoo.train.plan import Task

__all__ = ["KEPT", "pack", "pause_place", "read_pause", "read_resume", "remove_old"]

#: How many resume states of a task stay.
KEPT = 2


def pack(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the content of the file; equal arrays give equal bytes.

    Raises:
        StoreError: an array of Python objects, which only a pickle could hold.
    """
    bad = [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if bad:
        msg = f"resume arrays {bad} hold Python objects; allowed: plain numeric arrays"
        raise StoreError(msg)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asarray(arrays[name]), allow_pickle=False)
            # The default date of a ZipInfo is fixed, so that the bytes do not depend on the clock.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data.getvalue())
    return buffer.getvalue()


def read_resume(
    paths: StorePaths, task: Task, k: int, check: FileCheck
) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a resume state.

    Raises:
        StoreCorruptError: missing, or not as it was written.
    """
    path = paths.resume(task, k)
    data = read_bytes(path)
    if len(data) != check.bytes or checksum(data) != check.crc32c:
        msg = f"{path} is not as it was written"
        raise StoreCorruptError(msg)
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def pause_place(paths: StorePaths, task: Task) -> tuple[int, int, int] | None:
    """Return how far a task was saved between checkpoints: index, group, offset."""
    try:
        with np.load(paths.pause(task), allow_pickle=False) as archive:
            index, group, offset = (int(value) for value in archive["place"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return index, group, offset


def read_pause(paths: StorePaths, task: Task, index: int) -> PausePoint | None:
    """Return what was saved on the way to checkpoint ``index``, or None if there is nothing whole.

    Members of an ``.npz`` have checksums, so a damaged file is seen; training then goes on at the
    checkpoint before.
    """
    path = paths.pause(task)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        found, group, offset = (int(value) for value in arrays.pop("place"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return PausePoint(found, group, offset, arrays) if found == index else None


def remove_old(paths: StorePaths, task: Task, before: int) -> None:
    """Delete the resume states of checkpoints before ``before``."""
    for path in paths.resume_folder(task).glob("*.npz"):
        if path.stem.isdecimal() and int(path.stem) < before:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
