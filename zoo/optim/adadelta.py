"""Adadelta (Zeiler 2012, arXiv 1212.5701): steps in the unit of the parameters.

g ← g + λp;  s ← αs + (1−α)g²;  d = √(a + ε)/√(s + ε) · g;  a ← αa + (1−α)d²;  p ← p − η·d.
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
from zoo.optim.fields import ALPHA, EPS
from zoo.spec.run import RunSpec

__all__ = ["Adadelta"]


class Adadelta(Optimizer):
    """As ``torch.optim.Adadelta``; the paper's own has η = 1."""

    fields: ClassVar[Fields] = named(ALPHA, EPS.at(1e-6))
    moments: ClassVar[tuple[str, ...]] = ("square_avg", "acc_delta")
    coefficients: ClassVar[tuple[str, ...]] = ("lr", "alpha", "gain", "eps", "weight_decay")

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
        """Return the stepped parameters, the squared average and that of the steps."""
        g = torch.addcmul(g, c["weight_decay"], p)
        s = torch.addcmul(moments[0] * c["alpha"], c["gain"] * g, g)
        d = (moments[1] + c["eps"]).sqrt() / (s + c["eps"]).sqrt() * g
        a = torch.addcmul(moments[1] * c["alpha"], c["gain"] * d, d)
        return torch.addcmul(p, c["lr"], d, value=-1), [s, a]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return ``torch.optim.Adadelta``."""
        return torch.optim.Adadelta(
            params, lr=run.lr, rho=run.alpha or 0.0, eps=run.eps or 0.0,
            weight_decay=run.weight_decay,
        )  # fmt: skip


OPTIMIZERS.register(
    "adadelta",
    doc="steps by the ratio of two running averages",
    source="Zeiler 2012, arXiv 1212.5701",
)(Adadelta())
