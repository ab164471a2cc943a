"""Resume states: the arrays that restart training bit for bit, as ``.npz`` without pickle."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError, StoreError
from zoo.store.commits import FileCheck
from zoo.store.files import checksum, read_bytes
from zoo.store.paths import StorePaths
from zoo.train.pause import PausePoint
from zoo.train.plan import Cohort, Task

__all__ = [
    "KEPT",
    "left_states",
    "open_bytes",
    "pack",
    "pause_bytes",
    "pause_place",
    "pause_problem",
    "read_pause",
    "read_resume",
    "remove_left",
    "remove_old",
    "seal_bytes",
    "unpack",
]

_LOG = logging.getLogger(__name__)
_NAME_BYTES = 16
_CRC_BYTES = 4

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
    if not check.fits(data):
        msg = f"{path} is not as it was written"
        raise StoreCorruptError(msg)
    return unpack(data)


def unpack(data: bytes) -> dict[str, NDArray[np.generic]]:
    """Return the arrays that :func:`pack` wrote.

    Raises:
        StoreCorruptError: it is no such file, or torn.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # whatever zip and numpy say of bytes that are not theirs
        msg = f"cannot be read as .npz ({error})"
        raise StoreCorruptError(msg) from error


def seal_bytes(data: bytes, name: str) -> bytes:
    """Return the content of a side file: its data, and at the end whose it is, checked.

    Zip readers pass over what comes after the archive.
    """
    whose = hashlib.sha256(name.encode()).digest()[:_NAME_BYTES]
    return data + whose + checksum(data + whose).to_bytes(_CRC_BYTES, "little")


def open_bytes(data: bytes, name: str | None) -> bytes:
    """Return the data of a side file.

    Args:
        data: the content of the file.
        name: whose it must be; None = anyone's.

    Raises:
        StoreCorruptError: it is not as it was written, or another's.
    """
    body, whose = data[: -_NAME_BYTES - _CRC_BYTES], data[-_NAME_BYTES - _CRC_BYTES : -_CRC_BYTES]
    if checksum(data[:-_CRC_BYTES]).to_bytes(_CRC_BYTES, "little") != data[-_CRC_BYTES:]:
        msg = "does not match its checksum"
        raise StoreCorruptError(msg)
    if name is not None and whose != hashlib.sha256(name.encode()).digest()[:_NAME_BYTES]:
        msg = "is another's, in its place"
        raise StoreCorruptError(msg)
    return body


def _pause_name(cohort: Cohort, task: Task) -> str:
    return "\0".join(["pause", *cohort.run_ids[task.start : task.stop]])


def pause_bytes(cohort: Cohort, task: Task, point: PausePoint) -> bytes:
    """Return the content of the file that holds a point between two checkpoints."""
    place = np.array([point.index, point.group, point.offset], dtype=np.int64)
    return seal_bytes(pack({**point.arrays, "place": place}), _pause_name(cohort, task))


def pause_place(paths: StorePaths, task: Task) -> tuple[int, int, int] | None:
    """Return how far a task was saved between checkpoints: index, group, offset."""
    point = _read_pause(paths, task, None)
    return None if point is None else point.progress


def _read_pause(paths: StorePaths, task: Task, name: str | None) -> PausePoint | None:
    try:
        data = paths.pause(task).read_bytes()
    except OSError:
        return None
    try:
        arrays = unpack(open_bytes(data, name))
        index, group, offset = (int(value) for value in arrays.pop("place"))
    except (StoreCorruptError, KeyError, ValueError, TypeError) as error:
        _LOG.warning("%s %s; it is ignored", paths.pause(task), error)
        return None
    return PausePoint(index, group, offset, arrays)


def read_pause(paths: StorePaths, cohort: Cohort, task: Task, index: int) -> PausePoint | None:
    """Return what was saved on the way to checkpoint ``index``, or None if there is nothing whole.

    A damaged file, or another task's, is ignored; training then resumes from the checkpoint before.
    """
    point = _read_pause(paths, task, _pause_name(cohort, task))
    return point if point is not None and point.index == index else None


def pause_problem(paths: StorePaths, cohort: Cohort, task: Task) -> str | None:
    """Return what is wrong with the file between two checkpoints, a clause; None if it is sound."""
    try:
        open_bytes(paths.pause(task).read_bytes(), _pause_name(cohort, task))
    except FileNotFoundError:
        return None
    except (StoreCorruptError, OSError) as error:
        return str(error)
    return None


def left_states(paths: StorePaths, task: Task) -> list[Path]:
    """Return the states of a complete task: nothing resumes from them."""
    if not paths.seal(task).exists():
        return []
    found = [p for p in paths.task(task).glob("*.npz") if p.stem.isdecimal()]
    return [*found, *([paths.pause(task)] if paths.pause(task).exists() else [])]


def remove_left(paths: StorePaths, task: Task) -> list[Path]:
    """Delete the states of a complete task, and return which there were."""
    found = left_states(paths, task)
    for path in found:
        path.unlink(missing_ok=True)
    return found


def remove_old(paths: StorePaths, task: Task, before: int) -> None:
    """Delete the resume states of checkpoints before ``before``."""
    for path in paths.task(task).glob("*.npz"):
        if path.stem.isdecimal() and int(path.stem) < before:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
