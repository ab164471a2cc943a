"""Lion (Chen et al. 2023, arXiv 2302.06675): the sign of an interpolated momentum.

c = β₁m + (1−β₁)g;  p ← (1 − ηλ)p − η·sign(c);  m ← β₂m + (1−β₂)g.  The sign of zero is zero.
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
from zoo.optim.fields import BETA1, BETA2
from zoo.optim.twin import TensorLoop
from zoo.spec.run import RunSpec

__all__ = ["Lion"]


class Lion(Optimizer):
    """As algorithm 2 of the paper, with its defaults for β₁ and β₂."""

    fields: ClassVar[Fields] = named(BETA1, BETA2.at(0.99))
    moments: ClassVar[tuple[str, ...]] = ("exp_avg",)
    coefficients: ClassVar[tuple[str, ...]] = ("lr", "keep", "gain1", "gain2")
    decays: ClassVar[Mapping[str, float]] = {"keep": 1.0}

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return keep = 1 − ηλ and the gains 1 − β."""
        return {
            **super().table(runs, lr, step),
            "keep": 1 - lr * np.array([run.weight_decay for run in runs]),
            "gain1": 1 - np.array([run.beta1 for run in runs], dtype=np.float64),
            "gain2": 1 - np.array([run.beta2 for run in runs], dtype=np.float64),
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
        """Return the stepped parameters and the momentum."""
        m = moments[0]
        sign = torch.sign(torch.addcmul(m, c["gain1"], g - m))
        return (
            torch.addcmul(p * c["keep"], c["lr"], sign, value=-1),
            [torch.addcmul(m, c["gain2"], g - m)],
        )

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return the loop form of algorithm 2."""
        return _LionLoop(
            params, lr=run.lr, beta1=run.beta1, beta2=run.beta2, weight_decay=run.weight_decay
        )


class _LionLoop(TensorLoop):
    moments = Lion.moments

    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        m = state["exp_avg"]
        c = m * group["beta1"] + g * (1 - group["beta1"])
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(c.sign() * group["lr"])
        m.mul_(group["beta2"]).add_(g * (1 - group["beta2"]))


OPTIMIZERS.register(
    "lion",
    doc="sign of an interpolated momentum, decay apart",
    source="Chen et al. 2023, arXiv 2302.06675",
)(Lion())
