"""Tensors within a slab: views, norms, and numbers a tensor spread over its columns.

A reduction here runs over the columns of one tensor of one model; it never mixes models, and its
order depends on the tensor's size alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.architectures.layout import BUFFER, Layout, Segment

__all__ = ["at", "is_matrix", "norm", "ratio", "row_norm", "rows", "spread", "trained_segments"]


def trained_segments(layout: Layout) -> tuple[Segment, ...]:
    """Return the segments that the optimizer moves, in order."""
    return tuple(s for s in layout.segments if s.role != BUFFER)


def is_matrix(segment: Segment) -> bool:
    """Whether a tensor is a weight matrix or filter bank: no bias, no parameter of a norm."""
    return segment.role == "kernel"


def at(values: Tensor, segment: Segment) -> Tensor:
    """Return the columns of one segment of ``[G, trained]``; ``[G, 1]`` stays as it is."""
    return values if values.shape[1] == 1 else values[:, segment.offset : segment.stop]


def rows(values: Tensor, segment: Segment) -> Tensor:
    """Return one segment of ``[G, trained]`` as ``[G, outputs, fan_in]``, a view."""
    columns = values[:, segment.offset : segment.stop]
    return columns.view(len(values), segment.shape[0], -1)


def row_norm(values: Tensor) -> Tensor:
    """Return the 2-norm of the last axis, kept with extent 1."""
    found: Tensor = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return found


def norm(values: Tensor, segment: Segment) -> Tensor:
    """Return the 2-norm of one segment of ``[G, trained]`` as ``[G, 1]``."""
    return row_norm(at(values, segment))


def ratio(a: Tensor, b: Tensor, otherwise: Tensor) -> Tensor:
    """Return a/b where both ``[G, 1]`` are positive, ``otherwise`` where not."""
    return torch.where((a > 0) & (b > 0), a / b, otherwise)


def spread(parts: Sequence[Tensor], segments: Sequence[Segment]) -> Tensor:
    """Return ``[G, trained]`` from one ``[G, 1]`` a segment."""
    pairs = zip(parts, segments, strict=True)
    return torch.cat([part.expand(-1, segment.size) for part, segment in pairs], 1)
