"""The columns of a zoo: what can be asked for, and each cohort's values, read on first use.

A column has one value per run (``[M]``) or one per checkpoint (``[M, K]``). Spec fields keep their
own names, so ``lr`` is the run's peak learning rate; the recorded learning rate of a checkpoint is
``step_lr``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.source import CohortSource
from zoo.errors import QueryError
from zoo.fields import Field
from zoo.spec.origin import ORIGIN_COLUMNS, origin_columns
from zoo.spec.run import field_infos
from zoo.spec.unknown_column import unknown_column_text
from zoo.store.schema import metric_names, spec_column
from zoo.train.cells import cell_id
from zoo.train.plan import Cohort

__all__ = [
    "AXES",
    "STATUSES",
    "CohortColumns",
    "ColumnInfo",
    "column_catalogue",
    "derived_info",
    "headline",
    "metric_info",
    "rows_of_column",
    "stage_hint",
    "unknown_column",
]

#: The two axes of a phase diagram; a column each where the sweep names them.
AXES = ("load", "temperature")

#: What a run can be; ``running`` means that some of its checkpoints are committed.
STATUSES = ("planned", "running", "done", "diverged", "failed")

_IDENTITY = {
    "run_id": "sixteen hexadecimal digits, the hash of the spec",
    "cohort": "runs that were trained stacked; one weight matrix",
    "row": "row in the cohort",
    "cell": "runs of equal specs but for their seeds; sixteen hexadecimal digits",
}
_OUTCOME = {
    "status": f"{', '.join(STATUSES[:-1])} or {STATUSES[-1]}",
    "reason": "why the run diverged or failed, empty otherwise",
    "diverged_step": "step at which the loss was not finite; -1 if it never was",
    "params": "values in one checkpoint, buffers included",
    "flops": "floating-point operations of the whole training run",
    "wall_s": "wall time of the run's task (s), shared with the models that it trained",
}
_CHECKPOINT = {
    "checkpoint": "index on the cohort's checkpoint axis, 0 = initialisation",
    "step": "optimizer steps taken",
    "epoch": "passes over the training set",
    "from_end": "position among the run's recorded checkpoints: -1 is the last, -2 the one before",
}


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """What a column is.

    Args:
        name: as in a query.
        per: ``"run"`` or ``"checkpoint"``.
        doc: one line, with the unit.
    """

    name: str
    per: str
    doc: str


#: Axes of a derived array → what it has a value for, if it is a column at all.
_PER = {("model",): "run", ("model", "checkpoint"): "checkpoint"}


def headline(names: Container[str]) -> str:
    """Return the recorded column that says most: test accuracy, or R², or else the test loss."""
    return next(n for n in ("test_accuracy", "test_r2", "test_loss") if n in names)


def metric_info(cohorts: Iterable[Cohort]) -> dict[str, ColumnInfo]:
    """Return the columns of what any cohort records at every checkpoint (``test_loss``, ...)."""
    found: dict[str, ColumnInfo] = {}
    for cohort in cohorts:
        for metric in cohort.metrics:
            found.setdefault(metric.name, ColumnInfo(metric.name, "checkpoint", metric.doc))
    return found


def derived_info(sources: Iterable[CohortSource]) -> dict[str, ColumnInfo]:
    """Return the columns that stages added to any cohort (``phase``, ``lambda_max``, ...)."""
    found: dict[str, ColumnInfo] = {}
    for source in sources:
        for name, metadata in source.derived.items():
            per = _PER.get(tuple(metadata["dimension_names"]))
            if per is not None:
                found.setdefault(name, ColumnInfo(name, per, metadata["attributes"]["long_name"]))
    return found


def _absent(sources: Iterable[CohortSource], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the values of a derived column in a cohort that no stage has added it to."""
    kinds = {s.derived[name]["data_type"] for s in sources if name in s.derived}
    return np.full(shape, "") if kinds == {"string"} else np.full(shape, np.nan)


def column_catalogue(
    axes: Mapping[str, str],
    fields: Mapping[str, Field],
    recorded: Mapping[str, ColumnInfo],
    derived: Mapping[str, ColumnInfo],
) -> dict[str, ColumnInfo]:
    """Return every column of a zoo, in table order.

    Args:
        axes: ``{"load": field, "temperature": field}`` of the sweep, may be empty.
        fields: those that a run has.
        recorded: what is recorded at every checkpoint.
        derived: what stages added.
    """
    run = {**_IDENTITY, **ORIGIN_COLUMNS}
    run |= {axis: f"the {axis} axis: {axes[axis]}" for axis in AXES if axis in axes}
    run |= {info.name: info.doc for info in fields.values()}
    run |= _OUTCOME
    columns = [ColumnInfo(name, "run", doc) for name, doc in run.items()]
    columns += [ColumnInfo(name, "checkpoint", doc) for name, doc in _CHECKPOINT.items()]
    return {column.name: column for column in columns} | {**recorded, **derived}


def unknown_column(name: str, names: Iterable[str]) -> QueryError:
    """Return the error of a column that a zoo does not have: what to do, and the first names."""
    known = tuple(names)
    text = unknown_column_text(str(name), known, stage_hint(str(name), known))
    return QueryError(f"{text} (zoo info STORE --columns lists all)")


def stage_hint(name: str, known: Iterable[str]) -> str:
    """Return which verbs add a column that a zoo does not have yet, empty where none does."""
    from zoo.landscape import MODEL_METRICS

    landscape = {
        column.name: metric
        for metric in MODEL_METRICS
        for column in MODEL_METRICS[metric].columns
        if not column.dims
    }
    if name == "phase" or name.startswith("phase_"):
        measured = any(column in landscape for column in known)
        first = "" if measured else "run `zoo landscape STORE`, then "
        return f"models have no phase yet: {first}{'run ' * measured}`zoo label STORE`"
    if name in landscape:
        metric = landscape[name]
        option = "" if MODEL_METRICS[metric].default else f" --metrics {metric}"
        return f"it has not been measured yet: run `zoo landscape STORE{option}`"
    return ""


def rows_of_column(
    tables: Sequence[Mapping[str, NDArray[Any]]],
    name: str,
    cohorts: NDArray[np.int64],
    rows: NDArray[np.int64],
    checkpoints: NDArray[np.int64],
) -> NDArray[Any]:
    """Return the values of one column at n places of a zoo, ``[n]``.

    Args:
        tables: the columns of each cohort.
        name: of the column.
        cohorts, rows, checkpoints: ``[n]``, the places.
    """
    present = np.unique(cohorts)
    if not len(present):
        dtypes = [table[name].dtype for table in tables] or [np.dtype(np.float64)]
        return np.empty(0, dtype=np.result_type(*dtypes))
    where = [np.flatnonzero(cohorts == index) for index in present]
    parts = []
    for index, at in zip(present, where, strict=True):
        values = tables[index][name]
        place = (rows[at],) if values.ndim == 1 else (rows[at], checkpoints[at])
        parts.append(values[place])
    # concatenation finds the type that holds every cohort's values
    joined = np.concatenate(parts)
    result = np.empty_like(joined)
    result[np.concatenate(where)] = joined
    return result


def positions_from_end(recorded: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return ``[M, K]``: -1 at each row's last True, -2 at the one before, and so on."""
    counts = np.cumsum(recorded[:, ::-1], axis=1, dtype=np.int64)[:, ::-1]
    return -counts


class CohortColumns(Mapping[str, NDArray[Any]]):
    """The columns of one cohort, each made on first use and kept.

    Args:
        source: the cohort's reader.
        axes: ``{"load": field, "temperature": field}`` of the sweep.
        names: every column name.
        others: the readers of all cohorts, for metrics and derived columns that this one lacks.
        fields: those that a run has, if there are others than the declared ones.
    """

    def __init__(
        self,
        source: CohortSource,
        axes: Mapping[str, str],
        names: Iterable[str],
        others: Sequence[CohortSource] = (),
        fields: Mapping[str, Field] | None = None,
    ) -> None:
        self.source = source
        self._others = tuple(others)
        self.recorded: NDArray[np.bool_] = np.array(source.recorded, dtype=np.bool_)
        self._axes = axes
        self._fields = fields or {}
        self._names = tuple(names)
        self._cache: dict[str, NDArray[Any]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column, ``[M]`` if it is one of the run's and ``[M, K]`` otherwise."""
        if name not in self._cache:
            self._cache[name] = self._make(name)
        return self._cache[name]

    def broadcast(self, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return columns that broadcast to ``[M, K]``: a run's is ``[M, 1]``."""
        columns = {name: self[name] for name in names}
        return {k: v[:, None] if v.ndim == 1 else v for k, v in columns.items()}

    def _make(self, name: str) -> NDArray[Any]:
        cohort = self.source.cohort
        if name in self._axes:
            return self[self._axes[name]]
        if name in metric_names(cohort):
            return np.asarray(self.source.metric(name))
        if name in ORIGIN_COLUMNS:
            return origin_columns(cohort.origins)[name]
        if name in field_infos() or name in self._fields:
            return spec_column(cohort.runs, name, self._fields)
        makers: dict[str, Callable[[], NDArray[Any]]] = {
            "run_id": lambda: np.array(cohort.run_ids, dtype=np.str_),
            "cohort": lambda: np.full(cohort.models, cohort.id),
            "cell": lambda: np.array([cell_id(run) for run in cohort.runs], dtype=np.str_),
            "row": lambda: np.arange(cohort.models, dtype=np.int64),
            "status": lambda: np.asarray(self.source.status, dtype=np.str_),
            "reason": lambda: np.asarray(self.source.reason, dtype=np.str_),
            "diverged_step": lambda: np.asarray(self.source.diverged_step, dtype=np.int64),
            "params": lambda: np.full(cohort.models, cohort.params, dtype=np.int64),
            "flops": lambda: np.asarray(cohort.train_flops, dtype=np.float64),
            "wall_s": lambda: np.asarray(self.source.wall_s, dtype=np.float64),
            "checkpoint": lambda: np.broadcast_to(
                np.arange(cohort.checkpoints, dtype=np.int64), cohort.steps.shape
            ),
            "step": lambda: cohort.steps,
            "epoch": lambda: cohort.epochs,
            "from_end": lambda: positions_from_end(self.recorded),
        }
        if name in makers:
            return makers[name]()
        if name in self.source.derived:
            return self.source.read_derived(name)
        shape = (cohort.models, cohort.checkpoints)
        if name in metric_info(source.cohort for source in self._others):
            return np.full(shape, np.nan, dtype=np.float32)
        per = derived_info(self._others).get(name)
        if per is None:
            raise unknown_column(name, self._names)
        return _absent(self._others, name, shape if per.per == "checkpoint" else shape[:1])
