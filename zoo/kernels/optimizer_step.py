"""Elementwise optimizer steps over one slab: every model in one launch.

Each computes what the optimizer of that name in :mod:`zoo.optim` computes, in the same order of
operations, from a table of coefficients per model that is worked out in float64 for each model's
own step number. The slab and the moments change in place; the rows of models that are not active
are not touched. A model's gradient can be clipped by its norm, and decay masked by column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.kernels.language import Value, blocks, constexpr, jit, launch, power_of_two, tl

__all__ = ["BLOCK", "FAMILIES", "Pieces", "Update", "elementwise_step", "global_square_sums"]

#: Columns of a program: fixed, so that bits do not depend on it.
BLOCK = 1024
#: Columns of a partial sum of squares.
CHUNK = 4096

#: Optimizers that move every value by itself, with their coefficients in table order; what is
#: behind ``clip_norm`` is for clipping.
FAMILIES = {
    "sgd": ("lr", "momentum", "weight_decay"),
    "adam": ("step_size", "inverse_root", "gain1", "beta2", "gain2", "eps", "weight_decay"),
    "adamw": ("step_size", "inverse_root", "gain1", "beta2", "gain2", "eps", "keep"),
    "rmsprop": ("lr", "alpha", "gain", "eps", "momentum", "weight_decay"),
    "lion": ("lr", "keep", "gain1", "gain2"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """One step of a group: what it reads, and the slabs that it writes.

    Args:
        p: ``[G, columns]`` parameters, each row contiguous.
        g: ``[G, columns]`` contiguous gradients.
        moments: contiguous slabs of the same shape, as the optimizer has them.
        table: ``[n, G, 1]`` coefficients in the optimizer's order, ``clip_norm`` last if clipped.
        active: ``[G]`` bool: the rows to step.
        nesterov: whether the momentum looks ahead.
        sums: from :func:`global_square_sums`, to clip by norm.
    """

    p: Tensor
    g: Tensor
    moments: Sequence[Tensor]
    table: Tensor
    active: Tensor
    nesterov: bool = False
    sums: Tensor | None = None

    def flags(self) -> dict[str, Any]:
        """Return the constants that every kernel of an optimizer is compiled for."""
        parts = 1 if self.sums is None else self.sums.shape[1]
        return {
            "COLUMNS": self.g.shape[1], "COEFFICIENTS": len(self.table), "PARTS": parts,
            "CLIP": self.sums is not None, "BP": power_of_two(parts),
        }  # fmt: skip

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Return p, g, both moments (None if missing), coefficients ``[G, n]`` and active."""
        second = self.moments[1] if len(self.moments) > 1 else None
        by_model = self.table.squeeze(-1).mT.contiguous()
        return self.p, self.g, self.moments[0], second, by_model, self.active


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """How the tensors of a layout are cut, where a step takes norms or products of them.

    Args:
        rows: ``[n, 6]`` int32, one entry per piece of a tensor: first column, one past the last,
            first piece of the tensor, one past its last, whether it is a matrix, whether it decays.
        longest: columns of the longest piece.
        most: pieces of the tensor with the most.
    """

    rows: Tensor
    longest: int
    most: int


@jit
def clipped(
    g: Value, sums: Value, limit: Value, model: Value, CLIP: constexpr,
    PARTS: constexpr, BP: constexpr,
) -> Value:  # fmt: skip
    """Return g · min(1, limit/(‖g‖ + 1e-6)), the norm from the model's partial sums in order."""
    if CLIP:
        at = tl.arange(0, BP)
        norm = tl.sqrt_rn(tl.sum(tl.load(sums + model * PARTS + at, at < PARTS, 0.0), 0))
        factor = tl.div_rn(limit, norm + 1e-6)
        g = g * tl.where(factor > 1.0, 1.0, factor)
    return g


@jit
def adam_moments(g: Value, m: Value, v: Value, gain1: Value, beta2: Value, gain2: Value) -> Value:
    """Return Adam's moments m + (1−β₁)(g − m) and β₂v + (1−β₂)g²."""
    return m + gain1 * (g - m), v * beta2 + (gain2 * g) * g


@jit
def _square_kernel(
    g: Value, out: Value, row: Value, COLUMNS: constexpr, PARTS: constexpr, CHUNK: constexpr
) -> None:
    """One chunk of one model per program."""
    model = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    at = part * CHUNK + tl.arange(0, CHUNK)
    x = tl.load(g + model * row + at, at < COLUMNS, 0.0).to(tl.float32)
    tl.store(out + model * PARTS + part, tl.sum(x * x, 0))


@jit
def _step_kernel(
    p: Value, g: Value, first: Value, second: Value, table: Value, active: Value, mask: Value,
    sums: Value, columns: Value, row: Value,
    COLUMNS: constexpr, COEFFICIENTS: constexpr, KIND: constexpr, NESTEROV: constexpr,
    MASKED: constexpr, CLIP: constexpr, PARTS: constexpr, BP: constexpr, LISTED: constexpr,
    BLOCK: constexpr,
) -> None:  # fmt: skip
    """BLOCK columns of one model per program; the table is ``[models, COEFFICIENTS]``."""
    model = tl.program_id(0).to(tl.int64)
    if tl.load(active + model) != 0:
        start = tl.program_id(1) * BLOCK
        end = COLUMNS
        if LISTED:
            start = tl.load(columns + 2 * tl.program_id(1))
            end = tl.load(columns + 2 * tl.program_id(1) + 1)
        at = start + tl.arange(0, BLOCK)
        inside = at < end
        c = table + model * COEFFICIENTS
        x = tl.load(p + model * row + at, inside, 0.0)
        d = tl.load(g + model * COLUMNS + at, inside, 0.0).to(tl.float32)
        m = tl.load(first + model * COLUMNS + at, inside, 0.0)
        d = clipped(d, sums, tl.load(c + COEFFICIENTS - 1), model, CLIP, PARTS, BP)
        on = inside
        if MASKED:
            on = tl.load(mask + at, inside, 0) != 0
        if KIND == "sgd":
            d = d + tl.where(on, tl.load(c + 2), 0.0) * x
            m = d + tl.load(c + 1) * m
            move = d + tl.load(c + 1) * m if NESTEROV else m
            x = x - tl.load(c) * move
        elif KIND == "lion":
            turn = m + tl.load(c + 2) * (d - m)
            sign = tl.where(turn > 0, 1.0, tl.where(turn < 0, -1.0, tl.where(turn == 0, 0.0, turn)))
            x = x * tl.where(on, tl.load(c + 1), 1.0) - tl.load(c) * sign
            m = m + tl.load(c + 3) * (d - m)
        elif KIND == "rmsprop":
            b = tl.load(second + model * COLUMNS + at, inside, 0.0)
            d = d + tl.where(on, tl.load(c + 5), 0.0) * x
            m = m * tl.load(c + 1) + (tl.load(c + 2) * d) * d
            b = tl.div_rn(d, tl.sqrt_rn(m) + tl.load(c + 3)) + tl.load(c + 4) * b
            x = x - tl.load(c) * b
            tl.store(second + model * COLUMNS + at, b, inside)
        else:
            v = tl.load(second + model * COLUMNS + at, inside, 0.0)
            if KIND == "adam":
                d = d + tl.where(on, tl.load(c + 6), 0.0) * x
            else:
                x = x * tl.where(on, tl.load(c + 6), 1.0)
            m, v = adam_moments(d, m, v, tl.load(c + 2), tl.load(c + 3), tl.load(c + 4))
            root = tl.load(c + 5) + tl.sqrt_rn(v) * tl.load(c + 1)
            x = x - tl.load(c) * tl.div_rn(m, root)
            tl.store(second + model * COLUMNS + at, v, inside)
        tl.store(first + model * COLUMNS + at, m, inside)
        tl.store(p + model * row + at, x, inside)


def global_square_sums(g: Tensor) -> Tensor:
    """Return partial sums of squares ``[G, parts]`` of gradients ``[G, columns]``."""
    G, columns = g.shape
    parts = blocks(columns, CHUNK)
    out = torch.empty(G, parts, device=g.device)
    launch(
        _square_kernel, (G, parts), g, out, g.stride(0), COLUMNS=columns, PARTS=parts, CHUNK=CHUNK
    )
    return out


def elementwise_step(
    kind: str, update: Update, *, mask: Tensor | None = None, columns: Tensor | None = None
) -> None:
    """Step the slab in place; only ever a kernel, the plain form is the optimizer's ``update``.

    Args:
        kind: a name of :data:`FAMILIES`.
        update: the step.
        mask: ``[columns]`` bool, where weights decay; None for everywhere.
        columns: ``[n, 2]`` int32 first and one past the last column of each block of at most
            :data:`BLOCK` to step; None for all columns.
    """
    G, width = update.g.shape
    number = blocks(width, BLOCK) if columns is None else len(columns)
    launch(
        _step_kernel, (G, number), *update.tensors(), mask, update.sums, columns,
        update.p.stride(0), **update.flags(), KIND=kind, NESTEROV=update.nesterov,
        MASKED=mask is not None, LISTED=columns is not None, BLOCK=BLOCK,
    )  # fmt: skip
