"""Norms over one example's own channels: group (Wu and He 2018, arXiv 1803.08494), layer
(Ba et al. 2016, arXiv 1607.06450) and instance (Ulyanov et al. 2016, arXiv 1607.08022).

They differ only in the number of channel groups: g, 1 and C.
"""  # noqa: D205

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from zoo.architectures.mode import wide
from zoo.architectures.norms.base import EPS, NORMS, Norm, standardize, standardize_backward
from zoo.architectures.op import Mode, Params
from zoo.fields import Field, Fields, named

__all__ = ["NORM_GROUPS", "GroupNorm", "InstanceNorm", "LayerNorm"]

NORM_GROUPS = Field(
    "norm_groups", "int", 4, "groups of the group norm and of EvoNorm", low=1, per="cohort"
)

_DIMS = (2, 4)


@NORMS.register(
    "group",
    doc="statistics over the positions and channels of each of norm_groups groups",
    source="Wu and He 2018, arXiv 1803.08494",
)
class GroupNorm(Norm):
    """Statistics over the positions and channels of each of ``norm_groups`` groups."""

    fields: ClassVar[Fields] = named(NORM_GROUPS)

    @property
    def groups(self) -> int:
        """Number of channel groups."""
        return int(self.options["norm_groups"])

    @property
    def permutation_blocks(self) -> int:
        """Channels stay within their group."""
        return self.groups

    def problem(self) -> str | None:
        """Say so if the channels do not divide, or if a group would be a single number."""
        channels = self.shape.channels
        if channels % self.groups:
            return f"{channels} channels do not divide into norm_groups = {self.groups}"
        if self.shape.positions * channels // self.groups == 1:
            return "one value per group: everything would be normalised to zero"
        return None

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Normalise each example's groups, then scale and shift each channel."""
        shape = x.shape
        split = wide(x).reshape(*shape[:3], self.groups, -1)
        xhat, rstd, _, _ = standardize(split, _DIMS)
        xhat = xhat.view(shape)
        weight = p[self.key("weight")][:, None, None]
        bias = p[self.key("bias")][:, None, None]
        return xhat * weight + bias, (xhat, rstd)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the gradients of input, weight and bias."""
        xhat, rstd = saved
        dy = wide(dy)
        grads = {
            self.key("weight"): (dy * xhat).sum((1, 2)),
            self.key("bias"): dy.sum((1, 2)),
        }
        d = dy * p[self.key("weight")][:, None, None]
        split = (*dy.shape[:3], self.groups, -1)
        dx = standardize_backward(d.reshape(split), xhat.view(split), rstd, _DIMS)
        return dx.reshape(dy.shape), grads

    def module(self) -> nn.Module:
        """Return an ``nn.GroupNorm``."""
        return nn.GroupNorm(self.groups, self.shape.channels, eps=EPS)


@NORMS.register(
    "layer",
    doc="one group: over channels and positions, weights per channel",
    source="Ba et al. 2016, arXiv 1607.06450",
)
class LayerNorm(GroupNorm):
    """One group: for images, over channels and positions with per-channel weights."""

    fields: ClassVar[Fields] = {}

    @property
    def groups(self) -> int:
        """One."""
        return 1

    def module(self) -> nn.Module:
        """Return an ``nn.LayerNorm`` for vectors, ``nn.GroupNorm(1, C)`` for images."""
        if not self.shape.spatial:
            return nn.LayerNorm(self.shape.channels, eps=EPS)
        return super().module()


@NORMS.register(
    "instance",
    doc="one group per channel: over positions alone",
    source="Ulyanov et al. 2016, arXiv 1607.08022",
)
class InstanceNorm(GroupNorm):
    """One group a channel: statistics over positions only."""

    fields: ClassVar[Fields] = {}

    @property
    def groups(self) -> int:
        """C."""
        return self.shape.channels

    @property
    def permutation_blocks(self) -> int:
        """Every channel stands alone, so any permutation will do."""
        return 1

    def problem(self) -> str | None:
        """Refuse a single position: its instance norm is zero whatever the input."""
        if self.shape.positions == 1:
            return "instance norm needs more than one position; use a cnn on a larger input"
        return None

    def module(self) -> nn.Module:
        """Return an ``nn.InstanceNorm1d``/``2d`` with weight and bias."""
        kind = nn.InstanceNorm2d if len(self.shape.spatial) == 2 else nn.InstanceNorm1d
        return kind(self.shape.channels, eps=EPS, affine=True)
