"""From a sweep or a store, a profile and a wish to the draft of a submission."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.errors import Problem, SpecError
from zoo.launch.calibrate import PlanCost, plan_cost
from zoo.launch.cluster import ClusterStatus, cluster_status
from zoo.launch.prepare import check_extension, prepare_store, wrong_device
from zoo.launch.profile import ClusterProfile
from zoo.launch.submissions import TaskKey
from zoo.launch.submit import Draft, draft, select, task_seconds
from zoo.spec import Sweep, load_sweep
from zoo.store import is_store, read_plan, read_sweep
from zoo.train import planner
from zoo.train.plan import Plan

__all__ = ["WANTED", "Prepared", "prepare"]

#: What a plain submission takes: whatever nobody has, nothing that failed.
WANTED = ("waiting", "stopped")


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before anything is submitted.

    Args:
        path: the store.
        plan: its plan, as it will be.
        cost: of the cohorts that have something to submit.
        status: of the store; None where it is not made yet.
        draft: the elements.
    """

    path: Path
    plan: Plan
    cost: PlanCost
    status: ClusterStatus | None
    draft: Draft


def prepare(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    profile: ClusterProfile,
    *,
    wanted: Sequence[str] = WANTED,
    only: TaskKey | None = None,
    max_array: int = 1001,
    limit: int | None = None,
    calibrate_s: float = 8.0,
    backend: str | None = None,
    create: bool = True,
) -> Prepared:
    """Return the draft of a submission.

    Args:
        source: a sweep file, or a store to go on with.
        out: the store; may be left out where ``source`` is one.
        profile: the profile.
        wanted: words of the tasks to submit.
        only: one task.
        max_array: the largest array that the scheduler takes.
        limit: at most so many elements.
        calibrate_s: seconds of measuring, about.
        backend: for new cohorts; None = what the sweep says.
        create: whether the store is made or extended; False changes nothing at all.

    Raises:
        SpecError: a bad sweep, or one that does not fit the store.
        DataError: a data set is missing or another one.
        StoreError: the store cannot be made or read.
    """
    path, plan, sweep = _plan(source, out, backend, profile.device, create=create)
    if problems := wrong_device(plan, profile.device):
        raise SpecError(problems, f"profile {profile.name!r}")
    status = cluster_status(path) if is_store(path) else None
    tasks, skipped = select(plan, status, wanted, only=only)
    cohorts = {cohort for cohort, _ in tasks}
    part = replace(plan, cohorts=tuple(c for c in plan.cohorts if c.id in cohorts))
    cost = plan_cost(part, workers=profile.processes, paths=sweep.paths, budget_s=calibrate_s)
    committed: dict[TaskKey, int] = {}
    if status is not None:
        committed = {(line.cohort, line.task): line.committed for line in status.store.tasks}
    found = draft(
        plan,
        profile,
        tasks,
        task_seconds(part, cost, committed),
        max_array=max_array,
        limit=limit,
        skipped=skipped,
    )
    return Prepared(path, plan, cost, status, found)


def _plan(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    backend: str | None,
    device: str,
    *,
    create: bool,
) -> tuple[Path, Plan, Sweep]:
    if is_store(source):
        path = Path(source)
        if out is not None and Path(out).resolve() != path.resolve():
            message = f"{path} is a store already, and is finished where it is"
            raise SpecError([Problem("out", str(out), message, fix="leave --out away")], "submit")
        sweep = Sweep.from_toml(read_sweep(path), source=f"{path} (sweep)")
        return path, read_plan(path), sweep
    sweep = load_sweep(source)
    if out is None:
        problem = Problem("out", None, "is missing", "the path of a store", "give --out PATH.zarr")
        raise SpecError([problem], "submit")
    path = Path(out)
    chosen = backend or str(sweep.options.get("backend", "auto"))
    if create:
        return path, prepare_store(sweep, path, backend=chosen, device=device), sweep
    if not is_store(path):
        return path, planner.plan(sweep, backend=chosen, device=device), sweep
    base = read_plan(path)
    check_extension(sweep, base, backend=chosen, device=device, source=str(path))
    return path, planner.plan(sweep, base=base, backend=chosen, device=device), sweep
