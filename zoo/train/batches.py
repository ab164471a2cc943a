"""Data order: which examples a model sees at each of its own steps, from its order seed alone."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.seeds import Stream, permutations
from zoo.spec.run import RunSpec

__all__ = ["DataOrder", "EpochOrder", "taken"]

Index = NDArray[np.int64]

#: Permutations drawn together: more would not fit a core's cache.
_AT_ONCE = 16


def taken(targets: Tensor, ids: Tensor) -> Tensor:
    """Return the targets of examples ``ids [G, B]``.

    Args:
        targets: labels ``[G or 1, N]``, or labels of positions or floats ``[G or 1, N, ...]``; one
            row: all models share it.
        ids: which examples.
    """
    if targets.ndim == 2:
        return targets.expand(ids.shape[0], -1).gather(1, ids)
    if targets.shape[0] == 1:
        return targets[0][ids]
    return targets[torch.arange(len(ids), device=ids.device).unsqueeze(1), ids]


class DataOrder(ABC):
    """Which examples each model of a group sees at each of its own steps.

    Args:
        runs: G resolved specs, all with the same batch size B.
        subsets: for each model the ids of its training examples, or None for all of them.
    """

    def __init__(self, runs: Sequence[RunSpec], subsets: Sequence[Index | None]) -> None:
        self.batch = runs[0].batch_size
        self.seeds = np.array([run.order_seed for run in runs], dtype=np.int64)
        self.sizes = np.array([run.examples for run in runs], dtype=np.int64)
        self.subsets = list(subsets)

    @abstractmethod
    def block(self, steps: Index) -> Index:
        """Return ``[T, G, B]`` example ids for steps ``[T, G]``."""


class EpochOrder(DataOrder):
    """Shuffled epochs of a group of models.

    Epoch e of a model is a permutation of its training examples drawn from (order_seed, e); step t
    takes batch t mod (n // B) of epoch t // (n // B).
    """

    def __init__(self, runs: Sequence[RunSpec], subsets: Sequence[Index | None]) -> None:
        super().__init__(runs, subsets)
        self.per_epoch = self.sizes // self.batch
        self._epoch = np.full(len(runs), -1, dtype=np.int64)
        self._order = np.zeros((len(runs), int(self.sizes.max())), dtype=np.int64)

    def block(self, steps: Index) -> Index:
        """Return ``[T, G, B]`` example ids for steps ``[T, G]``."""
        T, G = steps.shape
        out = np.empty((T, G, self.batch), dtype=np.int64)
        epochs = steps // self.per_epoch
        offsets = (steps % self.per_epoch) * self.batch
        within = np.arange(self.batch)
        rows = np.arange(G)[None, :, None]
        # Stretches in which no model begins another epoch are gathered at once.
        turns = np.flatnonzero((epochs[1:] != epochs[:-1]).any(1)) + 1
        edges = [0, *turns.tolist(), T]
        for start, stop in itertools.pairwise(edges):
            self._shuffle(epochs[start])
            part = offsets[start:stop]
            if self._aligned(part):
                run = self._order[:, part[0, 0] : part[-1, 0] + self.batch]
                out[start:stop] = run.reshape(G, -1, self.batch).swapaxes(0, 1)
            else:
                out[start:stop] = self._order[rows, part[:, :, None] + within]
        return out

    def _aligned(self, offsets: Index) -> bool:
        """Whether all models take the same successive batches, which is a copy without indices."""
        steady = bool((np.diff(offsets[:, 0]) == self.batch).all())
        return steady and bool((offsets == offsets[:, :1]).all())

    def _shuffle(self, epochs: Index) -> None:
        """Draw the permutations of the models that are at an epoch not yet drawn."""
        stale = np.flatnonzero(epochs != self._epoch)
        for size in np.unique(self.sizes[stale]):
            every = stale[self.sizes[stale] == size]
            for rows in np.split(every, range(_AT_ONCE, len(every), _AT_ONCE)):
                drawn = permutations(self.seeds[rows], Stream.ORDER, epochs[rows], int(size))
                for row, order in zip(rows, drawn, strict=True):
                    subset = self.subsets[row]
                    self._order[row, :size] = order if subset is None else subset[order]
                self._epoch[rows] = epochs[rows]
