"""Neural collapse NC1 to NC4 of the penultimate features (Papyan et al. 2020, arXiv 2008.08186)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.landscape.base import MODEL_METRICS, Column, ModelBlock, ModelMetric
from zoo.landscape.stacked import features

__all__ = ["collapse_measures", "neural_collapse"]

#: Eigenvalues of the between-class covariance below this share of the largest count as zero.
_RANK = 1e-10


def collapse_measures(
    h: Tensor, z: Tensor, labels: Tensor, there: Tensor, head: Tensor
) -> dict[str, Tensor]:
    """Return nc1, nc2_norm, nc2_angle, nc3 and nc4, ``[G]`` each.

    * NC1 = tr(Σ_W Σ_B⁺)/C: spread within classes over spread between them.
    * NC2 = std/mean of ‖μ_c − μ_G‖, and mean over c ≠ c' of |cos + 1/(C − 1)|.
    * NC3 = ‖W/‖W‖_F − M/‖M‖_F‖²_F with M the centred class means.
    * NC4 = share of examples whose prediction is not the nearest class mean.

    Args:
        h: ``[G, N, D]`` features, float64.
        z: ``[G, N, C]`` logits.
        labels: ``[G, N]``.
        there: ``[G, N]``: which examples count.
        head: ``[G, C, D]`` weights of the last layer.

    NaN where a class has no example.
    """
    C = head.shape[1]
    member = torch.nn.functional.one_hot(labels, C).to(h.dtype) * there.unsqueeze(-1)
    count = member.sum(1)
    total = count.sum(1, keepdim=True)
    means = torch.einsum("gnc,gnd->gcd", member, h) / count.unsqueeze(-1)
    centre = torch.where(there.unsqueeze(-1), h, 0.0).sum(1) / total
    M = means - centre[:, None]
    inside = (h - means.gather(1, labels.unsqueeze(-1).expand_as(h))) * there.unsqueeze(-1)
    within = torch.bmm(inside.mT, inside) / total.unsqueeze(-1)
    between = torch.bmm(M.mT, M) / C
    empty = (count == 0).any(1) | ~torch.isfinite(h).flatten(1).all(1)
    clean = torch.where(empty[:, None, None], 0.0, between)
    values, vectors = torch.linalg.eigh(clean)
    large = values > _RANK * values[:, -1:].clamp_min(1e-300)
    inverse = torch.where(large, 1 / values, 0.0)
    spread = torch.einsum("gdk,gde,gek->gk", vectors, within, vectors)
    norms = M.norm(dim=2)
    cosines = torch.bmm(M, M.mT) / (norms.unsqueeze(1) * norms.unsqueeze(2)).clamp_min(1e-300)
    off = ~torch.eye(C, dtype=torch.bool, device=h.device)
    distance = torch.cdist(h, means)
    differ = (z.argmax(-1) != distance.argmin(-1)) & there
    found = {
        "nc1": (spread * inverse).sum(1) / C,
        "nc2_norm": norms.std(1, correction=0) / norms.mean(1),
        "nc2_angle": (cosines + 1 / (C - 1)).abs()[:, off].mean(1),
        "nc3": (_unit(head) - _unit(M)).square().sum((1, 2)),
        "nc4": differ.double().sum(1) / total.squeeze(1),
    }
    # All class means in one point: nothing to compare.
    lost = empty | ~large.any(1)
    return {name: torch.where(lost, torch.nan, value) for name, value in found.items()}


def _unit(matrix: Tensor) -> Tensor:
    out: Tensor = matrix / matrix.flatten(1).norm(dim=1).clamp_min(1e-300)[:, None, None]
    return out


def neural_collapse(block: ModelBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return NC1 to NC4 on the training probe.

    The standard error is half the difference between two halves of the probe, over √2·√2 = 1 degree
    of freedom: right on average, rough for a single model.
    """
    G = block.models
    _, h, z = features(block.network, block.slab, block.train.x)
    last = block.network.head
    if not last.reads_features:  # of a module of a user's own, nothing is known within
        unknown = torch.full((G,), torch.nan, dtype=torch.float64)
        return {name: unknown for key in _DOCS for name in (key, f"{key}_se")}
    head = block.network.views(block.slab)[last.key("weight")].double()
    labels = block.train.targets(G)
    there = (block.train.weight > 0).expand(G, -1)
    position = torch.arange(h.shape[1], device=h.device)
    h, z = h.double(), z.double()
    whole = collapse_measures(h, z, labels, there, head)
    halves = [
        collapse_measures(h, z, labels, there & (position % 2 == half), head) for half in (0, 1)
    ]
    errors = {f"{k}_se": (halves[0][k] - halves[1][k]).abs() / 2 for k in whole}
    return whole | errors


_DOCS = {
    "nc1": "NC1: tr(Σ_W Σ_B⁺)/C of the penultimate features",
    "nc2_norm": "NC2: std/mean of the lengths of the centred class means",
    "nc2_angle": "NC2: mean |cos + 1/(C - 1)| between the centred class means",
    "nc3": "NC3: squared distance of last layer and class means, both of unit norm",
    "nc4": "NC4: share of examples not assigned to the nearest class mean",
}

MODEL_METRICS.register(
    "collapse",
    doc="neural collapse NC1 to NC4 of the last features",
    source="Papyan et al. 2020, arXiv 2008.08186",
)(
    ModelMetric(
        columns=tuple(
            column
            for name, doc in _DOCS.items()
            for column in (Column(name, doc), Column(f"{name}_se", "its standard error, rough"))
        ),
        compute=neural_collapse,
        needs="labels",
        passes=4.0,
    )
)
