"""Ghost batch normalisation (Hoffer et al. 2017, arXiv 1705.08741).

A batch of B is cut into B/V virtual batches of V successive examples, each normalised with its own
statistics. The running statistics take in one virtual batch after another.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.architectures.mode import wide
from zoo.architectures.norms.base import EPS, NORMS, standardize, standardize_backward
from zoo.architectures.norms.batch import MOMENTUM, BatchNorm
from zoo.architectures.op import Mode, Params
from zoo.errors import Problem
from zoo.fields import Field, Fields, named
from zoo.spec.run import RunSpec

__all__ = ["GhostBatchNorm"]

_DIMS = (2, 3)


@NORMS.register(
    "ghost_batch",
    doc="batch norm over virtual batches of virtual_batch examples",
    source="Hoffer et al. 2017, arXiv 1705.08741",
)
class GhostBatchNorm(BatchNorm):
    """Batch norm over virtual batches of ``virtual_batch`` examples; in eval mode, batch norm."""

    fields: ClassVar[Fields] = named(
        Field(
            "virtual_batch",
            "int",
            16,
            "examples that share ghost batch statistics",
            low=2,
            per="cohort",
        )
    )

    @classmethod
    def misfit(cls, run: RunSpec) -> Problem | None:
        """Refuse a batch that does not divide into virtual batches."""
        if run.virtual_batch and run.batch_size % run.virtual_batch == 0:
            return None
        message = f"batch_size = {run.batch_size} is no multiple of it"
        return Problem("virtual_batch", run.virtual_batch, message, "a divisor of batch_size")

    @property
    def size(self) -> int:
        """V: examples of a virtual batch."""
        return int(self.options["virtual_batch"])

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Normalise each virtual batch in training, with the running statistics otherwise."""
        if not mode.training:
            return super().forward(p, x, mode)
        shape = x.shape
        xhat, rstd, mean, var = standardize(self._cut(wide(x)), _DIMS)
        count = self.size * shape[2]
        mode.new_buffers[self.key("running_mean")] = self._moved(
            p[self.key("running_mean")], mean[:, :, 0, 0]
        )
        mode.new_buffers[self.key("running_var")] = self._moved(
            p[self.key("running_var")], var[:, :, 0, 0] * (count / (count - 1))
        )
        weight = p[self.key("weight")][:, None, None]
        bias = p[self.key("bias")][:, None, None]
        return xhat.view(shape) * weight + bias, (xhat.view(shape), rstd)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the gradients; each virtual batch's statistics depend on its own examples."""
        if not mode.training:
            return super().backward(p, saved, dy, mode, need_dx=need_dx)
        xhat, rstd = saved
        dy = wide(dy)
        grads = {
            self.key("weight"): (dy * xhat).sum((1, 2)),
            self.key("bias"): dy.sum((1, 2)),
        }
        d = dy * p[self.key("weight")][:, None, None]
        dx = standardize_backward(self._cut(d), self._cut(xhat), rstd, _DIMS)
        return dx.view(dy.shape), grads

    def module(self) -> nn.Module:
        """Return the plain module."""
        kind = _GhostBatchNorm2d if len(self.shape.spatial) == 2 else _GhostBatchNorm1d
        return kind(self.shape.channels, self.size)

    def _cut(self, x: Tensor) -> Tensor:
        """Return ``[G, B, T, C]`` as ``[G, B/V, V, T, C]``."""
        return x.reshape(len(x), -1, self.size, *x.shape[2:])

    def _moved(self, running: Tensor, batches: Tensor) -> Tensor:
        """Return a running statistic ``[G, C]`` after those of the virtual batches ``[G, n, C]``.

        One after another: r ← (1−ρ)r + ρs.
        """
        for batch in batches.unbind(1):
            running = (1 - MOMENTUM) * running + MOMENTUM * batch
        return running


class _GhostBatchNorm1d(nn.BatchNorm1d):
    """Batch norm that in training is applied to one virtual batch after another."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__(channels, eps=EPS, momentum=MOMENTUM)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised batch."""
        parts = torch.split(x, self.size) if self.training else (x,)
        return torch.cat([super(_GhostBatchNorm1d, self).forward(part) for part in parts])


class _GhostBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that in training is applied to one virtual batch after another."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__(channels, eps=EPS, momentum=MOMENTUM)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised batch."""
        parts = torch.split(x, self.size) if self.training else (x,)
        return torch.cat([super(_GhostBatchNorm2d, self).forward(part) for part in parts])
