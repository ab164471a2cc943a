"""Importance resampling of each batch (Katharopoulos and Fleuret 2018, arXiv 1803.00942)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.seeds import Stream, torch_uniform
from zoo.train.dynamic import DYNAMICS, Dynamic, Memory, Presented, Schedule

__all__ = ["Importance"]


class Importance(Dynamic):
    """b = ⌈share·B⌉ examples are drawn from the batch with replacement, p ∝ ‖softmax − onehot‖₂.

    That norm bounds the norm of the example's gradient up to a factor that all share. An example
    that is drawn c times weighs c/(b·p): the gradient stays unbiased. The paper's switch, which
    turns resampling on once it pays, is the share ``resample_start`` of the steps.
    """

    fields: ClassVar[dict[str, Any]] = {"resample_share": 0.5, "resample_start": 0.0}

    def weigh(self, seen: Presented, schedule: Schedule, memory: Memory) -> tuple[Tensor, Memory]:
        """Return weights whose expectation is 1."""
        B, C = seen.logits.shape[1:]
        error = torch.softmax(seen.logits, -1) - F.one_hot(seen.labels, C)
        norms = torch.linalg.vector_norm(error.double(), dim=-1) + 1e-12
        p = norms / norms.sum(1, keepdim=True)
        edges = p.cumsum(1)
        edges = edges / edges[:, -1:]
        draws = torch_uniform(schedule.seed, Stream.DYNAMIC_DIET, seen.step, B).double()
        hits = torch.searchsorted(edges, draws, right=True).clamp(max=B - 1)
        count = (self.option(schedule, "resample_share") * B).ceil().clamp(1, B)
        counted = (torch.arange(B, device=p.device) < count).double()
        times = torch.zeros_like(p).scatter_add(1, hits, counted)
        weights = times / (count * p)
        start = self.option(schedule, "resample_start") * schedule.total.unsqueeze(1)
        on = seen.step.unsqueeze(1) >= start
        return torch.where(on, weights, 1.0).float(), memory


DYNAMICS.register("importance")(Importance())
