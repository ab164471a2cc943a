"""Why tasks did not get done: failures grouped by their cause, and where the logs are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.launch.cluster import ClusterStatus, ElementLine
from zoo.launch.submissions import Submission, TaskKey, submissions
from zoo.store import StoreReader

__all__ = ["Fault", "faults", "job_faults", "logs_of"]

#: What tells two tracebacks of one cause apart: numbers, addresses, temporary names.
_ACCIDENT = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+")
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<where>\S+)')


@dataclass(frozen=True, slots=True)
class Fault:
    """One cause, and the tasks that it stopped.

    Args:
        reason: the last line of the newest one.
        where: the innermost place of its traceback, ``file:line in function``; may be empty.
        traceback: of the newest one.
        tasks: cohort and index, those that are still failed first.
        open: how many of them have not gone further since.
    """

    reason: str
    where: str
    traceback: str
    tasks: tuple[TaskKey, ...]
    open: int

    def to_json(self) -> dict[str, Any]:
        """Return the fault, JSON-ready."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return {**found, "tasks": [list(key) for key in self.tasks]}


def _cause(reason: str, where: str) -> str:
    return _ACCIDENT.sub("#", f"{reason} @ {where.split(' in ')[-1]}")


def _where(traceback: str) -> str:
    frames = list(_FRAME.finditer(traceback))
    if not frames:
        return ""
    last = frames[-1]
    return f"{Path(last['file']).name}:{last['line']} in {last['where']}"


def faults(path: str | os.PathLike[str], *, every: bool = False) -> list[Fault]:
    """Return the failures of a store, one entry a cause, the most frequent first.

    Args:
        path: the store.
        every: also those that a later attempt made good.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: a record is damaged.
    """
    groups: dict[str, list[Any]] = {}
    for failure in StoreReader(path).failures():
        if every or not failure.superseded:
            groups.setdefault(_cause(failure.reason, _where(failure.traceback)), []).append(failure)
    found = []
    for group in groups.values():
        newest = max(group, key=lambda f: f.time)
        group.sort(key=lambda f: f.superseded)
        found.append(
            Fault(
                reason=newest.reason,
                where=_where(newest.traceback),
                traceback=newest.traceback,
                tasks=tuple(dict.fromkeys((f.task.cohort, f.task.index) for f in group)),
                open=sum(not f.superseded for f in group),
            )
        )
    return sorted(found, key=lambda f: (-f.open, -len(f.tasks)))


def job_faults(status: ClusterStatus) -> Mapping[str, list[ElementLine]]:
    """Return the array elements that ended otherwise than well and left something undone.

    Their tasks have no failure record: the scheduler, or a node, ended them from outside.
    """
    words = {(line.cohort, line.task): line.state for line in status.store.tasks}
    found: dict[str, list[ElementLine]] = {}
    for line in status.elements:
        left = [key for key in line.tasks if words.get(key) in ("stopped", "waiting")]
        undone = bool(line.stage) or bool(left)
        if line.live is False and line.state not in ("COMPLETED", "UNKNOWN") and undone:
            found.setdefault(line.state, []).append(line)
    return found


def logs_of(path: str | os.PathLike[str], task: TaskKey) -> list[tuple[Submission, int, str]]:
    """Return where a task's logs may be: submission, element, job id; the newest last."""
    found = []
    for submission in submissions(path):
        for number, tasks in enumerate(submission.elements):
            job = submission.job_id(number)
            if task in tasks and job is not None:
                found.append((submission, number, job))
    return found
