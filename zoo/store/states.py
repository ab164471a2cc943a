"""How far each task is, from files alone; looking changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from zoo.errors import StoreError
from zoo.store.commits import committed_count, read_failures, read_seal
from zoo.store.create import existing, read_plan
from zoo.store.leases import LeaseView
from zoo.store.locks import is_held, task_lease
from zoo.store.resume import pause_place
from zoo.train.plan import Plan, Task

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
        owner_alive: whether a live process owns it now. Of another host this is known after
            looking more than once (:func:`zoo.store.locks.watch_leases`); at first sight it is
            whether the heartbeat's date is younger than its term by this host's clock.
        updated: when its newest record was written, seconds since 1970; 0.0 if it has none.
        lease: of its last owner, or None if it never had one.
        failures: how often it has failed so far.
        damage: what is wrong with its seal, empty if nothing is; the task then counts as failed.
    """

    task: Task
    committed: int
    checkpoints: int
    sealed: bool
    failed: bool
    owner_alive: bool
    updated: float
    lease: LeaseView | None = None
    failures: int = 0
    damage: str = ""


def task_states(path: str | PathLike[str], plan: Plan | None = None) -> list[TaskState]:
    """Return the state of every task of a store, in plan order.

    Args:
        path: the store.
        plan: of the store, where it was read just now.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: the plan is damaged.
    """
    paths = existing(path)
    found = []
    for cohort in (plan or read_plan(path)).cohorts:
        for task in cohort.tasks():
            committed = committed_count(paths, task)
            failures = read_failures(paths, cohort, task)
            lease = task_lease(path, task)
            damage = ""
            try:
                sealed = read_seal(paths, cohort, task) is not None
            except StoreError as error:
                sealed, damage = False, str(error)
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
                    sealed=sealed,
                    failed=bool(damage) or any(not f.superseded for f in failures),
                    owner_alive=is_held(paths.lock(task)) or (lease is not None and lease.alive),
                    updated=max(times, default=0.0),
                    lease=lease,
                    failures=len(failures),
                    damage=damage,
                )
            )
    return found


def task_progress(path: str | PathLike[str], task: Task) -> tuple[int, int, int]:
    """Return what grows with whatever a task gains durably: checkpoints, groups, steps."""
    paths = existing(path)
    committed = committed_count(paths, task)
    place = pause_place(paths, task)
    return place if place is not None and place[0] == committed else (committed, 0, 0)
