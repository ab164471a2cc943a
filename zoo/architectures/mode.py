"""How a pass over a network is to be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Gradients", "Mode", "Params", "Values", "wide", "wide_type"]

#: Named tensors of a group, each ``[G, *shape]``.
Params = Mapping[str, Tensor]
#: What an op reads, one an edge, each ``[G, B, T, C]``.
Values = tuple[Tensor, ...]
#: Gradients or tangents of them; None where one is not wanted, or zero.
Gradients = tuple[Tensor | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """How a forward pass is to be run.

    Args:
        training: batch statistics and dropout on.
        dtype: compute type of matrix products; statistics and loss stay float32.
        conv: ``"im2col"`` (matrix products), ``"grouped"`` (one grouped convolution),
            ``"implicit"`` (a kernel), or ``"measured"`` (on a GPU: what a table says).
        dropout_rate: ``[G]`` probabilities, or None where the cohort has no dropout.
        dropout_seed: ``[G]`` int64 seeds.
        step: ``[G]`` int64, each model's own step: the counter of its random numbers.
        new_buffers: filled by norms in training: state-dict key -> new value ``[G, ...]``.
    """

    training: bool
    dtype: torch.dtype = torch.float32
    conv: str = "im2col"
    dropout_rate: Tensor | None = None
    dropout_seed: Tensor | None = None
    step: Tensor | None = None
    new_buffers: dict[str, Tensor] = field(default_factory=dict)


_WIDE = (torch.float32, torch.float64)


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type of statistics, sums and logits: float32, and float64 where that comes in."""
    return dtype if dtype is torch.float64 else torch.float32


def wide(x: Tensor) -> Tensor:
    """Return ``x`` in that type."""
    # a step asks this of every tensor: no call into torch where nothing is to be done
    return x if x.dtype in _WIDE else x.float()
