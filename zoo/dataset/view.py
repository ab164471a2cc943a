"""A view: the checkpoints that a query found, as indices; nothing else is read until asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.architectures import module_for, row_to_state_dict
from zoo.dataset.batches import iterate, shard_numbers, stacked_rows
from zoo.dataset.columns import unknown_column
from zoo.dataset.conversions import to_pandas, to_polars, to_xarray
from zoo.dataset.materialize import materialize
from zoo.dataset.pairs import Pairs, Trajectory, make_pairs, trajectories
from zoo.dataset.snapshots import Snapshot, take_snapshot
from zoo.dataset.source import CohortSource
from zoo.dataset.summary import describe_view
from zoo.dataset.table import stable_order, structured
from zoo.errors import QueryError
from zoo.spec.run import RunSpec
from zoo.train.plan import Cohort

if TYPE_CHECKING:
    import os

    from zoo.dataset.torch_dataset import WeightDataset
    from zoo.dataset.zoo import Zoo

__all__ = ["View"]

_ITERATION_ROWS = 4096


class View:
    """Recorded checkpoints of a zoo, in some order; n of them.

    A view holds three index arrays and is cheap to slice, sort and keep. Its rows never move, also
    when the zoo grows or is refreshed.

    Args:
        zoo: where the checkpoints are.
        cohorts: ``[n]`` position of each row's cohort in the plan.
        rows: ``[n]`` row in the cohort.
        checkpoints: ``[n]`` index on the cohort's checkpoint axis.
    """

    def __init__(
        self,
        zoo: Zoo,
        cohorts: NDArray[np.int64],
        rows: NDArray[np.int64],
        checkpoints: NDArray[np.int64],
    ) -> None:
        self.zoo = zoo
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
    def __getitem__(self, key: slice | NDArray[Any] | list[int]) -> View: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a row (integer), a column (name), or another view (slice, indices or mask)."""
        if isinstance(key, str):
            return self.column(key)
        if isinstance(key, int | np.integer):
            return self._records(self.take([self._position(int(key))]))[0]
        if isinstance(key, slice):
            return View(self.zoo, self._cohorts[key], self._rows[key], self._checkpoints[key])
        return self.take(key)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each row as a dict of plain Python values, missing numbers as None."""
        for start in range(0, len(self), _ITERATION_ROWS):
            yield from self._records(self[start : start + _ITERATION_ROWS])

    def take(self, indices: Sequence[int] | NDArray[Any]) -> View:
        """Return the rows at ``indices`` (integers or a mask), in that order."""
        at = np.asarray(indices)
        if at.dtype.kind not in "iub":
            if at.size:
                msg = f"rows are taken by integers or a mask, not by {at.dtype} values"
                raise TypeError(msg)
            at = at.astype(np.int64)
        return View(self.zoo, self._cohorts[at], self._rows[at], self._checkpoints[at])

    def head(self, n: int = 5) -> View:
        """Return the first ``n`` rows."""
        return self[: max(n, 0)]

    def sort(self, *names: str, descending: bool = False) -> View:
        """Return the rows ordered by one or more columns, the first one weighing most.

        The order is stable. Missing values stand last either way.

        Raises:
            QueryError: an unknown column.
        """
        order = np.arange(len(self))
        for name in reversed(names):
            order = order[stable_order(self.column(name)[order], descending=descending)]
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

        present = np.unique(self._cohorts)
        if not len(present):
            dtypes = [table[name].dtype for table in self.zoo.tables] or [np.dtype(np.float64)]
            return np.empty(0, dtype=np.result_type(*dtypes))
        where = [np.flatnonzero(self._cohorts == index) for index in present]
        parts = []
        for index, at in zip(present, where, strict=True):
            values = self.zoo.tables[index][name]
            place = (
                (self._rows[at],) if values.ndim == 1 else (self._rows[at], self._checkpoints[at])
            )
            parts.append(values[place])
        # concatenation finds the type that holds every cohort's values
        joined = np.concatenate(parts)
        result = np.empty_like(joined)
        result[np.concatenate(where)] = joined
        return result

    def table(self, columns: Iterable[str] | None = None) -> NDArray[Any]:
        """Return a numpy structured array ``[n]``, ready for ``pandas.DataFrame``.

        Args:
            columns: column names; None = all of them.

        Raises:
            QueryError: an unknown column.
        """
        names = self.columns if columns is None else tuple(columns)
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

    def to_xarray(self, columns: Iterable[str] | None = None, *, weights: bool = False) -> Any:
        """Return the table as an ``xarray.Dataset`` over ``row``, and ``weights`` if wanted.

        Raises:
            ImportError: xarray is not installed.
            QueryError: weights of more than one layout.
        """
        return to_xarray(self, columns, weights=weights)

    def counts(self, name: str) -> dict[Any, int]:
        """Return how many rows have each value of a column, by value; None for missing ones.

        Raises:
            QueryError: an unknown column.
        """
        values, counts = np.unique(self.column(name), return_counts=True)
        pairs = zip(values.tolist(), counts.tolist(), strict=True)
        return {None if value != value else value: count for value, count in pairs}

    # -- weights and behaviour ----------------------------------------------------------------

    @property
    def cohorts(self) -> tuple[str, ...]:
        """The ids of the cohorts that rows of this view are in, in plan order."""
        return tuple(self.zoo.plan.cohorts[index].id for index in np.unique(self._cohorts))

    @property
    def cohort_index(self) -> NDArray[np.int64]:
        """``[n]`` position of each row's cohort in the plan."""
        return self._cohorts

    def by_cohort(self) -> dict[str, View]:
        """Return the rows of each cohort as a view, in this view's order."""
        return {
            self.zoo.plan.cohorts[index].id: self[self._cohorts == index]
            for index in np.unique(self._cohorts)
        }

    def weights(self) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """Return the slab rows: ``[n, P]``, or one such array a cohort where there are several.

        Columns are those of the cohort's layout, ``zoo.plan.cohort(id).layout``. The rows of each
        array are in the order of :meth:`by_cohort`. See also :meth:`stacked_weights`.
        """
        found: NDArray[np.float32] | dict[str, NDArray[np.float32]]
        found = self._read(lambda source, rows, ks: source.read_weights(rows, ks))
        return found

    def stacked_weights(self) -> NDArray[np.float32]:
        """Return the slab rows ``[n, P]`` in this view's order, over cohorts of one layout.

        Cohorts differ by batch size or optimizer and still have the same parameters.

        Raises:
            QueryError: the view holds more than one parameter layout.
        """
        return stacked_rows(self)

    def iter(
        self, batch: int = 256, *, shuffle: bool = False, seed: int = 0, epoch: int = 0
    ) -> Iterator[tuple[View, NDArray[np.float32]]]:
        """Yield (rows as a view, their weights ``[b, P]``), every batch of one structure.

        Args:
            batch: rows at a time.
            shuffle: mix the rows, shard by shard; otherwise structure by structure, in order.
            seed, epoch: what the order is a function of.
        """
        return iterate(self, batch, shuffle=shuffle, seed=seed, epoch=epoch)

    def shards(self) -> NDArray[np.int64]:
        """Return a number for the file that each row is in, ``[n]``."""
        return shard_numbers(self)

    def trajectories(self) -> Iterator[Trajectory]:
        """Yield each run's rows of this view with their weights ``[k, P]``, by checkpoint."""
        return trajectories(self)

    def pairs(
        self,
        same: str | Sequence[str] = "checkpoint",
        differ: str | Sequence[str] = "run",
        *,
        limit: int | None = None,
        seed: int = 0,
    ) -> Pairs:
        """Return the pairs of rows that agree in some columns and differ in others.

        Both rows of a pair have one structure, and a pair is given once.
        ``view.pairs(["cell", "epoch"], "seed")`` are the pairs of seeds of each cell.

        Args:
            same, differ: columns, or what :func:`zoo.dataset.splits.group_keys` names.
            limit: at most so many, drawn at random.
            seed: of the drawing.

        Raises:
            QueryError: an unknown column, or millions of pairs and no limit.
        """
        return make_pairs(self, same, differ, limit, seed)

    def materialize(self, folder: str | os.PathLike[str]) -> View:
        """Return the same rows, with weights in memory-mapped ``.npy`` files in ``folder``.

        Made once; a later call with the same rows finds what is there. The folder is a cache and
        may be deleted.

        Raises:
            StoreError: the folder cannot be written.
        """
        return materialize(self, folder)

    def snapshot(self, name: str) -> Snapshot:
        """Write these rows down in the store under a name, with a hash of their weights.

        ``zoo.snapshot(name)`` gives them back. A snapshot never changes.

        Raises:
            StoreError: the name stands for other rows, or the store cannot be written.
            QueryError: a name with other characters than letters, digits, ``.``, ``_`` and ``-``.
        """
        return take_snapshot(self, name)

    def torch_dataset(self, form: str = "flat", **options: Any) -> WeightDataset:
        """Return the rows as a ``torch`` data set of ``(input, target)``.

        Args:
            form: ``"flat"``, ``"tokens"``, ``"graph"`` or ``"layers"``.
            options: those of :class:`zoo.dataset.torch_dataset.WeightDataset`: ``targets``,
                ``transforms``, ``normalization``, ``seed``, ...
        """
        from zoo.dataset.torch_dataset import WeightDataset

        return WeightDataset(self, form=form, **options)

    def probe_logits(self) -> NDArray[np.float16] | dict[str, NDArray[np.float16]]:
        """Return the recorded logits ``[n, Q, C]``, or one such array a cohort.

        The inputs that they answer are :meth:`Zoo.probe_inputs`.

        Raises:
            QueryError: the sweep recorded no probe.
        """
        if self.zoo.plan.record.probe_size == 0:
            msg = "this zoo has no probe logits: its sweep has record.probe_size = 0"
            raise QueryError(msg)
        found: NDArray[np.float16] | dict[str, NDArray[np.float16]]
        found = self._read(lambda source, rows, ks: source.read_probe(rows, ks))
        return found

    def spec(self, i: int) -> RunSpec:
        """Return the run spec of row ``i``."""
        i = self._position(i)
        return self._cohort(i).runs[int(self._rows[i])]

    def state_dict(self, i: int) -> dict[str, Tensor]:
        """Return the state dict of row ``i``, as the plain module of :meth:`model` takes it."""
        one = self.take([self._position(i)])
        index = int(one._cohorts[0])
        source = self.zoo.source.cohorts[index]
        row = source.read_weights(one._rows, one._checkpoints)[0]
        return row_to_state_dict(self.zoo.plan.cohorts[index].layout, row)

    def model(self, i: int) -> nn.Module:
        """Return row ``i`` as a plain ``nn.Module`` in eval mode.

        Its logits on :meth:`Zoo.probe_inputs` are the recorded ones, up to their float16 rounding.
        """
        cohort = self._cohort(self._position(i))
        module = module_for(self.spec(i), cohort.example_shape, cohort.classes)
        module.load_state_dict(self.state_dict(i))
        return module.eval()

    # -- inside -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return describe_view(self)

    def _cohort(self, position: int) -> Cohort:
        return self.zoo.plan.cohorts[int(self._cohorts[position])]

    def _position(self, i: int) -> int:
        n = len(self)
        if not -n <= i < n:
            msg = f"row {i} of a view of {n} rows"
            raise IndexError(msg)
        return i % n

    def _records(self, part: View) -> list[dict[str, Any]]:
        columns = [part.column(name).tolist() for name in self.columns]
        return [
            {k: None if v != v else v for k, v in zip(self.columns, row, strict=True)}
            for row in zip(*columns, strict=True)
        ]

    def _read(self, read: Callable[[CohortSource, Any, Any], NDArray[Any]]) -> Any:
        """Return ``read(source, rows, checkpoints)``, or a dict of it where cohorts differ."""
        sources = self.zoo.source.cohorts
        present = np.unique(self._cohorts).tolist()
        if not present and len(sources) == 1:
            present = [0]
        arrays = {}
        for index in present:
            at = self._cohorts == index
            arrays[self.zoo.plan.cohorts[index].id] = read(
                sources[index], self._rows[at], self._checkpoints[at]
            )
        return next(iter(arrays.values())) if len(arrays) == 1 else arrays
