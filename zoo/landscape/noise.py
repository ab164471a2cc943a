"""Gradient noise: tr Σ of single-example gradients and |G|², apart.

McCandlish et al. 2018 (arXiv 1812.06162). Their ratio, the noise scale, is left to the reader: |G|²
estimated without bias is often negative once a model is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.example_gradients import ExampleGradients
from zoo.architectures.network import Network
from zoo.architectures.per_example import example_gradients
from zoo.landscape.base import MODEL_METRICS, Column, ModelBlock, ModelMetric
from zoo.landscape.hessian import Hessian
from zoo.landscape.stacked import Probe

__all__ = ["gradient_noise", "squared_norms"]

#: Examples a walk: single gradients take memory.
_CHUNK = 128


def squared_norms(network: Network, slab: Tensor, probe: Probe) -> Tensor:
    """Return |∇ loss_i|² of every example ``[G, N]``, as float64.

    A linear layer's gradient is an outer product, whose norm is the product of the norms; a
    convolution's is summed over positions first.
    """
    G, p = slab.shape[0], network.views(slab)
    found = []
    for start in range(0, probe.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        x, targets = probe.inputs(G)[:, part], probe.targets(G)[:, part]
        norms: list[Tensor] = []

        def own_losses(z: Tensor, targets: Tensor = targets) -> list[Tensor]:
            return [probe.objective.gradient(z, targets)]

        def collect(item: ExampleGradients, norms: list[Tensor] = norms) -> None:
            norms.append(item.square_norms().double())

        example_gradients(network, p, x, own_losses, collect)
        found.append(torch.stack(norms).sum(0))
    return torch.cat(found, 1)


def gradient_noise(block: ModelBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return tr Σ and |G|² of the training loss, both unbiased, with standard errors.

    With n examples, mean gradient ḡ and single gradients g_i: tr Σ = Σ|g_i − ḡ|²/(n − 1) and
    |G|² = |ḡ|² − tr Σ/n. Errors: the spread of |g_i − ḡ|², and 2·sd(g_i·ḡ)/√n.
    """
    probe = block.train
    hessian = Hessian(block.network, block.slab, probe)
    mean = hessian.gradient.double().square().sum(1)
    along = hessian.loss_tangent(hessian.gradient).double()
    squares = squared_norms(block.network, block.slab, probe)
    if probe.uneven:  # of a weighted example the gradient counts as often as its weight says
        share = probe.weight.double() * probe.counts.unsqueeze(1)
        along, squares = along * share, squares * share.square()
    there = (probe.weight > 0).expand(block.models, -1)
    n = there.sum(1).double()
    away = torch.where(there, squares - 2 * along + mean[:, None], 0.0)
    trace = away.sum(1) / (n - 1)
    away_sd = _spread(away, there, n)
    return {
        "grad_noise_trace": trace,
        "grad_noise_trace_se": away_sd / n.sqrt(),
        "grad_square": mean - trace / n,
        "grad_square_se": 2 * _spread(along, there, n) / n.sqrt(),
    }


def _spread(values: Tensor, there: Tensor, n: Tensor) -> Tensor:
    """Return the standard deviation ``[G]`` over the examples that count."""
    kept = torch.where(there, values, 0.0)
    mean = kept.sum(1) / n
    return (torch.where(there, (values - mean[:, None]).square(), 0.0).sum(1) / (n - 1)).sqrt()


MODEL_METRICS.register(
    "noise",
    doc="trace of the covariance of single-example gradients, and |G|²",
    source="McCandlish et al. 2018, arXiv 1812.06162",
)(
    ModelMetric(
        columns=(
            Column("grad_noise_trace", "trace of the covariance of single-example gradients"),
            Column("grad_noise_trace_se", "its standard error"),
            Column("grad_square", "|G|² of the true gradient, unbiased, may be negative"),
            Column("grad_square_se", "its standard error"),
        ),
        compute=gradient_noise,
        passes=8.0,
    )
)
