"""Leases: who owns a task across hosts, where a file lock may hold on one host only.

A lease is a numbered file in a folder; the owner is who made the newest one. It is made with
``O_EXCL``, so of two that want the same number one gets it, on every shared file system. Its owner
rewrites it every few seconds (the heartbeat). Somebody else takes over by making the next number,
and only when the newest lease was given back, when its owner is seen to be dead, when it does not
match its checksum, or when the one who waits has watched it for its whole term, by a clock that
nobody sets, and saw no change. The clocks of two hosts are never compared to decide this: they may
be minutes apart.

An owner that wakes up too late (stopped, swapped out, cut off) knows by its own clock that its
term may have passed. It then makes the next number itself before it writes anything more: either
that succeeds, and nobody took over, or it fails, and it is the owner no longer
(:class:`LeaseLostError`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import StoreBusyError
from zoo.store.files import ensure_folder, store_errors
from zoo.store.lease_view import (
    TERM_S,
    LeaseView,
    forget_sight,
    host,
    lease_bytes,
    newest_lease,
    numbers,
    processes,
    started,
    term_s,
)

__all__ = [
    "HeldLease",
    "LeaseLostError",
    "LeaseView",
    "acquire_lease",
    "forget_leases",
    "newest_lease",
    "term_s",
]

_LOG = logging.getLogger(__name__)
#: Heartbeats in a term.
_BEATS = 6
#: The part of a term after which an owner that could not beat no longer trusts its lease.
_TRUST = 0.5


class LeaseLostError(StoreBusyError):
    """Somebody else has taken over what this process owned."""


def _now() -> float:
    """Return a clock (s) that also runs while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def acquire_lease(folder: Path, *, flock: bool) -> HeldLease | None:
    """Return a new lease, or None while somebody else's may be alive.

    Call it again later in the same process: it remembers since when it has seen no heartbeat.

    Args:
        folder: of the leases; made where it is missing.
        flock: whether the caller holds a file lock that keeps all others of this host away.

    Raises:
        StoreError: the file system does not let us write.
    """
    with store_errors("make a lease in", folder):
        ensure_folder(folder)
        before = newest_lease(folder, locked=False if flock else None)
        if before is not None and not before.stale:
            return None
        if before is not None and before.damaged:
            place = folder / str(before.number)
            _LOG.warning("%s is damaged: it counts as nobody's, and the next is made", place)
        lease = HeldLease(folder, flock=flock)
        if not lease.take((before.number if before else 0) + 1):
            return None
    forget_sight(folder)
    _HEART.add(lease)
    return lease


@dataclass(slots=True, eq=False)
class HeldLease:
    """A lease of this process; :func:`acquire_lease` makes it.

    Args:
        folder: of the leases.
        flock: whether a file lock is held with it.
        number: its number.
        term: how long it lives without a heartbeat (s).
    """

    folder: Path
    flock: bool
    number: int = 0
    _handle: int = -1
    _beat: int = 0
    _confirmed: float = 0.0
    term: float = field(default_factory=term_s)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def take(self, number: int) -> bool:
        """Make the lease of this number; return False if somebody else was quicker."""
        now = _now()
        place = self.folder / str(number)
        try:
            handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        self.forget()
        self.number, self._handle = number, handle
        try:
            self._write(released=False)
        except OSError:  # an empty lease would look like somebody's
            self.forget()
            with contextlib.suppress(OSError):
                place.unlink()
            raise
        self._confirmed = now
        if self._succeeded():  # by one who saw more than we did
            self.forget()
            return False
        for old in numbers(self.folder)[:-1]:
            with contextlib.suppress(OSError):
                (self.folder / str(old)).unlink()
        return True

    def _write(self, *, released: bool) -> None:
        name, kernel = host()
        self._beat += 1
        body: dict[str, Any] = {
            "host": name,
            "pid": os.getpid(),
            "job": os.environ.get("ZOO_JOB", ""),
            "beat": self._beat,
            "time": time.time(),
            "term_s": self.term,
            "flock": self.flock,
            "released": released,
            "started": started(os.getpid()),
            "kernel": kernel,
            "processes": processes(),
        }
        os.pwrite(self._handle, lease_bytes(self.folder / str(self.number), body), 0)
        os.fsync(self._handle)

    def _succeeded(self) -> bool:
        return numbers(self.folder)[-1:] != [self.number]

    def beat(self) -> None:
        """Say that we live; a failure shows in :meth:`check`, when the term runs out."""
        with self._lock:
            now = _now()
            if self._handle < 0 or self._due_for_renewal(now):
                return
            with contextlib.suppress(OSError):
                self._write(released=False)
                self._confirmed = now

    def _due_for_renewal(self, now: float) -> bool:
        return now - self._confirmed > _TRUST * self.term

    def check(self) -> None:
        """Make sure that we are still the owner; called right before each write.

        Raises:
            LeaseLostError: somebody else has taken over.
        """
        with self._lock:
            if self._handle >= 0 and not self._succeeded():
                if not self._due_for_renewal(_now()):
                    return
                with store_errors("renew the lease in", self.folder):
                    if self.take(self.number + 1):
                        return
        msg = (
            f"another process has taken over {self.folder}: no heartbeat of this one (process"
            f" {os.getpid()} on {host()[0]}) was seen for {self.term:g} s; nothing was written"
        )
        raise LeaseLostError(msg)

    def release(self) -> None:
        """Give it back, if it is ours still."""
        _HEART.remove(self)
        with self._lock:
            if self._handle < 0:
                return
            with contextlib.suppress(OSError):
                if not self._succeeded():
                    self._write(released=True)
            self.forget()

    def forget(self) -> None:
        """Close the file without a word; for a forked child."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class _Heart:
    """One thread a process that beats for every lease held."""

    def __init__(self) -> None:
        self.leases: set[HeldLease] = set()
        self.lock = threading.Lock()
        self.wake = threading.Event()
        self.thread: threading.Thread | None = None

    def add(self, lease: HeldLease) -> None:
        with self.lock:
            self.leases.add(lease)
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self._run, name="zoo-leases", daemon=True)
                self.thread.start()
        self.wake.set()

    def remove(self, lease: HeldLease) -> None:
        with self.lock:
            self.leases.discard(lease)

    def _run(self) -> None:
        while True:
            with self.lock:
                leases = list(self.leases)
            pause = min((lease.term for lease in leases), default=TERM_S) / _BEATS
            if self.wake.wait(pause):
                self.wake.clear()
                continue
            for lease in leases:
                lease.beat()


_HEART = _Heart()


def forget_leases() -> None:
    """Forget every lease; a forked child calls it, whose parent keeps them."""
    for lease in _HEART.leases:
        lease.forget()
    _HEART.__init__()  # type: ignore[misc]
