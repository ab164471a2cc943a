"""The plan: before anything runs, each run has its cohort, its row and its task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.architectures.layout import Layout
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec, field_infos

__all__ = ["Cohort", "Plan", "Task"]


@dataclass(frozen=True, slots=True)
class Task:
    """Rows ``[start, stop)`` of a cohort: what one worker owns, and what one shard holds."""

    cohort: str
    index: int
    start: int
    stop: int

    @property
    def models(self) -> int:
        """Number of rows."""
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Cohort:
    """Runs with the same computation, which therefore stack.

    Args:
        id: name of the cohort's Zarr group: architecture, hash of the key, segment.
        key: the field values that the runs share because they decide the computation.
        runs: resolved specs, one a row (M).
        steps: ``[M, K]`` int64, the step of each checkpoint.
        epochs: ``[M, K]`` float64, the same in epochs.
        layout: the parameter layout of a row (P columns).
        architecture: JSON-ready description: operations, permutation groups, symmetries, FLOPs.
        task_rows: rows of every task but the last.
        group_rows: G, rows that step together; every group is padded to it with dummy models.
        example_shape: shape of one input example.
        classes: C.
        backend: ``"eager"``, ``"compiled"`` or ``"reference"``; part of what decides the bits.
        device: type of the device that it trains on, ``"cpu"`` or ``"cuda"``; likewise.
        fields: the run-spec fields that there were when it was planned, which are the columns that
            its store has; every run has the default of those that came later.
    """

    id: str
    key: Mapping[str, Any]
    runs: tuple[RunSpec, ...]
    steps: NDArray[np.int64]
    epochs: NDArray[np.float64]
    layout: Layout
    architecture: Mapping[str, Any]
    task_rows: int
    group_rows: int
    example_shape: tuple[int, ...]
    classes: int
    backend: str = "eager"
    device: str = "cpu"
    fields: tuple[str, ...] = field(default_factory=lambda: tuple(field_infos()))

    @property
    def models(self) -> int:
        """M: rows."""
        return len(self.runs)

    @property
    def checkpoints(self) -> int:
        """K: checkpoints of every run."""
        return int(self.steps.shape[1])

    @property
    def params(self) -> int:
        """P: columns of a row."""
        return self.layout.params

    @cached_property
    def run_ids(self) -> tuple[str, ...]:
        """The run id of each row."""
        return tuple(run.run_id for run in self.runs)

    @property
    def train_flops(self) -> NDArray[np.float64]:
        """``[M]`` floating-point operations of each whole training run, a multiply-add as two."""
        per_example = float(self.architecture["train_flops_per_example"])
        return np.array([per_example * r.batch_size * (r.steps or 0) for r in self.runs])

    def tasks(self) -> Iterator[Task]:
        """Yield the tasks, in row order."""
        for index, start in enumerate(range(0, self.models, self.task_rows)):
            yield Task(self.id, index, start, min(start + self.task_rows, self.models))


@dataclass(frozen=True, eq=False)
class Plan:
    """Every cohort of a sweep.

    Args:
        name: the sweep's name.
        axes: ``{"load": field, "temperature": field}``, empty where the sweep names none.
        record: checkpoint plan and probe.
        data: for each data set, its ``fingerprint`` (sha256), sizes, shapes and normalisation.
        cohorts: in plan order; extending a sweep adds cohorts and never moves one.
    """

    name: str
    axes: Mapping[str, str]
    record: RecordSpec
    data: Mapping[str, Mapping[str, Any]]
    cohorts: tuple[Cohort, ...]

    @property
    def models(self) -> int:
        """Runs over all cohorts."""
        return sum(c.models for c in self.cohorts)

    def tasks(self) -> Iterator[Task]:
        """Yield the tasks of every cohort."""
        for cohort in self.cohorts:
            yield from cohort.tasks()

    def cohort(self, name: str) -> Cohort:
        """Return the cohort with id ``name``."""
        for cohort in self.cohorts:
            if cohort.id == name:
                return cohort
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Return the whole plan, JSON-ready."""
        return {
            "name": self.name,
            "axes": dict(self.axes),
            "record": self.record.to_dict(),
            "data": {k: dict(v) for k, v in self.data.items()},
            "cohorts": [_cohort_to_json(c) for c in self.cohorts],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Plan:
        """Rebuild a plan from :meth:`to_json`."""
        return cls(
            name=raw["name"],
            axes=raw["axes"],
            record=RecordSpec.from_dict(raw["record"]),
            data=raw["data"],
            cohorts=tuple(_cohort_from_json(c) for c in raw["cohorts"]),
        )


def _cohort_to_json(cohort: Cohort) -> dict[str, Any]:
    return {
        "id": cohort.id,
        "key": dict(cohort.key),
        "runs": [{n: v for n, v in r.to_dict().items() if n in cohort.fields} for r in cohort.runs],
        "steps": cohort.steps.tolist(),
        "epochs": cohort.epochs.tolist(),
        "layout": cohort.layout.to_json(),
        "architecture": dict(cohort.architecture),
        "task_rows": cohort.task_rows,
        "group_rows": cohort.group_rows,
        "example_shape": list(cohort.example_shape),
        "classes": cohort.classes,
        "backend": cohort.backend,
        "device": cohort.device,
    }


def _cohort_from_json(raw: Mapping[str, Any]) -> Cohort:
    return Cohort(
        id=raw["id"],
        key=raw["key"],
        runs=tuple(RunSpec.from_dict(run) for run in raw["runs"]),
        steps=np.asarray(raw["steps"], dtype=np.int64),
        epochs=np.asarray(raw["epochs"], dtype=np.float64),
        layout=Layout.from_json(raw["layout"]),
        architecture=raw["architecture"],
        task_rows=raw["task_rows"],
        group_rows=raw["group_rows"],
        example_shape=tuple(raw["example_shape"]),
        classes=raw["classes"],
        backend=raw["backend"],
        device=raw.get("device", "cpu"),  # stores are older than the choice
        fields=tuple(raw["runs"][0]),
    )
