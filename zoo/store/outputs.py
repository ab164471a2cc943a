"""Files and folders that a user names: whole or absent, and never in the place of something else.

Each is built in a hidden folder beside its place, ``.<name>.<host>.<pid>.<token>.tmp``, and moved
there by one rename or link. A failure removes the hidden folder; what a killed process left is
removed by the next one that writes the same name, and never in its way.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import NameTakenError
from zoo.paths import absolute
from zoo.store.files import (
    STRAY_SUFFIX,
    ensure_folder,
    fsync_folder,
    fsync_tree,
    link_new,
    store_errors,
    write_synced,
)

__all__ = [
    "FileKind",
    "check_output",
    "new_file",
    "new_folder",
    "output_errors",
    "refuse_existing",
    "remove_dead",
    "replaced_file",
    "write_output",
]

#: A hidden folder of another host is left over when nothing in it changed for so long.
_IDLE_S = 3600.0


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file that we write and may therefore write over.

    Args:
        words: what it is (``"a split"``).
        made: whether a file's content is of this kind, whole or damaged.
    """

    words: str
    made: Callable[[bytes], bool]


def output_errors(path: Path) -> contextlib.AbstractContextManager[None]:
    """Turn an OSError of a block into one :class:`StoreError` that names the output.

    Raises:
        StoreError: the block raised an OSError that is not one already.
    """
    return store_errors("write", path, note="")


def refuse_existing(path: Path) -> None:
    """Refuse to write over something; an empty folder is nothing.

    Raises:
        NameTakenError: there is a file or folder.
    """
    with output_errors(path):
        empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
        if os.path.lexists(path) and not empty:
            remove_dead(path)  # of one that was killed when it had made it
            msg = f"{path} exists already; remove it, or choose another path"
            raise NameTakenError(msg)


def check_output(path: str | os.PathLike[str], kind: FileKind) -> None:
    """Refuse to write over anything but an earlier file of the same kind, or an empty one.

    Raises:
        NameTakenError: something else is there.
        StoreError: it cannot be read.
    """
    where = absolute(path)
    with output_errors(where):
        if where.is_dir():
            msg = f"{where} is a folder; give the path of a file"
            raise NameTakenError(msg)
        if where.is_file():
            there = where.read_bytes()
            if there and not kind.made(there):
                msg = (
                    f"{where} exists and is not {kind.words} of phasezoo, so it is not replaced; "
                    "remove it, or choose another path"
                )
                raise NameTakenError(msg)


def write_output(path: str | os.PathLike[str], data: bytes, kind: FileKind) -> None:
    """Write a file, in the place of an earlier one of the same kind if there is one.

    Devices and pipes (``/dev/stdout``) are written to as they are.

    Raises:
        NameTakenError: something else is there, or another process made it in the meantime.
        StoreError: it cannot be written; what was there is as before.
    """
    where = absolute(path)
    check_output(where, kind)
    with output_errors(where):
        if os.path.lexists(where):
            where = where.resolve()  # a symbolic link stays one
            if where.exists() and not stat.S_ISREG(where.stat().st_mode):
                with where.open("wb") as device:
                    device.write(data)
                return
        there = where.exists()
    with _aside(where) as folder:
        part = folder / where.name
        write_synced(part, data)
        if there:
            part.replace(where)
        elif not link_new(part, where) and where.read_bytes() != data:
            raise _taken(where)
        fsync_folder(where.parent)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield where to build a file that becomes ``path`` when the block ends well.

    Raises:
        NameTakenError: something is there, or another process made it in the meantime.
        StoreError: it cannot be written.
    """
    refuse_existing(path)
    with _aside(path) as folder:
        part = folder / path.name
        yield part
        fsync_tree(folder)
        if path.is_dir():  # an empty one, until now
            path.rmdir()
        if not link_new(part, path):
            raise _taken(path)
        fsync_folder(path.parent)


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield where to build a file that replaces ``path`` when the block ends well.

    Raises:
        StoreError: it cannot be written.
    """
    with _aside(path) as folder:
        part = folder / path.name
        yield part
        fsync_tree(folder)
        part.replace(path)
        fsync_folder(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill that becomes ``path`` when the block ends well.

    Raises:
        NameTakenError: something is there, or another process made it in the meantime.
        StoreError: it cannot be written.
    """
    refuse_existing(path)
    with _aside(path) as folder:
        yield folder
        fsync_tree(folder)
        try:
            folder.rename(path)  # takes the place of nothing but an empty folder
        except OSError:
            if os.path.lexists(path):
                raise _taken(path) from None
            raise
        fsync_folder(path.parent)


def _taken(path: Path) -> NameTakenError:
    return NameTakenError(
        f"another process made {path} in the meantime; remove it, or choose another path"
    )


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside ``path``, which is gone when the block has ended."""
    with output_errors(path):
        ensure_folder(path.parent)
        remove_dead(path)
        mark = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        folder = path.with_name(f".{path.name}.{mark}{STRAY_SUFFIX}")
        folder.mkdir()
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # no locks here: the process id tells
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def remove_dead(path: Path) -> None:
    """Remove the hidden folders of processes that were killed while they wrote ``path``."""
    for stray in path.parent.glob(f".{glob.escape(path.name)}.*{STRAY_SUFFIX}"):
        mark = stray.name.removeprefix(f".{path.name}.").removesuffix(STRAY_SUFFIX)
        host, _, rest = mark.rpartition(".")[0].rpartition(".")
        if host and rest.isdecimal() and stray.is_dir() and _is_dead(stray, host, int(rest)):
            shutil.rmtree(stray, ignore_errors=True)


def _is_dead(folder: Path, host: str, pid: int) -> bool:
    here = host == socket.gethostname()
    if here and _runs(pid):
        return False
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return here
    finally:
        os.close(handle)
    return here or time.time() - _changed(folder) > _IDLE_S


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _changed(folder: Path) -> float:
    """Return when something in a folder changed last, seconds since 1970."""
    times = [time.time()]
    with contextlib.suppress(OSError):
        times = [p.stat().st_mtime for p in (folder, *folder.rglob("*"))]
    return max(times)
