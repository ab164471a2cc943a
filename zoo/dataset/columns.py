"""The columns of a zoo: what can be asked for, and each cohort's values, read on first use.

A column has one value a run (``[M]``) or one a checkpoint (``[M, K]``). Spec fields keep their own
names, so ``lr`` is the run's peak learning rate; the recorded learning rate of a checkpoint is
``step_lr``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.source import CohortSource
from zoo.errors import QueryError, nearest
from zoo.spec.run import field_infos
from zoo.store.schema import METRIC_ARRAYS, spec_column
from zoo.train.checkpoint import METRICS

__all__ = [
    "AXES",
    "METRIC_COLUMNS",
    "CohortColumns",
    "ColumnInfo",
    "catalogue",
    "derived_info",
    "unknown_column",
]

#: The two axes of a phase diagram; a column each where the sweep names them.
AXES = ("load", "temperature")

#: Metric name → column name.
METRIC_COLUMNS = METRIC_ARRAYS

_METRIC_OF = {column: metric for metric, column in METRIC_COLUMNS.items()}

_IDENTITY = {
    "run_id": "sixteen hexadecimal digits, the hash of the spec",
    "cohort": "runs that were trained stacked; one weight matrix",
    "row": "row in the cohort",
}
_OUTCOME = {
    "status": "planned, running, done, diverged or failed",
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


def catalogue(
    axes: Mapping[str, str], derived: Mapping[str, ColumnInfo] | None = None
) -> dict[str, ColumnInfo]:
    """Return every column of a zoo, in table order.

    Args:
        axes: ``{"load": field, "temperature": field}`` of the sweep, may be empty.
        derived: what stages added.
    """
    run = dict(_IDENTITY)
    run |= {axis: f"the {axis} axis: {axes[axis]}" for axis in AXES if axis in axes}
    run |= {info.name: info.doc for info in field_infos().values()}
    run |= _OUTCOME
    checkpoint = dict(_CHECKPOINT)
    checkpoint |= {METRIC_COLUMNS[name]: doc for name, doc in METRICS.items()}
    columns = [ColumnInfo(name, "run", doc) for name, doc in run.items()]
    columns += [ColumnInfo(name, "checkpoint", doc) for name, doc in checkpoint.items()]
    return {column.name: column for column in columns} | dict(derived or {})


def unknown_column(name: str, names: Iterable[str]) -> QueryError:
    """Return the error of a column that a zoo does not have, with the nearest name and the list."""
    known = tuple(names)
    close = nearest(name, known)
    hint = f"; did you mean {close!r}?" if close else ""
    return QueryError(f"unknown column {name!r}{hint}; known: {', '.join(known)}")


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
        others: the readers of all cohorts, for derived columns that this one lacks.
    """

    def __init__(
        self,
        source: CohortSource,
        axes: Mapping[str, str],
        names: Iterable[str],
        others: Sequence[CohortSource] = (),
    ) -> None:
        self.source = source
        self._others = tuple(others)
        self.recorded: NDArray[np.bool_] = np.array(source.recorded, dtype=np.bool_)
        self._axes = axes
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
        if name in field_infos():
            return spec_column(cohort.runs, name)
        if name in _METRIC_OF:
            return np.asarray(self.source.metric(_METRIC_OF[name]))
        makers: dict[str, Callable[[], NDArray[Any]]] = {
            "run_id": lambda: np.array(cohort.run_ids, dtype=np.str_),
            "cohort": lambda: np.full(cohort.models, cohort.id),
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
        per = derived_info(self._others).get(name)
        if per is None:
            raise unknown_column(name, self._names)
        shape = (cohort.models, cohort.checkpoints)
        return _absent(self._others, name, shape if per.per == "checkpoint" else shape[:1])
