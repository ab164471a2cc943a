"""Metrics of cells: the pairs of models of a cell, and means over pairs with errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures.network import Network
from zoo.landscape.base import Column
from zoo.landscape.connectivity import PairData
from zoo.landscape.stacked import Probe
from zoo.registry import Registry

__all__ = [
    "CELL_METRICS",
    "CellBlock",
    "CellMetric",
    "all_pairs",
    "pair_mean",
    "ring_pairs",
]

_F64 = NDArray[np.float64]


def all_pairs(models: int) -> list[tuple[int, int]]:
    """Return every pair (a, b), a < b."""
    return [(a, b) for a in range(models) for b in range(a + 1, models)]


def ring_pairs(models: int) -> list[tuple[int, int]]:
    """Return each model with its next, a ring: S pairs, one where S = 2."""
    pairs = {tuple(sorted((i, (i + 1) % models))) for i in range(models)} if models > 1 else set()
    return sorted((a, b) for a, b in pairs)


def pair_mean(
    values: _F64, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[float, float, int]:
    """Return mean, standard error and number of a cell's finite pair values ``[Q]``.

    Pairs share members, so their values hang together: the error is the jackknife's over members,
    √((S−1)/S Σ (m_s − m̄)²) with m_s the mean over pairs without s. NaN for fewer than 3 members.
    """
    fine = np.isfinite(values)
    if not fine.any():
        return float("nan"), float("nan"), 0
    kept, a, b = values[fine], first[fine], second[fine]
    mean = float(kept.mean())
    members = np.unique(np.concatenate([a, b]))
    without = []
    for member in members:
        rest = kept[(a != member) & (b != member)]
        if not len(rest):
            return mean, float("nan"), len(kept)
        without.append(rest.mean())
    spread = np.asarray(without) - np.mean(without)
    S = len(members)
    return mean, float(np.sqrt((S - 1) / S * np.square(spread).sum())), len(kept)


@dataclass(frozen=True, slots=True, eq=False)
class CellBlock:
    """The models of some cells of one architecture, and the pairs to look at.

    Args:
        network: the architecture.
        slab: ``[G, P]``, finite.
        fine: ``[G]``: which models are finite; what a pair with another gives is NaN.
        first, second: ``[Q]`` models of each pair.
        mixup: ``[1, N, T, C_in]``.
        test: the test probe.
        pair_data: returns what some pairs are trained and measured on.
        group: pairs that are computed together, always so many.
    """

    network: Network
    slab: Tensor
    fine: Tensor
    first: Tensor
    second: Tensor
    mixup: Tensor
    test: Probe
    pair_data: Callable[[Sequence[int]], PairData]
    group: int

    def groups(self) -> Iterator[tuple[slice, list[int]]]:
        """Yield (pairs, the same padded to the fixed number by repeating the last)."""
        count = len(self.first)
        for start in range(0, count, self.group):
            pairs = list(range(start, min(start + self.group, count)))
            padded = pairs + [pairs[-1]] * (self.group - len(pairs))
            yield slice(start, start + len(pairs)), padded

    def mask(self, values: Tensor) -> Tensor:
        """Return pair values ``[Q, ...]`` as float64, NaN where a model was not finite."""
        fine = self.fine[self.first] & self.fine[self.second]
        return torch.where(fine.view(-1, *[1] * (values.dim() - 1)), values.double(), torch.nan)


@dataclass(frozen=True, slots=True)
class CellMetric:
    """A metric of pairs of models of one cell.

    Args:
        columns: what it gives for each pair; those without further dims are averaged over cells.
        compute: returns ``[Q, ...]`` float64 for each column.
        options: defaults of what the values depend on besides the block.
        ring: whether only ring pairs are looked at.
    """

    columns: tuple[Column, ...]
    compute: Callable[[CellBlock, Mapping[str, Any]], dict[str, Tensor]]
    options: Mapping[str, Any] = field(default_factory=dict)
    ring: bool = False


CELL_METRICS: Registry[CellMetric] = Registry("metric of cells")
