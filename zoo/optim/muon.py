"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): orthogonalised momentum.

For every weight matrix but the last, the output layer's: m ← μm + (1−μ)g;  u = (1−μ)g + μm with
Nesterov, else m;  p ← (1 − ηλ)p − 0.2η√max(r, c) · NS(u), where NS is five Newton-Schulz steps
towards the nearest orthogonal matrix, in float32. Filters are matrices ``[outputs, fan_in]``. The
output layer, biases and parameters of norms take AdamW's step with the same η and λ.

The factor 0.2√max(r, c) (Liu et al. 2025, arXiv 2502.16982) gives the matrices' update the size of
AdamW's, so that one learning rate fits both parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures.layout import Layout, Segment
from zoo.fields import Fields, named
from zoo.kernels.newton_schulz import QUINTIC, STEPS
from zoo.kernels.newton_schulz import newton_schulz_torch as orthogonalized
from zoo.optim.adam import AdamW
from zoo.optim.base import OPTIMIZERS, Coefficients, TorchParams
from zoo.optim.fields import BETA1, BETA2, EPS, MOMENTUM, NESTEROV
from zoo.optim.segments import at, is_matrix, trained_segments
from zoo.optim.twin import TensorLoop
from zoo.spec.run import RunSpec

__all__ = ["RMS", "Muon", "orthogonalized"]

_EPS = 1e-7
#: Root mean square of an update of AdamW, about.
RMS = 0.2


class Muon(AdamW):
    """Muon for hidden matrices, AdamW for the rest; both momenta are kept in ``exp_avg``."""

    fields: ClassVar[Fields] = named(
        MOMENTUM.at(0.95), NESTEROV.at(default=True), BETA1, BETA2, EPS
    )
    coefficients: ClassVar[tuple[str, ...]] = (*AdamW.coefficients, "lr", "momentum", "gain")

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return AdamW's coefficients and gain = 1 − μ."""
        found = super().table(runs, lr, step)
        return {**found, "gain": 1 - found["momentum"]}

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters, the momentum and AdamW's squared average."""
        segments = trained_segments(layout)
        matrices = [s for s in segments if is_matrix(s)][:-1]
        new: list[tuple[Tensor, Tensor, Tensor]] = []
        for s in segments:
            part = [at(t, s) for t in (p, g, *moments)]
            own = {name: at(value, s) for name, value in c.items()}
            if s in matrices:
                stepped, m = _matrix_step(part, own, s, nesterov=bool(run["nesterov"]))
                new.append((stepped, m, part[3]))
            else:
                stepped, (m, v) = super().update(part[0], part[1], part[2:], own, run, layout)
                new.append((stepped, m, v))
        slabs = [torch.cat(parts, 1) for parts in zip(*new, strict=True)]
        return slabs[0], slabs[1:]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return the loop form; ``torch.optim.Muon`` computes in bfloat16 and takes no filters."""
        return _MuonLoop(
            params, lr=run.lr, momentum=run.momentum, nesterov=run.nesterov, beta1=run.beta1,
            beta2=run.beta2, eps=run.eps, weight_decay=run.weight_decay,
        )  # fmt: skip


def _matrix_step(
    part: Sequence[Tensor], c: Coefficients, segment: Segment, *, nesterov: bool
) -> tuple[Tensor, Tensor]:
    """Return one matrix and its momentum, both ``[G, size]``, after a step."""
    p, g, m = part[:3]
    m = torch.addcmul(m, c["gain"], g - m)
    u = torch.addcmul(g, c["momentum"], m - g) if nesterov else m
    matrix = u.reshape(len(u), segment.shape[0], -1)
    size = RMS * max(matrix.shape[1:]) ** 0.5
    turned = orthogonalized(matrix).reshape(p.shape)
    return torch.addcmul(p * c["keep"], c["lr"] * size, turned, value=-1), m


class _MuonLoop(TensorLoop):
    moments = Muon.moments

    def __init__(self, params: TorchParams, **options: Any) -> None:
        super().__init__(params, **options)
        every = [p for group in self.param_groups for p in group["params"]]
        self.matrices = {id(p) for p in [p for p in every if p.dim() > 1][:-1]}

    def move(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        p.mul_(1 - group["lr"] * group["weight_decay"])
        m = state["exp_avg"]
        if id(p) in self.matrices:
            momentum = group["momentum"]
            m.mul_(momentum).add_(g * (1 - momentum))
            u = momentum * m + (1 - momentum) * g if group["nesterov"] else m
            matrix = u.flatten(1)
            p.sub_(
                group["lr"] * RMS * max(matrix.shape) ** 0.5 * _newton_schulz(matrix).view(p.shape)
            )
            return
        v, t = state["exp_avg_sq"], float(state["step"])
        m.mul_(group["beta1"]).add_(g * (1 - group["beta1"]))
        v.mul_(group["beta2"]).add_(g * g * (1 - group["beta2"]))
        root = (v / (1 - group["beta2"] ** t)).sqrt() + group["eps"]
        p.sub_(group["lr"] / (1 - group["beta1"] ** t) * m / root)


def _newton_schulz(u: Tensor) -> Tensor:
    a, b, c = QUINTIC
    if u.shape[0] > u.shape[1]:
        return _newton_schulz(u.T).T
    x: Tensor = u / u.norm().clamp(min=_EPS)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


OPTIMIZERS.register(
    "muon",
    doc="orthogonalised momentum for hidden matrices, AdamW for the rest",
    source="Jordan et al. 2024, kellerjordan.github.io/posts/muon",
)(Muon())
