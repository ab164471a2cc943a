"""How far each task is, from files alone; looking changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from zoo.store.commits import committed_count, read_failures
from zoo.store.create import existing, read_plan
from zoo.store.leases import LeaseView
from zoo.store.locks import is_held, task_lease
from zoo.store.resume import pause_place
from zoo.train.plan import Task

__all__ = ["TaskState", "task_progress", "task_states"]


@dataclass(frozen=True, slots=True)
class TaskState:
    """How far a task is.

    Args:
        task: the task.
        committed: durable checkpoints.
        checkpoints: K.
        sealed: whether it is complete.
        failed: whether its last attempt failed and nothing came since.
        owner_alive: whether a live process owns it now; on another host: whether its heartbeat is
            younger than its term.
        updated: when its newest record was written, seconds since 1970; 0.0 if it has none.
        lease: of its last owner, or None if it never had one.
    """

    task: Task
    committed: int
    checkpoints: int
    sealed: bool
    failed: bool
    owner_alive: bool
    updated: float
    lease: LeaseView | None = None


def task_states(path: str | PathLike[str]) -> list[TaskState]:
    """Return the state of every task of a store, in plan order.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: the plan or a failure record is damaged.
    """
    paths = existing(path)
    found = []
    for cohort in read_plan(path).cohorts:
        for task in cohort.tasks():
            committed = committed_count(paths, task)
            failures = read_failures(paths, task)
            lease = task_lease(path, task)
            times = [f.time for f in failures]
            newest = [paths.seal(task)]
            if committed:
                newest.append(paths.commit(task, committed - 1))
            times += [p.stat().st_mtime for p in newest if p.exists()]
            found.append(
                TaskState(
                    task=task,
                    committed=committed,
                    checkpoints=cohort.checkpoints,
                    sealed=paths.seal(task).exists(),
                    failed=any(not f.superseded for f in failures),
                    owner_alive=is_held(paths.lock(task)) or (lease is not None and lease.alive),
                    updated=max(times, default=0.0),
                    lease=lease,
                )
            )
    return found


def task_progress(path: str | PathLike[str], task: Task) -> tuple[int, int, int]:
    """Return what grows with whatever a task gains durably: checkpoints, groups, steps."""
    paths = existing(path)
    committed = committed_count(paths, task)
    place = pause_place(paths, task)
    return place if place is not None and place[0] == committed else (committed, 0, 0)
