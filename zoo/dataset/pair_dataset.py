"""Pairs of checkpoints as a torch data set: an item is the left one's and the right one's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from zoo.dataset.any_view import AnyView
from zoo.dataset.loading import Item, make_loader
from zoo.dataset.targets import TargetOptions, has_targets
from zoo.dataset.torch_dataset import WeightDataset

__all__ = ["PairDataset"]


class Sides(Protocol):
    """Pairs of rows, as :class:`zoo.dataset.pairs.Pairs` has them."""

    @property
    def left(self) -> AnyView:
        """The left rows."""

    @property
    def right(self) -> AnyView:
        """The right rows."""

    def __getitem__(self, key: NDArray[Any], /) -> Self:
        """Return some of the pairs."""


class PairDataset(Dataset[tuple[Any, Any]]):
    """Pairs of rows as pairs of items; n of them.

    An item is ``((input, target), (input, target))``, left and right, each as
    :class:`~zoo.dataset.WeightDataset` gives it. The transforms of the two sides are drawn
    separately.

    Args:
        pairs: which rows.
        form, targets, classes, missing, seed: as in :class:`~zoo.dataset.WeightDataset`; a pair
            lacks a target where either side does.
        options: its other arguments.

    Raises:
        UnknownNameError: an unknown form.
        QueryError: see :class:`~zoo.dataset.WeightDataset`.
    """

    def __init__(
        self,
        pairs: Sides,
        *,
        form: str = "flat",
        targets: str | Sequence[str] = (),
        classes: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        missing: str = "error",
        seed: int = 0,
        **options: Any,
    ) -> None:
        wanted = TargetOptions.read(targets, classes, missing)
        if missing == "drop":
            pairs = pairs[has_targets(pairs.left, wanted) & has_targets(pairs.right, wanted)]
        self.pairs = pairs
        self.seed = seed

        def side(view: AnyView, seed: int) -> WeightDataset:
            return WeightDataset(
                view, form=form, targets=targets, classes=classes, missing=missing, seed=seed,
                **options,
            )  # fmt: skip

        self.left = side(pairs.left, seed)
        # another seed, or both sides would be permuted alike
        self.right = side(pairs.right, seed ^ (1 << 31))

    @property
    def rows(self) -> AnyView:
        """The left rows; the right ones have the same structures."""
        return self.left.view

    @property
    def classes(self) -> tuple[Any, ...] | dict[str, tuple[Any, ...]]:
        """The classes by number; see :attr:`zoo.dataset.WeightDataset.classes`."""
        return self.left.classes

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of both sides; see :meth:`zoo.dataset.WeightDataset.set_epoch`."""
        self.left.set_epoch(epoch)
        self.right.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.left)

    def __repr__(self) -> str:
        return f"<PairDataset {self.left.form!r}: {len(self)} pairs>"

    def __getitem__(self, item: Item) -> tuple[Any, Any]:
        """Return the two items of a pair."""
        return self.left[item], self.right[item]

    def __getitems__(self, items: Sequence[Item]) -> list[tuple[Any, Any]]:
        """Return a list of pairs of items, read together."""
        left, right = self.left.__getitems__(items), self.right.__getitems__(items)
        return list(zip(left, right, strict=True))

    def batch(self, items: Sequence[Item]) -> tuple[Any, Any]:
        """Return a batch of the left and one of the right; every row must have one structure."""
        return self.left.batch(items), self.right.batch(items)

    def loader(
        self,
        batch_size: int = 64,
        *,
        shuffle: bool = False,
        num_workers: int = 0,
        drop_last: bool = False,
        **options: Any,
    ) -> DataLoader[Any]:
        """Return a loader of whole batches; see :meth:`zoo.dataset.WeightDataset.loader`."""
        return make_loader(
            self,
            batch_size,
            shuffle=shuffle,
            num_workers=num_workers,
            drop_last=drop_last,
            options=options,
        )
