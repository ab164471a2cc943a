"""Ops on sequences of positions: a linear map at each one, embeddings, and self-attention."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures.example_gradients import ExampleGradients, Outer
from zoo.architectures.mode import wide_type
from zoo.architectures.op import Mode, Op, Param, Params, Shape, Unary, Values
from zoo.architectures.units import Units

__all__ = ["Attention", "Embedding", "PositionEmbedding", "PositionLinear"]


class PositionLinear(Unary):
    """y_t = W x_t + b at every position t, with W ``[out, in]`` and b ``[out]``.

    Args:
        path: place in the module tree.
        inputs: shape of one input example.
        outputs: output channels.
        bias: ``"with"`` one or ``"without"``.
    """

    channels_last = True

    def __init__(self, path: str, inputs: Shape, outputs: int, *, bias: str = "with") -> None:
        super().__init__(path)
        self.inputs = inputs
        self.outputs = outputs
        self.bias = bias == "with"

    def params(self) -> tuple[Param, ...]:
        """Return weight and bias."""
        inputs = self.inputs.channels
        weight = Param("weight", (self.outputs, inputs), "kernel", inputs)
        return (weight, Param("bias", (self.outputs,), "bias", inputs))[: 1 + self.bias]

    def units(self) -> tuple[Units, ...]:
        """Return columns with the input, rows with the output."""
        rows = tuple((param.suffix, 0) for param in self.params())
        return (
            Units((("weight", 1),), inputs=(0,), divided=(("weight", 1),)),
            Units(rows, output=True, multiplied=rows),
        )

    def out_shape(self) -> Shape:
        """Return the same positions with other channels."""
        return Shape(self.inputs.spatial, self.outputs)

    def flops(self) -> int:
        """Return 2·in·out a position, and one an output for the bias."""
        return self.inputs.positions * self.outputs * (2 * self.inputs.channels + self.bias)

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return ``[G, B, T, out]``; x is ``[G, B, T, in]``."""
        rows = x.flatten(1, 2).to(mode.dtype)
        weight = p[self.key("weight")].to(mode.dtype)
        if self.bias:
            bias = p[self.key("bias")].to(mode.dtype).unsqueeze(1)
            y = torch.baddbmm(bias, rows, weight.mT)
        else:
            y = torch.bmm(rows, weight.mT)
        return y.view(*x.shape[:3], self.outputs), rows

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return dx = dy W, dW = Σ_t dy_tᵀ x_t, db = Σ_t dy_t."""
        d = dy.flatten(1, 2).to(mode.dtype)
        grads = {self.key("weight"): torch.bmm(d.mT, saved)}
        if self.bias:
            grads[self.key("bias")] = d.sum(1, dtype=wide_type(d.dtype))
        if not need_dx:
            return None, grads
        dx = torch.bmm(d, p[self.key("weight")].to(mode.dtype))
        return dx.view(*dy.shape[:3], self.inputs.channels), grads

    def example_gradients(
        self, p: Params, xs: Values, saved: Any, dy: Tensor, mode: Mode
    ) -> ExampleGradients:
        """Return the inputs and the gradients of the outputs."""
        if not self.bias:
            return self.written_gradients(p, xs, dy, mode)
        return Outer(xs[0], dy)

    def module(self) -> nn.Module:
        """Return an ``nn.Linear``, which takes channels last."""
        return nn.Linear(self.inputs.channels, self.outputs, bias=self.bias)

    def describe(self) -> dict[str, Any]:
        """Return path and sizes."""
        sizes = {"inputs": self.inputs.channels, "outputs": self.outputs}
        return {**super().describe(), **sizes, **({} if self.bias else {"bias": False})}


class Embedding(Op):
    """y_t = W[x_t] of tokens x_t, integers in ``[G, B, T, 1]``, with W ``[tokens, C]``.

    Args:
        path: place in the module tree.
        spatial: positions.
        tokens: how many there are.
        channels: C.
    """

    channels_last = True

    def __init__(self, path: str, spatial: tuple[int, ...], tokens: int, channels: int) -> None:
        super().__init__(path)
        self.tokens = tokens
        self.shape = Shape(spatial, channels)

    def params(self) -> tuple[Param, ...]:
        """Return the table; each of its values meets one token."""
        return (Param("weight", (self.tokens, self.shape.channels), "kernel", 1),)

    def units(self) -> tuple[Units, ...]:
        """Return the columns with the output."""
        columns = (("weight", 1),)
        return (Units(columns, output=True, multiplied=columns),)

    def out_shape(self) -> Shape:
        """Return the positions with C channels."""
        return self.shape

    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return the rows of the tokens."""
        table = p[self.key("weight")].to(mode.dtype)
        ids = xs[0].to(torch.int64).flatten(1)
        rows = table.gather(1, ids.unsqueeze(-1).expand(*ids.shape, self.shape.channels))
        return rows.view(*xs[0].shape[:2], self.shape.positions, self.shape.channels)

    def module(self) -> nn.Module:
        """Return an ``nn.Embedding`` that drops the axis of one channel."""
        return _Table(self.tokens, self.shape.channels)

    def describe(self) -> dict[str, Any]:
        """Return path and sizes."""
        return {**super().describe(), "tokens": self.tokens, "channels": self.shape.channels}


class _Table(nn.Embedding):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return the rows of tokens ``[B, T]`` or ``[B, T, 1]``."""
        ids = input.squeeze(-1) if input.ndim > 2 else input
        return super().forward(ids)


class PositionEmbedding(Op):
    """y_t = x_t + W[t], with W ``[T, C]``.

    Args:
        path: place in the module tree.
        shape: of one example.
    """

    channels_last = True

    def __init__(self, path: str, shape: Shape) -> None:
        super().__init__(path)
        self.shape = shape

    def params(self) -> tuple[Param, ...]:
        """Return the table."""
        return (Param("weight", (self.shape.positions, self.shape.channels), "kernel", 1),)

    def units(self) -> tuple[Units, ...]:
        """Return the channels; a factor would have to be on both summands."""
        return (Units((("weight", 1),), inputs=(0,), output=True),)

    def out_shape(self) -> Shape:
        """Return the input's shape."""
        return self.shape

    def flops(self) -> int:
        """Return one an element."""
        return self.shape.positions * self.shape.channels

    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return the sum."""
        return xs[0].to(mode.dtype) + p[self.key("weight")].to(mode.dtype).unsqueeze(1)

    def module(self) -> nn.Module:
        """Return a module with the table."""
        return _Places(self.shape.positions, self.shape.channels)


class _Places(nn.Module):
    def __init__(self, positions: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(positions, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the table added; x is ``[B, T, C]``."""
        return x + self.weight


class Attention(Op):
    """Self-attention of several heads (Vaswani et al. 2017, arXiv 1706.03762).

    q, k, v = W x + b each; a head has d = C/heads channels; y = W_o · concat(softmax(q kᵀ/√d) v).

    Args:
        path: place in the module tree.
        shape: of one example, T positions.
        heads: a divisor of C.
        causal: ``"no"``, or ``"yes"``: a position sees itself and those before it.
    """

    channels_last = True

    def __init__(self, path: str, shape: Shape, heads: int, *, causal: str = "no") -> None:
        super().__init__(path)
        if shape.channels % heads:
            msg = f"{path}: {shape.channels} channels are no multiple of {heads} heads"
            raise ValueError(msg)
        self.shape = shape
        self.heads = heads
        self.causal = causal == "yes"

    def params(self) -> tuple[Param, ...]:
        """Return weight and bias of query, key, value and output."""
        C = self.shape.channels
        return tuple(
            param
            for name in ("query", "key", "value", "output")
            for param in (
                Param(f"{name}.weight", (C, C), "kernel", C),
                Param(f"{name}.bias", (C,), "bias", C),
            )
        )

    def units(self) -> tuple[Units, ...]:
        """Return the stream, and the channels of heads, which move within a head alike.

        Of query and key, and of value and output, the channels of a head may move apart from each
        other; that they move together is the part of it that is one permutation.
        """
        read = tuple((f"{name}.weight", 1) for name in ("query", "key", "value"))
        made = (("output.weight", 0), ("output.bias", 0))
        inner = tuple(
            (f"{name}.{part}", 0) for name in ("query", "key", "value") for part in _PARTS
        )
        return (
            Units(read, inputs=(0,), divided=read),
            Units((*inner, ("output.weight", 1)), name="heads", blocks=self.heads),
            Units(made, output=True, multiplied=made),
        )

    def out_shape(self) -> Shape:
        """Return the input's shape."""
        return self.shape

    def flops(self) -> int:
        """Return four products with a weight, and two of T × T."""
        T, C = self.shape.positions, self.shape.channels
        return T * C * (8 * C + 4) + 4 * T * T * C

    def value(self, p: Params, xs: Values, mode: Mode) -> Tensor:
        """Return ``[G, B, T, C]``; the softmax is in float32."""
        x = xs[0].to(mode.dtype)
        q, k, v = (self._heads(self._linear(p, name, x, mode)) for name in _READ)
        score = torch.matmul(q, k.mT) * (1 / math.sqrt(q.shape[-1]))
        if self.causal:
            T = self.shape.positions
            later = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
            score = score.masked_fill(later, -math.inf)
        share = torch.softmax(score.to(wide_type(score.dtype)), -1).to(mode.dtype)
        y = torch.matmul(share, v).transpose(2, 3).flatten(3)
        return self._linear(p, "output", y, mode)

    def _linear(self, p: Params, name: str, x: Tensor, mode: Mode) -> Tensor:
        weight = p[self.key(f"{name}.weight")].to(mode.dtype)
        bias = p[self.key(f"{name}.bias")].to(mode.dtype).unsqueeze(1)
        rows = x.flatten(1, 2)
        return torch.baddbmm(bias, rows, weight.mT).view(x.shape)

    def _heads(self, x: Tensor) -> Tensor:
        """Return ``[G, B, heads, T, d]``."""
        return x.reshape(*x.shape[:3], self.heads, -1).transpose(2, 3)

    def module(self) -> nn.Module:
        """Return a module of linear layers on ``[B, T, C]``."""
        return _SelfAttention(self.shape.channels, self.heads, causal=self.causal)

    def describe(self) -> dict[str, Any]:
        """Return path, sizes and the mask."""
        sizes = {"channels": self.shape.channels, "heads": self.heads, "causal": self.causal}
        return {**super().describe(), **sizes}


_READ = ("query", "key", "value")
_PARTS = ("weight", "bias")


class _SelfAttention(nn.Module):
    def __init__(self, channels: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        for name in (*_READ, "output"):
            self.add_module(name, nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention of ``[B, T, C]``."""
        layers = dict(self.named_children())
        q, k, v = (layers[n](x).unflatten(2, (self.heads, -1)).transpose(1, 2) for n in _READ)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = layers["output"](y.transpose(1, 2).flatten(2))
        return out
