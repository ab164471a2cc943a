"""Norms of per-example gradients of stacked networks, without any per-example gradient.

One forward and one backward pass over the logits' gradients give each layer's activations and
output gradients; :mod:`zoo.kernels.ghost_norm` makes norms of them. What is no plain linear map
(norms, transformed weights) takes its batch as models instead, which is exact too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.architectures import Network
from zoo.architectures.conv import Conv
from zoo.architectures.linear import Linear
from zoo.architectures.op import Mode, Op, Params
from zoo.kernels.ghost_norm import linear_square_norms, sequence_square_norms

__all__ = ["chunk_size", "gradient_norms", "last_features"]

#: Values of all patches of a model and chunk that stay in a core's cache, roughly.
_CACHE_VALUES = 1 << 18


def _mode() -> Mode:
    return Mode(training=False, conv="grouped")


def chunk_size(network: Network, most: int) -> int:
    """Return how many examples :func:`gradient_norms` had best be given at once."""
    convs = [op for op in network.ops if isinstance(op, Conv)]
    patches = sum(op.out_shape().positions * op.fan_in for op in convs)
    return most if not patches else min(most, max(8, _CACHE_VALUES // patches))


def last_features(network: Network, params: Params, x: Tensor) -> Tensor:
    """Return the inputs ``[G, B, F]`` of the last layer, in eval mode; x is ``[G, B, T, C]``."""
    mode = _mode()
    for op in network.ops[:-1]:
        x, _ = op.forward(params, x, mode)
    return x.flatten(2).float()


def gradient_norms(network: Network, params: Params, x: Tensor, labels: Tensor) -> Tensor:
    """Return ‖∇_w ℓ(x_i, y_i)‖₂ over all trained parameters, in eval mode.

    Args:
        network: the architecture.
        params: every tensor, each ``[G, *shape]``.
        x: ``[G, B, T, C_in]`` examples in the stacked form.
        labels: ``[B]`` or ``[G, B]`` int64.

    Returns:
        ``[G, B]`` float32.
    """
    mode = _mode()
    entered, saved = [], []
    h = x
    for op in network.ops:
        entered.append(h)
        h, kept = _forward(op, params, h, mode)
        saved.append(kept)
    logits = h.squeeze(2).float()
    d = torch.softmax(logits, -1) - F.one_hot(labels, logits.shape[-1])
    total = torch.zeros(logits.shape[:2], dtype=torch.float32, device=logits.device)
    flow: Tensor | None = d.unsqueeze(2)
    first = next(i for i, op in enumerate(network.ops) if op.params())
    for index in range(len(network.ops) - 1, first - 1, -1):
        if flow is None:
            break
        op = network.ops[index]
        if op.params():
            total = total + _squared(op, params, entered[index], saved[index], flow, mode)
        saved_here, saved[index] = saved[index], None
        flow = _input_gradient(op, params, saved_here, flow, mode) if index > first else None
    return total.sqrt()


def _forward(op: Op, params: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
    """Return the output, and what is kept: of a convolution its patches, for all three uses."""
    if type(op) is not Conv:
        return op.forward(params, x, mode)
    patches = op._patches(x)
    matrix = op._matrix(params[op.key("weight")])
    y = torch.baddbmm(params[op.key("bias")].unsqueeze(1), patches, matrix.mT)
    return y.view(*x.shape[:2], -1, op.outputs), (patches, matrix)


def _input_gradient(op: Op, params: Params, saved: Any, d: Tensor, mode: Mode) -> Tensor | None:
    """Return the gradient of the op's input, and no other, where that is less."""
    if type(op) is Linear:
        return torch.bmm(d.flatten(2), params[op.key("weight")]).unsqueeze(2)
    if type(op) is Conv:
        _, matrix = saved
        return op._unpatch(torch.bmm(d.reshape(d.shape[0], -1, op.outputs), matrix), d.shape[1])
    dx, _ = op.backward(params, saved, d, mode, need_dx=True)
    return dx


def _squared(op: Op, params: Params, x: Tensor, saved: Any, d: Tensor, mode: Mode) -> Tensor:
    """Return the squared norm of each example's gradient of one op's parameters, ``[G, B]``."""
    if type(op) is Linear:
        return linear_square_norms(x.flatten(2), d.flatten(2))
    if type(op) is Conv:
        patches, _ = saved
        return sequence_square_norms(patches.view(*x.shape[:2], -1, patches.shape[-1]), d)
    return _folded(op, params, x, d, mode)


def _folded(op: Op, params: Params, x: Tensor, d: Tensor, mode: Mode) -> Tensor:
    """Return the same for any op, with each example as a model of its own."""
    G, B = x.shape[:2]
    own = {op.key(p.suffix): params[op.key(p.suffix)].repeat_interleave(B, 0) for p in op.params()}
    _, saved = op.forward(own, x.reshape(G * B, 1, *x.shape[2:]), mode)
    apart = d.reshape(G * B, 1, *d.shape[2:])
    _, grads = op.backward(own, saved, apart, mode, need_dx=False)
    squares = [g.float().flatten(1).square().sum(1) for g in grads.values()]
    return torch.stack(squares).sum(0).view(G, B)
