"""From a sweep or a store, a profile and a wish to the draft of a submission."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.errors import Problem, SpecError
from zoo.launch.calibrate import PlanCost, plan_cost
from zoo.launch.cluster import ClusterStatus, cluster_status, unclear_owners
from zoo.launch.profile import ClusterProfile
from zoo.launch.submissions import TaskKey
from zoo.launch.submit import Draft, draft, select, task_seconds
from zoo.paths import absolute
from zoo.spec import load_sweep
from zoo.stages.plan import placed, plan_extension, prepare_store, wrong_device
from zoo.store import data_paths, is_store, read_plan
from zoo.store.leases import term_s
from zoo.store.locks import watch_leases
from zoo.train import planner
from zoo.train.plan import Plan

__all__ = ["WANTED", "Prepared", "Wish", "drafted"]

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


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be submitted, and how.

    Args:
        wanted: words of the tasks to submit.
        only: one task.
        max_array: the largest array that the scheduler takes.
        limit: at most so many elements.
        calibrate_s: seconds of measuring, about.
        backend: for new cohorts; None = what the sweep says.
        create: whether the store is made or extended, and owners on other hosts are watched where
            nothing else tells whether they are alive; False changes nothing, and does not wait.
        paths: data set or score file -> path, before environment variables and the sweep's own.
        notice: told why it takes a while.
    """

    wanted: Sequence[str] = WANTED
    only: TaskKey | None = None
    max_array: int = 1001
    limit: int | None = None
    calibrate_s: float = 8.0
    backend: str | None = None
    create: bool = True
    paths: Mapping[str, str] | None = None
    notice: Callable[[str], None] = lambda text: None


def drafted(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    profile: ClusterProfile,
    wish: Wish,
) -> Prepared:
    """Return the draft of a submission.

    Args:
        source: a sweep file, or a store that is not complete.
        out: the store; may be left out where ``source`` is one.
        profile: the profile.
        wish: what is to be submitted.

    Raises:
        SpecError: a bad sweep, or one that does not fit the store.
        DataError: a data set is missing or another one.
        StoreError: the store cannot be made or read.
    """
    path, plan, places = _plan(source, out, wish, profile.device)
    if problems := wrong_device(plan, profile.device):
        raise SpecError(problems, f"profile {profile.name!r}")
    status = cluster_status(path) if is_store(path) else None
    if wish.create and status is not None:
        status = _watched(path, status, wish.notice)
    tasks, skipped = select(plan, status, wish.wanted, only=wish.only)
    cohorts = {cohort for cohort, _ in tasks}
    part = replace(plan, cohorts=tuple(c for c in plan.cohorts if c.id in cohorts))
    cost = plan_cost(part, workers=profile.processes, paths=places, budget_s=wish.calibrate_s)
    committed: dict[TaskKey, int] = {}
    if status is not None:
        committed = {(line.cohort, line.task): line.committed for line in status.store.tasks}
    seconds = task_seconds(part, cost, committed)
    found = draft(
        plan,
        profile,
        {key: seconds[key] for key in tasks},
        max_array=wish.max_array,
        limit=wish.limit,
        skipped=skipped,
    )
    return Prepared(path, plan, cost, status, found)


def _watched(path: Path, status: ClusterStatus, notice: Callable[[str], None]) -> ClusterStatus:
    """Return the status after a look at those owners of whom the clocks alone tell."""
    unclear = unclear_owners(path, status)
    if not unclear:
        return status
    notice(
        f"watching the heartbeats of {len(unclear)} tasks on other hosts, for {term_s():g} s at"
        " most: the clocks of hosts do not tell whether a process is alive"
    )
    watch_leases(path, unclear)
    return cluster_status(path)


def _plan(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    wish: Wish,
    device: str,
) -> tuple[Path, Plan, Mapping[str, str]]:
    """Return the store, its plan, and where its data is."""
    if is_store(source):
        path = absolute(source)
        if out is not None and absolute(out).resolve() != path.resolve():
            message = f"{path} is a store already, and is finished where it is"
            raise SpecError([Problem("out", str(out), message, fix="omit --out")], "submit")
        return path, read_plan(path), data_paths(path, wish.paths)
    sweep = load_sweep(source)
    if out is None:
        problem = Problem("out", None, "is missing", "the path of a store", "give --out PATH.zarr")
        raise SpecError([problem], "submit")
    path = absolute(out)
    chosen = wish.backend or str(sweep.options.get("backend", "auto"))
    here = placed(sweep, wish.paths)
    if wish.create:
        plan = prepare_store(sweep, path, backend=chosen, device=device, paths=wish.paths)
    elif is_store(path):
        plan = plan_extension(here, path, backend=chosen, device=device)[1]
    else:
        plan = planner.plan(here, backend=chosen, device=device, paths=here.paths)
    return path, plan, here.paths
