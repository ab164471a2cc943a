"""What the tools of this room need of a zoo, of rows and of a view.

:class:`zoo.dataset.Zoo` and :class:`zoo.dataset.View` have these methods, and others that call the
tools; so the tools are written against these protocols and stand below both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from zoo.architectures import Layout
from zoo.dataset.columns import CohortColumns, ColumnInfo
from zoo.dataset.runs import Run
from zoo.dataset.source import StoreSource
from zoo.train.plan import Plan

__all__ = ["AnyRows", "AnyView", "AnyZoo", "V"]


class AnyZoo(Protocol):
    """A zoo; see :class:`zoo.dataset.Zoo`."""

    @property
    def source(self) -> StoreSource:
        """The reader of the store."""

    @property
    def path(self) -> Path | None:
        """Where the store is."""

    @property
    def plan(self) -> Plan:
        """The plan."""

    @property
    def name(self) -> str:
        """The sweep's name."""

    @property
    def axes(self) -> Mapping[str, str]:
        """The fields of the phase diagram."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column name, in table order."""

    @property
    def column_info(self) -> Mapping[str, ColumnInfo]:
        """Every column with what it means."""

    @property
    def tables(self) -> Sequence[CohortColumns]:
        """The columns of each cohort."""

    @property
    def varying(self) -> tuple[str, ...]:
        """The spec fields that tell the runs apart."""

    @property
    def given(self) -> Mapping[str, str]:
        """Data set → where its files are, as the caller said."""

    @property
    def data_paths(self) -> Mapping[str, str]:
        """Data set → where its files are."""

    def __len__(self) -> int:
        """Return the number of runs."""

    def headline(self) -> str:
        """Return the recorded column that says most."""

    def status(self) -> Mapping[str, int]:
        """Return how many runs are in each state."""

    def place(self, run_id: str) -> tuple[int, int]:
        """Return (cohort position, row) of a run."""

    def run(self, run_id: str) -> Run:
        """Return one run."""

    def runs(
        self,
        predicate: str | None = None,
        *,
        columns: Iterable[str] | None = None,
        **conditions: Any,
    ) -> NDArray[Any]:
        """Return a structured array with one row per run."""

    def query(self, predicate: str | None = None, **conditions: Any) -> AnyView:
        """Return the recorded checkpoints that meet every condition."""

    def trajectory(self, run_id: str) -> NDArray[np.float32]:
        """Return a run's weights at every planned checkpoint, ``[K, P]``."""

    def read_from(self, source: StoreSource) -> Self:
        """Return the same zoo over another reader of its store."""


class AnyRows(Protocol):
    """Places of checkpoints in a zoo, n of them; see :class:`zoo.dataset.rows.Rows`."""

    @property
    def zoo(self) -> AnyZoo:
        """Where the checkpoints are."""

    @property
    def asked(self) -> tuple[str, ...]:
        """Columns that the query which found the rows reads."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column name, in table order."""

    def __len__(self) -> int:
        """Return n."""

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: str) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, key: slice | NDArray[Any] | list[int]) -> Self: ...
    @overload
    def __getitem__(self, key: list[str]) -> NDArray[Any]: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a row, a column, a table or rows."""

    def take(self, indices: Sequence[int] | NDArray[Any]) -> Self:
        """Return the rows at ``indices``."""

    def column(self, name: str) -> NDArray[Any]:
        """Return one column, ``[n]``."""

    def table(self, columns: Iterable[str] | None = None) -> NDArray[Any]:
        """Return a numpy structured array ``[n]``."""


class AnyView(AnyRows, Protocol):
    """Rows with their weights and what the models answer; see :class:`zoo.dataset.View`."""

    @property
    def cohorts(self) -> tuple[str, ...]:
        """The ids of the cohorts that rows are in."""

    @property
    def cohort_index(self) -> NDArray[np.int64]:
        """``[n]`` position of each row's cohort in the plan."""

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The parameter layouts of the rows."""

    def shards(self) -> NDArray[np.int64]:
        """Return a number for the file that each row is in, ``[n]``."""

    def stacked_weights(self) -> NDArray[np.float32]:
        """Return the slab rows ``[n, P]``."""

    def iter(
        self, batch: int = 256, *, shuffle: bool = False, seed: int = 0, epoch: int = 0
    ) -> Iterator[tuple[Self, NDArray[np.float32]]]:
        """Yield (rows, their weights ``[b, P]``), every batch of one structure."""


#: The view that a tool is given, where it gives back one of the same kind.
V = TypeVar("V", bound=AnyView)
