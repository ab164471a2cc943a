"""Small plans and helpers for the engine's tests."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np

from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.train.plan import Task
from zoo.train.planner import plan
from zoo.train.trainer import TaskTrainer

TINY = {"width": 16, "batch_size": 16, "steps": 6, "depth": 2, "data": "digits"}


def sweep_of(runs, *, record=None, task_models=64):
    return SimpleNamespace(
        name="test",
        runs=lambda: tuple(runs),
        axes={},
        record=record or RecordSpec(steps=(2, 4), probe_size=8),
        paths={},
        options={} if task_models is None else {"task_models": task_models},
    )


def plan_of(runs, *, backend="eager", record=None, task_models=64):
    return plan(sweep_of(runs, record=record, task_models=task_models), backend=backend)


def train(runs, *, backend="eager", record=None, group_rows=None, resume=None):
    """Train runs that form one cohort; return (cohort, checkpoints)."""
    planned = plan_of(runs, backend=backend, record=record)
    (cohort,) = planned.cohorts
    if group_rows is not None:
        cohort = dataclasses.replace(cohort, group_rows=group_rows)
    trainer = TaskTrainer(planned, cohort, Task(cohort.id, 0, 0, cohort.models))
    return cohort, list(trainer.run(resume))


def trajectories(cohort, checkpoints):
    """Return {run_id: everything recorded for it, as bytes-comparable arrays}."""
    found = {}
    for row, run_id in enumerate(cohort.run_ids):
        parts = [c.weights[row] for c in checkpoints]
        parts += [c.metrics[name][row : row + 1] for c in checkpoints for name in c.metrics]
        parts += [
            c.probe[row].astype(np.float32).ravel() for c in checkpoints if c.probe is not None
        ]
        found[run_id] = np.concatenate(parts)
    return found


def specs(count, **fields):
    base = {**TINY, **fields}
    return [RunSpec(seed=s, **{"lr": 0.02 * (1 + s % 4), **base}) for s in range(count)]


def same_bits(a, b):
    return a.tobytes() == b.tobytes()
