"""Gradients of single examples with regard to one op's parameters: in factors, or written out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.architectures.mode import wide
from zoo.kernels.ghost_norm import linear_square_norms, sequence_square_norms

__all__ = ["ExampleGradients", "Outer", "Written"]


class ExampleGradients(ABC):
    """The gradients g_n of N examples, for G models."""

    @abstractmethod
    def square_norms(self) -> Tensor:
        """Return ‖g_n‖², ``[G, N]`` float32."""

    @abstractmethod
    def gram(self) -> Tensor:
        """Return ⟨g_n, g_m⟩, ``[G, N, N]``."""


@dataclass(frozen=True, slots=True, eq=False)
class Outer(ExampleGradients):
    """Those of a linear map y_t = W a_t + b at T positions: Σ_t d_t a_tᵀ and Σ_t d_t.

    Args:
        a: ``[G, N, T, in]`` inputs, or the patches of a convolution in any fixed order.
        d: ``[G, N, T, out]`` gradients of the outputs.
    """

    a: Tensor
    d: Tensor

    def square_norms(self) -> Tensor:
        """Return ‖Σ_t d_t a_tᵀ‖² + ‖Σ_t d_t‖², without any gradient where that is less."""
        if self.a.shape[2] == 1:
            return linear_square_norms(self.a.squeeze(2), self.d.squeeze(2))
        return sequence_square_norms(self.a, self.d)

    def gram(self) -> Tensor:
        """Return the inner products of weights and biases."""
        if self.a.shape[2] == 1:
            a, d = self.a.squeeze(2), self.d.squeeze(2)
            return torch.bmm(d, d.mT) * (torch.bmm(a, a.mT) + 1)
        G, N = self.a.shape[:2]
        weight = torch.bmm(self.d.flatten(0, 1).mT, self.a.flatten(0, 1)).view(G, N, -1)
        bias = self.d.sum(2)
        return torch.bmm(weight, weight.mT) + torch.bmm(bias, bias.mT)


@dataclass(frozen=True, slots=True, eq=False)
class Written(ExampleGradients):
    """Those of any op, written out.

    Args:
        gradients: state-dict key of a parameter to ``[G, N, ...]``.
    """

    gradients: Mapping[str, Tensor]

    def square_norms(self) -> Tensor:
        """Return the sums of squares."""
        squares = [wide(g).flatten(2).square().sum(2) for g in self.gradients.values()]
        return torch.stack(squares).sum(0)

    def gram(self) -> Tensor:
        """Return the inner products."""
        rows = torch.cat([g.flatten(2) for g in self.gradients.values()], 2)
        return torch.bmm(rows, rows.mT)
