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
    "disk_message",
    "ensure_folder",
    "file_checksum",
    "fsync_folder",
    "fsync_tree",
    "is_disk_error",
    "link_new",
    "read_bytes",
    "remove_strays",
    "store_errors",
    "write_atomic",
    "write_new",
    "write_synced",
]

#: A file with this ending was never finished. Readers ignore it.
STRAY_SUFFIX = ".tmp"

_ADVICE = {
    errno.ENOSPC: "free some space there and run again",
    errno.EDQUOT: "the quota is used up: free some space and run again",
    errno.EFBIG: "files must be smaller there; `ulimit -f` shows this shell's own limit",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.EROFS: "the file system is mounted read-only: choose another one",
}
#: What ``os.link`` says on a file system that has no hard links.
_NO_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))
_READ_BYTES = 8 << 20


def is_disk_error(error: OSError) -> bool:
    """Return whether an error is the disk's, or a right to it: one that has an advice."""
    return error.errno in _ADVICE


def disk_message(action: str, path: Path | str, error: OSError, *note: str) -> str:
    """Return the message of a failed write: what failed, where, why, and what to do.

    Args:
        action: what was being done, as a verb (``"write"``).
        path: the file or folder.
        error: what the system said.
        note: further clauses, before the advice.
    """
    why = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0, "")
    return "; ".join(part for part in (f"cannot {action} {path}: {why}", *note, advice) if part)


@contextlib.contextmanager
def store_errors(
    action: str, path: Path, *, note: str = "everything committed before is kept"
) -> Iterator[None]:
    """Turn an OSError of the block into one :class:`StoreError` that says what failed and where.

    Args:
        action: what was being done, as a verb (``"write"``).
        path: the file or folder.
        note: what holds nevertheless.

    Raises:
        StoreError: the block raised an OSError that is not one already.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(disk_message(action, path, error, note)) from error


def checksum(data: bytes, before: int = 0) -> int:
    """Return the CRC-32C (Castagnoli) of ``data``, after what has the checksum ``before``."""
    return int(google_crc32c.extend(before, data))


def file_checksum(path: Path) -> int:
    """Return the CRC-32C of a file, read piece by piece."""
    found = 0
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            found = checksum(data, found)
    return found


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
            write_synced(temporary, data)
            guard()
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        fsync_folder(path.parent)


def write_new(path: Path, data: bytes, *, staging: Path | None = None) -> bool:
    """Write a file, whole and durable, unless there is one of its name.

    Of several processes that write the same name at once, one wins. On file systems without hard
    links a kill can leave a part of the file.

    Args:
        path: the file; its folder is created where it is missing.
        data: its content.
        staging: where the unfinished file stands, as in :func:`write_atomic`.

    Returns:
        Whether this call made the file.

    Raises:
        StoreError: the disk is full, the folder is read-only, ...
    """
    with store_errors("write", path):
        ensure_folder(path.parent)
        temporary = (staging or path.parent) / f"{path.name}.{uuid.uuid4().hex}{STRAY_SUFFIX}"
        try:
            write_synced(temporary, data)
            made = link_new(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        fsync_folder(path.parent)
    return made


def link_new(file: Path, path: Path) -> bool:
    """Give a whole file the name ``path`` as well, unless that is taken; return whether it was not.

    On file systems without hard links it is copied.
    """
    try:
        os.link(file, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _copy_new(file, path)
    return True


def _copy_new(file: Path, path: Path) -> bool:
    try:
        target = path.open("xb")
    except FileExistsError:
        return False
    try:
        with target, file.open("rb") as source:
            shutil.copyfileobj(source, target, _READ_BYTES)
            target.flush()
            os.fsync(target.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return True


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and make its content durable."""
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
            msg = f"{path} is missing, though it was committed; run `zoo repair`"
            raise StoreCorruptError(msg) from None


def remove_strays(folder: Path) -> None:
    """Delete the unfinished files and folders under ``folder``."""
    for stray in list(folder.rglob(f"*{STRAY_SUFFIX}")):
        if stray.is_dir():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                stray.unlink()
