"""Dropout with counter-based masks: a model's mask depends on its seed, its step and the layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from zoo.architectures.op import Mode, Params, Shape, Unary
from zoo.architectures.units import BOTH, Units
from zoo.kernels.dropout import dropout
from zoo.kernels.language import on_device
from zoo.seeds import Stream, torch_uniform

__all__ = ["LAYERS", "Dropout"]

#: Dropout layers that one step's counter has room for.
LAYERS = 256


class Dropout(Unary):
    """y = x · [u ≥ p] / (1 − p) with u uniform, one p per model (Srivastava et al. 2014).

    Args:
        path: place in the module tree.
        shape: shape of one example.
        layer: index among the network's dropout layers, part of the random counter.
    """

    def __init__(self, path: str, shape: Shape, layer: int) -> None:
        super().__init__(path)
        self.shape = shape
        self.layer = layer

    def units(self) -> tuple[Units, ...]:
        """Return the channels, which evaluation leaves as they are."""
        return (Units(inputs=(0,), output=True, passes=BOTH),)

    def out_shape(self) -> Shape:
        """Return the input's shape."""
        return self.shape

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return the masked and rescaled input in training, the input otherwise."""
        if not mode.training or mode.dropout_rate is None:
            return x, None
        if mode.dropout_seed is None or mode.step is None:
            msg = "dropout needs its seeds and the step of each model"
            raise ValueError(msg)
        G = x.shape[0]
        index = mode.step * LAYERS + self.layer
        if on_device(x, mode.dropout_rate):
            drawn = (mode.dropout_rate, mode.dropout_seed, index)
            return dropout(x, *drawn), drawn
        u = torch_uniform(mode.dropout_seed, Stream.DROPOUT, index, x[0].numel())
        rate = mode.dropout_rate.view(G, 1)
        scale = ((u >= rate).to(x.dtype) / (1 - rate).to(x.dtype)).view(x.shape)
        return x * scale, scale

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return dy with the same mask."""
        if isinstance(saved, tuple):
            return dropout(dy, *saved), {}
        return (dy if saved is None else dy * saved), {}

    def module(self) -> nn.Module:
        """Return an ``nn.Dropout`` at rate 0: the plain module is handed out for evaluation."""
        return nn.Dropout(0.0)
