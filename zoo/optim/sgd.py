"""Gradient descent with momentum (Polyak 1964) and Nesterov's form (Sutskever et al. 2013).

g ← g + λp;  b ← μb + g;  p ← p − η·b, or p ← p − η·(g + μb) with Nesterov momentum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.fields import Fields, named
from zoo.optim.base import OPTIMIZERS, Coefficients, Optimizer, TorchParams
from zoo.optim.fields import MOMENTUM, NESTEROV
from zoo.spec.run import RunSpec

__all__ = ["SGD"]


class SGD(Optimizer):
    """As ``torch.optim.SGD`` with zero dampening."""

    fields: ClassVar[Fields] = named(MOMENTUM.at(0.0), NESTEROV)
    moments: ClassVar[tuple[str, ...]] = ("momentum_buffer",)
    coefficients: ClassVar[tuple[str, ...]] = ("lr", "momentum", "weight_decay")

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters and the momentum buffer."""
        g = torch.addcmul(g, c["weight_decay"], p)
        b = torch.addcmul(g, c["momentum"], moments[0])
        direction = torch.addcmul(g, c["momentum"], b) if run["nesterov"] else b
        return torch.addcmul(p, c["lr"], direction, value=-1), [b]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return ``torch.optim.SGD``; torch refuses Nesterov without momentum."""
        momentum = run.momentum or 0.0
        return torch.optim.SGD(
            params,
            lr=run.lr,
            momentum=momentum,
            weight_decay=run.weight_decay,
            nesterov=bool(run.nesterov) and momentum > 0,
        )


OPTIMIZERS.register(
    "sgd",
    doc="gradient descent with momentum or Nesterov momentum",
    source="Polyak 1964; Sutskever et al. 2013",
)(SGD())
