"""Permutation symmetries in the form of Git Re-Basin (Ainsworth et al. 2023, arXiv 2209.04836)."""

from __future__ import annotations

from typing import Any

from zoo.dataset.structure import Structure

__all__ = ["permutation_spec"]


def permutation_spec(structure: Structure) -> dict[str, Any]:
    """Return ``perm_to_axes`` and ``axes_to_perm`` of a structure, JSON-ready.

    ``perm_to_axes[P]`` lists (tensor, axis) that the permutation P moves; ``axes_to_perm[tensor]``
    has the permutation of each axis, None where there is none. ``blocks[P]`` above 1 says that
    units stay within equal blocks (group norm).
    """
    axes_to_perm: dict[str, list[str | None]] = {
        s.name: [None] * len(s.shape) for s in structure.layout.segments
    }
    for group in structure.groups:
        for key, axis in group.axes:
            axes_to_perm[key][axis] = group.name
    return {
        "perm_to_axes": {g.name: [list(a) for a in g.axes] for g in structure.groups},
        "axes_to_perm": axes_to_perm,
        "blocks": {g.name: g.blocks for g in structure.groups},
    }
