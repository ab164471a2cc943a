"""How long tasks take: a rough model that needs no measurement, and the schedule that follows."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np

from zoo.train.plan import Cohort, Task

__all__ = ["makespan", "rough_seconds"]

#: A core's useful rate on stacked small products (operations a second), and the price of a step
#: of one group (s). Only the order of the tasks, and what calibration did not reach, depend on it.
_RATE = 2e10
_STEP_S = 5e-4


def rough_seconds(cohort: Cohort, task: Task, *, committed: int = 0) -> float:
    """Return a guess at the seconds that the rest of a task takes on one core.

    Args:
        cohort: the task's cohort.
        task: the task.
        committed: checkpoints that are there already.
    """
    rows = slice(task.start, task.stop)
    steps = cohort.steps[rows].astype(np.float64)
    last = steps[:, -1]
    there = steps[:, committed - 1] if committed else np.zeros_like(last)
    share = np.divide(last - there, last, out=np.zeros_like(last), where=last > 0)
    groups = -(-task.models // cohort.group_rows)
    overhead = groups * float(np.max(last - there, initial=0.0)) * _STEP_S
    return float((cohort.train_flops[rows] * share).sum()) / _RATE + overhead


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Return when the last of ``workers`` is done, tasks being handed out longest first (s)."""
    free = [0.0] * max(workers, 1)
    for cost in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + cost)
    return max(free)
