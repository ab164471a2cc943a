"""A view: the checkpoints that a query found, as indices; nothing else is read until asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.architectures import Layout, module_for, row_to_state_dict
from zoo.architectures.network import load_row
from zoo.arithmetic import pinned
from zoo.dataset.batches import iterate, shard_numbers, stacked_probe, stacked_rows
from zoo.dataset.conversions import to_xarray
from zoo.dataset.html import view_html
from zoo.dataset.materialize import mapped_source
from zoo.dataset.pairs import Pairs, Trajectory, make_pairs, trajectories
from zoo.dataset.rows import Rows
from zoo.dataset.runs import Run
from zoo.dataset.selection import position
from zoo.dataset.snapshots import Snapshot, take_snapshot
from zoo.dataset.summary import describe_view, view_line
from zoo.dataset.torch_dataset import WeightDataset
from zoo.errors import QueryError
from zoo.spec.run import RunSpec
from zoo.train.plan import Cohort

__all__ = ["View"]


class View(Rows):
    """Recorded checkpoints of a zoo, in some order; n of them.

    A view holds three index arrays and is cheap to slice, sort and keep. Its rows never move, also
    when the zoo grows or is refreshed.

    Args:
        zoo: where the checkpoints are.
        cohorts: ``[n]`` position of each row's cohort in the plan.
        rows: ``[n]`` row in the cohort.
        checkpoints: ``[n]`` index on the cohort's checkpoint axis.
        asked: columns that the query which found the rows reads, for the text of an empty view.
    """

    # -- weights and behaviour ----------------------------------------------------------------

    @property
    def cohorts(self) -> tuple[str, ...]:
        """The ids of the cohorts that rows of this view are in, in plan order."""
        return tuple(self.zoo.plan.cohorts[index].id for index in np.unique(self._cohorts))

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The parameter layouts of the rows; of an empty view, those of the zoo."""
        cohorts = self.zoo.plan.cohorts
        present = np.unique(self._cohorts).tolist() or range(len(cohorts))
        return tuple(dict.fromkeys(cohorts[index].layout for index in present))

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
        """Return the slab rows: ``[n, P]`` in this view's order where they have one layout.

        Otherwise a dict of such arrays, one for each cohort, as :meth:`by_cohort` gives the rows.
        Columns are those of the cohort's layout, ``zoo.plan.cohort(id).layout``.
        """
        if len(self.layouts) == 1:
            return stacked_rows(self)
        return {name: stacked_rows(part) for name, part in self.by_cohort().items()}

    def stacked_weights(self) -> NDArray[np.float32]:
        """Return the slab rows ``[n, P]`` in this view's order, whatever their cohorts.

        Models of one architecture, width, depth and norm have one layout; :meth:`weights` takes
        others too, and gives a dict then.

        Raises:
            QueryError: the view holds more than one parameter layout.
        """
        return stacked_rows(self)

    def to_xarray(self, columns: Iterable[str] | None = None, *, weights: bool = False) -> Any:
        """Return the table as an ``xarray.Dataset`` over ``row``, and ``weights`` if wanted.

        Raises:
            ImportError: xarray is not installed.
            QueryError: weights of more than one layout.
        """
        return to_xarray(self, columns, weights=weights)

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

    def trajectories(self) -> Iterator[Trajectory[View]]:
        """Yield each run's rows of this view with their weights ``[k, P]``, by checkpoint."""
        return trajectories(self)

    def pairs(
        self,
        same: str | Sequence[str] = "checkpoint",
        differ: str | Sequence[str] = "run",
        *,
        limit: int | None = None,
        seed: int = 0,
    ) -> Pairs[View]:
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

        Made once; a later call with the same rows and weights finds what is there, checks it (the
        whole file is read once per process) and makes it again if it is damaged. The folder is a
        cache: it can be shared by stores, and deleted.

        Raises:
            StoreError: the folder cannot be written.
        """
        zoo = self.zoo.read_from(mapped_source(self, folder))
        return View(zoo, self._cohorts.copy(), self._rows.copy(), self._checkpoints.copy())

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
        return WeightDataset(self, form=form, **options)

    def probe_logits(self) -> NDArray[np.float16] | dict[str, NDArray[np.float16]]:
        """Return the recorded logits ``[n, Q, C]`` in this view's order.

        Where Q or C differ, a dict of such arrays, one for each cohort, as :meth:`by_cohort` gives
        the rows.

        The inputs that they answer are :meth:`Zoo.probe_inputs`.

        Raises:
            QueryError: the sweep recorded no probe.
        """
        if self.zoo.plan.record.probe_size == 0:
            msg = "this zoo has no probe logits: its sweep has record.probe_size = 0"
            raise QueryError(msg)
        return stacked_probe(self)

    def run(self, i: int) -> Run:
        """Return the run of row ``i``, as :meth:`zoo.dataset.Zoo.run` does."""
        return self.zoo.run(self._run_id(i))

    def trajectory(self, i: int) -> NDArray[np.float32]:
        """Return the weights of the run of row ``i`` at every planned checkpoint, ``[K, P]``.

        See :meth:`zoo.dataset.Zoo.trajectory`; :meth:`trajectories` gives those of this view alone.
        """
        return self.zoo.trajectory(self._run_id(i))

    def spec(self, i: int) -> RunSpec:
        """Return the run spec of row ``i``."""
        i = position(i, len(self))
        return self._cohort(i).runs[int(self._rows[i])]

    @pinned()
    def state_dict(self, i: int) -> dict[str, Tensor]:
        """Return the state dict of row ``i``, as the plain module of :meth:`model` takes it."""
        layout = self._cohort(position(i, len(self))).layout
        return row_to_state_dict(layout, self._row(i))

    def _row(self, i: int) -> NDArray[np.float32]:
        """Return the weights ``[P]`` of row ``i``."""
        one = self.take([position(i, len(self))])
        source = self.zoo.source.cohorts[int(one._cohorts[0])]
        row: NDArray[np.float32] = source.read_weights(one._rows, one._checkpoints)[0]
        return row

    @pinned()
    def model(self, i: int) -> nn.Module:
        """Return row ``i`` as a plain ``nn.Module`` in eval mode.

        Its logits on :meth:`Zoo.probe_inputs` are the recorded ones, up to their float16 rounding.
        """
        cohort = self._cohort(position(i, len(self)))
        module = module_for(self.spec(i), cohort.data_shape)
        load_row(module, cohort.layout, self._row(i))
        return module.eval()

    # -- inside -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return view_line(self)

    def __str__(self) -> str:
        return describe_view(self)

    def _repr_html_(self) -> str:
        return view_html(self)

    def _cohort(self, position: int) -> Cohort:
        return self.zoo.plan.cohorts[int(self._cohorts[position])]

    def _run_id(self, i: int) -> str:
        at = position(i, len(self))
        return self._cohort(at).run_ids[int(self._rows[at])]
