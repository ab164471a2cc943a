"""Ops of several inputs: sums (residual links), products (gates), and channels side by side."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures.op import Gradients, Mode, Op, Params, Shape, Values
from zoo.architectures.units import BOTH, Units

__all__ = ["Add", "Concatenate", "Multiply"]


class _Elementwise(Op):
    """An op of inputs of one shape.

    Args:
        path: place in the module tree.
        shape: of each input and of the output.
        count: number of inputs.
    """

    def __init__(self, path: str, shape: Shape, count: int = 2) -> None:
        super().__init__(path)
        self.shape = shape
        self.count = count

    def out_shape(self) -> Shape:
        """Return the shape of each input."""
        return self.shape

    def flops(self) -> int:
        """Return one an element and input, but for the first."""
        return (self.count - 1) * self.shape.positions * self.shape.channels


class Add(_Elementwise):
    """y = Σ x_i; a residual link is one of two inputs."""

    def units(self) -> tuple[Units, ...]:
        """Return the channels, which all inputs and the output share with their factor."""
        return (Units(inputs=tuple(range(self.count)), output=True, passes=BOTH),)

    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return the sum, from the first input on."""
        return reduce(torch.add, xs)

    def run(self, p: Params, xs: Values, mode: Mode, needs: tuple[bool, ...]) -> tuple[Tensor, Any]:
        """Return the sum; nothing is kept."""
        return self.value(p, xs, mode), None

    def pull(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, needs: tuple[bool, ...]
    ) -> tuple[Gradients, dict[str, Tensor]]:
        """Hand dy on to every input."""
        return tuple(dy if need else None for need in needs), {}

    def module(self) -> nn.Module:
        """Return a module of several inputs."""
        return _Sum()


class Multiply(_Elementwise):
    """y = Π x_i, element by element; a gate is one of two inputs."""

    def units(self) -> tuple[Units, ...]:
        """Return the channels; a factor on one input alone would not pass."""
        return (Units(inputs=tuple(range(self.count)), output=True),)

    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return the product, from the first input on."""
        return reduce(torch.mul, xs)

    def module(self) -> nn.Module:
        """Return a module of several inputs."""
        return _Product()


class Concatenate(Op):
    """Channels of several inputs side by side; the order of its own channels is not free.

    Args:
        path: place in the module tree.
        shapes: of the inputs, with the same positions.
    """

    def __init__(self, path: str, shapes: tuple[Shape, ...]) -> None:
        super().__init__(path)
        self.shapes = shapes

    def out_shape(self) -> Shape:
        """Return the positions of the inputs, and all of their channels."""
        return Shape(self.shapes[0].spatial, sum(shape.channels for shape in self.shapes))

    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return the inputs side by side."""
        return torch.cat(xs, -1)

    def run(self, p: Params, xs: Values, mode: Mode, needs: tuple[bool, ...]) -> tuple[Tensor, Any]:
        """Return the inputs side by side; nothing is kept."""
        return self.value(p, xs, mode), None

    def pull(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, needs: tuple[bool, ...]
    ) -> tuple[Gradients, dict[str, Tensor]]:
        """Cut dy into the inputs' parts."""
        parts = torch.split(dy, [shape.channels for shape in self.shapes], -1)
        return tuple(d if need else None for d, need in zip(parts, needs, strict=True)), {}

    def module(self) -> nn.Module:
        """Return a module of several inputs ``[B, C, ...]``."""
        return _Side()


class _Sum(nn.Module):
    def forward(self, *xs: Tensor) -> Tensor:
        """Return the sum."""
        return reduce(torch.add, xs)


class _Product(nn.Module):
    def forward(self, *xs: Tensor) -> Tensor:
        """Return the product."""
        return reduce(torch.mul, xs)


class _Side(nn.Module):
    def forward(self, *xs: Tensor) -> Tensor:
        """Return the inputs side by side along their channels."""
        return torch.cat(xs, 1)
