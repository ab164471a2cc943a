"""Directional derivatives of the stacked forward and backward passes, one rule an op.

Pearlmutter 1994, "Fast exact multiplication by the Hessian": the derivative of the gradient along a
direction v is a second forward and backward pass, linear in v. What does not depend on v (inputs,
slopes, logit gradients) is computed once and kept. Two things are saved against differentiating
twice: the first layer's input has no derivative, so that four of its six matrix products fall away,
and no graph is walked.

Each rule gets what :meth:`Op.forward` kept and, after :func:`Rule.prepare`, the gradient d of the
op's output. An op without a rule of its own is differentiated by ``torch.func.jvp``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.activations import Activation
from zoo.architectures.conv import Conv
from zoo.architectures.dropout import Dropout
from zoo.architectures.linear import Linear
from zoo.architectures.norms.base import standardize_backward
from zoo.architectures.norms.batch import BatchNorm
from zoo.architectures.norms.group import GroupNorm
from zoo.architectures.norms.none import NoNorm
from zoo.architectures.norms.rms import RMSNorm
from zoo.architectures.op import Mode, Op, Params
from zoo.architectures.pool import GlobalAveragePool

__all__ = ["Rule", "generic_rule", "rule_for"]

#: Derivative of a tensor along the direction; None where it is zero.
Tangent = Tensor | None


class Rule(ABC):
    """The derivative of one op at fixed parameters and inputs.

    Args:
        op: the op.
        p: the parameters ``[G, *shape]``.
        x: the op's input ``[G, B, T, C]``.
        saved: what its forward pass kept.
        mode: of the pass.
    """

    def __init__(self, op: Op, p: Params, x: Tensor, saved: Any, mode: Mode) -> None:
        self.op, self.p, self.x, self.saved, self.mode = op, p, x, saved, mode
        self.d: Tensor = torch.empty(0)

    def prepare(self, d: Tensor) -> None:
        """Take the gradient of the op's output ``[G, B, T', C']``."""
        self.d = d

    @abstractmethod
    def forward(self, v: Params, dx: Tangent) -> Tangent:
        """Return the derivative of the output, given those of parameters and input."""

    @abstractmethod
    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        """Return the derivatives of the input's gradient and of the parameters' gradients.

        Args:
            v: the direction.
            dd: derivative of the gradient of the output.
            need_dx: whether the input's is wanted.
        """


class _Bilinear(Rule):
    """Linear layers and convolutions: each product is differentiated factor by factor."""

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        y, _ = self.op.forward(v, self.x, self.mode)
        self.dx_saved = None
        if dx is not None:
            own = {self.op.key("weight"): self.p[self.op.key("weight")]}
            own[self.op.key("bias")] = torch.zeros_like(self.p[self.op.key("bias")])
            more, _ = self.op.forward(own, dx, self.mode)
            y = y + more
            # the same pass with the direction as weights: only what it keeps is wanted
            self.dx_saved = self._kept(v, dx)
        return y

    def _kept(self, v: Params, dx: Tensor) -> Any:
        images, filters = self.saved
        G, B = dx.shape[:2]
        op: Any = self.op
        moved = dx.view(G, B, *op.inputs.spatial, op.inputs.channels).movedim(-1, 2)
        moved = moved.transpose(0, 1).reshape(images.shape)
        weight = v[op.key("weight")]
        return moved, weight.reshape(filters.shape)

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        out, grads = self.op.backward(self.p, self.saved, dd, self.mode, need_dx=need_dx)
        key = self.op.key("weight")
        if self.dx_saved is not None:
            more, extra = self.op.backward(v, self.dx_saved, self.d, self.mode, need_dx=need_dx)
            grads[key] = grads[key] + extra[key]
            if out is not None and more is not None:
                out = out + more
        elif need_dx:
            more, _ = self.op.backward(v, self._kept(v, self.x), self.d, self.mode, need_dx=True)
            out = more if out is None or more is None else out + more
        return out, grads


class _Linear(Rule):
    """y = x Wᵀ + b, in fused multiply-adds."""

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        op = self.op
        self.rows = self.saved[0]
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


class _Activation(Rule):
    """f: the slope is kept, and the curvature times the gradient where f bends."""

    def __init__(self, op: Op, p: Params, x: Tensor, saved: Any, mode: Mode) -> None:
        super().__init__(op, p, x, saved, mode)
        kind = self.op.kind  # type: ignore[attr-defined]
        self.bend: Tangent = None
        with torch.enable_grad():
            at = saved[0].detach().requires_grad_()
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


class _BatchNorm(Rule):
    """Eval mode: an affine map, so the statistics have no derivative."""

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        op, (xhat, rstd) = self.op, self.saved
        self.dxhat = None if dx is None else dx * rstd
        y: Tensor = xhat * _channels(v[op.key("weight")]) + _channels(v[op.key("bias")])
        if self.dxhat is not None:
            y.addcmul_(self.dxhat, _channels(self.p[op.key("weight")]))
        return y

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        op, (xhat, rstd) = self.op, self.saved
        weight = (dd * xhat).sum((1, 2))
        if self.dxhat is not None:
            weight = weight + (self.d * self.dxhat).sum((1, 2))
        grads = {op.key("weight"): weight, op.key("bias"): dd.sum((1, 2))}
        out = dd * _channels(self.p[op.key("weight")])
        out.addcmul_(self.d, _channels(v[op.key("weight")]))
        return out * rstd, grads


class _Standardized(Rule):
    """Group, layer, instance and RMS norm: x̂ = (x − μ)·r over ``dims``, then the affine map.

    The Jacobian J of x̂ is symmetric, so x̂' = J x'; with r' = −r · mean(x̂·x̂')·… the derivative of
    the backward pass follows from the product rule.
    """

    def __init__(self, op: Op, p: Params, x: Tensor, saved: Any, mode: Mode) -> None:
        super().__init__(op, p, x, saved, mode)
        self.centred = not isinstance(op, RMSNorm)
        shape = x.shape
        if isinstance(op, GroupNorm):
            self.split: tuple[int, ...] = (*shape[:3], op.groups, shape[3] // op.groups)
            self.dims: tuple[int, ...] = (2, 4)
        else:
            self.split, self.dims = tuple(shape), (2, 3)
        self.xhat = saved[0].reshape(self.split)
        self.rstd = saved[1]
        self.weight = _channels(p[op.key("weight")])

    def _jacobian(self, t: Tensor) -> Tensor:
        if self.centred:
            return standardize_backward(t, self.xhat, self.rstd, self.dims)
        out: Tensor = (t - self.xhat * self._mean(t * self.xhat)) * self.rstd
        return out

    def _mean(self, t: Tensor) -> Tensor:
        return t.mean(self.dims, keepdim=True)

    def prepare(self, d: Tensor) -> None:
        super().prepare(d.float())
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


class _Pool(Rule):
    """A linear map without parameters."""

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        return None if dx is None else self.op.forward(v, dx, self.mode)[0]

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        return self.op.backward(v, None, dd, self.mode, need_dx=True)


class _Identity(Rule):
    def forward(self, v: Params, dx: Tangent) -> Tangent:
        return dx

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        return dd, {}


class _Generic(Rule):
    """Any op, by forward-mode differentiation of its own two passes: slow, short, and right."""

    def _own(self, p: Params) -> dict[str, Tensor]:
        keys = [self.op.key(param.suffix) for param in self.op.params()]
        return {key: p[key] for key in keys}

    def forward(self, v: Params, dx: Tangent) -> Tangent:
        self.dx = torch.zeros_like(self.x) if dx is None else dx

        def run(p: dict[str, Tensor], x: Tensor) -> Tensor:
            return self.op.forward(p, x, self.mode)[0]

        point = (self._own(self.p), self.x)
        along = (self._own(v), self.dx)
        out: Tensor = torch.func.jvp(run, point, along)[1]
        return out

    def backward(
        self, v: Params, dd: Tensor, *, need_dx: bool
    ) -> tuple[Tangent, dict[str, Tensor]]:
        def run(p: dict[str, Tensor], x: Tensor, d: Tensor) -> Any:
            saved = self.op.forward(p, x, self.mode)[1]
            return self.op.backward(p, saved, d, self.mode, need_dx=need_dx)

        point = (self._own(self.p), self.x, self.d)
        along = (self._own(v), self.dx, dd)
        out: tuple[Tangent, dict[str, Tensor]] = torch.func.jvp(run, point, along)[1]
        return out


def _channels(value: Tensor) -> Tensor:
    """Return ``[G, C]`` as ``[G, 1, 1, C]``."""
    return value[:, None, None]


_RULES: dict[type[Op], Callable[..., Rule]] = {
    Linear: _Linear,
    Conv: _Bilinear,
    Activation: _Activation,
    BatchNorm: _BatchNorm,
    GroupNorm: _Standardized,
    RMSNorm: _Standardized,
    NoNorm: _Identity,
    Dropout: _Identity,
    GlobalAveragePool: _Pool,
}


def rule_for(op: Op, p: Params, x: Tensor, saved: Any, mode: Mode) -> Rule:
    """Return the rule of an op; see :class:`Rule`."""
    for kind in type(op).__mro__:
        if kind in _RULES:
            return _RULES[kind](op, p, x, saved, mode)
    return _Generic(op, p, x, saved, mode)


def generic_rule(op: Op, p: Params, x: Tensor, saved: Any, mode: Mode) -> Rule:
    """Return the rule that needs nothing but the op's own passes."""
    return _Generic(op, p, x, saved, mode)
