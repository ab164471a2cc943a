"""Activation functions and their derivatives inside kernels, to be fused with what precedes them.

The names and the functions are those of :mod:`zoo.architectures.activations`. NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.kernels.language import Value, constexpr, jit, tl

__all__ = ["FUSED", "activate", "activate_torch", "slope"]

#: Activations that kernels know, in plain torch.
FUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": torch.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.01),
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}


def activate_torch(x: Tensor, name: str) -> Tensor:
    """Return f(x)."""
    return FUSED[name](x)


@jit
def _tanh(x: Value) -> Value:
    decayed = tl.exp(-2.0 * tl.abs(x))
    y = (1.0 - decayed) / (1.0 + decayed)
    return tl.where(x < 0, -y, y)


@jit
def activate(x: Value, ACT: constexpr) -> Value:
    """Return f(x) of a tile."""
    y = x
    if ACT == "relu":
        y = tl.where(x < 0, 0.0, x)
    elif ACT == "leaky_relu":
        y = tl.where(x < 0, 0.01 * x, x)
    elif ACT == "gelu":
        y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACT == "tanh":
        y = _tanh(x)
    elif ACT == "sigmoid":
        y = tl.sigmoid(x)
    elif ACT == "silu":
        y = x * tl.sigmoid(x)
    return y


@jit
def slope(x: Value, ACT: constexpr) -> Value:
    """Return f'(x) of a tile."""
    d = tl.full(x.shape, 1.0, tl.float32)
    if ACT == "relu":
        d = tl.where(x > 0, 1.0, 0.0)
    elif ACT == "leaky_relu":
        d = tl.where(x > 0, 1.0, 0.01)
    elif ACT == "gelu":
        density = tl.exp(-0.5 * x * x) * 0.3989422804014327
        d = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476)) + x * density
    elif ACT == "tanh":
        y = _tanh(x)
        d = 1.0 - y * y
    elif ACT == "sigmoid":
        y = tl.sigmoid(x)
        d = y * (1.0 - y)
    elif ACT == "silu":
        y = tl.sigmoid(x)
        d = y * (1.0 + x * (1.0 - y))
    return d
