"""Pooling: the mean over all positions, and averages and maxima over windows."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from zoo.architectures.op import Mode, Op, Params, Shape, Unary, Values
from zoo.architectures.units import BOTH, Units

__all__ = ["GlobalAveragePool", "Pool"]


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


class Pool(Op):
    """Average or maximum over windows, each channel by itself.

    Args:
        path: place in the module tree.
        shape: of one input example; one or two spatial axes.
        kind: ``"average"`` or ``"max"``.
        kernel: extent of the window along every axis.
        stride: along every axis; None = the kernel, so that windows do not overlap.
        padding: on each side; averages count it as zeros.
    """

    def __init__(
        self, path: str, shape: Shape, kind: str, kernel: int, *,
        stride: int | None = None, padding: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(path)
        self.shape, self.kind = shape, kind
        self.kernel, self.stride, self.padding = kernel, stride or kernel, padding
        self._torch = self.module()

    def units(self) -> tuple[Units, ...]:
        """Return the channels; a positive factor passes, and a sign through an average."""
        passes = BOTH if self.kind == "average" else frozenset({"scale"})
        return (Units(inputs=(0,), output=True, passes=passes),)

    def out_shape(self) -> Shape:
        """Return ⌊(extent + 2·padding − kernel) / stride⌋ + 1 along every axis."""
        spatial = tuple(
            (extent + 2 * self.padding - self.kernel) // self.stride + 1
            for extent in self.shape.spatial
        )
        return Shape(spatial, self.shape.channels)

    def flops(self) -> int:
        """Return one an element of every window."""
        out = self.out_shape()
        return int(self.kernel ** len(self.shape.spatial)) * out.positions * out.channels

    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return the pooled values; models and examples are one batch."""
        x = xs[0]
        images = x.flatten(0, 1).mT.reshape(-1, self.shape.channels, *self.shape.spatial)
        y: Tensor = self._torch(images)
        return y.flatten(2).mT.reshape(*x.shape[:2], -1, self.shape.channels)

    def module(self) -> nn.Module:
        """Return the pooling of torch."""
        axes = len(self.shape.spatial)
        kinds: dict[tuple[str, int], Any] = {
            ("average", 1): nn.AvgPool1d, ("average", 2): nn.AvgPool2d,
            ("max", 1): nn.MaxPool1d, ("max", 2): nn.MaxPool2d,
        }  # fmt: skip
        made: nn.Module = kinds[self.kind, axes](self.kernel, self.stride, self.padding)
        return made

    def describe(self) -> dict[str, Any]:
        """Return path, kind and window."""
        window = {"kernel": self.kernel, "stride": self.stride, "padding": self.padding}
        return {**super().describe(), "kind": self.kind, **window}
