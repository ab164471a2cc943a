"""Extreme eigenvalues and trace of the Hessian, with their errors.

λ_max and λ_min are Ritz values of Lanczos with full re-orthogonalisation; the trace is that of the
Krylov space, exact, plus Hutchinson's estimate on its complement: Hutch++ (Meyer et al. 2021, arXiv
2010.09649) with the Lanczos basis as its subspace. The number of probes never depends on chance: a
model takes more only where its own error is large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.landscape.base import MODEL_METRICS, Column, ModelBlock, ModelMetric, layers
from zoo.landscape.hessian import Hessian
from zoo.landscape.lanczos import Krylov, project_out
from zoo.landscape.random import signs
from zoo.spec.run import RunSpec

__all__ = ["curvature", "product_error", "stable_curvature"]

_OPTIONS = {
    "steps": 30,
    "more_steps": 60,
    "residual": 1e-3,
    "probes": 30,
    "more_probes": [60, 100],
    "error": 0.05,
}


def stable_curvature(run: RunSpec, lr: float) -> float:
    """Return the λ_max at which full-batch training with a run's optimizer turns unstable.

    Cohen et al. 2021 (arXiv 2103.00065): 2(1 + β)/η for SGD with (heavy-ball) momentum β, and
    2(1 + β)/(η(1 + 2β)) with Nesterov's. NaN for other optimizers, and at a rate of zero.
    """
    if run.optimizer != "sgd" or not lr > 0:
        return math.nan
    beta = run.momentum or 0.0
    return 2 * (1 + beta) / (lr * (1 + 2 * beta if run.nesterov else 1))


def curvature(block: ModelBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return λ_max, λ_min, trace and layer traces of the Hessian on the training probe.

    Args:
        block: the models.
        options: ``steps`` of Lanczos, and ``more_steps`` for models whose residual is above
            ``residual`` · |λ_max|; ``probes`` of Hutchinson, and ``more_probes`` as long as the
            standard error is above ``error`` · |trace|.

    Returns:
        The columns of the metric, ``[G]`` and ``[G, L]`` float64. ``edge_of_stability`` is λ_max
        over its value at the edge, so 1 there; see :func:`stable_curvature`.
    """
    hessian = Hessian(block.network, block.slab, block.train)
    parts = [(start, stop) for _, start, stop in layers(block.network)]
    by_layer: list[Tensor] = []
    first = signs(block.seeds, "lanczos", 0, hessian.size)
    krylov = Krylov.start(
        hessian.product, first, lambda q, hq: by_layer.append(_layer_sums(q * hq, parts))
    )
    krylov.grow(options["steps"])
    low = _extremes(krylov)
    wanting = low["lambda_max_residual"] > options["residual"] * low["lambda_max"].abs()
    if bool(wanting.any()):
        used = krylov.steps
        krylov.grow(options["more_steps"])
        high = _extremes(krylov)
        low = {name: torch.where(wanting, high[name], low[name]) for name in low}
        # A model that was content keeps what it had, whatever its neighbours needed.
        krylov.basis[~wanting, used:] = 0
        krylov.diagonal[~wanting, used:] = 0
        for sums in by_layer[used:]:
            sums[~wanting] = 0
    least = product_error(low["lambda_max"], low["lambda_min"], hessian.size)
    for name in ("lambda_max_residual", "lambda_min_residual"):
        low[name] = torch.maximum(low[name], least)
    inside = krylov.diagonal.double().sum(1)
    inside_layers = torch.stack(by_layer).sum(0)
    found = _hutchinson(block, hessian, krylov.basis, parts, inside, options)
    return {
        **low,
        "hessian_trace": inside + found["mean"],
        "hessian_trace_se": found["error"],
        "hessian_layer_trace": inside_layers + found["layer_mean"],
        "hessian_layer_trace_se": found["layer_error"],
        "edge_of_stability": low["lambda_max"] / block.edge,
    }


def product_error(high: Tensor, low: Tensor, size: int) -> Tensor:
    """Return what float32 may put an eigenvalue off by: 2 ε √D · the largest |λ|, ε = 2⁻²³.

    Lanczos runs on products that are rounded, so its own residual falls far below what it can know:
    to 10⁻³⁰ once the space is exhausted.

    Args:
        high, low: ``[G]`` extreme eigenvalues.
        size: D.
    """
    largest = torch.maximum(high.abs(), low.abs())
    error: Tensor = 2 * torch.finfo(torch.float32).eps * size**0.5 * largest
    return error


def _extremes(krylov: Krylov) -> dict[str, Tensor]:
    values, residuals, _ = krylov.ritz()
    return {
        "lambda_max": values[:, -1],
        "lambda_max_residual": residuals[:, -1],
        "lambda_min": values[:, 0],
        "lambda_min_residual": residuals[:, 0],
    }


def _layer_sums(product: Tensor, parts: list[tuple[int, int]]) -> Tensor:
    """Return ``[G, L]`` sums of a ``[G, D]`` product over each layer's columns."""
    return torch.stack([product[:, a:b].sum(1) for a, b in parts], 1).double()


def _hutchinson(
    block: ModelBlock,
    hessian: Hessian,
    basis: Tensor,
    parts: list[tuple[int, int]],
    inside: Tensor,
    options: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Estimate the trace on the complement of the basis, and each layer's share of it.

    With s = (1 − QQᵀ)z: sᵀHs for the whole, z_l · (Hs)_l for layer l.
    """
    whole: list[Tensor] = []
    shares: list[Tensor] = []
    found: dict[str, Tensor] = {}
    wanting = torch.ones_like(inside, dtype=torch.bool)
    for count in (options["probes"], *options["more_probes"]):
        for number in range(len(whole), count):
            z = signs(block.seeds, "trace", number, hessian.size)
            s = project_out(z, basis)
            image = hessian.product(s)
            whole.append((s * image).double().sum(1))
            shares.append(_layer_sums(z * image, parts))
        new = {**_estimate(whole, ""), **_estimate(shares, "layer_")}
        if found:
            # A model that was content keeps its fewer probes.
            new = {
                name: torch.where(wanting.view(-1, *[1] * (value.dim() - 1)), value, found[name])
                for name, value in new.items()
            }
        found = new
        wanting &= found["error"] > options["error"] * (inside + found["mean"]).abs()
        if not bool(wanting.any()):
            break
    return found


def _estimate(draws: list[Tensor], prefix: str) -> dict[str, Tensor]:
    values = torch.stack(draws)
    return {
        f"{prefix}mean": values.mean(0),
        f"{prefix}error": values.std(0) / len(draws) ** 0.5,
    }


MODEL_METRICS.register(
    "curvature",
    doc="largest and smallest eigenvalue and trace of the Hessian",
    source="Meyer et al. 2021, arXiv 2010.09649",
)(
    ModelMetric(
        columns=(
            Column("lambda_max", "largest eigenvalue of the mean training loss's Hessian"),
            Column("lambda_max_residual", "bound of the distance to an eigenvalue, with rounding"),
            Column("lambda_min", "smallest Ritz value of the Hessian, an upper bound of λ_min"),
            Column("lambda_min_residual", "bound of the distance to an eigenvalue, with rounding"),
            Column("hessian_trace", "trace of the Hessian"),
            Column("hessian_trace_se", "its standard error"),
            Column("hessian_layer_trace", "trace of each layer's block of the Hessian", ("layer",)),
            Column("hessian_layer_trace_se", "its standard error", ("layer",)),
            Column("edge_of_stability", "λ_max over its edge, 2 (1 + momentum)/lr for SGD"),
        ),
        compute=curvature,
        options=_OPTIONS,
        passes=240.0,
    )
)
