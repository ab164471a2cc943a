"""Files that are whole or absent: write aside, fsync, rename, fsync the folder.

A rename within one file system replaces a name at once, so a reader sees the old file or the new
one, never a part. The fsyncs make it durable against a crash of the machine, not of the process
alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c

from zoo.errors import StoreCorruptError, StoreError

__all__ = [
    "STRAY_SUFFIX",
    "checksum",
    "ensure_folder",
    "fsync_folder",
    "fsync_tree",
    "read_bytes",
    "remove_strays",
    "store_errors",
    "write_atomic",
]

#: A file with this ending was never finished. Readers ignore it.
STRAY_SUFFIX = ".tmp"

_ADVICE = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "the quota is used up; free some space and run again",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.EROFS: "the file system is mounted read-only",
}


@contextlib.contextmanager
def store_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError of the block into one :class:`StoreError` that says what failed and where.

    Args:
        action: what was being done, as a verb (``"write"``).
        path: the file or folder.

    Raises:
        StoreError: the block raised an OSError that is not one already.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "")
        why = error.strerror or str(error)
        msg = f"cannot {action} {path}: {why}; everything committed before is kept"
        raise StoreError(f"{msg}; {advice}" if advice else msg) from error


def checksum(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of ``data``."""
    return int(google_crc32c.value(data))


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def ensure_folder(folder: Path) -> None:
    """Create a folder and the parents that it lacks, each made durable in its own parent."""
    if folder.is_dir():
        return
    ensure_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


def write_atomic(
    path: Path,
    data: bytes,
    *,
    staging: Path | None = None,
    guard: Callable[[], None] = lambda: None,
) -> None:
    """Write a file that is there whole, or not at all, and durable when this returns.

    Args:
        path: the file; its folder is created where it is missing.
        data: its content.
        staging: where the unfinished file stands, on the same file system; next to ``path`` by
            default.
        guard: called right before the name changes; an error of it leaves ``path`` as it was.

    Raises:
        StoreError: the disk is full, the folder is read-only, ...; ``path`` is then as before.
    """
    with store_errors("write", path):
        ensure_folder(path.parent)
        temporary = (staging or path.parent) / f"{path.name}.{uuid.uuid4().hex}{STRAY_SUFFIX}"
        try:
            _write_synced(temporary, data)
            guard()
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        fsync_folder(path.parent)


def _write_synced(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Make every file and folder under ``folder`` durable."""
    for parent, _, names in os.walk(folder):
        for name in names:
            handle = os.open(Path(parent, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        fsync_folder(Path(parent))


def read_bytes(path: Path) -> bytes:
    """Return a committed file's content.

    Raises:
        StoreCorruptError: the file is not there.
        StoreError: it cannot be read.
    """
    with store_errors("read", path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            msg = f"{path} is missing, though it was committed; run `zoo verify`"
            raise StoreCorruptError(msg) from None


def remove_strays(folder: Path) -> None:
    """Delete the unfinished files and folders under ``folder``."""
    for stray in list(folder.rglob(f"*{STRAY_SUFFIX}")):
        if stray.is_dir():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                stray.unlink()
