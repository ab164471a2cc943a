"""Submitting: which tasks, cut into which elements, in which arrays; and what that will cost."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import Problem, SpecError, StoreError
from zoo.launch.calibrate import PlanCost
from zoo.launch.cluster import ClusterStatus
from zoo.launch.profile import ClusterProfile
from zoo.launch.progress import duration
from zoo.launch.submissions import (
    Submission,
    TaskKey,
    Work,
    new_submission,
    pack_elements,
    read_submission,
    record_folder,
)
from zoo.stages.cost import makespan, rough_seconds
from zoo.store import task_states
from zoo.store.locks import hold_patiently
from zoo.train.plan import Plan

__all__ = [
    "SELECTIONS",
    "Draft",
    "advice",
    "check_writable",
    "draft",
    "hand_in",
    "hand_in_stage",
    "select",
    "task_seconds",
]

#: The part of the time limit that an element is filled to.
_FILL = 0.8
#: No shorter limit is recommended (s): starting alone takes a while.
_LEAST_LIMIT_S = 900
#: What a retry can ask for, and the words of the tasks that it takes.
SELECTIONS: Mapping[str, tuple[str, ...]] = {
    "failed": ("failed",),
    "missing": ("waiting",),
    "stale": ("stopped",),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A submission before it is one.

    Args:
        profile: the profile.
        elements: the tasks of each array element.
        seconds: worker seconds of each element.
        hours: wall hours of each element, with its workers.
        chunk: elements of an array.
        models: runs of the tasks.
        skipped: word → tasks that are not submitted.
    """

    profile: ClusterProfile
    elements: tuple[tuple[TaskKey, ...], ...]
    seconds: tuple[float, ...]
    hours: tuple[float, ...]
    chunk: int
    models: int
    skipped: Mapping[str, int]

    @property
    def tasks(self) -> int:
        """Tasks in all elements."""
        return sum(len(element) for element in self.elements)

    @property
    def arrays(self) -> int:
        """Arrays that the elements are cut into."""
        return -(-len(self.elements) // self.chunk)

    @property
    def gpu_hours(self) -> float:
        """GPU-hours that the scheduler will count."""
        return sum(self.hours) * self.profile.gpus

    @property
    def core_hours(self) -> float:
        """Core-hours that the scheduler will count."""
        return sum(self.hours) * self.profile.cpus

    def longest(self) -> float:
        """Return the hours of the longest element."""
        return max(self.hours, default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the draft, JSON-ready."""
        return {
            "profile": self.profile.name,
            "models": self.models,
            "tasks": self.tasks,
            "elements": len(self.elements),
            "arrays": self.arrays,
            "tasks_per_element": [len(element) for element in self.elements],
            "element_minutes": [hours * 60 for hours in self.hours],
            "core_hours": self.core_hours,
            "gpu_hours": self.gpu_hours,
            "skipped": dict(self.skipped),
        }


def task_seconds(
    plan: Plan, cost: PlanCost, committed: Mapping[TaskKey, int]
) -> dict[TaskKey, float]:
    """Return the worker seconds that are left of each task, on the machine that measured.

    Args:
        plan: the plan.
        cost: of its cohorts.
        committed: checkpoints that tasks have already.
    """
    found = {}
    for cohort, estimate in zip(plan.cohorts, cost.cohorts, strict=True):
        rough = {t: rough_seconds(cohort, t) for t in cohort.tasks()}
        whole = sum(rough.values()) or 1.0
        for task in cohort.tasks():
            key = (task.cohort, task.index)
            left = rough_seconds(cohort, task, committed=committed.get(key, 0))
            found[key] = estimate.seconds * left / whole
    return found


def select(
    plan: Plan, status: ClusterStatus | None, wanted: Sequence[str], *, only: TaskKey | None = None
) -> tuple[list[TaskKey], dict[str, int]]:
    """Return the tasks to submit, and how many of each word are not.

    Args:
        plan: the plan.
        status: of the store; None where it is not made yet.
        wanted: words of tasks.
        only: one task, or all.
    """
    words: dict[TaskKey, str] = {}
    live: frozenset[TaskKey] = frozenset()
    if status is not None:
        words = {(line.cohort, line.task): line.state for line in status.store.tasks}
        live = status.live()
    taken: list[TaskKey] = []
    skipped: dict[str, int] = {}
    for task in plan.tasks():
        key = (task.cohort, task.index)
        word = words.get(key, "waiting")
        if only is not None and key != only:
            continue
        # what sits in the queue is never submitted twice, whatever else is known of it
        if word in wanted and key not in live:
            taken.append(key)
        else:
            skipped[word] = skipped.get(word, 0) + 1
    return taken, skipped


def draft(
    plan: Plan,
    profile: ClusterProfile,
    seconds: Mapping[TaskKey, float],
    *,
    max_array: int,
    limit: int | None = None,
    skipped: Mapping[str, int] | None = None,
) -> Draft:
    """Cut tasks into elements of about ``target_minutes``, and those into arrays.

    Args:
        plan: the plan.
        profile: the profile.
        seconds: of each task to submit, on the machine that measured.
        max_array: the largest array that the scheduler takes.
        limit: at most so many elements; None = all.
        skipped: word → tasks that are not submitted.
    """
    own = {key: value / profile.speed for key, value in seconds.items()}
    span = min(profile.target_minutes * 60, _FILL * profile.limit_s)
    elements = pack_elements(own, capacity_s=span * profile.processes)[:limit]
    models = {(t.cohort, t.index): t.models for t in plan.tasks()}
    return Draft(
        profile=profile,
        elements=tuple(elements),
        seconds=tuple(sum(own[key] for key in element) for element in elements),
        hours=tuple(
            makespan((own[key] for key in element), profile.processes) / 3600
            for element in elements
        ),
        chunk=min(max_array, profile.max_array or max_array),
        models=sum(models[key] for element in elements for key in element),
        skipped=skipped or {},
    )


def advice(found: Draft) -> list[str]:
    """Return what is odd about what the elements ask for, beside what they are expected to take."""
    limit, longest = found.profile.limit_s, found.longest() * 3600
    if not found.elements:
        return []
    if longest > limit:
        return ["the longest element needs more than one turn: it saves, and is queued again"]
    enough = max(_LEAST_LIMIT_S, 2 * longest + found.profile.signal_s)
    rounded = math.ceil(enough / 300) * 300
    if limit <= 4 * rounded:
        return []
    hours, rest = divmod(rounded // 60, 60)
    return [
        f"the longest element is expected to take {duration(longest)}, and asks for"
        f" {duration(limit)}; short jobs start sooner: write time = '{hours}:{rest:02d}:00'"
    ]


def check_writable(path: Path) -> None:
    """Make sure that jobs will be able to write to a store.

    Raises:
        StoreError: it is read-only, or the disk is full.
    """
    probe = path / "_zoo" / "locks" / f".submit-{os.getpid()}"
    from zoo.store.files import store_errors

    with store_errors("write to", path):
        probe.parent.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("wb") as file:
                file.write(b"\0" * 65536)
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)


def hand_in(store: Path, found: Draft, *, dependency: str | None = None) -> Submission:
    """Record a draft and hand its arrays to the scheduler.

    Raises:
        SpecError: the store's name, or the profile's setup, cannot be in a batch script.
        SchedulerError: the scheduler refuses; arrays that it took before stay submitted.
        StoreError: the disk refuses; nothing was submitted.
    """
    from zoo.launch.slurm import submit_array

    check_writable(store)
    failures = {(s.task.cohort, s.task.index): s.failures for s in task_states(store)}
    work = Work(found.elements, found.seconds, found.chunk, failures)
    submission = new_submission(store, found.profile, work)
    for array in range(submission.arrays):
        submit_array(submission, array, dependency=dependency)
    return read_submission(submission.folder)


def hand_in_stage(
    store: Path, profile: ClusterProfile, stage: Mapping[str, Any], dependency: str | None
) -> Submission:
    """Hand in a stage, or a verb of the command line, as one job.

    Args:
        store: the store.
        profile: of the job.
        stage: what it does, as :class:`~zoo.launch.submissions.Submission` records it.
        dependency: what it waits for, in SLURM's words; None = nothing.

    Raises:
        SpecError: the store's name, or the profile's setup, cannot be in a batch script.
        SchedulerError: the scheduler refuses.
        StoreError: the disk refuses; nothing was submitted.
    """
    from zoo.launch.slurm import submit_array

    submission = new_submission(store, profile, Work([()], [0.0], 1, stage=stage))
    submit_array(submission, 0, dependency=dependency)
    return read_submission(submission.folder)


class one_at_a_time:  # noqa: N801 - reads as a statement: with one_at_a_time(store)
    """Keep two submissions of one store from taking the same tasks, for the block.

    Raises:
        StoreError: another process submits right now, or the folder cannot be written.
    """

    def __init__(self, store: Path) -> None:
        self.lock = hold_patiently(record_folder(store) / "submit.lock")

    def __enter__(self) -> None:
        if not self.lock.__enter__():
            self.lock.__exit__(None, None, None)
            msg = "another `zoo submit` is working on this store; try again when it is done"
            raise StoreError(msg)

    def __exit__(self, *error: Any) -> None:
        self.lock.__exit__(None, None, None)


def check_selection(names: Sequence[str]) -> tuple[str, ...]:
    """Return the words of tasks that a retry takes.

    Raises:
        SpecError: an unknown selection.
    """
    unknown = [name for name in names if name not in SELECTIONS]
    if unknown:
        raise SpecError([Problem("retry", unknown, "unknown", ", ".join(SELECTIONS))], "retry")
    return tuple(word for name in names for word in SELECTIONS[name])
