"""Dropout over stacked models, its mask worked out anew from a counter where it is needed.

    y = x · [u ≥ p] / (1 − p),   u = the uniform numbers of (seed, stream, index)

with one rate, seed and index a model (Srivastava et al. 2014). The mask is a function of the
counter, so the backward pass is the same call on dy and nothing is kept between the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.kernels.language import Value, blocks, constexpr, jit, launch, on_device, power_of_two, tl
from zoo.kernels.philox import philox_run
from zoo.seeds import Stream, torch_uniform

__all__ = ["dropout", "dropout_torch"]

#: Values that one program masks, at most.
_TILE = 2048


def dropout_torch(x: Tensor, rate: Tensor, seed: Tensor, index: Tensor) -> Tensor:
    """Return what :func:`dropout` does, in plain torch."""
    u = torch_uniform(seed, Stream.DROPOUT, index, x[0].numel())
    rate = rate.view(-1, 1)
    scale = (u >= rate).to(x.dtype) / (1 - rate).to(x.dtype)
    return x * scale.view(x.shape)


def dropout(x: Tensor, rate: Tensor, seed: Tensor, index: Tensor) -> Tensor:
    """Return x masked and rescaled; of the gradient dy, the gradient by x.

    Args:
        x: ``[G, ...]`` float32 or bfloat16, at most 2³⁴ values a model.
        rate: ``[G]`` float32 probability p of each model, below 1.
        seed: ``[G]`` int64 below 2³².
        index: ``[G]`` int64, what counts the drawings of a model.
    """
    if not on_device(x, rate, seed, index):
        return dropout_torch(x, rate, seed, index)
    x = x.contiguous()
    y = torch.empty_like(x)
    n = x[0].numel()
    # In the type of x, as the reference rounds it; exact in float32 then.
    gain = (torch.ones_like(rate).to(x.dtype) / (1 - rate).to(x.dtype)).float()
    tile = power_of_two(n, least=4, most=_TILE)
    stream = int(Stream.DROPOUT)
    launch(
        _dropout_kernel, (len(x), blocks(n, tile)), x, rate, gain, seed, index, y,
        N=n, STREAM=stream, BLOCK=tile,
    )  # fmt: skip
    return y


@jit
def _dropout_kernel(
    x: Value, rate: Value, gain: Value, seed: Value, index: Value, y: Value,
    N: constexpr, STREAM: constexpr, BLOCK: constexpr,
) -> None:  # fmt: skip
    """BLOCK values of one model per program."""
    model = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * BLOCK
    at = start + tl.arange(0, BLOCK)
    bits = philox_run(tl.load(seed + model), STREAM, tl.load(index + model), start, BLOCK)
    # The upper 24 bits times 2⁻²⁴, exact in float32.
    u = (bits >> 8).to(tl.float32) * 5.9604644775390625e-08
    keep = tl.where(u >= tl.load(rate + model), tl.load(gain + model), 0.0)
    value = tl.load(x + model * N + at, at < N, 0.0).to(tl.float32)
    tl.store(y + model * N + at, value * keep, at < N)
