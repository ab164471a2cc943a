"""SGDP and AdamP: optimizer steps whose update is projected row by row, two launches.

The first launch moves the moments and takes, one row of a tensor per program, the products that
cosines and tangents are made of. The second decides for each tensor between rows, whole layer and
no projection (`zoo/optim/projection.py`) by a select, so that nothing waits for the device.
"""

from __future__ import annotations

import torch

from zoo.kernels.language import Value, constexpr, jit, launch, power_of_two, tl
from zoo.kernels.optimizer_step import Pieces, Update, adam_moments, clipped

__all__ = ["PROJECTED", "projected_step"]

#: Coefficients in table order.
PROJECTED = {
    "sgdp": ("lr", "momentum", "shrink", "projection_delta", "projection_decay"),
    "adamp": (
        "step_size", "inverse_root", "gain1", "beta2", "gain2", "eps", "shrink",
        "projection_delta", "projection_decay",
    ),
}  # fmt: skip


@jit
def _update(d: Value, m: Value, v: Value, c: Value, KIND: constexpr, NESTEROV: constexpr) -> Value:
    """Return the update before projection, from the moved moments."""
    if KIND == "sgdp":
        u = d + tl.load(c + 1) * m if NESTEROV else m
    else:
        turn = m + tl.load(c + 2) * (d - m) if NESTEROV else m
        u = tl.div_rn(turn, tl.load(c + 5) + tl.sqrt_rn(v) * tl.load(c + 1))
    return u


@jit
def _products_kernel(
    p: Value, g: Value, first: Value, second: Value, table: Value, active: Value, rows: Value,
    clip_sums: Value, out: Value, row: Value,
    COLUMNS: constexpr, COEFFICIENTS: constexpr, KIND: constexpr, ROWS: constexpr,
    NESTEROV: constexpr, CLIP: constexpr, PARTS: constexpr, BP: constexpr, BLOCK: constexpr,
) -> None:  # fmt: skip
    """One row of a tensor per program: moments, then ‖w‖², ‖g‖², w·g and w·u."""
    model = tl.program_id(0).to(tl.int64)
    line = tl.program_id(1)
    if tl.load(active + model) != 0:
        start = tl.load(rows + 6 * line)
        stop = tl.load(rows + 6 * line + 1)
        c = table + model * COEFFICIENTS
        ww = tl.zeros([BLOCK], tl.float32)
        gg = tl.zeros([BLOCK], tl.float32)
        wg = tl.zeros([BLOCK], tl.float32)
        wu = tl.zeros([BLOCK], tl.float32)
        for offset in range(start, stop, BLOCK):
            at = offset + tl.arange(0, BLOCK)
            inside = at < stop
            x = tl.load(p + model * row + at, inside, 0.0)
            d = tl.load(g + model * COLUMNS + at, inside, 0.0).to(tl.float32)
            d = clipped(d, clip_sums, tl.load(c + COEFFICIENTS - 1), model, CLIP, PARTS, BP)
            m = tl.load(first + model * COLUMNS + at, inside, 0.0)
            v = m
            if KIND == "sgdp":
                m = d + tl.load(c + 1) * m
            else:
                v = tl.load(second + model * COLUMNS + at, inside, 0.0)
                m, v = adam_moments(d, m, v, tl.load(c + 2), tl.load(c + 3), tl.load(c + 4))
                tl.store(second + model * COLUMNS + at, v, inside)
            tl.store(first + model * COLUMNS + at, m, inside)
            u = tl.where(inside, _update(d, m, v, c, KIND, NESTEROV), 0.0)
            ww += x * x
            gg += d * d
            wg += x * d
            wu += x * u
        place = out + 4 * (model * ROWS + line)
        tl.store(place, tl.sum(ww, 0))
        tl.store(place + 1, tl.sum(gg, 0))
        tl.store(place + 2, tl.sum(wg, 0))
        tl.store(place + 3, tl.sum(wu, 0))


@jit
def _cosine(ww: Value, gg: Value, wg: Value) -> Value:
    """Return |cos| with norms of at least 1e-8."""
    norms = tl.maximum(tl.sqrt_rn(ww), 1e-8) * tl.maximum(tl.sqrt_rn(gg), 1e-8)
    return tl.abs(tl.div_rn(wg, norms))


@jit
def _along(ww: Value, wu: Value) -> Value:
    """Return w·u / (‖w‖ + 1e-8)²: times w, the part of u along w."""
    norm = tl.sqrt_rn(ww) + 1e-8
    return tl.div_rn(tl.div_rn(wu, norm), norm)


@jit
def _projected_step_kernel(
    p: Value, g: Value, first: Value, second: Value, table: Value, active: Value, rows: Value,
    clip_sums: Value, products: Value, row: Value,
    COLUMNS: constexpr, COEFFICIENTS: constexpr, KIND: constexpr, ROWS: constexpr,
    NESTEROV: constexpr, CLIP: constexpr, PARTS: constexpr, BP: constexpr, MOST: constexpr,
    BLOCK: constexpr,
) -> None:  # fmt: skip
    """One row of a tensor per program: which projection its tensor takes, then the step."""
    model = tl.program_id(0).to(tl.int64)
    line = tl.program_id(1)
    if tl.load(active + model) != 0:
        start = tl.load(rows + 6 * line)
        stop = tl.load(rows + 6 * line + 1)
        length = (stop - start).to(tl.float32)
        fellow = tl.load(rows + 6 * line + 2) + tl.arange(0, MOST)
        own = fellow < tl.load(rows + 6 * line + 3)
        count = tl.sum(tl.where(own, 1.0, 0.0), 0)
        matrix = tl.load(rows + 6 * line + 4) != 0
        c = table + model * COEFFICIENTS
        # SGDP has the projection's δ and κ at 3 and 4 and the decay at 2, AdamP at 7, 8 and 6.
        SHIFT: constexpr = 0 if KIND == "sgdp" else 4
        delta = tl.load(c + 3 + SHIFT)
        place = products + 4 * (model * ROWS + fellow)
        ww = tl.load(place, own, 0.0)
        gg = tl.load(place + 1, own, 0.0)
        wg = tl.load(place + 2, own, 0.0)
        wu = tl.load(place + 3, own, 0.0)
        steepest = tl.max(tl.where(own, _cosine(ww, gg, wg), 0.0), 0)
        by_row = steepest < tl.div_rn(delta, tl.sqrt_rn(length))
        all_ww = tl.sum(ww, 0)
        slope = _cosine(all_ww, tl.sum(gg, 0), tl.sum(wg, 0))
        whole = slope < tl.div_rn(delta, tl.sqrt_rn(length * count))
        mine = products + 4 * (model * ROWS + line)
        pull = _along(tl.load(mine), tl.load(mine + 3))
        pull = tl.where(by_row, pull, tl.where(whole, _along(all_ww, tl.sum(wu, 0)), 0.0))
        done = matrix & (by_row | whole)
        pull = tl.where(done, pull, 0.0)
        shrink = tl.where(tl.load(rows + 6 * line + 5) != 0, tl.load(c + 2 + SHIFT), 0.0)
        keep = 1.0 - shrink * tl.where(done, tl.load(c + 4 + SHIFT), 1.0)
        for offset in range(start, stop, BLOCK):
            at = offset + tl.arange(0, BLOCK)
            inside = at < stop
            x = tl.load(p + model * row + at, inside, 0.0)
            d = tl.load(g + model * COLUMNS + at, inside, 0.0).to(tl.float32)
            d = clipped(d, clip_sums, tl.load(c + COEFFICIENTS - 1), model, CLIP, PARTS, BP)
            m = tl.load(first + model * COLUMNS + at, inside, 0.0)
            v = m
            if KIND == "adamp":
                v = tl.load(second + model * COLUMNS + at, inside, 0.0)
            u = _update(d, m, v, c, KIND, NESTEROV) - pull * x
            tl.store(p + model * row + at, x * keep - tl.load(c) * u, inside)


def projected_step(kind: str, update: Update, rows: Pieces) -> None:
    """Step the slab in place.

    Args:
        kind: a name of :data:`PROJECTED`.
        update: the step.
        rows: one piece per row of a matrix.
    """
    grid = (len(update.g), len(rows.rows))
    flags = update.flags() | {
        "KIND": kind, "ROWS": grid[1], "NESTEROV": update.nesterov,
        "BLOCK": power_of_two(rows.longest, least=32, most=1024),
    }  # fmt: skip
    found = torch.empty(*grid, 4, device=update.p.device)
    shared = (*update.tensors(), rows.rows, update.sums, found, update.p.stride(0))
    launch(_products_kernel, grid, *shared, **flags)
    launch(_projected_step_kernel, grid, *shared, **flags, MOST=power_of_two(rows.most))
