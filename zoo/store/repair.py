"""Dropping what is damaged of a task, so that running again trains it anew."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from zoo.errors import StoreBusyError
from zoo.store.commits import committed_count, read_commit
from zoo.store.create import existing, read_plan
from zoo.store.files import fsync_folder, store_errors
from zoo.store.groups import cohort_arrays
from zoo.store.locks import claim_task
from zoo.store.outcomes import outcome_chunks
from zoo.store.paths import StorePaths
from zoo.store.schema import outcome_arrays, slab_arrays
from zoo.store.verify import first_bad_checkpoint
from zoo.train.plan import Cohort, Task

__all__ = ["repair_task"]


def repair_task(path: str | PathLike[str], task: Task, *, first: int | None = None) -> int | None:
    """Take back the commits of a task from its first damaged checkpoint on.

    Running the sweep again then completes the task. If its resume states are gone, it is trained
    from the start, and the checkpoints that stayed must come out with the same bits; where they
    cannot (another machine type, another version), drop them too with ``first=0``. The commits are
    taken back before any file is deleted, newest first, so an interruption leaves a sound task.

    Args:
        path: the store.
        task: one of its plan's tasks.
        first: the first checkpoint to take back; by default the first that is damaged.

    Returns:
        The first checkpoint that was taken back (K where only the seal or the outcome arrays were
        damaged), or None if the task is sound and nothing was done.

    Raises:
        StoreBusyError: another process owns the task.
        StoreError: something cannot be deleted.
    """
    paths = existing(path)
    plan = read_plan(path)
    cohort = plan.cohort(task.cohort)
    with claim_task(path, task) as owned, store_errors("repair", paths.commits(task)):
        if not owned:
            msg = f"another process owns task {task.index} of {task.cohort}; wait for it"
            raise StoreBusyError(msg)
        if first is None:
            first = first_bad_checkpoint(paths, cohort, task, cohort_arrays(plan, cohort))
        if first is None:
            if _end_is_sound(paths, cohort, task):
                return None
            first = committed_count(paths, task)
        _take_back(paths, cohort, task, first)
        return first


def _end_is_sound(paths: StorePaths, cohort: Cohort, task: Task) -> bool:
    """Whether a sealed task has all commits and the outcome chunks that follow from them."""
    if not paths.seal(task).exists():
        return True
    if committed_count(paths, task) < cohort.checkpoints:
        return False
    commits = [read_commit(paths, cohort, task, k) for k in range(cohort.checkpoints)]
    wanted = outcome_chunks(paths, cohort, task, commits)
    return all(file.exists() and file.read_bytes() == data for file, data in wanted.items())


def _take_back(paths: StorePaths, cohort: Cohort, task: Task, first: int) -> None:
    _delete(paths.seal(task))
    dropped = range(cohort.checkpoints - 1, first - 1, -1)
    for k in dropped:
        _delete(paths.commit(task, k))
    for name, spec in outcome_arrays(cohort).items():
        _delete(paths.chunk(task, name, len(spec.shape)))
    slabs = {name: len(spec.shape) for name, spec in slab_arrays(cohort, 1).items()}
    for k in dropped:
        _delete(paths.resume(task, k))
        for name, axes in slabs.items():
            _delete(paths.shard(task, name, k, axes))


def _delete(path: Path) -> None:
    if path.exists():
        path.unlink()
        fsync_folder(path.parent)
