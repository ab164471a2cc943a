"""Stacked convolution as an implicit matrix product with a model axis.

For a kernel of three and padding of one along each of one or two axes, channels last,

    y[g, b, t, o] = bias[g, o] + Σ_(k, c) x[g, b, s(t, k), c] · w[g, o, c, k],

s(t, k) being the input position under tap k of output position t. The patches are never stored: a
program holds a tile of outputs and walks over (k, c), gathering as it goes. The gradient by x walks
over (k, o), the gradient by w over (b, t), each in one fixed order. The other two forms of the same
map, one grouped convolution and stored patches with batched products, are in
:mod:`zoo.architectures.conv`; :mod:`zoo.kernels.conv_forms` says which one is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn import grad as gradients

from zoo.kernels.language import (
    INTERPRETED,
    Value,
    blocks,
    constexpr,
    jit,
    launch,
    on_device,
    power_of_two,
    tl,
)

__all__ = ["conv", "conv_backward", "conv_backward_torch", "conv_torch"]

_KERNEL = 3


def _pictures(x: Tensor, spatial: Sequence[int]) -> Tensor:
    """Return one model's ``[B, T, C]`` as ``[B, C, *spatial]``."""
    return x.mT.reshape(x.shape[0], x.shape[2], *spatial)


def conv_torch(
    x: Tensor, weight: Tensor, bias: Tensor, spatial: Sequence[int], stride: int
) -> Tensor:
    """Return what :func:`conv` does: torch's own convolution, model after model."""
    run = F.conv1d if len(spatial) == 1 else F.conv2d
    return torch.stack(
        [
            run(_pictures(a, spatial), w, b, stride, padding=1).flatten(2).mT
            for a, w, b in zip(x, weight, bias, strict=True)
        ]
    )


def conv_backward_torch(
    x: Tensor, weight: Tensor, dy: Tensor, spatial: Sequence[int], stride: int, *, need_dx: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return what :func:`conv_backward` does: torch's own gradients, model after model."""
    by_x: Any = gradients.conv1d_input if len(spatial) == 1 else gradients.conv2d_input
    by_w: Any = gradients.conv1d_weight if len(spatial) == 1 else gradients.conv2d_weight
    out = [(extent - 1) // stride + 1 for extent in spatial]
    dx, dw = [], []
    for a, w, d in zip(x, weight, dy, strict=True):
        picture, delta = _pictures(a, spatial), _pictures(d, out)
        dw.append(by_w(picture, w.shape, delta, stride, 1))
        if need_dx:
            dx.append(by_x(picture.shape, w, delta, stride, 1).flatten(2).mT)
    return torch.stack(dx) if need_dx else None, torch.stack(dw), dy.sum((1, 2))


def _sizes(x: Tensor, weight: Tensor, spatial: Sequence[int], stride: int) -> dict[str, int]:
    """Return the compile-time sizes that all three kernels share."""
    height, width = (1, *spatial) if len(spatial) == 1 else tuple(spatial)
    taps_h = 1 if len(spatial) == 1 else _KERNEL
    stride_h = 1 if len(spatial) == 1 else stride
    return {
        "B": x.shape[1], "IN": weight.shape[2], "OUT": weight.shape[1], "HEIGHT": height,
        "WIDTH": width, "OUT_H": (height - 1) // stride_h + 1, "OUT_W": (width - 1) // stride + 1,
        "STRIDE_H": stride_h, "STRIDE": stride, "TAPS_H": taps_h,
        # Products of bfloat16 are exact in float32; the interpreter cannot multiply bfloat16.
        "HALF": x.dtype == torch.bfloat16 and weight.dtype == torch.bfloat16 and not INTERPRETED,
        "BK": 32,
    }  # fmt: skip


def conv(x: Tensor, weight: Tensor, bias: Tensor, spatial: Sequence[int], stride: int) -> Tensor:
    """Return ``[G, B, T', out]`` in the type of x.

    Args:
        x: ``[G, B, T, in]`` float32 or bfloat16, T = ∏ spatial in row-major order.
        weight: ``[G, out, in, 3]`` or ``[G, out, in, 3, 3]``.
        bias: ``[G, out]``.
        spatial: extent of the input along its one or two axes.
        stride: along every axis; T' has ⌈extent / stride⌉ along each.
    """
    if not on_device(x, weight, bias):
        return conv_torch(x, weight, bias, spatial, stride)
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    sizes = _sizes(x, weight, spatial, stride)
    rows, outputs = sizes["B"] * sizes["OUT_H"] * sizes["OUT_W"], sizes["OUT"]
    y = x.new_empty(len(x), sizes["B"], sizes["OUT_H"] * sizes["OUT_W"], outputs)
    bm, bn = power_of_two(rows, least=16, most=64), power_of_two(outputs, least=16, most=64)
    grid = (len(x), blocks(rows, bm), blocks(outputs, bn))
    launch(_forward_kernel, grid, x, weight, bias, y, BM=bm, BN=bn, **sizes)
    return y


def conv_backward(
    x: Tensor, weight: Tensor, dy: Tensor, spatial: Sequence[int], stride: int, *, need_dx: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return the gradients of input (None unless wanted), weight and bias.

    Args:
        x, weight, spatial, stride: as of :func:`conv`.
        dy: ``[G, B, T', out]`` in the type of x.
        need_dx: whether the gradient of the input is wanted.

    Returns:
        dx in the shape and type of x; dw and db in those shapes, float32 on the kernels' path.
    """
    if not on_device(x, weight, dy):
        return conv_backward_torch(x, weight, dy, spatial, stride, need_dx=need_dx)
    x, weight, dy = x.contiguous(), weight.contiguous(), dy.contiguous()
    sizes = _sizes(x, weight, spatial, stride)
    G, inputs, outputs = len(x), sizes["IN"], sizes["OUT"]
    dw = torch.empty(weight.shape, device=x.device)
    db = torch.empty(G, outputs, device=x.device)
    columns = inputs * _KERNEL * sizes["TAPS_H"] + 1
    # Larger tiles do not fit the registers of four warps, for the addresses that they take.
    bm, bn = power_of_two(outputs, least=16, most=32), power_of_two(columns, least=16, most=32)
    grid = (G, blocks(outputs, bm), blocks(columns, bn))
    launch(_weight_kernel, grid, x, dy, dw, db, BM=bm, BN=bn, **sizes)
    if not need_dx:
        return None, dw, db
    dx = torch.empty_like(x)
    rows = sizes["B"] * sizes["HEIGHT"] * sizes["WIDTH"]
    bm, bn = power_of_two(rows, least=16, most=64), power_of_two(inputs, least=16, most=64)
    launch(
        _input_kernel, (G, blocks(rows, bm), blocks(inputs, bn)), weight, dy, dx,
        BM=bm, BN=bn, **sizes,
    )  # fmt: skip
    return dx, dw, db


@jit
def _read(at: Value, inside: Value, HALF: constexpr) -> Value:
    """Return a tile as the product takes it: bfloat16 if HALF, else float32."""
    value = tl.load(at, inside, 0.0)
    if not HALF:
        value = value.to(tl.float32)
    return value


@jit
def _under_tap(
    row: Value, tap: Value, HEIGHT: constexpr, WIDTH: constexpr, OUT_H: constexpr,
    OUT_W: constexpr, STRIDE_H: constexpr, STRIDE: constexpr, TAPS_H: constexpr,
) -> Value:  # fmt: skip
    """Return which input row b·T + s lies under a tap of output row b·T' + t, and if it exists."""
    b, t = row // (OUT_H * OUT_W), row % (OUT_H * OUT_W)
    h = (t // OUT_W) * STRIDE_H + tap // 3 - TAPS_H // 2
    w = (t % OUT_W) * STRIDE + tap % 3 - 1
    valid = (h >= 0) & (h < HEIGHT) & (w >= 0) & (w < WIDTH)
    return (b * HEIGHT + h) * WIDTH + w, valid


@jit
def _forward_kernel(
    x: Value, weight: Value, bias: Value, y: Value,
    BM: constexpr, BN: constexpr, B: constexpr, IN: constexpr, OUT: constexpr, HEIGHT: constexpr,
    WIDTH: constexpr, OUT_H: constexpr, OUT_W: constexpr, STRIDE_H: constexpr, STRIDE: constexpr,
    TAPS_H: constexpr, HALF: constexpr, BK: constexpr,
) -> None:  # fmt: skip
    """BM output positions by BN output channels of one model per program."""
    model = tl.program_id(0).to(tl.int64)
    ROWS: tl.constexpr = B * OUT_H * OUT_W
    TAPS: tl.constexpr = TAPS_H * 3
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    o = tl.program_id(2) * BN + tl.arange(0, BN)
    x += model * B * HEIGHT * WIDTH * IN
    weight += model * OUT * IN * TAPS
    total = tl.zeros([BM, BN], tl.float32)
    for start in range(0, TAPS * IN, BK):
        k = start + tl.arange(0, BK)
        tap, c = k // IN, k % IN
        source, valid = _under_tap(
            row[:, None], tap[None, :], HEIGHT, WIDTH, OUT_H, OUT_W, STRIDE_H, STRIDE, TAPS_H
        )
        inside = valid & (row < ROWS)[:, None] & (k < TAPS * IN)[None, :]
        left = _read(x + source * IN + c[None, :], inside, HALF)
        inside = (k < TAPS * IN)[:, None] & (o < OUT)[None, :]
        right = _read(weight + (o[None, :] * IN + c[:, None]) * TAPS + tap[:, None], inside, HALF)
        total += tl.dot(left, right, input_precision="ieee")
    total += tl.load(bias + model * OUT + o, o < OUT, 0.0).to(tl.float32)[None, :]
    at = (model * ROWS + row)[:, None] * OUT + o[None, :]
    tl.store(y + at, total, (row < ROWS)[:, None] & (o < OUT)[None, :])


@jit
def _weight_kernel(
    x: Value, dy: Value, dw: Value, db: Value,
    BM: constexpr, BN: constexpr, B: constexpr, IN: constexpr, OUT: constexpr, HEIGHT: constexpr,
    WIDTH: constexpr, OUT_H: constexpr, OUT_W: constexpr, STRIDE_H: constexpr, STRIDE: constexpr,
    TAPS_H: constexpr, HALF: constexpr, BK: constexpr,
) -> None:  # fmt: skip
    """BM output channels by BN of (tap, input channel), the bias the last of these, a program."""
    model = tl.program_id(0).to(tl.int64)
    ROWS: tl.constexpr = B * OUT_H * OUT_W
    TAPS: tl.constexpr = TAPS_H * 3
    o = tl.program_id(1) * BM + tl.arange(0, BM)
    n = tl.program_id(2) * BN + tl.arange(0, BN)
    tap, c = n // IN, n % IN
    x += model * B * HEIGHT * WIDTH * IN
    dy += model * ROWS * OUT
    total = tl.zeros([BM, BN], tl.float32)
    for start in range(0, ROWS, BK):
        row = start + tl.arange(0, BK)
        inside = (o < OUT)[:, None] & (row < ROWS)[None, :]
        left = _read(dy + row[None, :] * OUT + o[:, None], inside, HALF)
        source, valid = _under_tap(
            row[:, None], tap[None, :], HEIGHT, WIDTH, OUT_H, OUT_W, STRIDE_H, STRIDE, TAPS_H
        )
        inside = valid & (row < ROWS)[:, None] & (n < TAPS * IN)[None, :]
        right = _read(x + source * IN + c[None, :], inside, HALF)
        # The bias is an input that is always one.
        ones = (row < ROWS)[:, None] & (n == TAPS * IN)[None, :]
        right = tl.where(ones, tl.full([BK, BN], 1.0, right.dtype), right)
        total += tl.dot(left, right, input_precision="ieee")
    at = ((model * OUT + o)[:, None] * IN + c[None, :]) * TAPS + tap[None, :]
    tl.store(dw + at, total, (o < OUT)[:, None] & (n < TAPS * IN)[None, :])
    at = (model * OUT + o)[:, None] + 0 * n[None, :]
    tl.store(db + at, total, (o < OUT)[:, None] & (n == TAPS * IN)[None, :])


@jit
def _input_kernel(
    weight: Value, dy: Value, dx: Value,
    BM: constexpr, BN: constexpr, B: constexpr, IN: constexpr, OUT: constexpr, HEIGHT: constexpr,
    WIDTH: constexpr, OUT_H: constexpr, OUT_W: constexpr, STRIDE_H: constexpr, STRIDE: constexpr,
    TAPS_H: constexpr, HALF: constexpr, BK: constexpr,
) -> None:  # fmt: skip
    """BM input positions by BN input channels of one model per program."""
    model = tl.program_id(0).to(tl.int64)
    ROWS: tl.constexpr = B * HEIGHT * WIDTH
    TAPS: tl.constexpr = TAPS_H * 3
    row = tl.program_id(1) * BM + tl.arange(0, BM)
    c = tl.program_id(2) * BN + tl.arange(0, BN)
    b, t = row // (HEIGHT * WIDTH), row % (HEIGHT * WIDTH)
    weight += model * OUT * IN * TAPS
    dy += model * B * OUT_H * OUT_W * OUT
    total = tl.zeros([BM, BN], tl.float32)
    for start in range(0, TAPS * OUT, BK):
        k = start + tl.arange(0, BK)
        tap, o = k // OUT, k % OUT
        # Along each axis, position s lies under tap i of output (s + padding − i) / stride.
        h = (t // WIDTH)[:, None] + TAPS_H // 2 - (tap // 3)[None, :]
        w = (t % WIDTH)[:, None] + 1 - (tap % 3)[None, :]
        reached = (h >= 0) & (w >= 0) & (h % STRIDE_H == 0) & (w % STRIDE == 0)
        h, w = h // STRIDE_H, w // STRIDE
        inside = reached & (h < OUT_H) & (w < OUT_W) & (row < ROWS)[:, None]
        source = (b[:, None] * OUT_H + h) * OUT_W + w
        left = _read(dy + source * OUT + o[None, :], inside & (k < TAPS * OUT)[None, :], HALF)
        inside = (k < TAPS * OUT)[:, None] & (c < IN)[None, :]
        right = _read(weight + (o[:, None] * IN + c[None, :]) * TAPS + tap[:, None], inside, HALF)
        total += tl.dot(left, right, input_precision="ieee")
    at = (model * ROWS + row)[:, None] * IN + c[None, :]
    tl.store(dx + at, total, (row < ROWS)[:, None] & (c < IN)[None, :])
