"""The loader of whole batches, each of one structure, shuffled shard by shard.

torch's own ``DataLoader`` puts any items of a data set together, in any sampler's order. This one
reads a batch from few files, and never puts rows of two structures together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.dataset.any_view import AnyView
from zoo.dataset.batches import Shuffle, plan_batches
from zoo.dataset.selection import row_count
from zoo.errors import QueryError

__all__ = ["BatchSource", "Item", "ShardBatches", "make_loader"]

#: One item: a position, or (epoch, position).
Item = int | tuple[int, int]

#: Names that these arguments had before they took torch's.
_OLD_NAMES = {"batch": "batch_size", "workers": "num_workers"}
#: Arguments of torch's loader that decide the batches, which are made here.
_OURS = ("sampler", "batch_sampler", "collate_fn")


class BatchSource(Protocol):
    """What the loader reads: a data set that gives whole batches."""

    seed: int

    @property
    def rows(self) -> AnyView:
        """A view with the structure and the file of each item."""

    def batch(self, items: Sequence[Item]) -> Any:
        """Return the batch of these items, all of one structure."""


class ShardBatches(Sampler[list[tuple[int, int]]]):
    """Batches of one structure each, shuffled by shard; every pass is a new epoch.

    Args:
        view: the rows.
        batch: rows of a batch.
        shuffle, seed, drop_last: see :func:`zoo.dataset.batches.plan_batches`.
    """

    def __init__(
        self, view: AnyView, batch: int, *, shuffle: bool, seed: int = 0, drop_last: bool = False
    ) -> None:
        self.view = view
        self.batch = batch
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        #: Number of the next pass.
        self.epoch = 0
        self._length = len(self.plan(0))

    def __repr__(self) -> str:
        order = f"shuffled from seed {self.seed}" if self.shuffle else "in order"
        return f"<ShardBatches of {self.batch} rows: {len(self)}, {order}, next epoch {self.epoch}>"

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass that of this epoch; later ones count on from it."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        # a pass counts from its first batch on: loaders with workers begin twice and use one
        epoch, self.epoch = self.epoch, self.epoch + 1
        for positions in self.plan(epoch):
            yield [(epoch, int(p)) for p in positions]

    def plan(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the positions of each batch of an epoch."""
        shuffle = Shuffle(self.seed, epoch) if self.shuffle else None
        return plan_batches(self.view, self.batch, shuffle, drop_last=self.drop_last)


class _Batches(Dataset[Any]):
    """A data set whose items are batches: by their (epoch, position) pairs, or by number.

    The sampler gives pairs. A number is what a trainer asks for that puts a sampler of its own in
    place of ours, for example to share the batches out among processes.
    """

    def __init__(self, source: BatchSource, sampler: ShardBatches) -> None:
        self.source = source
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __getitem__(self, item: int | list[tuple[int, int]]) -> Any:
        if isinstance(item, list):
            return self.source.batch(item)
        return self.source.batch([(0, int(p)) for p in self.sampler.plan(0)[item]])


def make_loader(
    source: BatchSource,
    batch_size: int,
    *,
    shuffle: bool,
    num_workers: int,
    drop_last: bool,
    options: dict[str, Any],
) -> DataLoader[Any]:
    """Return a loader of whole batches; see :meth:`zoo.dataset.WeightDataset.loader`."""
    named = {"batch_size": batch_size, "num_workers": num_workers}
    for old, new in _OLD_NAMES.items():
        if old in options:
            named[new] = options.pop(old)
    for name in _OURS:
        if options.get(name) is not None:
            msg = (
                f"loader({name}=...): loader() makes the batches itself, of one structure each; for"
                f" {name}, give the data set to torch.utils.data.DataLoader"
            )
            raise QueryError(msg)
        options.pop(name, None)
    for name, least in (("batch_size", 1), ("num_workers", 0)):
        named[name] = row_count(named[name], name, least)
    sampler = ShardBatches(
        source.rows,
        named["batch_size"],
        shuffle=bool(shuffle),
        seed=source.seed,
        drop_last=bool(drop_last),
    )
    return DataLoader(
        _Batches(source, sampler),
        batch_size=None,  # an item is a batch already
        sampler=sampler,
        num_workers=named["num_workers"],
        collate_fn=_as_it_is,
        **options,
    )


def _as_it_is(batch: Any) -> Any:
    return batch
