"""Who tried a task of a submission, and how far it was each time: what is given up, and why."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.train.plan import Task

__all__ = ["Attempts"]


#: The most that is read of the notes on one task.
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of one submission, one short file a task.

    Args:
        folder: of the submission.
    """

    folder: Path

    def _file(self, task: Task) -> Path:
        return self.folder / "attempts" / f"{task.cohort}.{task.index}.jsonl"

    def begin(self, task: Task, progress: Sequence[int]) -> None:
        """Note that a worker begins; lost notes only make for more attempts."""
        where = {"host": os.environ.get("SLURMD_NODENAME", socket.gethostname())}
        job = os.environ.get("ZOO_JOB", "")
        self._add(task, {"progress": list(progress), "job": job, "time": time.time(), **where})

    def end(self, task: Task) -> None:
        """Note that the attempt ended because it was told to, which is nobody's fault."""
        self._add(task, {"end": "told to", "time": time.time()})

    def _add(self, task: Task, line: dict[str, Any]) -> None:
        path = self._file(task)
        try:
            path.parent.mkdir(exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError:
            return

    def idle(self, task: Task, progress: Sequence[int]) -> list[dict[str, Any]]:
        """Return the latest attempts that began at this very progress and died without a word."""
        try:
            with self._file(task).open("rb") as file:
                lines = file.read(_MAX_BYTES).splitlines()
        except OSError:
            return []
        found: list[dict[str, Any]] = []
        for line in filter(None, map(_facts, lines)):
            if "end" in line:
                found = found[:-1]
            elif line.get("progress") == list(progress):
                found.append({"job": "?", "host": "?", **line})
            else:
                found = []
        return found


def _facts(text: bytes) -> dict[str, Any] | None:
    """Return what a line says; None where it was torn by a kill, or is no note of ours."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None
