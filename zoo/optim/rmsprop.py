"""RMSprop (Tieleman and Hinton 2012), with optional momentum as torch has it.

g ← g + λp;  s ← αs + (1−α)g²;  b ← μb + g/(√s + ε);  p ← p − η·b.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.fields import Fields, named
from zoo.optim.base import OPTIMIZERS, Coefficients, Optimizer, TorchParams
from zoo.optim.fields import ALPHA, EPS, MOMENTUM
from zoo.spec.run import RunSpec

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """As ``torch.optim.RMSprop``, not centred."""

    fields: ClassVar[Fields] = named(ALPHA.at(0.99), EPS, MOMENTUM.at(0.0))
    moments: ClassVar[tuple[str, ...]] = ("square_avg", "momentum_buffer")
    coefficients: ClassVar[tuple[str, ...]] = (
        "lr",
        "alpha",
        "gain",
        "eps",
        "momentum",
        "weight_decay",
    )

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return the fields and gain = 1 − α."""
        fixed = super().table(runs, lr, step)
        return {**fixed, "gain": 1 - fixed["alpha"]}

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters, the squared average and the momentum buffer."""
        g = torch.addcmul(g, c["weight_decay"], p)
        s = torch.addcmul(moments[0] * c["alpha"], c["gain"] * g, g)
        b = torch.addcmul(g / (s.sqrt() + c["eps"]), c["momentum"], moments[1])
        return torch.addcmul(p, c["lr"], b, value=-1), [s, b]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return ``torch.optim.RMSprop``."""
        return torch.optim.RMSprop(
            params,
            lr=run.lr,
            alpha=run.alpha or 0.0,
            eps=run.eps or 0.0,
            momentum=run.momentum or 0.0,
            weight_decay=run.weight_decay,
        )


OPTIMIZERS.register(
    "rmsprop",
    doc="steps over the root of a running average of squared gradients",
    source="Tieleman and Hinton 2012",
)(RMSprop())
