"""The Brier score of softmax(z): ℓ = Σ_c (p_c − y_c)², 0 to 2 (Brier 1950)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.objectives.base import OBJECTIVES, Objective, Settings, values_like

__all__ = ["Brier"]


@OBJECTIVES.register("brier")
@dataclass(frozen=True, slots=True)
class Brier(Objective):
    """Squared distance of the probabilities from the one-hot label."""

    takes: ClassVar[tuple[str, ...]] = ("class",)
    doc: ClassVar[str] = "squared distance of softmax(z) from the one-hot label, 0 to 2"
    source: ClassVar[str] = "Brier 1950"
    loss_name: ClassVar[str] = "Brier score"
    softmax: ClassVar[bool] = True

    def losses(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return ‖p − y‖²."""
        return (torch.softmax(z, -1) - values_like(targets, z)).square().sum(-1)

    def gradient(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return 2p ⊙ (r − ⟨p, r⟩) with r = p − y."""
        p = torch.softmax(z, -1)
        return 2 * _centred(p, p - values_like(targets, z))

    def hessian(self, z: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return v ↦ 2p'⊙(r − ⟨p, r⟩) + 2p⊙(p' − ⟨p', r⟩ − ⟨p, p'⟩) with p' = p ⊙ (v − ⟨p, v⟩)."""
        p = torch.softmax(z, -1)
        r = p - values_like(targets, z)
        away = r - (p * r).sum(-1, keepdim=True)

        def product(v: Tensor) -> Tensor:
            moved = _centred(p, v)
            shift = (moved * (r + p)).sum(-1, keepdim=True)
            return 2 * (moved * away + p * (moved - shift))

        return product

    def step(self, z: Tensor, targets: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """Return the mean over a batch and its gradient, from one softmax."""
        p = torch.softmax(z, -1)
        r = p - values_like(targets, z)
        return r.square().sum(-1).mean(1), (2 / z.shape[1]) * _centred(p, r)

    def guessing(self, targets: NDArray[Any], outputs: int) -> float:
        """Return that of equal probabilities, 1 − 1/C."""
        return 1 - 1 / outputs


def _centred(p: Tensor, v: Tensor) -> Tensor:
    """Return p ⊙ (v − ⟨p, v⟩), the Jacobian of softmax times v."""
    return p * (v - (p * v).sum(-1, keepdim=True))
