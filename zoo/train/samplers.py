"""Samplers: which examples of its training set a model sees at each of its own steps.

All of it follows from (order_seed, step), so that what one model sees depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.registry import Registry
from zoo.seeds import Stream, uniform
from zoo.spec.run import RunSpec
from zoo.train.batches import DataOrder, EpochOrder

__all__ = ["SAMPLERS", "Replacement", "Sampler"]

Index = NDArray[np.int64]


class Replacement(DataOrder):
    """Every example of a batch is drawn from the whole training set, uniformly.

    Step t of a model takes ⌊n·u_b⌋ of its n examples with the uniforms u_b of (order_seed, t).
    """

    def block(self, steps: Index) -> Index:
        """Return ``[T, G, B]`` example ids for steps ``[T, G]``."""
        T, G = steps.shape
        out = np.empty((T, G, self.batch), dtype=np.int64)
        for g, (seed, size, subset) in enumerate(
            zip(self.seeds, self.sizes, self.subsets, strict=True)
        ):
            for t, step in enumerate(steps[:, g]):
                u = uniform(int(seed), Stream.REPLACEMENT, int(step), self.batch)
                ids = np.minimum((u * size).astype(np.int64), size - 1)
                out[t, g] = ids if subset is None else subset[ids]
        return out


class _Nothing(DataOrder):
    """No examples of the training set at all; their number is that of a batch."""

    def block(self, steps: Index) -> Index:
        """Return zeros ``[T, G, B]``."""
        return np.zeros((*steps.shape, self.batch), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Sampler:
    """A way to draw batches.

    Args:
        order: makes the data order of G runs with the ids of their training examples.
        fresh: whether examples are drawn from the domain of the data set and not from its arrays.
    """

    order: type[DataOrder]
    fresh: bool = False

    def of(self, runs: Sequence[RunSpec], subsets: Sequence[Index | None]) -> DataOrder:
        """Return the data order of a group."""
        return self.order(runs, subsets)


SAMPLERS: Registry[Sampler] = Registry("sampler", field="sampler")

SAMPLERS.register("epoch", doc="a new permutation of the training set in every epoch")(
    Sampler(EpochOrder)
)
SAMPLERS.register("replacement", doc="every example drawn from the whole training set")(
    Sampler(Replacement)
)
SAMPLERS.register(
    "fresh", doc="points of the data set's domain, drawn anew at every step (collocation points)"
)(Sampler(_Nothing, fresh=True))
