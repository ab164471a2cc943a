"""Convolution, stacked: one model's filters never meet another's inputs.

Three forms with the same result up to rounding, chosen by backend: matrix products over gathered
patches, which a compiler fuses well; one grouped convolution, which wins on a CPU where each
operation is launched on its own; and the kernel of :mod:`zoo.kernels.conv`, for the 3-wide
convolutions of :mod:`zoo.architectures.cnn`. On a GPU a recorded table says which one
(:mod:`zoo.kernels.conv_forms`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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

__all__ = ["KERNEL", "Conv", "Window"]

#: Extent of the kernel along every spatial axis where nothing else is said.
KERNEL = 3
#: One number for all axes, or one per axis.
Extents = int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Where a kernel is laid on its input; one number for all axes, or one per axis.

    Args:
        stride: steps between outputs.
        kernel: extent of the kernel.
        padding: zeros on each side; None = half the kernel.
    """

    stride: Extents = 1
    kernel: Extents = KERNEL
    padding: Extents | None = None


class Conv(Unary):
    """``nn.Conv1d``/``nn.Conv2d``.

    Args:
        path: place in the module tree.
        inputs: shape of one input example; one or two spatial axes.
        outputs: output channels.
        window: where the kernel is laid.
        bias: ``"with"`` one or ``"without"``.
    """

    def __init__(
        self,
        path: str,
        inputs: Shape,
        outputs: int,
        window: Window = Window(),
        *,
        bias: str = "with",
    ) -> None:
        super().__init__(path)
        self.inputs = inputs
        self.outputs = outputs
        self.axes = len(inputs.spatial)
        self.stride = self._each(window.stride)
        self.kernel = self._each(window.kernel)
        half = tuple(k // 2 for k in self.kernel)
        self.padding = half if window.padding is None else self._each(window.padding)
        self.bias = bias == "with"
        self.taps = math.prod(self.kernel)
        self.fan_in = inputs.channels * self.taps
        self._output = Shape(
            tuple(
                (extent + 2 * p - k) // s + 1
                for extent, k, s, p in zip(
                    inputs.spatial, self.kernel, self.stride, self.padding, strict=True
                )
            ),
            outputs,
        )
        #: Whether it is a convolution that the kernel of a GPU has.
        self.has_kernel = self.bias and (set(self.kernel), set(self.padding)) == ({KERNEL}, {1})
        self.has_kernel &= set(self.stride) in ({1}, {2})

    def _each(self, extents: Extents) -> tuple[int, ...]:
        return (extents,) * self.axes if isinstance(extents, int) else tuple(extents)

    def params(self) -> tuple[Param, ...]:
        """Return weight ``[out, in, *kernel]`` and bias."""
        shape = (self.outputs, self.inputs.channels, *self.kernel)
        weight = Param("weight", shape, "kernel", self.fan_in)
        bias = Param("bias", (self.outputs,), "bias", self.fan_in)
        return (weight, bias) if self.bias else (weight,)

    def units(self) -> tuple[Units, ...]:
        """Return input channels with the input, filters with the output."""
        filters = tuple((param.suffix, 0) for param in self.params())
        return (
            Units((("weight", 1),), inputs=(0,), divided=(("weight", 1),)),
            Units(filters, output=True, multiplied=filters),
        )

    def out_shape(self) -> Shape:
        """Return ⌊(extent + 2·padding − kernel) / stride⌋ + 1 along every axis."""
        return self._output

    def flops(self) -> int:
        """Return 2·fan_in an output element, and one for the bias."""
        out = self.out_shape()
        return (2 * self.fan_in + self.bias) * out.positions * out.channels

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return ``[G, B, T', out]``; x is ``[G, B, T, in]``."""
        weight = p[self.key("weight")].to(mode.dtype)
        bias = p[self.key("bias")].to(mode.dtype) if self.bias else None
        form = self._form(x.to(mode.dtype), mode)
        if form == "grouped":
            return self._grouped_forward(weight, bias, x.to(mode.dtype))
        if form == "implicit" and bias is not None:
            x = x.to(mode.dtype)
            return conv(x, weight, bias, self.inputs.spatial, self.stride[0]), (x, weight)
        patches = self._patches(x.to(mode.dtype))
        matrix = self._matrix(weight)
        if bias is None:
            y = torch.bmm(patches, matrix.mT)
        else:
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
                x, weight, dy, self.inputs.spatial, self.stride[0], need_dx=need_dx
            )
            return dx, {self.key("weight"): dw, self.key("bias"): db}
        patches, matrix = saved
        G, B = dy.shape[:2]
        d = dy.reshape(G, -1, self.outputs)
        dw = torch.bmm(d.mT, patches).view(G, self.outputs, *self.kernel, self.inputs.channels)
        grads = {self.key("weight"): dw.movedim(-1, 2)}
        if self.bias:
            grads[self.key("bias")] = d.sum(1, dtype=wide_type(d.dtype))
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
        if not self.bias:
            return self.written_gradients(p, xs, dy, mode)
        kept = self._form(dy, mode) == "im2col"
        patches = saved[0] if kept else self._patches(xs[0])
        return Outer(patches.view(*dy.shape[:3], self.fan_in), dy)

    def module(self) -> nn.Module:
        """Return an ``nn.Conv1d`` or ``nn.Conv2d``."""
        kind: Any = nn.Conv1d if self.axes == 1 else nn.Conv2d
        made: nn.Module = kind(
            self.inputs.channels, self.outputs, self.kernel, self.stride, self.padding,
            bias=self.bias,
        )  # fmt: skip
        return made

    def describe(self) -> dict[str, Any]:
        """Return path, sizes, kernel, stride and padding."""
        return {
            **super().describe(),
            "inputs": self.inputs.channels,
            "outputs": self.outputs,
            "spatial": list(self.inputs.spatial),
            "kernel": _shown(self.kernel),
            "stride": _shown(self.stride),
            "padding": _shown(self.padding),
            **({} if self.bias else {"bias": False}),
        }

    def _form(self, x: Tensor, mode: Mode) -> str:
        """Return the form to take; ``x [G, B, ...]`` says the batch, the type and the device."""
        if not self.has_kernel and mode.conv in ("implicit", "measured"):
            return "grouped"
        if mode.conv != "measured":
            return mode.conv
        out = self.out_shape()
        return form_on(
            x, inputs=self.inputs.channels, outputs=out.channels, positions=out.positions
        )

    # -- patches and matrix products ------------------------------------------------------

    def _matrix(self, weight: Tensor) -> Tensor:
        """Return the filters as ``[G, out, taps · in]``, channels fastest."""
        return weight.movedim(2, -1).reshape(weight.shape[0], self.outputs, self.fan_in)

    def _patches(self, x: Tensor) -> Tensor:
        """Return ``[G, B·T', taps · in]``: what each output position sees."""
        G, B = x.shape[:2]
        grid = x.view(G, B, *self.inputs.spatial, self.inputs.channels)
        padded = F.pad(grid, (0, 0, *_sides([(n, n) for n in self.padding])))
        out = self.out_shape().spatial
        taps = []
        for offsets in product(*map(range, self.kernel)):
            window = padded
            for axis, (offset, extent) in enumerate(zip(offsets, out, strict=True)):
                stride = self.stride[axis]
                stop = offset + stride * (extent - 1) + 1
                window = window[_along(2 + axis, slice(offset, stop, stride))]
            taps.append(window)
        return torch.cat(taps, -1).reshape(G, -1, self.fan_in)

    def _unpatch(self, dpatches: Tensor, B: int) -> Tensor:
        """Return the adjoint of :meth:`_patches`, as sums of shifted views (no scatter)."""
        G = dpatches.shape[0]
        out = self.out_shape().spatial
        grid = dpatches.view(G, B, *out, self.taps, self.inputs.channels)
        reaches = [self._reach(axis) for axis in range(self.axes)]
        padded = F.pad(grid, (0, 0, 0, 0, *_sides(reaches)))
        parts = [
            self._phase(padded, phase, [low for low, _ in reaches])
            for phase in product(*map(range, self.stride))
        ]
        dx = _interleave(parts, self.stride)
        for axis, extent in enumerate(self.inputs.spatial):
            dx = dx[_along(2 + axis, slice(0, extent))]
        return dx.reshape(G, B, self.inputs.positions, self.inputs.channels)

    def _phases(self, axis: int) -> int:
        """Return how many input positions of an axis have one phase, at most."""
        return -(-self.inputs.spatial[axis] // self.stride[axis])

    def _reach(self, axis: int) -> tuple[int, int]:
        """Return how far input positions reach beyond the output, before and behind."""
        stride, pad, kernel = self.stride[axis], self.padding[axis], self.kernel[axis]
        first, last = -((kernel - 1 - pad) // stride), (stride - 1 + pad) // stride
        beyond = self._phases(axis) + last - self.out_shape().spatial[axis]
        return max(0, -first), max(0, beyond)

    def _phase(self, padded: Tensor, phase: tuple[int, ...], low: list[int]) -> Tensor:
        """Sum the taps that reach input positions ``stride·i + phase``."""
        total: Tensor | None = None
        sizes = [self._phases(axis) for axis in range(self.axes)]
        for offsets in product(*map(range, self.kernel)):
            away = [r + p - o for r, p, o in zip(phase, self.padding, offsets, strict=True)]
            if any(a % s for a, s in zip(away, self.stride, strict=True)):
                continue
            index = 0
            window = padded
            for axis, (a, o) in enumerate(zip(away, offsets, strict=True)):
                start = low[axis] + a // self.stride[axis]
                window = window[_along(2 + axis, slice(start, start + sizes[axis]))]
                index = index * self.kernel[axis] + o
            tap = window.select(2 + self.axes, index)
            total = tap if total is None else total + tap
        if total is None:  # a kernel narrower than its stride skips positions
            return padded.new_zeros(*padded.shape[:2], *sizes, padded.shape[-1])
        return total

    # -- one grouped convolution ----------------------------------------------------------

    def _grouped_forward(
        self, weight: Tensor, bias: Tensor | None, x: Tensor
    ) -> tuple[Tensor, Any]:
        G, B = x.shape[:2]
        channels = self.inputs.channels
        images = x.view(G, B, *self.inputs.spatial, channels).movedim(-1, 2).transpose(0, 1)
        images = images.reshape(B, G * channels, *self.inputs.spatial)
        filters = weight.reshape(G * self.outputs, *weight.shape[2:])
        conv: Any = torch.conv1d if self.axes == 1 else torch.conv2d
        flat = None if bias is None else bias.reshape(-1)
        y = conv(images, filters, flat, self.stride, self.padding, 1, G)
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
        sizes = [G * self.outputs] if self.bias else None
        dx, dw, db = torch.ops.aten.convolution_backward(
            d, images, filters, sizes, list(self.stride), list(self.padding), ones,
            False, [0] * self.axes, G, [need_dx, True, self.bias],  # noqa: FBT003
        )  # fmt: skip
        grads = {self.key("weight"): dw.view(G, self.outputs, *filters.shape[1:])}
        if self.bias:
            grads[self.key("bias")] = db.view(G, self.outputs)
        if not need_dx:
            return None, grads
        dx = dx.view(B, G, self.inputs.channels, -1).permute(1, 0, 3, 2)
        return dx, grads


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part)


def _shown(extents: tuple[int, ...]) -> int | list[int]:
    return extents[0] if len(set(extents)) == 1 else list(extents)


def _sides(pairs: list[tuple[int, int]]) -> list[int]:
    """Return (before, behind) of each axis as ``F.pad`` takes them, the last axis first."""
    return [n for pair in reversed(pairs) for n in pair]


def _interleave(parts: list[Tensor], stride: tuple[int, ...]) -> Tensor:
    """Weave the phases of a gradient back into one grid ``[G, B, *spatial, C]``."""
    if set(stride) == {1}:
        return parts[0]
    if len(stride) == 1:
        return torch.stack(parts, 3).flatten(2, 3)
    rows = [torch.stack(parts[stride[1] * i :][: stride[1]], 4) for i in range(stride[0])]
    woven = torch.stack(rows, 3)  # [G, B, H', s, W', s, C]
    return woven.flatten(4, 5).flatten(2, 3)
