"""AdaBelief (Zhuang et al. 2020, arXiv 2010.07468): steps by the belief in the gradient.

m ← β₁m + (1−β₁)g;  s ← β₂s + (1−β₂)(g − m)² + ε;
p ← (1 − ηλ)p − η/(1−β₁ᵗ) · m / (√s/√(1−β₂ᵗ) + ε).
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

__all__ = ["AdaBelief"]


class AdaBelief(AdamW):
    """As algorithm 2 of the paper, with decay apart from the gradient."""

    fields: ClassVar[Fields] = named(BETA1, BETA2, EPS)
    moments: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_var")

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters, the momentum and the variance about it."""
        p, g = self._decay(p, g, c)
        m = torch.addcmul(moments[0], c["gain1"], g - moments[0])
        away = g - m
        s = torch.addcmul(moments[1] * c["beta2"], c["gain2"] * away, away) + c["eps"]
        denominator = torch.addcmul(c["eps"], s.sqrt(), c["inverse_root"])
        return torch.addcmul(p, c["step_size"], m / denominator, value=-1), [m, s]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return the loop form of algorithm 2."""
        return _AdaBeliefLoop(
            params, lr=run.lr, beta1=run.beta1, beta2=run.beta2, eps=run.eps,
            weight_decay=run.weight_decay,
        )  # fmt: skip


class _AdaBeliefLoop(TensorLoop):
    moments = AdaBelief.moments

    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        m, s, t = state["exp_avg"], state["exp_avg_var"], float(state["step"])
        m.mul_(group["beta1"]).add_(g * (1 - group["beta1"]))
        s.mul_(group["beta2"]).add_((g - m) ** 2 * (1 - group["beta2"])).add_(group["eps"])
        m_hat, s_hat = m / (1 - group["beta1"] ** t), s / (1 - group["beta2"] ** t)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.sub_(group["lr"] * m_hat / (s_hat.sqrt() + group["eps"]))


OPTIMIZERS.register(
    "adabelief",
    doc="AdamW on the deviation of the gradient from its mean",
    source="Zhuang et al. 2020, arXiv 2010.07468",
)(AdaBelief())
