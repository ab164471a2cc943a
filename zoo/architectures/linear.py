"""Fully connected layer, stacked: y_g = x_g W_gᵀ + b_g for each model g."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures.example_gradients import ExampleGradients, Outer
from zoo.architectures.mode import wide_type
from zoo.architectures.op import Gradients, Mode, Param, Params, Shape, Unary, Values
from zoo.architectures.units import Units

__all__ = ["Linear"]


class Linear(Unary):
    """y = x Wᵀ + b with W ``[out, in]`` and b ``[out]``, as :class:`torch.nn.Linear`."""

    reads_features = True

    def __init__(self, path: str, inputs: int, outputs: int) -> None:
        super().__init__(path)
        self.inputs = inputs
        self.outputs = outputs

    def params(self) -> tuple[Param, ...]:
        """Return weight and bias."""
        return (
            Param("weight", (self.outputs, self.inputs), "kernel", self.inputs),
            Param("bias", (self.outputs,), "bias", self.inputs),
        )

    def units(self) -> tuple[Units, ...]:
        """Return columns with the input, rows with the output."""
        rows = (("weight", 0), ("bias", 0))
        return (
            Units((("weight", 1),), inputs=(0,), divided=(("weight", 1),)),
            Units(rows, output=True, multiplied=rows),
        )

    def out_shape(self) -> Shape:
        """Return a vector of ``outputs``."""
        return Shape((), self.outputs)

    def flops(self) -> int:
        """Return 2·in·out + out."""
        return 2 * self.inputs * self.outputs + self.outputs

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return ``[G, B, 1, out]``; x is ``[G, B, 1, in]``."""
        rows = x.flatten(2).to(mode.dtype)
        weight = p[self.key("weight")].to(mode.dtype)
        bias = p[self.key("bias")].to(mode.dtype)
        y = torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)
        return y.unsqueeze(2), (rows, x.shape)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return dx = dy W, dW = dyᵀ x, db = Σ dy."""
        rows, shape = saved
        d = dy.squeeze(2).to(mode.dtype)
        # dyᵀ x comes out in the weight's own layout: no transpose on the way into the slab.
        grads = {
            self.key("weight"): torch.bmm(d.mT, rows),
            self.key("bias"): d.sum(1, dtype=wide_type(d.dtype)),
        }
        if not need_dx:
            return None, grads
        dx = torch.bmm(d, p[self.key("weight")].to(mode.dtype))
        return dx.view(shape), grads

    def pull_inputs(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, needs: tuple[bool, ...]
    ) -> Gradients:
        """Return dx = dy W."""
        d = dy.squeeze(2).to(mode.dtype)
        return (torch.bmm(d, p[self.key("weight")].to(mode.dtype)).view(saved[1]),)

    def example_gradients(
        self, p: Params, xs: Values, saved: Any, dy: Tensor, mode: Mode
    ) -> ExampleGradients:
        """Return the inputs and the gradients of the outputs."""
        return Outer(xs[0].flatten(2).unsqueeze(2), dy)

    def module(self) -> nn.Module:
        """Return an ``nn.Linear``."""
        return nn.Linear(self.inputs, self.outputs)

    def describe(self) -> dict[str, Any]:
        """Return path and sizes."""
        return {**super().describe(), "inputs": self.inputs, "outputs": self.outputs}
