"""Decay masks: which parameters weight decay acts on, by their role in the layout."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.architectures.layout import BUFFER, Layout
from zoo.registry import Registry

__all__ = ["DECAY_MASKS", "column_mask"]

#: Name -> roles that are decayed.
DECAY_MASKS: Registry[frozenset[str]] = Registry("decay mask", field="decay_mask")
DECAY_MASKS.register("all", doc="every trained parameter")(
    frozenset({"kernel", "bias", "norm_weight", "norm_bias"})
)
DECAY_MASKS.register("kernels", doc="weight matrices and filters alone")(frozenset({"kernel"}))
DECAY_MASKS.register("no_norms", doc="all but the parameters of norms")(
    frozenset({"kernel", "bias"})
)


def column_mask(layout: Layout, roles: frozenset[str], like: Tensor) -> Tensor:
    """Return ``[trained]`` bool on the device of ``like``: true where decayed."""
    parts = [
        torch.full((s.size,), s.role in roles, dtype=torch.bool, device=like.device)
        for s in layout.segments
        if s.role != BUFFER
    ]
    return torch.cat(parts)
