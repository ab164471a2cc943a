"""The neural tangent kernel: alignment with the labels, and distance from the kernel at the start.

The kernel is summed over classes, K_ij = Σ_c ⟨∇f_c(x_i), ∇f_c(x_j)⟩ ``[n, n]``, on the first n
training examples of the probe. Alignment ⟨HKH, HYYᵀH⟩/(‖·‖‖·‖) with one-hot labels Y and centring H
(Cortes et al. 2012); distance 1 − ⟨K_0, K⟩/(‖K_0‖‖K‖) (Fort et al. 2020, arXiv 2010.15110).
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
from zoo.landscape.stacked import Probe

__all__ = ["kernel_alignment", "kernel_distance", "tangent_kernel"]


def tangent_kernel(network: Network, slab: Tensor, probe: Probe) -> Tensor:
    """Return the class-summed kernel ``[G, n, n]`` float64 of a probe's examples."""
    G, n = slab.shape[0], probe.size
    total = torch.zeros(G, n, n, dtype=torch.float64, device=slab.device)

    def each_class(z: Tensor) -> list[Tensor]:
        found = []
        for c in range(z.shape[2]):
            d = torch.zeros_like(z)
            d[..., c] = 1
            found.append(d)
        return found

    def collect(item: ExampleGradients) -> None:
        total.add_(item.gram())

    example_gradients(network, network.views(slab), probe.inputs(G), each_class, collect)
    return total


def kernel_alignment(kernel: Tensor, values: Tensor) -> Tensor:
    """Return the centred alignment ``[G]`` of kernels ``[G, n, n]`` with targets ``[G, n, C]``."""
    y = values - values.mean(1, keepdim=True)
    target = torch.bmm(y, y.mT)
    centred = kernel - kernel.mean(1, keepdim=True)
    centred = centred - centred.mean(2, keepdim=True)
    return _cosine(centred, target)


def kernel_distance(kernel: Tensor, other: Tensor) -> Tensor:
    """Return 1 − cosine ``[G]`` of kernels ``[G, n, n]``."""
    return 1 - _cosine(kernel, other)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    lengths = a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1)
    return torch.where(lengths > 0, (a * b).sum((1, 2)) / lengths, torch.nan)


def _measures(block: ModelBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    probe = block.train.part(slice(0, options["examples"]))
    now = tangent_kernel(block.network, block.slab, probe)
    start = tangent_kernel(block.network, block.initial, probe)
    values = probe.objective.as_values(probe.targets(block.models), block.classes)
    n = probe.size
    short = (probe.counts < n).expand(block.models)
    parts = (slice(0, n), slice(0, n // 2), slice(n // 2, n))
    found = []
    for part in parts:
        here, before = now[:, part, part], start[:, part, part]
        found.append(
            {
                "ntk_alignment": kernel_alignment(here, values[:, part]),
                "ntk_distance": kernel_distance(here, before),
            }
        )
    out = {}
    for name, value in found[0].items():
        out[name] = torch.where(short, torch.nan, value)
        half = (found[1][name] - found[2][name]).abs() / 2
        out[f"{name}_se"] = torch.where(short, torch.nan, half)
    return out


MODEL_METRICS.register(
    "ntk",
    doc="tangent kernel: alignment with the labels, distance from the start",
    source="Fort et al. 2020, arXiv 2010.15110",
)(
    ModelMetric(
        columns=(
            Column("ntk_alignment", "centred alignment of the tangent kernel with the labels"),
            Column("ntk_alignment_se", "its standard error, rough"),
            Column("ntk_distance", "1 - cosine of the tangent kernel with that at the start"),
            Column("ntk_distance_se", "its standard error, rough"),
        ),
        compute=_measures,
        options={"examples": 128},
        passes=6.0,
    )
)
