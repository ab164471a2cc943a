"""Sharpness under perturbations: SAM, adaptive SAM worst case, and adaptive average.

* SAM (Foret et al. 2021, arXiv 2010.01412): one step δ = ρ g/‖g‖.
* ASAM (Kwon et al. 2021, arXiv 2102.11600): one step δ = ρ T²g/‖Tg‖ with T = |θ|; unchanged when a
  ReLU unit's weights are rescaled.
* average (Andriushchenko et al. 2023, arXiv 2302.07011): δ = ρ |θ| z, z standard normal.

Worst cases are taken over disjoint batches of m examples (m-sharpness) and averaged. They describe
a model; they are no predictor of generalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.landscape.base import MODEL_METRICS, Column, ModelBlock, ModelMetric, mean_and_error
from zoo.landscape.random import normals
from zoo.landscape.stacked import Probe, losses, mean_gradient

__all__ = ["asam_step", "average_sharpness", "sam_step", "sharpness"]

_TINY = 1e-30


def sam_step(g: Tensor, rho: float) -> Tensor:
    """Return ρ g/‖g‖ ``[G, D]``."""
    step: Tensor = rho * g / g.norm(dim=1, keepdim=True).clamp_min(_TINY)
    return step


def asam_step(w: Tensor, g: Tensor, rho: float) -> Tensor:
    """Return ρ T²g/‖Tg‖ ``[G, D]`` with T = |w|."""
    length = (w.abs() * g).norm(dim=1, keepdim=True).clamp_min(_TINY)
    step: Tensor = rho * w.square() * g / length
    return step


def average_sharpness(block: ModelBlock, *, rho: float, draws: int) -> Tensor:
    """Return L(θ + ρ|θ|z) − L(θ) of every draw, ``[draws, G]`` float64."""
    trained = block.network.layout.trained
    base = losses(block.network, block.slab, block.train)
    found = []
    for number in range(draws):
        moved = block.slab.clone()
        w = moved[:, :trained]
        w += rho * w.abs() * normals(block.seeds, "average", number, trained)
        found.append(losses(block.network, moved, block.train) - base)
    return torch.stack(found)


def _ascent(block: ModelBlock, batch: Probe, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Return what SAM's and ASAM's step raise the loss of a batch by, both ``[G]``."""
    trained = block.network.layout.trained
    base, g = mean_gradient(block.network, block.slab, batch)
    w = block.slab[:, :trained]
    raised = []
    for step in (sam_step(g, options["sam_rho"]), asam_step(w, g, options["asam_rho"])):
        moved = torch.cat([w + step, block.slab[:, trained:]], 1)
        raised.append(losses(block.network, moved, batch) - base)
    return raised[0], raised[1]


def sharpness(block: ModelBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return SAM, ASAM worst case and average of the training loss, with their errors.

    Args:
        block: the models.
        options: ``batch`` m; ``sam_rho``, ``asam_rho``; ``average_rho``, ``average_draws``.

    A batch counts for a model that has all of its examples; a model with fewer training examples
    than one batch has no worst case. The error is over batches, and over draws for the average.
    """
    size = min(options["batch"], block.train.size)
    found, there = [], []
    for start in range(0, block.train.size - size + 1, size):
        batch = block.train.part(slice(start, start + size))
        found.append(torch.stack(_ascent(block, batch, options)))
        # Only whole batches count, so that every worst case is over as many examples.
        there.append((batch.counts == size).expand(block.models))
    values, whole = torch.stack(found), torch.stack(there)
    count = whole.sum(0)
    mean = torch.where(whole[:, None], values, 0.0).sum(0) / count
    squares = torch.where(whole[:, None], (values - mean).square(), 0.0).sum(0)
    error = torch.where(count > 1, (squares / (count - 1).clamp_min(1) / count).sqrt(), torch.nan)
    draws = average_sharpness(block, rho=options["average_rho"], draws=options["average_draws"])
    average, average_error = mean_and_error(draws)
    return {
        "sam": mean[0],
        "sam_se": error[0],
        "asam_worst": mean[1],
        "asam_worst_se": error[1],
        "asam_average": average,
        "asam_average_se": average_error,
    }


MODEL_METRICS.register(
    "sharpness",
    doc="loss under perturbations: SAM, adaptive SAM, adaptive average",
    source="Foret et al. 2021, arXiv 2010.01412; Kwon et al. 2021, arXiv 2102.11600",
)(
    ModelMetric(
        columns=(
            Column("sam", "SAM sharpness: rise of the training loss{unit}"),
            Column("sam_se", "its standard error over batches"),
            Column("asam_worst", "adaptive worst-case sharpness, one step{unit}"),
            Column("asam_worst_se", "its standard error over batches"),
            Column("asam_average", "adaptive average-case sharpness{unit}"),
            Column("asam_average_se", "its standard error over draws"),
        ),
        compute=sharpness,
        options={
            "batch": 128,
            "sam_rho": 0.05,
            "asam_rho": 0.5,
            "average_rho": 0.05,
            "average_draws": 20,
        },
        passes=30.0,
    )
)
