"""Weight matching: the permutation of one model's units that brings its weights nearest another's.

Ainsworth et al. 2023, "Git Re-Basin" (arXiv 2209.04836), algorithm 1, over the permutation groups
that a network derives and verifies; nothing here knows an architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from zoo.architectures.layout import BUFFER, Layout
from zoo.architectures.symmetry import PermutationGroup
from zoo.arithmetic import pinned

__all__ = ["assign_units", "groups_from_json", "match_rows", "match_weights", "permute_row"]

_Orders = tuple[NDArray[np.int64], ...]
_SWEEPS = 100


def groups_from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[PermutationGroup, ...]:
    """Rebuild the groups that a store keeps in ``architecture["permutation_groups"]``."""
    return tuple(
        PermutationGroup(
            str(row["name"]),
            int(row["size"]),
            int(row["blocks"]),
            tuple((str(key), int(axis)) for key, axis in row["axes"]),
        )
        for row in rows
    )


def permute_row(
    layout: Layout,
    groups: Sequence[PermutationGroup],
    row: NDArray[Any],
    orders: Sequence[NDArray[np.int64]],
) -> NDArray[Any]:
    """Return a row ``[P]`` with the units of each group in a new order; buffers move along.

    Args:
        layout: of the row.
        groups: the permutation groups.
        row: ``[P]``.
        orders: one permutation ``[size]`` a group: unit i of the result is unit ``order[i]``.
    """
    out = np.array(row)
    for group, order in zip(groups, orders, strict=True):
        for key, axis in group.axes:
            segment = layout[key]
            tensor = out[segment.offset : segment.stop].reshape(segment.shape)
            tensor[...] = np.take(tensor, order, axis=axis)
    return out


@pinned()
def match_weights(
    layout: Layout,
    groups: Sequence[PermutationGroup],
    a: NDArray[Any],
    b: NDArray[Any],
) -> _Orders:
    """Return the permutations of b's units that maximise ⟨θ_a, π(θ_b)⟩, group by group.

    Minimising ‖θ_a − π(θ_b)‖² over one group with the others fixed is a linear assignment problem,
    solved exactly; the groups are gone through until none changes. The first pass goes from input
    to output and scores a group by what produces its units alone, whose inputs are matched by then:
    a pure permutation is undone in that one pass. Where blocks of units may only move as wholes
    (group norm), blocks are assigned by the scores of their best inner assignments. Trained tensors
    count; running statistics only move.

    Args:
        layout: of the rows.
        groups: the permutation groups, from input to output.
        a, b: rows ``[P]``.

    Returns:
        One permutation ``[size]`` a group, for :func:`permute_row` on b. Never worse than leaving
        b as it is; the identity for rows that are not finite.
    """
    first = _tensors(layout, a)
    moved = _tensors(layout, b)
    orders = [np.arange(g.size) for g in groups]
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return tuple(orders)
    before = _product(first, moved)
    for number in range(_SWEEPS):
        changed = False
        for index, group in enumerate(groups):
            axes = [(key, axis) for key, axis in group.axes if number or axis == 0]
            step = assign_units(_scores(first, moved, axes), group.blocks)
            if not np.array_equal(step, np.arange(group.size)):
                changed = True
                orders[index] = orders[index][step]
                for key, axis in group.axes:
                    if key in moved:
                        moved[key] = np.take(moved[key], step, axis=axis)
        if number and not changed:
            break
    if _product(first, moved) < before:
        return tuple(np.arange(g.size) for g in groups)
    return tuple(orders)


@pinned()
def match_rows(
    layout: Layout,
    groups: Sequence[PermutationGroup],
    a: NDArray[Any],
    b: NDArray[Any],
) -> NDArray[Any]:
    """Return rows b ``[n, P]``, each permuted to lie nearest its partner in a ``[n, P]``."""
    return np.stack(
        [
            permute_row(layout, groups, y, match_weights(layout, groups, x, y))
            for x, y in zip(a, b, strict=True)
        ]
    )


def _tensors(layout: Layout, row: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    return {
        s.name: row[s.offset : s.stop].reshape(s.shape).astype(np.float64)
        for s in layout.segments
        if s.role != BUFFER
    }


def _product(a: Mapping[str, NDArray[np.float64]], b: Mapping[str, NDArray[np.float64]]) -> float:
    return float(sum(np.vdot(value, b[key]) for key, value in a.items()))


def _scores(
    a: Mapping[str, NDArray[np.float64]],
    b: Mapping[str, NDArray[np.float64]],
    axes: Sequence[tuple[str, int]],
) -> NDArray[np.float64]:
    """Return ``[size, size]``: what unit i of a gains when unit j of b takes its place."""
    total: Any = 0.0
    for key, axis in axes:
        if key in a:
            left = np.moveaxis(a[key], axis, 0)
            right = np.moveaxis(b[key], axis, 0)
            total = total + left.reshape(len(left), -1) @ right.reshape(len(right), -1).T
    return np.asarray(total, dtype=np.float64)


def assign_units(scores: NDArray[np.float64], blocks: int) -> NDArray[np.int64]:
    """Return the permitted permutation with the largest sum of scores."""
    if blocks == 1:
        return np.asarray(linear_sum_assignment(scores, maximize=True)[1], dtype=np.int64)
    size = len(scores) // blocks
    tiles = scores.reshape(blocks, size, blocks, size).swapaxes(1, 2)
    inner = [[assign_units(tiles[i, j], 1) for j in range(blocks)] for i in range(blocks)]
    units = np.arange(size)
    gains = [[tiles[i, j][units, inner[i][j]].sum() for j in range(blocks)] for i in range(blocks)]
    chosen = assign_units(np.array(gains), 1)
    return np.concatenate([j * size + inner[i][j] for i, j in enumerate(chosen)])
