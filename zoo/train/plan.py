"""The plan: before anything runs, each run has its cohort, its row and its task."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.architectures.layout import Layout
from zoo.data.shape import DataShape
from zoo.errors import no_such
from zoo.fields import Field
from zoo.plugins import remember_places
from zoo.spec.origin import Origin, TrainedOrigin
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec, field_infos
from zoo.train.plan_check import check_plan
from zoo.train.plan_rows import PlannedRow, row_to_json, rows_from_json

__all__ = ["UNDECLARED", "Cohort", "Metric", "Plan", "Task", "metrics_of"]

_TRAINED = TrainedOrigin()
#: What is known of a field that no entry declares.
UNDECLARED = "a field of a plug-in that is not loaded, or of another version"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number that is recorded of every model at every checkpoint.

    Args:
        name: as in a query.
        doc: one line, with the unit.
        dtype: ``"float32"`` or ``"float64"``.
    """

    name: str
    doc: str
    dtype: str = "float32"


def metrics_of(docs: Mapping[str, str]) -> tuple[Metric, ...]:
    """Return the metrics of the given names and descriptions, in float32."""
    return tuple(Metric(name, doc) for name, doc in docs.items())


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
        runs: resolved specs, one a row (M). They are what the plan says, and are not checked again.
        steps: ``[M, K]`` int64, the step of each checkpoint.
        epochs: ``[M, K]`` float64, the same in epochs.
        layout: the parameter layout of a row (P columns).
        architecture: JSON-ready description: operations, permutation groups, symmetries, FLOPs.
        task_rows: rows of every task but the last.
        group_rows: G, rows that step together; every group is padded to it with dummy models.
        data_shape: the form of an example and of its target.
        metrics: what is recorded at every checkpoint.
        backend: ``"eager"``, ``"compiled"`` or ``"reference"``; part of what decides the bits.
        device: type of the device that it trains on, ``"cpu"`` or ``"cuda"``; likewise.
        guessing: training loss of outputs that do not depend on the input; NaN = not known.
        fields: the run-spec fields that its store has as columns: those that there were when it was
            planned, but for hashes of content that no run has. Every run has the default of others.
        plugins: entry -> sha256 of the plug-in that brought it, of the entries that all runs use.
        run_ids: the id of each row; those of the specs where none are given.
        origins: where each row comes from; trained where nothing is given.
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
    data_shape: DataShape
    metrics: tuple[Metric, ...]
    backend: str = "eager"
    device: str = "cpu"
    guessing: float = math.nan
    fields: tuple[str, ...] = field(default_factory=lambda: tuple(field_infos()))
    plugins: Mapping[str, str] = field(default_factory=dict)
    run_ids: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()

    def __post_init__(self) -> None:
        if not self.run_ids:
            object.__setattr__(self, "run_ids", tuple(run.run_id for run in self.runs))
        if not self.origins:
            object.__setattr__(self, "origins", (TrainedOrigin(),) * len(self.runs))

    def __repr__(self) -> str:
        shape = f"{self.models} models x {self.checkpoints} checkpoints x {self.params} parameters"
        return f"<Cohort {self.id!r}: {shape}>"

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

    def rows_hash(self, task: Task | None = None) -> str:
        """Return the sha256 of the run ids of a task's rows, or of all rows, as hex.

        Records of rows carry it, so that a plan that puts other runs there is seen.
        """
        rows = self.run_ids if task is None else self.run_ids[task.start : task.stop]
        return hashlib.sha256("\0".join(rows).encode()).hexdigest()

    @property
    def train_flops(self) -> NDArray[np.float64]:
        """``[M]`` floating-point operations of each whole training run, a multiply-add as two.

        NaN for rows that were not trained here.
        """
        per_example = float(self.architecture["train_flops_per_example"])
        return np.array(
            [
                per_example * run.batch_size * (run.steps or 0) if origin == _TRAINED else np.nan
                for run, origin in zip(self.runs, self.origins, strict=True)
            ]
        )

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
        paths: data set or score file -> path, of all sweeps, the newest first.
        options: the ``[run]`` table of the newest sweep.
        plugins: sha256 -> path of every plug-in that a run uses.
    """

    name: str
    axes: Mapping[str, str]
    record: RecordSpec
    data: Mapping[str, Mapping[str, Any]]
    cohorts: tuple[Cohort, ...]
    paths: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Plan {self.name!r}: {self.models:,} runs in {len(self.cohorts):,} cohorts>"

    @property
    def models(self) -> int:
        """Runs over all cohorts."""
        return sum(c.models for c in self.cohorts)

    def data_key(self, run: RunSpec) -> str:
        """Return the key in ``data`` of the data set that a planned run uses.

        It is found from what was planned, so that it is found where a plug-in is not loaded, too.
        """
        for key, facts in self.data.items():
            options = facts.get("options", {})
            if facts.get("name", key) == run.data and all(
                getattr(run, name, None) == value for name, value in options.items()
            ):
                return key
        return str(run.data)

    @cached_property
    def run_fields(self) -> Mapping[str, Field]:
        """Every field of a run: those that are declared, and those that a run has besides.

        A field is declared nowhere where a plug-in is not loaded, or an entry is gone; its type
        follows from its values then.
        """
        found = dict(field_infos())
        strange = {name for cohort in self.cohorts for name in cohort.fields} - found.keys()
        for name in sorted(strange):
            runs = (run for cohort in self.cohorts for run in cohort.runs)
            kinds = {type(getattr(run, name, None)).__name__ for run in runs} - {"NoneType"}
            kind = "float" if kinds == {"int", "float"} else next(iter(kinds), "float")
            found[name] = Field(name, kind, None, UNDECLARED)
        return found

    def tasks(self) -> Iterator[Task]:
        """Yield the tasks of every cohort."""
        for cohort in self.cohorts:
            yield from cohort.tasks()

    def cohort(self, name: str) -> Cohort:
        """Return the cohort with id ``name``.

        Raises:
            UnknownNameError: there is none.
        """
        for cohort in self.cohorts:
            if cohort.id == name:
                return cohort
        raise no_such(name, "cohort", [cohort.id for cohort in self.cohorts])

    def to_json(self) -> dict[str, Any]:
        """Return the whole plan, JSON-ready."""
        return {
            "name": self.name,
            "axes": dict(self.axes),
            "record": self.record.to_dict(),
            "data": {k: dict(v) for k, v in self.data.items()},
            "paths": dict(self.paths),
            "options": dict(self.options),
            "plugins": dict(self.plugins),
            "cohorts": [_cohort_to_json(c) for c in self.cohorts],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Plan:
        """Rebuild a plan from :meth:`to_json`.

        Raises:
            ValueError: it is not that.
        """
        check_plan(raw)
        remember_places(raw.get("plugins", {}))
        return cls(
            name=raw["name"],
            axes=raw["axes"],
            record=RecordSpec.stored(raw["record"]),
            data=raw["data"],
            cohorts=tuple(
                _cohort_from_json(c, f"cohorts[{i}]") for i, c in enumerate(raw["cohorts"])
            ),
            paths=raw["paths"],
            options=raw["options"],
            plugins=raw.get("plugins", {}),
        )


def _cohort_to_json(cohort: Cohort) -> dict[str, Any]:
    return {
        "id": cohort.id,
        "key": dict(cohort.key),
        "runs": [
            row_to_json(PlannedRow(*row), cohort.fields)
            for row in zip(cohort.run_ids, cohort.origins, cohort.runs, strict=True)
        ],
        "steps": cohort.steps.tolist(),
        "epochs": cohort.epochs.tolist(),
        "layout": cohort.layout.to_json(),
        "architecture": dict(cohort.architecture),
        "task_rows": cohort.task_rows,
        "group_rows": cohort.group_rows,
        "data_shape": cohort.data_shape.to_json(),
        "metrics": [dataclasses.asdict(metric) for metric in cohort.metrics],
        "backend": cohort.backend,
        "device": cohort.device,
        "guessing": cohort.guessing if math.isfinite(cohort.guessing) else None,
        "plugins": dict(cohort.plugins),
    }


def _cohort_from_json(raw: Mapping[str, Any], place: str) -> Cohort:
    rows = rows_from_json(raw["runs"], f"{place}.runs")
    return Cohort(
        id=raw["id"],
        key=raw["key"],
        runs=tuple(row.spec for row in rows),
        steps=np.asarray(raw["steps"], dtype=np.int64),
        epochs=np.asarray(raw["epochs"], dtype=np.float64),
        layout=Layout.from_json(raw["layout"]),
        architecture=raw["architecture"],
        task_rows=raw["task_rows"],
        group_rows=raw["group_rows"],
        data_shape=DataShape.from_json(raw["data_shape"]),
        metrics=tuple(Metric(m["name"], m["doc"], m["dtype"]) for m in raw["metrics"]),
        backend=raw["backend"],
        device=raw["device"],
        guessing=math.nan if raw.get("guessing") is None else float(raw["guessing"]),
        fields=tuple(raw["runs"][0]["spec"]),
        plugins=raw.get("plugins", {}),
        run_ids=tuple(row.run_id for row in rows),
        origins=tuple(row.origin for row in rows),
    )
