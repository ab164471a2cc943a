"""Gather of per-model batches from one data set on the device: index, normalise, move, cast.

One pass reads each chosen example once and writes it where the network wants it. With ids
``[G, B]`` of G models,

    out[g, b] = move((x[ids[g, b]] − mean) / scale),

where *move* mirrors a picture left to right (flip) or shifts it by whole pixels, zeros coming in
(shift: crops of a padded picture). The random numbers are those of :mod:`zoo.data.augment`, so the
reference is made of it. The data set may be of bytes: a quarter of the memory and of the reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.data.augment import AUGMENTATIONS
from zoo.kernels.language import Value, blocks, constexpr, jit, launch, on_device, power_of_two, tl
from zoo.kernels.philox import philox_word
from zoo.seeds import Stream

__all__ = ["MOVES", "Draw", "Reading", "gather", "gather_torch"]

#: Augmentations that the kernel does on the way; others are applied to what it gathers.
MOVES = ("none", "flip", "shift")
#: Values that one program moves, at most.
_TILE = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Which augmentation, and what its random numbers depend on.

    Args:
        name: one of :data:`MOVES`.
        seed: ``[G]`` int64 augmentation seeds.
        step: ``[G]`` int64, each model's own step.
        strength: ``[G]`` float32.
    """

    name: str
    seed: Tensor
    step: Tensor
    strength: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What is done to examples as they are gathered.

    Args:
        flatten: whether the network reads an example as one vector: ``[G, B, 1, values]``.
        mean, scale: ``[channels]`` float32, both or neither.
        draw: the augmentation, or None.
        dtype: of the examples that are returned.
    """

    flatten: bool
    mean: Tensor | None = None
    scale: Tensor | None = None
    draw: Draw | None = None
    dtype: torch.dtype = torch.float32


def gather_torch(x: Tensor, labels: Tensor, ids: Tensor, how: Reading) -> tuple[Tensor, Tensor]:
    """Return what :func:`gather` does, in plain torch."""
    mean, scale, draw = how.mean, how.scale, how.draw
    found = x[ids].float()
    if mean is not None and scale is not None:
        shape = (-1, *(1,) * (x.ndim - 2))
        found = (found - mean.view(shape)) / scale.view(shape)
    if draw is not None:
        found = AUGMENTATIONS[draw.name].apply(found, draw.seed, draw.step, draw.strength)
    found = found.flatten(2).unsqueeze(2) if how.flatten else found.flatten(3).mT.contiguous()
    return found.to(how.dtype), labels.gather(1, ids)


def gather(x: Tensor, labels: Tensor, ids: Tensor, how: Reading) -> tuple[Tensor, Tensor]:
    """Return examples in the stacked form, ``[G, B, T, channels]``, and labels ``[G, B]``.

    Args:
        x: ``[N, channels]``, ``[N, channels, length]`` or ``[N, channels, height, width]``, float32
            or uint8.
        labels: ``[G, N]`` int64.
        ids: ``[G, B]`` int64 below N.
        how: what is done on the way.
    """
    if not on_device(x, labels, ids):
        return gather_torch(x, labels, ids, how)
    mean, scale, draw, flatten = how.mean, how.scale, how.draw, how.flatten
    x, labels, ids = x.contiguous(), labels.contiguous(), ids.contiguous()
    (G, B), (channels, *spatial) = ids.shape, x.shape[1:]
    extent = (1,) * (2 - len(spatial)) + tuple(spatial)
    T = extent[0] * extent[1]
    shape = (G, B, 1, channels * T) if flatten else (G, B, T, channels)
    out = torch.empty(shape, dtype=how.dtype, device=x.device)
    chosen = torch.empty_like(ids)
    tile = power_of_two(channels * T, most=_TILE)
    rows = power_of_two(B, most=_TILE // tile)
    name = "none" if draw is None else draw.name
    drawn = (None,) * 3 if draw is None else (draw.seed, draw.step, draw.strength)
    launch(
        _gather_kernel, (G, blocks(B, rows), blocks(channels * T, tile)),
        x, labels, ids, mean, scale, *drawn, out, chosen, labels.shape[1],
        B=B, CHANNELS=channels, HEIGHT=extent[0], WIDTH=extent[1], FLATTEN=flatten,
        NORMALIZE=mean is not None, FLIP=name == "flip", SHIFT=name == "shift", AXES=len(spatial),
        STREAM=int(Stream.AUGMENT), BR=rows, BE=tile,
    )  # fmt: skip
    return out, chosen


@jit
def _moved_by(seed: Value, step: Value, most: Value, position: Value, STREAM: constexpr) -> Value:
    """Return a whole number uniform on −most..most: ((2·most + 1)·word) div 2³² − most."""
    word = philox_word(seed, STREAM, step, position).to(tl.int64)
    return (((2 * most + 1) * word) >> 32) - most


@jit
def _gather_kernel(
    x: Value, labels: Value, ids: Value, mean: Value, scale: Value,
    seed: Value, step: Value, strength: Value, out: Value, chosen: Value, N: Value,
    B: constexpr, CHANNELS: constexpr, HEIGHT: constexpr, WIDTH: constexpr, FLATTEN: constexpr,
    NORMALIZE: constexpr, FLIP: constexpr, SHIFT: constexpr, AXES: constexpr, STREAM: constexpr,
    BR: constexpr, BE: constexpr,
) -> None:  # fmt: skip
    """BE values of BR examples of one model per program."""
    model = tl.program_id(0).to(tl.int64)
    part = tl.program_id(2)
    b = tl.program_id(1) * BR + tl.arange(0, BR)
    real = b < B
    which = tl.load(ids + model * B + b, real, 0)
    if part == 0:
        tl.store(chosen + model * B + b, tl.load(labels + model * N + which, real, 0), real)
    T: tl.constexpr = HEIGHT * WIDTH
    SIZE: tl.constexpr = CHANNELS * HEIGHT * WIDTH
    e = part * BE + tl.arange(0, BE)
    if FLATTEN:
        c, t = e // T, e % T
    else:
        c, t = e % CHANNELS, e // CHANNELS
    h = (t // WIDTH)[None, :] + tl.zeros([BR, BE], tl.int32)
    w = (t % WIDTH)[None, :] + tl.zeros([BR, BE], tl.int32)
    inside = real[:, None] & (e < SIZE)[None, :]
    if FLIP:
        word = philox_word(tl.load(seed + model), STREAM, tl.load(step + model), b)
        mirrored = (word >> 8) < 8388608
        w = tl.where(mirrored[:, None], WIDTH - 1 - w, w)
    valid = inside
    if SHIFT:
        s, at = tl.load(seed + model), tl.load(step + model)
        most = tl.load(strength + model).to(tl.int64)
        w = w - _moved_by(s, at, most, b * AXES + (AXES - 1), STREAM)[:, None]
        if AXES == 2:
            h = h - _moved_by(s, at, most, b * AXES, STREAM)[:, None]
        valid = inside & (w >= 0) & (w < WIDTH) & (h >= 0) & (h < HEIGHT)
    source = which[:, None] * SIZE + c[None, :] * T + h * WIDTH + w
    value = tl.load(x + source, valid, 0).to(tl.float32)
    if NORMALIZE:
        low = tl.load(mean + c, e < SIZE, 0.0)[None, :]
        value = tl.div_rn(value - low, tl.load(scale + c, e < SIZE, 1.0)[None, :] + 0.0 * value)
    value = tl.where(valid, value, 0.0)
    tl.store(out + (model * B + b)[:, None] * SIZE + e[None, :], value, inside)
