"""The parameter layout: where each tensor of a model is in its slab row, and its role."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zoo.errors import no_such

__all__ = ["BUFFER", "ROLES", "Layout", "Segment"]

#: A running statistic: stored in the row, moved by the forward pass, untouched by the optimizer.
BUFFER = "buffer"
ROLES = ("kernel", "bias", "norm_weight", "norm_bias", BUFFER)


@dataclass(frozen=True, slots=True)
class Segment:
    """One tensor of a row.

    Args:
        name: the key in the ``state_dict`` of the plain module (``"hidden.0.linear.weight"``).
        shape: the tensor's shape, as in that module.
        offset: first column of the row.
        role: one of :data:`ROLES`.
        fan_in: inputs that one output sums over (0 where that has no meaning).
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    role: str
    fan_in: int = 0

    @property
    def size(self) -> int:
        """Number of columns."""
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        """One past the last column."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Layout:
    """Every segment of a row, without holes: trained parameters first, buffers last."""

    segments: tuple[Segment, ...]

    @property
    def params(self) -> int:
        """P: columns of a row, buffers included."""
        return self.segments[-1].stop if self.segments else 0

    @property
    def trained(self) -> int:
        """Columns that the optimizer moves: ``[0, trained)``."""
        return sum(s.size for s in self.segments if s.role != BUFFER)

    def __repr__(self) -> str:
        return f"<Layout: {len(self.segments)} tensors, {self.params} parameters>"

    def __getitem__(self, name: str) -> Segment:
        for segment in self.segments:
            if segment.name == name:
                return segment
        raise no_such(name, "tensor", [segment.name for segment in self.segments])

    def to_json(self) -> list[dict[str, Any]]:
        """Return a JSON-ready list, one entry per segment."""
        return [{**asdict(s), "shape": list(s.shape)} for s in self.segments]

    @classmethod
    def from_json(cls, rows: list[Mapping[str, Any]]) -> Layout:
        """Rebuild a layout from :meth:`to_json`."""
        return cls(tuple(Segment(**{**row, "shape": tuple(row["shape"])}) for row in rows))
