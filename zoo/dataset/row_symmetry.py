"""Permutations and unit factors on slab rows, many rows at a time.

:mod:`zoo.architectures.symmetry` says which axes a permutation moves and which tensors a factor
multiplies; here they act on rows ``[B, P]``, each row with its own permutation or factors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.architectures.symmetry import PermutationGroup, UnitSymmetry
from zoo.arithmetic import pinned
from zoo.dataset.structure import Structure
from zoo.seeds import Stream, permutations

__all__ = ["permute_rows", "random_orders", "scale_rows", "tensor_of", "unit_values"]


def tensor_of(rows: Tensor, layout: Layout, name: str) -> Tensor:
    """Return one tensor of rows ``[B, P]`` as a view ``[B, *shape]``."""
    segment = layout[name]
    return rows[:, segment.offset : segment.stop].view(len(rows), *segment.shape)


@pinned(gradients="as they are")
def permute_rows(
    rows: Tensor, structure: Structure, group: PermutationGroup, orders: Tensor
) -> Tensor:
    """Return rows whose units are in a new order: unit i is what unit ``orders[:, i]`` was.

    Args:
        rows: ``[B, P]``.
        structure: of the rows.
        group: which units.
        orders: ``[B, size]`` int64, a permitted permutation a row, or ``[1, size]`` for all.
    """
    changed = rows.clone()
    for key, axis in group.axes:
        source = tensor_of(rows, structure.layout, key)
        shape = [orders.shape[0]] + [1] * (source.dim() - 1)
        shape[1 + axis] = -1
        moved = torch.take_along_dim(source, orders.view(shape), 1 + axis)
        tensor_of(changed, structure.layout, key).copy_(moved)
    return changed


@pinned(gradients="as they are")
def scale_rows(
    rows: Tensor, structure: Structure, symmetry: UnitSymmetry, factors: Tensor
) -> Tensor:
    """Return rows with a factor on each unit of a scale or sign symmetry.

    Args:
        rows: ``[B, P]``.
        structure: of the rows.
        symmetry: which tensors are multiplied and divided.
        factors: ``[B, size]``, positive for a scale symmetry and ±1 for a sign symmetry.
    """
    changed = rows.clone()
    inverse = 1 / factors
    for keys, a in ((symmetry.multiplied, factors), (symmetry.divided, inverse)):
        for key, axis in keys:
            target = tensor_of(changed, structure.layout, key)
            shape = [rows.shape[0]] + [1] * (target.dim() - 1)
            shape[1 + axis] = -1
            target.mul_(a.view(shape))
    return changed


def unit_values(
    rows: Tensor, structure: Structure, keys: Sequence[tuple[str, int]], size: int
) -> Tensor:
    """Return every value of some tensors that belongs to each unit, ``[B, size, values]``.

    Args:
        rows: ``[B, P]``.
        structure: of the rows.
        keys: (key, axis) of the tensors; the axis counts units.
        size: number of units.
    """
    parts = [
        tensor_of(rows, structure.layout, key).movedim(1 + axis, 1).reshape(len(rows), size, -1)
        for key, axis in keys
    ]
    return torch.cat(parts, 2)


@pinned(gradients="as they are")
def random_orders(
    group: PermutationGroup,
    seeds: NDArray[np.int64],
    indices: NDArray[np.int64],
    *,
    stream: int = Stream.PERMUTATION,
) -> Tensor:
    """Draw a permitted permutation for each of B (seed, index) pairs.

    Blocks (the groups of a group norm) move as wholes, and units within their block.

    Returns:
        ``[B, size]`` int64.
    """
    each = group.size // group.blocks
    if group.blocks == 1:
        return torch.from_numpy(permutations(seeds, stream, indices, each))
    # one draw of 1 + blocks permutations a row: sub-indices of the row's own index
    count = group.blocks + 1
    base = indices * count
    blocks = permutations(seeds, stream, base, group.blocks)
    inner = [permutations(seeds, stream, base + 1 + i, each) for i in range(group.blocks)]
    stacked = np.stack(inner, 1) + (np.arange(group.blocks) * each)[None, :, None]
    picked = np.take_along_axis(stacked, blocks[:, :, None], 1)
    return torch.from_numpy(picked.reshape(len(seeds), group.size))
