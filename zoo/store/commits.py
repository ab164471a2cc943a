"""The records of progress: a commit for each durable checkpoint, a seal for each complete task."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError, StoreError
from zoo.store.files import checksum
from zoo.store.groups import version
from zoo.store.paths import StorePaths
from zoo.store.records import amount, floats, read_record, to_json, whole, wholes
from zoo.store.schema import SLABS
from zoo.train.plan import Cohort, Task

__all__ = [
    "Commit",
    "Failure",
    "FileCheck",
    "Seal",
    "committed_count",
    "failure_numbers",
    "lost_commits",
    "read_commit",
    "read_failure",
    "read_failures",
    "read_seal",
    "signature",
]


#: Seconds since 1970 that a calendar still has.
_LAST_YEAR = 2.0**37
#: ``bytes`` is a field of the class below.
Buffer = bytes


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Size (bytes), CRC-32C and CRC-32 of a file as it was written.

    A file whose parts end in their own CRC-32C has the same CRC-32C whatever the parts hold (such
    a code is linear): shards and chunks are told apart by the CRC-32.
    """

    bytes: int
    crc32c: int
    crc32: int

    @classmethod
    def of(cls, data: Buffer) -> FileCheck:
        """Return the check of a file with this content."""
        return cls(len(data), checksum(data), zlib.crc32(data))

    def fits(self, data: Buffer) -> bool:
        """Return whether a file is as it was written."""
        return self == self.of(data)

    def to_json(self) -> dict[str, int]:
        """Return a JSON-ready mapping."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> FileCheck:
        """Return what :meth:`to_json` made.

        Raises:
            KeyError, TypeError, ValueError: it is not that.
        """
        return cls(whole(raw["bytes"]), *(whole(raw[k], 0, 2**32) for k in ("crc32c", "crc32")))


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """One durable checkpoint of one task of R rows.

    Args:
        index: k.
        diverged_step: ``[R]``, -1 for a model that is well at this checkpoint.
        metrics: for each metric, ``[R]``.
        files: array name → the shard as it was written.
        resume: the resume state as it was written.
        wall_s: seconds since the checkpoint before, or since its process started the task.
    """

    index: int
    diverged_step: NDArray[np.int64]
    metrics: Mapping[str, NDArray[np.floating[Any]]]
    files: Mapping[str, FileCheck]
    resume: FileCheck
    wall_s: float

    def to_json(self, cohort: Cohort, task: Task) -> dict[str, Any]:
        """Return the body of the record."""
        return {
            "cohort": task.cohort,
            "task": task.index,
            "rows": cohort.rows_hash(task),
            "checkpoint": self.index,
            "steps": cohort.steps[task.start : task.stop, self.index].tolist(),
            "diverged_step": self.diverged_step.tolist(),
            "metrics": {name: to_json(values) for name, values in self.metrics.items()},
            "files": {name: check.to_json() for name, check in self.files.items()},
            "resume": self.resume.to_json(),
            "wall_s": self.wall_s,
            **signature(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Seal:
    """The end of a task of R rows.

    Args:
        last: ``[R]`` index of the last recorded checkpoint.
        diverged_step: ``[R]``.
        wall_s: seconds spent on the task.
        record: what the caller of the engine said about it.
        files: array of outcomes → the task's chunk of it as it was written.
    """

    last: NDArray[np.int64]
    diverged_step: NDArray[np.int64]
    wall_s: float
    record: Mapping[str, Any]
    files: Mapping[str, FileCheck]

    def to_json(self, cohort: Cohort, task: Task) -> dict[str, Any]:
        """Return the body of the record."""
        return {
            "cohort": task.cohort,
            "task": task.index,
            "rows": cohort.rows_hash(task),
            "last": self.last.tolist(),
            "diverged_step": self.diverged_step.tolist(),
            "wall_s": self.wall_s,
            "record": dict(self.record),
            "files": {name: check.to_json() for name, check in self.files.items()},
            **signature(),
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt at a task that ended with an exception.

    Args:
        task: the task.
        reason: one line.
        traceback: the whole traceback.
        committed: checkpoints that were durable then.
        superseded: whether the task went further since.
        time: seconds since 1970.
        host, pid: where.
    """

    task: Task
    reason: str
    traceback: str
    committed: int
    superseded: bool
    time: float
    host: str
    pid: int


def signature() -> dict[str, Any]:
    """Return when, where and with what a record is written."""
    return {
        "time": time.time(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "phasezoo": version(),
    }


def _numbers(folder: Path, prefix: str = "") -> set[int]:
    """Return n for each ``<prefix><n>.json`` of a folder, none if there is no folder."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a hot path: one call a task at every refresh
    except (FileNotFoundError, NotADirectoryError):
        return set()
    stems = [n[len(prefix) : -5] for n in names if n.startswith(prefix) and n.endswith(".json")]
    return {int(stem) for stem in stems if stem.isdecimal()}


def failure_numbers(paths: StorePaths, task: Task) -> list[int]:
    """Return the numbers of a task's failure records, oldest first."""
    return sorted(_numbers(paths.task(task), "failure-"))


def committed_count(paths: StorePaths, task: Task) -> int:
    """Return n where the checkpoints 0 … n - 1 of a task are durable."""
    there = _numbers(paths.task(task))
    count = 0
    while count in there:
        count += 1
    return count


def lost_commits(paths: StorePaths, cohort: Cohort, task: Task) -> list[int]:
    """Return the checkpoints whose commit records are gone: later ones, or the seal, are there."""
    there = _numbers(paths.task(task))
    end = cohort.checkpoints if paths.seal(task).exists() else max(there, default=-1)
    return [k for k in range(end) if k not in there]


def read_commit(paths: StorePaths, cohort: Cohort, task: Task, k: int) -> Commit:
    """Return one commit record.

    Raises:
        StoreCorruptError: missing, altered, or of other rows or steps than planned.
    """
    path = paths.commit(task, k)
    body = read_record(path, "commit")
    if k >= cohort.checkpoints:
        msg = f"{path} is of checkpoint {k}, and the plan has {cohort.checkpoints} checkpoints"
        raise StoreCorruptError(msg)
    _check_task(path, body, cohort, task)
    if body.get("checkpoint") != k or body.get("steps") != _steps(cohort, task, k):
        msg = f"{path} is the record of another checkpoint than the plan has there"
        raise StoreCorruptError(msg)
    with _whole_record(path, "a commit record"):
        commit = Commit(
            index=k,
            diverged_step=wholes(body["diverged_step"], low=-1),
            metrics={m.name: floats(body["metrics"][m.name], m.dtype) for m in cohort.metrics},
            files={
                name: FileCheck.from_json(body["files"][name])
                for name in SLABS
                if name == SLABS[0] or name in body["files"]
            },
            resume=FileCheck.from_json(body["resume"]),
            wall_s=amount(body["wall_s"]),
        )
    shapes = {commit.diverged_step.shape, *(v.shape for v in commit.metrics.values())}
    if shapes != {(task.models,)}:
        msg = f"{path} is the record of another number of models than the plan has there"
        raise StoreCorruptError(msg)
    return commit


def _steps(cohort: Cohort, task: Task, k: int) -> list[int]:
    steps: list[int] = cohort.steps[task.start : task.stop, k].tolist()
    return steps


@contextlib.contextmanager
def _whole_record(path: Path, what: str) -> Iterator[None]:
    """Turn whatever odd content does to the block into one error.

    Raises:
        StoreCorruptError: the content lacks something, or has something else in its place.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        msg = f"{path} lacks something that {what} has ({why:.200}); run `zoo repair`"
        raise StoreCorruptError(msg) from error


def read_seal(paths: StorePaths, cohort: Cohort, task: Task) -> Seal | None:
    """Return the seal of a task, or None while it has none.

    Raises:
        StoreCorruptError: it does not match its checksum, or is another task's.
    """
    path = paths.seal(task)
    if not path.exists():
        return None
    body = read_record(path, "seal")
    _check_task(path, body, cohort, task)
    most = cohort.checkpoints - 1
    with _whole_record(path, "a seal"):
        seal = Seal(
            last=wholes(body["last"], low=-1, high=most),
            diverged_step=wholes(body["diverged_step"], low=-1),
            wall_s=amount(body["wall_s"]),
            record=dict(body["record"]),
            files={name: FileCheck.from_json(check) for name, check in body["files"].items()},
        )
    if seal.last.shape != (task.models,) or seal.diverged_step.shape != (task.models,):
        msg = f"{path} is the seal of another number of models; run `zoo repair`"
        raise StoreCorruptError(msg)
    return seal


def _check_task(path: Path, body: Mapping[str, Any], cohort: Cohort, task: Task) -> None:
    """Make sure that a record is of a task, with the runs that the plan has there.

    Raises:
        StoreCorruptError: it is not.
    """
    found = body.get("cohort"), body.get("task")
    if found != (task.cohort, task.index):
        msg = f"{path} is of task {found[1]!r:.40} of {found[0]!r:.80}; run `zoo repair`"
        raise StoreCorruptError(msg)
    if body.get("rows") != cohort.rows_hash(task):
        msg = (
            f"{path} is of other runs than the plan has in task {task.index} of {task.cohort};"
            " run `zoo repair`"
        )
        raise StoreCorruptError(msg)


def read_failures(paths: StorePaths, cohort: Cohort, task: Task) -> list[Failure]:
    """Return the failures of a task, oldest first.

    A record that cannot be read counts as a failure whose reason says so.
    """
    numbers = failure_numbers(paths, task)
    if not numbers:
        return []
    committed = committed_count(paths, task)
    sealed = paths.seal(task).exists()
    found = []
    for number in numbers:
        try:
            failure = read_failure(paths, cohort, task, number)
        except StoreError as error:
            failure = Failure(
                task, str(error), "", committed, superseded=False, time=0.0, host="", pid=0
            )
        over = sealed or committed > failure.committed or number != numbers[-1]
        found.append(dataclasses.replace(failure, superseded=over))
    return found


def read_failure(paths: StorePaths, cohort: Cohort, task: Task, number: int) -> Failure:
    """Return one failure of a task, as if nothing came after it.

    Raises:
        StoreCorruptError: the record does not match its checksum, or is another task's.
    """
    path = paths.failure(task, number)
    body = read_record(path, "failure")
    _check_task(path, body, cohort, task)
    with _whole_record(path, "a failure record"):
        found = Failure(
            task=task,
            reason=str(body["reason"]),
            traceback=str(body["traceback"]),
            committed=whole(body["committed"]),
            superseded=False,
            time=amount(body["time"], _LAST_YEAR),
            host=str(body["host"]),
            pid=whole(body["pid"]),
        )
        other = whole(body["number"])
    if other != number:
        msg = f"{path} is failure {other} of its task; run `zoo repair`"
        raise StoreCorruptError(msg)
    return found
