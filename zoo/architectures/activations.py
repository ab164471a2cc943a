"""Activation functions with their derivatives, and the symmetries that each one has."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.op import Mode, Params, Shape, Unary
from zoo.architectures.units import Units
from zoo.registry import Registry

__all__ = ["ACTIVATIONS", "Activation", "ActivationKind"]


@dataclass(frozen=True, slots=True)
class ActivationKind:
    """An activation function f.

    Args:
        value: f(x).
        slope: f'(x) from x and f(x).
        module: the plain module.
        symmetry: ``"scale"`` if f(ax) = a·f(x) for a > 0, ``"sign"`` if f(−x) = −f(x),
            ``"linear"`` if both, or None.
        flops: operations an element, roughly.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    module: Callable[[], nn.Module]
    symmetry: str | None = None
    flops: int = 1

    @property
    def symmetries(self) -> frozenset[str]:
        """The kinds of factor that pass through f: ``"scale"``, ``"sign"``, both or none."""
        both = {"scale", "sign"} if self.symmetry == "linear" else {self.symmetry}
        return frozenset(name for name in both if name is not None)


ACTIVATIONS: Registry[ActivationKind] = Registry("activation", field="activation")


class Activation(Unary):
    """An activation applied to every element."""

    def __init__(self, path: str, shape: Shape, name: str) -> None:
        super().__init__(path)
        self.shape = shape
        self.name = name
        self.kind = ACTIVATIONS[name]

    def units(self) -> tuple[Units, ...]:
        """Return the channels, and the factors that pass through f."""
        return (Units(inputs=(0,), output=True, passes=self.kind.symmetries),)

    def out_shape(self) -> Shape:
        """Return the input's shape."""
        return self.shape

    def flops(self) -> int:
        """Return the kind's operations for every element."""
        return self.kind.flops * self.shape.positions * self.shape.channels

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return f(x)."""
        y = self.kind.value(x)
        return y, (x, y)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return dy · f'(x)."""
        x, y = saved
        return dy * self.kind.slope(x, y), {}

    def module(self) -> nn.Module:
        """Return the plain module."""
        return self.kind.module()

    def describe(self) -> dict[str, Any]:
        """Return path and name."""
        return {**super().describe(), "activation": self.name}


_LEAK = 0.01


def _leaky_slope(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x > 0, 1.0, _LEAK).to(x.dtype)


def _gelu_slope(x: Tensor, y: Tensor) -> Tensor:
    cdf = 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))
    return cdf + x * torch.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


def _silu_slope(x: Tensor, y: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


_enter = ACTIVATIONS.register
_enter("identity", doc="x: no activation")(
    ActivationKind(lambda x: x, lambda x, y: torch.ones_like(x), nn.Identity, "linear", flops=0)
)
_enter("relu", doc="max(x, 0)", source="Nair and Hinton 2010")(
    ActivationKind(torch.relu, lambda x, y: (y > 0).to(y.dtype), nn.ReLU, "scale")
)
_enter("leaky_relu", doc="max(x, 0.01 x)", source="Maas et al. 2013")(
    ActivationKind(
        lambda x: F.leaky_relu(x, _LEAK), _leaky_slope, lambda: nn.LeakyReLU(_LEAK), "scale"
    )
)
_enter(
    "gelu", doc="x · Φ(x), the exact form", source="Hendrycks and Gimpel 2016, arXiv 1606.08415"
)(ActivationKind(F.gelu, _gelu_slope, nn.GELU, flops=8))
_enter("tanh", doc="tanh(x)")(
    ActivationKind(torch.tanh, lambda x, y: 1 - y * y, nn.Tanh, "sign", flops=6)
)
_enter("sigmoid", doc="1 / (1 + exp(-x))")(
    ActivationKind(torch.sigmoid, lambda x, y: y * (1 - y), nn.Sigmoid, flops=4)
)
_enter("silu", doc="x · sigmoid(x)", source="Hendrycks and Gimpel 2016, arXiv 1606.08415")(
    ActivationKind(F.silu, _silu_slope, nn.SiLU, flops=5)
)
