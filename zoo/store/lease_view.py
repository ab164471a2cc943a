"""What a reader finds of a lease: who owns it, since when it was watched, whether it beats.

Looking changes nothing on disk. This process remembers what it saw, and only that tells whether a
lease of another host is alive: dates and the clocks of other hosts may be wrong by any amount.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import StoreError
from zoo.store.records import parse_record, record_bytes

__all__ = [
    "TERM_S",
    "LeaseView",
    "damaged_leases",
    "forget_sight",
    "host",
    "lease_bytes",
    "newest_lease",
    "numbers",
    "processes",
    "started",
    "term_s",
]

#: Seconds without a heartbeat after which a lease may be taken over. Above the 60 s for which an
#: NFS client may believe in an old state of a file.
TERM_S = 90.0
#: The shortest and the longest term (s); what a damaged lease says beyond is not believed.
_TERMS = (0.1, 86_400.0)
#: Seconds of watching after which nobody is about to write into an empty lease: who makes one does
#: so at once, and finds out if it was too late.
_EMPTY_S = 5.0
#: Looks at a lease that seems damaged, and the pause between them (s): somebody may be writing it.
_LOOKS = 4
_PAUSE_S = 0.02
#: The most that is read of one.
_MAX_BYTES = 65_536
#: Bytes of a lease file, always the same, so that a heartbeat needs no new block.
_SIZE = 1024
_NUMBER = re.compile(r"[0-9]{1,18}")
#: The part of a term that one look can add to a watch: who slept between two looks has seen
#: nothing, and the first look after it may show a state that the file system had cached.
_LOOK = 0.5


@dataclass(slots=True)
class _Sight:
    """What this process has seen of a lease.

    Args:
        raw: its bytes.
        last: when it was last looked at.
        silent_s: seconds of watching without a change.
        beating: whether it was seen to change.
    """

    raw: bytes
    last: float
    silent_s: float = 0.0
    beating: bool = False


#: The leases that were looked at, by their folder's absolute path.
_SEEN: dict[Path, _Sight] = {}


def term_s() -> float:
    """Return the term of new leases (s): ``ZOO_LEASE_S``, or 90."""
    try:
        wanted = float(os.environ["ZOO_LEASE_S"])
    except (KeyError, ValueError):
        return TERM_S
    return TERM_S if math.isnan(wanted) else min(max(wanted, _TERMS[0]), _TERMS[1])


@cache
def _kernel() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()


@cache
def processes() -> str:
    """Return the namespace in which process ids mean something."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def host() -> tuple[str, str]:
    """Return the name of this host, and what no other host has; file locks hold on one kernel."""
    named = os.environ.get("ZOO_HOST_ID", "")  # emulated hosts share a kernel
    return named or socket.gethostname(), f"{_kernel()} {named}".strip()


def started(pid: int) -> str:
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
        age_s: seconds since it was last written, by the file's date and this host's clock: wrong by
            as much as the two clocks are apart.
        term_s: how long it lives without a heartbeat.
        here: whether it was made on this host.
        dead: whether its owner is seen to be gone; False also where that cannot be seen.
        damaged: whether it does not match its checksum, or is the lease of something else; it then
            has no owner.
        raw: its bytes.
        silent_s: seconds for which this process has watched it without a change; 0 at first sight.
        beating: whether this process has seen it change.
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
    damaged: bool
    raw: bytes
    silent_s: float = 0.0
    beating: bool = False

    @property
    def open(self) -> bool:
        """Whether it has an owner who is not seen to be gone."""
        return not (self.released or self.dead or self.damaged)

    @property
    def stale(self) -> bool:
        """Whether somebody else may take over: the only judgement that a takeover rests on."""
        return not self.open or self.silent_s > self.term_s

    @property
    def alive(self) -> bool:
        """Whether its owner seems to be at work, for people to read.

        Who has watched it knows; at first sight the file's date has to do.
        """
        if self.stale or self.beating:
            return not self.stale
        return self.age_s < self.term_s


def numbers(folder: Path) -> list[int]:
    """Return the numbers of a folder's leases, ascending."""
    try:
        names = [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if _NUMBER.fullmatch(name))


def newest_lease(folder: Path, *, locked: bool | None = None) -> LeaseView | None:
    """Return the newest lease of a folder, or None if there is none; changes nothing on disk.

    This process remembers what it saw, so that looking again tells whether the lease beats.

    Args:
        folder: of the leases.
        locked: whether a file lock that works on this host says that its owner lives; None = no
            lock was asked.
    """
    for number in reversed(numbers(folder)):
        try:
            raw, written, body = _read_whole(folder / str(number))
        except FileNotFoundError:  # its owner put the next one in its place just now
            continue
        view = _view(number, raw, body, max(time.time() - written, 0.0), locked=locked)
        sight = _look(folder, view)
        return replace(view, silent_s=sight.silent_s, beating=sight.beating)
    return None


def _look(folder: Path, view: LeaseView) -> _Sight:
    """Add a look at a lease to the watch that this process keeps of it."""
    now, place = time.monotonic(), folder.absolute()
    sight = _SEEN.get(place)
    if sight is None or sight.raw != view.raw:
        sight = _SEEN[place] = _Sight(view.raw, now, beating=sight is not None)
    else:
        sight.silent_s += min(now - sight.last, _LOOK * view.term_s)
        sight.last = now
    return sight


def _read(place: Path) -> tuple[bytes, float]:
    """Return the bytes of a lease and its date; of what is no plain file, nothing is read."""
    handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    try:
        facts = os.fstat(handle)
        raw = os.read(handle, _MAX_BYTES) if stat.S_ISREG(facts.st_mode) else b""
        return raw, facts.st_mtime
    finally:
        os.close(handle)


def lease_bytes(place: Path, body: dict[str, Any]) -> bytes:
    """Return the content of the lease at ``place``, which says that it is that one."""
    return record_bytes("lease", {"lease": _name(place), **body}).ljust(_SIZE)


def _name(place: Path) -> str:
    return "/".join(place.parts[-3:])


def _read_whole(place: Path) -> tuple[bytes, float, dict[str, Any] | None]:
    """Return bytes, date and content of a lease; empty or damaged is what is so at every look."""
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE_S)
        raw, written = _read(place)
        body = _body(raw, place)
        if body is not None and raw:
            break
    return raw, written, body


def _body(raw: bytes, place: Path) -> dict[str, Any] | None:
    """Return what a lease says: nothing yet where it is empty; None where it is damaged."""
    if not raw:
        return {"term_s": _EMPTY_S}
    try:
        body = parse_record(raw, place, "lease")
    except StoreError:
        return _of_old_form(raw)
    whole = len(raw) >= _SIZE and body.get("lease") == _name(place)
    return body if whole else None


def _of_old_form(raw: bytes) -> dict[str, Any] | None:
    """Return what a lease says that has no checksum, as those of earlier versions."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    old = isinstance(body, dict) and {"beat", "term_s"} <= body.keys()
    return body if old and not body.keys() & {"check", "encoding-type"} else None


def damaged_leases(locks: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the newest lease of each folder below ``locks`` that is damaged or empty.

    A kill between making a lease and writing it leaves it empty.

    Args:
        locks: the folder of all locks of a store.

    Yields:
        Its path, and whether it is empty.
    """
    for folder in sorted(locks.rglob("*.lease")):
        for number in numbers(folder)[-1:]:
            place = folder / str(number)
            with contextlib.suppress(FileNotFoundError):
                raw, _, body = _read_whole(place)
                if not raw or body is None:
                    yield place, not raw


def _view(
    number: int, raw: bytes, told: dict[str, Any] | None, age: float, *, locked: bool | None
) -> LeaseView:
    body = told or {}

    def text(key: str) -> str:
        found = body.get(key, "")
        return "".join(c if c.isprintable() else "?" for c in found) if type(found) is str else ""

    def number_of(key: str, default: float) -> float:
        found = body.get(key)
        if isinstance(found, int | float) and abs(found) < 1e15:  # not NaN, either
            return float(found)
        return default

    pid = int(number_of("pid", 0))
    here = body.get("kernel") == host()[1]
    dead = False
    if here and body.get("flock") is True and locked is not None:
        dead = not locked
    elif here and text("processes") == processes() and text("started"):
        dead = started(pid) != text("started")
    term = number_of("term_s", TERM_S)
    return LeaseView(
        number=number,
        host=text("host") or "?",
        pid=pid,
        job=text("job"),
        released=body.get("released") is True,
        age_s=age,
        term_s=term if _TERMS[0] <= term <= _TERMS[1] else TERM_S,
        here=here,
        dead=dead,
        damaged=told is None,
        raw=raw,
    )


def forget_sight(folder: Path) -> None:
    """Forget what was seen of a folder's leases."""
    _SEEN.pop(folder.absolute(), None)
