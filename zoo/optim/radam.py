"""RAdam (Liu et al. 2019, arXiv 1908.03265): Adam with its variance rectified.

With ρ∞ = 2/(1−β₂) − 1, ρₜ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ) and Adam's moments (λp added to g first):
where ρₜ > 5, p ← p − η·rₜ·m̂·√(1−β₂ᵗ)/(√v + ε), rₜ² = (ρₜ−4)(ρₜ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρₜ);
else p ← p − η·m̂.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.optim.adam import Adam, torch_arguments
from zoo.optim.base import OPTIMIZERS, Coefficients, TorchParams
from zoo.spec.run import RunSpec

__all__ = ["RAdam"]


class RAdam(Adam):
    """As ``torch.optim.RAdam``."""

    coefficients: ClassVar[tuple[str, ...]] = (
        "rectified",
        "plain",
        "gain1",
        "beta2",
        "gain2",
        "eps",
        "weight_decay",
    )

    def table(
        self, runs: Sequence[RunSpec], lr: NDArray[np.float64], step: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float64]]:
        """Return the step sizes with and without the second moment: one of the two is zero."""
        found = super().table(runs, lr, step)
        b2 = np.array([run.beta2 for run in runs], dtype=np.float64)
        whole = 2 / (1 - b2) - 1
        rho = whole - 2 * step * b2**step / (1 - b2**step)
        safe = np.where(rho > 5, rho, 6.0)
        square = (safe - 4) * (safe - 2) * whole / ((whole - 4) * (whole - 2) * safe)
        rate = np.sqrt(np.maximum(square, 0)) * np.sqrt(1 - b2**step)
        return {
            **found,
            "rectified": np.where(rho > 5, found["step_size"] * rate, 0.0),
            "plain": np.where(rho > 5, 0.0, found["step_size"]),
        }

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the stepped parameters and both moments."""
        p, g = self._decay(p, g, c)
        m = torch.addcmul(moments[0], c["gain1"], g - moments[0])
        v = torch.addcmul(moments[1] * c["beta2"], c["gain2"] * g, g)
        size = c["plain"] + c["rectified"] / (v.sqrt() + c["eps"])
        return torch.addcmul(p, size, m, value=-1), [m, v]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return ``torch.optim.RAdam``."""
        return torch.optim.RAdam(params, **torch_arguments(run))


OPTIMIZERS.register(
    "radam",
    doc="Adam whose early steps are rectified for their variance",
    source="Liu et al. 2019, arXiv 1908.03265",
)(RAdam())
