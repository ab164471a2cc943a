"""Who owns a task: a file lock, which the kernel releases when its holder dies, and a lease.

The lock is quick and certain, but on some shared file systems it holds on one host only, or is not
there at all. The lease (:mod:`zoo.store.leases`) holds across hosts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

from zoo.errors import StoreBusyError, StoreMissingError
from zoo.store.files import store_errors
from zoo.store.leases import HeldLease, LeaseView, acquire_lease, forget_leases, newest_lease
from zoo.store.paths import StorePaths
from zoo.train.plan import Task

__all__ = [
    "check_owned",
    "claim_task",
    "hold",
    "hold_patiently",
    "is_held",
    "owned_here",
    "task_lease",
    "watch_leases",
]

#: A reader's look at a lock takes it for an instant, so a claim tries more than once.
_ATTEMPTS = 4
_PAUSE_S = 0.02
#: Seconds between two looks at a lease that may have been left behind.
_BETWEEN_LOOKS_S = 0.1

#: What flock says on a file system that has no locks.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}

#: Handles of the locks that this process holds, by file.
_HELD: dict[Path, int] = {}
#: The leases that go with them.
_LEASES: dict[Path, HeldLease] = {}


def _forget_after_fork() -> None:
    # A child that outlived its parent would otherwise keep the parent's tasks.
    for handle in _HELD.values():
        os.close(handle)
    _HELD.clear()
    _LEASES.clear()
    forget_leases()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextlib.contextmanager
def hold(path: Path, *, leased: bool = False) -> Iterator[bool]:
    """Hold the lock on ``path`` for the block.

    Args:
        path: the lock file.
        leased: whether to hold a lease with it; where the file system has no locks, and where
            ``ZOO_LOCKS=lease`` says so, there is always one, and no lock.

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
        _check_there(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    owned, process = False, os.getpid()
    try:
        with store_errors("lock", path):
            locked = _try_lock(handle)
        owned = locked is not False
        if owned and (leased or locked is None):
            lease = acquire_lease(_lease_folder(path), flock=locked is True)
            owned = lease is not None
            if lease is not None:
                _LEASES[key] = lease
        if owned:
            _HELD[key] = handle
            _sign(handle)
        yield owned
    finally:
        if _HELD.get(key) == handle:
            if key in _LEASES:
                _LEASES.pop(key).release()
            del _HELD[key]
        if os.getpid() == process:  # a forked child has closed it already
            os.close(handle)


@contextlib.contextmanager
def hold_patiently(path: Path, *, leased: bool = False, patience_s: float = 0.0) -> Iterator[bool]:
    """Hold the lock on ``path`` for the block; wait for it where that can help.

    A lease that another host left behind is free only after somebody has watched it for its term,
    so who asks once and leaves would never get it.

    Args:
        path: the lock file.
        leased: as for :func:`hold`.
        patience_s: how long to wait for an owner who is alive.

    Yields:
        True if the lock is ours, False if another holder has it and is alive.

    Raises:
        StoreError: the lock file cannot be written.
    """
    end = time.monotonic() + patience_s
    while True:
        with hold(path, leased=leased) as owned:
            if owned:
                yield True
                return
        if time.monotonic() >= end and not _may_be_left_behind(path):
            yield False
            return
        time.sleep(_BETWEEN_LOOKS_S)


def _may_be_left_behind(path: Path) -> bool:
    """Return whether trying again may help: nobody is known to be alive."""
    if path.resolve() in _HELD or is_held(path):
        return False
    lease = newest_lease(_lease_folder(path), locked=False)
    return lease is None or lease.stale or not lease.beating


def watch_leases(path: str | PathLike[str], tasks: Iterable[Task]) -> None:
    """Watch leases until each has changed, was given back, or was silent for its term.

    What :func:`task_lease` says afterwards in this process rests on having looked, not on clocks.

    Args:
        path: the store.
        tasks: whose leases.
    """
    left = list(tasks)
    while left:
        views = [(task, task_lease(path, task)) for task in left]
        left = [t for t, v in views if v is not None and not v.stale and not v.beating]
        if left:
            time.sleep(_BETWEEN_LOOKS_S)


def _check_there(path: Path) -> None:
    """Refuse to make a lock in a store that is gone: it would be the skeleton of one.

    Raises:
        StoreMissingError: the store was deleted or renamed.
    """
    records = next((parent for parent in path.parents if parent.name == "_zoo"), None)
    if records is not None and not records.is_dir():
        msg = f"{records.parent} is not there any more: it was deleted or renamed"
        raise StoreMissingError(msg)


def _lease_folder(path: Path) -> Path:
    return path.with_suffix(".lease")


def _try_lock(handle: int) -> bool | None:
    """Return whether the lock is ours; None where there are no locks."""
    if os.environ.get("ZOO_LOCKS") == "lease":
        return None
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return None
            raise
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
    except OSError:  # no locks here: the lease tells
        return False
    finally:
        os.close(handle)
    return False


def task_lease(path: str | PathLike[str], task: Task) -> LeaseView | None:
    """Return the newest lease of a task, or None if nobody ever owned it; changes nothing."""
    lock = StorePaths(Path(path)).lock(task)
    return newest_lease(_lease_folder(lock), locked=is_held(lock))


def check_owned(path: Path) -> None:
    """Make sure that the lock on ``path`` is ours still; called right before each write.

    Raises:
        LeaseLostError: another host has taken over.
        StoreBusyError: it never was ours.
    """
    key = path.resolve()
    if key not in _HELD:
        msg = f"this process does not hold {path}"
        raise StoreBusyError(msg)
    if key in _LEASES:
        _LEASES[key].check()


def owned_here(path: str | PathLike[str], task: Task) -> bool:
    """Return whether this process owns the task."""
    return StorePaths(Path(path)).lock(task).resolve() in _HELD


@contextlib.contextmanager
def claim_task(path: str | PathLike[str], task: Task, *, patient: bool = False) -> Iterator[bool]:
    """Own a task for the block.

    The lock is released when the block ends or the process dies; across hosts another process may
    take over after it has watched the lease for its term (90 s) and saw no heartbeat.

    Args:
        path: the store.
        task: one of its plan's tasks.
        patient: whether to watch a lease that a dead host may have left, for up to its term. False
            for a caller that comes back: what it saw is remembered.

    Yields:
        True if this process now owns the task, False if another live owner has it.

    Raises:
        StoreError: the lock file cannot be written.
    """
    take = hold_patiently if patient else hold
    with take(StorePaths(Path(path)).lock(task), leased=True) as owned:
        yield owned
