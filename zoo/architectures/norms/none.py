"""No normalisation: the identity, so that module names do not depend on the norm."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from zoo.architectures.norms.base import NORMS, Norm
from zoo.architectures.op import Mode, Param, Params
from zoo.architectures.units import BOTH, Units

__all__ = ["NoNorm"]


@NORMS.register("none", doc="no norm")
class NoNorm(Norm):
    """y = x."""

    def params(self) -> tuple[Param, ...]:
        """Return nothing."""
        return ()

    def units(self) -> tuple[Units, ...]:
        """Return the channels, as they come."""
        return (Units(inputs=(0,), output=True, passes=BOTH),)

    def flops(self) -> int:
        """Return zero."""
        return 0

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Return x."""
        return x, None

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return dy."""
        return dy, {}

    def module(self) -> nn.Module:
        """Return an ``nn.Identity``."""
        return nn.Identity()
