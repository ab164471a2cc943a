"""``zoo run`` on one machine: plan, store, worker processes, retries, a clean stop."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import Problem, SpecError
from zoo.launch.diets import measure_diets, score_first
from zoo.launch.executor import Step
from zoo.launch.gpus import gpu_seats
from zoo.launch.pool import WORKER
from zoo.launch.progress import Reporter
from zoo.launch.queue import Failed
from zoo.launch.workers import Local
from zoo.paths import absolute
from zoo.provenance import usable_cores
from zoo.spec import Sweep, load_sweep
from zoo.stages.plan import placed, prepare_store, wrong_device
from zoo.stages.train import Training
from zoo.store import (
    StoreReader,
    data_paths,
    is_store,
    read_plan,
    task_states,
)
from zoo.store.data_paths import names_of_files
from zoo.train.backends import check_compiler, check_device
from zoo.train.plan import Plan, Task
from zoo.train.task_data import planned_data

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
    paths: Mapping[str, str] | None = None,
) -> RunSummary:
    """Train a sweep into a store; run it again to go on, to extend the store, or to do nothing.

    Args:
        sweep: a sweep, the path of a sweep file, or the path of a store to finish.
        out: the store; may be left out where ``sweep`` is a store.
        workers: processes of one thread each; 0 = train in this process; None = what the sweep
            says, otherwise one per core or one a GPU, and never more than there are open tasks.
        backend: ``"auto"``, ``"eager"``, ``"compiled"`` or ``"reference"``; None = what the sweep
            says, otherwise auto.
        device: ``"cpu"`` or ``"cuda"``, for a store that is new; None = what the store or the
            sweep says, otherwise the CPU.
        progress: told of every change; see :func:`zoo.launch.progress.reporter`.
        limit: end after so many tasks; None = all.
        command: how a worker process is started.
        paths: data set or score file -> path, before environment variables (``ZOO_DATA_<NAME>``)
            and what the sweep or the store says.

    Raises:
        SpecError: bad arguments or a bad sweep, or one that does not fit the store.
        MissingDataError: a data set or score file is not on this machine.
        DataError: it does not have the content that the store was made with.
        StoreError: the store cannot be written.
        TrainError: the workers cannot be started, or the device is not here.
    """
    _check_counts(workers, limit)
    plan, path, options, paths = _prepare(sweep, out, backend, device, paths)
    _check_data(path, plan, paths)
    seats = _seats(path, plan)
    if workers is None:
        workers = options.get("workers") or len(seats) or usable_cores()
    cores = usable_cores() if seats and workers else workers  # for scores and metrics of diets
    scored = score_first(path, plan, workers=cores, progress=progress, paths=paths)
    if scored is not None and not scored.published:
        limit = 0  # stopped: training waits for its diets
    training = Training(path, plan, {}, paths)
    ended = Local(
        workers, command, seats, progress=progress, choose=lambda parts: parts[:limit]
    ).carry_out(Step(training))
    status = Counter(str(s) for c in StoreReader(path).cohorts for s in c.status)
    if not ended.stopped and status.keys() <= {"done", "diverged"}:
        measure_diets(path, plan, workers=cores, progress=progress, paths=paths)
    return RunSummary(
        path=path,
        models=plan.models,
        status=dict(status),
        trained=sum(part.models for part in ended.done),
        tasks=len(ended.done),
        seconds=ended.seconds,
        workers=ended.workers,
        stopped=ended.stopped or (limit is not None and ended.open > limit),
        failures=tuple(
            Failed(training.task(f.task.key), f.reason, f.traceback) for f in ended.failed
        ),
    )


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
    paths: Mapping[str, str] | None,
) -> tuple[Plan, Path, Mapping[str, Any], Mapping[str, str]]:
    """Return plan, path, options and data paths."""
    if not isinstance(sweep, Sweep):
        if is_store(sweep):
            return _prepare_store(absolute(sweep), out, backend, device, paths)
        sweep = load_sweep(sweep)
    if out is None:
        problem = Problem("out", None, "is missing", "the path of a store", "give --out PATH.zarr")
        raise SpecError([problem], "run")
    chosen = backend if backend is not None else sweep.options.get("backend", "auto")
    wanted = device if device is not None else sweep.options.get("device")
    path = absolute(out)
    plan = prepare_store(
        sweep,
        path,
        backend=chosen,
        device=wanted,
        before=_check_trainable_here,
        paths=paths,
    )
    # The store may have open tasks on data sets that this sweep does not name.
    found = {**data_paths(path), **placed(sweep, paths).paths}
    used = names_of_files(plan)
    return plan, path, sweep.options, {name: found[name] for name in found if name in used}


def _check_trainable_here(plan: Plan) -> None:
    """Refuse cohorts that this machine cannot train, before a store is made for them."""
    for cohort in plan.cohorts:
        check_device(cohort.device)
        if cohort.backend == "compiled" and cohort.device == "cpu":
            check_compiler()


def _prepare_store(
    path: Path,
    out: str | os.PathLike[str] | None,
    backend: str | None,
    device: str | None,
    paths: Mapping[str, str] | None,
) -> tuple[Plan, Path, Mapping[str, Any], Mapping[str, str]]:
    """Return the same for a store that only has to be finished."""
    problems = []
    if out is not None and absolute(out).resolve() != path.resolve():
        message = f"{path} is a store already, and is finished where it is"
        problems.append(Problem("out", str(out), message, fix="omit --out"))
    if backend not in (None, "auto"):
        message = "a store keeps the backend that it was planned with"
        problems.append(Problem("backend", backend, message, fix="omit --backend"))
    plan = read_plan(path)
    problems += wrong_device(plan, device)
    if problems:
        raise SpecError(problems, "run")
    return plan, path, plan.options, data_paths(path, paths)


def _check_data(path: Path, plan: Plan, paths: Mapping[str, str]) -> None:
    """Make sure that what is left to train has its data: one error, and not one for each task."""
    left = {state.task.cohort for state in task_states(path) if not state.sealed}
    for key in sorted({plan.data_key(plan.cohort(cohort).runs[0]) for cohort in left}):
        planned_data(plan, key, paths)
