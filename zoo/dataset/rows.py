"""The rows of a view: choosing, ordering and grouping them, and their columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.any_view import AnyZoo
from zoo.dataset.columns import rows_of_column, unknown_column
from zoo.dataset.conversions import to_pandas, to_polars
from zoo.dataset.groups import Groups
from zoo.dataset.query import compile_query
from zoo.dataset.selection import column_names, position, row_count, row_indices
from zoo.dataset.table import stable_order, structured
from zoo.errors import QueryError
from zoo.seeds import Stream, permutation

__all__ = ["Rows"]

_ITERATION_ROWS = 4096


class Rows:
    """Places of checkpoints in a zoo, n of them, and what the columns say of each.

    :class:`zoo.dataset.View` adds their weights and what the models answer.

    Args:
        zoo: where the checkpoints are.
        cohorts: ``[n]`` position of each row's cohort in the plan.
        rows: ``[n]`` row in the cohort.
        checkpoints: ``[n]`` index on the cohort's checkpoint axis.
        asked: columns that the query which found the rows reads, for the text of an empty view.
    """

    def __init__(
        self,
        zoo: AnyZoo,
        cohorts: NDArray[np.int64],
        rows: NDArray[np.int64],
        checkpoints: NDArray[np.int64],
        asked: Iterable[str] = (),
    ) -> None:
        self.zoo = zoo
        self.asked = tuple(sorted(asked))
        self._cohorts = cohorts
        self._rows = rows
        self._checkpoints = checkpoints

    # -- rows ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: str) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, key: slice | NDArray[Any] | list[int]) -> Self: ...
    @overload
    def __getitem__(self, key: list[str]) -> NDArray[Any]: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a row (integer), a column (name), a table (names) or a view (slice, list, mask).

        Raises:
            QueryError: an unknown column.
            IndexError: a row that is not there.
            TypeError: anything else.
        """
        if isinstance(key, str):
            return self.column(key)
        if isinstance(key, slice):
            return self._at(key)
        if isinstance(key, list | tuple) and key and all(isinstance(k, str) for k in key):
            return self.table(key)
        if np.ndim(key) == 0:
            return self._records(self.take([position(key, len(self))]))[0]
        return self.take(key)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each row as a dict of plain Python values, missing numbers as None."""
        for start in range(0, len(self), _ITERATION_ROWS):
            yield from self._records(self[start : start + _ITERATION_ROWS])

    def take(self, indices: Sequence[int] | NDArray[Any]) -> Self:
        """Return the rows at ``indices`` (integers or a mask), in that order.

        Raises:
            IndexError: a row that is not there, or a mask of another length.
            TypeError: anything else.
        """
        at = row_indices(indices, len(self))
        return self._at(at)

    def head(self, n: int = 5) -> Self:
        """Return the first ``n`` rows."""
        return self[: row_count(n, "n")]

    def query(self, predicate: str | None = None, **conditions: Any) -> Self:
        """Return the rows of this view that meet every condition, in this view's order.

        Conditions and errors are those of :meth:`zoo.dataset.Zoo.query`, and mean the same:
        ``epoch == -1`` is a run's last recorded checkpoint, whether or not this view has it.
        """
        query = compile_query(predicate, conditions, self.columns)
        keep = np.zeros(len(self), dtype=np.bool_)
        for index in np.unique(self._cohorts):
            at, table = self._cohorts == index, self.zoo.tables[index]
            mask = query.mask(table.broadcast(query.names), table.recorded.shape)
            keep[at] = mask[self._rows[at], self._checkpoints[at]]
        return self._at(keep, query.names)

    def sample(self, n: int, *, seed: int = 0) -> Self:
        """Return ``n`` different rows drawn at random, in the order of the drawing.

        Raises:
            QueryError: more rows than there are.
        """
        if row_count(n, "n") > len(self):
            msg = f"a sample of {n} rows from a view of {len(self)}; allowed: at most {len(self)}"
            raise QueryError(msg)
        return self.take(permutation(seed, Stream.SAMPLE, 2, len(self))[:n])

    def groupby(self, *names: str | Sequence[str]) -> Groups[Self]:
        """Return the rows by the values of one or more columns.

        ``for value, part in view.groupby("norm")`` gives views; of several columns a value is a
        tuple.

        Raises:
            QueryError: an unknown column, or none.
        """
        columns = column_names(names, "groupby")
        if not columns:
            msg = 'groupby() needs a column, such as view.groupby("norm")'
            raise QueryError(msg)
        return Groups(self, columns)

    def sort(self, *names: str | Sequence[str], descending: bool = False) -> Self:
        """Return the rows ordered by one or more columns, the first one weighing most.

        The order is stable. Missing values stand last either way.

        Args:
            names: columns; ``"-test_accuracy"`` puts the largest first.
            descending: put the largest first in every column.

        Raises:
            QueryError: an unknown column.
        """
        order = np.arange(len(self))
        for name in reversed(column_names(names, "sort")):
            column = name.removeprefix("-")
            down = descending or column != name
            order = order[stable_order(self.column(column)[order], descending=down)]
        return self.take(order)

    # -- columns ------------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column name, in table order."""
        return self.zoo.columns

    def column(self, name: str) -> NDArray[Any]:
        """Return one column, ``[n]``.

        Raises:
            QueryError: an unknown column.
        """
        if name not in self.columns:
            raise unknown_column(name, self.columns)
        return rows_of_column(self.zoo.tables, name, self._cohorts, self._rows, self._checkpoints)

    def table(self, columns: Iterable[str] | None = None) -> NDArray[Any]:
        """Return a numpy structured array ``[n]``, ready for ``pandas.DataFrame``.

        Args:
            columns: column names; None = all of them.

        Raises:
            QueryError: an unknown column.
        """
        names = self.columns if columns is None else column_names(columns)
        return structured({name: self.column(name) for name in names}, len(self))

    def to_pandas(self, columns: Iterable[str] | None = None) -> Any:
        """Return the table as a ``pandas.DataFrame``.

        Raises:
            ImportError: pandas is not installed.
        """
        return to_pandas(self, columns)

    def to_polars(self, columns: Iterable[str] | None = None) -> Any:
        """Return the table as a ``polars.DataFrame``, missing numbers as null.

        Raises:
            ImportError: polars is not installed.
        """
        return to_polars(self, columns)

    def counts(self, name: str) -> dict[Any, int]:
        """Return how many rows have each value of a column, by value; None for missing ones.

        Raises:
            QueryError: an unknown column.
        """
        values, counts = np.unique(self.column(name), return_counts=True)
        pairs = zip(values.tolist(), counts.tolist(), strict=True)
        return {None if value != value else value: count for value, count in pairs}

    def _records(self, part: Self) -> list[dict[str, Any]]:
        columns = [part.column(name).tolist() for name in self.columns]
        return [
            {k: None if v != v else v for k, v in zip(self.columns, row, strict=True)}
            for row in zip(*columns, strict=True)
        ]

    def _at(self, key: Any, asked: Iterable[str] | None = None) -> Self:
        places = self._cohorts[key], self._rows[key], self._checkpoints[key]
        return type(self)(self.zoo, *places, self.asked if asked is None else asked)
