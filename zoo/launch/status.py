"""How a store stands, from its files alone; looking changes nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.paths import absolute
from zoo.store import StoreReader, TaskState, read_plan, task_states

__all__ = ["STATES", "StoreStatus", "TaskLine", "store_status"]

#: What a run can be, for people: ``missing`` has nothing committed, ``running`` has something.
STATES = ("done", "running", "missing", "diverged", "failed")


@dataclass(frozen=True, slots=True)
class TaskLine:
    """One task.

    Args:
        cohort, task: which.
        models: rows.
        committed, checkpoints: durable checkpoints, and K.
        state: ``done``, ``running`` (a live process owns it), ``stopped`` (begun, but no process
            is working on it), ``waiting`` (not begun) or ``failed``.
        updated: when its newest record was written, seconds since 1970; 0 = never.
        reason: why it failed, otherwise empty.
    """

    cohort: str
    task: int
    models: int
    committed: int
    checkpoints: int
    state: str
    updated: float
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the line, JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """A store as a whole.

    Args:
        path: the store.
        name: the sweep's name.
        models: runs.
        counts: runs by :data:`STATES`.
        checkpoints: committed model checkpoints, and planned ones.
        tasks: one line per task, in plan order.
    """

    path: Path
    name: str
    models: int
    counts: Mapping[str, int]
    checkpoints: tuple[int, int]
    tasks: tuple[TaskLine, ...]

    @property
    def complete(self) -> bool:
        """Whether every run ended: as planned, or by diverging."""
        return self.counts["done"] + self.counts["diverged"] == self.models

    def to_json(self) -> dict[str, Any]:
        """Return the status, JSON-ready."""
        return {
            "path": str(self.path),
            "name": self.name,
            "models": self.models,
            "complete": self.complete,
            "counts": dict(self.counts),
            "checkpoints": {"committed": self.checkpoints[0], "planned": self.checkpoints[1]},
            "tasks": [line.to_json() for line in self.tasks],
        }


def store_status(
    path: str | os.PathLike[str], *, states: Sequence[TaskState] | None = None
) -> StoreStatus:
    """Return how a store stands; it may be in the middle of training.

    Args:
        path: the store.
        states: of its tasks, where they were read just now.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: a record is damaged.
    """
    plan = read_plan(path)
    # The tasks first: what the runs say is then never behind what the tasks say.
    states = task_states(path, plan) if states is None else states
    reader = StoreReader(path, plan)
    found = Counter(str(s) for cohort in reader.cohorts for s in cohort.status)
    found["missing"] += found.pop("planned", 0)
    reasons = {f.task: f.reason for f in reader.failures() if not f.superseded}
    return StoreStatus(
        path=absolute(path),
        name=reader.plan.name,
        models=reader.plan.models,
        counts={state: found.get(state, 0) for state in STATES},
        checkpoints=(
            sum(s.committed * s.task.models for s in states),
            sum(s.checkpoints * s.task.models for s in states),
        ),
        tasks=tuple(_line(state, reasons.get(state.task, "")) for state in states),
    )


def _line(state: TaskState, reason: str) -> TaskLine:
    if state.sealed:
        word = "done"
    elif state.owner_alive:
        word = "running"
    elif state.failed:
        word = "failed"
    else:
        word = "stopped" if state.committed else "waiting"
    return TaskLine(
        cohort=state.task.cohort,
        task=state.task.index,
        models=state.task.models,
        committed=state.committed,
        checkpoints=state.checkpoints,
        state=word,
        updated=state.updated,
        reason=reason if word == "failed" else "",
    )
