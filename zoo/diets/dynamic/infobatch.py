"""InfoBatch: drop what is learned at random, and weigh up the rest (Qin et al. 2024).

arXiv 2303.04947. The paper leaves dropped examples out of the epoch, which saves their time; here
they stay in their batches with weight 0, so that every step keeps its shape. The expected gradient
is the same.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from zoo.fields import Field, Fields, named
from zoo.seeds import Stream, torch_uniform_at
from zoo.train.dynamic import DYNAMICS, DietRuns, Dynamic, Memory, Presented

__all__ = ["InfoBatch"]

_NEVER = -1.0


class InfoBatch(Dynamic):
    """Each epoch, an example with last loss below the mean is dropped with probability r.

    Those below the mean that stay weigh 1/(1 − r); nothing is dropped in the first epoch, nor in
    epochs that begin after a share ``drop_until`` of the steps. The memory is the last loss of
    each example ``[G, N]`` (−1: never presented), the sum of these losses, how many there are and
    their mean as the epoch began, each ``[G]``.
    """

    fields: ClassVar[Fields] = named(
        Field(
            "drop_share", "float", 0.5, "InfoBatch: share dropped below the mean", low=0, below=1
        ),
        Field(
            "drop_until", "float", 0.875, "InfoBatch: share of the steps with drops", low=0, high=1
        ),
    )

    def memory(self, models: int, examples: int, device: torch.device) -> Memory:
        """Return losses never seen, and sums of nothing."""
        losses = torch.full((models, examples), _NEVER, device=device)
        zero = torch.zeros(models, dtype=torch.float64, device=device)
        return losses, zero, zero.clone(), zero.clone()

    def weigh(self, seen: Presented, runs: DietRuns, memory: Memory) -> tuple[Tensor, Memory]:
        """Return weights 0, 1 and 1/(1 − r)."""
        losses, total, count, mean = memory
        epoch = seen.step // runs.per_epoch
        begins = seen.step % runs.per_epoch == 0
        mean = torch.where(begins, total / count.clamp(min=1), mean)
        share = self.option(runs, "drop_share")
        # An example is presented at most once an epoch: this is its loss as the epoch began.
        last = losses.gather(1, seen.ids)
        until = self.option(runs, "drop_until").squeeze(1) * runs.total
        prunes = (epoch * runs.per_epoch < until).unsqueeze(1)
        low = (last >= 0) & (last < mean.unsqueeze(1)) & prunes
        drawn = torch_uniform_at(runs.seed, Stream.DYNAMIC_DIET, epoch, seen.ids)
        dropped = low & (drawn < share)
        weights = torch.where(low, (1 / (1 - share)).float(), 1.0)
        weights = torch.where(dropped, 0.0, weights)
        fresh = torch.where(dropped, last, seen.losses())
        known = last.clamp(min=0).double()
        total = total + (fresh.clamp(min=0).double() - known).sum(1)
        count = count + ((last < 0) & (fresh >= 0)).sum(1)
        return weights, (losses.scatter(1, seen.ids, fresh), total, count, mean)


DYNAMICS.register(
    "infobatch",
    doc="examples below the mean loss are dropped at random, the rest weighed up",
    source="Qin et al. 2024, arXiv 2303.04947",
)(InfoBatch())
