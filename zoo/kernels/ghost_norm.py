"""Ghost norms: norms of per-example gradients from activations and output gradients alone.

For y_t = W a_t + b the gradient of one example is Σ_t d_t a_tᵀ, so that with A ``[T, in]`` and
D ``[T, out]`` of that example

    ‖∇W‖² = ‖Dᵀ A‖² = Σ_ts (A Aᵀ ⊙ D Dᵀ)_ts,    ‖∇b‖² = ‖Σ_t d_t‖²,

and T = 1 gives ‖d‖² (‖a‖² + 1). No per-example gradient is ever stored. (Goodfellow 2015, arXiv
1510.01799; Bu et al. 2022, arXiv 2205.10683, for convolutions over patches.)

Interface, all over G models and B examples, float32 ``[G, B]`` *squared* norms to be summed over
layers:

* :func:`linear_square_norms` ``(a [G, B, in], d [G, B, out])``: a linear layer with its bias;
* :func:`sequence_square_norms` ``(a [G, B, T, in], d [G, B, T, out])``: a linear map applied at T
  positions with its bias; a convolution (one or two axes) with its patches for ``a``;
* :func:`affine_square_norms` ``(xhat [G, B, T, C], d [G, B, T, C])``: weight and bias of a norm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.kernels.language import Value, constexpr, jit, launch, on_device, power_of_two, tl

__all__ = [
    "affine_square_norms",
    "affine_square_norms_torch",
    "linear_square_norms",
    "linear_square_norms_torch",
    "sequence_square_norms",
    "sequence_square_norms_torch",
]


def linear_square_norms_torch(a: Tensor, d: Tensor) -> Tensor:
    """Return ‖d‖² (‖a‖² + 1): see the module."""
    return d.float().square().sum(-1) * (a.float().square().sum(-1) + 1)


def sequence_square_norms_torch(a: Tensor, d: Tensor) -> Tensor:
    """Return ‖Dᵀ A‖² + ‖Σ_t d_t‖² by the cheaper of the two forms: see the module."""
    a, d = a.float(), d.float()
    bias = d.sum(2).square().sum(-1)
    if _by_gram(a.shape[2], a.shape[3], d.shape[3]):
        return ((a @ a.mT) * (d @ d.mT)).sum((2, 3)) + bias
    return (d.mT @ a).square().sum((2, 3)) + bias


def affine_square_norms_torch(xhat: Tensor, d: Tensor) -> Tensor:
    """Return Σ_c (Σ_t d x̂)² + (Σ_t d)²: see the module."""
    d = d.float()
    weight = (d * xhat.float()).sum(2).square().sum(-1)
    return weight + d.sum(2).square().sum(-1)


def _by_gram(T: int, inputs: int, outputs: int) -> bool:
    """Whether two T × T products cost less than the gradient itself (Bu et al. 2022)."""
    return inputs * outputs > 2 * T * T


@jit
def _linear_kernel(
    a: Value, d: Value, out: Value, IN: constexpr, OUT: constexpr, BK: constexpr
) -> None:
    """One example a program: both sums in tiles of BK, in order."""
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BK)
    of_a = tl.zeros([BK], tl.float32)
    of_d = tl.zeros([BK], tl.float32)
    for start in range(0, IN, BK):
        x = tl.load(a + row * IN + start + lanes, start + lanes < IN, 0.0).to(tl.float32)
        of_a += x * x
    for start in range(0, OUT, BK):
        x = tl.load(d + row * OUT + start + lanes, start + lanes < OUT, 0.0).to(tl.float32)
        of_d += x * x
    tl.store(out + row, tl.sum(of_d, 0) * (tl.sum(of_a, 0) + 1.0))


@jit
def _gram_kernel(
    a: Value, d: Value, out: Value,
    T: constexpr, IN: constexpr, OUT: constexpr, BT: constexpr, BK: constexpr,
) -> None:  # fmt: skip
    """One example a program: Σ_ts (A Aᵀ ⊙ D Dᵀ)_ts in tiles of BT × BT."""
    row = tl.program_id(0).to(tl.int64)
    a += row * T * IN
    d += row * T * OUT
    lanes = tl.arange(0, BK)
    total = tl.zeros([BT], tl.float32)
    for first in range(0, T, BT):
        t = first + tl.arange(0, BT)
        for second in range(0, T, BT):
            s = second + tl.arange(0, BT)
            of_a = tl.zeros([BT, BT], tl.float32)
            of_d = tl.zeros([BT, BT], tl.float32)
            for start in range(0, IN, BK):
                k = start + lanes
                left = tl.load(
                    a + t[:, None] * IN + k[None, :], (t < T)[:, None] & (k < IN)[None, :], 0.0
                ).to(tl.float32)
                right = tl.load(
                    a + s[None, :] * IN + k[:, None], (s < T)[None, :] & (k < IN)[:, None], 0.0
                ).to(tl.float32)
                of_a += tl.dot(left, right, input_precision="ieee")
            for start in range(0, OUT, BK):
                k = start + lanes
                left = tl.load(
                    d + t[:, None] * OUT + k[None, :], (t < T)[:, None] & (k < OUT)[None, :], 0.0
                ).to(tl.float32)
                right = tl.load(
                    d + s[None, :] * OUT + k[:, None], (s < T)[None, :] & (k < OUT)[:, None], 0.0
                ).to(tl.float32)
                of_d += tl.dot(left, right, input_precision="ieee")
            total += tl.sum(of_a * of_d, 1)
    # The bias is an input that is always one.
    bias = tl.sum(tl.zeros([BK], tl.float32), 0)
    for start in range(0, OUT, BK):
        k = start + lanes
        column = tl.zeros([BK], tl.float32)
        for at in range(0, T):
            column += tl.load(d + at * OUT + k, k < OUT, 0.0).to(tl.float32)
        bias += tl.sum(column * column, 0)
    tl.store(out + row, tl.sum(total, 0) + bias)


@jit
def _product_kernel(
    a: Value, d: Value, out: Value,
    T: constexpr, IN: constexpr, OUT: constexpr, BT: constexpr, BK: constexpr,
) -> None:  # fmt: skip
    """One example a program: ‖Dᵀ A‖² in tiles of BK × BK, the bias as one more column of A."""
    row = tl.program_id(0).to(tl.int64)
    a += row * T * IN
    d += row * T * OUT
    total = tl.zeros([BK], tl.float32)
    for first in range(0, OUT, BK):
        o = first + tl.arange(0, BK)
        for second in range(0, IN + 1, BK):
            i = second + tl.arange(0, BK)
            product = tl.zeros([BK, BK], tl.float32)
            for start in range(0, T, BT):
                t = start + tl.arange(0, BT)
                left = tl.load(
                    d + t[None, :] * OUT + o[:, None], (t < T)[None, :] & (o < OUT)[:, None], 0.0
                ).to(tl.float32)
                right = tl.load(
                    a + t[:, None] * IN + i[None, :], (t < T)[:, None] & (i < IN)[None, :], 0.0
                ).to(tl.float32)
                right = tl.where((t < T)[:, None] & (i == IN)[None, :], 1.0, right)
                product += tl.dot(left, right, input_precision="ieee")
            total += tl.sum(product * product, 1)
    tl.store(out + row, tl.sum(total, 0))


@jit
def _affine_kernel(
    xhat: Value, d: Value, out: Value, T: constexpr, C: constexpr, BT: constexpr, BK: constexpr
) -> None:
    """One example a program: sums over positions in tiles of BT × BK."""
    row = tl.program_id(0).to(tl.int64)
    xhat += row * T * C
    d += row * T * C
    total = tl.zeros([BK], tl.float32)
    for first in range(0, C, BK):
        c = first + tl.arange(0, BK)
        weight = tl.zeros([BK], tl.float32)
        bias = tl.zeros([BK], tl.float32)
        for start in range(0, T, BT):
            t = start + tl.arange(0, BT)
            at = t[:, None] * C + c[None, :]
            inside = (t < T)[:, None] & (c < C)[None, :]
            g = tl.load(d + at, inside, 0.0).to(tl.float32)
            weight += tl.sum(g * tl.load(xhat + at, inside, 0.0).to(tl.float32), 0)
            bias += tl.sum(g, 0)
        total += weight * weight + bias * bias
    tl.store(out + row, tl.sum(total, 0))


def linear_square_norms(a: Tensor, d: Tensor) -> Tensor:
    """Return squared gradient norms ``[G, B]`` of a linear layer with bias.

    Args:
        a: ``[G, B, in]`` inputs.
        d: ``[G, B, out]`` gradients of each example's own loss by the outputs.
    """
    if not on_device(a, d):
        return linear_square_norms_torch(a, d)
    a, d = a.contiguous(), d.contiguous()
    out = torch.empty(a.shape[:2], device=a.device)
    tile = power_of_two(max(a.shape[2], d.shape[2]), least=16, most=1024)
    launch(_linear_kernel, (out.numel(),), a, d, out, IN=a.shape[2], OUT=d.shape[2], BK=tile)
    return out


def sequence_square_norms(a: Tensor, d: Tensor) -> Tensor:
    """Return squared gradient norms ``[G, B]`` of a linear map with bias at T positions.

    Args:
        a: ``[G, B, T, in]`` inputs, or the patches of a convolution.
        d: ``[G, B, T, out]`` gradients of each example's own loss by the outputs.
    """
    if not on_device(a, d):
        return sequence_square_norms_torch(a, d)
    a, d = a.contiguous(), d.contiguous()
    T, inputs, outputs = a.shape[2], a.shape[3], d.shape[3]
    out = torch.empty(a.shape[:2], device=a.device)
    kernel = _gram_kernel if _by_gram(T, inputs, outputs) else _product_kernel
    sizes = {"T": T, "IN": inputs, "OUT": outputs, "BT": 16 if T <= 16 else 32, "BK": 32}
    launch(kernel, (out.numel(),), a, d, out, **sizes)
    return out


def affine_square_norms(xhat: Tensor, d: Tensor) -> Tensor:
    """Return squared gradient norms ``[G, B]`` of the weight and bias of a norm.

    Args:
        xhat: ``[G, B, T, C]`` normalised inputs, before weight and bias.
        d: ``[G, B, T, C]`` gradients of each example's own loss by the outputs.
    """
    if not on_device(xhat, d):
        return affine_square_norms_torch(xhat, d)
    xhat, d = xhat.contiguous(), d.contiguous()
    T, C = xhat.shape[2:]
    out = torch.empty(xhat.shape[:2], device=xhat.device)
    tile = power_of_two(C, least=16, most=256)
    rows = power_of_two(T, most=max(1, 2048 // tile))
    launch(_affine_kernel, (out.numel(),), xhat, d, out, T=T, C=C, BT=rows, BK=tile)
    return out
