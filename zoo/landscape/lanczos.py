"""Lanczos with full re-orthogonalisation, for G symmetric operators at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Krylov", "project_out", "tridiagonal_eigen"]

#: A residual below this share of the largest entry of T means that the space is exhausted.
_BREAKDOWN = 1e-7

#: Returns ``[G, D]`` for ``[G, D]``.
Product = Callable[[Tensor], Tensor]


def project_out(w: Tensor, basis: Tensor) -> Tensor:
    """Return w ``[G, D]`` less its part in the span of orthonormal rows ``[G, m, D]``."""
    inside = torch.bmm(basis, w.unsqueeze(-1))
    return torch.baddbmm(w.unsqueeze(-1), basis.mT, inside, alpha=-1).squeeze(-1)


def tridiagonal_eigen(diagonal: Tensor, off: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues ``[G, m]``, rising, and vectors ``[G, m, m]`` of T, in float64.

    Args:
        diagonal: ``[G, m]``.
        off: ``[G, m − 1]``.

    A row that is not finite gives NaN, and leaves the others alone.
    """
    T = torch.diag_embed(diagonal.double())
    T += torch.diag_embed(off.double(), 1) + torch.diag_embed(off.double(), -1)
    fine = torch.isfinite(T).flatten(1).all(1)
    values, vectors = torch.linalg.eigh(torch.where(fine[:, None, None], T, 0.0))
    values[~fine] = torch.nan
    vectors[~fine] = torch.nan
    return values, vectors


@dataclass(slots=True, eq=False)
class Krylov:
    """Krylov spaces of G operators, grown step by step.

    Args:
        product: the operators.
        basis: ``[G, steps, D]`` orthonormal rows; a row that breaks down continues with zeros.
        diagonal: ``[G, steps]``.
        off: ``[G, steps]``; the last is the residual's norm.
        images: called with (basis vector, its product) ``[G, D]`` at every step, or None.
    """

    product: Product
    basis: Tensor
    diagonal: Tensor
    off: Tensor
    images: Callable[[Tensor, Tensor], None] | None = None
    _next: Tensor | None = None

    @classmethod
    def start(
        cls,
        product: Product,
        first: Tensor,
        images: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Krylov:
        """Return the empty spaces that begin with ``first [G, D]``."""
        G, D = first.shape
        empty = first.new_zeros(G, 0)
        unit = first / first.norm(dim=1, keepdim=True)
        return cls(product, first.new_zeros(G, 0, D), empty, empty.clone(), images, unit)

    @property
    def steps(self) -> int:
        """Dimension so far."""
        return self.basis.shape[1]

    def grow(self, steps: int) -> None:
        """Take Lanczos steps until the dimension is ``steps``, or the whole space."""
        G, _, D = self.basis.shape
        steps = min(steps, D)
        old = self.steps
        if steps <= old:
            return
        basis = torch.cat([self.basis, self.basis.new_zeros(G, steps - old, D)], 1)
        diagonal = torch.cat([self.diagonal, self.diagonal.new_zeros(G, steps - old)], 1)
        off = torch.cat([self.off, self.off.new_zeros(G, steps - old)], 1)
        for j in range(old, steps):
            assert self._next is not None
            q = self._next
            basis[:, j] = q
            w = self.product(q)
            if self.images is not None:
                self.images(q, w)
            diagonal[:, j] = (w * q).sum(1)
            held = basis[:, : j + 1]
            w = project_out(project_out(w, held), held)
            norm = w.norm(dim=1)
            scale = diagonal[:, : j + 1].abs().amax(1)
            if j:
                scale = torch.maximum(scale, off[:, :j].amax(1))
            # Exhausted: what is left is rounding. Zeros add eigenvalue 0 with weight 0.
            alive = ~(norm <= _BREAKDOWN * scale) & (norm > 0)
            off[:, j] = torch.where(alive, norm, 0.0)
            safe = torch.where(alive, norm, 1.0)
            self._next = torch.where(alive[:, None], w / safe[:, None], 0.0)
        self.basis, self.diagonal, self.off = basis, diagonal, off

    def ritz(self, steps: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return Ritz values ``[G, m]``, rising, their residuals, and their SLQ weights.

        residual_i = |β_m · s_mi| bounds the distance to an eigenvalue; weight_i = s_1i².

        Args:
            steps: dimension m to use, all by default.
        """
        m = self.steps if steps is None else min(steps, self.steps)
        values, vectors = tridiagonal_eigen(self.diagonal[:, :m], self.off[:, : m - 1])
        residuals = (self.off[:, m - 1 : m].double() * vectors[:, -1]).abs()
        return values, residuals, vectors[:, 0].square()
