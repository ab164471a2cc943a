"""SGDP (Heo et al. 2020, arXiv 2006.08217): SGD with momentum, projected (`projection.py`).

b ← μb + g;  u = b, or g + μb with Nesterov;  u ← projected u;
p ← (1 − ηλκ/(1−μ))·p − η·u, with κ = ``projection_decay`` where u was projected and 1 where not.
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
from zoo.optim.fields import MOMENTUM, NESTEROV, PROJECTION_DECAY, PROJECTION_DELTA
from zoo.optim.projection import project_slab, project_tensor
from zoo.optim.twin import TensorLoop
from zoo.spec.run import RunSpec

__all__ = ["SGDP"]


class SGDP(Optimizer):
    """As the authors' own, the division of the decay by 1 − μ included."""

    fields: ClassVar[Fields] = named(MOMENTUM, NESTEROV, PROJECTION_DELTA, PROJECTION_DECAY)
    moments: ClassVar[tuple[str, ...]] = ("momentum_buffer",)
    coefficients: ClassVar[tuple[str, ...]] = (
        "lr",
        "momentum",
        "shrink",
        "projection_delta",
        "projection_decay",
    )
    decays: ClassVar[Mapping[str, float]] = {"shrink": 0.0}

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return the fields and shrink = ηλ/(1−μ)."""
        fixed = super().table(runs, lr, step)
        decay = np.array([run.weight_decay for run in runs])
        return {**fixed, "shrink": lr * decay / (1 - fixed["momentum"])}

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
        b = torch.addcmul(g, c["momentum"], moments[0])
        u = torch.addcmul(g, c["momentum"], b) if run["nesterov"] else b
        u, factor = project_slab(p, g, u, c, layout)
        kept = p * (1 - c["shrink"] * factor)
        return torch.addcmul(kept, c["lr"], u, value=-1), [b]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return the loop form, after algorithm 1 and the authors' code."""
        return _SGDPLoop(
            params, lr=run.lr, momentum=run.momentum, nesterov=run.nesterov,
            delta=run.projection_delta, decay=run.projection_decay, weight_decay=run.weight_decay,
        )  # fmt: skip


class _SGDPLoop(TensorLoop):
    moments = SGDP.moments

    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        b = state["momentum_buffer"].mul_(momentum).add_(g)
        u = g + momentum * b if group["nesterov"] else b
        u, factor = project_tensor(p, g, u, group["delta"], group["decay"])
        p.mul_(1 - group["lr"] * group["weight_decay"] * factor / (1 - momentum))
        p.sub_(u * group["lr"])


OPTIMIZERS.register(
    "sgdp",
    doc="SGD with momentum, without the part that only grows scale-invariant weights",
    source="Heo et al. 2020, arXiv 2006.08217",
)(SGDP())
