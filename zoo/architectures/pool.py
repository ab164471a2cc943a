"""Global average pooling: the mean over positions."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from zoo.architectures.op import Mode, Params, Shape, Unary
from zoo.architectures.units import BOTH, Units

__all__ = ["GlobalAveragePool"]


class GlobalAveragePool(Unary):
    """y = mean of x over T, so ``[G, B, T, C]`` becomes ``[G, B, 1, C]``."""

    def __init__(self, path: str, shape: Shape) -> None:
        super().__init__(path)
        self.shape = shape

    def units(self) -> tuple[Units, ...]:
        """Return the channels: each is averaged by itself."""
        return (Units(inputs=(0,), output=True, passes=BOTH),)

    def out_shape(self) -> Shape:
        """Return a vector of the same channels."""
        return Shape((), self.shape.channels)

    def flops(self) -> int:
        """Return one an element."""
        return self.shape.positions * self.shape.channels

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return the mean over positions."""
        return x.mean(2, keepdim=True), None

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Spread dy evenly over positions."""
        T = self.shape.positions
        return (dy / T).expand(*dy.shape[:2], T, dy.shape[3]), {}

    def module(self) -> nn.Module:
        """Return adaptive average pooling followed by a flatten."""
        pool = nn.AdaptiveAvgPool2d if len(self.shape.spatial) == 2 else nn.AdaptiveAvgPool1d
        return nn.Sequential(OrderedDict(mean=pool(1), flatten=nn.Flatten()))
