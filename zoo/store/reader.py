"""Reading a store, also while it is being written: only what is committed exists."""

from __future__ import annotations

from os import PathLike

from zoo.errors import StoreError
from zoo.store.cohort_reader import CohortReader
from zoo.store.commits import Failure, read_failures
from zoo.store.create import existing, read_plan
from zoo.store.paths import StorePaths
from zoo.store.schema import outcome_arrays, probe_size, slab_arrays
from zoo.train.plan import Plan

__all__ = ["StoreReader"]


class StoreReader:
    """A store, as it was when it was opened or last refreshed.

    Args:
        path: the store.
        plan: of the store, where it was read just now.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: the plan or a record of progress is damaged.
    """

    def __init__(self, path: str | PathLike[str], plan: Plan | None = None) -> None:
        self._paths: StorePaths = existing(path)
        # of a plan that was read before, a later part may be missing: a refresh reads it anew
        self._parts = len(list(self._paths.parts())) if plan is None else -1
        self.plan: Plan = read_plan(path) if plan is None else plan
        self.cohorts: list[CohortReader] = []
        self._open_cohorts()

    def _open_cohorts(self) -> None:
        known = len(self.cohorts)
        for cohort in self.plan.cohorts[known:]:
            arrays = slab_arrays(cohort, probe_size(self.plan, cohort)) | outcome_arrays(cohort)
            self.cohorts.append(CohortReader(self._paths, cohort, arrays))

    def cohort(self, name: str) -> CohortReader:
        """Return the reader of one cohort.

        Raises:
            StoreError: the store has no cohort of this name.
        """
        for reader in self.cohorts:
            if reader.cohort.id == name:
                return reader
        known = ", ".join(c.cohort.id for c in self.cohorts)
        msg = f"{self._paths.root} has no cohort {name!r}; known: {known}"
        raise StoreError(msg)

    def refresh(self) -> None:
        """Take in what has been committed, and what cohorts were added, since.

        Raises:
            StoreCorruptError: a record is damaged.
        """
        parts = len(list(self._paths.parts()))
        if parts != self._parts:
            self.plan = read_plan(self._paths.root)
            self._parts = parts
        for reader in self.cohorts:
            reader.refresh()
        self._open_cohorts()

    def failures(self) -> list[Failure]:
        """Return every failed attempt at a task, in plan order, superseded ones too.

        Raises:
            StoreCorruptError: a record is damaged.
        """
        return [
            failure
            for cohort in self.plan.cohorts
            for task in cohort.tasks()
            for failure in read_failures(self._paths, cohort, task)
        ]
