"""Optimizer steps that rescale each tensor's update by norms: LARS and LAMB, two launches.

The first launch sums squares, a chunk of a tensor per program; the second adds up a tensor's chunks
in order, wherever the chunk that it steps stands. What is computed is what :mod:`zoo.optim.lars`
and :mod:`zoo.optim.lamb` say.
"""

from __future__ import annotations

import torch

from zoo.kernels.language import Value, constexpr, jit, launch, power_of_two, tl
from zoo.kernels.optimizer_step import Pieces, Update, adam_moments, clipped

__all__ = ["CHUNK_COLUMNS", "LAYERWISE", "layerwise_step"]

#: Coefficients in table order.
LAYERWISE = {
    "lars": ("lr", "momentum", "weight_decay", "trust", "eps"),
    "lamb": ("lr", "inverse", "inverse_root", "gain1", "beta2", "gain2", "eps", "weight_decay"),
}
#: Columns of a chunk of a tensor.
CHUNK_COLUMNS = 2048


@jit
def _direction(m: Value, v: Value, x: Value, c: Value, decay: Value) -> Value:
    """Return LAMB's u = m̂/(√v̂ + ε) + λp."""
    root = tl.load(c + 6) + tl.sqrt_rn(v) * tl.load(c + 2)
    return tl.div_rn(tl.load(c + 1) * m, root) + decay * x


@jit
def _sums_kernel(
    p: Value, g: Value, first: Value, second: Value, table: Value, active: Value, chunks: Value,
    clip_sums: Value, out: Value, row: Value,
    COLUMNS: constexpr, COEFFICIENTS: constexpr, KIND: constexpr, CHUNKS: constexpr,
    CLIP: constexpr, PARTS: constexpr, BP: constexpr, BLOCK: constexpr,
) -> None:  # fmt: skip
    """One chunk a program: Σp², and Σg² for LARS or Σu² for LAMB, whose moments it moves."""
    model = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    if tl.load(active + model) != 0:
        at = tl.load(chunks + 6 * chunk) + tl.arange(0, BLOCK)
        inside = at < tl.load(chunks + 6 * chunk + 1)
        c = table + model * COEFFICIENTS
        x = tl.load(p + model * row + at, inside, 0.0)
        d = tl.load(g + model * COLUMNS + at, inside, 0.0).to(tl.float32)
        d = clipped(d, clip_sums, tl.load(c + COEFFICIENTS - 1), model, CLIP, PARTS, BP)
        if KIND == "lamb":
            m = tl.load(first + model * COLUMNS + at, inside, 0.0)
            v = tl.load(second + model * COLUMNS + at, inside, 0.0)
            m, v = adam_moments(d, m, v, tl.load(c + 3), tl.load(c + 4), tl.load(c + 5))
            tl.store(first + model * COLUMNS + at, m, inside)
            tl.store(second + model * COLUMNS + at, v, inside)
            decay = tl.where(tl.load(chunks + 6 * chunk + 5) != 0, tl.load(c + 7), 0.0)
            d = tl.where(inside, _direction(m, v, x, c, decay), 0.0)
        place = out + 2 * (model * CHUNKS + chunk)
        tl.store(place, tl.sum(x * x, 0))
        tl.store(place + 1, tl.sum(d * d, 0))


@jit
def _layer_step_kernel(
    p: Value, g: Value, first: Value, second: Value, table: Value, active: Value, chunks: Value,
    clip_sums: Value, sums: Value, row: Value,
    COLUMNS: constexpr, COEFFICIENTS: constexpr, KIND: constexpr, CHUNKS: constexpr,
    NESTEROV: constexpr, CLIP: constexpr, PARTS: constexpr, BP: constexpr, MOST: constexpr,
    BLOCK: constexpr,
) -> None:  # fmt: skip
    """One chunk a program: the tensor's norms from its chunks in order, then the step."""
    model = tl.program_id(0).to(tl.int64)
    if tl.load(active + model) != 0:
        of_chunk = chunks + 6 * tl.program_id(1)
        at = tl.load(of_chunk) + tl.arange(0, BLOCK)
        inside = at < tl.load(of_chunk + 1)
        part = tl.load(of_chunk + 2) + tl.arange(0, MOST)
        own = part < tl.load(of_chunk + 3)
        place = sums + 2 * (model * CHUNKS + part)
        of_p = tl.sqrt_rn(tl.sum(tl.load(place, own, 0.0), 0))
        other = tl.sqrt_rn(tl.sum(tl.load(place + 1, own, 0.0), 0))
        matrix = tl.load(of_chunk + 4) != 0
        decays = tl.load(of_chunk + 5) != 0
        c = table + model * COEFFICIENTS
        x = tl.load(p + model * row + at, inside, 0.0)
        m = tl.load(first + model * COLUMNS + at, inside, 0.0)
        if KIND == "lars":
            decay = tl.where(decays, tl.load(c + 2), 0.0)
            d = tl.load(g + model * COLUMNS + at, inside, 0.0).to(tl.float32)
            d = clipped(d, clip_sums, tl.load(c + COEFFICIENTS - 1), model, CLIP, PARTS, BP)
            rate = tl.div_rn(tl.load(c + 3) * of_p, other + decay * of_p + tl.load(c + 4))
            rate = tl.where(matrix & (other > 0) & (rate > 0), rate, 1.0)
            d = (d + decay * x) * rate
            m = d + tl.load(c + 1) * m
            move = d + tl.load(c + 1) * m if NESTEROV else m
            tl.store(first + model * COLUMNS + at, m, inside)
            x = x - tl.load(c) * move
        else:
            decay = tl.where(decays, tl.load(c + 7), 0.0)
            v = tl.load(second + model * COLUMNS + at, inside, 0.0)
            known = matrix & (of_p > 0) & (other > 0)
            rate = tl.where(known, tl.div_rn(of_p, tl.where(known, other, 1.0)), 1.0)
            x = x - (tl.load(c) * rate) * _direction(m, v, x, c, decay)
        tl.store(p + model * row + at, x, inside)


def layerwise_step(kind: str, update: Update, chunks: Pieces) -> None:
    """Step the slab in place.

    Args:
        kind: a name of :data:`LAYERWISE`.
        update: the step.
        chunks: pieces of at most :data:`CHUNK_COLUMNS`.
    """
    grid = (len(update.g), len(chunks.rows))
    flags = update.flags() | {"KIND": kind, "CHUNKS": grid[1], "BLOCK": CHUNK_COLUMNS}
    found = torch.empty(*grid, 2, device=update.p.device)
    shared = (*update.tensors(), chunks.rows, update.sums, found, update.p.stride(0))
    launch(_sums_kernel, grid, *shared, **flags)
    most = power_of_two(chunks.most)
    launch(_layer_step_kernel, grid, *shared, **flags, NESTEROV=update.nesterov, MOST=most)
