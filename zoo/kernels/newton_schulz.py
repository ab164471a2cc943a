"""Muon's orthogonalisation: Newton-Schulz steps over many matrices at once.

X ← aX + (bA + cA²)X with A = XXᵀ, five times from X = U/‖U‖ (Jordan et al. 2024). A matrix of up
to :data:`MOST` values stays on chip through all five steps, one program per matrix; larger ones are
batched matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.kernels.language import Value, constexpr, jit, launch, on_device, power_of_two, tl

__all__ = ["QUINTIC", "STEPS", "newton_schulz", "newton_schulz_torch"]

#: Steps of the iteration and its quintic's coefficients, as in torch.
STEPS = 5
QUINTIC = (3.4445, -4.775, 2.0315)
#: Rows and values of a padded matrix that one program holds.
_ROWS, MOST = 32, 2048
_EPS = 1e-7
#: Values of a row of 64 bytes.
_PAD = 16


def newton_schulz_torch(u: Tensor) -> Tensor:
    """Return the Newton-Schulz iterate of matrices ``[G, r, c]``: UVᵀ of their SVD, roughly.

    They are padded with zeros, which change nothing, to multiples of 16: a matrix product's bits
    may depend on where its operands lie, and so every model's lie alike.
    """
    a, b, c = QUINTIC
    rows, columns = u.shape[1:]
    x = u if rows <= columns else u.mT
    x = x / torch.linalg.vector_norm(u.flatten(1), dim=-1, keepdim=True).clamp(min=_EPS).unsqueeze(
        2
    )
    x = F.pad(x, (0, -x.shape[2] % _PAD, 0, -x.shape[1] % _PAD))
    for _ in range(STEPS):
        gram = torch.bmm(x, x.mT)
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    x = x if rows <= columns else x.mT
    return x[:, :rows, :columns]


@jit
def _orthogonal_kernel(
    u: Value, out: Value, R: constexpr, C: constexpr, ALONG: constexpr, ACROSS: constexpr,
    BR: constexpr, BC: constexpr, STEPS: constexpr,
) -> None:  # fmt: skip
    """One matrix a program, the short side along rows; strides ALONG and ACROSS."""
    model = tl.program_id(0).to(tl.int64)
    r = tl.arange(0, BR)
    k = tl.arange(0, BC)
    at = model * R * C + r[:, None] * ALONG + k[None, :] * ACROSS
    inside = (r < R)[:, None] & (k < C)[None, :]
    x = tl.load(u + at, inside, 0.0)
    norm = tl.sqrt_rn(tl.sum(tl.sum(x * x, 1), 0))
    x = tl.div_rn(x, tl.maximum(norm, 1e-7))
    for _ in tl.static_range(STEPS):
        gram = tl.dot(x, tl.trans(x), input_precision="ieee")
        poly = -4.775 * gram + 2.0315 * tl.dot(gram, gram, input_precision="ieee")
        x = 3.4445 * x + tl.dot(poly, x, input_precision="ieee")
    tl.store(out + at, x, inside)


def newton_schulz(u: Tensor) -> Tensor:
    """Return the Newton-Schulz iterate of float32 matrices ``[G, r, c]``."""
    G, rows, columns = u.shape
    short, long = min(rows, columns), max(rows, columns)
    tiles = power_of_two(short, least=16), power_of_two(long, least=16)
    if not on_device(u) or tiles[0] > _ROWS or tiles[0] * tiles[1] > MOST:
        return newton_schulz_torch(u)
    u = u.contiguous()
    out = torch.empty_like(u)
    along, across = (columns, 1) if rows <= columns else (1, columns)
    launch(
        _orthogonal_kernel, (G,), u, out, R=short, C=long, ALONG=along, ACROSS=across,
        BR=tiles[0], BC=tiles[1], STEPS=STEPS, warps=8,
    )  # fmt: skip
    return out
