"""Softmax cross-entropy, with label smoothing, a temperature and the z-loss.

Training minimises, with u = z/τ and t = (1 − s)·onehot(y) + s/C,

    ℓ = lse(u) − Σ_c t_c u_c + ζ·lse(u)²,

s ``label_smoothing`` (Szegedy et al. 2016, arXiv 1512.00567), τ ``softmax_temperature`` and ζ
``z_loss`` (Chowdhery et al. 2022, arXiv 2204.02311: it holds the log-partition near zero, so that
logits do not drift off together). What is recorded and what the landscape is of is the plain loss
lse(z) − z_y.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from zoo.fields import Field, Fields, named
from zoo.kernels.cross_entropy import cross_entropy
from zoo.objectives.base import OBJECTIVES, Objective, Settings

__all__ = ["SoftmaxCrossEntropy", "with_z_loss"]


@OBJECTIVES.register("cross_entropy")
@dataclass(frozen=True, slots=True)
class SoftmaxCrossEntropy(Objective):
    """Cross-entropy of softmax(z) and the label."""

    takes: ClassVar[tuple[str, ...]] = ("class",)
    doc: ClassVar[str] = "softmax cross-entropy: lse(z) - z_y"
    source: ClassVar[str] = "folklore"
    loss_name: ClassVar[str] = "cross-entropy"
    unit: ClassVar[str] = "nats"
    softmax: ClassVar[bool] = True
    fields: ClassVar[Fields] = named(
        Field("label_smoothing", "float", 0.0, "label smoothing", low=0, below=1),
        Field("softmax_temperature", "float", 1.0, "what outputs are divided by in training",
              above=0, per="switch"),
        Field("z_loss", "float", 0.0, "coefficient of the squared log-partition in the loss",
              low=0, per="switch"),
    )  # fmt: skip

    def losses(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return lse(z) − z_y, nats."""
        each = F.cross_entropy(z.flatten(0, -2), targets.reshape(-1), reduction="none")
        return each.view(targets.shape)

    def gradient(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return softmax(z) − onehot(y)."""
        p = torch.softmax(z, -1)
        return p.scatter_add(-1, targets.unsqueeze(-1), -torch.ones_like(p[..., :1]))

    def hessian(self, z: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return v ↦ p ⊙ (v − ⟨p, v⟩)."""
        p = torch.softmax(z, -1)
        return lambda v: p * (v - (p * v).sum(-1, keepdim=True))

    def trained(self, z: Tensor, targets: Tensor, settings: Settings) -> Tensor:
        """Return the loss with what the settings add to it, by torch's own functions."""
        z = _cooled(z, settings)
        s = settings["label_smoothing"].unsqueeze(1)
        plain = self.losses(z, targets)
        # against a uniform target: lse − mean of the logits
        smooth = torch.logsumexp(z, -1) - z.mean(-1)
        loss = (1 - s) * plain + s * smooth
        if "z_loss" in settings:
            loss = loss + settings["z_loss"].unsqueeze(1) * torch.logsumexp(z, -1).square()
        return loss

    def step(self, z: Tensor, targets: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """Return what :meth:`trained` says, by the fused kernel."""
        z = _cooled(z, settings)
        loss, dz = cross_entropy(z, targets, settings["label_smoothing"])
        if "z_loss" in settings:
            loss, dz = with_z_loss(z, settings["z_loss"], loss, dz)
        return loss, _cooled(dz, settings)

    def guessing(self, targets: NDArray[Any], outputs: int) -> float:
        """Return ln C."""
        return math.log(outputs)


def _cooled(z: Tensor, settings: Settings) -> Tensor:
    """Return ``[G, B, C]`` over each model's temperature, where the cohort has one."""
    if "softmax_temperature" not in settings:
        return z
    return z / settings["softmax_temperature"].view(-1, 1, 1)


def with_z_loss(
    logits: Tensor, coefficient: Tensor, loss: Tensor, dlogits: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient with the z-loss added to both.

    loss + ζ·mean(lse²) and dz + 2ζ·lse·softmax(z)/B.

    Args:
        logits: ``[G, B, C]`` float32.
        coefficient: ``[G]`` ζ of each model.
        loss: ``[G]`` nats.
        dlogits: ``[G, B, C]`` gradient of ``loss``.
    """
    zeta = coefficient.view(-1, 1, 1)
    lse = torch.logsumexp(logits, -1, keepdim=True)
    pull = (2 * zeta / logits.shape[1]) * lse * torch.exp(logits - lse)
    return loss + coefficient * lse.square().flatten(1).mean(1), dlogits + pull
