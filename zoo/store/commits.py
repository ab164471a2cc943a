"""The records of progress: a commit for each durable checkpoint, a seal for each complete task."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import StoreCorruptError
from zoo.store.groups import version
from zoo.store.paths import StorePaths
from zoo.store.records import floats, read_record, to_json
from zoo.train.checkpoint import METRICS
from zoo.train.plan import Cohort, Task

__all__ = [
    "Commit",
    "Failure",
    "FileCheck",
    "Seal",
    "committed_count",
    "read_commit",
    "read_failures",
    "read_seal",
    "signature",
]


@dataclass(frozen=True, slots=True)
class FileCheck:
    """Size (bytes) and CRC-32C of a file as it was written."""

    bytes: int
    crc32c: int

    def to_json(self) -> dict[str, int]:
        """Return a JSON-ready mapping."""
        return {"bytes": self.bytes, "crc32c": self.crc32c}


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
    metrics: Mapping[str, NDArray[np.float32]]
    files: Mapping[str, FileCheck]
    resume: FileCheck
    wall_s: float

    def to_json(self, cohort: Cohort, task: Task) -> dict[str, Any]:
        """Return the body of the record."""
        return {
            "cohort": task.cohort,
            "task": task.index,
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
    """

    last: NDArray[np.int64]
    diverged_step: NDArray[np.int64]
    wall_s: float
    record: Mapping[str, Any]

    def to_json(self, task: Task) -> dict[str, Any]:
        """Return the body of the record."""
        return {
            "cohort": task.cohort,
            "task": task.index,
            "last": self.last.tolist(),
            "diverged_step": self.diverged_step.tolist(),
            "wall_s": self.wall_s,
            "record": dict(self.record),
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


def _numbers(folder: Path) -> set[int]:
    """Return n for each ``n.json`` of a folder, none if there is no folder."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a hot path: one call a task at every refresh
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {int(n[:-5]) for n in names if n.endswith(".json") and n[:-5].isdecimal()}


def committed_count(paths: StorePaths, task: Task) -> int:
    """Return n where the checkpoints 0 … n - 1 of a task are durable."""
    there = _numbers(paths.commits(task))
    count = 0
    while count in there:
        count += 1
    return count


def read_commit(paths: StorePaths, cohort: Cohort, task: Task, k: int) -> Commit:
    """Return one commit record.

    Raises:
        StoreCorruptError: missing, altered, or of other rows or steps than planned.
    """
    path = paths.commit(task, k)
    body = read_record(path, "commit")
    steps = cohort.steps[task.start : task.stop, k].tolist()
    try:
        right = (body["cohort"], body["task"], body["checkpoint"]) == (task.cohort, task.index, k)
        if not right or body["steps"] != steps:
            msg = f"{path} is the record of another checkpoint than the plan has there"
            raise StoreCorruptError(msg)
        return Commit(
            index=k,
            diverged_step=np.array(body["diverged_step"], dtype=np.int64),
            metrics={name: floats(body["metrics"][name]) for name in METRICS},
            files={name: FileCheck(**check) for name, check in body["files"].items()},
            resume=FileCheck(**body["resume"]),
            wall_s=float(body["wall_s"]),
        )
    except (KeyError, TypeError) as error:
        msg = f"{path} lacks something that a commit record has: {error!r}"
        raise StoreCorruptError(msg) from error


def read_seal(paths: StorePaths, task: Task) -> Seal | None:
    """Return the seal of a task, or None while it has none.

    Raises:
        StoreCorruptError: it does not match its checksum.
    """
    path = paths.seal(task)
    if not path.exists():
        return None
    body = read_record(path, "seal")
    return Seal(
        last=np.array(body["last"], dtype=np.int64),
        diverged_step=np.array(body["diverged_step"], dtype=np.int64),
        wall_s=float(body["wall_s"]),
        record=body["record"],
    )


def read_failures(paths: StorePaths, task: Task) -> list[Failure]:
    """Return the failures of a task, oldest first.

    Raises:
        StoreCorruptError: a record does not match its checksum.
    """
    numbers = sorted(_numbers(paths.failures(task)))
    if not numbers:
        return []
    committed = committed_count(paths, task)
    sealed = paths.seal(task).exists()
    found = []
    for number in numbers:
        body = read_record(paths.failures(task) / f"{number}.json", "failure")
        found.append(
            Failure(
                task=task,
                reason=body["reason"],
                traceback=body["traceback"],
                committed=body["committed"],
                superseded=sealed or committed > body["committed"] or number != numbers[-1],
                time=body["time"],
                host=body["host"],
                pid=body["pid"],
            )
        )
    return found
