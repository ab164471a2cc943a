"""Fabricated plans and checkpoints: every value a function of (run, checkpoint), no engine."""

from __future__ import annotations

import dataclasses

import numpy as np

from zoo.architectures.layout import Layout, Segment
from zoo.data import DataShape
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.store import TaskWriter
from zoo.train.checkpoint import METRICS, Checkpoint
from zoo.train.plan import Cohort, Plan, metrics_of

K, Q, C, EXAMPLES = 4, 6, 10, 640
RECORDED = metrics_of(METRICS)
SWEEP = 'name = "fabricated"\n'


def make_cohort(
    name="mlp-a",
    *,
    models=13,
    width=64,
    norm="layer",
    params=300,
    task_rows=5,
    seed=0,
    metrics=RECORDED,
):
    optimizers = ("sgd", "adam", "rmsprop")
    runs = tuple(
        RunSpec(
            width=width,
            norm=norm,
            lr=0.1 / (i + 1),
            optimizer=optimizers[i % 3],
            batch_size=32,
            epochs=3,
            seed=seed + i,
        ).resolve(EXAMPLES)
        for i in range(models)
    )
    steps = np.tile(np.arange(K, dtype=np.int64) * 20, (models, 1))
    layout = Layout(
        (
            Segment("hidden.0.weight", (params // 10 - 1, 10), 0, "kernel", 10),
            Segment("hidden.0.bias", (10 + params % 10,), params // 10 * 10 - 10, "bias"),
        )
    )
    assert layout.params == params
    return Cohort(
        id=name,
        key={"architecture": "mlp", "width": width, "norm": norm},
        runs=runs,
        steps=steps,
        epochs=steps / 20,
        layout=layout,
        architecture={"family": "mlp", "train_flops_per_example": 1234, "groups": [[0, 1]]},
        task_rows=min(task_rows, models),
        group_rows=4,
        data_shape=DataShape((1, 8, 8), C),
        metrics=tuple(metrics),
    )


def make_plan(*cohorts, probe=Q):
    if not cohorts:
        second = make_cohort("mlp-b", width=16, norm="none", params=217, seed=100)
        cohorts = (make_cohort(), second)
    facts = {"fingerprint": "ab" * 32, "probe_indices": list(range(probe)), "classes": C}
    record = RecordSpec(every_epochs=1.0, probe_size=probe)
    return Plan("fabricated", {"load": "width"}, record, {"digits": facts}, tuple(cohorts))


def diverges_at(cohort, row):
    """Row 2 diverges at step 25 and row 7 at the start; the others do well."""
    return {2: 25, 7: 0}.get(row, -1)


def values_of(cohort, row, k, probe=Q):
    """Return the weights, metrics and probe of one model at one checkpoint; NaN once diverged."""
    rng = np.random.default_rng([int(cohort.run_ids[row], 16) & 0xFFFFFFFF, k])
    weights = rng.normal(size=cohort.params).astype(np.float32)
    metrics = {m.name: np.dtype(m.dtype).type(rng.normal()) for m in cohort.metrics}
    logits = rng.normal(size=(probe, cohort.data_shape.total)).astype(np.float16)
    if k == 0:
        metrics["grad_norm"] = metrics["update_norm"] = np.float32(np.nan)
    if k == 1:
        metrics["grad_norm"] = np.float32(np.inf)
    if gone(cohort, row, k):
        weights[:], logits[:] = np.nan, np.nan
        metrics = {m.name: np.dtype(m.dtype).type(np.nan) for m in cohort.metrics}
    return weights, metrics, logits


def gone(cohort, row, k):
    step = diverges_at(cohort, row)
    return 0 <= step <= cohort.steps[row, k]


def make_checkpoint(cohort, task, k, probe=Q):
    rows = range(task.start, task.stop)
    found = [values_of(cohort, row, k, probe) for row in rows]
    steps = [diverges_at(cohort, r) if gone(cohort, r, k) else -1 for r in rows]
    rng = np.random.default_rng([task.index, k])
    return Checkpoint(
        index=k,
        weights=np.stack([w for w, _, _ in found]),
        metrics={n: np.array([m[n] for _, m, _ in found]) for n in found[0][1]},
        probe=np.stack([p for _, _, p in found]) if probe else None,
        diverged_step=np.array(steps, dtype=np.int64),
        resume={"momentum": rng.normal(size=(task.models, cohort.params)).astype(np.float32)},
    )


def with_weight(checkpoint, value):
    weights = checkpoint.weights.copy()
    weights[0, 0] = value
    return dataclasses.replace(checkpoint, weights=weights)


def train_task(path, cohort, task, *, stop=None, probe=Q):
    """Commit the task's checkpoints that are missing, up to ``stop``; seal it at the end."""
    with TaskWriter(path, cohort, task) as writer:
        point = writer.resume_point()
        for k in range(0 if point is None else point.index + 1, cohort.checkpoints):
            if k == stop:
                return
            writer.commit(make_checkpoint(cohort, task, k, probe))
        writer.seal({"backend": "fabricated", "wall_s": 1.5})


def fill(path, plan, probe=Q):
    for task in plan.tasks():
        train_task(path, plan.cohort(task.cohort), task, probe=probe)


def expected(cohort, probe=Q):
    """Return what a full store holds: weights [M, K, P], metrics [M, K], probe [M, K, Q, C]."""
    M = cohort.models
    table = [[values_of(cohort, i, k, probe) for k in range(K)] for i in range(M)]
    weights = np.stack([np.stack([v[0] for v in row]) for row in table])
    metrics = {n: np.array([[v[1][n] for v in row] for row in table]) for n in table[0][0][1]}
    logits = np.stack([np.stack([v[2] for v in row]) for row in table])
    return weights, metrics, logits
