"""Importance resampling of each batch (Katharopoulos and Fleuret 2018, arXiv 1803.00942)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from zoo.fields import Field, Fields, named
from zoo.seeds import Stream, torch_uniform
from zoo.train.dynamic import DYNAMICS, DietRuns, Dynamic, Memory, Presented

__all__ = ["Importance"]


class Importance(Dynamic):
    """b = ⌈share·B⌉ examples are drawn from the batch with replacement, p ∝ ‖∂ℓ/∂z‖₂.

    That norm bounds the norm of the example's gradient up to a factor that all share. An example
    that is drawn c times weighs c/(b·p): the gradient stays unbiased. The paper's switch, which
    turns resampling on once it pays, is the share ``resample_start`` of the steps.
    """

    fields: ClassVar[Fields] = named(
        Field("resample_share", "float", 0.5, "share of a batch drawn again", above=0, high=1),
        Field("resample_start", "float", 0.0, "its start, as a share of the steps", low=0, high=1),
    )

    def weigh(self, seen: Presented, runs: DietRuns, memory: Memory) -> tuple[Tensor, Memory]:
        """Return weights whose expectation is 1."""
        B = seen.outputs.shape[1]
        norms = torch.linalg.vector_norm(seen.errors().double(), dim=-1) + 1e-12
        p = norms / norms.sum(1, keepdim=True)
        edges = p.cumsum(1)
        edges = edges / edges[:, -1:]
        draws = torch_uniform(runs.seed, Stream.DYNAMIC_DIET, seen.step, B).double()
        hits = torch.searchsorted(edges, draws, right=True).clamp(max=B - 1)
        count = (self.option(runs, "resample_share") * B).ceil().clamp(1, B)
        counted = (torch.arange(B, device=p.device) < count).double()
        times = torch.zeros_like(p).scatter_add(1, hits, counted)
        weights = times / (count * p)
        start = self.option(runs, "resample_start") * runs.total.unsqueeze(1)
        on = seen.step.unsqueeze(1) >= start
        return torch.where(on, weights, 1.0).float(), memory


DYNAMICS.register(
    "importance",
    doc="resample_share of each batch is drawn again, by the norm of the loss's gradient",
    source="Katharopoulos and Fleuret 2018, arXiv 1803.00942",
)(Importance())
