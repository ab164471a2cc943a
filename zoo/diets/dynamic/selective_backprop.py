"""Selective backprop: learn from a batch's losers (Jiang et al. 2019, arXiv 1910.00762)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from zoo.fields import Field, Fields, named
from zoo.seeds import Stream, torch_uniform
from zoo.train.dynamic import DYNAMICS, DietRuns, Dynamic, Memory, Presented

__all__ = ["SelectiveBackprop"]


class SelectiveBackprop(Dynamic):
    """A share k of each batch is drawn without replacement, by the rank of its loss.

    An example with rank r of B (0 = lowest loss) is drawn with probability proportional to
    (r/B)^(1/k − 1), by the largest log p + Gumbel noise; the drawn weigh 1/k. Between shares
    ``backprop_start`` and ``backprop_end`` of the steps, but for every ``backprop_interrupt``-th
    step (0: none), which takes the whole batch.
    """

    fields: ClassVar[Fields] = named(
        Field("backprop_share", "float", 0.5, "share of a batch learned from", above=0, high=1),
        Field("backprop_start", "float", 0.5, "its start, as a share of the steps", low=0, high=1),
        Field("backprop_end", "float", 0.9, "its end, as a share of the steps", low=0, high=1),
        Field("backprop_interrupt", "int", 2, "every n-th step takes all; 0 = none", low=0),
    )

    def weigh(self, seen: Presented, runs: DietRuns, memory: Memory) -> tuple[Tensor, Memory]:
        """Return weights 0 and B/⌊k·B⌋, or 1."""
        losses = seen.losses()
        B = losses.shape[1]
        share = self.option(runs, "backprop_share")
        rank = losses.argsort(dim=1, stable=True).argsort(1)
        logp = (1 / share - 1) * (rank / B).double().log()
        logp = torch.where(share < 1, logp, 0.0)
        drawn = torch_uniform(runs.seed, Stream.DYNAMIC_DIET, seen.step, B).double()
        keys = logp - (-(drawn + 2.0**-25).log()).log()
        place = keys.argsort(dim=1, descending=True, stable=True).argsort(1)
        count = (share * B).floor().clamp(min=1)
        chosen = torch.where(place < count, B / count, 0.0).float()
        return torch.where(self._active(seen, runs), chosen, 1.0), memory

    def _active(self, seen: Presented, runs: DietRuns) -> Tensor:
        step, total = seen.step.unsqueeze(1), runs.total.unsqueeze(1)
        inside = (step >= self.option(runs, "backprop_start") * total) & (
            step < self.option(runs, "backprop_end") * total
        )
        every = self.option(runs, "backprop_interrupt").long()
        return inside & ((every == 0) | ((step + 1) % every.clamp(min=1) != 0))


DYNAMICS.register(
    "selective_backprop",
    doc="backprop_share of each batch is drawn by the rank of its loss",
    source="Jiang et al. 2019, arXiv 1910.00762",
)(SelectiveBackprop())
