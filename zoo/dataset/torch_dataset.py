"""A view as a torch data set: rows in one of several forms, targets by name, augmented on the fly.

Rows are read straight from the shards; workers share nothing but the files. What an item is, is a
function of (seed, epoch, position) alone: never of the number of workers, of the batch, or of what
was read before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.arithmetic import pinned
from zoo.dataset.any_view import AnyView
from zoo.dataset.augment import RowBatch, Transform, apply_transforms
from zoo.dataset.collation import single_item
from zoo.dataset.graphs import batch_pyg, encode_graphs, require_pyg
from zoo.dataset.layers import LayerTensors, layer_tensors
from zoo.dataset.loading import Item, ShardBatches, make_loader
from zoo.dataset.normalization import Normalization
from zoo.dataset.structure import Structure, structure_of
from zoo.dataset.targets import TargetOptions, encode_targets, has_targets
from zoo.dataset.tokens import tokenize
from zoo.errors import QueryError
from zoo.registry import Registry

__all__ = ["FORMS", "ShardBatches", "WeightDataset"]

#: Makes what a model takes of rows ``[B, P]`` of one structure.
Encoder = Callable[[Tensor, Structure, int], Any]

#: How rows can be given to a model.
FORMS: Registry[Encoder] = Registry("form")
FORMS.register("flat", doc="rows [P] as they are stored")(lambda rows, structure, size: rows)
FORMS.register("tokens", doc="each tensor cut into tokens of one size, with its place")(
    lambda rows, structure, size: tokenize(rows, structure.layout, size)
)
FORMS.register(
    "graph",
    doc="neurons as nodes, weights as edges",
    source="Kofinas et al. 2024, arXiv 2403.12143",
)(lambda rows, structure, size: encode_graphs(rows, structure))
FORMS.register("pyg", doc="the graph as torch_geometric.data.Data")(
    lambda rows, structure, size: encode_graphs(rows, structure).to_pyg_list()
)
FORMS.register(
    "layers", doc="weights and biases layer by layer", source="Zhou et al. 2023, arXiv 2302.14040"
)(lambda rows, structure, size: _layers(rows, structure))


def _layers(rows: Tensor, structure: Structure) -> LayerTensors:
    structure.require_chain("the form 'layers'")
    return layer_tensors(rows, structure.layout)


class WeightDataset(Dataset[Any]):
    """The rows of a view as pairs (input, target); n of them.

    Every ``DataLoader``, sampler, ``Subset`` and ``random_split`` of torch takes it. A loader of
    torch needs rows of one structure, as one tensor holds a batch; :meth:`loader` takes any rows,
    and reads quicker.

    Args:
        view: which rows.
        form: one of :data:`FORMS`: ``"flat"`` rows ``[P]``; ``"tokens"``, see
            :mod:`zoo.dataset.tokens`; ``"graph"``, see :mod:`zoo.dataset.graphs`; ``"layers"``, see
            :mod:`zoo.dataset.layers`; ``"pyg"``, ``torch_geometric.data.Data`` with the target as
            its ``y``, for PyTorch Geometric's loader: items are no pairs then.
        targets: a column, or several. Numbers are float32; text and truth values are classes,
            int64, numbered as in :attr:`classes`. One name gives targets ``[B]``, several
            ``[B, T]``; none gives ``[B, 0]``.
        classes: the classes in the order of their numbers, ``{target: classes}`` for several
            targets. By default from a list that does not change as the zoo grows, see
            :mod:`zoo.dataset.targets`. With it, numbers are classes too.
        missing: rows without a target: ``"error"``; ``"drop"`` leaves them out of :attr:`view`;
            ``"keep"`` gives NaN, or class −100, which torch's losses ignore.
        transforms: see :mod:`zoo.dataset.augment`; they come before the normalisation.
        normalization: fitted on the training part.
        seed: of the transforms, and of the loader's order.
        token_size: D of the form ``"tokens"``; 0 = the longest.

    Raises:
        UnknownNameError: an unknown form.
        QueryError: an unknown column, missing targets, or classes beside other targets.
        ImportError: the form ``"pyg"`` without torch_geometric.
    """

    @pinned()
    def __init__(
        self,
        view: AnyView,
        *,
        form: str = "flat",
        targets: str | Sequence[str] = (),
        classes: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        missing: str = "error",
        transforms: Sequence[Transform] = (),
        normalization: Normalization | None = None,
        seed: int = 0,
        token_size: int = 0,
    ) -> None:
        options = TargetOptions.read(targets, classes, missing)
        if missing == "drop":
            there = has_targets(view, options)
            view = view if there.all() else view.take(there)
        self.view = view
        self.form = form
        self.targets = options.names
        self.transforms = tuple(transforms)
        self.normalization = normalization
        self.seed = seed
        self.token_size = token_size
        FORMS[form]  # an unknown form is an error now, not in a worker
        if form == "pyg":
            require_pyg()
        encoded = encode_targets(view, options)
        #: Target → its classes by number, for targets that are classes.
        self.labels: dict[str, tuple[Any, ...]] = dict(encoded.classes)
        self._single = options.single
        self._y = encoded.values
        # shared, so that workers which live through several epochs see it change
        self._epoch: Tensor = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def classes(self) -> tuple[Any, ...] | dict[str, tuple[Any, ...]]:
        """The classes by number: of the one target, or by target where a list of them was given.

        Empty for targets that are numbers.
        """
        return self.labels.get(self.targets[0], ()) if self._single else dict(self.labels)

    @property
    def rows(self) -> AnyView:
        """The view, as the loader asks for it."""
        return self.view

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the transforms of a plain ``DataLoader`` draw for.

        :meth:`loader` counts its own passes and needs no call.
        """
        self._epoch.fill_(int(epoch))

    def __len__(self) -> int:
        return len(self.view)

    def __repr__(self) -> str:
        targets = ", ".join(self.targets) or "none"
        return f"<WeightDataset {self.form!r}: {len(self)} rows, targets {targets}>"

    def __getitem__(self, item: Item) -> Any:
        """Return one (input, target), without a batch's axis.

        Raises:
            IndexError: past the end.
            TypeError: anything but an integer.
        """
        return self.__getitems__([item])[0]

    @pinned(gradients="as they are")
    def __getitems__(self, items: Sequence[Item]) -> list[Any]:
        """Return a list of items, read together; torch's loader asks for its batches so.

        Raises:
            IndexError: past the end.
            TypeError: anything but integers.
        """
        numbered = [self._numbered(item) for item in items]
        cohorts = self.view.cohort_index
        found: dict[tuple[int, Structure], list[int]] = {}
        for at, (epoch, position) in enumerate(numbered):
            structure = structure_of(self.view.zoo.plan.cohorts[int(cohorts[position])])
            found.setdefault((epoch, structure), []).append(at)
        out: list[Any] = [None] * len(numbered)
        for (epoch, structure), places in found.items():
            part = self._rows([numbered[at][1] for at in places], epoch, structure)
            for i, at in enumerate(places):
                one = FORMS[self.form](part.rows[i : i + 1], structure, self.token_size)
                out[at] = self._pair(single_item(one), part.targets[i])
        return out

    @pinned(gradients="as they are")
    def batch(self, items: Sequence[Item]) -> Any:
        """Return one batch (input, targets); every row must have one structure.

        Args:
            items: positions, or (epoch, position) pairs as :class:`ShardBatches` gives them.

        Raises:
            QueryError: rows of several structures, or no rows.
            IndexError: past the end.
            TypeError: anything but integers.
        """
        numbered = [self._numbered(item) for item in items]
        positions = [position for _, position in numbered]
        cohorts = self.view.zoo.plan.cohorts
        found = {structure_of(cohorts[i]) for i in np.unique(self.view.cohort_index[positions])}
        if len(found) != 1:
            msg = (
                f"a batch with rows of {len(found)} structures; let loader() make the batches, or "
                "query one architecture, width, depth, activation and norm"
            )
            raise QueryError(msg)
        structure = next(iter(found))
        part = self._rows(positions, numbered[0][0], structure)
        x = FORMS[self.form](part.rows, structure, self.token_size)
        if self.form == "pyg":
            return batch_pyg([self._pair(*pair) for pair in zip(x, part.targets, strict=True)])
        return x, part.targets

    def loader(
        self,
        batch_size: int = 64,
        *,
        shuffle: bool = False,
        num_workers: int = 0,
        drop_last: bool = False,
        **options: Any,
    ) -> DataLoader[Any]:
        """Return a ``DataLoader`` of whole batches, each of one structure.

        Make it once and go over it once an epoch: every pass is shuffled and augmented anew, as a
        function of (seed, number of the pass). ``loader.sampler.set_epoch(e)`` resumes.

        Args:
            batch_size: rows of a batch; also as ``batch``.
            shuffle: mix the rows, shard by shard, anew in each pass.
            num_workers: processes that read; 0 = this one. Also as ``workers``.
            drop_last: leave out batches with fewer rows.
            options: further arguments of the ``DataLoader``.

        Raises:
            QueryError: a number that is none of those allowed, or a sampler: that is for torch's
                own ``DataLoader``.
        """
        return make_loader(
            self,
            batch_size,
            shuffle=shuffle,
            num_workers=num_workers,
            drop_last=drop_last,
            options=options,
        )

    def _numbered(self, item: Any) -> tuple[int, int]:
        """Return (epoch, position) of an item, the position from the start."""
        epoch, position = item if isinstance(item, tuple) else (None, item)
        try:
            at = operator.index(position)
        except TypeError:
            msg = (
                f"item {item!r} of a data set: allowed are integers; for several rows use"
                " torch.utils.data.Subset, or slice the view"
            )
            raise TypeError(msg) from None
        if not -len(self) <= at < len(self):
            msg = f"row {at} of a data set of {len(self)}"
            raise IndexError(msg)
        return int(self._epoch) if epoch is None else epoch, at % len(self)

    def _rows(self, positions: list[int], epoch: int, structure: Structure) -> RowBatch:
        """Return rows of one structure with their targets, transformed and normalised."""
        at = np.array(positions, dtype=np.int64)
        weights = self.view.take(at).stacked_weights()
        rows = torch.from_numpy(np.ascontiguousarray(weights))
        batch = RowBatch(rows, self._y[at], structure, self.seed, epoch, at)
        batch = apply_transforms(batch, self.transforms)
        if self.normalization is None:
            return batch
        return replace(batch, rows=self.normalization.apply(batch.rows, structure.layout))

    def _pair(self, x: Any, y: Tensor) -> Any:
        if self.form != "pyg":
            return x, y
        if self.targets:
            x.y = y.unsqueeze(0)
        return x
