"""Norms and spectra of the weight matrices: exact functions of the weights, so without an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.landscape.base import MODEL_METRICS, Column, ModelBlock, ModelMetric

__all__ = ["weight_spectra"]


def weight_spectra(block: ModelBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return Frobenius norm, spectral norm, stable rank and singular values of every kernel.

    A kernel is read as a matrix ``[out, rest]``; L kernels. Stable rank is ‖W‖²_F/σ₁² (Rudelson and
    Vershynin 2007). Singular values fall, padded with NaN to the longest kernel's.
    """
    named = block.network.views(block.slab)
    kernels = [s for s in block.network.layout.segments if s.role == "kernel"]
    spectra = [torch.linalg.svdvals(named[s.name].double().flatten(2)) for s in kernels]
    longest = max(s.shape[1] for s in spectra)
    padded = [
        torch.nn.functional.pad(s, (0, longest - s.shape[1]), value=torch.nan) for s in spectra
    ]
    norm = torch.stack([s.norm(dim=1) for s in spectra], 1)
    top = torch.stack([s[:, 0] for s in spectra], 1)
    return {
        "layer_norm": norm,
        "spectral_norm": top,
        "stable_rank": torch.where(top > 0, (norm / top).square(), torch.nan),
        "singular_values": torch.stack(padded, 1),
    }


MODEL_METRICS.register("weights", doc="norms and spectra of the weight matrices")(
    ModelMetric(
        columns=(
            Column("layer_norm", "Frobenius norm of each kernel", ("kernel",)),
            Column("spectral_norm", "largest singular value of each kernel", ("kernel",)),
            Column("stable_rank", "squared Frobenius over squared spectral norm", ("kernel",)),
            Column("singular_values", "of each kernel, falling", ("kernel", "value")),
        ),
        compute=weight_spectra,
        passes=4.0,
    )
)
