"""How far a store is on a cluster: the store first, then the scheduler; looking changes nothing.

Asked in this order: commits and seals, leases (heartbeats), squeue, sacct, scontrol. A word that
nobody can give is ``unknown``, never a guess.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zoo.errors import SchedulerError
from zoo.launch.slurm_client import (
    JobView,
    sacct_jobs,
    scontrol_jobs,
    squeue_jobs,
    without_process,
)
from zoo.launch.status import StoreStatus, store_status
from zoo.launch.submissions import Submission, TaskKey, submissions
from zoo.store import TaskState, task_states
from zoo.train.plan import Task

__all__ = [
    "WORDS",
    "ClusterStatus",
    "ElementLine",
    "by_number",
    "cluster_status",
    "element_lines",
    "task_word",
    "unclear_owners",
]

#: Words for a task, in the order in which they are shown.
WORDS = (
    "done", "running", "assigned", "queued", "held", "stopped", "waiting", "failed", "unknown",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ElementLine:
    """One array element of a submission.

    Args:
        submission: its number.
        element: number within the submission.
        created: when it was submitted, seconds since 1970 by the clock of that host.
        tasks: what it works on.
        failures: how often these had failed before it was submitted, where they had.
        stage: name of a stage; empty where it trains.
        job: what SLURM calls it; None if it was not accepted.
        state: SLURM's word; ``UNKNOWN`` if nobody tells.
        node, reason: as SLURM says.
        source: who told: ``squeue``, ``sacct``, ``scontrol`` or nobody.
        live: whether it waits or runs; None where the scheduler could not be asked.
        held: whether it waits for a release.
    """

    submission: int
    element: int
    created: float
    tasks: tuple[TaskKey, ...]
    stage: str
    job: str | None
    state: str
    node: str = ""
    reason: str = ""
    source: str = ""
    live: bool | None = None
    held: bool = False
    failures: Mapping[TaskKey, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the line, JSON-ready."""
        found = {name: getattr(self, name) for name in self.__slots__ if name != "failures"}
        return {**found, "tasks": [list(key) for key in self.tasks]}


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A store and its jobs.

    Args:
        store: the store; the states of its tasks are words of :data:`WORDS`.
        elements: of every submission, oldest first.
        trouble: why the scheduler could not be asked; empty if it could.
    """

    store: StoreStatus
    elements: tuple[ElementLine, ...]
    trouble: str

    @property
    def over(self) -> bool:
        """Whether it was submitted, and neither the queue nor anybody else works on it."""
        states = {line.state for line in self.store.tasks}
        busy = {"running", "assigned", "queued", "held", "unknown"}
        return bool(self.elements) and not self.trouble and not states & busy

    def live(self) -> frozenset[TaskKey]:
        """Return the tasks that an element of the queue has."""
        return frozenset(key for e in self.elements if e.live for key in e.tasks)

    def to_json(self) -> dict[str, Any]:
        """Return the status, JSON-ready."""
        jobs = Counter(line.state for line in self.elements)
        return {
            **self.store.to_json(),
            "cluster": {
                "trouble": self.trouble,
                "jobs": dict(jobs),
                "elements": [line.to_json() for line in self.elements],
            },
        }


def cluster_status(path: str | os.PathLike[str]) -> ClusterStatus:
    """Return how far a store is, on whatever cluster it was submitted to.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: a record is damaged.
    """
    known = submissions(path)
    # the queue first: what ended since is then seen in the store, and nothing falls in between
    trouble, told = "", []
    try:
        told = squeue_jobs(s.job_name(a) for s in known for a in range(s.arrays))
    except SchedulerError as error:
        trouble = str(error)
    states = task_states(path)
    sealed = {_key(state) for state in states if state.sealed}
    lines: list[ElementLine] = []
    for submission in known:
        found, problem = element_lines(submission, told, sealed=sealed, reachable=not trouble)
        lines += found
        trouble = trouble or problem
    words = {_key(s): task_word(s, lines) for s in states}
    plain = store_status(path, states=states)
    tasks = tuple(replace(t, state=words[t.cohort, t.task]) for t in plain.tasks)
    return ClusterStatus(replace(plain, tasks=tasks), tuple(lines), trouble)


def unclear_owners(path: str | os.PathLike[str], status: ClusterStatus) -> list[Task]:
    """Return the tasks whose owner, on another host, is alive or not by a file's date alone.

    Args:
        path: the store.
        status: of it; where the scheduler knows the owner's job, that decides.
    """
    told = {line.job for line in status.elements if line.live is not None and line.source}
    found = []
    for state in task_states(path):
        lease = state.lease
        if state.sealed or lease is None or lease.here or lease.stale or lease.beating:
            continue
        if lease.job not in told:
            found.append(state.task)
    return found


def _key(state: TaskState) -> TaskKey:
    return (state.task.cohort, state.task.index)


def element_lines(
    submission: Submission,
    told: Sequence[JobView],
    *,
    sealed: Iterable[TaskKey] = (),
    reachable: bool = True,
) -> tuple[list[ElementLine], str]:
    """Return the elements of a submission, and why a source could not be asked.

    Args:
        submission: the submission.
        told: what ``squeue`` told, of this submission and of others.
        sealed: tasks that are done; elements that have nothing else left need no further asking.
        reachable: whether the scheduler answered.
    """
    done, trouble = set(sealed), ""
    views = _by_element(submission, told)
    open_jobs = {
        submission.jobs[submission.place(number)[0]]
        for number, tasks in enumerate(submission.elements)
        if number not in views
        and submission.place(number)[0] in submission.jobs
        and (submission.stage or not done.issuperset(tasks))
    }
    if reachable and open_jobs:
        for source in (sacct_jobs, scontrol_jobs):
            try:
                more = _by_element(submission, source(sorted(open_jobs)))
            except SchedulerError as error:
                trouble = str(error)
            else:
                views = {**more, **views}
    return [
        _line(submission, number, views.get(number), reachable=reachable and not trouble)
        for number in range(len(submission.elements))
    ], trouble


def _by_element(submission: Submission, told: Iterable[JobView]) -> dict[int, JobView]:
    names = {submission.job_name(array): array for array in range(submission.arrays)}
    jobs = {job: array for array, job in submission.jobs.items()}
    found: dict[int, JobView] = {}
    for view in told:
        array = names.get(view.name, jobs.get(view.job))
        if array is None:
            continue
        number = array * submission.chunk + (view.index or 0)
        if number < len(submission.elements):
            found[number] = view
    return found


def _line(
    submission: Submission, number: int, view: JobView | None, *, reachable: bool
) -> ElementLine:
    line = ElementLine(
        submission=submission.number,
        element=number,
        created=submission.created,
        tasks=submission.elements[number],
        stage=str(submission.stage.get("name", "")),
        job=submission.job_id(number),
        state="UNKNOWN",
        live=False if reachable else None,
        failures=submission.failures,
    )
    if view is None:
        return line
    job = f"{view.job}" + ("" if view.index is None else f"_{view.index}")
    return replace(
        line,
        job=line.job or job,
        state=view.state,
        node=view.node,
        reason="" if view.reason in ("None", "0:0") else view.reason,
        source=view.source,
        live=view.live,
        held=view.held,
    )


def task_word(state: TaskState, lines: Sequence[ElementLine]) -> str:
    """Return the word for a task.

    Args:
        state: what the store says.
        lines: every element; those that do not have the task are passed over.
    """
    if state.sealed:
        return "done"
    mine = [line for line in lines if _key(state) in line.tasks and not line.stage]
    if state.owner_alive and not _owner_gone(state, mine):
        return "running"
    failed = state.failed
    for line in reversed(mine):
        if not line.live or (failed and state.failures > line.failures.get(_key(state), 0)):
            continue
        if line.held:
            return "held"
        return "assigned" if line.state == "RUNNING" else "queued"
    if failed:
        return "failed"
    if any(line.live is None for line in mine):
        return "unknown"
    return "stopped" if state.committed else "waiting"


def _owner_gone(state: TaskState, mine: Sequence[ElementLine]) -> bool:
    """Return whether the scheduler knows that the owner's job is over, heartbeat or not."""
    lease = state.lease
    if lease is None or lease.here or not lease.job:
        return False
    told = [line for line in mine if line.job == lease.job and line.live is not None]
    return bool(told) and all(line.source and without_process(line.state) for line in told)


def by_number(lines: Iterable[ElementLine]) -> Mapping[int, list[ElementLine]]:
    """Return the elements of each submission."""
    found: dict[int, list[ElementLine]] = {}
    for line in lines:
        found.setdefault(line.submission, []).append(line)
    return found
