"""Weight standardization (Qiao et al. 2019, arXiv 1903.10520).

ŵ = (w − μ)/√(σ² + ε), with mean and biased variance over the inputs of each output unit (each
filter). ε is that of BiT (Kolesnikov et al. 2019, arXiv 1912.11370): small beside the variance of
any initialisation, so that ŵ does not depend on the scale of w.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.architectures.mode import wide
from zoo.architectures.norms.base import standardize, standardize_backward
from zoo.architectures.weights.base import WEIGHT_TRANSFORMS, WeightTransform
from zoo.kernels.language import on_device
from zoo.kernels.norm import Affine, NormSpec, norm, norm_backward

__all__ = ["EPS", "Standardized"]

#: Added to the variance of a filter.
EPS = 1e-10
_DIMS = (2,)


class Standardized(WeightTransform):
    """Zero mean and unit variance over the inputs of each output: odd in w, blind to its scale."""

    output_factors: ClassVar[frozenset[str]] = frozenset({"sign"})

    def forward(self, w: Tensor) -> tuple[Tensor, Any]:
        """Return the standardised filters."""
        if on_device(w):
            rows = w.flatten(2).unsqueeze(2)
            found, statistics = norm(rows, Affine(), NormSpec(eps=EPS))
            return found.view(w.shape), (rows, statistics)
        xhat, rstd, _, _ = standardize(w.flatten(2), _DIMS, EPS)
        return xhat.view(w.shape), (xhat, rstd)

    def backward(self, dw: Tensor, saved: Any) -> Tensor:
        """Return rstd · (dŵ − mean(dŵ) − ŵ · mean(dŵ · ŵ))."""
        if on_device(dw):
            rows, statistics = saved
            d = dw.reshape(rows.shape)
            found, _ = norm_backward(rows, Affine(), NormSpec(eps=EPS), statistics, d)
            return found.view(dw.shape)
        xhat, rstd = saved
        d = standardize_backward(wide(dw).flatten(2), xhat, rstd, _DIMS)
        return d.view(dw.shape)

    def single(self, w: Tensor) -> Tensor:
        """Return the standardised filters of one model."""
        rows = w.flatten(1)
        var, mean = torch.var_mean(rows, 1, correction=0, keepdim=True)
        return ((rows - mean) / torch.sqrt(var + EPS)).view(w.shape)


WEIGHT_TRANSFORMS.register(
    "standardize",
    doc="zero mean and unit variance over the inputs of each output",
    source="Qiao et al. 2019, arXiv 1903.10520",
)(Standardized())
