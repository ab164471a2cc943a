"""AdamP (Heo et al. 2020, arXiv 2006.08217): Adam, projected (`projection.py`).

With Adam's moments: u = m/(√v/√(1−β₂ᵗ) + ε), or with β₁m + (1−β₁)g for m under Nesterov;
u ← projected u;  p ← (1 − ηλκ)·p − η/(1−β₁ᵗ)·u, with κ = ``projection_decay`` where u was projected
and 1 where not.
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
from zoo.optim.adam import Adam
from zoo.optim.base import OPTIMIZERS, Coefficients, TorchParams
from zoo.optim.fields import NESTEROV, PROJECTION_DECAY, PROJECTION_DELTA
from zoo.optim.projection import project_slab, project_tensor
from zoo.optim.twin import TensorLoop
from zoo.spec.run import RunSpec

__all__ = ["AdamP"]


class AdamP(Adam):
    """As the authors' own."""

    fields: ClassVar[Fields] = {
        **Adam.fields,
        **named(NESTEROV, PROJECTION_DELTA, PROJECTION_DECAY),
    }
    coefficients: ClassVar[tuple[str, ...]] = (
        *Adam.coefficients[:-1],
        "shrink",
        "projection_delta",
        "projection_decay",
    )
    decays: ClassVar[Mapping[str, float]] = {"shrink": 0.0}

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return Adam's coefficients, the projection's, and shrink = ηλ."""
        decay = np.array([run.weight_decay for run in runs])
        return {**super().table(runs, lr, step), "shrink": lr * decay}

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
        m = torch.addcmul(moments[0], c["gain1"], g - moments[0])
        v = torch.addcmul(moments[1] * c["beta2"], c["gain2"] * g, g)
        denominator = torch.addcmul(c["eps"], v.sqrt(), c["inverse_root"])
        direction = torch.addcmul(m, c["gain1"], g - m) if run["nesterov"] else m
        u, factor = project_slab(p, g, direction / denominator, c, layout)
        kept = p * (1 - c["shrink"] * factor)
        return torch.addcmul(kept, c["step_size"], u, value=-1), [m, v]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return the loop form, after algorithm 2 and the authors' code."""
        return _AdamPLoop(
            params, lr=run.lr, beta1=run.beta1, beta2=run.beta2, eps=run.eps, nesterov=run.nesterov,
            delta=run.projection_delta, decay=run.projection_decay, weight_decay=run.weight_decay,
        )  # fmt: skip


class _AdamPLoop(TensorLoop):
    moments = AdamP.moments

    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        m, v, t = state["exp_avg"], state["exp_avg_sq"], float(state["step"])
        beta1, beta2 = group["beta1"], group["beta2"]
        m.mul_(beta1).add_(g * (1 - beta1))
        v.mul_(beta2).add_(g * g * (1 - beta2))
        denominator = v.sqrt() / (1 - beta2**t) ** 0.5 + group["eps"]
        u = (beta1 * m + (1 - beta1) * g if group["nesterov"] else m) / denominator
        u, factor = project_tensor(p, g, u, group["delta"], group["decay"])
        p.mul_(1 - group["lr"] * group["weight_decay"] * factor)
        p.sub_(u * (group["lr"] / (1 - beta1**t)))


OPTIMIZERS.register(
    "adamp",
    doc="AdamW without the part that only grows scale-invariant weights",
    source="Heo et al. 2020, arXiv 2006.08217",
)(AdamP())
