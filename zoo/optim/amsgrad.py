"""AMSGrad (Reddi et al. 2018, arXiv 1904.09237): Adam whose denominator never falls.

As Adam, with max(v₁, …, vₜ) for v.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.optim.adam import Adam, torch_arguments
from zoo.optim.base import OPTIMIZERS, Coefficients, TorchParams
from zoo.spec.run import RunSpec

__all__ = ["AMSGrad"]


class AMSGrad(Adam):
    """As ``torch.optim.Adam(amsgrad=True)``."""

    moments: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters, both moments and the largest second one."""
        p, g = self._decay(p, g, c)
        m = torch.addcmul(moments[0], c["gain1"], g - moments[0])
        v = torch.addcmul(moments[1] * c["beta2"], c["gain2"] * g, g)
        most = torch.maximum(moments[2], v)
        denominator = torch.addcmul(c["eps"], most.sqrt(), c["inverse_root"])
        return torch.addcmul(p, c["step_size"], m / denominator, value=-1), [m, v, most]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return ``torch.optim.Adam`` with ``amsgrad``."""
        return torch.optim.Adam(params, **torch_arguments(run), amsgrad=True)


OPTIMIZERS.register(
    "amsgrad",
    doc="Adam over the largest second moment so far",
    source="Reddi et al. 2018, arXiv 1904.09237",
)(AMSGrad())
