"""What the three kinds of encoded rows share: a batch of tensors that moves between devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

__all__ = ["TensorRecord"]


class TensorRecord:
    """A frozen dataclass of tensors, and of tuples of them, that torch's tools know how to move.

    ``DataLoader(pin_memory=True)`` calls :meth:`pin_memory`; trainers call :meth:`to`.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        parts = []
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                value = list(value.shape)
            elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                value = [list(v.shape) for v in value]
            parts.append(f"{item.name} {value}")
        return f"<{type(self).__name__}: {', '.join(parts)}>"

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy with every tensor changed and everything else kept."""
        changed: dict[str, Any] = {}
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = change(value)
            elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                changed[item.name] = tuple(change(v) for v in value)
        return dataclasses.replace(self, **changed)  # type: ignore[type-var]

    def to(self, device: str | torch.device, *, non_blocking: bool = False) -> Self:
        """Return a copy on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory, from which copies to a GPU are quicker."""
        return self.map(lambda tensor: tensor.pin_memory())
