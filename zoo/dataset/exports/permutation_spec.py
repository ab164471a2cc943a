"""Permutation symmetries in the form of Git Re-Basin (Ainsworth et al. 2023, arXiv 2209.04836).

Its matching sums the similarity of every tensor listed under a permutation, and permutes freely.
So only learned weights are listed there: running statistics move along, but are of another scale
and would drown the weights. Units that may not move freely (group norm) are listed apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zoo.architectures.layout import BUFFER
from zoo.architectures.symmetry import PermutationGroup
from zoo.dataset.structure import Structure

__all__ = ["permutation_spec"]


def permutation_spec(structure: Structure) -> dict[str, Any]:
    """Return the permutation specification of a structure, JSON-ready.

    ``perm_to_axes[P]`` lists the (tensor, axis) pairs that the permutation P moves, and
    ``axes_to_perm[tensor]`` has the permutation of each axis, None where there is none: both of
    learned tensors alone, as the matching of Git Re-Basin reads them. ``running_statistics`` has
    the same two mappings for the running statistics of batch norms: apply the permutation to them
    as well, but do not match on them. ``within_blocks[P]`` (group norm) has ``blocks`` and
    ``axes`` (running statistics included): the units of P keep to equal blocks, which move as
    wholes. These P are in no other mapping, so that free matching leaves their units in place.
    """
    free = [group for group in structure.groups if group.blocks == 1]
    names = {s.name: s.role == BUFFER for s in structure.layout.segments}
    learned = [name for name, buffer in names.items() if not buffer]
    running = [name for name, buffer in names.items() if buffer]
    return {
        **_mappings(structure, free, learned),
        "running_statistics": _mappings(structure, free, running),
        "within_blocks": {
            group.name: {"blocks": group.blocks, "axes": [list(axis) for axis in group.axes]}
            for group in structure.groups
            if group.blocks > 1
        },
    }


def _mappings(
    structure: Structure, groups: Iterable[PermutationGroup], tensors: Iterable[str]
) -> dict[str, Any]:
    """Return both mappings of the groups, over some of the tensors."""
    axes_to_perm: dict[str, list[str | None]] = {
        name: [None] * len(structure.layout[name].shape) for name in tensors
    }
    perm_to_axes: dict[str, list[list[Any]]] = {}
    for group in groups:
        own = [(key, axis) for key, axis in group.axes if key in axes_to_perm]
        if own:
            perm_to_axes[group.name] = [[key, axis] for key, axis in own]
        for key, axis in own:
            axes_to_perm[key][axis] = group.name
    return {"perm_to_axes": perm_to_axes, "axes_to_perm": axes_to_perm}
