"""Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467), without a bias."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures.mode import wide
from zoo.architectures.norms.base import EPS, NORMS, Norm
from zoo.architectures.op import Mode, Param, Params

__all__ = ["ChannelRMSNorm", "RMSNorm"]

_DIMS = (2, 3)


@NORMS.register(
    "rms",
    doc="x over its root mean square over channels and positions; no bias",
    source="Zhang and Sennrich 2019, arXiv 1910.07467",
)
class RMSNorm(Norm):
    """y = w · x / √(mean(x²) + ε), the mean over one example's positions and channels."""

    def params(self) -> tuple[Param, ...]:
        """Return the weight ``[C]``."""
        return (Param("weight", (self.shape.channels,), "norm_weight"),)

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Divide by the root mean square, then scale each channel."""
        x = wide(x)
        rstd = torch.rsqrt(x.square().mean(_DIMS, keepdim=True) + EPS)
        xhat = x * rstd
        return xhat * p[self.key("weight")][:, None, None], (xhat, rstd)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return dx = rstd · (d − x̂ · mean(d · x̂)) with d = w · dy, and dw."""
        xhat, rstd = saved
        dy = wide(dy)
        grads = {self.key("weight"): (dy * xhat).sum((1, 2))}
        d = dy * p[self.key("weight")][:, None, None]
        dx = (d - xhat * (d * xhat).mean(_DIMS, keepdim=True)) * rstd
        return dx, grads

    def module(self) -> nn.Module:
        """Return an ``nn.RMSNorm`` for vectors, a :class:`ChannelRMSNorm` for images."""
        if not self.shape.spatial:
            return nn.RMSNorm(self.shape.channels, eps=EPS)
        return ChannelRMSNorm(self.shape.channels)


class ChannelRMSNorm(nn.Module):
    """RMS norm of ``[B, C, ...]`` over channels and positions, with per-channel weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised input."""
        dims = tuple(range(1, x.dim()))
        rstd = torch.rsqrt(x.square().mean(dims, keepdim=True) + EPS)
        return x * rstd * self.weight.view(-1, *(1,) * (x.dim() - 2))
