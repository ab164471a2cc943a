"""Spectral density of the Hessian by stochastic Lanczos quadrature, and two measures of it.

Nodes and weights are stored, not curves: ∫ f dρ ≈ mean over vectors of Σ w_i f(λ_i) (Ghorbani et
al. 2019, arXiv 1901.10159). r_e = |λ_min / λ_max| and K_Hn = Σ_{λ<0} |λ w|ⁿ / Σ_{λ>0} (λ w)ⁿ with
n = 1/2 compare its negative side with its positive one (Gabdullin 2024, loss-landscape-analysis);
both depend on the number of nodes, which therefore is part of their definition.

The density's first moment times D is the trace, without bias, but as uncertain as Hutchinson's
estimate from so few vectors: 10 to 20 % off with four of them, where a few eigenvalues make up most
of it and each vector weights them at random. So it is given with its standard error, and
``hessian_trace`` of the metric ``curvature`` is the better estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.landscape.base import MODEL_METRICS, Column, ModelBlock, ModelMetric, mean_and_error
from zoo.landscape.hessian import Hessian
from zoo.landscape.lanczos import Krylov
from zoo.landscape.random import signs

__all__ = ["negative_share", "spectrum"]


def negative_share(nodes: Tensor, weights: Tensor, power: float = 0.5) -> Tensor:
    """Return K_Hn ``[...]`` of nodes and weights ``[..., n]``; NaN without a positive node."""
    terms = (nodes * weights).abs() ** power
    positive = torch.where(nodes > 0, terms, 0.0).sum(-1)
    negative = torch.where(nodes < 0, terms, 0.0).sum(-1)
    return torch.where(positive > 0, negative / positive, torch.nan)


def spectrum(block: ModelBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return nodes, weights ``[G, V, m]``, trace, r_e and K_H½ of the training loss's Hessian.

    Args:
        block: the models.
        options: ``nodes`` m of each of ``vectors`` V Lanczos runs from Rademacher vectors.
    """
    hessian = Hessian(block.network, block.slab, block.train)
    nodes, weights = [], []
    for number in range(options["vectors"]):
        start = signs(block.seeds, "spectrum", number, hessian.size)
        krylov = Krylov.start(hessian.product, start)
        krylov.grow(options["nodes"])
        values, _, share = krylov.ritz()
        short = options["nodes"] - values.shape[1]
        nodes.append(torch.nn.functional.pad(values, (0, short), value=torch.nan))
        weights.append(torch.nn.functional.pad(share, (0, short), value=0.0))
    where, how_much = torch.stack(nodes, 1), torch.stack(weights, 1)
    at = where.nan_to_num(0.0)
    ratio = at.amin(2).abs() / at.amax(2)
    lost = ~torch.isfinite(where[:, :, 0])
    traces = torch.where(lost, torch.nan, hessian.size * (at * how_much).sum(2))
    trace, trace_error = mean_and_error(traces.T)
    ratio, ratio_error = mean_and_error(torch.where(lost, torch.nan, ratio).T)
    share = torch.where(lost, torch.nan, negative_share(at, how_much))
    k_h, k_h_error = mean_and_error(share.T)
    return {
        "slq_nodes": where,
        "slq_weights": how_much,
        "slq_trace": trace,
        "slq_trace_se": trace_error,
        "r_e": ratio,
        "r_e_se": ratio_error,
        "k_h": k_h,
        "k_h_se": k_h_error,
    }


MODEL_METRICS.register(
    "spectrum",
    doc="spectral density of the Hessian by stochastic Lanczos quadrature",
    source="Ghorbani et al. 2019, arXiv 1901.10159",
)(
    ModelMetric(
        columns=(
            Column("slq_nodes", "nodes of the Hessian's spectral density", ("vector", "node")),
            Column("slq_weights", "their weights; each vector's sum to 1", ("vector", "node")),
            Column("slq_trace", "trace by the density; hessian_trace is the better estimate"),
            Column("slq_trace_se", "its standard error over vectors"),
            Column("r_e", "|λ_min / λ_max|, mean over vectors"),
            Column("r_e_se", "its standard error"),
            Column("k_h", "K_Hn with n = 1/2, mean over vectors"),
            Column("k_h_se", "its standard error"),
        ),
        compute=spectrum,
        options={"nodes": 80, "vectors": 4},
        passes=1280.0,
        default=False,
    )
)
