"""LAMB (You et al. 2019, arXiv 1904.00962): Adam's direction, rescaled layer by layer.

With Adam's bias-corrected m̂ and v̂: u = m̂/(√v̂ + ε) + λp;  p ← p − η·r·u, where r = ‖p‖/‖u‖ for
each weight matrix, and r = 1 for biases, for parameters of norms and where a norm is zero.
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
from zoo.optim.fields import BETA1, BETA2, EPS
from zoo.optim.segments import is_matrix, norms, ratio, spread, trained_segments
from zoo.optim.twin import TensorLoop
from zoo.spec.run import RunSpec

__all__ = ["LAMB"]


class LAMB(Adam):
    """As algorithm 2 of the paper, with φ the identity."""

    fields: ClassVar[Fields] = named(BETA1, BETA2, EPS.at(1e-6))
    coefficients: ClassVar[tuple[str, ...]] = (
        "lr",
        "inverse",
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
        """Return Adam's coefficients and inverse = 1/(1 − β₁ᵗ)."""
        b1 = np.array([run.beta1 for run in runs], dtype=np.float64)
        return {**super().table(runs, lr, step), "inverse": 1 / (1 - b1**step)}

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
        u = torch.addcmul(c["inverse"] * m / denominator, c["weight_decay"], p)
        segments = trained_segments(layout)
        one = torch.ones_like(c["lr"])
        triples = zip(segments, norms(p, segments), norms(u, segments), strict=True)
        rates = [ratio(of_p, of_u, one) if is_matrix(s) else one for s, of_p, of_u in triples]
        return torch.addcmul(p, c["lr"] * spread(rates, segments), u, value=-1), [m, v]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return the loop form of algorithm 2."""
        return _LAMBLoop(
            params, lr=run.lr, beta1=run.beta1, beta2=run.beta2, eps=run.eps,
            weight_decay=run.weight_decay,
        )  # fmt: skip


class _LAMBLoop(TensorLoop):
    moments = LAMB.moments

    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        m, v, t = state["exp_avg"], state["exp_avg_sq"], float(state["step"])
        m.mul_(group["beta1"]).add_(g * (1 - group["beta1"]))
        v.mul_(group["beta2"]).add_(g * g * (1 - group["beta2"]))
        m_hat, v_hat = m / (1 - group["beta1"] ** t), v / (1 - group["beta2"] ** t)
        u = m_hat / (v_hat.sqrt() + group["eps"]) + group["weight_decay"] * p
        of_p, of_u = p.norm(), u.norm()
        trust = of_p / of_u if p.dim() > 1 and of_p > 0 and of_u > 0 else 1.0
        p.sub_(group["lr"] * trust * u)


OPTIMIZERS.register(
    "lamb", doc="AdamW rescaled layer by layer", source="You et al. 2019, arXiv 1904.00962"
)(LAMB())
