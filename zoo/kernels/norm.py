"""Norms over one example's own values, fused with the activation behind them.

Over x ``[G, B, T, C]``, with the channels in j groups and statistics over the positions and
channels of each group of each example,

    layer, group, instance    y = f(γ·x̂ + β),  x̂ = (x − μ)/√(σ² + ε)
    rms                       y = f(γ·x̂),      x̂ = x/√(mean(x²) + ε)
    evonorm_s0                y = f(γ·x·σ(vx)/√(σ² + ε) + β)

The variance takes a pass of its own: E[x²] − E[x]² loses every digit once the offset is large. Sums
over examples, which γ and β need, run in one order that the batch alone decides. Without γ, and
with one output a row, the same kernels standardise weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.kernels.activation import activate, activate_torch, slope
from zoo.kernels.language import Value, blocks, constexpr, jit, launch, on_device, power_of_two, tl

__all__ = ["Affine", "NormSpec", "norm", "norm_backward", "norm_torch"]

_TILE = 1024


@dataclass(frozen=True, slots=True)
class NormSpec:
    """What is normalised how.

    Args:
        kind: ``"layer"`` (with ``groups``: group and instance too), ``"rms"`` or ``"evonorm_s0"``.
        groups: groups of channels.
        activation: name of f.
        eps: added to the variance.
    """

    kind: str = "layer"
    groups: int = 1
    activation: str = "identity"
    eps: float = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """Parameters a channel, each ``[G, C]``: weight γ, bias β and EvoNorm's gate v."""

    weight: Tensor | None = None
    bias: Tensor | None = None
    gate: Tensor | None = None

    def aligned(self) -> tuple[tuple[Tensor | None, ...], int]:
        """Return the three with one stride between models, views of a slab as they are."""
        parts: tuple[Tensor | None, ...] = (self.weight, self.bias, self.gate)
        strides = {p.stride() for p in parts if p is not None}
        if len(strides) > 1 or any(stride[-1] != 1 for stride in strides):
            parts = tuple(None if p is None else p.contiguous() for p in parts)
        row = next((p.stride(0) for p in parts if p is not None), 0)
        return parts, row


def norm_torch(
    x: Tensor, affine: Affine, spec: NormSpec, true_channels: Tensor | None = None
) -> Tensor:
    """Return y of :func:`norm` in plain torch that autograd can follow."""
    shape = x.shape
    x = x if x.dtype == torch.float64 else x.float()
    mask = torch.ones(shape[0], 1, 1, shape[3], dtype=torch.bool, device=x.device)
    if true_channels is not None:
        channels = torch.arange(shape[3], device=x.device)
        mask = (channels < true_channels.view(-1, 1)).view(shape[0], 1, 1, shape[3])
    split = (*shape[:3], spec.groups, -1)
    values = torch.where(mask, x, 0).reshape(split)
    on = mask.expand(shape).reshape(split)
    count = on.sum((2, 4), keepdim=True)
    mean = 0 * count if spec.kind == "rms" else values.sum((2, 4), keepdim=True) / count
    centred = torch.where(on, values - mean, 0)
    rstd = torch.rsqrt(centred.square().sum((2, 4), keepdim=True) / count + spec.eps)
    y = (centred * rstd).view(shape)
    if spec.kind == "evonorm_s0" and affine.gate is not None:
        gated = x * torch.sigmoid(x * affine.gate[:, None, None])
        y = (gated.reshape(split) * rstd).view(shape)
    if affine.weight is not None:
        y = y * affine.weight[:, None, None]
    if affine.bias is not None:
        y = y + affine.bias[:, None, None]
    return torch.where(mask, activate_torch(y, spec.activation), 0)


def norm(
    x: Tensor, affine: Affine, spec: NormSpec, *, true_channels: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return y ``[G, B, T, C]`` float32 and the statistics that :func:`norm_backward` takes.

    Args:
        x: ``[G, B, T, C]`` float32 or bfloat16.
        affine: parameters.
        spec: which norm.
        true_channels: ``[G]`` int32, channels that a model of a padded cohort really has; the
            others count for nothing and come out as zeros. With one group only.
    """
    if not on_device(x):
        return norm_torch(x, affine, spec, true_channels), ()
    x = x.contiguous()
    G, B = x.shape[:2]
    y = torch.empty(x.shape, device=x.device)
    mean, rstd = (torch.empty(G, B, spec.groups, device=x.device) for _ in range(2))
    parts, row = affine.aligned()
    grid, flags = _row_tiles(x, affine, spec, true_channels)
    launch(_forward_kernel, grid, x, *parts, true_channels, y, mean, rstd, row, **flags)
    return y, (mean, rstd)


def norm_backward(
    x: Tensor,
    affine: Affine,
    spec: NormSpec,
    saved: tuple[Tensor, ...],
    dy: Tensor,
    *,
    true_channels: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return dx ``[G, B, T, C]`` and the gradients ``[G, C]`` of what ``affine`` has, float32.

    Args:
        x, affine, spec, true_channels: as of :func:`norm`.
        saved: what it returned.
        dy: ``[G, B, T, C]``.
    """
    if not on_device(x, dy):
        return _backward_torch(x, affine, spec, dy, true_channels)
    x, dy = x.contiguous(), dy.contiguous()
    G, B, T, C = x.shape
    dx = torch.empty(x.shape, device=x.device)
    parts, row = affine.aligned()
    grid, flags = _row_tiles(x, affine, spec, true_channels)
    launch(_input_kernel, grid, x, dy, *parts, true_channels, *saved, dx, row, **flags)
    own = {n: getattr(affine, n) for n in ("weight", "bias", "gate")}
    grads = {n: torch.empty(p.shape, device=x.device) for n, p in own.items() if p is not None}
    if grads:
        wide = power_of_two(C, most=64)
        flags |= {"BK": wide, "BR": power_of_two(B * T, most=_TILE // wide)}
        outs = (grads.get("weight"), grads.get("bias"), grads.get("gate"))
        launch(
            _affine_kernel, (G, blocks(C, wide)), x, dy, *parts, true_channels, *saved, *outs,
            row, **flags,
        )  # fmt: skip
    return dx, grads


def _backward_torch(
    x: Tensor, affine: Affine, spec: NormSpec, dy: Tensor, true_channels: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    own = {n: getattr(affine, n) for n in ("weight", "bias", "gate")}
    leaves = {n: p.detach().requires_grad_() for n, p in own.items() if p is not None}
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = norm_torch(x, Affine(**leaves), spec, true_channels)
        dx, *grads = torch.autograd.grad(y, [x, *leaves.values()], dy.to(y.dtype))
    return dx.to(y.dtype), dict(zip(leaves, grads, strict=True))


def _row_tiles(
    x: Tensor, affine: Affine, spec: NormSpec, true_channels: Tensor | None
) -> tuple[tuple[int, ...], dict[str, Any]]:
    G, B, T, C = x.shape
    tile = power_of_two(T * (C // spec.groups), most=_TILE)
    rows = power_of_two(B, most=_TILE // tile)
    flags = {
        "B": B, "T": T, "C": C, "GROUPS": spec.groups, "KIND": spec.kind, "ACT": spec.activation,
        "EPS": spec.eps, "WEIGHT": affine.weight is not None, "BIAS": affine.bias is not None,
        "TRUE": true_channels is not None, "BR": rows, "BK": tile,
    }  # fmt: skip
    return (G, blocks(B, rows), spec.groups), flags


@jit
def _place(
    start: Value, b: Value, j: Value, true: Value, model: Value, B: constexpr, T: constexpr,
    C: constexpr, GROUPS: constexpr, TRUE: constexpr, BK: constexpr,
) -> Value:  # fmt: skip
    """Return offsets, channels and mask of a tile of values of group j of examples b."""
    CG: tl.constexpr = C // GROUPS
    k = start + tl.arange(0, BK)
    c = j * CG + k % CG
    inside = (b < B)[:, None] & (k < T * CG)[None, :]
    if TRUE:
        inside = inside & (c < tl.load(true + model))[None, :]
    at = ((model * B + b)[:, None] * T + (k // CG)[None, :]) * C + c[None, :]
    return at, c, inside


@jit
def _count(true: Value, model: Value, T: constexpr, CG: constexpr, TRUE: constexpr) -> Value:
    """Return how many values a statistic is over."""
    n = T * CG * 1.0
    if TRUE:
        n = T * tl.load(true + model).to(tl.float32)
    return n


@jit
def _scaled(
    core: Value, weight: Value, bias: Value, at: Value, on: Value, WEIGHT: constexpr,
    BIAS: constexpr,
) -> Value:  # fmt: skip
    """Return γ and γ·core + β; ``at`` are the offsets of the channels."""
    gamma = tl.full(at.shape, 1.0, tl.float32)
    if WEIGHT:
        gamma = tl.load(weight + at, on, 0.0)
    pre = core * gamma[None, :]
    if BIAS:
        pre = pre + tl.load(bias + at, on, 0.0)[None, :]
    return gamma, pre


@jit
def _forward_kernel(
    x: Value, weight: Value, bias: Value, gate: Value, true: Value, y: Value, mean: Value,
    rstd: Value, row: Value,
    B: constexpr, T: constexpr, C: constexpr, GROUPS: constexpr, KIND: constexpr, ACT: constexpr,
    EPS: constexpr, WEIGHT: constexpr, BIAS: constexpr, TRUE: constexpr, BR: constexpr,
    BK: constexpr,
) -> None:  # fmt: skip
    """One group of BR examples of one model per program."""
    model, j = tl.program_id(0).to(tl.int64), tl.program_id(2)
    b = tl.program_id(1) * BR + tl.arange(0, BR)
    CG: tl.constexpr = C // GROUPS
    n = _count(true, model, T, CG, TRUE)
    middle = tl.zeros([BR], tl.float32)
    if KIND != "rms":
        total = tl.zeros([BR, BK], tl.float32)
        for start in range(0, T * CG, BK):
            at, c, inside = _place(start, b, j, true, model, B, T, C, GROUPS, TRUE, BK)
            total += tl.load(x + at, inside, 0.0).to(tl.float32)
        middle = tl.sum(total, 1) / n
    total = tl.zeros([BR, BK], tl.float32)
    for start in range(0, T * CG, BK):
        at, c, inside = _place(start, b, j, true, model, B, T, C, GROUPS, TRUE, BK)
        away = tl.load(x + at, inside, 0.0).to(tl.float32) - middle[:, None]
        total += tl.where(inside, away * away, 0.0)
    scale = tl.div_rn(1.0, tl.sqrt_rn(tl.sum(total, 1) / n + EPS))
    place = (model * B + b) * GROUPS + j
    tl.store(mean + place, middle, b < B)
    tl.store(rstd + place, scale, b < B)
    for start in range(0, T * CG, BK):
        at, c, inside = _place(start, b, j, true, model, B, T, C, GROUPS, TRUE, BK)
        on = start + tl.arange(0, BK) < T * CG
        value = tl.load(x + at, inside, 0.0).to(tl.float32)
        core = (value - middle[:, None]) * scale[:, None]
        if KIND == "evonorm_s0":
            v = tl.load(gate + model * row + c, on, 0.0)[None, :]
            core = value * tl.sigmoid(value * v) * scale[:, None]
        _, pre = _scaled(core, weight, bias, model * row + c, on, WEIGHT, BIAS)
        full = (b < B)[:, None] & on[None, :]
        tl.store(y + at, tl.where(inside, activate(pre, ACT), 0.0), full)


@jit
def _parts(
    value: Value, d: Value, middle: Value, scale: Value, weight: Value, bias: Value, gate: Value,
    at: Value, on: Value, KIND: constexpr, ACT: constexpr, WEIGHT: constexpr, BIAS: constexpr,
) -> Value:  # fmt: skip
    """Return x̂, what γ multiplies, dy·f', γ·dy·f' and, for EvoNorm, the gate v and σ(vx)."""
    xhat = (value - middle) * scale
    core = xhat
    v = tl.zeros(at.shape, tl.float32)
    s = xhat
    if KIND == "evonorm_s0":
        v = tl.load(gate + at, on, 0.0)
        s = tl.sigmoid(value * v[None, :])
        core = value * s * scale
    gamma, pre = _scaled(core, weight, bias, at, on, WEIGHT, BIAS)
    turned = d * slope(pre, ACT)
    return xhat, core, turned, turned * gamma[None, :], v, s


@jit
def _input_kernel(
    x: Value, dy: Value, weight: Value, bias: Value, gate: Value, true: Value, mean: Value,
    rstd: Value, dx: Value, row: Value,
    B: constexpr, T: constexpr, C: constexpr, GROUPS: constexpr, KIND: constexpr, ACT: constexpr,
    EPS: constexpr, WEIGHT: constexpr, BIAS: constexpr, TRUE: constexpr, BR: constexpr,
    BK: constexpr,
) -> None:  # fmt: skip
    """One group of BR examples of one model per program: two sums, then dx."""
    model, j = tl.program_id(0).to(tl.int64), tl.program_id(2)
    b = tl.program_id(1) * BR + tl.arange(0, BR)
    CG: tl.constexpr = C // GROUPS
    n = _count(true, model, T, CG, TRUE)
    place = (model * B + b) * GROUPS + j
    middle = tl.load(mean + place, b < B, 0.0)[:, None]
    scale = tl.load(rstd + place, b < B, 0.0)[:, None]
    shift = tl.zeros([BR, BK], tl.float32)
    along = tl.zeros([BR, BK], tl.float32)
    for start in range(0, T * CG, BK):
        at, c, inside = _place(start, b, j, true, model, B, T, C, GROUPS, TRUE, BK)
        on = start + tl.arange(0, BK) < T * CG
        value = tl.load(x + at, inside, 0.0).to(tl.float32)
        d = tl.load(dy + at, inside, 0.0).to(tl.float32)
        _, core, _, d, _, _ = _parts(
            value, d, middle, scale, weight, bias, gate, model * row + c, on, KIND, ACT, WEIGHT,
            BIAS,
        )  # fmt: skip
        shift += tl.where(inside, d, 0.0)
        along += tl.where(inside, d * core, 0.0)
    first = (tl.sum(shift, 1) / n)[:, None]
    second = (tl.sum(along, 1) / n)[:, None]
    for start in range(0, T * CG, BK):
        at, c, inside = _place(start, b, j, true, model, B, T, C, GROUPS, TRUE, BK)
        on = start + tl.arange(0, BK) < T * CG
        value = tl.load(x + at, inside, 0.0).to(tl.float32)
        d = tl.load(dy + at, inside, 0.0).to(tl.float32)
        xhat, _, _, d, v, s = _parts(
            value, d, middle, scale, weight, bias, gate, model * row + c, on, KIND, ACT, WEIGHT,
            BIAS,
        )  # fmt: skip
        if KIND == "evonorm_s0":
            over = d * scale
            found = over * s + over * value * (s * (1.0 - s)) * v[None, :]
            found = found - xhat * (scale * second)
        elif KIND == "rms":
            found = (d - xhat * second) * scale
        else:
            found = (d - first - xhat * second) * scale
        full = (b < B)[:, None] & on[None, :]
        tl.store(dx + at, tl.where(inside, found, 0.0), full)


@jit
def _affine_kernel(
    x: Value, dy: Value, weight: Value, bias: Value, gate: Value, true: Value, mean: Value,
    rstd: Value, dweight: Value, dbias: Value, dgate: Value, row: Value,
    B: constexpr, T: constexpr, C: constexpr, GROUPS: constexpr, KIND: constexpr, ACT: constexpr,
    EPS: constexpr, WEIGHT: constexpr, BIAS: constexpr, TRUE: constexpr, BR: constexpr,
    BK: constexpr,
) -> None:  # fmt: skip
    """BK channels of one model per program, over all examples and positions in tiles of BR."""
    model = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BK + tl.arange(0, BK)
    on = c < C
    if TRUE:
        on = on & (c < tl.load(true + model))
    of_weight = tl.zeros([BR, BK], tl.float32)
    of_bias = tl.zeros([BR, BK], tl.float32)
    of_gate = tl.zeros([BR, BK], tl.float32)
    for start in range(0, B * T, BR):
        r = start + tl.arange(0, BR)
        inside = (r < B * T)[:, None] & on[None, :]
        at = (model * B * T + r)[:, None] * C + c[None, :]
        of = (model * B + r // T)[:, None] * GROUPS + (c // (C // GROUPS))[None, :]
        value = tl.load(x + at, inside, 0.0).to(tl.float32)
        d = tl.load(dy + at, inside, 0.0).to(tl.float32)
        scale = tl.load(rstd + of, inside, 0.0)
        _, core, turned, d, _, s = _parts(
            value, d, tl.load(mean + of, inside, 0.0), scale, weight, bias, gate, model * row + c,
            on, KIND, ACT, WEIGHT, BIAS,
        )  # fmt: skip
        of_weight += tl.where(inside, turned * core, 0.0)
        of_bias += tl.where(inside, turned, 0.0)
        if KIND == "evonorm_s0":
            turn = (d * scale) * value * (s * (1.0 - s))
            of_gate += tl.where(inside, turn * value, 0.0)
    at = model * C + c
    if WEIGHT:
        tl.store(dweight + at, tl.sum(of_weight, 0), c < C)
    if BIAS:
        tl.store(dbias + at, tl.sum(of_bias, 0), c < C)
    if KIND == "evonorm_s0":
        tl.store(dgate + at, tl.sum(of_gate, 0), c < C)
