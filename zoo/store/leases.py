"""Leases: who owns a task across hosts, where a file lock may hold on one host only.

A lease is a numbered file in a folder; the owner is who made the newest one. It is made with
``O_EXCL``, so of two that want the same number one gets it, on every shared file system. Its owner
rewrites it every few seconds (the heartbeat). Somebody else takes over by making the next number,
and only when the newest lease was given back, when its owner is seen to be dead, or when it did not
change for its whole term, by the clock of the one who waits: clocks of hosts are never compared.

An owner that wakes up too late (stopped, swapped out, cut off) knows by its own clock that its
term may have passed. It then makes the next number itself before it writes anything more: either
that succeeds, and nobody took over, or it fails, and it is the owner no longer
(:class:`LeaseLostError`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import StoreBusyError
from zoo.store.files import ensure_folder, store_errors

__all__ = [
    "HeldLease",
    "LeaseLostError",
    "LeaseView",
    "acquire_lease",
    "forget_leases",
    "newest_lease",
    "term_s",
]

#: Seconds without a heartbeat after which a lease may be taken over. Above the 60 s for which an
#: NFS client may believe in an old state of a file.
TERM_S = 90.0
#: Heartbeats in a term.
_BEATS = 6
#: The part of a term after which an owner that could not beat no longer trusts its lease.
_TRUST = 0.5
#: Terms after which a lease that nobody watched is stale all the same, by the file's date.
_LONG_STALE = 4.0
#: Bytes of a lease file, always the same, so that a heartbeat needs no new block.
_SIZE = 1024

#: First sight of each foreign lease: folder → (content, when).
_SEEN: dict[Path, tuple[bytes, float]] = {}


class LeaseLostError(StoreBusyError):
    """Somebody else has taken over what this process owned."""


def term_s() -> float:
    """Return the term of new leases (s): ``ZOO_LEASE_S``, or 90."""
    try:
        return max(float(os.environ["ZOO_LEASE_S"]), 0.1)
    except (KeyError, ValueError):
        return TERM_S


def _now() -> float:
    """Return a clock (s) that also runs while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@cache
def _kernel() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()


@cache
def _processes() -> str:
    """Return the namespace in which process ids mean something."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _host() -> tuple[str, str]:
    """Return the name of this host, and what no other host has; file locks hold on one kernel."""
    named = os.environ.get("ZOO_HOST_ID", "")  # emulated hosts share a kernel
    return named or socket.gethostname(), f"{_kernel()} {named}".strip()


def _started(pid: int) -> str:
    """Return when a process of this host started, in the kernel's ticks; empty if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease as a reader finds it.

    Args:
        number: its number.
        host, pid, job: who made it; ``job`` is the scheduler's name for it, or empty.
        released: whether it was given back.
        age_s: seconds since it was last written, by the file's date and this host's clock.
        term_s: how long it lives without a heartbeat.
        here: whether it was made on this host.
        dead: whether its owner is seen to be gone; False also where that cannot be seen.
        raw: its bytes.
    """

    number: int
    host: str
    pid: int
    job: str
    released: bool
    age_s: float
    term_s: float
    here: bool
    dead: bool
    raw: bytes

    @property
    def alive(self) -> bool:
        """Whether its owner seems to be at work; another host's clock may be off a little."""
        return not self.released and not self.dead and self.age_s < self.term_s


def _numbers(folder: Path) -> list[int]:
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def newest_lease(folder: Path, *, locked: bool | None = None) -> LeaseView | None:
    """Return the newest lease of a folder, or None if there is none; changes nothing.

    Args:
        folder: of the leases.
        locked: whether a file lock that works on this host says that its owner lives; None = no
            lock was asked.
    """
    for number in reversed(_numbers(folder)):
        try:
            raw = (folder / str(number)).read_bytes()
            age = max(time.time() - (folder / str(number)).stat().st_mtime, 0.0)
        except FileNotFoundError:  # its owner put the next one in its place just now
            continue
        return _view(number, raw, age, locked=locked)
    return None


def _view(number: int, raw: bytes, age: float, *, locked: bool | None) -> LeaseView:
    try:
        body = json.loads(raw)
    except ValueError:  # in the middle of its first heartbeat
        body = {}
    here = body.get("kernel") == _host()[1]
    dead = False
    if here and body.get("flock") and locked is not None:
        dead = not locked
    elif here and body.get("processes") == _processes() and body.get("started"):
        dead = _started(int(body["pid"])) != body["started"]
    return LeaseView(
        number=number,
        host=str(body.get("host", "?")),
        pid=int(body.get("pid", 0)),
        job=str(body.get("job", "")),
        released=bool(body.get("released", False)),
        age_s=age,
        term_s=float(body.get("term_s", TERM_S)),
        here=here,
        dead=dead,
        raw=raw,
    )


def _stale(folder: Path, view: LeaseView) -> bool:
    """Return whether a foreign lease has not changed for its term, as far as we have watched."""
    if view.released or view.dead:
        return True
    now = _now()
    content, since = _SEEN.get(folder, (None, now))
    if content != view.raw:
        _SEEN[folder] = (view.raw, now)
        since = now
    return now - since > view.term_s or view.age_s > _LONG_STALE * view.term_s


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
        if before is not None and not _stale(folder, before):
            return None
        lease = HeldLease(folder, flock=flock)
        if not lease.take((before.number if before else 0) + 1):
            return None
    _SEEN.pop(folder, None)
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
        for old in _numbers(self.folder)[:-1]:
            with contextlib.suppress(OSError):
                (self.folder / str(old)).unlink()
        return True

    def _write(self, *, released: bool) -> None:
        host, kernel = _host()
        self._beat += 1
        body: dict[str, Any] = {
            "host": host,
            "pid": os.getpid(),
            "job": os.environ.get("ZOO_JOB", ""),
            "beat": self._beat,
            "time": time.time(),
            "term_s": self.term,
            "flock": self.flock,
            "released": released,
            "started": _started(os.getpid()),
            "kernel": kernel,
            "processes": _processes(),
        }
        os.pwrite(self._handle, json.dumps(body).encode().ljust(_SIZE), 0)
        os.fsync(self._handle)

    def _succeeded(self) -> bool:
        return _numbers(self.folder)[-1:] != [self.number]

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
            f" {os.getpid()} on {_host()[0]}) was seen for {self.term:g} s; nothing was written"
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
    """Forget every lease; a forked child calls it, whose parent goes on holding them."""
    for lease in _HEART.leases:
        lease.forget()
    _HEART.__init__()  # type: ignore[misc]
