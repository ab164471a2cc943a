"""What a plan will cost: bytes and shards exactly, seconds from a few measured steps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.arithmetic import pinned
from zoo.stages.cost import makespan, rough_seconds
from zoo.train.backends import reachable
from zoo.train.plan import Cohort, Plan, Task
from zoo.train.trainer import Engine, TaskTrainer

__all__ = ["CohortCost", "PlanCost", "plan_cost"]

#: Steps of one group before each checkpoint: to warm up, then few and many, whose difference is
#: free of the evaluation that both have.
_SEGMENTS = (3, 8, 72)
#: Seconds that a checkpoint of a task takes to reach the disk.
_COMMIT_S = 0.01
#: Seconds that a worker takes to start.
_START_S = 3.0


@dataclass(frozen=True, slots=True)
class CohortCost:
    """What one cohort costs.

    Args:
        cohort: its id.
        models, checkpoints, params, tasks: its size.
        bytes: values of all arrays with a checkpoint axis, before compression.
        shards: files of weights and probe logits.
        seconds: of one core, for all of its models.
        measured: whether the seconds come from measured steps of this very cohort.
    """

    cohort: str
    models: int
    checkpoints: int
    params: int
    tasks: int
    bytes: int
    shards: int
    seconds: float
    measured: bool


@dataclass(frozen=True, slots=True)
class PlanCost:
    """What a plan costs.

    Args:
        cohorts: one entry per cohort, in plan order.
        workers: processes that the time is meant for.
        seconds: wall time with them, starting included.
    """

    cohorts: tuple[CohortCost, ...]
    workers: int
    seconds: float

    @property
    def bytes(self) -> int:
        """Bytes before compression."""
        return sum(c.bytes for c in self.cohorts)

    @property
    def shards(self) -> int:
        """Files of weights and probe logits."""
        return sum(c.shards for c in self.cohorts)

    @property
    def core_seconds(self) -> float:
        """Seconds of one core."""
        return sum(c.seconds for c in self.cohorts)

    def to_json(self) -> dict[str, Any]:
        """Return the cost, JSON-ready."""
        return {
            "workers": self.workers,
            "seconds": self.seconds,
            "core_seconds": self.core_seconds,
            "bytes": self.bytes,
            "shards": self.shards,
            "cohorts": [{n: getattr(c, n) for n in CohortCost.__slots__} for c in self.cohorts],
        }


def plan_cost(
    plan: Plan, *, workers: int, paths: Mapping[str, str] | None = None, budget_s: float = 8.0
) -> PlanCost:
    """Return what a plan costs on this machine.

    The cohorts that look most expensive are measured first, until the budget is spent; the others
    are scaled from the measured ones. Two measurements are upper bounds: a compiled cohort is
    measured eagerly, and one for GPUs on the CPU where there is none, as on most login nodes.

    Args:
        plan: the plan.
        workers: processes.
        paths: user paths of data sets.
        budget_s: seconds of measuring, about; 0 = measure nothing, otherwise at least one.

    Raises:
        DataError: a data set is missing, or not the one that was planned with.
    """
    rough = {c.id: sum(rough_seconds(c, task) for task in c.tasks()) for c in plan.cohorts}
    measured: dict[str, float] = {}
    end = time.monotonic() + budget_s
    for cohort in sorted(plan.cohorts, key=lambda c: rough[c.id], reverse=True):
        if budget_s <= 0 or (measured and time.monotonic() >= end):
            break
        measured[cohort.id] = _measure(plan, cohort, paths or {}, end)
    ratios = [measured[name] / rough[name] for name in measured if rough[name] > 0]
    scale = float(np.median(ratios)) if ratios else 1.0
    costs = tuple(
        _cohort_cost(plan, c, measured.get(c.id, rough[c.id] * scale), c.id in measured)
        for c in plan.cohorts
    )
    shares = [
        cost.seconds * task.models / cohort.models
        for cohort, cost in zip(plan.cohorts, costs, strict=True)
        for task in cohort.tasks()
    ]
    return PlanCost(costs, workers, makespan(shares, workers) + (_START_S if shares else 0.0))


def _metric_bytes(cohort: Cohort) -> int:
    """Return the bytes of one model's metrics at one checkpoint."""
    return sum(np.dtype(metric.dtype).itemsize for metric in cohort.metrics)


def _cohort_cost(plan: Plan, cohort: Cohort, seconds: float, measured: bool) -> CohortCost:  # noqa: FBT001
    M, K, P, C = cohort.models, cohort.checkpoints, cohort.params, cohort.data_shape.total
    probes = len(plan.data[plan.data_key(cohort.runs[0])].get("probe_indices", ()))
    tasks = len(list(cohort.tasks()))
    return CohortCost(
        cohort=cohort.id,
        models=M,
        checkpoints=K,
        params=P,
        tasks=tasks,
        bytes=M * K * (4 * P + 2 * probes * C + _metric_bytes(cohort)),
        shards=tasks * K * (2 if probes else 1),
        seconds=seconds,
        measured=measured,
    )


def _measure(plan: Plan, cohort: Cohort, paths: Mapping[str, str], end: float) -> float:
    """Return the seconds of a cohort, from a few steps and evaluations of its last group.

    The last group has the longest runs, so that there are steps enough to time.
    """
    count = min(cohort.group_rows, cohort.models)
    runs, total = cohort.runs[-count:], int(cohort.steps[-count:, -1].min())
    points = np.minimum([0, *np.cumsum(_SEGMENTS)], total)
    steps = np.tile(points.astype(np.int64), (count, 1))
    sample = replace(cohort, runs=runs, steps=steps, epochs=steps.astype(np.float64))
    with pinned():
        trainer = TaskTrainer(
            plan,
            sample,
            Task(cohort.id, 0, 0, count),
            engine=Engine("eager", cohort.device if reachable(cohort.device) else "cpu"),
            paths=paths,
            kept={run.run_id: np.arange(run.examples) for run in runs},  # as many as any others
        )
        stamps = [time.monotonic()]
        for _ in trainer.run():
            stamps.append(time.monotonic())
            if stamps[-1] > end and len(stamps) > 2:  # two checkpoints tell something already
                break
    evaluation, a_step = _rates(np.diff(stamps), np.diff(points))
    groups = -(-cohort.models // cohort.group_rows)
    lengths = cohort.steps[:, -1].reshape(-1)
    # A group steps until its longest run is over, and runs of like length stand together.
    longest = sum(
        int(lengths[i : i + cohort.group_rows].max())
        for i in range(0, len(lengths), cohort.group_rows)
    )
    commits = len(list(cohort.tasks())) * cohort.checkpoints * _COMMIT_S
    return a_step * longest + evaluation * groups * cohort.checkpoints + commits


def _rates(spent: NDArray[np.float64], taken: NDArray[np.int64]) -> tuple[float, float]:
    """Return the seconds of an evaluation and of a step.

    Args:
        spent: seconds until each checkpoint since the one before: the first evaluation alone, then
            steps with an evaluation behind them; as many as there was time for, at least two.
        taken: steps before each checkpoint but the first.
    """
    if len(spent) == len(taken) + 1 and taken[-1] > taken[-2]:
        few, many = float(spent[-2]), float(spent[-1])
        a_step = (many - few) / int(taken[-1] - taken[-2])
        evaluation = few - a_step * int(taken[-2])
        if a_step > 0 and evaluation > 0:
            return evaluation, a_step
    # little was measured, or the machine was busy: the first evaluation counts too much
    last, count = float(spent[-1]), max(int(taken[len(spent) - 2]), 1)
    evaluation = min(float(spent[0]), last / 2)
    return evaluation, (last - evaluation) / count
