"""The projection of SGDP and AdamP (Heo et al. 2020, arXiv 2006.08217).

Weights whose scale does not matter grow under momentum, and their effective rate falls. So where
the gradient is nearly orthogonal to the weights, which tells such weights, the radial part of the
update is taken out: filter by filter if |cos(g, w)| is small for every filter, else of the whole
layer if it is small there, else not at all. Small is below δ/√(values).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.architectures.layout import Layout
from zoo.optim.segments import at, is_matrix, row_norm, rows, spread, trained_segments

__all__ = ["project", "project_slab", "project_tensor"]

#: Beside the norms that are divided by.
_EPS = 1e-8


def project_slab(
    p: Tensor, g: Tensor, u: Tensor, c: Mapping[str, Tensor], layout: Layout
) -> tuple[Tensor, Tensor]:
    """Return updates ``[G, trained]`` projected tensor by tensor, and the factor on the decay.

    Args:
        p, g, u: ``[G, trained]`` parameters, gradients and updates.
        c: with ``projection_delta`` δ and ``projection_decay``, the factor where projected.
        layout: of the slabs; only weight matrices are projected.

    Returns:
        The updates, and ``[G, trained]`` factors, 1 where nothing was projected.
    """
    segments = trained_segments(layout)
    one = torch.ones_like(c["projection_decay"])
    updates: list[Tensor] = []
    factors: list[Tensor] = []
    for s in segments:
        if is_matrix(s):
            moved, done = project(rows(p, s), rows(g, s), rows(u, s), c["projection_delta"])
            updates.append(moved.flatten(1))
            factors.append(torch.where(done, c["projection_decay"], one))
        else:
            updates.append(at(u, s))
            factors.append(one)
    return torch.cat(updates, 1), spread(factors, segments)


def project(w: Tensor, g: Tensor, u: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the projected update of one layer, and whether it was projected.

    Args:
        w, g, u: ``[G, outputs, fan_in]`` weights, gradient and update.
        delta: ``[G, 1]``.

    Returns:
        ``[G, outputs, fan_in]`` and ``[G, 1]`` bool.
    """
    by_row = _cosine(w, g).amax(1) < delta / w.shape[2] ** 0.5
    flat = [t.flatten(1).unsqueeze(1) for t in (w, g, u)]
    whole = _cosine(flat[0], flat[1]).amax(1) < delta / (w.shape[1] * w.shape[2]) ** 0.5
    tangent_rows = _tangent(w, u)
    tangent_whole = _tangent(flat[0], flat[2]).view(u.shape)
    either = torch.where(whole.unsqueeze(2), tangent_whole, u)
    return torch.where(by_row.unsqueeze(2), tangent_rows, either), by_row | whole


def _cosine(w: Tensor, g: Tensor) -> Tensor:
    """Return |cos| of the rows ``[G, R, n]`` as ``[G, R, 1]``."""
    norms = row_norm(w).clamp(min=_EPS) * row_norm(g).clamp(min=_EPS)
    return ((w * g).sum(2, keepdim=True) / norms).abs()


def _tangent(w: Tensor, u: Tensor) -> Tensor:
    """Return the rows of u without their part along those of w."""
    unit = w / (row_norm(w) + _EPS)
    return u - unit * (unit * u).sum(2, keepdim=True)


def project_tensor(
    p: Tensor, g: Tensor, u: Tensor, delta: float, decay: float
) -> tuple[Tensor, float]:
    """Return the projected update of one tensor and the factor on its decay: algorithm 1."""
    if p.dim() > 1:
        views: Sequence[Callable[[Tensor], Tensor]] = (
            lambda t: t.flatten(1),
            lambda t: t.view(1, -1),
        )
        for view in views:
            w = view(p)
            if F.cosine_similarity(view(g), w, dim=1).abs().max() < delta / w.shape[1] ** 0.5:
                unit = w / (w.norm(dim=1, keepdim=True) + _EPS)
                along = (unit * view(u)).sum(1, keepdim=True)
                return (view(u) - unit * along).view(u.shape), decay
    return u, 1.0
