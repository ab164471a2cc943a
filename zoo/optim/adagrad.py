"""Adagrad (Duchi et al. 2011, JMLR 12): rates that fall with what each parameter has seen.

g ← g + λp;  s ← s + g²;  p ← p − η·g/(√s + ε).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.fields import Fields, named
from zoo.optim.base import OPTIMIZERS, Coefficients, Optimizer, TorchParams
from zoo.optim.fields import EPS
from zoo.spec.run import RunSpec

__all__ = ["Adagrad"]


class Adagrad(Optimizer):
    """As ``torch.optim.Adagrad`` with sums that start at zero; the rate's decay is a schedule."""

    fields: ClassVar[Fields] = named(EPS.at(1e-10))
    moments: ClassVar[tuple[str, ...]] = ("sum",)
    coefficients: ClassVar[tuple[str, ...]] = ("lr", "eps", "weight_decay")

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters and the sum of squares."""
        g = torch.addcmul(g, c["weight_decay"], p)
        s = torch.addcmul(moments[0], g, g)
        return torch.addcmul(p, c["lr"], g / (s.sqrt() + c["eps"]), value=-1), [s]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return ``torch.optim.Adagrad``."""
        return torch.optim.Adagrad(
            params, lr=run.lr, eps=run.eps or 0.0, weight_decay=run.weight_decay
        )


OPTIMIZERS.register(
    "adagrad",
    doc="steps over the root of all squared gradients so far",
    source="Duchi et al. 2011, JMLR 12",
)(Adagrad())
