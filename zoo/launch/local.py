"""``zoo run`` on one machine: plan, store, worker processes, retries, a clean stop."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import Problem, SpecError, StoreError
from zoo.launch.cost import rough_seconds
from zoo.launch.diets import measure_diets, score_first
from zoo.launch.gpus import gpu_seats
from zoo.launch.pool import WORKER, Pool
from zoo.launch.prepare import prepare_store, wrong_device
from zoo.launch.progress import Reporter, RunProgress
from zoo.launch.provenance import usable_cores
from zoo.launch.schedule import Failed, Schedule
from zoo.launch.worker import BUSY, run_task
from zoo.spec import Sweep, load_sweep
from zoo.store import (
    StoreReader,
    TaskState,
    TaskWriter,
    claim_task,
    is_store,
    read_plan,
    read_sweep,
    task_states,
)
from zoo.train.backends import check_device
from zoo.train.plan import Plan, Task

__all__ = ["RunSummary", "run"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a call of :func:`run` did, and how the store stands now.

    Args:
        path: the store.
        models: runs of the store.
        status: how many of them are done, diverged, failed, running (begun) and planned.
        trained: models that this call brought to their end.
        tasks: tasks that this call brought to their end.
        seconds: wall time of the training.
        workers: processes.
        stopped: whether a signal or the limit ended it early.
        failures: the tasks that were given up.
    """

    path: Path
    models: int
    status: Mapping[str, int]
    trained: int
    tasks: int
    seconds: float
    workers: int
    stopped: bool
    failures: tuple[Failed[Task], ...] = field(default=())

    @property
    def complete(self) -> bool:
        """Whether every run ended: as planned, or by diverging."""
        return self.status.get("done", 0) + self.status.get("diverged", 0) == self.models

    def to_json(self) -> dict[str, Any]:
        """Return the summary, JSON-ready."""
        return {
            "path": str(self.path),
            "models": self.models,
            "status": dict(self.status),
            "complete": self.complete,
            "trained": self.trained,
            "tasks": self.tasks,
            "seconds": self.seconds,
            "models_per_s": self.trained / self.seconds if self.seconds > 0 else None,
            "workers": self.workers,
            "stopped": self.stopped,
            "failures": [
                {"cohort": f.task.cohort, "task": f.task.index, "reason": f.reason}
                for f in self.failures
            ],
        }


def run(
    sweep: Sweep | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    workers: int | None = None,
    backend: str | None = None,
    device: str | None = None,
    progress: Reporter | None = None,
    limit: int | None = None,
    command: Sequence[str] = WORKER,
) -> RunSummary:
    """Train a sweep into a store; run it again to go on, to extend the store, or to do nothing.

    Args:
        sweep: a sweep, the path of a sweep file, or the path of a store to finish.
        out: the store; may be left out where ``sweep`` is a store.
        workers: processes of one thread each; 0 = train in this process; None = what the sweep
            says, otherwise one a core or one a GPU, and never more than there are open tasks.
        backend: ``"auto"``, ``"eager"``, ``"compiled"`` or ``"reference"``; None = what the sweep
            says, otherwise auto.
        device: ``"cpu"`` or ``"cuda"``, for a store that is new; None = what the store or the
            sweep says, otherwise the CPU.
        progress: told of every change; see :func:`zoo.launch.progress.reporter`.
        limit: end after so many tasks; None = all.
        command: how a worker process is started.

    Raises:
        SpecError: bad arguments or a bad sweep, or one that does not fit the store.
        DataError: a data set is missing, or not the one that the store was made with.
        StoreError: the store cannot be written.
        TrainError: the workers cannot be started, or the device is not here.
    """
    _check_counts(workers, limit)
    plan, path, options, paths = _prepare(sweep, out, backend, device)
    seats = _seats(path, plan)
    if workers is None:
        workers = options.get("workers") or len(seats) or usable_cores()
    cores = usable_cores() if seats and workers else workers  # for scores and metrics of diets
    scored = score_first(path, plan, workers=cores, progress=progress)
    if scored is not None and not scored.published:
        limit = 0  # stopped: training waits for its diets
    states = task_states(path)
    open_tasks = _longest_first(plan, states)
    schedule = Schedule(open_tasks[:limit])
    workers = min(workers, len(schedule.pending))
    tracker = _Tracker(plan, states, schedule, progress)
    start = time.monotonic()
    tracker.report()
    stopped = False
    if len(schedule.pending) and workers:
        pool = Pool(
            store=path,
            schedule=schedule,
            workers=workers,
            paths=paths,
            seats=seats,
            on_change=tracker.report,
            on_failure=lambda failed: _record_failure(path, plan, failed),
            command=command,
        )
        stopped = not pool.run()
    else:
        _run_here(path, plan, schedule, paths, tracker)
    tracker.report(ended=True)
    status = Counter(str(s) for c in StoreReader(path).cohorts for s in c.status)
    if not stopped and status.keys() <= {"done", "diverged"}:
        measure_diets(path, plan, workers=cores, progress=progress)
    return RunSummary(
        path=path,
        models=plan.models,
        status=dict(status),
        trained=sum(task.models for task in schedule.done),
        tasks=len(schedule.done),
        seconds=time.monotonic() - start,
        workers=workers,
        stopped=stopped or len(open_tasks) > len(open_tasks[:limit]),
        failures=tuple(schedule.failed),
    )


def _longest_first(plan: Plan, states: Sequence[TaskState]) -> list[Task]:
    """Return the tasks that are not sealed."""
    left = {
        s.task: rough_seconds(plan.cohort(s.task.cohort), s.task, committed=s.committed)
        for s in states
        if not s.sealed
    }
    return sorted(left, key=left.__getitem__, reverse=True)


def _check_counts(workers: int | None, limit: int | None) -> None:
    problems = []
    if workers is not None and workers < 0:
        problems.append(Problem("workers", workers, "not a number of processes", ">= 0"))
    if limit is not None and limit < 0:
        problems.append(Problem("limit", limit, "not a number of tasks", ">= 0"))
    if problems:
        raise SpecError(problems, "run")


def _seats(path: Path, plan: Plan) -> Sequence[Mapping[str, str]]:
    """Return what each worker sees: one GPU, where the plan is for GPUs."""
    if all(cohort.device == "cpu" for cohort in plan.cohorts):
        return ()
    if any(not state.sealed for state in task_states(path)):
        check_device("cuda")
    return gpu_seats()


def _prepare(
    sweep: Sweep | str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    backend: str | None,
    device: str | None,
) -> tuple[Plan, Path, Mapping[str, Any], Mapping[str, str]]:
    """Return plan, path, options and data paths."""
    if not isinstance(sweep, Sweep):
        if is_store(sweep):
            return _prepare_store(Path(sweep), out, backend, device)
        sweep = load_sweep(sweep)
    if out is None:
        problem = Problem("out", None, "is missing", "the path of a store", "give --out PATH.zarr")
        raise SpecError([problem], "run")
    chosen = backend if backend is not None else sweep.options.get("backend", "auto")
    wanted = device if device is not None else sweep.options.get("device")
    plan = prepare_store(sweep, Path(out), backend=chosen, device=wanted)
    return plan, Path(out), sweep.options, sweep.paths


def _prepare_store(
    path: Path, out: str | os.PathLike[str] | None, backend: str | None, device: str | None
) -> tuple[Plan, Path, Mapping[str, Any], Mapping[str, str]]:
    """Return the same for a store that only has to be finished."""
    problems = []
    if out is not None and Path(out).resolve() != path.resolve():
        message = f"{path} is a store already, and is finished where it is"
        problems.append(Problem("out", str(out), message, fix="leave --out away"))
    if backend not in (None, "auto"):
        message = "a store keeps the backend that it was planned with"
        problems.append(Problem("backend", backend, message, fix="leave --backend away"))
    plan = read_plan(path)
    problems += wrong_device(plan, device)
    if problems:
        raise SpecError(problems, "run")
    sweep = Sweep.from_toml(read_sweep(path), source=f"{path} (sweep)")
    return plan, path, sweep.options, sweep.paths


class _Tracker:
    """Turns the commits that a schedule was told of into progress."""

    def __init__(
        self,
        plan: Plan,
        states: Sequence[TaskState],
        schedule: Schedule[Task],
        progress: Reporter | None,
    ) -> None:
        self.models = plan.models
        self.states = states
        self.schedule = schedule
        self.progress = progress
        self.start = time.monotonic()
        self.at_start = self.done()

    def done(self) -> float:
        """Return the models that are done, in parts."""
        sealed = set(self.schedule.done)
        total = 0.0
        for state in self.states:
            committed = max(state.committed, self.schedule.committed(state.task))
            whole = state.sealed or state.task in sealed
            total += state.task.models * (1.0 if whole else committed / state.checkpoints * 0.999)
        return total

    def report(self, *, ended: bool = False) -> None:
        """Tell whoever wants to know."""
        if self.progress is None:
            return
        self.progress(
            RunProgress(
                models=self.models,
                done=self.done(),
                at_start=self.at_start,
                failed=sum(f.task.models for f in self.schedule.failed),
                elsewhere=self.schedule.elsewhere,
                elapsed_s=time.monotonic() - self.start,
                ended=ended,
            )
        )


def _record_failure(path: Path, plan: Plan, failed: Failed[Task]) -> None:
    """Write why a task was given up, unless it is somebody else's by now or the disk refuses."""
    with contextlib.suppress(StoreError), claim_task(path, failed.task) as owned:
        if owned:
            writer = TaskWriter(path, plan.cohort(failed.task.cohort), failed.task)
            writer.fail(failed.reason, failed.traceback)


def _run_here(
    path: Path, plan: Plan, schedule: Schedule[Task], paths: Mapping[str, str], tracker: _Tracker
) -> None:
    """Work through the schedule in this process."""
    for task in _tasks(schedule):

        def on_commit(committed: int, task: Task = task) -> None:
            schedule.progress(task, committed)
            tracker.report()

        try:
            outcome = run_task(path, plan, task, paths=paths, on_commit=on_commit)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded
            reason = f"{type(error).__name__}: {error}"
            failed = schedule.broke(task, reason, traceback.format_exc())
            if failed is not None:
                _record_failure(path, plan, failed)
        else:
            if outcome == BUSY:
                schedule.owned_elsewhere(task, time.monotonic())
            else:
                schedule.finished(task)
        tracker.report()


def _tasks(schedule: Schedule[Task]) -> Iterator[Task]:
    while schedule.open:
        task = schedule.next(time.monotonic())
        if task is None:
            time.sleep(0.1)
        else:
            yield task
