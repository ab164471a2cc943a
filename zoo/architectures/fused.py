"""A norm and the activation behind it as one op, for devices that run it as one kernel.

What it computes is what the two ops compute one after the other, up to rounding; parameters, names
and layout stay those of the norm. Networks use it where :func:`zoo.kernels.language.on_device`
says so, and their own ops elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures.activations import Activation
from zoo.architectures.graph import EXAMPLE, Node
from zoo.architectures.norms.base import EPS, Norm
from zoo.architectures.norms.batch import MOMENTUM, BatchNorm
from zoo.architectures.norms.evonorm_s0 import EvoNormS0
from zoo.architectures.norms.ghost_batch import GhostBatchNorm
from zoo.architectures.norms.group import GroupNorm, InstanceNorm, LayerNorm
from zoo.architectures.norms.rms import RMSNorm
from zoo.architectures.op import Mode, Param, Params, Shape, Unary
from zoo.kernels.activation import FUSED
from zoo.kernels.batch_norm import BatchNormForm, batch_norm, batch_norm_backward
from zoo.kernels.norm import Affine, NormSpec, norm, norm_backward

__all__ = ["NormActivation", "fused_nodes"]

_KINDS: dict[type[Norm], str] = {
    GroupNorm: "layer",
    LayerNorm: "layer",
    InstanceNorm: "layer",
    RMSNorm: "rms",
    EvoNormS0: "evonorm_s0",
}
_BATCH: tuple[type[Norm], ...] = (BatchNorm, GhostBatchNorm)


def fused_nodes(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes with every norm that has a kernel, and the activation behind it, as one.

    An activation is taken in if it is all that reads the norm.
    """
    readers = Counter(i for node in nodes for i in node.inputs)
    found: list[Node] = []
    place = {EXAMPLE: EXAMPLE}  # of each value among the new nodes
    for index, node in enumerate(nodes):
        op = node.op
        before = found[place[node.inputs[0]]].op if place[node.inputs[0]] >= 0 else None
        if (
            isinstance(op, Activation)
            and op.name in FUSED
            and isinstance(before, NormActivation)
            and before.activation is None
            and readers[node.inputs[0]] == 1
        ):
            at = place[index] = place[node.inputs[0]]
            found[at] = Node(NormActivation(before.norm, op), found[at].inputs)
            continue
        if isinstance(op, Norm) and (type(op) in _KINDS or type(op) in _BATCH):
            op = NormActivation(op, None)
        place[index] = len(found)
        found.append(Node(op, tuple(place[i] for i in node.inputs)))
    return tuple(found)


class NormActivation(Unary):
    """f(norm(x)).

    Args:
        norm: one of the norms that have a kernel.
        activation: f, or None for the identity.
    """

    def __init__(self, norm: Norm, activation: Activation | None) -> None:
        super().__init__(norm.path)
        self.norm = norm
        self.activation = activation
        self.name = "identity" if activation is None else activation.name

    def params(self) -> tuple[Param, ...]:
        """Return those of the norm."""
        return self.norm.params()

    def out_shape(self) -> Shape:
        """Return the input's shape."""
        return self.norm.out_shape()

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return f(norm(x)) and what the kernel keeps, or what the two ops do in eval mode."""
        if isinstance(self.norm, BatchNorm):
            if not mode.training:
                return self._apart(p, x, mode)
            return self._batch_forward(self.norm, p, x, mode)
        y, saved = norm(x, self._affine(p), self._spec())
        return y, (x, saved)

    def _apart(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        y, kept = self.norm.forward(p, x, mode)
        if self.activation is None:
            return y, (kept, None)
        y, turned = self.activation.forward(p, y, mode)
        return y, (kept, turned)

    def _form(self, x: Tensor) -> BatchNormForm:
        return BatchNormForm(self._virtual(x), self.name, EPS)

    def _batch_forward(
        self, own: BatchNorm, p: Params, x: Tensor, mode: Mode
    ) -> tuple[Tensor, Any]:
        mean, var = own.key("running_mean"), own.key("running_var")
        rate = torch.full((x.shape[0],), MOMENTUM, device=x.device)
        weight, bias = p[own.key("weight")], p[own.key("bias")]
        y, new, saved = batch_norm(x, weight, bias, (p[mean], p[var]), rate, self._form(x))
        mode.new_buffers[mean], mode.new_buffers[var] = new
        return y, (x, saved)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the gradients of input and of the norm's parameters."""
        if isinstance(self.norm, BatchNorm):
            return self._batch_backward(self.norm, p, saved, dy, mode, need_dx=need_dx)
        x, stats = saved
        dx, grads = norm_backward(x, self._affine(p), self._spec(), stats, dy)
        return dx, {self.key(name): grad for name, grad in grads.items()}

    def _batch_backward(
        self, own: BatchNorm, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        if not mode.training:
            kept, turned = saved
            d: Tensor | None = dy
            if self.activation is not None:
                d, _ = self.activation.backward(p, turned, dy, mode, need_dx=True)
            return own.backward(p, kept, dy if d is None else d, mode, need_dx=need_dx)
        x, stats = saved
        weight, bias = own.key("weight"), own.key("bias")
        dx, dw, db = batch_norm_backward(x, p[weight], p[bias], stats, dy, self._form(x))
        return dx, {weight: dw, bias: db}

    def module(self) -> nn.Module:
        """Return the two plain modules in a row."""
        parts = [self.norm] if self.activation is None else [self.norm, self.activation]
        return nn.Sequential(*(part.module() for part in parts))

    def _virtual(self, x: Tensor) -> int:
        return self.norm.size if isinstance(self.norm, GhostBatchNorm) else x.shape[1]

    def _spec(self) -> NormSpec:
        groups = self.norm.groups if isinstance(self.norm, GroupNorm) else 1
        return NormSpec(_KINDS[type(self.norm)], groups, self.name, EPS)

    def _affine(self, p: Params) -> Affine:
        return Affine(**{param.suffix: p[self.key(param.suffix)] for param in self.params()})
