"""Adamax (Kingma and Ba 2014, arXiv 1412.6980, section 7.1): Adam with the largest gradient.

g ← g + λp;  m ← β₁m + (1−β₁)g;  u ← max(β₂u, |g| + ε);  p ← p − η/(1−β₁ᵗ) · m/u.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.optim.adam import Adam, torch_arguments
from zoo.optim.base import OPTIMIZERS, Coefficients, TorchParams
from zoo.spec.run import RunSpec

__all__ = ["Adamax"]


class Adamax(Adam):
    """As ``torch.optim.Adamax``."""

    moments: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_inf")
    coefficients: ClassVar[tuple[str, ...]] = ("step_size", "gain1", "beta2", "eps", "weight_decay")

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters, the momentum and the decayed maximum."""
        p, g = self._decay(p, g, c)
        m = torch.addcmul(moments[0], c["gain1"], g - moments[0])
        u = torch.maximum(moments[1] * c["beta2"], g.abs() + c["eps"])
        return torch.addcmul(p, c["step_size"], m / u, value=-1), [m, u]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return ``torch.optim.Adamax``."""
        return torch.optim.Adamax(params, **torch_arguments(run))


OPTIMIZERS.register(
    "adamax",
    doc="Adam with the largest gradient in place of the second moment",
    source="Kingma and Ba 2014, arXiv 1412.6980, section 7.1",
)(Adamax())
