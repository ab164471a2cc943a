"""Dynamic loss-based reweighting (Sow et al. 2025, arXiv 2502.06733), its LinUpper strategy."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from zoo.fields import Field, Fields, named
from zoo.train.dynamic import DYNAMICS, DietRuns, Dynamic, Memory, Presented

__all__ = ["LossReweighting"]


class LossReweighting(Dynamic):
    """Examples of low loss weigh less, and none weighs much more than the others.

    The losses of a batch are mapped linearly to [−1, 1]; h = min(ℓ' + 1, 1) rises from 0 to 1 over
    the lower half of that range and is flat above it; the weights are B·softmax(h/r) over the
    batch, so that the largest is below e^(1/r) times the smallest. Off before the share
    ``reweight_start`` of the steps; r is ``reweight_temperature``.
    """

    fields: ClassVar[Fields] = named(
        Field("reweight_temperature", "float", 1.0, "r of loss reweighting", above=0),
        Field("reweight_start", "float", 0.0, "its start, as a share of the steps", low=0, high=1),
    )

    def weigh(self, seen: Presented, runs: DietRuns, memory: Memory) -> tuple[Tensor, Memory]:
        """Return weights with mean 1."""
        losses = seen.losses().double()
        B = losses.shape[1]
        low, high = losses.amin(1, keepdim=True), losses.amax(1, keepdim=True)
        scaled = (2 * losses - high - low) / (high - low).clamp(min=1e-6)
        bounded = (scaled + 1).clamp(max=1.0)
        weights = B * torch.softmax(bounded / self.option(runs, "reweight_temperature"), 1)
        start = self.option(runs, "reweight_start") * runs.total.unsqueeze(1)
        on = seen.step.unsqueeze(1) >= start
        return torch.where(on, weights, 1.0).float(), memory


DYNAMICS.register(
    "loss_reweighting",
    doc="examples of low loss weigh less, and none weighs much more than others",
    source="Sow et al. 2025, arXiv 2502.06733",
)(LossReweighting())
