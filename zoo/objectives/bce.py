"""Binary cross-entropy of sigmoid(z), every output on its own, for binary targets and labels.

ℓ = (1/C) Σ_c [softplus(z_c) − y_c z_c] as in ``torch.nn.BCEWithLogitsLoss``; on class labels y is
one-hot, one output against the rest (Wightman et al. 2021, arXiv 2110.00476).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from zoo.objectives.base import OBJECTIVES, Objective, Settings, values_like

__all__ = ["BinaryCrossEntropy"]


@OBJECTIVES.register("bce")
@dataclass(frozen=True, slots=True)
class BinaryCrossEntropy(Objective):
    """Cross-entropy of each output's sigmoid, the mean over outputs."""

    takes: ClassVar[tuple[str, ...]] = ("binary", "class")
    doc: ClassVar[str] = "binary cross-entropy of each output's sigmoid; labels are one-hot"
    source: ClassVar[str] = "Wightman et al. 2021, arXiv 2110.00476"
    loss_name: ClassVar[str] = "binary cross-entropy"
    unit: ClassVar[str] = "nats"

    elementwise: ClassVar[bool] = True

    def losses(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over outputs of softplus(z) − y z, nats."""
        y = values_like(targets, z)
        return F.binary_cross_entropy_with_logits(z, y, reduction="none").mean(-1)

    def gradient(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return (σ(z) − y)/C."""
        return (torch.sigmoid(z) - values_like(targets, z)) / z.shape[-1]

    def hessian(self, z: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return v ↦ σ(z)(1 − σ(z)) v/C."""
        p = torch.sigmoid(z)
        bend = p * (1 - p) / z.shape[-1]
        return lambda v: bend * v

    def step(self, z: Tensor, targets: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """Return the mean over a batch and its gradient."""
        return self.losses(z, targets).mean(1), self.gradient(z, targets) / z.shape[1]

    def guessing(self, targets: NDArray[Any], outputs: int) -> float:
        """Return the mean entropy of the outputs' own frequencies; 1/C for C classes."""
        if self.target == "class":
            p = np.full(outputs, 1 / outputs)
        else:
            p = np.asarray(targets, dtype=np.float64).mean(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [np.where(q > 0, -q * np.log(q), 0.0) for q in (p, 1 - p)]
        return float((parts[0] + parts[1]).mean())
