"""Augmentation of weights on the fly: what leaves the function alone, and what does not.

A transform takes a :class:`RowBatch` and returns one. Its random numbers are a function of (seed,
epoch, row), so a row's augmentation does not depend on batch, worker or order. :class:`Permute`,
:class:`Rescale`, :class:`FlipSigns` and :class:`Canonical` leave every output unchanged (relative
1e-5, tested for each architecture, activation and norm); :class:`Noise` and :class:`Mixup` do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures.layout import BUFFER
from zoo.arithmetic import pinned
from zoo.dataset.canonical import canonical_rows
from zoo.dataset.row_symmetry import permute_rows, random_orders, scale_rows
from zoo.dataset.structure import Structure
from zoo.errors import QueryError
from zoo.seeds import Stream, torch_uniform

__all__ = [
    "Canonical",
    "FlipSigns",
    "Mixup",
    "Noise",
    "Permute",
    "Rescale",
    "RowBatch",
    "Transform",
    "apply_transforms",
]

_ROW_BITS, _SALT_BITS = 26, 10


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Rows of one structure with their targets.

    Args:
        rows: ``[B, P]`` float32.
        targets: ``[B, ...]``.
        structure: of the rows.
        seed: of all drawings.
        epoch: which pass over the data.
        index: ``[B]`` int64, position of each row in the data set.
        salt: number of the transform, so that each draws its own numbers.
    """

    rows: Tensor
    targets: Tensor
    structure: Structure
    seed: int
    epoch: int
    index: NDArray[np.int64]
    salt: int = 0

    def draws(self, part: int = 0) -> NDArray[np.int64]:
        """Return the counter ``[B]`` of each row's drawing number ``part`` (below 64)."""
        salt = self.salt * 64 + part
        if salt >= 1 << _SALT_BITS:
            msg = f"at most {(1 << _SALT_BITS) // 64} transforms, each with 64 layers"
            raise QueryError(msg)
        row = (np.int64(self.epoch) << _ROW_BITS) + self.index
        return (row << _SALT_BITS) + salt

    def uniform(self, n: int, part: int = 0) -> Tensor:
        """Return ``[B, n]`` numbers in [0, 1)."""
        return torch_uniform(*self._counters(part), n)

    def normal(self, n: int, part: int = 0) -> Tensor:
        """Return ``[B, n]`` standard normal numbers.

        By numpy's own Philox, keyed by (seed, counter): many more of them are needed than of the
        others, and it is ten times faster.
        """
        keys = [(self.seed, int(counter)) for counter in self.draws(part)]
        found = [np.random.Generator(np.random.Philox(key=key)) for key in keys]
        return torch.from_numpy(np.stack([g.standard_normal(n, np.float32) for g in found]))

    def _counters(self, part: int) -> tuple[Tensor, int, Tensor]:
        seeds = torch.full((len(self.index),), self.seed, dtype=torch.int64)
        return seeds, int(Stream.AUGMENT), torch.from_numpy(self.draws(part))


#: What a data set takes as one of its ``transforms``.
Transform = Callable[[RowBatch], RowBatch]


@pinned(gradients="as they are")
def apply_transforms(batch: RowBatch, transforms: Sequence[Transform]) -> RowBatch:
    """Return the batch after every transform, in order."""
    for salt, transform in enumerate(transforms):
        batch = transform(replace(batch, salt=salt))
    return batch


@dataclass(frozen=True, slots=True)
class Permute:
    """Permute the units of every layer at random. Outputs do not change."""

    def __call__(self, batch: RowBatch) -> RowBatch:
        """Return the batch with every row permuted on its own."""
        rows = batch.rows
        seeds = np.full(len(batch.index), batch.seed, dtype=np.int64)
        for part, group in enumerate(batch.structure.groups):
            orders = random_orders(group, seeds, batch.draws(part))
            rows = permute_rows(rows, batch.structure, group, orders)
        return replace(batch, rows=rows)


@dataclass(frozen=True, slots=True)
class Rescale:
    """Multiply each homogeneous (ReLU) unit's incoming weights by a, its outgoing ones by 1/a.

    ln a is uniform on ±ln ``most``. Outputs do not change; rows without such units stay as they
    are.

    Args:
        most: largest factor, above 1.
    """

    most: float = 2.0

    def __post_init__(self) -> None:
        if not self.most >= 1:
            msg = f"most = {self.most}: the largest factor must be at least 1"
            raise QueryError(msg)

    def __call__(self, batch: RowBatch) -> RowBatch:
        """Return the batch with every unit rescaled on its own."""
        rows = batch.rows
        for part, symmetry in enumerate(batch.structure.units):
            if symmetry.kind == "scale":
                size = batch.structure.group(symmetry.group).size
                exponent = (2 * batch.uniform(size, part) - 1) * math.log(self.most)
                rows = scale_rows(rows, batch.structure, symmetry, exponent.exp())
        return replace(batch, rows=rows)


@dataclass(frozen=True, slots=True)
class FlipSigns:
    """Turn the sign of each odd (tanh) unit's incoming and outgoing weights with probability ½.

    Outputs do not change; rows without such units stay as they are.
    """

    def __call__(self, batch: RowBatch) -> RowBatch:
        """Return the batch with every unit's sign drawn on its own."""
        rows = batch.rows
        for part, symmetry in enumerate(batch.structure.units):
            if symmetry.kind == "sign":
                size = batch.structure.group(symmetry.group).size
                signs = torch.where(batch.uniform(size, part) < 0.5, -1.0, 1.0)
                rows = scale_rows(rows, batch.structure, symmetry, signs)
        return replace(batch, rows=rows)


@dataclass(frozen=True, slots=True)
class Canonical:
    """Replace each row by its canonical representative; outputs do not change."""

    def __call__(self, batch: RowBatch) -> RowBatch:
        """Return the batch with canonical rows."""
        return replace(batch, rows=canonical_rows(batch.rows, batch.structure))


@dataclass(frozen=True, slots=True)
class Noise:
    """Add normal noise to each trained tensor, relative to its own root mean square.

    Args:
        relative: standard deviation over the tensor's root mean square; outputs change with it.
    """

    relative: float = 0.01

    def __call__(self, batch: RowBatch) -> RowBatch:
        """Return the batch with noise on every trained value; buffers stay as they are."""
        rows = batch.rows.clone()
        noise = batch.normal(batch.structure.params)
        for s in batch.structure.layout.segments:
            if s.role != BUFFER:
                part = batch.rows[:, s.offset : s.stop]
                scale = self.relative * part.square().mean(1, keepdim=True).sqrt()
                rows[:, s.offset : s.stop] += scale * noise[:, s.offset : s.stop]
        return replace(batch, rows=rows)


@dataclass(frozen=True, slots=True)
class Mixup:
    """Mix each row with another row of its batch, both aligned; targets mix alike.

    w' = λ w_i + (1 − λ) align(w_j), λ drawn from Beta(α, α) as max(λ, 1 − λ), after Zhang et al.
    2018 (arXiv 1710.09412); aligned as in Schürholt et al. 2024 (arXiv 2406.09997). Outputs change.
    Targets must be numbers, not classes.

    Args:
        alpha: of the Beta distribution.
        align: how w_j is brought near w_i: ``"canonical"`` (both rows in canonical form),
            ``"weights"`` (weight matching of w_j to w_i; slower) or ``"none"``.
    """

    alpha: float = 1.0
    align: str = "canonical"

    def __post_init__(self) -> None:
        if self.align not in ("canonical", "weights", "none") or not self.alpha > 0:
            msg = (
                f"Mixup(alpha={self.alpha}, align={self.align!r}): alpha must be positive, and "
                "align 'canonical', 'weights' or 'none'"
            )
            raise QueryError(msg)

    def __call__(self, batch: RowBatch) -> RowBatch:
        """Return the batch with every row mixed with the one that follows it in a random order."""
        if not batch.targets.is_floating_point():
            msg = "Mixup needs numeric targets; classes cannot be mixed"
            raise QueryError(msg)
        count = len(batch.rows)
        order = batch.uniform(1)[:, 0].argsort()
        partner = torch.empty(count, dtype=torch.int64)
        partner[order] = order.roll(1)
        rows = batch.rows
        if self.align == "canonical":
            rows = canonical_rows(rows, batch.structure)
        other = rows[partner]
        if self.align == "weights":
            from zoo.dataset.align import align_rows

            other = torch.stack(
                [
                    align_rows(b.unsqueeze(0), a, batch.structure)[0]
                    for a, b in zip(rows, other, strict=True)
                ]
            )
        share = self._shares(batch)
        mixed = share * rows + (1 - share) * other
        weight = share.view(count, *[1] * (batch.targets.dim() - 1))
        targets = weight * batch.targets + (1 - weight) * batch.targets[partner]
        return replace(batch, rows=mixed, targets=targets)

    def _shares(self, batch: RowBatch) -> Tensor:
        """Return λ ``[B, 1]``, at least a half, by inverting the Beta distribution function."""
        from scipy.special import betaincinv

        drawn = batch.uniform(1, part=1).double().numpy()
        share = betaincinv(self.alpha, self.alpha, drawn)
        return torch.from_numpy(np.maximum(share, 1 - share)).float()
