"""Convolution with a 3-wide kernel, stacked: one model's filters never meet another's inputs.

Three forms with the same result up to rounding, chosen by backend: matrix products over gathered
patches, which a compiler fuses well; one grouped convolution, which wins on a CPU where each
operation is launched on its own; and the kernel of :mod:`zoo.kernels.conv`. On a GPU a recorded
table says which one (:mod:`zoo.kernels.conv_forms`).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.example_gradients import ExampleGradients, Outer
from zoo.architectures.mode import wide_type
from zoo.architectures.op import Gradients, Mode, Param, Params, Shape, Unary, Values
from zoo.architectures.units import Units
from zoo.kernels.conv import conv, conv_backward
from zoo.kernels.conv_forms import form_on

__all__ = ["KERNEL", "Conv"]

#: Extent of the kernel along every spatial axis; padding is 1.
KERNEL = 3


class Conv(Unary):
    """``nn.Conv1d``/``nn.Conv2d`` with kernel 3 and padding 1.

    Args:
        path: place in the module tree.
        inputs: shape of one input example; one or two spatial axes.
        outputs: output channels.
        stride: 1 or 2, along every axis.
    """

    def __init__(self, path: str, inputs: Shape, outputs: int, stride: int) -> None:
        super().__init__(path)
        self.inputs = inputs
        self.outputs = outputs
        self.stride = stride
        self.axes = len(inputs.spatial)
        self.fan_in = inputs.channels * int(KERNEL**self.axes)

    def params(self) -> tuple[Param, ...]:
        """Return weight ``[out, in, 3(, 3)]`` and bias."""
        shape = (self.outputs, self.inputs.channels, *(KERNEL,) * self.axes)
        return (
            Param("weight", shape, "kernel", self.fan_in),
            Param("bias", (self.outputs,), "bias", self.fan_in),
        )

    def units(self) -> tuple[Units, ...]:
        """Return input channels with the input, filters with the output."""
        filters = (("weight", 0), ("bias", 0))
        return (
            Units((("weight", 1),), inputs=(0,), divided=(("weight", 1),)),
            Units(filters, output=True, multiplied=filters),
        )

    def out_shape(self) -> Shape:
        """Return ⌈extent / stride⌉ along every axis."""
        spatial = tuple((extent - 1) // self.stride + 1 for extent in self.inputs.spatial)
        return Shape(spatial, self.outputs)

    def flops(self) -> int:
        """Return (2·fan_in + 1) an output element."""
        out = self.out_shape()
        return (2 * self.fan_in + 1) * out.positions * out.channels

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return ``[G, B, T', out]``; x is ``[G, B, T, in]``."""
        weight = p[self.key("weight")].to(mode.dtype)
        bias = p[self.key("bias")].to(mode.dtype)
        form = self._form(x.to(mode.dtype), mode)
        if form == "grouped":
            return self._grouped_forward(weight, bias, x.to(mode.dtype))
        if form == "implicit":
            x = x.to(mode.dtype)
            return conv(x, weight, bias, self.inputs.spatial, self.stride), (x, weight)
        patches = self._patches(x.to(mode.dtype))
        matrix = self._matrix(weight)
        y = torch.baddbmm(bias.unsqueeze(1), patches, matrix.mT)
        shape = (*x.shape[:2], self.out_shape().positions, self.outputs)
        return y.view(shape), (patches, matrix)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the gradients of input, weight and bias."""
        dy = dy.to(mode.dtype)
        form = self._form(dy, mode)
        if form == "grouped":
            return self._grouped_backward(saved, dy, need_dx=need_dx)
        if form == "implicit":
            x, weight = saved
            dx, dw, db = conv_backward(
                x, weight, dy, self.inputs.spatial, self.stride, need_dx=need_dx
            )
            return dx, {self.key("weight"): dw, self.key("bias"): db}
        patches, matrix = saved
        G, B = dy.shape[:2]
        d = dy.reshape(G, -1, self.outputs)
        dw = torch.bmm(d.mT, patches).view(
            G, self.outputs, *(KERNEL,) * self.axes, self.inputs.channels
        )
        grads = {
            self.key("weight"): dw.movedim(-1, 2),
            self.key("bias"): d.sum(1, dtype=wide_type(d.dtype)),
        }
        dx = self._unpatch(torch.bmm(d, matrix), B) if need_dx else None
        return dx, grads

    def pull_inputs(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, needs: tuple[bool, ...]
    ) -> Gradients:
        """Return the gradient of the input; with patches, by one matrix product."""
        dy = dy.to(mode.dtype)
        if self._form(dy, mode) != "im2col":
            return super().pull_inputs(p, saved, dy, mode, needs)
        d = dy.reshape(dy.shape[0], -1, self.outputs)
        return (self._unpatch(torch.bmm(d, saved[1]), dy.shape[1]),)

    def example_gradients(
        self, p: Params, xs: Values, saved: Any, dy: Tensor, mode: Mode
    ) -> ExampleGradients:
        """Return the patches and the gradients of the outputs."""
        kept = self._form(dy, mode) == "im2col"
        patches = saved[0] if kept else self._patches(xs[0])
        return Outer(patches.view(*dy.shape[:3], self.fan_in), dy)

    def module(self) -> nn.Module:
        """Return an ``nn.Conv1d`` or ``nn.Conv2d``."""
        kind = nn.Conv1d if self.axes == 1 else nn.Conv2d
        return kind(self.inputs.channels, self.outputs, KERNEL, self.stride, padding=1)

    def describe(self) -> dict[str, Any]:
        """Return path, sizes, kernel, stride and padding."""
        return {
            **super().describe(),
            "inputs": self.inputs.channels,
            "outputs": self.outputs,
            "spatial": list(self.inputs.spatial),
            "kernel": KERNEL,
            "stride": self.stride,
            "padding": 1,
        }

    def _form(self, x: Tensor, mode: Mode) -> str:
        """Return the form to take; ``x [G, B, ...]`` says the batch, the type and the device."""
        if mode.conv != "measured":
            return mode.conv
        out = self.out_shape()
        return form_on(
            x, inputs=self.inputs.channels, outputs=out.channels, positions=out.positions
        )

    # -- patches and matrix products ------------------------------------------------------

    def _matrix(self, weight: Tensor) -> Tensor:
        """Return the filters as ``[G, out, 3^axes · in]``, channels fastest."""
        return weight.movedim(2, -1).reshape(weight.shape[0], self.outputs, self.fan_in)

    def _patches(self, x: Tensor) -> Tensor:
        """Return ``[G, B·T', 3^axes · in]``: what each output position sees."""
        G, B = x.shape[:2]
        grid = x.view(G, B, *self.inputs.spatial, self.inputs.channels)
        padded = F.pad(grid, (0, 0, *(1, 1) * self.axes))
        out = self.out_shape().spatial
        taps = []
        for offsets in product(range(KERNEL), repeat=self.axes):
            window = padded
            for axis, (offset, extent) in enumerate(zip(offsets, out, strict=True)):
                stop = offset + self.stride * (extent - 1) + 1
                window = window[_along(2 + axis, slice(offset, stop, self.stride))]
            taps.append(window)
        return torch.cat(taps, -1).reshape(G, -1, self.fan_in)

    def _unpatch(self, dpatches: Tensor, B: int) -> Tensor:
        """Return the adjoint of :meth:`_patches`, as sums of shifted views (no scatter)."""
        G = dpatches.shape[0]
        out = self.out_shape().spatial
        taps = KERNEL**self.axes
        grid = dpatches.view(G, B, *out, taps, self.inputs.channels)
        padded = F.pad(grid, (0, 0, 0, 0, *(1, 1) * self.axes))
        parts = [
            self._phase(padded, phase, out)
            for phase in product(range(self.stride), repeat=self.axes)
        ]
        dx = parts[0] if self.stride == 1 else _interleave(parts, self.axes)
        for axis, extent in enumerate(self.inputs.spatial):
            dx = dx[_along(2 + axis, slice(0, extent))]
        return dx.reshape(G, B, self.inputs.positions, self.inputs.channels)

    def _phase(self, padded: Tensor, phase: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
        """Sum the taps that reach input positions ``stride·i + phase``."""
        total: Tensor | None = None
        for offsets in product(range(KERNEL), repeat=self.axes):
            reach = [(r + 1 - o) % self.stride for r, o in zip(phase, offsets, strict=True)]
            if any(reach):
                continue
            index = 0
            window = padded
            for axis, (r, o) in enumerate(zip(phase, offsets, strict=True)):
                start = 1 + (r + 1 - o) // self.stride
                window = window[_along(2 + axis, slice(start, start + out[axis]))]
                index = index * KERNEL + o
            tap = window.select(2 + self.axes, index)
            total = tap if total is None else total + tap
        if total is None:
            msg = f"no tap reaches phase {phase} with stride {self.stride}"
            raise ValueError(msg)
        return total

    # -- one grouped convolution ----------------------------------------------------------

    def _grouped_forward(self, weight: Tensor, bias: Tensor, x: Tensor) -> tuple[Tensor, Any]:
        G, B = x.shape[:2]
        channels = self.inputs.channels
        images = x.view(G, B, *self.inputs.spatial, channels).movedim(-1, 2).transpose(0, 1)
        images = images.reshape(B, G * channels, *self.inputs.spatial)
        filters = weight.reshape(G * self.outputs, *weight.shape[2:])
        conv = torch.conv1d if self.axes == 1 else torch.conv2d
        y = conv(images, filters, bias.reshape(-1), self.stride, 1, 1, G)
        y = y.view(B, G, self.outputs, -1).permute(1, 0, 3, 2)
        return y, (images, filters)

    def _grouped_backward(
        self, saved: Any, dy: Tensor, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        images, filters = saved
        G, B = dy.shape[:2]
        out = self.out_shape().spatial
        d = dy.permute(1, 0, 3, 2).reshape(B, G * self.outputs, *out)
        ones = [1] * self.axes
        dx, dw, db = torch.ops.aten.convolution_backward(
            d, images, filters, [G * self.outputs], [self.stride] * self.axes, ones, ones,
            False, [0] * self.axes, G, [need_dx, True, True],  # noqa: FBT003
        )  # fmt: skip
        grads = {
            self.key("weight"): dw.view(G, self.outputs, *filters.shape[1:]),
            self.key("bias"): db.view(G, self.outputs),
        }
        if not need_dx:
            return None, grads
        dx = dx.view(B, G, self.inputs.channels, -1).permute(1, 0, 3, 2)
        return dx, grads


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part)


def _interleave(parts: list[Tensor], axes: int) -> Tensor:
    """Weave the 2^axes phases of a stride-2 gradient back into one grid."""
    if axes == 1:
        woven = torch.stack(parts, 3)
        return woven.flatten(2, 3)
    rows = [torch.stack(parts[2 * i : 2 * i + 2], 4) for i in range(2)]
    woven = torch.stack(rows, 3)  # [G, B, H', 2, W', 2, C]
    return woven.flatten(4, 5).flatten(2, 3)
