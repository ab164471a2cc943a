"""The zoo: a store opened for research, over all of its cohorts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from zoo.data.places import check_given, chosen_paths
from zoo.dataset.columns import (
    STATUSES,
    CohortColumns,
    ColumnInfo,
    column_catalogue,
    derived_info,
    headline,
    metric_info,
    unknown_column,
)
from zoo.dataset.html import zoo_html
from zoo.dataset.inputs import prepared_data, probe_inputs
from zoo.dataset.query import compile_query
from zoo.dataset.runs import Run, fields_that_vary
from zoo.dataset.selection import column_names
from zoo.dataset.snapshots import Snapshot, check_content, find_snapshot, list_snapshots
from zoo.dataset.source import StoreSource
from zoo.dataset.summary import describe_zoo, zoo_info, zoo_line
from zoo.dataset.table import structured
from zoo.dataset.view import View
from zoo.errors import QueryError, UnknownNameError, nearest
from zoo.paths import absolute
from zoo.store.data_paths import names_of_files
from zoo.train.plan import Plan

if TYPE_CHECKING:
    from zoo.data import PreparedData

__all__ = ["STATUSES", "Run", "Zoo", "open"]


class Zoo:
    """A store opened for research: query it, load weights, follow trajectories.

    A zoo is a snapshot: what is committed later appears after :meth:`refresh`.

    Args:
        source: the reader of a store.
        path: where the store is, for messages.
        paths: data set → path of its files, before environment variables and what the plan says.
    """

    def __init__(
        self,
        source: StoreSource,
        *,
        path: str | os.PathLike[str] | None = None,
        paths: Mapping[str, str] | None = None,
    ) -> None:
        self.source = source
        self.path = None if path is None else absolute(path)
        self.given = {name: str(absolute(place)) for name, place in (paths or {}).items()}
        check_given(self.given, names_of_files(self.plan), f"zoo {self.name!r}")

    # -- contents -----------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """The plan: every run with its cohort and row."""
        return self.source.plan

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.plan.name

    @property
    def axes(self) -> Mapping[str, str]:
        """The fields of the phase diagram: ``{"load": ..., "temperature": ...}`` or empty."""
        return self.plan.axes

    def __len__(self) -> int:
        """Return the number of runs, recorded or not."""
        return self.plan.models

    @cached_property
    def column_info(self) -> dict[str, ColumnInfo]:
        """Every column with what it means."""
        recorded = metric_info(self.plan.cohorts)
        return column_catalogue(
            self.plan.axes, self.plan.run_fields, recorded, derived_info(self.source.cohorts)
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column name, in table order."""
        return tuple(self.column_info)

    @cached_property
    def tables(self) -> tuple[CohortColumns, ...]:
        """The columns of each cohort, read on first use."""
        names = self.columns
        sources, fields = self.source.cohorts, self.plan.run_fields
        return tuple(CohortColumns(c, self.plan.axes, names, sources, fields) for c in sources)

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The spec fields that tell the runs apart, in table order.

        What follows from a listed field is left out: a seed that equals ``seed`` in every run,
        ``steps`` where all runs have the same number of epochs, and a conditional field that is
        missing or has its one value (``momentum`` where only the optimizer varies).
        """
        runs = [run for cohort in self.plan.cohorts for run in cohort.runs]
        return fields_that_vary(runs, self.plan.run_fields)

    def refresh(self) -> Zoo:
        """Read again what has been committed; return this zoo. Views made before stay valid."""
        self.source.refresh()
        for name in ("tables", "varying", "column_info", "_places"):
            self.__dict__.pop(name, None)
        return self

    def read_from(self, source: StoreSource) -> Self:
        """Return the same zoo over another reader of its store."""
        return type(self)(source, path=self.path, paths=self.given)

    def headline(self) -> str:
        """Return the recorded column that says most: see :func:`zoo.dataset.columns.headline`."""
        return headline(self.columns)

    def status(self) -> dict[str, int]:
        """Return how many runs are planned, running, done, diverged and failed."""
        counts = dict.fromkeys(STATUSES, 0)
        for table in self.tables:
            for value, count in zip(*np.unique(table["status"], return_counts=True), strict=True):
                counts[str(value)] = counts.get(str(value), 0) + int(count)
        return counts

    def info(self) -> dict[str, Any]:
        """Return what is in the zoo, JSON-ready."""
        return zoo_info(self)

    def describe(self) -> str:
        """Return :meth:`info` as text for people."""
        return describe_zoo(self)

    def __repr__(self) -> str:
        return zoo_line(self)

    def __str__(self) -> str:
        return describe_zoo(self, brief=True)

    def _repr_html_(self) -> str:
        return zoo_html(self)

    # -- queries ------------------------------------------------------------------------------

    def query(self, predicate: str | None = None, **conditions: Any) -> View:
        """Return the recorded checkpoints that meet every condition, over all cohorts.

        ``z.query("test_accuracy > 0.9 and epoch == -1")`` and
        ``z.query(norm="batch", width=(64, None), epoch=-1)`` may be combined. A row of the result
        is always a recorded checkpoint, in plan order and then by step; a query that says nothing
        about checkpoints gives all of each run's. For one row per run, see :meth:`runs`.

        Args:
            predicate: Python comparisons over the columns, ``and or not in``; nothing is evaluated
                by Python. A negative epoch or step counts from the end of each run, with
                ``== != in``: -1 is its last recorded checkpoint.
            conditions: column = scalar (equal), list or set (one of these), ``(low, high)``
                (closed range, None = open).

        Raises:
            QueryError: unknown columns (with the nearest name), or a predicate that has no sense.
        """
        query = compile_query(predicate, conditions, self.columns)
        found: list[tuple[NDArray[np.int64], ...]] = []
        for index, table in enumerate(self.tables):
            mask = query.mask(table.broadcast(query.names), table.recorded.shape)
            rows, ks = np.nonzero(mask & table.recorded)
            found.append((np.full(len(rows), index), rows.astype(np.int64), ks.astype(np.int64)))
        empty = np.empty(0, dtype=np.int64)
        cohorts, rows, ks = (
            np.concatenate([empty, *(part[axis] for part in found)]) for axis in range(3)
        )
        return View(self, cohorts, rows, ks, query.names)

    def runs(
        self,
        predicate: str | None = None,
        *,
        columns: Iterable[str] | None = None,
        **conditions: Any,
    ) -> NDArray[Any]:
        """Return a structured array with one row per run, also for runs with nothing recorded.

        Args:
            predicate: as in :meth:`query`, over the columns of a run.
            columns: names; None = every column of a run.
            conditions: as in :meth:`query`.

        Raises:
            QueryError: unknown columns, or columns that have a value per checkpoint.
        """
        per_run = tuple(c.name for c in self.column_info.values() if c.per == "run")
        names = per_run if columns is None else column_names(columns)
        query = compile_query(predicate, conditions, self.columns)
        for name in [*names, *sorted(query.names)]:
            if name not in self.columns:
                raise unknown_column(name, self.columns)
            if name not in per_run:
                msg = (
                    f"column {name!r} has a value at each checkpoint, and runs() has one row per"
                    f" run; use query(...) (epoch == -1 gives each run's last checkpoint)"
                )
                raise QueryError(msg)
        masks = [
            query.mask({n: table[n] for n in query.names}, (len(table.recorded),))
            for table in self.tables
        ]
        values = {
            name: np.concatenate([t[name][m] for t, m in zip(self.tables, masks, strict=True)])
            for name in (names if masks else ())
        }
        return structured(values, sum(int(m.sum()) for m in masks))

    # -- one run ------------------------------------------------------------------------------

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """Return run id → (cohort position, row)."""
        return {
            run_id: (index, row)
            for index, cohort in enumerate(self.plan.cohorts)
            for row, run_id in enumerate(cohort.run_ids)
        }

    def run(self, run_id: str) -> Run:
        """Return one run.

        Args:
            run_id: the id, or its beginning where that is unique.

        Raises:
            UnknownNameError: no run, or more than one, has this id.
        """
        index, row = self.place(run_id)
        cohort, table = self.plan.cohorts[index], self.tables[index]
        return Run(
            run_id=cohort.run_ids[row],
            spec=cohort.runs[row],
            cohort=cohort.id,
            row=row,
            status=str(table["status"][row]),
            reason=str(table["reason"][row]),
            diverged_step=int(table["diverged_step"][row]),
            recorded=table.recorded[row].copy(),
            steps=cohort.steps[row].copy(),
            epochs=cohort.epochs[row].copy(),
        )

    def trajectory(self, run_id: str) -> NDArray[np.float32]:
        """Return a run's weights at every planned checkpoint, ``[K, P]``.

        Checkpoints that are not recorded (after a divergence, or not trained yet) are NaN.

        Raises:
            UnknownNameError: no run, or more than one, has this id.
        """
        index, row = self.place(run_id)
        cohort, table = self.plan.cohorts[index], self.tables[index]
        out = np.full((cohort.checkpoints, cohort.params), np.nan, dtype=np.float32)
        ks = np.flatnonzero(table.recorded[row]).astype(np.int64)
        if len(ks):
            out[ks] = self.source.cohorts[index].read_weights(np.full_like(ks, row), ks)
        return out

    def place(self, run_id: str) -> tuple[int, int]:
        """Return (cohort position, row) of a run.

        Raises:
            UnknownNameError: no run, or more than one, has this id.
        """
        _require_id(run_id, next(iter(self._places), ""))
        if run_id in self._places:
            return self._places[run_id]
        matches = [known for known in self._places if run_id and known.startswith(run_id)]
        if len(matches) == 1:
            return self._places[matches[0]]
        if matches:
            shown = ", ".join(matches[:4]) + (", ..." if len(matches) > 4 else "")
            msg = f"run id {run_id!r} is the beginning of {len(matches)} runs: {shown}"
            raise UnknownNameError(msg)
        close = nearest(run_id, self._places)
        hint = f"; did you mean {close!r}?" if close else ""
        msg = f"no run {run_id!r} in zoo {self.name!r} of {len(self)} runs{hint}"
        raise UnknownNameError(msg)

    # -- snapshots ----------------------------------------------------------------------------

    def snapshot(self, name: str, *, verify: bool = True) -> View:
        """Return the rows that :meth:`View.snapshot` wrote down, in their order.

        Args:
            name: of the snapshot.
            verify: read every row and hold it against the snapshot's hash.

        Raises:
            UnknownNameError: there is no such snapshot.
            StoreCorruptError: the weights are not what they were.
        """
        found, places = find_snapshot(self, name)
        view = View(self, *places)
        if verify:
            check_content(view, found)
        return view

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Return the name, hash and size of every snapshot of the store."""
        return list_snapshots(self)

    # -- data ---------------------------------------------------------------------------------

    @property
    def data_paths(self) -> dict[str, str]:
        """Data set → where its files are: as :func:`open` was told, the environment, the store."""
        return chosen_paths(self.plan.paths, self.given)

    def data(
        self, name: str | None = None, *, normalization: str | None = None, path: str | None = None
    ) -> PreparedData:
        """Return a data set as the zoo's models saw it: normalised, training and test part.

        Args:
            name: data set; None where the zoo has only one.
            normalization: None where the zoo uses only one with this data set.
            path: the data set's files; by default those of :attr:`data_paths`.

        Raises:
            UnknownNameError: the zoo does not use this data set or normalisation, or uses several
                and none was named.
            MissingDataError: its files are not on this machine.
            DataError: the data here are not those that the zoo was trained on.
        """
        return prepared_data(self, name, normalization=normalization, path=path)

    def probe_inputs(
        self, name: str | None = None, *, normalization: str | None = None, path: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the probe: inputs ``[Q, *example_shape]`` and labels ``[Q]``.

        ``view.model(i)(torch.from_numpy(inputs))`` are the logits of ``view.probe_logits()[i]``.
        Arguments and errors are those of :meth:`data`.
        """
        return probe_inputs(self, name, normalization=normalization, path=path)


def _require_id(run_id: object, example: str) -> None:
    if not isinstance(run_id, str):
        msg = (
            f"{run_id!r} is no run id, which is text, such as {example!r}; for row i of a view"
            " there are view.run(i), view.trajectory(i) and view.model(i)"
        )
        raise UnknownNameError(msg)


def open(  # noqa: A001
    path: str | os.PathLike[str], *, paths: Mapping[str, str] | None = None
) -> Zoo:
    """Open a store for reading; it may still be growing.

    Args:
        path: the store.
        paths: data set → path of its files on this machine, before environment variables
            (``ZOO_DATA_<NAME>``) and what the store remembers.

    Raises:
        StoreMissingError: no store there.
        SpecError: paths of data sets that the store does not have.
    """
    from zoo.store import StoreReader

    where = absolute(path)
    reader = StoreReader(where)
    return Zoo(reader, path=where, paths=paths)
