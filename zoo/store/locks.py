"""Who owns a task: a file lock, which the kernel releases when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from zoo.store.files import store_errors
from zoo.store.paths import StorePaths
from zoo.train.plan import Task

__all__ = ["claim_task", "hold", "is_held", "owned_here"]

#: A reader's look at a lock takes it for an instant, so a claim tries more than once.
_ATTEMPTS = 4
_PAUSE_S = 0.02

#: Handles of the locks that this process holds, by file.
_HELD: dict[Path, int] = {}


def _forget_after_fork() -> None:
    # A child that outlived its parent would otherwise keep the parent's tasks.
    for handle in _HELD.values():
        os.close(handle)
    _HELD.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Hold the lock on ``path`` for the block.

    Yields:
        True if the lock is ours, False if another holder has it.

    Raises:
        StoreError: the lock file cannot be written.
    """
    key = path.resolve()
    if key in _HELD:
        yield False
        return
    with store_errors("lock", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    owned = False
    try:
        with store_errors("lock", path):
            owned = _try_lock(handle)
        if owned:
            _HELD[key] = handle
            _sign(handle)
        yield owned
    finally:
        if _HELD.get(key) == handle:
            del _HELD[key]
            os.close(handle)
        elif not owned:
            os.close(handle)


def _try_lock(handle: int) -> bool:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def _sign(handle: int) -> None:
    """Write who holds the lock, for people; nothing reads it, so a full disk does not matter."""
    who = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(who).encode() + b"\n", 0)


def is_held(path: Path) -> bool:
    """Return whether a live process holds the lock on ``path``; changes nothing."""
    if path.resolve() in _HELD:
        return True
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def owned_here(path: str | PathLike[str], task: Task) -> bool:
    """Return whether this process owns the task."""
    return StorePaths(Path(path)).lock(task).resolve() in _HELD


@contextlib.contextmanager
def claim_task(path: str | PathLike[str], task: Task) -> Iterator[bool]:
    """Own a task for the block.

    The lock is released when the block ends or the process dies. Shared file systems must have
    file locks switched on (NFS does since version 4; Lustre needs the mount option ``flock``).

    Args:
        path: the store.
        task: one of its plan's tasks.

    Yields:
        True if this process now owns the task, False if another live owner has it.

    Raises:
        StoreError: the lock file cannot be written.
    """
    with hold(StorePaths(Path(path)).lock(task)) as owned:
        yield owned
