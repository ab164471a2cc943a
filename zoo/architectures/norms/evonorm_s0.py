"""EvoNorm-S0 (Liu et al. 2020, arXiv 2004.02967): norm and activation in one.

y = γ · x·σ(v·x) / √(var(x) + ε) + β, the variance over the positions and channels of each group of
an example, with γ, β and v a channel each. It replaces the activation too, so a run with this norm
has ``activation = "identity"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.architectures.mode import wide
from zoo.architectures.norms.base import EPS, NORMS, standardize
from zoo.architectures.norms.group import NORM_GROUPS, GroupNorm
from zoo.architectures.op import Mode, Param, Params
from zoo.fields import Fields, named

__all__ = ["EvoNormS0", "EvoNormS0Module"]

_DIMS = (2, 4)


@NORMS.register(
    "evonorm_s0",
    doc="x · sigmoid(vx) over the deviation of norm_groups groups; replaces the activation",
    source="Liu et al. 2020, arXiv 2004.02967",
)
class EvoNormS0(GroupNorm):
    """A gate x·σ(vx) over the standard deviation of ``norm_groups`` groups."""

    fields: ClassVar[Fields] = named(NORM_GROUPS)
    fixes: ClassVar[Mapping[str, Any]] = {"activation": "identity"}

    def params(self) -> tuple[Param, ...]:
        """Return weight γ, bias β and gate v, all ``[C]``."""
        return (*super().params(), Param("gate", (self.shape.channels,), "norm_weight"))

    def scaled(self) -> tuple[str, ...]:
        """Return γ and β: the gate turns on the input."""
        return ("weight", "bias")

    def flops(self) -> int:
        """Return about fourteen an element: those of a norm, the gate and its exponential."""
        return 14 * self.shape.positions * self.shape.channels

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Gate, divide by each group's standard deviation, scale and shift."""
        x = wide(x)
        xhat, rstd, _, _ = standardize(self._split(x), _DIMS)
        gate = torch.sigmoid(x * p[self.key("gate")][:, None, None])
        # 1/σ is one number per group: it is kept as such and broadcast over the group's channels.
        core = (self._split(x * gate) * rstd).view(x.shape)
        weight = p[self.key("weight")][:, None, None]
        bias = p[self.key("bias")][:, None, None]
        return core * weight + bias, (core, x, gate, xhat, rstd)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the gradients.

        With s = σ(vx), d = γ·dy and y₀ = xs/σ: dx = d/σ · s(1 + vx(1−s)) − x̂/σ · mean(d·y₀) and
        dv = Σ d/σ · x² s(1−s).
        """
        core, x, s, xhat, rstd = saved
        dy = wide(dy)
        d = dy * p[self.key("weight")][:, None, None]
        over = (self._split(d) * rstd).view(x.shape)
        turn = over * x * (s * (1 - s))
        grads = {
            self.key("weight"): (dy * core).sum((1, 2)),
            self.key("bias"): dy.sum((1, 2)),
            self.key("gate"): (turn * x).sum((1, 2)),
        }
        pull = self._split(d * core).mean(_DIMS, keepdim=True)
        through = over * s + turn * p[self.key("gate")][:, None, None]
        return through - (xhat * (rstd * pull)).view(x.shape), grads

    def module(self) -> nn.Module:
        """Return an :class:`EvoNormS0Module`."""
        return EvoNormS0Module(self.groups, self.shape.channels)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:3], self.groups, -1)


class EvoNormS0Module(nn.Module):
    """EvoNorm-S0 of ``[B, C, ...]``."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.gate = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised and activated input."""
        shape = (-1, *(1,) * (x.dim() - 2))
        groups = x.reshape(x.shape[0], self.groups, -1)
        var = groups.var(2, correction=0, keepdim=True)
        gated = x * torch.sigmoid(self.gate.view(shape) * x)
        core = gated.reshape(groups.shape) / torch.sqrt(var + EPS)
        return core.view(x.shape) * self.weight.view(shape) + self.bias.view(shape)
