"""How many files and folders a plan makes, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.store.schema import ALWAYS_WRITTEN, columns, is_fill, probe_size, slab_arrays
from zoo.train.plan import Cohort, Plan

__all__ = ["Footprint", "footprint"]

#: Root and ``_zoo`` metadata, plan and its copy, sweep, provenance, the lock of creation and
#: extensions.
_STORE_FILES = 7
#: The store, ``_zoo``, and its folders of locks and, once something is trained, of tasks.
_STORE_FOLDERS, _TASKS_FOLDER = 3, 1
#: Of a trained task, besides shards, chunks of outcomes and commits: seal, lock, lease.
_TASK_FILES = 3
#: A folder for a task's records and one for its leases; the same two for each cohort.
_TASK_FOLDERS = 2
#: An extension adds its part of the plan, a copy of it, and its sweep file.
_EXTENSION_FILES = 3


@dataclass(frozen=True, slots=True)
class Footprint:
    """Files and folders of a store.

    Args:
        files, folders: when it is created.
        trained_files, trained_folders: when every run is trained, and none diverged, failed or was
            interrupted.
        shards: of the trained files, those that hold weights and probe logits.
    """

    files: int
    folders: int
    trained_files: int
    trained_folders: int
    shards: int


def footprint(plan: Plan, *, extends: bool = False) -> Footprint:
    """Return how many files and folders a plan makes; what later stages add does not count.

    Args:
        plan: the plan.
        extends: whether its cohorts are added to a store that is there.
    """
    if not plan.cohorts:
        return Footprint(0, 0, 0, 0, 0)
    parts = [_of_cohort(plan, cohort) for cohort in plan.cohorts]
    files = _EXTENSION_FILES if extends else _STORE_FILES
    folders = 0 if extends else _STORE_FOLDERS
    later = 0 if extends else _TASKS_FOLDER
    return Footprint(
        files=files + sum(p.files for p in parts),
        folders=folders + sum(p.folders for p in parts),
        trained_files=files + sum(p.trained_files for p in parts),
        trained_folders=folders + later + sum(p.trained_folders for p in parts),
        shards=sum(p.shards for p in parts),
    )


def _of_cohort(plan: Plan, cohort: Cohort) -> Footprint:
    slabs = len(slab_arrays(cohort, probe_size(plan, cohort)))
    varying = sum(not is_fill(values, spec.fill) for spec, values in columns(cohort).values())
    tasks, K, outcomes = len(list(cohort.tasks())), cohort.checkpoints, len(ALWAYS_WRITTEN)
    files = folders = 1 + slabs + varying
    shards = tasks * K * slabs
    return Footprint(
        files=files,
        folders=folders,
        trained_files=files + shards + tasks * (outcomes + K + _TASK_FILES),
        trained_folders=folders + outcomes + (1 + tasks) * _TASK_FOLDERS,
        shards=shards,
    )
