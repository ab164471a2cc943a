"""Batch norm over stacked models, fused with the activation behind it; ghost batch norm too.

Statistics are one model's, over the valid examples and all positions of a virtual batch of V
successive examples (V = B: batch norm). Running statistics take in one virtual batch after another,
r ← (1 − ρ)·r + ρ·s with the unbiased variance, and each model has a momentum ρ of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.kernels.activation import activate, activate_torch, slope
from zoo.kernels.language import Value, blocks, constexpr, jit, launch, on_device, power_of_two, tl

__all__ = ["BatchNormForm", "batch_norm", "batch_norm_backward", "batch_norm_torch"]

#: Values of a program at a time. Triton 3.6's assembler spilled eight bytes of the larger tile
#: in the backward kernel.
_FORWARD_TILE, _BACKWARD_TILE = 1024, 512


@dataclass(frozen=True, slots=True, eq=False)
class BatchNormForm:
    """How a batch is normalised, and what is fused behind it.

    Args:
        virtual: V, a divisor of B.
        activation: name of f.
        eps: added to the variance.
        valid: ``[G, B]`` bool; other rows (of a smaller batch, padded) count for nothing, and come
            out as zeros.
    """

    virtual: int
    activation: str = "identity"
    eps: float = 1e-5
    valid: Tensor | None = None


#: Running mean and variance, each ``[G, C]``.
Running = tuple[Tensor, Tensor]


def _statistics(
    x: Tensor, valid: Tensor | None, virtual: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x cut into virtual batches, mean, biased variance and count of each."""
    cut = x.reshape(x.shape[0], -1, virtual, *x.shape[2:])
    on = torch.ones_like(cut[..., :1, :1], dtype=torch.bool)
    if valid is not None:
        on = valid.reshape(cut.shape[:3]).bool()[..., None, None]
    count = (on.sum((2, 3), keepdim=True) * cut.shape[3]).clamp(min=1)
    mean = torch.where(on, cut, 0).sum((2, 3), keepdim=True) / count
    var = torch.where(on, cut - mean, 0).square().sum((2, 3), keepdim=True) / count
    return cut, mean, var, count


def batch_norm_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: Running,
    momentum: Tensor,
    form: BatchNormForm,
) -> tuple[Tensor, Running]:
    """Return y and new running statistics as :func:`batch_norm`; autograd can follow y."""
    x = x if x.dtype == torch.float64 else x.float()
    valid = form.valid
    cut, mean, var, count = _statistics(x, valid, form.virtual)
    xhat = ((cut - mean) * torch.rsqrt(var + form.eps)).view(x.shape)
    y = activate_torch(xhat * weight[:, None, None] + bias[:, None, None], form.activation)
    if valid is not None:
        y = torch.where(valid.bool()[..., None, None], y, 0)
    unbiased = var * (count / (count - 1).clamp(min=1))
    new_mean, new_var = running
    rho = momentum.view(-1, 1)
    for v in range(cut.shape[1]):
        new_mean = (1 - rho) * new_mean + rho * mean[:, v, 0, 0].detach()
        new_var = (1 - rho) * new_var + rho * unbiased[:, v, 0, 0].detach()
    return y, (new_mean, new_var)


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: Running,
    momentum: Tensor,
    form: BatchNormForm,
) -> tuple[Tensor, Running, tuple[Tensor, ...]]:
    """Return y ``[G, B, T, C]`` float32, the new running statistics, and what the backward takes.

    Args:
        x: ``[G, B, T, C]`` float32 or bfloat16.
        weight, bias: ``[G, C]``.
        running: running mean and variance, ``[G, C]`` each; they stay as they are.
        momentum: ``[G]`` float32.
        form: how to normalise, and what comes behind.
    """
    if not on_device(x, weight):
        y, new = batch_norm_torch(x, weight, bias, running, momentum, form)
        return y, new, ()
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    before = [r.contiguous() for r in running]
    grid, flags = _tiles(x, form, _FORWARD_TILE)
    y = torch.empty(x.shape, device=x.device)
    shape = (x.shape[0], flags["BATCHES"], x.shape[3])
    saved = tuple(torch.empty(shape, device=x.device) for _ in range(2))
    new = (torch.empty_like(before[0]), torch.empty_like(before[1]))
    launch(
        _forward_kernel, grid, x, weight, bias, *before, momentum, form.valid, y, *saved, *new,
        EPS=form.eps, warps=8, **flags,
    )  # fmt: skip
    return y, new, saved


def batch_norm_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    saved: tuple[Tensor, ...],
    dy: Tensor,
    form: BatchNormForm,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, float32; arguments as of :func:`batch_norm`."""
    if not on_device(x, dy):
        x, weight, bias = (t.detach().requires_grad_() for t in (x, weight, bias))
        zero = torch.zeros_like(weight).detach()
        with torch.enable_grad():
            y, _ = batch_norm_torch(x, weight, bias, (zero, zero), zero[:, 0], form)
            dx, dw, db = torch.autograd.grad(y, (x, weight, bias), dy.to(y.dtype))
        return dx.to(y.dtype), dw, db
    x, dy = x.contiguous(), dy.contiguous()
    weight, bias = weight.contiguous(), bias.contiguous()
    grid, flags = _tiles(x, form, _BACKWARD_TILE)
    dx = torch.empty(x.shape, device=x.device)
    dw, db = (torch.empty(weight.shape, device=x.device) for _ in range(2))
    given = (x, dy, weight, bias, form.valid, *saved)
    launch(_backward_kernel, grid, *given, dx, dw, db, warps=8, **flags)
    return dx, dw, db


def _tiles(x: Tensor, form: BatchNormForm, tile: int) -> tuple[tuple[int, int], dict[str, Any]]:
    G, B, T, C = x.shape
    virtual = form.virtual
    wide = power_of_two(C, most=8)  # 32 bytes: one sector of memory a row
    flags = {
        "B": B, "T": T, "C": C, "V": virtual, "BATCHES": B // virtual, "ACT": form.activation,
        "VALID": form.valid is not None,
        "BR": power_of_two(virtual * T, most=tile // wide), "BC": wide,
    }  # fmt: skip
    return (G, blocks(C, wide)), flags


@jit
def _rows(
    start: Value, batch: Value, model: Value, c: Value, valid: Value, B: constexpr, T: constexpr,
    C: constexpr, V: constexpr, VALID: constexpr, BR: constexpr,
) -> Value:  # fmt: skip
    """Return offsets of a tile of rows, which of them are there, and which count."""
    r = start + tl.arange(0, BR)
    there = (r < V * T)[:, None] & (c < C)[None, :]
    at = (model * B * T + batch * V * T + r)[:, None] * C + c[None, :]
    counts = there
    if VALID:
        on = tl.load(valid + model * B + batch * V + r // T, r < V * T, 0) != 0
        counts = there & on[:, None]
    return at, there, counts


@jit
def _number(
    batch: Value, model: Value, valid: Value, B: constexpr, T: constexpr, V: constexpr,
    VALID: constexpr, BR: constexpr,
) -> Value:  # fmt: skip
    """Return how many values of a channel count in a virtual batch, at least 1."""
    n = V * T * 1.0
    if VALID:
        counts = tl.zeros([BR], tl.float32)
        for start in range(0, V, BR):
            r = start + tl.arange(0, BR)
            on = tl.load(valid + model * B + batch * V + r, r < V, 0) != 0
            counts += tl.where(on, 1.0, 0.0)
        n = tl.maximum(tl.sum(counts, 0) * T, 1.0)
    return n


@jit
def _forward_kernel(
    x: Value, weight: Value, bias: Value, running_mean: Value, running_var: Value,
    momentum: Value, valid: Value, y: Value, mean: Value, rstd: Value, new_mean: Value,
    new_var: Value,
    B: constexpr, T: constexpr, C: constexpr, V: constexpr, BATCHES: constexpr, ACT: constexpr,
    VALID: constexpr, EPS: constexpr, BR: constexpr, BC: constexpr,
) -> None:  # fmt: skip
    """BC channels of one model per program, one virtual batch after another."""
    model = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    on = c < C
    own = model * C + c
    gamma, beta = tl.load(weight + own, on, 0.0), tl.load(bias + own, on, 0.0)
    moved_mean, moved_var = (
        tl.load(running_mean + own, on, 0.0),
        tl.load(running_var + own, on, 0.0),
    )
    rho = tl.load(momentum + model)
    for batch in range(0, BATCHES):
        n = _number(batch, model, valid, B, T, V, VALID, BR)
        total = tl.zeros([BR, BC], tl.float32)
        for start in range(0, V * T, BR):
            at, there, counts = _rows(start, batch, model, c, valid, B, T, C, V, VALID, BR)
            total += tl.load(x + at, counts, 0.0).to(tl.float32)
        middle = tl.sum(total, 0) / n
        total = tl.zeros([BR, BC], tl.float32)
        for start in range(0, V * T, BR):
            at, there, counts = _rows(start, batch, model, c, valid, B, T, C, V, VALID, BR)
            away = tl.load(x + at, counts, 0.0).to(tl.float32) - middle[None, :]
            total += tl.where(counts, away * away, 0.0)
        var = tl.sum(total, 0) / n
        scale = tl.rsqrt(var + EPS)
        place = (model * BATCHES + batch) * C + c
        tl.store(mean + place, middle, on)
        tl.store(rstd + place, scale, on)
        moved_mean = (1.0 - rho) * moved_mean + rho * middle
        moved_var = (1.0 - rho) * moved_var + rho * (var * (n / tl.maximum(n - 1.0, 1.0)))
        for start in range(0, V * T, BR):
            at, there, counts = _rows(start, batch, model, c, valid, B, T, C, V, VALID, BR)
            value = tl.load(x + at, counts, 0.0).to(tl.float32)
            pre = (value - middle[None, :]) * scale[None, :] * gamma[None, :] + beta[None, :]
            tl.store(y + at, tl.where(counts, activate(pre, ACT), 0.0), there)
    tl.store(new_mean + own, moved_mean, on)
    tl.store(new_var + own, moved_var, on)


@jit
def _backward_kernel(
    x: Value, dy: Value, weight: Value, bias: Value, valid: Value, mean: Value, rstd: Value,
    dx: Value, dweight: Value, dbias: Value,
    B: constexpr, T: constexpr, C: constexpr, V: constexpr, BATCHES: constexpr, ACT: constexpr,
    VALID: constexpr, BR: constexpr, BC: constexpr,
) -> None:  # fmt: skip
    """BC channels of one model per program: two sums per virtual batch, then dx."""
    model = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    on = c < C
    own = model * C + c
    gamma, beta = tl.load(weight + own, on, 0.0), tl.load(bias + own, on, 0.0)
    of_weight = tl.zeros([BC], tl.float32)
    of_bias = tl.zeros([BC], tl.float32)
    for batch in range(0, BATCHES):
        n = _number(batch, model, valid, B, T, V, VALID, BR)
        place = (model * BATCHES + batch) * C + c
        middle = tl.load(mean + place, on, 0.0)[None, :]
        scale = tl.load(rstd + place, on, 0.0)[None, :]
        shift = tl.zeros([BR, BC], tl.float32)
        along = tl.zeros([BR, BC], tl.float32)
        for start in range(0, V * T, BR):
            at, there, counts = _rows(start, batch, model, c, valid, B, T, C, V, VALID, BR)
            xhat = (tl.load(x + at, counts, 0.0).to(tl.float32) - middle) * scale
            d = tl.load(dy + at, counts, 0.0).to(tl.float32)
            d = d * slope(xhat * gamma[None, :] + beta[None, :], ACT)
            shift += tl.where(counts, d, 0.0)
            along += tl.where(counts, d * xhat, 0.0)
        first, second = tl.sum(shift, 0), tl.sum(along, 0)
        of_bias += first
        of_weight += second
        for start in range(0, V * T, BR):
            at, there, counts = _rows(start, batch, model, c, valid, B, T, C, V, VALID, BR)
            xhat = (tl.load(x + at, counts, 0.0).to(tl.float32) - middle) * scale
            d = tl.load(dy + at, counts, 0.0).to(tl.float32)
            d = d * slope(xhat * gamma[None, :] + beta[None, :], ACT)
            pulled = d - (first / n)[None, :] - xhat * (second / n)[None, :]
            found = pulled * gamma[None, :] * scale
            tl.store(dx + at, tl.where(counts, found, 0.0), there)
    tl.store(dweight + own, of_weight, on)
    tl.store(dbias + own, of_bias, on)
