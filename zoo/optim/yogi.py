"""Yogi (Zaheer et al. 2018, "Adaptive methods for nonconvex optimization", NeurIPS).

m ← β₁m + (1−β₁)g;  v ← v − (1−β₂)·sign(v − g²)·g²;
p ← (1 − ηλ)p − η/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
The second moment moves by g² whatever its own size, so that it cannot fall fast. It starts at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.fields import Fields, named
from zoo.optim.adam import AdamW
from zoo.optim.base import OPTIMIZERS, Coefficients, TorchParams
from zoo.optim.fields import BETA1, BETA2, EPS
from zoo.optim.twin import TensorLoop
from zoo.spec.run import RunSpec

__all__ = ["Yogi"]


class Yogi(AdamW):
    """As algorithm 2 of the paper, with Adam's bias corrections and decay apart from g."""

    fields: ClassVar[Fields] = named(BETA1, BETA2, EPS.at(1e-3))

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
        square = g * g
        v = moments[1] - c["gain2"] * square * torch.sign(moments[1] - square)
        denominator = torch.addcmul(c["eps"], v.sqrt(), c["inverse_root"])
        return torch.addcmul(p, c["step_size"], m / denominator, value=-1), [m, v]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return the loop form of algorithm 2."""
        return _YogiLoop(
            params, lr=run.lr, beta1=run.beta1, beta2=run.beta2, eps=run.eps,
            weight_decay=run.weight_decay,
        )  # fmt: skip


class _YogiLoop(TensorLoop):
    moments = Yogi.moments

    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        m, v, t = state["exp_avg"], state["exp_avg_sq"], float(state["step"])
        m.mul_(group["beta1"]).add_(g * (1 - group["beta1"]))
        v.sub_((1 - group["beta2"]) * (v - g * g).sign() * g * g)
        m_hat, root = m / (1 - group["beta1"] ** t), v.sqrt() / (1 - group["beta2"] ** t) ** 0.5
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(group["lr"] * m_hat / (root + group["eps"]))


OPTIMIZERS.register(
    "yogi",
    doc="Adam whose second moment changes by bounded amounts",
    source="Zaheer et al. 2018, NeurIPS",
)(Yogi())
