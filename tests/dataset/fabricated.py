"""A store in memory, made of random numbers: the reader's interface without the disk."""

from __future__ import annotations

import zlib
from types import MappingProxyType

import numpy as np

from zoo.architectures import build
from zoo.data import DataShape
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.train.checkpoint import METRICS
from zoo.train.plan import Cohort, Plan, metrics_of

EXAMPLES, EXAMPLE_SHAPE, CLASSES, PROBE = 64, (1, 8, 8), 10, 4


class MemoryCohort:
    """One fabricated cohort; ``recorded`` decides what is there, all else follows."""

    def __init__(self, cohort, recorded, rng, *, status=None, accuracy=None):
        M, K, P = cohort.models, cohort.checkpoints, cohort.params
        self.cohort = cohort
        self.recorded = recorded
        self.last = np.where(recorded.any(1), recorded.sum(1) - 1, -1)
        known = np.where(recorded.all(1), "done", np.where(recorded.any(1), "diverged", "planned"))
        self.status = known.astype("<U8") if status is None else np.asarray(status)
        self.reason = np.where(self.status == "diverged", "loss is not finite", "")
        stop = np.minimum(self.last + 1, K - 1)
        diverged_at = cohort.steps[np.arange(M), stop]
        self.diverged_step = np.where(self.status == "diverged", diverged_at, -1)
        self.wall_s = rng.uniform(1, 5, M)
        self._metrics = {
            name: np.where(recorded, rng.integers(0, 20, (M, K)) / 20, np.nan).astype(np.float32)
            for name in METRICS
        }
        if accuracy is not None:
            shown = np.where(recorded, accuracy, np.nan)
            self._metrics["test_accuracy"] = shown.astype(np.float32)
        self._weights = rng.normal(size=(M, K, P)).astype(np.float32)
        self._weights[~recorded] = np.nan
        self._probe = rng.normal(size=(M, K, PROBE, CLASSES)).astype(np.float16)
        self._probe[~recorded] = np.nan

    derived = MappingProxyType({})

    def read_derived(self, name):
        raise KeyError(name)

    def metric(self, name):
        return self._metrics[name]

    def read_weights(self, rows, ks):
        return self._weights[rows, ks]

    def weight_checksums(self, rows, ks):
        return np.array([zlib.crc32(row.tobytes()) for row in self._weights[rows, ks]])

    def read_probe(self, rows, ks):
        return self._probe[rows, ks]


class MemoryStore:
    def __init__(self, plan, cohorts):
        self.plan = plan
        self.cohorts = cohorts
        self.refreshed = 0

    def refresh(self):
        self.refreshed += 1


def make_cohort(specs, *, checkpoints=4, name=None):
    """Return a planned cohort of specs with the same architecture, checkpoints evenly spaced."""
    runs = tuple(spec.resolve(EXAMPLES) for spec in specs)
    network = build(runs[0], DataShape(EXAMPLE_SHAPE, CLASSES))
    per_epoch = np.array([r.train_size // r.batch_size for r in runs])
    steps = np.array([np.linspace(0, r.steps, checkpoints).round() for r in runs]).astype(np.int64)
    return Cohort(
        id=name or f"{runs[0].architecture}-w{runs[0].width}-{runs[0].norm}",
        key={"width": runs[0].width, "norm": runs[0].norm},
        runs=runs,
        steps=steps,
        epochs=steps / per_epoch[:, None],
        layout=network.layout,
        architecture={"train_flops_per_example": 3 * network.flops()},
        task_rows=4,
        group_rows=4,
        data_shape=DataShape(EXAMPLE_SHAPE, CLASSES),
        metrics=metrics_of(METRICS),
    )


def make_plan(cohorts, *, axes=None, name="fabricated", probe_size=PROBE):
    facts = {
        "fingerprint": "0" * 64,
        "train_examples": EXAMPLES,
        "probe_indices": list(range(PROBE)),
    }
    return Plan(name, axes or {}, RecordSpec(probe_size=probe_size), {"digits": facts}, cohorts)


def make_store(seed=0, *, models=(5, 3), checkpoints=(4, 3), cuts=True):
    """Return a store of two MLP cohorts; with ``cuts``, rows end early (also with nothing)."""
    rng = np.random.default_rng(seed)
    cohorts = []
    for index, (M, K) in enumerate(zip(models, checkpoints, strict=True)):
        width, norm = ((8, "none"), (16, "batch"))[index]
        specs = [
            RunSpec(
                width=width,
                norm=norm,
                lr=float(rng.choice([0.01, 0.1, 1.0])),
                batch_size=int(rng.choice([4, 8])),
                optimizer="sgd" if index else "adam",
                epochs=6,
                seed=1000 * index + i,
            )
            for i in range(M)
        ]
        cohort = make_cohort(specs, checkpoints=K)
        count = rng.integers(0, K + 1, M) if cuts else np.full(M, K)
        recorded = np.arange(K)[None] < count[:, None]
        cohorts.append(MemoryCohort(cohort, recorded, rng))
    axes = {"load": "width", "temperature": "batch_size"}
    return MemoryStore(make_plan(tuple(c.cohort for c in cohorts), axes=axes), cohorts)
