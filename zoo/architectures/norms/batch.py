"""Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167), each model's statistics apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zoo.architectures.layout import BUFFER
from zoo.architectures.mode import wide
from zoo.architectures.norms.base import EPS, NORMS, Norm, standardize, standardize_backward
from zoo.architectures.op import Mode, Param, Params
from zoo.errors import Problem
from zoo.spec.run import RunSpec

__all__ = ["MOMENTUM", "BatchNorm"]

#: Weight of the newest batch in the running statistics, torch's default.
MOMENTUM = 0.1
_DIMS = (1, 2)


@NORMS.register(
    "batch",
    doc="statistics over examples and positions; running ones in eval mode",
    source="Ioffe and Szegedy 2015, arXiv 1502.03167",
)
class BatchNorm(Norm):
    """Statistics over examples and positions; running mean and unbiased variance are buffers."""

    @classmethod
    def misfit(cls, run: RunSpec) -> Problem | None:
        """Refuse a batch of one, whose statistics are its own values."""
        if run.batch_size > 1:
            return None
        message = "batch norm needs more than one example a batch"
        return Problem("batch_size", 1, message, f">= 2 with norm = {run.norm!r}")

    def params(self) -> tuple[Param, ...]:
        """Return weight, bias, running_mean and running_var, all ``[C]``."""
        shape = (self.shape.channels,)
        return (
            *super().params(),
            Param("running_mean", shape, BUFFER),
            Param("running_var", shape, BUFFER),
        )

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Normalise with the batch's statistics in training, with the running ones otherwise."""
        weight = p[self.key("weight")][:, None, None]
        bias = p[self.key("bias")][:, None, None]
        running_mean = p[self.key("running_mean")]
        running_var = p[self.key("running_var")]
        x = wide(x)
        if not mode.training:
            rstd = torch.rsqrt(running_var + EPS)[:, None, None]
            xhat = (x - running_mean[:, None, None]) * rstd
            return xhat * weight + bias, (xhat, rstd)
        xhat, rstd, mean, var = standardize(x, _DIMS)
        count = x.shape[1] * x.shape[2]
        unbiased = var[:, 0, 0] * (count / max(count - 1, 1))
        mode.new_buffers[self.key("running_mean")] = (
            1 - MOMENTUM
        ) * running_mean + MOMENTUM * mean[:, 0, 0]
        mode.new_buffers[self.key("running_var")] = (
            1 - MOMENTUM
        ) * running_var + MOMENTUM * unbiased
        return xhat * weight + bias, (xhat, rstd)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the gradients; in eval mode the statistics are constants."""
        xhat, rstd = saved
        dy = wide(dy)
        grads = {
            self.key("weight"): (dy * xhat).sum(_DIMS),
            self.key("bias"): dy.sum(_DIMS),
        }
        d = dy * p[self.key("weight")][:, None, None]
        dx = standardize_backward(d, xhat, rstd, _DIMS) if mode.training else d * rstd
        return dx, grads

    def module(self) -> nn.Module:
        """Return an ``nn.BatchNorm1d``/``2d``."""
        kind = nn.BatchNorm2d if len(self.shape.spatial) == 2 else nn.BatchNorm1d
        return kind(self.shape.channels, eps=EPS, momentum=MOMENTUM)
