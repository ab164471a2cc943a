"""A view as a torch data set: rows in one of several forms, targets by name, augmented on the fly.

Rows are read straight from the shards, in batches of one structure; workers share nothing but the
files. What an item is, is a function of (seed, epoch, position) alone: never of the number of
workers, of the batch, or of what was read before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.dataset.augment import RowBatch, Transform, apply_transforms
from zoo.dataset.batches import plan_batches
from zoo.dataset.graphs import encode_graphs
from zoo.dataset.layers import layer_tensors
from zoo.dataset.normalization import Normalization
from zoo.dataset.structure import Structure, structure_of
from zoo.dataset.tokens import tokenize
from zoo.errors import QueryError
from zoo.registry import Registry

if TYPE_CHECKING:
    from zoo.dataset.view import View

__all__ = ["FORMS", "ShardBatches", "WeightDataset"]

#: Makes what a model takes of rows ``[B, P]`` of one structure.
Encoder = Callable[[Tensor, Structure, int], Any]

#: How rows can be given to a model.
FORMS: Registry[Encoder] = Registry("form")
FORMS.register("flat")(lambda rows, structure, size: rows)
FORMS.register("tokens")(lambda rows, structure, size: tokenize(rows, structure.layout, size))
FORMS.register("graph")(lambda rows, structure, size: encode_graphs(rows, structure))
FORMS.register("layers")(lambda rows, structure, size: layer_tensors(rows, structure.layout))

#: One item: a position, or (epoch, position).
_Item = int | tuple[int, int]


class ShardBatches(Sampler[list[tuple[int, int]]]):
    """Batches of one structure each, shuffled by shard; every pass is a new epoch.

    Args:
        view: the rows.
        batch: rows of a batch.
        shuffle, seed, drop_last: see :func:`zoo.dataset.batches.plan_batches`.
    """

    def __init__(
        self, view: View, batch: int, *, shuffle: bool, seed: int = 0, drop_last: bool = False
    ) -> None:
        self.view = view
        self.batch = batch
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        #: Number of the next pass; set it to resume.
        self.epoch = 0
        self._length = len(self._plan(0))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        for positions in self._plan(epoch):
            yield [(epoch, int(p)) for p in positions]

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        return plan_batches(
            self.view,
            self.batch,
            shuffle=self.shuffle,
            seed=self.seed,
            epoch=epoch,
            drop_last=self.drop_last,
        )


class WeightDataset(Dataset[tuple[Any, Tensor]]):
    """The rows of a view as pairs (input, target); n of them.

    Args:
        view: which rows.
        form: one of :data:`FORMS`: ``"flat"`` rows ``[B, P]``; ``"tokens"``, see
            :mod:`zoo.dataset.tokens`; ``"graph"``, see :mod:`zoo.dataset.graphs`; ``"layers"``, see
            :mod:`zoo.dataset.layers`.
        targets: a column, or several. Numbers are float32; text and truth values are classes,
            int64, whose labels are in :attr:`labels` and are those of the whole zoo, so that a
            training and a test part agree. One name gives targets ``[B]``, several ``[B, T]``;
            none gives ``[B, 0]``.
        transforms: see :mod:`zoo.dataset.augment`; they come before the normalisation.
        normalization: fitted on the training part.
        seed: of the transforms.
        token_size: D of the form ``"tokens"``; 0 = the longest.

    Raises:
        UnknownNameError: an unknown form.
        QueryError: an unknown column, or classes beside other targets.
    """

    def __init__(
        self,
        view: View,
        *,
        form: str = "flat",
        targets: str | Sequence[str] = (),
        transforms: Sequence[Transform] = (),
        normalization: Normalization | None = None,
        seed: int = 0,
        token_size: int = 0,
    ) -> None:
        self.view = view
        self.form = form
        self.targets = (targets,) if isinstance(targets, str) else tuple(targets)
        self.transforms = tuple(transforms)
        self.normalization = normalization
        self.seed = seed
        self.token_size = token_size
        FORMS[form]  # an unknown form is an error now, not in a worker
        #: Target → its labels, for targets that are classes.
        self.labels: dict[str, tuple[Any, ...]] = {}
        columns = [self._target(name) for name in self.targets]
        kinds = {column.dtype for column in columns}
        if len(kinds) > 1:
            msg = (
                f"targets {', '.join(self.targets)}: numbers and classes cannot share one tensor; "
                "make a data set for each"
            )
            raise QueryError(msg)
        stacked = torch.stack(columns, 1) if columns else torch.empty(len(view), 0)
        self._y = stacked[:, 0] if isinstance(targets, str) else stacked

    def _target(self, name: str) -> Tensor:
        values = self.view.column(name)
        if values.dtype.kind in "ifu":
            return torch.from_numpy(values.astype(np.float32))
        everywhere = [np.unique(table[name]) for table in self.view.zoo.tables]
        known = np.unique(np.concatenate([labels[labels != ""] for labels in everywhere]))
        if values.dtype.kind == "U" and (values == "").any():
            msg = (
                f"{int((values == '').sum())} of {len(values)} rows have no {name!r}; leave them"
                f" out with the query \"{name} != ''\""
            )
            raise QueryError(msg)
        self.labels[name] = tuple(known.tolist())
        return torch.from_numpy(np.searchsorted(known, values).astype(np.int64))

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, item: _Item) -> tuple[Any, Tensor]:
        """Return one (input, target); flat rows come as ``[P]``, the other forms as a batch of one.

        Raises:
            IndexError: past the end.
        """
        x, y = self.__getitems__([item])
        return (x[0] if isinstance(x, Tensor) else x), y[0]

    def __getitems__(self, items: Sequence[_Item]) -> tuple[Any, Tensor]:
        """Return a batch (input, targets); every row must have one structure.

        Args:
            items: positions, or (epoch, position) pairs as :class:`ShardBatches` gives them.

        Raises:
            QueryError: rows of several structures.
            IndexError: past the end.
        """
        epochs, positions = zip(
            *((0, int(i)) if isinstance(i, int | np.integer) else i for i in items), strict=True
        )
        at = np.array(positions, dtype=np.int64)
        if at.size and not (-len(self) <= at.min() and at.max() < len(self)):
            msg = f"rows {positions} of a data set of {len(self)}"
            raise IndexError(msg)
        part = self.view.take(at)
        cohorts = self.view.zoo.plan.cohorts
        found = {structure_of(cohorts[i]) for i in np.unique(part.cohort_index)}
        if len(found) != 1:
            msg = (
                f"a batch with rows of {len(found)} structures; let loader() make the batches, or "
                "query one architecture, width, depth, activation and norm"
            )
            raise QueryError(msg)
        structure = next(iter(found))
        rows = torch.from_numpy(np.ascontiguousarray(part.stacked_weights()))
        batch = RowBatch(rows, self._y[at], structure, self.seed, int(epochs[0]), at % len(self))
        batch = apply_transforms(batch, self.transforms)
        rows = batch.rows
        if self.normalization is not None:
            rows = self.normalization.apply(rows, structure.layout)
        return FORMS[self.form](rows, structure, self.token_size), batch.targets

    def loader(
        self,
        batch: int = 64,
        *,
        shuffle: bool = False,
        workers: int = 0,
        drop_last: bool = False,
        **options: Any,
    ) -> DataLoader[tuple[Any, Tensor]]:
        """Return a ``DataLoader`` of whole batches, each of one structure.

        Args:
            batch: rows of a batch.
            shuffle: mix the rows, shard by shard, anew in each pass.
            workers: processes that read; 0 = this one.
            drop_last: leave out batches with fewer rows.
            options: further arguments of the ``DataLoader``.
        """
        sampler = ShardBatches(
            self.view, batch, shuffle=shuffle, seed=self.seed, drop_last=drop_last
        )
        return DataLoader(
            self,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=_as_it_is,
            **options,
        )


def _as_it_is(batch: Any) -> Any:
    """Return a batch that ``__getitems__`` has put together."""
    return batch
