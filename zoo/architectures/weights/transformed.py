"""A layer whose weight goes through a transform before it is used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.conv import Conv
from zoo.architectures.linear import Linear
from zoo.architectures.mode import wide
from zoo.architectures.op import Mode, Op, Param, Params, Shape, Unary
from zoo.architectures.units import Units
from zoo.architectures.weights.base import WEIGHT_TRANSFORMS, WeightTransform

__all__ = ["Transformed", "transformed"]


class Transformed(Unary):
    """A linear layer or convolution with weight ŵ = f(w): same parameters, names and shapes.

    Args:
        layer: the plain layer.
        name: of the transform.
    """

    def __init__(self, layer: Linear | Conv, name: str) -> None:
        super().__init__(layer.path)
        self.layer = layer
        self.name = name
        self.transform = WEIGHT_TRANSFORMS[name]

    def params(self) -> tuple[Param, ...]:
        """Return those of the layer."""
        return self.layer.params()

    def units(self) -> tuple[Units, ...]:
        """Return those of the layer, with the factors that the transform hands on."""
        read, made = self.layer.units()
        return (
            replace(read, factors=self.transform.input_factors),
            replace(made, factors=self.transform.output_factors),
        )

    def out_shape(self) -> Shape:
        """Return the layer's."""
        return self.layer.out_shape()

    def flops(self) -> int:
        """Return the layer's: the transform is done once a batch, not once an example."""
        return self.layer.flops()

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Transform the weight in float32, then apply the layer."""
        key = self.key("weight")
        weight, kept = self.transform.forward(p[key])
        y, saved = self.layer.forward({**p, key: weight}, x, mode)
        return y, (saved, weight, kept)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the layer's gradients, that of the weight taken back through the transform."""
        inner, weight, kept = saved
        key = self.key("weight")
        dx, grads = self.layer.backward({**p, key: weight}, inner, dy, mode, need_dx=need_dx)
        return dx, {**grads, key: self.transform.backward(wide(grads[key]), kept)}

    def module(self) -> nn.Module:
        """Return the layer's plain module, its weight transformed in ``forward``."""
        plain = self.layer.module()
        if isinstance(plain, nn.Linear):
            return _Linear(self.transform, plain.in_features, plain.out_features)
        kind = _Conv1d if isinstance(plain, nn.Conv1d) else _Conv2d
        channels = (plain.in_channels, plain.out_channels)
        return kind(self.transform, *channels, plain.kernel_size, plain.stride, plain.padding)

    def describe(self) -> dict[str, Any]:
        """Return the layer's description and the name of the transform."""
        return {**self.layer.describe(), "weight_transform": self.name}


def transformed(layer: Linear | Conv, name: str) -> Op:
    """Return the layer with its weight under the transform ``name``; itself under ``"none"``."""
    return layer if name == "none" else Transformed(layer, name)


class _Linear(nn.Linear):
    """A linear layer that uses a transformed weight; its state is that of ``nn.Linear``."""

    def __init__(self, transform: WeightTransform, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        """Return x ŵᵀ + b."""
        return F.linear(x, self.transform.single(self.weight), self.bias)


class _Conv1d(nn.Conv1d):
    """A convolution that uses transformed filters; its state is that of ``nn.Conv1d``."""

    def __init__(self, transform: WeightTransform, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        """Return ŵ ∗ x + b."""
        y: Tensor = self._conv_forward(x, self.transform.single(self.weight), self.bias)
        return y


class _Conv2d(nn.Conv2d):
    """A convolution that uses transformed filters; its state is that of ``nn.Conv2d``."""

    def __init__(self, transform: WeightTransform, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        """Return ŵ ∗ x + b."""
        y: Tensor = self._conv_forward(x, self.transform.single(self.weight), self.bias)
        return y
