"""LARS (You et al. 2017, arXiv 1708.03888): each layer's rate follows its weights' norm.

For each weight matrix r = τ‖p‖ / (‖g‖ + λ‖p‖ + ε), and r = 1 for biases, for parameters of norms
and where a norm is zero;  b ← μb + r(g + λp);  p ← p − ηb, or p − η(r(g + λp) + μb) with Nesterov.
The rate stands outside the momentum, as in torch's SGD, so that schedules act at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.fields import Field, Fields, named
from zoo.optim.base import OPTIMIZERS, Coefficients, Optimizer, TorchParams
from zoo.optim.fields import EPS, MOMENTUM, NESTEROV
from zoo.optim.segments import at, is_matrix, norms, ratio, spread, trained_segments
from zoo.optim.twin import TensorLoop
from zoo.spec.run import RunSpec

__all__ = ["LARS"]


class LARS(Optimizer):
    """SGD with momentum whose gradient is rescaled layer by layer."""

    fields: ClassVar[Fields] = named(
        Field("trust", "float", 1e-3, "trust coefficient of LARS", above=0), MOMENTUM, NESTEROV, EPS
    )
    moments: ClassVar[tuple[str, ...]] = ("momentum_buffer",)
    coefficients: ClassVar[tuple[str, ...]] = ("lr", "momentum", "weight_decay", "trust", "eps")

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters and the momentum buffer."""
        segments = trained_segments(layout)
        one = torch.ones_like(c["lr"])
        rates = []
        pairs = zip(segments, norms(p, segments), norms(g, segments), strict=True)
        for segment, of_p, of_g in pairs:
            if not is_matrix(segment):
                rates.append(one)
                continue
            decay = at(c["weight_decay"], segment)[:, :1]
            local = ratio(c["trust"] * of_p, of_g + decay * of_p + c["eps"], one)
            rates.append(torch.where(of_g > 0, local, one))
        g = torch.addcmul(g, c["weight_decay"], p) * spread(rates, segments)
        b = torch.addcmul(g, c["momentum"], moments[0])
        direction = torch.addcmul(g, c["momentum"], b) if run["nesterov"] else b
        return torch.addcmul(p, c["lr"], direction, value=-1), [b]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return the loop form, after equation 6 of the paper."""
        return _LARSLoop(
            params, lr=run.lr, momentum=run.momentum, nesterov=run.nesterov, trust=run.trust,
            eps=run.eps, weight_decay=run.weight_decay,
        )  # fmt: skip


class _LARSLoop(TensorLoop):
    moments = LARS.moments

    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        decay, of_p, of_g = group["weight_decay"], p.norm(), g.norm()
        g = g + decay * p
        if p.dim() > 1 and of_p > 0 and of_g > 0:
            g = g * (group["trust"] * of_p / (of_g + decay * of_p + group["eps"]))
        b = state["momentum_buffer"].mul_(group["momentum"]).add_(g)
        direction = g + group["momentum"] * b if group["nesterov"] else b
        p.sub_(direction * group["lr"])


OPTIMIZERS.register(
    "lars",
    doc="SGD with momentum, its gradient rescaled layer by layer",
    source="You et al. 2017, arXiv 1708.03888",
)(LARS())
