"""Directional derivatives of the stacked forward and backward passes, one rule per op.

Pearlmutter 1994, "Fast exact multiplication by the Hessian": the derivative of the gradient along a
direction v is a second forward and backward pass, linear in v. What does not depend on v (inputs,
slopes, logit gradients) is computed once and kept. Two things are saved against differentiating
twice: the first layer's input has no derivative, so that four of its six matrix products fall away,
and no graph is walked.

A rule relies on an op's formula, not on what its forward pass keeps. An op without a rule of its
own has the generic one (:mod:`zoo.architectures.rule`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.architectures.activations import Activation
from zoo.architectures.conv import Conv
from zoo.architectures.dropout import Dropout
from zoo.architectures.linear import Linear
from zoo.architectures.mode import wide
from zoo.architectures.norms.base import EPS, standardize, standardize_backward
from zoo.architectures.norms.batch import BatchNorm
from zoo.architectures.norms.group import GroupNorm, InstanceNorm, LayerNorm
from zoo.architectures.norms.none import NoNorm
from zoo.architectures.norms.rms import RMSNorm
from zoo.architectures.op import Mode, Op, Params, Unary, Values
from zoo.architectures.pool import GlobalAveragePool
from zoo.architectures.rule import GenericRule, Tangent, TangentRule, UnaryRule

__all__ = ["rule_for"]


class _Conv(UnaryRule):
    """A convolution is bilinear: the derivative takes its factors in turn.

    All models in one grouped convolution, on images ``[B, G · channels, ...]``.
    """

    op: Conv

    def __init__(self, op: Op, p: Params, xs: Values, mode: Mode) -> None:
        super().__init__(op, p, xs, mode)
        self.filters = p[op.key("weight")].flatten(0, 1)
        self.images = self._images(self.x)

    def _images(self, x: Tensor) -> Tensor:
        G, B, _, C = x.shape
        grid = x.reshape(G, B, *self.op.inputs.spatial, C).movedim(-1, 2).transpose(0, 1)
        return grid.reshape(B, G * C, *self.op.inputs.spatial)

    def _convolve(self, images: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
        convolve: Any = torch.conv1d if self.op.axes == 1 else torch.conv2d
        op = self.op
        out: Tensor = convolve(images, filters, bias, op.stride, op.padding, 1, self.x.shape[0])
        return out

    def _adjoint(
        self, d: Tensor, images: Tensor, filters: Tensor, *, need_dx: bool
    ) -> tuple[Tensor, Tensor]:
        ones = [1] * self.op.axes
        dx, dw, _ = torch.ops.aten.convolution_backward(
            d, images, filters, None, list(self.op.stride), list(self.op.padding), ones,
            False, [0] * self.op.axes, self.x.shape[0], [need_dx, True, False],  # noqa: FBT003
        )  # fmt: skip
        return dx, dw

    def _rows(self, d: Tensor) -> Tensor:
        """Return ``[G, B, T', out]`` as images."""
        G, B = d.shape[:2]
        return d.permute(1, 0, 3, 2).reshape(B, G * self.op.outputs, *self.op.out_shape().spatial)

    def prepare(self, d: Tensor) -> None:
        super().prepare(self._rows(d))

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        G, B = self.x.shape[:2]
        self.along = v[self.op.key("weight")].flatten(0, 1)
        bias = v[self.op.key("bias")].reshape(-1) if self.op.bias else None
        y = self._convolve(self.images, self.along, bias)
        self.moved = None if dx is None else self._images(dx)
        if self.moved is not None:
            y += self._convolve(self.moved, self.filters, None)
        return y.view(B, G, self.op.outputs, -1).permute(1, 0, 3, 2)

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        G, B, _, C = self.x.shape
        out, weight = self._adjoint(self._rows(dd), self.images, self.filters, need_dx=need_dx)
        if self.moved is not None:
            more, extra = self._adjoint(self.d, self.moved, self.along, need_dx=need_dx)
            weight = weight + extra
            if need_dx:
                out = out + more
        shape = (G, self.op.outputs, *self.filters.shape[1:])
        grads = {self.op.key("weight"): weight.view(shape)}
        if self.op.bias:
            grads[self.op.key("bias")] = dd.sum((1, 2))
        if not need_dx:
            return None, grads
        return out.view(B, G, C, -1).permute(1, 0, 3, 2), grads


class _Linear(UnaryRule):
    """y = x Wᵀ + b, in fused multiply-adds."""

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        op = self.op
        self.rows = self.x.flatten(2)
        y = torch.baddbmm(v[op.key("bias")].unsqueeze(1), self.rows, v[op.key("weight")].mT)
        self.dx = None
        if dx is not None:
            self.dx = dx.flatten(2)
            y.baddbmm_(self.dx, self.p[op.key("weight")].mT)
        return y.unsqueeze(2)

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        op = self.op
        d, dd = self.d.flatten(2), dd.flatten(2)
        weight = torch.bmm(dd.mT, self.rows)
        if self.dx is not None:
            weight.baddbmm_(d.mT, self.dx)
        grads = {op.key("weight"): weight, op.key("bias"): dd.sum(1)}
        if not need_dx:
            return None, grads
        out = torch.bmm(dd, self.p[op.key("weight")])
        out.baddbmm_(d, v[op.key("weight")])
        return out.view(self.x.shape), grads


class _Activation(UnaryRule):
    """f: the slope is kept, and the curvature times the gradient where f bends."""

    op: Activation

    def __init__(self, op: Op, p: Params, xs: Values, mode: Mode) -> None:
        super().__init__(op, p, xs, mode)
        x = self.x
        kind = self.op.kind
        self.bend: Tangent = None
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            slope = kind.slope(at, kind.value(at))
            if slope.requires_grad:
                (self.bend,) = torch.autograd.grad(slope.sum(), at)
        self.slope = slope.detach()

    def prepare(self, d: Tensor) -> None:
        super().prepare(d)
        if self.bend is not None:
            self.bend = self.bend * d

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        self.dx = dx
        return None if dx is None else dx * self.slope

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        out = dd * self.slope
        if self.bend is not None and self.dx is not None:
            out.addcmul_(self.bend, self.dx)
        return out, {}


class _BatchNorm(UnaryRule):
    """Eval mode: an affine map, so the statistics have no derivative."""

    def __init__(self, op: Op, p: Params, xs: Values, mode: Mode) -> None:
        super().__init__(op, p, xs, mode)
        x = self.x
        self.rstd = _channels(torch.rsqrt(p[op.key("running_var")] + EPS))
        self.xhat = (x - _channels(p[op.key("running_mean")])) * self.rstd

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        op, xhat, rstd = self.op, self.xhat, self.rstd
        self.dxhat = None if dx is None else dx * rstd
        y: Tensor = xhat * _channels(v[op.key("weight")]) + _channels(v[op.key("bias")])
        if self.dxhat is not None:
            y.addcmul_(self.dxhat, _channels(self.p[op.key("weight")]))
        return y

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        op, xhat, rstd = self.op, self.xhat, self.rstd
        weight = (dd * xhat).sum((1, 2))
        if self.dxhat is not None:
            weight = weight + (self.d * self.dxhat).sum((1, 2))
        grads = {op.key("weight"): weight, op.key("bias"): dd.sum((1, 2))}
        out = dd * _channels(self.p[op.key("weight")])
        out.addcmul_(self.d, _channels(v[op.key("weight")]))
        return out * rstd, grads


class _Standardized(UnaryRule):
    """Group, layer, instance and RMS norm: x̂ = (x − μ)·r over ``dims``, then the affine map.

    The Jacobian J of x̂ is symmetric, so x̂' = J x' and the gradient of x is J(w·d); r' = −r² mean(x̂
    x'). The derivative of J(w·d) follows from the product rule.
    """

    def __init__(self, op: Op, p: Params, xs: Values, mode: Mode) -> None:
        super().__init__(op, p, xs, mode)
        x = self.x
        self.centred = isinstance(op, GroupNorm)
        if isinstance(op, GroupNorm):
            self.split: tuple[int, ...] = (*x.shape[:3], op.groups, x.shape[3] // op.groups)
            self.dims: tuple[int, ...] = (2, 4)
            self.xhat, self.rstd, _, _ = standardize(x.reshape(self.split), self.dims)
        else:
            self.split, self.dims = tuple(x.shape), (2, 3)
            self.rstd = torch.rsqrt(self._mean(x.square()) + EPS)
            self.xhat = x * self.rstd
        self.weight = _channels(p[op.key("weight")])

    def _jacobian(self, t: Tensor) -> Tensor:
        if self.centred:
            return standardize_backward(t, self.xhat, self.rstd, self.dims)
        out: Tensor = (t - self.xhat * self._mean(t * self.xhat)) * self.rstd
        return out

    def _mean(self, t: Tensor) -> Tensor:
        return t.mean(self.dims, keepdim=True)

    def prepare(self, d: Tensor) -> None:
        super().prepare(wide(d))
        self.scaled = (self.d * self.weight).reshape(self.split)
        self.inner = self._jacobian(self.scaled)
        self.overlap = self._mean(self.scaled * self.xhat)

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        y: Tensor = self.xhat.reshape(self.x.shape) * _channels(v[self.op.key("weight")])
        if self._bias():
            y = y + _channels(v[self.op.key("bias")])
        self.dxhat: Tangent = None
        if dx is not None:
            t = dx.reshape(self.split)
            self.shrink = -self.rstd * self._mean(self.xhat * t)
            self.dxhat = self._jacobian(t)
            y = y + self.dxhat.reshape(self.x.shape) * self.weight
        return y

    def _bias(self) -> bool:
        return any(param.suffix == "bias" for param in self.op.params())

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        key = self.op.key("weight")
        grads = {key: (dd * self.xhat.reshape(dd.shape)).sum((1, 2))}
        if self._bias():
            grads[self.op.key("bias")] = dd.sum((1, 2))
        # d' of what enters the standardisation, w·d
        t = (dd * self.weight + self.d * _channels(v[key])).reshape(self.split)
        out = self._jacobian(t)
        if self.dxhat is not None:
            grads[key] = grads[key] + (self.d * self.dxhat.reshape(dd.shape)).sum((1, 2))
            out = out + self.inner * self.shrink
            out = out - self.rstd * (
                self.dxhat * self.overlap + self.xhat * self._mean(self.scaled * self.dxhat)
            )
        return out.reshape(self.x.shape), grads


class _Pool(UnaryRule):
    """A linear map without parameters."""

    op: Unary

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        return None if dx is None else self.op.forward(v, dx, self.mode)[0]

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        return self.op.backward(v, None, dd, self.mode, need_dx=True)


class _Identity(UnaryRule):
    def forward(self, v: Params, dx: Tangent) -> Tangent:
        return dx

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        return dd, {}


def _channels(value: Tensor) -> Tensor:
    """Return ``[G, C]`` as ``[G, 1, 1, C]``."""
    return value[:, None, None]


#: By exact type: a subclass may compute something else.
_RULES: dict[type[Op], type[TangentRule]] = {
    Linear: _Linear,
    Conv: _Conv,
    Activation: _Activation,
    BatchNorm: _BatchNorm,
    GroupNorm: _Standardized,
    LayerNorm: _Standardized,
    InstanceNorm: _Standardized,
    RMSNorm: _Standardized,
    NoNorm: _Identity,
    Dropout: _Identity,
    GlobalAveragePool: _Pool,
}


def rule_for(op: Op, p: Params, xs: Values, mode: Mode) -> TangentRule:
    """Return the rule of an op; see :class:`TangentRule`."""
    return _RULES.get(type(op), GenericRule)(op, p, xs, mode)
