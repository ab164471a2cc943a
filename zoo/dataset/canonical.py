"""Canonical rows: one representative of all the rows that compute the same function.

Two steps, both exact symmetries of the function. The *normal form* takes the free factors away: a
unit of a positively homogeneous activation (ReLU, leaky ReLU) gets incoming weights of norm 1, its
outgoing ones the inverse factor; a unit of an odd activation (tanh) gets the sign that makes the
cubes of its incoming weights sum to something positive. The *sorting* then orders the units of each
layer by ‖incoming‖·‖outgoing‖, a number that no permutation of other layers changes.

In a layer with a norm the incoming weights are the norm's own weight and bias. (A kernel before a
norm has a further freedom, which holds only up to the norm's ε: it is left alone.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.architectures.layout import BUFFER
from zoo.architectures.symmetry import PermutationGroup
from zoo.arithmetic import pinned
from zoo.dataset.row_symmetry import permute_rows, scale_rows, unit_values
from zoo.dataset.structure import Structure

__all__ = ["canonical_rows", "normal_form", "sorted_rows", "sorting_orders"]


@pinned(gradients="as they are")
def canonical_rows(rows: Tensor, structure: Structure) -> Tensor:
    """Return the canonical representative of each row: normal form, then sorted units.

    Rows that differ by a permutation, by positive factors on ReLU units or by signs of tanh units
    have the same canonical row, up to rounding and to exact ties between units.

    Args:
        rows: ``[B, P]`` floating point.
        structure: of the rows.

    Returns:
        ``[B, P]`` of the same type, with the same outputs as ``rows`` (relative 1e-5).
    """
    return sorted_rows(normal_form(rows, structure), structure)


@pinned(gradients="as they are")
def normal_form(rows: Tensor, structure: Structure) -> Tensor:
    """Return rows with their scale and sign freedoms fixed, layer by layer from the input.

    Scale: ‖incoming‖₂ = 1 for each unit (a unit without incoming weights keeps its scale). Sign:
    Σ incoming³ ≥ 0.
    """
    work = rows.double()
    for symmetry in structure.units:
        size = structure.group(symmetry.group).size
        incoming = unit_values(work, structure, symmetry.multiplied, size)
        if symmetry.kind == "scale":
            norm = incoming.norm(dim=2)
            factors = torch.where(norm > 0, 1 / norm.clamp(min=1e-300), 1.0)
        else:
            factors = torch.where(incoming.pow(3).sum(2) < 0, -1.0, 1.0).to(work.dtype)
        work = scale_rows(work, structure, symmetry, factors)
    return work.to(rows.dtype)


@pinned(gradients="as they are")
def sorting_orders(rows: Tensor, structure: Structure, group: PermutationGroup) -> Tensor:
    """Return the order ``[B, size]`` of a group's units: by falling ‖incoming‖·‖outgoing‖.

    Ties go by the sum of the incoming weights. Blocks are ordered by the sum of their units' keys,
    units within their block.
    """
    layout = structure.layout
    incoming = [key for key in group.axes[:-1] if layout[key[0]].role != BUFFER]
    work = rows.double()
    before = unit_values(work, structure, incoming, group.size)
    after = unit_values(work, structure, group.axes[-1:], group.size)
    key = before.norm(dim=2) * after.norm(dim=2)
    # summed in sorted order, so that a permutation of the layer below does not change the rounding
    first = before.sort(dim=2).values.sum(2).argsort(dim=1, stable=True)
    ranked = key.gather(1, first)
    blocks = group.blocks
    if blocks == 1:
        by_key: Tensor = ranked.argsort(dim=1, descending=True, stable=True)
        order: Tensor = first.gather(1, by_key)
        return order
    each = group.size // blocks
    inner = key.view(-1, blocks, each).argsort(dim=2, descending=True, stable=True)
    inner = inner + (torch.arange(blocks) * each).view(1, blocks, 1)
    outer = key.view(-1, blocks, each).sum(2).argsort(dim=1, descending=True, stable=True)
    picked: Tensor = inner.gather(1, outer.unsqueeze(2).expand(-1, -1, each)).flatten(1)
    return picked


@pinned(gradients="as they are")
def sorted_rows(rows: Tensor, structure: Structure) -> Tensor:
    """Return rows with the units of every layer in canonical order; outputs do not change."""
    for group in structure.groups:
        orders = sorting_orders(rows, structure, group)
        rows = permute_rows(rows, structure, group, orders)
    return rows
