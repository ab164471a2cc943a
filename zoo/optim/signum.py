"""Signum (Bernstein et al. 2018, arXiv 1802.04434): the sign of the momentum.

m ← μm + (1−μ)g;  p ← (1 − ηλ)p − η·sign(m).  With μ = 0 this is signSGD. The sign of zero is zero.
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
from zoo.optim.fields import MOMENTUM
from zoo.optim.twin import TensorLoop
from zoo.spec.run import RunSpec

__all__ = ["Signum"]


class Signum(Optimizer):
    """As algorithm 2 of the paper, with decay apart from the gradient."""

    fields: ClassVar[Fields] = named(MOMENTUM)
    moments: ClassVar[tuple[str, ...]] = ("momentum_buffer",)
    coefficients: ClassVar[tuple[str, ...]] = ("lr", "keep", "gain")
    decays: ClassVar[Mapping[str, float]] = {"keep": 1.0}

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return keep = 1 − ηλ and gain = 1 − μ."""
        return {
            **super().table(runs, lr, step),
            "keep": 1 - lr * np.array([run.weight_decay for run in runs]),
            "gain": 1 - np.array([run.momentum for run in runs], dtype=np.float64),
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
        m = torch.addcmul(moments[0], c["gain"], g - moments[0])
        return torch.addcmul(p * c["keep"], c["lr"], torch.sign(m), value=-1), [m]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return the loop form of algorithm 2."""
        return _SignumLoop(params, lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay)


class _SignumLoop(TensorLoop):
    moments = Signum.moments

    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        m = state["momentum_buffer"].mul_(group["momentum"]).add_(g * (1 - group["momentum"]))
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(m.sign() * group["lr"])


OPTIMIZERS.register(
    "signum",
    doc="sign of the momentum, decay apart",
    source="Bernstein et al. 2018, arXiv 1802.04434",
)(Signum())
