"""Mean squared error of the outputs, for floats and for one-hot labels.

ℓ = (1/C) Σ_c (z_c − y_c)² as in ``torch.nn.MSELoss``; on class labels y is one-hot (Hui and Belkin
2021, arXiv 2006.07322).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.objectives.base import OBJECTIVES, Objective, Settings, values_like

__all__ = ["MeanSquaredError"]


@OBJECTIVES.register("mse")
@dataclass(frozen=True, slots=True)
class MeanSquaredError(Objective):
    """Squared error, the mean over outputs."""

    takes: ClassVar[tuple[str, ...]] = ("vector", "binary", "class")
    doc: ClassVar[str] = "mean squared error of the outputs; labels are one-hot"
    source: ClassVar[str] = "Hui and Belkin 2021, arXiv 2006.07322"
    loss_name: ClassVar[str] = "squared error"

    elementwise: ClassVar[bool] = True

    def losses(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over outputs of (z − y)²."""
        return (z - values_like(targets, z)).square().mean(-1)

    def gradient(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return 2 (z − y)/C."""
        return (2 / z.shape[-1]) * (z - values_like(targets, z))

    def hessian(self, z: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return v ↦ 2v/C."""
        scale = 2 / z.shape[-1]
        return lambda v: scale * v

    def step(self, z: Tensor, targets: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """Return the mean over a batch and its gradient, from one difference."""
        away = z - values_like(targets, z)
        B, C = z.shape[1:]
        return away.square().flatten(1).mean(1), (2 / (B * C)) * away

    def predictions(self, z: Tensor) -> Tensor:
        """Return the outputs, or the class whose output is largest; binary: above one half."""
        return (z > 0.5).to(z.dtype) if self.target == "binary" else Objective.predictions(self, z)

    def guessing(self, targets: NDArray[Any], outputs: int) -> float:
        """Return the variance of the targets, the mean over outputs; (C − 1)/C² for C classes."""
        if self.target == "class":
            return (outputs - 1) / outputs**2
        return float(np.var(np.asarray(targets, dtype=np.float64), axis=0).mean())
