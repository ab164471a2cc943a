"""Adam (Kingma and Ba 2014, arXiv 1412.6980) and AdamW (Loshchilov and Hutter, arXiv 1711.05101).

m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  p ← p − η/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
Adam adds λp to g; AdamW multiplies p by 1 − ηλ first.
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
from zoo.optim.fields import BETA1, BETA2, EPS
from zoo.spec.run import RunSpec

__all__ = ["Adam", "AdamW", "torch_arguments"]


class Adam(Optimizer):
    """As ``torch.optim.Adam``."""

    fields: ClassVar[Fields] = named(BETA1, BETA2, EPS)
    moments: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")
    coefficients: ClassVar[tuple[str, ...]] = (
        "step_size",
        "inverse_root",
        "gain1",
        "beta2",
        "gain2",
        "eps",
        "weight_decay",
    )

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return the coefficients; bias corrections are worked out in float64, as torch does."""
        b1 = np.array([run.beta1 for run in runs], dtype=np.float64)
        b2 = np.array([run.beta2 for run in runs], dtype=np.float64)
        fixed = super().table(runs, lr, step)
        return {
            **fixed,
            "step_size": lr / (1 - b1**step),
            "inverse_root": 1 / np.sqrt(1 - b2**step),
            "gain1": 1 - b1,
            "gain2": 1 - b2,
        }

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters and both moments."""
        p, g = self._decay(p, g, c)
        m = torch.addcmul(moments[0], c["gain1"], g - moments[0])
        v = torch.addcmul(moments[1] * c["beta2"], c["gain2"] * g, g)
        denominator = torch.addcmul(c["eps"], v.sqrt(), c["inverse_root"])
        return torch.addcmul(p, c["step_size"], m / denominator, value=-1), [m, v]

    def _decay(self, p: Tensor, g: Tensor, c: Coefficients) -> tuple[Tensor, Tensor]:
        return p, torch.addcmul(g, c["weight_decay"], p)

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return ``torch.optim.Adam``."""
        return torch.optim.Adam(params, **torch_arguments(run))


class AdamW(Adam):
    """As ``torch.optim.AdamW``: decay apart from the gradient."""

    coefficients: ClassVar[tuple[str, ...]] = (*Adam.coefficients[:-1], "keep")
    decays: ClassVar[Mapping[str, float]] = {"keep": 1.0}

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return Adam's coefficients and keep = 1 − ηλ."""
        decay = np.array([run.weight_decay for run in runs])
        return {**super().table(runs, lr, step), "keep": 1 - lr * decay}

    def _decay(self, p: Tensor, g: Tensor, c: Coefficients) -> tuple[Tensor, Tensor]:
        return p * c["keep"], g

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return ``torch.optim.AdamW``."""
        return torch.optim.AdamW(params, **torch_arguments(run))


def torch_arguments(run: RunSpec) -> dict[str, Any]:
    """Return the keywords that torch's optimizers of Adam's family take."""
    return {
        "lr": run.lr,
        "betas": (run.beta1, run.beta2),
        "eps": run.eps,
        "weight_decay": run.weight_decay,
    }


OPTIMIZERS.register(
    "adam",
    doc="adaptive moments; decay is added to the gradient",
    source="Kingma and Ba 2014, arXiv 1412.6980",
)(Adam())
OPTIMIZERS.register(
    "adamw",
    doc="Adam with decay apart from the gradient",
    source="Loshchilov and Hutter 2017, arXiv 1711.05101",
)(AdamW())
