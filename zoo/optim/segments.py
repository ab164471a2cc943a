"""Tensors within a slab: views, norms, and numbers per tensor spread over its columns.

A reduction here runs over the columns of one tensor of one model; it never mixes models, and its
order depends on the tensor's size alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.architectures.layout import BUFFER, Layout, Segment

__all__ = [
    "at",
    "is_matrix",
    "norms",
    "ratio",
    "row_norm",
    "rows",
    "spread",
    "trained_segments",
    "whole_norm",
]


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


def norms(values: Tensor, segments: Sequence[Segment]) -> tuple[Tensor, ...]:
    """Return the 2-norm of each segment of ``[G, trained]``, ``[G, 1]`` a segment."""
    stops = [segment.stop for segment in segments]
    return tuple(_norms(values, stops).split(1, dim=1))


def whole_norm(values: Tensor) -> Tensor:
    """Return the 2-norm of each row of ``[G, trained]`` as ``[G, 1]``."""
    found: Tensor = _norms(values, [values.shape[1]])
    return found


# One operation to a compiler, which it neither splits nor fuses: the bits are those of eager
# evaluation, and torch's C++ code generator fails on some fusions of such reductions with what
# makes their input (pytorch issue 196570).
@torch.library.custom_op(
    "phasezoo::segment_norms", mutates_args=(), schema="(Tensor values, int[] stops) -> Tensor"
)
def _norms(values: Tensor, stops: list[int]) -> Tensor:
    pairs = itertools.pairwise([0, *stops])
    return torch.cat([row_norm(values[:, start:stop]) for start, stop in pairs], 1)


@_norms.register_fake
def _norms_shape(values: Tensor, stops: list[int]) -> Tensor:
    return values.new_empty(values.shape[0], len(stops))


def ratio(a: Tensor, b: Tensor, otherwise: Tensor) -> Tensor:
    """Return a/b where both ``[G, 1]`` are positive, ``otherwise`` where not."""
    return torch.where((a > 0) & (b > 0), a / b, otherwise)


def spread(parts: Sequence[Tensor], segments: Sequence[Segment]) -> Tensor:
    """Return ``[G, trained]`` from one ``[G, 1]`` a segment."""
    pairs = zip(parts, segments, strict=True)
    return torch.cat([part.expand(-1, segment.size) for part, segment in pairs], 1)
