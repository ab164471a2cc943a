"""Filter response normalisation with its thresholded linear unit (Singh and Krishnan 2019,
arXiv 1911.09737): norm and activation in one, without means and without a batch.

x̂ = x/√(mean(x²) + ε) over the positions of each channel of an example, and y = max(γx̂ + β, τ) with
γ, β and τ a channel each. It replaces the activation too, so a run with this norm has
``activation = "identity"``.
"""  # noqa: D205

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.architectures.mode import wide
from zoo.architectures.norms.base import NORMS, Norm
from zoo.architectures.op import Mode, Param, Params

__all__ = ["EPS", "FilterResponseNorm", "FilterResponseNormModule"]

#: The paper's ε for maps of more than one position.
EPS = 1e-6
_DIMS = (2,)


@NORMS.register(
    "frn",
    doc="each channel over its root mean square, cut off below a learned threshold",
    source="Singh and Krishnan 2019, arXiv 1911.09737",
)
class FilterResponseNorm(Norm):
    """A channel over its root mean square, scaled, shifted, and cut off below a threshold."""

    fixes: ClassVar[Mapping[str, Any]] = {"activation": "identity"}
    #: A threshold keeps positive factors alone.
    output_factors: ClassVar[frozenset[str]] = frozenset({"scale"})

    def params(self) -> tuple[Param, ...]:
        """Return weight γ, bias β and threshold τ, all ``[C]``."""
        return (*super().params(), Param("threshold", (self.shape.channels,), "norm_bias"))

    def problem(self) -> str | None:
        """Refuse a single position: its norm is the sign of the input."""
        if self.shape.positions == 1:
            return "filter response norm needs more than one position; use a cnn"
        return None

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Any]:
        """Normalise each channel, scale, shift, and take the larger of it and the threshold."""
        x = wide(x)
        rstd = torch.rsqrt(x.square().mean(_DIMS, keepdim=True) + EPS)
        xhat = x * rstd
        weight, bias, threshold = (
            p[self.key(name)][:, None, None] for name in ("weight", "bias", "threshold")
        )
        y = xhat * weight + bias
        above = y > threshold
        return torch.where(above, y, threshold), (xhat, rstd, above)

    def backward(
        self, p: Params, saved: Any, dy: Tensor, mode: Mode, *, need_dx: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Return the gradients: above the threshold those of an RMS norm, below it that of τ."""
        xhat, rstd, above = saved
        dy = wide(dy)
        through = torch.where(above, dy, 0.0)
        grads = {
            self.key("weight"): (through * xhat).sum((1, 2)),
            self.key("bias"): through.sum((1, 2)),
            self.key("threshold"): torch.where(above, 0.0, dy).sum((1, 2)),
        }
        d = through * p[self.key("weight")][:, None, None]
        return (d - xhat * (d * xhat).mean(_DIMS, keepdim=True)) * rstd, grads

    def module(self) -> nn.Module:
        """Return a :class:`FilterResponseNormModule`."""
        return FilterResponseNormModule(self.shape.channels)


class FilterResponseNormModule(nn.Module):
    """Filter response norm and thresholded linear unit of ``[B, C, ...]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.threshold = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised and activated input."""
        weight, bias, threshold = (
            p.view(-1, *(1,) * (x.dim() - 2)) for p in (self.weight, self.bias, self.threshold)
        )
        square = x.square().mean(tuple(range(2, x.dim())), keepdim=True)
        y = x * torch.rsqrt(square + EPS) * weight + bias
        return torch.where(y > threshold, y, threshold)
