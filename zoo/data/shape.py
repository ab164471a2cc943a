"""What a network and an objective have to know of a data set: shapes and kinds, no values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["DataShape"]


@dataclass(frozen=True, slots=True)
class DataShape:
    """The form of one example and of its target.

    Args:
        example: shape of one input example, channels first.
        outputs: C: the classes that a label may be, or the values that an example is given.
        positions: where an example has several labels, the shape that they are arranged in:
            ``(T,)`` for one label per token. Every position has C outputs of its own.
        tokens: how many values an example of tokens may have; None for an example of floats.
        target: what the targets are: ``"class"``, ``"binary"``, ``"vector"`` or ``"none"``.
        masked: whether some of an example's targets may be missing.
    """

    example: tuple[int, ...]
    outputs: int
    positions: tuple[int, ...] = ()
    tokens: int | None = None
    target: str = "class"
    masked: bool = False

    @property
    def total(self) -> int:
        """Outputs of the network, over all positions."""
        return self.outputs * math.prod(self.positions)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**asdict(self), "example": list(self.example), "positions": list(self.positions)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> DataShape:
        """Rebuild a shape from :meth:`to_json`.

        Raises:
            ValueError: it is not that.
        """
        lists = [raw.get("example"), raw.get("positions", [])]
        counts = [raw.get("outputs"), *(n for found in lists for n in found or ())]
        tokens = raw.get("tokens")
        counts += [] if tokens is None else [tokens]
        fine = all(isinstance(found, list) for found in lists) and all(
            isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in counts
        )
        words = isinstance(raw.get("target", "class"), str)
        if not fine or not words or not isinstance(raw.get("masked", False), bool):
            msg = f"{dict(raw)} is no shape of a data set"
            raise ValueError(msg)
        return cls(
            example=tuple(raw["example"]),
            outputs=raw["outputs"],
            positions=tuple(raw.get("positions", [])),
            tokens=tokens,
            target=raw.get("target", "class"),
            masked=raw.get("masked", False),
        )
