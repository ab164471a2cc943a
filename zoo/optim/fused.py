"""Optimizer steps through the kernels: the same updates as :meth:`Optimizer.step`, in place.

The tables that tell a kernel where each tensor stands are made once for a layout. An optimizer
that has no kernel takes its plain step, under the same mask of active models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.layout import Layout, Segment
from zoo.kernels.language import on_device
from zoo.kernels.layerwise import CHUNK_COLUMNS, LAYERWISE, layerwise_step
from zoo.kernels.newton_schulz import newton_schulz
from zoo.kernels.optimizer_step import (
    BLOCK,
    FAMILIES,
    Pieces,
    Update,
    elementwise_step,
    global_square_sums,
)
from zoo.kernels.projected import PROJECTED, projected_step
from zoo.optim.base import OPTIMIZERS, Optimizer
from zoo.optim.masks import DECAY_MASKS, column_mask
from zoo.optim.muon import RMS, Muon
from zoo.optim.segments import is_matrix, trained_segments

__all__ = ["fused_step", "has_kernel"]

_BY_NAME = {*FAMILIES, *LAYERWISE, *PROJECTED, "muon"}


def has_kernel(optimizer: Optimizer) -> bool:
    """Return whether the optimizer's step is a kernel on a GPU."""
    return _name(optimizer) in _BY_NAME


def fused_step(
    optimizer: Optimizer, update: Update, run: Mapping[str, Any], layout: Layout
) -> None:
    """Step the active rows of a slab in place, and leave the others as they are.

    Args:
        optimizer: the family.
        update: the step; what ``run`` decides of it is filled in.
        run: the cohort's shared fields.
        layout: of the rows.
    """
    name = _name(optimizer)
    if name not in _BY_NAME or not on_device(update.p, update.g, update.table):
        _plain_step(optimizer, update, run, layout)
        return
    sums = global_square_sums(update.g) if run.get("has_clip_norm") else None
    update = replace(update, nesterov=bool(run.get("nesterov")), sums=sums)
    roles, device = DECAY_MASKS[str(run.get("decay_mask", "all"))], update.p.device
    if name in LAYERWISE:
        layerwise_step(name, update, _chunks(layout, roles, device))
    elif name in PROJECTED:
        projected_step(name, update, _rows(layout, roles, device))
    elif name == "muon":
        _muon_step(update, roles, layout)
    else:
        elementwise_step(name, update, mask=_decay_columns(layout, roles, device))


def _plain_step(
    optimizer: Optimizer, update: Update, run: Mapping[str, Any], layout: Layout
) -> None:
    names = optimizer.names(clipped=bool(run.get("has_clip_norm")))
    coefficients = dict(zip(names, update.table.unbind(0), strict=True))
    p, moments = update.p, update.moments
    new, moved = optimizer.step(p, update.g, moments, coefficients, run, layout)
    on = update.active.unsqueeze(1)
    for old, value in zip((p, *moments), (new, *moved), strict=True):
        old.copy_(torch.where(on, value, old))


def _muon_step(update: Update, roles: frozenset[str], layout: Layout) -> None:
    """AdamW's kernel on all but the hidden matrices; these, bucketed by shape, orthogonalised."""
    names, p, g, first = Muon.coefficients, update.p, update.g, update.moments[0]
    clip = [len(names)] if update.sums is not None else []
    adamw = [names.index(n) for n in FAMILIES["adamw"]] + clip
    elementwise_step(
        "adamw",
        replace(update, table=update.table[adamw]),
        mask=_decay_columns(layout, roles, p.device),
        columns=_blocks_without(_hidden(layout), layout, p.device),
    )
    column = dict(zip(names, update.table, strict=False))
    if update.sums is not None:
        norm = update.sums.sum(1, keepdim=True).sqrt()
        g = g * (update.table[len(names)] / (norm + 1e-6)).clamp(max=1.0)
    on = update.active.unsqueeze(1)
    for segment in _hidden(layout):
        own = slice(segment.offset, segment.stop)
        m = torch.addcmul(first[:, own], column["gain"], g[:, own] - first[:, own])
        u = m
        if update.nesterov:
            u = torch.addcmul(g[:, own], column["momentum"], m - g[:, own])
        matrix = u.reshape(len(u), segment.shape[0], -1)
        turned = newton_schulz(matrix).flatten(1)
        keep = column["keep"] if segment.role in roles else 1.0
        size = RMS * max(matrix.shape[1:]) ** 0.5
        new = torch.addcmul(p[:, own] * keep, column["lr"] * size, turned, value=-1)
        p[:, own] = torch.where(on, new, p[:, own])
        first[:, own] = torch.where(on, m, first[:, own])


def _name(optimizer: Optimizer) -> str:
    return next((name for name in OPTIMIZERS.names() if OPTIMIZERS[name] is optimizer), "")


def _hidden(layout: Layout) -> list[Segment]:
    return [s for s in trained_segments(layout) if is_matrix(s)][:-1]


@cache
def _decay_columns(layout: Layout, roles: frozenset[str], device: torch.device) -> Tensor | None:
    """Return ``[trained]`` bool, or None where all columns decay."""
    if roles == DECAY_MASKS["all"]:
        return None
    return column_mask(layout, roles, torch.empty(0, device=device))


@cache
def _chunks(layout: Layout, roles: frozenset[str], device: torch.device) -> Pieces:
    """Cut every tensor into chunks of at most CHUNK_COLUMNS."""
    cuts = {s: [*range(s.offset, s.stop, CHUNK_COLUMNS), s.stop] for s in trained_segments(layout)}
    return _pieces(cuts, roles, device)


@cache
def _rows(layout: Layout, roles: frozenset[str], device: torch.device) -> Pieces:
    """Cut every matrix into its rows; a bias or a parameter of a norm is one row."""
    cuts = {}
    for s in trained_segments(layout):
        length = s.size // s.shape[0] if is_matrix(s) else s.size
        cuts[s] = [*range(s.offset, s.stop, length), s.stop]
    return _pieces(cuts, roles, device)


def _pieces(
    cuts: Mapping[Segment, Sequence[int]], roles: frozenset[str], device: torch.device
) -> Pieces:
    rows: list[list[int]] = []
    for s, edges in cuts.items():
        first = len(rows)
        past = first + len(edges) - 1
        flags = [int(is_matrix(s)), int(s.role in roles)]
        rows += [[start, stop, first, past, *flags] for start, stop in pairwise(edges)]
    longest = max(stop - start for start, stop, *_ in rows)
    most = max(len(edges) - 1 for edges in cuts.values())
    return Pieces(torch.tensor(rows, dtype=torch.int32, device=device), longest, most)


def _blocks_without(hidden: Sequence[Segment], layout: Layout, device: torch.device) -> Tensor:
    """Return ``[n, 2]`` int32 blocks that cover every trained column but those of ``hidden``."""
    pieces = [
        [start, min(start + BLOCK, s.stop)]
        for s in trained_segments(layout)
        if s not in hidden
        for start in range(s.offset, s.stop, BLOCK)
    ]
    return torch.tensor(pieces, dtype=torch.int32, device=device)
